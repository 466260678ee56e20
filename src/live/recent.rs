//! When what should not happen last did, by route.
//!
//! Counters say how often since the start; whoever is called at night asks whether it goes on. Nobody stamps a counter:
//! [`Recent::look`] compares each with what it was at the last look, so an instant is as exact as looks are frequent.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use super::Live;
use super::tally::{Failover, Label, Made, RouteTally};
use crate::engine::compare::Severity;
use crate::engine::vocab::RouteKey;

/// Made because a backend gave no answer.
const WITHOUT_ANSWER: [Made; 6] = [
    Made::ConnectFailed,
    Made::ConnectTimeout,
    Made::Malformed,
    Made::Overload,
    Made::Reset,
    Made::Timeout,
];

/// A count as it was, and when it last rose.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    count: u64,
    rose: Option<i64>,
}

impl Seen {
    fn look(&mut self, count: u64, unix_ms: i64) {
        if count > self.count {
            self.rose = Some(unix_ms);
        }
        // What a re-arm forgets begins at 0 again.
        self.count = count;
    }
}

/// See the module.
#[derive(Debug, Default)]
pub struct Recent {
    routes: Mutex<BTreeMap<RouteKey, [Seen; 5]>>,
}

impl Recent {
    /// Compares all counters with what they were.
    pub fn look(&self, live: &Live, unix_ms: i64) {
        let (guards, compared) = (live.health.guards(), live.health.compared());
        let mut routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        for (route, shards) in live.registry.routes() {
            let sum = |of: &dyn Fn(&RouteTally) -> u64| shards.iter().map(of).fold(0, u64::saturating_add);
            let made = WITHOUT_ANSWER
                .iter()
                .map(|made| sum(&|tally| tally.made.value(*made)))
                .sum();
            let failovers = Failover::ALL
                .iter()
                .map(|class| sum(&|tally| tally.failovers.value(*class)))
                .sum();
            let unseen = guards.get(&route).map_or(0, |guard| guard.tally.new_unseen);
            let differed = |severity: Severity| {
                compared
                    .get(&route)
                    .map_or(0, |found| found.severities[severity.index()])
            };
            let (critical, major) = (differed(Severity::Critical), differed(Severity::Major));
            let seen = routes.entry(route).or_default();
            for (seen, count) in seen.iter_mut().zip([made, unseen, failovers, critical, major]) {
                seen.look(count, unix_ms);
            }
        }
    }

    /// Milliseconds since 1970 at which these last rose: answers made for want of one, failures of new that no budget saw,
    /// failovers, critical differences, major ones.
    pub fn of(&self, route: &RouteKey) -> [Option<i64>; 5] {
        let routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        routes.get(route).map_or([None; 5], |seen| seen.map(|seen| seen.rose))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn count_is_stamped_when_it_rises_and_not_when_it_is_forgotten() {
        let mut seen = Seen::default();
        let rose: Vec<_> = [(0, 1), (3, 2), (3, 9), (0, 10), (1, 11)]
            .map(|(count, at)| {
                seen.look(count, at);
                seen.rose
            })
            .to_vec();
        assert_eq!(rose, [None, Some(2), Some(2), Some(2), Some(11)]);
    }
}
