//! HTTP/2 to the backends: many requests over few connections, what the backend has not looked at is sent again and nothing
//! else is, and no stream takes another one down.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use h2::server::{Builder, SendResponse};
use h2::{Reason, RecvStream};
use http::{Method, Request, Response};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::support::tls::{Authority, pair};
use super::support::*;

const FAILED: &str = "understudy_runs_failed_total";

type Connection = h2::server::Connection<TcpStream, Bytes>;

/// A backend that speaks HTTP/2 alone.
struct Two {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    accepting: JoinHandle<()>,
}

impl Located for Two {
    fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Two {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Two {
    /// Does this with every connection; its number begins with 1.
    async fn start<F>(builder: Builder, serve: impl Fn(usize, Connection) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let (accepted, serve) = (Arc::clone(&connections), Arc::new(serve));
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let number = accepted.fetch_add(1, Ordering::SeqCst) + 1;
                let (builder, serve) = (builder.clone(), Arc::clone(&serve));
                tokio::spawn(async move {
                    if let Ok(connection) = builder.handshake(stream).await {
                        serve(number, connection).await;
                    }
                });
            }
        });
        Self {
            address,
            connections,
            accepting,
        }
    }

    /// Does this with every request; its number begins with 1.
    async fn answering<F>(builder: Builder, answer: impl Fn(usize, Asked) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let answer = Arc::new(answer);
        let count = Arc::new(AtomicUsize::new(0));
        Self::start(builder, move |_, mut connection| {
            let (answer, count) = (Arc::clone(&answer), Arc::clone(&count));
            async move {
                while let Some(Ok((request, respond))) = connection.accept().await {
                    let number = count.fetch_add(1, Ordering::SeqCst) + 1;
                    tokio::spawn(answer(number, Asked { request, respond }));
                }
            }
        })
        .await
    }

    async fn echo() -> Self {
        Self::answering(Builder::new(), |_, asked| asked.echo()).await
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

struct Asked {
    request: Request<RecvStream>,
    respond: SendResponse<Bytes>,
}

impl Asked {
    async fn body(&mut self) -> Vec<u8> {
        let mut all = Vec::new();
        let body = self.request.body_mut();
        while let Some(Ok(data)) = body.data().await {
            body.flow_control().release_capacity(data.len()).unwrap();
            all.extend_from_slice(&data);
        }
        all
    }

    /// Answers with the body, and with the target as it was seen.
    async fn echo(mut self) {
        let body = self.body().await;
        let seen = self.request.uri().to_string();
        let host = self.request.headers().contains_key("host");
        let response = Response::builder()
            .header("seen", seen)
            .header("had-host", host.to_string());
        let end = body.is_empty();
        let mut stream = self.respond.send_response(response.body(()).unwrap(), end).unwrap();
        if !end {
            stream.send_data(body.into(), true).unwrap();
        }
    }

    fn reset(mut self, reason: Reason) {
        self.respond.send_reset(reason);
    }
}

fn before(legacy: &impl Located, members: &str) -> Sidecar {
    Plan::new(legacy, &Nobody::open())
        .route("flag: false")
        .legacy_more(&format!("http: 2, {members}"))
        .start()
}

/// Legacy in HTTP/1.1, and everything for new.
fn new_by_two(legacy: &Backend, new: &impl Located) -> Sidecar {
    Plan::new(legacy, new)
        .route("flag: true\nwithout_identity: follow")
        .new_more("http: 2, copies: dry_run, timeout: 400ms")
        .start()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_requests_share_a_connection_and_arrive_as_they_were_sent() {
    let legacy = Two::echo().await;
    let sidecar = before(&legacy, "idle: 60s");
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..40_usize {
        let address = sidecar.address;
        tasks.spawn(async move {
            let mut client = Client::connect(address).await;
            for round in 0..5 {
                let body = vec![b'a' + u8::try_from(n % 26).unwrap(); n * 10_000 + round];
                let request = request(Method::POST, "/p?q=1", &[("host", "shop.example:8080")], body.clone());
                let answer = client.send(request).await;
                assert_eq!(answer.status, 200);
                assert!(answer.body == body, "{n}");
                assert_eq!(answer.header("seen"), "http://shop.example:8080/p?q=1");
                assert_eq!(answer.header("had-host"), "false");
                let answer = client.send(super::support::request(Method::GET, "/", &[], "")).await;
                assert_eq!((answer.status, answer.body.len()), (200, 0));
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    // One for each worker.
    assert!(legacy.connections() <= 2, "{}", legacy.connections());
    assert_eq!(sidecar.metric(FAILED, &[]).await, 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_that_takes_one_stream_at_a_time_gets_more_connections() {
    let mut builder = Builder::new();
    builder.max_concurrent_streams(1);
    let legacy = Two::answering(builder, |_, asked| async move {
        tokio::time::sleep(Duration::from_millis(100)).await;
        asked.echo().await;
    })
    .await;
    let sidecar = before(&legacy, "timeout: 5s");
    let tasks: Vec<_> = (0..16)
        .map(|_| {
            let address = sidecar.address;
            tokio::spawn(async move { post(address, "/", &[], "x").await.text().to_owned() })
        })
        .collect();
    for task in tasks {
        assert_eq!(task.await.unwrap(), "x");
    }
    assert!(legacy.connections() > 2, "{}", legacy.connections());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_backend_prefers_is_spoken_by_tls() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let ca = pair(folder.path(), "ca", &(authority.pem(), String::new()));
    let ca = ca.split(", ").next().unwrap().replace("cert:", "ca:");
    let certificate = authority.sign(&["localhost"]);
    for (offers, http, spoken) in [
        (&["h2", "http/1.1"][..], "auto", "h2"),
        (&["http/1.1"], "auto", "http/1.1"),
        (&[], "auto", "http/1.1"),
        (&["h2", "http/1.1"], "1", "http/1.1"),
        (&["h2"], "2", "h2"),
    ] {
        let legacy = Secured::start(&certificate, None, offers).await;
        let mut plan = Plan::new(&legacy, &Nobody::open()).route("flag: false");
        plan.legacy_url = format!("\"https://localhost:{}\"", legacy.address.port());
        let sidecar = plan.legacy_more(&format!("http: {http}, tls: {{ {ca} }}")).start();
        let mut client = Client::connect(sidecar.address).await;
        for method in [Method::POST, Method::GET, Method::POST] {
            let answer = client.send(request(method, "/", &[], "body")).await;
            assert_eq!(
                (answer.status, answer.header("protocol")),
                (200, spoken),
                "{offers:?} {http}"
            );
        }
        assert_eq!(legacy.connections(), 1, "{offers:?} {http}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_stream_is_asked_for_again_whatever_the_method() {
    let legacy = Two::answering(Builder::new(), |number, asked| async move {
        if number % 2 == 1 {
            asked.reset(Reason::REFUSED_STREAM);
        } else {
            asked.echo().await;
        }
    })
    .await;
    let sidecar = before(&legacy, "timeout: 2s");
    for _ in 0..3 {
        assert_eq!(post(sidecar.address, "/", &[], "once").await.text(), "once");
    }
    assert_eq!(sidecar.metric(FAILED, &[]).await, 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_are_always_refused_were_never_reached() {
    let legacy = Backend::saying("legacy").await;
    let new = Two::answering(
        Builder::new(),
        |_, asked| async move { asked.reset(Reason::REFUSED_STREAM) },
    )
    .await;
    let sidecar = new_by_two(&legacy, &new);
    assert_eq!(post(sidecar.address, "/", &[], "x").await.text(), "legacy");
    assert_eq!(
        sidecar.metric("understudy_failovers_total", &["never_reached"]).await,
        1.0
    );
    assert_eq!(legacy.count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_was_reset_may_have_been_looked_at() {
    let legacy = Backend::saying("legacy").await;
    for reason in [
        Reason::INTERNAL_ERROR,
        Reason::CANCEL,
        Reason::ENHANCE_YOUR_CALM,
        Reason::NO_ERROR,
    ] {
        let new = Two::answering(Builder::new(), move |_, asked| async move { asked.reset(reason) }).await;
        let sidecar = new_by_two(&legacy, &new);
        let answer = post(sidecar.address, "/", &[], "x").await;
        assert_eq!(
            (answer.status, answer.header("x-understudy-error")),
            (502, "reset"),
            "{reason}"
        );
        assert_eq!(sidecar.metric("understudy_failovers_total", &[]).await, 0.0, "{reason}");
    }
    assert_eq!(legacy.count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_above_the_last_one_of_a_goaway_go_to_another_connection() {
    let served = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&served);
    let legacy = Two::start(Builder::new(), move |number, mut connection| {
        let count = Arc::clone(&count);
        async move {
            if number % 2 == 1 {
                // Nothing was looked at: its last id is 0.
                connection.abrupt_shutdown(Reason::NO_ERROR);
            }
            while let Some(Ok((request, respond))) = connection.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(Asked { request, respond }.echo());
            }
        }
    })
    .await;
    let sidecar = before(&legacy, "timeout: 2s");
    for _ in 0..4 {
        assert_eq!(post(sidecar.address, "/", &[], "once").await.text(), "once");
    }
    assert_eq!(served.load(Ordering::SeqCst), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_goes_away_in_peace_costs_no_request() {
    let legacy = Two::start(Builder::new(), |_, mut connection| async move {
        let mut left = 3;
        while let Some(Ok((request, respond))) = connection.accept().await {
            tokio::spawn(Asked { request, respond }.echo());
            left -= 1;
            if left == 0 {
                connection.graceful_shutdown();
            }
        }
    })
    .await;
    let sidecar = before(&legacy, "timeout: 2s, idle: 60s");
    let mut client = Client::connect(sidecar.address).await;
    for _ in 0..30 {
        assert_eq!(client.send(request(Method::POST, "/", &[], "x")).await.text(), "x");
    }
    assert!(legacy.connections() >= 5, "{}", legacy.connections());
    assert_eq!(sidecar.metric(FAILED, &[]).await, 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_backend_is_given_up_in_time_and_its_connection_not_used_again() {
    let legacy = Two::answering(Builder::new(), |number, asked| async move {
        if number == 1 {
            tokio::time::sleep(Duration::from_secs(60)).await;
        }
        asked.echo().await;
    })
    .await;
    let sidecar = before(&legacy, "timeout: 400ms, idle: 60s");
    let mut client = Client::connect(sidecar.address).await;
    let since = tokio::time::Instant::now();
    let answer = client.send(request(Method::POST, "/", &[], "x")).await;
    assert_eq!((answer.status, answer.header("x-understudy-error")), (504, "timeout"));
    assert!((Duration::from_millis(400)..Duration::from_millis(900)).contains(&since.elapsed()));
    assert_eq!(client.send(request(Method::POST, "/", &[], "y")).await.text(), "y");
    assert_eq!(legacy.connections(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backends_time_does_not_run_while_it_waits_for_the_client() {
    let legacy = Two::echo().await;
    let sidecar = before(&legacy, "timeout: 400ms");
    upload_in_twice(Duration::from_millis(500), sidecar.address).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_leaves_resets_its_stream_and_nothing_else() {
    let (told, mut heard) = tokio::sync::mpsc::channel(1);
    let legacy = Two::answering(Builder::new(), move |number, mut asked| {
        let told = told.clone();
        async move {
            if number == 1 {
                told.send(None).await.unwrap();
                let why = std::future::poll_fn(|cx| asked.respond.poll_reset(cx)).await;
                told.send(why.ok()).await.unwrap();
            } else {
                asked.echo().await;
            }
        }
    })
    .await;
    let sidecar = before(&legacy, "timeout: 20s, idle: 60s");
    let mut leaves = Socket::connect(sidecar.address).await;
    leaves.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut hears = async || {
        tokio::time::timeout(Duration::from_secs(20), heard.recv())
            .await
            .expect("the backend says so")
    };
    // A client that leaves before its request was written resets nothing: there is no stream yet.
    assert_eq!(hears().await, Some(None), "the stream is there");
    drop(leaves);
    assert_eq!(hears().await, Some(Some(Reason::CANCEL)));
    sidecar.wait_for_zero("understudy_requests_in_flight", &[]).await;
    for _ in 0..10 {
        assert_eq!(post(sidecar.address, "/", &[], "x").await.text(), "x");
    }
    assert!(legacy.connections() <= 2, "{}", legacy.connections());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_breaks_off_is_never_completed_towards_the_client() {
    for reason in [Reason::INTERNAL_ERROR, Reason::CANCEL, Reason::NO_ERROR] {
        let legacy = Two::answering(Builder::new(), move |_, mut asked| async move {
            let mut stream = asked.respond.send_response(Response::new(()), false).unwrap();
            stream.send_data("half".into(), false).unwrap();
            // The client has it.
            tokio::time::sleep(Duration::from_millis(100)).await;
            stream.send_reset(reason);
        })
        .await;
        let sidecar = before(&legacy, "timeout: 2s");
        let mut client = Socket::connect(sidecar.address).await;
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert_eq!(client.head().await.header("transfer-encoding"), "chunked");
        let rest = client.rest().await;
        assert!(rest.starts_with(b"4\r\nhalf\r\n"), "{reason}");
        assert!(
            !rest.windows(3).any(|window| window == b"0\r\n"),
            "{reason}: it was completed"
        );
        sidecar.wait_for_metric(FAILED, &["\"cut\"", "legacy"], 1.0).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_does_not_speak_it_gets_no_request() {
    let legacy = Backend::saying("legacy").await;
    let garbage: &[&[u8]] = &[
        b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n",
        b"\0\0\x01\x04\0\0\0\0\0\0",
        b"",
    ];
    for said in garbage {
        let new = Backend::start(Script::Raw(said)).await;
        let sidecar = new_by_two(&legacy, &new);
        let answer = post(sidecar.address, "/", &[], "x").await;
        assert_eq!((answer.status, answer.text()), (200, "legacy"), "{said:?}");
        assert_eq!(
            sidecar.metric("understudy_failovers_total", &["never_reached"]).await,
            1.0
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trailers_come_through() {
    let legacy = Two::answering(Builder::new(), |_, mut asked| async move {
        assert_eq!(asked.request.headers()["te"], "trailers");
        let response = Response::builder().header("trailer", "grpc-status");
        let mut stream = asked.respond.send_response(response.body(()).unwrap(), false).unwrap();
        stream.send_data("body".into(), false).unwrap();
        let mut trailers = http::HeaderMap::new();
        trailers.insert("grpc-status", "0".parse().unwrap());
        stream.send_trailers(trailers).unwrap();
    })
    .await;
    let sidecar = before(&legacy, "timeout: 2s");
    let mut client = Socket::connect(sidecar.address).await;
    client
        .send("GET / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: TE\r\n\r\n")
        .await;
    client.head().await;
    assert_eq!(client.chunk().await, b"body");
    client.finish().await;
    let rest = String::from_utf8(client.rest().await).unwrap();
    assert!(rest.contains("grpc-status: 0"), "{rest}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_waits_to_be_told_to_go_on_is_told_at_once() {
    let legacy = Two::echo().await;
    let sidecar = before(&legacy, "timeout: 5s");
    let mut client = Socket::connect(sidecar.address).await;
    let since = tokio::time::Instant::now();
    client
        .send("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n")
        .await;
    assert_eq!(client.head().await.status(), 100);
    assert!(since.elapsed() < Duration::from_millis(800), "{:?}", since.elapsed());
    client.send("body").await;
    assert_eq!(client.message().await.body, b"body");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_is_asked_for_in_the_version_that_is_spoken() {
    let legacy = Two::answering(Builder::new(), |_, asked| async move {
        assert!(asked.request.uri().path() == "/healthz" || asked.request.uri().path() == "/");
        asked.echo().await;
    })
    .await;
    let sidecar = before(&legacy, "health: { path: /healthz, interval: 20ms }");
    sidecar
        .wait_for_metric("understudy_backend_health_checks_total", &["legacy", "good"], 3.0)
        .await;
    assert_eq!(post(sidecar.address, "/", &[], "x").await.text(), "x");
}
