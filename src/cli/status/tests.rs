//! What a quiet night and an ugly one look like.

use super::*;
use crate::admin::dto::{
    Compared, Copied, Counts, Evidence, Guard, Held, Kill, Last, Latency, PerSide, PlaceCount, Process, Readiness,
    Reason, Rules, Serves, State, Store, Target, TargetKind, Traffic,
};

fn counts(of: &[(&str, u64)]) -> Counts {
    of.iter().map(|(word, count)| ((*word).to_owned(), *count)).collect()
}

fn budget(name: &str, state: &str, value: f64) -> Budget {
    Budget {
        name: name.into(),
        metric: "error_rate".into(),
        tolerate: "ratio: 1.1".into(),
        action: "kill".into(),
        state: state.into(),
        need: None,
        have: None,
        sight: "disasters only".into(),
        sight_detail: "disasters only: an outage within 16 failures that legacy answered".into(),
        path: Some(Evidence { value, threshold: 18.0 }),
        subjects: None,
        pairs: 40,
        failovers: 3,
        new_failed: 17,
        legacy_failed: 1,
    }
}

fn quiet_route() -> Route {
    let collecting = Budget {
        have: Some(12),
        need: Some(40),
        ..budget("slow", "collecting", 0.0)
    };
    Route {
        name: "checkout".into(),
        path: "/checkout".into(),
        serves: Serves {
            by: "both".into(),
            why: "percent 25".into(),
            percent: Some(25.0),
            flag: Some("CHECKOUT_V2".into()),
            shadow_mode: "off".into(),
        },
        epoch: 0,
        killed_by: Vec::new(),
        held: Held::default(),
        traffic: Traffic {
            assigned: PerSide { legacy: 300, new: 101 },
            reasons: counts(&[("percent", 101), ("percent_miss", 300)]),
            ..Traffic::default()
        },
        compared: Compared::default(),
        guard: Some(Guard {
            outcomes: 401,
            pairs: 0,
            failovers: 0,
            new_served: 101,
            new_shadowed: 0,
            new_unseen: 0,
            new_failed: 0,
            legacy_failed: 0,
            no_evidence: 0,
            budgets: vec![budget("errors", "watching", 4.5), collecting],
        }),
        latency: PerSide::default(),
        last: Last::default(),
    }
}

fn kill(kind: TargetKind, name: &str, actor: &str, reason: &str) -> Kill {
    Kill {
        target: Target {
            kind,
            name: Some(name.into()),
            subject: None,
        },
        epoch: 3,
        reason: reason.into(),
        actor: actor.into(),
        since: "2026-08-01T02:58:00Z".into(),
    }
}

fn quiet() -> Status {
    Status {
        freezes: Vec::new(),
        version: "0.1.0".into(),
        started_at: "2026-07-31T03:12:00Z".into(),
        at: "2026-08-01T03:12:00Z".into(),
        readiness: Readiness {
            status: State::Ready,
            reasons: Vec::new(),
        },
        rules: Rules {
            revision: Some(7),
            environment: "production".into(),
            refused: Vec::new(),
            warnings: Vec::new(),
            waits_for_restart: Vec::new(),
            reloads_accepted: 6,
            reloads_refused: 0,
        },
        kills: Vec::new(),
        routes: vec![quiet_route()],
        unrouted: Traffic::default(),
        stale_flags: Counts::new(),
        store: Store::default(),
        process: Process {
            connections: 1_204,
            ..Process::default()
        },
    }
}

fn ugly() -> Status {
    let trip = "budget `errors`: failed: new 17, legacy 1, in 40 pairs and 3 failovers (evidence 18.2 of 18)";
    let route_kill = kill(TargetKind::Route, "whatsapp", "guard", trip);
    let flag_kill = kill(
        TargetKind::Flag,
        "CHECKOUT_V2",
        "olga",
        "shoppers complain\u{1b}[2J about prices",
    );
    let whatsapp = Route {
        name: "whatsapp".into(),
        path: "/webhook/whatsapp".into(),
        serves: Serves {
            by: "legacy".into(),
            why: "killed".into(),
            percent: Some(0.0),
            flag: Some("WHATSAPP_GATEWAY_ENABLED".into()),
            shadow_mode: "off".into(),
        },
        epoch: 3,
        killed_by: vec![route_kill.clone()],
        held: Held {
            count: 2,
            subjects: vec!["h:00000000000000fe".into(), "h:00000000000000ff".into()],
        },
        traffic: Traffic {
            assigned: PerSide {
                legacy: 1_203_000,
                new: 4_012,
            },
            reasons: counts(&[("killed", 3_000), ("percent", 4_012), ("percent_miss", 1_200_000)]),
            answered: PerSide {
                legacy: counts(&[("2xx", 1_207_000), ("5xx", 12)]),
                new: counts(&[("2xx", 3_995)]),
            },
            failed: PerSide {
                legacy: Counts::new(),
                new: counts(&[("connect", 17)]),
            },
            failovers: counts(&[("never_reached", 17)]),
            copies: PerSide {
                legacy: Copied::default(),
                new: Copied {
                    sent: 120_000,
                    skipped: counts(&[("breaker_open", 40), ("queue_full", 1_002)]),
                },
            },
            made: Counts::new(),
            without_identity: counts(&[("no_match", 5)]),
        },
        compared: Compared {
            verdicts: counts(&[("same", 100_000), ("diverged", 315), ("incomparable", 2)]),
            not_compared: counts(&[("overload", 1)]),
            severities: counts(&[("critical", 3), ("major", 312)]),
            suppressed: 9,
            places: vec![
                PlaceCount {
                    path: "/messages/*/id".into(),
                    kind: "missing".into(),
                    severity: "critical".into(),
                    count: 3,
                },
                PlaceCount {
                    path: "/total".into(),
                    kind: "value".into(),
                    severity: "major".into(),
                    count: 312,
                },
            ],
            places_total: 23,
            elsewhere: 0,
        },
        guard: Some(Guard {
            budgets: vec![budget("errors", "tripped", 18.2)],
            ..quiet_route().guard.unwrap()
        }),
        latency: PerSide {
            legacy: Latency {
                pairs_p50_ms: Some(12.1),
                all_p50_at_most_ms: Some(20.0),
            },
            new: Latency {
                pairs_p50_ms: Some(34.6),
                all_p50_at_most_ms: Some(50.0),
            },
        },
        last: Last {
            failovers: Some("2026-08-01T02:57:58Z".into()),
            critical: Some("2026-08-01T02:40:00Z".into()),
            major: Some("2026-07-31T20:00:00Z".into()),
            ..Last::default()
        },
    };
    let checkout = Route {
        killed_by: vec![flag_kill.clone()],
        ..quiet_route()
    };
    let reason = |name: &str, detail: &str, remedy: &str| Reason {
        name: name.into(),
        state: State::Degraded,
        detail: detail.into(),
        remedy: remedy.into(),
    };
    Status {
        readiness: Readiness::of(vec![
            reason("kills_unstored", "told elsewhere", ""),
            reason(
                "restart_needed",
                "changes of workers take effect at the next start only",
                "restart when it suits",
            ),
        ]),
        rules: Rules {
            refused: vec!["config/features.yaml:12:5: unknown member `percentge`. did you mean `percentage`?".into()],
            ..quiet().rules
        },
        kills: vec![flag_kill, route_kill],
        routes: vec![whatsapp, checkout],
        unrouted: Traffic {
            assigned: PerSide { legacy: 44, new: 0 },
            ..Traffic::default()
        },
        store: Store {
            kills_unstored: 1,
            kills_journaled: 1,
            state_error: Some("database or disk is full".into()),
            ..Store::default()
        },
        ..quiet()
    }
}

fn fits(text: &str) {
    for line in text.lines() {
        assert!(line.chars().count() <= WIDTH, "{line}");
    }
}

#[test]
fn quiet_night_is_told_in_one_green_line_and_a_table() {
    let text = text(&quiet(), Details::None, Paint(false));
    fits(&text);
    insta::assert_snapshot!(text);
}

#[test]
fn ugly_night_begins_with_the_worst_and_fits() {
    let text = text(&ugly(), Details::None, Paint(false));
    fits(&text);
    assert!(!text.contains('\u{1b}'));
    insta::assert_snapshot!(text);
}

#[test]
fn details_tell_one_route_in_full() {
    let text = text(&ugly(), Details::One("whatsapp"), Paint(false));
    fits(&text);
    insta::assert_snapshot!(text);
}

#[test]
fn colours_are_for_terminals() {
    assert!(text(&ugly(), Details::All, Paint(true)).starts_with("\u{1b}[1;31m1 kill in force NOT IN THE STATE FILE"));
}

#[test]
fn answers_that_clients_miss_come_before_all_and_old_differences_are_not_told() {
    let ago = |text: &str| Some(text.to_owned());
    let mut route = quiet_route();
    route.traffic.made = counts(&[("connect_failed", 80), ("bad_host", 3)]);
    route.traffic.failed.legacy = counts(&[("connect", 80)]);
    route.traffic.failovers = counts(&[("answered", 40)]);
    route.compared.severities = counts(&[("critical", 7), ("major", 162)]);
    route.guard.as_mut().unwrap().new_unseen = 90;
    route.last = Last {
        made: ago("2026-08-01T03:11:58Z"),
        new_unseen: ago("2026-08-01T03:11:00Z"),
        failovers: ago("2026-08-01T02:50:00Z"),
        critical: ago("2026-07-31T13:12:00Z"),
        major: ago("2026-08-01T03:12:00Z"),
    };
    let status = Status {
        routes: vec![route],
        ..quiet()
    };
    let told = text(&status, Details::None, Paint(false));
    fits(&told);
    insta::assert_snapshot!(told);
    // Whatever legacy answers again is no alarm about new.
    let mut killed = status;
    killed.routes[0].serves.by = "legacy".into();
    assert!(!text(&killed, Details::None, Paint(false)).contains("understudy kill"));
}

#[test]
fn whom_it_serves_and_copies_is_not_cut() {
    let shown = |by: &str, why: &str| {
        let mut status = quiet();
        status.routes[0].serves.by = by.into();
        status.routes[0].serves.why = why.into();
        text(&status, Details::None, Paint(false))
    };
    let shadow = shown("legacy", "shadow mode; copied: percent 100");
    fits(&shadow);
    assert!(shadow.contains("legacy: copied: percent 100 "), "{shadow}");
    let both = shown("both", "percent 12.5; all copied");
    fits(&both);
    assert!(both.contains("both: percent 12.5; all copied "), "{both}");
}

#[test]
fn flag_that_its_metadata_kill_is_said_to_be() {
    let mut status = quiet();
    status.routes[0].serves.by = "legacy".into();
    status.routes[0].serves.why = format!("{KILL_SWITCH}; all copied");
    let told = text(&status, Details::None, Paint(false));
    fits(&told);
    assert!(
        told.starts_with("flag CHECKOUT_V2 is killed by its own metadata"),
        "{told}"
    );
    assert!(
        told.contains("legacy: all copied ") && told.contains(" kill_switch "),
        "{told}"
    );
}

#[test]
fn budget_without_evidence_is_not_called_fine() {
    let mut route = quiet_route();
    let guard = route.guard.as_mut().unwrap();
    guard.budgets = vec![budget("errors", "watching", 0.0), budget("slow", "watching", 0.0)];
    assert_eq!(budgets(&route), "errors watching +1");
    let guard = route.guard.as_mut().unwrap();
    (guard.budgets[1].have, guard.budgets[1].need) = (Some(0), Some(1));
    guard.budgets[1].state = "collecting".into();
    assert_eq!(budgets(&route), "slow no evidence +1");
    route.guard.as_mut().unwrap().new_unseen = 150;
    assert_eq!(budgets(&route), "slow blind to 150 +1");
    route.guard = None;
    assert_eq!(budgets(&route), "-");
}

#[test]
fn shares_are_never_rounded_to_nothing_or_all() {
    let shown = [(0, 9), (1, 100_000), (1, 100), (1, 3), (99_999, 100_000), (9, 9)].map(|(part, all)| share(part, all));
    assert_eq!(shown, ["0 %", "<0.1 %", "1.0 %", "33 %", "99 %", "100 %"]);
}

#[test]
fn wire_format_keeps_its_names_and_reads_what_it_writes() {
    let text = serde_json::to_string_pretty(&ugly()).unwrap();
    assert_eq!(serde_json::from_str::<Status>(&text).unwrap(), ugly());
    insta::assert_snapshot!(text);
}
