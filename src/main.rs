//! The binary: hands the arguments to [`cli`] and tells it what the demo is.

use std::process::ExitCode;

use understudy::{cli, demo};

fn main() -> ExitCode {
    cli::main(demo::run)
}
