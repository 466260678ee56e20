//! What goes over the wire: the texts of OFREP 0.3, in the shape that real providers read, and of the evaluation API.
//!
//! `value`, `variant`, `reason` and `errorDetails` are always there: providers read them without asking.

use serde::{Deserialize, Serialize};

use crate::engine::explain::Record;
use crate::engine::flags::{Context, FlagValue};
use crate::engine::vocab::Reason;

/// A request: `{"context": {...}}`. A context that is missing is an empty one; other members are passed over.
#[derive(Debug, Default, Deserialize)]
pub struct Ask {
    /// What is known: `targetingKey` or `user_id` names the subject, the members are the attributes.
    #[serde(default)]
    pub context: Option<Context>,
}

/// The answer of one flag.
#[derive(Debug, Serialize)]
pub struct Success<'a> {
    /// The flag.
    pub key: &'a str,
    /// What it comes to.
    pub value: FlagValue<'a>,
    /// `on`, `off`, or the name of a variant.
    pub variant: &'a str,
    /// OpenFeature's word for why.
    pub reason: &'static str,
    /// Ours.
    pub metadata: Metadata<'a>,
}

/// What is said of an answer beside it.
#[derive(Debug, Serialize)]
pub struct Metadata<'a> {
    /// The exact reason.
    pub reason: &'static str,
    /// The rule that decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<&'a str>,
    /// 0 to 999,999, if a percentage decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bucket: Option<u32>,
    /// The source of the deciding value.
    pub origin: &'static str,
    /// The rules that answered; in a bulk answer said once for all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
}

/// An error of one flag, or without a key of a whole request.
#[derive(Debug, Serialize)]
pub struct Failure<'a> {
    /// The flag.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<&'a str>,
    /// One of OpenFeature's.
    #[serde(rename = "errorCode")]
    pub code: Code,
    /// For people.
    #[serde(rename = "errorDetails")]
    pub details: &'a str,
}

/// OpenFeature's error codes, as far as they can happen here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Code {
    /// No such flag.
    FlagNotFound,
    /// Anything else.
    General,
    /// A context that is none.
    InvalidContext,
    /// A body that is none.
    ParseError,
    /// The flag looks at a subject, and there is none.
    TargetingKeyMissing,
}

/// The answers of all flags.
#[derive(Debug, Serialize)]
pub struct Bulk<'a> {
    /// In the order of their keys.
    pub flags: Vec<Evaluated<'a>>,
    /// About all of them.
    pub metadata: SetMetadata,
    /// Where changes are told.
    #[serde(rename = "eventStreams", skip_serializing_if = "Vec::is_empty")]
    pub streams: Vec<Stream>,
}

/// One of them.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum Evaluated<'a> {
    /// It could not be answered.
    Failure(Failure<'a>),
    /// It was.
    Success(Success<'a>),
}

/// What is said of all flags at once.
#[derive(Debug, Serialize)]
pub struct SetMetadata {
    /// The rules that answered.
    pub revision: u64,
    /// The environment that they are for.
    pub environment: String,
}

/// Where a client learns that it should ask again.
#[derive(Debug, Serialize)]
pub struct Stream {
    #[serde(rename = "type")]
    kind: &'static str,
    endpoint: Endpoint,
    #[serde(rename = "inactivityDelaySec")]
    inactivity: u32,
}

#[derive(Debug, Serialize)]
struct Endpoint {
    #[serde(rename = "requestUri")]
    uri: String,
}

impl Stream {
    /// Server-sent events at the origin that was asked, for the holder of this ticket.
    #[must_use]
    pub fn events(ticket: Option<String>) -> Self {
        let mut uri = "/ofrep/v1/events".to_owned();
        if let Some(ticket) = ticket {
            uri += "?ticket=";
            uri += &ticket;
        }
        Self {
            kind: "sse",
            endpoint: Endpoint { uri },
            inactivity: 120,
        }
    }
}

/// OpenFeature's word for one of our reasons.
#[must_use]
pub const fn reason(ours: Reason) -> &'static str {
    match ours {
        Reason::Killed
        | Reason::SystemDisabled
        | Reason::Disabled
        | Reason::Environment
        | Reason::Schedule
        | Reason::Prerequisite
        | Reason::IdentityUnknown
        | Reason::NoState => "DISABLED",
        Reason::Denylist | Reason::Allowlist | Reason::NotAllowlisted | Reason::BetaUser | Reason::Targeting => {
            "TARGETING_MATCH"
        }
        Reason::Percent | Reason::PercentMiss | Reason::Split => "SPLIT",
        Reason::Global | Reason::Default | Reason::Constant => "STATIC",
        // Of routes and their parts, never of a flag that is asked.
        Reason::FlagNotFound | Reason::Mixed => "UNKNOWN",
    }
}

/// What the evaluation API is asked.
///
/// Shape: `{"flag": "KEY"}` or `{"flags": ["KEY", ...]}`, with `"context": {"user_id", "email", "role", "plan", "country",
/// "attributes": {...}, ...}`. `default` is what an unknown `flag` comes to.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Evaluate {
    /// One flag.
    #[serde(default)]
    pub flag: Option<String>,
    /// Several.
    #[serde(default)]
    pub flags: Option<Vec<String>>,
    /// For whom.
    #[serde(default)]
    pub context: Option<Box<serde_json::value::RawValue>>,
    /// The answer of a flag that does not exist.
    #[serde(default)]
    pub default: Option<Box<serde_json::value::RawValue>>,
}

/// The part of its context whose members are attributes, too.
#[derive(Debug, Default, Deserialize)]
pub struct Nested {
    /// Any names; the members beside it are stronger.
    #[serde(default)]
    pub attributes: Option<Context>,
}

/// The answer of one flag over the evaluation API.
#[derive(Debug, Serialize)]
pub struct Answer<'a> {
    /// On or off; of a flag with variants, whether the subject takes part.
    pub enabled: bool,
    /// The same as `explain` says.
    #[serde(flatten)]
    pub record: Record<'a>,
}

/// The answers of several.
#[derive(Debug, Serialize)]
pub struct Answers<'a> {
    /// In the order in which they were asked for.
    pub results: Vec<Answer<'a>>,
    /// The rules that answered.
    pub revision: u64,
}

/// A problem document (RFC 9457).
#[derive(Debug, Serialize)]
pub struct Problem<'a> {
    /// What a program may decide by: `urn:understudy:problem:WORD`, as in the admin API.
    #[serde(rename = "type")]
    pub kind: String,
    /// The same in a few words.
    pub title: &'a str,
    /// The status.
    pub status: u16,
    /// What is wrong.
    pub detail: String,
    /// What to do about it.
    pub remedy: &'a str,
    /// Names that look like the one that was not found.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub near: Vec<String>,
}
