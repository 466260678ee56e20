//! What a change would do to the requests of the last while.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::publish;
use crate::engine::ruleset::{RouteIndex, Ruleset};
use crate::engine::vocab::{FlagKey, RouteKey};
use crate::engine::whatif::{Moves, World, predict, traps};
use crate::live::kills::KillWord;
use crate::live::{self, Live};

/// The most subjects that are named as examples, as their hashes.
const EXAMPLES: usize = 10;

/// See the module. Subjects are in it as their hashes only.
#[derive(Clone, Debug)]
pub struct WhatIf {
    /// The routes of which requests are kept.
    pub routes: BTreeMap<RouteKey, WouldMove>,
    /// What the change means that one may not have meant.
    pub traps: Vec<&'static str>,
}

/// What would become of a route's requests.
#[derive(Clone, Debug)]
pub struct WouldMove {
    /// The counts.
    pub moves: Moves,
    /// How many subjects would go to new, and some of them.
    pub to_new: (usize, Vec<String>),
    /// How many would go to legacy, and some of them.
    pub to_legacy: (usize, Vec<String>),
}

/// The requests that are kept, decided by both rules, under the kills in force.
pub(super) fn what_if(live: &Live, flag: &FlagKey, before: &Ruleset, after: &Ruleset) -> WhatIf {
    let kept: Vec<_> = live.requests.iter().flat_map(live::requests::Requests::read).collect();
    let words = [before, after].map(|rules| words(live, rules));
    let flags = [before, after].map(|rules| live.kills.flag_word(rules.flags()).load().clone());
    let held = |words: &[Arc<KillWord>], at: RouteIndex, subject: &str| {
        let word = words.get(at.index());
        word.is_some_and(|word| word.holds_any() && word.holds(live.hash(subject)))
    };
    let was_held = |at: RouteIndex, subject: &str| held(&words[0], at, subject);
    let is_held = |at: RouteIndex, subject: &str| held(&words[1], at, subject);
    let world = |at: usize, rules| World {
        rules,
        kills: words[at].iter().map(|word| word.bits()).collect(),
        flag_kills: &flags[at],
        is_held: if at == 0 { &was_held } else { &is_held },
    };
    let moves = predict(
        &world(0, before),
        &world(1, after),
        kept.iter().map(|kept| &**kept),
        live::now(),
    );
    let shown = |subjects: BTreeSet<Box<str>>| {
        let some = subjects
            .iter()
            .take(EXAMPLES)
            .map(|subject| live.hash(subject).to_string());
        (subjects.len(), some.collect())
    };
    let routes = moves.into_iter().map(|(route, mut moves)| {
        let to_new = shown(std::mem::take(&mut moves.to_new));
        let to_legacy = shown(std::mem::take(&mut moves.to_legacy));
        (
            route,
            WouldMove {
                moves,
                to_new,
                to_legacy,
            },
        )
    });
    WhatIf {
        routes: routes.collect(),
        traps: traps(flag, before, after),
    }
}

fn words(live: &Live, rules: &Ruleset) -> Vec<Arc<KillWord>> {
    let routes = rules.routes();
    routes
        .map(|(_, route)| live.kills.word(route.key(), publish::used(rules, route)))
        .collect()
}
