//! What a backend's answer head says about its connection.
//!
//! Pure. In: an answer as the library read it. Out: whether its end is clear, and for how long its connection may be kept.

use std::time::Duration;

use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, Response, StatusCode};

/// Whether everybody who reads the answer after us sees the same end of it as we do.
///
/// Not so with two framings, with a length that stands there twice or is no number, and with a coding that we do not
/// know. Nor can an answer change the protocol unless the request asked for that.
#[must_use]
pub fn is_clear<B>(response: &Response<B>, upgradable: bool) -> bool {
    let headers = response.headers();
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let coded = match (codings.next(), codings.next()) {
        (None, _) => false,
        (Some(coding), None) if coding.as_bytes().eq_ignore_ascii_case(b"chunked") => true,
        (Some(_), _) => return false,
    };
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let framed = match (lengths.next(), lengths.next()) {
        (None, _) => true,
        (Some(length), None) => !coded && is_length(length.as_bytes()),
        (Some(_), Some(_)) => false,
    };
    framed && (upgradable || response.status() != StatusCode::SWITCHING_PROTOCOLS)
}

// Digits alone, and no more of them than always fit 63 bits.
fn is_length(text: &[u8]) -> bool {
    (1..=18).contains(&text.len()) && text.iter().all(u8::is_ascii_digit)
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
    fn an_answer_whose_end_can_be_read_in_two_ways_is_not_clear() {
        let clear = |status: u16, upgradable, pairs: &[(&'static str, &'static str)]| {
            let mut response = Response::builder().status(status);
            for (name, value) in pairs {
                response = response.header(*name, *value);
            }
            is_clear(&response.body(()).unwrap(), upgradable)
        };
        for good in [
            &[][..],
            &[("content-length", "0")],
            &[("content-length", "007")],
            &[("transfer-encoding", "Chunked")],
        ] {
            assert!(clear(200, false, good), "{good:?}");
        }
        for bad in [
            &[("content-length", "3"), ("transfer-encoding", "chunked")][..],
            &[("content-length", "3"), ("content-length", "3")],
            &[("content-length", "3, 3")],
            &[("content-length", "+3")],
            &[("content-length", "")],
            &[("content-length", "9999999999999999999")],
            &[("transfer-encoding", "gzip")],
            &[("transfer-encoding", "gzip, chunked")],
            &[("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")],
        ] {
            assert!(!clear(200, false, bad), "{bad:?}");
            assert!(!clear(304, false, bad), "{bad:?}");
        }
        assert!(!clear(101, false, &[]) && clear(101, true, &[]));
    }

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
