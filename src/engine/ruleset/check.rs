//! What can be wrong with a flag once its layers are merged, and with routes once all of them are known.
//!
//! Pure. Problems refuse the whole change; warnings say what is odd: lists that overlap, lines that no request reaches.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::Method;

use super::decode::Layered;
use super::document::{flag_path, member_path};
use super::env;
use super::layer::{Members, Sourced, is_set};
use super::matching::prefix_of;
use super::problem::{Place, Problems, quote};
use super::resolve;
use super::route::{Copies, RouteMatch, RouteSpec, Switch};
use super::spot::Spotted;
use super::targets::Fallback;
use crate::engine::flags::model::{FlagType, Member};
use crate::engine::flags::origin::Origin;
use crate::engine::flags::schedule::{Ramp, Slope};
use crate::engine::flags::variants::Variants;
use crate::engine::flags::{Threshold, VariantIndex};
use crate::engine::guard;
use crate::engine::vocab::{FlagKey, Side};

/// What is wrong with routes together, and with what they ask of the backends.
pub(super) fn routes(routes: &[RouteSpec], copies: [Copies; 2], problems: &mut Problems) {
    let mut seen: BTreeMap<&str, &Place> = BTreeMap::new();
    for (at, route) in routes.iter().enumerate() {
        if let Some(first) = seen.insert(route.key.as_str(), &route.place) {
            let what = format!(
                "a second route named {}; the first is at {first}",
                quote(route.key.as_str())
            );
            problems.problem(
                route.place.clone(),
                format!("routes[{at}].name"),
                what,
                "rename one of them",
            );
        }
        for (method, place) in &route.shadow.methods {
            let path = format!("routes[{at}].shadow.methods");
            let takes = Side::BOTH.map(|side| copies[side.index()].take(method));
            let remedy = "declare `copies: dry_run` on a backend that honours x-understudy-shadow";
            match takes {
                [true, true] => {}
                [false, false] => {
                    let what = format!("neither backend takes copies of {method}");
                    problems.problem(place.clone(), path, what, format!("{remedy}, or remove the method"));
                }
                [legacy, _] => {
                    let side = if legacy { Side::New } else { Side::Legacy };
                    let what = format!("{side} takes no copies of {method}");
                    problems.warning(place.clone(), path, what, remedy);
                }
            }
        }
    }
    for (at, route) in routes.iter().enumerate() {
        check_evidence(at, route, copies, problems);
    }
    // Sorted instead of each against each: a thousand routes are nothing unusual.
    let mut order: Vec<usize> = (0..routes.len()).collect();
    order.sort_by_cached_key(|at| Conditions::of(&routes[*at].matcher));
    for pair in order.windows(2) {
        let [first, second] = [&routes[pair[0]], &routes[pair[1]]];
        if Conditions::of(&first.matcher) == Conditions::of(&second.matcher) {
            let what = format!(
                "no request reaches this route: route {} takes the same ones",
                quote(first.key.as_str())
            );
            problems.warning(
                second.place.clone(),
                format!("routes[{}]", pair[1]),
                what,
                "remove one of the two",
            );
        }
    }
}

/// A budget that kills needs requests that legacy was asked too; without any, it watches nothing once the route is live.
fn check_evidence(at: usize, route: &RouteSpec, copies: [Copies; 2], problems: &mut Problems) {
    let kills = route.budgets.iter().any(|budget| budget.action == guard::Action::Kill);
    let live = route.flag != Switch::Constant(false) && route.shadow_mode != Some(Switch::Constant(true));
    if !kills || !live || route.failover.never_reached {
        return;
    }
    let shadows = [&route.shadow.switch, &route.dual_run]
        .into_iter()
        .any(|switch| *switch != Switch::Constant(false));
    let asked = |method: &Method| {
        let copied = shadows
            && route.shadow.threshold > Threshold::NONE
            && route.shadow.methods.iter().any(|(copied, _)| copied == method)
            && copies[Side::Legacy.index()].take(method);
        let failed_over = Copies::SafeMethods.take(method) && (route.failover.unknown || route.failover.answered);
        copied || failed_over
    };
    let methods = if route.matcher.methods.is_empty() {
        &[Method::GET, Method::POST][..]
    } else {
        &route.matcher.methods
    };
    let blind: Vec<&str> = methods
        .iter()
        .filter(|method| !asked(method))
        .map(Method::as_str)
        .collect();
    if !blind.is_empty() {
        let methods = blind.join(", ");
        let what = format!("once new serves {methods} here, no budget sees it fail, for legacy is not asked too");
        let remedy = "let legacy take copies of it, or allow failover";
        problems.warning(route.place.clone(), format!("routes[{at}].budgets"), what, remedy);
    }
}

/// A route's conditions in a form in which equal ones are equal.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Conditions<'r> {
    prefix: &'r str,
    methods: Vec<&'r str>,
    headers: Vec<(&'r str, &'r [u8])>,
}

impl<'r> Conditions<'r> {
    fn of(matcher: &'r RouteMatch) -> Self {
        let mut methods: Vec<&str> = matcher.methods.iter().map(Method::as_str).collect();
        let mut headers: Vec<_> = matcher
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_bytes()))
            .collect();
        methods.sort_unstable();
        headers.sort_unstable();
        Self {
            prefix: prefix_of(&matcher.path),
            methods,
            headers,
        }
    }
}

/// The variant of those who do not take part.
const CONTROL: &str = "control";

/// What is wrong with one flag, its layers merged.
pub(super) struct Report<'r> {
    /// Its key.
    pub(super) key: &'r FlagKey,
    /// Where it is said to be.
    pub(super) place: &'r Place,
    /// Where problems go.
    pub(super) problems: &'r mut Problems,
}

impl Report<'_> {
    fn place_of(&self, origin: &Origin) -> Place {
        match origin {
            Origin::Default => self.place.clone(),
            Origin::Environment(variable) => env::place(variable),
            Origin::File { file, line, column } => Place {
                file: Arc::clone(file),
                line: *line,
                column: *column,
            },
            // The strongest layer says where the flag is, so it is this one.
            Origin::Runtime { line, column, .. } => Place {
                file: Arc::clone(&self.place.file),
                line: *line,
                column: *column,
            },
        }
    }

    fn problem<T>(&mut self, of: &Sourced<T>, member: Member, what: &str, remedy: &str) {
        let place = self.place_of(&of.origin);
        self.problems
            .problem(place, member_path(self.key, member.as_str()), what, remedy);
    }

    fn warning<T>(&mut self, of: &Sourced<T>, member: Member, what: &str, remedy: &str) {
        let place = self.place_of(&of.origin);
        self.problems
            .warning(place, member_path(self.key, member.as_str()), what, remedy);
    }

    pub(super) fn missing(&mut self, member: &str, why: &str) {
        let what = format!("`{member}` is missing: {why}");
        self.problems.problem(
            self.place.clone(),
            flag_path(self.key),
            what,
            "add it, or change the type",
        );
    }

    /// The variants of a flag, which only one type has, and needs.
    pub(super) fn variants(&mut self, members: &Members, flag_type: Option<FlagType>) -> Option<Box<Variants>> {
        let Layered::Set(written) = &members.variants else {
            if flag_type == Some(FlagType::Variant) {
                self.missing("variants", "a flag of type `variant` needs them");
            }
            return None;
        };
        match flag_type {
            Some(FlagType::Variant) => {}
            None => return None,
            Some(_) => {
                let what = "only a flag of type `variant` has variants";
                self.problem(written, Member::Variants, what, "change the type, or remove them");
                return None;
            }
        }
        let find = |name: &str| written.value.list.iter().position(|variant| variant.name == name);
        let default = match &members.default {
            Layered::Set(default) => match &default.value.value {
                Fallback::Variant(name) => Some(name.as_str()),
                Fallback::Enabled(_) => None,
            },
            Layered::Inherit | Layered::Unset => None,
        };
        let off = find(CONTROL).or_else(|| default.and_then(find));
        if off.is_none() && default.is_none() && !is_set(&members.default) {
            let what = "nobody says what those get who do not take part";
            let remedy = "name a variant `control`, or set `default` to the name of one";
            self.problem(written, Member::Variants, what, remedy);
        }
        if let (Some(_), Layered::Set(default)) = (find(CONTROL), &members.default) {
            let what = "the default decides about nobody, because there is a variant `control`";
            self.warning(default, Member::Default, what, "remove it, or rename that variant");
        }
        let off = VariantIndex(off.unwrap_or_default() as u32);
        Some(Box::new(resolve::variants(written.value.clone(), off)))
    }

    /// The default: on or off, or of a flag with variants the name of one.
    pub(super) fn default(
        &mut self,
        members: &Members,
        flag_type: Option<FlagType>,
        variants: Option<&Variants>,
    ) -> bool {
        let Layered::Set(default) = &members.default else {
            return false;
        };
        match (&default.value.value, flag_type) {
            (Fallback::Enabled(_), Some(FlagType::Variant)) => {
                let remedy = "write the name of a variant";
                self.problem(
                    default,
                    Member::Default,
                    "a flag of type `variant` is neither on nor off",
                    remedy,
                );
                false
            }
            (Fallback::Enabled(on), _) => *on,
            (Fallback::Variant(name), _) => {
                let name = Spotted {
                    value: name.clone(),
                    spot: default.value.spot.clone(),
                };
                if variants.is_none_or(|variants| variants.find(&name.value).is_none()) {
                    resolve::no_variant(&name, flag_type, variants, self.problems);
                }
                false
            }
        }
    }

    /// What a stronger line of the table hides, and lists that say something odd.
    pub(super) fn lines(&mut self, members: &Members, flag_type: Option<FlagType>) {
        let allowlist = if let Layered::Set(list) = &members.allowlist {
            Some(list)
        } else {
            None
        };
        if let Some(list) = allowlist {
            if list.value.is_empty() {
                let remedy = "list somebody, or remove the list to let the percentage decide";
                self.warning(
                    list,
                    Member::Allowlist,
                    "the allowlist is empty, so the flag is off for everybody",
                    remedy,
                );
            }
            if let Layered::Set(denied) = &members.denylist {
                let (less, more) = if denied.value.len() < list.value.len() {
                    (denied, list)
                } else {
                    (list, denied)
                };
                let both = less.value.iter().filter(|id| more.value.contains(id)).count();
                if both > 0 {
                    let what = format!("{both} of the allowlist are on the denylist too, which wins");
                    self.warning(list, Member::Allowlist, &what, "remove them from one of the lists");
                }
            }
            if let Layered::Set(percentage) = &members.percentage {
                let what = "the percentage decides about nobody, because an allowlist exists";
                let remedy = if flag_type == Some(FlagType::Percentage) {
                    "remove the allowlist, or make the type `boolean` and remove the percentage"
                } else {
                    "remove one of the two"
                };
                self.warning(percentage, Member::Percentage, what, remedy);
            }
        }
        self.targets(members);
        let default_on = |default: &Sourced<Spotted<Fallback>>| default.value.value == Fallback::Enabled(true);
        if let Layered::Set(default) = &members.default
            && default_on(default)
        {
            let enabled = flag_type != Some(FlagType::Targeted)
                && matches!(&members.enabled, Layered::Set(Sourced { value: true, .. }));
            if allowlist.is_some() || is_set(&members.percentage) || enabled {
                let what = "the default decides about nobody, because a line before it always decides";
                self.warning(default, Member::Default, what, "remove it");
            }
        }
    }

    /// Rules and beta users that nobody reaches, and a flag of rules that has none.
    fn targets(&mut self, members: &Members) {
        if is_set(&members.allowlist) {
            let remedy = "remove the allowlist, or these";
            if let Layered::Set(rules) = &members.rules {
                let what = "the rules decide about nobody, because an allowlist exists";
                self.warning(rules, Member::Rules, what, remedy);
            }
            if let Layered::Set(beta) = &members.beta_users {
                let what = "the beta users decide about nobody, because an allowlist exists";
                self.warning(beta, Member::BetaUsers, what, remedy);
            }
        }
        if let (Layered::Set(denied), Layered::Set(beta)) = (&members.denylist, &members.beta_users) {
            let both = beta.value.iter().filter(|id| denied.value.contains(id)).count();
            if both > 0 {
                let what = format!("{both} of the beta users are on the denylist too, which wins");
                self.warning(beta, Member::BetaUsers, &what, "remove them from one of the lists");
            }
        }
        let decides = is_set(&members.allowlist)
            || is_set(&members.beta_users)
            || is_set(&members.percentage)
            || matches!(&members.rules, Layered::Set(rules) if !rules.value.is_empty());
        if let (Layered::Set(flag_type), false) = (&members.flag_type, decides)
            && flag_type.value == FlagType::Targeted
        {
            let what = "it targets nobody: no rules, no beta users, no list and no percentage";
            self.warning(flag_type, Member::Type, what, "add rules, or make the type `boolean`");
        }
    }

    pub(super) fn dates(&mut self, members: &Members, flag_type: Option<FlagType>, now_ms: i64) {
        let gradual = flag_type == Some(FlagType::Gradual);
        if let Layered::Set(end) = &members.end_date {
            if let Layered::Set(start) = &members.start_date
                && end.value <= start.value
            {
                self.problem(
                    end,
                    Member::EndDate,
                    "the end is not after the start",
                    "correct one of the dates",
                );
            } else if !gradual && end.value <= now_ms {
                let what = "the period is over, so the flag is off for everybody";
                self.warning(end, Member::EndDate, what, "remove the flag, or its end date");
            }
        }
        if let Layered::Set(increment) = &members.gradual_increment
            && flag_type.is_some_and(|of| of != FlagType::Gradual)
        {
            let what = "only a flag of type `gradual` rises by itself";
            self.warning(
                increment,
                Member::GradualIncrement,
                what,
                "remove it, or change the type",
            );
        }
    }

    /// The schedule of a gradual flag.
    pub(super) fn ramp(&mut self, members: &Members) -> Option<Ramp> {
        if let Layered::Set(percentage) = &members.percentage {
            let what = "a gradual flag takes its percentage from its dates";
            self.problem(
                percentage,
                Member::Percentage,
                what,
                "unset the percentage, or change the type",
            );
        }
        let start = match &members.start_date {
            Layered::Set(start) => {
                if is_set(&members.allowlist) {
                    let what = "the ramp decides about nobody, because an allowlist exists";
                    self.warning(
                        start,
                        Member::StartDate,
                        what,
                        "remove the allowlist, or change the type",
                    );
                }
                Some(start.value)
            }
            Layered::Inherit | Layered::Unset => {
                self.missing("start_date", "a gradual flag needs one");
                None
            }
        };
        let slope = match (&members.end_date, &members.gradual_increment) {
            (Layered::Set(end), Layered::Inherit | Layered::Unset) => Some(Slope::Until(end.value)),
            (Layered::Inherit | Layered::Unset, Layered::Set(increment)) => Some(Slope::PerDay(increment.value)),
            (Layered::Set(_), Layered::Set(increment)) => {
                let what = "a gradual flag has either `end_date` or `gradual_increment`";
                self.problem(increment, Member::GradualIncrement, what, "remove one of the two");
                None
            }
            (Layered::Inherit | Layered::Unset, Layered::Inherit | Layered::Unset) => {
                self.missing("end_date", "a gradual flag needs it or `gradual_increment`");
                None
            }
        };
        Some(Ramp {
            start_ms: start?,
            slope: slope?,
            still_ms: None,
        })
    }
}
