//! How a flag is named: as the first operand, or by `--name`.

use clap::Args;

use super::FLAGS;
use crate::cli::client::segment;

/// One flag.
#[derive(Clone, Debug, Args)]
#[group(required = true, multiple = false)]
pub(super) struct Named {
    /// The flag
    #[arg(value_name = "FLAG")]
    flag: Option<String>,
    /// The flag, by an option
    #[arg(long = "name", value_name = "FLAG")]
    name: Option<String>,
}

impl Named {
    pub fn key(&self) -> &str {
        // clap demands one of the two.
        self.flag.as_deref().or(self.name.as_deref()).unwrap_or_default()
    }

    pub fn path(&self) -> String {
        path_of(self.key())
    }
}

/// One flag and what else is given: the first operand is the flag, unless `--name` names it.
#[derive(Clone, Debug, Args)]
pub(super) struct NamedWith {
    /// The flag, by an option; then every operand is a value
    #[arg(long = "name", value_name = "FLAG")]
    name: Option<String>,
}

impl NamedWith {
    /// The flag, and the operands that are left.
    ///
    /// # Errors
    /// Says that nothing names the flag, or that nothing is left.
    pub fn split<'a>(&'a self, operands: &'a [String]) -> Result<(&'a str, &'a [String]), &'static str> {
        let (key, rest) = match (&self.name, operands.split_first()) {
            (Some(name), _) => (name, operands),
            (None, Some((name, rest))) => (name, rest),
            (None, None) => return Err("which flag?"),
        };
        Ok((key, rest))
    }
}

/// Where the API has this flag.
pub(super) fn path_of(key: &str) -> String {
    format!("{FLAGS}/{}", segment(key))
}
