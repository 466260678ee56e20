//! Everything about one route, in lines with a word in front.
//!
//! Pure.

use std::fmt::Write as _;

use super::{Colour, Paint, by_new, number, plain, span, state, wrap};
use crate::admin::dto::{Budget, Copied, Counts, Latency, PerSide, Route};

/// Where the values begin.
const INDENT: usize = 16;

struct Lines(String);

impl Lines {
    fn add(&mut self, word: &str, value: &str) {
        if !value.is_empty() {
            let width = INDENT - 2;
            // Writing to a text cannot fail.
            let _ = writeln!(self.0, "{}", wrap(&format!("  {word:<width$}{value}"), INDENT));
        }
    }
}

/// The lines of one route.
pub(super) fn route(route: &Route, at: &str, paint: Paint) -> String {
    let title = format!("\n{}  {}", plain(&route.name), plain(&route.path));
    let mut lines = Lines(paint.paint(Colour::Bold, &title) + "\n");
    let serves = &route.serves;
    let flag = serves
        .flag
        .as_ref()
        .map_or("a constant decides".to_owned(), |flag| format!("flag {}", plain(flag)));
    let share = serves
        .percent
        .map_or(String::new(), |percent| format!(", {percent} % of subjects on new"));
    lines.add("serves", &format!("{}: {}{share}", serves.by, plain(&serves.why)));
    lines.add(
        "",
        &format!(
            "{flag}, shadow mode {}, epoch {} (one more after each re-arm)",
            serves.shadow_mode, route.epoch
        ),
    );
    for kill in &route.killed_by {
        let ago = span(&kill.since, at);
        let who = format!("{} by {}, {ago} ago ({})", kill.target, kill.actor, kill.since);
        lines.add("killed", &plain(&format!("{who}: {}", kill.reason)));
    }
    held(route, &mut lines);
    traffic(route, &mut lines);
    compared(route, &mut lines);
    lines.add("latency", &sides(&route.latency, latency));
    if let Some(guard) = &route.guard {
        if guard.new_unseen > 0 {
            let unseen = format!(
                "{} of the {} that new served failed, and legacy was not asked: no budget sees them",
                number(guard.new_unseen),
                number(guard.new_served)
            );
            lines.add("blind", &unseen);
        }
        for known in &guard.budgets {
            budget(known, &mut lines);
        }
    }
    lines.0
}

fn held(route: &Route, lines: &mut Lines) {
    if route.held.count > 0 {
        let count = number(route.held.count as u64);
        lines.add("held", &format!("{count}: {}", plain(&route.held.subjects.join(" "))));
    }
}

fn traffic(route: &Route, lines: &mut Lines) {
    let traffic = &route.traffic;
    let assigned = traffic.assigned;
    let split = format!("legacy {}, new {}", number(assigned.legacy), number(assigned.new));
    lines.add("requests", &format!("{split} ({} by new)", by_new(route)));
    lines.add("decided by", &counts(&traffic.reasons));
    lines.add("answered", &sides(&traffic.answered, counts));
    lines.add("failed", &sides(&traffic.failed, counts));
    lines.add("failovers", &counts(&traffic.failovers));
    lines.add("copies", &sides(&traffic.copies, copied));
    lines.add("made answers", &counts(&traffic.made));
    lines.add("no identity", &counts(&traffic.without_identity));
}

fn compared(route: &Route, lines: &mut Lines) {
    let compared = &route.compared;
    lines.add("compared", &counts(&compared.verdicts));
    lines.add("not compared", &counts(&compared.not_compared));
    let severities = ["critical", "major", "minor"].iter().filter_map(|severity| {
        let count = compared.severities.get(*severity)?;
        Some(format!("{severity} {}", number(*count)))
    });
    lines.add("diverged", &severities.collect::<Vec<_>>().join(", "));
    for (at, place) in compared.places.iter().enumerate() {
        let word = if at == 0 { "places" } else { "" };
        let line = format!(
            "{:>6}  {:<8} {:<13} {}",
            number(place.count),
            place.severity,
            place.kind,
            place.path
        );
        lines.add(word, &plain(&line));
    }
    let more = compared.places_total.saturating_sub(compared.places.len());
    if more > 0 {
        lines.add("", &format!("and {more} more places"));
    }
    if compared.elsewhere > 0 {
        lines.add(
            "",
            &format!(
                "{} divergences at places that are not counted one by one",
                number(compared.elsewhere)
            ),
        );
    }
    if compared.suppressed > 0 {
        lines.add(
            "ignored",
            &format!("{} differences hidden by `ignore`", number(compared.suppressed)),
        );
    }
}

fn budget(budget: &Budget, lines: &mut Lines) {
    let Budget {
        name,
        metric,
        tolerate,
        action,
        sight_detail,
        ..
    } = budget;
    let asked = format!("{name}: {metric}, {tolerate}, {action}");
    lines.add("budget", &plain(&format!("{asked}; {}", state(budget))));
    let numbers = format!(
        "new bad {}, legacy bad {}, of all requests; judged: {} pairs and {} failovers",
        number(budget.new_failed),
        number(budget.legacy_failed),
        number(budget.pairs),
        number(budget.failovers)
    );
    let evidence = [("new", budget.path), ("few subjects", budget.subjects)];
    let evidence = evidence.into_iter().filter_map(|(against, evidence)| {
        let evidence = evidence?;
        Some(format!(
            "; evidence against {against}: {:.1} of {:.0}",
            evidence.value, evidence.threshold
        ))
    });
    lines.add("", &(numbers + &evidence.collect::<String>()));
    let bad = if metric.starts_with("latency") {
        "bad: failed, or slower than the tolerance makes of legacy's median"
    } else {
        "bad: failed, or of a worse status class than the other side's answer"
    };
    lines.add("", bad);
    lines.add("", &plain(sight_detail));
}

fn counts(counts: &Counts) -> String {
    let mut sorted: Vec<_> = counts.iter().collect();
    sorted.sort_by_key(|(word, count)| (std::cmp::Reverse(**count), word.as_str()));
    let words: Vec<String> = sorted
        .into_iter()
        .map(|(word, count)| format!("{} {}", plain(word), number(*count)))
        .collect();
    words.join(", ")
}

fn copied(copied: &Copied) -> String {
    let skipped = counts(&copied.skipped);
    match (copied.sent, skipped.is_empty()) {
        (0, true) => String::new(),
        (sent, true) => format!("{} sent", number(sent)),
        (sent, false) => format!("{} sent, not sent: {skipped}", number(sent)),
    }
}

fn latency(latency: &Latency) -> String {
    let pairs = latency
        .pairs_p50_ms
        .map(|ms| format!("median {ms:.1} ms in recent pairs"));
    let all = latency
        .all_p50_at_most_ms
        .map(|ms| format!("half of all since the start within {ms} ms"));
    [pairs, all].into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// Both sides' texts; a side without one is left out.
fn sides<T>(of: &PerSide<T>, tell: impl Fn(&T) -> String) -> String {
    let sides = [("legacy", tell(&of.legacy)), ("new", tell(&of.new))];
    let told: Vec<String> = sides
        .into_iter()
        .filter(|(_, text)| !text.is_empty())
        .map(|(side, text)| format!("{side}: {text}"))
        .collect();
    told.join("; ")
}
