//! How often flags are asked: counted by requests, told by the API, there after a restart.

use http::Method;
use serde_json::Value;

use crate::support::{Backend, Plan, Sidecar, get};

const HALF: &str =
    "features:\n  NEW_SHOP: { type: percentage, enabled: true, percentage: 50 }\n  UNUSED: { type: boolean }\n";

async fn start(features: &str) -> (Sidecar, [Backend; 2]) {
    let (legacy, new) = (Backend::saying("legacy").await, Backend::saying("new").await);
    let sidecar = Plan::new(&legacy, &new)
        .route("flag: NEW_SHOP\n")
        .features(features)
        .start();
    (sidecar, [legacy, new])
}

async fn analytics(sidecar: &Sidecar, flag: &str, query: &str) -> Value {
    let path = format!("/api/v1/feature-flags/{flag}/analytics{query}");
    let answer = sidecar.admin(Method::GET, &path, "").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c17_s0_16_s4_19_evaluations_are_counted_told_and_there_after_a_restart() {
    let (sidecar, _backends) = start(HALF).await;
    let mut on = 0;
    for user in 0..60 {
        let shopper = format!("user_{user}");
        let answer = get(sidecar.address, "/", &[("x-shopper-id", &shopper)]).await;
        on += u64::from(answer.text() == "new");
    }
    assert!((10..50).contains(&on), "{on} of 60 are on at 50 %");
    let told = analytics(&sidecar, "NEW_SHOP", "?hours=2").await;
    assert_eq!(told["total_evaluations"], 60, "{told}");
    assert_eq!(told["total_checks"], 60, "{told}");
    assert_eq!(
        (&told["enabled_count"], &told["disabled_count"]),
        (&on.into(), &(60 - on).into())
    );
    #[allow(clippy::cast_precision_loss, reason = "below 60")]
    let rate = on as f64 / 60.0;
    assert_eq!(told["exposure_rate"], rate, "{told}");
    assert!(
        told.get("conversion_rate").is_none(),
        "C17: nobody knows of conversions"
    );
    assert_eq!(told["distribution"]["expected_percent"], 50.0, "{told}");
    assert_eq!(told["distribution"]["decided"], 60, "{told}");
    let observed = told["distribution"]["observed_percent"].as_f64().unwrap();
    assert!((observed - rate * 100.0).abs() < 1e-9, "{told}");
    let hours = told["hours"].as_array().unwrap();
    assert!(matches!(hours.len(), 1 | 2), "{told}");
    let since = told["counted_since"].clone();

    let sidecar = sidecar.restart().await;
    get(sidecar.address, "/", &[("x-shopper-id", "user_1")]).await;
    let told = analytics(&sidecar, "NEW_SHOP", "?days=7").await;
    assert_eq!(told["total_evaluations"], 61, "{told}");
    assert_eq!(told["counted_since"], since, "{told}");

    let unused = analytics(&sidecar, "UNUSED", "").await;
    assert_eq!(
        (&unused["total_checks"], &unused["last_seen"]),
        (&0.into(), &Value::Null),
        "{unused}"
    );
    assert_eq!(unused["exposure_rate"], Value::Null, "{unused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s4_07_questions_that_make_no_sense_are_problems() {
    let (sidecar, _backends) = start(HALF).await;
    let asked = async |path: &str| {
        let answer = sidecar.admin(Method::GET, path, "").await;
        (answer.status, answer.json())
    };
    let (status, problem) = asked("/api/v1/feature-flags/NEW_SHIP/analytics").await;
    assert_eq!((status, &problem["near"][0]), (404, &"NEW_SHOP".into()), "{problem}");
    for query in ["hours=0", "days=32", "hours=1&days=1", "from=yesterday", "hour=1"] {
        let (status, problem) = asked(&format!("/api/v1/feature-flags/NEW_SHOP/stats?{query}")).await;
        assert_eq!(status, 400, "{query}: {problem}");
    }
    let answer = sidecar.open("/api/v1/feature-flags/NEW_SHOP/analytics").await;
    assert_eq!(answer.status, 401, "numbers are for those who may read");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statistics_that_cannot_be_read_cost_nothing_but_themselves() {
    let (sidecar, _backends) = start(HALF).await;
    let file = sidecar.folder.path().join("understudy.db.stats");
    let damaged = file.clone();
    let damage = move || {
        for end in ["", "-wal", "-shm"] {
            let _ = std::fs::remove_file(format!("{}{end}", damaged.display()));
        }
        std::fs::write(&damaged, "somebody wrote over it").unwrap();
    };
    let sidecar = sidecar.restart_after(damage).await;
    let answer = get(sidecar.address, "/", &[("x-shopper-id", "user_1")]).await;
    assert_eq!(answer.status, 200);
    assert_eq!(sidecar.readiness().await["status"], "ready");
    assert_eq!(analytics(&sidecar, "NEW_SHOP", "").await["total_checks"], 1);
    assert_eq!(std::fs::read_to_string(file).unwrap(), "somebody wrote over it");
}
