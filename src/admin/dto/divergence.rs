//! The last exchanges whose answers differed.

use serde::{Deserialize, Serialize};

/// One page of `GET /api/v1/divergences`, newest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Divergences {
    /// The exchanges.
    pub items: Vec<Diverged>,
    /// The value of `before` that gives the next page; `null` on the last.
    pub next: Option<u64>,
    /// How many exchanges are remembered at most, over all routes; older ones are only counted.
    pub remembered: usize,
}

/// One exchange whose two answers differed. Values appear as their shape, such as `text(12)`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diverged {
    /// Its number since the start, from 1.
    pub seq: u64,
    /// When.
    pub at: String,
    /// The id that both backends got as `x-understudy-exchange`.
    pub exchange: String,
    /// The route that took it.
    pub route: String,
    /// Whom it was for, if it named somebody.
    pub subject: Option<String>,
    /// Whose answer the client got.
    pub served: String,
    /// Legacy's status.
    pub legacy_status: u16,
    /// New's status.
    pub new_status: u16,
    /// The worst severity among its places: `critical`, `major` or `minor`.
    pub worst: String,
    /// How many places differ, those not listed included.
    pub total: usize,
    /// The places, as many as are kept.
    pub places: Vec<Place>,
}

/// One place where they differ.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// An RFC 6901 pointer into the body, `@status` or `@header.NAME`.
    pub pointer: String,
    /// In what way.
    pub kind: String,
    /// How grave.
    pub severity: String,
    /// The shape of legacy's value; `null` where legacy has nothing.
    pub legacy: Option<String>,
    /// The shape of new's value; `null` where new has nothing.
    pub new: Option<String>,
}
