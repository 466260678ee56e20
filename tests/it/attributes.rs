//! What rules ask of a request besides its subject: a route's `attributes`, from the same places as identities.

use http::Method;

use crate::support::{Backend, Plan, Sidecar, get, post, send};

const ROUTES: &str = r#"
  - name: shop
    match: { path: / }
    identity: [ { header: x-shopper-id } ]
    attributes:
      country: { header: cf-ipcountry }
      plan: [ { json: /plan }, { header: x-plan } ]
      score: { json: /score }
      groups: { json: "/groups/*" }
      role: { jwt: { header: authorization, claim: role } }
    flag: NEW_SHOP
"#;

fn rule(condition: &str) -> String {
    format!(
        "features:\n  NEW_SHOP: {{ type: targeted, enabled: true, rules: [ {{ type: property, conditions: {condition} }} ] }}\n"
    )
}

async fn start(condition: &str) -> (Sidecar, Backend, Backend) {
    let (legacy, new) = (Backend::saying("legacy").await, Backend::saying("new").await);
    let sidecar = Plan::new(&legacy, &new)
        .routes(ROUTES)
        .features(&rule(condition))
        .start();
    (sidecar, legacy, new)
}

async fn with(sidecar: &Sidecar, headers: &[(&str, &str)], body: &str) -> String {
    let mut all = vec![("x-shopper-id", "anna"), ("content-type", "application/json")];
    all.extend_from_slice(headers);
    post(sidecar.address, "/", &all, body.to_owned())
        .await
        .text()
        .to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s4_17_rule_on_an_attribute_decides_by_what_the_request_says() {
    let (sidecar, _legacy, new) = start("{ country: [US, CA] }").await;
    for (country, expected) in [("US", "new"), ("CA", "new"), ("DE", "legacy"), ("us", "legacy")] {
        assert_eq!(
            with(&sidecar, &[("cf-ipcountry", country)], "").await,
            expected,
            "{country}"
        );
    }
    assert_eq!(with(&sidecar, &[], "").await, "legacy");
    let before = new.count();
    let get = get(
        sidecar.address,
        "/",
        &[("x-shopper-id", "anna"), ("cf-ipcountry", "US")],
    )
    .await;
    assert_eq!((get.text(), new.count()), ("new", before + 1));
    // The other way round, who says nothing matches.
    sidecar
        .reload(&rule(
            "{ all: [ { attribute: country, operator: not_in, values: [DE] } ] }",
        ))
        .await
        .unwrap();
    assert_eq!(with(&sidecar, &[], "").await, "new");
    assert_eq!(with(&sidecar, &[("cf-ipcountry", "DE")], "").await, "legacy");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attributes_of_the_body_are_read_with_their_kinds_and_reach_the_backend_unread() {
    let (sidecar, _legacy, new) =
        start("{ all: [ { attribute: score, operator: greater_than, values: [80] } ] }").await;
    for (body, expected) in [
        (r#"{"score": 81}"#, "new"),
        (r#"{"score": 80.5}"#, "new"),
        (r#"{"score": 80}"#, "legacy"),
        (r#"{"score": true}"#, "legacy"),
        (r#"{"score": 81"#, "legacy"),
        (r#"{"score": 81, "score": 81}"#, "legacy"),
        ("", "legacy"),
    ] {
        assert_eq!(with(&sidecar, &[], body).await, expected, "{body}");
    }
    assert_eq!(new.received()[0].body, br#"{"score": 81}"#[..]);
    sidecar
        .reload(&rule(
            "{ all: [ { attribute: groups, operator: contains, values: [vip] } ] }",
        ))
        .await
        .unwrap();
    assert_eq!(with(&sidecar, &[], r#"{"groups": ["a", "vip"]}"#).await, "new");
    assert_eq!(
        with(&sidecar, &[], r#"{"groups": ["a", "vips"]}"#).await,
        "legacy",
        "a list is asked for membership"
    );
    sidecar.reload(&rule("{ plan: premium }")).await.unwrap();
    assert_eq!(with(&sidecar, &[], r#"{"plan": "premium"}"#).await, "new");
    assert_eq!(with(&sidecar, &[("x-plan", "premium")], "{}").await, "new");
    assert_eq!(
        with(&sidecar, &[("x-plan", "premium")], r#"{"plan": "free"}"#).await,
        "legacy"
    );
    sidecar.reload(&rule("{ role: staff }")).await.unwrap();
    // {"role":"staff"}
    let token = "Bearer e30.eyJyb2xlIjoic3RhZmYifQ.x";
    assert_eq!(with(&sidecar, &[("authorization", token)], "").await, "new");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn body_is_captured_for_attributes_only_where_a_flag_asks_and_one_that_is_too_long_is_legacys() {
    let (legacy, new) = (Backend::saying("legacy").await, Backend::saying("new").await);
    let sidecar = Plan::new(&legacy, &new)
        .routes(ROUTES)
        .more("capture: { body: 1KiB, budget: 1MiB }")
        .features(&rule(
            "{ all: [ { attribute: plan, operator: not_in, values: [free] } ] }",
        ))
        .start();
    let long = format!("{{\"x\":\"{}\",\"plan\":\"free\"}}", "x".repeat(4_096));
    assert_eq!(with(&sidecar, &[], r#"{"plan":"pro"}"#).await, "new");
    // Nobody knows what it says, so it does not say that it is not free.
    assert_eq!(with(&sidecar, &[], &long).await, "legacy");
    let reason = &["reason=\"body_too_large\""];
    let unknown = "understudy_requests_without_identity_total";
    assert_eq!(sidecar.metric(unknown, reason).await, 1.0);
    // Where no flag asks, nothing is looked for, and the shopper is known by the header.
    sidecar
        .reload("features:\n  NEW_SHOP: { type: boolean, enabled: true, allowlist: [anna] }\n")
        .await
        .unwrap();
    assert_eq!(with(&sidecar, &[], &long).await, "new");
    assert_eq!(sidecar.metric(unknown, reason).await, 1.0);
    // A segment asks as well as the rule itself.
    sidecar
        .reload(
            "segments: { payers: { plan: [pro] } }\nfeatures:\n  NEW_SHOP: { type: targeted, enabled: true, rules: [ { type: \
             user_segment, conditions: { segment: payers } } ] }\n",
        )
        .await
        .unwrap();
    assert_eq!(with(&sidecar, &[], r#"{"plan":"pro"}"#).await, "new");
    assert_eq!(with(&sidecar, &[], &long).await, "legacy");
    let head = [("x-shopper-id", "anna"), ("x-plan", "pro")];
    assert_eq!(send(sidecar.address, Method::HEAD, "/", &head, "").await.status, 200);
    assert_eq!((legacy.count(), new.count()), (2, 4));
}
