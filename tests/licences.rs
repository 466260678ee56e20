//! Guards what the program is built from: every crate of the lock file, on every platform, comes from the registry
//! under a permissive licence, and none is one that we keep out.
//!
//! Reads `cargo metadata`. The advisories of a vulnerability database are not looked at here. The second half proves
//! that the guard bites, on made-up metadata.

use std::process::Command;

use serde_json::{Value, json};

/// Licences that ask for no more than their text and the names of the authors.
const LICENCES: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "MIT-0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Exceptions that only take demands away.
const EXCEPTIONS: &[&str] = &["LLVM-exception"];

/// Crates that may not come in, by whatever way, and why.
const CRATES: &[(&str, &str)] = &[
    ("aws-lc-rs", "its build needs cmake and minutes; ring is the provider"),
    ("aws-lc-sys", "its build needs cmake and minutes; ring is the provider"),
    (
        "native-tls",
        "the system's TLS differs from machine to machine; rustls is ours",
    ),
    (
        "openssl",
        "a C library that every base image has in another version; rustls is ours",
    ),
    (
        "openssl-sys",
        "a C library that every base image has in another version; rustls is ours",
    ),
    ("serde_yaml", "archived, and gives no places; serde-saphyr is ours"),
    ("serde_yml", "unsound (RUSTSEC-2025-0068); serde-saphyr is ours"),
];

/// Features that may not be switched on by anybody, and why.
const FEATURES: &[(&str, &str, &str)] = &[(
    "serde_json",
    "arbitrary_precision",
    "it changes every crate of the build, and breaks flattened and tagged types that hold floats",
)];

/// The registry that cargo asks by default, as metadata spells it.
const REGISTRIES: &[&str] = &[
    "registry+https://github.com/rust-lang/crates.io-index",
    "sparse+https://index.crates.io/",
];

/// Everything in the metadata that breaks a rule.
fn broken(metadata: &Value) -> Vec<String> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let own = list(&metadata["workspace_members"]);
    let mut found = Vec::new();
    for package in list(&metadata["packages"]) {
        let (name, version) = (text(&package["name"]), text(&package["version"]));
        if let Some((_, why)) = CRATES.iter().find(|(banned, _)| *banned == name) {
            found.push(format!(
                "{name} {version} is kept out: {why}. `cargo tree -i {name}` shows who brings it"
            ));
        }
        match package["license"].as_str().map(permissive) {
            Some(Ok(true)) => {}
            Some(Ok(false)) => found.push(format!("{name} {version} is under {}", package["license"])),
            Some(Err(why)) => found.push(format!("{name} {version}: licence {}: {why}", package["license"])),
            None => found.push(format!("{name} {version} states no licence in its manifest")),
        }
        let from_registry = REGISTRIES.iter().any(|registry| package["source"] == *registry);
        if !from_registry && !own.contains(&package["id"]) {
            found.push(format!(
                "{name} {version} comes from {}, not from the registry",
                package["source"]
            ));
        }
    }
    for node in list(&metadata["resolve"]["nodes"]) {
        let features = list(&node["features"]);
        let package = list(&metadata["packages"])
            .into_iter()
            .find(|package| package["id"] == node["id"]);
        let name = package.map(|package| text(&package["name"])).unwrap_or_default();
        for (_, feature, why) in FEATURES.iter().filter(|(banned, ..)| *banned == name) {
            if features.iter().any(|on| on == feature) {
                found.push(format!(
                    "{name} has feature `{feature}` on: {why}. `cargo tree -e features -i {name}`"
                ));
            }
        }
    }
    found
}

/// Whether an SPDX expression can be met with permissive licences alone.
///
/// Precedence as in SPDX 2.3, annex D: `WITH`, `AND`, `OR`; the registry's older `/` is an `OR`.
fn permissive(expression: &str) -> Result<bool, String> {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut rest = words.as_slice();
    let verdict = any(&mut rest)?;
    if rest.is_empty() {
        Ok(verdict)
    } else {
        Err(format!("nothing may follow here: {}", rest.join(" ")))
    }
}

fn take(rest: &mut &[&str], word: &str) -> bool {
    let found = rest.first() == Some(&word);
    if found {
        *rest = &rest[1..];
    }
    found
}

fn any(rest: &mut &[&str]) -> Result<bool, String> {
    let mut verdict = all(rest)?;
    while take(rest, "OR") {
        // Both sides are read, whatever the first one says.
        verdict |= all(rest)?;
    }
    Ok(verdict)
}

fn all(rest: &mut &[&str]) -> Result<bool, String> {
    let mut verdict = one(rest)?;
    while take(rest, "AND") {
        verdict &= one(rest)?;
    }
    Ok(verdict)
}

fn one(rest: &mut &[&str]) -> Result<bool, String> {
    if take(rest, "(") {
        let verdict = any(rest)?;
        return if take(rest, ")") {
            Ok(verdict)
        } else {
            Err("a parenthesis is not closed".to_owned())
        };
    }
    let (name, after) = rest.split_first().ok_or("it ends too early")?;
    if matches!(*name, "AND" | "OR" | "WITH" | ")") {
        return Err(format!("`{name}` stands where a licence should"));
    }
    *rest = after;
    let mut verdict = LICENCES.contains(name);
    if take(rest, "WITH") {
        let (exception, after) = rest.split_first().ok_or("it ends too early")?;
        *rest = after;
        verdict &= EXCEPTIONS.contains(exception);
    }
    Ok(verdict)
}

#[test]
fn every_crate_is_permissive_and_none_is_kept_out() {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs, for it runs this test");
    assert!(
        output.status.success(),
        "cargo metadata: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo metadata prints JSON");
    // Were the format to change, nothing would be found, and nothing would be wrong.
    let count = |value: &Value| value.as_array().map_or(0, Vec::len);
    assert!(count(&metadata["packages"]) > 100, "too few packages for this program");
    assert_eq!(count(&metadata["packages"]), count(&metadata["resolve"]["nodes"]));
    let broken = broken(&metadata);
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

/// Metadata of one crate from the registry, with members replaced.
fn made_up(name: &str, licence: &Value, source: &Value, features: &[&str]) -> Value {
    json!({
        "packages": [{ "id": "a", "name": name, "version": "1.0.0", "license": licence, "source": source }],
        "resolve": { "nodes": [{ "id": "a", "features": features }] },
        "workspace_members": ["own"],
    })
}

#[test]
fn each_rule_can_be_broken() {
    let registry = json!(REGISTRIES[0]);
    let mit = json!("MIT");
    assert!(broken(&made_up("good", &mit, &registry, &["std"])).is_empty());
    for (metadata, told) in [
        (
            made_up("bad", &json!("GPL-3.0-only"), &registry, &[]),
            "is under \"GPL-3.0-only\"",
        ),
        (made_up("bad", &json!("MIT AND"), &registry, &[]), "ends too early"),
        (made_up("bad", &Value::Null, &registry, &[]), "states no licence"),
        (
            made_up("bad", &mit, &json!("git+https://example.com/bad"), &[]),
            "not from the registry",
        ),
        (made_up("bad", &mit, &Value::Null, &[]), "not from the registry"),
        (
            made_up("serde_json", &mit, &registry, &["std", "arbitrary_precision"]),
            "`arbitrary_precision` on",
        ),
    ] {
        let found = broken(&metadata);
        assert!(
            found.len() == 1 && found[0].contains(told),
            "expected `{told}`, found {found:#?}"
        );
    }
    for (name, _) in CRATES {
        let found = broken(&made_up(name, &mit, &registry, &[]));
        assert!(
            found.len() == 1 && found[0].contains("is kept out"),
            "{name}: {found:#?}"
        );
    }
}

#[test]
fn licence_expressions_are_read_with_their_precedence() {
    for (expression, verdict) in [
        ("MIT", true),
        ("LGPL-2.1-or-later", false),
        ("MIT OR Apache-2.0 OR LGPL-2.1-or-later", true),
        ("LGPL-2.1-or-later OR MIT", true),
        ("Unlicense/MIT", true),
        ("Apache-2.0 / MIT", true),
        ("(MIT OR Apache-2.0) AND Unicode-3.0", true),
        ("(MIT OR Apache-2.0) AND GPL-2.0-only", false),
        ("MIT OR Apache-2.0 AND GPL-2.0-only", true),
        ("GPL-2.0-only AND MIT OR GPL-2.0-only", false),
        ("Apache-2.0 WITH LLVM-exception", true),
        ("Apache-2.0 WITH LLVM-exception OR Apache-2.0 OR MIT", true),
        ("GPL-2.0-only WITH Classpath-exception-2.0", false),
        ("MIT WITH Classpath-exception-2.0", false),
        ("mit", false),
    ] {
        assert_eq!(permissive(expression), Ok(verdict), "{expression}");
    }
    for expression in [
        "",
        "MIT OR",
        "OR MIT",
        "(MIT",
        "MIT)",
        "MIT Apache-2.0",
        "MIT WITH",
        "()",
    ] {
        assert!(permissive(expression).is_err(), "{expression}");
    }
}
