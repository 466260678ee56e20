//! Keeps account of what is refused from clients: each refusal is counted by its reason and logged once, with the
//! address, the reason and the place, and never with what was sent.
//!
//! Whoever floods us with requests to refuse must not flood the log with them: lines are capped per worker, and the
//! next one says how many were left out.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::socket::Peer;
use super::sweep::Sweep;
use crate::live::tally::{ClientError, Label as _, WorkerTally};

/// The most lines of one worker in one [`WINDOW_MS`].
const LINES: u64 = 20;

const WINDOW_MS: u64 = 10_000;

/// One worker's refusals.
#[derive(Debug)]
pub struct Refusals {
    tally: Arc<WorkerTally>,
    sweep: Arc<Sweep>,
    window: AtomicU64,
    lines: AtomicU64,
    left_out: AtomicU64,
}

impl Refusals {
    /// An account that counts into `tally`, by the time of `sweep`.
    #[must_use]
    pub fn new(tally: Arc<WorkerTally>, sweep: Arc<Sweep>) -> Arc<Self> {
        Arc::new(Self {
            tally,
            sweep,
            window: AtomicU64::new(0),
            lines: AtomicU64::new(0),
            left_out: AtomicU64::new(0),
        })
    }

    /// Counts and logs one. `position` is the byte of the request that broke the rule, where a byte did.
    pub fn book(&self, peer: &Peer, reason: ClientError, position: Option<u64>) {
        self.tally.client_errors.add(reason);
        self.log(peer, reason.label(), position);
    }

    /// Logs one that is counted elsewhere.
    pub fn log(&self, peer: &Peer, reason: &'static str, position: Option<u64>) {
        if let Some(left_out) = self.line() {
            tracing::warn!(
                client = peer.address.map(tracing::field::display),
                reason,
                position,
                left_out,
                "a client's request was refused"
            );
        }
    }

    // How many lines were left out before this one, if this one may be written. Only its worker asks.
    fn line(&self) -> Option<u64> {
        let window = self.sweep.now_ms() / WINDOW_MS;
        if self.window.swap(window, Relaxed) != window {
            self.lines.store(0, Relaxed);
        }
        if self.lines.load(Relaxed) >= LINES {
            self.left_out.fetch_add(1, Relaxed);
            return None;
        }
        self.lines.fetch_add(1, Relaxed);
        Some(self.left_out.swap(0, Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_refusals_is_counted_and_not_logged() {
        let refusals = Refusals::new(Arc::default(), Sweep::new());
        let lines: Vec<_> = (0..50).map(|_| refusals.line()).collect();
        assert_eq!(lines.iter().flatten().count(), 20);
        refusals.window.store(7, Relaxed);
        assert_eq!((refusals.line(), refusals.line()), (Some(30), Some(0)));
    }
}
