//! What is counted and logged of a decision.
//!
//! The decision log has one line per flag that a route evaluated, sampled by subject, so that a shopper's whole story
//! is there or none of it. Writing it never waits: lines that the log cannot take are dropped.

use std::sync::atomic::Ordering::Relaxed;

use super::stage::{Stage, Worker};
use crate::engine::decide::{Checks, Decision, Request, checks};
use crate::engine::flags::Context;
use crate::engine::ruleset::Route;
use crate::engine::vocab::{ExchangeId, Side, SubjectHash};
use crate::engine::whatif::Recent;
use crate::live::requests::LONGEST;
use crate::live::tally::{Label as _, Made};
use crate::telemetry::clock;
use crate::telemetry::logs::DECISIONS;

/// One decision in this many is timed.
const TIMED: u64 = 1_024;

/// Counts a decision.
pub(super) fn book(stage: &Stage<'_>, decision: &Decision) {
    let shard = stage.worker.shard;
    let tally = stage.route.tally(shard);
    if !decision.replied {
        tally.assigned.add(decision.served);
    }
    tally.reasons.add(decision.reason);
    for check in decision.checks.iter() {
        if let Some(flag) = stage.snapshot.flag_tallies.get(check.flag.index()) {
            flag[shard].book(check.enabled, check.reason);
        }
    }
}

/// Keeps what a decision asks of a request, for whoever wants to know what other rules would do.
pub(super) fn remember<'a, S>(stage: &Stage<'_>, asked: &Request<'a, S>, attributes: Option<&Context>)
where
    S: Iterator<Item = &'a str> + Clone,
{
    let Some(requests) = stage.worker.live.requests.get(stage.worker.shard) else {
        return;
    };
    requests.keep(asked.now.monotonic, || {
        let subjects = asked.subjects.clone().chain(asked.tenant);
        let bytes: usize = subjects.map(str::len).sum();
        (bytes + attributes.map_or(0, Context::bytes) <= LONGEST).then(|| Recent {
            route: stage.route.key.clone(),
            method: asked.method.clone(),
            subjects: asked.subjects.clone().map(Into::into).collect(),
            tenant: asked.tenant.map(Into::into),
            attributes: attributes.cloned(),
            exchange: asked.exchange,
        })
    });
}

/// Whether a subject's decisions are logged; a request for nobody is sampled by its exchange.
pub(super) fn is_logged(stage: &Stage<'_>, hash: SubjectHash) -> bool {
    hash.0 % 1_000_000 < u64::from(stage.snapshot.log_threshold)
}

/// Writes one subject's lines.
pub(super) fn log(
    stage: &Stage<'_>,
    decision: &Decision,
    checks: &Checks,
    subject: Option<(&str, SubjectHash)>,
    exchange: ExchangeId,
) {
    let exchange = exchange.to_string();
    let route = stage.route.key.as_str();
    let shopper = subject.map(|(key, hash)| {
        if stage.snapshot.log_clear {
            key.to_owned()
        } else {
            hash.to_string()
        }
    });
    let served_by = if decision.replied {
        Made::WhenOff.label()
    } else {
        decision.served.as_str()
    };
    let canonical = decision.served == Side::New || decision.copy == crate::engine::decide::CopyTo::To(Side::New);
    let policy = stage.rules.map(|rules| &rules.policy);
    for check in checks.iter() {
        let Some(flag) = stage.snapshot.rules.flag_key(check.flag) else {
            continue;
        };
        let dual_run = policy.is_some_and(|p| p.dual_run == crate::engine::decide::Ask::Flag(check.flag));
        let tags = match (canonical, dual_run) {
            (false, false) => "FEATURE_FLAG",
            (true, false) => "FEATURE_FLAG CANONICAL_EVENT",
            (false, true) => "FEATURE_FLAG DUAL_RUN",
            (true, true) => "FEATURE_FLAG CANONICAL_EVENT DUAL_RUN",
        };
        tracing::info!(
            target: DECISIONS,
            event = "feature_flag_check",
            tags,
            flag_name = flag.as_str(),
            enabled = check.enabled,
            shopper_id = shopper,
            reason = check.reason.as_str(),
            route,
            served_by,
            exchange,
            revision = decision.revision.0,
        );
    }
    if decision.shadow_mode_assumed {
        tracing::warn!(
            target: DECISIONS,
            event = "shadow_mode",
            tags = "FEATURE_FLAG",
            route,
            shopper_id = shopper,
            exchange,
            "shadow_mode counts as on: its flag is killed, unknown, or off as a whole, here or now"
        );
    }
    if decision.shadow_inactive {
        tracing::info!(target: DECISIONS, event = "shadow_mode", tags = "FEATURE_FLAG", route, shopper_id = shopper, exchange,
            "shadow: inactive (flag off)");
    }
}

impl Stage<'_> {
    /// Counts the decision, and logs it for those subjects that are logged. `only`: the subject's hash, if there is one alone.
    pub(super) fn book<'a, S>(
        &self,
        rules: &Route,
        asked: &Request<'a, S>,
        decision: &Decision,
        only: Option<SubjectHash>,
    ) where
        S: Iterator<Item = &'a str> + Clone,
    {
        book(self, decision);
        if self.snapshot.log_threshold == 0 {
            return;
        }
        let mut anybody = false;
        for subject in asked.subjects.clone() {
            anybody = true;
            let hash = only.unwrap_or_else(|| self.worker.live.hash(subject));
            if is_logged(self, hash) {
                let checks = checks(self.snapshot.rules.flags(), &rules.policy, asked, subject);
                log(self, decision, &checks, Some((subject, hash)), asked.exchange);
            }
        }
        #[allow(clippy::cast_possible_truncation, reason = "the low half is the counter")]
        if !anybody && is_logged(self, SubjectHash(asked.exchange.0 as u64)) {
            log(self, decision, &decision.checks, None, asked.exchange);
        }
    }
}

impl Worker {
    /// Runs a decision and times one in [`TIMED`].
    pub(super) fn timed<T>(&self, decide: impl FnOnce() -> T) -> T {
        if !self.exchanges.load(Relaxed).is_multiple_of(TIMED) {
            return decide();
        }
        let before = clock::monotonic_nanos();
        let decided = decide();
        let nanos = clock::monotonic_nanos().saturating_sub(before);
        self.tally.decision_nanos.add_n(nanos);
        let bucket = (0..10).find(|at| nanos <= 100_000 << at).unwrap_or(10);
        self.tally.decision_buckets[bucket].add();
        decided
    }
}
