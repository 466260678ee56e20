//! The sidecar as a plain proxy to legacy.

use std::time::Duration;

use bytes::Bytes;
use http::Method;
use tokio::task::JoinSet;

use crate::support::{
    Answered, Backend, Client, Listener, Message, Nobody, Plan, Reply, Sidecar, Socket, deadline, echo, get, post,
    request, send,
};

const LEGACY: &str = "flag: false";

/// Bytes without a pattern that a shifted or doubled part would keep.
fn noise(len: usize) -> Bytes {
    let mut state = 0x9e37_79b9_u32;
    let bytes = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    });
    bytes.take(len).collect()
}

fn between(legacy: &Listener) -> Sidecar {
    Plan::new(legacy, &Nobody::open()).route(LEGACY).start()
}

/// One exchange over fresh connections with legacy in the test's hands: what it got, and what the client got.
async fn exchange(request: &[u8], answer: &[u8]) -> (Message, Message) {
    exchange_through(request, answer, "").await
}

async fn exchange_through(request: &[u8], answer: &[u8], more: &str) -> (Message, Message) {
    let legacy = Listener::open().await;
    let sidecar = Plan::new(&legacy, &Nobody::open()).route(LEGACY).more(more).start();
    let mut client = Socket::connect(sidecar.address).await;
    client.send(request).await;
    let mut backend = legacy.accept().await;
    let received = backend.message().await;
    backend.send(answer).await;
    (received, client.message().await)
}

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_flags_everything_goes_to_legacy_byte_for_byte() {
    let legacy = Backend::answering(|r| Reply::text(r.body.clone()).header("x-answer", "legacy")).await;
    let new = Backend::saying("new").await;
    let sidecar = Plan::new(&legacy, &new).route("flag: CHECKOUT").start();
    let body: Vec<u8> = (0..200_000_u32).flat_map(u32::to_le_bytes).collect();
    let answer = post(
        sidecar.address,
        "/a%20b/../c?q=%2F&x",
        &[("x-signature", "abc")],
        body.clone(),
    )
    .await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.body, body);
    assert_eq!(answer.header("x-answer"), "legacy");
    let received = legacy.wait_for(1).await.remove(0);
    assert_eq!(received.target, "/a%20b/../c?q=%2F&x");
    assert_eq!(received.body, body);
    assert_eq!(received.header("x-signature"), "abc");
    assert_eq!(received.header("host"), "shop.example");
    assert_eq!(received.header("x-forwarded-for"), "127.0.0.1");
    assert_eq!(new.connections(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_constant_flag_sends_everybody_to_new() {
    let legacy = Backend::saying("legacy").await;
    let new = Backend::saying("new").await;
    let sidecar = Plan::new(&legacy, &new)
        .route("flag: true\nwithout_identity: follow")
        .start();
    assert_eq!(get(sidecar.address, "/", &[]).await.text(), "new");
    assert_eq!(get(sidecar.address, "/", &[("x-shopper-id", "a")]).await.text(), "new");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_no_route_takes_goes_to_legacy_like_the_rest() {
    let legacy = echo().await;
    let new = Backend::saying("new").await;
    let routes = "  - { name: shop, match: { path: /shop }, flag: true, without_identity: follow }\n";
    let sidecar = Plan::new(&legacy, &new).routes(routes).start();
    let body = noise(300_000);
    assert_eq!(
        post(
            sidecar.address,
            "/other?a",
            &[("x-understudy-shadow", "1")],
            body.clone()
        )
        .await
        .body,
        body
    );
    let received = legacy.wait_for(1).await.remove(0);
    assert_eq!((&*received.target, &received.body), ("/other?a", &body));
    assert_eq!(received.header("x-forwarded-for"), "127.0.0.1");
    assert!(!received.is_copy());
    assert_eq!(get(sidecar.address, "/shop", &[]).await.text(), "new");
    assert_eq!(
        sidecar
            .metric("routing_assignments_count", &["route=\"unrouted\"", "legacy"])
            .await,
        1.0
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_method_passes_with_and_without_a_body() {
    let legacy = Backend::answering(|r| Reply::text(format!("{} {}", r.method, r.body.len()))).await;
    let sidecar = Plan::new(&legacy, &Nobody::open()).route(LEGACY).start();
    let methods = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "get"];
    for name in methods {
        let method: Method = name.parse().unwrap();
        for body in ["", "some text"] {
            let answer = send(sidecar.address, method.clone(), "/", &[], body).await;
            assert_eq!(
                (answer.status, answer.text()),
                (200, &*format!("{name} {}", body.len()))
            );
        }
    }
    assert_eq!(legacy.count(), 2 * methods.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_of_every_size_pass_byte_for_byte_streamed_and_captured() {
    let legacy = echo().await;
    let plan = || Plan::new(&legacy, &Nobody::open());
    let streamed = plan().route(LEGACY).start();
    let captured = plan()
        .routes("  - { name: shop, match: { path: / }, identity: [ { json: /from } ], flag: SOME }\n")
        .start();
    for sidecar in [&streamed, &captured] {
        let mut client = Client::connect(sidecar.address).await;
        for len in [0, 1, 1_234, 8_191, 8_192, 65_536, 65_537, 3_000_000] {
            let body = noise(len);
            let answer = client
                .send(request(Method::POST, "/", &[("x-len", &len.to_string())], body.clone()))
                .await;
            assert!(
                answer.status == 200 && answer.body == body,
                "{len}: {} {}",
                answer.status,
                answer.body.len()
            );
            let received = legacy.received().pop().unwrap();
            assert_eq!(received.header("x-len"), len.to_string());
            assert!(received.body == body, "{len}");
        }
    }
    captured.wait_for_zero("understudy_capture_bytes", &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chunked_bodies_pass_both_ways_without_a_length() {
    let (received, answer) = exchange(
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
          5;name=\"x\"\r\nhello\r\n00A\r\n, chunked \r\n5\r\nworld\r\n0\r\nX-Trailer: 1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n3\r\nand\r\n6\r\n back \r\n0\r\n\r\n",
    )
    .await;
    assert_eq!(received.body, b"hello, chunked world");
    assert_eq!(
        (received.header("transfer-encoding"), received.has("content-length")),
        ("chunked", false)
    );
    assert_eq!(answer.body, b"and back ");
    assert_eq!(
        (answer.header("transfer-encoding"), answer.has("content-length")),
        ("chunked", false)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_without_a_length_passes_with_every_method() {
    let legacy = echo().await;
    let sidecar = Plan::new(&legacy, &Nobody::open()).route(LEGACY).start();
    let mut client = Socket::connect(sidecar.address).await;
    for method in ["GET", "POST", "OPTIONS", "DELETE", "HEAD"] {
        client
            .send(format!(
                "{method} / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n"
            ))
            .await;
        client.send("3\r\ntwo\r\n0\r\n\r\n").await;
        if method != "HEAD" {
            assert_eq!(client.message().await.body, b"onetwo", "{method}");
        }
    }
    assert!(
        legacy
            .wait_for(5)
            .await
            .iter()
            .all(|received| received.body == "onetwo")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_bytes_pass_before_the_last_are_sent_both_ways() {
    let legacy = Listener::open().await;
    let sidecar = between(&legacy);
    let mut client = Socket::connect(sidecar.address).await;
    client
        .send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n")
        .await;
    let mut backend = legacy.accept().await;
    assert_eq!(backend.head().await.start, "POST / HTTP/1.1");
    assert_eq!(backend.chunk().await, b"one");
    client.send("3\r\ntwo\r\n0\r\n\r\n").await;
    assert_eq!(
        (backend.chunk().await, backend.chunk().await),
        (b"two".to_vec(), vec![])
    );
    backend.send("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nyes").await;
    assert_eq!(client.head().await.header("content-length"), "6");
    assert_eq!(client.exactly(3).await, b"yes");
    backend.send("...").await;
    assert_eq!(client.exactly(3).await, b"...");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_may_come_while_the_request_is_still_on_its_way() {
    let legacy = Listener::open().await;
    let sidecar = between(&legacy);
    let mut client = Socket::connect(sidecar.address).await;
    client
        .send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n")
        .await;
    let mut backend = legacy.accept().await;
    backend.head().await;
    assert_eq!(backend.chunk().await, b"one");
    backend
        .send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nONE\r\n")
        .await;
    assert_eq!(client.head().await.status(), 200);
    assert_eq!(client.chunk().await, b"ONE");
    client.send("3\r\ntwo\r\n0\r\n\r\n").await;
    assert_eq!(
        (backend.chunk().await, backend.chunk().await),
        (b"two".to_vec(), vec![])
    );
    backend.send("3\r\nTWO\r\n0\r\n\r\n").await;
    assert_eq!((client.chunk().await, client.chunk().await), (b"TWO".to_vec(), vec![]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_without_a_length_ends_where_its_connection_ends() {
    let legacy = Listener::open().await;
    let sidecar = between(&legacy);
    let mut client = Socket::connect(sidecar.address).await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut backend = legacy.accept().await;
    backend.head().await;
    backend.send("HTTP/1.1 200 OK\r\n\r\nall of it").await;
    drop(backend);
    assert_eq!(client.message().await.body, b"all of it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn header_values_pass_untouched_and_repeated_ones_in_order() {
    let (received, answer) = exchange(
        b"GET / HTTP/1.1\r\nHost: a\r\nCookie: b=1\r\nX-Sig: sha256=AbC, dEf\r\nX-Empty:\r\nX-Bytes: \xe9\xff\tx\r\n\
          X-Many: 2\r\nAccept: */*\r\nX-Many: 1\r\nX-Many: 3, 0\r\nAuthorization: Basic YTpi\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nSet-Cookie: a=1; Path=/\r\nX-Bytes: \xe9\xff\r\nSet-Cookie: b=\"2, 3\"\r\n\
          Date: Thu, 01 Jan 1970 00:00:00 GMT\r\nServer: legacy/1\r\nSet-Cookie: c\r\n\r\n",
    )
    .await;
    assert_eq!(received.all("x-many"), [&b"2"[..], b"1", b"3, 0"]);
    assert_eq!(received.all("x-bytes"), [b"\xe9\xff\tx"]);
    assert_eq!(received.all("x-empty"), [b""]);
    assert_eq!(received.header("x-sig"), "sha256=AbC, dEf");
    assert_eq!(
        (received.header("cookie"), received.header("authorization")),
        ("b=1", "Basic YTpi")
    );
    assert_eq!(answer.all("set-cookie"), [&b"a=1; Path=/"[..], b"b=\"2, 3\"", b"c"]);
    assert_eq!(answer.all("x-bytes"), [b"\xe9\xff"]);
    assert_eq!(answer.all("date"), [b"Thu, 01 Jan 1970 00:00:00 GMT"]);
    assert_eq!(answer.all("server"), [b"legacy/1"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_may_have_hundreds_of_headers() {
    let lines: String = (0..400).map(|n| format!("Set-Cookie: item-{n}=1\r\n")).collect();
    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n{lines}\r\n");
    let (_, answer) = exchange(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", answer.as_bytes()).await;
    let cookies = answer.all("set-cookie");
    assert_eq!(
        (cookies.len(), cookies[0], cookies[399]),
        (400, &b"item-0=1"[..], &b"item-399=1"[..])
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_belongs_to_one_connection_stays_on_it_both_ways() {
    let (received, answer) = exchange(
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, X-Private, Host, Content-Length\r\nKeep-Alive: timeout=9\r\n\
          Proxy-Connection: keep-alive\r\nProxy-Authorization: Basic YTpi\r\nTE: trailers\r\nTrailer: x\r\n\
          X-Private: 1\r\nX-Public: 1\r\nContent-Length: 4\r\n\r\nbody",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: X-Private\r\nKeep-Alive: timeout=9\r\n\
          Proxy-Authenticate: Basic\r\nX-Private: 1\r\nX-Public: 1\r\n\r\nok",
    )
    .await;
    for gone in [
        "keep-alive",
        "proxy-connection",
        "proxy-authorization",
        "trailer",
        "x-private",
    ] {
        assert!(!received.has(gone), "{gone} reached legacy");
    }
    for gone in ["keep-alive", "proxy-authenticate", "x-private"] {
        assert!(!answer.has(gone), "{gone} reached the client");
    }
    assert_eq!(
        (received.header("host"), received.header("te"), &*received.body),
        ("a", "trailers", &b"body"[..])
    );
    assert_eq!((received.header("x-public"), answer.header("x-public")), ("1", "1"));
    assert!(!received.header("connection").to_ascii_lowercase().contains("private"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upgrade_to_http_2_is_never_forwarded() {
    let (received, answer) = exchange(
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n",
        OK,
    )
    .await;
    assert!(!received.has("upgrade") && !received.has("http2-settings") && !received.has("connection"));
    assert_eq!(answer.body, b"ok");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_a_request_came_from_is_added_only_where_it_is_absent() {
    let (received, _) = exchange(b"GET / HTTP/1.1\r\nHost: shop.example:8443\r\n\r\n", OK).await;
    assert_eq!(received.all("x-forwarded-for"), [b"127.0.0.1"]);
    assert_eq!(received.all("x-forwarded-proto"), [b"http"]);
    assert_eq!(received.all("x-forwarded-host"), [b"shop.example:8443"]);
    assert_eq!(
        received.header("x-forwarded-port").parse::<u16>().map(|port| port > 0),
        Ok(true)
    );
    assert_eq!(received.all("host"), [b"shop.example:8443"]);
    assert!(!received.has("via"));
    let (received, _) = exchange(
        b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 192.0.2.1\r\nX-Forwarded-For: 192.0.2.2\r\n\
          X-Forwarded-Proto: https\r\nX-Forwarded-Host: shop.example\r\nX-Forwarded-Port: 443\r\nForwarded: for=192.0.2.9\r\n\r\n",
        OK,
    )
    .await;
    assert_eq!(received.all("x-forwarded-for"), [b"192.0.2.1, 192.0.2.2, 127.0.0.1"]);
    assert_eq!(received.all("x-forwarded-proto"), [b"https"]);
    assert_eq!(received.all("x-forwarded-host"), [b"shop.example"]);
    assert_eq!(received.all("x-forwarded-port"), [b"443"]);
    assert_eq!(received.all("forwarded"), [b"for=192.0.2.9"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_else_speaks_in_the_sidecars_name() {
    let (received, answer) = exchange(
        b"GET / HTTP/1.1\r\nHost: a\r\nX-Understudy-Shadow: 1\r\nX-Understudy-Exchange: forged\r\nX_Understudy-other: 1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX-Understudy-Error: forged\r\nX-Understudy-Served-By: new\r\nContent-Length: 0\r\n\r\n",
    )
    .await;
    let ours: Vec<_> = received
        .headers
        .iter()
        .filter(|(name, _)| name.contains("understudy"))
        .collect();
    assert_eq!(ours.len(), 1, "{ours:?}");
    assert_eq!(received.header("x-understudy-exchange").len(), 32);
    assert!(
        answer
            .headers
            .iter()
            .all(|(name, _)| !name.starts_with("x-understudy-")),
        "{answer:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn via_and_served_by_are_said_when_asked_for() {
    let request = b"GET / HTTP/1.1\r\nHost: a\r\nVia: 1.0 edge\r\n\r\n";
    let (received, answer) = exchange_through(request, OK, "via: true\nserved_by: true").await;
    assert_eq!(received.all("via"), [&b"1.0 edge"[..], b"1.1 understudy"]);
    assert_eq!(answer.all("via"), [b"1.1 understudy"]);
    assert_eq!(answer.all("x-understudy-served-by"), [b"legacy"]);
    let new = Backend::saying("new").await;
    let plan = Plan::new(&Nobody::open(), &new)
        .route("flag: true\nwithout_identity: follow")
        .more("served_by: true");
    assert_eq!(
        get(plan.start().address, "/", &[])
            .await
            .header("x-understudy-served-by"),
        "new"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_absolute_target_becomes_path_and_host() {
    let (received, _) = exchange(
        b"GET http://shop.example:81/a/b?c=%20d HTTP/1.1\r\nHost: other\r\n\r\n",
        OK,
    )
    .await;
    assert_eq!(received.start, "GET /a/b?c=%20d HTTP/1.1");
    assert_eq!(received.all("host"), [b"shop.example:81"]);
    let (received, _) = exchange(b"GET http://shop.example HTTP/1.1\r\nHost: shop.example\r\n\r\n", OK).await;
    assert_eq!(received.start, "GET / HTTP/1.1");
    let (received, _) = exchange(b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", OK).await;
    assert_eq!(received.start, "OPTIONS * HTTP/1.1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_of_http_1_0_is_answered_and_its_backend_speaks_1_1() {
    let legacy = Listener::open().await;
    let sidecar = between(&legacy);
    let mut client = Socket::connect(sidecar.address).await;
    client.send("GET /old HTTP/1.0\r\nHost: a\r\n\r\n").await;
    let mut backend = legacy.accept().await;
    assert_eq!(backend.message().await.start, "GET /old HTTP/1.1");
    // It knows no chunks, so the end of such an answer is the end of its connection.
    backend
        .send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n")
        .await;
    let head = client.head().await;
    assert_eq!(
        (&*head.start, head.has("transfer-encoding")),
        ("HTTP/1.0 200 OK", false)
    );
    assert_eq!(client.rest().await, b"onetwo");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_sent_in_one_go_are_answered_in_their_order() {
    let legacy = Backend::answering(|r| Reply::text(format!("{} {}", r.target, r.body.len()))).await;
    let sidecar = Plan::new(&legacy, &Nobody::open()).route(LEGACY).start();
    let mut client = Socket::connect(sidecar.address).await;
    client
        .send("GET /1 HTTP/1.1\r\nHost: a\r\n\r\nPOST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcGET /3 HTTP/1.1\r\nHost: a\r\n\r\n")
        .await;
    for expected in ["/1 0", "/2 3", "/3 0"] {
        assert_eq!(client.message().await.body, expected.as_bytes());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_waits_to_be_told_to_continue_is_told() {
    let legacy = echo().await;
    let sidecar = Plan::new(&legacy, &Nobody::open()).route(LEGACY).start();
    let mut client = Socket::connect(sidecar.address).await;
    client
        .send("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n")
        .await;
    assert_eq!(client.head().await.status(), 100);
    client.send("body").await;
    assert_eq!(client.message().await.body, b"body");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_leaves_takes_its_request_with_it() {
    let legacy = Listener::open().await;
    let sidecar = between(&legacy);
    for (begun, reset) in [(false, false), (false, true), (true, false), (true, true)] {
        let mut client = Socket::connect(sidecar.address).await;
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let mut backend = legacy.accept().await;
        backend.message().await;
        if begun {
            backend.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf").await;
            assert_eq!(
                (client.head().await.status(), client.exactly(4).await),
                (200, b"half".to_vec())
            );
        }
        if reset {
            client.reset();
        } else {
            drop(client);
        }
        backend.ends().await;
    }
    sidecar.wait_for_zero("understudy_requests_in_flight", &[]).await;
    assert_eq!(
        sidecar.metric("understudy_runs_failed_total", &[]).await,
        0.0,
        "legacy failed nobody"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn interim_answers_of_a_backend_are_passed_over() {
    let interim = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    let (_, answer) = exchange(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", interim).await;
    assert_eq!((answer.status(), &*answer.body), (200, &b"ok"[..]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_client_connection_needs_one_backend_connection() {
    let legacy = echo().await;
    let sidecar = Plan::new(&legacy, &Nobody::open()).route(LEGACY).start();
    let mut client = Client::connect(sidecar.address).await;
    for round in 0..30_usize {
        let (method, body) = if round % 2 == 0 {
            (Method::GET, noise(0))
        } else {
            (Method::POST, noise(round * 5_000))
        };
        assert_eq!(client.send(request(method, "/", &[], body.clone())).await.body, body);
    }
    assert_eq!((legacy.count(), legacy.connections()), (30, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_that_closes_idle_connections_costs_no_request() {
    let legacy = Listener::open().await;
    let sidecar = between(&legacy);
    let mut client = Socket::connect(sidecar.address).await;
    for round in 0..20 {
        let method = if round % 2 == 0 { "GET" } else { "POST" };
        client
            .send(format!(
                "{method} /{round} HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx"
            ))
            .await;
        let mut backend = legacy.accept().await;
        assert_eq!(backend.message().await.start, format!("{method} /{round} HTTP/1.1"));
        backend.send(OK).await;
        // It promised nothing, and it is gone before the client has read its answer.
        drop(backend);
        assert_eq!(client.message().await.status(), 200, "{method} {round}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_closes_under_a_repeatable_request_costs_it_nothing_and_any_other_is_sent_once() {
    let legacy = Listener::open().await;
    let sidecar = between(&legacy);
    let mut client = Socket::connect(sidecar.address).await;
    client.send("GET /1 HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut backend = legacy.accept().await;
    backend.message().await;
    backend.send(OK).await;
    client.message().await;
    // The close crosses the next request on the wire: the backend has not looked at it.
    client.send("GET /2 HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(backend.message().await.start, "GET /2 HTTP/1.1");
    backend.reset();
    let mut backend = legacy.accept().await;
    assert_eq!(backend.message().await.start, "GET /2 HTTP/1.1");
    backend.send(OK).await;
    assert_eq!(client.message().await.status(), 200);
    client
        .send("POST /3 HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx")
        .await;
    // Who has closed a young connection without a word gets what may not be repeated on a new one.
    let mut backend = legacy.accept().await;
    assert_eq!(backend.message().await.start, "POST /3 HTTP/1.1");
    backend.reset();
    assert_eq!(client.message().await.status(), 502);
    assert!(legacy.accept_now().await.is_none(), "the POST was sent again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_connection_is_kept_no_longer_than_it_was_promised() {
    for promise in [
        "Keep-Alive: timeout=1",
        "Keep-Alive: max=5, timeout=1",
        "Connection: close",
    ] {
        let legacy = Listener::open().await;
        let sidecar = between(&legacy);
        let mut client = Socket::connect(sidecar.address).await;
        let mut kept = Vec::new();
        for _ in 0..3 {
            client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
            let mut backend = legacy.accept().await;
            backend.message().await;
            backend
                .send(format!("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n{promise}\r\n\r\n"))
                .await;
            assert_eq!(client.message().await.status(), 200, "{promise}");
            kept.push(backend);
        }
        for backend in &mut kept {
            backend.ends().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unused_backend_connection_is_closed_at_its_limit() {
    let legacy = Backend::saying("legacy").await;
    let sidecar = Plan::new(&legacy, &Nobody::open())
        .route(LEGACY)
        .legacy_more("idle: 200ms")
        .start();
    assert_eq!(get(sidecar.address, "/", &[]).await.text(), "legacy");
    assert_eq!(legacy.connections(), 1);
    deadline("the unused connection to be closed", || legacy.open() == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_must_not_be_sent_twice_uses_only_a_fresh_connection() {
    let legacy = Backend::saying("legacy").await;
    let sidecar = Plan::new(&legacy, &Nobody::open())
        .route(LEGACY)
        .legacy_more("idle: 60s")
        .start();
    let mut client = Client::connect(sidecar.address).await;
    client.send(request(Method::POST, "/", &[], "1")).await;
    client.send(request(Method::POST, "/", &[], "2")).await;
    assert_eq!(legacy.connections(), 1, "a connection that was just used is fresh");
    // Growing old is what is tested; nothing else makes it so.
    tokio::time::sleep(Duration::from_millis(600)).await;
    client.send(request(Method::GET, "/", &[], "")).await;
    assert_eq!(legacy.connections(), 1, "a GET may use an old connection");
    tokio::time::sleep(Duration::from_millis(600)).await;
    client.send(request(Method::POST, "/", &[], "3")).await;
    assert_eq!((legacy.connections(), legacy.count()), (2, 4), "a POST may not");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_clients_at_once_each_get_their_own_answer() {
    let legacy = Backend::answering(|r| Reply::text(format!("{} {}", r.header("x-n"), r.body.len()))).await;
    let sidecar = Plan::new(&legacy, &Nobody::open()).route(LEGACY).start();
    let mut clients = JoinSet::new();
    for n in 0..50_usize {
        let address = sidecar.address;
        clients.spawn(async move {
            let mut client = Client::connect(address).await;
            for round in 0..10 {
                let body = noise(n * 100 + round);
                let answer: Answered = client
                    .send(request(Method::POST, "/", &[("x-n", &n.to_string())], body))
                    .await;
                assert_eq!(answer.text(), format!("{n} {}", n * 100 + round));
            }
        });
    }
    clients.join_all().await;
    assert_eq!(legacy.count(), 500);
}
