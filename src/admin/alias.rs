//! The calls of other systems, as thin names for ours: a rollout table's update, a dashboard's toggle and percentage.

use std::sync::Arc;

use axum::Json as Answer;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse as _, Response};

use super::dto::{self, Fault};
use super::flags::{self, View};
use super::refusal::Refusal;
use super::room::{self, Body, May, Name, Query, Room};
use crate::control::What;
use crate::engine::ruleset::yaml::{Entry, Mark, Node, Value};
use crate::engine::vocab::FlagKey;

type Shared = State<Arc<Room>>;

/// The members of a row of a rollout table, and what they are called here.
const ROW: [(&str, &str); 5] = [
    ("enabled", "enabled"),
    ("shadow_mode", "shadow_mode"),
    ("allowlist", "allowlist"),
    ("denylist", "denylist"),
    ("percent_rollout", "percentage"),
];

/// `POST /api/internal/flags/update`: sets the members that a row has, and makes the flag if nobody has.
pub(super) async fn update(
    State(room): Shared,
    may: May<room::Change>,
    headers: HeaderMap,
    Body(body): Body,
) -> Result<Response, Refusal> {
    let mut node = flags::tree(&body)?;
    let key = flags::named(&mut node)?;
    may.flag(key.as_str())?;
    let Value::Mapping(entries) = node.value else {
        return Err(Refusal::new(Fault::BadRequest, "the body is no object", "send one row"));
    };
    let mut members = Vec::new();
    for entry in entries {
        let Some((_, ours)) = ROW.iter().find(|(theirs, _)| *theirs == entry.key) else {
            let known: Vec<&str> = ROW.iter().map(|(theirs, _)| *theirs).collect();
            let remedy = format!("known are name, {}", known.join(", "));
            let refusal = Refusal::new(Fault::BadRequest, "the row has a member that is not known", remedy);
            return Err(refusal);
        };
        members.push(Entry {
            key: (*ours).into(),
            ..entry
        });
    }
    // Such rows cannot leave their percentage out: 0 beside people on a list is not what decides.
    let lists = members.iter().any(|entry| {
        entry.key == "allowlist" && matches!(&entry.value.value, Value::Sequence(items) if !items.is_empty())
    });
    let mut told = None;
    for entry in &mut members {
        if lists && entry.key == "percentage" && entry.value.text().is_some_and(is_zero) {
            entry.value.value = Value::Plain("null".into());
            told = Some("`percent_rollout` is 0 beside an allowlist, and is taken as not set".to_owned());
        }
    }
    let node = Node {
        mark: node.mark,
        value: Value::Mapping(members),
    };
    let exists = flags::known(&room, key.as_str()).is_ok();
    let what = if exists { What::Patch(node) } else { What::Create(node) };
    let query = Query::read(None, &[])?;
    let wish = flags::wish(&may, &headers, &query, key.clone(), what)?;
    let mut edited = flags::change(&room, wish).await?;
    edited.warnings.extend(told);
    Ok(flags::answered(&room, &key, edited, false, axum::http::StatusCode::OK))
}

fn is_zero(text: &str) -> bool {
    text.parse::<f64>() == Ok(0.0)
}

/// `POST /api/features/{key}/toggle`: on becomes off, and anything else on.
pub(super) async fn toggle(
    State(room): Shared,
    may: May<room::Change>,
    Name(name): Name,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let key = flags::known(&room, &name)?;
    let view = View::of(&room);
    let is_on = view.find(&key).is_some_and(|flag| flag.status == "ENABLED");
    let enabled = member("enabled", Value::Plain(if is_on { "false" } else { "true" }.into()));
    changed(&room, &may, &headers, key, vec![enabled]).await
}

/// `PATCH /api/features/{key}`: `metadata.percentage` is the percentage; other members are as they are here.
pub(super) async fn patch(
    State(room): Shared,
    may: May<room::Change>,
    Name(name): Name,
    headers: HeaderMap,
    Body(body): Body,
) -> Result<Response, Refusal> {
    let key = flags::known(&room, &name)?;
    let node = flags::tree(&body)?;
    let Value::Mapping(mut entries) = node.value else {
        return Err(Refusal::new(
            Fault::BadRequest,
            "the body is no object",
            "send `{\"metadata\": {...}}`",
        ));
    };
    let mut percentage = None;
    if let Some(at) = entries.iter().position(|entry| entry.key == "metadata")
        && let Value::Mapping(texts) = &mut entries[at].value.value
    {
        if let Some(at) = texts.iter().position(|text| text.key == "percentage") {
            percentage = Some(texts.remove(at));
        }
        let rest = texts.is_empty();
        if rest {
            entries.remove(at);
        } else {
            keep_metadata(&room, &key, texts);
        }
    }
    if let Some(mut percentage) = percentage {
        if let Value::Quoted(text) = &percentage.value.value {
            percentage.value.value = Value::Plain(text.clone());
        }
        entries.push(percentage);
    }
    changed(&room, &may, &headers, key, entries).await
}

/// One text of `metadata` does not take the others away.
fn keep_metadata(room: &Room, key: &FlagKey, texts: &mut Vec<Entry<'static>>) {
    let snapshot = room.control.live().snapshot();
    let flag = snapshot.as_deref().and_then(|snapshot| snapshot.rules.flag(key));
    for (name, text) in flag.into_iter().flat_map(|flag| &flag.about.metadata) {
        if !texts.iter().any(|entry| entry.key == *name) {
            let value = Value::Quoted(text.clone().into());
            texts.push(member(name, value));
        }
    }
}

fn member(name: &str, value: Value<'static>) -> Entry<'static> {
    Entry {
        key: name.to_owned().into(),
        mark: Mark::TOP,
        value: Node { mark: Mark::TOP, value },
    }
}

/// Makes the change, and answers with the flag.
async fn changed(
    room: &Room,
    may: &May<room::Change>,
    headers: &HeaderMap,
    key: FlagKey,
    entries: Vec<Entry<'static>>,
) -> Result<Response, Refusal> {
    let node = Node {
        mark: Mark::TOP,
        value: Value::Mapping(entries),
    };
    let query = Query::read(None, &[])?;
    let wish = flags::wish(may, headers, &query, key.clone(), What::Patch(node))?;
    let edited = flags::change(room, wish).await?;
    let flag: Option<dto::Flag> = edited
        .flag
        .as_ref()
        .map(|flag| View::of(room).with(flag, edited.stored.as_ref()));
    Ok(Answer(flag).into_response())
}
