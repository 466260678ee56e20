//! One route with its guard and its kills, fed request by request as the proxy and the guard task would, with the invariants
//! that hold after each.

use std::time::Duration;

use understudy::engine::guard::{
    Action, Budget, Effect, HELD_LIMIT, KillSet, KillTarget, Metric, Outcome, Rearmed, Relation, RouteGuard, Run,
    Tolerance, Trip,
};
use understudy::engine::vocab::{Epoch, RouteKey, Side, SubjectHash};

use crate::random::Random;

/// Who serves as long as nothing is killed or held.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Phase {
    /// Legacy serves, new gets copies.
    Shadow,
    /// New serves, legacy gets copies.
    Reverse,
    /// New serves alone; legacy answers what new failed at.
    Live,
}

pub struct World {
    pub random: Random,
    pub now: Duration,
    pub guard: RouteGuard,
    pub kills: KillSet,
    pub trips: Vec<Trip>,
    pub requests: u64,
    since_rearm: u64,
    /// Looking at everything takes longer than the step itself: in a long run it is looked at this often.
    full_check_every: u64,
}

pub fn route() -> RouteKey {
    RouteKey::parse("whatsapp").expect("a key")
}

pub fn budgets(action: Action) -> [Budget; 2] {
    [("errors", Metric::ErrorRate), ("slow", Metric::LatencyP95)].map(|(name, metric)| Budget {
        name: name.into(),
        metric,
        tolerate: Tolerance::DEFAULT,
        action,
        ok: Vec::new(),
    })
}

/// Spreads small numbers over the hashes, as the keyed hash does.
pub fn subject(n: u64) -> SubjectHash {
    SubjectHash(Random::new(n).word())
}

impl World {
    pub fn new(seed: u64, budgets: &[Budget]) -> Self {
        Self {
            random: Random::new(seed),
            now: Duration::ZERO,
            guard: RouteGuard::new(route(), budgets),
            kills: KillSet::default(),
            trips: Vec::new(),
            requests: 0,
            since_rearm: 0,
            full_check_every: 1,
        }
    }

    pub fn for_a_long_run(mut self) -> Self {
        self.full_check_every = 200;
        self
    }

    /// One request of this subject with these runs, as far as either side is asked. Copies go on for what is killed or held.
    pub fn request(&mut self, phase: Phase, subject: Option<SubjectHash>, [legacy, new]: [Run; 2]) -> Option<Trip> {
        let held = subject.is_some_and(|subject| self.kills.is_held(&route(), subject));
        let to_legacy = held || self.kills.route_killed(&route()) || phase == Phase::Shadow;
        let failed = new.failure.is_some() || new.status.is_some_and(|status| status >= 500);
        let (served, relation) = match phase {
            _ if to_legacy => (Side::Legacy, Relation::Pair),
            Phase::Live if failed => (Side::New, Relation::Failover),
            Phase::Live => (Side::New, Relation::Alone),
            Phase::Reverse | Phase::Shadow => (Side::New, Relation::Pair),
        };
        self.observe(Outcome {
            at: self.now,
            epoch: self.kills.epoch(&route()),
            subject,
            served,
            by_percent: true,
            new: Some(new),
            legacy: (relation != Relation::Alone).then_some(legacy),
            relation,
            horizon: Duration::from_secs(5),
        })
    }

    /// One outcome, whatever it is; a trip is in force before the next.
    pub fn observe(&mut self, outcome: Outcome) -> Option<Trip> {
        let (killed, held) = (self.kills.route_killed(&route()), self.kills.held_count(&route()));
        let trip = self.guard.observe(&outcome);
        self.requests += 1;
        self.since_rearm += 1;
        if let Some(trip) = &trip {
            assert!(!killed, "a killed route tripped: {trip}");
            assert_eq!(trip.epoch, self.kills.epoch(&route()));
            assert!(trip.evidence.value >= trip.evidence.threshold, "{trip}");
            assert!(trip.numbers.new_failed >= 16, "{trip}");
            assert!(trip.subjects.is_sorted_by(|a, b| a < b), "{trip:?}");
            assert_eq!(outcome.epoch, trip.epoch, "a late result tripped");
            let changed = self.kills.apply(trip, 0);
            assert_eq!(changed.is_empty(), trip.effect == Effect::Alert, "{trip}");
            self.guard.follow(&self.kills);
            assert_eq!(self.kills.route_killed(&route()), trip.effect == Effect::Kill);
            let more = if trip.effect == Effect::Hold {
                trip.subjects.len()
            } else {
                0
            };
            assert_eq!(self.kills.held_count(&route()), held + more);
            self.trips.push(trip.clone());
        }
        if trip.is_some() || self.requests.is_multiple_of(self.full_check_every) {
            self.check();
        }
        trip
    }

    pub fn rearm(&mut self, target: &KillTarget) -> Rearmed {
        let before = self.kills.epoch(&route());
        let rearmed = self.kills.rearm(target, "repaired", "anna", 0);
        self.guard.follow(&self.kills);
        if self.kills.epoch(&route()) > before {
            self.since_rearm = 0;
        }
        self.check();
        rearmed
    }

    pub fn rearm_route(&mut self) {
        self.rearm(&KillTarget::Route(route()));
        assert!(!self.kills.route_killed(&route()) && self.kills.held_count(&route()) == 0);
    }

    pub fn epoch(&self) -> Epoch {
        self.kills.epoch(&route())
    }

    fn check(&self) {
        let status = self.guard.status();
        assert_eq!(status.killed, self.kills.route_killed(&route()));
        assert_eq!(status.held, self.kills.held_count(&route()));
        assert!(status.held <= HELD_LIMIT);
        assert_eq!(status.epoch, self.epoch());
        assert_eq!(status.tally.outcomes, self.since_rearm);
        assert!(status.tally.pairs + status.tally.failovers <= status.tally.outcomes);
        assert!(status.tally.new_served + status.tally.new_shadowed <= status.tally.outcomes);
        for budget in &status.budgets {
            for evidence in [budget.path, budget.subjects].into_iter().flatten() {
                assert!((0.0..evidence.threshold + 1.2).contains(&evidence.value), "{budget:?}");
            }
            assert!(budget.numbers.pairs <= status.tally.pairs && budget.numbers.failovers <= status.tally.failovers);
        }
    }
}
