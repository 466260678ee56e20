//! Asks flags for one client: from one snapshot and the kills of one instant, counted, timed and logged as the data plane
//! does it.

use std::sync::Arc;

use arc_swap::Guard;

use crate::engine::explain::{self, Record};
use crate::engine::flags::{Asked, Context, Flag, FlagKills, FlagRef};
use crate::engine::vocab::{Reason, SUBJECT_LIMIT_BYTES};
use crate::live::Live;
use crate::live::remote::Remote;
use crate::live::snapshot::Snapshot;
use crate::telemetry::clock;
use crate::telemetry::logs::DECISIONS;

/// One evaluation in this many is timed.
const TIMED: u64 = 1_024;

/// For whom flags are asked.
#[derive(Debug)]
pub(super) struct Subject {
    /// The key; none if nobody was named, or by a key that is no identity.
    key: Option<Box<str>>,
    /// Whether nobody was named at all.
    pub missing: bool,
    attributes: Context,
}

impl Subject {
    /// The subject of a context: its `targetingKey`, else its `user_id`; a number is its digits.
    ///
    /// # Errors
    /// For people, if one of them is neither a text nor a number.
    pub fn of(context: Context) -> Result<Self, String> {
        let mut key = None;
        for name in ["targetingKey", "user_id"] {
            let Some(value) = context.get(name) else { continue };
            if value.attribute().is_none() {
                continue;
            }
            let Some(text) = context.text(name) else {
                return Err(format!("`{name}` is a text or a number"));
            };
            if !text.is_empty() {
                key = Some(text.to_owned());
                break;
            }
        }
        let missing = key.is_none();
        Ok(Self {
            key: key.filter(|key| key.len() <= SUBJECT_LIMIT_BYTES).map(Into::into),
            missing,
            attributes: context,
        })
    }
}

/// What all flags of one request are asked under.
pub(super) struct Asking {
    live: Arc<Live>,
    snapshot: Arc<Snapshot>,
    kills: Guard<Arc<FlagKills>>,
    unix_ms: i64,
}

/// An answer, and why it is none for a client that has named nobody.
pub(super) struct Given<'a> {
    pub record: Record<'a>,
    pub reason: Reason,
    /// On or off; with variants, whether the subject takes part.
    pub enabled: bool,
    /// The flag looks at the subject, and nobody was named.
    pub wants_subject: bool,
}

impl Asking {
    /// Under what is in force now. `None` until there are rules.
    pub fn now(live: &Arc<Live>) -> Option<Self> {
        let snapshot = live.snapshot()?;
        let kills = snapshot.flag_kills.load();
        Some(Self {
            live: Arc::clone(live),
            snapshot,
            kills,
            unix_ms: clock::unix_ms(),
        })
    }

    /// The rules.
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// The flag of this key.
    pub fn find(&self, key: &str) -> Option<(FlagRef, &Flag)> {
        let flags = self.snapshot.rules.flags();
        let at = flags.find(key)?;
        flags.at(at).map(|flag| (at, flag))
    }

    /// One flag's answer.
    pub fn ask<'a>(&'a self, at: FlagRef, flag: &'a Flag, subject: &Subject) -> Given<'a> {
        let tally = &self.live.remote;
        let timed = tally
            .evaluations
            .value()
            .is_multiple_of(TIMED)
            .then(clock::monotonic_nanos);
        tally.evaluations.add();
        let asked = Asked {
            attributes: &subject.attributes,
            kills: &self.kills,
            ..Asked::new(subject.key.as_deref(), self.unix_ms)
        }
        .of(at);
        flag.advance(self.unix_ms);
        let flags = self.snapshot.rules.flags();
        let answer = flags.answer(flag, &asked);
        let record = explain::record(flags, flag.key.as_str(), &asked);
        if let Some(before) = timed {
            let nanos = clock::monotonic_nanos().saturating_sub(before);
            tally.nanos.add_n(nanos);
            let bucket = (0..10).find(|at| nanos <= 100_000 << at).unwrap_or(10);
            tally.buckets[bucket].add();
        }
        let wants_subject = subject.missing && answer.reason == Reason::IdentityUnknown;
        if wants_subject {
            tally.errors.add(Remote::TargetingKeyMissing);
        }
        if let Some(counted) = self.snapshot.flag_tallies.get(at.index()) {
            counted[self.live.shadow_shard()].book(answer.enabled, answer.reason);
        }
        self.log(&record, answer.enabled, subject);
        Given {
            record,
            reason: answer.reason,
            enabled: answer.enabled,
            wants_subject,
        }
    }

    /// A line of the decision log, for those subjects that are logged.
    fn log(&self, record: &Record<'_>, enabled: bool, subject: &Subject) {
        let Some(key) = subject.key.as_deref().filter(|_| self.snapshot.log_threshold > 0) else {
            return;
        };
        let hash = self.live.hash(key);
        if hash.0 % 1_000_000 >= u64::from(self.snapshot.log_threshold) {
            return;
        }
        let shopper = if self.snapshot.log_clear {
            key.to_owned()
        } else {
            hash.to_string()
        };
        tracing::info!(
            target: DECISIONS,
            event = "feature_flag_check",
            tags = "FEATURE_FLAG",
            flag_name = record.flag,
            enabled,
            shopper_id = shopper,
            reason = record.reason,
            variant = record.variant,
            asked_over = "ofrep",
            revision = self.snapshot.rules.revision.0,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject(json: &str) -> Result<(Option<String>, bool), String> {
        let context = serde_json::from_str(json).unwrap();
        Subject::of(context).map(|subject| (subject.key.map(Into::into), subject.missing))
    }

    #[test]
    fn targeting_key_names_the_subject_and_user_id_where_there_is_none() {
        let named = |key: &str| Ok((Some(key.to_owned()), false));
        assert_eq!(subject(r#"{"targetingKey":"a","user_id":"b"}"#), named("a"));
        assert_eq!(subject(r#"{"user_id":"b"}"#), named("b"));
        assert_eq!(subject(r#"{"targetingKey":"","user_id":"b"}"#), named("b"));
        assert_eq!(
            subject(r#"{"targetingKey":null,"user_id":9007199254740993}"#),
            named("9007199254740993")
        );
        assert_eq!(subject("{}"), Ok((None, true)));
        let long = format!(r#"{{"targetingKey":"{}"}}"#, "k".repeat(SUBJECT_LIMIT_BYTES + 1));
        assert_eq!(subject(&long), Ok((None, false)));
        for wrong in [
            r#"{"targetingKey":true}"#,
            r#"{"targetingKey":["a"]}"#,
            r#"{"user_id":{}}"#,
        ] {
            assert!(subject(wrong).is_err(), "{wrong}");
        }
    }
}
