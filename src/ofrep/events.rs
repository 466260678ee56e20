//! Event streams: one line for each change, upon which a client asks again.
//!
//! A stream says nothing about flags but that some changed. It ends when the instance drains, and after an hour, so that
//! none is for ever; clients come back by themselves, and ask again then.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use http_body::Frame;
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use tokio::time::Instant;

use super::handlers::{Refusal, dress, json};
use super::wire::{Code, Failure};
use super::{Service, drained};
use crate::live::Live;
use crate::live::remote::Remote;
use crate::telemetry::{clock, spawn};

/// What the client gets when nothing happens, so that both ends know of each other.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// Changes that come closer together than this are told as one.
const TOGETHER: Duration = Duration::from_millis(50);

/// The longest that a stream is open.
const LIFE: Duration = Duration::from_secs(3_600);

/// The event of a client that comes back, with which it says what it was told last.
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// `GET /ofrep/v1/events`.
pub(super) async fn open(State(service): State<Arc<Service>>, request: Request) -> Response {
    match stream(&service, &request) {
        Ok(answer) => {
            service.count(Remote::StreamOpened);
            answer
        }
        Err(refusal) => {
            service.count(refusal.result);
            let failure = Failure {
                key: None,
                code: refusal.code,
                details: &refusal.details,
            };
            let mut answer = json(refusal.status, &failure);
            dress(&mut answer, refusal.status, refusal.wait);
            answer
        }
    }
}

fn stream(service: &Arc<Service>, request: &Request) -> Result<Response, Refusal> {
    let Some(ConnectInfo(peer)) = request.extensions().get::<ConnectInfo<SocketAddr>>().copied() else {
        let details = "nobody knows where this came from";
        return Err(Refusal::new(
            StatusCode::BAD_REQUEST,
            Remote::Forbidden,
            Code::General,
            details,
        ));
    };
    let query = request.uri().query().unwrap_or_default();
    let ticket = form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "ticket");
    let shown = ticket.as_ref().map(|(_, ticket)| &**ticket);
    let now = clock::monotonic();
    // Whoever can send headers may show the token itself.
    let by_ticket = shown.is_some() || !request.headers().contains_key("authorization");
    let environment = service.environment();
    let admitted = if by_ticket {
        service.gate.admit_ticket(shown, peer.ip(), &environment, now)
    } else {
        service.gate.admit(request.headers(), peer.ip(), &environment, now)
    };
    admitted.map_err(|turned| service.turn_away(turned, peer, "GET /ofrep/v1/events"))?;
    let full = || Refusal {
        wait: Some(HEARTBEAT),
        ..Refusal::new(
            StatusCode::SERVICE_UNAVAILABLE,
            Remote::TooManyStreams,
            Code::General,
            "too many event streams are open: poll, or come again later",
        )
    };
    let slot = service
        .streams
        .as_ref()
        .and_then(|slots| Arc::clone(slots).try_acquire_owned().ok());
    let slot = slot.ok_or_else(full)?;
    let (lines, body) = mpsc::channel(4);
    let told = request
        .headers()
        .get(LAST_EVENT_ID)
        .and_then(|id| id.to_str().ok())
        .map(str::to_owned);
    let teller = Teller {
        lines,
        revisions: service.live.remote.watch(),
        kills: service.live.kills.watch(),
        draining: service.draining.clone(),
        told,
    };
    drop(spawn::task("event stream", teller.tell()));
    service.live.remote.streams.fetch_add(1, Relaxed);
    let events = Events {
        lines: body,
        live: Arc::clone(&service.live),
        _slot: slot,
    };
    let mut answer = Response::new(Body::new(events));
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // Some reverse proxies keep back what comes in small pieces unless they are told not to.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(answer)
}

/// Writes the lines of one stream.
struct Teller {
    lines: mpsc::Sender<Bytes>,
    revisions: watch::Receiver<u64>,
    kills: watch::Receiver<u64>,
    draining: watch::Receiver<bool>,
    /// What the client was told last.
    told: Option<String>,
}

impl Teller {
    async fn tell(mut self) {
        let end = Instant::now() + LIFE;
        let now = self.id();
        let missed = self.told.take().is_some_and(|told| told != now);
        let hello = if missed {
            event(&now)
        } else {
            Bytes::from_static(b": hello\n\n")
        };
        if *self.draining.borrow() || self.lines.send(hello).await.is_err() {
            return;
        }
        loop {
            let changed = tokio::select! {
                biased;
                () = self.lines.closed() => return,
                () = drained(&mut self.draining) => return,
                Ok(()) = self.revisions.changed() => true,
                Ok(()) = self.kills.changed() => true,
                () = tokio::time::sleep(HEARTBEAT) => false,
                () = tokio::time::sleep_until(end) => return,
            };
            let line = if changed {
                tokio::time::sleep(TOGETHER).await;
                event(&self.id())
            } else {
                Bytes::from_static(b":\n\n")
            };
            if self.lines.send(line).await.is_err() {
                return;
            }
        }
    }

    /// What is in force now, as seen.
    fn id(&mut self) -> String {
        format!(
            "{}-{}",
            *self.revisions.borrow_and_update(),
            *self.kills.borrow_and_update()
        )
    }
}

fn event(id: &str) -> Bytes {
    format!("event: message\nid: {id}\ndata: {{\"type\":\"refetchEvaluation\"}}\n\n").into()
}

/// The body of a stream. Its slot is free as soon as the client has left.
struct Events {
    lines: mpsc::Receiver<Bytes>,
    live: Arc<Live>,
    _slot: OwnedSemaphorePermit,
}

impl http_body::Body for Events {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.lines
            .poll_recv(context)
            .map(|line| line.map(|line| Ok(Frame::data(line))))
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.live.remote.streams.fetch_sub(1, Relaxed);
    }
}
