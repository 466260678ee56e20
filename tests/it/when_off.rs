//! What those get for whom a route's flag is off, where that is not legacy (S0-17, S0-18).

use http::Method;

use crate::support::{Backend, Plan, Sidecar, get, post, send};

const ON: &str = "features:\n  NEW_SHOP: { type: boolean, enabled: true, denylist: [bert] }\n";

const PROBLEM: &str = "flag: NEW_SHOP
when_off:
  status: 403
  headers: { content-type: application/problem+json, retry-after: 3600 }
  body: '{\"title\":\"not here yet\",\"status\":403}'";

async fn backends() -> (Backend, Backend) {
    (Backend::saying("legacy").await, Backend::saying("new").await)
}

async fn served(sidecar: &Sidecar, shopper: &str) -> String {
    get(sidecar.address, "/", &[("x-shopper-id", shopper)])
        .await
        .text()
        .to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s0_18_shopper_for_whom_the_flag_is_off_gets_the_reply_and_nobody_else_does() {
    let (legacy, new) = backends().await;
    let sidecar = Plan::new(&legacy, &new).route(PROBLEM).features(ON).start();
    assert_eq!(served(&sidecar, "anna").await, "new");
    let refused = get(sidecar.address, "/", &[("x-shopper-id", "bert")]).await;
    assert_eq!(refused.status, 403);
    assert_eq!(refused.text(), "{\"title\":\"not here yet\",\"status\":403}");
    assert_eq!(refused.header("content-type"), "application/problem+json");
    assert_eq!(refused.header("retry-after"), "3600");
    assert_eq!(refused.header("x-understudy-error"), "when_off");
    assert_eq!((legacy.count(), new.count()), (0, 1));
    let made = &["route=\"shop\"", "reason=\"when_off\""];
    assert_eq!(sidecar.metric("understudy_answers_made_total", made).await, 1.0);
    assert_eq!(
        sidecar.metric("routing_assignments_count", &["route=\"shop\""]).await,
        1.0
    );
    let denied = &["route=\"shop\"", "reason=\"denylist\""];
    assert_eq!(sidecar.metric("understudy_decisions_total", denied).await, 1.0);
    // Whoever nobody knows, and whatever is in doubt, is legacy's.
    assert_eq!(get(sidecar.address, "/", &[]).await.text(), "legacy");
    // A body that is on its way is not waited for, and the connection serves on.
    let upload = post(sidecar.address, "/", &[("x-shopper-id", "bert")], "x".repeat(100_000)).await;
    assert_eq!(upload.status, 403);
    assert_eq!(legacy.count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_still_means_legacy() {
    let (legacy, new) = backends().await;
    let sidecar = Plan::new(&legacy, &new).route(PROBLEM).features(ON).start();
    assert_eq!(get(sidecar.address, "/", &[("x-shopper-id", "bert")]).await.status, 403);
    for (path, again) in [
        ("/api/v1/routes/shop/kill", "/api/v1/routes/shop/rearm"),
        (
            "/api/v1/feature-flags/NEW_SHOP/kill",
            "/api/v1/feature-flags/NEW_SHOP/rearm",
        ),
        ("/api/v1/kill", "/api/v1/rearm"),
    ] {
        let reason = r#"{"reason":"a test"}"#;
        assert_eq!(sidecar.admin(Method::POST, path, reason).await.status, 200);
        assert_eq!(served(&sidecar, "anna").await, "legacy", "{path}");
        assert_eq!(served(&sidecar, "bert").await, "legacy", "{path}");
        assert_eq!(sidecar.admin(Method::POST, again, reason).await.status, 200);
        assert_eq!(served(&sidecar, "anna").await, "new", "{path}");
        assert_eq!(get(sidecar.address, "/", &[("x-shopper-id", "bert")]).await.status, 403);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s0_17_neutral_reply_has_the_body_and_length_that_its_status_allows() {
    let (legacy, new) = backends().await;
    let route = |when_off: &str| format!("flag: false\nwithout_identity: follow\nshadow: true\nwhen_off: {when_off}");
    let empty = Plan::new(&legacy, &new).route(&route("{ status: 204 }")).start();
    let answer = get(empty.address, "/", &[]).await;
    assert_eq!((answer.status, answer.text()), (204, ""));
    assert_eq!(answer.header("x-understudy-error"), "when_off");
    let skipped = &["side=\"new\"", "reason=\"when_off\""];
    assert_eq!(empty.metric("understudy_copies_skipped_total", skipped).await, 1.0);
    let json = Plan::new(&legacy, &new)
        .route(&route("{ status: 200, body: '{\"items\":[]}' }"))
        .start();
    let answer = get(json.address, "/", &[]).await;
    assert_eq!((answer.status, answer.text()), (200, "{\"items\":[]}"));
    assert_eq!(answer.header("content-type"), "application/json");
    let head = send(json.address, Method::HEAD, "/", &[], "").await;
    assert_eq!((head.status, head.text()), (200, ""));
    assert_eq!(head.header("content-length"), "12");
    let text = Plan::new(&legacy, &new)
        .route(&route("{ status: 404, body: '{ not json' }"))
        .start();
    assert_eq!(
        get(text.address, "/", &[]).await.header("content-type"),
        "text/plain; charset=utf-8"
    );
    assert_eq!((legacy.count(), new.count()), (0, 0));
}
