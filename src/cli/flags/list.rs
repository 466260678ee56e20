//! `understudy flags list`: all flags, one on a line.

use std::process::ExitCode;

use clap::Args;
use clap::builder::PossibleValuesParser;
use comfy_table::{ContentArrangement, Table, presets};

use super::FLAGS;
use crate::admin::dto::{Flag, Flags};
use crate::cli::client::{CallError, Remote, segment};
use crate::cli::terminal::{Colour, Paint, WIDTH, counted, json, plain, print};
use crate::cli::{Output, OutputArgs};

/// The options of `understudy flags list`.
#[derive(Clone, Debug, Args)]
pub(in crate::cli) struct ListArgs {
    /// Only those with this in their name
    #[arg(value_name = "TEXT")]
    part: Option<String>,
    /// Only those of this type
    #[arg(long = "type", value_name = "TYPE")]
    kind: Option<String>,
    /// Only those with this status
    #[arg(long, value_name = "STATUS", ignore_case = true, value_parser = PossibleValuesParser::new(["ENABLED", "DISABLED", "PARTIAL"]))]
    status: Option<String>,
    /// Only those about which this source says something
    #[arg(long, value_name = "SOURCE", value_parser = PossibleValuesParser::new(["runtime", "file", "environment"]))]
    source: Option<String>,
    /// Only those that this owner answers for
    #[arg(long, value_name = "OWNER")]
    owner: Option<String>,
    #[command(flatten)]
    remote: Remote,
    #[command(flatten)]
    output: OutputArgs,
}

impl ListArgs {
    /// Asks and prints.
    pub fn execute(&self) -> ExitCode {
        let status = self.status.as_ref().map(|status| status.to_uppercase());
        let filters = [
            ("q", &self.part),
            ("type", &self.kind),
            ("status", &status),
            ("source", &self.source),
            ("owner", &self.owner),
        ];
        let filters = filters
            .into_iter()
            .filter_map(|(name, value)| Some(format!("&{name}={}", segment(value.as_ref()?))));
        let flags = match all(&self.remote, &filters.collect::<String>()) {
            Ok(flags) => flags,
            Err(error) => return error.report(),
        };
        print(&match self.output.output {
            Output::Json => json(&flags),
            Output::Table => text(&flags, Paint::for_stdout()),
        })
    }
}

/// All pages as one.
pub(super) fn all(remote: &Remote, filters: &str) -> Result<Flags, CallError> {
    let mut flags: Flags = remote.get(&format!("{FLAGS}?limit=1000{filters}"))?;
    while let Some(after) = flags.next.take() {
        let page: Flags = remote.get(&format!("{FLAGS}?limit=1000{filters}&after={}", segment(&after)))?;
        flags.items.extend(page.items);
        flags.next = page.next;
        flags.total = page.total;
        flags.revision = page.revision;
    }
    Ok(flags)
}

fn text(flags: &Flags, paint: Paint) -> String {
    if flags.items.is_empty() {
        return "no flag\n".to_owned();
    }
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_width(WIDTH as u16)
        .set_header(["FLAG", "TYPE", "STATUS", "PERCENT", "SAID BY", "OWNER"]);
    for flag in &flags.items {
        let status = if flag.killed {
            paint.paint(Colour::Red, "KILLED")
        } else {
            plain(&flag.status)
        };
        table.add_row([
            plain(&flag.name),
            plain(&flag.kind),
            status,
            flag.percentage
                .map(|percentage| percentage.to_string())
                .unwrap_or_default(),
            sources(flag),
            plain(member(flag, "owner").unwrap_or_default()),
        ]);
    }
    let lines: String = table.lines().map(|line| line.trim_end().to_owned() + "\n").collect();
    lines + &counted(flags.total as u64, "flag") + "\n"
}

/// Who says something about a flag, the strongest first.
fn sources(flag: &Flag) -> String {
    let known = ["runtime", "file", "environment"];
    let said = |source: &&&str| flag.members.iter().any(|member| member.source == **source);
    known.iter().filter(said).copied().collect::<Vec<_>>().join(", ")
}

/// The value of a member.
fn member<'f>(flag: &'f Flag, name: &str) -> Option<&'f str> {
    let found = flag.members.iter().find(|member| member.member == name)?;
    Some(&found.value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::dto::Member;

    #[test]
    fn flags_are_told_one_on_a_line() {
        let member = |member: &str, value: &str, source: &str| Member {
            member: member.into(),
            value: value.into(),
            source: source.into(),
            place: None,
        };
        let flag = |name: &str, status: &str, percentage, killed, members| Flag {
            name: name.into(),
            revision: 0,
            kind: "boolean".into(),
            status: status.into(),
            percentage,
            killed,
            members,
            runtime: None,
        };
        let flags = Flags {
            items: vec![
                flag(
                    "NEW_SHOP",
                    "PARTIAL",
                    Some(12.5),
                    false,
                    vec![
                        member("percentage", "12.5 %", "runtime"),
                        member("owner", "team-shop", "file"),
                    ],
                ),
                flag(
                    "OLD",
                    "ENABLED",
                    None,
                    true,
                    vec![member("enabled", "true", "environment")],
                ),
            ],
            next: None,
            total: 2,
            revision: 4,
        };
        insta::assert_snapshot!(text(&flags, Paint(false)), @r"
         FLAG      TYPE     STATUS   PERCENT  SAID BY        OWNER
         NEW_SHOP  boolean  PARTIAL  12.5     runtime, file  team-shop
         OLD       boolean  KILLED            environment
        2 flags
        ");
        assert_eq!(
            text(
                &Flags {
                    items: Vec::new(),
                    total: 0,
                    ..flags
                },
                Paint(false)
            ),
            "no flag\n"
        );
    }
}
