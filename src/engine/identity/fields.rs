//! Reads header, cookie, query, path and form values.
//!
//! Pure. In: parts of a [`RequestView`](super::RequestView) and a name. Out: every value under that name, in order, decoded
//! exactly; one that is not UTF-8 is [`NotText`], never replaced by something that two values could share. What a value
//! means is left to the caller.

use std::borrow::Cow;

use http::header::{CONTENT_TYPE, COOKIE};
use http::{HeaderMap, HeaderName};
use percent_encoding::percent_decode;

/// A value that is not UTF-8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NotText;

/// A value under the name that was asked for.
pub(super) type Value<'a> = Result<Cow<'a, str>, NotText>;

/// Every value of a header. A list in one value is not split.
pub(super) fn header<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = Value<'a>> {
    headers.get_all(name).iter().map(|value| text(value.as_bytes()))
}

/// Every value of a cookie (RFC 6265, section 4.2.1): `name=value` pairs between semicolons, in one or several `cookie`
/// headers. Names are compared exactly; a pair of quotes around the value is not part of it; nothing is decoded.
pub(super) fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> impl Iterator<Item = Value<'a>> {
    let pairs = headers
        .get_all(COOKIE)
        .iter()
        .flat_map(|header| header.as_bytes().split(|&b| b == b';'));
    pairs.filter_map(move |pair| {
        let (key, value) = split_once(pair, b'=')?;
        (key.trim_ascii() == name.as_bytes()).then(|| text(unquoted(value.trim_ascii())))
    })
}

/// Every value of a name in a query or a form body: pairs between `&`, `+` for a space, percent-encoded UTF-8
/// (`application/x-www-form-urlencoded` of the URL standard). A name without `=` has an empty value.
pub(super) fn pairs<'a>(encoded: &'a [u8], name: &str) -> impl Iterator<Item = Value<'a>> {
    encoded.split(|&b| b == b'&').filter_map(move |pair| {
        let (key, value) = split_once(pair, b'=').unwrap_or((pair, b""));
        is_named(key, name).then(|| decode(value, true))
    })
}

/// The segment of a path with this number, from 1, percent-decoded.
pub(super) fn segment(path: &str, number: usize) -> Option<Value<'_>> {
    let segment = path.strip_prefix('/')?.split('/').nth(number.checked_sub(1)?)?;
    Some(decode(segment.as_bytes(), false))
}

/// Whether the body says it is a form.
pub(super) fn has_form(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|value| {
        let essence = value.as_bytes().split(|&b| b == b';').next().unwrap_or_default();
        essence
            .trim_ascii()
            .eq_ignore_ascii_case(b"application/x-www-form-urlencoded")
    })
}

/// Compares without decoding in the usual case, for most pairs are not the one that is sought.
fn is_named(key: &[u8], name: &str) -> bool {
    if key.iter().any(|b| matches!(b, b'%' | b'+')) {
        decode(key, true).is_ok_and(|key| key == name)
    } else {
        key == name.as_bytes()
    }
}

fn decode(encoded: &[u8], plus_is_space: bool) -> Value<'_> {
    if plus_is_space && encoded.contains(&b'+') {
        let spaced: Vec<u8> = encoded.iter().map(|&b| if b == b'+' { b' ' } else { b }).collect();
        return percent_decode(&spaced)
            .decode_utf8()
            .map(|text| Cow::Owned(text.into_owned()))
            .map_err(|_| NotText);
    }
    percent_decode(encoded).decode_utf8().map_err(|_| NotText)
}

fn text(bytes: &[u8]) -> Value<'_> {
    std::str::from_utf8(bytes).map(Cow::Borrowed).map_err(|_| NotText)
}

fn unquoted(value: &[u8]) -> &[u8] {
    value
        .strip_prefix(b"\"")
        .and_then(|value| value.strip_suffix(b"\""))
        .unwrap_or(value)
}

fn split_once(bytes: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    let (before, after) = bytes.split_at_checked(bytes.iter().position(|&b| b == at)?)?;
    Some((before, after.get(1..)?))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(pairs: &[(HeaderName, &[u8])]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (name.clone(), HeaderValue::from_bytes(value).unwrap()))
            .collect()
    }

    fn all<'a>(values: impl Iterator<Item = Value<'a>>) -> Vec<Result<String, NotText>> {
        values.map(|value| value.map(Cow::into_owned)).collect()
    }

    fn ok(values: &[&str]) -> Vec<Result<String, NotText>> {
        values.iter().map(|value| Ok((*value).to_owned())).collect()
    }

    #[test]
    fn every_line_of_a_repeated_header_is_a_value() {
        let name = HeaderName::from_static("x-shopper-id");
        let map = headers(&[
            (name.clone(), b"a, b"),
            (name.clone(), "é".as_bytes()),
            (name.clone(), b"\xff"),
        ]);
        let mut expected = ok(&["a, b", "é"]);
        expected.push(Err(NotText));
        assert_eq!(all(header(&map, &name)), expected);
    }

    #[test]
    fn cookie_is_found_in_any_header_unquoted_and_undecoded() {
        let map = headers(&[
            (COOKIE, b"a=1; sid=\"x y\" ;sid2=no; Sid=no"),
            (COOKIE, b"sid=p%20q=r; flag; sid=\""),
        ]);
        assert_eq!(all(cookie(&map, "sid")), ok(&["x y", "p%20q=r", "\""]));
        assert_eq!(all(cookie(&map, "flag")), ok(&[]));
    }

    #[test]
    fn pair_is_decoded_in_name_and_value() {
        let query = b"a=1&W%61+Id=%2B33+6&&Wa+Id&Wa+Id=50%&=x&Wa+Id=%ff";
        let mut expected = ok(&["+33 6", "", "50%"]);
        expected.push(Err(NotText));
        assert_eq!(all(pairs(query, "Wa Id")), expected);
        assert_eq!(all(pairs(b"a=1&a=2", "a")), ok(&["1", "2"]));
        assert_eq!(all(pairs(b"", "a")), ok(&[]));
    }

    #[test]
    fn path_segments_count_from_one() {
        assert_eq!(segment("/shops/caf%C3%A9+1/x", 1), Some(Ok("shops".into())));
        assert_eq!(segment("/shops/caf%C3%A9+1/x", 2), Some(Ok("café+1".into())));
        assert_eq!(segment("/a//b", 2), Some(Ok("".into())));
        assert_eq!(segment("/a/%ff", 2), Some(Err(NotText)));
        for (path, number) in [("/a", 2), ("/a", 0), ("*", 1), ("", 1)] {
            assert_eq!(segment(path, number), None, "{path} {number}");
        }
    }

    #[test]
    fn form_is_told_by_its_media_type_alone() {
        for (value, form) in [
            ("application/x-www-form-urlencoded", true),
            ("Application/X-WWW-Form-Urlencoded ; charset=UTF-8", true),
            ("application/x-www-form-urlencoded2", false),
            ("application/json", false),
        ] {
            assert_eq!(has_form(&headers(&[(CONTENT_TYPE, value.as_bytes())])), form, "{value}");
        }
        assert!(!has_form(&HeaderMap::new()));
    }
}
