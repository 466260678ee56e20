//! Is the new path bad, and who is therefore kept away from it.
//!
//! Pure. In: [`Budget`]s from the configuration, one [`Outcome`] per request, the [`KillSet`] in force. Out: a [`Trip`] when a
//! budget's evidence is complete, and the state that forces legacy. Time is what the outcomes carry. Pairing runs, storing
//! kills and telling anybody belongs to the caller.
//!
//! The way through the files: [`Outcome`] → `judge` (what it says on one channel) → `fast_path` (the evidence of one budget)
//! → [`RouteGuard`] (all budgets of a route) → [`Trip`] → [`KillSet`].

mod breaker;
mod budget;
mod evidence;
mod fast_path;
mod judge;
mod kills;
mod outcome;
mod quantile;
mod route;
mod status;
mod subjects;
mod trip;

pub use breaker::{Breaker, OPENS_AFTER, PROBE_EVERY};
pub use budget::{Action, Budget, BudgetError, Metric, Sight, Tolerance};
pub use evidence::{Evidence, Numbers};
pub use kills::{Kill, KillSet, KillTarget, Killed, Rearmed};
pub use outcome::{Failure, Outcome, Relation, Run};
pub use route::RouteGuard;
pub use status::{BudgetState, BudgetStatus, RouteStatus, Tally};
pub use trip::{Cause, Detector, Effect, Trip, TripLine};

/// How many subjects of one route may be held; one more, and the route is killed instead.
pub const HELD_LIMIT: usize = 10_000;

#[cfg(test)]
mod tests;
