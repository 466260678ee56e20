//! `understudy audit`: who did what, when, why and from where; and whether anybody has changed the record of it since.

use std::fmt::Write as _;
use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::client::{Remote, segment};
use super::terminal::{counted, json, plain, print, wrap};
use super::{FAILED, Output, OutputArgs};
use crate::admin::dto::{Audit, Verified};

/// The options of `understudy audit`.
#[derive(Clone, Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct AuditArgs {
    #[command(subcommand)]
    verb: Option<AuditVerb>,
    /// How many records
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=999))]
    limit: u64,
    /// Only those before this number: the next page
    #[arg(long, value_name = "SEQ")]
    before: Option<u64>,
    /// Only by this actor
    #[arg(long, value_name = "NAME")]
    actor: Option<String>,
    /// Only this action: kill, rearm, create, put, patch, delete, rollback, reload, refused and so on
    #[arg(long, value_name = "ACTION")]
    action: Option<String>,
    /// Only about this target, such as all, rules, route:NAME or flag:NAME
    #[arg(long, value_name = "TARGET")]
    target: Option<String>,
    /// Only about this flag
    #[arg(long, value_name = "FLAG", conflicts_with_all = ["target", "route"])]
    flag: Option<String>,
    /// Only about this route
    #[arg(long, value_name = "ROUTE", conflicts_with = "target")]
    route: Option<String>,
    /// Only from this instant on, as RFC 3339 with an offset
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only before this instant
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    #[command(flatten)]
    remote: Remote,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Clone, Debug, Subcommand)]
enum AuditVerb {
    /// Walk along the chain of hashes: is every record as it was written, and is none missing?
    Verify(VerifyArgs),
}

#[derive(Clone, Debug, Args)]
struct VerifyArgs {
    #[command(flatten)]
    remote: Remote,
    #[command(flatten)]
    output: OutputArgs,
}

impl AuditArgs {
    /// Asks and prints. Of `verify`: exit code 0 if every record is as it was written, else 1.
    pub fn execute(&self) -> ExitCode {
        if let Some(AuditVerb::Verify(verify)) = &self.verb {
            return verify.execute();
        }
        let target = match (&self.flag, &self.route, &self.target) {
            (Some(flag), ..) => Some(format!("flag:{flag}")),
            (_, Some(route), _) => Some(format!("route:{route}")),
            (.., target) => target.clone(),
        };
        let before = self.before.map(|before| before.to_string());
        let filters = [
            ("before", &before),
            ("actor", &self.actor),
            ("action", &self.action),
            ("target", &target),
            ("since", &self.since),
            ("until", &self.until),
        ];
        let mut path = format!("/api/v1/audit?limit={}", self.limit);
        for (name, value) in filters {
            if let Some(value) = value {
                path += &format!("&{name}={}", segment(value));
            }
        }
        let audit: Audit = match self.remote.get(&path) {
            Ok(audit) => audit,
            Err(error) => return error.report(),
        };
        print(&match self.output.output {
            Output::Json => json(&audit),
            Output::Table => text(&audit),
        })
    }
}

impl VerifyArgs {
    fn execute(&self) -> ExitCode {
        let verified: Verified = match self.remote.get("/api/v1/audit/verify") {
            Ok(verified) => verified,
            Err(error) => return error.report(),
        };
        let printed = print(&match self.output.output {
            Output::Json => json(&verified),
            Output::Table => verified_text(&verified),
        });
        if verified.whole {
            printed
        } else {
            ExitCode::from(FAILED)
        }
    }
}

fn verified_text(verified: &Verified) -> String {
    match verified.broken_at {
        _ if verified.whole => format!(
            "whole: {}, each as it was written\n",
            counted(verified.records.unwrap_or_default(), "record")
        ),
        Some(at) => format!("BROKEN at record {at}: it, or the one before it, is not what was written\n"),
        None => "BROKEN\n".to_owned(),
    }
}

// Writing to a text cannot fail.
fn text(audit: &Audit) -> String {
    if audit.items.is_empty() {
        return "nothing was done that fits\n".to_owned();
    }
    let mut text = String::new();
    for record in &audit.items {
        let role = record
            .role
            .as_ref()
            .map(|role| format!(" ({role})"))
            .unwrap_or_default();
        let from = record
            .from
            .as_ref()
            .map(|from| format!(" from {from}"))
            .unwrap_or_default();
        let line = format!(
            "#{} {}  {} {}  by {}{role}{from}",
            record.seq, record.at, record.action, record.target, record.actor
        );
        let _ = writeln!(text, "{}", wrap(&plain(&line), 4));
        if !record.reason.is_empty() {
            let _ = writeln!(text, "{}", wrap(&format!("    {}", plain(&record.reason)), 4));
        }
        if record.before.is_some() || record.after.is_some() {
            let shown = |body: &Option<Box<serde_json::value::RawValue>>| {
                body.as_ref().map_or("nothing".to_owned(), |body| plain(body.get()))
            };
            let line = format!("    {} → {}", shown(&record.before), shown(&record.after));
            let _ = writeln!(text, "{}", wrap(&line, 4));
        }
    }
    if let Some(before) = audit.next {
        let _ = writeln!(text, "older ones: --before {before}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdict_of_a_chain_says_where_it_breaks() {
        let verified = |whole, records, broken_at| {
            verified_text(&Verified {
                whole,
                records,
                broken_at,
            })
        };
        assert_eq!(
            verified(true, Some(1_204), None),
            "whole: 1,204 records, each as it was written\n"
        );
        assert!(verified(false, None, Some(7)).starts_with("BROKEN at record 7"));
    }
}
