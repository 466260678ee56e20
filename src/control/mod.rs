//! The control plane: the one writer of rules, and the door through which kills and re-arms come.
//!
//! A kill is in force, in memory, before anything else is done about it; a re-arm is on disk before it is in force.
//! Everything that changes at run time has an actor and leaves an audit record.

pub mod command;
mod controller;
mod edit;
pub mod publish;
pub mod source;
pub mod statistics;
mod whatif;
mod writer;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot, watch};

use crate::config::Config;
use crate::engine::guard::{KillSet, KillTarget, Rearmed};
use crate::engine::ruleset::edit::RuntimeLayers;
use crate::engine::ruleset::freeze::{self, FreezeTarget};
use crate::engine::ruleset::problem::{Problem, nearest};
use crate::engine::vocab::{FlagKey, Revision, RouteKey};
use crate::live::Live;
use crate::store::{
    AuditEntry, AuditQuery, AuditRecord, Chain, KillChange, Opened, Origin, PATIENCE, PastChange, StoreError,
    StoreHandle, StoreHealth,
};
use crate::telemetry::{clock, names, spawn};

pub use command::{Actor, Edit, EditError, Edited, Expect, KillAck, Kind, NameError, RearmAck, RearmError, What};
pub use whatif::{WhatIf, WouldMove};

use source::{Files, Fingerprint, Source};

/// The actor of every kill that a guard set.
pub const GUARD: &str = "guard";

/// How long a walk along the audit trail may take.
const WALK: Duration = Duration::from_secs(10);

/// How many near names an unknown one is answered with.
const NEAR: usize = 3;

/// What the control plane starts from.
#[derive(Debug)]
pub struct Parts {
    /// The state in memory.
    pub live: Arc<Live>,
    /// The state on disk.
    pub store: StoreHandle,
    /// Where rules come from.
    pub source: Source,
    /// The configuration in force.
    pub config: Config,
    /// What was in the files.
    pub files: Arc<Files>,
    /// What was said about flags at run time.
    pub runtime: RuntimeLayers,
    /// What it was read from.
    pub fingerprint: Fingerprint,
    /// Turns true when the instance ends.
    pub draining: watch::Receiver<bool>,
}

/// What may be done to a running instance; cheap to clone.
#[derive(Clone, Debug)]
pub struct Control {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Handed {
    // What the store has been given so far.
    kills: KillSet,
    // What was killed, or killed once more, while a re-arm waits for the disk.
    meanwhile: Option<Vec<KillTarget>>,
}

#[derive(Debug)]
struct Inner {
    live: Arc<Live>,
    store: StoreHandle,
    commands: mpsc::Sender<writer::Command>,
    runtime: watch::Receiver<Arc<RuntimeLayers>>,
    handed: Mutex<Handed>,
    rearming: tokio::sync::Mutex<()>,
    draining: watch::Receiver<bool>,
}

impl Control {
    /// Starts the controller and the task that hands what guards kill to the store.
    #[must_use]
    pub fn start(parts: Parts, runtime: &Handle) -> Self {
        let (commands, inbox) = mpsc::channel(16);
        let handed = parts.live.kills.read(KillSet::clone);
        let (told, layers) = watch::channel(Arc::new(parts.runtime.clone()));
        let control = Self {
            inner: Arc::new(Inner {
                live: Arc::clone(&parts.live),
                store: parts.store.clone(),
                commands,
                runtime: layers,
                handed: Mutex::new(Handed {
                    kills: handed,
                    meanwhile: None,
                }),
                rearming: tokio::sync::Mutex::default(),
                draining: parts.draining.clone(),
            }),
        };
        let _entered = runtime.enter();
        drop(spawn::task("controller", controller::run(parts, told, inbox)));
        drop(spawn::task("keeper", control.clone().keep()));
        control
    }

    /// The state in memory.
    #[must_use]
    pub fn live(&self) -> &Arc<Live> {
        &self.inner.live
    }

    /// What is not on disk, and why.
    #[must_use]
    pub fn store_health(&self) -> StoreHealth {
        self.inner.store.health().borrow().clone()
    }

    /// What was said about flags at run time.
    #[must_use]
    pub fn runtime(&self) -> Arc<RuntimeLayers> {
        Arc::clone(&self.inner.runtime.borrow())
    }

    /// Whether the instance is ending.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        *self.inner.draining.borrow()
    }

    /// What a name names.
    ///
    /// # Errors
    /// [`NameError`]: nothing, with names that look like it, or two things.
    pub fn resolve(&self, name: &str, kind: Option<Kind>) -> Result<KillTarget, NameError> {
        let Some(snapshot) = self.inner.live.snapshot() else {
            return Err(NameError::Unknown { near: Vec::new() });
        };
        let rules = &snapshot.rules;
        let route = RouteKey::parse(name).ok().filter(|key| rules.find_route(key).is_some());
        let flag = FlagKey::parse(name).ok().filter(|key| rules.flag(key).is_some());
        let route = route.filter(|_| kind != Some(Kind::Flag));
        let flag = flag.filter(|_| kind != Some(Kind::Route));
        match (route, flag) {
            (Some(_), Some(_)) => Err(NameError::Both),
            (Some(route), None) => Ok(KillTarget::Route(route)),
            (None, Some(flag)) => Ok(KillTarget::Flag(flag)),
            (None, None) => {
                let routes = rules.routes().map(|(_, route)| route.key().as_str());
                let routes = routes.filter(|_| kind != Some(Kind::Flag));
                let flags = rules.flags().iter().map(|(_, flag)| flag.key.as_str());
                let flags = flags.filter(|_| kind != Some(Kind::Route));
                let near = nearest(name, routes.chain(flags), NEAR)
                    .into_iter()
                    .map(str::to_owned)
                    .collect();
                Err(NameError::Unknown { near })
            }
        }
    }

    /// Kills. Never refused, never waits: it is in force before this first waits, and the answer comes within 2 s.
    pub async fn kill(&self, target: KillTarget, reason: &str, actor: &Actor) -> KillAck {
        let inner = &self.inner;
        let (killed, asked) = {
            let mut handed = inner.lock_handed();
            let at = clock::unix_ms();
            let killed = inner
                .live
                .kills
                .change(|kills| kills.kill(target, reason, Arc::clone(&actor.name), at));
            if let Some(meanwhile) = &mut handed.meanwhile {
                meanwhile.push(killed.target.clone());
            }
            let mut asked = None;
            for change in inner.unhanded(&mut handed.kills, actor) {
                let mine = change.target == killed.target;
                let answer = inner.store.keep_kill(change);
                asked = if mine { Some(answer) } else { asked };
            }
            (killed, asked)
        };
        if killed.changed {
            inner.live.exporter.count(names::KILLS, &labels(&killed.target));
            tracing::error!(target_killed = %killed.target, actor = &*actor.name, reason, "killed");
        }
        let stored = match asked {
            Some(asked) => asked.within(PATIENCE).await.is_ok(),
            None => self.store_health().unstored_kills == 0,
        };
        KillAck {
            target: killed.target,
            epoch: killed.epoch,
            changed: killed.changed,
            stored,
        }
    }

    /// Lifts the kill of exactly this target. On disk before it is in force.
    ///
    /// # Errors
    /// [`RearmError`]: then the kill stays in force, here and after a restart.
    pub async fn rearm(&self, target: KillTarget, reason: &str, actor: &Actor) -> Result<RearmAck, RearmError> {
        // Not to be cancelled half way by a client that leaves: what was stored must come into force.
        let (control, reason, actor) = (self.clone(), reason.to_owned(), actor.clone());
        let (reply, answer) = oneshot::channel();
        drop(spawn::task("re-arm", async move {
            // Whoever left does not need the answer.
            let _ = reply.send(control.rearm_whole(target, &reason, &actor).await);
        }));
        answer
            .await
            .unwrap_or_else(|_| Err(RearmError::NotStored("the task ended early".to_owned())))
    }

    async fn rearm_whole(&self, target: KillTarget, reason: &str, actor: &Actor) -> Result<RearmAck, RearmError> {
        let inner = &self.inner;
        let _one_at_a_time = inner.rearming.lock().await;
        inner.lock_handed().meanwhile = Some(Vec::new());
        let done = self.rearm_alone(target, reason, actor).await;
        inner.lock_handed().meanwhile = None;
        done
    }

    async fn rearm_alone(&self, target: KillTarget, reason: &str, actor: &Actor) -> Result<RearmAck, RearmError> {
        let inner = &self.inner;
        let mut next = inner.live.kills.read(KillSet::clone);
        let Rearmed::Lifted { subjects, .. } = next.rearm(&target, reason, Arc::clone(&actor.name), clock::unix_ms())
        else {
            return Err(RearmError::NotKilled);
        };
        let snapshot = inner.live.snapshot();
        let rules = snapshot.as_deref().map(|snapshot| &snapshot.rules);
        let frozen = rules.and_then(|rules| freeze::holds(rules, &self.runtime().freezes, &target));
        if let Some(frozen) = frozen {
            return Err(RearmError::Frozen(frozen));
        }
        let Some(kill) = next.find(&target).cloned() else {
            return Err(RearmError::NotKilled);
        };
        let change = KillChange {
            target: target.clone(),
            kill,
            origin: origin(actor),
        };
        let not_stored = |error: crate::store::StoreError| RearmError::NotStored(error.to_string());
        let kill = inner.store.rearm(change).within(PATIENCE).await.map_err(not_stored)?;
        let epoch = kill.epoch;
        {
            let mut handed = inner.lock_handed();
            let again = handed.meanwhile.iter().flatten().any(|killed| *killed == target);
            handed.kills.admit(target.clone(), &kill);
            // Whoever killed it while this waited was told that it is in force: in the new epoch it is so from the start.
            inner.live.kills.change(|kills| {
                kills.admit(target.clone(), &kill);
                if again {
                    kills.kill(
                        target.clone(),
                        "killed while a re-arm was being stored",
                        Arc::clone(&actor.name),
                        clock::unix_ms(),
                    );
                }
            });
            if again {
                for change in inner.unhanded(&mut handed.kills, actor) {
                    // Tried for ever; its health tells.
                    drop(inner.store.keep_kill(change));
                }
                return Err(RearmError::KilledMeanwhile);
            }
        }
        tracing::warn!(target_rearmed = %target, actor = &*actor.name, reason, epoch = epoch.0, "re-armed");
        Ok(RearmAck { epoch, subjects })
    }

    /// The newest audit records that are asked for, newest first.
    ///
    /// # Errors
    /// That the store does not answer, and why.
    pub async fn audit(&self, asked: AuditQuery) -> Result<Vec<AuditRecord>, StoreError> {
        self.inner.store.audit_tail(asked).within(PATIENCE).await
    }

    /// Walks along the whole audit trail.
    ///
    /// # Errors
    /// That the store does not answer, and why.
    pub async fn verify_audit(&self) -> Result<Chain, StoreError> {
        self.inner.store.verify_audit().within(WALK).await
    }

    /// Reads the files again.
    ///
    /// # Errors
    /// All problems; the old rules serve.
    pub async fn reload(&self, actor: &Actor) -> Result<Revision, Vec<Problem>> {
        let (reply, answer) = oneshot::channel();
        let reload = writer::Command::Reload {
            actor: actor.clone(),
            reply,
        };
        if self.inner.commands.send(reload).await.is_err() {
            return Err(Vec::new());
        }
        answer.await.unwrap_or_else(|_| Err(Vec::new()))
    }

    /// Changes what is said about a flag at run time: compiled, on disk, and in force when this returns well.
    ///
    /// # Errors
    /// [`EditError`]; nothing is changed then, but where it says otherwise.
    pub async fn edit(&self, edit: Edit) -> Result<Edited, EditError> {
        let (reply, answer) = oneshot::channel();
        let command = writer::Command::Edit(Box::new(edit), reply);
        let ended = || EditError::NotStored("the instance is ending".to_owned());
        if self.inner.commands.send(command).await.is_err() {
            return Err(ended());
        }
        answer.await.unwrap_or_else(|_| Err(ended()))
    }

    /// Freezes something, or lifts a freeze; on disk and in force when this returns well. True if that changed anything.
    ///
    /// # Errors
    /// [`EditError`]; nothing is changed then, but where it says otherwise.
    pub async fn freeze(
        &self,
        target: FreezeTarget,
        freeze: bool,
        reason: &str,
        actor: &Actor,
    ) -> Result<bool, EditError> {
        let (reply, answer) = oneshot::channel();
        let freezing = writer::Freezing {
            target,
            freeze,
            actor: actor.clone(),
            reason: reason.to_owned(),
        };
        let ended = || EditError::NotStored("the instance is ending".to_owned());
        let command = writer::Command::Freeze(freezing, reply);
        if self.inner.commands.send(command).await.is_err() {
            return Err(ended());
        }
        answer.await.unwrap_or_else(|_| Err(ended()))
    }

    /// The newest changes of a flag below number `before`, newest first.
    ///
    /// # Errors
    /// That the store does not answer, and why.
    pub async fn history(
        &self,
        flag: FlagKey,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<PastChange>, StoreError> {
        self.inner.store.history(flag, before, limit).within(PATIENCE).await
    }

    /// Audits an attempt that was refused.
    pub async fn refused(&self, actor: &Actor, action: &str, target: &str, why: &str) {
        let entry = AuditEntry {
            at_unix_ms: clock::unix_ms(),
            actor: actor.name.to_string(),
            role: actor.role.map(str::to_owned),
            from: actor.from.map(|from| from.to_string()),
            action: action.to_owned(),
            target: target.to_owned(),
            reason: why.to_owned(),
            before: None,
            after: None,
        };
        if let Err(error) = self.inner.store.append_audit(entry).within(PATIENCE).await {
            tracing::warn!(%error, action, target, "a refused attempt could not be audited");
        }
    }

    /// Stores what waits to be stored and lets go of the files; false if that took longer than `patience`.
    pub async fn close(&self, patience: Duration) -> bool {
        self.inner.hand_over();
        self.inner.store.close(patience).await
    }

    /// Goes on with files that had been let go of and were opened again. Everything in force is handed to the store
    /// once more, for nobody knows what of it came too late; the store joins it with what it has.
    pub fn take_back(&self, opened: Opened) {
        if let Some(unreadable) = &opened.unreadable {
            tracing::error!(%unreadable, "the state could not be opened again: kills are in force, and may be forgotten by a restart");
        }
        self.inner.store.become_that(&opened.store);
        self.inner.live.kills.change(|kills| kills.join(&opened.kills));
        self.inner.lock_handed().kills = KillSet::default();
        self.inner.hand_over();
    }

    async fn keep(self) {
        let mut changes = self.inner.live.kills.watch();
        while changes.changed().await.is_ok() {
            self.inner.hand_over();
        }
    }
}

impl Inner {
    fn lock_handed(&self) -> MutexGuard<'_, Handed> {
        self.handed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the store what it has not been given: what guards have killed.
    fn hand_over(&self) {
        let mut handed = self.lock_handed();
        for change in self.unhanded(&mut handed.kills, &Actor::process(GUARD)) {
            // Tried for ever; its health tells.
            drop(self.store.keep_kill(change));
        }
    }

    fn unhanded(&self, handed: &mut KillSet, actor: &Actor) -> Vec<KillChange> {
        let now = self.live.kills.read(KillSet::clone);
        let new = now
            .iter()
            .filter(|(target, kill)| kill.killed && handed.find(target) != Some(kill));
        let changes = new
            .map(|(target, kill)| {
                let by_actor = *kill.actor == *actor.name;
                let origin = if by_actor { origin(actor) } else { Origin::default() };
                KillChange {
                    target,
                    kill: kill.clone(),
                    origin,
                }
            })
            .collect();
        *handed = now;
        changes
    }
}

fn origin(actor: &Actor) -> Origin {
    Origin {
        role: actor.role.map(str::to_owned),
        from: actor.from.map(|from| from.to_string()),
    }
}

fn labels(target: &KillTarget) -> [(&'static str, &str); 3] {
    let (flag, route) = match target {
        KillTarget::All => ("all", ""),
        KillTarget::Flag(flag) => (flag.as_str(), ""),
        KillTarget::Route(route) | KillTarget::Subject(route, _) => ("", route.as_str()),
    };
    [("flag", flag), ("reason", "operator"), ("route", route)]
}
