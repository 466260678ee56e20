//! What is remembered of single subjects, in bounded memory: who failed in a row, and who was seen lately.
//!
//! Pure. In: subject hashes and instants. Out: whether a failure may still be scored, whether anybody is left. The maps grow
//! with what they hold, so that a quiet route costs nothing.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};
use std::time::Duration;

use crate::engine::vocab::SubjectHash;

/// A subject hash is already the output of a keyed hash; hashing it again would only cost time.
#[derive(Clone, Default)]
pub(super) struct Already(u64);

impl Hasher for Already {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
}

/// A map by subject. Never iterated where the order could be seen.
pub(super) type BySubject<T> = HashMap<SubjectHash, T, BuildHasherDefault<Already>>;
/// A set of subjects. Never iterated where the order could be seen.
pub(super) type Subjects = HashSet<SubjectHash, BuildHasherDefault<Already>>;

/// How many subjects one generation of [`Rows`] remembers: about 70 KB. A subject is forgotten at the earliest after this
/// many others failed, and then counts afresh.
const ROWS: usize = 3_584;
/// How often in a row a subject counts.
const ROW_LIMIT: u8 = 2;

/// Who failed how often without a success between.
///
/// Two generations: the older one is dropped whole when the younger one is full, and whoever is met again moves to the
/// younger one.
#[derive(Clone, Debug, Default)]
pub(super) struct Rows {
    young: BySubject<u8>,
    old: BySubject<u8>,
}

impl Rows {
    /// One more failure of this subject; true if it still counts.
    pub fn failed(&mut self, subject: SubjectHash) -> bool {
        let before = self
            .young
            .get(&subject)
            .or_else(|| self.old.get(&subject))
            .copied()
            .unwrap_or(0);
        if self.young.len() >= ROWS && !self.young.contains_key(&subject) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(subject, before.saturating_add(1).min(ROW_LIMIT));
        before < ROW_LIMIT
    }

    /// A success of this subject: its next failure counts again.
    pub fn succeeded(&mut self, subject: SubjectHash) {
        for generation in [&mut self.young, &mut self.old] {
            if !generation.is_empty() {
                generation.remove(&subject);
            }
        }
    }
}

/// "Lately" in [`Active`].
const LATELY: Duration = Duration::from_secs(3600);
/// How many subjects one generation of [`Active`] names: about 25 KB.
const NAMED: usize = 896;

/// Whom the new path served or shadowed within the last hour, as far as it takes to tell whether anybody is left when some
/// of them are held.
///
/// Beyond that many in an hour nobody is named any more: then there is somebody left.
#[derive(Clone, Debug, Default)]
pub(super) struct Active {
    young: BySubject<Duration>,
    old: BySubject<Duration>,
    young_since: Duration,
    /// When somebody was last seen who is not named: without identity, or one too many.
    unnamed: Option<Duration>,
}

impl Active {
    /// The new path ran for this subject.
    pub fn saw(&mut self, subject: Option<SubjectHash>, now: Duration) {
        if now.saturating_sub(self.young_since) >= LATELY {
            self.old = std::mem::take(&mut self.young);
            self.young_since = now;
        }
        match subject {
            Some(subject) if self.young.len() < NAMED || self.young.contains_key(&subject) => {
                self.young.insert(subject, now);
            }
            _ => self.unnamed = Some(now),
        }
    }

    /// Was anybody seen within the hour before `now` who is not `held`.
    pub fn anybody_but(&self, held: impl Fn(&SubjectHash) -> bool, now: Duration) -> bool {
        let lately = |at: Duration| now.saturating_sub(at) < LATELY;
        self.unnamed.is_some_and(lately)
            || self
                .young
                .iter()
                .chain(&self.old)
                .any(|(subject, at)| lately(*at) && !held(subject))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subject_counts_twice_in_a_row_and_again_after_a_success() {
        let mut rows = Rows::default();
        let counted: Vec<bool> = (0..5).map(|_| rows.failed(SubjectHash(1))).collect();
        assert_eq!(counted, [true, true, false, false, false]);
        assert!(rows.failed(SubjectHash(2)));
        rows.succeeded(SubjectHash(1));
        assert!(rows.failed(SubjectHash(1)));
    }

    #[test]
    fn rows_stay_bounded_and_keep_whoever_goes_on_failing() {
        let mut rows = Rows::default();
        let poison = SubjectHash(u64::MAX);
        rows.failed(poison);
        rows.failed(poison);
        for n in 0..10 * ROWS as u64 {
            rows.failed(SubjectHash(n));
            assert!(n % 1000 != 0 || !rows.failed(poison), "{n}");
        }
        assert!(rows.young.len() + rows.old.len() <= 2 * ROWS);
    }

    fn minute(n: u64) -> Duration {
        Duration::from_secs(60 * n)
    }

    #[test]
    fn nobody_is_left_once_everybody_seen_within_the_hour_is_held() {
        let (a, b) = (SubjectHash(1), SubjectHash(2));
        let mut active = Active::default();
        active.saw(Some(a), minute(0));
        active.saw(Some(b), minute(30));
        assert!(active.anybody_but(|subject| *subject == b, minute(59)));
        assert!(!active.anybody_but(|subject| *subject == b, minute(60)));
        assert!(active.anybody_but(|subject| *subject == a, minute(60)));
        active.saw(None, minute(70));
        assert!(active.anybody_but(|_| true, minute(129)));
        assert!(!active.anybody_but(|_| true, minute(130)));
    }

    #[test]
    fn the_hour_slides_over_the_change_of_generations() {
        let mut active = Active::default();
        active.saw(Some(SubjectHash(1)), minute(55));
        active.saw(Some(SubjectHash(2)), minute(65));
        let second = |subject: &SubjectHash| *subject == SubjectHash(2);
        assert!(active.anybody_but(second, minute(114)));
        assert!(!active.anybody_but(second, minute(115)));
    }

    #[test]
    fn crowds_are_not_named_and_still_somebody() {
        let mut active = Active::default();
        (0..5_000).for_each(|n| active.saw(Some(SubjectHash(n)), Duration::ZERO));
        assert_eq!(active.young.len(), NAMED);
        assert!(active.anybody_but(|subject| subject.0 < NAMED as u64, minute(1)));
    }
}
