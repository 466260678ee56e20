//! Where the values of flags come from.
//!
//! Pure.

use std::fmt;
use std::sync::Arc;

/// The sources of a value, strongest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Source {
    /// A kill in force.
    Kill,
    /// The runtime layer: the API and whatever goes through it.
    Runtime,
    /// The flag file.
    File,
    /// A variable of the environment.
    Environment,
    /// Nobody set it.
    Default,
}

impl Source {
    /// The word in answers and records.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Runtime => "runtime",
            Self::File => "file",
            Self::Environment => "environment",
            Self::Default => "default",
        }
    }
}

/// Where one value comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Origin {
    /// Nobody set it.
    #[default]
    Default,
    /// This variable.
    Environment(Arc<str>),
    /// This place in the flag file; line and column from 1.
    File {
        /// As the operator named it.
        file: Arc<str>,
        /// From 1.
        line: u32,
        /// From 1, in characters.
        column: u32,
    },
    /// A change at run time.
    Runtime {
        /// The revision of that change.
        revision: u64,
        /// Who made it.
        actor: Arc<str>,
        /// The line in the text of the layer, from 1.
        line: u32,
        /// From 1, in characters.
        column: u32,
    },
}

impl Origin {
    /// The kind of source.
    #[must_use]
    pub const fn source(&self) -> Source {
        match self {
            Self::Default => Source::Default,
            Self::Environment(_) => Source::Environment,
            Self::File { .. } => Source::File,
            Self::Runtime { .. } => Source::Runtime,
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("built-in default"),
            Self::Environment(name) => write!(f, "environment variable {name}"),
            Self::File { file, line, column } => write!(f, "{file}:{line}:{column}"),
            Self::Runtime { revision, actor, .. } => write!(f, "runtime revision {revision} by {actor}"),
        }
    }
}
