//! Which flags are killed, as an evaluation asks it: of the flag itself, and of the flags that it asks in turn.
//!
//! Pure. `live` makes one whenever a kill changes something, and shares it without a lock.

use super::FlagRef;

const NONE: FlagKills = FlagKills {
    everything: false,
    words: Vec::new(),
};

/// The killed flags of one [`Flags`](super::Flags).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FlagKills {
    everything: bool,
    /// One bit per flag, by its position; short where the rest is not killed.
    words: Vec<u64>,
}

impl FlagKills {
    /// Nothing is killed.
    pub const NONE: &'static Self = &NONE;

    /// `everything`, and the flags at these places among [`Flags::iter`](super::Flags::iter).
    pub fn collect(everything: bool, killed: impl IntoIterator<Item = usize>) -> Self {
        let mut words = Vec::new();
        for at in killed {
            let word = at / 64;
            if words.len() <= word {
                words.resize(word + 1, 0);
            }
            words[word] |= 1 << (at % 64);
        }
        Self { everything, words }
    }

    /// Whether this flag is killed, by itself or with everything.
    #[must_use]
    pub fn has(&self, at: FlagRef) -> bool {
        let word = self.words.get(at.index() / 64).copied().unwrap_or_default();
        self.everything || word >> (at.index() % 64) & 1 == 1
    }

    /// Whether everything is killed.
    #[must_use]
    pub const fn everything(&self) -> bool {
        self.everything
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_the_named_flags_are_killed() {
        let kills = FlagKills::collect(false, [0, 63, 64, 200]);
        let killed: Vec<u32> = (0..300).filter(|at| kills.has(FlagRef(*at))).collect();
        assert_eq!(killed, [0, 63, 64, 200]);
        assert!(!FlagKills::NONE.has(FlagRef(0)));
        assert!(FlagKills::collect(true, []).has(FlagRef(7)));
    }
}
