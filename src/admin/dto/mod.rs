//! Everything that the admin API takes and answers, as types that both the server and the command line use.
//!
//! Pure. Texts and numbers only: instants are RFC 3339 in UTC, durations are numbers with their unit in the name, sides are
//! `legacy` and `new`, subjects appear as `h:` and 16 hex digits. Members may be added; a reader ignores what it does not
//! know. What is sent *to* the server is strict: an unknown member is refused, for it may be a misspelt restriction.

mod action;
mod audit;
mod divergence;
mod flag;
mod problem;
mod readiness;
mod status;
mod usage;
mod whatif;

pub use action::{
    FreezeRequest, Frozen, KillRequest, Killed, RearmRequest, Rearmed, RollbackRequest, Target, TargetKind,
};
pub use audit::{Audit, AuditRecord, Verified};
pub use divergence::{Diverged, Divergences, Place};
pub use flag::{Changed, Finding, Flag, FlagFile, Flags, History, Member, PastChange};
pub use problem::{Fault, Problem};
pub use readiness::{Readiness, Reason, State};
pub use status::{
    Budget, Compared, Copied, Counts, Evidence, Freeze, Guard, Held, KILL_SWITCH, Kill, Last, Latency, PerSide,
    PlaceCount, Process, Route, Rules, Serves, Status, Store, Traffic,
};
pub use usage::{Analytics, Distribution, Hour, StaleFlag, StaleFlags};
pub use whatif::{BeforeAfter, Moved, Reasons, WhatIf, WouldMove};
