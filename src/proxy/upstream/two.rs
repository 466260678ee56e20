//! HTTP/2 to a backend: a few connections, each for many requests at once.
//!
//! A connection is ready when the backend has said how many streams it takes; before that nothing is sent, so one that
//! does not speak HTTP/2 has cost no request. From then on each request is a [`Stream`]. A connection that is about to
//! end (GOAWAY), has ended, or on which an answer did not come in time gets no further requests; those under way go on.

use std::error::Error as _;
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use http::header::HOST;
use http::uri::{Authority, Scheme};
use http::{Uri, Version, request};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::limits::{BUFFER_BYTES, FRESH};
use crate::live::service::Target;
use crate::live::tally::RunFailure;
use crate::proxy::body::Outgoing;
use crate::proxy::wire::{Quiet, Wire};
use crate::telemetry::{clock, spawn};

/// The most requests at once on one connection, whatever the backend allows: one lost packet holds all of them up.
const STREAMS: usize = 128;

/// Bytes of one answer that wait for a client who does not read. The connection's window has room for all streams, or
/// the slow ones would stop the others.
const STREAM_WINDOW: u32 = 64 * 1024;

/// The library takes sizes of header sections as this.
const HEADER_BYTES: u32 = 64 * 1024;

/// A connection for many requests.
pub(super) struct Two {
    sender: SendRequest<Outgoing>,
    /// Its socket.
    pub(super) wire: Arc<Wire>,
    secured: bool,
    /// For how long it is kept without a request.
    pub(super) keep: Duration,
    told: Arc<Told>,
    streams: AtomicUsize,
    retired: AtomicBool,
    idle_since_nanos: AtomicU64,
}

impl fmt::Debug for Two {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Two")
            .field("streams", &self.streams)
            .field("retired", &self.retired)
            .finish_non_exhaustive()
    }
}

/// A request's place on a connection. Dropped, it frees the place; the library resets a stream that has not ended.
#[derive(Debug)]
pub(super) struct Stream {
    /// The connection.
    pub(super) two: Arc<Two>,
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.two.idle_since_nanos.store(clock::monotonic_nanos(), Relaxed);
        self.two.streams.fetch_sub(1, Relaxed);
    }
}

impl Two {
    /// A handle that sends one request.
    pub(super) fn sender(&self) -> SendRequest<Outgoing> {
        self.sender.clone()
    }

    /// No further request uses it.
    pub(super) fn retire(&self) {
        self.retired.store(true, Relaxed);
    }

    /// Whether it takes no further requests.
    pub(super) fn is_over(&self) -> bool {
        self.retired.load(Relaxed) || self.sender.is_closed()
    }

    /// Whether nothing is under way on it, for this long.
    pub(super) fn is_idle_for(&self, limit: Duration, now_nanos: u64) -> bool {
        self.streams.load(Relaxed) == 0 && self.idle_for(now_nanos) >= limit
    }

    fn idle_for(&self, now_nanos: u64) -> Duration {
        Duration::from_nanos(now_nanos.saturating_sub(self.idle_since_nanos.load(Relaxed)))
    }

    /// A place for a request, if there is one: by the backend's word and by ours, and, where nothing else is under way, by
    /// the rules for connections that have been idle.
    pub(super) fn enter(self: &Arc<Self>, repeatable: bool, now_nanos: u64) -> Option<Stream> {
        let streams = self.streams.load(Relaxed);
        if streams >= STREAMS.min(self.told.most.load(Relaxed)) {
            return None;
        }
        if streams == 0 && ((!repeatable && self.idle_for(now_nanos) >= FRESH) || self.wire.quiet() != Quiet::Yes) {
            return None;
        }
        self.streams.fetch_add(1, Relaxed);
        Some(Stream { two: Arc::clone(self) })
    }

    /// The place of the request that it was opened for.
    pub(super) fn first(self: &Arc<Self>) -> Stream {
        self.streams.fetch_add(1, Relaxed);
        Stream { two: Arc::clone(self) }
    }

    /// A request's head as this version has it: the host in the target, and nothing of one connection's only.
    ///
    /// # Errors
    /// The head, if no target can be made of it.
    pub(super) fn head(&self, mut head: request::Parts, target: &Target) -> Result<request::Parts, RunFailure> {
        let host = head.headers.remove(HOST);
        let authority = match &host {
            Some(host) => Authority::try_from(host.as_bytes()),
            None => Authority::try_from(target.authority()),
        };
        let mut parts = head.uri.into_parts();
        parts.scheme = Some(if self.secured { Scheme::HTTPS } else { Scheme::HTTP });
        parts.authority = Some(authority.map_err(|_| RunFailure::Malformed)?);
        head.uri = Uri::from_parts(parts).map_err(|_| RunFailure::Malformed)?;
        head.version = Version::HTTP_2;
        Ok(head)
    }
}

/// What the backend has said of its limits.
#[derive(Debug, Default)]
struct Told {
    most: AtomicUsize,
    waker: Mutex<Option<Waker>>,
}

/// Speaks HTTP/2 over a stream that is connected.
///
/// # Errors
/// The backend did not say that it speaks it, too.
pub(super) async fn start<I>(io: I, wire: &Arc<Wire>, secured: bool, keep: Duration) -> Result<Arc<Two>, RunFailure>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    wire.share();
    let told = Arc::new(Told::default());
    let io = Noticed {
        io,
        told: Arc::clone(&told),
    };
    #[allow(clippy::cast_possible_truncation, reason = "a constant of 128")]
    let connection_window = STREAM_WINDOW * STREAMS as u32;
    let (sender, connection) = http2::Builder::new(Spawner)
        // None before the backend's first word, which says how many.
        .initial_max_send_streams(0)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(connection_window)
        .max_header_list_size(HEADER_BYTES)
        .max_send_buf_size(BUFFER_BYTES)
        .handshake(TokioIo::new(io))
        .await
        .map_err(|_| RunFailure::Connect)?;
    let (ready, is_ready) = tokio::sync::oneshot::channel();
    let seen = Arc::clone(&told);
    drop(spawn::task("upstream", async move {
        let mut connection = pin!(connection);
        let mut ready = Some(ready);
        // What ended it reaches whoever waits for an answer.
        let _ = poll_fn(|cx| {
            let polled = connection.as_mut().poll(cx);
            let most = connection.current_max_send_streams();
            seen.most.store(most, Relaxed);
            if most > 0 {
                if let Some(ready) = ready.take() {
                    // Whoever waited may have given up.
                    let _ = ready.send(());
                }
            } else {
                *seen.waker.lock().unwrap_or_else(PoisonError::into_inner) = Some(cx.waker().clone());
            }
            polled
        })
        .await;
    }));
    is_ready.await.map_err(|_| RunFailure::Connect)?;
    Ok(Arc::new(Two {
        sender,
        wire: Arc::clone(wire),
        secured,
        keep,
        told,
        streams: AtomicUsize::new(0),
        retired: AtomicBool::new(false),
        idle_since_nanos: AtomicU64::new(clock::monotonic_nanos()),
    }))
}

/// Runs the library's tasks.
#[derive(Clone, Debug)]
struct Spawner;

impl<F> hyper::rt::Executor<F> for Spawner
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, future: F) {
        drop(spawn::task("upstream stream", future));
    }
}

/// A stream that has the limits looked at after it was read, until they are known: the library tells nobody.
struct Noticed<I> {
    io: I,
    told: Arc<Told>,
}

impl<I: AsyncRead + Unpin> AsyncRead for Noticed<I> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        let polled = Pin::new(&mut self.io).poll_read(cx, buf);
        if polled.is_ready() && self.told.most.load(Relaxed) == 0 {
            let waker = self.told.waker.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(waker) = waker {
                waker.wake();
            }
        }
        polled
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Noticed<I> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// What an error says of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ended {
    /// What happened.
    pub(super) failure: RunFailure,
    /// The backend says that it has not looked at the request: REFUSED_STREAM, or GOAWAY with a lower last id.
    pub(super) untouched: bool,
    /// The connection takes no more.
    pub(super) going_away: bool,
}

/// What the library's error says, if it is one of HTTP/2.
pub(super) fn ended(error: &hyper::Error) -> Option<Ended> {
    let mut source = error.source();
    let error = loop {
        let inner = source?;
        match inner.downcast_ref::<h2::Error>() {
            Some(error) => break error,
            None => source = inner.source(),
        }
    };
    let refused = error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
    Some(Ended {
        failure: if error.is_library() && error.reason().is_some() {
            RunFailure::Malformed
        } else {
            RunFailure::Reset
        },
        untouched: error.is_remote() && (error.is_go_away() || refused),
        going_away: error.is_go_away(),
    })
}
