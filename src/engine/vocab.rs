//! The words that every other module shares: sides, keys, ids and instants.
//!
//! Pure. Nothing here decides anything; each type only makes an illegal value impossible to hold.

use std::fmt::{self, Write as _};
use std::hash::Hasher;
use std::sync::Arc;
use std::time::Duration;

use siphasher::sip::SipHasher24;

/// One of the two backends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Side {
    /// The service that is being replaced, and the answer whenever there is doubt.
    Legacy,
    /// The service that replaces it.
    New,
}

impl Side {
    /// Both sides, legacy first.
    pub const BOTH: [Side; 2] = [Side::Legacy, Side::New];

    /// The other one.
    #[must_use]
    pub const fn other(self) -> Side {
        match self {
            Side::Legacy => Side::New,
            Side::New => Side::Legacy,
        }
    }

    /// `legacy` or `new`, as in configuration, metrics and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Side::Legacy => "legacy",
            Side::New => "new",
        }
    }

    /// 0 for legacy, 1 for new: an index into per-side tables.
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The longest flag or route key, in bytes. A longer one is refused, never cut: cutting lets two keys collide (C14).
pub const KEY_LIMIT_BYTES: usize = 200;

/// The longest subject key, in bytes. A longer value is no identity.
pub const SUBJECT_LIMIT_BYTES: usize = 1024;

/// Why a text is no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Nothing between the quotes.
    #[error("a key may not be empty")]
    Empty,
    /// A character outside `[A-Za-z0-9._-]`, at this byte.
    #[error("a key consists of letters, digits, `.`, `_` and `-`; the character at byte {0} is none of them")]
    Character(usize),
    /// More than [`KEY_LIMIT_BYTES`].
    #[error("a key has at most 200 bytes, this one has {0}")]
    TooLong(usize),
}

fn check_key(text: &str) -> Result<(), KeyError> {
    if text.is_empty() {
        return Err(KeyError::Empty);
    }
    if text.len() > KEY_LIMIT_BYTES {
        return Err(KeyError::TooLong(text.len()));
    }
    match text
        .bytes()
        .position(|b| !(b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-')))
    {
        Some(at) => Err(KeyError::Character(at)),
        None => Ok(()),
    }
}

macro_rules! key {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        ///
        /// Shape: `[A-Za-z0-9._-]{1,200}`, compared exactly. Cheap to clone.
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Accepts `[A-Za-z0-9._-]{1,200}` and refuses everything else.
            ///
            /// # Errors
            /// [`KeyError`] says which rule the text breaks.
            pub fn parse(text: &str) -> Result<Self, KeyError> {
                check_key(text)?;
                Ok(Self(text.into()))
            }

            /// The text as written.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

key! {
    /// The name of a flag.
    FlagKey
}
key! {
    /// The name of a segment.
    SegmentKey
}
key! {
    /// The name of a route.
    RouteKey
}

/// The secret under which subject keys are hashed before they may leave the process.
///
/// 128 random bits, made once per state file, so that a hash in a log can be found again after a restart.
#[derive(Clone, Copy)]
pub struct HashKey(pub [u8; 16]);

impl fmt::Debug for HashKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HashKey(..)")
    }
}

/// A subject key as it may be stored, logged and shown: SipHash-2-4 under a [`HashKey`].
///
/// Shape when displayed: `h:` and 16 hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SubjectHash(pub u64);

impl SubjectHash {
    /// The hash of a subject key under this instance's secret.
    #[must_use]
    pub fn of(key: &HashKey, subject: &str) -> Self {
        let mut hasher = SipHasher24::new_with_key(&key.0);
        hasher.write(subject.as_bytes());
        Self(hasher.finish())
    }

    /// Reads the displayed form, `h:` and 16 hex digits.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix("h:")?;
        (digits.len() == 16)
            .then(|| u64::from_str_radix(digits, 16).ok().map(Self))
            .flatten()
    }
}

impl fmt::Display for SubjectHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "h:{:016x}", self.0)
    }
}

/// The id of one exchange, unique over restarts: random bits of the process, then a counter.
///
/// Shape when displayed: 32 hex digits; the value of `x-understudy-exchange`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ExchangeId(pub u128);

impl ExchangeId {
    /// The displayed form: 32 hex digits, lower case. Every request carries one, and a formatter takes ten times as long.
    #[must_use]
    pub fn to_hex(self) -> [u8; 32] {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let bytes = self.0.to_be_bytes();
        std::array::from_fn(|at| {
            let byte = bytes[at / 2];
            DIGITS[usize::from(if at % 2 == 0 { byte >> 4 } else { byte & 15 })]
        })
    }
}

impl fmt::Display for ExchangeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_hex()
            .iter()
            .try_for_each(|digit| f.write_char(char::from(*digit)))
    }
}

/// The number of a published ruleset; grows by one with each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Revision(pub u64);

/// The number of a kill's life; a re-arm starts the next one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Epoch(pub u64);

/// An instant, taken once per request and carried along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Since the process started; never goes back.
    pub monotonic: Duration,
    /// Wall clock, milliseconds since 1970-01-01T00:00:00Z; may jump.
    pub unix_ms: i64,
}

/// Why a decision fell as it did: exactly the words of the decision table, plus those of the request around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Listed on the allowlist.
    Allowlist,
    /// Listed among the beta users.
    BetaUser,
    /// The route names a constant instead of a flag.
    Constant,
    /// Nothing else decided: the flag's default.
    Default,
    /// Listed on the denylist.
    Denylist,
    /// `enabled: false`.
    Disabled,
    /// This environment is not among the flag's.
    Environment,
    /// No source defines the flag.
    FlagNotFound,
    /// `enabled: true` and nothing above decided.
    Global,
    /// A line had to look at the subject, and the request names none.
    IdentityUnknown,
    /// A kill of the flag, the route, the subject or everything.
    Killed,
    /// Several shoppers in one body, and not all of them are on the new path.
    Mixed,
    /// The state could not be read at the start, so nobody knows what was killed: legacy only.
    NoState,
    /// An allowlist exists, and the subject is not on it.
    NotAllowlisted,
    /// The subject's bucket is below the percentage.
    Percent,
    /// The subject's bucket is not below the percentage.
    PercentMiss,
    /// A flag that has to be asked first does not answer as it must.
    Prerequisite,
    /// Before the start or after the end of the flag's period.
    Schedule,
    /// Nothing but the subject's place among the variants.
    Split,
    /// `FEATURE_FLAGS_ENABLED=false`.
    SystemDisabled,
    /// A targeting rule.
    Targeting,
}

impl Reason {
    /// The word as it stands in logs, metrics and answers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Reason::Allowlist => "allowlist",
            Reason::BetaUser => "beta_user",
            Reason::Constant => "constant",
            Reason::Default => "default",
            Reason::Denylist => "denylist",
            Reason::Disabled => "disabled",
            Reason::Environment => "environment",
            Reason::FlagNotFound => "flag_not_found",
            Reason::Global => "global",
            Reason::IdentityUnknown => "identity_unknown",
            Reason::Killed => "killed",
            Reason::Mixed => "mixed",
            Reason::NoState => "no_state",
            Reason::NotAllowlisted => "not_allowlisted",
            Reason::Percent => "percent",
            Reason::PercentMiss => "percent_miss",
            Reason::Prerequisite => "prerequisite",
            Reason::Schedule => "schedule",
            Reason::Split => "split",
            Reason::SystemDisabled => "system_disabled",
            Reason::Targeting => "targeting",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exchange_is_32_hex_digits_with_its_leading_zeros() {
        let id = ExchangeId(0x00ab_cdef_0123_4567_89ab_cdef_0000_000f);
        assert_eq!(id.to_string(), format!("{:032x}", id.0));
        assert_eq!(ExchangeId(0).to_string().len(), 32);
    }

    #[test]
    fn c14_over_long_key_is_refused_not_cut() {
        let longest = "k".repeat(KEY_LIMIT_BYTES);
        assert!(FlagKey::parse(&longest).is_ok());
        assert_eq!(FlagKey::parse(&format!("{longest}x")), Err(KeyError::TooLong(201)));
    }

    #[test]
    fn key_accepts_all_three_spellings_and_nothing_else() {
        for good in ["copilot_v2", "auth-sso-login", "WHATSAPP_DUAL_RUN", "a.b"] {
            assert!(FlagKey::parse(good).is_ok(), "{good}");
        }
        assert_eq!(FlagKey::parse(""), Err(KeyError::Empty));
        assert_eq!(FlagKey::parse("a b"), Err(KeyError::Character(1)));
        assert_eq!(FlagKey::parse("aé"), Err(KeyError::Character(1)));
    }

    #[test]
    fn subject_hash_reads_what_it_prints_and_depends_on_the_key() {
        let hash = SubjectHash::of(&HashKey([7; 16]), "33639980123");
        assert_eq!(SubjectHash::parse(&hash.to_string()), Some(hash));
        assert_ne!(hash, SubjectHash::of(&HashKey([8; 16]), "33639980123"));
        assert_eq!(SubjectHash::parse("h:12"), None);
    }
}
