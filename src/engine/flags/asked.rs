//! What a flag is asked: for whom, when, with what else known, and what is killed.
//!
//! Pure. Whoever asks keeps all of it; nothing is copied.

use super::FlagRef;
use super::attributes::{Attributes, NoAttributes};
use super::kills::FlagKills;

/// What a flag is asked.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// For whom; `None` when the request names nobody.
    pub subject: Option<&'a str>,
    /// What else is known.
    pub attributes: &'a dyn Attributes,
    /// When, in milliseconds since 1970-01-01T00:00:00Z.
    pub unix_ms: i64,
    /// Whether a kill of this flag or of everything is in force.
    pub killed: bool,
    /// The kills of the flags that this one asks in turn.
    pub kills: &'a FlagKills,
}

impl<'a> Asked<'a> {
    /// For this subject at this instant, with nothing else known and nothing killed.
    #[must_use]
    pub const fn new(subject: Option<&'a str>, unix_ms: i64) -> Self {
        Self {
            subject,
            attributes: &NoAttributes,
            unix_ms,
            killed: false,
            kills: FlagKills::NONE,
        }
    }

    /// The same question, put to the flag at this position of the flags that the kills are about.
    #[must_use]
    pub fn of(self, at: FlagRef) -> Self {
        Self {
            killed: self.kills.has(at),
            ..self
        }
    }
}
