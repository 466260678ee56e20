//! The flag file as it is written.
//!
//! Pure. In: the text of `config/features.yaml`. Out: a [`Layer`], and what is wrong with single members or with two of
//! one flag. What the layers mean together is left to `compile`.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::conditions::ConditionSpec;
use super::decode::{self, At, Decode, Decoder, Layered, Map, Misfit, Scalar, Shape, record, words};
pub use super::instant::Instant;
use super::layer::{Entry, Layer, Members, Setting, Sourced};
use super::problem::{Place, Problems, quote};
use super::spot::Spotted;
use super::targets::{Fallback, PrerequisiteSpec, RuleSpec, VariantsSpec};
use super::yaml::{Node, Step, Value, path_text};
use crate::engine::flags::Threshold;
use crate::engine::flags::bucket::{PercentError, parse_ten_thousandths};
use crate::engine::flags::model::{FlagType, Kind};
use crate::engine::flags::origin::Origin;
use crate::engine::flags::subjects::SubjectSet;
use crate::engine::vocab::{FlagKey, SUBJECT_LIMIT_BYTES, SegmentKey};

record! {
    /// The flag file.
    pub struct Document {
        /// The flags by key.
        features: Features = "{}",
        /// Experiments; none can be run yet, so only an empty map is taken.
        experiments: NoExperiments = "{}",
        /// Conditions with a name, for the rules of any flag.
        segments: Segments = "{}",
    }
}

record! {
    /// One flag. What is left out is unset, which is not the same as empty; `null` also unsets what the environment says.
    pub struct FlagRecord {
        /// What the flag is.
        r#type: Typed,
        /// What the flag is for: for people and for finding stale flags.
        kind: Soft<Kind>,
        /// What it does.
        description: Soft<String>,
        /// Who answers for it.
        owner: Soft<String>,
        /// Why it exists.
        purpose: Soft<String>,
        /// How it is taken back.
        rollback: Soft<String>,
        /// When it should be gone.
        expected_end: Soft<String>,
        /// Free texts; `kill_switch: "true"` switches the flag off before anything else is asked.
        metadata: Soft<Map<String, At<String>>>,
        /// Environment variables that set the flag, beside those that its key names.
        env: Soft<Vec<VariableName>>,
        /// True is on for everybody whom no list and no percentage decides about; false is off; unset leaves it to them.
        enabled: Soft<bool>,
        /// Another way to write `enabled`.
        status: Soft<Status>,
        /// Where the flag is on; unset is everywhere, an empty list nowhere.
        environments: Soft<Vec<String>>,
        /// The first instant of validity, or of the ramp of a gradual flag.
        start_date: Soft<Instant>,
        /// The first instant after the validity, or the end of the ramp of a gradual flag.
        end_date: Soft<Instant>,
        /// Points per day by which a gradual flag rises.
        gradual_increment: Soft<Increment>,
        /// Flags that are asked first; unless they answer as they must, this one is off.
        prerequisites: Soft<Vec<PrerequisiteSpec>>,
        /// Who never is on the new path.
        denylist: Soft<SubjectSet>,
        /// Who alone is on the new path; an empty list is nobody, left out is no list.
        allowlist: Soft<SubjectSet>,
        /// Who is on before any rule is asked.
        beta_users: Soft<SubjectSet>,
        /// Whom the flag targets: the first rule that matches decides.
        rules: Soft<Vec<RuleSpec>>,
        /// The percentage of subjects that is on the new path.
        percentage: Soft<Threshold>,
        /// Replaces the key in the hash, to give several flags the same people.
        cohort: Soft<FlagKey>,
        /// Between what a flag of type `variant` chooses; as a list, or a map by name in its order.
        variants: Soft<VariantsSpec>,
        /// What holds when nothing else decides; of a flag with variants the one for those who do not take part.
        default: Soft<Spotted<Fallback>>,
        /// Those for whom the flag is on are served by legacy and only copied to the new path.
        shadow_mode: Soft<bool>,
    }
}

words! {
    /// A flag's status.
    pub enum Status {
        /// `enabled: true`.
        Enabled = "ENABLED",
        /// `enabled: false`.
        Disabled = "DISABLED",
        /// `enabled` is unset: lists and percentage decide.
        Partial = "PARTIAL",
    }
}

/// The flags of a file. One that cannot be read is left out, so that the others are still checked together.
#[derive(Clone, Debug, Default)]
pub struct Features(pub Vec<(At<FlagKey>, FlagRecord)>);

impl Decode for Features {
    fn decode(node: &Node<'_>, decoder: &mut Decoder<'_>) -> Option<Self> {
        let mut flags = Vec::new();
        for entry in decoder.entries(node, "a map")? {
            let record = decoder.member(entry);
            match FlagKey::parse(&entry.key) {
                Ok(value) => flags.extend(record.map(|record| {
                    (
                        At {
                            value,
                            place: decoder.place(entry.mark),
                        },
                        record,
                    )
                })),
                Err(error) => {
                    let what = format!("{} is no flag's key: {error}", quote(&entry.key));
                    decoder.refuse::<()>(entry.mark, what, FlagKey::REMEDY);
                }
            }
        }
        Some(Self(flags))
    }

    fn shape() -> Shape {
        Shape::Map {
            key: FlagKey::NAME,
            value: Box::new(FlagRecord::shape()),
        }
    }
}

/// The segments of a file. One that cannot be read is left out, so that the others are still checked together.
#[derive(Clone, Debug, Default)]
pub struct Segments(pub Vec<(SegmentKey, Spotted<ConditionSpec>)>);

impl Decode for Segments {
    fn decode(node: &Node<'_>, decoder: &mut Decoder<'_>) -> Option<Self> {
        let mut segments = Vec::new();
        for entry in decoder.entries(node, "a map")? {
            let condition = decoder.member(entry);
            match SegmentKey::parse(&entry.key) {
                Ok(key) => segments.extend(condition.map(|condition| (key, condition))),
                Err(error) => {
                    let what = format!("{} is no segment's name: {error}", quote(&entry.key));
                    decoder.refuse::<()>(entry.mark, what, SegmentKey::REMEDY);
                }
            }
        }
        Some(Self(segments))
    }

    fn shape() -> Shape {
        Shape::Map {
            key: SegmentKey::NAME,
            value: Box::new(ConditionSpec::shape()),
        }
    }
}

/// A member of a layer, or `None` where what is written was refused: the rest of its flag is still checked.
#[derive(Clone, Debug)]
pub struct Soft<T>(pub Option<Layered<At<T>>>);

impl<T: Decode> Decode for Soft<T> {
    fn decode(node: &Node<'_>, decoder: &mut Decoder<'_>) -> Option<Self> {
        Some(Self(Layered::decode(node, decoder)))
    }

    fn absent() -> Option<Self> {
        Some(Self(Some(Layered::Inherit)))
    }

    fn shape() -> Shape {
        Layered::<At<T>>::shape()
    }
}

/// A flag's type, or none where the word was refused.
#[derive(Clone, Debug)]
pub struct Typed(pub Option<At<FlagType>>);

impl Decode for Typed {
    fn decode(node: &Node<'_>, decoder: &mut Decoder<'_>) -> Option<Self> {
        Some(Self(At::decode(node, decoder)))
    }

    fn shape() -> Shape {
        FlagType::shape()
    }
}

/// A section that has to be empty.
#[derive(Clone, Copy, Debug)]
pub struct NoExperiments;

impl Decode for NoExperiments {
    fn decode(node: &Node<'_>, decoder: &mut Decoder<'_>) -> Option<Self> {
        for entry in decoder.entries(node, "a map")? {
            decoder.later_key(entry);
        }
        Some(Self)
    }

    fn shape() -> Shape {
        Shape::Scalar("{}")
    }
}

impl Decode for FlagType {
    fn decode(node: &Node<'_>, decoder: &mut Decoder<'_>) -> Option<Self> {
        match Self::ALL.into_iter().find(|known| node.text() == Some(known.as_str())) {
            Some(known) => Some(known),
            None => decoder.expected_word(node, &Self::ALL.map(Self::as_str)),
        }
    }

    fn shape() -> Shape {
        let doc = |known| match known {
            Self::Boolean => "On or off; lists and a percentage may decide.",
            Self::Gradual => "Its percentage rises from `start_date` on.",
            Self::Percentage => "Its `percentage` decides, and has to be set.",
            Self::Targeted => "Its `rules` are what it is for; `enabled: true` alone is on for nobody.",
            Self::Variant => "It chooses between `variants`.",
        };
        Shape::words(Self::ALL.map(|known| (known.as_str(), doc(known))))
    }
}

impl Decode for Kind {
    fn decode(node: &Node<'_>, decoder: &mut Decoder<'_>) -> Option<Self> {
        match Self::ALL.into_iter().find(|known| node.text() == Some(known.as_str())) {
            Some(known) => Some(known),
            None => decoder.expected_word(node, &Self::ALL.map(Self::as_str)),
        }
    }

    fn shape() -> Shape {
        let doc = |known| match known {
            Self::Experiment => "To learn which of several is better.",
            Self::Operational => "To run the service; it stays.",
            Self::Permission => "To say who may use something.",
            Self::Release => "To bring something new to everybody; then it goes.",
        };
        Shape::words(Self::ALL.map(|known| (known.as_str(), doc(known))))
    }
}

/// The name of an environment variable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VariableName(pub String);

impl Scalar for VariableName {
    const NAME: &'static str = "variable name";
    const KIND: &'static str = "the name of an environment variable";
    const REMEDY: &'static str = "use letters, digits and `_`, not beginning with a digit";

    fn read(text: &str) -> Result<Self, Misfit> {
        let good = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        let begins_well = text.bytes().next().is_some_and(|byte| !byte.is_ascii_digit());
        if begins_well && text.bytes().all(good) {
            Ok(Self(text.to_owned()))
        } else {
            Err(Misfit::Kind)
        }
    }
}

/// Points per day, in units of 0.0001.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Increment(pub u64);

impl Scalar for Increment {
    const NAME: &'static str = "points per day";
    const KIND: &'static str = "a number of points per day";
    const REMEDY: &'static str = "write a number above 0, such as 10 or 2.5";
    const BARE: bool = true;

    fn read(text: &str) -> Result<Self, Misfit> {
        match parse_ten_thousandths(text) {
            Ok(0) => Err(Misfit::range("an increment of 0 never rises", Self::REMEDY)),
            Ok(units) => Ok(Self(units)),
            Err(PercentError::NotANumber) => Err(Misfit::Kind),
            Err(PercentError::OutOfRange) => {
                Err(Misfit::range(format!("{} is out of range", quote(text)), Self::REMEDY))
            }
            Err(error @ PercentError::TooFine) => Err(Misfit::range(
                format!("{} has {error}", quote(text)),
                "round it to four decimals",
            )),
        }
    }
}

/// A subject key in a list; only checked here, for lists are long.
struct SubjectText;

impl Scalar for SubjectText {
    const NAME: &'static str = "subject key";
    const KIND: &'static str = "a subject key";
    const REMEDY: &'static str = "write the key of one subject, in quotes if it is no plain word or number";

    fn read(text: &str) -> Result<Self, Misfit> {
        check_subject(text)
            .map(|()| Self)
            .map_err(|what| Misfit::range(what, Self::REMEDY))
    }
}

/// Whether a text can be a subject's key.
///
/// # Errors
/// Says why not.
pub(super) fn check_subject(text: &str) -> Result<(), String> {
    if text.is_empty() {
        return Err("an empty text is nobody's key".to_owned());
    }
    if text.len() > SUBJECT_LIMIT_BYTES {
        return Err(format!(
            "a key of {} bytes; a subject's key has at most {SUBJECT_LIMIT_BYTES}",
            text.len()
        ));
    }
    Ok(())
}

impl Decode for SubjectSet {
    fn decode(node: &Node<'_>, decoder: &mut Decoder<'_>) -> Option<Self> {
        let Value::Sequence(items) = &node.value else {
            return decoder.expected(
                node,
                "a list",
                "write `[a, b]`, or one `- key` a line; `[]` is an empty list",
            );
        };
        let mut whole = true;
        for (index, item) in items.iter().enumerate() {
            if item.text().is_none_or(|text| check_subject(text).is_err()) {
                whole &= decoder.item::<SubjectText>(index, item).is_some();
            }
        }
        whole.then(|| Self::collect(items.iter().map(|item| item.text().unwrap_or_default())))
    }

    fn shape() -> Shape {
        Shape::List(Box::new(SubjectText::shape()))
    }
}

impl Document {
    /// Reads a flag file.
    ///
    /// # Errors
    /// What is wrong goes to `problems`; `None` where so much is wrong that nothing could be read.
    #[must_use]
    pub fn parse(file: &Arc<str>, text: &str, problems: &mut Problems) -> Option<Self> {
        decode::decode(file, text, problems)
    }

    /// The file as a layer. What contradicts itself within one flag goes to `problems`.
    #[must_use]
    pub fn into_layer(self, problems: &mut Problems) -> Layer {
        let segments = self.segments.0.into_iter().collect();
        let mut flags = BTreeMap::new();
        for (key, record) in self.features.0 {
            let members = record.into_members(&key, problems);
            flags.insert(
                key.value,
                Entry {
                    place: key.place,
                    members,
                },
            );
        }
        Layer { flags, segments }
    }
}

impl FlagRecord {
    /// What the record says, as members of a layer. What contradicts itself goes to `problems`.
    pub(super) fn into_members(self, key: &At<FlagKey>, problems: &mut Problems) -> Members {
        let enabled = enabled(
            self.enabled.0.unwrap_or_default(),
            self.status.0.unwrap_or_default(),
            &key.value,
            problems,
        );
        if let Some(Layered::Set(metadata)) = &self.metadata.0 {
            check_kill_switch(&metadata.value, &key.value, problems);
        }
        let demanded_are_read = self.percentage.0.is_some()
            && self.start_date.0.is_some()
            && self.end_date.0.is_some()
            && self.gradual_increment.0.is_some()
            && self.variants.0.is_some()
            && self.default.0.is_some();
        let texts =
            |map: Map<String, At<String>>| map.0.into_iter().map(|(key, text)| (key.value, text.value)).collect();
        Members {
            // A type demands members; one that was refused must not be reported as missing too.
            flag_type: if demanded_are_read {
                sourced(self.r#type.0.map(Layered::Set), |word| word)
            } else {
                Layered::Inherit
            },
            kind: sourced(self.kind.0, |kind| kind),
            description: sourced(self.description.0, |text| text),
            owner: sourced(self.owner.0, |text| text),
            purpose: sourced(self.purpose.0, |text| text),
            rollback: sourced(self.rollback.0, |text| text),
            expected_end: sourced(self.expected_end.0, |text| text),
            metadata: sourced(self.metadata.0, texts),
            env: sourced(self.env.0, |names| names.into_iter().map(|name| name.0).collect()),
            enabled,
            environments: sourced(self.environments.0, |names| names),
            start_date: sourced(self.start_date.0, |instant| instant.0),
            end_date: sourced(self.end_date.0, |instant| instant.0),
            gradual_increment: sourced(self.gradual_increment.0, |increment| increment.0),
            prerequisites: sourced(self.prerequisites.0, |list| list),
            denylist: sourced(self.denylist.0, |list| list),
            allowlist: sourced(self.allowlist.0, |list| list),
            beta_users: sourced(self.beta_users.0, |list| list),
            rules: sourced(self.rules.0, |list| list),
            percentage: sourced(self.percentage.0, |threshold| threshold),
            cohort: sourced(self.cohort.0, |key| key),
            variants: sourced(self.variants.0, |list| list),
            default: sourced(self.default.0, |value| value),
            shadow_mode: sourced(self.shadow_mode.0, |value| value),
        }
    }
}

/// Where a value of the file stands.
fn origin(place: &Place) -> Origin {
    Origin::File {
        file: Arc::clone(&place.file),
        line: place.line,
        column: place.column,
    }
}

fn sourced<T, U>(written: Option<Layered<At<T>>>, read: impl FnOnce(T) -> U) -> Setting<U> {
    match written {
        None | Some(Layered::Inherit) => Layered::Inherit,
        Some(Layered::Unset) => Layered::Unset,
        Some(Layered::Set(At { value, place })) => Layered::Set(Sourced {
            value: read(value),
            origin: origin(&place),
        }),
    }
}

/// `enabled` and `status` are two names of one member; both may stand there if they say the same.
fn enabled(
    enabled: Layered<At<bool>>,
    status: Layered<At<Status>>,
    key: &FlagKey,
    problems: &mut Problems,
) -> Setting<bool> {
    let (by_status, place) = match status {
        Layered::Inherit => return sourced(Some(enabled), |on| on),
        Layered::Unset => (Layered::Unset, None),
        Layered::Set(At {
            value: Status::Partial,
            place,
        }) => (Layered::Unset, Some(place)),
        Layered::Set(At { value, place }) => (
            Layered::Set(At {
                value: value == Status::Enabled,
                place: place.clone(),
            }),
            Some(place),
        ),
    };
    let said = |layered: &Layered<At<bool>>| {
        if let Layered::Set(on) = layered {
            Some(on.value)
        } else {
            None
        }
    };
    if enabled == Layered::Inherit {
        return sourced(Some(by_status), |on| on);
    }
    if let Some(place) = place
        && said(&by_status) != said(&enabled)
    {
        let path = member_path(key, "status");
        problems.problem(place, path, "`status` and `enabled` disagree", "remove one of the two");
    }
    sourced(Some(enabled), |on| on)
}

fn check_kill_switch(metadata: &Map<String, At<String>>, key: &FlagKey, problems: &mut Problems) {
    let Some((_, text)) = metadata.0.iter().find(|(name, _)| name.value == KILL_SWITCH) else {
        return;
    };
    if text.value != "true" && text.value != "false" {
        let what = format!("expected `true` or `false`, found {}", quote(&text.value));
        let path = path_text(&[
            features(),
            Step::Key(key.to_string()),
            Step::Key("metadata".into()),
            Step::Key(KILL_SWITCH.into()),
        ]);
        problems.problem(
            text.place.clone(),
            path,
            what,
            "write kill_switch: \"true\" or remove it",
        );
    }
}

/// The member of `metadata` that kills a flag.
pub(super) const KILL_SWITCH: &str = "kill_switch";

fn features() -> Step {
    Step::Key("features".into())
}

/// The path of a flag's member in the file.
pub(super) fn member_path(key: &FlagKey, member: &str) -> String {
    path_text(&[features(), Step::Key(key.to_string()), Step::Key(member.into())])
}

/// The path of a flag in the file.
pub(super) fn flag_path(key: &FlagKey) -> String {
    path_text(&[features(), Step::Key(key.to_string())])
}
