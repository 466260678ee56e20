//! Flags as a file declares them, and as an instance has them: what `export` writes and `apply` compares.
//!
//! Two flags are the same if they are written the same: `engine` has one form for what a flag says.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

use super::FLAGS;
use super::list;
use crate::admin::dto::{Flag, FlagFile};
use crate::cli::client::{CallError, Remote, segment};
use crate::engine::ruleset::decode::Decoder;
use crate::engine::ruleset::document::Document;
use crate::engine::ruleset::json;
use crate::engine::ruleset::layer::{Layer, Members};
use crate::engine::ruleset::problem::{Problem, Problems};
use crate::engine::ruleset::write::{flag_json, layer_yaml};
use crate::engine::ruleset::yaml::{self, TEXT_LIMIT_BYTES};
use crate::engine::vocab::FlagKey;

/// What an instance has.
#[derive(Debug)]
pub(super) struct Present {
    /// What all sources together say.
    pub merged: Layer,
    /// What was said at run time; its types filled in where only another source says them.
    pub runtime: Layer,
    /// Of the flags of `runtime`.
    pub revisions: BTreeMap<FlagKey, u64>,
}

/// Reads a flag file.
///
/// # Errors
/// Every problem, or why the file cannot be read.
pub(super) fn file(path: &Path) -> Result<Layer, Vec<String>> {
    let name: Arc<str> = path.display().to_string().into();
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(TEXT_LIMIT_BYTES as u64 + 1).read_to_end(&mut bytes));
    read.map_err(|error| vec![format!("{name}: {error}")])?;
    let mut problems = Problems::default();
    let document =
        yaml::utf8(&name, &bytes, &mut problems).and_then(|text| Document::parse(&name, text, &mut problems));
    settled(document, problems).map_err(|problems| problems.iter().map(ToString::to_string).collect())
}

fn settled(document: Option<Document>, mut problems: Problems) -> Result<Layer, Vec<Problem>> {
    let layer = document
        .map(|document| document.into_layer(&mut problems))
        .unwrap_or_default();
    problems.verdict().map(|_| layer)
}

/// Asks an instance what it has.
///
/// # Errors
/// The instance's refusal; or that it writes flags which this version does not read.
pub(super) fn present(remote: &Remote) -> Result<Present, CallError> {
    let file: FlagFile = remote.get("/api/v1/flag-file")?;
    let said = list::all(remote, "&source=runtime")?;
    let revisions = said
        .items
        .iter()
        .filter_map(|flag| Some((FlagKey::parse(&flag.name).ok()?, flag.revision)));
    Ok(Present {
        merged: merged(&file)?,
        revisions: revisions.collect(),
        runtime: runtime(&said.items)?,
    })
}

/// The members of one flag, all sources together.
///
/// # Errors
/// As [`present`].
pub(super) fn one(remote: &Remote, key: &str) -> Result<(Flag, Members), CallError> {
    let flag: Flag = remote.get(&format!("{FLAGS}/{}", segment(key)))?;
    let file: FlagFile = remote.get(&format!("/api/v1/flag-file?flag={}", segment(key)))?;
    let entry = merged(&file)?.flags.into_values().next();
    Ok((flag, entry.map(|entry| entry.members).unwrap_or_default()))
}

fn merged(file: &FlagFile) -> Result<Layer, CallError> {
    let mut problems = Problems::default();
    let document = Document::parse(&"the instance".into(), &file.text, &mut problems);
    settled(document, problems).map_err(|problems| foreign(&problems))
}

/// What was said at run time, in one document.
fn runtime(flags: &[Flag]) -> Result<Layer, CallError> {
    let text = |text: &str| serde_json::Value::from(text).to_string();
    let records = flags.iter().filter_map(|flag| {
        let said = flag.runtime.as_ref()?.get().trim();
        let members = said.strip_prefix('{')?;
        let rest = if members.trim_start().starts_with('}') { "" } else { "," };
        let typed = match serde_json::from_str::<BTreeMap<String, serde::de::IgnoredAny>>(said) {
            Ok(known) if known.contains_key("type") => return Some(format!("{}:{said}", text(&flag.name))),
            _ => format!("\"type\":{}{rest}", text(&flag.kind)),
        };
        Some(format!("{}:{{{typed}{members}", text(&flag.name)))
    });
    let whole = format!("{{\"features\":{{{}}}}}", records.collect::<Vec<_>>().join(","));
    let mut problems = Problems::default();
    let name: Arc<str> = "the instance".into();
    let document = json::parse(&name, &whole, &mut problems)
        .and_then(|tree| Decoder::new(&name, &mut problems).run::<Document>(&tree));
    settled(document, problems).map_err(|problems| foreign(&problems))
}

fn foreign(problems: &[Problem]) -> CallError {
    let first = problems.first().map(ToString::to_string).unwrap_or_default();
    CallError::Unreachable(format!(
        "the instance has flags that this version of understudy does not read: {first}. use the instance's own version"
    ))
}

/// One flag of a layer as a text that is the same for the same flag.
pub(super) fn canonical(layer: &Layer, key: &FlagKey) -> Option<String> {
    layer.flags.get(key).map(|entry| flag_json(&entry.members))
}

/// One flag of a layer as the flag file writes it, without the line above it; empty where it says nothing.
pub(super) fn shown(layer: &Layer, key: &FlagKey) -> String {
    let Some(entry) = layer.flags.get(key) else {
        return String::new();
    };
    let alone = Layer {
        flags: [(key.clone(), entry.clone())].into(),
        ..Layer::default()
    };
    let text = layer_yaml(&alone);
    text.strip_prefix("features:\n").unwrap_or(&text).to_owned()
}
