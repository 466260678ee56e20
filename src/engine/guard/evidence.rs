//! The numbers behind a verdict: what was counted on one channel, and how near its sum is to the threshold.
//!
//! Pure values; made by `fast_path`, carried by a trip and by the status.

/// What was counted on one channel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Numbers {
    /// Requests that both sides were meant to handle, and did or failed to.
    pub pairs: u64,
    /// Requests that legacy answered because new had failed.
    pub failovers: u64,
    /// Of all requests: new did badly.
    pub new_failed: u64,
    /// Of all requests: legacy did badly.
    pub legacy_failed: u64,
}

impl Numbers {
    /// What came after `earlier`.
    pub(super) fn minus(self, earlier: Numbers) -> Numbers {
        Numbers {
            pairs: self.pairs.saturating_sub(earlier.pairs),
            failovers: self.failovers.saturating_sub(earlier.failovers),
            new_failed: self.new_failed.saturating_sub(earlier.new_failed),
            legacy_failed: self.legacy_failed.saturating_sub(earlier.legacy_failed),
        }
    }
}

/// How near a sum is to its threshold.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Evidence {
    /// A log-likelihood ratio in natural units, at least 0.
    pub value: f64,
    /// Where it trips.
    pub threshold: f64,
}

impl Evidence {
    /// 0 for none, 1 for complete.
    #[must_use]
    pub fn share(self) -> f64 {
        self.value / self.threshold
    }
}
