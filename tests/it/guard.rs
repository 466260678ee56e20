//! The new path taken out by itself, and only by what it did itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::Method;
use serde_json::Value;

use crate::support::{Backend, Client, Plan, Reply, Sidecar, deadline, request};

const SHADOW: &str = "shadow: { flag: true, methods: [POST] }\n";
const ERRORS: &str = "budgets: [ { name: errors, metric: error_rate, tolerate: { ratio: 1.1 }, action: kill } ]\n";
const LIVE: &str = "flag: true\nwithout_identity: follow\n";

async fn send(client: &mut Client, shopper: usize) -> u16 {
    let shopper = format!("user_{shopper}");
    client
        .send(request(Method::POST, "/", &[("x-shopper-id", &shopper)], "{}"))
        .await
        .status
}

fn killed(status: &Value) -> bool {
    status["kills"].as_array().is_some_and(|kills| !kills.is_empty())
}

async fn wait_for_kill(sidecar: &Sidecar) -> Value {
    let end = tokio::time::Instant::now() + Duration::from_secs(20);
    loop {
        let status = sidecar.status().await;
        if killed(&status) {
            return status;
        }
        assert!(tokio::time::Instant::now() < end, "no kill: {status:#}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_path_that_answers_401_to_copies_is_killed_after_sixteen() {
    let legacy = Backend::saying("legacy").await;
    let new = Backend::answering(|_| Reply::status(401)).await;
    let sidecar = Plan::new(&legacy, &new).route(&format!("{SHADOW}{ERRORS}")).start();
    let mut client = Client::connect(sidecar.address).await;
    for shopper in 0..15 {
        assert_eq!(send(&mut client, shopper).await, 200);
    }
    sidecar.wait_for_metric("canonical_publish_fail_count", &[], 15.0).await;
    assert!(!killed(&sidecar.status().await), "fifteen failures are no outage");
    assert_eq!(send(&mut client, 15).await, 200);
    let status = wait_for_kill(&sidecar).await;
    assert_eq!(status["kills"][0]["actor"], "guard");
    assert!(
        status["kills"][0]["reason"].as_str().unwrap().contains("errors"),
        "{status:#}"
    );
    sidecar
        .wait_for_metric("understudy_killed", &["name=\"shop\""], 1.0)
        .await;
    assert_eq!(
        sidecar
            .metric("feature_kill_switches_activated_total", &["reason=\"guard\""])
            .await,
        1.0
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failures_that_legacy_shares_kill_nothing() {
    let legacy = Backend::answering(|_| Reply::status(503)).await;
    let new = Backend::answering(|_| Reply::status(503)).await;
    let sidecar = Plan::new(&legacy, &new).route(&format!("{SHADOW}{ERRORS}")).start();
    let mut client = Client::connect(sidecar.address).await;
    for shopper in 0..100 {
        assert_eq!(send(&mut client, shopper).await, 503);
    }
    sidecar
        .wait_for_metric("canonical_publish_fail_count", &[], 100.0)
        .await;
    assert!(!killed(&sidecar.status().await));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_live_path_that_goes_away_costs_nobody_an_answer_and_is_killed() {
    let legacy = Backend::saying("legacy").await;
    let mut new = Backend::saying("new").await;
    let sidecar = Plan::new(&legacy, &new).route(&format!("{LIVE}{ERRORS}")).start();
    let mut client = Client::connect(sidecar.address).await;
    for shopper in 0..20 {
        assert_eq!(send(&mut client, shopper).await, 200);
    }
    assert_eq!(new.count(), 20);
    new.go_away().await;
    for shopper in 0..60 {
        assert_eq!(send(&mut client, shopper).await, 200);
    }
    let status = wait_for_kill(&sidecar).await;
    assert_eq!(legacy.count(), 60);
    let failovers = sidecar
        .metric("understudy_failovers_total", &["class=\"never_reached\""])
        .await;
    assert!((16.0..60.0).contains(&failovers), "{failovers}: {status:#}");
    // The kill is stored, and a restart obeys it with its first request.
    new.come_back();
    let sidecar = sidecar.restart().await;
    let mut client = Client::connect(sidecar.address).await;
    assert_eq!(send(&mut client, 1).await, 200);
    assert_eq!((legacy.count(), new.count()), (61, 20));
    // Re-armed, it serves again.
    assert_eq!(sidecar.rearm("shop").await.status, 200);
    assert_eq!(send(&mut client, 1).await, 200);
    assert_eq!((legacy.count(), new.count()), (61, 21));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_path_that_becomes_three_times_slower_is_killed() {
    let factor = Arc::new(AtomicUsize::new(1));
    let slower = Arc::clone(&factor);
    let legacy = Backend::answering(|_| Reply::text("legacy").after(Duration::from_millis(10))).await;
    let new = Backend::answering(move |_| {
        Reply::text("new").after(Duration::from_millis(10 * slower.load(Ordering::SeqCst) as u64))
    })
    .await;
    let slow = "budgets: [ { name: slow, metric: latency_p95, tolerate: { ratio: 1.5 }, action: kill } ]\n";
    let sidecar = Plan::new(&legacy, &new).route(&format!("{SHADOW}{slow}")).start();
    let mut client = Client::connect(sidecar.address).await;
    for shopper in 0..100 {
        assert_eq!(send(&mut client, shopper).await, 200);
    }
    sidecar.wait_for_metric("understudy_copies_total", &[], 100.0).await;
    assert!(!killed(&sidecar.status().await));
    factor.store(3, Ordering::SeqCst);
    for shopper in 0..300 {
        assert_eq!(send(&mut client, shopper).await, 200);
    }
    let status = wait_for_kill(&sidecar).await;
    assert!(
        status["kills"][0]["reason"].as_str().unwrap().contains("slow"),
        "{status:#}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_poisonous_shopper_is_held_and_the_others_go_on() {
    let legacy = Backend::saying("legacy").await;
    let new = Backend::answering(|r| {
        if r.header("x-shopper-id") == "user_7" {
            Reply::status(500)
        } else {
            Reply::text("new")
        }
    })
    .await;
    let reverse = "shadow: { flag: true, methods: [POST] }\n";
    let plan = Plan::new(&legacy, &new).legacy_more("copies: isolated");
    let sidecar = plan.route(&format!("{LIVE}{reverse}{ERRORS}")).start();
    let mut client = Client::connect(sidecar.address).await;
    // Others first, so that holding one subject does not hold everybody.
    for shopper in 0..7 {
        assert_eq!(send(&mut client, shopper).await, 200);
    }
    for _ in 0..40 {
        let status = send(&mut client, 7).await;
        assert!(status == 500 || status == 200);
    }
    let held = || async { sidecar.metric("understudy_subjects_held", &[]).await };
    let end = tokio::time::Instant::now() + Duration::from_secs(20);
    while held().await < 1.0 {
        assert!(
            tokio::time::Instant::now() < end,
            "not held: {:#}",
            sidecar.status().await
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(sidecar.metric("understudy_killed", &[]).await, 0.0, "the route goes on");
    assert_eq!(send(&mut client, 7).await, 200, "held on legacy");
    let before = new.received().iter().filter(|r| !r.is_copy()).count();
    assert_eq!(send(&mut client, 3).await, 200);
    deadline("another shopper served by new", || {
        new.received().iter().filter(|r| !r.is_copy()).count() == before + 1
    })
    .await;
    assert_eq!(sidecar.rearm("shop").await.status, 200);
    assert_eq!(held().await, 0.0);
    assert_eq!(send(&mut client, 7).await, 500, "lifted");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_alert_tells_and_switches_nothing() {
    let legacy = Backend::saying("legacy").await;
    let new = Backend::answering(|_| Reply::status(500)).await;
    let alert = ERRORS.replace("kill", "alert");
    let sidecar = Plan::new(&legacy, &new).route(&format!("{SHADOW}{alert}")).start();
    let mut client = Client::connect(sidecar.address).await;
    for shopper in 0..60 {
        assert_eq!(send(&mut client, shopper).await, 200);
    }
    sidecar.wait_for_metric("canonical_publish_fail_count", &[], 60.0).await;
    let end = tokio::time::Instant::now() + Duration::from_secs(10);
    loop {
        let status = sidecar.status().await;
        assert!(!killed(&status));
        if status["routes"][0]["guard"]["budgets"][0]["state"] == "tripped" {
            break;
        }
        assert!(tokio::time::Instant::now() < end, "{status:#}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn status_says_that_budgets_find_disasters_only() {
    let legacy = Backend::saying("legacy").await;
    let new = Backend::saying("new").await;
    let sidecar = Plan::new(&legacy, &new).route(&format!("{SHADOW}{ERRORS}")).start();
    let end = tokio::time::Instant::now() + Duration::from_secs(10);
    loop {
        let status = sidecar.status().await;
        if status["routes"][0]["guard"]["budgets"][0]["sight"] == "disasters only" {
            return;
        }
        assert!(tokio::time::Instant::now() < end, "{status:#}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
