//! Reading and writing HTTP/2: frames pass as they come and are counted. Whoever reaches a cap, is too slow with its
//! headers, or has no stream open for too long gets a farewell between two frames of ours, and is closed.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{ClientIo, Guard, LINGER};
use crate::live::tally::ClientError;
use crate::proxy::frames::{ENHANCE_YOUR_CALM, Flood, NO_ERROR};

/// A GOAWAY frame on its way, after which nothing follows.
#[derive(Debug)]
pub(super) struct Farewell {
    frame: [u8; 17],
    written: usize,
}

impl ClientIo {
    /// What has arrived before it was known to be of HTTP/2.
    pub(super) fn judge_first_frames(&mut self) {
        let Guard::Frames(guard) = &mut self.guard else { return };
        let received = guard.received(self.held.unjudged(), self.turn.now_ms());
        match received {
            Ok(()) => self.held.clear_all(),
            Err(flood) => {
                self.held.clear(flood.clear);
                self.held.replace(b"");
                self.calm(flood);
            }
        }
        self.note_head();
    }

    pub(super) fn poll_read_frames(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            if self.held.deliver(buf) {
                return Poll::Ready(Ok(()));
            }
            if self.farewell.is_some() {
                return self.poll_farewell(cx).map(Err);
            }
            let filled = buf.filled().len();
            if Pin::new(&mut self.stream).poll_read(cx, buf)?.is_pending() {
                ready!(self.turn.poll_due(cx));
                if self.turn.is_in_head() {
                    self.refusals.book(&self.peer, ClientError::HeaderTimeout, None);
                }
                self.bid_farewell(NO_ERROR);
                continue;
            }
            let fresh = &buf.filled()[filled..];
            let Guard::Frames(guard) = &mut self.guard else {
                return Poll::Pending;
            };
            let received = guard.received(fresh, self.turn.now_ms());
            if fresh.is_empty() {
                return Poll::Ready(Ok(()));
            }
            self.note_head();
            let Err(flood) = received else {
                return Poll::Ready(Ok(()));
            };
            buf.set_filled(filled + flood.clear);
            self.calm(flood);
            if flood.clear > 0 {
                return Poll::Ready(Ok(()));
            }
        }
    }

    fn note_head(&self) {
        if let Guard::Frames(guard) = &self.guard {
            if guard.is_in_head() {
                self.turn.head_began();
            } else {
                self.turn.head_ended();
            }
        }
    }

    fn calm(&mut self, flood: Flood) {
        self.refusals.book(&self.peer, flood.reason, Some(flood.at));
        self.bid_farewell(ENHANCE_YOUR_CALM);
    }

    fn bid_farewell(&mut self, code: u32) {
        if let (Guard::Frames(guard), None) = (&self.guard, &self.farewell) {
            let frame = guard.farewell(code);
            self.farewell = Some(Box::new(Farewell { frame, written: 0 }));
            self.turn.close_within(LINGER);
        }
    }

    /// Ends when the farewell is said and the client has closed, or not in time.
    fn poll_farewell(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let (Guard::Frames(guard), Some(farewell)) = (&self.guard, &mut self.farewell) else {
            return Poll::Pending;
        };
        if self.turn.poll_closed(cx).is_ready() {
            return Poll::Ready(io::ErrorKind::TimedOut.into());
        }
        // A frame that is half out has to be completed: the library goes on writing it.
        if guard.rest_of_frame() > 0 {
            return Poll::Pending;
        }
        while farewell.written < farewell.frame.len() {
            let rest = &farewell.frame[farewell.written..];
            match ready!(Pin::new(&mut self.stream).poll_write(cx, rest)) {
                Ok(written) if written > 0 => farewell.written += written,
                Ok(_) => return Poll::Ready(io::ErrorKind::WriteZero.into()),
                Err(error) => return Poll::Ready(error),
            }
        }
        if let Err(error) = ready!(Pin::new(&mut self.stream).poll_flush(cx)) {
            return Poll::Ready(error);
        }
        match ready!(self.poll_linger(cx)) {
            Ok(()) => Poll::Ready(io::ErrorKind::ConnectionAborted.into()),
            Err(error) => Poll::Ready(error),
        }
    }

    /// Writes no more than the frame that is half out, then the farewell.
    pub(super) fn poll_write_last(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let rest = match &self.guard {
            Guard::Frames(guard) => guard.rest_of_frame(),
            Guard::Messages(_) => 0,
        };
        let first = bufs.iter().find(|buf| !buf.is_empty());
        let Some(first) = first.filter(|_| rest > 0) else {
            return self.poll_farewell(cx).map(Err);
        };
        let last = &first[..first.len().min(rest)];
        match Pin::new(&mut self.stream).poll_write(cx, last) {
            Poll::Ready(Ok(written)) => {
                self.sent(&[IoSlice::new(last)], written);
                Poll::Ready(Ok(written))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => self.turn.poll_closed(cx).map(|()| Err(io::ErrorKind::TimedOut.into())),
        }
    }

    /// The first `written` bytes of these are out.
    pub(super) fn sent(&mut self, bufs: &[IoSlice<'_>], written: usize) {
        let Self {
            guard: Guard::Frames(guard),
            refusals,
            peer,
            ..
        } = self
        else {
            return;
        };
        let (mut left, mut flood) = (written, None);
        for buf in bufs {
            let bytes = &buf[..buf.len().min(left)];
            left -= bytes.len();
            if let Err(reason) = guard.sent(bytes, |fault| refusals.book(peer, fault, None)) {
                flood = Some(reason);
            }
        }
        if let (Some(reason), None) = (flood, &self.farewell) {
            self.refusals.book(&self.peer, reason, None);
            self.bid_farewell(ENHANCE_YOUR_CALM);
        }
    }
}
