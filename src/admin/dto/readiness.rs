//! Whether this instance should get traffic, and what is wrong with it all the same.

use serde::{Deserialize, Serialize};

/// The answer of `/readyz`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Readiness {
    /// The whole in one word.
    pub status: State,
    /// What is missing, then what is degraded; empty when all is well.
    pub reasons: Vec<Reason>,
}

/// The state of an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It does not take requests, or soon will not: 503.
    NotReady,
    /// It answers every request, and somebody has to look: 200.
    Degraded,
    /// All is well: 200.
    Ready,
}

/// One thing that keeps an instance from being [`State::Ready`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// One word that stays the same over versions.
    pub name: String,
    /// What it alone makes of the instance.
    pub state: State,
    /// What is the matter, in a sentence.
    pub detail: String,
    /// What to do.
    pub remedy: String,
}

impl Readiness {
    /// Sorts the reasons by weight and says what they come to.
    #[must_use]
    pub fn of(mut reasons: Vec<Reason>) -> Self {
        reasons.sort_by_key(|reason| reason.state);
        Self {
            status: reasons.first().map_or(State::Ready, |worst| worst.state),
            reasons,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn worst_reason_decides_and_stands_first() {
        let reason = |name: &str, state| Reason {
            name: name.into(),
            state,
            detail: String::new(),
            remedy: String::new(),
        };
        let reasons = vec![
            reason("rules_refused", State::Degraded),
            reason("draining", State::NotReady),
        ];
        let readiness = Readiness::of(reasons);
        assert_eq!(
            (readiness.status, readiness.reasons[0].name.as_str()),
            (State::NotReady, "draining")
        );
        assert_eq!(Readiness::of(Vec::new()).status, State::Ready);
    }
}
