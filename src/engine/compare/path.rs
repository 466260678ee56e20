//! Places: where a divergence is, and the patterns that name places.
//!
//! Pure. In: patterns as configuration writes them, and the steps of a walk. Out: which pattern covers the place being
//! walked, and a [`Place`] for a divergence. Patterns are compiled once and advance one step at a time, as bit sets,
//! while the walk descends; nothing is matched against a finished pointer. What a cover means (ignored, or of a given
//! severity) is `diff`'s business.

use std::fmt;
use std::fmt::Write as _;

use http::HeaderName;

use super::json::Text;
use super::sample::is_name;

/// The longest pointer that is shown whole, in bytes; a longer one is cut and can explain no other.
pub const POINTER_LIMIT_BYTES: usize = 1024;

/// The most segments of one pattern.
const SEGMENT_LIMIT: usize = 60;

/// A text that names places, as in `compare.ignore` and `compare.severity`.
///
/// Shape: an RFC 6901 pointer (`/order/total`, `~1` for `/`, `~0` for `~`) whose segment `*` stands for any one member
/// or index and `**` for any number of them, none too; or `@status`, `@header.NAME`, `@body`. It covers the place it
/// names and everything below; `@body` covers a body of every format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    text: Box<str>,
    target: Target,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Target {
    Body,
    Header(HeaderName),
    Json(Compiled),
    Status,
}

/// Bit i of a set stands for: the first i segments have matched.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Compiled {
    names: Vec<Name>,
    one: u64,
    many: u64,
    end: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Name {
    at: u64,
    text: Box<str>,
    index: Option<usize>,
}

/// Why a text is no [`Pattern`]; each message says what to write instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// `~` that is neither `~0` nor `~1`.
    #[error("`~` stands for itself only as `~0`, and `~1` is `/`")]
    Escape,
    /// `@header.` with something that is no header name.
    #[error("write `@header.` and the name of a header, for example `@header.content-type`")]
    Header,
    /// More segments than a pattern may have.
    #[error("a pattern has at most 60 segments; use `**` for a long way down")]
    Long,
    /// Neither a pointer nor `@status`, `@header.NAME`, `@body`.
    #[error("a place begins with `/`, or is `@status`, `@body` or `@header.NAME`; `/**` is the whole JSON body")]
    Start,
    /// A segment with a star and something else.
    #[error("`*` and `**` stand for whole segments; write `/*/id`, not `/item*/id`")]
    Star,
}

impl Pattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// [`PatternError`] says what is wrong and what to write instead.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let target = match text {
            "@status" => Target::Status,
            "@body" => Target::Body,
            _ => match (text.strip_prefix("@header."), text.strip_prefix('/')) {
                (Some(name), _) => Target::Header(name.parse().map_err(|_| PatternError::Header)?),
                (None, Some(pointer)) => Target::Json(Compiled::parse(pointer)?),
                (None, None) => return Err(PatternError::Start),
            },
        };
        Ok(Self {
            text: text.into(),
            target,
        })
    }

    /// The text as written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    pub(super) fn is_status(&self) -> bool {
        self.target == Target::Status
    }

    pub(super) fn is_body(&self) -> bool {
        self.target == Target::Body
    }

    pub(super) fn is_header(&self, name: &HeaderName) -> bool {
        matches!(&self.target, Target::Header(header) if header == name)
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::str::FromStr for Pattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        Self::parse(text)
    }
}

impl Compiled {
    fn parse(pointer: &str) -> Result<Self, PatternError> {
        let (mut names, mut one, mut many) = (Vec::new(), 0, 0);
        let mut at = 1_u64;
        let mut count = 0;
        for segment in pointer.split('/') {
            match segment {
                // `**/**` is `**`; folding it lets one shift close a set over empty matches.
                "**" if many & (at >> 1) != 0 => continue,
                "**" => many |= at,
                "*" => one |= at,
                _ if segment.contains('*') => return Err(PatternError::Star),
                _ => {
                    let text = unescape(segment)?;
                    let index = text.parse().ok().filter(|index: &usize| index.to_string() == text);
                    names.push(Name {
                        at,
                        text: text.into(),
                        index,
                    });
                }
            }
            count += 1;
            if count > SEGMENT_LIMIT {
                return Err(PatternError::Long);
            }
            at <<= 1;
        }
        Ok(Self {
            names,
            one,
            many,
            end: at,
        })
    }

    fn start(&self) -> u64 {
        self.close(1)
    }

    /// `**` matches nothing at all, too.
    fn close(&self, set: u64) -> u64 {
        set | ((set & self.many) << 1)
    }

    fn advance(&self, set: u64, step: Step<'_>) -> u64 {
        let mut moved = set & self.one;
        for name in &self.names {
            if set & name.at != 0 && name.matches(step) {
                moved |= name.at;
            }
        }
        self.close((moved << 1) | (set & self.many))
    }
}

impl Name {
    fn matches(&self, step: Step<'_>) -> bool {
        match step {
            Step::Index(index) => self.index == Some(index),
            Step::Member(name) => *self.text.as_bytes() == *name.decode(),
        }
    }
}

fn unescape(segment: &str) -> Result<String, PatternError> {
    let mut text = String::with_capacity(segment.len());
    let mut chars = segment.chars();
    while let Some(c) = chars.next() {
        text.push(match c {
            '~' => match chars.next() {
                Some('0') => '~',
                Some('1') => '/',
                _ => return Err(PatternError::Escape),
            },
            c => c,
        });
    }
    Ok(text)
}

/// One step down a document.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step<'t> {
    /// Into the item of an array, counted from 0.
    Index(usize),
    /// Into a member of an object.
    Member(Text<'t>),
}

/// How far the patterns of one list have matched on the way to the place being walked.
#[derive(Debug)]
pub(super) struct Cursor<'r> {
    patterns: Vec<(usize, &'r Compiled)>,
    /// One set per pattern and level.
    sets: Vec<u64>,
}

impl<'r> Cursor<'r> {
    /// A cursor at the root of a document; each pattern keeps its position in the list as its number.
    pub(super) fn new(patterns: impl Iterator<Item = &'r Pattern>) -> Self {
        let patterns: Vec<_> = patterns
            .enumerate()
            .filter_map(|(number, pattern)| match &pattern.target {
                Target::Json(compiled) => Some((number, compiled)),
                _ => None,
            })
            .collect();
        let sets = patterns.iter().map(|(_, compiled)| compiled.start()).collect();
        Self { patterns, sets }
    }

    fn level(&self) -> usize {
        self.sets.len().saturating_sub(self.patterns.len())
    }

    /// Goes down one step.
    pub(super) fn descend(&mut self, step: Step<'_>) {
        let level = self.level();
        for (offset, (_, compiled)) in self.patterns.iter().enumerate() {
            let set = self.sets[level + offset];
            self.sets.push(if set == 0 { 0 } else { compiled.advance(set, step) });
        }
    }

    /// Goes back up one step.
    pub(super) fn ascend(&mut self) {
        self.sets.truncate(self.level());
    }

    /// The number of the first pattern that names exactly this place.
    pub(super) fn named_by(&self) -> Option<usize> {
        let sets = self.sets.iter().skip(self.level());
        let hit = sets
            .zip(&self.patterns)
            .find(|(set, (_, compiled))| *set & compiled.end != 0);
        hit.map(|(_, (number, _))| *number)
    }
}

/// Where a divergence is.
///
/// Shape: an RFC 6901 pointer into the JSON body (empty: the whole document), or `@status`, `@header.NAME`, `@body`. At
/// most [`POINTER_LIMIT_BYTES`]; what is longer ends in `…`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    text: String,
    /// Where the indexes of arrays stand in the text: begin and end.
    indexes: Vec<(u16, u16)>,
    cut: bool,
}

impl Place {
    pub(super) fn fixed(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            indexes: Vec::new(),
            cut: false,
        }
    }

    pub(super) fn of(steps: &[Step<'_>]) -> Self {
        let mut place = Self::fixed("");
        for step in steps {
            let start = place.text.len();
            place.text.push('/');
            match step {
                Step::Index(index) => {
                    // Writing to a String cannot fail.
                    let _ = write!(place.text, "{index}");
                    // Fits: the text is cut at 1,024 bytes and a number has at most 20 digits.
                    place.indexes.push((start as u16 + 1, place.text.len() as u16));
                }
                Step::Member(name) => {
                    for c in String::from_utf8_lossy(&name.decode()).chars() {
                        match c {
                            '~' => place.text.push_str("~0"),
                            '/' => place.text.push_str("~1"),
                            c => place.text.push(c),
                        }
                        if place.text.len() > POINTER_LIMIT_BYTES {
                            break;
                        }
                    }
                }
            }
            if place.text.len() > POINTER_LIMIT_BYTES {
                let end = place.text.floor_char_boundary(POINTER_LIMIT_BYTES - '…'.len_utf8());
                place.text.truncate(end);
                place.text.push('…');
                place.indexes.retain(|&(_, to)| usize::from(to) <= end);
                place.cut = true;
                break;
            }
        }
        place
    }

    /// The pointer with all names in clear. Names can be data (a map with phone numbers as keys): see [`Self::redacted`].
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The pointer was too long and has been cut: two different places may share it.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.cut
    }

    /// The place of the array or object around this one; itself where there is none.
    #[must_use]
    pub fn parent(&self) -> &str {
        self.text.rsplit_once('/').map_or(&self.text, |(parent, _)| parent)
    }

    /// The pointer with `*` for every member name that looks like data rather than like a name in a schema.
    ///
    /// A name is kept if it begins with a letter, `_`, `$` or `@`, has at most 40 bytes out of `[A-Za-z0-9_.:$@-]` and
    /// at most 4 digits, and `@` nowhere but first; places outside a JSON body are kept as they are.
    #[must_use]
    pub fn redacted(&self) -> String {
        self.rewrite(
            "/",
            |segment, index| if index || is_name(segment) { segment } else { "*" },
        )
    }

    /// [`Self::redacted`] with `*` for every index, too: the same for all items of an array. For reports and grouping.
    #[must_use]
    pub fn template(&self) -> String {
        self.rewrite(
            "/",
            |segment, index| if !index && is_name(segment) { segment } else { "*" },
        )
    }

    /// Names in clear, joined by dots, without indexes: `items.score`.
    #[must_use]
    pub fn dotted(&self) -> String {
        let dotted = self.rewrite(".", |segment, index| if index { "" } else { segment });
        dotted.strip_prefix('.').map(str::to_owned).unwrap_or(dotted)
    }

    /// Joins the segments as `f(segment, is it an index)` gives them, each behind `separator`; an empty one vanishes
    /// where it was an index.
    fn rewrite<'a>(&'a self, separator: &str, f: impl Fn(&'a str, bool) -> &'a str) -> String {
        let mut out = String::with_capacity(self.text.len());
        let Some(pointer) = self.text.strip_prefix('/') else {
            return self.text.clone();
        };
        let mut start = 1;
        let mut indexes = self.indexes.iter().map(|&(from, _)| usize::from(from)).peekable();
        for segment in pointer.split('/') {
            let index = indexes.next_if_eq(&start).is_some();
            start += segment.len() + 1;
            let shown = f(segment, index);
            if !(index && shown.is_empty()) {
                out.push_str(separator);
                out.push_str(shown);
            }
        }
        out
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Steps of a pointer; `#3` is an index.
    fn steps(pointer: &str) -> Vec<Step<'_>> {
        let segments = pointer.split('/').skip(1);
        segments
            .map(|segment| match segment.strip_prefix('#') {
                Some(index) => Step::Index(index.parse().unwrap()),
                None => Step::Member(Text::of(segment)),
            })
            .collect()
    }

    fn names(pattern: &str, pointer: &str) -> bool {
        let pattern = Pattern::parse(pattern).unwrap();
        let mut cursor = Cursor::new(std::iter::once(&pattern));
        for step in steps(pointer) {
            cursor.descend(step);
        }
        cursor.named_by().is_some()
    }

    #[test]
    fn one_star_is_one_segment_and_two_are_any_number() {
        let table = [
            ("/timestamp", "/timestamp", true),
            ("/timestamp", "", false),
            ("/timestamp", "/a/timestamp", false),
            ("/timestamp", "/timestamps", false),
            ("/items/*/id", "/items/#3/id", true),
            ("/items/*/id", "/items/x/id", true),
            ("/items/*/id", "/items/id", false),
            ("/items/*/id", "/items/#3/#4/id", false),
            ("/items/3", "/items/#3", true),
            ("/items/3", "/items/3", true),
            ("/items/03", "/items/#3", false),
            ("/items/03", "/items/03", true),
            ("/**/request_id", "/request_id", true),
            ("/**/request_id", "/a/#0/b/request_id", true),
            ("/**/request_id", "/a/request_id/b", false),
            ("/**/a/**/b", "/a/a/x/b", true),
            ("/**/a/**/b", "/x/b", false),
            ("/**/a/*/b", "/a/a/a/b", true),
            ("/**/**/a", "/a", true),
            ("/**", "", true),
            ("/**", "/a/b", true),
            ("/a/**", "/a", true),
            ("/a/**", "/b", false),
            ("/*", "", false),
            ("/a~1b/m~0n", r"/a\u002fb/m~n", true),
            ("/", "/", true),
            ("/é", "/\\u00e9", true),
        ];
        for (pattern, pointer, expected) in table {
            assert_eq!(names(pattern, pointer), expected, "{pattern} on {pointer}");
        }
    }

    #[test]
    fn longest_pattern_works_to_its_end() {
        let longest = "/a".repeat(SEGMENT_LIMIT);
        assert!(names(&longest, &longest));
        assert!(names(
            &format!("/**{}", "/a".repeat(SEGMENT_LIMIT - 1)),
            &"/a".repeat(200)
        ));
        assert_eq!(Pattern::parse(&"/a".repeat(SEGMENT_LIMIT + 1)), Err(PatternError::Long));
    }

    #[test]
    fn cursor_returns_to_where_it_was() {
        let patterns = [
            Pattern::parse("/a/b").unwrap(),
            Pattern::parse("@status").unwrap(),
            Pattern::parse("/**/c").unwrap(),
        ];
        let mut cursor = Cursor::new(patterns.iter());
        let [a, b, c] = ["a", "b", "c"].map(|name| Step::Member(Text::of(name)));
        cursor.descend(a);
        assert_eq!(cursor.named_by(), None);
        cursor.descend(b);
        assert_eq!(cursor.named_by(), Some(0));
        cursor.ascend();
        cursor.descend(c);
        assert_eq!(cursor.named_by(), Some(2));
        cursor.ascend();
        cursor.ascend();
        assert_eq!(cursor.named_by(), None);
    }

    #[test]
    fn what_is_no_pattern_is_refused_with_a_remedy() {
        let table = [
            ("", PatternError::Start),
            ("timestamp", PatternError::Start),
            ("@cookie", PatternError::Start),
            ("$.a", PatternError::Start),
            ("/a~2", PatternError::Escape),
            ("/a~", PatternError::Escape),
            ("/item*/id", PatternError::Star),
            ("/***", PatternError::Star),
            ("@header.", PatternError::Header),
            ("@header.a b", PatternError::Header),
        ];
        for (text, expected) in table {
            assert_eq!(Pattern::parse(text), Err(expected), "{text}");
        }
        assert_eq!(
            Pattern::parse("@header.X-Id").unwrap(),
            Pattern::parse("@header.X-Id").unwrap()
        );
        assert!(
            Pattern::parse("@header.X-Id")
                .unwrap()
                .is_header(&HeaderName::from_static("x-id"))
        );
    }

    #[test]
    fn place_is_shown_four_ways() {
        let place = Place::of(&steps(r"/items/#3/a~b\u002fc/33639980123"));
        assert_eq!(place.as_str(), "/items/3/a~0b~1c/33639980123");
        assert_eq!(place.redacted(), "/items/3/*/*");
        assert_eq!(place.template(), "/items/*/*/*");
        assert_eq!(Place::of(&steps("/items/#3/score")).template(), "/items/*/score");
        assert_eq!(Place::of(&steps("/items/#3/score")).dotted(), "items.score");
        assert_eq!(Place::of(&steps("/items/3/score")).dotted(), "items.3.score");
        assert_eq!(Place::of(&steps("/#0/#1")).dotted(), "");
        assert_eq!(Place::of(&[]).template(), "");
        assert_eq!(Place::fixed("@header.x-id").dotted(), "@header.x-id");
        assert_eq!(place.parent(), "/items/3/a~0b~1c");
    }

    #[test]
    fn endless_pointer_is_cut_and_says_so() {
        let name = "é".repeat(5_000);
        let place = Place::of(&[Step::Index(1), Step::Member(Text::of(&name)), Step::Index(2)]);
        assert!(place.is_cut() && place.as_str().len() <= POINTER_LIMIT_BYTES && place.as_str().ends_with('…'));
        assert_eq!(place.template(), "/*/*");
        assert!(!Place::of(&steps("/a")).is_cut());
    }
}
