//! What one evaluation costs among a thousand flags, beside the engines of Unleash and LaunchDarkly, and what compiling costs.
//!
//! Each engine is asked by the flag's key, with another shopper every time, as a service would ask it; ours also by the flag's
//! place, as the data plane asks it, which resolves keys when rules are compiled. Before anything is timed, every line is
//! checked to answer as it is meant to, and our evaluations to allocate nothing.
#![allow(missing_docs, reason = "criterion_group! makes an undocumented function")]

use std::alloc::System;
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;
use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use launchdarkly_server_sdk_evaluation as launchdarkly;
use serde_json::json;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use understudy::engine::decide::Copies;
use understudy::engine::flags::{Asked, Flags};
use understudy::engine::ruleset::document::Document;
use understudy::engine::ruleset::problem::Problems;
use understudy::engine::ruleset::{Input, Ruleset, compile};
use understudy::engine::vocab::Revision;
use unleash_yggdrasil as yggdrasil;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Flags of each engine.
const FLAGS: usize = 1_000;

/// Different shoppers, of whom every second is in the lists.
const SHOPPERS: usize = 1_000;

/// What the asked flag is.
#[derive(Clone, Copy)]
enum Kind {
    /// On for everybody.
    Plain,
    /// On for a quarter.
    Percentage,
    /// On for the listed, so many of them.
    Allowlist(usize),
}

impl Kind {
    fn name(self) -> String {
        match self {
            Kind::Plain => "plain".into(),
            Kind::Percentage => "percentage".into(),
            Kind::Allowlist(ids) => format!("allowlist of {ids}"),
        }
    }

    /// For how many of [`SHOPPERS`] it must be on, at least and at most.
    fn expected(self) -> (usize, usize) {
        match self {
            Kind::Plain => (SHOPPERS, SHOPPERS),
            Kind::Percentage => (SHOPPERS / 5, SHOPPERS * 3 / 10),
            Kind::Allowlist(_) => (SHOPPERS / 2, SHOPPERS / 2),
        }
    }
}

fn key(n: usize) -> String {
    format!("checkout-flag-{n:04}")
}

fn shopper(n: usize) -> String {
    format!("44770{n:07}")
}

/// The shoppers who ask: every second is among the first of any list.
fn askers() -> Vec<String> {
    (0..SHOPPERS)
        .map(|n| shopper(if n % 2 == 0 { n / 2 } else { 9_000_000 + n }))
        .collect()
}

/// Which flags are asked. A list stands in one flag: a million ids a thousand times over is nobody's configuration.
fn asked(kind: Kind) -> Vec<String> {
    match kind {
        Kind::Plain | Kind::Percentage => (0..FLAGS).map(key).collect(),
        Kind::Allowlist(_) => vec![key(FLAGS / 2)],
    }
}

fn members(kind: Kind) -> String {
    match kind {
        Kind::Plain => "type: boolean, enabled: true".into(),
        Kind::Percentage => "type: percentage, percentage: 25, enabled: true".into(),
        Kind::Allowlist(ids) => {
            let list: Vec<String> = (0..ids).map(shopper).collect();
            format!("type: boolean, enabled: true, allowlist: [{}]", list.join(", "))
        }
    }
}

fn file(kind: Kind, count: usize) -> String {
    let asked = asked(kind);
    let mut file = String::from("features:\n");
    for key in (0..count).map(key) {
        let members = members(if asked.contains(&key) { kind } else { Kind::Plain });
        // Writing to a String cannot fail.
        let _ = writeln!(file, "  {key}: {{ {members} }}");
    }
    file
}

fn rules(file: &str) -> Ruleset {
    let mut problems = Problems::default();
    let document = Document::parse(&"features.yaml".into(), file, &mut problems);
    let input = Input {
        revision: Revision(1),
        environment: "production",
        document,
        runtime: Default::default(),
        variables: &BTreeMap::new(),
        routes: Vec::new(),
        copies: [Copies::DryRun; 2],
        now_ms: 0,
        previous: None,
        marks: &[],
        problems,
    };
    compile(input).expect("the rules above are good").0
}

fn unleash(kind: Kind) -> yggdrasil::EngineState {
    let asked = asked(kind);
    let feature = |key: String| {
        let strategies = match kind {
            _ if !asked.contains(&key) => json!([]),
            Kind::Plain => json!([]),
            Kind::Percentage => json!([{
                "name": "flexibleRollout",
                "parameters": { "rollout": "25", "stickiness": "userId", "groupId": key },
            }]),
            Kind::Allowlist(ids) => {
                let list: Vec<String> = (0..ids).map(shopper).collect();
                json!([{ "name": "userWithId", "parameters": { "userIds": list.join(",") } }])
            }
        };
        json!({ "name": key, "enabled": true, "strategies": strategies })
    };
    let features: Vec<_> = (0..FLAGS).map(key).map(feature).collect();
    let state = serde_json::from_value(json!({ "version": 2, "features": features })).expect("its own format");
    let engine = yggdrasil::EngineState::default();
    assert!(
        engine
            .apply_client_features(state)
            .is_none_or(|warnings| warnings.is_empty())
    );
    engine
}

struct NoStore;

impl launchdarkly::Store for NoStore {
    fn flag(&self, _key: &str) -> Option<launchdarkly::Flag> {
        None
    }

    fn segment(&self, _key: &str) -> Option<launchdarkly::Segment> {
        None
    }
}

/// Its flags by their keys, borrowed: the cheapest store that a service could have.
fn darkly(kind: Kind) -> HashMap<String, launchdarkly::Flag> {
    let asked = asked(kind);
    let flag = |key: String| {
        let mut flag = json!({
            "key": key, "version": 1, "on": true, "targets": [], "rules": [], "prerequisites": [], "salt": key,
            "variations": [false, true], "offVariation": 0, "fallthrough": { "variation": 1 }, "clientSide": false,
        });
        match kind {
            _ if !asked.contains(&key) => {}
            Kind::Plain => {}
            Kind::Percentage => {
                flag["fallthrough"] = json!({ "rollout": { "variations": [
                    { "variation": 1, "weight": 25_000 }, { "variation": 0, "weight": 75_000 },
                ] } });
            }
            Kind::Allowlist(ids) => {
                let list: Vec<String> = (0..ids).map(shopper).collect();
                flag["fallthrough"] = json!({ "variation": 0 });
                flag["targets"] = json!([{ "values": list, "variation": 1 }]);
            }
        }
        (key, serde_json::from_value(flag).expect("its own format"))
    };
    (0..FLAGS).map(key).map(flag).collect()
}

/// Times `ask(flag, shopper)` over many flags and shoppers, after it has been seen to answer as `kind` must.
fn line(
    group: &mut criterion::BenchmarkGroup<'_, criterion::measurement::WallTime>,
    engine: &str,
    kind: Kind,
    flags: usize,
    ask: impl Fn(usize, usize) -> bool,
) {
    let on = (0..SHOPPERS).filter(|shopper| ask(shopper % flags, *shopper)).count();
    let (least, most) = kind.expected();
    assert!((least..=most).contains(&on), "{engine}, {}: on for {on}", kind.name());
    let mut n = 0;
    group.bench_function(BenchmarkId::from_parameter(engine), |bench| {
        bench.iter(|| {
            // Coprime to both, so that no flag and no shopper is learned by heart.
            n = (n + 617) % (FLAGS * SHOPPERS);
            black_box(ask(black_box(n % flags), black_box(n % SHOPPERS)))
        });
    });
}

fn ours(flags: &Flags, key: &str, shopper: &str) -> bool {
    let Some(at) = flags.find(key) else { return false };
    flags
        .evaluate(at, &Asked::new(Some(shopper), 1_786_320_000_000))
        .enabled
}

fn evaluations(criterion: &mut Criterion) {
    let askers = askers();
    for kind in [
        Kind::Plain,
        Kind::Percentage,
        Kind::Allowlist(10_000),
        Kind::Allowlist(1_000_000),
    ] {
        let rules = rules(&file(kind, FLAGS));
        let (flags, keys) = (rules.flags(), asked(kind));
        let places: Vec<_> = keys
            .iter()
            .map(|key| flags.find(key).expect("it was compiled"))
            .collect();

        let before = Region::new(ALLOCATOR);
        let on = (0..SHOPPERS)
            .filter(|n| ours(flags, &keys[n % keys.len()], &askers[*n]))
            .count();
        let allocated = before.change();
        assert_eq!(
            allocated.allocations + allocated.reallocations,
            0,
            "evaluating {} allocates",
            kind.name()
        );
        assert!(on > 0);

        let mut group = criterion.benchmark_group(kind.name());
        line(&mut group, "understudy", kind, keys.len(), |flag, shopper| {
            ours(flags, &keys[flag], &askers[shopper])
        });
        line(&mut group, "understudy by place", kind, keys.len(), |flag, shopper| {
            let asked = Asked::new(Some(&askers[shopper]), 1_786_320_000_000);
            flags.evaluate(places[flag], &asked).enabled
        });

        let engine = unleash(kind);
        let contexts: Vec<yggdrasil::Context> = askers
            .iter()
            .map(|id| yggdrasil::Context {
                user_id: Some(id.clone()),
                ..yggdrasil::Context::default()
            })
            .collect();
        line(&mut group, "unleash-yggdrasil", kind, keys.len(), |flag, shopper| {
            engine.is_enabled(&keys[flag], &contexts[shopper], &None)
        });

        let engine = darkly(kind);
        let contexts: Vec<launchdarkly::Context> = askers
            .iter()
            .map(|id| launchdarkly::ContextBuilder::new(id).build().expect("a user"))
            .collect();
        line(
            &mut group,
            "launchdarkly-server-sdk-evaluation",
            kind,
            keys.len(),
            |flag, shopper| {
                let Some(flag) = engine.get(&keys[flag]) else {
                    return false;
                };
                let detail = launchdarkly::evaluate(&NoStore, flag, &contexts[shopper], None);
                detail
                    .value
                    .is_some_and(|value| matches!(value, launchdarkly::FlagValue::Bool(true)))
            },
        );
        group.finish();
    }
}

fn compiling(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("compile");
    group.sample_size(10);
    let file = file(Kind::Percentage, 10_000);
    group.bench_function("10000 flags", |bench| bench.iter(|| rules(black_box(&file))));
    group.finish();
}

criterion_group!(all, evaluations, compiling);
criterion_main!(all);
