//! State as code (S3-15): `understudy flags export` and `apply`; lists that are added to. The real binary over real sockets.

use std::fs;
use std::path::PathBuf;

use http::Method;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::flags_cli::{done, shop, side};
use crate::support::Instance;

const FILE: &str = "\
segments:
  staff: { attribute: email, operator: ends_with, values: [\"@example.com\"] }
features:
  NEW_SHOP: { type: boolean, enabled: true, percentage: 100, denylist: [bea, \"0123\"], owner: shop-team }
  RULED: { type: targeted, rules: [ { type: user_segment, conditions: { segment: staff }, value: 12.5 } ] }
";

/// A file in a folder of its own.
fn file(text: &str) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("flags.yaml");
    fs::write(&path, text).unwrap();
    (folder, path)
}

async fn apply(instance: &Instance, text: &str, more: &[&str]) -> String {
    let (_folder, path) = file(text);
    done(instance, &[&["flags", "apply", path.to_str().unwrap()], more].concat()).await
}

async fn runtime(instance: &Instance) -> Value {
    let answer = instance
        .admin(Method::GET, "/api/v1/feature-flags?source=runtime", "")
        .await
        .json();
    let flags = answer["items"].as_array().unwrap().iter();
    flags
        .map(|flag| (flag["name"].as_str().unwrap().to_owned(), flag["runtime"].clone()))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s3_15_what_is_exported_is_a_flag_file_and_applying_it_changes_nothing() {
    let (instance, _backends) = shop(FILE).await;
    done(&instance, &["flags", "set", "NEW_SHOP", "percentage=25", "cohort=null"]).await;
    let merged = done(&instance, &["flags", "export"]).await;
    for said in [
        "percentage: 25",
        "owner: shop-team",
        "denylist: [bea, \"0123\"]",
        "staff:",
    ] {
        assert!(merged.contains(said), "{said}: {merged}");
    }
    let said = done(&instance, &["flags", "export", "--layer", "runtime"]).await;
    assert!(said.contains("percentage: 25") && !said.contains("owner"), "{said}");
    for exported in [merged, said] {
        let nothing = apply(&instance, &exported, &["--prune"]).await;
        assert!(nothing.starts_with("nothing to change, "), "{exported}\n{nothing}");
    }
    assert_eq!(
        runtime(&instance).await,
        json!({ "NEW_SHOP": { "percentage": 25, "cohort": null } })
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s3_15_file_is_applied_as_planned_and_once_is_enough() {
    let (instance, _backends) = shop(FILE).await;
    done(&instance, &["flags", "create", "OLD", "--set", "enabled=true"]).await;
    assert_eq!(side(&instance, "anna").await, "new");
    // The flag that asks stands before the one that it asks.
    let wanted = "\
features:
  ASKS: { type: boolean, enabled: true, prerequisites: [ { flag: FIRST } ] }
  FIRST: { type: boolean, enabled: true }
  NEW_SHOP: { type: percentage, percentage: 0 }
";
    let planned = apply(&instance, wanted, &["--prune", "--dry-run"]).await;
    for said in [
        "+ FIRST",
        "+ ASKS",
        "~ NEW_SHOP",
        "  +    percentage: 0",
        "- OLD",
        "  -    enabled: true",
        "4 changes to make",
    ] {
        assert!(planned.contains(said), "{said}: {planned}");
    }
    assert_eq!(
        runtime(&instance).await,
        json!({ "OLD": { "enabled": true } }),
        "nothing was changed"
    );

    let applied = apply(&instance, wanted, &["--prune", "--reason", "as reviewed"]).await;
    assert!(applied.contains("4 changes made"), "{applied}");
    assert_eq!(side(&instance, "anna").await, "legacy");
    let now = runtime(&instance).await;
    assert_eq!(now["NEW_SHOP"], json!({ "type": "percentage", "percentage": 0 }));
    assert_eq!((&now["FIRST"]["enabled"], &now["OLD"]), (&json!(true), &Value::Null));
    let audit = done(&instance, &["audit", "--flag", "ASKS"]).await;
    assert!(
        audit.contains("create flag:ASKS") && audit.contains("as reviewed"),
        "{audit}"
    );

    let again = apply(&instance, wanted, &["--prune"]).await;
    assert_eq!(again, "nothing to change, 3 flags as declared\n");
    let json: Value = serde_json::from_str(&apply(&instance, wanted, &["--output", "json"]).await).unwrap();
    assert_eq!(json, json!({ "changes": [], "unchanged": 3, "applied": true }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn apply_that_cannot_be_done_whole_changes_nothing() {
    let (instance, _backends) = shop(FILE).await;
    let refused = async |text: &str, more: &[&str]| {
        let (_folder, path) = file(text);
        instance
            .ask(&[&["flags", "apply", path.to_str().unwrap()], more].concat())
            .await
    };
    for (text, code, said) in [
        (
            "features:\n  A: { type: boolean }\n  B: { type: percentage }\n",
            2,
            "percentage",
        ),
        (
            "features:\n  A: { type: boolean, enabeld: true }\n",
            2,
            "flags.yaml:2:23: unknown key `enabeld`",
        ),
        (
            "features:\n  A: { type: boolean }\n  NEW-SHOP: { type: boolean }\n",
            2,
            "NEW_SHOP",
        ),
        (
            "segments: { staff: { plan: gold } }\nfeatures: {}\n",
            2,
            "segments come from its flag file",
        ),
        // They ask each other: neither can be tried alone.
        (
            "features:\n  A: { type: boolean }\n  B: { type: boolean, prerequisites: [ { flag: A }, { flag: C } ] }\n  C: { type: \
             boolean, prerequisites: [ { flag: B } ] }\n",
            2,
            "B",
        ),
    ] {
        let done = refused(text, &[]).await;
        assert_eq!(done.code, code, "{text}: {done:?}");
        assert!(done.stderr.contains(said), "{said}: {done:?}");
        assert_eq!(runtime(&instance).await, json!({}), "{text}");
    }
    assert_eq!(side(&instance, "anna").await, "new");

    // A half rolled out flag is taken away by force alone.
    done(&instance, &["flags", "create", "HALF", "--percentage", "50"]).await;
    let kept = refused("features: {}\n", &["--prune"]).await;
    assert_eq!(kept.code, 1, "{kept:?}");
    let gone = apply(&instance, "features: {}\n", &["--prune", "--force"]).await;
    assert!(gone.contains("- HALF"), "{gone}");
    let nowhere = instance.ask(&["flags", "apply", "/nowhere/flags.yaml"]).await;
    assert_eq!(nowhere.code, 2, "{nowhere:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s1_19_subjects_are_put_on_lists_that_a_file_began_and_taken_off() {
    let (instance, _backends) = shop(FILE).await;
    let sides = async || {
        [
            side(&instance, "anna").await,
            side(&instance, "bea").await,
            side(&instance, "carla").await,
        ]
    };
    assert_eq!(sides().await, ["new", "legacy", "new"]);
    done(
        &instance,
        &["flags", "deny", "NEW_SHOP", "carla", "--reason", "her cart"],
    )
    .await;
    assert_eq!(sides().await, ["new", "legacy", "legacy"]);
    assert_eq!(
        runtime(&instance).await["NEW_SHOP"],
        json!({ "denylist": ["bea", "0123", "carla"] })
    );
    done(&instance, &["flags", "deny", "--name", "NEW_SHOP", "--remove", "bea"]).await;
    assert_eq!(sides().await, ["new", "new", "legacy"]);

    // The first on an allowlist shuts everybody else out, the last off it everybody (C2).
    let first = instance.ask(&["flags", "allow", "NEW_SHOP", "bea"]).await;
    assert_eq!(first.code, 0, "{first:?}");
    assert!(first.stderr.contains("it is on for nobody else"), "{first:?}");
    assert_eq!(sides().await, ["legacy", "new", "legacy"]);
    let last = instance.ask(&["flags", "allow", "NEW_SHOP", "--remove", "bea"]).await;
    assert!(
        last.code == 0 && last.stderr.contains("an empty allowlist is nobody"),
        "{last:?}"
    );
    assert_eq!(sides().await, ["legacy", "legacy", "legacy"]);
    for (arguments, said) in [
        (&["flags", "allow", "NEW_SHP", "bea"][..], "did you mean `NEW_SHOP`?"),
        (&["flags", "deny", "NEW_SHOP"], "which subjects?"),
    ] {
        let done = instance.ask(arguments).await;
        assert!(done.code == 2 && done.stderr.contains(said), "{done:?}");
    }
}
