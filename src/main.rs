//! The binary: the command line, and the demo that it is given.

use std::process::ExitCode;

fn main() -> ExitCode {
    understudy::cli::main(understudy::demo::run)
}
