//! The running parts of the story, and what is remembered of it.

use std::path::PathBuf;
use std::time::Duration;

use super::bots::Bot;
use super::checks::{Checks, Promise};
use super::operator::{Operator, Seen};
use super::plan::{Phase, Who};
use super::sender::{Entry, Ledger, Sender};
use super::terminal::{Terminal, Tone};
use crate::admin::dto::Kill;
use crate::engine::vocab::Side;

/// How long requests that were decided by the rules before may still be under way.
pub const SETTLE: Duration = Duration::from_millis(400);

/// One line of the table of phases.
#[derive(Clone, Debug)]
pub struct Told {
    /// The phase.
    pub phase: Phase,
    /// How long it lasted.
    pub lasted: Duration,
    /// Requests sent.
    pub requests: u64,
    /// Copies that new received.
    pub copies: u64,
    /// Requests that new answered.
    pub served: u64,
    /// Exchanges compared.
    pub compared: u64,
    /// Of these, diverged.
    pub diverged: u64,
}

/// What a kill cost.
#[derive(Clone, Debug)]
pub struct Cost {
    /// What was wrong.
    pub fault: &'static str,
    /// The kill.
    pub kill: Kill,
    /// From the fault to the kill.
    pub after: Duration,
    /// Requests that new failed until then.
    pub requests: u64,
    /// Requests that legacy answered because new had failed.
    pub failovers: u64,
    /// The shoppers of those.
    pub shoppers: usize,
    /// Half of the shoppers' requests took less before the fault.
    pub median_before: Duration,
    /// The same from the fault to the kill.
    pub median_meanwhile: Duration,
}

/// The running parts.
#[derive(Debug)]
pub struct Stage<'s> {
    /// Where it is told.
    pub terminal: &'s Terminal,
    /// Who changes phases and re-arms.
    pub operator: &'s Operator,
    /// Who sends.
    pub sender: &'s Sender,
    /// The bot that is being replaced.
    pub legacy: &'s Bot,
    /// The bot that replaces it.
    pub new: &'s Bot,
    /// The sidecar's log.
    pub log: PathBuf,
}

/// What happened.
#[derive(Debug, Default)]
pub struct Tale {
    /// What was promised and seen.
    pub checks: Checks,
    /// The phases.
    pub phases: Vec<Told>,
    /// The kills.
    pub kills: Vec<Cost>,
    /// What was sent, once it is over.
    pub ledger: Ledger,
    /// The status at the end.
    pub last: Option<Seen>,
}

/// The story cannot go on: the promise that was not kept, and why.
pub type Missed = (Promise, String);

impl Stage<'_> {
    /// Ticks off a promise, or notes what was missed, and tells it.
    pub fn note(&self, tale: &mut Tale, promise: Promise, seen: Result<String, String>) {
        match &seen {
            Ok(detail) => self
                .terminal
                .say(Tone::Good, format_args!("{}{}", promise.sentence(), behind(detail))),
            Err(why) => self
                .terminal
                .say(Tone::Bad, format_args!("{}{}", promise.sentence(), behind(why))),
        }
        tale.checks.note(promise, seen);
    }
}

/// Nothing is killed or held that the story did not break.
///
/// # Errors
/// What is, and why.
pub fn undisturbed(seen: &Seen) -> Result<(), String> {
    match (seen.route.killed_by.first(), seen.route.held.count) {
        (Some(kill), _) => Err(format!(
            "a kill out of turn, most likely because this machine is too busy: {}",
            kill.reason
        )),
        (None, 0) => Ok(()),
        (None, held) => Err(format!(
            "{held} shoppers are held, most likely because this machine is too busy"
        )),
    }
}

/// Requests that legacy answered because new had failed.
pub fn failovers(seen: &Seen) -> u64 {
    seen.route.traffic.failovers.values().sum()
}

/// Who has to answer a request, computed beside the product: a body goes to new if all of its shoppers are on it.
pub fn expected(who: Who, entry: &Entry) -> Side {
    let all = !entry.numbers.is_empty() && entry.numbers.iter().all(|number| who.has(number));
    if all { Side::New } else { Side::Legacy }
}

fn behind(detail: &str) -> String {
    if detail.is_empty() {
        String::new()
    } else {
        format!(": {detail}")
    }
}
