//! What happens when, from the seed: the same seed gives the same list.

use std::time::Duration;

use crate::backend::{WEATHERS, Weather};
use crate::random::Random;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    Legacy(Weather),
    New(Weather),
    /// Publishes this percentage for `live`.
    Reload(u64),
    /// Rules that do not compile.
    BrokenReload,
    Hangup,
    Kill,
    Rearm,
    Flood(Flood),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flood {
    Idle,
    SlowHeaders,
    Garbage,
    Pipelines,
    Uploads,
    Unread,
}

const FLOODS: [Flood; 6] = [
    Flood::Idle,
    Flood::SlowHeaders,
    Flood::Garbage,
    Flood::Pipelines,
    Flood::Uploads,
    Flood::Unread,
];

pub fn events(seed: u64, length: Duration) -> Vec<(Duration, Event)> {
    let mut random = Random::new(seed);
    let mut at = Duration::from_millis(300);
    let mut events = Vec::new();
    // Each kind of weather and flood at least once in a short run.
    let mut weathers: Vec<Weather> = WEATHERS.to_vec();
    let mut floods: Vec<Flood> = FLOODS.to_vec();
    while at < length {
        let event = match random.below(12) {
            0..=2 => Event::New(WEATHERS[random.below(10) as usize]),
            3..=4 if !weathers.is_empty() => {
                Event::Legacy(weathers.remove(random.below(weathers.len() as u64) as usize))
            }
            // Legacy is calm for about half of the time, so that it is seen what nobody may feel.
            3..=4 => Event::Legacy(WEATHERS[random.below(10) as usize]),
            5 => Event::Legacy(Weather::Calm),
            6 => Event::Reload(random.below(101)),
            7 => Event::BrokenReload,
            8 => Event::Kill,
            9 => Event::Rearm,
            10 if !floods.is_empty() => Event::Flood(floods.remove(random.below(floods.len() as u64) as usize)),
            10 => Event::Flood(FLOODS[random.below(6) as usize]),
            _ => Event::Hangup,
        };
        events.push((at, event));
        at += random.wait(4.0).min(Duration::from_secs(1));
    }
    events
}
