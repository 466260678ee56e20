//! What a backend's answer head says about its connection.
//!
//! Pure. In: an answer as the library read it. Out: whether its end is clear, and for how long its connection may be kept.

use std::time::Duration;

use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, Response, StatusCode};

/// Two framings, or one that we do not know: whoever reads the answer after us could see another end than we do. Nor
/// can an answer change the protocol, for no request asked for that.
pub(super) fn is_framed_clearly<B>(response: &Response<B>) -> bool {
    let headers = response.headers();
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let clear = match (codings.next(), codings.next()) {
        (None, _) => true,
        (Some(coding), None) => {
            coding.as_bytes().eq_ignore_ascii_case(b"chunked") && !headers.contains_key(CONTENT_LENGTH)
        }
        (Some(_), Some(_)) => false,
    };
    clear && response.status() != StatusCode::SWITCHING_PROTOCOLS
}

/// For how long a connection may be kept after this answer: what is configured, less where the backend says so, and
/// not at all where it is about to close.
pub(super) fn keep_for(configured: Duration, headers: &HeaderMap) -> Duration {
    let tokens = |name| {
        headers
            .get_all(name)
            .iter()
            .filter_map(|v| v.to_str().ok())
            .flat_map(|v| v.split(','))
    };
    if tokens(http::header::CONNECTION).any(|token| token.trim().eq_ignore_ascii_case("close")) {
        return Duration::ZERO;
    }
    let promised = tokens(http::header::HeaderName::from_static("keep-alive"))
        .filter_map(|parameter| {
            let (name, value) = parameter.split_once('=')?;
            name.trim()
                .eq_ignore_ascii_case("timeout")
                .then(|| value.trim().parse::<u64>().ok())
                .flatten()
        })
        .min();
    match promised {
        Some(seconds) => configured.min(Duration::from_secs(seconds.saturating_sub(1))),
        None => configured,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backend_that_promises_less_is_kept_for_less() {
        let keep = |pairs: &[(&'static str, &'static str)]| {
            let headers = pairs
                .iter()
                .map(|(k, v)| (k.parse().unwrap(), v.parse().unwrap()))
                .collect();
            keep_for(Duration::from_millis(1_500), &headers)
        };
        assert_eq!(keep(&[]), Duration::from_millis(1_500));
        assert_eq!(
            keep(&[("keep-alive", "timeout=5, max=100")]),
            Duration::from_millis(1_500)
        );
        assert_eq!(keep(&[("keep-alive", "max=3, timeout=2")]), Duration::from_secs(1));
        assert_eq!(keep(&[("keep-alive", "timeout=1")]), Duration::ZERO);
        assert_eq!(keep(&[("connection", "keep-alive, Close")]), Duration::ZERO);
    }
}
