//! Flags of other systems become a flag file of ours, with a report of what each of them means now.
//!
//! Pure. In: the text of a file that another system wrote (JSON or YAML), and which system it was. Out: the text of a flag file
//! that compiles, and a [`Note`] for everything that does not read as it did; or every problem, at its place in the text that
//! was read. A flag whose meaning cannot be kept comes out switched off, never as something near it. The forms are read in
//! the files beside this one; reading and writing files is left to the caller.

mod flagd;
mod integration;
mod metadata;
mod rollout;
mod strategy;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use super::compile::{self, Input};
use super::decode::{Decode as _, Decoder, Scalar as _, Shape};
use super::document::{Document, FlagRecord};
use super::problem::{Place, Problem, Problems, near, quote};
use super::route::Copies;
use super::yaml::{self, Entry, Mark, Node, Value};
use crate::engine::vocab::{FlagKey, Revision};

/// What wrote the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A flagd file: `flags` with `state`, `variants`, `defaultVariant`, `targeting`.
    Flagd,
    /// Records of integration flags: `name`, `type`, `status`, `percentage`, `start_date`, `end_date`, `conditions`.
    Integration,
    /// Records with texts in `metadata`: `key`, `type`, `enabled`, `rules`, `variants`, `metadata.percentage`.
    Metadata,
    /// Rows of a rollout table: `name`, `enabled`, `shadow_mode`, `allowlist`, `denylist`, `percent_rollout`, `active`.
    Rollout,
    /// Records with a strategy: `name`, `strategy`, `percentage`, `user_ids`, `targeting_rules`, `variants`.
    Strategy,
}

/// What became of something that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// It says the same.
    Mapped,
    /// It is said in another way, or means something else here; the note says what.
    Changed,
    /// Nothing here says the same, so the flag is off.
    NotMapped,
}

impl Outcome {
    /// `mapped`, `changed` or `not mapped`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Mapped => "mapped",
            Self::Changed => "changed",
            Self::NotMapped => "not mapped",
        }
    }
}

/// One line of the report.
///
/// Shape when displayed: `FILE:LINE:COLUMN: changed: FLAG: what`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// What became of it.
    pub outcome: Outcome,
    /// Where it stands in the text that was read.
    pub place: Place,
    /// The flag; empty where it concerns none alone.
    pub flag: String,
    /// What the operator should know; lower case, no full stop.
    pub what: String,
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: ", self.place, self.outcome.as_str())?;
        if !self.flag.is_empty() {
            write!(f, "{}: ", self.flag)?;
        }
        f.write_str(&self.what)
    }
}

/// What came of an import.
#[derive(Clone, Debug)]
pub struct Imported {
    /// The flag file.
    pub text: String,
    /// How many flags it has.
    pub flags: usize,
    /// What became of each flag and of what was said about it, in the order of the text.
    pub notes: Vec<Note>,
    /// What is odd about the flag file, at the place in the text that was read.
    pub warnings: Vec<Problem>,
}

/// Reads a file of another system.
///
/// # Errors
/// Every problem, at its place in `text`: what is no JSON or YAML, what is not of this form, and what no flag may say.
pub fn import(form: Form, file: &Arc<str>, text: &str, now_ms: i64) -> Result<Imported, Vec<Problem>> {
    let mut problems = Problems::default();
    let Some(tree) = yaml::parse(file, text, &mut problems) else {
        return Err(problems.verdict().err().unwrap_or_default());
    };
    let mut import = Import {
        file,
        problems: &mut problems,
        notes: Vec::new(),
        segments: Vec::new(),
        flags: Vec::new(),
        keys: BTreeSet::new(),
    };
    match form {
        Form::Flagd => flagd::read(&tree, &mut import),
        Form::Integration => integration::read(&tree, &mut import),
        Form::Metadata => metadata::read(&tree, &mut import),
        Form::Rollout => rollout::read(&tree, &mut import),
        Form::Strategy => strategy::read(&tree, &mut import),
    }
    let Import {
        mut notes,
        segments,
        flags,
        ..
    } = import;
    let count = flags.len();
    let tree = document(segments, flags, tree.mark);
    let document: Option<Document> = Decoder::new(file, &mut problems).run(&tree);
    let compiled = compile::compile(Input {
        revision: Revision(1),
        environment: "production",
        document,
        runtime: Default::default(),
        variables: &BTreeMap::new(),
        routes: Vec::new(),
        copies: [Copies::SafeMethods; 2],
        now_ms,
        previous: None,
        marks: &[],
        problems,
    });
    let (_, warnings) = compiled?;
    notes.sort_by(|a, b| a.place.cmp(&b.place));
    Ok(Imported {
        text: yaml::write(&tree),
        flags: count,
        notes,
        warnings,
    })
}

fn document<'t>(segments: Vec<Entry<'t>>, flags: Vec<Entry<'t>>, mark: Mark) -> Node<'t> {
    let mut sections = vec![entry("features", mark, map(mark, flags))];
    if !segments.is_empty() {
        sections.insert(0, entry("segments", mark, map(mark, segments)));
    }
    map(mark, sections)
}

/// Members that other systems keep for themselves; nobody misses them.
const KEPT_NOWHERE: [&str; 4] = ["created_at", "id", "pk", "updated_at"];

/// What one reading has made so far.
struct Import<'i, 't> {
    file: &'i Arc<str>,
    problems: &'i mut Problems,
    notes: Vec<Note>,
    segments: Vec<Entry<'t>>,
    flags: Vec<Entry<'t>>,
    /// Of the flags that have begun.
    keys: BTreeSet<String>,
}

/// A flag that is being made.
struct Draft<'t> {
    key: String,
    mark: Mark,
    members: Vec<Entry<'t>>,
    /// Whether its meaning could not be kept.
    is_lost: bool,
}

impl<'t> Import<'_, 't> {
    /// Adds what refuses the text.
    fn problem(&mut self, mark: Mark, what: impl Into<String>, remedy: impl Into<String>) {
        self.problems.problem(mark.in_file(self.file), "", what, remedy);
    }

    fn note(&mut self, outcome: Outcome, mark: Mark, flag: &str, what: impl Into<String>) {
        self.notes.push(Note {
            outcome,
            place: mark.in_file(self.file),
            flag: flag.to_owned(),
            what: what.into(),
        });
    }

    fn changed(&mut self, draft: &Draft<'_>, mark: Mark, what: impl Into<String>) {
        self.note(Outcome::Changed, mark, &draft.key, what);
    }

    /// Says that the flag's meaning cannot be kept.
    fn lost(&mut self, draft: &mut Draft<'_>, mark: Mark, what: impl Into<String>) {
        draft.is_lost = true;
        self.note(Outcome::NotMapped, mark, &draft.key, what);
    }

    /// Begins a flag, unless no flag can have this key.
    fn draft(&mut self, name: &Node<'t>) -> Option<Draft<'t>> {
        let Some(text) = name.text() else {
            self.problem(
                name.mark,
                format!("expected a flag's name, found {}", name.found()),
                "write a text",
            );
            return None;
        };
        if let Err(error) = FlagKey::parse(text) {
            let what = format!("{} is no flag's key: {error}", quote(text));
            self.problem(name.mark, what, FlagKey::REMEDY);
            return None;
        }
        if !self.keys.insert(text.to_owned()) {
            let what = format!("the flag {} is here a second time", quote(text));
            self.problem(name.mark, what, "remove one of the two");
            return None;
        }
        Some(Draft {
            key: text.to_owned(),
            mark: name.mark,
            members: Vec::new(),
            is_lost: false,
        })
    }

    /// Takes a flag over, its members in the order of the reference.
    fn finish(&mut self, mut draft: Draft<'t>) {
        let order = member_names();
        let rank = |entry: &Entry<'_>| order.iter().position(|name| *name == entry.key);
        draft.members.sort_by_key(rank);
        if !draft.is_lost {
            let members: Vec<&str> = draft.members.iter().map(|entry| &*entry.key).collect();
            let what = members.join(", ");
            self.note(Outcome::Mapped, draft.mark, &draft.key, what);
        }
        self.flags
            .push(entry(draft.key, draft.mark, map(draft.mark, draft.members)));
    }

    /// The members of one record; [`KEPT_NOWHERE`] and these. Names that look like a known one are refused: what they say would be lost.
    fn members<'n>(&mut self, node: &'n Node<'t>, known: &[&'static str]) -> Option<Record<'n, 't>> {
        let Value::Mapping(entries) = &node.value else {
            let what = format!("expected a flag's members, found {}", node.found());
            self.problem(node.mark, what, format!("its members are {}", known.join(", ")));
            return None;
        };
        let mut others = Vec::new();
        for member in entries {
            if known.contains(&&*member.key) || KEPT_NOWHERE.contains(&&*member.key) {
                continue;
            }
            match near(&member.key, known.iter().copied()) {
                Some(near) => {
                    let what = format!("unknown member {}", quote(&member.key));
                    self.problem(member.mark, what, format!("did you mean `{near}`? Otherwise remove it"));
                }
                None => others.push(member),
            }
        }
        Some(Record { entries, others })
    }

    /// Says which members of a record were passed over.
    fn passed_over(&mut self, draft: &Draft<'_>, record: &Record<'_, '_>) {
        for other in &record.others {
            if !other.value.is_null() {
                self.changed(draft, other.mark, format!("{} is not kept", quote(&other.key)));
            }
        }
    }

    /// A member that is true or false.
    fn truth(&mut self, node: &Node<'_>) -> Option<bool> {
        match node.value {
            Value::Plain(ref text) if text == "true" => Some(true),
            Value::Plain(ref text) if text == "false" => Some(false),
            _ => {
                let what = format!("expected true or false, found {}", node.found());
                self.problem(node.mark, what, "write `true` or `false`");
                None
            }
        }
    }
}

/// One record of the text that is read.
struct Record<'n, 't> {
    entries: &'n [Entry<'t>],
    /// Those that this form does not know.
    others: Vec<&'n Entry<'t>>,
}

impl<'n, 't> Record<'n, 't> {
    /// A member that is there and not null.
    fn find(&self, name: &str) -> Option<&'n Node<'t>> {
        let found = self.entries.iter().find(|entry| entry.key == name)?;
        (!found.value.is_null()).then_some(&found.value)
    }
}

impl<'t> Draft<'t> {
    /// Says a member, in place of what was said of it before.
    fn set(&mut self, name: &'static str, value: Node<'t>) {
        self.members.retain(|entry| entry.key != name);
        self.members.push(entry(name, value.mark, value));
    }

    /// What was said of a member.
    fn find(&self, name: &str) -> Option<&Node<'t>> {
        let found = self.members.iter().find(|entry| entry.key == name);
        found.map(|entry| &entry.value)
    }

    fn unset(&mut self, name: &str) {
        self.members.retain(|entry| entry.key != name);
    }

    fn set_word(&mut self, name: &'static str, mark: Mark, word: &'static str) {
        self.set(name, plain(mark, word));
    }

    fn set_truth(&mut self, name: &'static str, mark: Mark, on: bool) {
        self.set_word(name, mark, if on { "true" } else { "false" });
    }
}

/// The members of a flag in the flag file, in the order of the reference.
fn member_names() -> Vec<&'static str> {
    match FlagRecord::shape() {
        Shape::Record(shape) => shape().members.iter().map(|member| member.name).collect(),
        _ => Vec::new(),
    }
}

fn entry<'t>(key: impl Into<Cow<'t, str>>, mark: Mark, value: Node<'t>) -> Entry<'t> {
    Entry {
        key: key.into(),
        mark,
        value,
    }
}

fn map(mark: Mark, entries: Vec<Entry<'_>>) -> Node<'_> {
    let value = Value::Mapping(entries);
    Node { mark, value }
}

fn plain<'t>(mark: Mark, text: impl Into<Cow<'t, str>>) -> Node<'t> {
    let value = Value::Plain(text.into());
    Node { mark, value }
}

fn text<'t>(mark: Mark, text: impl Into<Cow<'t, str>>) -> Node<'t> {
    let value = Value::Quoted(text.into());
    Node { mark, value }
}

/// The value as a text, whatever scalar it was: descriptions, ids that are numbers in JSON.
fn as_text<'t>(node: &Node<'t>) -> Option<Node<'t>> {
    match &node.value {
        _ if node.is_null() => None,
        Value::Plain(said) | Value::Quoted(said) => Some(text(node.mark, said.clone())),
        Value::Mapping(_) | Value::Sequence(_) => None,
    }
}

#[cfg(test)]
mod tests;
