//! Records of integration flags (S0-02 to S0-06), and the catalogue (S0-24).

use super::*;
use crate::engine::flags::model::Kind;

const CATALOGUE: &str = include_str!("../../../../../config/catalogue.yaml");

#[test]
fn s0_24_catalogue_comes_over_whole() {
    let imported = imported(Form::Integration, CATALOGUE);
    assert_eq!(told(&imported), [] as [String; 0]);
    let rules = rules(&imported);
    let (release, operational, experiment) = (Kind::Release, Kind::Operational, Kind::Experiment);
    let expected = [
        ("stripe_payment_enabled", release, false),
        ("service_mesh_enabled", operational, false),
        ("proactive_intelligence_enabled", release, false),
        ("contract_drift_prediction_enabled", operational, false),
        ("multi_region_enabled", release, false),
        ("advanced_caching_enabled", release, true),
        ("parallel_processing_enabled", operational, true),
        ("enhanced_security_enabled", release, true),
        ("rate_limiting_strict_enabled", operational, false),
        ("detailed_metrics_enabled", operational, true),
        ("circuit_breaker_metrics_enabled", release, false),
        ("new_ui_enabled", experiment, false),
        ("ml_optimization_enabled", experiment, false),
    ];
    assert_eq!(rules.flags().iter().len(), expected.len());
    for (name, kind, on) in expected {
        let flag = rules.flag(&FlagKey::parse(name).unwrap()).expect(name);
        assert_eq!((flag.about.kind, flag.default), (Some(kind), on), "{name}");
        // Left to environment variables (S0-08), which a file would hide.
        assert_eq!(flag.enabled, None, "{name}");
    }
}

#[test]
fn s0_03_status_says_who_decides() {
    let text = "\
- { name: all, type: RELEASE, status: ENABLED, percentage: 100.0 }
- { name: some, type: experiment, status: partial, percentage: 50.0 }
- { name: none, type: PERMISSION, status: DISABLED, percentage: 30 }
- { name: lost, status: PARTIAL }
- { name: silent }
";
    let imported = imported(Form::Integration, text);
    assert_eq!(
        imported.text,
        "\
features:
  all:
    type: boolean
    kind: release
    enabled: true
  some:
    type: percentage
    kind: experiment
    percentage: 50.0
  none:
    type: boolean
    kind: permission
    enabled: false
  lost:
    type: percentage
    percentage: 0
  silent:
    type: boolean
"
    );
    let told = told(&imported);
    assert_eq!(told.len(), 4, "{told:#?}");
    assert!(told[0].starts_with("in:2:64: changed: some: the share is the same, but not the people"));
    assert!(
        told[1].starts_with("in:3:65: changed: none: the percentage is not kept: `DISABLED`"),
        "{}",
        told[1]
    );
    assert!(told[2].contains("lost: `PARTIAL` without a percentage"));
    assert!(told[3].contains("silent: says no `status`"));
    let _ = rules(&imported);
}

#[test]
fn s0_06_dates_without_an_offset_are_utc_and_conditions_are_kept_as_a_text() {
    let text = r#"{"promo": {"status": "ENABLED", "start_date": "2026-08-01T08:30:00", "end_date": "2026-09-01 00:00:00.5+02:00",
 "conditions": {"country": ["BR", "no"]}, "team": "x"}, "later": {"status": "DISABLED", "start_date": "2027-01-01", "conditions": {}}}"#;
    let imported = imported(Form::Integration, text);
    assert_eq!(
        imported.text,
        "\
features:
  promo:
    type: boolean
    metadata: { conditions: \"{ country: [BR, \\\"no\\\"] }\" }
    enabled: true
    start_date: \"2026-08-01T08:30:00Z\"
    end_date: \"2026-09-01T00:00:00.5+02:00\"
  later:
    type: boolean
    enabled: false
    start_date: \"2027-01-01T00:00:00Z\"
"
    );
    let told = told(&imported);
    assert_eq!(told.len(), 4, "{told:#?}");
    assert!(told[0].contains("`2026-08-01T08:30:00` says no offset and is taken as UTC"));
    assert!(told[1].contains("conditions were kept and never asked"));
    assert!(told[2].contains("`team` is not kept"));
}

#[test]
fn words_that_nobody_knows_are_refused() {
    let text = "- { name: a, type: RELEAS, status: ENABLD }\n- { name: b, percentage: 5 }\n";
    let problems = refused(Form::Integration, text);
    assert!(problems[0].contains("did you mean `release`?"), "{problems:?}");
    assert!(problems[1].contains("did you mean `enabled`?"), "{problems:?}");
    assert!(
        problems[2].starts_with("in:2:26: a percentage without a `status`"),
        "{problems:?}"
    );
}
