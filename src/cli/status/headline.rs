//! What is wrong, the worst first, each in one sentence that says what to do.
//!
//! Pure.

use super::{Colour, counted, shortened, span};
use crate::admin::dto::{Kill, Route, State, Status, Store, TargetKind};

/// So much of a reason is told; the details have the whole.
const REASON: usize = 200;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    /// Shoppers may notice, or soon may.
    Alarm,
    /// The new path is off, or about to be; nobody notices.
    Look,
    /// As it should be.
    Fine,
}

impl Level {
    pub(super) const fn colour(self) -> Colour {
        match self {
            Level::Alarm => Colour::Red,
            Level::Look => Colour::Yellow,
            Level::Fine => Colour::Green,
        }
    }
}

/// One sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Headline {
    pub level: Level,
    pub text: String,
}

/// All of them; at least one.
pub(super) fn headlines(status: &Status) -> Vec<Headline> {
    let mut found = Vec::new();
    let mut add = |level, text: String| found.push(Headline { level, text });
    for reason in status
        .readiness
        .reasons
        .iter()
        .filter(|reason| reason.state == State::NotReady)
    {
        add(Level::Alarm, format!("NOT READY: {}; {}", reason.detail, reason.remedy));
    }
    if let Some(why) = &status.store.unreadable {
        add(
            Level::Alarm,
            format!("STATE UNREADABLE, legacy answers everything: {why}"),
        );
    }
    if status.store.kills_unstored > 0 {
        add(Level::Alarm, unstored(&status.store));
    }
    for kill in &status.kills {
        add(Level::Look, killed(kill, &status.at));
    }
    for route in status.routes.iter().filter(|route| route.held.count > 0) {
        let (subjects, name) = (counted(route.held.count as u64, "subject"), &route.name);
        let text =
            format!("{subjects} held on legacy on route {name}: understudy rearm {name} --subject HASH --reason TEXT");
        add(Level::Look, text);
    }
    for route in status.routes.iter().filter(|route| route.killed_by.is_empty()) {
        for text in tripped(route) {
            add(Level::Look, text);
        }
    }
    if let Some(first) = status.rules.refused.first() {
        let problems = counted(status.rules.refused.len() as u64, "problem");
        add(
            Level::Look,
            format!("the newest rules are refused, older ones serve; {problems}, first: {first}"),
        );
    }
    // Those above have told their story in more words; kills that are not stored say why, too.
    let why_told = if status.store.kills_unstored > 0 {
        "store_failing"
    } else {
        ""
    };
    let told = ["state_unreadable", "kills_unstored", "rules_refused", why_told];
    for reason in status
        .readiness
        .reasons
        .iter()
        .filter(|reason| reason.state == State::Degraded)
    {
        if !told.contains(&reason.name.as_str()) {
            add(Level::Look, format!("{}; {}", reason.detail, reason.remedy));
        }
    }
    for route in &status.routes {
        if let Some(critical) = route.compared.severities.get("critical") {
            let (answers, name) = (counted(*critical, "answer"), &route.name);
            let text = format!("{answers} differed critically on route {name}: understudy divergences --route {name}");
            add(Level::Look, text);
        }
    }
    if found.is_empty() {
        let routes = counted(status.routes.len() as u64, "route");
        found.push(Headline {
            level: Level::Fine,
            text: format!("all is well: {routes}, nothing is killed"),
        });
    }
    found.sort_by_key(|headline| headline.level);
    found
}

fn unstored(store: &Store) -> String {
    let kills = counted(store.kills_unstored as u64, "kill");
    let journal = if store.kills_journaled == store.kills_unstored {
        "in the kill journal, which a restart reads".to_owned()
    } else {
        format!("{} in the kill journal, do not restart", store.kills_journaled)
    };
    // Why an unreadable state file takes nothing has been said.
    let why = match (&store.unreadable, &store.state_error) {
        (Some(_), _) => String::new(),
        (None, Some(error)) => format!(": {error}"),
        (None, None) => ": the disk does not answer".to_owned(),
    };
    format!("{kills} in force NOT IN THE STATE FILE ({journal}){why}")
}

fn killed(kill: &Kill, at: &str) -> String {
    let ago = span(&kill.since, at);
    let rearm = match (kill.target.kind, kill.target.name.as_deref()) {
        (TargetKind::Flag, Some(name)) => format!("{name} --flag"),
        (TargetKind::Route, Some(name)) => format!("{name} --route"),
        _ => "--all".to_owned(),
    };
    let Kill { target, actor, .. } = kill;
    let reason = shortened(&kill.reason, REASON);
    format!("{target} is KILLED by {actor} {ago} ago: {reason}; when repaired: understudy rearm {rearm} --reason TEXT")
}

fn tripped(route: &Route) -> impl Iterator<Item = String> {
    let budgets = route.guard.iter().flat_map(|guard| &guard.budgets);
    budgets.filter(|budget| budget.state == "tripped").map(|budget| {
        let (name, action) = (&budget.name, &budget.action);
        format!(
            "budget {name} of route {} is used up (action: {action}), and new still serves",
            route.name
        )
    })
}
