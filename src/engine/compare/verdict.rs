//! What a comparison says: the four verdicts, the divergences behind them, and how grave each is.
//!
//! Pure. In: what `diff` finds, one by one. Out: a [`Comparison`]. It owns the words that logs, metrics and the API use
//! for verdicts, kinds and severities, and the default severity of each kind.

use std::fmt;

use super::path::Place;
use super::sample::Sample;

/// What two answers to the same request are to each other; four states, never a bool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// They differ at a place that counts.
    Diverged,
    /// Nothing differs as far as could be read, but not everything could be.
    Incomparable(Why),
    /// They differ only where rules, or a twin, say that a difference means nothing.
    Noise,
    /// They do not differ.
    Same,
}

impl Verdict {
    /// `diverged`, `incomparable`, `noise` or `same`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Verdict::Diverged => "diverged",
            Verdict::Incomparable(_) => "incomparable",
            Verdict::Noise => "noise",
            Verdict::Same => "same",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a body could not be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// A body is longer than the cap, or never finished.
    Cut,
    /// The bytes differ and a `content-encoding` hides what they mean.
    Encoded,
    /// JSON nested deeper than [`super::DEPTH_LIMIT`].
    TooDeep,
    /// JSON of more values than [`super::NODE_LIMIT`].
    TooLarge,
}

impl Why {
    /// `cut`, `encoded`, `too_deep` or `too_large`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Why::Cut => "cut",
            Why::Encoded => "encoded",
            Why::TooDeep => "too_deep",
            Why::TooLarge => "too_large",
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// In what way two values differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Bodies that are not JSON have other bytes.
    Body,
    /// A member occurs more often on one side than on the other.
    DuplicateKey,
    /// New has a member, or a body, that legacy lacks.
    Extra,
    /// A chosen header has other values.
    Header,
    /// An array lacks this element on one side.
    Length,
    /// Legacy has a member, or a body, that new lacks.
    Missing,
    /// One side has `null`, the other something else or nothing.
    Null,
    /// The statuses differ.
    Status,
    /// The values are of different JSON types, or only one body is JSON.
    Type,
    /// Both are of one type and differ in value.
    Value,
}

impl Kind {
    /// The word as it stands in logs, metrics and answers: the variant's name in lower case, `duplicate_key`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Kind::Body => "body",
            Kind::DuplicateKey => "duplicate_key",
            Kind::Extra => "extra",
            Kind::Header => "header",
            Kind::Length => "length",
            Kind::Missing => "missing",
            Kind::Null => "null",
            Kind::Status => "status",
            Kind::Type => "type",
            Kind::Value => "value",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How grave a divergence is; a graver one is greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Something new on top: extra members, headers.
    Minor,
    /// Another value, shape or length; another status of the same class.
    Major,
    /// A promise of legacy is broken: another status class, or a member that is missing, null or of another type.
    Critical,
}

impl Severity {
    /// All, the least first.
    pub const ALL: [Severity; 3] = [Severity::Minor, Severity::Major, Severity::Critical];

    /// `minor`, `major` or `critical`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Severity::Minor => "minor",
            Severity::Major => "major",
            Severity::Critical => "critical",
        }
    }

    /// Reads what [`Self::as_str`] writes.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|severity| severity.as_str() == text)
    }

    /// 0 for minor, 2 for critical: an index into tables.
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// What a difference in a body or header counts for where no rule says otherwise.
    pub(super) fn of(kind: Kind, legacy_has_it: bool) -> Self {
        match kind {
            Kind::Missing | Kind::Type => Severity::Critical,
            // Null where legacy has nothing is a member too many; everything else takes something from legacy's reader.
            Kind::Null if legacy_has_it => Severity::Critical,
            Kind::Body | Kind::DuplicateKey | Kind::Length | Kind::Status | Kind::Value => Severity::Major,
            Kind::Extra | Kind::Header | Kind::Null => Severity::Minor,
        }
    }

    /// What two different statuses count for: critical across classes, major within one.
    pub(super) fn of_status(legacy: u16, new: u16) -> Self {
        if legacy / 100 == new / 100 {
            Severity::of(Kind::Status, true)
        } else {
            Severity::Critical
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A place where two answers differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Divergence {
    /// Where.
    pub pointer: Place,
    /// In what way.
    pub kind: Kind,
    /// How grave.
    pub severity: Severity,
    /// Legacy's value; none where legacy has nothing.
    pub legacy: Option<Sample>,
    /// New's value; none where new has nothing.
    pub new: Option<Sample>,
}

/// How often one `ignore` pattern hid a difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Suppression {
    /// Which pattern, counted from 0 in the order of the rules.
    pub rule: usize,
    /// Places hidden in this comparison; a place with everything below it is one.
    pub places: u32,
}

/// What came out of comparing two answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Comparison {
    /// The verdict.
    pub verdict: Verdict,
    /// The places that differ: status, headers by the order of the rules, then the body in legacy's order. At most as
    /// many as the rules list; [`Self::counts`] has all.
    pub divergences: Vec<Divergence>,
    /// All divergences by severity, indexed by [`Severity::index`].
    pub counts: [u32; 3],
    /// Which `ignore` patterns hid how many differences, in the order of the rules.
    pub suppressions: Vec<Suppression>,
    /// Differences that a twin showed to be noise.
    pub explained: u32,
    /// Numbers that differ by less than the tolerance; equal, but counted.
    pub tolerated: u32,
    /// Why the bodies were not compared, also where something else decided the verdict.
    pub unread: Option<Why>,
}

impl Comparison {
    pub(super) fn nothing() -> Self {
        Self {
            verdict: Verdict::Same,
            divergences: Vec::new(),
            counts: [0; 3],
            suppressions: Vec::new(),
            explained: 0,
            tolerated: 0,
            unread: None,
        }
    }

    /// All divergences, listed or not.
    #[must_use]
    pub fn total(&self) -> u32 {
        self.counts.iter().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// Differences that `ignore` patterns hid.
    #[must_use]
    pub fn suppressed(&self) -> u32 {
        self.suppressions
            .iter()
            .fold(0, |sum, suppression| sum.saturating_add(suppression.places))
    }

    /// The gravest severity among all divergences; none if there is none.
    #[must_use]
    pub fn worst(&self) -> Option<Severity> {
        Severity::ALL
            .into_iter()
            .rev()
            .find(|severity| self.counts[severity.index()] > 0)
    }

    /// Finds the verdict for what has been counted. A difference that was found outranks what could not be read.
    pub(super) fn judge(&mut self) {
        self.verdict = match self.unread {
            _ if self.total() > 0 => Verdict::Diverged,
            Some(why) => Verdict::Incomparable(why),
            None if self.suppressed() > 0 || self.explained > 0 => Verdict::Noise,
            None => Verdict::Same,
        };
    }
}
