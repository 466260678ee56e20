//! Points 9 and 11: whatever new does, as the shadow or under its own load, legacy's clients do not notice.

use std::time::{Duration, Instant};

use crate::support::{Backend, Blackhole, Client, Instance, Nobody, Plan, Reply, Script, Socket, request};

const ROUTES: &str = "  - { name: live, match: { path: /live }, flag: true, without_identity: follow, \
                      failover: { never_reached: false, unknown: false, answered: false } }\n  \
                      - { name: calm, match: { path: / } }\n";

/// The slowest of a hundred of many requests.
async fn p99(instance: &Instance, target: &str, requests: usize) -> Duration {
    let mut client = Client::connect(instance.address).await;
    let mut took = Vec::new();
    for _ in 0..requests {
        let since = Instant::now();
        let answer = client.send(request(http::Method::GET, target, &[], "")).await;
        assert_eq!((answer.status, answer.text()), (200, "legacy"));
        took.push(since.elapsed());
    }
    took.sort_unstable();
    took[took.len() * 99 / 100]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_saturated_new_is_told_at_once_and_legacy_does_not_slow_down() {
    let legacy = Backend::saying("legacy").await;
    let new = Backend::start(Script::Stall).await;
    let plan = Plan::new(&legacy, &new)
        .routes(ROUTES)
        .new_more("timeout: 60s")
        .more("limits: { in_flight: 20 }");
    let instance = Instance::start(&plan).await;
    let mut waiting = Vec::new();
    for _ in 0..20 {
        let mut client = Socket::connect(instance.address).await;
        client.send("GET /live HTTP/1.1\r\nHost: a\r\n\r\n").await;
        waiting.push(client);
    }
    new.wait_for(20).await;
    for _ in 0..100 {
        let since = Instant::now();
        let mut client = Socket::connect(instance.address).await;
        client.send("GET /live HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let answer = client.message().await;
        assert_eq!((answer.status(), answer.header("retry-after")), (503, "1"));
        assert_eq!(answer.header("x-understudy-error"), "overload");
        assert!(since.elapsed() < Duration::from_secs(1), "{:?}", since.elapsed());
    }
    let slow = p99(&instance, "/", 300).await;
    assert!(slow < Duration::from_millis(250), "{slow:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_new_does_not_slow_legacy_and_nothing_hangs() {
    let legacy = Backend::saying("legacy").await;
    let blackhole = Blackhole::open().await;
    let plan = Plan::new(&legacy, &blackhole)
        .routes(ROUTES)
        .new_more("connect_timeout: 500ms");
    let instance = Instance::start(&plan).await;
    let mut waiting = tokio::task::JoinSet::new();
    for _ in 0..200 {
        let address = instance.address;
        waiting.spawn(async move {
            let since = Instant::now();
            let mut client = Socket::connect(address).await;
            client.send("GET /live HTTP/1.1\r\nHost: a\r\n\r\n").await;
            (client.message().await.status(), since.elapsed())
        });
    }
    let slow = p99(&instance, "/", 300).await;
    assert!(slow < Duration::from_millis(250), "{slow:?}");
    while let Some(done) = waiting.join_next().await {
        let (status, took) = done.unwrap();
        assert!(
            matches!(status, 502..=504) && took < Duration::from_secs(4),
            "{status} after {took:?}"
        );
    }
}

fn memory_kb(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// The p99 of legacy's clients and the memory of the instance with this shadow.
async fn with_shadow(plan: Plan) -> (Duration, u64) {
    let shadowed = "  - { name: shop, match: { path: / }, flag: false, dual_run: true, shadow: { methods: [GET] } }\n";
    let instance = Instance::start(&plan.routes(shadowed).more("capture: { body: 64KiB }")).await;
    let slow = p99(&instance, "/", 600).await;
    (slow, memory_kb(instance.id()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_shadow_costs_the_primary_time_or_the_instance_memory() {
    let legacy = Backend::saying("legacy").await;
    let healthy = Backend::saying("legacy").await;
    let (usual, memory) = with_shadow(Plan::new(&legacy, &healthy)).await;
    let late = Backend::answering(|_| Reply::text("legacy").after(Duration::from_millis(500))).await;
    let flooding = Backend::answering(|_| Reply::text(vec![b'x'; 1_000_000])).await;
    let deaf = Backend::start(Script::NeverRead).await;
    let silent = Backend::start(Script::Stall).await;
    let blackhole = Blackhole::open().await;
    let plans = [
        ("slow", Plan::new(&legacy, &late)),
        ("refusing", Plan::new(&legacy, &Nobody::open())),
        ("a black hole", Plan::new(&legacy, &blackhole)),
        ("never reading", Plan::new(&legacy, &deaf)),
        ("silent", Plan::new(&legacy, &silent)),
        ("flooding", Plan::new(&legacy, &flooding)),
    ];
    for (what, plan) in plans {
        let (slow, grown) = with_shadow(plan).await;
        // Backends and clients share the machine's cores with the instance, and an unoptimised one needs more of them.
        let allowed = (usual * 2).max(usual + Duration::from_millis(10)) + Duration::from_millis(15);
        assert!(slow <= allowed, "{what}: p99 {slow:?}, with a healthy shadow {usual:?}");
        assert!(
            grown < memory + 64 * 1_024,
            "{what}: {grown} KB, with a healthy shadow {memory} KB"
        );
    }
}
