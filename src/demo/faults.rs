//! The three faults: what breaks, the kill that answers it, and what comes after.
//!
//! Two of them break the new bot while it only gets copies; the third while it serves.

use std::collections::BTreeSet;
use std::time::Duration;

use super::bots::{Mood, Work};
use super::checks::Promise;
use super::operator::{PATIENCE, Seen};
use super::plan::Who;
use super::sender::Entry;
use super::stage::{Cost, Missed, SETTLE, Stage, Tale, expected, failovers, undisturbed};
use super::terminal::Tone;
use crate::admin::dto::Kill;
use crate::engine::vocab::Side;
use crate::telemetry::clock;

/// Answers by which a new path that has recovered is known.
const RECOVERED: usize = 12;

/// Half of these took less.
fn median(entries: &[Entry]) -> Duration {
    let mut took: Vec<Duration> = entries.iter().map(|entry| entry.took).collect();
    took.sort_unstable();
    took.get(took.len() / 2).copied().unwrap_or_default()
}

/// How long after `since_ms` a kill came into force.
fn time_of(kill: &Kill, since_ms: i64) -> Duration {
    let at = kill
        .since
        .parse::<jiff::Timestamp>()
        .map_or(since_ms, jiff::Timestamp::as_millisecond);
    Duration::from_millis(u64::try_from(at - since_ms).unwrap_or_default())
}

impl Stage<'_> {
    /// Breaks new while legacy serves, and waits for the kill.
    pub async fn fault_in_the_shadow(
        &self,
        tale: &mut Tale,
        fault: &'static str,
        mood: Mood,
        budget: &str,
        promise: Promise,
    ) -> Result<(), Missed> {
        let before = self.operator.look().await.map_err(|why| (promise, why))?;
        undisturbed(&before).map_err(|why| (promise, why))?;
        self.terminal.say(Tone::Trouble, fault);
        let (since, since_ms) = (clock::monotonic(), clock::unix_ms());
        self.new.set_mood(mood);
        let kill = self.killed(budget).await.map_err(|why| (promise, why))?;
        let after = time_of(&kill, since_ms);
        let failed = |work: &&Work| work.copy && (since..=since + after).contains(&work.at);
        let requests = self.new.book().work.iter().filter(failed).count();
        let cost = Cost {
            fault,
            after,
            requests: u64::try_from(requests).unwrap_or(u64::MAX),
            failovers: 0,
            shoppers: 0,
            median_before: median(&self.sender.between(since.saturating_sub(Duration::from_secs(1)), since)),
            median_meanwhile: median(&self.sender.between(since, since + after)),
            kill,
        };
        let detail = format!("after {requests} copies and {} ms", after.as_millis());
        self.terminal.say(Tone::Plain, &cost.kill.reason);
        tale.kills.push(cost);
        self.note(tale, promise, Ok(detail));
        Ok(())
    }

    /// Waits for a kill of the route, which has to come from this budget.
    async fn killed(&self, budget: &str) -> Result<Kill, String> {
        let found = |seen: &Seen| seen.route.killed_by.first().cloned();
        let kill = self
            .operator
            .until(&format!("budget `{budget}` kills the route"), found)
            .await?;
        let by_budget = kill.actor == "guard" && kill.reason.contains(&format!("`{budget}`"));
        if by_budget {
            Ok(kill)
        } else {
            Err(format!("killed, but by {}: {}", kill.actor, kill.reason))
        }
    }

    /// Mends new, sees it recover in the shadow, and re-arms.
    pub async fn recover(&self, tale: &mut Tale, reason: &str, promise: Promise) -> Result<(), Missed> {
        // Long enough to see that copies go on while the route is killed.
        tokio::time::sleep(Duration::from_millis(400)).await;
        self.new.set_mood(Mood::Healthy);
        let mended = clock::monotonic() + SETTLE;
        let end = clock::monotonic() + PATIENCE;
        loop {
            let fine = |work: &&Work| work.copy && work.at >= mended && work.status == 200;
            if self.new.book().work.iter().filter(fine).count() >= RECOVERED {
                break;
            }
            if clock::monotonic() >= end {
                return Err((promise, "no copies came while the route was killed".to_owned()));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let rearmed = self.operator.rearm(reason).await.map_err(|why| (promise, why))?;
        let lifted = |seen: &Seen| seen.route.killed_by.is_empty().then_some(());
        self.operator
            .until("the kill is lifted", lifted)
            .await
            .map_err(|why| (promise, why))?;
        self.note(tale, promise, Ok(format!("\"{reason}\", epoch {}", rearmed.epoch)));
        Ok(())
    }

    /// New closes its door while it serves: failover, the third kill, and what comes after it.
    pub async fn door(&self, tale: &mut Tale, who: Who) -> Result<(), Missed> {
        let fault = "new closes its listener and its idle connections";
        let gone = Promise::KillGone;
        let before = self.operator.look().await.map_err(|why| (gone, why))?;
        undisturbed(&before).map_err(|why| (gone, why))?;
        // In a quiet moment: a POST that was written and not answered is not repeated by anybody but its sender.
        if !self.sender.hold().await || !self.new.close().await {
            return Err((gone, "the door of the new bot does not close".to_owned()));
        }
        self.terminal.say(Tone::Trouble, fault);
        let (since, since_ms) = (clock::monotonic(), clock::unix_ms());
        let served = self.new.served();
        self.sender.go_on();
        let kill = self.killed("errors").await.map_err(|why| (gone, why))?;
        let after = time_of(&kill, since_ms);
        tokio::time::sleep(Duration::from_millis(1_000)).await;
        let seen = self.operator.look().await.map_err(|why| (gone, why))?;
        let failed_over = failovers(&seen) - failovers(&before);
        let sent = self.sender.between(since, clock::monotonic());
        let mut on_new = sent.iter().filter(|entry| expected(who, entry) == Side::New);
        let first = usize::try_from(failed_over).unwrap_or(usize::MAX);
        let shoppers: BTreeSet<&String> = on_new.by_ref().take(first).flat_map(|entry| &entry.numbers).collect();
        let cost = Cost {
            fault,
            after,
            requests: failed_over,
            failovers: failed_over,
            shoppers: shoppers.len(),
            median_before: median(&self.sender.between(since.saturating_sub(Duration::from_secs(1)), since)),
            median_meanwhile: median(&self.sender.between(since, since + after)),
            kill,
        };
        self.terminal.say(Tone::Plain, &cost.kill.reason);
        let failed = sent
            .iter()
            .find(|entry| !entry.is_good() || entry.served_by != Some(Side::Legacy));
        let answered = match failed {
            Some(entry) => Err(format!(
                "a request got {:?}, served by {:?}",
                entry.status, entry.served_by
            )),
            None if failed_over == 0 => Err("nothing was failed over".to_owned()),
            None => Ok(format!("{failed_over} requests of {} shoppers", shoppers.len())),
        };
        let detail = format!("after {failed_over} requests and {} ms", after.as_millis());
        tale.kills.push(cost);
        self.note(tale, Promise::Failover, answered);
        self.note(tale, gone, Ok(detail));
        self.stays_killed(tale, served).await
    }

    async fn stays_killed(&self, tale: &mut Tale, served: u64) -> Result<(), Missed> {
        let promise = Promise::StaysKilled;
        if !self.new.open().await {
            return Err((promise, "the door of the new bot does not open".to_owned()));
        }
        let since = clock::monotonic();
        tokio::time::sleep(Duration::from_millis(1_200)).await;
        let seen = self.operator.look().await.map_err(|why| (promise, why))?;
        let more = self.new.served() - served;
        let requests = self.sender.between(since, clock::monotonic()).len();
        let verdict = match (more, seen.route.killed_by.is_empty()) {
            (0, false) => Ok(format!("{requests} requests, all to legacy")),
            (0, true) => Err("the kill is gone".to_owned()),
            (some, _) => Err(format!("new served {some} requests")),
        };
        self.note(tale, promise, verdict);
        Ok(())
    }
}
