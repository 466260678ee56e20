//! What is wrong, the worst first, each in one sentence that says what to do.
//!
//! Pure.

use super::{Colour, counted, number, requests, shortened, span};
use crate::admin::dto::{Counts, Freeze, KILL_SWITCH, Kill, Route, State, Status, Store, TargetKind};

/// What happened within so many seconds goes on.
const NOW_S: i64 = 600;

/// What happened within so many seconds is told; the details have the rest.
const LATELY_S: i64 = 3_600;

/// So many answers that were not given are no slip.
const MANY: u64 = 10;

/// The reasons of made answers that say that a backend gave none.
const WITHOUT_ANSWER: [&str; 6] = [
    "connect_failed",
    "connect_timeout",
    "malformed_answer",
    "overload",
    "reset",
    "timeout",
];

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

/// One sentence, and what to type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Headline {
    pub level: Level,
    pub text: String,
    /// For a line of its own, to be copied.
    pub command: Option<String>,
}

impl Headline {
    fn of(level: Level, text: String) -> Self {
        Self {
            level,
            text,
            command: None,
        }
    }

    fn then(self, command: String) -> Self {
        Self {
            command: Some(command),
            ..self
        }
    }
}

/// All of them; at least one.
pub(super) fn headlines(status: &Status) -> Vec<Headline> {
    let mut found = Vec::new();
    let mut add = |level, text: String| found.push(Headline::of(level, text));
    for reason in status
        .readiness
        .reasons
        .iter()
        .filter(|reason| reason.state == State::NotReady)
    {
        add(Level::Alarm, format!("NOT READY: {}; {}", reason.detail, reason.remedy));
    }
    let happening = status.routes.iter().flat_map(|route| happening(route, &status.at));
    let (alarms, looks): (Vec<_>, Vec<_>) = happening.partition(|headline| headline.level == Level::Alarm);
    found.extend(alarms);
    let mut add = |level, text: String| found.push(Headline::of(level, text));
    if let Some(why) = &status.store.unreadable {
        add(
            Level::Alarm,
            format!("STATE UNREADABLE, legacy answers everything: {why}"),
        );
    }
    if status.store.kills_unstored > 0 {
        add(Level::Alarm, unstored(&status.store));
    }
    found.extend(status.kills.iter().map(|kill| killed(kill, status)));
    found.extend(status.freezes.iter().map(|freeze| frozen(freeze, &status.at)));
    for route in status.routes.iter().filter(|route| route.held.count > 0) {
        let (subjects, name) = (counted(route.held.count as u64, "subject"), &route.name);
        let headline = Headline::of(Level::Look, format!("{subjects} held on legacy on route {name}"));
        found.push(headline.then(format!("understudy rearm {name} --subject HASH --reason TEXT")));
    }
    let mut add = |level, text: String| found.push(Headline::of(level, text));
    for route in status
        .routes
        .iter()
        .filter(|route| route.serves.why.starts_with(KILL_SWITCH))
    {
        let flag = route.serves.flag.as_deref().unwrap_or_default();
        let text = format!(
            "flag {flag} is killed by its own metadata, so legacy answers route {}: remove `{KILL_SWITCH}` from its definition",
            route.name
        );
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
    found.extend(looks);
    if found.is_empty() {
        let routes = counted(status.routes.len() as u64, "route");
        let text = format!("all is well: {routes}, nothing is killed");
        found.push(Headline::of(Level::Fine, text));
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

/// What nobody may put more subjects on, and how that ends.
fn frozen(freeze: &Freeze, at: &str) -> Headline {
    let since = span(&freeze.since, at);
    let reason = shortened(&freeze.reason, REASON);
    let text = format!(
        "{} is frozen since {since} by {}: {reason}",
        freeze.target, freeze.actor
    );
    let name = freeze.target.name.as_deref().unwrap_or_default();
    let what = match freeze.target.kind {
        TargetKind::Flag => format!("--flag {name}"),
        TargetKind::Route => format!("--route {name}"),
        TargetKind::All | TargetKind::Subject => "--all".to_owned(),
    };
    Headline::of(Level::Look, text).then(format!("understudy unfreeze {what} --reason TEXT"))
}

fn killed(kill: &Kill, status: &Status) -> Headline {
    let ago = span(&kill.since, &status.at);
    let name = kill.target.name.as_deref().unwrap_or_default();
    let rearm = match kill.target.kind {
        TargetKind::All => "--all".to_owned(),
        TargetKind::Flag if status.routes.iter().any(|route| route.name == name) => format!("{name} --flag"),
        TargetKind::Route
            if status
                .routes
                .iter()
                .any(|route| route.serves.flag.as_deref() == Some(name)) =>
        {
            format!("{name} --route")
        }
        TargetKind::Flag | TargetKind::Route | TargetKind::Subject => name.to_owned(),
    };
    let Kill { target, actor, .. } = kill;
    let reason = shortened(&kill.reason, REASON);
    let text = format!("{target} is KILLED by {actor} {ago} ago: {reason}; when repaired:");
    Headline::of(Level::Look, text).then(format!("understudy rearm {rearm} --reason TEXT"))
}

/// What went wrong on a route lately, what clients noticed first.
fn happening(route: &Route, at: &str) -> Vec<Headline> {
    let (name, last) = (&route.name, &route.last);
    let mut found = Vec::new();
    let mut add = |count: u64, last: &Option<String>, alarm: bool, text: &dyn Fn(&str) -> String, command: String| {
        let Some(last) = last.as_deref().filter(|last| count > 0 && age(last, at) <= LATELY_S) else {
            return;
        };
        let now = age(last, at) <= NOW_S;
        let level = if alarm && now { Level::Alarm } else { Level::Look };
        let since = format!("since the start, the last {} ago", span(last, at));
        found.push(Headline::of(level, text(&since)).then(command));
    };
    let of = |counts: &Counts, words: &[&str]| -> u64 { words.iter().filter_map(|word| counts.get(*word)).sum() };
    let details = format!("understudy status --route {name}");

    let made = of(&route.traffic.made, &WITHOUT_ANSWER);
    let down = &route.traffic.failed.legacy;
    let whom = if down.values().sum::<u64>() > 0 {
        "legacy"
    } else {
        "the backend"
    };
    let text = |since: &str| {
        let clients = counted(made, "client");
        format!("{clients} got 502, 503 or 504 on route {name} {since}, because {whom} gave no answer")
    };
    let many = made >= MANY || many_of(made, requests(route));
    add(made, &last.made, many, &text, details.clone());

    let guard = route.guard.as_ref();
    let (unseen, served) = guard.map_or((0, 0), |guard| (guard.new_unseen, guard.new_served));
    let serves = route.killed_by.is_empty() && route.serves.by != "legacy";
    let text = |_: &str| {
        format!(
            "new answers 5xx or not at all on route {name}: {} of the {} requests it served since the start or the last re-arm, and no budget \
             can see it, for legacy is not asked about these",
            number(unseen),
            number(served)
        )
    };
    if serves {
        let command = format!("understudy kill {name} --reason TEXT");
        add(unseen, &last.new_unseen, many_of(unseen, served), &text, command);
    }

    let failovers: u64 = route.traffic.failovers.values().sum();
    let text = |since: &str| {
        let requests = counted(failovers, "request");
        format!("new failed {requests} on route {name}, which legacy answered {since}")
    };
    add(failovers, &last.failovers, false, &text, details);

    for (severity, last) in [("critical", &last.critical), ("major", &last.major)] {
        let count = of(&route.compared.severities, &[severity]);
        let text = |since: &str| {
            let answers = counted(count, "pair");
            format!("{answers} of answers differed on route {name}, {severity}, {since}")
        };
        add(
            count,
            last,
            false,
            &text,
            format!("understudy divergences --route {name}"),
        );
    }
    found
}

/// At least a hundredth.
fn many_of(part: u64, all: u64) -> bool {
    part.saturating_mul(100) >= all
}

/// Seconds from one instant to another; none if one does not read.
fn age(from: &str, to: &str) -> i64 {
    let (Ok(from), Ok(to)) = (from.parse::<jiff::Timestamp>(), to.parse::<jiff::Timestamp>()) else {
        return 0;
    };
    to.as_second().saturating_sub(from.as_second())
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
