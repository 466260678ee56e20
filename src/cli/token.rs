//! `understudy token`: makes a token, of which only the hash is ever stored.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::terminal::{json, plain, print};
use super::{BAD_INPUT, FAILED, Output, OutputArgs};
use crate::config::{RevokeError, TOKEN_PREFIX, read_tokens, without_token};
use crate::engine::ruleset::problem::Problem;

/// What can be done about tokens.
#[derive(Clone, Debug, Subcommand)]
pub(super) enum TokenVerb {
    /// Make a token: it is printed once, with the entry for the tokens file
    New(NewArgs),
    /// List who has a token, and for what
    List(ListArgs),
    /// Take a token out of a tokens file; everything else in the file stays as it is written
    Revoke(RevokeArgs),
}

/// The options of `understudy token list`.
#[derive(Clone, Debug, Args)]
pub(super) struct ListArgs {
    /// The tokens file
    #[arg(long, value_name = "FILE", default_value = "tokens.yaml")]
    file: PathBuf,
    #[command(flatten)]
    output: OutputArgs,
}

/// The options of `understudy token revoke`.
#[derive(Clone, Debug, Args)]
pub(super) struct RevokeArgs {
    /// Whose token
    #[arg(value_name = "NAME")]
    name: String,
    /// The tokens file
    #[arg(long, value_name = "FILE", default_value = "tokens.yaml")]
    file: PathBuf,
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
    /// Does it.
    pub fn execute(&self) -> ExitCode {
        match self {
            TokenVerb::List(args) => args.execute(),
            TokenVerb::New(args) => args.execute(),
            TokenVerb::Revoke(args) => args.execute(),
        }
    }
}

/// One token, as a list shows it.
#[derive(Serialize)]
struct Listed<'a> {
    name: &'a str,
    role: &'a str,
    environments: Option<&'a [String]>,
    flags: Option<&'a [String]>,
    rate: usize,
}

fn read(file: &Path) -> Result<String, ExitCode> {
    std::fs::read_to_string(file).map_err(|error| {
        eprintln!("{}: cannot be read: {error}", file.display());
        ExitCode::from(BAD_INPUT)
    })
}

fn tell(problems: &[Problem]) -> ExitCode {
    for problem in problems {
        eprintln!("{}", plain(&problem.to_string()));
    }
    ExitCode::from(BAD_INPUT)
}

impl ListArgs {
    fn execute(&self) -> ExitCode {
        let text = match read(&self.file) {
            Ok(text) => text,
            Err(code) => return code,
        };
        let tokens = match read_tokens(&self.file.to_string_lossy(), text.as_bytes()) {
            Ok(tokens) => tokens,
            Err(problems) => return tell(&problems),
        };
        let listed: Vec<Listed<'_>> = tokens
            .iter()
            .map(|token| Listed {
                name: &token.name,
                role: token.role.as_str(),
                environments: token.environments.as_deref(),
                flags: token.flags.as_deref(),
                rate: token.rate,
            })
            .collect();
        match self.output.output {
            Output::Json => print(&json(&listed)),
            Output::Table => print(&listed.iter().map(Listed::line).collect::<String>()),
        }
    }
}

impl Listed<'_> {
    fn line(&self) -> String {
        let scope = |name: &str, list: Option<&[String]>| match list {
            None => String::new(),
            Some([]) => format!("  {name} none"),
            Some(list) => format!("  {name} {}", plain(&list.join(", "))),
        };
        let (environments, flags) = (scope("environments", self.environments), scope("flags", self.flags));
        format!("{:<24} {:<9}{environments}{flags}\n", plain(self.name), self.role)
    }
}

impl RevokeArgs {
    fn execute(&self) -> ExitCode {
        let text = match read(&self.file) {
            Ok(text) => text,
            Err(code) => return code,
        };
        let left = match without_token(&self.file.to_string_lossy(), &text, &self.name) {
            Ok(left) => left,
            Err(RevokeError::Problems(problems)) => return tell(&problems),
            Err(error) => {
                let hint = match &error {
                    RevokeError::Unknown(Some(near)) => format!("; did you mean `{near}`?"),
                    _ => String::new(),
                };
                eprintln!("{}: {}: {error}{hint}", self.file.display(), plain(&self.name));
                return ExitCode::from(BAD_INPUT);
            }
        };
        if let Err(error) = replace(&self.file, &left) {
            eprintln!("{}: cannot be written: {error}", self.file.display());
            return ExitCode::from(FAILED);
        }
        eprintln!("taken out. a running instance must be RESTARTED: until then the token still opens it");
        ExitCode::SUCCESS
    }
}

/// Writes a file so that nobody ever sees half of it.
fn replace(file: &Path, text: &str) -> std::io::Result<()> {
    // What a link leads to is replaced, not the link.
    let file = file.canonicalize()?;
    let mut beside = file.clone().into_os_string();
    beside.push(".new");
    let mode = std::fs::metadata(&file)?.permissions();
    std::fs::write(&beside, text)?;
    std::fs::set_permissions(&beside, mode)?;
    std::fs::File::open(&beside)?.sync_all()?;
    std::fs::rename(&beside, &file)
}

impl NewArgs {
    /// Makes one.
    fn execute(&self) -> ExitCode {
        let args = self;
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
