//! One request to a backend and the wait for its answer's headers.
//!
//! A request that may be repeated and met a connection that was just being closed goes out once more, on a new one.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use http::header::{HeaderValue, TRANSFER_ENCODING, UPGRADE};
use http::request::Parts;
use http::{Request, Response, StatusCode};
use hyper::body::{Body as _, Incoming};
use hyper::client::conn::TrySendError;

use super::answers::{is_clear, keep_for};
use super::busy::Busy;
use super::failure::{CallError, classify};
use super::pool::{Lease, Pool};
use super::reach::within;
use crate::live::backend::Backend;
use crate::live::service::Pick;
use crate::live::tally::RunFailure;
use crate::proxy::body::{Outgoing, Source};
use crate::proxy::spare::Spare;
use crate::proxy::sweep::Deadline;
use crate::proxy::wire::Wire;
use crate::telemetry::clock;

/// How long a call may take.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For the answer's headers, from the last byte that the backend took.
    pub answer: Duration,
    /// For everything from connecting to the answer's headers; `None` for no bound of its own.
    pub total: Option<Duration>,
}

/// A backend's answer, its body still to come.
#[derive(Debug)]
pub struct Reply {
    /// Status, headers and the body to be read.
    pub response: Response<Incoming>,
    /// The connection, to be given back when the body has been read.
    pub lease: Lease,
    /// From the last byte written to the end of the answer's headers.
    pub latency: Duration,
}

impl Pool {
    /// Sends a request and waits for the answer's headers.
    ///
    /// `repeatable`: whether sending the request twice is harmless. A head with `Upgrade` asks for another protocol: its
    /// connection is new, and after a 101 it is whoever's takes it over with [`hyper::upgrade::on`]; the lease then
    /// only counts.
    ///
    /// # Errors
    /// [`CallError`]; while `never_reached` holds, the same request may be sent again, here or elsewhere.
    pub async fn call(
        self: &Arc<Self>,
        backend: &Arc<Backend>,
        head: &mut Parts,
        source: &Source,
        repeatable: bool,
        patience: Patience,
    ) -> Result<Reply, CallError> {
        let Some(in_flight) = backend.enter() else {
            return Err(CallError::before(RunFailure::Overload, false));
        };
        let total = patience.total.map(|total| self.sweep.deadline(total));
        let upgradable = head.headers.contains_key(UPGRADE);
        let mut fresh = upgradable;
        loop {
            let busy = self.choose(backend, total.as_ref()).await?;
            let pooled = if fresh {
                None
            } else {
                self.take(&busy.target, repeatable)
            };
            let reused = pooled.is_some();
            let (busy, mut connection) = match pooled {
                Some(connection) => (busy, connection),
                // Boxed, because it is rare and large: every request under way would carry it.
                None => Box::pin(self.reach(backend, busy, total.as_ref(), upgradable)).await?,
            };
            let written_before = connection.wire.written();
            let again = (reused && repeatable).then(|| Spare::of(head));
            let body = source.outgoing(&connection.wire);
            // The library sends a GET without its body unless its end is said to be marked.
            if body.size_hint().exact().is_none() {
                head.headers
                    .insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
            }
            let request = Request::from_parts(std::mem::replace(head, nothing()), body);
            let sent = {
                let sending = pin!(connection.sender.try_send_request(request));
                let wire = &connection.wire;
                self.answer(sending, wire, source, patience.answer, total.as_ref())
                    .await
            };
            match sent {
                Ok(response) if !is_clear(&response, upgradable) => {
                    return Err(CallError {
                        failure: RunFailure::Malformed,
                        never_reached: false,
                        timed_out: false,
                    });
                }
                Ok(response) => {
                    let latency = connection.wire.answered_after();
                    connection.keep = if upgradable || !source.is_taken() {
                        // What is left of the request would still have to be sent, to somebody who has answered it.
                        Duration::ZERO
                    } else {
                        keep_for(backend.idle, response.headers())
                    };
                    connection.tunnelled = response.status() == StatusCode::SWITCHING_PROTOCOLS;
                    let lease = Lease::new(connection, self, backend, busy, in_flight);
                    return Ok(Reply {
                        response,
                        lease,
                        latency,
                    });
                }
                Err(Unanswered { mut error, returned }) => {
                    error.never_reached = returned.is_some() || connection.wire.written() == written_before;
                    // A pooled connection that turns out to be closed says nothing about the backend. Only a new
                    // one does.
                    if error.timed_out {
                        backend.service.suspect(&busy.target);
                    }
                    let was_closed = error.failure == RunFailure::Reset && source.is_repeatable();
                    if reused && error.failure == RunFailure::Reset {
                        self.distrust(&busy.target);
                    }
                    let again = returned
                        .map(|returned| *returned)
                        .or_else(|| again.filter(|_| was_closed).map(Spare::head));
                    match again {
                        Some(again) if reused => *head = again,
                        _ => return Err(error),
                    }
                    fresh = true;
                }
            }
        }
    }

    async fn choose(&self, backend: &Backend, total: Option<&Deadline>) -> Result<Busy, CallError> {
        let service = &backend.service;
        loop {
            match service.pick(&[], || self.turn()) {
                Pick::One(target, choice) => return Ok(Busy::new(target, choice)),
                Pick::Nobody { silent } => return Err(CallError::before(RunFailure::Connect, silent)),
                Pick::Unknown => {
                    let mut known = service.known();
                    let told = known.wait_for(|known| *known);
                    if within(backend.connect_timeout, total, told).await.is_none() {
                        return Err(CallError::before(RunFailure::Connect, true));
                    }
                }
            }
        }
    }

    async fn answer(
        &self,
        mut sending: Pin<&mut impl Sending>,
        wire: &Wire,
        source: &Source,
        patience: Duration,
        total: Option<&Deadline>,
    ) -> Result<Response<Incoming>, Unanswered> {
        let deadline = self.sweep.deadline(patience);
        let begun = clock::monotonic_nanos();
        wire.awaits_head();
        poll_fn(|cx| {
            if let Poll::Ready(result) = sending.as_mut().poll(cx) {
                wire.has_head();
                return Poll::Ready(result.map_err(|mut failed| {
                    let returned = failed.take_message().map(|request| Box::new(request.into_parts().0));
                    let failure = classify(failed.error());
                    Unanswered {
                        error: CallError {
                            failure,
                            never_reached: false,
                            timed_out: false,
                        },
                        returned,
                    }
                }));
            }
            if total.is_some_and(|total| total.poll_due(cx).is_ready()) {
                return Poll::Ready(Err(Unanswered::timeout()));
            }
            while deadline.poll_due(cx).is_ready() {
                // The clock runs while it is the backend's turn: it restarts with every byte that went out, and
                // stands while we wait for the client, who has a limit of its own.
                if source.waits_for_client() {
                    deadline.set(patience);
                    continue;
                }
                let since = clock::monotonic_nanos().saturating_sub(wire.last_write_nanos().max(begun));
                let left = patience.saturating_sub(Duration::from_nanos(since));
                if left.is_zero() {
                    return Poll::Ready(Err(Unanswered::timeout()));
                }
                deadline.set(left);
            }
            Poll::Pending
        })
        .await
    }
}

/// The library's end of a request that is being sent.
trait Sending: Future<Output = Result<Response<Incoming>, TrySendError<Request<Outgoing>>>> {}

impl<F: Future<Output = Result<Response<Incoming>, TrySendError<Request<Outgoing>>>>> Sending for F {}

// What stands in place of a head that has been handed over.
fn nothing() -> Parts {
    Request::new(()).into_parts().0
}

struct Unanswered {
    error: CallError,
    returned: Option<Box<Parts>>,
}

impl Unanswered {
    const fn timeout() -> Self {
        let error = CallError {
            failure: RunFailure::Timeout,
            never_reached: false,
            timed_out: true,
        };
        Self { error, returned: None }
    }
}
