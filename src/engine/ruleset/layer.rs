//! One source's view of the flags, and what comes out when a stronger one lies over it.
//!
//! Pure. Sources, strongest first: kills (asked at every decision, no layer), the runtime layer, the flag file, the
//! environment's variables, built-in defaults. Merging is member by member; each value keeps its origin.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry as Slot;

use super::conditions::ConditionSpec;
use super::decode::Layered;
use super::problem::Place;
use super::spot::Spotted;
use super::targets::{Fallback, PrerequisiteSpec, RuleSpec, VariantsSpec};
use crate::engine::flags::Threshold;
use crate::engine::flags::model::{FlagType, Kind, Member};
use crate::engine::flags::origin::Origin;
use crate::engine::flags::subjects::SubjectSet;
use crate::engine::vocab::{FlagKey, SegmentKey};

/// A value and where it was set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sourced<T> {
    /// What was set.
    pub value: T,
    /// By whom.
    pub origin: Origin,
}

/// What one source says about one member.
pub type Setting<T> = Layered<Sourced<T>>;

/// A stronger source's word over a weaker one's.
#[must_use]
pub fn over<T>(strong: Layered<T>, weak: Layered<T>) -> Layered<T> {
    match strong {
        Layered::Inherit => weak,
        said => said,
    }
}

/// The value that is left when nothing weaker follows.
#[must_use]
pub fn settled<T>(setting: Layered<T>) -> Option<T> {
    match setting {
        Layered::Set(value) => Some(value),
        Layered::Inherit | Layered::Unset => None,
    }
}

/// Whether a value is set.
#[must_use]
pub const fn is_set<T>(setting: &Setting<T>) -> bool {
    matches!(setting, Layered::Set(_))
}

macro_rules! members {
    ($($(#[$doc:meta])+ $name:ident: $type:ty = $member:ident,)+) => {
        /// What one source, or several merged, says about one flag.
        #[derive(Clone, Debug, Default, PartialEq)]
        pub struct Members {
            $($(#[$doc])+ pub $name: Setting<$type>,)+
        }

        impl Members {
            /// This source's words over a weaker one's, member by member: absent inherits, `null` unsets, a value sets.
            #[must_use]
            pub fn over(self, weaker: Self) -> Self {
                Self { $($name: over(self.$name, weaker.$name),)+ }
            }

            /// The same, said by nobody: for comparing what was said alone.
            #[cfg(test)]
            #[must_use]
            pub fn without_origins(self) -> Self {
                Self { $($name: match self.$name {
                    Layered::Set(sourced) => Layered::Set(Sourced { value: sourced.value, origin: Origin::Default }),
                    unset => unset,
                },)+ }
            }

            /// Where the members that are set come from, in the order of [`Member`].
            #[must_use]
            pub fn origins(&self) -> Vec<(Member, Origin)> {
                let mut origins = Vec::new();
                $(
                    if let Layered::Set(sourced) = &self.$name {
                        origins.push((Member::$member, sourced.origin.clone()));
                    }
                )+
                origins
            }

            /// The members about which this source says anything, a `null` included, in the order of [`Member`].
            #[must_use]
            pub fn said(&self) -> Vec<Member> {
                let mut said = Vec::new();
                $(
                    if !matches!(self.$name, Layered::Inherit) {
                        said.push(Member::$member);
                    }
                )+
                said
            }

            /// The members whose values differ from another's, wherever either comes from, in the order of [`Member`].
            #[must_use]
            pub fn differing(&self, other: &Self) -> Vec<Member> {
                let mut differing = Vec::new();
                $(
                    if value_of(&self.$name) != value_of(&other.$name) {
                        differing.push(Member::$member);
                    }
                )+
                differing
            }

            /// Says of every value that is set where it comes from.
            pub(super) fn come_from(&mut self, origin: impl Fn(Member, &Origin) -> Origin) {
                $(
                    if let Layered::Set(sourced) = &mut self.$name {
                        sourced.origin = origin(Member::$member, &sourced.origin);
                    }
                )+
            }
        }
    };
}

/// What a member is worth once nothing weaker follows.
pub(super) const fn value_of<T>(setting: &Setting<T>) -> Option<&T> {
    match setting {
        Layered::Set(sourced) => Some(&sourced.value),
        Layered::Inherit | Layered::Unset => None,
    }
}

members! {
    /// What the flag is.
    flag_type: FlagType = Type,
    /// What it is for.
    kind: Kind = Kind,
    /// What it does.
    description: String = Description,
    /// Who answers for it.
    owner: String = Owner,
    /// Why it exists.
    purpose: String = Purpose,
    /// How it is taken back.
    rollback: String = Rollback,
    /// When it should be gone.
    expected_end: String = ExpectedEnd,
    /// Free texts.
    metadata: BTreeMap<String, String> = Metadata,
    /// More variables that set it.
    env: Vec<String> = Env,
    /// On or off.
    enabled: bool = Enabled,
    /// Where it is on.
    environments: Vec<String> = Environments,
    /// Milliseconds since 1970.
    start_date: i64 = StartDate,
    /// Milliseconds since 1970.
    end_date: i64 = EndDate,
    /// In units of 0.0001 points per day.
    gradual_increment: u64 = GradualIncrement,
    /// What is asked first.
    prerequisites: Vec<PrerequisiteSpec> = Prerequisites,
    /// Who never is on the new path.
    denylist: SubjectSet = Denylist,
    /// Who alone is.
    allowlist: SubjectSet = Allowlist,
    /// Who is on before any rule is asked.
    beta_users: SubjectSet = BetaUsers,
    /// Whom it targets.
    rules: Vec<RuleSpec> = Rules,
    /// The share that is.
    percentage: Threshold = Percentage,
    /// Replaces the key in the hash.
    cohort: FlagKey = Cohort,
    /// Between what it chooses.
    variants: VariantsSpec = Variants,
    /// What is left.
    default: Spotted<Fallback> = Default,
    /// Only copied.
    shadow_mode: bool = ShadowMode,
}

/// One flag in one source.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Where the flag is said to be: its key in the file, the first of its variables.
    pub place: Place,
    /// What is said.
    pub members: Members,
}

/// One source's flags.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Layer {
    /// By key.
    pub flags: BTreeMap<FlagKey, Entry>,
    /// Conditions with a name.
    pub segments: BTreeMap<SegmentKey, Spotted<ConditionSpec>>,
}

impl Layer {
    /// This source over a weaker one: the flags of both.
    #[must_use]
    pub fn over(mut self, weaker: Self) -> Self {
        for (key, below) in weaker.segments {
            self.segments.entry(key).or_insert(below);
        }
        for (key, below) in weaker.flags {
            match self.flags.entry(key) {
                Slot::Vacant(slot) => {
                    slot.insert(below);
                }
                Slot::Occupied(mut slot) => {
                    let above = std::mem::take(&mut slot.get_mut().members);
                    slot.get_mut().members = above.over(below.members);
                }
            }
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn setting<T: std::fmt::Debug + Clone>(value: impl Strategy<Value = T>) -> impl Strategy<Value = Setting<T>> {
        let origin = prop_oneof![Just("A"), Just("B")].prop_map(|name| Origin::Environment(name.into()));
        prop_oneof![
            Just(Layered::Inherit),
            Just(Layered::Unset),
            (value, origin).prop_map(|(value, origin)| Layered::Set(Sourced { value, origin })),
        ]
    }

    prop_compose! {
        fn members()(
            enabled in setting(any::<bool>()),
            percentage in setting((0_u32..=100).prop_map(|percent| Threshold::from_buckets(percent * 10_000))),
            owner in setting("[a-c]"),
        ) -> Members {
            Members { enabled, percentage, owner, ..Members::default() }
        }
    }

    prop_compose! {
        fn layer()(flags in prop::collection::btree_map("[a-c]", members(), 0..4)) -> Layer {
            let entry = |members| Entry { place: Place::whole("somewhere"), members };
            Layer { flags: flags.into_iter().map(|(key, members)| (FlagKey::parse(&key).unwrap(), entry(members))).collect(), ..Layer::default() }
        }
    }

    proptest! {
        #[test]
        fn it_does_not_matter_which_layers_are_merged_first(a in layer(), b in layer(), c in layer()) {
            prop_assert_eq!(a.clone().over(b.clone()).over(c.clone()), a.over(b.over(c)));
        }

        #[test]
        fn a_layer_that_says_nothing_changes_nothing(a in layer()) {
            prop_assert_eq!(a.clone().over(Layer::default()), a.clone());
            prop_assert_eq!(Layer::default().over(a.clone()), a);
        }

        #[test]
        fn a_layer_over_itself_is_itself(a in layer()) {
            prop_assert_eq!(a.clone().over(a.clone()), a);
        }
    }

    #[test]
    fn absent_inherits_null_unsets_here_and_below_and_a_value_sets() {
        let set = |value| Layered::Set(value);
        assert_eq!(settled(over(Layered::Inherit, set(1))), Some(1));
        assert_eq!(settled(over(Layered::Unset, set(1))), None);
        assert_eq!(settled(over(set(2), Layered::Unset)), Some(2));
        assert_eq!(settled(over(Layered::<u8>::Inherit, Layered::Inherit)), None);
    }
}
