//! The edges of messages: where they came from, what follows their bodies, what has no body, how a status is worded.

use crate::support::{Listener, Message, Nobody, Plan, Sidecar, Socket};

fn between(legacy: &Listener, more: &str) -> Sidecar {
    Plan::new(legacy, &Nobody::open())
        .route("flag: false")
        .more(more)
        .start()
}

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// One exchange over fresh connections: what legacy got, and what the client got.
async fn exchange(request: &[u8], answer: &[u8], more: &str) -> (Message, Message) {
    let legacy = Listener::open().await;
    let sidecar = between(&legacy, more);
    let mut client = Socket::connect(sidecar.address).await;
    client.send(request).await;
    let mut backend = legacy.accept().await;
    let received = backend.message().await;
    backend.send(answer).await;
    (received, client.message().await)
}

const CLAIMING: &[u8] = b"GET / HTTP/1.1\r\nHost: shop.example\r\nConnection: X-Forwarded-For, Forwarded\r\n\
    X-Forwarded-For: 198.51.100.7\r\nX_Forwarded_For: 198.51.100.8\r\nX-Forwarded-Proto: https\r\n\
    X-Forwarded-Host: elsewhere.example\r\nX-Forwarded-Prefix: /admin\r\nX-Real-IP: 198.51.100.7\r\n\
    Forwarded: for=198.51.100.7\r\n\r\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_trusted_proxies_nobody_else_says_where_a_request_came_from() {
    for more in ["trusted_proxies: []", "trusted_proxies: [10.0.0.0/8, 2001:db8::1]"] {
        let (received, _) = exchange(CLAIMING, OK, more).await;
        assert_eq!(received.all("x-forwarded-for"), [b"127.0.0.1"]);
        assert_eq!(received.all("x-forwarded-proto"), [b"http"]);
        assert_eq!(received.all("x-forwarded-host"), [b"shop.example"]);
        for gone in ["x_forwarded_for", "x-forwarded-prefix", "x-real-ip", "forwarded"] {
            assert!(!received.has(gone), "{gone} was believed");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trusted_proxy_and_without_the_list_everybody_is_believed() {
    for more in ["", "trusted_proxies: [127.0.0.0/8]"] {
        let (received, _) = exchange(CLAIMING, OK, more).await;
        assert_eq!(received.all("x-forwarded-for"), [b"198.51.100.7, 127.0.0.1"]);
        assert_eq!(received.all("x-forwarded-proto"), [b"https"]);
        assert_eq!(received.all("x-forwarded-host"), [b"elsewhere.example"]);
        assert_eq!(received.all("x-forwarded-prefix"), [b"/admin"]);
        assert_eq!(received.all("x-real-ip"), [b"198.51.100.7"]);
        assert_eq!(received.all("forwarded"), [b"for=198.51.100.7"]);
    }
}

/// What follows an answer's last byte of content, as it stands on the wire.
async fn tail(asks: &str) -> (Message, String) {
    let legacy = Listener::open().await;
    let sidecar = between(&legacy, "");
    let mut client = Socket::connect(sidecar.address).await;
    client
        .send(format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{asks}\r\n"))
        .await;
    let mut backend = legacy.accept().await;
    backend.message().await;
    backend
        .send(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Checksum, Content-Length\r\nTrailer: Host\r\n\r\n\
             2\r\nok\r\n0\r\nX-Checksum: abc\r\nContent-Length: 5\r\nHost: elsewhere\r\nX-Unannounced: 1\r\n\r\n",
        )
        .await;
    let head = client.head().await;
    assert_eq!(client.exactly(7).await, b"2\r\nok\r\n");
    (head, String::from_utf8(client.rest().await).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trailers_reach_who_takes_them_as_trailers_and_nobody_as_headers() {
    let (head, tail_of_taker) = tail("TE: trailers\r\n").await;
    assert_eq!(head.all("trailer"), [b"x-checksum"]);
    assert!(!head.has("x-checksum") && !head.has("content-length"));
    assert_eq!(tail_of_taker, "0\r\nx-checksum: abc\r\n\r\n");
    for asks in ["", "TE: gzip\r\n"] {
        let (head, tail) = tail(asks).await;
        assert!(!head.has("trailer") && !head.has("x-checksum"));
        assert_eq!(tail, "0\r\n\r\n");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trailers_of_a_request_are_neither_headers_nor_sent_to_a_backend_of_http_1() {
    let legacy = Listener::open().await;
    let sidecar = between(&legacy, "");
    let mut client = Socket::connect(sidecar.address).await;
    client
        .send(
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: X-Checksum\r\n\r\n\
             4\r\nbody\r\n0\r\nX-Checksum: abc\r\nX-Shopper-Id: 1\r\n\r\n",
        )
        .await;
    let mut backend = legacy.accept().await;
    let head = backend.head().await;
    assert!(!head.has("x-checksum") && !head.has("x-shopper-id") && !head.has("trailer"));
    assert_eq!(backend.chunk().await, b"body");
    assert_eq!(backend.exactly(5).await, b"0\r\n\r\n");
    backend.send(OK).await;
    assert_eq!(client.message().await.body, b"ok");
    // The connection is where it should be: the next request is understood.
    client.send("GET /next HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(backend.message().await.start, "GET /next HTTP/1.1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_without_a_body_keep_their_headers_and_the_connection() {
    let legacy = Listener::open().await;
    let sidecar = between(&legacy, "");
    let mut client = Socket::connect(sidecar.address).await;
    let mut backend = None;
    let cases = [
        (
            "HEAD",
            "200 OK",
            "Content-Length: 3000000\r\nAccept-Ranges: bytes\r\n",
            "3000000",
        ),
        ("GET", "304 Not Modified", "Content-Length: 4711\r\n", "4711"),
        ("HEAD", "304 Not Modified", "Content-Length: 4711\r\n", "4711"),
        ("GET", "304 Not Modified", "", ""),
        ("GET", "204 No Content", "", ""),
        ("DELETE", "204 No Content", "", ""),
        ("HEAD", "404 Not Found", "Content-Length: 9\r\n", "9"),
        (
            "HEAD",
            "206 Partial Content",
            "Content-Length: 10\r\nContent-Range: bytes 0-9/100\r\n",
            "10",
        ),
    ];
    for (method, status, headers, length) in cases {
        client
            .send(format!(
                "{method} / HTTP/1.1\r\nHost: a\r\nIf-Range: \"a\"\r\nRange: bytes=0-9\r\n\r\n"
            ))
            .await;
        let backend = match &mut backend {
            Some(backend) => backend,
            none => none.insert(legacy.accept().await),
        };
        let received = backend.message().await;
        assert_eq!(received.start, format!("{method} / HTTP/1.1"));
        assert_eq!(
            (received.header("range"), received.header("if-range")),
            ("bytes=0-9", "\"a\"")
        );
        backend
            .send(format!("HTTP/1.1 {status}\r\nETag: \"a\"\r\n{headers}\r\n"))
            .await;
        let answer = client.head().await;
        assert_eq!(answer.start, format!("HTTP/1.1 {status}"));
        assert_eq!(
            (answer.header("content-length"), answer.header("etag")),
            (length, "\"a\""),
            "{method} {status}"
        );
        assert!(!answer.has("transfer-encoding"), "{method} {status}");
    }
    client
        .send("GET / HTTP/1.1\r\nHost: a\r\nRange: bytes=0-1\r\n\r\n")
        .await;
    let mut backend = backend.unwrap();
    backend.message().await;
    backend
        .send("HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-1/100\r\nContent-Length: 2\r\n\r\nok")
        .await;
    let answer = client.message().await;
    assert_eq!(
        (answer.header("content-range"), &*answer.body),
        ("bytes 0-1/100", &b"ok"[..])
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_status_keeps_its_words() {
    for line in ["200 Fine", "404 ", "599 Nobody Knows", "201 Created"] {
        let answer = format!("HTTP/1.1 {line}\r\nContent-Length: 2\r\n\r\nok");
        let (_, got) = exchange(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", answer.as_bytes(), "").await;
        assert_eq!((got.start, &*got.body), (format!("HTTP/1.1 {line}"), &b"ok"[..]));
    }
}

const HINTS: &str = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\nLink: </b.js>; rel=preload\r\n\
    Connection: x-hop\r\nX-Hop: 1\r\nContent-Length: 7\r\n\r\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_hears_what_a_backend_says_before_its_answer() {
    for more in ["", "limits: { half_close: true }"] {
        let legacy = Listener::open().await;
        let sidecar = between(&legacy, more);
        let mut client = Socket::connect(sidecar.address).await;
        let mut backend = None;
        for round in 0..3 {
            let asks = format!("POST /{round} HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi");
            client.send(asks).await;
            if backend.is_none() {
                backend = Some(legacy.accept().await);
            }
            let backend = backend.as_mut().unwrap();
            assert_eq!(backend.message().await.body, b"hi");
            backend.send("HTTP/1.1 102 Processing\r\n\r\n").await;
            if more.is_empty() {
                // Each before the next is there.
                assert_eq!(client.head().await.start, "HTTP/1.1 102 Processing");
                backend.send(HINTS).await;
                hears_hints(&mut client).await;
                backend.send(OK).await;
            } else {
                backend.send(HINTS).await;
                backend.send(OK).await;
                assert_eq!(client.head().await.start, "HTTP/1.1 102 Processing");
                hears_hints(&mut client).await;
            }
            assert_eq!(client.message().await.body, b"ok");
        }
    }
}

async fn hears_hints(client: &mut Socket) {
    let hints = client.head().await;
    assert_eq!(hints.start, "HTTP/1.1 103 Early Hints");
    let links: [&[u8]; 2] = [b"</a.css>; rel=preload", b"</b.js>; rel=preload"];
    assert_eq!(hints.all("link"), links);
    for gone in ["connection", "x-hop", "content-length"] {
        assert!(!hints.has(gone), "{gone}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_of_http_1_0_hears_the_answer_alone() {
    let legacy = Listener::open().await;
    let sidecar = between(&legacy, "");
    let mut client = Socket::connect(sidecar.address).await;
    client.send("GET / HTTP/1.0\r\nHost: a\r\n\r\n").await;
    let mut backend = legacy.accept().await;
    backend.message().await;
    backend.send(HINTS).await;
    backend.send(OK).await;
    assert!(client.head().await.start.ends_with("200 OK"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_that_begins_to_speak_early_is_heard_though_nobody_listens_any_more() {
    let legacy = Listener::open().await;
    let sidecar = between(&legacy, "");
    let mut client = Socket::connect(sidecar.address).await;
    let ask = async |client: &mut Socket| client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    ask(&mut client).await;
    let mut backend = legacy.accept().await;
    for _ in 0..1_100 {
        backend.message().await;
        backend.send(OK).await;
        assert_eq!(client.message().await.body, b"ok");
        ask(&mut client).await;
    }
    // The first is missed, and its answer is not.
    backend.message().await;
    backend.send(HINTS).await;
    backend.send(OK).await;
    assert_eq!(client.head().await.start, "HTTP/1.1 200 OK");
    assert_eq!(client.exactly(2).await, b"ok");
    for _ in 0..3 {
        ask(&mut client).await;
        backend.message().await;
        backend.send(HINTS).await;
        hears_hints(&mut client).await;
        backend.send(OK).await;
        assert_eq!(client.message().await.body, b"ok");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_before_the_body_was_read_says_whether_its_connection_goes_on() {
    // Nobody takes the body; what has arrived of it can be passed over only where its end is there and known.
    let sidecar = Plan::new(&Nobody::open(), &Nobody::open()).route("flag: false").start();
    let sized = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n";
    let chunked = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let cases = [
        (format!("{sized}hello"), true),
        (format!("{sized}hel"), false),
        (sized.to_owned(), false),
        (format!("{chunked}5\r\nhello\r\n"), false),
        (format!("{chunked}5\r\nhello\r\n0\r\n\r\n"), false),
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), true),
    ];
    for (asks, goes_on) in cases {
        let mut client = Socket::connect(sidecar.address).await;
        client.send(&asks).await;
        let answer = client.message().await;
        assert_eq!(
            (answer.status(), answer.header("x-understudy-error")),
            (502, "connect_failed"),
            "{asks}"
        );
        assert_eq!(answer.header("connection") != "close", goes_on, "{asks}");
        if goes_on {
            client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
            assert_eq!(client.message().await.status(), 502, "{asks}");
        } else {
            client.ends().await;
        }
    }
}
