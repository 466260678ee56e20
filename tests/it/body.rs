//! Bodies that are kept, and the memory that all of them together may take.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use tokio::sync::watch;

use crate::support::{
    Backend, Client, Instance, Listener, Located, Nobody, Plan, Reply, Socket, deadline, indent, post, request,
};

const MIB: u32 = 1_024 * 1_024;
const WITHOUT_IDENTITY: &str = "understudy_requests_without_identity_total";
const CAPTURED: &str = "understudy_capture_bytes";

/// Only the body can say whom a request is for.
const BY_BODY: &str = "identity: [ { json: /from } ]\nflag: CHECKOUT";

fn capturing(legacy: &impl Located, new: &impl Located, members: &str, capture: &str) -> Plan {
    let route = format!("  - name: shop\n    match: {{ path: / }}\n{}", indent(members, 4));
    let plan = Plan::new(legacy, new)
        .routes(&route)
        .more(&format!("capture: {{ {capture} }}"));
    plan.legacy_more("timeout: 60s, connect_timeout: 10s")
        .new_more("timeout: 60s, copies: isolated")
}

/// A body that names its shopper at its very end.
fn body(len: usize) -> Bytes {
    let end = r#"","from":"447700900123"}"#;
    let begin = r#"{"filler":""#;
    let filler = "x".repeat(len - begin.len() - end.len());
    format!("{begin}{filler}{end}").into()
}

fn post_head(len: usize) -> String {
    format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {len}\r\n\r\n")
}

/// A backend that reads nothing until it is let, keeps nothing, and says whether a body was the one it expects.
struct Sink {
    address: SocketAddr,
    open: watch::Sender<bool>,
}

impl Located for Sink {
    fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Sink {
    fn closed(expected: Bytes) -> Self {
        let listener = Listener::open_with_small_window();
        let (open, opened) = watch::channel(false);
        let sink = Self {
            address: listener.address,
            open,
        };
        tokio::spawn(async move {
            loop {
                let mut connection = listener.accept().await;
                let (mut opened, expected) = (opened.clone(), expected.clone());
                tokio::spawn(async move {
                    if opened.wait_for(|open| *open).await.is_err() {
                        return;
                    }
                    while let Some(head) = connection.try_head().await {
                        assert_eq!(head.header("content-length"), expected.len().to_string());
                        let status = if connection.is_next(&expected).await {
                            "200 Same"
                        } else {
                            "422 Other"
                        };
                        connection
                            .try_send(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n"))
                            .await;
                    }
                });
            }
        });
        sink
    }

    fn open(&self) {
        self.open.send_replace(true);
    }
}

/// The most memory that a process has had, in bytes.
fn peak_memory(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1_024
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_connections_with_three_megabytes_each_stay_within_the_budget() {
    const CONNECTIONS: u32 = 1_000;
    const BUDGET: u32 = 64 * MIB;
    // What a connection needs for itself: the buffers of both its ends, and what streams through them.
    const BUFFERS: u64 = 384 * 1_024;
    let body = body(3_000_000);
    let legacy = Sink::closed(body.clone());
    let plan = capturing(&legacy, &Nobody::open(), BY_BODY, "body: 4MiB, budget: 64MiB");
    let sidecar = Arc::new(Instance::start(&plan).await);
    let idle = peak_memory(sidecar.id());
    let request: Bytes = [post_head(body.len()).as_bytes(), &body].concat().into();
    let clients: Vec<_> = (0..CONNECTIONS)
        .map(|_| {
            let (request, address) = (request.clone(), sidecar.address);
            tokio::spawn(async move {
                let mut client = Socket::connect(address).await;
                for part in request.chunks(64 * 1_024) {
                    client.send(part).await;
                }
                let answer = client.message().await;
                assert_eq!(answer.status(), 200, "{answer:?}");
            })
        })
        .collect();
    let watching = tokio::spawn({
        let sidecar = Arc::clone(&sidecar);
        async move {
            let mut began = false;
            loop {
                let used = sidecar.metric(CAPTURED, &[]).await;
                assert!(used <= f64::from(BUDGET), "{used} of {BUDGET}");
                if used == 0.0 && began {
                    return;
                }
                began |= used > 0.0;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    });
    // All are there, each holds what it could get, and nobody moves: the worst that can be asked of the budget.
    sidecar
        .wait_for_metric(
            "understudy_requests_in_flight",
            &["legacy", "serves"],
            f64::from(CONNECTIONS),
        )
        .await;
    assert!(sidecar.metric(CAPTURED, &[]).await > 0.0);
    legacy.open();
    for client in clients {
        client.await.unwrap();
    }
    watching.await.unwrap();
    let served = sidecar
        .metric("understudy_responses_total", &["side=\"legacy\"", "\"2xx\""])
        .await;
    assert_eq!(served, f64::from(CONNECTIONS));
    // Few of them can have been kept: whoever was not found the budget used up, so it was.
    let unknown = sidecar.metric(WITHOUT_IDENTITY, &["\"memory\""]).await;
    assert!(unknown >= f64::from(CONNECTIONS - BUDGET / 3_000_000), "{unknown}");
    sidecar.wait_for_zero(CAPTURED, &[]).await;
    let took = peak_memory(sidecar.id()) - idle;
    assert!(
        took <= u64::from(BUDGET) + u64::from(CONNECTIONS) * BUFFERS,
        "{} MiB",
        took / u64::from(MIB)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_finds_no_room_passes_without_an_identity_and_without_a_copy() {
    let legacy = Backend::answering(|r| Reply::text(r.body.clone())).await;
    let new = Backend::saying("new").await;
    let members = format!("{BY_BODY}\nshadow: {{ flag: true, methods: [POST] }}");
    let sidecar = capturing(&legacy, &new, &members, "body: 2MiB, budget: 2MiB").start();
    let (first, second) = (body(1_500_000), body(1_000_000));
    let mut holding = Socket::connect(sidecar.address).await;
    holding.send(post_head(first.len())).await;
    holding.send(&first[..1_400_000]).await;
    deadline("the first body to be kept", || sidecar.captured() >= 1_400_000).await;
    assert_eq!(post(sidecar.address, "/", &[], second.clone()).await.body, second);
    assert_eq!(sidecar.metric(WITHOUT_IDENTITY, &["\"memory\""]).await, 1.0);
    assert_eq!(
        sidecar
            .metric("understudy_copies_skipped_total", &["\"memory\"", "side=\"new\""])
            .await,
        1.0
    );
    deadline("the second body to be given back", || sidecar.captured() == 1_400_000).await;
    // The first one is not disturbed: it has its identity, and its copy.
    holding.send(&first[1_400_000..]).await;
    assert_eq!(holding.message().await.body, first);
    assert_eq!(new.wait_for(1).await[0].body, first);
    assert_eq!(sidecar.metric(WITHOUT_IDENTITY, &[]).await, 1.0);
    sidecar.wait_for_zero(CAPTURED, &[]).await;
    assert_eq!((legacy.count(), new.count()), (2, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_over_the_cap_passes_without_an_identity_and_without_a_copy() {
    let legacy = Backend::answering(|r| Reply::text(r.body.clone())).await;
    let new = Backend::saying("new").await;
    let members = format!("{BY_BODY}\nshadow: {{ flag: true, methods: [POST] }}");
    let sidecar = capturing(&legacy, &new, &members, "body: 1MiB, budget: 8MiB").start();
    let longer = body(1_048_577);
    let mut client = Client::connect(sidecar.address).await;
    assert_eq!(
        client.send(request(Method::POST, "/", &[], longer.clone())).await.body,
        longer
    );
    // One whose length nobody said is found out on its way.
    let mut chunked = Socket::connect(sidecar.address).await;
    chunked
        .send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        .await;
    for part in longer.chunks(100_000) {
        chunked.send(format!("{:x}\r\n", part.len())).await;
        chunked.send(part).await;
        chunked.send("\r\n").await;
    }
    chunked.send("0\r\n\r\n").await;
    assert_eq!(chunked.message().await.body, longer);
    assert_eq!(sidecar.metric(WITHOUT_IDENTITY, &["\"body_too_large\""]).await, 2.0);
    assert_eq!(
        sidecar
            .metric("understudy_copies_skipped_total", &["\"body_too_large\""])
            .await,
        2.0
    );
    let fits = body(1_048_576);
    assert_eq!(
        client.send(request(Method::POST, "/", &[], fits.clone())).await.body,
        fits
    );
    assert_eq!(new.wait_for(1).await[0].body, fits);
    assert_eq!(sidecar.metric(WITHOUT_IDENTITY, &[]).await, 2.0);
    sidecar.wait_for_zero(CAPTURED, &[]).await;
    assert_eq!(new.count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_kept_in_vain_counts_until_the_backend_has_taken_it() {
    let body = body(6_000_000);
    let legacy = Sink::closed(body.clone());
    let sidecar = capturing(&legacy, &Nobody::open(), BY_BODY, "body: 8MiB, budget: 10MiB").start();
    let mut clients = Vec::new();
    // The first fits. The second was kept as far as there was room, and that much of it is in memory still.
    for under_way in [1.0, 2.0] {
        let (body, address) = (body.clone(), sidecar.address);
        clients.push(tokio::spawn(async move { post(address, "/", &[], body).await.status }));
        sidecar
            .wait_for_metric("understudy_requests_in_flight", &["legacy", "serves"], under_way)
            .await;
    }
    assert_eq!(sidecar.metric(WITHOUT_IDENTITY, &["\"memory\""]).await, 1.0);
    let held = sidecar.captured();
    assert!(
        held > u64::from(10 * MIB - MIB / 4) && held <= u64::from(10 * MIB),
        "{held}"
    );
    legacy.open();
    for client in clients {
        assert_eq!(client.await.unwrap(), 200);
    }
    sidecar.wait_for_zero(CAPTURED, &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_streams_to_both_sides_is_kept_once_and_given_back() {
    let legacy = Backend::answering(|r| Reply::text(r.body.clone())).await;
    let new = Backend::answering(|r| Reply::text(r.body.clone())).await;
    let members =
        "identity: [ { header: x-shopper-id } ]\nflag: false\nshadow: { flag: true, methods: [POST] }\ndual_run: true";
    let sidecar = capturing(&legacy, &new, members, "body: 4MiB, budget: 16MiB").start();
    let body = body(3_000_000);
    for round in 1..=4 {
        assert_eq!(
            post(sidecar.address, "/", &[("x-shopper-id", "anna")], body.clone())
                .await
                .body,
            body
        );
        assert!(new.wait_for(round).await[round - 1].body == body);
    }
    sidecar
        .wait_for_metric("understudy_compared_total", &["\"same\""], 4.0)
        .await;
    sidecar.wait_for_zero(CAPTURED, &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_find_no_room_are_not_compared_and_reach_the_client_whole() {
    let legacy = Backend::answering(|_| Reply::text(vec![b'x'; 3_000_000])).await;
    let new = Backend::answering(|_| Reply::text(vec![b'x'; 3_000_000])).await;
    let members = "identity: [ { header: x-shopper-id } ]\nflag: false\nshadow: true\ndual_run: true";
    let sidecar = capturing(&legacy, &new, members, "body: 4MiB, budget: 4MiB").start();
    let mut client = Client::connect(sidecar.address).await;
    for _ in 0..4 {
        let answer = client
            .send(request(Method::GET, "/", &[("x-shopper-id", "anna")], ""))
            .await;
        assert_eq!((answer.status, answer.body.len()), (200, 3_000_000));
    }
    sidecar
        .wait_for_metric("understudy_not_compared_total", &["\"memory\""], 4.0)
        .await;
    sidecar.wait_for_zero(CAPTURED, &[]).await;
}
