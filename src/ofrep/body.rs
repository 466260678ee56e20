//! The JSON that a request brings: declared as JSON, bounded in length and depth.

use axum::body::Body;
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use bytes::Bytes;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};

/// The longest body.
const LIMIT_BYTES: usize = 1024 * 1024;

/// The deepest nesting of objects and arrays.
const DEPTH_LIMIT: usize = 64;

/// What is wrong with a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unread {
    /// It broke off.
    Broken,
    /// More than 64 levels.
    Deep,
    /// More than 1 MiB.
    Large,
    /// Not declared as JSON, or encoded.
    NotJson,
}

impl Unread {
    /// For people.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Broken => "the body broke off",
            Self::Deep => "objects and arrays are nested at most 64 deep here",
            Self::Large => "a body has at most 1 MiB here",
            Self::NotJson => "send JSON as it is, with `content-type: application/json`",
        }
    }

    /// The status that it is answered with.
    pub const fn status(self) -> u16 {
        match self {
            Self::Broken | Self::Deep => 400,
            Self::Large => 413,
            Self::NotJson => 415,
        }
    }
}

/// Reads a body whole. One that is empty need not be declared as anything.
pub(super) async fn read(headers: &HeaderMap, body: Body) -> Result<Bytes, Unread> {
    let declared = headers
        .get(CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if declared.is_some_and(|bytes| bytes > LIMIT_BYTES as u64) {
        return Err(Unread::Large);
    }
    if headers.contains_key(CONTENT_TYPE) && !is_json(headers) {
        return Err(Unread::NotJson);
    }
    let bytes = match Limited::new(body, LIMIT_BYTES).collect().await {
        Ok(collected) => collected.to_bytes(),
        Err(error) if error.is::<LengthLimitError>() => return Err(Unread::Large),
        Err(_) => return Err(Unread::Broken),
    };
    if !bytes.is_empty() && !is_json(headers) {
        return Err(Unread::NotJson);
    }
    if depth(&bytes) > DEPTH_LIMIT {
        return Err(Unread::Deep);
    }
    Ok(bytes)
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
