//! Files of flagd: what maps, with the answers that it gives here, and a clear list of what does not.

use super::*;
use crate::engine::flags::{Asked, Context};

/// A file with one flag.
fn file(members: &str) -> String {
    format!(r#"{{"flags": {{"f": {{{members}}}}}}}"#)
}

/// A boolean flag that is off unless the program says otherwise.
fn boolean(targeting: &str) -> Imported {
    let members =
        r#""state": "ENABLED", "variants": {"on": true, "off": false}, "defaultVariant": "off", "targeting": "#;
    imported(Form::Flagd, &file(&format!("{members}{targeting}")))
}

fn variants(targeting: &str) -> Imported {
    let members = r#""state": "ENABLED", "variants": {"red": "r", "green": "g", "blue": "b"}, "defaultVariant": "red", "targeting": "#;
    imported(Form::Flagd, &file(&format!("{members}{targeting}")))
}

/// What the flag comes to, as JSON.
fn answer(imported: &Imported, subject: &str, attributes: &str) -> String {
    let rules = rules(imported);
    let context: Context = serde_json::from_str(attributes).unwrap();
    let asked = Asked {
        attributes: &context,
        ..Asked::new(Some(subject), NOW_MS)
    };
    let flag = rules.flag(&FlagKey::parse("f").unwrap()).unwrap();
    flag.value(&rules.flags().answer(flag, &asked)).to_json()
}

fn not_mapped(imported: &Imported) -> Vec<&str> {
    let lost = imported.notes.iter().filter(|note| note.outcome == Outcome::NotMapped);
    lost.map(|note| &*note.what).collect()
}

#[test]
fn plain_flags_keep_their_state_and_default() {
    let text = r#"{"$schema": "https://flagd.dev/schema/v0/flags.json", "metadata": {"team": "x", "version": 3}, "flags": {
      "on-by-default": {"state": "ENABLED", "variants": {"on": true, "off": false}, "defaultVariant": "on"},
      "off-by-default": {"state": "ENABLED", "variants": {"true": true, "false": false}, "defaultVariant": "false", "targeting": {}},
      "switched-off": {"state": "DISABLED", "variants": {"on": true, "off": false}, "defaultVariant": "on",
        "metadata": {"team": "y", "kill_switch": true}},
      "color": {"state": "ENABLED", "variants": {"red": "c05543", "green": "2f5230"}, "defaultVariant": "green"},
      "limits": {"state": "ENABLED", "variants": {"a": {"max": 1}, "b": {"max": 2.50}}, "defaultVariant": "a"}}}"#;
    let imported = imported(Form::Flagd, text);
    assert_eq!(
        imported.text,
        "\
features:
  on-by-default:
    type: boolean
    metadata: { team: x, version: \"3\" }
    enabled: true
  off-by-default:
    type: boolean
    metadata: { team: x, version: \"3\" }
    default: false
  switched-off:
    type: boolean
    metadata: { team: \"y\", version: \"3\" }
    enabled: false
  color:
    type: variant
    metadata: { team: x, version: \"3\" }
    variants:
      - { name: red, weight: 0, value: c05543 }
      - { name: green, weight: 100, value: \"2f5230\" }
    default: green
  limits:
    type: variant
    metadata: { team: x, version: \"3\" }
    variants:
      - { name: a, weight: 100, value: { max: 1 } }
      - { name: b, weight: 0, value: { max: 2.50 } }
    default: a
"
    );
    assert_eq!(not_mapped(&imported), [] as [&str; 0]);
    let told = told(&imported).join("\n");
    for said in [
        "is called `on` here",
        "kill_switch` would switch",
        "a disabled flag answers off",
    ] {
        assert!(told.contains(said), "{told}");
    }
}

#[test]
fn if_chains_become_rules_in_their_order() {
    let program = r#"{"if": [
      {"ends_with": [{"var": "email"}, "@example.com"]}, "on",
      {"and": [{"in": [{"var": "country"}, ["US", "CA"]]}, {"!": {"==": [{"var": "plan"}, "free"]}}]},
        {"if": [{">=": [{"var": "age"}, 18]}, "on"]},
      {"or": [{"starts_with": [{"var": "tel"}, "+351"]}, {"in": ["beta", {"var": "groups"}]}]}, "on",
      null]}"#;
    let imported = boolean(program);
    assert_eq!(not_mapped(&imported), [] as [&str; 0]);
    for (attributes, expected) in [
        (r#"{"email": "a@example.com"}"#, "true"),
        (r#"{"email": "a@example.org"}"#, "false"),
        (r#"{"country": "US", "age": 18}"#, "true"),
        (r#"{"country": "US", "age": 17, "tel": "+351"}"#, "false"),
        (r#"{"country": "US", "plan": "free", "age": 40}"#, "false"),
        (r#"{"country": "US", "plan": "free", "tel": "+35191"}"#, "true"),
        (r#"{"groups": ["alpha", "beta"]}"#, "true"),
        (r#"{"groups": "alphabeta"}"#, "true"),
        ("{}", "false"),
    ] {
        assert_eq!(
            answer(&imported, "anna", attributes),
            expected,
            "{attributes}\n{}",
            imported.text
        );
    }
    assert!(imported.text.contains("    type: targeted\n"), "{}", imported.text);
}

#[test]
fn versions_are_compared_alike() {
    for (operator, version, yes, no) in [
        ("=", "1.2.3", &["1.2.3", "1.2.3+7"][..], &["1.2.4", "x"][..]),
        ("!=", "1.2.3", &["1.2.4", "1.2.2"], &["1.2.3", "x"]),
        (">", "1.2.3", &["1.2.4"], &["1.2.3", "1.2.3-rc.1"]),
        (">=", "1.2.3", &["1.2.3", "2.0.0"], &["1.2.2"]),
        ("<", "1.2.3", &["1.2.3-rc.1", "0.9.0"], &["1.2.3"]),
        ("<=", "1.2.3", &["1.2.3", "1.0.0"], &["1.2.4"]),
        (
            "^",
            "v1.2.3",
            &["1.0.0", "1.9.9", "1.0.0-alpha"],
            &["2.0.0", "2.0.0-alpha", "0.9.9"],
        ),
        (
            "~",
            "1.2.3",
            &["1.2.0", "1.2.9", "1.2.0-0"],
            &["1.3.0", "1.3.0-rc", "1.1.9"],
        ),
    ] {
        let imported = boolean(&format!(
            r#"{{"if": [{{"sem_ver": [{{"var": "v"}}, "{operator}", "{version}"]}}, "on"]}}"#
        ));
        let is_on = |v: &&str| answer(&imported, "anna", &format!(r#"{{"v": "{v}"}}"#)) == "true";
        assert!(
            yes.iter().all(is_on),
            "{operator} {version}: {yes:?}\n{}",
            imported.text
        );
        assert!(!no.iter().any(is_on), "{operator} {version}: {no:?}\n{}", imported.text);
        assert_eq!(answer(&imported, "anna", "{}"), "false");
    }
}

#[test]
fn evaluators_become_segments() {
    let text = r#"{"$evaluators": {
        "staff": {"in": ["@example.com", {"var": ["email"]}]},
        "friends": {"or": [{"$ref": "staff"}, {"in": [{"var": "targetingKey"}, ["anna", "ben"]]}]},
        "odd name": {"==": [{"var": "plan"}, "gold"]},
        "forgotten": {"==": [1, 1]}},
      "flags": {"f": {"state": "ENABLED", "variants": {"on": true, "off": false}, "defaultVariant": "off",
        "targeting": {"if": [{"$ref": "friends"}, "on", {"$ref": "odd name"}, "on"]}}}}"#;
    let imported = imported(Form::Flagd, text);
    let segments = "\
segments:
  staff:
    attribute: email
    operator: contains
    values: [\"@example.com\"]
  friends:
    any:
      - { segment: staff }
      - { user_ids: [anna, ben] }
features:
";
    assert!(imported.text.starts_with(segments), "{}", imported.text);
    assert!(
        told(&imported)[0].contains("no flag asks for the evaluator `forgotten`"),
        "{:?}",
        told(&imported)
    );
    let at = |subject, attributes| answer(&imported, subject, attributes);
    assert_eq!(at("carla", "{}"), "false");
    assert_eq!(
        [
            at("anna", "{}"),
            at("carla", r#"{"email": "c@example.com"}"#),
            at("carla", r#"{"plan": "gold"}"#)
        ],
        ["true"; 3]
    );
}

#[test]
fn splits_become_weights_or_a_percentage() {
    let whole = boolean(r#"{"fractional": [["on", 25], ["off", 75]]}"#);
    assert!(
        whole.text.contains("    type: percentage\n    percentage: 25\n"),
        "{}",
        whole.text
    );
    let behind =
        boolean(r#"{"if": [{"==": [{"var": "country"}, "US"]}, {"fractional": [["on", 1], ["off"], ["on2", 1]]}]}"#);
    assert!(
        not_mapped(&behind)[0].contains("`on2` is no variant"),
        "{:?}",
        behind.notes
    );
    let behind = boolean(r#"{"if": [{"==": [{"var": "country"}, "US"]}, {"fractional": [["on", 1], ["off", 2]]}]}"#);
    assert!(behind.text.contains("value: 33.3333 }"), "{}", behind.text);
    assert!(
        told(&behind).iter().any(|line| line.contains("rounded to 33.3333")),
        "{:?}",
        told(&behind)
    );

    let thirds =
        variants(r#"{"fractional": [{"cat": ["seed-1", {"var": "targetingKey"}]}, ["red"], ["blue"], ["green"]]}"#);
    assert_eq!(
        thirds.text,
        "\
features:
  f:
    type: variant
    cohort: seed-1
    variants:
      - { name: red, weight: 0.333333333, value: r }
      - { name: blue, weight: 0.333333333, value: b }
      - { name: green, weight: 0.333333333, value: g }
    default: red
"
    );
    let mut seen: Vec<String> = (0..100).map(|n| answer(&thirds, &format!("user_{n}"), "{}")).collect();
    seen.sort();
    seen.dedup();
    assert_eq!(seen, ["\"b\"", "\"g\"", "\"r\""]);
}

#[test]
fn split_for_some_leaves_the_others_with_the_default() {
    let program = r#"{"if": [{"==": [{"var": "plan"}, "gold"]}, "blue",
        {"in": [{"var": "country"}, ["US"]]}, {"fractional": [{"var": "email"}, ["red", 50], ["green", 50]]}]}"#;
    let imported = variants(program);
    assert_eq!(not_mapped(&imported), [] as [&str; 0]);
    assert!(
        told(&imported)[0].contains("here they go by the subject"),
        "{:?}",
        told(&imported)
    );
    assert_eq!(answer(&imported, "anna", r#"{"plan": "gold"}"#), "\"b\"");
    let mut seen: Vec<String> = (0..50)
        .map(|n| answer(&imported, &format!("user_{n}"), r#"{"country": "US"}"#))
        .collect();
    seen.sort();
    seen.dedup();
    assert_eq!(seen, ["\"g\"", "\"r\""]);
    assert!(
        (0..50).all(|n| answer(&imported, &format!("user_{n}"), "{}") == "\"r\""),
        "{}",
        imported.text
    );
}

#[test]
fn condition_alone_chooses_between_true_and_false() {
    let members = r#""state": "ENABLED", "variants": {"true": true, "false": false}, "defaultVariant": "false",
        "targeting": {"in": ["@example.com", {"var": "email"}]}"#;
    let named = imported(Form::Flagd, &file(members));
    assert_eq!(answer(&named, "anna", r#"{"email": "a@example.com"}"#), "true");
    assert_eq!(answer(&named, "anna", "{}"), "false");
    let other = boolean(r#"{"in": ["@example.com", {"var": "email"}]}"#);
    assert_eq!(
        not_mapped(&other),
        [
            "`true` is no variant of this flag",
            "`false` is no variant of this flag"
        ]
    );
}

#[test]
fn time_is_compared_in_whole_seconds() {
    let second = NOW_MS / 1_000;
    let at = |operator: &str, offset: i64| {
        let program = format!(
            r#"{{"if": [{{"{operator}": [{{"var": "$flagd.timestamp"}}, {}]}}, "on"]}}"#,
            second + offset
        );
        answer(&boolean(&program), "anna", "{}")
    };
    for (operator, before, same, after) in [
        ("<", "false", "false", "true"),
        ("<=", "false", "true", "true"),
        (">", "true", "false", "false"),
        (">=", "true", "true", "false"),
    ] {
        assert_eq!(
            [at(operator, -1), at(operator, 0), at(operator, 1)],
            [before, same, after],
            "{operator}"
        );
    }
}

#[test]
fn what_does_not_map_is_listed_whole_and_its_flag_is_off() {
    let program = r#"{"if": [
      {"==": [{"var": "user.email"}, "a"]}, "on",
      {"var": "beta"}, "on",
      {"some": [{"var": "list"}, {"==": [{"var": ""}, 1]}]}, "purple",
      {"==": [{"var": "a"}, {"var": "b"}]}, {"var": "color"},
      {"$ref": "nowhere"}, "on",
      {"!!": {"var": "email"}}, {"fractional": [["on", {"var": "share"}], ["off", 1]]},
      {"in": [{"var": "x"}, []]}, "on",
      {"==": [{"var": "x"}, null]}, "on",
      {"sem_ver": [{"var": "v"}, ">", "1.2"]}, {"cat": ["o", "n"]}]}"#;
    let imported = boolean(program);
    let lost = not_mapped(&imported).join("\n");
    for said in [
        "`user.email` lies inside another attribute",
        "an attribute alone is no condition",
        "`some` with 2 arguments has no counterpart",
        "`purple` is no variant",
        "two attributes are not compared",
        "`var` chooses no variant",
        "there is no evaluator `nowhere`",
        "`!!` asks whether",
        "expected a variant with its share",
        "an empty list never holds",
        "expected a text, a number, true or false, found nothing",
        "expected a version such as 1.2.3",
        "`cat` chooses no variant",
    ] {
        assert!(lost.contains(said), "{said}\n{lost}");
    }
    assert_eq!(
        imported.text,
        "features:\n  f:\n    type: boolean\n    enabled: false\n"
    );
    assert!(
        imported.notes.iter().all(|note| note.outcome == Outcome::NotMapped),
        "nothing of it is mapped"
    );
    assert_eq!(
        imported.notes[0].to_string().split(": ").next(),
        Some("in:2:15"),
        "each with its place"
    );
}

#[test]
fn absent_attribute_that_was_taken_for_zero_is_told() {
    let told_of = |condition: &str| told(&boolean(&format!(r#"{{"if": [{condition}, "on"]}}"#)));
    assert!(told_of(r#"{"<": [{"var": "age"}, 18]}"#)[0].contains("who has no `age`"));
    assert!(told_of(r#"{">=": [0, {"var": "age"}]}"#)[0].contains("who has no `age`"));
    assert_eq!(told_of(r#"{">": [{"var": "age"}, 18]}"#), [] as [String; 0]);
    assert!(told_of(r#"{"===": [{"var": "age"}, 18]}"#)[0].contains("told numbers and texts apart"));
    let between = boolean(r#"{"if": [{"<=": [18, {"var": "age"}, 65]}, "on"]}"#);
    let at = |age: &str| answer(&between, "anna", &format!(r#"{{"age": {age}}}"#));
    assert_eq!(
        [at("17"), at("18"), at("65"), at("66")],
        ["false", "true", "true", "false"]
    );
}

#[test]
fn two_splits_and_rings_do_not_map() {
    let two = variants(
        r#"{"if": [{"==": [{"var": "a"}, 1]}, {"fractional": [["red", 50], ["blue", 50]]}, {"fractional": [["red", 10], ["blue", 90]]}]}"#,
    );
    assert!(
        not_mapped(&two)[0].contains("a flag has one split here"),
        "{:?}",
        two.notes
    );
    let ring = r#"{"$evaluators": {"a": {"and": [{"$ref": "b"}]}, "b": {"and": [{"$ref": "a"}]}}, "flags": {"f": {"state": "ENABLED",
        "variants": {"on": true, "off": false}, "defaultVariant": "off", "targeting": {"if": [{"$ref": "a"}, "on"]}}}}"#;
    assert!(not_mapped(&imported(Form::Flagd, ring))[0].contains("in a ring"));
}

#[test]
fn file_that_flagd_would_refuse_is_refused() {
    let cases = [
        ("{}", "there are no `flags`"),
        (r#"{"flags": {"f": {"state": "ENABLED"}}}"#, "without `variants`"),
        (
            r#"{"flags": {"f": {"state": "ON", "variants": {"on": true}, "defaultVariant": "on"}}}"#,
            "ENABLED or DISABLED",
        ),
        (
            r#"{"flags": {"f": {"state": "ENABLED", "variants": {"on": true}, "defaultVariant": "off"}}}"#,
            "no variant of this flag",
        ),
        (
            r#"{"flags": {"f": {"state": "ENABLED", "variants": {"on": true}, "default_variant": "on"}}}"#,
            "did you mean `defaultVariant`?",
        ),
    ];
    for (text, said) in cases {
        let problems = refused(Form::Flagd, text);
        assert!(
            problems.iter().any(|problem| problem.contains(said)),
            "{text}: {problems:?}"
        );
    }
}
