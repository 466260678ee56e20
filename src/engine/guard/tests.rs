//! Whole routes: outcomes in, trips and status out.

use std::iter::repeat_n;
use std::time::Duration;

use super::*;
use crate::engine::vocab::{Epoch, RouteKey, Side, SubjectHash};

fn key() -> RouteKey {
    RouteKey::parse("whatsapp").expect("a key")
}

fn budget(name: &str, metric: Metric, action: Action) -> Budget {
    Budget {
        name: name.into(),
        metric,
        tolerate: Tolerance::DEFAULT,
        action,
        ok: Vec::new(),
    }
}

fn guard(budgets: &[Budget]) -> RouteGuard {
    RouteGuard::new(key(), budgets)
}

fn errors() -> RouteGuard {
    guard(&[budget("errors", Metric::ErrorRate, Action::Kill)])
}

/// A pair while legacy serves, of a subject of its own unless said otherwise.
fn pair(legacy: Run, new: Run) -> Outcome {
    Outcome {
        at: Duration::from_secs(1),
        epoch: Epoch(0),
        subject: None,
        served: Side::Legacy,
        by_percent: false,
        new: Some(new),
        legacy: Some(legacy),
        relation: Relation::Pair,
        horizon: Duration::from_secs(10),
    }
}

fn answer(status: u16) -> Run {
    Run::answered(status, Duration::from_millis(10))
}

fn failing() -> Outcome {
    pair(answer(200), answer(500))
}

fn of(subject: u64, outcome: Outcome) -> Outcome {
    Outcome {
        subject: Some(SubjectHash(subject)),
        ..outcome
    }
}

/// Observes until it trips; how many outcomes that took.
fn until_trip(guard: &mut RouteGuard, outcomes: impl IntoIterator<Item = Outcome>) -> Option<(usize, Trip)> {
    outcomes
        .into_iter()
        .enumerate()
        .find_map(|(n, outcome)| guard.observe(&outcome).map(|trip| (n + 1, trip)))
}

#[test]
fn sixteen_failures_kill_and_fifteen_do_not() {
    let (n, trip) = until_trip(&mut errors(), repeat_n(failing(), 100)).expect("an outage");
    assert_eq!((n, trip.effect, trip.cause), (16, Effect::Kill, Cause::Path));
    assert_eq!(
        trip.numbers,
        Numbers {
            pairs: 16,
            failovers: 0,
            new_failed: 16,
            legacy_failed: 0
        }
    );
    assert_eq!(until_trip(&mut errors(), repeat_n(failing(), 15)), None);
}

#[test]
fn c12_a_few_errors_beside_a_faultless_legacy_are_no_breach() {
    let mut guard = errors();
    // A ratio of anything to nothing is endless; what counts is how much was seen.
    let fine = || repeat_n(pair(answer(200), answer(200)), 2_000);
    let outcomes = fine()
        .chain([failing()])
        .chain(fine())
        .chain([failing(), failing()])
        .chain(fine());
    assert!(until_trip(&mut guard, outcomes).is_none());
    assert!(
        until_trip(&mut guard, repeat_n(failing(), 100)).is_some(),
        "an outage is one"
    );
}

#[test]
fn failovers_are_failures_and_no_pairs() {
    let failover = Outcome {
        served: Side::New,
        relation: Relation::Failover,
        ..pair(answer(200), Run::failed(Failure::Transport))
    };
    let mut guard = errors();
    let (n, trip) = until_trip(&mut guard, repeat_n(failover, 100)).expect("an outage");
    assert_eq!((n, trip.numbers.pairs, trip.numbers.failovers), (16, 0, 16));
    let tally = guard.status().tally;
    assert_eq!(
        (tally.pairs, tally.failovers, tally.new_served, tally.new_failed),
        (0, 16, 16, 16)
    );
}

#[test]
fn shared_outage_and_runs_without_legacy_never_trip() {
    let broken = Run::failed(Failure::Timeout);
    let shared = pair(broken, broken);
    let unasked = Outcome {
        legacy: None,
        relation: Relation::Alone,
        served: Side::New,
        ..failing()
    };
    let given_up = pair(Run::cancelled(), broken);
    assert_eq!(
        until_trip(
            &mut errors(),
            [shared, unasked, given_up].into_iter().cycle().take(3_000)
        ),
        None
    );
}

#[test]
fn successes_alone_never_trip() {
    let mut guard = guard(&[
        budget("errors", Metric::ErrorRate, Action::Kill),
        budget("slow", Metric::LatencyP50, Action::Kill),
    ]);
    assert_eq!(
        until_trip(&mut guard, repeat_n(pair(answer(200), answer(200)), 20_000)),
        None
    );
    assert!(
        guard
            .status()
            .budgets
            .iter()
            .all(|budget| budget.path.is_some_and(|path| path.value == 0.0))
    );
}

#[test]
fn killed_route_trips_again_only_after_its_rearm() {
    let (mut guard, mut kills) = (errors(), KillSet::default());
    let trip = until_trip(&mut guard, repeat_n(failing(), 16)).expect("an outage").1;
    assert_eq!(kills.apply(&trip, 0), [KillTarget::Route(key())]);
    guard.follow(&kills);
    assert_eq!(until_trip(&mut guard, repeat_n(failing(), 1_000)), None);
    kills.rearm(&KillTarget::Route(key()), "repaired", "anna", 0);
    guard.follow(&kills);
    assert_eq!(
        until_trip(&mut guard, repeat_n(failing(), 1_000)),
        None,
        "late results of the old epoch"
    );
    assert_eq!(guard.status().tally.late, 1_000);
    let present = Outcome {
        epoch: Epoch(1),
        ..failing()
    };
    let (n, trip) = until_trip(&mut guard, repeat_n(present, 100)).expect("an outage");
    assert_eq!((n, trip.epoch), (16, Epoch(1)));
}

#[test]
fn trip_of_an_older_epoch_kills_nothing() {
    let (mut guard, mut kills) = (errors(), KillSet::default());
    let trip = until_trip(&mut guard, repeat_n(failing(), 16)).expect("an outage").1;
    kills.kill(KillTarget::Route(key()), "by hand", "anna", 0);
    kills.rearm(&KillTarget::Route(key()), "repaired", "anna", 0);
    assert_eq!(kills.apply(&trip, 0), []);
    assert!(!kills.route_killed(&key()));
}

#[test]
fn outcome_of_a_newer_epoch_rearms_before_the_news_arrives() {
    let (mut guard, mut older) = (errors(), KillSet::default());
    older.apply(
        &until_trip(&mut guard, repeat_n(failing(), 16)).expect("an outage").1,
        0,
    );
    guard.observe(&Outcome {
        epoch: Epoch(1),
        ..pair(answer(200), answer(200))
    });
    assert_eq!((guard.status().epoch, guard.status().killed), (Epoch(1), false));
    guard.follow(&older);
    assert_eq!(
        (guard.status().epoch, guard.status().killed),
        (Epoch(1), false),
        "an older state took the epoch back"
    );
}

#[test]
fn manual_kill_silences_the_guard() {
    let (mut guard, mut kills) = (errors(), KillSet::default());
    kills.kill(KillTarget::Route(key()), "by hand", "anna", 0);
    guard.follow(&kills);
    assert_eq!(until_trip(&mut guard, repeat_n(failing(), 100)), None);
}

#[test]
fn alert_comes_once_until_the_evidence_is_gone() {
    let mut guard = guard(&[budget("errors", Metric::ErrorRate, Action::Alert)]);
    let (n, trip) = until_trip(&mut guard, repeat_n(failing(), 16)).expect("an outage");
    assert_eq!((n, trip.effect), (16, Effect::Alert));
    assert_eq!(guard.status().budgets[0].state, BudgetState::Tripped);
    assert_eq!(until_trip(&mut guard, repeat_n(failing(), 1_000)), None);
    assert_eq!(
        until_trip(&mut guard, repeat_n(pair(answer(200), answer(200)), 100)),
        None
    );
    assert_eq!(guard.status().budgets[0].state, BudgetState::Watching);
    assert_eq!(
        until_trip(&mut guard, repeat_n(failing(), 100)).map(|(n, _)| n),
        Some(16)
    );
}

#[test]
fn alert_accuses_few_subjects_without_holding_them() {
    let mut guard = guard(&[budget("errors", Metric::ErrorRate, Action::Alert)]);
    let (n, trip) = until_trip(&mut guard, repeat_n(of(7, failing()), 100)).expect("a poisonous message");
    assert_eq!((n, trip.effect, trip.cause), (16, Effect::Alert, Cause::FewSubjects));
    assert_eq!(trip.subjects, [SubjectHash(7)]);
    assert_eq!(KillSet::default().apply(&trip, 0), []);
    assert_eq!(guard.status().held, 0);
}

#[test]
fn gravest_of_several_trips_comes_first_and_a_lesser_one_is_not_lost() {
    let mut guard = guard(&[
        budget("tell", Metric::ErrorRate, Action::Alert),
        budget("tell too", Metric::ErrorRate, Action::Alert),
        budget("act", Metric::ErrorRate, Action::Kill),
    ]);
    let (n, trip) = until_trip(&mut guard, repeat_n(failing(), 16)).expect("an outage");
    assert_eq!((n, &*trip.budget), (16, "act"));

    let mut guard = super::tests::guard(&[
        budget("tell", Metric::ErrorRate, Action::Alert),
        budget("tell too", Metric::ErrorRate, Action::Alert),
    ]);
    assert_eq!(
        until_trip(&mut guard, repeat_n(failing(), 16)).map(|(_, trip)| trip.budget),
        Some("tell".into())
    );
    let next = guard
        .observe(&pair(answer(200), answer(200)))
        .expect("the second alert");
    assert_eq!((&*next.budget, next.at), ("tell too", Duration::from_secs(1)));
}

#[test]
fn alert_that_is_due_is_told_although_its_subject_was_held_meanwhile() {
    let mut guard = guard(&[
        budget("tell", Metric::ErrorRate, Action::Alert),
        budget("act", Metric::ErrorRate, Action::Kill),
    ]);
    guard.observe(&of(1, pair(answer(200), answer(200))));
    let (n, trip) = until_trip(&mut guard, repeat_n(of(7, failing()), 100)).expect("a poisonous message");
    assert_eq!((n, trip.effect), (16, Effect::Hold));
    let alert = guard
        .observe(&of(1, pair(answer(200), answer(200))))
        .expect("the alert");
    assert_eq!(
        (alert.effect, &alert.subjects[..]),
        (Effect::Alert, &[SubjectHash(7)][..])
    );
}

#[test]
fn poisonous_subject_is_held_and_the_route_lives() {
    let (mut guard, mut kills) = (errors(), KillSet::default());
    guard.observe(&of(1, pair(answer(200), answer(200))));
    let (n, trip) = until_trip(&mut guard, repeat_n(of(7, failing()), 100)).expect("a poisonous message");
    assert_eq!((n, trip.effect, trip.cause), (16, Effect::Hold, Cause::FewSubjects));
    assert_eq!(kills.apply(&trip, 0), [KillTarget::Subject(key(), SubjectHash(7))]);
    guard.follow(&kills);
    assert_eq!(until_trip(&mut guard, repeat_n(of(7, failing()), 1_000)), None);
    assert_eq!((guard.status().held, guard.status().tally.held), (1, 1_000));
}

#[test]
fn innocent_subjects_are_not_held_for_what_a_held_one_did() {
    let both = [
        budget("errors", Metric::ErrorRate, Action::Kill),
        budget("slow", Metric::LatencyP50, Action::Kill),
    ];
    let unlucky = |n| of(n, timed(100, 300));
    for by_hand in [false, true] {
        let (mut guard, mut kills) = (guard(&both), KillSet::default());
        (0..40).for_each(|n| assert_eq!(guard.observe(&of(n, timed(100, 100))), None));
        assert_eq!(guard.observe(&unlucky(1)), None);
        // A failed run is slow as well, so both budgets suspect the same subject.
        let trip = until_trip(&mut guard, repeat_n(of(7, failing()), 15));
        assert_eq!(trip, None);
        if by_hand {
            kills.kill(KillTarget::Subject(key(), SubjectHash(7)), "by hand", "anna", 0);
            guard.follow(&kills);
        } else {
            let trip = guard.observe(&of(7, failing())).expect("a poisonous message");
            assert_eq!((&*trip.budget, &trip.subjects[..]), ("errors", &[SubjectHash(7)][..]));
        }
        assert_eq!(
            until_trip(&mut guard, (1..=10).map(unlucky)),
            None,
            "by hand: {by_hand}"
        );
        let slow = &guard.status().budgets[1];
        assert!(
            slow.subjects
                .is_some_and(|subjects| subjects.value < slow.path.map_or(0.0, |path| path.value))
        );
    }
}

#[test]
fn alert_against_the_path_is_not_followed_by_one_against_its_subjects() {
    let mut guard = guard(&[budget("errors", Metric::ErrorRate, Action::Alert)]);
    let mut kills = KillSet::default();
    let alerts = (0..5_000).filter_map(|n| guard.observe(&of(n % 50, failing()))).count();
    assert_eq!(alerts, 1);
    kills.kill(KillTarget::Subject(key(), SubjectHash(7)), "by hand", "anna", 0);
    guard.follow(&kills);
    let alerts = (0..5_000).filter_map(|n| guard.observe(&of(n % 50, failing()))).count();
    assert_eq!(alerts, 0);
}

#[test]
fn subject_released_by_hand_can_be_held_again() {
    let (mut guard, mut kills) = (errors(), KillSet::default());
    guard.observe(&of(1, pair(answer(200), answer(200))));
    let trip = until_trip(&mut guard, repeat_n(of(7, failing()), 16))
        .expect("a poisonous message")
        .1;
    kills.apply(&trip, 0);
    kills.rearm(&KillTarget::Subject(key(), SubjectHash(7)), "looked at", "anna", 0);
    guard.follow(&kills);
    assert_eq!(guard.status().held, 0);
    let (n, trip) = until_trip(&mut guard, repeat_n(of(7, failing()), 100)).expect("a poisonous message");
    assert_eq!((n, trip.effect), (16, Effect::Hold));
}

#[test]
fn route_whose_every_subject_would_be_held_is_killed() {
    let (n, trip) = until_trip(&mut errors(), repeat_n(of(7, failing()), 100)).expect("an outage for one test shopper");
    assert_eq!((n, trip.effect, trip.cause), (16, Effect::Kill, Cause::EverybodyHeld));

    let mut guard = errors();
    guard.observe(&of(1, pair(answer(200), answer(200))));
    let later = Outcome {
        at: Duration::from_secs(3601),
        ..of(7, failing())
    };
    let trip = until_trip(&mut guard, repeat_n(later, 100))
        .expect("an outage for one test shopper")
        .1;
    assert_eq!(trip.cause, Cause::EverybodyHeld, "the other was last seen an hour ago");
}

#[test]
fn somebody_without_identity_keeps_the_route_alive() {
    let mut guard = errors();
    guard.observe(&pair(answer(200), answer(200)));
    let trip = until_trip(&mut guard, repeat_n(of(7, failing()), 100))
        .expect("a poisonous message")
        .1;
    assert_eq!(trip.effect, Effect::Hold);
}

#[test]
fn more_held_subjects_than_the_limit_kill_the_route() {
    let (mut guard, mut kills) = (errors(), KillSet::default());
    (0..HELD_LIMIT as u64).for_each(|n| {
        kills.kill(KillTarget::Subject(key(), SubjectHash(1_000 + n)), "by hand", "anna", 0);
    });
    guard.follow(&kills);
    guard.observe(&of(1, pair(answer(200), answer(200))));
    let trip = until_trip(&mut guard, repeat_n(of(7, failing()), 100))
        .expect("a poisonous message")
        .1;
    assert_eq!((trip.effect, trip.cause), (Effect::Kill, Cause::TooManyHeld));
}

#[test]
fn outage_over_few_shoppers_is_found_one_request_after_they_are_held() {
    let mut guard = errors();
    (0..40).for_each(|n| {
        guard.observe(&of(n, pair(answer(200), answer(200))));
    });
    // The third shopper comes three times, so that the path is one failure short when the subjects are complete.
    let order = [0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 3, 4, 5, 2, 6, 20, 21];
    let trips: Vec<(usize, Effect)> = order
        .into_iter()
        .enumerate()
        .filter_map(|(n, subject)| guard.observe(&of(subject, failing())).map(|trip| (n + 1, trip.effect)))
        .collect();
    assert_eq!(trips, [(16, Effect::Hold), (17, Effect::Kill)]);
}

fn slow_guard(tolerate: Tolerance) -> RouteGuard {
    guard(&[Budget {
        tolerate,
        ..budget("slow", Metric::LatencyP95, Action::Kill)
    }])
}

fn timed(legacy_ms: u64, new_ms: u64) -> Outcome {
    let run = |ms| Run::answered(200, Duration::from_millis(ms));
    pair(run(legacy_ms), run(new_ms))
}

#[test]
fn slowdown_is_found_after_the_warm_up_and_not_at_the_tolerance() {
    let mut guard = slow_guard(Tolerance::Ratio(1.1));
    assert_eq!(
        guard.status().budgets[0].state,
        BudgetState::Collecting { have: 0, need: 40 }
    );
    let (n, trip) = until_trip(&mut guard, repeat_n(timed(100, 300), 1_000)).expect("three times slower");
    assert_eq!((n, trip.effect, trip.numbers.new_failed), (40 + 21, Effect::Kill, 21));
    assert_eq!(
        until_trip(
            &mut slow_guard(Tolerance::Ratio(1.1)),
            repeat_n(timed(100, 110), 20_000)
        ),
        None
    );
    assert_eq!(
        until_trip(
            &mut slow_guard(Tolerance::Added(Duration::from_millis(50))),
            repeat_n(timed(100, 150), 20_000)
        ),
        None
    );
    assert!(
        until_trip(
            &mut slow_guard(Tolerance::Added(Duration::from_millis(50))),
            repeat_n(timed(100, 160), 100)
        )
        .is_some()
    );
}

#[test]
fn failing_fast_is_no_improvement() {
    let mut guard = slow_guard(Tolerance::Ratio(1.1));
    assert_eq!(until_trip(&mut guard, repeat_n(timed(100, 100), 40)), None);
    let failing = pair(Run::answered(200, Duration::from_millis(100)), answer(503));
    assert_eq!(until_trip(&mut guard, repeat_n(failing, 100)).map(|(n, _)| n), Some(21));
}

#[test]
fn rearm_keeps_what_was_learnt_about_legacy() {
    let (mut guard, mut kills) = (slow_guard(Tolerance::Ratio(1.1)), KillSet::default());
    kills.apply(
        &until_trip(&mut guard, repeat_n(timed(100, 300), 100))
            .expect("three times slower")
            .1,
        0,
    );
    kills.rearm(&KillTarget::Route(key()), "repaired", "anna", 0);
    guard.follow(&kills);
    let present = Outcome {
        epoch: Epoch(1),
        ..timed(100, 300)
    };
    assert_eq!(until_trip(&mut guard, repeat_n(present, 100)).map(|(n, _)| n), Some(21));
}

#[test]
fn legacy_outage_does_not_move_the_limit() {
    let mut guard = slow_guard(Tolerance::Ratio(1.1));
    assert_eq!(until_trip(&mut guard, repeat_n(timed(100, 100), 40)), None);
    let broken = Run::failed(Failure::Timeout);
    assert_eq!(until_trip(&mut guard, repeat_n(pair(broken, broken), 3_000)), None);
    let refusing_fast = Run::answered(503, Duration::from_millis(1));
    assert_eq!(
        until_trip(&mut guard, repeat_n(pair(refusing_fast, refusing_fast), 3_000)),
        None
    );
    let later = Outcome {
        at: Duration::from_secs(60),
        ..timed(100, 300)
    };
    assert_eq!(until_trip(&mut guard, repeat_n(later, 100)).map(|(n, _)| n), Some(21));
}

#[test]
fn absolute_budget_is_unjudged_and_says_so() {
    let mut guard = guard(&[
        Budget {
            tolerate: Tolerance::Rate(0.0),
            ..budget("rate", Metric::ErrorRate, Action::Kill)
        },
        Budget {
            tolerate: Tolerance::Max(Duration::ZERO),
            ..budget("max", Metric::LatencyP99, Action::Kill)
        },
    ]);
    assert_eq!(until_trip(&mut guard, repeat_n(failing(), 1_000)), None);
    for budget in guard.status().budgets {
        assert_eq!(
            (budget.state, budget.sight.as_str(), budget.path),
            (BudgetState::Unjudged, "not judged", None)
        );
    }
}

#[test]
fn unchanged_budget_keeps_its_evidence_over_an_edit() {
    let kept = budget("errors", Metric::ErrorRate, Action::Kill);
    let edited = Budget {
        ok: vec![404],
        ..kept.clone()
    };
    let mut guard = guard(std::slice::from_ref(&kept));
    assert_eq!(until_trip(&mut guard, repeat_n(failing(), 15)), None);
    guard.retune(&[budget("slow", Metric::LatencyP50, Action::Alert), kept]);
    assert!(guard.clone().observe(&failing()).is_some());
    guard.retune(&[edited]);
    assert_eq!(guard.observe(&failing()), None);
}

#[test]
fn status_shows_medians_and_counts() {
    let mut guard = errors();
    assert_eq!(
        guard.status().budgets[0].state,
        BudgetState::Collecting { have: 0, need: 1 }
    );
    (0..10).for_each(|_| {
        guard.observe(&timed(100, 200));
    });
    guard.observe(&Outcome {
        served: Side::New,
        by_percent: true,
        legacy: None,
        relation: Relation::Alone,
        ..failing()
    });
    let status = guard.status();
    let near = |value: Option<Duration>, ms: u64| {
        value.is_some_and(|value| {
            value.as_secs_f64() * 1e3 / ms as f64 >= 1.0 && value.as_millis() as u64 <= ms * 103 / 100
        })
    };
    assert!(near(status.legacy_p50, 100) && near(status.new_p50, 200), "{status:?}");
    let expected = Tally {
        outcomes: 11,
        pairs: 10,
        new_served: 1,
        new_served_by_percent: 1,
        new_shadowed: 10,
        new_failed: 1,
        new_unseen: 1,
        ..Tally::default()
    };
    assert_eq!(status.tally, expected);
    assert_eq!(status.budgets[0].state, BudgetState::Watching);
}

#[test]
fn status_of_an_older_epoch_is_forgotten_and_not_shown_as_tripped() {
    let mut guard = errors();
    until_trip(&mut guard, repeat_n(failing(), 100)).expect("an outage");
    let status = guard.status();
    assert_eq!(status.budgets[0].state, BudgetState::Tripped);
    assert_eq!(status.clone().within(Epoch(0)), status);
    let later = status.within(Epoch(1));
    assert_eq!(
        (later.epoch, later.killed, later.tally),
        (Epoch(1), false, Tally::default())
    );
    let budget = &later.budgets[0];
    assert_eq!(budget.state, BudgetState::Collecting { have: 0, need: 1 });
    assert_eq!(
        (budget.numbers, budget.path.map(|path| path.value)),
        (Numbers::default(), Some(0.0))
    );
}

#[test]
fn latency_budget_that_saw_no_pair_since_the_rearm_is_still_collecting() {
    let mut guard = slow_guard(Tolerance::Ratio(1.1));
    assert_eq!(until_trip(&mut guard, repeat_n(timed(100, 100), 100)), None);
    assert_eq!(guard.status().budgets[0].state, BudgetState::Watching);
    guard.observe(&Outcome {
        epoch: Epoch(1),
        relation: Relation::Alone,
        legacy: None,
        served: Side::New,
        ..timed(100, 100)
    });
    let status = guard.status();
    assert_eq!(
        status.budgets[0].state,
        BudgetState::Collecting { have: 0, need: 1 },
        "{status:?}"
    );
    assert_eq!(status.tally.new_unseen, 0, "it did not fail");
}
