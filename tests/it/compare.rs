//! What both sides answered, compared: verdicts, counters, and what an operator may see of it.

use std::time::Duration;

use http::Method;
use serde_json::json;

use crate::support::{Answered, Backend, Plan, Reply, Sidecar, get, post};

const COMPARED: &str = "shadow: { flag: false, methods: [GET, POST] }\ndual_run: true\n";

async fn instance(legacy: Reply, new: Reply, more: &str) -> (Backend, Backend, Sidecar) {
    let legacy = Backend::answering(move |_| legacy.clone()).await;
    let new = Backend::answering(move |_| new.clone()).await;
    let sidecar = Plan::new(&legacy, &new).route(&format!("{COMPARED}{more}")).start();
    (legacy, new, sidecar)
}

async fn verdict(legacy: Reply, new: Reply, more: &str) -> String {
    let (_legacy, _new, sidecar) = instance(legacy, new, more).await;
    post(sidecar.address, "/", &[("x-shopper-id", "anna")], "{}").await;
    sidecar.wait_for_metric("understudy_compared_total", &[], 1.0).await;
    for verdict in ["same", "noise", "diverged", "incomparable"] {
        if sidecar
            .metric("understudy_compared_total", &[&format!("verdict=\"{verdict}\"")])
            .await
            == 1.0
        {
            return verdict.to_owned();
        }
    }
    unreachable!("one of four verdicts")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn there_are_four_verdicts() {
    let a = || Reply::json(r#"{"total": 1.0, "at": 5}"#);
    assert_eq!(verdict(a(), Reply::json(r#"{"at":5,"total":1}"#), "").await, "same");
    assert_eq!(
        verdict(a(), Reply::json(r#"{"at":6,"total":1}"#), "compare: { ignore: [/at] }").await,
        "noise"
    );
    assert_eq!(
        verdict(a(), Reply::json(r#"{"at":5,"total":2}"#), "compare: { ignore: [/at] }").await,
        "diverged"
    );
    let packed = Reply::json("not really gzip").header("content-encoding", "gzip");
    assert_eq!(verdict(a(), packed, "").await, "incomparable");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_failover_replaced_is_not_compared_because_its_run_failed() {
    let legacy = Backend::saying("legacy").await;
    // By then the copy has been sent.
    let new = Backend::answering(|_| Reply::status(500).after(Duration::from_millis(300))).await;
    let sidecar = Plan::new(&legacy, &new)
        .route("flag: true\ndual_run: true\n")
        .legacy_more("copies: isolated")
        .start();
    let answer = get(sidecar.address, "/", &[("x-shopper-id", "anna")]).await;
    assert_eq!((answer.status, answer.text()), (200, "legacy"));
    let reason = |reason: &str| format!("reason=\"{reason}\"");
    let not_compared = "understudy_not_compared_total";
    sidecar.wait_for_metric(not_compared, &[], 1.0).await;
    assert_eq!(sidecar.metric(not_compared, &[&reason("run_failed")]).await, 1.0);
    assert_eq!(sidecar.metric(not_compared, &[&reason("memory")]).await, 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_divergence_is_counted_by_severity_and_shown_without_values() {
    let legacy = Reply::json(r#"{"customer":{"33639980123":"anna"},"total":4200,"items":[{"id":1}]}"#);
    let new = Reply::json(r#"{"customer":{"33639980123":"Anna"},"total":"4200","items":[]}"#);
    let (_legacy, _new, sidecar) = instance(legacy, new, "").await;
    post(sidecar.address, "/", &[("x-shopper-id", "shopper-anna")], "{}").await;
    sidecar
        .wait_for_metric("divergence_count", &["severity=\"critical\"", "route=\"shop\""], 1.0)
        .await;
    let page = sidecar
        .admin(Method::GET, "/api/v1/divergences?route=shop&limit=10", "")
        .await;
    let found = page.json();
    let mut places: Vec<_> = found["items"][0]["places"]
        .as_array()
        .unwrap()
        .iter()
        .map(|place| {
            (
                place["pointer"].clone(),
                place["kind"].clone(),
                place["severity"].clone(),
            )
        })
        .collect();
    places.sort_by_key(|place| place.0.to_string());
    let expected = [
        (json!("/customer/*"), json!("value"), json!("major")),
        (json!("/items/0"), json!("length"), json!("major")),
        (json!("/total"), json!("type"), json!("critical")),
    ];
    assert_eq!(places, expected);
    for secret in ["33639980123", "nna", "4200", "shopper-anna"] {
        assert!(!page.text().contains(secret), "{secret} leaks: {}", page.text());
    }
    assert!(found["items"][0]["subject"].as_str().unwrap().starts_with("h:"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn equal_answers_leave_nothing_behind() {
    let (_legacy, new, sidecar) = instance(Reply::json("{}"), Reply::json("{}"), "").await;
    for _ in 0..20 {
        get(sidecar.address, "/", &[("x-shopper-id", "anna")]).await;
    }
    new.wait_for(20).await;
    sidecar
        .wait_for_metric("understudy_compared_total", &["verdict=\"same\""], 20.0)
        .await;
    assert_eq!(sidecar.metric("divergence_count", &[]).await, 0.0);
    assert_eq!(
        sidecar.admin(Method::GET, "/api/v1/divergences", "").await.json()["items"],
        json!([])
    );
    assert_eq!(sidecar.captured(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_dual_run_errors_are_counted_and_nothing_is_compared() {
    let legacy = Backend::saying("legacy").await;
    let new = Backend::answering(|_| Reply::status(500)).await;
    let sidecar = Plan::new(&legacy, &new)
        .route("shadow: { flag: true, methods: [POST] }")
        .start();
    post(sidecar.address, "/", &[("x-shopper-id", "anna")], "{}").await;
    sidecar
        .wait_for_metric("canonical_publish_fail_count", &["route=\"shop\""], 1.0)
        .await;
    assert_eq!(sidecar.metric("understudy_compared_total", &[]).await, 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statuses_and_chosen_headers_count() {
    let legacy = Reply::json("{}").header("x-price", "1").header("x-trace", "a");
    let mut new = Reply::json("{}").header("x-price", "2").header("x-trace", "b");
    new.status = 404;
    let (_legacy, _new, sidecar) = instance(legacy, new, "compare: { headers: [x-price] }").await;
    post(sidecar.address, "/", &[("x-shopper-id", "anna")], "{}").await;
    sidecar
        .wait_for_metric("divergence_count", &["severity=\"critical\""], 1.0)
        .await;
    let found: Answered = sidecar.admin(Method::GET, "/api/v1/divergences", "").await;
    let places = found.json()["items"][0]["places"].as_array().unwrap().clone();
    let pointers: Vec<&str> = places.iter().map(|place| place["pointer"].as_str().unwrap()).collect();
    assert_eq!(pointers, ["@status", "@header.x-price"]);
}
