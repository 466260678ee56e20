//! The data plane's metric families in the Prometheus text format.
//!
//! Read from the counters of all producers, merged. One function writes every family; the control plane's families come
//! from the exporter crate and stand before these on the page.

use std::fmt::{Display, Write as _};
use std::sync::atomic::Ordering::Relaxed;

use super::Live;
use super::remote::{Remote, RemoteTally};
use super::service::{Ejected, Found, ServiceTally};
use super::tally::{
    By, ClientError, Counter, Failover, FlagTally, HandshakeError, Histogram, LATENCY_BOUNDS_MS, Label, Made,
    NotCompared, RouteTally, RunFailure, Skipped, StatusClass, TlsVersion, TunnelEnd, Unidentified,
};
use crate::engine::guard::KillTarget;
use crate::engine::stats::stale::Stale;
use crate::engine::vocab::{Reason, Side};
use crate::telemetry::{logs, names, spawn};

struct Page(String);

impl Page {
    fn family(&mut self, name: &str) {
        let (_, kind, help) = names::ALL
            .iter()
            .find(|(known, ..)| *known == name)
            .copied()
            .unwrap_or((name, "", ""));
        // Writing to a string does not fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.0.push_str(name);
        for (at, (key, text)) in labels.iter().enumerate() {
            self.0.push(if at == 0 { '{' } else { ',' });
            let text = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = write!(self.0, "{key}=\"{text}\"");
        }
        if !labels.is_empty() {
            self.0.push('}');
        }
        let _ = writeln!(self.0, " {value}");
    }
}

fn sum(of: impl Iterator<Item = u64>) -> u64 {
    of.fold(0, u64::saturating_add)
}

type Routes = [(crate::engine::vocab::RouteKey, std::sync::Arc<[RouteTally]>)];

fn by_route(page: &mut Page, routes: &Routes, name: &str, of: impl Fn(&RouteTally) -> &Counter, more: &[(&str, &str)]) {
    for (route, shards) in routes {
        let mut labels = vec![("route", route.as_str())];
        labels.extend_from_slice(more);
        page.sample(name, &labels, sum(shards.iter().map(|shard| of(shard).value())));
    }
}

// Only what happened is written: the set of possible series is large and mostly empty.
fn by_label<L: Label, const N: usize>(
    page: &mut Page,
    routes: &Routes,
    name: &str,
    label: &str,
    of: impl Fn(&RouteTally) -> &By<N>,
    more: &[(&str, &str)],
) {
    for (route, shards) in routes {
        for member in L::ALL {
            let value = sum(shards.iter().map(|shard| of(shard).value(*member)));
            if value > 0 {
                let mut labels = vec![("route", route.as_str())];
                labels.extend_from_slice(more);
                labels.push((label, member.label()));
                page.sample(name, &labels, value);
            }
        }
    }
}

fn histograms(page: &mut Page, routes: &Routes, name: &str, side: Side, of: impl Fn(&RouteTally) -> &Histogram) {
    for (route, shards) in routes {
        let mut buckets = [0_u64; LATENCY_BOUNDS_MS.len() + 1];
        let mut micros = 0;
        for shard in shards.iter() {
            let (counts, sum) = of(shard).read();
            buckets.iter_mut().zip(counts).for_each(|(all, one)| *all += one);
            micros += sum;
        }
        let labels = [("route", route.as_str()), ("side", side.as_str())];
        let mut below = 0;
        for (at, count) in buckets.iter().enumerate() {
            below += count;
            let bound = LATENCY_BOUNDS_MS.get(at).map_or("+Inf".to_owned(), f64::to_string);
            page.sample(
                &format!("{name}_bucket"),
                &[labels[0], labels[1], ("le", &bound)],
                below,
            );
        }
        #[allow(clippy::cast_precision_loss, reason = "a sum for a chart")]
        let ms = micros as f64 / 1_000.0;
        page.sample(&format!("{name}_sum"), &labels, ms);
        page.sample(&format!("{name}_count"), &labels, below);
    }
}

/// The data plane's families, ready to be appended to the exporter's page; what the store says comes with the call.
#[must_use]
pub fn render(live: &Live, unstored_kills: usize) -> String {
    let mut page = Page(String::with_capacity(16 * 1_024));
    routes(&mut page, &live.registry.routes());
    flags(&mut page, &live.registry.flags(), &live.remote);
    remote(&mut page, &live.remote);
    process(&mut page, live);
    page.family(names::UNSTORED);
    page.sample(names::UNSTORED, &[], unstored_kills);
    page.0
}

fn routes(page: &mut Page, routes: &Routes) {
    page.family(names::ASSIGNMENTS);
    by_label::<Side, 2>(page, routes, names::ASSIGNMENTS, "side", |t| &t.assigned, &[]);
    page.family(names::PUBLISHED);
    by_route(page, routes, names::PUBLISHED, |t| &t.published[0], &[]);
    page.family(names::PUBLISH_FAILED);
    by_route(page, routes, names::PUBLISH_FAILED, |t| &t.published[1], &[]);
    page.family(names::DECISIONS);
    by_label::<Reason, 21>(page, routes, names::DECISIONS, "reason", |t| &t.reasons, &[]);
    page.family(names::RESPONSES);
    for side in Side::BOTH {
        let side_label = [("side", side.as_str())];
        by_label::<StatusClass, 6>(
            page,
            routes,
            names::RESPONSES,
            "class",
            |t| &t.answered[side.index()],
            &side_label,
        );
    }
    page.family(names::LATENCY);
    for side in Side::BOTH {
        histograms(page, routes, names::LATENCY, side, |t| &t.latency[side.index()]);
    }
    page.family(names::RUNS_FAILED);
    for side in Side::BOTH {
        let side_label = [("side", side.as_str())];
        by_label::<RunFailure, 8>(
            page,
            routes,
            names::RUNS_FAILED,
            "kind",
            |t| &t.failed[side.index()],
            &side_label,
        );
    }
    page.family(names::FAILOVERS);
    by_label::<Failover, 3>(page, routes, names::FAILOVERS, "class", |t| &t.failovers, &[]);
    page.family(names::COPIES);
    by_label::<Side, 2>(page, routes, names::COPIES, "side", |t| &t.copies, &[]);
    page.family(names::COPIES_SKIPPED);
    for side in Side::BOTH {
        let name = names::COPIES_SKIPPED;
        by_label::<Skipped, 13>(
            page,
            routes,
            name,
            "reason",
            |t| &t.skipped[side.index()],
            &[("side", side.as_str())],
        );
    }
    page.family(names::TUNNELS_ENDED);
    for side in Side::BOTH {
        by_label::<TunnelEnd, 5>(
            page,
            routes,
            names::TUNNELS_ENDED,
            "reason",
            |t| &t.tunnels_ended[side.index()],
            &[("side", side.as_str())],
        );
    }
    page.family(names::TUNNEL_BYTES);
    for (at, direction) in ["from_client", "to_client"].into_iter().enumerate() {
        let labels = [("direction", direction)];
        by_route(page, routes, names::TUNNEL_BYTES, |t| &t.tunnel_bytes[at], &labels);
    }
    page.family(names::NOT_COMPARED);
    by_label::<NotCompared, 4>(page, routes, names::NOT_COMPARED, "reason", |t| &t.not_compared, &[]);
    page.family(names::UNIDENTIFIED);
    by_label::<Unidentified, { Unidentified::COUNT }>(
        page,
        routes,
        names::UNIDENTIFIED,
        "reason",
        |t| &t.unidentified,
        &[],
    );
    page.family(names::ANSWERS_MADE);
    by_label::<Made, 13>(page, routes, names::ANSWERS_MADE, "reason", |t| &t.made, &[]);
}

fn flags(page: &mut Page, flags: &[(String, std::sync::Arc<[FlagTally]>)], remote: &RemoteTally) {
    page.family(names::FLAG_EVALUATIONS);
    for (flag, shards) in flags {
        for (at, result) in ["false", "true"].into_iter().enumerate() {
            let value = sum(shards.iter().map(|shard| shard.results[at].value()));
            page.sample(names::FLAG_EVALUATIONS, &[("flag", flag), ("result", result)], value);
        }
    }
    page.family(names::FLAG_ERRORS);
    let missing = sum(flags
        .iter()
        .flat_map(|(_, shards)| shards.iter().map(|shard| shard.missing.value())));
    for (error, on_routes) in [(Remote::FlagNotFound, missing), (Remote::TargetingKeyMissing, 0)] {
        page.sample(
            names::FLAG_ERRORS,
            &[("flag", "unknown"), ("error_type", error.label())],
            on_routes + remote.errors.value(error),
        );
    }
}

fn remote(page: &mut Page, remote: &RemoteTally) {
    page.family(names::FLAG_CACHE_HITS);
    let hits = remote.requests.value(Remote::NotModified);
    for (hit, count) in [("true", hits), ("false", remote.stale.value())] {
        page.sample(names::FLAG_CACHE_HITS, &[("flag", "all"), ("hit", hit)], count);
    }
    page.family(names::OFREP_REQUESTS);
    for result in Remote::ALL {
        let count = remote.requests.value(*result);
        page.sample(names::OFREP_REQUESTS, &[("result", result.label())], count);
    }
    page.family(names::OFREP_STREAMS);
    page.sample(names::OFREP_STREAMS, &[], remote.streams.load(Relaxed));
}

fn process(page: &mut Page, live: &Live) {
    let workers = || live.workers.iter();
    page.family(names::FLAG_DURATION);
    let mut below = 0;
    for at in 0..11 {
        below += sum(workers().map(|worker| worker.decision_buckets[at].value())) + live.remote.buckets[at].value();
        let bound = if at < 10 {
            (0.0001 * f64::from(1_u32 << at)).to_string()
        } else {
            "+Inf".to_owned()
        };
        page.sample(&format!("{}_bucket", names::FLAG_DURATION), &[("le", &bound)], below);
    }
    let nanos = sum(workers().map(|worker| worker.decision_nanos.value())) + live.remote.nanos.value();
    #[allow(clippy::cast_precision_loss, reason = "a sum for a chart")]
    page.sample(&format!("{}_sum", names::FLAG_DURATION), &[], nanos as f64 / 1e9);
    page.sample(&format!("{}_count", names::FLAG_DURATION), &[], below);

    page.family(names::CLIENT_ERRORS);
    for reason in ClientError::ALL {
        let value = sum(workers().map(|worker| worker.client_errors.value(*reason)));
        page.sample(names::CLIENT_ERRORS, &[("reason", reason.label())], value);
    }
    page.family(names::REQUESTS);
    page.sample(
        names::REQUESTS,
        &[],
        sum(workers().map(|worker| worker.requests.value())),
    );
    page.family(names::ABANDONED);
    page.sample(
        names::ABANDONED,
        &[],
        sum(workers().map(|worker| worker.abandoned.value())),
    );
    page.family(names::ACCEPTED);
    page.sample(
        names::ACCEPTED,
        &[],
        sum(workers().map(|worker| worker.accepted.value())),
    );
    page.family(names::CONNECTIONS);
    page.sample(
        names::CONNECTIONS,
        &[],
        live.connections.iter().map(|n| n.load(Relaxed)).sum::<usize>(),
    );
    page.family(names::HANDSHAKES);
    for version in TlsVersion::ALL {
        let value = sum(workers().map(|worker| worker.handshakes.value(*version)));
        page.sample(names::HANDSHAKES, &[("version", version.label())], value);
    }
    page.family(names::HANDSHAKES_FAILED);
    for reason in HandshakeError::ALL {
        let value = sum(workers().map(|worker| worker.handshakes_failed.value(*reason)));
        page.sample(names::HANDSHAKES_FAILED, &[("reason", reason.label())], value);
    }
    page.family(names::CERTIFICATE_ENDS);
    for (listener, ends) in live.certificates.ends() {
        for (index, end) in ends.into_iter().enumerate() {
            let index = index.to_string();
            page.sample(
                names::CERTIFICATE_ENDS,
                &[("listener", &listener), ("index", &index)],
                end,
            );
        }
    }
    page.family(names::TUNNELS);
    for side in Side::BOTH {
        let open = live.tunnels[side.index()].load(Relaxed);
        page.sample(names::TUNNELS, &[("side", side.as_str())], open);
    }
    page.family(names::CAPTURE_BYTES);
    page.sample(names::CAPTURE_BYTES, &[], live.budget.used());
    page.family(names::OUTCOMES_LOST);
    page.sample(names::OUTCOMES_LOST, &[], live.intake.lost.value());
    page.family(names::LOG_LINES_DROPPED);
    page.sample(names::LOG_LINES_DROPPED, &[], logs::dropped());
    page.family(names::PANICS);
    page.sample(names::PANICS, &[], spawn::panics());
    page.family(names::STATE_READABLE);
    page.sample(
        names::STATE_READABLE,
        &[],
        u8::from(live.health.state_unreadable().is_none()),
    );
    page.family(names::RULES_REFUSED);
    page.sample(
        names::RULES_REFUSED,
        &[],
        u8::from(!live.health.rules().refused.is_empty()),
    );
    if let Some(snapshot) = live.snapshot() {
        page.family(names::RULES_REVISION);
        page.sample(names::RULES_REVISION, &[], snapshot.rules.revision.0);
        page.family(names::IN_FLIGHT);
        for (role, backends) in [("serves", &snapshot.backends), ("copies", &snapshot.shadows)] {
            for backend in backends {
                let labels = [("backend", backend.side.as_str()), ("role", role)];
                page.sample(names::IN_FLIGHT, &labels, backend.in_flight.load(Relaxed));
            }
        }
    }
    replicas(page, live);
    page.family(names::STALE);
    for stale in Stale::ALL {
        page.sample(names::STALE, &[("reason", stale.as_str())], live.stale.count(stale));
    }
    page.family(names::KILLED);
    let killed: Vec<KillTarget> = live
        .kills
        .read(|kills| kills.killed().map(|(target, _)| target).collect());
    for target in &killed {
        let (kind, name) = match target {
            KillTarget::All => ("all", ""),
            KillTarget::Flag(key) => ("flag", key.as_str()),
            KillTarget::Route(key) => ("route", key.as_str()),
            KillTarget::Subject(..) => continue,
        };
        page.sample(names::KILLED, &[("kind", kind), ("name", name)], 1);
    }
    page.family(names::HELD);
    page.sample(
        names::HELD,
        &[],
        killed
            .iter()
            .filter(|target| matches!(target, KillTarget::Subject(..)))
            .count(),
    );
}

fn replicas(page: &mut Page, live: &Live) {
    if let Some(snapshot) = live.snapshot() {
        page.family(names::ADDRESSES);
        for backend in &snapshot.backends {
            let targets = backend.service.targets();
            let out = targets.all().iter().filter(|target| target.is_out()).count();
            for (state, count) in [("in_service", targets.all().len() - out), ("out_of_service", out)] {
                let labels = [("backend", backend.side.as_str()), ("state", state)];
                page.sample(names::ADDRESSES, &labels, count);
            }
        }
    }
    page.family(names::EJECTIONS);
    by_backend::<Ejected, 4>(page, live, names::EJECTIONS, "reason", |tally| &tally.ejections);
    page.family(names::HEALTH_CHECKS);
    by_backend::<Found, 2>(page, live, names::HEALTH_CHECKS, "result", |tally| &tally.checks);
    page.family(names::LOOKUPS);
    by_backend::<Found, 2>(page, live, names::LOOKUPS, "result", |tally| &tally.lookups);
}

fn by_backend<L: Label, const N: usize>(
    page: &mut Page,
    live: &Live,
    name: &str,
    label: &str,
    of: impl Fn(&ServiceTally) -> &By<N>,
) {
    for side in Side::BOTH {
        for member in L::ALL {
            let value = of(&live.services[side.index()]).value(*member);
            if value > 0 {
                page.sample(name, &[("backend", side.as_str()), (label, member.label())], value);
            }
        }
    }
}
