//! The life of one request, told as its stages.
//!
//! admit → route → identify → decide → forward (with failover) → answer; beside it, a copy to the other side. The
//! snapshot and the kill word are loaded once and carried along. When in doubt, legacy.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Request, Response, StatusCode, Uri, Version};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::ext::ReasonPhrase;

use super::answer::{Answer, Finish, Keep, Kept, Relay, Watch};
use super::body::{self, Captured, Front, NotKept, Source, Upload, Wanted};
use super::decisions;
use super::error;
use super::forward;
use super::pair::{Facts, Pair};
use super::shadow::{self, Bounds};
use super::stage::{Origin, Stage, Upgrade, Worker};
use super::tunnel::{self, Open, Tunnel};
use super::upstream::Reply;
use crate::engine::decide::{self, CopyTo, Decision, Skip, WithoutIdentity};
use crate::engine::guard::{Failure, Run};
use crate::engine::identity::{Extraction, RequestView, Subjects};
use crate::engine::ruleset::Route;
use crate::engine::vocab::{ExchangeId, Side, SubjectHash};
use crate::live::budget::Hold;
use crate::live::snapshot::Snapshot;
use crate::live::tally::{Made, RunFailure, Skipped, StatusClass, Unidentified};

/// A request's body as far as it has come.
enum Arrived {
    Whole(Bytes, Option<Arc<Hold>>),
    Partly(Front, Incoming, Option<NotKept>),
}

/// What the client's side of an exchange asks of its answer.
#[derive(Clone, Debug)]
struct Wants {
    /// The version that the client speaks.
    version: Version,
    /// Whether it is to be told which trailers will come: it takes trailers, and its version says so in the head.
    trailers: bool,
    /// The protocols that it offers to change to.
    upgrade: Option<HeaderValue>,
}

impl Wants {
    // A body before the change would have to be told from what follows it; nobody sends one.
    fn of(head: &http::request::Parts, incoming: &Incoming) -> Self {
        let one_one = head.version == Version::HTTP_11;
        let asks = one_one && incoming.is_end_stream() && forward::asks_for_upgrade(&head.headers);
        Self {
            version: head.version,
            trailers: one_one && forward::takes_trailers(&head.headers),
            upgrade: asks.then(|| tunnel::offered(&head.headers)).flatten(),
        }
    }
}

/// Answers one request.
pub async fn exchange(worker: Arc<Worker>, origin: Arc<Origin>, request: Request<Incoming>) -> Response<Answer> {
    origin.turn.request_began(!request.body().is_end_stream());
    let Some(snapshot) = worker.live.snapshot() else {
        return error::answer(Made::Overload).map(|body| Answer::Made(Some(body), Finish(Arc::clone(&origin.turn))));
    };
    let (mut head, incoming) = request.into_parts();
    let wants = Wants::of(&head, &incoming);
    if head.headers.contains_key(header::UPGRADE) {
        origin.set_upgrade(Upgrade::Asked);
        head.extensions.clear();
    }
    let index = snapshot.rules.route_for(&head.method, head.uri.path(), &head.headers);
    let route = index
        .and_then(|i| snapshot.routes.get(i.index()))
        .unwrap_or(&snapshot.unrouted);
    let rules = route.index.map(|i| snapshot.rules.route(i));
    let stage = Stage {
        worker: &worker,
        snapshot: &snapshot,
        route,
        rules,
        origin: &origin,
    };

    if let Err(made) = admit(&mut head, &incoming, &snapshot) {
        return stage.make(made);
    }
    if wants.upgrade.is_some() && tunnel::open(&worker.live) >= snapshot.limits.tunnels {
        return stage.make(Made::Overload);
    }
    let Some(rules) = rules else {
        return stage.unrouted(head, incoming, wants).await;
    };
    let (subjects, tenant, arrived) = match stage.identify(rules, &head, incoming).await {
        Ok(identified) => identified,
        Err(broken) => return stage.make(broken.into()),
    };
    let id = ExchangeId(worker.id_base | u128::from(worker.exchanges.fetch_add(1, Relaxed)));
    let word = &route.word;
    let epoch = word.epoch();
    let all = || subjects.as_ref().map(Subjects::iter).into_iter().flatten();
    let hash = subjects
        .as_ref()
        .filter(|all| all.len() == 1)
        .map(|one| worker.live.hash(one.first()));
    let asked = decide::Request {
        method: &head.method,
        subjects: all(),
        tenant: tenant.as_ref().map(Subjects::first),
        exchange: id,
        kills: word.bits(),
        held: word.holds_any() && all().any(|subject| word.holds(worker.live.hash(subject))),
        now: crate::live::now(),
    };
    let mut decision = worker.timed(|| snapshot.rules.decide(rules, &asked));
    if let (Some(_), CopyTo::To(side)) = (&wants.upgrade, decision.copy) {
        // What follows a 101 is a conversation: two backends would not hold the same one.
        route.tally(worker.shard).skipped[side.index()].add(Skipped::Upgrade);
        decision.copy = CopyTo::Nobody;
    }
    stage.book(rules, &asked, &decision);
    drop(asked);
    stage.prepare(&mut head.headers, &wants);
    if let Ok(value) = HeaderValue::from_bytes(&id.to_hex()) {
        head.headers.insert(forward::EXCHANGE, value);
    }
    let copied = matches!(decision.copy, CopyTo::To(_));
    let facts = Facts {
        epoch,
        subject: hash,
        served: decision.served,
        by_percent: decision.by_percent,
        compared: decision.compared && copied,
        copied,
    };
    let pair = stage.pair(id, facts);
    let source = stage.attach(rules, &head, &decision, &pair, subjects.as_ref(), arrived);
    let answered = super::failover::serve(&stage, rules, &pair, head, &source).await;
    let keep = (pair.compared && decision.served == answered.side).then(|| snapshot.limits.capture);
    stage.relay(answered, &pair, &source, keep, &wants)
}

/// What must hold of a request, besides being a well-formed one, before anything else is done with it.
fn admit(head: &mut http::request::Parts, incoming: &Incoming, snapshot: &Snapshot) -> Result<(), Made> {
    if matches!(head.method, Method::CONNECT | Method::TRACE) {
        return Err(Made::Method);
    }
    let target = head.uri.path_and_query().map_or("", http::uri::PathAndQuery::as_str);
    if target.len() > snapshot.limits.target_bytes {
        return Err(Made::TargetTooLong);
    }
    // An absolute target's authority wins over Host (RFC 9112 section 3.2.2), and backends get the origin form.
    if let Some(authority) = head.uri.authority()
        && let Ok(host) = HeaderValue::from_str(authority.as_str())
        && let Ok(uri) = target.parse::<Uri>()
    {
        head.headers.insert(header::HOST, host);
        head.uri = uri;
    }
    // The version is one connection's matter (RFC 9110 section 2.5); without a Host it would ask too much.
    if head.headers.contains_key(header::HOST) {
        head.version = Version::HTTP_11;
    }
    match snapshot.limits.body {
        Some(limit) if incoming.size_hint().lower() > limit => Err(Made::BodyTooLarge),
        _ => Ok(()),
    }
}

type Identified = (Option<Subjects>, Option<Subjects>, Arrived);

impl Stage<'_> {
    fn prepare(&self, headers: &mut HeaderMap, wants: &Wants) {
        let snapshot = self.snapshot;
        forward::prepare_request(
            headers,
            &self.origin.provenance,
            snapshot.trusted_proxies.as_deref(),
            snapshot.via,
        );
        if let Some(protocols) = &wants.upgrade {
            headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
            headers.insert(header::UPGRADE, protocols.clone());
        }
    }

    /// A request that no route takes goes to legacy as it is.
    async fn unrouted(&self, mut head: http::request::Parts, incoming: Incoming, wants: Wants) -> Response<Answer> {
        let tally = self.route.tally(self.worker.shard);
        tally.assigned.add(Side::Legacy);
        self.prepare(&mut head.headers, &wants);
        let arrived = arrived(incoming);
        let source = self.source(arrived, None);
        let facts = Facts {
            epoch: self.route.word.epoch(),
            subject: None,
            served: Side::Legacy,
            by_percent: false,
            compared: false,
            copied: false,
        };
        let pair = self.pair(ExchangeId(0), facts);
        let answered = super::failover::legacy(self, &pair, head, &source).await;
        self.relay(answered, &pair, &source, None, &wants)
    }

    /// Counts the decision, and logs it for those subjects that are logged.
    fn book<'a, S>(&self, rules: &Route, asked: &decide::Request<'a, S>, decision: &Decision)
    where
        S: Iterator<Item = &'a str> + Clone,
    {
        decisions::book(self, decision);
        if self.snapshot.log_threshold == 0 {
            return;
        }
        let mut anybody = false;
        for subject in asked.subjects.clone() {
            anybody = true;
            let hash = self.worker.live.hash(subject);
            if decisions::is_logged(self, hash) {
                let checks = decide::checks(self.snapshot.rules.flags(), &rules.policy, asked, subject);
                decisions::log(self, decision, &checks, Some((subject, hash)), asked.exchange);
            }
        }
        #[allow(clippy::cast_possible_truncation, reason = "the low half is the counter")]
        if !anybody && decisions::is_logged(self, SubjectHash(asked.exchange.0 as u64)) {
            decisions::log(self, decision, &decision.checks, None, asked.exchange);
        }
    }

    /// Finds out whom the request is for; reads the body if only it can tell.
    async fn identify(
        &self,
        rules: &Route,
        head: &http::request::Parts,
        incoming: Incoming,
    ) -> Result<Identified, body::Broken> {
        let view = |body| RequestView {
            path: head.uri.path(),
            query: head.uri.query(),
            headers: &head.headers,
            body,
        };
        let wants_tenant = rules.policy.without_identity == WithoutIdentity::Tenant;
        let early = rules.spec.identity.extract(&view(None));
        let early_tenant = wants_tenant.then(|| rules.spec.tenant.extract(&view(None)));
        let undecided = |e: &Extraction| matches!(e, Extraction::NeedsBody);
        if !undecided(&early) && !early_tenant.as_ref().is_some_and(undecided) {
            let tenant = early_tenant.and_then(|e| self.subjects(e, false));
            return Ok((self.subjects(early, true), tenant, arrived(incoming)));
        }
        let worker = self.worker;
        let limits = &self.snapshot.limits;
        let cap = limits.body.map_or(limits.capture, |limit| {
            limits.capture.min(usize::try_from(limit).unwrap_or(usize::MAX))
        });
        let idle = worker.sweep.unset();
        let captured = body::capture(incoming, cap, worker.live.budget.hold(), &idle, limits.body_idle).await?;
        match captured {
            Captured::Whole(bytes, hold) => {
                let subjects = self.subjects(rules.spec.identity.extract(&view(Some(&bytes))), true);
                let tenant = wants_tenant.then(|| rules.spec.tenant.extract(&view(Some(&bytes))));
                let tenant = tenant.and_then(|e| self.subjects(e, false));
                Ok((subjects, tenant, Arrived::Whole(bytes, Some(Arc::new(hold)))))
            }
            Captured::Partial(front, incoming, why) => {
                self.route.tally(worker.shard).unidentified.add(Unidentified::from(why));
                let tenant = early_tenant.and_then(|e| self.subjects(e, false));
                Ok((None, tenant, Arrived::Partly(front, incoming, Some(why))))
            }
        }
    }

    fn subjects(&self, extraction: Extraction, counted: bool) -> Option<Subjects> {
        match extraction {
            Extraction::Subjects(subjects) => Some(subjects),
            Extraction::Nobody(why) => {
                if counted {
                    self.route
                        .tally(self.worker.shard)
                        .unidentified
                        .add(Unidentified::from(why));
                }
                None
            }
            Extraction::NeedsBody => None,
        }
    }

    /// Makes the body ready to be sent, and the copy ready to leave when the body is complete.
    fn attach(
        &self,
        rules: &Route,
        head: &http::request::Parts,
        decision: &Decision,
        pair: &Arc<Pair>,
        subjects: Option<&Subjects>,
        arrived: Arrived,
    ) -> Source {
        let side = match decision.copy {
            CopyTo::To(side) => side,
            CopyTo::Skipped(side, why) => {
                self.route.tally(self.worker.shard).skipped[side.index()].add(Skipped::from(why));
                return self.source(arrived, self.keep_for_failover(rules, decision, head));
            }
            CopyTo::Nobody => return self.source(arrived, self.keep_for_failover(rules, decision, head)),
        };
        let spec = &rules.spec.shadow;
        let copy = shadow::Copy {
            pair: Arc::clone(pair),
            head: head.clone(),
            body: Bytes::new(),
            hold: None,
            backend: Arc::clone(&self.snapshot.shadows[side.index()]),
            lane: lane(self.worker, pair, subjects),
            bounds: Bounds {
                max_in_flight: spec.max_in_flight,
                max_bytes: spec.max_bytes,
                timeout: spec.timeout,
            },
            cap: self.snapshot.limits.capture,
        };
        let shadow = self.worker.shadow.clone();
        let shard = self.worker.shard;
        match arrived {
            Arrived::Whole(body, hold) => {
                shadow.send(
                    shadow::Copy {
                        body: body.clone(),
                        hold: hold.clone(),
                        ..copy
                    },
                    shard,
                );
                self.source(Arrived::Whole(body, hold), None)
            }
            Arrived::Partly(front, incoming, Some(why)) => {
                pair.drop_copy(shard, why.into());
                self.source(Arrived::Partly(front, incoming, None), None)
            }
            Arrived::Partly(front, incoming, None) => {
                let unsent = Unsent(Some((Arc::clone(pair), shard)));
                let when_complete = Box::new(move |kept: Result<(Bytes, Arc<Hold>), NotKept>| {
                    let pair = unsent.over();
                    match kept {
                        Ok((body, hold)) => {
                            shadow.send(
                                shadow::Copy {
                                    body,
                                    hold: Some(hold),
                                    ..copy
                                },
                                shard,
                            );
                        }
                        Err(why) => {
                            if let Some(pair) = pair {
                                pair.drop_copy(shard, why.into());
                            }
                        }
                    }
                });
                let wanted = Wanted {
                    cap: self.snapshot.limits.capture,
                    hold: Some(self.worker.live.budget.hold()),
                    when_complete: Some(when_complete),
                };
                self.source(Arrived::Partly(front, incoming, None), Some(wanted))
            }
        }
    }

    // A safe method whose body streams can only be repeated elsewhere if it was kept.
    fn keep_for_failover(&self, rules: &Route, decision: &Decision, head: &http::request::Parts) -> Option<Wanted> {
        let failover = &rules.spec.failover;
        let again = decision.served == Side::New && head.method.is_safe() && (failover.unknown || failover.answered);
        again.then(|| Wanted {
            cap: self.snapshot.limits.capture,
            hold: Some(self.worker.live.budget.hold()),
            when_complete: None,
        })
    }

    fn source(&self, arrived: Arrived, wanted: Option<Wanted>) -> Source {
        match arrived {
            Arrived::Whole(body, hold) => Source::Whole(body, hold),
            Arrived::Partly(front, incoming, _) => {
                let limits = &self.snapshot.limits;
                let wanted = wanted.unwrap_or(Wanted {
                    cap: 0,
                    hold: None,
                    when_complete: None,
                });
                let idle = self.worker.sweep.unset();
                Source::Stream(Upload::new(
                    front,
                    incoming,
                    idle,
                    limits.body_idle,
                    limits.body,
                    wanted,
                ))
            }
        }
    }

    /// Hands a backend's answer to the client, or ours in its place.
    fn relay(
        &self,
        answered: super::failover::Answered,
        pair: &Arc<Pair>,
        source: &Source,
        keep: Option<usize>,
        wants: &Wants,
    ) -> Response<Answer> {
        let super::failover::Answered { side, failover, reply } = answered;
        let reply = match reply {
            Ok(reply) => reply,
            Err(error) => return self.make(source.broken().map_or_else(|| error.into(), Into::into)),
        };
        if reply.response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return self.change_protocol(side, failover, reply, pair, wants);
        }
        let Reply {
            response,
            lease,
            latency,
        } = reply;
        let (mut parts, incoming) = response.into_parts();
        let tally = self.route.tally(self.worker.shard);
        tally.answered[side.index()].add(StatusClass::of(parts.status));
        let keep = keep.map(|cap| Keep {
            headers: parts.headers.clone(),
            body: Kept::Frames(Vec::new(), 0),
            hold: self.worker.live.budget.hold(),
            cap,
        });
        let trailers = wants
            .trailers
            .then(|| forward::announced_trailers(&parts.headers))
            .flatten();
        forward::prepare_answer(&mut parts.headers, self.snapshot.via);
        // The library writes only trailers that are announced.
        if let Some(names) = trailers {
            parts.headers.insert(header::TRAILER, names);
        }
        self.name_side(&mut parts.headers, side);
        let watch = Watch {
            pair: Arc::clone(pair),
            shard: self.worker.shard,
            side,
            failover,
            status: parts.status,
            latency,
            keep,
        };
        let finish = Finish(Arc::clone(&self.origin.turn));
        let mut relay = Relay::new(incoming, lease, Some(watch), finish);
        // The length of what was not modified is a statement about what the client has; the library takes an answer that
        // is known to have no body for one whose length is wrong.
        if wants.version != Version::HTTP_2
            && parts.status == StatusCode::NOT_MODIFIED
            && parts.headers.contains_key(header::CONTENT_LENGTH)
        {
            relay.keep_length();
        }
        parts.version = Version::HTTP_11;
        let reason = parts.extensions.remove::<ReasonPhrase>();
        parts.extensions.clear();
        if let Some(reason) = reason {
            parts.extensions.insert(reason);
        }
        Response::from_parts(parts, Answer::Relayed(Box::new(relay)))
    }
}

impl Stage<'_> {
    /// Tells the client that a backend has agreed to change the protocol; the connection's task does the rest.
    fn change_protocol(
        &self,
        side: Side,
        failover: bool,
        reply: Reply,
        pair: &Arc<Pair>,
        wants: &Wants,
    ) -> Response<Answer> {
        let tally = self.route.tally(self.worker.shard);
        let run_over = |run| {
            if failover {
                pair.failed_over(run);
            } else {
                pair.served(run, None);
            }
        };
        let Reply {
            mut response, latency, ..
        } = reply;
        let offered = wants.upgrade.as_ref();
        let agreed = offered.and_then(|offered| tunnel::agreed(offered, response.headers()));
        let Some(agreed) = agreed else {
            tally.failed[side.index()].add(RunFailure::Malformed);
            run_over(Run::failed(Failure::Malformed));
            return self.make(Made::Malformed);
        };
        let backend = hyper::upgrade::on(&mut response);
        tally.answered[side.index()].add(StatusClass::of(response.status()));
        run_over(Run::answered(response.status().as_u16(), latency));
        let (mut parts, _) = response.into_parts();
        forward::prepare_answer(&mut parts.headers, self.snapshot.via);
        self.name_side(&mut parts.headers, side);
        parts
            .headers
            .insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        parts.headers.insert(header::UPGRADE, agreed);
        let origin = self.origin;
        origin.turn.switch_protocols();
        origin.set_upgrade(Upgrade::Agreed(Box::new(Tunnel {
            pair: Arc::clone(pair),
            side,
            shard: self.worker.shard,
            backend,
            idle: self.snapshot.limits.tunnel_idle,
            drain: self.snapshot.limits.drain,
            open: Open::new(&self.worker.live, side),
        })));
        parts.version = Version::HTTP_11;
        Response::from_parts(parts, Answer::Made(None, Finish(Arc::clone(&origin.turn))))
    }

    fn name_side(&self, headers: &mut HeaderMap, side: Side) {
        if self.snapshot.served_by {
            headers.insert(forward::SERVED_BY, HeaderValue::from_static(side.as_str()));
        }
    }
}

fn arrived(incoming: Incoming) -> Arrived {
    if incoming.is_end_stream() {
        Arrived::Whole(Bytes::new(), None)
    } else {
        Arrived::Partly(Front::default(), incoming, None)
    }
}

// A conversation stays in one lane; a request for nobody goes anywhere.
fn lane(worker: &Worker, pair: &Pair, subjects: Option<&Subjects>) -> u64 {
    match (pair.subject, subjects.map(Subjects::first)) {
        (Some(hash), _) => hash.0,
        (None, Some(first)) => worker.live.hash(first).0,
        #[allow(clippy::cast_possible_truncation, reason = "the low half is the counter")]
        (None, None) => pair.id.0 as u64,
    }
}

/// A copy whose body is not complete yet; counted as cut if it never will be.
struct Unsent(Option<(Arc<Pair>, usize)>);

impl Unsent {
    fn over(mut self) -> Option<Arc<Pair>> {
        self.0.take().map(|(pair, _)| pair)
    }
}

impl Drop for Unsent {
    fn drop(&mut self) {
        if let Some((pair, shard)) = self.0.take() {
            pair.drop_copy(shard, Skipped::Cut);
        }
    }
}

impl From<NotKept> for Skipped {
    fn from(why: NotKept) -> Self {
        match why {
            NotKept::Memory => Skipped::Memory,
            NotKept::TooLarge => Skipped::BodyTooLarge,
        }
    }
}

impl From<NotKept> for Unidentified {
    fn from(why: NotKept) -> Self {
        match why {
            NotKept::Memory => Unidentified::Memory,
            NotKept::TooLarge => Unidentified::BodyTooLarge,
        }
    }
}

impl From<Skip> for Skipped {
    fn from(why: Skip) -> Self {
        match why {
            Skip::Killed => Skipped::Killed,
            Skip::Method => Skipped::Method,
            Skip::NotDeclared => Skipped::NotDeclared,
            Skip::SampledOut => Skipped::SampledOut,
        }
    }
}
