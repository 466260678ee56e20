//! Backends that fail: what the client gets, and that nothing half done ever looks whole.

use std::io::ErrorKind;
use std::time::Duration;

use http::Method;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::support::{
    Answered, Backend, Blackhole, Client, Listener, Located, Message, Nobody, Plan, Reply, Script, Sidecar, Socket,
    deadline, get, post, request, send, upload_in_twice,
};

const MADE: &str = "understudy_answers_made_total";
const FAILED: &str = "understudy_runs_failed_total";

fn before(legacy: &impl Located) -> Sidecar {
    Plan::new(legacy, &Nobody::open())
        .route("flag: false")
        .legacy_more("timeout: 400ms, connect_timeout: 300ms")
        .start()
}

/// An answer of ours says why, and nothing that only an operator should know.
fn is_ours(answer: &Answered, status: u16, reason: &str, backend: &impl Located) {
    assert_eq!(
        (answer.status, answer.header("x-understudy-error")),
        (status, reason),
        "{answer:?}"
    );
    let port = backend.address().port().to_string();
    let said = format!("{:?} {}", answer.headers, answer.text());
    for secret in ["127.0.0.1", &port, "legacy", "/secret", "hyper", "rust"] {
        assert!(!said.to_ascii_lowercase().contains(secret), "{secret} in {said}");
    }
}

async fn fails_with(backend: &impl Located, status: u16, reason: &str, failure: &str) {
    let sidecar = before(backend);
    let methods = [Method::GET, Method::POST, Method::DELETE];
    for method in &methods {
        let body = if *method == Method::POST { "body" } else { "" };
        let answer = send(sidecar.address, method.clone(), "/secret?q", &[], body).await;
        is_ours(&answer, status, reason, backend);
    }
    for (metric, label) in [(MADE, reason), (FAILED, failure)] {
        assert_eq!(
            sidecar
                .metric(metric, &["route=\"shop\"", &format!("\"{label}\"")])
                .await,
            3.0,
            "{metric} {label}"
        );
    }
    sidecar.wait_for_zero("understudy_requests_in_flight", &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_that_refuses_is_a_502() {
    fails_with(&Nobody::open(), 502, "connect_failed", "connect").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_that_cannot_be_reached_is_a_504_in_time() {
    let since = Instant::now();
    fails_with(&Blackhole::open().await, 504, "connect_timeout", "connect").await;
    assert!(since.elapsed() < Duration::from_secs(5), "{:?}", since.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_that_resets_is_a_502() {
    fails_with(&Backend::start(Script::ResetWhenAsked).await, 502, "reset", "reset").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_that_closes_without_an_answer_is_a_502() {
    fails_with(&Backend::start(Script::CloseWithoutAnswer).await, 502, "reset", "reset").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_that_closes_within_its_headers_is_a_502() {
    fails_with(
        &Backend::start(Script::Raw(b"HTTP/1.1 200 OK\r\nContent-Le")).await,
        502,
        "reset",
        "reset",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_that_never_answers_is_a_504() {
    fails_with(&Backend::start(Script::Stall).await, 504, "timeout", "timeout").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_is_no_http_or_has_no_clear_end_is_a_502() {
    let garbage: &[&[u8]] = &[
        b"garbage\r\n\r\n",
        b"\0\0\0\x18\x04\0\0\0\0\0",
        b"HTTP/1.1 20 OK\r\n\r\n",
        b"HTTP/3.0 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n 3\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nX-A: \0\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2, 3\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nContent-Length : 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0x2\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551616\r\n\r\nab",
        b"HTTP/1.1 304 Not Modified\r\nContent-Length: 2, 3\r\n\r\n",
        b"HTTP/1.1 200 O\0K\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX-A: 1\rX-B: 2\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1  200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 7\r\n\r\n2\r\nab\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nab",
    ];
    let legacy = Backend::start(Script::Stall).await;
    let sidecar = before(&legacy);
    for bytes in garbage {
        legacy.set(Script::Raw(bytes));
        let answer = get(sidecar.address, "/secret", &[]).await;
        assert_eq!(answer.status, 502, "{}", String::from_utf8_lossy(bytes));
        is_ours(&answer, 502, "malformed_answer", &legacy);
    }
    #[allow(clippy::cast_precision_loss, reason = "a handful of cases")]
    let expected = garbage.len() as f64;
    assert_eq!(sidecar.metric(FAILED, &["\"malformed\"", "legacy"]).await, expected);
    // Whoever spoke like that is not spoken to again on the same connection, and on a new one legacy goes on.
    legacy.answer(|_| Reply::text("fine"));
    assert_eq!(get(sidecar.address, "/", &[]).await.text(), "fine");
    assert_eq!(legacy.connections(), garbage.len() + 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_header_than_anybody_sends_is_a_502_and_not_more_memory() {
    let legacy = Listener::open().await;
    let sidecar = before(&legacy);
    let mut client = Socket::connect(sidecar.address).await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut backend = legacy.accept().await;
    backend.message().await;
    backend.send("HTTP/1.1 200 OK\r\nX: ").await;
    // The sidecar closes long before the end.
    let mut sent = 0;
    while sent < 50_000_000 && backend.try_send(vec![b'x'; 65_536]).await {
        sent += 65_536;
    }
    assert!(sent < 50_000_000);
    assert_eq!(client.message().await.header("x-understudy-error"), "malformed_answer");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_backend_is_given_up_half_a_second_after_its_time_at_the_latest() {
    let silent = Backend::start(Script::Stall).await;
    let deaf = Backend::start(Script::NeverRead).await;
    for (backend, body) in [(&silent, 0), (&silent, 3_000_000), (&deaf, 0), (&deaf, 8_000_000)] {
        let sidecar = before(backend);
        let mut client = Client::connect(sidecar.address).await;
        let since = Instant::now();
        let answer = client.send(request(Method::POST, "/", &[], vec![b'x'; body])).await;
        let took = since.elapsed();
        is_ours(&answer, 504, "timeout", backend);
        // Sending three megabytes takes its time too.
        let latest = Duration::from_millis(if body == 0 { 900 } else { 1_900 });
        assert!(took >= Duration::from_millis(400) && took <= latest, "{body}: {took:?}");
        // Nothing of it is left to wait for.
        assert!(sidecar.stop().await < Duration::from_secs(5));
    }
    deadline("the silent connections to be closed", || silent.open() == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backends_time_does_not_run_while_it_waits_for_the_client() {
    let legacy = Backend::answering(|r| Reply::text(r.body.clone())).await;
    let sidecar = before(&legacy);
    upload_in_twice(Duration::from_millis(500), sidecar.address).await;
}

async fn answer_in_part(part: &[u8]) -> (Message, Vec<u8>) {
    let legacy = Listener::open().await;
    let sidecar = before(&legacy);
    let mut client = Socket::connect(sidecar.address).await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut backend = legacy.accept().await;
    backend.message().await;
    backend.send(part).await;
    let head = client.head().await;
    drop(backend);
    let rest = client.rest().await;
    sidecar.wait_for_metric(FAILED, &["\"cut\"", "legacy"], 1.0).await;
    // The client's connection is gone, the client's service is not.
    let mut again = Socket::connect(sidecar.address).await;
    again.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut backend = legacy.accept().await;
    backend.message().await;
    backend.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    assert_eq!(again.message().await.status(), 200);
    (head, rest)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_breaks_off_is_never_completed_towards_the_client() {
    let (head, rest) = answer_in_part(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf").await;
    assert_eq!((head.header("content-length"), &*rest), ("10", &b"half"[..]));
    for part in [
        "4\r\nhalf\r\n",
        "4\r\nhalf\r\n9\r\nanoth",
        "4\r\nhalf\r\n0\r\n",
        "4\r\nhalf\r\nzz\r\n",
    ] {
        let (head, rest) =
            answer_in_part(format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{part}").as_bytes()).await;
        assert_eq!(head.header("transfer-encoding"), "chunked");
        assert!(rest.starts_with(b"4\r\nhalf\r\n"), "{}", String::from_utf8_lossy(&rest));
        assert!(
            !rest.windows(3).any(|window| window == b"0\r\n"),
            "{part:?} was completed"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_whose_end_is_that_of_its_connection_ends_in_a_reset_when_it_breaks_off() {
    let legacy = Listener::open().await;
    let sidecar = before(&legacy);
    for connection in ["close", "keep-alive"] {
        for (part, whole) in [
            ("Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n", false),
            ("Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n0\r\n\r\n", true),
            ("Connection: close\r\n\r\nhalf", true),
        ] {
            let mut client = TcpStream::connect(sidecar.address).await.unwrap();
            let request = format!("GET / HTTP/1.0\r\nHost: a\r\nConnection: {connection}\r\n\r\n");
            client.write_all(request.as_bytes()).await.unwrap();
            let mut backend = legacy.accept().await;
            backend.message().await;
            backend.send(format!("HTTP/1.1 200 OK\r\n{part}")).await;
            let mut got = Vec::new();
            while !got.ends_with(b"half") {
                assert!(client.read_buf(&mut got).await.unwrap() > 0);
            }
            drop(backend);
            let ended = tokio::time::timeout(Duration::from_secs(10), client.read_to_end(&mut got)).await;
            let ended = ended.expect("the end of the connection").map_err(|error| error.kind());
            let expected = if whole { Ok(0) } else { Err(ErrorKind::ConnectionReset) };
            assert_eq!(ended, expected, "{connection}: {part:?}");
        }
    }
    assert_eq!(sidecar.metric(FAILED, &["route=\"shop\"", "\"cut\""]).await, 2.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_that_breaks_off_is_never_completed_towards_the_backend() {
    let legacy = Listener::open().await;
    let sidecar = before(&legacy);
    let uploads = [
        ("Content-Length: 10", "half"),
        ("Transfer-Encoding: chunked", "4\r\nhalf\r\n"),
        ("Transfer-Encoding: chunked", "4\r\nhalf\r\n5\r\nof"),
    ];
    for (framing, part) in uploads {
        for reset in [false, true] {
            let mut client = Socket::connect(sidecar.address).await;
            client
                .send(format!("POST / HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n{part}"))
                .await;
            let mut backend = legacy.accept().await;
            let head = backend.head().await;
            let arrived = if head.has("content-length") {
                backend.exactly(4).await
            } else {
                backend.chunk().await
            };
            assert_eq!(arrived, b"half");
            if reset {
                client.reset();
            } else {
                drop(client);
            }
            let rest = backend.rest().await;
            let rest = String::from_utf8(rest).unwrap();
            assert!(["", "2\r\nof\r\n"].contains(&&*rest), "{framing}: {rest}");
        }
    }
    assert_eq!(sidecar.metric(FAILED, &[]).await, 0.0, "legacy failed nobody");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_that_breaks_off_while_it_is_captured_never_leaves() {
    let legacy = Backend::saying("legacy").await;
    let routes = "  - { name: shop, match: { path: / }, identity: [ { json: /from } ], flag: CHECKOUT }\n";
    let sidecar = Plan::new(&legacy, &Nobody::open()).routes(routes).start();
    for framing in [
        "Content-Length: 10\r\n\r\n{\"fr",
        "Transfer-Encoding: chunked\r\n\r\n4\r\n{\"fr\r\n",
    ] {
        let mut client = Socket::connect(sidecar.address).await;
        client.send(format!("POST / HTTP/1.1\r\nHost: a\r\n{framing}")).await;
        client.finish().await;
        let answer = client.message().await;
        assert_eq!(
            (answer.status(), answer.header("x-understudy-error")),
            (400, "body_broken")
        );
        client.ends().await;
    }
    assert_eq!(legacy.connections(), 0);
    sidecar.wait_for_metric(MADE, &["body_broken"], 2.0).await;
    sidecar.wait_for_zero("understudy_capture_bytes", &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_may_refuse_an_upload_before_it_has_read_it() {
    let legacy = Listener::open().await;
    let sidecar = before(&legacy);
    let mut client = Socket::connect(sidecar.address).await;
    client
        .send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 50000000\r\n\r\n")
        .await;
    let mut backend = legacy.accept().await;
    backend.head().await;
    backend
        .send("HTTP/1.1 413 Payload Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nno!")
        .await;
    let answer = client.message().await;
    assert_eq!((answer.status(), &*answer.body), (413, &b"no!"[..]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_after_an_answer_are_nobodys_answer() {
    let legacy = Listener::open().await;
    let sidecar = before(&legacy);
    let mut client = Socket::connect(sidecar.address).await;
    client.send("GET /1 HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut backend = legacy.accept().await;
    backend.message().await;
    backend
        .send("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n1HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged")
        .await;
    assert_eq!(client.message().await.body, b"1");
    client.send("GET /2 HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut second = legacy.accept().await;
    assert_eq!(second.message().await.start, "GET /2 HTTP/1.1");
    second.send("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n2").await;
    assert_eq!(client.message().await.body, b"2");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn legacy_is_asked_again_as_soon_as_it_is_back() {
    let mut legacy = Backend::saying("legacy").await;
    let sidecar = before(&legacy);
    let mut client = Client::connect(sidecar.address).await;
    assert_eq!(client.send(request(Method::POST, "/", &[], "x")).await.text(), "legacy");
    legacy.go_away().await;
    assert_eq!(client.send(request(Method::POST, "/", &[], "x")).await.status, 502);
    legacy.come_back();
    assert_eq!(client.send(request(Method::POST, "/", &[], "x")).await.text(), "legacy");
    assert_eq!(post(sidecar.address, "/", &[], "x").await.text(), "legacy");
    assert_eq!(legacy.count(), 3);
}
