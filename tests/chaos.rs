//! Everything at once, from a seed: load over HTTP/1.1 and HTTP/2, reloads, kills, faults of both backends, floods, and
//! clients that leave.
//!
//! Whatever happens, every client gets exactly one well-formed answer or a closed connection; what legacy answered
//! arrives byte for byte; nothing that acts is sent twice and nothing cut is completed; afterwards the counters add up,
//! and descriptors and memory are back. A failing run prints its seed; `UNDERSTUDY_SEED=<seed> cargo test --test chaos`
//! replays its schedule. `UNDERSTUDY_LONG=1` runs several seeds for minutes each.

#![allow(
    missing_docs,
    clippy::disallowed_methods,
    reason = "tests wait, spawn and read clocks as their clients do"
)]

#[path = "chaos/backend.rs"]
mod backend;
#[path = "chaos/client.rs"]
mod client;
#[path = "chaos/flood.rs"]
mod flood;
#[path = "chaos/promise.rs"]
mod promise;
#[path = "sim/random.rs"]
#[allow(dead_code, reason = "each binary of tests uses its part")]
mod random;
#[path = "chaos/schedule.rs"]
mod schedule;
#[path = "chaos/streams.rs"]
mod streams;
#[path = "conformance/strict.rs"]
#[allow(dead_code, reason = "each binary of tests uses its part")]
mod strict;
#[path = "it/support/mod.rs"]
#[allow(dead_code, unused_imports, reason = "each binary of tests uses its part")]
mod support;
#[path = "chaos/world.rs"]
mod world;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Seeds and how long each runs.
fn runs() -> (Vec<u64>, Duration) {
    let given = std::env::var("UNDERSTUDY_SEED").ok().map(|seed| seed.parse().unwrap());
    let long = std::env::var("UNDERSTUDY_LONG").is_ok_and(|long| long != "0");
    let length = Duration::from_secs(if long { 150 } else { 12 });
    match (given, long) {
        (Some(seed), _) => (vec![seed], length),
        // New speaks HTTP/2 in every other.
        (None, false) => (vec![1, 2], length),
        (None, true) => {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
            ((now..now + 4).collect(), length)
        }
    }
}

#[test]
fn whatever_happens_nobody_is_answered_wrongly_and_nothing_is_left_behind() {
    let (seeds, length) = runs();
    for seed in seeds {
        println!("seed {seed}, {length:?}");
        random::announced(seed, |seed| world::run(seed, length));
    }
}
