//! The JSON that a request brings: of the right type, bounded in length and depth, and exactly what was asked for.

use axum::body::Body;
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use bytes::Bytes;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::de::DeserializeOwned;

use super::dto::Fault;
use super::refusal::Refusal;

/// The longest body.
pub(super) const LIMIT_BYTES: usize = 1024 * 1024;

/// The deepest nesting of objects and arrays.
const DEPTH_LIMIT: usize = 64;

/// Reads a body whole. One that is empty is the default of its type.
pub(super) async fn read<T: DeserializeOwned + Default>(headers: &HeaderMap, body: Body) -> Result<T, Refusal> {
    let bytes = whole(headers, body).await?;
    if bytes.is_empty() {
        return Ok(T::default());
    }
    parse(&bytes)
}

/// Reads a body whole, as text for a reader of its own. An empty one is no JSON, which that reader says.
pub(super) async fn text(headers: &HeaderMap, body: Body) -> Result<String, Refusal> {
    let bytes = whole(headers, body).await?;
    if depth(&bytes) > DEPTH_LIMIT {
        return Err(too_deep());
    }
    String::from_utf8(bytes.into()).map_err(|_| {
        let detail = "the body has a byte that is no UTF-8 text";
        Refusal::new(Fault::BadRequest, detail, "send JSON in UTF-8")
    })
}

async fn whole(headers: &HeaderMap, body: Body) -> Result<Bytes, Refusal> {
    let declared = headers
        .get(CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if declared.is_some_and(|bytes| bytes > LIMIT_BYTES as u64) {
        return Err(too_large());
    }
    let has_type = headers.contains_key(CONTENT_TYPE);
    if has_type && !is_json(headers) {
        return Err(not_json());
    }
    let bytes = match Limited::new(body, LIMIT_BYTES).collect().await {
        Ok(collected) => collected.to_bytes(),
        Err(error) if error.is::<LengthLimitError>() => return Err(too_large()),
        Err(_) => return Err(Refusal::new(Fault::BadRequest, "the body broke off", "send it whole")),
    };
    if !bytes.is_empty() && !has_type {
        return Err(not_json());
    }
    Ok(bytes)
}

pub(super) fn too_large() -> Refusal {
    Refusal::new(
        Fault::BodyTooLarge,
        "a body has at most 1 MiB here",
        "say it in fewer words",
    )
}

fn not_json() -> Refusal {
    Refusal::new(
        Fault::UnsupportedMediaType,
        "the body is not declared as JSON",
        "send `content-type: application/json`",
    )
}

fn is_json(headers: &HeaderMap) -> bool {
    let mut types = headers.get_all(CONTENT_TYPE).iter();
    let essence = types
        .next()
        .and_then(|value| value.to_str().ok())
        .and_then(|text| text.split(';').next());
    let plain = headers.get(CONTENT_ENCODING).is_none_or(|coding| coding == "identity");
    types.next().is_none() && plain && essence.is_some_and(|e| e.trim().eq_ignore_ascii_case("application/json"))
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Refusal> {
    if depth(bytes) > DEPTH_LIMIT {
        return Err(too_deep());
    }
    let unfit = |why: &str| {
        let detail = format!("the body does not say what is needed: {why}");
        Refusal::new(
            Fault::BadRequest,
            detail,
            "send an object with the members that the API names",
        )
        .repeating()
    };
    // A list would be taken for the members in their order.
    if bytes.trim_ascii_start().first() != Some(&b'{') {
        return Err(unfit("it is no object"));
    }
    serde_json::from_slice(bytes).map_err(|error| unfit(&error.to_string()))
}

fn too_deep() -> Refusal {
    let detail = "objects and arrays are nested at most 64 deep here";
    Refusal::new(Fault::BodyTooDeep, detail, "send the members that the API names")
}

/// How deeply objects and arrays are nested, also in what is no JSON.
fn depth(bytes: &[u8]) -> usize {
    let (mut open, mut deepest) = (0_usize, 0);
    let mut in_text = false;
    let mut bytes = bytes.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' if in_text => drop(bytes.next()),
            b'"' => in_text = !in_text,
            b'{' | b'[' if !in_text => {
                open += 1;
                deepest = deepest.max(open);
            }
            b'}' | b']' if !in_text => open = open.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::dto::KillRequest;

    async fn read_as(content_type: Option<&str>, body: impl Into<Body>) -> Result<KillRequest, Fault> {
        let headers = content_type
            .map(|text| (CONTENT_TYPE, text.parse().unwrap()))
            .into_iter()
            .collect();
        read(&headers, body.into()).await.map_err(|refusal| refusal.fault)
    }

    const JSON: Option<&str> = Some("application/json");

    #[tokio::test]
    async fn json_alone_is_read() {
        let body = r#"{"reason":"errors"}"#;
        let read = read_as(Some("Application/JSON; charset=utf-8"), body).await;
        assert_eq!(read.unwrap().reason.as_deref(), Some("errors"));
        for other in [
            None,
            Some("text/plain"),
            Some("application/x-www-form-urlencoded"),
            Some("application/jsonx"),
        ] {
            assert_eq!(
                read_as(other, body).await,
                Err(Fault::UnsupportedMediaType),
                "{other:?}"
            );
        }
    }

    #[tokio::test]
    async fn empty_body_says_nothing() {
        assert_eq!(read_as(None, "").await, Ok(KillRequest::default()));
        assert_eq!(read_as(JSON, "").await, Ok(KillRequest::default()));
    }

    #[tokio::test]
    async fn too_long_and_too_deep_are_refused_before_they_are_parsed() {
        assert_eq!(
            read_as(JSON, vec![b' '; LIMIT_BYTES + 1]).await,
            Err(Fault::BodyTooLarge)
        );
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert_eq!(read_as(JSON, nested(DEPTH_LIMIT + 1)).await, Err(Fault::BodyTooDeep));
        assert_eq!(read_as(JSON, nested(DEPTH_LIMIT)).await, Err(Fault::BadRequest));
    }

    #[tokio::test]
    async fn anything_else_than_what_was_asked_for_is_refused() {
        for bad in [
            r#"{"reason":7}"#,
            r#"{"raeson":"x"}"#,
            "{",
            "[]",
            r#"{"reason":"a","reason":"b"}"#,
            "\u{0}",
        ] {
            assert_eq!(read_as(JSON, bad).await, Err(Fault::BadRequest), "{bad}");
        }
    }

    #[test]
    fn brackets_in_texts_are_no_depth() {
        assert_eq!(depth(br#"{"a":"[[[\"[[","b":[{}]}"#), 3);
        assert_eq!(depth(b"]]]["), 1);
    }
}
