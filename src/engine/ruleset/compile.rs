//! From layers and routes to one ruleset, or to every problem that stands in the way.
//!
//! Pure. In: what the file, the environment's variables and the configuration say. Out: a [`Ruleset`] with its warnings, or
//! all problems and warnings. Publishing is left to whoever asked: what does not compile leaves the old rules in force.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::check::{self, Report};
use super::decode::Layered;
use super::document::{Document, KILL_SWITCH, flag_path};
use super::edit::RuntimeLayers;
use super::env::{self, Named};
use super::freeze::{self, Freezes};
use super::layer::{self, Entry, Layer, Setting, is_set};
use super::matching::Matching;
use super::problem::{Place, Problem, Problems, near, quote};
use super::resolve::{self, Asks, Segments};
use super::route::{Copies, RouteSpec, Switch};
use super::spot::Spot;
use super::{Route, RouteIndex, Ruleset};
use crate::engine::decide::{Ask, Policy};
use crate::engine::flags::model::{About, FlagType, Percent};
use crate::engine::flags::schedule::{Mark, Period, Ramp};
use crate::engine::flags::{Flag, Flags, Threshold};
use crate::engine::vocab::{FlagKey, Revision};

/// The highest share that a gradual flag reached, and the schedule it came from: what is stored over restarts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredMark {
    /// The flag.
    pub flag: FlagKey,
    /// Its schedule; under another one the mark means nothing.
    pub ramp: Ramp,
    /// The share.
    pub reached: Threshold,
}

impl StoredMark {
    /// The mark of a gradual flag, raised to this instant; of other flags none.
    pub(super) fn of(flag: &Flag, unix_ms: i64) -> Option<Self> {
        let Some(Percent::Gradual(ramp, mark)) = &flag.percent else {
            return None;
        };
        let reached = mark.raise(ramp.threshold_at(unix_ms));
        Some(Self {
            flag: flag.key.clone(),
            ramp: ramp.schedule(),
            reached,
        })
    }
}

/// Everything that a ruleset is made of.
#[derive(Debug)]
pub struct Input<'a> {
    /// The number that the ruleset gets.
    pub revision: Revision,
    /// The environment of this process.
    pub environment: &'a str,
    /// The flag file; `None` without one.
    pub document: Option<Document>,
    /// What was said at run time, over everything else.
    pub runtime: RuntimeLayers,
    /// The variables of the environment.
    pub variables: &'a BTreeMap<String, String>,
    /// The routes, in the order of the configuration.
    pub routes: Vec<RouteSpec>,
    /// What each backend takes, by [`Side::index`](crate::engine::vocab::Side::index).
    pub copies: [Copies; 2],
    /// The wall clock, in milliseconds since 1970: for warnings about what is over.
    pub now_ms: i64,
    /// The ruleset in force: a gradual flag whose schedule is unchanged goes on from where it is.
    pub previous: Option<&'a Ruleset>,
    /// What gradual flags had reached before the process started.
    pub marks: &'a [StoredMark],
    /// What the readers of all this have found so far; it decides with what is found here.
    pub problems: Problems,
}

/// Makes a ruleset.
///
/// # Errors
/// Every problem, then every warning, sorted by place. The ruleset comes with its warnings alone.
pub fn compile(input: Input<'_>) -> Result<(Ruleset, Vec<Problem>), Vec<Problem>> {
    let mut problems = input.problems;
    // Without the flag file every flag would be unknown, which is no finding of its own.
    let unread = input.document.is_none() && problems.refuse();
    let document = input
        .document
        .map(|document| document.into_layer(&mut problems))
        .unwrap_or_default();
    let written = input.runtime.layer().over(document);
    let environment = env::read(input.variables, named(&written, &input.routes), &mut problems);
    let merged = written.over(environment.layer);

    let segments = Segments::compile(merged.segments.clone(), input.now_ms, &mut problems);
    let mut asks = Vec::new();
    let mut known = Known {
        segments: &segments,
        asks: &mut asks,
        freezes: &input.runtime.freezes,
        routes: &input.routes,
        environment: input.environment,
        now_ms: input.now_ms,
        previous: input.previous,
        marks: input.marks,
    };
    let mut flags: Vec<Flag> = merged
        .flags
        .iter()
        .map(|(key, entry)| known.flag(key.clone(), entry.clone(), &mut problems))
        .collect();
    let mut unsaid = Problems::default();
    let told = if unread { &mut unsaid } else { &mut problems };
    // Both came out of a sorted map.
    let variants_of = |key: &FlagKey| {
        let at = flags.binary_search_by(|flag| flag.key.cmp(key)).ok()?;
        Some((flags[at].flag_type, flags[at].variants.as_deref()))
    };
    resolve::check_prerequisites(&asks, variants_of, told);
    flags.extend(unknown_flags(&input.routes, &flags, told));
    let flags = Flags::new(flags, environment.system_enabled, input.revision).with_segments(segments.compiled);

    check::routes(&input.routes, input.copies, &mut problems);
    let routes: Box<[Route]> = input
        .routes
        .into_iter()
        .map(|spec| route(spec, &flags, input.copies))
        .collect();
    let matching = Matching::new(
        routes
            .iter()
            .enumerate()
            .map(|(at, route)| (RouteIndex(at as u32), &route.spec.matcher)),
    );
    let warnings = problems.verdict()?;
    let environment = input.environment.into();
    Ok((
        Ruleset {
            revision: input.revision,
            environment,
            runtime: input.runtime,
            merged,
            flags,
            routes,
            matching,
        },
        warnings,
    ))
}

/// The flags that a layer or a route names, each once, with the first place that does.
fn named(written: &Layer, routes: &[RouteSpec]) -> Vec<Named> {
    let mut named: BTreeMap<&FlagKey, Named> = BTreeMap::new();
    for (key, entry) in &written.flags {
        let env = match &entry.members.env {
            Layered::Set(names) => names.value.clone(),
            Layered::Inherit | Layered::Unset => Vec::new(),
        };
        named.insert(
            key,
            Named {
                key: key.clone(),
                place: entry.place.clone(),
                env,
            },
        );
    }
    for (key, place) in routes.iter().flat_map(switches) {
        named.entry(key).or_insert_with(|| Named {
            key: key.clone(),
            place: place.clone(),
            env: Vec::new(),
        });
    }
    named.into_values().collect()
}

/// The flags that a route names, with the places where it does.
fn switches(route: &RouteSpec) -> impl Iterator<Item = (&FlagKey, &Place)> {
    let switches = [
        Some(&route.flag),
        route.shadow_mode.as_ref(),
        Some(&route.shadow.switch),
        Some(&route.dual_run),
    ];
    switches.into_iter().flatten().filter_map(Switch::flag)
}

/// The flags that routes name and no source sets.
fn unknown_flags(routes: &[RouteSpec], defined: &[Flag], problems: &mut Problems) -> Vec<Flag> {
    let mut unknown = BTreeMap::new();
    let safe_side = |route: &RouteSpec, named| route.shadow_mode.as_ref().and_then(Switch::flag) == Some(named);
    for (route, (key, place)) in routes
        .iter()
        .flat_map(|route| switches(route).map(move |named| (route, named)))
    {
        // `defined` came out of a sorted map.
        if defined.binary_search_by(|flag| flag.key.cmp(key)).is_err() {
            let answer = if safe_side(route, (key, place)) {
                "shadow mode counts as on"
            } else {
                "it is off"
            };
            let what = format!("no source sets the flag {}, so {answer}", quote(key.as_str()));
            let nearest = near(key.as_str(), defined.iter().map(|flag| flag.key.as_str()));
            let remedy = match nearest {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("define it in the flag file, or set {}", env::folded(key)),
            };
            problems.warning(place.clone(), "", what, remedy);
            unknown.entry(key.clone()).or_insert_with(|| Flag::unknown(key.clone()));
        }
    }
    unknown.into_values().collect()
}

fn route(spec: RouteSpec, flags: &Flags, copies: [Copies; 2]) -> Route {
    let ask = |switch: &Switch| match switch {
        Switch::Constant(value) => Ask::Constant(*value),
        // Every flag that a route names was added; without it, off is the safe side.
        Switch::Flag(key, _) => flags.find(key.as_str()).map_or(Ask::Constant(false), Ask::Flag),
    };
    let switches = [
        Some(&spec.flag),
        spec.shadow_mode.as_ref(),
        Some(&spec.shadow.switch),
        Some(&spec.dual_run),
    ];
    let asks_attributes = switches.into_iter().flatten().any(|switch| match ask(switch) {
        Ask::Constant(_) => false,
        Ask::Flag(at) => flags.asks_attributes(at),
    });
    let policy = Policy {
        flag: ask(&spec.flag),
        replies_when_off: spec.when_off.is_some(),
        asks_attributes: asks_attributes && !spec.attributes.is_empty(),
        shadow: ask(&spec.shadow.switch),
        dual_run: ask(&spec.dual_run),
        shadow_mode: spec.shadow_mode.as_ref().map(ask),
        without_identity: spec.without_identity,
        when_killed: spec.shadow.when_killed,
        methods: spec.shadow.methods.iter().map(|(method, _)| method.clone()).collect(),
        sample: spec.shadow.threshold,
        sample_name: format!("shadow/{}", spec.key).into(),
        copies,
    };
    Route { policy, spec }
}

/// What the compiling of every flag needs.
struct Known<'a> {
    segments: &'a Segments,
    /// What each flag asks of others, collected on the way.
    asks: &'a mut Vec<Asks>,
    freezes: &'a Freezes,
    routes: &'a [RouteSpec],
    environment: &'a str,
    now_ms: i64,
    previous: Option<&'a Ruleset>,
    marks: &'a [StoredMark],
}

impl Known<'_> {
    fn flag(&mut self, key: FlagKey, entry: Entry, problems: &mut Problems) -> Flag {
        let Entry { place, members } = entry;
        let mut report = Report {
            key: &key,
            place: &place,
            problems,
        };
        let origins = members.origins();
        let flag_type = layer::settled(members.flag_type.clone()).map(|of| of.value);
        report.lines(&members, flag_type);
        report.dates(&members, flag_type, self.now_ms);
        let variants = report.variants(&members, flag_type);
        let default = report.default(&members, flag_type, variants.as_deref());
        let percent = match flag_type {
            Some(FlagType::Gradual) => report.ramp(&members).map(|ramp| {
                let mark = self.mark(&key, ramp);
                let still_ms = freeze::since(self.freezes, &key, self.routes);
                Percent::Gradual(Ramp { still_ms, ..ramp }, mark)
            }),
            Some(FlagType::Boolean | FlagType::Percentage | FlagType::Targeted | FlagType::Variant) | None => {
                if flag_type == Some(FlagType::Percentage) && !is_set(&members.percentage) {
                    report.missing("percentage", "a flag of type `percentage` needs one");
                }
                value(members.percentage).map(Percent::Fixed)
            }
        };
        let prerequisites = value(members.prerequisites).unwrap_or_default();
        let (rules, cost) = resolve::rules(
            &key,
            value(members.rules).unwrap_or_default(),
            flag_type,
            variants.as_deref(),
            self.segments,
            self.now_ms,
            problems,
        );
        let compiled_prerequisites = resolve::prerequisites(&prerequisites);
        self.asks.push(Asks {
            key: key.clone(),
            prerequisites,
            cost,
            spot: Spot {
                path: flag_path(&key).into(),
                place,
            },
        });
        let dates = match flag_type {
            Some(FlagType::Gradual) => Period::default(),
            _ => Period {
                start_ms: value(members.start_date),
                end_ms: value(members.end_date),
            },
        };
        let environments = value(members.environments);
        let metadata = value(members.metadata).unwrap_or_default();
        Flag {
            defined: true,
            flag_type: flag_type.unwrap_or_default(),
            kill_switch: metadata.get(KILL_SWITCH).is_some_and(|text| text == "true"),
            enabled: value(members.enabled),
            listed_here: environments
                .as_ref()
                .is_none_or(|list| list.iter().any(|name| name == self.environment)),
            period: dates,
            prerequisites: compiled_prerequisites,
            denylist: value(members.denylist),
            allowlist: value(members.allowlist),
            beta_users: value(members.beta_users),
            rules,
            percent,
            cohort: value(members.cohort),
            variants,
            default,
            shadow_mode: value(members.shadow_mode),
            about: Box::new(About {
                kind: value(members.kind),
                description: value(members.description),
                owner: value(members.owner),
                purpose: value(members.purpose),
                rollback: value(members.rollback),
                expected_end: value(members.expected_end),
                metadata,
                env: value(members.env).unwrap_or_default(),
                environments,
            }),
            origins,
            key,
        }
    }

    /// The mark of a gradual flag: the one in force, if its schedule is the same, else what was stored, else a new one.
    fn mark(&self, key: &FlagKey, ramp: Ramp) -> Arc<Mark> {
        if let Some(Flag {
            percent: Some(Percent::Gradual(before, mark)),
            ..
        }) = self.previous.and_then(|p| p.flag(key))
            && before.schedule() == ramp
        {
            return Arc::clone(mark);
        }
        let stored = self
            .marks
            .iter()
            .filter(|stored| stored.flag == *key && stored.ramp == ramp);
        Arc::new(Mark::new(stored.map(|stored| stored.reached).max().unwrap_or_default()))
    }
}

fn value<T>(setting: Setting<T>) -> Option<T> {
    layer::settled(setting).map(|sourced| sourced.value)
}
