//! Which flags of the rules in force are stale, and which were when somebody last looked.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use super::Live;
use super::snapshot::Snapshot;
use crate::engine::flags::Flag;
use crate::engine::flags::model::Kind;
use crate::engine::stats::stale::{Meant, Stale, Verdict, until_ms, verdicts};
use crate::engine::vocab::FlagKey;

/// One verdict on a flag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StaleFlag {
    /// The flag.
    pub flag: FlagKey,
    /// Why it is stale, and since when.
    pub verdict: Verdict,
}

/// What was stale at the last look.
#[derive(Debug, Default)]
pub struct Staleness {
    found: Mutex<BTreeSet<(FlagKey, Stale)>>,
}

impl Staleness {
    /// Takes the verdicts of a look over, and gives those that the look before did not have.
    pub fn take_over(&self, now: &[StaleFlag]) -> Vec<StaleFlag> {
        let key = |stale: &StaleFlag| (stale.flag.clone(), stale.verdict.stale);
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        let new = now
            .iter()
            .filter(|stale| !found.contains(&key(stale)))
            .cloned()
            .collect();
        *found = now.iter().map(key).collect();
        new
    }

    /// How many flags were stale for this reason.
    #[must_use]
    pub fn count(&self, stale: Stale) -> usize {
        let found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        found.iter().filter(|(_, why)| *why == stale).count()
    }
}

fn meant(flag: &Flag) -> Meant {
    Meant {
        to_stay: matches!(flag.about.kind, Some(Kind::Operational | Kind::Permission)),
        until_ms: flag.about.expected_end.as_deref().and_then(until_ms),
    }
}

/// The stale flags at this instant, in the order of their keys. What was counted since the last look is looked at first.
#[must_use]
pub fn stale(live: &Live, snapshot: &Snapshot, now_ms: i64, after_ms: i64) -> Vec<StaleFlag> {
    live.usage.look(&live.registry, now_ms);
    let seen = live.usage.seen();
    let flags = snapshot.rules.flags().iter().filter(|(_, flag)| flag.defined);
    let all = flags.filter_map(|(_, flag)| Some((flag, seen.get(flag.key.as_str())?)));
    all.flat_map(|(flag, seen)| {
        verdicts(seen, meant(flag), now_ms, after_ms).map(|verdict| StaleFlag {
            flag: flag.key.clone(),
            verdict,
        })
    })
    .collect()
}
