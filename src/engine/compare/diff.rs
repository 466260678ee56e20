//! The structural difference of two JSON documents.
//!
//! Pure. In: two trees and the rules. Out: divergences, suppressions and tolerated numbers, into the report. Arrays are
//! compared by index, objects by name whatever the order of their members, which RFC 8259 gives no meaning; numbers by
//! decimal value, texts by their characters. A place that differs in type is not descended into.
//!
//! Subtrees of equal bytes are passed over without a look inside, so patterns and places cost only where something
//! differs. Recursion ends at the depth that `json` reads.

use std::borrow::Cow;

use super::json::{Kind as Json, Text, Tree, Value};
use super::path::{Cursor, Place, Step};
use super::report::Report;
use super::sample::Sample;
use super::verdict::{Kind, Severity};
use crate::engine::number;

/// Compares two documents.
pub(super) fn documents(report: &mut Report<'_>, legacy: &Tree<'_>, new: &Tree<'_>) {
    let rules = report.rules;
    let mut walk = Walk {
        ignore: Cursor::new(rules.ignored().iter()),
        severity: Cursor::new(rules.severities().iter().map(|(pattern, _)| pattern)),
        demanded: Vec::new(),
        steps: Vec::new(),
        hidden: None,
        report,
    };
    walk.demand();
    walk.place(Some(legacy.root()), Some(new.root()));
}

struct Walk<'w, 'r, 't> {
    ignore: Cursor<'r>,
    severity: Cursor<'r>,
    /// Per level, the severity that a pattern demands there or above.
    demanded: Vec<Option<Severity>>,
    steps: Vec<Step<'t>>,
    /// Inside an ignored place: whether anything in it differs.
    hidden: Option<bool>,
    report: &'w mut Report<'r>,
}

/// The sides of one place.
type Sides<'t> = (Option<Value<'t>>, Option<Value<'t>>);

impl<'t> Walk<'_, '_, 't> {
    /// Goes one step down, unless both sides have the same bytes there.
    fn step(&mut self, step: Step<'t>, (legacy, new): Sides<'t>) {
        if same_bytes(legacy, new) || self.hidden == Some(true) {
            return;
        }
        self.steps.push(step);
        if self.hidden.is_some() {
            self.differ(legacy, new);
        } else {
            self.ignore.descend(step);
            self.severity.descend(step);
            self.demand();
            self.place(legacy, new);
            self.demanded.pop();
            self.severity.ascend();
            self.ignore.ascend();
        }
        self.steps.pop();
    }

    fn demand(&mut self) {
        let inherited = self.demanded.last().copied().flatten();
        let here = self
            .severity
            .named_by()
            .and_then(|number| self.report.rules.severities().get(number));
        self.demanded.push(here.map(|(_, severity)| *severity).or(inherited));
    }

    fn place(&mut self, legacy: Option<Value<'t>>, new: Option<Value<'t>>) {
        let Some(rule) = self.ignore.named_by() else {
            return self.differ(legacy, new);
        };
        self.hidden = Some(false);
        self.differ(legacy, new);
        if self.hidden.take() == Some(true) {
            self.report.suppress(rule);
        }
    }

    fn differ(&mut self, legacy: Option<Value<'t>>, new: Option<Value<'t>>) {
        let (Some(a), Some(b)) = (legacy, new) else {
            let only = legacy.or(new);
            let kind = match (self.steps.last(), only.map(Value::kind)) {
                (Some(Step::Index(_)), _) => Kind::Length,
                (_, Some(Json::Null)) => Kind::Null,
                _ if legacy.is_some() => Kind::Missing,
                _ => Kind::Extra,
            };
            return self.record(kind, (legacy, new));
        };
        match (a.kind(), b.kind()) {
            (Json::Object, Json::Object) => self.objects(a, b),
            (Json::Array, Json::Array) => self.arrays(a, b),
            (Json::Number, Json::Number) => self.numbers(a, b),
            (Json::Text, Json::Text) if a.text().same(b.text()) => {}
            (Json::Text, Json::Text) => self.record(Kind::Value, (legacy, new)),
            (Json::Null, Json::Null) => {}
            (Json::Null, _) | (_, Json::Null) => self.record(Kind::Null, (legacy, new)),
            (Json::Bool, Json::Bool) if a.raw() == b.raw() => {}
            (Json::Bool, Json::Bool) => self.record(Kind::Value, (legacy, new)),
            _ => self.record(Kind::Type, (legacy, new)),
        }
    }

    fn numbers(&mut self, a: Value<'t>, b: Value<'t>) {
        if number::equal(a.raw(), b.raw()) {
            return;
        }
        let tolerance = self.report.rules.tolerance();
        if tolerance > 0.0 && number::within(tolerance, a.raw(), b.raw()) {
            self.report.found.tolerated = self.report.found.tolerated.saturating_add(1);
            return;
        }
        self.record(Kind::Value, (Some(a), Some(b)));
    }

    fn arrays(&mut self, a: Value<'t>, b: Value<'t>) {
        let (mut legacy, mut new) = (a.items(), b.items());
        for index in 0..a.len().max(b.len()) {
            self.step(Step::Index(index), (legacy.next(), new.next()));
        }
    }

    fn objects(&mut self, a: Value<'t>, b: Value<'t>) {
        // Two builds of one service write members in one order: then no name has to be looked for.
        let in_step = a.len() == b.len() && a.members().zip(b.members()).all(|((a, _), (b, _))| a.same(b));
        if in_step {
            for ((name, legacy), (_, new)) in a.members().zip(b.members()) {
                self.step(Step::Member(name), (Some(legacy), Some(new)));
            }
            return;
        }
        for group in groups(a, b) {
            self.group(&group);
        }
    }

    /// All occurrences of one name. A name that occurs equally often is compared occurrence by occurrence; otherwise the
    /// last ones are, for that is what most readers of the answer see, and the repetition is a divergence of its own.
    fn group(&mut self, group: &Group<'t>) {
        let step = Step::Member(group.name);
        let (legacy, new) = (&group.legacy, &group.new);
        if legacy.len() == new.len() {
            for (legacy, new) in legacy.iter().zip(new) {
                self.step(step, (Some(*legacy), Some(*new)));
            }
            return;
        }
        let last = (legacy.last().copied(), new.last().copied());
        if last.0.is_some() && last.1.is_some() {
            self.repeated(step, last);
        }
        self.step(step, last);
    }

    /// Records a repeated name at its own place, with the rules that hold there.
    fn repeated(&mut self, step: Step<'t>, last: Sides<'t>) {
        self.steps.push(step);
        if self.hidden.is_some() {
            self.hidden = Some(true);
        } else {
            self.ignore.descend(step);
            self.severity.descend(step);
            self.demand();
            match self.ignore.named_by() {
                // What else differs there is hidden by the same rule, as a difference of its own.
                Some(rule) => self.report.suppress(rule),
                None => self.record(Kind::DuplicateKey, last),
            }
            self.demanded.pop();
            self.severity.ascend();
            self.ignore.ascend();
        }
        self.steps.pop();
    }

    fn record(&mut self, kind: Kind, (legacy, new): Sides<'t>) {
        if let Some(hidden) = &mut self.hidden {
            *hidden = true;
            return;
        }
        let demanded = self.demanded.last().copied().flatten();
        let severity = demanded.unwrap_or_else(|| Severity::of(kind, legacy.is_some()));
        let samples = || (legacy.map(Sample::of_json), new.map(Sample::of_json));
        self.report.record(kind, severity, || Place::of(&self.steps), samples);
    }
}

fn same_bytes(legacy: Option<Value<'_>>, new: Option<Value<'_>>) -> bool {
    matches!((legacy, new), (Some(a), Some(b)) if a.raw() == b.raw())
}

/// All occurrences of one member name on both sides.
struct Group<'t> {
    name: Text<'t>,
    legacy: Vec<Value<'t>>,
    new: Vec<Value<'t>>,
}

/// The members of both sides by name, in legacy's order, then what only new has in new's order.
///
/// Sorted, not hashed: the order must not vary, and no choice of names may make it slow.
fn groups<'t>(a: Value<'t>, b: Value<'t>) -> Vec<Group<'t>> {
    struct Member<'t> {
        key: Cow<'t, [u8]>,
        /// Legacy's members first, each side in its order.
        position: usize,
        name: Text<'t>,
        value: Value<'t>,
    }
    let both = a.members().chain(b.members()).enumerate();
    let mut members: Vec<_> = both
        .map(|(position, (name, value))| Member {
            key: name.decode(),
            position,
            name,
            value,
        })
        .collect();
    members.sort_unstable_by(|a, b| a.key.cmp(&b.key).then(a.position.cmp(&b.position)));

    let mut groups: Vec<(usize, Group<'t>)> = members
        .chunk_by(|a, b| a.key == b.key)
        .filter_map(|same| {
            let first = same.first()?;
            let (legacy, new) = same.split_at(same.partition_point(|member| member.position < a.len()));
            let values = |side: &[Member<'t>]| side.iter().map(|member| member.value).collect();
            Some((
                first.position,
                Group {
                    name: first.name,
                    legacy: values(legacy),
                    new: values(new),
                },
            ))
        })
        .collect();
    groups.sort_unstable_by_key(|(position, _)| *position);
    groups.into_iter().map(|(_, group)| group).collect()
}
