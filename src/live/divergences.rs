//! The last exchanges whose answers differed, for whoever wants to look; redacted before they come here.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use crate::engine::compare::{Divergence, Kind, Sample, Severity, Shape};
use crate::engine::vocab::{ExchangeId, RouteKey, Side, SubjectHash};

/// How many exchanges are remembered.
pub const REMEMBERED: usize = 1_000;

/// One exchange whose two answers differed.
#[derive(Clone, Debug)]
pub struct Diverged {
    /// Its number since the start, from 1.
    pub seq: u64,
    /// The exchange's id.
    pub id: ExchangeId,
    /// The route that took it.
    pub route: RouteKey,
    /// Whom it was for.
    pub subject: Option<SubjectHash>,
    /// Whose answer the client got.
    pub served: Side,
    /// When, in milliseconds since 1970-01-01T00:00:00Z.
    pub unix_ms: i64,
    /// The statuses of legacy and new.
    pub statuses: [u16; 2],
    /// The worst severity among its divergences.
    pub worst: Severity,
    /// How many places differ, those not listed included.
    pub total: u32,
    /// The places.
    pub differences: Vec<Difference>,
}

/// A place where two answers differed, without the values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Where, as far as it may be shown.
    pub pointer: String,
    /// In what way.
    pub kind: Kind,
    /// How grave.
    pub severity: Severity,
    /// What legacy's value looks like; `None` where it has nothing.
    pub legacy: Option<Shape>,
    /// What the new path's value looks like; `None` where it has nothing.
    pub new: Option<Shape>,
}

impl From<&Divergence> for Difference {
    fn from(divergence: &Divergence) -> Self {
        Self {
            pointer: divergence.pointer.redacted(),
            kind: divergence.kind,
            severity: divergence.severity,
            legacy: divergence.legacy.as_ref().map(Sample::shape),
            new: divergence.new.as_ref().map(Sample::shape),
        }
    }
}

/// A ring of [`REMEMBERED`] exchanges.
#[derive(Debug, Default)]
pub struct Divergences {
    ring: Mutex<(u64, VecDeque<Diverged>)>,
}

impl Divergences {
    /// Adds one, numbers it, and drops the oldest when the ring is full.
    pub fn push(&self, mut diverged: Diverged) {
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        ring.0 += 1;
        diverged.seq = ring.0;
        if ring.1.len() == REMEMBERED {
            ring.1.pop_front();
        }
        ring.1.push_back(diverged);
    }

    /// The newest `limit`, newest first, of one route or of all.
    #[must_use]
    pub fn newest(&self, route: Option<&str>, limit: usize) -> Vec<Diverged> {
        let ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        ring.1
            .iter()
            .rev()
            .filter(|d| route.is_none_or(|r| d.route.as_str() == r))
            .take(limit)
            .cloned()
            .collect()
    }
}
