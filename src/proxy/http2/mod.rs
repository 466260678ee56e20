//! Serves one client's connection over HTTP/2: streams to exchanges, each with its own limit on a client that does not
//! take its answer.
//!
//! Frames and field compression are the library's, which refuses most of what is malformed with a stream error, and ends
//! the connection at names and values that are none, because it cannot unpack what follows; what it lets through and
//! RFC 9113 does not is refused in `fields`. The guard in front counts frames and what the library says of faults.

mod fields;
mod pace;

use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};

use http::{Method, Request, Response};
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;

use super::answer::{Answer, Finish};
use super::client::{ClientIo, Settings};
use super::error;
use super::exchange::exchange;
use super::stage::{Origin, Worker};
use crate::live::tally::ClientError;
use crate::telemetry::spawn;
use fields::Rejected;
use pace::{Pace, Paced};

/// What a client may send ahead of what backends take: on one stream, and on all together.
const STREAM_WINDOW: u32 = 256 << 10;
const CONNECTION_WINDOW: u32 = 1 << 20;

/// What of an answer one stream may hold that has not been written.
const SEND_BUFFER: usize = 64 << 10;

/// Streams that the client took back before they were looked at.
const PENDING_RESETS: usize = 20;

/// Streams that may fail for what the client sent, over the life of a connection.
const FAILED_STREAMS: usize = 1_024;

/// Serves streams until the client leaves or breaks a rule, or `draining` is over and those under way are answered.
pub(super) async fn serve(
    worker: Arc<Worker>,
    settings: Settings,
    io: ClientIo,
    origin: Arc<Origin>,
    draining: impl Future<Output = ()>,
) {
    let header_bytes = settings.head.header_bytes;
    let streams = Streams {
        worker: Arc::clone(&worker),
        origin: Arc::clone(&origin),
        next: Arc::default(),
    };
    let paces = Arc::clone(&streams.next);
    let service = service_fn(move |request| {
        let pace = Pace::new(&worker.sweep, settings.client.write);
        *paces.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&pace));
        answer(Arc::clone(&worker), Arc::clone(&origin), settings, request, pace)
    });
    // Twice the limit, so that the answer to what is over it is ours, with its reason.
    let list_bytes = u32::try_from(header_bytes.saturating_mul(2)).unwrap_or(u32::MAX);
    let connection = http2::Builder::new(streams)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .max_concurrent_streams(settings.streams)
        .max_pending_accept_reset_streams(PENDING_RESETS)
        .max_local_error_reset_streams(FAILED_STREAMS)
        .max_header_list_size(list_bytes)
        .serve_connection(TokioIo::new(io), service);
    let mut connection = pin!(connection);
    tokio::select! {
        biased;
        // The guard has counted what there was to count.
        _ = connection.as_mut() => return,
        () = draining => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = connection.await;
}

async fn answer(
    worker: Arc<Worker>,
    origin: Arc<Origin>,
    settings: Settings,
    mut request: Request<Incoming>,
    pace: Arc<Pace>,
) -> Result<Response<Paced>, h2::Error> {
    let is_head = request.method() == Method::HEAD;
    let mut response = match fields::admit(&mut request, settings.head) {
        Ok(()) if !worker.lets_ask(&origin, request.headers()) => {
            let finish = Finish(Arc::clone(&origin.turn));
            error::too_soon().map(|body| Answer::Made(Some(body), finish))
        }
        Ok(()) => Box::pin(exchange(worker, origin, request)).await,
        Err(Rejected::Malformed) => return Err(h2::Reason::PROTOCOL_ERROR.into()),
        Err(Rejected::Refused(reason)) => {
            worker.refusals.book(&origin.peer, reason, None);
            refuse(&origin, reason)
        }
    };
    // Over HTTP/1 the library leaves out the body of an answer to HEAD, here it does not.
    if is_head && let Answer::Made(body, _) = response.body_mut() {
        *body = None;
    }
    Ok(response.map(|answer| Paced::new(answer, pace)))
}

fn refuse(origin: &Origin, reason: ClientError) -> Response<Answer> {
    error::refusal(reason).map(|body| Answer::Made(Some(body), Finish(Arc::clone(&origin.turn))))
}

/// Where the library's streams run: as tasks of the worker, counted while they are open.
#[derive(Clone)]
struct Streams {
    worker: Arc<Worker>,
    origin: Arc<Origin>,
    // Of the stream that the service was just called for: the library hands its task over right after that.
    next: Arc<Mutex<Option<Arc<Pace>>>>,
}

impl<F> Executor<F> for Streams
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        let open = self.origin.turn.stream();
        let pace = self.next.lock().unwrap_or_else(PoisonError::into_inner).take();
        let (worker, origin) = (Arc::clone(&self.worker), Arc::clone(&self.origin));
        drop(spawn::task("stream", async move {
            if pace::run(stream, pace).await.is_err() {
                worker.refusals.book(&origin.peer, ClientError::WriteTimeout, None);
            }
            drop(open);
        }));
    }
}
