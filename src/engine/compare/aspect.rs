//! In which respects a place differs: finer than a divergence's kind.
//!
//! Pure. In: one [`Divergence`]. Out: its [`Aspect`]s. A value that changes with every call, such as an id, hides nothing about
//! its shape: an id that was a UUID and is a word is a finding even where the value itself is noise.

use std::fmt;

use super::sample::{Sample, Shape};
use super::verdict::{Divergence, Kind};

/// One respect in which a place can differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Aspect {
    /// A member occurs more often on one side.
    DuplicateKey,
    /// New has a member that legacy lacks.
    Extra,
    /// An array has more or fewer elements.
    Length,
    /// Two numbers differ in sign, or by a factor of 10 or more.
    Magnitude,
    /// Legacy has a member that new lacks.
    Missing,
    /// One side has `null`.
    Null,
    /// Two texts look different: empty, number, time, UUID, token, or anything else.
    Shape,
    /// The JSON types differ.
    Type,
    /// The values differ; so do statuses, headers and bodies that are not JSON.
    Value,
}

impl Aspect {
    /// The word in `diff --summary`: the variant's name in lower case, `duplicate_key`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Aspect::DuplicateKey => "duplicate_key",
            Aspect::Extra => "extra",
            Aspect::Length => "length",
            Aspect::Magnitude => "magnitude",
            Aspect::Missing => "missing",
            Aspect::Null => "null",
            Aspect::Shape => "shape",
            Aspect::Type => "type",
            Aspect::Value => "value",
        }
    }

    /// The aspects of one divergence: one, and for a value its shape or magnitude if that differs too.
    pub(super) fn of(found: &Divergence) -> (Aspect, Option<Aspect>) {
        let aspect = match found.kind {
            Kind::Body | Kind::Header | Kind::Status | Kind::Value => Aspect::Value,
            Kind::DuplicateKey => Aspect::DuplicateKey,
            Kind::Extra => Aspect::Extra,
            Kind::Length => Aspect::Length,
            Kind::Missing => Aspect::Missing,
            Kind::Null => Aspect::Null,
            Kind::Type => Aspect::Type,
        };
        let finer = match (found.kind, &found.legacy, &found.new) {
            (Kind::Value, Some(legacy), Some(new)) => finer(legacy, new),
            _ => None,
        };
        (aspect, finer)
    }
}

impl fmt::Display for Aspect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

fn finer(legacy: &Sample, new: &Sample) -> Option<Aspect> {
    match (legacy.shape(), new.shape()) {
        (Shape::Text(_), Shape::Text(_)) if legacy.form() != new.form() => Some(Aspect::Shape),
        (Shape::Number, Shape::Number) => {
            let (a, b) = (legacy.clear().parse::<f64>().ok()?, new.clear().parse::<f64>().ok()?);
            // From and to zero there is no factor.
            let far =
                a.is_normal() && b.is_normal() && (a.signum() != b.signum() || (a / b).abs().log10().abs() >= 1.0);
            far.then_some(Aspect::Magnitude)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Place, Severity, json::Tree};
    use super::*;

    #[test]
    fn value_has_a_second_aspect_where_its_look_changes() {
        let sample = |text: &str| Some(Sample::of_json(Tree::parse(text.as_bytes()).unwrap().root()));
        let table = [
            ("10", "99", None),
            ("10", "100", Some(Aspect::Magnitude)),
            ("10", "-10", Some(Aspect::Magnitude)),
            ("0", "100", None),
            ("1e999", "1", None),
            (r#""paid""#, r#""PAID""#, None),
            (r#""paid""#, r#""""#, Some(Aspect::Shape)),
            (
                r#""0b6b3f3e-8f0e-4a57-9f1c-1f3a5d1c2b3a""#,
                r#""17""#,
                Some(Aspect::Shape),
            ),
            ("true", "false", None),
        ];
        for (legacy, new, expected) in table {
            let found = Divergence {
                pointer: Place::fixed("/a"),
                kind: Kind::Value,
                severity: Severity::Major,
                legacy: sample(legacy),
                new: sample(new),
            };
            assert_eq!(Aspect::of(&found), (Aspect::Value, expected), "{legacy} {new}");
        }
    }
}
