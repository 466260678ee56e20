//! What a change of a flag amounts to: what keeps it from having an effect, and whether a flag may go.
//!
//! Pure. In: what all sources say about a flag before and after, and the kills in force. Out: sentences for the operator, and
//! answers that say no when in doubt.

use super::Ruleset;
use super::document::KILL_SWITCH;
use super::layer::{Members, value_of};
use super::targets::Fallback;
use crate::engine::flags::Threshold;
use crate::engine::flags::model::{FlagType, Member};
use crate::engine::flags::subjects::SubjectSet;
use crate::engine::guard::{Kill, KillSet, KillTarget};
use crate::engine::vocab::FlagKey;

/// Members that decide nothing.
pub(super) const ABOUT: [Member; 9] = [
    Member::Kind,
    Member::Description,
    Member::Owner,
    Member::Purpose,
    Member::Rollback,
    Member::ExpectedEnd,
    Member::Metadata,
    Member::Env,
    // What the type says is said again by the members that it demands.
    Member::Type,
];

/// Members that are asked before an allowlist, or beside it.
const ABOVE_ALLOWLIST: [Member; 7] = [
    Member::Enabled,
    Member::Environments,
    Member::StartDate,
    Member::EndDate,
    Member::Denylist,
    Member::Allowlist,
    Member::ShadowMode,
];

/// What keeps a change of a flag from having an effect, by name; empty where nothing does.
///
/// `before` and `after` are the rules without and with the change.
#[must_use]
pub fn hidden(key: &FlagKey, before: &Ruleset, after: &Ruleset, kills: &KillSet) -> Vec<String> {
    let nothing = Members::default();
    let members = |rules: &Ruleset| rules.merged().flags.get(key).map(|entry| entry.members.clone());
    let (old, new) = (members(before), members(after));
    let new = new.as_ref().unwrap_or(&nothing);
    let changed: Vec<Member> = new
        .differing(old.as_ref().unwrap_or(&nothing))
        .into_iter()
        .filter(|member| !ABOUT.contains(member))
        .collect();
    if changed.is_empty() {
        return Vec::new();
    }
    let mut told = killed(key, after, kills);
    if value_of(&new.metadata).is_some_and(|metadata| metadata.get(KILL_SWITCH).is_some_and(|text| text == "true")) {
        told.push("`metadata.kill_switch` keeps the flag off, whatever else is said".to_owned());
    }
    let mut hides = |what: &str, hidden: Vec<Member>| {
        if !hidden.is_empty() {
            let names: Vec<String> = hidden.iter().map(|member| format!("`{}`", member.as_str())).collect();
            told.push(format!("{what}, so {} has no effect", names.join(", ")));
        }
    };
    let but =
        |not: &[Member]| -> Vec<Member> { changed.iter().copied().filter(|member| !not.contains(member)).collect() };
    let off = value_of(&new.enabled) == Some(&false);
    let elsewhere =
        value_of(&new.environments).is_some_and(|list| !list.iter().any(|name| name == after.environment()));
    if off {
        hides(
            "`enabled: false` keeps the flag off",
            but(&[Member::Enabled, Member::ShadowMode]),
        );
    } else if elsewhere {
        let what = format!("`environments` does not list {}", after.environment());
        hides(&what, but(&[Member::Environments, Member::ShadowMode]));
    } else if let Some(list) = value_of(&new.allowlist) {
        let what = match list.len() {
            0 => "an allowlist is set and empty: nobody is on".to_owned(),
            n => format!("an allowlist of {n} decides alone"),
        };
        let mut hidden = but(&ABOVE_ALLOWLIST);
        hidden.extend(changed.iter().filter(|member| **member == Member::Enabled));
        hides(&what, hidden);
    } else if value_of(&new.percentage).is_some() || value_of(&new.flag_type) == Some(&FlagType::Gradual) {
        let hidden = [Member::Enabled, Member::Default].into_iter();
        hides(
            "the percentage decides",
            hidden.filter(|member| changed.contains(member)).collect(),
        );
    } else if value_of(&new.enabled) == Some(&true) {
        let hidden = [Member::Default].into_iter();
        hides(
            "`enabled: true` decides",
            hidden.filter(|member| changed.contains(member)).collect(),
        );
    }
    told
}

fn killed(key: &FlagKey, rules: &Ruleset, kills: &KillSet) -> Vec<String> {
    let in_force = |target: &KillTarget| kills.find(target).filter(|kill| kill.killed).cloned();
    let line = |what: String, kill: Kill| {
        format!(
            "{what} is killed (by {}: {}), so nothing of this has an effect before it is re-armed",
            kill.actor, kill.reason
        )
    };
    let mut told = Vec::new();
    if let Some(kill) = in_force(&KillTarget::All) {
        told.push(line("everything".to_owned(), kill));
    }
    if let Some(kill) = in_force(&KillTarget::Flag(key.clone())) {
        told.push(line("the flag".to_owned(), kill));
    }
    for (_, route) in rules.routes() {
        let uses = route.spec.flag.flag().is_some_and(|(flag, _)| flag == key);
        if let Some(kill) = uses
            .then(|| in_force(&KillTarget::Route(route.key().clone())))
            .flatten()
        {
            told.push(format!(
                "route {} is killed (by {}: {}): legacy serves it before it is re-armed",
                route.key(),
                kill.actor,
                kill.reason
            ));
        }
    }
    told
}

/// Whether a flag is on for everybody, or for nobody: only then may it go. No when in doubt.
#[must_use]
pub fn is_all_or_nobody(members: &Members, environment: &str) -> bool {
    is_nobody(members, environment) || is_everybody(members, environment)
}

/// Whether a flag is off for everybody. No when in doubt.
#[must_use]
pub fn is_nobody(members: &Members, environment: &str) -> bool {
    let elsewhere = value_of(&members.environments).is_some_and(|list| !list.iter().any(|name| name == environment));
    let killed = value_of(&members.metadata).is_some_and(|of| of.get(KILL_SWITCH).is_some_and(|text| text == "true"));
    if killed || elsewhere || value_of(&members.enabled) == Some(&false) {
        return true;
    }
    if has_more(members) || value_of(&members.flag_type) == Some(&FlagType::Gradual) {
        return false;
    }
    match (value_of(&members.allowlist), value_of(&members.percentage)) {
        (Some(list), _) => list.is_empty(),
        (None, Some(percentage)) => *percentage == Threshold::NONE,
        (None, None) => value_of(&members.enabled) != Some(&true) && !falls_on(members),
    }
}

/// Whether a flag is on for everybody, now and later. No when in doubt.
#[must_use]
pub fn is_everybody(members: &Members, environment: &str) -> bool {
    let listed = value_of(&members.environments).is_none_or(|list| list.iter().any(|name| name == environment));
    let killed = value_of(&members.metadata).is_some_and(|of| of.get(KILL_SWITCH).is_some_and(|text| text == "true"));
    let nobody_apart =
        value_of(&members.denylist).is_none_or(SubjectSet::is_empty) && value_of(&members.allowlist).is_none();
    let always = value_of(&members.start_date).is_none() && value_of(&members.end_date).is_none();
    let whole = match value_of(&members.percentage) {
        Some(percentage) => *percentage == Threshold::ALL,
        None => value_of(&members.enabled) == Some(&true),
    };
    // Of the others, `enabled` and a percentage alone do not say who is on.
    let plain = matches!(
        value_of(&members.flag_type),
        None | Some(FlagType::Boolean | FlagType::Percentage)
    );
    !killed
        && listed
        && nobody_apart
        && always
        && whole
        && plain
        && value_of(&members.enabled) != Some(&false)
        && !has_more(members)
}

/// Whether those for whom nothing decided may be on.
pub(super) fn falls_on(members: &Members) -> bool {
    value_of(&members.default).is_some_and(|default| default.value != Fallback::Enabled(false))
}

/// Whether something decides that neither of the two looks at: rules, variants, whatever else comes to be.
fn has_more(members: &Members) -> bool {
    const LOOKED_AT: [Member; 4] = [
        Member::Percentage,
        Member::Default,
        Member::Cohort,
        Member::GradualIncrement,
    ];
    members
        .origins()
        .iter()
        .any(|(member, _)| !ABOUT.contains(member) && !ABOVE_ALLOWLIST.contains(member) && !LOOKED_AT.contains(member))
}
