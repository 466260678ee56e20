//! A client's connection: its stream under the limits on time that protect the sidecar from slow peers, and behind the
//! guard that lets only well-formed messages through to the HTTP library.
//!
//! HTTP is the library's; this watches which side's turn it is, and holds back what has not been judged. Between
//! requests the idle limit runs, from the first byte of a header section its own limit, and whenever the client does
//! not read, the write limit. A request that is refused is replaced by one that the service answers with the reason, so
//! that the answer leaves in its order after those to earlier requests, and the connection ends.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::framing::{Fault, Guard, Rest};
use super::refusals::Refusals;
use super::socket::{Peer, Stream};
use super::sweep::{Deadline, Sweep};
use crate::live::tally::ClientError;

/// The limits on a client's slowness.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// For a header section, from its first byte.
    pub header: Duration,
    /// Between requests.
    pub idle: Duration,
    /// For the client to take what was written.
    pub write: Duration,
}

/// How long a client that is still sending when we close has to read why.
const LINGER: Duration = Duration::from_secs(1);

/// Bytes that are taken from a client while its request for another protocol is undecided.
const UNDECIDED_BYTES: usize = 16 << 10;

/// What the service sees in place of a request that is refused.
const IN_PLACE: &[u8] = b"GET / HTTP/1.1\r\nhost: refused\r\nconnection: close\r\n\r\n";
const IN_PLACE_OF_HEAD: &[u8] = b"HEAD / HTTP/1.1\r\nhost: refused\r\nconnection: close\r\n\r\n";

const IDLE: u8 = 0;
const HEADER: u8 = 1;
const BUSY: u8 = 2;
const TUNNEL: u8 = 3;

/// Whose turn it is on one connection; shared by its stream and the requests under way.
#[derive(Debug)]
pub struct Turn {
    phase: AtomicU8,
    // Whether the client has yet to take what was written, of this answer or of one that we have done with.
    write_blocked: AtomicBool,
    // Whether the last request had a body, of which something may come after we have closed.
    has_body: AtomicBool,
    // Whether a part of the next header section has arrived.
    head_begun: AtomicBool,
    // Requests that the service has seen, and those that are answered.
    begun: AtomicU64,
    ended: AtomicU64,
    // The request that is not one, by its number, and why.
    refused: OnceLock<(u64, ClientError)>,
    opaque: AtomicBool,
    // Set while bytes wait for the end of the request before them.
    has_reader: AtomicBool,
    reader: Mutex<Option<Waker>>,
    deadline: Deadline,
    limits: Limits,
}

impl Turn {
    fn new(sweep: &Arc<Sweep>, limits: Limits) -> Self {
        Self {
            phase: AtomicU8::new(IDLE),
            write_blocked: AtomicBool::new(false),
            has_body: AtomicBool::new(false),
            head_begun: AtomicBool::new(false),
            begun: AtomicU64::new(0),
            ended: AtomicU64::new(0),
            refused: OnceLock::new(),
            opaque: AtomicBool::new(false),
            has_reader: AtomicBool::new(false),
            reader: Mutex::new(None),
            deadline: sweep.deadline(limits.idle),
            limits,
        }
    }

    /// Why the next request is refused, if it is. To be asked once for each request, in their order.
    #[must_use]
    pub fn next_is_refused(&self) -> Option<ClientError> {
        let number = self.begun.fetch_add(1, Relaxed);
        self.refused
            .get()
            .filter(|(refused, _)| *refused == number)
            .map(|(_, reason)| *reason)
    }

    /// A request has arrived, with a body or without: the client owes no other until it is answered.
    pub fn request_began(&self, has_body: bool) {
        self.has_body.store(has_body, Relaxed);
        self.phase.store(BUSY, Relaxed);
        self.deadline.clear();
    }

    /// The answer is complete.
    pub fn request_ended(&self) {
        self.ended.fetch_add(1, Relaxed);
        if self.phase.load(Relaxed) == TUNNEL {
            return;
        }
        let (phase, limit) = if self.head_begun.load(Relaxed) {
            (HEADER, self.limits.header)
        } else {
            (IDLE, self.limits.idle)
        };
        self.phase.store(phase, Relaxed);
        if !self.write_blocked.load(Relaxed) {
            self.deadline.set(limit);
        }
        if self.has_reader.load(Relaxed) {
            self.wake_reader();
        }
    }

    /// What the client sends after its last request is no HTTP: the request asked for another protocol and gets it.
    /// To be called before the answer leaves. From here no limit of HTTP holds.
    pub fn switch_protocols(&self) {
        self.phase.store(TUNNEL, Relaxed);
        self.deadline.clear();
        self.opaque.store(true, Relaxed);
        self.wake_reader();
    }

    fn head_began(&self) {
        self.head_begun.store(true, Relaxed);
        if self.phase.load(Relaxed) == IDLE {
            self.phase.store(HEADER, Relaxed);
            self.deadline.set(self.limits.header);
        }
    }

    fn wake_when_ended(&self, cx: &Context<'_>) {
        *self.reader.lock().unwrap_or_else(PoisonError::into_inner) = Some(cx.waker().clone());
        self.has_reader.store(true, Relaxed);
    }

    fn wake_reader(&self) {
        self.has_reader.store(false, Relaxed);
        let reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(reader) = reader {
            reader.wake();
        }
    }
}

/// Bytes that arrived and that the library has not got.
#[derive(Debug, Default)]
struct Held {
    bytes: Vec<u8>,
    // So many of them may pass.
    clear: usize,
    // So many have passed.
    passed: usize,
}

impl Held {
    fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    fn unjudged(&self) -> &[u8] {
        &self.bytes[self.clear..]
    }

    /// Hands over what may pass; whether anything did.
    fn deliver(&mut self, buf: &mut ReadBuf<'_>) -> bool {
        let ready = &self.bytes[self.passed..self.clear];
        if ready.is_empty() {
            return false;
        }
        let len = ready.len().min(buf.remaining());
        buf.put_slice(&ready[..len]);
        self.passed += len;
        if self.passed == self.clear {
            self.bytes.drain(..self.clear);
            (self.clear, self.passed) = (0, 0);
            if self.bytes.is_empty() {
                // Most connections never hold anything: none keeps the room that one head needed.
                self.bytes = Vec::new();
            }
        }
        true
    }
}

/// The stream of a client's connection.
#[derive(Debug)]
pub struct ClientIo {
    stream: Stream,
    peer: Peer,
    turn: Arc<Turn>,
    refusals: Arc<Refusals>,
    guard: Guard,
    held: Held,
    // Nothing more is read: what arrives now is refused.
    is_refused: bool,
    // The library has to hear that the body which it is reading goes on no further.
    is_broken: bool,
    lingers: bool,
}

impl ClientIo {
    /// Puts a freshly accepted connection under its limits.
    #[must_use]
    pub fn new(
        stream: Stream,
        peer: Peer,
        guard: Guard,
        limits: Limits,
        sweep: &Arc<Sweep>,
        refusals: &Arc<Refusals>,
    ) -> (Self, Arc<Turn>) {
        let turn = Arc::new(Turn::new(sweep, limits));
        let io = Self {
            stream,
            peer,
            turn: Arc::clone(&turn),
            refusals: Arc::clone(refusals),
            guard,
            held: Held::default(),
            is_refused: false,
            is_broken: false,
            lingers: false,
        };
        (io, turn)
    }

    /// Judges what has arrived in `buf` after its first `filled` bytes, and takes back what may not pass.
    fn judge(&mut self, buf: &mut ReadBuf<'_>, filled: usize) {
        let fresh = &buf.filled()[filled..];
        if self.held.is_empty() {
            let verdict = self.guard.examine(fresh);
            if verdict.clear < fresh.len() {
                self.held.bytes.extend_from_slice(&fresh[verdict.clear..]);
                buf.set_filled(filled + verdict.clear);
            }
            self.heed(verdict.rest);
        } else {
            self.held.bytes.extend_from_slice(fresh);
            buf.set_filled(filled);
            self.judge_held();
        }
    }

    fn judge_held(&mut self) {
        let verdict = self.guard.examine(self.held.unjudged());
        self.held.clear += verdict.clear;
        self.heed(verdict.rest);
    }

    fn heed(&mut self, rest: Rest) {
        let begun = !self.held.unjudged().is_empty() && self.guard.is_between();
        match rest {
            Rest::Refused(fault) => self.refuse(fault),
            Rest::Incomplete if begun => self.turn.head_began(),
            Rest::Incomplete | Rest::Undecided => self.turn.head_begun.store(false, Relaxed),
        }
    }

    fn refuse(&mut self, fault: Fault) {
        self.refusals.book(&self.peer, fault.reason, Some(fault.at));
        self.is_refused = true;
        let place = if self.held.unjudged().starts_with(b"HEAD ") {
            IN_PLACE_OF_HEAD
        } else {
            IN_PLACE
        };
        self.held.bytes.truncate(self.held.clear);
        if fault.in_body {
            self.is_broken = true;
            return;
        }
        // Nobody else sets it, and only once.
        let _ = self.turn.refused.set((self.guard.heads(), fault.reason));
        self.held.bytes.extend_from_slice(place);
        self.held.clear = self.held.bytes.len();
    }

    /// Whether bytes after a request for another protocol may be looked at. If not, the task is woken when they may.
    fn poll_decided(&mut self, cx: &Context<'_>) -> Poll<()> {
        if self.turn.ended.load(Relaxed) < self.guard.heads() {
            self.turn.wake_when_ended(cx);
            return Poll::Pending;
        }
        self.guard.decide(false);
        self.judge_held();
        Poll::Ready(())
    }

    fn poll_limits(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.turn.write_blocked.load(Relaxed) {
            return Poll::Pending;
        }
        ready!(self.turn.deadline.poll_due(cx));
        if self.turn.phase.load(Relaxed) == HEADER && !self.is_refused {
            let fault = Fault {
                reason: ClientError::HeaderTimeout,
                at: self.held.unjudged().len() as u64,
                in_body: false,
            };
            self.refuse(fault);
            return Poll::Ready(Ok(()));
        }
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    fn poll_write_limit(&self, cx: &mut Context<'_>) -> Poll<io::Error> {
        if self.turn.phase.load(Relaxed) == TUNNEL {
            return Poll::Pending;
        }
        if !self.turn.write_blocked.swap(true, Relaxed) {
            self.turn.deadline.set(self.turn.limits.write);
        }
        ready!(self.turn.deadline.poll_due(cx));
        self.refusals.book(&self.peer, ClientError::WriteTimeout, None);
        Poll::Ready(io::ErrorKind::TimedOut.into())
    }

    fn write_went_on(&self) {
        if self.turn.write_blocked.load(Relaxed) {
            self.turn.write_blocked.store(false, Relaxed);
            match self.turn.phase.load(Relaxed) {
                BUSY | TUNNEL => self.turn.deadline.clear(),
                HEADER => self.turn.deadline.set(self.turn.limits.header),
                _ => self.turn.deadline.set(self.turn.limits.idle),
            }
        }
    }
}

impl AsyncRead for ClientIo {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let io = self.get_mut();
        loop {
            if io.held.deliver(buf) {
                return Poll::Ready(Ok(()));
            }
            if io.is_broken {
                return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
            }
            if io.turn.opaque.load(Relaxed) && !io.guard.is_opaque() {
                io.guard.decide(true);
                io.held.clear = io.held.bytes.len();
                continue;
            }
            if io.guard.is_opaque() {
                return Pin::new(&mut io.stream).poll_read(cx, buf);
            }
            if io.guard.is_undecided() {
                if io.poll_decided(cx).is_ready() {
                    continue;
                }
                if io.held.bytes.len() >= UNDECIDED_BYTES {
                    return Poll::Pending;
                }
            }
            let filled = buf.filled().len();
            if io.is_refused || Pin::new(&mut io.stream).poll_read(cx, buf)?.is_pending() {
                // Only a refusal for slowness leaves something to hand over.
                ready!(io.poll_limits(cx))?;
                continue;
            }
            if buf.filled().len() == filled {
                return Poll::Ready(Ok(()));
            }
            io.judge(buf, filled);
            if buf.filled().len() > filled {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl AsyncWrite for ClientIo {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[io::IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match Pin::new(&mut self.stream).poll_write_vectored(cx, bufs) {
            Poll::Ready(result) => {
                self.write_went_on();
                Poll::Ready(result)
            }
            Poll::Pending => self.poll_write_limit(cx).map(Err),
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.stream).poll_flush(cx) {
            Poll::Ready(result) => Poll::Ready(result),
            Poll::Pending => self.poll_write_limit(cx).map(Err),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.lingers {
            ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
            let may_send = self.turn.has_body.load(Relaxed) || self.turn.phase.load(Relaxed) == HEADER;
            if !may_send {
                return Poll::Ready(Ok(()));
            }
            self.lingers = true;
            self.turn.deadline.set(LINGER);
        }
        // Closing on bytes that nobody read resets the connection, and takes the answer back from the client.
        let mut unread = [0; 4_096];
        while self.turn.deadline.poll_due(cx).is_pending() {
            let mut buf = ReadBuf::new(&mut unread);
            let read = ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buf));
            if read.is_err() || buf.filled().is_empty() {
                break;
            }
        }
        Poll::Ready(Ok(()))
    }
}
