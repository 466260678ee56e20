//! Where requests come from: what a connection's peer is written as, and who the client is behind it.
//!
//! Made once per connection, so that a request only shares what is written of it. A connection over a Unix socket has no
//! address; whoever may open the socket is trusted.

use std::net::{IpAddr, SocketAddr};

use http::header::{HeaderMap, HeaderName, HeaderValue};
use ipnet::IpNet;

use super::socket::{Peer, Scheme};

/// The addresses that a request came by.
pub const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// What a connection's requests say of where they come from.
#[derive(Clone, Debug)]
pub struct Provenance {
    /// How the client's side is secured.
    pub scheme: Scheme,
    address: Option<IpAddr>,
    text: Option<HeaderValue>,
    port: Option<HeaderValue>,
}

impl Provenance {
    /// What is to be said of a peer.
    #[must_use]
    pub fn of(peer: &Peer) -> Self {
        let address = peer.address.map(|address| address.ip().to_canonical());
        Self {
            scheme: peer.scheme,
            address,
            text: address.and_then(|address| HeaderValue::try_from(address.to_string()).ok()),
            port: peer.local_port.map(HeaderValue::from),
        }
    }

    /// The peer's address, as it is written to headers.
    #[must_use]
    pub const fn text(&self) -> Option<&HeaderValue> {
        self.text.as_ref()
    }

    /// The port that the peer connected to, as it is written to headers.
    #[must_use]
    pub const fn port(&self) -> Option<&HeaderValue> {
        self.port.as_ref()
    }

    /// Whether the peer is in one of these networks.
    #[must_use]
    pub fn is_among(&self, networks: &[IpNet]) -> bool {
        self.address.is_none_or(|address| contain(networks, address))
    }

    /// The client's address: the peer's, or, behind proxies that are trusted, the right-most one that they name and that
    /// is none of theirs. What cannot be read ends the search.
    #[must_use]
    pub fn client(&self, headers: &HeaderMap, trusted: Option<&[IpNet]>) -> Option<IpAddr> {
        let Some(trusted) = trusted.filter(|trusted| self.is_among(trusted)) else {
            return self.address;
        };
        let mut client = self.address;
        let values: Vec<&[u8]> = headers
            .get_all(FORWARDED_FOR)
            .iter()
            .map(HeaderValue::as_bytes)
            .collect();
        for entry in values.iter().rev().flat_map(|value| value.rsplit(|b| *b == b',')) {
            let Some(address) = std::str::from_utf8(entry).ok().and_then(|text| address(text.trim())) else {
                break;
            };
            client = Some(address);
            if !contain(trusted, address) {
                break;
            }
        }
        client
    }
}

fn contain(networks: &[IpNet], address: IpAddr) -> bool {
    networks.iter().any(|network| network.contains(&address))
}

// Some write the port too.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'))
        .unwrap_or(text);
    let parsed = bare.parse().ok();
    parsed
        .or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()))
        .map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::super::socket::Protocol;
    use super::*;

    fn client(peer: &str, forwarded: &[&'static str], trusted: Option<&[&str]>) -> String {
        let peer = Provenance::of(&Peer {
            address: Some(peer.parse().unwrap()),
            local_port: Some(80),
            scheme: Scheme::Http,
            protocol: Protocol::Any,
        });
        let mut headers = HeaderMap::new();
        for value in forwarded {
            headers.append(FORWARDED_FOR, HeaderValue::from_static(value));
        }
        let trusted: Option<Vec<IpNet>> = trusted.map(|all| all.iter().map(|net| net.parse().unwrap()).collect());
        peer.client(&headers, trusted.as_deref()).unwrap().to_string()
    }

    #[test]
    fn the_client_is_the_right_most_address_that_nobody_vouches_for() {
        let trusted = Some(&["10.0.0.0/8", "2001:db8::/32"][..]);
        assert_eq!(
            client("10.0.0.1:1", &["203.0.113.1, 198.51.100.7, 10.0.0.2"], trusted),
            "198.51.100.7"
        );
        assert_eq!(
            client("10.0.0.1:1", &["203.0.113.1", "198.51.100.7:4711"], trusted),
            "198.51.100.7"
        );
        assert_eq!(client("[2001:db8::1]:1", &["[2001:db9::7]:80"], trusted), "2001:db9::7");
        assert_eq!(client("10.0.0.1:1", &["10.0.0.3"], trusted), "10.0.0.3");
        assert_eq!(
            client("10.0.0.1:1", &["198.51.100.7, unknown, 10.0.0.2"], trusted),
            "10.0.0.2"
        );
        assert_eq!(client("10.0.0.1:1", &[], trusted), "10.0.0.1");
    }

    #[test]
    fn who_is_not_trusted_is_the_client_whatever_it_says() {
        assert_eq!(
            client("192.0.2.1:1", &["198.51.100.7"], Some(&["10.0.0.0/8"])),
            "192.0.2.1"
        );
        assert_eq!(client("192.0.2.1:1", &["198.51.100.7"], Some(&[])), "192.0.2.1");
        assert_eq!(client("[::ffff:192.0.2.1]:1", &["198.51.100.7"], None), "192.0.2.1");
    }
}
