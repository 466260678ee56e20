//! What an operator sees: health, readiness, metrics, log lines; and what nobody may see.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use understudy::telemetry::names;

use crate::support::{
    Backend, Case, Client, Instance, Plan, Received, Reply, deadline, eventually, get, post, request, understudy,
};

const LIVE: &str = "flag: NEW_SHOP\n";
const ON: &str = "features:\n  NEW_SHOP: { type: boolean, enabled: true }\n";

const WHATSAPP: &str = r#"
  - name: whatsapp
    match: { path: /webhooks/whatsapp, methods: [GET, POST] }
    identity:
      - all:
          - { json: ["/entry/*/changes/*/value/messages/*/from", "/entry/*/changes/*/value/messages/*/from_user_id"], normalise: digits }
          - { json: /entry/*/changes/*/value/statuses/*/recipient_id, normalise: digits }
    flag: EVENTS
    shadow_mode: SHADOW_MODE
    shadow: { flag: false, methods: [POST] }
    dual_run: DUAL_RUN
"#;

async fn backends() -> (Backend, Backend) {
    (Backend::saying("legacy").await, Backend::saying("new").await)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_is_open_and_readiness_names_what_is_wrong() {
    let (legacy, new) = backends().await;
    let sidecar = Plan::new(&legacy, &new).route(LIVE).features(ON).start();
    let open = |path: &'static str| sidecar.open(path);
    let health = open("/healthz").await;
    assert_eq!((health.status, health.text()), (200, "ok\n"));
    let ready = open("/readyz").await;
    assert_eq!(
        (ready.status, ready.json()),
        (200, json!({ "status": "ready", "reasons": [] }))
    );
    assert!(sidecar.reload("features: [").await.is_err());
    let degraded = open("/readyz").await;
    assert_eq!((degraded.status, &degraded.json()["status"]), (200, &json!("degraded")));
    let reason = degraded.json()["reasons"][0].clone();
    assert_eq!(reason["name"], "rules_refused");
    assert!(
        reason["remedy"].as_str().unwrap().contains("understudy check"),
        "{reason}"
    );
    sidecar.reload(ON).await.unwrap();
    assert_eq!(open("/readyz").await.json()["status"], "ready");
    // All else is not open.
    assert_eq!(open("/api/v1/status").await.status, 401);
    assert_eq!(open("/api/v1/divergences").await.status, 401);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_it_drains_it_is_not_ready_and_can_still_be_killed() {
    let legacy = Backend::answering(|_| Reply::text("legacy").after(Duration::from_secs(2))).await;
    let new = Backend::saying("new").await;
    let mut instance = Instance::start(&Plan::new(&legacy, &new).route("flag: false")).await;
    let address = instance.address;
    let under_way = tokio::spawn(async move { get(address, "/", &[("x-shopper-id", "anna")]).await });
    legacy.wait_for(1).await;
    instance.signal("TERM");
    instance
        .wait_for_log("draining", |line| line["message"] == "draining")
        .await;
    let ready = instance.open("/readyz").await;
    assert_eq!(
        (ready.status, &ready.json()["reasons"][0]["name"]),
        (503, &json!("draining"))
    );
    let killed = instance.kill("shop").await;
    assert_eq!((killed.status, &killed.json()["stored"]), (200, &json!(true)));
    assert_eq!(under_way.await.unwrap().text(), "legacy");
    assert_eq!(instance.ended().await.code(), Some(0));
}

/// The page taken apart, and every rule of the format checked on the way: name to kind, and the samples.
fn taken_apart(page: &str) -> (BTreeMap<String, String>, Vec<(String, String)>) {
    let (mut kinds, mut helped) = (BTreeMap::new(), BTreeSet::new());
    let mut samples = Vec::new();
    let mut series = BTreeSet::new();
    let mut family = String::new();
    for line in page.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap_or_else(|| panic!("{line}"));
            assert!(helped.insert(name.to_owned()), "{name} is explained twice");
            assert!(!help.is_empty(), "{line}");
            continue;
        }
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap_or_else(|| panic!("{line}"));
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert!(
                kinds.insert(name.to_owned(), kind.to_owned()).is_none(),
                "{name} is declared twice"
            );
            family = name.to_owned();
            continue;
        }
        if line.is_empty() {
            continue;
        }
        let (series_name, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line}"));
        assert!(value == "+Inf" || value.parse::<f64>().is_ok(), "{line}");
        assert!(
            series.insert(series_name.to_owned()),
            "{series_name} stands there twice"
        );
        let (name, labels) = series_name.split_once('{').map_or((series_name, ""), |(name, rest)| {
            (name, rest.strip_suffix('}').unwrap_or_else(|| panic!("{line}")))
        });
        for label in labels.split("\",").filter(|label| !label.is_empty()) {
            let (key, value) = label.split_once("=\"").unwrap_or_else(|| panic!("{line}"));
            assert!(
                key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'),
                "{line}"
            );
            assert!(!value.contains('\n'), "{line}");
        }
        let base = ["_bucket", "_sum", "_count"]
            .iter()
            .find_map(|end| name.strip_suffix(end))
            .unwrap_or(name);
        let of_family =
            name == family || (kinds.get(&family).is_some_and(|kind| kind == "histogram") && base == family);
        assert!(of_family, "{line} stands under {family}");
        samples.push((name.to_owned(), labels.to_owned()));
    }
    assert_eq!(kinds.keys().cloned().collect::<BTreeSet<_>>(), helped);
    (kinds, samples)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_metrics_page_is_well_formed_and_holds_only_names_that_are_written_down() {
    let legacy = Backend::answering(|_| Reply::json(r#"{"a":1}"#)).await;
    let mut new = Backend::answering(|_| Reply::json(r#"{"a":2}"#)).await;
    let features = "features:\n  NEW_SHOP: { type: boolean, enabled: true, denylist: [\"a\\\"b\"] }\n";
    let route =
        "flag: NEW_SHOP\nshadow: { flag: true, methods: [GET, POST] }\ndual_run: true\ncompare: { ignore: [/b] }";
    let sidecar = Plan::new(&legacy, &new)
        .legacy_more("copies: dry_run")
        .route(route)
        .features(features)
        .start();
    let mut client = Client::connect(sidecar.address).await;
    for at in 0..30 {
        let shopper = format!("user_{at}");
        client
            .send(request(
                Method::GET,
                "/secret-path?q=1",
                &[("x-shopper-id", &shopper)],
                "",
            ))
            .await;
    }
    client.send(request(Method::GET, "/", &[], "")).await;
    sidecar.wait_for_metric("divergence_count", &[], 30.0).await;
    assert_eq!(sidecar.kill("shop").await.status, 200);
    assert_eq!(sidecar.rearm("shop").await.status, 200);
    assert!(sidecar.reload("features: [").await.is_err());
    sidecar.reload(ON).await.unwrap();
    new.go_away().await;
    get(sidecar.address, "/", &[("x-shopper-id", "anna")]).await;
    assert_eq!(sidecar.kill("shop").await.status, 200);

    let page = sidecar.metrics().await;
    let (kinds, samples) = taken_apart(&page);
    let known: BTreeMap<&str, &str> = names::ALL.iter().map(|(name, kind, _)| (*name, *kind)).collect();
    for (name, kind) in &kinds {
        assert_eq!(known.get(&**name), Some(&&**kind), "{name}");
    }
    // What was promised elsewhere is there under its name.
    for promised in [
        "canonical_events_published_count",
        "canonical_publish_fail_count",
        "routing_assignments_count",
        "divergence_count",
        "latency_ms",
        "feature_flag_evaluations_total",
        "feature_flag_evaluation_duration_seconds",
        "feature_flag_errors_total",
        "feature_kill_switches_activated_total",
    ] {
        assert!(kinds.contains_key(promised), "{promised}");
    }
    let of_route = [
        "canonical_events_published_count",
        "canonical_publish_fail_count",
        "routing_assignments_count",
        "divergence_count",
        "latency_ms_bucket",
    ];
    for (name, labels) in &samples {
        assert!(
            !of_route.contains(&&**name) || labels.contains("route=\""),
            "{name}{{{labels}}}"
        );
    }
    for (name, label) in [
        ("routing_assignments_count", "side=\"new\""),
        ("divergence_count", "severity=\"major\""),
        ("latency_ms_bucket", "side=\"legacy\""),
    ] {
        assert!(
            samples
                .iter()
                .any(|(known, labels)| known == name && labels.contains(label)),
            "{name} {label}"
        );
    }
    // Buckets begin at 0.1 ms and double.
    let bounds: Vec<f64> = samples
        .iter()
        .filter(|(name, _)| name == "feature_flag_evaluation_duration_seconds_bucket")
        .filter_map(|(_, labels)| labels.strip_prefix("le=\"").unwrap().trim_end_matches('"').parse().ok())
        .filter(|bound: &f64| bound.is_finite())
        .collect();
    assert_eq!(bounds.len(), 10);
    assert!(
        bounds.windows(2).all(|pair| (pair[1] / pair[0] - 2.0).abs() < 1e-9) && (bounds[0] - 0.0001).abs() < 1e-12,
        "{bounds:?}"
    );
    // Nothing that a client chooses becomes a label.
    for chosen in ["user_", "secret-path", "shop.example", "anna"] {
        assert!(!page.contains(chosen), "{chosen}");
    }
}

/// Every line of the decision log about a flag.
fn checks(instance: &Instance) -> Vec<Value> {
    instance
        .logs()
        .into_iter()
        .filter(|line| line["event"] == "feature_flag_check")
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_decision_line_is_the_promised_one() {
    let (legacy, new) = backends().await;
    let features = "features:\n  EVENTS: { type: boolean, enabled: true, allowlist: [\"33639980123\"] }\n  SHADOW_MODE: { type: boolean, enabled: true }\n  DUAL_RUN: { type: boolean, enabled: true }\n";
    let plan = Plan::new(&legacy, &new)
        .routes(WHATSAPP)
        .features(features)
        .more("logs: { decisions: 100% }");
    let instance = Instance::start(&plan).await;
    Case::load("wa-text").send(instance.address).await;
    Case::load("wa-image").send(instance.address).await;
    deadline("three lines for one and two for the other", || {
        checks(&instance).len() >= 5
    })
    .await;
    let lines = checks(&instance);
    let of = |flag: &str, enabled: bool| {
        let found = lines
            .iter()
            .find(|line| line["flag_name"] == flag && line["enabled"] == enabled);
        found.unwrap_or_else(|| panic!("{flag} {enabled}: {lines:#?}")).clone()
    };
    let listed = of("EVENTS", true);
    assert_eq!(
        (&listed["reason"], &listed["tags"]),
        (&json!("allowlist"), &json!("FEATURE_FLAG CANONICAL_EVENT"))
    );
    let other = of("EVENTS", false);
    assert_eq!(
        (&other["reason"], &other["tags"]),
        (&json!("not_allowlisted"), &json!("FEATURE_FLAG"))
    );
    assert_eq!(of("DUAL_RUN", true)["tags"], "FEATURE_FLAG CANONICAL_EVENT DUAL_RUN");
    for line in &lines {
        let members: BTreeSet<&str> = line.as_object().unwrap().keys().map(String::as_str).collect();
        for member in ["event", "flag_name", "enabled", "shopper_id", "reason", "timestamp"] {
            assert!(members.contains(member), "{member}: {line}");
        }
        let at = line["timestamp"].as_str().unwrap();
        let parsed: jiff::Timestamp = at.parse().unwrap();
        assert!(
            at.ends_with('Z') && (jiff::Timestamp::now().as_second() - parsed.as_second()).abs() < 60,
            "{at}"
        );
        let shopper = line["shopper_id"].as_str().unwrap();
        let digits = shopper.strip_prefix("h:").unwrap_or_else(|| panic!("{shopper}"));
        assert!(
            digits.len() == 16 && digits.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)),
            "{shopper}"
        );
        assert_eq!(
            (&line["target"], &line["level"], &line["route"]),
            (&json!("understudy::decisions"), &json!("INFO"), &json!("whatsapp"))
        );
    }
    // The hash to grep for.
    let config = instance.folder().join("understudy.yaml").display().to_string();
    let told = understudy(&["explain", "--config", &config, "--subject", "33639980123"], &[]).await;
    assert!(
        told.code == 0 && told.stdout.contains(listed["shopper_id"].as_str().unwrap()),
        "{told:?} {listed}"
    );
    // It is the same after a restart, or nobody could follow a shopper.
    let instance = Instance::start_in(instance.stop().await, &[]).await;
    Case::load("wa-text").send(instance.address).await;
    deadline("the line after the restart", || !checks(&instance).is_empty()).await;
    assert_eq!(checks(&instance)[0]["shopper_id"], listed["shopper_id"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn subjects_are_in_clear_only_where_that_is_asked_for() {
    let (legacy, new) = backends().await;
    let plan = Plan::new(&legacy, &new)
        .route(LIVE)
        .features(ON)
        .more("logs: { subject: clear, decisions: 100% }");
    let instance = Instance::start(&plan).await;
    get(instance.address, "/", &[("x-shopper-id", "anna")]).await;
    get(instance.address, "/", &[]).await;
    deadline("two lines", || checks(&instance).len() == 2).await;
    let lines = checks(&instance);
    assert_eq!(lines[0]["shopper_id"], "anna");
    assert_eq!(
        (&lines[1]["reason"], &lines[1]["shopper_id"]),
        (&json!("identity_unknown"), &Value::Null)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shoppers_story_is_logged_whole_or_not_at_all() {
    let (legacy, new) = backends().await;
    let plan = Plan::new(&legacy, &new)
        .route(LIVE)
        .features(ON)
        .more("logs: { subject: clear, decisions: 30% }");
    let instance = Instance::start(&plan).await;
    let mut client = Client::connect(instance.address).await;
    for _ in 0..3 {
        for at in 0..200 {
            let shopper = format!("user_{at}");
            client
                .send(request(Method::GET, "/", &[("x-shopper-id", &shopper)], ""))
                .await;
        }
    }
    // Kills are never sampled, and tell that everything before them has been written.
    assert_eq!(instance.kill("shop").await.status, 200);
    instance
        .wait_for_log("the kill", |line| line["message"] == "killed")
        .await;
    let mut stories: BTreeMap<String, usize> = BTreeMap::new();
    for line in checks(&instance) {
        *stories
            .entry(line["shopper_id"].as_str().unwrap().to_owned())
            .or_default() += 1;
    }
    assert!((25..=100).contains(&stories.len()), "{} of 200 at 30 %", stories.len());
    assert!(stories.values().all(|lines| *lines == 3), "{stories:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_decision_lines_kills_and_changes_are_logged_all_the_same() {
    let (legacy, new) = backends().await;
    let plan = Plan::new(&legacy, &new)
        .route(LIVE)
        .features(ON)
        .more("logs: { decisions: 0% }");
    let instance = Instance::start(&plan).await;
    for _ in 0..100 {
        get(instance.address, "/", &[("x-shopper-id", "anna")]).await;
    }
    assert_eq!(instance.kill("shop").await.status, 200);
    let killed = instance
        .wait_for_log("the kill", |line| line["message"] == "killed")
        .await;
    assert_eq!(
        (&killed["actor"], &killed["reason"], &killed["level"]),
        (&json!("tester"), &json!("a test"), &json!("ERROR"))
    );
    assert_eq!(instance.rearm("shop").await.status, 200);
    instance
        .wait_for_log("the re-arm", |line| line["message"] == "re-armed")
        .await;
    std::fs::write(instance.folder().join("features.yaml"), "features: {}\n").unwrap();
    instance
        .wait_for_log("the reload", |line| line["message"] == "new rules serve")
        .await;
    assert_eq!(checks(&instance), Vec::<Value>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_number_and_no_name_of_a_shopper_is_seen_anywhere() {
    // Both answers repeat what they were told, and differ in it: as bad as it gets.
    let echo = |more: &'static str| {
        move |received: &Received| {
            let text = String::from_utf8_lossy(&received.body).into_owned();
            let numbers: Vec<&str> = text
                .split(|c: char| !c.is_ascii_digit())
                .filter(|digits| digits.len() > 9)
                .collect();
            let members: serde_json::Map<String, Value> = numbers
                .iter()
                .map(|n| ((*n).to_owned(), json!(format!("{n}{more}"))))
                .collect();
            Reply::json(json!({ "to": numbers, "by": members, "more": more }).to_string()).header("x-for", more)
        }
    };
    let legacy = Backend::answering(echo("")).await;
    let new = Backend::answering(echo("!")).await;
    let features = "features:\n  EVENTS: { type: boolean, enabled: true, denylist: [\"447700900999\"] }\n  SHADOW_MODE: { type: boolean, enabled: true }\n  DUAL_RUN: { type: boolean, enabled: true }\n";
    let plan = Plan::new(&legacy, &new)
        .routes(WHATSAPP)
        .features(features)
        .more("logs: { decisions: 100% }");
    let instance = Instance::start(&plan).await;
    let cases: Vec<Case> = Case::all()
        .into_iter()
        .filter(|case| case.sender == "meta-whatsapp")
        .collect();
    for case in &cases {
        case.send(instance.address).await;
    }
    post(
        instance.address,
        "/webhooks/whatsapp/33639980123?from=33639980123",
        &[("x-shopper-id", "33639980123")],
        "33639980123",
    )
    .await;
    let named: f64 = cases.iter().filter(|case| !case.identities.is_empty()).count() as f64;
    instance
        .wait_for_metric("understudy_compared_total", &["verdict=\"diverged\""], named)
        .await;
    assert_eq!(instance.kill("whatsapp").await.status, 200);
    Case::load("wa-text").send(instance.address).await;
    instance
        .wait_for_log("the kill", |line| line["message"] == "killed")
        .await;
    eventually("the decision after the kill", || async {
        checks(&instance).iter().any(|line| line["reason"] == "killed")
    })
    .await;

    let mut seen = instance.metrics().await + &instance.readiness().await.to_string() + &instance.stderr();
    for path in ["/api/v1/status", "/api/v1/divergences?limit=1000"] {
        let answer = instance.admin(Method::GET, path, "").await;
        assert_eq!(answer.status, 200);
        seen += answer.text();
    }
    for verb in [&["status", "--details"][..], &["divergences", "--limit", "1000"]] {
        let told = instance.ask(verb).await;
        assert_eq!(told.code, 0);
        seen += &told.stdout;
        seen += &told.stderr;
    }
    let folder = instance.stop().await;
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().unwrap().to_str().unwrap().starts_with("understudy.db") {
            seen += &String::from_utf8_lossy(&std::fs::read(path).unwrap());
        }
    }
    assert!(seen.contains("h:"), "subjects are shown as hashes");
    for secret in [
        "33639980123",
        "14155550142",
        "FR.10020030040050060070",
        "Elodie",
        "Sam Lee",
        "Bonjour",
        "700800900100200",
    ] {
        let at = seen.find(secret).map(|at| {
            seen[..at]
                .chars()
                .rev()
                .take(300)
                .collect::<String>()
                .chars()
                .rev()
                .collect::<String>()
        });
        assert_eq!(at, None, "{secret} is seen");
    }
}
