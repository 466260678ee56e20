//! `understudy flags stats` and `understudy flags stale`: how flags are used, and which have served their time.

use std::fmt::Write as _;
use std::process::ExitCode;

use clap::Args;
use comfy_table::{ContentArrangement, Table, presets};

use super::FLAGS;
use super::named::Named;
use crate::admin::dto::{Analytics, StaleFlags};
use crate::cli::client::{CallError, Remote, segment};
use crate::cli::terminal::{WIDTH, counted, json, number, plain, print, wrap};
use crate::cli::{Output, OutputArgs};

/// How many hours a person is told of one by one.
const HOURS_SHOWN: usize = 24;

/// The options of `understudy flags stats`.
#[derive(Clone, Debug, Args)]
pub(in crate::cli) struct StatsArgs {
    #[command(flatten)]
    named: Named,
    /// Of the last so many days
    #[arg(long, value_name = "N", conflicts_with = "hours", value_parser = clap::value_parser!(u64).range(1..=31))]
    days: Option<u64>,
    /// Of the last so many hours; 24, if nothing is said
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=744))]
    hours: Option<u64>,
    /// From this instant on, as RFC 3339 with an offset
    #[arg(long, value_name = "TIME", conflicts_with_all = ["days", "hours"])]
    from: Option<String>,
    /// Until this instant
    #[arg(long, value_name = "TIME", requires = "from")]
    to: Option<String>,
    #[command(flatten)]
    remote: Remote,
    #[command(flatten)]
    output: OutputArgs,
}

impl StatsArgs {
    /// Asks and prints.
    pub fn execute(&self) -> ExitCode {
        let period = [
            ("days", self.days.map(|days| days.to_string())),
            ("hours", self.hours.map(|hours| hours.to_string())),
            ("from", self.from.clone()),
            ("to", self.to.clone()),
        ];
        let said = period
            .into_iter()
            .filter_map(|(name, value)| Some(format!("{name}={}", segment(&value?))));
        let path = format!("{}/analytics?{}", self.named.path(), said.collect::<Vec<_>>().join("&"));
        let analytics: Analytics = match self.remote.get(&path) {
            Ok(analytics) => analytics,
            Err(error) => return error.report(),
        };
        print(&match self.output.output {
            Output::Json => json(&analytics),
            Output::Table => stats_text(&analytics),
        })
    }
}

// Writing to a text cannot fail.
fn stats_text(of: &Analytics) -> String {
    let percent = |share: Option<f64>| share.map(|share| format!("{share:.2} %"));
    let mut text = format!(
        "{}: {} from {} to {}\n",
        plain(&of.flag),
        counted(of.total_evaluations, "evaluation"),
        plain(&of.from),
        plain(&of.to)
    );
    if let Some(share) = percent(of.enabled_percentage) {
        let _ = writeln!(
            text,
            "  on {}, off {}: {share} were on",
            number(of.enabled_count),
            number(of.disabled_count)
        );
    }
    if let Some(expected) = of.distribution.expected_percent {
        let observed = match percent(of.distribution.observed_percent) {
            Some(observed) => format!("{observed} of {} it decided", number(of.distribution.decided)),
            None => "it decided none".to_owned(),
        };
        let _ = writeln!(text, "  percentage: {expected} % is set, {observed}");
    }
    let last = of.last_seen.as_deref().unwrap_or("never");
    let _ = writeln!(
        text,
        "  asked last: {}; counted since {}",
        plain(last),
        plain(&of.counted_since)
    );
    if !of.hours.is_empty() {
        let newest = of
            .hours
            .get(of.hours.len().saturating_sub(HOURS_SHOWN)..)
            .unwrap_or_default();
        let rows = newest.iter().map(|hour| {
            let (on, off) = (number(hour.enabled_count), number(hour.disabled_count));
            [format!(" {}", plain(&hour.from)), on, off]
        });
        text += &table([" HOUR", "ON", "OFF"], rows);
        let left_out = of.hours.len() - newest.len();
        if left_out > 0 {
            let _ = writeln!(
                text,
                "  and {} before, see --output json",
                counted(left_out as u64, "hour")
            );
        }
    }
    text
}

fn table<const N: usize>(header: [&str; N], rows: impl Iterator<Item = [String; N]>) -> String {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_width(WIDTH as u16)
        .set_header(header);
    for row in rows {
        table.add_row(row);
    }
    table.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}

/// The options of `understudy flags stale`.
#[derive(Clone, Debug, Args)]
pub(in crate::cli) struct StaleArgs {
    /// Without a change for so many days; what `flags.stale_after` says, if left out
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    days: Option<u64>,
    #[command(flatten)]
    remote: Remote,
    #[command(flatten)]
    output: OutputArgs,
}

impl StaleArgs {
    /// Asks and prints.
    pub fn execute(&self) -> ExitCode {
        let stale = match all(&self.remote, self.days) {
            Ok(stale) => stale,
            Err(error) => return error.report(),
        };
        print(&match self.output.output {
            Output::Json => json(&stale),
            Output::Table => stale_text(&stale),
        })
    }
}

/// All pages as one.
fn all(remote: &Remote, days: Option<u64>) -> Result<StaleFlags, CallError> {
    let days = days.map(|days| format!("days={days}&")).unwrap_or_default();
    let mut stale: StaleFlags = remote.get(&format!("{FLAGS}/stale?{days}"))?;
    while let Some(after) = stale.next.take() {
        let page: StaleFlags = remote.get(&format!("{FLAGS}/stale?{days}after={}", segment(&after)))?;
        stale.items.extend(page.items);
        stale.next = page.next;
    }
    Ok(stale)
}

// Writing to a text cannot fail.
fn stale_text(stale: &StaleFlags) -> String {
    let days = counted(stale.after_days, "day");
    if stale.items.is_empty() {
        return format!("no flag has served its time ({days} without a change)\n");
    }
    let mut text = String::new();
    for of in &stale.items {
        let owner = of
            .owner
            .as_ref()
            .map(|owner| format!(", owner {owner}"))
            .unwrap_or_default();
        let line = format!("{}: {} since {}{owner}", of.flag, of.reason.replace('_', " "), of.since);
        let _ = writeln!(text, "{}", wrap(&plain(&line), 2));
        let _ = writeln!(text, "{}", wrap(&format!("  {}", plain(&of.remedy)), 2));
    }
    let _ = writeln!(text, "{}, after {days}", counted(stale.items.len() as u64, "finding"));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::dto::{Distribution, Hour, StaleFlag};

    #[test]
    fn statistics_are_told_in_few_lines() {
        let analytics = Analytics {
            flag: "checkout".into(),
            from: "2026-08-01T00:00:00Z".into(),
            to: "2026-08-08T00:00:00Z".into(),
            total_evaluations: 1_204,
            total_checks: 1_204,
            enabled_count: 602,
            disabled_count: 602,
            enabled_percentage: Some(50.0),
            exposure_rate: Some(0.5),
            last_seen: Some("2026-08-07T23:59:01Z".into()),
            counted_since: "2026-07-01T00:00:00Z".into(),
            distribution: Distribution {
                expected_percent: Some(50.0),
                observed_percent: Some(49.8),
                decided: 1_200,
            },
            hours: vec![Hour {
                from: "2026-08-07T23:00:00Z".into(),
                enabled_count: 602,
                disabled_count: 602,
            }],
        };
        insta::assert_snapshot!(stats_text(&analytics), @r"
        checkout: 1,204 evaluations from 2026-08-01T00:00:00Z to 2026-08-08T00:00:00Z
          on 602, off 602: 50.00 % were on
          percentage: 50 % is set, 49.80 % of 1,200 it decided
          asked last: 2026-08-07T23:59:01Z; counted since 2026-07-01T00:00:00Z
          HOUR                  ON   OFF
          2026-08-07T23:00:00Z  602  602
        ");
    }

    #[test]
    fn stale_flags_are_told_with_what_to_do() {
        let item = StaleFlag {
            flag: "old_banner".into(),
            reason: "always_off".into(),
            since: "2026-06-01T00:00:00Z".into(),
            owner: Some("team-shop".into()),
            remedy: "remove it".into(),
        };
        let mut stale = StaleFlags {
            items: vec![item],
            next: None,
            after_days: 30,
        };
        assert_eq!(
            stale_text(&stale),
            "old_banner: always off since 2026-06-01T00:00:00Z, owner team-shop\n  remove it\n1 finding, after 30 days\n"
        );
        stale.items.clear();
        assert_eq!(
            stale_text(&stale),
            "no flag has served its time (30 days without a change)\n"
        );
    }
}
