//! The one task that publishes rules: by signal, by command, and whenever the files change.
//!
//! What does not compile is refused whole; the last good rules serve, a gauge rises, and the problems are logged once.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use super::Parts;
use super::command::Actor;
use super::edit;
use super::publish;
use super::source::{Before, Read, Source, Watch};
use super::writer::{Command, Controller, blocking};
use crate::engine::ruleset::edit::RuntimeLayers;
use crate::engine::ruleset::freeze;
use crate::engine::ruleset::problem::{Problem, Severity};
use crate::engine::vocab::Revision;
use crate::store::{AuditEntry, PATIENCE, RampMark};
use crate::telemetry::{clock, names};

/// How often the marks of gradual flags are given to the store.
const MARKS_EVERY: Duration = Duration::from_secs(10);

/// Publishes until the instance ends.
pub async fn run(parts: Parts, told: watch::Sender<Arc<RuntimeLayers>>, mut inbox: mpsc::Receiver<Command>) {
    let Parts {
        live,
        store,
        source,
        config,
        files,
        runtime,
        fingerprint,
        mut draining,
    } = parts;
    let revision = live.snapshot().map_or(Revision(0), |snapshot| snapshot.rules.revision);
    let mut controller = Controller {
        live,
        store,
        source,
        running: config,
        files,
        runtime,
        told,
        pending: None,
        fingerprint,
        revision,
    };
    let mut watch = Watch::new();
    watch.follow(&controller.fingerprint);
    let mut marks = tokio::time::interval(MARKS_EVERY);
    loop {
        tokio::select! {
            // What the disk has been given comes before anything that would build on it.
            stored = edit::answered(&mut controller.pending), if controller.pending.is_some() => controller.settle(stored),
            Some(command) = inbox.recv() => match command {
                // Whoever left does not need the answer.
                Command::Edit(edit, reply) => drop(reply.send(controller.edit(*edit).await)),
                Command::Freeze(freezing, reply) => drop(reply.send(controller.freeze(freezing).await)),
                Command::Reload { actor, reply } => {
                    let _ = reply.send(controller.reload(&actor).await);
                    watch.follow(&controller.fingerprint);
                }
            },
            () = watch.changed() => {
                if controller.pending.is_none() && controller.has_changed().await {
                    // The problems are logged and shown by the status.
                    let _ = controller.reload(&Actor::process("file")).await;
                }
                watch.follow(&controller.fingerprint);
            }
            _ = marks.tick() => controller.keep_marks(),
            () = ended(&mut draining) => break,
        }
    }
    controller.keep_marks();
}

async fn ended(draining: &mut watch::Receiver<bool>) {
    // An error means that nobody is left who could end it, which is the same.
    let _ = draining.wait_for(|draining| *draining).await;
}

impl Controller {
    async fn has_changed(&self) -> bool {
        let before = self.fingerprint.clone();
        blocking(move || Source::look(&before) != before).await.unwrap_or(true)
    }

    async fn reload(&mut self, actor: &Actor) -> Result<Revision, Vec<Problem>> {
        if self.pending.is_some() {
            return Err(vec![edit::disk_is_slow()]);
        }
        let next = Revision(self.revision.0 + 1);
        let (source, live, runtime) = (self.source.clone(), Arc::clone(&self.live), self.runtime.clone());
        // Reading and compiling a million ids takes a while; kills must not wait for it.
        let read = blocking(move || {
            let snapshot = live.snapshot();
            let rules = snapshot.as_deref().map(|snapshot| &snapshot.rules);
            let before = Before {
                revision: next,
                rules,
                marks: &[],
                now_ms: clock::unix_ms(),
            };
            source.read(before, runtime)
        });
        let Some((result, fingerprint)) = read.await else {
            return Err(Vec::new());
        };
        let seen = std::mem::replace(&mut self.fingerprint, fingerprint);
        let result = result.and_then(|read| {
            let snapshot = self.live.snapshot();
            let before = snapshot.as_deref().map(|snapshot| &snapshot.rules);
            let raised = before.map_or_else(Vec::new, |before| freeze::raised(before, &read.rules));
            if raised.is_empty() {
                return Ok(read);
            }
            Err(raised.into_iter().map(edit::frozen).collect())
        });
        match result {
            Ok(read) => Ok(self.take_over(read, next, actor).await),
            Err(problems) => {
                // Asked twice about the same files, the answer is the same and need not be logged again.
                if seen != self.fingerprint || self.live.health.rules().refused.is_empty() {
                    refuse(&problems);
                }
                self.live.exporter.count(names::RELOADS, &[("result", "refused")]);
                self.live.health.change_rules(|state| {
                    let refuses = problems.iter().filter(|problem| problem.severity == Severity::Problem);
                    state.refused = refuses.map(ToString::to_string).collect();
                    state.reloads[1] += 1;
                });
                Err(problems)
            }
        }
    }

    async fn take_over(&mut self, read: Read, revision: Revision, actor: &Actor) -> Revision {
        let waits = publish::waits_for_restart(&self.running, &read.files.config);
        // What was said at the last reload still stands in the status and need not be logged again.
        let before = self.live.health.rules();
        for what in waits.iter().filter(|what| !before.waits_for_restart.contains(what)) {
            tracing::warn!(
                member = what,
                "this change of the configuration takes effect at the next start"
            );
        }
        for warning in read.warnings.iter().map(ToString::to_string) {
            if !before.warnings.contains(&warning) {
                tracing::warn!(warning, "the configuration has a warning");
            }
        }
        self.files = read.files;
        publish::publish(&self.live, &self.files.config, read.rules);
        let before = std::mem::replace(&mut self.revision, revision);
        self.live.exporter.count(names::RELOADS, &[("result", "taken_over")]);
        self.live.health.change_rules(|state| {
            state.refused.clear();
            state.warnings = read.warnings.iter().map(ToString::to_string).collect();
            state.waits_for_restart = waits;
            state.reloads[0] += 1;
        });
        tracing::info!(revision = revision.0, actor = &*actor.name, "new rules serve");
        let entry = AuditEntry {
            at_unix_ms: clock::unix_ms(),
            actor: actor.name.to_string(),
            role: actor.role.map(str::to_owned),
            from: actor.from.map(|from| from.to_string()),
            action: "reload".to_owned(),
            target: "rules".to_owned(),
            reason: String::new(),
            before: Some(before.0.to_string()),
            after: Some(revision.0.to_string()),
        };
        if let Err(error) = self.store.append_audit(entry).within(PATIENCE).await {
            tracing::warn!(%error, "a reload could not be audited");
        }
        revision
    }

    fn keep_marks(&self) {
        let Some(snapshot) = self.live.snapshot() else { return };
        for mark in snapshot.rules.marks(clock::unix_ms()) {
            self.store.keep_ramp(RampMark {
                flag: mark.flag,
                schedule: mark.ramp,
                reached: mark.reached,
            });
        }
    }
}

fn refuse(problems: &[Problem]) {
    let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
    tracing::error!(
        problems = lines.join("\n"),
        "the new rules were refused; the last good ones serve"
    );
}
