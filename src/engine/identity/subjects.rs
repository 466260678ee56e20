//! The shoppers of one request: collected while the request is read, then handed out.
//!
//! Pure. In: keys, in the order in which the request names them. Out: [`Subjects`], distinct, in that order, or the reason
//! why nobody can be named ([`Nobody`]). Where keys come from is left to `fields` and `tree`.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;

use crate::engine::vocab::SUBJECT_LIMIT_BYTES;

/// The most distinct subjects that one request may name. Senders document batches of up to 1,000 updates; a request beyond
/// this names nobody, so that no body can make a decision arbitrarily expensive.
pub const SUBJECT_COUNT_LIMIT: usize = 4096;

/// Up to here, distinctness is found by comparing with each; beyond, in a set.
const FEW: usize = 16;

/// The subjects that one request names: at least one, distinct, in order.
///
/// More than one is a mixed body. `Debug` shows only how many there are, for keys leave the process hashed or not at all.
#[derive(Clone, PartialEq, Eq)]
pub struct Subjects(Kept);

#[derive(Clone, PartialEq, Eq)]
enum Kept {
    One(Box<str>),
    /// Two or more.
    Many(Box<[Box<str>]>),
}

impl Subjects {
    /// A single subject.
    ///
    /// # Errors
    /// `None` if the key is no identity: empty, or over [`SUBJECT_LIMIT_BYTES`].
    #[must_use]
    pub fn one(key: &str) -> Option<Self> {
        (!key.is_empty() && key.len() <= SUBJECT_LIMIT_BYTES).then(|| Self(Kept::One(key.into())))
    }

    /// Each subject once, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &str> + Clone {
        self.as_slice().iter().map(AsRef::as_ref)
    }

    /// The first one.
    #[must_use]
    pub fn first(&self) -> &str {
        match &self.0 {
            Kept::One(key) => key,
            Kept::Many(keys) => keys.first().map_or("", AsRef::as_ref),
        }
    }

    /// How many there are, from 1 to [`SUBJECT_COUNT_LIMIT`].
    #[expect(clippy::len_without_is_empty, reason = "there is always at least one")]
    #[must_use]
    pub fn len(&self) -> usize {
        self.as_slice().len()
    }

    fn as_slice(&self) -> &[Box<str>] {
        match &self.0 {
            Kept::One(key) => std::slice::from_ref(key),
            Kept::Many(keys) => keys,
        }
    }
}

impl fmt::Debug for Subjects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Subjects({})", self.len())
    }
}

/// Why a request names nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Nobody {
    /// An object on the way to an identity has a member twice: two parsers would see two shoppers.
    Ambiguous,
    /// No entry found a value that is not empty.
    NoMatch,
    /// The body was needed and is not there, as when it is over the capture limit.
    NotCaptured,
    /// A value that the mapping table of its entry does not know.
    NotMapped,
    /// The body is not JSON, a value is not UTF-8, or a token is none.
    NotReadable,
    /// A key has more than [`SUBJECT_LIMIT_BYTES`].
    TooLong,
    /// More than [`SUBJECT_COUNT_LIMIT`] distinct subjects.
    TooMany,
}

impl Nobody {
    /// Every reason, for metrics that list all of their labels.
    pub const ALL: [Nobody; 7] = [
        Nobody::Ambiguous,
        Nobody::NoMatch,
        Nobody::NotCaptured,
        Nobody::NotMapped,
        Nobody::NotReadable,
        Nobody::TooLong,
        Nobody::TooMany,
    ];

    /// The word as it stands in logs and metric labels.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Nobody::Ambiguous => "ambiguous",
            Nobody::NoMatch => "no_match",
            Nobody::NotCaptured => "not_captured",
            Nobody::NotMapped => "not_mapped",
            Nobody::NotReadable => "not_readable",
            Nobody::TooLong => "too_long",
            Nobody::TooMany => "too_many",
        }
    }

    /// Whether the request does name somebody, though not whom. A later entry would then answer for someone else.
    pub(super) const fn is_final(self) -> bool {
        matches!(self, Nobody::Ambiguous | Nobody::TooMany)
    }
}

impl fmt::Display for Nobody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Distinct keys in the order in which they were found, and what makes them doubtful.
///
/// The first key is held in place, so that a request of one shopper allocates only its [`Subjects`].
#[derive(Default)]
pub(super) struct Found<'a> {
    first: Option<Cow<'a, str>>,
    more: Option<Box<More<'a>>>,
    doubt: Option<Nobody>,
}

/// The keys behind the first one.
#[derive(Default)]
struct More<'a> {
    keys: Vec<Cow<'a, str>>,
    /// All of `keys`, as soon as they are more than [`FEW`]. Ordered by comparison, not hashed: nobody can choose keys that
    /// collide.
    seen: BTreeSet<Cow<'a, str>>,
}

impl<'a> More<'a> {
    fn contains(&mut self, key: &str) -> bool {
        if self.keys.len() <= FEW {
            return self.keys.iter().any(|known| known == key);
        }
        if self.seen.is_empty() {
            self.seen.extend(self.keys.iter().cloned());
        }
        self.seen.contains(key)
    }

    fn push(&mut self, key: Cow<'a, str>) {
        if !self.seen.is_empty() {
            self.seen.insert(key.clone());
        }
        self.keys.push(key);
    }
}

impl<'a> Found<'a> {
    /// Adds a key. An empty one is none; one over the limit makes the whole find doubtful, for the keys beside it must not
    /// decide for its shopper too.
    pub(super) fn push(&mut self, key: Cow<'a, str>) {
        if key.is_empty() {
            return;
        }
        if key.len() > SUBJECT_LIMIT_BYTES {
            return self.raise(Nobody::TooLong);
        }
        let Some(first) = &self.first else {
            self.first = Some(key);
            return;
        };
        if *first == key {
            return;
        }
        let more = self.more.get_or_insert_default();
        if more.contains(&key) {
            return;
        }
        if more.keys.len() + 1 == SUBJECT_COUNT_LIMIT {
            return self.raise(Nobody::TooMany);
        }
        more.push(key);
    }

    /// Notes a doubt. One that is final stays, whatever else is found.
    pub(super) fn raise(&mut self, doubt: Nobody) {
        if !self.doubt.is_some_and(Nobody::is_final) {
            self.doubt = Some(doubt);
        }
    }

    /// Adds what another source of the same entry found.
    pub(super) fn absorb(&mut self, other: Found<'a>) {
        if self.is_blank() {
            *self = other;
            return;
        }
        other.doubt.into_iter().for_each(|doubt| self.raise(doubt));
        let more = other.more.map(|more| more.keys).unwrap_or_default();
        other.first.into_iter().chain(more).for_each(|key| self.push(key));
    }

    /// The same, whatever it was read from.
    pub(super) fn into_owned(self) -> Found<'static> {
        let owned = |key: Cow<'_, str>| Cow::Owned(key.into_owned());
        let mut found = Found {
            first: self.first.map(owned),
            more: None,
            doubt: self.doubt,
        };
        let more = self.more.map(|more| more.keys).unwrap_or_default();
        more.into_iter().for_each(|key| found.push(owned(key)));
        found
    }

    /// Whether there is neither a key nor a doubt.
    pub(super) fn is_blank(&self) -> bool {
        self.first.is_none() && self.doubt.is_none()
    }

    /// What an entry says: somebody, nobody for a reason, or nothing at all.
    pub(super) fn finish(self) -> Result<Option<Subjects>, Nobody> {
        if let Some(doubt) = self.doubt {
            return Err(doubt);
        }
        let Some(first) = self.first else { return Ok(None) };
        Ok(Some(Subjects(match self.more {
            None => Kept::One(first.into()),
            Some(more) => Kept::Many(std::iter::once(first).chain(more.keys).map(Into::into).collect()),
        })))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(keys: impl IntoIterator<Item = String>) -> Found<'static> {
        let mut found = Found::default();
        keys.into_iter().for_each(|key| found.push(Cow::Owned(key)));
        found
    }

    #[test]
    fn keys_are_distinct_and_keep_their_order() {
        for count in [1, 2, FEW, FEW + 1, FEW + 2, FEW + 3, 500] {
            let keys: Vec<String> = (0..count).map(|n| ((n * 7919) % 10_007).to_string()).collect();
            let twice = keys.iter().chain(keys.iter().rev()).cloned();
            let subjects = found(twice).finish().unwrap().unwrap();
            assert!(subjects.iter().eq(keys.iter().map(String::as_str)), "{count}");
            assert_eq!(subjects.len(), count);
            assert_eq!(subjects.first(), keys[0]);
        }
    }

    #[test]
    fn limit_counts_distinct_subjects_and_beyond_it_is_nobody() {
        let full: Vec<String> = (0..SUBJECT_COUNT_LIMIT).map(|n| n.to_string()).collect();
        let repeated = full.iter().chain(&full).cloned();
        assert_eq!(found(repeated).finish().unwrap().unwrap().len(), SUBJECT_COUNT_LIMIT);
        let over = full.into_iter().chain(["one more".to_owned()]);
        assert_eq!(found(over).finish(), Err(Nobody::TooMany));
    }

    #[test]
    fn empty_key_is_none_and_over_long_one_spoils_the_find() {
        assert_eq!(found([String::new()]).finish(), Ok(None));
        let longest = "k".repeat(SUBJECT_LIMIT_BYTES);
        assert_eq!(found([longest.clone()]).finish(), Ok(Subjects::one(&longest)));
        assert_eq!(
            found(["a".to_owned(), format!("{longest}k")]).finish(),
            Err(Nobody::TooLong)
        );
    }

    #[test]
    fn final_doubt_outlasts_a_lesser_one() {
        for order in [
            [Nobody::TooLong, Nobody::Ambiguous],
            [Nobody::Ambiguous, Nobody::TooLong],
        ] {
            let mut found = Found::default();
            order.into_iter().for_each(|doubt| found.raise(doubt));
            assert_eq!(found.finish(), Err(Nobody::Ambiguous));
        }
    }

    #[test]
    fn absorbing_unites_keys_and_doubts() {
        let mut all = found(["a".to_owned(), "b".to_owned()]);
        all.absorb(found(["b".to_owned(), "c".to_owned()]));
        assert!(all.finish().unwrap().unwrap().iter().eq(["a", "b", "c"]));
        let mut all = found(["a".to_owned()]);
        let mut doubtful = Found::default();
        doubtful.raise(Nobody::Ambiguous);
        all.absorb(doubtful);
        assert_eq!(all.finish(), Err(Nobody::Ambiguous));
    }

    #[test]
    fn debug_shows_no_key() {
        assert_eq!(format!("{:?}", Subjects::one("33639980123").unwrap()), "Subjects(1)");
        assert_eq!(Subjects::one(""), None);
        assert_eq!(Subjects::one(&"k".repeat(SUBJECT_LIMIT_BYTES + 1)), None);
    }
}
