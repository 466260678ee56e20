//! The idle connections of one worker, and the rules by which they are used again.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use super::busy::Busy;
use super::connect::Connection;
use super::limits::FRESH;
use super::two::{Stream, Two};
use crate::live::backend::{Backend, InFlight};
use crate::live::service::Target;
use crate::proxy::sweep::{Deadline, Sweep};
use crate::proxy::wire::Quiet;
use crate::telemetry::clock;

/// For how long a request that may not be repeated gets a connection of its own from a backend that closed a young idle
/// one without announcing it: whoever does so once does it again, and sometimes while a request is on its way.
const DISTRUST: Duration = Duration::from_secs(300);

/// Idle connections kept per backend address and worker.
const KEPT: usize = 4_096;

/// The idle connections of one worker.
#[derive(Debug)]
pub struct Pool {
    // Replicas are few, and looked for with every request: a list is faster than a map.
    idle: Mutex<Vec<(u64, Idle)>>,
    turn: AtomicUsize,
    pub(super) sweep: Arc<Sweep>,
}

/// What is kept for one replica.
#[derive(Debug, Default)]
struct Idle {
    // The newest stand last.
    connections: Vec<Connection>,
    // Until then it is known to close young connections without a word.
    distrusted_until_nanos: u64,
    shared: Vec<Arc<Two>>,
    // Whoever opens the next connection for many: the others wait for it, and use it.
    opening: Option<Arc<tokio::sync::Mutex<()>>>,
}

/// A connection for one request.
#[derive(Debug)]
pub(super) enum Way {
    /// Its own.
    One(Connection),
    /// A place on one that others use, too.
    Two(Stream),
}

impl Idle {
    fn distrust(&mut self, distrust: bool, now_nanos: u64) {
        if distrust {
            self.distrusted_until_nanos = now_nanos.saturating_add(DISTRUST.as_nanos() as u64);
        }
    }
}

/// A connection in use. Dropped without being given back, it is closed.
#[derive(Debug)]
pub struct Lease {
    way: Option<Way>,
    busy: Busy,
    pool: Arc<Pool>,
    // Longest pause within the answer's body; set while the backend is waited for.
    body_idle: Option<Duration>,
    pause: Option<Deadline>,
    _in_flight: InFlight,
}

impl Lease {
    pub(super) fn new(way: Way, pool: &Arc<Pool>, backend: &Backend, busy: Busy, in_flight: InFlight) -> Self {
        Self {
            way: Some(way),
            busy,
            pool: Arc::clone(pool),
            body_idle: backend.body_idle,
            pause: None,
            _in_flight: in_flight,
        }
    }

    /// Whether the backend has paused for too long within its answer's body; to be asked while nothing of it arrives.
    pub fn poll_paused(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(limit) = self.body_idle else {
            return Poll::Pending;
        };
        let pause = self.pause.get_or_insert_with(|| self.pool.sweep.deadline(limit));
        pause.poll_due(cx)
    }

    /// Something of the answer's body has arrived.
    pub fn resumed(&mut self) {
        self.pause = None;
    }

    /// Whether the answer shares its connection, which then says by itself where the answer ends.
    #[must_use]
    pub const fn is_shared(&self) -> bool {
        matches!(self.way, Some(Way::Two(_)))
    }

    /// Gives the connection back for the next request.
    pub fn give_back(mut self) {
        if let Some(Way::One(mut connection)) = self.way.take()
            && !connection.sender.is_closed()
            && !connection.keep.is_zero()
        {
            // Its last byte came just now, and the clock was read for that.
            connection.since_nanos = connection.wire.last_read_nanos();
            let mut idle = self.pool.lock();
            let kept = of(&mut idle, self.busy.target.id);
            if kept.connections.len() < KEPT {
                kept.connections.push(connection);
            }
        }
    }
}

impl Pool {
    /// An empty pool whose timeouts are kept by `sweep`.
    #[must_use]
    pub fn new(sweep: Arc<Sweep>) -> Arc<Self> {
        Arc::new(Self {
            idle: Mutex::default(),
            turn: AtomicUsize::new(0),
            sweep,
        })
    }

    /// Closes what has been idle for too long. To be called now and then.
    pub fn prune(&self) {
        let now = clock::monotonic_nanos();
        self.lock().retain_mut(|(_, kept)| {
            let distrust = kept.connections.iter().any(|c| c.closed_young(now));
            kept.distrust(distrust, now);
            kept.connections
                .retain(|c| !c.sender.is_closed() && c.idle_for(now) < c.keep);
            kept.shared
                .retain(|two| !two.is_over() && !two.is_idle_for(two.keep, now));
            !kept.connections.is_empty()
                || !kept.shared.is_empty()
                || kept
                    .opening
                    .as_ref()
                    .is_some_and(|opening| Arc::strong_count(opening) > 1)
                || kept.distrusted_until_nanos > now
        });
    }

    /// The turn to open a connection for many requests to a replica.
    pub(super) fn opening(&self, target: &Target) -> Arc<tokio::sync::Mutex<()>> {
        let mut idle = self.lock();
        Arc::clone(of(&mut idle, target.id).opening.get_or_insert_default())
    }

    /// Lets others use a connection for many requests.
    pub(super) fn share(&self, target: &Target, two: &Arc<Two>) {
        of(&mut self.lock(), target.id).shared.push(Arc::clone(two));
    }

    /// Notes that a backend closed a connection without announcing it.
    pub(super) fn distrust(&self, target: &Target) {
        let mut idle = self.lock();
        of(&mut idle, target.id).distrust(true, clock::monotonic_nanos());
    }

    /// A connection that may be written to, if there is one.
    pub(super) fn take(&self, target: &Target, repeatable: bool) -> Option<Way> {
        let now = clock::monotonic_nanos();
        let mut idle = self.lock();
        let (_, idle) = idle.iter_mut().find(|(id, _)| *id == target.id)?;
        if !idle.shared.is_empty() {
            idle.shared.retain(|two| !two.is_over());
        }
        if let Some(stream) = idle.shared.iter().find_map(|two| two.enter(repeatable, now)) {
            return Some(Way::Two(stream));
        }
        let mut at = idle.connections.len();
        while at > 0 {
            at -= 1;
            let candidate = &idle.connections[at];
            let idle_for = candidate.idle_for(now);
            // The newest stand last: once one is too old, all before it are.
            if !repeatable && (idle_for >= FRESH || idle.distrusted_until_nanos > now) {
                return None;
            }
            if candidate.sender.is_closed() || idle_for >= candidate.keep {
                let young = candidate.closed_young(now);
                idle.connections.remove(at);
                idle.distrust(young, now);
                continue;
            }
            // The connection's task may not have seen the end of the last answer yet.
            if !candidate.sender.is_ready() {
                continue;
            }
            match candidate.wire.quiet() {
                Quiet::Yes => return Some(Way::One(idle.connections.remove(at))),
                Quiet::NotYet => {}
                Quiet::No => {
                    idle.connections.remove(at);
                    idle.distrust(idle_for < FRESH, now);
                }
            }
        }
        None
    }

    /// A number that goes round.
    pub(super) fn turn(&self) -> usize {
        self.turn.fetch_add(1, Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(u64, Idle)>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is kept for a replica, which is noted if it is new.
fn of(idle: &mut Vec<(u64, Idle)>, id: u64) -> &mut Idle {
    let at = idle.iter().position(|(known, _)| *known == id).unwrap_or_else(|| {
        idle.push((id, Idle::default()));
        idle.len() - 1
    });
    &mut idle[at].1
}
