//! `identity:` and `tenant:` as written: lists of sources, compiled at once so that every mistake has its place.
//!
//! Pure.

use http::HeaderName;

use crate::engine::identity::{Entry, Normalise, Plan, PlanError, Pointer, Source};
use crate::engine::ruleset::decode::{At, Decode, Decoder, Shape, record, words};
use crate::engine::ruleset::problem::Place;
use crate::engine::ruleset::yaml::{Node, Value};

use super::scalar::Name;

record! {
    /// One source of a key: exactly one of `header`, `cookie`, `query`, `path`, `form`, `json`; or `all` of several.
    pub struct IdentitySource {
        /// A header with this name.
        header: Option<HeaderName>,
        /// A cookie with this name.
        cookie: Option<Name>,
        /// A parameter of the query with this name.
        query: Option<Name>,
        /// The segment of the path with this number, from 1.
        path: Option<usize>,
        /// A field of a form body with this name.
        form: Option<Name>,
        /// Places in a JSON body; those that share their `*` are alternatives.
        json: Option<Pointers>,
        /// What is done to the value before it is a key; nothing if left out.
        normalise: Option<NormaliseAs>,
        /// One entry of several sources, whose keys are united.
        all: Option<Vec<At<IdentitySource>>>,
    }
    later: "jwt", "map";
}

words! {
    /// What is done to a value before it is a key.
    pub enum NormaliseAs {
        /// A telephone number becomes its digits; a value with a letter stays as it is.
        Digits = "digits",
        /// Every letter becomes its lower case.
        Lower = "lower",
    }
}

/// One pointer, or a list of them.
#[derive(Clone, Debug)]
pub struct Pointers(Vec<Pointer>);

impl Decode for Pointers {
    fn decode(node: &Node<'_>, decoder: &mut Decoder<'_>) -> Option<Self> {
        match node.value {
            Value::Sequence(_) => Vec::decode(node, decoder).map(Self),
            _ => Pointer::decode(node, decoder).map(|pointer| Self(vec![pointer])),
        }
    }

    fn shape() -> Shape {
        Shape::Union(vec![Pointer::shape(), Vec::<Pointer>::shape()])
    }
}

/// A compiled list of sources, tried in order.
#[derive(Clone, Debug)]
pub struct Identity(pub Plan);

impl Decode for Identity {
    fn decode(node: &Node<'_>, decoder: &mut Decoder<'_>) -> Option<Self> {
        let sources = Vec::<At<IdentitySource>>::decode(node, decoder)?;
        let places: Vec<Place> = sources.iter().map(|source| source.place.clone()).collect();
        let mut entries = Vec::with_capacity(sources.len());
        let mut whole = true;
        for source in sources {
            match entry(source) {
                Ok(entry) => entries.push(entry),
                Err((place, what)) => {
                    decoder.refuse_at::<()>(place, what, "write one source, such as `{ header: x-shopper-id }`");
                    whole = false;
                }
            }
        }
        if !whole {
            return None;
        }
        match Plan::compile(&entries) {
            Ok(plan) => Some(Self(plan)),
            Err(error) => {
                let at = match error {
                    PlanError::EmptyAll { entry } | PlanError::NoPointer { entry } | PlanError::PathZero { entry } => {
                        entry
                    }
                    PlanError::TooBroad | PlanError::TooManyPointers(_) => 0,
                };
                let place = places.get(at).cloned().unwrap_or_else(|| decoder.place(node.mark));
                decoder.refuse_at(place, error.to_string(), "")
            }
        }
    }

    fn shape() -> Shape {
        Vec::<IdentitySource>::shape()
    }
}

type Misfit = (Place, &'static str);

fn entry(source: At<IdentitySource>) -> Result<Entry, Misfit> {
    let At {
        value: IdentitySource { all, .. },
        ..
    } = &source;
    if all.is_none() {
        return one(source).map(|(source, normalise)| Entry::One(source, normalise));
    }
    let At {
        value: mut source,
        place,
    } = source;
    let members = source.all.take().unwrap_or_default();
    if source.normalise.is_some() || given(source).next().is_some() {
        return Err((place, "`all` stands beside other keys"));
    }
    members.into_iter().map(one).collect::<Result<_, _>>().map(Entry::All)
}

fn one(At { value: source, place }: At<IdentitySource>) -> Result<(Source, Normalise), Misfit> {
    if source.all.is_some() {
        return Err((place, "`all` stands within `all`"));
    }
    let normalise = match source.normalise {
        None => Normalise::AsWritten,
        Some(NormaliseAs::Digits) => Normalise::Digits,
        Some(NormaliseAs::Lower) => Normalise::Lower,
    };
    let mut given = given(source);
    match (given.next(), given.next()) {
        (Some(source), None) => Ok((source, normalise)),
        (Some(_), Some(_)) => Err((place, "several sources in one entry")),
        (None, _) => Err((place, "an entry without a source")),
    }
}

fn given(source: IdentitySource) -> impl Iterator<Item = Source> {
    let IdentitySource {
        header,
        cookie,
        query,
        path,
        form,
        json,
        ..
    } = source;
    [
        header.map(Source::Header),
        cookie.map(|Name(name)| Source::Cookie(name)),
        query.map(|Name(name)| Source::Query(name)),
        path.map(Source::Path),
        form.map(|Name(name)| Source::Form(name)),
        json.map(|Pointers(pointers)| Source::Json(pointers)),
    ]
    .into_iter()
    .flatten()
}
