//! What is counted of those who ask for flags themselves, over OFREP and the evaluation API, and how they learn of changes.

use std::sync::atomic::AtomicUsize;

use tokio::sync::watch;

use super::tally::{By, Counter, Label, labels};

labels! {
    /// What a request for flags came to.
    Remote {
        /// Evaluated.
        Answered = "answered",
        /// An answer as the client had it already.
        NotModified = "not_modified",
        /// A flag that no source defines, or that is not for this client.
        FlagNotFound = "flag_not_found",
        /// The flag looks at the subject, and there is none.
        TargetingKeyMissing = "targeting_key_missing",
        /// A context that is none.
        InvalidContext = "invalid_context",
        /// A body that is no JSON, is too deep, or is not declared as JSON.
        ParseError = "parse_error",
        /// A body over 1 MiB.
        TooLarge = "too_large",
        /// No token, or one that is not known.
        Unauthorized = "unauthorized",
        /// A token whose role may not ask.
        Forbidden = "forbidden",
        /// More than a client may ask, or may get wrong.
        TooManyRequests = "too_many_requests",
        /// More event streams than there may be.
        TooManyStreams = "too_many_streams",
        /// An event stream that was opened.
        StreamOpened = "stream_opened",
    }
}

impl Remote {
    /// How many there are.
    pub const COUNT: usize = 12;
}

/// Counters of the whole instance.
#[derive(Debug)]
pub struct RemoteTally {
    /// Requests by what they came to.
    pub requests: By<{ Remote::COUNT }>,
    /// Flags of which the answer was an error: unknown, or without a subject.
    pub errors: By<{ Remote::COUNT }>,
    /// Bulk requests that named an answer which was no longer the right one.
    pub stale: Counter,
    /// Evaluations so far, of which some are timed.
    pub evaluations: Counter,
    /// Nanoseconds of those that were timed.
    pub nanos: Counter,
    /// Their number by duration: up to 0.1 ms, 0.2 ms, and so on; the last is everything above.
    pub buckets: [Counter; 11],
    /// Event streams that are open.
    pub streams: AtomicUsize,
    changes: watch::Sender<u64>,
}

impl Default for RemoteTally {
    fn default() -> Self {
        Self {
            requests: By::default(),
            errors: By::default(),
            stale: Counter::default(),
            evaluations: Counter::default(),
            nanos: Counter::default(),
            buckets: Default::default(),
            streams: AtomicUsize::new(0),
            changes: watch::Sender::new(0),
        }
    }
}

impl RemoteTally {
    /// Tells everybody who watches that other rules are in force.
    pub(super) fn published(&self, revision: u64) {
        self.changes.send_replace(revision);
    }

    /// The revision in force, and when it is another one.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_result_has_its_own_counter() {
        assert_eq!(Remote::ALL.len(), Remote::COUNT);
        for (at, result) in Remote::ALL.iter().enumerate() {
            assert_eq!(result.index(), at);
        }
    }
}
