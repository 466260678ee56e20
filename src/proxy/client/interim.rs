//! Interim answers (1xx) on their way to a client over HTTP/1.1, which the library cannot write.
//!
//! They go out between two writes of the library: it has written all of the last answer, or the client is slow and gets
//! none, and it writes nothing of the next before the final one is known.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Waker;

/// The most bytes that wait for a client. Interim answers may be left out, and a backend that floods with them must not
/// fill the memory.
const WAITING_BYTES: usize = 64 << 10;

/// What waits to be written to one client.
#[derive(Debug, Default)]
pub(super) struct Interim {
    any: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    bytes: Vec<u8>,
    task: Option<Waker>,
}

impl Interim {
    /// From now on this task is woken when there is something to write.
    pub(super) fn wakes(&self, task: Waker) {
        self.lock().task = Some(task);
    }

    /// Queues a whole interim answer, as far as there is room.
    pub(super) fn push(&self, answer: &[u8]) {
        let mut state = self.lock();
        if state.bytes.len() + answer.len() > WAITING_BYTES {
            return;
        }
        state.bytes.extend_from_slice(answer);
        self.any.store(true, Relaxed);
        let task = state.task.clone();
        drop(state);
        if let Some(task) = task {
            task.wake();
        }
    }

    pub(super) fn any(&self) -> bool {
        self.any.load(Relaxed)
    }

    /// What is to be written, for `write` to take as much of it as it can.
    pub(super) fn write<T>(&self, write: impl FnOnce(&mut Vec<u8>) -> T) -> T {
        let mut state = self.lock();
        let written = write(&mut state.bytes);
        self.any.store(!state.bytes.is_empty(), Relaxed);
        written
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
