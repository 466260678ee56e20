//! Which replica a request is under way to.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use crate::live::service::Target;

/// A request under way to a replica, counted while there is a choice of them.
#[derive(Debug)]
pub(super) struct Busy {
    /// The replica.
    pub(super) target: Arc<Target>,
    counted: bool,
}

impl Busy {
    /// Counts a request in.
    pub(super) fn new(target: Arc<Target>, choice: bool) -> Self {
        if choice {
            target.in_flight.fetch_add(1, Relaxed);
        }
        Self {
            target,
            counted: choice,
        }
    }
}

impl Busy {
    /// Whether there was a choice.
    pub(super) const fn is_counted(&self) -> bool {
        self.counted
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        if self.counted {
            self.target.in_flight.fetch_sub(1, Relaxed);
        }
    }
}
