//! Reads of a Markdown text what the checks need: links, headings, code spans in tables, commands in fenced blocks.
//!
//! Pure. Not a Markdown parser: it knows fences, code spans, inline and reference links, images, and ATX headings,
//! which is what these documents are written in.

use std::collections::HashMap;

/// A link and the line that it stands on, from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    pub target: String,
    pub line: usize,
}

/// Lines outside fenced blocks, with their numbers, code spans blanked out if asked.
fn prose(text: &str, blank_code: bool) -> Vec<(usize, String)> {
    let mut fence: Option<String> = None;
    let mut found = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let trimmed = line.trim_start();
        let mark: String = trimmed.chars().take_while(|&c| c == '`' || c == '~').collect();
        match &fence {
            Some(open) if mark.starts_with(open.as_str()) && trimmed.trim_end() == mark => fence = None,
            Some(_) => {}
            None if mark.len() >= 3 => fence = Some(mark),
            None if blank_code => found.push((index + 1, without_code(line))),
            None => found.push((index + 1, line.to_owned())),
        }
    }
    found
}

fn without_code(line: &str) -> String {
    line.split('`')
        .enumerate()
        .map(|(index, part)| if index % 2 == 0 { part } else { "code" })
        .collect()
}

/// Targets of inline links, images, reference definitions and HTML's `src` and `href`.
pub fn links(text: &str) -> Vec<Link> {
    let mut found = Vec::new();
    for (line, prose) in prose(text, true) {
        let mut keep = |target: &str| {
            let target = target
                .split_whitespace()
                .next()
                .unwrap_or_default()
                .trim_matches(['<', '>']);
            found.push(Link {
                target: target.to_owned(),
                line,
            });
        };
        for (at, _) in prose.match_indices("](") {
            keep(prose[at + 2..].split(')').next().unwrap_or_default());
        }
        for attribute in ["src=\"", "href=\""] {
            for (at, _) in prose.match_indices(attribute) {
                keep(prose[at + attribute.len()..].split('"').next().unwrap_or_default());
            }
        }
        if let Some((_, target)) = prose.split_once("]: ").filter(|(label, _)| label.starts_with('[')) {
            keep(target);
        }
    }
    found
}

/// The anchors of a text's headings, as the common hosts make them: lower case, spaces to `-`, punctuation dropped,
/// a number behind the second of a name.
pub fn anchors(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut seen = HashMap::new();
    for (_, line) in prose(text, false) {
        let title = line.trim_start_matches('#');
        let level = line.len() - title.len();
        if !(1..=6).contains(&level) || !title.starts_with(' ') {
            continue;
        }
        let slug: String = title
            .trim()
            .chars()
            .filter(|&c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
            .map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() })
            .collect();
        let before = seen.entry(slug.clone()).or_insert(0);
        found.push(if *before == 0 { slug } else { format!("{slug}-{before}") });
        *before += 1;
    }
    found
}

/// The code spans in the first cell of each table row, with that row's other cells.
pub fn rows(text: &str) -> Vec<(String, Vec<String>)> {
    let mut found = Vec::new();
    for (_, line) in prose(text, false) {
        let Some(row) = line.trim().strip_prefix('|') else {
            continue;
        };
        let cells: Vec<&str> = row.trim_end_matches('|').split('|').map(str::trim).collect();
        for span in cells[0].split('`').skip(1).step_by(2) {
            found.push((
                span.to_owned(),
                cells[1..].iter().map(|cell| (*cell).to_owned()).collect(),
            ));
        }
    }
    found
}

/// The lines of fenced blocks that a reader types: blocks marked `sh`, `bash`, `console` or `shell`, continued lines joined.
pub fn typed_lines(text: &str) -> Vec<String> {
    let mut typed = false;
    let mut inside = false;
    let mut found: Vec<String> = Vec::new();
    let mut continued = false;
    for line in text.lines().map(str::trim) {
        if let Some(info) = line.strip_prefix("```") {
            inside = !inside;
            typed = inside && matches!(info.trim(), "sh" | "bash" | "console" | "shell");
            continued = false;
            continue;
        }
        if !typed {
            continue;
        }
        let part = line.strip_suffix('\\').unwrap_or(line).trim();
        match found.last_mut().filter(|_| continued) {
            Some(last) => *last = format!("{last} {part}"),
            None => found.push(part.to_owned()),
        }
        continued = line.ends_with('\\');
    }
    found
}
