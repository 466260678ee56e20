//! What a forwarded message's head looks like: everything that arrived, less what belongs to one connection, plus
//! where it came from.
//!
//! Values and the order of repeated headers stay as they were (signatures may cover them); hop-by-hop headers are
//! removed both ways (RFC 9110 section 7.6.1), and headers that begin with `x-understudy-` are ours alone.

use std::net::IpAddr;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use super::socket::Peer;

/// The prefix of our own headers.
const OURS: &str = "x-understudy-";

/// The exchange's id.
pub const EXCHANGE: HeaderName = HeaderName::from_static("x-understudy-exchange");
/// Marks a copy: `1`.
pub const SHADOW: HeaderName = HeaderName::from_static("x-understudy-shadow");
/// Why we answered in place of a backend.
pub const ERROR: HeaderName = HeaderName::from_static("x-understudy-error");
/// Which side's answer this is.
pub const SERVED_BY: HeaderName = HeaderName::from_static("x-understudy-served-by");

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");

const HOP_BY_HOP: [HeaderName; 9] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

// A client must not be able to have these removed by naming them in Connection.
const NOT_TO_BE_NAMED: [HeaderName; 6] = [
    header::HOST,
    header::CONTENT_LENGTH,
    FORWARDED_FOR,
    FORWARDED_PROTO,
    FORWARDED_HOST,
    FORWARDED_PORT,
];

/// Removes what belongs to one connection only. `TE: trailers` stays.
pub fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let trailers = headers
        .get_all(header::TE)
        .iter()
        .any(|v| v.as_bytes().eq_ignore_ascii_case(b"trailers"));
    if headers.contains_key(header::CONNECTION) {
        let named: Vec<HeaderName> = headers
            .get_all(header::CONNECTION)
            .iter()
            .flat_map(|value| value.as_bytes().split(|b| *b == b','))
            .filter_map(|token| HeaderName::from_bytes(token.trim_ascii()).ok())
            .filter(|name| !NOT_TO_BE_NAMED.contains(name))
            .collect();
        for name in named {
            headers.remove(name);
        }
    }
    for name in &HOP_BY_HOP {
        headers.remove(name);
    }
    if trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
}

/// Makes a client's request head fit to be sent to a backend.
pub fn prepare_request(headers: &mut HeaderMap, peer: &Peer, via: bool) {
    strip_hop_by_hop(headers);
    strip_ours(headers);
    if let Some(address) = peer.address {
        append_peer(headers, address.ip());
    }
    if !headers.contains_key(&FORWARDED_PROTO) {
        headers.insert(FORWARDED_PROTO, HeaderValue::from_static(peer.scheme.as_str()));
    }
    if !headers.contains_key(&FORWARDED_HOST)
        && let Some(host) = headers.get(header::HOST).cloned()
    {
        headers.insert(FORWARDED_HOST, host);
    }
    if let Some(port) = peer.local_port
        && !headers.contains_key(&FORWARDED_PORT)
    {
        headers.insert(FORWARDED_PORT, HeaderValue::from(port));
    }
    add_via(headers, via);
}

/// Makes a backend's answer head fit to be sent to the client.
pub fn prepare_answer(headers: &mut HeaderMap, via: bool) {
    strip_hop_by_hop(headers);
    strip_ours(headers);
    add_via(headers, via);
}

fn add_via(headers: &mut HeaderMap, via: bool) {
    if via {
        headers.append(header::VIA, HeaderValue::from_static("1.1 understudy"));
    }
}

fn strip_ours(headers: &mut HeaderMap) {
    // Looking is cheaper than collecting, and there is hardly ever one.
    if headers.keys().any(is_ours) {
        let ours: Vec<HeaderName> = headers.keys().filter(|name| is_ours(name)).cloned().collect();
        for name in ours {
            headers.remove(name);
        }
    }
}

// Some frameworks hand `_` and `-` on as the same letter, and would take the one for the other.
fn is_ours(name: &HeaderName) -> bool {
    let folded = |byte: &u8| if *byte == b'_' { b'-' } else { *byte };
    name.as_str().len() >= OURS.len()
        && name
            .as_str()
            .as_bytes()
            .iter()
            .map(folded)
            .zip(OURS.bytes())
            .all(|(a, b)| a == b)
}

// The whole list in one line: several lines and one list mean the same (RFC 9110 section 5.3), and backends that look
// at the first or the last line only must see the peer in both cases.
fn append_peer(headers: &mut HeaderMap, peer: IpAddr) {
    use std::io::Write as _;
    let mut list = Vec::with_capacity(64);
    for value in headers.get_all(&FORWARDED_FOR) {
        list.extend_from_slice(value.as_bytes());
        list.extend_from_slice(b", ");
    }
    // Writing to a vector does not fail.
    let _ = write!(list, "{}", peer.to_canonical());
    if let Ok(value) = HeaderValue::from_maybe_shared(bytes::Bytes::from(list)) {
        headers.insert(FORWARDED_FOR, value);
    }
}

#[cfg(test)]
mod tests {
    use super::super::socket::{Protocol, Scheme};
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(*name, HeaderValue::from_static(value));
        }
        map
    }

    fn peer(address: &str, port: u16) -> Peer {
        Peer {
            address: Some(address.parse().unwrap()),
            local_port: Some(port),
            scheme: Scheme::Http,
            protocol: Protocol::Any,
        }
    }

    fn listed(map: &HeaderMap) -> Vec<(String, String)> {
        map.iter()
            .map(|(k, v)| (k.to_string(), v.to_str().unwrap().to_owned()))
            .collect()
    }

    #[test]
    fn what_belongs_to_one_connection_is_removed_and_nothing_else() {
        let mut map = headers(&[
            ("host", "shop.example"),
            ("connection", "close, X-Private"),
            ("connection", "Content-Length, Host, X-Forwarded-For"),
            ("x-private", "1"),
            ("keep-alive", "timeout=5"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("content-length", "3"),
            ("x-forwarded-for", "192.0.2.1"),
            ("x-signature", "a"),
            ("x-signature", "b"),
        ]);
        strip_hop_by_hop(&mut map);
        let mut left = listed(&map);
        left.sort();
        let expected = [
            ("content-length", "3"),
            ("host", "shop.example"),
            ("te", "trailers"),
            ("x-forwarded-for", "192.0.2.1"),
            ("x-signature", "a"),
            ("x-signature", "b"),
        ];
        assert_eq!(left, expected.map(|(k, v)| (k.to_owned(), v.to_owned())));
    }

    #[test]
    fn the_peer_is_appended_and_the_rest_is_set_only_if_absent() {
        let mut map = headers(&[
            ("host", "shop.example"),
            ("x-forwarded-for", "192.0.2.1"),
            ("x-forwarded-for", "192.0.2.2"),
            ("x-forwarded-proto", "https"),
        ]);
        prepare_request(&mut map, &peer("[::ffff:127.0.0.1]:5000", 8080), true);
        assert_eq!(map["x-forwarded-for"], "192.0.2.1, 192.0.2.2, 127.0.0.1");
        assert_eq!(map["x-forwarded-proto"], "https");
        assert_eq!(map["x-forwarded-host"], "shop.example");
        assert_eq!(map["x-forwarded-port"], "8080");
        assert_eq!(map["via"], "1.1 understudy");
    }

    #[test]
    fn a_client_cannot_speak_in_our_name() {
        let mut map = headers(&[
            ("x-understudy-shadow", "1"),
            ("x_understudy-exchange", "forged"),
            ("accept", "*/*"),
        ]);
        prepare_request(&mut map, &peer("127.0.0.1:5000", 80), false);
        assert!(!map.keys().any(|name| name.as_str().contains("understudy")));
        assert!(map.contains_key("accept"));
    }
}
