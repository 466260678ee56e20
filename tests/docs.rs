//! Guards the documents: what they name exists, and what exists is documented.
//!
//! The second half proves that the readers under `docs/` see what they are meant to see.

#[path = "docs/commands.rs"]
mod commands;
#[path = "docs/markdown.rs"]
mod markdown;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Component, Path, PathBuf};

use commands::Call;
use understudy::telemetry::names;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Folders that hold nothing written by us.
const NOT_OURS: &[&str] = &[".git", ".venv", "node_modules", "target", "__pycache__"];

/// Every file below a folder of the tree, by its name from the root.
fn files(folder: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut open = vec![root().join(folder)];
    while let Some(folder) = open.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for path in entries.map(|entry| entry.expect("an entry of the folder").path()) {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if path.is_dir() && !NOT_OURS.contains(&name.as_str()) {
                open.push(path);
            } else if path.is_file() {
                let name = path
                    .strip_prefix(root())
                    .expect("found below the root")
                    .to_string_lossy()
                    .into_owned();
                found.push(name);
            }
        }
    }
    found.sort();
    found
}

/// Every Markdown file, with its text.
fn documents() -> BTreeMap<String, String> {
    files("")
        .into_iter()
        .filter(|name| name.ends_with(".md"))
        .map(|name| (name.clone(), read(&name)))
        .collect()
}

/// The file of the tree that a link in `from` leads to, a folder's README for a folder; its anchor apart.
fn follow(from: &str, target: &str) -> (String, Option<String>) {
    let (path, anchor) = match target.split_once('#') {
        Some((path, anchor)) => (path, Some(anchor.to_owned())),
        None => (target, None),
    };
    if path.is_empty() {
        return (from.to_owned(), anchor);
    }
    let mut place = PathBuf::new();
    for part in Path::new(from)
        .parent()
        .unwrap_or(Path::new(""))
        .join(path)
        .components()
    {
        match part {
            Component::ParentDir if place.pop() => {}
            Component::CurDir => {}
            part => place.push(part),
        }
    }
    if root().join(&place).is_dir() && root().join(&place).join("README.md").exists() {
        place.push("README.md");
    }
    (place.to_string_lossy().into_owned(), anchor)
}

fn is_elsewhere(target: &str) -> bool {
    ["http://", "https://", "mailto:"]
        .iter()
        .any(|scheme| target.starts_with(scheme))
}

#[track_caller]
fn none(broken: &[String]) {
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn readme_shows_how_to_start_and_how_to_test() {
    let typed = markdown::typed_lines(&read("README.md"));
    for command in ["cargo run --release -- demo", "./tests/run"] {
        assert!(
            typed.iter().any(|line| line.starts_with(command)),
            "README.md has no block that runs `{command}`"
        );
    }
}

#[test]
fn changelog_has_a_place_for_what_is_not_released() {
    let unreleased = |line: &str| line.starts_with("## ") && line.contains("Unreleased");
    assert!(
        read("CHANGELOG.md").lines().any(unreleased),
        "CHANGELOG.md has no `## Unreleased`"
    );
}

#[test]
fn every_link_between_documents_leads_somewhere() {
    let documents = documents();
    let mut broken = Vec::new();
    for (name, text) in &documents {
        for link in markdown::links(text).iter().filter(|link| !is_elsewhere(&link.target)) {
            let (file, anchor) = follow(name, &link.target);
            let at = format!("{name}:{}: {}", link.line, link.target);
            if !root().join(&file).exists() {
                broken.push(format!("{at}: there is no {file}"));
            } else if let Some((anchor, text)) = anchor.zip(documents.get(&file))
                && !markdown::anchors(text).contains(&anchor)
            {
                broken.push(format!("{at}: {file} has no heading for #{anchor}"));
            }
        }
    }
    none(&broken);
}

#[test]
fn every_document_is_reachable_from_the_readme_or_the_architecture() {
    let documents = documents();
    let mut reached = BTreeSet::new();
    let mut open = vec!["README.md".to_owned(), "ARCHITECTURE.md".to_owned()];
    while let Some(name) = open.pop() {
        if let Some(text) = documents.get(&name).filter(|_| reached.insert(name.clone())) {
            let targets = markdown::links(text)
                .into_iter()
                .filter(|link| !is_elsewhere(&link.target));
            open.extend(targets.map(|link| follow(&name, &link.target).0));
        } else {
            reached.insert(name);
        }
    }
    let lost = files("docs").into_iter().filter(|name| !reached.contains(name));
    none(
        &lost
            .map(|name| format!("no chain of links from README.md or ARCHITECTURE.md leads to {name}"))
            .collect::<Vec<_>>(),
    );
}

#[test]
fn every_metric_is_documented_with_its_kind_and_none_is_invented() {
    let rows = markdown::rows(&read("docs/metrics.md"));
    let mut broken = Vec::new();
    for (name, kind, _) in names::ALL {
        match rows.iter().find(|(span, _)| span == name) {
            None => broken.push(format!("docs/metrics.md has no row for `{name}`")),
            Some((_, cells)) if !cells.iter().any(|cell| cell == kind) => {
                broken.push(format!("docs/metrics.md: the row of `{name}` has no cell `{kind}`"));
            }
            Some(_) => {}
        }
    }
    let known: BTreeSet<&str> = names::ALL.iter().map(|(name, ..)| *name).collect();
    assert_eq!(known.len(), names::ALL.len(), "a metric name is written twice");
    let invented = rows.iter().filter(|(span, _)| !known.contains(span.as_str()));
    broken.extend(invented.map(|(span, _)| format!("docs/metrics.md: no metric is called `{span}`")));
    none(&broken);
}

#[test]
fn every_dependency_has_a_line_in_a_decision_record() {
    let records: String = files("docs/adr").iter().map(|name| read(name)).collect();
    let manifest = read("Cargo.toml");
    let tables = manifest.split("\n[").filter(|table| {
        table
            .split(']')
            .next()
            .is_some_and(|name| name.ends_with("dependencies"))
    });
    let names: Vec<&str> = tables
        .flat_map(|table| table.lines().skip(1))
        .filter_map(|line| line.split_once('=').map(|(name, _)| name.trim()))
        .collect();
    assert!(names.contains(&"tokio"), "dependencies not found in Cargo.toml");
    let missing = names.iter().filter(|name| !records.contains(&format!("`{name}`")));
    none(
        &missing
            .map(|name| format!("docs/adr/ does not say what `{name}` saves and pulls in"))
            .collect::<Vec<_>>(),
    );
}

#[test]
fn reference_of_the_configuration_is_the_one_the_program_writes() {
    let written = understudy::config::reference();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(root().join("docs/reference.md"), &written).expect("docs/ can be written");
    }
    let stored = read("docs/reference.md");
    let line = stored.lines().zip(written.lines()).position(|(a, b)| a != b);
    let line = line.unwrap_or_else(|| stored.lines().count().min(written.lines().count())) + 1;
    assert!(
        stored == written,
        "docs/reference.md differs from line {line} on. UPDATE_DOCS=1 cargo test --test docs writes it"
    );
}

#[test]
fn every_command_in_a_document_is_one_the_binary_knows() {
    let mut asked = BTreeMap::new();
    for (name, text) in documents() {
        for call in markdown::typed_lines(&text)
            .iter()
            .flat_map(|line| commands::calls(line))
        {
            asked.entry((call.words, call.options)).or_insert(name.clone());
        }
    }
    assert!(!asked.is_empty(), "no command found in any document");
    let refuse = |((words, options), name): ((Vec<String>, Vec<String>), String)| {
        let said = commands::refuse(env!("CARGO_BIN_EXE_understudy"), &Call { words, options })?;
        Some(format!("{name}: {said}"))
    };
    none(&asked.into_iter().filter_map(refuse).collect::<Vec<_>>());
}

#[test]
fn no_file_names_a_place_on_one_machine() {
    let mut broken = Vec::new();
    for name in files("") {
        let Ok(text) = fs::read_to_string(root().join(&name)) else {
            continue;
        };
        for (line, found) in machine_paths(&text) {
            broken.push(format!("{name}:{line}: {found} exists on one machine only"));
        }
    }
    none(&broken);
}

/// Paths below the folders that people and build machines call their own.
fn machine_paths(text: &str) -> Vec<(usize, String)> {
    // Put together here, so that this file does not find itself.
    let homes = ["home", "root", "Users", "builds", "work"].map(|home| format!("/{home}/"));
    let mut found = Vec::new();
    for (index, line) in text.lines().enumerate() {
        for home in &homes {
            for (at, _) in line.match_indices(home.as_str()) {
                // In the middle of a longer path or an address it is somebody's own folder name.
                let begins = line[..at]
                    .chars()
                    .next_back()
                    .is_none_or(|c| !c.is_alphanumeric() && !".-_}".contains(c));
                if begins {
                    let path: String = line[at..].chars().take_while(|c| !c.is_whitespace()).collect();
                    found.push((index + 1, path));
                }
            }
        }
    }
    found
}

#[test]
fn links_are_found_outside_code_only() {
    let text = "# A\n[a](b.md#c) and ![p](d.png \"title\") `[x](y)`\n```sh\n[no](no.md)\n```\n~~~\n[no](no.md)\n~~~\n\
                [ref]: <e.md>\n<img src=\"f.svg\">";
    let targets: Vec<_> = markdown::links(text)
        .into_iter()
        .map(|link| (link.target, link.line))
        .collect();
    let expected = [("b.md#c", 2), ("d.png", 2), ("e.md", 9), ("f.svg", 10)].map(|(t, l)| (t.to_owned(), l));
    assert_eq!(targets, expected);
    assert_eq!(
        follow("docs/adr/README.md", "../metrics.md#x"),
        ("docs/metrics.md".to_owned(), Some("x".to_owned()))
    );
    assert_eq!(follow("docs/a.md", "#x").0, "docs/a.md");
}

#[test]
fn anchors_are_made_as_hosts_make_them() {
    let text = "# One, `two` & three\n## Same\n## Same\n```\n# no\n```\n#no\n### 3. a-b_c";
    assert_eq!(markdown::anchors(text), ["one-two--three", "same", "same-1", "3-a-b_c"]);
}

#[test]
fn rows_of_tables_give_their_first_code_spans() {
    let rows = markdown::rows("| name | kind |\n| --- | --- |\n| `a`, `b` | counter |\n| c | `d` |\ntext `e`");
    let cells = vec!["counter".to_owned()];
    assert_eq!(rows, [("a".to_owned(), cells.clone()), ("b".to_owned(), cells)]);
}

#[test]
fn calls_are_found_in_every_form_that_documents_use() {
    let call = |words: &[&str], options: &[&str]| Call {
        words: words.iter().map(|word| (*word).to_owned()).collect(),
        options: options.iter().map(|option| (*option).to_owned()).collect(),
    };
    for (line, expected) in [
        ("understudy run --config a.yaml", vec![call(&["run"], &["--config"])]),
        (
            "$ ./understudy kill NAME --reason=R # why",
            vec![call(&["kill", "NAME"], &["--reason"])],
        ),
        ("cargo run --release -- demo", vec![call(&["demo"], &[])]),
        ("ExecStart=/usr/bin/env", vec![]),
        (
            "CMD [\"understudy\", \"run\", \"--config\", \"a\"]",
            vec![call(&["run"], &["--config"])],
        ),
        (
            "TOKEN=x understudy status | grep understudy",
            vec![call(&["status"], &[])],
        ),
        (
            "understudy check --config a && understudy status",
            vec![call(&["check"], &["--config"]), call(&["status"], &[])],
        ),
        ("systemctl reload understudy", vec![]),
    ] {
        assert_eq!(commands::calls(line), expected, "{line}");
    }
    let typed = markdown::typed_lines("```sh\na \\\n  b\nc\n```\n```yaml\nd\n```\nunderstudy e");
    assert_eq!(typed, ["a b", "c"]);
}

#[test]
fn unknown_verb_and_unknown_option_are_refused_by_the_binary() {
    let binary = env!("CARGO_BIN_EXE_understudy");
    let ask = |line: &str| {
        commands::calls(line)
            .iter()
            .find_map(|call| commands::refuse(binary, call))
    };
    assert_eq!(ask("understudy run --config x"), None);
    assert!(ask("understudy rnu --config x").is_some());
    assert!(ask("understudy run --confgi x").is_some_and(|said| said.contains("no `--confgi`")));
}

#[test]
fn machine_paths_are_told_from_paths_of_a_product() {
    let own = format!("see /{}/ann/x", "home");
    assert_eq!(machine_paths(&own), [(1, own[4..].to_owned())]);
    for fine in [
        "https://example.com/home/x",
        "/var/lib/understudy",
        "a/home/b",
        "match: /webhook/home",
    ] {
        assert!(machine_paths(fine).is_empty(), "{fine}");
    }
}

#[test]
fn every_requirement_says_where_it_works_and_what_shows_it() {
    let rows: Vec<Vec<String>> = read("docs/requirements.md")
        .lines()
        .filter(|line| line.starts_with("| S") || line.starts_with("| C"))
        .map(|line| {
            line.trim_matches('|')
                .split('|')
                .map(|cell| cell.trim().to_owned())
                .collect()
        })
        .collect();
    let systems = [("S0", 38), ("S1", 30), ("S2", 44), ("S3", 16), ("S4", 33)];
    let rows_of_systems = systems
        .into_iter()
        .flat_map(|(system, count)| (1..=count).map(move |n| format!("{system}-{n:02}")));
    let expected: Vec<String> = rows_of_systems.chain((1..=20).map(|n| format!("C{n}"))).collect();
    let found: Vec<&String> = rows.iter().map(|row| &row[0]).collect();
    assert_eq!(found, expected.iter().collect::<Vec<_>>(), "each row once, in order");
    let mut wrong = Vec::new();
    for row in &rows {
        let [id, place, shown] = row.as_slice() else {
            wrong.push(format!("{row:?}: not three cells"));
            continue;
        };
        let references: Vec<&str> = shown.split('`').skip(1).step_by(2).collect();
        if place.starts_with("later") != references.is_empty() {
            wrong.push(format!(
                "{id}: what works is shown by a test, and what comes later is not"
            ));
        }
        for reference in references {
            let (file, test) = reference.split_once("::").unwrap_or((reference, ""));
            let known = root().join(file).is_file() && (test.is_empty() || read(file).contains(&format!("fn {test}(")));
            if !known {
                wrong.push(format!("{id}: there is no {reference}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
