//! Where changes wait between those who ask for them and the threads that own the files.
//!
//! In: changes from any number of callers, results from two threads. Out: work for the threads, answers for the callers, and
//! the health that everybody may watch. The lock is held for bookkeeping only, never while a file is touched, so leaving a
//! change here takes no longer with a dead disk than with a living one. Kills wait here until they are stored, however long
//! that takes; everything else has a cap.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{oneshot, watch};

use super::record::{KillChange, RampMark};
use super::sqlite::Database;
use super::{StoreError, Timing};
use crate::engine::guard::Kill;
use crate::engine::vocab::FlagKey;
use crate::telemetry::clock;

/// The most requests other than kills that may wait.
const JOBS_LIMIT: usize = 256;

/// The most held subjects that may wait for the disk. Kills of what the configuration names are bounded by it, and wait
/// without a cap.
const HOLDS_LIMIT: usize = 65_536;

/// The most flags whose marks may wait.
const RAMPS_LIMIT: usize = 10_000;

/// What is not on the disk, and why; equal to its default when all is well.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreHealth {
    /// Kills in force that the state file does not have yet.
    pub unstored_kills: usize,
    /// Of these, how many the journal has: they survive a restart too.
    pub journaled_kills: usize,
    /// Holds of subjects that were given up because too many waited; they are in force until a restart.
    pub lost_holds: usize,
    /// Since when the oldest unstored kill waits, in milliseconds since 1970.
    pub since_unix_ms: Option<i64>,
    /// What the state file answered last, if that was a failure.
    pub last_error: Option<Arc<str>>,
    /// What the journal answered last, if that was a failure.
    pub journal_error: Option<Arc<str>>,
    /// What the state file answered to the last change that is no kill, if that was a failure: such changes are refused.
    pub change_error: Option<Arc<str>>,
}

pub(super) type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

/// A request that is answered once, and not tried for ever.
pub(super) enum Job {
    Rearm(KillChange, Reply<Kill>),
    Other(Box<dyn Work>),
}

/// Something that is done to the state file, or asked of it, in one go.
pub(super) trait Work: Send {
    /// Whether it still has to be done.
    fn is_wanted(&self) -> bool;
    /// Whether it changes anything: whoever refuses that has something to say in the health.
    fn is_change(&self) -> bool;
    /// Does it, and answers; after a failure nothing has happened, and nobody has been answered.
    fn run(&mut self, database: &mut Database) -> Result<(), StoreError>;
    /// Answers that it was not done.
    fn refuse(self: Box<Self>, error: StoreError);
}

/// How much somebody has to want a piece of work for it to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// It changes something, and is done even when nobody waits for the answer any more.
    Change,
    /// It reads, for whoever waits.
    Question,
}

struct Asking<T, F> {
    kind: Kind,
    work: F,
    reply: Option<Reply<T>>,
}

impl<T: Send, F: FnMut(&mut Database) -> Result<T, StoreError> + Send> Work for Asking<T, F> {
    fn is_wanted(&self) -> bool {
        self.kind == Kind::Change || self.reply.as_ref().is_some_and(|reply| !reply.is_closed())
    }

    fn is_change(&self) -> bool {
        self.kind == Kind::Change
    }

    fn run(&mut self, database: &mut Database) -> Result<(), StoreError> {
        let done = (self.work)(database)?;
        if let Some(reply) = self.reply.take() {
            // Whoever stopped waiting does not need the answer.
            let _ = reply.send(Ok(done));
        }
        Ok(())
    }

    fn refuse(mut self: Box<Self>, error: StoreError) {
        if let Some(reply) = self.reply.take() {
            let _ = reply.send(Err(error));
        }
    }
}

impl Job {
    /// A piece of work whose result is the answer.
    pub(super) fn other<T: Send + 'static>(
        kind: Kind,
        reply: Reply<T>,
        work: impl FnMut(&mut Database) -> Result<T, StoreError> + Send + 'static,
    ) -> Self {
        let reply = Some(reply);
        Self::Other(Box::new(Asking { kind, work, reply }))
    }
}

impl Job {
    /// Whether it still has to be done.
    pub(super) fn is_wanted(&self) -> bool {
        match self {
            Self::Rearm(_, reply) => !reply.is_closed(),
            Self::Other(work) => work.is_wanted(),
        }
    }

    pub(super) fn refuse(self, error: StoreError) {
        // Whoever stopped waiting does not need the answer.
        match self {
            Self::Rearm(_, reply) => drop(reply.send(Err(error))),
            Self::Other(work) => work.refuse(error),
        }
    }
}

/// A kill that the state file does not have yet.
struct Waiting {
    change: KillChange,
    since: Duration,
    since_unix_ms: i64,
    /// The state file refused it at least once.
    refused: bool,
    journaled: bool,
    reply: Option<Reply<()>>,
}

/// A kill's place among those that wait.
pub(super) type Ticket = u64;

#[derive(Default)]
struct Desk {
    kills: BTreeMap<Ticket, Waiting>,
    /// How many of `kills` hold a subject.
    holds: usize,
    /// How many of `kills` are in the journal.
    journaled: usize,
    lost_holds: usize,
    next: Ticket,
    /// Kills came since the state file was last tried.
    arrived: bool,
    jobs: VecDeque<Job>,
    ramps: BTreeMap<FlagKey, RampMark>,
    /// Why the state file's thread does nothing any more.
    database_gone: Option<StoreError>,
    last_error: Option<Arc<str>>,
    journal_error: Option<Arc<str>>,
    change_error: Option<Arc<str>>,
    /// It was logged that kills are late; once, until all are stored.
    told_late: bool,
    closed: bool,
}

/// What the state file's thread is to do next.
#[derive(Default)]
pub(super) struct Round {
    pub kills: Vec<(Ticket, KillChange)>,
    pub job: Option<Job>,
    pub ramps: Vec<RampMark>,
    /// To find out whether changes are taken again.
    pub probe: bool,
    /// Nothing comes after this.
    pub last: bool,
}

/// When the state file's thread may try again.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pace {
    /// Kills that failed before.
    pub kills: Duration,
    /// Jobs that found the file locked.
    pub jobs: Duration,
    /// Marks.
    pub ramps: Duration,
    /// The next look whether changes are taken again.
    pub probe: Duration,
}

/// What the journal's thread is to do next.
pub(super) enum JournalWork {
    Append(Vec<(Ticket, KillChange)>),
    /// Everything in the journal is in the state file.
    Clear,
    /// Nothing comes after this.
    End,
}

/// The most kills in one transaction.
const BATCH: usize = 512;

/// The most kills that the journal is given at once: a kill of a route must not wait behind thousands of held subjects.
const JOURNAL_BATCH: usize = 128;

/// The desk with its bell, shared by the handles and both threads.
pub(super) struct Shared {
    desk: Mutex<Desk>,
    /// Wakes the state file's thread.
    bell: Condvar,
    /// Wakes the journal's thread.
    journal_bell: Condvar,
    health: watch::Sender<StoreHealth>,
    /// How many threads have not ended.
    alive: watch::Sender<usize>,
    pub(super) timing: Timing,
}

impl Shared {
    pub(super) fn new(timing: Timing) -> Arc<Self> {
        Arc::new(Self {
            desk: Mutex::default(),
            bell: Condvar::new(),
            journal_bell: Condvar::new(),
            health: watch::Sender::default(),
            alive: watch::Sender::new(0),
            timing,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Desk> {
        // A panic elsewhere must not stop kills from being stored; every change to the desk is whole in itself.
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn health(&self) -> watch::Receiver<StoreHealth> {
        self.health.subscribe()
    }

    pub(super) fn alive(&self) -> &watch::Sender<usize> {
        &self.alive
    }

    /// Takes a kill on. `journaled` if it comes from the journal.
    pub(super) fn keep_kill(&self, change: KillChange, journaled: bool, reply: Option<Reply<()>>) {
        let mut desk = self.lock();
        let is_hold = change.holds_a_subject();
        if is_hold && desk.holds >= HOLDS_LIMIT {
            desk.lost_holds += 1;
            self.publish(&desk);
            drop(desk);
            answer(reply, Err(StoreError::Crowded));
            return;
        }
        // With the state file out of use, the journal is all there is; it need not wait for a failure.
        let refused = desk.database_gone.is_some();
        let reply = match &desk.database_gone {
            None => reply,
            Some(error) => {
                answer(reply, Err(error.clone()));
                None
            }
        };
        let ticket = desk.next;
        desk.next += 1;
        desk.holds += usize::from(is_hold);
        desk.journaled += usize::from(journaled);
        desk.arrived = true;
        let (since, since_unix_ms) = (clock::monotonic(), clock::unix_ms());
        desk.kills.insert(
            ticket,
            Waiting {
                change,
                since,
                since_unix_ms,
                refused,
                journaled,
                reply,
            },
        );
        self.publish(&desk);
        self.bell.notify_one();
        // Otherwise it sleeps until an older kill is late, which is before this one is.
        if refused || desk.kills.len() - desk.journaled == 1 {
            self.journal_bell.notify_one();
        }
    }

    /// Takes a job on, or refuses it at once.
    pub(super) fn ask(&self, job: Job) {
        let mut desk = self.lock();
        let refusal = match &desk.database_gone {
            Some(error) => Some(error.clone()),
            None if desk.closed => Some(StoreError::Closed),
            None if desk.jobs.len() >= JOBS_LIMIT => Some(StoreError::Crowded),
            None => None,
        };
        match refusal {
            Some(error) => job.refuse(error),
            None => {
                desk.jobs.push_back(job);
                self.bell.notify_one();
            }
        }
    }

    /// Takes a mark on, in place of an earlier one of the same flag: only the newest is written.
    pub(super) fn keep_ramp(&self, mark: RampMark) {
        let mut desk = self.lock();
        if desk.ramps.len() >= RAMPS_LIMIT && !desk.ramps.contains_key(&mark.flag) {
            return;
        }
        let was_empty = desk.ramps.is_empty();
        match desk.ramps.entry(mark.flag.clone()) {
            Entry::Vacant(slot) => drop(slot.insert(mark)),
            Entry::Occupied(slot) if slot.get().schedule == mark.schedule && slot.get().reached > mark.reached => {}
            Entry::Occupied(mut slot) => drop(slot.insert(mark)),
        }
        if was_empty {
            self.bell.notify_one();
        }
    }

    /// Lets both threads finish.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.bell.notify_one();
        self.journal_bell.notify_one();
    }

    /// The state file is out of use: what waits for it is refused, and kills are left to the journal.
    pub(super) fn database_gone(&self, error: StoreError) {
        let mut desk = self.lock();
        for waiting in desk.kills.values_mut() {
            waiting.refused = true;
            answer(waiting.reply.take(), Err(error.clone()));
        }
        for job in std::mem::take(&mut desk.jobs) {
            job.refuse(error.clone());
        }
        if error != StoreError::Closed {
            desk.last_error = Some(error.to_string().into());
        }
        desk.change_error = None;
        desk.database_gone = Some(error);
        self.publish(&desk);
        self.journal_bell.notify_one();
    }

    /// The journal is out of use.
    pub(super) fn journal_gone(&self, error: Arc<str>) {
        let mut desk = self.lock();
        desk.journal_error = Some(error);
        self.publish(&desk);
    }

    /// Waits for work for the state file.
    pub(super) fn next_round(&self, pace: &Pace) -> Round {
        let mut desk = self.lock();
        loop {
            let now = clock::monotonic();
            let last = desk.closed;
            let mut wait = Wait::default();
            let kills = desk.arrived || wait.is_due(!desk.kills.is_empty(), pace.kills, now);
            let jobs = wait.is_due(!desk.jobs.is_empty(), pace.jobs, now);
            let ramps = wait.is_due(!desk.ramps.is_empty(), pace.ramps, now);
            let probe = wait.is_due(desk.change_error.is_some(), pace.probe, now);
            if last || kills || jobs || ramps || probe {
                let mut round = Round {
                    last,
                    probe,
                    ..Round::default()
                };
                // What waits goes first, whatever else there is to do: a re-arm may not overtake a kill.
                if last || kills || jobs {
                    desk.arrived = false;
                    round.kills = desk
                        .kills
                        .iter()
                        .take(BATCH)
                        .map(|(at, kill)| (*at, kill.change.clone()))
                        .collect();
                }
                if jobs {
                    round.job = desk.jobs.pop_front();
                }
                if last || ramps {
                    round.ramps = std::mem::take(&mut desk.ramps).into_values().collect();
                }
                return round;
            }
            desk = wait.on(&self.bell, desk);
        }
    }

    /// What the state file said to a change that is no kill.
    pub(super) fn changed(&self, result: &Result<(), StoreError>) {
        let error: Option<Arc<str>> = result.as_ref().err().map(|error| error.to_string().into());
        let mut desk = self.lock();
        if desk.change_error == error {
            return;
        }
        match &error {
            Some(error) => tracing::error!(error = &**error, "the state file refuses changes; see to its disk"),
            None => tracing::info!("the state file takes changes again"),
        }
        desk.change_error = error;
        self.publish(&desk);
    }

    /// Puts a job back to the front, to be tried again.
    pub(super) fn put_back(&self, job: Job) {
        self.lock().jobs.push_front(job);
    }

    /// Whether kills wait for the state file.
    pub(super) fn kills_wait(&self) -> bool {
        !self.lock().kills.is_empty()
    }

    /// These kills are on the disk.
    pub(super) fn stored(&self, tickets: impl Iterator<Item = Ticket>) {
        let mut desk = self.lock();
        let mut replies = Vec::new();
        for ticket in tickets {
            if let Some(waiting) = desk.kills.remove(&ticket) {
                desk.holds -= usize::from(waiting.change.holds_a_subject());
                desk.journaled -= usize::from(waiting.journaled);
                replies.push(waiting.reply);
            }
        }
        let late = desk.last_error.take().is_some() || desk.told_late;
        if late && desk.kills.is_empty() {
            desk.told_late = false;
            tracing::info!("every kill is in the state file again");
        }
        self.publish(&desk);
        self.journal_bell.notify_one();
        drop(desk);
        for reply in replies {
            answer(reply, Ok(()));
        }
    }

    /// The state file refused its kills.
    pub(super) fn refused(&self, error: &StoreError) {
        let mut desk = self.lock();
        for waiting in desk.kills.values_mut() {
            waiting.refused = true;
        }
        let text: Arc<str> = error.to_string().into();
        if desk.last_error.as_ref() != Some(&text) {
            tracing::error!(
                error = &*text,
                "the state file refuses kills; see to its disk, storing is retried"
            );
            desk.last_error = Some(text);
        }
        self.publish(&desk);
        self.journal_bell.notify_one();
    }

    /// Waits for work for the journal. `not_before` holds after a failure; `holds_lines` says whether there is anything to
    /// clear.
    pub(super) fn next_entry(&self, not_before: Duration, holds_lines: bool) -> JournalWork {
        let mut desk = self.lock();
        loop {
            let now = clock::monotonic();
            let mut wait = Wait::default();
            let mut late = Vec::new();
            for (ticket, waiting) in desk.kills.iter().filter(|(_, waiting)| !waiting.journaled) {
                let due = if waiting.refused {
                    Duration::ZERO
                } else {
                    waiting.since + self.timing.late
                };
                if !wait.is_due(true, due.max(not_before), now) {
                    // What came after it is not late either.
                    break;
                }
                late.push((*ticket, waiting));
            }
            if !late.is_empty() {
                late.sort_by_key(|(ticket, waiting)| (waiting.change.holds_a_subject(), *ticket));
                late.truncate(JOURNAL_BATCH);
                let batch = late
                    .into_iter()
                    .map(|(at, waiting)| (at, waiting.change.clone()))
                    .collect();
                // Before the journal is touched: its disk may be the one that has stalled.
                if !std::mem::replace(&mut desk.told_late, true) {
                    tracing::error!(
                        unstored = desk.kills.len(),
                        "kills are in force but not in the state file; they go to the kill journal, storing is retried"
                    );
                }
                return JournalWork::Append(batch);
            }
            if wait.is_due(holds_lines && desk.journaled == 0, not_before, now) {
                return JournalWork::Clear;
            }
            if desk.closed && desk.database_gone.is_some() {
                return JournalWork::End;
            }
            desk = wait.on(&self.journal_bell, desk);
        }
    }

    /// What the journal came to: these kills are in it now, or it failed.
    pub(super) fn journaled(&self, tickets: impl Iterator<Item = Ticket>, error: Option<Arc<str>>) {
        let mut desk = self.lock();
        for ticket in tickets {
            let newly = desk
                .kills
                .get_mut(&ticket)
                .is_some_and(|waiting| !std::mem::replace(&mut waiting.journaled, true));
            desk.journaled += usize::from(newly);
        }
        if let Some(text) = &error
            && desk.journal_error != error
        {
            tracing::error!(
                error = &**text,
                "the kill journal could not be written; unstored kills are in memory alone"
            );
        }
        desk.journal_error = error;
        self.publish(&desk);
    }

    fn publish(&self, desk: &Desk) {
        let health = StoreHealth {
            unstored_kills: desk.kills.len(),
            journaled_kills: desk.journaled,
            lost_holds: desk.lost_holds,
            since_unix_ms: desk.kills.values().next().map(|waiting| waiting.since_unix_ms),
            last_error: desk.last_error.clone(),
            journal_error: desk.journal_error.clone(),
            change_error: desk.change_error.clone(),
        };
        self.health.send_if_modified(|present| {
            let changed = *present != health;
            *present = health;
            changed
        });
    }
}

fn answer(reply: Option<Reply<()>>, result: Result<(), StoreError>) {
    if let Some(reply) = reply {
        // Whoever stopped waiting does not need the answer.
        let _ = reply.send(result);
    }
}

/// How long a thread may sleep: until the bell, or until the first thing that is not due yet.
#[derive(Default)]
struct Wait(Option<Duration>);

impl Wait {
    /// Whether something that waits until `due` is due; if it is not, the sleep ends then.
    fn is_due(&mut self, exists: bool, due: Duration, now: Duration) -> bool {
        if exists && due > now {
            let left = due.saturating_sub(now);
            self.0 = Some(self.0.map_or(left, |other| other.min(left)));
        }
        exists && due <= now
    }

    fn on<'a>(self, bell: &Condvar, desk: MutexGuard<'a, Desk>) -> MutexGuard<'a, Desk> {
        match self.0 {
            None => bell.wait(desk).unwrap_or_else(PoisonError::into_inner),
            Some(left) => bell.wait_timeout(desk, left).unwrap_or_else(PoisonError::into_inner).0,
        }
    }
}
