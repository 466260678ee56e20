//! A backend as the data plane sees it: where it is, how long to wait for it, how much may be under way to it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use super::service::Service;
use crate::engine::vocab::Side;

/// One backend of the configuration in force.
#[derive(Debug)]
pub struct Backend {
    /// Which of the two it is.
    pub side: Side,
    /// Its replicas; shared by both of its roles, and with earlier configurations while they mean the same.
    pub service: Arc<Service>,
    /// Longest wait for a connection.
    pub connect_timeout: Duration,
    /// Longest wait for the answer's headers after the last byte of the request.
    pub timeout: Duration,
    /// Longest pause within an answer's body; `None` for no limit.
    pub body_idle: Option<Duration>,
    /// Longest time that a connection is kept idle.
    pub idle: Duration,
    /// Most requests under way at once, copies not counted.
    pub in_flight_limit: usize,
    /// Requests under way, over all workers; shared with the same backend of earlier configurations.
    pub in_flight: Arc<AtomicUsize>,
}

impl Backend {
    /// Counts a request in; `None` when as many as allowed are under way.
    #[must_use]
    pub fn enter(&self) -> Option<InFlight> {
        let limit = self.in_flight_limit;
        self.in_flight
            .try_update(Relaxed, Relaxed, |n| (n < limit).then_some(n + 1))
            .ok()
            .map(|_| InFlight(Arc::clone(&self.in_flight)))
    }
}

/// One request under way; counted out when dropped.
#[derive(Debug)]
pub struct InFlight(Arc<AtomicUsize>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}
