//! The tokens file: who may do what at the admin listener. It holds hashes only; the tokens are with their owners.
//!
//! Pure. In: the file's bytes. Out: the tokens, or problems. Comparing a presented token is left to `admin::auth`.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::engine::ruleset::decode::{At, Misfit, Scalar, decode, record, words};
use crate::engine::ruleset::problem::{Problems, quote};
use crate::engine::ruleset::yaml::utf8;

use super::raw::scalar::Name;

/// What every token that `understudy token new` makes begins with; 64 hex digits follow.
pub const TOKEN_PREFIX: &str = "us_";

words! {
    /// What the holder of a token may do.
    pub enum Role {
        /// Read.
        Viewer = "viewer",
        /// Read, kill, re-arm.
        Operator = "operator",
        /// Everything.
        Admin = "admin",
        /// Kill and read the status; nothing else, not even re-arm.
        Emergency = "emergency",
        /// Nothing of the admin API; the role is for those who evaluate flags.
        Client = "client",
    }
}

record! {
    /// The file that `admin.tokens_file` names.
    pub struct TokensFile {
        /// Those who may enter.
        tokens: Vec<TokenText>,
    }
}

record! {
    /// One token. `understudy token new` makes one and prints this entry.
    pub struct TokenText {
        /// Whose it is: the actor in the audit trail; unique.
        name: At<Name>,
        /// What the holder may do.
        role: Role,
        /// SHA-256 of the token's text, as 64 hex digits.
        sha256: At<Digest>,
    }
}

/// A SHA-256 in hex.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Digest([u8; 32]);

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Digest(..)")
    }
}

impl Scalar for Digest {
    const NAME: &'static str = "SHA-256";
    const KIND: &'static str = "a SHA-256 as 64 hex digits";
    const REMEDY: &'static str = "make an entry with `understudy token new --role ROLE`";

    fn read(text: &str) -> Result<Self, Misfit> {
        // The text is not repeated in the message: it may be the token itself, put here by mistake.
        let misfit = || Misfit::range("this is no SHA-256 of 64 hex digits", Self::REMEDY);
        let digits: Vec<u8> = text
            .chars()
            .map_while(|c| c.to_digit(16).and_then(|d| u8::try_from(d).ok()))
            .collect();
        if digits.len() != 64 || text.len() != 64 {
            return Err(misfit());
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = pair.iter().fold(0, |byte, digit| byte << 4 | digit);
        }
        Ok(Self(bytes))
    }
}

/// One token that opens the admin listener.
#[derive(Clone)]
pub struct Token {
    /// Whose it is: the actor in the audit trail.
    pub name: Arc<str>,
    /// What its holder may do.
    pub role: Role,
    /// SHA-256 of its text.
    pub sha256: [u8; 32],
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token")
            .field("name", &self.name)
            .field("role", &self.role)
            .finish_non_exhaustive()
    }
}

/// Reads a tokens file.
///
/// # Errors
/// `None` after at least one problem; names and tokens that stand twice are problems, too.
pub(super) fn parse(file: &Arc<str>, bytes: &[u8], problems: &mut Problems) -> Option<Vec<Token>> {
    let raw: TokensFile = decode(file, utf8(file, bytes, problems)?, problems)?;
    let (mut names, mut digests) = (BTreeMap::new(), BTreeMap::new());
    let mut tokens = Vec::with_capacity(raw.tokens.len());
    for (index, TokenText { name, role, sha256 }) in raw.tokens.into_iter().enumerate() {
        if let Some(first) = names.insert(name.value.clone(), name.place.line) {
            let what = format!("{} stands here a second time, after line {first}", quote(&name.value.0));
            problems.problem(
                name.place.clone(),
                format!("tokens[{index}].name"),
                what,
                "an actor has one token",
            );
        }
        if let Some(first) = digests.insert(sha256.value, sha256.place.line) {
            let what = format!("the same token as in line {first}");
            problems.problem(
                sha256.place,
                format!("tokens[{index}].sha256"),
                what,
                "make a token for each actor",
            );
        }
        tokens.push(Token {
            name: name.value.0.as_str().into(),
            role,
            sha256: sha256.value.0,
        });
    }
    Some(tokens)
}
