//! `understudy flags`: the real binary, over files and over real sockets.

use std::fs;

use super::support::process::{Finished, understudy};

async fn flags(arguments: &[&str]) -> Finished {
    understudy(&[&["flags"], arguments].concat(), &[]).await
}

#[tokio::test]
async fn s0_24_catalogue_is_imported_without_naming_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("features.yaml");
    let output = output.to_str().unwrap();
    let done = flags(&["import", "--from", "s0", "--output", output]).await;
    assert_eq!((done.code, &*done.stdout), (0, ""), "{done:?}");
    assert!(done.stderr.ends_with("13 flags\n"), "{done:?}");
    let text = fs::read_to_string(output).unwrap();
    assert!(text.contains("  advanced_caching_enabled:\n"), "{text}");

    let again = flags(&["import", "--from", "s0", "--output", output]).await;
    assert_eq!(again.code, 1, "{again:?}");
    assert!(again.stderr.contains("File exists"), "{again:?}");
    assert_eq!(fs::read_to_string(output).unwrap(), text, "nothing is written over");

    // What was written is what a start takes.
    let config = folder.path().join("understudy.yaml");
    let text = format!(
        "listeners: [{{ address: 127.0.0.1:0 }}]\nflags: {{ file: {output} }}\n\
         backends: {{ legacy: {{ url: \"http://127.0.0.1:1\" }}, new: {{ url: \"http://127.0.0.1:2\" }} }}\n\
         routes: [{{ name: all, match: {{ path: / }}, flag: new_ui_enabled }}]\n"
    );
    fs::write(&config, text).unwrap();
    let checked = understudy(&["check", "--config", config.to_str().unwrap()], &[]).await;
    assert_eq!(checked.code, 0, "{checked:?}");
    assert!(checked.stdout.contains("13 flags"), "{checked:?}");
}

#[tokio::test]
async fn c3_rows_are_imported_and_what_changed_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let rows = folder.path().join("rows.json");
    let text = r#"[{"name": "WHATSAPP_GATEWAY_ENABLED", "enabled": true, "allowlist": ["shopper_001"], "percent_rollout": 0}]"#;
    fs::write(&rows, text).unwrap();
    let rows = rows.to_str().unwrap();
    let done = flags(&["import", "--from", "s1", rows]).await;
    assert_eq!(done.code, 0, "{done:?}");
    assert_eq!(
        done.stdout,
        "features:\n  WHATSAPP_GATEWAY_ENABLED:\n    type: boolean\n    enabled: true\n    allowlist: [shopper_001]\n"
    );
    assert!(
        done.stderr
            .contains(&format!("{rows}:1:105: changed: WHATSAPP_GATEWAY_ENABLED: ")),
        "{done:?}"
    );
    assert!(done.stderr.ends_with("1 flag, 1 of them changed\n"), "{done:?}");
}

#[tokio::test]
async fn file_that_is_no_such_form_is_refused_and_nothing_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let [rows, output] = ["rows.json", "out.yaml"].map(|name| folder.path().join(name));
    fs::write(&rows, r#"[{"name": "F", "enabld": true}, {"name": "G", "enabled": 1}]"#).unwrap();
    let [rows, output] = [&rows, &output].map(|path| path.to_str().unwrap());
    let done = flags(&["import", "--from", "s1", rows, "--output", output]).await;
    assert_eq!(done.code, 2, "{done:?}");
    let problems: Vec<&str> = done.stderr.lines().collect();
    assert!(problems[0].contains("did you mean `enabled`?"), "{done:?}");
    assert!(problems[1].starts_with(&format!("{rows}:1:58: ")), "{done:?}");
    assert!(!folder.path().join("out.yaml").exists());
    for bad in [
        &["import", "--from", "s1"][..],
        &["import", "--from", "s1", "/nowhere/rows.json"],
    ] {
        let done = flags(bad).await;
        assert_eq!(done.code, 2, "{bad:?}: {done:?}");
    }
}

#[tokio::test]
async fn flagd_file_is_imported_and_what_does_not_map_is_off_and_told_by_the_exit_code() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("flags.json");
    let flag = |targeting: &str| {
        format!(
            r#"{{"state": "ENABLED", "variants": {{"on": true, "off": false}}, "defaultVariant": "off", "targeting": {targeting}}}"#
        )
    };
    let good = flag(r#"{"if": [{"ends_with": [{"var": "email"}, "@example.com"]}, "on"]}"#);
    let bad = flag(r#"{"if": [{"var": "beta"}, "on"]}"#);
    let path = file.to_str().unwrap();

    fs::write(&file, format!(r#"{{"flags": {{"good": {good}}}}}"#)).unwrap();
    let done = flags(&["import", "--from", "flagd", path]).await;
    assert_eq!(done.code, 0, "{done:?}");
    assert!(done.stdout.contains("operator: ends_with"), "{done:?}");

    fs::write(
        &file,
        format!(r#"{{"flags": {{"good": {good},{}"bad": {bad}}}}}"#, "\n"),
    )
    .unwrap();
    let done = flags(&["import", "--from", "flagd", path]).await;
    assert_eq!(done.code, 1, "{done:?}");
    assert!(
        done.stdout.ends_with("  bad:\n    type: boolean\n    enabled: false\n"),
        "{done:?}"
    );
    assert!(
        done.stderr.contains(&format!("{path}:2:")) && done.stderr.contains("not mapped: bad: "),
        "{done:?}"
    );
    assert!(
        done.stderr.ends_with("2 flags, 1 not mapped and therefore off\n"),
        "{done:?}"
    );
}
