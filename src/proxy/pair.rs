//! One exchange's runs on their way to those who judge them.
//!
//! The served run ends on a worker, the copy's on the shadow's thread; whichever is last hands the closed exchange
//! over: its outcome to the guard, both answers to the review if they are to be compared.

use std::sync::{Arc, Mutex, PoisonError};

use crate::engine::guard::{Outcome, Relation, Run};
use crate::engine::pairing::{Closed, Pairing, Ran};
use crate::engine::vocab::{Epoch, ExchangeId, Side, SubjectHash};
use crate::live::Live;
use crate::live::intake::{Exchange, KeptAnswer, Report};
use crate::live::snapshot::{LiveRoute, Snapshot};
use crate::live::tally::{NotCompared, Skipped};
use crate::telemetry::clock;

/// The runs of one request, shared by all who work on it.
#[derive(Debug)]
pub struct Pair {
    /// The exchange.
    pub id: ExchangeId,
    /// The route that took it.
    pub route: Arc<LiveRoute>,
    /// The life of the route's kill switch in which it was decided.
    pub epoch: Epoch,
    /// Whom it is for.
    pub subject: Option<SubjectHash>,
    /// The side that was to serve it.
    pub served: Side,
    /// Whether only chance put it there.
    pub by_percent: bool,
    /// Whether the two answers are to be compared.
    pub compared: bool,
    live: Arc<Live>,
    snapshot: Arc<Snapshot>,
    shard: usize,
    runs: Mutex<Pairing<Box<KeptAnswer>>>,
}

/// What [`Pair::new`] needs to know of a decision.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    /// See [`Pair::epoch`].
    pub epoch: Epoch,
    /// See [`Pair::subject`].
    pub subject: Option<SubjectHash>,
    /// See [`Pair::served`].
    pub served: Side,
    /// See [`Pair::by_percent`].
    pub by_percent: bool,
    /// See [`Pair::compared`].
    pub compared: bool,
    /// Whether the other side is to get a copy.
    pub copied: bool,
}

impl Pair {
    /// The exchange `id` of a request that has been decided.
    #[must_use]
    pub fn new(
        live: &Arc<Live>,
        shard: usize,
        snapshot: &Arc<Snapshot>,
        route: &Arc<LiveRoute>,
        id: ExchangeId,
        facts: Facts,
    ) -> Arc<Self> {
        Arc::new(Self {
            id,
            route: Arc::clone(route),
            epoch: facts.epoch,
            subject: facts.subject,
            served: facts.served,
            by_percent: facts.by_percent,
            compared: facts.compared,
            live: Arc::clone(live),
            snapshot: Arc::clone(snapshot),
            shard,
            runs: Mutex::new(Pairing::new(facts.served, facts.copied)),
        })
    }

    /// See [`Pairing::send_copy`].
    #[must_use]
    pub fn send_copy(&self) -> bool {
        self.with(Pairing::send_copy)
    }

    /// See [`Pairing::fail_over`].
    #[must_use]
    pub fn fail_over(&self) -> bool {
        self.with(Pairing::fail_over)
    }

    /// The run of the side that was to serve is over.
    pub fn served(&self, run: Run, answer: Option<Box<KeptAnswer>>) {
        self.book(self.shard, self.served, &run);
        let closed = self.with(|runs| runs.served(Ran { run, answer }));
        self.hand_over(closed);
    }

    /// The live run of the side that was asked by failover is over.
    pub fn failed_over(&self, run: Run) {
        self.book(self.shard, self.served.other(), &run);
        let closed = self.with(|runs| runs.failed_over(Ran { run, answer: None }));
        self.hand_over(closed);
    }

    /// The client left before the side that was to serve it had answered.
    pub fn abandoned(&self) {
        self.served(Run::cancelled(), None);
    }

    /// The client left before the side that was asked by failover had answered.
    pub fn abandoned_failover(&self) {
        self.failed_over(Run::cancelled());
    }

    /// Whether the answer of the side that was to serve was short enough to be kept whole; `None` while it is not there, and
    /// where it was not kept.
    #[must_use]
    pub fn served_in_short(&self) -> Option<bool> {
        self.with(|runs| {
            let answer = runs.served_run()?.answer.as_ref()?;
            Some(answer.body.is_some())
        })
    }

    /// The copy's run is over.
    pub fn copied(&self, run: Run, answer: Option<Box<KeptAnswer>>) {
        self.book(self.live.shadow_shard(), self.served.other(), &run);
        let closed = self.with(|runs| runs.copied(Ran { run, answer }));
        self.hand_over(closed);
    }

    /// The copy will not be sent, for this reason; counted once.
    pub fn drop_copy(&self, shard: usize, why: Skipped) {
        self.route.tally(shard).skipped[self.served.other().index()].add(why);
        let closed = self.with(Pairing::copy_dropped);
        self.hand_over(closed);
    }

    fn book(&self, shard: usize, side: Side, run: &Run) {
        if run.cancelled {
            return;
        }
        let tally = self.route.tally(shard);
        if let Some(latency) = run.latency {
            tally.latency[side.index()].record(latency);
        }
        if side == Side::New {
            let published = run.failure.is_none()
                && run
                    .status
                    .is_some_and(|status| status == 101 || (200..300).contains(&status));
            tally.published[usize::from(!published)].add();
        }
    }

    fn with<T>(&self, act: impl FnOnce(&mut Pairing<Box<KeptAnswer>>) -> T) -> T {
        act(&mut self.runs.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn hand_over(&self, closed: Option<Closed<Box<KeptAnswer>>>) {
        let Some(closed) = closed else { return };
        let (legacy, new) = (closed.legacy, closed.new);
        if new.is_none() && legacy.as_ref().is_none_or(|ran| ran.run.cancelled) {
            return;
        }
        let outcome = Outcome {
            at: clock::monotonic(),
            epoch: self.epoch,
            subject: self.subject,
            served: self.served,
            by_percent: self.by_percent,
            relation: closed.relation,
            legacy: legacy.as_ref().map(|ran| ran.run),
            new: new.as_ref().map(|ran| ran.run),
            horizon: self.route.horizon,
        };
        self.live.intake.report(
            self.shard,
            Report {
                route: self.route.id,
                outcome,
            },
        );
        if !self.compared {
            return;
        }
        let answers = (legacy.and_then(|ran| ran.answer), new.and_then(|ran| ran.answer));
        let (Some(legacy), Some(new)) = answers else {
            if let (Some(legacy), Some(new)) = (outcome.legacy, outcome.new) {
                // A run that ended well kept its answer, unless there was no memory for it or another took its place.
                let ended_well = |run: Run| run.failure.is_none() && !run.cancelled;
                let whole =
                    closed.relation == Relation::Pair && !closed.replaced && ended_well(legacy) && ended_well(new);
                let refused = |run: Run| run.cancelled && run.status == Some(431);
                let why = if whole {
                    NotCompared::Memory
                } else if refused(legacy) || refused(new) {
                    NotCompared::HeadTooLong
                } else {
                    NotCompared::RunFailed
                };
                self.route.tally(self.shard).not_compared.add(why);
            }
            return;
        };
        let exchange = Exchange {
            id: self.id,
            snapshot: Arc::clone(&self.snapshot),
            route: Arc::clone(&self.route),
            subject: self.subject,
            served: self.served,
            unix_ms: clock::unix_ms(),
            legacy,
            new,
        };
        if !self.live.intake.compare(exchange) {
            self.route.tally(self.shard).not_compared.add(NotCompared::Overload);
        }
    }
}
