//! JSON text in, the same tree as `yaml` gives out; and back again.
//!
//! Pure. What comes over the API is JSON and nothing more: the YAML reader would take other texts, and refuse some that
//! are JSON (an escaped pair of surrogates, a name of two thousand characters). Numbers keep their text, so an id of
//! thirty digits stays that id. What the values mean is left to `decode`.

use std::borrow::Cow;
use std::sync::Arc;

use serde::de::IgnoredAny;

use super::problem::{Problems, quote};
use super::yaml::{DEPTH_LIMIT, Entry, Mark, Node, Step, Value, path_text};
use crate::engine::compare::json::{self, Kind, Refusal, Tree};

/// Reads one text.
///
/// # Errors
/// What is wrong goes to `problems`. Twice the same name is reported and reading goes on (the first stands); anything
/// else that is no JSON, or nested deeper than [`DEPTH_LIMIT`], ends the reading with nothing answered.
#[must_use]
pub fn parse(file: &Arc<str>, text: &str, problems: &mut Problems) -> Option<Node<'static>> {
    let tree = match Tree::parse(text.as_bytes()) {
        Ok(tree) => tree,
        Err(refusal) => {
            let (mark, what, remedy) = why(text, refusal);
            problems.problem(mark.in_file(file), "", what, remedy);
            return None;
        }
    };
    let mut reader = Reader {
        file,
        text,
        at: 0,
        mark: Mark::TOP,
        path: Vec::new(),
        problems,
    };
    reader.node(tree.root(), 0).map(owned)
}

/// Where it stops being JSON, for whoever wrote it.
fn why(text: &str, refusal: Refusal) -> (Mark, String, &'static str) {
    match refusal {
        Refusal::Deep => (Mark::TOP, too_deep(), "write less in one another"),
        Refusal::Large => (
            Mark::TOP,
            "it has too many values".to_owned(),
            "say it in several parts",
        ),
        Refusal::Syntax => match serde_json::from_str::<IgnoredAny>(text) {
            Err(error) => {
                let place = |n: usize| u32::try_from(n).unwrap_or(u32::MAX).max(1);
                let mark = Mark {
                    line: place(error.line()),
                    column: place(error.column()),
                };
                // The library appends the place, which stands in front already.
                let what = error.to_string();
                let what = what.split(" at line ").next().unwrap_or_default().to_owned();
                (mark, what, "write JSON as RFC 8259 defines it")
            }
            Ok(_) => (
                Mark::TOP,
                "this is no JSON".to_owned(),
                "write JSON as RFC 8259 defines it",
            ),
        },
    }
}

fn too_deep() -> String {
    format!("lists and maps are nested deeper than {DEPTH_LIMIT} levels")
}

struct Reader<'r, 't> {
    file: &'r Arc<str>,
    text: &'t str,
    /// Up to where `mark` has been counted, in bytes.
    at: usize,
    mark: Mark,
    path: Vec<Step>,
    problems: &'r mut Problems,
}

impl Reader<'_, '_> {
    fn node<'v>(&mut self, value: json::Value<'v>, depth: usize) -> Option<Node<'v>> {
        let mark = self.mark_of(value.raw());
        if depth > DEPTH_LIMIT {
            return self.refuse(mark, too_deep(), "write less in one another");
        }
        let value = match value.kind() {
            Kind::Array => {
                let mut items = Vec::new();
                for (index, item) in value.items().enumerate() {
                    items.push(self.within(Step::Index(index), |reader| reader.node(item, depth + 1))?);
                }
                Value::Sequence(items)
            }
            Kind::Object => Value::Mapping(self.entries(value, depth)?),
            Kind::Text => Value::Quoted(self.decoded(value.text(), mark)?),
            Kind::Bool | Kind::Null | Kind::Number => Value::Plain(Cow::Borrowed(value.raw())),
        };
        Some(Node { mark, value })
    }

    fn entries<'v>(&mut self, value: json::Value<'v>, depth: usize) -> Option<Vec<Entry<'v>>> {
        let mut entries: Vec<Entry<'v>> = Vec::new();
        let mut known = std::collections::BTreeSet::new();
        for (name, value) in value.members() {
            let mut mark = self.mark_of(name.raw());
            // In front of the name stands its quote.
            mark.column = mark.column.saturating_sub(1);
            let key = self.decoded(name, mark)?;
            let step = Step::Key(key.to_string());
            let value = self.within(step.clone(), |reader| reader.node(value, depth + 1))?;
            if known.insert(key.to_string()) {
                entries.push(Entry { key, mark, value });
            } else {
                let what = format!("{} stands here a second time", quote(&key));
                self.within(step, |reader| reader.refuse::<()>(mark, what, "remove one of the two"));
            }
        }
        Some(entries)
    }

    fn decoded<'v>(&mut self, text: json::Text<'v>, mark: Mark) -> Option<Cow<'v, str>> {
        match text.decode() {
            Cow::Borrowed(_) => Some(Cow::Borrowed(text.raw())),
            Cow::Owned(bytes) => match String::from_utf8(bytes) {
                Ok(text) => Some(Cow::Owned(text)),
                Err(_) => self.refuse(mark, "half of a surrogate pair is no character", "escape both halves"),
            },
        }
    }

    fn within<T>(&mut self, step: Step, read: impl FnOnce(&mut Self) -> T) -> T {
        self.path.push(step);
        let value = read(self);
        self.path.pop();
        value
    }

    fn refuse<T>(&mut self, mark: Mark, what: impl Into<String>, remedy: &str) -> Option<T> {
        let path = path_text(&self.path);
        self.problems.problem(mark.in_file(self.file), path, what, remedy);
        None
    }

    /// Where a part of the text begins. Parts are asked for in their order, so the text is counted once.
    fn mark_of(&mut self, part: &str) -> Mark {
        let offset = (part.as_ptr() as usize).saturating_sub(self.text.as_ptr() as usize);
        let between = self.text.get(self.at..offset).unwrap_or_default();
        for c in between.chars() {
            if c == '\n' {
                self.mark.line = self.mark.line.saturating_add(1);
                self.mark.column = 1;
            } else {
                self.mark.column = self.mark.column.saturating_add(1);
            }
        }
        self.at = self.at.max(offset);
        self.mark
    }
}

/// The same tree, free of the text that it was read from.
fn owned(node: Node<'_>) -> Node<'static> {
    fn text(text: Cow<'_, str>) -> Cow<'static, str> {
        Cow::Owned(text.into_owned())
    }
    let value = match node.value {
        Value::Mapping(entries) => Value::Mapping(
            entries
                .into_iter()
                .map(|entry| Entry {
                    key: text(entry.key),
                    mark: entry.mark,
                    value: owned(entry.value),
                })
                .collect(),
        ),
        Value::Plain(plain) => Value::Plain(text(plain)),
        Value::Quoted(quoted) => Value::Quoted(text(quoted)),
        Value::Sequence(items) => Value::Sequence(items.into_iter().map(owned).collect()),
    };
    Node { mark: node.mark, value }
}

/// A tree that [`parse`] gave as JSON: no spaces, members in their order, numbers as they were written.
#[must_use]
pub fn write(node: &Node<'_>) -> String {
    let mut text = String::new();
    push(node, &mut text);
    text
}

fn push(node: &Node<'_>, text: &mut String) {
    match &node.value {
        Value::Mapping(entries) => {
            text.push('{');
            for (index, entry) in entries.iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                push_text(&entry.key, text);
                text.push(':');
                push(&entry.value, text);
            }
            text.push('}');
        }
        Value::Plain(plain) => text.push_str(plain),
        Value::Quoted(quoted) => push_text(quoted, text),
        Value::Sequence(items) => {
            text.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                push(item, text);
            }
            text.push(']');
        }
    }
}

fn push_text(content: &str, text: &mut String) {
    // A text always serialises.
    text.push_str(&serde_json::to_string(content).unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> Result<Node<'static>, Vec<String>> {
        let mut problems = Problems::default();
        let node = parse(&"body".into(), text, &mut problems);
        match problems.verdict() {
            Ok(_) => Ok(node.unwrap()),
            Err(problems) => Err(problems.iter().map(ToString::to_string).collect()),
        }
    }

    #[test]
    fn places_are_those_of_the_text() {
        let node = read("{\n  \"a\": [1, \"é\", {\"b\": null}]\n}").unwrap();
        let Value::Mapping(entries) = &node.value else {
            panic!("{node:?}")
        };
        assert_eq!(entries[0].mark, Mark { line: 2, column: 3 });
        let Value::Sequence(items) = &entries[0].value.value else {
            panic!("{node:?}")
        };
        let columns: Vec<u32> = items.iter().map(|item| item.mark.column).collect();
        assert_eq!(columns, [9, 12, 17]);
        assert!(items[2].mark.line == 2 && matches!(&items[1].value, Value::Quoted(text) if text == "é"));
    }

    #[test]
    fn numbers_escapes_and_order_come_back_as_they_were() {
        let text = r#"{"z":12345678901234567890123.50,"a":["\ud83d\ude00",true,null,{}]}"#;
        assert_eq!(
            write(&read(text).unwrap()),
            r#"{"z":12345678901234567890123.50,"a":["😀",true,null,{}]}"#
        );
    }

    #[test]
    fn what_is_no_json_is_said_with_its_place() {
        for (text, said) in [
            ("{\"a\": 1,\n }", "body:2:2:"),
            ("{\"a\":1,\"a\":2}", "body:1:8: `a` stands here a second time"),
            ("\"\\ud800\"", "half of a surrogate pair"),
            ("a: 1", "body:1:1:"),
            ("", "body:1:1:"),
        ] {
            let problems = read(text).unwrap_err();
            assert!(problems[0].contains(said), "{text}: {problems:?}");
        }
        let deep = format!("{}{}", "[".repeat(70), "]".repeat(70));
        assert!(read(&deep).unwrap_err()[0].contains("nested deeper than 64"));
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back_as_itself(texts in prop::collection::vec(any::<String>(), 0..5), n in any::<i64>()) {
            let value = serde_json::json!({ "texts": texts, "n": n, "on": true });
            let once = write(&read(&value.to_string()).unwrap());
            prop_assert_eq!(serde_json::from_str::<serde_json::Value>(&once).unwrap(), value);
            prop_assert_eq!(write(&read(&once).unwrap()), once);
        }
    }
}
