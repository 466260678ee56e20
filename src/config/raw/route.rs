//! One entry of `routes:` as written, and the checks that need nothing but the route itself.
//!
//! Pure.

use std::time::Duration;

use http::{HeaderName, HeaderValue};

use crate::engine::compare::{Headers, Pattern, Rules, Severity};
use crate::engine::ruleset::decode::{At, ByteSize, Decode, Decoder, Map, Shape, record, words};
use crate::engine::ruleset::route::{self, StatusPattern};
use crate::engine::ruleset::yaml::{Node, Value};
use crate::engine::vocab::{FlagKey, RouteKey};

use super::budget::Budget;
use super::identity::{Attribute, AttributeName, Identity};
use super::reply::WhenOff;
use super::scalar::{Count, MethodName, PathPrefix, Percent, Share, Status, Timeout};

record! {
    /// Which requests are decided how.
    pub struct Route {
        /// Named in kills, metrics and logs; unique.
        name: At<RouteKey>,
        /// Which requests are meant. Of several routes the most specific takes a request.
        r#match: Match,
        /// Whom a request is for: sources in order, the first that yields anything counts.
        identity: At<Identity> = "[]",
        /// Whose shop a request is for: sources as in `identity`.
        tenant: At<Identity> = "[]",
        /// Who serves a request that names nobody.
        without_identity: At<WithoutIdentity> = "legacy",
        /// What targeting rules may ask of a request, by name: a source as in `identity`, or a list of them, of which the
        /// first that finds anything counts. Looked for only if a flag of this route asks.
        attributes: Map<AttributeName, Attribute> = "{}",
        /// Who is served by the new path: a flag, or a constant.
        flag: At<Switch> = "false",
        /// What those get for whom `flag` is off: `legacy`, or an answer of our own. Legacy serves all the same whenever
        /// there is doubt: after a kill, for an unknown flag or shopper, in shadow mode.
        when_off: WhenOff = "legacy",
        /// While it is on, those for whom `flag` is on are served by legacy and copied to the new path, and nobody else
        /// is copied.
        shadow_mode: Option<Switch>,
        /// Who is copied to the side that does not serve: `true`, `false`, a flag, or the members below. The limits
        /// below hold for all copies of the route, whichever switch asks for them.
        shadow: Shadow = "false",
        /// Whose two answers are compared: a flag, or a constant. Outside shadow mode it copies as well: whoever it is
        /// on for goes to both sides, whatever `shadow` says; in shadow mode it copies nobody.
        dual_run: Switch = "false",
        /// What a body with several shoppers does that do not all belong to the same side.
        mixed: Mixed = "legacy",
        /// When legacy answers what the new path failed.
        failover: Failover = "{}",
        /// How two answers are compared.
        compare: Compare = "{}",
        /// What is tolerated of the new path before something happens.
        budgets: Vec<Budget> = "[]",
        /// Statuses that are no failure, such as 404 where looking up what is not there is daily business.
        ok: Vec<Status> = "[]",
    }
    later: "block", "idempotency", "twin";
}

record! {
    /// Which requests are meant: all members must hold.
    pub struct Match {
        /// A prefix of the path that ends at a `/` or at its end. `/` is every path.
        path: PathPrefix = "/",
        /// Any of these; all methods if empty.
        methods: Vec<MethodName> = "[]",
        /// Headers with exactly these values.
        headers: Map<HeaderName, HeaderValue> = "{}",
    }
}

words! {
    /// Who serves a request that names nobody.
    pub enum WithoutIdentity {
        /// Legacy.
        Legacy = "legacy",
        /// The new path as soon as `flag` is on for everybody.
        Follow = "follow",
        /// Whoever serves the tenant, whose key then is the subject.
        Tenant = "tenant",
    }
}

words! {
    /// What a mixed body does.
    pub enum Mixed {
        /// All of it goes to legacy, unless everybody in it belongs to the new path.
        Legacy = "legacy",
    }
    later: "split";
}

/// A constant, or a flag by name.
#[derive(Clone, Debug)]
pub struct Switch(pub route::Switch);

impl Decode for Switch {
    fn decode(node: &Node<'_>, decoder: &mut Decoder<'_>) -> Option<Self> {
        match &node.value {
            Value::Plain(text) if text == "true" => Some(Self(route::Switch::Constant(true))),
            Value::Plain(text) if text == "false" => Some(Self(route::Switch::Constant(false))),
            _ if node.text().is_none() => {
                decoder.expected(node, "a flag's key, true or false", "write the key of a flag")
            }
            _ => {
                let place = decoder.place(node.mark);
                FlagKey::decode(node, decoder).map(|key| Self(route::Switch::Flag(key, place)))
            }
        }
    }

    fn shape() -> Shape {
        Shape::Union(vec![bool::shape(), FlagKey::shape()])
    }
}

record! {
    /// Who is copied to the other side, and what copies may cost.
    pub struct ShadowText {
        /// Who is copied: a flag, or a constant.
        flag: Option<Switch>,
        /// The methods that are copied. What is not safe goes only to a side whose `copies` says that it takes it.
        methods: Vec<At<MethodName>> = "[GET, HEAD, OPTIONS]",
        /// The share of subjects that are copied.
        percent: Percent = "100",
        /// Copies of this route under way at once; one more is skipped.
        max_in_flight: Count = "64",
        /// What this route's copies and their answers may take together, heads and bodies, at least 16 KiB for each: a copy that
        /// exceeds it is skipped, an answer that does is cut off and not compared.
        max_bytes: ByteSize = "16MiB",
        /// The longest wait for the answer to a copy.
        timeout: At<Timeout> = "10s",
        /// Whether copies go on while the route is killed.
        when_killed: WhenKilled = "continue",
    }
}

words! {
    /// Whether copies go on while the route is killed.
    pub enum WhenKilled {
        /// They go on, so that one sees the new path recover.
        Continue = "continue",
        /// They stop, each counted.
        Stop = "stop",
    }
}

/// `shadow:` in either spelling.
#[derive(Clone, Debug)]
pub struct Shadow {
    /// Its members, those left out with their defaults.
    pub text: ShadowText,
    /// Whether the map was written without `flag`.
    pub silent: bool,
}

impl Decode for Shadow {
    fn decode(node: &Node<'_>, decoder: &mut Decoder<'_>) -> Option<Self> {
        if let Value::Mapping(_) = node.value {
            let text = ShadowText::decode(node, decoder)?;
            return Some(Self {
                silent: text.flag.is_none(),
                text,
            });
        }
        let flag = Switch::decode(node, decoder)?;
        let all_defaults = Node {
            mark: node.mark,
            value: Value::Mapping(Vec::new()),
        };
        let text = ShadowText {
            flag: Some(flag),
            ..ShadowText::decode(&all_defaults, decoder)?
        };
        Some(Self { text, silent: false })
    }

    fn shape() -> Shape {
        Shape::Union(vec![Switch::shape(), ShadowText::shape()])
    }
}

record! {
    /// When legacy answers what the new path failed, within the same request.
    pub struct Failover {
        /// Nothing of the request was written to the new path: every method.
        never_reached: bool = "true",
        /// It was written, and no answer came.
        unknown: SafeMethods = "safe_methods",
        /// It was answered with one of `statuses`.
        answered: SafeMethods = "safe_methods",
        /// The answers that count as a failure of the new path.
        statuses: Vec<StatusPattern> = "[5xx]",
        /// How long the sender waits; both tries have to fit in. At least 200ms.
        deadline: Deadline = "10s",
    }
}

/// `safe_methods` or `false`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SafeMethods(pub bool);

impl Decode for SafeMethods {
    fn decode(node: &Node<'_>, decoder: &mut Decoder<'_>) -> Option<Self> {
        match &node.value {
            Value::Plain(text) if text == "safe_methods" => Some(Self(true)),
            Value::Plain(text) if text == "false" => Some(Self(false)),
            Value::Plain(text) if text == "true" => decoder.refuse(
                node.mark,
                "failover of every method is not in this version",
                "write `safe_methods`: GET, HEAD and OPTIONS",
            ),
            _ => decoder.expected_word(node, &["safe_methods", "false"]),
        }
    }

    fn shape() -> Shape {
        Shape::words([
            ("safe_methods", "For GET, HEAD and OPTIONS, which may be done twice."),
            ("false", "Never."),
        ])
    }
}

/// A failover's deadline: at least 200 ms, for both tries have to fit in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadline(pub Duration);

impl Decode for Deadline {
    fn decode(node: &Node<'_>, decoder: &mut Decoder<'_>) -> Option<Self> {
        let deadline = Duration::decode(node, decoder)?;
        if deadline < Duration::from_millis(200) {
            let remedy = "write 200ms or more: both tries have to fit in";
            return decoder.refuse(
                node.mark,
                "a deadline under 200ms leaves no time for a second try",
                remedy,
            );
        }
        Some(Self(deadline))
    }

    fn shape() -> Shape {
        Duration::shape()
    }
}

record! {
    /// How two answers are compared.
    pub struct Compare {
        /// Places where differences are noise: `/timestamp`, `/items/*/id`, `/**/request_id`, `@status`, `@header.NAME`.
        ignore: Vec<Pattern> = "[]",
        /// Headers that are compared.
        headers: Vec<HeaderName> = "[]",
        /// How grave a difference at a place is, if not as usual.
        severity: Map<Pattern, Severity> = "{}",
        /// Numbers of which one is not whole are equal if they differ by less than this share of the larger.
        float_tolerance: Share = "0",
    }
    later: "arrays";
}

impl Compare {
    /// The rules of the comparison.
    #[must_use]
    pub fn rules(self) -> Rules {
        let severity = self
            .severity
            .0
            .into_iter()
            .map(|(pattern, severity)| (pattern.value, severity))
            .collect();
        Rules::new(self.ignore, Headers::Chosen(self.headers), severity).float_tolerance(self.float_tolerance.0)
    }
}
