//! JSON pointers as the configuration writes them: RFC 6901, with `*` for every member of an array.
//!
//! Pure. In: one text. Out: a [`Pointer`], or the rule that the text breaks. Following pointers through a body is left to
//! `tree`.

use std::fmt;

/// The most segments a pointer may have. A body is walked recursively along pointers, so this bounds the stack too.
pub const SEGMENT_LIMIT: usize = 32;

/// A place in a JSON body, or one place in every member of some arrays.
///
/// Shape: `/entry/*/changes/*/value/messages/*/from`. Segments are RFC 6901 reference tokens (`~0` is `~`, `~1` is `/`),
/// compared exactly. A segment that is a whole number names an array's member (from 0) and an object's member of that name
/// alike. `*` stands for every member of an array, and for nothing in an object.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pointer {
    segments: Box<[Segment]>,
}

/// One step of a pointer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Segment {
    /// Every member of an array.
    Each,
    /// The member of an object with this name or, if it is a whole number, of an array at this index.
    Name(Box<str>),
}

impl Segment {
    /// The index that the segment names in an array, if it can name one (RFC 6901: no leading zeros).
    pub(super) fn index(&self) -> Option<usize> {
        let Segment::Name(name) = self else { return None };
        let canonical = name.bytes().all(|b| b.is_ascii_digit()) && (name.len() == 1 || !name.starts_with('0'));
        canonical.then(|| name.parse().ok()).flatten()
    }
}

/// Why a text is no pointer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PointerError {
    /// The empty pointer, which is the whole body.
    #[error("an empty pointer is the whole body, which is no identity; name a member, such as `/customer/id`")]
    Empty,
    /// A `~` that is neither `~0` nor `~1`, at this byte.
    #[error("the `~` at byte {0} is neither `~0` (a tilde) nor `~1` (a slash)")]
    Escape(usize),
    /// More than [`SEGMENT_LIMIT`] segments.
    #[error("a pointer has at most 32 segments, this one has {0}")]
    Long(usize),
    /// The first character is not `/`.
    #[error("a pointer begins with `/`")]
    Slash,
    /// A segment that contains `*` beside something else and starts at this byte.
    #[error("the segment at byte {0} contains `*`, which stands for a whole segment: every member of an array")]
    Star(usize),
}

impl Pointer {
    /// Reads a pointer.
    ///
    /// # Errors
    /// [`PointerError`] says which rule the text breaks.
    pub fn parse(text: &str) -> Result<Self, PointerError> {
        let tail = match text.strip_prefix('/') {
            Some(tail) => tail,
            None if text.is_empty() => return Err(PointerError::Empty),
            None => return Err(PointerError::Slash),
        };
        let mut segments = Vec::new();
        let mut at = 1;
        for token in tail.split('/') {
            segments.push(segment(token, at)?);
            at += token.len() + 1;
        }
        if segments.len() > SEGMENT_LIMIT {
            return Err(PointerError::Long(segments.len()));
        }
        Ok(Self {
            segments: segments.into(),
        })
    }

    pub(super) fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// The segments up to and with the last `*`: pointers that share them look into the same members.
    pub(super) fn scope(&self) -> &[Segment] {
        let stars = self
            .segments
            .iter()
            .rposition(|segment| *segment == Segment::Each)
            .map_or(0, |last| last + 1);
        self.segments.get(..stars).unwrap_or_default()
    }
}

fn segment(token: &str, at: usize) -> Result<Segment, PointerError> {
    if token == "*" {
        return Ok(Segment::Each);
    }
    if token.contains('*') {
        return Err(PointerError::Star(at));
    }
    let mut name = String::with_capacity(token.len());
    let mut rest = token;
    while let Some((before, after)) = rest.split_once('~') {
        name.push_str(before);
        name.push(match after.as_bytes().first() {
            Some(b'0') => '~',
            Some(b'1') => '/',
            _ => return Err(PointerError::Escape(at + token.len() - after.len() - 1)),
        });
        rest = after.get(1..).unwrap_or_default();
    }
    name.push_str(rest);
    Ok(Segment::Name(name.into()))
}

impl fmt::Display for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.segments.iter().try_for_each(|segment| match segment {
            Segment::Each => f.write_str("/*"),
            Segment::Name(name) => write!(f, "/{}", name.replace('~', "~0").replace('/', "~1")),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pointer_prints_as_it_was_written() {
        for text in ["/", "/a", "/a/*/b", "/0/01/-", "/m~0n/a~1b", "/é/ /*"] {
            assert_eq!(
                Pointer::parse(text).map(|pointer| pointer.to_string()),
                Ok(text.to_owned())
            );
        }
    }

    #[test]
    fn refused_pointer_says_which_rule_it_breaks_and_where() {
        for (text, error) in [
            ("", PointerError::Empty),
            ("customer/id", PointerError::Slash),
            ("/a/b~2", PointerError::Escape(4)),
            ("/a/~0~", PointerError::Escape(5)),
            ("/a/**/b", PointerError::Star(3)),
            ("/a/b*", PointerError::Star(3)),
        ] {
            assert_eq!(Pointer::parse(text), Err(error), "{text}");
        }
        assert!(Pointer::parse(&"/a".repeat(SEGMENT_LIMIT)).is_ok());
        assert_eq!(
            Pointer::parse(&"/a".repeat(SEGMENT_LIMIT + 1)),
            Err(PointerError::Long(SEGMENT_LIMIT + 1))
        );
    }

    #[test]
    fn only_canonical_numbers_are_indexes() {
        let index = |text: &str| Segment::Name(text.into()).index();
        assert_eq!(index("0"), Some(0));
        assert_eq!(index("17"), Some(17));
        for text in ["", "00", "01", "-", "-1", "+1", "1e0", "99999999999999999999999"] {
            assert_eq!(index(text), None, "{text}");
        }
    }

    #[test]
    fn scope_ends_with_the_last_star() {
        let scope = |text: &str| Pointer::parse(text).unwrap().scope().len();
        assert_eq!(scope("/customer/id"), 0);
        assert_eq!(scope("/entry/*/changes/*/value"), 4);
        assert_eq!(scope("/*"), 1);
    }
}
