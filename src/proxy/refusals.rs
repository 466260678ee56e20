//! Keeps account of what is refused from clients, requests and TLS handshakes: each refusal is counted by its reason and
//! logged once, with the address, the reason and the place, and never with what was sent.
//!
//! Whoever floods us with something to refuse must not flood the log with it: lines of each kind are capped per worker, and
//! the next one says how many were left out.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::socket::Peer;
use super::sweep::Sweep;
use crate::live::tally::{ClientError, HandshakeError, Label as _, WorkerTally};

/// The most lines of one kind and worker in one [`WINDOW_MS`].
const LINES: u64 = 20;

const WINDOW_MS: u64 = 10_000;

/// One worker's refusals.
#[derive(Debug)]
pub struct Refusals {
    tally: Arc<WorkerTally>,
    sweep: Arc<Sweep>,
    requests: Lines,
    handshakes: Lines,
}

impl Refusals {
    /// An account that counts into `tally`, by the time of `sweep`.
    #[must_use]
    pub fn new(tally: Arc<WorkerTally>, sweep: Arc<Sweep>) -> Arc<Self> {
        Arc::new(Self {
            tally,
            sweep,
            requests: Lines::default(),
            handshakes: Lines::default(),
        })
    }

    /// Counts and logs one. `position` is the byte of the request that broke the rule, where a byte did.
    pub fn book(&self, peer: &Peer, reason: ClientError, position: Option<u64>) {
        self.tally.client_errors.add(reason);
        self.log(peer, reason.label(), position);
    }

    /// Logs one that is counted elsewhere.
    pub fn log(&self, peer: &Peer, reason: &'static str, position: Option<u64>) {
        if let Some(left_out) = self.requests.next(self.sweep.now_ms()) {
            tracing::warn!(
                client = peer.address.map(tracing::field::display),
                reason,
                position,
                left_out,
                "a client's request was refused"
            );
        }
    }

    /// Counts and logs a TLS handshake that came to nothing.
    pub fn book_handshake(&self, peer: &Peer, reason: HandshakeError) {
        self.tally.handshakes_failed.add(reason);
        if let Some(left_out) = self.handshakes.next(self.sweep.now_ms()) {
            tracing::warn!(
                client = peer.address.map(tracing::field::display),
                reason = reason.label(),
                left_out,
                "a client's TLS handshake came to nothing"
            );
        }
    }
}

/// Lines of one kind. Only one worker writes them.
#[derive(Debug, Default)]
struct Lines {
    window: AtomicU64,
    written: AtomicU64,
    left_out: AtomicU64,
}

impl Lines {
    /// How many lines were left out before this one, if this one may be written.
    fn next(&self, now_ms: u64) -> Option<u64> {
        let window = now_ms / WINDOW_MS;
        if self.window.swap(window, Relaxed) != window {
            self.written.store(0, Relaxed);
        }
        if self.written.load(Relaxed) >= LINES {
            self.left_out.fetch_add(1, Relaxed);
            return None;
        }
        self.written.fetch_add(1, Relaxed);
        Some(self.left_out.swap(0, Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_refusals_is_counted_and_not_logged() {
        let refused = Lines::default();
        let lines: Vec<_> = (0..50).map(|_| refused.next(5)).collect();
        assert_eq!(lines.iter().flatten().count(), 20);
        assert_eq!((refused.next(WINDOW_MS), refused.next(WINDOW_MS)), (Some(30), Some(0)));
    }
}
