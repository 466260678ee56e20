//! What a change would do: said before it is made, and then done exactly so.

use http::Method;
use serde_json::{Value, json};

use crate::support::{Backend, Plan, Sidecar, get};

const FEATURES: &str = "features:\n  NEW_SHOP: { type: percentage, percentage: 20, denylist: [user_3] }\n";

async fn change(sidecar: &Sidecar, query: &str, body: &Value) -> Value {
    let path = format!("/api/v1/feature-flags/NEW_SHOP{query}");
    let answer = sidecar.admin(Method::PATCH, &path, &body.to_string()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

/// Whom new serves, of 80 subjects.
async fn served_by_new(sidecar: &Sidecar) -> Vec<bool> {
    let mut served = Vec::new();
    for user in 0..80 {
        let shopper = format!("user_{user}");
        let answer = get(sidecar.address, "/", &[("x-shopper-id", &shopper)]).await;
        served.push(answer.text() == "new");
    }
    served
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_dry_run_predicts_is_what_the_change_then_does() {
    let (legacy, new) = (Backend::saying("legacy").await, Backend::saying("new").await);
    let sidecar = Plan::new(&legacy, &new)
        .route("flag: NEW_SHOP\n")
        .features(FEATURES)
        .start();
    let before = served_by_new(&sidecar).await;
    for wish in [
        json!({"percentage": 60}),
        json!({"percentage": 5}),
        json!({"allowlist": ["user_1", "user_2", "user_3"]}),
        json!({"allowlist": []}),
        json!({"allowlist": null, "percentage": 100}),
    ] {
        let told = change(&sidecar, "?dry_run=true", &wish).await;
        assert_eq!(
            (&told["dry_run"], &told["changed"]),
            (&json!(true), &json!(true)),
            "{told}"
        );
        let what_if = &told["what_if"];
        let route = &what_if["routes"][0];
        assert_eq!(
            (&route["route"], &route["subjects"]),
            (&json!("shop"), &json!(80)),
            "{told}"
        );
        assert!(
            !what_if.to_string().contains("user_"),
            "no subject leaves as it is: {told}"
        );

        // Whatever was sent so far is kept, in whole rounds: shares over all rounds are those of one.
        let was = served_by_new(&sidecar).await;
        let told = change(&sidecar, "?dry_run=true", &wish).await;
        let route = &told["what_if"]["routes"][0];
        change(&sidecar, "", &wish).await;
        let is = served_by_new(&sidecar).await;
        let moved = |from: bool| was.iter().zip(&is).filter(|(a, b)| **a == from && **b != from).count();
        assert_eq!(route["to_new"]["subjects"], moved(false), "{wish}: {told}");
        assert_eq!(route["to_legacy"]["subjects"], moved(true), "{wish}: {told}");
        #[allow(clippy::cast_precision_loss, reason = "80 subjects")]
        let share = |served: &[bool]| served.iter().filter(|new| **new).count() as f64 * 100.0 / 80.0;
        let percent = &route["served_by_new_percent"];
        assert_eq!(
            (&percent["before"], &percent["after"]),
            (&json!(share(&was)), &json!(share(&is))),
            "{wish}: {told}"
        );
        assert_eq!(route["load_on_new_percent"], *percent, "nothing is copied: {told}");
    }
    assert_ne!(before, served_by_new(&sidecar).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn traps_and_what_hides_a_change_are_told_before_it_is_made() {
    let (legacy, new) = (Backend::saying("legacy").await, Backend::saying("new").await);
    let features = "features:\n  NEW_SHOP: { type: boolean, enabled: true, allowlist: [user_1] }\n";
    let sidecar = Plan::new(&legacy, &new)
        .route("flag: NEW_SHOP\n")
        .features(features)
        .start();
    served_by_new(&sidecar).await;
    let told = change(&sidecar, "?dry_run=true", &json!({"allowlist": []})).await;
    assert!(
        told["what_if"]["traps"][0].as_str().unwrap().contains("full stop"),
        "{told}"
    );
    assert_eq!(told["what_if"]["routes"][0]["to_legacy"]["subjects"], 1, "{told}");
    let told = change(&sidecar, "?dry_run=true", &json!({"allowlist": null})).await;
    assert!(
        told["what_if"]["traps"][0].as_str().unwrap().contains("everybody"),
        "{told}"
    );
    assert_eq!(told["what_if"]["routes"][0]["to_new"]["subjects"], 79, "{told}");
    let told = change(&sidecar, "?dry_run=true", &json!({"percentage": 50})).await;
    assert!(told["warnings"].to_string().contains("allowlist"), "{told}");
    assert_eq!(told["what_if"]["routes"][0]["to_new"]["subjects"], 0, "{told}");
    sidecar.kill("shop").await;
    let told = change(&sidecar, "?dry_run=true", &json!({"allowlist": null})).await;
    assert_eq!(
        told["what_if"]["routes"][0]["to_new"]["subjects"], 0,
        "a kill is stronger: {told}"
    );
    assert!(told["warnings"].to_string().contains("killed"), "{told}");
}
