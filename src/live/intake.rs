//! What the data plane hands to those who judge: outcomes to the guard, pairs of answers to the review.
//!
//! Outcomes are small and go through a ring per producer that is emptied at least every [`PAUSE`], at once after a
//! failure. Bodies go through a bounded queue of their own: when the review cannot keep up, it is they that are shed.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use tokio::sync::{Notify, mpsc};

use super::budget::Hold;
use super::snapshot::{LiveRoute, RouteId, Snapshot};
use super::tally::Counter;
use crate::engine::guard::Outcome;
use crate::engine::vocab::{ExchangeId, Side, SubjectHash};

/// The longest time that an outcome waits for the guard.
pub const PAUSE: Duration = Duration::from_millis(10);

/// Outcomes per ring. At a hundred thousand requests per second it is emptied a hundred times before it is full.
const RING: usize = 1 << 17;

/// Pairs of answers that wait for the review.
const PAIRS: usize = 4_096;

/// An outcome, and the route it belongs to.
#[derive(Clone, Copy, Debug)]
pub struct Report {
    /// The route.
    pub route: RouteId,
    /// What its request came to.
    pub outcome: Outcome,
}

/// An answer as it is kept for comparing.
#[derive(Debug)]
pub struct KeptAnswer {
    /// Its status.
    pub status: u16,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body; `None` when it was too long to be kept.
    pub body: Option<Bytes>,
    /// The memory it takes.
    pub hold: Hold,
}

/// Two answers to one request.
#[derive(Debug)]
pub struct Exchange {
    /// The exchange's id.
    pub id: ExchangeId,
    /// The revision that decided it.
    pub snapshot: Arc<Snapshot>,
    /// The route that took it.
    pub route: Arc<LiveRoute>,
    /// Whom it was for.
    pub subject: Option<SubjectHash>,
    /// Whose answer the client got.
    pub served: Side,
    /// When it was closed, by the wall clock.
    pub unix_ms: i64,
    /// Legacy's answer.
    pub legacy: Box<KeptAnswer>,
    /// The new path's answer.
    pub new: Box<KeptAnswer>,
}

/// The way from the data plane to its judges.
#[derive(Debug)]
pub struct Intake {
    rings: Box<[Mutex<VecDeque<Report>>]>,
    bell: Notify,
    /// Outcomes that found their ring full.
    pub lost: Counter,
    pairs: Mutex<Option<mpsc::Sender<Exchange>>>,
}

impl Intake {
    /// An intake for this many producers, and the end at which pairs come out.
    #[must_use]
    pub fn new(producers: usize) -> (Self, mpsc::Receiver<Exchange>) {
        let (pairs, out) = mpsc::channel(PAIRS);
        let rings = (0..producers).map(|_| Mutex::default()).collect();
        (
            Self {
                rings,
                bell: Notify::new(),
                lost: Counter::default(),
                pairs: Mutex::new(Some(pairs)),
            },
            out,
        )
    }

    /// Books an outcome. Never waits for the guard.
    pub fn report(&self, producer: usize, report: Report) {
        let urgent = report
            .outcome
            .new
            .is_some_and(|run| run.failure.is_some() || run.status.is_some_and(|s| s >= 400));
        let mut ring = self.rings[producer].lock().unwrap_or_else(PoisonError::into_inner);
        if ring.len() < RING {
            ring.push_back(report);
        } else {
            self.lost.add();
        }
        drop(ring);
        if urgent {
            self.bell.notify_one();
        }
    }

    /// Offers a pair of answers for comparing; false when the review has too much to do.
    #[must_use]
    pub fn compare(&self, exchange: Exchange) -> bool {
        let pairs = self.pairs.lock().unwrap_or_else(PoisonError::into_inner);
        pairs.as_ref().is_some_and(|pairs| pairs.try_send(exchange).is_ok())
    }

    /// Takes no more pairs, so that the review ends when it has seen those that wait.
    pub fn close(&self) {
        *self.pairs.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Waits until there is something to judge or [`PAUSE`] is over.
    pub async fn wait(&self) {
        // Running out of time is the usual way to return.
        let _ = tokio::time::timeout(PAUSE, self.bell.notified()).await;
    }

    /// Moves all outcomes that have come in to the end of `into`.
    pub fn drain(&self, into: &mut Vec<Report>) {
        for ring in &self.rings {
            let mut ring = ring.lock().unwrap_or_else(PoisonError::into_inner);
            into.extend(ring.drain(..));
        }
    }
}
