//! Dates as operators write them.
//!
//! Pure.

use jiff::Timestamp;

use super::decode::{Misfit, Scalar};

/// A date with its time and offset, in milliseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instant(pub i64);

impl Instant {
    /// Reads an RFC 3339 date: `2026-01-01T00:00:00Z`, `2026-01-01T01:00:00.5+01:00`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        // The library takes more forms than the RFC: without seconds, with a zone's name, with a week.
        let (date, rest) = text.split_at_checked(19)?;
        let shape = b"dddd-dd-ddTdd:dd:dd";
        let fits = |(byte, shape): (u8, &u8)| {
            if *shape == b'd' {
                byte.is_ascii_digit()
            } else {
                byte == *shape
            }
        };
        let date_fits = date.bytes().map(|byte| byte.to_ascii_uppercase()).zip(shape).all(fits);
        let offset = match rest.strip_prefix('.') {
            Some(fraction) => {
                let offset = fraction.trim_start_matches(|c: char| c.is_ascii_digit());
                if offset.len() == fraction.len() {
                    return None;
                }
                offset
            }
            None => rest,
        };
        let offset_fits = match offset.as_bytes() {
            [b'Z' | b'z'] => true,
            [b'+' | b'-', a, b, b':', c, d] => [a, b, c, d].into_iter().all(u8::is_ascii_digit),
            _ => false,
        };
        (date_fits && offset_fits)
            .then(|| text.parse::<Timestamp>().ok())
            .flatten()
            .map(|at| Self(at.as_millisecond()))
    }
}

impl Scalar for Instant {
    const NAME: &'static str = "date";
    const KIND: &'static str = "a date with time and offset (RFC 3339)";
    const REMEDY: &'static str = "write it as in \"2026-01-01T00:00:00Z\"";

    fn read(text: &str) -> Result<Self, Misfit> {
        Self::parse(text).ok_or(Misfit::Kind)
    }
}
