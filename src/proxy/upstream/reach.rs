//! Getting a connection to whichever replica gives one first.
//!
//! A replica that refuses costs a request one round trip, one that does not answer [`STEP`]: then the next one is tried
//! beside it, and it is out of service until it is found to answer. Nothing has been sent meanwhile, so this holds for
//! every method.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use super::busy::Busy;
use super::connect::{Opened, open};
use super::failure::CallError;
use super::pool::{Pool, Way};
use crate::live::backend::Backend;
use crate::live::service::{Ejected, Pick, Protocol, Service};
use crate::live::tally::RunFailure;
use crate::proxy::sweep::Deadline;
use crate::telemetry::clock;

/// How long one replica is waited for before the next is tried beside it.
const STEP: Duration = Duration::from_millis(250);

type Opening = Pin<Box<dyn Future<Output = Result<Opened, RunFailure>> + Send>>;

/// The attempts of one request.
struct Race<'a> {
    pool: &'a Pool,
    service: &'a Arc<Service>,
    upgradable: bool,
    choice: bool,
    attempts: Vec<(Busy, Opening)>,
    tried: Vec<u64>,
    step: Option<Deadline>,
}

impl Race<'_> {
    fn start(&mut self, busy: Busy) {
        self.tried.push(busy.target.id);
        let (service, target, upgradable) = (Arc::clone(self.service), Arc::clone(&busy.target), self.upgradable);
        let opening = async move { open(&service, &target, upgradable).await };
        self.attempts.push((busy, Box::pin(opening)));
        if self.choice {
            self.step = Some(self.pool.sweep.deadline(STEP));
        }
    }

    fn start_next(&mut self) -> bool {
        let pick = self.service.pick(&self.tried, || self.pool.turn());
        let Pick::One(target, choice) = pick else { return false };
        self.start(Busy::new(target, choice));
        true
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(Busy, Opened), RunFailure>> {
        loop {
            let mut failure = None;
            let mut at = 0;
            while let Some((_, opening)) = self.attempts.get_mut(at) {
                match opening.as_mut().poll(cx) {
                    Poll::Pending => at += 1,
                    Poll::Ready(Ok(opened)) => {
                        let (busy, _) = self.attempts.swap_remove(at);
                        self.service.connected(&busy.target, clock::monotonic());
                        return Poll::Ready(Ok((busy, opened)));
                    }
                    // It is we who cannot: nobody else would be reached either.
                    Poll::Ready(Err(RunFailure::Local)) => return Poll::Ready(Err(RunFailure::Local)),
                    Poll::Ready(Err(why)) => {
                        let (busy, _) = self.attempts.swap_remove(at);
                        self.service.failed(&busy.target, ejected(why), clock::monotonic());
                        failure = Some(why);
                    }
                }
            }
            if self.step.as_ref().is_some_and(|step| step.poll_due(cx).is_ready()) {
                self.step = None;
                let slow = self.attempts.last().map(|(busy, _)| Arc::clone(&busy.target));
                if self.start_next() {
                    if let Some(slow) = slow {
                        self.service.failed(&slow, Ejected::Timeout, clock::monotonic());
                    }
                    continue;
                }
            }
            if let Some(why) = failure {
                if self.start_next() {
                    continue;
                }
                if self.attempts.is_empty() {
                    return Poll::Ready(Err(why));
                }
            }
            return Poll::Pending;
        }
    }
}

impl Pool {
    /// A connection to `first` that is for this request alone or has a place for it, or to another replica if that one
    /// gives none.
    ///
    /// # Errors
    /// [`CallError`]: nothing was sent.
    pub(super) async fn way(
        &self,
        backend: &Backend,
        first: Busy,
        repeatable: bool,
        total: Option<&Deadline>,
        upgradable: bool,
    ) -> Result<(Busy, Way), CallError> {
        let spec = &backend.service.spec;
        let two = match spec.protocol {
            Protocol::Auto => spec.tls.is_some() && first.target.may_speak_two(),
            Protocol::One => false,
            Protocol::Two => true,
        };
        if !two || upgradable {
            let (busy, opened) = self.reach(backend, first, total, upgradable).await?;
            return Ok(self.enter(busy, opened));
        }
        // One connection is for many: whoever comes while it is opened waits for it.
        let opening = self.opening(&first.target);
        let turn = within(backend.connect_timeout, total, opening.lock()).await;
        let Some(_turn) = turn else {
            return Err(CallError::before(RunFailure::Connect, true));
        };
        if let Some(way) = self.take(&first.target, repeatable) {
            return Ok((first, way));
        }
        let (busy, opened) = self.reach(backend, first, total, false).await?;
        Ok(self.enter(busy, opened))
    }

    fn enter(&self, busy: Busy, opened: Opened) -> (Busy, Way) {
        match opened {
            Opened::One(connection) => (busy, Way::One(connection)),
            Opened::Two(two) => {
                let stream = two.first();
                self.share(&busy.target, &two);
                (busy, Way::Two(stream))
            }
        }
    }

    /// A new connection to `first`, or to another replica if that one gives none.
    ///
    /// # Errors
    /// [`CallError`]: nothing was sent.
    async fn reach(
        &self,
        backend: &Backend,
        first: Busy,
        total: Option<&Deadline>,
        upgradable: bool,
    ) -> Result<(Busy, Opened), CallError> {
        let mut race = Race {
            pool: self,
            service: &backend.service,
            upgradable,
            choice: first.is_counted(),
            attempts: Vec::new(),
            tried: Vec::new(),
            step: None,
        };
        race.start(first);
        let reached = within(backend.connect_timeout, total, poll_fn(|cx| race.poll(cx))).await;
        match reached {
            Some(Ok(reached)) => Ok(reached),
            Some(Err(failure)) => Err(CallError::before(failure, false)),
            None => {
                for (busy, _) in &race.attempts {
                    backend
                        .service
                        .failed(&busy.target, Ejected::Timeout, clock::monotonic());
                }
                Err(CallError::before(RunFailure::Connect, true))
            }
        }
    }
}

/// Why a replica is taken out of service that could not be connected to.
pub(super) fn ejected(why: RunFailure) -> Ejected {
    match why {
        RunFailure::Tls => Ejected::Tls,
        _ => Ejected::Connect,
    }
}

/// What comes in time, by the runtime's clock and by a deadline of the caller's.
pub(super) async fn within<T>(limit: Duration, total: Option<&Deadline>, future: impl Future<Output = T>) -> Option<T> {
    let mut future = std::pin::pin!(tokio::time::timeout(limit, future));
    poll_fn(|cx| {
        if let Poll::Ready(done) = future.as_mut().poll(cx) {
            return Poll::Ready(done.ok());
        }
        match total.map(|total| total.poll_due(cx)) {
            Some(Poll::Ready(())) => Poll::Ready(None),
            _ => Poll::Pending,
        }
    })
    .await
}
