//! What the demo promises, and what was seen of it.
//!
//! Pure. The story ticks off; the report prints; the exit code is 0 only if everything was seen.

/// One thing that has to be seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Promise {
    /// Meta's subscription check.
    Subscription,
    /// Phase 0.
    Dev,
    /// Phase 1.
    Staging,
    /// Phase 2.
    Canary,
    /// Phase 3, every step.
    Percent,
    /// The first kill.
    KillErrors,
    /// The first re-arm.
    RearmErrors,
    /// The second kill.
    KillSlow,
    /// The second re-arm.
    RearmSlow,
    /// The planted bugs.
    Bugs,
    /// The first shopper who is served by the new path.
    LiveTester,
    /// Live percentages.
    LivePercent,
    /// Failover.
    Failover,
    /// The third kill.
    KillGone,
    /// A kill does not expire.
    StaysKilled,
    /// Every request got a 2xx, and its own answer.
    NoFailure,
    /// Every update was acted upon once.
    Once,
    /// Signatures fit on both sides.
    Signatures,
    /// Copies have no effect.
    Copies,
    /// The counters of the sidecar agree with the books of the bots.
    Counters,
}

impl Promise {
    /// All of them, in the order of the story.
    pub const ALL: [Self; 20] = [
        Self::Subscription,
        Self::Dev,
        Self::Staging,
        Self::Canary,
        Self::Percent,
        Self::KillErrors,
        Self::RearmErrors,
        Self::KillSlow,
        Self::RearmSlow,
        Self::Bugs,
        Self::LiveTester,
        Self::LivePercent,
        Self::Failover,
        Self::KillGone,
        Self::StaysKilled,
        Self::NoFailure,
        Self::Once,
        Self::Signatures,
        Self::Copies,
        Self::Counters,
    ];

    /// The sentence.
    #[must_use]
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::Subscription => "the subscription check gets its bare challenge",
            Self::Dev => "flag off: nothing is copied, and the log says `shadow: inactive (flag off)`",
            Self::Staging => "staging: one shopper is copied and compared, nothing critical differs",
            Self::Canary => "canary: three shoppers are copied and compared",
            Self::Percent => "5, 10, 25, 50, 100 %: exactly the shoppers of these buckets are copied",
            Self::KillErrors => "kill 1: new answers 401 to everything, budget `errors` kills",
            Self::RearmErrors => "new recovers in the shadow and is re-armed",
            Self::KillSlow => "kill 2: new is three times slower, budget `slow` kills",
            Self::RearmSlow => "new recovers again and is re-armed",
            Self::Bugs => "every planted bug is found at its path",
            Self::LiveTester => "live: one test shopper is served by new",
            Self::LivePercent => "live: exactly 5 %, then 25 % are served by new",
            Self::Failover => "new closes its door: legacy answers every message by failover",
            Self::KillGone => "kill 3: budget `errors` kills",
            Self::StaysKilled => "new is back, and nobody is sent there before a re-arm",
            Self::NoFailure => "no shopper saw a failure: every request got one 2xx, and the answer to it",
            Self::Once => "nothing lost, nothing twice: every update was acted upon exactly once",
            Self::Signatures => "every signature fitted the bytes that arrived, on both sides",
            Self::Copies => "no copy was acted upon",
            Self::Counters => "the sidecar's counters agree with what both sides received",
        }
    }
}

/// What was seen.
#[derive(Debug, Default)]
pub struct Checks(Vec<(Promise, Result<String, String>)>);

impl Checks {
    /// Notes what was seen of a promise, or what was missed. What was missed once stays missed.
    pub fn note(&mut self, promise: Promise, seen: Result<String, String>) {
        match self.0.iter_mut().find(|(known, _)| *known == promise) {
            Some((_, before)) if before.is_ok() => *before = seen,
            Some(_) => {}
            None => self.0.push((promise, seen)),
        }
    }

    /// Every promise with what was seen of it; `Err` for what was missed and for what the story did not come to.
    pub fn all(&self) -> impl Iterator<Item = (Promise, Result<&str, &str>)> {
        Promise::ALL.into_iter().map(|promise| {
            let noted = self.0.iter().find(|(known, _)| *known == promise);
            let seen = noted.map_or(Err("the story did not come to it"), |(_, seen)| match seen {
                Ok(seen) => Ok(seen.as_str()),
                Err(missed) => Err(missed.as_str()),
            });
            (promise, seen)
        })
    }

    /// Whether every promise was kept.
    #[must_use]
    pub fn kept(&self) -> bool {
        self.all().all(|(_, seen)| seen.is_ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_promise_that_was_not_reached_or_missed_once_is_not_kept() {
        let mut checks = Checks::default();
        for promise in Promise::ALL {
            assert!(!checks.kept());
            checks.note(promise, Ok(String::new()));
        }
        assert!(checks.kept());
        checks.note(Promise::Percent, Err("a stranger".to_owned()));
        checks.note(Promise::Percent, Ok("nobody else".to_owned()));
        assert!(!checks.kept());
        assert_eq!(checks.all().filter(|(_, seen)| seen.is_err()).count(), 1);
    }
}
