//! The cases of `tests/spec/flags`.

use serde_json::Value as Json;

use super::World;
use crate::engine::explain;
use crate::engine::flags::{Asked, Context, FlagKills};
use crate::engine::ruleset::document::Instant;
use crate::engine::ruleset::problem::{Problem, Severity};

fn cases(text: &str, member: &str) -> Vec<Json> {
    let mut spec: Json = serde_json::from_str(text).unwrap();
    let Json::Array(cases) = spec[member].take() else {
        panic!("no {member}")
    };
    assert!(!cases.is_empty());
    cases
}

fn check_worlds(text: &str) {
    for case in cases(text, "worlds") {
        let about = &case["about"];
        let file = (!case["file"].is_null()).then(|| case["file"].to_string());
        let mut world = World::new(file.as_deref(), &[]);
        world.environment = case["environment"].as_str().unwrap();
        for (name, text) in case["variables"].as_object().unwrap() {
            world.variables.insert(name.clone(), text.as_str().unwrap().to_owned());
        }
        let rules = world.rules();
        let flags = rules.flags();
        let killed = case["killed"].as_array().into_iter().flatten();
        let killed = killed.map(|key| flags.find(key.as_str().unwrap()).unwrap().index());
        let kills = FlagKills::collect(false, killed);
        for ask in case["ask"].as_array().unwrap() {
            let at = ask["at"].as_str().or_else(|| case["at"].as_str());
            let at = at.and_then(Instant::parse).unwrap();
            let attributes: Context = match &ask["attributes"] {
                Json::Null => Context::default(),
                object => serde_json::from_str(&object.to_string()).unwrap(),
            };
            let flag = ask["flag"].as_str().unwrap();
            let asked = Asked {
                attributes: &attributes,
                kills: &kills,
                killed: flags.find(flag).is_some_and(|at| kills.has(at)),
                ..Asked::new(ask["subject"].as_str(), at.0)
            };
            let record = explain::record(flags, flag, &asked);
            let found: Json = serde_json::from_str(&serde_json::to_string(&record).unwrap()).unwrap();
            for (member, expected) in ask.as_object().unwrap() {
                if !matches!(&**member, "subject" | "attributes" | "at") {
                    assert_eq!(found[member], *expected, "{about}: {member} of {ask}");
                }
            }
            if found["value"].is_boolean() {
                assert_eq!(
                    found["variant"],
                    if found["value"] == true { "on" } else { "off" },
                    "{ask}"
                );
            }
        }
    }
}

#[test]
fn lines_lists_and_variables_agree_with_the_specification() {
    check_worlds(include_str!("../../../../tests/spec/flags/evaluate.json"));
}

#[test]
fn c18_targeting_agrees_with_the_specification() {
    check_worlds(include_str!("../../../../tests/spec/flags/targeting.json"));
}

#[test]
fn variants_and_prerequisites_agree_with_the_specification() {
    check_worlds(include_str!("../../../../tests/spec/flags/variants.json"));
}

fn file_of(case: &Json) -> String {
    match &case["file"] {
        Json::Null => serde_json::json!({ "features": { "f": case["flag"] } }).to_string(),
        file => file.to_string(),
    }
}

fn check_said(case: &Json, said: &[Problem], severity: Severity) {
    let (says, at) = (case["says"].as_str().unwrap(), case["at"].as_str().unwrap());
    let fits = |problem: &Problem| {
        problem.severity == severity
            && problem.path.starts_with(at)
            && format!("{}. {}", problem.what, problem.remedy).contains(says)
    };
    assert!(said.iter().any(fits), "{case}\n{said:#?}");
    assert!(
        said.iter().all(|problem| problem.place.line > 0 || at.is_empty()),
        "{said:#?}"
    );
}

#[test]
fn bad_input_is_refused_with_place_and_remedy() {
    for case in cases(include_str!("../../../../tests/spec/flags/refused.json"), "cases") {
        let Err(said) = World::new(file_of(&case).as_str(), &[]).compile() else {
            panic!("compiles: {case}")
        };
        check_said(&case, &said, Severity::Problem);
        let problems: Vec<&Problem> = said.iter().filter(|said| said.severity == Severity::Problem).collect();
        assert_eq!(problems.len(), 1, "{case}\n{problems:#?}");
        assert!(!problems[0].remedy.is_empty(), "{case}");
    }
}

#[test]
fn odd_input_compiles_and_is_warned_of() {
    for case in cases(include_str!("../../../../tests/spec/flags/warned.json"), "cases") {
        let said = World::new(file_of(&case).as_str(), &[])
            .compile()
            .unwrap_or_else(|said| panic!("{case} {said:#?}"))
            .1;
        check_said(&case, &said, Severity::Warning);
        assert_eq!(said.len(), 1, "{case}\n{said:#?}");
    }
}

const EXAMPLE: &str = include_str!("../../../../tests/spec/flags/example.yaml");

#[test]
fn file_with_every_kind_of_flag_compiles_and_answers() {
    let (rules, warnings) = World::new(EXAMPLE, &[]).compile().unwrap();
    assert!(warnings.is_empty(), "{warnings:#?}");
    let ask = |flag: &str, subject: &str, attributes: &str, at: &str| {
        let attributes: Context = serde_json::from_str(attributes).unwrap();
        let asked = Asked {
            attributes: &attributes,
            ..Asked::new(Some(subject), Instant::parse(at).unwrap().0)
        };
        let record = explain::record(rules.flags(), flag, &asked);
        let rule = record.rule.map(|rule| format!(" {rule}")).unwrap_or_default();
        format!("{} {}{rule}", record.variant, record.reason)
    };
    let gateway = |subject, attributes| ask("WHATSAPP_GATEWAY_ENABLED", subject, attributes, "2026-08-16T12:00:00Z");
    assert_eq!(gateway("shopper_bad_001", "{}"), "off denylist");
    assert_eq!(gateway("tenant-admin", "{}"), "on beta_user");
    assert_eq!(gateway("shopper_007", "{}"), "on targeting 1");
    assert_eq!(
        gateway("s", r#"{"email": "a@example.com", "country": "US"}"#),
        "on targeting 1"
    );
    assert_eq!(
        gateway("s", r#"{"plan": "premium", "country": "DE"}"#),
        "on targeting 3"
    );
    assert_eq!(
        gateway("s", r#"{"engagement_score": 81, "country": "PT"}"#),
        "off targeting engaged-abroad"
    );
    assert!(gateway("s", r#"{"engagement_score": 81, "country": "DE"}"#).contains(" percent"));
    assert_eq!(
        ask("checkout_flow", "s", "{}", "2026-08-16T12:00:00Z")
            .split_once(' ')
            .unwrap()
            .1,
        "split"
    );
    let half = (0..10_000)
        .filter(|n| ask("database_migration", &format!("user_{n}"), "{}", "2026-08-16T12:00:00Z") == "on percent");
    assert!((4_800..=5_200).contains(&half.count()));
}

/// The same variants in another order, or under other weights that mean the same.
fn variants_of(members: &str) -> Vec<String> {
    let file = format!("features: {{ f: {{ type: variant, {members} }} }}");
    let rules = World::new(file.as_str(), &[]).rules();
    let users = (0..1_000).map(|n| format!("user_{n}"));
    let told = users.map(|user| {
        explain::record(rules.flags(), "f", &Asked::new(Some(&user), 0))
            .variant
            .to_owned()
    });
    told.collect()
}

#[test]
fn c9_variants_are_walked_in_their_declared_order_whatever_their_names() {
    let list = "variants: [ { name: z, weight: 0.5 }, { name: control, weight: 0.25 }, { name: a, weight: 0.25 } ]";
    let map = "variants: { z: { weight: 0.5 }, control: { weight: 0.25 }, a: { weight: 0.25 } }";
    let first = variants_of(list);
    assert_eq!(first, variants_of(list), "the same in every run");
    assert_eq!(first, variants_of(map), "a map keeps its order");
    let position = |n: usize| crate::engine::flags::bucket::variant_position(&format!("user_{n}"), "f");
    let golden = |position: u32| match position {
        0..500_000 => "z",
        500_000..750_000 => "control",
        _ => "a",
    };
    assert!(first.iter().enumerate().all(|(n, name)| name == golden(position(n))));
}

#[test]
fn c11_weights_are_shares_or_percents_and_nothing_else() {
    let of = |weights: [&str; 3]| {
        let [a, b, c] = weights;
        format!(
            "variants: [ {{ name: control, weight: {a} }}, {{ name: b, weight: {b} }}, {{ name: c, weight: {c} }} ]"
        )
    };
    let shares = variants_of(&of(["0.33", "0.33", "0.34"]));
    assert_eq!(shares, variants_of(&of(["33", "33", "34"])));
    assert_eq!(shares, variants_of(&of(["3.3e1", "33.00", "34"])));
    variants_of(&of(["0.3333333", "0.3333333", "0.3333333"]));
    for (weights, sum) in [
        (["0.5", "0.5", "0.1"], "1.1"),
        (["50", "25", "24.9"], "99.9"),
        (["1", "2", "3"], "6"),
    ] {
        let file = format!("features: {{ f: {{ type: variant, {} }} }}", of(weights));
        let said = World::new(file.as_str(), &[]).compile().unwrap_err();
        assert!(said[0].what.contains(&format!("sum to {sum}")), "{said:?}");
    }
    let counts = |name: &str| {
        let users = (0..10_000).map(|n| format!("user_{n}"));
        let file = format!(
            "features: {{ f: {{ type: variant, {} }} }}",
            of(["0.33", "0.33", "0.34"])
        );
        let rules = World::new(file.as_str(), &[]).rules();
        let got = users.filter(|user| explain::record(rules.flags(), "f", &Asked::new(Some(user), 0)).variant == name);
        got.count()
    };
    assert!(
        counts("control").abs_diff(3_300) <= 200
            && counts("b").abs_diff(3_300) <= 200
            && counts("c").abs_diff(3_400) <= 200
    );
}

#[test]
fn chains_and_costs_without_end_are_refused() {
    let mut chain = String::from("features:\n  f000: { type: boolean }\n");
    let mut doubling = String::from("segments:\n  s00: { country: [US] }\n");
    for at in 1..40 {
        chain.push_str(&format!(
            "  f{at:03}: {{ type: boolean, prerequisites: [ {{ flag: f{:03} }} ] }}\n",
            at - 1
        ));
        let before = at - 1;
        doubling.push_str(&format!(
            "  s{at:02}: {{ all: [ {{ segment: s{before:02} }}, {{ segment: s{before:02} }} ] }}\n"
        ));
    }
    let said = World::new(chain.as_str(), &[]).compile().unwrap_err();
    assert!(
        said.len() == 1 && said[0].what.contains("more than 32 deep"),
        "{said:?}"
    );
    doubling.push_str(
        "features:\n  f: { type: targeted, rules: [ { type: user_segment, conditions: { segment: s20 } } ] }\n",
    );
    let said = World::new(doubling.as_str(), &[]).compile().unwrap_err();
    assert!(
        said.iter()
            .any(|problem| problem.what.contains("more than 10000 conditions")),
        "{said:?}"
    );
}
