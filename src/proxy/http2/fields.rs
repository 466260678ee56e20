//! What must hold of a request's fields over HTTP/2 beyond what the library sees to (RFC 9113 sections 8.1 to 8.3), and
//! what makes them those of a request over HTTP/1.

use http::Request;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Uri};

use crate::live::tally::ClientError;
use crate::proxy::forward;
use crate::proxy::framing::{self, is_authority};

/// Why a stream goes no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rejected {
    /// A stream error: this is no request.
    Malformed,
    /// An answer: this is one, and more than we take.
    Refused(ClientError),
}

/// Checks a request's fields; its cookies are one field afterwards.
pub(super) fn admit<B>(request: &mut Request<B>, limits: framing::Limits) -> Result<(), Rejected> {
    let headers = request.headers();
    // Every crumb of a cookie counts: each costs what a field costs.
    if headers.len() > limits.header_count || size(request.uri(), headers) > limits.header_bytes {
        return Err(Rejected::Refused(ClientError::HeadersTooLarge));
    }
    let well = has_target(request)
        && has_one_host(request.uri(), headers)
        && has_length_or_none(headers)
        && headers.values().all(is_trimmed);
    if !well {
        return Err(Rejected::Malformed);
    }
    join_cookies(request.headers_mut());
    Ok(())
}

fn size(uri: &Uri, headers: &HeaderMap) -> usize {
    let path = uri.path_and_query().map_or(0, |path| path.as_str().len());
    let authority = uri.authority().map_or(0, |authority| authority.as_str().len());
    path + authority + forward::bytes(headers)
}

fn has_target<B>(request: &Request<B>) -> bool {
    let scheme = request.uri().scheme_str();
    if !scheme.is_none_or(|scheme| matches!(scheme, "http" | "https")) {
        return false;
    }
    match request.uri().path_and_query().map(http::uri::PathAndQuery::as_str) {
        None => request.method() == Method::CONNECT,
        Some("*") => request.method() == Method::OPTIONS,
        Some(path) => path.starts_with('/'),
    }
}

// Both may be there if they say the same: some proxies keep the one that they were sent.
fn has_one_host(uri: &Uri, headers: &HeaderMap) -> bool {
    let authority = uri.authority().map(|authority| authority.as_str().as_bytes());
    let mut hosts = headers.get_all(header::HOST).iter().map(HeaderValue::as_bytes);
    let host = hosts.next();
    let same = match (authority, host) {
        (None, None) => false,
        (Some(authority), Some(host)) => authority.eq_ignore_ascii_case(host),
        _ => true,
    };
    same && hosts.next().is_none() && [authority, host].into_iter().flatten().all(is_authority)
}

// The library has compared it with what arrives; several that say the same it takes for one.
fn has_length_or_none(headers: &HeaderMap) -> bool {
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    let first = lengths.next().map(|length| framing::length(length.as_bytes()));
    lengths.next().is_none() && first != Some(None)
}

// Readers that trim and readers that do not would see different values (RFC 9113 section 8.2.1).
fn is_trimmed(value: &HeaderValue) -> bool {
    let is_space = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    let bytes = value.as_bytes();
    !is_space(bytes.first()) && !is_space(bytes.last())
}

// Clients send a cookie in crumbs so that they compress well; HTTP/1 has one field (RFC 9113 section 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let mut crumbs = headers.get_all(header::COOKIE).iter();
    if let (Some(first), Some(second)) = (crumbs.next(), crumbs.next()) {
        let mut joined = first.as_bytes().to_vec();
        for crumb in std::iter::once(second).chain(crumbs) {
            joined.extend_from_slice(b"; ");
            joined.extend_from_slice(crumb.as_bytes());
        }
        if let Ok(joined) = HeaderValue::from_maybe_shared(bytes::Bytes::from(joined)) {
            headers.insert(header::COOKIE, joined);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: framing::Limits = framing::Limits {
        header_bytes: 1_000,
        header_count: 5,
    };

    type Case = (&'static str, &'static str, &'static [(&'static str, &'static str)]);

    fn admitted(method: &str, uri: &str, fields: &[(&'static str, &'static str)]) -> Result<Request<()>, Rejected> {
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let mut request = request.body(()).unwrap();
        admit(&mut request, LIMITS).map(|()| request)
    }

    #[test]
    fn a_request_has_one_host_one_length_and_a_target() {
        let well: &[Case] = &[
            ("GET", "http://a/b", &[]),
            ("GET", "https://a:443/", &[("host", "A:443")]),
            ("GET", "/b", &[("host", "a")]),
            ("OPTIONS", "*", &[("host", "a")]),
            ("CONNECT", "a:443", &[]),
            ("POST", "http://a/", &[("content-length", "5")]),
        ];
        for (method, uri, fields) in well {
            assert!(admitted(method, uri, fields).is_ok(), "{method} {uri} {fields:?}");
        }
        let malformed: &[Case] = &[
            ("GET", "/b", &[]),
            ("GET", "/b", &[("host", "a"), ("host", "a")]),
            ("GET", "/b", &[("host", "")]),
            ("GET", "http://a/", &[("host", "b")]),
            ("GET", "http://u@a/", &[]),
            ("GET", "ftp://a/", &[]),
            ("GET", "*", &[("host", "a")]),
            ("POST", "http://a/", &[("content-length", "5"), ("content-length", "5")]),
            ("POST", "http://a/", &[("content-length", "+5")]),
            ("GET", "http://a/", &[("x-a", " 1")]),
            ("GET", "http://a/", &[("x-a", "1\t")]),
            ("POST", "http://a/", &[("content-length", "9223372036854775808")]),
        ];
        for (method, uri, fields) in malformed {
            let rejected = admitted(method, uri, fields).unwrap_err();
            assert_eq!(rejected, Rejected::Malformed, "{method} {uri} {fields:?}");
        }
    }

    #[test]
    fn crumbs_count_and_become_one_cookie() {
        let crumbs = [("cookie", "a=1"); 5];
        let request = admitted("GET", "http://a/", &crumbs).unwrap();
        assert_eq!(request.headers()["cookie"], "a=1; a=1; a=1; a=1; a=1");
        assert_eq!(request.headers().len(), 1);
        let rejected = admitted("GET", "http://a/", &[("cookie", "a=1"); 6]).unwrap_err();
        assert_eq!(rejected, Rejected::Refused(ClientError::HeadersTooLarge));
    }
}
