//! The tokens file: who may do what at the admin listener. It holds hashes only; the tokens are with their owners.
//!
//! Pure. In: the file's bytes. Out: the tokens, or problems. Comparing a presented token is left to `admin::auth`.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::engine::ruleset::decode::{At, Misfit, Scalar, decode, record, words};
use crate::engine::ruleset::problem::{Problem, Problems, near, quote};
use crate::engine::ruleset::yaml::{self, Node, Value, utf8};

use super::raw::scalar::{Count, Name};

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
        /// It opens only instances whose `environment` is one of these. Everywhere if left out.
        environments: Option<Vec<String>>,
        /// The holder sees, changes and evaluates only flags whose keys begin with one of these, and at the admin API nothing
        /// that is about more than one flag but their list and the status. All flags if left out.
        flags: Option<Vec<String>>,
        /// Requests to the admin API per minute; a sixth of them may come at once. A kill is never counted.
        rate: Count = "6000",
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
    /// Where it opens anything; everywhere if `None`.
    pub environments: Option<Arc<[String]>>,
    /// How the keys of the flags begin that it is for; all if `None`.
    pub flags: Option<Arc<[String]>>,
    /// Requests per minute.
    pub rate: usize,
}

impl Token {
    /// Whether it opens anything in this environment.
    #[must_use]
    pub fn is_for(&self, environment: &str) -> bool {
        self.environments
            .as_ref()
            .is_none_or(|list| list.iter().any(|name| name == environment))
    }

    /// Whether its holder may know of the flag of this name.
    #[must_use]
    pub fn is_for_flag(&self, flag: &str) -> bool {
        begins_with_one_of(self.flags.as_deref(), flag)
    }
}

/// Whether a token with these `flags` is for the flag of this name.
#[must_use]
pub fn begins_with_one_of(beginnings: Option<&[String]>, flag: &str) -> bool {
    beginnings.is_none_or(|list| list.iter().any(|beginning| flag.starts_with(beginning.as_str())))
}

/// Reads a tokens file that is not part of a configuration.
///
/// # Errors
/// All problems.
pub fn read_tokens(file: &str, bytes: &[u8]) -> Result<Vec<Token>, Vec<Problem>> {
    let mut problems = Problems::default();
    let tokens = parse(&file.into(), bytes, &mut problems);
    problems.verdict()?;
    Ok(tokens.unwrap_or_default())
}

/// Why an entry cannot be taken out of a tokens file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RevokeError {
    /// The file is written in a way that a line cannot be taken out of.
    #[error("the entry does not stand on lines of its own; take it out by hand")]
    Interwoven,
    /// Without any token everybody on the machine may read.
    #[error("it is the last token, and without any everybody on this machine may read; make another one first")]
    Last,
    /// The file has problems.
    #[error("the file has problems")]
    Problems(Vec<Problem>),
    /// No entry has this name; the nearest that there is.
    #[error("no token has this name")]
    Unknown(Option<String>),
}

/// The text of a tokens file without the entry of this name; everything else in it stays as it was written.
///
/// # Errors
/// [`RevokeError`].
pub fn without_token(file: &str, text: &str, name: &str) -> Result<String, RevokeError> {
    let before = read_tokens(file, text.as_bytes()).map_err(RevokeError::Problems)?;
    if !before.iter().any(|token| &*token.name == name) {
        let near = near(name, before.iter().map(|token| &*token.name));
        return Err(RevokeError::Unknown(near.map(str::to_owned)));
    }
    if before.len() == 1 {
        return Err(RevokeError::Last);
    }
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let (first, after) = lines_of(file, text, name).ok_or(RevokeError::Interwoven)?;
    let kept = lines.iter().enumerate().filter(|(at, _)| !(first..after).contains(at));
    let kept: String = kept.map(|(_, line)| *line).collect();
    // Read again: of all ways to write such a file, those in which the lines are the entry are the ones that count.
    let left = read_tokens(file, kept.as_bytes()).map_err(|_| RevokeError::Interwoven)?;
    let expected = before.iter().filter(|token| &*token.name != name);
    let same = |(a, b): (&Token, &Token)| a.name == b.name && a.role == b.role && a.sha256 == b.sha256;
    if left.len() + 1 == before.len() && left.iter().zip(expected).all(same) {
        Ok(kept)
    } else {
        Err(RevokeError::Interwoven)
    }
}

/// The first line of an entry, from 0, and the one after its last.
fn lines_of(file: &str, text: &str, name: &str) -> Option<(usize, usize)> {
    fn last_line(node: &Node<'_>) -> u32 {
        let inner = match &node.value {
            Value::Mapping(entries) => entries.iter().map(|entry| last_line(&entry.value)).max(),
            Value::Sequence(items) => items.iter().map(last_line).max(),
            Value::Plain(_) | Value::Quoted(_) => None,
        };
        inner.unwrap_or(node.mark.line).max(node.mark.line)
    }
    let tree = yaml::parse(&file.into(), text, &mut Problems::default())?;
    let Value::Mapping(top) = &tree.value else { return None };
    let Value::Sequence(items) = &top.iter().find(|entry| entry.key == "tokens")?.value.value else {
        return None;
    };
    let item = items.iter().find(|item| {
        let Value::Mapping(members) = &item.value else {
            return false;
        };
        let mut names = members.iter().filter(|member| member.key == "name");
        names.any(|member| member.value.text() == Some(name))
    })?;
    let first = usize::try_from(item.mark.line).ok()?.checked_sub(1)?;
    let last = usize::try_from(last_line(item)).ok()?;
    Some((first, last))
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
    for (index, written) in raw.tokens.into_iter().enumerate() {
        let TokenText {
            name,
            role,
            sha256,
            environments,
            flags,
            rate,
        } = written;
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
            environments: environments.map(Into::into),
            flags: flags.map(Into::into),
            rate: rate.0,
        });
    }
    Some(tokens)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: [&str; 3] = ["11", "22", "33"];

    fn entry(name: &str, hash: &str) -> String {
        format!("{{ name: {name}, role: viewer, sha256: \"{}\" }}", hash.repeat(32))
    }

    #[test]
    fn revoked_entry_goes_and_everything_else_stays_as_it_was_written() {
        let [a, b, c] = ["ann", "bob", "eve"].map(str::to_owned);
        let text = format!(
            "# who may\ntokens:\n  - {}\n  - name: {b}\n    role: viewer\n    sha256: \"{}\"\n  # the last\n  - {}\n",
            entry(&a, HASH[0]),
            HASH[1].repeat(32),
            entry(&c, HASH[2])
        );
        let left = without_token("t", &text, "bob").unwrap();
        assert!(
            left.contains("# who may") && left.contains("# the last") && !left.contains("bob"),
            "{left}"
        );
        let left = without_token("t", &left, "ann").unwrap();
        assert_eq!(read_tokens("t", left.as_bytes()).unwrap().len(), 1);
        assert_eq!(without_token("t", &left, "eve"), Err(RevokeError::Last));
        assert_eq!(
            without_token("t", &text, "evee"),
            Err(RevokeError::Unknown(Some("eve".to_owned())))
        );
    }

    #[test]
    fn entry_that_shares_its_line_is_left_to_a_person() {
        let text = format!("tokens: [ {}, {} ]\n", entry("ann", HASH[0]), entry("bob", HASH[1]));
        assert_eq!(without_token("t", &text, "ann"), Err(RevokeError::Interwoven));
    }

    #[test]
    fn scope_and_rate_are_read() {
        let text = format!(
            "tokens:\n  - {{ name: a, role: operator, sha256: \"{}\", environments: [staging], flags: [shop-], rate: 5 }}\n",
            HASH[0].repeat(32)
        );
        let tokens = read_tokens("t", text.as_bytes()).unwrap();
        assert!(tokens[0].is_for("staging") && !tokens[0].is_for("production"));
        assert_eq!(
            (tokens[0].flags.as_deref().unwrap(), tokens[0].rate),
            (&["shop-".to_owned()][..], 5)
        );
    }
}
