//! Messages that take their time: bodies that wait to be wanted, events that come one by one, interim answers.

use std::time::Duration;

use tokio::time::Instant;

use crate::support::{Backend, Listener, Nobody, Plan, Reply, Sidecar, Socket, get};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const ASK: &str =
    "POST / HTTP/1.1\r\nHost: a\r\nX-Shopper-Id: anna\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n";

fn between(legacy: &Listener, more: &str) -> Sidecar {
    Plan::new(legacy, &Nobody::open())
        .route("flag: false")
        .legacy_more(more)
        .start()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_is_asked_for_when_the_backend_asks_for_it() {
    let legacy = Listener::open().await;
    let sidecar = between(&legacy, "");
    let mut client = Socket::connect(sidecar.address).await;
    client.send(ASK).await;
    let mut backend = legacy.accept().await;
    let head = backend.head().await;
    assert_eq!(
        (head.header("expect"), head.header("content-length")),
        ("100-continue", "4")
    );
    // It says so twice, which is once too often for the client.
    backend
        .send("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n")
        .await;
    assert_eq!(client.head().await.status(), 100);
    client.send("body").await;
    assert_eq!(backend.exactly(4).await, b"body");
    backend.send(OK).await;
    let answer = client.message().await;
    assert_eq!((answer.status(), &*answer.body), (200, &b"ok"[..]));
    // Both connections go on.
    client.send("GET /next HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(backend.message().await.start, "GET /next HTTP/1.1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_is_refused_is_never_asked_for_and_never_sent() {
    let legacy = Listener::open().await;
    let sidecar = between(&legacy, "");
    let mut client = Socket::connect(sidecar.address).await;
    client.send(ASK).await;
    let mut backend = legacy.accept().await;
    backend.head().await;
    backend
        .send("HTTP/1.1 417 Expectation Failed\r\nContent-Length: 2\r\n\r\nno")
        .await;
    let answer = client.message().await;
    assert_eq!(
        (answer.status(), answer.header("connection"), &*answer.body),
        (417, "close", &b"no"[..])
    );
    // A client that sends it all the same does not have it taken for a request.
    let _ = client.try_send("GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n").await;
    client.rest().await;
    backend.ends().await;
    assert!(legacy.accept_now().await.is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_that_ignores_the_expectation_gets_the_body_after_a_second() {
    let legacy = Listener::open().await;
    let sidecar = between(&legacy, "");
    let mut client = Socket::connect(sidecar.address).await;
    let before = Instant::now();
    client.send(ASK).await;
    let mut backend = legacy.accept().await;
    backend.head().await;
    assert_eq!(client.head().await.status(), 100);
    let took = before.elapsed();
    assert!(
        (Duration::from_secs(1)..Duration::from_secs(3)).contains(&took),
        "{took:?}"
    );
    client.send("body").await;
    assert_eq!(backend.exactly(4).await, b"body");
    backend.send(OK).await;
    assert_eq!(client.message().await.status(), 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_needs_the_body_first_asks_for_it_and_copies_wait_for_nothing() {
    let (legacy, new) = (Backend::saying("legacy").await, Backend::saying("new").await);
    let routes = "  - name: shop\n    match: { path: / }\n    identity: [ { json: /shopper } ]\n    \
                  flag: false\n    shadow: { flag: true, methods: [POST] }\n";
    let sidecar = Plan::new(&legacy, &new).routes(routes).start();
    let mut client = Socket::connect(sidecar.address).await;
    client
        .send("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 18\r\n\r\n")
        .await;
    assert_eq!(client.head().await.status(), 100);
    client.send("{\"shopper\":\"anna\"}").await;
    assert_eq!(client.message().await.body, b"legacy");
    for side in [&legacy, &new] {
        let received = side.wait_for(1).await.remove(0);
        assert_eq!(
            (received.header("expect"), &*received.body),
            ("", &b"{\"shopper\":\"anna\"}"[..])
        );
    }
    // The same where the body streams.
    let sidecar = Plan::new(&legacy, &new)
        .route("shadow: { flag: true, methods: [POST] }")
        .start();
    let mut client = Socket::connect(sidecar.address).await;
    client.send(ASK).await;
    assert_eq!(client.head().await.status(), 100);
    client.send("body").await;
    assert_eq!(client.message().await.body, b"legacy");
    let copy = new.wait_for(2).await.remove(1);
    assert_eq!(
        (copy.header("expect"), &*copy.body, copy.is_copy()),
        ("", &b"body"[..], true)
    );
    assert_eq!(legacy.wait_for(2).await.remove(1).header("expect"), "100-continue");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_interim_answers_is_cut_off_and_holds_nobody_up() {
    let legacy = Listener::open().await;
    let sidecar = between(&legacy, "");
    let mut client = Socket::connect(sidecar.address).await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut backend = legacy.accept().await;
    backend.head().await;
    let flood = tokio::spawn(async move {
        let hints = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n".repeat(100);
        while backend.try_send(&hints).await {}
    });
    let mut other = Socket::connect(sidecar.address).await;
    other.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut good = legacy.accept().await;
    good.head().await;
    good.send(OK).await;
    assert_eq!(other.message().await.status(), 200);
    let answer = client.message().await;
    assert_eq!((answer.status(), answer.header("x-understudy-error")), (502, "reset"));
    flood.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_event_arrives_before_the_next_is_sent() {
    let legacy = Listener::open().await;
    let new = Backend::saying("new").await;
    let sidecar = Plan::new(&legacy, &new)
        .route("shadow: true\ndual_run: true")
        .more("capture: { body: 64KiB, budget: 1MiB }\nlimits: { idle: 200ms, body_idle: 200ms, write_timeout: 200ms }")
        .start();
    let mut client = Socket::connect(sidecar.address).await;
    client
        .send("GET /events HTTP/1.1\r\nHost: a\r\nX-Shopper-Id: anna\r\nAccept: text/event-stream\r\nLast-Event-ID: 7\r\n\r\n")
        .await;
    let mut backend = legacy.accept().await;
    assert_eq!(backend.message().await.header("last-event-id"), "7");
    backend
        .send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        .await;
    assert_eq!(client.head().await.header("content-type"), "text/event-stream");
    // Longer than any limit on a client that has nothing to say.
    Socket::connect(sidecar.address).await.ends().await;
    let event = format!("data: {}\n\n", "x".repeat(2_000));
    for _ in 0..100 {
        backend.send(format!("{:x}\r\n{event}\r\n", event.len())).await;
        assert_eq!(client.chunk().await, event.as_bytes());
        assert!(sidecar.captured() <= 1 << 20);
    }
    // Endless for whoever compares, long before its end.
    backend.send("0\r\n\r\n").await;
    assert!(client.chunk().await.is_empty());
    sidecar
        .wait_for_metric("understudy_compared_total", &["verdict=\"incomparable\""], 1.0)
        .await;
    crate::support::deadline("what was kept to be let go", || sidecar.captured() == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_poll_is_answered_when_there_is_something_to_say() {
    let legacy = Backend::answering(|_| Reply::text("news").after(Duration::from_millis(700))).await;
    let limits = "limits: { idle: 200ms, header_timeout: 200ms, body_idle: 200ms, write_timeout: 200ms }";
    let sidecar = Plan::new(&legacy, &Nobody::open())
        .route("flag: false")
        .more(limits)
        .start();
    assert_eq!(get(sidecar.address, "/poll", &[]).await.text(), "news");
}
