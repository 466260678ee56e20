//! What an error looks like: an RFC 9457 problem document.

use serde::{Deserialize, Serialize};

use super::flag::Finding;

/// The body of every answer that is not a success, as `application/problem+json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// [`Fault::urn`]: what a program may decide by.
    #[serde(rename = "type")]
    pub kind: String,
    /// The same in a few words, always the same ones.
    pub title: String,
    /// The status of the answer.
    pub status: u16,
    /// What happened this time.
    pub detail: String,
    /// What to do about it; left out where nothing can be said.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub remedy: String,
    /// Names that look like the one that was not found, the nearest first; left out where there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub near: Vec<String>,
    /// Everything that is wrong with what was sent, each with its place; left out where it was not read that far.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<Finding>,
}

impl Problem {
    /// A problem of a known kind.
    #[must_use]
    pub fn new(fault: Fault, detail: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            kind: fault.urn(),
            title: fault.title().to_owned(),
            status: fault.status(),
            detail: detail.into(),
            remedy: remedy.into(),
            near: Vec::new(),
            problems: Vec::new(),
        }
    }

    /// Its kind; `None` for one that a later version made.
    #[must_use]
    pub fn fault(&self) -> Option<Fault> {
        Fault::ALL.into_iter().find(|fault| fault.urn() == self.kind)
    }
}

macro_rules! faults {
    ($($(#[$doc:meta])* $name:ident = $status:literal $word:literal, $title:literal;)*) => {
        /// The kinds of problems.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Fault { $($(#[$doc])* $name,)* }

        impl Fault {
            /// All of them.
            pub const ALL: [Self; [$($status),*].len()] = [$(Self::$name),*];

            /// The status of its answers.
            #[must_use]
            pub const fn status(self) -> u16 {
                match self { $(Self::$name => $status,)* }
            }

            /// One word, for URNs and the audit trail.
            #[must_use]
            pub const fn word(self) -> &'static str {
                match self { $(Self::$name => $word,)* }
            }

            /// A few words for a person.
            #[must_use]
            pub const fn title(self) -> &'static str {
                match self { $(Self::$name => $title,)* }
            }
        }
    };
}

faults! {
    /// A route and a flag have the name.
    AmbiguousName = 409 "ambiguous_name", "the name is not unique";
    /// A body, a query or a path that does not say what it has to.
    BadRequest = 400 "bad_request", "the request cannot be read";
    /// More than the longest body.
    BodyTooLarge = 413 "body_too_large", "the body is too large";
    /// Objects and arrays nested too deeply.
    BodyTooDeep = 400 "body_too_deep", "the body is nested too deeply";
    /// A flag that was to be created exists.
    Exists = 409 "exists", "it exists already";
    /// The token is known and its role may not do this.
    Forbidden = 403 "forbidden", "the role does not allow this";
    /// The `host` header names somebody else: a browser that was lured here, most likely.
    ForeignHost = 421 "foreign_host", "this is not that host";
    /// A change that might put more subjects on new although that is frozen.
    Frozen = 409 "frozen", "it is frozen";
    /// The same request is being worked on under its idempotency key.
    InProgress = 409 "in_progress", "it is being worked on";
    /// An idempotency key that was sent with another request before.
    KeyReused = 422 "key_reused", "the key was used before";
    /// A re-arm during which it was killed once more.
    KilledMeanwhile = 409 "killed_meanwhile", "it was killed again meanwhile";
    /// The path exists and does not take this method.
    MethodNotAllowed = 405 "method_not_allowed", "the method is not allowed here";
    /// There is nothing at this path.
    NotFound = 404 "not_found", "there is no such resource";
    /// A re-arm of what is not killed.
    NotKilled = 409 "not_killed", "it is not killed";
    /// A removal of a flag that is on for some and off for others.
    NotRemovable = 409 "not_removable", "it is in use";
    /// A rollback of a flag that has no change left to undo.
    NothingToUndo = 409 "nothing_to_undo", "there is nothing to undo";
    /// A change that did not reach the disk, and so was not done.
    NotStored = 503 "not_stored", "the change could not be stored";
    /// The revision that `if-match` names is not that of the flag.
    Stale = 412 "stale", "it was changed meanwhile";
    /// The request took too long to arrive.
    Timeout = 408 "timeout", "the request took too long";
    /// Too many failed attempts from one address.
    TooManyFailures = 429 "too_many_failures", "too many failed attempts";
    /// More requests with one token than its `rate`.
    TooManyRequests = 429 "too_many_requests", "too many requests";
    /// No token, or a wrong one.
    Unauthorized = 401 "unauthorized", "a token is needed";
    /// A flag that does not compile, alone or with everything else.
    Unfit = 422 "unfit", "the flag has problems";
    /// Something on the disk that could not be read.
    Unreadable = 503 "unreadable", "it could not be read";
    /// No route and no flag has the name.
    UnknownName = 404 "unknown_name", "the name is unknown";
    /// A body that is not JSON.
    UnsupportedMediaType = 415 "unsupported_media_type", "the body has to be JSON";
}

impl Fault {
    /// The `type` of its documents.
    #[must_use]
    pub fn urn(self) -> String {
        format!("urn:understudy:problem:{}", self.word())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn document_has_the_members_of_the_standard_and_hides_empty_ones() {
        let problem = Problem::new(Fault::NotKilled, "route whatsapp is not killed", "");
        assert_eq!(
            serde_json::to_string(&problem).unwrap(),
            r#"{"type":"urn:understudy:problem:not_killed","title":"it is not killed","status":409,"detail":"route whatsapp is not killed"}"#
        );
        assert_eq!(problem.fault(), Some(Fault::NotKilled));
    }

    #[test]
    fn every_kind_has_its_own_type() {
        let urns: std::collections::BTreeSet<_> = Fault::ALL.into_iter().map(Fault::urn).collect();
        assert_eq!(urns.len(), Fault::ALL.len());
    }
}
