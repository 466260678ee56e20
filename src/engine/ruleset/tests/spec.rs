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
fn c9_variants_and_prerequisites_agree_with_the_specification() {
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
fn c11_bad_input_is_refused_with_place_and_remedy() {
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
