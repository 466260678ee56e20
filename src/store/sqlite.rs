//! The state file: one SQLite database, opened by one process, used by one thread.
//!
//! In: the path, and what the journal knows about the file. Out: what the file holds, and transactions that are either
//! whole and on the disk or have not happened (write-ahead log, `synchronous=FULL`). A file that is not what we would
//! have written is never changed. Which of two entries for one target stands is the engine's to say. Waiting, retrying
//! and giving up belong to the thread that owns the file.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension as _, Row, TransactionBehavior, params};

use super::audit::{self, AuditQuery, Chain, Trail, signed, unsigned};
use super::file::{FileId, ensure};
use super::record::{
    AuditEntry, AuditRecord, FreezeChange, KillChange, LayerChange, Origin, PastChange, RampMark, WayBack, kill_entry,
    parse_target, target_text,
};
use super::{Layers, StoreError, Unreadable, layers, random_key};
use crate::engine::flags::Threshold;
use crate::engine::flags::schedule::Ramp;
use crate::engine::guard::{Kill, KillSet, KillTarget};
use crate::engine::vocab::{Epoch, FlagKey, HashKey, RouteKey};

/// "unds" in ASCII: tells our files from any other SQLite database.
const APPLICATION_ID: i32 = 0x756e_6473;

/// The schema that this version writes, and the newest that it reads.
///
/// Version 1 had no runtime layers; a file of it gets their tables when it is opened.
const SCHEMA_VERSION: i32 = 2;

const SCHEMA: &str = "
CREATE TABLE meta (name TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE kills (
    target TEXT PRIMARY KEY,
    epoch INTEGER NOT NULL,
    killed INTEGER NOT NULL,
    reason TEXT NOT NULL,
    actor TEXT NOT NULL,
    at_unix_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE ramps (flag TEXT PRIMARY KEY, schedule TEXT NOT NULL, reached INTEGER NOT NULL) STRICT, WITHOUT ROWID;
";

/// The tables whose content decides who is served by whom. The audit trail is not among them: it grows without bound,
/// a start may not take longer for it, and its own chain shows what happened to it.
const CHECKED: [&str; 5] = ["meta", "kills", "ramps", "layers", "freezes"];

/// What the state file held when it was opened.
#[derive(Debug)]
pub(super) struct Found {
    pub kills: KillSet,
    pub ramps: Vec<RampMark>,
    pub layers: Layers,
    pub hash_key: HashKey,
}

impl Found {
    /// What stands in where nothing could be read.
    pub(super) fn nothing(hash_key: HashKey) -> Self {
        Self {
            kills: KillSet::default(),
            ramps: Vec::new(),
            layers: Layers::default(),
            hash_key,
        }
    }
}

/// A re-arm that is on the disk.
#[derive(Debug)]
pub(super) struct Lifted {
    /// What was stored.
    pub kill: Kill,
    /// What undoes it, should nobody have waited for it.
    pub undo: Vec<KillChange>,
}

/// The open state file.
pub(super) struct Database {
    connection: Connection,
    path: PathBuf,
    id: FileId,
}

impl Database {
    /// Opens the file, or makes it where there is none, and reads it.
    ///
    /// `written_before`: there is a journal, so there was a state file.
    ///
    /// # Errors
    /// [`Unreadable`] for whatever is not a sound state file of this version; it is left as it is.
    pub(super) fn open(path: &Path, busy: Duration, written_before: bool) -> Result<(Self, Found), Unreadable> {
        let id = ensure(path, written_before)?;
        let (connection, found) = open_checked(path, busy, written_before).map_err(|error| match error {
            OpenError::Sqlite(error) => Unreadable::new(path, error.to_string(), remedy(&error)),
            OpenError::Unsound(unreadable) => unreadable,
        })?;
        Ok((
            Self {
                connection,
                path: path.to_owned(),
                id,
            },
            found,
        ))
    }

    /// Joins kills into what is stored, and tells the audit trail. One transaction: all of them or none.
    ///
    /// # Errors
    /// [`StoreError::Locked`] and [`StoreError::Failed`]; nothing has happened then.
    pub(super) fn join(&mut self, changes: &[KillChange]) -> Result<(), StoreError> {
        self.transact(|connection| {
            let mut trail = Trail::resume(connection)?;
            for change in changes {
                let before = stored(connection, &change.target)?;
                let kill = &change.kill;
                // A kill that comes from the journal may have been stored just before the end.
                let known = |b: &Kill| (b.epoch, b.killed, b.at_unix_ms) == (kill.epoch, kill.killed, kill.at_unix_ms);
                if before.as_ref().is_some_and(known) {
                    continue;
                }
                let mut present = KillSet::default();
                if let KillTarget::Subject(route, _) = &change.target {
                    let route = KillTarget::Route(route.clone());
                    if let Some(kill) = stored(connection, &route)? {
                        present.admit(route, &kill);
                    }
                }
                if let Some(before) = &before {
                    present.admit(change.target.clone(), before);
                }
                if present.admit(change.target.clone(), kill) {
                    write(connection, &change.target, kill)?;
                }
                trail.append(connection, &kill_entry(change, before.as_ref()))?;
            }
            Ok(true)
        })?;
        Ok(())
    }

    /// Stores a re-arm above everything that it lifts, and removes the held subjects that it makes void.
    ///
    /// The epoch may come out higher than asked for. `wanted` is asked last, before anything becomes durable; if it
    /// says no, nothing has happened, and the answer is `None`.
    ///
    /// # Errors
    /// As [`Database::join`].
    pub(super) fn rearm(
        &mut self,
        change: &KillChange,
        wanted: impl FnOnce() -> bool,
    ) -> Result<Option<Lifted>, StoreError> {
        let mut lifted = None;
        let done = self.transact(|connection| {
            let before = stored(connection, &change.target)?;
            let mut covered: Vec<_> = before
                .clone()
                .map(|kill| (change.target.clone(), kill))
                .into_iter()
                .collect();
            let mut epoch = change.kill.epoch;
            match &change.target {
                KillTarget::Route(route) => covered.extend(stored_subjects(connection, route)?),
                KillTarget::Subject(route, _) => {
                    let route = stored(connection, &KillTarget::Route(route.clone()))?;
                    epoch = epoch.max(route.map_or(epoch, |kill| kill.epoch));
                }
                KillTarget::All | KillTarget::Flag(_) => {}
            }
            for (_, kill) in &covered {
                epoch = epoch.max(Epoch(kill.epoch.0.saturating_add(1)));
            }
            let change = KillChange {
                kill: Kill {
                    epoch,
                    ..change.kill.clone()
                },
                ..change.clone()
            };
            write(connection, &change.target, &change.kill)?;
            for (target, _) in &covered {
                if *target != change.target {
                    connection
                        .prepare_cached("DELETE FROM kills WHERE target = ?1")?
                        .execute([target_text(target)])?;
                }
            }
            Trail::resume(connection)?.append(connection, &kill_entry(&change, before.as_ref()))?;
            let undo = covered
                .into_iter()
                .filter(|(_, kill)| kill.killed)
                .map(|(target, kill)| undoing(target, kill, epoch));
            lifted = Some(Lifted {
                kill: change.kill,
                undo: undo.collect(),
            });
            Ok(wanted())
        })?;
        Ok(lifted.filter(|_| done))
    }

    /// Appends one record to the audit trail and gives its number.
    ///
    /// # Errors
    /// As [`Database::join`].
    pub(super) fn append_audit(&mut self, entry: &AuditEntry) -> Result<u64, StoreError> {
        let mut seq = 0;
        self.transact(|connection| {
            seq = Trail::resume(connection)?.append(connection, entry)?;
            Ok(true)
        })?;
        Ok(seq)
    }

    /// Keeps the marks of gradual flags.
    ///
    /// # Errors
    /// As [`Database::join`].
    pub(super) fn keep_ramps(&mut self, marks: &[RampMark]) -> Result<(), StoreError> {
        self.transact(|connection| {
            for RampMark {
                flag,
                schedule,
                reached,
            } in marks
            {
                // On the same ramp a mark only rises; another ramp starts anew.
                connection
                    .prepare_cached(
                        "INSERT INTO ramps (flag, schedule, reached) VALUES (?1, ?2, ?3) ON CONFLICT (flag) DO UPDATE
                         SET schedule = excluded.schedule, reached = excluded.reached
                         WHERE schedule <> excluded.schedule OR reached < excluded.reached",
                    )?
                    .execute(params![flag.as_str(), schedule.to_string(), reached.buckets()])?;
            }
            Ok(true)
        })?;
        Ok(())
    }

    /// Keeps a change of a flag's runtime layer, its place in the flag's history, and its audit record.
    ///
    /// # Errors
    /// As [`Database::join`].
    pub(super) fn keep_layer(&mut self, change: &LayerChange) -> Result<(), StoreError> {
        self.transact(|connection| {
            layers::keep(connection, change)?;
            Trail::resume(connection)?.append(connection, &change.entry)?;
            Ok(true)
        })?;
        Ok(())
    }

    /// Keeps a freeze, or its end, with its audit record.
    ///
    /// # Errors
    /// As [`Database::join`].
    pub(super) fn keep_freeze(&mut self, change: &FreezeChange) -> Result<(), StoreError> {
        self.transact(|connection| {
            layers::keep_freeze(connection, change)?;
            Trail::resume(connection)?.append(connection, &change.entry)?;
            Ok(true)
        })?;
        Ok(())
    }

    /// Where a rollback of a flag leads.
    ///
    /// # Errors
    /// As [`Database::join`].
    pub(super) fn way_back(&self, flag: &FlagKey) -> Result<Option<WayBack>, StoreError> {
        Ok(layers::way_back(&self.connection, flag)?)
    }

    /// The newest changes of a flag below number `before`, newest first.
    ///
    /// # Errors
    /// As [`Database::join`].
    pub(super) fn history(
        &self,
        flag: &FlagKey,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<PastChange>, StoreError> {
        Ok(layers::history(&self.connection, flag, before, limit)?)
    }

    /// Writes something of no meaning, to find out whether the disk takes it.
    ///
    /// # Errors
    /// As [`Database::join`].
    pub(super) fn probe(&mut self) -> Result<(), StoreError> {
        self.transact(|connection| {
            connection
                .prepare_cached("INSERT OR REPLACE INTO meta (name, value) VALUES ('probe', randomblob(4096))")?
                .execute([])?;
            Ok(true)
        })?;
        Ok(())
    }

    /// The newest audit records that are asked for, newest first.
    ///
    /// # Errors
    /// As [`Database::join`].
    pub(super) fn audit_tail(&self, asked: &AuditQuery) -> Result<Vec<AuditRecord>, StoreError> {
        Ok(audit::tail(&self.connection, asked)?)
    }

    /// Walks along the whole audit trail.
    ///
    /// # Errors
    /// As [`Database::join`].
    pub(super) fn verify_audit(&self) -> Result<Chain, StoreError> {
        Ok(audit::verify(&self.connection)?)
    }

    /// One transaction around `work`, which says whether it is to be kept; false leaves everything as it was.
    fn transact(&mut self, work: impl FnOnce(&Connection) -> rusqlite::Result<bool>) -> Result<bool, StoreError> {
        if !self.id.is_at(&self.path) {
            let what = format!(
                "{} was moved or deleted while in use; put it back or restart",
                self.path.display()
            );
            return Err(StoreError::Failed(what.into()));
        }
        // Immediate: a lock that somebody else holds shows here, before any work, and not at the first write.
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        let keep = work(&transaction)?;
        if keep {
            transaction.commit()?;
        } else {
            transaction.rollback()?;
        }
        Ok(keep)
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Locked,
            _ => Self::Failed(error.to_string().into()),
        }
    }
}

enum OpenError {
    Sqlite(rusqlite::Error),
    Unsound(Unreadable),
}

impl From<rusqlite::Error> for OpenError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

fn remedy(error: &rusqlite::Error) -> &'static str {
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => "end the program that has locked it, then restart",
        Some(ErrorCode::DiskFull) => "make room on the disk, then restart",
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            "restore it from a backup, or move it away to start without it"
        }
        _ => "see to the file, its folder and its disk, then restart",
    }
}

fn open_checked(path: &Path, busy: Duration, written_before: bool) -> Result<(Connection, Found), OpenError> {
    let unsound = |what: &str, remedy| OpenError::Unsound(Unreadable::new(path, what, remedy));
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(busy)?;
    // Closing a file that is not sound must not change it either.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;

    // Before anything is written: whose file is this?
    let application: i32 = connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
    let version: i32 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let tables: u32 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    let empty = (application, version, tables) == (0, 0, 0);
    if empty && written_before {
        return Err(unsound(
            "has lost its content",
            "restore it from a backup, or move it and its journal (`.kills`) away to start without it",
        ));
    }
    if !empty && application != APPLICATION_ID {
        return Err(unsound(
            "is a database of another program",
            "give state.path a file of its own",
        ));
    }
    if !empty && !(1..=SCHEMA_VERSION).contains(&version) {
        let what = format!("has schema {version}, and this version reads schemas up to {SCHEMA_VERSION}");
        return Err(unsound(
            &what,
            "run the version that wrote it, or set another state.path",
        ));
    }
    // SQLite opens for reading what it may not write, and says nothing.
    if connection.is_readonly("main")? {
        return Err(unsound(
            "cannot be written",
            "make the file and its folder writable, then restart",
        ));
    }

    let mode: String = connection.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get(0))?;
    if mode != "wal" {
        tracing::warn!(path = %path.display(), mode, "no write-ahead log here; the state is as safe, and slower");
    }
    connection.pragma_update(None, "synchronous", "full")?;
    connection.pragma_update(None, "trusted_schema", false)?;
    if empty {
        create(&mut connection, &random_key())?;
    }
    let had_layers = empty || version > 1;
    for table in CHECKED
        .into_iter()
        .filter(|table| had_layers || !["layers", "freezes"].contains(table))
    {
        let mut findings = Vec::new();
        connection.pragma(None, "integrity_check", table, |row| {
            row.get(0).map(|line: String| findings.push(line))
        })?;
        if findings != ["ok"] {
            let what = format!("is damaged: {}", findings.first().map_or("no answer", String::as_str));
            return Err(unsound(
                &what,
                "restore it from a backup, or move it away to start without it",
            ));
        }
    }
    let strange = || {
        unsound(
            "holds a row that no version wrote",
            "restore it from a backup, or move it away to start without it",
        )
    };
    let mut found = read(&connection)?.ok_or_else(strange)?;
    if had_layers {
        found.layers = layers::read(&connection)?.ok_or_else(strange)?;
    } else {
        // Only now: a file that is not sound is left as it is.
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        transaction.execute_batch(layers::SCHEMA)?;
        transaction.pragma_update(None, "user_version", SCHEMA_VERSION)?;
        transaction.commit()?;
    }
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)?;
    Ok((connection, found))
}

fn create(connection: &mut Connection, hash_key: &HashKey) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    transaction.execute_batch(SCHEMA)?;
    transaction.execute_batch(audit::SCHEMA)?;
    transaction.execute_batch(layers::SCHEMA)?;
    transaction.execute("INSERT INTO meta (name, value) VALUES ('hash_key', ?1)", [hash_key.0])?;
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", SCHEMA_VERSION)?;
    transaction.commit()
}

/// Everything in the checked tables but the layers; `None` if a row does not say what it must.
fn read(connection: &Connection) -> rusqlite::Result<Option<Found>> {
    let key: Option<Vec<u8>> = connection
        .query_row("SELECT value FROM meta WHERE name = 'hash_key'", [], |row| row.get(0))
        .optional()?;
    let Some(hash_key) = key.and_then(|key| key.try_into().ok()).map(HashKey) else {
        return Ok(None);
    };

    let mut kills = KillSet::default();
    let mut statement = connection.prepare(&format!("SELECT {KILL_COLUMNS}, target FROM kills"))?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let target: String = row.get(5)?;
        let Some(target) = parse_target(&target) else {
            return Ok(None);
        };
        kills.admit(target, &kill(row)?);
    }

    let mut ramps = Vec::new();
    let mut statement = connection.prepare("SELECT flag, schedule, reached FROM ramps ORDER BY flag")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (flag, schedule): (String, String) = (row.get(0)?, row.get(1)?);
        let (Ok(flag), Some(schedule)) = (FlagKey::parse(&flag), Ramp::parse(&schedule)) else {
            return Ok(None);
        };
        ramps.push(RampMark {
            flag,
            schedule,
            reached: Threshold::from_buckets(row.get(2)?),
        });
    }
    Ok(Some(Found {
        kills,
        ramps,
        layers: Layers::default(),
        hash_key,
    }))
}

const KILL_COLUMNS: &str = "epoch, killed, reason, actor, at_unix_ms";

fn kill(row: &Row<'_>) -> rusqlite::Result<Kill> {
    Ok(Kill {
        epoch: Epoch(unsigned(row, 0)?),
        killed: row.get(1)?,
        reason: row.get::<_, String>(2)?.into(),
        actor: row.get::<_, String>(3)?.into(),
        at_unix_ms: row.get(4)?,
    })
}

fn stored(connection: &Connection, target: &KillTarget) -> rusqlite::Result<Option<Kill>> {
    connection
        .prepare_cached(&format!("SELECT {KILL_COLUMNS} FROM kills WHERE target = ?1"))?
        .query_row([target_text(target)], kill)
        .optional()
}

/// The entries of a route's subjects.
fn stored_subjects(connection: &Connection, route: &RouteKey) -> rusqlite::Result<Vec<(KillTarget, Kill)>> {
    let mut statement = connection.prepare_cached(&format!(
        "SELECT {KILL_COLUMNS}, target FROM kills WHERE target >= 'subject:' || ?1 || '/' AND target < 'subject:' || ?1 || '0'"
    ))?;
    // `0` follows `/` in ASCII, so the range is exactly the texts that begin with the route and a slash.
    let mut rows = statement.query([route.as_str()])?;
    let mut subjects = Vec::new();
    while let Some(row) = rows.next()? {
        let target: String = row.get(5)?;
        if let Some(target) = parse_target(&target) {
            subjects.push((target, kill(row)?));
        }
    }
    Ok(subjects)
}

fn write(connection: &Connection, target: &KillTarget, kill: &Kill) -> rusqlite::Result<()> {
    connection
        .prepare_cached(&format!(
            "INSERT OR REPLACE INTO kills ({KILL_COLUMNS}, target) VALUES (?1,?2,?3,?4,?5,?6)"
        ))?
        .execute(params![
            signed(kill.epoch.0),
            kill.killed,
            &*kill.reason,
            &*kill.actor,
            kill.at_unix_ms,
            target_text(target)
        ])
        .map(drop)
}

/// The kill that takes a lifted target back: within an epoch the kill wins over its absence.
fn undoing(target: KillTarget, lifted: Kill, epoch: Epoch) -> KillChange {
    let reason = format!(
        "{} (a re-arm was stored too late for its answer and is undone)",
        lifted.reason
    );
    KillChange {
        target,
        kill: Kill {
            epoch,
            reason: reason.into(),
            ..lifted
        },
        origin: Origin::default(),
    }
}

#[cfg(test)]
mod tests;
