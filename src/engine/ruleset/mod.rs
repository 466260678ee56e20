//! The rules that are in force: from what operators write to what a request asks.
//!
//! Pure. `document` reads the flag file, `env` the environment's variables, `edit` changes what was said at run time,
//! `layer` merges them, `route` is what the configuration says about routes, and `compile` makes one immutable [`Ruleset`] of it all, or a list of problems. `import`
//! turns other systems' flags into a flag file.

mod check;
pub mod compile;
pub mod conditions;
pub mod decode;
pub mod document;
pub mod edit;
pub mod effect;
pub mod env;
pub mod freeze;
pub mod import;
pub mod instant;
pub mod json;
pub mod layer;
mod matching;
pub mod problem;
mod resolve;
pub mod route;
pub mod spot;
pub mod targets;
pub mod write;
pub mod yaml;

use http::{HeaderMap, Method};

use crate::engine::decide::{self, Decision, Policy, Request};
use crate::engine::flags::{Flag, FlagRef, Flags};
use crate::engine::vocab::{FlagKey, Revision, RouteKey};

pub use compile::{Input, StoredMark, compile};
use edit::RuntimeLayers;
use layer::Layer;
use matching::Matching;
use route::RouteSpec;

/// A route's position in its [`Ruleset`]: the order of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RouteIndex(u32);

impl RouteIndex {
    /// An index into tables that run parallel to [`Ruleset::routes`].
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// One route, its flags resolved.
#[derive(Clone, Debug)]
pub struct Route {
    /// What decides.
    pub policy: Policy,
    /// What the configuration says: identity, limits, comparison, budgets.
    pub spec: RouteSpec,
}

impl Route {
    /// Its name.
    #[must_use]
    pub const fn key(&self) -> &RouteKey {
        &self.spec.key
    }
}

/// All rules of one revision. Immutable; a change makes the next one.
#[derive(Clone, Debug)]
pub struct Ruleset {
    /// Its number.
    pub revision: Revision,
    environment: Box<str>,
    runtime: RuntimeLayers,
    merged: Layer,
    flags: Flags,
    routes: Box<[Route]>,
    matching: Matching,
}

impl Ruleset {
    /// The route that takes a request: the longest path, then the most header conditions, then one that names methods,
    /// then the first in the configuration. `None` goes to legacy.
    ///
    /// `path` is as on the wire, without the query. Speed: the cost grows with the number of different path lengths, and
    /// with the routes of one path.
    #[must_use]
    pub fn route_for(&self, method: &Method, path: &str, headers: &HeaderMap) -> Option<RouteIndex> {
        self.matching.find(method, path, headers)
    }

    /// The route at a position of this ruleset.
    ///
    /// # Panics
    /// If the position is another ruleset's and this one has fewer routes.
    #[must_use]
    pub fn route(&self, at: RouteIndex) -> &Route {
        &self.routes[at.index()]
    }

    /// The route of this name.
    #[must_use]
    pub fn find_route(&self, key: &RouteKey) -> Option<RouteIndex> {
        self.routes().find(|(_, route)| route.key() == key).map(|(at, _)| at)
    }

    /// All routes, in the order of the configuration.
    pub fn routes(&self) -> impl ExactSizeIterator<Item = (RouteIndex, &Route)> {
        // `compile` refuses more routes than 32 bits can count.
        self.routes
            .iter()
            .enumerate()
            .map(|(index, route)| (RouteIndex(index as u32), route))
    }

    /// The flag of this key, also one that a route names and no source defines.
    #[must_use]
    pub fn flag(&self, key: &FlagKey) -> Option<&Flag> {
        self.flags.find(key.as_str()).and_then(|at| self.flags.at(at))
    }

    /// The key of a flag that a decision of this ruleset names.
    #[must_use]
    pub fn flag_key(&self, at: FlagRef) -> Option<&FlagKey> {
        self.flags.at(at).map(|flag| &flag.key)
    }

    /// All flags.
    #[must_use]
    pub const fn flags(&self) -> &Flags {
        &self.flags
    }

    /// What was said at run time, and is in these rules.
    #[must_use]
    pub const fn runtime(&self) -> &RuntimeLayers {
        &self.runtime
    }

    /// Everything that the sources say together, member by member, each with where it comes from. A flag that routes name
    /// and no source sets is not there.
    #[must_use]
    pub const fn merged(&self) -> &Layer {
        &self.merged
    }

    /// The environment for which the flags were compiled.
    #[must_use]
    pub const fn environment(&self) -> &str {
        &self.environment
    }

    /// Decides about one request on one of these routes.
    #[must_use]
    pub fn decide<'a, S>(&self, route: &Route, request: &Request<'a, S>) -> Decision
    where
        S: Iterator<Item = &'a str> + Clone,
    {
        decide::decide(&self.flags, &route.policy, request)
    }

    /// The highest shares that gradual flags have reached, with the schedules that they came from: what has to survive a
    /// restart. Raised to `unix_ms` first.
    pub fn marks(&self, unix_ms: i64) -> impl Iterator<Item = StoredMark> {
        self.flags
            .iter()
            .filter_map(move |(_, flag)| StoredMark::of(flag, unix_ms))
    }
}

#[cfg(test)]
mod tests;
