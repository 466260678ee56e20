//! The audit trail over the API: asked, and walked along.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::Json as Answer;
use axum::extract::{OriginalUri, State};
use serde_json::value::RawValue;

use super::dto::{Audit, AuditRecord, Fault, Verified};
use super::refusal::Refusal;
use super::room::{May, Query, Read, Room};
use super::status;
use crate::store::{AuditQuery, Chain, StoreError};

/// How many records a page has when nobody says.
const PAGE: usize = 100;

/// The most that one has.
const LARGEST_PAGE: u64 = 999;

pub(super) async fn list(
    State(room): State<Arc<Room>>,
    _: May<Read>,
    OriginalUri(uri): OriginalUri,
) -> Result<Answer<Audit>, Refusal> {
    let query = Query::read(
        uri.query(),
        &["action", "actor", "before", "limit", "since", "target", "until"],
    )?;
    let limit = query.number("limit", LARGEST_PAGE)?.map_or(PAGE, |n| n as usize);
    let text = |name: &str| query.text(name).map(str::to_owned);
    let asked = AuditQuery {
        before: query.number("before", i64::MAX as u64)?,
        limit: limit + 1,
        actor: text("actor"),
        action: text("action"),
        target: text("target"),
        since_unix_ms: query.instant("since")?,
        until_unix_ms: query.instant("until")?,
    };
    let mut records = room.control.audit(asked).await.map_err(silent)?;
    let more = records.len() > limit;
    records.truncate(limit);
    let next = records.last().filter(|_| more).map(|last| last.seq);
    let items = records.into_iter().map(|record| AuditRecord {
        seq: record.seq,
        at: status::instant(record.entry.at_unix_ms),
        actor: record.entry.actor,
        role: record.entry.role,
        from: record.entry.from,
        action: record.entry.action,
        target: record.entry.target,
        reason: record.entry.reason,
        before: record.entry.before.and_then(shown),
        after: record.entry.after.and_then(shown),
        prev_hash: hex(&record.prev_hash),
        hash: hex(&record.hash),
    });
    Ok(Answer(Audit {
        items: items.collect(),
        next,
    }))
}

pub(super) async fn verify(
    State(room): State<Arc<Room>>,
    _: May<Read>,
    OriginalUri(uri): OriginalUri,
) -> Result<Answer<Verified>, Refusal> {
    Query::read(uri.query(), &[])?;
    let verified = match room.control.verify_audit().await.map_err(silent)? {
        Chain::Whole(records) => Verified {
            whole: true,
            records: Some(records),
            broken_at: None,
        },
        Chain::Broken(at) => Verified {
            whole: false,
            records: None,
            broken_at: Some(at),
        },
    };
    Ok(Answer(verified))
}

fn silent(error: StoreError) -> Refusal {
    let detail = format!("the audit trail cannot be read: {error}");
    Refusal::new(
        Fault::Unreadable,
        detail,
        "see `store` in the status and to the disk, then try again",
    )
}

/// A text of the trail as JSON: what is none by itself becomes a text.
fn shown(text: String) -> Option<Box<RawValue>> {
    RawValue::from_string(text.clone())
        .or_else(|_| serde_json::value::to_raw_value(&text))
        .ok()
}

fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}
