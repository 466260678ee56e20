//! `understudy flags`: the real binary, over files and over real sockets.

use std::fs;

use crate::support::{Backend, Finished, Instance, Plan, get, understudy};

async fn flags(arguments: &[&str]) -> Finished {
    understudy(&[&["flags"], arguments].concat(), &[]).await
}

/// An instance whose one route asks `NEW_SHOP`.
pub async fn shop(features: &str) -> (Instance, [Backend; 2]) {
    let (legacy, new) = (Backend::saying("legacy").await, Backend::saying("new").await);
    let plan = Plan::new(&legacy, &new).route("flag: NEW_SHOP\n").features(features);
    (Instance::start(&plan).await, [legacy, new])
}

pub async fn side(instance: &Instance, shopper: &str) -> String {
    let answer = get(instance.address, "/", &[("x-shopper-id", shopper)]).await;
    answer.text().to_owned()
}

/// What a verb said, after it ended well.
pub async fn done(instance: &Instance, arguments: &[&str]) -> String {
    let done = instance.ask(arguments).await;
    assert_eq!((done.code, &*done.stderr), (0, ""), "{arguments:?}: {done:?}");
    done.stdout
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s4_08_flag_is_made_listed_enabled_and_taken_back() {
    let (instance, _backends) = shop("features: {}\n").await;
    let ask = async |arguments: &[&str]| done(&instance, arguments).await;
    let made = ask(&[
        "flags",
        "create",
        "--name",
        "NEW_SHOP",
        "--description",
        "the new: shop",
    ])
    .await;
    assert_eq!(made, "NEW_SHOP: boolean, PARTIAL, revision 1\n");
    assert_eq!(side(&instance, "anna").await, "legacy", "a new flag is off");

    let listed = ask(&["flags", "list"]).await;
    assert!(
        listed.contains("NEW_SHOP  boolean  PARTIAL") && listed.ends_with("1 flag\n"),
        "{listed}"
    );

    // anna's bucket is 962428, ben's 286372.
    let enabled = ask(&[
        "flags",
        "enable",
        "--name",
        "NEW_SHOP",
        "--percentage",
        "50",
        "--reason",
        "half of them",
    ])
    .await;
    assert!(
        enabled.starts_with("NEW_SHOP: boolean, ENABLED, 50 %, revision 2\n"),
        "{enabled}"
    );
    assert_eq!(
        [side(&instance, "anna").await, side(&instance, "ben").await],
        ["legacy", "new"]
    );
    let enabled = ask(&["flags", "enable", "NEW_SHOP", "--percentage", "100"]).await;
    assert_eq!(enabled, "NEW_SHOP: boolean, ENABLED, 100 %, revision 3\n");
    assert_eq!(side(&instance, "anna").await, "new");
    ask(&["flags", "disable", "NEW_SHOP"]).await;
    assert_eq!(side(&instance, "ben").await, "legacy");
    for _ in 0..2 {
        ask(&["rollback", "NEW_SHOP", "--reason", "too early"]).await;
    }
    assert_eq!(
        [side(&instance, "anna").await, side(&instance, "ben").await],
        ["legacy", "new"]
    );

    let shown = ask(&["flags", "show", "NEW_SHOP"]).await;
    assert!(
        shown.starts_with("NEW_SHOP: boolean, ENABLED, 50 %, revision 6\n"),
        "{shown}"
    );
    for said in [
        "the new: shop",
        "runtime",
        "#6",
        "rollback by tester: too early",
        "#2",
        "half of them",
        "older ones",
    ] {
        assert!(shown.contains(said), "{said}: {shown}");
    }
    let json: serde_json::Value =
        serde_json::from_str(&ask(&["flags", "show", "NEW_SHOP", "--output", "json"]).await).unwrap();
    assert_eq!(
        (&json["percentage"], &json["history"]["items"][0]["action"]),
        (&50.0.into(), &"rollback".into())
    );

    let usage = ask(&["flags", "analytics", "--name", "NEW_SHOP", "--days", "7"]).await;
    assert!(
        usage.starts_with("NEW_SHOP: 7 evaluations from ") && usage.contains("percentage: 50 % is set"),
        "{usage}"
    );
    let usage: serde_json::Value =
        serde_json::from_str(&ask(&["flags", "stats", "NEW_SHOP", "--output", "json"]).await).unwrap();
    assert_eq!(
        (&usage["total_evaluations"], &usage["enabled_count"]),
        (&7.into(), &3.into())
    );
    let stale = ask(&["flags", "stale"]).await;
    assert_eq!(stale, "no flag has served its time (30 days without a change)\n");

    let audit = ask(&["audit", "--flag", "NEW_SHOP", "--action", "patch"]).await;
    assert!(
        audit.contains("patch flag:NEW_SHOP  by tester (admin) from 127.0.0.1"),
        "{audit}"
    );
    assert!(audit.contains("half of them") && !audit.contains("rollback"), "{audit}");
    assert_eq!(
        ask(&["audit", "--actor", "nobody"]).await,
        "nothing was done that fits\n"
    );
    let verified = ask(&["audit", "verify"]).await;
    assert!(
        verified.starts_with("whole: ") && verified.contains("each as it was written"),
        "{verified}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_are_set_as_the_file_writes_them_and_left_to_the_file_again() {
    let file = "features:\n  NEW_SHOP: { type: boolean, enabled: true, percentage: 100, owner: shop-team }\n";
    let (instance, _backends) = shop(file).await;
    let ask = async |arguments: &[&str]| done(&instance, arguments).await;
    let tried = ask(&["flags", "set", "NEW_SHOP", "percentage=0", "--dry-run"]).await;
    assert!(
        tried.starts_with("it would be: NEW_SHOP: boolean, ENABLED, 0 %, revision 1\n"),
        "{tried}"
    );
    assert_eq!(side(&instance, "anna").await, "new", "nothing was changed");

    ask(&[
        "flags",
        "set",
        "NEW_SHOP",
        "percentage=12.5",
        "denylist=[ben, 0123]",
        "owner=null",
    ])
    .await;
    let again = ask(&["flags", "set", "--name", "NEW_SHOP", "percentage=12.5"]).await;
    assert_eq!(
        again,
        "nothing to change: NEW_SHOP: boolean, ENABLED, 12.5 %, revision 1\n"
    );
    assert_eq!(side(&instance, "anna").await, "legacy");
    let shown: serde_json::Value =
        serde_json::from_str(&ask(&["flags", "show", "NEW_SHOP", "--output", "json"]).await).unwrap();
    assert_eq!(
        shown["runtime"],
        serde_json::json!({ "percentage": 12.5, "denylist": ["ben", "0123"], "owner": null })
    );

    ask(&[
        "flags",
        "set",
        "NEW_SHOP",
        "--inherit",
        "percentage",
        "--inherit",
        "owner",
    ])
    .await;
    assert_eq!(
        [side(&instance, "anna").await, side(&instance, "ben").await],
        ["new", "legacy"]
    );
    let deleted = ask(&["flags", "delete", "NEW_SHOP", "--force"]).await;
    assert_eq!(
        deleted, "NEW_SHOP: boolean, ENABLED, 100 %\n",
        "what the file says stays"
    );
    assert_eq!(side(&instance, "ben").await, "new");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_refused_says_why_and_ends_with_its_code() {
    let (instance, _backends) = shop("features:\n  NEW_SHOP: { type: percentage, percentage: 50 }\n").await;
    for (arguments, code, said) in [
        (&["flags", "show", "NEW_SHP"][..], 2, "did you mean `NEW_SHOP`?"),
        (&["flags", "enable", "new-shop"], 2, "did you mean `NEW_SHOP`?"),
        (&["rollback", "NEW_SHP"], 2, "did you mean `NEW_SHOP`?"),
        (&["rollback", "NEW_SHOP"], 1, "refused: "),
        (&["flags", "create", "NEW_SHOP"], 1, "refused: "),
        (&["flags", "delete", "NEW_SHOP"], 1, "refused: "),
        (
            &["flags", "set", "NEW_SHOP", "percentage=101", "enabeld=true"],
            2,
            "  percentage: `101` is not between 0 and 100",
        ),
        (
            &["flags", "set", "NEW_SHOP", "percentage=101", "enabeld=true"],
            2,
            "did you mean `enabled`?",
        ),
        (&["flags", "set", "NEW_SHOP", "percentage"], 2, "no `member=value`"),
        (&["flags", "set", "NEW_SHOP"], 2, "which members?"),
        (&["flags", "set"], 2, "which flag?"),
        (
            &["flags", "enable", "NEW_SHOP", "--percentage", "50%"],
            2,
            "without a percent sign",
        ),
        (&["flags", "enable"], 2, "--name"),
        (&["audit", "--since", "yesterday"], 2, "not a date"),
    ] {
        let done = instance.ask(arguments).await;
        assert_eq!(done.code, code, "{arguments:?}: {done:?}");
        assert!(
            done.stderr.contains(said) && done.stdout.is_empty(),
            "{arguments:?}: {done:?}"
        );
    }
    assert_eq!(
        done(&instance, &["flags", "delete", "NEW_SHOP", "--force"]).await,
        "nothing to change: NEW_SHOP: percentage, PARTIAL, 50 %\n"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn freeze_lets_nothing_raise_until_it_is_lifted() {
    let (instance, _backends) = shop("features:\n  NEW_SHOP: { type: percentage, percentage: 10 }\n").await;
    let frozen = done(&instance, &["freeze", "--flag", "NEW_SHOP", "--reason", "sale today"]).await;
    assert!(
        frozen.starts_with("flag NEW_SHOP is frozen: nothing puts more"),
        "{frozen}"
    );
    let again = done(&instance, &["freeze", "--flag", "NEW_SHOP", "--reason", "sale today"]).await;
    assert!(again.starts_with("flag NEW_SHOP is frozen already\n"), "{again}");
    let raised = instance
        .ask(&["flags", "enable", "NEW_SHOP", "--percentage", "50"])
        .await;
    assert!(raised.code == 1 && raised.stderr.contains("frozen"), "{raised:?}");
    done(&instance, &["flags", "set", "NEW_SHOP", "percentage=5"]).await;
    let status = done(&instance, &["status"]).await;
    assert!(
        status.contains("flag NEW_SHOP is frozen since") && status.contains("by tester: sale today"),
        "{status}"
    );
    assert!(
        status.contains("understudy unfreeze --flag NEW_SHOP --reason TEXT"),
        "{status}"
    );

    let lifted = done(
        &instance,
        &[
            "unfreeze",
            "--flag",
            "NEW_SHOP",
            "--reason",
            "sale over",
            "--output",
            "json",
        ],
    )
    .await;
    let lifted: serde_json::Value = serde_json::from_str(&lifted).unwrap();
    assert_eq!((&lifted["frozen"], &lifted["changed"]), (&false.into(), &true.into()));
    done(&instance, &["flags", "enable", "NEW_SHOP", "--percentage", "50"]).await;
    for all in [
        &["freeze", "--all", "--reason", "x"][..],
        &["unfreeze", "--all", "--reason", "x"],
        &["freeze", "--route", "shop", "--reason", "x"],
    ] {
        done(&instance, all).await;
    }
    for (arguments, said) in [
        (
            &["freeze", "--flag", "NEW_SHP", "--reason", "x"][..],
            "did you mean `NEW_SHOP`?",
        ),
        (&["freeze", "--all"], "no reason"),
        (&["freeze", "--reason", "x"], "--all"),
    ] {
        let refused = instance.ask(arguments).await;
        assert!(refused.code == 2 && refused.stderr.contains(said), "{refused:?}");
    }
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
