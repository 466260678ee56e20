//! What the rest of the program holds of the store: a place to leave changes, and answers to wait for.
//!
//! In: changes. Out: for each an [`Asked`], which may be awaited for as long as the caller likes or dropped. Nothing here
//! touches a file, and nothing blocks. Dropping the last handle lets the threads finish.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{oneshot, watch};

use super::StoreError;
use super::audit::{AuditQuery, Chain};
use super::desk::{Job, Kind, Reply, Shared, StoreHealth};
use super::record::{AuditEntry, AuditRecord, FreezeChange, KillChange, LayerChange, PastChange, RampMark, WayBack};
use super::sqlite::Database;
use crate::engine::guard::Kill;
use crate::engine::vocab::FlagKey;

/// A way to the store; cheap to clone.
#[derive(Clone)]
pub struct StoreHandle {
    owner: Arc<ArcSwap<Owner>>,
}

/// Lets the threads finish when nobody can ask them for anything any more.
struct Owner {
    shared: Arc<Shared>,
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.shared.close();
    }
}

impl std::fmt::Debug for StoreHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoreHandle")
            .field("health", &*self.shared().health().borrow())
            .finish()
    }
}

impl StoreHandle {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self {
            owner: Arc::new(ArcSwap::from_pointee(Owner { shared })),
        }
    }

    fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.owner.load().shared)
    }

    /// Becomes another one, for everybody who holds this: after the files had been let go of, and were opened again.
    pub fn become_that(&self, other: &Self) {
        self.owner.store(other.owner.load_full());
    }

    /// Keeps a kill that is in force, with its audit record.
    ///
    /// Never refuses: until the kill is in the state file it is tried again, for ever, whether or not anybody awaits the
    /// answer; after [`Timing::late`](super::Timing::late) it goes to the journal too. Only beyond 65,536 held subjects
    /// that wait for the disk is one more given up, counted in [`StoreHealth::lost_holds`].
    pub fn keep_kill(&self, change: KillChange) -> Asked<()> {
        debug_assert!(change.kill.killed, "a re-arm is stored before it is in force");
        let (reply, asked) = Asked::new();
        self.shared().keep_kill(change, false, Some(reply));
        asked
    }

    /// Stores a re-arm, with its audit record, before it may come into force. The answer is what was stored, which the
    /// caller then admits: its epoch can be higher than asked for.
    ///
    /// Held subjects that a route's re-arm lifts are removed with it. Kills that wait are stored first.
    ///
    /// # Errors
    /// Whatever [`Asked::within`] gives: then the target stays killed, here and after a restart. Await it in a task that
    /// is not cancelled: of an answer that was dropped unread nobody knows what it said.
    pub fn rearm(&self, change: KillChange) -> Asked<Kill> {
        debug_assert!(!change.kill.killed, "a kill is never refused, and goes another way");
        self.ask(|reply| Job::Rearm(change, reply))
    }

    /// Keeps a change of a flag's runtime layer, with its audit record. It is done whether or not anybody awaits the answer.
    ///
    /// # Errors
    /// Whatever [`Asked::within`] gives. After [`StoreError::TooSlow`] it may be done all the same: only the answer of
    /// somebody who waits on says so.
    pub fn keep_layer(&self, change: LayerChange) -> Asked<()> {
        self.work(Kind::Change, move |database| database.keep_layer(&change))
    }

    /// Keeps a freeze, or its end, with its audit record; otherwise as [`StoreHandle::keep_layer`].
    pub fn keep_freeze(&self, change: FreezeChange) -> Asked<()> {
        self.work(Kind::Change, move |database| database.keep_freeze(&change))
    }

    /// Where a rollback of a flag leads; `None` where nothing is left to undo.
    pub fn way_back(&self, flag: FlagKey) -> Asked<Option<WayBack>> {
        self.work(Kind::Question, move |database| database.way_back(&flag))
    }

    /// The newest changes of a flag's runtime layer below number `before` (all of them if none), newest first, at most
    /// 1,000.
    pub fn history(&self, flag: FlagKey, before: Option<u64>, limit: usize) -> Asked<Vec<PastChange>> {
        self.work(Kind::Question, move |database| database.history(&flag, before, limit))
    }

    /// Appends a record to the audit trail and gives its number. Kills and re-arms bring theirs along.
    pub fn append_audit(&self, entry: AuditEntry) -> Asked<u64> {
        self.work(Kind::Change, move |database| database.append_audit(&entry))
    }

    /// The newest audit records that are asked for, newest first, at most 1,000.
    pub fn audit_tail(&self, asked: AuditQuery) -> Asked<Vec<AuditRecord>> {
        self.work(Kind::Question, move |database| database.audit_tail(&asked))
    }

    /// Walks along the whole audit trail. Other requests wait meanwhile.
    pub fn verify_audit(&self) -> Asked<Chain> {
        self.work(Kind::Question, |database| database.verify_audit())
    }

    /// Keeps how far a gradual flag has risen, now and then: of the marks that come in between only the highest is written.
    pub fn keep_ramp(&self, mark: RampMark) {
        self.shared().keep_ramp(mark);
    }

    /// What is not on the disk, and why, as it changes.
    #[must_use]
    pub fn health(&self) -> watch::Receiver<StoreHealth> {
        self.shared().health()
    }

    /// Takes no more, writes what waits, tries what failed once more, and lets go of the files. False if that was not done
    /// within `patience`; the process may end all the same.
    pub async fn close(&self, patience: Duration) -> bool {
        let shared = self.shared();
        shared.close();
        let mut alive = shared.alive().subscribe();
        tokio::time::timeout(patience, alive.wait_for(|threads| *threads == 0))
            .await
            .is_ok()
    }

    fn work<T: Send + 'static>(
        &self,
        kind: Kind,
        work: impl FnMut(&mut Database) -> Result<T, StoreError> + Send + 'static,
    ) -> Asked<T> {
        self.ask(|reply| Job::other(kind, reply, work))
    }

    fn ask<T>(&self, job: impl FnOnce(Reply<T>) -> Job) -> Asked<T> {
        let (reply, asked) = Asked::new();
        self.shared().ask(job(reply));
        asked
    }
}

/// The answer to come.
#[derive(Debug)]
pub struct Asked<T> {
    answer: oneshot::Receiver<Result<T, StoreError>>,
}

impl<T> Asked<T> {
    fn new() -> (Reply<T>, Self) {
        let (reply, answer) = oneshot::channel();
        (reply, Self { answer })
    }

    /// Waits for the answer, however long that takes, and once. Nothing is lost if this is dropped before.
    ///
    /// # Errors
    /// That it was not done, and why.
    pub async fn ready(&mut self) -> Result<T, StoreError> {
        (&mut self.answer).await.map_err(|_| StoreError::Closed).flatten()
    }

    /// Waits for the answer, at most this long.
    ///
    /// # Errors
    /// [`StoreError::TooSlow`] when the time is up; any other says that it was not done, and why.
    pub async fn within(mut self, patience: Duration) -> Result<T, StoreError> {
        let answered = match tokio::time::timeout(patience, &mut self.answer).await {
            Ok(answered) => answered.map_err(|_| StoreError::Closed),
            Err(_) => {
                // From here on the other end cannot answer; what it answered before this line is the answer.
                self.answer.close();
                self.answer.try_recv().map_err(|_| StoreError::TooSlow(patience))
            }
        };
        answered.flatten()
    }
}
