//! Freezes: nothing puts more shoppers on new, and everything that takes them off still works.

use http::Method;
use serde_json::{Value, json};

use crate::rest::{call, ok, problem, shop, side};
use crate::support::Sidecar;

const HALF: &str = "features:\n  NEW_SHOP: { type: percentage, percentage: 50, denylist: [bea] }\n";

async fn freeze(sidecar: &Sidecar, verb: &str, body: Value) -> Value {
    let answer = sidecar
        .admin(Method::POST, &format!("/api/v1/{verb}"), &body.to_string())
        .await;
    ok(&answer)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frozen_flag_is_lowered_denied_and_killed_but_never_raised() {
    for body in [
        json!({ "reason": "sale" }),
        json!({ "reason": "sale", "flag": "NEW_SHOP" }),
        json!({ "reason": "sale", "route": "shop" }),
    ] {
        let (sidecar, _backends) = shop(HALF).await;
        assert_eq!(freeze(&sidecar, "freeze", body.clone()).await["changed"], true);
        assert_eq!(freeze(&sidecar, "freeze", body.clone()).await["changed"], false);
        for raises in [
            json!({ "percentage": 51 }),
            json!({ "percentage": null, "type": "boolean", "enabled": true }),
            json!({ "denylist": [] }),
            json!({ "denylist": null }),
            json!({ "allowlist": ["zoe"] }),
            json!({ "cohort": "other" }),
            json!({ "beta_users": ["zoe"] }),
        ] {
            let refused = call(&sidecar, Method::PATCH, "/NEW_SHOP", raises.clone()).await;
            assert_eq!(problem(&refused), (409, "frozen".to_owned()), "{raises} under {body}");
        }
        for lowers in [
            json!({ "owner": "somebody" }),
            json!({ "percentage": 20 }),
            json!({ "denylist": ["bea", "zoe"] }),
            json!({ "allowlist": [] }),
        ] {
            let done = call(&sidecar, Method::PATCH, "/NEW_SHOP", lowers.clone()).await;
            assert_eq!(done.status, 200, "{lowers} under {body}: {}", done.text());
        }
        // Back would be up.
        let back = call(&sidecar, Method::POST, "/NEW_SHOP/rollback", Value::Null).await;
        assert_eq!(problem(&back), (409, "frozen".to_owned()));
        ok(&sidecar.kill("shop").await);
        assert_eq!(problem(&sidecar.rearm("shop").await), (409, "frozen".to_owned()));
        // A file that raises is refused like any other change; it is in force after the freeze.
        let problems = sidecar.reload(&HALF.replace("50", "60")).await;
        assert!(problems.is_ok(), "the runtime layer hides it: {problems:?}");

        let sidecar = sidecar.restart().await;
        let listed = sidecar.status().await["freezes"].clone();
        assert_eq!(
            (&listed[0]["reason"], &listed[0]["actor"]),
            (&json!("sale"), &json!("tester"))
        );
        let refused = call(&sidecar, Method::PATCH, "/NEW_SHOP", json!({ "allowlist": null })).await;
        assert_eq!(problem(&refused), (409, "frozen".to_owned()), "it survives a restart");
        freeze(&sidecar, "unfreeze", body.clone()).await;
        ok(&sidecar.rearm("shop").await);
        let all = json!({ "percentage": 100, "allowlist": null, "denylist": null });
        ok(&call(&sidecar, Method::PATCH, "/NEW_SHOP", all).await);
        assert_eq!(side(&sidecar, "bea").await, "new");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn file_that_raises_what_is_frozen_is_refused() {
    let (sidecar, _backends) = shop(HALF).await;
    freeze(&sidecar, "freeze", json!({ "reason": "sale", "flag": "NEW_SHOP" })).await;
    let problems = sidecar.reload(&HALF.replace("50", "60")).await.unwrap_err();
    assert!(
        problems[0].contains("NEW_SHOP") && problems[0].contains("frozen"),
        "{problems:?}"
    );
    sidecar.reload(&HALF.replace("50", "40")).await.unwrap();
    freeze(&sidecar, "unfreeze", json!({ "reason": "over", "flag": "NEW_SHOP" })).await;
    sidecar.reload(&HALF.replace("50", "60")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gradual_flag_stands_still_while_it_is_frozen() {
    // Rises by 100 points in a second and a half, from now on.
    let start = jiff::Timestamp::now();
    let end = start + jiff::SignedDuration::from_millis(4_000);
    let file = format!(
        "features:\n  NEW_SHOP: {{ type: gradual, enabled: true, start_date: \"{start}\", end_date: \"{end}\" }}\n"
    );
    let (sidecar, _backends) = shop(&file).await;
    freeze(&sidecar, "freeze", json!({ "reason": "sale" })).await;
    let share = async || {
        let flag = ok(&call(&sidecar, Method::GET, "/NEW_SHOP", Value::Null).await);
        flag["percentage"].as_f64().unwrap()
    };
    let frozen = share().await;
    assert!(frozen < 100.0, "{frozen}");
    crate::support::deadline("the end of the ramp", || jiff::Timestamp::now() > end).await;
    assert_eq!(share().await.to_bits(), frozen.to_bits());
    freeze(&sidecar, "unfreeze", json!({ "reason": "over" })).await;
    assert_eq!(share().await, 100.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s2_38_to_41_emergency_calls_work_under_their_names() {
    let (sidecar, _backends) = shop("features:\n  NEW_SHOP: { type: boolean, enabled: true }\n").await;
    ok(&call(&sidecar, Method::PATCH, "/NEW_SHOP", json!({ "percentage": 100 })).await);
    let post = |path: &'static str| sidecar.admin(Method::POST, path, r#"{"reason":"a test"}"#);
    assert_eq!(ok(&post("/flags/NEW_SHOP/kill").await)["in_force"], true);
    assert_eq!(side(&sidecar, "anna").await, "legacy");
    assert_eq!(ok(&post("/flags/NEW_SHOP/rollback").await)["changed"], true);
    assert_eq!(ok(&post("/experiments/freeze").await)["target"]["kind"], "all");
    assert_eq!(
        ok(&sidecar.admin(Method::GET, "/status", "").await)["freezes"][0]["reason"],
        "a test"
    );
    assert_eq!(
        problem(&post("/flags/NEW_SHOPP/kill").await),
        (404, "unknown_name".to_owned())
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s1_09_row_of_a_rollout_table_is_taken_and_c3_its_zero_is_read_by_what_stands_beside_it() {
    let (sidecar, _backends) = shop("features: {}\n").await;
    let update = async |row: Value| {
        let answer = sidecar
            .admin(Method::POST, "/api/internal/flags/update", &row.to_string())
            .await;
        ok(&answer)
    };
    let row = json!({ "name": "NEW_SHOP", "enabled": true, "shadow_mode": false, "allowlist": ["anna"], "percent_rollout": 0 });
    let answer = update(row).await;
    assert_eq!(answer["flag"]["runtime"]["percentage"], Value::Null);
    assert!(answer["warnings"].to_string().contains("percent_rollout"), "{answer}");
    assert_eq!(
        (&*side(&sidecar, "anna").await, &*side(&sidecar, "bob").await),
        ("new", "legacy")
    );
    let answer = update(json!({ "name": "NEW_SHOP", "allowlist": null, "percent_rollout": 0 })).await;
    assert_eq!(answer["flag"]["runtime"]["percentage"], 0);
    assert_eq!(side(&sidecar, "anna").await, "legacy");
    let unknown = json!({ "name": "NEW_SHOP", "colour": 1 }).to_string();
    let answer = sidecar
        .admin(Method::POST, "/api/internal/flags/update", &unknown)
        .await;
    assert_eq!(problem(&answer), (400, "bad_request".to_owned()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s2_33_dashboard_toggles_and_sets_the_percentage() {
    let (sidecar, _backends) = shop("features:\n  NEW_SHOP: { type: boolean, metadata: { team: a } }\n").await;
    let toggle = || sidecar.admin(Method::POST, "/api/features/NEW_SHOP/toggle", "");
    assert_eq!(ok(&toggle().await)["status"], "ENABLED");
    assert_eq!(side(&sidecar, "anna").await, "new");
    assert_eq!(ok(&toggle().await)["status"], "DISABLED");
    assert_eq!(side(&sidecar, "anna").await, "legacy");
    ok(&toggle().await);
    let patch = |body: Value| {
        let body = body.to_string();
        async { sidecar.admin(Method::PATCH, "/api/features/NEW_SHOP", &{ body }).await }
    };
    let flag = ok(&patch(json!({ "metadata": { "percentage": "25", "note": "x" } })).await);
    assert_eq!(flag["percentage"], 25.0);
    assert_eq!(flag["runtime"]["metadata"], json!({ "note": "x", "team": "a" }));
    let refused = patch(json!({ "metadata": { "percentage": "lots" } })).await;
    assert_eq!(problem(&refused), (422, "unfit".to_owned()));
}
