//! No shopper sees the new path fail: what it could not answer, legacy answers, within the same request.
//!
//! Which failures may be answered by legacy depends on what is known of the first attempt: not one byte of it was
//! written, nobody knows what became of it, or it was answered with a failure. The last two only where doing it twice
//! is harmless by the method's definition (RFC 9110 section 9.2.1).

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use http::{Method, StatusCode};

use super::body::Source;
use super::pair::Pair;
use super::spare::Spare;
use super::stage::Stage;
use super::upstream::{CallError, Patience, Reply};
use crate::engine::guard::Run;
use crate::engine::ruleset::Route;
use crate::engine::ruleset::route;
use crate::engine::vocab::Side;
use crate::live::tally::{Failover, RunFailure};

/// What became of a request.
#[derive(Debug)]
pub struct Answered {
    /// The side whose answer or error this is.
    pub side: Side,
    /// Whether it was asked because the other had failed.
    pub failover: bool,
    /// The answer, or why there is none.
    pub reply: Result<Reply, CallError>,
}

/// Whether sending a request of this method twice is harmless: GET, HEAD and OPTIONS.
fn is_repeatable(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

/// One attempt at a side; `waiting` tells whether the client left before it was over.
async fn ask(
    stage: &Stage<'_>,
    side: Side,
    head: &mut http::request::Parts,
    source: &Source,
    total: Option<Duration>,
    waiting: Waiting<'_>,
) -> Result<Reply, CallError> {
    let backend = stage.snapshot.backend(side);
    let repeatable = is_repeatable(&head.method);
    let patience = Patience {
        answer: backend.timeout,
        total,
    };
    let reply = stage
        .worker
        .pool
        .call(backend, head, source, repeatable, patience)
        .await;
    waiting.over();
    reply
}

/// Asks legacy.
pub(super) async fn legacy(
    stage: &Stage<'_>,
    pair: &Pair,
    head: &mut http::request::Parts,
    source: &Source,
) -> Answered {
    let reply = ask(
        stage,
        Side::Legacy,
        head,
        source,
        None,
        Waiting::new(pair, Pair::abandoned),
    )
    .await;
    if let Err(error) = &reply {
        pair.served(failed(stage, Side::Legacy, *error, source), None);
    }
    Answered {
        side: Side::Legacy,
        failover: false,
        reply,
    }
}

/// Asks the side that the decision named, and legacy where that fails and it may be asked.
pub(super) async fn serve(
    stage: &Stage<'_>,
    rules: &Route,
    pair: &Arc<Pair>,
    head: &mut http::request::Parts,
    source: &Source,
) -> Answered {
    if pair.served == Side::Legacy {
        return legacy(stage, pair, head, source).await;
    }
    let failover = &rules.spec.failover;
    let repeatable = is_repeatable(&head.method);
    let legacy_p99 = Duration::from_millis(stage.route.legacy_p99.load(Relaxed));
    // Without a second chance there is nothing to save time for.
    let total =
        (repeatable && (failover.unknown || failover.answered)).then(|| time_for_new(failover.deadline, legacy_p99));
    let again = Spare::of(head);
    let reply = ask(
        stage,
        Side::New,
        head,
        source,
        total,
        Waiting::new(pair, Pair::abandoned),
    )
    .await;
    let class = match &reply {
        Ok(reply) if repeatable && failover.answered && counts_as_failed(failover, reply.response.status()) => {
            Failover::Answered
        }
        Err(error) if error.never_reached && failover.never_reached => Failover::NeverReached,
        Err(error) if !error.never_reached && repeatable && failover.unknown => Failover::Unknown,
        Ok(_) => {
            return Answered {
                side: Side::New,
                failover: false,
                reply,
            };
        }
        Err(error) => {
            pair.served(failed(stage, Side::New, *error, source), None);
            return Answered {
                side: Side::New,
                failover: false,
                reply,
            };
        }
    };
    if !source.is_repeatable() {
        if let Err(error) = &reply {
            pair.served(failed(stage, Side::New, *error, source), None);
        }
        return Answered {
            side: Side::New,
            failover: false,
            reply,
        };
    }
    // Told before the failure is booked: the run that closes the exchange is then legacy's.
    let _ = pair.fail_over();
    pair.served(
        match &reply {
            Ok(reply) => Run::answered(reply.response.status().as_u16(), reply.latency),
            Err(error) => failed(stage, Side::New, *error, source),
        },
        None,
    );
    drop(reply);
    stage.route.tally(stage.worker.shard).failovers.add(class);
    let waiting = Waiting::new(pair, Pair::abandoned_failover);
    let reply = ask(stage, Side::Legacy, &mut again.head(), source, None, waiting).await;
    if let Err(error) = &reply {
        pair.failed_over(failed(stage, Side::Legacy, *error, source));
    }
    Answered {
        side: Side::Legacy,
        failover: true,
        reply,
    }
}

type Left = fn(&Pair);

/// Tells the exchange that its client left, should the wait for an answer be dropped.
struct Waiting<'a>(Option<(&'a Pair, Left)>);

impl<'a> Waiting<'a> {
    fn new(pair: &'a Pair, left: Left) -> Self {
        Self(Some((pair, left)))
    }

    fn over(mut self) {
        self.0 = None;
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some((pair, left)) = self.0.take() {
            left(pair);
        }
    }
}

// A request that its own client broke is no failure of whoever was to answer it.
fn failed(stage: &Stage<'_>, side: Side, error: CallError, source: &Source) -> Run {
    if source.broken().is_some() {
        return Run::cancelled();
    }
    stage.route.tally(stage.worker.shard).failed[side.index()].add(error.failure);
    // What we could not even try says nothing about the side.
    if error.failure == RunFailure::Local {
        Run::cancelled()
    } else {
        Run::failed(error.failure.into())
    }
}

fn counts_as_failed(failover: &route::Failover, status: StatusCode) -> bool {
    failover.statuses.iter().any(|pattern| pattern.matches(status.as_u16()))
}

/// What the new path may take, so that legacy can still answer before the sender gives up.
///
/// Legacy keeps its 99th percentile in reserve, at least a third of the deadline and at most half of it.
fn time_for_new(deadline: Duration, legacy_p99: Duration) -> Duration {
    deadline - legacy_p99.clamp(deadline / 3, deadline / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn legacy_keeps_between_a_third_and_half_of_the_deadline() {
        let ms = Duration::from_millis;
        assert_eq!(time_for_new(ms(900), ms(0)), ms(600));
        assert_eq!(time_for_new(ms(900), ms(400)), ms(500));
        assert_eq!(time_for_new(ms(900), ms(5_000)), ms(450));
    }
}
