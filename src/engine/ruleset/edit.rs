//! What was said about flags at run time, and how a change makes the next thing said.
//!
//! Pure. In: one flag's layer as it is kept, a change as the client wrote it (JSON, read by `json`), who makes it. Out: the
//! layer that would be kept, decoded by the same decoder as the flag file, or what is wrong with it at its place in the
//! body. Whether it compiles together with everything else is `compile`'s to say; keeping it is left to the caller.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::decode::{At, Decoder, Layered};
use super::document::FlagRecord;
use super::freeze::Freezes;
use super::json;
use super::layer::{Entry, Layer};
use super::problem::Problems;
use super::yaml::{Entry as Written, Mark, Node, Value};
use crate::engine::flags::model::{FlagType, Member};
use crate::engine::flags::origin::Origin;
use crate::engine::vocab::{FlagKey, HashKey, SubjectHash};

/// What the places of problems in a change are said to be in.
pub const BODY: &str = "body";

/// Who set a member last, and with which revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setter {
    /// The revision of that change.
    pub revision: u64,
    /// Its actor.
    pub actor: Arc<str>,
}

/// One flag's runtime layer as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// The revision of its last change.
    pub revision: u64,
    /// A JSON object with the members of a flag in the flag file; `null` unsets a member here and below. No spaces.
    pub body: Arc<str>,
    /// Who set each of its members.
    pub setters: BTreeMap<String, Setter>,
}

#[derive(Debug)]
struct Held {
    stored: Stored,
    entry: Entry,
}

/// The runtime layers of all flags.
#[derive(Clone, Debug, Default)]
pub struct RuntimeLayers {
    /// The number of the last change of any flag; 0 before the first.
    pub revision: u64,
    /// What stands still.
    pub freezes: Freezes,
    flags: BTreeMap<FlagKey, Arc<Held>>,
}

impl RuntimeLayers {
    /// Takes what was kept. What cannot be read any more goes to `problems`.
    #[must_use]
    pub fn read(revision: u64, layers: impl IntoIterator<Item = (FlagKey, Stored)>, problems: &mut Problems) -> Self {
        let flags = layers.into_iter().filter_map(|(key, stored)| {
            let held = Held::read(&key, stored, problems)?;
            Some((key, Arc::new(held)))
        });
        Self {
            revision,
            freezes: Freezes::new(),
            flags: flags.collect(),
        }
    }

    /// What is kept of a flag.
    #[must_use]
    pub fn find(&self, key: &FlagKey) -> Option<&Stored> {
        self.flags.get(key).map(|held| &held.stored)
    }

    /// Whether nothing is said about any flag, and nothing frozen.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.flags.is_empty() && self.freezes.is_empty()
    }

    /// Everything, as a layer.
    #[must_use]
    pub fn layer(&self) -> Layer {
        let flags = self.flags.iter().map(|(key, held)| (key.clone(), held.entry.clone()));
        Layer {
            flags: flags.collect(),
            ..Layer::default()
        }
    }

    /// The same after a change of one flag, whose places are still those of the change's own text.
    #[must_use]
    pub fn with(&self, key: &FlagKey, edited: &Edited) -> Self {
        let mut next = self.clone();
        next.revision = edited.revision;
        match &edited.held {
            Some(held) => drop(next.flags.insert(key.clone(), Arc::clone(held))),
            None => drop(next.flags.remove(key)),
        }
        next
    }

    /// The same with the places of what is kept: whoever reads of them later has no body at hand.
    #[must_use]
    pub fn settled(mut self, key: &FlagKey) -> Self {
        if let Some(held) = self.flags.get(key) {
            // It was decoded from the same members a moment ago.
            let mut unsaid = Problems::default();
            if let Some(held) = Held::read(key, held.stored.clone(), &mut unsaid) {
                self.flags.insert(key.clone(), Arc::new(held));
            }
        }
        self
    }
}

impl Held {
    fn read(key: &FlagKey, stored: Stored, problems: &mut Problems) -> Option<Self> {
        let file: Arc<str> = format!("runtime layer of {key}").into();
        let node = json::parse(&file, &stored.body, problems)?;
        let entry = entry(key, &file, node, &stored, problems)?;
        Some(Self { stored, entry })
    }
}

/// What is to be done to one flag's layer. Trees are those of [`json::parse`], their places those of the client's text.
#[derive(Clone, Debug)]
pub enum Change {
    /// Sets these members, each replaced as a whole; `null` unsets one here and below. The others stay.
    Merge(Node<'static>),
    /// Takes the layer away: what weaker sources say holds.
    Remove,
    /// Sets the whole layer: what is not there is not said any more.
    Replace(Node<'static>),
    /// Brings back what was kept before.
    Restore(Option<Stored>),
}

/// What a change came to.
#[derive(Clone, Debug)]
pub struct Edited {
    /// The number that it gets.
    pub revision: u64,
    /// Whether it makes any difference to what is kept.
    pub changed: bool,
    held: Option<Arc<Held>>,
}

impl Edited {
    /// What is to be kept; `None` where nothing is said about the flag any more.
    #[must_use]
    pub fn stored(&self) -> Option<&Stored> {
        self.held.as_deref().map(|held| &held.stored)
    }
}

/// What a flag's layer becomes by a change.
///
/// # Errors
/// `None` after at least one problem, placed in [`BODY`]; a member that the change leaves alone is placed at its top.
#[must_use]
pub fn edit(
    key: &FlagKey,
    before: Option<&Stored>,
    change: &Change,
    by: &Setter,
    problems: &mut Problems,
) -> Option<Edited> {
    let node = match change {
        Change::Remove | Change::Restore(None) => None,
        Change::Replace(node) => Some(node.clone()),
        Change::Restore(Some(stored)) => Some(kept(&stored.body)),
        Change::Merge(patch) => Some(merged(before, patch)),
    };
    let held = match node {
        None => None,
        Some(node) => {
            let stored = Stored {
                revision: by.revision,
                body: json::write(&node).into(),
                setters: match change {
                    Change::Restore(Some(stored)) => stored.setters.clone(),
                    _ => setters(before, &node, by),
                },
            };
            let entry = entry(key, &BODY.into(), node, &stored, problems)?;
            Some(Arc::new(Held { stored, entry }))
        }
    };
    let body = held.as_ref().map(|held| &held.stored.body);
    Some(Edited {
        revision: by.revision,
        changed: body != before.map(|before| &before.body),
        held,
    })
}

/// What is kept, as a tree whose every place is the top of the body that does not mention it.
fn kept(body: &str) -> Node<'static> {
    fn placeless(node: &mut Node<'_>) {
        node.mark = Mark::TOP;
        match &mut node.value {
            Value::Mapping(entries) => {
                for entry in entries {
                    entry.mark = Mark::TOP;
                    placeless(&mut entry.value);
                }
            }
            Value::Sequence(items) => items.iter_mut().for_each(placeless),
            Value::Plain(_) | Value::Quoted(_) => {}
        }
    }
    // Only what was read once is kept; what does not read any more says nothing, and the change replaces it.
    let mut unsaid = Problems::default();
    let mut node = json::parse(&BODY.into(), body, &mut unsaid).unwrap_or(Node {
        mark: Mark::TOP,
        value: Value::Mapping(Vec::new()),
    });
    placeless(&mut node);
    node
}

fn merged(before: Option<&Stored>, patch: &Node<'static>) -> Node<'static> {
    let Value::Mapping(news) = &patch.value else {
        // Refused by the decoder, which says what it found.
        return patch.clone();
    };
    let mut node = kept(before.map_or("{}", |before| &before.body));
    node.mark = patch.mark;
    if let Value::Mapping(entries) = &mut node.value {
        for new in news {
            match entries.iter_mut().find(|entry| entry.key == new.key) {
                Some(entry) => *entry = new.clone(),
                None => entries.push(new.clone()),
            }
        }
    }
    node
}

fn setters(before: Option<&Stored>, node: &Node<'_>, by: &Setter) -> BTreeMap<String, Setter> {
    let old = before.map(|before| (kept(&before.body), &before.setters));
    let Value::Mapping(entries) = &node.value else {
        return BTreeMap::new();
    };
    let members = entries.iter().map(|entry| {
        let same = old.as_ref().and_then(|(node, setters)| {
            let Value::Mapping(old) = &node.value else { return None };
            let old = old.iter().find(|old| old.key == entry.key)?;
            (json::write(&old.value) == json::write(&entry.value))
                .then(|| setters.get(&*entry.key).cloned())
                .flatten()
        });
        (entry.key.to_string(), same.unwrap_or_else(|| by.clone()))
    });
    members.collect()
}

/// Decodes a layer.
fn entry(
    key: &FlagKey,
    file: &Arc<str>,
    mut node: Node<'static>,
    stored: &Stored,
    problems: &mut Problems,
) -> Option<Entry> {
    let place = node.mark.in_file(file);
    let typed = match &mut node.value {
        Value::Mapping(entries) if entries.iter().any(|entry| entry.key == "type") => true,
        Value::Mapping(entries) => {
            // The flag file says what every flag is; a layer over it need not repeat that.
            entries.push(Written {
                key: "type".into(),
                mark: node.mark,
                value: Node {
                    mark: node.mark,
                    value: Value::Plain(FlagType::default().as_str().into()),
                },
            });
            false
        }
        Value::Plain(_) | Value::Quoted(_) | Value::Sequence(_) => {
            let what = format!("expected an object, found {}", node.found());
            problems.problem(
                place,
                "",
                what,
                "send `{\"member\": value}` with members of the flag file",
            );
            return None;
        }
    };
    let refused = problems.refuse();
    let record: FlagRecord = Decoder::new(file, problems).run(&node)?;
    let at = At {
        value: key.clone(),
        place: place.clone(),
    };
    let mut members = record.into_members(&at, problems);
    if problems.refuse() && !refused {
        return None;
    }
    if !typed {
        members.flag_type = Layered::Inherit;
    }
    members.come_from(|member, written| {
        let aliases = match member {
            Member::Enabled => [member.as_str(), "status"],
            _ => [member.as_str(); 2],
        };
        let setter = aliases.iter().find_map(|name| stored.setters.get(*name));
        let (line, column) = match written {
            Origin::File { line, column, .. } => (*line, *column),
            _ => (1, 1),
        };
        Origin::Runtime {
            line,
            column,
            revision: setter.map_or(stored.revision, |setter| setter.revision),
            actor: setter.map_or_else(|| "unknown".into(), |setter| Arc::clone(&setter.actor)),
        }
    });
    Some(Entry { place, members })
}

/// A layer as the audit trail shows it: subjects' keys as their hashes.
#[must_use]
pub fn without_subjects(body: &str, key: &HashKey) -> String {
    const LISTS: [&str; 4] = ["allowlist", "beta_users", "denylist", "user_ids"];
    fn hash(node: &mut Node<'_>, key: &HashKey) {
        match &mut node.value {
            Value::Mapping(entries) => entries.iter_mut().for_each(|entry| walk(entry, key)),
            Value::Sequence(items) => items.iter_mut().for_each(|item| hash(item, key)),
            Value::Plain(text) | Value::Quoted(text) => {
                let hash = SubjectHash::of(key, text);
                node.value = Value::Quoted(hash.to_string().into());
            }
        }
    }
    fn walk(entry: &mut Written<'_>, key: &HashKey) {
        if LISTS.contains(&&*entry.key) && !entry.value.is_null() {
            hash(&mut entry.value, key);
        } else {
            inside(&mut entry.value, key);
        }
    }
    fn inside(node: &mut Node<'_>, key: &HashKey) {
        match &mut node.value {
            Value::Mapping(entries) => entries.iter_mut().for_each(|entry| walk(entry, key)),
            Value::Sequence(items) => items.iter_mut().for_each(|item| inside(item, key)),
            Value::Plain(_) | Value::Quoted(_) => {}
        }
    }
    let mut node = kept(body);
    inside(&mut node, key);
    json::write(&node)
}

/// Where a problem stands, from the top of the layer that it is in: `features.KEY.percentage` becomes `percentage`.
#[must_use]
pub fn path_in_layer<'p>(key: &FlagKey, path: &'p str) -> &'p str {
    let prefix = super::document::flag_path(key);
    match path.strip_prefix(&prefix) {
        Some(rest) => rest.strip_prefix('.').unwrap_or(rest),
        None => path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::ruleset::layer::settled;

    fn key() -> FlagKey {
        FlagKey::parse("checkout").unwrap()
    }

    fn tree(text: &str) -> Node<'static> {
        json::parse(&BODY.into(), text, &mut Problems::default()).unwrap()
    }

    fn by(revision: u64, actor: &str) -> Setter {
        Setter {
            revision,
            actor: actor.into(),
        }
    }

    fn make(before: Option<&Stored>, change: &Change, by: &Setter) -> Result<Edited, Vec<String>> {
        let mut problems = Problems::default();
        let edited = edit(&key(), before, change, by, &mut problems);
        match problems.verdict() {
            Ok(_) => Ok(edited.unwrap()),
            Err(problems) => Err(problems.iter().map(ToString::to_string).collect()),
        }
    }

    #[test]
    fn merge_replaces_its_members_and_each_remembers_who_set_it() {
        let first = Change::Replace(tree(r#"{"percentage": 5, "owner": "a"}"#));
        let first = make(None, &first, &by(1, "ann")).unwrap();
        let second = Change::Merge(tree(r#"{"percentage": 5, "owner": null, "denylist": []}"#));
        let second = make(first.stored(), &second, &by(2, "bob")).unwrap();
        let stored = second.stored().unwrap();
        assert_eq!(&*stored.body, r#"{"percentage":5,"owner":null,"denylist":[]}"#);
        assert_eq!(stored.setters["percentage"], by(1, "ann"));
        assert_eq!(stored.setters["denylist"], by(2, "bob"));
        let layer = RuntimeLayers::default().with(&key(), &second).layer();
        let members = &layer.flags[&key()].members;
        assert_eq!(members.said(), [Member::Owner, Member::Denylist, Member::Percentage]);
        assert_eq!(
            members.flag_type,
            Layered::Inherit,
            "a type that is not there is not said"
        );
        let percentage = settled(members.percentage.clone()).unwrap();
        assert_eq!(percentage.origin.to_string(), "runtime revision 1 by ann");
    }

    #[test]
    fn what_is_wrong_stands_at_its_place_in_the_body() {
        let change = Change::Merge(tree("{\n  \"percentage\": 101,\n  \"enabeld\": true }"));
        let problems = make(None, &change, &by(1, "ann")).unwrap_err();
        assert!(problems[0].starts_with("body:2:17: "), "{problems:?}");
        assert!(problems[1].contains("did you mean `enabled`?"), "{problems:?}");
        let problems = make(None, &Change::Replace(tree("[1]")), &by(1, "ann")).unwrap_err();
        assert!(problems[0].contains("expected an object"), "{problems:?}");
    }

    #[test]
    fn same_again_changes_nothing_and_removal_leaves_nothing() {
        let put = Change::Replace(tree(r#"{"enabled": true}"#));
        let first = make(None, &put, &by(1, "ann")).unwrap();
        assert!(first.changed);
        assert!(!make(first.stored(), &put, &by(2, "bob")).unwrap().changed);
        let removed = make(first.stored(), &Change::Remove, &by(2, "bob")).unwrap();
        assert!(removed.changed && removed.stored().is_none());
        let restored = make(None, &Change::Restore(first.stored().cloned()), &by(3, "eve")).unwrap();
        assert_eq!(restored.stored().unwrap().setters["enabled"], by(1, "ann"));
    }

    #[test]
    fn audit_trail_gets_no_subject_key() {
        let body = r#"{"allowlist":["33639980123"],"denylist":null,"rules":[{"conditions":{"user_ids":["anna"],"plan":["x"]}}]}"#;
        let shown = without_subjects(body, &HashKey([7; 16]));
        assert!(!shown.contains("33639980123") && !shown.contains("anna"), "{shown}");
        assert!(
            shown.contains(r#""denylist":null"#) && shown.contains(r#""plan":["x"]"#),
            "{shown}"
        );
        let hash = SubjectHash::of(&HashKey([7; 16]), "anna");
        assert!(shown.contains(&hash.to_string()), "{shown}");
    }

    #[test]
    fn path_in_a_layer_begins_at_its_member() {
        assert_eq!(path_in_layer(&key(), "features.checkout.percentage"), "percentage");
        assert_eq!(path_in_layer(&key(), "features.checkout"), "");
        assert_eq!(path_in_layer(&key(), "percentage"), "percentage");
    }
}
