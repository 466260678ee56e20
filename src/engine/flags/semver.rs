//! Versions as semver.org 2.0.0 orders them, read from a text without an allocation.
//!
//! Pure. The library for it keeps long pre-release names on the heap; a request must not allocate.

use std::cmp::Ordering;

/// Three numbers and what comes before the release; build metadata is read and has no rank.
#[derive(Clone, Copy, Debug)]
pub struct Version<'a> {
    numbers: [u64; 3],
    pre: &'a str,
}

impl<'a> Version<'a> {
    /// Reads `1.2.3`, `1.2.3-rc.1`, `1.2.3+build`: three numbers, no `v`, no leading zeros.
    #[must_use]
    pub fn parse(text: &'a str) -> Option<Self> {
        let (text, build) = match text.split_once('+') {
            Some((text, build)) => (text, Some(build)),
            None => (text, None),
        };
        let (core, pre) = match text.split_once('-') {
            Some((core, pre)) => (core, Some(pre)),
            None => (text, None),
        };
        let mut parts = core.split('.').map(number);
        let numbers = [parts.next()??, parts.next()??, parts.next()??];
        let named = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        let leading_zero = |text: &str| digits(text) && text.len() > 1 && text.starts_with('0');
        let pre_is_good = pre.is_none_or(|pre| pre.split('.').all(|part| named(part) && !leading_zero(part)));
        let build_is_good = build.is_none_or(|build| build.split('.').all(named));
        (parts.next().is_none() && pre_is_good && build_is_good).then_some(Self {
            numbers,
            pre: pre.unwrap_or_default(),
        })
    }

    /// Which comes later: the precedence of section 11.
    #[must_use]
    pub fn compare(&self, other: &Self) -> Ordering {
        let by_numbers = self.numbers.cmp(&other.numbers);
        let by_release = || match (self.pre.is_empty(), other.pre.is_empty()) {
            (true, true) => Ordering::Equal,
            (true, false) => Ordering::Greater,
            (false, true) => Ordering::Less,
            (false, false) => self.pre.split('.').map(Part).cmp(other.pre.split('.').map(Part)),
        };
        by_numbers.then_with(by_release)
    }
}

fn digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn number(text: &str) -> Option<u64> {
    (digits(text) && (text.len() == 1 || !text.starts_with('0'))).then(|| text.parse().ok())?
}

/// One part of a pre-release: numbers before names, numbers by their value.
#[derive(PartialEq, Eq)]
struct Part<'a>(&'a str);

impl Ord for Part<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        match (digits(self.0), digits(other.0)) {
            // Without leading zeros the longer number is the larger one.
            (true, true) => self.0.len().cmp(&other.0.len()).then_with(|| self.0.cmp(other.0)),
            (true, false) => Ordering::Less,
            (false, true) => Ordering::Greater,
            (false, false) => self.0.cmp(other.0),
        }
    }
}

impl PartialOrd for Part<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_as_the_standard_lists_them() {
        let rising = [
            "0.9.9",
            "1.0.0-1",
            "1.0.0-2",
            "1.0.0-10",
            "1.0.0-alpha",
            "1.0.0-alpha.1",
            "1.0.0-alpha.beta",
            "1.0.0-beta",
            "1.0.0-beta.2",
            "1.0.0-beta.11",
            "1.0.0-rc.1",
            "1.0.0",
            "1.0.1",
            "1.2.0",
            "1.10.0",
            "2.0.0",
        ];
        let read: Vec<Version<'_>> = rising.iter().map(|text| Version::parse(text).unwrap()).collect();
        for (at, a) in read.iter().enumerate() {
            for (beside, b) in read.iter().enumerate() {
                assert_eq!(a.compare(b), at.cmp(&beside), "{} {}", rising[at], rising[beside]);
            }
        }
        let of = |text| Version::parse(text).unwrap();
        assert_eq!(of("1.0.0+a").compare(&of("1.0.0+b.2")), Ordering::Equal);
    }

    #[test]
    fn what_is_no_version_is_none() {
        for bad in [
            "",
            "1",
            "1.2",
            "1.2.3.4",
            "v1.2.3",
            "01.2.3",
            "1.2.3-",
            "1.2.3-a..b",
            "1.2.3-01",
            "1.2.3+",
            "1.2.x",
            " 1.2.3",
            "1.2.3-é",
            "-1.2.3",
            "99999999999999999999.0.0",
        ] {
            assert!(Version::parse(bad).is_none(), "{bad}");
        }
    }
}
