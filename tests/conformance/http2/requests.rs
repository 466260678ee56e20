//! Points 3 and 5 to 8: what reaches backends and clients is the same over HTTP/2 as over HTTP/1, and as well formed.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, Request};

use super::PROTOCOL_ERROR;
use super::wire::{DATA, END_HEADERS, END_STREAM, Frames, GET, HEADERS, POST, RST_STREAM, block, frame};
use crate::recorder::Recorder;
use crate::scripted::{Act, Scripted, cut_answers};
use crate::support::http2::{Client2, request, whole};
use crate::support::{Listener, Nobody, Plan, limited};
use crate::table::Dice;

const CANCEL: u32 = 8;

/// Legacy serves, and new gets copies of everything.
async fn mirrored() -> (Recorder, Recorder, crate::support::Sidecar) {
    let (legacy, new) = (Recorder::open().await, Recorder::open().await);
    let sidecar = Plan::new(&legacy, &new)
        .route("flag: false\nshadow: { flag: true, methods: [GET, POST] }")
        .start();
    (legacy, new, sidecar)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_authority_reaches_backends_as_the_one_host() {
    let (legacy, new, sidecar) = mirrored().await;
    for (at, authority) in [
        "shop.example",
        "SHOP.Example:8080",
        "127.0.0.1:1",
        "[2001:db8::1]:443",
        "a.",
    ]
    .iter()
    .enumerate()
    {
        let mut client = Client2::connect(sidecar.address).await;
        let uri = format!("http://{authority}/{at}");
        let with_host = Request::get(uri).header("host", *authority);
        let answer = client.send(with_host.body(Bytes::new()).unwrap()).await.unwrap();
        assert_eq!(answer.status, 200, "{authority}");
        for got in [
            legacy.wait_for(&format!("/{at}")).await,
            new.wait_for(&format!("/{at}")).await,
        ] {
            assert_eq!(got.all("host"), [authority.as_bytes()]);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_belongs_to_one_connection_reaches_no_backend() {
    let (legacy, new, sidecar) = mirrored().await;
    let mut client = Client2::connect(sidecar.address).await;
    let gone = [
        ("proxy-authenticate", "Basic realm=x"),
        ("proxy-authorization", "Basic YTpi"),
        ("trailer", "x-checksum"),
        ("http2-settings", "AAMAAABk"),
    ];
    let fields = [&gone[..], &[("te", "trailers"), ("x-kept", "1")]].concat();
    let answer = client.send(request("GET", "/hop", &fields, "")).await.unwrap();
    assert_eq!(answer.status, 200);
    for got in [legacy.wait_for("/hop").await, new.wait_for("/hop").await] {
        for (name, _) in gone {
            assert!(!got.has(name), "{name}: {got:?}");
        }
        assert_eq!(
            (got.header("te"), got.header("x-kept")),
            ("trailers".into(), "1".into())
        );
    }
    assert_eq!((legacy.errors(), new.errors()), (vec![], vec![]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_belongs_to_one_connection_reaches_no_client() {
    let answer = "HTTP/1.1 200 OK\r\nConnection: X-Named, close, upgrade\r\nKeep-Alive: timeout=9\r\nProxy-Connection: \
                  close\r\nProxy-Authenticate: Basic realm=x\r\nUpgrade: h2c\r\nX-Named: 1\r\nX-Kept: 1\r\n\
                  Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";
    let legacy = Scripted::new(move |_| Act::Say(answer.into())).await;
    let sidecar = limited(&legacy, "idle: 60s");
    let mut client = Client2::connect(sidecar.address).await;
    let answer = client.send(request("GET", "/", &[], "")).await.unwrap();
    for name in [
        "connection",
        "keep-alive",
        "proxy-connection",
        "proxy-authenticate",
        "upgrade",
        "x-named",
        "transfer-encoding",
    ] {
        assert!(!answer.headers.contains_key(name), "{name}: {:?}", answer.headers);
    }
    assert_eq!((answer.header("x-kept"), answer.text()), ("1", "ok"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_tunnelled() {
    let switching = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nraw";
    let legacy = Scripted::new(move |_| Act::Say(switching.into())).await;
    let sidecar = limited(&legacy, "idle: 60s");
    let mut client = Client2::connect(sidecar.address).await;
    for _ in 0..2 {
        let answer = client.send(request("GET", "/", &[], "")).await.unwrap();
        assert_eq!(
            (answer.status, answer.header("x-understudy-error")),
            (502, "malformed_answer")
        );
    }
}

fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut dice = Dice::new(seed);
    (0..len).map(|_| u8::try_from(dice.below(256)).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_pass_byte_for_byte_to_both_backends_and_back() {
    let (legacy, new, sidecar) = mirrored().await;
    let mut client = Client2::connect(sidecar.address).await;
    for (at, len) in [0, 1, 16_384, 70_001, 700_000].into_iter().enumerate() {
        let body = noise(at as u64, len);
        for with_length in [false, true] {
            let path = format!("/{len}/{with_length}");
            let length = len.to_string();
            let fields = [("content-length", &*length)];
            let fields = if with_length { &fields[..] } else { &[] };
            let answer = client.send(request("POST", &path, fields, body.clone())).await.unwrap();
            assert!(answer.status == 200 && answer.body == body, "{path}");
            assert!(legacy.wait_for(&path).await.body == body, "{path}");
            // Larger ones are not copied.
            if len < 100_000 {
                assert!(new.wait_for(&path).await.body == body, "{path}");
            }
        }
    }
    assert_eq!((legacy.errors(), new.errors()), (vec![], vec![]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trailers_that_a_client_sends_are_merged_into_no_header() {
    let (legacy, new, sidecar) = mirrored().await;
    let mut client = Client2::connect(sidecar.address).await;
    let (answer, mut body) = client
        .begin(request("POST", "/trailed", &[], "").map(|_| ()), false)
        .await;
    body.send_data("body".into(), false).unwrap();
    let mut trailers = HeaderMap::new();
    for name in ["host", "content-length", "x-shopper-id", "x-checksum"] {
        trailers.insert(http::HeaderName::from_static(name), "7".parse().unwrap());
    }
    body.send_trailers(trailers).unwrap();
    assert_eq!(answer.await.unwrap().status(), 200);
    for got in [legacy.wait_for("/trailed").await, new.wait_for("/trailed").await] {
        assert_eq!(
            (&*got.body, got.header("host")),
            (&b"body"[..], "shop.example:81".into())
        );
        assert!(!got.has("x-checksum") && !got.has("x-shopper-id"), "{got:?}");
    }
    assert_eq!((legacy.errors(), new.errors()), (vec![], vec![]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_that_is_cut_anywhere_is_completed_nowhere() {
    let (legacy, new, sidecar) = mirrored().await;
    let upload = [
        frame(HEADERS, END_HEADERS, 1, &block(&POST)),
        frame(DATA, 0, 1, b"hello"),
        frame(DATA, 0, 1, b" world"),
        frame(DATA, END_STREAM, 1, b"!"),
    ];
    let begun = upload[0].len();
    let upload = upload.concat();
    let reset = |code: u32| frame(RST_STREAM, 0, 1, &code.to_be_bytes());
    let mut tried = 0_usize;
    for at in begun..upload.len() {
        let mut client = Frames::connect(sidecar.address).await;
        client.socket.send(&upload[..at]).await;
        match at % 3 {
            0 => client.socket.reset(),
            1 => drop(client),
            _ => {
                client.socket.finish().await;
                client.farewell().await;
            }
        }
        tried += 1;
    }
    for frames in 1..4 {
        for code in [0, PROTOCOL_ERROR, CANCEL] {
            let at = [0, begun, begun + 14, begun + 29][frames];
            let mut client = Frames::connect(sidecar.address).await;
            client.socket.send(&upload[..at]).await;
            client.socket.send(reset(code)).await;
            // The connection goes on.
            client.ask(3, &GET).await;
            assert_eq!(client.until(HEADERS).await.stream, 3);
            tried += 1;
        }
    }
    assert!(tried > 40);
    sidecar
        .wait_for_zero("understudy_requests_in_flight", &["legacy", "serves"])
        .await;
    for backend in [&legacy, &new] {
        let completed: Vec<_> = backend
            .messages()
            .into_iter()
            .filter(|m| m.start.starts_with("POST"))
            .collect();
        assert!(completed.is_empty(), "{completed:?}");
        let errors = backend.errors();
        assert!(errors.iter().all(|error| error.starts_with("unfinished")), "{errors:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_that_is_reset_is_never_completed() {
    let legacy = Listener::open().await;
    let sidecar = limited(&legacy, "idle: 60s");
    let mut client = Frames::connect(sidecar.address).await;
    client.send(HEADERS, END_HEADERS, 1, &block(&POST)).await;
    client.send(DATA, 0, 1, b"half").await;
    let mut backend = legacy.accept().await;
    backend.head().await;
    assert_eq!(backend.chunk().await, b"half");
    client.send(RST_STREAM, 0, 1, &CANCEL.to_be_bytes()).await;
    backend.ends().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_answer_is_never_completed() {
    let legacy = Listener::open().await;
    let sidecar = limited(&legacy, "idle: 60s");
    let mut client = Client2::connect(sidecar.address).await;
    let (answer, _) = client.begin(request("GET", "/", &[], "").map(|_| ()), true).await;
    let mut backend = legacy.accept().await;
    backend.message().await;
    backend
        .send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n")
        .await;
    let body = answer.await.unwrap().into_body();
    drop(backend);
    assert!(whole(body).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_is_cut_anywhere_is_never_completed() {
    let (answers, legacy) = cut_answers().await;
    let sidecar = limited(&legacy, "idle: 60s");
    let mut client = Client2::connect(sidecar.address).await;
    let mut running = tokio::task::JoinSet::new();
    // All of them on one connection, which goes on.
    for (number, said) in answers.into_iter().enumerate() {
        for how in ["close", "reset"] {
            let asked = request("GET", &format!("/{number}/{how}"), &[], "").map(|_| ());
            let (answer, _) = client.begin(asked, true).await;
            let said = said.clone();
            running.spawn(async move {
                let Ok(answer) = answer.await else { return };
                let status = answer.status();
                let body = whole(answer.into_body()).await;
                assert!(status == 502 || body.is_err(), "{said:?} was completed: {body:?}");
            });
        }
    }
    while let Some(done) = running.join_next().await {
        done.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backends_fault_is_told_in_time_and_tells_nothing() {
    let acts = [
        (Act::CloseAfter(0), 502),
        (Act::ResetAfter(0), 502),
        (Act::SayAndClose(b"HTTP/1.1 200 OK\r\nContent-Le".to_vec()), 502),
        (Act::SayAndClose(b"garbage\r\n\r\n".to_vec()), 502),
        (
            Act::Say(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_vec()),
            502,
        ),
        (Act::Say(b"HTTP/1.1 200 OK\r\nX: \0\r\n\r\n".to_vec()), 502),
        (Act::Silence, 504),
        (
            Act::Say(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n".to_vec()),
            504,
        ),
    ];
    let list = acts.clone();
    let legacy = Scripted::new(move |target| list[target[1..].parse::<usize>().unwrap()].0.clone()).await;
    let sidecar = Plan::new(&legacy, &Nobody::open())
        .route("flag: false")
        .legacy_more("timeout: 400ms, connect_timeout: 300ms")
        .start();
    let backend = legacy.address.to_string();
    let mut client = Client2::connect(sidecar.address).await;
    for (number, (act, status)) in acts.iter().enumerate() {
        for method in ["GET", "POST", "HEAD"] {
            let since = Instant::now();
            let answer = client
                .send(request(method, &format!("/{number}"), &[], ""))
                .await
                .unwrap();
            assert_eq!(answer.status, *status, "{act:?}");
            assert!(since.elapsed() < Duration::from_millis(1_900), "{:?}", since.elapsed());
            assert!(!answer.header("x-understudy-error").is_empty());
            let body = answer.text().to_lowercase();
            for word in [&*backend, "127.0.0.1", "hyper", "understudy", "rust", "h2"] {
                assert!(!body.contains(word), "{act:?}: {body}");
            }
        }
        let asked = legacy.times(&format!("/{number}"));
        // All but the POST may have been repeated.
        assert!((3..=5).contains(&asked), "{act:?} was asked for {asked} times");
    }
}

/// What a POST to each of these comes to, and how often it was asked for.
async fn posted(address: SocketAddr, paths: usize) -> Vec<u16> {
    let mut client = Client2::connect(address).await;
    let mut statuses = Vec::new();
    for number in 0..paths {
        let asked = request(
            "POST",
            &format!("/{number}"),
            &[("x-shopper-id", "anna")],
            "x".repeat(9_000),
        );
        statuses.push(client.send(asked).await.unwrap().status);
    }
    statuses
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_may_have_reached_a_backend_is_sent_to_none_a_second_time() {
    let acts = [
        Act::CloseAfter(0),
        Act::ResetAfter(0),
        Act::CloseAfter(3),
        Act::ResetAfter(3),
        Act::SayAndClose(b"HTTP/1.1 2".to_vec()),
        Act::SayAndReset(b"HTTP/1.1 200 OK\r\nContent-".to_vec()),
        Act::Silence,
    ];
    for served in ["legacy", "new"] {
        let failing = || {
            let acts = acts.clone();
            Scripted::new(move |target| acts[target[1..].parse::<usize>().unwrap()].clone())
        };
        let (legacy, new) = (failing().await, failing().await);
        let sidecar = Plan::new(&legacy, &new)
            .route(if served == "new" { "flag: true" } else { "flag: false" })
            .legacy_more("timeout: 400ms")
            .new_more("timeout: 400ms")
            .start();
        let statuses = posted(sidecar.address, acts.len()).await;
        for (number, act) in acts.iter().enumerate() {
            assert!(matches!(statuses[number], 502 | 504), "{act:?}: {}", statuses[number]);
            let path = format!("/{number}");
            let times = (legacy.times(&path), new.times(&path));
            let expected = if served == "new" { (0, 1) } else { (1, 0) };
            assert_eq!(times, expected, "{act:?}: legacy and new");
        }
    }
}
