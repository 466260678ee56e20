//! `understudy flags allow` and `understudy flags deny`: a subject on a list of a flag, or off it.

use std::process::ExitCode;

use clap::Args;
use http::Method;

use super::change::ChangeArgs;
use super::declared;
use super::named::{NamedWith, path_of};
use crate::cli::BAD_INPUT;
use crate::cli::terminal::plain;
use crate::engine::flags::subjects::SubjectSet;
use crate::engine::ruleset::layer::{Setting, settled};

/// The options of `understudy flags allow` and `deny`.
#[derive(Clone, Debug, Args)]
#[command(override_usage = "understudy flags <allow|deny> [OPTIONS] <FLAG> <SUBJECT>...")]
pub(in crate::cli) struct ListedArgs {
    #[command(flatten)]
    named: NamedWith,
    /// The flag, then the keys of subjects
    #[arg(value_name = "FLAG SUBJECT")]
    operands: Vec<String>,
    /// Take them off the list. One that is empty then stays: an empty allowlist is nobody
    #[arg(long)]
    remove: bool,
    #[command(flatten)]
    change: ChangeArgs,
}

impl ListedArgs {
    /// Who alone is on. Exit code 0: in force and on disk.
    pub fn allow(&self) -> ExitCode {
        self.execute("allowlist")
    }

    /// Who never is on. Exit code 0: in force and on disk.
    pub fn deny(&self) -> ExitCode {
        self.execute("denylist")
    }

    fn execute(&self, list: &'static str) -> ExitCode {
        let (key, subjects) = match self.named.split(&self.operands) {
            Ok((key, subjects)) if !subjects.is_empty() => (key, subjects),
            Ok(_) => {
                eprintln!("which subjects?");
                return ExitCode::from(BAD_INPUT);
            }
            Err(what) => {
                eprintln!("{what}");
                return ExitCode::from(BAD_INPUT);
            }
        };
        let (flag, members) = match declared::one(&self.change.remote, key) {
            Ok(found) => found,
            Err(error) => return error.report(),
        };
        let said = if list == "allowlist" {
            members.allowlist
        } else {
            members.denylist
        };
        let known = listed(said);
        let keys = changed(known.as_deref(), subjects, self.remove);
        match (list, &known, keys.is_empty()) {
            ("allowlist", None, false) => {
                eprintln!(
                    "{}: it had no allowlist; with one it is on for nobody else, whatever the percentage says",
                    plain(key)
                );
            }
            ("allowlist", _, true) => eprintln!(
                "{}: an empty allowlist is nobody; `set {0} allowlist=null` removes it",
                plain(key)
            ),
            _ => {}
        }
        let body = serde_json::json!({ list: keys }).to_string();
        // What was read is what is added to, unless somebody was faster.
        self.change
            .execute(Method::PATCH, &path_of(key), Some(flag.revision), body)
    }
}

fn listed(list: Setting<SubjectSet>) -> Option<Vec<String>> {
    settled(list).map(|list| list.value.iter().map(str::to_owned).collect())
}

/// The list with these subjects, each once, or without them.
fn changed(known: Option<&[String]>, subjects: &[String], remove: bool) -> Vec<String> {
    let mut keys: Vec<String> = known.unwrap_or_default().to_vec();
    if remove {
        keys.retain(|key| !subjects.contains(key));
        return keys;
    }
    for subject in subjects {
        if !keys.contains(subject) {
            keys.push(subject.clone());
        }
    }
    keys
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects_are_listed_once_in_their_order_and_taken_off() {
        let texts = |list: &[&str]| list.iter().map(|key| (*key).to_owned()).collect::<Vec<_>>();
        let known = texts(&["a", "b"]);
        assert_eq!(changed(Some(&known), &texts(&["b", "c", "c"]), false), ["a", "b", "c"]);
        assert_eq!(changed(Some(&known), &texts(&["a", "x"]), true), ["b"]);
        assert_eq!(changed(None, &texts(&["a"]), false), ["a"]);
    }
}
