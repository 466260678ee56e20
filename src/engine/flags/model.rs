//! One flag as it is asked: every member resolved over its layers, and where each came from.
//!
//! Pure. `ruleset::compile` makes these; nothing here reads or writes what operators write.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::FlagRef;
use super::bucket::{Bucket, Threshold};
use super::origin::Origin;
use super::schedule::{Mark, Period, Ramp};
use super::subjects::SubjectSet;
use super::targeting::Rule;
use super::variants::Variants;
use crate::engine::vocab::FlagKey;

/// What a flag is, as its file says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum FlagType {
    /// On or off; a percentage is allowed.
    #[default]
    Boolean,
    /// Its percentage follows from its dates.
    Gradual,
    /// Its percentage is required.
    Percentage,
    /// Its rules are what it is for; `enabled: true` alone is on for nobody.
    Targeted,
    /// It chooses between variants.
    Variant,
}

impl FlagType {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Boolean,
        Self::Gradual,
        Self::Percentage,
        Self::Targeted,
        Self::Variant,
    ];

    /// The word in the flag file.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Boolean => "boolean",
            Self::Gradual => "gradual",
            Self::Percentage => "percentage",
            Self::Targeted => "targeted",
            Self::Variant => "variant",
        }
    }
}

/// What a flag is for. Decides nothing; it is for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// To learn which of several is better.
    Experiment,
    /// To run the service: a switch that stays.
    Operational,
    /// To say who may use something.
    Permission,
    /// To bring something new to everybody, and then to go.
    Release,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Experiment, Self::Operational, Self::Permission, Self::Release];

    /// The word in the flag file.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Experiment => "experiment",
            Self::Operational => "operational",
            Self::Permission => "permission",
            Self::Release => "release",
        }
    }
}

/// The members of a flag that some source can set, in the order in which they are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(missing_docs, reason = "each is the member of the flag file that `as_str` names")]
pub enum Member {
    Type,
    Kind,
    Description,
    Owner,
    Purpose,
    Rollback,
    ExpectedEnd,
    Metadata,
    Env,
    Enabled,
    Environments,
    StartDate,
    EndDate,
    GradualIncrement,
    Prerequisites,
    Denylist,
    Allowlist,
    BetaUsers,
    Rules,
    Percentage,
    Cohort,
    Variants,
    Default,
    ShadowMode,
}

impl Member {
    /// The name in the flag file.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Type => "type",
            Self::Kind => "kind",
            Self::Description => "description",
            Self::Owner => "owner",
            Self::Purpose => "purpose",
            Self::Rollback => "rollback",
            Self::ExpectedEnd => "expected_end",
            Self::Metadata => "metadata",
            Self::Env => "env",
            Self::Enabled => "enabled",
            Self::Environments => "environments",
            Self::StartDate => "start_date",
            Self::EndDate => "end_date",
            Self::GradualIncrement => "gradual_increment",
            Self::Prerequisites => "prerequisites",
            Self::Denylist => "denylist",
            Self::Allowlist => "allowlist",
            Self::BetaUsers => "beta_users",
            Self::Rules => "rules",
            Self::Percentage => "percentage",
            Self::Cohort => "cohort",
            Self::Variants => "variants",
            Self::Default => "default",
            Self::ShadowMode => "shadow_mode",
        }
    }
}

/// What a flag says about itself; decides nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct About {
    /// What it is for, by kind.
    pub kind: Option<Kind>,
    /// What it does.
    pub description: Option<String>,
    /// Who answers for it.
    pub owner: Option<String>,
    /// Why it exists.
    pub purpose: Option<String>,
    /// How it is taken back.
    pub rollback: Option<String>,
    /// When it should be gone, as written.
    pub expected_end: Option<String>,
    /// Free texts.
    pub metadata: BTreeMap<String, String>,
    /// Variables that set it besides those that its key names.
    pub env: Vec<String>,
    /// Where it is on, as written; `None` is everywhere.
    pub environments: Option<Vec<String>>,
}

/// What decides at the line of the percentage.
#[derive(Clone, Debug)]
pub enum Percent {
    /// The same share until somebody changes it.
    Fixed(Threshold),
    /// A share that grows with time.
    Gradual(Ramp, Arc<Mark>),
}

impl Percent {
    /// The share at this instant.
    #[must_use]
    pub fn threshold_at(&self, unix_ms: i64) -> Threshold {
        match self {
            Self::Fixed(threshold) => *threshold,
            Self::Gradual(ramp, mark) => ramp.reached(unix_ms, mark.reached()),
        }
    }
}

/// Another flag that has to answer in a certain way before this one may be on.
#[derive(Clone, Debug)]
pub struct Prerequisite {
    /// The other flag.
    pub flag: FlagKey,
    /// Its position; looked up by [`Flags::new`](super::Flags::new).
    pub at: Option<FlagRef>,
    /// What it has to answer.
    pub wanted: Wanted,
}

/// What a prerequisite has to answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// On, or off.
    Enabled(bool),
    /// On, with this variant.
    Variant(Box<str>),
}

/// One compiled flag.
#[derive(Clone, Debug)]
pub struct Flag {
    /// Its name.
    pub key: FlagKey,
    /// Whether any source sets it; a route may name a flag that nobody defines.
    pub defined: bool,
    /// What it is.
    pub flag_type: FlagType,
    /// `metadata.kill_switch: "true"`.
    pub kill_switch: bool,
    /// On, off, or left to lists and percentage.
    pub enabled: Option<bool>,
    /// Whether the environment of this process is among the flag's.
    pub listed_here: bool,
    /// When it is valid; of a gradual flag always.
    pub period: Period,
    /// The flags that it asks before anything else.
    pub prerequisites: Box<[Prerequisite]>,
    /// Who never is on the new path.
    pub denylist: Option<SubjectSet>,
    /// Who alone is on the new path; an empty list is nobody.
    pub allowlist: Option<SubjectSet>,
    /// Who is on before any rule is asked.
    pub beta_users: Option<SubjectSet>,
    /// Whom it targets, in the order in which they are asked.
    pub rules: Box<[Rule]>,
    /// The share that is on the new path.
    pub percent: Option<Percent>,
    /// Replaces the key in the hash, to give several flags the same people.
    pub cohort: Option<FlagKey>,
    /// Between what it chooses; `None` is on and off.
    pub variants: Option<Box<Variants>>,
    /// What holds when nothing else decided; of a flag with variants never asked.
    pub default: bool,
    /// Whether those for whom the flag is on are only copied to the new path.
    pub shadow_mode: Option<bool>,
    /// What it says about itself.
    pub about: Box<About>,
    /// Where its values come from, in the order of the members; what is missing is a built-in default.
    pub origins: Vec<(Member, Origin)>,
}

impl Flag {
    /// A flag that nobody defines: off, with reason `flag_not_found`.
    #[must_use]
    pub fn unknown(key: FlagKey) -> Self {
        Self {
            key,
            defined: false,
            flag_type: FlagType::Boolean,
            kill_switch: false,
            enabled: None,
            listed_here: true,
            period: Period::default(),
            prerequisites: Box::default(),
            denylist: None,
            allowlist: None,
            beta_users: None,
            rules: Box::default(),
            percent: None,
            cohort: None,
            variants: None,
            default: false,
            shadow_mode: None,
            about: Box::default(),
            origins: Vec::new(),
        }
    }

    /// Where the bucket rule puts a subject.
    #[must_use]
    pub fn bucket(&self, subject: &str) -> Bucket {
        Bucket::of(subject, self.hash_name())
    }

    /// What follows the subject in the hash: the cohort, or the key.
    #[must_use]
    pub fn hash_name(&self) -> &str {
        self.cohort.as_ref().unwrap_or(&self.key).as_str()
    }

    /// Where the value of a member comes from.
    #[must_use]
    pub fn origin(&self, member: Member) -> &Origin {
        const DEFAULT: &Origin = &Origin::Default;
        self.origins
            .iter()
            .find(|(of, _)| *of == member)
            .map_or(DEFAULT, |(_, origin)| origin)
    }

    /// `ENABLED`, `DISABLED` or, where lists and percentage decide, `PARTIAL`.
    #[must_use]
    pub const fn status(&self) -> &'static str {
        match self.enabled {
            Some(true) => "ENABLED",
            Some(false) => "DISABLED",
            None => "PARTIAL",
        }
    }

    /// Takes note of the share that a gradual flag has at this instant; of others nothing happens.
    pub fn advance(&self, unix_ms: i64) {
        if let Some(Percent::Gradual(ramp, mark)) = &self.percent {
            mark.raise(ramp.threshold_at(unix_ms));
        }
    }
}
