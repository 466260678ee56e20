//! Point 5, hop by hop: what belongs to one connection stays on it, both ways, and nothing else is taken away.

use crate::recorder::Recorder;
use crate::scripted::{Act, Scripted};
use crate::strict::Strict;
use crate::support::{Nobody, Plan, Socket};
use crate::table::{Rig, Want, case};

const GONE: [(&str, &str); 8] = [
    ("Keep-Alive", "timeout=9, max=100"),
    ("Proxy-Connection", "keep-alive"),
    ("Proxy-Authenticate", "Basic realm=x"),
    ("Proxy-Authorization", "Basic YTpi"),
    ("TE", "gzip;q=0.5, deflate"),
    ("Trailer", "X-Checksum"),
    ("Upgrade", "h2c"),
    ("X-Named", "1"),
];

/// What both backends got of one request.
async fn forwarded(lines: &str) -> [Strict; 2] {
    let (legacy, new) = (Recorder::open().await, Recorder::open().await);
    let sidecar = Plan::new(&legacy, &new)
        .route("flag: false\nshadow: { flag: true, methods: [GET, POST] }")
        .start();
    let mut client = Socket::connect(sidecar.address).await;
    client
        .send(format!("GET /hop HTTP/1.1\r\nHost: a\r\n{lines}\r\n"))
        .await;
    assert_eq!(client.message().await.status(), 200, "{lines}");
    let both = [legacy.wait_for("/hop").await, new.wait_for("/hop").await];
    assert_eq!((legacy.errors(), new.errors()), (vec![], vec![]));
    both
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_belongs_to_one_connection_reaches_no_backend() {
    let lines: String = GONE
        .iter()
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .collect();
    for connection in [
        "Connection: close, X-Named, Upgrade\r\n",
        "Connection: x-named\r\nConnection: Upgrade\r\n",
        "Connection: , ,X-NAMED ,\tkeep-alive,, upgrade\r\n",
        "Connection: upgrade, HTTP2-Settings, x-named\r\nHTTP2-Settings: AAMAAABk\r\n",
    ] {
        for got in forwarded(&format!("{lines}{connection}X-Kept: 1\r\n")).await {
            for (name, _) in GONE {
                assert!(!got.has(name), "{name} after {connection}: {got:?}");
            }
            assert!(!got.has("http2-settings") && got.header("x-kept") == "1", "{got:?}");
            let left = got.header("connection").to_lowercase();
            assert!(!left.contains("named") && !left.contains("upgrade"), "{got:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_te_only_trailers_is_passed_on() {
    for (value, expected) in [
        ("trailers", "trailers"),
        ("Trailers", "trailers"),
        ("trailers, gzip", "trailers"),
        ("gzip;q=0.5, trailers", "trailers"),
        ("gzip", ""),
        ("chunked", ""),
        ("xtrailers", ""),
    ] {
        for got in forwarded(&format!("TE: {value}\r\nConnection: TE\r\n")).await {
            assert_eq!(got.header("te").to_lowercase(), expected, "{value}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn naming_what_is_not_hop_by_hop_does_not_remove_it() {
    let kept = [
        ("Host", "a"),
        ("X-Forwarded-For", "127.0.0.1"),
        ("X-Forwarded-Proto", "http"),
        ("X-Forwarded-Host", "a"),
        ("X-Forwarded-Port", ""),
    ];
    let names: Vec<&str> = kept.iter().map(|(name, _)| *name).collect();
    let lines = format!(
        "Connection: {}, Content-Length, Forwarded, X-Real-IP\r\nForwarded: for=1.2.3.4\r\nX-Real-IP: 1.2.3.4\r\n",
        names.join(", ")
    );
    for got in forwarded(&lines).await {
        for (name, value) in kept {
            assert!(got.has(name) && got.header(name).contains(value), "{name}: {got:?}");
        }
        assert_eq!(
            (got.header("forwarded"), got.header("x-real-ip")),
            ("for=1.2.3.4".into(), "1.2.3.4".into())
        );
    }
    // A body whose length could be hidden would be read as the next request.
    let rig = Rig::new("").await;
    let mut client = Socket::connect(rig.instance.address).await;
    let body = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    client
        .send(format!(
            "POST /named HTTP/1.1\r\nHost: a\r\nConnection: content-length, host, transfer-encoding\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ))
        .await;
    assert_eq!(client.message().await.body, body.as_bytes());
    assert_eq!(rig.legacy.messages().len(), 1, "{:?}", rig.legacy.messages());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_belongs_to_one_connection_reaches_no_client() {
    let lines: String = GONE
        .iter()
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .collect();
    let answer = format!(
        "HTTP/1.1 200 OK\r\nConnection: X-Named, Content-Length, Date, upgrade\r\n{lines}X-Kept: 1\r\nDate: Mon, 01 Jan 2024 \
         00:00:00 GMT\r\nContent-Length: 2\r\n\r\nok"
    );
    let legacy = Scripted::new(move |_| Act::Say(answer.clone().into_bytes())).await;
    let sidecar = Plan::new(&legacy, &Nobody::open()).route("flag: false").start();
    let mut client = Socket::connect(sidecar.address).await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let answer = client.message().await;
    for (name, _) in GONE {
        assert!(!answer.has(name), "{name}: {answer:?}");
    }
    assert_eq!((answer.header("x-kept"), &*answer.body), ("1", &b"ok"[..]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connect_and_trace_are_405() {
    let cases = [
        "TRACE / HTTP/1.1\r\nHost: a\r\n\r\n",
        "TRACE /s3cr3t HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\n\r\n",
        "CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\n\r\n",
        "CONNECT a.example:443 HTTP/1.1\r\nHost: a.example\r\nContent-Length: 0\r\n\r\n",
    ];
    let cases = cases
        .iter()
        .map(|bytes| case(*bytes, *bytes, Want::Refused(&[405])))
        .collect();
    Rig::new("").await.run(cases).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_tunnelled_without_a_101_to_a_request_that_asked() {
    // A 101 to a request that did not ask for it is no answer.
    let switching =
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nraw".to_vec();
    let legacy = Scripted::new(move |target| match target {
        "/101" => Act::Say(switching.clone()),
        _ => Act::Say(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_vec()),
    })
    .await;
    let sidecar = Plan::new(&legacy, &Nobody::open()).route("flag: false").start();
    for lines in [
        "",
        "Upgrade: websocket\r\n",
        "Connection: upgrade\r\n",
        "Connection: upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n",
    ] {
        let mut client = Socket::connect(sidecar.address).await;
        client
            .send(format!("GET /101 HTTP/1.1\r\nHost: a\r\n{lines}\r\n"))
            .await;
        let answer = client.message().await;
        assert_eq!(
            (answer.status(), answer.header("x-understudy-error")),
            (502, "malformed_answer"),
            "{lines:?}"
        );
    }
    // Whoever asks, and is answered otherwise, has not left HTTP: what it sends next is a request, read as strictly.
    let mut client = Socket::connect(sidecar.address).await;
    client
        .send("GET /200 HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n\x01\x02raw\r\n\r\n")
        .await;
    assert_eq!(client.message().await.status(), 200);
    let refused = client.try_head().await;
    assert!(refused.is_none_or(|answer| answer.status() == 400));
    client.rest().await;
    assert_eq!(legacy.asked().len(), 5, "{:?}", legacy.asked());
}
