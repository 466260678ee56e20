//! What a change would do, as the API tells it.
//!
//! Pure.

use super::dto::{BeforeAfter, Moved, Reasons, WhatIf, WouldMove};
use crate::control;

/// The same for the API.
pub(super) fn told(what_if: control::WhatIf) -> WhatIf {
    let routes = what_if.routes.into_iter().map(|(route, would)| {
        let control::WouldMove {
            moves,
            to_new,
            to_legacy,
        } = would;
        let moved = |(subjects, examples): (usize, Vec<String>)| Moved { subjects, examples };
        let reasons = moves.reasons.into_iter().map(|((before, after), requests)| Reasons {
            before: before.to_owned(),
            after: after.to_owned(),
            requests,
        });
        let percent = |counts: [usize; 2]| share(counts, moves.requests);
        WouldMove {
            route: route.to_string(),
            requests: moves.requests,
            unknown: moves.unknown,
            subjects: moves.subjects,
            to_new: moved(to_new),
            to_legacy: moved(to_legacy),
            served_by_new_percent: percent(moves.new),
            load_on_new_percent: percent(moves.load),
            reasons: reasons.collect(),
        }
    });
    WhatIf {
        routes: routes.collect(),
        traps: what_if.traps.into_iter().map(str::to_owned).collect(),
    }
}

#[allow(clippy::cast_precision_loss, reason = "shares for people")]
fn share(counts: [usize; 2], of: usize) -> BeforeAfter {
    let [before, after] = counts.map(|count| count as f64 * 100.0 / of.max(1) as f64);
    BeforeAfter { before, after }
}
