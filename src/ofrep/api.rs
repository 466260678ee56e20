//! `POST /api/v1/feature-flags/evaluate`: flags by name, one or many, in the words of the admin API.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use serde_json::value::RawValue;

use super::evaluate::{Asking, Subject};
use super::gate::Visitor;
use super::handlers::{Refusal, dress, json};
use super::wire::{Answer, Answers, Evaluate, Nested, Problem};
use super::{Service, body};
use crate::engine::explain::Record;
use crate::engine::flags::{Context, FlagValue};
use crate::engine::ruleset::problem::{nearest, quote};
use crate::engine::vocab::Reason;
use crate::live::remote::Remote;

/// The most flags that one request may name.
const MOST: usize = 1_000;

/// The most names that an unknown one is answered with.
const NEAR: usize = 3;

const ASKED: &str = "POST /api/v1/feature-flags/evaluate";

/// A problem on its way to becoming a document.
struct Wrong {
    status: StatusCode,
    result: Remote,
    word: &'static str,
    title: &'static str,
    detail: String,
    remedy: &'static str,
    near: Vec<String>,
    wait: Option<std::time::Duration>,
}

impl Wrong {
    fn request(detail: impl Into<String>) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            result: Remote::InvalidContext,
            word: "bad_request",
            title: "the request cannot be read",
            detail: detail.into(),
            remedy: "send `{\"flag\": \"KEY\", \"context\": {\"user_id\": \"...\"}}`, or `flags` with a list of keys",
            near: Vec::new(),
            wait: None,
        }
    }

    fn unknown(key: &str, asking: &Asking, visitor: &Visitor) -> Self {
        let flags = asking.snapshot().rules.flags();
        let seen = flags.iter().filter(|(_, flag)| visitor.sees(flag));
        let near = nearest(key, seen.map(|(_, flag)| flag.key.as_str()), NEAR);
        Self {
            status: StatusCode::NOT_FOUND,
            result: Remote::FlagNotFound,
            word: "unknown_name",
            title: "the name is unknown",
            detail: format!("no flag is named {}", quote(key)),
            remedy: "send `default` to get an answer all the same",
            near: near.into_iter().map(str::to_owned).collect(),
            wait: None,
        }
    }

    fn answer(self) -> Response {
        let problem = Problem {
            kind: format!("urn:understudy:problem:{}", self.word),
            title: self.title,
            status: self.status.as_u16(),
            detail: self.detail,
            remedy: self.remedy,
            near: self.near,
        };
        let mut answer = json(self.status, &problem);
        let kind = HeaderValue::from_static("application/problem+json");
        answer.headers_mut().insert(CONTENT_TYPE, kind);
        dress(&mut answer, self.status, self.wait);
        answer
    }
}

impl From<Refusal> for Wrong {
    fn from(refusal: Refusal) -> Self {
        let (word, title) = match refusal.status {
            StatusCode::UNAUTHORIZED => ("unauthorized", "a token is needed"),
            StatusCode::FORBIDDEN => ("forbidden", "the role does not allow this"),
            StatusCode::TOO_MANY_REQUESTS => ("too_many_requests", "too many requests"),
            StatusCode::PAYLOAD_TOO_LARGE => ("body_too_large", "the body is too large"),
            StatusCode::UNSUPPORTED_MEDIA_TYPE => ("unsupported_media_type", "the body has to be JSON"),
            _ => ("bad_request", "the request cannot be read"),
        };
        Self {
            status: refusal.status,
            result: refusal.result,
            word,
            title,
            detail: refusal.details,
            remedy: "",
            near: Vec::new(),
            wait: refusal.wait,
        }
    }
}

/// Answers one flag, or several.
pub(super) async fn evaluate(State(service): State<Arc<Service>>, request: Request) -> Response {
    match answer(&service, request).await {
        Ok(answer) => {
            service.count(Remote::Answered);
            answer
        }
        Err(wrong) => {
            service.count(wrong.result);
            wrong.answer()
        }
    }
}

async fn answer(service: &Service, request: Request) -> Result<Response, Wrong> {
    let (parts, body) = request.into_parts();
    let visitor = service.admit(&parts, ASKED)?;
    let bytes = body::read(&parts.headers, body).await.map_err(Refusal::from)?;
    if bytes.trim_ascii_start().first() != Some(&b'{') {
        return Err(Wrong::request("the body is no JSON object"));
    }
    let asked: Evaluate = serde_json::from_slice(&bytes)
        .map_err(|error| Wrong::request(format!("the body does not say what is needed: {error}")))?;
    let subject = subject(asked.context.as_deref())?;
    let asking = service.asking()?;
    let found = |key: &str| asking.find(key).filter(|(_, flag)| visitor.sees(flag));
    match (&asked.flag, &asked.flags) {
        (Some(key), None) => {
            let answer = match (found(key), &asked.default) {
                (Some((at, flag)), _) => {
                    let given = asking.ask(at, flag, &subject);
                    Answer {
                        enabled: given.enabled,
                        record: given.record,
                    }
                }
                (None, default) => {
                    service.live.remote.errors.add(Remote::FlagNotFound);
                    match default {
                        Some(default) => unknown(key, FlagValue::Json(default)),
                        None => return Err(Wrong::unknown(key, &asking, &visitor)),
                    }
                }
            };
            Ok(fine(&answer))
        }
        (None, Some(keys)) if keys.len() > MOST => Err(Wrong::request(format!(
            "one request names at most {MOST} flags, this one {}",
            keys.len()
        ))),
        (None, Some(_)) if asked.default.is_some() => Err(Wrong::request("`default` belongs to one `flag`")),
        (None, Some(keys)) => {
            let results = keys.iter().map(|key| match found(key) {
                Some((at, flag)) => {
                    let given = asking.ask(at, flag, &subject);
                    Answer {
                        enabled: given.enabled,
                        record: given.record,
                    }
                }
                None => {
                    service.live.remote.errors.add(Remote::FlagNotFound);
                    unknown(key, FlagValue::Bool(false))
                }
            });
            Ok(fine(&Answers {
                results: results.collect(),
                revision: asking.snapshot().rules.revision.0,
            }))
        }
        _ => Err(Wrong::request("name one `flag`, or several in `flags`")),
    }
}

fn fine(content: &impl serde::Serialize) -> Response {
    let mut answer = json(StatusCode::OK, content).into_response();
    answer
        .headers_mut()
        .insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

fn unknown<'a>(key: &'a str, value: FlagValue<'a>) -> Answer<'a> {
    Answer {
        enabled: false,
        record: Record {
            flag: key,
            value,
            variant: "off",
            reason: Reason::FlagNotFound.as_str(),
            rule: None,
            bucket: None,
            origin: "default",
        },
    }
}

/// The subject of a context; the members of its `attributes` are attributes like those beside it, which are stronger.
fn subject(context: Option<&RawValue>) -> Result<Subject, Wrong> {
    let Some(context) = context.map(RawValue::get) else {
        return Subject::of(Context::default()).map_err(Wrong::request);
    };
    let wrong = |_| Wrong::request("`context` and its `attributes` are objects");
    let beside: Context = serde_json::from_str(context).map_err(wrong)?;
    let nested: Nested = serde_json::from_str(context).map_err(wrong)?;
    let pairs = |context: &Context| -> Vec<_> {
        let members = context.iter().filter(|(name, _)| *name != "attributes");
        members.map(|(name, value)| (name.into(), value.clone())).collect()
    };
    let nested = nested.attributes.unwrap_or_default();
    let nested = nested.iter().map(|(name, value)| (name.into(), value.clone()));
    // Of two with one name the later stands.
    let all = nested.chain(pairs(&beside)).collect::<Vec<(Box<str>, _)>>();
    Subject::of(Context::collect(all)).map_err(Wrong::request)
}
