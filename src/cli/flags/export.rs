//! `understudy flags export`: the flags of a running instance as a flag file.

use std::process::ExitCode;

use clap::{Args, ValueEnum};

use super::declared;
use crate::cli::client::Remote;
use crate::cli::terminal::print;
use crate::engine::ruleset::write::layer_yaml;

/// The options of `understudy flags export`.
#[derive(Clone, Debug, Args)]
pub(in crate::cli) struct ExportArgs {
    /// What of it
    #[arg(long, value_enum, value_name = "LAYER", default_value_t = Which::Merged)]
    layer: Which,
    #[command(flatten)]
    remote: Remote,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Which {
    /// What all sources together say
    Merged,
    /// Only what was said at run time
    Runtime,
}

impl ExportArgs {
    /// Asks and prints. What is printed is a flag file, and `apply` of it changes nothing.
    pub fn execute(&self) -> ExitCode {
        match declared::present(&self.remote) {
            Ok(present) => print(&layer_yaml(match self.layer {
                Which::Merged => &present.merged,
                Which::Runtime => &present.runtime,
            })),
            Err(error) => error.report(),
        }
    }
}
