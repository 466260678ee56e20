//! Which `host` a request may name: the defence against a browser that was lured here by somebody's DNS.
//!
//! Pure. A page of a foreign site can let its own name point to 127.0.0.1 and then read, as that name, whatever answers
//! without a token. Such a request names the foreign site, so a listener on loopback answers only to loopback's own names
//! and to addresses. Beyond loopback every read needs a token, which no lured browser has, and probes and scrapers come by
//! whatever name the network gives; there only a well-formed host is asked for.

use std::net::{IpAddr, SocketAddr};

use axum::http::header::HOST;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, Uri};

use super::dto::Fault;
use super::refusal::Refusal;

/// See the module.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hosts {
    listens: IpAddr,
}

impl Hosts {
    /// For a listener at this address.
    pub fn new(listens: SocketAddr) -> Self {
        Self { listens: listens.ip() }
    }

    /// Refuses a request for somebody else.
    pub fn check(self, uri: &Uri, headers: &HeaderMap) -> Result<(), Refusal> {
        let unreadable = || {
            Refusal::new(
                Fault::BadRequest,
                "the request has no single, well-formed host",
                "send one `host`",
            )
        };
        let mut values = headers.get_all(HOST).iter();
        let value = values.next().ok_or_else(unreadable)?;
        if values.next().is_some() {
            return Err(unreadable());
        }
        let authority: Authority = value
            .to_str()
            .ok()
            .and_then(|text| text.parse().ok())
            .ok_or_else(unreadable)?;
        for host in [Some(authority.host()), uri.host()].into_iter().flatten() {
            if !self.is_ours(host) {
                let detail = "the request is for another host than this listener";
                let remedy =
                    "ask by address or as localhost; from elsewhere, listen on more than loopback, with tokens";
                return Err(Refusal::new(Fault::ForeignHost, detail, remedy));
            }
        }
        Ok(())
    }

    fn is_ours(self, host: &str) -> bool {
        if !self.listens.is_loopback() {
            return true;
        }
        let literal = host.trim_start_matches('[').trim_end_matches(']');
        match literal.parse::<IpAddr>() {
            Ok(address) => address.to_canonical().is_loopback() || address == self.listens,
            Err(_) => host.trim_end_matches('.').eq_ignore_ascii_case("localhost"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(listens: &str, hosts: &[&str], uri: &str) -> Option<Fault> {
        let headers =
            hosts
                .iter()
                .map(|host| (HOST, host.parse().unwrap()))
                .fold(HeaderMap::new(), |mut all, (k, v)| {
                    all.append(k, v);
                    all
                });
        let hosts = Hosts::new(SocketAddr::new(listens.parse().unwrap(), 9090));
        hosts
            .check(&uri.parse().unwrap(), &headers)
            .err()
            .map(|refusal| refusal.fault)
    }

    #[test]
    fn loopback_listener_answers_to_loopback_alone() {
        for good in [
            "localhost",
            "LOCALHOST:9090",
            "localhost.:80",
            "127.0.0.1:9090",
            "127.9.9.9",
            "[::1]:9090",
        ] {
            assert_eq!(ask("127.0.0.1", &[good], "/readyz"), None, "{good}");
        }
        for bad in [
            "evil.example",
            "localhost.evil.example:9090",
            "192.0.2.1",
            "127.0.0.1.evil.example",
            "[2001:db8::1]",
        ] {
            assert_eq!(ask("127.0.0.1", &[bad], "/readyz"), Some(Fault::ForeignHost), "{bad}");
        }
        assert_eq!(
            ask("127.0.0.1", &["localhost"], "http://evil.example/readyz"),
            Some(Fault::ForeignHost)
        );
    }

    #[test]
    fn listener_beyond_loopback_answers_to_any_name() {
        assert_eq!(ask("0.0.0.0", &["understudy.shop.svc:9090"], "/metrics"), None);
    }

    #[test]
    fn host_has_to_be_there_once_and_whole() {
        for bad in [&[][..], &["localhost", "localhost"], &["a b"], &[""]] {
            assert_eq!(ask("127.0.0.1", bad, "/readyz"), Some(Fault::BadRequest), "{bad:?}");
        }
    }
}
