//! The two declarations from which types, their decoding and their reference come: `record!` and `words!`.
//!
//! Pure. A member of a record is `name: Type` (required, unless the type says what it is when absent, as `Option` and
//! `Layered` do) or `name: Type = "text"`, whose default is the value that this text would give. A doc comment is not
//! optional: it becomes the reference. `later:` lists keys of features that this version does not have.

/// Declares a struct that is decoded from a map.
macro_rules! record {
    (
        $(#[doc = $doc:literal])+
        $vis:vis struct $name:ident {
            $(
                $(#[doc = $member_doc:literal])+
                $member:ident: $type:ty $(= $default:literal)?,
            )*
        }
        $(later: $($later:literal),+;)?
    ) => {
        $(#[doc = $doc])+
        #[derive(Clone, Debug)]
        #[allow(dead_code, reason = "a member whose only value is its default is there to be checked")]
        $vis struct $name {
            $(
                $(#[doc = $member_doc])+
                pub $member: $type,
            )*
        }

        impl $crate::engine::ruleset::decode::Decode for $name {
            fn decode(
                node: &$crate::engine::ruleset::yaml::Node<'_>,
                decoder: &mut $crate::engine::ruleset::decode::Decoder<'_>,
            ) -> Option<Self> {
                const KNOWN: &[&str] = &[$($crate::engine::ruleset::decode::record!(@key $member)),*];
                const LATER: &[&str] = &[$($($later),+)?];
                let entries = decoder.entries(node, "a map")?;
                for entry in entries {
                    if KNOWN.contains(&&*entry.key) {
                        continue;
                    }
                    if LATER.contains(&&*entry.key) { decoder.later_key(entry) } else { decoder.unknown_key(entry, KNOWN) }
                }
                $(
                    let key = $crate::engine::ruleset::decode::record!(@key $member);
                    let $member: Option<$type> = match entries.iter().find(|entry| entry.key == key) {
                        Some(entry) => decoder.member(entry),
                        None => $crate::engine::ruleset::decode::record!(
                            @absent decoder, key, $type, concat!($($member_doc, "\n"),+) $(, $default)?
                        ),
                    };
                )*
                Some(Self { $($member: $member?),* })
            }

            fn shape() -> $crate::engine::ruleset::decode::Shape {
                use $crate::engine::ruleset::decode::{Decode, Member, Need, RecordShape, Shape};
                Shape::Record(|| RecordShape {
                    name: stringify!($name),
                    doc: concat!($($doc, "\n"),+).trim().to_owned(),
                    members: vec![$(
                        Member {
                            name: $crate::engine::ruleset::decode::record!(@key $member),
                            doc: concat!($($member_doc, "\n"),+).trim().to_owned(),
                            shape: <$type as Decode>::shape(),
                            need: {
                                let need = if <$type as Decode>::absent().is_some() { Need::Optional } else { Need::Required };
                                $(let need = { let _ = need; Need::Default($default) };)?
                                need
                            },
                        },
                    )*],
                    others: None,
                })
            }
        }
    };
    // A member that is a word of the language is declared as `r#match`, `r#type`.
    (@key $member:ident) => {{
        const RAW: &str = stringify!($member);
        const KEY: &str = match RAW.as_bytes() {
            [b'r', b'#', ..] => RAW.split_at(2).1,
            _ => RAW,
        };
        KEY
    }};
    (@absent $decoder:ident, $key:ident, $type:ty, $doc:expr, $default:literal) => {
        $decoder.default::<$type>($key, $default)
    };
    (@absent $decoder:ident, $key:ident, $type:ty, $doc:expr) => {
        match <$type as $crate::engine::ruleset::decode::Decode>::absent() {
            Some(value) => Some(value),
            None => $decoder.missing($key, $doc),
        }
    };
}

/// Declares an enum that is decoded from one of its words.
macro_rules! words {
    (
        $(#[doc = $doc:literal])+
        pub enum $name:ident {
            $(
                $(#[doc = $word_doc:literal])+
                $word:ident = $text:literal,
            )+
        }
        $(later: $($later:literal),+;)?
    ) => {
        $(#[doc = $doc])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name {
            $(
                $(#[doc = $word_doc])+
                $word,
            )+
        }

        impl $name {
            /// The word as written.
            #[must_use]
            #[allow(dead_code, reason = "not every set of words is written back")]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $($name::$word => $text,)+
                }
            }
        }

        impl $crate::engine::ruleset::decode::Decode for $name {
            fn decode(
                node: &$crate::engine::ruleset::yaml::Node<'_>,
                decoder: &mut $crate::engine::ruleset::decode::Decoder<'_>,
            ) -> Option<Self> {
                const LATER: &[&str] = &[$($($later),+)?];
                let Some(text) = node.text() else {
                    return decoder.expected_word(node, &[$($text),+]);
                };
                match text {
                    $($text => Some($name::$word),)+
                    later if LATER.contains(&later) => decoder.later_word(node),
                    _ => decoder.expected_word(node, &[$($text),+]),
                }
            }

            fn shape() -> $crate::engine::ruleset::decode::Shape {
                use $crate::engine::ruleset::decode::{Shape, Word};
                Shape::Words(vec![$(Word { text: $text, doc: concat!($($word_doc),+) }),+])
            }
        }
    };
}

pub(crate) use {record, words};
