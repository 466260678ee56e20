//! Rows of a rollout table (S1-06), and what a row cannot say (C3).

use super::*;

/// One row with these columns beside its name, as the flag's members and the report.
fn row(columns: &str) -> (String, Vec<String>) {
    let imported = imported(Form::Rollout, &format!(r#"[{{"name": "F", {columns}}}]"#));
    let _ = rules(&imported);
    let members = features(&imported)
        .strip_prefix("  F:\n")
        .expect("the flag")
        .replace("    ", "");
    (members, told(&imported))
}

#[test]
fn s1_06_row_becomes_a_flag() {
    let text = r#"[
  {"name": "WHATSAPP_GATEWAY_ENABLED", "enabled": true, "shadow_mode": true, "allowlist": ["shopper_001", 33639980123],
   "denylist": ["shopper_bad"], "percent_rollout": 0, "active": true, "id": 7, "updated_at": "2026-01-01"},
  {"model": "flags.featureflagconfig", "pk": 2, "fields": {"name": "WHATSAPP_DUAL_RUN", "enabled": true, "shadow_mode": false,
   "allowlist": null, "denylist": [], "percent_rollout": 25, "active": true}}
]"#;
    let imported = imported(Form::Rollout, text);
    assert_eq!(
        imported.text,
        "\
features:
  WHATSAPP_GATEWAY_ENABLED:
    type: boolean
    enabled: true
    denylist: [shopper_bad]
    allowlist: [shopper_001, \"33639980123\"]
    shadow_mode: true
  WHATSAPP_DUAL_RUN:
    type: percentage
    enabled: true
    percentage: 25
"
    );
    assert_eq!(
        told(&imported),
        [
            "in:3:52: changed: WHATSAPP_GATEWAY_ENABLED: `percent_rollout: 0` beside an allowlist is no percentage: the list alone decides"
        ]
    );
    assert!(
        imported.notes[0]
            .to_string()
            .starts_with("in:2:12: mapped: WHATSAPP_GATEWAY_ENABLED: type, enabled,"),
        "{}",
        imported.notes[0]
    );
    assert_eq!(rules(&imported).flags().iter().len(), 2);
}

#[test]
fn c3_zero_beside_a_list_is_unset_and_zero_alone_is_zero_and_both_are_told() {
    let (members, told) =
        row(r#""enabled": true, "allowlist": ["shopper_test_001"], "percent_rollout": 0, "active": true"#);
    assert_eq!(members, "type: boolean\nenabled: true\nallowlist: [shopper_test_001]\n");
    assert!(
        told.len() == 1 && told[0].contains("the list alone decides"),
        "{told:?}"
    );
    for list in ["null", "[]"] {
        let (members, told) = row(&format!(
            r#""enabled": true, "allowlist": {list}, "percent_rollout": 0"#
        ));
        assert_eq!(members, "type: percentage\nenabled: true\npercentage: 0\n", "{list}");
        assert!(
            told.len() == 1 && told[0].contains("`percentage: 0`: nobody"),
            "{told:?}"
        );
    }
}

#[test]
fn c2_empty_list_is_never_a_launch() {
    // With a percentage beside it the row says who; without one, nobody is in.
    let (members, told) = row(r#""enabled": true, "allowlist": [], "percent_rollout": "12.5""#);
    assert_eq!(members, "type: percentage\nenabled: true\npercentage: 12.5\n");
    assert!(told[0].contains("no list here"), "{told:?}");
    let (members, told) = row(r#""enabled": true, "allowlist": []"#);
    assert_eq!(members, "type: boolean\nenabled: true\nallowlist: []\n");
    assert!(told[0].contains("nobody"), "{told:?}");
}

#[test]
fn inactive_row_is_off_whatever_else_it_says() {
    let (members, told) = row(r#""enabled": true, "allowlist": ["a"], "percent_rollout": 5, "active": false"#);
    assert_eq!(
        members,
        "type: boolean\nenabled: false\nallowlist: [a]\npercentage: 5\n"
    );
    assert!(told.len() == 1 && told[0].contains("`active: false`"), "{told:?}");
    let (members, told) = row(r#""enabled": false, "percent_rollout": 5, "active": true"#);
    assert_eq!(members, "type: percentage\nenabled: false\npercentage: 5\n");
    assert!(
        told.len() == 1 && told[0].contains("before lists and percentage"),
        "{told:?}"
    );
}

#[test]
fn what_is_no_row_is_refused_with_its_place_and_everything_at_once() {
    let text = r#"[{"name": "F", "enabled": "yes", "percent_rollot": 5},
 {"enabled": true},
 {"name": "a b"}, {"name": "G", "percent_rollout": 101}, {"name": "G", "allowlist": "a,b"}, 7]"#;
    let problems = refused(Form::Rollout, text);
    for said in [
        "in:1:27: expected true or false, found the text `yes`",
        "in:1:34: unknown member `percent_rollot`. did you mean `percent_rollout`?",
        "in:2:2: a row without a `name`",
        "in:3:11: `a b` is no flag's key",
        "in:3:52: ",
        "in:3:67: the flag `G` is here a second time",
        "in:3:93: expected a flag's members, found `7`. its members are name, enabled,",
    ] {
        assert!(
            problems.iter().any(|problem| problem.starts_with(said)),
            "{said}\n{problems:#?}"
        );
    }
    assert!(refused(Form::Rollout, "{\"a\"")[0].starts_with("in:1:"), "no JSON");
    assert!(refused(Form::Rollout, "7")[0].contains("a list of rows"));
}
