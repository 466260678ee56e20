//! `Expect: 100-continue`: a body is not asked for before the backend wants it.
//!
//! The expectation goes to the backend, and its 100 opens the gate: the body is then polled, by which the library tells the
//! client to go on. A final answer leaves the gate closed: the client gets that answer alone, and the backend never sees
//! the body that it refused. A backend that says nothing is taken to ignore the expectation, as it may.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use http::header;
use http::request::Parts;

/// How long a backend has to say that it wants the body: as long as common clients would wait for it themselves.
const PATIENCE: Duration = Duration::from_secs(1);

/// The same for a backend of this timeout. Many never say it and wait for the body, so half of the time is left for that.
#[must_use]
pub fn patience(timeout: Duration) -> Duration {
    PATIENCE.min(timeout / 2)
}

/// Stands before a body until its backend wants it.
#[derive(Debug, Default)]
pub struct Gate {
    open: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

impl Gate {
    /// Opens it.
    pub fn open(&self) {
        self.open.store(true, Relaxed);
        let waker = self.waker.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Whether it is open; if not, the task is woken when it is.
    pub fn poll_open(&self, cx: &Context<'_>) -> Poll<()> {
        *self.waker.lock().unwrap_or_else(PoisonError::into_inner) = Some(cx.waker().clone());
        if self.open.load(Relaxed) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }
}

/// Whether a request's client waits to be told to go on.
#[must_use]
pub fn asks(head: &Parts) -> bool {
    let value = head.headers.get(header::EXPECT);
    value.is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}
