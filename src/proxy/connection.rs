//! One client connection served from its first byte of HTTP to its last, told to end when the instance drains.
//!
//! In: a stream that the door let in. HTTP is the library's; each request goes to `exchange`.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::sync::watch;

use super::client::{self, ClientIo};
use super::exchange::exchange;
use super::socket::{Peer, Stream};
use super::stage::{Origin, Worker};
use crate::live::tally::ClientError;

// The library takes no smaller buffer.
const MIN_BUFFER: usize = 8_192;

/// What holds for every client connection that is served.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// The limits on slowness.
    pub client: client::Limits,
    /// The largest header section, in bytes.
    pub header_bytes: usize,
    /// The most header lines.
    pub header_count: usize,
}

/// Serves requests until the client leaves, breaks a rule, or `drain` turns true and the one under way is answered.
pub async fn serve(
    worker: Arc<Worker>,
    settings: Settings,
    stream: Stream,
    peer: Peer,
    mut drain: watch::Receiver<bool>,
) {
    let (io, turn) = ClientIo::new(stream, &worker.sweep, settings.client, Arc::clone(&worker.tally));
    let origin = Arc::new(Origin::new(peer, turn));
    let tally = Arc::clone(&worker.tally);
    let service = service_fn(move |request| {
        // Boxed, so that a connection without a request under way costs no more than its buffers.
        let answer = Box::pin(exchange(Arc::clone(&worker), Arc::clone(&origin), request));
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let connection = http1::Builder::new()
        .max_headers(settings.header_count)
        .max_header_size(settings.header_bytes)
        .max_buf_size(settings.header_bytes.max(MIN_BUFFER))
        .serve_connection(TokioIo::new(io), service);
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = draining(&mut drain) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        if error.is_parse_too_large() {
            tally.client_errors.add(ClientError::HeadersTooLarge);
        } else if error.is_parse() {
            tally.client_errors.add(ClientError::Malformed);
        }
    }
}

async fn draining(drain: &mut watch::Receiver<bool>) {
    // An error means that nobody is left who could end it, which is the same.
    let _ = drain.wait_for(|draining| *draining).await;
}
