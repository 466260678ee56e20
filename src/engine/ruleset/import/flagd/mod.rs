//! A flagd file: `flags` with `state`, `variants`, `defaultVariant`, `targeting`, `metadata`; `$evaluators`.
//!
//! Pure. `targeting` is a program, and a flag here is a list of rules: what has the shape of if, else if, else becomes rules,
//! one with a split the weights or the percentage, `$evaluators` that say who somebody is become segments. Everything else has
//! no counterpart, and its flag is off. `logic` reads conditions, `targeting` the program around them.

mod logic;
mod targeting;

use super::{Draft, Import, Outcome, as_text, entry, map, plain, text};
use crate::engine::ruleset::problem::quote;
use crate::engine::ruleset::yaml::{Entry, Mark, Node, Value};
use logic::Logic;
use targeting::{Arm, Split, Then};

const MEMBERS: [&str; 6] = ["key", "state", "variants", "defaultVariant", "targeting", "metadata"];

/// The name that `metadata` reserves here.
const KILL_SWITCH: &str = "kill_switch";

/// Reads a file, or the custom resource that holds one below `spec.flagSpec`.
pub(super) fn read<'t>(top: &Node<'t>, import: &mut Import<'_, 't>) {
    let resource = member(top, "spec").and_then(|spec| member(spec, "flagSpec"));
    let file = resource.unwrap_or(top);
    let Some(flags) = member(file, "flags") else {
        import.problem(
            file.mark,
            "there are no `flags` here",
            "name a file with `{\"flags\": {...}}`",
        );
        return;
    };
    let mut logic = Logic::new(member(file, "$evaluators"));
    let shared = metadata(member(file, "metadata"));
    match &flags.value {
        Value::Mapping(entries) => {
            for of in entries {
                flag(&text(of.mark, of.key.clone()), &of.value, &shared, &mut logic, import);
            }
        }
        Value::Sequence(list) => {
            for of in list {
                match member(of, "key") {
                    Some(key) => flag(key, of, &shared, &mut logic, import),
                    None => import.problem(of.mark, "a flag without a `key`", "add it"),
                }
            }
        }
        Value::Plain(_) | Value::Quoted(_) => {
            let what = format!("expected a map of flags, found {}", flags.found());
            import.problem(flags.mark, what, "write `\"flags\": {\"name\": {...}}`");
        }
    }
    for unused in logic.unused() {
        let what = format!(
            "no flag asks for the evaluator {}, so it is not kept",
            quote(&unused.key)
        );
        import.note(Outcome::Changed, unused.mark, "", what);
    }
    import.segments = logic.into_segments();
}

/// A member of a map that is there and not null.
fn member<'n, 't>(node: &'n Node<'t>, name: &str) -> Option<&'n Node<'t>> {
    let Value::Mapping(entries) = &node.value else {
        return None;
    };
    let found = entries.iter().find(|entry| entry.key == name)?;
    (!found.value.is_null()).then_some(&found.value)
}

/// The texts of a map of metadata.
fn metadata<'t>(node: Option<&Node<'t>>) -> Vec<Entry<'t>> {
    let Some(Value::Mapping(entries)) = node.map(|node| &node.value) else {
        return Vec::new();
    };
    let texts = entries
        .iter()
        .filter_map(|of| Some(entry(of.key.clone(), of.mark, as_text(&of.value)?)));
    texts.collect()
}

/// What a flag chooses between.
struct Variants<'n, 't> {
    entries: &'n [Entry<'t>],
    default: Option<&'n str>,
    /// Where the flag begins.
    mark: Mark,
}

impl<'n, 't> Variants<'n, 't> {
    fn find(&self, name: &str) -> Option<&'n Entry<'t>> {
        self.entries.iter().find(|variant| variant.key == name)
    }

    fn are_boolean(&self) -> bool {
        let boolean = |node: &Node<'_>| matches!(&node.value, Value::Plain(text) if text == "true" || text == "false");
        self.entries.iter().all(|variant| boolean(&variant.value))
    }

    /// Of boolean variants: whether this one is on.
    fn is_on(&self, name: &str) -> bool {
        self.find(name)
            .is_some_and(|variant| matches!(&variant.value.value, Value::Plain(text) if text == "true"))
    }
}

fn flag<'t>(
    key: &Node<'t>,
    node: &Node<'t>,
    shared: &[Entry<'t>],
    logic: &mut Logic<'_, 't>,
    import: &mut Import<'_, 't>,
) {
    let Some(record) = import.members(node, &MEMBERS) else {
        return;
    };
    let Some(mut draft) = import.draft(key) else { return };
    let Some(variants) = record.find("variants") else {
        import.problem(key.mark, "a flag without `variants`", "add them");
        return;
    };
    let Value::Mapping(entries) = &variants.value else {
        let what = format!("expected a map of variants, found {}", variants.found());
        import.problem(
            variants.mark,
            what,
            "write `\"variants\": {\"on\": true, \"off\": false}`",
        );
        return;
    };
    let variants = Variants {
        entries,
        default: record.find("defaultVariant").and_then(Node::text),
        mark: draft.mark,
    };
    if let (Some(default), Some(node)) = (variants.default, record.find("defaultVariant"))
        && variants.find(default).is_none()
    {
        let what = format!("{} is no variant of this flag", quote(default));
        import.problem(node.mark, what, "name one of them");
        return;
    }
    about(&record.find("metadata").cloned(), shared, &mut draft, import);
    let program = record
        .find("targeting")
        .filter(|node| !matches!(&node.value, Value::Mapping(m) if m.is_empty()));
    let arms = match program {
        None => vec![Arm::always(Then::Default, variants.mark)],
        Some(program) => targeting::arms(program, &variants, logic, &mut draft, import),
    };
    if !draft.is_lost {
        if variants.are_boolean() {
            boolean(arms, &variants, &mut draft, import);
        } else {
            several(arms, &variants, &mut draft, import);
        }
    }
    if draft.is_lost {
        draft.members.retain(|member| member.key == "metadata");
        switched_off(&variants, &mut draft);
    }
    state(record.find("state"), &mut draft, import);
    import.passed_over(&draft, &record);
    import.finish(draft);
}

/// What is known of a flag besides its answers.
fn about<'t>(own: &Option<Node<'t>>, shared: &[Entry<'t>], draft: &mut Draft<'t>, import: &mut Import<'_, 't>) {
    let mut said = metadata(own.as_ref());
    for of in shared {
        if said.iter().all(|own| own.key != of.key) {
            said.push(of.clone());
        }
    }
    if let Some(at) = said.iter().position(|of| of.key == KILL_SWITCH) {
        let of = said.remove(at);
        let what = "`metadata.kill_switch` would switch the flag off here, so it is not kept";
        import.changed(draft, of.mark, what);
    }
    if let Some(first) = said.first() {
        let mark = first.mark;
        draft.set("metadata", map(mark, said));
    }
}

fn state(node: Option<&Node<'_>>, draft: &mut Draft<'_>, import: &mut Import<'_, '_>) {
    match node.map(|node| (node, node.text())) {
        None => import.problem(draft.mark, "a flag without a `state`", "write ENABLED or DISABLED"),
        Some((_, Some("ENABLED"))) => {}
        Some((node, Some("DISABLED"))) => {
            draft.set_truth("enabled", node.mark, false);
            let what = "a disabled flag answers off here; flagd left the answer to its caller";
            import.changed(draft, node.mark, what);
        }
        Some((node, _)) => {
            let what = format!("expected ENABLED or DISABLED, found {}", node.found());
            import.problem(node.mark, what, "write one of the two");
        }
    }
}

/// A flag whose meaning could not be kept.
fn switched_off<'t>(variants: &Variants<'_, 't>, draft: &mut Draft<'t>) {
    let mark = draft.mark;
    draft.set_truth("enabled", mark, false);
    if variants.are_boolean() {
        draft.set_word("type", mark, "boolean");
        return;
    }
    let named = variants.default.and_then(|name| variants.find(name));
    if let Some(off) = named.or(variants.entries.first()) {
        all_to(off, variants, draft);
    }
}

/// True and false become on and off.
fn boolean<'t>(arms: Vec<Arm<'t>>, variants: &Variants<'_, 't>, draft: &mut Draft<'t>, import: &mut Import<'_, 't>) {
    for variant in variants.entries {
        let ours = if variants.is_on(&variant.key) { "on" } else { "off" };
        if variant.key != ours {
            let what = format!("the variant {} is called `{ours}` here", quote(&variant.key));
            import.changed(draft, variant.mark, what);
        }
    }
    let default = variants.default.is_some_and(|name| variants.is_on(name));
    if variants.default.is_none() {
        let what = "no `defaultVariant`: who matches nothing is off here; flagd left the answer to its caller";
        import.changed(draft, draft.mark, what);
    }
    let mut rules = Vec::new();
    let mark = draft.mark;
    let on = |name: &str| variants.is_on(name);
    for arm in arms {
        let value = match &arm.then {
            Then::Default => plain(arm.mark, if default { "true" } else { "false" }),
            Then::Variant(name) => plain(arm.mark, if on(name) { "true" } else { "false" }),
            Then::Split(split) => plain(arm.mark, split.share_of(on, draft, import)),
        };
        if !arm.is_always() {
            rules.push(arm.rule(value));
            continue;
        }
        let flag_type = if rules.is_empty() { "boolean" } else { "targeted" };
        match (&arm.then, &value.value) {
            (Then::Split(_), _) => {
                draft.set_word("type", mark, if rules.is_empty() { "percentage" } else { "targeted" });
                draft.set("percentage", value);
            }
            (_, Value::Plain(text)) if text == "true" => {
                // The type whose `enabled: true` is everybody.
                draft.set_word("type", mark, "boolean");
                draft.set_truth("enabled", arm.mark, true);
            }
            _ => {
                draft.set_word("type", mark, flag_type);
                draft.set_truth("default", arm.mark, false);
            }
        }
    }
    if !rules.is_empty() {
        draft.set("rules", list(mark, rules));
    }
}

/// Any other variants keep their names.
fn several<'t>(arms: Vec<Arm<'t>>, variants: &Variants<'_, 't>, draft: &mut Draft<'t>, import: &mut Import<'_, 't>) {
    let Some(default) = variants.default.and_then(|name| variants.find(name)) else {
        let what = "no `defaultVariant`, and only the caller knows what to answer then";
        import.lost(draft, variants.mark, what);
        return;
    };
    let splits: Vec<(&Split<'_>, Mark)> = arms
        .iter()
        .filter_map(|arm| match &arm.then {
            Then::Split(split) => Some((split, arm.mark)),
            Then::Default | Then::Variant(_) => None,
        })
        .collect();
    let split = splits.first().map(|(split, _)| (*split).clone());
    if let Some((_, mark)) = splits.iter().find(|(other, _)| Some(*other) != split.as_ref()) {
        let what = "a flag has one split here, and this is a second one; make a flag of it";
        import.lost(draft, *mark, what);
        return;
    }
    let mut rules = Vec::new();
    for arm in arms {
        let name = match &arm.then {
            Then::Default => Some(default),
            Then::Variant(name) => variants.find(name),
            Then::Split(_) => None,
        };
        if !arm.is_always() {
            // Who matches a rule that is on takes part, and so gets a variant by the split.
            let value = name.map_or_else(|| plain(arm.mark, "true"), |of| text(arm.mark, of.key.clone()));
            rules.push(arm.rule(value));
            continue;
        }
        match (&split, name) {
            (None, Some(everybody)) => all_to(everybody, variants, draft),
            (None, None) => {}
            (Some(split), None) => {
                draft.set("variants", split.weights(variants));
                draft.set("default", text(default.mark, default.key.clone()));
            }
            (Some(split), Some(rest)) => {
                // Whom no rule lets in is not let in by 0 % either, and gets what those get who do not take part.
                if variants.find("control").is_some_and(|control| control.key != rest.key) {
                    let what = format!(
                        "who matches nothing gets {}, but here a variant named `control` is for them; rename it",
                        quote(&rest.key)
                    );
                    import.lost(draft, arm.mark, what);
                    return;
                }
                draft.set("variants", split.weights(variants));
                draft.set("percentage", plain(arm.mark, "0"));
                draft.set("default", text(rest.mark, rest.key.clone()));
            }
        }
    }
    draft.set_word("type", variants.mark, "variant");
    if !rules.is_empty() {
        draft.set("rules", list(variants.mark, rules));
    }
}

/// Everybody whom no rule takes gets this one.
fn all_to<'t>(everybody: &Entry<'t>, variants: &Variants<'_, 't>, draft: &mut Draft<'t>) {
    let weight = |of: &Entry<'t>| if of.key == everybody.key { "100" } else { "0" };
    let weighed = variants.entries.iter().map(|of| (of, weight(of).to_owned()));
    draft.set("variants", weights(weighed, variants.mark));
    draft.set("default", text(everybody.mark, everybody.key.clone()));
    draft.set_word("type", variants.mark, "variant");
}

fn weights<'n, 't: 'n>(weighed: impl Iterator<Item = (&'n Entry<'t>, String)>, mark: Mark) -> Node<'t> {
    let items = weighed.map(|(of, weight)| {
        let members = vec![
            entry("name", of.mark, text(of.mark, of.key.clone())),
            entry("weight", of.mark, plain(of.mark, weight)),
            entry("value", of.value.mark, of.value.clone()),
        ];
        map(of.mark, members)
    });
    list(mark, items.collect())
}

fn list(mark: Mark, items: Vec<Node<'_>>) -> Node<'_> {
    let value = Value::Sequence(items);
    Node { mark, value }
}
