//! When copies stop going to a side that does not answer.
//!
//! Pure: the instant comes in. A breaker protects nobody's shopper (copies are off their path); it keeps a dead side
//! from costing connections and memory.

use std::time::Duration;

/// Failures in a row that open the breaker.
pub const OPENS_AFTER: u32 = 30;

/// While it is open, one copy per this time goes through to see whether the side is back.
pub const PROBE_EVERY: Duration = Duration::from_secs(1);

/// One side's breaker: open after [`OPENS_AFTER`] straight failures, closed by the first success.
#[derive(Clone, Copy, Debug, Default)]
pub struct Breaker {
    straight: u32,
    probe_at: Duration,
}

impl Breaker {
    /// Whether a copy may be sent at this instant.
    pub fn allows(&mut self, now: Duration) -> bool {
        if self.straight < OPENS_AFTER {
            return true;
        }
        let probe = now >= self.probe_at;
        if probe {
            self.probe_at = now + PROBE_EVERY;
        }
        probe
    }

    /// A copy was answered, whatever the answer, or it was not.
    pub fn saw(&mut self, answered: bool, now: Duration) {
        if answered {
            self.straight = 0;
        } else {
            self.straight = self.straight.saturating_add(1);
            if self.straight == OPENS_AFTER {
                self.probe_at = now + PROBE_EVERY;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_opens_after_thirty_straight_failures_and_lets_one_probe_a_second_through() {
        let at = Duration::from_millis;
        let mut breaker = Breaker::default();
        for i in 0..29 {
            assert!(breaker.allows(at(i)));
            breaker.saw(false, at(i));
        }
        breaker.saw(true, at(29));
        for i in 0..30 {
            assert!(breaker.allows(at(100 + i)), "the count starts anew after a success");
            breaker.saw(false, at(100 + i));
        }
        assert!(!breaker.allows(at(200)));
        assert!(breaker.allows(at(1_129)));
        assert!(!breaker.allows(at(1_130)), "one probe");
        breaker.saw(false, at(1_131));
        assert!(!breaker.allows(at(2_128)));
        assert!(breaker.allows(at(2_129)));
        breaker.saw(true, at(2_130));
        assert!(breaker.allows(at(2_131)));
    }
}
