//! `understudy explain`: why a flag answers as it does for somebody, from the files and variables that a start would read.
//!
//! It walks the very lines that requests walk (`engine::explain`) and starts nothing. Kills live in an instance, not in
//! files: with `--admin` those of a running one are looked at too.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, BufWriter, Read as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use serde::Deserialize;

use super::client::{Admin, Remote, Secret};
use super::terminal::{json, plain, print, wrap};
use super::{BAD_INPUT, ConfigArgs, FAILED, Output, OutputArgs, check};
use crate::admin::dto::{Status, TargetKind};
use crate::app;
use crate::engine::explain::{Explanation, explain, record};
use crate::engine::flags::{Asked, Context, FlagKills, FlagRef, Flags};
use crate::engine::ruleset::Ruleset;
use crate::engine::ruleset::document::Instant;
use crate::engine::vocab::{FlagKey, SUBJECT_LIMIT_BYTES, SubjectHash};
use crate::store;
use crate::telemetry::clock;

/// The longest line of a requests file, in bytes.
const LINE_LIMIT_BYTES: u64 = 1024 * 1024;

/// The options of `understudy explain`.
#[derive(Clone, Debug, Args)]
pub(super) struct ExplainArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// The flag
    #[arg(long, value_name = "FLAG", conflicts_with = "requests", required_unless_present_any = ["subject", "requests"])]
    flag: Option<String>,
    /// For whom; alone, only the hash is printed under which logs show this subject
    #[arg(long, value_name = "SUBJECT", conflicts_with = "requests")]
    subject: Option<String>,
    /// What else is known, as a JSON object: {"country":"US","score":81}
    #[arg(long, value_name = "JSON", conflicts_with = "requests", requires = "flag", value_parser = attributes)]
    attributes: Option<Context>,
    /// When, as RFC 3339 with an offset; now, if left out
    #[arg(long, value_name = "TIME", value_parser = instant)]
    at: Option<i64>,
    /// JSON lines {"flag","targetingKey","attributes"?,"at"?} to be answered one by one; `-` is standard input
    #[arg(long, value_name = "FILE")]
    requests: Option<PathBuf>,
    /// Also look at the kills of this running instance
    #[arg(long, value_name = "URL", value_parser = Admin::parse)]
    admin: Option<Admin>,
    /// The token that opens it
    #[arg(long, value_name = "TOKEN", env = "UNDERSTUDY_TOKEN", hide_env_values = true, value_parser = Secret::parse)]
    token: Option<Secret>,
    #[command(flatten)]
    output: OutputArgs,
}

fn instant(text: &str) -> Result<i64, String> {
    let instant = Instant::parse(text).ok_or("write a date with time and offset, for example 2026-01-01T00:00:00Z")?;
    Ok(instant.0)
}

fn attributes(text: &str) -> Result<Context, String> {
    serde_json::from_str(text).map_err(|error| format!("{error}. write a JSON object, such as {{\"country\":\"US\"}}"))
}

/// The kills that concern flags.
#[derive(Debug, Default)]
struct Kills {
    everything: bool,
    flags: Vec<String>,
    /// Routes with the subjects held on them, as far as the status lists them.
    held: Vec<(String, Vec<String>)>,
}

impl Kills {
    fn of(status: &Status) -> Self {
        let flags = status.kills.iter().filter(|kill| kill.target.kind == TargetKind::Flag);
        Self {
            everything: status.kills.iter().any(|kill| kill.target.kind == TargetKind::All),
            flags: flags.filter_map(|kill| kill.target.name.clone()).collect(),
            held: status
                .routes
                .iter()
                .map(|route| (route.name.clone(), route.held.subjects.clone()))
                .collect(),
        }
    }

    /// The routes that keep this subject on legacy.
    fn holding(&self, subject: Option<SubjectHash>) -> Vec<&str> {
        let Some(subject) = subject.map(|subject| subject.to_string()) else {
            return Vec::new();
        };
        let held = self.held.iter().filter(|(_, subjects)| subjects.contains(&subject));
        held.map(|(route, _)| route.as_str()).collect()
    }

    /// The same for the flags that others ask.
    fn of_flags(&self, flags: &Flags) -> FlagKills {
        let places = self.flags.iter().filter_map(|key| flags.find(key));
        FlagKills::collect(self.everything, places.map(FlagRef::index))
    }

    fn cover(&self, flag: &str) -> bool {
        self.everything || self.flags.iter().any(|killed| killed == flag)
    }
}

impl ExplainArgs {
    /// Explains. Exit code 0: answered. 1: `--admin` did not answer. 2: the arguments, a line or the configuration are wrong.
    pub fn execute(&self) -> ExitCode {
        let compiled = match app::compile(&self.config.options()) {
            Ok(compiled) => compiled,
            Err(problems) => {
                eprint!("{}", check::text(&problems));
                return ExitCode::from(BAD_INPUT);
            }
        };
        let kills = match self.kills() {
            Ok(kills) => kills,
            Err(code) => return code,
        };
        let at = self.at.unwrap_or_else(clock::unix_ms);
        if let Some(requests) = &self.requests {
            return answer_all(requests, &compiled.rules, &kills, at);
        }
        let subject = self.subject.as_deref();
        if subject.is_some_and(|subject| subject.is_empty() || subject.len() > SUBJECT_LIMIT_BYTES) {
            eprintln!("a subject key has 1 to {SUBJECT_LIMIT_BYTES} bytes; anything else is no identity");
            return ExitCode::from(BAD_INPUT);
        }
        let hash = subject.and_then(|subject| {
            let key = store::read_hash_key(&compiled.config.state_path)?;
            Some(SubjectHash::of(&key, subject))
        });
        let Some(flag) = &self.flag else {
            return self.only_hash(hash, &compiled.config.state_path);
        };
        let key = match FlagKey::parse(flag) {
            Ok(key) => key,
            Err(error) => {
                eprintln!("--flag: {error}");
                return ExitCode::from(BAD_INPUT);
            }
        };
        let none = Context::default();
        let in_turn = kills.of_flags(compiled.rules.flags());
        let asked = Asked {
            attributes: self.attributes.as_ref().unwrap_or(&none),
            killed: kills.cover(flag),
            kills: &in_turn,
            ..Asked::new(subject, at)
        };
        let mut story = explain(&compiled.rules, &key, &asked);
        if self.admin.is_none() {
            not_looked_at(&mut story);
        }
        let held_on = kills.holding(hash);
        print(&match self.output.output {
            Output::Json => json(&Told {
                story: &story,
                subject_hash: hash.map(|hash| hash.to_string()),
                held_on: self.admin.is_some().then_some(held_on),
            }),
            Output::Table => text(&story, hash, self.admin.is_some().then_some(&held_on)),
        })
    }

    fn only_hash(&self, hash: Option<SubjectHash>, state: &Path) -> ExitCode {
        let Some(hash) = hash else {
            let state = state.display();
            eprintln!(
                "the secret beside {state} cannot be read, so there is no hash yet. start an instance once, or name its configuration"
            );
            return ExitCode::from(FAILED);
        };
        print(&match self.output.output {
            Output::Json => json(&serde_json::json!({ "subject_hash": hash.to_string() })),
            Output::Table => format!("{hash}\n"),
        })
    }

    fn kills(&self) -> Result<Kills, ExitCode> {
        let Some(admin) = &self.admin else {
            return Ok(Kills::default());
        };
        let remote = Remote {
            admin: admin.clone(),
            token: self.token.clone(),
        };
        remote
            .get::<Status>("/api/v1/status")
            .map(|status| Kills::of(&status))
            .map_err(|error| error.report())
    }
}

#[derive(serde::Serialize)]
struct Told<'a> {
    #[serde(flatten)]
    story: &'a Explanation,
    subject_hash: Option<String>,
    /// Absent where no instance was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    held_on: Option<Vec<&'a str>>,
}

/// Nobody said that it is not killed.
fn not_looked_at(story: &mut Explanation) {
    let lines = story.steps.iter_mut().filter(|step| step.line == 1 && !step.decided);
    lines.for_each(|step| step.found = "kills: not looked at".to_owned());
}

/// A line of a requests file.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RequestLine {
    flag: String,
    targeting_key: Option<String>,
    #[serde(default)]
    attributes: Context,
    at: Option<String>,
}

fn answer_all(requests: &Path, rules: &Ruleset, kills: &Kills, at: i64) -> ExitCode {
    let input: Box<dyn io::BufRead> = if requests == Path::new("-") {
        Box::new(io::stdin().lock())
    } else {
        match File::open(requests) {
            Ok(file) => Box::new(BufReader::new(file)),
            Err(error) => {
                eprintln!(
                    "{}: {error}. name a readable file of JSON lines, or `-`",
                    requests.display()
                );
                return ExitCode::from(BAD_INPUT);
            }
        }
    };
    let name = if requests == Path::new("-") {
        "standard input".to_owned()
    } else {
        requests.display().to_string()
    };
    match answer_lines(input, BufWriter::new(io::stdout().lock()), &name, rules, kills, at) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::from(BAD_INPUT),
        // Whoever reads the output has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{name}: {error}");
            ExitCode::from(FAILED)
        }
    }
}

/// Answers good lines, says on standard error what is wrong with bad ones, and gives their number.
fn answer_lines(
    mut input: impl io::BufRead,
    mut output: impl io::Write,
    name: &str,
    rules: &Ruleset,
    kills: &Kills,
    at: i64,
) -> io::Result<u64> {
    let in_turn = kills.of_flags(rules.flags());
    let mut bad = 0;
    let mut line = Vec::new();
    for number in 1_u64.. {
        line.clear();
        if input.by_ref().take(LINE_LIMIT_BYTES).read_until(b'\n', &mut line)? == 0 {
            break;
        }
        if line.trim_ascii().is_empty() {
            continue;
        }
        let answered = read_line(&line).and_then(|(request, line_at)| {
            let asked = Asked {
                attributes: &request.attributes,
                killed: kills.cover(&request.flag),
                kills: &in_turn,
                ..Asked::new(request.targeting_key.as_deref(), line_at.unwrap_or(at))
            };
            let answer = record(rules.flags(), &request.flag, &asked);
            serde_json::to_string(&answer).map_err(|error| error.to_string())
        });
        match answered {
            Ok(answer) => writeln!(output, "{answer}")?,
            Err(what) => {
                bad += 1;
                eprintln!("{name}:{number}: {}", plain(&what));
            }
        }
    }
    output.flush()?;
    Ok(bad)
}

fn read_line(line: &[u8]) -> Result<(RequestLine, Option<i64>), String> {
    if line.len() as u64 == LINE_LIMIT_BYTES {
        return Err("longer than 1 MiB. a line is one request".to_owned());
    }
    let mut request: RequestLine = serde_json::from_slice(line).map_err(|error| {
        let what = error.to_string();
        // The error counts lines within the one line that it was given.
        let what = what.rsplit_once(" at line ").map_or(what.as_str(), |(what, _)| what);
        format!(
            "column {}: {what}. a line is {{\"flag\":..,\"targetingKey\":..,\"attributes\"?:..,\"at\"?:..}}",
            error.column()
        )
    })?;
    let at = request
        .at
        .as_deref()
        .map(instant)
        .transpose()
        .map_err(|what| format!("`at`: {what}"))?;
    // As in a request: an empty or over-long value is no identity.
    request.targeting_key = request
        .targeting_key
        .filter(|key| !key.is_empty() && key.len() <= SUBJECT_LIMIT_BYTES);
    Ok((request, at))
}

// Writing to a text cannot fail.
fn text(story: &Explanation, hash: Option<SubjectHash>, held_on: Option<&Vec<&str>>) -> String {
    let mut text = String::new();
    let word = plain(&story.variant);
    let origin = story.origin.place.as_deref().unwrap_or(story.origin.source);
    let _ = writeln!(
        text,
        "{} is {word}: {}{} (line {}, set by {})",
        story.flag,
        story.reason,
        story
            .rule
            .as_deref()
            .map(|rule| format!(" by rule {}", plain(rule)))
            .unwrap_or_default(),
        story.line,
        plain(origin)
    );
    if let Some(hash) = hash {
        let _ = writeln!(text, "in logs this subject is {hash}");
    }
    for route in held_on.into_iter().flatten() {
        let route = plain(route);
        let _ = writeln!(
            text,
            "HELD on legacy on route {route}, whatever the flag says: understudy status --route {route}"
        );
    }
    let _ = writeln!(text, "\nlines asked");
    for step in &story.steps {
        let mark = if step.decided { '>' } else { ' ' };
        let _ = writeln!(
            text,
            "{}",
            wrap(&format!("{mark} {:>2}  {}", step.line, plain(&step.found)), 6)
        );
    }
    if !story.members.is_empty() {
        let _ = writeln!(text, "\nvalues");
    }
    for member in &story.members {
        let origin = member.origin.place.as_deref().unwrap_or(member.origin.source);
        let line = format!("  {:<18} {}  ({})", member.member, plain(&member.value), plain(origin));
        let _ = writeln!(text, "{}", wrap(&line, 21));
    }
    if !story.changes.is_empty() {
        let _ = writeln!(text, "\nwhat would change it");
    }
    for change in &story.changes {
        let _ = writeln!(text, "{}", wrap(&format!("  {}", plain(change)), 2));
    }
    if held_on.is_none() {
        let _ = writeln!(
            text,
            "\nkills and held subjects were not looked at: `--admin URL` asks a running instance (UNDERSTUDY_ADMIN alone does not)"
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_are_found_by_the_subjects_hash() {
        let kills = Kills {
            held: vec![
                ("shop".into(), vec!["h:00000000000000fe".into()]),
                ("rest".into(), Vec::new()),
            ],
            ..Kills::default()
        };
        assert_eq!(kills.holding(Some(SubjectHash(0xfe))), ["shop"]);
        assert!(kills.holding(Some(SubjectHash(0xff))).is_empty() && kills.holding(None).is_empty());
    }
}
