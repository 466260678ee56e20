//! What goes into a decision: the deciding part of a route, the kills in force, and what is known of the request.
//!
//! Pure data. `ruleset` compiles policies, `live` keeps the kills, `proxy` knows the request.

use http::Method;

use crate::engine::flags::{Attributes, FlagKills, FlagRef, Threshold};
use crate::engine::vocab::{ExchangeId, Now};

/// What a backend may be sent beside the requests that it serves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Copies {
    /// Copies of GET, HEAD and OPTIONS: nobody said that it honours the marker.
    #[default]
    SafeMethods,
    /// Every copy: it honours `x-understudy-shadow` and then acts on nothing.
    DryRun,
    /// Every copy: what it does reaches nobody.
    Isolated,
}

impl Copies {
    /// Whether a copy of this method may be sent.
    #[must_use]
    pub fn take(self, method: &Method) -> bool {
        self != Self::SafeMethods || matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
    }
}

/// What a kill of a route does to the copies of that route.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum WhenKilled {
    /// They go on, so that one sees the new path recover.
    #[default]
    Continue,
    /// They stop, each counted as skipped.
    Stop,
}

/// Who serves a request that names nobody.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum WithoutIdentity {
    /// Legacy.
    #[default]
    Legacy,
    /// The new path as soon as the flag is on for everybody.
    Follow,
    /// Whoever serves the tenant's key, which then is the subject.
    Tenant,
}

/// What a route asks, with its flag resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// The same for everybody.
    Constant(bool),
    /// This flag.
    Flag(FlagRef),
}

/// The part of a route that decides.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Who is served by the new path.
    pub flag: Ask,
    /// Whether those for whom it is off get an answer of our own.
    pub replies_when_off: bool,
    /// Whether any of these flags may ask for attributes of the request; otherwise nobody looks for them.
    pub asks_attributes: bool,
    /// Who is copied to the other side.
    pub shadow: Ask,
    /// Whose two answers are compared.
    pub dual_run: Ask,
    /// Whether those for whom `flag` is on are only copied; `None` leaves it to the flag's own `shadow_mode`.
    pub shadow_mode: Option<Ask>,
    /// Who serves a request that names nobody.
    pub without_identity: WithoutIdentity,
    /// What a kill of the route does to its copies.
    pub when_killed: WhenKilled,
    /// The methods that are copied.
    pub methods: Box<[Method]>,
    /// The share of subjects that are copied.
    pub sample: Threshold,
    /// `shadow/` and the route's key: follows the subject in the sampling hash.
    pub sample_name: Box<str>,
    /// What each backend takes, by [`Side::index`](crate::engine::vocab::Side::index).
    pub copies: [Copies; 2],
}

/// The kills that concern one route, in one word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct KillBits(u32);

impl KillBits {
    /// No kill is in force.
    pub const NONE: Self = Self(0);
    /// A kill of everything.
    pub const EVERYTHING: Self = Self(1);
    /// A kill of the route.
    pub const ROUTE: Self = Self(1 << 1);
    /// A kill of the flag that the route names as `flag`.
    pub const FLAG: Self = Self(1 << 2);
    /// A kill of the flag that the route names as `shadow`.
    pub const SHADOW: Self = Self(1 << 3);
    /// A kill of the flag that the route names as `dual_run`.
    pub const DUAL_RUN: Self = Self(1 << 4);
    /// A kill of the flag that the route names as `shadow_mode`.
    pub const SHADOW_MODE: Self = Self(1 << 5);
    /// Nobody knows what was killed: the state could not be read.
    pub const NO_STATE: Self = Self(1 << 6);
    /// A kill of a flag that the route's `flag` asks in turn, however far off.
    pub const ASKED_BY_FLAG: Self = Self(1 << 7);
    /// A kill of a flag that `shadow`, `dual_run` or `shadow_mode` asks in turn.
    pub const ASKED_BY_OTHERS: Self = Self(1 << 8);

    /// The word, for an atomic.
    #[must_use]
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// The kills in such a word; bits without a meaning are dropped.
    #[must_use]
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits & ((1 << 9) - 1))
    }

    /// Both together.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether any of `other` is among these.
    #[must_use]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

/// What is known of a request when it is decided.
#[derive(Clone, Debug)]
pub struct Request<'a, S> {
    /// Its method.
    pub method: &'a Method,
    /// Whom it is for, each once: none, one, or several shoppers in one body.
    pub subjects: S,
    /// Whose shop it is for.
    pub tenant: Option<&'a str>,
    /// Its exchange.
    pub exchange: ExchangeId,
    /// What else is known of it, for targeting rules.
    pub attributes: &'a dyn Attributes,
    /// The kills that concern its route.
    pub kills: KillBits,
    /// The kills of the flags that its route's flags ask in turn; needed where [`KillBits`] say that there are any.
    pub flag_kills: &'a FlagKills,
    /// Whether one of its subjects is held on this route.
    pub held: bool,
    /// When it came.
    pub now: Now,
}
