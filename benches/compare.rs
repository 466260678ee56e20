//! What comparing two answers costs.
//!
//! Measures `compare` on equal and on differing bodies, each beside the obvious way to do it, which is to parse both with
//! serde_json and ask whether the values are equal; that way names no place and confuses large numbers.

use std::fmt::Write as _;
use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use http::HeaderMap;
use understudy::engine::compare::{Answer, Body, Comparison, Headers, Pattern, Rules, Verdict, compare};

/// An order of `items` items, 8 members each, whose prices are raised where `changed` says so.
fn order(items: usize, changed: impl Fn(usize) -> bool) -> String {
    let mut body = String::from(r#"{"order":"o-1842","currency":"EUR","items":["#);
    for item in 0..items {
        let separator = if item == 0 { "" } else { "," };
        let price = if changed(item) { 20 } else { 19 };
        let _ = write!(
            body,
            r#"{separator}{{"id":{item},"sku":"A-{item:05}","name":"Cup with handle","price":{price}.95,"quantity":2,"gift":false,"note":null,"tags":["new","sale"]}}"#
        );
    }
    body.push_str(r#"],"total":39.90}"#);
    body
}

/// One flat object of 30 members and about 1 KB; every fourth differs where `changed` says so, which is 8.
fn flat(changed: bool) -> String {
    let members = (0..30).map(|n| {
        let value = if changed && n % 4 == 0 { "changed" } else { "as it was" };
        format!(r#""member_{n:02}":"{value} {n:09}""#)
    });
    format!("{{{}}}", members.collect::<Vec<_>>().join(","))
}

fn run(rules: &Rules, headers: &HeaderMap, legacy: &str, new: &str) -> Comparison {
    let answer = |body| Answer {
        status: 200,
        headers,
        body: Body::Bytes(body),
    };
    compare(rules, &answer(legacy.as_bytes()), &answer(new.as_bytes()))
}

fn bodies(c: &mut Criterion) {
    let headers = HeaderMap::new();
    let patterns = ["/timestamp", "/items/*/id", "/**/request_id"].map(|text| Pattern::parse(text).expect("a pattern"));
    let rules = Rules::new(
        patterns.to_vec(),
        Headers::Chosen(vec![http::header::CONTENT_TYPE]),
        Vec::new(),
    );

    let cases = [
        ("equal_1KB", flat(false), flat(false), 0),
        ("8_of_30_members_differ_1KB", flat(false), flat(true), 8),
        (
            "1_of_800_items_differs_100KB",
            order(800, |_| false),
            order(800, |item| item == 400),
            1,
        ),
        (
            "all_800_items_differ_100KB",
            order(800, |_| false),
            order(800, |_| true),
            800,
        ),
        (
            "all_25000_items_differ_3MB",
            order(25_000, |_| false),
            order(25_000, |_| true),
            25_000,
        ),
    ];
    let mut group = c.benchmark_group("compare");
    for (name, legacy, new, differences) in &cases {
        let found = run(&rules, &headers, legacy, new);
        assert_eq!(found.total(), *differences, "{name}");
        assert_eq!(found.verdict == Verdict::Same, *differences == 0, "{name}");
        group.throughput(Throughput::Bytes(legacy.len() as u64));
        group.bench_function(BenchmarkId::new("understudy", name), |b| {
            b.iter(|| run(black_box(&rules), &headers, black_box(legacy), black_box(new)));
        });
        group.bench_function(BenchmarkId::new("serde_json_equality", name), |b| {
            b.iter(|| {
                let parse = |body: &str| serde_json::from_str::<serde_json::Value>(body).expect("JSON");
                parse(black_box(legacy)) == parse(black_box(new))
            });
        });
    }
    group.finish();
}

criterion_group!(benches, bodies);
criterion_main!(benches);
