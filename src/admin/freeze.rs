//! Freezes over the API.

use std::sync::Arc;

use axum::Json as Answer;
use axum::extract::State;

use super::asked;
use super::dto::{Fault, FreezeRequest, Frozen};
use super::flags;
use super::refusal::Refusal;
use super::room::{self, Json, May, Room};
use super::status;
use crate::config::Role;
use crate::control::Kind;
use crate::engine::guard::KillTarget;
use crate::engine::ruleset::freeze::FreezeTarget;

type Freezing = Result<Answer<Frozen>, Refusal>;

pub(super) async fn freeze(
    State(room): State<Arc<Room>>,
    may: May<room::Freeze>,
    Json(ask): Json<FreezeRequest>,
) -> Freezing {
    scope(&may, &ask)?;
    let target = target(&room, &ask)?;
    set(&room, &may, target, true, ask.reason).await
}

pub(super) async fn unfreeze(
    State(room): State<Arc<Room>>,
    may: May<room::Change>,
    Json(ask): Json<FreezeRequest>,
) -> Freezing {
    scope(&may, &ask)?;
    let target = target(&room, &ask)?;
    set(&room, &may, target, false, ask.reason).await
}

pub(super) async fn freeze_all(
    State(room): State<Arc<Room>>,
    may: May<room::Freeze>,
    Json(ask): Json<FreezeRequest>,
) -> Freezing {
    set(&room, &may, FreezeTarget::All, true, ask.reason).await
}

fn scope<N>(may: &May<N>, ask: &FreezeRequest) -> Result<(), Refusal> {
    match (&ask.flag, &ask.route) {
        (Some(flag), None) => may.flag(flag),
        _ => may.everything(),
    }
}

fn target(room: &Room, ask: &FreezeRequest) -> Result<FreezeTarget, Refusal> {
    let named = |name: &str, kind| asked::resolve(room, name, Some(kind));
    let target = match (&ask.flag, &ask.route) {
        (None, None) => return Ok(FreezeTarget::All),
        (Some(flag), None) => named(flag, Kind::Flag)?,
        (None, Some(route)) => named(route, Kind::Route)?,
        (Some(_), Some(_)) => {
            let detail = "the body names a flag and a route";
            return Err(Refusal::new(Fault::BadRequest, detail, "send one request for each"));
        }
    };
    Ok(match target {
        KillTarget::Flag(flag) => FreezeTarget::Flag(flag),
        KillTarget::Route(route) | KillTarget::Subject(route, _) => FreezeTarget::Route(route),
        KillTarget::All => FreezeTarget::All,
    })
}

async fn set<N>(room: &Room, may: &May<N>, target: FreezeTarget, freeze: bool, reason: Option<String>) -> Freezing {
    let default = (may.role == Some(Role::Emergency)).then_some(asked::EMERGENCY);
    let (reason, mut warnings) = asked::reason(reason, default)?;
    let changed = room.control.freeze(target.clone(), freeze, &reason, &may.actor).await;
    let changed = changed.map_err(|error| flags::refused(None, error))?;
    if !changed {
        let said = if freeze {
            "it was frozen already; the first reason stands"
        } else {
            "it was not frozen; something else that covers it may be, see `freezes` in the status"
        };
        warnings.push(said.to_owned());
    }
    if changed && !freeze {
        warnings.push("gradual flags go on from where their schedule is now".to_owned());
    }
    Ok(Answer(Frozen {
        target: status::frozen(&target),
        frozen: freeze,
        changed,
        warnings,
    }))
}
