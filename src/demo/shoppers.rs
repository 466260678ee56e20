//! The simulated shoppers, and the dice that decide what they do.
//!
//! Pure. Every number comes from a range that is set aside for fiction; every run throws the same dice.

use crate::engine::flags::{Bucket, Threshold};

/// Seeds the dice: the same shoppers say the same things in every run.
pub const SEED: u64 = 0x5eed_0f7e_57ca_5e00;

/// Numbers drawn from a seed (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014).
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// Dice that fall the same way for the same seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub const fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`; 0 if `n` is 0.
    pub fn below(&mut self, n: usize) -> usize {
        let n = u64::try_from(n).unwrap_or(u64::MAX).max(1);
        usize::try_from(self.roll() % n).unwrap_or_default()
    }
}

/// Somebody who writes to the shop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shopper {
    /// The telephone number, digits only: the subject that flags decide about.
    pub number: String,
    /// The name of the profile.
    pub name: &'static str,
    /// Whether this one only writes, taps and chooses: a colleague who tests, and neither orders nor sends pictures.
    pub tester: bool,
}

/// The test shopper of the staging phase.
pub const TESTER: &str = "14155550142";
/// The shoppers of the canary phase.
pub const CANARIES: [&str; 3] = ["14155550101", "14155550102", "14155550103"];

const NAMES: [&str; 12] = [
    "Élodie Martin",
    "Sam Lee",
    "Noor Haddad",
    "André Lefèvre",
    "Ana Souza",
    "Chloé Petit",
    "Tom Baker",
    "Mina Sato",
    "José Reyes",
    "Ida Holm",
    "Lea Klein",
    "Omar Diallo",
];

/// Everybody who writes to the shop: the tester first, then the canaries, then the others.
#[must_use]
pub fn population(others: usize) -> Vec<Shopper> {
    let name = |at: usize| NAMES.get(at % NAMES.len()).copied().unwrap_or("Sam Lee");
    let tester = Shopper {
        number: TESTER.to_owned(),
        name: "Sam Lee",
        tester: true,
    };
    let canaries = CANARIES.iter().enumerate();
    let canaries = canaries.map(|(at, number)| Shopper {
        number: (*number).to_owned(),
        name: name(at),
        tester: false,
    });
    let others = (0..others).map(|at| Shopper {
        number: format!("3363998{:04}", (at * 31) % 10_000),
        name: name(at),
        tester: false,
    });
    std::iter::once(tester).chain(canaries).chain(others).collect()
}

/// Whether a percentage of `flag` takes this subject, computed beside the product, to check it.
#[must_use]
pub fn taken(number: &str, flag: &str, percent: u32) -> bool {
    Threshold::from_buckets(percent.saturating_mul(10_000)).takes(Bucket::of(number, flag))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn everybody_has_a_number_of_their_own() {
        let all = population(300);
        let numbers: BTreeSet<&str> = all.iter().map(|shopper| shopper.number.as_str()).collect();
        assert_eq!(numbers.len(), 304);
        assert!(all.iter().all(|shopper| shopper.number.len() == 11));
    }

    #[test]
    fn dice_fall_the_same_way_for_the_same_seed() {
        let throw = |seed| {
            let mut dice = Dice::new(seed);
            (0..20).map(|_| dice.below(6)).collect::<Vec<_>>()
        };
        assert_eq!(throw(SEED), throw(SEED));
        assert_ne!(throw(SEED), throw(SEED + 1));
        assert!(throw(SEED).iter().all(|face| *face < 6));
    }
}
