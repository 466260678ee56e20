//! `understudy flags show`: what is said about a flag, by whom, and its last changes.

use std::fmt::Write as _;
use std::process::ExitCode;

use clap::Args;
use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

use super::change::headline;
use super::named::Named;
use crate::admin::dto::{Flag, History};
use crate::cli::client::{CallError, Remote};
use crate::cli::terminal::{WIDTH, json, plain, print, wrap};
use crate::cli::{Output, OutputArgs};

/// The options of `understudy flags show`.
#[derive(Clone, Debug, Args)]
pub(in crate::cli) struct ShowArgs {
    #[command(flatten)]
    named: Named,
    /// How many of its last changes
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=999))]
    changes: u64,
    #[command(flatten)]
    remote: Remote,
    #[command(flatten)]
    output: OutputArgs,
}

/// The flag as the API gives it, with its history.
#[derive(Serialize)]
struct Shown {
    #[serde(flatten)]
    flag: Flag,
    history: History,
}

impl ShowArgs {
    /// Asks and prints. Exit code 2: nobody says anything about such a flag.
    pub fn execute(&self) -> ExitCode {
        let shown = match self.ask() {
            Ok(shown) => shown,
            Err(error) => return error.report(),
        };
        print(&match self.output.output {
            Output::Json => json(&shown),
            Output::Table => text(&shown),
        })
    }

    fn ask(&self) -> Result<Shown, CallError> {
        let path = self.named.path();
        Ok(Shown {
            flag: self.remote.get(&path)?,
            history: self.remote.get(&format!("{path}/history?limit={}", self.changes))?,
        })
    }
}

// Writing to a text cannot fail.
fn text(shown: &Shown) -> String {
    let mut text = headline(&shown.flag) + "\n";
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_width(WIDTH as u16)
        .set_header(["MEMBER", "VALUE", "SAID BY", ""]);
    for member in &shown.flag.members {
        table.add_row(
            [
                &member.member,
                &member.value,
                &member.source,
                member.place.as_ref().unwrap_or(&String::new()),
            ]
            .map(|cell| plain(cell)),
        );
    }
    for line in table.lines() {
        let _ = writeln!(text, "{}", line.trim_end());
    }
    if let Some(runtime) = &shown.flag.runtime {
        let _ = writeln!(
            text,
            "{}",
            wrap(&format!("said at run time: {}", plain(runtime.get())), 2)
        );
    }
    for change in &shown.history.items {
        let reason = if change.reason.is_empty() {
            String::new()
        } else {
            format!(": {}", change.reason)
        };
        let line = format!(
            "#{} {} {} by {}{reason}",
            change.revision, change.at, change.action, change.actor
        );
        let _ = writeln!(text, "{}", wrap(&plain(&line), 2));
    }
    if shown.history.next.is_some() {
        text += "older ones: --changes N\n";
    }
    text
}
