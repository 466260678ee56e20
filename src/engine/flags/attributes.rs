//! What is known of a request or a context besides its subject: the attributes that targeting rules ask.
//!
//! Pure. Asking borrows and allocates nothing: a caller keeps its attributes as it has them and answers by name
//! ([`Attributes`]). [`Context`] keeps those of a JSON object, with every number as it was written.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// One attribute as rules see it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Attribute<'a> {
    /// True or false.
    Bool(bool),
    /// Several; a positive operator is satisfied by any of them.
    List(&'a [Value]),
    /// A decimal number as it was written: exact, however large.
    Number(&'a str),
    /// Something that no operator compares: a JSON object, a list within a list.
    Opaque,
    /// A text.
    Text(&'a str),
}

/// Whoever knows attributes by their names. `null` and what nobody knows is `None`.
pub trait Attributes: fmt::Debug + Sync {
    /// The attribute of this name, matched exactly.
    fn attribute(&self, name: &str) -> Option<Attribute<'_>>;
}

/// Nothing is known.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoAttributes;

impl Attributes for NoAttributes {
    fn attribute(&self, _name: &str) -> Option<Attribute<'_>> {
        None
    }
}

/// An attribute that somebody keeps.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// True or false.
    Bool(bool),
    /// Several.
    List(Box<[Value]>),
    /// `null`: absent.
    Null,
    /// A decimal number as it was written.
    Number(Box<str>),
    /// Something that no operator compares.
    Opaque,
    /// A text.
    Text(Box<str>),
}

impl Value {
    fn bytes(&self) -> usize {
        match self {
            Self::Number(text) | Self::Text(text) => text.len(),
            Self::List(list) => list.iter().map(|value| value.bytes() + size_of::<Self>()).sum(),
            Self::Bool(_) | Self::Null | Self::Opaque => 0,
        }
    }

    /// The attribute as rules see it; `null` is absent.
    #[must_use]
    pub fn attribute(&self) -> Option<Attribute<'_>> {
        match self {
            Self::Bool(on) => Some(Attribute::Bool(*on)),
            Self::List(list) => Some(Attribute::List(list)),
            Self::Null => None,
            Self::Number(text) => Some(Attribute::Number(text)),
            Self::Opaque => Some(Attribute::Opaque),
            Self::Text(text) => Some(Attribute::Text(text)),
        }
    }

    /// Reads one JSON value. Lists are kept one level deep, objects not at all: no operator compares what is in them.
    ///
    /// # Errors
    /// What the JSON reader says about a text that is no JSON.
    pub fn from_json(text: &str) -> Result<Self, serde_json::Error> {
        Self::read(text, true)
    }

    fn read(text: &str, lists: bool) -> Result<Self, serde_json::Error> {
        let text = text.trim_ascii();
        Ok(match text.as_bytes().first() {
            Some(b'"') => Self::Text(serde_json::from_str(text)?),
            Some(b'[') if lists => {
                let items: Vec<&RawValue> = serde_json::from_str(text)?;
                let items = items.into_iter().map(|item| Self::read(item.get(), false));
                Self::List(items.collect::<Result<_, _>>()?)
            }
            Some(b'-' | b'0'..=b'9') => {
                let number: &RawValue = serde_json::from_str(text)?;
                Self::Number(number.get().into())
            }
            Some(b't' | b'f') => Self::Bool(serde_json::from_str(text)?),
            Some(b'n') => serde_json::from_str::<()>(text).map(|()| Self::Null)?,
            _ => serde_json::from_str::<serde::de::IgnoredAny>(text).map(|_| Self::Opaque)?,
        })
    }
}

/// The attributes of a JSON object.
///
/// Shape: any object, as text to [`serde_json::from_str`] or as the whole type of a member (not flattened, not
/// untagged: numbers are kept as they were written). Of two members with one name the later stands. What lies deeper than a
/// list's items is passed over.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Context {
    /// Sorted by name.
    members: Vec<(Box<str>, Value)>,
}

impl Context {
    /// The bytes of its texts, names included.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.members
            .iter()
            .map(|(name, value)| name.len() + value.bytes())
            .sum()
    }

    /// A context of these members; of two with one name the later stands.
    pub fn collect(members: impl IntoIterator<Item = (Box<str>, Value)>) -> Self {
        let mut members: Vec<_> = members.into_iter().collect();
        members.reverse();
        members.sort_by(|a, b| a.0.cmp(&b.0));
        members.dedup_by(|a, b| a.0 == b.0);
        Self { members }
    }

    /// The member of this name, `null` included.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Value> {
        let at = self.members.binary_search_by(|(known, _)| (**known).cmp(name)).ok()?;
        self.members.get(at).map(|(_, value)| value)
    }

    /// The text of a member; of a number its digits as written.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        match self.get(name)? {
            Value::Number(text) | Value::Text(text) => Some(text),
            Value::Bool(_) | Value::List(_) | Value::Null | Value::Opaque => None,
        }
    }

    /// The members in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.members.iter().map(|(name, value)| (&**name, value))
    }
}

impl Attributes for Context {
    fn attribute(&self, name: &str) -> Option<Attribute<'_>> {
        self.get(name).and_then(Value::attribute)
    }
}

impl<'de> Deserialize<'de> for Context {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Context;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Context, M::Error> {
                let mut members = Vec::new();
                while let Some((name, raw)) = map.next_entry::<Box<str>, Box<RawValue>>()? {
                    let value = Value::from_json(raw.get()).map_err(serde::de::Error::custom)?;
                    members.push((name, value));
                }
                Ok(Context::collect(members))
            }
        }
        deserializer.deserialize_map(Members)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context(json: &str) -> Context {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn numbers_keep_every_digit_and_their_spelling() {
        let known = context(r#"{"big": 9007199254740993, "float": 1.0, "exp": 1e400, "id": -0.10}"#);
        for (name, text) in [
            ("big", "9007199254740993"),
            ("float", "1.0"),
            ("exp", "1e400"),
            ("id", "-0.10"),
        ] {
            assert_eq!(known.attribute(name), Some(Attribute::Number(text)));
        }
    }

    #[test]
    fn every_kind_of_value_is_told_apart() {
        let known = context(r#"{"t": "a\"b", "y": true, "n": null, "o": {"a": 1}, "l": [1, "x", [2], null]}"#);
        assert_eq!(known.attribute("t"), Some(Attribute::Text("a\"b")));
        assert_eq!(known.attribute("y"), Some(Attribute::Bool(true)));
        assert_eq!(known.attribute("n"), None);
        assert_eq!(known.attribute("nowhere"), None);
        assert_eq!(known.attribute("o"), Some(Attribute::Opaque));
        let list = [
            Value::Number("1".into()),
            Value::Text("x".into()),
            Value::Opaque,
            Value::Null,
        ];
        assert_eq!(known.attribute("l"), Some(Attribute::List(&list)));
        assert_eq!((known.text("t"), known.text("y")), (Some("a\"b"), None));
    }

    #[test]
    fn of_two_members_with_one_name_the_later_stands() {
        let known = context(r#"{"a": 1, "b": 2, "a": 3}"#);
        assert_eq!(known.text("a"), Some("3"));
        assert_eq!(known.iter().count(), 2);
    }

    #[test]
    fn what_is_no_object_is_refused() {
        for json in [
            "[]",
            "1",
            "\"a\"",
            "{",
            r#"{"a": tru}"#,
            r#"{"a": 01}"#,
            r#"{"a": [1,}"#,
        ] {
            assert!(serde_json::from_str::<Context>(json).is_err(), "{json}");
        }
        let deep = format!(r#"{{"a": {}1{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
        let item = Value::List([Value::Opaque].into());
        assert_eq!(context(&deep).get("a"), Some(&item), "passed over, however deep");
    }
}
