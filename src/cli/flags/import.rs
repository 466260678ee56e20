//! `understudy flags import`: a flag file from what another system wrote. Needs no instance.
//!
//! In: a file. Out: the flag file, on standard output or in a file of its own, and on standard error a line for everything that
//! does not mean the same. What means what belongs to `engine`.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, ValueEnum};

use crate::cli::terminal::{counted, plain, print};
use crate::cli::{BAD_INPUT, FAILED, check};
use crate::engine::ruleset::import::{Form, Imported, Outcome, import};
use crate::engine::ruleset::problem::Problems;
use crate::engine::ruleset::yaml::{self, TEXT_LIMIT_BYTES};
use crate::telemetry::clock;

/// The flags that come with the product, in the form of `--from s0`.
const CATALOGUE: &str = include_str!("../../../config/catalogue.yaml");

/// The options of `understudy flags import`.
#[derive(Clone, Debug, Args)]
pub(in crate::cli) struct ImportArgs {
    /// What wrote the file
    #[arg(long, value_enum, value_name = "SYSTEM")]
    from: From,
    /// The file, JSON or YAML; `-` is standard input. Left out with `s0`, the catalogue that comes with understudy
    file: Option<PathBuf>,
    /// Where the flag file goes, which must not exist; standard output, if left out
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum From {
    /// A flagd file: flags with state, variants, defaultVariant and targeting; $evaluators
    Flagd,
    /// Records of integration flags: name, type, status, percentage, start_date, end_date, conditions, description
    S0,
    /// Rows of a rollout table: name, enabled, shadow_mode, allowlist, denylist, percent_rollout, active
    S1,
    /// Records with texts in metadata: key, type, enabled, rules, variants, metadata.percentage
    S2,
    /// Records with a strategy: name, strategy, percentage, user_ids, targeting_rules, gradual_increment, variants
    S4,
}

impl ImportArgs {
    /// Imports. Exit code 0: every flag means what it meant, or the report says what it means now. 1: a flag's meaning could not
    /// be kept, so it is off. 2: the file is not of this form, or cannot be read; nothing is written.
    pub fn execute(&self) -> ExitCode {
        let form = match self.from {
            From::Flagd => Form::Flagd,
            From::S0 => Form::Integration,
            From::S1 => Form::Rollout,
            From::S2 => Form::Metadata,
            From::S4 => Form::Strategy,
        };
        let (name, bytes) = match self.read() {
            Ok(read) => read,
            Err(what) => {
                eprintln!("{}", plain(&what));
                return ExitCode::from(BAD_INPUT);
            }
        };
        let name: Arc<str> = name.into();
        let mut problems = Problems::default();
        let imported = match yaml::utf8(&name, &bytes, &mut problems) {
            Some(text) => import(form, &name, text, clock::unix_ms()),
            None => Err(problems.verdict().err().unwrap_or_default()),
        };
        let imported = match imported {
            Ok(imported) => imported,
            Err(problems) => {
                eprint!("{}", check::text(&problems));
                return ExitCode::from(BAD_INPUT);
            }
        };
        eprint!("{}", report(&imported));
        let written = match &self.output {
            None => print(&imported.text),
            Some(path) => match create(path, &imported.text) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    eprintln!("{}", plain(&format!("{}: {error}", path.display())));
                    ExitCode::from(FAILED)
                }
            },
        };
        if imported.notes.iter().any(|note| note.outcome == Outcome::NotMapped) {
            ExitCode::from(FAILED)
        } else {
            written
        }
    }

    /// The name of what is read, for the report, and what stands in it.
    fn read(&self) -> Result<(String, Vec<u8>), String> {
        let Some(path) = &self.file else {
            return match self.from {
                From::S0 => Ok(("catalogue".to_owned(), CATALOGUE.as_bytes().to_vec())),
                From::Flagd | From::S1 | From::S2 | From::S4 => {
                    Err("which file? only `--from s0` has one of its own".to_owned())
                }
            };
        };
        let name = if path == Path::new("-") {
            "standard input".to_owned()
        } else {
            path.display().to_string()
        };
        let mut bytes = Vec::new();
        let limit = TEXT_LIMIT_BYTES as u64 + 1;
        let read = if path == Path::new("-") {
            io::stdin().lock().take(limit).read_to_end(&mut bytes)
        } else {
            File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes))
        };
        match read {
            Ok(_) => Ok((name, bytes)),
            Err(error) => Err(format!("{name}: {error}")),
        }
    }
}

/// Writes a file that did not exist. One that could not be written to its end is removed.
fn create(path: &Path, text: &str) -> io::Result<()> {
    let mut file = File::create_new(path)?;
    file.write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .inspect_err(|_| {
            // What went wrong is told already.
            let _ = fs::remove_file(path);
        })
}

/// What became of everything, one line each, and how many of each there are.
fn report(imported: &Imported) -> String {
    let mut text: String = imported
        .notes
        .iter()
        .map(|note| plain(&note.to_string()) + "\n")
        .collect();
    text += &check::text(&imported.warnings);
    let flags_with = |outcome| {
        let notes = imported.notes.iter().filter(|note| note.outcome == outcome);
        let flags: std::collections::BTreeSet<&str> = notes.map(|note| note.flag.as_str()).collect();
        flags.len() as u64
    };
    let (changed, off) = (flags_with(Outcome::Changed), flags_with(Outcome::NotMapped));
    text += &counted(imported.flags as u64, "flag");
    if changed > 0 {
        text += &format!(", {changed} of them changed");
    }
    if off > 0 {
        text += &format!(", {off} not mapped and therefore off");
    }
    text + "\n"
}
