//! What a request is about and why: names looked up, reasons read.

use super::dto::Fault;
use super::refusal::Refusal;
use super::room::{REASON_CHARS, Room};
use crate::control::{Kind, NameError};
use crate::engine::guard::KillTarget;
use crate::engine::ruleset::problem::quote;

/// What an emergency token may leave unsaid.
pub(super) const EMERGENCY: &str = "Emergency action";

/// The reason, and what was done to it.
pub(super) fn reason(given: Option<String>, default: Option<&str>) -> Result<(String, Vec<String>), Refusal> {
    let given = given.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
    let Some(given) = given.or_else(|| default.map(str::to_owned)) else {
        let remedy =
            "give `--reason TEXT`, in the API `{\"reason\": \"...\"}`: whoever finds it killed has to know why";
        return Err(Refusal::new(Fault::BadRequest, "there is no reason", remedy));
    };
    match given.char_indices().nth(REASON_CHARS) {
        None => Ok((given, Vec::new())),
        Some((cut, _)) => {
            let warning = format!("the reason was cut after {REASON_CHARS} characters");
            Ok((given.get(..cut).unwrap_or_default().to_owned(), vec![warning]))
        }
    }
}

pub(super) fn resolve(room: &Room, name: &str, kind: Option<Kind>) -> Result<KillTarget, Refusal> {
    room.control.resolve(name, kind).map_err(|error| {
        let mut refusal = unknown(name, kind, error);
        refusal.problem.detail += "; nothing was changed";
        refusal
    })
}

pub(super) fn unknown(name: &str, kind: Option<Kind>, error: NameError) -> Refusal {
    let quoted = quote(name);
    match error {
        NameError::Both => {
            let detail = format!("a route and a flag are named {quoted}");
            let remedy = "say which is meant: --route or --flag, or the path of the one or the other";
            Refusal::new(Fault::AmbiguousName, detail, remedy)
        }
        NameError::Unknown { near } => {
            let what = kind.map_or("route and no flag".to_owned(), |kind| kind.to_string());
            let detail = format!("no {what} is named {quoted}");
            let remedy = match near.first() {
                Some(near) => format!("did you mean {}?", quote(near)),
                None => "`understudy status` lists the routes, the flag file the flags".to_owned(),
            };
            Refusal::new(Fault::UnknownName, detail, remedy).near(near)
        }
    }
}
