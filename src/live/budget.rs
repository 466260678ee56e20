//! The byte budget of captured bodies: one for the process, so that no load and no body size can exceed it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Bytes of bodies that may be held at once.
#[derive(Debug)]
pub struct Budget {
    used: AtomicU64,
    cap: AtomicU64,
}

impl Budget {
    /// A budget of this many bytes.
    #[must_use]
    pub fn new(cap: u64) -> Arc<Self> {
        Arc::new(Self {
            used: AtomicU64::new(0),
            cap: AtomicU64::new(cap),
        })
    }

    /// Changes the cap; what is held stays held.
    pub fn resize(&self, cap: u64) {
        self.cap.store(cap, Relaxed);
    }

    /// Bytes held now.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.used.load(Relaxed)
    }

    /// A hold of nothing, to be grown.
    #[must_use]
    pub fn hold(self: &Arc<Self>) -> Hold {
        Hold {
            budget: Arc::clone(self),
            bytes: 0,
        }
    }
}

/// Bytes taken from a [`Budget`]; given back when dropped.
#[derive(Debug)]
pub struct Hold {
    budget: Arc<Budget>,
    bytes: u64,
}

impl Hold {
    /// Takes more bytes; false, and nothing taken, when the budget has no room for them.
    #[must_use]
    pub fn grow(&mut self, bytes: usize) -> bool {
        let bytes = bytes as u64;
        let cap = self.budget.cap.load(Relaxed);
        let fits = self
            .budget
            .used
            .try_update(Relaxed, Relaxed, |used| {
                used.checked_add(bytes).filter(|sum| *sum <= cap)
            })
            .is_ok();
        if fits {
            self.bytes += bytes;
        }
        fits
    }

    /// Takes what is missing to hold this many bytes in all; false, and nothing taken, when there is no room for it.
    #[must_use]
    pub fn cover(&mut self, bytes: usize) -> bool {
        let held = usize::try_from(self.bytes).unwrap_or(usize::MAX);
        self.grow(bytes.saturating_sub(held))
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_is_never_exceeded_and_everything_comes_back() {
        let budget = Budget::new(100);
        let mut one = budget.hold();
        let mut two = budget.hold();
        assert!(one.grow(60) && two.grow(40));
        assert!(!two.grow(1));
        assert_eq!(budget.used(), 100);
        drop(one);
        assert!(two.cover(60));
        assert!(two.cover(60) && two.cover(10), "what is held is not taken again");
        assert_eq!(budget.used(), 60);
        drop(two);
        assert_eq!(budget.used(), 0);
    }
}
