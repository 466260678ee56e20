//! The verbs that change one flag.
//!
//! In: members as a person types them. Out: the JSON that the API takes, and its answer. Values are read as the flag file
//! reads them: `percentage=25`, `denylist=[a, b]`, `rules=[{...}]`; texts are taken as they stand.

use std::process::ExitCode;
use std::sync::Arc;

use clap::{ArgAction, Args};
use http::Method;
use serde_json::value::{RawValue, to_raw_value};

use super::FLAGS;
use super::change::ChangeArgs;
use super::named::{Named, NamedWith, path_of};
use crate::admin::dto::Flag;
use crate::cli::BAD_INPUT;
use crate::cli::terminal::plain;
use crate::engine::ruleset::decode::{self, Decode as _, Scalar as _, Shape};
use crate::engine::ruleset::document::FlagRecord;
use crate::engine::ruleset::problem::{Problems, quote};
use crate::engine::ruleset::targets::Json;

/// Members in the order in which they were given.
#[derive(Debug, Default)]
struct Members(Vec<(String, Box<RawValue>)>);

impl Members {
    fn text(&mut self, name: &str, value: Option<&String>) {
        if let Some(value) = value {
            self.put(name, raw_text(value));
        }
    }

    fn put(&mut self, name: &str, value: Box<RawValue>) {
        self.0.retain(|(known, _)| known != name);
        self.0.push((name.to_owned(), value));
    }

    /// Reads `member=value`.
    fn assign(&mut self, assignment: &str) -> Result<(), String> {
        let Some((name, value)) = assignment.split_once('=') else {
            return Err(format!("{} is no `member=value`", quote(assignment)));
        };
        let value = if is_text(name) && value != "null" {
            raw_text(value)
        } else {
            let mut problems = Problems::default();
            let read = decode::decode::<Json>(&Arc::from(name), value, &mut problems);
            match (read, problems.verdict()) {
                (Some(Json(raw)), Ok(_)) => raw,
                (_, verdict) => {
                    let problems = verdict.err().unwrap_or_default();
                    return Err(problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"));
                }
            }
        };
        self.put(name, value);
        Ok(())
    }

    fn json(&self) -> String {
        let members = self.0.iter().map(|(name, value)| {
            let name = raw_text(name);
            format!("{name}:{value}")
        });
        format!("{{{}}}", members.collect::<Vec<_>>().join(","))
    }
}

fn raw_text(text: &str) -> Box<RawValue> {
    // A text always serialises, and null stands for what cannot happen.
    to_raw_value(text).unwrap_or_else(|_| RawValue::NULL.to_owned())
}

/// Whether a member is one text.
fn is_text(name: &str) -> bool {
    let Shape::Record(shape) = FlagRecord::shape() else {
        return false;
    };
    let member = shape().members.into_iter().find(|member| member.name == name);
    let Some(Shape::Nullable(shape)) = member.map(|member| member.shape) else {
        return false;
    };
    matches!(*shape, Shape::Scalar(name) if name == String::NAME)
}

fn say(what: &str) -> ExitCode {
    for line in what.lines() {
        eprintln!("{}", plain(line));
    }
    ExitCode::from(BAD_INPUT)
}

/// The options of `understudy flags create`.
#[derive(Clone, Debug, Args)]
pub(in crate::cli) struct CreateArgs {
    #[command(flatten)]
    named: Named,
    /// What it does
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// boolean, percentage, variant, gradual or targeted; boolean, if left out
    #[arg(long = "type", value_name = "TYPE")]
    kind: Option<String>,
    /// Who answers for it
    #[arg(long, value_name = "TEXT")]
    owner: Option<String>,
    /// The percentage of subjects that is on the new path
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    percentage: Option<Box<RawValue>>,
    /// A further member, as the flag file writes it; may be repeated
    #[arg(long = "set", value_name = "MEMBER=VALUE")]
    set: Vec<String>,
    #[command(flatten)]
    change: ChangeArgs,
}

impl CreateArgs {
    /// Makes it. Exit code 0: there, and on disk. 1: there was one already, or it could not be kept. 2: it has problems.
    pub fn execute(&self) -> ExitCode {
        let mut members = Members::default();
        members.text("name", Some(&self.named.key().to_owned()));
        members.text("type", self.kind.as_ref());
        members.text("description", self.description.as_ref());
        members.text("owner", self.owner.as_ref());
        if let Some(percentage) = &self.percentage {
            members.put("percentage", percentage.clone());
        }
        for assignment in &self.set {
            if let Err(what) = members.assign(assignment) {
                return say(&what);
            }
        }
        self.change.execute(Method::POST, FLAGS, None, members.json())
    }
}

/// The options of `understudy flags enable`.
#[derive(Clone, Debug, Args)]
pub(in crate::cli) struct EnableArgs {
    #[command(flatten)]
    named: Named,
    /// For this percentage of subjects; left out, what is said about who is in stays as it is
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    percentage: Option<Box<RawValue>>,
    #[command(flatten)]
    change: ChangeArgs,
}

impl EnableArgs {
    /// Enables. Exit code 0: in force and on disk.
    pub fn execute(&self) -> ExitCode {
        let mut members = Members::default();
        members.put("enabled", RawValue::TRUE.to_owned());
        if let Some(percentage) = &self.percentage {
            members.put("percentage", percentage.clone());
        }
        self.change
            .execute(Method::PATCH, &self.named.path(), None, members.json())
    }
}

/// The options of `understudy flags disable`.
#[derive(Clone, Debug, Args)]
pub(in crate::cli) struct DisableArgs {
    #[command(flatten)]
    named: Named,
    #[command(flatten)]
    change: ChangeArgs,
}

impl DisableArgs {
    /// Disables. Exit code 0: in force and on disk.
    pub fn execute(&self) -> ExitCode {
        let body = r#"{"enabled":false}"#.to_owned();
        self.change.execute(Method::PATCH, &self.named.path(), None, body)
    }
}

/// The options of `understudy flags set`.
#[derive(Clone, Debug, Args)]
#[command(override_usage = "understudy flags set [OPTIONS] <FLAG> [MEMBER=VALUE]...")]
pub(in crate::cli) struct SetArgs {
    #[command(flatten)]
    named: NamedWith,
    /// The flag, then members as the flag file writes them: percentage=25, 'denylist=[a, b]', owner=shop; null unsets
    /// one here and in all weaker sources
    #[arg(value_name = "FLAG MEMBER=VALUE")]
    operands: Vec<String>,
    /// Say nothing about this member at run time any more, so that the flag file decides; may be repeated
    #[arg(long, value_name = "MEMBER")]
    inherit: Vec<String>,
    #[command(flatten)]
    change: ChangeArgs,
}

impl SetArgs {
    /// Sets them, all or none. Exit code 0: in force and on disk. 2: a member or a value is none.
    pub fn execute(&self) -> ExitCode {
        let (key, assignments) = match self.named.split(&self.operands) {
            Ok(split) => split,
            Err(what) => return say(what),
        };
        if assignments.is_empty() && self.inherit.is_empty() {
            return say("which members? write them as in `percentage=25`");
        }
        let mut members = Members::default();
        for assignment in assignments {
            if let Err(what) = members.assign(assignment) {
                return say(&what);
            }
        }
        if self.inherit.is_empty() {
            return self.change.execute(Method::PATCH, &path_of(key), None, members.json());
        }
        // What is left out of a whole is no longer said, so the rest has to be said again, unless somebody was faster.
        let flag: Flag = match self.change.remote.get(&path_of(key)) {
            Ok(flag) => flag,
            Err(error) => return error.report(),
        };
        let mut whole = Members::default();
        if let Some(runtime) = &flag.runtime {
            let said: serde_json::Map<String, serde_json::Value> =
                serde_json::from_str(runtime.get()).unwrap_or_default();
            for (name, value) in said.into_iter().filter(|(name, _)| !self.inherit.contains(name)) {
                // A value always serialises.
                whole.put(
                    &name,
                    to_raw_value(&value).unwrap_or_else(|_| RawValue::NULL.to_owned()),
                );
            }
        }
        for (name, value) in members.0 {
            whole.put(&name, value);
        }
        self.change
            .execute(Method::PUT, &path_of(key), Some(flag.revision), whole.json())
    }
}

/// The options of `understudy flags delete`.
#[derive(Clone, Debug, Args)]
pub(in crate::cli) struct DeleteArgs {
    #[command(flatten)]
    named: Named,
    /// Also a flag that is on for some and off for others
    #[arg(long, action = ArgAction::SetTrue)]
    force: bool,
    #[command(flatten)]
    change: ChangeArgs,
}

impl DeleteArgs {
    /// Deletes. Exit code 0: gone; what the flag file and the environment say stays. 1: it is in use, or could not be stored.
    pub fn execute(&self) -> ExitCode {
        let path = format!("{}?force={}", self.named.path(), self.force);
        self.change.execute(Method::DELETE, &path, None, String::new())
    }
}

/// A percentage as JSON, exactly as it was typed.
fn percent(text: &str) -> Result<Box<RawValue>, String> {
    const REMEDY: &str = "write a number from 0 to 100 without a percent sign, such as 25 or 0.5";
    let number: &RawValue = serde_json::from_str(text).map_err(|_| REMEDY)?;
    let is_number = number.get().starts_with(|c: char| c == '-' || c.is_ascii_digit());
    is_number.then(|| number.to_owned()).ok_or_else(|| REMEDY.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assigned(assignments: &[&str]) -> Result<String, String> {
        let mut members = Members::default();
        for assignment in assignments {
            members.assign(assignment)?;
        }
        Ok(members.json())
    }

    #[test]
    fn values_are_read_as_the_flag_file_reads_them() {
        for (typed, sent) in [
            ("percentage=25.50", r#"{"percentage":25.50}"#),
            ("percentage=null", r#"{"percentage":null}"#),
            ("enabled=true", r#"{"enabled":true}"#),
            (
                "denylist=[a, 0123, 33639980123]",
                r#"{"denylist":["a","0123",33639980123]}"#,
            ),
            ("allowlist=[]", r#"{"allowlist":[]}"#),
            (
                "description=ramp: 5 %, then more",
                r#"{"description":"ramp: 5 %, then more"}"#,
            ),
            ("owner=true", r#"{"owner":"true"}"#),
            ("owner=null", r#"{"owner":null}"#),
            (
                "start_date=2026-01-01T00:00:00Z",
                r#"{"start_date":"2026-01-01T00:00:00Z"}"#,
            ),
            (
                "rules=[{ type: location, conditions: { country: [US] }, value: 50 }]",
                r#"{"rules":[{"type":"location","conditions":{"country":["US"]},"value":50}]}"#,
            ),
        ] {
            assert_eq!(assigned(&[typed]).as_deref(), Ok(sent), "{typed}");
        }
        assert_eq!(assigned(&["a=1", "b=2", "a=3"]).as_deref(), Ok(r#"{"b":2,"a":3}"#));
        assert!(assigned(&["percentage"]).unwrap_err().contains("member=value"));
        assert!(assigned(&["denylist=[a"]).unwrap_err().starts_with("denylist:1:"));
    }

    #[test]
    fn percentage_keeps_its_digits() {
        assert_eq!(percent("12.50").unwrap().get(), "12.50");
        for bad in ["25%", "true", "\"5\"", "", "5 6"] {
            assert!(percent(bad).is_err(), "{bad}");
        }
    }
}
