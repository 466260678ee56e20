//! How often a flag was asked and what it answered: by the hour, for a month, in a bounded space.
//!
//! Pure: counts and instants in, sums out. What was counted between two looks belongs to the hour of the later look, so the
//! border between two hours is as exact as looks are frequent.

use std::collections::VecDeque;

/// An hour, in milliseconds.
pub const HOUR_MS: i64 = 3_600_000;

/// The most hours that are kept of one flag: 31 days. An hour in which nobody asked takes none.
pub const KEPT_HOURS: usize = 31 * 24;

/// Answers of a flag.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Off.
    pub off: u64,
    /// On.
    pub on: u64,
    /// Of those that were off: by the percentage.
    pub missed: u64,
    /// Of those that were on: by the percentage.
    pub hit: u64,
}

#[allow(clippy::cast_precision_loss, reason = "shares for people")]
fn share(part: u64, rest: u64) -> Option<f64> {
    let total = part.saturating_add(rest);
    (total > 0).then(|| part as f64 / total as f64)
}

impl Counts {
    /// All of them.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.off.saturating_add(self.on)
    }

    /// The share that was on, 0 to 1; `None` where nobody asked.
    #[must_use]
    pub fn exposure_rate(&self) -> Option<f64> {
        share(self.on, self.off)
    }

    /// The share that was on among those about whom the percentage decided, in percent.
    #[must_use]
    pub fn observed_percent(&self) -> Option<f64> {
        share(self.hit, self.missed).map(|share| share * 100.0)
    }

    /// Both together.
    #[must_use]
    pub const fn plus(&self, other: &Self) -> Self {
        Self {
            off: self.off.saturating_add(other.off),
            on: self.on.saturating_add(other.on),
            missed: self.missed.saturating_add(other.missed),
            hit: self.hit.saturating_add(other.hit),
        }
    }

    /// What came since `before`; counts only rise.
    #[must_use]
    pub const fn since(&self, before: &Self) -> Self {
        Self {
            off: self.off.saturating_sub(before.off),
            on: self.on.saturating_sub(before.on),
            missed: self.missed.saturating_sub(before.missed),
            hit: self.hit.saturating_sub(before.hit),
        }
    }
}

/// One hour in which somebody asked. 32 bits hold a million answers per second for that long; what is more is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Bucket {
    hour: u32,
    counts: [u32; 4],
}

impl Bucket {
    fn counts(&self) -> Counts {
        let [off, on, missed, hit] = self.counts.map(u64::from);
        Counts { off, on, missed, hit }
    }

    fn add(&mut self, more: &Counts) {
        let Counts { off, on, missed, hit } = self.counts().plus(more);
        self.counts = [off, on, missed, hit].map(|count| u32::try_from(count).unwrap_or(u32::MAX));
    }
}

/// What outlives the hours: instants in milliseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Since when the flag is known, asked or not.
    pub known_since_ms: i64,
    /// When it was asked first.
    pub first_ms: Option<i64>,
    /// When it was off last.
    pub last_off_ms: Option<i64>,
    /// When it was on last.
    pub last_on_ms: Option<i64>,
}

impl Seen {
    /// Of a flag that is known from now on.
    #[must_use]
    pub const fn new(known_since_ms: i64) -> Self {
        Self {
            known_since_ms,
            first_ms: None,
            last_off_ms: None,
            last_on_ms: None,
        }
    }

    /// When it was asked last.
    #[must_use]
    pub fn last_ms(&self) -> Option<i64> {
        self.last_off_ms.max(self.last_on_ms)
    }
}

/// The number of the hour that an instant is in; 0 for what was before 1970.
#[must_use]
pub fn hour_of(unix_ms: i64) -> u32 {
    u32::try_from(unix_ms.max(0) / HOUR_MS).unwrap_or(u32::MAX)
}

/// The usage of one flag. At most [`KEPT_HOURS`] hours of 20 bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Usage {
    /// What outlives the hours.
    pub seen: Seen,
    buckets: VecDeque<Bucket>,
}

impl Usage {
    /// Of a flag that is known from now on, or of which this was kept.
    #[must_use]
    pub const fn new(seen: Seen) -> Self {
        Self {
            seen,
            buckets: VecDeque::new(),
        }
    }

    /// Books answers at an instant.
    pub fn add(&mut self, unix_ms: i64, counts: &Counts) {
        if counts.total() == 0 {
            return;
        }
        let seen = &mut self.seen;
        seen.first_ms = Some(seen.first_ms.unwrap_or(unix_ms));
        // A clock that jumps back makes nothing look older than it is.
        if counts.off > 0 {
            seen.last_off_ms = seen.last_off_ms.max(Some(unix_ms));
        }
        if counts.on > 0 {
            seen.last_on_ms = seen.last_on_ms.max(Some(unix_ms));
        }
        self.add_hour(hour_of(unix_ms), counts);
    }

    /// Books the answers of an hour, as they were kept.
    pub fn add_hour(&mut self, hour: u32, counts: &Counts) {
        let at = self.buckets.partition_point(|bucket| bucket.hour < hour);
        match self.buckets.get_mut(at) {
            Some(bucket) if bucket.hour == hour => bucket.add(counts),
            _ => {
                let mut bucket = Bucket { hour, counts: [0; 4] };
                bucket.add(counts);
                self.buckets.insert(at, bucket);
            }
        }
        while self.buckets.len() > KEPT_HOURS {
            self.buckets.pop_front();
        }
    }

    /// The hours in which somebody asked, from the one that `from_ms` is in up to the one that `to_ms` is in, the oldest
    /// first: the instant at which each begins, in milliseconds since 1970, and its answers.
    pub fn hours(&self, from_ms: i64, to_ms: i64) -> impl Iterator<Item = (i64, Counts)> {
        let (from, to) = (hour_of(from_ms), hour_of(to_ms));
        self.buckets
            .iter()
            .filter(move |bucket| (from..=to).contains(&bucket.hour))
            .map(|bucket| (i64::from(bucket.hour) * HOUR_MS, bucket.counts()))
    }

    /// All answers in those hours.
    #[must_use]
    pub fn sum(&self, from_ms: i64, to_ms: i64) -> Counts {
        self.hours(from_ms, to_ms)
            .fold(Counts::default(), |sum, (_, counts)| sum.plus(&counts))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn on(n: u64) -> Counts {
        Counts {
            on: n,
            ..Counts::default()
        }
    }

    #[test]
    fn hours_are_told_apart_and_borders_belong_to_the_later_one() {
        let mut usage = Usage::new(Seen::new(0));
        usage.add(HOUR_MS - 1, &on(1));
        usage.add(HOUR_MS, &on(2));
        let off = Counts {
            off: 3,
            missed: 3,
            ..Counts::default()
        };
        usage.add(2 * HOUR_MS - 1, &off);
        let hours: Vec<_> = usage.hours(0, 2 * HOUR_MS).collect();
        assert_eq!(hours[0], (0, on(1)));
        assert_eq!((hours[1].0, hours[1].1.total()), (HOUR_MS, 5));
        assert_eq!(usage.sum(HOUR_MS, HOUR_MS).total(), 5);
        assert_eq!(usage.seen.first_ms, Some(HOUR_MS - 1));
        assert_eq!(usage.seen.last_on_ms, Some(HOUR_MS));
        assert_eq!(usage.seen.last_ms(), Some(2 * HOUR_MS - 1));
    }

    #[test]
    fn look_without_answers_leaves_no_trace() {
        let mut usage = Usage::new(Seen::new(5));
        usage.add(HOUR_MS, &Counts::default());
        assert_eq!(usage, Usage::new(Seen::new(5)));
    }

    #[test]
    fn clock_that_jumps_back_moves_no_last_instant_back() {
        let mut usage = Usage::new(Seen::new(0));
        usage.add(10 * HOUR_MS, &on(1));
        usage.add(2 * HOUR_MS, &on(1));
        assert_eq!(usage.seen.last_on_ms, Some(10 * HOUR_MS));
        assert_eq!(usage.sum(0, 10 * HOUR_MS), on(2));
    }

    #[test]
    fn s0_30_observed_percent_is_of_those_whom_the_percentage_decided() {
        let counts = Counts {
            off: 70,
            on: 130,
            missed: 50,
            hit: 50,
        };
        assert_eq!(counts.observed_percent(), Some(50.0));
        assert_eq!(counts.exposure_rate(), Some(0.65));
        assert_eq!(Counts::default().exposure_rate(), None);
    }

    proptest! {
        #[test]
        fn space_is_bounded_and_the_newest_hours_stay(hours in proptest::collection::vec(0_u32..5_000, 1..2_000)) {
            let mut usage = Usage::new(Seen::new(0));
            for hour in &hours {
                usage.add(i64::from(*hour) * HOUR_MS, &on(1));
            }
            prop_assert!(usage.buckets.len() <= KEPT_HOURS);
            prop_assert!(usage.buckets.iter().zip(usage.buckets.iter().skip(1)).all(|(a, b)| a.hour < b.hour));
            let newest = hours.iter().max().unwrap();
            prop_assert_eq!(usage.buckets.back().map(|bucket| bucket.hour), Some(*newest));
        }
    }
}
