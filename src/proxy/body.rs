//! Request bodies on their way to a backend: streamed, and kept only as far as somebody may need them again.
//!
//! Who may need one: identity (captured before the decision), a copy (kept while it streams), a failover of a safe
//! method (likewise), and any first attempt until the backend has taken its first byte. Frames are shared, not copied.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::expect::{self, Gate};
use super::forward;
use super::framing;
use super::patience::Patience;
use super::wire::Wire;
use crate::live::budget::Hold;
use crate::telemetry::clock;

/// Why a body did not arrive whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// The client broke off, or framed it wrongly.
    #[error("the request's body broke off")]
    Client,
    /// Nothing arrived for the configured time.
    #[error("the request's body stopped arriving")]
    Idle,
    /// Another attempt to send it has begun; this one gets no more of it.
    #[error("the request is being sent elsewhere")]
    Superseded,
    /// It is longer than `limits.body`.
    #[error("the request's body is over the limit")]
    TooLarge,
    /// Its trailers are longer than those over HTTP/1 may be.
    #[error("the request's trailers are over the limit")]
    Trailers,
}

/// Why a body was not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotKept {
    /// The capture budget is used up.
    Memory,
    /// It is longer than the capture cap.
    TooLarge,
}

/// What a kept body is used for once it is complete: the body, with the hold on the memory it takes.
pub type WhenComplete = Box<dyn FnOnce(Result<(Bytes, Arc<Hold>), NotKept>) + Send>;

/// What of a body arrived before it was decided where it goes.
#[derive(Debug, Default)]
pub struct Front {
    frames: VecDeque<Bytes>,
    // Until the backend has taken them, these frames are in memory as much as any that were kept.
    hold: Option<Hold>,
}

impl Front {
    /// Whether nothing has arrived.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    fn pop(&mut self) -> Option<Bytes> {
        let frame = self.frames.pop_front();
        if self.frames.is_empty() {
            self.hold = None;
        }
        frame
    }
}

/// A request's body, as often as it is needed.
#[derive(Clone, Debug)]
pub enum Source {
    /// Complete, and in memory, with the hold on it; empty for a request without one.
    Whole(Bytes, Option<Arc<Hold>>),
    /// Still arriving.
    Stream(Arc<Upload>),
}

impl Source {
    /// The body for one attempt over this connection.
    #[must_use]
    pub fn outgoing(&self, wire: &Arc<Wire>) -> Outgoing {
        match self {
            Source::Whole(bytes, _) => Outgoing::Whole(Some(bytes.clone()).filter(|b| !b.is_empty())),
            Source::Stream(upload) => {
                let attempt = upload.lock().begin(wire);
                Outgoing::Stream(Arc::clone(upload), attempt)
            }
        }
    }

    /// Whether a further attempt would send exactly what this one was to send.
    #[must_use]
    pub fn is_repeatable(&self) -> bool {
        match self {
            Source::Whole(..) => true,
            Source::Stream(upload) => upload.lock().is_repeatable(),
        }
    }

    /// When a piece of it was last taken for a connection that others share; 0 if none was.
    #[must_use]
    pub fn last_taken_nanos(&self) -> u64 {
        match self {
            Source::Whole(..) => 0,
            Source::Stream(upload) => upload.lock().last_taken_nanos,
        }
    }

    /// Whether its last byte has been taken from the client.
    #[must_use]
    pub fn is_taken(&self) -> bool {
        match self {
            Source::Whole(..) => true,
            Source::Stream(upload) => upload.lock().incoming.is_none(),
        }
    }

    /// Whether the body is still arriving and it is the client's turn.
    #[must_use]
    pub fn waits_for_client(&self) -> bool {
        match self {
            Source::Whole(..) => false,
            Source::Stream(upload) => upload.lock().waiting,
        }
    }

    /// How much of a body that is still arriving has been taken.
    #[must_use]
    pub fn seen(&self) -> u64 {
        match self {
            Source::Whole(bytes, _) => bytes.len() as u64,
            Source::Stream(upload) => upload.lock().seen,
        }
    }

    /// The backend's word that it wants the body will not be heard: it is sent as it comes.
    pub fn let_go(&self) {
        if let Source::Stream(upload) = self
            && let Some((gate, ..)) = &upload.lock().gate
        {
            gate.open();
        }
    }

    /// Keeps the client waiting until the gate opens, at most for [`expect::patience`] with a backend of this timeout.
    pub fn hold_back(&self, gate: Arc<Gate>, timeout: Duration) {
        if let Source::Stream(upload) = self {
            upload.lock().gate = Some((gate, expect::patience(timeout), false));
        }
    }

    /// Why the body did not arrive whole, if so.
    #[must_use]
    pub fn broken(&self) -> Option<Broken> {
        match self {
            Source::Whole(..) => None,
            Source::Stream(upload) => upload.lock().broken,
        }
    }
}

/// A body that is still arriving.
#[derive(Debug)]
pub struct Upload(Mutex<State>);

struct State {
    front: Front,
    incoming: Option<Incoming>,
    waiting: bool,
    broken: Option<Broken>,
    seen: u64,
    last_taken_nanos: u64,
    limit: Option<u64>,
    patience: Patience,
    keep: Keep,
    // Where the wire stood when the attempt began: it has taken nothing while it still stands there.
    attempt: Option<(Arc<Wire>, u64)>,
    // The attempt that the frames belong to: the connection of an earlier one may still ask for some.
    attempts: u64,
    // The trailers, once they have come, and whether this attempt is still to get them.
    trailers: Option<HeaderMap>,
    owes_trailers: bool,
    // What the client waits for and for how long, and whether the time for it runs.
    gate: Option<(Arc<Gate>, Duration, bool)>,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State")
            .field("seen", &self.seen)
            .field("broken", &self.broken)
            .finish_non_exhaustive()
    }
}

struct Keep {
    frames: Vec<Bytes>,
    // Whether `frames` is everything that was taken from the client so far.
    complete: bool,
    cap: usize,
    len: usize,
    // `None`: kept only until the backend has taken its first byte.
    hold: Option<Hold>,
    // In its place once the body is complete, and somebody else has it too.
    shared: Option<Arc<Hold>>,
    refused: Option<NotKept>,
    when_complete: Option<WhenComplete>,
}

/// What the rest of an exchange wants of a body that streams.
pub struct Wanted {
    /// The most bytes to keep.
    pub cap: usize,
    /// The hold to grow, if the whole body is to be kept; `None` keeps it until the backend took its first byte.
    pub hold: Option<Hold>,
    /// Called once, when the body is complete.
    pub when_complete: Option<WhenComplete>,
}

impl Upload {
    /// A body that arrives from `incoming`, after `front`, which has already arrived.
    #[must_use]
    pub fn new(front: Front, incoming: Incoming, patience: Patience, limit: Option<u64>, wanted: Wanted) -> Arc<Self> {
        let keep = Keep {
            frames: Vec::new(),
            complete: true,
            cap: wanted.cap,
            len: 0,
            hold: wanted.hold,
            shared: None,
            refused: None,
            when_complete: wanted.when_complete,
        };
        Arc::new(Self(Mutex::new(State {
            front,
            incoming: Some(incoming),
            waiting: false,
            broken: None,
            seen: 0,
            last_taken_nanos: 0,
            limit,
            patience,
            keep,
            attempt: None,
            attempts: 0,
            trailers: None,
            owes_trailers: false,
            gate: None,
        })))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn begin(&mut self, wire: &Arc<Wire>) -> u64 {
        if self.keep.complete && !self.keep.frames.is_empty() {
            let mut again: VecDeque<Bytes> = self.keep.frames.drain(..).collect();
            again.append(&mut self.front.frames);
            self.seen = 0;
            self.keep.len = 0;
            self.front.frames = again;
        }
        self.owes_trailers = self.trailers.is_some();
        self.attempt = Some((Arc::clone(wire), wire.written()));
        self.attempts += 1;
        self.attempts
    }

    fn is_repeatable(&self) -> bool {
        self.keep.complete && self.broken.is_none()
    }

    fn took(&mut self, frame: &Bytes) {
        let untouched = self.attempt.as_ref().is_none_or(|(wire, base)| wire.written() == *base);
        let keep = &mut self.keep;
        if !keep.complete {
            return;
        }
        let refused = match &mut keep.hold {
            None if untouched => None,
            None => Some(None),
            Some(_) if keep.len + frame.len() > keep.cap => Some(Some(NotKept::TooLarge)),
            Some(hold) => (!hold.cover(keep.len + frame.len())).then_some(Some(NotKept::Memory)),
        };
        if let Some(why) = refused {
            keep.complete = false;
            keep.frames = Vec::new();
            keep.hold = None;
            keep.refused = why;
        } else {
            keep.len += frame.len();
            keep.frames.push(frame.clone());
        }
    }

    fn finish(&mut self) {
        self.incoming = None;
        if let Some(done) = self.keep.when_complete.take() {
            match self.keep.hold.take() {
                Some(hold) if self.keep.complete => {
                    // A failover may still need it here: the same bytes, under the same hold.
                    let (whole, hold) = (concat(&self.keep.frames), Arc::new(hold));
                    self.keep.frames = vec![whole.clone()];
                    self.keep.shared = Some(Arc::clone(&hold));
                    done(Ok((whole, hold)));
                }
                _ => done(Err(self.keep.refused.unwrap_or(NotKept::TooLarge))),
            }
        }
    }

    fn poll_gate(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some((gate, wait, runs)) = &mut self.gate {
            if !std::mem::replace(runs, true) {
                self.patience.deadline().set(*wait);
            }
            if gate.poll_open(cx).is_pending() {
                ready!(self.patience.deadline().poll_due(cx));
            }
            self.gate = None;
        }
        Poll::Ready(())
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        ready!(self.poll_gate(cx));
        loop {
            if let Some(why) = self.broken {
                return Poll::Ready(Some(Err(why)));
            }
            if let Some(frame) = self.front.pop() {
                return Poll::Ready(Some(self.accept(frame).map(Frame::data)));
            }
            let Some(incoming) = &mut self.incoming else {
                return Poll::Ready(self.last_frame());
            };
            let polled = Pin::new(incoming).poll_frame(cx);
            // Also at its end: from there on the backend's time runs.
            self.waiting &= polled.is_pending();
            match polled {
                Poll::Ready(Some(Ok(frame))) => {
                    self.patience.went_on(frame.data_ref().map_or(0, Bytes::len));
                    match frame.into_data() {
                        Ok(data) if data.is_empty() => {}
                        Ok(data) => return Poll::Ready(Some(self.accept(data).map(Frame::data))),
                        Err(frame) => {
                            if let Ok(mut trailers) = frame.into_trailers() {
                                if forward::bytes(&trailers) > framing::TRAILER_BYTES {
                                    self.broken = Some(Broken::Trailers);
                                    continue;
                                }
                                forward::prepare_trailers(&mut trailers);
                                self.owes_trailers = !trailers.is_empty();
                                self.trailers = Some(trailers);
                            }
                            self.finish();
                        }
                    }
                }
                Poll::Ready(Some(Err(_))) => self.broken = Some(Broken::Client),
                Poll::Ready(None) => {
                    self.finish();
                    return Poll::Ready(self.last_frame());
                }
                Poll::Pending => {
                    self.waiting = true;
                    if self.patience.poll_over(cx).is_pending() {
                        return Poll::Pending;
                    }
                    self.waiting = false;
                    self.broken = Some(Broken::Idle);
                }
            }
        }
    }

    // Nothing follows trailers. Over HTTP/1.1 they are dropped: no backend has been told that there will be any.
    fn last_frame(&mut self) -> Option<Result<Frame<Bytes>, Broken>> {
        let owed = std::mem::take(&mut self.owes_trailers);
        self.trailers
            .clone()
            .filter(|_| owed)
            .map(|trailers| Ok(Frame::trailers(trailers)))
    }

    fn accept(&mut self, frame: Bytes) -> Result<Bytes, Broken> {
        self.seen += frame.len() as u64;
        if self.limit.is_some_and(|limit| self.seen > limit) {
            self.broken = Some(Broken::TooLarge);
            return Err(Broken::TooLarge);
        }
        self.took(&frame);
        if self.front.frames.is_empty() && self.incoming.as_ref().is_some_and(is_over) {
            self.finish();
        }
        Ok(frame)
    }

    fn size_hint(&self) -> SizeHint {
        let front: u64 = self.front.frames.iter().map(|frame| frame.len() as u64).sum();
        let rest = self
            .incoming
            .as_ref()
            .map_or_else(|| SizeHint::with_exact(0), Body::size_hint);
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower() + front);
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper + front);
        }
        hint
    }
}

// Whoever sends a body of a known length asks for no frame after its last byte, over HTTP/2 not even for its end.
fn is_over(incoming: &Incoming) -> bool {
    incoming.is_end_stream() || incoming.size_hint().exact() == Some(0)
}

/// A request's body for one attempt.
#[derive(Debug)]
pub enum Outgoing {
    /// In memory; `None` once sent, or empty.
    Whole(Option<Bytes>),
    /// Still arriving.
    Stream(Arc<Upload>, u64),
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        match self.get_mut() {
            Outgoing::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Outgoing::Stream(upload, attempt) => {
                let mut state = upload.lock();
                if *attempt != state.attempts {
                    return Poll::Ready(Some(Err(Broken::Superseded)));
                }
                let polled = state.poll_frame(cx);
                if polled.is_ready() && state.attempt.as_ref().is_some_and(|(wire, _)| wire.is_shared()) {
                    state.last_taken_nanos = clock::monotonic_nanos();
                }
                polled
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Outgoing::Whole(bytes) => bytes.is_none(),
            Outgoing::Stream(upload, attempt) => {
                let state = upload.lock();
                *attempt == state.attempts
                    && state.front.frames.is_empty()
                    && state.incoming.is_none()
                    && state.broken.is_none()
                    && !state.owes_trailers
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Outgoing::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64)),
            Outgoing::Stream(upload, _) => upload.lock().size_hint(),
        }
    }
}

/// What [`capture`] got.
#[derive(Debug)]
pub enum Captured {
    /// All of it.
    Whole(Bytes, Hold),
    /// What had arrived when it became clear that it cannot be kept; the rest is still to come.
    Partial(Front, Incoming, NotKept),
}

/// Reads a body whole, up to `cap` bytes, if the budget has room.
///
/// # Errors
/// [`Broken`]: the body never became complete.
pub async fn capture(
    mut incoming: Incoming,
    cap: usize,
    mut hold: Hold,
    mut patience: Patience,
) -> Result<Captured, Broken> {
    let hint = incoming.size_hint();
    if hint.lower() > cap as u64 {
        return Ok(Captured::Partial(Front::default(), incoming, NotKept::TooLarge));
    }
    let mut frames: Vec<Bytes> = Vec::new();
    let mut len = 0;
    while !incoming.is_end_stream() {
        let frame = std::future::poll_fn(|cx| {
            if let Poll::Ready(frame) = Pin::new(&mut incoming).poll_frame(cx) {
                return Poll::Ready(frame.map(|frame| frame.map_err(|_| Broken::Client)));
            }
            patience.poll_over(cx).map(|()| Some(Err(Broken::Idle)))
        });
        let Some(frame) = frame.await.transpose()? else { break };
        let data = match frame.into_data() {
            Ok(data) => data,
            Err(frame) => match frame.trailers_ref() {
                Some(trailers) if forward::bytes(trailers) > framing::TRAILER_BYTES => return Err(Broken::Trailers),
                _ => continue,
            },
        };
        patience.went_on(data.len());
        let refused = if len + data.len() > cap {
            Some(NotKept::TooLarge)
        } else {
            (!hold.grow(data.len())).then_some(NotKept::Memory)
        };
        len += data.len();
        frames.push(data);
        if let Some(why) = refused {
            let front = Front {
                frames: frames.into(),
                hold: Some(hold),
            };
            return Ok(Captured::Partial(front, incoming, why));
        }
    }
    Ok(Captured::Whole(concat(&frames), hold))
}

fn concat(frames: &[Bytes]) -> Bytes {
    match frames {
        [] => Bytes::new(),
        [one] => one.clone(),
        many => {
            let mut all = BytesMut::with_capacity(many.iter().map(Bytes::len).sum());
            many.iter().for_each(|frame| all.extend_from_slice(frame));
            all.freeze()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::patience::Pace;
    use crate::proxy::sweep::Sweep;
    use crate::proxy::wire::Socket;
    use std::future::poll_fn;
    use std::time::Duration;
    use tokio::net::{TcpListener, TcpStream};

    const PACE: Pace = Pace {
        idle: Duration::from_secs(1),
        rate: None,
    };

    async fn wire() -> Arc<Wire> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        Wire::new(Socket::Tcp(stream), false)
    }

    // As one that is complete but for being taken: nothing else of it is still to come.
    fn source(frames: &[&'static str], gate: Option<Arc<Gate>>) -> Source {
        let frames = frames.iter().map(|frame| Bytes::from_static(frame.as_bytes()));
        let keep = Keep {
            frames: Vec::new(),
            complete: true,
            cap: 0,
            len: 0,
            hold: None,
            shared: None,
            refused: None,
            when_complete: None,
        };
        Source::Stream(Arc::new(Upload(Mutex::new(State {
            front: Front {
                frames: frames.collect(),
                hold: None,
            },
            incoming: None,
            waiting: false,
            broken: None,
            seen: 0,
            last_taken_nanos: 0,
            limit: None,
            patience: Patience::new(Sweep::new().unset(), PACE),
            keep,
            attempt: None,
            attempts: 0,
            trailers: None,
            owes_trailers: false,
            gate: gate.map(|gate| (gate, expect::patience(Duration::MAX), false)),
        }))))
    }

    async fn next(body: &mut Outgoing) -> Option<Result<Bytes, Broken>> {
        let frame = poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await;
        frame.map(|frame| frame.map(|frame| frame.into_data().unwrap()))
    }

    #[tokio::test]
    async fn an_attempt_that_was_superseded_gets_nothing_more_and_the_next_gets_everything() {
        let source = source(&["one", "two"], None);
        let mut first = source.outgoing(&wire().await);
        assert_eq!(next(&mut first).await, Some(Ok("one".into())));
        let mut second = source.outgoing(&wire().await);
        // Whichever is polled first: the frames belong to the second.
        assert_eq!(next(&mut first).await, Some(Err(Broken::Superseded)));
        assert!(!first.is_end_stream());
        assert_eq!(next(&mut second).await, Some(Ok("one".into())));
        assert_eq!(next(&mut first).await, Some(Err(Broken::Superseded)));
        assert_eq!(next(&mut second).await, Some(Ok("two".into())));
        assert_eq!(next(&mut second).await, None);
        assert!(second.is_end_stream() && !first.is_end_stream());
    }

    #[tokio::test]
    async fn nothing_is_taken_before_the_gate_opens() {
        let gate = Arc::new(Gate::default());
        let source = source(&["one"], Some(Arc::clone(&gate)));
        let mut body = source.outgoing(&wire().await);
        poll_fn(|cx| {
            assert!(Pin::new(&mut body).poll_frame(cx).is_pending());
            Poll::Ready(())
        })
        .await;
        gate.open();
        assert_eq!(next(&mut body).await, Some(Ok("one".into())));
    }
}
