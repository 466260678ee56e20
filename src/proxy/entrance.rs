//! What a connection has to get through before its first byte of HTTP: the header of the PROXY protocol, then the TLS
//! handshake, where the listener asks for them.
//!
//! In: a stream that was just accepted. Out: one that is ready for HTTP and what is now known of the peer, or nothing:
//! then the connection is over, counted and logged.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::ProtocolVersion;
use tokio::io::AsyncWriteExt as _;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::proxy_protocol::{self, NoHeader, Told};
use super::socket::{Peer, Protocol, Scheme, Stream};
use super::stage::Worker;
use crate::config::ProxyProtocol;
use crate::live::certificates::Cell;
use crate::live::tally::{ClientError, HandshakeError, TlsVersion};

/// How one listener lets clients in.
#[derive(Clone, Debug, Default)]
pub struct Entrance {
    /// Its certificates, if it speaks TLS.
    pub tls: Option<Arc<Cell>>,
    /// Who has to say for whom it asks.
    pub proxy_protocol: ProxyProtocol,
}

impl Entrance {
    /// Whether HTTP begins with the first byte.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.tls.is_none() && self.proxy_protocol == ProxyProtocol::Off
    }

    /// Takes a connection to its first byte of HTTP. It has `limit` for each of both steps.
    pub async fn pass(
        &self,
        worker: &Worker,
        limit: Duration,
        mut stream: Stream,
        mut peer: Peer,
    ) -> Option<(Stream, Peer)> {
        if self.expects_header(&peer) {
            let late = worker.sweep.deadline(limit);
            let refusal = tokio::select! {
                biased;
                told = proxy_protocol::take(&mut stream) => match told {
                    Ok(Told::Nothing) => None,
                    Ok(Told::Addresses(client, door)) => {
                        peer.address = Some(client);
                        peer.local_port = Some(door.port());
                        None
                    }
                    Err(NoHeader::Closed) => return None,
                    Err(NoHeader::Malformed(at)) => Some((ClientError::BadProxyHeader, u64::try_from(at).ok())),
                },
                () = late => Some((ClientError::ProxyHeaderTimeout, None)),
            };
            if let Some((reason, position)) = refusal {
                worker.refusals.book(&peer, reason, position);
                return None;
            }
        }
        let Some(cell) = &self.tls else {
            return Some((stream, peer));
        };
        let late = worker.sweep.deadline(limit);
        let error = tokio::select! {
            biased;
            done = handshake(cell, stream) => match done {
                Ok(stream) => return Some(secured(worker, stream, peer)),
                Err(error) => error,
            },
            () = late => HandshakeError::Timeout,
        };
        worker.refusals.book_handshake(&peer, error);
        None
    }

    fn expects_header(&self, peer: &Peer) -> bool {
        match (&self.proxy_protocol, peer.address) {
            (ProxyProtocol::Off, _) => false,
            // Whoever comes over a socket file was let in by its permissions.
            (ProxyProtocol::Everybody, _) | (ProxyProtocol::Only(_), None) => true,
            (ProxyProtocol::Only(networks), Some(address)) => {
                let address = address.ip().to_canonical();
                networks.iter().any(|network| network.contains(&address))
            }
        }
    }
}

async fn handshake(cell: &Cell, mut stream: Stream) -> Result<Box<TlsStream<Stream>>, HandshakeError> {
    // Published before the first worker starts.
    let server = cell.server().ok_or(HandshakeError::NothingInCommon)?;
    let mut first = [0];
    match stream.peek(&mut first).await {
        Ok(0) | Err(_) => return Err(HandshakeError::Cut),
        // No record of TLS has a letter for its type.
        Ok(_) if first[0].is_ascii_alphabetic() => {
            // Whoever does not read it is closed all the same.
            let _ = say_plaintext(&mut stream).await;
            return Err(HandshakeError::Plaintext);
        }
        Ok(_) => {}
    }
    match TlsAcceptor::from(server).accept(stream).await {
        Ok(stream) => Ok(Box::new(stream)),
        Err(error) => Err(reason(&error)),
    }
}

async fn say_plaintext(stream: &mut Stream) -> io::Result<()> {
    const ANSWER: &[u8] = b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\
        x-understudy-error: plaintext_on_tls_port\r\n\r\n";
    stream.take_pending().await?;
    stream.write_all(ANSWER).await?;
    stream.shutdown().await
}

fn reason(error: &io::Error) -> HandshakeError {
    use rustls::{Error, InvalidMessage};
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    match tls {
        // Not of TLS but of the connection under it.
        None => HandshakeError::Cut,
        Some(Error::NoCertificatesPresented) => HandshakeError::NoClientCertificate,
        Some(Error::InvalidCertificate(_)) => HandshakeError::BadClientCertificate,
        Some(Error::PeerIncompatible(_)) => HandshakeError::NothingInCommon,
        Some(Error::AlertReceived(_)) => HandshakeError::RefusedByClient,
        Some(Error::InvalidMessage(InvalidMessage::InvalidContentType)) => HandshakeError::Plaintext,
        Some(_) => HandshakeError::Malformed,
    }
}

fn secured(worker: &Worker, stream: Box<TlsStream<Stream>>, mut peer: Peer) -> (Stream, Peer) {
    let (_, session) = stream.get_ref();
    worker.tally.handshakes.add(match session.protocol_version() {
        Some(ProtocolVersion::TLSv1_2) => TlsVersion::Two,
        _ => TlsVersion::Three,
    });
    peer.scheme = Scheme::Https;
    peer.protocol = match session.alpn_protocol() {
        Some(b"h2") => Protocol::Http2,
        Some(_) => Protocol::Http1,
        None => Protocol::Any,
    };
    (Stream::Tls(stream), peer)
}
