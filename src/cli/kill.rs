//! `understudy kill` and `understudy rearm`: what a person at 3 a.m. types.

use std::process::ExitCode;

use clap::Args;

use super::client::{Remote, segment};
use super::terminal::{json, plain, print};
use super::{NOT_STORED, Output, OutputArgs};
use crate::admin::dto::{KillRequest, Killed, RearmRequest, Rearmed};

/// What is meant.
#[derive(Clone, Debug, Args)]
struct Named {
    /// A route or a flag
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    name: Option<String>,
    /// Every flag and every constant: killed, nothing is served by new and nothing is copied; re-armed, the rules decide
    #[arg(long, conflicts_with_all = ["route", "flag"])]
    all: bool,
    /// The name is a route's, where a flag has it too
    #[arg(long, conflicts_with = "flag")]
    route: bool,
    /// The name is a flag's, where a route has it too
    #[arg(long)]
    flag: bool,
}

impl Named {
    fn path(&self, verb: &str) -> String {
        match &self.name {
            None => format!("/api/v1/{verb}"),
            Some(name) => {
                let kind = match (self.route, self.flag) {
                    (true, _) => "routes",
                    (_, true) => "feature-flags",
                    _ => "targets",
                };
                format!("/api/v1/{kind}/{}/{verb}", segment(name))
            }
        }
    }
}

/// The options of `understudy kill`.
#[derive(Clone, Debug, Args)]
#[command(override_usage = "understudy kill [OPTIONS] <NAME|--all> --reason <TEXT>")]
pub(super) struct KillArgs {
    #[command(flatten)]
    named: Named,
    /// Why; only a token with the role `emergency` may leave it out
    #[arg(long, short, value_name = "TEXT")]
    reason: Option<String>,
    #[command(flatten)]
    remote: Remote,
    #[command(flatten)]
    output: OutputArgs,
}

impl KillArgs {
    /// Kills. Exit code 0: in force and on disk. 3: in force, and not on disk yet.
    pub fn execute(&self) -> ExitCode {
        let body = KillRequest {
            reason: self.reason.clone(),
        };
        let killed: Killed = match self.remote.post(&self.named.path("kill"), &body) {
            Ok(killed) => killed,
            Err(error) => return error.report(),
        };
        let printed = print(&match self.output.output {
            Output::Json => json(&killed),
            Output::Table => killed_text(&killed),
        });
        if killed.stored {
            printed
        } else {
            ExitCode::from(NOT_STORED)
        }
    }
}

fn killed_text(killed: &Killed) -> String {
    let disk = match (killed.stored, killed.journaled) {
        (true, _) => "on disk",
        (false, true) => "in the kill journal, NOT on disk in the state file yet (it survives a restart)",
        (false, false) => "NOT on disk yet (a restart loses it)",
    };
    let mut text = format!(
        "{} is killed: in force, {disk}, epoch {}\n",
        killed.target, killed.epoch
    );
    for warning in &killed.warnings {
        text += &format!("  {warning}\n");
    }
    // The line feeds are ours.
    text.lines().map(|line| plain(line) + "\n").collect()
}

/// The options of `understudy rearm`.
#[derive(Clone, Debug, Args)]
#[command(override_usage = "understudy rearm [OPTIONS] <NAME|--all> --reason <TEXT>")]
pub(super) struct RearmArgs {
    #[command(flatten)]
    named: Named,
    /// Why it is safe again
    #[arg(long, short, value_name = "TEXT", required = true)]
    reason: String,
    /// Lift the hold of this one subject, a key or its hash `h:...`, and leave the route as it is
    #[arg(long, value_name = "SUBJECT", conflicts_with_all = ["all", "flag"])]
    subject: Option<String>,
    #[command(flatten)]
    remote: Remote,
    #[command(flatten)]
    output: OutputArgs,
}

impl RearmArgs {
    /// Lifts a kill. Exit code 0: lifted, and on disk.
    pub fn execute(&self) -> ExitCode {
        let body = RearmRequest {
            reason: Some(self.reason.clone()),
            subject: self.subject.clone(),
        };
        let rearmed: Rearmed = match self.remote.post(&self.named.path("rearm"), &body) {
            Ok(rearmed) => rearmed,
            Err(error) => return error.report(),
        };
        print(&match self.output.output {
            Output::Json => json(&rearmed),
            Output::Table => rearmed_text(&rearmed),
        })
    }
}

fn rearmed_text(rearmed: &Rearmed) -> String {
    let mut text = format!("{} is re-armed: epoch {}\n", rearmed.target, rearmed.epoch);
    if rearmed.subjects > 0 {
        text += &format!("  {} held subjects with it\n", rearmed.subjects);
    }
    for warning in &rearmed.warnings {
        text += &format!("  {warning}\n");
    }
    text.lines().map(|line| plain(line) + "\n").collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::dto::{Target, TargetKind};

    fn named(name: Option<&str>, route: bool, flag: bool) -> Named {
        Named {
            name: name.map(str::to_owned),
            all: name.is_none(),
            route,
            flag,
        }
    }

    #[test]
    fn path_says_what_is_meant() {
        assert_eq!(named(None, false, false).path("kill"), "/api/v1/kill");
        assert_eq!(
            named(Some("a b"), false, false).path("rearm"),
            "/api/v1/targets/a%20b/rearm"
        );
        assert_eq!(named(Some("a"), true, false).path("kill"), "/api/v1/routes/a/kill");
        assert_eq!(
            named(Some("a"), false, true).path("kill"),
            "/api/v1/feature-flags/a/kill"
        );
    }

    #[test]
    fn first_word_on_a_kill_is_that_it_is_in_force() {
        let target = Target {
            kind: TargetKind::Route,
            name: Some("whatsapp".into()),
            subject: None,
        };
        let warnings = vec!["neither the state file nor the kill journal has it yet".to_owned()];
        let killed = Killed {
            in_force: true,
            stored: false,
            journaled: false,
            changed: true,
            epoch: 2,
            target,
            warnings,
        };
        insta::assert_snapshot!(killed_text(&killed), @r"
        route whatsapp is killed: in force, NOT on disk yet (a restart loses it), epoch 2
          neither the state file nor the kill journal has it yet
        ");
        let killed = Killed {
            journaled: true,
            warnings: Vec::new(),
            ..killed
        };
        insta::assert_snapshot!(
            killed_text(&killed),
            @"route whatsapp is killed: in force, in the kill journal, NOT on disk in the state file yet (it survives a restart), epoch 2"
        );
    }
}
