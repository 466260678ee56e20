//! `understudy divergences`: the last exchanges whose two answers differed.

use std::fmt::Write as _;
use std::process::ExitCode;

use clap::Args;

use super::client::{Remote, segment};
use super::terminal::{Colour, Paint, json, number, plain, print, wrap};
use super::{Output, OutputArgs};
use crate::admin::dto::{Diverged, Divergences};

/// The options of `understudy divergences`.
#[derive(Clone, Debug, Args)]
pub(super) struct DivergencesArgs {
    /// Of this route alone
    #[arg(long, value_name = "ROUTE")]
    route: Option<String>,
    /// How many exchanges
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=1_000))]
    limit: u64,
    /// Only those before this number: the next page
    #[arg(long, value_name = "SEQ")]
    before: Option<u64>,
    #[command(flatten)]
    remote: Remote,
    #[command(flatten)]
    output: OutputArgs,
}

impl DivergencesArgs {
    /// Asks and prints.
    pub fn execute(&self) -> ExitCode {
        let mut path = format!("/api/v1/divergences?limit={}", self.limit);
        if let Some(route) = &self.route {
            path += &format!("&route={}", segment(route));
        }
        if let Some(before) = self.before {
            path += &format!("&before={before}");
        }
        let divergences: Divergences = match self.remote.get(&path) {
            Ok(divergences) => divergences,
            Err(error) => return error.report(),
        };
        print(&match self.output.output {
            Output::Json => json(&divergences),
            Output::Table => text(&divergences, Paint::for_stdout()),
        })
    }
}

fn text(divergences: &Divergences, paint: Paint) -> String {
    if divergences.items.is_empty() {
        return "no two answers differed\n".to_owned();
    }
    let mut text = String::new();
    for diverged in &divergences.items {
        exchange(&mut text, diverged, paint);
    }
    if let Some(before) = divergences.next {
        let _ = writeln!(text, "older ones: --before {before}");
    }
    text
}

// Writing to a text cannot fail.
fn exchange(text: &mut String, diverged: &Diverged, paint: Paint) {
    let Diverged {
        seq,
        at,
        exchange,
        route,
        served,
        legacy_status,
        new_status,
        ..
    } = diverged;
    let colour = if diverged.worst == "critical" {
        Colour::Red
    } else {
        Colour::Yellow
    };
    let worst = paint.paint(colour, &plain(&diverged.worst));
    let subject = diverged.subject.as_deref().unwrap_or("nobody");
    let _ = writeln!(
        text,
        "#{seq} {worst}  {}  {}  served by {}",
        plain(route),
        plain(at),
        plain(served)
    );
    let statuses = format!("legacy {legacy_status}, new {new_status}");
    let _ = writeln!(
        text,
        "  {statuses}  subject {}  exchange {}",
        plain(subject),
        plain(exchange)
    );
    for place in &diverged.places {
        let shape = |shape: &Option<String>| plain(shape.as_deref().unwrap_or("nothing"));
        let line = format!(
            "    {:<8} {:<13} {}  {} → {}",
            plain(&place.severity),
            plain(&place.kind),
            plain(&place.pointer),
            shape(&place.legacy),
            shape(&place.new)
        );
        let _ = writeln!(text, "{}", wrap(&line, 8));
    }
    let left_out = diverged.total.saturating_sub(diverged.places.len());
    if left_out > 0 {
        let _ = writeln!(text, "    and {} more places", number(left_out as u64));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::dto::Place;

    #[test]
    fn exchange_is_told_place_by_place() {
        let place = Place {
            pointer: "/messages/0/id".into(),
            kind: "missing".into(),
            severity: "critical".into(),
            legacy: Some("text(12)".into()),
            new: None,
        };
        let diverged = Diverged {
            seq: 7,
            at: "2026-08-01T03:12:07Z".into(),
            exchange: "00000000000000000000000000000001".into(),
            route: "whatsapp".into(),
            subject: Some("h:00000000000000fe".into()),
            served: "legacy".into(),
            legacy_status: 200,
            new_status: 200,
            worst: "critical".into(),
            total: 3,
            places: vec![place],
        };
        let page = Divergences {
            items: vec![diverged],
            next: Some(7),
            remembered: 1_000,
        };
        insta::assert_snapshot!(text(&page, Paint(false)), @r"
        #7 critical  whatsapp  2026-08-01T03:12:07Z  served by legacy
          legacy 200, new 200  subject h:00000000000000fe  exchange 00000000000000000000000000000001
            critical missing       /messages/0/id  text(12) → nothing
            and 2 more places
        older ones: --before 7
        ");
    }
}
