//! The paths that tell how flags are used.
//!
//! In: counters, merged when somebody asks. Out: `dto` values. Numbers are at most as old as the question.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{OriginalUri, State};
use axum::routing::get;
use axum::{Json as Answer, Router};
use jiff::Timestamp;

use super::dto::{Analytics, Distribution, Fault, Hour, StaleFlag, StaleFlags};
use super::flags;
use super::refusal::Refusal;
use super::room::{May, Name, Query, Read, Room};
use super::status::instant;
use crate::engine::ruleset::problem::quote;
use crate::engine::stats::usage::{HOUR_MS, KEPT_HOURS, Usage};
use crate::engine::vocab::FlagKey;
use crate::live::{self, Live};
use crate::telemetry::clock;

/// What is told of where nobody says for how long.
const DEFAULT_HOURS: i64 = 24;

/// Stale flags on a page when nobody says how many, and the most.
const PAGE: usize = 100;
const LARGEST_PAGE: u64 = 1_000;

/// The longest time that a flag may be asked to be stale for.
const MOST_DAYS: u64 = 3_650;

type Shared = State<Arc<Room>>;

/// The paths.
pub(super) fn routes() -> Router<Arc<Room>> {
    Router::new()
        .route("/api/v1/feature-flags/stale", get(stale))
        .route("/api/v1/feature-flags/{name}/analytics", get(analytics))
        .route("/api/v1/feature-flags/{name}/stats", get(analytics))
}

async fn analytics(
    State(room): Shared,
    _: May<Read>,
    Name(name): Name,
    OriginalUri(uri): OriginalUri,
) -> Result<Answer<Analytics>, Refusal> {
    let now = clock::unix_ms();
    let period = period(uri.query(), now)?;
    let live = room.control.live();
    live.usage.look(&live.registry, now);
    // Whoever removed a flag may still ask about it; what was never counted is no flag.
    match live.usage.of(&name) {
        Some(usage) => Ok(Answer(told(live, &name, &usage, period, now))),
        None => Err(flags::unknown(&room, &name)),
    }
}

async fn stale(
    State(room): Shared,
    _: May<Read>,
    OriginalUri(uri): OriginalUri,
) -> Result<Answer<StaleFlags>, Refusal> {
    let query = Query::read(uri.query(), &["after", "days", "limit"])?;
    let limit = query.number("limit", LARGEST_PAGE)?.map_or(PAGE, |n| n as usize);
    let days = query.number("days", MOST_DAYS)?;
    let live = room.control.live();
    let Some(snapshot) = live.snapshot() else {
        return Err(Refusal::new(Fault::NotFound, "no rules are in force yet", "ask again"));
    };
    let after = days.map_or(snapshot.stale_after, |days| Duration::from_secs(days * 86_400));
    let after_ms = i64::try_from(after.as_millis()).unwrap_or(i64::MAX);
    let all = live::stale::stale(live, &snapshot, clock::unix_ms(), after_ms);
    let begins = |flag: &str| query.text("after").is_none_or(|after| flag > after);
    let items = all.iter().filter(|stale| begins(stale.flag.as_str())).map(|found| {
        let owner = snapshot
            .rules
            .flag(&found.flag)
            .and_then(|flag| flag.about.owner.clone());
        StaleFlag {
            flag: found.flag.to_string(),
            reason: found.verdict.stale.as_str().to_owned(),
            since: instant(found.verdict.since_ms),
            owner,
            remedy: found.verdict.stale.remedy().to_owned(),
        }
    });
    let mut items: Vec<StaleFlag> = items.collect();
    // A flag that stands there twice is on one page.
    let end = (limit..items.len()).find(|at| items[*at].flag != items[at - 1].flag);
    let next = end.and_then(|end| items[..end].last()).map(|last| last.flag.clone());
    items.truncate(end.unwrap_or(items.len()));
    Ok(Answer(StaleFlags {
        items,
        next,
        after_days: after.as_secs() / 86_400,
    }))
}

fn told(live: &Live, name: &str, usage: &Usage, (from, to): (i64, i64), now: i64) -> Analytics {
    let sum = usage.sum(from, to);
    Analytics {
        flag: name.to_owned(),
        from: instant(from.div_euclid(HOUR_MS) * HOUR_MS),
        to: instant(to),
        total_evaluations: sum.total(),
        total_checks: sum.total(),
        enabled_count: sum.on,
        disabled_count: sum.off,
        enabled_percentage: sum.exposure_rate().map(|rate| rate * 100.0),
        exposure_rate: sum.exposure_rate(),
        last_seen: usage.seen.last_ms().map(instant),
        counted_since: instant(usage.seen.known_since_ms),
        distribution: Distribution {
            expected_percent: expected(live, name, now),
            observed_percent: sum.observed_percent(),
            decided: sum.hit + sum.missed,
        },
        hours: usage
            .hours(from, to)
            .map(|(at, counts)| Hour {
                from: instant(at),
                enabled_count: counts.on,
                disabled_count: counts.off,
            })
            .collect(),
    }
}

fn expected(live: &Live, name: &str, now: i64) -> Option<f64> {
    let snapshot = live.snapshot()?;
    let flag = snapshot.rules.flag(&FlagKey::parse(name).ok()?)?;
    let percent = flag.percent.as_ref()?;
    Some(f64::from(percent.threshold_at(now).buckets()) / 10_000.0)
}

/// From and to, in milliseconds since 1970.
fn period(query: Option<&str>, now: i64) -> Result<(i64, i64), Refusal> {
    let query = Query::read(query, &["hours", "days", "from", "to"])?;
    let refuse = |detail: String| {
        let remedy = "ask with `hours` (1 to 744), with `days` (1 to 31), or with `from` and `to` as RFC 3339";
        Refusal::new(Fault::BadRequest, detail, remedy)
    };
    let number = |name: &str, hours_each: i64| {
        let most = KEPT_HOURS as i64 / hours_each;
        let read = |text: &str| {
            let number = text.parse().ok().filter(|n| (1..=most).contains(n));
            number.map(|n: i64| n * hours_each).ok_or_else(|| {
                refuse(format!(
                    "`{name}` is {}, not a whole number from 1 to {most}",
                    quote(text)
                ))
            })
        };
        query.text(name).map(read).transpose()
    };
    let date = |name: &str| {
        let read = |text: &str| {
            let at = text.parse::<Timestamp>().map(Timestamp::as_millisecond);
            at.map_err(|_| refuse(format!("`{name}` is {}, not an instant with an offset", quote(text))))
        };
        query.text(name).map(read).transpose()
    };
    let (hours, days, from, to) = (number("hours", 1)?, number("days", 24)?, date("from")?, date("to")?);
    match (hours, days, from, to) {
        (hours, days, None, None) if hours.is_none() || days.is_none() => {
            let hours = hours.or(days).unwrap_or(DEFAULT_HOURS);
            Ok((now - hours * HOUR_MS, now))
        }
        (None, None, Some(from), to) if from <= to.unwrap_or(now) => Ok((from, to.unwrap_or(now))),
        (None, None, Some(_), _) => Err(refuse("the period ends before it begins".to_owned())),
        (None, None, None, Some(_)) => Err(refuse("`to` has no `from`".to_owned())),
        _ => Err(refuse("the period is said twice".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_800_000_000_000;

    #[test]
    fn period_is_said_in_one_way() {
        let ok = |query: &str| period(Some(query), NOW).unwrap();
        assert_eq!(period(None, NOW).unwrap(), (NOW - 24 * HOUR_MS, NOW));
        assert_eq!(ok("hours=1"), (NOW - HOUR_MS, NOW));
        assert_eq!(ok("days=7"), (NOW - 168 * HOUR_MS, NOW));
        assert_eq!(
            ok("from=1970-01-01T00:00:01Z&to=1970-01-01T00:00:02%2B00:00"),
            (1_000, 2_000)
        );
        assert_eq!(ok("from=1970-01-01T00:00:01Z"), (1_000, NOW));
        for wrong in [
            "hours=0",
            "hours=745",
            "hours=1.5",
            "days=32",
            "days=-1",
            "hours=1&days=1",
            "hours=1&from=1970-01-01T00:00:01Z",
            "to=1970-01-01T00:00:01Z",
            "from=1970-01-01T00:00:02Z&to=1970-01-01T00:00:01Z",
            "from=1970-01-01",
            "hour=1",
            "hours=1&hours=1",
        ] {
            assert!(period(Some(wrong), NOW).is_err(), "{wrong}");
        }
    }
}
