//! A tree becomes text again: the YAML that people read, one form for one tree.
//!
//! Pure. In: a [`Node`]. Out: text that [`super::parse`] reads as the same tree. Values that fit a line stand on it (`[a, b]`,
//! `{ a: 1 }`) from the third level on; above that, and where they do not fit, a member has a line of its own. A text that
//! another reader of YAML could take for something else stands in quotes.

use std::borrow::Cow;

use super::{Entry, Node, Value};

/// How long a line may become before its value is broken up.
const WIDTH: usize = 110;

/// Levels whose members have lines of their own, however short they are.
const OPEN_LEVELS: usize = 2;

/// Writes a document. The text ends in a line feed.
#[must_use]
pub fn write(node: &Node<'_>) -> String {
    let mut text = String::new();
    match &node.value {
        Value::Mapping(entries) if !entries.is_empty() => members(entries, 0, &mut text),
        _ => {
            text.push_str(&line(node));
            text.push('\n');
        }
    }
    text
}

fn members(entries: &[Entry<'_>], level: usize, text: &mut String) {
    for entry in entries {
        indent(level, text);
        member(entry, level, text);
    }
}

fn member(entry: &Entry<'_>, level: usize, text: &mut String) {
    text.push_str(&quoted(&entry.key));
    text.push(':');
    value(&entry.value, level, text);
}

/// What stands behind `key:` at this level, line feed included.
fn value(node: &Node<'_>, level: usize, text: &mut String) {
    let column = text.len() - text.rfind('\n').map_or(0, |at| at + 1);
    let fits = is_flat(node) || (level >= OPEN_LEVELS && !is_list_of_maps(node));
    if fits && let Some(line) = short(node, WIDTH.saturating_sub(column + 1)) {
        text.push(' ');
        text.push_str(&line);
        text.push('\n');
        return;
    }
    text.push('\n');
    match &node.value {
        Value::Mapping(entries) => members(entries, level + 1, text),
        Value::Sequence(list) => items(list, level + 1, text),
        // A scalar always fits.
        Value::Plain(_) | Value::Quoted(_) => {}
    }
}

fn items(list: &[Node<'_>], level: usize, text: &mut String) {
    for item in list {
        indent(level, text);
        text.push_str("- ");
        let room = WIDTH.saturating_sub(2 * level + 2);
        match (&item.value, short(item, room)) {
            (_, Some(line)) => {
                text.push_str(&line);
                text.push('\n');
            }
            (Value::Mapping(entries), None) => {
                for (at, entry) in entries.iter().enumerate() {
                    if at > 0 {
                        indent(level + 1, text);
                    }
                    member(entry, level + 1, text);
                }
            }
            // A list in a list that fits no line is written in one all the same: nothing that we read has one.
            (_, None) => {
                text.push_str(&line(item));
                text.push('\n');
            }
        }
    }
}

fn indent(level: usize, text: &mut String) {
    text.extend(std::iter::repeat_n("  ", level));
}

/// Whether a value has no members of its own.
fn is_flat(node: &Node<'_>) -> bool {
    match &node.value {
        Value::Mapping(entries) => entries.is_empty(),
        Value::Sequence(list) => list.is_empty(),
        Value::Plain(_) | Value::Quoted(_) => true,
    }
}

/// Rules, variants: one item a line reads better.
fn is_list_of_maps(node: &Node<'_>) -> bool {
    let Value::Sequence(list) = &node.value else {
        return false;
    };
    list.iter().any(|item| matches!(item.value, Value::Mapping(_)))
}

/// The value on one line, if it is no longer than this; a scalar has no other form.
fn short(node: &Node<'_>, most: usize) -> Option<String> {
    let line = match &node.value {
        // A list of a million ids is not written twice.
        Value::Sequence(list) if list.len() > most => return None,
        _ => line(node),
    };
    let scalar = matches!(node.value, Value::Plain(_) | Value::Quoted(_));
    (scalar || is_flat(node) || line.chars().count() <= most).then_some(line)
}

/// Writes a value on one line, without a line feed.
#[must_use]
pub fn line(node: &Node<'_>) -> String {
    match &node.value {
        Value::Mapping(entries) if entries.is_empty() => "{}".to_owned(),
        Value::Mapping(entries) => {
            let members = entries
                .iter()
                .map(|entry| format!("{}: {}", quoted(&entry.key), line(&entry.value)));
            format!("{{ {} }}", members.collect::<Vec<_>>().join(", "))
        }
        Value::Sequence(list) => format!("[{}]", list.iter().map(line).collect::<Vec<_>>().join(", ")),
        Value::Plain(text) if text.is_empty() => "null".to_owned(),
        Value::Plain(text) if is_safe_plain(text) => text.to_string(),
        Value::Plain(text) => escaped(text),
        Value::Quoted(text) => quoted(text).into_owned(),
    }
}

/// A plain scalar that stays one wherever it stands: a number, a word of YAML, a word without any sign of it.
fn is_safe_plain(text: &str) -> bool {
    let sign = text.strip_prefix('-').unwrap_or(text);
    let begins_well = sign
        .bytes()
        .next()
        .is_some_and(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'+'));
    let negative_number = text.len() == sign.len() || sign.bytes().next().is_some_and(|byte| byte.is_ascii_digit());
    let goes_on = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'+' | b'-' | b'/' | b'@');
    text == "~" || (begins_well && negative_number && sign.bytes().all(goes_on))
}

/// A text so that every reader of YAML takes it for one.
fn quoted(text: &str) -> Cow<'_, str> {
    const WORDS: [&str; 9] = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"];
    let begins_well = text
        .bytes()
        .next()
        .is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_');
    let goes_on = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-' | b'/');
    let is_word = WORDS.iter().any(|word| word.eq_ignore_ascii_case(text));
    if begins_well && text.bytes().all(goes_on) && !is_word {
        Cow::Borrowed(text)
    } else {
        Cow::Owned(escaped(text))
    }
}

/// In double quotes, with JSON's escapes, which are YAML's too; what YAML does not let stand in a text is escaped as well.
fn escaped(text: &str) -> String {
    // A text always serialises.
    let json = serde_json::to_string(text).unwrap_or_default();
    let mut escaped = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            '\u{7f}'..='\u{a0}' | '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}' => {
                escaped.push_str(&format!("\\u{:04x}", u32::from(c)));
            }
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::ruleset::problem::Problems;
    use crate::engine::ruleset::yaml::{Mark, parse};
    use proptest::prelude::*;

    fn node(value: Value<'static>) -> Node<'static> {
        Node { mark: Mark::TOP, value }
    }

    /// What a tree says: a text in quotes that needs none is the same text.
    fn said(node: &Node<'_>) -> String {
        match &node.value {
            Value::Mapping(entries) => {
                let members = entries
                    .iter()
                    .map(|entry| format!("{:?}={}", entry.key, said(&entry.value)));
                format!("{{{}}}", members.collect::<Vec<_>>().join(","))
            }
            Value::Sequence(list) => format!("[{}]", list.iter().map(said).collect::<Vec<_>>().join(",")),
            Value::Plain(_) if node.is_null() => "null".to_owned(),
            Value::Plain(text) | Value::Quoted(text) => format!("{text:?}"),
        }
    }

    fn read(text: &str) -> Node<'_> {
        let mut problems = Problems::default();
        let tree = parse(&"written".into(), text, &mut problems);
        assert!(!problems.refuse(), "{text}\n{:?}", problems.verdict());
        tree.expect("it reads")
    }

    fn tree() -> impl Strategy<Value = Node<'static>> {
        let text = prop_oneof![
            any::<String>(),
            "[ -~]{0,12}",
            "true|off|null|~|-|0123|1e3|a: b|#c|- d|shopper_1"
        ];
        let scalar = prop_oneof![
            text.prop_map(|text| node(Value::Quoted(text.into()))),
            prop_oneof![
                "[1-9][0-9]{0,30}",
                "-?[0-9]\\.[0-9]{1,4}",
                "true|false|null|shopper_7|x@y"
            ]
            .prop_map(|text| node(Value::Plain(text.into()))),
        ];
        scalar.prop_recursive(4, 40, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(|list| node(Value::Sequence(list))),
                prop::collection::btree_map("[ -~]{1,8}", inner, 0..6).prop_map(|map| {
                    let entry = |(key, value): (String, Node<'static>)| Entry {
                        key: key.into(),
                        mark: Mark::TOP,
                        value,
                    };
                    // A merge key is applied when it is read.
                    let map = map.into_iter().filter(|(key, _)| key != "<<");
                    node(Value::Mapping(map.map(entry).collect()))
                }),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back_as_the_same(tree in tree()) {
            let text = write(&tree);
            prop_assert_eq!(said(&read(&text)), said(&tree), "{}", text);
        }

        #[test]
        fn one_tree_has_one_form(tree in tree()) {
            let text = write(&tree);
            prop_assert_eq!(write(&read(&text)), text);
        }
    }

    #[test]
    fn flag_file_is_written_as_people_write_it() {
        let text = "\
features:
  checkout:
    type: targeted
    allowlist: [\"0123\", anna, \"no\"]
    rules:
      - { type: property, conditions: { plan: [premium, enterprise] }, value: 50 }
    percentage: 2.5
    start_date: \"2026-01-01T00:00:00Z\"
  empty: {}
";
        assert_eq!(write(&read(text)), text);
        let ids: Vec<_> = (0..30)
            .map(|n| node(Value::Quoted(format!("shopper_{n}").into())))
            .collect();
        let entry = |key: &'static str, value| Entry {
            key: key.into(),
            mark: Mark::TOP,
            value,
        };
        let map = |entries| node(Value::Mapping(entries));
        let long = map(vec![entry(
            "f",
            map(vec![entry(
                "k",
                map(vec![entry("allowlist", node(Value::Sequence(ids)))]),
            )]),
        )]);
        let long = write(&long);
        assert!(
            long.starts_with("f:\n  k:\n    allowlist:\n      - shopper_0\n      - shopper_1\n"),
            "{long}"
        );
    }
}
