//! A backend's answer on its way to the client: streamed, watched, and kept as far as it is to be compared.
//!
//! The client gets every frame before anybody else looks at it. What the answer came to is told exactly once, at its
//! end, at its breaking off, or when the client leaves.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::access::{self, Line};
use super::client::Turn;
use super::forward;
use super::pair::Pair;
use super::upstream::Lease;
use crate::engine::guard::{Failure, Run};
use crate::engine::vocab::Side;
use crate::live::budget::Hold;
use crate::live::intake::KeptAnswer;
use crate::live::tally::RunFailure;

/// The body of an answer to a client.
#[derive(Debug)]
pub enum Answer {
    /// Ours, in one piece.
    Made(Option<Bytes>, Finish),
    /// A backend's.
    Relayed(Box<Relay>),
}

/// Tells the connection that its request is over, however it ends.
#[derive(Debug)]
pub struct Finish(pub Arc<Turn>);

impl Drop for Finish {
    fn drop(&mut self) {
        self.0.request_ended();
    }
}

/// Why a backend's answer ended before its end.
#[derive(Debug, thiserror::Error)]
pub enum Cut {
    /// The backend broke off, or framed it wrongly.
    #[error("the answer broke off")]
    Broken(#[source] hyper::Error),
    /// The backend stopped sending, without an error and before the end.
    #[error("the answer ended before its end")]
    Short,
    /// The backend paused for longer than `body_idle`.
    #[error("the answer stopped arriving")]
    Paused,
}

/// A backend's answer under way.
#[derive(Debug)]
pub struct Relay {
    incoming: Incoming,
    lease: Option<Lease>,
    watch: Option<Watch>,
    // Whether it goes without a body under a length that stays.
    keeps_length: bool,
    line: Option<Box<Line>>,
    finish: Finish,
}

/// Who is told what a run came to.
#[derive(Debug)]
pub struct Watch {
    /// The exchange.
    pub pair: Arc<Pair>,
    /// The worker's counters.
    pub shard: usize,
    /// The side that answers.
    pub side: Side,
    /// Whether it answers in place of the side that was to.
    pub failover: bool,
    /// The status it gave.
    pub status: StatusCode,
    /// How long its headers took.
    pub latency: Duration,
    /// What is kept of it.
    pub keep: Option<Box<Keep>>,
}

/// An answer being kept.
#[derive(Debug)]
pub struct Keep {
    /// Its headers.
    pub headers: HeaderMap,
    /// What has arrived.
    pub body: Kept,
    /// The memory it takes.
    pub hold: Hold,
    /// The most that is kept.
    pub cap: usize,
}

/// A body being kept.
#[derive(Debug)]
pub enum Kept {
    /// Its frames so far.
    Frames(Vec<Bytes>, usize),
    /// It grew over the cap.
    TooLong,
    /// There was no memory for it.
    NoMemory,
}

impl Keep {
    /// Adds a frame, or gives up.
    pub fn frame(&mut self, frame: &Bytes) {
        if let Kept::Frames(frames, len) = &mut self.body {
            if *len + frame.len() > self.cap {
                self.body = Kept::TooLong;
            } else if !self.hold.grow(frame.len()) {
                self.body = Kept::NoMemory;
            } else {
                *len += frame.len();
                frames.push(frame.clone());
            }
        }
    }

    /// The answer as it is compared; `None` when there was no memory for it.
    #[must_use]
    pub fn finish(self, status: u16) -> Option<Box<KeptAnswer>> {
        let body = match self.body {
            Kept::Frames(frames, len) => Some(match <[Bytes; 1]>::try_from(frames) {
                Ok([one]) => one,
                Err(many) => {
                    let mut all = BytesMut::with_capacity(len);
                    many.iter().for_each(|frame| all.extend_from_slice(frame));
                    all.freeze()
                }
            }),
            Kept::TooLong => None,
            Kept::NoMemory => return None,
        };
        Some(Box::new(KeptAnswer {
            status,
            headers: self.headers,
            body,
            hold: self.hold,
        }))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Complete,
    Cut,
    ClientLeft,
}

impl Watch {
    fn end(self, end: End) {
        let Watch {
            pair,
            shard,
            side,
            failover,
            status,
            latency,
            keep,
        } = self;
        let mut run = Run::answered(status.as_u16(), latency);
        let tally = pair.route.tally(shard);
        match end {
            End::Complete => {}
            End::Cut => {
                run.failure = Some(Failure::Transport);
                tally.failed[side.index()].add(RunFailure::Cut);
            }
            End::ClientLeft => run.cancelled = true,
        }
        if failover {
            pair.failed_over(run);
            return;
        }
        let answer = keep
            .filter(|_| end == End::Complete)
            .and_then(|keep| keep.finish(status.as_u16()));
        pair.served(run, answer);
    }
}

impl Relay {
    /// Streams `incoming`; `watch` is told what it came to.
    #[must_use]
    pub fn new(incoming: Incoming, lease: Lease, watch: Option<Watch>, finish: Finish) -> Self {
        let mut relay = Self {
            incoming,
            lease: Some(lease),
            watch,
            keeps_length: false,
            line: None,
            finish,
        };
        if relay.incoming.is_end_stream() {
            relay.end(End::Complete);
        }
        relay
    }

    /// Lets a `content-length` stand that is not the length of what follows, which is nothing.
    pub const fn keep_length(&mut self) {
        self.keeps_length = true;
    }

    fn end(&mut self, end: End) {
        if end == End::Complete {
            self.finish.0.ends_by_closing(false);
        }
        if let Some(mut line) = self.line.take() {
            line.end = match end {
                End::Complete => access::End::Complete,
                End::Cut => access::End::Cut,
                End::ClientLeft => access::End::ClientLeft,
            };
        }
        if let Some(lease) = self.lease.take()
            && end == End::Complete
        {
            lease.give_back();
        }
        if let Some(watch) = self.watch.take() {
            watch.end(end);
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.end(End::ClientLeft);
    }
}

impl Answer {
    /// Has the end of this answer told to the access log.
    pub fn log(&mut self, mut line: Box<Line>) {
        match self {
            Answer::Made(body, _) => {
                line.bytes_out = body.as_ref().map_or(0, |body| body.len() as u64);
                line.end = access::End::Complete;
            }
            Answer::Relayed(relay) if relay.watch.is_none() => line.end = access::End::Complete,
            Answer::Relayed(relay) => relay.line = Some(line),
        }
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        let relay = match self.get_mut() {
            Answer::Made(body, _) => return Poll::Ready(body.take().map(|bytes| Ok(Frame::data(bytes)))),
            Answer::Relayed(relay) => relay,
        };
        let Poll::Ready(mut polled) = Pin::new(&mut relay.incoming).poll_frame(cx) else {
            let paused = relay.lease.as_mut().map(|lease| lease.poll_paused(cx));
            if paused != Some(Poll::Ready(())) {
                return Poll::Pending;
            }
            relay.end(End::Cut);
            return Poll::Ready(Some(Err(Cut::Paused)));
        };
        if let Some(lease) = &mut relay.lease {
            lease.resumed();
        }
        match &mut polled {
            Some(Ok(frame)) => {
                if let Some(trailers) = frame.trailers_mut() {
                    forward::prepare_trailers(trailers);
                }
                if let (Some(data), Some(line)) = (frame.data_ref(), &mut relay.line) {
                    line.bytes_out += data.len() as u64;
                }
                if let (Some(data), Some(watch)) = (frame.data_ref(), &mut relay.watch)
                    && let Some(keep) = &mut watch.keep
                {
                    keep.frame(data);
                }
                // Whoever knows its length asks for no frame after the last one.
                if relay.incoming.is_end_stream() {
                    relay.end(End::Complete);
                }
            }
            Some(Err(_)) => relay.end(End::Cut),
            // A stream that is reset without an error has no end of its own, and must not be given one.
            None if relay.lease.as_ref().is_some_and(Lease::is_shared) && !relay.incoming.is_end_stream() => {
                relay.end(End::Cut);
                return Poll::Ready(Some(Err(Cut::Short)));
            }
            None => relay.end(End::Complete),
        }
        Poll::Ready(polled.map(|frame| frame.map_err(Cut::Broken)))
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Answer::Made(body, _) => body.is_none(),
            Answer::Relayed(relay) => relay.incoming.is_end_stream() && !relay.keeps_length,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Answer::Made(body, _) => SizeHint::with_exact(body.as_ref().map_or(0, |b| b.len() as u64)),
            Answer::Relayed(relay) if relay.keeps_length => SizeHint::default(),
            Answer::Relayed(relay) => relay.incoming.size_hint(),
        }
    }
}
