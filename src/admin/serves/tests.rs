//! Tables of rules and what they come to.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::*;
use crate::config;
use crate::engine::flags::FlagKills;
use crate::engine::ruleset::document::Document;
use crate::engine::ruleset::problem::Problems;
use crate::engine::ruleset::{Input, compile};
use crate::engine::vocab::Revision;

const NOW_MS: i64 = 1_785_542_400_000;

/// What one route with these members serves, under these flags and kills.
fn told(route: &str, features: &str, variables: &[(&str, &str)], kills: KillBits) -> Serves {
    told_with(route, features, variables, kills, "")
}

/// The same where new's backend has more members.
fn told_with(route: &str, features: &str, variables: &[(&str, &str)], kills: KillBits, new: &str) -> Serves {
    let text = format!(
        "listeners: [{{ address: 127.0.0.1:0 }}]\nbackends: {{ legacy: {{ url: \"http://127.0.0.1:1\" }}, new: {{ url: \
         \"http://127.0.0.1:2\"{new} }} }}\nroutes:\n  - {{ name: r, match: {{ path: /r }}, {route} }}\n"
    );
    let loaded = config::load_by(Path::new("c"), &mut |_| Ok(text.clone().into_bytes())).expect("a configuration");
    let mut problems = Problems::default();
    let file: Arc<str> = "f".into();
    let document = Document::parse(&file, &format!("features: {{ {features} }}"), &mut problems);
    let variables: BTreeMap<String, String> = variables
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    let (rules, _) = compile(Input {
        revision: Revision(1),
        environment: "production",
        document,
        runtime: Default::default(),
        variables: &variables,
        copies: loaded.config.backends.copies(),
        routes: loaded.config.routes,
        now_ms: NOW_MS,
        previous: None,
        marks: &[],
        problems,
    })
    .expect("rules");
    let route = rules.routes().next().expect("a route").1;
    serves(&rules, route, kills, FlagKills::NONE, NOW_MS)
}

fn line(serves: &Serves) -> String {
    let percent = serves.percent.map_or("-".to_owned(), |percent| percent.to_string());
    format!("{} | {} | {percent}", serves.by, serves.why)
}

#[test]
fn flag_is_told_by_the_line_that_decides() {
    for (flag, expected) in [
        ("f: { type: boolean, enabled: true }", "new | global | 100"),
        (
            "f: { type: boolean, enabled: false, percentage: 50 }",
            "legacy | disabled | 0",
        ),
        (
            "f: { type: boolean, enabled: true, environments: [staging] }",
            "legacy | environment | 0",
        ),
        (
            "f: { type: boolean, enabled: true, end_date: \"2020-01-01T00:00:00Z\" }",
            "legacy | schedule | 0",
        ),
        ("f: { type: boolean }", "legacy | default | 0"),
        (
            "f: { type: boolean, enabled: true, allowlist: [a, b] }",
            "both | allowlist of 2 | -",
        ),
        (
            "f: { type: boolean, enabled: true, allowlist: [] }",
            "legacy | empty allowlist | 0",
        ),
        (
            "f: { type: percentage, enabled: true, percentage: 12.5 }",
            "both | percent 12.5 | 12.5",
        ),
        (
            "f: { type: percentage, enabled: true, percentage: 0 }",
            "legacy | percent 0 | 0",
        ),
        (
            "f: { type: percentage, enabled: true, percentage: 100 }",
            "new | percent 100 | 100",
        ),
        (
            "f: { type: percentage, percentage: 100, denylist: [a] }",
            "both | percent 100, 1 denied | 100",
        ),
        (
            "f: { type: boolean, enabled: true, denylist: [a, b, c] }",
            "both | global, 3 denied | 100",
        ),
        (
            "f: { type: boolean, enabled: true, denylist: [] }",
            "new | global | 100",
        ),
        ("g: { type: boolean, enabled: true }", "legacy | flag_not_found | 0"),
        (
            "f: { type: gradual, enabled: true, start_date: \"2026-07-22T00:00:00Z\", gradual_increment: 2.5 }",
            "both | gradual 25 | 25",
        ),
        (
            "f: { type: boolean, enabled: true, beta_users: [a] }",
            "new | global | 100",
        ),
        (
            "f: { type: percentage, percentage: 5, beta_users: [a, b] }",
            "both | 2 beta users, else percent 5 | -",
        ),
        (
            "f: { type: targeted, enabled: true, rules: [ { type: property, conditions: { plan: [pro] } } ] }",
            "both | 1 rule, else default | -",
        ),
        (
            "f: { type: boolean, enabled: true, beta_users: [a], rules: [ { type: property, conditions: { plan: [pro] }, value: false } ] }",
            "both | 1 beta user, 1 rule, else global | -",
        ),
        (
            "f: { type: variant, variants: { control: { weight: 1 } } }",
            "new | split | 100",
        ),
        (
            "f: { type: boolean, enabled: true, prerequisites: [ { flag: g } ] }, g: { type: boolean, enabled: false }",
            "legacy | prerequisite | 0",
        ),
    ] {
        assert_eq!(line(&told("flag: f", flag, &[], KillBits::NONE)), expected, "{flag}");
    }
}

#[test]
fn constant_is_told_as_such_and_falls_with_the_system() {
    assert_eq!(
        line(&told("flag: true", "", &[], KillBits::NONE)),
        "new | constant | 100"
    );
    assert_eq!(
        line(&told("flag: false", "", &[], KillBits::NONE)),
        "legacy | constant | 0"
    );
    let off = [("FEATURE_FLAGS_ENABLED", "false")];
    assert_eq!(
        line(&told("flag: true", "", &off, KillBits::NONE)),
        "legacy | FEATURE_FLAGS_ENABLED is false | 0"
    );
}

#[test]
fn kill_wins_over_whatever_the_flag_says() {
    let on = "f: { type: boolean, enabled: true }";
    for (kills, why) in [
        (KillBits::NO_STATE, "no state"),
        (KillBits::EVERYTHING.with(KillBits::ROUTE), "everything is killed"),
        (KillBits::ROUTE.with(KillBits::FLAG), "killed"),
        (KillBits::FLAG, "its flag is killed"),
    ] {
        assert_eq!(line(&told("flag: f", on, &[], kills)), format!("legacy | {why} | 0"));
    }
    assert_eq!(line(&told("flag: f", on, &[], KillBits::SHADOW)), "new | global | 100");
}

#[test]
fn shadow_mode_keeps_everybody_on_legacy_and_says_who_is_copied() {
    let flags = |mode: &str| format!("f: {{ type: percentage, percentage: 5 }}, s: {{ type: boolean, {mode} }}");
    let route = "flag: f, shadow_mode: s";
    let on = told(route, &flags("enabled: true"), &[], KillBits::NONE);
    assert_eq!(
        (line(&on).as_str(), on.shadow_mode.as_str()),
        ("legacy | shadow mode; copied: percent 5 | 0", "on")
    );
    let off = told(route, &flags("enabled: false"), &[], KillBits::NONE);
    assert_eq!(
        (line(&off).as_str(), off.shadow_mode.as_str()),
        ("both | percent 5 | 5", "off")
    );
    let some = told(route, &flags("percentage: 50"), &[], KillBits::NONE);
    assert_eq!(some.shadow_mode, "some");
    // Its safe side is on: killed, unknown, or not meant for here.
    assert_eq!(
        told(route, &flags("enabled: false"), &[], KillBits::SHADOW_MODE).shadow_mode,
        "on"
    );
    assert_eq!(
        told(route, &flags("enabled: false, environments: []"), &[], KillBits::NONE).shadow_mode,
        "off"
    );
    assert_eq!(
        told(route, &flags("environments: []"), &[], KillBits::NONE).shadow_mode,
        "on"
    );
    assert_eq!(
        told("flag: f, shadow_mode: t", &flags(""), &[], KillBits::NONE).shadow_mode,
        "on"
    );
}

#[test]
fn metadata_that_kill_a_flag_are_told_apart_from_a_kill() {
    let flag = "f: { type: boolean, enabled: true, metadata: { kill_switch: true } }";
    assert_eq!(
        line(&told("flag: f", flag, &[], KillBits::NONE)),
        format!("legacy | {KILL_SWITCH} | 0")
    );
}

#[test]
fn copies_are_told_beside_the_choice_and_go_on_after_a_rollback() {
    let flags = |percent: &str| format!("f: {{ type: percentage, percentage: {percent} }}, s: {{ type: boolean }}");
    let route = "flag: f, dual_run: true";
    let tell = |percent: &str, kills| line(&told(route, &flags(percent), &[], kills));
    assert_eq!(tell("5", KillBits::NONE), "both | percent 5; all copied | 5");
    assert_eq!(tell("0", KillBits::NONE), "legacy | percent 0; all copied | 0");
    assert_eq!(tell("100", KillBits::ROUTE), "legacy | killed; all copied | 0");
    assert_eq!(tell("100", KillBits::EVERYTHING), "legacy | everything is killed | 0");
    assert_eq!(tell("100", KillBits::DUAL_RUN), "new | percent 100 | 100");
    let posts = "flag: f, dual_run: true, shadow: { methods: [GET, POST] }";
    let text = |percent: &str| {
        line(&told_with(
            posts,
            &flags(percent),
            &[],
            KillBits::NONE,
            ", copies: dry_run",
        ))
    };
    assert_eq!(
        text("100"),
        "new | percent 100; all GET copied | 100",
        "legacy takes no POST"
    );
    assert_eq!(text("5"), "both | percent 5; all of legacy's copied | 5");
    let sampled = "flag: f, shadow: { flag: true, percent: 10 }";
    assert_eq!(
        line(&told(sampled, &flags("5"), &[], KillBits::NONE)),
        "both | percent 5; some copied | 5"
    );
    let shadow = "flag: f, shadow_mode: true, dual_run: true";
    assert_eq!(
        line(&told(shadow, &flags("5"), &[], KillBits::ROUTE)),
        "legacy | killed; copied: percent 5 | 0"
    );
}
