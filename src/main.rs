//! The binary: hands the arguments to [`cli`] and tells it what the demo is.

use std::process::ExitCode;

use understudy::{cli, demo};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // The allocator would ask for huge pages, each larger than all that is in memory after the start. A kernel without them
    // says no, and that is as good.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
    cli::main(demo::run)
}
