//! Targeting rules: conditions on a subject, its attributes and the time, and what holds for those who match.
//!
//! Pure, without allocation and without a lock. A condition that would have to look at a subject where there is none is
//! neither true nor false; it spoils only what depends on it.

use super::Threshold;
use super::asked::Asked;
use super::attributes::Attribute;
use super::bucket::Bucket;
use super::operators::Test;
use super::origin::Origin;
use super::subjects::SubjectSet;
use super::variants::VariantIndex;
use super::window::Window;
use crate::engine::vocab::SegmentKey;

/// A rule of one flag.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Its name, its priority, or its place in the list: what answers and logs call it.
    pub label: Box<str>,
    /// The flag's key, `/`, and its name or priority: follows the subject in the hash of a `percentage` condition.
    pub hash_name: Box<str>,
    /// Who matches.
    pub condition: Condition,
    /// What holds for them.
    pub outcome: Outcome,
    /// Where it is written.
    pub origin: Origin,
}

/// What holds for those who match a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// On.
    On,
    /// Off.
    Off,
    /// On for this share of them, by the flag's own bucket.
    Share(Threshold),
    /// On, with this variant.
    Variant(VariantIndex),
}

/// A condition, compiled.
#[derive(Clone, Debug)]
pub enum Condition {
    /// Every one holds.
    All(Box<[Condition]>),
    /// At least one holds.
    Any(Box<[Condition]>),
    /// An attribute, and how it is compared.
    Attribute(Box<str>, Test),
    /// The attribute `groups`, or `group`.
    Groups(Test),
    /// It does not hold.
    Not(Box<Condition>),
    /// The subject's bucket for this rule lies in the share.
    Percentage(Threshold),
    /// The segment at this place holds.
    Segment(u32),
    /// Now.
    Time(Box<Window>),
    /// The subject is one of these.
    Users(SubjectSet),
}

impl Condition {
    /// Whether it looks at attributes.
    pub(super) fn asks_attributes(&self, segments: &[Segment]) -> bool {
        match self {
            Self::All(list) | Self::Any(list) => list.iter().any(|one| one.asks_attributes(segments)),
            Self::Attribute(..) | Self::Groups(_) => true,
            Self::Not(condition) => condition.asks_attributes(segments),
            Self::Percentage(_) | Self::Time(_) | Self::Users(_) => false,
            Self::Segment(at) => {
                let segment = segments.get(*at as usize);
                segment.is_some_and(|segment| segment.condition.asks_attributes(segments))
            }
        }
    }
}

/// A condition with a name, for the rules of any flag.
#[derive(Clone, Debug)]
pub struct Segment {
    /// Its name.
    pub key: SegmentKey,
    /// Who belongs to it.
    pub condition: Condition,
}

/// A condition that is being asked.
pub(super) struct Question<'a> {
    pub(super) segments: &'a [Segment],
    pub(super) asked: &'a Asked<'a>,
    pub(super) hash_name: &'a str,
}

impl Question<'_> {
    /// Whether a condition holds; `None` where that depends on a subject and there is none.
    ///
    /// Segments do not ask each other in a ring, and not without end: such rules do not compile.
    pub(super) fn holds(&self, condition: &Condition) -> Option<bool> {
        match condition {
            Condition::All(list) => self.until(list, false),
            Condition::Any(list) => self.until(list, true),
            Condition::Attribute(name, test) => Some(test.holds(self.attribute(name))),
            Condition::Groups(test) => {
                let holds = |name| test.holds(self.attribute(name));
                Some(holds("groups") || holds("group"))
            }
            Condition::Not(condition) => self.holds(condition).map(|holds| !holds),
            Condition::Percentage(share) => {
                let subject = self.asked.subject?;
                Some(share.takes(Bucket::of(subject, self.hash_name)))
            }
            // A place without a segment cannot come about; nobody belongs to it.
            Condition::Segment(at) => match self.segments.get(*at as usize) {
                Some(segment) => self.holds(&segment.condition),
                None => Some(false),
            },
            Condition::Time(window) => Some(window.contains(self.asked.unix_ms)),
            Condition::Users(list) => self.asked.subject.map(|subject| list.contains(subject)),
        }
    }

    fn attribute(&self, name: &str) -> Option<Attribute<'_>> {
        self.asked.attributes.attribute(name)
    }

    /// `decisive` if any condition is, else unknown if any is, else the opposite.
    fn until(&self, list: &[Condition], decisive: bool) -> Option<bool> {
        let mut known = true;
        for condition in list {
            match self.holds(condition) {
                Some(holds) if holds == decisive => return Some(decisive),
                Some(_) => {}
                None => known = false,
            }
        }
        known.then_some(!decisive)
    }
}
