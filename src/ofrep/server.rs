//! The listener of OFREP: its connections, their limits, and who may ask from a browser.
//!
//! Connections are bounded; beyond the bound they wait in the operating system's queue. Each is closed when it asks nothing
//! for a minute, unless an event stream is on it.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::header::{CONTENT_TYPE, ORIGIN, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderValue, Request, StatusCode};
use axum::response::{IntoResponse as _, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tower::ServiceExt as _;

use super::cors::Cors;
use super::drained;
use crate::telemetry::spawn;

/// For a header section, and for the next request on a connection.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);

/// For a request with its body, and the beginning of the answer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);

/// From the beginning of a request to that of the next: whoever takes longer does not read the answer.
const TURN_TIMEOUT: Duration = Duration::from_secs(60);

/// The longest header section.
const HEADER_BYTES: usize = 32 * 1024;

/// The pause after the operating system refused a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the listener serves.
#[derive(Debug)]
pub struct Listening {
    /// The paths.
    pub router: Router,
    /// Who may ask from a browser.
    pub cors: Cors,
    /// Connections at once.
    pub connections: usize,
    /// Turns true when the instance drains: nothing more is accepted, and connections end with their answer.
    pub draining: watch::Receiver<bool>,
}

/// Serves until the instance drains.
pub async fn serve(listener: std::net::TcpListener, mut listening: Listening) {
    let listener = match listener
        .set_nonblocking(true)
        .and_then(|()| TcpListener::from_std(listener))
    {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, "the OFREP listener cannot be used; no SDK gets an answer");
            return;
        }
    };
    let desk = Desk {
        router: listening.router,
        cors: Arc::new(listening.cors),
    };
    let slots = Arc::new(Semaphore::new(listening.connections));
    loop {
        let draining = listening.draining.clone();
        let accept = async {
            // The semaphore is never closed.
            let slot = Arc::clone(&slots).acquire_owned().await.ok();
            (slot, listener.accept().await)
        };
        tokio::select! {
            (Some(slot), accepted) = accept => match accepted {
                Ok((stream, peer)) => {
                    drop(spawn::task("OFREP connection", connection(stream, peer, desk.clone(), draining, slot)));
                }
                Err(error) => {
                    tracing::warn!(%error, "the operating system refused an OFREP connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            () = drained(&mut listening.draining) => return,
        }
    }
}

#[derive(Clone)]
struct Desk {
    router: Router,
    cors: Arc<Cors>,
}

/// How long a connection may go on as it is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Turn {
    Answer,
    Stream,
}

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    desk: Desk,
    mut draining: watch::Receiver<bool>,
    _slot: OwnedSemaphorePermit,
) {
    // Answers are small and somebody waits for them; that this may fail is no reason to refuse them.
    let _ = stream.set_nodelay(true);
    let (turn, mut turns) = watch::channel(Turn::Answer);
    let service = service_fn(|request| {
        turn.send_replace(Turn::Answer);
        let (desk, turn) = (desk.clone(), turn.clone());
        async move {
            let answer = desk.answer(request, peer).await;
            if answer
                .headers()
                .get(CONTENT_TYPE)
                .is_some_and(|kind| kind == "text/event-stream")
            {
                turn.send_replace(Turn::Stream);
            }
            Ok::<_, Infallible>(answer)
        }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(HEADER_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    let mut served = std::pin::pin!(served);
    let stalled = async {
        loop {
            if *turns.borrow_and_update() == Turn::Stream {
                if turns.changed().await.is_err() {
                    return;
                }
            } else if !matches!(tokio::time::timeout(TURN_TIMEOUT, turns.changed()).await, Ok(Ok(()))) {
                return;
            }
        }
    };
    let ended = tokio::select! {
        ended = served.as_mut() => Some(ended),
        () = stalled => return tracing::debug!(%peer, "an OFREP client does not read its answers"),
        () = drained(&mut draining) => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            served.as_mut().graceful_shutdown();
            match tokio::time::timeout(REQUEST_TIMEOUT, served).await {
                Ok(ended) => ended,
                Err(_) => return,
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, %peer, "an OFREP connection ended early");
    }
}

impl Desk {
    async fn answer(self, request: Request<Incoming>, peer: SocketAddr) -> Response {
        if let Some(answer) = self.cors.preflight(request.method(), request.headers()) {
            return answer;
        }
        let origin = request.headers().get(ORIGIN).cloned();
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(ConnectInfo(peer));
        let mut answer = match tokio::time::timeout(REQUEST_TIMEOUT, self.router.oneshot(request)).await {
            // A router's error cannot be made.
            Ok(Ok(answer)) => answer,
            Ok(Err(never)) => match never {},
            Err(_) => StatusCode::REQUEST_TIMEOUT.into_response(),
        };
        self.cors.dress(origin.as_ref(), &mut answer);
        let headers = answer.headers_mut();
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        answer
    }
}
