//! Guards the layers: who may import whom, that nothing imports in a ring, that `engine` is pure, where wire formats
//! live, and how large a file may grow. The rules stand in `layers/rules.rs`.
//!
//! The second half proves that the guard bites: each rule is broken once in a small made-up tree.

#[path = "layers/lex.rs"]
mod lex;
#[path = "layers/rules.rs"]
mod rules;
#[path = "layers/tree.rs"]
mod tree;

use std::fs;
use std::path::{Path, PathBuf};

use tree::Tree;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("the folder exists") {
        let path = entry.expect("an entry of the folder").path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// The names under which Cargo.toml's dependencies are imported.
fn crates(manifest: &str) -> Vec<String> {
    let mut in_dependencies = false;
    let mut found = Vec::new();
    for line in manifest.lines() {
        if let Some(table) = line.strip_prefix('[') {
            in_dependencies = table.trim_end_matches(']').ends_with("dependencies");
        } else if let Some((name, _)) = line.split_once('=').filter(|_| in_dependencies) {
            found.push(name.trim().replace('-', "_"));
        }
    }
    found
}

#[test]
fn this_tree_keeps_every_rule() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).expect("Cargo.toml");
    let crates = crates(&manifest);
    assert!(
        crates.iter().any(|name| name == "serde_saphyr"),
        "dependencies not found in Cargo.toml"
    );
    let source_folder = root().join("src");
    let files: Vec<(String, String)> = sources(&source_folder)
        .iter()
        .map(|path| {
            let name = path
                .strip_prefix(&source_folder)
                .expect("found below src")
                .display()
                .to_string();
            (
                name.replace('\\', "/"),
                fs::read_to_string(path).expect("a source file is UTF-8"),
            )
        })
        .collect();
    let crates: Vec<&str> = crates.iter().map(String::as_str).collect();
    let tree = Tree::read(files.iter().map(|(name, text)| (name.as_str(), text.as_str())), &crates);
    let broken = rules::broken(&tree);
    assert!(
        broken.is_empty(),
        "{} rules broken, paths below src:\n{}",
        broken.len(),
        broken.join("\n")
    );
}

#[test]
fn every_test_and_bench_says_what_it_is_for() {
    for folder in ["tests", "benches"]
        .map(|folder| root().join(folder))
        .iter()
        .filter(|folder| folder.exists())
    {
        for path in sources(folder) {
            let text = fs::read_to_string(&path).expect("a source file is UTF-8");
            assert!(text.starts_with("//!"), "{} does not begin with `//!`", path.display());
        }
    }
}

#[test]
fn the_table_of_rooms_has_no_ring_and_no_unknown_name() {
    let rank = |room: &str| rules::ROOMS.iter().position(|(name, _)| *name == room);
    for (room, imports) in rules::ROOMS {
        for import in *imports {
            let import = import.split("::").next().expect("split yields one part at least");
            // Each line names only rooms of lines above it, so no chain of imports can come back.
            assert!(
                rank(import).is_some_and(|above| Some(above) < rank(room)),
                "{room} → {import}"
            );
        }
    }
}

/// The rules broken by a tree of these files, beside a `lib.rs` that mounts their rooms.
fn broken(files: &[(&str, &str)]) -> Vec<String> {
    let mut files: Vec<(String, String)> = files
        .iter()
        .map(|(name, text)| ((*name).to_owned(), format!("//! Text.\n{text}")))
        .collect();
    let mut mounts = std::collections::BTreeMap::<String, std::collections::BTreeSet<String>>::new();
    for (name, _) in &files {
        let mut parts: Vec<&str> = name
            .trim_end_matches(".rs")
            .trim_end_matches("/mod")
            .split('/')
            .collect();
        while let Some(last) = parts.pop().filter(|last| *last != "main" && *last != "lib") {
            let parent = if parts.is_empty() {
                "lib.rs".to_owned()
            } else {
                format!("{}/mod.rs", parts.join("/"))
            };
            mounts.entry(parent).or_default().insert(last.to_owned());
        }
    }
    for (parent, children) in mounts {
        let text: String = children.iter().map(|child| format!("pub mod {child};\n")).collect();
        match files.iter_mut().find(|(name, _)| *name == parent) {
            // A file that mounts its children itself does so under its own conditions.
            Some((_, own)) if own.contains("mod ") => {}
            Some((_, own)) => own.push_str(&text),
            None => files.push((parent, format!("//! Text.\n{text}"))),
        }
    }
    let crates = ["http", "hyper", "jiff", "rand", "serde", "serde_saphyr", "tokio"];
    rules::broken(&Tree::read(
        files.iter().map(|(name, text)| (name.as_str(), text.as_str())),
        &crates,
    ))
}

/// Asserts that exactly one rule is broken, and how it is told.
#[track_caller]
fn breaks(files: &[(&str, &str)], told: &str) {
    let found = broken(files);
    assert!(
        found.len() == 1 && found[0].contains(told),
        "expected `{told}`, found {found:#?}"
    );
}

#[track_caller]
fn holds(files: &[(&str, &str)]) {
    let found = broken(files);
    assert!(found.is_empty(), "expected nothing, found {found:#?}");
}

const SNAPSHOT: (&str, &str) = ("live/snapshot.rs", "pub struct Snapshot;");

#[test]
fn import_outside_the_table_is_found_in_every_spelling() {
    let told = "`config` may not import `live::snapshot`. it may import: engine, telemetry";
    for spelling in [
        "use crate::live::snapshot::Snapshot;",
        "use crate::live::{snapshot::{Snapshot as S, self}};",
        "use crate::{engine, live::snapshot::*};",
        "use super::live::snapshot;",
        "pub use crate::live::snapshot::Snapshot;",
        "pub(crate) use self::super::live::snapshot::Snapshot as _;",
        "fn f() -> crate::live::snapshot::Snapshot { todo() }",
        "fn f() { let x = Vec::<crate::live::snapshot::Snapshot>::new(); }",
        "mod inner { use super::super::live::snapshot::Snapshot; }",
        "macro_rules! m { () => { $crate::live::snapshot::Snapshot } }",
        "struct A { #[serde(with = \"crate::live::snapshot::Snapshot\")] b: u8 }",
        "fn f<'a>(c: char) -> bool { c == '\"' && crate::live::snapshot::check() }",
    ] {
        let found = broken(&[("config/mod.rs", spelling), ("engine/vocab.rs", ""), SNAPSHOT]);
        assert!(
            !found.is_empty() && found.iter().all(|line| line.contains(told)),
            "{spelling}: {found:#?}"
        );
    }
}

#[test]
fn import_through_a_rename_or_a_re_export_is_found_at_its_owner() {
    let told = "`config` may not import `live::snapshot`";
    breaks(
        &[
            ("config/mod.rs", "use crate::Snapshot;"),
            (
                "lib.rs",
                "pub mod config; pub mod live; pub use live::snapshot::Snapshot;",
            ),
            SNAPSHOT,
        ],
        told,
    );
    let found = broken(&[
        ("config/mod.rs", "use crate::live as l; fn f() { l::snapshot::go() }"),
        SNAPSHOT,
    ]);
    assert!(
        found.len() == 2 && found[0].contains(told) && found[1].contains("import `live`"),
        "{found:#?}"
    );
    breaks(
        &[
            ("cli/mod.rs", "use crate::app::Forward;"),
            ("app.rs", "pub use crate::proxy::Forward;"),
            ("proxy.rs", ""),
        ],
        "`cli` may not import `proxy`",
    );
}

#[test]
fn name_in_a_comment_a_text_or_a_test_is_no_import() {
    holds(&[
        (
            "config/mod.rs",
            r##"
            // use crate::live::snapshot;
            /* crate::live::snapshot /* crate::live */ crate::live::x */
            const A: &str = "see crate::live::snapshot::Snapshot for more";
            const B: &str = r#"use crate::live; " crate::live::snapshot"#;
            #[cfg(test)]
            use crate::live::{snapshot, snapshot::Snapshot};
            #[cfg(all(test, unix))]
            const fn helper(a: [u8; 2]) { crate::live::snapshot::go() }
            #[cfg(test)]
            #[allow(dead_code, reason = "text")]
            pub(crate) mod tests { fn f() { crate::live::snapshot::go() } }
            fn f() { A { #[cfg(test)] a: crate::live::go(), b: 1 } }
            "##,
        ),
        SNAPSHOT,
    ]);
    holds(&[
        ("config/mod.rs", "#[cfg(test)] mod tests;"),
        ("config/tests.rs", "use crate::live::snapshot;"),
        SNAPSHOT,
    ]);
    holds(&[
        ("config/mod.rs", "#[cfg(test)] mod tests;"),
        ("config/tests/deep.rs", "use crate::live;"),
        SNAPSHOT,
    ]);
}

#[test]
fn code_that_also_exists_outside_tests_is_looked_at() {
    let told = "`config` may not import `live::snapshot`";
    for condition in [
        "not(test)",
        "any(test, unix)",
        "feature = \"test\"",
        "all(unix, not(test))",
    ] {
        breaks(
            &[
                (
                    "config/mod.rs",
                    &format!("#[cfg({condition})] use crate::live::snapshot;"),
                ),
                SNAPSHOT,
            ],
            told,
        );
    }
    // What follows a test item is not swallowed with it.
    for item in [
        "const A: u8 = 1;",
        "fn f() {}",
        "use std::fmt::{self};",
        "struct B(u8);",
        "const C: X = X { a: 1 };",
    ] {
        let text = format!("#[cfg(test)] {item} use crate::live::snapshot;");
        breaks(&[("config/mod.rs", &text), SNAPSHOT], told);
    }
}

#[test]
fn every_forbidden_pair_of_rooms_is_refused_and_every_allowed_one_passes() {
    let rooms: Vec<&str> = rules::ROOMS
        .iter()
        .map(|(room, _)| *room)
        .filter(|room| *room != "main")
        .collect();
    for (from, allowed) in rules::ROOMS.iter().filter(|(room, _)| *room != "main") {
        for to in rooms.iter().filter(|to| *to != from) {
            let import = format!("use crate::{to};");
            let found = broken(&[(&format!("{from}/mod.rs"), &import), (&format!("{to}/mod.rs"), "")]);
            assert_eq!(found.is_empty(), allowed.contains(to), "{from} → {to}: {found:#?}");
        }
    }
}

#[test]
fn every_pair_inside_engine_points_left_or_is_refused() {
    let rooms: Vec<(usize, &str)> = rules::ENGINE_GROUPS
        .iter()
        .enumerate()
        .flat_map(|(rank, group)| group.iter().map(move |room| (rank, *room)))
        .collect();
    for (from_rank, from) in &rooms {
        for (to_rank, to) in rooms.iter().filter(|(_, to)| to != from) {
            let import = format!("use crate::engine::{to}::Thing;");
            let found = broken(&[
                (&format!("engine/{from}.rs"), &import),
                (&format!("engine/{to}.rs"), ""),
            ]);
            assert_eq!(found.is_empty(), to_rank < from_rank, "{from} → {to}: {found:#?}");
        }
    }
}

#[test]
fn facade_of_engine_neither_hides_an_import_nor_owns_items() {
    let facade = (
        "engine/mod.rs",
        "pub mod decide; pub mod explain; pub use explain::Why; pub struct Own;",
    );
    let explain = ("engine/explain.rs", "");
    breaks(
        &[facade, ("engine/decide.rs", "use super::Why;"), explain],
        "`engine::decide` may not import `engine::explain`",
    );
    breaks(
        &[facade, ("engine/decide.rs", "use super::Own;"), explain],
        "`Own` of engine/mod.rs",
    );
    holds(&[
        facade,
        ("engine/decide.rs", ""),
        explain,
        ("proxy/mod.rs", "use crate::engine::{Own, Why};"),
    ]);
}

#[test]
fn only_the_dto_of_admin_is_open_to_the_command_line() {
    let admin = [("admin/dto.rs", ""), ("admin/server.rs", "")];
    holds(&[admin[0], admin[1], ("cli/mod.rs", "use crate::admin::dto::Status;")]);
    breaks(
        &[admin[0], admin[1], ("cli/mod.rs", "use crate::admin::server;")],
        "`cli` may not import `admin::server`",
    );
    breaks(
        &[admin[0], admin[1], ("demo/mod.rs", "use crate::admin;")],
        "`demo` may not import `admin`",
    );
}

#[test]
fn binary_and_root_are_no_way_around() {
    holds(&[
        ("main.rs", "use understudy::cli; fn main() { cli::main() }"),
        ("cli/mod.rs", ""),
    ]);
    breaks(
        &[("main.rs", "use understudy::proxy;"), ("proxy.rs", "")],
        "`main` may not import `proxy`",
    );
    breaks(
        &[
            ("config.rs", "use crate::VERSION;"),
            ("lib.rs", "pub mod config; pub const VERSION: u8 = 1;"),
        ],
        "`VERSION` of the crate root",
    );
    breaks(&[("config.rs", "use crate::*;")], "`the whole crate` of the crate root");
}

#[test]
fn room_outside_the_table_is_refused() {
    breaks(&[("helpers.rs", "")], "room `helpers` is not in the table");
    breaks(&[("engine/misc/mod.rs", "")], "room `engine::misc` is not in the table");
}

#[test]
fn ring_is_found_among_the_children_of_any_folder() {
    let told = "a ring: proxy::body";
    let body = ("proxy/body.rs", "use super::forward::Forward;");
    breaks(
        &[body, ("proxy/forward.rs", "fn f(_: crate::proxy::body::Body) {}")],
        told,
    );
    breaks(
        &[
            body,
            ("proxy/forward.rs", "use super::Wait;"),
            ("proxy/wait/mod.rs", "use super::body;"),
            ("proxy/mod.rs", "mod body; mod forward; mod wait; pub use wait::Wait;"),
        ],
        told,
    );
    breaks(
        &[
            ("engine/flags/mod.rs", "mod a; mod b;"),
            ("engine/flags/a.rs", "use super::b;"),
            ("engine/flags/b.rs", "use super::a;"),
        ],
        "a ring: engine::flags::a",
    );
    // A child that uses what its parent defines, while the parent calls the child, is one unit and no ring.
    holds(&[
        ("proxy/mod.rs", "mod body; pub struct P; fn f() { body::go() }"),
        ("proxy/body.rs", "use super::P;"),
    ]);
}

#[test]
fn impure_name_in_engine_is_refused() {
    for (spelling, told) in [
        ("use tokio::sync::Notify;", "may not use crate `tokio`"),
        ("fn f() { ::rand::random() }", "may not use crate `rand`"),
        ("fn f() -> hyper::Error { g() }", "may not use crate `hyper`"),
        ("use std::{fmt, fs};", "`std::fs` is files"),
        ("fn f() { std::fs::read(p) }", "`std::fs` is files"),
        ("use std::time::{Duration, Instant};", "`std::time::Instant` is a clock"),
        ("use std::time::*;", "is a clock"),
        (
            "use std::time; fn f() { time::SystemTime::elapsed() }",
            "`std::time::SystemTime` is a clock",
        ),
        (
            "use jiff::Timestamp; fn f() { Timestamp::now(); }",
            "calls `jiff::Timestamp::now`, a clock",
        ),
        (
            "use jiff::Timestamp as T; fn f() { g(T::now); }",
            "calls `jiff::Timestamp::now`, a clock",
        ),
        ("fn f() { jiff::tz::TimeZone::system(); }", "is the environment"),
        (
            "fn f() { core::sync::atomic::fence() }",
            "`std::sync::atomic` is state shared",
        ),
        ("use std::net::IpAddr;", "`std::net` is sockets"),
        ("use std::env::var;", "`std::env` is the environment"),
        ("use std::thread;", "`std::thread` is threads"),
        ("use std::hash::RandomState;", "is a random source"),
        ("fn f() { println!(\"x\") }", "calls `println!`"),
        ("const A: &str = env!(\"HOME\");", "calls `env!`"),
        (
            "use serde_saphyr::Spanned;",
            "`serde_saphyr` is for `engine::ruleset::yaml` alone",
        ),
    ] {
        breaks(&[("engine/decide.rs", spelling)], told);
        // Each of these is somebody's job elsewhere, or would be if the crate were there.
        holds(&[("telemetry/mod.rs", spelling)]);
    }
    holds(&[(
        "engine/decide.rs",
        "use std::time::Duration; use std::sync::Arc; use http::Method; use jiff::Timestamp;",
    )]);
    holds(&[("engine/ruleset/yaml.rs", "use serde_saphyr::Spanned;")]);
    // An exception is for the module that it names, and no wider.
    let mark = "use std::sync::atomic::AtomicU32;";
    holds(&[("engine/flags/schedule.rs", mark)]);
    breaks(
        &[("engine/flags/bucket.rs", mark)],
        "`std::sync::atomic` is state shared",
    );
}

#[test]
fn wire_format_outside_its_files_is_refused() {
    for spelling in [
        "#[derive(Clone, Serialize)] struct A;",
        "#[derive(Clone, serde::Deserialize)] struct A;",
        "#[cfg_attr(unix, derive(Serialize))] struct A;",
        "impl<'de> serde::Deserialize<'de> for A {}",
    ] {
        let found = broken(&[("live/mod.rs", spelling)]);
        assert!(
            found.len() == 1 && found[0].contains("outside the wire formats"),
            "{spelling}: {found:#?}"
        );
        holds(&[("store/record.rs", spelling), ("admin/dto/status.rs", spelling)]);
    }
    holds(&[(
        "live/mod.rs",
        "struct Serialize; impl Clone for A { fn f() { Serialize; } }",
    )]);
}

#[test]
fn code_that_this_guard_cannot_see_is_refused() {
    breaks(&[("live/mod.rs", "#[path = \"x.rs\"] mod x;")], "`#[path]`");
    breaks(&[("live/mod.rs", "include!(\"x.rs\");")], "`include!`");
    breaks(&[("live/mod.rs", "pub use self::x::*; mod x {}")], "a glob re-export");
    let found = broken(&[
        ("live/mod.rs", "pub mod tally;"),
        ("live/tally.rs", ""),
        ("live/lost.rs", ""),
    ]);
    assert!(found.len() == 1 && found[0].contains("no `mod lost;`"), "{found:#?}");
}

#[test]
fn file_without_a_head_or_with_too_many_lines_is_refused() {
    let crates = ["serde"];
    let read = |text: &str| rules::broken(&Tree::read([("lib.rs", text)], &crates));
    assert!(read("//! Text.\n").is_empty());
    assert!(read("use std::fmt;\n")[0].contains("does not begin with `//!`"));
    let full = format!(
        "//! Text.\n{}",
        "const A: u8 = 1;\n".repeat(rules::FILE_LIMIT_LINES - 1)
    );
    assert!(read(&full).is_empty());
    assert!(read(&format!("{full}fn one_more() {{}}\n"))[0].contains("601 lines without tests"));
    let tests = format!("#[cfg(test)]\nmod tests {{\n{}}}\n", "    // line\n".repeat(500));
    assert!(read(&format!("{full}{tests}")).is_empty());
}
