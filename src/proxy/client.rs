//! A client's connection: its socket under the limits on time that protect the sidecar from slow peers.
//!
//! HTTP is the library's; this only watches which side's turn it is. Between requests the idle limit runs, from the
//! first byte of a header section its own limit, and whenever the client does not read, the write limit.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::socket::Stream;
use super::sweep::{Deadline, Sweep};
use crate::live::tally::{ClientError, WorkerTally};

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

const IDLE: u8 = 0;
const HEADER: u8 = 1;
const BUSY: u8 = 2;

/// Whose turn it is on one connection; shared by its socket and the request under way.
#[derive(Debug)]
pub struct Turn {
    phase: AtomicU8,
    // Whether the client has yet to take what was written, of this answer or of one that we have done with.
    write_blocked: AtomicBool,
    // Whether the last request had a body, of which something may come after we have closed.
    has_body: AtomicBool,
    deadline: Deadline,
    limits: Limits,
}

impl Turn {
    /// A request has arrived, with a body or without: the client owes no other until it is answered.
    pub fn request_began(&self, has_body: bool) {
        self.has_body.store(has_body, Relaxed);
        self.phase.store(BUSY, Relaxed);
        self.deadline.clear();
    }

    /// The answer is complete.
    pub fn request_ended(&self) {
        self.phase.store(IDLE, Relaxed);
        if !self.write_blocked.load(Relaxed) {
            self.deadline.set(self.limits.idle);
        }
    }
}

/// The socket of a client's connection.
#[derive(Debug)]
pub struct ClientIo {
    stream: Stream,
    turn: Arc<Turn>,
    tally: Arc<WorkerTally>,
    lingers: bool,
}

impl ClientIo {
    /// Puts a freshly accepted connection under its limits.
    #[must_use]
    pub fn new(stream: Stream, sweep: &Arc<Sweep>, limits: Limits, tally: Arc<WorkerTally>) -> (Self, Arc<Turn>) {
        let deadline = sweep.deadline(limits.idle);
        let turn = Arc::new(Turn {
            phase: AtomicU8::new(IDLE),
            write_blocked: AtomicBool::new(false),
            has_body: AtomicBool::new(false),
            deadline,
            limits,
        });
        (
            Self {
                stream,
                turn: Arc::clone(&turn),
                tally,
                lingers: false,
            },
            turn,
        )
    }

    // The library waits for the rest of a header section and would close without a word, so the answer is written
    // here. Nothing else can be on its way out: the last answer was complete before this request began.
    fn say_timeout(&mut self, cx: &mut Context<'_>) {
        self.tally.client_errors.add(ClientError::HeaderTimeout);
        const ANSWER: &[u8] = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\
            x-understudy-error: header_timeout\r\n\r\n";
        // A client that does not even read this is closed all the same.
        if let Poll::Ready(Ok(_)) = Pin::new(&mut self.stream).poll_write(cx, ANSWER) {
            let _ = Pin::new(&mut self.stream).poll_flush(cx);
        }
    }

    fn poll_write_limit(&self, cx: &mut Context<'_>) -> Poll<io::Error> {
        if !self.turn.write_blocked.swap(true, Relaxed) {
            self.turn.deadline.set(self.turn.limits.write);
        }
        ready!(self.turn.deadline.poll_due(cx));
        self.tally.client_errors.add(ClientError::WriteTimeout);
        Poll::Ready(io::ErrorKind::TimedOut.into())
    }

    fn write_went_on(&self) {
        if self.turn.write_blocked.load(Relaxed) {
            self.turn.write_blocked.store(false, Relaxed);
            match self.turn.phase.load(Relaxed) {
                BUSY => self.turn.deadline.clear(),
                HEADER => self.turn.deadline.set(self.turn.limits.header),
                _ => self.turn.deadline.set(self.turn.limits.idle),
            }
        }
    }
}

impl AsyncRead for ClientIo {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let filled = buf.filled().len();
        if let Poll::Ready(result) = Pin::new(&mut self.stream).poll_read(cx, buf) {
            if buf.filled().len() > filled && self.turn.phase.load(Relaxed) == IDLE {
                self.turn.phase.store(HEADER, Relaxed);
                self.turn.deadline.set(self.turn.limits.header);
            }
            return Poll::Ready(result);
        }
        if self.turn.write_blocked.load(Relaxed) {
            return Poll::Pending;
        }
        ready!(self.turn.deadline.poll_due(cx));
        match self.turn.phase.load(Relaxed) {
            HEADER => self.say_timeout(cx),
            _ => debug_assert_ne!(self.turn.phase.load(Relaxed), BUSY),
        }
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
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
        true
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
