//! Flags over the API: what one looks like, a page of them, and what came of a change.
//!
//! What a client sends is a flag as the flag file writes it, in JSON; it is read by the flag file's own decoder and has no
//! type here.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::whatif::WhatIf;

/// One flag: what all sources together say, and what was said at run time.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Flag {
    /// Its key.
    pub name: String,
    /// The number of the last change at run time, which `If-Match` compares; 0 where nothing was said.
    pub revision: u64,
    /// What it is.
    #[serde(rename = "type")]
    pub kind: String,
    /// `ENABLED`, `DISABLED`, or `PARTIAL` where lists and percentage decide.
    pub status: String,
    /// The share of subjects that the percentage lets through now, 0 to 100; `null` where none is set.
    pub percentage: Option<f64>,
    /// Whether a kill keeps it off: its own, or one of everything.
    pub killed: bool,
    /// Every member that some source sets, in the order of the flag file's reference.
    pub members: Vec<Member>,
    /// What was said at run time, as it was written; `null` where nothing was.
    pub runtime: Option<Box<RawValue>>,
}

/// One member that is set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its name in the flag file.
    pub member: String,
    /// Its value in words; of lists only how long they are.
    pub value: String,
    /// `runtime`, `file` or `environment`.
    pub source: String,
    /// The revision with its actor, the file with line and column, or the variable.
    pub place: Option<String>,
}

/// One page of `GET /api/v1/feature-flags`, in the order of their names.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Flags {
    /// The flags.
    pub items: Vec<Flag>,
    /// The value of `after` that gives the next page; `null` on the last.
    pub next: Option<String>,
    /// How many flags pass the filters, on all pages.
    pub total: usize,
    /// The number of the last change of any flag at run time.
    pub revision: u64,
}

/// The answer to a change: it is on disk and in force, unless it was a dry run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Changed {
    /// False if it was as asked already.
    pub changed: bool,
    /// Whether it was only tried.
    pub dry_run: bool,
    /// The flag as it is now; `null` where no source says anything about it any more.
    pub flag: Option<Flag>,
    /// What the caller should know besides.
    pub warnings: Vec<String>,
    /// Of a dry run that would change something: what it would do to requests as they came lately.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub what_if: Option<WhatIf>,
}

/// The answer of `GET /api/v1/flag-file`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlagFile {
    /// The number of the last change of any flag at run time.
    pub revision: u64,
    /// The environment in which this holds.
    pub environment: String,
    /// What all sources together say, as a flag file in YAML: every member once, whoever said it.
    pub text: String,
}

/// One page of a flag's changes at run time, newest first.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct History {
    /// The changes.
    pub items: Vec<PastChange>,
    /// The value of `before` that gives the next page; `null` on the last.
    pub next: Option<u64>,
}

/// One change of a flag at run time.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PastChange {
    /// Its number.
    pub revision: u64,
    /// When.
    pub at: String,
    /// Who.
    pub actor: String,
    /// What was done: `create`, `put`, `patch`, `delete` or `rollback`.
    pub action: String,
    /// Why.
    pub reason: String,
    /// What was said afterwards; `null` where nothing was.
    pub runtime: Option<Box<RawValue>>,
}

/// One thing that is wrong with what was sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// `body` for what was sent, else the file, the variable or the flag whose text does not go together with it.
    pub source: String,
    /// The line in it, from 1; `null` for the whole.
    pub line: Option<u32>,
    /// The column, from 1, in characters.
    pub column: Option<u32>,
    /// The members and indexes that lead there: `rules[0].conditions`; empty for the top.
    pub path: String,
    /// What is wrong.
    pub what: String,
    /// What to do about it.
    pub remedy: String,
}
