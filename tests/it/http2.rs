//! Clients over HTTP/2: served like others, refused stream by stream, and sent away when they keep us busy with nothing.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use tokio::time::Instant;

use crate::support::http2::{
    CONTINUATION, Client2, DATA, END_HEADERS, END_STREAM, Field, Frames, GET, GOAWAY, HEADERS, PING, POST, RST_STREAM,
    SETTINGS, block, frame, whole,
};
use crate::support::{Authority, Backend, Listener, Nobody, Plan, Reply, Shopper, deadline, echo, get, limited, pair};

const CLIENT_ERRORS: &str = "understudy_client_errors_total";
const PROTOCOL_ERROR: u32 = 1;
const REFUSED_STREAM: u32 = 7;
const CANCEL: u32 = 8;
const CALM: u32 = 0xb;

fn request(method: &str, path: &str, body: impl Into<Bytes>) -> Request<Bytes> {
    let uri = format!("http://shop.example:81{path}");
    Request::builder().method(method).uri(uri).body(body.into()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http_2_is_served_beside_http_1_on_one_port() {
    let legacy = echo().await;
    let sidecar = limited(&legacy, "idle: 60s");
    let mut client = Client2::connect(sidecar.address).await;
    let answer = client.send(request("GET", "/a?b", "")).await.unwrap();
    assert_eq!((answer.status, answer.text()), (200, ""));
    let large = vec![b'x'; 300_000];
    let answer = client.send(request("POST", "/c", large.clone())).await.unwrap();
    assert_eq!((answer.status, answer.body.len()), (200, large.len()));
    assert_eq!(get(sidecar.address, "/d", &[]).await.status, 200);
    let received = legacy.received();
    assert_eq!(received[0].header("host"), "shop.example:81");
    assert_eq!(received[1].body, large);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http_2_is_agreed_on_by_tls() {
    let (legacy, authority, files) = (echo().await, Authority::new(), tempfile::tempdir().unwrap());
    let tls = pair(files.path(), "shop", &authority.sign(&["shop.example"]));
    let sidecar = Plan::new(&legacy, &Nobody::open())
        .route("flag: false")
        .listeners(&format!("[ {{ address: \"127.0.0.1:0\", tls: {{ {tls} }} }} ]"))
        .start();
    let shopper = Shopper::trusting(&authority, &["http/1.1", "h2"]);
    let stream = shopper.connect(sidecar.address, "shop.example").await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let mut client = Client2::over(stream, &h2::client::Builder::new()).await;
    for body in ["one", "two"] {
        let answer = client.send(request("POST", "/", body)).await.unwrap();
        assert_eq!((answer.status, answer.text()), (200, body));
    }
    assert_eq!(legacy.received()[0].header("x-forwarded-proto"), "https");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_crumbs_of_a_cookie_reach_the_backend_as_one() {
    let legacy = echo().await;
    let sidecar = limited(&legacy, "idle: 60s");
    let mut client = Client2::connect(sidecar.address).await;
    let mut crumbs = request("GET", "/", "");
    for crumb in ["a=1", "b=2", "c=3"] {
        crumbs.headers_mut().append("cookie", crumb.parse().unwrap());
    }
    assert_eq!(client.send(crumbs).await.unwrap().status, 200);
    let received = legacy.received();
    let cookies: Vec<_> = received[0].headers.get_all("cookie").iter().collect();
    assert_eq!(cookies, ["a=1; b=2; c=3"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn malformed_streams_are_reset_counted_and_never_forwarded() {
    let well = GET.as_slice();
    let with = |more: &[(&'static str, &'static [u8])]| [well, more].concat();
    let without = |name: &str| -> Vec<Field<'_>> { well.iter().filter(|(n, _)| *n != name).copied().collect() };
    let cases: Vec<(&str, Vec<Field<'_>>)> = vec![
        ("no method", without(":method")),
        ("no scheme", without(":scheme")),
        ("no path", without(":path")),
        ("no host at all", without(":authority")),
        ("empty path", [&without(":path")[..], &[(":path", b"")]].concat()),
        (
            "path without slash",
            [&without(":path")[..], &[(":path", b"a")]].concat(),
        ),
        (
            "query without path",
            [&without(":path")[..], &[(":path", b"?a")]].concat(),
        ),
        ("path twice", with(&[(":path", b"/b")])),
        ("authority twice", with(&[(":authority", b"b")])),
        ("status in a request", with(&[(":status", b"200")])),
        ("pseudo-header after a field", [&[("x-a", &b"1"[..])], well].concat()),
        (
            "user in the authority",
            [&without(":authority")[..], &[(":authority", b"u@a")]].concat(),
        ),
        ("another host", with(&[("host", b"b")])),
        ("two hosts", with(&[("host", b"a"), ("host", b"a")])),
        ("connection", with(&[("connection", b"close")])),
        ("keep-alive", with(&[("keep-alive", b"timeout=5")])),
        ("proxy-connection", with(&[("proxy-connection", b"close")])),
        ("transfer-encoding", with(&[("transfer-encoding", b"chunked")])),
        ("upgrade", with(&[("upgrade", b"h2c")])),
        ("te other than trailers", with(&[("te", b"gzip")])),
        ("length without a body", with(&[("content-length", b"5")])),
        (
            "two lengths",
            with(&[("content-length", b"0"), ("content-length", b"0")]),
        ),
        (
            "lengths that differ",
            with(&[("content-length", b"0"), ("content-length", b"1")]),
        ),
        ("length with a sign", with(&[("content-length", b"+0")])),
        ("length of 64 bits", with(&[("content-length", b"9223372036854775808")])),
    ];
    let legacy = echo().await;
    let sidecar = limited(&legacy, "idle: 60s");
    let mut client = Frames::connect(sidecar.address).await;
    let mut stream = 1;
    for (what, fields) in &cases {
        client.ask(stream, fields).await;
        let reset = loop {
            let next = client.next().await.unwrap_or_else(|| panic!("{what}: closed"));
            if matches!(next.kind, RST_STREAM | GOAWAY) {
                break next;
            }
            assert_ne!(next.kind, HEADERS, "{what}: answered");
        };
        assert_eq!(
            (reset.kind, reset.stream, reset.code()),
            (RST_STREAM, stream, PROTOCOL_ERROR),
            "{what}"
        );
        stream += 2;
    }
    assert_eq!(legacy.count(), 0);
    client.ask(stream, well).await;
    assert_eq!(client.until(HEADERS).await.stream, stream, "the connection goes on");
    #[allow(clippy::cast_precision_loss, reason = "a handful of cases")]
    let expected = cases.len() as f64;
    sidecar
        .wait_for_metric(CLIENT_ERRORS, &["http2_stream_error"], expected)
        .await;
    assert_eq!(legacy.count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fields_that_are_none_end_the_stream_or_the_connection() {
    let legacy = echo().await;
    let sidecar = limited(&legacy, "idle: 60s");
    for (name, value) in [
        ("X-Upper", &b"1"[..]),
        (":admin", b"1"),
        ("x a", b"1"),
        ("", b"1"),
        ("x:a", b"1"),
        ("x-a", b"1\0"),
        ("x-a", b"1\r\nx-b: 2"),
        ("x-a", b"1\n"),
    ] {
        let mut client = Frames::connect(sidecar.address).await;
        client.ask(1, &[&GET[..], &[(name, value)]].concat()).await;
        let refused = loop {
            let next = client.next().await.expect("a reset or a farewell");
            if matches!(next.kind, RST_STREAM | GOAWAY) {
                break next;
            }
            assert_ne!(next.kind, HEADERS, "{name:?} {value:?} was answered");
        };
        assert_ne!(refused.code(), 0, "{name:?} {value:?}");
    }
    assert_eq!(legacy.count(), 0);
    sidecar.wait_for_metric(CLIENT_ERRORS, &["http2_"], 8.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_length_that_the_body_does_not_have_is_never_completed() {
    let legacy = echo().await;
    let sidecar = limited(&legacy, "idle: 60s");
    let fields = [&POST[..], &[("content-length", &b"5"[..])]].concat();
    for body in ["four", "sixsix"] {
        let mut client = Frames::connect(sidecar.address).await;
        client.send(HEADERS, END_HEADERS, 1, &block(&fields)).await;
        client.send(DATA, END_STREAM, 1, body.as_bytes()).await;
        assert_eq!(client.until(RST_STREAM).await.code(), PROTOCOL_ERROR, "{body}");
    }
    deadline("the broken uploads to end at the backend", || legacy.open() == 0).await;
    assert_eq!(legacy.count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fields_over_their_limits_are_answered_with_431_crumbs_included() {
    let legacy = echo().await;
    let sidecar = limited(&legacy, "header_bytes: 16KiB, header_count: 20");
    let mut client = Client2::connect(sidecar.address).await;
    let long = "x".repeat(17_000);
    for (name, value, times) in [
        ("cookie", "a=1", 21),
        ("x-a", "1", 21),
        ("x-a", &*long, 1),
        ("x-a", &long[..6_000], 3),
    ] {
        let mut request = request("GET", "/", "");
        for _ in 0..times {
            request.headers_mut().append(name, value.parse().unwrap());
        }
        let answer = client.send(request).await.unwrap();
        let reason = answer.header("x-understudy-error");
        assert_eq!((answer.status, reason), (431, "headers_too_large"), "{name} {times}");
    }
    assert_eq!(sidecar.metric(CLIENT_ERRORS, &["headers_too_large"]).await, 4.0);
    assert_eq!(legacy.count(), 0);
    let target = format!("/{}", "x".repeat(16_000));
    assert_eq!(client.send(request("GET", &target, "")).await.unwrap().status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_small_block_that_unpacks_to_a_large_one_is_refused() {
    let legacy = echo().await;
    let sidecar = limited(&legacy, "header_bytes: 16KiB");
    let mut client = Frames::connect(sidecar.address).await;
    // One field of 4,000 bytes goes into the table, and is then named a thousand times by one byte each.
    let mut fields = block(&GET);
    fields.push(0x40);
    let mut field = block(&[("x-a", &[b'x'; 3_900])]);
    fields.extend(field.split_off(1));
    fields.extend([0x80 | 62; 1_000]);
    client.send(HEADERS, END_HEADERS | END_STREAM, 1, &fields).await;
    let refused = loop {
        let next = client.next().await.expect("an answer, a reset or a farewell");
        if matches!(next.kind, HEADERS | RST_STREAM | GOAWAY) {
            break next;
        }
    };
    if refused.kind == HEADERS {
        // `:status: 431`, which is not in the static table.
        assert!(
            refused.payload.windows(3).any(|text| text == b"431") || refused.payload[0] != 0x88,
            "{refused:?}"
        );
    }
    assert_eq!(legacy.count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_floods_is_told_to_calm_down_and_closed() {
    let legacy = echo().await;
    let sidecar = limited(&legacy, "idle: 60s");
    let reset: Vec<u8> = (0..600_u32)
        .flat_map(|n| {
            let mut bytes = frame(HEADERS, END_HEADERS | END_STREAM, 2 * n + 1, &block(&GET));
            bytes.extend(frame(RST_STREAM, 0, 2 * n + 1, &CANCEL.to_be_bytes()));
            bytes
        })
        .collect();
    let open = frame(HEADERS, END_HEADERS, 1, &block(&POST));
    let block_open = frame(HEADERS, 0, 1, &block(&GET));
    let floods: [(&str, Vec<u8>); 9] = [
        ("http2_settings_flood", frame(SETTINGS, 0, 0, b"").repeat(100)),
        ("http2_settings_flood", frame(SETTINGS, 1, 0, b"").repeat(100)),
        ("http2_ping_flood", frame(PING, 0, 0, b"12345678").repeat(1_000)),
        (
            "http2_empty_frame_flood",
            [open, frame(DATA, 0, 1, b"").repeat(500)].concat(),
        ),
        ("http2_priority_flood", frame(2, 0, 3, b"\0\0\0\x01\x10").repeat(500)),
        ("http2_window_update_flood", frame(8, 0, 0, b"\0\0\0\x01").repeat(5_000)),
        ("http2_other_frame_flood", frame(0xf0, 0, 0, b"unknown").repeat(500)),
        (
            "http2_continuation_flood",
            [block_open, frame(CONTINUATION, 0, 1, b"").repeat(50)].concat(),
        ),
        ("http2_", reset),
    ];
    for (reason, flood) in floods {
        let before = sidecar.metric(CLIENT_ERRORS, &[reason]).await;
        let mut client = Frames::connect(sidecar.address).await;
        client.socket.try_send(&flood).await;
        assert_eq!(client.farewell().await, Some(CALM), "{reason}");
        sidecar.wait_for_metric(CLIENT_ERRORS, &[reason], before + 1.0).await;
    }
    assert_eq!(get(sidecar.address, "/next", &[]).await.status, 200);
    assert_eq!(sidecar.metric("understudy_panics_total", &[]).await, 0.0);
    sidecar
        .wait_for_zero("understudy_requests_in_flight", &["legacy", "serves"])
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_too_many_is_refused_and_may_come_again() {
    let legacy = Listener::open().await;
    let sidecar = limited(&legacy, "streams: 3");
    let mut client = Frames::connect(sidecar.address).await;
    let mut waiting = Vec::new();
    for stream in [1, 3, 5] {
        client.ask(stream, &GET).await;
        let mut backend = legacy.accept().await;
        backend.message().await;
        waiting.push(backend);
    }
    client.ask(7, &GET).await;
    let reset = client.until(RST_STREAM).await;
    assert_eq!((reset.stream, reset.code()), (7, REFUSED_STREAM));
    sidecar
        .wait_for_metric(CLIENT_ERRORS, &["http2_too_many_streams"], 1.0)
        .await;
    for backend in &mut waiting {
        backend.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
        client.until(HEADERS).await;
    }
    client.ask(9, &GET).await;
    let [first, second, third] = &mut waiting[..] else {
        unreachable!()
    };
    tokio::select! { _ = first.message() => {}, _ = second.message() => {}, _ = third.message() => {} }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_takes_its_request_back_ends_it_at_the_backend() {
    let legacy = Listener::open().await;
    let sidecar = limited(&legacy, "idle: 60s");
    let mut client = Frames::connect(sidecar.address).await;
    client.ask(1, &GET).await;
    let mut backend = legacy.accept().await;
    backend.message().await;
    client.send(RST_STREAM, 0, 1, &CANCEL.to_be_bytes()).await;
    backend.ends().await;
    client.ask(3, &GET).await;
    let mut backend = legacy.accept().await;
    backend.message().await;
    drop(client);
    backend.ends().await;
    sidecar
        .wait_for_zero("understudy_requests_in_flight", &["legacy", "serves"])
        .await;
    sidecar.wait_for_zero("understudy_connections", &[]).await;
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
    let (answer, _) = client.begin(request("GET", "/", "").map(|_| ()), true).await;
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
async fn headers_that_do_not_end_are_closed_at_the_deadline() {
    let legacy = echo().await;
    let sidecar = limited(&legacy, "header_timeout: 300ms, idle: 60s");
    let whole = frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(&GET));
    let unfinished = frame(HEADERS, END_STREAM, 1, &block(&GET));
    for bytes in [&whole[..5], &whole[..20], &unfinished[..]] {
        let since = Instant::now();
        let mut client = Frames::connect(sidecar.address).await;
        client.socket.send(bytes).await;
        assert_eq!(client.farewell().await, Some(0));
        let took = since.elapsed();
        assert!(
            took >= Duration::from_millis(300) && took < Duration::from_millis(3_000),
            "{took:?}"
        );
    }
    assert_eq!(sidecar.metric(CLIENT_ERRORS, &["header_timeout"]).await, 3.0);
    assert_eq!(legacy.count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_without_streams_is_bid_farewell_and_one_with_a_slow_answer_is_not() {
    let legacy = Backend::answering(|_| Reply::text("late").after(Duration::from_millis(700))).await;
    let sidecar = limited(&legacy, "idle: 300ms, header_timeout: 300ms");
    let since = Instant::now();
    let mut client = Frames::connect(sidecar.address).await;
    client.ask(1, &GET).await;
    assert_eq!(client.until(DATA).await.payload, b"late");
    assert!(since.elapsed() >= Duration::from_millis(700));
    assert_eq!(client.farewell().await, Some(0));
    assert!(since.elapsed() >= Duration::from_millis(1_000));
    assert_eq!(sidecar.metric(CLIENT_ERRORS, &[]).await, 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_takes_no_answer_lets_its_backend_go() {
    let legacy = Listener::open().await;
    let sidecar = limited(&legacy, "write_timeout: 300ms, idle: 60s");
    let mut client = Client2::with(sidecar.address, h2::client::Builder::new().initial_window_size(1_000)).await;
    let (answer, _) = client.begin(request("GET", "/", "").map(|_| ()), true).await;
    let mut backend = legacy.accept().await;
    backend.message().await;
    backend
        .send("HTTP/1.1 200 OK\r\nContent-Length: 20000000\r\n\r\n")
        .await;
    let sending = tokio::spawn(async move {
        backend.try_send(vec![b'x'; 20_000_000]).await;
        backend.rest().await;
    });
    let body = answer.await.unwrap().into_body();
    sidecar.wait_for_metric(CLIENT_ERRORS, &["write_timeout"], 1.0).await;
    sending.await.unwrap();
    assert!(whole(body).await.is_err(), "the answer was completed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_says_farewell_and_finishes_what_is_under_way() {
    let legacy = Listener::open().await;
    let sidecar = limited(&legacy, "drain: 20s");
    let mut client = Frames::connect(sidecar.address).await;
    client.ask(1, &GET).await;
    let mut backend = legacy.accept().await;
    backend.message().await;
    let ended = tokio::spawn(sidecar.stop());
    assert_eq!(client.until(GOAWAY).await.code(), 0);
    assert!(!ended.is_finished());
    backend.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone").await;
    assert_eq!(client.until(DATA).await.payload, b"done");
    assert!(matches!(client.farewell().await, None | Some(0)));
    assert!(ended.await.unwrap() < Duration::from_secs(10));
}
