//! The only place that reads a clock.
//!
//! `clippy.toml` bans the standard clocks everywhere else, so that a test can rely on every instant having come
//! through here and `engine` can rely on none being read behind its back.

use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

fn start() -> Instant {
    static START: OnceLock<Instant> = OnceLock::new();
    #[allow(clippy::disallowed_methods, reason = "the one monotonic clock")]
    *START.get_or_init(Instant::now)
}

/// The time since the first call in this process; never goes back.
#[must_use]
pub fn monotonic() -> Duration {
    let start = start();
    #[allow(clippy::disallowed_methods, reason = "the one monotonic clock")]
    Instant::now().saturating_duration_since(start)
}

/// [`monotonic`] in whole nanoseconds, as it fits an atomic; at least 1, so that 0 can mean "never".
#[must_use]
pub fn monotonic_nanos() -> u64 {
    u64::try_from(monotonic().as_nanos()).unwrap_or(u64::MAX).max(1)
}

/// Milliseconds since 1970-01-01T00:00:00Z by the wall clock, which may jump; 0 for a clock set before that.
#[must_use]
pub fn unix_ms() -> i64 {
    #[allow(clippy::disallowed_methods, reason = "the one wall clock")]
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
