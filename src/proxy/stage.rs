//! What the stages of one request share: the worker that has it, and the revision and the route it is under.

use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, PoisonError};

use http::header::HeaderValue;
use http::{HeaderMap, Response};

use super::answer::{Answer, Finish};
use super::client::Turn;
use super::clients::Clients;
use super::error;
use super::forward;
use super::pair::{Facts, Pair};
use super::patience::{Pace, Patience};
use super::provenance::Provenance;
use super::refusals::Refusals;
use super::shadow;
use super::socket::Peer;
use super::sweep::Sweep;
use super::tunnel::Tunnel;
use super::upstream::Pool;
use crate::engine::ruleset::Route;
use crate::engine::ruleset::route::Reply;
use crate::engine::vocab::ExchangeId;
use crate::live::Live;
use crate::live::snapshot::{LiveRoute, Snapshot};
use crate::live::tally::{ClientError, Label as _, Made, WorkerTally};
use crate::telemetry::clock;

/// One worker's share of the data plane.
#[derive(Debug)]
pub struct Worker {
    /// Its number, and that of its counters.
    pub shard: usize,
    /// What all workers share.
    pub live: Arc<Live>,
    /// Its connections to the backends.
    pub pool: Arc<Pool>,
    /// Its deadlines.
    pub sweep: Arc<Sweep>,
    /// The way to the shadow.
    pub shadow: shadow::Sender,
    /// Its counters apart from routes.
    pub tally: Arc<WorkerTally>,
    /// What each client has at once, over all workers.
    pub clients: Arc<Clients>,
    /// What it refuses from clients.
    pub refusals: Arc<Refusals>,
    /// Random bits of this process and the worker's number.
    pub id_base: u128,
    /// Exchanges so far.
    pub exchanges: AtomicU64,
    /// Whether another process accepts in this one's place: each answer then says that its connection is the last one's.
    pub leaves: AtomicBool,
}

impl Worker {
    /// Whether one more request is within what its client may ask; if not, it is counted as refused.
    #[must_use]
    pub fn lets_ask(&self, origin: &Origin, headers: &HeaderMap) -> bool {
        if !self.clients.limits_requests() {
            return true;
        }
        let snapshot = self.live.snapshot();
        let trusted = snapshot
            .as_deref()
            .and_then(|snapshot| snapshot.trusted_proxies.as_deref());
        let client = origin.provenance.client(headers, trusted);
        let within = client.is_none_or(|client| self.clients.may_ask(client, clock::monotonic()));
        if !within {
            self.refusals.book(&origin.peer, ClientError::TooManyRequests, None);
        }
        within
    }
}

/// Where a request came from.
#[derive(Debug)]
pub struct Origin {
    /// Who is at the other end of its connection.
    pub peer: Peer,
    /// What is said of it to backends.
    pub provenance: Provenance,
    /// Whose turn it is on its connection.
    pub turn: Arc<Turn>,
    upgrade: Mutex<Upgrade>,
}

/// What became of a client's wish to change the protocol.
#[derive(Debug, Default)]
pub enum Upgrade {
    /// There was none.
    #[default]
    Unasked,
    /// It was asked for. The library then leaves the socket to us at the connection's end.
    Asked,
    /// A backend agreed.
    Agreed(Box<Tunnel>),
}

impl Origin {
    /// The origin of every request of a connection.
    #[must_use]
    pub fn new(peer: Peer, turn: Arc<Turn>) -> Self {
        Self {
            provenance: Provenance::of(&peer),
            peer,
            turn,
            upgrade: Mutex::default(),
        }
    }

    /// Notes what became of a wish to change the protocol.
    pub fn set_upgrade(&self, upgrade: Upgrade) {
        *self.upgrade.lock().unwrap_or_else(PoisonError::into_inner) = upgrade;
    }

    /// What was noted last.
    #[must_use]
    pub fn take_upgrade(&self) -> Upgrade {
        std::mem::take(&mut *self.upgrade.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What the later stages know of a request.
#[derive(Clone, Copy, Debug)]
pub struct Stage<'a> {
    /// The worker that has it.
    pub worker: &'a Arc<Worker>,
    /// The revision it sees.
    pub snapshot: &'a Arc<Snapshot>,
    /// The route that takes it, or the one for requests that none takes.
    pub route: &'a Arc<LiveRoute>,
    /// That route's rules.
    pub rules: Option<&'a Route>,
    /// Where it came from.
    pub origin: &'a Origin,
}

impl Stage<'_> {
    /// How long this request's body is waited for.
    #[must_use]
    pub fn patience(&self) -> Patience {
        let limits = &self.snapshot.limits;
        let pace = Pace {
            idle: limits.body_idle,
            rate: limits.body_rate,
        };
        Patience::new(self.worker.sweep.unset(), pace)
    }

    /// Answers in place of a backend.
    #[must_use]
    pub fn make(&self, made: Made) -> Response<Answer> {
        self.route.tally(self.worker.shard).made.add(made);
        if made.is_refusal() {
            let limits = &self.snapshot.limits;
            let position = match made {
                Made::BodyTooLarge => limits.body,
                Made::TargetTooLong => Some(limits.target_bytes as u64),
                _ => None,
            };
            self.worker.refusals.log(&self.origin.peer, made.label(), position);
        }
        error::answer(made).map(|body| Answer::Made(Some(body), Finish(Arc::clone(&self.origin.turn))))
    }

    /// Answers a request for which the route's flag is off, as its `when_off` says.
    #[must_use]
    pub fn reply(&self, reply: &Reply) -> Response<Answer> {
        self.route.tally(self.worker.shard).made.add(Made::WhenOff);
        let mut response = Response::new(reply.body.clone());
        *response.status_mut() = reply.status;
        response.headers_mut().clone_from(&reply.headers);
        let reason = HeaderValue::from_static(Made::WhenOff.label());
        response.headers_mut().insert(forward::ERROR, reason);
        response.map(|body| {
            let body = Some(body).filter(|body| !body.is_empty());
            Answer::Made(body, Finish(Arc::clone(&self.origin.turn)))
        })
    }

    /// The exchange that this request is.
    #[must_use]
    pub fn pair(&self, id: ExchangeId, facts: Facts) -> Arc<Pair> {
        Pair::new(
            &self.worker.live,
            self.worker.shard,
            self.snapshot,
            self.route,
            id,
            facts,
        )
    }
}
