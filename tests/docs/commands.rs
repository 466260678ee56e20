//! Finds the calls of our binary in a line, and asks the binary whether it knows them.

use std::process::Command;

/// One call of `understudy`: the words before the first option, and the options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    pub words: Vec<String>,
    pub options: Vec<String>,
}

/// The calls in a line of shell, of a unit file or of a Containerfile's JSON form.
pub fn calls(line: &str) -> Vec<Call> {
    let plain = line
        .replace("cargo run --release --", "understudy")
        .replace(['"', ',', '[', ']'], " ");
    let words: Vec<&str> = plain
        .split_whitespace()
        .take_while(|word| !word.starts_with('#'))
        .collect();
    let mut found = Vec::new();
    let is_binary = |word: &str| word == "understudy" || word.ends_with("/understudy");
    for (at, _) in words
        .iter()
        .enumerate()
        .filter(|(at, word)| is_binary(word) && is_command_position(&words[..*at]))
    {
        let rest = words[at + 1..]
            .iter()
            .take_while(|word| !matches!(**word, "|" | "||" | "&&" | ";" | "&" | ">" | "<"));
        let rest: Vec<&str> = rest.copied().collect();
        let options = rest.iter().filter(|word| word.starts_with('-'));
        found.push(Call {
            words: rest
                .iter()
                .take_while(|word| !word.starts_with('-'))
                .map(|word| (*word).to_owned())
                .collect(),
            options: options
                .map(|option| option.split('=').next().unwrap_or(option).to_owned())
                .collect(),
        });
    }
    found
}

/// Whether a command may begin behind these words: at the start, behind an operator, a prompt, a variable, or the word
/// that a unit file or Containerfile puts before a command.
fn is_command_position(before: &[&str]) -> bool {
    before.last().is_none_or(|word| {
        matches!(
            *word,
            "$" | "|" | "||" | "&&" | ";" | "exec" | "sudo" | "time" | "CMD" | "ENTRYPOINT"
        ) || (word.contains('=') && !word.starts_with('-'))
    })
}

/// What the binary says against a call, if anything.
pub fn refuse(binary: &str, call: &Call) -> Option<String> {
    let told = format!(
        "`understudy {}`",
        [call.words.clone(), call.options.clone()].concat().join(" ")
    );
    // The help of the verb, whatever its operands: it is printed before they are looked at.
    let output = Command::new(binary)
        .args(&call.words)
        .arg("--help")
        .output()
        .expect("the binary runs");
    let help = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        return Some(format!("{told}: {}", String::from_utf8_lossy(&output.stderr).trim()));
    }
    let knows = |option: &&String| {
        help.split(|c: char| c.is_whitespace() || matches!(c, ',' | '=' | '[' | ']' | '<'))
            .any(|word| word == option.as_str())
    };
    call.options
        .iter()
        .find(|option| !knows(option))
        .map(|option| format!("{told}: the help has no `{option}`"))
}
