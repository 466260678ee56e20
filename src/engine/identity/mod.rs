//! Names the shoppers that a request is for, and by the same means the business it is meant for.
//!
//! Pure. In: what a route's `identity:` and `tenant:` lists say ([`Entry`]), compiled once into a [`Plan`], and per request
//! a [`RequestView`]. Out: [`Subjects`], or why there are none ([`Nobody`]). What a request without identity or with several
//! shoppers means is left to `decide`.
//!
//! The rules, beside those that each type states:
//! - Entries are asked in order; the first that yields a key wins. Its keys are handed out distinct: sources in the order in
//!   which an `all` names them, and each source's keys in the order of the request. For JSON that is the order of arrays
//!   alone, so a body whose members were reordered names the same subjects in the same order.
//! - An empty value is no identity. Neither is a key over 1,024 bytes, a value that is not UTF-8, a token that cannot be
//!   read, or a value that the entry's table does not know, and the keys beside it in the same entry do not decide for its
//!   shopper: the entry yields nothing, and the next one is asked.
//! - A name that a query, form, header or cookie repeats has several values, each a subject. A JSON object that has a member
//!   twice on the way to an identity names nobody, and no later entry is asked: two parsers would see two shoppers. Beyond
//!   4,096 distinct subjects the same holds.
//! - A body that is not wholly JSON yields nothing by JSON pointer, wherever the fault is: `not_readable`. JSON is tried
//!   whatever `content-type` says, a form only in a body that says it is one. An empty body names nobody and is not
//!   unreadable.
//! - A JSON text or number is a value, the number as written (`115310627314723954`, `1e3`). `true`, `false`, `null`, objects
//!   and arrays are none.
//!
//! Speed: `benches/identity.rs`.

pub mod attributes;
mod fields;
mod json;
pub mod jwt;
mod keying;
mod mapping;
mod normalise;
mod pointer;
mod subjects;
#[cfg(test)]
mod tests;
mod tree;

use std::ops::Range;

use http::{HeaderMap, HeaderName};

pub use keying::Keying;
pub use mapping::{BadLine, Mapping, MappingError};
pub use normalise::Normalise;
pub use pointer::{Pointer, PointerError, SEGMENT_LIMIT};
pub use subjects::{Nobody, SUBJECT_COUNT_LIMIT, Subjects};

use fields::Value;
use subjects::Found;
use tree::{Builder, Lanes, POINTER_LIMIT, Tree};

/// What of a request can name somebody.
#[derive(Clone, Copy, Debug)]
pub struct RequestView<'a> {
    /// As on the wire, without the query.
    pub path: &'a str,
    /// Behind the first `?`, as on the wire.
    pub query: Option<&'a str>,
    /// All of them, repeated ones too.
    pub headers: &'a HeaderMap,
    /// The whole body (empty if there is none), or `None` while it is not captured.
    pub body: Option<&'a [u8]>,
}

/// Where a value stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A cookie with this name, which is compared exactly.
    Cookie(String),
    /// A field of a form body with this name.
    Form(String),
    /// A header with this name.
    Header(HeaderName),
    /// A claim of the token in a header with this name. The token is not verified.
    Jwt(HeaderName, Pointer),
    /// Places in a JSON body.
    ///
    /// Pointers that are alike up to their last `*` are alternatives: in each member that the `*` stands for, the first that
    /// finds a value counts. So `/messages/*/from` and `/messages/*/from_user_id` give one subject per message. Pointers of
    /// which the `*` differ form groups, and the first group that yields anything counts.
    Json(Vec<Pointer>),
    /// The segment of the path with this number, from 1, percent-decoded.
    Path(usize),
    /// A parameter of the query with this name.
    Query(String),
}

/// One item of an `identity:` or `tenant:` list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// `all: [...]`: the values of all its members, united.
    All(Vec<(Source, Keying)>),
    /// One source.
    One(Source, Keying),
}

/// Why a list cannot be compiled. `entry` is the index of the entry in the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// `all: []`.
    #[error("`all` needs at least one member")]
    EmptyAll {
        /// The entry at fault.
        entry: usize,
    },
    /// `json: []`.
    #[error("`json` needs at least one pointer")]
    NoPointer {
        /// The entry at fault.
        entry: usize,
    },
    /// `path: 0`.
    #[error("path segments are counted from 1")]
    PathZero {
        /// The entry at fault.
        entry: usize,
    },
    /// Pointers that mix `*` and numbers at the same depth so often that their combinations are too many.
    #[error("these pointers mix `*` and numbers in too many combinations; name fewer members by number")]
    TooBroad,
    /// More than 64 pointers in one list of entries.
    #[error("at most 64 pointers fit one list, this one has {0}")]
    TooManyPointers(usize),
}

/// A compiled `identity:` or `tenant:` list. The default is the empty list, which never finds anybody.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    entries: Box<[Box<[Reader]>]>,
    /// The pointers of all entries, so that a body is read once.
    tree: Tree,
}

/// One source, ready to be read.
#[derive(Clone, Debug)]
enum Reader {
    Field(Field, Keying),
    /// Groups of pointers; the first that yields anything counts.
    Json(Range<usize>),
}

#[derive(Clone, Debug)]
enum Field {
    Cookie(Box<str>),
    Form(Box<str>),
    Header(HeaderName),
    /// The claim is the only pointer of its tree, which has the keying, too.
    Jwt(HeaderName, Box<Tree>),
    Path(usize),
    Query(Box<str>),
}

/// What a plan found in a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Extraction {
    /// The body decides, and it is not captured: capture it and ask again, or ask [`Plan::extract_without_body`].
    NeedsBody,
    /// Nobody, and why. Of several reasons, the one that was met first and says more than that nothing matched.
    Nobody(Nobody),
    /// Somebody.
    Subjects(Subjects),
}

impl Plan {
    /// Compiles a list of entries.
    ///
    /// # Errors
    /// [`PlanError`], of which each names something that the list may not say.
    pub fn compile(entries: &[Entry]) -> Result<Self, PlanError> {
        let mut builder = Builder::default();
        let mut compiled: Vec<Box<[Reader]>> = Vec::with_capacity(entries.len());
        for (index, entry) in entries.iter().enumerate() {
            let readers: Result<Box<[_]>, _> = match entry {
                Entry::All(members) if members.is_empty() => return Err(PlanError::EmptyAll { entry: index }),
                Entry::All(members) => members
                    .iter()
                    .map(|(source, keying)| reader(&mut builder, index, source, keying))
                    .collect(),
                Entry::One(source, keying) => reader(&mut builder, index, source, keying).map(|one| [one].into()),
            };
            compiled.push(readers?);
        }
        if builder.len() > POINTER_LIMIT {
            return Err(PlanError::TooManyPointers(builder.len()));
        }
        Ok(Self {
            entries: compiled.into(),
            tree: builder.build().ok_or(PlanError::TooBroad)?,
        })
    }

    /// Whether the list is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether some entry reads the body, so that a request may answer [`Extraction::NeedsBody`].
    #[must_use]
    pub fn needs_body(&self) -> bool {
        let reads_body = |reader: &Reader| matches!(reader, Reader::Json(_) | Reader::Field(Field::Form(_), _));
        self.entries.iter().any(|readers| readers.iter().any(reads_body))
    }

    /// Names whom the request is for. The body is asked for only if no entry before those that read it yields anybody.
    #[must_use]
    pub fn extract(&self, view: &RequestView<'_>) -> Extraction {
        self.ask(view, view.body.map_or(Body::Awaited, Body::Here))
    }

    /// Like [`Plan::extract`], for a request of which the body will never be captured: entries that read it yield nothing.
    #[must_use]
    pub fn extract_without_body(&self, view: &RequestView<'_>) -> Extraction {
        self.ask(view, Body::Lost)
    }

    /// With the body if it is there, else as if it never came.
    fn extract_whatever_is_there(&self, view: &RequestView<'_>) -> Extraction {
        self.ask(view, view.body.map_or(Body::Lost, Body::Here))
    }

    fn ask<'a>(&self, view: &RequestView<'a>, body: Body<'a>) -> Extraction {
        let mut why = Nobody::NoMatch;
        let mut lanes = Lanes::default();
        let mut scanned = None;
        for readers in &self.entries {
            let mut found = Found::default();
            for reader in readers {
                let read = match reader {
                    Reader::Field(field, keying) => field.read(keying, view, body, &mut found),
                    Reader::Json(groups) => body.bytes().and_then(|bytes| {
                        let scan = scanned.get_or_insert_with(|| self.tree.scan(bytes, &mut lanes));
                        scan.map_err(|_| Unread::Nobody(Nobody::NotReadable))?;
                        let mut groups = groups.clone().map(|group| lanes.take(group));
                        groups
                            .find(|group| !group.is_blank())
                            .into_iter()
                            .for_each(|group| found.absorb(group));
                        Ok(())
                    }),
                };
                match read {
                    Ok(()) => {}
                    Err(Unread::Awaited) => return Extraction::NeedsBody,
                    Err(Unread::Nobody(reason)) => note(&mut why, reason),
                }
            }
            match found.finish() {
                Ok(None) => {}
                Ok(Some(subjects)) => return Extraction::Subjects(subjects),
                Err(reason) if reason.is_final() => return Extraction::Nobody(reason),
                Err(reason) => note(&mut why, reason),
            }
        }
        Extraction::Nobody(why)
    }
}

fn note(why: &mut Nobody, reason: Nobody) {
    if *why == Nobody::NoMatch {
        *why = reason;
    }
}

fn reader<'p>(
    builder: &mut Builder<'p>,
    entry: usize,
    source: &'p Source,
    keying: &Keying,
) -> Result<Reader, PlanError> {
    let field = match source {
        Source::Json(pointers) if pointers.is_empty() => return Err(PlanError::NoPointer { entry }),
        Source::Json(pointers) => return Ok(Reader::Json(builder.list(pointers, keying))),
        Source::Jwt(header, claim) => {
            let mut claims = Builder::default();
            claims.list(std::slice::from_ref(claim), keying);
            let tree = claims.build().ok_or(PlanError::TooBroad)?;
            Field::Jwt(header.clone(), Box::new(tree))
        }
        Source::Path(0) => return Err(PlanError::PathZero { entry }),
        Source::Cookie(name) => Field::Cookie(name.as_str().into()),
        Source::Form(name) => Field::Form(name.as_str().into()),
        Source::Header(name) => Field::Header(name.clone()),
        Source::Path(number) => Field::Path(*number),
        Source::Query(name) => Field::Query(name.as_str().into()),
    };
    Ok(Reader::Field(field, keying.clone()))
}

/// The body, as far as one question goes.
#[derive(Clone, Copy)]
enum Body<'a> {
    /// Not captured yet.
    Awaited,
    Here(&'a [u8]),
    /// It will not come.
    Lost,
}

/// Why a source could not be read.
enum Unread {
    Awaited,
    Nobody(Nobody),
}

impl<'a> Body<'a> {
    fn bytes(self) -> Result<&'a [u8], Unread> {
        match self {
            Body::Awaited => Err(Unread::Awaited),
            Body::Here(bytes) => Ok(bytes),
            Body::Lost => Err(Unread::Nobody(Nobody::NotCaptured)),
        }
    }
}

impl Field {
    fn read<'a>(
        &self,
        keying: &Keying,
        view: &RequestView<'a>,
        body: Body<'a>,
        found: &mut Found<'a>,
    ) -> Result<(), Unread> {
        let push = |value: Value<'a>| match value {
            Ok(value) => match keying.apply(value) {
                Some(key) => found.push(key),
                None => found.raise(Nobody::NotMapped),
            },
            Err(fields::NotText) => found.raise(Nobody::NotReadable),
        };
        match self {
            Field::Cookie(name) => fields::cookie(view.headers, name).for_each(push),
            Field::Form(_) if !fields::has_form(view.headers) => {}
            Field::Form(name) => fields::pairs(body.bytes()?, name).for_each(push),
            Field::Header(name) => fields::header(view.headers, name).for_each(push),
            Field::Jwt(name, claims) => {
                for value in fields::header(view.headers, name) {
                    let payload = match value {
                        Ok(value) => match jwt::payload(&value) {
                            None => continue,
                            Some(payload) => payload.map_err(|jwt::NoToken| fields::NotText),
                        },
                        Err(error) => Err(error),
                    };
                    let mut lanes = Lanes::default();
                    let payload = payload.unwrap_or_default();
                    // A payload is an object; nothing at all is none.
                    match claims.scan(&payload, &mut lanes) {
                        Ok(()) if !payload.is_empty() => found.absorb(lanes.take(0).into_owned()),
                        _ => found.raise(Nobody::NotReadable),
                    }
                }
            }
            Field::Path(number) => fields::segment(view.path, *number).into_iter().for_each(push),
            Field::Query(name) => fields::pairs(view.query.unwrap_or_default().as_bytes(), name).for_each(push),
        }
        Ok(())
    }
}
