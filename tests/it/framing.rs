//! Requests whose end, host or target two readers could see differently: refused, or written anew as one.

use crate::support::{Backend, Listener, Message, Nobody, Plan, Reply, Sidecar, Socket, deadline, get, indent};

const CLIENT_ERRORS: &str = "understudy_client_errors_total";

struct Scene {
    legacy: Backend,
    sidecar: Sidecar,
}

impl Scene {
    async fn new() -> Self {
        Self::with("flag: false").await
    }

    async fn with(route: &str) -> Self {
        let legacy = Backend::answering(|r| Reply::text(r.body.clone())).await;
        let sidecar = Plan::new(&legacy, &Nobody::open()).route(route).start();
        Self { legacy, sidecar }
    }

    /// What a client gets for these bytes, and then the end of its connection.
    async fn refusal(&self, bytes: &[u8]) -> Message {
        let mut client = Socket::connect(self.sidecar.address).await;
        client.send(bytes).await;
        let answer = client.try_head().await;
        let answer = answer.unwrap_or_else(|| panic!("no answer to {}", String::from_utf8_lossy(bytes)));
        client.rest().await;
        answer
    }

    /// Each of these is refused with its status, closed, counted, and never forwarded.
    async fn refuses(&self, cases: &[(u16, &[u8])], reason: &str) {
        for (status, bytes) in cases {
            let answer = self.refusal(bytes).await;
            let text = String::from_utf8_lossy(bytes);
            assert_eq!(
                (answer.status(), answer.header("x-understudy-error")),
                (*status, reason),
                "{text}"
            );
            assert_eq!(answer.header("connection"), "close", "{text}");
        }
        #[allow(clippy::cast_precision_loss, reason = "a handful of cases")]
        let expected = cases.len() as f64;
        assert_eq!(
            self.sidecar
                .metric(CLIENT_ERRORS, &[&format!("reason=\"{reason}\"")])
                .await,
            expected
        );
        assert_eq!(self.legacy.count(), 0);
        assert_eq!(get(self.sidecar.address, "/next", &[]).await.status, 200);
        assert_eq!(self.legacy.count(), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_with_two_framings_is_refused_and_so_is_what_it_hides() {
    let requests: Vec<Vec<u8>> = [
        ("Content-Length: 6", "Transfer-Encoding: chunked"),
        ("Transfer-Encoding: chunked", "Content-Length: 6"),
    ]
    .iter()
    .map(|(first, second)| {
        let smuggled = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
        let bytes =
            format!("POST /1 HTTP/1.1\r\nHost: a\r\n{first}\r\n{second}\r\n\r\n3\r\nabc\r\n0\r\n\r\n{smuggled}");
        bytes.into_bytes()
    })
    .collect();
    let cases: Vec<_> = requests.iter().map(|bytes| (400, &**bytes)).collect();
    Scene::new().await.refuses(&cases, "two_framings").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_length_that_is_no_length_or_not_one_is_refused() {
    let scene = Scene::new().await;
    let request = |lines: &str| format!("POST / HTTP/1.1\r\nHost: a\r\n{lines}\r\n\r\nhello hello").into_bytes();
    let lines = [
        "Content-Length: 5\r\nContent-Length: 6",
        "Content-Length: 5, 6",
        "Content-Length: 5, 5",
        "Content-Length: +5",
        "Content-Length: -5",
        "Content-Length: 0x5",
        "Content-Length: 5 5",
        "Content-Length: 5.0",
        "Content-Length:",
        "Content-Length: \"5\"",
        "Content-Length: 18446744073709551616",
        "Content-Length: 9223372036854775808",
        "Content-Length: 5\r\nContent-Length: 5",
    ];
    let requests: Vec<Vec<u8>> = lines.iter().map(|lines| request(lines)).collect();
    let cases: Vec<_> = requests.iter().map(|bytes| (400, &**bytes)).collect();
    scene.refuses(&cases, "bad_content_length").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transfer_coding_other_than_one_chunked_is_refused() {
    let request = |lines: &str| format!("POST / HTTP/1.1\r\nHost: a\r\n{lines}\r\n\r\n0\r\n\r\n").into_bytes();
    let bad: Vec<Vec<u8>> = [
        "Transfer-Encoding: \"chunked\"",
        "Transfer-Encoding: chunked;q=1",
        "Transfer-Encoding:",
        "Transfer-Encoding: chunked, chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
    ]
    .iter()
    .map(|lines| request(lines))
    .chain([b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_vec()])
    .collect();
    let cases: Vec<_> = bad.iter().map(|bytes| (400, &**bytes)).collect();
    Scene::new().await.refuses(&cases, "bad_transfer_encoding").await;
    let unknown: Vec<Vec<u8>> = [
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: chunked, gzip",
        "Transfer-Encoding: identity",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: gzip",
    ]
    .iter()
    .map(|lines| request(lines))
    .collect();
    let cases: Vec<_> = unknown.iter().map(|bytes| (501, &**bytes)).collect();
    Scene::new().await.refuses(&cases, "unknown_coding").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_that_two_readers_read_differently_are_refused() {
    let cases: &[(u16, &[u8])] = &[
        (400, b"GET / HTTP/1.1\r\nHost: a\r\nX-A: 1\0 2\r\n\r\n"),
        (400, b"GET / HTTP/1.1\r\nHost: a\0\r\n\r\n"),
        (400, b"GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, b"GET / HTTP/1.1\r\nHost: a\r\nX-A: 1\rX-B: 2\r\n\r\n"),
        (400, b"GET / HTTP/1.1\r\nHost: a\r\nX-A: 1\r\r\n\r\n"),
        (400, b"GET / HTTP/1.1\r\nHost: a\r\nX-A: 1\r\n folded: 2\r\n\r\n"),
        (400, b"GET / HTTP/1.1\r\nHost: a\r\nX-A: 1\r\n\tfolded\r\n\r\n"),
        (400, b"GET / HTTP/1.1\r\n Host: a\r\n\r\n"),
        (400, b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length : 5\r\n\r\nhello"),
        (
            400,
            b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding\t: chunked\r\n\r\n0\r\n\r\n",
        ),
        (400, b"GET / HTTP/1.1\r\nHost: a\r\n: empty\r\n\r\n"),
        (400, b"GET / HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n"),
        (400, b"GET / HTTP/1.1\r\nHost: a\r\nX(A): 1\r\n\r\n"),
        (400, b"GET / HTTP/1.1\r\nHost: a\r\nX-\xc3\xa4: 1\r\n\r\n"),
        (400, b"GET / HTTP/1.1\r\nHost: a\r\nX-A: \x07\r\n\r\n"),
    ];
    Scene::new().await.refuses(cases, "malformed").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_line_that_is_none_is_refused() {
    let cases: &[(u16, &[u8])] = &[
        (400, b"GET /\r\nHost: a\r\n\r\n"),
        (400, b"GET / HTTP/1.2\r\nHost: a\r\n\r\n"),
        (400, b"GET / HTTP/3.0\r\nHost: a\r\n\r\n"),
        (400, b"GET / http/1.1\r\nHost: a\r\n\r\n"),
        (400, b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n"),
        (400, b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, b"GET /a\tb HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, b"G T / HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, b"(GET) / HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, b" / HTTP/1.1\r\nHost: a\r\n\r\n"),
        (
            400,
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 TLS where none is spoken\r\n\r\n",
        ),
    ];
    Scene::new().await.refuses(cases, "malformed").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_preface_that_is_not_that_of_http_2_is_refused() {
    let cases: &[(u16, &[u8])] = &[
        (400, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\rX"),
        (400, b"PRI * HTTP/2.0\r\nHost: a\r\n\r\n"),
        (400, b"PRI * HTTP/3.0\r\n\r\nSM\r\n\r\n"),
    ];
    Scene::new().await.refuses(cases, "malformed").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_that_is_neither_path_nor_url_is_refused() {
    let cases: &[(u16, &[u8])] = &[
        (400, b"GET shop HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, b"GET * HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, b"GET shop.example:80 HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, b"GET ?q HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, b"GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, b"GET http:// HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, b"GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, b"GET http://user:pw@shop.example/ HTTP/1.1\r\nHost: a\r\n\r\n"),
        (
            400,
            b"GET http://shop.example@evil.example/ HTTP/1.1\r\nHost: shop.example\r\n\r\n",
        ),
    ];
    Scene::new().await.refuses(cases, "bad_target").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_host_two_hosts_and_an_illegal_host_are_refused() {
    let cases: &[(u16, &[u8])] = &[
        (400, b"GET / HTTP/1.1\r\n\r\n"),
        (400, b"GET http://a/ HTTP/1.1\r\n\r\n"),
        (400, b"GET / HTTP/1.1\r\nHost: a:b\r\n\r\n"),
        (400, b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"),
        (400, b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n"),
        (400, b"GET http://a/ HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"),
        (400, b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n"),
        (400, b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n"),
        (400, b"GET / HTTP/1.1\r\nHost: a@b\r\n\r\n"),
        (400, b"GET / HTTP/1.1\r\nHost: a, b\r\n\r\n"),
        (400, b"GET / HTTP/1.1\r\nHost: a#b\r\n\r\n"),
        (400, b"GET / HTTP/1.1\r\nHost: \xff\r\n\r\n"),
    ];
    Scene::new().await.refuses(cases, "bad_host").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_whose_chunks_make_no_sense_is_never_completed() {
    let broken: &[&[u8]] = &[
        b"zz\r\nhello\r\n0\r\n\r\n",
        b"-5\r\nhello\r\n0\r\n\r\n",
        b"0x5\r\nhello\r\n0\r\n\r\n",
        b"5\r\nhelloX\r\n0\r\n\r\n",
        b"fffffffffffffffff\r\nhello\r\n0\r\n\r\n",
        b"5 5\r\nhello\r\n0\r\n\r\n",
        b"5\rhello\r\n0\r\n\r\n",
        b"\r\n5\r\nhello\r\n0\r\n\r\n",
    ];
    let captured = "identity: [ { json: /from } ]\nflag: CHECKOUT";
    for route in ["flag: false", captured] {
        let legacy = Backend::answering(|r| Reply::text(r.body.clone())).await;
        let routes = format!("  - name: shop\n    match: {{ path: / }}\n{}", indent(route, 4));
        let sidecar = Plan::new(&legacy, &Nobody::open()).routes(&routes).start();
        let scene = Scene { legacy, sidecar };
        for (at, broken) in broken.iter().enumerate() {
            let mut bytes = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
            bytes.extend_from_slice(broken);
            let answer = scene.refusal(&bytes).await;
            let reason = answer.header("x-understudy-error").to_owned();
            assert_eq!(
                (answer.status(), &*reason),
                (400, "body_broken"),
                "{at} {}",
                String::from_utf8_lossy(broken)
            );
        }
        assert_eq!(scene.legacy.count(), 0, "{route}");
        deadline("the broken uploads to end at the backend", || scene.legacy.open() == 0).await;
        #[allow(clippy::cast_precision_loss, reason = "a handful of cases")]
        let expected = broken.len() as f64;
        let made = scene
            .sidecar
            .metric("understudy_answers_made_total", &["reason=\"body_broken\""])
            .await;
        assert_eq!(made, expected);
        assert_eq!(scene.sidecar.metric(CLIENT_ERRORS, &["bad_chunk"]).await, expected);
        assert_eq!(
            scene.sidecar.metric("understudy_runs_failed_total", &[]).await,
            0.0,
            "legacy failed nobody"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lenient_line_ends_are_written_anew() {
    let legacy = Listener::open().await;
    let sidecar = Plan::new(&legacy, &Nobody::open()).route("flag: false").start();
    let mut client = Socket::connect(sidecar.address).await;
    client.send("\r\n\r\nGET /1 HTTP/1.1\nHost: a\nX-A:  1 \n\n").await;
    let mut backend = legacy.accept().await;
    let received = backend.message().await;
    assert_eq!((&*received.start, received.header("x-a")), ("GET /1 HTTP/1.1", "1"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_leaves_after_the_answers_to_earlier_requests() {
    let scene = Scene::new().await;
    let mut client = Socket::connect(scene.sidecar.address).await;
    client
        .send(
            "POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\noneGET /2 HTTP/1.1\r\nHost: a\r\n\r\n\
             GET /3 HTTP/1.1\r\nHost: a\r\nX-A: \x01\r\n\r\nGET /4 HTTP/1.1\r\nHost: a\r\n\r\n",
        )
        .await;
    for status in [200, 200, 400] {
        assert_eq!(client.message().await.status(), status);
    }
    client.ends().await;
    assert_eq!(scene.legacy.count(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_arrive_byte_by_byte_are_the_same_requests() {
    let scene = Scene::new().await;
    let mut client = Socket::connect(scene.sidecar.address).await;
    let requests = "POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\noneGET /2 HTTP/1.1\r\nHost: a\r\n\r\n\
        POST /3 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;a=b\r\ntwo\r\n0\r\nx: y\r\n\r\n";
    for byte in requests.bytes() {
        client.send([byte]).await;
        tokio::task::yield_now().await;
    }
    for body in ["one", "", "two"] {
        let answer = client.message().await;
        assert_eq!((answer.status(), &*answer.body), (200, body.as_bytes()));
    }
    assert_eq!(scene.legacy.count(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_after_one_that_got_no_other_protocol_are_answered() {
    let scene = Scene::new().await;
    let mut client = Socket::connect(scene.sidecar.address).await;
    client
        .send(
            "GET /1 HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n\
             POST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\ntwo",
        )
        .await;
    assert_eq!(client.message().await.status(), 200);
    assert_eq!(client.message().await.body, b"two");
    client.send("GET /3 HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(client.message().await.status(), 200);
    assert_eq!(scene.legacy.count(), 3);
}

/// Requests like those above, each broken at a place of its own.
fn mutations() -> impl Iterator<Item = Vec<u8>> {
    const WHOLE: &[u8] =
        b"POST http://a/b?c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nX-Shopper-Id: anna\r\n\
        Connection: keep-alive\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    let mut state = 0x2545_f491_u32;
    let mut next = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        usize::try_from(state).unwrap_or(0) % below
    };
    const ODD: &[u8] = b"\0\r\n\t :,;\"\x7f\xff/0a";
    (0..400).map(move |_| {
        let mut bytes = WHOLE.to_vec();
        for _ in 0..=next(3) {
            let at = next(bytes.len());
            match next(4) {
                0 => bytes[at] = ODD[next(ODD.len())],
                1 => bytes.insert(at, ODD[next(ODD.len())]),
                2 => drop(bytes.remove(at)),
                _ => bytes.truncate(at.max(1)),
            }
        }
        bytes
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_arrives_ends_without_a_panic_and_legacy_goes_on() {
    let scene = Scene::with("flag: CHECKOUT\nshadow: { flag: true, methods: [POST] }").await;
    for bytes in mutations() {
        let mut client = Socket::connect(scene.sidecar.address).await;
        client.try_send(&bytes).await;
        client.finish().await;
        client.rest().await;
    }
    assert_eq!(scene.sidecar.metric("understudy_panics_total", &[]).await, 0.0);
    assert!(scene.sidecar.metric(CLIENT_ERRORS, &[]).await > 50.0);
    let answer = get(scene.sidecar.address, "/next", &[]).await;
    assert_eq!(answer.status, 200);
    deadline("every connection to be let go", || scene.legacy.open() <= 2).await;
}
