//! Flags: what one consists of, and the walk through the table that answers for one subject.
//!
//! Pure. `ruleset` compiles flags from their layers; `decide` asks them; `explain` shows the walk.

pub mod asked;
pub mod attributes;
pub mod bucket;
pub mod evaluate;
pub mod kills;
pub mod model;
pub mod operators;
pub mod origin;
mod places;
pub mod schedule;
pub mod semver;
pub mod subjects;
pub mod targeting;
pub mod variants;
pub mod window;

use std::collections::BTreeSet;

use crate::engine::vocab::Revision;

pub use asked::Asked;
pub use attributes::{Attribute, Attributes, Context, NoAttributes};
pub use bucket::{Bucket, Threshold};
pub use evaluate::{Evaluation, Line, RuleIndex};
pub use kills::FlagKills;
pub use model::Flag;
use model::Prerequisite;
use places::Places;
use targeting::{Rule, Segment};
pub use variants::{FlagValue, VariantIndex};

/// A flag's position in the [`Flags`] that it was found in; means nothing to others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FlagRef(u32);

impl FlagRef {
    /// An index into tables that run parallel to [`Flags::iter`].
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// All flags of one ruleset, in the order of their keys.
#[derive(Clone, Debug, Default)]
pub struct Flags {
    list: Box<[Flag]>,
    /// Where each key stands: asked by key, a flag is one look at a table away and not ten at keys all over memory.
    places: Places,
    segments: Box<[Segment]>,
    system_enabled: bool,
    revision: Revision,
}

impl Flags {
    /// Takes the flags of a ruleset; of several with one key, the first stays.
    ///
    /// `system_enabled` is false under `FEATURE_FLAGS_ENABLED=false`: then every flag and every constant is off.
    #[must_use]
    pub fn new(mut list: Vec<Flag>, system_enabled: bool, revision: Revision) -> Self {
        list.sort_by(|a, b| a.key.cmp(&b.key));
        list.dedup_by(|a, b| a.key == b.key);
        // A reference is 32 bits wide; so many flags do not fit into memory.
        list.truncate(u32::MAX as usize);
        let mut flags = Self {
            places: Places::new(list.iter().map(|flag| flag.key.as_str())),
            list: list.into(),
            segments: Box::default(),
            system_enabled,
            revision,
        };
        flags.resolve();
        flags
    }

    /// The same flags with these segments, which their rules name by their places.
    #[must_use]
    pub fn with_segments(mut self, segments: Vec<Segment>) -> Self {
        self.segments = segments.into();
        self
    }

    /// All segments.
    #[must_use]
    pub const fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// Looks up the flags that others ask.
    fn resolve(&mut self) {
        for at in 0..self.list.len() {
            let asked: Vec<Option<FlagRef>> = self.list[at]
                .prerequisites
                .iter()
                .map(|asked| self.find(asked.flag.as_str()))
                .collect();
            for (asked, found) in self.list[at].prerequisites.iter_mut().zip(asked) {
                asked.at = found;
            }
        }
    }

    /// The flags that this one asks, and those that these ask in turn: whose kills change its answer. Sorted, each once.
    #[must_use]
    pub fn asked_by(&self, at: FlagRef) -> Vec<FlagRef> {
        let mut found = BTreeSet::new();
        let mut open = vec![at];
        while let Some(flag) = open.pop().and_then(|at| self.at(at)) {
            let next = flag.prerequisites.iter().filter_map(|asked| asked.at);
            open.extend(next.filter(|at| found.insert(*at)));
        }
        found.into_iter().collect()
    }

    /// Whether the flag's answer may depend on attributes, those of the flags that it asks in turn included.
    #[must_use]
    pub fn asks_attributes(&self, at: FlagRef) -> bool {
        let flags = std::iter::once(at)
            .chain(self.asked_by(at))
            .filter_map(|at| self.at(at));
        let mut rules = flags.flat_map(|flag| &flag.rules);
        rules.any(|rule| rule.condition.asks_attributes(&self.segments))
    }

    /// The flag's answer. Of a position of other flags: off, unknown.
    #[must_use]
    pub fn evaluate(&self, at: FlagRef, asked: &Asked<'_>) -> Evaluation {
        self.at(at)
            .map_or(Evaluation::UNKNOWN, |flag| evaluate::evaluate(self, flag, asked))
    }

    /// Whether a flag that is asked first answers as it must; `None` where it would need a subject and there is none.
    #[must_use]
    pub fn meets(&self, first: &Prerequisite, asked: &Asked<'_>) -> Option<bool> {
        evaluate::met(self, first, asked)
    }

    /// Whether a rule of one of these flags matches; `None` where that depends on a subject and there is none.
    #[must_use]
    pub fn matches(&self, rule: &Rule, asked: &Asked<'_>) -> Option<bool> {
        let question = targeting::Question {
            segments: &self.segments,
            asked,
            hash_name: &rule.hash_name,
        };
        question.holds(&rule.condition)
    }

    /// The answer of a flag that need not be among these; the flags that it asks are.
    #[must_use]
    pub fn answer(&self, flag: &Flag, asked: &Asked<'_>) -> Evaluation {
        evaluate::evaluate(self, flag, asked)
    }

    /// The answer that every subject gets, if it is on for every one of them.
    #[must_use]
    pub fn evaluate_for_everybody(&self, at: FlagRef, asked: &Asked<'_>) -> Option<Evaluation> {
        evaluate::for_everybody(self, self.at(at)?, asked)
    }

    /// The flag of this key.
    #[must_use]
    pub fn find(&self, key: &str) -> Option<FlagRef> {
        let is_at = |at| self.at(FlagRef(at)).is_some_and(|flag| flag.key.as_str() == key);
        self.places.find(key, is_at).map(FlagRef)
    }

    /// The flag at a position that [`Flags::find`] or [`Flags::iter`] of the same flags gave.
    #[must_use]
    pub fn at(&self, at: FlagRef) -> Option<&Flag> {
        self.list.get(at.index())
    }

    /// All flags with their positions, in the order of their keys.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (FlagRef, &Flag)> {
        // `new` keeps no more flags than 32 bits can count.
        self.list
            .iter()
            .enumerate()
            .map(|(index, flag)| (FlagRef(index as u32), flag))
    }

    /// Whether flags work at all; false under `FEATURE_FLAGS_ENABLED=false`.
    #[must_use]
    pub const fn system_enabled(&self) -> bool {
        self.system_enabled
    }

    /// The ruleset that these flags belong to.
    #[must_use]
    pub const fn revision(&self) -> Revision {
        self.revision
    }
}
