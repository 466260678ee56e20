//! What was asked lately, for whoever wants to know what other rules would have done.
//!
//! A ring per worker, in memory alone: subjects are in it as they are, and leave the process only hashed. A worker never
//! waits for it; when somebody reads, or when a request came right after one that was kept, it is passed over.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::engine::whatif::Recent;

/// The most requests that are kept of one worker.
pub const KEPT: usize = 1_024;

/// The least time between two that are kept once the ring is full: it then spans five seconds at least.
const APART: Duration = Duration::from_millis(5);

/// The most bytes that subjects and attributes of a request may have together, for it to be kept.
pub const LONGEST: usize = 4_096;

#[derive(Debug, Default)]
struct Ring {
    requests: VecDeque<Arc<Recent>>,
    last: Duration,
}

/// The requests of one worker.
#[derive(Debug, Default)]
pub struct Requests {
    ring: Mutex<Ring>,
}

impl Requests {
    /// Keeps a request that came at `now`, by the monotonic clock, if it is to be kept; only then it is made. `None`: it is
    /// longer than [`LONGEST`].
    pub fn keep(&self, now: Duration, make: impl FnOnce() -> Option<Recent>) {
        let Ok(mut ring) = self.ring.try_lock() else { return };
        let is_full = ring.requests.len() >= KEPT;
        if is_full && now.saturating_sub(ring.last) < APART {
            return;
        }
        let Some(request) = make() else { return };
        if is_full {
            ring.requests.pop_front();
        }
        ring.last = now;
        ring.requests.push_back(Arc::new(request));
    }

    /// Those that are kept, the oldest first.
    #[must_use]
    pub fn read(&self) -> Vec<Arc<Recent>> {
        let ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        ring.requests.iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;
    use crate::engine::vocab::{ExchangeId, RouteKey};

    fn request(id: u128) -> Recent {
        Recent {
            route: RouteKey::parse("shop").expect("a key"),
            method: Method::GET,
            subjects: Box::default(),
            tenant: None,
            attributes: None,
            exchange: ExchangeId(id),
        }
    }

    #[test]
    fn full_ring_keeps_the_newest_and_not_all_of_a_burst() {
        let requests = Requests::default();
        for id in 0..KEPT as u128 {
            requests.keep(Duration::ZERO, || Some(request(id)));
        }
        requests.keep(Duration::from_millis(4), || unreachable!("it came right after another"));
        requests.keep(Duration::from_millis(5), || None);
        requests.keep(Duration::from_millis(5), || Some(request(9_999)));
        let kept = requests.read();
        assert_eq!((kept.len(), kept[0].exchange.0), (KEPT, 1));
        assert_eq!(kept[KEPT - 1].exchange.0, 9_999);
    }
}
