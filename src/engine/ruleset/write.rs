//! What was read, written again: a flag's members in their canonical order, as JSON and as YAML.
//!
//! Pure. Reading what is written gives the same members: every number is written exactly, and texts that YAML might take for
//! something else stand in quotes. A member that is not said is left out; one that is unset is `null`.

use jiff::Timestamp;

use super::conditions::{ConditionSpec, TimeSpec, is_known};
use super::decode::Layered;
use super::layer::{Layer, Members, Setting};
use super::targets::{Fallback, PrerequisiteSpec, RuleSpec, RuleValue, VariantsSpec};
use crate::engine::flags::model::{Member, Wanted};
use crate::engine::flags::operators::Operator;
use crate::engine::flags::subjects::SubjectSet;
use crate::engine::flags::window::DAYS;

/// One flag as a JSON object, without spaces. Variants are a list.
#[must_use]
pub fn flag_json(members: &Members) -> String {
    let mut text = String::new();
    Tree::Map(tree(members)).json(&mut text);
    text
}

/// A whole layer as a flag file in YAML.
#[must_use]
pub fn layer_yaml(layer: &Layer) -> String {
    let mut text = String::new();
    if !layer.segments.is_empty() {
        text.push_str("segments:\n");
    }
    for (key, condition) in &layer.segments {
        line(
            &mut text,
            1,
            key.as_str(),
            &Tree::Map(condition_members(&condition.value)),
        );
    }
    if layer.flags.is_empty() {
        text.push_str("features: {}\n");
    } else {
        text.push_str("features:\n");
    }
    for (key, entry) in &layer.flags {
        flag_yaml(&mut text, key.as_str(), &entry.members);
    }
    text
}

fn flag_yaml(text: &mut String, key: &str, members: &Members) {
    text.push_str("  ");
    text.push_str(&yaml_text(key));
    text.push_str(":\n");
    for (name, value) in tree(members) {
        match value {
            // A line for each is what people edit, and what a diff shows best.
            Tree::List(items) if matches!(items.first(), Some(Tree::Map(_))) => {
                text.push_str("    ");
                text.push_str(&name);
                text.push_str(":\n");
                for item in items {
                    text.push_str("      - ");
                    item.yaml(text);
                    text.push('\n');
                }
            }
            value => line(text, 2, &name, &value),
        }
    }
}

fn line(text: &mut String, indent: usize, name: &str, value: &Tree) {
    (0..indent).for_each(|_| text.push_str("  "));
    text.push_str(&yaml_text(name));
    text.push_str(": ");
    value.yaml(text);
    text.push('\n');
}

/// A value between what was read and its text.
enum Tree {
    List(Vec<Tree>),
    Map(Vec<(String, Tree)>),
    /// A number, a word of the language, or JSON.
    Raw(String),
    Text(String),
}

impl Tree {
    fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    fn texts<'t>(list: impl IntoIterator<Item = &'t str>) -> Self {
        Self::List(list.into_iter().map(Self::text).collect())
    }

    fn json(&self, text: &mut String) {
        match self {
            Self::Raw(raw) => text.push_str(raw),
            Self::Text(plain) => text.push_str(&quoted(plain)),
            Self::List(items) => {
                let items = items.iter().map(|item| (None, item));
                joined(items, ["[", "]"], [":", ","], quoted, Self::json, text);
            }
            Self::Map(members) => {
                let members = members.iter().map(|(name, value)| (Some(name), value));
                joined(members, ["{", "}"], [":", ","], quoted, Self::json, text);
            }
        }
    }

    fn yaml(&self, text: &mut String) {
        match self {
            Self::Raw(raw) => text.push_str(raw),
            Self::Text(plain) => text.push_str(&yaml_text(plain)),
            Self::List(items) => {
                let items = items.iter().map(|item| (None, item));
                joined(items, ["[", "]"], [": ", ", "], yaml_text, Self::yaml, text);
            }
            Self::Map(members) if members.is_empty() => text.push_str("{}"),
            Self::Map(members) => {
                let members = members.iter().map(|(name, value)| (Some(name), value));
                joined(members, ["{ ", " }"], [": ", ", "], yaml_text, Self::yaml, text);
            }
        }
    }
}

fn joined<'t>(
    items: impl Iterator<Item = (Option<&'t String>, &'t Tree)>,
    [open, close]: [&str; 2],
    [colon, comma]: [&str; 2],
    name_of: impl Fn(&str) -> String,
    write: impl Fn(&Tree, &mut String),
    text: &mut String,
) {
    text.push_str(open);
    for (index, (name, item)) in items.enumerate() {
        if index > 0 {
            text.push_str(comma);
        }
        if let Some(name) = name {
            text.push_str(&name_of(name));
            text.push_str(colon);
        }
        write(item, text);
    }
    text.push_str(close);
}

/// A text in quotes, as JSON and YAML both read it.
fn quoted(text: &str) -> String {
    let json = serde_json::Value::from(text).to_string();
    let odd = |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}');
    if !json.contains(odd) {
        return json;
    }
    let escape = |c: char| {
        if odd(c) {
            format!("\\u{:04x}", u32::from(c))
        } else {
            c.to_string()
        }
    };
    json.chars().map(escape).collect()
}

/// A text as YAML: bare where no reader of any version could take it for something else.
fn yaml_text(text: &str) -> String {
    const WORDS: [&str; 9] = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"];
    let plain = text
        .bytes()
        .next()
        .is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_')
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b'/'))
        && !WORDS.iter().any(|word| word.eq_ignore_ascii_case(text));
    if plain { text.to_owned() } else { quoted(text) }
}

/// The members that are said, in the order of [`Member`].
fn tree(members: &Members) -> Vec<(String, Tree)> {
    let mut said = Said(Vec::new());
    let word = |text: &'static str| Tree::text(text);
    let raw = |value: &dyn std::fmt::Display| Tree::Raw(value.to_string());
    said.add(Member::Type, &members.flag_type, |of| word(of.as_str()));
    said.add(Member::Kind, &members.kind, |of| word(of.as_str()));
    for (member, text) in [
        (Member::Description, &members.description),
        (Member::Owner, &members.owner),
        (Member::Purpose, &members.purpose),
        (Member::Rollback, &members.rollback),
        (Member::ExpectedEnd, &members.expected_end),
    ] {
        said.add(member, text, |text| Tree::text(text));
    }
    said.add(Member::Metadata, &members.metadata, |texts| {
        Tree::Map(
            texts
                .iter()
                .map(|(name, text)| (name.clone(), Tree::text(text)))
                .collect(),
        )
    });
    said.add(Member::Env, &members.env, |names| {
        Tree::texts(names.iter().map(String::as_str))
    });
    said.add(Member::Enabled, &members.enabled, |on| raw(on));
    said.add(Member::Environments, &members.environments, |names| {
        Tree::texts(names.iter().map(String::as_str))
    });
    said.add(Member::StartDate, &members.start_date, |ms| Tree::Text(date(*ms)));
    said.add(Member::EndDate, &members.end_date, |ms| Tree::Text(date(*ms)));
    said.add(Member::GradualIncrement, &members.gradual_increment, |units| {
        let text = format!("{}.{:04}", units / 10_000, units % 10_000);
        Tree::Raw(text.trim_end_matches('0').trim_end_matches('.').to_owned())
    });
    said.add(Member::Prerequisites, &members.prerequisites, |list| {
        Tree::List(list.iter().map(prerequisite).collect())
    });
    said.add(Member::Denylist, &members.denylist, subjects);
    said.add(Member::Allowlist, &members.allowlist, subjects);
    said.add(Member::BetaUsers, &members.beta_users, subjects);
    said.add(Member::Rules, &members.rules, |list| {
        Tree::List(list.iter().map(rule).collect())
    });
    said.add(Member::Percentage, &members.percentage, |share| raw(share));
    said.add(Member::Cohort, &members.cohort, |key| Tree::text(key.as_str()));
    said.add(Member::Variants, &members.variants, variants);
    said.add(Member::Default, &members.default, |default| match &default.value {
        Fallback::Enabled(on) => raw(on),
        Fallback::Variant(name) => Tree::text(name),
    });
    said.add(Member::ShadowMode, &members.shadow_mode, |on| raw(on));
    said.0
}

struct Said(Vec<(String, Tree)>);

impl Said {
    fn add<T>(&mut self, member: Member, setting: &Setting<T>, write: impl FnOnce(&T) -> Tree) {
        let value = match setting {
            Layered::Inherit => return,
            Layered::Unset => Tree::Raw("null".to_owned()),
            Layered::Set(sourced) => write(&sourced.value),
        };
        self.0.push((member.as_str().to_owned(), value));
    }
}

fn date(unix_ms: i64) -> String {
    // What was read was a date, so it is one.
    Timestamp::from_millisecond(unix_ms).map_or_else(|_| unix_ms.to_string(), |at| at.to_string())
}

fn subjects(list: &SubjectSet) -> Tree {
    Tree::texts(list.iter())
}

fn prerequisite(first: &PrerequisiteSpec) -> Tree {
    let mut members = vec![("flag".to_owned(), Tree::text(first.flag.value.as_str()))];
    members.extend(first.value.as_ref().map(|value| {
        let value = match &value.value {
            Wanted::Enabled(on) => Tree::Raw(on.to_string()),
            Wanted::Variant(name) => Tree::text(&**name),
        };
        ("value".to_owned(), value)
    }));
    Tree::Map(members)
}

fn rule(rule: &RuleSpec) -> Tree {
    let mut members = vec![("type".to_owned(), Tree::text(rule.kind.as_str()))];
    members.extend(
        rule.name
            .as_ref()
            .map(|name| ("name".to_owned(), Tree::text(&name.value.0))),
    );
    members.extend(
        rule.priority
            .map(|priority| ("priority".to_owned(), Tree::Raw(priority.to_string()))),
    );
    members.push(("conditions".to_owned(), Tree::Map(condition_members(&rule.conditions))));
    members.extend(rule.value.as_ref().map(|value| {
        let value = match &value.value {
            RuleValue::Enabled(on) => Tree::Raw(on.to_string()),
            RuleValue::Share(share) => Tree::Raw(share.to_string()),
            RuleValue::Variant(name) => Tree::text(name),
        };
        ("value".to_owned(), value)
    }));
    Tree::Map(members)
}

fn variants(variants: &VariantsSpec) -> Tree {
    let one = |variant: &super::targets::VariantSpec| {
        let mut members = vec![
            ("name".to_owned(), Tree::text(&variant.name)),
            ("weight".to_owned(), Tree::Raw(variant.weight.to_string())),
        ];
        members.extend(
            variant
                .value
                .as_ref()
                .map(|json| ("value".to_owned(), Tree::Raw(json.0.get().to_owned()))),
        );
        Tree::Map(members)
    };
    Tree::List(variants.list.iter().map(one).collect())
}

/// The members of the map that means this condition.
fn condition_members(condition: &ConditionSpec) -> Vec<(String, Tree)> {
    let one = |name: &str, value| vec![(name.to_owned(), value)];
    let list =
        |list: &[ConditionSpec]| Tree::List(list.iter().map(|inner| Tree::Map(condition_members(inner))).collect());
    match condition {
        ConditionSpec::All(all) => match flat(all) {
            Some(members) => members,
            None => one("all", list(all)),
        },
        ConditionSpec::Any(any) => one("any", list(any)),
        ConditionSpec::Not(inner) => one("not", Tree::Map(condition_members(inner))),
        ConditionSpec::Attribute(compared) => {
            let values = || Tree::texts(compared.values.iter().map(String::as_str));
            match (compared.operator, compared.values.as_slice()) {
                (Operator::In, _) if !is_known(&compared.attribute) => one(&compared.attribute, values()),
                (Operator::Equals, [value]) if !is_known(&compared.attribute) => {
                    one(&compared.attribute, Tree::text(value))
                }
                (operator, _) => vec![
                    ("attribute".to_owned(), Tree::text(&compared.attribute)),
                    ("operator".to_owned(), Tree::text(operator.as_str())),
                    ("values".to_owned(), values()),
                ],
            }
        }
        ConditionSpec::Groups(names) => one("groups", Tree::texts(names.iter().map(String::as_str))),
        ConditionSpec::Percentage(share) => one("percentage", Tree::Raw(share.to_string())),
        ConditionSpec::Segment(key) => one("segment", Tree::text(key.value.as_str())),
        ConditionSpec::Time(time) => time_members(&time.value),
        ConditionSpec::Users(list) => one("user_ids", subjects(list)),
    }
}

/// Several conditions as one map, if no name would stand there twice: the form in which people write them.
fn flat(all: &[ConditionSpec]) -> Option<Vec<(String, Tree)>> {
    let mut members: Vec<(String, Tree)> = Vec::new();
    for condition in all {
        let inner = match condition {
            // One map within another would be one map when read again.
            ConditionSpec::All(inner) if flat(inner).is_some() => return None,
            other => condition_members(other),
        };
        let kin = |name: &str| match name {
            "operator" | "values" => "attribute".to_owned(),
            "before" | "days" | "hours" | "timezone" => "after".to_owned(),
            other => other.to_owned(),
        };
        if inner
            .iter()
            .any(|(name, _)| members.iter().any(|(known, _)| kin(known) == kin(name)))
        {
            return None;
        }
        members.extend(inner);
    }
    (all.len() > 1).then_some(members)
}

fn time_members(time: &TimeSpec) -> Vec<(String, Tree)> {
    let clock = |minutes: u16| format!("{:02}:{:02}", minutes / 60, minutes % 60);
    let days = |days: u8| {
        Tree::texts(
            DAYS.into_iter()
                .zip(0..)
                .filter(|(_, bit)| days >> bit & 1 == 1)
                .map(|(day, _)| day),
        )
    };
    let members = [
        ("after", time.after.map(|ms| Tree::Text(date(ms)))),
        ("before", time.before.map(|ms| Tree::Text(date(ms)))),
        ("days", time.days.map(days)),
        (
            "hours",
            time.hours
                .map(|(from, until)| Tree::Text(format!("{}-{}", clock(from), clock(until)))),
        ),
        ("timezone", time.timezone.as_ref().map(Tree::text)),
    ];
    let said = members
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value?)));
    said.collect()
}
