//! The state in memory as the API shows it.
//!
//! In: what workers, judges and the store left behind. Out: `dto` values. Reads only; each part is taken at its own
//! instant, so two counters may disagree by the requests that came in between.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::dto::{
    self, Budget, Compared, Copied, Counts, Evidence, Freeze, Guard, Held, Kill, Last, Latency, PerSide, PlaceCount,
    Process, Route, Rules, Status, Store, Target, TargetKind, Traffic,
};
use super::readiness::{self, Facts};
use super::room::Room;
use super::serves::serves;
use crate::engine::compare::Severity;
use crate::engine::guard::{self, BudgetState, BudgetStatus, KillTarget, RouteStatus, Tolerance};
use crate::engine::ruleset::freeze::FreezeTarget;
use crate::engine::ruleset::{self, route::Switch};
use crate::engine::stats::stale::Stale;
use crate::engine::vocab::{FlagKey, Reason, RouteKey, Side};
use crate::live::divergences::Diverged;
use crate::live::health;
use crate::live::snapshot::{LiveRoute, Snapshot};
use crate::live::tally::{
    By, ClientError, Failover, Histogram, LATENCY_BOUNDS_MS, Label, Made, NotCompared, RouteTally, RunFailure, Skipped,
    StatusClass, Unidentified,
};
use crate::live::{Live, now};
use crate::store::StoreHealth;
use crate::telemetry::spawn;

/// Held subjects that are listed.
const HELD: usize = 100;

/// Places that are listed.
const PLACES: usize = 20;

/// What readiness is judged by.
pub(super) fn facts(room: &Room) -> Facts {
    let live = room.control.live();
    Facts {
        has_rules: live.snapshot().is_some(),
        draining: room.control.is_draining(),
        rules: live.health.rules(),
        state_unreadable: live.health.state_unreadable().is_some(),
        store: room.control.store_health(),
        outcomes_lost: live.intake.lost.value(),
        panics: spawn::panics(),
    }
}

/// The whole.
pub(super) fn status(room: &Room) -> Status {
    let live = room.control.live();
    let facts = facts(room);
    let snapshot = live.snapshot();
    let unix_ms = now().unix_ms;
    live.recent.look(live, unix_ms);
    let kills = live.kills.read(|kills| {
        kills
            .killed()
            .map(|(target, kill)| in_force(&target, kill))
            .collect::<Vec<_>>()
    });
    Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        started_at: instant(room.started_unix_ms),
        at: instant(unix_ms),
        readiness: readiness::readiness(&facts),
        routes: snapshot
            .as_deref()
            .map(|snapshot| routes(live, snapshot, unix_ms))
            .unwrap_or_default(),
        unrouted: snapshot
            .as_deref()
            .map(|snapshot| traffic(&shards(live, &snapshot.unrouted.key)))
            .unwrap_or_default(),
        rules: rules(facts.rules, snapshot.as_deref()),
        kills: kills
            .into_iter()
            .filter(|kill| kill.target.kind != TargetKind::Subject)
            .collect(),
        freezes: room
            .control
            .runtime()
            .freezes
            .iter()
            .map(|(target, of)| Freeze {
                target: frozen(target),
                reason: of.reason.to_string(),
                actor: of.actor.to_string(),
                since: instant(of.at_unix_ms),
            })
            .collect(),
        stale_flags: stale_flags(live),
        store: store(&facts.store, live.health.state_unreadable()),
        process: process(live, snapshot.as_deref()),
    }
}

/// What is frozen, as the API shows it.
pub(super) fn frozen(target: &FreezeTarget) -> Target {
    let (kind, name) = match target {
        FreezeTarget::All => (TargetKind::All, None),
        FreezeTarget::Flag(flag) => (TargetKind::Flag, Some(flag.to_string())),
        FreezeTarget::Route(route) => (TargetKind::Route, Some(route.to_string())),
    };
    Target {
        kind,
        name,
        subject: None,
    }
}

fn stale_flags(live: &Live) -> Counts {
    let counts = Stale::ALL.map(|stale| (stale.as_str().to_owned(), live.stale.count(stale) as u64));
    counts.into_iter().filter(|(_, count)| *count > 0).collect()
}

/// An instant as the API writes it.
pub(super) fn instant(unix_ms: i64) -> String {
    jiff::Timestamp::from_millisecond(unix_ms)
        .map(|at| at.to_string())
        .unwrap_or_default()
}

/// What can be killed, as the API names it.
pub(super) fn target(target: &KillTarget) -> Target {
    let (kind, name, subject) = match target {
        KillTarget::All => (TargetKind::All, None, None),
        KillTarget::Flag(flag) => (TargetKind::Flag, Some(flag.to_string()), None),
        KillTarget::Route(route) => (TargetKind::Route, Some(route.to_string()), None),
        KillTarget::Subject(route, subject) => {
            (TargetKind::Subject, Some(route.to_string()), Some(subject.to_string()))
        }
    };
    Target { kind, name, subject }
}

fn in_force(killed: &KillTarget, kill: &guard::Kill) -> Kill {
    Kill {
        target: target(killed),
        epoch: kill.epoch.0,
        reason: kill.reason.to_string(),
        actor: kill.actor.to_string(),
        since: instant(kill.at_unix_ms),
    }
}

fn rules(state: health::Rules, snapshot: Option<&Snapshot>) -> Rules {
    Rules {
        revision: snapshot.map(|snapshot| snapshot.rules.revision.0),
        environment: snapshot
            .map(|snapshot| snapshot.rules.environment().to_owned())
            .unwrap_or_default(),
        refused: state.refused,
        warnings: state.warnings,
        waits_for_restart: state.waits_for_restart,
        reloads_accepted: state.reloads[0],
        reloads_refused: state.reloads[1],
    }
}

fn store(health: &StoreHealth, unreadable: Option<String>) -> Store {
    Store {
        unreadable,
        kills_unstored: health.unstored_kills,
        kills_journaled: health.journaled_kills,
        unstored_since: health.since_unix_ms.map(instant),
        holds_lost: health.lost_holds,
        state_error: health.last_error.as_deref().map(str::to_owned),
        journal_error: health.journal_error.as_deref().map(str::to_owned),
        change_error: health.change_error.as_deref().map(str::to_owned),
    }
}

fn process(live: &Live, snapshot: Option<&Snapshot>) -> Process {
    let errors = |of: ClientError| live.workers.iter().map(|worker| worker.client_errors.value(of)).sum();
    let in_flight = |side: Side| snapshot.map_or(0, |snapshot| snapshot.backend(side).in_flight.load(Relaxed));
    Process {
        workers: live.workers.len(),
        connections: live.connections.iter().map(|open| open.load(Relaxed)).sum(),
        accepted: live.workers.iter().map(|worker| worker.accepted.value()).sum(),
        client_errors: counted(ClientError::ALL.iter().map(|of| (of.label(), errors(*of)))),
        capture_bytes: live.budget.used(),
        in_flight: PerSide {
            legacy: in_flight(Side::Legacy),
            new: in_flight(Side::New),
        },
        outcomes_lost: live.intake.lost.value(),
        panics: spawn::panics(),
    }
}

fn routes(live: &Live, snapshot: &Snapshot, unix_ms: i64) -> Vec<Route> {
    let (guards, compared_by_route) = (live.health.guards(), live.health.compared());
    let flag_kills = snapshot.flag_kills.load();
    let one = |route: &LiveRoute| {
        let rules = snapshot.rules.route(route.index?);
        let shards = shards(live, &route.key);
        let epoch = route.word.epoch();
        let guard = guards.get(&route.key).map(|guard| guard.clone().within(epoch));
        let guard = guard.as_ref();
        let (killed_by, held) = live.kills.read(|kills| {
            let all = [
                Some(KillTarget::All),
                flag_of(rules).map(KillTarget::Flag),
                Some(KillTarget::Route(route.key.clone())),
            ];
            let killed_by: Vec<Kill> = all
                .into_iter()
                .flatten()
                .filter_map(|target| Some((kills.find(&target).filter(|kill| kill.killed)?, target)))
                .map(|(kill, target)| in_force(&target, kill))
                .collect();
            let subjects = kills
                .held(&route.key)
                .take(HELD)
                .map(|subject| subject.to_string())
                .collect();
            (
                killed_by,
                Held {
                    count: kills.held_count(&route.key),
                    subjects,
                },
            )
        });
        Some(Route {
            name: route.key.to_string(),
            path: rules.spec.matcher.path.clone(),
            serves: serves(&snapshot.rules, rules, route.word.bits(), &flag_kills, unix_ms),
            epoch: epoch.0,
            killed_by,
            held,
            traffic: traffic(&shards),
            compared: compared(compared_by_route.get(&route.key), &shards),
            guard: guard.map(guard_of),
            latency: PerSide {
                legacy: latency(guard.and_then(|guard| guard.legacy_p50), &shards, Side::Legacy),
                new: latency(guard.and_then(|guard| guard.new_p50), &shards, Side::New),
            },
            last: last(live.recent.of(&route.key)),
        })
    };
    snapshot.routes.iter().filter_map(|route| one(route)).collect()
}

fn last(seen: [Option<i64>; 5]) -> Last {
    let [made, new_unseen, failovers, critical, major] = seen.map(|at| at.map(instant));
    Last {
        made,
        new_unseen,
        failovers,
        critical,
        major,
    }
}

fn flag_of(route: &ruleset::Route) -> Option<FlagKey> {
    match &route.spec.flag {
        Switch::Flag(key, _) => Some(key.clone()),
        Switch::Constant(_) => None,
    }
}

/// What keeps a re-armed thing on legacy all the same.
pub(super) fn still_on_legacy(room: &Room, rearmed: &KillTarget) -> Vec<String> {
    let live = room.control.live();
    let Some(snapshot) = live.snapshot() else {
        return Vec::new();
    };
    let mut warnings = Vec::new();
    if live.health.state_unreadable().is_some() {
        warnings.push("legacy answers everything until a restart that can read the state".to_owned());
    }
    let is_meant = |route: &ruleset::Route| match rearmed {
        KillTarget::All => true,
        KillTarget::Flag(flag) => flag_of(route).as_ref() == Some(flag),
        KillTarget::Route(key) | KillTarget::Subject(key, _) => route.key() == key,
    };
    let mut left = BTreeSet::new();
    live.kills.read(|kills| {
        for (_, route) in snapshot.rules.routes().filter(|(_, route)| is_meant(route)) {
            let covers = [
                Some(KillTarget::All),
                flag_of(route).map(KillTarget::Flag),
                Some(KillTarget::Route(route.key().clone())),
            ];
            left.extend(
                covers
                    .into_iter()
                    .flatten()
                    .filter(|cover| kills.find(cover).is_some_and(|kill| kill.killed)),
            );
        }
    });
    warnings.extend(left.into_iter().map(|cover| format!("still killed: {cover}")));
    warnings
}

type Shards = Arc<[RouteTally]>;

/// The counters of a route, which exist as soon as rules with it were published.
fn shards(live: &Live, key: &RouteKey) -> Shards {
    let found = live.registry.routes().into_iter().find(|(known, _)| known == key);
    found.map_or_else(|| [].into(), |(_, shards)| shards)
}

fn counted<'w>(counts: impl Iterator<Item = (&'w str, u64)>) -> Counts {
    counts
        .filter(|(_, count)| *count > 0)
        .map(|(word, count)| (word.to_owned(), count))
        .collect()
}

fn by<L: Label, const N: usize>(shards: &Shards, of: impl Fn(&RouteTally) -> &By<N>) -> Counts {
    counted(
        L::ALL
            .iter()
            .map(|label| (label.label(), sum(shards, |tally| of(tally).value(*label)))),
    )
}

fn sum(shards: &Shards, of: impl Fn(&RouteTally) -> u64) -> u64 {
    shards.iter().map(of).fold(0, u64::saturating_add)
}

fn traffic(shards: &Shards) -> Traffic {
    let sides = |of: &dyn Fn(usize) -> Counts| PerSide {
        legacy: of(Side::Legacy.index()),
        new: of(Side::New.index()),
    };
    let copies = |side: Side| Copied {
        sent: sum(shards, |tally| tally.copies.value(side)),
        skipped: by::<Skipped, _>(shards, |tally| &tally.skipped[side.index()]),
    };
    let assigned = |side: Side| sum(shards, |tally| tally.assigned.value(side));
    Traffic {
        assigned: PerSide {
            legacy: assigned(Side::Legacy),
            new: assigned(Side::New),
        },
        reasons: by::<Reason, _>(shards, |tally| &tally.reasons),
        answered: sides(&|side| by::<StatusClass, _>(shards, |tally| &tally.answered[side])),
        failed: sides(&|side| by::<RunFailure, _>(shards, |tally| &tally.failed[side])),
        failovers: by::<Failover, _>(shards, |tally| &tally.failovers),
        copies: PerSide {
            legacy: copies(Side::Legacy),
            new: copies(Side::New),
        },
        made: by::<Made, _>(shards, |tally| &tally.made),
        without_identity: by::<Unidentified, _>(shards, |tally| &tally.unidentified),
    }
}

fn compared(found: Option<&health::Compared>, shards: &Shards) -> Compared {
    let none = health::Compared::default();
    let found = found.unwrap_or(&none);
    let mut places: Vec<PlaceCount> = Vec::new();
    let mut ranked: Vec<_> = found.places.iter().collect();
    ranked.sort_by_key(|((path, _), (severity, count))| (std::cmp::Reverse((*severity, *count)), path.clone()));
    for ((path, kind), (severity, count)) in ranked.into_iter().take(PLACES) {
        let (kind, severity) = (kind.as_str().to_owned(), severity.as_str().to_owned());
        places.push(PlaceCount {
            path: path.clone(),
            kind,
            severity,
            count: *count,
        });
    }
    let verdicts = ["same", "noise", "diverged", "incomparable"];
    Compared {
        verdicts: counted(verdicts.into_iter().zip(found.verdicts)),
        not_compared: by::<NotCompared, _>(shards, |tally| &tally.not_compared),
        severities: counted(
            Severity::ALL
                .into_iter()
                .map(|s| (s.as_str(), found.severities[s.index()])),
        ),
        suppressed: found.suppressed,
        places,
        places_total: found.places.len(),
        elsewhere: found.elsewhere,
    }
}

#[allow(clippy::cast_precision_loss, reason = "a latency for a person to read")]
fn latency(pairs_p50: Option<Duration>, shards: &Shards, side: Side) -> Latency {
    let mut buckets = [0_u64; LATENCY_BOUNDS_MS.len() + 1];
    for shard in shards.iter() {
        let histogram: &Histogram = &shard.latency[side.index()];
        buckets
            .iter_mut()
            .zip(histogram.read().0)
            .for_each(|(all, one)| *all += one);
    }
    Latency {
        pairs_p50_ms: pairs_p50.map(|p50| p50.as_micros() as f64 / 1_000.0),
        all_p50_at_most_ms: median_bound(&buckets),
    }
}

/// The bound that half of what was counted does not exceed; none if nothing was, or if more than half exceeds the last.
fn median_bound(buckets: &[u64]) -> Option<f64> {
    let total: u64 = buckets.iter().sum();
    let half = total.div_ceil(2);
    let mut below = 0;
    let at = buckets.iter().position(|count| {
        below += count;
        below >= half
    })?;
    LATENCY_BOUNDS_MS.get(at).copied().filter(|_| total > 0)
}

fn guard_of(status: &RouteStatus) -> Guard {
    let tally = status.tally;
    Guard {
        outcomes: tally.outcomes,
        pairs: tally.pairs,
        failovers: tally.failovers,
        new_served: tally.new_served,
        new_shadowed: tally.new_shadowed,
        new_unseen: tally.new_unseen,
        new_failed: tally.new_failed,
        legacy_failed: tally.legacy_failed,
        no_evidence: tally.cancelled.saturating_add(tally.late).saturating_add(tally.held),
        budgets: status.budgets.iter().map(budget).collect(),
    }
}

fn budget(status: &BudgetStatus) -> Budget {
    let evidence = |of: guard::Evidence| Evidence {
        value: of.value,
        threshold: of.threshold,
    };
    let (have, need) = match status.state {
        BudgetState::Collecting { have, need } => (Some(have), Some(need)),
        BudgetState::Tripped | BudgetState::Unjudged | BudgetState::Watching => (None, None),
    };
    let amount = match status.tolerate {
        Tolerance::Added(time) | Tolerance::Max(time) => format!("{}ms", time.as_millis()),
        Tolerance::Rate(share) | Tolerance::Ratio(share) => share.to_string(),
    };
    Budget {
        name: status.name.to_string(),
        metric: status.metric.as_str().to_owned(),
        tolerate: format!("{}: {amount}", status.tolerate.as_str()),
        action: status.action.as_str().to_owned(),
        state: status.state.as_str().to_owned(),
        need,
        have,
        sight: status.sight.as_str().to_owned(),
        sight_detail: status.sight.sentence().to_owned(),
        path: status.path.map(evidence),
        subjects: status.subjects.map(evidence),
        pairs: status.numbers.pairs,
        failovers: status.numbers.failovers,
        new_failed: status.numbers.new_failed,
        legacy_failed: status.numbers.legacy_failed,
    }
}

/// One exchange whose answers differed; values by their shape, names that look like data as `*`.
pub(super) fn diverged(diverged: &Diverged) -> dto::Diverged {
    let places = diverged.differences.iter().map(|divergence| dto::Place {
        pointer: divergence.pointer.clone(),
        kind: divergence.kind.as_str().to_owned(),
        severity: divergence.severity.as_str().to_owned(),
        legacy: divergence.legacy.as_ref().map(ToString::to_string),
        new: divergence.new.as_ref().map(ToString::to_string),
    });
    dto::Diverged {
        seq: diverged.seq,
        at: instant(diverged.unix_ms),
        exchange: diverged.id.to_string(),
        route: diverged.route.to_string(),
        subject: diverged.subject.map(|subject| subject.to_string()),
        served: diverged.served.to_string(),
        legacy_status: diverged.statuses[0],
        new_status: diverged.statuses[1],
        worst: diverged.worst.as_str().to_owned(),
        total: diverged.total as usize,
        places: places.collect(),
    }
}
