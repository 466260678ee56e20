//! Rows of a rollout table: `name`, `enabled`, `shadow_mode`, `allowlist`, `denylist`, `percent_rollout`, `active`.
//!
//! Pure. A row has every column, so "0" and "not set" look alike in it, and so do an empty list and no list. The readings
//! here never put a subject on the new path whom the row did not: beside an allowlist a percentage of 0 is none, without one it
//! is 0; an empty allowlist is nobody, unless a percentage above 0 stands beside it and says who.

use super::{Draft, Import, Record, as_text, plain};
use crate::engine::flags::bucket::parse_ten_thousandths;
use crate::engine::ruleset::yaml::{Node, Value};

const COLUMNS: [&str; 8] = [
    "name",
    "enabled",
    "shadow_mode",
    "allowlist",
    "denylist",
    "percent_rollout",
    "active",
    "description",
];

/// Reads a list of rows, or of fixtures that have the row below `fields`.
pub(super) fn read<'t>(top: &Node<'t>, import: &mut Import<'_, 't>) {
    let rows = match &top.value {
        Value::Sequence(rows) => rows.as_slice(),
        Value::Mapping(_) => std::slice::from_ref(top),
        Value::Plain(_) | Value::Quoted(_) => {
            let what = format!("expected a list of rows, found {}", top.found());
            import.problem(top.mark, what, "write `[{\"name\": ...}, ...]`");
            return;
        }
    };
    for row in rows {
        flag(fields(row), import);
    }
}

/// The row of a fixture.
fn fields<'n, 't>(row: &'n Node<'t>) -> &'n Node<'t> {
    let Value::Mapping(entries) = &row.value else {
        return row;
    };
    let fields = entries.iter().find(|entry| entry.key == "fields");
    fields.map_or(row, |entry| &entry.value)
}

fn flag<'t>(row: &Node<'t>, import: &mut Import<'_, 't>) {
    let Some(row_of) = import.members(row, &COLUMNS) else {
        return;
    };
    let Some(name) = row_of.find("name") else {
        import.problem(row.mark, "a row without a `name`", "add the flag's name");
        return;
    };
    let Some(mut draft) = import.draft(name) else { return };
    if let Some(description) = row_of.find("description").and_then(as_text) {
        draft.set("description", description);
    }
    enabled(&row_of, &mut draft, import);
    if let Some(node) = row_of.find("shadow_mode")
        && import.truth(node) == Some(true)
    {
        draft.set_truth("shadow_mode", node.mark, true);
    }
    if let Some(denied) = row_of.find("denylist").filter(|node| !is_empty(node)) {
        draft.set("denylist", ids(denied));
    }
    who(&row_of, &mut draft, import);
    import.passed_over(&draft, &row_of);
    import.finish(draft);
}

fn enabled<'t>(row: &Record<'_, 't>, draft: &mut Draft<'t>, import: &mut Import<'_, 't>) {
    let on = row
        .find("enabled")
        .and_then(|node| Some((import.truth(node)?, node.mark)));
    let active = row
        .find("active")
        .and_then(|node| Some((import.truth(node)?, node.mark)));
    if let Some((on, mark)) = on {
        draft.set_truth("enabled", mark, on);
    }
    if let Some((false, mark)) = active {
        draft.set_truth("enabled", mark, false);
        if on.is_some_and(|(on, _)| on) {
            import.changed(
                draft,
                mark,
                "`active: false` is `enabled: false` here: nobody, whatever else the row says",
            );
        }
        return;
    }
    let decides = |name| row.find(name).is_some_and(|node| !is_empty(node) && !is_zero(node));
    if let Some((false, mark)) = on
        && (decides("allowlist") || decides("percent_rollout"))
    {
        let what = "`enabled: false` is off for everybody here, before lists and percentage are asked; `null` lets them decide";
        import.changed(draft, mark, what);
    }
}

/// Who is in: the list, the percentage, or both as far as a row can say so.
fn who<'t>(row: &Record<'_, 't>, draft: &mut Draft<'t>, import: &mut Import<'_, 't>) {
    let list = row.find("allowlist");
    let percent = row.find("percent_rollout").map(number);
    let named = list.filter(|list| !is_empty(list));
    let is_none = percent.as_ref().is_some_and(is_zero);
    let mut flag_type = "boolean";
    match (named, &percent) {
        (Some(list), Some(percent)) if is_none => {
            draft.set("allowlist", ids(list));
            let what = "`percent_rollout: 0` beside an allowlist is no percentage: the list alone decides";
            import.changed(draft, percent.mark, what);
        }
        (Some(list), percent) => {
            draft.set("allowlist", ids(list));
            if let Some(percent) = percent {
                draft.set("percentage", percent.clone());
            }
        }
        (None, Some(percent)) => {
            flag_type = "percentage";
            draft.set("percentage", percent.clone());
            if is_none {
                let what = "`percent_rollout: 0` without an allowlist is `percentage: 0`: nobody. remove it if the flag is to \
                            be on for everybody";
                import.changed(draft, percent.mark, what);
            } else if let Some(empty) = list {
                let what = "an empty allowlist beside a percentage is no list here: the percentage decides";
                import.changed(draft, empty.mark, what);
            }
        }
        (None, None) => {
            if let Some(empty) = list {
                draft.set("allowlist", empty.clone());
                let what = "an empty allowlist is nobody; remove it to let `enabled` decide";
                import.changed(draft, empty.mark, what);
            }
        }
    }
    draft.set_word("type", draft.mark, flag_type);
}

fn is_empty(node: &Node<'_>) -> bool {
    matches!(&node.value, Value::Sequence(list) if list.is_empty())
}

fn is_zero(node: &Node<'_>) -> bool {
    node.text().is_some_and(|text| parse_ten_thousandths(text) == Ok(0))
}

/// A percentage that a table may have kept as a text.
fn number<'t>(node: &Node<'t>) -> Node<'t> {
    match node.text() {
        Some(said) if parse_ten_thousandths(said).is_ok() => plain(node.mark, said.to_owned()),
        _ => node.clone(),
    }
}

/// Ids are texts here, also those that JSON has as numbers.
fn ids<'t>(node: &Node<'t>) -> Node<'t> {
    let Value::Sequence(list) = &node.value else {
        return node.clone();
    };
    let texts = list.iter().map(|item| as_text(item).unwrap_or_else(|| item.clone()));
    Node {
        mark: node.mark,
        value: Value::Sequence(texts.collect()),
    }
}
