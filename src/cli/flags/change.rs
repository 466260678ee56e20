//! What every change of a flag has in common: why, whether it is only tried, and what is said when it is done.

use std::fmt::Write as _;
use std::process::ExitCode;

use clap::Args;
use http::Method;

use super::named::Named;
use crate::admin::dto::{Changed, Flag, WhatIf};
use crate::cli::client::{CallError, Remote, segment};
use crate::cli::terminal::{counted, json, number, plain, print, wrap};
use crate::cli::{Output, OutputArgs};

/// The options of every change.
#[derive(Clone, Debug, Args)]
pub(super) struct ChangeArgs {
    /// Why, for the history and the audit trail
    #[arg(long, short, value_name = "TEXT")]
    reason: Option<String>,
    /// Do everything but change anything, and say what would be
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    pub remote: Remote,
    #[command(flatten)]
    output: OutputArgs,
}

impl ChangeArgs {
    /// Asks for a change and tells what came of it.
    pub fn execute(&self, method: Method, path: &str, revision: Option<u64>, body: String) -> ExitCode {
        match self.ask(method, path, revision, body) {
            Ok(changed) => self.tell(&changed),
            Err(error) => error.report(),
        }
    }

    /// Asks for a change.
    pub fn ask(&self, method: Method, path: &str, revision: Option<u64>, body: String) -> Result<Changed, CallError> {
        let mut query = Vec::new();
        if let Some(reason) = &self.reason {
            query.push(format!("reason={}", segment(reason)));
        }
        if self.dry_run {
            query.push("dry_run=true".to_owned());
        }
        let joint = if path.contains('?') { '&' } else { '?' };
        let path = if query.is_empty() {
            path.to_owned()
        } else {
            format!("{path}{joint}{}", query.join("&"))
        };
        self.remote.change(method, &path, revision, body)
    }

    /// Prints what came of it.
    pub fn tell(&self, changed: &Changed) -> ExitCode {
        print(&match self.output.output {
            Output::Json => json(changed),
            Output::Table => text(changed),
        })
    }
}

/// What a flag is now, in one line, and what should be known besides.
fn text(changed: &Changed) -> String {
    let mut text = match (changed.changed, changed.dry_run) {
        (false, _) => "nothing to change: ".to_owned(),
        (true, true) => "it would be: ".to_owned(),
        (true, false) => String::new(),
    };
    match &changed.flag {
        Some(flag) => text += &headline(flag),
        None => text += "no source says anything about it any more",
    }
    text.push('\n');
    for warning in &changed.warnings {
        // A text takes whatever is written to it.
        let _ = writeln!(text, "{}", wrap(&format!("  warning: {}", plain(warning)), 4));
    }
    if let Some(what_if) = &changed.what_if {
        text += &moves(what_if);
    }
    text
}

/// Who would move, told by requests as they came lately.
fn moves(what_if: &WhatIf) -> String {
    let mut text = String::new();
    for trap in &what_if.traps {
        // A text takes whatever is written to it.
        let _ = writeln!(text, "{}", wrap(&format!("  TRAP: {}", plain(trap)), 4));
    }
    if what_if.routes.is_empty() {
        text += "  nobody asked lately, so who would move is not known\n";
    }
    for of in &what_if.routes {
        let (served, load) = (&of.served_by_new_percent, &of.load_on_new_percent);
        let line = format!(
            "  route {}: of {} in the last {}, {} to new and {} to legacy; new serves {:.1} → {:.1} % and is asked {:.1} → {:.1} %",
            plain(&of.route),
            counted(of.subjects as u64, "subject"),
            counted(of.requests as u64, "request"),
            number(of.to_new.subjects as u64),
            number(of.to_legacy.subjects as u64),
            served.before,
            served.after,
            load.before,
            load.after,
        );
        let _ = writeln!(text, "{}", wrap(&line, 4));
        if of.unknown > 0 {
            let _ = writeln!(
                text,
                "    of {} nothing can be said",
                counted(of.unknown as u64, "request")
            );
        }
    }
    text
}

/// A flag in one line: `checkout: percentage, PARTIAL, 25 %, revision 4`.
pub(super) fn headline(flag: &Flag) -> String {
    let mut parts = vec![plain(&flag.kind), plain(&flag.status)];
    if let Some(percentage) = flag.percentage {
        parts.push(format!("{percentage} %"));
    }
    if flag.killed {
        parts.push("KILLED".to_owned());
    }
    if flag.revision > 0 {
        parts.push(format!("revision {}", flag.revision));
    }
    format!("{}: {}", plain(&flag.name), parts.join(", "))
}

/// The options of `understudy rollback`.
#[derive(Clone, Debug, Args)]
pub(in crate::cli) struct RollbackArgs {
    #[command(flatten)]
    named: Named,
    #[command(flatten)]
    change: ChangeArgs,
}

impl RollbackArgs {
    /// Takes back the last change. Exit code 0: in force and on disk, or nothing to do. 1: refused.
    pub fn execute(&self) -> ExitCode {
        let path = format!("{}/rollback", self.named.path());
        self.change.execute(Method::POST, &path, None, "{}".to_owned())
    }
}
