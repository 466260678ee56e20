//! A comparison while it is being made: what `diff` finds goes in one by one.
//!
//! Pure. Out: a [`Comparison`], judged. It lists no more than the rules allow, and counts everything.

use super::path::Place;
use super::rules::Rules;
use super::sample::Sample;
use super::verdict::{Comparison, Divergence, Kind, Severity, Suppression};

/// A [`Comparison`] while it is being made.
pub(super) struct Report<'r> {
    pub(super) rules: &'r Rules,
    pub(super) found: Comparison,
}

impl<'r> Report<'r> {
    pub(super) fn new(rules: &'r Rules) -> Self {
        Self {
            rules,
            found: Comparison::nothing(),
        }
    }

    /// Records one divergence; `place` and the samples are made only if it is listed.
    pub(super) fn record(
        &mut self,
        kind: Kind,
        severity: Severity,
        place: impl FnOnce() -> Place,
        samples: impl FnOnce() -> (Option<Sample>, Option<Sample>),
    ) {
        let count = &mut self.found.counts[severity.index()];
        *count = count.saturating_add(1);
        if self.found.divergences.len() < self.rules.listed() {
            let (legacy, new) = samples();
            self.found.divergences.push(Divergence {
                pointer: place(),
                kind,
                severity,
                legacy,
                new,
            });
        }
    }

    pub(super) fn suppress(&mut self, rule: usize) {
        let list = &mut self.found.suppressions;
        match list.binary_search_by_key(&rule, |suppression| suppression.rule) {
            Ok(at) => list[at].places = list[at].places.saturating_add(1),
            Err(at) => list.insert(at, Suppression { rule, places: 1 }),
        }
    }

    pub(super) fn finish(mut self) -> Comparison {
        self.found.judge();
        self.found
    }
}
