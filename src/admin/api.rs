//! The paths of the admin API and what each does.
//!
//! Handlers hold no logic of their own: they ask `control` or turn the state in memory into an answer. A kill first
//! finds out what the name means and then is not refused any more.

use std::sync::Arc;

use axum::extract::{OriginalUri, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, patch, post};
use axum::{Json as Answer, Router};

use super::asked::{EMERGENCY, reason, resolve, unknown};
use super::dto::{Divergences, Fault, KillRequest, Killed, Readiness, RearmRequest, Rearmed, State as Ready, Status};
use super::refusal::Refusal;
use super::room::{self, Json, May, Metrics, Name, Query, Read, Rearm, Room};
use super::{alias, audit, flag_file, flags, freeze, once, readiness, status};
use crate::config::Role;
use crate::control::{Kind, RearmError};
use crate::engine::guard::KillTarget;
use crate::engine::vocab::SubjectHash;
use crate::live::divergences::REMEMBERED;
use crate::live::page;

type Shared = State<Arc<Room>>;

/// The paths.
pub(super) fn router(room: &Arc<Room>) -> Router {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/api/v1/status", get(show_status))
        .route("/api/v1/divergences", get(divergences))
        .route("/api/v1/audit", get(audit::list))
        .route("/api/v1/audit/verify", get(audit::verify))
        .route("/api/v1/kill", post(kill_all))
        .route("/api/v1/rearm", post(rearm_all))
        .route("/api/v1/freeze", post(freeze::freeze))
        .route("/api/v1/unfreeze", post(freeze::unfreeze))
        .route("/status", get(show_status))
        .route("/flags/{name}/kill", post(kill_flag))
        .route("/flags/{name}/rollback", post(flags::rollback))
        .route("/experiments/freeze", post(freeze::freeze_all))
        .route("/api/internal/flags/update", post(alias::update))
        .route("/api/features/{name}", patch(alias::patch))
        .route("/api/features/{name}/toggle", post(alias::toggle))
        .route("/api/v1/routes/{name}/kill", post(kill_route))
        .route("/api/v1/routes/{name}/rearm", post(rearm_route))
        .route("/api/v1/flag-file", get(flag_file::show))
        .route("/api/v1/feature-flags", get(flags::list).post(flags::create))
        .route(
            "/api/v1/feature-flags/{name}",
            get(flags::show)
                .put(flags::put)
                .patch(flags::patch)
                .delete(flags::delete),
        )
        .route("/api/v1/feature-flags/{name}/history", get(flags::history))
        .route("/api/v1/feature-flags/{name}/rollback", post(flags::rollback))
        .route("/api/v1/feature-flags/{name}/kill", post(kill_flag))
        .route("/api/v1/feature-flags/{name}/rearm", post(rearm_flag))
        .route("/api/v1/targets/{name}/kill", post(kill_named))
        .route("/api/v1/targets/{name}/rearm", post(rearm_named))
        .merge(super::usage::routes())
        .layer(middleware::from_fn_with_state(Arc::clone(room), once::once))
        .method_not_allowed_fallback(method_not_allowed)
        .fallback(not_found)
        .with_state(Arc::clone(room))
}

async fn healthz() -> &'static str {
    "ok\n"
}

async fn readyz(State(room): Shared) -> (StatusCode, Answer<Readiness>) {
    let readiness = readiness::readiness(&status::facts(&room));
    let code = match readiness.status {
        Ready::NotReady => StatusCode::SERVICE_UNAVAILABLE,
        Ready::Degraded | Ready::Ready => StatusCode::OK,
    };
    (code, Answer(readiness))
}

async fn metrics(State(room): Shared, _: May<Metrics>) -> Response {
    let page = room.control.live().exporter.render()
        + &page::render(room.control.live(), room.control.store_health().unstored_kills);
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], page).into_response()
}

async fn show_status(State(room): Shared, _: May<room::Status>) -> Answer<Status> {
    Answer(status::status(&room))
}

async fn divergences(
    State(room): Shared,
    _: May<Read>,
    OriginalUri(uri): OriginalUri,
) -> Result<Answer<Divergences>, Refusal> {
    let query = Query::read(uri.query(), &["route", "limit", "before"])?;
    let limit = query.number("limit", REMEMBERED as u64)?;
    let limit = limit.map_or(100, |limit| usize::try_from(limit).unwrap_or(REMEMBERED));
    let before = query.number("before", u64::MAX)?.unwrap_or(u64::MAX);
    let route = query.text("route");
    let live = room.control.live();
    if let Some(route) = route
        && !live.registry.routes().iter().any(|(key, _)| key.as_str() == route)
    {
        room.control
            .resolve(route, Some(Kind::Route))
            .map_err(|error| unknown(route, Some(Kind::Route), error))?;
    }
    let all = live.divergences.newest(route, REMEMBERED);
    let mut older = all.iter().filter(|diverged| diverged.seq < before);
    let items: Vec<_> = older.by_ref().take(limit).map(status::diverged).collect();
    let next = older.next().and_then(|_| items.last()).map(|last| last.seq);
    Ok(Answer(Divergences {
        items,
        next,
        remembered: REMEMBERED,
    }))
}

type KillAnswer = Result<Answer<Killed>, Refusal>;
type RearmAnswer = Result<Answer<Rearmed>, Refusal>;

async fn kill_all(State(room): Shared, may: May<room::Kill>, Json(ask): Json<KillRequest>) -> KillAnswer {
    kill(&room, &may, KillTarget::All, ask).await
}

async fn kill_route(
    State(room): Shared,
    may: May<room::Kill>,
    Name(name): Name,
    Json(ask): Json<KillRequest>,
) -> KillAnswer {
    kill(&room, &may, resolve(&room, &name, Some(Kind::Route))?, ask).await
}

async fn kill_flag(
    State(room): Shared,
    may: May<room::Kill>,
    Name(name): Name,
    Json(ask): Json<KillRequest>,
) -> KillAnswer {
    kill(&room, &may, resolve(&room, &name, Some(Kind::Flag))?, ask).await
}

async fn kill_named(
    State(room): Shared,
    may: May<room::Kill>,
    Name(name): Name,
    Json(ask): Json<KillRequest>,
) -> KillAnswer {
    kill(&room, &may, resolve(&room, &name, None)?, ask).await
}

async fn rearm_all(State(room): Shared, may: May<Rearm>, Json(ask): Json<RearmRequest>) -> RearmAnswer {
    rearm(&room, &may, KillTarget::All, ask).await
}

async fn rearm_route(
    State(room): Shared,
    may: May<Rearm>,
    Name(name): Name,
    Json(ask): Json<RearmRequest>,
) -> RearmAnswer {
    rearm(&room, &may, resolve(&room, &name, Some(Kind::Route))?, ask).await
}

async fn rearm_flag(
    State(room): Shared,
    may: May<Rearm>,
    Name(name): Name,
    Json(ask): Json<RearmRequest>,
) -> RearmAnswer {
    rearm(&room, &may, resolve(&room, &name, Some(Kind::Flag))?, ask).await
}

async fn rearm_named(
    State(room): Shared,
    may: May<Rearm>,
    Name(name): Name,
    Json(ask): Json<RearmRequest>,
) -> RearmAnswer {
    rearm(&room, &may, resolve(&room, &name, None)?, ask).await
}

async fn kill(room: &Room, may: &May<room::Kill>, target: KillTarget, ask: KillRequest) -> KillAnswer {
    let default = (may.role == Some(Role::Emergency)).then_some(EMERGENCY);
    let (reason, mut warnings) = reason(ask.reason, default)?;
    let acknowledged = room.control.kill(target, &reason, &may.actor).await;
    if !acknowledged.changed {
        warnings.push("it was killed already; the first reason stands".to_owned());
    }
    let health = room.control.store_health();
    let journaled = acknowledged.stored || health.journaled_kills == health.unstored_kills;
    if !acknowledged.stored {
        warnings.push(if journaled {
            "the state file did not take it; the kill journal has it, which a restart reads too".to_owned()
        } else {
            "neither the state file nor the kill journal has it yet, which is tried until one does; a restart before that \
             loses it"
                .to_owned()
        });
    }
    Ok(Answer(Killed {
        in_force: true,
        stored: acknowledged.stored,
        journaled,
        changed: acknowledged.changed,
        epoch: acknowledged.epoch.0,
        target: status::target(&acknowledged.target),
        warnings,
    }))
}

async fn rearm(room: &Room, may: &May<Rearm>, target: KillTarget, ask: RearmRequest) -> RearmAnswer {
    let (reason, mut warnings) = reason(ask.reason, None)?;
    let target = match (ask.subject, target) {
        (None, target) => target,
        (Some(subject), KillTarget::Route(route)) => {
            let hash = SubjectHash::parse(&subject).unwrap_or_else(|| room.control.live().hash(&subject));
            KillTarget::Subject(route, hash)
        }
        (Some(_), _) => {
            let remedy = "name the route that the subject is held on";
            return Err(Refusal::new(
                Fault::BadRequest,
                "subjects are held on routes only",
                remedy,
            ));
        }
    };
    let lifted = room
        .control
        .rearm(target.clone(), &reason, &may.actor)
        .await
        .map_err(|error| match error {
            RearmError::KilledMeanwhile => {
                let remedy = "ask whoever killed it, then re-arm it again";
                Refusal::new(Fault::KilledMeanwhile, error.to_string(), remedy)
            }
            RearmError::Frozen(_) => {
                let detail = format!("{error}, and a re-arm would put subjects on new");
                Refusal::new(Fault::Frozen, detail, "lift the freeze first: `POST /api/v1/unfreeze`")
            }
            RearmError::NotKilled if matches!(target, KillTarget::Subject(..)) => {
                let remedy = "`understudy status --details` names the subjects that are held";
                Refusal::new(Fault::NotKilled, format!("{target} is not held"), remedy)
            }
            RearmError::NotKilled => {
                let remedy = "something else may keep it on legacy: `understudy status` names it";
                Refusal::new(Fault::NotKilled, format!("{target} is not killed"), remedy)
            }
            RearmError::NotStored(_) => {
                let remedy = "see `store` in the status, make room on the disk, then try again";
                Refusal::new(Fault::NotStored, error.to_string(), remedy)
            }
        })?;
    warnings.extend(status::still_on_legacy(room, &target));
    Ok(Answer(Rearmed {
        epoch: lifted.epoch.0,
        subjects: lifted.subjects,
        target: status::target(&target),
        warnings,
    }))
}

// Who may not enter learns nothing of what is inside, not even what is not.
async fn method_not_allowed(_: May<room::Status>) -> Refusal {
    Refusal::new(
        Fault::MethodNotAllowed,
        "this path does not take this method",
        "see the header `allow`",
    )
}

async fn not_found(_: May<room::Status>) -> Refusal {
    Refusal::new(
        Fault::NotFound,
        "there is nothing at this path",
        "the paths are listed in docs/operations.md",
    )
}
