//! `understudy status`: first the worst thing in words, then a line per route, then details for whoever asks.
//!
//! In: the status as the API gives it. Out: text of at most 100 columns. All times are told as seen from the instance, so
//! the output depends on nothing but its input.

mod details;
mod headline;
#[cfg(test)]
mod tests;

use std::fmt::Write as _;
use std::process::ExitCode;

use clap::Args;
use comfy_table::{ContentArrangement, Row, Table, presets};

use super::client::Remote;
use super::terminal::{Colour, Paint, WIDTH, counted, json, number, plain, print, short, shortened, span, wrap};
use super::{BAD_INPUT, Output, OutputArgs};
use crate::admin::dto::{Budget, KILL_SWITCH, Route, Status};

/// Headlines that follow the first.
const ALSO: usize = 8;

/// The options of `understudy status`.
#[derive(Clone, Debug, Args)]
pub(super) struct StatusArgs {
    /// Everything about every route
    #[arg(long, short)]
    details: bool,
    /// Everything about this route
    #[arg(long, value_name = "ROUTE")]
    route: Option<String>,
    #[command(flatten)]
    remote: Remote,
    #[command(flatten)]
    output: OutputArgs,
}

impl StatusArgs {
    /// Asks and prints. Exit code 0: it was told, however bad it is.
    pub fn execute(&self) -> ExitCode {
        let status: Status = match self.remote.get("/api/v1/status") {
            Ok(status) => status,
            Err(error) => return error.report(),
        };
        if let Some(name) = &self.route
            && !status.routes.iter().any(|route| route.name == *name)
        {
            let names: Vec<&str> = status.routes.iter().map(|route| route.name.as_str()).collect();
            eprintln!(
                "no route is named {}. there are {}",
                plain(name),
                plain(&names.join(", "))
            );
            return ExitCode::from(BAD_INPUT);
        }
        print(&match self.output.output {
            Output::Json => json(&status),
            Output::Table => {
                let shown = match (&self.route, self.details) {
                    (Some(name), _) => Details::One(name),
                    (None, true) => Details::All,
                    (None, false) => Details::None,
                };
                text(&status, shown, Paint::for_stdout())
            }
        })
    }
}

/// Which routes are told in full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Details<'a> {
    All,
    None,
    One(&'a str),
}

// Writing to a text cannot fail.
fn text(status: &Status, details: Details<'_>, paint: Paint) -> String {
    let mut text = String::new();
    let mut headlines = headline::headlines(status).into_iter();
    if let Some(worst) = headlines.next() {
        let _ = writeln!(
            text,
            "{}",
            paint.paint(worst.level.colour(), &wrap(&plain(&worst.text), 2))
        );
        command(&mut text, worst.command.as_deref(), 2);
    }
    let left_out = headlines.len().saturating_sub(ALSO);
    for headline in headlines.take(ALSO) {
        let _ = writeln!(text, "{}", wrap(&format!("  also: {}", plain(&headline.text)), 8));
        command(&mut text, headline.command.as_deref(), 8);
    }
    if left_out > 0 {
        let _ = writeln!(text, "  and {left_out} more, see --output json");
    }
    let revision = status
        .rules
        .revision
        .map_or("none".to_owned(), |revision| revision.to_string());
    let _ = writeln!(
        text,
        "understudy {}, rules {revision} ({}), up {}, {}\n",
        plain(&status.version),
        plain(&status.rules.environment),
        span(&status.started_at, &status.at),
        counted(status.process.connections as u64, "connection"),
    );
    if !status.routes.is_empty() {
        let _ = writeln!(text, "{}", table(status, paint));
    }
    let unrouted = status
        .unrouted
        .assigned
        .legacy
        .saturating_add(status.unrouted.assigned.new);
    if unrouted > 0 {
        let _ = writeln!(text, "{} of no route went to legacy", counted(unrouted, "request"));
    }
    for route in &status.routes {
        match details {
            Details::One(name) if name != route.name => continue,
            Details::None => continue,
            Details::All | Details::One(_) => text.push_str(&details::route(route, &status.at, paint)),
        }
    }
    if details == Details::None
        && let Some(first) = status.routes.first()
    {
        let _ = writeln!(text, "more: understudy status --route {}", plain(&first.name));
    }
    text
}

/// What to type, on a line of its own that is not broken.
fn command(text: &mut String, command: Option<&str>, indent: usize) {
    if let Some(command) = command {
        let _ = writeln!(text, "{:indent$}{}", "", plain(command));
    }
}

/// The columns of the table.
const COLUMNS: [&str; 8] = [
    "ROUTE",
    "SERVES",
    "REQS",
    "BY NEW",
    "KILLED BY",
    "FAILOVERS",
    "DIVERGED",
    "BUDGETS",
];

/// Columns that may give way to others where no route has anything to say in them.
const MAY_GIVE_WAY: [&str; 3] = ["KILLED BY", "FAILOVERS", "DIVERGED"];

/// One line per route, whatever is cut: the details have the rest.
fn table(status: &Status, paint: Paint) -> String {
    let cells = |route: &Route| {
        [
            plain(&route.name),
            plain(&serves(route)),
            short(requests(route)),
            by_new(route),
            killed(route, &status.at),
            short(route.traffic.failovers.values().sum()),
            diverged(route),
            budgets(route),
        ]
    };
    let rows: Vec<_> = status.routes.iter().map(cells).collect();
    let width = |at: usize| {
        let cells = rows.iter().map(|row| row[at].chars().count());
        cells.chain([COLUMNS[at].len()]).max().unwrap_or(0) + 2
    };
    let mut shown: Vec<usize> = (0..COLUMNS.len()).collect();
    for name in MAY_GIVE_WAY {
        let wide = shown.iter().map(|at| width(*at)).sum::<usize>() > WIDTH + 2;
        let says_nothing = |at: usize| rows.iter().all(|row| matches!(row[at].as_str(), "-" | "0"));
        shown.retain(|at| COLUMNS[*at] != name || !wide || !says_nothing(*at));
    }
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_truncation_indicator("…")
        .set_width(u16::try_from(WIDTH).unwrap_or(u16::MAX))
        .set_header(shown.iter().map(|at| COLUMNS[*at]));
    if !paint.0 {
        table.force_no_tty();
    }
    for cells in &rows {
        let mut row = Row::from(shown.iter().map(|at| cells[*at].as_str()).collect::<Vec<_>>());
        row.max_height(1);
        table.add_row(row);
    }
    let last = table.column_count().saturating_sub(1);
    for (at, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, if at == last { 0 } else { 2 }));
    }
    table.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}

fn serves(route: &Route) -> String {
    // Why it is killed stands above, and by whom beside.
    if route.killed_by.is_empty() && !route.serves.why.starts_with(KILL_SWITCH) {
        // That it is shadow mode goes without saying: they are copied.
        let why = &route.serves.why;
        format!(
            "{}: {}",
            route.serves.by,
            why.strip_prefix("shadow mode; ").unwrap_or(why)
        )
    } else {
        let copied = route
            .serves
            .why
            .split_once("; ")
            .map(|(_, copied)| format!(": {copied}"));
        route.serves.by.clone() + &copied.unwrap_or_default()
    }
}

fn requests(route: &Route) -> u64 {
    route.traffic.assigned.legacy.saturating_add(route.traffic.assigned.new)
}

/// The share of requests so far.
fn by_new(route: &Route) -> String {
    match requests(route) {
        0 => "-".to_owned(),
        all => share(route.traffic.assigned.new, all),
    }
}

/// A part of a whole in percent, with a decimal below ten; never 0 % or 100 % unless it is.
fn share(part: u64, all: u64) -> String {
    let tenths = u128::from(part) * 1_000 / u128::from(all.max(1));
    match tenths {
        0 if part > 0 => "<0.1 %".to_owned(),
        1..=99 => format!("{}.{} %", tenths / 10, tenths % 10),
        _ => format!("{} %", tenths / 10),
    }
}

fn killed(route: &Route, at: &str) -> String {
    // The kill of everything stands first, then the flag's, then the route's own.
    let kill = route
        .killed_by
        .first()
        .map(|kill| format!("{}, {}", plain(&kill.actor), span(&kill.since, at)));
    let metadata = route.serves.why.starts_with(KILL_SWITCH);
    let kill = kill.or_else(|| metadata.then(|| KILL_SWITCH.to_owned()));
    let held = (route.held.count > 0).then(|| format!("{} held", short(route.held.count as u64)));
    let words: Vec<String> = kill.into_iter().chain(held).collect();
    if words.is_empty() {
        "-".to_owned()
    } else {
        words.join(" +")
    }
}

fn diverged(route: &Route) -> String {
    let compared = &route.compared;
    if compared.verdicts.values().sum::<u64>() == 0 {
        return "-".to_owned();
    }
    let all = short(compared.severities.values().sum());
    match compared.severities.get("critical") {
        Some(critical) => format!("{all} ({} crit)", short(*critical)),
        None => all,
    }
}

/// The budget that is nearest to its end, and how many more there are.
fn budgets(route: &Route) -> String {
    let budgets = route.guard.iter().flat_map(|guard| &guard.budgets);
    let Some(guard) = &route.guard else {
        return "-".to_owned();
    };
    let rank = |budget: &&Budget| match (budget.state.as_str(), used_up(budget)) {
        ("tripped", _) => (3, 0),
        ("watching", percent) if percent > 0 => (2, percent),
        ("collecting", _) => (1, 1),
        ("watching", _) => (1, 0),
        _ => (0, 0),
    };
    let more = budgets.clone().count().saturating_sub(1);
    let Some(worst) = budgets.rev().max_by_key(rank) else {
        return "none".to_owned();
    };
    let more = if more == 0 { String::new() } else { format!(" +{more}") };
    let name = plain(&worst.name);
    match worst.state.as_str() {
        "collecting" | "watching" if guard.new_unseen > 0 => {
            format!("{name} blind to {}{more}", short(guard.new_unseen))
        }
        "collecting" if guard.new_served > 0 && worst.have == Some(0) => format!("{name} no evidence{more}"),
        _ => format!("{name} {}{more}", state(worst)),
    }
}

/// Where a budget stands, in a few characters.
fn state(budget: &Budget) -> String {
    match (budget.state.as_str(), budget.have.zip(budget.need)) {
        ("collecting", Some((have, need))) => format!("collecting {}/{}", short(have), short(need)),
        ("watching", _) => match used_up(budget) {
            0 => "watching".to_owned(),
            percent => format!("at {percent} %"),
        },
        (word, _) => plain(word),
    }
}

/// How much of a budget is used up, in percent of its evidence.
fn used_up(budget: &Budget) -> u64 {
    let percents = [budget.path, budget.subjects].into_iter().flatten().map(|evidence| {
        let percent = evidence.value / evidence.threshold * 100.0;
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "clamped to 0 to 100"
        )]
        let whole = percent.clamp(0.0, 100.0) as u64;
        whole
    });
    percents.max().unwrap_or(0)
}
