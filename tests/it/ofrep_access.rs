//! Who may ask for flags: tokens, roles, limits, pages in browsers, and what the configuration refuses.

use http::Method;
use serde_json::json;

use crate::ofrep::{JSON, open, start};
use crate::support::{Answered, Backend, Plan, Sidecar, post, send, sha256};

const FEATURES: &str = "features:
  pay: { type: boolean, enabled: true, metadata: { exposed: 'false' } }
  shop: { type: boolean, enabled: true }
";

/// An instance with a token of each role, and one that is for SDKs alone.
async fn guarded(ofrep_more: &str) -> Sidecar {
    let backend = Backend::saying("legacy").await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("sdk-tokens.yaml");
    let entry = |name: &str, role: &str| format!("  - {{ name: {name}, role: {role}, sha256: {} }}\n", sha256(name));
    let tokens = format!(
        "tokens:\n{}{}{}",
        entry("web", "client"),
        entry("server", "viewer"),
        entry("eve", "emergency")
    );
    std::fs::write(&file, tokens).unwrap();
    let ofrep = format!(
        "ofrep: {{ address: 127.0.0.1:0, tokens_file: {}{ofrep_more} }}",
        file.display()
    );
    Plan::new(&backend, &backend)
        .route("flag: false")
        .more(&ofrep)
        .features(FEATURES)
        .write(folder.path());
    Sidecar::start_in(folder, std::collections::BTreeMap::default())
}

async fn ask(sidecar: &Sidecar, path: &str, token: &str) -> Answered {
    let bearer = format!("Bearer {token}");
    let headers = [JSON, ("authorization", &*bearer)];
    let headers = if token.is_empty() { &headers[..1] } else { &headers };
    post(sidecar.ofrep(), path, headers, r#"{"context":{"targetingKey":"anna"}}"#).await
}

const SHOP: &str = "/ofrep/v1/evaluate/flags/shop";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s4_26_token_opens_what_its_role_says_and_a_client_sees_only_what_is_exposed() {
    let sidecar = guarded("").await;
    for token in ["web", "server"] {
        assert_eq!(ask(&sidecar, SHOP, token).await.json()["value"], true, "{token}");
        let key = post(sidecar.ofrep(), SHOP, &[JSON, ("x-api-key", token)], "{}").await;
        assert_eq!(key.status, 200, "{token}");
    }
    for (token, status) in [("", 401), ("nobody", 401), ("eve", 403), (crate::support::TOKEN, 401)] {
        let answer = ask(&sidecar, SHOP, token).await;
        assert_eq!(answer.status, status, "{token}");
        assert!(answer.json()["errorDetails"].is_string());
        assert_eq!(answer.header("www-authenticate").is_empty(), status != 401);
    }
    // What is not exposed is not there, for a client.
    let pay = "/ofrep/v1/evaluate/flags/pay";
    assert_eq!(ask(&sidecar, pay, "web").await.status, 404);
    assert_eq!(ask(&sidecar, pay, "server").await.json()["value"], true);
    let keys = |answer: Answered| {
        let body = answer.json();
        let flags = body["flags"].as_array().unwrap().clone();
        flags
            .iter()
            .map(|flag| flag["key"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(keys(ask(&sidecar, "/ofrep/v1/evaluate/flags", "web").await), ["shop"]);
    assert_eq!(
        keys(ask(&sidecar, "/ofrep/v1/evaluate/flags", "server").await),
        ["pay", "shop"]
    );
    let evaluate = |token: &'static str| {
        let address = sidecar.ofrep();
        async move {
            let headers = [JSON, ("x-api-key", token)];
            post(address, "/api/v1/feature-flags/evaluate", &headers, r#"{"flag":"pay"}"#).await
        }
    };
    assert_eq!(evaluate("web").await.status, 404);
    assert_eq!(evaluate("server").await.json()["enabled"], true);
    assert_eq!(evaluate("eve").await.header("content-type"), "application/problem+json");
    // A client's token opens nothing of the operators' door, nor an operator's token of this door's file this one.
    let status = send(
        sidecar.admin,
        Method::GET,
        "/api/v1/status",
        &[("x-api-key", "web"), ("host", "localhost")],
        "",
    )
    .await;
    assert_eq!(status.status, 401);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn client_of_the_operators_file_may_evaluate_there_and_nothing_else() {
    let backend = Backend::saying("legacy").await;
    let sidecar = Plan::new(&backend, &backend)
        .route("flag: false")
        .features(FEATURES)
        .tokens(&[["boss", "admin", crate::support::TOKEN], ["web", "client", "web"]])
        .start();
    let host = sidecar.admin.to_string();
    let as_web = [JSON, ("authorization", "Bearer web"), ("host", &*host)];
    assert_eq!(post(sidecar.admin, SHOP, &as_web, "{}").await.json()["value"], true);
    assert_eq!(
        send(sidecar.admin, Method::GET, "/api/v1/status", &as_web[1..], "")
            .await
            .status,
        403
    );
    let kill = post(sidecar.admin, "/api/v1/kill", &as_web, r#"{"reason":"x"}"#).await;
    assert_eq!(kill.status, 403);
    assert_eq!(sidecar.admin(Method::POST, SHOP, "{}").await.json()["value"], true);
    assert_eq!(
        post(sidecar.admin, SHOP, &[JSON, ("host", &*host)], "{}").await.status,
        401
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_attempts_are_audited_without_their_tokens() {
    let sidecar = guarded("").await;
    assert_eq!(ask(&sidecar, SHOP, "us_guess").await.status, 401);
    assert_eq!(ask(&sidecar, SHOP, "eve").await.status, 403);
    let state = sidecar.folder.path().join("understudy.db");
    crate::support::eventually("both in the audit trail", || async {
        let rows = audit(&state);
        rows.iter()
            .any(|(actor, why)| actor == "anonymous" && why == "no token that is known")
            && rows
                .iter()
                .any(|(actor, why)| actor == "eve" && why == "the role does not allow this")
    })
    .await;
    assert!(audit(&state).iter().all(|(_, why)| !why.contains("guess")));
}

fn audit(state: &std::path::Path) -> Vec<(String, String)> {
    let Ok(database) = rusqlite::Connection::open(state) else {
        return Vec::new();
    };
    let Ok(mut rows) = database.prepare("SELECT actor, reason FROM audit WHERE action = 'refused'") else {
        return Vec::new();
    };
    let rows = rows.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    rows.map(Result::unwrap).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_many_requests_are_told_to_wait_for_whole_seconds() {
    let sidecar = guarded(", requests_per_client: 2").await;
    let mut refused = None;
    for _ in 0..40 {
        let answer = ask(&sidecar, SHOP, "web").await;
        if answer.status == 429 {
            refused = Some(answer);
            break;
        }
        assert_eq!(answer.status, 200);
    }
    let refused = refused.expect("more than two in a second");
    assert_eq!(refused.header("retry-after"), "1");
    assert!(refused.json()["errorDetails"].is_string());
    // Somebody else is not asked to wait.
    assert_eq!(ask(&sidecar, SHOP, "server").await.status, 200);
    let counted = &["result=\"too_many_requests\""];
    assert!(sidecar.metric("understudy_ofrep_requests_total", counted).await >= 1.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_of_the_origins_that_are_named_may_ask_from_a_browser() {
    let sidecar = start("{ address: 127.0.0.1:0, cors: [https://shop.example] }", FEATURES).await;
    let preflight = |origin: &'static str| {
        let address = sidecar.ofrep();
        async move {
            let headers = [
                ("origin", origin),
                ("access-control-request-method", "POST"),
                ("access-control-request-headers", "content-type,if-none-match"),
            ];
            send(address, Method::OPTIONS, "/ofrep/v1/evaluate/flags", &headers, "").await
        }
    };
    let allowed = preflight("https://shop.example").await;
    assert_eq!(allowed.status, 204);
    assert_eq!(allowed.header("access-control-allow-origin"), "https://shop.example");
    assert_eq!(
        allowed.header("access-control-allow-headers"),
        "authorization, content-type, if-none-match, x-api-key"
    );
    assert!(allowed.header("access-control-allow-methods").contains("POST"));
    assert_eq!(allowed.header("vary"), "origin");
    for other in [
        "https://evil.example",
        "http://shop.example",
        "https://shop.example.evil.example",
        "null",
    ] {
        assert_eq!(
            preflight(other).await.header("access-control-allow-origin"),
            "",
            "{other}"
        );
    }
    let asked = |origin: &'static str| {
        let address = sidecar.ofrep();
        async move { post(address, "/ofrep/v1/evaluate/flags", &[JSON, ("origin", origin)], "{}").await }
    };
    let answer = asked("https://shop.example").await;
    assert_eq!(answer.header("access-control-allow-origin"), "https://shop.example");
    assert_eq!(answer.header("access-control-expose-headers"), "etag, retry-after");
    assert_eq!(
        asked("https://evil.example")
            .await
            .header("access-control-allow-origin"),
        ""
    );

    let everybody = start("{ address: 127.0.0.1:0, cors: ['*'] }", FEATURES).await;
    let answer = post(
        everybody.ofrep(),
        SHOP,
        &[JSON, ("origin", "https://any.example")],
        "{}",
    )
    .await;
    assert_eq!(answer.header("access-control-allow-origin"), "*");
    let nobody = open(FEATURES).await;
    let answer = post(nobody.ofrep(), SHOP, &[JSON, ("origin", "https://shop.example")], "{}").await;
    assert_eq!((answer.status, answer.header("access-control-allow-origin")), (200, ""));
    // The operators' door is no page's business.
    let host = sidecar.admin.to_string();
    let headers = [JSON, ("origin", "https://shop.example"), ("host", &*host)];
    let answer = post(sidecar.admin, SHOP, &headers, "{}").await;
    assert_eq!(answer.header("access-control-allow-origin"), "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_says_nothing_keeps_nobody_waiting() {
    let sidecar = start("{ address: 127.0.0.1:0, connections: 3 }", FEATURES).await;
    let mut silent = Vec::new();
    for _ in 0..2 {
        silent.push(crate::support::Socket::connect(sidecar.ofrep()).await);
    }
    assert_eq!(post(sidecar.ofrep(), SHOP, &[JSON], "{}").await.json(), {
        json!({ "key": "shop", "value": true, "variant": "on", "reason": "STATIC",
            "metadata": { "reason": "global", "origin": "file", "revision": 1 } })
    });
}
