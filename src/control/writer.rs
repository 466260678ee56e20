//! The state of the one task that writes rules, and what it is asked to do.

use std::sync::Arc;

use tokio::sync::{oneshot, watch};

use super::command::{Actor, Edit, EditError, Edited};
use super::source::{Files, Fingerprint, Source};
use crate::config::Config;
use crate::engine::ruleset::Ruleset;
use crate::engine::ruleset::edit::RuntimeLayers;
use crate::engine::ruleset::freeze::FreezeTarget;
use crate::engine::ruleset::problem::Problem;
use crate::engine::vocab::Revision;
use crate::live::Live;
use crate::store::{Asked, StoreHandle};

/// What the controller is asked to do, and where the answer goes.
#[derive(Debug)]
pub enum Command {
    /// To change what is said about a flag at run time.
    Edit(Box<Edit>, oneshot::Sender<Result<Edited, EditError>>),
    /// To freeze something, or to lift a freeze.
    Freeze(Freezing, oneshot::Sender<Result<bool, EditError>>),
    /// To read the files again.
    Reload {
        /// Whose wish.
        actor: Actor,
        /// Where the answer goes.
        reply: oneshot::Sender<Result<Revision, Vec<Problem>>>,
    },
}

/// A freeze, or its end.
#[derive(Debug)]
pub struct Freezing {
    /// What.
    pub target: FreezeTarget,
    /// False lifts it.
    pub freeze: bool,
    /// Who asks.
    pub actor: Actor,
    /// Why.
    pub reason: String,
}

/// The one who writes.
pub(super) struct Controller {
    pub(super) live: Arc<Live>,
    pub(super) store: StoreHandle,
    pub(super) source: Source,
    pub(super) running: Config,
    pub(super) files: Arc<Files>,
    pub(super) runtime: RuntimeLayers,
    /// Tells everybody of `runtime`.
    pub(super) told: watch::Sender<Arc<RuntimeLayers>>,
    /// A change that the disk has been given and has not answered for in time.
    pub(super) pending: Option<Pending>,
    pub(super) fingerprint: Fingerprint,
    pub(super) revision: Revision,
}

/// Rules that serve as soon as the disk has what made them.
pub(super) struct Prepared {
    pub(super) what: String,
    pub(super) actor: Actor,
    pub(super) action: &'static str,
    pub(super) rules: Ruleset,
    pub(super) runtime: RuntimeLayers,
    pub(super) warnings: Vec<Problem>,
}

/// A change that the disk has not answered for.
pub(super) struct Pending {
    pub(super) prepared: Prepared,
    pub(super) answer: Asked<()>,
}

/// Runs on a thread that may block; `None` if it panicked, which has been logged.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    tokio::task::spawn_blocking(work).await.ok()
}
