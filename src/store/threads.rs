//! The two threads that touch the disk, and the start that brings them up.
//!
//! In: work from the desk. Out: results to the desk. One thread owns the state file, the other the journal; neither waits
//! for the other, and nobody waits for them longer than he chose to. A start waits for both files, but only so long: one
//! that does not answer counts as unreadable.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use super::desk::{Job, JournalWork, Pace, Shared};
use super::handle::StoreHandle;
use super::journal::Journal;
use super::record::KillChange;
use super::sqlite::{self, Database};
use super::{Opened, StoreError, Timing, Unreadable, random_key};
use crate::engine::vocab::HashKey;
use crate::telemetry::{clock, spawn};

/// What the journal's thread found; nothing, if there was no journal.
#[derive(Default)]
struct Journaled {
    hash_key: Option<HashKey>,
    kills: Vec<KillChange>,
}

/// The journal's thread, which waits to be let in: it empties the journal when nothing in it waits on the desk, so first
/// everything in it has to be there.
struct Door {
    key: SyncSender<HashKey>,
    ready: Receiver<Result<(), Unreadable>>,
}

/// Opens the state at `path`, and the kill journal beside it; makes what does not exist.
///
/// Blocks for at most [`Timing::open`], so it belongs before the runtime. It always gives a store: with one file unreadable
/// kills go to the other, with both they are in memory alone, and [`Opened::unreadable`] says that nothing may be served by
/// new.
#[must_use]
pub fn open(path: &Path, timing: Timing) -> Opened {
    let shared = Shared::new(timing);
    // An absolute path is never one of the names that SQLite takes for something else than a file.
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let journal_path = Journal::path_for(&path);
    let begun = clock::monotonic();

    // Half of the time, so that a journal that does not answer leaves some for the state file.
    let (journaled, door) = start_journal(&shared, &journal_path, begun + timing.open / 2);
    let witness = journaled.as_ref().ok().and_then(|journaled| journaled.hash_key);
    let database = start_database(&shared, &path, witness.is_some(), begun + timing.open);
    let (found, database_error) = match database {
        Ok(found) => (found, None),
        Err(error) => {
            shared.database_gone(StoreError::Unusable(error.clone()));
            (sqlite::Found::nothing(witness.unwrap_or_else(random_key)), Some(error))
        }
    };

    let sqlite::Found {
        mut kills,
        ramps,
        layers,
        hash_key,
    } = found;
    let journal = journaled.and_then(|journaled| {
        let same_secret = witness.is_none_or(|key| key.0 == hash_key.0);
        let (recognised, strangers): (Vec<_>, Vec<_>) = journaled
            .kills
            .into_iter()
            .partition(|change| same_secret || !change.holds_a_subject());
        for change in recognised {
            kills.admit(change.target.clone(), &change.kill);
            shared.keep_kill(change, true, None);
        }
        if strangers.is_empty() {
            door.enter(hash_key, &journal_path, begun + timing.open)
        } else {
            let what = "holds subjects of another state file, which this one cannot recognise";
            let remedy = "put back the state file that it belongs to, or move it away to start without it";
            Err(Unreadable::new(&journal_path, what, remedy))
        }
    });
    if let Err(error) = &journal {
        shared.journal_gone(error.to_string().into());
    }

    let unreadable = database_error.or(journal.err());
    if let Some(unreadable) = &unreadable {
        tracing::error!(%unreadable, "nobody knows what was killed: legacy serves everything until this is repaired and restarted");
    }
    Opened {
        store: StoreHandle::new(shared),
        kills,
        hash_key,
        ramps,
        layers,
        unreadable,
    }
}

fn start_journal(shared: &Arc<Shared>, path: &Path, deadline: Duration) -> (Result<Journaled, Unreadable>, Door) {
    let (tell, told) = sync_channel(1);
    let (key, given) = sync_channel(1);
    let (tell_ready, ready) = sync_channel(1);
    let (its_shared, its_path) = (Arc::clone(shared), path.to_owned());
    let body = move || keep_journal(&its_shared, &its_path, &tell, &given, &tell_ready);
    let journaled = start("understudy-journal", path, body).and_then(|()| wait(&told, path, deadline));
    (journaled, Door { key, ready })
}

fn start_database(
    shared: &Arc<Shared>,
    path: &Path,
    written_before: bool,
    deadline: Duration,
) -> Result<sqlite::Found, Unreadable> {
    let (tell, told) = sync_channel(1);
    let (its_shared, its_path) = (Arc::clone(shared), path.to_owned());
    start("understudy-store", path, move || {
        keep_database(&its_shared, &its_path, written_before, &tell);
    })?;
    wait(&told, path, deadline)
}

impl Door {
    fn enter(self, key: HashKey, path: &Path, deadline: Duration) -> Result<(), Unreadable> {
        // If nobody takes it, nobody answers either.
        let _ = self.key.send(key);
        wait(&self.ready, path, deadline)
    }
}

fn start(name: &str, path: &Path, body: impl FnOnce() + Send + 'static) -> Result<(), Unreadable> {
    let started = spawn::thread(name, body);
    // Detached: a thread that a stalled disk holds must not hold the end of the process.
    started
        .map(drop)
        .map_err(|error| Unreadable::new(path, error.to_string(), "let this user have more threads"))
}

/// Waits for what a thread found, until the deadline of the start.
fn wait<T>(told: &Receiver<Result<T, Unreadable>>, path: &Path, deadline: Duration) -> Result<T, Unreadable> {
    told.recv_timeout(deadline.saturating_sub(clock::monotonic()))
        .unwrap_or_else(|_| {
            Err(Unreadable::new(
                path,
                "did not answer in time",
                "see to its disk, then restart",
            ))
        })
}

/// Counts a thread as alive until it ends, however it ends.
struct Alive<'a>(&'a Shared);

impl<'a> Alive<'a> {
    fn new(shared: &'a Shared) -> Self {
        shared.alive().send_modify(|threads| *threads += 1);
        Self(shared)
    }
}

impl Drop for Alive<'_> {
    fn drop(&mut self) {
        self.0
            .alive()
            .send_modify(|threads| *threads = threads.saturating_sub(1));
    }
}

/// The life of the thread that owns the state file.
fn keep_database(
    shared: &Shared,
    path: &Path,
    written_before: bool,
    tell: &SyncSender<Result<sqlite::Found, Unreadable>>,
) {
    let _alive = Alive::new(shared);
    let database = match Database::open(path, shared.timing.busy, written_before) {
        Ok((database, found)) => {
            // Nobody waits any more: the start went on without us, and what it said about us holds.
            if tell.send(Ok(found)).is_err() {
                return;
            }
            database
        }
        Err(error) => {
            let _ = tell.send(Err(error));
            return;
        }
    };
    // After a panic too: then kills go to the journal, rather than wait for nobody.
    let _gone = Gone(shared);
    let mut writer = Writer {
        shared,
        database,
        pace: Pace::default(),
        pause: shared.timing.retry,
    };
    while writer.work() {}
}

/// Tells the desk that the state file's thread has ended. The file is let go of before that.
struct Gone<'a>(&'a Shared);

impl Drop for Gone<'_> {
    fn drop(&mut self) {
        self.0.database_gone(StoreError::Closed);
    }
}

/// The state file's thread at work.
struct Writer<'a> {
    shared: &'a Shared,
    database: Database,
    pace: Pace,
    /// The pause after the next failure.
    pause: Duration,
}

impl Writer<'_> {
    /// Does what is due; false when there is nothing left to do, ever.
    fn work(&mut self) -> bool {
        let round = self.shared.next_round(&self.pace);
        let idle = round.kills.is_empty() && round.job.is_none() && round.ramps.is_empty();
        let (tickets, kills): (Vec<_>, Vec<_>) = round.kills.into_iter().unzip();
        let stored = self.store_kills(&tickets, &kills);
        if let Some(job) = round.job {
            self.answer(job, &stored, round.last);
        }
        if round.probe {
            self.pace.probe = clock::monotonic() + self.shared.timing.probe;
            self.shared.changed(&self.database.probe());
        }
        if !round.ramps.is_empty() {
            self.pace.ramps = clock::monotonic() + self.shared.timing.ramps;
            if let Err(error) = self.database.keep_ramps(&round.ramps) {
                tracing::warn!(%error, "the marks of gradual flags could not be stored; they are kept for the next attempt");
                round
                    .ramps
                    .into_iter()
                    .filter(|_| !round.last)
                    .for_each(|mark| self.shared.keep_ramp(mark));
            }
        }
        // At the end one failure is enough: what waits for the disk then would keep the process.
        !(round.last && (idle || stored.is_err()))
    }

    fn store_kills(&mut self, tickets: &[u64], kills: &[KillChange]) -> Result<(), StoreError> {
        if kills.is_empty() {
            return Ok(());
        }
        let stored = self.database.join(kills);
        match &stored {
            Ok(()) => {
                self.pace.kills = Duration::ZERO;
                self.pause = self.shared.timing.retry;
                self.shared.stored(tickets.iter().copied());
            }
            Err(error) => {
                self.pace.kills = clock::monotonic() + self.pause;
                self.pause = self.pause.saturating_mul(2).min(self.shared.timing.retry_at_most);
                self.shared.refused(error);
            }
        }
        stored
    }

    /// `kills` is what became of the kills that came before this job.
    fn answer(&mut self, job: Job, kills: &Result<(), StoreError>, last: bool) {
        if !job.is_wanted() {
            return;
        }
        let (again, error) = match job {
            Job::Rearm(change, reply) => {
                // A re-arm that overtakes the kill it lifts would be undone by it, or leave its record behind.
                let done = kills.clone().and_then(|()| match self.shared.kills_wait() {
                    true => Err(StoreError::Locked),
                    false => self.database.rearm(&change, || !reply.is_closed()),
                });
                match done {
                    Ok(Some(lifted)) => {
                        if reply.send(Ok(lifted.kill)).is_err() {
                            // It became durable after its caller had been told that it would not.
                            lifted
                                .undo
                                .into_iter()
                                .for_each(|undo| self.shared.keep_kill(undo, false, None));
                        }
                        return;
                    }
                    Ok(None) => return,
                    Err(error) => (Job::Rearm(change, reply), error),
                }
            }
            Job::Other(mut work) => {
                let done = work.run(&mut self.database);
                if work.is_change() && done != Err(StoreError::Locked) {
                    self.pace.probe = clock::monotonic() + self.shared.timing.probe;
                    self.shared.changed(&done);
                }
                match done {
                    Ok(()) => return,
                    Err(error) => (Job::Other(work), error),
                }
            }
        };
        if error == StoreError::Locked && again.is_wanted() && !last {
            self.pace.jobs = clock::monotonic() + self.shared.timing.retry;
            self.shared.put_back(again);
        } else {
            again.refuse(error);
        }
    }
}

/// The life of the thread that owns the journal.
fn keep_journal(
    shared: &Shared,
    path: &Path,
    tell: &SyncSender<Result<Journaled, Unreadable>>,
    key: &Receiver<HashKey>,
    ready: &SyncSender<Result<(), Unreadable>>,
) {
    let _alive = Alive::new(shared);
    // Another instance that is just ending gives its lock back within this time.
    let found = match Journal::open(path, shared.timing.open / 4) {
        Ok(found) => found,
        Err(error) => {
            let _ = tell.send(Err(error));
            return;
        }
    };
    let (journal, journaled) = match found {
        Some(found) => {
            let hash_key = Some(found.journal.hash_key());
            (
                Some(found.journal),
                Journaled {
                    hash_key,
                    kills: found.kills,
                },
            )
        }
        None => (None, Journaled::default()),
    };
    if tell.send(Ok(journaled)).is_err() {
        return;
    }
    let Ok(key) = key.recv() else { return };
    let made = match journal {
        Some(mut journal) => journal.adopt(&key).map(|()| journal),
        None => Journal::create(path, &key),
    };
    let mut journal = match made {
        Ok(journal) => journal,
        Err(error) => {
            let _ = ready.send(Err(error));
            return;
        }
    };
    if ready.send(Ok(())).is_err() {
        return;
    }

    let mut not_before = Duration::ZERO;
    loop {
        let (tickets, result) = match shared.next_entry(not_before, journal.holds_lines()) {
            JournalWork::Append(kills) => {
                let changes: Vec<_> = kills.iter().map(|(_, change)| change).collect();
                let (kept, result) = journal.append(&changes);
                (kills.iter().take(kept).map(|(ticket, _)| *ticket).collect(), result)
            }
            JournalWork::Clear => (Vec::new(), journal.clear()),
            JournalWork::End => return,
        };
        not_before = match &result {
            Ok(()) => Duration::ZERO,
            Err(_) => clock::monotonic() + JOURNAL_PAUSE,
        };
        shared.journaled(tickets.into_iter(), result.err().map(|error| error.to_string().into()));
    }
}

/// The pause after the journal failed.
const JOURNAL_PAUSE: Duration = Duration::from_secs(1);
