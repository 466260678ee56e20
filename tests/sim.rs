//! The guard in a simulated world: seeded, on a virtual clock, with its invariants checked after every step.
//!
//! A failing run prints its seed; `UNDERSTUDY_SEED=<seed> cargo test --test sim <name>` replays exactly that run. The figures
//! that a test measures are printed with `--nocapture`.

#[path = "sim/backends.rs"]
mod backends;
#[path = "sim/chaos.rs"]
mod chaos;
#[path = "sim/days.rs"]
mod days;
#[path = "sim/disasters.rs"]
mod disasters;
#[path = "sim/random.rs"]
mod random;
#[path = "sim/world.rs"]
mod world;
