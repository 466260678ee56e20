//! From a configuration and compiled rules to what workers see.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio_rustls::TlsConnector;

use crate::config::{self, AccessLog, Config, HttpVersion, SubjectLog, Url};
use crate::engine::decide::Ask;
use crate::engine::ruleset::route::{RouteSpec, Switch};
use crate::engine::ruleset::{Route, Ruleset};
use crate::engine::vocab::{FlagKey, RouteKey, Side};
use crate::live::Live;
use crate::live::backend::Backend;
use crate::live::kills::Uses;
use crate::live::service::{Ejection, Endpoint, Health, Protocol, Service, Spec, Tls};
use crate::live::snapshot::{Access, AccessWhen, RequestLimits, Snapshot};

/// The name under which requests that no route takes are counted.
pub const UNROUTED: &str = "unrouted";

/// Puts rules into force.
///
/// # Panics
/// Never: [`UNROUTED`] is a key.
pub fn publish(live: &Live, config: &Config, rules: Ruleset) {
    let before = live.snapshot();
    let mut routes = Vec::new();
    for (index, route) in rules.routes() {
        let key = route.key();
        let horizon = horizon(config, &route.spec);
        let word = live.kills.word(key, used(&rules, route));
        routes.push(live.registry.route(key, Some(index), word, horizon));
    }
    #[expect(clippy::expect_used, reason = "the constant above is letters")]
    let unrouted = RouteKey::parse(UNROUTED).expect("a key");
    let unrouted = live.registry.route(
        &unrouted,
        None,
        live.kills.word(&unrouted, Uses::default()),
        Duration::MAX,
    );
    let services = Side::BOTH.map(|side| {
        let known = before.as_deref().map(|snapshot| &snapshot.backend(side).service);
        service(live, side, config.backends.of(side), known)
    });
    let backends = |of: fn(&Snapshot) -> &[Arc<Backend>; 2], limit| {
        Side::BOTH.map(|side| {
            let spec = config.backends.of(side);
            let known = before.as_deref().map(|snapshot| &of(snapshot)[side.index()]);
            // What is under way to a backend stays under way over a reload.
            let service = &services[side.index()];
            let in_flight = known
                .filter(|b| b.service.spec.endpoints == service.spec.endpoints)
                .map(|b| Arc::clone(&b.in_flight));
            Arc::new(Backend {
                side,
                service: Arc::clone(service),
                connect_timeout: spec.connect_timeout,
                timeout: spec.timeout,
                body_idle: spec.body_idle,
                idle: spec.idle,
                in_flight_limit: limit,
                in_flight: in_flight.unwrap_or_default(),
            })
        })
    };
    let flag_tallies = rules
        .flags()
        .iter()
        .map(|(_, flag)| live.registry.flag(flag.key.as_str()))
        .collect();
    for listener in &config.listeners {
        if let Some(tls) = &listener.tls {
            live.certificates
                .cell(&listener.name)
                .publish(&tls.server, &tls.not_after_unix_s, tls.hash());
        }
    }
    live.budget.resize(config.capture.budget_bytes);
    live.publish(Snapshot {
        routes,
        unrouted,
        backends: backends(|snapshot| &snapshot.backends, config.limits.in_flight),
        // Copies are bounded by their lanes.
        shadows: backends(|snapshot| &snapshot.shadows, usize::MAX),
        limits: RequestLimits {
            target_bytes: config.limits.target_bytes,
            body: config.limits.body_bytes,
            body_idle: config.limits.body_idle,
            body_rate: config.limits.body_rate,
            tunnels: config.limits.tunnels,
            tunnel_idle: config.limits.tunnel_idle,
            drain: config.limits.drain,
            capture: usize::try_from(config.capture.body_bytes).unwrap_or(usize::MAX),
        },
        trusted_proxies: config.trusted_proxies.clone().map(Vec::into_boxed_slice),
        via: config.via,
        stale_after: config.flags_stale_after,
        served_by: config.served_by,
        log_threshold: config.logs.decisions.buckets(),
        log_clear: config.logs.subject == SubjectLog::Clear,
        access: Access {
            when: match config.logs.access {
                AccessLog::Off => AccessWhen::Off,
                AccessLog::Errors => AccessWhen::Errors,
                AccessLog::All => AccessWhen::All,
            },
            client: config.logs.access_client,
            path: config.logs.access_path,
        },
        flag_tallies,
        flag_kills: live.kills.flag_word(rules.flags()),
        rules,
    });
}

// What is known of replicas outlives a reload that changes nothing about them, and as far as possible any other.
fn service(live: &Live, side: Side, backend: &config::Backend, before: Option<&Arc<Service>>) -> Arc<Service> {
    let endpoint = |url: &Url| match url {
        Url::Host { host, port, .. } => Endpoint::Host(host.as_str().into(), *port),
        Url::Socket(path) => Endpoint::Socket(path.as_path().into()),
    };
    let spec = Spec {
        side,
        endpoints: backend.urls.iter().map(endpoint).collect(),
        protocol: match backend.http {
            HttpVersion::Auto => Protocol::Auto,
            HttpVersion::One => Protocol::One,
            HttpVersion::Two => Protocol::Two,
        },
        idle: backend.idle,
        connect_timeout: backend.connect_timeout,
        dns_refresh: backend.dns_refresh,
        health: backend.health.as_ref().map(|health| Health {
            path: health.path.as_str().into(),
            interval: health.interval,
            timeout: health.timeout,
            healthy: health.healthy,
            unhealthy: health.unhealthy,
        }),
        ejection: Ejection {
            first: backend.ejection.first,
            longest: backend.ejection.longest,
        },
        tls: backend.tls.as_ref().map(|tls| Tls {
            connector: TlsConnector::from(Arc::clone(&tls.config)),
            server_name: tls.server_name.clone(),
            digest: tls.digest,
        }),
    };
    match before.filter(|before| before.spec == spec) {
        Some(same) => Arc::clone(same),
        None => {
            let tally = Arc::clone(&live.services[side.index()]);
            Service::new(spec, before.map(|before| &**before), tally)
        }
    }
}

// Both runs of a pair are judged by the shorter deadline, or the side with more time would look better than it is.
fn horizon(config: &Config, spec: &RouteSpec) -> Duration {
    let slowest = config.backends.legacy.timeout.min(config.backends.new.timeout);
    slowest.min(spec.shadow.timeout)
}

pub(super) fn used(rules: &Ruleset, route: &Route) -> Uses {
    fn key(switch: &Switch) -> Option<FlagKey> {
        match switch {
            Switch::Flag(key, _) => Some(key.clone()),
            Switch::Constant(_) => None,
        }
    }
    let in_turn = |asks: &[Option<Ask>]| {
        let flags = asks.iter().flatten().filter_map(|ask| match ask {
            Ask::Flag(at) => Some(*at),
            Ask::Constant(_) => None,
        });
        let asked = flags.flat_map(|at| rules.flags().asked_by(at));
        let keys: BTreeSet<&FlagKey> = asked.filter_map(|at| rules.flag_key(at)).collect();
        keys.into_iter().cloned().collect()
    };
    let (spec, policy) = (&route.spec, &route.policy);
    Uses {
        flag: key(&spec.flag),
        shadow: key(&spec.shadow.switch),
        dual_run: key(&spec.dual_run),
        shadow_mode: spec.shadow_mode.as_ref().and_then(key),
        asked_by_flag: in_turn(&[Some(policy.flag)]),
        asked_by_others: in_turn(&[Some(policy.shadow), Some(policy.dual_run), policy.shadow_mode]),
    }
}

/// What differs between two configurations that only a restart can take over, by the names in the file.
#[must_use]
pub fn waits_for_restart(running: &Config, read: &Config) -> Vec<String> {
    let (a, b) = (running, read);
    let client = |c: &Config| {
        let l = &c.limits;
        (
            l.header_bytes,
            l.header_count,
            l.header_timeout,
            l.write_timeout,
            l.idle,
            l.handshake,
            l.connections,
            (l.connections_per_client, l.requests_per_client),
            l.streams,
            l.half_close,
            l.drain,
        )
    };
    let known = |tokens: &[config::Token]| -> Vec<_> {
        let known = tokens
            .iter()
            .map(|token| (token.name.clone(), token.role.as_str(), token.sha256));
        known.collect()
    };
    let tokens = |c: &Config| {
        let admin = &c.admin;
        let known = known(&admin.tokens);
        (admin.address, admin.tokens_file.clone(), admin.metrics_token, known)
    };
    let ofrep = |c: &Config| {
        let ofrep = &c.ofrep;
        let limits = (ofrep.requests_per_client, ofrep.connections, ofrep.streams);
        (ofrep.address, known(&ofrep.tokens), ofrep.cors.clone(), limits)
    };
    let same_sockets = a.listeners.len() == b.listeners.len()
        && a.listeners.iter().zip(&b.listeners).all(|(a, b)| a.is_same_socket(b));
    let differs = [
        ("workers", a.workers != b.workers),
        ("listeners", !same_sockets),
        ("handover", a.handover != b.handover),
        ("admin", tokens(a) != tokens(b)),
        ("ofrep", ofrep(a) != ofrep(b)),
        ("state.path", a.state_path != b.state_path),
        ("limits", client(a) != client(b)),
    ];
    differs
        .into_iter()
        .filter(|(_, differs)| *differs)
        .map(|(name, _)| name.to_owned())
        .collect()
}
