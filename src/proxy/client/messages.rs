//! Reading HTTP/1: what has been judged passes, what has not is held back, and a request that is refused is replaced by
//! one that the service answers with the reason, so that the answer leaves in its order after those to earlier requests
//! and the connection ends.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, ReadBuf};

use super::{ClientIo, Guard};
use crate::live::tally::ClientError;
use crate::proxy::framing::{Fault, Rest, Verdict};

/// Bytes that are taken from a client while its request for another protocol is undecided.
const UNDECIDED_BYTES: usize = 16 << 10;

/// How often a client that sends nothing more is asked for whether it is still there.
const LOOK_FOR_RESET: Duration = Duration::from_millis(250);

/// What the service sees in place of a request that is refused.
const IN_PLACE: &[u8] = b"GET / HTTP/1.1\r\nhost: refused\r\nconnection: close\r\n\r\n";
const IN_PLACE_OF_HEAD: &[u8] = b"HEAD / HTTP/1.1\r\nhost: refused\r\nconnection: close\r\n\r\n";

impl ClientIo {
    pub(super) fn poll_read_messages(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.turn.interim.any() {
            // What the client does not take now goes before the final answer.
            let _ = self.poll_interim(cx)?;
        }
        loop {
            if self.held.deliver(buf) {
                return Poll::Ready(Ok(()));
            }
            if self.is_broken {
                return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
            }
            let Guard::Messages(guard) = &mut self.guard else {
                return Poll::Pending;
            };
            if guard.is_opaque() {
                return Pin::new(&mut self.stream).poll_read(cx, buf);
            }
            if self.turn.is_opaque() {
                guard.decide(true);
                self.held.clear_all();
                continue;
            }
            if guard.is_undecided() {
                if self.turn.ended() >= guard.heads() {
                    guard.decide(false);
                    self.judge_held();
                    continue;
                }
                self.turn.wake_when_ended(cx);
                if self.held.len() >= UNDECIDED_BYTES {
                    return Poll::Pending;
                }
            }
            if self.is_half_closed {
                return self.poll_gone(cx);
            }
            let filled = buf.filled().len();
            if self.is_refused || Pin::new(&mut self.stream).poll_read(cx, buf)?.is_pending() {
                // Only a refusal for slowness leaves something to hand over.
                ready!(self.poll_slow(cx))?;
                continue;
            }
            if buf.filled().len() == filled {
                if self.half_close && self.waits_for_answer() {
                    self.is_half_closed = true;
                    continue;
                }
                return Poll::Ready(Ok(()));
            }
            self.judge(buf, filled);
            if buf.filled().len() > filled {
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// Judges what has arrived in `buf` after its first `filled` bytes, and takes back what may not pass.
    fn judge(&mut self, buf: &mut ReadBuf<'_>, filled: usize) {
        let fresh = &buf.filled()[filled..];
        if self.held.is_empty() {
            let verdict = examine(&mut self.guard, fresh);
            if verdict.clear < fresh.len() {
                self.held.push(&fresh[verdict.clear..]);
                buf.set_filled(filled + verdict.clear);
            }
            self.heed(verdict.rest);
        } else {
            self.held.push(fresh);
            buf.set_filled(filled);
            self.judge_held();
        }
    }

    pub(super) fn judge_held(&mut self) {
        let verdict = examine(&mut self.guard, self.held.unjudged());
        self.held.clear(verdict.clear);
        self.heed(verdict.rest);
    }

    fn heed(&mut self, rest: Rest) {
        let Guard::Messages(guard) = &self.guard else { return };
        self.turn.arrived(guard.is_between());
        match rest {
            Rest::Refused(fault) => self.refuse(fault),
            Rest::Incomplete if guard.is_between() && !self.held.unjudged().is_empty() => self.turn.head_began(),
            Rest::Incomplete | Rest::Undecided => self.turn.head_ended(),
        }
    }

    fn refuse(&mut self, fault: Fault) {
        let Guard::Messages(guard) = &self.guard else { return };
        self.refusals.book(&self.peer, fault.reason, Some(fault.at));
        self.is_refused = true;
        if fault.in_body {
            self.is_broken = true;
            self.held.replace(b"");
            return;
        }
        self.turn.refuse(guard.heads(), fault.reason);
        let is_head = self.held.unjudged().starts_with(b"HEAD ");
        self.held.replace(if is_head { IN_PLACE_OF_HEAD } else { IN_PLACE });
    }

    /// Whether a request is whole and its answer is not.
    fn waits_for_answer(&self) -> bool {
        match &self.guard {
            Guard::Messages(guard) => guard.is_between() && guard.heads() > self.turn.ended(),
            Guard::Frames(_) => false,
        }
    }

    /// The library hears of the end when the answer is complete, or when the client turns out to have gone. A reset wakes
    /// nobody who has read the end, so it is looked for.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.waits_for_answer() {
            return Poll::Ready(Ok(()));
        }
        self.turn.wake_when_ended(cx);
        loop {
            if let Some(error) = self.stream.take_error() {
                return Poll::Ready(Err(error));
            }
            ready!(self.turn.poll_again(cx, LOOK_FOR_RESET));
        }
    }

    fn poll_slow(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.turn.poll_due(cx));
        if !self.turn.is_in_head() || self.is_refused {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        self.refuse(Fault {
            reason: ClientError::HeaderTimeout,
            at: self.held.unjudged().len() as u64,
            in_body: false,
        });
        Poll::Ready(Ok(()))
    }
}

fn examine(guard: &mut Guard, bytes: &[u8]) -> Verdict {
    match guard {
        Guard::Messages(guard) => guard.examine(bytes),
        Guard::Frames(_) => Verdict {
            clear: bytes.len(),
            rest: Rest::Incomplete,
        },
    }
}
