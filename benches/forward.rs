//! What it costs to make a request's head fit for a backend, and an answer's for the client: heads of 9 and 7 lines.
#![allow(missing_docs, reason = "criterion_group! makes an undocumented function")]

use std::hint::black_box;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use http::{HeaderMap, HeaderValue};
use understudy::proxy::forward::{prepare_answer, prepare_request};
use understudy::proxy::provenance::Provenance;
use understudy::proxy::socket::{Peer, Protocol, Scheme};

fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in lines {
        map.append(*name, HeaderValue::from_static(value));
    }
    map
}

fn forward(criterion: &mut Criterion) {
    let from = Provenance::of(&Peer {
        address: "192.0.2.1:5000".parse().ok(),
        local_port: Some(8080),
        scheme: Scheme::Http,
        protocol: Protocol::Any,
    });
    let request = headers(&[
        ("host", "shop.example"),
        ("user-agent", "curl/8.0"),
        ("accept", "*/*"),
        ("accept-encoding", "gzip, br"),
        ("content-type", "application/json"),
        ("content-length", "1200"),
        ("cookie", "session=0123456789abcdef"),
        ("authorization", "Bearer 0123456789abcdef"),
        ("x-shopper-id", "user_42"),
    ]);
    let mut behind = request.clone();
    behind.insert("connection", HeaderValue::from_static("keep-alive"));
    behind.insert("x-forwarded-for", HeaderValue::from_static("203.0.113.1, 198.51.100.7"));
    behind.insert("x-forwarded-proto", HeaderValue::from_static("https"));
    let trusted = ["192.0.2.0/24".parse().expect("a network")];
    let answer = headers(&[
        ("date", "Thu, 01 Jan 1970 00:00:00 GMT"),
        ("server", "legacy"),
        ("content-type", "application/json"),
        ("content-length", "1024"),
        ("cache-control", "no-store"),
        ("etag", "\"abc\""),
        ("connection", "keep-alive"),
    ]);
    let mut group = criterion.benchmark_group("forward");
    for (name, head, trusted) in [
        ("request_of_9_lines", &request, None),
        (
            "request_of_12_lines_behind_a_trusted_proxy",
            &behind,
            Some(&trusted[..]),
        ),
    ] {
        group.bench_function(name, |bencher| {
            bencher.iter_batched_ref(
                || head.clone(),
                |headers| prepare_request(black_box(headers), &from, trusted, false),
                BatchSize::SmallInput,
            );
        });
    }
    group.bench_function("answer_of_7_lines", |bencher| {
        bencher.iter_batched_ref(
            || answer.clone(),
            |headers| prepare_answer(black_box(headers), false),
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

criterion_group!(benches, forward);
criterion_main!(benches);
