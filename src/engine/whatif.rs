//! Who would move if the rules were others: real requests of the last while, decided once by the rules in force and once by
//! the others.
//!
//! Pure. In: what was kept of the requests, both rules with the kills in force, one instant for both. Out: counts, and the
//! subjects that would move, which the caller must not show as they are. Both times it is the walk that requests take, so
//! what is said of a request holds for that request, asked at that instant.

use std::collections::{BTreeMap, BTreeSet};

use http::Method;

use crate::engine::decide::{CopyTo, Decision, KillBits, Request};
use crate::engine::flags::subjects::SubjectSet;
use crate::engine::flags::{Attributes, Context, FlagKills, NoAttributes};
use crate::engine::ruleset::{RouteIndex, Ruleset};
use crate::engine::vocab::{ExchangeId, FlagKey, Now, RouteKey, Side};

/// What is kept of a request: all that a decision asks of it.
#[derive(Clone, Debug)]
pub struct Recent {
    /// The route that took it.
    pub route: RouteKey,
    /// Its method.
    pub method: Method,
    /// Whom it was for.
    pub subjects: Box<[Box<str>]>,
    /// Whose shop it was for.
    pub tenant: Option<Box<str>>,
    /// What else it said; `None` where no flag asked, so that nobody looked.
    pub attributes: Option<Context>,
    /// Its exchange.
    pub exchange: ExchangeId,
}

/// Rules, and the kills under which they decide.
pub struct World<'a> {
    /// The rules.
    pub rules: &'a Ruleset,
    /// What is killed of each route, in the order of the rules.
    pub kills: Vec<KillBits>,
    /// What is killed of the flags.
    pub flag_kills: &'a FlagKills,
    /// Whether a subject is held on a route.
    pub is_held: &'a dyn Fn(RouteIndex, &str) -> bool,
}

impl World<'_> {
    /// What these rules do with a request; `None` where they have no such route, or ask for attributes that nobody looked for.
    #[must_use]
    pub fn decide(&self, request: &Recent, now: Now) -> Option<Decision> {
        let at = self.rules.find_route(&request.route)?;
        let route = self.rules.route(at);
        let attributes: &dyn Attributes = match &request.attributes {
            Some(known) => known,
            None if route.policy.asks_attributes => return None,
            None => &NoAttributes,
        };
        let subjects = request.subjects.iter().map(|subject| &**subject);
        let asked = Request {
            method: &request.method,
            held: subjects.clone().any(|subject| (self.is_held)(at, subject)),
            subjects,
            tenant: request.tenant.as_deref(),
            exchange: request.exchange,
            attributes,
            kills: self.kills.get(at.index()).copied().unwrap_or_default(),
            flag_kills: self.flag_kills,
            now,
        };
        Some(self.rules.decide(route, &asked))
    }
}

/// What would become of the requests of one route.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Moves {
    /// Requests that were asked about.
    pub requests: usize,
    /// Requests of which nobody can tell: the other rules ask for attributes that nobody looked for.
    pub unknown: usize,
    /// Different subjects in them.
    pub subjects: usize,
    /// Requests that new serves, before and after.
    pub new: [usize; 2],
    /// What new has to do, before and after: requests that it serves, and copies to it.
    pub load: [usize; 2],
    /// Subjects with a request that would go to new, and goes to legacy now.
    pub to_new: BTreeSet<Box<str>>,
    /// Subjects with a request that would go to legacy, and goes to new now.
    pub to_legacy: BTreeSet<Box<str>>,
    /// Requests by the reasons before and after, of those that move.
    pub reasons: BTreeMap<(&'static str, &'static str), usize>,
}

/// What would become of them all, by route.
#[must_use]
pub fn predict<'r>(
    before: &World<'_>,
    after: &World<'_>,
    requests: impl IntoIterator<Item = &'r Recent>,
    now: Now,
) -> BTreeMap<RouteKey, Moves> {
    let mut routes: BTreeMap<RouteKey, (Moves, BTreeSet<&str>)> = BTreeMap::new();
    for request in requests {
        let (moves, subjects) = routes.entry(request.route.clone()).or_default();
        let (Some(was), Some(is)) = (before.decide(request, now), after.decide(request, now)) else {
            moves.unknown += 1;
            continue;
        };
        moves.requests += 1;
        subjects.extend(request.subjects.iter().map(|subject| &**subject));
        for (at, decision) in [was, is].iter().enumerate() {
            if is_by_new(decision) {
                moves.new[at] += 1;
            }
            if is_by_new(decision) || decision.copy == CopyTo::To(Side::New) {
                moves.load[at] += 1;
            }
        }
        let moved = match (is_by_new(&was), is_by_new(&is)) {
            (false, true) => &mut moves.to_new,
            (true, false) => &mut moves.to_legacy,
            _ => continue,
        };
        moved.extend(request.subjects.iter().cloned());
        *moves
            .reasons
            .entry((was.reason.as_str(), is.reason.as_str()))
            .or_default() += 1;
    }
    let counted = routes.into_iter().map(|(route, (moves, subjects))| {
        let subjects = subjects.len();
        (route, Moves { subjects, ..moves })
    });
    counted.collect()
}

fn is_by_new(decision: &Decision) -> bool {
    decision.served == Side::New && !decision.replied
}

/// What a change of a flag means that one may not have meant: sentences for the operator.
#[must_use]
pub fn traps(flag: &FlagKey, before: &Ruleset, after: &Ruleset) -> Vec<&'static str> {
    let list = |rules: &Ruleset| -> Option<Option<usize>> {
        let flag = rules.flag(flag)?;
        Some(flag.allowlist.as_ref().map(SubjectSet::len))
    };
    let (was, is) = (list(before), list(after));
    let mut told = Vec::new();
    match (was, is) {
        (_, Some(Some(0))) if was != is => {
            told.push("an allowlist that is set and empty is a full stop: nobody is on, whatever else is said");
        }
        (Some(Some(_)), Some(None)) => {
            told.push("without its allowlist the flag is no longer for those alone whom it listed: rules, percentage or `enabled` decide for everybody");
        }
        (Some(None) | None, Some(Some(_))) => {
            told.push("an allowlist decides alone: whoever is not on it is off, whatever percentage is set");
        }
        _ => {}
    }
    told
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::engine::decide::Copies;
    use crate::engine::ruleset::document::Document;
    use crate::engine::ruleset::problem::{Place, Problems};
    use crate::engine::ruleset::route::{Failover, RouteMatch, RouteSpec, ShadowSpec, Switch, WithoutIdentity};
    use crate::engine::ruleset::{Input, compile};
    use crate::engine::vocab::Revision;
    use crate::engine::{compare, identity};

    const NOW: Now = Now {
        monotonic: std::time::Duration::ZERO,
        unix_ms: 1_800_000_000_000,
    };

    fn key() -> FlagKey {
        FlagKey::parse("f").unwrap()
    }

    fn shop() -> RouteKey {
        RouteKey::parse("shop").unwrap()
    }

    fn rules(flag: &str) -> Ruleset {
        let place = Place {
            file: "understudy.yaml".into(),
            line: 1,
            column: 1,
        };
        let route = RouteSpec {
            key: shop(),
            place: place.clone(),
            matcher: RouteMatch {
                path: "/".into(),
                methods: Vec::new(),
                headers: Vec::new(),
            },
            identity: identity::Plan::default(),
            tenant: identity::Plan::default(),
            attributes: identity::attributes::Attributes::default(),
            without_identity: WithoutIdentity::Legacy,
            flag: Switch::Flag(key(), place.clone()),
            when_off: None,
            shadow_mode: None,
            shadow: ShadowSpec::new(Switch::Constant(true), &place),
            dual_run: Switch::Constant(false),
            failover: Failover::default(),
            compare: compare::Rules::default(),
            budgets: Vec::new(),
            ok_statuses: Vec::new(),
        };
        let mut problems = Problems::default();
        let file = format!("features:\n  f: {flag}\n");
        let document = Document::parse(&"features.yaml".into(), &file, &mut problems);
        let input = Input {
            revision: Revision(1),
            environment: "production",
            document,
            runtime: Default::default(),
            variables: &BTreeMap::new(),
            routes: vec![route],
            copies: [Copies::DryRun; 2],
            now_ms: NOW.unix_ms,
            previous: None,
            marks: &[],
            problems,
        };
        compile(input).unwrap().0
    }

    fn requests(subjects: &[Vec<u8>]) -> Vec<Recent> {
        let request = |(at, subjects): (usize, &Vec<u8>)| Recent {
            route: shop(),
            method: if at.is_multiple_of(2) {
                Method::GET
            } else {
                Method::POST
            },
            subjects: subjects
                .iter()
                .map(|subject| format!("user_{subject}").into())
                .collect(),
            tenant: None,
            attributes: None,
            exchange: ExchangeId(at as u128),
        };
        subjects.iter().enumerate().map(request).collect()
    }

    fn world<'a>(rules: &'a Ruleset, kills: KillBits, is_held: &'a dyn Fn(RouteIndex, &str) -> bool) -> World<'a> {
        World {
            rules,
            kills: vec![kills],
            flag_kills: FlagKills::NONE,
            is_held,
        }
    }

    fn flag() -> impl Strategy<Value = String> {
        let list = prop_oneof![
            3 => Just(String::new()),
            1 => Just(", allowlist: []".to_owned()),
            1 => Just(", allowlist: [user_1, user_2]".to_owned()),
            1 => Just(", denylist: [user_3, user_4]".to_owned()),
        ];
        (
            0_u8..=100,
            list,
            prop_oneof![Just(""), Just(", enabled: false"), Just(", shadow_mode: true")],
        )
            .prop_map(|(percent, list, more)| format!("{{ type: percentage, percentage: {percent}{list}{more} }}"))
    }

    proptest! {
        #[test]
        fn prediction_is_what_the_applied_rules_then_do(
            before in flag(),
            after in flag(),
            subjects in proptest::collection::vec(proptest::collection::vec(0_u8..40, 0..3), 0..60),
            killed in proptest::bool::weighted(0.1),
        ) {
            let (before, after) = (rules(&before), rules(&after));
            let requests = requests(&subjects);
            let kills = if killed { KillBits::ROUTE } else { KillBits::NONE };
            let is_held = |_: RouteIndex, subject: &str| subject == "user_7";
            let (was, is) = (world(&before, kills, &is_held), world(&after, kills, &is_held));
            let predicted = predict(&was, &is, &requests, NOW).remove(&shop()).unwrap_or_default();

            // The same requests through the decision that the data plane takes, first by the one and then by the other rules.
            let served = |rules: &Ruleset| -> Vec<Decision> {
                let route = rules.route(rules.find_route(&shop()).unwrap());
                let decided = requests.iter().map(|request| {
                    let subjects = request.subjects.iter().map(|subject| &**subject);
                    rules.decide(route, &Request {
                        method: &request.method,
                        held: subjects.clone().any(|subject| subject == "user_7"),
                        subjects,
                        tenant: None,
                        exchange: request.exchange,
                        attributes: &NoAttributes,
                        kills,
                        flag_kills: FlagKills::NONE,
                        now: NOW,
                    })
                });
                decided.collect()
            };
            let (first, then) = (served(&before), served(&after));
            let by_new = |all: &[Decision]| all.iter().filter(|decision| decision.served == Side::New).count();
            prop_assert_eq!(predicted.new, [by_new(&first), by_new(&then)]);
            let load = |all: &[Decision]| {
                let loads = all.iter().filter(|d| d.served == Side::New || d.copy == CopyTo::To(Side::New));
                loads.count()
            };
            prop_assert_eq!(predicted.load, [load(&first), load(&then)]);
            let moved = |from: Side| -> BTreeSet<Box<str>> {
                let pairs = requests.iter().zip(first.iter().zip(&then));
                let moved = pairs.filter(|(_, (a, b))| a.served == from && b.served != from);
                moved.flat_map(|(request, _)| request.subjects.iter().cloned()).collect()
            };
            prop_assert_eq!(&predicted.to_new, &moved(Side::Legacy));
            prop_assert_eq!(&predicted.to_legacy, &moved(Side::New));
            if killed {
                prop_assert_eq!(predicted.new, [0, 0], "nothing moves under a kill");
            }
        }
    }

    #[test]
    fn c2_emptied_allowlist_is_a_full_stop_and_an_unset_one_may_be_a_launch() {
        let told = |before: &str, after: &str| {
            let (before, after) = (rules(before), rules(after));
            let told = traps(&key(), &before, &after);
            told.first()
                .map(|told| told.split(' ').take(4).collect::<Vec<_>>().join(" "))
        };
        let open = "{ type: boolean, enabled: true }";
        let listed = "{ type: boolean, enabled: true, allowlist: [a] }";
        let empty = "{ type: boolean, enabled: true, allowlist: [] }";
        assert_eq!(told(listed, empty).as_deref(), Some("an allowlist that is"));
        assert_eq!(told(open, empty).as_deref(), Some("an allowlist that is"));
        assert_eq!(told(listed, open).as_deref(), Some("without its allowlist the"));
        assert_eq!(told(empty, open).as_deref(), Some("without its allowlist the"));
        assert_eq!(told(open, listed).as_deref(), Some("an allowlist decides alone:"));
        assert_eq!(told(open, open), None);
        assert_eq!(told(empty, empty), None);
    }
}
