//! Idempotency keys: a write that is sent again with its key is answered again, and done once.
//!
//! In: requests with `idempotency-key`, and the answers that they got. Out: the same answers. Kept in memory, by token and
//! key, for a day, as far as there is room: a key is for the retry after a lost answer, not for ever. A kill takes no part:
//! it is never refused, and done twice it is done once anyway.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{CONTENT_TYPE, ETAG, IF_MATCH, LOCATION};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use http_body_util::{BodyExt as _, Limited};
use sha2::{Digest as _, Sha256};
use tokio::sync::oneshot;

use super::answers::{Found, Given};
use super::body::{LIMIT_BYTES, too_large};
use super::dto::Fault;
use super::refusal::Refusal;
use super::room::{Peer, Room};
use crate::telemetry::{clock, spawn};

const KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Says that an answer was given before.
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// The longest key.
const KEY_BYTES: usize = 200;

/// Answers a write with a key once, and again.
pub(super) async fn once(State(room): State<Arc<Room>>, request: Request, next: Next) -> Response {
    let writes = [Method::DELETE, Method::PATCH, Method::POST, Method::PUT].contains(request.method());
    let kills = request.uri().path().ends_with("/kill");
    if !writes || kills || !request.headers().contains_key(KEY) {
        return next.run(request).await;
    }
    let peer = request.extensions().get::<Peer>().map(|Peer(peer)| *peer);
    let actor = peer.map(|peer| room.gate.actor_of(request.headers(), peer));
    // Whoever is not let in gets no answer of somebody else's, and is refused further in.
    let Some(actor) = actor.filter(|actor| actor.role.is_some()) else {
        return next.run(request).await;
    };
    let key = match key(request.headers()) {
        Ok(key) => key,
        Err(refusal) => return refusal.into_response(),
    };
    let (parts, body) = request.into_parts();
    let Ok(body) = Limited::new(body, LIMIT_BYTES).collect().await else {
        return too_large().into_response();
    };
    let body = body.to_bytes();
    let mut hash = Sha256::new();
    for part in [
        parts.method.as_str().as_bytes(),
        parts.uri.to_string().as_bytes(),
        parts.headers.get(IF_MATCH).map_or(&[][..], HeaderValue::as_bytes),
        &body[..],
    ] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    let holder = (actor.name, key);
    match room.answers.begin(&holder, hash.finalize().into(), clock::monotonic()) {
        Found::Given(given) => {
            let mut answer = (given.status, given.headers, given.body).into_response();
            answer.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
            return answer;
        }
        Found::Busy => {
            let detail = "a request with this idempotency key is being worked on";
            let remedy = "wait for its answer, or send the same again a little later";
            return Refusal::new(Fault::InProgress, detail, remedy).into_response();
        }
        Found::Other => {
            let detail = "this idempotency key was sent with another request before";
            return Refusal::new(Fault::KeyReused, detail, "make a new key for every change").into_response();
        }
        Found::Nothing => {}
    }
    // To its end, even if the client leaves: the retry needs the answer.
    let (reply, answer) = oneshot::channel();
    drop(spawn::task("write with a key", async move {
        let answer = next.run(Request::from_parts(parts, Body::from(body))).await;
        let (head, body) = answer.into_parts();
        let body = body
            .collect()
            .await
            .map(http_body_util::Collected::to_bytes)
            .unwrap_or_default();
        let fleeting = [401, 403, 408, 429].contains(&head.status.as_u16()) || head.status.is_server_error();
        let headers = [CONTENT_TYPE, ETAG, LOCATION]
            .into_iter()
            .filter_map(|name| head.headers.get(&name).cloned().map(|value| (name, value)));
        let given = Given {
            status: head.status,
            headers: headers.collect(),
            body: body.clone(),
        };
        room.answers.end(holder, (!fleeting).then_some(given));
        // Whoever left does not need the answer.
        let _ = reply.send(Response::from_parts(head, Body::from(body)));
    }));
    answer.await.unwrap_or_else(|_| {
        let remedy = "ask for the flag to see what became of it";
        Refusal::new(Fault::NotStored, "the change ended early", remedy).into_response()
    })
}

fn key(headers: &HeaderMap) -> Result<String, Refusal> {
    let mut values = headers.get_all(KEY).iter();
    let value = values.next().and_then(|value| value.to_str().ok()).unwrap_or_default();
    if values.next().is_some() || value.is_empty() || value.len() > KEY_BYTES {
        let detail = format!("`idempotency-key` is not one text of 1 to {KEY_BYTES} letters");
        return Err(Refusal::new(
            Fault::BadRequest,
            detail,
            "send a random text, such as a UUID",
        ));
    }
    Ok(value.to_owned())
}
