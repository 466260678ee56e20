//! What it costs to name a request's shoppers. Each name carries the size of the body in bytes.
//!
//! The bar is 1 us for 1.2 KB of JSON. `dense` bodies repeat a message's whole `changes` member, so that the share of names
//! and brackets is that of a real message at any size.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use http::HeaderMap;
use understudy::engine::identity::{Entry, Extraction, Keying, Plan, Pointer, RequestView, Source};

const CASES: [(&str, &str); 5] = [
    ("text", include_str!("../tests/payloads/wa-text.json")),
    ("status", include_str!("../tests/payloads/wa-status-delivered.json")),
    ("user_id", include_str!("../tests/payloads/wa-user-id-only.json")),
    (
        "two_senders",
        include_str!("../tests/payloads/wa-batch-two-senders.json"),
    ),
    ("account_event", include_str!("../tests/payloads/wa-account-event.json")),
];

fn json(pointers: &[&str]) -> Source {
    Source::Json(
        pointers
            .iter()
            .map(|text| Pointer::parse(text).expect("a pointer"))
            .collect(),
    )
}

/// The identity list of the shipped configuration.
fn identity() -> Plan {
    let messages = json(&[
        "/entry/*/changes/*/value/messages/*/from",
        "/entry/*/changes/*/value/messages/*/from_user_id",
    ]);
    let statuses = json(&["/entry/*/changes/*/value/statuses/*/recipient_id"]);
    Plan::compile(&[
        Entry::All(vec![(messages, Keying::DIGITS), (statuses, Keying::DIGITS)]),
        Entry::One(
            Source::Header(http::HeaderName::from_static("x-shopper-id")),
            Keying::AS_WRITTEN,
        ),
    ])
    .expect("a plan")
}

fn tenant() -> Plan {
    let number = json(&["/entry/*/changes/*/value/metadata/phone_number_id"]);
    Plan::compile(&[Entry::One(number, Keying::AS_WRITTEN)]).expect("a plan")
}

fn body(case: &str) -> String {
    let case: serde_json::Value = serde_json::from_str(case).expect("a case");
    case["request"]["body"].as_str().expect("a body").to_owned()
}

/// The body with its one `changes` member repeated until it has at least this many bytes.
fn dense(body: &str, bytes: usize) -> String {
    let (head, rest) = body.split_once("\"changes\":[").expect("changes");
    let (change, tail) = rest.split_at(rest.len() - "]}]}".len());
    let mut dense = format!("{head}\"changes\":[{change}");
    while dense.len() + tail.len() < bytes {
        dense.push(',');
        dense.push_str(change);
    }
    dense + tail
}

fn bench(criterion: &mut Criterion, name: &str, plan: &Plan, body: &str) {
    let headers = HeaderMap::new();
    let view = RequestView {
        path: "/webhook/whatsapp",
        query: None,
        headers: &headers,
        body: Some(body.as_bytes()),
    };
    assert_ne!(
        plan.extract(&view),
        Extraction::Nobody(understudy::engine::identity::Nobody::NotReadable)
    );
    criterion.bench_function(&format!("{name}_{}B", body.len()), |bencher| {
        bencher.iter(|| black_box(plan.extract(black_box(&view))));
    });
}

/// The peer: what a generic deserialiser takes to find the same senders and recipients.
mod peer {
    use serde::Deserialize;

    #[derive(Deserialize)]
    pub struct Body<'a> {
        #[serde(borrow)]
        entry: Vec<Item<'a>>,
    }
    #[derive(Deserialize)]
    struct Item<'a> {
        #[serde(borrow)]
        changes: Vec<Change<'a>>,
    }
    #[derive(Deserialize)]
    struct Change<'a> {
        #[serde(borrow)]
        value: Value<'a>,
    }
    #[derive(Deserialize)]
    struct Value<'a> {
        #[serde(borrow, default)]
        messages: Vec<Message<'a>>,
        #[serde(borrow, default)]
        statuses: Vec<Status<'a>>,
    }
    #[derive(Deserialize)]
    struct Message<'a> {
        from: Option<&'a str>,
        from_user_id: Option<&'a str>,
    }
    #[derive(Deserialize)]
    struct Status<'a> {
        recipient_id: Option<&'a str>,
    }

    pub fn first(body: &str) -> Option<String> {
        let body: Body<'_> = serde_json::from_str(body).ok()?;
        let values = || {
            body.entry
                .iter()
                .flat_map(|item| &item.changes)
                .map(|change| &change.value)
        };
        let messages = values()
            .flat_map(|value| &value.messages)
            .filter_map(|message| message.from.or(message.from_user_id));
        let statuses = values()
            .flat_map(|value| &value.statuses)
            .filter_map(|status| status.recipient_id);
        messages.chain(statuses).next().map(str::to_owned)
    }
}

fn bench_peer(criterion: &mut Criterion, body: &str) {
    assert!(peer::first(body).is_some());
    criterion.bench_function(&format!("peer/serde_json_whatsapp_dense_{}B", body.len()), |bencher| {
        bencher.iter(|| black_box(peer::first(black_box(body))));
    });
}

fn benches(criterion: &mut Criterion) {
    let (identity, tenant) = (identity(), tenant());
    for (name, case) in CASES {
        bench(criterion, &format!("identity/whatsapp_{name}"), &identity, &body(case));
    }
    let text = body(CASES[0].1);
    bench(criterion, "identity/whatsapp_dense", &identity, &dense(&text, 1200));
    bench(criterion, "tenant/whatsapp_dense", &tenant, &dense(&text, 1200));
    bench_peer(criterion, &dense(&text, 1200));
    bench(
        criterion,
        "identity/whatsapp_dense",
        &identity,
        &dense(&text, 3_000_000),
    );
}

criterion_group!(group, benches);
criterion_main!(group);
