//! `identity:` and `tenant:` as written: lists of sources. `config::identity` reads the tables that they name.
//!
//! Pure.

use http::HeaderName;

use crate::engine::identity::{Entry, Keying, Normalise, Plan, PlanError, Pointer, Source, jwt};
use crate::engine::ruleset::decode::{At, Decode, Decoder, Misfit, Scalar, Shape, record, words};
use crate::engine::ruleset::problem::Place;
use crate::engine::ruleset::yaml::{Node, Value};

use super::scalar::{FilePath, Name};

record! {
    /// One source of a key: exactly one of `header`, `cookie`, `query`, `path`, `form`, `json`, `jwt`; or `all` of several.
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
        /// A claim of a token in a header. The token is not verified: a claim routes, and proves nothing.
        jwt: Option<Jwt>,
        /// What is done to the value before it is a key; nothing if left out.
        normalise: Option<NormaliseAs>,
        /// A file that says whose the value is: lines `from,to`, such as a telephone number and a shopper's id; empty lines
        /// and lines that begin with `#` are passed over. `normalise` holds for the keys on the left, too. A value that it
        /// does not know is nobody's, and the entry names nobody. Read again when it changes. A relative path counts from
        /// the working directory.
        map: Option<At<FilePath>>,
        /// One entry of several sources, whose keys are united.
        all: Option<Vec<At<IdentitySource>>>,
    }
}

record! {
    /// A claim of a token in a header, `Bearer TOKEN` or the token alone, at most 16 KiB.
    pub struct Jwt {
        /// The header with this name.
        header: HeaderName = "authorization",
        /// The whole name of a claim, such as `sub` or `https://shop.example/id`; or, if it begins with `/`, a pointer to
        /// one, such as `/shop/customer`.
        claim: Claim,
    }
}

/// What names a claim.
#[derive(Clone, Debug)]
pub struct Claim(Pointer);

impl Scalar for Claim {
    const NAME: &'static str = "claim";
    const KIND: &'static str = "the name of a claim";
    const REMEDY: &'static str = "write a name such as sub, or a pointer such as /shop/customer";

    fn read(text: &str) -> Result<Self, Misfit> {
        jwt::claim(text)
            .map(Self)
            .map_err(|error| Misfit::range(error.to_string(), Self::REMEDY))
    }
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

/// A list of sources, tried in order.
#[derive(Clone, Debug)]
pub struct Identity(pub Vec<At<Listed>>);

/// One item of such a list.
#[derive(Clone, Debug)]
pub enum Listed {
    /// `all: [...]`
    All(Vec<Named>),
    /// One source.
    One(Named),
}

/// One source, and what is done to its values.
#[derive(Clone, Debug)]
pub struct Named {
    /// Where the values stand.
    pub source: Source,
    /// How they are spelt.
    pub normalise: Normalise,
    /// The file that says whose they are.
    pub map: Option<At<FilePath>>,
}

impl Identity {
    /// Every source in it.
    pub fn sources(&self) -> impl Iterator<Item = &Named> {
        self.0.iter().flat_map(|entry| entry.value.sources())
    }

    /// As the engine takes it, with what is done to the values of each source.
    #[must_use]
    pub fn entries(&self, keying: impl Fn(&Named) -> Keying) -> Vec<Entry> {
        let one = |named: &Named| (named.source.clone(), keying(named));
        let entries = self.0.iter().map(|entry| match &entry.value {
            Listed::All(members) => Entry::All(members.iter().map(one).collect()),
            Listed::One(named) => Entry::One(named.source.clone(), keying(named)),
        });
        entries.collect()
    }
}

impl Listed {
    fn sources(&self) -> &[Named] {
        match self {
            Self::All(sources) => sources,
            Self::One(source) => std::slice::from_ref(source),
        }
    }
}

impl Identity {
    /// These sources, if each is one and all together can be asked.
    fn of(sources: Vec<At<IdentitySource>>, node: &Node<'_>, decoder: &mut Decoder<'_>) -> Option<Self> {
        let mut entries = Vec::with_capacity(sources.len());
        let mut whole = true;
        for source in sources {
            let place = source.place.clone();
            match listed(source) {
                Ok(value) => entries.push(At { value, place }),
                Err((place, what)) => {
                    decoder.refuse_at::<()>(place, what, "write one source, such as `{ header: x-shopper-id }`");
                    whole = false;
                }
            }
        }
        if !whole {
            return None;
        }
        let list = Self(entries);
        let unmapped = list.entries(|source| Keying {
            normalise: source.normalise,
            map: None,
        });
        let Err(error) = Plan::compile(&unmapped) else {
            return Some(list);
        };
        let at = match error {
            PlanError::EmptyAll { entry } | PlanError::NoPointer { entry } | PlanError::PathZero { entry } => entry,
            PlanError::TooBroad | PlanError::TooManyPointers(_) => 0,
        };
        let place = list.0.get(at).map(|entry| entry.place.clone());
        decoder.refuse_at(place.unwrap_or_else(|| decoder.place(node.mark)), error.to_string(), "")
    }
}

impl Decode for Identity {
    fn decode(node: &Node<'_>, decoder: &mut Decoder<'_>) -> Option<Self> {
        let sources = Vec::decode(node, decoder)?;
        Self::of(sources, node, decoder)
    }

    fn shape() -> Shape {
        Vec::<IdentitySource>::shape()
    }
}

/// Where one attribute stands: a source, or several of which the first that finds anything counts.
#[derive(Clone, Debug)]
pub struct Attribute(pub Identity);

impl Decode for Attribute {
    fn decode(node: &Node<'_>, decoder: &mut Decoder<'_>) -> Option<Self> {
        let sources = match node.value {
            Value::Sequence(_) => Vec::decode(node, decoder)?,
            _ => vec![At::decode(node, decoder)?],
        };
        Identity::of(sources, node, decoder).map(Self)
    }

    fn shape() -> Shape {
        Shape::Union(vec![IdentitySource::shape(), Vec::<IdentitySource>::shape()])
    }
}

/// The name by which rules know an attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttributeName(pub String);

impl Scalar for AttributeName {
    const NAME: &'static str = "name";
    const KIND: &'static str = "the name of an attribute";
    const REMEDY: &'static str = "write it as rules do, such as country";

    fn read(text: &str) -> Result<Self, Misfit> {
        let fits = !text.is_empty() && text.len() <= 200 && !text.chars().any(char::is_control);
        fits.then(|| Self(text.to_owned())).ok_or(Misfit::Kind)
    }
}

type Wrong = (Place, &'static str);

fn listed(source: At<IdentitySource>) -> Result<Listed, Wrong> {
    let At {
        value: mut source,
        place,
    } = source;
    let Some(members) = source.all.take() else {
        return one(At { value: source, place }).map(Listed::One);
    };
    if source.normalise.is_some() || source.map.is_some() || given(source).next().is_some() {
        return Err((place, "`all` stands beside other keys"));
    }
    members.into_iter().map(one).collect::<Result<_, _>>().map(Listed::All)
}

fn one(
    At {
        value: mut source,
        place,
    }: At<IdentitySource>,
) -> Result<Named, Wrong> {
    if source.all.is_some() {
        return Err((place, "`all` stands within `all`"));
    }
    let normalise = match source.normalise {
        None => Normalise::AsWritten,
        Some(NormaliseAs::Digits) => Normalise::Digits,
        Some(NormaliseAs::Lower) => Normalise::Lower,
    };
    let map = source.map.take();
    let mut given = given(source);
    match (given.next(), given.next()) {
        (Some(source), None) => Ok(Named { source, normalise, map }),
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
        jwt,
        ..
    } = source;
    [
        header.map(Source::Header),
        cookie.map(|Name(name)| Source::Cookie(name)),
        query.map(|Name(name)| Source::Query(name)),
        path.map(Source::Path),
        form.map(|Name(name)| Source::Form(name)),
        json.map(|Pointers(pointers)| Source::Json(pointers)),
        jwt.map(|jwt| Source::Jwt(jwt.header, jwt.claim.0)),
    ]
    .into_iter()
    .flatten()
}
