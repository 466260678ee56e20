//! Tokens that are for something: environments, certain flags, so many requests; and writes that are sent twice.

use std::fmt::Write as _;

use http::Method;
use serde_json::{Value, json};

use crate::rest::{FLAGS, ok, problem, shop, side};
use crate::support::{Answered, Backend, Door, Plan, Sidecar, TOKEN, send, sha256, understudy};

const FILE: &str = "features:\n  shop-a: { type: boolean }\n  shop-b: { type: boolean }\n  other: { type: boolean }\n";

/// An instance with these entries in its tokens file, each `NAME ROLE more members`; a token is its name.
async fn with_tokens(entries: &[&str]) -> (Sidecar, [Backend; 2]) {
    let (legacy, new) = (Backend::saying("legacy").await, Backend::saying("new").await);
    let plan = Plan::new(&legacy, &new).route("flag: shop-a").features(FILE);
    let folder = tempfile::tempdir().unwrap();
    plan.write(folder.path());
    let mut tokens = "tokens:\n".to_owned();
    for entry in entries {
        let mut parts = entry.splitn(3, ' ');
        let (name, role, more) = (
            parts.next().unwrap(),
            parts.next().unwrap(),
            parts.next().unwrap_or_default(),
        );
        let more = if more.is_empty() {
            String::new()
        } else {
            format!(", {more}")
        };
        writeln!(
            tokens,
            "  - {{ name: {name}, role: {role}, sha256: \"{}\"{more} }}",
            sha256(name)
        )
        .unwrap();
    }
    std::fs::write(folder.path().join("tokens.yaml"), tokens).unwrap();
    (Sidecar::start_in(folder, plan.env.clone()), [legacy, new])
}

async fn ask(door: &Door, token: &str, method: Method, path: &str, body: Value, more: &[(&str, &str)]) -> Answered {
    let (host, bearer) = (door.admin.to_string(), format!("Bearer {token}"));
    let own = [
        ("host", &*host),
        ("authorization", &*bearer),
        ("content-type", "application/json"),
    ];
    let headers = [&own[..], more].concat();
    let body = if body.is_null() {
        String::new()
    } else {
        body.to_string()
    };
    send(door.admin, method, path, &headers, body).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn token_for_certain_flags_sees_and_changes_those_alone() {
    let (sidecar, _backends) = with_tokens(&["olga operator flags: [shop-]", "ann admin"]).await;
    let olga = async |method: Method, path: &str, body: Value| ask(&sidecar, "olga", method, path, body, &[]).await;
    let reason = json!({ "reason": "a test" });
    for (method, path, body) in [
        (Method::GET, "/api/v1/feature-flags/shop-a", Value::Null),
        (Method::PATCH, "/api/v1/feature-flags/shop-a", json!({ "owner": "x" })),
        (Method::POST, "/api/v1/feature-flags", json!({ "name": "shop-c" })),
        (Method::POST, "/api/v1/feature-flags/shop-b/kill", reason.clone()),
        (
            Method::POST,
            "/api/v1/freeze",
            json!({ "reason": "x", "flag": "shop-b" }),
        ),
        (Method::POST, "/flags/shop-a/rollback", Value::Null),
        (Method::GET, "/api/v1/status", Value::Null),
    ] {
        let answer = olga(method, path, body).await;
        assert!(answer.status < 300, "{path}: {}", answer.text());
    }
    for (method, path, body) in [
        (Method::GET, "/api/v1/feature-flags/other", Value::Null),
        (Method::PATCH, "/api/v1/feature-flags/other", json!({ "owner": "x" })),
        (Method::DELETE, "/api/v1/feature-flags/%6Fther", Value::Null),
        (Method::POST, "/api/v1/feature-flags", json!({ "name": "new" })),
        (
            Method::POST,
            "/api/internal/flags/update",
            json!({ "name": "other", "enabled": true }),
        ),
        (Method::POST, "/api/features/other/toggle", Value::Null),
        (Method::POST, "/api/v1/feature-flags/other/kill", reason.clone()),
        (Method::POST, "/api/v1/routes/shop/kill", reason.clone()),
        (Method::POST, "/api/v1/kill", reason.clone()),
        (Method::POST, "/api/v1/freeze", reason.clone()),
        (
            Method::POST,
            "/api/v1/freeze",
            json!({ "reason": "x", "route": "shop" }),
        ),
        (Method::POST, "/experiments/freeze", reason.clone()),
        (Method::GET, "/api/v1/audit", Value::Null),
        (Method::GET, "/api/v1/divergences", Value::Null),
    ] {
        let answer = olga(method.clone(), path, body).await;
        assert_eq!(problem(&answer), (403, "forbidden".to_owned()), "{method} {path}");
    }
    let page = ok(&olga(Method::GET, "/api/v1/feature-flags", Value::Null).await);
    let names: Vec<_> = page["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|flag| flag["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["shop-a", "shop-b", "shop-c"]);
    let tried = ask(
        &sidecar,
        "ann",
        Method::GET,
        "/api/v1/audit?action=refused&actor=olga",
        Value::Null,
        &[],
    )
    .await;
    assert_eq!(
        ok(&tried)["items"].as_array().unwrap().len(),
        14,
        "each attempt is audited"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn token_of_another_environment_and_one_in_a_hurry_are_turned_away() {
    let (sidecar, _backends) = with_tokens(&[
        "olga operator environments: [staging]",
        "hasty operator rate: 12",
        "ann admin",
    ])
    .await;
    let answer = ask(&sidecar, "olga", Method::GET, FLAGS, Value::Null, &[]).await;
    assert_eq!(problem(&answer), (403, "forbidden".to_owned()));
    let mut refused = None;
    for _ in 0..4 {
        let answer = ask(&sidecar, "hasty", Method::GET, FLAGS, Value::Null, &[]).await;
        if answer.status == 429 {
            refused = Some(answer);
        }
    }
    let refused = refused.expect("twelve in a minute are two at once");
    assert_eq!(problem(&refused).1, "too_many_requests");
    let seconds: u64 = refused.header("retry-after").parse().unwrap();
    assert!((1..=5).contains(&seconds), "{seconds}");
    let kill = json!({ "reason": "a test" });
    let killed = ask(&sidecar, "hasty", Method::POST, "/api/v1/kill", kill, &[]).await;
    assert_eq!(killed.status, 200, "a kill is never held up: {}", killed.text());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn write_that_is_sent_again_with_its_key_is_done_once() {
    let (sidecar, _backends) = shop("features:\n  NEW_SHOP: { type: boolean }\n").await;
    let toggle = async |key: &str, path: &str| {
        ask(
            &sidecar,
            TOKEN,
            Method::POST,
            path,
            Value::Null,
            &[("idempotency-key", key)],
        )
        .await
    };
    let path = "/api/features/NEW_SHOP/toggle";
    let first = toggle("one", path).await;
    assert_eq!(ok(&first)["status"], "ENABLED");
    for _ in 0..3 {
        let again = toggle("one", path).await;
        assert_eq!((again.status, &again.body), (first.status, &first.body));
        assert_eq!(again.header("idempotency-replayed"), "true");
    }
    assert_eq!(side(&sidecar, "anna").await, "new");
    assert_eq!(ok(&toggle("two", path).await)["status"], "DISABLED");
    let other = toggle("one", "/flags/NEW_SHOP/rollback").await;
    assert_eq!(problem(&other), (422, "key_reused".to_owned()));
    assert_eq!(
        problem(&toggle(&"k".repeat(201), path).await),
        (400, "bad_request".to_owned())
    );
    // A refusal that stays one is answered again, too.
    let body = json!({ "name": "NEW_SHOP" });
    let create = || {
        ask(
            &sidecar,
            TOKEN,
            Method::POST,
            FLAGS,
            body.clone(),
            &[("idempotency-key", "three")],
        )
    };
    assert_eq!(problem(&create().await), (409, "exists".to_owned()));
    let again = create().await;
    assert_eq!((problem(&again).0, again.header("idempotency-replayed")), (409, "true"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_are_listed_and_revoked_on_the_command_line() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tokens.yaml");
    let entry = |name: &str| format!("  - {{ name: {name}, role: viewer, sha256: \"{}\" }}\n", sha256(name));
    std::fs::write(&file, format!("# who may\ntokens:\n{}{}", entry("ann"), entry("bob"))).unwrap();
    let path = file.to_str().unwrap();
    let listed = understudy(&["token", "list", "--file", path, "--output", "json"], &[]).await;
    assert_eq!((listed.code, &listed.json()[1]["name"]), (0, &json!("bob")));
    assert!(!listed.stdout.contains(&sha256("bob")), "{}", listed.stdout);
    let unknown = understudy(&["token", "revoke", "bobb", "--file", path], &[]).await;
    assert!(
        unknown.code == 2 && unknown.stderr.contains("did you mean `bob`?"),
        "{unknown:?}"
    );
    assert_eq!(
        understudy(&["token", "revoke", "bob", "--file", path], &[]).await.code,
        0
    );
    let left = std::fs::read_to_string(&file).unwrap();
    assert_eq!(left, format!("# who may\ntokens:\n{}", entry("ann")));
    let last = understudy(&["token", "revoke", "ann", "--file", path], &[]).await;
    assert!(last.code == 2 && last.stderr.contains("last token"), "{last:?}");
}
