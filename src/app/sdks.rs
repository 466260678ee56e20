//! OFREP put together: for the admin listener, and for the listener of its own.
//!
//! In: the configuration. Out: the paths, and what that listener serves.

use std::sync::Arc;

use tokio::sync::watch;

use crate::config::{Config, Token};
use crate::control::{Actor, Control};
use crate::ofrep::cors::Cors;
use crate::ofrep::gate::Gate;
use crate::ofrep::server::Listening;
use crate::ofrep::{Attempt, Audit, Service};
use crate::telemetry::spawn;

/// What SDKs are answered from.
pub struct Sdks<'a> {
    pub control: &'a Control,
    pub config: &'a Config,
    pub draining: &'a watch::Receiver<bool>,
}

impl Sdks<'_> {
    /// A service for the holders of these tokens.
    pub fn service(&self, tokens: &[Token], streams: Option<usize>) -> Arc<Service> {
        let gate = Gate::new(tokens, self.config.ofrep.requests_per_client);
        let live = Arc::clone(self.control.live());
        Service::new(live, gate, audit(self.control), streams, self.draining.clone())
    }

    /// What the listener of its own serves.
    pub fn listening(&self) -> Listening {
        let ofrep = &self.config.ofrep;
        Listening {
            router: self.service(&ofrep.tokens, Some(ofrep.streams)).router(),
            cors: Cors::new(&ofrep.cors),
            connections: ofrep.connections,
            draining: self.draining.clone(),
        }
    }
}

/// Writes refused attempts into the audit trail; nobody waits for it.
fn audit(control: &Control) -> Audit {
    let control = control.clone();
    Arc::new(move |attempt: Attempt| {
        let Attempt {
            from,
            actor,
            asked,
            why,
        } = attempt;
        let (name, role) = actor.map_or(("anonymous".into(), None), |(name, role)| (name, Some(role)));
        let actor = Actor {
            name,
            role,
            from: Some(from),
        };
        tracing::warn!(actor = &*actor.name, %from, asked, why, "an attempt to evaluate flags was refused");
        let control = control.clone();
        drop(spawn::task("audit of a refused evaluation", async move {
            control.refused(&actor, "refused", asked, why).await;
        }));
    })
}
