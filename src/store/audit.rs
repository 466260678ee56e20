//! The audit trail: append-only and hash-chained, written in the transaction of the change it tells of.
//!
//! In: an open transaction and what happened. Out: records in their place, and the answer whether the chain is whole.
//! The chain shows that a record was changed, taken out or put in between; that the newest ones were cut off shows only
//! against a hash noted elsewhere, which is why every record's hash is handed out with it.

use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::record::{AuditEntry, AuditRecord, audit_hash};

/// The most records that one [`tail`] gives.
pub(super) const TAIL_LIMIT: usize = 1_000;

/// The triggers make a slip of ours, or a hasty hand with `sqlite3`, fail instead of rewriting history.
pub(super) const SCHEMA: &str = "
CREATE TABLE audit (
    seq INTEGER PRIMARY KEY,
    at_unix_ms INTEGER NOT NULL,
    actor TEXT NOT NULL,
    role TEXT,
    origin TEXT,
    action TEXT NOT NULL,
    target TEXT NOT NULL,
    reason TEXT NOT NULL,
    before TEXT,
    after TEXT,
    prev_hash BLOB NOT NULL,
    hash BLOB NOT NULL
) STRICT;
CREATE TRIGGER audit_is_not_changed BEFORE UPDATE ON audit BEGIN SELECT RAISE(ABORT, 'audit records are not changed'); END;
CREATE TRIGGER audit_is_not_deleted BEFORE DELETE ON audit BEGIN SELECT RAISE(ABORT, 'audit records are not deleted'); END;
";

const COLUMNS: &str = "seq, at_unix_ms, actor, role, origin, action, target, reason, before, after, prev_hash, hash";

/// What a walk along the whole chain found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chain {
    /// Every record is where it was put; of this many.
    Whole(u64),
    /// The first record that does not follow from the one before it, or is not what was written.
    Broken(u64),
}

/// The end of the chain within one transaction.
pub(super) struct Trail {
    seq: u64,
    hash: [u8; 32],
}

impl Trail {
    /// Finds the end of the chain.
    pub(super) fn resume(connection: &Connection) -> rusqlite::Result<Self> {
        let last = connection
            .prepare_cached("SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1")?
            .query_row([], |row| {
                Ok(Self {
                    seq: unsigned(row, 0)?,
                    hash: row.get(1)?,
                })
            })
            .optional()?;
        Ok(last.unwrap_or(Self { seq: 0, hash: [0; 32] }))
    }

    /// Appends one record and gives its number.
    pub(super) fn append(&mut self, connection: &Connection, entry: &AuditEntry) -> rusqlite::Result<u64> {
        let seq = self.seq.saturating_add(1);
        let hash = audit_hash(seq, &self.hash, entry);
        connection
            .prepare_cached(&format!(
                "INSERT INTO audit ({COLUMNS}) VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12)"
            ))?
            .execute(params![
                signed(seq),
                entry.at_unix_ms,
                entry.actor,
                entry.role,
                entry.from,
                entry.action,
                entry.target,
                entry.reason,
                entry.before,
                entry.after,
                self.hash,
                hash
            ])?;
        (self.seq, self.hash) = (seq, hash);
        Ok(seq)
    }
}

/// Which records are asked for; what is `None` asks nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditQuery {
    /// Only those below this number.
    pub before: Option<u64>,
    /// At most so many, and never more than 1,000.
    pub limit: usize,
    /// Only this actor's.
    pub actor: Option<String>,
    /// Only this action.
    pub action: Option<String>,
    /// Only of this target.
    pub target: Option<String>,
    /// Only from this instant on, in milliseconds since 1970.
    pub since_unix_ms: Option<i64>,
    /// Only before this instant.
    pub until_unix_ms: Option<i64>,
}

impl AuditQuery {
    /// The newest records below number `before` (all of them if none), whoever's they are.
    #[must_use]
    pub fn newest(before: Option<u64>, limit: usize) -> Self {
        Self {
            before,
            limit,
            ..Self::default()
        }
    }
}

/// The newest records that are asked for, newest first, at most [`TAIL_LIMIT`].
pub(super) fn tail(connection: &Connection, asked: &AuditQuery) -> rusqlite::Result<Vec<AuditRecord>> {
    connection
        .prepare_cached(&format!(
            "SELECT {COLUMNS} FROM audit WHERE seq < ?1
             AND (?3 IS NULL OR actor = ?3) AND (?4 IS NULL OR action = ?4) AND (?5 IS NULL OR target = ?5)
             AND (?6 IS NULL OR at_unix_ms >= ?6) AND (?7 IS NULL OR at_unix_ms < ?7)
             ORDER BY seq DESC LIMIT ?2"
        ))?
        .query_map(
            params![
                asked.before.map_or(i64::MAX, signed),
                signed(asked.limit.min(TAIL_LIMIT) as u64),
                asked.actor,
                asked.action,
                asked.target,
                asked.since_unix_ms,
                asked.until_unix_ms,
            ],
            read,
        )?
        .collect()
}

/// Walks the chain from its first record to its last.
pub(super) fn verify(connection: &Connection) -> rusqlite::Result<Chain> {
    let mut statement = connection.prepare(&format!("SELECT {COLUMNS} FROM audit ORDER BY seq"))?;
    let mut rows = statement.query([])?;
    let (mut seq, mut hash) = (0, [0; 32]);
    while let Some(row) = rows.next()? {
        seq += 1;
        // A record that cannot be read was not written by us, so it breaks the chain like any other.
        match read(row) {
            Ok(record)
                if record.seq == seq
                    && record.prev_hash == hash
                    && record.hash == audit_hash(seq, &hash, &record.entry) =>
            {
                hash = record.hash;
            }
            _ => return Ok(Chain::Broken(seq)),
        }
    }
    Ok(Chain::Whole(seq))
}

/// SQLite's integers are signed; numbers that only count up never get that far.
pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Reads a number that [`signed`] wrote.
pub(super) fn unsigned(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    let number: i64 = row.get(column)?;
    u64::try_from(number).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(column, number))
}

fn read(row: &Row<'_>) -> rusqlite::Result<AuditRecord> {
    Ok(AuditRecord {
        seq: unsigned(row, 0)?,
        entry: AuditEntry {
            at_unix_ms: row.get(1)?,
            actor: row.get(2)?,
            role: row.get(3)?,
            from: row.get(4)?,
            action: row.get(5)?,
            target: row.get(6)?,
            reason: row.get(7)?,
            before: row.get(8)?,
            after: row.get(9)?,
        },
        prev_hash: row.get(10)?,
        hash: row.get(11)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(actor: &str) -> AuditEntry {
        AuditEntry {
            at_unix_ms: 5,
            actor: actor.into(),
            role: Some("operator".into()),
            from: Some("127.0.0.1".into()),
            action: "kill".into(),
            target: "route:whatsapp".into(),
            reason: "errors".into(),
            before: None,
            after: Some("{}".into()),
        }
    }

    fn three() -> Connection {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(SCHEMA).unwrap();
        let mut trail = Trail::resume(&connection).unwrap();
        trail.append(&connection, &entry("ann")).unwrap();
        trail.append(&connection, &entry("ben")).unwrap();
        // The chain goes on where an earlier transaction left it.
        Trail::resume(&connection)
            .unwrap()
            .append(&connection, &entry("cat"))
            .unwrap();
        connection
    }

    #[test]
    fn chain_goes_on_over_transactions_and_reads_back_newest_first() {
        let connection = three();
        assert_eq!(verify(&connection).unwrap(), Chain::Whole(3));
        let newest = tail(&connection, &AuditQuery::newest(None, 2)).unwrap();
        assert_eq!(
            newest
                .iter()
                .map(|r| (r.seq, r.entry.actor.as_str()))
                .collect::<Vec<_>>(),
            [(3, "cat"), (2, "ben")]
        );
        assert_eq!(newest[0].prev_hash, newest[1].hash);
        let older = tail(&connection, &AuditQuery::newest(Some(2), 10)).unwrap();
        assert_eq!(older.iter().map(|r| &r.entry).collect::<Vec<_>>(), [&entry("ann")]);
    }

    #[test]
    fn records_can_neither_be_changed_nor_deleted() {
        let connection = three();
        assert!(
            connection
                .execute("UPDATE audit SET actor = 'eve' WHERE seq = 2", [])
                .is_err()
        );
        assert!(connection.execute("DELETE FROM audit WHERE seq = 3", []).is_err());
        assert_eq!(verify(&connection).unwrap(), Chain::Whole(3));
    }

    #[test]
    fn record_changed_past_the_triggers_breaks_the_chain() {
        for (harm, at) in [
            ("UPDATE audit SET actor = 'eve' WHERE seq = 2", 2),
            ("UPDATE audit SET role = NULL WHERE seq = 1", 1),
            ("DELETE FROM audit WHERE seq = 2", 2),
            ("UPDATE audit SET hash = x'00' WHERE seq = 3", 3),
        ] {
            let connection = three();
            connection
                .execute_batch("DROP TRIGGER audit_is_not_changed; DROP TRIGGER audit_is_not_deleted;")
                .unwrap();
            connection.execute(harm, []).unwrap();
            assert_eq!(verify(&connection).unwrap(), Chain::Broken(at), "{harm}");
        }
    }
}
