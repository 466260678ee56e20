//! Routes: their conversion into what the compiler takes, and the checks that need other routes or the backends.
//!
//! Pure. What needs the flags is checked by `engine::ruleset`.

use std::collections::BTreeMap;

use http::Method;

use crate::engine::decide;
use crate::engine::flags::bucket::Threshold;
use crate::engine::guard::{Action, Sight};
use crate::engine::ruleset::decode::{At, ByteSize};
use crate::engine::ruleset::problem::{Place, Problems, quote};
use crate::engine::ruleset::route::{Failover, RouteMatch, RouteSpec, ShadowSpec, Switch};
use crate::engine::vocab::Side;

use super::identity::Maps;
use super::{Backends, raw};

/// Converts and checks all routes.
pub(super) fn build(
    written: At<Vec<raw::Route>>,
    maps: &Maps,
    backends: &Backends,
    problems: &mut Problems,
) -> Vec<RouteSpec> {
    if written.value.is_empty() {
        let what = "no route: every request goes to legacy";
        problems.warning(
            written.place.clone(),
            "routes",
            what,
            "add one, such as `- { name: all, match: { path: / } }`",
        );
    }
    let mut names: BTreeMap<_, Place> = BTreeMap::new();
    let mut specs = Vec::with_capacity(written.value.len());
    for (index, route) in written.value.into_iter().enumerate() {
        let mut check = Check {
            path: format!("routes[{index}]"),
            maps,
            backends,
            problems,
        };
        if let Some(first) = names.get(&route.name.value) {
            let what = format!(
                "{} is the name of the route in line {}",
                quote(route.name.as_str()),
                first.line
            );
            check.problem(
                &route.name.place,
                ".name",
                what,
                "a kill names one route: choose another name",
            );
        } else {
            names.insert(route.name.value.clone(), route.name.place.clone());
        }
        specs.push(check.route(route));
    }
    specs
}

struct Check<'c> {
    path: String,
    maps: &'c Maps,
    backends: &'c Backends,
    problems: &'c mut Problems,
}

const OFF: Switch = Switch::Constant(false);

impl Check<'_> {
    fn problem(&mut self, place: &Place, member: &str, what: impl Into<String>, remedy: impl Into<String>) {
        self.problems
            .problem(place.clone(), format!("{}{member}", self.path), what, remedy);
    }

    fn warning(&mut self, place: &Place, member: &str, what: impl Into<String>, remedy: impl Into<String>) {
        self.problems
            .warning(place.clone(), format!("{}{member}", self.path), what, remedy);
    }

    fn route(&mut self, route: raw::Route) -> RouteSpec {
        self.identity(&route);
        self.shadow(&route);
        self.budgets(&route);
        let identity = self.maps.plan(&route.identity);
        let tenant = self.maps.plan(&route.tenant);
        let attributes = self.maps.attributes(&route.attributes);
        let ok_statuses: Vec<u16> = route.ok.iter().map(|status| status.0).collect();
        let spec = RouteSpec {
            key: route.name.value,
            place: route.name.place,
            matcher: RouteMatch {
                path: route.r#match.path.0,
                methods: route.r#match.methods.into_iter().map(|method| method.0).collect(),
                headers: route
                    .r#match
                    .headers
                    .0
                    .into_iter()
                    .map(|(name, value)| (name.value, value))
                    .collect(),
            },
            identity,
            tenant,
            attributes,
            without_identity: match route.without_identity.value {
                raw::WithoutIdentity::Legacy => decide::WithoutIdentity::Legacy,
                raw::WithoutIdentity::Follow => decide::WithoutIdentity::Follow,
                raw::WithoutIdentity::Tenant => decide::WithoutIdentity::Tenant,
            },
            flag: route.flag.value.0,
            when_off: route.when_off.0,
            shadow_mode: route.shadow_mode.map(|switch| switch.0),
            shadow: shadow_spec(route.shadow.text),
            dual_run: route.dual_run.0,
            failover: Failover {
                never_reached: route.failover.never_reached,
                unknown: route.failover.unknown.0,
                answered: route.failover.answered.0,
                statuses: route.failover.statuses,
                deadline: route.failover.deadline.0,
            },
            compare: route.compare.rules(),
            budgets: Vec::new(),
            ok_statuses,
        };
        self.evidence(&spec, &route.budgets);
        let budgets = route.budgets.into_iter().map(|written| {
            let mut budget = written.budget;
            budget.ok.clone_from(&spec.ok_statuses);
            budget
        });
        RouteSpec {
            budgets: budgets.collect(),
            ..spec
        }
    }

    fn identity(&mut self, route: &raw::Route) {
        let At { value: without, place } = &route.without_identity;
        if *without == raw::WithoutIdentity::Tenant && route.tenant.value.0.is_empty() {
            let remedy = "add `tenant:` with a source, or choose legacy or follow";
            self.problem(
                place,
                ".without_identity",
                "`tenant` without a `tenant` list decides for nobody",
                remedy,
            );
        }
        let legacy = *without == raw::WithoutIdentity::Legacy;
        if legacy && route.identity.value.0.is_empty() && route.flag.value.0 != OFF {
            let what = "no request of this route names anybody, so legacy serves all of them whatever `flag` says";
            self.warning(
                &route.flag.place,
                ".flag",
                what,
                "add `identity:`, or set `without_identity: follow`",
            );
        }
    }

    fn shadow(&mut self, route: &raw::Route) {
        let shadow = &route.shadow.text;
        let by_itself = shadow.flag.as_ref().is_some_and(|switch| switch.0 != OFF);
        let copied = by_itself || route.dual_run.0 != OFF || route.shadow_mode.is_some();
        if !copied {
            if route.shadow.silent {
                let what = "`shadow` without `flag` copies nobody";
                self.warning(
                    &shadow.timeout.place,
                    ".shadow",
                    what,
                    "add `flag: true` or a flag's key to it",
                );
            }
            return;
        }
        let At { value: timeout, place } = &shadow.timeout;
        for side in Side::BOTH {
            let backend = self.backends.of(side).timeout;
            if timeout.0 < backend {
                let what = format!(
                    "copies are given up after {:?}, but {side} may take {backend:?}",
                    timeout.0
                );
                let remedy =
                    format!("raise it to `backends.{side}.timeout`: a slow answer counts as failed on both sides");
                self.warning(place, ".shadow.timeout", what, remedy);
            }
        }
    }

    fn budgets(&mut self, route: &raw::Route) {
        let mut names: BTreeMap<&str, u32> = BTreeMap::new();
        for (index, raw::Budget { budget, place }) in route.budgets.iter().enumerate() {
            if let Some(first) = names.insert(&budget.name, place.line) {
                let what = format!("{} is the name of the budget in line {first}", quote(&budget.name));
                self.problem(place, &format!(".budgets[{index}].name"), what, "choose another name");
            }
            if budget.sight() == Sight::Nothing {
                let what = format!("the budget {} is {}", quote(&budget.name), budget.sight().sentence());
                let remedy = "compare with legacy: `tolerate: { ratio: 1.1 }`";
                self.warning(place, &format!(".budgets[{index}].tolerate"), what, remedy);
            }
        }
    }

    /// Once new serves, only a request that legacy is asked for as well is evidence: by a copy, or by failover.
    fn evidence(&mut self, spec: &RouteSpec, budgets: &[raw::Budget]) {
        if spec.flag == OFF {
            return;
        }
        let all = [
            Method::DELETE,
            Method::GET,
            Method::HEAD,
            Method::OPTIONS,
            Method::PATCH,
            Method::POST,
            Method::PUT,
        ];
        let methods = if spec.matcher.methods.is_empty() {
            &all[..]
        } else {
            &spec.matcher.methods
        };
        let copies = (spec.shadow.switch != OFF || spec.dual_run != OFF) && spec.shadow.threshold != Threshold::NONE;
        let copied = |method: &Method| {
            copies
                && spec.shadow.methods.iter().any(|(copied, _)| copied == method)
                && self.backends.legacy.copies.take(method)
        };
        let failed_over =
            |method: &Method| spec.failover.answered && matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS);
        let blind = |latency: bool| -> Vec<&str> {
            let seen = |method: &&Method| copied(method) || (!latency && failed_over(method));
            methods
                .iter()
                .filter(|method| !seen(method))
                .map(Method::as_str)
                .collect()
        };
        let (errors, latency) = (blind(false), blind(true));
        for (index, raw::Budget { budget, place }) in budgets.iter().enumerate() {
            let is_latency = budget.metric.is_latency();
            let blind = if is_latency { &latency } else { &errors };
            if budget.action != Action::Kill || !budget.tolerate.is_relative() || blind.is_empty() {
                continue;
            }
            let why = match (is_latency, spec.failover.never_reached) {
                (true, _) => "not copied to legacy",
                (false, true) => "neither copied to legacy nor failed over once new was reached",
                (false, false) => "neither copied to legacy nor failed over",
            };
            let (name, list) = (quote(&budget.name), blind.join(", "));
            let what = format!("once new serves {list}, the budget {name} does not see it: {why}");
            let remedy = "let legacy take copies (`shadow`, `backends.legacy.copies`), or watch it yourself";
            self.warning(place, &format!(".budgets[{index}]"), what, remedy);
        }
    }
}

fn shadow_spec(written: raw::ShadowText) -> ShadowSpec {
    let ByteSize(max_bytes) = written.max_bytes;
    ShadowSpec {
        switch: written.flag.map_or(OFF, |switch| switch.0),
        methods: written
            .methods
            .into_iter()
            .map(|At { value, place }| (value.0, place))
            .collect(),
        threshold: written.percent.0,
        max_in_flight: written.max_in_flight.0,
        max_bytes,
        timeout: written.timeout.value.0,
        when_killed: match written.when_killed {
            raw::WhenKilled::Continue => decide::WhenKilled::Continue,
            raw::WhenKilled::Stop => decide::WhenKilled::Stop,
        },
    }
}
