//! What one request came to: the two runs, whom they were for, and how they belong together.
//!
//! Pure, fixed size, no bodies. Made by the data plane, read by `judge`.

use std::time::Duration;

use crate::engine::vocab::{Epoch, Side, SubjectHash};

/// Why a run brought no usable answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Failure {
    /// An answer that breaks the protocol, or ends before its length.
    Malformed,
    /// No answer by the deadline.
    Timeout,
    /// Refused, reset, closed early.
    Transport,
}

/// One side's work on a request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Run {
    /// The status, if a header section arrived.
    pub status: Option<u16>,
    /// What went wrong, whether or not a status arrived before it did.
    pub failure: Option<Failure>,
    /// From the last byte of the request written to that backend to the end of its answer's header section. Connecting,
    /// our queues and a slow client are not in it. `None` without a complete header section.
    pub latency: Option<Duration>,
    /// Given up by the client or by us: no evidence, whatever else it says.
    pub cancelled: bool,
}

impl Run {
    /// A whole answer.
    #[must_use]
    pub const fn answered(status: u16, latency: Duration) -> Self {
        Self {
            status: Some(status),
            failure: None,
            latency: Some(latency),
            cancelled: false,
        }
    }

    /// No usable answer.
    #[must_use]
    pub const fn failed(failure: Failure) -> Self {
        Self {
            status: None,
            failure: Some(failure),
            latency: None,
            cancelled: false,
        }
    }

    /// Given up before it came to anything.
    #[must_use]
    pub const fn cancelled() -> Self {
        Self {
            status: None,
            failure: None,
            latency: None,
            cancelled: true,
        }
    }
}

/// How the two runs of an outcome belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Relation {
    /// One side only was asked.
    Alone,
    /// Legacy was asked because new had failed. No pair, but a failure of new.
    Failover,
    /// Meant for both sides before either answered.
    Pair,
}

/// One request as the guard sees it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outcome {
    /// When the last of its runs ended, on the monotonic clock.
    pub at: Duration,
    /// The route's epoch when the request was decided.
    pub epoch: Epoch,
    /// The shopper. A request without one, or with several, is `None` and counts as a shopper of its own.
    pub subject: Option<SubjectHash>,
    /// Whose answer the client was to get.
    pub served: Side,
    /// Whether the percent line of the flag decided.
    pub by_percent: bool,
    /// The run on the new path, if it was asked.
    pub new: Option<Run>,
    /// The run on legacy, if it was asked.
    pub legacy: Option<Run>,
    /// How the runs belong together.
    pub relation: Relation,
    /// The shorter of the two runs' deadlines. In a pair, whatever is slower has failed, on either side, or the side with
    /// more time would look better than it is.
    pub horizon: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcome_stays_small_enough_for_a_ring() {
        assert!(size_of::<Outcome>() <= 160, "{}", size_of::<Outcome>());
    }
}
