//! Whose turn it is on one connection, and the one deadline that runs meanwhile.
//!
//! Shared by the connection's stream and the requests under way. HTTP/1 has one request at a time; on HTTP/2 the streams
//! are counted, and the limit between requests runs while there is none.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use super::Limits;
use super::interim::Interim;
use crate::live::tally::ClientError;
use crate::proxy::sweep::{Deadline, Sweep};

const IDLE: u8 = 0;
const HEADER: u8 = 1;
const BUSY: u8 = 2;

/// Whose turn it is on one connection.
#[derive(Debug)]
pub struct Turn {
    phase: AtomicU8,
    // Whether the client has yet to take what was written, of this answer or of one that we have done with.
    write_blocked: AtomicBool,
    // Whether something of the last request may come after we have closed.
    may_send: AtomicBool,
    // Whether an answer is under way whose only end is that of the connection.
    ends_by_closing: AtomicBool,
    // Whether a part of the next header section has arrived.
    head_begun: AtomicBool,
    // Whether the last request has arrived to its last byte.
    whole: AtomicBool,
    // Requests that the service has seen, and those that are answered.
    begun: AtomicU64,
    ended: AtomicU64,
    // The request that is not one, by its number, and why.
    refused: OnceLock<(u64, ClientError)>,
    opaque: AtomicBool,
    // Whether streams are counted in place of requests, and those that are open.
    multiplexed: AtomicBool,
    streams: AtomicU64,
    // Whether the deadline is the connection's last.
    closing: AtomicBool,
    // Whether the deadline is no limit.
    looks_again: AtomicBool,
    // Set while bytes wait for the end of the request before them.
    has_reader: AtomicBool,
    reader: Mutex<Option<Waker>>,
    pub(super) interim: Interim,
    deadline: Deadline,
    limits: Limits,
}

impl Turn {
    pub(super) fn new(sweep: &Arc<Sweep>, limits: Limits) -> Self {
        Self {
            phase: AtomicU8::new(IDLE),
            write_blocked: AtomicBool::new(false),
            may_send: AtomicBool::new(false),
            ends_by_closing: AtomicBool::new(false),
            head_begun: AtomicBool::new(false),
            whole: AtomicBool::new(false),
            begun: AtomicU64::new(0),
            ended: AtomicU64::new(0),
            refused: OnceLock::new(),
            opaque: AtomicBool::new(false),
            multiplexed: AtomicBool::new(false),
            streams: AtomicU64::new(0),
            closing: AtomicBool::new(false),
            looks_again: AtomicBool::new(false),
            has_reader: AtomicBool::new(false),
            reader: Mutex::new(None),
            interim: Interim::default(),
            deadline: sweep.deadline(limits.idle),
            limits,
        }
    }

    /// Why the next request is refused, if it is. To be asked once for each request over HTTP/1, in their order.
    #[must_use]
    pub fn next_is_refused(&self) -> Option<ClientError> {
        let number = add(&self.begun, 1);
        self.refused
            .get()
            .filter(|(refused, _)| *refused == number)
            .map(|(_, reason)| *reason)
    }

    /// A request has arrived, with a body or without: the client owes no other until it is answered.
    pub fn request_began(&self, has_body: bool) {
        if self.multiplexed.load(Relaxed) {
            return;
        }
        self.may_send.store(has_body, Relaxed);
        self.phase.store(BUSY, Relaxed);
        self.deadline.clear();
    }

    /// The answer is complete.
    pub fn request_ended(&self) {
        if self.multiplexed.load(Relaxed) {
            return;
        }
        add(&self.ended, 1);
        if self.is_opaque() {
            return;
        }
        let in_head = self.head_begun.load(Relaxed);
        self.phase.store(if in_head { HEADER } else { IDLE }, Relaxed);
        self.rearm();
        if self.has_reader.load(Relaxed) {
            self.wake_reader();
        }
    }

    /// Whether the library passes over what nobody has read of the request under way when it is answered, and goes on with
    /// the next one: it does with a body of known length that has arrived. With any other it closes the connection, of
    /// which the answer has to tell (RFC 9112 section 9.6).
    #[must_use]
    pub fn is_passed_over(&self, sized: bool) -> bool {
        sized && self.whole.load(Relaxed)
    }

    pub(super) fn arrived(&self, whole: bool) {
        self.whole.store(whole, Relaxed);
    }

    /// Whether a request over HTTP/1 is under way.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.phase.load(Relaxed) == BUSY
    }

    /// An answer begins that has no end but that of the connection (`true`), or it has come to its end (`false`). In between,
    /// closing would complete it.
    pub fn ends_by_closing(&self, under_way: bool) {
        self.ends_by_closing.store(under_way, Relaxed);
    }

    /// What the client sends after its last request is no HTTP: the request asked for another protocol and gets it.
    /// To be called before the answer leaves. From here no limit of HTTP holds.
    pub fn switch_protocols(&self) {
        self.opaque.store(true, Relaxed);
        self.deadline.clear();
        self.wake_reader();
    }

    /// A stream has opened, and is open until this is dropped.
    #[must_use]
    pub fn stream(self: &Arc<Self>) -> OpenStream {
        if add(&self.streams, 1) == 0 {
            self.rearm();
        }
        OpenStream(Arc::clone(self))
    }

    /// The connection's task, to be woken when [`Turn::say`] has something for it.
    pub fn listens(&self, task: Waker) {
        self.interim.wakes(task);
    }

    /// Has an interim answer to the request under way written to the client, before the final one. A client that has yet to
    /// take what was written before gets none.
    pub fn say(&self, interim: &[u8]) {
        if self.is_busy() && !self.write_blocked.load(Relaxed) {
            self.interim.push(interim);
        }
    }

    pub(super) fn multiplex(&self) {
        self.multiplexed.store(true, Relaxed);
        self.phase.store(IDLE, Relaxed);
        self.may_send.store(true, Relaxed);
    }

    pub(super) fn must_not_close(&self) -> bool {
        self.ends_by_closing.load(Relaxed)
    }

    pub(super) fn is_opaque(&self) -> bool {
        self.opaque.load(Relaxed)
    }

    pub(super) fn ended(&self) -> u64 {
        self.ended.load(Relaxed)
    }

    pub(super) fn refuse(&self, number: u64, reason: ClientError) {
        // Nothing is read after a refusal, so there is no second.
        let _ = self.refused.set((number, reason));
    }

    /// Whether something of the client's may be on its way that nobody will read.
    pub(super) fn may_send(&self) -> bool {
        self.may_send.load(Relaxed) || self.is_in_head()
    }

    pub(super) fn is_in_head(&self) -> bool {
        match self.phase.load(Relaxed) {
            BUSY => false,
            HEADER => true,
            _ => self.head_begun.load(Relaxed),
        }
    }

    pub(super) fn head_began(&self) {
        let known = self.head_begun.swap(true, Relaxed);
        if self.phase.load(Relaxed) == IDLE {
            if !self.multiplexed.load(Relaxed) {
                self.phase.store(HEADER, Relaxed);
            }
            if !known {
                self.rearm();
            }
        }
    }

    pub(super) fn head_ended(&self) {
        // Over HTTP/1 the request that begins now says what follows.
        if self.head_begun.load(Relaxed) {
            self.head_begun.store(false, Relaxed);
            if self.multiplexed.load(Relaxed) {
                self.rearm();
            }
        }
    }

    // Sets the deadline to what holds now; while the client does not read, that limit runs on.
    fn rearm(&self) {
        if self.write_blocked.load(Relaxed) || self.closing.load(Relaxed) {
            return;
        }
        self.looks_again.store(false, Relaxed);
        if self.is_in_head() {
            self.deadline.set(self.limits.header);
        } else if self.phase.load(Relaxed) == BUSY || self.streams.load(Relaxed) > 0 || self.is_opaque() {
            self.deadline.clear();
        } else {
            self.deadline.set(self.limits.idle);
        }
    }

    /// Whether the client has taken too long over what is its turn.
    pub(super) fn poll_due(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.write_blocked.load(Relaxed) {
            return Poll::Pending;
        }
        self.deadline.poll_due(cx)
    }

    /// Ready each time that this has passed, while nothing else is waited for.
    pub(super) fn poll_again(&self, cx: &mut Context<'_>, every: Duration) -> Poll<()> {
        if self.write_blocked.load(Relaxed) {
            return Poll::Pending;
        }
        if !self.looks_again.swap(true, Relaxed) {
            self.deadline.set(every);
        }
        ready!(self.deadline.poll_due(cx));
        self.looks_again.store(false, Relaxed);
        Poll::Ready(())
    }

    /// Whether the client has not read for too long.
    pub(super) fn poll_write_due(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.is_opaque() {
            return Poll::Pending;
        }
        if !self.write_blocked.swap(true, Relaxed) {
            self.deadline.set(self.limits.write);
        }
        self.deadline.poll_due(cx)
    }

    pub(super) fn write_went_on(&self) {
        if self.write_blocked.load(Relaxed) {
            self.write_blocked.store(false, Relaxed);
            self.rearm();
        }
    }

    /// Nothing else counts any more: the connection is to be closed by then.
    pub(super) fn close_within(&self, limit: Duration) {
        self.closing.store(true, Relaxed);
        self.deadline.set(limit);
    }

    pub(super) fn poll_closed(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.deadline.poll_due(cx)
    }

    pub(super) fn now_ms(&self) -> u64 {
        self.deadline.now_ms()
    }

    pub(super) fn wake_when_ended(&self, cx: &Context<'_>) {
        *self.reader.lock().unwrap_or_else(PoisonError::into_inner) = Some(cx.waker().clone());
        self.has_reader.store(true, Relaxed);
    }

    fn wake_reader(&self) {
        self.has_reader.store(false, Relaxed);
        let reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(reader) = reader {
            reader.wake();
        }
    }
}

/// One open stream of a connection over HTTP/2.
#[derive(Debug)]
pub struct OpenStream(Arc<Turn>);

impl Drop for OpenStream {
    fn drop(&mut self) {
        if add(&self.0.streams, u64::MAX) == 1 {
            self.0.rearm();
        }
    }
}

// One worker's thread has all that belongs to a connection: the word is shared, and never written by two at once.
fn add(count: &AtomicU64, more: u64) -> u64 {
    let before = count.load(Relaxed);
    count.store(before.wrapping_add(more), Relaxed);
    before
}
