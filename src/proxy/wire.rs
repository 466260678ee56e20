//! A backend connection's socket, shared by the task that drives it and the pool that judges it.
//!
//! It counts the bytes handed to the kernel, so that "not one byte was written" is a fact and no guess, and notes when
//! the last of them went out: a run's latency begins there.

use std::io;
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use super::gather::gathered;
use crate::telemetry::clock;

/// A connected socket.
#[derive(Debug)]
pub enum Socket {
    /// Over the network.
    Tcp(TcpStream),
    /// On this machine.
    Unix(UnixStream),
}

// One match for every call: the methods are the same for each kind.
macro_rules! each {
    ($socket:expr, $stream:ident => $call:expr) => {
        match $socket {
            Socket::Tcp($stream) => $call,
            Socket::Unix($stream) => $call,
        }
    };
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        each!(self, stream => stream.as_fd())
    }
}

/// What may arrive between a request and the head of its answer: interim answers, and what is read along with the head.
/// Whoever sends more floods, and the thread would do nothing else than read it.
const BEFORE_ANSWER_BYTES: u64 = 512 * 1024;

const UNBOUNDED: u64 = u64::MAX;

/// How an interim answer begins. One that comes in smaller pieces is not seen, and another will come.
const INTERIM: &[u8] = b"HTTP/1.1 1";

/// What the kernel has for us on a connection that nothing was asked of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quiet {
    /// Nothing: it may be written to.
    Yes,
    /// Something that may be well: it is not to be written to until that has been read.
    NotYet,
    /// A close, or bytes that nobody asked for.
    No,
}

/// One socket to a backend.
#[derive(Debug)]
pub struct Wire {
    stream: Socket,
    secured: bool,
    shared: AtomicBool,
    written: AtomicU64,
    last_write_nanos: AtomicU64,
    last_read_nanos: AtomicU64,
    // Bytes that may still arrive.
    may_arrive: AtomicU64,
    said_interim: AtomicBool,
}

impl Wire {
    /// Wraps a connected socket; `secured` if TLS is spoken over it.
    #[must_use]
    pub fn new(stream: Socket, secured: bool) -> Arc<Self> {
        Arc::new(Self {
            stream,
            secured,
            shared: AtomicBool::new(false),
            written: AtomicU64::new(0),
            last_write_nanos: AtomicU64::new(0),
            last_read_nanos: AtomicU64::new(0),
            may_arrive: AtomicU64::new(UNBOUNDED),
            said_interim: AtomicBool::new(false),
        })
    }

    /// From now on it is for several requests at once: what it last wrote or read says nothing of any one of them.
    pub fn share(&self) {
        self.shared.store(true, Relaxed);
    }

    /// Whether it is for several requests at once.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.shared.load(Relaxed)
    }

    /// Bytes handed to the kernel since the connection was made.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.written.load(Relaxed)
    }

    /// When the last byte was handed to the kernel, in nanoseconds of the monotonic clock; 0 if none was.
    #[must_use]
    pub fn last_write_nanos(&self) -> u64 {
        self.last_write_nanos.load(Relaxed)
    }

    /// When the last byte was taken from the kernel, likewise.
    #[must_use]
    pub fn last_read_nanos(&self) -> u64 {
        self.last_read_nanos.load(Relaxed)
    }

    /// From the last byte that was handed to the kernel to the last that was taken from it: asked when an answer's headers
    /// are there, the time that the backend took for them. What a busy thread adds afterwards is not in it.
    #[must_use]
    pub fn answered_after(&self) -> Duration {
        let read = self.last_read_nanos();
        Duration::from_nanos(read.saturating_sub(self.last_write_nanos()))
    }

    /// Whether the socket may be written to.
    ///
    /// Asks the kernel, because the runtime learns of a close only at its next look at its events.
    #[must_use]
    pub fn quiet(&self) -> Quiet {
        let mut byte = [MaybeUninit::uninit(); 1];
        match SockRef::from(&self.stream).peek(&mut byte) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Quiet::Yes,
            // Under TLS and in HTTP/2 there is more than what was asked for: tickets for later, pings.
            Ok(1..) if self.secured || self.is_shared() => Quiet::NotYet,
            _ => Quiet::No,
        }
    }

    /// An answer's head is waited for: not everything may come before it.
    pub fn awaits_head(&self) {
        self.may_arrive.store(BEFORE_ANSWER_BYTES, Relaxed);
    }

    /// It has arrived.
    pub fn has_head(&self) {
        self.may_arrive.store(UNBOUNDED, Relaxed);
    }

    /// Whether an interim answer (1xx) has come over it, as far as that can be seen from outside.
    #[must_use]
    pub fn said_interim(&self) -> bool {
        self.said_interim.load(Relaxed)
    }

    fn read(&self, bytes: &[u8]) -> io::Result<()> {
        self.last_read_nanos.store(clock::monotonic_nanos(), Relaxed);
        let left = self.may_arrive.load(Relaxed);
        if left == UNBOUNDED {
            return Ok(());
        }
        if bytes.starts_with(INTERIM) {
            self.said_interim.store(true, Relaxed);
        }
        let left = left.checked_sub(bytes.len() as u64).ok_or(io::ErrorKind::InvalidData)?;
        self.may_arrive.store(left, Relaxed);
        Ok(())
    }

    /// Closes the socket in both directions, whoever else still has it.
    pub fn close(&self) {
        // It may be closed already.
        let _ = SockRef::from(&self.stream).shutdown(Shutdown::Both);
    }

    fn wrote(&self, bytes: usize) {
        self.written.fetch_add(bytes as u64, Relaxed);
        self.last_write_nanos.store(clock::monotonic_nanos(), Relaxed);
    }
}

/// The half that the connection's task reads and writes.
#[derive(Debug)]
pub struct WireIo(pub Arc<Wire>);

impl AsyncRead for WireIo {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        loop {
            ready!(each!(&self.0.stream, stream => stream.poll_read_ready(cx)))?;
            match each!(&self.0.stream, stream => stream.try_read_buf(buf)) {
                Ok(bytes) => {
                    // What left room took everything there was: asking the kernel again would only confirm it. The runtime
                    // is told so here, as it notes by itself where it owns the socket; an end it has seen it keeps.
                    if bytes > 0 && buf.remaining() > 0 {
                        let nothing_left = || Err::<(), _>(io::ErrorKind::WouldBlock.into());
                        let _ = each!(&self.0.stream, stream => stream.try_io(Interest::READABLE, nothing_left));
                    }
                    return Poll::Ready(self.0.read(&buf.filled()[before..]));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for WireIo {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[io::IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(each!(&self.0.stream, stream => stream.poll_write_ready(cx)))?;
            let written = each!(&self.0.stream, stream => {
                gathered(bufs, |piece| stream.try_write(piece)).unwrap_or_else(|| stream.try_write_vectored(bufs))
            });
            match written {
                Ok(bytes) => {
                    self.0.wrote(bytes);
                    return Poll::Ready(Ok(bytes));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // Who refuses an upload answers first and closes then. The answer has arrived and is still to be read, so
                // the rest of the request is dropped here, uncounted; without an answer, reading tells of the end.
                Err(error) if is_closed(&error) => return Poll::Ready(Ok(bufs.iter().map(|buf| buf.len()).sum())),
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(match SockRef::from(&self.0.stream).shutdown(Shutdown::Write) {
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
            other => other,
        })
    }
}

fn is_closed(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}
