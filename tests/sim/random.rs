//! Chance from a seed, and the seeds a test runs with.

use std::time::Duration;

/// SplitMix64: small, and the same everywhere.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// 0 to 1, without 1.
    pub fn share(&mut self) -> f64 {
        (self.word() >> 11) as f64 / (1_u64 << 53) as f64
    }

    pub fn chance(&mut self, probability: f64) -> bool {
        self.share() < probability
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.word() % end
    }

    pub fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.share()
    }

    /// Mean 0, variance 1.
    pub fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.share()).sum::<f64>() - 6.0
    }

    /// Waiting time of something that happens `per_second` times a second.
    pub fn wait(&mut self, per_second: f64) -> Duration {
        Duration::from_secs_f64(-(1.0 - self.share()).ln() / per_second)
    }
}

struct Announce(u64);

impl Drop for Announce {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("failing seed: replay with UNDERSTUDY_SEED={}", self.0);
        }
    }
}

/// Runs the test with a seed, and says which it was should it fail.
pub fn announced(seed: u64, test: impl FnOnce(u64)) {
    let _announce = Announce(seed);
    test(seed);
}

/// Runs the test once per seed, or once with the seed from the environment.
pub fn for_seeds(count: u64, mut test: impl FnMut(u64)) {
    let given = std::env::var("UNDERSTUDY_SEED")
        .ok()
        .map(|seed| seed.parse().expect("UNDERSTUDY_SEED is a number"));
    let seeds = given.map_or(1..=count, |seed| seed..=seed);
    for seed in seeds {
        announced(seed, &mut test);
    }
}
