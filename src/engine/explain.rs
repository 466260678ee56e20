//! Why a flag answers as it does: every line of the table that was asked, where each value comes from, and what would
//! change the answer.
//!
//! Pure. It takes the same steps as the data plane (`flags::evaluate`), so it cannot tell another story. Printing is left to
//! the command line and the admin plane; subjects do not appear in what comes out.

use serde::Serialize;

use crate::engine::flags::model::{Flag, Member, Percent};
use crate::engine::flags::origin::{Origin, Source};
use crate::engine::flags::schedule::Slope;
use crate::engine::flags::subjects::SubjectSet;
use crate::engine::flags::{Asked, Bucket, Evaluation, FlagValue, Flags, Line, Threshold};
use crate::engine::ruleset::Ruleset;
use crate::engine::ruleset::env::{PREFIX, SYSTEM, folded};
use crate::engine::vocab::{FlagKey, Reason};

/// The answer to one evaluation, as a line of `explain --requests`.
///
/// Shape: `{"flag","value","variant","reason","rule","bucket","origin"}`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Record<'a> {
    /// The flag as it was asked for.
    pub flag: &'a str,
    /// What it comes to: `true` or `false`; of a variant its value, or its name.
    pub value: FlagValue<'a>,
    /// The variant; of a flag without variants `on` or `off`.
    pub variant: &'a str,
    /// Why.
    pub reason: &'static str,
    /// The rule that decided, by its name or its priority.
    pub rule: Option<&'a str>,
    /// 0 to 999,999, if the percentage decided.
    pub bucket: Option<u32>,
    /// The source of the deciding value: `kill`, `runtime`, `file`, `environment` or `default`.
    pub origin: &'static str,
}

/// The whole story of one evaluation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// The flag.
    pub flag: String,
    /// Whether it is on.
    pub value: bool,
    /// Why.
    pub reason: &'static str,
    /// The line of the table that decided, 1 to 12.
    pub line: u8,
    /// Where the subject stands, 0 to 999,999; `null` without a subject.
    pub bucket: Option<u32>,
    /// The percentage of now, in buckets; on are those below it. `null` where none is set.
    pub threshold: Option<u32>,
    /// Where the deciding value comes from.
    pub origin: Place,
    /// The lines that were asked, the deciding one last.
    pub steps: Vec<Step>,
    /// Every member that some source sets.
    pub members: Vec<MemberValue>,
    /// What would change the answer, the most direct first.
    pub changes: Vec<String>,
}

/// A source, and where in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Place {
    /// `kill`, `runtime`, `file`, `environment` or `default`.
    pub source: &'static str,
    /// The revision with its actor, the file with line and column, or the variable.
    pub place: Option<String>,
}

impl From<&Origin> for Place {
    fn from(origin: &Origin) -> Self {
        let place = match origin {
            Origin::Default => None,
            Origin::Environment(name) => Some(name.to_string()),
            Origin::File { .. } => Some(origin.to_string()),
            Origin::Runtime { revision, actor, .. } => Some(format!("revision {revision} by {actor}")),
        };
        Self {
            source: origin.source().as_str(),
            place,
        }
    }
}

/// One line of the table as it was asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    /// Its number.
    pub line: u8,
    /// Whether it decided.
    pub decided: bool,
    /// What it found.
    pub found: String,
}

/// One member that is set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MemberValue {
    /// Its name in the flag file.
    pub member: &'static str,
    /// Its value in words; of lists only how long they are.
    pub value: String,
    /// Where it is set.
    pub origin: Place,
}

/// The answer of the flag `key`, which need not exist.
#[must_use]
pub fn record<'k>(flags: &'k Flags, key: &'k str, asked: &Asked<'_>) -> Record<'k> {
    let Some(flag) = flags.find(key).and_then(|at| flags.at(at)) else {
        // A text that is no key names no flag either.
        let unknown = FlagKey::parse(key).ok().map(Flag::unknown);
        let answer = unknown.as_ref().map(|unknown| (unknown, flags.answer(unknown, asked)));
        let (reason, origin) = match &answer {
            Some((unknown, answer)) => (answer.reason, origin(unknown, answer, asked).source),
            None => (Reason::FlagNotFound, Source::Default.as_str()),
        };
        return Record {
            flag: key,
            value: FlagValue::Bool(false),
            variant: "off",
            reason: reason.as_str(),
            rule: None,
            bucket: None,
            origin,
        };
    };
    let answer = flags.answer(flag, asked);
    Record {
        flag: key,
        value: flag.value(&answer),
        variant: flag.variant(&answer),
        reason: answer.reason.as_str(),
        rule: flag.rule(&answer),
        bucket: answer.bucket.map(Bucket::number),
        origin: origin(flag, &answer, asked).source,
    }
}

/// The story of one flag and one subject. A flag that nobody defines has one too.
#[must_use]
pub fn explain(ruleset: &Ruleset, key: &FlagKey, asked: &Asked<'_>) -> Explanation {
    let unknown;
    let flag = match ruleset.flag(key) {
        Some(flag) => flag,
        None => {
            unknown = Flag::unknown(key.clone());
            &unknown
        }
    };
    let flags = ruleset.flags();
    let mut steps = Vec::new();
    for line in Line::ALL {
        let answer = line.ask(flags, flag, asked);
        let found = found(line, flags, flag, asked, ruleset.environment());
        steps.push(Step {
            line: line.number(),
            decided: answer.is_some(),
            found,
        });
        if answer.is_some() {
            break;
        }
    }
    let answer = flags.answer(flag, asked);
    Explanation {
        flag: key.to_string(),
        value: answer.enabled,
        reason: answer.reason.as_str(),
        line: answer.line.number(),
        bucket: asked.subject.map(|subject| flag.bucket(subject).number()),
        threshold: flag
            .percent
            .as_ref()
            .map(|percent| percent.threshold_at(asked.unix_ms).buckets()),
        origin: origin(flag, &answer, asked),
        steps,
        members: members(flag),
        changes: changes(flag, &answer, asked, ruleset.environment()),
    }
}

/// Where the value that decided comes from.
fn origin(flag: &Flag, answer: &Evaluation, asked: &Asked<'_>) -> Place {
    let member = match answer.line {
        Line::Kill if asked.killed => {
            return Place {
                source: Source::Kill.as_str(),
                place: None,
            };
        }
        Line::Kill => Member::Metadata,
        Line::Unknown => {
            return Place {
                source: Source::Default.as_str(),
                place: None,
            };
        }
        Line::System => {
            return Place {
                source: Source::Environment.as_str(),
                place: Some(SYSTEM.to_owned()),
            };
        }
        Line::Disabled | Line::Global => Member::Enabled,
        Line::Environment => Member::Environments,
        Line::Period if flag.period.start_ms.is_some_and(|start| asked.unix_ms < start) => Member::StartDate,
        Line::Period => Member::EndDate,
        Line::Denylist => Member::Denylist,
        Line::Allowlist => Member::Allowlist,
        Line::Percent => match &flag.percent {
            Some(Percent::Gradual(ramp, _)) => match ramp.slope {
                Slope::PerDay(_) => Member::GradualIncrement,
                Slope::Until(_) => Member::EndDate,
            },
            Some(Percent::Fixed(_)) | None => Member::Percentage,
        },
        Line::Prerequisite => Member::Prerequisites,
        Line::Targeting => match answer.rule.and_then(|at| flag.rules.get(at.0 as usize)) {
            Some(rule) => return (&rule.origin).into(),
            None => Member::BetaUsers,
        },
        Line::Default => Member::Default,
    };
    flag.origin(member).into()
}

/// What a line found, whether it decided or not.
fn found(line: Line, flags: &Flags, flag: &Flag, asked: &Asked<'_>, environment: &str) -> String {
    let listed = |list: Option<&SubjectSet>, name: &str| match (list, asked.subject) {
        (None, _) => format!("no {name}"),
        (Some(list), None) => format!("{name} of {}, and no subject to look for", list.len()),
        (Some(list), Some(subject)) => {
            format!(
                "{} the {name} of {}",
                if list.contains(subject) { "on" } else { "not on" },
                list.len()
            )
        }
    };
    match line {
        Line::Kill if asked.killed => "killed".into(),
        Line::Kill if flag.kill_switch => "killed by its own metadata".into(),
        Line::Kill => "not killed".into(),
        Line::Unknown if flag.defined => "defined".into(),
        Line::Unknown => "no source defines it".into(),
        Line::System if flags.system_enabled() => "flags are on as a whole".into(),
        Line::System => format!("{SYSTEM} is false"),
        Line::Disabled | Line::Global => match flag.enabled {
            Some(enabled) => format!("enabled is {enabled}"),
            None => "enabled is unset".into(),
        },
        Line::Environment => match &flag.about.environments {
            None => "on in every environment".into(),
            Some(_) if flag.listed_here => format!("environment {environment} is listed"),
            Some(_) => format!("environment {environment} is not listed"),
        },
        Line::Period => match (
            flag.period.contains(asked.unix_ms),
            flag.period.start_ms,
            flag.period.end_ms,
        ) {
            (_, None, None) => "no period".into(),
            (true, ..) => "within its period".into(),
            (false, Some(start), _) if asked.unix_ms < start => "before its start".into(),
            (false, ..) => "after its end".into(),
        },
        Line::Prerequisite if flag.prerequisites.is_empty() => "it asks no other flag".into(),
        Line::Prerequisite => {
            let asked = flag.prerequisites.iter().map(|first| first.flag.as_str());
            format!("it asks first: {}", asked.collect::<Vec<_>>().join(", "))
        }
        Line::Denylist => listed(flag.denylist.as_ref(), "denylist"),
        Line::Allowlist => listed(flag.allowlist.as_ref(), "allowlist"),
        Line::Targeting => listed(flag.beta_users.as_ref(), "list of beta users"),
        Line::Percent => match (&flag.percent, asked.subject) {
            (None, _) => "no percentage".into(),
            (Some(_), None) => "a percentage, and no subject to look for".into(),
            (Some(percent), Some(subject)) => {
                let (bucket, threshold) = (flag.bucket(subject), percent.threshold_at(asked.unix_ms));
                let relation = if threshold.takes(bucket) { "below" } else { "not below" };
                format!(
                    "bucket {} is {relation} {} ({threshold} %)",
                    bucket.number(),
                    threshold.buckets()
                )
            }
        },
        Line::Default => format!("default is {}", flag.default),
    }
}

/// Every member of a flag that some source sets, in words.
#[must_use]
pub fn members(flag: &Flag) -> Vec<MemberValue> {
    let origins = flag.origins.iter();
    origins
        .map(|(member, origin)| member_value(flag, *member, origin))
        .collect()
}

fn member_value(flag: &Flag, member: Member, origin: &Origin) -> MemberValue {
    let about = &flag.about;
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let word = |value: Option<bool>| value.map(|value| value.to_string()).unwrap_or_default();
    let size = |list: &Option<SubjectSet>| format!("{} subjects", list.as_ref().map_or(0, SubjectSet::len));
    let ramp = match &flag.percent {
        Some(Percent::Gradual(ramp, _)) => Some(*ramp),
        Some(Percent::Fixed(_)) | None => None,
    };
    let date = |ms: Option<i64>| {
        ms.and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok())
            .map(|at| at.to_string())
            .unwrap_or_default()
    };
    let value = match member {
        Member::Type => flag.flag_type.as_str().to_owned(),
        Member::Kind => about.kind.map(|kind| kind.as_str().to_owned()).unwrap_or_default(),
        Member::Description => text(&about.description),
        Member::Owner => text(&about.owner),
        Member::Purpose => text(&about.purpose),
        Member::Rollback => text(&about.rollback),
        Member::ExpectedEnd => text(&about.expected_end),
        Member::Metadata => about
            .metadata
            .iter()
            .map(|(k, v)| format!("{k}: {v}"))
            .collect::<Vec<_>>()
            .join(", "),
        Member::Env => about.env.join(", "),
        Member::Enabled => word(flag.enabled),
        Member::Environments => about
            .environments
            .as_ref()
            .map(|list| list.join(", "))
            .unwrap_or_default(),
        Member::StartDate => date(ramp.map(|ramp| ramp.start_ms).or(flag.period.start_ms)),
        Member::EndDate => date(match ramp.map(|ramp| ramp.slope) {
            Some(Slope::Until(end)) => Some(end),
            Some(Slope::PerDay(_)) | None => flag.period.end_ms,
        }),
        Member::GradualIncrement => match ramp.map(|ramp| ramp.slope) {
            Some(Slope::PerDay(units)) => format!("{} points per day", decimal(units)),
            Some(Slope::Until(_)) | None => "unused".to_owned(),
        },
        Member::Prerequisites => flag
            .prerequisites
            .iter()
            .map(|first| first.flag.as_str())
            .collect::<Vec<_>>()
            .join(", "),
        Member::BetaUsers => size(&flag.beta_users),
        Member::Rules => String::new(),
        Member::Variants => flag
            .variants
            .iter()
            .flat_map(|all| all.iter())
            .map(|variant| &*variant.name)
            .collect::<Vec<_>>()
            .join(", "),
        Member::Denylist => size(&flag.denylist),
        Member::Allowlist => size(&flag.allowlist),
        Member::Percentage => match &flag.percent {
            Some(Percent::Fixed(threshold)) => threshold.to_string(),
            Some(Percent::Gradual(..)) | None => String::new(),
        },
        Member::Cohort => flag.cohort.as_ref().map(ToString::to_string).unwrap_or_default(),
        Member::Default => flag.default.to_string(),
        Member::ShadowMode => word(flag.shadow_mode),
    };
    MemberValue {
        member: member.as_str(),
        value,
        origin: origin.into(),
    }
}

/// Units of 0.0001 as a decimal number.
fn decimal(units: u64) -> String {
    let text = format!("{}.{:04}", units / 10_000, units % 10_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn changes(flag: &Flag, answer: &Evaluation, asked: &Asked<'_>, environment: &str) -> Vec<String> {
    let off_for_one = || "put the subject on the denylist".to_owned();
    match answer.reason {
        Reason::Killed if asked.killed => vec!["re-arm what is killed: this flag, or everything".into()],
        Reason::Killed => vec!["remove metadata.kill_switch".into()],
        Reason::FlagNotFound => {
            vec![
                "define it in the flag file".into(),
                format!("set {PREFIX}{} in the environment", folded(&flag.key)),
            ]
        }
        Reason::SystemDisabled => vec![format!("set {SYSTEM}=true, or unset it")],
        Reason::Disabled => vec!["set enabled to true, or unset it to let lists and percentage decide".into()],
        Reason::Environment => vec![format!("add {environment} to its environments")],
        Reason::Schedule if flag.period.start_ms.is_some_and(|start| asked.unix_ms < start) => {
            vec!["wait for its start, or move it".into()]
        }
        Reason::Schedule => vec!["move or remove its end date".into()],
        Reason::Prerequisite => vec!["change the flags that it asks first".into()],
        Reason::BetaUser => vec!["take the subject off the beta users".into(), off_for_one()],
        Reason::Targeting => vec!["change the rule".into(), off_for_one()],
        Reason::Split => vec!["set enabled to false, or other weights".into(), off_for_one()],
        Reason::Denylist => vec!["take the subject off the denylist".into()],
        Reason::Allowlist => vec!["take the subject off the allowlist".into(), off_for_one()],
        Reason::NotAllowlisted => {
            vec![
                "put the subject on the allowlist".into(),
                "remove the allowlist to let the percentage decide".into(),
            ]
        }
        Reason::Percent | Reason::PercentMiss => percent_changes(flag, answer, off_for_one()),
        Reason::IdentityUnknown => vec!["name a subject: this line has to look at one".into()],
        Reason::Global => vec![
            "set enabled to false, or set a percentage or a list".into(),
            off_for_one(),
        ],
        Reason::Default => vec!["set enabled, a percentage or an allowlist".into()],
        // Reasons of a request around its flags; no flag answers so.
        Reason::Constant | Reason::Mixed | Reason::NoState => Vec::new(),
    }
}

fn percent_changes(flag: &Flag, answer: &Evaluation, off_for_one: String) -> Vec<String> {
    let bucket = answer.bucket.map(Bucket::number).unwrap_or_default();
    let gradual = matches!(flag.percent, Some(Percent::Gradual(..)));
    if answer.enabled {
        let most = Threshold::from_buckets(bucket);
        let by_percent = if gradual {
            "enabled: false".to_owned()
        } else {
            format!("a percentage of at most {most}")
        };
        return vec![by_percent, off_for_one];
    }
    let least = Threshold::from_buckets(bucket + 1);
    let by_percent = if gradual {
        format!("wait until its percentage reaches {least}")
    } else {
        format!("a percentage of at least {least}")
    };
    vec![
        by_percent,
        "an allowlist with the subject, which then decides alone".into(),
    ]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::engine::decide::Copies;
    use crate::engine::ruleset::document::Document;
    use crate::engine::ruleset::problem::Problems;
    use crate::engine::ruleset::{Input, compile};
    use crate::engine::vocab::Revision;

    fn rules(file: &str) -> Ruleset {
        let mut problems = Problems::default();
        let document = Document::parse(&"features.yaml".into(), file, &mut problems);
        let variables = BTreeMap::from([("F_DENYLIST".to_owned(), "bad".to_owned())]);
        let input = Input {
            revision: Revision(1),
            environment: "production",
            document,
            runtime: Default::default(),
            variables: &variables,
            routes: Vec::new(),
            copies: [Copies::SafeMethods; 2],
            now_ms: 0,
            previous: None,
            marks: &[],
            problems,
        };
        compile(input).unwrap().0
    }

    fn asked(subject: Option<&str>) -> Asked<'_> {
        Asked::new(subject, 0)
    }

    const FILE: &str = "features:\n  f: { type: percentage, percentage: 25, owner: me }\n";

    fn story(subject: Option<&str>) -> Explanation {
        explain(&rules(FILE), &FlagKey::parse("f").unwrap(), &asked(subject))
    }

    #[test]
    fn story_shows_every_line_up_to_the_deciding_one() {
        let story = story(Some("user_0"));
        let steps: Vec<String> = story
            .steps
            .iter()
            .map(|step| format!("{} {}", step.line, step.found))
            .collect();
        let bucket = Bucket::of("user_0", "f").number();
        assert_eq!(
            steps,
            [
                "1 not killed".to_owned(),
                "2 defined".to_owned(),
                "3 flags are on as a whole".to_owned(),
                "4 enabled is unset".to_owned(),
                "5 on in every environment".to_owned(),
                "6 no period".to_owned(),
                "6 it asks no other flag".to_owned(),
                "7 not on the denylist of 1".to_owned(),
                "8 no allowlist".to_owned(),
                "9 no list of beta users".to_owned(),
                format!("10 bucket {bucket} is not below 250000 (25 %)"),
            ]
        );
        assert_eq!(
            (story.line, story.reason, story.bucket, story.threshold),
            (10, "percent_miss", Some(bucket), Some(250_000))
        );
        assert!(story.steps.iter().all(|step| step.decided == (step.line == 10)));
    }

    #[test]
    fn story_names_the_origin_of_each_value() {
        let story = story(Some("bad"));
        assert_eq!(
            story.origin,
            Place {
                source: "environment",
                place: Some("F_DENYLIST".into())
            }
        );
        let members: Vec<String> = story
            .members
            .iter()
            .map(|m| format!("{}={} {}", m.member, m.value, m.origin.source))
            .collect();
        assert_eq!(
            members,
            [
                "type=percentage file",
                "owner=me file",
                "denylist=1 subjects environment",
                "percentage=25 file"
            ]
        );
    }

    #[test]
    fn suggested_percentage_would_change_the_answer() {
        for user in (0..50).map(|n| format!("user_{n}")) {
            let story = story(Some(&user));
            let percent = story.changes[0].rsplit(' ').next().unwrap().to_owned();
            let changed = rules(&FILE.replace("25", &percent));
            let record = record(changed.flags(), "f", &asked(Some(&user)));
            assert_ne!(
                record.value,
                FlagValue::Bool(story.value),
                "{user}: {}",
                story.changes[0]
            );
        }
    }

    #[test]
    fn record_has_the_promised_members_in_their_order() {
        let rules = rules(FILE);
        let json = |flag, subject| serde_json::to_string(&record(rules.flags(), flag, &asked(subject))).unwrap();
        assert_eq!(
            json("f", None),
            r#"{"flag":"f","value":false,"variant":"off","reason":"identity_unknown","rule":null,"bucket":null,"origin":"environment"}"#
        );
        assert_eq!(
            json("no flag", Some("s")),
            r#"{"flag":"no flag","value":false,"variant":"off","reason":"flag_not_found","rule":null,"bucket":null,"origin":"default"}"#
        );
    }

    #[test]
    fn kill_in_force_is_the_origin_of_its_answer() {
        let rules = rules(FILE);
        let asked = Asked {
            killed: true,
            ..asked(Some("s"))
        };
        let story = explain(&rules, &FlagKey::parse("f").unwrap(), &asked);
        assert_eq!((story.origin.source, story.line, story.steps.len()), ("kill", 1, 1));
        assert_eq!(record(rules.flags(), "f", &asked).origin, "kill");
    }

    #[test]
    fn story_of_a_flag_that_nobody_defines_says_how_to_define_it() {
        let story = explain(
            &rules(FILE),
            &FlagKey::parse("no-such.flag").unwrap(),
            &asked(Some("s")),
        );
        assert_eq!((story.reason, story.line), ("flag_not_found", 2));
        assert!(
            story.changes[1].contains("FEATURE_FLAG_NO_SUCH_FLAG"),
            "{:?}",
            story.changes
        );
    }
}
