//! Copies: off the critical path, always.
//!
//! A worker puts a copy into a bounded ring and forgets it. On the shadow's own thread, with its own connections, each
//! route has lanes: a subject's copies go one after the other through the same lane, so that a conversation arrives in
//! order. What does not fit is shed and counted; a lane that overflows sheds whole subjects until it has caught up.

use std::collections::{HashMap, HashSet, VecDeque};
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderValue;
use http_body::Body as _;
use tokio::sync::mpsc;

use super::answer::{Keep, Kept};
use super::body::Source;
use super::forward;
use super::pair::Pair;
use super::sweep::Sweep;
use super::upstream::{Patience, Pool};
use crate::engine::guard::{Breaker, Failure, Run};
use crate::engine::vocab::Side;
use crate::live::Live;
use crate::live::backend::Backend;
use crate::live::budget::Hold;
use crate::live::intake::KeptAnswer;
use crate::live::snapshot::RouteId;
use crate::live::tally::{RunFailure, Skipped};
use crate::telemetry::{clock, spawn};

/// Copies on their way from the workers to the shadow's thread.
const RING: usize = 8_192;

/// Copies that are fetched from the ring at once, and the pause before the next are.
const BATCH: usize = 1_024;
const BREATH: Duration = Duration::from_millis(1);

/// Copies that may wait in one lane.
const LANE: usize = 64;

/// Subjects that one overflowing lane remembers to shed whole; beyond it, every copy is shed until it has caught up.
const SHED: usize = 1_024;

/// What a copy takes in memory beside its head and body.
const OVERHEAD: usize = 1_024;

/// The least that it takes: the buffers that the request and legacy's answer were read into stay as long as anything in
/// them is needed.
const BUFFERS: usize = 16 << 10;

/// By how much a copy's head is longer than the head of the request it is copied from: `x-understudy-shadow: 1`.
const MARKER_BYTES: usize = 24;

/// What a copy of a request needs.
#[derive(Debug)]
pub struct Copy {
    /// The exchange it belongs to.
    pub pair: Arc<Pair>,
    /// Method, target and headers as the serving side got them.
    pub head: http::request::Parts,
    /// The whole body.
    pub body: Bytes,
    /// The memory the body takes.
    pub hold: Option<Arc<Hold>>,
    /// Where it goes.
    pub backend: Arc<Backend>,
    /// What decides its lane: the subject, or the exchange where there is none.
    pub lane: u64,
    /// The route's bounds.
    pub bounds: Bounds,
    /// The most bytes of its answer that are kept.
    pub cap: usize,
}

/// A route's bounds on its copies.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Copies under way at once: the number of lanes.
    pub max_in_flight: usize,
    /// Bytes of copies that wait or are under way.
    pub max_bytes: u64,
    /// For a copy, from leaving its worker to the end of its answer.
    pub timeout: Duration,
}

/// The workers' end.
#[derive(Clone, Debug)]
pub struct Sender(mpsc::Sender<(Copy, u64)>);

impl Sender {
    /// Sends a copy on its way, or sheds it. Never waits.
    pub fn send(&self, copy: Copy, shard: usize) {
        if let Err(refused) = self.0.try_send((copy, clock::monotonic_nanos())) {
            let (copy, _) = refused.into_inner();
            copy.pair.drop_copy(shard, Skipped::QueueFull);
        }
    }
}

/// The ring between the workers and the shadow's thread.
#[must_use]
pub fn ring() -> (Sender, Receiver) {
    let (sender, receiver) = mpsc::channel(RING);
    (Sender(sender), Receiver(receiver))
}

/// The shadow's end.
#[derive(Debug)]
pub struct Receiver(mpsc::Receiver<(Copy, u64)>);

#[derive(Debug)]
struct Waiting {
    copy: Copy,
    since_nanos: u64,
    // What the copy keeps in memory.
    bytes: u64,
}

impl Waiting {
    fn waited(&self) -> Duration {
        Duration::from_nanos(clock::monotonic_nanos().saturating_sub(self.since_nanos))
    }

    fn new(copy: Copy, since_nanos: u64) -> Self {
        let bytes = (copy.body.len() + head_bytes(&copy.head) + OVERHEAD).max(BUFFERS) as u64;
        Self {
            copy,
            since_nanos,
            bytes,
        }
    }
}

/// How long a request's head is on the wire, but for what the connection adds.
fn head_bytes(head: &http::request::Parts) -> usize {
    let line = head.method.as_str().len() + head.uri.path_and_query().map_or(1, |target| target.as_str().len());
    let headers = head
        .headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len() + 4);
    line + headers.sum::<usize>()
}

#[derive(Debug, Default)]
struct Lane {
    waiting: VecDeque<Waiting>,
    busy: bool,
    shed: HashSet<u64>,
}

/// The lanes of one route.
#[derive(Debug, Default)]
struct Lanes {
    lanes: HashMap<u64, Lane>,
    bytes: u64,
    breakers: [Breaker; 2],
    // The shortest head of a copy that was too long for its side.
    too_long: [Option<usize>; 2],
}

impl Lanes {
    /// Whether the served request, which is shorter than its copy by the marker, would have been too long as well: so it is
    /// once a copy no longer than that request was. Until then a 431 says nothing of the side.
    fn would_be_too_long(&mut self, side: Side, copy_bytes: usize) -> bool {
        let shortest = self.too_long[side.index()].get_or_insert(copy_bytes);
        *shortest = copy_bytes.min(*shortest);
        *shortest + MARKER_BYTES <= copy_bytes
    }

    /// Puts a copy into its lane; gives it back when it has to be shed.
    fn admit(&mut self, number: u64, waiting: Waiting) -> Option<Waiting> {
        let lane = self.lanes.entry(number).or_default();
        let subject = waiting.copy.lane;
        let full = lane.waiting.len() >= LANE || self.bytes + waiting.bytes > waiting.copy.bounds.max_bytes;
        if full && lane.shed.len() < SHED {
            lane.shed.insert(subject);
        }
        // Half a conversation tells nothing, so whoever lost one copy loses all until the lane is empty.
        if full || lane.shed.contains(&subject) || lane.shed.len() == SHED {
            if lane.waiting.is_empty() && !lane.busy {
                lane.shed.clear();
            }
            return Some(waiting);
        }
        self.bytes += waiting.bytes;
        lane.waiting.push_back(waiting);
        None
    }

    /// The next copy of a lane; without one, the lane is idle and has caught up.
    fn next(&mut self, number: u64) -> Option<Waiting> {
        let lane = self.lanes.get_mut(&number)?;
        let next = lane.waiting.pop_front();
        if next.is_none() {
            self.lanes.remove(&number);
        }
        next
    }
}

/// Runs the shadow until every worker is gone and all lanes are empty.
pub async fn run(live: Arc<Live>, Receiver(mut receiver): Receiver) {
    let sweep = Sweep::new();
    let pool = Pool::new(Arc::clone(&sweep));
    let pruned = Arc::clone(&pool);
    drop(spawn::task(
        "shadow sweep",
        Arc::clone(&sweep).run(move || pruned.prune()),
    ));
    let courier = Arc::new(Courier { live, pool, sweep });
    let mut routes: HashMap<RouteId, Arc<Mutex<Lanes>>> = HashMap::new();
    let (working, mut idle) = mpsc::channel::<()>(1);
    let mut arrived = Vec::with_capacity(BATCH);
    while receiver.recv_many(&mut arrived, BATCH).await > 0 {
        for (copy, since_nanos) in arrived.drain(..) {
            courier.place(&mut routes, &working, Waiting::new(copy, since_nanos));
        }
        // Nobody waits for a copy. One that is fetched at once costs both threads a wake-up, and the worker the core where
        // there is but one; a batch costs them once.
        tokio::time::sleep(BREATH).await;
    }
    drop(working);
    // Nothing is ever sent: this ends when the last lane has dropped its end.
    let _ = idle.recv().await;
}

fn lock(lanes: &Mutex<Lanes>) -> MutexGuard<'_, Lanes> {
    lanes.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A copy that left its lane. Whatever becomes of whoever carries it, its lane goes on and its bytes are given back.
struct Underway<'a> {
    lanes: &'a Mutex<Lanes>,
    number: u64,
    bytes: u64,
    over: bool,
}

impl<'a> Underway<'a> {
    const fn new(lanes: &'a Mutex<Lanes>, number: u64, bytes: u64) -> Self {
        Self {
            lanes,
            number,
            bytes,
            over: false,
        }
    }

    /// Whether the route has room for so much more of this copy's answer.
    fn grow(&mut self, bytes: u64, max_bytes: u64) -> bool {
        let mut lanes = lock(self.lanes);
        let fits = lanes.bytes + bytes <= max_bytes;
        if fits {
            lanes.bytes += bytes;
            self.bytes += bytes;
        }
        fits
    }

    fn over(mut self) {
        self.over = true;
    }
}

impl Drop for Underway<'_> {
    fn drop(&mut self) {
        let mut lanes = lock(self.lanes);
        lanes.bytes = lanes.bytes.saturating_sub(self.bytes);
        if !self.over
            && let Some(lane) = lanes.lanes.get_mut(&self.number)
        {
            lane.busy = false;
        }
    }
}

/// A copy's run that must end, or its exchange never does.
struct Unfinished<'a>(Option<&'a Pair>);

impl Unfinished<'_> {
    fn over(mut self) {
        self.0 = None;
    }
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        if let Some(pair) = self.0.take() {
            pair.copied(Run::cancelled(), None);
        }
    }
}

#[derive(Debug)]
struct Courier {
    live: Arc<Live>,
    pool: Arc<Pool>,
    sweep: Arc<Sweep>,
}

impl Courier {
    /// Puts a copy into its lane, and sets the lane going if nobody empties it.
    fn place(
        self: &Arc<Self>,
        routes: &mut HashMap<RouteId, Arc<Mutex<Lanes>>>,
        working: &mpsc::Sender<()>,
        waiting: Waiting,
    ) {
        let copy = &waiting.copy;
        let lanes = Arc::clone(routes.entry(copy.pair.route.id).or_default());
        let number = copy.lane % copy.bounds.max_in_flight.max(1) as u64;
        let mut locked = lock(&lanes);
        if let Some(shed) = locked.admit(number, waiting) {
            shed.copy.pair.drop_copy(self.live.shadow_shard(), Skipped::QueueFull);
            return;
        }
        let lane = locked.lanes.entry(number).or_default();
        if !std::mem::replace(&mut lane.busy, true) {
            let working = working.clone();
            let courier = Arc::clone(self);
            let lanes = Arc::clone(&lanes);
            drop(spawn::task("shadow lane", async move {
                courier.empty(&lanes, number).await;
                drop(working);
            }));
        }
    }

    async fn empty(&self, lanes: &Mutex<Lanes>, number: u64) {
        let shard = self.live.shadow_shard();
        loop {
            let Some(waiting) = lock(lanes).next(number) else {
                return;
            };
            let mut underway = Underway::new(lanes, number, waiting.bytes);
            let pair = Arc::clone(&waiting.copy.pair);
            let side = pair.served.other();
            let allowed = lock(lanes).breakers[side.index()].allows(clock::monotonic());
            if waiting.waited() >= waiting.copy.bounds.timeout {
                pair.drop_copy(shard, Skipped::Deadline);
            } else if !allowed {
                pair.drop_copy(shard, Skipped::BreakerOpen);
            } else if !pair.send_copy() {
                pair.drop_copy(shard, Skipped::Withdrawn);
            } else {
                pair.route.tally(shard).copies.add(side);
                let unfinished = Unfinished(Some(&pair));
                let copy_bytes = head_bytes(&waiting.copy.head) + MARKER_BYTES;
                let Delivered {
                    mut run,
                    mut answer,
                    answered,
                } = self.deliver(waiting, &mut underway).await;
                if let Some(answered) = answered {
                    lock(lanes).breakers[side.index()].saw(answered, clock::monotonic());
                }
                if run.status == Some(431) && !lock(lanes).would_be_too_long(side, copy_bytes) {
                    run.cancelled = true;
                    answer = None;
                }
                unfinished.over();
                pair.copied(run, answer);
            }
            underway.over();
        }
    }

    async fn deliver(&self, waiting: Waiting, underway: &mut Underway<'_>) -> Delivered {
        let left = waiting.copy.bounds.timeout.saturating_sub(waiting.waited());
        let Copy {
            pair,
            mut head,
            body,
            hold,
            backend,
            cap,
            bounds,
            ..
        } = waiting.copy;
        let tally = pair.route.tally(self.live.shadow_shard());
        let side = pair.served.other();
        head.headers.insert(forward::SHADOW, HeaderValue::from_static("1"));
        let deadline = self.sweep.deadline(left);
        let patience = Patience {
            answer: left,
            total: Some(left),
        };
        let reply = match self
            .pool
            .call(&backend, &mut head, &Source::Whole(body, hold), false, patience)
            .await
        {
            Ok(reply) => reply,
            Err(error) => {
                tally.failed[side.index()].add(error.failure);
                // What we could not even try says nothing about the side.
                let local = error.failure == RunFailure::Local;
                let run = if local {
                    Run::cancelled()
                } else {
                    Run::failed(error.failure.into())
                };
                return Delivered::without_answer(run);
            }
        };
        let (parts, mut incoming) = reply.response.into_parts();
        let mut run = Run::answered(parts.status.as_u16(), reply.latency);
        let mut keep = Keep {
            headers: parts.headers,
            body: Kept::Frames(Vec::new(), 0),
            hold: self.live.budget.hold(),
            cap: if pair.compared { cap } else { 0 },
        };
        let mut read = 0;
        // What is known to be too long need not be read to find that out.
        if incoming.size_hint().lower() > cap as u64 {
            keep.body = Kept::TooLong;
            return Delivered::cut(run, keep, pair.served_in_short());
        }
        while !incoming.is_end_stream() {
            let frame = poll_fn(|cx| match Pin::new(&mut incoming).poll_frame(cx) {
                Poll::Ready(frame) => Poll::Ready(Ok(frame)),
                Poll::Pending => deadline.poll_due(cx).map(Err),
            });
            let failure = match frame.await {
                Ok(None) if reply.lease.is_shared() && !incoming.is_end_stream() => {
                    (Failure::Transport, RunFailure::Cut)
                }
                Ok(None) => break,
                Ok(Some(Ok(frame))) => {
                    if let Some(data) = frame.data_ref() {
                        read += data.len();
                        if pair.compared && underway.grow(data.len() as u64, bounds.max_bytes) {
                            keep.frame(data);
                        } else if pair.compared {
                            keep.body = Kept::NoMemory;
                        }
                    }
                    // Whoever floods is cut off; what it said so far is its answer, too long to be compared.
                    if read > cap || matches!(keep.body, Kept::NoMemory) {
                        // Where the memory ran out first, nobody knows how long it is.
                        let in_short = pair.served_in_short().filter(|_| read > cap);
                        return Delivered::cut(run, keep, in_short);
                    }
                    continue;
                }
                Ok(Some(Err(_))) => (Failure::Transport, RunFailure::Cut),
                Err(()) => (Failure::Timeout, RunFailure::Timeout),
            };
            run.failure = Some(failure.0);
            tally.failed[side.index()].add(failure.1);
            return Delivered::without_answer(run);
        }
        reply.lease.give_back();
        Delivered {
            run,
            answer: pair.compared.then(|| keep.finish(parts.status.as_u16())).flatten(),
            answered: Some(true),
        }
    }
}

/// What became of a copy that was sent.
struct Delivered {
    run: Run,
    answer: Option<Box<KeptAnswer>>,
    /// Whether that counts as an answer for the breaker; `None` if it cannot be told.
    answered: Option<bool>,
}

impl Delivered {
    const fn without_answer(run: Run) -> Self {
        Self {
            answered: Some(run.status.is_some()),
            run,
            answer: None,
        }
    }

    /// An answer that is too long to be read. It is a flood, and none for the breaker, where the serving side answered the same
    /// request in short: to go on asking takes connections and the processor from those who serve.
    fn cut(run: Run, keep: Keep, served_in_short: Option<bool>) -> Self {
        Self {
            answered: served_in_short.map(|short| !short),
            answer: run.status.and_then(|status| keep.finish(status)),
            run,
        }
    }
}

impl From<RunFailure> for Failure {
    fn from(failure: RunFailure) -> Self {
        match failure {
            RunFailure::Malformed => Failure::Malformed,
            RunFailure::Timeout => Failure::Timeout,
            RunFailure::Connect
            | RunFailure::Cut
            | RunFailure::Local
            | RunFailure::Overload
            | RunFailure::Reset
            | RunFailure::Tls => Failure::Transport,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_carrier_that_dies_leaves_its_lane_free_and_its_bytes_given_back() {
        let lanes = Mutex::new(Lanes::default());
        let busy = || lock(&lanes).lanes[&7].busy;
        lock(&lanes).lanes.entry(7).or_default().busy = true;
        lock(&lanes).bytes = 5_000;
        Underway::new(&lanes, 7, 2_000).over();
        assert!(busy());
        drop(Underway::new(&lanes, 7, 3_000));
        assert!(!busy());
        assert_eq!(lock(&lanes).bytes, 0);
    }

    #[test]
    fn a_431_counts_once_a_copy_no_longer_than_the_request_itself_got_one() {
        let mut lanes = Lanes::default();
        assert!(!lanes.would_be_too_long(Side::New, 8_190));
        assert!(!lanes.would_be_too_long(Side::New, 8_200));
        assert!(lanes.would_be_too_long(Side::New, 8_214));
        assert!(!lanes.would_be_too_long(Side::New, 8_180));
        assert!(lanes.would_be_too_long(Side::New, 8_204));
        assert!(!lanes.would_be_too_long(Side::Legacy, 9_000));
    }
}
