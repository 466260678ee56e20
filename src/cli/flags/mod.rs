//! `understudy flags`: what a person does with flags. Every verb has a file of its own.

mod import;

use std::process::ExitCode;

use clap::Subcommand;

/// The verbs of `understudy flags`.
#[derive(Debug, Subcommand)]
pub(super) enum FlagsVerb {
    /// Make a flag file of another system's flags, and say what does not mean the same
    Import(import::ImportArgs),
}

impl FlagsVerb {
    /// Does it.
    pub fn execute(&self) -> ExitCode {
        match self {
            Self::Import(args) => args.execute(),
        }
    }
}
