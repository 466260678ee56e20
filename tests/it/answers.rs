//! Answers as real backends write them: what is old but means one thing passes, written anew; what comes too early, too
//! late or unasked costs its connection and nobody else's request.

use std::time::Duration;

use super::support::*;

const FAILED: &str = "understudy_runs_failed_total";

fn before(legacy: &impl Located, members: &str) -> Sidecar {
    Plan::new(legacy, &Nobody::open())
        .route("flag: false")
        .legacy_more(members)
        .start()
}

async fn asked(legacy: &Listener, client: &mut Socket) -> Socket {
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut backend = legacy.accept().await;
    backend.message().await;
    backend
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_ways_of_writing_that_mean_one_thing_pass_and_are_written_anew() {
    let legacy = Listener::open().await;
    let sidecar = before(&legacy, "timeout: 2s");
    let mut client = Socket::connect(sidecar.address).await;
    let answers: &[&[u8]] = &[
        b"HTTP/1.1 200 OK\r\nX-A: 1\r\n 2\r\nContent-Length: 2\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nX-A : 1 2\r\nContent-Length : 2\r\n\r\nab",
        b"HTTP/1.1 200 OK\nX-A: 1 2\nContent-Length: 2\n\nab",
        b"HTTP/1.1 200\r\nX-A:1 2\r\nContent-Length: 02\r\n\r\nab",
        b"\r\nHTTP/1.1 200 OK\r\nX-A: 1 2\r\nContent-Length: 2\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nX-A: 1 2\r\nTransfer-Encoding: CHUNKED\r\n\r\n1;x=y\r\na\r\n1\r\nb\r\n0\r\n\r\n",
    ];
    for answer in answers {
        let mut backend = asked(&legacy, &mut client).await;
        backend.send(answer).await;
        let head = client.message().await;
        let said = String::from_utf8_lossy(answer);
        assert_eq!((head.status(), &*head.body), (200, &b"ab"[..]), "{said}");
        let value: Vec<_> = head.header("x-a").split_whitespace().collect();
        assert_eq!(value, ["1", "2"], "{said}");
        assert!(!head.header("x-a").contains(['\r', '\n']), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_without_a_length_ends_with_its_connection() {
    let legacy = Listener::open().await;
    let sidecar = before(&legacy, "timeout: 2s");
    for version in ["1.0", "1.1"] {
        let mut client = Socket::connect(sidecar.address).await;
        let mut backend = asked(&legacy, &mut client).await;
        backend.send(format!("HTTP/{version} 200 OK\r\n\r\nto the end")).await;
        drop(backend);
        assert_eq!(client.message().await.body, b"to the end", "{version}");
    }
    assert_eq!(sidecar.metric(FAILED, &[]).await, 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_on_an_idle_connection_close_it() {
    let legacy = Listener::open().await;
    let sidecar = before(&legacy, "idle: 60s");
    let mut client = Socket::connect(sidecar.address).await;
    let mut backend = asked(&legacy, &mut client).await;
    backend.send("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n1").await;
    assert_eq!(client.message().await.body, b"1");
    backend.send("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged").await;
    backend.ends().await;
    let mut second = asked(&legacy, &mut client).await;
    second.send("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n2").await;
    assert_eq!(client.message().await.body, b"2");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_to_half_an_upload_is_relayed_and_its_connection_not_used_again() {
    let legacy = Listener::open().await;
    let sidecar = before(&legacy, "idle: 60s");
    let mut client = Socket::connect(sidecar.address).await;
    client
        .send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 8\r\n\r\nhalf")
        .await;
    let mut backend = legacy.accept().await;
    backend.head().await;
    assert_eq!(backend.exactly(4).await, b"half");
    backend
        .send("HTTP/1.1 202 Accepted\r\nContent-Length: 2\r\n\r\nok")
        .await;
    assert_eq!(
        (client.message().await.status(), &*backend.rest().await),
        (202, &b""[..])
    );
    let mut other = Socket::connect(sidecar.address).await;
    let mut second = asked(&legacy, &mut other).await;
    second.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    assert_eq!(other.message().await.status(), 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_stops_within_its_body_is_cut_and_one_that_goes_on_is_not() {
    let legacy = Listener::open().await;
    let sidecar = before(&legacy, "body_idle: 400ms");
    let mut client = Socket::connect(sidecar.address).await;
    let mut backend = asked(&legacy, &mut client).await;
    backend
        .send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        .await;
    client.head().await;
    for _ in 0..5 {
        // Twice the limit in all.
        tokio::time::sleep(Duration::from_millis(160)).await;
        backend.send("4\r\nbeat\r\n").await;
        assert_eq!(client.chunk().await, b"beat");
    }
    let since = tokio::time::Instant::now();
    client.ends().await;
    assert!(since.elapsed() < Duration::from_millis(1_400), "{:?}", since.elapsed());
    backend.ends().await;
    sidecar.wait_for_metric(FAILED, &["\"cut\"", "legacy"], 1.0).await;
}
