//! What one outcome says on one channel: did each side do badly, and does it count for or against the new path.
//!
//! Pure. In: an [`Outcome`], the statuses a budget excuses, legacy's running median. Out: a [`Mark`]. Adding marks up is left
//! to `fast_path`.

use super::outcome::{Outcome, Relation, Run};

/// What a mark does to the evidence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Score {
    /// New did badly where legacy did well.
    Failure,
    /// Says nothing about the new path alone.
    Nothing,
    /// New did well.
    Success,
}

/// One outcome on one channel. A side that was not asked, or gave no evidence, is `None`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    pub new_bad: Option<bool>,
    pub legacy_bad: Option<bool>,
    pub relation: Relation,
    pub score: Score,
}

/// How far a budget lets new fall behind legacy's median.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Slack {
    AddedMicros(f64),
    Ratio(f64),
}

impl Slack {
    /// The limit that this slack makes of one of legacy's latencies, in microseconds.
    pub fn stretch(self, micros: f64) -> f64 {
        match self {
            Slack::AddedMicros(added) => micros + added,
            Slack::Ratio(ratio) => micros * ratio,
        }
    }
}

/// A run that is evidence.
#[derive(Clone, Copy, Debug)]
pub(super) struct Settled {
    status: Option<u16>,
    broken: bool,
    /// Latency in microseconds, of an answer that arrived within the horizon.
    pub micros: Option<f64>,
}

impl Settled {
    fn of(run: Run, horizon: Option<std::time::Duration>) -> Option<Self> {
        if run.cancelled {
            return None;
        }
        let overdue = matches!((run.latency, horizon), (Some(latency), Some(horizon)) if latency > horizon);
        let broken = overdue || run.failure.is_some() || run.status.is_none();
        let micros = run
            .latency
            .filter(|_| !broken)
            .map(|latency| latency.as_secs_f64() * 1e6);
        Some(Self {
            status: run.status,
            broken,
            micros,
        })
    }

    /// 2xx < 3xx < 4xx < 5xx < no answer. A status outside 100 to 599 is a server error (RFC 9110, section 15).
    fn class(self) -> u8 {
        match self.status {
            _ if self.broken => 6,
            Some(100..=299) => 2,
            Some(300..=399) => 3,
            Some(400..=499) => 4,
            Some(_) => 5,
            None => 6,
        }
    }

    fn excused(self, ok: &[u16]) -> bool {
        !self.broken && self.status.is_some_and(|status| ok.contains(&status))
    }

    /// 5xx, transport error, timeout, malformed answer.
    pub fn failed(self, ok: &[u16]) -> bool {
        self.class() >= 5 && !self.excused(ok)
    }

    /// Failed, or a worse class than the other side gave the same request.
    fn bad(self, other: Option<Settled>, ok: &[u16]) -> bool {
        self.failed(ok) || (!self.excused(ok) && other.is_some_and(|other| self.class() > other.class()))
    }
}

/// An outcome without what is no evidence.
#[derive(Clone, Copy, Debug)]
pub(super) struct Exchange {
    pub new: Option<Settled>,
    pub legacy: Option<Settled>,
    /// [`Relation::Pair`] only while both of its runs are evidence.
    pub relation: Relation,
}

impl Exchange {
    pub fn of(outcome: &Outcome) -> Self {
        let horizon = (outcome.relation == Relation::Pair).then_some(outcome.horizon);
        let new = outcome.new.and_then(|run| Settled::of(run, horizon));
        let legacy = outcome.legacy.and_then(|run| Settled::of(run, horizon));
        let relation = match outcome.relation {
            Relation::Pair if new.is_none() || legacy.is_none() => Relation::Alone,
            Relation::Failover if new.is_none() => Relation::Alone,
            relation => relation,
        };
        Self { new, legacy, relation }
    }

    /// The error channel.
    pub fn errors(&self, ok: &[u16]) -> Mark {
        let (new_other, legacy_other) = match self.relation {
            Relation::Pair => (self.legacy, self.new),
            Relation::Alone | Relation::Failover => (None, None),
        };
        let new_bad = self.new.map(|new| new.bad(new_other, ok));
        let legacy_bad = self.legacy.map(|legacy| legacy.bad(legacy_other, ok));
        self.mark(new_bad, legacy_bad, ok)
    }

    /// The latency channel, against legacy's median of the past. Slow is beyond the limit that `slack` makes of it.
    pub fn slowness(&self, slack: Slack, median: f64, ok: &[u16]) -> Mark {
        let limit = slack.stretch(median);
        // A failed run is slow, or failing fast would pass for an improvement.
        let slow = |run: Settled, micros: Option<f64>| {
            if run.failed(ok) {
                Some(true)
            } else {
                micros.map(|micros| micros > limit)
            }
        };
        let new_bad = self.new.and_then(|new| slow(new, new.micros));
        let legacy_bad = self
            .legacy
            .and_then(|legacy| slow(legacy, legacy.micros.map(|micros| slack.stretch(micros))));
        self.mark(new_bad, legacy_bad, ok)
    }

    fn mark(&self, new_bad: Option<bool>, legacy_bad: Option<bool>, ok: &[u16]) -> Mark {
        let (new_bad, comparable) = match (self.relation, self.new) {
            (Relation::Alone, _) | (_, None) => (new_bad, false),
            (Relation::Pair, _) => (new_bad, true),
            // Legacy had to step in, so new failed, whatever it said; unless it said what the operator excuses. Where
            // legacy then did no better (a missing page is missing on both), the request was bad, not the new path.
            (Relation::Failover, Some(new)) => {
                let better = self.legacy.is_some_and(|legacy| legacy.class() < new.class());
                ((!new.excused(ok)).then_some(true), better)
            }
        };
        let score = match new_bad {
            Some(false) => Score::Success,
            Some(true) if comparable && legacy_bad == Some(false) => Score::Failure,
            _ => Score::Nothing,
        };
        Mark {
            new_bad,
            legacy_bad,
            relation: self.relation,
            score,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::outcome::Failure;
    use super::*;
    use crate::engine::vocab::{Epoch, Side};

    const HORIZON: Duration = Duration::from_secs(1);

    fn answer(status: u16) -> Option<Run> {
        Some(Run::answered(status, Duration::from_millis(10)))
    }

    fn slow(millis: u64) -> Option<Run> {
        Some(Run::answered(200, Duration::from_millis(millis)))
    }

    fn broken() -> Option<Run> {
        Some(Run::failed(Failure::Transport))
    }

    fn exchange(relation: Relation, legacy: Option<Run>, new: Option<Run>) -> Exchange {
        Exchange::of(&Outcome {
            at: Duration::ZERO,
            epoch: Epoch(0),
            subject: None,
            served: Side::Legacy,
            by_percent: false,
            new,
            legacy,
            relation,
            horizon: HORIZON,
        })
    }

    #[test]
    fn errors_count_against_new_only_where_legacy_did_better() {
        use Relation::{Alone, Failover, Pair};
        use Score::{Failure, Nothing, Success};
        for (relation, legacy, new, score) in [
            (Pair, answer(200), answer(200), Success),
            (Pair, answer(200), answer(302), Failure),
            (Pair, answer(200), answer(401), Failure),
            (Pair, answer(404), answer(404), Success),
            (Pair, answer(404), answer(200), Success),
            (Pair, answer(404), answer(500), Failure),
            (Pair, answer(200), answer(999), Failure),
            (Pair, answer(200), broken(), Failure),
            (Pair, answer(500), broken(), Nothing),
            (Pair, answer(500), answer(500), Nothing),
            (Pair, broken(), answer(404), Success),
            (Pair, broken(), answer(503), Nothing),
            (Pair, Some(Run::cancelled()), answer(200), Success),
            (Pair, Some(Run::cancelled()), answer(500), Nothing),
            (Pair, answer(200), Some(Run::cancelled()), Nothing),
            (Alone, None, answer(200), Success),
            (Alone, None, answer(500), Nothing),
            (Alone, answer(200), None, Nothing),
            (Failover, answer(200), broken(), Failure),
            (Failover, answer(404), broken(), Failure),
            (Failover, answer(502), broken(), Nothing),
            (Failover, broken(), broken(), Nothing),
            (Failover, None, broken(), Nothing),
            (Failover, answer(200), answer(404), Failure),
            (Failover, answer(404), answer(404), Nothing),
            (Failover, answer(200), Some(Run::cancelled()), Nothing),
        ] {
            assert_eq!(
                exchange(relation, legacy, new).errors(&[]).score,
                score,
                "{relation:?} {legacy:?} {new:?}"
            );
        }
    }

    #[test]
    fn pair_of_which_one_run_was_given_up_is_no_pair() {
        let given_up = Some(Run::cancelled());
        assert_eq!(
            exchange(Relation::Pair, given_up, answer(200)).relation,
            Relation::Alone
        );
        assert_eq!(
            exchange(Relation::Pair, answer(200), given_up).relation,
            Relation::Alone
        );
        assert_eq!(
            exchange(Relation::Failover, answer(200), given_up).relation,
            Relation::Alone
        );
    }

    #[test]
    fn excused_status_is_never_bad_and_never_shifts_the_blame() {
        let ok = &[404];
        assert_eq!(
            exchange(Relation::Pair, answer(200), answer(404)).errors(ok).score,
            Score::Success
        );
        assert_eq!(
            exchange(Relation::Pair, answer(404), answer(200)).errors(ok).legacy_bad,
            Some(false)
        );
        assert_eq!(
            exchange(Relation::Pair, answer(404), answer(400)).errors(ok).score,
            Score::Success
        );
        assert_eq!(
            exchange(Relation::Failover, answer(200), answer(404)).errors(ok).score,
            Score::Nothing
        );
        let cut = Run {
            failure: Some(Failure::Malformed),
            ..Run::answered(404, Duration::ZERO)
        };
        assert_eq!(
            exchange(Relation::Pair, answer(200), Some(cut)).errors(ok).score,
            Score::Failure
        );
    }

    #[test]
    fn one_horizon_judges_both_sides_of_a_pair() {
        assert_eq!(
            exchange(Relation::Pair, slow(1000), slow(1001)).errors(&[]).score,
            Score::Failure
        );
        assert_eq!(
            exchange(Relation::Pair, slow(1001), slow(1001)).errors(&[]).score,
            Score::Nothing
        );
        assert_eq!(
            exchange(Relation::Alone, None, slow(1001)).errors(&[]).score,
            Score::Success
        );
    }

    #[test]
    fn slowness_is_measured_against_the_stretched_median() {
        let mark = |slack, legacy, new| {
            exchange(Relation::Pair, legacy, new)
                .slowness(slack, 100_000.0, &[])
                .score
        };
        let ratio = Slack::Ratio(1.1);
        assert_eq!(mark(ratio, slow(90), slow(109)), Score::Success);
        assert_eq!(mark(ratio, slow(90), slow(111)), Score::Failure);
        assert_eq!(mark(ratio, slow(101), slow(300)), Score::Nothing);
        let added = Slack::AddedMicros(50_000.0);
        assert_eq!(mark(added, slow(90), slow(149)), Score::Success);
        assert_eq!(mark(added, slow(90), slow(151)), Score::Failure);
        assert_eq!(mark(added, slow(101), slow(151)), Score::Nothing);
    }

    #[test]
    fn failing_fast_is_slow_on_either_side() {
        let mark = |relation, legacy, new| {
            exchange(relation, legacy, new)
                .slowness(Slack::Ratio(1.1), 100_000.0, &[])
                .score
        };
        assert_eq!(mark(Relation::Pair, slow(50), answer(500)), Score::Failure);
        assert_eq!(mark(Relation::Pair, answer(500), answer(500)), Score::Nothing);
        assert_eq!(mark(Relation::Failover, slow(50), broken()), Score::Failure);
        assert_eq!(mark(Relation::Failover, slow(150), broken()), Score::Nothing);
        assert_eq!(mark(Relation::Failover, answer(404), answer(404)), Score::Nothing);
    }
}
