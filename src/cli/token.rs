//! `understudy token`: makes a token, of which only the hash is ever stored.

use std::process::ExitCode;

use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::terminal::{json, print};
use super::{FAILED, Output, OutputArgs};
use crate::config::TOKEN_PREFIX;

/// What can be done about tokens.
#[derive(Clone, Debug, Subcommand)]
pub(super) enum TokenVerb {
    /// Make a token: it is printed once, with the entry for the tokens file
    New(NewArgs),
}

/// The options of `understudy token new`.
#[derive(Clone, Debug, Args)]
pub(super) struct NewArgs {
    /// What its holder may do: viewer reads; operator also kills and re-arms; admin does everything; emergency kills and
    /// reads the status, and nothing else; client evaluates flags
    #[arg(long, value_name = "ROLE", value_parser = PossibleValuesParser::new(["viewer", "operator", "admin", "emergency", "client"]))]
    role: String,
    /// Whose it is, for the audit trail; made up if left out
    #[arg(long, value_name = "NAME", value_parser = name)]
    name: Option<String>,
    #[command(flatten)]
    output: OutputArgs,
}

fn name(text: &str) -> Result<String, String> {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '@');
    let fits = (1..=200).contains(&text.len()) && text.chars().all(good);
    if fits {
        Ok(text.to_owned())
    } else {
        Err("a name is 1 to 200 letters, digits, `.`, `_`, `-` and `@`".to_owned())
    }
}

/// A token that was made.
#[derive(Serialize)]
struct Made<'a> {
    token: String,
    name: String,
    role: &'a str,
    sha256: String,
}

impl TokenVerb {
    /// Makes one.
    pub fn execute(&self) -> ExitCode {
        let TokenVerb::New(args) = self;
        let mut bits = [0; 32];
        if let Err(error) = getrandom::fill(&mut bits) {
            eprintln!("the operating system has no random bits: {error}");
            return ExitCode::from(FAILED);
        }
        let made = args.made(bits);
        match args.output.output {
            Output::Json => print(&json(&made)),
            Output::Table => {
                eprintln!(
                    "the token, which is shown only now, and its entry for the file that `admin.tokens_file` names,"
                );
                eprintln!(
                    "a list under `tokens:`. a running instance must be RESTARTED to take it: until then the token is refused"
                );
                print(&made.text())
            }
        }
    }
}

impl NewArgs {
    fn made(&self, bits: [u8; 32]) -> Made<'_> {
        // Letters in front, so that a token put into the file by mistake is no SHA-256.
        let token = format!("{TOKEN_PREFIX}{}", hex(&bits));
        let sha256 = hex(&Sha256::digest(&token));
        // The beginning of the hash tells made-up names apart and says nothing about the token.
        let short = sha256.get(..6).unwrap_or_default();
        let name = self.name.clone().unwrap_or_else(|| format!("{}-{short}", self.role));
        Made {
            token,
            name,
            role: &self.role,
            sha256,
        }
    }
}

impl Made<'_> {
    fn text(&self) -> String {
        let Self {
            token,
            name,
            role,
            sha256,
        } = self;
        format!("{token}\n- {{ name: \"{name}\", role: {role}, sha256: \"{sha256}\" }}\n")
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(name: Option<&str>) -> (String, String) {
        let output = OutputArgs { output: Output::Table };
        let args = NewArgs {
            role: "operator".into(),
            name: name.map(str::to_owned),
            output,
        };
        let text = args.made([7; 32]).text();
        let (token, entry) = text.split_once('\n').unwrap();
        (token.to_owned(), entry.to_owned())
    }

    #[test]
    fn entry_opens_with_the_token_that_was_printed() {
        let (token, entry) = made(Some("ann"));
        let read = |file: &std::path::Path| -> std::io::Result<Vec<u8>> {
            let config = "listeners: [{ address: 127.0.0.1:0 }]\nadmin: { tokens_file: t }\nbackends: { legacy: { url: \
                          \"http://a:1\" }, new: { url: \"http://b:1\" } }\nroutes: []\n";
            let text = if file.ends_with("t") {
                format!("tokens:\n  {entry}")
            } else {
                config.to_owned()
            };
            Ok(text.into_bytes())
        };
        let loaded = crate::config::load_by(std::path::Path::new("c"), &mut { read }).unwrap();
        let tokens = loaded.config.admin.tokens;
        assert_eq!((&*tokens[0].name, tokens[0].role.as_str()), ("ann", "operator"));
        assert_eq!(tokens[0].sha256, <[u8; 32]>::from(Sha256::digest(token)));
    }

    #[test]
    fn made_up_name_says_the_role_and_token_is_no_hash() {
        let (token, entry) = made(None);
        assert!(entry.contains("name: \"operator-"), "{entry}");
        assert!(token.starts_with("us_") && token.len() == 67, "{token}");
        assert!(name("a b").is_err() && name("").is_err() && name("ann@shop").is_ok());
    }
}
