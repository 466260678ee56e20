//! Whom the rules choose at this moment, in words and as a share.
//!
//! Pure. It asks the flag for nobody in particular, by the very walk that requests take, and then looks at the lists and the
//! percentage that would decide for somebody. A share of subjects is not a share of requests; what was really served stands
//! in the counters.

use http::Method;

use super::dto::{KILL_SWITCH, Serves};
use crate::engine::decide::{Ask, KillBits, WhenKilled};
use crate::engine::flags::model::{FlagType, Percent};
use crate::engine::flags::subjects::SubjectSet;
use crate::engine::flags::{Asked, Evaluation, Flag, FlagKills, Line, Threshold};
use crate::engine::ruleset::env::SYSTEM;
use crate::engine::ruleset::route::Switch;
use crate::engine::ruleset::{Route, Ruleset};
use crate::engine::vocab::{Reason, Side};

/// Whom a route's flag chooses.
#[derive(Clone, Debug, PartialEq)]
struct Choice {
    by: &'static str,
    why: String,
    percent: Option<f64>,
}

impl Choice {
    fn legacy(why: impl Into<String>) -> Self {
        Self {
            by: "legacy",
            why: why.into(),
            percent: Some(0.0),
        }
    }

    fn new(why: impl Into<String>) -> Self {
        Self {
            by: "new",
            why: why.into(),
            percent: Some(100.0),
        }
    }

    fn both(why: impl Into<String>, percent: Option<f64>) -> Self {
        Self {
            by: "both",
            why: why.into(),
            percent,
        }
    }

    fn all(on: bool, why: impl Into<String>) -> Self {
        if on { Self::new(why) } else { Self::legacy(why) }
    }
}

/// Whom the rules choose, under these kills, at this instant.
pub(super) fn serves(rules: &Ruleset, route: &Route, kills: KillBits, flag_kills: &FlagKills, unix_ms: i64) -> Serves {
    let ask = Walk {
        rules,
        kills,
        flag_kills,
        unix_ms,
    };
    let own = ask.flag(route.policy.flag);
    let shadow_mode = ask.shadow_mode(route);
    let choice = match (ask.killed(), shadow_mode) {
        (Some(why), "on") if ask.goes_on(route) && own.by != "legacy" => {
            Choice::legacy(format!("{why}; copied: {}", own.why))
        }
        (Some(why), "on") => Choice::legacy(why),
        (Some(why), _) => ask.copied(route, Choice::legacy(why)),
        (None, "on") => Choice::legacy(format!("shadow mode; copied: {}", own.why)),
        (None, "some") => Choice {
            why: format!("{}; some in shadow mode", own.why),
            percent: None,
            ..own
        },
        (None, _) => ask.copied(route, own),
    };
    let flag = match &route.spec.flag {
        Switch::Flag(key, _) => Some(key.to_string()),
        Switch::Constant(_) => None,
    };
    Serves {
        by: choice.by.into(),
        why: choice.why,
        percent: choice.percent,
        flag,
        shadow_mode: shadow_mode.into(),
    }
}

struct Walk<'r> {
    rules: &'r Ruleset,
    kills: KillBits,
    flag_kills: &'r FlagKills,
    unix_ms: i64,
}

impl Walk<'_> {
    fn killed(&self) -> Option<&'static str> {
        [
            (KillBits::NO_STATE, "no state"),
            (KillBits::EVERYTHING, "everything is killed"),
            (KillBits::ROUTE, "killed"),
            (KillBits::FLAG, "its flag is killed"),
        ]
        .into_iter()
        .find_map(|(bit, why)| self.kills.has(bit).then_some(why))
    }

    /// The flag's answer for nobody in particular, its kills left aside.
    fn for_nobody(&self, flag: &Flag, killed: bool) -> Evaluation {
        let asked = Asked {
            killed,
            kills: self.flag_kills,
            ..Asked::new(None, self.unix_ms)
        };
        self.rules.flags().answer(flag, &asked)
    }

    fn flag(&self, ask: Ask) -> Choice {
        let at = match ask {
            Ask::Constant(_) if !self.rules.flags().system_enabled() => {
                return Choice::legacy(format!("{SYSTEM} is false"));
            }
            Ask::Constant(on) => return Choice::all(on, Reason::Constant.as_str()),
            Ask::Flag(at) => at,
        };
        let Some(flag) = self.rules.flags().at(at) else {
            return Choice::legacy(Reason::FlagNotFound.as_str());
        };
        let answer = self.for_nobody(flag, false);
        if answer.reason == Reason::Killed {
            return Choice::legacy(KILL_SWITCH);
        }
        if answer.line == Line::Prerequisite && answer.reason == Reason::IdentityUnknown {
            return Choice::both("as the flags that it asks first", None);
        }
        if answer.line <= Line::Prerequisite {
            return Choice::all(answer.enabled, answer.reason.as_str());
        }
        let rest = self.lists_and_percent(flag);
        let beta = flag.beta_users.as_ref().map_or(0, SubjectSet::len);
        let before = match (beta, flag.rules.len()) {
            _ if flag.allowlist.is_some() => return rest,
            (0, 0) => return rest,
            (_, 0) if rest.by == "new" => return rest,
            (0, rules) => counted(rules, "rule"),
            (beta, 0) => counted(beta, "beta user"),
            (beta, rules) => format!("{}, {}", counted(beta, "beta user"), counted(rules, "rule")),
        };
        Choice::both(format!("{before}, else {}", rest.why), None)
    }

    /// What the lists, the percentage and what is left say.
    fn lists_and_percent(&self, flag: &Flag) -> Choice {
        let denied = flag.denylist.as_ref().map_or(0, SubjectSet::len);
        let but = if denied == 0 {
            String::new()
        } else {
            format!(", {denied} denied")
        };
        match (&flag.allowlist, &flag.percent) {
            (Some(list), _) if list.is_empty() => Choice::legacy("empty allowlist"),
            (Some(list), _) => Choice::both(format!("allowlist of {}{but}", list.len()), None),
            (None, Some(percent)) => self.percent(percent, denied, &but),
            (None, None) if global(flag) || flag.default || flag.variants.is_some() => {
                let word = if flag.variants.is_some() {
                    Reason::Split
                } else if global(flag) {
                    Reason::Global
                } else {
                    Reason::Default
                };
                let why = format!("{word}{but}");
                if denied == 0 {
                    Choice::new(why)
                } else {
                    Choice::both(why, Some(100.0))
                }
            }
            (None, None) => Choice::legacy(Reason::Default.as_str()),
        }
    }

    fn percent(&self, percent: &Percent, denied: usize, but: &str) -> Choice {
        let threshold = percent.threshold_at(self.unix_ms);
        let share = f64::from(threshold.buckets()) / 10_000.0;
        let kind = if matches!(percent, Percent::Gradual(..)) {
            "gradual"
        } else {
            "percent"
        };
        let why = format!("{kind} {threshold}{but}");
        match threshold {
            Threshold::NONE => Choice::legacy(why),
            Threshold::ALL if denied == 0 => Choice::new(why),
            _ => Choice::both(why, Some(share)),
        }
    }

    /// Whether the kills in force let copies go on.
    fn goes_on(&self, route: &Route) -> bool {
        let none = self.kills.has(KillBits::EVERYTHING) || self.kills.has(KillBits::NO_STATE);
        let stopped = self.kills.has(KillBits::ROUTE) && route.policy.when_killed == WhenKilled::Stop;
        !none && !stopped
    }

    /// The choice, and beside it who is copied to the other side outside shadow mode.
    fn copied(&self, route: &Route, choice: Choice) -> Choice {
        let policy = &route.policy;
        let taken = |side: Side| {
            let copies = policy.copies[side.index()];
            let taken = policy.methods.iter().filter(|method| copies.take(method));
            taken.map(Method::as_str).collect::<Vec<_>>()
        };
        let by = |ask: Ask, killed: KillBits| match ask {
            _ if self.kills.has(killed) => "legacy",
            ask => self.flag(ask).by,
        };
        let wanted = [
            by(policy.shadow, KillBits::SHADOW),
            by(policy.dual_run, KillBits::DUAL_RUN),
        ];
        let (by_new, by_legacy) = (taken(Side::New), taken(Side::Legacy));
        let (methods, whose) = match choice.by {
            "legacy" => (by_new, ""),
            "new" => (by_legacy, ""),
            _ if by_new == by_legacy => (by_new, ""),
            _ if by_new.len() >= by_legacy.len() => (by_new, " of legacy's"),
            _ => (by_legacy, " of new's"),
        };
        if methods.is_empty() {
            return choice;
        }
        let of = if methods.len() == policy.methods.len() {
            String::new()
        } else {
            format!(" {}", methods.join(", "))
        };
        let all = policy.sample == Threshold::ALL && wanted.contains(&"new");
        let some = policy.sample != Threshold::NONE && wanted.iter().any(|by| *by != "legacy");
        let part = match (all, some) {
            _ if !self.goes_on(route) => return choice,
            (true, _) => "all",
            (false, true) => "some",
            (false, false) => return choice,
        };
        Choice {
            why: format!("{}; {part}{of}{whose} copied", choice.why),
            ..choice
        }
    }

    /// Whether those for whom the flag is on are only copied.
    fn shadow_mode(&self, route: &Route) -> &'static str {
        let own = match route.policy.flag {
            Ask::Flag(at) => self
                .rules
                .flags()
                .at(at)
                .is_some_and(|flag| flag.shadow_mode == Some(true)),
            Ask::Constant(_) => false,
        };
        if own {
            return "on";
        }
        let at = match route.policy.shadow_mode {
            None => return "off",
            Some(Ask::Constant(on)) => {
                let safe = self.kills.has(KillBits::EVERYTHING) || !self.rules.flags().system_enabled();
                return if on || safe { "on" } else { "off" };
            }
            Some(Ask::Flag(at)) => at,
        };
        let Some(flag) = self.rules.flags().at(at) else {
            return "on";
        };
        let killed = self.kills.has(KillBits::EVERYTHING) || self.kills.has(KillBits::SHADOW_MODE);
        let answer = self.for_nobody(flag, killed);
        match answer.reason {
            // Off by these is the safe side, and the safe side is on.
            Reason::Killed
            | Reason::FlagNotFound
            | Reason::SystemDisabled
            | Reason::Environment
            | Reason::Schedule
            | Reason::Prerequisite => "on",
            Reason::IdentityUnknown => "some",
            // Who asks for nobody in particular has no attributes either.
            _ if answer.line > Line::Allowlist && !flag.rules.is_empty() => "some",
            _ if answer.enabled => "on",
            _ => "off",
        }
    }
}

/// Whether `enabled: true` alone puts a flag on.
fn global(flag: &Flag) -> bool {
    flag.enabled == Some(true) && flag.flag_type != FlagType::Targeted
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests;
