//! What an operator tolerates on one channel of a route, and how much of that a detector can see.
//!
//! Pure. In: the values that the configuration decoded. Out: [`Budget`], checked by [`Budget::check`]. Judging is left to
//! `judge` and `fast_path`.

use std::sync::Arc;
use std::time::Duration;

/// What a budget measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Metric {
    /// Requests that failed, or got a worse status class than the other side gave.
    ErrorRate,
    /// Half of the answers are faster.
    LatencyP50,
    /// 95 % of the answers are faster.
    LatencyP95,
    /// 99 % of the answers are faster.
    LatencyP99,
}

impl Metric {
    /// All of them, as a hint for somebody who misspelt one.
    pub const ALL: [Metric; 4] = [
        Metric::ErrorRate,
        Metric::LatencyP50,
        Metric::LatencyP95,
        Metric::LatencyP99,
    ];

    /// The word in configuration, status and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Metric::ErrorRate => "error_rate",
            Metric::LatencyP50 => "latency_p50",
            Metric::LatencyP95 => "latency_p95",
            Metric::LatencyP99 => "latency_p99",
        }
    }

    /// Reads what [`Metric::as_str`] writes.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|metric| metric.as_str() == text)
    }

    /// Measured in time, not in failures.
    #[must_use]
    pub const fn is_latency(self) -> bool {
        !matches!(self, Metric::ErrorRate)
    }
}

/// How much worse than legacy, or than a fixed limit, the new path may be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Tolerance {
    /// `added: 100ms`: slower than legacy by this much. Latency only.
    Added(Duration),
    /// `max: 500ms`: an absolute limit on the percentile. Latency only.
    Max(Duration),
    /// `rate: 0.01`: an absolute share of failures, 0 to 1. Errors only.
    Rate(f64),
    /// `ratio: 1.1`: this many times legacy's. Above 0, at most 1,000.
    Ratio(f64),
}

impl Tolerance {
    /// What holds where a budget says nothing: a tenth worse than legacy.
    pub const DEFAULT: Tolerance = Tolerance::Ratio(1.1);

    /// Compared to legacy on the same requests, rather than to a fixed limit.
    #[must_use]
    pub const fn is_relative(self) -> bool {
        matches!(self, Tolerance::Added(_) | Tolerance::Ratio(_))
    }

    /// The key in the configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Tolerance::Added(_) => "added",
            Tolerance::Max(_) => "max",
            Tolerance::Rate(_) => "rate",
            Tolerance::Ratio(_) => "ratio",
        }
    }
}

/// What happens when a budget is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Somebody is told.
    Alert,
    /// The route is killed.
    Kill,
}

impl Action {
    /// The word in configuration, status and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Action::Alert => "alert",
            Action::Kill => "kill",
        }
    }
}

/// One entry of a route's `budgets`.
#[derive(Clone, Debug, PartialEq)]
pub struct Budget {
    /// Unique within the route; named in every trip.
    pub name: Arc<str>,
    /// What is measured.
    pub metric: Metric,
    /// How much worse the new path may be.
    pub tolerate: Tolerance,
    /// What a trip does.
    pub action: Action,
    /// Statuses that are fine on either side, such as 404 where looking up what is not there is daily business.
    pub ok: Vec<u16>,
}

/// Why a budget makes no sense.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum BudgetError {
    /// A tolerance in time on a share, or the other way round.
    #[error("`{1}` says nothing about `{0}`; use `ratio` or `{2}`")]
    Mismatch(&'static str, &'static str, &'static str),
    /// Not a number, or outside the range.
    #[error("`rate` is a share between 0 and 1, not {0}")]
    Rate(f64),
    /// Not a number, or outside the range.
    #[error("`ratio` is above 0 and at most 1000, not {0}; 1.1 tolerates a tenth more than legacy")]
    Ratio(f64),
    /// No HTTP status.
    #[error("`ok` lists statuses from 100 to 599, not {0}")]
    Status(u16),
}

impl Budget {
    /// Does the tolerance fit the metric, and is every number in its range.
    ///
    /// # Errors
    /// [`BudgetError`], whose text tells the operator what to write instead. A budget that was not checked is not
    /// dangerous: where tolerance and metric do not meet, it is never judged.
    pub fn check(&self) -> Result<(), BudgetError> {
        match (self.metric.is_latency(), self.tolerate) {
            (_, Tolerance::Ratio(ratio)) if !(ratio > 0.0 && ratio <= 1000.0) => Err(BudgetError::Ratio(ratio)),
            (false, Tolerance::Rate(rate)) if !(0.0..=1.0).contains(&rate) => Err(BudgetError::Rate(rate)),
            (false, Tolerance::Added(_) | Tolerance::Max(_)) => Err(BudgetError::Mismatch(
                self.metric.as_str(),
                self.tolerate.as_str(),
                "rate",
            )),
            (true, Tolerance::Rate(_)) => Err(BudgetError::Mismatch(
                self.metric.as_str(),
                self.tolerate.as_str(),
                "added",
            )),
            _ => match self.ok.iter().find(|status| !(100..=599).contains(*status)) {
                Some(status) => Err(BudgetError::Status(*status)),
                None => Ok(()),
            },
        }
    }

    /// What the detectors of this version can see of it.
    #[must_use]
    pub const fn sight(&self) -> Sight {
        match (self.metric, self.tolerate) {
            (Metric::ErrorRate, Tolerance::Ratio(_)) => Sight::Errors,
            (Metric::LatencyP50, Tolerance::Added(_) | Tolerance::Ratio(_)) => Sight::Median,
            (Metric::LatencyP95 | Metric::LatencyP99, Tolerance::Added(_) | Tolerance::Ratio(_)) => Sight::TailByMedian,
            _ => Sight::Nothing,
        }
    }
}

/// What can be seen of a budget, said in `status` so that nobody trusts it for more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sight {
    /// Relative errors, by the fast path.
    Errors,
    /// Relative median latency, by the fast path.
    Median,
    /// No detector looks at it.
    Nothing,
    /// A tail percentile, judged by the fast path on the median with the tail's tolerance.
    TailByMedian,
}

impl Sight {
    /// `disasters only` or `not judged`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Sight::Errors | Sight::Median | Sight::TailByMedian => "disasters only",
            Sight::Nothing => "not judged",
        }
    }

    /// One sentence for a person.
    #[must_use]
    pub const fn sentence(self) -> &'static str {
        match self {
            Sight::Errors => {
                "disasters only: an outage is found by 16 failures that legacy answered well, half failing within some \
                 hundred requests, 40 % within some thousand; new failing at 30 % or less is not seen"
            }
            Sight::Median => {
                "disasters only: three times slower is found within some hundred requests; a slowdown that leaves half of \
                 the answers within the tolerated median is not seen, a slow tail neither"
            }
            Sight::Nothing => "not judged: an absolute limit has no fast path, so this budget never trips",
            Sight::TailByMedian => {
                "disasters only, by the median with this budget's tolerance: most answers slow is seen, a slow tail alone \
                 is not"
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(metric: Metric, tolerate: Tolerance) -> Budget {
        Budget {
            name: "b".into(),
            metric,
            tolerate,
            action: Action::Kill,
            ok: Vec::new(),
        }
    }

    #[test]
    fn tolerance_has_to_fit_the_metric() {
        let added = Tolerance::Added(Duration::from_millis(100));
        let max = Tolerance::Max(Duration::from_secs(1));
        for (metric, tolerate, good) in [
            (Metric::ErrorRate, Tolerance::DEFAULT, true),
            (Metric::ErrorRate, Tolerance::Rate(0.0), true),
            (Metric::ErrorRate, Tolerance::Rate(1.5), false),
            (Metric::ErrorRate, added, false),
            (Metric::ErrorRate, max, false),
            (Metric::LatencyP95, added, true),
            (Metric::LatencyP99, max, true),
            (Metric::LatencyP50, Tolerance::Rate(0.1), false),
            (Metric::LatencyP50, Tolerance::Ratio(f64::NAN), false),
            (Metric::LatencyP50, Tolerance::Ratio(0.0), false),
        ] {
            assert_eq!(
                budget(metric, tolerate).check().is_ok(),
                good,
                "{metric:?} {tolerate:?}"
            );
        }
    }

    #[test]
    fn ok_lists_http_statuses_only() {
        let budget = Budget {
            ok: vec![404, 42],
            ..budget(Metric::ErrorRate, Tolerance::DEFAULT)
        };
        assert_eq!(budget.check(), Err(BudgetError::Status(42)));
    }

    #[test]
    fn status_promises_no_more_than_a_detector_sees() {
        assert_eq!(budget(Metric::ErrorRate, Tolerance::DEFAULT).sight(), Sight::Errors);
        assert_eq!(
            budget(Metric::ErrorRate, Tolerance::Rate(0.01)).sight().as_str(),
            "not judged"
        );
        assert_eq!(
            budget(Metric::LatencyP95, Tolerance::DEFAULT).sight(),
            Sight::TailByMedian
        );
        assert_eq!(
            budget(Metric::LatencyP50, Tolerance::Max(Duration::ZERO)).sight(),
            Sight::Nothing
        );
    }

    #[test]
    fn metric_reads_what_it_prints() {
        for metric in Metric::ALL {
            assert_eq!(Metric::parse(metric.as_str()), Some(metric));
        }
        assert_eq!(Metric::parse("latency_p42"), None);
    }
}
