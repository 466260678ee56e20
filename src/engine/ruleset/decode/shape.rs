//! What may be written where, as data: the source of the printed reference.
//!
//! Pure. Filled in by `record!` and `words!`; rendering is left to whoever prints.

/// What may be written at one place.
#[derive(Clone, Debug)]
pub enum Shape {
    /// One scalar; its name: `duration`.
    Scalar(&'static str),
    /// One of these words.
    Words(Vec<Word>),
    /// A list of these.
    List(Box<Shape>),
    /// A map from names of this kind to these.
    Map {
        /// Name of the keys' type.
        key: &'static str,
        /// What each key holds.
        value: Box<Shape>,
    },
    /// A map with these members. A function, so that records may contain themselves.
    Record(fn() -> RecordShape),
    /// One of several shapes.
    Union(Vec<Shape>),
    /// The same, or `null`.
    Nullable(Box<Shape>),
}

impl Shape {
    /// One of these words, each with its meaning.
    #[must_use]
    pub fn words<const N: usize>(words: [(&'static str, &'static str); N]) -> Self {
        Self::Words(words.map(|(text, doc)| Word { text, doc }).into())
    }
}

/// One word of a closed set.
#[derive(Clone, Copy, Debug)]
pub struct Word {
    /// As written.
    pub text: &'static str,
    /// What it means, in one sentence.
    pub doc: &'static str,
}

/// A map with fixed members.
#[derive(Clone, Debug)]
pub struct RecordShape {
    /// The type's name: unique within one reference.
    pub name: &'static str,
    /// What it is for.
    pub doc: String,
    /// In the order of their declaration.
    pub members: Vec<Member>,
    /// What may be written under any other name; `None` where there are no others.
    pub others: Option<Shape>,
}

/// One member of a record.
#[derive(Clone, Debug)]
pub struct Member {
    /// The key.
    pub name: &'static str,
    /// What it is for.
    pub doc: String,
    /// What may be written.
    pub shape: Shape,
    /// What happens without it.
    pub need: Need,
}

/// What happens when a member is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// This value is taken, as it would be written.
    Default(&'static str),
    /// It is unset.
    Optional,
    /// The text is refused.
    Required,
}
