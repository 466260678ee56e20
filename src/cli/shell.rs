//! `understudy completions` and `understudy man`: made from the declarations of the verbs themselves.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Command};
use clap_complete::Shell;
use clap_mangen::Man;

use super::FAILED;
use super::terminal::print;

/// The name under which the binary is called.
const NAME: &str = "understudy";

/// The options of `understudy completions`.
#[derive(Clone, Copy, Debug, Args)]
pub(super) struct CompletionsArgs {
    /// For this shell: bash and zsh read the text from a file, fish from its folder of completions
    #[arg(value_enum, value_name = "SHELL")]
    shell: Shell,
}

impl CompletionsArgs {
    /// Prints them.
    pub fn execute(self, mut command: Command) -> ExitCode {
        let mut text = Vec::new();
        clap_complete::generate(self.shell, &mut command, NAME, &mut text);
        print(&String::from_utf8_lossy(&text))
    }
}

/// The options of `understudy man`.
#[derive(Clone, Debug, Args)]
pub(super) struct ManArgs {
    /// Write a page for every command into this folder instead
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
}

impl ManArgs {
    /// Prints the page, or writes them.
    pub fn execute(&self, command: Command) -> ExitCode {
        let Some(folder) = &self.out else {
            return match page(command) {
                Ok(text) => print(&text),
                Err(error) => failed("the manual page could not be made", &error),
            };
        };
        match pages(command, folder) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => failed(&format!("no page could be written to {}", folder.display()), &error),
        }
    }
}

fn failed(what: &str, error: &io::Error) -> ExitCode {
    eprintln!("{what}: {error}");
    ExitCode::from(FAILED)
}

fn page(command: Command) -> io::Result<String> {
    let mut text = Vec::new();
    Man::new(command).render(&mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

fn pages(mut command: Command, folder: &Path) -> io::Result<()> {
    std::fs::create_dir_all(folder)?;
    // Only a command that was built knows the whole names of those below it.
    command.build();
    clap_mangen::generate_to(command, folder)
}
