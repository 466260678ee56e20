//! `understudy check`: compiles everything that a start would, and says everything that is wrong with it.

use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use super::terminal::print;
use super::{BAD_INPUT, ConfigArgs, Output, OutputArgs};
use crate::app;
use crate::engine::ruleset::problem::{Problem, Severity};

/// The options of `understudy check`.
#[derive(Clone, Debug, Args)]
pub(super) struct CheckArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Exit with 2 if there is a warning, too
    #[arg(long)]
    deny_warnings: bool,
    #[command(flatten)]
    output: OutputArgs,
}

impl CheckArgs {
    /// Checks. Exit code 0: it would start. 2: it would not, or it would with warnings and those are denied.
    pub fn execute(&self) -> ExitCode {
        let (found, compiles, summary) = match app::compile(&self.config.options()) {
            Ok(compiled) => {
                let (routes, flags) = (compiled.rules.routes().len(), compiled.rules.flags().iter().len());
                let counted = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
                let (routes, flags) = (counted(routes, "route"), counted(flags, "flag"));
                let summary = format!("{}: fine, {routes} and {flags}", self.config.config.display());
                (compiled.warnings, true, summary)
            }
            Err(problems) => (problems, false, String::new()),
        };
        let code = print(&match self.output.output {
            Output::Json => found.iter().map(line).collect::<String>(),
            Output::Table => text(&found) + &if compiles { summary + "\n" } else { String::new() },
        });
        let denied = self.deny_warnings && !found.is_empty();
        if compiles && !denied {
            code
        } else {
            ExitCode::from(BAD_INPUT)
        }
    }
}

/// One per line, as `FILE:LINE:COLUMN: what. remedy`.
pub(super) fn text(problems: &[Problem]) -> String {
    problems
        .iter()
        .map(|problem| super::terminal::plain(&problem.to_string()) + "\n")
        .collect()
}

#[derive(Serialize)]
struct Record<'a> {
    file: &'a str,
    line: u32,
    column: u32,
    path: &'a str,
    severity: &'static str,
    what: &'a str,
    remedy: &'a str,
}

fn line(problem: &Problem) -> String {
    let Problem {
        place,
        path,
        what,
        remedy,
        severity,
    } = problem;
    let severity: Severity = *severity;
    let record = Record {
        file: &place.file,
        line: place.line,
        column: place.column,
        path,
        severity: severity.as_str(),
        what,
        remedy,
    };
    // Texts and numbers always serialise.
    serde_json::to_string(&record).unwrap_or_default() + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::ruleset::problem::Place;

    #[test]
    fn problem_is_one_line_in_both_forms() {
        let problem = Problem {
            place: Place {
                file: "a.yaml".into(),
                line: 3,
                column: 7,
            },
            path: "routes[0].flag".into(),
            what: "no source sets the flag `x`".into(),
            remedy: "define it".into(),
            severity: Severity::Warning,
        };
        assert_eq!(
            text(std::slice::from_ref(&problem)),
            "a.yaml:3:7: warning: no source sets the flag `x`. define it\n"
        );
        assert_eq!(
            line(&problem),
            "{\"file\":\"a.yaml\",\"line\":3,\"column\":7,\"path\":\"routes[0].flag\",\"severity\":\"warning\",\
             \"what\":\"no source sets the flag `x`\",\"remedy\":\"define it\"}\n"
        );
    }
}
