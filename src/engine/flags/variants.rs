//! Variants: the values between which a flag chooses, and the rule that gives each subject one of them.
//!
//! Pure, without allocation. Weights are whole millionths, walked in the order in which they were declared.

use serde::ser::{Serialize, Serializer};
use serde_json::value::RawValue;

use super::bucket::BUCKETS;

/// One of the values between which a flag chooses.
#[derive(Clone, Debug)]
pub struct Variant {
    /// Its name.
    pub name: Box<str>,
    /// Its share, in millionths.
    pub weight: u32,
    /// Its value as JSON, as it was written; `None` where variants have names only.
    pub value: Option<Box<RawValue>>,
}

/// The variants of a flag, in their declared order.
#[derive(Clone, Debug)]
pub struct Variants {
    list: Box<[Variant]>,
    /// For each the first position that is no longer its own.
    ends: Box<[u32]>,
    off: u32,
}

/// Which of a flag's variants, by its place in their declared order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct VariantIndex(pub u32);

impl Variants {
    /// These variants, of which `off` is for those who do not take part.
    ///
    /// Weights that do not quite sum to a million are made up for by the last variant that has any weight.
    #[must_use]
    pub fn new(list: Vec<Variant>, off: VariantIndex) -> Self {
        let mut end = 0_u32;
        let mut ends: Box<[u32]> = list
            .iter()
            .map(|variant| {
                end = end.saturating_add(variant.weight).min(BUCKETS);
                end
            })
            .collect();
        let last = list.iter().rposition(|variant| variant.weight > 0).unwrap_or_default();
        ends.iter_mut().skip(last).for_each(|end| *end = BUCKETS);
        Self {
            list: list.into(),
            ends,
            off: off.0,
        }
    }

    /// Whose position this is, 0 to 999,999.
    #[must_use]
    pub fn at(&self, position: u32) -> VariantIndex {
        let before = self.ends.iter().take_while(|end| **end <= position).count();
        VariantIndex(before as u32)
    }

    /// For those who do not take part.
    #[must_use]
    pub const fn off(&self) -> VariantIndex {
        VariantIndex(self.off)
    }

    /// The variant at an index of these.
    #[must_use]
    pub fn get(&self, at: VariantIndex) -> Option<&Variant> {
        self.list.get(at.0 as usize)
    }

    /// The variant of this name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<VariantIndex> {
        let at = self.list.iter().position(|variant| &*variant.name == name)?;
        Some(VariantIndex(at as u32))
    }

    /// All, in their declared order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Variant> {
        self.list.iter()
    }
}

/// What a flag comes to for one subject.
///
/// Shape when serialised: `true` or `false`; of a variant its value as it was written, or its name.
#[derive(Clone, Copy, Debug)]
pub enum FlagValue<'a> {
    /// Of a flag without variants.
    Bool(bool),
    /// Of a variant that has a value.
    Json(&'a RawValue),
    /// Of a variant that has none.
    Name(&'a str),
}

impl FlagValue<'_> {
    /// As JSON text.
    #[must_use]
    pub fn to_json(&self) -> String {
        match self {
            Self::Bool(on) => on.to_string(),
            Self::Json(raw) => raw.get().to_owned(),
            Self::Name(name) => serde_json::Value::from(*name).to_string(),
        }
    }
}

impl PartialEq for FlagValue<'_> {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Bool(a), Self::Bool(b)) => a == b,
            (Self::Json(a), Self::Json(b)) => a.get() == b.get(),
            (Self::Name(a), Self::Name(b)) => a == b,
            _ => false,
        }
    }
}

impl Serialize for FlagValue<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Bool(on) => serializer.serialize_bool(*on),
            Self::Json(raw) => raw.serialize(serializer),
            Self::Name(name) => serializer.serialize_str(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variants(weights: &[u32]) -> Variants {
        let list = weights.iter().enumerate().map(|(n, weight)| Variant {
            name: format!("v{n}").into(),
            weight: *weight,
            value: None,
        });
        Variants::new(list.collect(), VariantIndex(0))
    }

    #[test]
    fn positions_are_walked_in_declared_order() {
        let list = variants(&[500_000, 250_000, 250_000]);
        let at = |position| list.at(position).0;
        assert_eq!(
            [0, 499_999, 500_000, 749_999, 750_000, 999_999].map(at),
            [0, 0, 1, 1, 2, 2]
        );
    }

    #[test]
    fn last_variant_with_a_weight_takes_what_rounding_leaves() {
        let list = variants(&[333_333, 333_333, 333_333, 0]);
        assert_eq!(
            [666_665, 666_666, 999_999].map(|position| list.at(position).0),
            [1, 2, 2]
        );
        assert_eq!(variants(&[0, 1_000_000]).at(0), VariantIndex(1), "no weight is nobody");
    }
}
