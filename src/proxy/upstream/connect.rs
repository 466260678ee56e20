//! Making a connection to a backend: the socket, its options, and the task that drives it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::client::TlsStream;

use super::failure::is_local;
use super::limits::{BUFFER_BYTES, FRESH};
use super::two::{self, Two};
use crate::live::service::{Place, Protocol, Service, Target, Tls};
use crate::live::tally::RunFailure;
use crate::proxy::body::Outgoing;
use crate::proxy::wire::{Socket, Wire, WireIo};
use crate::telemetry::spawn;

/// The most header lines of an answer: what a service that sets a cookie per item may need, and the library's own limit
/// is below that.
const ANSWER_HEADERS: usize = 512;

/// One connection to a backend, with nothing under way on it or one request.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) sender: SendRequest<Outgoing>,
    pub(super) wire: Arc<Wire>,
    pub(super) since_nanos: u64,
    pub(super) keep: Duration,
    /// Whether it has become somebody else's, who ends it.
    pub(super) tunnelled: bool,
}

impl Connection {
    /// Closed by the other side, which had not said that it would, before it had been idle for long.
    pub(super) fn closed_young(&self, now_nanos: u64) -> bool {
        self.sender.is_closed() && self.idle_for(now_nanos) < FRESH
    }

    /// Since it was given back.
    pub(super) fn idle_for(&self, now_nanos: u64) -> Duration {
        Duration::from_nanos(now_nanos.saturating_sub(self.since_nanos))
    }
}

impl Drop for Connection {
    // The task that drives it would first send the rest of its request, to a backend that may never read it.
    fn drop(&mut self) {
        if !self.tunnelled {
            self.wire.close();
        }
    }
}

/// A connection by what it speaks.
#[derive(Debug)]
pub(super) enum Opened {
    /// One request at a time.
    One(Connection),
    /// Many.
    Two(Arc<Two>),
}

/// Opens a connection to a replica; an `upgradable` one may be taken over after a 101, and speaks HTTP/1.1. It takes as
/// long as it takes.
///
/// # Errors
/// Nothing was sent.
pub(super) async fn open(service: &Service, target: &Target, upgradable: bool) -> Result<Opened, RunFailure> {
    let socket = dial(&target.place).await.map_err(|error| {
        if is_local(&error) {
            RunFailure::Local
        } else {
            RunFailure::Connect
        }
    })?;
    let protocol = if upgradable {
        Protocol::One
    } else {
        service.spec.protocol
    };
    let secured = service.spec.tls.is_some();
    let wire = Wire::new(socket, secured);
    let io = WireIo(Arc::clone(&wire));
    let sender = match &service.spec.tls {
        None if protocol == Protocol::Two => {
            return two::start(io, &wire, secured, service.spec.idle).await.map(Opened::Two);
        }
        None => start(io, upgradable).await?,
        Some(tls) => {
            let stream = secure(tls, target, protocol, io).await?;
            let agreed = stream.get_ref().1.alpn_protocol() == Some(TWO);
            if !upgradable {
                target.spoke(agreed);
            }
            if agreed || protocol == Protocol::Two {
                return two::start(stream, &wire, secured, service.spec.idle)
                    .await
                    .map(Opened::Two);
            }
            start(stream, upgradable).await?
        }
    };
    Ok(Opened::One(Connection {
        sender,
        wire,
        since_nanos: 0,
        keep: Duration::ZERO,
        tunnelled: false,
    }))
}

// As ALPN names them.
const ONE: &[u8] = b"http/1.1";
const TWO: &[u8] = b"h2";

/// How answers over HTTP/1.1 are read.
#[must_use]
pub fn reader() -> http1::Builder {
    let mut reader = http1::Builder::new();
    reader
        .max_headers(ANSWER_HEADERS)
        .max_header_size(BUFFER_BYTES)
        .max_buf_size(BUFFER_BYTES)
        // Old services write both, and mean one thing (RFC 9112 sections 5.1 and 5.2): what goes on is written anew.
        .allow_spaces_after_header_name_in_responses(true)
        .allow_obsolete_multiline_headers_in_responses(true);
    reader
}

async fn start<I>(io: I, upgradable: bool) -> Result<SendRequest<Outgoing>, RunFailure>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = reader()
        .handshake(TokioIo::new(io))
        .await
        .map_err(|_| RunFailure::Connect)?;
    // What ended it reaches whoever waits for an answer; an idle connection may end as it likes.
    if upgradable {
        drop(spawn::task("upstream", async move {
            let _ = connection.with_upgrades().await;
        }));
    } else {
        drop(spawn::task("upstream", async move {
            let _ = connection.await;
        }));
    }
    Ok(sender)
}

async fn secure(tls: &Tls, target: &Target, protocol: Protocol, io: WireIo) -> Result<TlsStream<WireIo>, RunFailure> {
    let name = match &tls.server_name {
        Some(name) => name.clone(),
        // The configuration takes no other.
        None => ServerName::try_from(target.host.to_string()).map_err(|_| RunFailure::Tls)?,
    };
    let protocols = match protocol {
        Protocol::Auto => vec![TWO.to_vec(), ONE.to_vec()],
        Protocol::One => vec![ONE.to_vec()],
        Protocol::Two => vec![TWO.to_vec()],
    };
    let connector = tls.connector.with_alpn(protocols);
    connector.connect(name, io).await.map_err(|_| RunFailure::Tls)
}

async fn dial(place: &Place) -> io::Result<Socket> {
    match place {
        Place::Ip(address) => {
            let stream = TcpStream::connect(address).await?;
            // Neither option decides whether the request can be answered.
            let _ = stream.set_nodelay(true);
            let _ = keep_alive(&stream);
            Ok(Socket::Tcp(stream))
        }
        Place::Socket(path) => UnixStream::connect(path).await.map(Socket::Unix),
    }
}

// Finds a peer that vanished without a word, on connections that carry long answers.
fn keep_alive(stream: &TcpStream) -> io::Result<()> {
    let probes = TcpKeepalive::new()
        .with_time(Duration::from_secs(15))
        .with_interval(Duration::from_secs(5));
    SockRef::from(stream).set_tcp_keepalive(&probes)
}
