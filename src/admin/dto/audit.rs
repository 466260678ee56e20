//! The audit trail over the API.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// One page of `GET /api/v1/audit`, newest first.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Audit {
    /// The records.
    pub items: Vec<AuditRecord>,
    /// The value of `before` that gives the next page; `null` on the last.
    pub next: Option<u64>,
}

/// Something that somebody did, or tried to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AuditRecord {
    /// Its number, from 1, without gaps.
    pub seq: u64,
    /// When.
    pub at: String,
    /// Who.
    pub actor: String,
    /// The role under which they were let in; `null` for what the sidecar did by itself, and for nobody known.
    pub role: Option<String>,
    /// The address it came from.
    pub from: Option<String>,
    /// What was done: `kill`, `rearm`, `create`, `put`, `patch`, `delete`, `rollback`, `reload`, or `refused`.
    pub action: String,
    /// To what: `all`, `route:NAME`, `flag:NAME`, `subject:ROUTE/h:...`, `rules`; of a refused attempt what was asked.
    pub target: String,
    /// Why, in the actor's words; of a refused attempt why it was refused.
    pub reason: String,
    /// What was there before, if anything was.
    pub before: Option<Box<RawValue>>,
    /// What is there now, if anything is.
    pub after: Option<Box<RawValue>>,
    /// SHA-256 of the record before it, in hex.
    pub prev_hash: String,
    /// SHA-256 over everything in this one, in hex. Noted elsewhere, it shows when newer records were cut off.
    pub hash: String,
}

/// The answer of `GET /api/v1/audit/verify`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verified {
    /// Whether every record follows from the one before it.
    pub whole: bool,
    /// How many records there are; `null` where the chain is broken.
    pub records: Option<u64>,
    /// The first record that is not what was written; `null` where all are.
    pub broken_at: Option<u64>,
}
