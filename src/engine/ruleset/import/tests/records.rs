//! Records with texts in `metadata` (S2-01, S2-10) and records with a strategy (S4-09 to S4-14).

use super::*;
use crate::engine::flags::{Asked, Context};

fn answer(imported: &Imported, flag: &str, subject: &str, attributes: &str) -> String {
    let rules = rules(imported);
    let context: Context = serde_json::from_str(attributes).unwrap();
    let asked = Asked {
        attributes: &context,
        ..Asked::new(Some(subject), NOW_MS)
    };
    let flag = rules.flag(&FlagKey::parse(flag).unwrap()).expect(flag);
    flag.value(&rules.flags().answer(flag, &asked)).to_json()
}

#[test]
fn s2_10_percentage_and_dates_are_texts_in_metadata() {
    let text = r#"[
  {"key": "share", "enabled": true, "type": "percentage", "rules": [], "variants": {}, "created_at": "2026-01-01T00:00:00Z",
   "metadata": {"percentage": "25.5", "kill_switch": "false", "environment": "production"}},
  {"key": "ramp", "enabled": true, "type": "gradual", "metadata": {"start_date": "2026-08-01T00:00:00Z", "end_date": "2026-09-01T00:00:00Z"}},
  {"key": "plain", "enabled": true, "type": "boolean", "metadata": {"percentage": "10"}},
  {"key": "odd", "enabled": false, "type": "ab_test", "description": "was never known"},
  {"key": "bare", "enabled": true, "type": "percentage"}]"#;
    let imported = imported(Form::Metadata, text);
    assert_eq!(
        imported.text,
        "\
features:
  share:
    type: percentage
    metadata: { kill_switch: \"false\", environment: production }
    enabled: true
    percentage: 25.5
  ramp:
    type: gradual
    enabled: true
    start_date: \"2026-08-01T00:00:00Z\"
    end_date: \"2026-09-01T00:00:00Z\"
  plain:
    type: boolean
    enabled: true
  odd:
    type: boolean
    description: \"was never known\"
    enabled: false
  bare:
    type: percentage
    enabled: true
    percentage: 0
"
    );
    let told = told(&imported).join("\n");
    for said in [
        "share: `25.5` was cut to whole percents",
        "plain: a flag of type `boolean` never asked its percentage",
        "odd: the text `ab_test` is no type",
        "bare: no `metadata.percentage` is `percentage: 0`",
    ] {
        assert!(told.contains(said), "{said}\n{told}");
    }
    // The same people as `hash % 100 < percent` gives.
    let on = (0..1_000)
        .filter(|n| answer(&imported, "share", &format!("user_{n}"), "{}") == "true")
        .count();
    assert!((220..=290).contains(&on), "{on}");
}

#[test]
fn s2_03_rules_and_variants_are_taken_as_they_are() {
    let text = r#"{"features": {
  "targeted": {"type": "targeted", "enabled": true, "rules": [
    {"type": "location", "priority": 2, "conditions": {"country": ["US", "CA"]}, "value": true},
    {"type": "user", "priority": 1, "conditions": {"user_ids": ["anna"]}, "value": true}]},
  "split": {"type": "variant", "enabled": true, "variants": {"a": 0.5, "b": {"weight": 0.5, "config": {"n": 1.50}}}}},
  "experiments": {"x": {"name": "x"}}}"#;
    let problems = refused(Form::Metadata, text);
    assert!(
        problems[0].starts_with("in:5:"),
        "values of one kind, or none: {problems:?}"
    );
    let imported = imported(
        Form::Metadata,
        &text.replace("{\"weight\": 0.5, \"config\": {\"n\": 1.50}}", "0.5"),
    );
    assert_eq!(answer(&imported, "targeted", "anna", "{}"), "true");
    assert_eq!(answer(&imported, "targeted", "ben", r#"{"country": "US"}"#), "true");
    assert_eq!(answer(&imported, "targeted", "ben", "{}"), "false");
    assert!(matches!(&*answer(&imported, "split", "anna", "{}"), "\"a\"" | "\"b\""));
    let told = told(&imported).join("\n");
    assert!(
        told.contains("`experiments` are not kept") && told.contains("there is no `control`"),
        "{told}"
    );
}

#[test]
fn s4_09_to_s4_12_every_strategy_has_a_form() {
    let text = r#"[
  {"name": "auth-share", "enabled": true, "strategy": "PERCENTAGE", "percentage": 25.0, "environments": ["staging"], "user_ids": ["x"]},
  {"name": "auth-list", "enabled": true, "strategy": "user_list", "user_ids": ["anna", 7]},
  {"name": "auth-rules", "enabled": true, "strategy": "USER_ATTRIBUTE", "targeting_rules": [
    {"attribute": "engagement_score", "operator": "GREATER_THAN", "value": 80}, {"attribute": "country", "operator": "in", "values": ["US", "UK"]}]},
  {"name": "auth-any", "enabled": true, "strategy": "USER_ATTRIBUTE", "targeting_rules": [
    [{"attribute": "email", "operator": "contains", "values": ["@company.com"]}], [{"attribute": "plan", "operator": "equals", "values": "pro"}]]},
  {"name": "auth-ramp", "enabled": true, "strategy": "GRADUAL", "start_date": "2026-08-01T00:00:00Z", "gradual_increment": 10.0}]"#;
    let imported = imported(Form::Strategy, text);
    let at = |flag: &str, subject: &str, attributes: &str| answer(&imported, flag, subject, attributes);
    assert_eq!(
        [
            at("auth-list", "anna", "{}"),
            at("auth-list", "7", "{}"),
            at("auth-list", "ben", "{}")
        ],
        ["true", "true", "false"]
    );
    assert_eq!(
        at("auth-rules", "ben", r#"{"engagement_score": 81, "country": "UK"}"#),
        "true"
    );
    assert_eq!(
        at("auth-rules", "ben", r#"{"engagement_score": 81, "country": "DE"}"#),
        "false"
    );
    assert_eq!(
        [
            at("auth-any", "ben", r#"{"plan": "pro"}"#),
            at("auth-any", "ben", r#"{"email": "a@company.com"}"#),
            at("auth-any", "ben", "{}")
        ],
        ["true", "true", "false"]
    );
    for said in [
        "  auth-share:\n    type: percentage\n    enabled: true\n    environments: [staging]\n    percentage: 25.0\n",
        "  auth-ramp:\n    type: gradual\n    enabled: true\n    start_date: \"2026-08-01T00:00:00Z\"\n    gradual_increment: 10.0\n",
    ] {
        assert!(imported.text.contains(said), "{said}\n{}", imported.text);
    }
    let told = told(&imported).join("\n");
    for said in [
        "auth-share: the share is the same, but not the people",
        "`user_ids` is not kept",
        "auth-rules: all rules of one list must hold",
    ] {
        assert!(told.contains(said), "{said}\n{told}");
    }
}

#[test]
fn s4_14_weights_that_do_not_sum_to_100_are_refused() {
    let flag = |weight: u32| {
        format!(
            r#"[{{"name": "v", "enabled": true, "variants": [{{"name": "a", "value": {{"n": 1}}, "weight": 40}}, {{"name": "control", "value": {{"n": 2}}, "weight": {weight}}}]}}]"#
        )
    };
    let problems = refused(Form::Strategy, &flag(50));
    assert!(problems[0].contains("90"), "{problems:?}");
    let imported = imported(Form::Strategy, &flag(60));
    assert!(imported.text.contains("type: variant"), "{}", imported.text);
    let problems = refused(
        Form::Strategy,
        r#"[{"name": "v", "strategy": "USER_LST"}, {"name": "w", "strategy": "PERCENTAGE"}]"#,
    );
    assert!(
        problems
            .iter()
            .any(|problem| problem.contains("did you mean `user_list`?")),
        "{problems:?}"
    );
    assert!(
        problems.iter().any(|problem| problem.contains("`percentage`")),
        "{problems:?}"
    );
}
