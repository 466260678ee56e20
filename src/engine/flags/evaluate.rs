//! The walk through the table: one flag, one subject, one instant; the first line that decides wins.
//!
//! Pure, without allocation and without a lock. Each line is a function of its own, so that the fast walk here and the
//! walk that `explain` shows are the same. Speed: bench `decide`, `decide/1000_flags`.

use super::Flags;
use super::asked::Asked;
use super::bucket::{Bucket, Threshold, variant_position};
use super::model::{Flag, FlagType, Prerequisite, Wanted};
use super::targeting::Outcome;
use super::variants::{FlagValue, Variant, VariantIndex};
use crate::engine::vocab::Reason;

/// A line of the table, in the order in which they are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Line {
    /// A kill of the flag or of everything, or its own kill switch.
    Kill,
    /// No source defines it.
    Unknown,
    /// Flags are switched off as a whole.
    System,
    /// `enabled: false`.
    Disabled,
    /// The environment is not listed.
    Environment,
    /// Outside its period.
    Period,
    /// A flag that it asks does not answer as it must. Asked after the sixth line, and no line of its own.
    Prerequisite,
    /// On the denylist.
    Denylist,
    /// An allowlist exists.
    Allowlist,
    /// Among the beta users, or a rule matches.
    Targeting,
    /// A percentage is set.
    Percent,
    /// `enabled: true`.
    Global,
    /// What is left.
    Default,
}

impl Line {
    /// All lines in the order in which they are asked.
    pub const ALL: [Self; 13] = [
        Self::Kill,
        Self::Unknown,
        Self::System,
        Self::Disabled,
        Self::Environment,
        Self::Period,
        Self::Prerequisite,
        Self::Denylist,
        Self::Allowlist,
        Self::Targeting,
        Self::Percent,
        Self::Global,
        Self::Default,
    ];

    /// Its number in the table, 1 to 12.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Kill => 1,
            Self::Unknown => 2,
            Self::System => 3,
            Self::Disabled => 4,
            Self::Environment => 5,
            Self::Period | Self::Prerequisite => 6,
            Self::Denylist => 7,
            Self::Allowlist => 8,
            Self::Targeting => 9,
            Self::Percent => 10,
            Self::Global => 11,
            Self::Default => 12,
        }
    }

    /// What this line says; `None` leaves it to the next. The last line always decides.
    #[must_use]
    pub fn ask(self, flags: &Flags, flag: &Flag, asked: &Asked<'_>) -> Option<Evaluation> {
        let answer = match self {
            Self::Kill => kill(flag, asked),
            Self::Unknown => unknown(flag),
            Self::System => system(flags),
            Self::Disabled => disabled(flag),
            Self::Environment => environment(flag),
            Self::Period => period(flag, asked),
            Self::Prerequisite => prerequisite(flags, flag, asked),
            Self::Denylist => denylist(flag, asked),
            Self::Allowlist => allowlist(flag, asked),
            Self::Targeting => targeting(flags, flag, asked),
            Self::Percent => percent(flag, asked),
            Self::Global => global(flag),
            Self::Default => Some(default(flag)),
        };
        answer.map(|answer| vary(flag, asked, answer))
    }
}

/// Which of a flag's rules, by its place in the order in which they are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RuleIndex(pub u32);

/// A flag's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Evaluation {
    /// On or off; of a flag with variants, whether the subject takes part.
    pub enabled: bool,
    /// Why.
    pub reason: Reason,
    /// The line that decided.
    pub line: Line,
    /// The rule that decided, or that would have had to look at a subject.
    pub rule: Option<RuleIndex>,
    /// Where the subject stands, if a percentage decided.
    pub bucket: Option<Bucket>,
    /// What it gets; `None` of a flag without variants.
    pub variant: Option<VariantIndex>,
}

impl Evaluation {
    /// Of a flag that does not exist.
    pub const UNKNOWN: Self = Self::off(Line::Unknown, Reason::FlagNotFound);

    const fn new(line: Line, enabled: bool, reason: Reason) -> Self {
        Self {
            enabled,
            reason,
            line,
            rule: None,
            bucket: None,
            variant: None,
        }
    }

    const fn off(line: Line, reason: Reason) -> Self {
        Self::new(line, false, reason)
    }
}

impl Flag {
    /// What the flag comes to by one of its own evaluations.
    #[must_use]
    pub fn value(&self, evaluation: &Evaluation) -> FlagValue<'_> {
        match self.chosen(evaluation) {
            None => FlagValue::Bool(evaluation.enabled),
            Some(Variant { value: Some(value), .. }) => FlagValue::Json(value),
            Some(Variant { name, value: None, .. }) => FlagValue::Name(name),
        }
    }

    /// The name of the variant by one of its own evaluations; `on` or `off` of a flag without variants.
    #[must_use]
    pub fn variant(&self, evaluation: &Evaluation) -> &str {
        match self.chosen(evaluation) {
            Some(variant) => &variant.name,
            None if evaluation.enabled => "on",
            None => "off",
        }
    }

    /// The rule that decided one of its own evaluations, by its name or its priority.
    #[must_use]
    pub fn rule(&self, evaluation: &Evaluation) -> Option<&str> {
        let rule = self.rules.get(evaluation.rule?.0 as usize)?;
        Some(&rule.label)
    }

    fn chosen(&self, evaluation: &Evaluation) -> Option<&Variant> {
        self.variants.as_ref()?.get(evaluation.variant?)
    }
}

/// The flag's answer.
pub(super) fn evaluate(flags: &Flags, flag: &Flag, asked: &Asked<'_>) -> Evaluation {
    let answer = kill(flag, asked)
        .or_else(|| unknown(flag))
        .or_else(|| system(flags))
        .or_else(|| disabled(flag))
        .or_else(|| environment(flag))
        .or_else(|| period(flag, asked))
        .or_else(|| prerequisite(flags, flag, asked))
        .or_else(|| denylist(flag, asked))
        .or_else(|| allowlist(flag, asked))
        .or_else(|| targeting(flags, flag, asked))
        .or_else(|| percent(flag, asked))
        .or_else(|| global(flag))
        .unwrap_or_else(|| default(flag));
    vary(flag, asked, answer)
}

/// The answer that every subject gets, if it is on for every one of them.
///
/// A list that exists takes part in the walk and lets nobody through without a name; an empty denylist still denies
/// nobody, beta users are only ever on, a rule may say anything, and 100 % is everybody.
pub(super) fn for_everybody(flags: &Flags, flag: &Flag, asked: &Asked<'_>) -> Option<Evaluation> {
    let asked = &Asked {
        subject: None,
        ..*asked
    };
    let off = kill(flag, asked)
        .or_else(|| unknown(flag))
        .or_else(|| system(flags))
        .or_else(|| disabled(flag))
        .or_else(|| environment(flag))
        .or_else(|| period(flag, asked))
        .or_else(|| prerequisite(flags, flag, asked));
    let lists = flag.denylist.as_ref().is_some_and(|list| !list.is_empty()) || flag.allowlist.is_some();
    if off.is_some() || lists || !flag.rules.is_empty() {
        return None;
    }
    let answer = match &flag.percent {
        Some(percent) => Evaluation::new(
            Line::Percent,
            percent.threshold_at(asked.unix_ms) == Threshold::ALL,
            Reason::Percent,
        ),
        None => global(flag).unwrap_or_else(|| default(flag)),
    };
    answer.enabled.then_some(answer)
}

fn kill(flag: &Flag, asked: &Asked<'_>) -> Option<Evaluation> {
    (asked.killed || flag.kill_switch).then_some(Evaluation::off(Line::Kill, Reason::Killed))
}

fn unknown(flag: &Flag) -> Option<Evaluation> {
    (!flag.defined).then_some(Evaluation::UNKNOWN)
}

fn system(flags: &Flags) -> Option<Evaluation> {
    (!flags.system_enabled()).then_some(Evaluation::off(Line::System, Reason::SystemDisabled))
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

fn prerequisite(flags: &Flags, flag: &Flag, asked: &Asked<'_>) -> Option<Evaluation> {
    flag.prerequisites
        .iter()
        .find_map(|first| match met(flags, first, asked) {
            Some(true) => None,
            Some(false) => Some(Evaluation::off(Line::Prerequisite, Reason::Prerequisite)),
            None => Some(Evaluation::off(Line::Prerequisite, Reason::IdentityUnknown)),
        })
}

/// Whether another flag answers the same subject as it must; `None` where it would have to look at a subject and there is
/// none. Rings and chains without end do not compile.
pub(super) fn met(flags: &Flags, first: &Prerequisite, asked: &Asked<'_>) -> Option<bool> {
    let other = first.at.and_then(|at| flags.at(at).map(|flag| (at, flag)));
    let answer = other.map_or(Evaluation::UNKNOWN, |(at, flag)| evaluate(flags, flag, &asked.of(at)));
    if answer.reason == Reason::IdentityUnknown {
        return None;
    }
    Some(match &first.wanted {
        Wanted::Enabled(wanted) => answer.enabled == *wanted,
        Wanted::Variant(name) => answer.enabled && other.is_some_and(|(_, flag)| flag.variant(&answer) == &**name),
    })
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

fn targeting(flags: &Flags, flag: &Flag, asked: &Asked<'_>) -> Option<Evaluation> {
    let unknown = Evaluation::off(Line::Targeting, Reason::IdentityUnknown);
    if let Some(list) = &flag.beta_users {
        match asked.subject {
            None => return Some(unknown),
            Some(subject) if list.contains(subject) => {
                return Some(Evaluation::new(Line::Targeting, true, Reason::BetaUser));
            }
            Some(_) => {}
        }
    }
    (0..).zip(&flag.rules).find_map(|(at, rule)| {
        let unknown = Some(Evaluation {
            rule: Some(RuleIndex(at)),
            ..unknown
        });
        match flags.matches(rule, asked) {
            Some(true) => {}
            Some(false) => return None,
            None => return unknown,
        }
        let answer = |enabled| Evaluation {
            rule: Some(RuleIndex(at)),
            ..Evaluation::new(Line::Targeting, enabled, Reason::Targeting)
        };
        Some(match (rule.outcome, asked.subject) {
            (Outcome::On, _) => answer(true),
            (Outcome::Off, _) => answer(false),
            (Outcome::Variant(variant), _) => Evaluation {
                variant: Some(variant),
                ..answer(true)
            },
            (Outcome::Share(_), None) => return unknown,
            (Outcome::Share(share), Some(subject)) => {
                let bucket = flag.bucket(subject);
                Evaluation {
                    bucket: Some(bucket),
                    ..answer(share.takes(bucket))
                }
            }
        })
    })
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
    let reason = if flag.variants.is_some() {
        Reason::Split
    } else {
        Reason::Global
    };
    let on = flag.enabled == Some(true) && flag.flag_type != FlagType::Targeted;
    on.then_some(Evaluation::new(Line::Global, true, reason))
}

fn default(flag: &Flag) -> Evaluation {
    if flag.variants.is_some() {
        Evaluation::new(Line::Default, true, Reason::Split)
    } else {
        Evaluation::new(Line::Default, flag.default, Reason::Default)
    }
}

/// Gives the subject its variant, where there are any and no rule has named one.
fn vary(flag: &Flag, asked: &Asked<'_>, answer: Evaluation) -> Evaluation {
    let Some(variants) = &flag.variants else { return answer };
    if answer.variant.is_some() {
        return answer;
    }
    let (answer, variant) = match (answer.enabled, asked.subject) {
        (false, _) => (answer, variants.off()),
        (true, Some(subject)) => (answer, variants.at(variant_position(subject, flag.hash_name()))),
        (true, None) => (Evaluation::off(answer.line, Reason::IdentityUnknown), variants.off()),
    };
    Evaluation {
        variant: Some(variant),
        ..answer
    }
}

#[cfg(test)]
mod tests {
    use super::super::FlagKills;
    use super::super::model::Percent;
    use super::super::schedule::Period;
    use super::super::subjects::SubjectSet;
    use super::super::variants::Variants;
    use super::*;
    use crate::engine::vocab::{FlagKey, Revision};
    use proptest::prelude::*;

    fn set(ids: &[String]) -> SubjectSet {
        SubjectSet::collect(ids.iter().map(String::as_str))
    }

    fn weight_name(weight: u32) -> String {
        format!("v{weight}")
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
            beta_users in prop::option::of(prop::collection::vec("[a-d]", 0..2)),
            percent in prop::option::of(0_u32..=1_000_000),
            weights in prop::option::weighted(0.3, prop::collection::vec(0_u32..400_000, 1..4)),
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
                beta_users: beta_users.as_deref().map(set),
                percent: percent.map(|buckets| Percent::Fixed(Threshold::from_buckets(buckets))),
                variants: weights.map(|weights| {
                    let variant = |weight| Variant { name: weight_name(weight).into(), weight, value: None };
                    Box::new(Variants::new(weights.into_iter().map(variant).collect(), VariantIndex(0)))
                }),
                ..Flag::unknown(FlagKey::parse(&key).unwrap())
            }
        }
    }

    /// The table once more, as one would read it aloud.
    fn read_aloud(flag: &Flag, system_enabled: bool, asked: &Asked<'_>) -> (bool, Reason) {
        let lists = |list: &Option<SubjectSet>| {
            list.as_ref()
                .map(|list| asked.subject.map(|subject| list.contains(subject)))
        };
        if asked.killed || flag.kill_switch {
            (false, Reason::Killed)
        } else if !flag.defined {
            (false, Reason::FlagNotFound)
        } else if !system_enabled {
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
        } else if lists(&flag.beta_users) == Some(None) {
            (false, Reason::IdentityUnknown)
        } else if lists(&flag.beta_users) == Some(Some(true)) {
            (true, Reason::BetaUser)
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
        } else if flag.variants.is_some() {
            match asked.subject {
                Some(_) => (true, Reason::Split),
                None => (false, Reason::IdentityUnknown),
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
            let flags = Flags::new(Vec::new(), system_enabled, Revision(1));
            let asked = Asked { killed, ..Asked::new(subject.as_deref(), unix_ms) };
            let answer = evaluate(&flags, &flag, &asked);
            prop_assert_eq!((answer.enabled, answer.reason), read_aloud(&flag, system_enabled, &asked));
            let by_line = Line::ALL.into_iter().find_map(|line| line.ask(&flags, &flag, &asked).map(|answer| (line, answer)));
            prop_assert_eq!(by_line, Some((answer.line, answer)), "the slow walk is the fast one");
        }

        #[test]
        fn on_for_everybody_is_on_for_each(flag in flags(), subject in "[a-f]{1,3}", unix_ms in -3_i64..9) {
            let flags = Flags::new(Vec::new(), true, Revision(1));
            let asked = Asked::new(Some(&subject), unix_ms);
            if for_everybody(&flags, &flag, &asked).is_some() {
                prop_assert!(evaluate(&flags, &flag, &asked).enabled);
            }
        }

        #[test]
        fn more_percent_only_adds_subjects(mut flag in flags(), subject in "[a-z]{1,4}", a in 0_u32..=1_000_000, b in 0_u32..=1_000_000) {
            let flags = Flags::new(Vec::new(), true, Revision(1));
            let asked = Asked::new(Some(&subject), 0);
            let mut on = |buckets| {
                flag.percent = Some(Percent::Fixed(Threshold::from_buckets(buckets)));
                evaluate(&flags, &flag, &asked).enabled
            };
            prop_assert!(!on(a.min(b)) || on(a.max(b)));
        }
    }

    fn flag(key: &str, change: impl FnOnce(&mut Flag)) -> Flag {
        let mut flag = Flag::unknown(FlagKey::parse(key).unwrap());
        flag.defined = true;
        flag.enabled = Some(true);
        change(&mut flag);
        flag
    }

    fn after(key: &str, first: &str, wanted: Wanted) -> Flag {
        flag(key, |flag| {
            let first = FlagKey::parse(first).unwrap();
            flag.prerequisites = [Prerequisite {
                flag: first,
                at: None,
                wanted,
            }]
            .into();
        })
    }

    fn halves(key: &str) -> Flag {
        flag(key, |flag| {
            let half = |name: &str| Variant {
                name: name.into(),
                weight: 500_000,
                value: None,
            };
            let list = vec![half("control"), half("b")];
            flag.variants = Some(Box::new(Variants::new(list, VariantIndex(0))));
        })
    }

    fn of(flags: &Flags, key: &str, asked: Asked<'_>) -> String {
        let at = flags.find(key).unwrap();
        let answer = flags.evaluate(at, &asked.of(at));
        format!("{} {}", flags.at(at).unwrap().variant(&answer), answer.reason)
    }

    #[test]
    fn killed_flag_is_off_where_other_flags_ask_it() {
        let list = vec![
            flag("base", |_| ()),
            after("needs", "base", Wanted::Enabled(true)),
            after("far", "needs", Wanted::Enabled(true)),
            after("without", "base", Wanted::Enabled(false)),
            after("lost", "nowhere", Wanted::Enabled(true)),
        ];
        let flags = Flags::new(list, true, Revision(1));
        let alive = Asked::new(None, 0);
        let kills = FlagKills::collect(false, [flags.find("base").unwrap().index()]);
        let killed = Asked { kills: &kills, ..alive };
        for (key, before, then) in [
            ("base", "on global", "off killed"),
            ("needs", "on global", "off prerequisite"),
            ("far", "on global", "off prerequisite"),
            ("without", "off prerequisite", "on global"),
            ("lost", "off prerequisite", "off prerequisite"),
        ] {
            assert_eq!(
                (of(&flags, key, alive), of(&flags, key, killed)),
                (before.into(), then.into()),
                "{key}"
            );
        }
        let far = flags.asked_by(flags.find("far").unwrap());
        assert_eq!(far, [flags.find("base").unwrap(), flags.find("needs").unwrap()]);
    }

    #[test]
    fn prerequisite_that_needs_a_name_asks_for_one() {
        let list = vec![
            halves("split"),
            after("a", "split", Wanted::Variant("b".into())),
            after("not", "split", Wanted::Enabled(false)),
        ];
        let flags = Flags::new(list, true, Revision(1));
        assert_eq!(of(&flags, "a", Asked::new(None, 0)), "off identity_unknown");
        assert_eq!(of(&flags, "not", Asked::new(None, 0)), "off identity_unknown");
        for user in (0..50).map(|n| format!("user_{n}")) {
            let asked = Asked::new(Some(&user), 0);
            let expected = if of(&flags, "split", asked) == "b split" {
                "on global"
            } else {
                "off prerequisite"
            };
            assert_eq!(of(&flags, "a", asked), expected, "{user}");
        }
    }

    #[test]
    fn who_does_not_take_part_gets_the_variant_of_those_who_do_not() {
        let denied = Flag {
            denylist: Some(SubjectSet::collect(["bad"].into_iter())),
            beta_users: Some(SubjectSet::collect(["tester"].into_iter())),
            percent: Some(Percent::Fixed(Threshold::NONE)),
            ..halves("f")
        };
        let flags = Flags::new(vec![denied], true, Revision(1));
        let at = flags.find("f").unwrap();
        let answer = |subject| flags.evaluate(at, &Asked::new(subject, 0));
        assert_eq!(of(&flags, "f", Asked::new(Some("bad"), 0)), "control denylist");
        assert_eq!(of(&flags, "f", Asked::new(Some("who"), 0)), "control percent_miss");
        assert_eq!(
            (answer(Some("tester")).enabled, answer(Some("tester")).reason),
            (true, Reason::BetaUser)
        );
        let position = variant_position("tester", "f");
        assert_eq!(answer(Some("tester")).variant, Some(VariantIndex(position / 500_000)));
    }

    #[test]
    fn numbers_of_the_lines_are_those_of_the_table() {
        assert_eq!(Line::ALL.map(Line::number), [1, 2, 3, 4, 5, 6, 6, 7, 8, 9, 10, 11, 12]);
    }
}
