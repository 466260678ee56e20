//! Names become places: segments, variants and other flags that rules and prerequisites name; rings and endless chains are
//! refused.
//!
//! Pure. In: what layers say, merged. Out: what `flags` walks, and a problem for every name that nobody bears.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::conditions::{ConditionSpec, TimeSpec};
use super::problem::{Problems, near, quote};
use super::spot::Spotted;
use super::targets::{PrerequisiteSpec, RuleSpec, RuleValue, VariantsSpec};
use crate::engine::flags::VariantIndex;
use crate::engine::flags::model::{FlagType, Prerequisite, Wanted};
use crate::engine::flags::operators::{Operator, Test};
use crate::engine::flags::origin::Origin;
use crate::engine::flags::targeting::{Condition, Outcome, Rule, Segment};
use crate::engine::flags::variants::{Variant, Variants};
use crate::engine::flags::window::{self, Window};
use crate::engine::vocab::{FlagKey, SegmentKey};

/// The most conditions and flags that one evaluation may ask, all that they ask in turn included.
pub const ASKED_LIMIT: u64 = 10_000;

/// How many flags, or segments, may ask each other in a row.
pub const CHAIN_LIMIT: usize = 32;

/// Of so many rules, those that ask the same as another are looked for; of more, nobody would read the warnings.
const COMPARED_RULES: usize = 256;

/// The segments of all rules.
#[derive(Debug, Default)]
pub(super) struct Segments {
    keys: Vec<SegmentKey>,
    /// What asking each one costs.
    costs: Vec<u64>,
    pub(super) compiled: Vec<Segment>,
}

impl Segments {
    pub(super) fn compile(
        written: BTreeMap<SegmentKey, Spotted<ConditionSpec>>,
        now_ms: i64,
        problems: &mut Problems,
    ) -> Self {
        let keys: Vec<SegmentKey> = written.keys().cloned().collect();
        let mut segments = Self {
            costs: vec![0; keys.len()],
            keys,
            compiled: Vec::new(),
        };
        let specs: Vec<&Spotted<ConditionSpec>> = written.values().collect();
        let edges: Vec<Vec<usize>> = specs
            .iter()
            .map(|spec| {
                let mut named = Vec::new();
                spec.value.walk(&mut |condition| {
                    if let ConditionSpec::Segment(key) = condition {
                        named.extend(segments.find(&key.value));
                    }
                });
                named
            })
            .collect();
        let order = order(&edges);
        for ring in &order.rings {
            let names: Vec<&str> = ring.iter().map(|at| segments.keys[*at].as_str()).collect();
            if let Some(last) = ring
                .iter()
                .map(|at| &specs[*at].spot)
                .max_by(|a, b| a.place.cmp(&b.place))
            {
                let what = format!("segments name each other in a ring: {}", names.join(", "));
                last.problem(what, "let one of them name its conditions itself", problems);
            }
        }
        let mut depths = vec![1_usize; specs.len()];
        for at in order.sorted {
            segments.costs[at] = segments.cost(&specs[at].value);
            depths[at] = 1 + edges[at].iter().map(|next| depths[*next]).max().unwrap_or(0);
            if depths[at] > CHAIN_LIMIT {
                let what = format!("segments name each other more than {CHAIN_LIMIT} deep");
                specs[at]
                    .spot
                    .problem(what, "name their conditions in one segment", problems);
                // Reported once, not for all that build on it.
                depths[at] = 0;
            }
        }
        for (key, spec) in written {
            let condition = segments.condition(spec.value, now_ms, problems);
            segments.compiled.push(Segment { key, condition });
        }
        segments
    }

    fn find(&self, key: &SegmentKey) -> Option<usize> {
        self.keys.binary_search(key).ok()
    }

    /// What asking a condition costs, at most: itself and everything inside.
    fn cost(&self, condition: &ConditionSpec) -> u64 {
        let mut cost = 0_u64;
        condition.walk(&mut |condition| {
            let inner = match condition {
                ConditionSpec::Segment(key) => self.find(&key.value).map_or(0, |at| self.costs[at]),
                _ => 0,
            };
            cost = cost.saturating_add(1).saturating_add(inner);
        });
        cost
    }

    fn condition(&self, written: ConditionSpec, now_ms: i64, problems: &mut Problems) -> Condition {
        let mut list = |written: Vec<ConditionSpec>| -> Box<[Condition]> {
            let compiled = written.into_iter();
            compiled.map(|inner| self.condition(inner, now_ms, problems)).collect()
        };
        match written {
            ConditionSpec::All(all) => Condition::All(list(all)),
            ConditionSpec::Any(any) => Condition::Any(list(any)),
            ConditionSpec::Not(inner) => Condition::Not(Box::new(self.condition(*inner, now_ms, problems))),
            ConditionSpec::Attribute(compared) => {
                let test = Arc::unwrap_or_clone(compared.test);
                Condition::Attribute(compared.attribute.into(), test)
            }
            ConditionSpec::Groups(names) => match Test::compile(Operator::In, &names) {
                Ok(test) => Condition::Groups(test),
                // This operator takes any text.
                Err(_) => Condition::Any(Box::default()),
            },
            ConditionSpec::Percentage(share) => Condition::Percentage(share),
            ConditionSpec::Segment(key) => {
                if let Some(at) = self.find(&key.value) {
                    return Condition::Segment(at as u32);
                }
                let what = format!("no segment is named {}", quote(key.value.as_str()));
                let remedy = match near(key.value.as_str(), self.keys.iter().map(SegmentKey::as_str)) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => "define it under `segments` in the flag file".to_owned(),
                };
                key.spot.problem(what, remedy, problems);
                Condition::Any(Box::default())
            }
            ConditionSpec::Time(time) => {
                if time.value.before.is_some_and(|before| before <= now_ms) {
                    let what = "the period is over, so this never holds again";
                    time.spot.warning(what, "remove it, or move its end", problems);
                }
                Condition::Time(Box::new(window(time.value)))
            }
            ConditionSpec::Users(list) => Condition::Users(list),
        }
    }
}

fn window(time: TimeSpec) -> Window {
    Window {
        after_ms: time.after,
        before_ms: time.before,
        days: time.days,
        hours: time.hours,
        zone: time.timezone.as_deref().and_then(window::zone),
    }
}

/// Compiles the rules of a flag, in the order in which they are asked, and says what asking all of them costs.
pub(super) fn rules(
    key: &FlagKey,
    written: Vec<RuleSpec>,
    flag_type: Option<FlagType>,
    variants: Option<&Variants>,
    segments: &Segments,
    now_ms: i64,
    problems: &mut Problems,
) -> (Box<[Rule]>, u64) {
    let mut numbered: Vec<(usize, RuleSpec)> = written.into_iter().enumerate().collect();
    numbered.sort_by_key(|(index, rule)| (rule.priority.is_none(), rule.priority, *index));
    repeated(&numbered, problems);
    let mut cost = 0_u64;
    let rules = numbered.into_iter().map(|(index, rule)| {
        cost = cost.saturating_add(segments.cost(&rule.conditions));
        let priority = rule.priority.map(|priority| priority.to_string());
        let own = rule.name.map(|name| name.value.0).or(priority);
        let outcome = match rule.value {
            None => Outcome::On,
            Some(Spotted { value, spot }) => match value {
                RuleValue::Enabled(true) => Outcome::On,
                RuleValue::Enabled(false) => Outcome::Off,
                RuleValue::Share(share) => Outcome::Share(share),
                RuleValue::Variant(name) => match variants.and_then(|variants| variants.find(&name)) {
                    Some(variant) => Outcome::Variant(variant),
                    None => {
                        no_variant(&Spotted { value: name, spot }, flag_type, variants, problems);
                        Outcome::Off
                    }
                },
            },
        };
        Rule {
            hash_name: format!("{key}/{}", own.as_deref().unwrap_or_default()).into(),
            label: own.unwrap_or_else(|| format!("rules[{index}]")).into(),
            condition: segments.condition(rule.conditions, now_ms, problems),
            outcome,
            origin: Origin::File {
                file: Arc::clone(&rule.spot.place.file),
                line: rule.spot.place.line,
                column: rule.spot.place.column,
            },
        }
    });
    let rules = rules.collect();
    (rules, cost)
}

/// Says that a value names no variant; nothing where the flag's type or its variants could not be read.
pub(super) fn no_variant(
    name: &Spotted<String>,
    flag_type: Option<FlagType>,
    variants: Option<&Variants>,
    problems: &mut Problems,
) {
    let quoted = quote(&name.value);
    match (flag_type, variants) {
        (None, _) | (Some(FlagType::Variant), None) => {}
        (Some(FlagType::Variant), Some(variants)) => {
            let names = || variants.iter().map(|variant| &*variant.name);
            let remedy = match near(&name.value, names()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("the variants are {}", names().collect::<Vec<_>>().join(", ")),
            };
            name.spot
                .problem(format!("no variant is named {quoted}"), remedy, problems);
        }
        (Some(other), _) => {
            let what = format!(
                "{quoted} names a variant, and a flag of type `{}` has none",
                other.as_str()
            );
            name.spot
                .problem(what, "write true or false, or change the type", problems);
        }
    }
}

/// Rules that another one hides, and names that stand twice.
fn repeated(rules: &[(usize, RuleSpec)], problems: &mut Problems) {
    if rules.len() > COMPARED_RULES {
        return;
    }
    for (at, (_, rule)) in rules.iter().enumerate() {
        let before = rules[..at].iter().map(|(_, before)| before);
        if let Some(first) = before.clone().find(|before| before.conditions == rule.conditions) {
            let what = format!(
                "this rule decides about nobody, because the one at {} has the same conditions and is asked first",
                first.spot.place
            );
            rule.spot.warning(what, "remove one of them", problems);
        }
        if let Some(name) = &rule.name
            && before.clone().any(|before| before.name.as_ref() == Some(name))
        {
            let what = format!(
                "a second rule named {}, so answers and logs confuse them",
                quote(&name.value.0)
            );
            name.spot.warning(what, "rename one of them", problems);
        }
    }
}

/// Compiles the variants of a flag. `off` is for those who do not take part.
pub(super) fn variants(written: VariantsSpec, off: VariantIndex) -> Variants {
    let whole = written.whole;
    let list = written.list.into_iter().map(|variant| Variant {
        weight: variant.millionths(whole),
        name: variant.name.into(),
        value: variant.value.map(|json| json.0),
    });
    Variants::new(list.collect(), off)
}

/// What a flag asks of others, before these are known.
#[derive(Debug)]
pub(super) struct Asks {
    pub(super) key: FlagKey,
    pub(super) prerequisites: Vec<PrerequisiteSpec>,
    /// What its own rules cost.
    pub(super) cost: u64,
    pub(super) spot: super::spot::Spot,
}

/// Compiles prerequisites as they are, whether or not anybody bears the name.
pub(super) fn prerequisites(written: &[PrerequisiteSpec]) -> Box<[Prerequisite]> {
    let compiled = written.iter().map(|first| Prerequisite {
        flag: first.flag.value.clone(),
        at: None,
        wanted: first
            .value
            .as_ref()
            .map_or(Wanted::Enabled(true), |value| value.value.clone()),
    });
    compiled.collect()
}

/// Checks the prerequisites of all flags together. `asks` is sorted by key and has every flag that some source sets;
/// `variants` gives the variants of one, `None` where it has none.
pub(super) fn check_prerequisites<'f>(
    asks: &[Asks],
    variants: impl Fn(&FlagKey) -> Option<(FlagType, Option<&'f Variants>)>,
    problems: &mut Problems,
) {
    let find = |key: &FlagKey| asks.binary_search_by(|known| known.key.cmp(key)).ok();
    let mut edges = Vec::with_capacity(asks.len());
    for flag in asks {
        let mut named = BTreeSet::new();
        for first in &flag.prerequisites {
            let key = &first.flag.value;
            let Some(at) = find(key) else {
                let what = format!("no source sets the flag {}", quote(key.as_str()));
                let remedy = match near(key.as_str(), asks.iter().map(|flag| flag.key.as_str())) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => "define it, or remove the prerequisite".to_owned(),
                };
                first.flag.spot.problem(what, remedy, problems);
                continue;
            };
            named.insert(at);
            if let Some(Spotted {
                value: Wanted::Variant(name),
                spot,
            }) = &first.value
                && let Some((flag_type, variants)) = variants(key)
                && variants.is_none_or(|variants| variants.find(name).is_none())
            {
                let name = Spotted {
                    value: name.to_string(),
                    spot: spot.clone(),
                };
                no_variant(&name, Some(flag_type), variants, problems);
            }
        }
        edges.push(named.into_iter().collect::<Vec<usize>>());
    }
    let order = order(&edges);
    for ring in &order.rings {
        let names: Vec<&str> = ring.iter().map(|at| asks[*at].key.as_str()).collect();
        let spots = ring.iter().flat_map(|at| {
            let in_ring = |first: &&PrerequisiteSpec| names.contains(&first.flag.value.as_str());
            asks[*at]
                .prerequisites
                .iter()
                .filter(in_ring)
                .map(|first| &first.flag.spot)
        });
        if let Some(last) = spots.max_by(|a, b| a.place.cmp(&b.place)) {
            let what = format!("flags ask each other in a ring: {}", names.join(", "));
            last.problem(what, "remove one of these prerequisites", problems);
        }
    }
    let mut depths = vec![1_usize; asks.len()];
    let mut costs: Vec<u64> = asks.iter().map(|flag| flag.cost.saturating_add(1)).collect();
    for at in order.sorted {
        let spot = asks[at]
            .prerequisites
            .first()
            .map_or(&asks[at].spot, |first| &first.flag.spot);
        depths[at] = 1 + edges[at].iter().map(|next| depths[*next]).max().unwrap_or(0);
        costs[at] = edges[at]
            .iter()
            .fold(costs[at], |sum, next| sum.saturating_add(costs[*next]));
        if depths[at] > CHAIN_LIMIT {
            let what = format!("flags ask each other more than {CHAIN_LIMIT} deep");
            spot.problem(what, "ask the flags at the far end directly", problems);
            depths[at] = 0;
        }
        if costs[at] > ASKED_LIMIT {
            let what = format!("one answer would ask more than {ASKED_LIMIT} conditions and flags");
            spot.problem(what, "use fewer conditions, or segments that ask less", problems);
            costs[at] = 0;
        }
    }
}

/// A graph of what asks what, put into an order in which everything comes after what it asks.
struct Order {
    /// Without what is in a ring or asks one.
    sorted: Vec<usize>,
    rings: Vec<Vec<usize>>,
}

fn order(edges: &[Vec<usize>]) -> Order {
    let mut open: Vec<usize> = edges.iter().map(Vec::len).collect();
    let mut askers = vec![Vec::new(); edges.len()];
    for (at, asked) in edges.iter().enumerate() {
        for next in asked {
            askers[*next].push(at);
        }
    }
    let mut sorted: Vec<usize> = (0..edges.len()).filter(|at| open[*at] == 0).collect();
    let mut done = 0;
    while let Some(at) = sorted.get(done).copied() {
        done += 1;
        for asker in &askers[at] {
            open[*asker] -= 1;
            if open[*asker] == 0 {
                sorted.push(*asker);
            }
        }
    }
    // What is left asks, at last, a ring: whoever follows it long enough comes by twice.
    let mut rings = Vec::new();
    let mut seen = vec![0_usize; edges.len()];
    for start in (0..edges.len()).filter(|at| open[*at] > 0) {
        let walk = start + 1;
        let mut path = Vec::new();
        let mut at = start;
        while seen[at] == 0 {
            seen[at] = walk;
            path.push(at);
            let Some(next) = edges[at].iter().find(|next| open[**next] > 0) else {
                break;
            };
            at = *next;
        }
        if seen[at] == walk
            && let Some(first) = path.iter().position(|on| *on == at)
            && edges[path[path.len() - 1]].contains(&at)
        {
            rings.push(path.split_off(first));
        }
    }
    Order { sorted, rings }
}
