//! Flags over the API: shown, changed, rolled back.
//!
//! In: requests that the gate let in. Out: answers as `dto` writes them. What a change means, whether it may be made and when
//! it is in force belongs to `control`; here a request becomes an [`Edit`], and its outcome an answer.

use std::sync::Arc;

use axum::Json as Answer;
use axum::extract::{OriginalUri, State};
use axum::http::header::{ETAG, IF_MATCH, LOCATION};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::value::RawValue;

use super::dto::{self, Changed, Fault, Finding, History, Member};
use super::refusal::Refusal;
use super::room::{self, Body, May, Name, Query, Room};
use super::{status, whatif};
use crate::control::{Edit, EditError, Edited, Expect, What};
use crate::engine::explain;
use crate::engine::flags::Flag;
use crate::engine::guard::{KillSet, KillTarget};
use crate::engine::ruleset::decode::Scalar as _;
use crate::engine::ruleset::edit::{BODY, Stored, path_in_layer};
use crate::engine::ruleset::json;
use crate::engine::ruleset::problem::{Problem, Problems, Severity, nearest, quote};
use crate::engine::ruleset::yaml::{Node, Value};
use crate::engine::vocab::FlagKey;
use crate::telemetry::clock;

type Shared = State<Arc<Room>>;

/// How many flags, or changes, a page has when nobody says.
const PAGE: usize = 100;

/// The most that one has.
const LARGEST_PAGE: usize = 1_000;

/// What a change may say in its query.
const CHANGE: [&str; 2] = ["dry_run", "reason"];

pub(super) async fn list(
    State(room): Shared,
    may: May<room::Read>,
    OriginalUri(uri): OriginalUri,
) -> Result<Answer<dto::Flags>, Refusal> {
    let known = ["after", "limit", "owner", "q", "source", "status", "type"];
    let query = Query::read(uri.query(), &known)?;
    let limit = query.number("limit", LARGEST_PAGE as u64)?.map_or(PAGE, |n| n as usize);
    let word = |name: &str, words: &[&'static str]| query.word(name, words);
    let status = word("status", &["DISABLED", "ENABLED", "PARTIAL"])?;
    let source = word("source", &["environment", "file", "runtime"])?;
    let view = View::of(&room);
    let Some(snapshot) = room.control.live().snapshot() else {
        return Ok(Answer(dto::Flags {
            items: Vec::new(),
            next: None,
            total: 0,
            revision: 0,
        }));
    };
    let defined = snapshot
        .rules
        .flags()
        .iter()
        .map(|(_, flag)| flag)
        .filter(|flag| flag.defined);
    let holds = |name: &str, text: &str| query.text(name).is_none_or(|wanted| wanted == text);
    let fits: Vec<&Flag> = defined
        .filter(|flag| {
            let key = flag.key.as_str();
            let contains = query
                .text("q")
                .is_none_or(|part| key.to_lowercase().contains(&part.to_lowercase()));
            may.sees(key)
                && contains
                && holds("type", flag.flag_type.as_str())
                && status.is_none_or(|status| status == flag.status())
                && holds("owner", flag.about.owner.as_deref().unwrap_or_default())
                && source.is_none_or(|source| {
                    flag.origins
                        .iter()
                        .any(|(_, origin)| origin.source().as_str() == source)
                })
        })
        .collect();
    let total = fits.len();
    let mut later = fits
        .into_iter()
        .filter(|flag| query.text("after").is_none_or(|after| flag.key.as_str() > after));
    let items: Vec<dto::Flag> = later.by_ref().take(limit).map(|flag| view.flag(flag)).collect();
    let next = later.next().and_then(|_| items.last()).map(|last| last.name.clone());
    Ok(Answer(dto::Flags {
        items,
        next,
        total,
        revision: view.runtime.revision,
    }))
}

pub(super) async fn show(State(room): Shared, _: May<room::Read>, Name(name): Name) -> Result<Response, Refusal> {
    let key = known(&room, &name)?;
    let view = View::of(&room);
    let flag = view.find(&key).ok_or_else(|| unknown(&room, &name))?;
    Ok(tagged(StatusCode::OK, flag.revision, &flag))
}

pub(super) async fn history(
    State(room): Shared,
    _: May<room::Read>,
    Name(name): Name,
    OriginalUri(uri): OriginalUri,
) -> Result<Answer<History>, Refusal> {
    let query = Query::read(uri.query(), &["before", "limit"])?;
    let limit = query
        .number("limit", LARGEST_PAGE as u64 - 1)?
        .map_or(PAGE, |n| n as usize);
    let before = query.number("before", i64::MAX as u64)?;
    // One that was removed has a history, too.
    let key = FlagKey::parse(&name).map_err(|_| unknown(&room, &name))?;
    let changes = room.control.history(key.clone(), before, limit + 1).await;
    let mut changes = changes.map_err(|error| not_stored(&error.to_string()))?;
    if changes.is_empty() && before.is_none() {
        known(&room, &name)?;
    }
    let more = changes.len() > limit;
    changes.truncate(limit);
    let next = changes.last().filter(|_| more).map(|last| last.revision);
    let items = changes.into_iter().map(|change| dto::PastChange {
        revision: change.revision,
        at: status::instant(change.at_unix_ms),
        actor: change.actor,
        action: change.action,
        reason: change.reason,
        runtime: change.body.as_deref().and_then(raw),
    });
    Ok(Answer(History {
        items: items.collect(),
        next,
    }))
}

type Change = Result<Response, Refusal>;

pub(super) async fn create(
    State(room): Shared,
    may: May<room::Change>,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
    Body(body): Body,
) -> Change {
    let query = Query::read(uri.query(), &CHANGE)?;
    let mut node = tree(&body)?;
    let key = named(&mut node)?;
    may.flag(key.as_str())?;
    let wish = wish(&may, &headers, &query, key.clone(), What::Create(node))?;
    let dry_run = wish.dry_run;
    let edited = change(&room, wish).await?;
    let mut answer = answered(&room, &key, edited, dry_run, StatusCode::CREATED);
    if let (false, Ok(place)) = (dry_run, HeaderValue::try_from(format!("/api/v1/feature-flags/{key}"))) {
        answer.headers_mut().insert(LOCATION, place);
    }
    Ok(answer)
}

pub(super) async fn put(
    State(room): Shared,
    may: May<room::Change>,
    Name(name): Name,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
    Body(body): Body,
) -> Change {
    let query = Query::read(uri.query(), &CHANGE)?;
    let what = What::Put(tree(&body)?);
    edit(&room, &may, &headers, &query, &name, what).await
}

pub(super) async fn patch(
    State(room): Shared,
    may: May<room::Change>,
    Name(name): Name,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
    Body(body): Body,
) -> Change {
    let query = Query::read(uri.query(), &CHANGE)?;
    let what = What::Patch(tree(&body)?);
    edit(&room, &may, &headers, &query, &name, what).await
}

pub(super) async fn delete(
    State(room): Shared,
    may: May<room::Change>,
    Name(name): Name,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
) -> Change {
    let query = Query::read(uri.query(), &["dry_run", "force", "reason"])?;
    let force = query.truth("force")?;
    edit(&room, &may, &headers, &query, &name, What::Delete { force }).await
}

pub(super) async fn rollback(
    State(room): Shared,
    may: May<room::Rollback>,
    Name(name): Name,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
    room::Json(ask): room::Json<dto::RollbackRequest>,
) -> Change {
    let query = Query::read(uri.query(), &CHANGE)?;
    let key = FlagKey::parse(&name).map_err(|_| unknown(&room, &name))?;
    let mut wish = wish(&may, &headers, &query, key.clone(), What::Rollback)?;
    if let Some(reason) = ask.reason {
        wish.reason = room::short(&reason);
    }
    let dry_run = wish.dry_run;
    let edited = change(&room, wish).await?;
    Ok(answered(&room, &key, edited, dry_run, StatusCode::OK))
}

async fn edit(
    room: &Room,
    may: &May<room::Change>,
    headers: &HeaderMap,
    query: &Query,
    name: &str,
    what: What,
) -> Change {
    let key = FlagKey::parse(name).map_err(|_| unknown(room, name))?;
    let wish = wish(may, headers, query, key.clone(), what)?;
    let dry_run = wish.dry_run;
    let edited = change(room, wish).await?;
    Ok(answered(room, &key, edited, dry_run, StatusCode::OK))
}

pub(super) fn wish<N>(
    may: &May<N>,
    headers: &HeaderMap,
    query: &Query,
    flag: FlagKey,
    what: What,
) -> Result<Edit, Refusal> {
    Ok(Edit {
        flag,
        what,
        expect: expectation(headers)?,
        actor: may.actor.clone(),
        reason: query.text("reason").map(room::short).unwrap_or_default(),
        dry_run: query.truth("dry_run")?,
    })
}

pub(super) async fn change(room: &Room, wish: Edit) -> Result<Edited, Refusal> {
    let flag = wish.flag.clone();
    room.control
        .edit(wish)
        .await
        .map_err(|error| refused(Some(&flag), error))
}

pub(super) fn answered(room: &Room, key: &FlagKey, edited: Edited, dry_run: bool, code: StatusCode) -> Response {
    let view = View::of(room);
    let stored = edited.stored.as_ref();
    let flag = edited.flag.as_ref().map(|flag| view.with(flag, stored));
    let revision = stored.map_or(0, |stored| stored.revision);
    debug_assert!(flag.as_ref().is_none_or(|flag| flag.name == key.as_str()));
    let code = if dry_run { StatusCode::OK } else { code };
    let changed = Changed {
        changed: edited.changed,
        dry_run,
        flag,
        warnings: edited.warnings,
        what_if: edited.what_if.map(whatif::told),
    };
    tagged(code, revision, &changed)
}

fn tagged<T: serde::Serialize>(code: StatusCode, revision: u64, body: &T) -> Response {
    let mut answer = (code, Answer(body)).into_response();
    if let Ok(tag) = HeaderValue::try_from(format!("\"{revision}\"")) {
        answer.headers_mut().insert(ETAG, tag);
    }
    answer
}

/// What `If-Match` takes for granted. Weak tags never match a change (RFC 9110, section 13.1.1).
fn expectation(headers: &HeaderMap) -> Result<Expect, Refusal> {
    let mut tags = Vec::new();
    let mut values = headers.get_all(IF_MATCH).iter().peekable();
    if values.peek().is_none() {
        return Ok(Expect::Anything);
    }
    for value in values {
        let text = value.to_str().unwrap_or_default();
        for tag in text.split(',').map(str::trim) {
            let strong = tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"'));
            match (tag, strong.map(str::parse::<u64>)) {
                ("*", _) => return Ok(Expect::Something),
                (_, Some(Ok(revision))) => tags.push(revision),
                // Of another kind than ours, so it names nothing that there is.
                (_, Some(Err(_))) => {}
                (weak, None) if weak.starts_with("W/\"") && weak.ends_with('"') => {}
                (_, None) => {
                    let detail = "`if-match` is neither `*` nor a list of tags in quotes";
                    let remedy = "send the `etag` of the flag, quotes and all";
                    return Err(Refusal::new(Fault::BadRequest, detail, remedy));
                }
            }
        }
    }
    Ok(Expect::Revision(tags))
}

/// The body as a tree with places.
pub(super) fn tree(body: &str) -> Result<Node<'static>, Refusal> {
    let mut problems = Problems::default();
    let node = json::parse(&BODY.into(), body, &mut problems);
    match (node, problems.verdict()) {
        (Some(node), Ok(_)) => Ok(node),
        (_, verdict) => {
            let problems = verdict.err().unwrap_or_default();
            let detail = format!("the body cannot be read: {}", summary(&problems));
            Err(Refusal::new(Fault::BadRequest, detail, "send one JSON object")
                .repeating()
                .findings(findings(None, &problems)))
        }
    }
}

/// Takes the flag's key out of an object.
pub(super) fn named(node: &mut Node<'static>) -> Result<FlagKey, Refusal> {
    let name = take(node, "name");
    let Some(name) = name.as_ref().and_then(Node::text) else {
        let detail = "the body has no `name`, or none that is a text";
        return Err(Refusal::new(
            Fault::BadRequest,
            detail,
            "add `\"name\": \"my-flag\"` to it",
        ));
    };
    FlagKey::parse(name).map_err(|error| {
        Refusal::new(
            Fault::BadRequest,
            format!("{} is no flag's key: {error}", quote(name)),
            FlagKey::REMEDY,
        )
    })
}

/// Takes a member out of an object.
fn take(node: &mut Node<'static>, name: &str) -> Option<Node<'static>> {
    let Value::Mapping(entries) = &mut node.value else {
        return None;
    };
    let at = entries.iter().position(|entry| entry.key == name)?;
    Some(entries.remove(at).value)
}

pub(super) fn refused(flag: Option<&FlagKey>, error: EditError) -> Refusal {
    let text = error.to_string();
    let name = flag.map_or("", FlagKey::as_str);
    match error {
        EditError::Exists => {
            let detail = format!("a flag {} exists already", quote(name));
            Refusal::new(
                Fault::Exists,
                detail,
                "change it by PUT or PATCH, or choose another name",
            )
        }
        EditError::Frozen(_) => {
            let remedy = "lowering, denying and killing work; `POST /api/v1/unfreeze` lifts the freeze";
            Refusal::new(Fault::Frozen, text, remedy)
        }
        EditError::NothingToUndo => {
            let remedy = "what the flag file says is changed there; `kill` switches the flag off at once";
            Refusal::new(Fault::NothingToUndo, text, remedy)
        }
        EditError::NotRemovable => {
            let remedy = "bring it to 0 or to 100 % first, or add `force=true` to the query";
            Refusal::new(Fault::NotRemovable, text, remedy)
        }
        EditError::NotStored(why) => not_stored(&why),
        EditError::Problems(problems) => {
            let detail = format!("the change was refused whole: {}", summary(&problems));
            Refusal::new(Fault::Unfit, detail, "correct what `problems` lists, and send it again")
                .repeating()
                .findings(findings(flag, &problems))
        }
        EditError::Stale(revision) => {
            let detail = format!("the flag was changed meanwhile: its revision is {revision}");
            Refusal::new(Fault::Stale, detail, "read it again, and decide anew")
        }
        EditError::Unknown { near } => no_flag(name, near),
    }
}

fn not_stored(why: &str) -> Refusal {
    let detail = format!("the change could not be stored: {why}");
    let remedy = "see `store` in the status and to the disk, then try again; a kill works all the same";
    Refusal::new(Fault::NotStored, detail, remedy)
}

fn summary(problems: &[Problem]) -> String {
    let first = problems.first().map(ToString::to_string).unwrap_or_default();
    match problems
        .iter()
        .filter(|problem| problem.severity == Severity::Problem)
        .count()
    {
        0 | 1 => first,
        n => format!("{first} (and {} more)", n - 1),
    }
}

fn findings(flag: Option<&FlagKey>, problems: &[Problem]) -> Vec<Finding> {
    let refusing = problems.iter().filter(|problem| problem.severity == Severity::Problem);
    refusing
        .map(|problem| {
            let place = &problem.place;
            let whole = place.line == 0;
            let path = match flag {
                Some(flag) if *place.file == *BODY => path_in_layer(flag, &problem.path),
                _ => &problem.path,
            };
            Finding {
                source: place.file.to_string(),
                line: (!whole).then_some(place.line),
                column: (!whole).then_some(place.column),
                path: path.to_owned(),
                what: problem.what.clone(),
                remedy: problem.remedy.clone(),
            }
        })
        .collect()
}

/// The flag of this name that some source defines.
pub(super) fn known(room: &Room, name: &str) -> Result<FlagKey, Refusal> {
    let key = FlagKey::parse(name).ok();
    let snapshot = room.control.live().snapshot();
    let defined = |key: &FlagKey| {
        let rules = snapshot.as_deref().map(|snapshot| &snapshot.rules);
        rules.and_then(|rules| rules.flag(key)).is_some_and(|flag| flag.defined)
    };
    key.filter(defined).ok_or_else(|| unknown(room, name))
}

pub(super) fn unknown(room: &Room, name: &str) -> Refusal {
    let snapshot = room.control.live().snapshot();
    let rules = snapshot.as_deref().map(|snapshot| &snapshot.rules);
    let defined = rules
        .into_iter()
        .flat_map(|rules| rules.flags().iter().map(|(_, flag)| flag));
    let names = defined.filter(|flag| flag.defined).map(|flag| flag.key.as_str());
    let near = nearest(name, names, 3).into_iter().map(str::to_owned).collect();
    no_flag(name, near)
}

fn no_flag(name: &str, near: Vec<String>) -> Refusal {
    let detail = format!("no flag is named {}", quote(name));
    let remedy = match near.first() {
        Some(near) => format!("did you mean {}?", quote(near)),
        None => "`GET /api/v1/feature-flags` lists them; create it by POST there".to_owned(),
    };
    Refusal::new(Fault::UnknownName, detail, remedy).near(near)
}

fn raw(body: &str) -> Option<Box<RawValue>> {
    RawValue::from_string(body.to_owned()).ok()
}

/// What turns flags into answers.
pub(super) struct View {
    snapshot: Option<Arc<crate::live::snapshot::Snapshot>>,
    runtime: Arc<crate::engine::ruleset::edit::RuntimeLayers>,
    kills: KillSet,
    now_ms: i64,
}

impl View {
    pub fn of(room: &Room) -> Self {
        let live = room.control.live();
        Self {
            snapshot: live.snapshot(),
            runtime: room.control.runtime(),
            kills: live.kills.read(KillSet::clone),
            now_ms: clock::unix_ms(),
        }
    }

    pub fn find(&self, key: &FlagKey) -> Option<dto::Flag> {
        let flag = self.snapshot.as_deref()?.rules.flag(key)?;
        Some(self.flag(flag))
    }

    fn flag(&self, flag: &Flag) -> dto::Flag {
        self.with(flag, self.runtime.find(&flag.key))
    }

    pub fn with(&self, flag: &Flag, stored: Option<&Stored>) -> dto::Flag {
        let in_force = |target: &KillTarget| self.kills.find(target).is_some_and(|kill| kill.killed);
        let members = explain::members(flag).into_iter().map(|of| Member {
            member: of.member.to_owned(),
            value: of.value,
            source: of.origin.source.to_owned(),
            place: of.origin.place,
        });
        let share = |buckets: u32| f64::from(buckets) / 10_000.0;
        dto::Flag {
            name: flag.key.to_string(),
            revision: stored.map_or(0, |stored| stored.revision),
            kind: flag.flag_type.as_str().to_owned(),
            status: flag.status().to_owned(),
            percentage: flag
                .percent
                .as_ref()
                .map(|percent| share(percent.threshold_at(self.now_ms).buckets())),
            killed: flag.kill_switch || in_force(&KillTarget::All) || in_force(&KillTarget::Flag(flag.key.clone())),
            members: members.collect(),
            runtime: stored.and_then(|stored| raw(&stored.body)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn if_match_reads_tags_of_ours_and_of_others() {
        let of = |values: &[&'static str]| {
            let headers = values.iter().map(|value| (IF_MATCH, HeaderValue::from_static(value)));
            expectation(&headers.collect()).map_err(|refusal| refusal.fault)
        };
        assert_eq!(of(&[]), Ok(Expect::Anything));
        assert_eq!(of(&["*"]), Ok(Expect::Something));
        assert_eq!(of(&["\"3\", \"4\"", "\"5\""]), Ok(Expect::Revision(vec![3, 4, 5])));
        assert_eq!(
            of(&["W/\"3\", \"x\""]),
            Ok(Expect::Revision(vec![])),
            "neither can match"
        );
        for bad in ["3", "\"3", ""] {
            assert_eq!(of(&[bad]), Err(Fault::BadRequest), "{bad}");
        }
    }
}
