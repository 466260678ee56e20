//! A route as the configuration hands it to the compiler: typed, and checked field by field.
//!
//! Pure. `config` builds a [`RouteSpec`] per entry under `routes:`; `compile` resolves its flags and makes a
//! [`super::Route`] of it. What needs several routes, the flags or the backends at once is checked there, not here.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

use super::decode::{Decode, Decoder, Misfit, Scalar, Shape};
use super::problem::{Place, quote};
use super::yaml::{Node, Value};
use crate::engine::flags::bucket::{PercentError, Threshold};
use crate::engine::vocab::{FlagKey, RouteKey};
use crate::engine::{compare, guard, identity};

pub use crate::engine::decide::{Copies, WhenKilled, WithoutIdentity};

/// What a route asks: a constant, or a flag by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Switch {
    /// `true` or `false` as written.
    Constant(bool),
    /// The flag of this key, and where the route names it.
    Flag(FlagKey, Place),
}

impl Switch {
    /// The flag, and where the route names it; none of a constant.
    #[must_use]
    pub const fn flag(&self) -> Option<(&FlagKey, &Place)> {
        match self {
            Self::Flag(key, place) => Some((key, place)),
            Self::Constant(_) => None,
        }
    }
}

impl Decode for Switch {
    fn decode(node: &Node<'_>, decoder: &mut Decoder<'_>) -> Option<Self> {
        match &node.value {
            Value::Plain(text) if text == "true" => Some(Self::Constant(true)),
            Value::Plain(text) if text == "false" => Some(Self::Constant(false)),
            _ => FlagKey::decode(node, decoder).map(|key| Self::Flag(key, decoder.place(node.mark))),
        }
    }

    fn shape() -> Shape {
        Shape::Union(vec![bool::shape(), FlagKey::shape()])
    }
}

impl Scalar for Threshold {
    const NAME: &'static str = "percent";
    const KIND: &'static str = "a percentage";
    const REMEDY: &'static str = "write a number from 0 to 100 without a percent sign, such as 25 or 0.5";
    const BARE: bool = true;

    fn read(text: &str) -> Result<Self, Misfit> {
        Self::parse(text).map_err(|error| match error {
            PercentError::NotANumber => Misfit::Kind,
            PercentError::OutOfRange => Misfit::range(format!("{} is {error}", quote(text)), Self::REMEDY),
            PercentError::TooFine => Misfit::range(format!("{} has {error}", quote(text)), "round it to four decimals"),
        })
    }
}

/// Which requests a route takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteMatch {
    /// A prefix that ends at a segment boundary; begins with `/`. A slash at its end means nothing.
    pub path: String,
    /// Any of these; empty means every method.
    pub methods: Vec<Method>,
    /// All of these, each equal to at least one value of the request's header of that name.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

/// A status, or a hundred of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StatusPattern {
    /// `5xx`: the first digit, 1 to 5.
    Class(u8),
    /// One status, 100 to 599.
    Code(u16),
}

impl StatusPattern {
    /// Reads `5xx` or `503`; `None` for everything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if let Some(class) = text.strip_suffix("xx") {
            return match class.as_bytes() {
                [digit @ b'1'..=b'5'] => Some(Self::Class(digit - b'0')),
                _ => None,
            };
        }
        let code = (text.len() == 3).then(|| text.parse().ok()).flatten()?;
        (100..=599).contains(&code).then_some(Self::Code(code))
    }

    /// Whether `status` is meant.
    #[must_use]
    pub const fn matches(self, status: u16) -> bool {
        match self {
            Self::Class(class) => status / 100 == class as u16,
            Self::Code(code) => status == code,
        }
    }
}

/// When a request that the new path failed goes to legacy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failover {
    /// Nothing of the request was written to the new path: every method.
    pub never_reached: bool,
    /// Written, and no answer came: GET, HEAD and OPTIONS only.
    pub unknown: bool,
    /// Answered with one of `statuses`: GET, HEAD and OPTIONS only.
    pub answered: bool,
    /// The answers that count as a failure of the new path.
    pub statuses: Vec<StatusPattern>,
    /// The time that the sender waits; both tries have to fit in. At least 200 ms.
    pub deadline: Duration,
}

impl Default for Failover {
    fn default() -> Self {
        Self {
            never_reached: true,
            unknown: true,
            answered: true,
            statuses: vec![StatusPattern::Class(5)],
            deadline: Duration::from_secs(10),
        }
    }
}

/// An answer of our own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Its status, 200 to 599.
    pub status: StatusCode,
    /// Its headers, without those that frame it.
    pub headers: HeaderMap,
    /// Its body; empty where the status allows none.
    pub body: Bytes,
}

/// Who is copied to the other side, and what copies may cost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShadowSpec {
    /// Whether copies are made at all; `shadow: true` and `shadow: false` set only this.
    pub switch: Switch,
    /// The methods that are copied, each with its place.
    pub methods: Vec<(Method, Place)>,
    /// The share of subjects that are copied.
    pub threshold: Threshold,
    /// Copies of this route on their way at once.
    pub max_in_flight: usize,
    /// Bytes that the copies of this route may hold in memory.
    pub max_bytes: u64,
    /// What a copy may take before it counts as failed.
    pub timeout: Duration,
    /// What a kill of the route does to its copies.
    pub when_killed: WhenKilled,
}

impl ShadowSpec {
    /// The defaults of section `shadow:` for the given switch, all at `place`.
    #[must_use]
    pub fn new(switch: Switch, place: &Place) -> Self {
        Self {
            switch,
            methods: [Method::GET, Method::HEAD, Method::OPTIONS]
                .map(|method| (method, place.clone()))
                .into(),
            threshold: Threshold::ALL,
            max_in_flight: 64,
            max_bytes: 16 * 1024 * 1024,
            timeout: Duration::from_secs(10),
            when_killed: WhenKilled::Continue,
        }
    }
}

/// One entry of `routes:`.
#[derive(Clone, Debug)]
pub struct RouteSpec {
    /// Its `name`.
    pub key: RouteKey,
    /// Where the name stands.
    pub place: Place,
    /// Its `match`.
    pub matcher: RouteMatch,
    /// Who a request is for.
    pub identity: identity::Plan,
    /// Whose shop a request is for.
    pub tenant: identity::Plan,
    /// What else rules may ask of a request.
    pub attributes: identity::attributes::Attributes,
    /// What happens to a request that names nobody.
    pub without_identity: WithoutIdentity,
    /// Who is served by the new path.
    pub flag: Switch,
    /// What those get for whom it is off; `None` is legacy.
    pub when_off: Option<Reply>,
    /// Whether those for whom `flag` is on are only copied to the new path; `None` leaves it to the flag's own member.
    pub shadow_mode: Option<Switch>,
    /// Who is copied to the other side.
    pub shadow: ShadowSpec,
    /// Whose two answers are compared.
    pub dual_run: Switch,
    /// When legacy answers what the new path failed.
    pub failover: Failover,
    /// How two answers are compared.
    pub compare: compare::Rules,
    /// What the operator tolerates.
    pub budgets: Vec<guard::Budget>,
    /// Statuses that are no failure, from `ok:`.
    pub ok_statuses: Vec<u16>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_pattern_reads_classes_and_codes_and_nothing_else() {
        assert_eq!(StatusPattern::parse("5xx"), Some(StatusPattern::Class(5)));
        assert_eq!(StatusPattern::parse("404"), Some(StatusPattern::Code(404)));
        for bad in ["", "xx", "6xx", "0xx", "55xx", "99", "600", "+40", "4x4", "1000"] {
            assert_eq!(StatusPattern::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn status_pattern_matches_its_class_or_code_alone() {
        assert!(StatusPattern::Class(5).matches(503));
        assert!(!StatusPattern::Class(5).matches(404));
        assert!(StatusPattern::Code(404).matches(404));
        assert!(!StatusPattern::Code(404).matches(405));
    }
}
