//! One request to a backend and the wait for its answer's headers.
//!
//! A request that may be repeated and met a connection that was just being closed goes out once more, on a new one. So
//! does any that the backend says it has not looked at.

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
use super::connect::Connection;
use super::failure::{CallError, classify};
use super::pool::{Lease, Pool, Way};
use super::reach::within;
use super::two::{self, Two};
use crate::live::backend::Backend;
use crate::live::service::{Pick, Target};
use crate::live::tally::RunFailure;
use crate::proxy::body::{Outgoing, Source};
use crate::proxy::spare::Spare;
use crate::proxy::sweep::Deadline;
use crate::telemetry::clock;

/// How often a request is sent that nobody has looked at: a backend may refuse streams or be about to close.
const ATTEMPTS: usize = 3;

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
        let limits = Limits {
            answer: patience.answer,
            total: total.as_ref(),
        };
        let upgradable = head.headers.contains_key(UPGRADE);
        let mut fresh = upgradable;
        let mut attempt = 0;
        loop {
            attempt += 1;
            let busy = self.choose(backend, total.as_ref()).await?;
            let ready = if fresh {
                None
            } else {
                self.take(&busy.target, repeatable)
            };
            let reused = ready.is_some();
            let (busy, mut way) = match ready {
                Some(way) => (busy, way),
                // Boxed, because it is rare and large: every request under way would carry it.
                None => Box::pin(self.way(backend, busy, repeatable, total.as_ref(), upgradable)).await?,
            };
            let shared = matches!(way, Way::Two(_));
            let spare = if shared {
                attempt < ATTEMPTS
            } else {
                reused && repeatable
            };
            let spare = spare.then(|| Spare::of(head));
            let sent = match &mut way {
                Way::One(connection) => self.alone(connection, head, source, limits).await,
                // Boxed, or the many that are alone would carry the room for it.
                Way::Two(stream) => Box::pin(self.among(&stream.two, &busy.target, head, source, limits)).await,
            };
            match sent {
                Ok((response, _)) if !is_clear(&response, upgradable) => {
                    return Err(CallError {
                        failure: RunFailure::Malformed,
                        never_reached: false,
                        timed_out: false,
                    });
                }
                Ok((response, latency)) => {
                    if let Way::One(connection) = &mut way {
                        backend.service.answered(connection.wire.said_interim());
                        connection.keep = if upgradable || !source.is_taken() {
                            // What is left of the request would still have to be sent, to somebody who has answered it.
                            Duration::ZERO
                        } else {
                            keep_for(backend.idle, response.headers())
                        };
                        connection.tunnelled = response.status() == StatusCode::SWITCHING_PROTOCOLS;
                    }
                    let lease = Lease::new(way, self, backend, busy, in_flight);
                    return Ok(Reply {
                        response,
                        lease,
                        latency,
                    });
                }
                Err(Unanswered { error, returned }) => {
                    if error.timed_out {
                        backend.service.suspect(&busy.target);
                    }
                    // A pooled connection that turns out to be closed says nothing about the backend. Only a new
                    // one does.
                    let closed = error.failure == RunFailure::Reset;
                    if reused && closed && !shared {
                        self.distrust(&busy.target);
                    }
                    let harmless = (reused && repeatable) || (shared && error.never_reached);
                    let again = match returned {
                        Some(returned) if !shared => Some(*returned),
                        _ => spare
                            .filter(|_| closed && harmless && source.is_repeatable())
                            .map(Spare::head),
                    };
                    match again {
                        Some(again) if reused || shared => *head = again,
                        _ => return Err(error),
                    }
                    fresh = !shared;
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
                    if Box::pin(within(backend.connect_timeout, total, told)).await.is_none() {
                        return Err(CallError::before(RunFailure::Connect, true));
                    }
                }
            }
        }
    }

    /// Over a connection of its own: what is written and read there is this request's.
    async fn alone(
        &self,
        connection: &mut Connection,
        head: &mut Parts,
        source: &Source,
        limits: Limits<'_>,
    ) -> Result<(Response<Incoming>, Duration), Unanswered> {
        let written_before = connection.wire.written();
        let body = source.outgoing(&connection.wire);
        // The library sends a GET without its body unless its end is said to be marked.
        if body.size_hint().exact().is_none() {
            head.headers
                .insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
        let request = Request::from_parts(std::mem::replace(head, nothing()), body);
        let wire = &connection.wire;
        wire.awaits_head();
        let sent = {
            let sending = pin!(connection.sender.try_send_request(request));
            self.answer(sending, source, limits, || wire.last_write_nanos()).await
        };
        wire.has_head();
        match sent {
            Ok(response) => Ok((response, wire.answered_after())),
            Err(failed) => Err(failed.told(wire.written() == written_before)),
        }
    }

    /// Over a connection that others use: its clocks run by what was taken of the request's body.
    async fn among(
        &self,
        two: &Two,
        target: &Target,
        head: &mut Parts,
        source: &Source,
        limits: Limits<'_>,
    ) -> Result<(Response<Incoming>, Duration), Unanswered> {
        let written_before = two.wire.written();
        let body = source.outgoing(&two.wire);
        let head = two.head(std::mem::replace(head, nothing()), target);
        let head = head.map_err(|failure| Unanswered {
            error: CallError::before(failure, false),
            returned: None,
        })?;
        // The library tells nobody of interim answers in this version.
        source.let_go();
        let begun = clock::monotonic_nanos();
        let mut sender = two.sender();
        let sent = {
            let sending = pin!(sender.try_send_request(Request::from_parts(head, body)));
            self.answer(sending, source, limits, || source.last_taken_nanos()).await
        };
        match sent {
            Ok(response) => {
                let since = source.last_taken_nanos().max(begun);
                let latency = Duration::from_nanos(two.wire.last_read_nanos().saturating_sub(since));
                Ok((response, latency))
            }
            Err(failed) => {
                if failed.ends_connection {
                    two.retire();
                }
                Err(failed.told(two.wire.written() == written_before))
            }
        }
    }

    async fn answer(
        &self,
        mut sending: Pin<&mut impl Sending>,
        source: &Source,
        limits: Limits<'_>,
        last_progress_nanos: impl Fn() -> u64,
    ) -> Result<Response<Incoming>, Failed> {
        let deadline = self.sweep.deadline(limits.answer);
        let begun = clock::monotonic_nanos();
        poll_fn(|cx| {
            if let Poll::Ready(result) = sending.as_mut().poll(cx) {
                return Poll::Ready(result.map_err(Failed::from));
            }
            if limits.total.is_some_and(|total| total.poll_due(cx).is_ready()) {
                return Poll::Ready(Err(Failed::TIMEOUT));
            }
            while deadline.poll_due(cx).is_ready() {
                // The clock runs while it is the backend's turn: it restarts with every byte that went out, and
                // stands while we wait for the client, who has a limit of its own.
                if source.waits_for_client() {
                    deadline.set(limits.answer);
                    continue;
                }
                let since = clock::monotonic_nanos().saturating_sub(last_progress_nanos().max(begun));
                let left = limits.answer.saturating_sub(Duration::from_nanos(since));
                if left.is_zero() {
                    return Poll::Ready(Err(Failed::TIMEOUT));
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

/// [`Patience`] while it runs.
#[derive(Clone, Copy)]
struct Limits<'a> {
    answer: Duration,
    total: Option<&'a Deadline>,
}

struct Unanswered {
    error: CallError,
    returned: Option<Box<Parts>>,
}

/// What the library made of a request that it did not get answered.
struct Failed {
    failure: RunFailure,
    returned: Option<Box<Parts>>,
    untouched: bool,
    ends_connection: bool,
}

impl Failed {
    // Whoever has not answered in time may have stopped for all.
    const TIMEOUT: Self = Self {
        failure: RunFailure::Timeout,
        returned: None,
        untouched: false,
        ends_connection: true,
    };

    fn told(self, unwritten: bool) -> Unanswered {
        Unanswered {
            error: CallError {
                failure: self.failure,
                never_reached: self.returned.is_some() || self.untouched || unwritten,
                timed_out: self.failure == RunFailure::Timeout,
            },
            returned: self.returned,
        }
    }
}

impl From<TrySendError<Request<Outgoing>>> for Failed {
    fn from(mut failed: TrySendError<Request<Outgoing>>) -> Self {
        let returned = failed.take_message().map(|request| Box::new(request.into_parts().0));
        let ended = two::ended(failed.error());
        Self {
            failure: ended.map_or_else(|| classify(failed.error()), |ended| ended.failure),
            untouched: ended.is_some_and(|ended| ended.untouched),
            ends_connection: ended.is_none_or(|ended| ended.going_away),
            returned,
        }
    }
}
