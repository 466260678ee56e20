//! Records whose percentage and dates are texts in `metadata`: `key`, `type`, `enabled`, `rules`, `variants`, `metadata`.
//!
//! Pure. Types, rules and variants are those of the flag file, and so is the hash: the same people stay in. Whatever is no
//! rule or variant here is refused where it stands.

use super::{Draft, Import, Record, as_text, entry, map, plain, text};
use crate::engine::flags::bucket::parse_ten_thousandths;
use crate::engine::flags::model::FlagType;
use crate::engine::ruleset::problem::quote;
use crate::engine::ruleset::yaml::{Entry, Node, Value};

const MEMBERS: [&str; 14] = [
    "key",
    "name",
    "type",
    "enabled",
    "description",
    "rules",
    "variants",
    "metadata",
    "percentage",
    "start_date",
    "end_date",
    "owner",
    "environments",
    "default",
];

/// Members of `metadata` that are members of a flag here.
const LIFTED: [&str; 3] = ["percentage", "start_date", "end_date"];

/// Reads a list of records, or a map of them, which may stand below `features`.
pub(super) fn read<'t>(top: &Node<'t>, import: &mut Import<'_, 't>) {
    match &top.value {
        Value::Sequence(records) => records.iter().for_each(|record| flag(record, None, import)),
        Value::Mapping(entries) if entries.iter().any(|of| of.key == "key") => flag(top, None, import),
        Value::Mapping(entries) => {
            if let Some(features) = entries.iter().find(|of| of.key == "features") {
                for of in entries.iter().filter(|of| of.key != "features" && !is_empty(&of.value)) {
                    let what = format!("{} are not kept", quote(&of.key));
                    import.note(super::Outcome::Changed, of.mark, "", what);
                }
                return read(&features.value, import);
            }
            for of in entries {
                flag(&of.value, Some(&text(of.mark, of.key.clone())), import);
            }
        }
        Value::Plain(_) | Value::Quoted(_) => {
            let what = format!("expected a list of flags, found {}", top.found());
            import.problem(top.mark, what, "write `[{\"key\": ...}, ...]`");
        }
    }
}

fn flag<'t>(node: &Node<'t>, name: Option<&Node<'t>>, import: &mut Import<'_, 't>) {
    let Some(record) = import.members(node, &MEMBERS) else {
        return;
    };
    let Some(name) = record.find("key").or(record.find("name")).or(name) else {
        import.problem(node.mark, "a flag without a `key`", "add it");
        return;
    };
    let Some(mut draft) = import.draft(name) else { return };
    for member in ["description", "owner"] {
        if let Some(said) = record.find(member).and_then(as_text) {
            draft.set(member, said);
        }
    }
    for member in [
        "enabled",
        "start_date",
        "end_date",
        "rules",
        "environments",
        "default",
        "percentage",
    ] {
        if let Some(said) = record.find(member).filter(|said| member != "rules" || !is_empty(said)) {
            draft.set(member, said.clone());
        }
    }
    lift(&record, &mut draft);
    let flag_type = flag_type(&record, &mut draft, import);
    percentage(flag_type, &mut draft, import);
    if let Some(variants) = record.find("variants").filter(|variants| !is_empty(variants)) {
        weigh(variants, &mut draft, import);
    }
    import.passed_over(&draft, &record);
    import.finish(draft);
}

/// Texts of `metadata` that have members of their own go there; the others stay, a kill switch too.
fn lift<'t>(record: &Record<'_, 't>, draft: &mut Draft<'t>) {
    let Some((node, Value::Mapping(entries))) = record.find("metadata").map(|node| (node, &node.value)) else {
        return;
    };
    let mut rest: Vec<Entry<'t>> = Vec::new();
    for of in entries {
        let lifted = LIFTED.iter().find(|name| **name == of.key);
        match (lifted, of.value.text()) {
            (Some(&"percentage"), Some(said)) => draft.set("percentage", plain(of.value.mark, said.to_owned())),
            (Some(name), Some(_)) => draft.set(name, of.value.clone()),
            _ => rest.extend(as_text(&of.value).map(|said| entry(of.key.clone(), of.mark, said))),
        }
    }
    if !rest.is_empty() {
        draft.set("metadata", map(node.mark, rest));
    }
}

fn flag_type<'t>(record: &Record<'_, 't>, draft: &mut Draft<'t>, import: &mut Import<'_, 't>) -> FlagType {
    let said = record.find("type");
    let known = said.and_then(|said| FlagType::ALL.into_iter().find(|of| said.text() == Some(of.as_str())));
    if let (Some(said), None) = (said, known) {
        let what = format!("{} is no type; `enabled` decided alone, and does", said.found());
        import.changed(draft, said.mark, what);
    }
    let flag_type = known.unwrap_or_default();
    draft.set_word("type", said.map_or(draft.mark, |said| said.mark), flag_type.as_str());
    flag_type
}

/// What was cut to whole percents, and what was nobody because nothing was said.
fn percentage<'t>(flag_type: FlagType, draft: &mut Draft<'t>, import: &mut Import<'_, 't>) {
    let mark = draft.mark;
    let Some((at, said)) = draft
        .find("percentage")
        .map(|node| (node.mark, node.text().unwrap_or_default().to_owned()))
    else {
        if flag_type == FlagType::Percentage {
            draft.set("percentage", plain(mark, "0"));
            import.changed(draft, mark, "no `metadata.percentage` is `percentage: 0`: nobody");
        }
        return;
    };
    if flag_type != FlagType::Percentage {
        draft.unset("percentage");
        let what = format!(
            "a flag of type `{}` never asked its percentage, so it is not kept",
            flag_type.as_str()
        );
        import.changed(draft, at, what);
    } else if parse_ten_thousandths(&said).is_ok_and(|units| units % 10_000 != 0) {
        let what = format!("{} was cut to whole percents, and is not here", quote(&said));
        import.changed(draft, at, what);
    }
}

/// Variants with their weights; a number alone is a weight.
fn weigh<'t>(node: &Node<'t>, draft: &mut Draft<'t>, import: &mut Import<'_, 't>) {
    let Value::Mapping(entries) = &node.value else {
        draft.set("variants", node.clone());
        return;
    };
    let weighed = entries.iter().map(|of| {
        let value = match &of.value.value {
            Value::Plain(_) => map(of.mark, vec![entry("weight", of.value.mark, of.value.clone())]),
            _ => of.value.clone(),
        };
        entry(of.key.clone(), of.mark, value)
    });
    draft.set("variants", map(node.mark, weighed.collect()));
    if let Some(first) = entries.first()
        && !entries.iter().any(|of| of.key == "control")
        && draft.find("default").is_none()
    {
        draft.set("default", text(first.mark, first.key.clone()));
        let what = format!(
            "there is no `control`: who does not take part gets {}",
            quote(&first.key)
        );
        import.changed(draft, node.mark, what);
    }
}

fn is_empty(node: &Node<'_>) -> bool {
    match &node.value {
        Value::Mapping(entries) => entries.is_empty(),
        Value::Sequence(list) => list.is_empty(),
        Value::Plain(_) | Value::Quoted(_) => node.is_null(),
    }
}
