//! Conditions as they are written: in rules and in segments.
//!
//! Pure. In: a map. Several members of one map must all hold; a list of values means any of them; `all`, `any` and `not`
//! nest; any other name than those known here is an attribute. Out: a tree that still knows what was written.

use std::sync::Arc;

use super::decode::{Decode, Decoder, Member, Need, RecordShape, Scalar, Shape, words};
use super::instant::Instant;
use super::problem::{near, quote};
use super::spot::{Spot, Spotted};
use super::yaml::{Entry, Mark, Node, Value};
use crate::engine::flags::Threshold;
use crate::engine::flags::operators::{Operator, Test};
use crate::engine::flags::subjects::SubjectSet;
use crate::engine::flags::window::{self, DAYS};
use crate::engine::number;
use crate::engine::vocab::SegmentKey;

/// A condition as it is written.
#[derive(Clone, Debug, PartialEq)]
pub enum ConditionSpec {
    /// `all`, or a map of several members.
    All(Vec<ConditionSpec>),
    /// `any`.
    Any(Vec<ConditionSpec>),
    /// An attribute, in either form.
    Attribute(Comparison),
    /// `groups`.
    Groups(Vec<String>),
    /// `not`.
    Not(Box<ConditionSpec>),
    /// `percentage`.
    Percentage(Threshold),
    /// `segment`.
    Segment(Spotted<SegmentKey>),
    /// `after`, `before`, `days`, `hours`, `timezone`.
    Time(Spotted<TimeSpec>),
    /// `user_ids`.
    Users(SubjectSet),
}

impl ConditionSpec {
    /// This condition and all inside it.
    pub fn walk<'c>(&'c self, visit: &mut impl FnMut(&'c ConditionSpec)) {
        visit(self);
        match self {
            Self::All(list) | Self::Any(list) => list.iter().for_each(|inner| inner.walk(visit)),
            Self::Not(inner) => inner.walk(visit),
            Self::Attribute(_)
            | Self::Groups(_)
            | Self::Percentage(_)
            | Self::Segment(_)
            | Self::Time(_)
            | Self::Users(_) => {}
        }
    }
}

/// An attribute against values.
#[derive(Clone, Debug)]
pub struct Comparison {
    /// The attribute's name.
    pub attribute: String,
    /// How.
    pub operator: Operator,
    /// Texts as written.
    pub values: Vec<String>,
    /// The same, compiled.
    pub test: Arc<Test>,
}

impl PartialEq for Comparison {
    fn eq(&self, other: &Self) -> bool {
        (&self.attribute, self.operator, &self.values) == (&other.attribute, other.operator, &other.values)
    }
}

/// The members of a condition on time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TimeSpec {
    /// Milliseconds since 1970.
    pub after: Option<i64>,
    /// Milliseconds since 1970.
    pub before: Option<i64>,
    /// Bit 0 for Monday.
    pub days: Option<u8>,
    /// Minutes of the day.
    pub hours: Option<(u16, u16)>,
    /// An IANA name.
    pub timezone: Option<String>,
}

/// The members that are no attributes, with what they mean.
const KNOWN: [(&str, &str); 15] = [
    ("all", "Conditions that must all hold."),
    ("any", "Conditions of which one must hold."),
    ("not", "A condition that must not hold."),
    ("attribute", "The attribute that `operator` compares with `values`."),
    ("operator", "How `attribute` is compared."),
    ("values", "Any of these; of a negative operator none of them."),
    ("user_ids", "Subjects."),
    ("groups", "Against the attribute `groups`, a list, or `group`."),
    ("segment", "A segment of this file."),
    ("percentage", "A share of the subjects, another one for each rule."),
    ("after", "From this instant on."),
    ("before", "Before this instant."),
    ("days", "On these days of the week."),
    ("hours", "From and until, such as \"09:00-17:30\"; may wrap midnight."),
    (
        "timezone",
        "Where days and hours are read: an IANA name. UTC if left out.",
    ),
];

/// Whether a name is no attribute's in the short form.
#[must_use]
pub fn is_known(name: &str) -> bool {
    KNOWN.iter().any(|(known, _)| *known == name)
}

words! {
    /// A day of the week.
    pub enum Day {
        /// Monday.
        Mon = "mon",
        /// Tuesday.
        Tue = "tue",
        /// Wednesday.
        Wed = "wed",
        /// Thursday.
        Thu = "thu",
        /// Friday.
        Fri = "fri",
        /// Saturday.
        Sat = "sat",
        /// Sunday.
        Sun = "sun",
    }
}

impl Decode for ConditionSpec {
    fn decode(node: &Node<'_>, decoder: &mut Decoder<'_>) -> Option<Self> {
        let entries = decoder.entries(node, "a map of conditions")?;
        if entries.is_empty() {
            let remedy = "write what must hold, such as { country: [US] }; to mean everybody, remove the rule";
            return decoder.refuse(node.mark, "no conditions", remedy);
        }
        let mut reader = Reader {
            entries,
            mark: node.mark,
            found: Vec::new(),
            whole: true,
            compared: false,
            timed: false,
        };
        for entry in entries {
            reader.member(entry, decoder);
        }
        let mut found = reader.found;
        if !reader.whole {
            return None;
        }
        if found.len() == 1 {
            found.pop()
        } else {
            Some(Self::All(found))
        }
    }

    fn shape() -> Shape {
        fn shape() -> RecordShape {
            let of = |name| match name {
                "all" | "any" => Shape::List(Box::new(Shape::Record(shape))),
                "not" => Shape::Record(shape),
                "operator" => Operator::shape(),
                "values" | "groups" => Shape::List(Box::new(String::shape())),
                "user_ids" => SubjectSet::shape(),
                "segment" => SegmentKey::shape(),
                "percentage" => Threshold::shape(),
                "after" | "before" => Instant::shape(),
                "days" => Shape::List(Box::new(Day::shape())),
                _ => String::shape(),
            };
            let members = KNOWN.map(|(name, doc)| Member {
                name,
                doc: doc.to_owned(),
                shape: of(name),
                need: Need::Optional,
            });
            RecordShape {
                name: "Condition",
                doc: "Who matches. All members of one map must hold; any other name is an attribute's, with the value or the \
                      values that it may have."
                    .to_owned(),
                members: members.into(),
                others: Some(Shape::Union(vec![
                    String::shape(),
                    Shape::List(Box::new(String::shape())),
                ])),
            }
        }
        Shape::Record(shape)
    }
}

/// One map of conditions, half read.
struct Reader<'n, 't> {
    entries: &'n [Entry<'t>],
    mark: Mark,
    found: Vec<ConditionSpec>,
    whole: bool,
    compared: bool,
    timed: bool,
}

impl Reader<'_, '_> {
    fn member(&mut self, entry: &Entry<'_>, decoder: &mut Decoder<'_>) {
        let found = match &*entry.key {
            "attribute" | "operator" | "values" if self.compared => return,
            "attribute" | "operator" | "values" => {
                self.compared = true;
                self.comparison(decoder)
            }
            "after" | "before" | "days" | "hours" | "timezone" if self.timed => return,
            "after" | "before" | "days" | "hours" | "timezone" => {
                self.timed = true;
                self.time(decoder)
            }
            "all" => decoder
                .member::<Filled<ConditionSpec>>(entry)
                .map(|list| ConditionSpec::All(list.0)),
            "any" => decoder
                .member::<Filled<ConditionSpec>>(entry)
                .map(|list| ConditionSpec::Any(list.0)),
            "not" => decoder.member(entry).map(|inner| ConditionSpec::Not(Box::new(inner))),
            "groups" => decoder
                .member::<Filled<String>>(entry)
                .map(|list| ConditionSpec::Groups(list.0)),
            "user_ids" => decoder
                .member::<SomeUsers>(entry)
                .map(|list| ConditionSpec::Users(list.0)),
            "segment" => decoder.member(entry).map(ConditionSpec::Segment),
            "percentage" => decoder.member(entry).map(ConditionSpec::Percentage),
            attribute => {
                let values = decoder.member::<Short>(entry);
                values.and_then(|values| values.compare(attribute.to_owned()))
            }
        };
        match found {
            Some(found) => self.found.push(found),
            None => self.whole = false,
        }
    }

    fn entry(&self, key: &str) -> Option<&Entry<'_>> {
        self.entries.iter().find(|entry| entry.key == key)
    }

    fn comparison(&self, decoder: &mut Decoder<'_>) -> Option<ConditionSpec> {
        let mut missing = |name: &str| {
            let what = format!("`{name}` is missing");
            let remedy = "write { attribute: NAME, operator: equals, values: [VALUE] }";
            decoder.refuse::<()>(self.mark, what, remedy);
        };
        for name in ["attribute", "operator", "values"] {
            if self.entry(name).is_none() {
                missing(name);
            }
        }
        let attribute = self
            .entry("attribute")
            .and_then(|entry| decoder.member::<String>(entry));
        let operator = self
            .entry("operator")
            .and_then(|entry| decoder.member::<Operator>(entry));
        let values_at = self.entry("values")?;
        let values = decoder.member::<Filled<String>>(values_at);
        let (attribute, operator, values) = (attribute?, operator?, values?.0);
        let place = |index: usize| match &values_at.value.value {
            Value::Sequence(items) => items.get(index).map_or(values_at.mark, |item| item.mark),
            _ => values_at.mark,
        };
        match Test::compile(operator, &values) {
            Ok(test) => {
                if matches!(operator, Operator::GreaterThan | Operator::LessThan) {
                    for (index, value) in values.iter().enumerate().filter(|(_, text)| !number::is_number(text)) {
                        let word = operator.as_str();
                        let what = format!("{} is no number, so nothing is `{word}` it", quote(value));
                        decoder.warn(place(index), what, "write a decimal number");
                    }
                }
                Some(ConditionSpec::Attribute(Comparison {
                    attribute,
                    operator,
                    values,
                    test: Arc::new(test),
                }))
            }
            Err(unfit) => decoder.refuse(place(unfit.index), unfit.what, unfit.remedy),
        }
    }

    fn time(&self, decoder: &mut Decoder<'_>) -> Option<ConditionSpec> {
        fn read<T: Decode>(entry: Option<&Entry<'_>>, decoder: &mut Decoder<'_>) -> Option<Option<T>> {
            match entry {
                None => Some(None),
                Some(entry) => decoder.member(entry).map(Some),
            }
        }
        let after = read::<Instant>(self.entry("after"), decoder);
        let before = read::<Instant>(self.entry("before"), decoder);
        let days = read::<Filled<Day>>(self.entry("days"), decoder);
        let hours = read::<Hours>(self.entry("hours"), decoder);
        let timezone = read::<Zone>(self.entry("timezone"), decoder);
        let (after, before, days, hours, timezone) = (after?, before?, days?, hours?, timezone?);
        let entry = |name| self.entry(name).map_or(self.mark, |entry| entry.value.mark);
        if let (Some(after), Some(before)) = (after, before)
            && before.0 <= after.0
        {
            return decoder.refuse(
                entry("before"),
                "the end is not after the start",
                "correct one of the dates",
            );
        }
        if timezone.is_some() && days.is_none() && hours.is_none() {
            let what = "a time zone without days and hours changes nothing";
            return decoder.refuse(entry("timezone"), what, "add `days` or `hours`, or remove it");
        }
        let bit = |day: &Day| {
            DAYS.iter()
                .position(|name| *name == day.as_str())
                .map_or(0, |at| 1_u8 << at)
        };
        Some(ConditionSpec::Time(Spotted {
            value: TimeSpec {
                after: after.map(|instant| instant.0),
                before: before.map(|instant| instant.0),
                days: days.map(|days| days.0.iter().map(bit).fold(0, |all, day| all | day)),
                hours: hours.map(|hours| hours.0),
                timezone: timezone.map(|zone| zone.0),
            },
            spot: Spot::of(self.mark, decoder),
        }))
    }
}

/// A list of at least one.
struct Filled<T>(Vec<T>);

impl<T: Decode> Decode for Filled<T> {
    fn decode(node: &Node<'_>, decoder: &mut Decoder<'_>) -> Option<Self> {
        let list = Vec::decode(node, decoder)?;
        if list.is_empty() {
            return decoder.refuse(
                node.mark,
                "an empty list",
                "write at least one, or remove the condition",
            );
        }
        Some(Self(list))
    }

    fn shape() -> Shape {
        Vec::<T>::shape()
    }
}

/// Subjects, at least one.
struct SomeUsers(SubjectSet);

impl Decode for SomeUsers {
    fn decode(node: &Node<'_>, decoder: &mut Decoder<'_>) -> Option<Self> {
        let list = SubjectSet::decode(node, decoder)?;
        if list.is_empty() {
            return decoder.refuse(node.mark, "an empty list", "name somebody, or remove the condition");
        }
        Some(Self(list))
    }

    fn shape() -> Shape {
        SubjectSet::shape()
    }
}

/// What stands behind an attribute's name in the short form.
struct Short {
    operator: Operator,
    values: Vec<String>,
}

impl Short {
    fn compare(self, attribute: String) -> Option<ConditionSpec> {
        let Self { operator, values } = self;
        // These two take any text.
        let test = Arc::new(Test::compile(operator, &values).ok()?);
        Some(ConditionSpec::Attribute(Comparison {
            attribute,
            operator,
            values,
            test,
        }))
    }
}

impl Decode for Short {
    fn decode(node: &Node<'_>, decoder: &mut Decoder<'_>) -> Option<Self> {
        match &node.value {
            Value::Sequence(_) => Some(Self {
                operator: Operator::In,
                values: Filled::decode(node, decoder)?.0,
            }),
            Value::Plain(_) | Value::Quoted(_) if node.text().is_some() => Some(Self {
                operator: Operator::Equals,
                values: vec![String::decode(node, decoder)?],
            }),
            Value::Plain(_) | Value::Quoted(_) | Value::Mapping(_) => {
                let remedy = "write [a, b], or { attribute: NAME, operator: equals, values: [VALUE] }";
                decoder.expected(node, "a value or a list of values", remedy)
            }
        }
    }

    fn shape() -> Shape {
        String::shape()
    }
}

impl Decode for Operator {
    fn decode(node: &Node<'_>, decoder: &mut Decoder<'_>) -> Option<Self> {
        let known = Self::ALL.map(Self::as_str);
        let found = Self::ALL.into_iter().find(|known| node.text() == Some(known.as_str()));
        found.or_else(|| decoder.expected_word(node, &known))
    }

    fn shape() -> Shape {
        let doc = |operator| match operator {
            Self::Equals => "It is one of the values, exactly.",
            Self::NotEquals => "It is none of the values.",
            Self::In => "It is one of the values, exactly.",
            Self::NotIn => "It is none of the values.",
            Self::Contains => "A text has one of the values in it; a list has one as a member.",
            Self::GreaterThan => "A number is larger than one of the values.",
            Self::LessThan => "A number is smaller than one of the values.",
            Self::StartsWith => "A text begins with one of the values.",
            Self::EndsWith => "A text ends with one of the values.",
            Self::SemverEquals => "It is the same version as one of the values.",
            Self::SemverGreaterThan => "It is a later version than one of the values.",
            Self::SemverLessThan => "It is an earlier version than one of the values.",
            Self::Cidr => "An address lies in one of the networks.",
            Self::Regex => "One of the patterns is found in it.",
        };
        Shape::words(Self::ALL.map(|operator| (operator.as_str(), doc(operator))))
    }
}

struct Hours((u16, u16));

impl Scalar for Hours {
    const NAME: &'static str = "hours";
    const KIND: &'static str = "two times of day";
    const REMEDY: &'static str =
        "write them as in \"09:00-17:30\", the first before 24:00 and not the same as the second";

    fn read(text: &str) -> Result<Self, super::decode::Misfit> {
        let hours = window::hours(text).filter(|(from, until)| from != until);
        hours.map(Self).ok_or(super::decode::Misfit::Kind)
    }
}

struct Zone(String);

impl Scalar for Zone {
    const NAME: &'static str = "time zone";
    const KIND: &'static str = "a time zone";
    const REMEDY: &'static str = "write an IANA name, such as Europe/Lisbon";

    fn read(text: &str) -> Result<Self, super::decode::Misfit> {
        if window::zone(text).is_some() {
            return Ok(Self(text.to_owned()));
        }
        let remedy = match near(text, window::zones()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => Self::REMEDY.to_owned(),
        };
        Err(super::decode::Misfit::range(
            format!("{} is no time zone", quote(text)),
            remedy,
        ))
    }
}
