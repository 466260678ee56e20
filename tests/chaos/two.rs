//! The same backend over HTTP/2: what one does to a connection over HTTP/1.1 this does to a stream, or to all of them.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h2::server::{Connection, SendResponse};
use h2::{Reason, RecvStream};
use http::{Request, Response};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use super::{Shared, Weather, check};
use crate::promise::{Answer, PROOF, Promise};
use crate::random::Random;
use crate::streams::{WINDOW, lines};
use crate::strict::Strict;

/// What a stream asks of its connection.
enum Ending {
    /// Closed as it is.
    Cut,
    /// No further stream.
    Farewell,
}

pub(super) async fn serve(stream: TcpStream, shared: Arc<Shared>) {
    let mut builder = h2::server::Builder::new();
    let Ok(mut connection) = builder.initial_connection_window_size(WINDOW).handshake(stream).await else {
        return;
    };
    let (told, mut endings) = mpsc::channel(1);
    loop {
        tokio::select! {
            next = connection.accept() => match next {
                Some(Ok((request, respond))) => {
                    let (shared, told) = (Arc::clone(&shared), told.clone());
                    tokio::spawn(async move {
                        if let Some(ending) = answer(request, respond, &shared).await {
                            let _ = told.send(ending).await;
                        }
                    });
                }
                _ => return,
            },
            Some(ending) = endings.recv() => match ending {
                Ending::Cut => return,
                Ending::Farewell => return farewell(connection).await,
            },
        }
    }
}

async fn farewell(mut connection: Connection<TcpStream, Bytes>) {
    connection.graceful_shutdown();
    // Those that were on their way are not answered, nor looked at.
    while let Some(Ok((_, mut respond))) = connection.accept().await {
        respond.send_reset(Reason::REFUSED_STREAM);
    }
}

/// The request, whole; none if it breaks off.
async fn read(request: Request<RecvStream>) -> Option<Strict> {
    let (head, mut body) = request.into_parts();
    let mut all = Vec::new();
    while let Some(data) = body.data().await {
        let data = data.ok()?;
        let _ = body.flow_control().release_capacity(data.len());
        all.extend_from_slice(&data);
    }
    let trailers = body.trailers().await.ok()?;
    let target = head.uri.path_and_query()?.as_str();
    let mut headers = lines(&head.headers);
    headers.push(("host".to_owned(), head.uri.authority()?.as_str().as_bytes().to_vec()));
    Some(Strict {
        start: format!("{} {target} HTTP/1.1", head.method),
        headers,
        body: all,
        trailers: trailers.as_ref().map(lines).unwrap_or_default(),
        ..Strict::default()
    })
}

async fn answer(request: Request<RecvStream>, mut respond: SendResponse<Bytes>, shared: &Shared) -> Option<Ending> {
    let message = read(request).await?;
    let Some(id) = message.header(PROOF).parse().ok() else {
        // Broken on purpose by its client, and still legal.
        let _ = respond.send_response(Response::new(()), true);
        return None;
    };
    let promise = Promise::new(id);
    check(&message, &promise, shared);
    let answer = promise.answer(shared.side);
    let mut random = Random::new(id);
    let weather = if random.chance(0.4) {
        shared.weather()
    } else {
        Weather::Calm
    };
    let whole = answer.body.len();
    match weather {
        Weather::Calm | Weather::Interim | Weather::Refuse => say(&mut respond, &promise, &answer, whole, 0).await,
        Weather::Slow => say(&mut respond, &promise, &answer, whole, random.below(60)).await,
        Weather::Stall => {
            // Until it is given up.
            let _ = std::future::poll_fn(|cx| respond.poll_reset(cx)).await;
        }
        Weather::Cut if whole > 0 => say(&mut respond, &promise, &answer, random.below(whole as u64) as usize, 0).await,
        Weather::Cut | Weather::Reset => {
            let reasons = [
                Reason::INTERNAL_ERROR,
                Reason::CANCEL,
                Reason::NO_ERROR,
                Reason::PROTOCOL_ERROR,
            ];
            respond.send_reset(reasons[random.below(4) as usize]);
        }
        Weather::Garbage | Weather::Close => return Some(Ending::Cut),
        Weather::Abrupt => {
            say(&mut respond, &promise, &answer, whole, 0).await;
            return Some(Ending::Farewell);
        }
    }
    None
}

/// Answers, with no more than `len` bytes of the body, in four parts with a pause before each.
async fn say(respond: &mut SendResponse<Bytes>, promise: &Promise, answer: &Answer, len: usize, pause_ms: u64) {
    let empty = promise.method == "HEAD" || answer.body.is_empty();
    let mut head = Response::builder().status(answer.status).header("x-answer", promise.id);
    if !answer.chunked && !matches!(answer.status, 204 | 304) {
        head = head.header("content-length", answer.body.len());
    }
    let Ok(mut stream) = respond.send_response(head.body(()).unwrap(), empty) else {
        return;
    };
    if empty {
        return;
    }
    for part in answer.body[..len].chunks(len / 4 + 1) {
        tokio::time::sleep(Duration::from_millis(pause_ms)).await;
        if stream.send_data(Bytes::copy_from_slice(part), false).is_err() {
            return;
        }
    }
    if len < answer.body.len() {
        stream.send_reset(Reason::INTERNAL_ERROR);
    } else {
        let _ = stream.send_data(Bytes::new(), true);
    }
}
