//! The detector of disasters: the evidence of one budget, request by request.
//!
//! Pure. In: a [`Mark`] per request. Out: an [`Alarm`] when the evidence is complete. What an alarm does is left to
//! `RouteGuard`.
//!
//! Each of three cumulative sums of log-likelihood ratios tests "new alone fails with probability p" against a tolerated p0
//! (Page, "Continuous inspection schemes", Biometrika 41, 1954): `S <- max(0, S + ln(p / p0))` on a failure,
//! `S <- max(0, S + ln((1 - p) / (1 - p0)))` on a success. The largest p finds an outage soonest, the smallest sees what fails
//! half of the time. Requests of one subject are not independent, so the sums are kept twice: with at most two failures of a
//! subject in a row, which accuses the new path, and with all of them, which accuses those subjects.
//!
//! The limit of what pairs can tell: where both sides fail by themselves, each at more than about 55 %, the requests at which
//! only new failed outweigh those at which it did well, and a long outage of both trips. An outage that fails the same
//! requests on both sides never does.

use std::time::Duration;

use super::HELD_LIMIT;
use super::evidence::{Evidence, Numbers};
use super::judge::{Mark, Score};
use super::outcome::Relation;
use super::subjects::{BySubject, Rows};
use crate::engine::vocab::SubjectHash;

/// Where the three sums trip.
const THRESHOLDS: [f64; 3] = [18.0, 20.0, 20.0];

/// The tolerated share of failures, and the three that are tested against it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub tolerated: f64,
    pub tested: [f64; 3],
}

/// For failures: one-sided bursts of up to 30 % are tolerated.
pub(super) const ERRORS: Shape = Shape {
    tolerated: 0.3,
    tested: [0.95, 0.65, 0.45],
};
/// For answers beyond a limit near legacy's median, which good answers exceed often.
pub(super) const SLOWNESS: Shape = Shape {
    tolerated: 0.4,
    tested: [0.95, 0.75, 0.6],
};

/// What one observation adds to each sum.
#[derive(Clone, Copy, Debug)]
struct Weights {
    failure: [f64; 3],
    success: [f64; 3],
}

impl Weights {
    fn of(shape: Shape) -> Self {
        Self {
            failure: shape.tested.map(|p| (p / shape.tolerated).ln()),
            success: shape.tested.map(|p| ((1.0 - p) / (1.0 - shape.tolerated)).ln()),
        }
    }
}

/// Who is accused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Accused {
    /// The new path.
    Path,
    /// The subjects whose failures were scored, and only they.
    Subjects,
}

/// One sum has reached its threshold.
#[derive(Clone, Copy, Debug)]
pub(super) struct Alarm {
    pub at: Duration,
    pub evidence: Evidence,
    pub numbers: Numbers,
    /// Failures scored after this one belong to the evidence.
    after: u64,
}

/// Where a sum left 0.
#[derive(Clone, Copy, Debug, Default)]
struct Start {
    numbers: Numbers,
    failures: u64,
}

/// The three sums of one reading.
#[derive(Clone, Debug, Default)]
struct Sums {
    value: [f64; 3],
    start: [Start; 3],
    /// Has alarmed; stays so until all three are back at 0, so that one disaster is one alarm.
    alarmed: bool,
    pending: Option<Alarm>,
}

impl Sums {
    fn success(&mut self, weights: &Weights) {
        for (value, weight) in self.value.iter_mut().zip(weights.success) {
            *value = (*value + weight).max(0.0);
        }
        if self.is_zero() {
            self.alarmed = false;
        }
    }

    fn failure(&mut self, weights: &Weights, start: Start, numbers: Numbers, at: Duration, may_alarm: bool) {
        for (n, threshold) in THRESHOLDS.into_iter().enumerate() {
            let (value, began, weight) = (&mut self.value[n], &mut self.start[n], weights.failure[n]);
            if *value == 0.0 {
                *began = start;
            }
            // Beyond its threshold a sum says nothing more; growing on, it would take ever longer to come back to 0.
            *value = (*value + weight).min(threshold + weight);
            if *value >= threshold && may_alarm && !self.alarmed {
                self.alarmed = true;
                let evidence = Evidence {
                    value: *value,
                    threshold,
                };
                self.pending = Some(Alarm {
                    at,
                    evidence,
                    numbers: numbers.minus(began.numbers),
                    after: began.failures,
                });
            }
        }
    }

    fn is_zero(&self) -> bool {
        self.value == [0.0; 3]
    }

    /// The sum that is nearest to its threshold.
    fn evidence(&self) -> Evidence {
        let all = self
            .value
            .into_iter()
            .zip(THRESHOLDS)
            .map(|(value, threshold)| Evidence { value, threshold });
        let first = Evidence {
            value: 0.0,
            threshold: THRESHOLDS[0],
        };
        all.fold(
            first,
            |most, next| if next.share() > most.share() { next } else { most },
        )
    }
}

/// The evidence of one budget. Memory: at most 420 KB, and nothing that grows while nobody fails.
#[derive(Clone, Debug)]
pub(super) struct FastPath {
    weights: Weights,
    /// With at most two failures of a subject in a row.
    path: Sums,
    /// With all failures.
    subjects: Sums,
    rows: Rows,
    /// Whose failures `subjects` scored since it was last 0, and when each last did, counted in failures.
    suspects: BySubject<u64>,
    /// Somebody could not be listed any more.
    too_many_suspects: bool,
    failures: u64,
    numbers: Numbers,
}

impl FastPath {
    pub fn new(shape: Shape) -> Self {
        Self {
            weights: Weights::of(shape),
            path: Sums::default(),
            subjects: Sums::default(),
            rows: Rows::default(),
            suspects: BySubject::default(),
            too_many_suspects: false,
            failures: 0,
            numbers: Numbers::default(),
        }
    }

    /// One more request.
    pub fn add(&mut self, mark: Mark, subject: Option<SubjectHash>, at: Duration) {
        let before = self.numbers;
        self.numbers.pairs += u64::from(mark.relation == Relation::Pair);
        self.numbers.failovers += u64::from(mark.relation == Relation::Failover);
        self.numbers.new_failed += u64::from(mark.new_bad == Some(true));
        self.numbers.legacy_failed += u64::from(mark.legacy_bad == Some(true));
        match mark.score {
            Score::Nothing => {}
            Score::Success => {
                self.path.success(&self.weights);
                self.subjects.success(&self.weights);
                if let Some(subject) = subject {
                    self.rows.succeeded(subject);
                }
                if self.subjects.is_zero() {
                    self.forget_suspects();
                }
            }
            Score::Failure => {
                let start = Start {
                    numbers: before,
                    failures: self.failures,
                };
                self.failures += 1;
                if subject.is_none_or(|subject| self.rows.failed(subject)) {
                    self.path.failure(&self.weights, start, self.numbers, at, true);
                }
                if let Some(subject) = subject {
                    self.suspect(subject);
                }
                // While the path stands accused, nobody else does.
                self.subjects
                    .failure(&self.weights, start, self.numbers, at, !self.path.alarmed);
            }
        }
    }

    fn suspect(&mut self, subject: SubjectHash) {
        if self.suspects.len() < HELD_LIMIT || self.suspects.contains_key(&subject) {
            self.suspects.insert(subject, self.failures);
        } else {
            self.too_many_suspects = true;
        }
    }

    fn forget_suspects(&mut self) {
        if !self.suspects.is_empty() {
            self.suspects.clear();
        }
        self.too_many_suspects = false;
    }

    /// What is complete and was not taken yet. An alarm against the path outweighs one against subjects.
    pub fn pending(&self) -> Option<(Accused, Alarm)> {
        let path = self.path.pending.map(|alarm| (Accused::Path, alarm));
        path.or_else(|| self.subjects.pending.map(|alarm| (Accused::Subjects, alarm)))
    }

    /// The pending alarms are dealt with.
    pub fn taken(&mut self) {
        self.path.pending = None;
        self.subjects.pending = None;
    }

    /// Whose failures make up this alarm, in the order of their hashes; `None` if they are more than can be listed.
    pub fn suspects(&self, alarm: &Alarm) -> Option<Vec<SubjectHash>> {
        if self.too_many_suspects {
            return None;
        }
        let recent = self.suspects.iter().filter(|(_, last)| **last > alarm.after);
        let mut subjects: Vec<SubjectHash> = recent.map(|(subject, _)| *subject).collect();
        subjects.sort_unstable();
        Some(subjects)
    }

    /// These subjects are held now. If they are among the suspects, what they did must not accuse the others, who were merely
    /// unlucky meanwhile: the search for the next ones begins at 0.
    pub fn excuse_others(&mut self, held: &[SubjectHash]) {
        if held.iter().any(|subject| self.suspects.contains_key(subject)) {
            self.subjects = Sums::default();
            self.forget_suspects();
        }
    }

    /// The sum nearest to its threshold, of those that accuse the path or of those that accuse subjects.
    pub fn evidence(&self, accused: Accused) -> Evidence {
        match accused {
            Accused::Path => self.path.evidence(),
            Accused::Subjects => self.subjects.evidence(),
        }
    }

    /// An alarm against the path, or against subjects, was raised, and the sums are not back at 0 since.
    pub fn alarmed(&self) -> bool {
        self.path.alarmed || self.subjects.alarmed
    }

    /// Everything counted on this channel.
    pub fn numbers(&self) -> Numbers {
        self.numbers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(score: Score) -> Mark {
        let (new_bad, legacy_bad) = (Some(score != Score::Success), Some(score == Score::Nothing));
        Mark {
            new_bad,
            legacy_bad,
            relation: Relation::Pair,
            score,
        }
    }

    /// Feeds one request per letter, each of a subject of its own: `f` failure, `s` success, `n` neither.
    fn feed(fast: &mut FastPath, letters: &str) {
        for letter in letters.chars() {
            let score = match letter {
                'f' => Score::Failure,
                's' => Score::Success,
                _ => Score::Nothing,
            };
            fast.add(mark(score), None, Duration::ZERO);
        }
    }

    fn failures_until_alarm(shape: Shape) -> usize {
        let mut fast = FastPath::new(shape);
        (1..)
            .find(|_| {
                feed(&mut fast, "f");
                fast.pending().is_some()
            })
            .unwrap_or(0)
    }

    #[test]
    fn outage_needs_exactly_sixteen_failures() {
        assert_eq!(failures_until_alarm(ERRORS), 16);
    }

    #[test]
    fn all_slow_needs_exactly_twenty_one() {
        assert_eq!(failures_until_alarm(SLOWNESS), 21);
    }

    #[test]
    fn success_among_them_takes_two_more_failures() {
        let mut fast = FastPath::new(ERRORS);
        feed(&mut fast, "fffffffs");
        feed(&mut fast, &"f".repeat(10));
        assert!(fast.pending().is_none());
        feed(&mut fast, "f");
        assert!(fast.pending().is_some());
    }

    #[test]
    fn three_failures_in_ten_are_tolerated_for_ever_and_one_in_two_is_not() {
        let mut fast = FastPath::new(ERRORS);
        feed(&mut fast, &"ffssfsssss".repeat(10_000));
        assert!(fast.pending().is_none());
        feed(&mut fast, &"fs".repeat(250));
        assert!(fast.pending().is_some());
    }

    #[test]
    fn alarm_numbers_count_from_where_the_sum_left_zero() {
        let mut fast = FastPath::new(ERRORS);
        feed(&mut fast, "ffsssssssssssnnn");
        feed(&mut fast, "nffffffffffffffff");
        let (accused, alarm) = fast.pending().expect("sixteen failures in a row");
        assert_eq!(accused, Accused::Path);
        assert_eq!(
            alarm.numbers,
            Numbers {
                pairs: 16,
                failovers: 0,
                new_failed: 16,
                legacy_failed: 0
            }
        );
        assert!((alarm.evidence.value - 16.0 * (0.95_f64 / 0.3).ln()).abs() < 1e-9);
    }

    #[test]
    fn one_disaster_is_one_alarm_until_everything_is_back_at_zero() {
        let mut fast = FastPath::new(ERRORS);
        feed(&mut fast, &"f".repeat(16));
        fast.taken();
        feed(&mut fast, &"f".repeat(100_000));
        assert!(fast.pending().is_none() && fast.alarmed());
        feed(&mut fast, &"s".repeat(10));
        assert_eq!(fast.path.value[0], 0.0);
        feed(&mut fast, &"f".repeat(16));
        assert!(fast.pending().is_none(), "the other sums still know about it");
        feed(&mut fast, &"s".repeat(90));
        assert!(!fast.alarmed());
        feed(&mut fast, &"f".repeat(16));
        assert!(fast.pending().is_some());
    }

    #[test]
    fn one_subject_accuses_itself_and_not_the_path() {
        let poison = SubjectHash(7);
        let mut fast = FastPath::new(ERRORS);
        for n in 1..=15 {
            fast.add(mark(Score::Failure), Some(poison), Duration::ZERO);
            assert!(fast.pending().is_none(), "{n}");
        }
        fast.add(mark(Score::Failure), Some(poison), Duration::ZERO);
        let (accused, alarm) = fast.pending().expect("sixteen failures in a row");
        assert_eq!(accused, Accused::Subjects);
        assert_eq!(fast.suspects(&alarm), Some(vec![poison]));
        fast.taken();
        fast.excuse_others(&[SubjectHash(8)]);
        assert_ne!(fast.evidence(Accused::Subjects).value, 0.0);
        fast.excuse_others(&[poison]);
        assert_eq!(fast.evidence(Accused::Subjects).value, 0.0);
        assert!((fast.evidence(Accused::Path).value - 2.0 * (0.95_f64 / 0.3).ln()).abs() < 1e-9);
    }

    #[test]
    fn success_of_a_subject_lets_its_next_failures_count() {
        let mut fast = FastPath::new(ERRORS);
        for score in [
            Score::Failure,
            Score::Failure,
            Score::Success,
            Score::Failure,
            Score::Failure,
        ] {
            fast.add(mark(score), Some(SubjectHash(7)), Duration::ZERO);
        }
        assert_eq!(fast.evidence(Accused::Path), fast.evidence(Accused::Subjects));
        fast.add(mark(Score::Failure), Some(SubjectHash(7)), Duration::ZERO);
        assert!(fast.evidence(Accused::Path).value < fast.evidence(Accused::Subjects).value);
    }

    #[test]
    fn suspects_are_those_since_the_sum_left_zero() {
        let mut fast = FastPath::new(ERRORS);
        fast.add(mark(Score::Failure), Some(SubjectHash(1)), Duration::ZERO);
        // Brings the first sum to 0, and not the third.
        feed(&mut fast, "s");
        assert!(fast.subjects.value[0] == 0.0 && fast.subjects.value[2] > 0.0);
        for _ in 0..16 {
            fast.add(mark(Score::Failure), Some(SubjectHash(2)), Duration::ZERO);
        }
        let (_, alarm) = fast.pending().expect("sixteen failures in a row");
        assert_eq!(fast.suspects(&alarm), Some(vec![SubjectHash(2)]));
    }

    #[test]
    fn suspects_stay_bounded() {
        let mut fast = FastPath::new(ERRORS);
        for n in 0..=HELD_LIMIT as u64 {
            fast.add(mark(Score::Failure), Some(SubjectHash(n)), Duration::ZERO);
        }
        assert_eq!(fast.suspects.len(), HELD_LIMIT);
        let alarm = fast.pending().expect("all failed").1;
        assert_eq!(fast.suspects(&alarm), None);
        fast.taken();
        feed(&mut fast, &"s".repeat(90));
        for _ in 0..16 {
            fast.add(mark(Score::Failure), Some(SubjectHash(7)), Duration::ZERO);
        }
        let alarm = fast.pending().expect("sixteen failures in a row").1;
        assert_eq!(fast.suspects(&alarm), Some(vec![SubjectHash(7)]));
    }
}
