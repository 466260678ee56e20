//! What differs between legacy and legacy says nothing about new.
//!
//! Pure. In: the comparison of legacy with new and that of legacy with its twin, of one request. Out: the first without
//! what the second shows too. It judges one request; whether a difference is real over many is `findings`' business.

use std::collections::BTreeSet;

use super::path::Place;
use super::verdict::{Comparison, Kind};

/// Takes out of `new` what the twin explains, and judges again.
///
/// A divergence is explained by one of the twin's at the same place of the same kind: a time that changes from call to call
/// explains another time, not a missing member. A `length` is explained by any other at the same array. A pointer that
/// was cut, and what is not listed, is neither explained nor explains.
#[must_use]
pub fn without_noise(mut new: Comparison, twin: &Comparison) -> Comparison {
    let noise: BTreeSet<_> = twin
        .divergences
        .iter()
        .filter_map(|found| key(&found.pointer, found.kind))
        .collect();
    let counts = &mut new.counts;
    let mut explained = 0_u32;
    new.divergences.retain(|found| {
        let real = !key(&found.pointer, found.kind).is_some_and(|key| noise.contains(&key));
        if !real {
            let count = &mut counts[found.severity.index()];
            *count = count.saturating_sub(1);
            explained = explained.saturating_add(1);
        }
        real
    });
    new.explained = new.explained.saturating_add(explained);
    new.judge();
    new
}

fn key(place: &Place, kind: Kind) -> Option<(&str, Kind)> {
    match kind {
        _ if place.is_cut() => None,
        Kind::Length => Some((place.parent(), kind)),
        _ => Some((place.as_str(), kind)),
    }
}
