//! A mapping table: from the keys that requests carry to the keys that operators and rules know.
//!
//! Pure. In: the text of a file, lines `from,to`. Out: a [`Mapping`], or every line that is wrong. Reading the file, and
//! doing so again when it changes, is left to `config` and `control`.

use std::fmt;

use xxhash_rust::xxh64::xxh64;

use super::normalise::Normalise;
use crate::engine::vocab::SUBJECT_LIMIT_BYTES;

/// From one key to another, such as from a telephone number to a shopper's id.
///
/// Shape of the text: one `from,to` in a line, each trimmed, in UTF-8; empty lines and lines that begin with `#` are
/// passed over. There is no quoting: neither side has a comma or a quotation mark.
///
/// Memory: the bytes of both keys, 16 to 32 bytes of table and 12 of lengths for each line.
#[derive(Clone, Default)]
pub struct Mapping {
    /// Both keys of each line, one behind the other.
    text: Box<str>,
    lines: Box<[Line]>,
    /// Open addressing: 0 is free, else the number of a line from 1. A power of two long, at most half full.
    slots: Box<[u32]>,
}

#[derive(Clone, Copy)]
struct Line {
    start: usize,
    // Both are at most `SUBJECT_LIMIT_BYTES`.
    from: u16,
    to: u16,
}

/// Something wrong with one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadLine {
    /// From 1.
    pub line: u32,
    /// From 1, in characters.
    pub column: u32,
    /// What it is.
    pub what: MappingError,
}

/// What is wrong with a line of a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MappingError {
    /// The same key stands in this line already.
    #[error("this key stands in line {0} already")]
    Again(u32),
    /// There is nothing before or behind the comma.
    #[error("there is no key on this side of the comma")]
    Empty,
    /// A key that no request can have.
    #[error("a key has at most 1,024 bytes")]
    Long,
    /// No comma.
    #[error("this line has no comma")]
    NoComma,
    /// A quotation mark.
    #[error("a quotation mark is part of no key")]
    Quoted,
    /// A second comma.
    #[error("this line has a second comma")]
    SecondComma,
}

impl MappingError {
    /// What to do about it.
    #[must_use]
    pub const fn remedy(self) -> &'static str {
        match self {
            Self::Again(_) => "keep one of the two lines: one key leads to one shopper",
            Self::Empty | Self::NoComma => "write `from,to`, such as `33639980123,shopper_001`",
            Self::Long => "a longer one is no identity of any request: remove the line",
            Self::Quoted | Self::SecondComma => "write `from,to` without quotation marks and nothing behind it",
        }
    }
}

impl Mapping {
    /// Reads a mapping. `normalise` is what is done to the values that are looked up, and so to the keys on the left too:
    /// a telephone number may be spelt in the file as its owner spells it.
    ///
    /// # Errors
    /// Every wrong line, in order.
    pub fn parse(text: &str, normalise: Normalise) -> Result<Self, Vec<BadLine>> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let count = text.lines().count();
        let mut table = Table {
            mapping: Self {
                text: Box::default(),
                lines: Box::default(),
                slots: vec![0; (count * 2).next_power_of_two().max(2)].into(),
            },
            text: String::with_capacity(text.len()),
            lines: Vec::with_capacity(count),
            numbers: Vec::with_capacity(count),
        };
        let mut bad = Vec::new();
        for (number, line) in (1_u32..).zip(text.lines()) {
            if line.trim().is_empty() || line.trim_start().starts_with('#') {
                continue;
            }
            let added = split(line).and_then(|(from, to)| {
                let key = normalise.apply(from.text.into());
                let usable = if key.is_empty() {
                    Err(MappingError::Empty)
                } else if key.len() > SUBJECT_LIMIT_BYTES {
                    Err(MappingError::Long)
                } else {
                    table.add(&key, to.text, number)
                };
                usable.map_err(|what| (from.at, what))
            });
            if let Err((at, what)) = added {
                let column = line.get(..at).unwrap_or(line).chars().count() + 1;
                bad.push(BadLine {
                    line: number,
                    column: u32::try_from(column).unwrap_or(u32::MAX),
                    what,
                });
            }
        }
        if bad.is_empty() { Ok(table.finish()) } else { Err(bad) }
    }

    /// What a key leads to.
    #[must_use]
    pub fn find(&self, from: &str) -> Option<&str> {
        if self.lines.is_empty() {
            return None;
        }
        let line = probe(&self.slots, &self.lines, &self.text, from).ok()?;
        let start = line.start + usize::from(line.from);
        self.text.get(start..start + usize::from(line.to))
    }

    /// The number of keys.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.lines.len()
    }

    /// Whether no key leads anywhere.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }
}

impl fmt::Debug for Mapping {
    /// The size alone: whom it names does not belong into logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mapping({})", self.lines.len())
    }
}

impl PartialEq for Mapping {
    fn eq(&self, other: &Self) -> bool {
        self.lines.len() == other.lines.len()
            && self.lines.iter().all(|line| {
                let from = self.text.get(line.start..line.start + usize::from(line.from));
                from.is_some_and(|from| self.find(from) == other.find(from))
            })
    }
}

impl Eq for Mapping {}

/// A mapping that grows.
struct Table {
    /// Its slots are in use, the rest comes in the end.
    mapping: Mapping,
    text: String,
    lines: Vec<Line>,
    /// The numbers of the lines in the file.
    numbers: Vec<u32>,
}

impl Table {
    fn add(&mut self, from: &str, to: &str, number: u32) -> Result<(), MappingError> {
        match probe(&self.mapping.slots, &self.lines, &self.text, from) {
            Ok(known) => {
                let index = self.lines.partition_point(|line| line.start < known.start);
                Err(MappingError::Again(
                    self.numbers.get(index).copied().unwrap_or_default(),
                ))
            }
            Err(free) => {
                let line = Line {
                    start: self.text.len(),
                    from: u16::try_from(from.len()).map_err(|_| MappingError::Long)?,
                    to: u16::try_from(to.len()).map_err(|_| MappingError::Long)?,
                };
                self.text.push_str(from);
                self.text.push_str(to);
                self.lines.push(line);
                self.numbers.push(number);
                // A line has a number of 32 bits, and no line is added twice.
                self.mapping.slots[free] = u32::try_from(self.lines.len()).unwrap_or_default();
                Ok(())
            }
        }
    }

    fn finish(self) -> Mapping {
        Mapping {
            text: self.text.into(),
            lines: self.lines.into(),
            slots: self.mapping.slots,
        }
    }
}

/// The line of a key, or else the free slot where it would go. `slots` is never full.
fn probe(slots: &[u32], lines: &[Line], text: &str, from: &str) -> Result<Line, usize> {
    let mask = slots.len() - 1;
    #[allow(clippy::cast_possible_truncation, reason = "the lower bits choose a slot")]
    let mut index = xxh64(from.as_bytes(), 0) as usize & mask;
    loop {
        let line = match slots[index] {
            0 => return Err(index),
            number => lines[number as usize - 1],
        };
        if text.get(line.start..line.start + usize::from(line.from)) == Some(from) {
            return Ok(line);
        }
        index = (index + 1) & mask;
    }
}

/// One side of a line, and the byte at which it begins.
struct Part<'t> {
    text: &'t str,
    at: usize,
}

/// Both sides of a line.
fn split(line: &str) -> Result<(Part<'_>, Part<'_>), (usize, MappingError)> {
    let start = line.len() - line.trim_start().len();
    if let Some(at) = line.find('"') {
        return Err((at, MappingError::Quoted));
    }
    let (from, to) = line.split_once(',').ok_or((start, MappingError::NoComma))?;
    if let Some(at) = to.find(',') {
        return Err((from.len() + 1 + at, MappingError::SecondComma));
    }
    let behind = from.len() + 1 + (to.len() - to.trim_start().len());
    for (text, at) in [(from.trim(), start), (to.trim(), behind)] {
        if text.is_empty() {
            return Err((at, MappingError::Empty));
        }
        if text.len() > SUBJECT_LIMIT_BYTES {
            return Err((at, MappingError::Long));
        }
    }
    let from = Part {
        text: from.trim(),
        at: start,
    };
    let to = Part {
        text: to.trim(),
        at: behind,
    };
    Ok((from, to))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bad(text: &str) -> Vec<(u32, u32, MappingError)> {
        let lines = Mapping::parse(text, Normalise::Digits).unwrap_err();
        lines.into_iter().map(|bad| (bad.line, bad.column, bad.what)).collect()
    }

    #[test]
    fn key_leads_to_what_stands_behind_its_comma() {
        let text = "\u{feff}# phones\r\n33639980123,shopper_001\r\n\r\n  +33 6 39 98 01 24 , shopper 002 \n";
        let mapping = Mapping::parse(text, Normalise::Digits).unwrap();
        assert_eq!(mapping.len(), 2);
        assert_eq!(mapping.find("33639980123"), Some("shopper_001"));
        assert_eq!(mapping.find("33639980124"), Some("shopper 002"));
        assert_eq!(mapping.find("shopper_001"), None);
        assert_eq!(mapping.find(""), None);
        assert_eq!(
            Mapping::parse("# nobody yet\n", Normalise::AsWritten)
                .unwrap()
                .find("a"),
            None
        );
        assert_eq!(format!("{mapping:?}"), "Mapping(2)");
    }

    #[test]
    fn every_wrong_line_is_told_with_its_place() {
        let long = "k".repeat(SUBJECT_LIMIT_BYTES + 1);
        let text =
            format!("1,a\nno comma\n 2,b,c\n,d\n3, \n\"4\",e\n+1,f\n5,{long}\n{long},g\n + ,h\né2,i\n6,j\n é2,k\n");
        assert_eq!(
            bad(&text),
            [
                (2, 1, MappingError::NoComma),
                (3, 5, MappingError::SecondComma),
                (4, 1, MappingError::Empty),
                (5, 4, MappingError::Empty),
                (6, 1, MappingError::Quoted),
                (7, 1, MappingError::Again(1)),
                (8, 3, MappingError::Long),
                (9, 1, MappingError::Long),
                (10, 2, MappingError::Empty),
                (13, 2, MappingError::Again(11)),
            ]
        );
    }

    #[test]
    fn mapping_of_many_finds_each_and_nobody_else() {
        let text: String = (0..20_000).map(|n| format!("{n},s{}\n", n * 7)).collect();
        let mapping = Mapping::parse(&text, Normalise::AsWritten).unwrap();
        for n in 0..20_000 {
            assert_eq!(mapping.find(&n.to_string()), Some(&*format!("s{}", n * 7)));
        }
        for n in 20_000..40_000 {
            assert_eq!(mapping.find(&n.to_string()), None);
        }
        assert_eq!(mapping, Mapping::parse(&text, Normalise::AsWritten).unwrap());
        assert_ne!(mapping, Mapping::parse("1,a", Normalise::AsWritten).unwrap());
    }
}
