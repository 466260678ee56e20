//! What the variables of the environment say about flags.
//!
//! Pure: the variables come in as a map. Two conventions hold side by side: `FEATURE_FLAG_<NAME>`, and `<NAME>` with
//! `<NAME>_ALLOWLIST`, `<NAME>_DENYLIST` and `<NAME>_PERCENT`; a flag may name more of the second kind. `<NAME>` is the
//! flag's key in upper case with `_` for `-` and `.`. Words are on and off, numbers are percentages. Where two flags would
//! read one variable, or two variables disagree, nothing is guessed: both are named.

use std::collections::btree_map::Entry as Slot;
use std::collections::{BTreeMap, BTreeSet};

use super::decode::Layered;
use super::document::check_subject;
use super::layer::{Entry, Layer, Members, Setting, Sourced};
use super::problem::{Place, Problems, near, quote};
use crate::engine::flags::Threshold;
use crate::engine::flags::bucket::PercentError;
use crate::engine::flags::origin::Origin;
use crate::engine::flags::subjects::SubjectSet;
use crate::engine::vocab::FlagKey;

/// Switches all flags and constants off when it is false.
pub const SYSTEM: &str = "FEATURE_FLAGS_ENABLED";

/// What the names of the first convention begin with.
pub const PREFIX: &str = "FEATURE_FLAG_";

const WORDS: [(&str, bool); 6] = [
    ("true", true),
    ("false", false),
    ("on", true),
    ("off", false),
    ("yes", true),
    ("no", false),
];

/// A flag that the file or a route names.
#[derive(Clone, Debug)]
pub struct Named {
    /// Its key.
    pub key: FlagKey,
    /// Where it is named.
    pub place: Place,
    /// More variables that set it.
    pub env: Vec<String>,
}

/// What the variables say.
#[derive(Clone, Debug, PartialEq)]
pub struct Environment {
    /// Their layer.
    pub layer: Layer,
    /// False under `FEATURE_FLAGS_ENABLED=false`.
    pub system_enabled: bool,
}

/// What a variable sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Allowlist,
    Denylist,
    /// A word for `enabled` or a number for `percentage`.
    Flag,
    Percent,
}

const SUFFIXES: [(&str, Role); 3] = [
    ("_ALLOWLIST", Role::Allowlist),
    ("_DENYLIST", Role::Denylist),
    ("_PERCENT", Role::Percent),
];

/// Which variable belongs to which flag.
#[derive(Default)]
struct Claims {
    by_name: BTreeMap<String, (FlagKey, Role)>,
    /// Pairs that were reported: two keys that fold alike share up to five names, and one problem says it all.
    reported: BTreeSet<(FlagKey, FlagKey)>,
}

/// The name by which variables know a flag: upper case, `-` and `.` as `_`.
#[must_use]
pub fn folded(key: &FlagKey) -> String {
    key.as_str()
        .chars()
        .map(|c| {
            if matches!(c, '-' | '.') {
                '_'
            } else {
                c.to_ascii_uppercase()
            }
        })
        .collect()
}

/// Where a variable stands.
#[must_use]
pub fn place(variable: &str) -> Place {
    Place::whole(format!("environment variable {variable}"))
}

/// Reads the variables. `named` are the flags that the file or a route names, in any order.
#[must_use]
pub fn read(variables: &BTreeMap<String, String>, mut named: Vec<Named>, problems: &mut Problems) -> Environment {
    let mut claims = Claims::default();
    // By place, so that of two flags that collide the one written later is reported.
    named.sort_by(|a, b| a.place.cmp(&b.place).then_with(|| a.key.cmp(&b.key)));
    for flag in &named {
        claims.add(flag, problems);
    }
    for name in variables.keys().filter_map(|name| name.strip_prefix(PREFIX)) {
        create(name, &mut claims, problems);
    }

    let mut said: BTreeMap<FlagKey, Said> = BTreeMap::new();
    for (name, text) in variables {
        if let Some((key, role)) = claims.by_name.get(name) {
            said.entry(key.clone()).or_default().read(name, *role, text, problems);
        }
    }
    let flags = said
        .into_iter()
        .filter_map(|(key, said)| {
            let first = said.first.as_deref().map(place)?;
            Some((
                key,
                Entry {
                    place: first,
                    members: said.members,
                },
            ))
        })
        .collect();
    Environment {
        layer: Layer {
            flags,
            ..Layer::default()
        },
        system_enabled: system_enabled(variables, problems),
    }
}

fn system_enabled(variables: &BTreeMap<String, String>, problems: &mut Problems) -> bool {
    let Some(text) = variables.get(SYSTEM) else { return true };
    if text.trim().is_empty() {
        let remedy = "write true or false, or unset it";
        problems.warning(place(SYSTEM), "", "it is empty, which switches every flag off", remedy);
        return false;
    }
    word(text).unwrap_or_else(|| {
        let what = format!("expected true or false, found {}", quote(text));
        problems.problem(place(SYSTEM), "", what, "write true or false");
        false
    })
}

fn word(text: &str) -> Option<bool> {
    let text = text.trim();
    WORDS
        .iter()
        .find(|(word, _)| word.eq_ignore_ascii_case(text))
        .map(|(_, on)| *on)
}

/// A variable of the first convention that no flag claims makes a flag of its own.
fn create(name: &str, claims: &mut Claims, problems: &mut Problems) {
    let variable = format!("{PREFIX}{name}");
    if claims.by_name.contains_key(&variable) {
        return;
    }
    let place = place(&variable);
    match FlagKey::parse(&name.to_ascii_lowercase()) {
        Ok(key) if folded(&key) == name => claims.add(
            &Named {
                key,
                place,
                env: Vec::new(),
            },
            problems,
        ),
        Ok(key) => {
            let remedy = format!("write {PREFIX}{}", folded(&key));
            problems.warning(
                place,
                "",
                "it is not read: names of flags are in upper case here",
                remedy,
            );
        }
        Err(error) => problems.problem(place, "", format!("it names no flag: {error}"), "rename or unset it"),
    }
}

impl Claims {
    fn add(&mut self, flag: &Named, problems: &mut Problems) {
        let name = folded(&flag.key);
        self.claim(format!("{PREFIX}{name}"), Role::Flag, flag, problems);
        for base in std::iter::once(&name).chain(&flag.env) {
            self.claim(base.clone(), Role::Flag, flag, problems);
            for (suffix, role) in SUFFIXES {
                self.claim(format!("{base}{suffix}"), role, flag, problems);
            }
        }
    }

    fn claim(&mut self, variable: String, role: Role, flag: &Named, problems: &mut Problems) {
        if variable == SYSTEM {
            let what = format!(
                "flag {} would be set by {SYSTEM}, which is the switch of all flags",
                quote(flag.key.as_str())
            );
            problems.problem(flag.place.clone(), "", what, "rename the flag");
            return;
        }
        match self.by_name.entry(variable) {
            Slot::Vacant(slot) => {
                slot.insert((flag.key.clone(), role));
            }
            Slot::Occupied(slot) => {
                let (other, other_role) = slot.get();
                if *other == flag.key && *other_role == role {
                    return;
                }
                if self.reported.insert((other.clone(), flag.key.clone())) {
                    let what = if *other == flag.key {
                        format!("{} would set two members of flag {}", slot.key(), quote(other.as_str()))
                    } else {
                        let (this, other) = (quote(flag.key.as_str()), quote(other.as_str()));
                        format!(
                            "flags {other} and {this} are both set by the environment variable {}",
                            slot.key()
                        )
                    };
                    problems.problem(flag.place.clone(), "", what, "rename one of them");
                }
            }
        }
    }
}

/// What the variables read so far say about one flag.
#[derive(Default)]
struct Said {
    first: Option<String>,
    members: Members,
}

impl Said {
    fn read(&mut self, name: &str, role: Role, text: &str, problems: &mut Problems) {
        if self.first.is_none() {
            self.first = Some(name.to_owned());
        }
        match role {
            Role::Allowlist => set(
                &mut self.members.allowlist,
                list(name, text, problems),
                name,
                "allowlist",
                problems,
            ),
            Role::Denylist => set(
                &mut self.members.denylist,
                list(name, text, problems),
                name,
                "denylist",
                problems,
            ),
            Role::Flag => self.read_flag(name, text, problems),
            Role::Percent => {
                let threshold = if text.trim().is_empty() {
                    problems.warning(
                        place(name),
                        "",
                        "it is empty, which is 0 %: nobody",
                        "write a number, or unset it",
                    );
                    Some(Threshold::NONE)
                } else {
                    percent(name, text, "a percentage", "write a number from 0 to 100", problems)
                };
                if let Some(threshold) = threshold {
                    set(&mut self.members.percentage, threshold, name, "percentage", problems);
                }
            }
        }
    }

    fn read_flag(&mut self, name: &str, text: &str, problems: &mut Problems) {
        if text.trim().is_empty() {
            problems.warning(
                place(name),
                "",
                "it is empty, which is off",
                "write true, false or a percentage, or unset it",
            );
            set(&mut self.members.enabled, false, name, "enabled", problems);
            return;
        }
        if let Some(on) = word(text) {
            set(&mut self.members.enabled, on, name, "enabled", problems);
            return;
        }
        let remedy = match near(text.trim(), WORDS.map(|(word, _)| word)) {
            Some(word) => format!("did you mean `{word}`?"),
            None => "write true, false, or a number from 0 to 100".to_owned(),
        };
        let Some(threshold) = percent(name, text, "true, false or a percentage", &remedy, problems) else {
            return;
        };
        if threshold == Threshold::from_buckets(10_000) {
            let remedy = "write true for on; to mean one percent, say so in the flag file";
            problems.warning(
                place(name),
                "",
                format!("{} means 1 %, not on", quote(text.trim())),
                remedy,
            );
        }
        set(&mut self.members.percentage, threshold, name, "percentage", problems);
    }
}

fn percent(name: &str, text: &str, expected: &str, remedy: &str, problems: &mut Problems) -> Option<Threshold> {
    let text = text.trim();
    let (what, remedy) = match Threshold::parse(text) {
        Ok(threshold) => return Some(threshold),
        Err(PercentError::NotANumber) => (format!("expected {expected}, found {}", quote(text)), remedy),
        Err(error @ PercentError::OutOfRange) => {
            (format!("{} is {error}", quote(text)), "write a number from 0 to 100")
        }
        Err(error @ PercentError::TooFine) => (format!("{} has {error}", quote(text)), "round it to four decimals"),
    };
    problems.problem(place(name), "", what, remedy);
    None
}

fn list(name: &str, text: &str, problems: &mut Problems) -> SubjectSet {
    let items: Vec<&str> = text.split(',').map(str::trim).filter(|item| !item.is_empty()).collect();
    for item in &items {
        if let Err(what) = check_subject(item) {
            problems.problem(place(name), "", what, "separate keys by commas");
        }
    }
    SubjectSet::collect(items.into_iter())
}

/// Sets a member that no other variable may set otherwise.
fn set<T: PartialEq>(setting: &mut Setting<T>, value: T, name: &str, member: &str, problems: &mut Problems) {
    let origin = Origin::Environment(name.into());
    match setting {
        Layered::Set(before) if before.value != value => {
            let Origin::Environment(other) = &before.origin else {
                return;
            };
            let what = format!("{other} and {name} disagree on `{member}`");
            problems.problem(place(name), "", what, "unset one of them");
        }
        Layered::Set(_) => {}
        Layered::Inherit | Layered::Unset => *setting = Layered::Set(Sourced { value, origin }),
    }
}
