//! The life of one request, told as its stages.
//!
//! admit → route → identify → decide → forward (with failover) → answer; beside it, a copy to the other side. The
//! snapshot and the kill word are loaded once and carried along. When in doubt, legacy.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Request, Response, Uri, Version};
use http_body::Body as _;
use hyper::body::Incoming;

use super::access::Line;
use super::answer::{Answer, Finish};
use super::attributes;
use super::body::{self, Captured, Front, NotKept, Source, Upload, Wanted};
use super::decisions;
use super::error;
use super::expect::{self, Gate};
use super::forward;
use super::interim;
use super::pair::{Facts, Pair};
use super::shadow::{self, Bounds};
use super::stage::{Origin, Stage, Upgrade, Worker};
use super::tunnel;
use super::wants::Wants;
use crate::engine::decide::{self, CopyTo, Decision, KillBits, Skip, WithoutIdentity};
use crate::engine::flags::{Context, FlagKills, NoAttributes};
use crate::engine::identity::{Extraction, RequestView, Subjects};
use crate::engine::ruleset::Route;
use crate::engine::vocab::{ExchangeId, Side};
use crate::live::budget::Hold;
use crate::live::snapshot::Snapshot;
use crate::live::tally::{Made, Skipped, Unidentified, WorkerTally};

/// The kills that only an evaluation can tell the effect of: of flags that a route's flags ask in turn.
const ASKED_IN_TURN: KillBits = KillBits::ASKED_BY_FLAG.with(KillBits::ASKED_BY_OTHERS);

/// A request's body as far as it has come.
enum Arrived {
    Whole(Bytes, Option<Arc<Hold>>),
    Partly(Front, Incoming, Option<NotKept>),
}

impl Arrived {
    // Who sends no body waits for nothing.
    fn expectation(&self, head: &mut http::request::Parts, wants: &Wants) -> Option<Arc<Gate>> {
        match self {
            Arrived::Whole(body, _) if body.is_empty() => None,
            Arrived::Whole(..) => wants.gate(head, false),
            Arrived::Partly(front, ..) => wants.gate(head, front.is_empty()),
        }
    }
}

/// Answers one request, and has the access log told of it.
///
/// Every request under way holds this future, which is made and moved with it: its head is there once, and whoever works
/// on it borrows it, down to the call that sends it.
pub fn exchange(
    worker: Arc<Worker>,
    origin: Arc<Origin>,
    request: Request<Incoming>,
) -> impl Future<Output = Response<Answer>> + Send {
    let (mut head, incoming) = request.into_parts();
    async move {
        let under_way = UnderWay::count(&worker.tally);
        let mut line = None;
        let mut response = answer(&worker, &origin, &mut head, incoming, &mut line).await;
        under_way.answered();
        if let Some(mut line) = line {
            line.status = Some(response.status());
            // Nobody else's has this name: it is removed from what backends answer.
            let reason = response
                .headers()
                .get(forward::ERROR)
                .and_then(|reason| reason.to_str().ok());
            line.reason = reason.map(Into::into);
            response.body_mut().log(line);
        }
        response
    }
}

/// A request that is counted: each is answered by a backend or by us, or its client left before.
struct UnderWay<'w>(Option<&'w WorkerTally>);

impl<'w> UnderWay<'w> {
    fn count(tally: &'w WorkerTally) -> Self {
        tally.requests.add();
        Self(Some(tally))
    }

    fn answered(mut self) {
        self.0 = None;
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        if let Some(tally) = self.0 {
            tally.abandoned.add();
        }
    }
}

async fn answer(
    worker: &Arc<Worker>,
    origin: &Arc<Origin>,
    head: &mut http::request::Parts,
    incoming: Incoming,
    line: &mut Option<Box<Line>>,
) -> Response<Answer> {
    origin.turn.request_began(!incoming.is_end_stream());
    let Some(snapshot) = worker.live.snapshot() else {
        return error::answer(Made::Overload).map(|body| Answer::Made(Some(body), Finish(Arc::clone(&origin.turn))));
    };
    let wants = Wants::of(head, &incoming);
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
        worker,
        snapshot: &snapshot,
        route,
        rules,
        origin,
    };

    *line = Line::begin(snapshot.access, head, route, || {
        let trusted = snapshot.trusted_proxies.as_deref();
        origin.provenance.client(&head.headers, trusted)
    });
    if let Err(made) = admit(head, &incoming, &snapshot) {
        return stage.make(made);
    }
    if wants.upgrade.is_some() && tunnel::open(&worker.live) >= snapshot.limits.tunnels {
        return stage.make(Made::Overload);
    }
    let Some(rules) = rules else {
        return Box::pin(stage.unrouted(head, incoming, wants, line)).await;
    };
    let Identified {
        subjects,
        tenant,
        attributes,
        arrived,
    } = match stage.identify(rules, head, incoming).await {
        Ok(identified) => identified,
        Err(broken) => return stage.make(broken.into()),
    };
    let id = ExchangeId(worker.id_base | u128::from(worker.exchanges.fetch_add(1, Relaxed)));
    if let Some(line) = line {
        line.exchange = id;
    }
    let word = &route.word;
    let epoch = word.epoch();
    let all = || subjects.as_ref().map(Subjects::iter).into_iter().flatten();
    let hash = subjects
        .as_ref()
        .filter(|all| all.len() == 1)
        .map(|one| worker.live.hash(one.first()));
    let kills = word.bits();
    let flag_kills = kills.has(ASKED_IN_TURN).then(|| snapshot.flag_kills.load());
    let asked = decide::Request {
        method: &head.method,
        subjects: all(),
        tenant: tenant.as_ref().map(Subjects::first),
        exchange: id,
        attributes: attributes.as_ref().map_or(&NoAttributes, |known| known),
        kills,
        flag_kills: flag_kills.as_deref().map_or(FlagKills::NONE, |kills| kills),
        held: word.holds_any() && all().any(|subject| word.holds(worker.live.hash(subject))),
        now: crate::live::now(),
    };
    let mut decision = worker.timed(|| snapshot.rules.decide(rules, &asked));
    if let (Some(_), CopyTo::To(side)) = (&wants.upgrade, decision.copy) {
        // What follows a 101 is a conversation: two backends would not hold the same one.
        route.tally(worker.shard).skipped[side.index()].add(Skipped::Upgrade);
        decision.copy = CopyTo::Nobody;
    }
    stage.book(rules, &asked, &decision, hash);
    // What follows a 101 is not sampled as the rest is.
    if wants.upgrade.is_none() {
        decisions::remember(&stage, &asked, attributes.as_ref());
    }
    drop(asked);
    drop(flag_kills);
    if let (true, Some(reply)) = (decision.replied, &rules.spec.when_off) {
        if let CopyTo::Skipped(side, why) = decision.copy {
            route.tally(worker.shard).skipped[side.index()].add(Skipped::from(why));
        }
        return stage.reply(reply);
    }
    stage.prepare(&mut head.headers, &wants);
    if let Ok(value) = HeaderValue::from_bytes(&id.to_hex()) {
        head.headers.insert(forward::EXCHANGE, value);
    }
    let gate = arrived.expectation(head, &wants);
    stage.listen(head, &wants, &gate, decision.served).await;
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
    let source = stage.attach(rules, head, &decision, &pair, subjects.as_ref(), arrived);
    if let Some(gate) = gate {
        source.hold_back(gate, snapshot.backend(decision.served).timeout);
    }
    let answered = super::failover::serve(&stage, rules, &pair, head, &source).await;
    let keep = (pair.compared && decision.served == answered.side).then(|| snapshot.limits.capture);
    stage.relay(answered, &pair, &source, keep, &wants, line)
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
        && let Ok(uri) = match target.as_bytes() {
            // A URL may leave out the slash before its query, a path may not.
            [b'?', ..] => format!("/{target}").parse::<Uri>(),
            _ => target.parse::<Uri>(),
        }
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

/// What a request says of itself.
struct Identified {
    subjects: Option<Subjects>,
    tenant: Option<Subjects>,
    /// If a flag of its route asks.
    attributes: Option<Context>,
    arrived: Arrived,
}

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

    /// Has what this side says before its answer heard by whoever waits for it.
    async fn listen(&self, head: &mut http::request::Parts, wants: &Wants, gate: &Option<Arc<Gate>>, side: Side) {
        let heard = wants.version == Version::HTTP_11 && self.snapshot.backend(side).service.may_say_interim();
        let client = heard.then(|| Arc::clone(&self.origin.turn));
        interim::listen(head, gate.clone(), client, self.snapshot.via).await;
    }

    /// A request that no route takes goes to legacy as it is.
    async fn unrouted(
        &self,
        head: &mut http::request::Parts,
        incoming: Incoming,
        wants: Wants,
        line: &mut Option<Box<Line>>,
    ) -> Response<Answer> {
        let tally = self.route.tally(self.worker.shard);
        tally.assigned.add(Side::Legacy);
        self.prepare(&mut head.headers, &wants);
        let arrived = arrived(incoming);
        let gate = arrived.expectation(head, &wants);
        self.listen(head, &wants, &gate, Side::Legacy).await;
        let source = self.source(arrived, None);
        if let Some(gate) = gate {
            source.hold_back(gate, self.snapshot.backend(Side::Legacy).timeout);
        }
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
        self.relay(answered, &pair, &source, None, &wants, line)
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
        let asks = rules.policy.asks_attributes;
        let known = |body| asks.then(|| attributes::known(&rules.spec.attributes, &view(body)));
        let needs_body = undecided(&early)
            || early_tenant.as_ref().is_some_and(undecided)
            || (asks && rules.spec.attributes.needs_body());
        if !needs_body {
            return Ok(Identified {
                subjects: self.subjects(early, true),
                tenant: early_tenant.and_then(|e| self.subjects(e, false)),
                attributes: known(None),
                arrived: arrived(incoming),
            });
        }
        let worker = self.worker;
        let limits = &self.snapshot.limits;
        let cap = limits.body.map_or(limits.capture, |limit| {
            limits.capture.min(usize::try_from(limit).unwrap_or(usize::MAX))
        });
        let captured = body::capture(incoming, cap, worker.live.budget.hold(), self.patience()).await?;
        match captured {
            Captured::Whole(bytes, hold) => {
                let tenant = wants_tenant.then(|| rules.spec.tenant.extract(&view(Some(&bytes))));
                Ok(Identified {
                    subjects: self.subjects(rules.spec.identity.extract(&view(Some(&bytes))), true),
                    tenant: tenant.and_then(|e| self.subjects(e, false)),
                    attributes: known(Some(&bytes)),
                    arrived: Arrived::Whole(bytes, Some(Arc::new(hold))),
                })
            }
            Captured::Partial(front, incoming, why) => {
                // Whoever is named elsewhere is nobody, too: an attribute that is lost would decide as one that is absent.
                self.route.tally(worker.shard).unidentified.add(Unidentified::from(why));
                Ok(Identified {
                    subjects: None,
                    tenant: early_tenant.and_then(|e| self.subjects(e, false)),
                    attributes: known(None),
                    arrived: Arrived::Partly(front, incoming, Some(why)),
                })
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
            head: copied_head(head),
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
                Source::Stream(Upload::new(front, incoming, self.patience(), limits.body, wanted))
            }
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

// A copy is sent whole, by somebody who waits for nothing.
fn copied_head(head: &http::request::Parts) -> http::request::Parts {
    let mut head = head.clone();
    if expect::asks(&head) {
        head.headers.remove(header::EXPECT);
        head.extensions.clear();
    }
    head
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
            Skip::WhenOff => Skipped::WhenOff,
        }
    }
}
