//! What a route's guard knows, for whoever asks.
//!
//! Pure values, made by [`RouteGuard::status`](super::RouteGuard::status); the wire format belongs to the admin API.

use std::sync::Arc;
use std::time::Duration;

use super::budget::{Action, Metric, Sight, Tolerance};
use super::evidence::{Evidence, Numbers};
use crate::engine::vocab::{Epoch, RouteKey};

/// What was counted on a route since it was last re-armed. Late results are counted in the epoch in which they arrive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// All outcomes.
    pub outcomes: u64,
    /// Requests that both sides were meant to handle, and did or failed to.
    pub pairs: u64,
    /// Requests that legacy answered, or tried to, because new had failed.
    pub failovers: u64,
    /// Runs of new for which the client waited.
    pub new_served: u64,
    /// Of these, decided by the percent line.
    pub new_served_by_percent: u64,
    /// Runs of new that were copies.
    pub new_shadowed: u64,
    /// Runs of new for which the client waited and that failed, about which legacy was not asked: no budget sees them.
    pub new_unseen: u64,
    /// Runs of new that brought no answer, or 5xx.
    pub new_failed: u64,
    /// Runs of legacy that brought no answer, or 5xx.
    pub legacy_failed: u64,
    /// Outcomes with a run that was given up, which is no evidence.
    pub cancelled: u64,
    /// Outcomes that were decided in an older epoch: counted here, and no evidence.
    pub late: u64,
    /// Outcomes of held subjects: counted here, and no evidence.
    pub held: u64,
}

/// Where a budget stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BudgetState {
    /// Too little was seen to judge, which is neither good nor bad.
    Collecting {
        /// Pairs and failovers; for latency first answers of legacy in pairs, until its median is known.
        have: u64,
        /// How many it takes.
        need: u64,
    },
    /// Used up, and not yet recovered or re-armed.
    Tripped,
    /// No detector looks at it.
    Unjudged,
    /// Every outcome counts.
    Watching,
}

impl BudgetState {
    /// The word in status.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            BudgetState::Collecting { .. } => "collecting",
            BudgetState::Tripped => "tripped",
            BudgetState::Unjudged => "unjudged",
            BudgetState::Watching => "watching",
        }
    }
}

/// One budget.
#[derive(Clone, Debug, PartialEq)]
pub struct BudgetStatus {
    /// Its name.
    pub name: Arc<str>,
    /// What it measures.
    pub metric: Metric,
    /// How much worse the new path may be.
    pub tolerate: Tolerance,
    /// What a trip does.
    pub action: Action,
    /// What its detectors can see.
    pub sight: Sight,
    /// Where it stands.
    pub state: BudgetState,
    /// Against the new path, if a detector looks at it.
    pub path: Option<Evidence>,
    /// Against few subjects, if a detector looks at it.
    pub subjects: Option<Evidence>,
    /// What this channel counted since the re-arm.
    pub numbers: Numbers,
}

impl BudgetStatus {
    /// As it stands once everything counted so far is forgotten.
    fn forgotten(self) -> Self {
        let none = |evidence: Evidence| Evidence { value: 0.0, ..evidence };
        Self {
            state: match self.state {
                BudgetState::Unjudged => BudgetState::Unjudged,
                BudgetState::Collecting { need, .. } => BudgetState::Collecting { have: 0, need },
                BudgetState::Tripped | BudgetState::Watching => BudgetState::Collecting { have: 0, need: 1 },
            },
            path: self.path.map(none),
            subjects: self.subjects.map(none),
            numbers: Numbers::default(),
            ..self
        }
    }
}

/// One route.
#[derive(Clone, Debug, PartialEq)]
pub struct RouteStatus {
    /// The route.
    pub route: RouteKey,
    /// Its epoch.
    pub epoch: Epoch,
    /// No trip comes any more: the route is killed.
    pub killed: bool,
    /// How many subjects are held.
    pub held: usize,
    /// What was counted.
    pub tally: Tally,
    /// Half of legacy's answers in pairs are faster, within 3 %. `None` before the first.
    pub legacy_p50: Option<Duration>,
    /// Half of new's answers in pairs are faster, within 3 %. `None` before the first.
    pub new_p50: Option<Duration>,
    /// Its budgets, in the order of the configuration.
    pub budgets: Vec<BudgetStatus>,
}

impl RouteStatus {
    /// What is left of it in this epoch: a re-arm forgets what was counted, whether or not the guard has looked yet.
    #[must_use]
    pub fn within(self, epoch: Epoch) -> Self {
        if self.epoch >= epoch {
            return self;
        }
        Self {
            epoch,
            killed: false,
            held: 0,
            tally: Tally::default(),
            budgets: self.budgets.into_iter().map(BudgetStatus::forgotten).collect(),
            ..self
        }
    }
}
