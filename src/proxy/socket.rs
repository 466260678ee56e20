//! Where a client's bytes come from: one stream for TCP and Unix sockets, and what is known of who is at its end.
//!
//! In: what a listener accepted. Out: a [`Stream`] that the connection reads and writes without caring what it is, and a
//! [`Peer`], which the exchange turns into forwarding headers. Limits on time belong to `client`, accepting to `listen`.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::net::RecvFlags;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::server::TlsStream;

use super::gather::gathered;

/// A client's stream of bytes, ready for HTTP.
#[derive(Debug)]
pub enum Stream {
    /// Over the network.
    Tcp(TcpStream),
    /// From this machine, over a socket file.
    Unix(UnixStream),
    /// One of these under TLS.
    Tls(Box<TlsStream<Stream>>),
}

impl Stream {
    /// Waits for bytes and looks at them without taking them; 0 at the end of the stream.
    ///
    /// # Errors
    /// When the connection is broken, or under TLS, where nothing can be looked at.
    pub async fn peek(&self, bytes: &mut [u8]) -> io::Result<usize> {
        let mut look = |fd: BorrowedFd<'_>| {
            let (_, seen) = rustix::net::recv(fd, &mut *bytes, RecvFlags::PEEK)?;
            Ok(seen)
        };
        loop {
            let seen = match self {
                Self::Tcp(stream) => {
                    stream.readable().await?;
                    stream.try_io(Interest::READABLE, || look(stream.as_fd()))
                }
                Self::Unix(stream) => {
                    stream.readable().await?;
                    stream.try_io(Interest::READABLE, || look(stream.as_fd()))
                }
                Self::Tls(_) => return Err(io::ErrorKind::Unsupported.into()),
            };
            match seen {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                seen => return seen,
            }
        }
    }

    /// Takes exactly so many bytes.
    ///
    /// # Errors
    /// When the connection is broken or ends before.
    pub async fn take_exactly(&mut self, bytes: &mut [u8]) -> io::Result<()> {
        self.read_exact(bytes).await.map(|_| ())
    }

    /// What broke the connection, if something has.
    #[must_use]
    pub fn take_error(&self) -> Option<io::Error> {
        match self {
            Stream::Tcp(stream) => stream.take_error().ok().flatten(),
            Stream::Unix(stream) => stream.take_error().ok().flatten(),
            Stream::Tls(stream) => stream.get_ref().0.take_error(),
        }
    }

    /// Whether the connection is to be reset wherever it is dropped, so that nobody takes that for an end. Under TLS an end is
    /// said in its own words, and a socket file knows no reset.
    pub fn reset_on_drop(&self, reset: bool) {
        if let Stream::Tcp(stream) = self {
            // Fails on a connection that has ended already.
            let _ = SockRef::from(stream).set_linger(reset.then_some(Duration::ZERO));
        }
    }

    /// Takes what has arrived, without looking at it: closing on bytes that nobody read resets the connection, and what
    /// was written to it is lost.
    ///
    /// # Errors
    /// When the connection is broken.
    pub async fn take_pending(&mut self) -> io::Result<usize> {
        self.read(&mut [0; 4_096]).await
    }
}

/// How the client's side of a request is secured; the value of `x-forwarded-proto`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// Plain text.
    Http,
    /// TLS.
    Https,
}

impl Scheme {
    /// As it is written in URLs and headers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// The protocol that a connection has agreed on before its first request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Nothing was agreed: the first bytes tell.
    Any,
    /// HTTP/1.1, by ALPN.
    Http1,
    /// HTTP/2, by ALPN.
    Http2,
}

/// Who is at the other end of a connection, and at which of our doors it knocked.
#[derive(Clone, Debug)]
pub struct Peer {
    /// The client's address; none for a Unix socket.
    pub address: Option<SocketAddr>,
    /// The port it connected to; none for a Unix socket.
    pub local_port: Option<u16>,
    /// Whether it came by TLS.
    pub scheme: Scheme,
    /// What was agreed on.
    pub protocol: Protocol,
}

impl Peer {
    /// What is known of a connection that was just accepted.
    #[must_use]
    pub fn of(stream: &Stream, address: Option<SocketAddr>) -> Self {
        let local_port = match stream {
            Stream::Tcp(stream) => stream.local_addr().ok().map(|local| local.port()),
            Stream::Unix(_) | Stream::Tls(_) => None,
        };
        Self {
            address,
            local_port,
            scheme: Scheme::Http,
            protocol: Protocol::Any,
        }
    }
}

// One match for every call: the stream's methods are the same for each kind.
macro_rules! each {
    ($self:expr, $stream:ident => $call:expr) => {
        match $self.get_mut() {
            Stream::Tcp($stream) => $call,
            Stream::Unix($stream) => $call,
            Stream::Tls($stream) => $call,
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_read(cx, buf))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        each!(self, stream => Pin::new(stream).poll_write(cx, buf))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let Some(polled) = gathered(bufs, |piece| self.as_mut().poll_write(cx, piece)) {
            return polled;
        }
        each!(self, stream => Pin::new(stream).poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_shutdown(cx))
    }
}
