//! One replica: where it listens, and what is known of how it is.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Where one replica listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Over the network.
    Ip(SocketAddr),
    /// On this machine.
    Socket(Arc<Path>),
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Place::Ip(address) => address.fmt(f),
            Place::Socket(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// One replica.
#[derive(Debug)]
pub struct Target {
    /// Its number in this process: the key of its pooled connections.
    pub id: u64,
    /// Where it listens.
    pub place: Place,
    /// The host as the configuration names it; of a socket file, `localhost`.
    pub host: Arc<str>,
    /// Requests under way to it; counted only where there is a choice.
    pub in_flight: AtomicUsize,
    // 0 while nobody knows; else the version.
    spoken: AtomicU8,
    out: AtomicBool,
    fitness: Mutex<Fitness>,
}

/// How a replica is.
#[derive(Debug, Default)]
pub(super) struct Fitness {
    /// It could not be connected to.
    pub(super) ejected: bool,
    /// Connecting ran out of time.
    pub(super) silent: bool,
    /// Its health checks fail.
    pub(super) unhealthy: bool,
    /// Failures in a row, of tries included.
    pub(super) failures: u32,
    /// Health checks in a row.
    pub(super) good_checks: u32,
    /// Health checks in a row.
    pub(super) bad_checks: u32,
    /// When it last came back into service.
    pub(super) back_since: Duration,
    /// When it is to be looked at; `MAX` for never.
    pub(super) next_look: Duration,
    /// Somebody does.
    pub(super) looking: bool,
}

impl Target {
    /// A replica in service, to be looked at from `next_look` on.
    pub(super) fn new(place: Place, host: &Arc<str>, next_look: Duration) -> Arc<Self> {
        static IDS: AtomicU64 = AtomicU64::new(0);
        Arc::new(Self {
            id: IDS.fetch_add(1, Relaxed),
            place,
            host: Arc::clone(host),
            spoken: AtomicU8::new(0),
            in_flight: AtomicUsize::new(0),
            out: AtomicBool::new(false),
            fitness: Mutex::new(Fitness {
                next_look,
                ..Fitness::default()
            }),
        })
    }

    /// Whether requests go elsewhere if they can.
    #[must_use]
    pub fn is_out(&self) -> bool {
        self.out.load(Relaxed)
    }

    /// `host:port`, an IPv6 address in brackets.
    #[must_use]
    pub fn authority(&self) -> String {
        let host = &self.host;
        match self.place {
            Place::Ip(address) if host.contains(':') => format!("[{host}]:{}", address.port()),
            Place::Ip(address) => format!("{host}:{}", address.port()),
            Place::Socket(_) => host.to_string(),
        }
    }

    /// What it chose to speak when it was last asked.
    pub fn spoke(&self, two: bool) {
        self.spoken.store(if two { 2 } else { 1 }, Relaxed);
    }

    /// Whether it may choose HTTP/2, as far as is known.
    #[must_use]
    pub fn may_speak_two(&self) -> bool {
        self.spoken.load(Relaxed) != 1
    }

    /// What is known of how it is.
    pub(super) fn fitness(&self) -> MutexGuard<'_, Fitness> {
        self.fitness.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows workers what was decided.
    pub(super) fn show(&self, fitness: &Fitness) {
        self.out.store(fitness.ejected || fitness.unhealthy, Relaxed);
    }
}
