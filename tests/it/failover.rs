//! No shopper sees the new path fail: what it could not answer, legacy answers, and nothing is done twice that must not.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use http::Method;
use tokio::time::Instant;

use crate::support::{
    Backend, Blackhole, Client, Listener, Located, Nobody, Plan, Reply, Script, Sidecar, Socket, deadline, echo, get,
    post, request, send,
};

const FAILOVERS: &str = "understudy_failovers_total";
const FAILED: &str = "understudy_runs_failed_total";
const SAFE: [Method; 3] = [Method::GET, Method::HEAD, Method::OPTIONS];
const ACTING: [Method; 4] = [Method::POST, Method::PUT, Method::PATCH, Method::DELETE];

/// Everybody is on new.
fn live(legacy: &impl Located, new: &impl Located) -> Plan {
    live_with(legacy, new, "")
}

fn live_with(legacy: &impl Located, new: &impl Located, failover: &str) -> Plan {
    let failover = if failover.is_empty() {
        String::new()
    } else {
        format!("\nfailover: {{ {failover} }}")
    };
    Plan::new(legacy, new)
        .route(&format!("flag: true\nwithout_identity: follow{failover}"))
        .new_more("timeout: 400ms, connect_timeout: 300ms")
        .more("served_by: true")
}

/// Whether a request was answered as the backend before it gave up would have been: once, by legacy.
async fn failed_over(sidecar: &Sidecar, class: &str) -> f64 {
    let all = sidecar.metric(FAILOVERS, &["route=\"shop\""]).await;
    let of_class = sidecar
        .metric(FAILOVERS, &["route=\"shop\"", &format!("class=\"{class}\"")])
        .await;
    assert_eq!(all, of_class, "no other class than {class}");
    of_class
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_path_that_was_never_reached_costs_no_method_and_no_body() {
    let legacy = echo().await;
    let identity = |identity: &str| {
        format!(
            "  - {{ name: shop, match: {{ path: / }}, identity: [ {identity} ], without_identity: follow, flag: true }}\n"
        )
    };
    // The body is streamed, or captured whole, or in parts because it is longer than what is kept.
    let plans = [
        ("{ header: x-shopper-id }", "4MiB"),
        ("{ json: /from }", "4MiB"),
        ("{ json: /from }", "64KiB"),
    ];
    for (source, cap) in plans {
        let plan = Plan::new(&legacy, &Nobody::open())
            .routes(&identity(source))
            .more(&format!("served_by: true\ncapture: {{ body: {cap} }}"));
        let sidecar = plan.start();
        let mut client = Client::connect(sidecar.address).await;
        let mut sent = 0.0;
        for method in SAFE.into_iter().chain(ACTING) {
            for len in [0, 1_234, 3_000_000] {
                let body = vec![b'x'; len];
                let answer = client.send(request(method.clone(), "/", &[], body.clone())).await;
                sent += 1.0;
                assert_eq!(
                    (answer.status, answer.header("x-understudy-served-by")),
                    (200, "legacy"),
                    "{method} {len}"
                );
                assert!(answer.body == body || method == Method::HEAD, "{method} {len}");
                let received = legacy.received().pop().unwrap();
                assert!(received.method == method && received.body == body, "{method} {len}");
            }
        }
        let mut client = Socket::connect(sidecar.address).await;
        client
            .send("PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n")
            .await;
        client.send("3\r\ntwo\r\n0\r\n\r\n").await;
        assert_eq!(client.message().await.body, b"onetwo");
        assert_eq!(failed_over(&sidecar, "never_reached").await, sent + 1.0);
        assert_eq!(
            sidecar.metric(FAILED, &["\"connect\"", "side=\"new\""]).await,
            sent + 1.0
        );
        sidecar.wait_for_zero("understudy_capture_bytes", &[]).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_path_that_does_not_let_itself_be_connected_to_costs_one_wait() {
    let (legacy, new) = (echo().await, Blackhole::open().await);
    let sidecar = live(&legacy, &new).start();
    for (method, waits) in [(Method::GET, true), (Method::POST, false)] {
        let since = Instant::now();
        let answer = send(sidecar.address, method, "/", &[], "body").await;
        assert_eq!((answer.status, answer.text()), (200, "body"));
        assert!(since.elapsed() >= Duration::from_millis(if waits { 300 } else { 0 }));
        assert!(since.elapsed() < Duration::from_millis(1_500));
    }
    assert_eq!(failed_over(&sidecar, "never_reached").await, 2.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_died_in_the_pool_are_found_dead_before_anything_is_written() {
    let legacy = echo().await;
    let mut new = Backend::saying("new").await;
    let sidecar = live(&legacy, &new).new_more("idle: 60s").start();
    let mut client = Client::connect(sidecar.address).await;
    for (round, method) in [Method::POST, Method::GET, Method::DELETE, Method::PUT]
        .into_iter()
        .enumerate()
    {
        assert_eq!(client.send(request(method.clone(), "/", &[], "1")).await.text(), "new");
        new.go_away().await;
        let answer = client.send(request(method.clone(), "/", &[], "2")).await;
        assert_eq!((answer.status, answer.text()), (200, "2"), "{method}");
        new.come_back();
        assert_eq!((new.count(), legacy.count()), (round + 1, round + 1));
    }
    assert_eq!(failed_over(&sidecar, "never_reached").await, 4.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_closes_under_a_request_says_nothing_of_new() {
    let (legacy, new) = (echo().await, Listener::open().await);
    let sidecar = live(&legacy, &new).start();
    let mut client = Socket::connect(sidecar.address).await;
    client.send("GET /1 HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut backend = new.accept().await;
    backend.message().await;
    backend.send("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n1").await;
    client.message().await;
    client.send("GET /2 HTTP/1.1\r\nHost: a\r\n\r\n").await;
    backend.message().await;
    drop(backend);
    let mut backend = new.accept().await;
    assert_eq!(backend.message().await.start, "GET /2 HTTP/1.1");
    backend.send("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n2").await;
    assert_eq!(client.message().await.body, b"2");
    assert_eq!((legacy.count(), failed_over(&sidecar, "none").await), (0, 0.0));
    assert_eq!(sidecar.metric(FAILED, &[]).await, 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reset_before_anybody_knows_what_was_written_is_never_answered_twice() {
    let (legacy, new) = (echo().await, Backend::start(Script::ResetOnAccept).await);
    let sidecar = live(&legacy, &new).start();
    let mut by_legacy = 0;
    for round in 0..20 {
        assert_eq!(
            get(sidecar.address, "/", &[]).await.status,
            200,
            "a GET is always answered"
        );
        by_legacy += 1;
        let answer = post(sidecar.address, "/", &[], "body").await;
        // Whether the reset or the request came first is the kernel's doing.
        match answer.status {
            200 => by_legacy += 1,
            502 => assert_eq!(answer.header("x-understudy-error"), "reset"),
            other => panic!("{round}: {other}"),
        }
    }
    assert_eq!(legacy.count(), by_legacy);
    assert_eq!(sidecar.metric(FAILED, &["side=\"new\""]).await, 40.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_new_goes_away_and_comes_back_every_shopper_gets_an_answer() {
    let legacy = Backend::answering(|r| Reply::text(format!("legacy {}", r.target))).await;
    let mut new =
        Backend::answering(|r| Reply::text(format!("new {}", r.target)).after(Duration::from_millis(2))).await;
    let sidecar = live(&legacy, &new).start();
    let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let shoppers: Vec<_> = (0..16)
        .map(|shopper| {
            let (stop, answered, address) = (Arc::clone(&stop), Arc::clone(&answered), sidecar.address);
            tokio::spawn(async move {
                let mut client = Client::connect(address).await;
                let (mut by_new, mut by_legacy) = (0, 0);
                for round in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let target = format!("/{shopper}/{round}");
                    let answer = client.send(request(Method::GET, &target, &[], "")).await;
                    assert_eq!(answer.status, 200, "{answer:?}");
                    let side = answer.header("x-understudy-served-by").to_owned();
                    assert_eq!(answer.text(), format!("{side} {target}"));
                    if side == "new" {
                        by_new += 1;
                    } else {
                        by_legacy += 1;
                    }
                    answered.fetch_add(1, Ordering::Relaxed);
                }
                (by_new, by_legacy)
            })
        })
        .collect();
    let more = |n| {
        let goal = answered.load(Ordering::Relaxed) + n;
        let answered = Arc::clone(&answered);
        async move { deadline("more answers", || answered.load(Ordering::Relaxed) >= goal).await }
    };
    for _ in 0..3 {
        more(100).await;
        new.go_away().await;
        more(100).await;
        // Nothing was written to it: a method that acts is as safe.
        assert_eq!(post(sidecar.address, "/post", &[], "x").await.text(), "legacy /post");
        new.come_back();
    }
    more(100).await;
    stop.store(true, Ordering::Relaxed);
    let (mut by_new, mut by_legacy) = (0, 3);
    for shopper in shoppers {
        let (new, legacy) = shopper.await.unwrap();
        by_new += new;
        by_legacy += legacy;
    }
    assert!(by_new >= 100 && by_legacy >= 300, "{by_new} {by_legacy}");
    assert_eq!(legacy.count(), by_legacy);
    #[allow(clippy::cast_precision_loss, reason = "some hundred requests")]
    let expected = by_legacy as f64;
    assert_eq!(sidecar.metric(FAILOVERS, &["route=\"shop\""]).await, expected);
    assert_eq!(sidecar.metric(FAILED, &["side=\"new\""]).await, expected);
}

/// What becomes of every method when new does this with it.
async fn unknown(script: Script, status: u16) {
    let (legacy, new) = (Backend::saying("legacy").await, Backend::start(script).await);
    let sidecar = live(&legacy, &new).start();
    for method in SAFE {
        let answer = send(sidecar.address, method.clone(), "/", &[], "").await;
        assert_eq!(
            (answer.status, answer.header("x-understudy-served-by")),
            (200, "legacy"),
            "{method}"
        );
    }
    assert_eq!(legacy.count(), SAFE.len());
    for method in ACTING {
        let answer = send(sidecar.address, method.clone(), "/", &[], "body").await;
        assert_eq!(answer.status, status, "{method}");
        assert!(!answer.header("x-understudy-error").is_empty(), "{method}");
    }
    assert_eq!(legacy.count(), SAFE.len(), "what acts was done twice");
    assert_eq!(failed_over(&sidecar, "unknown").await, 3.0);
    assert_eq!(sidecar.metric(FAILED, &["side=\"new\""]).await, 7.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_new_may_have_seen_is_repeated_only_where_that_is_harmless() {
    tokio::join!(
        unknown(Script::CloseWithoutAnswer, 502),
        unknown(Script::ResetWhenAsked, 502),
        unknown(Script::Raw(b"garbage\r\n\r\n"), 502),
        unknown(Script::Raw(b"HTTP/1.1 200 OK\r\nContent-Le"), 502),
        unknown(Script::Stall, 504),
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_counts_as_failure_is_replaced_only_where_asking_again_is_harmless() {
    let legacy = Backend::saying("legacy").await;
    let new = Backend::answering(|r| Reply {
        status: r.target[1..].parse().unwrap(),
        ..Reply::text("new")
    })
    .await;
    let sidecar = live(&legacy, &new).start();
    for status in [500, 502, 503, 599] {
        let target = format!("/{status}");
        assert_eq!(get(sidecar.address, &target, &[]).await.text(), "legacy");
        let answer = post(sidecar.address, &target, &[], "body").await;
        assert_eq!(
            (answer.status, answer.text(), answer.header("x-understudy-error")),
            (status, "new", "")
        );
    }
    for status in [200, 204, 301, 400, 401, 404, 429] {
        let answer = get(sidecar.address, &format!("/{status}"), &[]).await;
        assert_eq!(
            (answer.status, answer.header("x-understudy-served-by")),
            (status, "new")
        );
    }
    assert_eq!((legacy.count(), failed_over(&sidecar, "answered").await), (4, 4.0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn which_answers_count_as_failure_is_the_routes_to_say() {
    let legacy = Backend::saying("legacy").await;
    let new = Backend::answering(|r| Reply::status(r.target[1..].parse().unwrap())).await;
    let sidecar = live_with(&legacy, &new, "statuses: [401, 404, 503]").start();
    for (status, served_by) in [
        (401, "legacy"),
        (404, "legacy"),
        (503, "legacy"),
        (500, "new"),
        (403, "new"),
    ] {
        let answer = get(sidecar.address, &format!("/{status}"), &[]).await;
        assert_eq!(answer.header("x-understudy-served-by"), served_by, "{status}");
        assert_eq!(answer.status, if served_by == "new" { status } else { 200 });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_class_that_is_switched_off_is_answered_as_it_is() {
    let legacy = Backend::saying("legacy").await;
    let off = "never_reached: false, unknown: false, answered: false";
    let closing = Backend::start(Script::CloseWithoutAnswer).await;
    let failing = Backend::answering(|_| Reply::status(500)).await;
    let nobody = Nobody::open();
    let sidecars = [
        (live_with(&legacy, &nobody, off).start(), 502, "connect_failed"),
        (live_with(&legacy, &closing, off).start(), 502, "reset"),
        (live_with(&legacy, &failing, off).start(), 500, ""),
    ];
    for (sidecar, status, reason) in &sidecars {
        let answer = get(sidecar.address, "/", &[]).await;
        assert_eq!((answer.status, answer.header("x-understudy-error")), (*status, *reason));
    }
    assert_eq!(legacy.count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_new_stalls_legacy_still_answers_before_the_sender_gives_up() {
    let legacy = Backend::saying("legacy").await;
    for new in [
        Backend::start(Script::Stall).await,
        Backend::start(Script::NeverRead).await,
    ] {
        // On its own it would have ten seconds.
        let sidecar = live_with(&legacy, &new, "deadline: 1500ms")
            .new_more("timeout: 10s")
            .start();
        let since = Instant::now();
        assert_eq!(get(sidecar.address, "/", &[]).await.text(), "legacy");
        let took = since.elapsed();
        assert!(
            took >= Duration::from_millis(750) && took < Duration::from_millis(1_500),
            "{took:?}"
        );
    }
    let new = Blackhole::open().await;
    let sidecar = live_with(&legacy, &new, "deadline: 1500ms")
        .new_more("connect_timeout: 10s")
        .start();
    let since = Instant::now();
    assert_eq!(get(sidecar.address, "/", &[]).await.text(), "legacy");
    assert!(since.elapsed() < Duration::from_millis(1_500), "{:?}", since.elapsed());
    assert_eq!(failed_over(&sidecar, "never_reached").await, 1.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_new_has_no_room_for_goes_to_legacy() {
    let (legacy, new) = (Backend::saying("legacy").await, Listener::open().await);
    let plan = live(&legacy, &new)
        .new_more("timeout: 10s")
        .more("limits: { in_flight: 1 }\nserved_by: true");
    let sidecar = plan.start();
    let mut first = Socket::connect(sidecar.address).await;
    first
        .send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
        .await;
    let mut backend = new.accept().await;
    backend.message().await;
    for method in [Method::GET, Method::POST] {
        let answer = send(sidecar.address, method, "/", &[], "").await;
        assert_eq!((answer.status, answer.text()), (200, "legacy"));
    }
    assert_eq!(failed_over(&sidecar, "never_reached").await, 2.0);
    backend.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    assert_eq!(first.message().await.header("x-understudy-served-by"), "new");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_breaks_off_is_no_failure_of_new() {
    let (legacy, new) = (Backend::saying("legacy").await, Listener::open().await);
    let sidecar = live(&legacy, &new).new_more("timeout: 10s").start();
    let requests = [
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nhalf",
        "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
    ];
    for request in requests {
        for reset in [false, true] {
            let mut client = Socket::connect(sidecar.address).await;
            client.send(request).await;
            let mut backend = new.accept().await;
            backend.head().await;
            if reset {
                client.reset();
            } else {
                drop(client);
            }
            backend.rest().await;
        }
    }
    // Nor is one that stops in the middle of an answer.
    let mut client = Socket::connect(sidecar.address).await;
    client.send(requests[0]).await;
    let mut backend = new.accept().await;
    backend.head().await;
    backend.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf").await;
    client.head().await;
    client.reset();
    backend.ends().await;
    sidecar.wait_for_zero("understudy_requests_in_flight", &[]).await;
    assert_eq!((legacy.count(), failed_over(&sidecar, "none").await), (0, 0.0));
    assert_eq!(sidecar.metric(FAILED, &[]).await, 0.0);
    assert_eq!(sidecar.metric("canonical_publish_fail_count", &[]).await, 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_that_breaks_off_before_new_was_reached_goes_nowhere() {
    let (legacy, new) = (Backend::saying("legacy").await, Blackhole::open().await);
    let sidecar = live(&legacy, &new).start();
    let mut client = Socket::connect(sidecar.address).await;
    client
        .send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nhalf")
        .await;
    drop(client);
    deadline("the client to be forgotten", || legacy.open() == 0).await;
    sidecar
        .wait_for_metric("understudy_connections_accepted_total", &[], 1.0)
        .await;
    assert_eq!(get(sidecar.address, "/", &[]).await.text(), "legacy");
    assert!(
        legacy.received().iter().all(|r| r.method == Method::GET),
        "half a request was repeated"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_gets_exactly_one_answer_and_keeps_its_connection() {
    let legacy = Backend::answering(|r| Reply::text(format!("legacy {}", r.target))).await;
    let new = Backend::start(Script::CloseWithoutAnswer).await;
    let sidecar = live(&legacy, &new).start();
    let mut client = Socket::connect(sidecar.address).await;
    let scripts = [
        Script::CloseWithoutAnswer,
        Script::ResetWhenAsked,
        Script::Raw(b"HTTP/1.1 200 OK\r\nX: 1\r\n"),
        Script::Raw(b"HTTP/1.1 103 Early Hints\r\n\r\n"),
        Script::Raw(b"HTTP/1.1 500 No\r\nContent-Length: 3\r\n\r\nnew"),
        Script::Raw(b"HTTP/1.1 500 No\r\nContent-Length: 300\r\n\r\nnew"),
        Script::Stall,
    ];
    for (round, script) in scripts.into_iter().enumerate() {
        new.set(script);
        client.send(format!("GET /{round} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        let answer = client.message().await;
        assert_eq!(
            (answer.status(), answer.body),
            (200, format!("legacy /{round}").into_bytes())
        );
    }
    client.finish().await;
    client.ends().await;
    assert_eq!(legacy.count(), 7);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_has_begun_is_not_begun_again() {
    let (legacy, new) = (Backend::saying("legacy").await, Listener::open().await);
    let sidecar = live(&legacy, &new).start();
    let mut client = Socket::connect(sidecar.address).await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut backend = new.accept().await;
    backend.message().await;
    backend.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf").await;
    drop(backend);
    assert_eq!(client.head().await.header("x-understudy-served-by"), "new");
    assert_eq!((client.rest().await, legacy.count()), (b"half".to_vec(), 0));
    sidecar.wait_for_metric(FAILED, &["side=\"new\"", "\"cut\""], 1.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_was_kept_whole_is_repeated_whole_and_any_other_not_at_all() {
    let legacy = echo().await;
    let new = Backend::answering(|_| Reply::status(500)).await;
    let sidecar = live(&legacy, &new).more("capture: { body: 1MiB }").start();
    let body: Vec<u8> = (0..250_000_u32).flat_map(u32::to_be_bytes).collect();
    for len in [1, 100_000, 1_000_000] {
        let answer = send(sidecar.address, Method::GET, "/", &[], body[..len].to_vec()).await;
        assert!(answer.status == 200 && answer.body == body[..len], "{len}");
    }
    let mut client = Socket::connect(sidecar.address).await;
    client
        .send("GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n")
        .await;
    client.send("3\r\ntwo\r\n0\r\n\r\n").await;
    assert_eq!(client.message().await.body, b"onetwo");
    assert_eq!((legacy.count(), failed_over(&sidecar, "answered").await), (4, 4.0));
    let longer = vec![b'x'; 1_100_000];
    assert_eq!(send(sidecar.address, Method::GET, "/", &[], longer).await.status, 500);
    assert_eq!(legacy.count(), 4);
    sidecar.wait_for_zero("understudy_capture_bytes", &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_is_still_arriving_follows_its_request_to_legacy() {
    let legacy = echo().await;
    let new = Listener::open().await;
    let sidecar = live_with(&legacy, &new, "deadline: 600ms")
        .new_more("timeout: 10s")
        .start();
    for (framing, parts) in [
        ("Transfer-Encoding: chunked", ["3\r\none\r\n", "3\r\ntwo\r\n0\r\n\r\n"]),
        ("Content-Length: 6", ["one", "two"]),
    ] {
        let mut client = Socket::connect(sidecar.address).await;
        client
            .send(format!("GET / HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n{}", parts[0]))
            .await;
        let mut backend = new.accept().await;
        assert!(backend.head().await.start.starts_with("GET"));
        // The client pauses for longer than new may take.
        let seen = String::from_utf8(backend.rest().await).unwrap();
        client.send(parts[1]).await;
        assert_eq!(client.message().await.body, b"onetwo", "{framing}");
        assert!(seen.contains("one") && !seen.contains("two"), "{seen}");
    }
    assert_eq!((legacy.count(), failed_over(&sidecar, "unknown").await), (2, 2.0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_both_fail_the_client_hears_of_it_once() {
    let new = Backend::start(Script::CloseWithoutAnswer).await;
    let sidecar = live(&Nobody::open(), &new).start();
    let answer = get(sidecar.address, "/", &[]).await;
    assert_eq!(
        (answer.status, answer.header("x-understudy-error")),
        (502, "connect_failed")
    );
    assert_eq!(sidecar.metric("understudy_answers_made_total", &[]).await, 1.0);
    assert_eq!(sidecar.metric(FAILED, &["side=\"new\"", "\"reset\""]).await, 1.0);
    assert_eq!(sidecar.metric(FAILED, &["side=\"legacy\"", "\"connect\""]).await, 1.0);
    // What legacy itself answers is the answer, whatever it is.
    let legacy = Backend::answering(|_| Reply::status(500)).await;
    let sidecar = live(&legacy, &new).start();
    assert_eq!(get(sidecar.address, "/", &[]).await.status, 500);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_exchange_whose_client_left_is_closed_and_what_new_did_meanwhile_counts() {
    let legacy = Listener::open().await;
    let new = Backend::answering(|_| Reply::status(500)).await;
    let sidecar = Plan::new(&legacy, &new)
        .route("flag: false\nshadow: true\nbudgets: [ { name: errors, metric: error_rate, action: alert } ]")
        .start();
    let mut client = Socket::connect(sidecar.address).await;
    client
        .send("GET / HTTP/1.1\r\nHost: a\r\nX-Shopper-Id: anna\r\n\r\n")
        .await;
    let mut backend = legacy.accept().await;
    backend.message().await;
    assert!(new.wait_for(1).await[0].is_copy());
    drop(client);
    backend.ends().await;
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        let guard = &sidecar.status().await["routes"][0]["guard"];
        if guard["outcomes"] == 1 {
            assert_eq!(
                (&guard["no_evidence"], &guard["new_failed"]),
                (&1.into(), &1.into()),
                "{guard}"
            );
            break;
        }
        assert!(Instant::now() < end, "the exchange was never closed: {guard}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
