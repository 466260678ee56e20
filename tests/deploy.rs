//! Guards what `deploy/` ships: the unit and the Containerfile name commands, options and files that exist.

#[path = "docs/commands.rs"]
mod commands;

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

const UNIT: &str = "deploy/understudy.service";
const CONTAINERFILE: &str = "deploy/Containerfile";

/// The value of a `Key=` line of the unit.
fn setting(unit: &str, key: &str) -> Option<String> {
    unit.lines()
        .find_map(|line| Some(line.strip_prefix(key)?.strip_prefix('=')?.to_owned()))
}

#[test]
fn commands_of_the_unit_and_the_image_are_ones_the_binary_knows() {
    let unit = read(UNIT);
    let image = read(CONTAINERFILE);
    let instruction = |name: &str| {
        image
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .unwrap_or_default()
            .to_owned()
    };
    // A container is started with the one and the other behind it.
    let started = format!("{} {}", instruction("ENTRYPOINT "), instruction("CMD "));
    let lines = unit
        .lines()
        .filter(|line| line.starts_with("Exec"))
        .chain([started.as_str()]);
    let calls: Vec<_> = lines.flat_map(commands::calls).collect();
    let verbs: Vec<_> = calls
        .iter()
        .filter_map(|call| call.words.first().map(String::as_str))
        .collect();
    assert_eq!(verbs, ["check", "run", "run"]);
    let refused: Vec<String> = calls
        .iter()
        .filter_map(|call| commands::refuse(env!("CARGO_BIN_EXE_understudy"), call))
        .collect();
    assert!(refused.is_empty(), "{}", refused.join("\n"));
}

#[test]
fn files_that_the_image_copies_are_in_the_tree() {
    let text = read(CONTAINERFILE);
    let copies = text
        .lines()
        .filter_map(|line| line.strip_prefix("COPY "))
        .filter(|rest| !rest.starts_with("--from"));
    let mut count = 0;
    for copy in copies {
        let mut words: Vec<&str> = copy.split_whitespace().filter(|word| !word.starts_with("--")).collect();
        words.pop();
        for source in words {
            assert!(
                root().join(source).exists(),
                "{CONTAINERFILE} copies {source}, which is not there"
            );
            count += 1;
        }
    }
    assert!(count > 0, "{CONTAINERFILE} copies nothing");
    // Whoever builds from another compiler than the manifest asks for finds out after minutes.
    let manifest = read("Cargo.toml");
    let version = manifest
        .lines()
        .find_map(|line| line.strip_prefix("rust-version = "))
        .expect("a rust-version");
    let image = format!("rust:{}-", version.trim_matches('"'));
    assert!(text.contains(&image), "{CONTAINERFILE} does not build in {image}*");
}

#[test]
fn unit_stops_the_way_the_program_drains() {
    let unit = read(UNIT);
    assert_eq!(setting(&unit, "KillSignal").as_deref(), Some("SIGTERM"));
    assert!(setting(&unit, "ExecReload").is_some_and(|command| command.contains("-HUP $MAINPID")));
    let patience = setting(&unit, "TimeoutStopSec").and_then(|text| text.trim_end_matches('s').parse::<u32>().ok());
    // The drain takes at most 30 s; a unit that loses patience earlier cuts requests that would have been answered.
    assert!(
        patience.is_some_and(|seconds| seconds > 30),
        "TimeoutStopSec is {patience:?}"
    );
}

#[test]
fn the_socket_unit_opens_what_a_listener_can_name() {
    let unit = read("deploy/understudy.socket");
    let address = setting(&unit, "ListenStream").unwrap_or_default();
    assert!(address.parse::<std::net::SocketAddr>().is_ok(), "{address}");
    // systemd waits for the word that the program says.
    assert_eq!(setting(&read(UNIT), "Type").as_deref(), Some("notify"));
}

#[test]
fn unit_is_one_that_systemd_accepts() {
    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        // Straight to the terminal: what a passing test prints is swallowed, and a skipped check must be seen.
        let told = b"\nSKIPPED: systemd-analyze is not installed, so the unit is not verified\n";
        std::io::stderr()
            .write_all(told)
            .expect("standard error can be written");
        return;
    }
    // Verified with a command that exists here in place of the binary, which is only there once it is installed.
    let folder = std::env::temp_dir().join(format!("understudy-unit-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("the temporary folder can be written");
    let verify = |unit: &str| {
        let path = folder.join("understudy.service");
        fs::write(&path, unit).expect("the temporary folder can be written");
        let output = Command::new("systemd-analyze")
            .args(["verify", "--man=no"])
            .arg(&path)
            .output();
        let output = output.expect("systemd-analyze ran a moment ago");
        // Complaints about other units of this machine are not ours.
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        told.lines()
            .filter(|line| line.contains("understudy"))
            .collect::<Vec<_>>()
            .join("\n")
    };
    let unit = read(UNIT).replace("/usr/local/bin/understudy", "/bin/true");
    let told = verify(&unit);
    let told_of_a_broken_one = verify(&unit.replace("NoNewPrivileges=", "NoNewPriviledges="));
    fs::remove_dir_all(&folder).expect("the folder was just made");
    assert!(told.is_empty(), "{told}");
    assert!(
        told_of_a_broken_one.contains("NoNewPriviledges"),
        "systemd-analyze finds nothing wrong in a broken unit"
    );
}
