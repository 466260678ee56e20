//! YAML text in, a tree with places out, and back again (`write`): the one folder that names the YAML library.
//!
//! Pure. It works on the library's events and not on its deserialiser, because a scalar must keep its text as written
//! (`0123`, `1e3`, a phone number) until somebody knows which type is wanted, and because a problem needs the place of
//! a key as well as of its value. YAML 1.2, of which JSON is a part. Aliases are written out and merge keys (`<<`)
//! applied here, within a budget of our own. What the values mean is left to `decode`.

mod build;
#[cfg(test)]
mod tests;
mod torn;
mod write;

use std::borrow::Cow;
use std::sync::Arc;

use super::problem::{Place, Problems, quote};

pub use write::{line, write};

/// The longest text that is read, in bytes.
pub const TEXT_LIMIT_BYTES: usize = 256 * 1024 * 1024;

/// The most values that one text may write down: a list of a million ids eight times over.
pub const NODE_LIMIT: usize = 8_000_000;

/// How deep lists and maps may nest. Everything that walks a tree may therefore recurse.
pub const DEPTH_LIMIT: usize = 64;

/// A line and a column of the text at hand, both from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark {
    /// From 1.
    pub line: u32,
    /// From 1, in characters.
    pub column: u32,
}

impl Mark {
    /// The beginning of a text.
    pub const TOP: Mark = Mark { line: 1, column: 1 };

    /// This mark in a named file.
    #[must_use]
    pub fn in_file(self, file: &Arc<str>) -> Place {
        Place {
            file: Arc::clone(file),
            line: self.line,
            column: self.column,
        }
    }
}

/// A value and where it begins.
#[derive(Clone, Debug, PartialEq)]
pub struct Node<'t> {
    /// Where it begins; of an omitted value (`key:`), its key.
    pub mark: Mark,
    /// What it is.
    pub value: Value<'t>,
}

/// What a YAML text can say.
#[derive(Clone, Debug, PartialEq)]
pub enum Value<'t> {
    /// Keys in the order of the text; each key once.
    Mapping(Vec<Entry<'t>>),
    /// Without quotes: may be meant as a text, a number, a boolean or nothing.
    Plain(Cow<'t, str>),
    /// In quotes, as a block, or tagged `!!str`: a text and nothing else.
    Quoted(Cow<'t, str>),
    /// In the order of the text.
    Sequence(Vec<Node<'t>>),
}

/// One member of a mapping.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry<'t> {
    /// The key's text as written.
    pub key: Cow<'t, str>,
    /// Where the key begins.
    pub mark: Mark,
    /// Its value.
    pub value: Node<'t>,
}

impl Node<'_> {
    /// Whether this is YAML's null: nothing at all, `~` or `null`, without quotes.
    #[must_use]
    pub fn is_null(&self) -> bool {
        matches!(&self.value, Value::Plain(text) if is_null(text))
    }

    /// The text of a scalar that is not null, with or without quotes.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Plain(text) if is_null(text) => None,
            Value::Plain(text) | Value::Quoted(text) => Some(text),
            Value::Mapping(_) | Value::Sequence(_) => None,
        }
    }

    /// What was found, for a message: `a list`, `a map`, `nothing`, or the text itself.
    #[must_use]
    pub fn found(&self) -> String {
        match &self.value {
            Value::Mapping(_) => "a map".into(),
            Value::Plain(text) if is_null(text) => "nothing".into(),
            Value::Plain(text) => quote(text),
            Value::Quoted(text) => format!("the text {}", quote(text)),
            Value::Sequence(_) => "a list".into(),
        }
    }
}

fn is_null(plain: &str) -> bool {
    matches!(plain, "" | "~" | "null" | "Null" | "NULL")
}

/// One member of a path from the top of a text to a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Position in a list, from 0.
    Index(usize),
    /// Key of a map.
    Key(String),
}

/// A path as messages show it: `routes[0].shadow.percent`; a key that is no plain word stands in quotes.
#[must_use]
pub fn path_text(steps: &[Step]) -> String {
    let mut text = String::new();
    for step in steps {
        match step {
            Step::Index(index) => {
                text.push('[');
                text.push_str(&index.to_string());
                text.push(']');
            }
            Step::Key(key) => {
                if !text.is_empty() {
                    text.push('.');
                }
                let plain = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
                text.push_str(&if plain { key.clone() } else { format!("{key:?}") });
            }
        }
    }
    text
}

/// The bytes of a file as text.
///
/// # Errors
/// Reports the first byte that is no UTF-8 and answers nothing.
pub fn utf8<'t>(file: &Arc<str>, bytes: &'t [u8], problems: &mut Problems) -> Option<&'t str> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Some(text),
        Err(error) => {
            let good = bytes.get(..error.valid_up_to()).unwrap_or_default();
            let line_start = memchr::memrchr(b'\n', good).map_or(0, |at| at + 1);
            let line = memchr::memchr_iter(b'\n', good).count() + 1;
            let before = good.get(line_start..).unwrap_or_default();
            let column = String::from_utf8_lossy(before).chars().count() + 1;
            let mark = Mark {
                line: number(line),
                column: number(column),
            };
            problems.problem(
                mark.in_file(file),
                "",
                "a byte that is no UTF-8 text",
                "save the file as UTF-8",
            );
            None
        }
    }
}

/// Reads one document. An empty text is a null at its top.
///
/// # Errors
/// What is wrong goes to `problems`. Twice the same key is reported and reading goes on (the first stands); anything
/// else that is no YAML ends the reading, with nothing answered.
pub fn parse<'t>(file: &Arc<str>, text: &'t str, problems: &mut Problems) -> Option<Node<'t>> {
    if text.len() > TEXT_LIMIT_BYTES {
        let what = format!("the text is longer than {} MiB", TEXT_LIMIT_BYTES / 1024 / 1024);
        problems.problem(Place::whole(Arc::clone(file)), "", what, "split the file");
        return None;
    }
    build::build(file, text, problems)
}

/// Places fit 32 bits: texts are shorter than 4 GiB.
fn number(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}
