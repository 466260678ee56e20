//! Coarse deadlines: one table per worker, looked over every [`TICK`], in place of a timer per request.
//!
//! A timer of the runtime costs as much as deciding a request; nobody needs a timeout of ten seconds to the
//! millisecond. A deadline never fires early and at most one tick (and the worker's own delay) late.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior};

/// How often the table is looked over.
pub const TICK: Duration = Duration::from_millis(TICK_MS);

const TICK_MS: u64 = 50;

const NEVER: u64 = u64::MAX;

/// The deadlines of one worker.
#[derive(Debug, Default)]
pub struct Sweep {
    now_ms: AtomicU64,
    slots: Mutex<Slots>,
}

#[derive(Debug, Default)]
struct Slots {
    entries: Vec<Slot>,
    free: Vec<usize>,
}

#[derive(Debug)]
struct Slot {
    due_ms: u64,
    // The last look before it was set.
    set_ms: u64,
    waker: Option<Waker>,
}

impl Sweep {
    /// An empty table. Nothing in it falls due until [`Sweep::run`] is polled.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Looks the table over for ever; calls `each_tick` after every look.
    pub async fn run(self: Arc<Self>, mut each_tick: impl FnMut() + Send) {
        let mut interval = tokio::time::interval(TICK);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let start = interval.tick().await;
        loop {
            interval.tick().await;
            // Not when it was to tick, which was long ago if the worker was busy.
            let now = Instant::now().duration_since(start);
            self.turn(u64::try_from(now.as_millis()).unwrap_or(NEVER - 1));
            each_tick();
        }
    }

    fn turn(&self, now_ms: u64) {
        let mut due = Vec::new();
        let mut slots = self.lock();
        let before_ms = self.now_ms.swap(now_ms, Relaxed);
        // Whatever was set since then may have been set just now.
        let late_ms = now_ms.saturating_sub(before_ms).saturating_sub(TICK_MS);
        for slot in &mut slots.entries {
            if slot.set_ms == before_ms {
                slot.due_ms = slot.due_ms.saturating_add(late_ms);
            }
            if slot.due_ms <= now_ms
                && let Some(waker) = slot.waker.take()
            {
                due.push(waker);
            }
        }
        drop(slots);
        due.into_iter().for_each(Waker::wake);
    }

    /// A deadline this long from now.
    #[must_use]
    pub fn deadline(self: &Arc<Self>, after: Duration) -> Deadline {
        let mut slots = self.lock();
        let (set_ms, due_ms) = self.due(after);
        let at = if let Some(at) = slots.free.pop() {
            slots.entries[at].set_ms = set_ms;
            slots.entries[at].due_ms = due_ms;
            at
        } else {
            slots.entries.push(Slot {
                due_ms,
                set_ms,
                waker: None,
            });
            slots.entries.len() - 1
        };
        drop(slots);
        Deadline {
            sweep: Arc::clone(self),
            at,
        }
    }

    /// A deadline that is never due until it is [set](Deadline::set).
    #[must_use]
    pub fn unset(self: &Arc<Self>) -> Deadline {
        self.deadline(Duration::MAX)
    }

    /// Milliseconds since the start, as of the last look.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        self.now_ms.load(Relaxed)
    }

    // The last look, and a tick and a begun millisecond more than `after` from it: so much may have passed since then,
    // and a look that comes later than that adds what it is late. A deadline never fires early.
    fn due(&self, after: Duration) -> (u64, u64) {
        let after = u64::try_from(after.as_millis()).unwrap_or(NEVER);
        let set_ms = self.now_ms();
        (set_ms, set_ms.saturating_add(after).saturating_add(TICK_MS + 1))
    }

    fn lock(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One deadline; resolves when it is due. Dropping it takes it off the table.
#[derive(Debug)]
pub struct Deadline {
    sweep: Arc<Sweep>,
    at: usize,
}

impl Deadline {
    /// Moves it to this long from now.
    pub fn set(&self, after: Duration) {
        let mut slots = self.sweep.lock();
        let slot = &mut slots.entries[self.at];
        (slot.set_ms, slot.due_ms) = self.sweep.due(after);
    }

    /// Milliseconds since the start, as of the last look.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        self.sweep.now_ms()
    }

    /// Makes it never due.
    pub fn clear(&self) {
        self.set(Duration::MAX);
    }

    /// Whether it is due; if not, the task is woken when it is.
    pub fn poll_due(&self, cx: &mut Context<'_>) -> Poll<()> {
        let now_ms = self.sweep.now_ms.load(Relaxed);
        let slot = &mut self.sweep.lock().entries[self.at];
        if slot.due_ms <= now_ms {
            return Poll::Ready(());
        }
        match &slot.waker {
            Some(waker) if waker.will_wake(cx.waker()) => {}
            _ => slot.waker = Some(cx.waker().clone()),
        }
        Poll::Pending
    }
}

impl Future for Deadline {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_due(cx)
    }
}

impl Drop for Deadline {
    fn drop(&mut self) {
        let mut slots = self.sweep.lock();
        let slot = &mut slots.entries[self.at];
        slot.due_ms = NEVER;
        slot.waker = None;
        slots.free.push(self.at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use std::pin::pin;

    fn started() -> Arc<Sweep> {
        let sweep = Sweep::new();
        drop(crate::telemetry::spawn::task("sweep", Arc::clone(&sweep).run(|| ())));
        sweep
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_fires_on_time_and_never_early() {
        let sweep = started();
        tokio::task::yield_now().await;
        for ms in [1_u64, 49, 50, 51, 999, 10_000] {
            let before = tokio::time::Instant::now();
            sweep.deadline(Duration::from_millis(ms)).await;
            let took = before.elapsed();
            assert!(took >= Duration::from_millis(ms), "{ms}: {took:?}");
            assert!(took <= Duration::from_millis(ms) + 3 * TICK, "{ms}: {took:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_that_is_set_while_a_look_is_late_does_not_fire_early() {
        let sweep = started();
        let moved = sweep.unset();
        tokio::time::sleep(10 * TICK).await;
        for busy_ms in [1_u64, 49, 51, 99, 190, 1_000] {
            // As of one who was busy for so long, and comes to set it before the look that is overdue.
            let mut busy = pin!(tokio::time::advance(Duration::from_millis(busy_ms)));
            let mut deadline = None;
            poll_fn(|cx| {
                assert!(busy.as_mut().poll(cx).is_pending());
                moved.set(Duration::from_millis(100));
                deadline = Some((Instant::now(), sweep.deadline(Duration::from_millis(100))));
                Poll::Ready(())
            })
            .await;
            let (before, deadline) = deadline.unwrap();
            deadline.await;
            let took = before.elapsed();
            assert!(took >= Duration::from_millis(100), "{busy_ms}: {took:?}");
            assert!(
                took <= Duration::from_millis(100 + busy_ms) + 2 * TICK,
                "{busy_ms}: {took:?}"
            );
            let due = poll_fn(|cx| Poll::Ready(moved.poll_due(cx))).await;
            assert!(due.is_ready(), "the one that was moved is due at the same time");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_that_is_moved_fires_at_its_new_time_only() {
        let sweep = started();
        let deadline = sweep.deadline(Duration::from_secs(1));
        let before = tokio::time::Instant::now();
        poll_fn(|cx| {
            assert!(deadline.poll_due(cx).is_pending());
            Poll::Ready(())
        })
        .await;
        deadline.set(Duration::from_secs(5));
        deadline.await;
        assert!(before.elapsed() >= Duration::from_secs(5));
    }

    #[tokio::test(start_paused = true)]
    async fn places_are_used_again() {
        let sweep = started();
        for _ in 0..1_000 {
            drop(sweep.deadline(Duration::from_secs(1)));
        }
        assert_eq!(sweep.lock().entries.len(), 1);
    }
}
