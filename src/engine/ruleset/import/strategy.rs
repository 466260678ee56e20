//! Records with a strategy: PERCENTAGE, USER_LIST, USER_ATTRIBUTE with `targeting_rules`, GRADUAL; and variants that sum to 100.
//!
//! Pure. One list of targeting rules is one group, and all of a group must hold; a list of lists is several, of which one is
//! enough. Operators are those of the flag file.

use super::{Draft, Import, Record, as_text, entry, map, plain, text};
use crate::engine::ruleset::problem::{near, quote};
use crate::engine::ruleset::yaml::{Mark, Node, Value};

const MEMBERS: [&str; 15] = [
    "name",
    "description",
    "enabled",
    "strategy",
    "percentage",
    "user_ids",
    "targeting_rules",
    "start_date",
    "end_date",
    "gradual_increment",
    "variants",
    "environments",
    "owner",
    "purpose",
    "default",
];

const STRATEGIES: [&str; 4] = ["percentage", "user_list", "user_attribute", "gradual"];

/// Reads a list of records, or one.
pub(super) fn read<'t>(top: &Node<'t>, import: &mut Import<'_, 't>) {
    match &top.value {
        Value::Sequence(records) => records.iter().for_each(|record| flag(record, import)),
        Value::Mapping(_) => flag(top, import),
        Value::Plain(_) | Value::Quoted(_) => {
            let what = format!("expected a list of flags, found {}", top.found());
            import.problem(top.mark, what, "write `[{\"name\": ...}, ...]`");
        }
    }
}

fn flag<'t>(node: &Node<'t>, import: &mut Import<'_, 't>) {
    let Some(record) = import.members(node, &MEMBERS) else {
        return;
    };
    let Some(name) = record.find("name") else {
        import.problem(node.mark, "a flag without a `name`", "add it");
        return;
    };
    let Some(mut draft) = import.draft(name) else { return };
    for member in ["description", "owner", "purpose"] {
        if let Some(said) = record.find(member).and_then(as_text) {
            draft.set(member, said);
        }
    }
    for member in ["enabled", "environments"] {
        if let Some(said) = record.find(member) {
            draft.set(member, said.clone());
        }
    }
    let strategy = strategy(&record, import);
    let mark = draft.mark;
    let mut flag_type = "boolean";
    let mut used: &[&str] = &["start_date", "end_date"];
    match strategy {
        Some("percentage") => {
            flag_type = "percentage";
            used = &["percentage", "start_date", "end_date"];
            if let Some(percentage) = record.find("percentage") {
                let what = "the share is the same, but not the people: another hash chooses them here";
                import.changed(&draft, percentage.mark, what);
            }
        }
        Some("user_list") => {
            let list = record.find("user_ids").cloned().unwrap_or(Node {
                mark,
                value: Value::Sequence(Vec::new()),
            });
            if matches!(&list.value, Value::Sequence(list) if list.is_empty()) {
                import.changed(&draft, list.mark, "a list of nobody: an empty `allowlist`");
            }
            draft.set("allowlist", list);
        }
        Some("user_attribute") => {
            flag_type = "targeted";
            rules(record.find("targeting_rules"), &mut draft, import);
        }
        Some("gradual") => {
            flag_type = "gradual";
            used = &["start_date", "end_date", "gradual_increment"];
        }
        _ => {}
    }
    for member in used {
        if let Some(said) = record.find(member) {
            draft.set(member, said.clone());
        }
    }
    let strategic = [
        ("percentage", "percentage"),
        ("user_ids", "user_list"),
        ("targeting_rules", "user_attribute"),
        ("gradual_increment", "gradual"),
    ];
    for (member, asks) in strategic {
        if let Some(said) = record
            .find(member)
            .filter(|said| strategy != Some(asks) && !is_nothing(said))
        {
            let what = format!("{} is not kept: the strategy never asked it", quote(member));
            import.changed(&draft, said.mark, what);
        }
    }
    if let Some(variants) = record.find("variants").filter(|said| !is_nothing(said)) {
        flag_type = "variant";
        choose(variants, record.find("default"), &mut draft, import);
    } else if let Some(default) = record.find("default") {
        draft.set("default", default.clone());
    }
    draft.set_word("type", mark, flag_type);
    import.passed_over(&draft, &record);
    import.finish(draft);
}

fn strategy(record: &Record<'_, '_>, import: &mut Import<'_, '_>) -> Option<&'static str> {
    let node = record.find("strategy")?;
    let said = node.text().unwrap_or_default();
    let found = STRATEGIES.into_iter().find(|known| known.eq_ignore_ascii_case(said));
    if found.is_none() {
        let what = format!("expected one of {}, found {}", STRATEGIES.join(", "), node.found());
        let remedy = match near(said, STRATEGIES) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "choose one of them".to_owned(),
        };
        import.problem(node.mark, what, remedy);
    }
    found
}

/// Groups of targeting rules.
fn rules<'t>(node: Option<&Node<'t>>, draft: &mut Draft<'t>, import: &mut Import<'_, 't>) {
    let Some(Value::Sequence(list)) = node.map(|node| &node.value) else {
        import.changed(draft, draft.mark, "no `targeting_rules`: nobody");
        return;
    };
    let is_group = |node: &Node<'_>| matches!(node.value, Value::Sequence(_));
    let groups: Vec<&[Node<'t>]> = if list.iter().any(is_group) {
        let items = list.iter().map(|item| match &item.value {
            Value::Sequence(group) => group.as_slice(),
            _ => std::slice::from_ref(item),
        });
        items.filter(|group| !group.is_empty()).collect()
    } else if list.is_empty() {
        import.changed(draft, draft.mark, "no `targeting_rules`: nobody");
        return;
    } else {
        vec![list]
    };
    let made = groups.into_iter().map(|group| rule(group, draft, import)).collect();
    let mark = node.map_or(draft.mark, |node| node.mark);
    draft.set("rules", sequence(mark, made));
}

fn rule<'t>(group: &[Node<'t>], draft: &Draft<'t>, import: &mut Import<'_, 't>) -> Node<'t> {
    let mark = group.first().map_or(draft.mark, |first| first.mark);
    let conditions: Vec<Node<'t>> = group.iter().map(|node| condition(node, draft, import)).collect();
    if conditions.len() > 1 {
        import.changed(
            draft,
            mark,
            "all rules of one list must hold; a list of lists is for those of which one is enough",
        );
    }
    let conditions = match <[Node<'t>; 1]>::try_from(conditions) {
        Ok([one]) => one,
        Err(all) => map(mark, vec![entry("all", mark, sequence(mark, all))]),
    };
    map(
        mark,
        vec![
            entry("type", mark, text(mark, "property")),
            entry("conditions", mark, conditions),
            entry("value", mark, plain(mark, "true")),
        ],
    )
}

/// The same with `value` as a list of values, and operators in any case.
fn condition<'t>(node: &Node<'t>, draft: &Draft<'t>, import: &mut Import<'_, 't>) -> Node<'t> {
    let Some(record) = import.members(node, &["attribute", "operator", "values", "value"]) else {
        return node.clone();
    };
    let mut members = Vec::new();
    for name in ["attribute", "operator", "values"] {
        if let Some(said) = record.find(name) {
            let said = match (name, said.text()) {
                ("operator", Some(word)) => text(said.mark, word.to_lowercase()),
                ("values", Some(_)) => sequence(said.mark, vec![said.clone()]),
                _ => said.clone(),
            };
            members.push(entry(name, said.mark, said));
        }
    }
    if let (Some(said), None) = (record.find("value"), record.find("values")) {
        let list = match &said.value {
            Value::Sequence(_) => said.clone(),
            _ => sequence(said.mark, vec![said.clone()]),
        };
        members.push(entry("values", said.mark, list));
    }
    import.passed_over(draft, &record);
    map(node.mark, members)
}

fn choose<'t>(node: &Node<'t>, default: Option<&Node<'t>>, draft: &mut Draft<'t>, import: &mut Import<'_, 't>) {
    draft.set("variants", node.clone());
    if let Some(default) = default {
        draft.set("default", default.clone());
        return;
    }
    let Value::Sequence(list) = &node.value else { return };
    let names = list.iter().filter_map(|variant| {
        let Value::Mapping(members) = &variant.value else {
            return None;
        };
        let name = members.iter().find(|member| member.key == "name")?;
        Some((name.value.text()?.to_owned(), name.value.mark))
    });
    let names: Vec<(String, Mark)> = names.collect();
    if let Some((first, mark)) = names.first()
        && !names.iter().any(|(name, _)| name == "control")
    {
        draft.set("default", text(*mark, first.clone()));
        let what = format!("there is no `control`: who does not take part gets {}", quote(first));
        import.changed(draft, *mark, what);
    }
}

fn sequence(mark: Mark, list: Vec<Node<'_>>) -> Node<'_> {
    let value = Value::Sequence(list);
    Node { mark, value }
}

fn is_nothing(node: &Node<'_>) -> bool {
    matches!(&node.value, Value::Sequence(list) if list.is_empty())
}
