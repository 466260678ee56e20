//! Closed exchanges in, verdicts and redacted divergences out.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use tokio::sync::mpsc;

use crate::engine::compare::{self, Answer, Body, Comparison, Verdict};
use crate::live::Live;
use crate::live::divergences::{Difference, Diverged};
use crate::live::intake::{Exchange, KeptAnswer};
use crate::telemetry::logs::DECISIONS;
use crate::telemetry::names;
use crate::telemetry::spawn;

/// The pause after everything that was there has been compared.
const BREATH: Duration = Duration::from_millis(2);

/// Compares exchanges until no producer is left. To be run on a thread of its own.
pub fn run(live: &Arc<Live>, mut pairs: mpsc::Receiver<Exchange>) {
    while let Some(exchange) = pairs.blocking_recv() {
        review(live, &exchange);
        while let Ok(exchange) = pairs.try_recv() {
            review(live, &exchange);
        }
        // Whoever hands over the next would have to wake this thread, each time: what comes in meanwhile is taken together.
        spawn::pause(BREATH);
    }
}

fn seen(answer: &KeptAnswer) -> Answer<'_> {
    let headers: &HeaderMap = &answer.headers;
    let body = answer.body.as_deref().map_or(Body::Cut, Body::Bytes);
    Answer {
        status: answer.status,
        headers,
        body,
    }
}

fn review(live: &Live, exchange: &Exchange) {
    let Some(index) = exchange.route.index else { return };
    let rules = &exchange.snapshot.rules.route(index).spec.compare;
    let found = compare::compare(rules, &seen(&exchange.legacy), &seen(&exchange.new));
    book(live, exchange, &found);
    if found.verdict == Verdict::Diverged {
        remember(live, exchange, &found);
    }
}

fn book(live: &Live, exchange: &Exchange, found: &Comparison) {
    let route = exchange.route.key.as_str();
    let exporter = &live.exporter;
    exporter.count(
        names::COMPARED,
        &[("route", route), ("verdict", found.verdict.as_str())],
    );
    let suppressed = u64::from(found.suppressed());
    if suppressed > 0 {
        exporter.count_by(names::SUPPRESSED, &[("route", route)], suppressed);
    }
    let worst = found.worst();
    if let Some(worst) = worst {
        exporter.count(names::DIVERGENCES, &[("route", route), ("severity", worst.as_str())]);
    }
    live.health.book(&exchange.route.key, |compared| {
        compared.verdict(found.verdict);
        compared.suppressed += suppressed;
        if let Some(worst) = worst {
            compared.severities[worst.index()] += 1;
        }
        for divergence in &found.divergences {
            compared.place(divergence.pointer.template(), divergence.kind, divergence.severity);
        }
    });
}

fn remember(live: &Live, exchange: &Exchange, found: &Comparison) {
    let Some(worst) = found.worst() else { return };
    let sampled = exchange
        .subject
        .is_none_or(|subject| subject.0 % 1_000_000 < u64::from(exchange.snapshot.log_threshold));
    if sampled {
        tracing::info!(
            target: DECISIONS,
            event = "dual_run_diverged",
            tags = "DUAL_RUN",
            route = exchange.route.key.as_str(),
            exchange = %exchange.id,
            shopper_id = exchange.subject.map(tracing::field::display),
            severity = worst.as_str(),
            places = found.total(),
            "the two runs differ"
        );
    }
    live.divergences.push(Diverged {
        seq: 0,
        id: exchange.id,
        route: exchange.route.key.clone(),
        subject: exchange.subject,
        served: exchange.served,
        unix_ms: exchange.unix_ms,
        statuses: [exchange.legacy.status, exchange.new.status],
        worst,
        total: found.total(),
        differences: found.divergences.iter().map(Difference::from).collect(),
    });
}
