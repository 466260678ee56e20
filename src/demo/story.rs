//! The story: the phases of the rollout, and what has to be seen of each.
//!
//! In: the running parts. Out: a [`Tale`] for the report. The faults are in `faults`; what holds over the whole is checked
//! by `verdict`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::bots::Mood;
use super::checks::Promise;
use super::operator::{PATIENCE, Seen};
use super::plan::{Phase, Who};
use super::stage::{Missed, SETTLE, Stage, Tale, Told, expected, undisturbed};
use super::terminal::Tone;
use crate::admin::dto::PlaceCount;
use crate::engine::vocab::Side;
use crate::telemetry::clock;

/// Requests per second.
pub const RATE: u32 = 250;
/// What the log says while the flag is off in shadow mode.
const INACTIVE: &str = "shadow: inactive (flag off)";

const fn shadow(name: &'static str, who: Who) -> Phase {
    Phase {
        name,
        who,
        shadow: true,
        dual_run: true,
    }
}

const fn live(name: &'static str, who: Who) -> Phase {
    Phase {
        name,
        who,
        shadow: false,
        dual_run: false,
    }
}

/// The phase in which the instance starts.
pub const DEV: Phase = Phase {
    name: "phase 0  DEV",
    who: Who::Nobody,
    shadow: true,
    dual_run: false,
};
const STAGING: Phase = shadow("phase 1  STAGING", Who::Tester);
const CANARY: Phase = shadow("phase 2  CANARY", Who::Canaries);
const STEPS: [Phase; 3] = [
    shadow("phase 3  5 % in the shadow", Who::Percent(5)),
    shadow("phase 3  10 % in the shadow", Who::Percent(10)),
    shadow("phase 3  25 % in the shadow", Who::Percent(25)),
];
const HALF: Phase = shadow("phase 3  50 % in the shadow", Who::Percent(50));
const ALL: Phase = shadow("phase 3  100 % in the shadow", Who::Percent(100));
const LIVE: [Phase; 3] = [
    live("phase 4  live: one test shopper", Who::Tester),
    live("phase 4  live: 5 %", Who::Percent(5)),
    live("phase 4  live: 25 %", Who::Percent(25)),
];
/// How many phases are told.
pub const PHASES: u64 = 11;

/// A phase that is under way.
struct Open {
    phase: Phase,
    began: Duration,
    /// From here on nothing is decided by the rules before.
    settled: Duration,
    before: Figures,
}

#[derive(Clone, Copy, Debug)]
struct Figures {
    sent: u64,
    copies: u64,
    served: u64,
    compared: u64,
    diverged: u64,
}

fn compared(seen: &Seen) -> u64 {
    seen.route.compared.verdicts.values().sum()
}

fn word(counts: &BTreeMap<String, u64>, word: &str) -> u64 {
    counts.get(word).copied().unwrap_or_default()
}

impl Stage<'_> {
    /// Tells the story from the first phase to the last kill.
    pub async fn tell(&self, tale: &mut Tale) {
        if let Err((promise, why)) = self.walk(tale).await {
            self.note(tale, promise, Err(why));
            self.terminal.say(Tone::Bad, "the story ends here");
        }
    }

    /// Waits until everything is quiet, and checks what has to hold over the whole.
    pub async fn settle(&self, tale: &mut Tale) {
        let quiet = self.sender.hold().await;
        // A copy may be under way for a little longer than the answer that it is a copy of.
        tokio::time::sleep(SETTLE).await;
        tale.ledger = self.sender.close_ledger();
        match self.operator.look().await {
            Ok(seen) if quiet => {
                for (promise, verdict) in super::verdict::verdicts(&tale.ledger, self.legacy, self.new, &seen) {
                    self.note(tale, promise, verdict);
                }
                tale.last = Some(seen);
            }
            Ok(_) => self.note(
                tale,
                Promise::NoFailure,
                Err("requests are still unanswered".to_owned()),
            ),
            Err(why) => self.note(tale, Promise::Counters, Err(why)),
        }
    }

    /// Shows figures until it is dropped.
    pub async fn show(&self) {
        loop {
            self.terminal.figures(format!(
                "{} requests, {} answered; {} copies to new, {} served by new",
                self.sender.sent(),
                self.sender.answered(),
                self.new.copies(),
                self.new.served(),
            ));
            tokio::time::sleep(Duration::from_millis(150)).await;
        }
    }

    async fn walk(&self, tale: &mut Tale) -> Result<(), Missed> {
        self.dev(tale).await?;
        self.staging(tale).await?;
        self.canary(tale).await?;
        self.shadow_steps(tale).await?;
        self.bugs(tale).await?;
        self.live_steps(tale).await
    }

    async fn dev(&self, tale: &mut Tale) -> Result<(), Missed> {
        let asked = self.sender.subscribe().await;
        self.note(
            tale,
            Promise::Subscription,
            if asked {
                Ok(String::new())
            } else {
                Err("no challenge".to_owned())
            },
        );
        let seen = self.operator.look().await.map_err(|why| (Promise::Dev, why))?;
        self.sender.go_on();
        let open = self.begin(DEV, &seen);
        tokio::time::sleep(Duration::from_secs(2)).await;
        let (copies, served) = (self.new.copies(), self.new.served());
        let told = self.log_says(INACTIVE).await;
        let requests = self.end(open, tale, Promise::Dev).await?.requests;
        let verdict = match (copies + served, told) {
            (0, true) => Ok(format!("{requests} requests, all to legacy")),
            (0, false) => Err(format!("the log has no `{INACTIVE}`")),
            (some, _) => Err(format!("new received {some} requests")),
        };
        self.note(tale, Promise::Dev, verdict);
        Ok(())
    }

    /// Whether a line with this comes into the log; a thread of its own writes it, a little later.
    async fn log_says(&self, sought: &str) -> bool {
        let end = clock::monotonic() + PATIENCE;
        while clock::monotonic() < end {
            if std::fs::read_to_string(&self.log).is_ok_and(|log| log.contains(sought)) {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        false
    }

    async fn staging(&self, tale: &mut Tale) -> Result<(), Missed> {
        const PROMISE: Promise = Promise::Staging;
        let open = self.enter(STAGING, PROMISE).await?;
        let enough = |seen: &Seen| (compared(seen) >= 25).then(|| seen.clone());
        tokio::time::sleep(Duration::from_millis(2_000)).await;
        let awaited = "25 exchanges of the test shopper are compared";
        let seen = self
            .operator
            .until(awaited, enough)
            .await
            .map_err(|why| (PROMISE, why))?;
        let copied = self.copied_as_decided(&open).await;
        let told = self.end(open, tale, PROMISE).await?;
        let critical = word(&seen.route.compared.severities, "critical");
        let verdict = copied.and_then(|_| match critical {
            0 => Ok(format!("{} compared, {} diverged", told.compared, told.diverged)),
            some => Err(format!("{some} exchanges differ critically")),
        });
        self.note(tale, PROMISE, verdict);
        Ok(())
    }

    async fn canary(&self, tale: &mut Tale) -> Result<(), Missed> {
        let open = self.enter(CANARY, Promise::Canary).await?;
        tokio::time::sleep(Duration::from_millis(2_000)).await;
        let copied = self.copied_as_decided(&open).await;
        let told = self.end(open, tale, Promise::Canary).await?;
        let detail = format!("{} compared, {} diverged", told.compared, told.diverged);
        self.note(tale, Promise::Canary, copied.map(|_| detail));
        Ok(())
    }

    async fn shadow_steps(&self, tale: &mut Tale) -> Result<(), Missed> {
        let mut copied = Vec::new();
        for (at, phase) in STEPS.into_iter().enumerate() {
            let open = self.enter(phase, Promise::Percent).await?;
            tokio::time::sleep(Duration::from_millis(1_500)).await;
            copied.push(self.copied_as_decided(&open).await);
            if at == 2 {
                let fault = "new answers 401 to everything";
                self.fault_in_the_shadow(tale, fault, Mood::Unauthorized, "errors", Promise::KillErrors)
                    .await?;
                self.recover(tale, "the new bot has its secret again", Promise::RearmErrors)
                    .await?;
            }
            self.end(open, tale, Promise::Percent).await?;
        }
        let open = self.enter(HALF, Promise::Percent).await?;
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        copied.push(self.copied_as_decided(&open).await);
        self.fault_in_the_shadow(tale, "new is three times slower", Mood::Slow, "slow", Promise::KillSlow)
            .await?;
        self.recover(tale, "the new bot has an index again", Promise::RearmSlow)
            .await?;
        self.end(open, tale, Promise::Percent).await?;

        let open = self.enter(ALL, Promise::Percent).await?;
        tokio::time::sleep(Duration::from_millis(2_500)).await;
        copied.push(self.copied_as_decided(&open).await);
        self.end(open, tale, Promise::Percent).await?;
        let counts: Result<Vec<String>, String> = copied
            .into_iter()
            .map(|shoppers| shoppers.map(|n| n.to_string()))
            .collect();
        self.note(
            tale,
            Promise::Percent,
            counts.map(|counts| format!("shoppers: {}", counts.join(", "))),
        );
        Ok(())
    }

    async fn bugs(&self, tale: &mut Tale) -> Result<(), Missed> {
        let found = |seen: &Seen| {
            let places = &seen.route.compared.places;
            let all = super::reply::PLANTED.iter().all(|bug| {
                let here = |place: &&PlaceCount| {
                    place.path == bug.path && place.kind == bug.kind && place.severity == bug.severity
                };
                places.iter().any(|place| here(&place))
            });
            all.then(|| compared(seen))
        };
        let found = self
            .operator
            .until("the planted bugs are among the divergences", found)
            .await;
        self.note(
            tale,
            Promise::Bugs,
            found.map(|compared| format!("among {compared} exchanges")),
        );
        Ok(())
    }

    async fn live_steps(&self, tale: &mut Tale) -> Result<(), Missed> {
        for (at, phase) in LIVE.into_iter().enumerate() {
            let promise = if at == 0 {
                Promise::LiveTester
            } else {
                Promise::LivePercent
            };
            let open = self.enter(phase, promise).await?;
            tokio::time::sleep(Duration::from_millis(1_800)).await;
            let served = self.served_as_decided(&open);
            self.note(tale, promise, served);
            if at == 2 {
                self.door(tale, phase.who).await?;
            }
            self.end(open, tale, promise).await?;
        }
        Ok(())
    }

    /// Edits the flag file and waits until its rules serve.
    async fn enter(&self, phase: Phase, promise: Promise) -> Result<Open, Missed> {
        let missed = |why| (promise, why);
        let seen = self
            .operator
            .edit_flags(&super::plan::flags(&phase))
            .await
            .map_err(missed)?;
        let open = self.begin(phase, &seen);
        undisturbed(&seen).map_err(missed)?;
        tokio::time::sleep(SETTLE).await;
        Ok(Open {
            settled: clock::monotonic(),
            ..open
        })
    }

    fn begin(&self, phase: Phase, seen: &Seen) -> Open {
        self.terminal.phase(phase.name);
        self.operator.busy_with(phase.name);
        let now = clock::monotonic();
        Open {
            phase,
            began: now,
            settled: now,
            before: self.count(seen),
        }
    }

    async fn end(&self, open: Open, tale: &mut Tale, promise: Promise) -> Result<Told, Missed> {
        let seen = self.operator.look().await.map_err(|why| (promise, why))?;
        let now = self.count(&seen);
        let told = Told {
            phase: open.phase,
            lasted: clock::monotonic().saturating_sub(open.began),
            requests: now.sent - open.before.sent,
            copies: now.copies - open.before.copies,
            served: now.served - open.before.served,
            compared: now.compared - open.before.compared,
            diverged: now.diverged - open.before.diverged,
        };
        tale.phases.push(told.clone());
        Ok(told)
    }

    fn count(&self, seen: &Seen) -> Figures {
        Figures {
            sent: self.sender.sent(),
            copies: self.new.copies(),
            served: self.new.served(),
            compared: compared(seen),
            diverged: word(&seen.route.compared.verdicts, "diverged"),
        }
    }

    /// Whether exactly the shoppers of this phase were copied; how many they are.
    async fn copied_as_decided(&self, open: &Open) -> Result<usize, String> {
        let who = open.phase.who;
        let sent = self.sender.between(open.settled, clock::monotonic());
        if let Some(entry) = sent.iter().find(|entry| entry.served_by != Some(Side::Legacy)) {
            return Err(format!("a request in the shadow was answered by {:?}", entry.served_by));
        }
        let wanted: BTreeSet<&String> = sent
            .iter()
            .flat_map(|entry| &entry.numbers)
            .filter(|number| who.has(number))
            .collect();
        // What was sent last may not have been copied yet.
        let end = clock::monotonic() + PATIENCE;
        loop {
            let copied = self.copied(open)?;
            match wanted.iter().find(|number| !copied.contains(**number)) {
                None => return Ok(copied.len()),
                Some(missing) if clock::monotonic() >= end => {
                    return Err(format!("{missing} was not copied at {}", who.words()));
                }
                Some(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }

    /// The shoppers of this phase of whom new got copies; an error if it got copies of nobody of them.
    fn copied(&self, open: &Open) -> Result<BTreeSet<String>, String> {
        let who = open.phase.who;
        let book = self.new.book();
        let mut copied = BTreeSet::new();
        for work in book.work.iter().filter(|work| work.copy && work.at >= open.settled) {
            let theirs = || work.numbers.iter().filter(|number| who.has(number));
            if theirs().next().is_none() {
                return Err(format!(
                    "new got a copy for {} at {}",
                    work.numbers.join(", "),
                    who.words()
                ));
            }
            copied.extend(theirs().cloned());
        }
        Ok(copied)
    }

    /// Whether new answered exactly the requests of this phase's shoppers.
    fn served_as_decided(&self, open: &Open) -> Result<String, String> {
        let sent = self.sender.between(open.settled, clock::monotonic());
        let (mut by_new, mut shoppers) = (0, BTreeSet::new());
        for entry in &sent {
            let expected = expected(open.phase.who, entry);
            if entry.served_by != Some(expected) {
                let numbers = entry.numbers.join(", ");
                return Err(format!(
                    "{numbers} was served by {:?}, not by {expected}",
                    entry.served_by
                ));
            }
            if expected == Side::New {
                by_new += 1;
                shoppers.extend(&entry.numbers);
            }
        }
        match by_new {
            0 => Err("new served nobody".to_owned()),
            n => Ok(format!("{n} of {} requests, shoppers: {}", sent.len(), shoppers.len())),
        }
    }
}
