//! Outcomes in, trips out: the one task that feeds the guards.
//!
//! A trip is in force, in memory, before the next outcome is looked at. The guards follow the kill switches: they are
//! silent on a route that is killed, and start anew when it is re-armed.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use crate::engine::guard::{Effect, RouteGuard, Trip};
use crate::engine::vocab::{Revision, RouteKey, Side};
use crate::live::Live;
use crate::live::intake::Report;
use crate::live::snapshot::{LiveRoute, RouteId};
use crate::live::tally::LATENCY_BOUNDS_MS;
use crate::telemetry::{clock, names};

/// How often what the guards say is made visible.
const SHOWN_EVERY: Duration = Duration::from_millis(200);

/// How often legacy's 99th percentile is taken.
const PERCENTILE_EVERY: Duration = Duration::from_secs(10);

/// Answers of legacy that a percentile is taken from, at least.
const PERCENTILE_FROM: u64 = 200;

struct Judge {
    live: Arc<Live>,
    guards: HashMap<RouteId, RouteGuard>,
    routes: Vec<Arc<LiveRoute>>,
    revision: Option<Revision>,
    shown: Duration,
    percentiles: Duration,
    latencies: HashMap<RouteId, [u64; LATENCY_BOUNDS_MS.len() + 1]>,
}

/// Judges until it is aborted.
pub async fn run(live: Arc<Live>) {
    let mut kills = live.kills.watch();
    let mut reports: Vec<Report> = Vec::new();
    let mut judge = Judge {
        live: Arc::clone(&live),
        guards: HashMap::new(),
        routes: Vec::new(),
        revision: None,
        shown: Duration::ZERO,
        percentiles: Duration::ZERO,
        latencies: HashMap::new(),
    };
    loop {
        live.intake.wait().await;
        judge.follow_rules();
        if kills.has_changed().unwrap_or(false) {
            kills.mark_unchanged();
            judge.follow_kills();
        }
        live.intake.drain(&mut reports);
        for report in reports.drain(..) {
            judge.look_at(&report);
        }
        judge.show();
    }
}

impl Judge {
    fn follow_rules(&mut self) {
        let Some(snapshot) = self.live.snapshot() else { return };
        if self.revision.replace(snapshot.rules.revision) == Some(snapshot.rules.revision) {
            return;
        }
        for route in &snapshot.routes {
            let Some(index) = route.index else { continue };
            let rules = snapshot.rules.route(index);
            let fresh = || RouteGuard::new(route.key.clone(), &rules.spec.budgets);
            self.guards
                .entry(route.id)
                .or_insert_with(fresh)
                .retune(&rules.spec.budgets);
        }
        self.routes.clone_from(&snapshot.routes);
        let alive: Vec<RouteId> = self.routes.iter().map(|route| route.id).collect();
        self.guards.retain(|id, _| alive.contains(id));
        self.follow_kills();
    }

    fn follow_kills(&mut self) {
        self.live
            .kills
            .read(|kills| self.guards.values_mut().for_each(|guard| guard.follow(kills)));
        self.shown = Duration::ZERO;
    }

    fn look_at(&mut self, report: &Report) {
        let Some(guard) = self.guards.get_mut(&report.route) else {
            return;
        };
        if let Some(trip) = guard.observe(&report.outcome) {
            let killed = self.live.kills.change(|kills| kills.apply(&trip, clock::unix_ms()));
            self.live.kills.read(|kills| guard.follow(kills));
            self.shown = Duration::ZERO;
            if trip.effect == Effect::Alert || !killed.is_empty() {
                announce(&self.live, &trip);
            }
        }
    }

    fn show(&mut self) {
        let now = clock::monotonic();
        if now.saturating_sub(self.percentiles) >= PERCENTILE_EVERY {
            self.percentiles = now;
            self.take_percentiles();
        }
        if !self.shown.is_zero() && now.saturating_sub(self.shown) < SHOWN_EVERY {
            return;
        }
        self.shown = now;
        let shown: BTreeMap<RouteKey, _> = self
            .routes
            .iter()
            .filter_map(|route| Some((route.key.clone(), self.guards.get(&route.id)?.status())))
            .collect();
        self.live.health.set_guards(shown);
    }

    // The upper bound of the bucket that holds the 99th percentile of what legacy answered since the last time.
    fn take_percentiles(&mut self) {
        for (route, shards) in self.live.registry.routes() {
            let Some(live) = self.routes.iter().find(|live| live.key == route) else {
                continue;
            };
            let mut all = [0; LATENCY_BOUNDS_MS.len() + 1];
            for shard in shards.iter() {
                let (counts, _) = shard.latency[Side::Legacy.index()].read();
                all.iter_mut().zip(counts).for_each(|(sum, one)| *sum += one);
            }
            let before = self.latencies.entry(live.id).or_default();
            let recent: Vec<u64> = all
                .iter()
                .zip(before.iter())
                .map(|(now, then)| now.saturating_sub(*then))
                .collect();
            let total: u64 = recent.iter().sum();
            if total < PERCENTILE_FROM {
                continue;
            }
            *before = all;
            let mut below = 0;
            let at = recent.iter().position(|count| {
                below += count;
                below * 100 >= total * 99
            });
            let bound = at.and_then(|at| LATENCY_BOUNDS_MS.get(at)).copied().unwrap_or(f64::MAX);
            #[allow(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a bound in whole milliseconds"
            )]
            live.legacy_p99.store(bound.min(3_600_000.0) as u64, Relaxed);
        }
    }
}

fn announce(live: &Live, trip: &Trip) {
    let (route, budget, reason) = (trip.route.as_str(), &*trip.budget, trip.to_string());
    let verdict = serde_json::to_string(&trip.line()).unwrap_or_default();
    match trip.effect {
        Effect::Alert => tracing::warn!(route, budget, reason, verdict, "a budget is used up"),
        Effect::Hold => {
            let subjects: Vec<String> = trip.subjects.iter().map(ToString::to_string).collect();
            let subjects = subjects.join(" ");
            tracing::error!(
                route,
                budget,
                reason,
                verdict,
                subjects,
                "subjects are held on legacy; `understudy rearm ROUTE --subject HASH` lifts one, `understudy rearm ROUTE` all"
            );
        }
        Effect::Kill => {
            live.exporter
                .count(names::KILLS, &[("flag", ""), ("reason", "guard"), ("route", route)]);
            tracing::error!(
                route,
                budget,
                reason,
                verdict,
                "the new path was taken out; see `understudy status`, mend it, then `understudy rearm ROUTE`"
            );
        }
    }
}
