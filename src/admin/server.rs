//! Takes connections and requests, and gives every answer its last touches.
//!
//! In: a bound socket and a [`Door`]. Out: answers. Here is what holds for every request whatever its path: how long it may
//! take, whose host it may name, what an answer never carries, and that refused attempts are audited. Connections are
//! bounded; beyond the bound they wait in the operating system's queue, and idle ones, and those that do not read, are
//! closed soon enough that a kill gets its turn.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::header::{CACHE_CONTROL, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderValue, Request};
use axum::response::{IntoResponse as _, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tower::ServiceExt as _;

use super::answers::Answers;
use super::api;
use super::dto::Fault;
use super::gate::Gate;
use super::hosts::Hosts;
use super::refusal::{Audited, Refusal};
use super::room::{Peer, Room, Who, asked, without_tokens};
use crate::config::Token;
use crate::control::{Actor, Control};
use crate::telemetry::{clock, spawn};

/// Connections at once.
const CONNECTIONS: usize = 256;

/// For a header section, and for the next request on a connection.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// For a request with its body, and the answer: a kill that waits for a stalled disk takes two seconds.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);

/// From the beginning of a request to that of the next. Whoever takes longer does not read the answer, and would keep
/// others from the door for as long as it likes.
const TURN_TIMEOUT: Duration = REQUEST_TIMEOUT.saturating_add(HEADER_TIMEOUT);

/// The longest header section.
const HEADER_BYTES: usize = 32 * 1024;

/// The pause after the operating system refused a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the server shows, and to whom.
#[derive(Debug)]
pub struct Door {
    /// What may be done to the instance.
    pub control: Control,
    /// Who may do it. Without any, everybody who reaches the listener may read, and nobody may change anything.
    pub tokens: Vec<Token>,
    /// Whether the metrics page needs a token, too.
    pub metrics_token: bool,
    /// Where it listens.
    pub address: SocketAddr,
    /// What it answers beside the admin API, with rules of its own as to who may ask.
    pub beside: Router,
}

/// Serves until it is dropped. It goes on while the instance drains, so that one can see it drain; when the sender of
/// `draining` is gone, it accepts nothing more and returns.
pub async fn serve(listener: std::net::TcpListener, door: Door, mut draining: watch::Receiver<bool>) {
    let listener = match listener
        .set_nonblocking(true)
        .and_then(|()| TcpListener::from_std(listener))
    {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, "the admin listener cannot be used; nobody can kill by hand");
            return;
        }
    };
    let hosts = Hosts::new(door.address);
    let room = Arc::new(Room {
        control: door.control,
        gate: Gate::new(door.tokens, door.metrics_token),
        answers: Answers::default(),
        started_unix_ms: clock::unix_ms(),
    });
    let desk = Desk {
        router: api::router(&room).merge(door.beside),
        room,
        hosts,
    };
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        // The semaphore is never closed.
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else {
            return;
        };
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => drop(spawn::task("admin connection", connection(stream, peer, desk.clone(), slot))),
                Err(error) => {
                    tracing::warn!(%error, "the operating system refused an admin connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            () = gone(&mut draining) => return,
        }
    }
}

async fn gone(draining: &mut watch::Receiver<bool>) {
    while draining.changed().await.is_ok() {}
}

/// What a connection needs.
#[derive(Clone)]
struct Desk {
    room: Arc<Room>,
    router: Router,
    hosts: Hosts,
}

async fn connection(stream: TcpStream, peer: SocketAddr, desk: Desk, _slot: OwnedSemaphorePermit) {
    // Answers are small and somebody waits for them; that this may fail is no reason to refuse them.
    let _ = stream.set_nodelay(true);
    let (turn, mut turns) = watch::channel(());
    let service = service_fn(|request| {
        turn.send_replace(());
        let desk = desk.clone();
        async move { Ok::<_, Infallible>(desk.answer(request, peer).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(HEADER_BYTES)
        // Who asks many things at once and reads no answer would hold a slot for long; nobody here asks in a hurry.
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    let stalled = async { while let Ok(Ok(())) = tokio::time::timeout(TURN_TIMEOUT, turns.changed()).await {} };
    tokio::select! {
        served = served => if let Err(error) = served {
            tracing::debug!(%error, %peer, "an admin connection ended early");
        },
        () = stalled => tracing::debug!(%peer, "an admin client does not read its answers"),
    }
}

impl Desk {
    async fn answer(self, request: Request<Incoming>, peer: SocketAddr) -> Response {
        let mut request = request.map(Body::new);
        let who = Who::default();
        request.extensions_mut().insert(Peer(peer));
        request.extensions_mut().insert(ConnectInfo(peer));
        request.extensions_mut().insert(who.clone());
        let what = asked(request.method(), request.uri().path());
        let checked = self.hosts.check(request.uri(), request.headers());
        let mut answer = match checked {
            Err(refusal) => refusal.into_response(),
            Ok(()) => match tokio::time::timeout(REQUEST_TIMEOUT, self.router.oneshot(request)).await {
                // A router's error cannot be made.
                Ok(Ok(answer)) => answer,
                Ok(Err(never)) => match never {},
                Err(_) => Refusal::new(
                    Fault::Timeout,
                    "the request did not arrive in time",
                    "send it in one go",
                )
                .into_response(),
            },
        };
        if let Some(Audited { why, of_anybody }) = answer.extensions_mut().remove::<Audited>() {
            let anonymous = || Actor {
                name: "anonymous".into(),
                role: None,
                from: Some(peer),
            };
            let actor = who.0.get().cloned().unwrap_or_else(anonymous);
            if of_anybody || actor.role.is_some() {
                let why = without_tokens(&why);
                tracing::warn!(actor = &*actor.name, from = %peer, asked = what, why, "an attempt at the admin API was refused");
                self.room.control.refused(&actor, "refused", &what, &why).await;
            }
        }
        let headers = answer.headers_mut();
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        answer
    }
}
