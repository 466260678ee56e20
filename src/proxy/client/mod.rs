//! A client's connection: its stream under the limits on time that protect the sidecar from slow peers, and behind the
//! guards that let only what follows the rules through to the HTTP library.
//!
//! HTTP is the library's; this watches which side's turn it is, and holds back what has not been judged. Between
//! requests the idle limit runs, from the first byte of a header section its own limit, and whenever the client does
//! not read, the write limit. What happens to a connection that breaks a rule is told in `messages` for HTTP/1 and in
//! `streams` for HTTP/2.

mod held;
mod interim;
mod messages;
mod streams;
mod turn;

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::frames;
use super::framing;
use super::refusals::Refusals;
use super::socket::{Peer, Stream};
use super::sweep::Sweep;
use crate::live::tally::ClientError;
use held::Held;
use streams::Farewell;

pub use turn::{OpenStream, Turn};

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

/// What holds for every client connection that is served.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// The limits on slowness.
    pub client: Limits,
    /// The largest header section.
    pub head: framing::Limits,
    /// The most requests at once on one connection over HTTP/2.
    pub streams: u32,
    /// Whether a client over HTTP/1 that has closed its sending half gets its answer.
    pub half_close: bool,
}

/// How long a client that is still sending when we close has to read why.
const LINGER: Duration = Duration::from_secs(1);

/// The most bytes that are read before it is known which protocol they are of.
const FIRST_BYTES: usize = 4_096;

/// Who judges what arrives.
#[derive(Debug)]
enum Guard {
    Messages(framing::Guard),
    Frames(Box<frames::Guard>),
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
    // Whether a client that sends nothing more may wait for its answer, and whether this one does.
    half_close: bool,
    is_half_closed: bool,
    farewell: Option<Box<Farewell>>,
    lingers: bool,
    // Whether the connection is reset wherever it is dropped.
    resets: bool,
}

impl ClientIo {
    /// Puts a freshly accepted connection under its limits.
    #[must_use]
    pub fn new(
        stream: Stream,
        peer: Peer,
        settings: Settings,
        sweep: &Arc<Sweep>,
        refusals: &Arc<Refusals>,
    ) -> (Self, Arc<Turn>) {
        let turn = Arc::new(Turn::new(sweep, settings.client));
        let io = Self {
            stream,
            peer,
            turn: Arc::clone(&turn),
            refusals: Arc::clone(refusals),
            guard: Guard::Messages(framing::Guard::new(settings.head)),
            held: Held::default(),
            is_refused: false,
            is_broken: false,
            half_close: settings.half_close,
            is_half_closed: false,
            farewell: None,
            lingers: false,
            resets: false,
        };
        (io, turn)
    }

    /// Waits for the first bytes; whether they are of HTTP/2.
    ///
    /// # Errors
    /// The client left, or said nothing for as long as a connection may be idle.
    pub async fn speaks_http2(&mut self) -> io::Result<bool> {
        poll_fn(|cx| self.poll_protocol(cx)).await
    }

    fn poll_protocol(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        loop {
            if let Some(is_http2) = frames::begins(self.held.unjudged()) {
                return Poll::Ready(Ok(is_http2));
            }
            let mut room = [const { MaybeUninit::uninit() }; FIRST_BYTES];
            let mut buf = ReadBuf::uninit(&mut room);
            if Pin::new(&mut self.stream).poll_read(cx, &mut buf)?.is_pending() {
                ready!(self.turn.poll_due(cx));
                if self.held.is_empty() {
                    return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
                }
                // Half a preface is no request either: the guard on messages says so.
                return Poll::Ready(Ok(false));
            }
            if buf.filled().is_empty() {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            self.held.push(buf.filled());
            self.turn.head_began();
        }
    }

    /// Begins with the protocol that is spoken. `header_bytes` bounds a header section over HTTP/2.
    pub fn begin(&mut self, is_http2: bool, header_bytes: usize) {
        if is_http2 {
            self.turn.multiplex();
            self.guard = Guard::Frames(Box::new(frames::Guard::new(header_bytes)));
            self.judge_first_frames();
        } else if !self.held.is_empty() {
            self.judge_held();
        }
    }

    /// Writes the interim answers that wait.
    fn poll_interim(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { turn, stream, .. } = self;
        turn.interim.write(|bytes| {
            while !bytes.is_empty() {
                let written = ready!(Pin::new(&mut *stream).poll_write(cx, bytes))?;
                bytes.drain(..written);
            }
            Poll::Ready(Ok(()))
        })
    }

    fn poll_write_limit(&self, cx: &mut Context<'_>) -> Poll<io::Error> {
        ready!(self.turn.poll_write_due(cx));
        self.refusals.book(&self.peer, ClientError::WriteTimeout, None);
        Poll::Ready(io::ErrorKind::TimedOut.into())
    }

    // Set before the first byte of such an answer is written, and held until its last is, so that whatever ends the connection
    // in between resets it.
    fn reset_on_drop(&mut self, reset: bool) {
        if self.resets != reset {
            self.resets = reset;
            self.stream.reset_on_drop(reset);
        }
    }

    /// Closes the sending half, then reads what nobody wants until the client closes too, or for [`LINGER`]: closing on
    /// bytes that nobody read resets the connection, and takes the answer back from the client.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.lingers {
            ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
            if !self.turn.may_send() {
                return Poll::Ready(Ok(()));
            }
            self.lingers = true;
            self.turn.close_within(LINGER);
        }
        let mut unread = [const { MaybeUninit::uninit() }; 4_096];
        while self.turn.poll_closed(cx).is_pending() {
            let mut buf = ReadBuf::uninit(&mut unread);
            let read = ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buf));
            if read.is_err() || buf.filled().is_empty() {
                break;
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for ClientIo {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let io = self.get_mut();
        match io.guard {
            Guard::Messages(_) => io.poll_read_messages(cx, buf),
            Guard::Frames(_) => io.poll_read_frames(cx, buf),
        }
    }
}

impl AsyncWrite for ClientIo {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[io::IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let io = self.get_mut();
        if io.farewell.is_some() {
            return io.poll_write_last(cx, bufs);
        }
        if io.turn.must_not_close() {
            io.reset_on_drop(true);
        }
        if io.turn.interim.any() && io.poll_interim(cx)?.is_pending() {
            return io.poll_write_limit(cx).map(Err);
        }
        match Pin::new(&mut io.stream).poll_write_vectored(cx, bufs) {
            Poll::Ready(result) => {
                io.turn.write_went_on();
                if let (Guard::Frames(_), Ok(written)) = (&io.guard, &result) {
                    io.sent(bufs, *written);
                    if io.farewell.is_some() {
                        // It leaves when the library reads again.
                        cx.waker().wake_by_ref();
                    }
                }
                Poll::Ready(result)
            }
            Poll::Pending => io.poll_write_limit(cx).map(Err),
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
        if self.turn.must_not_close() {
            return Poll::Ready(Ok(()));
        }
        self.reset_on_drop(false);
        self.poll_linger(cx)
    }
}
