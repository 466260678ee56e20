//! What one outcome costs the guard.
//!
//! `route` is a guard with one error and one latency budget, fed by 1,000 shoppers, unless the name says otherwise.

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use understudy::engine::guard::{
    Action, Budget, HELD_LIMIT, KillSet, KillTarget, Metric, Outcome, Relation, RouteGuard, Run, Tolerance,
};
use understudy::engine::vocab::{Epoch, RouteKey, Side, SubjectHash};

fn route() -> RouteKey {
    RouteKey::parse("whatsapp").expect("a key")
}

fn budgets() -> [Budget; 2] {
    [("errors", Metric::ErrorRate), ("slow", Metric::LatencyP95)].map(|(name, metric)| Budget {
        name: name.into(),
        metric,
        tolerate: Tolerance::DEFAULT,
        action: Action::Kill,
        ok: Vec::new(),
    })
}

fn hash(n: u64) -> SubjectHash {
    SubjectHash(n.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29))
}

/// The n-th pair: new fails at every `failing`-th.
fn pair(n: u64, failing: u64) -> Outcome {
    let latency = Duration::from_micros(10_000 + n % 977 * 13);
    let status = if n.is_multiple_of(failing) { 500 } else { 200 };
    Outcome {
        at: Duration::from_micros(100 * n),
        epoch: Epoch(0),
        subject: Some(hash(n % 1_000)),
        served: Side::Legacy,
        by_percent: true,
        new: Some(Run::answered(status, latency)),
        legacy: Some(Run::answered(200, latency)),
        relation: Relation::Pair,
        horizon: Duration::from_secs(10),
    }
}

fn observe(c: &mut Criterion) {
    for (name, budgets, failing) in [
        ("observe/pair/no_budget", &[][..], u64::MAX),
        ("observe/pair/2_budgets", &budgets()[..], u64::MAX),
        ("observe/pair/2_budgets/10_percent_failing", &budgets()[..], 10),
    ] {
        c.bench_function(name, |bencher| {
            let mut guard = RouteGuard::new(route(), budgets);
            let mut n = 1;
            bencher.iter(|| {
                n += 1;
                black_box(guard.observe(black_box(&pair(n, failing))))
            });
        });
    }
}

fn kills(c: &mut Criterion) {
    let mut kills = KillSet::default();
    (0..HELD_LIMIT as u64).for_each(|n| {
        kills.kill(KillTarget::Subject(route(), hash(n)), "poisonous", "guard", 0);
    });
    let key = route();
    c.bench_function("kills/is_held/10000_held", |bencher| {
        let mut n = 0;
        bencher.iter(|| {
            n += 1;
            black_box(kills.is_held(&key, hash(n % 20_000)))
        });
    });
    c.bench_function("kills/clone/10000_held", |bencher| {
        bencher.iter(|| black_box(kills.clone()));
    });
}

criterion_group!(benches, observe, kills);
criterion_main!(benches);
