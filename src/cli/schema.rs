//! `understudy schema`: what the files may look like, for editors and CI.

use std::process::ExitCode;

use clap::{Args, ValueEnum};

use super::terminal::{json, print};
use crate::config::schema::{File, schema};

/// The options of `understudy schema`.
#[derive(Clone, Copy, Debug, Args)]
pub(super) struct SchemaArgs {
    /// Of which file
    #[arg(value_enum, value_name = "FILE", default_value_t = Which::Config)]
    file: Which,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Which {
    /// The configuration, config/understudy.yaml
    Config,
    /// The flags, config/features.yaml
    Flags,
    /// The tokens that admin.tokens_file names
    Tokens,
}

impl SchemaArgs {
    /// Prints it.
    pub fn execute(self) -> ExitCode {
        print(&json(&schema(match self.file {
            Which::Config => File::Config,
            Which::Flags => File::Flags,
            Which::Tokens => File::Tokens,
        })))
    }
}
