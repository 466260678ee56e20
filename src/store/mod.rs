//! What survives the process: kills, what was said about flags at run time, the marks of gradual flags, the secret of the subject hashes, the audit trail.
//!
//! In: a path, and changes from the one who decides about them. Out: what was there at the start, and for each change the
//! answer whether it is on the disk. The state lives in two files, an SQLite database at the path and beside it the kill
//! journal, which takes the kills that the database does not (`journal`). Each file belongs to a thread of its own
//! (`threads`); callers leave their changes on a desk between them (`desk`) and wait as long as they like, so a disk that
//! is full or has stalled holds up nobody. What holds in memory, and that a kill is in force before it is stored, belongs
//! to the caller.

mod audit;
mod desk;
mod file;
mod handle;
mod journal;
mod layers;
mod record;
mod sqlite;
mod statistics;
mod threads;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::engine::guard::KillSet;
use crate::engine::ruleset::edit::Stored;
use crate::engine::ruleset::freeze::Freezes;
use crate::engine::vocab::{FlagKey, HashKey};

pub use audit::{AuditQuery, Chain};
pub use desk::StoreHealth;
pub use handle::{Asked, StoreHandle};
pub use record::{
    AuditEntry, AuditRecord, FreezeChange, KillChange, LayerChange, Origin, PastChange, RampMark, WayBack, freeze_text,
};
pub use statistics::{Statistics, path_for as statistics_path};
pub use threads::open;

/// How long the answer to a kill may wait for the disk.
pub const PATIENCE: Duration = Duration::from_secs(2);

/// The paces of the store. The defaults are meant for production; tests shorten them.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// How long a start waits for the files before it goes on without them.
    pub open: Duration,
    /// How long SQLite waits for a lock that another process holds, each time.
    pub busy: Duration,
    /// After this long without success, a kill goes to the journal too.
    pub late: Duration,
    /// The pause after a failed attempt; doubled with each, up to `retry_at_most`.
    pub retry: Duration,
    /// The longest pause between attempts.
    pub retry_at_most: Duration,
    /// Marks of gradual flags are written at most this often.
    pub ramps: Duration,
    /// After a change was refused: how often it is tried whether changes are taken again.
    pub probe: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            open: Duration::from_secs(5),
            busy: Duration::from_millis(250),
            late: Duration::from_millis(200),
            retry: Duration::from_millis(50),
            retry_at_most: Duration::from_secs(5),
            ramps: Duration::from_secs(10),
            probe: Duration::from_secs(5),
        }
    }
}

/// The state as it was found at the start.
#[derive(Debug)]
pub struct Opened {
    /// Takes the changes from now on.
    pub store: StoreHandle,
    /// Both files' kills, joined.
    pub kills: KillSet,
    /// The secret under which subjects are hashed: the stored one, or a passing one where none could be read.
    pub hash_key: HashKey,
    /// How far the gradual flags had risen.
    pub ramps: Vec<RampMark>,
    /// What was said about flags at run time.
    pub layers: Layers,
    /// Set if a file could not be read: nobody knows what was killed, so nothing may be served by new until a restart.
    /// Kills are kept all the same, by the other file if that one is sound.
    pub unreadable: Option<Unreadable>,
}

/// What was said about flags at run time.
#[derive(Debug, Default)]
pub struct Layers {
    /// The number of the last change; 0 before the first.
    pub revision: u64,
    /// The layers, by flag.
    pub stored: Vec<(FlagKey, Stored)>,
    /// What stands still.
    pub freezes: Freezes,
}

/// Why the state cannot be used. The file is left as it was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} {what}; {remedy}", path.display())]
pub struct Unreadable {
    /// The file.
    pub path: PathBuf,
    /// What is the matter with it, as the rest of a sentence that begins with its path.
    pub what: String,
    /// What the operator can do.
    pub remedy: &'static str,
}

impl Unreadable {
    fn new(path: &Path, what: impl Into<String>, remedy: &'static str) -> Self {
        Self {
            path: path.to_owned(),
            what: what.into(),
            remedy,
        }
    }
}

/// Why something is not stored.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The store has ended, or ended before it got to this.
    #[error("the store has been closed")]
    Closed,
    /// Too much is waiting already; nothing was taken on.
    #[error("too many changes wait for the disk already")]
    Crowded,
    /// The disk refused, in its words.
    #[error("the state file could not be written: {0}")]
    Failed(Arc<str>),
    /// Another process holds the state file's lock.
    #[error("the state file is locked by another process")]
    Locked,
    /// The answer did not come in time. A re-arm is not done then, and will not be; an audit record may still follow.
    #[error("the state file did not answer within {} ms", .0.as_millis())]
    TooSlow(Duration),
    /// The state file could not be used at the start, so nothing is written to it.
    #[error("{0}")]
    Unusable(Unreadable),
}

/// The secret under which an instance with this state file hashes subjects, for whoever looks for one in its logs.
///
/// It is read from the head of the kill journal, which is never locked against readers. `None` where there is no journal
/// yet, or none that reads.
#[must_use]
pub fn read_hash_key(state: &Path) -> Option<HashKey> {
    journal::read_hash_key(&journal::Journal::path_for(state))
}

/// A set of kills as text, for another process that takes over. The same format as the kill journal's.
#[must_use]
pub fn write_kills(kills: &KillSet) -> String {
    let changes: Vec<KillChange> = kills
        .iter()
        .map(|(target, kill)| KillChange {
            target,
            kill: kill.clone(),
            origin: Origin::default(),
        })
        .collect();
    let lines = changes.chunks(KILLS_PER_LINE).map(|some| {
        let some: Vec<&KillChange> = some.iter().collect();
        record::kills_line(&some)
    });
    lines.collect()
}

/// Reads what [`write_kills`] wrote; none, if any of it does not read.
#[must_use]
pub fn read_kills(text: &str) -> Option<KillSet> {
    let mut kills = KillSet::default();
    for line in text.lines() {
        for change in record::parse_kills(line.as_bytes()).ok()? {
            kills.admit(change.target, &change.kill);
        }
    }
    Some(kills)
}

/// So many kills share a line of [`write_kills`].
const KILLS_PER_LINE: usize = 32;

/// 128 random bits.
fn random_key() -> HashKey {
    let mut key = [0; 16];
    if getrandom::fill(&mut key).is_err() {
        // The standard library seeds its maps by other means where the system call is missing.
        for half in key.chunks_exact_mut(8) {
            half.copy_from_slice(&RandomState::new().build_hasher().finish().to_ne_bytes());
        }
    }
    HashKey(key)
}
