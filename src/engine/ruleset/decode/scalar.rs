//! Values that are one scalar: texts, numbers, booleans, durations, byte sizes, keys.
//!
//! Pure. A scalar is read from its text as written, never through a float on the way to an exact value.

use std::time::Duration;

use super::{Decode, Decoder, Shape};
use crate::engine::ruleset::yaml::{Node, Value};
use crate::engine::vocab::{FlagKey, KeyError, RouteKey, SegmentKey};

/// A type that is written as one scalar.
pub trait Scalar: Sized {
    /// Name in the reference: `duration`.
    const NAME: &'static str;
    /// As in `expected …`: `a duration`.
    const KIND: &'static str;
    /// How to write one: `write 1500ms, 10s, 5m or 2h`.
    const REMEDY: &'static str;
    /// Whether quotes make it something else: `"true"` is a text and no boolean.
    const BARE: bool = false;

    /// Reads the text as written.
    ///
    /// # Errors
    /// [`Misfit`] says what is wrong with it.
    fn read(text: &str) -> Result<Self, Misfit>;
}

/// Why a text is no such value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Misfit {
    /// It has that form, but cannot be meant: what is wrong and what to do.
    Because(String, String),
    /// It is something else altogether.
    Kind,
}

impl Misfit {
    /// The two sentences of the problem about `found`, a text as a message shows it.
    #[must_use]
    pub fn words<T: Scalar>(self, found: &str) -> (String, String) {
        match self {
            Misfit::Because(what, remedy) => (what, remedy),
            Misfit::Kind => (format!("expected {}, found {found}", T::KIND), T::REMEDY.to_owned()),
        }
    }

    /// A value outside its range.
    #[must_use]
    pub fn range(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::Because(what.into(), remedy.into())
    }
}

impl<T: Scalar> Decode for T {
    fn decode(node: &Node<'_>, decoder: &mut Decoder<'_>) -> Option<Self> {
        let Some(text) = node.text() else {
            return decoder.expected(node, T::KIND, T::REMEDY);
        };
        if T::BARE && matches!(node.value, Value::Quoted(_)) {
            let remedy = if T::read(text).is_ok() {
                "remove the quotes"
            } else {
                T::REMEDY
            };
            return decoder.expected(node, T::KIND, remedy);
        }
        match T::read(text) {
            Ok(value) => Some(value),
            Err(misfit) => {
                let (what, remedy) = misfit.words::<T>(&node.found());
                decoder.refuse(node.mark, what, remedy)
            }
        }
    }

    fn shape() -> Shape {
        Shape::Scalar(T::NAME)
    }
}

/// Any scalar but null, as written: `NO`, `0123`, `1e3` and phone numbers keep every character.
impl Scalar for String {
    const NAME: &'static str = "text";
    const KIND: &'static str = "a text";
    const REMEDY: &'static str = "write it in quotes";

    fn read(text: &str) -> Result<Self, Misfit> {
        Ok(text.to_owned())
    }
}

/// As [`String`], in two words of memory: for long lists.
impl Scalar for std::sync::Arc<str> {
    const NAME: &'static str = "text";
    const KIND: &'static str = "a text";
    const REMEDY: &'static str = "write it in quotes";

    fn read(text: &str) -> Result<Self, Misfit> {
        Ok(text.into())
    }
}

/// Only the two words of YAML 1.2; `yes`, `on` and `NO` are texts.
impl Scalar for bool {
    const NAME: &'static str = "boolean";
    const KIND: &'static str = "true or false";
    const REMEDY: &'static str = "write `true` or `false`";
    const BARE: bool = true;

    fn read(text: &str) -> Result<Self, Misfit> {
        match text {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err(Misfit::Kind),
        }
    }
}

macro_rules! whole_number {
    ($($type:ty),+) => {$(
        impl Scalar for $type {
            const NAME: &'static str = "whole number";
            const KIND: &'static str = "a whole number";
            const REMEDY: &'static str = "write it in decimal digits";
            const BARE: bool = true;

            fn read(text: &str) -> Result<Self, Misfit> {
                if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
                    return Err(Misfit::Kind);
                }
                // Some readers of YAML take a leading zero for octal: nobody should have to know which.
                if text.len() > 1 && text.starts_with('0') {
                    return Err(Misfit::range("a number with a leading zero", "remove the zero"));
                }
                let range = || Misfit::range(format!("{text} is too large"), format!("the most is {}", <$type>::MAX));
                text.parse().map_err(|_| range())
            }
        }
    )+};
}

whole_number!(u16, u32, u64, usize);

/// A finite decimal number. For exact values see [`decimal`].
impl Scalar for f64 {
    const NAME: &'static str = "number";
    const KIND: &'static str = "a number";
    const REMEDY: &'static str = "write it in decimal digits, such as 1.1";
    const BARE: bool = true;

    fn read(text: &str) -> Result<Self, Misfit> {
        // Rust's own reader also takes `inf` and `nan`, which are no tolerances.
        if !text
            .bytes()
            .all(|b| matches!(b, b'0'..=b'9' | b'.' | b'-' | b'+' | b'e' | b'E'))
        {
            return Err(Misfit::Kind);
        }
        text.parse()
            .ok()
            .filter(|number: &f64| number.is_finite())
            .ok_or(Misfit::Kind)
    }
}

macro_rules! key_scalar {
    ($($type:ident = $name:literal, $kind:literal;)+) => {$(
        impl Scalar for $type {
            const NAME: &'static str = $name;
            const KIND: &'static str = $kind;
            const REMEDY: &'static str = "use 1 to 200 letters, digits, `.`, `_` and `-`";

            fn read(text: &str) -> Result<Self, Misfit> {
                $type::parse(text).map_err(|error: KeyError| Misfit::range(error.to_string(), Self::REMEDY))
            }
        }
    )+};
}

key_scalar! {
    FlagKey = "flag key", "a flag's key";
    SegmentKey = "segment name", "a segment's name";
    RouteKey = "route name", "a route's name";
}

/// A span of time: a decimal number and a unit, `ms`, `s`, `m`, `h` or `d`; several may follow each other (`1m30s`).
impl Scalar for Duration {
    const NAME: &'static str = "duration";
    const KIND: &'static str = "a duration";
    const REMEDY: &'static str = "write a number with its unit, such as 1500ms, 10s, 5m or 2h";

    fn read(text: &str) -> Result<Self, Misfit> {
        duration(text).ok_or(Misfit::Kind)
    }
}

/// Reads `1500ms`, `10s`, `1.5s`, `1m30s`, `2h`, `7d`: to the millisecond, at most 365,000 days.
#[must_use]
pub fn duration(text: &str) -> Option<Duration> {
    const UNITS: [(&str, i64); 5] = [
        ("ms", 1),
        ("s", 1_000),
        ("m", 60_000),
        ("h", 3_600_000),
        ("d", 86_400_000),
    ];
    const MOST_MS: i64 = 365_000 * 86_400_000;
    let mut rest = text;
    let mut total_ms: i64 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, unit_and_more) = rest.split_at(digits);
        let unit = unit_and_more
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(unit_and_more.len());
        let (unit, more) = unit_and_more.split_at(unit);
        let (_, ms) = UNITS.iter().find(|(name, _)| *name == unit)?;
        // Thousandths of the unit are exact in milliseconds for every unit but `ms`, which takes whole ones.
        let thousandths = if *ms == 1 {
            decimal(number, 0).ok()?.checked_mul(1_000)?
        } else {
            decimal(number, 3).ok()?
        };
        total_ms = total_ms.checked_add(thousandths.checked_mul(*ms)? / 1_000)?;
        rest = more;
    }
    (!text.is_empty() && (0..=MOST_MS).contains(&total_ms)).then(|| Duration::from_millis(total_ms.unsigned_abs()))
}

/// A number of bytes: a whole number and `B`, `KiB`, `MiB`, `GiB` (powers of 1,024), `KB`, `MB`, `GB` (powers of 1,000).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

impl Scalar for ByteSize {
    const NAME: &'static str = "size";
    const KIND: &'static str = "a size in bytes";
    const REMEDY: &'static str = "write a whole number with its unit, such as 64KiB, 4MiB or 3MB";

    fn read(text: &str) -> Result<Self, Misfit> {
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let scale: u64 = match unit.trim_start() {
            "" | "B" => 1,
            "KB" | "kB" => 1_000,
            "MB" => 1_000_000,
            "GB" => 1_000_000_000,
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            _ => return Err(Misfit::Kind),
        };
        let number: u64 = number.parse().map_err(|_| Misfit::Kind)?;
        number.checked_mul(scale).map(ByteSize).ok_or(Misfit::Kind)
    }
}

/// A decimal number as an exact integer of `10^-decimals`: `decimal("25.5", 4)` is 255,000.
///
/// Shape: an optional sign, digits with at most one point, an optional exponent (`1e3`).
///
/// # Errors
/// [`Misfit::Kind`] for anything else; [`Misfit::Because`] for more decimals than that or more than 64 bits.
pub fn decimal(text: &str, decimals: u32) -> Result<i64, Misfit> {
    let large = || Misfit::range(format!("{text} is too large"), "write a smaller number");
    let (negative, unsigned) = match text.as_bytes().first() {
        Some(b'-') => (true, text.get(1..).unwrap_or_default()),
        Some(b'+') => (false, text.get(1..).unwrap_or_default()),
        _ => (false, text),
    };
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().map_err(|_| Misfit::Kind)?),
        None => (unsigned, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = || whole.bytes().chain(fraction.bytes());
    if digits().next().is_none() || !digits().all(|b| b.is_ascii_digit()) {
        return Err(Misfit::Kind);
    }
    let mut value: i64 = 0;
    // The power of ten that the next digit would have, in units of the result.
    let mut power = i64::try_from(whole.len()).map_err(|_| large())? + i64::from(exponent) + i64::from(decimals);
    for digit in digits() {
        power -= 1;
        let digit = i64::from(digit - b'0');
        if digit == 0 {
            continue;
        }
        if power < 0 {
            let what = format!("{text} has more than {decimals} decimals");
            return Err(Misfit::range(what, format!("round it to {decimals} decimals")));
        }
        let scale = u32::try_from(power)
            .ok()
            .and_then(|power| 10_i64.checked_pow(power))
            .ok_or_else(large)?;
        value = digit
            .checked_mul(scale)
            .and_then(|step| value.checked_add(step))
            .ok_or_else(large)?;
    }
    Ok(if negative { -value } else { value })
}
