//! Points 10, 11 and 13: slow clients are closed at their limits, those that leave let go of what they took, too many
//! are told so, and whoever is served when we stop is answered.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use tokio::time::Instant;

use super::wire::{DATA, END_HEADERS, END_STREAM, Frames, GET, GOAWAY, HEADERS, POST, RST_STREAM, block, frame};
use super::{CLIENT_ERRORS, status};
use crate::support::http2::{Client2, request, whole};
use crate::support::{Backend, Instance, Listener, Nobody, Plan, Reply, Script, deadline, echo, limited};

const CANCEL: u32 = 8;
const MANY: usize = 500;

/// How one of many ends: the last code it hears, the statuses on its streams, and how long it was left alone.
async fn one(address: SocketAddr, kind: &'static str) -> (Option<u32>, Vec<u16>, Duration) {
    let mut client = Frames::connect(address).await;
    let head = frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(&GET));
    match kind {
        "idle" => {}
        "header" => client.socket.send(&head[..head.len() - 3]).await,
        "continuation" => client.send(HEADERS, END_STREAM, 1, &block(&GET)).await,
        "body" => {
            client.send(HEADERS, END_HEADERS, 1, &block(&POST)).await;
            client.send(DATA, 0, 1, b"half").await;
        }
        other => panic!("no kind {other}"),
    }
    let since = Instant::now();
    let (mut code, mut statuses) = (None, Vec::new());
    while let Some(next) = client.next().await {
        match next.kind {
            GOAWAY => code = Some(next.code()),
            HEADERS => statuses.push(status(&next)),
            _ => {}
        }
    }
    (code, statuses, since.elapsed())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_slow_clients_of_each_kind_are_closed_at_their_limit() {
    let legacy = Backend::start(Script::Stall).await;
    let limits = "limits: { header_timeout: 1s, body_idle: 1s, idle: 2s, connections: 2000, in_flight: 2000 }";
    let plan = Plan::new(&legacy, &Nobody::open())
        .route("flag: false")
        .legacy_more("timeout: 60s, connect_timeout: 20s")
        .more(limits);
    let instance = Instance::start(&plan).await;
    let descriptors = |pid: u32| std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    let before = descriptors(instance.id());
    let kinds: [(&str, &[u16]); 4] = [("idle", &[]), ("header", &[]), ("continuation", &[]), ("body", &[408])];
    for (kind, expected) in kinds {
        let mut clients = tokio::task::JoinSet::new();
        for _ in 0..MANY {
            clients.spawn(one(instance.address, kind));
        }
        while let Some(done) = clients.join_next().await {
            let (code, statuses, open) = done.unwrap();
            assert_eq!((code, &*statuses), (Some(0), expected), "{kind}");
            assert!(
                open > Duration::from_millis(900) && open < Duration::from_secs(9),
                "{kind}: {open:?}"
            );
        }
    }
    assert_eq!(legacy.count(), 0);
    let pid = instance.id();
    deadline("descriptors to be given back", || descriptors(pid) <= before + 20).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_that_stops_is_told_408_and_its_connection_goes_on() {
    let legacy = echo().await;
    let sidecar = limited(&legacy, "body_idle: 300ms, idle: 60s");
    let mut client = Client2::connect(sidecar.address).await;
    let (stopped, mut body) = client.begin(request("POST", "/slow", &[], "").map(|_| ()), false).await;
    body.send_data("half".into(), false).unwrap();
    let since = Instant::now();
    let answer = stopped.await.unwrap();
    assert_eq!(answer.status(), 408);
    assert_eq!(answer.headers()["x-understudy-error"], "body_timeout");
    assert!(since.elapsed() >= Duration::from_millis(290), "{:?}", since.elapsed());
    assert_eq!(
        client.send(request("POST", "/", &[], "next")).await.unwrap().text(),
        "next"
    );
    assert_eq!(legacy.count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_clients_that_leave_cancel_all_their_streams_at_the_backend() {
    for how in ["closes", "resets"] {
        let legacy = Backend::start(Script::Stall).await;
        let sidecar = limited(&legacy, "idle: 60s");
        let mut clients = Vec::new();
        for _ in 0..20 {
            let mut client = Frames::connect(sidecar.address).await;
            for stream in [1, 3, 5, 7, 9] {
                client.ask(stream, &GET).await;
            }
            clients.push(client);
        }
        legacy.wait_for(100).await;
        for client in clients {
            if how == "resets" {
                client.socket.reset();
            }
        }
        deadline(&format!("requests to be cancelled when their client {how}"), || {
            legacy.open() == 0
        })
        .await;
        sidecar
            .wait_for_zero("understudy_requests_in_flight", &["legacy", "serves"])
            .await;
        sidecar.wait_for_zero("understudy_connections", &[]).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_over_the_limit_are_told_at_once_and_the_others_are_served() {
    let legacy = Listener::open().await;
    let sidecar = limited(&legacy, "in_flight: 3");
    let mut client = Client2::connect(sidecar.address).await;
    let mut waiting = Vec::new();
    for _ in 0..3 {
        let (answer, _) = client.begin(request("GET", "/", &[], "").map(|_| ()), true).await;
        let mut backend = legacy.accept().await;
        backend.message().await;
        waiting.push((answer, backend));
    }
    for _ in 0..20 {
        let since = Instant::now();
        let answer = client.send(request("GET", "/", &[], "")).await.unwrap();
        assert_eq!((answer.status, answer.header("retry-after")), (503, "1"));
        assert_eq!(answer.header("x-understudy-error"), "overload");
        assert!(since.elapsed() < Duration::from_secs(1), "{:?}", since.elapsed());
    }
    for (answer, mut backend) in waiting {
        backend.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
        assert_eq!(answer.await.unwrap().status(), 200);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reloads_cost_no_stream() {
    let legacy = echo().await;
    let sidecar = Plan::new(&legacy, &legacy).route("flag: NEW_SHOP").start();
    let rules = |enabled: bool| format!("features:\n  NEW_SHOP: {{ type: boolean, enabled: {enabled} }}\n");
    sidecar.reload(&rules(false)).await.unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let (address, stop) = (sidecar.address, Arc::clone(&stop));
        clients.spawn(async move {
            let mut client = Client2::connect(address).await;
            let mut served = 0_u64;
            while !stop.load(Relaxed) {
                let body = served.to_string();
                let answer = client.send(request("POST", "/", &[], body.clone())).await.unwrap();
                assert_eq!((answer.status, answer.text()), (200, &*body));
                served += 1;
            }
            served
        });
    }
    for round in 0..20 {
        sidecar.reload(&rules(round % 2 == 0)).await.unwrap();
        sidecar.reload("features: [ nonsense").await.unwrap_err();
    }
    stop.store(true, Relaxed);
    while let Some(served) = clients.join_next().await {
        assert!(served.unwrap() > 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_takes_its_request_back_ends_it_at_the_backend() {
    let legacy = Listener::open().await;
    let sidecar = limited(&legacy, "idle: 60s");
    let mut client = Frames::connect(sidecar.address).await;
    client.ask(1, &GET).await;
    let mut backend = legacy.accept().await;
    backend.message().await;
    client.send(RST_STREAM, 0, 1, &CANCEL.to_be_bytes()).await;
    backend.ends().await;
    client.ask(3, &GET).await;
    let mut backend = legacy.accept().await;
    backend.message().await;
    drop(client);
    backend.ends().await;
    sidecar
        .wait_for_zero("understudy_requests_in_flight", &["legacy", "serves"])
        .await;
    sidecar.wait_for_zero("understudy_connections", &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn headers_that_do_not_end_are_closed_at_the_deadline() {
    let legacy = echo().await;
    let sidecar = limited(&legacy, "header_timeout: 300ms, idle: 60s");
    let whole = frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(&GET));
    let unfinished = frame(HEADERS, END_STREAM, 1, &block(&GET));
    for bytes in [&whole[..5], &whole[..20], &unfinished[..]] {
        let since = Instant::now();
        let mut client = Frames::connect(sidecar.address).await;
        client.socket.send(bytes).await;
        assert_eq!(client.farewell().await, Some(0));
        let took = since.elapsed();
        assert!(
            took >= Duration::from_millis(300) && took < Duration::from_millis(3_000),
            "{took:?}"
        );
    }
    assert_eq!(sidecar.metric(CLIENT_ERRORS, &["header_timeout"]).await, 3.0);
    assert_eq!(legacy.count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_without_streams_is_bid_farewell_and_one_with_a_slow_answer_is_not() {
    let legacy = Backend::answering(|_| Reply::text("late").after(Duration::from_millis(700))).await;
    let sidecar = limited(&legacy, "idle: 300ms, header_timeout: 300ms");
    let since = Instant::now();
    let mut client = Frames::connect(sidecar.address).await;
    client.ask(1, &GET).await;
    assert_eq!(client.until(DATA).await.payload, b"late");
    assert!(since.elapsed() >= Duration::from_millis(700));
    assert_eq!(client.farewell().await, Some(0));
    assert!(since.elapsed() >= Duration::from_millis(1_000));
    assert_eq!(sidecar.metric(CLIENT_ERRORS, &[]).await, 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_takes_no_answer_lets_its_backend_go() {
    let legacy = Listener::open().await;
    let sidecar = limited(&legacy, "write_timeout: 300ms, idle: 60s");
    let mut client = Client2::with(sidecar.address, h2::client::Builder::new().initial_window_size(1_000)).await;
    let (answer, _) = client.begin(request("GET", "/", &[], "").map(|_| ()), true).await;
    let mut backend = legacy.accept().await;
    backend.message().await;
    backend
        .send("HTTP/1.1 200 OK\r\nContent-Length: 20000000\r\n\r\n")
        .await;
    let sending = tokio::spawn(async move {
        backend.try_send(vec![b'x'; 20_000_000]).await;
        backend.rest().await;
    });
    let body = answer.await.unwrap().into_body();
    sidecar.wait_for_metric(CLIENT_ERRORS, &["write_timeout"], 1.0).await;
    sending.await.unwrap();
    assert!(whole(body).await.is_err(), "the answer was completed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_says_farewell_and_finishes_what_is_under_way() {
    let legacy = Listener::open().await;
    let sidecar = limited(&legacy, "drain: 20s");
    let mut client = Frames::connect(sidecar.address).await;
    client.ask(1, &GET).await;
    let mut backend = legacy.accept().await;
    backend.message().await;
    let ended = tokio::spawn(sidecar.stop());
    assert_eq!(client.until(GOAWAY).await.code(), 0);
    assert!(!ended.is_finished());
    backend.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone").await;
    assert_eq!(client.until(DATA).await.payload, b"done");
    assert!(matches!(client.farewell().await, None | Some(0)));
    assert!(ended.await.unwrap() < Duration::from_secs(10));
}
