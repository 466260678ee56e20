//! The library's events become a tree: places, aliases, merge keys, repeated keys, budgets.
//!
//! Pure. In: one text. Out: its tree, or the [`Fault`] that ended the reading; repeated keys go to the problems.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use serde_saphyr::granit_parser::{Event, Parser, ScalarStyle, Span, Tag, options};

use super::torn::{Fault, fault, too_deep, torn};
use super::{DEPTH_LIMIT, Entry, Mark, NODE_LIMIT, Node, Step, Value, is_null, number, path_text};
use crate::engine::ruleset::problem::{Problems, quote};

/// What aliases may add, on top of twice the number of values written so far. A small text that grows beyond this is
/// an attack, while a large list may be used in several places.
const ALIAS_ALLOWANCE: usize = 100_000;

const KEY_IS_TEXT: &str = "a key is a text: put it in quotes";

/// Reads one document; see [`super::parse`].
pub(super) fn build<'t>(file: &Arc<str>, text: &'t str, problems: &mut Problems) -> Option<Node<'t>> {
    let mut builder = Builder {
        file,
        problems,
        frames: Vec::new(),
        anchors: BTreeMap::new(),
        root: None,
        written: 0,
        copied: 0,
        kept: 0,
    };
    match builder.run(text) {
        Ok(()) => {
            let value = Value::Plain(Cow::Borrowed(""));
            Some(builder.root.unwrap_or(Node { mark: Mark::TOP, value }))
        }
        Err(Fault { mark, what, remedy }) => {
            let path = builder.path();
            builder.problems.problem(mark.in_file(file), path, what, remedy);
            None
        }
    }
}

/// A list or map whose end has not come yet.
struct Frame<'t> {
    mark: Mark,
    anchor: usize,
    /// Values counted before it began: the difference at its end is its size.
    counted_before: usize,
    /// How many levels stand in it so far.
    height: usize,
    content: Content<'t>,
}

enum Content<'t> {
    Mapping {
        entries: Vec<Entry<'t>>,
        key: Option<(Cow<'t, str>, Mark, bool)>,
        merges: Vec<Node<'t>>,
        seen: Seen<'t>,
    },
    Sequence(Vec<Node<'t>>),
}

/// Which keys a mapping has: searched one by one while they are few, by a tree afterwards.
#[derive(Default)]
struct Seen<'t>(BTreeMap<Cow<'t, str>, Mark>);

impl<'t> Seen<'t> {
    const FEW: usize = 8;

    fn find(&self, entries: &[Entry<'t>], key: &str) -> Option<Mark> {
        if self.0.is_empty() {
            entries.iter().find(|entry| entry.key == key).map(|entry| entry.mark)
        } else {
            self.0.get(key).copied()
        }
    }

    fn push(&mut self, entries: &mut Vec<Entry<'t>>, entry: Entry<'t>) {
        if !self.0.is_empty() {
            self.0.insert(entry.key.clone(), entry.mark);
        }
        entries.push(entry);
        if entries.len() == Self::FEW {
            self.0
                .extend(entries.iter().map(|entry| (entry.key.clone(), entry.mark)));
        }
    }
}

/// A value that an alias may repeat.
struct Anchored<'t> {
    node: Node<'t>,
    size: usize,
    height: usize,
}

struct Builder<'t, 'p> {
    file: &'p Arc<str>,
    problems: &'p mut Problems,
    frames: Vec<Frame<'t>>,
    anchors: BTreeMap<usize, Anchored<'t>>,
    root: Option<Node<'t>>,
    /// Values that the text wrote down, values that aliases repeated, and values kept for aliases to come.
    written: usize,
    copied: usize,
    kept: usize,
}

impl<'t> Builder<'t, '_> {
    fn run(&mut self, text: &'t str) -> Result<(), Fault> {
        let options =
            options! { emit_comments: false, flow_nesting_limit: DEPTH_LIMIT, block_nesting_limit: DEPTH_LIMIT };
        let mut documents = 0;
        for event in Parser::new_from_str_with_options(text, options) {
            let (event, span) = event.map_err(|error| torn(&error, text))?;
            let mark = mark_of(span);
            if event.is_node() {
                self.written += 1;
                if self.written > NODE_LIMIT {
                    return Err(fault(
                        mark,
                        format!("more than {NODE_LIMIT} values in one text"),
                        "split the file",
                    ));
                }
            }
            match event {
                Event::DocumentStart(..) => {
                    documents += 1;
                    if documents > 1 {
                        return Err(fault(
                            mark,
                            "a second document begins here",
                            "keep one document in a file: remove this `---`",
                        ));
                    }
                }
                Event::Scalar(text, style, anchor, tag) => {
                    let plain = style == ScalarStyle::Plain && !is_text(tag.as_deref(), mark)?;
                    let omitted = plain && text == "~" && span.is_empty();
                    let mark = if omitted { self.key_mark().unwrap_or(mark) } else { mark };
                    let node = Node {
                        mark,
                        value: if plain { Value::Plain(text) } else { Value::Quoted(text) },
                    };
                    self.remember(anchor, &node, 1, 0)?;
                    self.put(node, 0)?;
                }
                Event::SequenceStart(_, anchor, tag) => {
                    is_text(tag.as_deref(), mark)?;
                    self.open(mark, anchor, Content::Sequence(Vec::new()))?;
                }
                Event::MappingStart(_, anchor, tag) => {
                    is_text(tag.as_deref(), mark)?;
                    let content = Content::Mapping {
                        entries: Vec::new(),
                        key: None,
                        merges: Vec::new(),
                        seen: Seen::default(),
                    };
                    self.open(mark, anchor, content)?;
                }
                Event::SequenceEnd | Event::MappingEnd => self.close()?,
                Event::Alias(anchor) => self.repeat(anchor, mark)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn path(&self) -> String {
        let steps: Vec<Step> = self
            .frames
            .iter()
            .filter_map(|frame| match &frame.content {
                Content::Mapping { key, .. } => key.as_ref().map(|(key, ..)| Step::Key(key.to_string())),
                Content::Sequence(items) => Some(Step::Index(items.len())),
            })
            .collect();
        path_text(&steps)
    }

    fn key_mark(&self) -> Option<Mark> {
        match self.frames.last() {
            Some(Frame {
                content:
                    Content::Mapping {
                        key: Some((_, mark, _)),
                        ..
                    },
                ..
            }) => Some(*mark),
            _ => None,
        }
    }

    fn counted(&self) -> usize {
        self.written.saturating_add(self.copied)
    }

    fn open(&mut self, mark: Mark, anchor: usize, content: Content<'t>) -> Result<(), Fault> {
        if let Some(Frame {
            content: Content::Mapping { key: None, .. },
            ..
        }) = self.frames.last()
        {
            return Err(fault(mark, "a list or map stands where a key should", KEY_IS_TEXT));
        }
        if self.frames.len() >= DEPTH_LIMIT {
            return Err(too_deep(mark));
        }
        self.frames.push(Frame {
            mark,
            anchor,
            counted_before: self.counted() - 1,
            height: 0,
            content,
        });
        Ok(())
    }

    fn close(&mut self) -> Result<(), Fault> {
        let Some(frame) = self.frames.pop() else { return Ok(()) };
        let value = match frame.content {
            Content::Sequence(items) => Value::Sequence(items),
            Content::Mapping {
                mut entries,
                merges,
                mut seen,
                ..
            } => {
                for merge in merges {
                    merge_into(&mut entries, &mut seen, merge)?;
                }
                Value::Mapping(entries)
            }
        };
        let node = Node {
            mark: frame.mark,
            value,
        };
        let size = self.counted() - frame.counted_before;
        self.remember(frame.anchor, &node, size, frame.height)?;
        self.put(node, frame.height)
    }

    fn remember(&mut self, anchor: usize, node: &Node<'t>, size: usize, height: usize) -> Result<(), Fault> {
        if anchor == 0 {
            return Ok(());
        }
        self.kept = self.kept.saturating_add(size);
        self.within_allowance(self.kept, node.mark)?;
        self.anchors.insert(
            anchor,
            Anchored {
                node: node.clone(),
                size,
                height,
            },
        );
        Ok(())
    }

    fn within_allowance(&self, values: usize, mark: Mark) -> Result<(), Fault> {
        if values <= self.written.saturating_mul(2).saturating_add(ALIAS_ALLOWANCE) {
            return Ok(());
        }
        Err(fault(
            mark,
            "anchors and aliases make this text too large",
            "write the values out, or repeat less",
        ))
    }

    fn repeat(&mut self, anchor: usize, mark: Mark) -> Result<(), Fault> {
        let Some(Anchored { node, size, height }) = self.anchors.get(&anchor) else {
            return Err(fault(
                mark,
                "this alias stands inside the value it names",
                "write the value out",
            ));
        };
        let copied = self.copied.saturating_add(*size);
        self.within_allowance(copied, mark)?;
        if self.frames.len() + height > DEPTH_LIMIT {
            return Err(too_deep(mark));
        }
        let (node, height) = (node.clone(), *height);
        self.copied = copied;
        self.put(node, height)
    }

    /// A finished value goes where it belongs: to the top, into a list, or as key or value into a mapping.
    fn put(&mut self, node: Node<'t>, height: usize) -> Result<(), Fault> {
        let Some(frame) = self.frames.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        frame.height = frame.height.max(height + 1);
        let (entries, pending, merges, seen) = match &mut frame.content {
            Content::Sequence(items) => {
                items.push(node);
                return Ok(());
            }
            Content::Mapping {
                entries,
                key,
                merges,
                seen,
            } => (entries, key, merges, seen),
        };
        match pending.take() {
            None => {
                let mark = node.mark;
                *pending = Some(match node.value {
                    Value::Plain(text) if is_null(&text) => {
                        return Err(fault(
                            mark,
                            "a key is missing here",
                            "write one before the colon, in quotes if it is empty",
                        ));
                    }
                    Value::Plain(text) => {
                        let merge = text == "<<";
                        (text, mark, merge)
                    }
                    Value::Quoted(text) => (text, mark, false),
                    Value::Mapping(_) | Value::Sequence(_) => {
                        return Err(fault(mark, "a list or map stands where a key should", KEY_IS_TEXT));
                    }
                });
            }
            Some((_, _, true)) => merges.push(node),
            Some((key, mark, false)) => match seen.find(entries, &key) {
                None => seen.push(entries, Entry { key, mark, value: node }),
                Some(first) => {
                    let what = format!(
                        "{} stands here a second time, after line {}, column {}",
                        quote(&key),
                        first.line,
                        first.column
                    );
                    *pending = Some((key, mark, false));
                    let path = self.path();
                    self.problems
                        .problem(mark.in_file(self.file), path, what, "keep one of the two");
                    if let Some(Frame {
                        content: Content::Mapping { key, .. },
                        ..
                    }) = self.frames.last_mut()
                    {
                        *key = None;
                    }
                }
            },
        }
        Ok(())
    }
}

/// Adds the members that the mapping does not write itself; of several sources the first wins.
fn merge_into<'t>(entries: &mut Vec<Entry<'t>>, seen: &mut Seen<'t>, merge: Node<'t>) -> Result<(), Fault> {
    match merge.value {
        Value::Mapping(members) => {
            for member in members {
                if seen.find(entries, &member.key).is_none() {
                    seen.push(entries, member);
                }
            }
            Ok(())
        }
        Value::Sequence(sources) => {
            for source in sources {
                if !matches!(source.value, Value::Mapping(_)) {
                    return Err(no_map(source.mark));
                }
                merge_into(entries, seen, source)?;
            }
            Ok(())
        }
        Value::Plain(_) | Value::Quoted(_) => Err(no_map(merge.mark)),
    }
}

fn no_map(mark: Mark) -> Fault {
    fault(
        mark,
        "only maps can be merged by `<<`",
        "name an anchor of a map, or a list of such",
    )
}

/// Whether a tag declares a text. Nothing here has a use for other tags, and one that is ignored would mislead.
fn is_text(tag: Option<&Tag>, mark: Mark) -> Result<bool, Fault> {
    match tag {
        None => Ok(false),
        Some(tag) if tag.is_yaml_core_schema_tag("str") || tag.original() == "!" => Ok(true),
        Some(tag)
            if ["bool", "float", "int", "map", "null", "seq"]
                .iter()
                .any(|t| tag.is_yaml_core_schema_tag(t)) =>
        {
            Ok(false)
        }
        Some(tag) => Err(fault(
            mark,
            format!("the tag {} means nothing here", quote(&tag.original())),
            "remove it",
        )),
    }
}

fn mark_of(span: Span) -> Mark {
    Mark {
        line: number(span.start.line()).max(1),
        column: number(span.start.col().saturating_add(1)),
    }
}
