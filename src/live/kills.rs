//! The kill switches in memory: set here first, obeyed by the next decision, stored afterwards.
//!
//! A worker reads one word per request. It is written only by a kill, a re-arm or a new ruleset, always under the one
//! lock that guards the set, so that no order of these can leave a word behind the set.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use arc_swap::{ArcSwap, Guard};
use tokio::sync::watch;

use crate::engine::decide::KillBits;
use crate::engine::flags::{FlagKills, Flags};
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

/// What is killed of the flags of one ruleset: for whoever asks a flag by its name, and for flags that ask others.
#[derive(Debug)]
pub struct FlagWord {
    /// In the order of the flags.
    keys: Box<[FlagKey]>,
    kills: ArcSwap<FlagKills>,
}

impl FlagWord {
    /// What is killed now. Loaded once per request or evaluation, and carried along.
    #[must_use]
    pub fn load(&self) -> Guard<Arc<FlagKills>> {
        self.kills.load()
    }

    fn write(&self, set: &KillSet, no_state: bool) {
        let places = set.killed_flags().filter_map(|key| self.keys.binary_search(key).ok());
        let kills = FlagKills::collect(set.everything_killed() || no_state, places);
        self.kills.store(Arc::new(kills));
    }
}

/// The flags that a route asks, by the part they play.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Uses {
    /// Who is served by new.
    pub flag: Option<FlagKey>,
    /// Who is copied.
    pub shadow: Option<FlagKey>,
    /// Whose runs are compared.
    pub dual_run: Option<FlagKey>,
    /// Whether copies replace serving.
    pub shadow_mode: Option<FlagKey>,
    /// Those that `flag` asks in turn.
    pub asked_by_flag: Vec<FlagKey>,
    /// Those that the other three ask in turn.
    pub asked_by_others: Vec<FlagKey>,
}

/// A word that somebody may still read, and what it is about.
#[derive(Debug)]
struct Written {
    route: RouteKey,
    uses: Uses,
    word: Weak<KillWord>,
}

#[derive(Debug, Default)]
struct Inner {
    set: KillSet,
    no_state: bool,
    words: Vec<Written>,
    flag_words: Vec<Weak<FlagWord>>,
}

impl Inner {
    fn write_words(&mut self) {
        let Self {
            set,
            no_state,
            words,
            flag_words,
        } = self;
        // Before the words of routes: these say whether anybody has to look here.
        flag_words.retain(|word| match word.upgrade() {
            Some(word) => {
                word.write(set, *no_state);
                true
            }
            None => false,
        });
        words.retain(|written| match written.word.upgrade() {
            Some(word) => {
                write(&word, set, *no_state, &written.route, &written.uses);
                true
            }
            None => false,
        });
    }
}

fn write(word: &KillWord, set: &KillSet, no_state: bool, route: &RouteKey, uses: &Uses) {
    let flag_killed = |flag: &Option<FlagKey>| flag.as_ref().is_some_and(|flag| set.flag_killed(flag));
    let any_killed = |flags: &[FlagKey]| flags.iter().any(|flag| set.flag_killed(flag));
    let facts = [
        (KillBits::EVERYTHING, set.everything_killed()),
        (KillBits::ROUTE, set.route_killed(route)),
        (KillBits::FLAG, flag_killed(&uses.flag)),
        (KillBits::SHADOW, flag_killed(&uses.shadow)),
        (KillBits::DUAL_RUN, flag_killed(&uses.dual_run)),
        (KillBits::SHADOW_MODE, flag_killed(&uses.shadow_mode)),
        (KillBits::NO_STATE, no_state),
        (KillBits::ASKED_BY_FLAG, any_killed(&uses.asked_by_flag)),
        (KillBits::ASKED_BY_OTHERS, any_killed(&uses.asked_by_others)),
    ];
    let set_bits = facts.into_iter().filter(|(_, is_set)| *is_set);
    let bits = set_bits.fold(KillBits::NONE, |bits, (bit, _)| bits.with(bit));
    let held: HashSet<SubjectHash> = set.held(route).collect();
    word.some_held.store(!held.is_empty(), Ordering::Release);
    word.held.store(Arc::new(held));
    word.epoch.store(set.epoch(route).0, Ordering::Release);
    word.bits.store(bits.bits(), Ordering::Release);
}

/// All kill switches of this instance.
#[derive(Debug)]
pub struct Switchboard {
    inner: Mutex<Inner>,
    changed: watch::Sender<u64>,
}

impl Default for Switchboard {
    fn default() -> Self {
        Self {
            inner: Mutex::default(),
            changed: watch::Sender::new(0),
        }
    }
}

impl Switchboard {
    /// The word of a route that asks these flags.
    ///
    /// One for each set of flags, and written for as long as anybody holds it: a request that began under earlier rules
    /// decides by them, and must obey a kill of the flags that those rules ask.
    pub fn word(&self, route: &RouteKey, uses: Uses) -> Arc<KillWord> {
        let mut inner = self.lock();
        let known = inner
            .words
            .iter()
            .find(|written| written.route == *route && written.uses == uses);
        if let Some(word) = known.and_then(|written| written.word.upgrade()) {
            return word;
        }
        let word = Arc::new(KillWord::default());
        write(&word, &inner.set, inner.no_state, route, &uses);
        inner.words.push(Written {
            route: route.clone(),
            uses,
            word: Arc::downgrade(&word),
        });
        word
    }

    /// The word of these flags, written for as long as anybody holds it.
    pub fn flag_word(&self, flags: &Flags) -> Arc<FlagWord> {
        let mut inner = self.lock();
        let word = Arc::new(FlagWord {
            keys: flags.iter().map(|(_, flag)| flag.key.clone()).collect(),
            kills: ArcSwap::default(),
        });
        word.write(&inner.set, inner.no_state);
        inner.flag_words.retain(|word| word.strong_count() > 0);
        inner.flag_words.push(Arc::downgrade(&word));
        word
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::flags::Flag;
    use crate::engine::guard::KillTarget;
    use crate::engine::vocab::Revision;

    fn key(text: &str) -> FlagKey {
        FlagKey::parse(text).expect("a key")
    }

    #[test]
    fn kill_of_a_flag_reaches_whoever_asks_it_in_turn_before_the_kill_returns() {
        let board = Switchboard::default();
        let flags = Flags::new(
            vec![Flag::unknown(key("base")), Flag::unknown(key("f"))],
            true,
            Revision(1),
        );
        let base = flags.find("base").expect("a flag");
        let flag_word = board.flag_word(&flags);
        let uses = Uses {
            flag: Some(key("f")),
            asked_by_flag: vec![key("base")],
            ..Uses::default()
        };
        let route = RouteKey::parse("r").expect("a key");
        let word = board.word(&route, uses);
        assert_eq!((word.bits(), flag_word.load().has(base)), (KillBits::NONE, false));

        let flag = KillTarget::Flag(key("base"));
        board.change(|set| set.kill(flag.clone(), "test", "somebody", 1));
        assert_eq!(
            (word.bits(), flag_word.load().has(base)),
            (KillBits::ASKED_BY_FLAG, true)
        );
        assert!(
            board.flag_word(&flags).load().has(base),
            "a later ruleset sees it from its first request on"
        );

        board.change(|set| set.rearm(&flag, "test", "somebody", 2));
        assert_eq!((word.bits(), flag_word.load().has(base)), (KillBits::NONE, false));
        board.state_unreadable();
        assert!(flag_word.load().everything(), "nobody knows what was killed");
    }
}
