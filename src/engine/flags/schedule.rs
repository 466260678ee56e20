//! Time as a flag knows it: the period in which it is valid, and the ramp of a gradual one.
//!
//! Pure: the instant is given, the highest point reached is given and returned. Instants are milliseconds since
//! 1970-01-01T00:00:00Z. Who keeps a [`Mark`] over restarts is left to the store.

use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};

use super::bucket::Threshold;

const DAY_MS: i128 = 86_400_000;

/// When a flag is valid: from its start, which belongs to it, to its end, which does not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Period {
    /// The first instant of validity; unset: always was.
    pub start_ms: Option<i64>,
    /// The first instant after it; unset: for ever.
    pub end_ms: Option<i64>,
}

impl Period {
    /// Whether the instant lies in the period.
    #[must_use]
    pub fn contains(&self, unix_ms: i64) -> bool {
        self.start_ms.is_none_or(|start| start <= unix_ms) && self.end_ms.is_none_or(|end| unix_ms < end)
    }
}

/// How a ramp rises.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Slope {
    /// In units of 0.0001 points per day, at least one.
    PerDay(u64),
    /// So that it reaches 100 at this instant, which is after the start.
    Until(i64),
}

/// The schedule of a gradual flag: nobody before its start, then evenly more, at last everybody.
///
/// Shape when displayed, and as [`Ramp::parse`] reads it: `START..END` or `START+PER_DAY`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ramp {
    /// The instant at which it begins to rise.
    pub start_ms: i64,
    /// How it rises.
    pub slope: Slope,
    /// The instant at which a freeze stopped it; no part of the schedule, and not displayed.
    pub still_ms: Option<i64>,
}

impl Ramp {
    /// The share that the schedule alone gives this instant; never falls as time goes on.
    #[must_use]
    pub fn threshold_at(&self, unix_ms: i64) -> Threshold {
        let unix_ms = self.still_ms.map_or(unix_ms, |still| unix_ms.min(still));
        let elapsed = i128::from(unix_ms) - i128::from(self.start_ms);
        let (rise, run) = match self.slope {
            Slope::PerDay(per_day) => (i128::from(per_day), DAY_MS),
            Slope::Until(end_ms) => (
                i128::from(Threshold::ALL.buckets()),
                i128::from(end_ms) - i128::from(self.start_ms),
            ),
        };
        if elapsed <= 0 {
            return Threshold::NONE;
        }
        if run <= 0 {
            return Threshold::ALL;
        }
        // Rounded to the nearest bucket, as a fixed percentage is. Saturated: what is too large is everybody anyway.
        let buckets = rise.saturating_mul(elapsed).saturating_mul(2).saturating_add(run) / (2 * run);
        Threshold::from_buckets(u32::try_from(buckets).unwrap_or(u32::MAX))
    }

    /// The same schedule, whether or not it stands still.
    #[must_use]
    pub const fn schedule(self) -> Self {
        Self { still_ms: None, ..self }
    }

    /// The share at this instant when `mark` was reached before: a clock that jumps back takes nobody back.
    #[must_use]
    pub fn reached(&self, unix_ms: i64, mark: Threshold) -> Threshold {
        self.threshold_at(unix_ms).max(mark)
    }

    /// Reads what is displayed.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if let Some((start, end)) = text.split_once("..") {
            return Some(Self {
                start_ms: start.parse().ok()?,
                slope: Slope::Until(end.parse().ok()?),
                still_ms: None,
            });
        }
        let (start, per_day) = text.split_once('+')?;
        Some(Self {
            start_ms: start.parse().ok()?,
            slope: Slope::PerDay(per_day.parse().ok()?),
            still_ms: None,
        })
    }
}

impl fmt::Display for Ramp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.slope {
            Slope::PerDay(per_day) => write!(f, "{}+{per_day}", self.start_ms),
            Slope::Until(end_ms) => write!(f, "{}..{end_ms}", self.start_ms),
        }
    }
}

/// The highest share that one ramp ever reached; it only rises.
///
/// Shared by the rulesets that carry the same ramp for the same flag, so that a reload in between forgets nothing.
#[derive(Debug, Default)]
pub struct Mark(AtomicU32);

impl Mark {
    /// A mark that starts from what was stored.
    #[must_use]
    pub const fn new(reached: Threshold) -> Self {
        Self(AtomicU32::new(reached.buckets()))
    }

    /// The highest share so far.
    #[must_use]
    pub fn reached(&self) -> Threshold {
        Threshold::from_buckets(self.0.load(Ordering::Relaxed))
    }

    /// Takes note of a share, and returns the highest so far.
    pub fn raise(&self, to: Threshold) -> Threshold {
        let before = self.reached();
        // Read first: the share changes a few times a second at most, and a needless write would take the line from
        // every other core.
        if to <= before {
            return before;
        }
        Threshold::from_buckets(self.0.fetch_max(to.buckets(), Ordering::Relaxed)).max(to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DAY: i64 = 86_400_000;

    fn percent(text: &str) -> Threshold {
        Threshold::parse(text).unwrap()
    }

    #[test]
    fn period_begins_at_its_start_and_is_over_at_its_end() {
        let period = Period {
            start_ms: Some(10),
            end_ms: Some(20),
        };
        assert_eq!(
            [9, 10, 19, 20].map(|at| period.contains(at)),
            [false, true, true, false]
        );
        assert!(Period::default().contains(i64::MIN) && Period::default().contains(i64::MAX));
    }

    #[test]
    fn ramp_to_an_end_is_linear_and_resolves_less_than_a_percent() {
        let ramp = Ramp {
            start_ms: 0,
            slope: Slope::Until(31 * DAY),
            still_ms: None,
        };
        assert_eq!(ramp.threshold_at(-1), Threshold::NONE);
        assert_eq!(ramp.threshold_at(0), Threshold::NONE);
        assert_eq!(ramp.threshold_at(31 * DAY / 2), percent("50"));
        assert_eq!(ramp.threshold_at(DAY).buckets(), 32_258);
        assert_eq!(ramp.threshold_at(31 * DAY), Threshold::ALL);
        assert_eq!(ramp.threshold_at(i64::MAX), Threshold::ALL);
    }

    #[test]
    fn ramp_per_day_is_continuous_and_ends_at_everybody() {
        let ramp = Ramp {
            start_ms: 5,
            slope: Slope::PerDay(100_000),
            still_ms: None,
        };
        assert_eq!(ramp.threshold_at(5 + DAY), percent("10"));
        assert_eq!(ramp.threshold_at(5 + DAY + DAY / 2), percent("15"));
        assert_eq!(ramp.threshold_at(5 + 11 * DAY), Threshold::ALL);
    }

    #[test]
    fn c10_gradual_moves_in_steps_of_a_bucket_not_of_a_point() {
        let ramp = Ramp {
            start_ms: 0,
            slope: Slope::Until(100 * DAY),
            still_ms: None,
        };
        assert_eq!(ramp.threshold_at(DAY / 4), percent("0.25"));
        assert_eq!(ramp.threshold_at(DAY / 10_000), percent("0.0001"));
    }

    #[test]
    fn frozen_ramp_stands_still_and_goes_on_where_its_schedule_is() {
        let ramp = Ramp {
            start_ms: 0,
            slope: Slope::PerDay(100_000),
            still_ms: None,
        };
        let frozen = Ramp {
            still_ms: Some(3 * DAY),
            ..ramp
        };
        assert_eq!(
            [2, 3, 9].map(|day| frozen.threshold_at(day * DAY)),
            [percent("20"), percent("30"), percent("30")]
        );
        assert_eq!(frozen.schedule(), ramp);
        assert_eq!(frozen.to_string(), ramp.to_string());
    }

    #[test]
    fn clock_that_jumps_back_takes_nobody_back() {
        let ramp = Ramp {
            start_ms: 0,
            slope: Slope::PerDay(100_000),
            still_ms: None,
        };
        let mark = ramp.reached(5 * DAY, Threshold::NONE);
        assert_eq!(ramp.reached(2 * DAY, mark), percent("50"));
        assert_eq!(ramp.reached(6 * DAY, mark), percent("60"));
    }

    #[test]
    fn mark_only_rises() {
        let mark = Mark::new(percent("20"));
        assert_eq!(mark.raise(percent("10")), percent("20"));
        assert_eq!(mark.raise(percent("30")), percent("30"));
        assert_eq!(mark.reached(), percent("30"));
    }

    proptest! {
        #[test]
        fn ramp_never_falls(start in any::<i64>(), per_day in 1_u64.., length in any::<u32>(), a in any::<i64>(), b in any::<i64>()) {
            let until = Slope::Until(start.saturating_add(i64::from(length)));
            for slope in [Slope::PerDay(per_day), until] {
                let ramp = Ramp { start_ms: start, slope, still_ms: None };
                prop_assert!(ramp.threshold_at(a.min(b)) <= ramp.threshold_at(a.max(b)));
                prop_assert_eq!(Ramp::parse(&ramp.to_string()), Some(ramp));
            }
        }
    }
}
