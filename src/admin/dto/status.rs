//! The answer of `GET /api/v1/status`: who is served by whom, what is killed, and what the judges have seen.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::action::Target;
use super::readiness::Readiness;

/// Counters by a word of a closed set. What has not happened is left out.
pub type Counts = BTreeMap<String, u64>;

/// The whole.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The version of the sidecar.
    pub version: String,
    /// When it was started; counters count from here.
    pub started_at: String,
    /// When this was written.
    pub at: String,
    /// What `/readyz` says.
    pub readiness: Readiness,
    /// The rules in force.
    pub rules: Rules,
    /// Everything that is killed, held subjects left out.
    pub kills: Vec<Kill>,
    /// Everything that is frozen.
    #[serde(default)]
    pub freezes: Vec<Freeze>,
    /// The routes, in the order of the configuration.
    pub routes: Vec<Route>,
    /// Requests that no route takes: legacy, uncopied.
    pub unrouted: Traffic,
    /// Stale flags by why they are, at the last look.
    #[serde(default)]
    pub stale_flags: Counts,
    /// What is kept on disk.
    pub store: Store,
    /// The process.
    pub process: Process,
}

/// The rules in force, and what is on disk beside them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rules {
    /// The number of the rules in force; `null` before the first.
    pub revision: Option<u64>,
    /// The environment for which they were compiled.
    pub environment: String,
    /// Problems of the newest rules on disk, which are refused; empty while those are in force.
    pub refused: Vec<String>,
    /// Warnings of the rules in force.
    pub warnings: Vec<String>,
    /// Changes on disk that take effect at the next start only.
    pub waits_for_restart: Vec<String>,
    /// Reloads that were taken over.
    pub reloads_accepted: u64,
    /// Reloads that were refused.
    pub reloads_refused: u64,
}

/// A kill in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kill {
    /// What is killed.
    pub target: Target,
    /// The life of its kill switch.
    pub epoch: u64,
    /// Why, in the words of whoever did it.
    pub reason: String,
    /// Who did it; `guard` for a budget that was used up.
    pub actor: String,
    /// When.
    pub since: String,
}

/// A freeze in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Freeze {
    /// What is frozen.
    pub target: Target,
    /// Why, in the words of whoever did it.
    pub reason: String,
    /// Who did it.
    pub actor: String,
    /// Since when.
    pub since: String,
}

/// One value per side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PerSide<T> {
    /// Legacy's.
    pub legacy: T,
    /// New's.
    pub new: T,
}

/// What was done for requests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// Requests by the side that was to serve them.
    pub assigned: PerSide<u64>,
    /// Requests by the reason of their decision.
    pub reasons: Counts,
    /// Answers to clients by the side that gave them and by status class.
    pub answered: PerSide<Counts>,
    /// Runs without a usable answer, by side and kind.
    pub failed: PerSide<Counts>,
    /// Requests that new failed and legacy answered, by class.
    pub failovers: Counts,
    /// Copies, by the side that they are for.
    pub copies: PerSide<Copied>,
    /// Answers that the sidecar made up, by reason.
    pub made: Counts,
    /// Requests that name nobody, by reason.
    pub without_identity: Counts,
}

/// What became of copies.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Copied {
    /// Sent.
    pub sent: u64,
    /// Not sent, by reason.
    pub skipped: Counts,
}

/// One route.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Route {
    /// Its name.
    pub name: String,
    /// The beginning of the paths that it takes.
    pub path: String,
    /// Whom the rules and kills choose at this moment.
    pub serves: Serves,
    /// The life of its kill switch.
    pub epoch: u64,
    /// The kills in force that keep it on legacy: everything's, its flag's, its own.
    pub killed_by: Vec<Kill>,
    /// Subjects kept on legacy one by one.
    pub held: Held,
    /// What was done since the start.
    pub traffic: Traffic,
    /// What the comparison of both answers found.
    pub compared: Compared,
    /// What the guard knows since the last re-arm; `null` before its first word.
    pub guard: Option<Guard>,
    /// How fast both sides answer.
    pub latency: PerSide<Latency>,
    /// When what should not happen last did.
    #[serde(default)]
    pub last: Last,
}

/// When something last happened on a route, to within five seconds; `null` if it did not since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Last {
    /// Answers that the sidecar made up because the backend did not give one.
    pub made: Option<String>,
    /// Failures of new that clients got, which no budget saw.
    pub new_unseen: Option<String>,
    /// Requests that new failed and legacy answered.
    pub failovers: Option<String>,
    /// Critical differences.
    pub critical: Option<String>,
    /// Major differences.
    pub major: Option<String>,
}

/// What [`Serves::why`] says of a flag that its own metadata kill.
pub const KILL_SWITCH: &str = "kill_switch";

/// Whom the rules choose.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Serves {
    /// `legacy` or `new` for everybody; `both` where it depends on the subject.
    pub by: String,
    /// Why, in words: the decision's reason, or the percentage or list that decides; behind a semicolon who is copied.
    pub why: String,
    /// The share of subjects on new, 0 to 100; `null` where a list decides.
    pub percent: Option<f64>,
    /// The flag that decides; `null` for a constant.
    pub flag: Option<String>,
    /// Those for whom the flag is on are served by legacy and copied to new: `on`, `off`, or `some` where it depends on
    /// the subject.
    pub shadow_mode: String,
}

/// Subjects kept on legacy one by one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// How many.
    pub count: usize,
    /// Their hashes, at most the first hundred.
    pub subjects: Vec<String>,
}

/// What the comparison found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compared {
    /// Exchanges by verdict: `same`, `noise`, `diverged`, `incomparable`.
    pub verdicts: Counts,
    /// Exchanges that should have been compared and were not, by reason.
    pub not_compared: Counts,
    /// Exchanges that diverged, by their worst severity.
    pub severities: Counts,
    /// Differences that `ignore` hid.
    pub suppressed: u64,
    /// The places that differ most, critical ones first, at most twenty.
    pub places: Vec<PlaceCount>,
    /// How many places differ, those not listed included.
    pub places_total: usize,
    /// Divergences at places beyond those that are counted one by one.
    pub elsewhere: u64,
}

/// How often one place differed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlaceCount {
    /// The path with `*` for indexes, `@status` or `@header.NAME`.
    pub path: String,
    /// In what way.
    pub kind: String,
    /// How grave.
    pub severity: String,
    /// How often.
    pub count: u64,
}

/// What the guard of a route knows since the last re-arm.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Guard {
    /// Outcomes seen.
    pub outcomes: u64,
    /// Requests that both sides were meant to handle.
    pub pairs: u64,
    /// Requests that legacy answered because new had failed.
    pub failovers: u64,
    /// Runs of new for which the client waited.
    pub new_served: u64,
    /// Runs of new that were copies.
    pub new_shadowed: u64,
    /// Runs of new that failed while the client waited, about which legacy was not asked: no budget sees them.
    #[serde(default)]
    pub new_unseen: u64,
    /// Runs of new that brought no answer, or 5xx.
    pub new_failed: u64,
    /// Runs of legacy that brought no answer, or 5xx.
    pub legacy_failed: u64,
    /// Outcomes that are no evidence: given up, decided before the last re-arm, or of held subjects.
    pub no_evidence: u64,
    /// The budgets, in the order of the configuration.
    pub budgets: Vec<Budget>,
}

/// One budget.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Budget {
    /// Its name.
    pub name: String,
    /// What it measures.
    pub metric: String,
    /// How much worse than legacy new may be, as the configuration says it: `ratio: 1.1`.
    pub tolerate: String,
    /// What a trip does.
    pub action: String,
    /// `collecting`, `watching`, `tripped` or `unjudged`.
    pub state: String,
    /// How much it takes to judge, while `collecting`.
    pub need: Option<u64>,
    /// How much there is of that, while `collecting`.
    pub have: Option<u64>,
    /// What its detectors can see, in two words: `disasters only`, `not judged`.
    pub sight: String,
    /// The same in a sentence.
    pub sight_detail: String,
    /// Against the new path.
    pub path: Option<Evidence>,
    /// Against few subjects.
    pub subjects: Option<Evidence>,
    /// Requests that both sides were meant to handle.
    pub pairs: u64,
    /// Requests that legacy answered because new had failed.
    pub failovers: u64,
    /// Of all requests: new did badly.
    pub new_failed: u64,
    /// Of all requests: legacy did badly.
    pub legacy_failed: u64,
}

/// How near a sum is to its threshold.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    /// The sum, a log-likelihood ratio.
    pub value: f64,
    /// Where it trips.
    pub threshold: f64,
}

/// How fast a side answers, from the last byte of the request to the end of the answer's headers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// Half of the answers in pairs are faster, within 3 %; since the last re-arm.
    pub pairs_p50_ms: Option<f64>,
    /// Half of all answers take at most this: the bound of a bucket; since the start.
    pub all_p50_at_most_ms: Option<f64>,
}

/// What is kept on disk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Store {
    /// Why the state could not be read at the start; then everything goes to legacy until a restart that can.
    pub unreadable: Option<String>,
    /// Kills in force that the state file does not have yet.
    pub kills_unstored: usize,
    /// Of these, how many the kill journal has, which survive a restart too.
    pub kills_journaled: usize,
    /// Since when the oldest of these waits.
    pub unstored_since: Option<String>,
    /// Holds of subjects that are in force until a restart and will not be stored.
    pub holds_lost: usize,
    /// What the state file answered last, if that was a failure.
    pub state_error: Option<String>,
    /// What the kill journal answered last, if that was a failure.
    pub journal_error: Option<String>,
    /// Why changes of flags are refused, if they are.
    #[serde(default)]
    pub change_error: Option<String>,
}

/// The process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Threads that serve.
    pub workers: usize,
    /// Open client connections.
    pub connections: usize,
    /// Client connections since the start.
    pub accepted: u64,
    /// Client connections ended for what arrived on them, by reason.
    pub client_errors: Counts,
    /// Bytes of bodies held.
    pub capture_bytes: u64,
    /// Requests under way, by backend.
    pub in_flight: PerSide<usize>,
    /// Outcomes that the guard never saw.
    pub outcomes_lost: u64,
    /// Tasks that panicked.
    pub panics: u64,
}
