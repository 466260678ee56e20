//! The rules as operators meet them: a flag file, variables and routes in; answers, decisions and problems out.

mod random;
mod spec;

use std::collections::BTreeMap;

use http::Method;
use proptest::prelude::*;

use super::document::{Document, Instant};
use super::problem::{Place, Problem, Problems, Severity};
use super::route::{Copies, Failover, RouteMatch, RouteSpec, ShadowSpec, Switch, WithoutIdentity};
use super::*;
use crate::engine::decide::{CopyTo, KillBits};
use crate::engine::explain;
use crate::engine::flags::model::{FlagType, Member, Percent};
use crate::engine::flags::{Asked, Bucket, FlagKills, NoAttributes, Threshold};
use crate::engine::vocab::{ExchangeId, Now, Side};
use crate::engine::{compare, guard, identity};

/// 2026-08-10T00:00:00Z.
const NOW_MS: i64 = 1_786_320_000_000;

fn key(text: &str) -> FlagKey {
    FlagKey::parse(text).unwrap()
}

fn place(line: u32, column: u32) -> Place {
    Place {
        file: "understudy.yaml".into(),
        line,
        column,
    }
}

fn switch(text: &str) -> Switch {
    match text {
        "true" => Switch::Constant(true),
        "false" => Switch::Constant(false),
        name => Switch::Flag(key(name), place(9, 1)),
    }
}

fn route(name: &str, path: &str, flag: &str) -> RouteSpec {
    RouteSpec {
        key: RouteKey::parse(name).unwrap(),
        place: place(1, 1),
        matcher: RouteMatch {
            path: path.into(),
            methods: Vec::new(),
            headers: Vec::new(),
        },
        identity: identity::Plan::default(),
        tenant: identity::Plan::default(),
        attributes: identity::attributes::Attributes::default(),
        without_identity: WithoutIdentity::Legacy,
        flag: switch(flag),
        when_off: None,
        shadow_mode: None,
        shadow: ShadowSpec::new(switch("false"), &place(5, 1)),
        dual_run: switch("false"),
        failover: Failover::default(),
        compare: compare::Rules::default(),
        budgets: Vec::new(),
        ok_statuses: Vec::new(),
    }
}

/// What goes into one compilation.
struct World<'w> {
    file: Option<&'w str>,
    variables: BTreeMap<String, String>,
    routes: Vec<RouteSpec>,
    environment: &'w str,
    copies: [Copies; 2],
}

impl<'w> World<'w> {
    fn new(file: impl Into<Option<&'w str>>, variables: &[(&str, &str)]) -> Self {
        let variables = variables
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let file = file.into();
        Self {
            file,
            variables,
            routes: Vec::new(),
            environment: "production",
            copies: [Copies::DryRun; 2],
        }
    }

    fn route(mut self, route: RouteSpec) -> Self {
        self.routes.push(route);
        self
    }

    fn compile(self) -> Result<(Ruleset, Vec<Problem>), Vec<Problem>> {
        self.compile_after(None, &[])
    }

    fn compile_after(
        self,
        previous: Option<&Ruleset>,
        marks: &[StoredMark],
    ) -> Result<(Ruleset, Vec<Problem>), Vec<Problem>> {
        let mut problems = Problems::default();
        let document = self
            .file
            .and_then(|text| Document::parse(&"features.yaml".into(), text, &mut problems));
        compile(Input {
            revision: Revision(3),
            environment: self.environment,
            document,
            runtime: Default::default(),
            variables: &self.variables,
            routes: self.routes,
            copies: self.copies,
            now_ms: NOW_MS,
            previous,
            marks,
            problems,
        })
    }

    fn rules(self) -> Ruleset {
        match self.compile() {
            Ok((rules, _)) => rules,
            Err(problems) => panic!("{}", lines(&problems).join("\n")),
        }
    }

    fn warnings(self) -> Vec<String> {
        lines(&self.compile().unwrap().1)
    }

    fn refused(self) -> Vec<String> {
        let problems = self.compile().map(|_| "nothing was refused").unwrap_err();
        lines(
            &problems
                .into_iter()
                .filter(|problem| problem.severity == Severity::Problem)
                .collect::<Vec<_>>(),
        )
    }
}

fn lines(problems: &[Problem]) -> Vec<String> {
    problems.iter().map(ToString::to_string).collect()
}

/// A file with one flag, `f`, in flow style: its members begin at column 8 of line 2.
fn one(members: &str) -> String {
    format!("features:\n  f: {{ {members} }}\n")
}

fn asked(subject: Option<&str>, unix_ms: i64) -> Asked<'_> {
    Asked::new(subject, unix_ms)
}

/// `on` or `off` and the reason.
fn answer(rules: &Ruleset, flag: &str, subject: &str) -> String {
    let record = explain::record(rules.flags(), flag, &asked(Some(subject), NOW_MS));
    format!("{} {}", record.variant, record.reason)
}

fn count(rules: &Ruleset, flag: &str, users: u32) -> usize {
    (0..users)
        .filter(|n| answer(rules, flag, &format!("user_{n}")).starts_with("on"))
        .count()
}

// The traps.

#[test]
fn c1_percentage_that_is_set_is_terminal() {
    let at = |percent: &str| {
        World::new(None, &[("F", "true"), ("F_PERCENT", percent)])
            .route(route("r", "/", "F"))
            .rules()
    };
    assert_eq!(count(&at("0"), "F", 1_000), 0, "S1-20 is a rollback");
    let some = count(&at("5"), "F", 10_000);
    assert!((300..700).contains(&some), "{some}");
    assert_eq!(count(&at("100"), "F", 1_000), 1_000);
    let unset = World::new(None, &[("F", "true")]).route(route("r", "/", "F")).rules();
    assert_eq!(answer(&unset, "F", "s"), "on global");
}

#[test]
fn c2_emptied_allowlist_turns_everybody_off() {
    let world = || World::new(None, &[("F", "true"), ("F_ALLOWLIST", "")]).route(route("r", "/", "F"));
    assert_eq!(count(&world().rules(), "F", 100), 0);
    assert_eq!(answer(&world().rules(), "F", "s"), "off not_allowlisted");
    let warnings = world().warnings();
    assert!(
        warnings[0].starts_with("environment variable F_ALLOWLIST: warning: the allowlist is empty"),
        "{warnings:?}"
    );
    let unset = World::new(None, &[("F", "true")]).route(route("r", "/", "F")).rules();
    assert_eq!(count(&unset, "F", 100), 100, "no list is something else");
    let file = one("type: boolean, enabled: true, allowlist: []");
    assert_eq!(
        answer(&World::new(&*file, &[]).rules(), "f", "s"),
        "off not_allowlisted"
    );
}

#[test]
fn c4_words_are_boolean_and_numbers_are_percentages() {
    let rules = |text: &str| World::new(None, &[("FEATURE_FLAG_X", text)]).rules();
    for (text, enabled) in [
        ("true", true),
        ("ON", true),
        ("Yes", true),
        (" false ", false),
        ("off", false),
        ("NO", false),
    ] {
        let rules = rules(text);
        let flag = rules.flag(&key("x")).unwrap();
        assert_eq!((flag.enabled, flag.percent.is_none()), (Some(enabled), true), "{text}");
    }
    for (text, percent) in [("1", "1"), ("0", "0"), ("25", "25"), ("100", "100"), ("0.5", "0.5")] {
        let rules = rules(text);
        let flag = rules.flag(&key("x")).unwrap();
        let Some(Percent::Fixed(threshold)) = &flag.percent else {
            panic!("{text}")
        };
        assert_eq!(
            (flag.enabled, threshold.to_string().as_str()),
            (None, percent),
            "{text}"
        );
    }
    assert_eq!(
        World::new(None, &[("FEATURE_FLAG_X", "1")]).warnings(),
        [
            "environment variable FEATURE_FLAG_X: warning: `1` means 1 %, not on. write true for on; to mean one percent, say so in the flag file"
        ]
    );
    assert!(World::new(None, &[("FEATURE_FLAG_X", "0")]).warnings().is_empty());
    assert_eq!(
        World::new(None, &[("FEATURE_FLAG_X", "ture"), ("FEATURE_FLAG_Y", "101")]).refused(),
        [
            "environment variable FEATURE_FLAG_X: expected true, false or a percentage, found `ture`. did you mean `true`?",
            "environment variable FEATURE_FLAG_Y: `101` is not between 0 and 100. write a number from 0 to 100",
        ]
    );
}

#[test]
fn c5_both_conventions_work_and_a_disagreement_names_both() {
    let world = |variables| World::new(None, variables).route(route("r", "/", "my-flag"));
    assert_eq!(
        answer(&world(&[("MY_FLAG", "true")]).rules(), "my-flag", "s"),
        "on global"
    );
    assert_eq!(
        answer(&world(&[("FEATURE_FLAG_MY_FLAG", "true")]).rules(), "my-flag", "s"),
        "on global"
    );
    assert_eq!(
        answer(
            &world(&[("FEATURE_FLAG_MY_FLAG", "true"), ("MY_FLAG", "on")]).rules(),
            "my-flag",
            "s"
        ),
        "on global"
    );
    assert_eq!(
        world(&[("FEATURE_FLAG_MY_FLAG", "true"), ("MY_FLAG", "false")]).refused(),
        ["environment variable MY_FLAG: FEATURE_FLAG_MY_FLAG and MY_FLAG disagree on `enabled`. unset one of them"]
    );
    assert_eq!(
        world(&[("FEATURE_FLAG_MY_FLAG", "25"), ("MY_FLAG_PERCENT", "30")]).refused(),
        [
            "environment variable MY_FLAG_PERCENT: FEATURE_FLAG_MY_FLAG and MY_FLAG_PERCENT disagree on `percentage`. unset one of them"
        ]
    );
    let both = world(&[("FEATURE_FLAG_MY_FLAG", "25"), ("MY_FLAG", "true")]).rules();
    assert_eq!(
        both.flag(&key("my-flag")).unwrap().enabled,
        Some(true),
        "different members do not disagree"
    );

    let named = one("type: boolean, env: [OLD_NAME]");
    assert_eq!(
        answer(&World::new(&*named, &[("OLD_NAME", "true")]).rules(), "f", "s"),
        "on global"
    );
    let lists = [("OLD_NAME_DENYLIST", "a,b"), ("F_DENYLIST", "b,a")];
    assert!(
        World::new(&*named, &lists).compile().is_ok(),
        "the same people in another order"
    );
    let lists = [("OLD_NAME_DENYLIST", "a"), ("F_DENYLIST", "b")];
    assert_eq!(World::new(&*named, &lists).refused().len(), 1);
}

#[test]
fn c10_fractions_of_a_percent_are_kept_and_more_than_four_decimals_refused() {
    let rules = |percent: &str| {
        let file = one(&format!("type: percentage, percentage: {percent}"));
        World::new(&*file, &[]).compile()
    };
    let (fine, _) = rules("25.5").unwrap();
    for n in 0..2_000 {
        let user = format!("user_{n}");
        let on = Bucket::of(&user, "f").number() < 255_000;
        assert_eq!(
            answer(&fine, "f", &user),
            if on { "on percent" } else { "off percent_miss" }
        );
    }
    assert_eq!(
        lines(&rules("25.12345").unwrap_err()),
        [
            "features.yaml:2:38: `25.12345` has more than four decimals; the smallest step is 0.0001. round it to four decimals"
        ]
    );
}

#[test]
fn c15_all_spellings_work_and_a_folding_collision_is_refused() {
    for (name, variable) in [
        ("auth-sso-login", "AUTH_SSO_LOGIN"),
        ("copilot_v2", "COPILOT_V2"),
        ("UPPER.dot", "UPPER_DOT"),
    ] {
        let rules = World::new(None, &[(variable, "true")])
            .route(route("r", "/", name))
            .rules();
        assert_eq!(answer(&rules, name, "s"), "on global", "{name}");
    }
    let file = "features:\n  a-b: { type: boolean }\n  a_b: { type: boolean }\n";
    assert_eq!(
        World::new(file, &[]).refused(),
        [
            "features.yaml:3:3: flags `a-b` and `a_b` are both set by the environment variable FEATURE_FLAG_A_B. rename one of them"
        ]
    );
    for suffix in ["_PERCENT", "_ALLOWLIST", "_DENYLIST"] {
        let file = format!("features:\n  x: {{ type: boolean }}\n  X{suffix}: {{ type: boolean }}\n");
        let problems = World::new(&*file, &[]).refused();
        assert!(
            problems.len() == 1 && problems[0].contains(&format!("X{suffix}")),
            "{problems:?}"
        );
    }
    let problems = World::new(
        "features:\n  x: { type: boolean }\n",
        &[("FEATURE_FLAG_X_PERCENT", "5")],
    )
    .refused();
    assert!(
        problems[0].starts_with("environment variable FEATURE_FLAG_X_PERCENT: flags `x` and `x_percent`"),
        "{problems:?}"
    );
}

#[test]
fn c19_the_flag_hashes_subject_then_key() {
    let file = "features: { new_ui_enabled: { type: percentage, percentage: 30 } }";
    let rules = World::new(file, &[]).rules();
    let record = explain::record(rules.flags(), "new_ui_enabled", &asked(Some("33639980123"), NOW_MS));
    assert_eq!(
        record.bucket,
        Some(Bucket::of("33639980123", "new_ui_enabled").number())
    );
    let on = count(&rules, "new_ui_enabled", 10_000);
    assert!((2_800..=3_200).contains(&on), "S2-42: {on}");
}

// The phases of a rollout, by variables alone.

const EVENTS: &str = "WHATSAPP_CANONICAL_EVENTS_ENABLED";

fn phase(variables: &[(&str, &str)]) -> Ruleset {
    let prefixed: Vec<(String, &str)> = variables
        .iter()
        .map(|(name, value)| (format!("WHATSAPP_CANONICAL_{name}"), *value))
        .collect();
    let mut borrowed: Vec<(&str, &str)> = prefixed.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    if let Some(at) = borrowed
        .iter()
        .position(|(name, _)| *name == "WHATSAPP_CANONICAL_DUAL_RUN")
    {
        borrowed[at].0 = "WHATSAPP_DUAL_RUN";
    }
    let mut route = route("whatsapp", "/webhook/whatsapp", EVENTS);
    route.shadow_mode = Some(switch("WHATSAPP_CANONICAL_SHADOW_MODE"));
    route.dual_run = switch("WHATSAPP_DUAL_RUN");
    route.shadow.methods = vec![(Method::POST, place(6, 1))];
    World::new(None, &borrowed).route(route).rules()
}

fn decided(rules: &Ruleset, subject: &str) -> String {
    let at = rules
        .route_for(&Method::POST, "/webhook/whatsapp", &HeaderMap::new())
        .unwrap();
    let decision = rules.decide(
        rules.route(at),
        &Request {
            method: &Method::POST,
            subjects: std::iter::once(subject),
            tenant: None,
            exchange: ExchangeId(1),
            attributes: &NoAttributes,
            kills: KillBits::NONE,
            flag_kills: FlagKills::NONE,
            held: false,
            now: Now {
                monotonic: std::time::Duration::ZERO,
                unix_ms: NOW_MS,
            },
        },
    );
    let copy = match decision.copy {
        CopyTo::Nobody if decision.shadow_inactive => "inactive",
        CopyTo::Nobody => "-",
        CopyTo::Skipped(_, skip) => skip.as_str(),
        CopyTo::To(Side::Legacy) => "to legacy",
        CopyTo::To(Side::New) => "to new",
    };
    format!(
        "{} {} {copy}{}",
        decision.served,
        decision.reason,
        if decision.compared { " compared" } else { "" }
    )
}

#[test]
fn s1_12_phase_0_changes_nothing() {
    let rules = phase(&[
        ("SHADOW_MODE", "true"),
        ("EVENTS_ENABLED", "false"),
        ("DUAL_RUN", "false"),
    ]);
    assert_eq!(decided(&rules, "shopper_001"), "legacy disabled inactive");
}

#[test]
fn s1_13_and_14_phases_1_and_2_copy_the_listed_shoppers_and_nobody_else() {
    let rules = phase(&[
        ("SHADOW_MODE", "true"),
        ("EVENTS_ENABLED", "true"),
        ("EVENTS_ENABLED_ALLOWLIST", "shopper_001, shopper_002,shopper_003"),
        ("DUAL_RUN", "true"),
    ]);
    for listed in ["shopper_001", "shopper_002", "shopper_003"] {
        assert_eq!(decided(&rules, listed), "legacy allowlist to new compared");
    }
    assert_eq!(decided(&rules, "shopper_004"), "legacy not_allowlisted inactive");
}

#[test]
fn s1_15_phase_3_each_step_keeps_those_of_the_step_before() {
    let mut before: Vec<String> = Vec::new();
    for percent in ["5", "10", "25", "50", "100"] {
        let base = [
            ("SHADOW_MODE", "true"),
            ("EVENTS_ENABLED", "true"),
            ("DUAL_RUN", "true"),
        ];
        let rules = phase(&[&base[..], &[("EVENTS_ENABLED_PERCENT", percent)]].concat());
        let subjects = (0..2_000).map(|n| format!("user_{n}"));
        let now: Vec<String> = subjects
            .filter(|s| decided(&rules, s) == "legacy percent to new compared")
            .collect();
        let share = Threshold::parse(percent).unwrap().buckets() as usize * 2_000 / 1_000_000;
        assert!(now.len().abs_diff(share) <= 60, "{percent}: {}", now.len());
        assert!(before.iter().all(|subject| now.contains(subject)), "{percent}");
        before = now;
    }
    assert_eq!(before.len(), 2_000);
}

#[test]
fn s1_16_phase_4_new_serves_everybody_and_nothing_is_copied() {
    let rules = phase(&[
        ("SHADOW_MODE", "false"),
        ("DUAL_RUN", "false"),
        ("EVENTS_ENABLED", "true"),
        ("EVENTS_ENABLED_PERCENT", "100"),
    ]);
    assert_eq!(decided(&rules, "shopper_001"), "new percent -");
}

#[test]
fn s1_18_to_21_each_rollback_is_one_variable() {
    let live = [("SHADOW_MODE", "false"), ("DUAL_RUN", "false")];
    let with = |more: &[(&str, &str)]| phase(&[&live[..], more].concat());
    assert_eq!(decided(&with(&[("EVENTS_ENABLED", "true")]), "s"), "new global -");
    assert_eq!(decided(&with(&[("EVENTS_ENABLED", "false")]), "s"), "legacy disabled -");
    let denied = with(&[("EVENTS_ENABLED", "true"), ("EVENTS_ENABLED_DENYLIST", "s")]);
    assert_eq!(
        [decided(&denied, "s"), decided(&denied, "t")],
        ["legacy denylist -", "new global -"]
    );
    let none = with(&[("EVENTS_ENABLED", "true"), ("EVENTS_ENABLED_PERCENT", "0")]);
    assert_eq!(decided(&none, "s"), "legacy percent_miss -");
    let emptied = with(&[("EVENTS_ENABLED", "true"), ("EVENTS_ENABLED_ALLOWLIST", "")]);
    assert_eq!(decided(&emptied, "s"), "legacy not_allowlisted -");
}

// Layers.

#[test]
fn each_value_keeps_its_origin() {
    let file = one("type: boolean, denylist: [a]");
    let rules = World::new(&*file, &[("F", "true"), ("F_PERCENT", "5")]).rules();
    let flag = rules.flag(&key("f")).unwrap();
    let origin = |member| flag.origin(member).to_string();
    assert_eq!(origin(Member::Type), "features.yaml:2:14");
    assert_eq!(origin(Member::Denylist), "features.yaml:2:33");
    assert_eq!(origin(Member::Enabled), "environment variable F");
    assert_eq!(origin(Member::Percentage), "environment variable F_PERCENT");
    assert_eq!(origin(Member::Default), "built-in default");
}

#[test]
fn flags_that_only_routes_name_are_defined_by_variables_or_unknown_with_a_warning() {
    let world = || {
        World::new(None, &[("KNOWN_DENYLIST", "bad")])
            .route(route("r", "/", "KNOWN"))
            .route(route("s", "/s", "KNOWM"))
    };
    let rules = world().rules();
    assert!(rules.flag(&key("KNOWN")).unwrap().defined);
    assert_eq!(answer(&rules, "KNOWN", "s"), "off default");
    assert_eq!(answer(&rules, "KNOWM", "s"), "off flag_not_found");
    assert_eq!(
        world().warnings(),
        ["understudy.yaml:9:1: warning: no source sets the flag `KNOWM`, so it is off. did you mean `KNOWN`?"]
    );
}

#[test]
fn empty_variables_are_off_or_nobody_with_a_warning() {
    let warnings = World::new(None, &[("FEATURE_FLAG_X", ""), ("X_PERCENT", " "), ("X_DENYLIST", "")]).warnings();
    assert_eq!(
        warnings,
        [
            "environment variable FEATURE_FLAG_X: warning: it is empty, which is off. write true, false or a percentage, or unset it",
            "environment variable X_PERCENT: warning: it is empty, which is 0 %: nobody. write a number, or unset it",
        ]
    );
}

#[test]
fn variables_that_look_like_flags_but_name_none_are_reported() {
    let compiled = World::new(None, &[("FEATURE_FLAG_lower", "true")]).compile().unwrap();
    assert_eq!(compiled.0.flags().iter().len(), 0);
    assert!(lines(&compiled.1)[0].contains("write FEATURE_FLAG_LOWER"));
    let over_long = format!("FEATURE_FLAG_{}", "X".repeat(201));
    assert_eq!(
        World::new(None, &[(&over_long, "true"), ("FEATURE_FLAG_", "true")])
            .refused()
            .len(),
        2
    );
}

#[test]
fn switch_of_all_flags_takes_words_only() {
    for (text, enabled) in [("true", true), ("OFF", false), ("", false)] {
        assert_eq!(
            World::new(None, &[("FEATURE_FLAGS_ENABLED", text)])
                .rules()
                .flags()
                .system_enabled(),
            enabled
        );
    }
    assert_eq!(World::new(None, &[("FEATURE_FLAGS_ENABLED", "1")]).refused().len(), 1);
    let collides = World::new("features:\n  feature-flags-enabled: { type: boolean }\n", &[]).refused();
    assert!(collides[0].contains("FEATURE_FLAGS_ENABLED"), "{collides:?}");
}

// Problems and warnings.

#[test]
fn every_problem_of_a_file_is_reported_at_once_with_its_place() {
    let file = "\
features:
  no_type: { enabled: true }
  odd_type: { type: bolean, percentage: 150 }
  lost: { type: targeted, rules: [{ type: user }], segments: {}, variants: {} }
  typo: { type: boolean, percentgae: 5 }
  p: { type: percentage }
  g: { type: gradual, percentage: 5 }
  both: { type: gradual, start_date: \"2026-01-01T00:00:00Z\", end_date: \"2026-02-01T00:00:00Z\", gradual_increment: 5 }
  back: { type: boolean, start_date: \"2026-02-01T00:00:00Z\", end_date: \"2026-01-01T00:00:00Z\" }
  date: { type: boolean, start_date: 2026-01-01 }
  never: { type: gradual, start_date: \"2026-01-01T00:00:00Z\", gradual_increment: 0 }
  status: { type: boolean, status: ENABLED, enabled: false }
  kill: { type: boolean, metadata: { kill_switch: yes } }
  words: { type: boolean, enabled: \"true\", default: maybe }
  ids: { type: boolean, denylist: [\"\", a, null, [b]], allowlist: b }
  name with space: { type: boolean }
experiments: { e: {} }
segments: {}
";
    let problems = World::new(file, &[]).compile().unwrap_err();
    let at: Vec<(u32, String)> = problems.iter().map(|p| (p.place.line, p.path.clone())).collect();
    let expected = [
        (2, "features.no_type"),
        (3, "features.odd_type.type"),
        (3, "features.odd_type.percentage"),
        (4, "features.lost.rules[0]"),
        (4, "features.lost.segments"),
        (4, "features.lost.variants"),
        (5, "features.typo.percentgae"),
        (6, "features.p"),
        (7, "features.g"),
        (7, "features.g"),
        (7, "features.g.percentage"),
        (8, "features.both.gradual_increment"),
        (9, "features.back.end_date"),
        (10, "features.date.start_date"),
        (11, "features.never.gradual_increment"),
        (12, "features.status.status"),
        (13, "features.kill.metadata.kill_switch"),
        (14, "features.words.enabled"),
        (14, "features.words.default"),
        (15, "features.ids.denylist[0]"),
        (15, "features.ids.denylist[2]"),
        (15, "features.ids.denylist[3]"),
        (15, "features.ids.allowlist"),
        (16, "features"),
        (17, "experiments.e"),
    ];
    let mut missing: Vec<(u32, &str)> = expected.to_vec();
    for (line, path) in &at {
        let known = missing.iter().position(|(l, p)| l == line && p == path);
        let index = known.unwrap_or_else(|| panic!("unexpected: {line} {path}\n{}", lines(&problems).join("\n")));
        missing.remove(index);
    }
    assert!(missing.is_empty(), "{missing:?}\n{}", lines(&problems).join("\n"));
    assert!(
        problems
            .iter()
            .all(|problem| problem.severity == Severity::Problem && !problem.remedy.is_empty())
    );
    let later = lines(&problems)
        .iter()
        .filter(|line| line.contains("is not in this version"))
        .count();
    assert_eq!(later, 1, "the experiment");
}

#[test]
fn what_is_odd_but_usable_is_a_warning() {
    for (members, warning) in [
        ("type: boolean, allowlist: []", "the allowlist is empty"),
        (
            "type: boolean, allowlist: [a, b], denylist: [c, b]",
            "1 of the allowlist are on the denylist too",
        ),
        (
            "type: percentage, percentage: 5, allowlist: [a]",
            "the percentage decides about nobody",
        ),
        (
            "type: boolean, end_date: \"2026-08-10T00:00:00Z\"",
            "the period is over",
        ),
        (
            "type: boolean, enabled: true, default: true",
            "the default decides about nobody",
        ),
        (
            "type: boolean, gradual_increment: 5",
            "only a flag of type `gradual` rises",
        ),
        (
            "type: gradual, start_date: \"2026-08-01T00:00:00Z\", gradual_increment: 5, allowlist: [a]",
            "the ramp decides about nobody",
        ),
    ] {
        let file = one(members);
        let warnings = World::new(&*file, &[]).warnings();
        assert!(
            warnings.len() == 1 && warnings[0].contains(warning),
            "{members}: {warnings:?}"
        );
    }
    for quiet in [
        "type: boolean, enabled: true, allowlist: [a], denylist: [b]",
        "type: percentage, percentage: 5, enabled: true",
        "type: boolean, end_date: \"2026-08-10T00:00:00.001Z\"",
        "type: gradual, start_date: \"2026-01-01T00:00:00Z\", end_date: \"2026-02-01T00:00:00Z\"",
        "type: boolean, environments: [], kind: release, owner: me, purpose: p, rollback: r, expected_end: soon, description: d",
    ] {
        let file = one(quiet);
        assert_eq!(World::new(&*file, &[]).warnings(), Vec::<String>::new(), "{quiet}");
    }
}

#[test]
fn warnings_do_not_name_subjects() {
    let file = one("type: boolean, allowlist: [\"33639980123\"], denylist: [\"33639980123\"]");
    assert!(!World::new(&*file, &[]).warnings().join("").contains("33639980123"));
}

#[test]
fn empty_experiments_and_an_empty_file_are_taken() {
    assert!(World::new("features: {}\nexperiments: {}\n", &[]).warnings().is_empty());
    assert!(World::new("", &[]).warnings().is_empty());
}

#[test]
fn percentage_of_the_environment_satisfies_the_type() {
    let file = one("type: percentage");
    let rules = World::new(&*file, &[("F_PERCENT", "25")]).rules();
    assert_eq!(rules.flag(&key("f")).unwrap().flag_type, FlagType::Percentage);
    let unset = one("type: percentage, percentage: null");
    assert_eq!(
        World::new(&*unset, &[("F_PERCENT", "25")]).refused().len(),
        1,
        "null unsets it below too"
    );
}

#[test]
fn dates_are_rfc_3339_with_an_offset() {
    for good in [
        "2026-01-01T00:00:00Z",
        "2026-01-01t00:00:00z",
        "2026-01-01T00:00:00.123456789+05:30",
        "1969-12-31T23:59:59-00:00",
    ] {
        assert!(Instant::parse(good).is_some(), "{good}");
    }
    assert_eq!(Instant::parse("1970-01-01T01:00:01.5+01:00"), Some(Instant(1_500)));
    for bad in [
        "",
        "2026-01-01",
        "2026-01-01T00:00:00",
        "2026-01-01 00:00:00Z",
        "2026-01-01T00:00Z",
        "2026-13-01T00:00:00Z",
        "2026-01-01T00:00:00.Z",
        "2026-01-01T00:00:00+01",
        "2026-01-01T00:00:00+0100",
        "2026-01-01T00:00:00Z[UTC]",
        "2026-01-01T00:00:00é",
        "+2026-01-01T00:00:0Z",
    ] {
        assert_eq!(Instant::parse(bad), None, "{bad}");
    }
}

#[test]
fn routes_are_checked_against_each_other_and_against_the_backends() {
    let mut twin = route("a", "/x/", "false");
    twin.place = place(20, 3);
    let named_twice = World::new(None, &[])
        .route(route("a", "/x", "true"))
        .route(twin.clone());
    assert_eq!(
        named_twice.refused(),
        ["understudy.yaml:20:3: a second route named `a`; the first is at understudy.yaml:1:1. rename one of them"]
    );
    twin.key = RouteKey::parse("b").unwrap();
    assert_eq!(
        World::new(None, &[])
            .route(route("a", "/x", "true"))
            .route(twin)
            .warnings(),
        [
            "understudy.yaml:20:3: warning: no request reaches this route: route `a` takes the same ones. remove one of the two"
        ]
    );
    let posts = |copies| {
        let mut route = route("a", "/x", "true");
        route.shadow.methods = vec![(Method::GET, place(6, 1)), (Method::POST, place(6, 6))];
        let mut world = World::new(None, &[]).route(route);
        world.copies = copies;
        world
    };
    assert!(
        posts([Copies::SafeMethods; 2]).refused()[0]
            .starts_with("understudy.yaml:6:6: neither backend takes copies of POST")
    );
    assert!(posts([Copies::SafeMethods, Copies::DryRun]).warnings()[0].contains("legacy takes no copies of POST"));
    assert!(posts([Copies::Isolated, Copies::DryRun]).warnings().is_empty());
}

#[test]
fn budget_that_could_never_kill_is_a_warning() {
    let world = |change: fn(&mut RouteSpec)| {
        let mut route = route("a", "/x", "true");
        route.budgets = vec![guard::Budget {
            name: "errors".into(),
            metric: guard::Metric::ErrorRate,
            tolerate: guard::Tolerance::DEFAULT,
            action: guard::Action::Kill,
            ok: Vec::new(),
        }];
        route.failover.never_reached = false;
        change(&mut route);
        World::new(None, &[]).route(route).warnings()
    };
    let blind = world(|_| {});
    assert!(
        blind[0].contains("once new serves POST here, no budget sees it fail"),
        "{blind:?}"
    );
    for seen in [
        world(|route| route.failover.never_reached = true),
        world(|route| route.matcher.methods = vec![Method::GET]),
        world(|route| route.flag = switch("false")),
        world(|route| {
            route.dual_run = switch("true");
            route.shadow.methods = vec![(Method::POST, place(6, 1))];
        }),
    ] {
        assert_eq!(seen, Vec::<String>::new());
    }
}

#[test]
fn unknown_shadow_mode_is_said_to_count_as_on() {
    let mut spec = route("r", "/", "false");
    spec.shadow_mode = Some(Switch::Flag(key("MODE"), place(8, 2)));
    let warnings = World::new(None, &[]).route(spec).warnings();
    assert!(
        warnings[0].contains("no source sets the flag `MODE`, so shadow mode counts as on"),
        "{warnings:?}"
    );
}

#[test]
fn thousand_routes_are_found_by_their_paths() {
    let mut world = World::new(None, &[]);
    for n in 0..1_000 {
        world = world.route(route(&format!("r{n}"), &format!("/api/v1/service-{n}"), "false"));
    }
    let rules = world.rules();
    for n in [0, 7, 999] {
        let path = format!("/api/v1/service-{n}/deeper");
        let at = rules.route_for(&Method::GET, &path, &HeaderMap::new()).unwrap();
        assert_eq!(rules.route(at).key().as_str(), format!("r{n}"));
        assert_eq!(rules.find_route(rules.route(at).key()), Some(at));
    }
    assert_eq!(
        rules.route_for(&Method::GET, "/api/v1/service-1000", &HeaderMap::new()),
        None
    );
}

// Gradual flags over reloads.

const RAMP: &str = "type: gradual, start_date: \"2026-08-01T00:00:00Z\", gradual_increment: 10";
const DAY_MS: i64 = 86_400_000;

fn reached(rules: &Ruleset, unix_ms: i64) -> String {
    rules.marks(unix_ms).next().unwrap().reached.to_string()
}

#[test]
fn gradual_flag_keeps_what_it_reached_when_the_clock_jumps_back() {
    let file = one(RAMP);
    let rules = World::new(&*file, &[]).rules();
    assert_eq!(reached(&rules, NOW_MS - 4 * DAY_MS), "50");
    let asked = asked(Some("user_0"), NOW_MS - 9 * DAY_MS);
    let story = explain::explain(&rules, &key("f"), &asked);
    assert_eq!(story.threshold, Some(500_000));
}

#[test]
fn gradual_flag_goes_on_after_a_reload_and_a_restart_and_starts_anew_on_another_schedule() {
    let file = one(RAMP);
    let first = World::new(&*file, &[]).rules();
    assert_eq!(reached(&first, NOW_MS - 4 * DAY_MS), "50");
    let (reloaded, _) = World::new(&*file, &[]).compile_after(Some(&first), &[]).unwrap();
    assert_eq!(reached(&first, NOW_MS - 3 * DAY_MS), "60");
    assert_eq!(
        reached(&reloaded, NOW_MS - 9 * DAY_MS),
        "60",
        "requests still on the old rules count"
    );
    let stored: Vec<StoredMark> = reloaded.marks(NOW_MS - 9 * DAY_MS).collect();
    let (restarted, _) = World::new(&*file, &[]).compile_after(None, &stored).unwrap();
    assert_eq!(reached(&restarted, NOW_MS - 9 * DAY_MS), "60");
    let changed = one(&RAMP.replace("10", "5"));
    let (anew, _) = World::new(&*changed, &[])
        .compile_after(Some(&restarted), &stored)
        .unwrap();
    assert_eq!(reached(&anew, NOW_MS - 7 * DAY_MS), "10");
}

#[test]
fn deciding_takes_note_of_what_a_gradual_flag_reached() {
    let file = one(RAMP);
    let rules = World::new(&*file, &[]).route(route("r", "/", "f")).rules();
    let request = |unix_ms| Request {
        method: &Method::GET,
        subjects: std::iter::once("user_0"),
        tenant: None,
        exchange: ExchangeId(1),
        attributes: &NoAttributes,
        kills: KillBits::NONE,
        flag_kills: FlagKills::NONE,
        held: false,
        now: Now {
            monotonic: std::time::Duration::ZERO,
            unix_ms,
        },
    };
    let at = rules.route_for(&Method::GET, "/", &HeaderMap::new()).unwrap();
    assert_eq!(
        rules.decide(rules.route(at), &request(NOW_MS + DAY_MS)).served,
        Side::New
    );
    assert_eq!(
        rules.decide(rules.route(at), &request(NOW_MS - 30 * DAY_MS)).served,
        Side::New
    );

    let file = "features:\n  f: { type: boolean, enabled: true, prerequisites: [ { flag: g } ] }\n  g: { type: gradual, \
                start_date: \"2026-08-01T00:00:00Z\", gradual_increment: 10 }\n";
    let rules = World::new(file, &[]).route(route("r", "/", "f")).rules();
    let at = rules.route_for(&Method::GET, "/", &HeaderMap::new()).unwrap();
    for unix_ms in [NOW_MS + DAY_MS, NOW_MS - 30 * DAY_MS] {
        let served = rules.decide(rules.route(at), &request(unix_ms)).served;
        assert_eq!(served, Side::New, "nor does it where the ramp is asked by another flag");
    }
}

#[test]
fn million_ids_of_a_denylist_are_found() {
    let mut file = String::from("features:\n  f:\n    type: boolean\n    enabled: true\n    denylist:\n");
    for n in 0..1_000_000_u64 {
        file.push_str(&format!("      - {}\n", 33_600_000_000 + n));
    }
    let rules = World::new(&*file, &[]).rules();
    let list = rules.flag(&key("f")).unwrap().denylist.as_ref().unwrap();
    assert_eq!(list.len(), 1_000_000);
    assert_eq!(answer(&rules, "f", "33600999999"), "off denylist");
    assert_eq!(answer(&rules, "f", "33601000000"), "on global");
}

proptest! {
    #[test]
    fn compile_never_panics(
        members in prop::collection::vec(
            (
                prop::sample::select(vec![
                    "type", "enabled", "status", "percentage", "start_date", "end_date", "gradual_increment", "allowlist", "denylist",
                    "environments", "cohort", "default", "metadata", "env", "kind", "shadow_mode", "rules", "nonsense",
                    "variants", "prerequisites", "beta_users",
                ]),
                prop::sample::select(vec![
                    "boolean", "percentage", "gradual", "true", "false", "null", "~", "", "0", "1", "25.5", "-1", "1e400", "[]", "[a, b]",
                    "{}", "{ kill_switch: true }", "\"2026-01-01T00:00:00Z\"", "\"9999-12-31T23:59:59Z\"", "ENABLED", "release", "\"\\0\"",
                    "targeted", "variant", "[{}]", "[{ flag: f }]", "[{ name: control, weight: 1 }]", "{ control: { weight: 100, config: [{}] } }",
                    "[{ type: user, conditions: { user_ids: [a] }, value: 50 }]", "[{ type: time, conditions: { hours: \"22:00-06:00\" } }]",
                    "[{ type: property, conditions: { attribute: a, operator: regex, values: [\"a|b\"] }, value: control }]",
                ]),
            ),
            0..8,
        ),
        name in "[a-zA-Z._-]{1,4}|\\PC{0,4}",
        variables in prop::collection::btree_map("(FEATURE_FLAG_)?[A-Za-z_]{0,4}(_PERCENT|_ALLOWLIST|_DENYLIST)?", "true|off|1|25|-3|\\PC{0,6}|a,b,,c", 0..6),
        flags in prop::collection::vec("[A-Za-z_-]{1,4}", 0..3),
    ) {
        let members: Vec<String> = members.iter().map(|(member, value)| format!("    {member}: {value}\n")).collect();
        let file = format!("features:\n  {name:?}:\n{}", members.concat());
        let mut world = World::new(&*file, &[]);
        world.variables = variables;
        for (at, flag) in flags.iter().enumerate() {
            world = world.route(route(&format!("r{at}"), "/", flag));
        }
        if let Ok((rules, _)) = world.compile() {
            for (_, flag) in rules.flags().iter() {
                let asked = asked(Some("s"), NOW_MS);
                let story = explain::explain(&rules, &flag.key, &asked);
                prop_assert!(story.steps.last().is_some_and(|step| step.decided && step.line == story.line));
            }
        }
    }

    #[test]
    fn no_text_makes_the_flag_file_panic(text in "\\PC{0,60}") {
        let _ = World::new(&*text, &[]).compile();
    }

    #[test]
    fn more_percent_only_adds_subjects(a in 0_u32..=1_000_000, b in 0_u32..=1_000_000, subject in "[a-z0-9]{1,12}") {
        let on = |buckets| {
            let file = one(&format!("type: percentage, percentage: {}", Threshold::from_buckets(buckets)));
            answer(&World::new(&*file, &[]).rules(), "f", &subject) == "on percent"
        };
        prop_assert!(!on(a.min(b)) || on(a.max(b)));
    }
}

#[test]
fn hidden_percentage_comes_with_a_remedy_that_the_type_allows() {
    let remedy = |members: &str| World::new(&*one(members), &[]).warnings().remove(0);
    let by_type = remedy("type: percentage, percentage: 5, allowlist: [a]");
    assert!(
        by_type.ends_with("make the type `boolean` and remove the percentage"),
        "{by_type}"
    );
    let by_member = remedy("type: boolean, percentage: 5, allowlist: [a]");
    assert!(by_member.ends_with("remove one of the two"), "{by_member}");
}

#[test]
fn flag_file_that_does_not_parse_makes_no_flag_unknown() {
    let found = World::new("features: {", &[])
        .route(route("r", "/", "KNOWN"))
        .compile()
        .map(|_| "compiles")
        .unwrap_err();
    assert!(
        !found.is_empty() && found.iter().all(|problem| problem.severity == Severity::Problem),
        "{found:?}"
    );
}
