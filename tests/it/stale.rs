//! Flags that have served their time: in the log, the metrics, the status and the API.

use http::Method;
use serde_json::json;
use understudy::engine::stats::usage::{Counts, Seen};
use understudy::store::Statistics;

use crate::support::{Backend, Instance, Plan, Sidecar};

const FEATURES: &str = "features:
  ALWAYS_OFF: { type: boolean, enabled: false, owner: team-shop }
  ALWAYS_ON: { type: boolean, enabled: true }
  BOTH: { type: percentage, percentage: 50 }
  OVER: { type: boolean, enabled: true, kind: operational, expected_end: \"2026-01-31\" }
  UNUSED: { type: boolean }
  YOUNG: { type: boolean }
";

const DAY: i64 = 86_400_000;

/// The folder of an instance that has counted for 40 days.
fn folder_after_40_days(plan: &Plan) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    plan.write(folder.path());
    let now = understudy::telemetry::clock::unix_ms();
    let seen = |first: Option<i64>, off: Option<i64>, on: Option<i64>| Seen {
        known_since_ms: now - 40 * DAY,
        first_ms: first.map(|days| now - days * DAY),
        last_off_ms: off.map(|days| now - days * DAY),
        last_on_ms: on.map(|days| now - days * DAY),
    };
    let flags = [
        ("ALWAYS_OFF", seen(Some(40), Some(0), None)),
        ("ALWAYS_ON", seen(Some(40), Some(35), Some(0))),
        ("BOTH", seen(Some(40), Some(0), Some(1))),
        ("OVER", seen(Some(40), None, Some(0))),
        ("UNUSED", seen(None, None, None)),
    ];
    let statistics = Statistics::open(&folder.path().join("understudy.db")).unwrap();
    let hours: [(&str, u32, Counts); 0] = [];
    statistics.keep_usage(hours.into_iter(), flags.into_iter(), 0).unwrap();
    folder
}

async fn plan() -> (Plan, [Backend; 2]) {
    let (legacy, new) = (Backend::saying("legacy").await, Backend::saying("new").await);
    let plan = Plan::new(&legacy, &new).route("flag: BOTH\n").features(FEATURES);
    (plan, [legacy, new])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s4_24_stale_flags_are_listed_with_reason_owner_and_remedy() {
    let (plan, _backends) = plan().await;
    let folder = folder_after_40_days(&plan);
    let sidecar = Sidecar::start_in(folder, plan.env.clone());
    let listed = async |query: &str| {
        let path = format!("/api/v1/feature-flags/stale{query}");
        let answer = sidecar.admin(Method::GET, &path, "").await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    };
    let words = |listed: &serde_json::Value| -> Vec<String> {
        let items = listed["items"].as_array().unwrap();
        let word = |item: &serde_json::Value| {
            format!(
                "{} {}",
                item["flag"].as_str().unwrap(),
                item["reason"].as_str().unwrap()
            )
        };
        items.iter().map(word).collect()
    };
    let all = listed("").await;
    assert_eq!(
        words(&all),
        [
            "ALWAYS_OFF always_off",
            "ALWAYS_ON always_on",
            "OVER past_end",
            "UNUSED unused"
        ],
        "{all}"
    );
    assert_eq!((&all["after_days"], &all["next"]), (&json!(30), &json!(null)), "{all}");
    assert_eq!(all["items"][0]["owner"], "team-shop", "{all}");
    assert_eq!(
        words(&listed("?days=39").await),
        ["ALWAYS_OFF always_off", "OVER past_end", "UNUSED unused"]
    );
    assert_eq!(words(&listed("?days=41").await), ["OVER past_end"]);
    let first = listed("?limit=1").await;
    assert_eq!(
        (words(&first), &first["next"]),
        (vec!["ALWAYS_OFF always_off".to_owned()], &json!("ALWAYS_OFF"))
    );
    assert_eq!(
        words(&listed("?limit=1&after=ALWAYS_OFF").await),
        ["ALWAYS_ON always_on"]
    );
    for (reason, count) in [
        ("always_off", 1.0),
        ("always_on", 1.0),
        ("past_end", 1.0),
        ("unused", 1.0),
    ] {
        sidecar
            .wait_for_metric("understudy_flags_stale", &[reason], count)
            .await;
    }
    let status = sidecar.status().await;
    assert_eq!(
        status["stale_flags"],
        json!({"always_off": 1, "always_on": 1, "past_end": 1, "unused": 1})
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s0_22_log_says_which_flags_never_change_and_what_to_do() {
    let (plan, _backends) = plan().await;
    let instance = Instance::start_in(folder_after_40_days(&plan), &[]).await;
    for message in [
        "Flag 'ALWAYS_OFF' sempre desabilitada por 30 dias",
        "Considere remover a flag 'ALWAYS_OFF' ou verificar a sua configuração",
        "Flag 'ALWAYS_ON' sempre habilitada por 30 dias",
    ] {
        instance.wait_for_log(message, |line| line["message"] == message).await;
    }
    let said = |flag: &str| instance.logs().iter().any(|line| line["flag_name"] == flag);
    assert!(said("UNUSED") && said("OVER"), "{}", instance.stderr());
    assert!(!said("BOTH") && !said("YOUNG"), "{}", instance.stderr());
    instance.stop().await;
}
