//! Whole days in which nothing is wrong with the new path: the guard has to stay silent.

use std::time::Duration;

use understudy::engine::guard::{Action, Cause, Effect, Run};

use crate::backends::{Health, Shared, both};
use crate::random::{Random, for_seeds};
use crate::world::{Phase, World, budgets, route, subject};

const DAY: Duration = Duration::from_secs(86_400);

/// Something that goes wrong for a while.
struct Incident {
    from: Duration,
    to: Duration,
    kind: u64,
    strength: f64,
}

/// Thirty incidents over the day: shared outages and slowdowns of any strength, outages in which up to half of the requests
/// fail on each side by itself, bursts of failures of new alone of up to 30 % and of legacy alone of any strength, and stalls
/// of new of a second. Not among them is what the fast path takes for a disaster: more than that on new alone, and long
/// outages in which both sides fail by themselves at more than about 55 %.
fn incidents(random: &mut Random) -> Vec<Incident> {
    let one = |random: &mut Random| {
        let from = DAY.mul_f64(random.share());
        let kind = random.below(6);
        let seconds = if kind == 4 { 1.0 } else { random.between(20.0, 600.0) };
        Incident {
            from,
            to: from + Duration::from_secs_f64(seconds),
            kind,
            strength: random.share(),
        }
    };
    (0..30).map(|_| one(random)).collect()
}

fn weather(incidents: &[Incident], now: Duration) -> (Shared, Health, Health) {
    let (mut shared, mut legacy, mut new) = (Shared::GOOD, Health::GOOD, Health::GOOD);
    // Evenings are slower for everybody.
    shared.slowdown = 1.0 + 0.5 * (now.as_secs_f64() / DAY.as_secs_f64() * std::f64::consts::TAU).sin();
    for Incident { kind, strength, .. } in incidents
        .iter()
        .filter(|incident| (incident.from..incident.to).contains(&now))
    {
        match kind {
            0 => shared.failing = *strength,
            1 => shared.slowdown *= 1.0 + 9.0 * strength,
            2 => new.failing = 0.3 * strength,
            3 => legacy.failing = *strength,
            5 => (legacy.failing, new.failing) = (0.5 * strength, 0.5 * strength),
            _ => new.slowdown = 20.0,
        }
    }
    (shared, legacy, new)
}

fn day(seed: u64, phase: Phase) -> World {
    let mut world = World::new(seed, &budgets(Action::Kill)).for_a_long_run();
    let incidents = incidents(&mut world.random);
    while world.now < DAY {
        world.now += world.random.wait(4.0);
        let (shared, legacy, new) = weather(&incidents, world.now);
        let runs = both(&mut world.random, shared, legacy, new);
        let shopper = subject(world.random.below(500));
        world.request(phase, Some(shopper), runs);
    }
    world
}

#[test]
fn identical_backends_with_incidents_never_trip_for_a_day() {
    let mut requests = 0;
    for_seeds(3, |seed| {
        let phase = [Phase::Shadow, Phase::Reverse, Phase::Live][seed as usize % 3];
        let world = day(seed, phase);
        requests += world.requests;
        assert!(world.trips.is_empty(), "{phase:?}: {}", world.trips[0]);
    });
    println!("{requests} requests of healthy days, no trip");
}

#[test]
fn poisonous_message_delivered_for_ever_holds_its_sender_and_never_kills() {
    for_seeds(20, |seed| {
        let mut world = World::new(seed, &budgets(Action::Kill)).for_a_long_run();
        let poison = subject(u64::MAX);
        while world.now < DAY / 24 {
            world.now += world.random.wait(4.0);
            let runs = both(&mut world.random, Shared::GOOD, Health::GOOD, Health::GOOD);
            let shopper = subject(world.random.below(200));
            world.request(Phase::Shadow, Some(shopper), runs);
            // Delivered again as often as everybody else's messages together.
            let crash = [
                Run::answered(200, Duration::from_millis(20)),
                Run::answered(500, Duration::from_millis(2)),
            ];
            world.request(Phase::Shadow, Some(poison), crash);
        }
        let [trip] = &world.trips[..] else {
            panic!("{:?}", world.trips)
        };
        assert_eq!((trip.effect, trip.cause), (Effect::Hold, Cause::FewSubjects));
        assert!(
            trip.subjects.contains(&poison) && world.kills.is_held(&route(), poison),
            "{trip}"
        );
        assert!(!world.kills.route_killed(&route()));
        println!("held {} subject(s) after {}", trip.subjects.len(), trip);
    });
}
