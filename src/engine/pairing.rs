//! The two runs of one request meet here: runs in, one closed exchange out.
//!
//! Pure. It knows which runs are still to come and what the two together are: a pair, a failover, or one run alone. `B`
//! is whatever the shell keeps of an answer for comparing.

use super::guard::{Relation, Run};
use super::vocab::Side;

/// One side's finished work on a request.
#[derive(Clone, Debug)]
pub struct Ran<B> {
    /// How it went.
    pub run: Run,
    /// Its answer, if it was kept.
    pub answer: Option<B>,
}

/// Both sides' work on a request; nothing more will come.
#[derive(Clone, Debug)]
pub struct Closed<B> {
    /// What the two runs are to each other.
    pub relation: Relation,
    /// Whether the client got the other side's answer in place of the served run's.
    pub replaced: bool,
    /// Legacy's run, if it was asked.
    pub legacy: Option<Ran<B>>,
    /// The new path's run, if it was asked.
    pub new: Option<Ran<B>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Copy {
    None,
    Queued,
    Sent,
}

/// The runs of one request as they come in.
#[derive(Debug)]
pub struct Pairing<B> {
    served: Side,
    runs: [Option<Ran<B>>; 2],
    served_done: bool,
    copy: Copy,
    failover: bool,
    replaced: bool,
    closed: bool,
}

impl<B> Pairing<B> {
    /// A request that `served` answers; `copied` says whether the other side is to get a copy.
    #[must_use]
    pub const fn new(served: Side, copied: bool) -> Self {
        let copy = if copied { Copy::Queued } else { Copy::None };
        Self {
            served,
            runs: [None, None],
            served_done: false,
            copy,
            failover: false,
            replaced: false,
            closed: false,
        }
    }

    /// How the side that was to serve fared, while the exchange is not closed and once that is over.
    #[must_use]
    pub const fn served_run(&self) -> Option<&Ran<B>> {
        self.runs[self.served.index()].as_ref()
    }

    /// The copy is about to be sent; false if it was withdrawn meanwhile and must not be.
    pub fn send_copy(&mut self) -> bool {
        let queued = self.copy == Copy::Queued;
        if queued {
            self.copy = Copy::Sent;
        }
        queued
    }

    /// The serving side failed and the other is asked for the answer in its place.
    ///
    /// A copy that was not sent yet is withdrawn: then this is true, and the live request's run is what counts beside
    /// the failure. If it was sent, its run makes the pair, and the live request's run counts for nothing.
    pub fn fail_over(&mut self) -> bool {
        self.replaced = true;
        self.failover = self.copy != Copy::Sent;
        if self.copy == Copy::Queued {
            self.copy = Copy::None;
        }
        self.failover
    }

    /// The run of the side that was to serve is over.
    pub fn served(&mut self, ran: Ran<B>) -> Option<Closed<B>> {
        self.runs[self.served.index()] = Some(ran);
        self.served_done = true;
        self.close()
    }

    /// The live run of the side that was asked by failover is over.
    pub fn failed_over(&mut self, ran: Ran<B>) -> Option<Closed<B>> {
        if !self.failover {
            return None;
        }
        self.runs[self.served.other().index()] = Some(ran);
        self.close()
    }

    /// The copy's run is over.
    pub fn copied(&mut self, ran: Ran<B>) -> Option<Closed<B>> {
        debug_assert_eq!(self.copy, Copy::Sent);
        self.runs[self.served.other().index()] = Some(ran);
        self.close()
    }

    /// The copy will not be sent.
    pub fn copy_dropped(&mut self) -> Option<Closed<B>> {
        if self.copy != Copy::Queued {
            return None;
        }
        self.copy = Copy::None;
        self.close()
    }

    fn close(&mut self) -> Option<Closed<B>> {
        let other = self.runs[self.served.other().index()].is_some();
        let waits = (self.copy != Copy::None || self.failover) && !other;
        if self.closed || !self.served_done || waits {
            return None;
        }
        self.closed = true;
        let relation = match (self.failover, other) {
            (true, _) => Relation::Failover,
            (false, true) => Relation::Pair,
            (false, false) => Relation::Alone,
        };
        let [legacy, new] = std::mem::take(&mut self.runs);
        Some(Closed {
            relation,
            replaced: self.replaced,
            legacy,
            new,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ran() -> Ran<()> {
        Ran {
            run: Run::answered(200, std::time::Duration::ZERO),
            answer: None,
        }
    }

    #[test]
    fn a_request_without_a_copy_closes_alone() {
        let closed = Pairing::new(Side::Legacy, false).served(ran()).unwrap();
        assert_eq!(closed.relation, Relation::Alone);
        assert!(closed.legacy.is_some() && closed.new.is_none());
    }

    #[test]
    fn a_pair_closes_once_whichever_run_ends_first() {
        for copy_first in [false, true] {
            let mut pairing = Pairing::new(Side::Legacy, true);
            assert!(pairing.send_copy());
            let (first, second) = if copy_first {
                (pairing.copied(ran()), pairing.served(ran()))
            } else {
                (pairing.served(ran()), pairing.copied(ran()))
            };
            assert!(first.is_none());
            assert_eq!(second.unwrap().relation, Relation::Pair);
        }
    }

    #[test]
    fn a_copy_shed_before_it_was_sent_makes_no_pair() {
        let mut pairing = Pairing::new(Side::New, true);
        assert!(pairing.served(ran()).is_none());
        assert_eq!(pairing.copy_dropped().unwrap().relation, Relation::Alone);
        assert!(!pairing.send_copy());
    }

    #[test]
    fn failover_withdraws_a_copy_that_was_not_sent() {
        let mut pairing = Pairing::new(Side::New, true);
        assert!(pairing.fail_over());
        assert!(!pairing.send_copy(), "withdrawn");
        assert!(pairing.served(ran()).is_none());
        let closed = pairing.failed_over(ran()).unwrap();
        assert_eq!(closed.relation, Relation::Failover);
        assert!(closed.legacy.is_some() && closed.new.is_some());
    }

    #[test]
    fn a_copy_that_was_sent_stays_the_pair_when_the_live_request_fails_over() {
        let mut pairing = Pairing::new(Side::New, true);
        assert!(pairing.send_copy());
        assert!(!pairing.fail_over());
        assert!(pairing.served(ran()).is_none());
        assert!(pairing.failed_over(ran()).is_none());
        assert_eq!(pairing.copied(ran()).unwrap().relation, Relation::Pair);
    }
}
