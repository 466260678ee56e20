//! The wire format of everything that is kept on disk, and nothing else about keeping it.
//!
//! In and out: the engine's kills, ramps and keys on one side, texts and sealed lines on the other. Whoever changes a
//! shape here changes files that exist: rows are read by the next version, and by the one before it after a way back.
//! Subjects appear as keyed hashes only.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use xxhash_rust::xxh64::xxh64;

use crate::engine::flags::Threshold;
use crate::engine::flags::schedule::Ramp;
use crate::engine::guard::{Kill, KillTarget};
use crate::engine::ruleset::edit::{Setter, Stored};
use crate::engine::ruleset::freeze::{Freeze, FreezeTarget};
use crate::engine::vocab::{Epoch, FlagKey, HashKey, RouteKey, SubjectHash};

/// One kill or re-arm, as it is to be kept, with where it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KillChange {
    /// What is killed or re-armed.
    pub target: KillTarget,
    /// The state that it gets.
    pub kill: Kill,
    /// For the audit record: who sent it, beyond the actor that the kill itself names.
    pub origin: Origin,
}

impl KillChange {
    /// Whether it holds one subject, of which there may be thousands, rather than something the configuration names.
    pub(super) const fn holds_a_subject(&self) -> bool {
        matches!(self.target, KillTarget::Subject(..))
    }
}

/// How a change came in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// The role under which the actor was let in; none for what the sidecar did by itself.
    pub role: Option<String>,
    /// The address it came from; none for what the sidecar did by itself.
    pub from: Option<String>,
}

/// How far a gradual flag has risen: a clock that jumps back takes nobody back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RampMark {
    /// The flag.
    pub flag: FlagKey,
    /// The ramp on which it got there; on another one the mark means nothing.
    pub schedule: Ramp,
    /// The highest share so far.
    pub reached: Threshold,
}

/// A change of one flag's runtime layer, as it is to be kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerChange {
    /// The flag.
    pub flag: FlagKey,
    /// The number of the change, over all flags.
    pub revision: u64,
    /// What is kept from now on; `None` takes the layer away.
    pub stored: Option<Stored>,
    /// A rollback: the change that the flag is at afterwards, 0 before the first.
    pub back_to: Option<u64>,
    /// What the audit trail learns of it.
    pub entry: AuditEntry,
}

/// One change of a flag's runtime layer, as it was kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PastChange {
    /// Its number.
    pub revision: u64,
    /// When, in milliseconds since 1970.
    pub at_unix_ms: i64,
    /// Who.
    pub actor: String,
    /// What was done.
    pub action: String,
    /// Why.
    pub reason: String,
    /// The layer afterwards; `None` where there was none.
    pub body: Option<String>,
}

/// Where a rollback of a flag leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WayBack {
    /// The change that is undone.
    pub undoes: u64,
    /// The change that the flag is at afterwards; 0 before the first.
    pub back_to: u64,
    /// The layer as it was after that change; `None` where there was none.
    pub stored: Option<Stored>,
}

/// A freeze, or its end, as it is to be kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FreezeChange {
    /// What is frozen, or not any more.
    pub target: FreezeTarget,
    /// The freeze; `None` lifts it.
    pub freeze: Option<Freeze>,
    /// What the audit trail learns of it.
    pub entry: AuditEntry,
}

/// What is frozen, as one text: `all`, `flag:NAME`, `route:NAME`.
#[must_use]
pub fn freeze_text(target: &FreezeTarget) -> String {
    match target {
        FreezeTarget::All => "all".to_owned(),
        FreezeTarget::Flag(flag) => format!("flag:{flag}"),
        FreezeTarget::Route(route) => format!("route:{route}"),
    }
}

/// Reads what [`freeze_text`] wrote.
pub(super) fn parse_freeze(text: &str) -> Option<FreezeTarget> {
    match parse_target(text)? {
        KillTarget::All => Some(FreezeTarget::All),
        KillTarget::Flag(flag) => Some(FreezeTarget::Flag(flag)),
        KillTarget::Route(route) => Some(FreezeTarget::Route(route)),
        KillTarget::Subject(..) => None,
    }
}

/// Who set the members of a layer, as one text.
pub(super) fn setters_text(setters: &BTreeMap<String, Setter>) -> String {
    let shown: BTreeMap<&String, (u64, &str)> = setters
        .iter()
        .map(|(member, setter)| (member, (setter.revision, &*setter.actor)))
        .collect();
    // Texts and numbers always serialise.
    serde_json::to_string(&shown).unwrap_or_default()
}

/// Reads what [`setters_text`] wrote.
pub(super) fn parse_setters(text: &str) -> Option<BTreeMap<String, Setter>> {
    let read: BTreeMap<String, (u64, String)> = serde_json::from_str(text).ok()?;
    let setters = read.into_iter().map(|(member, (revision, actor))| {
        let actor = actor.into();
        (member, Setter { revision, actor })
    });
    Some(setters.collect())
}

/// What an audit record says, before it has a place in the chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditEntry {
    /// When, in milliseconds since 1970-01-01T00:00:00Z.
    pub at_unix_ms: i64,
    /// Who.
    pub actor: String,
    /// The role under which the actor was let in.
    pub role: Option<String>,
    /// The address it came from.
    pub from: Option<String>,
    /// What was done: `kill`, `rearm`, or a word of the caller's.
    pub action: String,
    /// To what: `all`, `route:NAME`, `flag:NAME`, `subject:ROUTE/h:...`, or a text of the caller's.
    pub target: String,
    /// Why, in the actor's words.
    pub reason: String,
    /// What was there before; of a kill the JSON object `{"epoch","killed","reason","actor","at_unix_ms"}`.
    pub before: Option<String>,
    /// What is there now, in the same shape.
    pub after: Option<String>,
}

/// An audit record in its place: each carries the hash of the one before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditRecord {
    /// Its number, from 1, without gaps.
    pub seq: u64,
    /// What it says.
    pub entry: AuditEntry,
    /// The hash of the record before it; zeros for the first.
    pub prev_hash: [u8; 32],
    /// SHA-256 over number, previous hash and every member, each with its length in front.
    pub hash: [u8; 32],
}

/// The hash that `entry` gets as number `seq` behind `prev_hash`.
pub(super) fn audit_hash(seq: u64, prev_hash: &[u8; 32], entry: &AuditEntry) -> [u8; 32] {
    // Lengths in front, so that no text can slide from one member into the next; an absent member is not an empty one.
    fn member(hash: &mut Sha256, text: Option<&str>) {
        match text {
            None => hash.update(u64::MAX.to_be_bytes()),
            Some(text) => {
                hash.update((text.len() as u64).to_be_bytes());
                hash.update(text.as_bytes());
            }
        }
    }
    let mut hash = Sha256::new();
    hash.update(seq.to_be_bytes());
    hash.update(prev_hash);
    hash.update(entry.at_unix_ms.to_be_bytes());
    for text in [
        Some(&entry.actor),
        entry.role.as_ref(),
        entry.from.as_ref(),
        Some(&entry.action),
        Some(&entry.target),
        Some(&entry.reason),
        entry.before.as_ref(),
        entry.after.as_ref(),
    ] {
        member(&mut hash, text.map(String::as_str));
    }
    hash.finalize().into()
}

/// A target as one text. Keys hold neither `:` nor `/`, so it reads back without doubt.
pub(super) fn target_text(target: &KillTarget) -> String {
    match target {
        KillTarget::All => "all".to_owned(),
        KillTarget::Flag(flag) => format!("flag:{flag}"),
        KillTarget::Route(route) => format!("route:{route}"),
        KillTarget::Subject(route, subject) => format!("subject:{route}/{subject}"),
    }
}

/// Reads what [`target_text`] wrote.
pub(super) fn parse_target(text: &str) -> Option<KillTarget> {
    if text == "all" {
        return Some(KillTarget::All);
    }
    let (kind, name) = text.split_once(':')?;
    match kind {
        "flag" => FlagKey::parse(name).ok().map(KillTarget::Flag),
        "route" => RouteKey::parse(name).ok().map(KillTarget::Route),
        "subject" => {
            let (route, subject) = name.split_once('/')?;
            Some(KillTarget::Subject(
                RouteKey::parse(route).ok()?,
                SubjectHash::parse(subject)?,
            ))
        }
        _ => None,
    }
}

/// A kill as an audit record shows it.
pub(super) fn kill_text(kill: &Kill) -> String {
    #[derive(Serialize)]
    struct Shown<'a> {
        epoch: u64,
        killed: bool,
        reason: &'a str,
        actor: &'a str,
        at_unix_ms: i64,
    }
    let shown = Shown {
        epoch: kill.epoch.0,
        killed: kill.killed,
        reason: &kill.reason,
        actor: &kill.actor,
        at_unix_ms: kill.at_unix_ms,
    };
    // Texts and numbers always serialise.
    serde_json::to_string(&shown).unwrap_or_default()
}

/// The audit entry of a change that found `before` in its place.
pub(super) fn kill_entry(change: &KillChange, before: Option<&Kill>) -> AuditEntry {
    AuditEntry {
        at_unix_ms: change.kill.at_unix_ms,
        actor: change.kill.actor.to_string(),
        role: change.origin.role.clone(),
        from: change.origin.from.clone(),
        action: if change.kill.killed { "kill" } else { "rearm" }.to_owned(),
        target: target_text(&change.target),
        reason: change.kill.reason.to_string(),
        before: before.map(kill_text),
        after: Some(kill_text(&change.kill)),
    }
}

/// The version of the journal's lines.
const JOURNAL_VERSION: u32 = 1;

/// The first line of the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct JournalHead {
    /// The secret of the held subjects' hashes, so that they are recognised even when the state file is gone.
    pub hash_key: HashKeyBytes,
    /// The byte at which the lines that count begin.
    pub from: u64,
}

/// [`HashKey`]'s bytes, which can be compared.
pub(super) type HashKeyBytes = [u8; 16];

/// Why a line of the journal cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LineError {
    /// Whole in form, but not what was once written.
    Damaged,
    /// Written by a later version.
    Newer,
    /// A part of a line: the write was cut off.
    Torn,
}

#[derive(Serialize, Deserialize)]
struct HeadLine {
    v: u32,
    hash_key: String,
    from: u64,
}

#[derive(Serialize, Deserialize)]
struct KillsLine {
    v: u32,
    kills: Vec<KillShape>,
}

#[derive(Serialize, Deserialize)]
struct KillShape {
    target: String,
    epoch: u64,
    killed: bool,
    reason: String,
    actor: String,
    at_unix_ms: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    role: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    from: Option<String>,
}

/// The longest free text in the journal, in bytes. Its space is reserved beforehand, and a long reason must not cost a
/// kill its place; the state file gets the text whole.
const JOURNAL_TEXT_LIMIT: usize = 512;

fn shortened(text: &str) -> String {
    let mut end = text.len().min(JOURNAL_TEXT_LIMIT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

/// `{..., "sum": "16 hex digits"}` and a line feed; the sum is XXH64 over the object without it.
fn sealed<T: Serialize>(value: &T) -> String {
    // Texts, numbers and lists of them always serialise, and a struct's text ends with a brace.
    let mut line = serde_json::to_string(value).unwrap_or_default();
    let sum = xxh64(line.as_bytes(), 0);
    line.pop();
    let _ = write!(line, ",\"sum\":\"{sum:016x}\"}}");
    line.push('\n');
    line
}

/// Checks the sum of a line without its line feed and reads it; members it does not know are left alone.
fn unsealed<T: for<'a> Deserialize<'a>>(line: &[u8]) -> Result<T, LineError> {
    #[derive(Deserialize)]
    struct Version {
        v: u32,
    }
    const SUM: &str = r#","sum":"0123456789abcdef"}"#;

    let (body, sum) = line
        .len()
        .checked_sub(SUM.len())
        .and_then(|at| line.split_at_checked(at))
        .ok_or(LineError::Torn)?;
    if !(body.starts_with(b"{\"v\":") && sum.starts_with(b",\"sum\":\"") && sum.ends_with(b"\"}")) {
        return Err(LineError::Torn);
    }
    let mut object = body.to_vec();
    object.push(b'}');
    if sum != format!(",\"sum\":\"{:016x}\"}}", xxh64(&object, 0)).as_bytes() {
        return Err(LineError::Damaged);
    }
    let version: Version = serde_json::from_slice(&object).map_err(|_| LineError::Damaged)?;
    if version.v > JOURNAL_VERSION {
        return Err(LineError::Newer);
    }
    serde_json::from_slice(&object).map_err(|_| LineError::Damaged)
}

/// The journal's first line.
pub(super) fn head_line(head: &JournalHead) -> String {
    sealed(&HeadLine {
        v: JOURNAL_VERSION,
        hash_key: hex(&head.hash_key),
        from: head.from,
    })
}

/// Reads what [`head_line`] wrote.
pub(super) fn parse_head(line: &[u8]) -> Result<JournalHead, LineError> {
    let shape: HeadLine = unsealed(line)?;
    let hash_key = parse_key(&shape.hash_key).ok_or(LineError::Damaged)?;
    Ok(JournalHead {
        hash_key: hash_key.0,
        from: shape.from,
    })
}

/// A line of the journal that holds these kills, all or none of them.
pub(super) fn kills_line(changes: &[&KillChange]) -> String {
    let kills = changes
        .iter()
        .map(|change| KillShape {
            target: target_text(&change.target),
            epoch: change.kill.epoch.0,
            killed: change.kill.killed,
            reason: shortened(&change.kill.reason),
            actor: shortened(&change.kill.actor),
            at_unix_ms: change.kill.at_unix_ms,
            role: change.origin.role.as_deref().map(shortened),
            from: change.origin.from.as_deref().map(shortened),
        })
        .collect();
    sealed(&KillsLine {
        v: JOURNAL_VERSION,
        kills,
    })
}

/// Reads what [`kills_line`] wrote.
pub(super) fn parse_kills(line: &[u8]) -> Result<Vec<KillChange>, LineError> {
    let line: KillsLine = unsealed(line)?;
    line.kills
        .into_iter()
        .map(|shape| {
            Some(KillChange {
                target: parse_target(&shape.target)?,
                kill: Kill {
                    epoch: Epoch(shape.epoch),
                    killed: shape.killed,
                    reason: shape.reason.into(),
                    actor: shape.actor.into(),
                    at_unix_ms: shape.at_unix_ms,
                },
                origin: Origin {
                    role: shape.role,
                    from: shape.from,
                },
            })
        })
        .collect::<Option<Vec<_>>>()
        .ok_or(LineError::Damaged)
}

/// Lower-case hex digits.
fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}

fn parse_key(text: &str) -> Option<HashKey> {
    let whole = text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit());
    whole
        .then(|| u128::from_str_radix(text, 16).ok())
        .flatten()
        .map(|bits| HashKey(bits.to_be_bytes()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn change(target: KillTarget, reason: &str) -> KillChange {
        let kill = Kill {
            epoch: Epoch(3),
            killed: true,
            reason: reason.into(),
            actor: "ann".into(),
            at_unix_ms: 7,
        };
        KillChange {
            target,
            kill,
            origin: Origin {
                role: Some("operator".into()),
                from: None,
            },
        }
    }

    fn targets() -> [KillTarget; 4] {
        let route = RouteKey::parse("whatsapp").unwrap();
        [
            KillTarget::All,
            KillTarget::Flag(FlagKey::parse("a.b-c_D").unwrap()),
            KillTarget::Route(route.clone()),
            KillTarget::Subject(route, SubjectHash(0xfe)),
        ]
    }

    #[test]
    fn target_reads_what_it_writes() {
        for target in targets() {
            assert_eq!(parse_target(&target_text(&target)), Some(target));
        }
        assert_eq!(target_text(&targets()[3]), "subject:whatsapp/h:00000000000000fe");
        for bad in [
            "",
            "route",
            "route:",
            "route:a b",
            "subject:whatsapp",
            "subject:whatsapp/33639980123",
            "shadow:x",
        ] {
            assert_eq!(parse_target(bad), None, "{bad}");
        }
    }

    #[test]
    fn journal_line_is_one_json_object_with_its_sum() {
        let changes = targets().map(|target| change(target, "5xx\n\"everywhere\""));
        let line = kills_line(&changes.each_ref());
        assert_eq!(
            line.matches('\n').count(),
            1,
            "the line feed at the end is the only one"
        );
        let json: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(json["kills"][2]["target"], "route:whatsapp");
        assert_eq!(parse_kills(line.trim_end().as_bytes()), Ok(changes.to_vec()));
    }

    #[test]
    fn over_long_reason_is_shortened_in_the_journal_alone() {
        let reason = "é".repeat(JOURNAL_TEXT_LIMIT);
        let line = kills_line(&[&change(KillTarget::All, &reason)]);
        let kept = parse_kills(line.trim_end().as_bytes()).unwrap();
        assert_eq!(&*kept[0].kill.reason, &reason[..JOURNAL_TEXT_LIMIT]);
    }

    #[test]
    fn line_of_a_later_version_is_named_as_such() {
        let line = sealed(&KillsLine {
            v: JOURNAL_VERSION + 1,
            kills: Vec::new(),
        });
        assert_eq!(parse_kills(line.trim_end().as_bytes()), Err(LineError::Newer));
    }

    #[test]
    fn head_reads_what_it_writes() {
        let head = JournalHead {
            hash_key: [0xab; 16],
            from: 512,
        };
        assert_eq!(parse_head(head_line(&head).trim_end().as_bytes()), Ok(head));
    }

    #[test]
    fn audit_hash_tells_members_apart() {
        let entry = AuditEntry {
            at_unix_ms: 1,
            actor: "ab".into(),
            role: None,
            from: None,
            action: "c".into(),
            target: String::new(),
            reason: String::new(),
            before: None,
            after: None,
        };
        let moved = AuditEntry {
            actor: "a".into(),
            action: "bc".into(),
            ..entry.clone()
        };
        let empty = AuditEntry {
            role: Some(String::new()),
            ..entry.clone()
        };
        let of = |entry| audit_hash(1, &[0; 32], entry);
        assert_ne!(of(&entry), of(&moved));
        assert_ne!(of(&entry), of(&empty));
        assert_ne!(of(&entry), audit_hash(2, &[0; 32], &entry));
        assert_ne!(of(&entry), audit_hash(1, &[1; 32], &entry));
    }

    proptest! {
        #[test]
        fn cut_line_is_torn_and_changed_line_is_never_read(at in 1usize..200, flip in 1u8..=255) {
            let original = [change(KillTarget::All, "errors")];
            let line = kills_line(&[&original[0]]);
            let line = line.trim_end().as_bytes();
            let at = at.min(line.len() - 1);
            prop_assert_eq!(parse_kills(&line[..at]), Err(LineError::Torn));
            let mut changed = line.to_vec();
            changed[at] ^= flip;
            prop_assert!(parse_kills(&changed).is_err());
        }
    }
}
