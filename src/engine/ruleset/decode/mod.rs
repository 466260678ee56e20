//! A tree of YAML becomes typed values, and everything that is wrong with it is said at once.
//!
//! Pure. In: a [`Node`] from `yaml`. Out: a value, or nothing after at least one problem was added to the
//! [`Decoder`]. A container goes on after a bad member, so one reading finds all mistakes. Structs come from
//! `record!`, closed sets of words from `words!`: one declaration gives the type, its decoding with defaults, near
//! names of unknown keys and keys of later versions, and the [`Shape`] from which the reference is printed. What
//! members mean together is left to whoever asked.

mod record;
mod scalar;
mod shape;
#[cfg(test)]
mod tests;

use std::sync::Arc;

pub(crate) use record::{record, words};
pub use scalar::{ByteSize, Misfit, Scalar, decimal, duration};
pub use shape::{Member, Need, RecordShape, Shape, Word};

use super::problem::{Place, Problems, near, quote};
use super::yaml::{self, Entry, Mark, Node, Step, Value, path_text};

/// A type that can be read from a tree.
pub trait Decode: Sized {
    /// Reads a value. `None` means that at least one problem was added.
    fn decode(node: &Node<'_>, decoder: &mut Decoder<'_>) -> Option<Self>;

    /// What the member is when its key is not there at all; `None` makes the member required.
    #[must_use]
    fn absent() -> Option<Self> {
        None
    }

    /// What may be written here.
    fn shape() -> Shape;
}

/// Reads a whole text.
///
/// # Errors
/// `None` if anything went wrong; `Some` does not mean that nothing did: ask [`Problems::refuse`].
pub fn decode<T: Decode>(file: &Arc<str>, text: &str, problems: &mut Problems) -> Option<T> {
    let tree = yaml::parse(file, text, problems)?;
    Decoder::new(file, problems).run(&tree)
}

/// The state of one reading: where it is, and what was wrong so far.
pub struct Decoder<'p> {
    file: Arc<str>,
    problems: &'p mut Problems,
    path: Vec<Step>,
    /// Where what lacks a member would be said to stand: the key of the innermost value, else its beginning.
    owner: Mark,
}

impl<'p> Decoder<'p> {
    /// A reading of `file` that adds to `problems`.
    #[must_use]
    pub fn new(file: &Arc<str>, problems: &'p mut Problems) -> Self {
        Self {
            file: Arc::clone(file),
            problems,
            path: Vec::new(),
            owner: Mark::TOP,
        }
    }

    /// Reads a tree from its top.
    pub fn run<T: Decode>(&mut self, tree: &Node<'_>) -> Option<T> {
        T::decode(tree, self)
    }

    /// A mark of this text as a place.
    #[must_use]
    pub fn place(&self, mark: Mark) -> Place {
        mark.in_file(&self.file)
    }

    /// The path to what is being read: `routes[0].shadow`.
    #[must_use]
    pub fn path(&self) -> String {
        path_text(&self.path)
    }

    /// The key of what is being read; in a list and at the top its beginning. A missing member is reported here.
    #[must_use]
    pub fn owner(&self) -> Place {
        self.place(self.owner)
    }

    /// Adds a problem with the value at `mark`. Answers `None`, for use as the last expression of a `decode`.
    pub fn refuse<T>(&mut self, mark: Mark, what: impl Into<String>, remedy: impl Into<String>) -> Option<T> {
        let (place, path) = (self.place(mark), self.path());
        self.problems.problem(place, path, what, remedy);
        None
    }

    /// Adds a problem at a place that an [`At`] remembered; otherwise as [`Decoder::refuse`].
    pub fn refuse_at<T>(&mut self, place: Place, what: impl Into<String>, remedy: impl Into<String>) -> Option<T> {
        let path = self.path();
        self.problems.problem(place, path, what, remedy);
        None
    }

    /// Adds a warning at a place that an [`At`] remembered.
    pub fn warn_at(&mut self, place: Place, what: impl Into<String>, remedy: impl Into<String>) {
        let path = self.path();
        self.problems.warning(place, path, what, remedy);
    }

    /// Adds a warning about the value at `mark`.
    pub fn warn(&mut self, mark: Mark, what: impl Into<String>, remedy: impl Into<String>) {
        let (place, path) = (self.place(mark), self.path());
        self.problems.warning(place, path, what, remedy);
    }

    /// Refuses a value of another kind: `expected a duration, found a list`.
    pub fn expected<T>(&mut self, node: &Node<'_>, kind: &str, remedy: impl Into<String>) -> Option<T> {
        self.refuse(node.mark, format!("expected {kind}, found {}", node.found()), remedy)
    }

    /// Reads the value of a map's member, with its key in the path.
    pub fn member<T: Decode>(&mut self, entry: &Entry<'_>) -> Option<T> {
        self.within(Step::Key(entry.key.to_string()), entry.mark, |decoder| {
            T::decode(&entry.value, decoder)
        })
    }

    /// Reads one item of a list, with its index in the path.
    pub fn item<T: Decode>(&mut self, index: usize, node: &Node<'_>) -> Option<T> {
        self.within(Step::Index(index), node.mark, |decoder| T::decode(node, decoder))
    }

    fn within<T>(&mut self, step: Step, owner: Mark, read: impl FnOnce(&mut Self) -> Option<T>) -> Option<T> {
        let before = std::mem::replace(&mut self.owner, owner);
        self.path.push(step);
        let value = read(self);
        self.path.pop();
        self.owner = before;
        value
    }

    /// The members of a map; of an omitted value (`limits:` and nothing more), none.
    pub fn entries<'n, 't>(&mut self, node: &'n Node<'t>, kind: &str) -> Option<&'n [Entry<'t>]> {
        match &node.value {
            Value::Mapping(entries) => Some(entries),
            _ if node.is_null() => Some(&[]),
            _ => self.expected(node, kind, "write `key: value` lines below it, or `{ key: value }`"),
        }
    }

    /// Refuses a key that is neither known nor of a later version, naming the nearest known one.
    pub fn unknown_key(&mut self, entry: &Entry<'_>, known: &[&'static str]) {
        let remedy = match near(&entry.key, known.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("known here: {}", known.join(", ")),
        };
        let what = format!("unknown key {}", quote(&entry.key));
        self.within(Step::Key(entry.key.to_string()), entry.mark, |decoder| {
            decoder.refuse::<()>(entry.mark, what, remedy)
        });
    }

    /// Refuses a key of a feature that this version does not have.
    pub fn later_key(&mut self, entry: &Entry<'_>) {
        let what = format!("{} is not in this version", quote(&entry.key));
        self.within(Step::Key(entry.key.to_string()), entry.mark, |decoder| {
            decoder.refuse::<()>(entry.mark, what, "remove it")
        });
    }

    /// Refuses a word outside a closed set, naming the nearest one.
    pub fn expected_word<T>(&mut self, node: &Node<'_>, known: &[&'static str]) -> Option<T> {
        let kind = if known.len() == 1 { "the word" } else { "one of" };
        let remedy = match node.text().and_then(|text| near(text, known.iter().copied())) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "choose one of them".to_owned(),
        };
        self.expected(node, &format!("{kind} {}", known.join(", ")), remedy)
    }

    /// Refuses a word that asks for a feature which this version does not have.
    pub fn later_word<T>(&mut self, node: &Node<'_>) -> Option<T> {
        self.refuse(
            node.mark,
            format!("{} is not in this version", node.found()),
            "choose another value",
        )
    }

    /// Reports a required member that is not there, at the key of what lacks it.
    pub fn missing<T>(&mut self, name: &str, doc: &str) -> Option<T> {
        self.refuse(
            self.owner,
            format!("`{name}` is missing"),
            format!("add it: {}", first_sentence(doc)),
        )
    }

    /// The value of an absent member that has a default. The default is a text of ours, read by the same rules.
    pub fn default<T: Decode>(&mut self, name: &str, text: &'static str) -> Option<T> {
        let tree = yaml::parse(&self.file, text, self.problems)?;
        self.within(Step::Key(name.to_owned()), self.owner, |decoder| {
            T::decode(&moved(tree, decoder.owner), decoder)
        })
    }
}

/// A tree whose every place is `mark`: defaults stand nowhere, so what is wrong with them together with other members
/// is said at what lacks them.
fn moved(node: Node<'static>, mark: Mark) -> Node<'static> {
    let value = match node.value {
        Value::Sequence(items) => Value::Sequence(items.into_iter().map(|item| moved(item, mark)).collect()),
        Value::Mapping(entries) => Value::Mapping(
            entries
                .into_iter()
                .map(|e| Entry {
                    key: e.key,
                    mark,
                    value: moved(e.value, mark),
                })
                .collect(),
        ),
        scalar => scalar,
    };
    Node { mark, value }
}

/// What a doc comment says first, as it goes on inside another sentence.
fn first_sentence(doc: &str) -> String {
    let text = doc.lines().map(str::trim).collect::<Vec<_>>().join(" ");
    let text = text
        .split_once(". ")
        .map_or(text.as_str(), |(first, _)| first)
        .trim()
        .trim_end_matches('.');
    let mut chars = text.chars();
    match (chars.next(), chars.clone().next()) {
        (Some(first), Some(second)) if !second.is_uppercase() => first.to_lowercase().chain(chars).collect(),
        _ => text.to_owned(),
    }
}

/// A value together with where it stands, for checks that come later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct At<T> {
    /// What was written.
    pub value: T,
    /// Where; of an absent member with a default, the key of what lacks it.
    pub place: Place,
}

impl<T> std::ops::Deref for At<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: Decode> Decode for At<T> {
    fn decode(node: &Node<'_>, decoder: &mut Decoder<'_>) -> Option<Self> {
        let value = T::decode(node, decoder)?;
        Some(Self {
            value,
            place: decoder.place(node.mark),
        })
    }

    fn shape() -> Shape {
        T::shape()
    }
}

/// Absent and `null` alike are `None`.
impl<T: Decode> Decode for Option<T> {
    fn decode(node: &Node<'_>, decoder: &mut Decoder<'_>) -> Option<Self> {
        if node.is_null() {
            Some(None)
        } else {
            T::decode(node, decoder).map(Some)
        }
    }

    fn absent() -> Option<Self> {
        Some(None)
    }

    fn shape() -> Shape {
        Shape::Nullable(Box::new(T::shape()))
    }
}

/// A member of a layer: what stronger and weaker sources of the same thing are laid over each other by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Layered<T> {
    /// The key is absent: a weaker layer decides.
    #[default]
    Inherit,
    /// `null`: unset here and in all weaker layers.
    Unset,
    /// Any other value, an empty list too.
    Set(T),
}

impl<T: Decode> Decode for Layered<T> {
    fn decode(node: &Node<'_>, decoder: &mut Decoder<'_>) -> Option<Self> {
        if node.is_null() {
            Some(Self::Unset)
        } else {
            T::decode(node, decoder).map(Self::Set)
        }
    }

    fn absent() -> Option<Self> {
        Some(Self::Inherit)
    }

    fn shape() -> Shape {
        Shape::Nullable(Box::new(T::shape()))
    }
}

impl<T: Decode> Decode for Vec<T> {
    fn decode(node: &Node<'_>, decoder: &mut Decoder<'_>) -> Option<Self> {
        let Value::Sequence(items) = &node.value else {
            return decoder.expected(
                node,
                "a list",
                "write `[a, b]`, or one `- item` a line; `[]` is an empty list",
            );
        };
        let mut list = Vec::with_capacity(items.len());
        let mut whole = true;
        for (index, item) in items.iter().enumerate() {
            match decoder.item(index, item) {
                Some(value) => list.push(value),
                None => whole = false,
            }
        }
        whole.then_some(list)
    }

    fn shape() -> Shape {
        Shape::List(Box::new(T::shape()))
    }
}

/// A map whose keys are the operator's own names, in the order of the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Map<K, V>(pub Vec<(At<K>, V)>);

impl<K, V> Default for Map<K, V> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<K: Scalar, V: Decode> Decode for Map<K, V> {
    fn decode(node: &Node<'_>, decoder: &mut Decoder<'_>) -> Option<Self> {
        let entries = decoder.entries(node, "a map")?;
        let mut map = Vec::with_capacity(entries.len());
        let mut whole = true;
        for entry in entries {
            let key = match K::read(&entry.key) {
                Ok(key) => Some(At {
                    value: key,
                    place: decoder.place(entry.mark),
                }),
                Err(misfit) => {
                    let (what, remedy) = misfit.words::<K>(&quote(&entry.key));
                    decoder.within(Step::Key(entry.key.to_string()), entry.mark, |decoder| {
                        decoder.refuse(entry.mark, what, remedy)
                    })
                }
            };
            match (key, decoder.member(entry)) {
                (Some(key), Some(value)) => map.push((key, value)),
                _ => whole = false,
            }
        }
        whole.then_some(Self(map))
    }

    fn shape() -> Shape {
        Shape::Map {
            key: K::NAME,
            value: Box::new(V::shape()),
        }
    }
}
