//! Point 10, clients: five hundred of each slow kind, closed at their limit and told why where nothing was answered;
//! what they took is given back.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::recorder::Recorder;
use crate::strict::{self, Kind};
use crate::support::{Backend, Instance, Located, Nobody, Plan, Reply, Script, Socket, deadline};

const MANY: usize = 500;

/// Set by the plan below; late only by the sweep's ticks and what a busy machine adds.
const LIMIT: Duration = Duration::from_secs(1);
const LATE: Duration = Duration::from_secs(5);

const LIMITS: &str =
    "limits: { header_timeout: 1s, body_idle: 1s, write_timeout: 1s, idle: 3s, connections: 2000, in_flight: 2000 }";

/// Five hundred connections at once may take their time on a busy machine.
fn before_slow(legacy: &impl Located) -> Plan {
    Plan::new(legacy, &Nobody::open())
        .route("flag: false")
        .legacy_more("timeout: 60s, connect_timeout: 20s")
        .more(LIMITS)
}

fn descriptors(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

/// The statuses that one of them is answered until its connection ends, how long after its last byte that was, and
/// how long it was open.
async fn one(address: SocketAddr, kind: &'static str) -> (Vec<u16>, Duration, Duration) {
    let begun = Instant::now();
    let mut client = Socket::connect(address).await;
    let whole = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let since = match kind {
        "idle" => Instant::now(),
        "idle again" => {
            client.send(whole).await;
            assert_eq!(client.message().await.status(), 200);
            Instant::now()
        }
        "headers" => {
            client.send("GET / HTTP/1.1\r\nHost: a\r\nX-Slow: ").await;
            Instant::now()
        }
        "headers again" => {
            client.send(whole).await;
            assert_eq!(client.message().await.status(), 200);
            client.send("GET / HTT").await;
            Instant::now()
        }
        "body" => {
            client
                .send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf")
                .await;
            Instant::now()
        }
        "chunks" => {
            client
                .send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nha")
                .await;
            Instant::now()
        }
        other => panic!("no kind {other}"),
    };
    let got = client.rest().await;
    let (took, open) = (since.elapsed(), begun.elapsed());
    let (answers, rest) = strict::read_all(&got, Kind::Answer, true).unwrap();
    assert!(rest.is_empty(), "{kind}: {}", String::from_utf8_lossy(&rest));
    (answers.iter().map(strict::Strict::status).collect(), took, open)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_slow_clients_of_each_kind_are_closed_at_their_limit() {
    let legacy = Recorder::open().await;
    let instance = Instance::start(&before_slow(&legacy)).await;
    let before = descriptors(instance.id());
    let kinds: [(&str, &[u16]); 6] = [
        ("idle", &[]),
        ("idle again", &[]),
        ("headers", &[408]),
        ("headers again", &[408]),
        ("body", &[408]),
        ("chunks", &[408]),
    ];
    for (kind, expected) in kinds {
        let mut clients = tokio::task::JoinSet::new();
        for _ in 0..MANY {
            clients.spawn(one(instance.address, kind));
        }
        while let Some(done) = clients.join_next().await {
            let (statuses, took, open) = done.unwrap();
            assert_eq!(statuses, expected, "{kind}");
            assert!(open >= LIMIT && took < LIMIT + LATE, "{kind}: {took:?} of {open:?}");
        }
    }
    let completed: Vec<_> = legacy
        .messages()
        .into_iter()
        .filter(|m| m.start.starts_with("POST"))
        .collect();
    assert!(completed.is_empty(), "{completed:?}");
    let pid = instance.id();
    deadline("descriptors to be given back", || descriptors(pid) <= before + 20).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_clients_that_do_not_read_are_closed_and_let_their_backend_go() {
    let long = bytes::Bytes::from(vec![b'x'; 6_000_000]);
    let legacy = Backend::answering(move |_| Reply::text(long.clone())).await;
    let instance = Instance::start(&before_slow(&legacy)).await;
    let before = descriptors(instance.id());
    let mut held = Vec::new();
    for _ in 0..MANY {
        let mut client = Socket::connect_with_small_window(instance.address).await;
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        held.push(client);
    }
    instance
        .wait_for_metric("understudy_client_errors_total", &["write_timeout"], MANY as f64)
        .await;
    instance.wait_for_zero("understudy_connections", &[]).await;
    deadline("the backend to be let go", || legacy.open() == 0).await;
    let pid = instance.id();
    deadline("descriptors to be given back", || descriptors(pid) <= before + 20).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_leaves_cancels_its_request_at_the_backend() {
    for how in ["closes", "resets"] {
        let legacy = Backend::start(Script::Stall).await;
        let plan = Plan::new(&legacy, &Nobody::open()).route("flag: false");
        let instance = Instance::start(&plan.legacy_more("timeout: 60s")).await;
        let mut clients = Vec::new();
        for _ in 0..100 {
            let mut client = Socket::connect(instance.address).await;
            client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
            clients.push(client);
        }
        legacy.wait_for(100).await;
        for client in clients {
            if how == "resets" {
                client.reset();
            }
        }
        deadline(&format!("requests to be cancelled when their client {how}"), || {
            legacy.open() == 0
        })
        .await;
        instance
            .wait_for_zero("understudy_requests_in_flight", &["legacy", "serves"])
            .await;
        instance.wait_for_zero("understudy_connections", &[]).await;
    }
}
