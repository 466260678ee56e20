//! What a client may use up, and what it gets when it has.

use std::time::Duration;

use bytes::Bytes;
use http::Method;
use tokio::net::UnixStream;
use tokio::time::Instant;

use crate::support::{
    Backend, Client, Listener, Nobody, Plan, Reply, Sidecar, Socket, deadline, echo, get, limited, post, request, send,
};

const MADE: &str = "understudy_answers_made_total";
const CLIENT_ERRORS: &str = "understudy_client_errors_total";

/// A deadline is never early, and late only by the sweep's ticks and what a busy machine adds.
fn on_time(since: Instant, limit_ms: u64) {
    let took = since.elapsed();
    let limit = Duration::from_millis(limit_ms);
    assert!(
        took >= limit && took < limit + Duration::from_secs(1),
        "{took:?} for {limit:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_header_section_over_its_limit_is_answered_with_431() {
    let legacy = echo().await;
    let sidecar = limited(&legacy, "header_bytes: 16KiB, header_count: 20");
    let long = "x".repeat(17_000);
    let many: Vec<(String, &str)> = (0..21).map(|n| (format!("x-{n}"), "1")).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|(name, value)| (&**name, *value)).collect();
    assert_eq!(get(sidecar.address, "/", &[("x-long", &long)]).await.status, 431);
    assert_eq!(get(sidecar.address, "/", &many).await.status, 431);
    // Not even one that never ends is kept.
    let mut client = Socket::connect(sidecar.address).await;
    client
        .try_send(format!("GET / HTTP/1.1\r\nHost: a\r\nX: {long}{long}{long}"))
        .await;
    assert_eq!(client.head().await.status(), 431);
    client.rest().await;
    sidecar
        .wait_for_metric(CLIENT_ERRORS, &["headers_too_large"], 3.0)
        .await;
    assert_eq!(legacy.count(), 0);
    let nearly = "x".repeat(15_000);
    assert_eq!(get(sidecar.address, "/", &[("x-long", &nearly)]).await.status, 200);
    assert_eq!(get(sidecar.address, "/", &many[..19]).await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_over_its_limit_is_answered_with_414() {
    let legacy = echo().await;
    let sidecar = limited(&legacy, "target_bytes: 1KiB");
    let target = |len: usize| format!("/{}", "x".repeat(len - 1));
    let answer = get(sidecar.address, &target(1_025), &[]).await;
    assert_eq!(
        (answer.status, answer.header("x-understudy-error")),
        (414, "target_too_long")
    );
    assert_eq!(legacy.count(), 0);
    assert_eq!(get(sidecar.address, &target(1_024), &[]).await.status, 200);
    assert_eq!(sidecar.metric(MADE, &["target_too_long"]).await, 1.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_over_its_limit_is_answered_with_413_and_never_completed() {
    let legacy = echo().await;
    let sidecar = limited(&legacy, "body: 10KiB");
    let answer = post(sidecar.address, "/", &[], vec![b'x'; 10_241]).await;
    assert_eq!(
        (answer.status, answer.header("x-understudy-error")),
        (413, "body_too_large")
    );
    // A body whose length was said is refused before anything of it is read.
    let mut client = Socket::connect(sidecar.address).await;
    client
        .send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3000000\r\n\r\n")
        .await;
    assert_eq!((client.message().await.status(), legacy.connections()), (413, 0));
    client.ends().await;
    // One without a length is streamed until it turns out to be too long.
    let mut client = Socket::connect(sidecar.address).await;
    client
        .send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        .await;
    let chunk = format!("1000\r\n{}\r\n", "x".repeat(0x1000));
    for _ in 0..3 {
        client.try_send(&chunk).await;
    }
    let answer = client.message().await;
    assert_eq!((answer.status(), answer.header("connection")), (413, "close"));
    deadline("the broken upload to end", || legacy.open() == 0).await;
    assert_eq!(legacy.count(), 0);
    assert_eq!(post(sidecar.address, "/", &[], vec![b'x'; 10_240]).await.status, 200);
    assert_eq!(sidecar.metric(MADE, &["body_too_large"]).await, 3.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_still_sends_reads_why_it_was_refused() {
    let legacy = echo().await;
    let sidecar = limited(&legacy, "body: 10KiB, in_flight: 1, header_bytes: 16KiB");
    let refusals = [
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3000000\r\n\r\n", 413),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nHost: b\r\nContent-Length: 3000000\r\n\r\n",
            400,
        ),
        ("POST / HTTP/1.1\r\nHost : a\r\nContent-Length: 3000000\r\n\r\n", 400),
    ];
    for (head, status) in refusals {
        let mut client = Socket::connect(sidecar.address).await;
        client.send(head).await;
        client.send(vec![b'x'; 100_000]).await;
        client.is_spoken_to().await;
        // What is sent now, nobody wants; a connection that is reset for it would lose the answer on its way.
        for _ in 0..10 {
            client.send(vec![b'x'; 10_000]).await;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(client.message().await.status(), status, "{head}");
    }
    assert_eq!(legacy.connections(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connect_and_trace_are_not_allowed() {
    let legacy = echo().await;
    let sidecar = limited(&legacy, "idle: 60s");
    for request in [
        "TRACE / HTTP/1.1\r\nHost: a\r\n\r\n",
        "CONNECT shop.example:443 HTTP/1.1\r\nHost: shop.example:443\r\n\r\n",
    ] {
        let mut client = Socket::connect(sidecar.address).await;
        client.send(request).await;
        let answer = client.message().await;
        assert_eq!(
            (answer.status(), answer.header("x-understudy-error")),
            (405, "method_not_allowed"),
            "{request}"
        );
        assert!(answer.header("allow").contains("GET") && !answer.header("allow").contains("TRACE"));
    }
    assert_eq!(
        (
            legacy.connections(),
            sidecar.metric(MADE, &["method_not_allowed"]).await
        ),
        (0, 2.0)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_headers_are_answered_with_408_at_the_deadline() {
    let legacy = echo().await;
    let sidecar = limited(&legacy, "header_timeout: 300ms");
    let since = Instant::now();
    let mut client = Socket::connect(sidecar.address).await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\nX-Slow: ").await;
    let answer = client.message().await;
    assert_eq!(
        (answer.status(), answer.header("x-understudy-error")),
        (408, "header_timeout")
    );
    assert_eq!(answer.header("connection"), "close");
    client.ends().await;
    on_time(since, 300);
    assert_eq!(
        (
            legacy.connections(),
            sidecar.metric(CLIENT_ERRORS, &["header_timeout"]).await
        ),
        (0, 1.0)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn headers_that_trickle_gain_no_time_nor_do_those_of_a_second_request() {
    let legacy = echo().await;
    let sidecar = limited(&legacy, "header_timeout: 300ms");
    let mut client = Socket::connect(sidecar.address).await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(client.message().await.status(), 200);
    let since = Instant::now();
    client.send("GET / HTTP/1.1\r\nHost: a\r\nX-Slow: ").await;
    while since.elapsed() < Duration::from_millis(250) {
        client.send("x").await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(client.message().await.status(), 408);
    on_time(since, 300);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_body_is_answered_with_408_and_never_completed() {
    let captured = "  - { name: shop, match: { path: / }, identity: [ { json: /from } ], flag: CHECKOUT }\n";
    let streamed = "  - { name: shop, match: { path: / } }\n";
    for (routes, connections) in [(captured, 0), (streamed, 1)] {
        let legacy = echo().await;
        let plan = Plan::new(&legacy, &Nobody::open())
            .routes(routes)
            .more("limits: { body_idle: 300ms, body_rate: null }");
        let sidecar = plan.start();
        let mut client = Socket::connect(sidecar.address).await;
        client
            .send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n")
            .await;
        // Whoever goes on sending, however slowly, goes on.
        let mut since = Instant::now();
        for _ in 0..4 {
            tokio::time::sleep(Duration::from_millis(150)).await;
            since = Instant::now();
            client.send("x").await;
        }
        let answer = client.message().await;
        assert_eq!(
            (answer.status(), answer.header("x-understudy-error")),
            (408, "body_timeout"),
            "{routes}"
        );
        on_time(since, 300);
        client.rest().await;
        deadline("the broken upload to end", || legacy.open() == 0).await;
        assert_eq!((legacy.count(), legacy.connections()), (0, connections), "{routes}");
        assert_eq!(sidecar.metric(MADE, &["body_timeout"]).await, 1.0);
        assert_eq!(
            sidecar.metric("understudy_runs_failed_total", &[]).await,
            0.0,
            "legacy failed nobody"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_without_a_request_is_closed_without_a_word() {
    let legacy = echo().await;
    let sidecar = limited(&legacy, "idle: 300ms");
    let since = Instant::now();
    let mut silent = Socket::connect(sidecar.address).await;
    silent.ends().await;
    on_time(since, 300);
    let mut used = Socket::connect(sidecar.address).await;
    used.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(used.message().await.status(), 200);
    let since = Instant::now();
    used.ends().await;
    on_time(since, 300);
    assert_eq!(sidecar.metric(CLIENT_ERRORS, &[]).await, 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_may_take_longer_than_an_idle_connection_is_kept() {
    let legacy = Backend::answering(|_| Reply::text("late").after(Duration::from_millis(700))).await;
    let sidecar = limited(&legacy, "idle: 200ms, header_timeout: 200ms, body_idle: 200ms");
    assert_eq!(post(sidecar.address, "/", &[], "x").await.text(), "late");
}

/// A client that does not read an answer, which legacy gives in two parts; how much comes through in the end.
async fn unread(first: usize, second: usize) -> usize {
    let legacy = Listener::open().await;
    let sidecar = limited(&legacy, "write_timeout: 500ms, idle: 60s");
    let mut client = Socket::connect_with_small_window(sidecar.address).await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut backend = legacy.accept().await;
    backend.message().await;
    backend
        .send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", first + second))
        .await;
    assert_eq!(client.head().await.status(), 200);
    let parts = tokio::spawn(async move {
        backend.try_send(vec![b'x'; first]).await;
        // The end of the answer comes when the client has long stopped to read.
        tokio::time::sleep(Duration::from_millis(150)).await;
        backend.try_send(vec![b'x'; second]).await;
        backend.rest().await;
    });
    sidecar.wait_for_metric(CLIENT_ERRORS, &["write_timeout"], 1.0).await;
    let read = client.rest().await.len();
    assert!(read < first + second, "the answer was completed");
    // The backend is let go: it reads the end of its connection.
    parts.await.unwrap();
    read
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_does_not_read_is_closed_and_lets_its_backend_go() {
    let kernel_holds = unread(20_000_000, 0).await;
    // Here our own buffer takes the end of the answer, so that the request is over before the client has read it.
    unread(kernel_holds + 20_000, 1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_connection_too_many_is_answered_with_503_at_once() {
    let legacy = echo().await;
    let sidecar = limited(&legacy, "connections: 4");
    let mut open = Vec::new();
    for _ in 0..4 {
        let mut client = Client::connect(sidecar.address).await;
        assert_eq!(client.send(request(Method::GET, "/", &[], "")).await.status, 200);
        open.push(client);
    }
    let since = Instant::now();
    for round in 0..20 {
        let mut client = Client::connect(sidecar.address).await;
        let answer = client
            .try_send(request(Method::POST, "/", &[], vec![b'x'; round * 10_000]))
            .await;
        let answer = answer.unwrap_or_else(|e| panic!("{round}: {e:?}"));
        assert_eq!((answer.status, answer.header("retry-after")), (503, "1"));
        assert_eq!(answer.header("x-understudy-error"), "too_many_connections");
    }
    assert!(since.elapsed() < Duration::from_secs(5), "{:?}", since.elapsed());
    assert_eq!(sidecar.metric(CLIENT_ERRORS, &["too_many_connections"]).await, 20.0);
    assert_eq!(legacy.count(), 4);
    for client in &mut open {
        assert_eq!(
            client.send(request(Method::GET, "/", &[], "")).await.status,
            200,
            "who is in stays in"
        );
    }
    drop(open.pop());
    let end = Instant::now() + Duration::from_secs(10);
    while get(sidecar.address, "/", &[]).await.status != 200 {
        assert!(
            Instant::now() < end,
            "the place of the connection that ended was not given away"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_request_too_many_is_answered_with_503_at_once() {
    let legacy = Listener::open().await;
    let sidecar = limited(&legacy, "in_flight: 3");
    let mut waiting = Vec::new();
    for _ in 0..3 {
        let mut client = Socket::connect(sidecar.address).await;
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let mut backend = legacy.accept().await;
        backend.message().await;
        waiting.push((client, backend));
    }
    assert_eq!(
        sidecar
            .metric("understudy_requests_in_flight", &["legacy", "serves"])
            .await,
        3.0
    );
    for method in [Method::GET, Method::POST] {
        let since = Instant::now();
        let answer = send(sidecar.address, method, "/", &[], "").await;
        assert_eq!((answer.status, answer.header("retry-after")), (503, "1"));
        assert_eq!(answer.header("x-understudy-error"), "overload");
        assert!(since.elapsed() < Duration::from_secs(2), "{:?}", since.elapsed());
    }
    assert_eq!(sidecar.metric(MADE, &["overload"]).await, 2.0);
    for (client, backend) in &mut waiting {
        backend.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
        assert_eq!(client.message().await.status(), 200);
    }
    sidecar
        .wait_for_zero("understudy_requests_in_flight", &["legacy", "serves"])
        .await;
}

const CROWD: usize = 500;

/// As many clients at once, each from its own connection on.
async fn crowd<F, T>(sidecar: &Sidecar, each: impl Fn(Socket, Instant) -> F) -> Vec<T>
where
    F: Future<Output = T> + Send + 'static,
    T: Send + 'static,
{
    let mut clients = Vec::new();
    for _ in 0..CROWD {
        let since = Instant::now();
        clients.push(tokio::spawn(each(Socket::connect(sidecar.address).await, since)));
    }
    let mut results = Vec::new();
    for client in clients {
        results.push(client.await.unwrap());
    }
    results
}

/// Nothing of the crowd is left: no connection, no request, no memory held for one.
async fn is_calm(sidecar: &Sidecar, legacy: &Backend) {
    sidecar.wait_for_zero("understudy_connections", &[]).await;
    sidecar
        .wait_for_zero("understudy_requests_in_flight", &["legacy", "serves"])
        .await;
    sidecar.wait_for_zero("understudy_capture_bytes", &[]).await;
    deadline("the backend to be let go", || legacy.open() == 0).await;
    assert_eq!(get(sidecar.address, "/next", &[]).await.status, 200);
}

/// Each says this and then nothing; the status that it gets after at least this long, if any.
async fn silent(sidecar: &Sidecar, said: &'static str, limit_ms: u64) -> Vec<Option<u16>> {
    crowd(sidecar, move |mut client, since| async move {
        client.try_send(said).await;
        let answer = client.try_head().await;
        client.rest().await;
        // The worker's clock stands still while it is busy with the others.
        let took = since.elapsed();
        assert!(took >= Duration::from_millis(limit_ms * 4 / 5), "{took:?}");
        answer.map(|answer| answer.status())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_clients_with_headers_that_do_not_end_are_answered_with_408() {
    let legacy = echo().await;
    let sidecar = limited(&legacy, "header_timeout: 1s");
    let statuses = silent(&sidecar, "GET / HTTP/1.1\r\nHost: a\r\nX-Slow: ", 1_000).await;
    assert_eq!(statuses, vec![Some(408); CROWD]);
    assert_eq!(sidecar.metric(CLIENT_ERRORS, &["header_timeout"]).await, 500.0);
    is_calm(&sidecar, &legacy).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_clients_with_bodies_that_pause_are_answered_with_408() {
    let legacy = echo().await;
    let sidecar = limited(&legacy, "body_idle: 1s");
    let said = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nsome";
    assert_eq!(silent(&sidecar, said, 1_000).await, vec![Some(408); CROWD]);
    assert_eq!(sidecar.metric(MADE, &["body_timeout"]).await, 500.0);
    is_calm(&sidecar, &legacy).await;
    assert_eq!(legacy.count(), 1, "none was completed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_clients_with_bodies_that_trickle_are_answered_with_408() {
    let legacy = echo().await;
    let sidecar = limited(&legacy, "body_idle: 1s, body_rate: 1KiB");
    let statuses = crowd(&sidecar, |mut client, _| async move {
        client
            .send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n")
            .await;
        // Never a pause over the limit, and some 20 bytes per second.
        for _ in 0..40 {
            if !client.try_send("xxxx").await || client.has_answer().await {
                break;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        let status = client.message().await.status();
        client.rest().await;
        status
    })
    .await;
    assert_eq!(statuses, vec![408; CROWD]);
    assert_eq!(sidecar.metric(MADE, &["body_timeout"]).await, 500.0);
    is_calm(&sidecar, &legacy).await;
    assert_eq!(legacy.count(), 1, "none was completed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_is_slow_for_its_backend_alone_is_not_slow() {
    let legacy = Listener::open_with_small_window();
    let sidecar = limited(&legacy, "body_idle: 300ms, body_rate: 1MiB");
    let mut client = Socket::connect(sidecar.address).await;
    let body = vec![b'x'; 3_000_000];
    let sending = tokio::spawn(async move {
        client
            .send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3000000\r\n\r\n")
            .await;
        client.send(body).await;
        client
    });
    let mut backend = legacy.accept().await;
    backend.head().await;
    tokio::time::sleep(Duration::from_millis(900)).await;
    assert_eq!(backend.exactly(3_000_000).await.len(), 3_000_000);
    backend.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    assert_eq!(sending.await.unwrap().message().await.status(), 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_clients_without_a_request_are_closed_without_a_word() {
    let legacy = echo().await;
    let sidecar = limited(&legacy, "idle: 1s");
    assert_eq!(silent(&sidecar, "", 1_000).await, vec![None; CROWD]);
    assert_eq!(sidecar.metric(CLIENT_ERRORS, &[]).await, 0.0);
    is_calm(&sidecar, &legacy).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_clients_that_do_not_read_are_closed() {
    let body = Bytes::from(vec![b'x'; 1_000_000]);
    let legacy = Backend::answering(move |r| {
        let body = if r.target == "/" { body.clone() } else { Bytes::new() };
        Reply::text(body)
    })
    .await;
    // For a socket file the kernel holds little of what is not read: a crowd over TCP would fill its memory instead.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("clients.sock");
    let sidecar = Plan::new(&legacy, &Nobody::open())
        .route("flag: false")
        .listeners(&format!(
            "[ {{ address: \"127.0.0.1:0\" }}, {{ address: unix:{} }} ]",
            path.display()
        ))
        .more("limits: { write_timeout: 1s }")
        .start();
    let mut open = Vec::new();
    for _ in 0..CROWD {
        let mut client = Socket::over(UnixStream::connect(&path).await.unwrap());
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        open.push(client);
    }
    sidecar.wait_for_metric(CLIENT_ERRORS, &["write_timeout"], 500.0).await;
    is_calm(&sidecar, &legacy).await;
    for mut client in open {
        assert!(client.rest().await.len() < 1_000_000, "the answer was completed");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_clients_that_leave_take_their_requests_with_them() {
    let legacy = Backend::answering(|r| {
        let wait = if r.target == "/" { 60 } else { 0 };
        Reply::text("late").after(Duration::from_secs(wait))
    })
    .await;
    for (half_close, resets) in [(false, false), (false, true), (true, true)] {
        let sidecar = limited(&legacy, &format!("half_close: {half_close}"));
        let before = legacy.count();
        let mut open = Vec::new();
        for _ in 0..CROWD {
            let mut client = Socket::connect(sidecar.address).await;
            client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
            open.push(client);
        }
        legacy.wait_for(before + CROWD).await;
        for mut client in open {
            if resets {
                // With an end before it, so that only the reset tells that the client is gone.
                client.finish().await;
                client.reset();
            }
        }
        is_calm(&sidecar, &legacy).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_sends_nothing_more_gets_its_answer_where_that_is_configured() {
    let legacy = Backend::answering(|r| Reply::text(r.body.clone()).after(Duration::from_millis(500))).await;
    let sidecar = limited(&legacy, "half_close: true, idle: 60s");
    for request in [
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody",
        "GET / HTTP/1.1\r\nHost: a\r\n\r\nPOST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody",
    ] {
        let mut client = Socket::connect(sidecar.address).await;
        client.send(request).await;
        client.finish().await;
        for _ in 0..request.matches("HTTP/1.1").count() {
            assert_eq!(client.message().await.status(), 200, "{request}");
        }
        client.ends().await;
    }
    // A body that is not whole when its client ends it never will be.
    let mut client = Socket::connect(sidecar.address).await;
    client
        .send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbo")
        .await;
    client.finish().await;
    assert_eq!(client.message().await.status(), 400);
}
