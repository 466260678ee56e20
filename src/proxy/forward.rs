//! What a forwarded message's head looks like: everything that arrived, less what belongs to one connection, plus
//! where it came from.
//!
//! Values and the order of repeated headers stay as they were (signatures may cover them); hop-by-hop headers are
//! removed both ways (RFC 9110 section 7.6.1), and headers that begin with `x-understudy-` are ours alone. The names are
//! looked over once: whatever is rare costs nothing where it is absent. Who the client is, is [`super::provenance`]'s.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use ipnet::IpNet;

use super::provenance::{FORWARDED_FOR, Provenance};

/// The prefix of our own headers.
const OURS: &[u8] = b"x-understudy-";

/// The exchange's id.
pub const EXCHANGE: HeaderName = HeaderName::from_static("x-understudy-exchange");
/// Marks a copy: `1`.
pub const SHADOW: HeaderName = HeaderName::from_static("x-understudy-shadow");
/// Why we answered in place of a backend.
pub const ERROR: HeaderName = HeaderName::from_static("x-understudy-error");
/// Which side's answer this is.
pub const SERVED_BY: HeaderName = HeaderName::from_static("x-understudy-served-by");

const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");

/// What belongs to one connection, each with its bit in [`Found`].
const HOP_BY_HOP: [(HeaderName, u32); 10] = [
    (header::CONNECTION, CONNECTION),
    (HeaderName::from_static("http2-settings"), 1 << 1),
    (HeaderName::from_static("keep-alive"), 1 << 2),
    (HeaderName::from_static("proxy-connection"), 1 << 3),
    (header::PROXY_AUTHENTICATE, 1 << 4),
    (header::PROXY_AUTHORIZATION, 1 << 5),
    (header::TE, TE),
    (header::TRAILER, 1 << 7),
    (header::TRANSFER_ENCODING, 1 << 8),
    (header::UPGRADE, 1 << 9),
];

const CONNECTION: u32 = 1;
const TE: u32 = 1 << 6;
const OF_OURS: u32 = 1 << 10;
const OF_FORWARDING: u32 = 1 << 11;
const HAS_FOR: u32 = 1 << 12;
const HAS_PROTO: u32 = 1 << 13;
const HAS_HOST: u32 = 1 << 14;
const HAS_PORT: u32 = 1 << 15;

/// Which headers of interest a message has.
#[derive(Clone, Copy)]
struct Found(u32);

impl Found {
    fn among(headers: &HeaderMap) -> Self {
        Self(
            headers
                .keys()
                .fold(0, |bits, name| bits | bit(name.as_str().as_bytes())),
        )
    }

    const fn has(self, bits: u32) -> bool {
        self.0 & bits != 0
    }
}

// Names arrive in lower case.
fn bit(name: &[u8]) -> u32 {
    match name {
        [b'x', rest @ ..] if rest.len() > 7 => among_x(name),
        b"connection" => CONNECTION,
        b"forwarded" => OF_FORWARDING,
        b"http2-settings" => 1 << 1,
        b"keep-alive" => 1 << 2,
        b"proxy-connection" => 1 << 3,
        b"proxy-authenticate" => 1 << 4,
        b"proxy-authorization" => 1 << 5,
        b"te" => TE,
        b"trailer" => 1 << 7,
        b"transfer-encoding" => 1 << 8,
        b"upgrade" => 1 << 9,
        _ => 0,
    }
}

fn among_x(name: &[u8]) -> u32 {
    match name {
        b"x-forwarded-for" => OF_FORWARDING | HAS_FOR,
        b"x-forwarded-proto" => OF_FORWARDING | HAS_PROTO,
        b"x-forwarded-host" => OF_FORWARDING | HAS_HOST,
        b"x-forwarded-port" => OF_FORWARDING | HAS_PORT,
        _ if begins_with(name, OURS) => OF_OURS,
        _ if begins_with(name, b"x-forwarded-") || (begins_with(name, b"x-real-ip") && name.len() == 9) => {
            OF_FORWARDING
        }
        _ => 0,
    }
}

// Some frameworks hand `_` and `-` on as the same letter, and would take the one for the other.
fn begins_with(name: &[u8], prefix: &[u8]) -> bool {
    let folded = |byte: &u8| if *byte == b'_' { b'-' } else { *byte };
    name.len() >= prefix.len() && name.iter().map(folded).zip(prefix).all(|(a, b)| a == *b)
}

// A client must not be able to have these removed by naming them in Connection.
fn may_be_named(name: &HeaderName) -> bool {
    !matches!(*name, header::HOST | header::CONTENT_LENGTH | header::VIA)
        && bit(name.as_str().as_bytes()) & OF_FORWARDING == 0
}

/// Whether a list header has this token.
fn lists(headers: &HeaderMap, name: &HeaderName, token: &[u8]) -> bool {
    let mut tokens = headers
        .get_all(name)
        .iter()
        .flat_map(|value| value.as_bytes().split(|b| *b == b','));
    tokens.any(|one| one.trim_ascii().eq_ignore_ascii_case(token))
}

/// Whether a request's client takes trailers.
#[must_use]
pub fn takes_trailers(headers: &HeaderMap) -> bool {
    lists(headers, &header::TE, b"trailers")
}

/// Whether a request's head asks for another protocol on its connection.
#[must_use]
pub fn asks_for_upgrade(headers: &HeaderMap) -> bool {
    headers.contains_key(header::UPGRADE) && lists(headers, &header::CONNECTION, b"upgrade")
}

/// Removes what belongs to one connection only. `TE: trailers` stays.
fn strip_hop_by_hop(headers: &mut HeaderMap, found: Found) {
    if !found.has((1 << HOP_BY_HOP.len()) - 1) {
        return;
    }
    let trailers = found.has(TE) && takes_trailers(headers);
    if found.has(CONNECTION) {
        let named: Vec<HeaderName> = headers
            .get_all(header::CONNECTION)
            .iter()
            .flat_map(|value| value.as_bytes().split(|b| *b == b','))
            .filter_map(|token| HeaderName::from_bytes(token.trim_ascii()).ok())
            .filter(may_be_named)
            .collect();
        for name in named {
            headers.remove(name);
        }
    }
    for (name, bit) in &HOP_BY_HOP {
        if found.has(*bit) {
            headers.remove(name);
        }
    }
    if trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
}

fn strip(headers: &mut HeaderMap, which: u32) {
    let some: Vec<HeaderName> = headers
        .keys()
        .filter(|name| bit(name.as_str().as_bytes()) & which != 0)
        .cloned()
        .collect();
    for name in some {
        headers.remove(name);
    }
}

/// Makes a client's request head fit to be sent to a backend. With `trusted`, nobody but those networks may say where a
/// request came from; without it everybody may.
pub fn prepare_request(headers: &mut HeaderMap, from: &Provenance, trusted: Option<&[IpNet]>, via: bool) {
    let mut found = Found::among(headers);
    strip_hop_by_hop(headers, found);
    if found.has(OF_OURS) {
        strip(headers, OF_OURS);
    }
    if found.has(OF_FORWARDING) && trusted.is_some_and(|trusted| !from.is_among(trusted)) {
        strip(headers, OF_FORWARDING);
        found.0 &= !(HAS_FOR | HAS_PROTO | HAS_HOST | HAS_PORT);
    }
    append_peer(headers, from, found.has(HAS_FOR));
    if !found.has(HAS_PROTO) {
        headers.insert(FORWARDED_PROTO, HeaderValue::from_static(from.scheme.as_str()));
    }
    if !found.has(HAS_HOST)
        && let Some(host) = headers.get(header::HOST).cloned()
    {
        headers.insert(FORWARDED_HOST, host);
    }
    if !found.has(HAS_PORT)
        && let Some(port) = from.port()
    {
        headers.insert(FORWARDED_PORT, port.clone());
    }
    add_via(headers, via);
}

/// Makes a backend's answer head fit to be sent to the client.
pub fn prepare_answer(headers: &mut HeaderMap, via: bool) {
    let found = Found::among(headers);
    strip_hop_by_hop(headers, found);
    if found.has(OF_OURS) {
        strip(headers, OF_OURS);
    }
    add_via(headers, via);
}

fn add_via(headers: &mut HeaderMap, via: bool) {
    if via {
        headers.append(header::VIA, HeaderValue::from_static("1.1 understudy"));
    }
}

// The whole list in one line: several lines and one list mean the same (RFC 9110 section 5.3), and backends that look
// at the first or the last line only must see the peer in both cases.
fn append_peer(headers: &mut HeaderMap, from: &Provenance, has_others: bool) {
    let Some(address) = from.text() else { return };
    if !has_others {
        headers.insert(FORWARDED_FOR, address.clone());
        return;
    }
    let mut list = Vec::with_capacity(64);
    for value in headers.get_all(&FORWARDED_FOR) {
        list.extend_from_slice(value.as_bytes());
        list.extend_from_slice(b", ");
    }
    list.extend_from_slice(address.as_bytes());
    if let Ok(value) = HeaderValue::from_maybe_shared(bytes::Bytes::from(list)) {
        headers.insert(FORWARDED_FOR, value);
    }
}

/// How long fields are as HTTP/1 writes them.
#[must_use]
pub fn bytes(fields: &HeaderMap) -> usize {
    fields
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len() + 4)
        .sum()
}

/// Removes from trailers what says how a message is framed, where it goes or who sent it (RFC 9110 section 6.5.1):
/// whoever merges trailers into headers must not be misled by them.
pub fn prepare_trailers(trailers: &mut HeaderMap) {
    let refused: Vec<HeaderName> = trailers.keys().filter(|name| !may_trail(name)).cloned().collect();
    for name in refused {
        trailers.remove(name);
    }
}

/// The names that a `Trailer` header announces, as far as they may stand there, written anew; to be asked before the
/// header is removed.
#[must_use]
pub fn announced_trailers(headers: &HeaderMap) -> Option<HeaderValue> {
    let mut announced = String::new();
    let values = headers.get_all(header::TRAILER).iter();
    for token in values.flat_map(|value| value.as_bytes().split(|b| *b == b',')) {
        if let Ok(name) = HeaderName::from_bytes(token.trim_ascii())
            && may_trail(&name)
        {
            if !announced.is_empty() {
                announced.push_str(", ");
            }
            announced.push_str(name.as_str());
        }
    }
    (!announced.is_empty())
        .then(|| HeaderValue::from_str(&announced).ok())
        .flatten()
}

fn may_trail(name: &HeaderName) -> bool {
    let misleads = matches!(
        *name,
        header::AUTHORIZATION
            | header::CACHE_CONTROL
            | header::CONTENT_ENCODING
            | header::CONTENT_LENGTH
            | header::CONTENT_RANGE
            | header::CONTENT_TYPE
            | header::COOKIE
            | header::EXPECT
            | header::HOST
            | header::MAX_FORWARDS
            | header::SET_COOKIE
            | header::VIA
    );
    !misleads && bit(name.as_str().as_bytes()) == 0
}

#[cfg(test)]
mod tests {
    use super::super::socket::{Peer, Protocol, Scheme};
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(*name, HeaderValue::from_static(value));
        }
        map
    }

    fn peer(address: &str, port: u16) -> Provenance {
        Provenance::of(&Peer {
            address: Some(address.parse().unwrap()),
            local_port: Some(port),
            scheme: Scheme::Http,
            protocol: Protocol::Any,
        })
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
            (
                "connection",
                "Content-Length, Host, X-Forwarded-For, Forwarded, X-Real-IP, Via",
            ),
            ("forwarded", "for=192.0.2.1"),
            ("x-real-ip", "192.0.2.1"),
            ("via", "1.1 front"),
            ("x-private", "1"),
            ("keep-alive", "timeout=5"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("http2-settings", "AAMAAABkAAQAAP__"),
            ("content-length", "3"),
            ("x-forwarded-for", "192.0.2.1"),
            ("x-signature", "a"),
            ("x-signature", "b"),
        ]);
        let found = Found::among(&map);
        strip_hop_by_hop(&mut map, found);
        let mut left = listed(&map);
        left.sort();
        let expected = [
            ("content-length", "3"),
            ("forwarded", "for=192.0.2.1"),
            ("host", "shop.example"),
            ("te", "trailers"),
            ("via", "1.1 front"),
            ("x-forwarded-for", "192.0.2.1"),
            ("x-real-ip", "192.0.2.1"),
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
        prepare_request(&mut map, &peer("[::ffff:127.0.0.1]:5000", 8080), None, true);
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
        prepare_request(&mut map, &peer("127.0.0.1:5000", 80), None, false);
        assert!(!map.keys().any(|name| name.as_str().contains("understudy")));
        assert!(map.contains_key("accept"));
    }

    const CLAIMS: [(&str, &str); 7] = [
        ("forwarded", "for=198.51.100.7;proto=https"),
        ("x-forwarded-for", "198.51.100.7"),
        ("x_forwarded_for", "198.51.100.8"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "elsewhere.example"),
        ("x-forwarded-prefix", "/admin"),
        ("x-real-ip", "198.51.100.7"),
    ];

    #[test]
    fn who_is_not_trusted_does_not_say_where_a_request_came_from() {
        let mut map = headers(&CLAIMS);
        map.insert("host", HeaderValue::from_static("shop.example"));
        let trusted = ["10.0.0.0/8".parse().unwrap()];
        prepare_request(&mut map, &peer("192.0.2.1:5000", 8080), Some(&trusted), false);
        let mut left = listed(&map);
        left.sort();
        let expected = [
            ("host", "shop.example"),
            ("x-forwarded-for", "192.0.2.1"),
            ("x-forwarded-host", "shop.example"),
            ("x-forwarded-port", "8080"),
            ("x-forwarded-proto", "http"),
        ];
        assert_eq!(left, expected.map(|(k, v)| (k.to_owned(), v.to_owned())));
    }

    #[test]
    fn who_is_trusted_is_believed_and_added() {
        let mut map = headers(&CLAIMS);
        let trusted = ["10.0.0.0/8".parse().unwrap()];
        prepare_request(&mut map, &peer("10.1.2.3:5000", 8080), Some(&trusted), false);
        assert_eq!(map["x-forwarded-for"], "198.51.100.7, 10.1.2.3");
        assert_eq!(map["x-forwarded-proto"], "https");
        assert_eq!(map["forwarded"], "for=198.51.100.7;proto=https");
        assert_eq!(map["x-real-ip"], "198.51.100.7");
        assert_eq!(map["x-forwarded-port"], "8080");
    }

    #[test]
    fn trailers_do_not_say_what_only_headers_may() {
        let mut map = headers(&[
            ("grpc-status", "0"),
            ("content-length", "5"),
            ("transfer-encoding", "chunked"),
            ("host", "elsewhere.example"),
            ("x-forwarded-for", "198.51.100.7"),
            ("x-understudy-shadow", "1"),
            ("x-checksum", "abc"),
        ]);
        prepare_trailers(&mut map);
        let mut left = listed(&map);
        left.sort();
        assert_eq!(
            left,
            [("grpc-status", "0"), ("x-checksum", "abc")].map(|(k, v)| (k.to_owned(), v.to_owned()))
        );
        let map = headers(&[("trailer", "X-Checksum, Content-Length"), ("trailer", "grpc-status,,")]);
        assert_eq!(announced_trailers(&map).unwrap(), "x-checksum, grpc-status");
        assert_eq!(announced_trailers(&headers(&[("trailer", "host")])), None);
    }
}
