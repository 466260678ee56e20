//! `understudy flags apply`: what is said at run time becomes what a file declares.
//!
//! First a plan: which flags differ, and how. Then every change is tried without being made, so that what does not compile
//! stops all of it. Then they are made one after the other, each only if nobody was faster; if one is refused all the same, those
//! that were made are rolled back, and what could not be is said.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use http::Method;
use serde::Serialize;
use similar::TextDiff;

use super::FLAGS;
use super::declared::{self, Present, canonical, shown};
use super::named::path_of;
use crate::admin::dto::Changed;
use crate::cli::client::{CallError, Remote, segment};
use crate::cli::terminal::{Colour, Paint, counted, json, plain, print, wrap};
use crate::cli::{BAD_INPUT, Output, OutputArgs};
use crate::engine::ruleset::decode::Layered;
use crate::engine::ruleset::layer::Layer;
use crate::engine::vocab::FlagKey;

/// The options of `understudy flags apply`.
#[derive(Clone, Debug, Args)]
pub(in crate::cli) struct ApplyArgs {
    /// The flag file
    file: PathBuf,
    /// Also take back what was said about flags that the file does not have
    #[arg(long)]
    prune: bool,
    /// With --prune: also of flags that are on for some and off for others
    #[arg(long, requires = "prune")]
    force: bool,
    /// Show the plan, try it, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Why, for the history and the audit trail
    #[arg(long, short, value_name = "TEXT")]
    reason: Option<String>,
    #[command(flatten)]
    remote: Remote,
    #[command(flatten)]
    output: OutputArgs,
}

/// What is done to a flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Action {
    Create,
    Delete,
    Set,
}

/// One change of a plan.
#[derive(Clone, Debug, Serialize)]
struct Step {
    flag: String,
    action: Action,
    /// What is said at run time before and after, as the flag file writes it.
    before: String,
    after: String,
    warnings: Vec<String>,
    #[serde(skip)]
    key: FlagKey,
    /// The revision that the plan was made for.
    #[serde(skip)]
    revision: Option<u64>,
    #[serde(skip)]
    body: String,
    /// Flags that have to answer first.
    #[serde(skip)]
    asks: BTreeSet<FlagKey>,
}

/// What was planned and what came of it.
#[derive(Debug, Serialize)]
struct Report {
    changes: Vec<Step>,
    unchanged: usize,
    applied: bool,
}

impl ApplyArgs {
    /// Plans, tries and applies. Exit code 0: the instance has what the file declares, or `--dry-run` found nothing wrong. 1: refused
    /// or not reached; what was done is said. 2: the file, or a flag in it, has problems; nothing was changed.
    pub fn execute(&self) -> ExitCode {
        let wanted = match declared::file(&self.file) {
            Ok(wanted) => wanted,
            Err(problems) => {
                for problem in problems {
                    eprintln!("{}", plain(&problem));
                }
                return ExitCode::from(BAD_INPUT);
            }
        };
        let present = match declared::present(&self.remote) {
            Ok(present) => present,
            Err(error) => return error.report(),
        };
        if let Some(segment) = foreign_segment(&wanted, &present) {
            eprintln!(
                "{}",
                plain(&format!(
                    "{}: the instance has another segment `{segment}`, or none. segments come from its flag file: change them there \
                     first",
                    self.file.display()
                ))
            );
            return ExitCode::from(BAD_INPUT);
        }
        let (mut steps, unchanged) = plan(&wanted, &present, self.prune);
        for at in 0..steps.len() {
            let waits = steps
                .get(..at)
                .unwrap_or_default()
                .iter()
                .any(|before| steps.get(at).is_some_and(|step| step.asks.contains(&before.key)));
            // One that asks a flag of this plan cannot be tried before that is there.
            if let Some(step) = steps.get_mut(at).filter(|_| !waits) {
                match self.ask(step, true) {
                    Ok(tried) => step.warnings = tried.warnings,
                    Err(error) => {
                        eprintln!("{}: nothing was changed", plain(&step.flag));
                        return error.report();
                    }
                }
            }
        }
        if !self.dry_run
            && let Err(code) = self.make(&mut steps)
        {
            return code;
        }
        let report = Report {
            changes: steps,
            unchanged,
            applied: !self.dry_run,
        };
        print(&match self.output.output {
            Output::Json => json(&report),
            Output::Table => text(&report, Paint::for_stdout()),
        })
    }

    /// Makes the changes, or none of them.
    fn make(&self, steps: &mut [Step]) -> Result<(), ExitCode> {
        let mut made: Vec<(String, Option<u64>)> = Vec::new();
        for step in steps {
            match self.ask(step, false) {
                Ok(changed) => {
                    step.warnings = changed.warnings;
                    let revision = changed.flag.map(|flag| flag.revision);
                    made.push((step.flag.clone(), revision));
                }
                Err(error) => {
                    eprintln!("{}:", plain(&step.flag));
                    let code = error.report();
                    self.undo(&made);
                    return Err(code);
                }
            }
        }
        Ok(())
    }

    fn undo(&self, made: &[(String, Option<u64>)]) {
        let mut left = Vec::new();
        for (flag, revision) in made.iter().rev() {
            let path = format!("{}/rollback", path_of(flag));
            let body = r#"{"reason":"another change of the same apply was refused"}"#.to_owned();
            let undone: Result<Changed, CallError> = self.remote.change(Method::POST, &path, *revision, body);
            if undone.is_err() {
                left.push(flag.as_str());
            }
        }
        if left.is_empty() {
            eprintln!(
                "the changes before it were rolled back ({})",
                counted(made.len() as u64, "flag")
            );
        } else {
            eprintln!(
                "{}",
                plain(&format!(
                    "these changes are made and could not be rolled back: {}",
                    left.join(", ")
                ))
            );
        }
    }

    fn ask(&self, step: &Step, dry_run: bool) -> Result<Changed, CallError> {
        let mut path = match step.action {
            Action::Create => format!("{FLAGS}?dry_run={dry_run}"),
            Action::Set => format!("{}?dry_run={dry_run}", path_of(&step.flag)),
            Action::Delete => format!("{}?dry_run={dry_run}&force={}", path_of(&step.flag), self.force),
        };
        if let Some(reason) = &self.reason {
            path += &format!("&reason={}", segment(reason));
        }
        let method = match step.action {
            Action::Create => Method::POST,
            Action::Set => Method::PUT,
            Action::Delete => Method::DELETE,
        };
        self.remote.change(method, &path, step.revision, step.body.clone())
    }
}

/// A segment of the file that the instance has not.
fn foreign_segment<'w>(wanted: &'w Layer, present: &Present) -> Option<&'w str> {
    let differs = |(name, condition): &(&crate::engine::vocab::SegmentKey, _)| {
        present.merged.segments.get(*name) != Some(*condition)
    };
    wanted.segments.iter().find(differs).map(|(name, _)| name.as_str())
}

/// What has to be done, flags before those that ask them; and how many flags stay as they are.
fn plan(wanted: &Layer, present: &Present, prune: bool) -> (Vec<Step>, usize) {
    let mut steps = Vec::new();
    let mut unchanged = 0;
    for (key, entry) in &wanted.flags {
        let after = canonical(wanted, key);
        // What holds already need not be said once more.
        if canonical(&present.runtime, key) == after || canonical(&present.merged, key) == after {
            unchanged += 1;
            continue;
        }
        let asks = match &entry.members.prerequisites {
            Layered::Set(list) => list.value.iter().map(|asked| asked.flag.value.clone()).collect(),
            Layered::Inherit | Layered::Unset => BTreeSet::new(),
        };
        let is_new = !present.merged.flags.contains_key(key);
        let members = after.unwrap_or_default();
        steps.push(Step {
            flag: key.to_string(),
            action: if is_new { Action::Create } else { Action::Set },
            before: shown(&present.runtime, key),
            after: shown(wanted, key),
            warnings: Vec::new(),
            key: key.clone(),
            revision: (!is_new).then(|| present.revisions.get(key).copied().unwrap_or_default()),
            body: if is_new { with_name(key, &members) } else { members },
            asks,
        });
    }
    let mut steps = in_order(steps);
    if prune {
        let gone = present
            .revisions
            .iter()
            .filter(|(key, _)| !wanted.flags.contains_key(*key));
        steps.extend(gone.map(|(key, revision)| Step {
            flag: key.to_string(),
            action: Action::Delete,
            before: shown(&present.runtime, key),
            after: String::new(),
            warnings: Vec::new(),
            key: key.clone(),
            revision: Some(*revision),
            body: String::new(),
            asks: BTreeSet::new(),
        }));
    }
    (steps, unchanged)
}

/// The members of a flag with its name in front.
fn with_name(key: &FlagKey, members: &str) -> String {
    let rest = members.strip_prefix('{').unwrap_or("}");
    let comma = if rest == "}" { "" } else { "," };
    format!("{{\"name\":\"{key}\"{comma}{rest}")
}

/// Flags before those that ask them; those in a ring as they come, for the instance refuses them.
fn in_order(mut steps: Vec<Step>) -> Vec<Step> {
    let mut ordered: Vec<Step> = Vec::with_capacity(steps.len());
    while !steps.is_empty() {
        let open: BTreeSet<FlagKey> = steps.iter().map(|step| step.key.clone()).collect();
        let ready = steps.iter().position(|step| step.asks.is_disjoint(&open));
        ordered.push(steps.remove(ready.unwrap_or_default()));
    }
    ordered
}

// Writing to a text cannot fail.
fn text(report: &Report, paint: Paint) -> String {
    let mut text = String::new();
    for step in &report.changes {
        let (sign, colour) = match step.action {
            Action::Create => ('+', Colour::Green),
            Action::Delete => ('-', Colour::Red),
            Action::Set => ('~', Colour::Yellow),
        };
        let _ = writeln!(
            text,
            "{}",
            paint.paint(colour, &format!("{sign} {}", plain(&step.flag)))
        );
        let diff = TextDiff::from_lines(&step.before, &step.after);
        for change in diff.iter_all_changes() {
            let colour = match change.tag() {
                similar::ChangeTag::Delete => Some(Colour::Red),
                similar::ChangeTag::Insert => Some(Colour::Green),
                similar::ChangeTag::Equal => None,
            };
            let line = plain(&format!("  {}{}", change.tag(), change.value().trim_end_matches('\n')));
            let line = colour.map_or_else(|| line.clone(), |colour| paint.paint(colour, &line));
            let _ = writeln!(text, "{line}");
        }
        for warning in &step.warnings {
            let _ = writeln!(text, "{}", wrap(&format!("  warning: {}", plain(warning)), 4));
        }
    }
    let (changes, unchanged) = (report.changes.len() as u64, report.unchanged as u64);
    let _ = match (changes, report.applied) {
        (0, _) => writeln!(text, "nothing to change, {} as declared", counted(unchanged, "flag")),
        (_, true) => writeln!(
            text,
            "{} made, {} as declared before",
            counted(changes, "change"),
            counted(unchanged, "flag")
        ),
        (_, false) => writeln!(
            text,
            "{} to make, {} as declared; nothing was changed",
            counted(changes, "change"),
            counted(unchanged, "flag")
        ),
    };
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::ruleset::document::Document;
    use crate::engine::ruleset::problem::Problems;

    fn layer(text: &str) -> Layer {
        let mut problems = Problems::default();
        let document = Document::parse(&"f".into(), text, &mut problems);
        let layer = document.unwrap().into_layer(&mut problems);
        assert!(!problems.refuse(), "{problems:?}");
        layer
    }

    fn present(merged: &str, runtime: &str) -> Present {
        let runtime = layer(runtime);
        Present {
            merged: layer(merged),
            revisions: runtime.flags.keys().map(|key| (key.clone(), 7)).collect(),
            runtime,
        }
    }

    #[test]
    fn plan_shows_what_is_said_before_and_after() {
        let present = present(
            "features:\n  a: { type: boolean, enabled: true, percentage: 5 }\n  gone: { type: boolean }\n  same: { type: boolean, owner: x }\n",
            "features:\n  a: { type: boolean, percentage: 5 }\n  gone: { type: boolean }\n",
        );
        let wanted = layer(
            "features:\n  a: { type: boolean, percentage: 10 }\n  new: { type: boolean, prerequisites: [{ flag: z }] }\n  \
             same: { owner: x, type: boolean }\n  z: { type: boolean }\n",
        );
        let (changes, unchanged) = plan(&wanted, &present, true);
        let report = Report {
            changes,
            unchanged,
            applied: false,
        };
        insta::assert_snapshot!(text(&report, Paint(false)), @r"
        ~ a
             a:
               type: boolean
          -    percentage: 5
          +    percentage: 10
        + z
          +  z:
          +    type: boolean
        + new
          +  new:
          +    type: boolean
          +    prerequisites:
          +      - { flag: z }
        - gone
          -  gone:
          -    type: boolean
        4 changes to make, 1 flag as declared; nothing was changed
        ");
        let revisions: Vec<_> = report.changes.iter().map(|step| step.revision).collect();
        assert_eq!(revisions, [Some(7), None, None, Some(7)]);
        assert_eq!(report.changes[1].body, r#"{"name":"z","type":"boolean"}"#);
        let (changes, _) = plan(&wanted, &present, false);
        assert!(
            changes.iter().all(|step| step.action != Action::Delete),
            "only --prune takes away"
        );
    }
}
