//! Connections to the backends: one pool per worker over hyper's low-level client.
//!
//! A pooled connection is asked for a pending close before it is used, and a request that may not be repeated uses
//! only one that was idle for less than [`FRESH`]: a close that had already arrived costs no request. One that crosses
//! the request on the wire costs no request that may be repeated: it goes out once more, on a new connection.

use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use http::header::{CONTENT_LENGTH, HeaderValue, TRANSFER_ENCODING};
use http::{HeaderMap, Request, Response, StatusCode};
use hyper::body::{Body as _, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

use super::body::{Outgoing, Source};
use super::sweep::{Deadline, Sweep};
use super::wire::{Wire, WireIo};
use crate::live::backend::{Backend, InFlight};
use crate::live::tally::RunFailure;
use crate::telemetry::{clock, spawn};

/// For how long a connection may have been idle to carry a request that must not be sent twice.
pub const FRESH: Duration = Duration::from_millis(500);

/// For how long a request that may not be repeated gets a connection of its own from a backend that closed a young idle
/// one without announcing it: whoever does so once does it again, and sometimes while a request is on its way.
const DISTRUST: Duration = Duration::from_secs(300);

/// Idle connections kept per backend address and worker.
const KEPT: usize = 256;

/// The most bytes that wait on a connection, in either direction: as much again is in memory for every client whose
/// backend does not read. A longer header section of an answer is a malformed answer.
const BUFFER_BYTES: usize = 64 * 1024;

/// The most header lines of an answer: what a service that sets a cookie per item may need, and the library's own limit
/// is below that.
const ANSWER_HEADERS: usize = 512;

/// The idle connections of one worker.
#[derive(Debug)]
pub struct Pool {
    idle: Mutex<HashMap<Arc<str>, Idle>>,
    sweep: Arc<Sweep>,
}

/// What is kept for one address.
#[derive(Debug, Default)]
struct Idle {
    // The newest stand last.
    connections: Vec<Connection>,
    // Until then it is known to close young connections without a word.
    distrusted_until_nanos: u64,
}

#[derive(Debug)]
struct Connection {
    sender: SendRequest<Outgoing>,
    wire: Arc<Wire>,
    since_nanos: u64,
    keep: Duration,
}

impl Idle {
    fn distrust(&mut self, distrust: bool, now_nanos: u64) {
        if distrust {
            self.distrusted_until_nanos = now_nanos.saturating_add(DISTRUST.as_nanos() as u64);
        }
    }
}

impl Connection {
    /// Closed by the other side, which had not said that it would, before it had been idle for long.
    fn closed_young(&self, now_nanos: u64) -> bool {
        self.sender.is_closed() && self.idle_for(now_nanos) < FRESH
    }

    fn idle_for(&self, now_nanos: u64) -> Duration {
        Duration::from_nanos(now_nanos.saturating_sub(self.since_nanos))
    }
}

impl Drop for Connection {
    // The task that drives it would first send the rest of its request, to a backend that may never read it.
    fn drop(&mut self) {
        self.wire.close();
    }
}

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
    const fn before(failure: RunFailure, timed_out: bool) -> Self {
        Self {
            failure,
            never_reached: true,
            timed_out,
        }
    }
}

/// A connection in use. Dropped without being given back, it is closed.
#[derive(Debug)]
pub struct Lease {
    connection: Option<Connection>,
    key: Arc<str>,
    pool: Arc<Pool>,
    _in_flight: InFlight,
}

impl Lease {
    /// Gives the connection back for the next request.
    pub fn give_back(mut self) {
        if let Some(mut connection) = self.connection.take()
            && !connection.sender.is_closed()
            && !connection.keep.is_zero()
        {
            connection.since_nanos = clock::monotonic_nanos();
            let mut idle = self.pool.lock();
            if let Some(kept) = idle.get_mut(&self.key) {
                if kept.connections.len() < KEPT {
                    kept.connections.push(connection);
                }
            } else {
                idle.insert(
                    Arc::clone(&self.key),
                    Idle {
                        connections: vec![connection],
                        distrusted_until_nanos: 0,
                    },
                );
            }
        }
    }
}

impl Pool {
    /// An empty pool whose timeouts are kept by `sweep`.
    #[must_use]
    pub fn new(sweep: Arc<Sweep>) -> Arc<Self> {
        Arc::new(Self {
            idle: Mutex::default(),
            sweep,
        })
    }

    /// Closes what has been idle for too long. To be called now and then.
    pub fn prune(&self) {
        let now = clock::monotonic_nanos();
        self.lock().retain(|_, kept| {
            let distrust = kept.connections.iter().any(|c| c.closed_young(now));
            kept.distrust(distrust, now);
            kept.connections
                .retain(|c| !c.sender.is_closed() && c.idle_for(now) < c.keep);
            !kept.connections.is_empty() || kept.distrusted_until_nanos > now
        });
    }

    fn distrust(&self, backend: &Backend) {
        let mut idle = self.lock();
        idle.entry(Arc::clone(&backend.authority))
            .or_default()
            .distrust(true, clock::monotonic_nanos());
    }

    /// Sends a request and waits for the answer's headers.
    ///
    /// `repeatable`: whether sending the request twice is harmless.
    ///
    /// # Errors
    /// [`CallError`]; while `never_reached` holds, the same request may be sent again, here or elsewhere.
    pub async fn call(
        self: &Arc<Self>,
        backend: &Arc<Backend>,
        mut head: http::request::Parts,
        source: &Source,
        repeatable: bool,
        patience: Patience,
    ) -> Result<Reply, CallError> {
        let Some(in_flight) = backend.enter() else {
            return Err(CallError::before(RunFailure::Overload, false));
        };
        let total = patience.total.map(|total| self.sweep.deadline(total));
        let mut pooled = self.take(backend, repeatable);
        loop {
            let reused = pooled.is_some();
            let mut connection = match pooled {
                Some(connection) => connection,
                None => self.connect(backend, total.as_ref()).await?,
            };
            let written_before = connection.wire.written();
            let again = (reused && repeatable).then(|| head.clone());
            let body = source.outgoing(&connection.wire);
            // The library sends a GET without its body unless its end is said to be marked.
            if body.size_hint().exact().is_none() {
                head.headers
                    .insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
            }
            let request = Request::from_parts(head, body);
            let sent = self
                .answer(&mut connection, request, source, patience.answer, total.as_ref())
                .await;
            match sent {
                Ok(response) if !is_framed_clearly(&response) => {
                    return Err(CallError {
                        failure: RunFailure::Malformed,
                        never_reached: false,
                        timed_out: false,
                    });
                }
                Ok(response) => {
                    let latency = connection.wire.answered_after();
                    connection.keep = keep_for(backend.idle, response.headers());
                    let lease = Lease {
                        connection: Some(connection),
                        key: Arc::clone(&backend.authority),
                        pool: Arc::clone(self),
                        _in_flight: in_flight,
                    };
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
                    let was_closed = error.failure == RunFailure::Reset && source.is_repeatable();
                    if reused && error.failure == RunFailure::Reset {
                        self.distrust(backend);
                    }
                    let again = returned.map(|returned| *returned).or(again.filter(|_| was_closed));
                    match again {
                        Some(again) if reused => head = again,
                        _ => return Err(error),
                    }
                    pooled = None;
                }
            }
        }
    }

    async fn answer(
        &self,
        connection: &mut Connection,
        request: Request<Outgoing>,
        source: &Source,
        patience: Duration,
        total: Option<&Deadline>,
    ) -> Result<Response<Incoming>, Unanswered> {
        let wire = Arc::clone(&connection.wire);
        let deadline = self.sweep.deadline(patience);
        let begun = clock::monotonic_nanos();
        let mut answer = pin!(connection.sender.try_send_request(request));
        poll_fn(|cx| {
            if let Poll::Ready(result) = answer.as_mut().poll(cx) {
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

    fn take(&self, backend: &Backend, repeatable: bool) -> Option<Connection> {
        let now = clock::monotonic_nanos();
        let mut idle = self.lock();
        let idle = idle.get_mut(&backend.authority)?;
        let mut at = idle.connections.len();
        while at > 0 {
            at -= 1;
            let candidate = &idle.connections[at];
            let idle_for = candidate.idle_for(now);
            // The newest stand last: once one is too old, all before it are.
            if !repeatable && (idle_for >= FRESH || idle.distrusted_until_nanos > now) {
                return None;
            }
            if candidate.sender.is_closed() || idle_for >= candidate.keep {
                let young = candidate.closed_young(now);
                idle.connections.remove(at);
                idle.distrust(young, now);
                continue;
            }
            // The connection's task may not have seen the end of the last answer yet.
            if !candidate.sender.is_ready() {
                continue;
            }
            let connection = idle.connections.remove(at);
            if connection.wire.is_quiet() {
                return Some(connection);
            }
            idle.distrust(idle_for < FRESH, now);
        }
        None
    }

    async fn connect(&self, backend: &Backend, total: Option<&Deadline>) -> Result<Connection, CallError> {
        let refused = |timed_out| CallError::before(RunFailure::Connect, timed_out);
        let failed = |error: &io::Error| {
            let failure = if is_local(error) {
                RunFailure::Local
            } else {
                RunFailure::Connect
            };
            CallError::before(failure, false)
        };
        let connecting = TcpStream::connect((&*backend.host, backend.port));
        let mut connecting = pin!(tokio::time::timeout(backend.connect_timeout, connecting));
        let stream = poll_fn(|cx| {
            if let Poll::Ready(connected) = connecting.as_mut().poll(cx) {
                return Poll::Ready(match connected {
                    Ok(Ok(stream)) => Ok(stream),
                    Ok(Err(error)) => Err(failed(&error)),
                    Err(_) => Err(refused(true)),
                });
            }
            match total.map(|total| total.poll_due(cx)) {
                Some(Poll::Ready(())) => Poll::Ready(Err(refused(true))),
                _ => Poll::Pending,
            }
        })
        .await?;
        // Neither option decides whether the request can be answered.
        let _ = stream.set_nodelay(true);
        let _ = keep_alive(&stream);
        let wire = Wire::new(stream);
        let (sender, connection) = http1::Builder::new()
            .max_headers(ANSWER_HEADERS)
            .max_header_size(BUFFER_BYTES)
            .max_buf_size(BUFFER_BYTES)
            .handshake(TokioIo::new(WireIo(Arc::clone(&wire))))
            .await
            .map_err(|_| refused(false))?;
        drop(spawn::task("upstream", async move {
            // What ended it reaches whoever waits for an answer; an idle connection may end as it likes.
            let _ = connection.await;
        }));
        Ok(Connection {
            sender,
            wire,
            since_nanos: 0,
            keep: backend.idle,
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, Idle>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Unanswered {
    error: CallError,
    returned: Option<Box<http::request::Parts>>,
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

fn classify(error: &hyper::Error) -> RunFailure {
    if error.is_parse() || error.is_parse_too_large() || error.is_parse_status() {
        RunFailure::Malformed
    } else {
        RunFailure::Reset
    }
}

// Two framings, or one that we do not know: whoever reads the answer after us could see another end than we do. Nor
// can an answer change the protocol, for no request asked for that.
fn is_framed_clearly(response: &Response<Incoming>) -> bool {
    let headers = response.headers();
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let clear = match (codings.next(), codings.next()) {
        (None, _) => true,
        (Some(coding), None) => {
            coding.as_bytes().eq_ignore_ascii_case(b"chunked") && !headers.contains_key(CONTENT_LENGTH)
        }
        (Some(_), Some(_)) => false,
    };
    clear && response.status() != StatusCode::SWITCHING_PROTOCOLS
}

// We have run out of something; whoever was to be asked has not.
fn is_local(error: &io::Error) -> bool {
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    matches!(error.raw_os_error(), Some(ENFILE | EMFILE))
        || matches!(
            error.kind(),
            io::ErrorKind::AddrNotAvailable | io::ErrorKind::OutOfMemory
        )
}

// Finds a peer that vanished without a word, on connections that carry long answers.
fn keep_alive(stream: &TcpStream) -> io::Result<()> {
    let probes = TcpKeepalive::new()
        .with_time(Duration::from_secs(15))
        .with_interval(Duration::from_secs(5));
    SockRef::from(stream).set_tcp_keepalive(&probes)
}

/// For how long a connection may be kept after this answer: what is configured, less where the backend says so, and
/// not at all where it is about to close.
fn keep_for(configured: Duration, headers: &HeaderMap) -> Duration {
    let tokens = |name| {
        headers
            .get_all(name)
            .iter()
            .filter_map(|v| v.to_str().ok())
            .flat_map(|v| v.split(','))
    };
    if tokens(http::header::CONNECTION).any(|token| token.trim().eq_ignore_ascii_case("close")) {
        return Duration::ZERO;
    }
    let promised = tokens(http::header::HeaderName::from_static("keep-alive"))
        .filter_map(|parameter| {
            let (name, value) = parameter.split_once('=')?;
            name.trim()
                .eq_ignore_ascii_case("timeout")
                .then(|| value.trim().parse::<u64>().ok())
                .flatten()
        })
        .min();
    match promised {
        Some(seconds) => configured.min(Duration::from_secs(seconds.saturating_sub(1))),
        None => configured,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backend_that_promises_less_is_kept_for_less() {
        let keep = |pairs: &[(&'static str, &'static str)]| {
            let headers = pairs
                .iter()
                .map(|(k, v)| (k.parse().unwrap(), v.parse().unwrap()))
                .collect();
            keep_for(Duration::from_millis(1_500), &headers)
        };
        assert_eq!(keep(&[]), Duration::from_millis(1_500));
        assert_eq!(
            keep(&[("keep-alive", "timeout=5, max=100")]),
            Duration::from_millis(1_500)
        );
        assert_eq!(keep(&[("keep-alive", "max=3, timeout=2")]), Duration::from_secs(1));
        assert_eq!(keep(&[("keep-alive", "timeout=1")]), Duration::ZERO);
        assert_eq!(keep(&[("connection", "keep-alive, Close")]), Duration::ZERO);
    }
}
