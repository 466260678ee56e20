//! What the members of `backends` mean, by themselves and beside the listeners.
//!
//! Pure. In: the decoded section, with places. Out: [`Backends`], problems and warnings.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use crate::engine::decide;
use crate::engine::ruleset::decode::At;
use crate::engine::ruleset::problem::Problems;

use super::raw::{self, Address, Url};
use super::{Backend, BackendTls, Backends, Ejection, Health};

/// Checks that no backend is one of our own listeners, and that there are two of them.
pub(super) fn check(backends: &raw::Backends, listeners: &[At<Address>], problems: &mut Problems) {
    for (name, backend) in [("legacy", &backends.legacy), ("new", &backends.new)] {
        for At { value: url, place } in &backend.url.0 {
            if let Some(listener) = listeners.iter().find(|listener| is_here(&listener.value, url)) {
                let what = format!(
                    "this is the listener of line {}: requests would go in a ring",
                    listener.place.line
                );
                problems.problem(
                    place.clone(),
                    format!("backends.{name}.url"),
                    what,
                    "name the service itself",
                );
            }
        }
    }
    let urls = |backend: &raw::Backend| backend.url.0.iter().map(|url| url.value.clone()).collect::<Vec<_>>();
    let (legacy, new) = (urls(&backends.legacy), urls(&backends.new));
    if let Some(same) = backends.new.url.0.iter().find(|url| legacy.contains(&url.value)) {
        let what = if legacy == new {
            "legacy and new are the same service"
        } else {
            "legacy and new share an address"
        };
        problems.warning(
            same.place.clone(),
            "backends.new.url",
            what,
            "name the service that replaces legacy",
        );
    }
}

fn is_here(listener: &Address, url: &Url) -> bool {
    match (listener, url) {
        (Address::Tcp(listener), Url::Host { host, port, .. }) => {
            let ip = match host.as_str() {
                "localhost" => Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
                host => host.parse().ok(),
            };
            let listens = listener.ip();
            let here = |ip: IpAddr| listens == ip || (listens.is_unspecified() && ip.is_loopback());
            listener.port() == *port && ip.is_some_and(here)
        }
        (Address::Unix(listener), Url::Socket(socket)) => listener == socket,
        _ => false,
    }
}

/// Both services as they are to be used.
pub(super) fn build(written: raw::Backends, tls: [Option<BackendTls>; 2], problems: &mut Problems) -> Backends {
    let [legacy, new] = tls;
    Backends {
        legacy: backend("legacy", written.legacy, legacy, problems),
        new: backend("new", written.new, new, problems),
    }
}

fn backend(name: &str, written: raw::Backend, tls: Option<BackendTls>, problems: &mut Problems) -> Backend {
    let ejection = Ejection {
        first: written.ejection.first.0,
        longest: written.ejection.longest.value.0,
    };
    if ejection.longest < ejection.first {
        problems.problem(
            written.ejection.longest.place.clone(),
            format!("backends.{name}.ejection.longest"),
            "the longest time is below the first",
            "raise it, or lower `first`",
        );
    }
    let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    let health = &written.health;
    Backend {
        connect_timeout: written.connect_timeout.0,
        dns_refresh: written.dns_refresh.0.max(DNS_REFRESH),
        health: health.path.as_ref().map(|path| Health {
            path: path.0.clone(),
            interval: health.interval.0,
            timeout: health.timeout.0,
            healthy: count(health.healthy.0),
            unhealthy: count(health.unhealthy.0),
        }),
        ejection,
        http: written.http,
        tls,
        timeout: written.timeout.0,
        body_idle: written.body_idle.map(|pause| pause.0),
        idle: written.idle.0,
        copies: match written.copies {
            raw::Copies::SafeMethods => decide::Copies::SafeMethods,
            raw::Copies::DryRun => decide::Copies::DryRun,
            raw::Copies::Isolated => decide::Copies::Isolated,
        },
        urls: written.url.0.into_iter().map(|url| url.value).collect(),
    }
}

/// Names are not looked up more often than this.
const DNS_REFRESH: Duration = Duration::from_millis(100);
