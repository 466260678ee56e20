//! What other systems' files become: each case a text, the flag file that it makes, and what the report says.

use super::*;
use crate::engine::ruleset::Ruleset;

/// 2026-08-10T00:00:00Z.
const NOW_MS: i64 = 1_786_320_000_000;

fn imported(form: Form, text: &str) -> Imported {
    match import(form, &"in".into(), text, NOW_MS) {
        Ok(imported) => imported,
        Err(problems) => panic!("{text}\n{problems:#?}"),
    }
}

fn refused(form: Form, text: &str) -> Vec<String> {
    match import(form, &"in".into(), text, NOW_MS) {
        Ok(imported) => panic!("{text}\n{}", imported.text),
        Err(problems) => problems.iter().map(ToString::to_string).collect(),
    }
}

/// The flag file without its first line.
fn features(imported: &Imported) -> &str {
    imported.text.strip_prefix("features:\n").expect("flags")
}

/// The lines of the report that say more than that a flag is there.
fn told(imported: &Imported) -> Vec<String> {
    let notes = imported.notes.iter().filter(|note| note.outcome != Outcome::Mapped);
    notes.map(ToString::to_string).collect()
}

/// The rules that the written text makes.
fn rules(imported: &Imported) -> Ruleset {
    let mut problems = Problems::default();
    let document = Document::parse(&"features.yaml".into(), &imported.text, &mut problems);
    let compiled = compile::compile(Input {
        revision: Revision(1),
        environment: "production",
        document,
        runtime: Default::default(),
        variables: &BTreeMap::new(),
        routes: Vec::new(),
        copies: [Copies::SafeMethods; 2],
        now_ms: NOW_MS,
        previous: None,
        marks: &[],
        problems,
    });
    compiled.expect("what was written compiles").0
}

mod flagd;
mod integration;
mod records;
mod rollout;
