//! OFREP and the evaluation API: what flags answer, to whoever asks for them by name.

use http::Method;
use serde_json::{Value, json};

use crate::support::{Answered, Backend, Client, Plan, Sidecar, post, request, send};

pub const JSON: (&str, &str) = ("content-type", "application/json");

const FEATURES: &str = "features:
  all: { type: boolean, enabled: true }
  none: { type: boolean, enabled: false }
  listed: { type: boolean, enabled: true, allowlist: [anna, '9007199254740993'] }
  denied: { type: boolean, enabled: true, denylist: [bert] }
  half: { type: percentage, percentage: 50 }
  elsewhere: { type: boolean, enabled: true, environments: [staging] }
  over: { type: boolean, enabled: true, end_date: '2020-01-01T00:00:00Z' }
  silent: { type: boolean, default: true }
";

/// An instance with a listener for SDKs that everybody on this machine may use.
pub async fn open(features: &str) -> Sidecar {
    start("{ address: 127.0.0.1:0 }", features).await
}

pub async fn start(ofrep: &str, features: &str) -> Sidecar {
    let backend = Backend::saying("legacy").await;
    Plan::new(&backend, &backend)
        .route("flag: false")
        .more(&format!("ofrep: {ofrep}"))
        .features(features)
        .tokens(&[])
        .start()
}

pub async fn ask(sidecar: &Sidecar, path: &str, body: &str) -> Answered {
    post(sidecar.ofrep(), path, &[JSON], body.to_owned()).await
}

async fn flag(sidecar: &Sidecar, key: &str, context: Value) -> Value {
    let path = format!("/ofrep/v1/evaluate/flags/{key}");
    let answer = ask(sidecar, &path, &json!({ "context": context }).to_string()).await;
    assert_eq!(answer.status, 200, "{key}: {}", answer.text());
    assert_eq!(answer.header("content-type"), "application/json");
    answer.json()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_line_of_the_table_has_its_reason_in_the_protocols_words() {
    let sidecar = open(FEATURES).await;
    for (key, subject, value, reason, ours, origin) in [
        ("all", "bert", true, "STATIC", "global", "file"),
        ("none", "bert", false, "DISABLED", "disabled", "file"),
        ("listed", "anna", true, "TARGETING_MATCH", "allowlist", "file"),
        ("listed", "bert", false, "TARGETING_MATCH", "not_allowlisted", "file"),
        ("denied", "bert", false, "TARGETING_MATCH", "denylist", "file"),
        ("elsewhere", "bert", false, "DISABLED", "environment", "file"),
        ("over", "bert", false, "DISABLED", "schedule", "file"),
        ("silent", "bert", true, "STATIC", "default", "file"),
    ] {
        let answer = flag(&sidecar, key, json!({ "targetingKey": subject })).await;
        let expected = json!({
            "key": key,
            "value": value,
            "variant": if value { "on" } else { "off" },
            "reason": reason,
            "metadata": { "reason": ours, "origin": origin, "revision": 1 },
        });
        assert_eq!(answer, expected, "{key} for {subject}");
    }
    let answer = flag(&sidecar, "half", json!({ "targetingKey": "anna" })).await;
    let bucket = answer["metadata"]["bucket"].as_u64().unwrap();
    assert_eq!(answer["value"], json!(bucket < 500_000));
    assert_eq!(answer["reason"], "SPLIT");
    let ours = answer["metadata"]["reason"].as_str().unwrap();
    assert_eq!(ours == "percent", answer["value"] == true);
    // A number names a subject by its digits, all of them.
    let answer = ask(
        &sidecar,
        "/ofrep/v1/evaluate/flags/listed",
        r#"{"context":{"user_id":9007199254740993}}"#,
    )
    .await;
    assert_eq!(answer.json()["value"], true);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_is_off_at_once_here_too() {
    let backend = Backend::saying("legacy").await;
    let sidecar = Plan::new(&backend, &backend)
        .route("flag: false")
        .features(FEATURES)
        .start();
    let value = || async {
        let answer = sidecar.admin(
            Method::POST,
            "/ofrep/v1/evaluate/flags/all",
            r#"{"context":{"targetingKey":"anna"}}"#,
        );
        let body = answer.await.json();
        (body["value"].clone(), body["reason"].clone(), body["metadata"].clone())
    };
    let reason = r#"{"reason":"a test"}"#;
    for (kill, rearm) in [
        ("/api/v1/feature-flags/all/kill", "/api/v1/feature-flags/all/rearm"),
        ("/api/v1/kill", "/api/v1/rearm"),
    ] {
        assert_eq!(value().await.0, true);
        assert_eq!(sidecar.admin(Method::POST, kill, reason).await.status, 200);
        let metadata = json!({ "reason": "killed", "origin": "kill", "revision": 1 });
        assert_eq!(value().await, (json!(false), json!("DISABLED"), metadata), "{kill}");
        assert_eq!(sidecar.admin(Method::POST, rearm, reason).await.status, 200);
        assert_eq!(value().await.0, true);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_subject_a_flag_is_evaluated_as_far_as_it_need_not_look_at_one() {
    let sidecar = open(FEATURES).await;
    for (key, value) in [("all", true), ("none", false), ("silent", true), ("over", false)] {
        assert_eq!(flag(&sidecar, key, json!({})).await["value"], value, "{key}");
        // A provider without a context leaves it out.
        for body in ["{}", ""] {
            let answer = ask(&sidecar, &format!("/ofrep/v1/evaluate/flags/{key}"), body).await;
            assert_eq!(answer.json()["value"], value, "{key} {body}");
        }
    }
    for key in ["listed", "denied", "half"] {
        let path = format!("/ofrep/v1/evaluate/flags/{key}");
        for context in [
            json!({}),
            json!({ "targetingKey": "" }),
            json!({ "targetingKey": null, "plan": "pro" }),
        ] {
            let answer = ask(&sidecar, &path, &json!({ "context": context }).to_string()).await;
            assert_eq!(answer.status, 400, "{key}");
            let body = answer.json();
            assert_eq!(body["key"], key);
            assert_eq!(body["errorCode"], "TARGETING_KEY_MISSING");
            assert!(body["errorDetails"].is_string());
        }
    }
    // A key that is too long is nobody's, which is an answer.
    let long = flag(&sidecar, "listed", json!({ "targetingKey": "k".repeat(1_025) })).await;
    assert_eq!((&long["value"], &long["reason"]), (&json!(false), &json!("DISABLED")));
    assert_eq!(long["metadata"]["reason"], "identity_unknown");
    let missing = &["flag=\"unknown\"", "error_type=\"targeting_key_missing\""];
    assert_eq!(sidecar.metric("feature_flag_errors_total", missing).await, 9.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bulk_answers_every_flag_and_nothing_again_that_has_not_changed() {
    let sidecar = open(FEATURES).await;
    let path = "/ofrep/v1/evaluate/flags?flagConfigEtag=x&flagConfigLastModified=1767225600";
    let anna = r#"{"context":{"targetingKey":"anna"}}"#;
    let first = ask(&sidecar, path, anna).await;
    assert_eq!(first.status, 200, "{}", first.text());
    let body = first.json();
    let keys: Vec<&str> = body["flags"]
        .as_array()
        .unwrap()
        .iter()
        .map(|flag| flag["key"].as_str().unwrap())
        .collect();
    assert_eq!(
        keys,
        ["all", "denied", "elsewhere", "half", "listed", "none", "over", "silent"]
    );
    assert_eq!(body["metadata"], json!({ "revision": 1, "environment": "production" }));
    assert_eq!(body["eventStreams"][0]["type"], "sse");
    assert_eq!(
        body["eventStreams"][0]["endpoint"],
        json!({ "requestUri": "/ofrep/v1/events" })
    );

    let tag = first.header("etag").to_owned();
    let again = |tag: String, body: &'static str| {
        let address = sidecar.ofrep();
        async move {
            post(
                address,
                "/ofrep/v1/evaluate/flags",
                &[JSON, ("if-none-match", &tag)],
                body,
            )
            .await
        }
    };
    for known in [tag.clone(), format!("W/{tag}"), format!("\"x\", {tag}")] {
        let unchanged = again(known, anna).await;
        assert_eq!((unchanged.status, unchanged.text()), (304, ""));
        assert_eq!(unchanged.header("etag"), tag);
    }
    // Another subject has another answer, under another tag.
    let bert = again(tag.clone(), r#"{"context":{"targetingKey":"bert"}}"#).await;
    assert_eq!(bert.status, 200);
    assert_ne!(bert.header("etag"), tag);
    // Rules that change nothing for this client are no change for it,
    sidecar
        .reload(&FEATURES.replace("[bert]", "[bert, carla]"))
        .await
        .unwrap();
    assert_eq!(again(tag.clone(), anna).await.status, 304);
    // and those that do are.
    sidecar
        .reload(&FEATURES.replace(
            "none: { type: boolean, enabled: false }",
            "none: { type: boolean, enabled: true }",
        ))
        .await
        .unwrap();
    let changed = again(tag.clone(), anna).await;
    assert_eq!(changed.status, 200);
    assert_eq!(changed.json()["metadata"]["revision"], 3);
    let hits = |hit: &'static str| async move { format!("hit=\"{hit}\"") };
    for (hit, count) in [("true", 4.0), ("false", 2.0)] {
        let label = hits(hit).await;
        assert_eq!(
            sidecar
                .metric("feature_flag_cache_hits_total", &["flag=\"all\"", &label])
                .await,
            count,
            "{hit}"
        );
    }
    // Without a subject each flag answers for itself.
    let nobody = ask(&sidecar, "/ofrep/v1/evaluate/flags", "{}").await.json();
    let listed = nobody["flags"]
        .as_array()
        .unwrap()
        .iter()
        .find(|flag| flag["key"] == "listed")
        .unwrap();
    assert_eq!(listed["errorCode"], "TARGETING_KEY_MISSING");
    let all = nobody["flags"]
        .as_array()
        .unwrap()
        .iter()
        .find(|flag| flag["key"] == "all")
        .unwrap();
    assert_eq!(all["value"], true);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_read_is_an_error_that_providers_understand() {
    let sidecar = open(FEATURES).await;
    let deep = format!("{{\"context\":{{\"a\":{}1{}}}}}", "[".repeat(70), "]".repeat(70));
    let large = format!("{{\"context\":{{\"a\":\"{}\"}}}}", "x".repeat(1 << 20));
    for (body, status, code) in [
        ("nonsense", 400, "PARSE_ERROR"),
        ("[]", 400, "PARSE_ERROR"),
        ("{\"context\":", 400, "PARSE_ERROR"),
        ("{\"context\":[]}", 400, "INVALID_CONTEXT"),
        ("{\"context\":7}", 400, "INVALID_CONTEXT"),
        ("{\"context\":{\"targetingKey\":true}}", 400, "INVALID_CONTEXT"),
        (&deep, 400, "PARSE_ERROR"),
        (&large, 413, "GENERAL"),
    ] {
        let shown = &body[..body.len().min(60)];
        let single = ask(&sidecar, "/ofrep/v1/evaluate/flags/all", body).await;
        assert_eq!(
            (single.status, &single.json()["errorCode"]),
            (status, &json!(code)),
            "{shown}"
        );
        assert_eq!(single.json()["key"], "all");
        assert!(single.json()["errorDetails"].is_string());
        let bulk = ask(&sidecar, "/ofrep/v1/evaluate/flags", body).await;
        assert_eq!(
            (bulk.status, &bulk.json()["errorCode"]),
            (status, &json!(code)),
            "{shown}"
        );
        assert!(bulk.json().get("key").is_none());
    }
    for content_type in ["text/plain", "application/x-www-form-urlencoded"] {
        let headers = [("content-type", content_type)];
        let answer = post(sidecar.ofrep(), "/ofrep/v1/evaluate/flags/all", &headers, "{}").await;
        assert_eq!(answer.status, 415, "{content_type}");
    }
    let unknown = ask(&sidecar, "/ofrep/v1/evaluate/flags/nope", "{}").await;
    assert_eq!(unknown.status, 404);
    assert_eq!(unknown.json()["errorCode"], "FLAG_NOT_FOUND");
    assert_eq!(unknown.json()["key"], "nope");
    let get = send(sidecar.ofrep(), Method::GET, "/ofrep/v1/evaluate/flags", &[], "").await;
    assert_eq!((get.status, get.header("allow")), (405, "POST"));
    let missing = &["flag=\"unknown\"", "error_type=\"flag_not_found\""];
    assert_eq!(sidecar.metric("feature_flag_errors_total", missing).await, 1.0);
    // A name that a client made up is no label of anything.
    assert!(!sidecar.metrics().await.contains("nope"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn evaluations_are_counted_and_one_connection_serves_many() {
    let sidecar = open(FEATURES).await;
    let mut client = Client::connect(sidecar.ofrep()).await;
    for _ in 0..20 {
        let body = r#"{"context":{"targetingKey":"anna"}}"#;
        let asked = request(Method::POST, "/ofrep/v1/evaluate/flags/listed", &[JSON], body);
        assert_eq!(client.send(asked).await.json()["value"], true);
    }
    let on = &["flag=\"listed\"", "result=\"true\""];
    assert_eq!(sidecar.metric("feature_flag_evaluations_total", on).await, 20.0);
    let timed = sidecar
        .metric("feature_flag_evaluation_duration_seconds_count", &[])
        .await;
    assert_eq!(timed, 1.0, "the first of 1,024");
    assert_eq!(
        sidecar
            .metric("understudy_ofrep_requests_total", &["result=\"answered\""])
            .await,
        20.0
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s4_06_and_s4_29_flags_are_evaluated_by_name_one_or_many() {
    let sidecar = open(FEATURES).await;
    let evaluate = |body: Value| {
        let address = sidecar.ofrep();
        async move { post(address, "/api/v1/feature-flags/evaluate", &[JSON], body.to_string()).await }
    };
    let context = json!({ "user_id": "anna", "email": "a@example.com", "attributes": { "score": 81 } });
    let one = evaluate(json!({ "flag": "listed", "context": context })).await;
    assert_eq!(one.status, 200, "{}", one.text());
    assert_eq!(
        one.json(),
        json!({ "enabled": true, "flag": "listed", "value": true, "variant": "on", "reason": "allowlist", "rule": null, "bucket": null, "origin": "file" })
    );
    let many = evaluate(json!({ "flags": ["none", "nope", "all"], "context": context }))
        .await
        .json();
    let results: Vec<(&str, bool, &str)> = many["results"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| {
            (
                one["flag"].as_str().unwrap(),
                one["enabled"] == true,
                one["reason"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        results,
        [
            ("none", false, "disabled"),
            ("nope", false, "flag_not_found"),
            ("all", true, "global")
        ]
    );
    assert_eq!(many["revision"], 1);
    // Whoever names nobody gets an answer with its reason, not an error.
    let nobody = evaluate(json!({ "flag": "listed" })).await.json();
    assert_eq!(
        (&nobody["enabled"], &nobody["reason"]),
        (&json!(false), &json!("identity_unknown"))
    );

    let unknown = evaluate(json!({ "flag": "lisetd" })).await;
    assert_eq!(unknown.status, 404);
    assert_eq!(unknown.header("content-type"), "application/problem+json");
    assert_eq!(unknown.json()["type"], "urn:understudy:problem:unknown_name");
    assert_eq!(unknown.json()["near"][0], "listed");
    let default = evaluate(json!({ "flag": "lisetd", "default": { "steps": 3 } })).await;
    assert_eq!(
        (default.status, &default.json()["value"]),
        (200, &json!({ "steps": 3 }))
    );
    for wrong in [
        json!({}),
        json!([]),
        json!({ "flag": "all", "flags": ["all"] }),
        json!({ "flag": "all", "context": [] }),
        json!({ "flag": "all", "context": { "attributes": 7 } }),
        json!({ "flag": "all", "contxet": {} }),
        json!({ "flags": ["all"], "default": true }),
        json!({ "flags": vec!["all"; 1_001] }),
    ] {
        let answer = evaluate(wrong.clone()).await;
        assert_eq!(answer.status, 400, "{wrong}: {}", answer.text());
        assert_eq!(answer.header("content-type"), "application/problem+json");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn admin_listener_answers_too_and_offers_no_streams() {
    let sidecar = open(FEATURES).await;
    let host = sidecar.admin.to_string();
    let headers = [JSON, ("host", &*host)];
    let body = r#"{"context":{"targetingKey":"anna"}}"#;
    let one = post(sidecar.admin, "/ofrep/v1/evaluate/flags/listed", &headers, body).await;
    assert_eq!((one.status, &one.json()["value"]), (200, &json!(true)));
    let all = post(sidecar.admin, "/ofrep/v1/evaluate/flags", &headers, body).await;
    assert!(all.json().get("eventStreams").is_none());
    assert!(!all.header("etag").is_empty());
    let api = post(
        sidecar.admin,
        "/api/v1/feature-flags/evaluate",
        &headers,
        r#"{"flag":"all"}"#,
    )
    .await;
    assert_eq!((api.status, &api.json()["enabled"]), (200, &json!(true)));
    assert_eq!(
        send(sidecar.admin, Method::GET, "/ofrep/v1/events", &headers, "")
            .await
            .status,
        404
    );
    // A page that lured a browser here gets nothing.
    let foreign = [JSON, ("host", "evil.example")];
    assert_eq!(
        post(sidecar.admin, "/ofrep/v1/evaluate/flags/all", &foreign, "{}")
            .await
            .status,
        421
    );
}
