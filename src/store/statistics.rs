//! The statistics file: what is good to have after a restart, and nothing that decides about anybody.
//!
//! A database of its own beside the state file (`<state.path>.stats`), so that what grows with traffic never makes a kill
//! or a change wait. In: portions of what was counted, on a thread that may block. Out: what earlier processes counted.
//! Portions are added up, so that two processes may write during a hand-over. A power cut may cost the last portions.

use std::collections::HashMap;
use std::fs::OpenOptions;
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior, params};

use super::{StoreError, Unreadable};
use crate::engine::stats::usage::{Counts, KEPT_HOURS, Seen, Usage};

/// "unst" in ASCII.
const APPLICATION_ID: i32 = 0x756e_7374;

/// The newest schema that is read, and the one that is written.
const SCHEMA_VERSION: i32 = 1;

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS usage (
    flag TEXT NOT NULL,
    hour INTEGER NOT NULL,
    off INTEGER NOT NULL,
    on_ INTEGER NOT NULL,
    missed INTEGER NOT NULL,
    hit INTEGER NOT NULL,
    PRIMARY KEY (flag, hour)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS seen (
    flag TEXT PRIMARY KEY,
    known_since_ms INTEGER NOT NULL,
    first_ms INTEGER,
    last_off_ms INTEGER,
    last_on_ms INTEGER
) STRICT, WITHOUT ROWID;
";

/// How long a lock of another process is waited for.
const BUSY: Duration = Duration::from_secs(1);

const REMEDY: &str = "move it away to begin anew: nothing but statistics is in it";

/// The open file. For threads that may block.
#[derive(Debug)]
pub struct Statistics {
    connection: Mutex<Connection>,
}

/// Where the statistics of an instance with this state file are.
#[must_use]
pub fn path_for(state: &Path) -> PathBuf {
    let mut path = state.as_os_str().to_owned();
    path.push(".stats");
    path.into()
}

impl Statistics {
    /// Opens the file beside this state file, or makes it.
    ///
    /// # Errors
    /// Whatever is not a sound file of statistics; it is left as it is.
    pub fn open(state: &Path) -> Result<Self, Unreadable> {
        let path = path_for(state);
        let unreadable = |what: String| Unreadable::new(&path, what, REMEDY);
        // SQLite gives its side files the mode of this one.
        let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        if let Err(error) = made
            && error.kind() != ErrorKind::AlreadyExists
        {
            return Err(unreadable(error.to_string()));
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let opened = Connection::open_with_flags(&path, flags).and_then(|connection| {
            connection.busy_timeout(BUSY)?;
            let number = |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, i32>(0));
            let (whose, version) = (number("application_id")?, number("user_version")?);
            let known = (whose, version) == (0, 0) || (whose == APPLICATION_ID && version <= SCHEMA_VERSION);
            if known {
                connection.pragma_update(None, "journal_mode", "WAL")?;
                connection.pragma_update(None, "synchronous", "NORMAL")?;
                connection.execute_batch(SCHEMA)?;
                connection.pragma_update(None, "application_id", APPLICATION_ID)?;
                connection.pragma_update(None, "user_version", SCHEMA_VERSION)?;
            }
            Ok((connection, known))
        });
        match opened {
            Ok((connection, true)) => Ok(Self {
                connection: Mutex::new(connection),
            }),
            Ok((_, false)) => Err(unreadable(
                "holds something else, or was written by a later version".to_owned(),
            )),
            Err(error) => Err(unreadable(error.to_string())),
        }
    }

    /// What was kept of all flags.
    ///
    /// # Errors
    /// [`StoreError::Failed`].
    pub fn usage(&self) -> Result<Vec<(Arc<str>, Usage)>, StoreError> {
        let read = |connection: &Connection| {
            let mut all: HashMap<Arc<str>, Usage> = HashMap::new();
            let mut seen =
                connection.prepare("SELECT flag, known_since_ms, first_ms, last_off_ms, last_on_ms FROM seen")?;
            let mut rows = seen.query([])?;
            while let Some(row) = rows.next()? {
                let seen = Seen {
                    known_since_ms: row.get(1)?,
                    first_ms: row.get(2)?,
                    last_off_ms: row.get(3)?,
                    last_on_ms: row.get(4)?,
                };
                all.insert(row.get::<_, String>(0)?.into(), Usage::new(seen));
            }
            let mut hours = connection.prepare("SELECT flag, hour, off, on_, missed, hit FROM usage")?;
            let mut rows = hours.query([])?;
            while let Some(row) = rows.next()? {
                let flag = row.get_ref(0)?.as_str()?;
                if let Some(usage) = all.get_mut(flag) {
                    let count = |at| row.get::<_, i64>(at).map(|n| u64::try_from(n).unwrap_or_default());
                    let counts = Counts {
                        off: count(2)?,
                        on: count(3)?,
                        missed: count(4)?,
                        hit: count(5)?,
                    };
                    usage.add_hour(row.get(1)?, &counts);
                }
            }
            Ok(all.into_iter().collect())
        };
        let connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        read(&connection).map_err(failed)
    }

    /// Adds hours to what was kept, replaces instants, and forgets hours older than are kept.
    ///
    /// # Errors
    /// [`StoreError::Failed`]; nothing has happened then.
    pub fn keep_usage<'a>(
        &self,
        hours: impl Iterator<Item = (&'a str, u32, Counts)>,
        seen: impl Iterator<Item = (&'a str, Seen)>,
        this_hour: u32,
    ) -> Result<(), StoreError> {
        self.transact(|transaction| {
            let mut add = transaction.prepare_cached(
                "INSERT INTO usage VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT DO UPDATE SET
                 off = off + excluded.off, on_ = on_ + excluded.on_, missed = missed + excluded.missed, hit = hit + excluded.hit",
            )?;
            for (flag, hour, counts) in hours {
                let Counts { off, on, missed, hit } = counts;
                let [off, on, missed, hit] = [off, on, missed, hit].map(|n| i64::try_from(n).unwrap_or(i64::MAX));
                add.execute(params![flag, hour, off, on, missed, hit])?;
            }
            let mut replace = transaction.prepare_cached("INSERT OR REPLACE INTO seen VALUES (?1, ?2, ?3, ?4, ?5)")?;
            for (flag, seen) in seen {
                let Seen { known_since_ms, first_ms, last_off_ms, last_on_ms } = seen;
                replace.execute(params![flag, known_since_ms, first_ms, last_off_ms, last_on_ms])?;
            }
            let oldest = this_hour.saturating_sub(u32::try_from(KEPT_HOURS).unwrap_or(u32::MAX));
            transaction.prepare_cached("DELETE FROM usage WHERE hour < ?1")?.execute([oldest])?;
            Ok(())
        })
    }

    fn transact(&self, work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<()>) -> Result<(), StoreError> {
        let mut connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        let done = connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .and_then(|transaction| {
                work(&transaction)?;
                transaction.commit()
            });
        done.map_err(failed)
    }
}

fn failed(error: rusqlite::Error) -> StoreError {
    StoreError::Failed(error.to_string().into())
}

#[cfg(test)]
mod tests {
    use super::super::testing::Folder;
    use super::*;
    use crate::engine::stats::usage::HOUR_MS;

    fn counts(off: u64, on: u64) -> Counts {
        Counts {
            off,
            on,
            missed: off,
            hit: on,
        }
    }

    fn seen() -> Seen {
        Seen {
            known_since_ms: 3,
            first_ms: Some(4),
            last_off_ms: None,
            last_on_ms: Some(6),
        }
    }

    fn keep(statistics: &Statistics, hour: u32, counts: Counts) {
        let (hours, seen) = ([("checkout", hour, counts)], [("checkout", seen())]);
        statistics
            .keep_usage(hours.into_iter(), seen.into_iter(), 2_000)
            .unwrap();
    }

    #[test]
    fn portions_add_up_and_come_back_after_a_restart() {
        let folder = Folder::new();
        let statistics = Statistics::open(&folder.state()).unwrap();
        keep(&statistics, 1_999, counts(1, 2));
        // A second process during a hand-over.
        let other = Statistics::open(&folder.state()).unwrap();
        keep(&other, 1_999, counts(10, 20));
        keep(&statistics, 2_000, counts(5, 0));
        drop(statistics);
        let kept = Statistics::open(&folder.state()).unwrap().usage().unwrap();
        let (flag, usage) = &kept[0];
        assert_eq!((&**flag, usage.seen), ("checkout", seen()));
        let hours: Vec<_> = usage.hours(0, 9_000 * HOUR_MS).collect();
        assert_eq!(
            hours,
            [(1_999 * HOUR_MS, counts(11, 22)), (2_000 * HOUR_MS, counts(5, 0))]
        );
    }

    #[test]
    fn hours_older_than_are_kept_go() {
        let folder = Folder::new();
        let statistics = Statistics::open(&folder.state()).unwrap();
        keep(&statistics, 2_000 - 745, counts(1, 0));
        keep(&statistics, 2_000 - 744, counts(1, 0));
        assert_eq!(statistics.usage().unwrap()[0].1.hours(0, i64::MAX).count(), 1);
    }

    #[test]
    fn foreign_file_is_named_and_left_alone() {
        let folder = Folder::new();
        let path = path_for(&folder.state());
        std::fs::write(&path, "no database, and somebody's only copy").unwrap();
        let error = Statistics::open(&folder.state()).unwrap_err().to_string();
        assert!(error.contains(".stats") && error.contains("move it away"), "{error}");
        assert_eq!(
            std::fs::read_to_string(&path).unwrap(),
            "no database, and somebody's only copy"
        );
    }
}
