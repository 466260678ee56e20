//! What judges and the control plane say of themselves, for status, readiness and metrics.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::engine::compare::{Kind, Severity, Verdict};
use crate::engine::guard::RouteStatus;
use crate::engine::vocab::RouteKey;

/// Places per route that are counted one by one; what differs elsewhere is counted together.
pub const PLACES: usize = 1_000;

/// What the review found on one route.
#[derive(Clone, Debug, Default)]
pub struct Compared {
    /// Exchanges by verdict: same, noise, diverged, incomparable.
    pub verdicts: [u64; 4],
    /// Exchanges that diverged, by their worst severity, indexed by [`Severity::index`].
    pub severities: [u64; 3],
    /// Differences that ignore rules suppressed.
    pub suppressed: u64,
    /// Divergences by path template and kind, with their severity and how often they were seen.
    pub places: BTreeMap<(String, Kind), (Severity, u64)>,
    /// Divergences at places beyond [`PLACES`].
    pub elsewhere: u64,
}

impl Compared {
    /// Books a verdict.
    pub fn verdict(&mut self, verdict: Verdict) {
        let at = match verdict {
            Verdict::Same => 0,
            Verdict::Noise => 1,
            Verdict::Diverged => 2,
            Verdict::Incomparable(_) => 3,
        };
        self.verdicts[at] += 1;
    }

    /// Books a place that differed.
    pub fn place(&mut self, template: String, kind: Kind, severity: Severity) {
        let full = self.places.len() >= PLACES;
        match self.places.entry((template, kind)) {
            std::collections::btree_map::Entry::Occupied(mut seen) => seen.get_mut().1 += 1,
            std::collections::btree_map::Entry::Vacant(_) if full => self.elsewhere += 1,
            std::collections::btree_map::Entry::Vacant(new) => {
                new.insert((severity, 1));
            }
        }
    }
}

/// The rules on disk, as against the rules in force.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// Problems of the newest rules on disk, one line each; empty while those are in force.
    pub refused: Vec<String>,
    /// Warnings of the rules in force.
    pub warnings: Vec<String>,
    /// Changes on disk that take effect at the next start only.
    pub waits_for_restart: Vec<String>,
    /// Reloads taken over, and refused.
    pub reloads: [u64; 2],
}

/// See the module.
#[derive(Debug, Default)]
pub struct Health {
    guards: Mutex<BTreeMap<RouteKey, RouteStatus>>,
    compared: Mutex<BTreeMap<RouteKey, Compared>>,
    rules: Mutex<Rules>,
    state: Mutex<Option<String>>,
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Health {
    /// What the guards of all routes say.
    pub fn guards(&self) -> BTreeMap<RouteKey, RouteStatus> {
        lock(&self.guards).clone()
    }

    /// Replaces what the guards say.
    pub fn set_guards(&self, guards: BTreeMap<RouteKey, RouteStatus>) {
        *lock(&self.guards) = guards;
    }

    /// What the review found, by route.
    pub fn compared(&self) -> BTreeMap<RouteKey, Compared> {
        lock(&self.compared).clone()
    }

    /// Books what the review found on a route.
    pub fn book(&self, route: &RouteKey, book: impl FnOnce(&mut Compared)) {
        let mut compared = lock(&self.compared);
        if let Some(known) = compared.get_mut(route) {
            book(known);
        } else {
            book(compared.entry(route.clone()).or_default());
        }
    }

    /// The rules' state.
    pub fn rules(&self) -> Rules {
        lock(&self.rules).clone()
    }

    /// Changes the rules' state.
    pub fn change_rules(&self, change: impl FnOnce(&mut Rules)) {
        change(&mut lock(&self.rules));
    }

    /// Why the state could not be read at the start, if so.
    pub fn state_unreadable(&self) -> Option<String> {
        lock(&self.state).clone()
    }

    /// Notes why the state could not be read.
    pub fn set_state_unreadable(&self, why: String) {
        *lock(&self.state) = Some(why);
    }
}
