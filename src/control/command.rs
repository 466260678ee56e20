//! What people and guards ask the control plane to do, and what they are answered.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::engine::guard::KillTarget;
use crate::engine::vocab::Epoch;

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
