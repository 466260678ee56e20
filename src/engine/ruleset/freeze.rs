//! Freezes: nothing puts more subjects on new than are there.
//!
//! Pure. In: the rules before and after a change, and what is frozen. Out: what would rise, in sentences. A change is looked at
//! member by member, and only what cannot put anybody on new passes; in doubt it is refused. What is frozen is kept and
//! published elsewhere; a gradual flag that is frozen stands still in `compile`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use super::effect::{ABOUT, falls_on, is_everybody, is_nobody};
use super::layer::{Members, Setting, value_of};
use super::route::{RouteSpec, Switch, WithoutIdentity};
use super::{Route, Ruleset};
use crate::engine::flags::model::{FlagType, Member};
use crate::engine::guard::KillTarget;
use crate::engine::vocab::{FlagKey, RouteKey};

/// What can be frozen.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FreezeTarget {
    /// Every flag and every route.
    All,
    /// One flag, wherever it is used.
    Flag(FlagKey),
    /// The flags that one route asks for who is served by new.
    Route(RouteKey),
}

impl fmt::Display for FreezeTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FreezeTarget::All => f.write_str("everything"),
            FreezeTarget::Flag(flag) => write!(f, "flag {flag}"),
            FreezeTarget::Route(route) => write!(f, "route {route}"),
        }
    }
}

/// One freeze in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Freeze {
    /// Since when, in milliseconds since 1970: gradual flags stay where they were then.
    pub at_unix_ms: i64,
    /// Why, in the words of whoever did it.
    pub reason: Arc<str>,
    /// Who did it.
    pub actor: Arc<str>,
}

/// Everything that is frozen.
pub type Freezes = BTreeMap<FreezeTarget, Freeze>;

/// Since when a flag stands still, if it does.
pub(super) fn since(freezes: &Freezes, key: &FlagKey, routes: &[RouteSpec]) -> Option<i64> {
    let covers = |target: &FreezeTarget| match target {
        FreezeTarget::All => true,
        FreezeTarget::Flag(flag) => flag == key,
        FreezeTarget::Route(route) => routes.iter().any(|spec| spec.key == *route && asks(spec, key)),
    };
    let in_force = freezes.iter().filter(|(target, _)| covers(target));
    in_force.map(|(_, freeze)| freeze.at_unix_ms).min()
}

fn asks(spec: &RouteSpec, key: &FlagKey) -> bool {
    let switches = [Some(&spec.flag), spec.shadow_mode.as_ref()];
    switches
        .into_iter()
        .flatten()
        .filter_map(Switch::flag)
        .any(|(flag, _)| flag == key)
}

/// The freeze that covers what a re-arm of this target would put on new.
#[must_use]
pub fn holds(rules: &Ruleset, freezes: &Freezes, target: &KillTarget) -> Option<FreezeTarget> {
    let route_asks = |route: &RouteKey, flag: &FlagKey| {
        let route = rules.find_route(route).map(|at| rules.route(at));
        route.is_some_and(|route| asks(&route.spec, flag))
    };
    let covers = |frozen: &FreezeTarget| match (frozen, target) {
        (FreezeTarget::All, _) | (_, KillTarget::All) => true,
        (FreezeTarget::Flag(frozen), KillTarget::Flag(flag)) => frozen == flag,
        (FreezeTarget::Flag(flag), KillTarget::Route(route) | KillTarget::Subject(route, _)) => route_asks(route, flag),
        (FreezeTarget::Route(route), KillTarget::Flag(flag)) => route_asks(route, flag),
        (FreezeTarget::Route(frozen), KillTarget::Route(route) | KillTarget::Subject(route, _)) => frozen == route,
    };
    freezes.keys().find(|frozen| covers(frozen)).cloned()
}

/// How a flag bears on who is served by new.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Use {
    /// On means more on new.
    Serves,
    /// On means fewer: they are only copied.
    Shadows,
    /// Other flags ask it, so nobody can say.
    Unclear,
}

/// What a change would put on new although it is frozen; empty where nothing rises. Freezes are those of `after`.
#[must_use]
pub fn raised(before: &Ruleset, after: &Ruleset) -> Vec<String> {
    let freezes = &after.runtime().freezes;
    let mut raised = Vec::new();
    for target in freezes.keys() {
        let mut watched = BTreeSet::new();
        for (_, route) in after.routes() {
            let spec = &route.spec;
            let by_route = *target == FreezeTarget::All || *target == FreezeTarget::Route(spec.key.clone());
            let of = |switch: Option<&Switch>| switch.and_then(Switch::flag).map(|(flag, _)| flag.clone());
            let by_flag = |flag: &FlagKey| *target == FreezeTarget::Flag(flag.clone());
            if let Some(flag) = of(Some(&spec.flag)).filter(|flag| by_route || by_flag(flag)) {
                watched.insert((flag, Use::Serves));
            }
            if let Some(flag) = of(spec.shadow_mode.as_ref()).filter(|flag| by_route || by_flag(flag)) {
                watched.insert((flag, Use::Shadows));
            }
            if by_route && route_may_raise(before.find_route(&spec.key).map(|at| before.route(at)), route) {
                raised.push(format!("{target} is frozen, and route {} would let more in", spec.key));
            }
        }
        match target {
            FreezeTarget::All => {
                let all = before.merged().flags.keys().chain(after.merged().flags.keys());
                // Those that decide nothing but shadow mode have been added as what they are.
                let decides = |flag: &FlagKey| !watched.contains(&(flag.clone(), Use::Shadows));
                let others: BTreeSet<_> = all
                    .filter(|flag| decides(flag))
                    .map(|flag| (flag.clone(), Use::Serves))
                    .collect();
                watched.extend(others);
            }
            FreezeTarget::Flag(flag) if !watched.iter().any(|(known, _)| known == flag) => {
                watched.insert((flag.clone(), Use::Serves));
            }
            FreezeTarget::Flag(_) | FreezeTarget::Route(_) => {}
        }
        let mut asked: Vec<FlagKey> = watched.iter().map(|(flag, _)| flag.clone()).collect();
        while let Some(flag) = asked.pop() {
            for rules in [before, after] {
                let first = rules.flag(&flag).map(|flag| &flag.prerequisites).into_iter().flatten();
                for first in first.map(|first| first.flag.clone()) {
                    if watched.insert((first.clone(), Use::Unclear)) {
                        asked.push(first);
                    }
                }
            }
        }
        for (flag, how) in &watched {
            if flag_may_raise(flag, *how, before, after) {
                raised.push(format!(
                    "{target} is frozen, and flag {flag} might put more subjects on new"
                ));
            }
        }
    }
    raised
}

fn flag_may_raise(key: &FlagKey, how: Use, before: &Ruleset, after: &Ruleset) -> bool {
    let nothing = Members::default();
    let members = |rules: &Ruleset| rules.merged().flags.get(key).map(|entry| entry.members.clone());
    let (old, new) = (members(before), members(after));
    let is_defined = new.is_some();
    let (old, new) = (old.unwrap_or_else(|| nothing.clone()), new.unwrap_or(nothing));
    let decides = |member: &Member| !ABOUT.contains(member) || matches!(member, Member::Type | Member::Metadata);
    let segments = new.rules != Setting::Inherit && before.merged().segments != after.merged().segments;
    let same = !segments && !new.differing(&old).iter().any(decides);
    let same_place = before.environment() == after.environment();
    if same && same_place {
        return false;
    }
    match how {
        Use::Serves if segments => !is_nobody(&new, after.environment()),
        Use::Serves => may_raise(&old, before.environment(), &new, after.environment()),
        // Of no source, it counts as on.
        Use::Shadows => is_defined && !is_everybody(&new, after.environment()),
        Use::Unclear => true,
    }
}

/// Whether a flag might be on for somebody for whom it was off. Yes when in doubt.
#[must_use]
pub fn may_raise(old: &Members, old_environment: &str, new: &Members, environment: &str) -> bool {
    if is_nobody(new, environment) {
        return false;
    }
    if is_everybody(old, old_environment) && old.shadow_mode == new.shadow_mode {
        return false;
    }
    if is_nobody(old, old_environment) {
        return true;
    }
    // Of the others, `enabled: true` alone does not put everybody on.
    let plain = |members: &Members| {
        matches!(
            value_of(&members.flag_type),
            None | Some(FlagType::Boolean | FlagType::Percentage)
        )
    };
    let gradual = |members: &Members| value_of(&members.flag_type) == Some(&FlagType::Gradual);
    let listed = |members: &Members, here: &str| {
        value_of(&members.environments).is_none_or(|list| list.iter().any(|name| name == here))
    };
    let is_on = |setting| value_of(setting) == Some(&true);
    let raises = |member: Member| match member {
        Member::Allowlist => match (value_of(&old.allowlist), value_of(&new.allowlist)) {
            (Some(old), Some(new)) => !new.iter().all(|id| old.contains(id)),
            _ => true,
        },
        Member::Default => falls_on(new),
        Member::Denylist => value_of(&old.denylist).is_some_and(|old| {
            let new = value_of(&new.denylist);
            !old.iter().all(|id| new.is_some_and(|new| new.contains(id)))
        }),
        // Unset, lists and percentage decide as before, and what is left falls to the default.
        Member::Enabled => match (value_of(&old.enabled), value_of(&new.enabled)) {
            (Some(true), None) => false,
            _ => value_of(&old.percentage).is_none() || value_of(&new.percentage).is_none(),
        },
        Member::EndDate if !gradual(new) => match (value_of(&old.end_date), value_of(&new.end_date)) {
            (None, Some(_)) => false,
            (Some(old), Some(new)) => new > old,
            _ => true,
        },
        Member::StartDate if !gradual(new) => match (value_of(&old.start_date), value_of(&new.start_date)) {
            (None, Some(_)) => false,
            (Some(old), Some(new)) => new < old,
            _ => true,
        },
        Member::Environments => listed(new, environment) && !listed(old, old_environment),
        Member::Percentage => match (value_of(&old.percentage), value_of(&new.percentage)) {
            (Some(old), Some(new)) => new > old,
            // Everybody had it who was let through so far.
            (None, Some(_)) => !(is_on(&old.enabled) || falls_on(old)) || !plain(old),
            (Some(_), None) => is_on(&new.enabled) || falls_on(new),
            (None, None) => false,
        },
        Member::ShadowMode => !is_on(&new.shadow_mode),
        member => !ABOUT.contains(&member) || member == Member::Type,
    };
    new.differing(old).into_iter().any(raises)
}

fn route_may_raise(before: Option<&Route>, after: &Route) -> bool {
    let new = &after.spec;
    let Some(old) = before.map(|route| &route.spec) else {
        return new.flag != Switch::Constant(false);
    };
    let key = |switch: &Switch| switch.flag().map(|(flag, _)| flag.clone());
    let same = |a: &Switch, b: &Switch| match (a, b) {
        (Switch::Constant(a), Switch::Constant(b)) => a == b,
        _ => key(a).is_some() && key(a) == key(b),
    };
    let flag = same(&old.flag, &new.flag) || new.flag == Switch::Constant(false);
    let shadow_mode = match (&old.shadow_mode, &new.shadow_mode) {
        (None, None) | (_, Some(Switch::Constant(true))) => true,
        (Some(old), Some(new)) => same(old, new),
        _ => false,
    };
    let nobody = old.without_identity == new.without_identity || new.without_identity == WithoutIdentity::Legacy;
    !(flag && shadow_mode && nobody && old.matcher == new.matcher)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::engine::flags::Asked;
    use crate::engine::ruleset::document::Document;
    use crate::engine::ruleset::problem::Problems;
    use crate::engine::ruleset::{Input, compile};
    use crate::engine::vocab::Revision;

    fn rules(members: &str) -> Option<Ruleset> {
        let mut problems = Problems::default();
        let text = format!("features:\n  f: {{ {members} }}\n");
        let document = Document::parse(&"features.yaml".into(), &text, &mut problems);
        let compiled = compile(Input {
            revision: Revision(1),
            environment: "production",
            document,
            runtime: Default::default(),
            variables: &BTreeMap::new(),
            routes: Vec::new(),
            copies: Default::default(),
            now_ms: 0,
            previous: None,
            marks: &[],
            problems,
        });
        compiled.ok().map(|(rules, _)| rules)
    }

    fn members() -> impl Strategy<Value = String> {
        let list = prop_oneof![
            Just(String::new()),
            prop::collection::btree_set(0..8_u8, 0..4).prop_map(|ids| {
                let ids: Vec<String> = ids.into_iter().map(|id| format!("s{id}")).collect();
                format!("[{}]", ids.join(", "))
            }),
        ];
        let date = prop_oneof![
            Just(""),
            Just("\"1969-12-31T00:00:00Z\""),
            Just("\"1970-01-02T00:00:00Z\"")
        ];
        (
            prop_oneof![Just("boolean"), Just("percentage"), Just("targeted")],
            prop_oneof![Just(""), Just("true"), Just("false")],
            prop_oneof![Just(""), Just("0"), Just("30"), Just("60"), Just("100")],
            (list.clone(), list.clone(), list),
            prop_oneof![Just(""), Just("true"), Just("false")],
            (date.clone(), date),
            prop_oneof![Just(""), Just("[production]"), Just("[staging]")],
        )
            .prop_map(
                |(kind, enabled, percentage, (deny, allow, beta), default, (start, end), environments)| {
                    let members = [
                        ("type", kind),
                        ("enabled", enabled),
                        ("percentage", percentage),
                        ("denylist", &*deny),
                        ("allowlist", &*allow),
                        ("beta_users", &*beta),
                        ("default", default),
                        ("start_date", start),
                        ("end_date", end),
                        ("environments", environments),
                    ];
                    let set = members.iter().filter(|(_, value)| !value.is_empty());
                    set.map(|(name, value)| format!("{name}: {value}"))
                        .collect::<Vec<_>>()
                        .join(", ")
                },
            )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]
        #[test]
        fn what_passes_puts_nobody_on_new(old in members(), new in members()) {
            let (Some(old), Some(new)) = (rules(&old), rules(&new)) else { return Ok(()) };
            let key = FlagKey::parse("f").unwrap();
            let members = |rules: &Ruleset| rules.merged().flags[&key].members.clone();
            prop_assume!(!may_raise(&members(&old), "production", &members(&new), "production"));
            let on = |rules: &Ruleset, subject: &str, at: i64| {
                let at_flag = rules.flags().find("f").unwrap();
                rules.flags().evaluate(at_flag, &Asked::new(Some(subject), at)).enabled
            };
            for at in [-200_000_000, 0, 200_000_000] {
                for n in 0..40 {
                    let subject = format!("s{n}");
                    prop_assert!(!on(&new, &subject, at) || on(&old, &subject, at), "{} at {}", subject, at);
                }
            }
        }
    }

    #[test]
    fn what_lowers_passes() {
        let old = "type: percentage, percentage: 50, denylist: [a], environments: [production]";
        for new in [
            "type: percentage, percentage: 49, denylist: [a], environments: [production]",
            "type: percentage, percentage: 50, denylist: [a, b], environments: [production]",
            "type: percentage, percentage: 50, denylist: [a], environments: [staging]",
            "type: percentage, percentage: 50, denylist: [a], environments: [production], allowlist: []",
            "type: percentage, percentage: 100, enabled: false",
        ] {
            let members = |text: &str| {
                rules(text).unwrap().merged().flags[&FlagKey::parse("f").unwrap()]
                    .members
                    .clone()
            };
            assert!(
                !may_raise(&members(old), "production", &members(new), "production"),
                "{new}"
            );
        }
    }
}
