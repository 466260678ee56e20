//! A change of what is said about a flag at run time, from the wish to the rules in force.
//!
//! In: an [`Edit`]. Out: rules that serve, or why they do not. The order is the law: merged, compiled, on disk together
//! with its audit record, published, and only then acknowledged. A disk that does not answer in time leaves one change
//! pending; until its fate is known nothing else is changed, for nobody knows what it would be a change of.

use std::sync::Arc;

use super::NEAR;
use super::command::{Edit, EditError, Edited, What};
use super::publish;
use super::source::Before;
use super::whatif::what_if;
use super::writer::{Controller, Freezing, Pending, Prepared, blocking};
use crate::engine::flags::Flag;
use crate::engine::guard::KillSet;
use crate::engine::ruleset::edit::{self, Change, RuntimeLayers, Setter, Stored};
use crate::engine::ruleset::freeze::{self, Freeze};
use crate::engine::ruleset::problem::{Place, Problem, Problems, Severity, nearest};
use crate::engine::ruleset::{Ruleset, effect};
use crate::engine::vocab::{FlagKey, HashKey, Revision};
use crate::store::{Asked, AuditEntry, FreezeChange, LayerChange, PATIENCE, StoreError, freeze_text};
use crate::telemetry::clock;

/// Waits for what became of a pending change; to be asked only while there is one. Loses nothing when it is dropped.
pub(super) async fn answered(pending: &mut Option<Pending>) -> Result<(), StoreError> {
    match pending {
        Some(pending) => pending.answer.ready().await,
        None => std::future::pending().await,
    }
}

/// Why the files are not read just now.
pub(super) fn disk_is_slow() -> Problem {
    Problem {
        place: Place::whole("state file"),
        path: String::new(),
        what: "a change waits for the disk, which does not answer".to_owned(),
        remedy: "see to the disk, then try again".to_owned(),
        severity: Severity::Problem,
    }
}

/// Why the files are not taken over.
pub(super) fn frozen(what: String) -> Problem {
    Problem {
        place: Place::whole("freeze"),
        path: String::new(),
        what,
        remedy: "lift it by `unfreeze`, or take the change back".to_owned(),
        severity: Severity::Problem,
    }
}

fn json_of(freeze: &Freeze) -> String {
    serde_json::json!({
        "at_unix_ms": freeze.at_unix_ms,
        "reason": &*freeze.reason,
        "actor": &*freeze.actor,
    })
    .to_string()
}

impl Controller {
    /// Does what is asked, or says why not.
    pub(super) async fn edit(&mut self, wish: Edit) -> Result<Edited, EditError> {
        if self.pending.is_some() {
            return Err(EditError::NotStored(disk_is_slow().what));
        }
        let Some(snapshot) = self.live.snapshot() else {
            return Err(EditError::NotStored("no rules are in force yet".to_owned()));
        };
        let rules = &snapshot.rules;
        let before = self.runtime.find(&wish.flag).cloned();
        let known = before.is_some() || rules.merged().flags.contains_key(&wish.flag);
        let expected = |stored: Option<&Stored>| {
            let revision = stored.map_or(0, |stored| stored.revision);
            if wish.expect.holds(revision) {
                Ok(())
            } else {
                Err(EditError::Stale(revision))
            }
        };
        let (change, back_to) = match &wish.what {
            What::Create(_) if known => return Err(EditError::Exists),
            // What was removed can be brought back, so nobody needs to know it any more.
            What::Rollback => {
                expected(before.as_ref())?;
                let way = self.store.way_back(wish.flag.clone()).within(PATIENCE).await;
                let way = way.map_err(|error| EditError::NotStored(error.to_string()))?;
                match way {
                    Some(way) => (Change::Restore(way.stored), Some(way.back_to)),
                    None if known => return Err(EditError::NothingToUndo),
                    None => return Err(unknown(rules, &wish.flag)),
                }
            }
            What::Delete { .. } | What::Patch(_) | What::Put(_) if !known => return Err(unknown(rules, &wish.flag)),
            What::Create(node) | What::Put(node) => (Change::Replace(node.clone()), None),
            What::Patch(node) => (Change::Merge(node.clone()), None),
            What::Delete { .. } => (Change::Remove, None),
        };
        expected(before.as_ref())?;
        let by = Setter {
            revision: self.runtime.revision + 1,
            actor: Arc::clone(&wish.actor.name),
        };
        let mut problems = Problems::default();
        let edited = edit::edit(&wish.flag, before.as_ref(), &change, &by, &mut problems);
        let Some(edited) = edited.filter(|_| !problems.refuse()) else {
            return Err(EditError::Problems(problems.verdict().err().unwrap_or_default()));
        };
        let removable = !matches!(wish.what, What::Delete { force: false });
        if let Some(entry) = rules.merged().flags.get(&wish.flag)
            && !removable
            && !effect::is_all_or_nobody(&entry.members, rules.environment())
        {
            return Err(EditError::NotRemovable);
        }
        if !edited.changed {
            return Ok(Edited {
                stored: before,
                flag: defined(rules, &wish.flag),
                changed: false,
                warnings: Vec::new(),
                what_if: None,
            });
        }

        let runtime = self.runtime.with(&wish.flag, &edited);
        let (next, warnings) = self.compile(runtime.clone()).await?;
        let raised = freeze::raised(rules, &next);
        if !raised.is_empty() {
            return Err(EditError::Frozen(raised));
        }
        let told = self.warnings(&wish.flag, rules, &next, &warnings);
        let answer = Edited {
            stored: edited.stored().cloned(),
            flag: defined(&next, &wish.flag),
            changed: true,
            warnings: told,
            what_if: wish.dry_run.then(|| what_if(&self.live, &wish.flag, rules, &next)),
        };
        if wish.dry_run {
            return Ok(answer);
        }
        let stored = self.store.keep_layer(LayerChange {
            flag: wish.flag.clone(),
            revision: by.revision,
            stored: edited.stored().cloned(),
            back_to,
            entry: audit(&wish, before.as_ref(), edited.stored(), self.live.hash_key()),
        });
        let prepared = Prepared {
            runtime: runtime.settled(&wish.flag),
            action: wish.what.as_str(),
            what: format!("flag {}", wish.flag),
            actor: wish.actor,
            rules: next,
            warnings,
        };
        self.finish(prepared, stored).await?;
        Ok(answer)
    }

    /// Freezes something, or lifts a freeze. True if that changed anything.
    pub(super) async fn freeze(&mut self, wish: Freezing) -> Result<bool, EditError> {
        if self.pending.is_some() {
            return Err(EditError::NotStored(disk_is_slow().what));
        }
        let mut runtime = self.runtime.clone();
        let frozen = Freeze {
            at_unix_ms: clock::unix_ms(),
            reason: wish.reason.as_str().into(),
            actor: Arc::clone(&wish.actor.name),
        };
        let before = runtime.freezes.get(&wish.target).cloned();
        // The first reason stands, and so does the instant at which it stood still.
        if before.is_some() == wish.freeze {
            return Ok(false);
        }
        let freeze = wish.freeze.then_some(frozen);
        match &freeze {
            Some(freeze) => drop(runtime.freezes.insert(wish.target.clone(), freeze.clone())),
            None => drop(runtime.freezes.remove(&wish.target)),
        }
        let (rules, warnings) = self.compile(runtime.clone()).await?;
        let action = if wish.freeze { "freeze" } else { "unfreeze" };
        let shown = |freeze: &Freeze| json_of(freeze);
        let entry = AuditEntry {
            at_unix_ms: clock::unix_ms(),
            actor: wish.actor.name.to_string(),
            role: wish.actor.role.map(str::to_owned),
            from: wish.actor.from.map(|from| from.to_string()),
            action: action.to_owned(),
            target: freeze_text(&wish.target),
            reason: wish.reason,
            before: before.as_ref().map(shown),
            after: freeze.as_ref().map(shown),
        };
        let stored = self.store.keep_freeze(FreezeChange {
            target: wish.target.clone(),
            freeze,
            entry,
        });
        let prepared = Prepared {
            what: wish.target.to_string(),
            actor: wish.actor,
            action,
            rules,
            runtime,
            warnings,
        };
        self.finish(prepared, stored).await?;
        Ok(true)
    }

    async fn compile(&self, runtime: RuntimeLayers) -> Result<(Ruleset, Vec<Problem>), EditError> {
        let (files, live) = (Arc::clone(&self.files), Arc::clone(&self.live));
        let revision = Revision(self.revision.0 + 1);
        let compiled = blocking(move || {
            let snapshot = live.snapshot();
            let before = Before {
                revision,
                rules: snapshot.as_deref().map(|snapshot| &snapshot.rules),
                marks: &[],
                now_ms: clock::unix_ms(),
            };
            files.compile(before, runtime)
        });
        match compiled.await {
            Some(compiled) => compiled.map_err(EditError::Problems),
            None => Err(EditError::NotStored("the rules could not be compiled".to_owned())),
        }
    }

    /// Waits for the disk, then publishes. What the disk takes too long for stays pending.
    async fn finish(&mut self, prepared: Prepared, mut answer: Asked<()>) -> Result<(), EditError> {
        match tokio::time::timeout(PATIENCE, answer.ready()).await {
            Ok(Ok(())) => {
                self.publish(prepared);
                Ok(())
            }
            Ok(Err(error)) => Err(EditError::NotStored(error.to_string())),
            Err(_) => {
                let what = &*prepared.what;
                tracing::error!(
                    what,
                    "the disk has not answered for a change; until it does nothing else is changed"
                );
                self.pending = Some(Pending { prepared, answer });
                let seconds = PATIENCE.as_secs();
                let what = format!("the disk did not answer within {seconds} s; the change may still come into force");
                Err(EditError::NotStored(what))
            }
        }
    }

    /// Learns what became of the pending change.
    pub(super) fn settle(&mut self, stored: Result<(), StoreError>) {
        let Some(Pending { prepared, .. }) = self.pending.take() else {
            return;
        };
        match stored {
            Ok(()) => self.publish(prepared),
            Err(error) => tracing::warn!(what = prepared.what, %error, "a change that was late is not done"),
        }
    }

    fn publish(&mut self, prepared: Prepared) {
        let Prepared {
            what,
            actor,
            action,
            rules,
            runtime,
            warnings,
        } = prepared;
        self.revision = rules.revision;
        publish::publish(&self.live, &self.files.config, rules);
        self.live.health.change_rules(|state| {
            state.warnings = warnings.iter().map(ToString::to_string).collect();
        });
        let revision = runtime.revision;
        self.runtime = runtime;
        self.told.send_replace(Arc::new(self.runtime.clone()));
        tracing::warn!(what, revision, actor = &*actor.name, action, "the rules were changed");
    }

    /// What an operator should know of a change: what keeps it from having an effect, and what compiling found odd.
    fn warnings(&self, flag: &FlagKey, before: &Ruleset, after: &Ruleset, compiled: &[Problem]) -> Vec<String> {
        let kills = self.live.kills.read(KillSet::clone);
        let mut told = effect::hidden(flag, before, after, &kills);
        let known: Vec<String> = self.live.health.rules().warnings;
        for warning in compiled {
            // Of the rest only what this change brought about.
            let mine = &*warning.place.file == edit::BODY;
            let line = warning.to_string();
            if mine || !known.contains(&line) {
                let remedy = if warning.remedy.is_empty() { "" } else { "; " };
                told.push(format!("{}{remedy}{}", warning.what, warning.remedy));
            }
        }
        told
    }
}

fn defined(rules: &Ruleset, flag: &FlagKey) -> Option<Flag> {
    rules.flag(flag).filter(|flag| flag.defined).cloned()
}

fn unknown(rules: &Ruleset, flag: &FlagKey) -> EditError {
    let flags = rules.merged().flags.keys().map(FlagKey::as_str);
    let near = nearest(flag.as_str(), flags, NEAR);
    EditError::Unknown {
        near: near.into_iter().map(str::to_owned).collect(),
    }
}

fn audit(wish: &Edit, before: Option<&Stored>, after: Option<&Stored>, key: &HashKey) -> AuditEntry {
    let shown = |stored: Option<&Stored>| stored.map(|stored| edit::without_subjects(&stored.body, key));
    AuditEntry {
        at_unix_ms: clock::unix_ms(),
        actor: wish.actor.name.to_string(),
        role: wish.actor.role.map(str::to_owned),
        from: wish.actor.from.map(|from| from.to_string()),
        action: wish.what.as_str().to_owned(),
        target: format!("flag:{}", wish.flag),
        reason: wish.reason.clone(),
        before: shown(before),
        after: shown(after),
    }
}
