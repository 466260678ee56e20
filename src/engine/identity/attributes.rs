//! Reads what rules want to know of a request besides its subject, from the same places as identities.
//!
//! Pure. In: what a route's `attributes:` says, compiled once into [`Attributes`], and per request a [`RequestView`]. Out:
//! a value for each name that was found. Whether anybody wants to know them, and how rules compare them, is left to the
//! caller.
//!
//! - Entries are asked in order, as for identities; the first that finds anything counts. What cannot be read is absent:
//!   an empty value, one over 1,024 bytes or that is no UTF-8, one that a table does not know, a member that stands twice
//!   in its object, anything in a body or a token that is not wholly JSON.
//! - JSON keeps its kinds: texts, numbers as written, true and false. An array gives its scalars, one level deep, as a list,
//!   and so does `*`. `null` and objects are absent. Whatever is normalised or mapped becomes a text.
//! - A name that a query, form, header or cookie has once is one text, and a list if it has several.

use std::borrow::Cow;

use super::json::{Cursor, Torn};
use super::keying::Keying;
use super::pointer::{Pointer, Segment};
use super::subjects::SUBJECT_COUNT_LIMIT;
use super::{Entry, Extraction, Plan, PlanError, RequestView, Source, fields, jwt};
use crate::engine::vocab::SUBJECT_LIMIT_BYTES;

/// One value of an attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scalar {
    /// True or false.
    Bool(bool),
    /// A number as it was written.
    Number(Box<str>),
    /// A text.
    Text(Box<str>),
}

/// What was found under one name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Known {
    /// A list, of one value too.
    List(Vec<Scalar>),
    /// One value.
    One(Scalar),
}

/// A compiled `attributes:` map. The default knows nothing.
#[derive(Clone, Debug, Default)]
pub struct Attributes {
    list: Box<[(Box<str>, Entries)]>,
    needs_body: bool,
}

/// The entries of one name, each with its readers.
type Entries = Box<[Box<[Reader]>]>;

#[derive(Clone, Debug)]
enum Reader {
    /// Texts alone.
    Texts(Plan),
    Json(Box<[Pointer]>, Keying),
    Jwt(http::HeaderName, Pointer, Keying),
}

impl Attributes {
    /// Compiles names with their entries.
    ///
    /// # Errors
    /// [`PlanError`], and the index of the name that has it.
    pub fn compile(list: &[(&str, &[Entry])]) -> Result<Self, (usize, PlanError)> {
        let mut needs_body = false;
        let mut compiled = Vec::with_capacity(list.len());
        for (index, (name, entries)) in list.iter().enumerate() {
            let plan = Plan::compile(entries).map_err(|error| (index, error))?;
            needs_body |= plan.needs_body();
            let entries: Result<Entries, _> = entries.iter().map(readers).collect();
            compiled.push(((*name).into(), entries.map_err(|error| (index, error))?));
        }
        Ok(Self {
            list: compiled.into(),
            needs_body,
        })
    }

    /// Whether no name is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Whether some of it may stand in the body.
    #[must_use]
    pub const fn needs_body(&self) -> bool {
        self.needs_body
    }

    /// What the request says, in the order of the configuration. Of a body that is not captured it says nothing.
    pub fn extract<'s>(&'s self, view: &'s RequestView<'_>) -> impl Iterator<Item = (&'s str, Known)> {
        self.list.iter().filter_map(|(name, entries)| {
            let known = entries.iter().find_map(|entry| ask(entry, view))?;
            Some((&**name, known))
        })
    }
}

fn readers(entry: &Entry) -> Result<Box<[Reader]>, PlanError> {
    let reader = |source: &Source, keying: &Keying| match source {
        Source::Json(pointers) => Ok(Reader::Json(pointers.clone().into(), keying.clone())),
        Source::Jwt(header, claim) => Ok(Reader::Jwt(header.clone(), claim.clone(), keying.clone())),
        text => Plan::compile(&[Entry::One(text.clone(), keying.clone())]).map(Reader::Texts),
    };
    match entry {
        Entry::All(members) => members.iter().map(|(source, keying)| reader(source, keying)).collect(),
        Entry::One(source, keying) => reader(source, keying).map(|one| [one].into()),
    }
}

/// The values of all readers of an entry, united.
fn ask(entry: &[Reader], view: &RequestView<'_>) -> Option<Known> {
    let mut found = Values {
        list: Vec::new(),
        is_list: entry.len() > 1,
    };
    for reader in entry {
        match reader {
            Reader::Texts(plan) => {
                if let Extraction::Subjects(texts) = plan.extract_whatever_is_there(view) {
                    found.is_list |= texts.len() > 1;
                    found.list.extend(texts.iter().map(|text| Scalar::Text(text.into())));
                }
            }
            Reader::Json(pointers, keying) => {
                if let Some(body) = view.body {
                    found.absorb(first(body, pointers, keying));
                }
            }
            Reader::Jwt(header, claim, keying) => {
                let tokens = fields::header(view.headers, header).filter_map(Result::ok);
                for payload in tokens.filter_map(|token| jwt::payload(&token)?.ok()) {
                    found.absorb(first(&payload, std::slice::from_ref(claim), keying));
                }
            }
        }
    }
    if found.list.len() > SUBJECT_COUNT_LIMIT {
        return None;
    }
    match (found.is_list, found.list.len()) {
        (_, 0) => None,
        (false, 1) => found.list.pop().map(Known::One),
        _ => Some(Known::List(found.list)),
    }
}

/// What the first of these pointers finds that finds anything.
fn first(json: &[u8], pointers: &[Pointer], keying: &Keying) -> Values {
    let read = |pointer: &Pointer| Walk::read(json, pointer, keying).filter(|found| !found.list.is_empty());
    pointers.iter().find_map(read).unwrap_or_default()
}

/// Values on their way to becoming an attribute.
#[derive(Default)]
struct Values {
    list: Vec<Scalar>,
    is_list: bool,
}

impl Values {
    fn absorb(&mut self, other: Self) {
        self.is_list |= other.is_list || !self.list.is_empty();
        self.list.extend(other.list);
    }
}

/// Follows one pointer through a text.
struct Walk<'a, 'k> {
    cursor: Cursor<'a>,
    keying: &'k Keying,
    found: Values,
    /// A member on the way stands twice.
    twice: bool,
}

impl<'a> Walk<'a, '_> {
    fn read(json: &'a [u8], pointer: &Pointer, keying: &Keying) -> Option<Values> {
        let text = std::str::from_utf8(json).ok()?;
        let mut walk = Walk {
            cursor: Cursor::new(text.strip_prefix('\u{feff}').unwrap_or(text)),
            keying,
            found: Values::default(),
            twice: false,
        };
        walk.value(pointer.segments(), 0).ok()?;
        (walk.cursor.is_done() && !walk.twice).then_some(walk.found)
    }

    /// Recurses along the pointer alone, and once more for a list at its end.
    fn value(&mut self, segments: &[Segment], depth: u32) -> Result<(), Torn> {
        let Some((segment, rest)) = segments.split_first() else {
            return self.leaf(depth, true);
        };
        match (self.cursor.peek(), segment) {
            (b'{', Segment::Name(name)) => self.object(name, rest, depth),
            (b'[', Segment::Each) => {
                self.found.is_list = true;
                self.array(|walk, _| walk.value(rest, depth + 1))
            }
            (b'[', Segment::Name(_)) => {
                let wanted = segment.index();
                self.array(|walk, index| {
                    if Some(index) == wanted {
                        walk.value(rest, depth + 1)
                    } else {
                        walk.cursor.skip(depth + 1)
                    }
                })
            }
            _ => self.cursor.skip(depth),
        }
    }

    fn leaf(&mut self, depth: u32, may_be_list: bool) -> Result<(), Torn> {
        match self.cursor.peek() {
            b'"' => {
                let string = self.cursor.string()?;
                let text = self.cursor.said(string)?;
                self.push(text, Scalar::Text);
            }
            b'-' | b'0'..=b'9' => {
                let text = self.cursor.number()?;
                self.push(Cow::Borrowed(text), Scalar::Number);
            }
            word @ (b't' | b'f') => {
                self.cursor.skip(depth)?;
                self.found.list.push(Scalar::Bool(word == b't'));
            }
            b'[' if may_be_list => {
                self.found.is_list = true;
                self.array(|walk, _| walk.leaf(depth + 1, false))?;
            }
            _ => self.cursor.skip(depth)?,
        }
        Ok(())
    }

    fn push(&mut self, text: Cow<'_, str>, kind: fn(Box<str>) -> Scalar) {
        let as_it_is = *self.keying == Keying::AS_WRITTEN;
        let Some(value) = self.keying.apply(text) else { return };
        if !value.is_empty() && value.len() <= SUBJECT_LIMIT_BYTES {
            let kind = if as_it_is { kind } else { Scalar::Text };
            self.found.list.push(kind(value.into()));
        }
    }

    fn object(&mut self, wanted: &str, rest: &[Segment], depth: u32) -> Result<(), Torn> {
        if !self.cursor.take(b'{') {
            return Err(Torn);
        }
        if self.cursor.take(b'}') {
            return Ok(());
        }
        let mut seen = false;
        loop {
            let name = self.cursor.name()?;
            if !self.cursor.says(name, wanted) {
                self.cursor.skip(depth + 1)?;
            } else if seen {
                self.twice = true;
                self.cursor.skip(depth + 1)?;
            } else {
                seen = true;
                self.value(rest, depth + 1)?;
            }
            if !self.cursor.take(b',') {
                return if self.cursor.take(b'}') { Ok(()) } else { Err(Torn) };
            }
        }
    }

    fn array(&mut self, mut member: impl FnMut(&mut Self, usize) -> Result<(), Torn>) -> Result<(), Torn> {
        if !self.cursor.take(b'[') {
            return Err(Torn);
        }
        if self.cursor.take(b']') {
            return Ok(());
        }
        for index in 0.. {
            member(self, index)?;
            if !self.cursor.take(b',') {
                break;
            }
        }
        if self.cursor.take(b']') { Ok(()) } else { Err(Torn) }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http::{HeaderMap, HeaderName, HeaderValue};

    use super::super::{Mapping, Normalise};
    use super::*;

    fn json(texts: &[&str]) -> Entry {
        let pointers = texts.iter().map(|text| Pointer::parse(text).unwrap()).collect();
        Entry::One(Source::Json(pointers), Keying::AS_WRITTEN)
    }

    fn header(name: &'static str) -> Source {
        Source::Header(HeaderName::from_static(name))
    }

    /// What one attribute comes to in a request with this body.
    fn known(entries: &[Entry], body: Option<&str>) -> Option<Known> {
        let headers: HeaderMap = [("x-one", "DE"), ("x-two", "a"), ("x-two", "b"), ("x-empty", "")]
            .into_iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect();
        let view = RequestView {
            path: "/",
            query: Some("n=42"),
            headers: &headers,
            body: body.map(str::as_bytes),
        };
        let attributes = Attributes::compile(&[("a", entries)]).unwrap();
        attributes.extract(&view).map(|(_, known)| known).next()
    }

    fn text(text: &str) -> Scalar {
        Scalar::Text(text.into())
    }

    fn number(text: &str) -> Scalar {
        Scalar::Number(text.into())
    }

    #[test]
    fn json_keeps_its_kinds_and_every_digit() {
        let body = r#"{"t":"a\"","n":9007199254740993,"e":1e400,"y":true,"f":false,"z":null,"o":{"t":1},"q":""}"#;
        for (pointer, value) in [
            ("/t", Some(text("a\""))),
            ("/n", Some(number("9007199254740993"))),
            ("/e", Some(number("1e400"))),
            ("/y", Some(Scalar::Bool(true))),
            ("/f", Some(Scalar::Bool(false))),
            ("/o/t", Some(number("1"))),
            ("/z", None),
            ("/o", None),
            ("/q", None),
            ("/nowhere", None),
            ("/t/x", None),
        ] {
            assert_eq!(
                known(&[json(&[pointer])], Some(body)),
                value.map(Known::One),
                "{pointer}"
            );
        }
    }

    #[test]
    fn array_and_star_give_lists_one_level_deep() {
        let body = r#"{"g":["a",1,["b"],{"c":1},null,true],"one":["a"],"none":[],"m":[{"k":"x"},{"k":"y"},{}]}"#;
        let list = |values: &[Scalar]| Some(Known::List(values.to_vec()));
        assert_eq!(
            known(&[json(&["/g"])], Some(body)),
            list(&[text("a"), number("1"), Scalar::Bool(true)])
        );
        assert_eq!(known(&[json(&["/one"])], Some(body)), list(&[text("a")]));
        assert_eq!(known(&[json(&["/none"])], Some(body)), None);
        assert_eq!(known(&[json(&["/m/*/k"])], Some(body)), list(&[text("x"), text("y")]));
        assert_eq!(known(&[json(&["/m/1/k"])], Some(body)), Some(Known::One(text("y"))));
        assert_eq!(known(&[json(&["/m/7/k", "/one"])], Some(body)), list(&[text("a")]));
    }

    #[test]
    fn what_cannot_be_read_is_absent() {
        for body in [
            r#"{"a":1"#,
            r#"{"a":1}}"#,
            r#"{"a":1,"a":1}"#,
            "\u{feff}",
            "",
            r#"{"a":"\ud800"}"#,
        ] {
            assert_eq!(known(&[json(&["/a"])], Some(body)), None, "{body}");
        }
        assert_eq!(known(&[json(&["/a"])], None), None);
        let long = format!("{{\"a\":\"{}\"}}", "k".repeat(SUBJECT_LIMIT_BYTES + 1));
        assert_eq!(known(&[json(&["/a"])], Some(&long)), None);
        // Twice beside the way is nobody's business.
        assert_eq!(
            known(&[json(&["/a"])], Some("\u{feff}{\"b\":1,\"b\":2,\"a\":3}")),
            Some(Known::One(number("3")))
        );
        let many = format!("[{}1]", "1,".repeat(SUBJECT_COUNT_LIMIT));
        assert_eq!(known(&[json(&["/*"])], Some(&many)), None);
    }

    #[test]
    fn first_entry_that_finds_anything_counts() {
        let one = |source: Source| Entry::One(source, Keying::AS_WRITTEN);
        let entries = [
            one(header("x-empty")),
            json(&["/country"]),
            one(header("x-one")),
            one(header("x-two")),
        ];
        assert_eq!(
            known(&entries, Some(r#"{"country":"FR"}"#)),
            Some(Known::One(text("FR")))
        );
        assert_eq!(known(&entries, Some("{}")), Some(Known::One(text("DE"))));
        assert_eq!(known(&entries, None), Some(Known::One(text("DE"))));
        assert_eq!(
            known(&entries[3..], None),
            Some(Known::List(vec![text("a"), text("b")]))
        );
        let both = Entry::All(vec![
            (header("x-one"), Keying::LOWER),
            (Source::Query("n".to_owned()), Keying::AS_WRITTEN),
        ]);
        assert_eq!(known(&[both], None), Some(Known::List(vec![text("de"), text("42")])));
    }

    #[test]
    fn table_and_spelling_make_texts() {
        let keying = Keying {
            normalise: Normalise::Digits,
            map: Some(Arc::new(Mapping::parse("49,DE", Normalise::Digits).unwrap())),
        };
        let Entry::One(source, _) = json(&["/code"]) else {
            unreachable!()
        };
        let list = [Entry::One(source, keying)];
        assert_eq!(known(&list, Some(r#"{"code":"+49"}"#)), Some(Known::One(text("DE"))));
        assert_eq!(known(&list, Some(r#"{"code":49}"#)), Some(Known::One(text("DE"))));
        assert_eq!(known(&list, Some(r#"{"code":33}"#)), None);
    }
}
