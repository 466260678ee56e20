//! How often a flag was asked.

use serde::{Deserialize, Serialize};

/// The answer of `GET /api/v1/feature-flags/{flag}/analytics` and of `.../stats`.
///
/// Counts are of evaluations, by requests of clients and over OFREP alike: a subject that comes often counts as often. They
/// are booked by the hour, so a period begins with a whole one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Analytics {
    /// The flag.
    pub flag: String,
    /// The beginning of the first hour that counts.
    pub from: String,
    /// The end of the period.
    pub to: String,
    /// Evaluations in the period.
    pub total_evaluations: u64,
    /// The same: another name for it.
    pub total_checks: u64,
    /// Of these, those that were on.
    pub enabled_count: u64,
    /// Of these, those that were off.
    pub disabled_count: u64,
    /// The share that was on, in percent; `null` where nobody asked.
    pub enabled_percentage: Option<f64>,
    /// The same from 0 to 1. It says how many were exposed, and nothing of what they did then.
    pub exposure_rate: Option<f64>,
    /// The last evaluation that is remembered, whatever the period.
    pub last_seen: Option<String>,
    /// Since when evaluations of it are counted, over restarts.
    pub counted_since: String,
    /// What the percentage should do, and what it did.
    pub distribution: Distribution,
    /// The hours in which somebody asked, the oldest first.
    pub hours: Vec<Hour>,
}

/// What the percentage of a flag should do, and what it did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Distribution {
    /// The percentage as it is set now; `null` where none is. Whoever changed it in the period compares two things.
    pub expected_percent: Option<f64>,
    /// The share that was on, in percent, among the evaluations that the percentage decided; `null` where it decided none.
    pub observed_percent: Option<f64>,
    /// How many evaluations the percentage decided.
    pub decided: u64,
}

/// One page of `GET /api/v1/feature-flags/stale`, in the order of their names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StaleFlags {
    /// The flags; one that is stale for two reasons stands there twice.
    pub items: Vec<StaleFlag>,
    /// The value of `after` that gives the next page; `null` on the last.
    pub next: Option<String>,
    /// After how many days without a change a flag is stale.
    pub after_days: u64,
}

/// A flag that has served its time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StaleFlag {
    /// Its key.
    pub flag: String,
    /// `always_off`, `always_on`, `past_end` or `unused`.
    pub reason: String,
    /// Since when nothing changed, nobody asked, or its date is over.
    pub since: String,
    /// Who answers for it, if it says so.
    pub owner: Option<String>,
    /// What to do about it.
    pub remedy: String,
}

/// One hour.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hour {
    /// When it began.
    pub from: String,
    /// Evaluations that were on.
    pub enabled_count: u64,
    /// Evaluations that were off.
    pub disabled_count: u64,
}
