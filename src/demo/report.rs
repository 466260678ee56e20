//! The report at the end: the phases, the divergences by path, what each kill cost, and every promise.

use std::time::Duration;

use super::checks::Checks;
use super::operator::Seen;
use super::reply::PLANTED;
use super::stage::{Cost, Tale, Told};
use super::terminal::Terminal;

/// Prints the report.
pub fn print(terminal: &Terminal, tale: &Tale) {
    phases(terminal, &tale.phases);
    if let Some(seen) = &tale.last {
        divergences(terminal, seen);
    }
    kills(terminal, &tale.kills);
    promises(terminal, &tale.checks);
}

fn section(terminal: &Terminal, title: &str, table: &comfy_table::Table) {
    terminal.print(&format!("\n{title}\n\n{table}"));
}

fn phases(terminal: &Terminal, phases: &[Told]) {
    let header = [
        "phase",
        "on new",
        "mode",
        "seconds",
        "requests",
        "copied",
        "served by new",
        "compared",
        "diverged",
    ];
    let mut table = terminal.table(&header);
    for told in phases {
        let mode = match (told.phase.shadow, told.phase.dual_run) {
            (true, true) => "shadow, dual run",
            (true, false) => "shadow",
            (false, _) => "live",
        };
        table.add_row([
            told.phase.name.split("  ").next().unwrap_or_default().to_owned(),
            told.phase.who.words(),
            mode.to_owned(),
            format!("{:.1}", told.lasted.as_secs_f64()),
            told.requests.to_string(),
            told.copies.to_string(),
            told.served.to_string(),
            told.compared.to_string(),
            told.diverged.to_string(),
        ]);
    }
    section(terminal, "Phases", &table);
}

fn divergences(terminal: &Terminal, seen: &Seen) {
    let compared = &seen.route.compared;
    let mut table = terminal.table(&["path", "kind", "severity", "times", "why"]);
    for place in &compared.places {
        let planted = PLANTED
            .iter()
            .find(|bug| bug.path == place.path && bug.kind == place.kind);
        let why = planted.map_or("while new answered 401", |bug| bug.what);
        let times = place.count.to_string();
        table.add_row([place.path.as_str(), &place.kind, &place.severity, &times, why]);
    }
    let verdicts: Vec<String> = compared
        .verdicts
        .iter()
        .map(|(verdict, n)| format!("{n} {verdict}"))
        .collect();
    section(terminal, "Divergences by path", &table);
    terminal.print(&format!(
        "{}; {} differences at ignored paths",
        if verdicts.is_empty() {
            "nothing compared".to_owned()
        } else {
            verdicts.join(", ")
        },
        compared.suppressed
    ));
}

fn kills(terminal: &Terminal, kills: &[Cost]) {
    let header = [
        "kill",
        "fault",
        "found after",
        "failed by new",
        "failed over to legacy",
        "median wait before",
        "until the kill",
    ];
    let mut table = terminal.table(&header);
    for (at, cost) in kills.iter().enumerate() {
        let failover = match cost.failovers {
            0 => "none: legacy served".to_owned(),
            n => format!("{n} of {} shoppers", cost.shoppers),
        };
        table.add_row([
            (at + 1).to_string(),
            cost.fault.to_owned(),
            format!("{} ms", cost.after.as_millis()),
            format!("{} requests", cost.requests),
            failover,
            ms(cost.median_before),
            ms(cost.median_meanwhile),
        ]);
    }
    section(terminal, "What each kill cost", &table);
    for (at, cost) in kills.iter().enumerate() {
        terminal.print(&format!("{}: {}", at + 1, cost.kill.reason));
    }
}

fn ms(duration: Duration) -> String {
    format!("{:.1} ms", duration.as_secs_f64() * 1e3)
}

fn promises(terminal: &Terminal, checks: &Checks) {
    let mut table = terminal.table(&["", "promised", "detail"]);
    for (promise, seen) in checks.all() {
        let (Ok(detail) | Err(detail)) = seen;
        table.add_row([terminal.verdict(seen.is_ok()), promise.sentence(), detail]);
    }
    section(terminal, "Promises", &table);
}
