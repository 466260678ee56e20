//! One client connection served from its first byte of HTTP to its last, told to end when the instance drains.
//!
//! In: a stream that the door let in. The guard in front of the HTTP library lets well-formed messages through; each
//! request goes to `exchange`, and one that was refused is answered with the reason.

use std::convert::Infallible;
use std::future::{Future, poll_fn, ready};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::Poll;

use http::header::{self, HeaderValue};
use http::{Request, Response, StatusCode};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::watch;

use super::answer::{Answer, Finish};
use super::client::ClientIo;
use super::error;
use super::exchange::exchange;
use super::http2;
use super::socket::{Peer, Protocol, Stream};
use super::stage::{Origin, Upgrade, Worker};
use crate::live::tally::ClientError;

pub use super::client::Settings;

// The guard has refused what is over the limits: the library's own come behind them. It counts trailers by the limit on
// heads.
const MIN_HEAD_BYTES: usize = 64 << 10;
const SLACK_BYTES: usize = 1 << 10;

/// How a worker and its connections are told to end.
#[derive(Clone, Debug)]
pub struct Ending {
    /// Turns true when another process accepts from the same sockets. Connections go on to their next answer.
    pub leave: watch::Receiver<bool>,
    /// Turns true when connections are to end as soon as they owe nothing.
    pub drain: watch::Receiver<bool>,
}

/// Serves requests until the client leaves, breaks a rule, or is told to end and the one under way is answered.
pub async fn serve(
    worker: Arc<Worker>,
    settings: Settings,
    stream: Stream,
    peer: Peer,
    Ending { mut leave, mut drain }: Ending,
) {
    let (sweep, refusals) = (&worker.sweep, &worker.refusals);
    let protocol = peer.protocol;
    let (mut io, turn) = ClientIo::new(stream, peer.clone(), settings, sweep, refusals);
    let origin = Arc::new(Origin::new(peer, turn));
    let is_http2 = match protocol {
        Protocol::Http1 => false,
        Protocol::Http2 => true,
        Protocol::Any => tokio::select! {
            biased;
            first = io.speaks_http2() => match first {
                Ok(is_http2) => is_http2,
                Err(_) => return,
            },
            () = draining(&mut drain) => return,
        },
    };
    io.begin(is_http2, settings.head.header_bytes);
    if is_http2 {
        // Boxed: it is larger, and most connections are of the other kind.
        let draining = async move {
            // Its farewell tells the client which requests were not taken, so it can be said at once.
            tokio::select! {
                () = draining(&mut leave) => {}
                () = draining(&mut drain) => {}
            }
        };
        Box::pin(http2::serve(worker, settings, io, origin, draining)).await;
    } else {
        http1(worker, settings, io, origin, drain).await;
    }
}

async fn http1(
    worker: Arc<Worker>,
    settings: Settings,
    io: ClientIo,
    origin: Arc<Origin>,
    mut drain: watch::Receiver<bool>,
) {
    let (asked, serving) = (Arc::clone(&origin), Arc::clone(&worker));
    let service = service_fn(move |request: Request<Incoming>| {
        // Boxed, so that a connection without a request under way costs no more than its buffers.
        let answer: Pin<Box<dyn Future<Output = Response<Answer>> + Send>> = match origin.turn.next_is_refused() {
            None if !serving.lets_ask(&origin, request.headers()) => {
                let body = request.body();
                origin.turn.request_began(!body.is_end_stream());
                let goes_on = body.is_end_stream() || origin.turn.is_passed_over(body.size_hint().exact().is_some());
                let mut answer = error::too_soon();
                if !goes_on {
                    let close = HeaderValue::from_static("close");
                    answer.headers_mut().insert(header::CONNECTION, close);
                }
                let finish = Finish(Arc::clone(&origin.turn));
                Box::pin(ready(answer.map(|body| Answer::Made(Some(body), finish))))
            }
            None => Box::pin(exchange(Arc::clone(&serving), Arc::clone(&origin), request)),
            Some(reason) => Box::pin(ready(refuse(&origin, reason))),
        };
        let leaves = serving.leaves.load(Relaxed);
        async move {
            let mut answer = answer.await;
            if leaves && answer.status() != StatusCode::SWITCHING_PROTOCOLS {
                let close = HeaderValue::from_static("close");
                answer.headers_mut().insert(header::CONNECTION, close);
            }
            Ok::<_, Infallible>(answer)
        }
    });
    let head_bytes = settings.head.header_bytes.max(MIN_HEAD_BYTES) + SLACK_BYTES;
    let mut connection = http1::Builder::new()
        .max_headers(settings.head.header_count)
        .max_header_size(head_bytes)
        .max_buf_size(head_bytes)
        .serve_connection(TokioIo::new(io), service);
    let first = until(&mut connection, &mut drain).await;
    let ended = if let Some(ended) = first {
        ended
    } else {
        // A request that has arrived and that nobody has looked at is answered, too.
        let looked = if asked.turn.is_busy() {
            None
        } else {
            now_or_never(&mut connection).await
        };
        match looked {
            Some(ended) => ended,
            None => {
                Pin::new(&mut connection).graceful_shutdown();
                (&mut connection).await
            }
        }
    };
    match asked.take_upgrade() {
        Upgrade::Unasked => {}
        Upgrade::Agreed(tunnel) if ended.is_ok() => {
            let parts = connection.into_parts();
            let client = parts.io.into_inner();
            // Boxed: connections that never become a tunnel should not be as large as one.
            Box::pin(tunnel.run(&worker.live, &worker.sweep, client, parts.read_buf, drain)).await;
        }
        Upgrade::Asked | Upgrade::Agreed(_) => {
            // The library leaves the socket as it is, should it be wanted for something else.
            let _ = connection.into_parts().io.into_inner().shutdown().await;
        }
    }
}

/// Waits for `ended`, or until `drain` turns true: an answer that is ready at the same time then says that it is the last.
async fn until<T>(mut ended: impl Future<Output = T> + Unpin, drain: &mut watch::Receiver<bool>) -> Option<T> {
    let unseen = drain.clone();
    let mut told = pin!(draining(drain));
    let mut asked = false;
    poll_fn(|cx| {
        // Once asked, it wakes this task by itself, which has no other: between that and a change it need not be asked again
        // with every request.
        if !asked || !matches!(unseen.has_changed(), Ok(false)) {
            asked = true;
            if told.as_mut().poll(cx).is_ready() {
                return Poll::Ready(None);
            }
        }
        Pin::new(&mut ended).poll(cx).map(Some)
    })
    .await
}

async fn draining(drain: &mut watch::Receiver<bool>) {
    // An error means that nobody is left who could end it, which is the same.
    let _ = drain.wait_for(|draining| *draining).await;
}

/// What a future comes to if it is asked once.
async fn now_or_never<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
    poll_fn(|cx| {
        Poll::Ready(match Pin::new(&mut *future).poll(cx) {
            Poll::Ready(output) => Some(output),
            Poll::Pending => None,
        })
    })
    .await
}

fn refuse(origin: &Origin, reason: ClientError) -> Response<Answer> {
    origin.turn.request_began(true);
    error::refusal(reason).map(|body| Answer::Made(Some(body), Finish(Arc::clone(&origin.turn))))
}
