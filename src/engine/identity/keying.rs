//! How a value becomes a key: its spelling first, then the table that says whose it is.
//!
//! Pure. In: a value as the request carries it. Out: the key that the buckets see, or that the table does not know it.

use std::borrow::Cow;
use std::sync::Arc;

use super::mapping::Mapping;
use super::normalise::Normalise;

/// What is done to a value before it is a key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keying {
    /// Done first.
    pub normalise: Normalise,
    /// Then the key is what this says. A value that it does not know is nobody's: see
    /// [`Nobody::NotMapped`](super::Nobody::NotMapped).
    pub map: Option<Arc<Mapping>>,
}

impl Keying {
    /// The key is the value, byte for byte.
    pub const AS_WRITTEN: Self = Self::by(Normalise::AsWritten);
    /// A telephone number becomes its digits.
    pub const DIGITS: Self = Self::by(Normalise::Digits);
    /// Every letter becomes its lower case.
    pub const LOWER: Self = Self::by(Normalise::Lower);

    const fn by(normalise: Normalise) -> Self {
        Self { normalise, map: None }
    }

    /// The key for a value; borrows when nothing has to change. `None`: the table does not know it. An empty value stays
    /// empty, which is no identity.
    pub(super) fn apply<'v>(&self, value: Cow<'v, str>) -> Option<Cow<'v, str>> {
        let value = self.normalise.apply(value);
        match &self.map {
            Some(map) if !value.is_empty() => map.find(&value).map(|to| Cow::Owned(to.to_owned())),
            _ => Some(value),
        }
    }
}
