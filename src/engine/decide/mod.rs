//! Who serves a request, who gets a copy of it, whether the two are compared, and why.
//!
//! Pure, without allocation and without a lock. In: the flags of one ruleset, the deciding part of a route, and what is
//! known of the request, kills included. Out: a [`Decision`]. Counting, logging and sending are left to the caller; so are
//! the limits that may yet keep a copy from being sent. The one thing that changes here is the mark of a gradual flag
//! that is asked: it rises with time, and never falls. Speed: bench `decide`, `decide/1000_flags`.

mod asked;

use std::fmt::Write;

use http::Method;

use crate::engine::flags::{Asked, Attributes, Bucket, Evaluation, Flag, FlagKills, FlagRef, Flags, Threshold};
use crate::engine::vocab::{ExchangeId, Reason, Revision, Side};

pub use asked::{Ask, Copies, KillBits, Policy, Request, WhenKilled, WithoutIdentity};

/// Why a request that was to be copied is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Skip {
    /// The route or the subject is killed, and its copies stop with it.
    Killed,
    /// Not one of the methods that the route copies.
    Method,
    /// The other side is not declared to take a copy of this method.
    NotDeclared,
    /// Not in the sampled share.
    SampledOut,
    /// No side serves it, so there is nothing to copy.
    WhenOff,
}

impl Skip {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Killed,
        Self::Method,
        Self::NotDeclared,
        Self::SampledOut,
        Self::WhenOff,
    ];

    /// The word in metrics and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Killed => "killed",
            Self::Method => "method",
            Self::NotDeclared => "not_declared",
            Self::SampledOut => "sampled_out",
            Self::WhenOff => "when_off",
        }
    }
}

/// Who gets a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CopyTo {
    /// Nobody was to.
    Nobody,
    /// This side was to, and does not; each is counted.
    Skipped(Side, Skip),
    /// This side.
    To(Side),
}

/// One flag's answer on the way to a decision: a line of the decision log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Check {
    /// The flag.
    pub flag: FlagRef,
    /// Its answer as it took effect: off while its route is killed.
    pub enabled: bool,
    /// Why.
    pub reason: Reason,
}

/// The flags that were asked for one subject, each answer once: at most one per flag that a route names.
#[derive(Clone, Copy, Debug, Default)]
pub struct Checks {
    list: [Option<Check>; 4],
}

impl Checks {
    fn add(&mut self, check: Check) {
        for place in &mut self.list {
            match place {
                Some(known) if *known == check => return,
                Some(_) => {}
                None => {
                    *place = Some(check);
                    return;
                }
            }
        }
    }

    /// In the order in which they were asked.
    pub fn iter(&self) -> impl Iterator<Item = &Check> {
        self.list.iter().flatten()
    }
}

/// What happens to a request.
#[derive(Clone, Copy, Debug)]
pub struct Decision {
    /// Whose answer the client gets, unless `replied`.
    pub served: Side,
    /// Whether neither side serves it: the route's `when_off` is an answer of our own, and its flag is off for everybody in
    /// the request by a line that somebody meant. A kill, a doubt or shadow mode never is.
    pub replied: bool,
    /// Why.
    pub reason: Reason,
    /// Whether chance alone put this subject on this side: its bucket was asked, and nothing else came between.
    pub by_percent: bool,
    /// Who gets a copy.
    pub copy: CopyTo,
    /// Whether the two answers are compared; never without a copy.
    pub compared: bool,
    /// The ruleset that decided.
    pub revision: Revision,
    /// The flags that were asked, for the first subject; [`checks`] answers for the others of a mixed body.
    pub checks: Checks,
    /// `shadow_mode` is on and `flag` is off, so nothing is copied: `shadow: inactive (flag off)`.
    pub shadow_inactive: bool,
    /// `shadow_mode` counts as on only because its flag is killed, unknown, or off as a whole, here or now.
    pub shadow_mode_assumed: bool,
}

/// Decides about one request.
#[must_use]
pub fn decide<'a, S>(flags: &Flags, policy: &Policy, request: &Request<'a, S>) -> Decision
where
    S: Iterator<Item = &'a str> + Clone,
{
    if request.kills.has(KillBits::NO_STATE) {
        return Decision {
            served: Side::Legacy,
            replied: false,
            reason: Reason::NoState,
            by_percent: false,
            copy: CopyTo::Nobody,
            compared: false,
            revision: flags.revision(),
            checks: Checks::default(),
            shadow_inactive: false,
            shadow_mode_assumed: false,
        };
    }
    let walk = Walk::new(flags, policy, request);
    let mut subjects = request.subjects.clone();
    let Some(first) = subjects.next() else {
        let subject = if policy.without_identity == WithoutIdentity::Tenant {
            request.tenant
        } else {
            None
        };
        let part = walk.part(subject);
        let sampled = part.wanted
            && match subject {
                Some(tenant) => walk.samples(tenant),
                None => walk.samples(Hex::of(request.exchange).as_str()),
            };
        return walk.decision(request.method, part, sampled, part.compared);
    };

    let mut whole = walk.part(Some(first));
    let mut sampled = whole.wanted && walk.samples(first);
    let mut compared = sampled && whole.compared;
    for subject in subjects {
        let part = walk.part(Some(subject));
        let taken = part.wanted && walk.samples(subject);
        sampled |= taken;
        compared |= taken && part.compared;
        whole = whole.beside(&part);
    }
    walk.decision(request.method, whole, sampled, compared)
}

/// The flags that one subject of a request has asked, for the log line of that subject alone.
#[must_use]
pub fn checks<'a, S>(flags: &Flags, policy: &Policy, request: &Request<'a, S>, subject: &str) -> Checks {
    let walk = Walk::new(flags, policy, request);
    if request.kills.has(KillBits::NO_STATE) {
        Checks::default()
    } else {
        walk.part(Some(subject)).checks
    }
}

/// What is the same for all subjects of a request.
struct Walk<'r> {
    flags: &'r Flags,
    policy: &'r Policy,
    kills: KillBits,
    flag_kills: &'r FlagKills,
    attributes: &'r dyn Attributes,
    held: bool,
    unix_ms: i64,
}

/// One subject's share of a decision.
#[derive(Clone, Copy)]
struct Part {
    served: Side,
    reason: Reason,
    /// Whether the flag is off, and somebody meant it.
    off: bool,
    by_percent: bool,
    /// Whether a copy is wanted, before methods, declarations and sampling.
    wanted: bool,
    /// Whether that copy's answer would be compared.
    compared: bool,
    inactive: bool,
    assumed: bool,
    checks: Checks,
}

impl Part {
    /// Both in one body: the new path serves it only if it serves each.
    fn beside(self, other: &Self) -> Self {
        let agreed = self.served == other.served && (self.served == Side::New || self.reason == other.reason);
        Self {
            served: self.served.min(other.served),
            reason: if agreed { self.reason } else { Reason::Mixed },
            off: self.off && other.off,
            // Which bodies name whom is not left to chance.
            by_percent: false,
            wanted: self.wanted || other.wanted,
            compared: self.compared || other.compared,
            inactive: self.inactive || other.inactive,
            assumed: self.assumed || other.assumed,
            checks: self.checks,
        }
    }
}

/// An answer as a route uses it; a constant has one too.
#[derive(Clone, Copy)]
struct Answer {
    enabled: bool,
    reason: Reason,
}

impl Answer {
    const fn off(reason: Reason) -> Self {
        Self { enabled: false, reason }
    }
}

impl From<Evaluation> for Answer {
    fn from(evaluation: Evaluation) -> Self {
        Self {
            enabled: evaluation.enabled,
            reason: evaluation.reason,
        }
    }
}

impl<'r> Walk<'r> {
    const fn new<S>(flags: &'r Flags, policy: &'r Policy, request: &Request<'r, S>) -> Self {
        Self {
            flags,
            policy,
            kills: request.kills,
            flag_kills: request.flag_kills,
            attributes: request.attributes,
            held: request.held,
            unix_ms: request.now.unix_ms,
        }
    }

    fn part(&self, subject: Option<&str>) -> Part {
        let policy = self.policy;
        let mut checks = Checks::default();

        // The flag's own answer goes on choosing who is copied in shadow mode, while a killed route serves nobody.
        let own = match subject {
            Some(_) => self.ask(policy.flag, KillBits::FLAG, subject),
            None => self.ask_for_nobody(),
        };
        let effective = if self.route_killed() {
            Answer::off(Reason::Killed)
        } else {
            own
        };
        note(&mut checks, policy.flag, effective);

        let (shadow_mode, assumed) = self.shadow_mode(subject, &mut checks);
        let dual_run = self.ask(policy.dual_run, KillBits::DUAL_RUN, subject);
        note(&mut checks, policy.dual_run, dual_run);
        if shadow_mode {
            return Part {
                served: Side::Legacy,
                reason: effective.reason,
                off: false,
                by_percent: false,
                wanted: own.enabled,
                compared: dual_run.enabled,
                inactive: !own.enabled,
                assumed,
                checks,
            };
        }
        let shadow = self.ask(policy.shadow, KillBits::SHADOW, subject);
        note(&mut checks, policy.shadow, shadow);
        Part {
            served: if effective.enabled { Side::New } else { Side::Legacy },
            reason: effective.reason,
            off: !effective.enabled && is_meant(effective.reason),
            by_percent: subject.is_some() && matches!(effective.reason, Reason::Percent | Reason::PercentMiss),
            wanted: shadow.enabled || dual_run.enabled,
            compared: dual_run.enabled,
            inactive: false,
            assumed: false,
            checks,
        }
    }

    const fn route_killed(&self) -> bool {
        self.held || self.kills.has(KillBits::ROUTE)
    }

    fn ask(&self, ask: Ask, killed_by: KillBits, subject: Option<&str>) -> Answer {
        let killed = self.kills.has(KillBits::EVERYTHING.with(killed_by));
        match ask {
            Ask::Constant(enabled) => self.constant(enabled),
            Ask::Flag(at) => match self.flags.at(at) {
                Some(flag) => {
                    self.advance(flag);
                    self.flags.answer(flag, &self.asked(killed, subject)).into()
                }
                None => Answer::off(Reason::FlagNotFound),
            },
        }
    }

    /// Takes note of the shares that are asked, of this flag and of those that it asks in turn.
    fn advance(&self, flag: &Flag) {
        flag.advance(self.unix_ms);
        let first = flag.prerequisites.iter().filter_map(|first| self.flags.at(first.at?));
        first.for_each(|other| self.advance(other));
    }

    fn constant(&self, enabled: bool) -> Answer {
        if self.kills.has(KillBits::EVERYTHING) {
            Answer::off(Reason::Killed)
        } else if !self.flags.system_enabled() {
            Answer::off(Reason::SystemDisabled)
        } else {
            Answer {
                enabled,
                reason: Reason::Constant,
            }
        }
    }

    const fn asked<'s>(&self, killed: bool, subject: Option<&'s str>) -> Asked<'s>
    where
        'r: 's,
    {
        Asked {
            subject,
            attributes: self.attributes,
            unix_ms: self.unix_ms,
            killed,
            kills: self.flag_kills,
        }
    }

    /// The answer of `flag` for a request that names nobody.
    fn ask_for_nobody(&self) -> Answer {
        let own = self.ask(self.policy.flag, KillBits::FLAG, None);
        if self.policy.without_identity != WithoutIdentity::Follow {
            return if own.enabled {
                Answer::off(Reason::IdentityUnknown)
            } else {
                own
            };
        }
        let Ask::Flag(at) = self.policy.flag else { return own };
        let asked = self.asked(self.kills.has(KillBits::EVERYTHING.with(KillBits::FLAG)), None);
        let for_everybody = self.flags.evaluate_for_everybody(at, &asked);
        for_everybody.map_or(own, Answer::from)
    }

    /// Whether shadow mode is on, and whether only the safe side makes it so.
    fn shadow_mode(&self, subject: Option<&str>, checks: &mut Checks) -> (bool, bool) {
        let by_flag = match self.policy.flag {
            Ask::Flag(at) => self.flags.at(at).is_some_and(|flag| flag.shadow_mode == Some(true)),
            Ask::Constant(_) => false,
        };
        let Some(ask) = self.policy.shadow_mode else {
            return (by_flag, false);
        };
        let answer = self.ask(ask, KillBits::SHADOW_MODE, subject);
        note(checks, ask, answer);
        // Only somebody who meant this flag, here and now, can make subjects live.
        let assumed = matches!(
            answer.reason,
            Reason::Killed
                | Reason::FlagNotFound
                | Reason::SystemDisabled
                | Reason::Environment
                | Reason::Schedule
                | Reason::Prerequisite
        );
        (by_flag || answer.enabled || assumed, assumed && !by_flag)
    }

    fn samples(&self, subject: &str) -> bool {
        self.policy.sample == Threshold::ALL || self.policy.sample.takes(Bucket::of(subject, &self.policy.sample_name))
    }

    fn decision(&self, method: &Method, part: Part, sampled: bool, compared: bool) -> Decision {
        let target = part.served.other();
        let replied = part.off && self.policy.replies_when_off;
        let skip = if !part.wanted {
            None
        } else if replied {
            Some(Skip::WhenOff)
        } else if self.route_killed() && self.policy.when_killed == WhenKilled::Stop {
            Some(Skip::Killed)
        } else if !self.policy.methods.contains(method) {
            Some(Skip::Method)
        } else if !self.policy.copies[target.index()].take(method) {
            Some(Skip::NotDeclared)
        } else if !sampled {
            Some(Skip::SampledOut)
        } else {
            None
        };
        let copy = match skip {
            _ if !part.wanted => CopyTo::Nobody,
            Some(skip) => CopyTo::Skipped(target, skip),
            None => CopyTo::To(target),
        };
        Decision {
            served: part.served,
            replied,
            reason: part.reason,
            by_percent: part.by_percent && !replied,
            copy,
            compared: compared && matches!(copy, CopyTo::To(_)),
            revision: self.flags.revision(),
            checks: part.checks,
            shadow_inactive: part.inactive && !part.wanted,
            shadow_mode_assumed: part.assumed,
        }
    }
}

/// Whether off for this reason is what somebody wrote, and not what is done in doubt or in an emergency.
const fn is_meant(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::Constant
            | Reason::Default
            | Reason::Denylist
            | Reason::Disabled
            | Reason::Environment
            | Reason::NotAllowlisted
            | Reason::PercentMiss
            | Reason::Schedule
            | Reason::Targeting
    )
}

fn note(checks: &mut Checks, ask: Ask, answer: Answer) {
    if let Ask::Flag(flag) = ask {
        checks.add(Check {
            flag,
            enabled: answer.enabled,
            reason: answer.reason,
        });
    }
}

/// An exchange's id as it is displayed, without an allocation: who samples by it can be checked from a log.
struct Hex {
    digits: [u8; 32],
    length: usize,
}

impl Hex {
    fn of(exchange: ExchangeId) -> Self {
        let mut hex = Self {
            digits: [0; 32],
            length: 0,
        };
        // The digits of 128 bits fit, so this cannot fail.
        let _ = write!(hex, "{exchange}");
        hex
    }

    fn as_str(&self) -> &str {
        self.digits
            .get(..self.length)
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .unwrap_or_default()
    }
}

impl Write for Hex {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        let end = self.length + text.len();
        let place = self.digits.get_mut(self.length..end).ok_or(std::fmt::Error)?;
        place.copy_from_slice(text.as_bytes());
        self.length = end;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
