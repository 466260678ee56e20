//! The bucket rule: which share of the subjects somebody belongs to, always the same for the same names.
//!
//! Pure, without allocation. A percent comes in as the text that was written, never as a float, so that what an operator
//! wrote and what is compared are the same number.

use xxhash_rust::xxh64::{Xxh64, xxh64};

/// Names up to this long together are joined on the stack, which is faster than feeding the hash piece by piece.
const JOINED_BYTES: usize = 64;

/// XXH64, seed 0, of both pieces as if they were one.
fn hash(head: &[u8], tail: &[u8]) -> u64 {
    let mut joined = [0; JOINED_BYTES];
    let len = head.len() + tail.len();
    match joined.get_mut(..len) {
        Some(both) => {
            let (front, back) = both.split_at_mut(head.len());
            front.copy_from_slice(head);
            back.copy_from_slice(tail);
            xxh64(both, 0)
        }
        None => {
            let mut pieces = Xxh64::new(0);
            pieces.update(head);
            pieces.update(tail);
            pieces.digest()
        }
    }
}

/// The number of buckets; a threshold of this many takes everybody.
pub const BUCKETS: u32 = 1_000_000;

/// Why a text is no percentage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PercentError {
    /// Not a decimal number.
    #[error("not a number")]
    NotANumber,
    /// Below 0 or above the largest value allowed here.
    #[error("not between 0 and 100")]
    OutOfRange,
    /// More than four decimals: a bucket is 0.0001 %.
    #[error("more than four decimals; the smallest step is 0.0001")]
    TooFine,
}

/// A percentage as a count of buckets: 0 to 1,000,000, so 10,000 are one percent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Threshold(u32);

impl Threshold {
    /// Nobody.
    pub const NONE: Self = Self(0);
    /// Everybody.
    pub const ALL: Self = Self(BUCKETS);

    /// This many buckets, at most all of them.
    #[must_use]
    pub const fn from_buckets(buckets: u32) -> Self {
        Self(if buckets > BUCKETS { BUCKETS } else { buckets })
    }

    /// The number of buckets.
    #[must_use]
    pub const fn buckets(self) -> u32 {
        self.0
    }

    /// Reads a percentage, `0` to `100`, as it was written: `25`, `25.5`, `0.0001`, `2.5e1`.
    ///
    /// # Errors
    /// [`PercentError`] says which rule the text breaks.
    pub fn parse(text: &str) -> Result<Self, PercentError> {
        let buckets = parse_ten_thousandths(text)?;
        match u32::try_from(buckets) {
            Ok(buckets) if buckets <= BUCKETS => Ok(Self(buckets)),
            _ => Err(PercentError::OutOfRange),
        }
    }

    /// Whether a subject in `bucket` belongs to this share.
    #[must_use]
    pub const fn takes(self, bucket: Bucket) -> bool {
        bucket.0 < self.0
    }
}

impl std::fmt::Display for Threshold {
    /// The percentage with as many decimals as it needs: `25`, `0.0001`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (whole, rest) = (self.0 / 10_000, self.0 % 10_000);
        if rest == 0 {
            return write!(f, "{whole}");
        }
        let decimals = format!("{rest:04}");
        write!(f, "{whole}.{}", decimals.trim_end_matches('0'))
    }
}

/// Reads a non-negative decimal number, exactly, in units of 0.0001.
///
/// # Errors
/// [`PercentError::NotANumber`] for anything but digits, a point and an exponent; [`PercentError::OutOfRange`] for a
/// negative number and for one beyond 64 bits; [`PercentError::TooFine`] where a digit but 0 stands below 0.0001.
pub fn parse_ten_thousandths(text: &str) -> Result<u64, PercentError> {
    let (negative, unsigned) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, parse_exponent(exponent)?),
        None => (unsigned, 0),
    };
    let (whole, decimals) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if (whole.is_empty() && decimals.is_empty()) || !all_digits(whole) || !all_digits(decimals) {
        return Err(PercentError::NotANumber);
    }

    // The digit at position `n` is worth 10^(first - n) units; zeros are worth nothing wherever they stand.
    let first = i64::try_from(whole.len())
        .unwrap_or(i64::MAX)
        .saturating_add(exponent)
        .saturating_add(3);
    let mut value: u64 = 0;
    for (position, digit) in (0_i64..).zip(whole.bytes().chain(decimals.bytes()).map(|byte| u64::from(byte - b'0'))) {
        if digit == 0 {
            continue;
        }
        let power = u32::try_from(first.saturating_sub(position)).map_err(|_| match first.cmp(&position) {
            std::cmp::Ordering::Less => PercentError::TooFine,
            _ => PercentError::OutOfRange,
        })?;
        let worth = 10_u64.checked_pow(power).and_then(|unit| unit.checked_mul(digit));
        value = worth
            .and_then(|worth| value.checked_add(worth))
            .ok_or(PercentError::OutOfRange)?;
    }
    if negative && value > 0 {
        Err(PercentError::OutOfRange)
    } else {
        Ok(value)
    }
}

fn parse_exponent(text: &str) -> Result<i64, PercentError> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(PercentError::NotANumber);
    }
    // An exponent too long for an integer is as far from 0 as anybody can tell.
    let size = digits.parse().unwrap_or(i64::from(i32::MAX)).min(i64::from(i32::MAX));
    Ok(if text.starts_with('-') { -size } else { size })
}

/// Where a subject stands among a million, for one name: 0 to 999,999.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Bucket(u32);

impl Bucket {
    /// The bucket of `subject` for `name`: XXH64 with seed 0 over both, one after the other, then spread so that
    /// `hash % 100` alone decides about whole percents.
    ///
    /// `name` is a flag's key, its cohort, or `shadow/` and a route's key.
    #[must_use]
    pub fn of(subject: &str, name: &str) -> Self {
        Self::of_hash(hash(subject.as_bytes(), name.as_bytes()))
    }

    /// The bucket that belongs to a hash.
    #[must_use]
    pub const fn of_hash(hash: u64) -> Self {
        // Both terms are bounded by the remainders: 99 * 10,000 + 9,999 is the largest.
        Self(((hash % 100) * 10_000 + (hash / 100) % 10_000) as u32)
    }

    /// The number, 0 to 999,999.
    #[must_use]
    pub const fn number(self) -> u32 {
        self.0
    }
}

/// Where a subject stands along the weights of a flag's variants: 0 to 999,999. Another number than the bucket, so that
/// who takes part and who gets which variant are independent.
#[must_use]
pub fn variant_position(subject: &str, name: &str) -> u32 {
    position_of_hash(hash(subject.as_bytes(), name.as_bytes()))
}

/// The position that belongs to a hash: whole basis points are those of `hash % 10,000`.
const fn position_of_hash(hash: u64) -> u32 {
    // Both terms are bounded by the remainders: 9,999 * 100 + 99 is the largest.
    ((hash % 10_000) * 100 + (hash / 10_000) % 100) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;

    fn spec(text: &str) -> Vec<Value> {
        let mut spec: Value = serde_json::from_str(text).unwrap();
        let Value::Array(cases) = spec["cases"].take() else {
            panic!("no cases")
        };
        assert!(!cases.is_empty());
        cases
    }

    #[test]
    fn hash_of_two_pieces_is_that_of_both_in_one_however_long() {
        let text: Vec<u8> = (0..=255).cycle().take(1_500).collect();
        for (head, tail) in [(0, 0), (1, 0), (0, 1), (64, 64), (64, 65), (128, 0), (1_024, 200)] {
            let both = &text[..head + tail];
            assert_eq!(hash(&both[..head], &both[head..]), xxh64(both, 0), "{head} {tail}");
        }
    }

    #[test]
    fn c19_hash_and_bucket_are_those_of_the_golden_vectors() {
        for case in spec(include_str!("../../../tests/spec/flags/bucket.json")) {
            let (subject, name) = (case["subject"].as_str().unwrap(), case["name"].as_str().unwrap());
            let hash = hash(subject.as_bytes(), name.as_bytes());
            assert_eq!(format!("{hash:016x}"), case["hash"], "{subject} {name}");
            assert_eq!(Bucket::of(subject, name).number(), case["bucket"], "{subject} {name}");
            assert_eq!(variant_position(subject, name), case["position"], "{subject} {name}");
        }
    }

    #[test]
    fn percentages_are_read_exactly_from_their_text() {
        for case in spec(include_str!("../../../tests/spec/flags/percent.json")) {
            let text = case["text"].as_str().unwrap();
            let error = |word| match word {
                "not_a_number" => PercentError::NotANumber,
                "out_of_range" => PercentError::OutOfRange,
                "too_fine" => PercentError::TooFine,
                other => panic!("{other}"),
            };
            let expected = match case["error"].as_str() {
                Some(word) => Err(error(word)),
                None => Ok(u32::try_from(case["buckets"].as_u64().unwrap()).unwrap()),
            };
            assert_eq!(Threshold::parse(text).map(Threshold::buckets), expected, "{text:?}");
        }
    }

    #[test]
    fn c10_fractions_of_a_percent_count() {
        let takes = |percent: &str| {
            let threshold = Threshold::parse(percent).unwrap();
            (0..200_000)
                .filter(|n| threshold.takes(Bucket::of(&format!("user_{n}"), "new_ui_enabled")))
                .count()
        };
        let (whole, more) = (takes("25"), takes("25.5"));
        assert!((700..1_300).contains(&(more - whole)), "{whole} {more}");
        assert!(takes("0.01") > 0);
    }

    #[test]
    fn thirty_percent_of_ten_thousand_users_are_three_thousand_within_two_points() {
        for flag in ["WHATSAPP_GATEWAY_ENABLED", "new_ui_enabled", "auth-sso-login"] {
            let threshold = Threshold::parse("30").unwrap();
            let count = (0..10_000)
                .filter(|n| threshold.takes(Bucket::of(&format!("user_{n}"), flag)))
                .count();
            assert!((2_800..=3_200).contains(&count), "{flag}: {count}");
        }
    }

    #[test]
    fn nobody_and_everybody_are_exact() {
        for n in 0..100 {
            let bucket = Bucket::of(&format!("user_{n}"), "f");
            assert!(!Threshold::NONE.takes(bucket) && Threshold::ALL.takes(bucket));
        }
        assert_eq!(Bucket::of_hash(u64::MAX).number(), 155_516);
        assert_eq!(Bucket::of_hash(999_999).number(), 999_999);
    }

    proptest! {
        #[test]
        fn whole_percents_take_exactly_those_whose_hash_says_so(hash in any::<u64>(), percent in 0_u32..=100) {
            let threshold = Threshold::parse(&percent.to_string()).unwrap();
            prop_assert_eq!(threshold.takes(Bucket::of_hash(hash)), hash % 100 < u64::from(percent));
        }

        #[test]
        fn more_percent_only_adds_subjects(subject in ".{1,20}", a in 0..=BUCKETS, b in 0..=BUCKETS) {
            let bucket = Bucket::of(&subject, "flag");
            let (less, more) = (Threshold::from_buckets(a.min(b)), Threshold::from_buckets(a.max(b)));
            prop_assert!(!less.takes(bucket) || more.takes(bucket));
        }

        #[test]
        fn a_threshold_reads_what_it_prints(buckets in 0..=BUCKETS) {
            let threshold = Threshold::from_buckets(buckets);
            prop_assert_eq!(Threshold::parse(&threshold.to_string()), Ok(threshold));
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,12}|[-+.eE0-9]{0,30}") {
            let _ = Threshold::parse(&text);
        }
    }
}
