//! Identities that are not in the request as the rules know them: behind a table, or in a token.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::support::{Backend, Plan, Sidecar, eventually, get, post};

const BY_PHONE: &str = r#"
  - name: whatsapp
    match: { path: / }
    identity: [ { json: "/entry/*/from", normalise: digits, map: TABLE } ]
    flag: NEW_SHOP
"#;

const ON: &str = "features:\n  NEW_SHOP: { type: boolean, enabled: true, allowlist: [shopper_001] }\n";

async fn backends() -> (Backend, Backend) {
    (Backend::saying("legacy").await, Backend::saying("new").await)
}

/// An instance whose table stands in its folder as `phones.csv`.
fn start(plan: Plan, table: &str) -> Sidecar {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("phones.csv");
    std::fs::write(&path, table).unwrap();
    let routes = BY_PHONE.replace("TABLE", &path.display().to_string());
    plan.routes(&routes).features(ON).write(folder.path());
    Sidecar::start_in(folder, std::collections::BTreeMap::default())
}

fn messages(from: &[&str]) -> String {
    let list: Vec<String> = from.iter().map(|from| format!("{{\"from\":\"{from}\"}}")).collect();
    format!("{{\"entry\":[{}]}}", list.join(","))
}

async fn served(sidecar: &Sidecar, from: &[&str]) -> String {
    let answer = post(
        sidecar.address,
        "/",
        &[("content-type", "application/json")],
        messages(from),
    )
    .await;
    answer.text().to_owned()
}

async fn not_mapped(sidecar: &Sidecar) -> (f64, f64) {
    let reason = &["route=\"whatsapp\"", "reason=\"not_mapped\""];
    let unknown = &["route=\"whatsapp\"", "reason=\"identity_unknown\""];
    (
        sidecar
            .metric("understudy_requests_without_identity_total", reason)
            .await,
        sidecar.metric("understudy_decisions_total", unknown).await,
    )
}

/// Editors and Kubernetes replace a file, they do not write into it.
fn replace(path: &Path, text: &str) {
    let beside = path.with_extension("tmp");
    std::fs::write(&beside, text).unwrap();
    std::fs::rename(beside, path).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c20_phone_becomes_a_shopper_by_a_table_and_misses_are_seen() {
    let (legacy, new) = backends().await;
    let sidecar = start(
        Plan::new(&legacy, &new),
        "# phone,shopper\n+33 6 39 98 01 23,shopper_001\n33639980124,shopper_002\n",
    );
    assert_eq!(served(&sidecar, &["33639980123"]).await, "new");
    assert_eq!(served(&sidecar, &["33639980124"]).await, "legacy");
    assert_eq!(not_mapped(&sidecar).await, (0.0, 0.0));
    // The rules know no telephone number, and who is not in the table is nobody.
    assert_eq!(served(&sidecar, &["33639980199"]).await, "legacy");
    assert_eq!(not_mapped(&sidecar).await, (1.0, 1.0));
    assert_eq!(served(&sidecar, &["33639980123", "33639980199"]).await, "legacy");
    assert_eq!(not_mapped(&sidecar).await, (2.0, 2.0));

    // A changed table is taken over like a changed flag file,
    let path = sidecar.folder.path().join("phones.csv");
    replace(&path, "33639980199,shopper_001\n");
    eventually("the new table", || async {
        served(&sidecar, &["33639980199"]).await == "new"
    })
    .await;
    assert_eq!(served(&sidecar, &["33639980123"]).await, "legacy");
    // and refused like one: all of its problems are told, and the last good one serves.
    replace(&path, "33639980123,shopper_001\n33639980123,shopper_002\nshopper_003\n");
    let problems = sidecar.reload(ON).await.unwrap_err();
    let places = |line: &str| format!("{}:{line}: ", path.display());
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert!(
        problems[0].starts_with(&(places("2:1") + "this key stands in line 1 already")),
        "{problems:?}"
    );
    assert!(
        problems[1].starts_with(&(places("3:1") + "this line has no comma")),
        "{problems:?}"
    );
    assert_eq!(served(&sidecar, &["33639980199"]).await, "new");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn claim_of_a_token_decides_and_nothing_else_in_it_does() {
    let (legacy, new) = backends().await;
    let sidecar = Plan::new(&legacy, &new)
        .routes(
            "  - name: shop\n    match: { path: / }\n    identity: [ { jwt: { header: authorization, claim: /shop/id } } ]\n    \
             flag: NEW_SHOP\n",
        )
        .features(ON)
        .start();
    let send = |payload: &str| {
        let token = format!(
            "Bearer {}.{}.sig",
            URL_SAFE_NO_PAD.encode("{}"),
            URL_SAFE_NO_PAD.encode(payload)
        );
        let address = sidecar.address;
        async move { get(address, "/", &[("authorization", &token)]).await.text().to_owned() }
    };
    assert_eq!(send(r#"{"shop":{"id":"shopper_001"}}"#).await, "new");
    assert_eq!(
        send(r#"{"shop":{"id":"shopper_002"},"id":"shopper_001"}"#).await,
        "legacy"
    );
    assert_eq!(send("shopper_001").await, "legacy");
    // The token goes on as it came: whoever serves the request verifies it.
    let received = new.received().pop().unwrap();
    assert!(received.header("authorization").starts_with("Bearer e30."));
    let unreadable = &["reason=\"not_readable\""];
    assert_eq!(
        sidecar
            .metric("understudy_requests_without_identity_total", unreadable)
            .await,
        1.0
    );
}
