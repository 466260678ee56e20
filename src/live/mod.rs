//! The state in memory that the data plane reads and the control plane writes.
//!
//! One task writes snapshots (`control`); guards may only add a kill. Nothing here blocks a worker: locks are held for
//! a few instructions, never across an await.

pub mod backend;
pub mod budget;
pub mod certificates;
pub mod divergences;
pub mod health;
pub mod intake;
pub mod kills;
pub mod page;
pub mod recent;
pub mod remote;
pub mod requests;
pub mod service;
pub mod snapshot;
pub mod stale;
pub mod tally;
pub mod usage;

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use arc_swap::ArcSwapOption;
use tokio::sync::Notify;

use crate::engine::vocab::{HashKey, Now, SubjectHash};
use crate::telemetry::clock;
use crate::telemetry::exporter::Exporter;

use budget::Budget;
use certificates::Certificates;
use divergences::Divergences;
use health::Health;
use intake::Intake;
use kills::Switchboard;
use recent::Recent;
use remote::RemoteTally;
use requests::Requests;
use service::ServiceTally;
use snapshot::{Registry, Snapshot};
use stale::Staleness;
use tally::WorkerTally;
use usage::Usages;

/// Everything that workers, judges and operators share.
#[derive(Debug)]
pub struct Live {
    snapshot: ArcSwapOption<Snapshot>,
    /// The kill switches.
    pub kills: Switchboard,
    /// The way to the judges.
    pub intake: Intake,
    /// What TLS handshakes need.
    pub certificates: Certificates,
    /// The memory for bodies.
    pub budget: Arc<Budget>,
    /// The last exchanges that differed.
    pub divergences: Divergences,
    /// Counters by name.
    pub registry: Registry,
    /// What the judges say, and what is degraded.
    pub health: Health,
    /// When counters last rose.
    pub recent: Recent,
    /// How often flags were asked, by the hour.
    pub usage: Usages,
    /// Which flags were stale at the last look.
    pub stale: Staleness,
    /// Counters of the control plane.
    pub exporter: Exporter,
    /// What is counted of those who ask for flags themselves.
    pub remote: RemoteTally,
    /// What was asked of each worker lately.
    pub requests: Box<[Requests]>,
    /// Counters of each worker.
    pub workers: Box<[Arc<WorkerTally>]>,
    /// Counters of the replicas: legacy's, new's.
    pub services: [Arc<ServiceTally>; 2],
    /// Told with every revision that comes into force; for the one task that looks after replicas.
    pub published: Notify,
    /// Open client connections of each worker.
    pub connections: Box<[AtomicUsize]>,
    /// Open tunnels to each side.
    pub tunnels: [AtomicUsize; 2],
    hash_key: HashKey,
}

impl Live {
    /// The state of an instance with this many workers; producers are the workers and, last, the shadow's thread.
    #[must_use]
    pub fn new(workers: usize, capture_budget: u64, hash_key: HashKey) -> (Arc<Self>, Ends) {
        let producers = workers + 1;
        let (intake, pairs) = Intake::new(producers);
        let live = Self {
            snapshot: ArcSwapOption::empty(),
            kills: Switchboard::default(),
            intake,
            certificates: Certificates::default(),
            budget: Budget::new(capture_budget),
            divergences: Divergences::default(),
            registry: Registry::new(producers),
            health: Health::default(),
            recent: Recent::default(),
            usage: Usages::default(),
            stale: Staleness::default(),
            exporter: Exporter::default(),
            remote: RemoteTally::default(),
            requests: (0..workers).map(|_| Requests::default()).collect(),
            workers: (0..workers).map(|_| Arc::default()).collect(),
            services: Default::default(),
            published: Notify::new(),
            connections: (0..workers).map(|_| AtomicUsize::new(0)).collect(),
            tunnels: Default::default(),
            hash_key,
        };
        (Arc::new(live), Ends { pairs })
    }

    /// The revision in force; `None` until the first one is published.
    #[must_use]
    pub fn snapshot(&self) -> Option<Arc<Snapshot>> {
        self.snapshot.load_full()
    }

    /// Puts a revision into force. For the one task that writes snapshots.
    pub fn publish(&self, snapshot: Snapshot) {
        let revision = snapshot.rules.revision.0;
        self.snapshot.store(Some(Arc::new(snapshot)));
        self.published.notify_one();
        self.remote.published(revision);
    }

    /// The producer number of the shadow's thread.
    #[must_use]
    pub fn shadow_shard(&self) -> usize {
        self.workers.len()
    }

    /// A subject as it may be stored and shown.
    #[must_use]
    pub fn hash(&self, subject: &str) -> SubjectHash {
        SubjectHash::of(&self.hash_key, subject)
    }

    /// The secret of these hashes.
    #[must_use]
    pub const fn hash_key(&self) -> &HashKey {
        &self.hash_key
    }
}

/// The ends at which what the data plane hands over comes out.
#[derive(Debug)]
pub struct Ends {
    /// Pairs of answers to be compared.
    pub pairs: tokio::sync::mpsc::Receiver<intake::Exchange>,
}

/// This instant, by both clocks.
#[must_use]
pub fn now() -> Now {
    Now {
        monotonic: clock::monotonic(),
        unix_ms: clock::unix_ms(),
    }
}
