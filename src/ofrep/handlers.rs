//! The two requests of OFREP, and every answer to them.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{ConnectInfo, Path, Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::evaluate::{Asking, Given, Subject};
use super::gate::{Turned, Visitor};
use super::wire::{Ask, Bulk, Code, Evaluated, Failure, Metadata, SetMetadata, Stream, Success, reason};
use super::{Attempt, Service, body};
use crate::live::remote::Remote;
use crate::telemetry::clock;

type Shared = State<Arc<Service>>;

/// A failure on its way to becoming an answer.
pub(super) struct Refusal {
    pub status: StatusCode,
    pub result: Remote,
    pub code: Code,
    pub details: String,
    pub wait: Option<Duration>,
}

impl Refusal {
    pub fn new(status: StatusCode, result: Remote, code: Code, details: impl Into<String>) -> Self {
        Self {
            status,
            result,
            code,
            details: details.into(),
            wait: None,
        }
    }

    fn answer(self, key: Option<&str>) -> Response {
        let failure = Failure {
            key,
            code: self.code,
            details: &self.details,
        };
        let mut answer = json(self.status, &failure);
        dress(&mut answer, self.status, self.wait);
        answer
    }
}

/// The headers that a status asks for.
pub(super) fn dress(answer: &mut Response, status: StatusCode, wait: Option<Duration>) {
    let headers = answer.headers_mut();
    if let Some(wait) = wait {
        // Whole seconds, rounded up: a provider takes the first digits that it finds for seconds, and must not come early.
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds(wait)));
    }
    if status == StatusCode::UNAUTHORIZED {
        headers.insert(
            WWW_AUTHENTICATE,
            HeaderValue::from_static("Bearer realm=\"understudy\""),
        );
    }
}

fn seconds(wait: Duration) -> u64 {
    (wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).max(1)
}

impl From<body::Unread> for Refusal {
    fn from(unread: body::Unread) -> Self {
        let status = StatusCode::from_u16(unread.status()).unwrap_or(StatusCode::BAD_REQUEST);
        match unread {
            body::Unread::Large => Self::new(status, Remote::TooLarge, Code::General, unread.text()),
            _ => Self::new(status, Remote::ParseError, Code::ParseError, unread.text()),
        }
    }
}

impl Service {
    /// Who asks; whoever is not let in has been told of.
    pub(super) fn admit(&self, parts: &Parts, asked: &'static str) -> Result<Visitor, Refusal> {
        let Some(ConnectInfo(peer)) = parts.extensions.get::<ConnectInfo<std::net::SocketAddr>>().copied() else {
            let details = "nobody knows where this came from";
            return Err(Refusal::new(
                StatusCode::BAD_REQUEST,
                Remote::Forbidden,
                Code::General,
                details,
            ));
        };
        let environment = self.environment();
        let admitted = self
            .gate
            .admit(&parts.headers, peer.ip(), &environment, clock::monotonic());
        admitted.map_err(|turned| self.turn_away(turned, peer, asked))
    }

    /// That of the rules in force; empty before there are any, and then only tokens for every environment open something.
    pub(super) fn environment(&self) -> String {
        let snapshot = self.live.snapshot();
        snapshot.map_or_else(String::new, |snapshot| snapshot.rules.environment().to_owned())
    }

    pub(super) fn turn_away(&self, turned: Turned, from: std::net::SocketAddr, asked: &'static str) -> Refusal {
        let told = |actor, why| {
            (self.audit)(Attempt {
                from,
                actor,
                asked,
                why,
            });
        };
        match turned {
            Turned::Unknown => {
                told(None, "no token that is known");
                let details = "send a token that is known here, as `authorization: Bearer TOKEN` or `x-api-key: TOKEN`";
                Refusal::new(StatusCode::UNAUTHORIZED, Remote::Unauthorized, Code::General, details)
            }
            Turned::Elsewhere(name, role) => {
                told(Some((name, role)), "the token is for other environments");
                let details =
                    "this token is not for the environment of this instance; use one whose `environments` lists it";
                Refusal::new(StatusCode::FORBIDDEN, Remote::Forbidden, Code::General, details)
            }
            Turned::Role(name, role) => {
                told(Some((name, role)), "the role does not allow this");
                let details =
                    "the role of this token may not evaluate flags; use one of client, viewer, operator, admin";
                Refusal::new(StatusCode::FORBIDDEN, Remote::Forbidden, Code::General, details)
            }
            Turned::TooOften(wait) => Refusal {
                wait: Some(wait),
                ..Refusal::new(
                    StatusCode::TOO_MANY_REQUESTS,
                    Remote::TooManyRequests,
                    Code::General,
                    "too many requests: wait as `retry-after` says",
                )
            },
        }
    }

    pub(super) fn count(&self, result: Remote) {
        self.live.remote.requests.add(result);
    }

    fn refuse(&self, refusal: Refusal, key: Option<&str>) -> Response {
        self.count(refusal.result);
        refusal.answer(key)
    }

    pub(super) fn asking(&self) -> Result<Asking, Refusal> {
        Asking::now(&self.live).ok_or_else(|| {
            let status = StatusCode::INTERNAL_SERVER_ERROR;
            Refusal::new(status, Remote::TooManyRequests, Code::General, "there are no rules yet")
        })
    }
}

/// `POST /ofrep/v1/evaluate/flags/{key}`.
pub(super) async fn single(State(service): Shared, Path(key): Path<String>, request: Request) -> Response {
    match one(&service, &key, request).await {
        Ok(answer) => {
            service.count(Remote::Answered);
            answer
        }
        Err(refusal) => service.refuse(refusal, Some(&key)),
    }
}

async fn one(service: &Service, key: &str, request: Request) -> Result<Response, Refusal> {
    let (parts, body) = request.into_parts();
    let visitor = service.admit(&parts, "POST /ofrep/v1/evaluate/flags/{key}")?;
    let subject = subject(&parts, body).await?;
    let asking = service.asking()?;
    let Some((at, flag)) = asking.find(key).filter(|(_, flag)| visitor.sees(flag)) else {
        service.live.remote.errors.add(Remote::FlagNotFound);
        let details = "there is no flag of this key";
        return Err(Refusal::new(
            StatusCode::NOT_FOUND,
            Remote::FlagNotFound,
            Code::FlagNotFound,
            details,
        ));
    };
    let given = asking.ask(at, flag, &subject);
    if given.wants_subject {
        return Err(Refusal::new(
            StatusCode::BAD_REQUEST,
            Remote::TargetingKeyMissing,
            Code::TargetingKeyMissing,
            NO_SUBJECT,
        ));
    }
    let revision = asking.snapshot().rules.revision.0;
    Ok(json(StatusCode::OK, &success(given, Some(revision))))
}

const NO_SUBJECT: &str = "this flag looks at the subject: name it by `targetingKey`";

/// `POST /ofrep/v1/evaluate/flags`.
pub(super) async fn bulk(State(service): Shared, request: Request) -> Response {
    match all(&service, request).await {
        Ok(answer) => {
            service.count(if answer.status() == StatusCode::NOT_MODIFIED {
                Remote::NotModified
            } else {
                Remote::Answered
            });
            answer
        }
        Err(refusal) => service.refuse(refusal, None),
    }
}

async fn all(service: &Service, request: Request) -> Result<Response, Refusal> {
    let (parts, body) = request.into_parts();
    let visitor = service.admit(&parts, "POST /ofrep/v1/evaluate/flags")?;
    let subject = subject(&parts, body).await?;
    let asking = service.asking()?;
    let rules = &asking.snapshot().rules;
    let seen = rules.flags().iter().filter(|(_, flag)| visitor.sees(flag));
    let flags = seen.map(|(at, flag)| {
        let given = asking.ask(at, flag, &subject);
        if given.wants_subject {
            Evaluated::Failure(Failure {
                key: Some(flag.key.as_str()),
                code: Code::TargetingKeyMissing,
                details: NO_SUBJECT,
            })
        } else {
            Evaluated::Success(success(given, None))
        }
    });
    let flags: Vec<Evaluated<'_>> = flags.collect();
    // Over the answers and nothing else: other attributes of the same subject may change them, other rules need not.
    let tag = etag(&serde_json::to_vec(&flags).unwrap_or_default());
    let known = parts.headers.get_all(IF_NONE_MATCH).iter();
    let mut known = known.filter_map(|value| value.to_str().ok()).peekable();
    let conditional = known.peek().is_some();
    let mut answer = if known.any(|list| names(list, &tag)) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        if conditional {
            service.live.remote.stale.add();
        }
        let streams = service.streams.is_some().then(|| Stream::events(visitor.ticket()));
        let bulk = Bulk {
            flags,
            metadata: SetMetadata {
                revision: rules.revision.0,
                environment: rules.environment().to_owned(),
            },
            streams: streams.into_iter().collect(),
        };
        json(StatusCode::OK, &bulk)
    };
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        answer.headers_mut().insert(ETAG, tag);
    }
    Ok(answer)
}

fn success(given: Given<'_>, revision: Option<u64>) -> Success<'_> {
    let Given {
        record, reason: ours, ..
    } = given;
    Success {
        key: record.flag,
        value: record.value,
        variant: record.variant,
        reason: reason(ours),
        metadata: Metadata {
            reason: record.reason,
            rule: record.rule,
            bucket: record.bucket,
            origin: record.origin,
            revision,
        },
    }
}

async fn subject(parts: &Parts, body: Body) -> Result<Subject, Refusal> {
    let bytes = body::read(&parts.headers, body).await?;
    let wrong = |result, code, details: String| Refusal::new(StatusCode::BAD_REQUEST, result, code, details);
    let ask = if bytes.is_empty() {
        Ask::default()
    } else {
        // Members of a list would be taken for those of the object, in their order.
        if bytes.trim_ascii_start().first() != Some(&b'{') {
            let details = "the body is no JSON object".to_owned();
            return Err(wrong(Remote::ParseError, Code::ParseError, details));
        }
        serde_json::from_slice::<Ask>(&bytes).map_err(|error| {
            if error.is_data() {
                let details = "`context` is an object".to_owned();
                wrong(Remote::InvalidContext, Code::InvalidContext, details)
            } else {
                wrong(
                    Remote::ParseError,
                    Code::ParseError,
                    format!("the body is no JSON: {error}"),
                )
            }
        })?
    };
    Subject::of(ask.context.unwrap_or_default())
        .map_err(|details| wrong(Remote::InvalidContext, Code::InvalidContext, details))
}

/// Whether a list of entity tags names this one. Compared weakly: a proxy that compresses marks tags as weak.
fn names(list: &str, tag: &str) -> bool {
    list.split(',').any(|known| {
        let known = known.trim();
        known == "*" || known.strip_prefix("W/").unwrap_or(known) == tag
    })
}

fn etag(answers: &[u8]) -> String {
    let digest = Sha256::digest(answers);
    let hex: String = digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    format!("\"{hex}\"")
}

/// An answer of this content.
pub(super) fn json(status: StatusCode, content: &impl Serialize) -> Response {
    // Texts, numbers and JSON that was read before always serialise.
    let bytes = Bytes::from(serde_json::to_vec(content).unwrap_or_default());
    let mut answer = (status, bytes).into_response();
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entity_tags_are_compared_weakly() {
        for list in ["\"a\"", "W/\"a\"", "\"b\", \"a\"", "*", " \"b\" , W/\"a\" "] {
            assert!(names(list, "\"a\""), "{list}");
        }
        for list in ["", "\"b\"", "a", "\"ab\""] {
            assert!(!names(list, "\"a\""), "{list}");
        }
    }

    #[test]
    fn wait_is_whole_seconds_and_at_least_one() {
        for (millis, whole) in [(0, 1), (1, 1), (1_000, 1), (1_001, 2)] {
            assert_eq!(seconds(Duration::from_millis(millis)), whole);
        }
    }
}
