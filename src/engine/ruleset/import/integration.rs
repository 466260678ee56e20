//! Records of integration flags: `name`, `type`, `status`, `percentage`, `start_date`, `end_date`, `conditions`, `description`.
//!
//! Pure. `type` says what the flag is for, `status` who decides: ENABLED everybody, DISABLED nobody, PARTIAL the percentage. A
//! record may say `default: on` or `off` in place of a status, as a catalogue does: then environment variables go on setting
//! the flag.

use jiff::civil::DateTime;

use super::{Draft, Import, Record, as_text, entry, map, plain, text};
use crate::engine::flags::bucket::parse_ten_thousandths;
use crate::engine::ruleset::document::Instant;
use crate::engine::ruleset::problem::{near, quote};
use crate::engine::ruleset::yaml::{self, Node, Value};

const MEMBERS: [&str; 10] = [
    "name",
    "type",
    "status",
    "default",
    "percentage",
    "start_date",
    "end_date",
    "conditions",
    "description",
    "owner",
];

/// Reads a list of records, or a map from names to records.
pub(super) fn read<'t>(top: &Node<'t>, import: &mut Import<'_, 't>) {
    match &top.value {
        Value::Sequence(records) => records.iter().for_each(|record| flag(record, None, import)),
        Value::Mapping(entries) => {
            for record in entries {
                let name = text(record.mark, record.key.clone());
                flag(&record.value, Some(&name), import);
            }
        }
        Value::Plain(_) | Value::Quoted(_) => {
            let what = format!("expected a list of records, found {}", top.found());
            import.problem(
                top.mark,
                what,
                "write `- name: ...` lines, or `name:` lines with the members below",
            );
        }
    }
}

fn flag<'t>(node: &Node<'t>, name: Option<&Node<'t>>, import: &mut Import<'_, 't>) {
    let Some(record) = import.members(node, &MEMBERS) else {
        return;
    };
    let Some(name) = record.find("name").or(name) else {
        import.problem(node.mark, "a record without a `name`", "add the flag's name");
        return;
    };
    let Some(mut draft) = import.draft(name) else { return };
    for member in ["description", "owner"] {
        if let Some(said) = record.find(member).and_then(as_text) {
            draft.set(member, said);
        }
    }
    if let Some(said) = record.find("type")
        && let Some(kind) = word(said, &["release", "experiment", "operational", "permission"], import)
    {
        draft.set_word("kind", said.mark, kind);
    }
    status(&record, &mut draft, import);
    for member in ["start_date", "end_date"] {
        if let Some(said) = record.find(member) {
            let date = date(said, &draft, import);
            draft.set(member, date);
        }
    }
    if let Some(conditions) = record.find("conditions").filter(|said| !says_nothing(said)) {
        let kept = text(conditions.mark, yaml::line(conditions));
        draft.set(
            "metadata",
            map(conditions.mark, vec![entry("conditions", conditions.mark, kept)]),
        );
        let what = "conditions were kept and never asked; they are a text in `metadata`, and no rule is made of them";
        import.changed(&draft, conditions.mark, what);
    }
    import.passed_over(&draft, &record);
    import.finish(draft);
}

/// Who decides.
fn status<'t>(record: &Record<'_, 't>, draft: &mut Draft<'t>, import: &mut Import<'_, 't>) {
    let percent = record.find("percentage");
    let said = record
        .find("status")
        .and_then(|said| Some((word(said, &["enabled", "disabled", "partial"], import)?, said.mark)));
    if let Some(node) = record.find("default")
        && let Some(default) = word(node, &["on", "off", "true", "false"], import)
    {
        draft.set_truth("default", node.mark, matches!(default, "on" | "true"));
    }
    let mut flag_type = "boolean";
    match said {
        Some(("partial", mark)) => {
            flag_type = "percentage";
            match percent {
                Some(percent) => {
                    draft.set("percentage", percent.clone());
                    let what = "the share is the same, but not the people: another hash chooses them here";
                    import.changed(draft, percent.mark, what);
                }
                None => {
                    draft.set("percentage", plain(mark, "0"));
                    import.changed(draft, mark, "`PARTIAL` without a percentage is `percentage: 0`: nobody");
                }
            }
        }
        Some((word, mark)) => {
            draft.set_truth("enabled", mark, word == "enabled");
            if let Some(percent) = percent.filter(|percent| !decides_alike(percent, word == "enabled")) {
                let what = format!(
                    "the percentage is not kept: `{}` decides for everybody, and here it would decide first",
                    word.to_uppercase()
                );
                import.changed(draft, percent.mark, what);
            }
        }
        None => {
            if let Some(percent) = percent {
                let what = "a percentage without a `status` decides nothing";
                import.problem(percent.mark, what, "add `status: PARTIAL`, or remove it");
            } else if record.find("status").is_none() && record.find("default").is_none() {
                import.changed(
                    draft,
                    draft.mark,
                    "says no `status`, so it is off until somebody sets it",
                );
            }
        }
    }
    draft.set_word("type", draft.mark, flag_type);
}

/// Whether leaving the percentage out loses nothing that anybody would miss.
fn decides_alike(percent: &Node<'_>, on: bool) -> bool {
    let units = percent.text().map(parse_ten_thousandths);
    units == Some(Ok(if on { 1_000_000 } else { 0 }))
}

/// One of these words, in any case.
fn word(node: &Node<'_>, known: &[&'static str], import: &mut Import<'_, '_>) -> Option<&'static str> {
    let said = node.text().unwrap_or_default();
    let found = known.iter().find(|word| word.eq_ignore_ascii_case(said));
    if found.is_none() {
        let what = format!("expected one of {}, found {}", known.join(", "), node.found());
        let remedy = match near(said, known.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "choose one of them".to_owned(),
        };
        import.problem(node.mark, what, remedy);
    }
    found.copied()
}

/// A date; one without an offset is taken as UTC. What is none at all is refused with everything else.
fn date<'t>(node: &Node<'t>, draft: &Draft<'t>, import: &mut Import<'_, 't>) -> Node<'t> {
    let said = node.text().unwrap_or_default();
    if let (Ok(local), true) = (said.parse::<DateTime>(), has_no_offset(said)) {
        let what = format!("{} says no offset and is taken as UTC", quote(said));
        import.changed(draft, node.mark, what);
        return text(node.mark, format!("{local}Z"));
    }
    // Some write a space where RFC 3339 has a `T`.
    let spaced = said.replacen(' ', "T", 1);
    match Instant::parse(&spaced) {
        Some(_) => text(node.mark, spaced),
        None => node.clone(),
    }
}

/// Whether nothing but digits and their signs follows the date: the library passes offsets over.
fn has_no_offset(said: &str) -> bool {
    let time = said.get(10..).unwrap_or_default();
    time.bytes()
        .all(|byte| byte.is_ascii_digit() || matches!(byte, b'T' | b't' | b' ' | b':' | b'.'))
}

fn says_nothing(node: &Node<'_>) -> bool {
    match &node.value {
        Value::Mapping(entries) => entries.is_empty(),
        Value::Sequence(list) => list.is_empty(),
        Value::Plain(_) | Value::Quoted(_) => false,
    }
}
