//! Why a call brought no answer, and what is certain of it.
//!
//! Pure. In: what the library or the kernel says. Out: a [`CallError`].

use std::io;

use crate::live::tally::RunFailure;

/// A call that brought no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallError {
    /// What happened.
    pub failure: RunFailure,
    /// Whether it is certain that not one byte of the request reached the backend.
    pub never_reached: bool,
    /// Whether it was time that ran out.
    pub timed_out: bool,
}

impl CallError {
    /// No byte of the request has left.
    pub(super) const fn before(failure: RunFailure, timed_out: bool) -> Self {
        Self {
            failure,
            never_reached: true,
            timed_out,
        }
    }
}

/// What a call that the library gave up came to.
pub(super) fn classify(error: &hyper::Error) -> RunFailure {
    if error.is_parse() || error.is_parse_too_large() || error.is_parse_status() {
        RunFailure::Malformed
    } else {
        RunFailure::Reset
    }
}

/// We have run out of something; whoever was to be asked has not.
pub(super) fn is_local(error: &io::Error) -> bool {
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    matches!(error.raw_os_error(), Some(ENFILE | EMFILE))
        || matches!(
            error.kind(),
            io::ErrorKind::AddrNotAvailable | io::ErrorKind::OutOfMemory
        )
}
