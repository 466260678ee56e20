//! OpenFeature remote evaluation (OFREP 0.3), and the evaluation API beside it: any OpenFeature SDK in any language is a
//! client.
//!
//! In: requests of SDKs. Out: the answers of flags, evaluated here from the snapshot in force and the kills of this
//! instant, and event streams that tell of changes. Nothing is kept between two evaluations, so a kill holds for the next
//! one. [`Service::router`] answers on the admin listener; [`server`] has a listener of its own, with event streams and
//! CORS. Who may ask is decided by [`gate`], the shapes on the wire are in `wire`.

mod api;
mod body;
pub mod cors;
mod evaluate;
mod events;
pub mod gate;
mod handlers;
pub mod server;
mod wire;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::routing::{get, post};
use tokio::sync::{Semaphore, watch};

use crate::live::Live;
use gate::Gate;

/// An attempt that was refused, for the audit trail.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// Where it came from.
    pub from: SocketAddr,
    /// Whose token it showed, and with which role, if it is known.
    pub actor: Option<(Arc<str>, &'static str)>,
    /// What was asked: a method and a path of ours.
    pub asked: &'static str,
    /// Why it was refused.
    pub why: &'static str,
}

/// Who is told of refused attempts. It is called at most 20 times at once for one address, and once in 3 s later on.
pub type Audit = Arc<dyn Fn(Attempt) + Send + Sync>;

/// Everything that an answer needs.
pub struct Service {
    live: Arc<Live>,
    gate: Gate,
    audit: Audit,
    /// Event streams that may still be opened; `None` where there are none.
    streams: Option<Arc<Semaphore>>,
    draining: watch::Receiver<bool>,
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service")
            .field("gate", &self.gate)
            .finish_non_exhaustive()
    }
}

impl Service {
    /// A service for those whom `gate` lets in. With `streams`, that many event streams are open at once; without, none is
    /// offered. When `draining` turns true the streams end, so that their clients go elsewhere.
    #[must_use]
    pub fn new(
        live: Arc<Live>,
        gate: Gate,
        audit: Audit,
        streams: Option<usize>,
        draining: watch::Receiver<bool>,
    ) -> Arc<Self> {
        Arc::new(Self {
            live,
            gate,
            audit,
            streams: streams.map(|most| Arc::new(Semaphore::new(most))),
            draining,
        })
    }

    /// The paths. A request needs its peer's address in an [`axum::extract::ConnectInfo`].
    pub fn router(self: Arc<Self>) -> Router {
        let mut router = Router::new()
            .route("/ofrep/v1/evaluate/flags", post(handlers::bulk))
            .route("/ofrep/v1/evaluate/flags/{key}", post(handlers::single))
            .route("/api/v1/feature-flags/evaluate", post(api::evaluate));
        if self.streams.is_some() {
            router = router.route("/ofrep/v1/events", get(events::open));
        }
        router.with_state(self)
    }
}

/// Waits until the instance drains.
async fn drained(draining: &mut watch::Receiver<bool>) {
    // Whoever could still say it has gone, or has said it.
    drop(draining.wait_for(|draining| *draining).await);
}
