//! Outcomes without rhyme or reason, with operators at work: nothing breaks, and the same seed gives the same trips.

use std::time::Duration;

use understudy::engine::guard::{Action, Failure, KillTarget, Outcome, Rearmed, Relation, Run, Tolerance, Trip};
use understudy::engine::vocab::{Epoch, Side};

use crate::random::{Random, for_seeds};
use crate::world::{World, budgets, route, subject};

fn run(random: &mut Random, failing: f64) -> Option<Run> {
    let magnitude = 1 << random.below(40);
    let latency = Duration::from_micros(random.below(magnitude));
    let run = match random.below(20) {
        0 => return None,
        1 => Run::cancelled(),
        2 => Run {
            status: None,
            failure: None,
            latency: None,
            cancelled: false,
        },
        3 => Run {
            failure: Some(Failure::Malformed),
            ..Run::answered(200, latency)
        },
        4 => Run {
            latency: None,
            ..Run::answered(200, latency)
        },
        5 => Run::answered(random.below(1000) as u16, latency),
        _ if random.chance(failing) => Run::failed(Failure::Timeout),
        _ => Run::answered(200, latency),
    };
    Some(run)
}

fn chaos(seed: u64) -> Vec<Trip> {
    let [errors, slow] = budgets(Action::Kill);
    let [told, _] = budgets(Action::Alert);
    let added = Tolerance::Added(Duration::from_micros(50));
    let added = understudy::engine::guard::Budget {
        name: "added".into(),
        tolerate: added,
        ok: vec![404],
        ..slow.clone()
    };
    let mut world = World::new(seed, &[told, errors, slow, added]);
    let crowd = 1 + world.random.below(40);
    for _ in 0..3_000 {
        let random = &mut world.random;
        let failing = if random.chance(0.5) { 0.9 } else { 0.1 };
        // Workers hand in what they have, so instants may go back a little.
        world.now += Duration::from_millis(random.below(2_000));
        let at = world.now.saturating_sub(Duration::from_millis(random.below(50)));
        let relation = [Relation::Pair, Relation::Pair, Relation::Failover, Relation::Alone][random.below(4) as usize];
        let shopper = random.below(crowd + 1);
        let late = random.below(10) / 9;
        let outcome = Outcome {
            at,
            epoch: Epoch(world.kills.epoch(&route()).0.saturating_sub(late)),
            subject: (shopper < crowd).then(|| subject(shopper)),
            served: Side::BOTH[random.below(2) as usize],
            by_percent: random.chance(0.5),
            new: run(random, failing),
            legacy: run(random, 0.05),
            relation,
            horizon: Duration::from_secs(5),
        };
        world.observe(outcome);
        operate(&mut world);
    }
    world.trips
}

/// Now and then somebody kills or re-arms something.
fn operate(world: &mut World) {
    let target = match world.random.below(1_000) {
        0..=1 => KillTarget::All,
        2..=20 => KillTarget::Route(route()),
        21..=40 => match world.kills.held(&route()).next() {
            Some(held) => KillTarget::Subject(route(), held),
            None => return,
        },
        _ => return,
    };
    let killed = world.kills.find(&target).is_some_and(|kill| kill.killed);
    let held = world.kills.held_count(&route());
    let lifts = killed || (target == KillTarget::Route(route()) && held > 0);
    match world.rearm(&target) {
        Rearmed::NotKilled => assert!(!lifts, "{target}"),
        Rearmed::Lifted { .. } => assert!(lifts, "{target}"),
    }
    if !lifts && world.random.chance(0.2) {
        world.kills.kill(target, "by hand", "anna", 0);
        world.guard.follow(&world.kills);
    }
}

#[test]
fn invariants_hold_whatever_arrives_and_a_seed_replays() {
    let mut trips = 0;
    for_seeds(40, |seed| {
        let first = chaos(seed);
        trips += first.len();
        assert_eq!(first, chaos(seed));
    });
    assert!(trips > 0, "chaos without a trip tests nothing");
    println!("{trips} trips in chaos");
}
