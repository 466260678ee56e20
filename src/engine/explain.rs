//! Why a flag answers as it does: every line of the table that was asked, where each value comes from, and what would
//! change the answer.
//!
//! Pure. It takes the same steps as the data plane (`flags::evaluate`), so it cannot tell another story. Printing is left to
//! the command line and the admin plane; subjects do not appear in what comes out.

mod members;

use serde::Serialize;
use serde_json::value::RawValue;

use crate::engine::flags::bucket::variant_position;
use crate::engine::flags::model::{Flag, FlagType, Member, Percent, Prerequisite, Wanted};
use crate::engine::flags::origin::{Origin, Source};
use crate::engine::flags::schedule::Slope;
use crate::engine::flags::subjects::SubjectSet;
use crate::engine::flags::targeting::Outcome;
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
#[derive(Clone, Debug, Serialize)]
pub struct Explanation {
    /// The flag.
    pub flag: String,
    /// Whether it is on; of a flag with variants, whether the subject takes part.
    pub enabled: bool,
    /// What it comes to: `true` or `false`; of a variant its value, or its name.
    pub value: Box<RawValue>,
    /// The variant; of a flag without variants `on` or `off`.
    pub variant: String,
    /// Why.
    pub reason: &'static str,
    /// The rule that decided, by its name or its priority.
    pub rule: Option<String>,
    /// The line of the table that decided, 1 to 12.
    pub line: u8,
    /// Where the subject stands among the variants, 0 to 999,999; `null` without variants or a subject.
    pub position: Option<u32>,
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
    let walk = Walk {
        flags,
        flag,
        asked,
        environment: ruleset.environment(),
    };
    let mut steps = Vec::new();
    for line in Line::ALL {
        let answer = line.ask(flags, flag, asked);
        walk.steps(line, answer.as_ref(), &mut steps);
        if answer.is_some() {
            break;
        }
    }
    let answer = flags.answer(flag, asked);
    let position = |subject| variant_position(subject, flag.hash_name());
    Explanation {
        flag: key.to_string(),
        enabled: answer.enabled,
        // It was JSON before.
        value: RawValue::from_string(flag.value(&answer).to_json()).unwrap_or_default(),
        variant: flag.variant(&answer).to_owned(),
        reason: answer.reason.as_str(),
        rule: flag.rule(&answer).map(str::to_owned),
        line: answer.line.number(),
        position: asked.subject.filter(|_| flag.variants.is_some()).map(position),
        bucket: asked.subject.map(|subject| flag.bucket(subject).number()),
        threshold: flag
            .percent
            .as_ref()
            .map(|percent| percent.threshold_at(asked.unix_ms).buckets()),
        origin: origin(flag, &answer, asked),
        steps,
        members: flag
            .origins
            .iter()
            .map(|(member, origin)| MemberValue {
                member: member.as_str(),
                value: members::text(flag, *member),
                origin: origin.into(),
            })
            .collect(),
        changes: changes(flag, &answer, asked, ruleset.environment()),
    }
}

/// One flag, asked line by line.
struct Walk<'w> {
    flags: &'w Flags,
    flag: &'w Flag,
    asked: &'w Asked<'w>,
    environment: &'w str,
}

impl Walk<'_> {
    /// What a line found: one step, and of the rules and of the flags that are asked first one for each that was asked.
    fn steps(&self, line: Line, answer: Option<&Evaluation>, steps: &mut Vec<Step>) {
        let mut add = |found: String, decided| {
            steps.push(Step {
                line: line.number(),
                decided,
                found,
            });
        };
        match line {
            Line::Prerequisite if !self.flag.prerequisites.is_empty() => {
                for first in &self.flag.prerequisites {
                    add(self.first(first), false);
                    if self.flags.meets(first, self.asked) != Some(true) {
                        break;
                    }
                }
            }
            Line::Targeting if self.flag.beta_users.is_some() || !self.flag.rules.is_empty() => {
                self.targeting(answer, &mut add);
            }
            _ => add(found(line, self.flags, self.flag, self.asked, self.environment), false),
        }
        let Some((answer, last)) = answer.zip(steps.last_mut()) else {
            return;
        };
        last.decided = true;
        if let (true, Some(subject), Some(_)) = (answer.enabled, self.asked.subject, &self.flag.variants)
            && !self.named_variant(answer)
        {
            let position = variant_position(subject, self.flag.hash_name());
            last.found = format!("{}; position {position} is `{}`", last.found, self.flag.variant(answer));
        }
    }

    /// Whether a rule named the variant, so that no position was asked.
    fn named_variant(&self, answer: &Evaluation) -> bool {
        let rule = answer.rule.and_then(|at| self.flag.rules.get(at.0 as usize));
        rule.is_some_and(|rule| matches!(rule.outcome, Outcome::Variant(_)))
    }

    fn first(&self, first: &Prerequisite) -> String {
        let key = &first.flag;
        let must = match &first.wanted {
            Wanted::Enabled(true) => "on".to_owned(),
            Wanted::Enabled(false) => "off".to_owned(),
            Wanted::Variant(name) => format!("`{name}`"),
        };
        let Some((at, other)) = first.at.and_then(|at| Some((at, self.flags.at(at)?))) else {
            return format!("{key} must be {must}, and no source sets it");
        };
        let answer = self.flags.answer(other, &self.asked.of(at));
        let word = other.variant(&answer);
        format!("{key} must be {must}, and is {word} ({})", answer.reason)
    }

    fn targeting(&self, answer: Option<&Evaluation>, add: &mut impl FnMut(String, bool)) {
        if let Some(list) = &self.flag.beta_users {
            add(listed(Some(list), "list of beta users", self.asked), false);
            if answer.is_some_and(|answer| answer.rule.is_none()) {
                return;
            }
        }
        let decided = answer
            .and_then(|answer| answer.rule)
            .map_or(usize::MAX, |at| at.0 as usize);
        for (at, rule) in self.flag.rules.iter().enumerate() {
            let name = &rule.label;
            let found = match (self.flags.matches(rule, self.asked), &rule.outcome) {
                (Some(false), _) => format!("rule {name} does not match"),
                (None, _) => format!("rule {name} has to look at a subject, and there is none"),
                (Some(true), Outcome::On) => format!("rule {name} matches: on"),
                (Some(true), Outcome::Off) => format!("rule {name} matches: off"),
                (Some(true), Outcome::Variant(variant)) => {
                    let named = self.flag.variants.as_ref().and_then(|variants| variants.get(*variant));
                    format!("rule {name} matches: `{}`", named.map_or("", |variant| &variant.name))
                }
                (Some(true), Outcome::Share(share)) => match self.asked.subject {
                    None => format!("rule {name} matches, and its {share} % need a subject"),
                    Some(subject) => format!("rule {name} matches: {}", below(self.flag.bucket(subject), *share)),
                },
            };
            add(found, false);
            if at == decided {
                return;
            }
        }
    }
}

/// How a bucket stands to a share, in words.
fn below(bucket: Bucket, share: Threshold) -> String {
    let relation = if share.takes(bucket) { "below" } else { "not below" };
    format!(
        "bucket {} is {relation} {} ({share} %)",
        bucket.number(),
        share.buckets()
    )
}

/// Whether a subject is on a list, in words.
fn listed(list: Option<&SubjectSet>, name: &str, asked: &Asked<'_>) -> String {
    match (list, asked.subject) {
        (None, _) => format!("no {name}"),
        (Some(list), None) => format!("{name} of {}, and no subject to look for", list.len()),
        (Some(list), Some(subject)) => {
            let on = if list.contains(subject) { "on" } else { "not on" };
            format!("{on} the {name} of {}", list.len())
        }
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
    match line {
        Line::Kill if asked.killed => "killed".into(),
        Line::Kill if flag.kill_switch => "killed by its own metadata".into(),
        Line::Kill => "not killed".into(),
        Line::Unknown if flag.defined => "defined".into(),
        Line::Unknown => "no source defines it".into(),
        Line::System if flags.system_enabled() => "flags are on as a whole".into(),
        Line::System => format!("{SYSTEM} is false"),
        Line::Global if flag.flag_type == FlagType::Targeted => "not asked of a flag of type targeted".into(),
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
        Line::Prerequisite => "it asks no other flag".into(),
        Line::Denylist => listed(flag.denylist.as_ref(), "denylist", asked),
        Line::Allowlist => listed(flag.allowlist.as_ref(), "allowlist", asked),
        Line::Targeting => "no beta users and no rules".into(),
        Line::Percent => match (&flag.percent, asked.subject) {
            (None, _) => "no percentage".into(),
            (Some(_), None) => "a percentage, and no subject to look for".into(),
            (Some(percent), Some(subject)) => below(flag.bucket(subject), percent.threshold_at(asked.unix_ms)),
        },
        Line::Default if flag.variants.is_some() => "everybody who came this far takes part".into(),
        Line::Default => format!("default is {}", flag.default),
    }
}

/// Every member of a flag that some source sets, in words.
#[must_use]
pub fn members(flag: &Flag) -> Vec<MemberValue> {
    let origins = flag.origins.iter();
    origins
        .map(|(member, origin)| MemberValue {
            member: member.as_str(),
            value: members::text(flag, *member),
            origin: origin.into(),
        })
        .collect()
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
        Reason::Prerequisite => vec!["change the flags that it asks first, or remove the prerequisite".into()],
        Reason::BetaUser => vec!["take the subject off the beta users".into(), off_for_one()],
        Reason::Targeting => rule_changes(flag, answer, off_for_one()),
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

fn rule_changes(flag: &Flag, answer: &Evaluation, off_for_one: String) -> Vec<String> {
    let name = flag.rule(answer).unwrap_or_default();
    let rule = answer.rule.and_then(|at| flag.rules.get(at.0 as usize));
    let mut changes = Vec::new();
    if let (Some(Outcome::Share(_)), Some(bucket)) = (rule.map(|rule| rule.outcome), answer.bucket) {
        changes.push(if answer.enabled {
            let most = Threshold::from_buckets(bucket.number());
            format!("a value of at most {most} in rule {name}")
        } else {
            let least = Threshold::from_buckets(bucket.number() + 1);
            format!("a value of at least {least} in rule {name}")
        });
    }
    changes.push(format!("change or remove rule {name}, or put a rule before it"));
    if answer.enabled {
        changes.push(off_for_one);
    } else {
        changes.push("put the subject among the beta users".to_owned());
    }
    changes
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
    use crate::engine::flags::{Context, FlagKills};
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
                "9 no beta users and no rules".to_owned(),
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
                FlagValue::Bool(story.enabled),
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

    const TARGETS: &str = r#"
segments:
  staff: { user_ids: [ann, bob] }
features:
  base: { type: boolean, enabled: true }
  f:
    type: variant
    prerequisites: [ { flag: base } ]
    beta_users: [eve]
    rules:
      - { type: user_segment, name: staff, conditions: { segment: staff, country: [US] }, value: b }
      - { type: location, priority: 1, conditions: { country: [DE] }, value: 50 }
    variants: [ { name: control, weight: 50, value: 1 }, { name: b, weight: 50, value: 2 } ]
"#;

    fn told(subject: Option<&str>, attributes: &str, kills: &FlagKills) -> Explanation {
        let attributes: Context = serde_json::from_str(attributes).unwrap();
        let asked = Asked {
            attributes: &attributes,
            kills,
            ..Asked::new(subject, 0)
        };
        explain(&rules(TARGETS), &FlagKey::parse("f").unwrap(), &asked)
    }

    fn found(story: &Explanation) -> Vec<&str> {
        let told = story.steps.iter().filter(|step| matches!(step.line, 6 | 9));
        told.map(|step| step.found.as_str()).collect()
    }

    #[test]
    fn story_tells_each_rule_that_was_asked() {
        let story = told(Some("ann"), r#"{"country": "US"}"#, FlagKills::NONE);
        assert_eq!(
            found(&story),
            [
                "no period",
                "base must be on, and is on (global)",
                "not on the list of beta users of 1",
                "rule 1 does not match",
                "rule staff matches: `b`",
            ]
        );
        assert_eq!(
            (story.value.get(), &*story.variant, story.rule.as_deref()),
            ("2", "b", Some("staff"))
        );
        assert_eq!(story.origin.place.as_deref(), Some("features.yaml:11:9"));
        assert!(story.changes[0].contains("rule staff"), "{:?}", story.changes);
        assert!(story.steps.iter().rev().skip(1).all(|step| !step.decided));
    }

    #[test]
    fn story_of_a_share_and_of_a_position_names_both_numbers() {
        let share = told(Some("zoe"), r#"{"country": "DE"}"#, FlagKills::NONE);
        let bucket = Bucket::of("zoe", "f").number();
        let last = &share.steps.last().unwrap().found;
        assert!(
            last.starts_with(&format!("rule 1 matches: bucket {bucket} is")),
            "{last}"
        );
        let split = told(Some("zoe"), "{}", FlagKills::NONE);
        let position = variant_position("zoe", "f");
        let last = &split.steps.last().unwrap().found;
        assert_eq!(split.position, Some(position));
        assert!(
            last.ends_with(&format!("position {position} is `{}`", split.variant)),
            "{last}"
        );
        assert_eq!((split.reason, split.line), ("split", 12));
    }

    #[test]
    fn story_of_a_prerequisite_ends_with_the_one_that_failed() {
        let kills = FlagKills::collect(false, [0]);
        let story = told(Some("ann"), "{}", &kills);
        assert_eq!(
            story.steps.last().unwrap().found,
            "base must be on, and is off (killed)"
        );
        assert_eq!(
            (story.reason, story.line, story.origin.source),
            ("prerequisite", 6, "file")
        );
        let nobody = told(None, "{}", FlagKills::NONE);
        assert_eq!(
            (nobody.reason, nobody.variant.as_str()),
            ("identity_unknown", "control")
        );
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
