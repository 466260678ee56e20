//! `understudy flags`: what a person does with flags, over the admin API of a running instance or over files.
//!
//! Every verb has a file of its own, those that change one flag share `change`; `named` is how a flag is named. What a change
//! means belongs to the instance.

mod apply;
mod change;
mod declared;
mod edit;
mod export;
mod import;
mod list;
mod members;
mod named;
mod show;
mod usage;

use std::process::ExitCode;

use clap::Subcommand;

pub(super) use change::RollbackArgs;

/// Where the API has flags.
const FLAGS: &str = "/api/v1/feature-flags";

/// The verbs of `understudy flags`.
#[derive(Debug, Subcommand)]
pub(super) enum FlagsVerb {
    /// Show all flags, one on a line
    List(list::ListArgs),
    /// Show what is said about a flag, by whom, and its last changes
    Show(show::ShowArgs),
    /// Make a flag; it is off until somebody switches it on
    Create(edit::CreateArgs),
    /// Switch a flag on, or on for a percentage
    Enable(edit::EnableArgs),
    /// Switch a flag off
    Disable(edit::DisableArgs),
    /// Set members of a flag, as the flag file writes them
    Set(edit::SetArgs),
    /// Put subjects on the list of those who alone are on
    Allow(members::ListedArgs),
    /// Put subjects on the list of those who never are on
    Deny(members::ListedArgs),
    /// Take back all that was said about a flag at run time
    Delete(edit::DeleteArgs),
    /// Show how often a flag was asked, and for how many it was on
    #[command(visible_alias = "analytics")]
    Stats(usage::StatsArgs),
    /// Show flags that have served their time
    Stale(usage::StaleArgs),
    /// Print the flags of an instance as a flag file
    Export(export::ExportArgs),
    /// Make an instance's flags what a file declares
    Apply(apply::ApplyArgs),
    /// Make a flag file of another system's flags, and say what does not mean the same
    Import(import::ImportArgs),
}

impl FlagsVerb {
    /// Does it.
    pub fn execute(&self) -> ExitCode {
        match self {
            Self::List(args) => args.execute(),
            Self::Show(args) => args.execute(),
            Self::Create(args) => args.execute(),
            Self::Enable(args) => args.execute(),
            Self::Disable(args) => args.execute(),
            Self::Set(args) => args.execute(),
            Self::Allow(args) => args.allow(),
            Self::Deny(args) => args.deny(),
            Self::Delete(args) => args.execute(),
            Self::Stats(args) => args.execute(),
            Self::Stale(args) => args.execute(),
            Self::Export(args) => args.execute(),
            Self::Apply(args) => args.execute(),
            Self::Import(args) => args.execute(),
        }
    }
}
