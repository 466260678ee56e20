//! What a flag says about whom it targets and between what it chooses, as it is written: rules, prerequisites, variants.
//!
//! Pure. What these mean together with the rest of the flag, and with other flags, is left to `resolve`.

use std::collections::BTreeSet;

use serde_json::value::RawValue;

use super::conditions::ConditionSpec;
use super::decode::{Decode, Decoder, Misfit, Scalar, Shape, record, words};
use super::problem::quote;
use super::spot::{Spot, Spotted};
use super::yaml::{Node, Value};
use crate::engine::flags::Threshold;
use crate::engine::flags::bucket::BUCKETS;
use crate::engine::flags::model::Wanted;
use crate::engine::number;
use crate::engine::vocab::FlagKey;

/// The longest name of a rule or a variant, in bytes.
pub const NAME_LIMIT_BYTES: usize = 200;

/// The name of a rule or a variant: any text of one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name(pub String);

impl Scalar for Name {
    const NAME: &'static str = "name";
    const KIND: &'static str = "a name";
    const REMEDY: &'static str = "write 1 to 200 bytes on one line";

    fn read(text: &str) -> Result<Self, Misfit> {
        let good = !text.is_empty() && text.len() <= NAME_LIMIT_BYTES && !text.chars().any(char::is_control);
        good.then(|| Self(text.to_owned())).ok_or(Misfit::Kind)
    }
}

words! {
    /// What a rule mainly looks at. Every type takes every condition and demands its own.
    pub enum RuleType {
        /// `user_ids`.
        User = "user",
        /// `groups`.
        Group = "group",
        /// `percentage`.
        Percentage = "percentage",
        /// `after`, `before`, `days` or `hours`.
        Time = "time",
        /// Attributes.
        Location = "location",
        /// Attributes.
        Property = "property",
        /// `segment`.
        UserSegment = "user_segment",
    }
}

impl RuleType {
    /// What it demands, for a message.
    const fn demands(self) -> &'static str {
        match self {
            Self::User => "`user_ids`",
            Self::Group => "`groups`",
            Self::Percentage => "`percentage`",
            Self::Time => "`after`, `before`, `days` or `hours`",
            Self::Location | Self::Property => "an attribute",
            Self::UserSegment => "`segment`",
        }
    }

    const fn is_met_by(self, condition: &ConditionSpec) -> bool {
        matches!(
            (self, condition),
            (Self::User, ConditionSpec::Users(_))
                | (Self::Group, ConditionSpec::Groups(_))
                | (Self::Percentage, ConditionSpec::Percentage(_))
                | (Self::Time, ConditionSpec::Time(_))
                | (Self::Location | Self::Property, ConditionSpec::Attribute(_))
                | (Self::UserSegment, ConditionSpec::Segment(_))
        )
    }
}

/// What holds for those who match a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RuleValue {
    /// On or off.
    Enabled(bool),
    /// A share of those who match.
    Share(Threshold),
    /// A variant.
    Variant(String),
}

impl Decode for RuleValue {
    fn decode(node: &Node<'_>, decoder: &mut Decoder<'_>) -> Option<Self> {
        match &node.value {
            Value::Plain(text) if text == "true" || text == "false" => Some(Self::Enabled(text == "true")),
            Value::Plain(text) if number::is_number(text) => Threshold::decode(node, decoder).map(Self::Share),
            Value::Plain(_) | Value::Quoted(_) if node.text().is_some() => {
                Name::decode(node, decoder).map(|name| Self::Variant(name.0))
            }
            _ => decoder.expected(
                node,
                "true, false, a percentage or a variant's name",
                "write one of these; left out it is true",
            ),
        }
    }

    fn shape() -> Shape {
        Shape::Union(vec![bool::shape(), Threshold::shape(), Name::shape()])
    }
}

/// A rule as it is written.
#[derive(Clone, Debug, PartialEq)]
pub struct RuleSpec {
    /// For answers and logs, and in the hash of a `percentage` condition.
    pub name: Option<Spotted<Name>>,
    /// Ascending; without one it comes last.
    pub priority: Option<u32>,
    /// What it mainly looks at.
    pub kind: RuleType,
    /// Who matches.
    pub conditions: ConditionSpec,
    /// What holds for them; unset is true.
    pub value: Option<Spotted<RuleValue>>,
    /// Where it is written.
    pub spot: Spot,
}

record! {
    /// A rule: the first in the order of priorities that matches decides.
    struct Rule {
        /// What it mainly looks at.
        r#type: RuleType,
        /// For answers and logs; also gives a `percentage` condition other people than other rules have.
        name: Option<Spotted<Name>>,
        /// Ascending, then in the order of the file; rules without one come last.
        priority: Option<u32>,
        /// Who matches.
        conditions: ConditionSpec,
        /// What holds for those who match: true, false, a percentage of them, or a variant. Left out it is true.
        value: Option<Spotted<RuleValue>>,
    }
}

impl Decode for RuleSpec {
    fn decode(node: &Node<'_>, decoder: &mut Decoder<'_>) -> Option<Self> {
        let rule = Rule::decode(node, decoder)?;
        let mut met = false;
        rule.conditions
            .walk(&mut |condition| met |= rule.r#type.is_met_by(condition));
        if !met {
            let (kind, demanded) = (rule.r#type.as_str(), rule.r#type.demands());
            let what = format!("a rule of type `{kind}` needs a condition on {demanded}");
            return decoder.refuse(node.mark, what, "add it, or change the type");
        }
        Some(Self {
            name: rule.name,
            priority: rule.priority,
            kind: rule.r#type,
            conditions: rule.conditions,
            value: rule.value,
            spot: Spot::of(node.mark, decoder),
        })
    }

    fn shape() -> Shape {
        Rule::shape()
    }
}

/// Another flag that is asked first.
#[derive(Clone, Debug, PartialEq)]
pub struct PrerequisiteSpec {
    /// Which.
    pub flag: Spotted<FlagKey>,
    /// What it has to answer; unset is true.
    pub value: Option<Spotted<Wanted>>,
}

record! {
    /// A flag that is asked first.
    struct Prerequisite {
        /// Its key.
        flag: Spotted<FlagKey>,
        /// What it has to answer: true, false or a variant. Left out it is true.
        value: Option<Spotted<Wanted>>,
    }
}

impl Decode for PrerequisiteSpec {
    fn decode(node: &Node<'_>, decoder: &mut Decoder<'_>) -> Option<Self> {
        let Prerequisite { flag, value } = Prerequisite::decode(node, decoder)?;
        Some(Self { flag, value })
    }

    fn shape() -> Shape {
        Prerequisite::shape()
    }
}

impl Decode for Wanted {
    fn decode(node: &Node<'_>, decoder: &mut Decoder<'_>) -> Option<Self> {
        Fallback::decode(node, decoder).map(|value| match value {
            Fallback::Enabled(on) => Self::Enabled(on),
            Fallback::Variant(name) => Self::Variant(name.into()),
        })
    }

    fn shape() -> Shape {
        Fallback::shape()
    }
}

/// What holds when nothing else decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fallback {
    /// Of a flag without variants.
    Enabled(bool),
    /// Of a flag with variants: this one.
    Variant(String),
}

impl Decode for Fallback {
    fn decode(node: &Node<'_>, decoder: &mut Decoder<'_>) -> Option<Self> {
        match &node.value {
            Value::Plain(text) if text == "true" || text == "false" => Some(Self::Enabled(text == "true")),
            Value::Plain(_) | Value::Quoted(_) if node.text().is_some() => {
                Name::decode(node, decoder).map(|name| Self::Variant(name.0))
            }
            _ => decoder.expected(node, "true, false or a variant's name", "write one of these"),
        }
    }

    fn shape() -> Shape {
        Shape::Union(vec![bool::shape(), Name::shape()])
    }
}

/// A weight as it is written: a decimal number, exact in units of `10^-18`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Weight(pub u128);

/// Units of one.
pub const WEIGHT_ONE: u128 = 1_000_000_000_000_000_000;

impl Scalar for Weight {
    const NAME: &'static str = "weight";
    const KIND: &'static str = "a weight";
    const REMEDY: &'static str = "write a share such as 0.25, or a percentage such as 25";
    const BARE: bool = true;

    fn read(text: &str) -> Result<Self, Misfit> {
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if !number::is_number(text) {
            return Err(Misfit::Kind);
        }
        let large = || Misfit::range(format!("{} is no weight: more than 100", quote(text)), Self::REMEDY);
        if text.starts_with('-') && !number::equal(text, "0") {
            return Err(Misfit::range(format!("{} is below 0", quote(text)), Self::REMEDY));
        }
        if number::compare(text, "100") != Some(std::cmp::Ordering::Less) && !number::equal(text, "100") {
            return Err(large());
        }
        // No weight needs an exponent, but another program may write one.
        let plain = match text.trim_start_matches('-').split_once(['e', 'E']) {
            None => text.trim_start_matches('-').to_owned(),
            Some(_) => {
                let number: f64 = text.parse().map_err(|_| Misfit::Kind)?;
                format!("{number:.18}")
            }
        };
        let (whole, fraction) = plain.split_once('.').unwrap_or((&plain, ""));
        let fraction = fraction.trim_end_matches('0');
        if fraction.len() > 18 {
            return Err(Misfit::range(
                format!("{} has more than 18 decimals", quote(text)),
                "round it",
            ));
        }
        debug_assert!(digits(whole) && digits(fraction), "it is a number");
        let units = format!("{whole}{fraction:0<18}");
        units.parse().map(Self).map_err(|_| large())
    }
}

impl std::fmt::Display for Weight {
    /// With as many decimals as it needs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (whole, rest) = (self.0 / WEIGHT_ONE, self.0 % WEIGHT_ONE);
        if rest == 0 {
            return write!(f, "{whole}");
        }
        let decimals = format!("{rest:018}");
        write!(f, "{whole}.{}", decimals.trim_end_matches('0'))
    }
}

/// A value of any form, as compact JSON text: numbers and member names as written, in their order.
#[derive(Clone, Debug)]
pub struct Json(pub Box<RawValue>);

impl PartialEq for Json {
    fn eq(&self, other: &Self) -> bool {
        self.0.get() == other.0.get()
    }
}

impl Json {
    /// The JSON type, for a message.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self.0.get().as_bytes().first() {
            Some(b'"') => "a text",
            Some(b'{') => "an object",
            Some(b'[') => "a list",
            Some(b't' | b'f') => "a boolean",
            Some(b'n') | None => "null",
            Some(_) => "a number",
        }
    }
}

impl Decode for Json {
    fn decode(node: &Node<'_>, decoder: &mut Decoder<'_>) -> Option<Self> {
        let mut text = String::new();
        write_json(node, &mut text);
        match RawValue::from_string(text) {
            Ok(raw) => Some(Self(raw)),
            // What is written above is JSON.
            Err(error) => decoder.refuse(node.mark, format!("no JSON value: {error}"), "write JSON"),
        }
    }

    fn shape() -> Shape {
        Shape::Scalar("any value")
    }
}

fn write_json(node: &Node<'_>, text: &mut String) {
    let string = |value: &str| serde_json::Value::from(value).to_string();
    match &node.value {
        _ if node.is_null() => text.push_str("null"),
        Value::Plain(plain) if plain == "true" || plain == "false" => text.push_str(plain),
        Value::Plain(plain) if is_json_number(plain) => text.push_str(plain),
        Value::Plain(plain) | Value::Quoted(plain) => text.push_str(&string(plain)),
        Value::Sequence(items) => {
            text.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                write_json(item, text);
            }
            text.push(']');
        }
        Value::Mapping(entries) => {
            text.push('{');
            for (index, entry) in entries.iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                text.push_str(&string(&entry.key));
                text.push(':');
                write_json(&entry.value, text);
            }
            text.push('}');
        }
    }
}

// YAML's other spellings of numbers (`0123`, `.5`, `0x10`) stay the texts that they are.
fn is_json_number(plain: &str) -> bool {
    plain.starts_with(|c: char| c == '-' || c.is_ascii_digit())
        && serde_json::from_str::<serde::de::IgnoredAny>(plain).is_ok()
}

/// A variant as it is written.
#[derive(Clone, Debug, PartialEq)]
pub struct VariantSpec {
    /// Its name.
    pub name: String,
    /// Its share or percentage.
    pub weight: Weight,
    /// Its value, if it has one.
    pub value: Option<Json>,
    /// Where it is written.
    pub spot: Spot,
}

impl VariantSpec {
    /// Its weight in millionths, where all weights sum to `whole`: 1 or 100.
    #[must_use]
    pub fn millionths(&self, whole: u128) -> u32 {
        let unit = WEIGHT_ONE * whole / u128::from(BUCKETS);
        u32::try_from((self.weight.0 + unit / 2) / unit).unwrap_or(BUCKETS)
    }
}

/// The variants of a flag as they are written, at least one, their weights summing to 1 or 100.
#[derive(Clone, Debug, PartialEq)]
pub struct VariantsSpec {
    /// In the order of the text.
    pub list: Vec<VariantSpec>,
    /// What their weights sum to: 1 or 100.
    pub whole: u128,
}

record! {
    /// A variant in a list.
    struct Variant {
        /// Its name.
        name: Name,
        /// Its share, all summing to 1, or its percentage, all summing to 100.
        weight: Weight,
        /// What the flag comes to for whoever gets it: any JSON value.
        value: Option<Json>,
        /// Another name of `value`.
        config: Option<Json>,
    }
}

record! {
    /// A variant under its name.
    struct NamedVariant {
        /// Its share, all summing to 1, or its percentage, all summing to 100.
        weight: Weight,
        /// What the flag comes to for whoever gets it: any JSON value.
        value: Option<Json>,
        /// Another name of `value`.
        config: Option<Json>,
    }
}

impl Decode for VariantSpec {
    fn decode(node: &Node<'_>, decoder: &mut Decoder<'_>) -> Option<Self> {
        let Variant {
            name,
            weight,
            value,
            config,
        } = Variant::decode(node, decoder)?;
        variant(node, name, weight, (value, config), decoder)
    }

    fn shape() -> Shape {
        Variant::shape()
    }
}

fn variant(
    node: &Node<'_>,
    name: Name,
    weight: Weight,
    values: (Option<Json>, Option<Json>),
    decoder: &mut Decoder<'_>,
) -> Option<VariantSpec> {
    let value = match values {
        (Some(_), Some(_)) => {
            return decoder.refuse(
                node.mark,
                "`value` and `config` are two names of one thing",
                "remove one of the two",
            );
        }
        (value, config) => value.or(config),
    };
    Some(VariantSpec {
        name: name.0,
        weight,
        value,
        spot: Spot::of(node.mark, decoder),
    })
}

/// A variant under its name, before it has one.
struct Body(VariantSpec);

impl Decode for Body {
    fn decode(node: &Node<'_>, decoder: &mut Decoder<'_>) -> Option<Self> {
        let NamedVariant { weight, value, config } = NamedVariant::decode(node, decoder)?;
        variant(node, Name(String::new()), weight, (value, config), decoder).map(Self)
    }

    fn shape() -> Shape {
        NamedVariant::shape()
    }
}

impl Decode for VariantsSpec {
    fn decode(node: &Node<'_>, decoder: &mut Decoder<'_>) -> Option<Self> {
        let list = match &node.value {
            Value::Sequence(_) => Vec::<VariantSpec>::decode(node, decoder)?,
            Value::Mapping(entries) => {
                let mut whole = true;
                let mut list = Vec::with_capacity(entries.len());
                for entry in entries {
                    let name = Name::read(&entry.key).map_err(|misfit| {
                        let (what, remedy) = misfit.words::<Name>(&quote(&entry.key));
                        decoder.refuse::<()>(entry.mark, what, remedy);
                    });
                    match (name, decoder.member::<Body>(entry)) {
                        (Ok(name), Some(Body(variant))) => list.push(VariantSpec {
                            name: name.0,
                            ..variant
                        }),
                        _ => whole = false,
                    }
                }
                whole.then_some(list)?
            }
            Value::Plain(_) | Value::Quoted(_) => {
                let remedy = "write [{ name: control, weight: 1 }], or { control: { weight: 1 } }";
                return decoder.expected(node, "variants", remedy);
            }
        };
        whole(list, node, decoder)
    }

    fn shape() -> Shape {
        let named = Shape::Map {
            key: Name::NAME,
            value: Box::new(NamedVariant::shape()),
        };
        Shape::Union(vec![Shape::List(Box::new(Variant::shape())), named])
    }
}

/// What variants have to be together.
fn whole(list: Vec<VariantSpec>, node: &Node<'_>, decoder: &mut Decoder<'_>) -> Option<VariantsSpec> {
    if list.is_empty() {
        return decoder.refuse(node.mark, "no variants", "write at least one, or remove the member");
    }
    let mut good = true;
    let mut names = BTreeSet::new();
    for variant in &list {
        if !names.insert(&variant.name) {
            let what = format!("a second variant named {}", quote(&variant.name));
            decoder.refuse_at::<()>(variant.spot.place.clone(), what, "rename one of them");
            good = false;
        }
    }
    let valued: Vec<&VariantSpec> = list.iter().filter(|variant| variant.value.is_some()).collect();
    if !valued.is_empty() && valued.len() < list.len() {
        let bare = list.iter().find(|variant| variant.value.is_none());
        let bare = bare.map_or("", |variant| variant.name.as_str());
        let what = format!("{} has no value, and other variants have one", quote(bare));
        decoder.refuse::<()>(node.mark, what, "give every variant a value, or none");
        good = false;
    }
    let kind = |variant: &VariantSpec| variant.value.as_ref().map(Json::kind).unwrap_or_default();
    if let Some((first, other)) = valued.first().and_then(|first| {
        let other = valued.iter().find(|other| kind(other) != kind(first))?;
        Some((first, other))
    }) {
        let (a, b) = (quote(&first.name), quote(&other.name));
        let what = format!("{a} is {} and {b} is {}", kind(first), kind(other));
        decoder.refuse_at::<()>(
            other.spot.place.clone(),
            what,
            "give all variants values of one JSON type",
        );
        good = false;
    }
    let sum: u128 = list.iter().map(|variant| variant.weight.0).sum();
    let about = |whole: u128| sum.abs_diff(whole * WEIGHT_ONE) <= WEIGHT_ONE / 1_000_000;
    let Some(whole) = [1, 100].into_iter().find(|whole| about(*whole)) else {
        let what = format!("the weights sum to {}", Weight(sum));
        return decoder.refuse(
            node.mark,
            what,
            "write shares that sum to 1, or percentages that sum to 100",
        );
    };
    good.then_some(VariantsSpec { list, whole })
}
