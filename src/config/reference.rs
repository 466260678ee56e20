//! The reference of the configuration as Markdown, printed from the declarations that decode it.
//!
//! Pure. `docs/reference.md` is this text; a test keeps the two alike.

use std::fmt::Write;

use crate::engine::ruleset::decode::{Decode, Member, Need, RecordShape, Shape, Word};
use crate::engine::ruleset::document::Document;

use super::raw;
use super::tokens::TokensFile;

const HEAD: &str = "\
# Configuration reference

This page is printed from the declarations that read the files.

Files are YAML 1.2, of which JSON is a part: only `true` and `false` are booleans, and a text stays as it is written. Keys
that are not listed here are refused, as is a second document. Every problem is reported with file, line, column and
remedy, all of them at once, by `understudy check --config FILE`.

- A **duration** is a number and a unit, `ms`, `s`, `m`, `h` or `d`: `1500ms`, `1.5s`, `1m30s`.
- A **size** is a whole number and a unit, `B`, `KiB`, `MiB`, `GiB` or `KB`, `MB`, `GB`: `64KiB`.
- A **percentage** is `25`, `0.5` or `1%`, with at most four decimals. A **share** is `0.001` or `0.1%`.
- A **flag key** or **route name** is 1 to 200 letters, digits, `.`, `_` and `-`.
- Relative **paths** count from the working directory of the process, not from the file that names them.
";

/// The text of `docs/reference.md`.
#[must_use]
pub fn reference() -> String {
    let mut page = Page {
        text: HEAD.to_owned(),
        done: Vec::new(),
    };
    let files = [
        ("The configuration file", raw::Config::shape()),
        ("The flag file", Document::shape()),
        ("The tokens file", TokensFile::shape()),
    ];
    for (heading, shape) in files {
        // Writing to a String cannot fail.
        let _ = write!(page.text, "\n## {heading}\n");
        if let Shape::Record(record) = shape {
            page.record(&record(), "");
        }
    }
    page.text
}

struct Page {
    text: String,
    /// Records that have their table, by name; a record is printed where it is met first.
    done: Vec<&'static str>,
}

impl Page {
    fn record(&mut self, record: &RecordShape, path: &str) {
        self.done.push(record.name);
        let _ = write!(
            self.text,
            "\n{}\n\n| key | type | default | meaning |\n| --- | --- | --- | --- |\n",
            flow(&record.doc)
        );
        for Member { name, doc, shape, need } in &record.members {
            let default = match need {
                Need::Default("{}") if record_of(shape).is_some() => "as below".to_owned(),
                Need::Default(text) => format!("`{text}`"),
                Need::Optional => "unset".to_owned(),
                Need::Required => "**required**".to_owned(),
            };
            let mut meaning = flow(doc);
            for Word { text, doc } in words(shape) {
                let _ = write!(meaning, "<br>`{text}`: {}", flow(doc));
            }
            let cells = [format!("`{name}`"), type_of(shape), default, meaning].map(|cell| cell.replace('|', "\\|"));
            let _ = writeln!(self.text, "| {} |", cells.join(" | "));
        }
        if let Some(others) = &record.others {
            let cells = [
                "any other name",
                &type_of(others),
                "unset",
                "An attribute of that name.",
            ]
            .map(str::to_owned);
            let _ = writeln!(self.text, "| {} |", cells.join(" | "));
        }
        for Member { shape, .. } in &record.members {
            let Some(inner) = record_of(shape).map(|record| record()) else {
                continue;
            };
            if self.done.contains(&inner.name) {
                continue;
            }
            let same = |member: &&Member| record_of(&member.shape).is_some_and(|record| record().name == inner.name);
            let paths: Vec<_> = record.members.iter().filter(same).map(|m| under(path, m)).collect();
            let _ = write!(self.text, "\n### `{}`\n", paths.join("`, `"));
            self.record(&inner, paths.first().map_or("", String::as_str));
        }
    }
}

/// The path of a member: `routes[].shadow`.
fn under(path: &str, member: &Member) -> String {
    let dot = if path.is_empty() { "" } else { "." };
    let each = match member.shape {
        Shape::List(_) => "[]",
        Shape::Map { .. } => ".*",
        _ => "",
    };
    format!("{path}{dot}{}{each}", member.name)
}

/// The record that a shape is, holds or may be.
fn record_of(shape: &Shape) -> Option<fn() -> RecordShape> {
    match shape {
        Shape::Record(record) => Some(*record),
        Shape::List(inner) | Shape::Map { value: inner, .. } | Shape::Nullable(inner) => record_of(inner),
        Shape::Union(shapes) => shapes.iter().find_map(record_of),
        Shape::Scalar(_) | Shape::Words(_) => None,
    }
}

/// A doc comment as one line of a table.
pub(super) fn flow(doc: &str) -> String {
    doc.lines()
        .map(str::trim)
        .collect::<Vec<_>>()
        .join(" ")
        .trim()
        .to_owned()
}

fn words(shape: &Shape) -> Vec<Word> {
    match shape {
        Shape::Words(words) => words.clone(),
        Shape::Nullable(shape) => words(shape),
        _ => Vec::new(),
    }
}

fn type_of(shape: &Shape) -> String {
    match shape {
        Shape::Scalar(name) => (*name).to_owned(),
        Shape::Words(words) => words
            .iter()
            .map(|word| format!("`{}`", word.text))
            .collect::<Vec<_>>()
            .join(", "),
        Shape::List(item) => format!("list: {}", type_of(item)),
        Shape::Map { key, value } => format!("map: {key} to {}", type_of(value)),
        Shape::Record(_) => "map".to_owned(),
        Shape::Union(shapes) => shapes.iter().map(type_of).collect::<Vec<_>>().join(", or "),
        Shape::Nullable(shape) => type_of(shape),
    }
}
