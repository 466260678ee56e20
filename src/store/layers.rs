//! Runtime layers in the state file: what is said now, and every change that led there.
//!
//! In: an open transaction, or a connection to read from. Out: rows as the rest of the store knows them. A flag's history
//! is a line of changes; a rollback steps back along it without removing anything, so that a step back and another change
//! leave both to be seen. What a layer means is left to the engine.

use rusqlite::{Connection, OptionalExtension as _, params};

use super::Layers;
use super::audit::{TAIL_LIMIT, signed, unsigned};
use super::record::{
    FreezeChange, LayerChange, PastChange, WayBack, freeze_text, parse_freeze, parse_setters, setters_text,
};
use crate::engine::ruleset::edit::Stored;
use crate::engine::ruleset::freeze::{Freeze, Freezes};
use crate::engine::vocab::FlagKey;

/// `node` is the change that a flag is at after a row: of a change itself, of a rollback the one it went back to; 0 is
/// before the first. `parent` is the node from which a change was made.
pub(super) const SCHEMA: &str = "
CREATE TABLE layers (
    flag TEXT PRIMARY KEY,
    revision INTEGER NOT NULL,
    body TEXT NOT NULL,
    setters TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE history (
    revision INTEGER PRIMARY KEY,
    flag TEXT NOT NULL,
    at_unix_ms INTEGER NOT NULL,
    actor TEXT NOT NULL,
    action TEXT NOT NULL,
    reason TEXT NOT NULL,
    layer_revision INTEGER,
    body TEXT,
    setters TEXT,
    node INTEGER NOT NULL,
    parent INTEGER
) STRICT;
CREATE TABLE freezes (
    target TEXT PRIMARY KEY,
    at_unix_ms INTEGER NOT NULL,
    reason TEXT NOT NULL,
    actor TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX history_of_a_flag ON history (flag, revision);
";

/// Every layer, and the number of the last change; `None` if a row does not say what it must.
pub(super) fn read(connection: &Connection) -> rusqlite::Result<Option<Layers>> {
    let revision = connection.query_row("SELECT coalesce(max(revision), 0) FROM history", [], |row| {
        unsigned(row, 0)
    })?;
    let mut stored = Vec::new();
    let mut statement = connection.prepare("SELECT flag, revision, body, setters FROM layers ORDER BY flag")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (flag, setters): (String, String) = (row.get(0)?, row.get(3)?);
        let (Ok(flag), Some(setters)) = (FlagKey::parse(&flag), parse_setters(&setters)) else {
            return Ok(None);
        };
        let body: String = row.get(2)?;
        let layer = Stored {
            revision: unsigned(row, 1)?,
            body: body.into(),
            setters,
        };
        stored.push((flag, layer));
    }
    let mut freezes = Freezes::new();
    let mut statement = connection.prepare("SELECT target, at_unix_ms, reason, actor FROM freezes")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let target: String = row.get(0)?;
        let Some(target) = parse_freeze(&target) else {
            return Ok(None);
        };
        let (reason, actor): (String, String) = (row.get(2)?, row.get(3)?);
        let freeze = Freeze {
            at_unix_ms: row.get(1)?,
            reason: reason.into(),
            actor: actor.into(),
        };
        freezes.insert(target, freeze);
    }
    Ok(Some(Layers {
        revision,
        stored,
        freezes,
    }))
}

/// Puts a freeze into force, or lifts it.
pub(super) fn keep_freeze(connection: &Connection, change: &FreezeChange) -> rusqlite::Result<()> {
    let target = freeze_text(&change.target);
    match &change.freeze {
        Some(freeze) => connection
            .prepare_cached("INSERT OR REPLACE INTO freezes (target, at_unix_ms, reason, actor) VALUES (?1,?2,?3,?4)")?
            .execute(params![target, freeze.at_unix_ms, &*freeze.reason, &*freeze.actor])?,
        None => connection
            .prepare_cached("DELETE FROM freezes WHERE target = ?1")?
            .execute([target])?,
    };
    Ok(())
}

/// Puts a change into force and into the flag's history.
pub(super) fn keep(connection: &Connection, change: &LayerChange) -> rusqlite::Result<()> {
    let flag = change.flag.as_str();
    let (node, parent) = match change.back_to {
        Some(node) => (node, None),
        None => (change.revision, Some(node_of(connection, flag)?)),
    };
    let stored = change.stored.as_ref();
    let setters = stored.map(|stored| setters_text(&stored.setters));
    match stored {
        Some(stored) => connection
            .prepare_cached("INSERT OR REPLACE INTO layers (flag, revision, body, setters) VALUES (?1,?2,?3,?4)")?
            .execute(params![flag, signed(stored.revision), &*stored.body, setters])?,
        None => connection
            .prepare_cached("DELETE FROM layers WHERE flag = ?1")?
            .execute([flag])?,
    };
    connection
        .prepare_cached(
            "INSERT INTO history (revision, flag, at_unix_ms, actor, action, reason, layer_revision, body, setters, node, parent)
             VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11)",
        )?
        .execute(params![
            signed(change.revision),
            flag,
            change.entry.at_unix_ms,
            change.entry.actor,
            change.entry.action,
            change.entry.reason,
            stored.map(|stored| signed(stored.revision)),
            stored.map(|stored| &*stored.body),
            setters,
            signed(node),
            parent.map(signed),
        ])?;
    Ok(())
}

/// The change that a flag is at; 0 before its first.
fn node_of(connection: &Connection, flag: &str) -> rusqlite::Result<u64> {
    let node = connection
        .prepare_cached("SELECT node FROM history WHERE flag = ?1 ORDER BY revision DESC LIMIT 1")?
        .query_row([flag], |row| unsigned(row, 0))
        .optional()?;
    Ok(node.unwrap_or_default())
}

/// Where a rollback of a flag leads; `None` where nothing is left to undo.
pub(super) fn way_back(connection: &Connection, flag: &FlagKey) -> rusqlite::Result<Option<WayBack>> {
    let undoes = node_of(connection, flag.as_str())?;
    let back_to = connection
        .prepare_cached("SELECT parent FROM history WHERE revision = ?1 AND parent IS NOT NULL")?
        .query_row([signed(undoes)], |row| unsigned(row, 0))
        .optional()?;
    let Some(back_to) = back_to else { return Ok(None) };
    let stored = connection
        .prepare_cached("SELECT layer_revision, body, setters FROM history WHERE revision = ?1 AND body IS NOT NULL")?
        .query_row([signed(back_to)], |row| {
            let (body, setters): (String, String) = (row.get(1)?, row.get(2)?);
            Ok(Stored {
                revision: unsigned(row, 0)?,
                body: body.into(),
                // One that does not read names nobody; the values are there all the same.
                setters: parse_setters(&setters).unwrap_or_default(),
            })
        })
        .optional()?;
    Ok(Some(WayBack {
        undoes,
        back_to,
        stored,
    }))
}

/// The newest changes of a flag below number `before`, newest first, at most [`TAIL_LIMIT`].
pub(super) fn history(
    connection: &Connection,
    flag: &FlagKey,
    before: Option<u64>,
    limit: usize,
) -> rusqlite::Result<Vec<PastChange>> {
    let before = before.map_or(i64::MAX, signed);
    connection
        .prepare_cached(
            "SELECT revision, at_unix_ms, actor, action, reason, body FROM history
             WHERE flag = ?1 AND revision < ?2 ORDER BY revision DESC LIMIT ?3",
        )?
        .query_map(
            params![flag.as_str(), before, signed(limit.min(TAIL_LIMIT) as u64)],
            |row| {
                Ok(PastChange {
                    revision: unsigned(row, 0)?,
                    at_unix_ms: row.get(1)?,
                    actor: row.get(2)?,
                    action: row.get(3)?,
                    reason: row.get(4)?,
                    body: row.get(5)?,
                })
            },
        )?
        .collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::audit::AuditQuery;
    use super::super::record::AuditEntry;
    use super::super::sqlite::Database;
    use super::super::testing::Folder;
    use super::*;
    use crate::engine::ruleset::edit::Setter;

    fn key() -> FlagKey {
        FlagKey::parse("checkout").unwrap()
    }

    fn stored(revision: u64, body: &str) -> Stored {
        let setter = Setter {
            revision,
            actor: "ann".into(),
        };
        Stored {
            revision,
            body: body.into(),
            setters: [("percentage".to_owned(), setter)].into(),
        }
    }

    fn change(revision: u64, stored: Option<Stored>, back_to: Option<u64>) -> LayerChange {
        LayerChange {
            flag: key(),
            revision,
            stored,
            back_to,
            entry: AuditEntry {
                at_unix_ms: 1,
                actor: "ann".into(),
                role: None,
                from: None,
                action: "put".into(),
                target: "flag:checkout".into(),
                reason: "a test".into(),
                before: None,
                after: None,
            },
        }
    }

    fn open(folder: &Folder) -> (Database, Layers) {
        let (database, found) = Database::open(&folder.state(), Duration::ZERO, false).unwrap();
        (database, found.layers)
    }

    #[test]
    fn layer_is_there_after_a_restart_with_its_number_and_its_audit_record() {
        let folder = Folder::new();
        let (mut database, found) = open(&folder);
        assert_eq!((found.revision, found.stored.len()), (0, 0));
        let layer = stored(7, r#"{"percentage":5}"#);
        database.keep_layer(&change(7, Some(layer.clone()), None)).unwrap();
        assert_eq!(database.audit_tail(&AuditQuery::newest(None, 10)).unwrap().len(), 1);
        drop(database);
        let (mut database, found) = open(&folder);
        assert_eq!((found.revision, found.stored), (7, vec![(key(), layer)]));
        database.keep_layer(&change(8, None, None)).unwrap();
        drop(database);
        let (_, found) = open(&folder);
        assert_eq!((found.revision, found.stored.len()), (8, 0));
    }

    #[test]
    fn rollback_walks_back_over_changes_and_a_change_after_it_begins_a_new_walk() {
        let folder = Folder::new();
        let (mut database, _) = open(&folder);
        let body = |database: &Database| database.way_back(&key()).unwrap();
        assert_eq!(body(&database), None);
        for revision in 1..=3 {
            let layer = stored(revision, &format!(r#"{{"percentage":{revision}}}"#));
            database.keep_layer(&change(revision, Some(layer), None)).unwrap();
        }
        let mut undone = Vec::new();
        let mut revision = 4;
        let mut step = |database: &mut Database| {
            let way = database.way_back(&key()).unwrap()?;
            let layer = way.stored.clone().map(|stored| Stored { revision, ..stored });
            database
                .keep_layer(&change(revision, layer, Some(way.back_to)))
                .unwrap();
            revision += 1;
            undone.push((way.undoes, way.back_to));
            Some(())
        };
        step(&mut database).unwrap();
        step(&mut database).unwrap();
        let layer = stored(10, r#"{"percentage":10}"#);
        database.keep_layer(&change(10, Some(layer), None)).unwrap();
        revision = 11;
        let mut step = |database: &mut Database| {
            let way = database.way_back(&key()).unwrap()?;
            let layer = way.stored.clone();
            database
                .keep_layer(&change(revision, layer, Some(way.back_to)))
                .unwrap();
            revision += 1;
            undone.push((way.undoes, way.back_to));
            Some(())
        };
        while step(&mut database).is_some() {}
        assert_eq!(undone, [(3, 2), (2, 1), (10, 1), (1, 0)]);
        let past = database.history(&key(), None, 100).unwrap();
        assert_eq!(past.len(), 8);
        assert_eq!((past[0].revision, &past[0].body), (12, &None));
        assert_eq!(database.history(&key(), Some(3), 1).unwrap()[0].revision, 2);
    }

    #[test]
    fn change_with_a_number_that_exists_is_refused_whole() {
        let folder = Folder::new();
        let (mut database, _) = open(&folder);
        database.keep_layer(&change(1, Some(stored(1, "{}")), None)).unwrap();
        assert!(database.keep_layer(&change(1, None, None)).is_err());
        drop(database);
        assert_eq!(open(&folder).1.stored.len(), 1);
    }
}
