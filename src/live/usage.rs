//! What the counters of flags add up to over time, merged from all producers at every look.
//!
//! Nobody who evaluates a flag does more than add to its counter ([`FlagTally`](super::tally::FlagTally)); the hours are made
//! here, by whoever looks. What has to be kept on disk is handed out in portions and put back when that fails, so its
//! size is bounded by flags and hours, and not by time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::snapshot::Registry;
use crate::engine::stats::usage::{Counts, Seen, Usage, hour_of};

/// The most hours that wait for the disk; a disk that refuses for longer costs the rest.
const WAITING: usize = 200_000;

/// Answers that are not on disk yet. Hours are what came since the last portion; instants are as they stand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Portion {
    /// By flag and number of the hour.
    pub hours: HashMap<(Arc<str>, u32), Counts>,
    /// By flag.
    pub seen: HashMap<Arc<str>, Seen>,
}

impl Portion {
    /// Whether there is nothing to keep.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.hours.is_empty() && self.seen.is_empty()
    }

    fn add_hour(&mut self, flag: &Arc<str>, hour: u32, counts: &Counts) {
        let key = (Arc::clone(flag), hour);
        if self.hours.len() < WAITING || self.hours.contains_key(&key) {
            let known = self.hours.entry(key).or_default();
            *known = known.plus(counts);
        }
    }
}

#[derive(Debug)]
struct Entry {
    /// The counters at the last look.
    read: Counts,
    usage: Usage,
}

#[derive(Debug, Default)]
struct Inner {
    flags: HashMap<Arc<str>, Entry>,
    unstored: Portion,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Usages {
    inner: Mutex<Inner>,
}

impl Usages {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every change is whole in itself.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes over what was kept; for the start, before anybody looks.
    pub fn load(&self, kept: Vec<(Arc<str>, Usage)>) {
        let entries = kept.into_iter().map(|(flag, usage)| {
            let read = Counts::default();
            (flag, Entry { read, usage })
        });
        self.lock().flags.extend(entries);
    }

    /// Books what the counters have risen by since the last look.
    pub fn look(&self, registry: &Registry, unix_ms: i64) {
        let mut inner = self.lock();
        let Inner { flags, unstored } = &mut *inner;
        registry.each_flag(|key, shards| {
            let counts = shards
                .iter()
                .fold(Counts::default(), |sum, shard| sum.plus(&shard.counts()));
            if !flags.contains_key(key) {
                let flag: Arc<str> = key.into();
                let seen = Seen::new(unix_ms);
                unstored.seen.insert(Arc::clone(&flag), seen);
                let read = Counts::default();
                let usage = Usage::new(seen);
                flags.insert(flag, Entry { read, usage });
            }
            let Some((flag, _)) = flags.get_key_value(key) else {
                return;
            };
            let flag = Arc::clone(flag);
            let Some(entry) = flags.get_mut(key) else { return };
            let came = counts.since(&entry.read);
            if came.total() == 0 {
                return;
            }
            entry.read = counts;
            entry.usage.add(unix_ms, &came);
            unstored.add_hour(&flag, hour_of(unix_ms), &came);
            unstored.seen.insert(flag, entry.usage.seen);
        });
    }

    /// One flag's usage up to the last look; `None` of a flag that was never known.
    #[must_use]
    pub fn of(&self, flag: &str) -> Option<Usage> {
        self.lock().flags.get(flag).map(|entry| entry.usage.clone())
    }

    /// What every known flag has to show besides its hours.
    #[must_use]
    pub fn seen(&self) -> HashMap<Arc<str>, Seen> {
        let inner = self.lock();
        let seen = inner
            .flags
            .iter()
            .map(|(flag, entry)| (Arc::clone(flag), entry.usage.seen));
        seen.collect()
    }

    /// Hands out what is not on disk yet.
    #[must_use]
    pub fn take_unstored(&self) -> Portion {
        std::mem::take(&mut self.lock().unstored)
    }

    /// Takes a portion back that could not be kept.
    pub fn put_back(&self, portion: Portion) {
        let mut inner = self.lock();
        for ((flag, hour), counts) in portion.hours {
            inner.unstored.add_hour(&flag, hour, &counts);
        }
        for (flag, seen) in portion.seen {
            // What was seen meanwhile is newer.
            inner.unstored.seen.entry(flag).or_insert(seen);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::stats::usage::HOUR_MS;
    use crate::engine::vocab::Reason;

    #[test]
    fn answers_of_all_producers_are_booked_once_each() {
        let registry = Registry::new(2);
        let usages = Usages::default();
        let flag = registry.flag("checkout");
        flag[0].book(true, Reason::Percent);
        flag[1].book(false, Reason::PercentMiss);
        flag[1].book(false, Reason::FlagNotFound);
        usages.look(&registry, 5 * HOUR_MS);
        usages.look(&registry, 6 * HOUR_MS);
        flag[0].book(true, Reason::Allowlist);
        usages.look(&registry, 6 * HOUR_MS + 1);
        let usage = usages.of("checkout").unwrap();
        let hours: Vec<_> = usage.hours(0, 9 * HOUR_MS).collect();
        let (first, second) = (hours[0].1, hours[1].1);
        assert_eq!((first.on, first.off, first.hit, first.missed), (1, 1, 1, 1));
        assert_eq!((second.total(), second.hit), (1, 0));
        assert_eq!(usage.seen.known_since_ms, 5 * HOUR_MS);
        assert!(usages.of("cart").is_none());
    }

    #[test]
    fn portion_that_could_not_be_kept_comes_again_with_what_came_since() {
        let registry = Registry::new(1);
        let usages = Usages::default();
        let flag = registry.flag("checkout");
        flag[0].book(true, Reason::Global);
        usages.look(&registry, HOUR_MS);
        let portion = usages.take_unstored();
        assert!(usages.take_unstored().is_empty());
        flag[0].book(true, Reason::Global);
        usages.look(&registry, HOUR_MS + 7);
        usages.put_back(portion);
        let again = usages.take_unstored();
        assert_eq!(again.hours.values().map(Counts::total).sum::<u64>(), 2);
        let seen = again.seen.values().next().unwrap();
        assert_eq!(seen.last_on_ms, Some(HOUR_MS + 7), "what is newer stays");
    }
}
