//! The operators of conditions: one attribute against one or several texts.
//!
//! Pure, without allocation and without a lock. What is written in a condition is a text. A number equals a text that is
//! wholly that number, exactly; two texts are never compared as numbers; a comparison that cannot be made is false.

use std::cmp::Ordering;
use std::net::IpAddr;

use ipnet::IpNet;
use regex_automata::dfa::{Automaton, StartKind, dense};
use regex_automata::{Anchored, Input, nfa::thompson};

use super::attributes::{Attribute, Value};
use super::semver::Version;
use crate::engine::number;

/// The most memory that one pattern may take, in bytes.
pub const PATTERN_LIMIT_BYTES: usize = 4 * 1024 * 1024;

/// How an attribute is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(missing_docs, reason = "each is the word that `as_str` gives")]
pub enum Operator {
    Equals,
    NotEquals,
    In,
    NotIn,
    Contains,
    GreaterThan,
    LessThan,
    StartsWith,
    EndsWith,
    SemverEquals,
    SemverGreaterThan,
    SemverLessThan,
    Cidr,
    Regex,
}

impl Operator {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::Equals,
        Self::NotEquals,
        Self::In,
        Self::NotIn,
        Self::Contains,
        Self::GreaterThan,
        Self::LessThan,
        Self::StartsWith,
        Self::EndsWith,
        Self::SemverEquals,
        Self::SemverGreaterThan,
        Self::SemverLessThan,
        Self::Cidr,
        Self::Regex,
    ];

    /// The word in a condition.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Equals => "equals",
            Self::NotEquals => "not_equals",
            Self::In => "in",
            Self::NotIn => "not_in",
            Self::Contains => "contains",
            Self::GreaterThan => "greater_than",
            Self::LessThan => "less_than",
            Self::StartsWith => "starts_with",
            Self::EndsWith => "ends_with",
            Self::SemverEquals => "semver_equals",
            Self::SemverGreaterThan => "semver_greater_than",
            Self::SemverLessThan => "semver_less_than",
            Self::Cidr => "cidr",
            Self::Regex => "regex",
        }
    }

    /// Whether an absent attribute satisfies it, and no value may match.
    #[must_use]
    pub const fn is_negative(self) -> bool {
        matches!(self, Self::NotEquals | Self::NotIn)
    }
}

/// Why a text is no value for an operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfit {
    /// Which of the values.
    pub index: usize,
    /// What is wrong with it.
    pub what: String,
    /// What to do.
    pub remedy: &'static str,
}

/// An operator and its values, compiled.
#[derive(Clone, Debug)]
pub struct Test {
    negative: bool,
    positive: Positive,
}

#[derive(Clone, Debug)]
enum Positive {
    Cidr(Box<[IpNet]>),
    Contains(Texts),
    EndsWith(Box<[Box<str>]>),
    Equals(Texts),
    Ordered(Ordering, Box<[Box<str>]>),
    Regex(Box<[dense::DFA<Vec<u32>>]>),
    Semver(Ordering, Box<[Box<str>]>),
    StartsWith(Box<[Box<str>]>),
}

/// Texts that are looked for exactly.
#[derive(Clone, Debug)]
struct Texts {
    /// Sorted, each once.
    sorted: Box<[Box<str>]>,
    /// Those that are wholly a number.
    numbers: Box<[Box<str>]>,
}

impl Texts {
    fn new(values: &[String]) -> Self {
        let mut sorted: Vec<Box<str>> = values.iter().map(|value| value.as_str().into()).collect();
        sorted.sort_unstable();
        sorted.dedup();
        let numbers = sorted.iter().filter(|text| number::is_number(text)).cloned().collect();
        Self {
            sorted: sorted.into(),
            numbers,
        }
    }

    fn have(&self, text: &str) -> bool {
        self.sorted.binary_search_by(|known| (**known).cmp(text)).is_ok()
    }

    fn equal(&self, attribute: Attribute<'_>) -> bool {
        match attribute {
            Attribute::Bool(on) => self.have(if on { "true" } else { "false" }),
            Attribute::Number(text) => self.numbers.iter().any(|known| number::equal(known, text)),
            Attribute::Text(text) => self.have(text),
            Attribute::List(_) | Attribute::Opaque => false,
        }
    }
}

impl Test {
    /// Compiles an operator and its values. What is no number is never more or less than anything, and is left out.
    ///
    /// # Errors
    /// [`Unfit`] for the first value that the operator cannot use.
    pub fn compile(operator: Operator, values: &[String]) -> Result<Self, Unfit> {
        let texts = || values.iter().map(|value| value.as_str().into()).collect();
        let positive = match operator {
            Operator::Equals | Operator::NotEquals | Operator::In | Operator::NotIn => {
                Positive::Equals(Texts::new(values))
            }
            Operator::Contains => Positive::Contains(Texts::new(values)),
            Operator::StartsWith => Positive::StartsWith(texts()),
            Operator::EndsWith => Positive::EndsWith(texts()),
            Operator::GreaterThan | Operator::LessThan => {
                let numbers = values.iter().filter(|text| number::is_number(text));
                Positive::Ordered(order(operator), numbers.map(|text| text.as_str().into()).collect())
            }
            Operator::SemverEquals | Operator::SemverGreaterThan | Operator::SemverLessThan => {
                let remedy = "write three numbers, such as 2.10.0 or 3.0.0-rc.1";
                each(
                    values,
                    |text| Version::parse(text).map(drop).ok_or("no semantic version"),
                    remedy,
                )?;
                Positive::Semver(order(operator), texts())
            }
            Operator::Cidr => {
                let remedy = "write an address and a prefix, such as 10.0.0.0/8 or 2001:db8::/32";
                Positive::Cidr(each(values, |text| network(text).ok_or("no network"), remedy)?.into())
            }
            Operator::Regex => Positive::Regex(patterns(values)?.into()),
        };
        Ok(Self {
            negative: operator.is_negative(),
            positive,
        })
    }

    /// Whether an attribute satisfies it; `None` is an absent one.
    #[must_use]
    pub fn holds(&self, attribute: Option<Attribute<'_>>) -> bool {
        let Some(attribute) = attribute else {
            return self.negative;
        };
        let matches = match attribute {
            Attribute::List(list) => list
                .iter()
                .filter_map(Value::attribute)
                .any(|item| self.positive.matches(item, true)),
            single => self.positive.matches(single, false),
        };
        matches != self.negative
    }
}

impl Positive {
    fn matches(&self, attribute: Attribute<'_>, in_list: bool) -> bool {
        match (self, attribute) {
            (Self::Equals(texts), attribute) => texts.equal(attribute),
            // A list is asked for membership.
            (Self::Contains(texts), attribute) if in_list => texts.equal(attribute),
            (Self::Contains(texts), Attribute::Text(text)) => texts.sorted.iter().any(|part| text.contains(&**part)),
            (Self::Ordered(wanted, values), Attribute::Number(text)) => {
                values.iter().any(|value| number::compare(text, value) == Some(*wanted))
            }
            (Self::StartsWith(values), Attribute::Text(text)) => values.iter().any(|part| text.starts_with(&**part)),
            (Self::EndsWith(values), Attribute::Text(text)) => values.iter().any(|part| text.ends_with(&**part)),
            (Self::Semver(wanted, values), Attribute::Text(text)) => Version::parse(text).is_some_and(|version| {
                let known = values.iter().filter_map(|value| Version::parse(value));
                known.into_iter().any(|known| version.compare(&known) == *wanted)
            }),
            (Self::Cidr(networks), Attribute::Text(text)) => text.parse::<IpAddr>().is_ok_and(|address| {
                let address = address.to_canonical();
                networks.iter().any(|network| network.contains(&address))
            }),
            (Self::Regex(patterns), Attribute::Text(text)) => patterns.iter().any(|pattern| found(pattern, text)),
            _ => false,
        }
    }
}

const fn order(operator: Operator) -> Ordering {
    match operator {
        Operator::GreaterThan | Operator::SemverGreaterThan => Ordering::Greater,
        Operator::LessThan | Operator::SemverLessThan => Ordering::Less,
        _ => Ordering::Equal,
    }
}

fn each<T>(
    values: &[String],
    read: impl Fn(&str) -> Result<T, &'static str>,
    remedy: &'static str,
) -> Result<Vec<T>, Unfit> {
    let unfit = |index, text: &str, what| Unfit {
        index,
        what: format!("{} is {what}", quoted(text)),
        remedy,
    };
    let read = values
        .iter()
        .enumerate()
        .map(|(index, text)| read(text).map_err(|what| unfit(index, text, what)));
    read.collect()
}

/// A network, or one address.
fn network(text: &str) -> Option<IpNet> {
    if let Ok(network) = text.parse::<IpNet>() {
        return Some(network);
    }
    text.parse::<IpAddr>()
        .ok()
        .map(|address| IpNet::from(address.to_canonical()))
}

// A dense automaton asks for no scratch memory while it searches, so it neither allocates nor waits for another thread.
fn patterns(values: &[String]) -> Result<Vec<dense::DFA<Vec<u32>>>, Unfit> {
    let limits = dense::Config::new()
        .start_kind(StartKind::Unanchored)
        .dfa_size_limit(Some(PATTERN_LIMIT_BYTES))
        .determinize_size_limit(Some(PATTERN_LIMIT_BYTES));
    let size = thompson::Config::new().nfa_size_limit(Some(PATTERN_LIMIT_BYTES));
    let mut builder = dense::Builder::new();
    builder.configure(limits).thompson(size);
    let compile = |(index, text): (usize, &String)| {
        builder.build(text).map_err(|error| {
            let too_large = error.is_size_limit_exceeded();
            let error = source_of(&error);
            let (what, remedy) = if too_large || error.contains("exceeded limit") || error.contains("too many") {
                ("is too large a pattern".to_owned(), "shorten it, or repeat less of it")
            } else {
                // Only such a boundary cannot be told without looking back at many bytes.
                let remedy = if error.contains("word bound") {
                    r"write (?-u:\b) for the bounds of ASCII words"
                } else {
                    "correct it; backslashes stay as they are in single quotes"
                };
                (format!("is no pattern: {error}"), remedy)
            };
            Unfit {
                index,
                what: format!("{} {what}", quoted(text)),
                remedy,
            }
        })
    };
    values.iter().enumerate().map(compile).collect()
}

/// What an error says, on one line: its innermost cause, without the drawing of where.
fn source_of(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    let text = innermost.to_string();
    let last = text
        .lines()
        .map(str::trim)
        .rfind(|line| !line.is_empty())
        .unwrap_or_default();
    last.strip_prefix("error: ").unwrap_or(last).to_owned()
}

fn quoted(text: &str) -> String {
    let short: String = text.chars().take(60).flat_map(char::escape_debug).collect();
    format!("`{short}`")
}

fn found(pattern: &dense::DFA<Vec<u32>>, text: &str) -> bool {
    let input = Input::new(text).anchored(Anchored::No).earliest(true);
    matches!(pattern.try_search_fwd(&input), Ok(Some(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn test(operator: Operator, values: &[&str]) -> Test {
        let values: Vec<String> = values.iter().map(|value| (*value).to_owned()).collect();
        Test::compile(operator, &values).unwrap()
    }

    #[test]
    fn patterns_that_cannot_be_used_say_why() {
        let unfit = |pattern: &str| Test::compile(Operator::Regex, &["a".to_owned(), pattern.to_owned()]).unwrap_err();
        let broken = unfit("a(b");
        assert_eq!(
            (broken.index, broken.what.contains("unclosed group")),
            (1, true),
            "{broken:?}"
        );
        let large = unfit("(a{1000}){1000}");
        assert!(large.what.contains("too large"), "{large:?}");
        let bound = unfit(r"\bshop\b");
        assert!(bound.remedy.contains("(?-u:"), "{bound:?}");
        assert!(unfit(r"\w{200}[a-z]{300}\d{400}").what.contains("too large"));
    }

    #[test]
    fn pattern_is_found_anywhere_in_a_text_of_any_language() {
        let pattern = test(Operator::Regex, &[r"(?i)São|^x\d+$", r"(?-u:\b)eu(?-u:\b)"]);
        for (text, found) in [
            ("em são paulo", true),
            ("x12", true),
            ("ax12", false),
            ("de eu 1", true),
            ("neutral", false),
        ] {
            assert_eq!(pattern.holds(Some(Attribute::Text(text))), found, "{text}");
        }
        assert!(!pattern.holds(Some(Attribute::Number("12"))));
    }

    #[test]
    fn values_that_an_operator_cannot_use_are_refused() {
        for (operator, value) in [
            (Operator::SemverEquals, "1.2"),
            (Operator::Cidr, "10.0.0.0/33"),
            (Operator::Cidr, "localhost"),
        ] {
            assert!(
                Test::compile(operator, &[value.to_owned()]).is_err(),
                "{operator:?} {value}"
            );
        }
    }

    #[test]
    fn addresses_match_in_either_spelling() {
        let networks = test(Operator::Cidr, &["10.0.0.0/8", "192.168.1.7", "2001:db8::/32"]);
        for (text, inside) in [
            ("10.1.2.3", true),
            ("::ffff:10.1.2.3", true),
            ("11.0.0.1", false),
            ("192.168.1.7", true),
            ("192.168.1.8", false),
            ("2001:db8:1::1", true),
            ("10.1.2", false),
            ("", false),
        ] {
            assert_eq!(networks.holds(Some(Attribute::Text(text))), inside, "{text}");
        }
    }
}
