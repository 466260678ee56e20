//! `when_off:` of a route: legacy, or an answer of our own.
//!
//! Pure.

use bytes::Bytes;
use http::StatusCode;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use crate::engine::ruleset::decode::{At, Decode, Decoder, Map, Misfit, Scalar, Shape, record};
use crate::engine::ruleset::problem::quote;
use crate::engine::ruleset::route::Reply;
use crate::engine::ruleset::yaml::{Node, Value};

/// The longest body of such an answer, in bytes.
const BODY_LIMIT: usize = 64 * 1024;

/// Headers that frame an answer or belong to one connection: these are not the configuration's to set.
const OURS: [HeaderName; 7] = [
    header::CONNECTION,
    header::CONTENT_LENGTH,
    HeaderName::from_static("keep-alive"),
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

record! {
    /// An answer that the sidecar gives itself.
    pub struct ReplyText {
        /// Its status, 200 to 599.
        status: At<ReplyStatus>,
        /// Its body, at most 64 KiB. One that is a JSON object or array is `application/json`, any other
        /// `text/plain; charset=utf-8`, unless `headers` says otherwise.
        body: At<Body> = "''",
        /// Its headers.
        headers: Map<HeaderName, HeaderValue> = "{}",
    }
}

/// A status that ends a request.
#[derive(Clone, Copy, Debug)]
pub struct ReplyStatus(StatusCode);

impl Scalar for ReplyStatus {
    const NAME: &'static str = "status";
    const KIND: &'static str = "a status from 200 to 599";
    const REMEDY: &'static str = "write three digits, such as 404";

    fn read(text: &str) -> Result<Self, Misfit> {
        let code = StatusCode::from_bytes(text.as_bytes()).ok();
        let code = code.filter(|code| (200..=599).contains(&code.as_u16()));
        code.map(Self).ok_or(Misfit::Kind)
    }
}

/// The text of an answer.
#[derive(Clone, Debug)]
pub struct Body(String);

impl Scalar for Body {
    const NAME: &'static str = "text";
    const KIND: &'static str = "a text";
    const REMEDY: &'static str = "write it in quotes, or behind `|`";

    fn read(text: &str) -> Result<Self, Misfit> {
        if text.len() > BODY_LIMIT {
            let what = format!("this body has {} bytes, and may have {BODY_LIMIT}", text.len());
            return Err(Misfit::range(what, "shorten it, or have legacy answer"));
        }
        Ok(Self(text.to_owned()))
    }
}

/// What a request gets while the flag is off for it.
#[derive(Clone, Debug)]
pub struct WhenOff(pub Option<Reply>);

impl Decode for WhenOff {
    fn decode(node: &Node<'_>, decoder: &mut Decoder<'_>) -> Option<Self> {
        match &node.value {
            Value::Plain(text) if text == "legacy" => Some(Self(None)),
            Value::Mapping(_) => {
                let text = ReplyText::decode(node, decoder)?;
                reply(text, decoder).map(|reply| Self(Some(reply)))
            }
            _ => decoder.expected(
                node,
                "`legacy` or an answer",
                "write `legacy`, or `{ status: 404, body: not here yet }`",
            ),
        }
    }

    fn shape() -> Shape {
        Shape::Union(vec![
            Shape::words([("legacy", "Legacy serves them.")]),
            ReplyText::shape(),
        ])
    }
}

fn reply(text: ReplyText, decoder: &mut Decoder<'_>) -> Option<Reply> {
    let ReplyText { status, body, headers } = text;
    let At {
        value: Body(body),
        place,
    } = body;
    let ReplyStatus(status) = status.value;
    let bodiless = matches!(
        status,
        StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT | StatusCode::NOT_MODIFIED
    );
    let mut whole = true;
    if bodiless && !body.is_empty() {
        let what = format!("an answer of {} has no body", status.as_u16());
        decoder.refuse_at::<()>(place, what, "remove it, or choose another status");
        whole = false;
    }
    let mut all = HeaderMap::new();
    for (name, value) in headers.0 {
        if OURS.contains(&name.value) || name.as_str().starts_with("x-understudy-") {
            let what = format!("the header {} is not the configuration's to set", quote(name.as_str()));
            decoder.refuse_at::<()>(name.place, what, "remove it");
            whole = false;
        } else {
            all.insert(name.value, value);
        }
    }
    if !body.is_empty() && !all.contains_key(header::CONTENT_TYPE) {
        let is_json =
            body.trim_start().starts_with(['{', '[']) && serde_json::from_str::<serde::de::IgnoredAny>(&body).is_ok();
        let content_type = if is_json {
            "application/json"
        } else {
            "text/plain; charset=utf-8"
        };
        all.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    }
    whole.then(|| Reply {
        status,
        headers: all,
        body: Bytes::from(body),
    })
}
