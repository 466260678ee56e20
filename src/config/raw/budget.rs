//! One entry of `budgets:` as written, checked by the guard's own rules.
//!
//! Pure.

use std::sync::Arc;
use std::time::Duration;

use crate::engine::guard::{self, Action, Metric, Tolerance};
use crate::engine::ruleset::decode::{At, Decode, Decoder, Shape, record, words};
use crate::engine::ruleset::problem::{Place, near};
use crate::engine::ruleset::yaml::Node;

use super::scalar::{Name, Share};

record! {
    /// What a route's operator tolerates on one channel.
    pub struct BudgetText {
        /// Named in every trip; unique within the route.
        name: At<Name>,
        /// What is measured.
        metric: MetricName,
        /// How much worse the new path may be.
        tolerate: At<Tolerate> = "{ ratio: 1.1 }",
        /// What a trip does.
        action: ActionName,
    }
    later: "count", "severity";
}

record! {
    /// How much worse the new path may be: exactly one of these.
    pub struct Tolerate {
        /// This many times what legacy does on the same requests: 1.1 is a tenth more. Above 0, at most 1000. It is
        /// what is tolerated, not what is found: only a disaster is, such as half of the requests failing or twice the
        /// time.
        ratio: Option<f64>,
        /// Slower than legacy on the same requests by this much. Latency only.
        added: Option<Duration>,
        /// An absolute share of failures. Errors only.
        rate: Option<Share>,
        /// An absolute limit on the percentile. Latency only.
        max: Option<Duration>,
    }
}

words! {
    /// What a trip does.
    pub enum ActionName {
        /// Somebody is told.
        Alert = "alert",
        /// The route is killed: legacy serves until somebody re-arms it.
        Kill = "kill",
    }
    later: "freeze";
}

/// One of the metrics of this version.
#[derive(Clone, Copy, Debug)]
pub struct MetricName(Metric);

impl Decode for MetricName {
    fn decode(node: &Node<'_>, decoder: &mut Decoder<'_>) -> Option<Self> {
        let known = Metric::ALL.map(Metric::as_str);
        let Some(text) = node.text() else {
            return decoder.expected_word(node, &known);
        };
        match Metric::parse(text) {
            Some(metric) => Some(Self(metric)),
            // Any other name is a counter's: the application reports its outcomes under it.
            None if near(text, known).is_none() => decoder.later_word(node),
            None => decoder.expected_word(node, &known),
        }
    }

    fn shape() -> Shape {
        let doc = |metric| match metric {
            Metric::ErrorRate => "Failed answers, and worse status classes than legacy gave.",
            Metric::LatencyP50 => "The time that half of the answers stay below.",
            Metric::LatencyP95 => "The time that 95 % of the answers stay below.",
            Metric::LatencyP99 => "The time that 99 % of the answers stay below.",
        };
        Shape::words(Metric::ALL.map(|metric| (metric.as_str(), doc(metric))))
    }
}

/// A checked budget; the statuses that are fine are the route's.
#[derive(Clone, Debug)]
pub struct Budget {
    /// As the guard takes it.
    pub budget: guard::Budget,
    /// Where its name stands.
    pub place: Place,
}

impl Decode for Budget {
    fn decode(node: &Node<'_>, decoder: &mut Decoder<'_>) -> Option<Self> {
        let BudgetText {
            name,
            metric: MetricName(metric),
            tolerate,
            action,
        } = BudgetText::decode(node, decoder)?;
        let Tolerate {
            ratio,
            added,
            rate,
            max,
        } = tolerate.value;
        let given = [
            ratio.map(Tolerance::Ratio),
            added.map(Tolerance::Added),
            rate.map(|Share(rate)| Tolerance::Rate(rate)),
            max.map(Tolerance::Max),
        ];
        let mut given = given.into_iter().flatten();
        let (Some(tolerate_as), None) = (given.next(), given.next()) else {
            let remedy = "write exactly one of ratio, added, rate, max: `{ ratio: 1.1 }`";
            return decoder.refuse_at(tolerate.place, "a budget tolerates one thing", remedy);
        };
        let action = match action {
            ActionName::Alert => Action::Alert,
            ActionName::Kill => Action::Kill,
        };
        let budget = guard::Budget {
            name: Arc::from(name.value.0),
            metric,
            tolerate: tolerate_as,
            action,
            ok: Vec::new(),
        };
        match budget.check() {
            Ok(()) => Some(Self {
                budget,
                place: name.place,
            }),
            Err(error) => decoder.refuse_at(tolerate.place, error.to_string(), ""),
        }
    }

    fn shape() -> Shape {
        BudgetText::shape()
    }
}
