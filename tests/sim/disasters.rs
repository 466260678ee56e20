//! The new path is broken: how many requests pass until it is taken out.

use std::time::Duration;

use understudy::engine::guard::{Action, Effect, Failure, Run, Trip};

use crate::backends::{Health, Shared, both};
use crate::random::{Random, for_seeds};
use crate::world::{Phase, World, budgets, subject};

const SEEDS: u64 = 100;

/// Requests of 1,000 shoppers at 10 a second with what `runs` makes of each, after 400 good ones, until the route is killed.
fn until_kill(
    seed: u64,
    phase: Phase,
    limit: u64,
    mut runs: impl FnMut(&mut Random) -> [Run; 2],
) -> Option<(u64, Trip)> {
    let mut world = World::new(seed, &budgets(Action::Kill));
    for n in 0..400 + limit {
        world.now += world.random.wait(10.0);
        let good = n < 400;
        let runs = if good {
            both(&mut world.random, Shared::GOOD, Health::GOOD, Health::GOOD)
        } else {
            runs(&mut world.random)
        };
        let shopper = subject(world.random.below(1_000));
        // What legacy takes is learnt from pairs, as everybody does who shadows before going live.
        let phase = if good { Phase::Shadow } else { phase };
        if let Some(trip) = world
            .request(phase, Some(shopper), runs)
            .filter(|trip| trip.effect == Effect::Kill)
        {
            assert!(!good, "{trip}");
            return Some((n - 399, trip));
        }
    }
    None
}

/// The counts until the kill for all seeds, in ascending order, all by this budget.
fn counts(phase: Phase, budget: &str, limit: u64, runs: impl Fn(&mut Random) -> [Run; 2]) -> Vec<u64> {
    let mut counts = Vec::new();
    for_seeds(SEEDS, |seed| {
        let (count, trip) = until_kill(seed, phase, limit, &runs).expect("a disaster is found");
        assert_eq!(&*trip.budget, budget, "{trip}");
        counts.push(count);
    });
    counts.sort_unstable();
    counts
}

fn report(what: &str, counts: &[u64]) {
    let at = |share: f64| counts[((counts.len() - 1) as f64 * share) as usize];
    println!("{what}: median {}, 90 % within {}, worst {}", at(0.5), at(0.9), at(1.0));
}

fn good_legacy(random: &mut Random, new: Run) -> [Run; 2] {
    [
        both(
            random,
            Shared {
                failing: 0.0,
                slowdown: 1.0,
            },
            Health::failing(0.0),
            Health::GOOD,
        )[0],
        new,
    ]
}

#[test]
fn outage_is_found_within_seventeen_requests_in_every_phase() {
    for phase in [Phase::Shadow, Phase::Reverse, Phase::Live] {
        let failed = Run::failed(Failure::Transport);
        let counts = counts(phase, "errors", 100, |random| good_legacy(random, failed));
        report(&format!("outage, {phase:?}"), &counts);
        assert!(counts.iter().all(|count| (15..=17).contains(count)), "{counts:?}");
    }
}

#[test]
fn unauthorized_to_everything_is_an_outage_although_it_is_fast() {
    let new = Run::answered(401, Duration::from_millis(1));
    let counts = counts(Phase::Shadow, "errors", 100, |random| good_legacy(random, new));
    report("401 to everything", &counts);
    assert!(counts.iter().all(|count| (15..=17).contains(count)), "{counts:?}");
}

#[test]
fn slowdown_is_found_while_nothing_fails() {
    for (slowdown, bound) in [(2.0, 600), (3.0, 300), (10.0, 200)] {
        let counts = counts(Phase::Shadow, "slow", 10_000, |random| {
            let [legacy, new] = [
                Health {
                    failing: 0.0,
                    slowdown: 1.0,
                },
                Health { failing: 0.0, slowdown },
            ];
            both(
                random,
                Shared {
                    failing: 0.0,
                    slowdown: 1.0,
                },
                legacy,
                new,
            )
        });
        report(&format!("{slowdown} times slower"), &counts);
        assert!(counts[counts.len() - 1] <= bound, "{slowdown}: {counts:?}");
    }
}

#[test]
fn share_that_fails_decides_how_long_it_takes() {
    for (share, bound) in [(0.9, 80), (0.7, 250), (0.5, 1_500)] {
        let new = Health::failing(share);
        let counts = counts(Phase::Shadow, "errors", 10_000, |random| {
            both(random, Shared::GOOD, Health::GOOD, new)
        });
        report(&format!("{:.0} % failing", share * 100.0), &counts);
        assert!(counts[counts.len() - 1] <= bound, "{share}: {counts:?}");
    }
}

#[test]
fn burst_of_thirty_percent_on_one_side_is_tolerated() {
    for_seeds(10, |seed| {
        let runs = |random: &mut Random| both(random, Shared::GOOD, Health::GOOD, Health::failing(0.3));
        let killed = until_kill(seed, Phase::Shadow, 3_000, runs);
        assert!(
            killed.is_none(),
            "{:?}",
            killed.map(|(count, trip)| (count, trip.to_string()))
        );
    });
}

#[test]
fn outage_after_a_rearm_is_found_as_fast() {
    for_seeds(10, |seed| {
        let mut world = World::new(seed, &budgets(Action::Kill));
        for round in 0..5 {
            let mut count = 0;
            loop {
                world.now += Duration::from_millis(100);
                count += 1;
                let shopper = subject(world.random.below(1_000));
                let runs = good_legacy(&mut world.random, Run::failed(Failure::Transport));
                match world.request(Phase::Shadow, Some(shopper), runs) {
                    Some(trip) if trip.effect == Effect::Kill => break,
                    _ => assert!(count < 18, "round {round}"),
                }
            }
            world.rearm_route();
        }
    });
}

#[test]
fn slower_by_the_tolerance_is_never_found() {
    for_seeds(10, |seed| {
        let runs = |random: &mut Random| both(random, Shared::GOOD, Health::GOOD, Health::slower(1.1));
        assert!(until_kill(seed, Phase::Shadow, 5_000, runs).is_none());
    });
}
