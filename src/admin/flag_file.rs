//! What all sources together say, as the flag file would write it: for keeping it elsewhere, and for lists that are added to.
//!
//! It names subjects in clear, as a flag file does, so only who may change flags may read it.

use std::sync::Arc;

use axum::Json as Answer;
use axum::extract::{OriginalUri, State};

use super::dto::{Fault, FlagFile};
use super::flags;
use super::refusal::Refusal;
use super::room::{self, May, Query, Room};
use crate::engine::flags::model::FlagType;
use crate::engine::flags::origin::Origin;
use crate::engine::ruleset::decode::Layered;
use crate::engine::ruleset::layer::{Sourced, is_set};
use crate::engine::ruleset::write;

pub(super) async fn show(
    State(room): State<Arc<Room>>,
    _: May<room::Change>,
    OriginalUri(uri): OriginalUri,
) -> Result<Answer<FlagFile>, Refusal> {
    let query = Query::read(uri.query(), &["flag"])?;
    let Some(snapshot) = room.control.live().snapshot() else {
        let detail = "no rules are in force yet";
        return Err(Refusal::new(Fault::Unreadable, detail, "see `rules` in the status"));
    };
    let mut merged = snapshot.rules.merged().clone();
    if let Some(name) = query.text("flag") {
        let key = flags::known(&room, name)?;
        merged.flags.retain(|flag, _| *flag == key);
        merged.segments.clear();
    }
    for entry in merged.flags.values_mut() {
        // A flag file says of every flag what it is; variables and the API need not.
        if !is_set(&entry.members.flag_type) {
            entry.members.flag_type = Layered::Set(Sourced {
                value: FlagType::default(),
                origin: Origin::Default,
            });
        }
    }
    Ok(Answer(FlagFile {
        revision: room.control.runtime().revision,
        environment: snapshot.rules.environment().to_owned(),
        text: write::layer_yaml(&merged),
    }))
}
