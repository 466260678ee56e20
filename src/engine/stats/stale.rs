//! Which flags have served their time: nothing changes any more, nobody asks, or their own date is over.
//!
//! Pure: what was seen of a flag, what it says of itself, and an instant in; verdicts out. A flag is judged only after it was
//! watched for the whole time: what is too new, or was counted for too short, is never stale. One that is meant to stay
//! (operational, permission) may well be on for ever, and is not stale for it.

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

use super::usage::Seen;

/// Why a flag is stale.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stale {
    /// Asked all the time, and never on.
    AlwaysOff,
    /// Asked all the time, and never off.
    AlwaysOn,
    /// Its own date is over.
    PastEnd,
    /// Nobody asked.
    Unused,
}

impl Stale {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::AlwaysOff, Self::AlwaysOn, Self::PastEnd, Self::Unused];

    /// The word in answers, logs and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AlwaysOff => "always_off",
            Self::AlwaysOn => "always_on",
            Self::PastEnd => "past_end",
            Self::Unused => "unused",
        }
    }

    /// What to do about it.
    #[must_use]
    pub const fn remedy(self) -> &'static str {
        match self {
            Self::AlwaysOff => "remove it with the code behind it, or check its configuration",
            Self::AlwaysOn => "remove it and keep the code behind it, or check its configuration",
            Self::PastEnd => "remove it, or give it another `expected_end`",
            Self::Unused => "remove it: no route and no client asks for it",
        }
    }
}

/// A verdict, and since when it holds, in milliseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Why.
    pub stale: Stale,
    /// Since when nothing changed, or nobody asked, or the date is over.
    pub since_ms: i64,
}

/// What a flag says of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Meant {
    /// Whether it is meant to stay.
    pub to_stay: bool,
    /// When it should be gone, in milliseconds since 1970.
    pub until_ms: Option<i64>,
}

/// The instant at which an `expected_end` is over, in milliseconds since 1970: an instant as RFC 3339, or a day in UTC, which
/// ends with its midnight. `None` for a text that is neither, which people may read.
#[must_use]
pub fn until_ms(text: &str) -> Option<i64> {
    if let Ok(instant) = text.parse::<Timestamp>() {
        return Some(instant.as_millisecond());
    }
    let day: Date = text.parse().ok()?;
    let next = day.tomorrow().ok()?.to_zoned(TimeZone::UTC).ok()?;
    Some(next.timestamp().as_millisecond())
}

/// The verdicts on a flag at `now_ms`, when `after_ms` without a change make one stale. At most one on its answers, then at
/// most one on its date.
pub fn verdicts(seen: &Seen, meant: Meant, now_ms: i64, after_ms: i64) -> impl Iterator<Item = Verdict> {
    let long_ago = now_ms.saturating_sub(after_ms);
    let is_old = |at: i64| at <= long_ago;
    let of_answers = match seen.last_ms() {
        None => is_old(seen.known_since_ms).then_some((Stale::Unused, seen.known_since_ms)),
        Some(last) if is_old(last) => Some((Stale::Unused, last)),
        Some(_) if meant.to_stay => None,
        Some(_) => {
            let first = seen.first_ms.unwrap_or(now_ms);
            let lasts = |stale, other: Option<i64>| {
                let since = other.unwrap_or(first);
                (is_old(since) && is_old(first)).then_some((stale, since))
            };
            // One of the two is recent: the later one was not old.
            if seen.last_on_ms >= seen.last_off_ms {
                lasts(Stale::AlwaysOn, seen.last_off_ms)
            } else {
                lasts(Stale::AlwaysOff, seen.last_on_ms)
            }
        }
    };
    let of_date = meant
        .until_ms
        .filter(|until| *until <= now_ms)
        .map(|until| (Stale::PastEnd, until));
    let verdict = |(stale, since_ms)| Verdict { stale, since_ms };
    of_answers.into_iter().chain(of_date).map(verdict)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 86_400_000;
    const NOW: i64 = 1_000 * DAY;
    const AFTER: i64 = 30 * DAY;

    /// Days ago: known since, asked first, off last, on last.
    fn seen(known: i64, first: Option<i64>, off: Option<i64>, on: Option<i64>) -> Seen {
        let ago = |days: i64| NOW - days * DAY;
        Seen {
            known_since_ms: ago(known),
            first_ms: first.map(ago),
            last_off_ms: off.map(ago),
            last_on_ms: on.map(ago),
        }
    }

    fn told(seen: &Seen, meant: Meant) -> Vec<(&'static str, i64)> {
        verdicts(seen, meant, NOW, AFTER)
            .map(|verdict| (verdict.stale.as_str(), (NOW - verdict.since_ms) / DAY))
            .collect()
    }

    #[test]
    fn s0_22_s4_24_flags_that_never_change_or_that_nobody_asks_are_stale() {
        let none = Meant::default();
        let cases = [
            (seen(31, Some(31), Some(0), None), vec![("always_off", 31)]),
            (seen(31, Some(31), None, Some(0)), vec![("always_on", 31)]),
            // What was on 31 days ago for the last time has been off since.
            (seen(90, Some(90), Some(0), Some(31)), vec![("always_off", 31)]),
            (seen(90, Some(90), Some(30), Some(0)), vec![("always_on", 30)]),
            (seen(90, Some(90), Some(29), Some(0)), vec![]),
            (seen(90, Some(90), Some(0), Some(0)), vec![]),
            // Asked for too short, known for too short.
            (seen(90, Some(3), Some(0), None), vec![]),
            (seen(29, None, None, None), vec![]),
            (seen(30, None, None, None), vec![("unused", 30)]),
            (seen(90, Some(80), Some(40), Some(50)), vec![("unused", 40)]),
        ];
        for (seen, expected) in cases {
            assert_eq!(told(&seen, none), expected, "{seen:?}");
        }
    }

    #[test]
    fn what_is_meant_to_stay_may_be_on_for_ever_and_is_unused_all_the_same() {
        let stays = Meant {
            to_stay: true,
            until_ms: None,
        };
        assert_eq!(told(&seen(90, Some(90), None, Some(0)), stays), []);
        assert_eq!(told(&seen(90, None, None, None), stays), [("unused", 90)]);
    }

    #[test]
    fn day_ends_with_its_midnight() {
        assert_eq!(until_ms("1970-01-02"), Some(2 * DAY));
        assert_eq!(until_ms("1970-01-02T01:00:00+01:00"), Some(DAY));
        assert_eq!(until_ms("soon"), None);
    }

    #[test]
    fn date_that_is_over_is_told_beside_the_answers() {
        let meant = |days: i64| Meant {
            to_stay: false,
            until_ms: Some(NOW - days * DAY),
        };
        let changing = seen(90, Some(90), Some(0), Some(0));
        assert_eq!(told(&changing, meant(-1)), []);
        assert_eq!(told(&changing, meant(0)), [("past_end", 0)]);
        assert_eq!(
            told(&seen(90, None, None, None), meant(2)),
            [("unused", 90), ("past_end", 2)]
        );
    }
}
