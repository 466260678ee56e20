//! What people and guards ask the control plane to do, and what they are answered.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use super::whatif::WhatIf;
use crate::engine::flags::Flag;
use crate::engine::guard::KillTarget;
use crate::engine::ruleset::edit::Stored;
use crate::engine::ruleset::freeze::FreezeTarget;
use crate::engine::ruleset::problem::Problem;
use crate::engine::ruleset::yaml::Node;
use crate::engine::vocab::{Epoch, FlagKey};

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actor {
    /// The token's name, or what the sidecar calls itself.
    pub name: Arc<str>,
    /// The token's role; none for what the sidecar does by itself.
    pub role: Option<&'static str>,
    /// Where from; none for what the sidecar does by itself.
    pub from: Option<SocketAddr>,
}

impl Actor {
    /// The sidecar itself: a signal, a file that changed.
    #[must_use]
    pub fn process(what: &str) -> Self {
        Self {
            name: what.into(),
            role: None,
            from: None,
        }
    }
}

/// The answer to a kill: it is in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KillAck {
    /// What is killed.
    pub target: KillTarget,
    /// Its epoch.
    pub epoch: Epoch,
    /// False if it was killed already; then the first reason stands.
    pub changed: bool,
    /// Whether it is on disk. If not, that is tried for ever.
    pub stored: bool,
}

/// The answer to a re-arm: it is lifted, and on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RearmAck {
    /// The new epoch.
    pub epoch: Epoch,
    /// How many held subjects of a route this lifted as well.
    pub subjects: usize,
}

/// Why something stays killed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RearmError {
    /// It was killed again while the re-arm was being stored, and that kill stands.
    #[error("it was killed again meanwhile, so it stays killed")]
    KilledMeanwhile,
    /// It is frozen, and a re-arm would put subjects on new.
    #[error("{0} is frozen")]
    Frozen(FreezeTarget),
    /// Nothing to lift.
    #[error("it is not killed; something else that covers it may be, see `understudy status`")]
    NotKilled,
    /// It could not be stored, so it was not done.
    #[error("the re-arm could not be stored, so the kill stays in force: {0}")]
    NotStored(String),
}

/// The two kinds of things with names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A flag.
    Flag,
    /// A route.
    Route,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Flag => "flag",
            Kind::Route => "route",
        })
    }
}

/// Why a name names nothing. A kill of an unknown name is never a silent success.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// A route and a flag have it.
    #[error("a route and a flag have this name; say which is meant")]
    Both,
    /// Nothing has it.
    #[error("no route and no flag has this name")]
    Unknown {
        /// Names that look like it, the nearest first.
        near: Vec<String>,
    },
}

/// A change of what is said about a flag at run time.
#[derive(Clone, Debug)]
pub struct Edit {
    /// The flag.
    pub flag: FlagKey,
    /// What is to be done.
    pub what: What,
    /// What the client takes for granted.
    pub expect: Expect,
    /// Who asks.
    pub actor: Actor,
    /// Why, in their words; may be empty.
    pub reason: String,
    /// Everything up to the storing, and no further.
    pub dry_run: bool,
}

/// What is to be done to a flag's runtime layer. Trees are read by
/// [`json::parse`](crate::engine::ruleset::json::parse).
#[derive(Clone, Debug)]
pub enum What {
    /// Defines a flag that no source sets.
    Create(Node<'static>),
    /// Takes the layer away: what weaker sources say holds.
    Delete {
        /// Even where the flag is on for some and off for others.
        force: bool,
    },
    /// Sets members; the others stay.
    Patch(Node<'static>),
    /// Sets the whole layer.
    Put(Node<'static>),
    /// Brings back the layer before its last change that is not undone yet.
    Rollback,
}

impl What {
    /// The word of the audit trail.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            What::Create(_) => "create",
            What::Delete { .. } => "delete",
            What::Patch(_) => "patch",
            What::Put(_) => "put",
            What::Rollback => "rollback",
        }
    }
}

/// What a client takes for granted about the layer that it changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Expect {
    /// Nothing.
    #[default]
    Anything,
    /// That there is a layer.
    Something,
    /// That its revision is one of these; 0 is no layer.
    Revision(Vec<u64>),
}

impl Expect {
    /// Whether a layer of this revision is as expected.
    #[must_use]
    pub fn holds(&self, revision: u64) -> bool {
        match self {
            Expect::Anything => true,
            Expect::Something => revision > 0,
            Expect::Revision(revisions) => revisions.contains(&revision),
        }
    }
}

/// The answer to a change: it is on disk and in force, unless it was a dry run.
#[derive(Clone, Debug)]
pub struct Edited {
    /// The flag's layer now; `None` where nothing is said about it any more.
    pub stored: Option<Stored>,
    /// The flag with everything that all sources say about it now; `None` where no source says anything.
    pub flag: Option<Flag>,
    /// False if it was as asked already.
    pub changed: bool,
    /// What an operator should look at.
    pub warnings: Vec<String>,
    /// Of a dry run that would change something: what it would do to requests as they came lately.
    pub what_if: Option<WhatIf>,
}

/// Why a change was not done.
#[derive(Clone, Debug, thiserror::Error)]
pub enum EditError {
    /// Some source defines it already.
    #[error("the flag exists already")]
    Exists,
    /// Something that is frozen would have more subjects on new, or might.
    #[error("{}", .0.join("; "))]
    Frozen(Vec<String>),
    /// Nothing is left to undo.
    #[error("no change of this flag is left to undo")]
    NothingToUndo,
    /// The flag is on for some and off for others.
    #[error("the flag is on for some subjects and off for others")]
    NotRemovable,
    /// The disk refused it, or did not answer in time.
    #[error("the change could not be stored: {0}")]
    NotStored(String),
    /// It does not compile; the problems, then the warnings.
    #[error("the change has problems")]
    Problems(Vec<Problem>),
    /// The layer is not the one that was expected.
    #[error("the flag was changed meanwhile: its revision is {0}")]
    Stale(u64),
    /// No source knows the flag.
    #[error("no flag has this name")]
    Unknown {
        /// Names that look like it, the nearest first.
        near: Vec<String>,
    },
}
