//! The program that chooses a variant, as a list of arms: who, and what for them. The first arm whose condition holds decides.
//!
//! Pure. `if` chains and those inside them are laid out flat; `fractional` is a split. What is no condition, no variant and no
//! split is told and makes the flag unmappable.

use super::logic::{Logic, call};
use super::{Variants, weights};
use crate::engine::ruleset::import::{Draft, Import, entry, map, text};
use crate::engine::ruleset::problem::quote;
use crate::engine::ruleset::yaml::{Mark, Node, Value};
use crate::engine::vocab::FlagKey;

/// The most arms that one flag may come to.
const ARMS: usize = 1_000;

/// What an arm leads to.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Then<'t> {
    /// `null`, or an `else` that is not there.
    Default,
    /// Shares of those who come here.
    Split(Split<'t>),
    /// A variant.
    Variant(String),
}

/// Who, and what for them.
#[derive(Clone, Debug)]
pub(super) struct Arm<'t> {
    /// All of these must hold; none of them is everybody.
    who: Vec<Node<'t>>,
    pub(super) then: Then<'t>,
    pub(super) mark: Mark,
}

impl<'t> Arm<'t> {
    /// An arm for everybody.
    pub(super) fn always(then: Then<'t>, mark: Mark) -> Self {
        let who = Vec::new();
        Self { who, then, mark }
    }

    pub(super) fn is_always(&self) -> bool {
        self.who.is_empty()
    }

    /// The rule that says the same.
    pub(super) fn rule(mut self, value: Node<'t>) -> Node<'t> {
        let conditions = if self.who.len() == 1 {
            self.who.remove(0)
        } else {
            let all = Node {
                mark: self.mark,
                value: Value::Sequence(self.who),
            };
            map(self.mark, vec![entry("all", self.mark, all)])
        };
        let kind = text(self.mark, kind_of(&conditions));
        let members = vec![
            entry("type", self.mark, kind),
            entry("conditions", conditions.mark, conditions),
            entry("value", value.mark, value),
        ];
        map(self.mark, members)
    }
}

/// What the rule mainly looks at: a type demands a member of its own.
fn kind_of(conditions: &Node<'_>) -> &'static str {
    fn has(node: &Node<'_>, names: &[&str]) -> bool {
        match &node.value {
            Value::Mapping(entries) => entries
                .iter()
                .any(|of| names.contains(&&*of.key) || (of.key != "values" && has(&of.value, names))),
            Value::Sequence(list) => list.iter().any(|item| has(item, names)),
            Value::Plain(_) | Value::Quoted(_) => false,
        }
    }
    let kinds: [(&[&str], &str); 4] = [
        (&["attribute"], "property"),
        (&["segment"], "user_segment"),
        (&["user_ids"], "user"),
        (&["after", "before"], "time"),
    ];
    let found = kinds.into_iter().find(|(names, _)| has(conditions, names));
    found.map_or("property", |(_, kind)| kind)
}

/// Shares, in the order in which they were written.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Split<'t> {
    shares: Vec<(String, f64)>,
    /// Digits as they were written, where the shares sum to 100.
    written: Option<Vec<Node<'t>>>,
}

impl<'t> Split<'t> {
    fn total(&self) -> f64 {
        self.shares.iter().map(|(_, share)| share).sum()
    }

    /// The percentage of those whose variant is one of these.
    pub(super) fn share_of(&self, on: impl Fn(&str) -> bool, draft: &Draft<'_>, import: &mut Import<'_, '_>) -> String {
        let part: f64 = self
            .shares
            .iter()
            .filter(|(name, _)| on(name))
            .map(|(_, share)| share)
            .sum();
        let exact = part * 100.0 / self.total();
        let rounded = (exact * 10_000.0).round() / 10_000.0;
        if (exact - rounded).abs() > 1e-9 {
            let what = format!("{exact} % is rounded to {rounded}: the smallest step is 0.0001");
            import.changed(draft, draft.mark, what);
        }
        rounded.to_string()
    }

    /// The variants with their weights; those that the split does not name have none.
    pub(super) fn weights(&self, variants: &Variants<'_, 't>) -> Node<'t> {
        let total = self.total();
        let share = |(name, share): &(String, f64), at: usize| {
            let written = self.written.as_ref().and_then(|written| written.get(at)?.text());
            let weight = match written {
                Some(written) => written.to_owned(),
                // Nine decimals: what rounding leaves is far below the millionth that anybody looks at.
                None => ((share / total * 1e9).round() / 1e9).to_string(),
            };
            Some((variants.find(name)?, weight))
        };
        let named = self.shares.iter().enumerate().filter_map(|(at, of)| share(of, at));
        let is_named = |name: &str| self.shares.iter().any(|(named, _)| named == name);
        let others = variants.entries.iter().filter(|of| !is_named(&of.key));
        weights(named.chain(others.map(|of| (of, "0".to_owned()))), variants.mark)
    }
}

/// The arms of a program; the last is for everybody.
pub(super) fn arms<'t>(
    program: &Node<'t>,
    variants: &Variants<'_, 't>,
    logic: &mut Logic<'_, 't>,
    draft: &mut Draft<'t>,
    import: &mut Import<'_, 't>,
) -> Vec<Arm<'t>> {
    let mut reading = Reading {
        variants,
        logic,
        draft,
        import,
        arms: Vec::new(),
        rehashed: false,
    };
    reading.result(program, &[], 0);
    reading.arms
}

struct Reading<'r, 'i, 'v, 'n, 't> {
    variants: &'r Variants<'v, 't>,
    logic: &'r mut Logic<'n, 't>,
    draft: &'r mut Draft<'t>,
    import: &'r mut Import<'i, 't>,
    arms: Vec<Arm<'t>>,
    rehashed: bool,
}

impl<'t> Reading<'_, '_, '_, '_, 't> {
    fn lost(&mut self, mark: Mark, what: impl Into<String>) {
        self.import.lost(self.draft, mark, what);
    }

    fn arm(&mut self, who: &[Node<'t>], then: Then<'t>, mark: Mark) {
        if self.arms.len() == ARMS {
            self.lost(
                mark,
                format!("more than {ARMS} cases; write them as segments and several flags"),
            );
        }
        if self.arms.len() < ARMS {
            self.arms.push(Arm {
                who: who.to_vec(),
                then,
                mark,
            });
        }
    }

    /// What stands where a variant is expected, for those of whom all of `who` holds.
    fn result(&mut self, node: &Node<'t>, who: &[Node<'t>], depth: usize) {
        if node.is_null() {
            return self.arm(who, Then::Default, node.mark);
        }
        if let Some(name) = node.text() {
            return self.variant(name, who, node.mark);
        }
        match call(node) {
            Some(("if" | "?:", arguments)) => self.chain(arguments, who, node.mark, depth),
            Some(("fractional", arguments)) => {
                if let Some(split) = self.split(arguments, node.mark) {
                    self.arm(who, Then::Split(split), node.mark);
                }
            }
            Some(("$ref", _)) if depth < super::logic::DEPTH => match self.logic.referred(node) {
                Ok(referred) if self.logic.is_condition(referred) => self.truth(node, who),
                Ok(referred) => {
                    let referred = referred.clone();
                    self.result(&referred, who, depth + 1);
                }
                Err(what) => self.lost(node.mark, what),
            },
            Some(_) if self.logic.is_condition(node) => self.truth(node, who),
            Some((operator, _)) => {
                let what = format!("{} chooses no variant that could be known beforehand", quote(operator));
                self.lost(node.mark, what);
            }
            None => self.lost(node.mark, format!("expected a variant, found {}", node.found())),
        }
    }

    fn variant(&mut self, name: &str, who: &[Node<'t>], mark: Mark) {
        if self.variants.find(name).is_some() {
            self.arm(who, Then::Variant(name.to_owned()), mark);
        } else {
            self.lost(mark, format!("{} is no variant of this flag", quote(name)));
        }
    }

    /// A condition as the whole program: its truth is the variant's name.
    fn truth(&mut self, node: &Node<'t>, who: &[Node<'t>]) {
        if let Some(condition) = self.condition(node) {
            let mut matching = who.to_vec();
            matching.push(condition);
            self.variant("true", &matching, node.mark);
            self.variant("false", who, node.mark);
        }
    }

    /// if, else if, else.
    fn chain(&mut self, arguments: &[Node<'t>], who: &[Node<'t>], mark: Mark, depth: usize) {
        let pairs = arguments.chunks_exact(2);
        let otherwise = pairs.remainder().first();
        for pair in pairs {
            let [condition, then] = pair else { continue };
            match &condition.value {
                Value::Plain(text) if text == "true" => return self.result(then, who, depth + 1),
                Value::Plain(text) if text == "false" || condition.is_null() => continue,
                _ => {}
            }
            if let Some(condition) = self.condition(condition) {
                let mut matching = who.to_vec();
                matching.push(condition);
                self.result(then, &matching, depth + 1);
            } else {
                // Read on, so that everything that does not map is told at once.
                self.result(then, who, depth + 1);
            }
        }
        match otherwise {
            Some(otherwise) => self.result(otherwise, who, depth + 1),
            None => self.arm(who, Then::Default, mark),
        }
    }

    fn condition(&mut self, node: &Node<'t>) -> Option<Node<'t>> {
        match self.logic.condition(node, 0) {
            Ok((condition, told)) => {
                for (mark, what) in told {
                    self.import.changed(self.draft, mark, what);
                }
                Some(condition)
            }
            Err(reasons) => {
                for (mark, what) in reasons {
                    self.lost(mark, what);
                }
                None
            }
        }
    }

    fn split(&mut self, arguments: &[Node<'t>], mark: Mark) -> Option<Split<'t>> {
        let by = arguments
            .first()
            .filter(|first| !matches!(first.value, Value::Sequence(_)));
        let shares = if by.is_some() {
            arguments.get(1..).unwrap_or_default()
        } else {
            arguments
        };
        let mut split = Split {
            shares: Vec::new(),
            written: Some(Vec::new()),
        };
        for share in shares {
            let Value::Sequence(parts) = &share.value else {
                self.lost(share.mark, "expected a variant with its share, such as `[\"on\", 25]`");
                return None;
            };
            let name = parts.first().and_then(Node::text);
            let weight = match parts.get(1) {
                None => Some(1.0),
                Some(weight) => weight.text().and_then(|text| text.parse::<f64>().ok()),
            };
            let (Some(name), Some(weight)) = (name, weight.filter(|weight| weight.is_finite() && *weight >= 0.0))
            else {
                self.lost(share.mark, "expected a variant with its share, such as `[\"on\", 25]`");
                return None;
            };
            if self.variants.find(name).is_none() {
                self.lost(share.mark, format!("{} is no variant of this flag", quote(name)));
                return None;
            }
            if split.shares.iter().any(|(known, _)| known == name) {
                self.lost(share.mark, format!("the variant {} has two shares", quote(name)));
                return None;
            }
            split.shares.push((name.to_owned(), weight));
            match (parts.get(1), &mut split.written) {
                (Some(weight), Some(written)) => written.push(weight.clone()),
                (_, written) => *written = None,
            }
        }
        if split.total() <= 0.0 {
            self.lost(mark, "the shares sum to 0");
            return None;
        }
        if (split.total() - 100.0).abs() > 0.0 {
            split.written = None;
        }
        self.people(by, mark);
        Some(split)
    }

    /// Whom a split takes: other people, by the subject and by what the flags share.
    fn people(&mut self, by: Option<&Node<'t>>, mark: Mark) {
        let what = match by.map(|by| (by, bucketing(by))) {
            None | Some((_, Bucketing::Subject)) => {
                "the shares are the same, but not the people: another hash chooses them here".to_owned()
            }
            Some((by, Bucketing::Seed(seed))) => {
                self.draft.set("cohort", text(by.mark, seed.to_owned()));
                let what = "the shares are the same, but not the people; who shares the seed shares the `cohort`";
                what.to_owned()
            }
            Some((_, Bucketing::Other)) => {
                "the shares are the same, but not the people: here they go by the subject and another hash".to_owned()
            }
        };
        if !std::mem::replace(&mut self.rehashed, true) {
            self.import.changed(self.draft, mark, what);
        }
    }
}

/// By what a split chooses.
enum Bucketing<'n> {
    Other,
    /// The subject behind a text of its own.
    Seed(&'n str),
    Subject,
}

fn bucketing<'n>(by: &'n Node<'_>) -> Bucketing<'n> {
    let name = |node: &'n Node<'_>| super::logic::variable(node).ok();
    if name(by) == Some("targetingKey") {
        return Bucketing::Subject;
    }
    if let Some(("cat", [first, second])) = call(by)
        && name(second) == Some("targetingKey")
    {
        if name(first) == Some("$flagd.flagKey") {
            return Bucketing::Subject;
        }
        if let Some(seed) = first.text().filter(|seed| FlagKey::parse(seed).is_ok()) {
            return Bucketing::Seed(seed);
        }
    }
    Bucketing::Other
}
