//! What one decision costs among a thousand flags, and what finding its route costs among a thousand routes.
#![allow(missing_docs, reason = "criterion_group! makes an undocumented function")]

use std::collections::BTreeMap;
use std::fmt::Write;
use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use http::{HeaderMap, Method};
use understudy::engine::decide::{Copies, KillBits, Request};
use understudy::engine::flags::{FlagKills, NoAttributes, Threshold};
use understudy::engine::ruleset::document::Document;
use understudy::engine::ruleset::problem::{Place, Problems};
use understudy::engine::ruleset::route::{Failover, RouteMatch, RouteSpec, ShadowSpec, Switch, WithoutIdentity};
use understudy::engine::ruleset::{Input, Ruleset, compile};
use understudy::engine::vocab::{ExchangeId, FlagKey, Now, Revision, RouteKey};
use understudy::engine::{compare, identity};

const COUNT: usize = 1_000;

fn route(n: usize, sample: Threshold) -> RouteSpec {
    let place = Place::whole("bench");
    let flag = FlagKey::parse(&format!("flag-{n:04}")).expect("letters, digits and `-`");
    let mut shadow = ShadowSpec::new(Switch::Constant(true), &place);
    shadow.threshold = sample;
    RouteSpec {
        key: RouteKey::parse(&format!("route-{n:04}")).expect("letters, digits and `-`"),
        place: place.clone(),
        matcher: RouteMatch {
            path: format!("/webhook/service-{n:04}"),
            methods: vec![Method::GET],
            headers: Vec::new(),
        },
        identity: identity::Plan::default(),
        tenant: identity::Plan::default(),
        attributes: identity::attributes::Attributes::default(),
        without_identity: WithoutIdentity::Legacy,
        flag: Switch::Flag(flag, place),
        when_off: None,
        shadow_mode: None,
        shadow,
        dual_run: Switch::Constant(true),
        failover: Failover::default(),
        compare: compare::Rules::default(),
        budgets: Vec::new(),
        ok_statuses: Vec::new(),
    }
}

fn rules(members: &str, sample: Threshold) -> Ruleset {
    let mut file = String::from("features:\n");
    for n in 0..COUNT {
        let _ = writeln!(file, "  flag-{n:04}: {{ type: percentage, percentage: 25.5{members} }}");
    }
    let mut problems = Problems::default();
    let document = Document::parse(&"features.yaml".into(), &file, &mut problems);
    let input = Input {
        revision: Revision(1),
        environment: "production",
        document,
        runtime: Default::default(),
        variables: &BTreeMap::new(),
        routes: (0..COUNT).map(|n| route(n, sample)).collect(),
        copies: [Copies::DryRun; 2],
        now_ms: 0,
        previous: None,
        marks: &[],
        problems,
    };
    compile(input).expect("the rules above are good").0
}

/// Each round takes another route and another shopper, so that nothing is decided from a warm branch predictor alone.
fn decide(criterion: &mut Criterion, name: &str, rules: &Ruleset) {
    let subjects: Vec<String> = (0..COUNT).map(|n| format!("336399{n:05}")).collect();
    let routes: Vec<_> = rules.routes().map(|(at, _)| at).collect();
    let mut n = 0;
    criterion.bench_function(name, |bench| {
        bench.iter(|| {
            n = (n + 617) % COUNT;
            let request = Request {
                method: &Method::GET,
                subjects: std::iter::once(subjects[n].as_str()),
                tenant: None,
                exchange: ExchangeId(n as u128),
                attributes: &NoAttributes,
                kills: KillBits::NONE,
                flag_kills: FlagKills::NONE,
                held: false,
                now: Now {
                    monotonic: Duration::ZERO,
                    unix_ms: 1_786_320_000_000,
                },
            };
            black_box(rules.decide(rules.route(routes[n]), black_box(&request)))
        });
    });
}

fn benches(criterion: &mut Criterion) {
    let rules = rules("", Threshold::ALL);
    decide(criterion, "decide/1000_flags", &rules);
    // Two more hashes and a list that is somewhere else in memory.
    let listed = self::rules(
        ", denylist: [somebody, somebody-else]",
        Threshold::from_buckets(500_000),
    );
    decide(criterion, "decide/1000_flags_listed_and_sampled", &listed);

    let paths: Vec<String> = (0..COUNT)
        .map(|n| format!("/webhook/service-{n:04}/messages"))
        .collect();
    let headers = HeaderMap::new();
    let mut n = 0;
    criterion.bench_function("route_for/1000_routes", |bench| {
        bench.iter(|| {
            n = (n + 617) % COUNT;
            black_box(rules.route_for(&Method::GET, black_box(&paths[n]), &headers))
        });
    });
}

criterion_group!(all, benches);
criterion_main!(all);
