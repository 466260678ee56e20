//! Two simulated backends that answer the same request, well or badly.

use std::time::Duration;

use understudy::engine::guard::{Failure, Run};

use crate::random::Random;

/// How one side is doing at the moment.
#[derive(Clone, Copy, Debug)]
pub struct Health {
    /// Share of requests that fail by this side's own doing.
    pub failing: f64,
    /// Times as slow as usual.
    pub slowdown: f64,
}

impl Health {
    pub const GOOD: Health = Health {
        failing: 0.002,
        slowdown: 1.0,
    };

    pub fn failing(share: f64) -> Self {
        Self {
            failing: share,
            ..Self::GOOD
        }
    }

    pub fn slower(slowdown: f64) -> Self {
        Self { slowdown, ..Self::GOOD }
    }
}

/// What both backends depend on.
#[derive(Clone, Copy, Debug)]
pub struct Shared {
    /// Share of requests that fail on both sides, because what they share is down.
    pub failing: f64,
    /// Times as slow as usual.
    pub slowdown: f64,
}

impl Shared {
    pub const GOOD: Shared = Shared {
        failing: 0.003,
        slowdown: 1.0,
    };
}

/// How much requests differ in the time they take, and how much one request differs between the sides: standard deviations
/// of the logarithm.
const BETWEEN_REQUESTS: f64 = 0.5;
const BETWEEN_SIDES: f64 = 0.2;

/// Both runs of one request, legacy first.
pub fn both(random: &mut Random, shared: Shared, legacy: Health, new: Health) -> [Run; 2] {
    let size = (BETWEEN_REQUESTS * random.normal()).exp() * shared.slowdown;
    let down = random.chance(shared.failing);
    [legacy, new].map(|health| one(random, size, down, health))
}

fn one(random: &mut Random, size: f64, down: bool, health: Health) -> Run {
    let millis = 20.0 * size * health.slowdown * (BETWEEN_SIDES * random.normal()).exp();
    let latency = Duration::from_secs_f64(millis / 1e3);
    let own = random.chance(health.failing);
    match random.below(3) {
        _ if !down && !own => Run::answered(200, latency),
        0 => Run::answered(503, latency / 10),
        1 => Run::failed(Failure::Timeout),
        _ => Run::failed(Failure::Transport),
    }
}
