//! The command line: one binary, the verbs of a person at 3 a.m. first.
//!
//! In: arguments, the environment, files, the terminal. Out: text for people or JSON for machines, and an exit code:
//! 0 done; 1 failed, refused or unreachable; 2 the input or the configuration is wrong; 3 a kill is in force and not yet
//! on disk. Verbs against a running instance speak its admin API (`client`); what an instance does belongs to `app`, what
//! a flag answers to `engine`. Every verb has a file of its own; here is only what they are called and which is meant.

mod audit;
mod check;
mod client;
mod diff;
mod divergences;
mod explain;
mod flags;
mod freeze;
mod kill;
mod run;
mod schema;
mod shell;
mod status;
mod terminal;
mod token;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory as _, Parser, Subcommand, ValueEnum};

/// Whatever could not be done, was refused, or did not answer.
const FAILED: u8 = 1;

/// The arguments, a file or the configuration are wrong.
const BAD_INPUT: u8 = 2;

/// A kill is in force and not yet on disk.
const NOT_STORED: u8 = 3;

/// Replaces a legacy service by a new one without breaking anything
///
/// Exit codes: 0 done; 1 failed, refused or unreachable; 2 the input or the configuration is wrong; 3 a kill is in force
/// and not yet on disk.
#[derive(Debug, Parser)]
#[command(name = "understudy", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Send a route's or a flag's traffic to legacy, now
    Kill(kill::KillArgs),
    /// Lift a kill, with a reason
    Rearm(kill::RearmArgs),
    /// Take back a flag's last change
    Rollback(flags::RollbackArgs),
    /// Let nothing put more subjects on new: no change, no schedule, no re-arm
    Freeze(freeze::FreezeArgs),
    /// Lift a freeze
    Unfreeze(freeze::FreezeArgs),
    /// Show who is served by whom, what is killed, and what the judges have seen
    Status(status::StatusArgs),
    /// Show the last exchanges whose two answers differed
    Divergences(divergences::DivergencesArgs),
    /// Serve: SIGHUP reads the files again, SIGTERM drains and ends
    Run(run::RunArgs),
    /// Compile everything that a start would, and print every problem
    Check(check::CheckArgs),
    /// Show why a flag answers as it does
    Explain(explain::ExplainArgs),
    /// Compare recorded pairs of answers
    Diff(diff::DiffArgs),
    /// Show, make and change flags; bring them in from other systems
    #[command(subcommand)]
    Flags(flags::FlagsVerb),
    /// Show who did what, and check that the record of it is whole
    Audit(audit::AuditArgs),
    /// Make tokens for the admin API
    #[command(subcommand)]
    Token(token::TokenVerb),
    /// Print the JSON Schema of a file, for editors and CI
    Schema(schema::SchemaArgs),
    /// Print what completes commands in a shell
    Completions(shell::CompletionsArgs),
    /// Print the manual page, or write one per command
    Man(shell::ManArgs),
    /// Show the whole story with simulated services, on this machine, in less than a minute
    Demo(DemoArgs),
}

#[derive(Debug, Args)]
struct DemoArgs {
    /// Leave it serving at the end, and print commands to play with
    #[arg(long)]
    keep: bool,
}

/// Where the configuration is.
#[derive(Clone, Debug, Args)]
struct ConfigArgs {
    /// The configuration file
    #[arg(
        long,
        value_name = "FILE",
        env = "UNDERSTUDY_CONFIG",
        default_value = "config/understudy.yaml"
    )]
    config: PathBuf,
}

impl ConfigArgs {
    /// What an instance with this configuration would be started with.
    fn options(&self) -> crate::app::Options {
        // A flag's name is letters and its value a word, a number or ids: what is no UTF-8 sets no flag.
        let text = |text: OsString| text.into_string().ok();
        let env = std::env::vars_os()
            .filter_map(|(name, value)| Some((text(name)?, text(value)?)))
            .collect();
        crate::app::Options {
            config: self.config.clone(),
            env,
        }
    }
}

/// How an answer is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For machines
    Json,
    /// For people
    Table,
}

#[derive(Clone, Copy, Debug, Args)]
struct OutputArgs {
    /// How the answer is written
    #[arg(long, value_enum, value_name = "FORM", default_value_t = Output::Table)]
    output: Output,
}

/// Runs the command that the arguments name. `demo` is what `understudy demo` does; it is told whether to keep serving.
#[must_use]
pub fn main(demo: impl FnOnce(bool) -> ExitCode) -> ExitCode {
    match Cli::parse().verb {
        Verb::Kill(args) => args.execute(),
        Verb::Rearm(args) => args.execute(),
        Verb::Rollback(args) => args.execute(),
        Verb::Freeze(args) => args.freeze(),
        Verb::Unfreeze(args) => args.unfreeze(),
        Verb::Status(args) => args.execute(),
        Verb::Divergences(args) => args.execute(),
        Verb::Run(args) => args.execute(),
        Verb::Check(args) => args.execute(),
        Verb::Explain(args) => args.execute(),
        Verb::Diff(args) => args.execute(),
        Verb::Flags(verb) => verb.execute(),
        Verb::Audit(args) => args.execute(),
        Verb::Token(verb) => verb.execute(),
        Verb::Schema(args) => args.execute(),
        Verb::Completions(args) => args.execute(Cli::command()),
        Verb::Man(args) => args.execute(Cli::command()),
        Verb::Demo(DemoArgs { keep }) => demo(keep),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_declared_without_contradiction() {
        Cli::command().debug_assert();
    }

    #[test]
    fn token_in_the_environment_is_not_shown_by_the_help() {
        let mut command = Cli::command();
        let kill = command.find_subcommand_mut("kill").expect("a verb");
        let help = kill.render_long_help().to_string();
        assert!(
            help.contains("UNDERSTUDY_TOKEN") && !help.contains("UNDERSTUDY_TOKEN="),
            "{help}"
        );
    }

    #[test]
    fn kill_needs_a_name_or_all_and_never_both() {
        let parse = |line: &str| Cli::try_parse_from(line.split(' ')).is_ok();
        assert!(parse("understudy kill whatsapp --reason errors"));
        assert!(parse("understudy kill --all --reason errors"));
        assert!(parse("understudy kill whatsapp --route --reason errors"));
        for bad in [
            "kill --reason x",
            "kill a --all --reason x",
            "kill a --route --flag --reason x",
            "kill --all --flag",
        ] {
            assert!(!parse(&format!("understudy {bad}")), "{bad}");
        }
        assert!(parse(
            "understudy rearm whatsapp --subject h:0000000000000001 --reason repaired"
        ));
        assert!(!parse("understudy rearm --all --subject s --reason repaired"));
        assert!(!parse("understudy rearm whatsapp"));
    }
}
