//! What a change would do to requests as they came lately.

use serde::{Deserialize, Serialize};

/// The answer of a dry run, told by real requests: the newest that each worker keeps, decided once by the rules in force and
/// once by those of the change, at the same instant and under the kills in force.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WhatIf {
    /// The routes of which there are requests, by name. Empty: nobody asked yet, so nothing can be said.
    pub routes: Vec<WouldMove>,
    /// What the change means that one may not have meant.
    pub traps: Vec<String>,
}

/// What would become of a route's requests.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WouldMove {
    /// The route.
    pub route: String,
    /// How many requests were decided by both rules.
    pub requests: usize,
    /// Requests of which nothing can be said: the change asks for attributes that no flag asked for when they came.
    pub unknown: usize,
    /// How many different subjects the others name.
    pub subjects: usize,
    /// Subjects that legacy serves now, and new would.
    pub to_new: Moved,
    /// Subjects that new serves now, and legacy would.
    pub to_legacy: Moved,
    /// The share of the requests that new serves, in percent.
    pub served_by_new_percent: BeforeAfter,
    /// What new has to do, copies included, in percent of the requests.
    pub load_on_new_percent: BeforeAfter,
    /// The requests that would move, by the reasons of both decisions.
    pub reasons: Vec<Reasons>,
}

/// Subjects that would move.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moved {
    /// How many.
    pub subjects: usize,
    /// Some of them, as `h:` and 16 hex digits.
    pub examples: Vec<String>,
}

/// A number under both rules.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct BeforeAfter {
    /// Under those in force.
    pub before: f64,
    /// Under those of the change.
    pub after: f64,
}

/// Requests that would move.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reasons {
    /// The reason under the rules in force.
    pub before: String,
    /// The reason under those of the change.
    pub after: String,
    /// How many.
    pub requests: usize,
}
