//! Numbers by their exact decimal value, whatever their spelling.
//!
//! Pure. In: two numbers as RFC 8259 spells them. Out: whether they are equal, exactly or within a relative tolerance, or
//! which is larger.
//! Nothing is converted to binary unless a tolerance asks for it: `9007199254740993` differs from `9007199254740992`,
//! `1e400` from `1e401`, while `1`, `1.0`, `1e0` and `10e-1` are one value, as are `0`, `-0` and `0e9`. Time is linear in
//! the spelling and nothing is allocated, however large an exponent is.

use std::cmp::Ordering;

/// A number that is not zero: `0.DIGITS * 10^point`, digits without zeros at either end.
struct Decimal<'a> {
    negative: bool,
    whole: &'a [u8],
    fraction: &'a [u8],
    leading_zeros: usize,
    digits: usize,
    point: i128,
}

/// An exponent with more digits than this is not calculated with; 10^30 leaves room for any count of digits in memory.
const EXPONENT_DIGITS: usize = 30;

enum Read<'a> {
    Zero,
    Number(Decimal<'a>),
    /// Not zero, and its exponent is beyond calculation.
    Beyond,
}

fn read(text: &str) -> Read<'_> {
    let (negative, text) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let (whole, fraction) = (whole.as_bytes(), fraction.as_bytes());

    let all = whole.iter().chain(fraction);
    let Some(leading_zeros) = all.clone().position(|&digit| digit != b'0') else {
        return Read::Zero;
    };
    let trailing_zeros = all.rev().take_while(|&&digit| digit == b'0').count();
    let digits = whole.len() + fraction.len() - leading_zeros - trailing_zeros;

    let (down, magnitude) = match exponent.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, exponent.strip_prefix('+').unwrap_or(exponent)),
    };
    let magnitude = magnitude.trim_start_matches('0');
    if magnitude.len() > EXPONENT_DIGITS {
        return Read::Beyond;
    }
    let magnitude = magnitude
        .bytes()
        .fold(0_i128, |sum, digit| sum * 10 + i128::from(digit.wrapping_sub(b'0')));
    let exponent = if down { -magnitude } else { magnitude };
    let point = exponent + whole.len() as i128 - leading_zeros as i128;
    Read::Number(Decimal {
        negative,
        whole,
        fraction,
        leading_zeros,
        digits,
        point,
    })
}

impl Decimal<'_> {
    fn digits(&self) -> impl Iterator<Item = &u8> {
        self.whole
            .iter()
            .chain(self.fraction)
            .skip(self.leading_zeros)
            .take(self.digits)
    }

    fn same(&self, other: &Self) -> bool {
        self.negative == other.negative
            && self.point == other.point
            && self.digits == other.digits
            && self.digits().eq(other.digits())
    }

    /// No digit stands behind the decimal point.
    fn is_whole(&self) -> bool {
        self.point >= self.digits as i128
    }
}

/// Both spell the same decimal value.
///
/// Exact for every exponent below 10^30 in magnitude; beyond, two spellings are equal only if they are identical.
#[must_use]
pub fn equal(a: &str, b: &str) -> bool {
    if a == b {
        return true;
    }
    match (read(a), read(b)) {
        (Read::Zero, Read::Zero) => true,
        (Read::Number(a), Read::Number(b)) => a.same(&b),
        _ => false,
    }
}

/// Which of two numbers is larger by its decimal value; `None` where an exponent is beyond calculation.
#[must_use]
pub fn compare(a: &str, b: &str) -> Option<Ordering> {
    let (a, b) = (read(a), read(b));
    let sign = |read: &Read<'_>| match read {
        Read::Zero => Some(0),
        Read::Number(number) => Some(if number.negative { -1 } else { 1 }),
        Read::Beyond => None,
    };
    let by_sign = sign(&a)?.cmp(&sign(&b)?);
    match (a, b) {
        (Read::Number(a), Read::Number(b)) if by_sign == Ordering::Equal => {
            let by_size = a.point.cmp(&b.point).then_with(|| a.digits().cmp(b.digits()));
            Some(if a.negative { by_size.reverse() } else { by_size })
        }
        _ => Some(by_sign),
    }
}

/// Whether a text is wholly a number: an optional sign, digits with at most one point, an optional exponent.
///
/// Leading zeros are no other number: `007` is 7.
#[must_use]
pub fn is_number(text: &str) -> bool {
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent.strip_prefix(['+', '-']).unwrap_or(exponent))),
        None => (text, None),
    };
    let mantissa = mantissa.strip_prefix('-').unwrap_or(mantissa);
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let some = !(whole.is_empty() && fraction.is_empty());
    some && digits(whole) && digits(fraction) && exponent.is_none_or(|text| !text.is_empty() && digits(text))
}

/// Two numbers differ by less than `tolerance` of the larger, and at least one of them is not a whole number.
///
/// Whole numbers (by value, so `3.0` too) are ids, counts and cents: for them there is no tolerance. Neither is there
/// one for what a binary64 cannot hold.
#[must_use]
pub fn within(tolerance: f64, a: &str, b: &str) -> bool {
    let fractional = |text| matches!(read(text), Read::Number(decimal) if !decimal.is_whole());
    if !(fractional(a) || fractional(b)) {
        return false;
    }
    let (Ok(a), Ok(b)) = (a.parse::<f64>(), b.parse::<f64>()) else {
        return false;
    };
    a.is_normal() && b.is_normal() && (a - b).abs() < tolerance * a.abs().max(b.abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn value_counts_and_spelling_does_not() {
        for group in [
            &["1", "1.0", "1e0", "10e-1", "0.1E+1", "1.000e00"][..],
            &[
                "0",
                "-0",
                "0.0",
                "0e99999999999999999999999999999999999999",
                "-0.000E-7",
            ],
            &["-1200", "-1.2e3", "-12e2", "-0.0012e6", "-1200.00"],
            &["1e400", "10e399", "0.1e401"],
            &["1e-400", "0.01e-398"],
            &["1e123456789012345678901234567890", "10e123456789012345678901234567889"],
        ] {
            for a in group {
                for b in group {
                    assert!(equal(a, b), "{a} {b}");
                }
            }
        }
    }

    #[test]
    fn values_that_binary_floats_confuse_stay_apart() {
        for (a, b) in [
            ("9007199254740992", "9007199254740993"),
            ("1e400", "1e401"),
            ("1e-400", "1e-401"),
            ("1", "-1"),
            ("0.1", "0.10000000000000001"),
            ("10", "1"),
            ("100", "101"),
            ("1e-400", "0"),
            ("0.30000000000000004", "0.3"),
        ] {
            assert!(!equal(a, b) && !equal(b, a), "{a} {b}");
        }
    }

    #[test]
    fn numbers_are_ordered_by_their_value() {
        let rising = [
            "-1e400",
            "-10",
            "-9.5",
            "-1",
            "-0.1",
            "0",
            "1e-400",
            "0.1",
            "1",
            "1.5",
            "9",
            "10",
            "9007199254740992",
            "9007199254740993",
            "1e400",
            "11e399",
        ];
        for (at, a) in rising.iter().enumerate() {
            for (beside, b) in rising.iter().enumerate() {
                assert_eq!(compare(a, b), Some(at.cmp(&beside)), "{a} {b}");
            }
        }
        assert_eq!(compare("1.0", "10e-1"), Some(Ordering::Equal));
        assert_eq!(compare(&format!("1e{}", "9".repeat(40)), "1"), None);
    }

    #[test]
    fn a_number_is_one_from_end_to_end() {
        for good in ["0", "-1", "007", "1.5", ".5", "5.", "1e3", "1E-3", "-0.0e+1"] {
            assert!(is_number(good), "{good}");
        }
        for bad in [
            "", "-", ".", "1 ", " 1", "1,5", "0x1", "1e", "e1", "1.2.3", "inf", "nan", "--1", "+1", "1e1.5",
        ] {
            assert!(!is_number(bad), "{bad}");
        }
    }

    #[test]
    fn exponent_without_end_costs_nothing() {
        let huge = format!("1e{}", "9".repeat(1_000_000));
        let other = format!("2e{}", "9".repeat(1_000_000));
        assert!(equal(&huge, &huge.clone()));
        assert!(!equal(&huge, &other));
        assert!(!equal(&huge, "1"));
        assert!(equal(&format!("1e{}5", "0".repeat(1_000)), "100000"));
    }

    #[test]
    fn tolerance_is_for_fractions_only() {
        let within = |a, b| super::within(4e-9, a, b);
        assert!(within("0.30000000000000004", "0.3"));
        assert!(within("3", "3.000000000001"));
        assert!(!within("9007199254740992", "9007199254740993"));
        assert!(!within("1700000000.0", "1700000001.0"));
        assert!(!within("0.3", "0.300001"));
        assert!(!within("0", "1e-300"));
        assert!(!within("1e-400", "2e-400"));
        assert!(!within("0.1e999", "0.5"));
        assert!(!super::within(0.0, "0.1", "0.1000000000000000000001"));
    }
}
