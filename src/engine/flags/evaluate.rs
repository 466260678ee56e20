//! The walk through the table: one flag, one subject, one instant; the first line that decides wins.
//!
//! Pure, without allocation and without a lock. Each line is a function of its own, so that the fast walk here and the
//! walk that `explain` shows are the same. Speed: bench `decide`, `decide/1000_flags`.

use super::bucket::Bucket;
use super::model::Flag;
use crate::engine::vocab::Reason;

/// What a flag is asked.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// For whom; `None` when the request names nobody.
    pub subject: Option<&'a str>,
    /// When, in milliseconds since 1970-01-01T00:00:00Z.
    pub unix_ms: i64,
    /// Whether a kill of this flag or of everything is in force.
    pub killed: bool,
    /// False under `FEATURE_FLAGS_ENABLED=false`.
    pub system_enabled: bool,
}

/// A line of the table, by its number there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Line {
    /// A kill of the flag or of everything, or its own kill switch.
    Kill = 1,
    /// No source defines it.
    Unknown = 2,
    /// Flags are switched off as a whole.
    System = 3,
    /// `enabled: false`.
    Disabled = 4,
    /// The environment is not listed.
    Environment = 5,
    /// Outside its period.
    Period = 6,
    /// On the denylist.
    Denylist = 7,
    /// An allowlist exists.
    Allowlist = 8,
    /// A percentage is set.
    Percent = 10,
    /// `enabled: true`.
    Global = 11,
    /// What is left.
    Default = 12,
}

impl Line {
    /// All lines in the order in which they are asked.
    pub const ALL: [Self; 11] = [
        Self::Kill,
        Self::Unknown,
        Self::System,
        Self::Disabled,
        Self::Environment,
        Self::Period,
        Self::Denylist,
        Self::Allowlist,
        Self::Percent,
        Self::Global,
        Self::Default,
    ];

    /// Its number in the table.
    #[must_use]
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// What this line says; `None` leaves it to the next. The last line always decides.
    #[must_use]
    pub fn ask(self, flag: &Flag, asked: &Asked<'_>) -> Option<Evaluation> {
        match self {
            Self::Kill => kill(flag, asked),
            Self::Unknown => unknown(flag),
            Self::System => system(asked),
            Self::Disabled => disabled(flag),
            Self::Environment => environment(flag),
            Self::Period => period(flag, asked),
            Self::Denylist => denylist(flag, asked),
            Self::Allowlist => allowlist(flag, asked),
            Self::Percent => percent(flag, asked),
            Self::Global => global(flag),
            Self::Default => Some(default(flag)),
        }
    }
}

/// The answer of a flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Evaluation {
    /// On or off.
    pub enabled: bool,
    /// Why.
    pub reason: Reason,
    /// The line that decided.
    pub line: Line,
    /// Where the subject stands, if the percentage decided.
    pub bucket: Option<Bucket>,
}

impl Evaluation {
    const fn new(line: Line, enabled: bool, reason: Reason) -> Self {
        Self {
            enabled,
            reason,
            line,
            bucket: None,
        }
    }

    const fn off(line: Line, reason: Reason) -> Self {
        Self::new(line, false, reason)
    }
}

/// The flag's answer.
#[must_use]
pub fn evaluate(flag: &Flag, asked: &Asked<'_>) -> Evaluation {
    kill(flag, asked)
        .or_else(|| unknown(flag))
        .or_else(|| system(asked))
        .or_else(|| disabled(flag))
        .or_else(|| environment(flag))
        .or_else(|| period(flag, asked))
        .or_else(|| denylist(flag, asked))
        .or_else(|| allowlist(flag, asked))
        .or_else(|| percent(flag, asked))
        .or_else(|| global(flag))
        .unwrap_or_else(|| default(flag))
}

/// The answer that every subject gets, if it is on for every one of them.
///
/// A list that exists takes part in the walk and lets nobody through without a name; an empty denylist still denies
/// nobody, and 100 % is everybody.
#[must_use]
pub fn evaluate_for_everybody(flag: &Flag, asked: &Asked<'_>) -> Option<Evaluation> {
    let asked = Asked {
        subject: None,
        ..*asked
    };
    let answer = evaluate(flag, &asked);
    if answer.reason != Reason::IdentityUnknown {
        return answer.enabled.then_some(answer);
    }
    if flag.denylist.as_ref().is_some_and(|list| !list.is_empty()) || flag.allowlist.is_some() {
        return None;
    }
    match &flag.percent {
        Some(percent) => (percent.threshold_at(asked.unix_ms) == super::Threshold::ALL).then_some(Evaluation::new(
            Line::Percent,
            true,
            Reason::Percent,
        )),
        None => Some(global(flag).unwrap_or_else(|| default(flag))).filter(|answer| answer.enabled),
    }
}

fn kill(flag: &Flag, asked: &Asked<'_>) -> Option<Evaluation> {
    (asked.killed || flag.kill_switch).then_some(Evaluation::off(Line::Kill, Reason::Killed))
}

fn unknown(flag: &Flag) -> Option<Evaluation> {
    (!flag.defined).then_some(Evaluation::off(Line::Unknown, Reason::FlagNotFound))
}

fn system(asked: &Asked<'_>) -> Option<Evaluation> {
    (!asked.system_enabled).then_some(Evaluation::off(Line::System, Reason::SystemDisabled))
}

fn disabled(flag: &Flag) -> Option<Evaluation> {
    (flag.enabled == Some(false)).then_some(Evaluation::off(Line::Disabled, Reason::Disabled))
}

fn environment(flag: &Flag) -> Option<Evaluation> {
    (!flag.listed_here).then_some(Evaluation::off(Line::Environment, Reason::Environment))
}

fn period(flag: &Flag, asked: &Asked<'_>) -> Option<Evaluation> {
    (!flag.period.contains(asked.unix_ms)).then_some(Evaluation::off(Line::Period, Reason::Schedule))
}

fn denylist(flag: &Flag, asked: &Asked<'_>) -> Option<Evaluation> {
    let list = flag.denylist.as_ref()?;
    let Some(subject) = asked.subject else {
        return Some(Evaluation::off(Line::Denylist, Reason::IdentityUnknown));
    };
    list.contains(subject)
        .then_some(Evaluation::off(Line::Denylist, Reason::Denylist))
}

fn allowlist(flag: &Flag, asked: &Asked<'_>) -> Option<Evaluation> {
    let list = flag.allowlist.as_ref()?;
    let Some(subject) = asked.subject else {
        return Some(Evaluation::off(Line::Allowlist, Reason::IdentityUnknown));
    };
    let listed = list.contains(subject);
    let reason = if listed {
        Reason::Allowlist
    } else {
        Reason::NotAllowlisted
    };
    Some(Evaluation::new(Line::Allowlist, listed, reason))
}

fn percent(flag: &Flag, asked: &Asked<'_>) -> Option<Evaluation> {
    let percent = flag.percent.as_ref()?;
    let Some(subject) = asked.subject else {
        return Some(Evaluation::off(Line::Percent, Reason::IdentityUnknown));
    };
    let bucket = flag.bucket(subject);
    let hit = percent.threshold_at(asked.unix_ms).takes(bucket);
    let reason = if hit { Reason::Percent } else { Reason::PercentMiss };
    Some(Evaluation {
        bucket: Some(bucket),
        ..Evaluation::new(Line::Percent, hit, reason)
    })
}

fn global(flag: &Flag) -> Option<Evaluation> {
    (flag.enabled == Some(true)).then_some(Evaluation::new(Line::Global, true, Reason::Global))
}

fn default(flag: &Flag) -> Evaluation {
    Evaluation::new(Line::Default, flag.default, Reason::Default)
}

#[cfg(test)]
mod tests {
    use super::super::model::Percent;
    use super::super::schedule::Period;
    use super::super::subjects::SubjectSet;
    use super::super::{Bucket, Threshold};
    use super::*;
    use crate::engine::vocab::FlagKey;
    use proptest::prelude::*;

    fn set(ids: &[String]) -> SubjectSet {
        SubjectSet::collect(ids.iter().map(String::as_str))
    }

    prop_compose! {
        /// Any flag over a handful of subjects, so that lists are hit often.
        fn flags()(
            key in "[a-c]",
            (defined, kill_switch, listed_here, default) in (prop::bool::weighted(0.9), prop::bool::weighted(0.1), prop::bool::weighted(0.9), any::<bool>()),
            enabled in prop::option::of(prop::bool::weighted(0.8)),
            start_ms in prop::option::of(-2_i64..2),
            end_ms in prop::option::of(-2_i64..8),
            denylist in prop::option::of(prop::collection::vec("[a-d]", 0..2)),
            allowlist in prop::option::of(prop::collection::vec("[a-d]", 0..3)),
            percent in prop::option::of(0_u32..=1_000_000),
        ) -> Flag {
            Flag {
                defined,
                kill_switch,
                enabled,
                listed_here,
                default,
                period: Period { start_ms, end_ms },
                denylist: denylist.as_deref().map(set),
                allowlist: allowlist.as_deref().map(set),
                percent: percent.map(|buckets| Percent::Fixed(Threshold::from_buckets(buckets))),
                ..Flag::unknown(FlagKey::parse(&key).unwrap())
            }
        }
    }

    /// The table once more, as one would read it aloud.
    fn read_aloud(flag: &Flag, asked: &Asked<'_>) -> (bool, Reason) {
        let lists = |list: &Option<SubjectSet>| {
            list.as_ref()
                .map(|list| asked.subject.map(|subject| list.contains(subject)))
        };
        if asked.killed || flag.kill_switch {
            (false, Reason::Killed)
        } else if !flag.defined {
            (false, Reason::FlagNotFound)
        } else if !asked.system_enabled {
            (false, Reason::SystemDisabled)
        } else if flag.enabled == Some(false) {
            (false, Reason::Disabled)
        } else if !flag.listed_here {
            (false, Reason::Environment)
        } else if !flag.period.contains(asked.unix_ms) {
            (false, Reason::Schedule)
        } else if lists(&flag.denylist) == Some(None) {
            (false, Reason::IdentityUnknown)
        } else if lists(&flag.denylist) == Some(Some(true)) {
            (false, Reason::Denylist)
        } else if let Some(listed) = lists(&flag.allowlist) {
            match listed {
                None => (false, Reason::IdentityUnknown),
                Some(true) => (true, Reason::Allowlist),
                Some(false) => (false, Reason::NotAllowlisted),
            }
        } else if let Some(percent) = &flag.percent {
            match asked.subject {
                None => (false, Reason::IdentityUnknown),
                Some(subject)
                    if percent
                        .threshold_at(asked.unix_ms)
                        .takes(Bucket::of(subject, flag.key.as_str())) =>
                {
                    (true, Reason::Percent)
                }
                Some(_) => (false, Reason::PercentMiss),
            }
        } else if flag.enabled == Some(true) {
            (true, Reason::Global)
        } else {
            (flag.default, Reason::Default)
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn every_flag_answers_as_the_table_reads(
            flag in flags(), subject in prop::option::of("[a-d]"), unix_ms in -3_i64..9,
            killed in prop::bool::weighted(0.1), system_enabled in prop::bool::weighted(0.9),
        ) {
            let asked = Asked { subject: subject.as_deref(), unix_ms, killed, system_enabled };
            let answer = evaluate(&flag, &asked);
            prop_assert_eq!((answer.enabled, answer.reason), read_aloud(&flag, &asked));
            let by_line = Line::ALL.into_iter().find_map(|line| line.ask(&flag, &asked).map(|answer| (line, answer)));
            prop_assert_eq!(by_line, Some((answer.line, answer)), "the slow walk is the fast one");
        }

        #[test]
        fn on_for_everybody_is_on_for_each(flag in flags(), subject in "[a-f]{1,3}", unix_ms in -3_i64..9) {
            let asked = Asked { subject: Some(&subject), unix_ms, killed: false, system_enabled: true };
            if evaluate_for_everybody(&flag, &asked).is_some() {
                prop_assert!(evaluate(&flag, &asked).enabled);
            }
        }

        #[test]
        fn more_percent_only_adds_subjects(mut flag in flags(), subject in "[a-z]{1,4}", a in 0_u32..=1_000_000, b in 0_u32..=1_000_000) {
            let asked = Asked { subject: Some(&subject), unix_ms: 0, killed: false, system_enabled: true };
            let mut on = |buckets| {
                flag.percent = Some(Percent::Fixed(Threshold::from_buckets(buckets)));
                evaluate(&flag, &asked).enabled
            };
            prop_assert!(!on(a.min(b)) || on(a.max(b)));
        }
    }

    #[test]
    fn numbers_of_the_lines_are_those_of_the_table() {
        assert_eq!(Line::ALL.map(Line::number), [1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12]);
    }
}
