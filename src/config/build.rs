//! From what is written to what holds: the checks that need several members at once.
//!
//! Pure. In: the decoded file and the tokens, each with places. Out: a [`Config`], problems and warnings. Routes are
//! checked in `routes`.

use crate::engine::ruleset::decode::{At, ByteSize};
use crate::engine::ruleset::problem::{Place, Problems};

use super::identity::Maps;
use super::raw::Address;
use super::raw::scalar::SocketAddress;
use super::tls::Files;
use super::{
    Admin, BackendTls, Capture, Config, Limits, Logs, Ofrep, Token, backends, listeners, path_at, raw, routes,
};

/// What stands in the tokens files; missing if one was wrong, which has been said.
pub(super) struct Tokens {
    /// Of operators.
    pub admin: Option<Vec<Token>>,
    /// Of SDKs, if they have a file of their own.
    pub ofrep: Option<Option<Vec<Token>>>,
}

/// Checks what members mean together.
pub(super) fn build(
    raw: raw::Config,
    tokens: Tokens,
    files: &Files,
    tls: [Option<BackendTls>; 2],
    maps: &Maps,
    problems: &mut Problems,
) -> Option<Config> {
    let admin_at = raw.admin.address.place.clone();
    let addresses = listeners::addresses(&raw.listeners, &raw.admin.address, problems);
    backends::check(&raw.backends, &addresses, problems);
    let listeners = listeners::build(raw.listeners.value, files, problems);
    let capture = capture(&raw.capture, problems);
    let limits = limits(&raw.limits, problems);
    let ofrep = ofrep(raw.ofrep, &tokens, &addresses, &raw.admin.address, problems);
    let admin = admin(raw.admin, tokens.admin, &admin_at, problems);
    let backends = backends::build(raw.backends, tls, problems);
    let routes = routes::build(raw.routes, maps, &backends, problems);
    Some(Config {
        environment: raw.environment.0,
        workers: raw.workers,
        listeners,
        handover: raw.handover.socket.map(|socket| socket.0),
        admin: admin?,
        ofrep: ofrep?,
        flags_stale_after: raw.flags.stale_after.0,
        flags_file: path_at(raw.flags.file),
        state_path: raw.state.path.0,
        capture,
        limits,
        logs: Logs {
            subject: raw.logs.subject,
            decisions: raw.logs.decisions.0,
            access: raw.logs.access,
            access_client: raw.logs.access_with.contains(&raw::AccessMember::Client),
            access_path: raw.logs.access_with.contains(&raw::AccessMember::Path),
        },
        trusted_proxies: raw
            .trusted_proxies
            .map(|all| all.into_iter().map(|network| network.0).collect()),
        via: raw.via,
        served_by: raw.served_by,
        backends,
        routes,
    })
}

fn admin(written: raw::Admin, tokens: Option<Vec<Token>>, at: &Place, problems: &mut Problems) -> Option<Admin> {
    let SocketAddress(address) = written.address.value;
    let tokens = tokens?;
    if !address.ip().is_loopback() && tokens.is_empty() {
        let what = "an admin listener beyond loopback without tokens";
        problems.problem(
            at.clone(),
            "admin.address",
            what,
            "set `admin.tokens_file`, or listen on 127.0.0.1",
        );
    }
    let tokens_file = written.tokens_file.map(|file| file.value.0);
    Some(Admin {
        address,
        tokens,
        tokens_file,
        metrics_token: written.metrics_token,
    })
}

fn ofrep(
    written: raw::Ofrep,
    tokens: &Tokens,
    listeners: &[At<Address>],
    admin: &At<SocketAddress>,
    problems: &mut Problems,
) -> Option<Ofrep> {
    let own = tokens.ofrep.clone()?;
    let tokens = own.or_else(|| tokens.admin.clone())?;
    if let Some(At { value, place }) = &written.address {
        let SocketAddress(address) = *value;
        let mut taken = |what| problems.problem(place.clone(), "ofrep.address", what, "choose another port");
        let own = Address::Tcp(address);
        if let Some(first) = listeners.iter().find(|first| listeners::collide(first, &own)) {
            taken(format!(
                "{address} is taken by the listener in line {}",
                first.place.line
            ));
        }
        if listeners::collide(&Address::Tcp(admin.value.0), &own) {
            taken(format!("{address} is the address of the admin listener"));
        }
        if !address.ip().is_loopback() && tokens.is_empty() {
            problems.problem(
                place.clone(),
                "ofrep.address",
                "an OFREP listener beyond loopback without tokens",
                "set `ofrep.tokens_file`, or listen on 127.0.0.1",
            );
        }
    }
    Some(Ofrep {
        address: written.address.map(|address| address.value.0),
        tokens,
        tokens_file: written.tokens_file.map(|file| file.value.0),
        cors: written.cors.into_iter().map(|origin| origin.0).collect(),
        requests_per_client: written.requests_per_client.map(|count| count.0),
        connections: written.connections.0,
        streams: written.streams.0,
    })
}

fn capture(written: &raw::Capture, problems: &mut Problems) -> Capture {
    let ByteSize(body_bytes) = written.body.value;
    let ByteSize(budget_bytes) = written.budget;
    if body_bytes > budget_bytes {
        let what = "one body may take more than `capture.budget` for all of them";
        problems.problem(
            written.body.place.clone(),
            "capture.body",
            what,
            "lower it, or raise the budget",
        );
    }
    Capture {
        body_bytes,
        budget_bytes,
    }
}

fn limits(written: &raw::Limits, problems: &mut Problems) -> Limits {
    let ByteSize(target_bytes) = written.target_bytes.value;
    if target_bytes == 0 || target_bytes > written.header_bytes.0 {
        let place = written.target_bytes.place.clone();
        let what = "`limits.target_bytes` must be above zero and at most `limits.header_bytes`";
        problems.problem(
            place,
            "limits.target_bytes",
            what,
            "the target is part of the header section: adjust one of them",
        );
    }
    let size = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
    Limits {
        header_bytes: size(written.header_bytes.0),
        header_count: written.header_count.0,
        target_bytes: size(target_bytes),
        body_bytes: written.body.map(|ByteSize(bytes)| bytes),
        header_timeout: written.header_timeout.0,
        body_idle: written.body_idle.0,
        body_rate: written.body_rate.map(|ByteSize(bytes)| bytes),
        write_timeout: written.write_timeout.0,
        idle: written.idle.0,
        handshake: written.handshake.0,
        tunnel_idle: written.tunnel_idle.0,
        tunnels: written.tunnels.0,
        connections: written.connections.0,
        connections_per_client: written.connections_per_client.map(|count| count.0),
        requests_per_client: written.requests_per_client.map(|count| count.0),
        in_flight: written.in_flight.0,
        half_close: written.half_close,
        streams: u32::try_from(written.streams.0).unwrap_or(u32::MAX),
        drain: written.drain.0,
    }
}
