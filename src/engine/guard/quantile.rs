//! A running quantile of one side's latencies.
//!
//! Pure. In: latencies in microseconds. Out: the quantile as it was when last taken. Fixed memory: 3 KB.
//!
//! A histogram of bins that are 3 % wide each, from 1 us to over an hour. Halving all counts every 5,000 answers forgets the
//! past slowly; taking the quantile only every 10 s keeps a burst from moving the limit that it is judged by.

use std::time::Duration;

/// Each bin ends this much above its beginning.
const GROWTH: f64 = 1.03;
/// Covers 1 us to 1.03^750 us, 70 minutes.
const BINS: usize = 750;
/// All counts are halved when this many answers came since the last halving.
const HALVED_AFTER: u32 = 5_000;
/// The quantile is taken anew when the last taking is this old.
const RETAKEN_AFTER: Duration = Duration::from_secs(10);

/// A histogram and the quantile that was last taken from it.
#[derive(Clone, Debug)]
pub(super) struct Running {
    quantile: f64,
    bins: Box<[u32; BINS]>,
    total: u64,
    /// Answers ever, which halving does not reduce.
    seen: u64,
    since_halving: u32,
    taken: Option<(Duration, f64)>,
}

impl Running {
    /// `quantile` within 0..1.
    pub fn new(quantile: f64) -> Self {
        Self {
            quantile,
            bins: Box::new([0; BINS]),
            total: 0,
            seen: 0,
            since_halving: 0,
            taken: None,
        }
    }

    /// How many answers have to be seen before a quantile is worth anything: 20 beyond it.
    pub fn needed(&self) -> u64 {
        (20.0 / (1.0 - self.quantile)).ceil() as u64
    }

    /// How many answers have been seen.
    pub fn seen(&self) -> u64 {
        self.seen
    }

    /// Takes the quantile anew if it is due, and answers the one in force. `None` while too little has been seen.
    pub fn take(&mut self, now: Duration) -> Option<f64> {
        let due = match self.taken {
            None => self.seen >= self.needed(),
            Some((at, _)) => now.saturating_sub(at) >= RETAKEN_AFTER,
        };
        if due && let Some(value) = self.current() {
            self.taken = Some((now, value));
        }
        self.taken.map(|(_, value)| value)
    }

    /// The quantile of everything seen until now, in microseconds: the upper end of its bin. `None` if nothing was.
    pub fn current(&self) -> Option<f64> {
        let wanted = self.quantile * self.total as f64;
        let mut below = 0_u64;
        let bin = self.bins.iter().position(|count| {
            below += u64::from(*count);
            below > 0 && below as f64 >= wanted
        })?;
        Some(GROWTH.powi(bin as i32 + 1))
    }

    /// One more answer.
    pub fn add(&mut self, micros: f64) {
        // A cast from float saturates: below 1 us, and NaN, land in the first bin.
        let bin = ((micros.ln() / GROWTH.ln()) as usize).min(BINS - 1);
        self.bins[bin] = self.bins[bin].saturating_add(1);
        self.total += 1;
        self.seen = self.seen.saturating_add(1);
        self.since_halving += 1;
        if self.since_halving >= HALVED_AFTER {
            self.since_halving = 0;
            self.bins.iter_mut().for_each(|count| *count /= 2);
            self.total = self.bins.iter().map(|count| u64::from(*count)).sum();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn nothing_is_said_before_twenty_answers_lie_beyond_the_quantile() {
        let mut median = Running::new(0.5);
        for _ in 0..39 {
            median.add(100.0);
            assert_eq!(median.take(secs(0)), None);
        }
        median.add(100.0);
        assert!(median.take(secs(0)).is_some());
        assert_eq!(Running::new(0.95).needed(), 400);
        assert_eq!(Running::new(0.99).needed(), 2000);
    }

    #[test]
    fn median_is_right_within_one_bin() {
        let mut median = Running::new(0.5);
        (1..=999).for_each(|n| median.add(f64::from(n) * 1000.0));
        let value = median.take(secs(0)).expect("999 answers were seen");
        assert!((500_000.0..=500_000.0 * GROWTH).contains(&value), "{value}");
    }

    #[test]
    fn value_stands_for_ten_seconds() {
        let mut median = Running::new(0.5);
        (0..40).for_each(|_| median.add(100.0));
        let before = median.take(secs(5));
        (0..400).for_each(|_| median.add(9000.0));
        assert_eq!(median.take(secs(14)), before);
        assert_ne!(median.take(secs(15)), before);
    }

    #[test]
    fn halving_lets_the_present_outweigh_the_past() {
        let mut median = Running::new(0.5);
        (0..20_000).for_each(|_| median.add(100.0));
        let mut needed = 0;
        while median.current().is_some_and(|value| value < 9000.0) {
            median.add(9000.0);
            needed += 1;
        }
        assert!(needed < 5_000, "{needed}");
    }

    #[test]
    fn absurd_latencies_stay_in_the_table() {
        let mut median = Running::new(0.5);
        for micros in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e300] {
            median.add(micros);
        }
        assert_eq!(median.seen(), 5);
    }
}
