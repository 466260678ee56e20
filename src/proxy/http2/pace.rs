//! The limit on a client that does not take its answer, for one stream of HTTP/2.
//!
//! A connection over HTTP/1 that nobody reads blocks in writing. A stream waits for the client to allow more, silently:
//! so the limit runs from the moment that the library has a frame of the answer until it asks for the next one.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::proxy::answer::Answer;
use crate::proxy::sweep::{Deadline, Sweep};

/// One stream's deadline.
#[derive(Debug)]
pub(super) struct Pace {
    deadline: Deadline,
    limit: Duration,
}

/// The client did not take its answer in time.
#[derive(Debug)]
pub(super) struct TooSlow;

impl Pace {
    pub(super) fn new(sweep: &Arc<Sweep>, limit: Duration) -> Arc<Self> {
        Arc::new(Self {
            deadline: sweep.unset(),
            limit,
        })
    }
}

/// Runs a stream to its end, or until its client has been too slow.
pub(super) async fn run(stream: impl Future<Output = ()>, pace: Option<Arc<Pace>>) -> Result<(), TooSlow> {
    let mut stream = pin!(stream);
    poll_fn(|cx| {
        if stream.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Ok(()));
        }
        match &pace {
            Some(pace) => pace.deadline.poll_due(cx).map(|()| Err(TooSlow)),
            None => Poll::Pending,
        }
    })
    .await
}

/// An answer whose frames the client has to take in time.
#[derive(Debug)]
pub(super) struct Paced {
    answer: Answer,
    pace: Arc<Pace>,
}

impl Paced {
    pub(super) fn new(answer: Answer, pace: Arc<Pace>) -> Self {
        Self { answer, pace }
    }
}

impl Body for Paced {
    type Data = Bytes;
    type Error = <Answer as Body>::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let polled = Pin::new(&mut self.answer).poll_frame(cx);
        // While the backend has nothing, it is not the client's turn.
        match polled {
            Poll::Ready(_) => self.pace.deadline.set(self.pace.limit),
            Poll::Pending => self.pace.deadline.clear(),
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.answer.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.answer.size_hint()
    }
}
