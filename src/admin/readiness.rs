//! Should this instance get traffic, and what is wrong with it.
//!
//! Pure. Not ready is only an instance that does not take requests, or soon will not. One whose rules are refused or
//! whose state cannot be read still answers every request from legacy: taking traffic away from it would break what it was
//! installed never to break. It says `degraded` and what to do. The texts name no path, member or value, for whoever
//! reaches the listener may read them; `status` has the whole.

use super::dto::{Readiness, Reason, State};
use crate::live::health::Rules;
use crate::store::StoreHealth;

/// What is known.
#[derive(Clone, Debug, Default)]
pub(super) struct Facts {
    /// Whether rules are in force.
    pub has_rules: bool,
    pub draining: bool,
    pub rules: Rules,
    pub state_unreadable: bool,
    pub store: StoreHealth,
    pub outcomes_lost: u64,
    pub panics: u64,
}

/// What that comes to.
pub(super) fn readiness(facts: &Facts) -> Readiness {
    let Facts { rules, store, .. } = facts;
    let mut reasons = Vec::new();
    let mut add = |is: bool, state, name: &str, detail: String, remedy: &str| {
        if is {
            reasons.push(Reason {
                name: name.to_owned(),
                state,
                detail,
                remedy: remedy.to_owned(),
            });
        }
    };
    let no_rules = "no rules have been published yet".to_owned();
    add(
        !facts.has_rules,
        State::NotReady,
        "no_rules",
        no_rules,
        "wait; if it stays so, look into the log",
    );
    let draining = "the instance is ending: it finishes what is under way and accepts nothing more".to_owned();
    add(
        facts.draining,
        State::NotReady,
        "draining",
        draining,
        "send traffic elsewhere",
    );

    let unreadable =
        "the state could not be read at the start, so nobody knows what was killed: legacy answers everything";
    let remedy = "see `store.unreadable` in the status; repair or restore the file, then restart";
    add(
        facts.state_unreadable,
        State::Degraded,
        "state_unreadable",
        unreadable.to_owned(),
        remedy,
    );
    let (unstored, journaled) = (store.unstored_kills, store.journaled_kills);
    let kills =
        format!("{unstored} kills are in force and not in the state file, {journaled} of them in the kill journal");
    let remedy = "see `store` in the status for what the disk says; do not restart while any kill is in neither file";
    add(unstored > 0, State::Degraded, "kills_unstored", kills, remedy);
    let lost = format!("{} held subjects will not survive a restart", store.lost_holds);
    let remedy = "make room on the disk of `state.path`, or kill the route as a whole";
    add(store.lost_holds > 0, State::Degraded, "holds_lost", lost, remedy);
    // A state file that could not be read is not written either, which has been said.
    let failing = (store.last_error.is_some() && !facts.state_unreadable) || store.journal_error.is_some();
    let remedy = "see `store` in the status; re-arms are refused while it lasts";
    add(
        failing,
        State::Degraded,
        "store_failing",
        "the last write of the state failed".to_owned(),
        remedy,
    );

    let changes = "the disk refused the last change of flags: none is taken until it takes them again".to_owned();
    let remedy = "see `store` in the status and to the disk; kills work all the same";
    add(
        store.change_error.is_some(),
        State::Degraded,
        "changes_refused",
        changes,
        remedy,
    );

    let refused = "the newest rules on disk are refused; older ones serve".to_owned();
    let remedy = "run `understudy check --config FILE`, correct what it names; the files are read again by themselves";
    add(
        !rules.refused.is_empty(),
        State::Degraded,
        "rules_refused",
        refused,
        remedy,
    );
    let waits = format!(
        "changes of {} take effect at the next start only",
        rules.waits_for_restart.join(", ")
    );
    add(
        !rules.waits_for_restart.is_empty(),
        State::Degraded,
        "restart_needed",
        waits,
        "restart when it suits",
    );
    let lost = format!(
        "the guard never saw {} outcomes, because it could not keep up",
        facts.outcomes_lost
    );
    let remedy = "give the process more CPU; budgets judge by what they saw";
    add(facts.outcomes_lost > 0, State::Degraded, "outcomes_lost", lost, remedy);
    let panics = format!("{} tasks of the sidecar panicked", facts.panics);
    add(
        facts.panics > 0,
        State::Degraded,
        "panicked",
        panics,
        "report the messages in the log, and restart",
    );
    Readiness::of(reasons)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn healthy() -> Facts {
        Facts {
            has_rules: true,
            ..Facts::default()
        }
    }

    fn names(facts: &Facts) -> (State, Vec<String>) {
        let readiness = readiness(facts);
        (
            readiness.status,
            readiness.reasons.into_iter().map(|reason| reason.name).collect(),
        )
    }

    #[test]
    fn healthy_instance_is_ready_without_reasons() {
        assert_eq!(names(&healthy()), (State::Ready, vec![]));
    }

    #[test]
    fn whatever_still_answers_from_legacy_keeps_its_traffic() {
        let store = StoreHealth {
            unstored_kills: 1,
            last_error: Some("disk full".into()),
            ..StoreHealth::default()
        };
        let rules = Rules {
            refused: vec!["a:1:1: x".into()],
            waits_for_restart: vec!["workers".into()],
            ..Rules::default()
        };
        let facts = Facts {
            rules,
            store,
            outcomes_lost: 1,
            panics: 1,
            ..healthy()
        };
        let expected = [
            "kills_unstored",
            "store_failing",
            "rules_refused",
            "restart_needed",
            "outcomes_lost",
            "panicked",
        ];
        assert_eq!(names(&facts), (State::Degraded, expected.map(str::to_owned).to_vec()));
        let facts = Facts {
            state_unreadable: true,
            ..healthy()
        };
        assert_eq!(names(&facts), (State::Degraded, vec!["state_unreadable".to_owned()]));
    }

    #[test]
    fn instance_that_takes_no_requests_is_not_ready() {
        let facts = Facts {
            draining: true,
            panics: 1,
            ..healthy()
        };
        assert_eq!(
            names(&facts),
            (State::NotReady, vec!["draining".to_owned(), "panicked".to_owned()])
        );
        assert_eq!(names(&Facts::default()).0, State::NotReady);
    }

    #[test]
    fn open_page_repeats_nothing_that_was_written_by_somebody() {
        let rules = Rules {
            refused: vec!["/etc/secret.yaml:1:1: `hunter2`".into()],
            ..Rules::default()
        };
        let text = serde_json::to_string(&readiness(&Facts { rules, ..healthy() })).unwrap();
        assert!(!text.contains("hunter2") && !text.contains("secret.yaml"), "{text}");
    }
}
