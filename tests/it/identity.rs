//! Whom a request is for: every payload through a running instance, and what happens when nobody can be found in it.

use sha2::{Digest, Sha256};

use crate::support::{Backend, Case, Plan, Reply, Sidecar, deadline, get, post, sign, signature_holds};

const ROUTES: &str = r#"
  - name: whatsapp
    match: { path: /webhooks/whatsapp, methods: [GET, POST] }
    identity:
      - all:
          - { json: ["/entry/*/changes/*/value/messages/*/from", "/entry/*/changes/*/value/messages/*/from_user_id"], normalise: digits }
          - { json: /entry/*/changes/*/value/statuses/*/recipient_id, normalise: digits }
      - { header: x-shopper-id }
    tenant: [ { json: /entry/*/changes/*/value/metadata/phone_number_id } ]
    flag: NEW_SHOP
  - name: twilio
    match: { path: /twilio }
    identity: [ { form: WaId }, { form: To, normalise: digits } ]
    flag: NEW_SHOP
  - name: stripe
    match: { path: /stripe }
    identity: [ { json: [/data/object/customer, /data/object/customer/id] } ]
    flag: NEW_SHOP
  - name: shopify
    match: { path: /shopify }
    identity: [ { json: /customer/id } ]
    tenant: [ { header: x-shopify-shop-domain } ]
    flag: NEW_SHOP
"#;

fn allow(shoppers: &[&String]) -> String {
    let list: Vec<String> = shoppers.iter().map(|shopper| format!("\"{shopper}\"")).collect();
    format!(
        "features:\n  NEW_SHOP: {{ type: boolean, enabled: true, allowlist: [{}] }}\n",
        list.join(", ")
    )
}

async fn backends() -> (Backend, Backend) {
    (Backend::saying("legacy").await, Backend::saying("new").await)
}

async fn unidentified(sidecar: &Sidecar, reason: &str) -> f64 {
    sidecar
        .metric(
            "understudy_requests_without_identity_total",
            &[&format!("reason=\"{reason}\"")],
        )
        .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c20_every_payload_is_for_exactly_the_shoppers_it_lists() {
    let (legacy, new) = backends().await;
    let sidecar = Plan::new(&legacy, &new).routes(ROUTES).features(&allow(&[])).start();
    let cases = Case::all();
    let everybody: Vec<&String> = cases.iter().flat_map(|case| &case.identities).collect();
    for case in &cases {
        let id = &case.id;
        if case.identities.is_empty() {
            sidecar.reload(&allow(&everybody)).await.unwrap();
            assert_eq!(case.send(sidecar.address).await.text(), "legacy", "{id} names nobody");
            continue;
        }
        let all: Vec<&String> = case.identities.iter().collect();
        sidecar.reload(&allow(&all)).await.unwrap();
        assert_eq!(
            case.send(sidecar.address).await.text(),
            "new",
            "{id}: somebody else is found in it"
        );
        for left_out in &case.identities {
            let others: Vec<&String> = everybody
                .iter()
                .filter(|shopper| **shopper != left_out)
                .copied()
                .collect();
            sidecar.reload(&allow(&others)).await.unwrap();
            assert_eq!(
                case.send(sidecar.address).await.text(),
                "legacy",
                "{id}: {left_out} is not found in it"
            );
        }
        // The bytes that both got are the sender's.
        for received in [legacy.received().pop().unwrap(), new.received().pop().unwrap()] {
            assert_eq!(received.body, case.body, "{id}");
            assert_eq!(
                (&received.method, &received.target),
                (&case.method, &case.target),
                "{id}"
            );
            for (name, value) in &case.headers {
                assert_eq!(received.header(&name.to_ascii_lowercase()), value, "{id}: {name}");
            }
            assert!(case.sender != "meta-whatsapp" || signature_holds(&received), "{id}");
        }
    }
    assert_eq!(unidentified(&sidecar, "no_match").await, 2.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mixed_body_goes_to_legacy_unless_everybody_in_it_belongs_to_new() {
    let (legacy, new) = backends().await;
    let sidecar = Plan::new(&legacy, &new).routes(ROUTES).features(&allow(&[])).start();
    let case = Case::load("wa-batch-two-senders");
    let [first, second] = &case.identities[..] else {
        panic!("two senders")
    };
    for one in [first, second] {
        sidecar.reload(&allow(&[one])).await.unwrap();
        assert_eq!(case.send(sidecar.address).await.text(), "legacy");
    }
    assert_eq!(
        sidecar
            .metric("understudy_decisions_total", &["reason=\"mixed\""])
            .await,
        2.0
    );
    sidecar.reload(&allow(&[first, second])).await.unwrap();
    assert_eq!(case.send(sidecar.address).await.text(), "new");
    assert!(legacy.received().iter().chain(&new.received()).all(signature_holds));
    // Two messages of one shopper are not mixed.
    sidecar.reload(&allow(&[first])).await.unwrap();
    assert_eq!(
        Case::load("wa-batch-one-sender").send(sidecar.address).await.text(),
        "new"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c20_every_payload_is_for_exactly_the_tenant_it_lists() {
    const BY_TENANT: &str = r#"
  - name: whatsapp
    match: { path: /webhooks/whatsapp }
    identity: [ { header: x-nobody-sends-this } ]
    tenant: [ { json: /entry/*/changes/*/value/metadata/phone_number_id } ]
    without_identity: tenant
    flag: NEW_SHOP
"#;
    let (legacy, new) = backends().await;
    let tenant = "700800900100200".to_owned();
    let sidecar = Plan::new(&legacy, &new)
        .routes(BY_TENANT)
        .features(&allow(&[&tenant]))
        .start();
    let cases = Case::all().into_iter().filter(|case| case.sender == "meta-whatsapp");
    let (of_tenant, others): (Vec<Case>, Vec<Case>) = cases.partition(|case| case.tenant == Some(tenant.clone()));
    assert!(of_tenant.len() > 10 && !others.is_empty());
    for (cases, expected) in [(of_tenant, "new"), (others, "legacy")] {
        for case in cases {
            assert_eq!(case.send(sidecar.address).await.text(), expected, "{}", case.id);
        }
    }
}

fn business_event() -> Case {
    let mut case = Case::load("wa-text");
    let body = std::str::from_utf8(&case.body)
        .unwrap()
        .replace("\"messages\":", "\"echoes\":");
    case.signed_over(body.into_bytes());
    case
}

fn whatsapp(without_identity: &str) -> String {
    let mark = "    tenant: [ { json: /entry";
    ROUTES.replacen(mark, &format!("    without_identity: {without_identity}\n{mark}"), 1)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_names_nobody_goes_where_without_identity_says() {
    let (legacy, new) = backends().await;
    let event = business_event();
    let for_everybody = "features:\n  NEW_SHOP: { type: boolean, enabled: true }\n";
    let for_most = "features:\n  NEW_SHOP: { type: percentage, enabled: true, percentage: 99 }\n";
    let for_all = "features:\n  NEW_SHOP: { type: percentage, percentage: 100 }\n";
    let but_one = "features:\n  NEW_SHOP: { type: boolean, enabled: true, denylist: [bert] }\n";
    let tenant = "features:\n  NEW_SHOP: { type: boolean, enabled: true, allowlist: [\"700800900100200\"] }\n";
    for (without, features, expected) in [
        ("legacy", for_everybody, "legacy"),
        ("legacy", tenant, "legacy"),
        ("follow", for_everybody, "new"),
        ("follow", for_all, "new"),
        ("follow", for_most, "legacy"),
        ("follow", but_one, "legacy"),
        ("tenant", tenant, "new"),
        ("tenant", &allow(&[&"700800900100201".to_owned()]), "legacy"),
    ] {
        let sidecar = Plan::new(&legacy, &new)
            .routes(&whatsapp(without))
            .features(features)
            .start();
        let answer = event.send(sidecar.address).await;
        assert_eq!(answer.text(), expected, "{without}, {features}");
        assert_eq!(unidentified(&sidecar, "no_match").await, 1.0, "{without}, {features}");
        // Whoever has a name is decided by it.
        let denied = "features:\n  NEW_SHOP: { type: boolean, enabled: true, denylist: [\"33639980123\"] }\n";
        sidecar.reload(denied).await.unwrap();
        assert_eq!(Case::load("wa-text").send(sidecar.address).await.text(), "legacy");
        if expected == "new" {
            sidecar.reload(features).await.unwrap();
            assert_eq!(sidecar.kill("whatsapp").await.status, 200);
            assert_eq!(
                event.send(sidecar.address).await.text(),
                "legacy",
                "a kill wins over {without}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_is_not_what_identity_reads_is_answered_by_legacy_and_counted() {
    let (legacy, new) = backends().await;
    let on = "features:\n  NEW_SHOP: { type: boolean, enabled: true }\n";
    let sidecar = Plan::new(&legacy, &new).routes(ROUTES).features(on).start();
    let text = [("content-type", "application/json")];
    let deep = "[".repeat(100_000);
    let bodies: [&[u8]; 8] = [
        b"this is no JSON",
        b"{\"entry\":[{\"changes\":[{\"value\":{\"messages\":[{\"from\":\"336",
        b"{\"entry\":[{\"changes\":[{\"value\":{\"messages\":[{\"from\":\"33639980123\"}]}}]}] trailing",
        b"\xff\xfe\x00{",
        b"{\"entry\": {{}}}",
        b"\x00",
        b"<xml/>",
        deep.as_bytes(),
    ];
    for (at, body) in bodies.iter().enumerate() {
        let shown = String::from_utf8_lossy(&body[..body.len().min(60)]).into_owned();
        let answer = post(sidecar.address, "/webhooks/whatsapp", &text, body.to_vec()).await;
        assert_eq!((answer.status, answer.text()), (200, "legacy"), "{shown}");
        assert_eq!(legacy.received()[at].body, *body, "{shown}");
        assert_eq!(unidentified(&sidecar, "not_readable").await, (at + 1) as f64, "{shown}");
    }
    // An empty body names nobody, and the sender's next proper message is served by new.
    assert_eq!(
        post(sidecar.address, "/webhooks/whatsapp", &text, "").await.text(),
        "legacy"
    );
    assert_eq!(Case::load("wa-text").send(sidecar.address).await.text(), "new");
    assert_eq!(
        get(sidecar.address, "/webhooks/whatsapp?hub.challenge=1", &[])
            .await
            .text(),
        "legacy"
    );
    // The header that stands behind the body in the list still names somebody.
    let named = [("x-shopper-id", "anna"), ("content-type", "application/json")];
    assert_eq!(
        post(sidecar.address, "/webhooks/whatsapp", &named, "{}").await.text(),
        "new"
    );
}

/// A signed batch of this size, for one shopper.
fn batch_of(bytes: usize) -> Case {
    let mut case = Case::load("wa-text");
    let words = "z".repeat(bytes - case.body.len());
    let body = std::str::from_utf8(&case.body)
        .unwrap()
        .replace("Bonjour", &format!("Bonjour{words}"));
    case.signed_over(body.into_bytes());
    assert_eq!(case.body.len(), bytes);
    case
}

const SHADOWED: &str = r#"
  - name: whatsapp
    match: { path: /webhooks/whatsapp }
    identity: [ { json: "/entry/*/changes/*/value/messages/*/from", normalise: digits } ]
    flag: NEW_SHOP
    shadow: { flag: true, methods: [POST] }
"#;

fn digest(body: &[u8]) -> [u8; 32] {
    Sha256::digest(body).into()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_of_three_megabytes_reach_both_sides_byte_for_byte() {
    let (legacy, new) = backends().await;
    let off = "features:\n  NEW_SHOP: { type: boolean, allowlist: [] }\n";
    let sidecar = Plan::new(&legacy, &new).routes(SHADOWED).features(off).start();
    let case = batch_of(3_000_000);
    for round in 1..=5 {
        assert_eq!(case.send(sidecar.address).await.text(), "legacy");
        let copies = new.wait_for(round).await;
        for received in [legacy.received().pop().unwrap(), copies[round - 1].clone()] {
            assert_eq!(digest(&received.body), digest(&case.body));
            assert!(signature_holds(&received));
        }
        assert!(copies[round - 1].is_copy());
    }
    deadline("the bodies to be let go", || sidecar.captured() == 0).await;
    // And it is this shopper's: on the list, new serves it.
    sidecar.reload(&allow(&[&case.identities[0]])).await.unwrap();
    assert_eq!(case.send(sidecar.address).await.text(), "new");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_over_the_cap_passes_whole_to_legacy_and_is_counted() {
    let legacy = Backend::answering(|received| Reply::text(sign(&received.body))).await;
    let new = Backend::saying("new").await;
    let on = "features:\n  NEW_SHOP: { type: boolean, enabled: true }\n";
    let plan = Plan::new(&legacy, &new).more("capture: { body: 64KiB, budget: 1MiB }");
    let sidecar = plan.routes(SHADOWED).features(on).start();
    let case = batch_of(3_000_000);
    for round in 1..=3 {
        let answer = case.send(sidecar.address).await;
        assert_eq!((answer.status, answer.text()), (200, &*sign(&case.body)));
        let received = legacy.received().pop().unwrap();
        assert_eq!(digest(&received.body), digest(&case.body));
        assert!(signature_holds(&received));
        assert_eq!(unidentified(&sidecar, "body_too_large").await, f64::from(round));
        assert!(sidecar.captured() <= 1 << 20);
    }
    let skipped = "understudy_copies_skipped_total";
    assert_eq!(sidecar.metric(skipped, &["reason=\"body_too_large\""]).await, 3.0);
    assert_eq!((new.count(), legacy.count()), (0, 3));
    deadline("the bodies to be let go", || sidecar.captured() == 0).await;
    // Just under the cap, it is read as ever.
    assert_eq!(batch_of(64 << 10).send(sidecar.address).await.text(), "new");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_over_long_key_is_no_identity_and_is_never_cut() {
    let (legacy, new) = backends().await;
    let longest = "k".repeat(1_024);
    let sidecar = Plan::new(&legacy, &new)
        .route("flag: NEW_SHOP")
        .features(&allow(&[&longest]))
        .start();
    let address = sidecar.address;
    let send = |key: String| async move { get(address, "/", &[("x-shopper-id", &key)]).await.text().to_owned() };
    assert_eq!(send(longest.clone()).await, "new");
    assert_eq!(send(format!("{longest}k")).await, "legacy");
    assert_eq!(unidentified(&sidecar, "too_long").await, 1.0);
}
