//! Random rule sets, and the laws that hold for every one of them.

use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Map, Value as Json, json};

use super::World;
use crate::engine::flags::attributes::Value;
use crate::engine::flags::{Asked, Context, Evaluation, FlagKills, Line};
use crate::engine::ruleset::decode::decode;
use crate::engine::ruleset::document::{Document, FlagRecord};
use crate::engine::ruleset::layer::Layer;
use crate::engine::ruleset::problem::Problems;
use crate::engine::ruleset::{Ruleset, write};
use crate::engine::vocab::Reason;

fn subject() -> impl Strategy<Value = String> {
    select(vec!["ana", "ben", "0123", "carla", "user_1", "user_2"]).prop_map(str::to_owned)
}

fn subjects() -> impl Strategy<Value = Vec<String>> {
    prop::collection::vec(subject(), 0..3)
}

fn text() -> impl Strategy<Value = String> {
    select(vec![
        "US",
        "DE",
        "NO",
        "true",
        "1",
        "0123",
        "1e3",
        "9007199254740993",
        "",
        "a b",
        "é\u{85}\u{2028}\"\\",
        "2.10.0",
    ])
    .prop_map(str::to_owned)
}

fn attribute() -> impl Strategy<Value = String> {
    select(vec![
        "country",
        "plan",
        "score",
        "groups",
        "operator",
        "app version",
        "1",
        "true",
    ])
    .prop_map(str::to_owned)
}

fn percent() -> impl Strategy<Value = Json> {
    prop_oneof![
        (0_u32..=100).prop_map(|whole| json!(whole)),
        (0_u32..10_000).prop_map(|units| serde_json::from_str(&format!("99.{units:04}")).unwrap()),
    ]
}

fn comparison() -> impl Strategy<Value = Json> {
    let values = prop::collection::vec(text(), 1..3);
    let plain = (
        attribute(),
        select(vec![
            "equals",
            "not_equals",
            "in",
            "not_in",
            "contains",
            "starts_with",
            "ends_with",
            "greater_than",
            "less_than",
        ]),
        values,
    );
    let plain = plain.prop_map(|(name, operator, values)| (name, operator, json!(values)));
    let special = select(vec![
        ("semver_equals", json!(["1.2.3"])),
        ("semver_less_than", json!(["2.0.0-rc.1", "1.0.0"])),
        ("cidr", json!(["10.0.0.0/8", "::1"])),
        ("regex", json!(["^a+$", "b"])),
    ]);
    let special = (attribute(), special).prop_map(|(name, (operator, values))| (name, operator, values));
    prop_oneof![3 => plain, 1 => special]
        .prop_map(|(name, operator, values)| json!({ "attribute": name, "operator": operator, "values": values }))
}

fn condition() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        4 => comparison(),
        2 => (select(vec!["country", "plan"]), prop::collection::vec(text(), 1..3)).prop_map(|(name, values)| json!({ name: values })),
        1 => (select(vec!["country", "plan"]), text()).prop_map(|(name, value)| json!({ name: value })),
        1 => (comparison(), text()).prop_map(|(mut all, value)| { all["country"] = json!(value); all }),
        1 => prop::collection::vec(subject(), 1..3).prop_map(|ids| json!({ "user_ids": ids })),
        1 => prop::collection::vec(text(), 1..3).prop_map(|names| json!({ "groups": names })),
        1 => percent().prop_map(|share| json!({ "percentage": share })),
        1 => select(vec!["s1", "s2"]).prop_map(|name| json!({ "segment": name })),
        1 => Just(json!({ "days": ["mon", "sun"], "hours": "22:00-06:30", "timezone": "Europe/Lisbon" })),
        1 => Just(json!({ "after": "2026-01-01T00:00:00.5Z", "before": "2027-01-01T00:00:00Z", "plan": "x" })),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        let list = prop::collection::vec(inner.clone(), 1..3);
        prop_oneof![
            list.clone().prop_map(|all| json!({ "all": all })),
            list.clone().prop_map(|any| json!({ "any": any })),
            inner.clone().prop_map(|inner| json!({ "not": inner })),
            (list, inner).prop_map(|(any, not)| json!({ "any": any, "not": not })),
        ]
    })
}

/// A segment that names at most segments before it.
fn segment() -> impl Strategy<Value = Json> {
    condition().prop_filter("names no segment", |condition| {
        !condition.to_string().contains("\"segment\"")
    })
}

fn rule(values: Vec<Json>) -> impl Strategy<Value = Json> {
    (
        // Every rule names somebody, so that any type will do.
        condition(),
        prop::option::of(select(vec!["r1", "r2", "a rule", "7"])),
        prop::option::of(0_u32..3),
        prop::option::of(prop_oneof![select(values), percent()]),
    )
        .prop_map(|(condition, name, priority, value)| {
            let mut rule = json!({ "type": "user", "conditions": { "any": [condition, { "user_ids": ["ana"] }] } });
            let members = [
                ("name", json!(name)),
                ("priority", json!(priority)),
                ("value", json!(value)),
            ];
            for (member, value) in members.into_iter().filter(|(_, value)| !value.is_null()) {
                rule[member] = value;
            }
            rule
        })
}

fn set(flag: &mut Json, member: &str, value: Option<Json>) {
    if let Some(value) = value {
        flag[member] = value;
    }
}

prop_compose! {
    /// What every type may say.
    fn common(values: Vec<Json>)(
        enabled in prop::option::weighted(0.7, prop::bool::weighted(0.9)),
        denylist in prop::option::weighted(0.3, subjects()),
        allowlist in prop::option::weighted(0.2, subjects()),
        beta_users in prop::option::weighted(0.2, subjects()),
        rules in prop::collection::vec(rule(values), 0..4),
        cohort in prop::option::weighted(0.2, Just("c1")),
        environments in prop::option::weighted(0.2, prop_oneof![Just(json!(["production"])), Just(json!([])), Just(json!(["NO", "staging"]))]),
        owner in prop::option::of(text()),
        start in prop::option::weighted(0.2, Just("2026-08-09T23:59:59.123+02:00")),
    ) -> Json {
        let mut flag = json!({});
        set(&mut flag, "enabled", enabled.map(|on| json!(on)));
        set(&mut flag, "denylist", denylist.map(|list| json!(list)));
        set(&mut flag, "allowlist", allowlist.map(|list| json!(list)));
        set(&mut flag, "beta_users", beta_users.map(|list| json!(list)));
        if !rules.is_empty() {
            flag["rules"] = json!(rules);
        }
        set(&mut flag, "cohort", cohort.map(|key| json!(key)));
        set(&mut flag, "environments", environments);
        set(&mut flag, "owner", owner.map(|text| json!(text)));
        set(&mut flag, "start_date", start.map(|date| json!(date)));
        flag
    }
}

fn plain_flag() -> impl Strategy<Value = Json> {
    let parts = (
        common(vec![json!(true), json!(false)]),
        select(vec!["boolean", "targeted", "percentage"]),
        prop::option::of(percent()),
        prop::option::weighted(0.3, any::<bool>()),
    );
    parts.prop_map(|(mut flag, kind, share, default)| {
        flag["type"] = json!(kind);
        set(
            &mut flag,
            "percentage",
            if kind == "percentage" {
                share.or(Some(json!(50)))
            } else {
                share
            },
        );
        set(&mut flag, "default", default.map(|on| json!(on)));
        flag
    })
}

fn variant_flag() -> impl Strategy<Value = Json> {
    let names = vec![json!(true), json!(false), json!("control"), json!("b c")];
    let value = select(vec![
        json!([1, 2.50, null]),
        json!(["true"]),
        json!([{ "k": 9_007_199_254_740_993_u64 }]),
    ]);
    let weight = select(vec!["0.3333", "0.5", "0", "1", "0.25"]);
    (common(names), value, weight, prop::option::of(percent()), any::<bool>()).prop_map(
        |(mut flag, value, weight, share, valued)| {
            let rest = format!("{:.4}", 1.0 - weight.parse::<f64>().unwrap());
            let number = |text: &str| serde_json::from_str::<Json>(text).unwrap();
            let mut control = json!({ "name": "control", "weight": number(weight) });
            let mut other = json!({ "name": "b c", "weight": number(&rest) });
            if valued {
                control["value"] = value.clone();
                other["config"] = value;
            }
            flag["type"] = json!("variant");
            flag["variants"] = json!([control, other]);
            set(&mut flag, "percentage", share);
            flag
        },
    )
}

fn gradual_flag() -> impl Strategy<Value = Json> {
    common(vec![json!(true), json!(false)]).prop_map(|mut flag| {
        flag["type"] = json!("gradual");
        flag["start_date"] = json!("2026-08-01T00:00:00Z");
        flag["gradual_increment"] = json!(2.5);
        flag
    })
}

fn any_flag() -> impl Strategy<Value = Json> {
    prop_oneof![3 => plain_flag(), 2 => variant_flag(), 1 => gradual_flag()]
}

prop_compose! {
    /// A file that compiles: flags `f0..`, of which each may ask those before it.
    fn file()(
        flags in prop::collection::vec((any_flag(), prop::option::weighted(0.3, (any::<prop::sample::Index>(), any::<bool>()))), 1..5),
        segments in (segment(), segment()),
    ) -> Json {
        let mut features = Map::new();
        for (at, (mut flag, first)) in flags.into_iter().enumerate() {
            if let Some((index, wanted)) = first.filter(|_| at > 0) {
                flag["prerequisites"] = json!([{ "flag": format!("f{}", index.index(at)), "value": wanted }]);
            }
            features.insert(format!("f{at}"), flag);
        }
        let (s1, s2) = segments;
        json!({ "segments": { "s1": s1, "s2": { "all": [{ "segment": "s1" }, s2] } }, "features": features })
    }
}

fn known() -> impl Strategy<Value = Context> {
    let value = prop_oneof![
        text().prop_map(|text| Value::Text(text.into())),
        select(vec!["1", "1000", "9007199254740993", "-1.5"]).prop_map(|text| Value::Number(text.into())),
        any::<bool>().prop_map(Value::Bool),
        Just(Value::Null),
        Just(Value::Opaque),
        prop::collection::vec(text().prop_map(|text| Value::Text(text.into())), 0..3)
            .prop_map(|list| Value::List(list.into())),
    ];
    prop::collection::vec((attribute().prop_map(String::into_boxed_str), value), 0..5).prop_map(Context::collect)
}

fn compiled(file: &Json) -> Ruleset {
    World::new(file.to_string().as_str(), &[]).rules()
}

/// The walk by single lines, as `explain` takes it.
fn slowly(rules: &Ruleset, at: crate::engine::flags::FlagRef, asked: &Asked<'_>) -> Evaluation {
    let flag = rules.flags().at(at).unwrap();
    let mut answers = Line::ALL
        .into_iter()
        .filter_map(|line| Some((line, line.ask(rules.flags(), flag, asked)?)));
    let (line, answer) = answers.next().unwrap();
    assert_eq!(line, answer.line);
    answer
}

fn layer(text: &str) -> Layer {
    let mut problems = Problems::default();
    let document = Document::parse(&"f".into(), text, &mut problems).unwrap_or_else(|| panic!("{text}"));
    let layer = document.into_layer(&mut problems);
    assert!(!problems.refuse(), "{text}\n{problems:?}");
    layer
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn fast_walk_is_the_slow_one(
        file in file(), known in known(), subject in prop::option::of(subject()), killed in 0_usize..8, unix_ms in 1_785_000_000_000_i64..1_787_000_000_000,
    ) {
        let rules = compiled(&file);
        let kills = FlagKills::collect(false, [killed]);
        for (at, flag) in rules.flags().iter() {
            let asked = Asked { attributes: &known, kills: &kills, ..Asked::new(subject.as_deref(), unix_ms) }.of(at);
            let answer = rules.flags().evaluate(at, &asked);
            prop_assert_eq!(answer, slowly(&rules, at, &asked), "{}", &flag.key);
            prop_assert_eq!(answer.variant.is_some(), flag.variants.is_some());
            prop_assert!(!asked.killed || answer.reason == Reason::Killed);
            prop_assert!(answer.reason != Reason::IdentityUnknown || (subject.is_none() && !answer.enabled));
            if rules.flags().evaluate_for_everybody(at, &asked).is_some() {
                prop_assert!(answer.enabled || subject.is_none(), "{}", &flag.key);
            }
        }
    }

    #[test]
    fn more_percent_only_adds_subjects(file in file(), known in known(), subject in subject(), a in 0_u32..=100, b in 0_u32..=100) {
        let on = |share: u32| {
            let mut file = file.clone();
            let flag = &mut file["features"]["f0"];
            let kind = flag["type"].as_str().unwrap().to_owned();
            if kind == "gradual" {
                return None;
            }
            flag["percentage"] = json!(share);
            let rules = compiled(&file);
            let at = rules.flags().find("f0").unwrap();
            let asked = Asked { attributes: &known, ..Asked::new(Some(&subject), super::NOW_MS) };
            Some(rules.flags().evaluate(at, &asked))
        };
        if let (Some(less), Some(more)) = (on(a.min(b)), on(a.max(b))) {
            prop_assert!(!less.enabled || more.enabled);
            prop_assert!(!less.enabled || less.variant == more.variant, "who stays in keeps the variant");
        }
    }

    #[test]
    fn what_is_written_reads_as_the_same(file in file()) {
        let once = layer(&file.to_string());
        let yaml = write::layer_yaml(&once);
        let again = layer(&yaml);
        prop_assert_eq!(&once.segments, &again.segments);
        prop_assert_eq!(write::layer_yaml(&again), yaml.clone());
        for (key, entry) in &once.flags {
            let said = entry.members.clone().without_origins();
            prop_assert_eq!(&said, &again.flags[key].members.clone().without_origins(), "{}", yaml);
            let json = write::flag_json(&entry.members);
            let alone = layer(&format!("{{\"features\":{{\"{key}\":{json}}}}}"));
            prop_assert_eq!(&said, &alone.flags[key].members.clone().without_origins(), "{}", json);
            prop_assert!(serde_json::from_str::<Json>(&json).is_ok(), "{}", json);
            let mut problems = Problems::default();
            prop_assert!(decode::<FlagRecord>(&"f".into(), &json, &mut problems).is_some(), "{:?}", problems);
        }
    }
}
