//! How long a request's body is waited for: no pause over a limit, and no trickle that keeps below it for ever.
//!
//! Only the time counts in which it was the client's turn: a backend that takes the body slowly makes no client slow.

use std::task::{Context, Poll};
use std::time::Duration;

use super::sweep::Deadline;

/// How slowly a body may arrive.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// The longest pause, and what a client may wait in all before the rate counts.
    pub idle: Duration,
    /// Bytes per second, on average over all that was waited; none is no limit.
    pub rate: Option<u64>,
}

/// The patience with one body.
#[derive(Debug)]
pub struct Patience {
    deadline: Deadline,
    pace: Pace,
    bytes: u64,
    waited_ms: u64,
    // When the wait that lasts began.
    since_ms: Option<u64>,
}

impl Patience {
    /// With a body of which nothing has arrived.
    #[must_use]
    pub fn new(deadline: Deadline, pace: Pace) -> Self {
        Self {
            deadline,
            pace,
            bytes: 0,
            waited_ms: 0,
            since_ms: None,
        }
    }

    /// So many bytes have arrived.
    pub fn went_on(&mut self, bytes: usize) {
        if bytes == 0 {
            return;
        }
        self.bytes += bytes as u64;
        if let Some(since_ms) = self.since_ms.take() {
            self.waited_ms += self.deadline.now_ms().saturating_sub(since_ms);
        }
    }

    /// Nothing has arrived: whether this has been so for too long. If not, the task is woken when it has.
    pub fn poll_over(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.since_ms.is_none() {
            self.since_ms = Some(self.deadline.now_ms());
            self.deadline.set(self.left());
        }
        self.deadline.poll_due(cx)
    }

    /// Waits for something else, for which the deadline is free meanwhile.
    pub fn deadline(&self) -> &Deadline {
        &self.deadline
    }

    fn left(&self) -> Duration {
        let Some(rate) = self.pace.rate else {
            return self.pace.idle;
        };
        let earned = Duration::from_millis(self.bytes.saturating_mul(1_000) / rate.max(1));
        let allowed = self.pace.idle.saturating_add(earned);
        let left = allowed.saturating_sub(Duration::from_millis(self.waited_ms));
        left.min(self.pace.idle)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::sweep::Sweep;

    fn patience(rate: Option<u64>) -> Patience {
        let pace = Pace {
            idle: Duration::from_secs(30),
            rate,
        };
        Patience::new(Sweep::new().unset(), pace)
    }

    #[test]
    fn a_trickle_uses_up_what_its_bytes_do_not_earn() {
        let mut trickle = patience(Some(1_000));
        trickle.bytes = 5_000;
        assert_eq!(trickle.left(), Duration::from_secs(30));
        trickle.waited_ms = 20_000;
        assert_eq!(trickle.left(), Duration::from_secs(15));
        trickle.waited_ms = 40_000;
        assert_eq!(trickle.left(), Duration::ZERO);
        trickle.bytes = 1_000_000;
        assert_eq!(trickle.left(), Duration::from_secs(30));
    }

    #[test]
    fn without_a_rate_only_the_pause_counts() {
        let mut slow = patience(None);
        slow.waited_ms = 1_000_000;
        assert_eq!(slow.left(), Duration::from_secs(30));
    }
}
