//! What a request sees: the rules, the backends and the limits of one revision, loaded once and carried along.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ipnet::IpNet;

use super::backend::Backend;
use super::kills::{FlagWord, KillWord};
use super::tally::{FlagTally, RouteTally};
use crate::engine::ruleset::{RouteIndex, Ruleset};
use crate::engine::vocab::{RouteKey, Side};

/// A route's number in this process; stays the same over reloads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RouteId(pub u32);

/// A route together with what this process knows of it.
#[derive(Debug)]
pub struct LiveRoute {
    /// Its number.
    pub id: RouteId,
    /// Its name.
    pub key: RouteKey,
    /// Its place in the rules; `None` for requests that no route takes.
    pub index: Option<RouteIndex>,
    /// What is killed of it.
    pub word: Arc<KillWord>,
    /// The shorter of the two sides' deadlines, by which both are judged.
    pub horizon: Duration,
    /// The time in which legacy answers 99 of 100 requests, as last seen; zero if unknown.
    pub legacy_p99: Arc<std::sync::atomic::AtomicU64>,
    tallies: Arc<[RouteTally]>,
}

impl LiveRoute {
    /// This route's counters of one producer.
    #[must_use]
    pub fn tally(&self, shard: usize) -> &RouteTally {
        &self.tallies[shard]
    }
}

/// The limits on what clients may send, and on what is kept of it.
#[derive(Clone, Copy, Debug)]
pub struct RequestLimits {
    /// The longest target, in bytes.
    pub target_bytes: usize,
    /// The longest body, in bytes; `None` for no limit.
    pub body: Option<u64>,
    /// The longest pause while a body arrives.
    pub body_idle: Duration,
    /// The least bytes of a body per second, on average; none is no limit.
    pub body_rate: Option<u64>,
    /// The most bytes of one body that are kept.
    pub capture: usize,
    /// The most tunnels that are open at once.
    pub tunnels: usize,
    /// For how long neither end of a tunnel may say anything.
    pub tunnel_idle: Duration,
    /// How long a tunnel may go on once the instance drains.
    pub drain: Duration,
}

/// Which requests the access log tells of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AccessWhen {
    /// None.
    #[default]
    Off,
    /// Those that were not answered well.
    Errors,
    /// All.
    All,
}

/// What the access log tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// Of which requests.
    pub when: AccessWhen,
    /// Whether it names the client's address.
    pub client: bool,
    /// Whether it names the path.
    pub path: bool,
}

/// One revision of everything that decides about a request.
#[derive(Debug)]
pub struct Snapshot {
    /// The compiled rules.
    pub rules: Ruleset,
    /// What is killed of the flags of `rules`.
    pub flag_kills: Arc<FlagWord>,
    /// One per route of `rules`, in its order.
    pub routes: Vec<Arc<LiveRoute>>,
    /// For requests that no route takes: legacy, uncopied.
    pub unrouted: Arc<LiveRoute>,
    /// Both backends as they serve.
    pub backends: [Arc<Backend>; 2],
    /// Both backends as they take copies.
    pub shadows: [Arc<Backend>; 2],
    /// What clients may send.
    pub limits: RequestLimits,
    /// The networks that may say where a request came from; `None`: everybody may.
    pub trusted_proxies: Option<Box<[IpNet]>>,
    /// Whether messages say that they came through here.
    pub via: bool,
    /// Whether answers say which side gave them.
    pub served_by: bool,
    /// The share of subjects whose decisions are logged, in millionths.
    pub log_threshold: u32,
    /// Whether logs show subjects as they are.
    pub log_clear: bool,
    /// What the access log tells.
    pub access: Access,
    /// How long a flag may not change before it is stale.
    pub stale_after: Duration,
    /// Per flag of `rules` and producer.
    pub flag_tallies: Vec<Arc<[FlagTally]>>,
}

impl Snapshot {
    /// The backend that serves as `side`.
    #[must_use]
    pub fn backend(&self, side: Side) -> &Arc<Backend> {
        &self.backends[side.index()]
    }
}

/// Counters and numbers that outlive a snapshot, by name.
#[derive(Debug)]
pub struct Registry {
    shards: usize,
    inner: Mutex<Names>,
}

type Shards<T> = Arc<[T]>;

#[derive(Debug, Default)]
struct Names {
    routes: Vec<(RouteKey, Shards<RouteTally>, Arc<std::sync::atomic::AtomicU64>)>,
    flags: HashMap<String, Shards<FlagTally>>,
}

impl Registry {
    /// A registry for this many producers.
    #[must_use]
    pub fn new(shards: usize) -> Self {
        Self {
            shards,
            inner: Mutex::default(),
        }
    }

    /// The live side of a route.
    #[must_use]
    pub fn route(
        &self,
        key: &RouteKey,
        index: Option<RouteIndex>,
        word: Arc<KillWord>,
        horizon: Duration,
    ) -> Arc<LiveRoute> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let at = inner
            .routes
            .iter()
            .position(|(known, ..)| known == key)
            .unwrap_or_else(|| {
                let tallies = (0..self.shards).map(|_| RouteTally::default()).collect();
                inner.routes.push((key.clone(), tallies, Arc::default()));
                inner.routes.len() - 1
            });
        let (_, tallies, legacy_p99) = &inner.routes[at];
        let (tallies, legacy_p99) = (Arc::clone(tallies), Arc::clone(legacy_p99));
        let id = RouteId(u32::try_from(at).unwrap_or(u32::MAX));
        Arc::new(LiveRoute {
            id,
            key: key.clone(),
            index,
            word,
            horizon,
            legacy_p99,
            tallies,
        })
    }

    /// The counters of a flag.
    #[must_use]
    pub fn flag(&self, key: &str) -> Arc<[FlagTally]> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let shards = self.shards;
        let fresh = || (0..shards).map(|_| FlagTally::default()).collect();
        Arc::clone(inner.flags.entry(key.to_owned()).or_insert_with(fresh))
    }

    /// Every route seen so far with its counters, by number.
    #[must_use]
    pub fn routes(&self) -> Vec<(RouteKey, Arc<[RouteTally]>)> {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner
            .routes
            .iter()
            .map(|(key, tallies, _)| (key.clone(), Arc::clone(tallies)))
            .collect()
    }

    /// Shows every flag seen so far with its counters, in no order.
    pub fn each_flag(&self, mut show: impl FnMut(&str, &[FlagTally])) {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        for (key, tallies) in &inner.flags {
            show(key, tallies);
        }
    }

    /// Every flag seen so far with its counters, by key.
    #[must_use]
    pub fn flags(&self) -> Vec<(String, Arc<[FlagTally]>)> {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let mut flags: Vec<_> = inner
            .flags
            .iter()
            .map(|(key, tallies)| (key.clone(), Arc::clone(tallies)))
            .collect();
        flags.sort_by(|a, b| a.0.cmp(&b.0));
        flags
    }
}
