//! A budget that is used up: what happens, and the numbers that say why.
//!
//! Pure. Made by [`RouteGuard`](super::RouteGuard), put in force by [`KillSet::apply`](super::KillSet::apply), written out by
//! whoever logs, stores or alerts.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::budget::Metric;
use super::evidence::{Evidence, Numbers};
use crate::engine::vocab::{Epoch, RouteKey, SubjectHash};

/// Which test found it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Detector {
    /// The fast path for disasters.
    Fast,
}

/// What a trip does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// Somebody is told; nothing is switched.
    Alert,
    /// Its subjects are kept on legacy.
    Hold,
    /// The route is kept on legacy.
    Kill,
}

impl Effect {
    /// The word in lines, status and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Effect::Alert => "alert",
            Effect::Hold => "hold",
            Effect::Kill => "kill",
        }
    }
}

/// Why the effect is what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Every subject that new ran for within the last hour is held.
    EverybodyHeld,
    /// The failures come from few subjects only.
    FewSubjects,
    /// Failures from enough subjects to accuse the new path.
    Path,
    /// More subjects would be held than [`HELD_LIMIT`](super::HELD_LIMIT).
    TooManyHeld,
}

/// A budget is used up.
#[derive(Clone, Debug, PartialEq)]
pub struct Trip {
    /// When the outcome that completed the evidence ended, on the monotonic clock.
    pub at: Duration,
    /// The route's epoch that the evidence is from.
    pub epoch: Epoch,
    /// The route.
    pub route: RouteKey,
    /// The budget's name.
    pub budget: Arc<str>,
    /// What the budget measures.
    pub metric: Metric,
    /// Which test found it.
    pub detector: Detector,
    /// What happens.
    pub effect: Effect,
    /// Why it is that which happens.
    pub cause: Cause,
    /// The sum that reached its threshold: a log-likelihood ratio in natural units.
    pub evidence: Evidence,
    /// What was counted since that sum was last 0.
    pub numbers: Numbers,
    /// For a budget of a latency: half of legacy's answers in pairs are faster, and half of new's.
    pub medians: Option<(Duration, Duration)>,
    /// Whose failures the evidence consists of, in the order of their hashes, where the failures come from few: held by
    /// [`Effect::Hold`]. Empty for [`Cause::Path`] and [`Cause::TooManyHeld`].
    pub subjects: Vec<SubjectHash>,
}

impl Trip {
    /// The trip as one JSON line.
    #[must_use]
    pub fn line(&self) -> TripLine<'_> {
        TripLine {
            t: self.at.as_secs_f64(),
            budget: &self.budget,
            detector: self.detector,
            action: self.effect,
            block_s: None,
            pairs: self.numbers.pairs,
            legacy_failed: self.numbers.legacy_failed,
            new_failed: self.numbers.new_failed,
            evidence: self.evidence.value,
            threshold: self.evidence.threshold,
        }
    }
}

/// The reason that is stored with a kill and shown to a person.
impl fmt::Display for Trip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Numbers {
            pairs,
            failovers,
            new_failed,
            legacy_failed,
        } = self.numbers;
        let bad = if self.metric.is_latency() {
            "failed or too slow"
        } else {
            "failed"
        };
        write!(
            f,
            "budget `{}`: {bad}: new {new_failed}, legacy {legacy_failed}, ",
            self.budget
        )?;
        write!(f, "in {pairs} pairs and {failovers} failovers")?;
        if new_failed.max(legacy_failed) > pairs.saturating_add(failovers) {
            f.write_str(" and requests that one side alone got")?;
        }
        if let Some((legacy, new)) = self.medians {
            let ms = |median: Duration| median.as_secs_f64() * 1e3;
            write!(f, ", median new {:.1} ms, legacy {:.1} ms", ms(new), ms(legacy))?;
        }
        write!(
            f,
            " (evidence {:.1} of {:.0})",
            self.evidence.value, self.evidence.threshold
        )?;
        match self.cause {
            Cause::EverybodyHeld => f.write_str("; every subject of the last hour would be held"),
            Cause::FewSubjects => write!(f, "; from {} subject(s) only", self.subjects.len()),
            Cause::Path => Ok(()),
            Cause::TooManyHeld => f.write_str("; more subjects than can be held"),
        }
    }
}

/// A trip as it is logged, and printed by a backtest.
///
/// Shape: `{"t","budget","detector","action","block_s","pairs","legacy_failed","new_failed","evidence","threshold"}`, `t` in
/// seconds on the monotonic clock, `action` one of `alert`, `hold`, `kill`, `block_s` null because the fast path has no
/// blocks.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TripLine<'a> {
    t: f64,
    budget: &'a str,
    detector: Detector,
    action: Effect,
    block_s: Option<u32>,
    pairs: u64,
    legacy_failed: u64,
    new_failed: u64,
    evidence: f64,
    threshold: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_has_exactly_the_promised_members_in_their_order() {
        let trip = Trip {
            at: Duration::from_millis(12_500),
            epoch: Epoch(3),
            route: RouteKey::parse("whatsapp").expect("a key"),
            budget: "errors".into(),
            metric: Metric::ErrorRate,
            detector: Detector::Fast,
            effect: Effect::Hold,
            cause: Cause::FewSubjects,
            evidence: Evidence {
                value: 18.5,
                threshold: 18.0,
            },
            numbers: Numbers {
                pairs: 20,
                failovers: 1,
                new_failed: 17,
                legacy_failed: 2,
            },
            medians: None,
            subjects: vec![SubjectHash(1)],
        };
        let line = serde_json::to_string(&trip.line()).expect("plain values");
        assert_eq!(
            line,
            r#"{"t":12.5,"budget":"errors","detector":"fast","action":"hold","block_s":null,"pairs":20,"legacy_failed":2,"new_failed":17,"evidence":18.5,"threshold":18.0}"#
        );
        assert_eq!(
            trip.to_string(),
            "budget `errors`: failed: new 17, legacy 2, in 20 pairs and 1 failovers (evidence 18.5 of 18); from 1 subject(s) only"
        );
        let slow = Trip {
            budget: "slow".into(),
            metric: Metric::LatencyP50,
            cause: Cause::Path,
            numbers: Numbers {
                pairs: 150,
                failovers: 0,
                new_failed: 154,
                legacy_failed: 139,
            },
            medians: Some((Duration::from_micros(500), Duration::from_millis(51))),
            ..trip
        };
        assert_eq!(
            slow.to_string(),
            "budget `slow`: failed or too slow: new 154, legacy 139, in 150 pairs and 0 failovers and requests that one side \
             alone got, median new 51.0 ms, legacy 0.5 ms (evidence 18.5 of 18)"
        );
    }
}
