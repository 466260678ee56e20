//! The paths of the admin API and what each does.
//!
//! Handlers hold no logic of their own: they ask `control` or turn the state in memory into an answer. A kill first
//! finds out what the name means and then is not refused any more.

use std::sync::Arc;

use axum::extract::{OriginalUri, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json as Answer, Router};

use super::dto::{Divergences, Fault, KillRequest, Killed, Readiness, RearmRequest, Rearmed, State as Ready, Status};
use super::refusal::Refusal;
use super::room::{self, Json, May, Metrics, Name, Query, REASON_CHARS, Read, Rearm, Room};
use super::{audit, flags, readiness, status};
use crate::config::Role;
use crate::control::{Kind, NameError, RearmError};
use crate::engine::guard::KillTarget;
use crate::engine::ruleset::problem::quote;
use crate::engine::vocab::SubjectHash;
use crate::live::divergences::REMEMBERED;
use crate::live::page;

/// What an emergency token may leave unsaid.
const EMERGENCY: &str = "Emergency action";

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
        .route("/api/v1/routes/{name}/kill", post(kill_route))
        .route("/api/v1/routes/{name}/rearm", post(rearm_route))
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

/// The reason, and what was done to it.
fn reason(given: Option<String>, default: Option<&str>) -> Result<(String, Vec<String>), Refusal> {
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

fn resolve(room: &Room, name: &str, kind: Option<Kind>) -> Result<KillTarget, Refusal> {
    room.control.resolve(name, kind).map_err(|error| {
        let mut refusal = unknown(name, kind, error);
        refusal.problem.detail += "; nothing was changed";
        refusal
    })
}

fn unknown(name: &str, kind: Option<Kind>, error: NameError) -> Refusal {
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
