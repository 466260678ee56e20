//! The kill switches in memory: set here first, obeyed by the next decision, stored afterwards.
//!
//! A worker reads one word per request. It is written only by a kill, a re-arm or a new ruleset, always under the one
//! lock that guards the set, so that no order of these can leave a word behind the set.

use std::collections::HashMap;
use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use tokio::sync::watch;

use crate::engine::decide::KillBits;
use crate::engine::guard::KillSet;
use crate::engine::vocab::{Epoch, FlagKey, RouteKey, SubjectHash};

/// What is killed of one route, as workers see it.
#[derive(Debug, Default)]
pub struct KillWord {
    bits: AtomicU32,
    epoch: AtomicU64,
    some_held: AtomicBool,
    held: ArcSwap<HashSet<SubjectHash>>,
}

impl KillWord {
    /// What is killed now.
    #[must_use]
    pub fn bits(&self) -> KillBits {
        KillBits::from_bits(self.bits.load(Ordering::Acquire))
    }

    /// The life of the route's kill switch.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        Epoch(self.epoch.load(Ordering::Acquire))
    }

    /// Whether any subject is held on legacy.
    #[must_use]
    pub fn holds_any(&self) -> bool {
        self.some_held.load(Ordering::Acquire)
    }

    /// Whether this subject is held on legacy.
    #[must_use]
    pub fn holds(&self, subject: SubjectHash) -> bool {
        self.holds_any() && self.held.load().contains(&subject)
    }
}

/// The flags that a route asks, by the part they play.
#[derive(Clone, Debug, Default)]
pub struct Uses {
    /// Who is served by new.
    pub flag: Option<FlagKey>,
    /// Who is copied.
    pub shadow: Option<FlagKey>,
    /// Whose runs are compared.
    pub dual_run: Option<FlagKey>,
    /// Whether copies replace serving.
    pub shadow_mode: Option<FlagKey>,
}

#[derive(Debug, Default)]
struct Inner {
    set: KillSet,
    no_state: bool,
    words: HashMap<RouteKey, Arc<KillWord>>,
    uses: HashMap<RouteKey, Uses>,
}

impl Inner {
    fn write_words(&self) {
        for (route, word) in &self.words {
            let uses = self.uses.get(route).cloned().unwrap_or_default();
            let flag_killed = |flag: &Option<FlagKey>| flag.as_ref().is_some_and(|flag| self.set.flag_killed(flag));
            let mut bits = KillBits::default();
            let facts = [
                (KillBits::EVERYTHING, self.set.everything_killed()),
                (KillBits::ROUTE, self.set.route_killed(route)),
                (KillBits::FLAG, flag_killed(&uses.flag)),
                (KillBits::SHADOW, flag_killed(&uses.shadow)),
                (KillBits::DUAL_RUN, flag_killed(&uses.dual_run)),
                (KillBits::SHADOW_MODE, flag_killed(&uses.shadow_mode)),
                (KillBits::NO_STATE, self.no_state),
            ];
            for (bit, set) in facts {
                if set {
                    bits = bits.with(bit);
                }
            }
            let held: HashSet<SubjectHash> = self.set.held(route).collect();
            word.some_held.store(!held.is_empty(), Ordering::Release);
            word.held.store(Arc::new(held));
            word.epoch.store(self.set.epoch(route).0, Ordering::Release);
            word.bits.store(bits.bits(), Ordering::Release);
        }
    }
}

/// All kill switches of this instance.
#[derive(Debug)]
pub struct Switchboard {
    inner: Mutex<Inner>,
    changed: watch::Sender<u64>,
}

impl Default for Switchboard {
    fn default() -> Self {
        Self { inner: Mutex::default(), changed: watch::Sender::new(0) }
    }
}

impl Switchboard {
    /// The word of a route; the same one for every ruleset that has a route of this name.
    #[must_use]
    pub fn word(&self, route: &RouteKey) -> Arc<KillWord> {
        let mut inner = self.lock();
        let word = Arc::clone(inner.words.entry(route.clone()).or_default());
        inner.write_words();
        word
    }

    /// Takes over which flags the routes of a new ruleset ask, and publishes it in the same breath.
    pub fn publish(&self, uses: HashMap<RouteKey, Uses>, publish: impl FnOnce()) {
        let mut inner = self.lock();
        inner.uses = uses;
        inner.write_words();
        publish();
    }

    /// Changes the set; the words follow before this returns, and watchers are woken.
    pub fn change<T>(&self, change: impl FnOnce(&mut KillSet) -> T) -> T {
        let mut inner = self.lock();
        let result = change(&mut inner.set);
        inner.write_words();
        drop(inner);
        self.changed.send_modify(|n| *n += 1);
        result
    }

    /// Reads the set.
    pub fn read<T>(&self, read: impl FnOnce(&KillSet) -> T) -> T {
        read(&self.lock().set)
    }

    /// Nobody knows what was killed: legacy only, until a start that can read the state.
    pub fn state_unreadable(&self) {
        let mut inner = self.lock();
        inner.no_state = true;
        inner.write_words();
    }

    /// Counts the changes of the set.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
