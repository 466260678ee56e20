//! The guard of one route: every outcome in, at most one trip out.
//!
//! Pure. In: [`Outcome`]s in the order in which they ended, and the [`KillSet`] whenever it changed. Out: [`Trip`]s, and
//! [`RouteStatus`] for whoever asks. Putting a trip in force is the caller's, before it observes the next outcome.

use std::time::Duration;

use super::HELD_LIMIT;
use super::budget::{Action, Budget, Sight, Tolerance};
use super::fast_path::{Accused, Alarm, ERRORS, FastPath, SLOWNESS};
use super::judge::{Exchange, Slack};
use super::kills::KillSet;
use super::outcome::{Outcome, Relation};
use super::quantile::Running;
use super::status::{BudgetState, BudgetStatus, RouteStatus, Tally};
use super::subjects::{Active, Subjects};
use super::trip::{Cause, Detector, Effect, Trip};
use crate::engine::vocab::{Epoch, RouteKey, Side, SubjectHash};

/// What judges a budget.
#[derive(Clone, Debug)]
enum Watch {
    Errors(FastPath),
    Median(Slack, FastPath),
    Nothing,
}

impl Watch {
    fn of(budget: &Budget) -> Self {
        let slack = match budget.tolerate {
            Tolerance::Added(added) => Slack::AddedMicros(added.as_secs_f64() * 1e6),
            Tolerance::Ratio(ratio) => Slack::Ratio(ratio),
            Tolerance::Max(_) | Tolerance::Rate(_) => return Watch::Nothing,
        };
        match budget.sight() {
            Sight::Errors => Watch::Errors(FastPath::new(ERRORS)),
            Sight::Median | Sight::TailByMedian => Watch::Median(slack, FastPath::new(SLOWNESS)),
            Sight::Nothing => Watch::Nothing,
        }
    }

    fn fast(&self) -> Option<&FastPath> {
        match self {
            Watch::Errors(fast) | Watch::Median(_, fast) => Some(fast),
            Watch::Nothing => None,
        }
    }

    fn fast_mut(&mut self) -> Option<&mut FastPath> {
        match self {
            Watch::Errors(fast) | Watch::Median(_, fast) => Some(fast),
            Watch::Nothing => None,
        }
    }
}

#[derive(Clone, Debug)]
struct Channel {
    budget: Budget,
    watch: Watch,
}

impl Channel {
    fn of(budget: &Budget) -> Self {
        Self {
            budget: budget.clone(),
            watch: Watch::of(budget),
        }
    }
}

/// The guard of one route.
///
/// Time per outcome is constant, about 90 ns and 30 ns per budget (`benches/guard.rs`); memory is 6 KB when idle, at most
/// 210 KB and 420 KB per budget however many subjects come by.
#[derive(Clone, Debug)]
pub struct RouteGuard {
    route: RouteKey,
    epoch: Epoch,
    killed: bool,
    held: Subjects,
    active: Active,
    legacy_latency: Running,
    new_latency: Running,
    tally: Tally,
    channels: Vec<Channel>,
}

impl RouteGuard {
    /// A guard that has seen nothing, in epoch 0 with nothing killed; [`RouteGuard::follow`] tells it what is in force.
    #[must_use]
    pub fn new(route: RouteKey, budgets: &[Budget]) -> Self {
        Self {
            route,
            epoch: Epoch::default(),
            killed: false,
            held: Subjects::default(),
            active: Active::default(),
            legacy_latency: Running::new(0.5),
            new_latency: Running::new(0.5),
            tally: Tally::default(),
            channels: budgets.iter().map(Channel::of).collect(),
        }
    }

    /// The route's budgets were edited: one that is as it was keeps its evidence, any other starts anew.
    pub fn retune(&mut self, budgets: &[Budget]) {
        let mut before = std::mem::take(&mut self.channels);
        let keep = |budget: &Budget| match before.iter().position(|channel| channel.budget == *budget) {
            Some(at) => before.swap_remove(at),
            None => Channel::of(budget),
        };
        self.channels = budgets.iter().map(keep).collect();
    }

    /// Takes over what is in force for this route: its epoch, whether it is killed, who is held.
    ///
    /// To be called whenever the kills changed, with a state in which every trip of this guard is already in force.
    pub fn follow(&mut self, kills: &KillSet) {
        let epoch = kills.epoch(&self.route);
        if epoch < self.epoch {
            return;
        }
        if epoch > self.epoch {
            self.rearm(epoch);
        }
        self.killed |= kills.route_killed(&self.route);
        let newly: Vec<SubjectHash> = kills
            .held(&self.route)
            .filter(|subject| !self.held.contains(subject))
            .collect();
        self.held.retain(|subject| kills.is_held(&self.route, *subject));
        self.hold(&newly);
    }

    fn rearm(&mut self, epoch: Epoch) {
        self.epoch = epoch;
        self.killed = false;
        self.held.clear();
        self.tally = Tally::default();
        for channel in &mut self.channels {
            channel.watch = Watch::of(&channel.budget);
        }
    }

    /// One more outcome; the trip it completes, if any.
    ///
    /// Several budgets may be used up by the same outcome. The gravest is answered first (a kill, then holding subjects, then
    /// an alert), the others by the next calls. A killed route does not trip again before its re-arm; an alert does not come
    /// again before its evidence was back at 0. An outcome of a newer epoch re-arms the guard, for only an operator can have
    /// started it.
    pub fn observe(&mut self, outcome: &Outcome) -> Option<Trip> {
        if outcome.epoch > self.epoch {
            self.rearm(outcome.epoch);
        }
        let exchange = Exchange::of(outcome);
        let held = outcome
            .subject
            .is_some_and(|subject| !self.held.is_empty() && self.held.contains(&subject));
        let late = outcome.epoch < self.epoch;
        self.count(outcome, &exchange, late, held);
        if exchange.new.is_some() {
            self.active.saw(outcome.subject, outcome.at);
        }
        if late || held {
            return None;
        }
        let median = self.legacy_latency.take(outcome.at);
        for Channel { budget, watch } in &mut self.channels {
            let (mark, fast) = match (watch, median) {
                (Watch::Errors(fast), _) => (exchange.errors(&budget.ok), fast),
                (Watch::Median(slack, fast), Some(median)) => (exchange.slowness(*slack, median, &budget.ok), fast),
                (Watch::Median(..), None) | (Watch::Nothing, _) => continue,
            };
            fast.add(mark, outcome.subject, outcome.at);
        }
        if exchange.relation == Relation::Pair {
            self.learn(&exchange);
        }
        if self.killed { None } else { self.trip(outcome.at) }
    }

    fn count(&mut self, outcome: &Outcome, exchange: &Exchange, late: bool, held: bool) {
        let new_served = exchange.new.is_some() && outcome.served == Side::New;
        let new_failed = exchange.new.is_some_and(|run| run.failed(&[]));
        let cancelled = [outcome.new, outcome.legacy].iter().flatten().any(|run| run.cancelled);
        let tally = &mut self.tally;
        for (count, one_more) in [
            (&mut tally.outcomes, true),
            (&mut tally.pairs, exchange.relation == Relation::Pair),
            (&mut tally.failovers, exchange.relation == Relation::Failover),
            (&mut tally.new_served, new_served),
            (&mut tally.new_served_by_percent, new_served && outcome.by_percent),
            (&mut tally.new_shadowed, exchange.new.is_some() && !new_served),
            (
                &mut tally.new_unseen,
                new_served && new_failed && exchange.relation == Relation::Alone,
            ),
            (&mut tally.new_failed, new_failed),
            (
                &mut tally.legacy_failed,
                exchange.legacy.is_some_and(|run| run.failed(&[])),
            ),
            (&mut tally.cancelled, cancelled),
            (&mut tally.late, late),
            (&mut tally.held, held),
        ] {
            *count += u64::from(one_more);
        }
    }

    /// Latencies of answers that are no failures, after they were judged: the limit comes from the past only.
    fn learn(&mut self, exchange: &Exchange) {
        for (run, latencies) in [
            (exchange.legacy, &mut self.legacy_latency),
            (exchange.new, &mut self.new_latency),
        ] {
            if let Some(micros) = run.filter(|run| !run.failed(&[])).and_then(|run| run.micros) {
                latencies.add(micros);
            }
        }
    }

    fn trip(&mut self, now: Duration) -> Option<Trip> {
        let gravity = |channel: &Channel| {
            let (accused, _) = channel.watch.fast()?.pending()?;
            Some(match (channel.budget.action, accused) {
                (Action::Kill, Accused::Path) => 2,
                (Action::Kill, Accused::Subjects) => 1,
                (Action::Alert, _) => 0,
            })
        };
        let pending = self.channels.iter().enumerate();
        let (_, gravest) = pending
            .filter_map(|(at, channel)| gravity(channel).map(|gravity| (gravity, at)))
            .reduce(|most, next| if next.0 > most.0 { next } else { most })?;
        self.act(gravest, now)
    }

    /// Takes the pending alarm of this channel.
    fn act(&mut self, channel: usize, now: Duration) -> Option<Trip> {
        let Channel { budget, watch } = self.channels.get_mut(channel)?;
        let fast = watch.fast_mut()?;
        let (accused, alarm) = fast.pending()?;
        let suspects = fast.suspects(&alarm);
        let Alarm {
            at, evidence, numbers, ..
        } = alarm;
        fast.taken();
        let kill = budget.action == Action::Kill;
        let (cause, subjects) = match (accused, suspects) {
            (Accused::Path, _) => (Cause::Path, Vec::new()),
            (Accused::Subjects, Some(subjects)) if !kill => (Cause::FewSubjects, subjects),
            (Accused::Subjects, Some(subjects)) if self.held.len() + subjects.len() <= HELD_LIMIT => {
                let would_be_held =
                    |subject: &SubjectHash| self.held.contains(subject) || subjects.binary_search(subject).is_ok();
                let anybody = self.active.anybody_but(would_be_held, now);
                (
                    if anybody {
                        Cause::FewSubjects
                    } else {
                        Cause::EverybodyHeld
                    },
                    subjects,
                )
            }
            (Accused::Subjects, _) => (Cause::TooManyHeld, Vec::new()),
        };
        let effect = match cause {
            _ if !kill => Effect::Alert,
            Cause::FewSubjects => Effect::Hold,
            Cause::EverybodyHeld | Cause::Path | Cause::TooManyHeld => Effect::Kill,
        };
        let (budget, metric) = (budget.name.clone(), budget.metric);
        let median = |running: &Running| running.current().map(|micros| Duration::from_secs_f64(micros / 1e6));
        let medians = metric
            .is_latency()
            .then(|| Some((median(&self.legacy_latency)?, median(&self.new_latency)?)))
            .flatten();
        match effect {
            Effect::Alert => {}
            Effect::Hold => self.hold(&subjects),
            Effect::Kill => self.killed = true,
        }
        let (epoch, route, detector) = (self.epoch, self.route.clone(), Detector::Fast);
        Some(Trip {
            at,
            epoch,
            route,
            budget,
            metric,
            detector,
            effect,
            cause,
            evidence,
            numbers,
            medians,
            subjects,
        })
    }

    fn hold(&mut self, subjects: &[SubjectHash]) {
        self.held.extend(subjects.iter().copied());
        for Channel { budget, watch } in &mut self.channels {
            // An alert that is due is still told.
            let due = budget.action == Action::Alert && watch.fast().is_some_and(|fast| fast.pending().is_some());
            if let Some(fast) = watch.fast_mut().filter(|_| !due) {
                fast.excuse_others(subjects);
            }
        }
    }

    /// What is known.
    #[must_use]
    pub fn status(&self) -> RouteStatus {
        let duration = |micros: f64| Duration::from_secs_f64(micros / 1e6);
        RouteStatus {
            route: self.route.clone(),
            epoch: self.epoch,
            killed: self.killed,
            held: self.held.len(),
            tally: self.tally,
            legacy_p50: self.legacy_latency.current().map(duration),
            new_p50: self.new_latency.current().map(duration),
            budgets: self
                .channels
                .iter()
                .map(|channel| self.budget_status(channel))
                .collect(),
        }
    }

    fn budget_status(&self, Channel { budget, watch }: &Channel) -> BudgetStatus {
        let judged = |fast: &FastPath| (fast.numbers().pairs.saturating_add(fast.numbers().failovers), 1);
        let (seen, needed) = (self.legacy_latency.seen(), self.legacy_latency.needed());
        let (have, need) = match watch {
            Watch::Median(..) if seen < needed => (seen, needed),
            Watch::Errors(fast) | Watch::Median(_, fast) => judged(fast),
            Watch::Nothing => (0, 0),
        };
        let fast = watch.fast();
        let state = match fast {
            None => BudgetState::Unjudged,
            Some(fast) if fast.alarmed() => BudgetState::Tripped,
            Some(_) if have < need => BudgetState::Collecting { have, need },
            Some(_) => BudgetState::Watching,
        };
        BudgetStatus {
            name: budget.name.clone(),
            metric: budget.metric,
            tolerate: budget.tolerate,
            action: budget.action,
            sight: budget.sight(),
            state,
            path: fast.map(|fast| fast.evidence(Accused::Path)),
            subjects: fast.map(|fast| fast.evidence(Accused::Subjects)),
            numbers: fast.map(FastPath::numbers).unwrap_or_default(),
        }
    }
}
