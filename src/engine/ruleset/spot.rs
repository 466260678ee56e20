//! Where something was written, kept for what only the whole can tell.
//!
//! Pure. A spot is no part of a value: two that say the same are equal wherever they stand.

use super::decode::{Decode, Decoder, Shape};
use super::problem::{Place, Problems};
use super::yaml::{Mark, Node};

/// A place and the path to it. Every spot equals every other.
#[derive(Clone, Debug)]
pub struct Spot {
    /// The file, line and column.
    pub place: Place,
    /// From the top: `features.f.rules[0].value`.
    pub path: Box<str>,
}

impl PartialEq for Spot {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Spot {}

impl Spot {
    /// The spot that is being read, with the value at `mark`.
    #[must_use]
    pub fn of(mark: Mark, decoder: &Decoder<'_>) -> Self {
        Self {
            place: decoder.place(mark),
            path: decoder.path().into(),
        }
    }

    /// Adds a problem here.
    pub fn problem(&self, what: impl Into<String>, remedy: impl Into<String>, problems: &mut Problems) {
        problems.problem(self.place.clone(), &*self.path, what, remedy);
    }

    /// Adds a warning here.
    pub fn warning(&self, what: impl Into<String>, remedy: impl Into<String>, problems: &mut Problems) {
        problems.warning(self.place.clone(), &*self.path, what, remedy);
    }
}

/// A value and where it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spotted<T> {
    /// What was written.
    pub value: T,
    /// Where.
    pub spot: Spot,
}

impl<T: Decode> Decode for Spotted<T> {
    fn decode(node: &Node<'_>, decoder: &mut Decoder<'_>) -> Option<Self> {
        let value = T::decode(node, decoder)?;
        let spot = Spot::of(node.mark, decoder);
        Some(Self { value, spot })
    }

    fn shape() -> Shape {
        T::shape()
    }
}
