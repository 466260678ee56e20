//! Upgrades: which are passed on, to whom, and what becomes of the bytes after a 101.

use tokio_tungstenite::tungstenite;

use crate::support::{Backend, Listener, Located, Nobody, Plan, Reply, Sidecar, Socket};

const ASK: &str = "GET /chat?room=1 HTTP/1.1\r\nHost: shop.example\r\nX-Shopper-Id: a\r\nConnection: keep-alive, Upgrade\r\n\
    Upgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
const AGREE: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
const TO_NEW: &str = "flag: true\nwithout_identity: follow";

fn plain(legacy: &impl Located, more: &str) -> Sidecar {
    Plan::new(legacy, &Nobody::open())
        .route("flag: false")
        .more(more)
        .start()
}

/// Both ends of an open tunnel.
async fn open(sidecar: &Sidecar, backend: &Listener) -> (Socket, Socket) {
    let mut client = Socket::connect(sidecar.address).await;
    client.send(ASK).await;
    let mut server = backend.accept().await;
    server.head().await;
    server.send(AGREE).await;
    assert_eq!(client.head().await.status(), 101);
    (client, server)
}

async fn carries(client: &mut Socket, server: &mut Socket) {
    client.send("ping").await;
    assert_eq!(server.exactly(4).await, b"ping");
    server.send("pong").await;
    assert_eq!(client.exactly(4).await, b"pong");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_pass_both_ways_once_a_backend_has_agreed() {
    let legacy = Listener::open().await;
    let sidecar = plain(&legacy, "served_by: true");
    let mut client = Socket::connect(sidecar.address).await;
    client.send(ASK).await;
    let mut server = legacy.accept().await;
    let asked = server.head().await;
    assert_eq!(asked.start, "GET /chat?room=1 HTTP/1.1");
    assert_eq!(asked.all("connection"), [b"upgrade"]);
    assert_eq!(asked.all("upgrade"), [b"websocket"]);
    assert_eq!(asked.header("sec-websocket-key"), "dGhlIHNhbXBsZSBub25jZQ==");
    assert!(asked.has("x-understudy-exchange") && asked.has("x-forwarded-for"));
    // The backend's first bytes come with its agreement.
    server.send(format!("{AGREE}hello")).await;
    let agreed = client.head().await;
    assert_eq!(agreed.start, "HTTP/1.1 101 Switching Protocols");
    assert_eq!(
        (agreed.header("connection"), agreed.header("upgrade")),
        ("upgrade", "websocket")
    );
    assert_eq!(agreed.header("sec-websocket-accept"), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    assert_eq!(agreed.header("x-understudy-served-by"), "legacy");
    assert!(!agreed.has("content-length") && !agreed.has("transfer-encoding"));
    assert_eq!(client.exactly(5).await, b"hello");
    carries(&mut client, &mut server).await;
    // What looks like a request is none any more.
    client
        .send("GET /evil HTTP/1.1\r\nX-Understudy-Shadow: 1\r\n\r\n\0")
        .await;
    assert_eq!(
        server.exactly(47).await,
        b"GET /evil HTTP/1.1\r\nX-Understudy-Shadow: 1\r\n\r\n\0"
    );
    let large: Vec<u8> = (0..3_000_000_u32).map(|n| n.to_le_bytes()[1]).collect();
    let (sent, same) = tokio::join!(client.try_send(&large), server.is_next(&large));
    assert!(sent && same);
    let (sent, same) = tokio::join!(server.try_send(&large), client.is_next(&large));
    assert!(sent && same);
    sidecar.wait_for_metric("understudy_tunnels", &["legacy"], 1.0).await;
    assert_eq!(sidecar.metric("understudy_connections", &[]).await, 1.0);
    // One end is half of the end.
    client.finish().await;
    server.ends().await;
    server.send("last words").await;
    assert_eq!(client.exactly(10).await, b"last words");
    drop(server);
    client.ends().await;
    sidecar.wait_for_zero("understudy_tunnels", &[]).await;
    sidecar.wait_for_zero("understudy_connections", &[]).await;
    sidecar
        .wait_for_metric("understudy_tunnel_bytes_total", &["from_client"], 3_000_051.0)
        .await;
    assert_eq!(
        sidecar.metric("understudy_tunnel_bytes_total", &["to_client"]).await,
        3_000_019.0
    );
    assert_eq!(
        sidecar
            .metric("understudy_tunnels_ended_total", &["closed", "legacy"])
            .await,
        1.0
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_websocket_goes_to_the_side_that_was_decided_and_to_no_other() {
    let legacy = Backend::saying("legacy").await;
    let new = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut plan =
        Plan::new(&legacy, &Nobody::open()).route("flag: true\nwithout_identity: follow\nshadow: true\ndual_run: true");
    plan.new_url = format!("\"http://{}\"", new.local_addr().unwrap());
    let sidecar = plan.legacy_more("copies: dry_run").start();
    let echo = tokio::task::spawn_blocking(move || {
        let mut server = tungstenite::accept(new.accept().unwrap().0).unwrap();
        while let Ok(message) = server.read() {
            if message.is_text() {
                server.send(message).unwrap();
            }
        }
    });
    let address = sidecar.address;
    let client = tokio::task::spawn_blocking(move || {
        let stream = std::net::TcpStream::connect(address).unwrap();
        let (mut client, answer) = tungstenite::client("ws://shop.example/chat", stream).unwrap();
        assert_eq!(answer.status(), 101);
        for text in ["one", &"two".repeat(100_000)] {
            client.send(tungstenite::Message::text(text)).unwrap();
            assert_eq!(client.read().unwrap(), tungstenite::Message::text(text));
        }
        client.close(None).unwrap();
        while client.read().is_ok() {}
    });
    client.await.unwrap();
    echo.await.unwrap();
    assert_eq!(legacy.count(), 0);
    let skipped = sidecar
        .metric("understudy_copies_skipped_total", &["upgrade", "legacy"])
        .await;
    assert_eq!(skipped, 1.0);
    assert_eq!(sidecar.metric("canonical_events_published_count", &[]).await, 1.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_101_an_answer_is_an_answer() {
    let legacy = Backend::answering(|r| Reply::text(r.header("upgrade").to_owned())).await;
    let sidecar = plain(&legacy, "");
    let mut client = Socket::connect(sidecar.address).await;
    for _ in 0..2 {
        client.send(ASK).await;
        let answer = client.message().await;
        assert_eq!((answer.status(), &*answer.body), (200, &b"websocket"[..]));
        assert!(!answer.has("upgrade"));
    }
    client
        .send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        .await;
    assert_eq!(client.message().await.status(), 200);
    client.ends().await;
    assert_eq!(sidecar.metric("understudy_tunnels_ended_total", &[]).await, 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_would_carry_requests_past_the_decision_is_not_offered() {
    let legacy = Backend::answering(|r| Reply::text(r.header("upgrade").to_owned())).await;
    let sidecar = plain(&legacy, "");
    let cases = [
        (
            "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n",
            "",
        ),
        (
            "Connection: Upgrade\r\nUpgrade: h2c, websocket, TLS/1.0, HTTP/2.0\r\n",
            "websocket",
        ),
        // Not named in Connection, with a body, or with HTTP/1.0, it is no wish to change the protocol.
        ("Upgrade: websocket\r\n", ""),
        ("Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 4\r\n", ""),
    ];
    for (headers, offered) in cases {
        let mut client = Socket::connect(sidecar.address).await;
        client
            .send(format!("POST / HTTP/1.1\r\nHost: a\r\n{headers}\r\n"))
            .await;
        if headers.contains("Length") {
            client.send("body").await;
        }
        assert_eq!(client.message().await.body, offered.as_bytes(), "{headers}");
    }
    let received = legacy.received();
    assert!(received.iter().all(|r| r.header("http2-settings").is_empty()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_101_that_nobody_asked_for_or_to_something_else_is_a_502() {
    let asked_for_nothing = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let other = AGREE.replace("Upgrade: websocket", "Upgrade: h2c");
    let nameless = AGREE.replace("Upgrade: websocket\r\n", "");
    for (ask, answer) in [(asked_for_nothing, AGREE), (ASK, &*other), (ASK, &*nameless)] {
        let legacy = Listener::open().await;
        let sidecar = plain(&legacy, "");
        let mut client = Socket::connect(sidecar.address).await;
        client.send(ask).await;
        let mut server = legacy.accept().await;
        server.head().await;
        server.send(format!("{answer}smuggled")).await;
        let answer = client.message().await;
        assert_eq!(
            (answer.status(), answer.header("x-understudy-error")),
            (502, "malformed_answer")
        );
        server.ends().await;
        client.send("GET /next HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let mut server = legacy.accept().await;
        server.head().await;
        server.send("HTTP/1.1 204 No Content\r\n\r\n").await;
        assert_eq!(client.head().await.status(), 204);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tunnel_lives_by_its_own_limit_on_silence() {
    let legacy = Listener::open().await;
    let limits =
        "limits: { idle: 200ms, header_timeout: 200ms, write_timeout: 200ms, body_idle: 200ms, tunnel_idle: 2s }";
    let sidecar = plain(&legacy, limits);
    let (mut client, mut server) = open(&sidecar, &legacy).await;
    // A connection without a request, opened later, meets the limit on idle ones first.
    Socket::connect(sidecar.address).await.ends().await;
    carries(&mut client, &mut server).await;
    let quiet = tokio::time::Instant::now();
    client.ends().await;
    server.ends().await;
    assert!(
        quiet.elapsed() >= std::time::Duration::from_secs(2),
        "{:?}",
        quiet.elapsed()
    );
    sidecar
        .wait_for_metric("understudy_tunnels_ended_total", &["idle"], 1.0)
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_ends_the_tunnels_to_new_and_leaves_those_to_legacy() {
    let (legacy, new) = (Listener::open().await, Listener::open().await);
    let routes = "  - { name: moved, match: { path: /chat }, flag: true, without_identity: follow }\n  \
                  - { name: stays, match: { path: /old }, flag: false }\n";
    let sidecar = Plan::new(&legacy, &new).routes(routes).start();
    let (mut on_new, mut new_end) = open(&sidecar, &new).await;
    let mut on_legacy = Socket::connect(sidecar.address).await;
    on_legacy.send(ASK.replace("/chat", "/old")).await;
    let mut legacy_end = legacy.accept().await;
    legacy_end.head().await;
    legacy_end.send(AGREE).await;
    assert_eq!(on_legacy.head().await.status(), 101);
    assert_eq!(sidecar.kill("stays").await.status, 200);
    carries(&mut on_new, &mut new_end).await;
    assert_eq!(sidecar.kill("moved").await.status, 200);
    on_new.ends().await;
    new_end.ends().await;
    carries(&mut on_legacy, &mut legacy_end).await;
    sidecar
        .wait_for_metric("understudy_tunnels_ended_total", &["killed", "new"], 1.0)
        .await;
    // Whoever comes back is on legacy.
    let (mut client, mut server) = open(&sidecar, &legacy).await;
    carries(&mut client, &mut server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_new_cannot_be_reached_a_tunnel_goes_to_legacy() {
    let legacy = Listener::open().await;
    let sidecar = Plan::new(&legacy, &Nobody::open()).route(TO_NEW).start();
    let (mut client, mut server) = open(&sidecar, &legacy).await;
    carries(&mut client, &mut server).await;
    assert_eq!(
        sidecar.metric("understudy_failovers_total", &["never_reached"]).await,
        1.0
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_tunnel_too_many_is_answered_with_503() {
    let legacy = Listener::open().await;
    let sidecar = plain(&legacy, "limits: { tunnels: 1 }");
    let (client, server) = open(&sidecar, &legacy).await;
    let mut refused = Socket::connect(sidecar.address).await;
    refused.send(ASK).await;
    let answer = refused.message().await;
    assert_eq!(
        (answer.status(), answer.header("x-understudy-error")),
        (503, "overload")
    );
    drop(client);
    drop(server);
    sidecar.wait_for_zero("understudy_tunnels", &[]).await;
    let (mut client, mut server) = open(&sidecar, &legacy).await;
    carries(&mut client, &mut server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tunnel_may_go_on_until_the_limit_of_a_drain() {
    let legacy = Listener::open().await;
    let sidecar = plain(&legacy, "limits: { drain: 1s }");
    let (mut client, mut server) = open(&sidecar, &legacy).await;
    let address = sidecar.address;
    let stopping = tokio::spawn(sidecar.stop());
    crate::support::eventually("the listener to close", || async {
        tokio::net::TcpStream::connect(address).await.is_err()
    })
    .await;
    carries(&mut client, &mut server).await;
    client.ends().await;
    server.ends().await;
    let took = stopping.await.unwrap();
    assert!(took < std::time::Duration::from_secs(4), "{took:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_end_that_breaks_ends_the_other() {
    let legacy = Listener::open().await;
    let sidecar = plain(&legacy, "");
    let (client, mut server) = open(&sidecar, &legacy).await;
    client.reset();
    server.rest().await;
    drop(server);
    let (mut client, server) = open(&sidecar, &legacy).await;
    server.reset();
    client.rest().await;
    drop(client);
    sidecar.wait_for_zero("understudy_tunnels", &[]).await;
    sidecar.wait_for_zero("understudy_requests_in_flight", &[]).await;
}
