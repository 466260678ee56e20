//! The answers to writes that came with an idempotency key.
//!
//! In: who asked what under which key, an instant. Out: what was answered. Bounded in number, bytes and time.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::http::{HeaderMap, StatusCode};
use bytes::Bytes;

/// So many answers are kept at most, and so many bytes of them; the oldest go first.
const ANSWERS: usize = 1_000;
const BYTES: usize = 16 * 1024 * 1024;

/// An answer is kept so long at most.
const KEPT: Duration = Duration::from_secs(24 * 60 * 60);

/// What an answer was given to.
pub(super) type Asked = [u8; 32];

/// Whose key, and which.
pub(super) type Holder = (Arc<str>, String);

/// An answer that was given.
#[derive(Clone, Debug)]
pub(super) struct Given {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

#[derive(Debug)]
struct Entry {
    asked: Asked,
    at: Duration,
    /// `None` while it is being worked on.
    given: Option<Given>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Answers(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    entries: HashMap<Holder, Entry>,
    /// Those with an answer, the oldest first.
    order: VecDeque<Holder>,
    bytes: usize,
}

/// What is known of a key.
#[derive(Debug)]
pub(super) enum Found {
    /// It is being worked on.
    Busy,
    /// This was its answer.
    Given(Given),
    /// Nothing; from now on it is being worked on.
    Nothing,
    /// It was sent with something else.
    Other,
}

impl Answers {
    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known of a key; nothing means that it is now being worked on.
    pub fn begin(&self, holder: &Holder, asked: Asked, now: Duration) -> Found {
        let mut kept = self.lock();
        kept.forget(|_, entry| now.saturating_sub(entry.at) > KEPT);
        match kept.entries.get(holder) {
            Some(entry) if entry.asked != asked => return Found::Other,
            Some(Entry { given: Some(given), .. }) => return Found::Given(given.clone()),
            Some(_) => return Found::Busy,
            None => {}
        }
        let entry = Entry {
            asked,
            at: now,
            given: None,
        };
        kept.entries.insert(holder.clone(), entry);
        Found::Nothing
    }

    /// Keeps an answer, or forgets the key where the next attempt may come out otherwise.
    pub fn end(&self, holder: Holder, given: Option<Given>) {
        let mut kept = self.lock();
        let Some(given) = given else {
            kept.entries.remove(&holder);
            return;
        };
        kept.bytes += given.body.len();
        if let Some(entry) = kept.entries.get_mut(&holder) {
            entry.given = Some(given);
            kept.order.push_back(holder);
        }
        let mut excess = kept.order.len().saturating_sub(ANSWERS);
        kept.forget(|bytes, _| {
            let go = excess > 0 || bytes > BYTES;
            excess = excess.saturating_sub(1);
            go
        });
    }
}

impl Kept {
    /// Forgets the oldest answers as long as that is said of them and the bytes that are kept.
    fn forget(&mut self, mut goes: impl FnMut(usize, &Entry) -> bool) {
        while let Some(entry) = self.order.front().and_then(|oldest| self.entries.get(oldest)) {
            if !goes(self.bytes, entry) {
                return;
            }
            self.bytes -= entry.given.as_ref().map_or(0, |given| given.body.len());
            if let Some(oldest) = self.order.pop_front() {
                self.entries.remove(&oldest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(bytes: usize) -> Given {
        Given {
            status: StatusCode::OK,
            headers: HeaderMap::new(),
            body: vec![0; bytes].into(),
        }
    }

    fn holder(n: usize) -> Holder {
        ("ann".into(), n.to_string())
    }

    #[test]
    fn answers_are_bounded_in_number_in_bytes_and_in_time() {
        let answers = Answers::default();
        let now = Duration::from_secs(1);
        for n in 0..=ANSWERS {
            assert!(matches!(answers.begin(&holder(n), [0; 32], now), Found::Nothing));
            answers.end(holder(n), Some(given(10)));
        }
        assert!(matches!(answers.begin(&holder(ANSWERS), [0; 32], now), Found::Given(_)));
        assert!(matches!(answers.begin(&holder(ANSWERS), [1; 32], now), Found::Other));
        assert_eq!(answers.lock().order.len(), ANSWERS);
        for n in 0..3 {
            assert!(matches!(
                answers.begin(&holder(5_000 + n), [0; 32], now),
                Found::Nothing
            ));
            answers.end(holder(5_000 + n), Some(given(BYTES / 2)));
        }
        assert!(answers.lock().bytes <= BYTES && answers.lock().order.len() <= 2);
        let later = now + KEPT + Duration::from_secs(1);
        assert!(matches!(answers.begin(&holder(5_002), [0; 32], later), Found::Nothing));
        assert_eq!(answers.lock().bytes, 0);
    }

    #[test]
    fn key_under_work_is_busy_and_a_failure_is_forgotten() {
        let answers = Answers::default();
        assert!(matches!(
            answers.begin(&holder(1), [0; 32], Duration::ZERO),
            Found::Nothing
        ));
        assert!(matches!(
            answers.begin(&holder(1), [0; 32], Duration::ZERO),
            Found::Busy
        ));
        answers.end(holder(1), None);
        assert!(matches!(
            answers.begin(&holder(1), [0; 32], Duration::ZERO),
            Found::Nothing
        ));
    }
}
