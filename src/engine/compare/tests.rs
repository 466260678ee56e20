//! The cases of `tests/spec/compare`, and laws that hold for all documents.

use std::collections::BTreeSet;

use http::{HeaderMap, HeaderName, HeaderValue};
use proptest::prelude::*;
use serde_json::{Map, Value};

use super::*;
use crate::engine::number;

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("a text, not {value}"))
}

fn rules(written: &Value) -> Rules {
    let list = |name: &str| written[name].as_array().cloned().unwrap_or_default();
    let pattern = |written: &str| Pattern::parse(written).unwrap_or_else(|error| panic!("{written}: {error}"));
    let headers = match &written["headers"] {
        Value::String(all) if all == "all" => Headers::All,
        _ => Headers::Chosen(list("headers").iter().map(|name| text(name).parse().unwrap()).collect()),
    };
    let severity = written["severity"].as_object().cloned().unwrap_or_default();
    let severity = severity
        .iter()
        .map(|(place, severity)| (pattern(place), Severity::parse(text(severity)).unwrap()));
    let ignore = list("ignore").iter().map(|place| pattern(text(place))).collect();
    Rules::new(ignore, headers, severity.collect()).float_tolerance(written["float_tolerance"].as_f64().unwrap_or(0.0))
}

/// An answer as a case writes it.
struct Written {
    status: u16,
    headers: HeaderMap,
    body: Option<String>,
}

impl Written {
    fn read(case: &Value) -> Self {
        if let Value::String(body) = case {
            return Self {
                status: 200,
                headers: HeaderMap::new(),
                body: Some(body.clone()),
            };
        }
        let mut headers = HeaderMap::new();
        for (name, values) in case["headers"].as_object().unwrap_or(&Map::new()) {
            let values = values.as_array().cloned().unwrap_or_else(|| vec![values.clone()]);
            for value in values {
                headers.append(
                    name.parse::<HeaderName>().unwrap(),
                    HeaderValue::from_str(text(&value)).unwrap(),
                );
            }
        }
        let status = case["status"]
            .as_u64()
            .map_or(200, |status| u16::try_from(status).unwrap());
        let cut = case["cut"].as_bool().unwrap_or(false);
        Self {
            status,
            headers,
            body: (!cut).then(|| text(&case["body"]).to_owned()),
        }
    }

    fn answer(&self) -> Answer<'_> {
        let body = self
            .body
            .as_ref()
            .map_or(Body::Cut, |body| Body::Bytes(body.as_bytes()));
        Answer {
            status: self.status,
            headers: &self.headers,
            body,
        }
    }
}

fn check(file: &str, cases: &str) {
    const MEMBERS: [&str; 9] = [
        "name",
        "legacy",
        "new",
        "rules",
        "verdict",
        "divergences",
        "why",
        "suppressed",
        "tolerated",
    ];
    let cases: Vec<Value> = serde_json::from_str(cases).unwrap_or_else(|error| panic!("{file}: {error}"));
    assert!(!cases.is_empty(), "{file} has no case");
    for case in cases {
        let name = format!("{file}: {}", text(&case["name"]));
        for member in case.as_object().unwrap().keys() {
            assert!(MEMBERS.contains(&member.as_str()), "{name}: unknown member {member}");
        }
        let (legacy, new) = (Written::read(&case["legacy"]), Written::read(&case["new"]));
        let found = compare(&rules(&case["rules"]), &legacy.answer(), &new.answer());
        let divergences = found.divergences.iter();
        let divergences: Vec<_> = divergences
            .map(|it| serde_json::json!([it.pointer.as_str(), it.kind.as_str(), it.severity.as_str()]))
            .collect();
        assert_eq!(
            divergences,
            case["divergences"].as_array().cloned().unwrap_or_default(),
            "{name}"
        );
        assert_eq!(found.verdict.as_str(), text(&case["verdict"]), "{name}");
        assert_eq!(found.unread.map(Why::as_str), case["why"].as_str(), "{name}");
        assert_eq!(
            u64::from(found.suppressed()),
            case["suppressed"].as_u64().unwrap_or(0),
            "{name}"
        );
        assert_eq!(
            u64::from(found.tolerated),
            case["tolerated"].as_u64().unwrap_or(0),
            "{name}"
        );
        assert_eq!(found.total() as usize, divergences.len(), "{name}");
    }
}

#[test]
fn spec_bodies() {
    check("bodies", include_str!("../../../tests/spec/compare/bodies.json"));
}

#[test]
fn spec_json() {
    check("json", include_str!("../../../tests/spec/compare/json.json"));
}

#[test]
fn spec_numbers() {
    check("numbers", include_str!("../../../tests/spec/compare/numbers.json"));
}

#[test]
fn spec_rules() {
    check("rules", include_str!("../../../tests/spec/compare/rules.json"));
}

fn bytes(rules: &Rules, legacy: &[u8], new: &[u8]) -> Comparison {
    let headers = HeaderMap::new();
    let answer = |body| Answer {
        status: 200,
        headers: &headers,
        body: Body::Bytes(body),
    };
    compare(rules, &answer(legacy), &answer(new))
}

fn texts(legacy: &str, new: &str) -> Comparison {
    bytes(&Rules::default(), legacy.as_bytes(), new.as_bytes())
}

#[test]
fn all_are_counted_and_only_some_are_listed() {
    let list = |item: &str| format!("[{}]", vec![item; 5_000].join(","));
    let found = texts(&list("1"), &list("2"));
    assert_eq!((found.total(), found.divergences.len()), (5_000, LISTED));
    assert_eq!(found.counts, [0, 5_000, 0]);
    assert_eq!(found.worst(), Some(Severity::Major));
    let listing = Rules::default().listing(2);
    assert_eq!(
        bytes(&listing, list("1").as_bytes(), list("2").as_bytes())
            .divergences
            .len(),
        2
    );
}

#[test]
fn what_cannot_be_read_is_incomparable_and_says_why() {
    let deep = |item: &str| format!("{}{item}{}", "[".repeat(DEPTH_LIMIT + 1), "]".repeat(DEPTH_LIMIT + 1));
    assert_eq!(
        texts(&deep("1"), &deep("2")).verdict,
        Verdict::Incomparable(Why::TooDeep)
    );
    assert_eq!(texts("{}", &deep("2")).verdict, Verdict::Incomparable(Why::TooDeep));
    assert_eq!(texts(&deep("1"), &deep("1")).verdict, Verdict::Same);
    let wide = |item: &str| format!("[{}{item}]", "0,".repeat(NODE_LIMIT));
    assert_eq!(
        texts(&wide("1"), &wide("2")).verdict,
        Verdict::Incomparable(Why::TooLarge)
    );
}

#[test]
fn deepest_documents_are_walked() {
    let deep = |item: &str| format!("{}{item}{}", r#"{"a":"#.repeat(DEPTH_LIMIT), "}".repeat(DEPTH_LIMIT));
    let rules = Rules::new(vec![Pattern::parse("/**/b").unwrap()], Headers::All, Vec::new());
    let found = bytes(&rules, deep("1").as_bytes(), deep("2").as_bytes());
    assert_eq!(found.divergences[0].pointer.as_str(), "/a".repeat(DEPTH_LIMIT));
}

#[test]
fn members_in_reverse_order_take_no_quadratic_time() {
    let object = |names: &mut dyn Iterator<Item = u32>| {
        let members: Vec<_> = names.map(|name| format!(r#""{name}":0"#)).collect();
        format!("{{{}}}", members.join(","))
    };
    let found = texts(&object(&mut (0..200_000)), &object(&mut (0..200_000).rev()));
    assert_eq!(found.verdict, Verdict::Same);
}

#[test]
fn values_are_shown_as_shapes_unless_asked_for() {
    let found = texts(r#"{"from":"33639980123","n":[1]}"#, r#"{"from":33639980123,"n":null}"#);
    let shown = format!("{found:?} {}", found.divergences[0].legacy.as_ref().unwrap());
    assert!(!shown.contains("3363"), "{shown}");
    let values = |at: usize| {
        let (legacy, new) = (&found.divergences[at].legacy, &found.divergences[at].new);
        [legacy, new].map(|sample| sample.as_ref().unwrap().to_string())
    };
    assert_eq!(values(0), ["text(11)", "number"]);
    assert_eq!(values(1), ["array(1)", "null"]);
    assert_eq!(
        found.divergences[0].legacy.as_ref().unwrap().clear(),
        r#""33639980123""#
    );
}

#[test]
fn suppressions_name_their_rules() {
    let patterns = ["/b", "@status", "/a/*"].map(|text| Pattern::parse(text).unwrap());
    let rules = Rules::new(patterns.to_vec(), Headers::All, Vec::new());
    let found = bytes(&rules, br#"{"a":[1,2],"b":1}"#, br#"{"a":[3,4],"b":2}"#);
    assert_eq!(
        found.suppressions,
        [Suppression { rule: 0, places: 1 }, Suppression { rule: 2, places: 2 }]
    );
    assert_eq!(found.verdict, Verdict::Noise);
}

#[test]
fn twin_explains_same_place_and_kind_only() {
    let legacy = r#"{"time":1,"id":"a","list":[1],"gone":1}"#;
    let twin = r#"{"time":2,"id":"b","list":[1,2],"gone":2}"#;
    let judge = |new: &str| without_noise(texts(legacy, new), &texts(legacy, twin));

    let noise = judge(r#"{"time":3,"id":"c","list":[1,2,3],"gone":3}"#);
    assert_eq!((noise.verdict, noise.explained, noise.total()), (Verdict::Noise, 5, 0));

    let real = judge(r#"{"time":3,"id":4,"list":[2]}"#);
    let places: Vec<_> = real
        .divergences
        .iter()
        .map(|found| (found.pointer.as_str(), found.kind))
        .collect();
    assert_eq!(
        places,
        [("/id", Kind::Type), ("/list/0", Kind::Value), ("/gone", Kind::Missing)]
    );
    assert_eq!(
        (real.verdict, real.explained, real.counts),
        (Verdict::Diverged, 1, [0, 1, 2])
    );

    let same = judge(legacy);
    assert_eq!((same.verdict, same.explained), (Verdict::Same, 0));
}

/// A document without repeated members.
fn document() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (0_u8..4).prop_map(Value::from),
        "[a-z/~\"\\\\é😀]{0,4}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 40, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::btree_map("[a-d~/]{1,2}", inner, 0..5)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

/// Two documents that are often alike in part: the second is the first with some places replaced.
fn two_documents() -> impl Strategy<Value = (Value, Value)> {
    (document(), document(), any::<u32>()).prop_map(|(first, spare, choice)| {
        let mut second = first.clone();
        graft(&mut second, &spare, choice);
        (first, second)
    })
}

fn graft(at: &mut Value, spare: &Value, choice: u32) {
    let deeper = choice / 4;
    match at {
        Value::Array(items) if !items.is_empty() && !choice.is_multiple_of(4) => {
            let index = deeper as usize % items.len();
            match choice % 4 {
                1 => drop(items.remove(index)),
                2 => items.push(spare.clone()),
                _ => graft(&mut items[index], spare, deeper),
            }
        }
        Value::Object(members) if !members.is_empty() && !choice.is_multiple_of(4) => {
            let name = members.keys().nth(deeper as usize % members.len()).unwrap().clone();
            match choice % 4 {
                1 => drop(members.remove(&name)),
                2 => drop(members.insert("e".to_owned(), spare.clone())),
                _ => graft(&mut members[&name], spare, deeper),
            }
        }
        place => *place = spare.clone(),
    }
}

/// The document again, with members in reverse order, every character of a text escaped, and numbers spelt differently.
fn respell(value: &Value) -> String {
    let quote = |text: &str| {
        let units = text.encode_utf16().map(|unit| format!("\\u{unit:04X}"));
        format!("\"{}\"", units.collect::<String>())
    };
    match value {
        Value::Number(number) => format!("{number}.00E-0"),
        Value::String(text) => quote(text),
        Value::Array(items) => format!("[ {} ]", items.iter().map(respell).collect::<Vec<_>>().join(" ,")),
        Value::Object(members) => {
            let members = members
                .iter()
                .rev()
                .map(|(name, value)| format!("{}:\t{}", quote(name), respell(value)));
            format!("{{{}}}\n", members.collect::<Vec<_>>().join(", "))
        }
        other => other.to_string(),
    }
}

fn mirrored(kind: Kind) -> Kind {
    match kind {
        Kind::Extra => Kind::Missing,
        Kind::Missing => Kind::Extra,
        other => other,
    }
}

proptest! {
    #[test]
    fn document_does_not_differ_from_itself(document in document()) {
        let document = document.to_string();
        prop_assert_eq!(texts(&document, &document), Comparison::nothing());
        // A space more takes the way through the trees.
        prop_assert_eq!(texts(&document, &format!("{document} ")), Comparison::nothing());
    }

    #[test]
    fn spelling_makes_no_difference(document in document()) {
        let respelt = respell(&document);
        prop_assert_eq!(texts(&document.to_string(), &respelt), Comparison::nothing(), "{}", respelt);
    }

    #[test]
    fn agrees_with_equality_of_values((a, b) in two_documents()) {
        let found = texts(&a.to_string(), &b.to_string());
        prop_assert_eq!(found.verdict == Verdict::Same, a == b);
        prop_assert_eq!(found.verdict == Verdict::Diverged, a != b);
    }

    #[test]
    fn swapping_sides_mirrors_kinds((a, b) in two_documents()) {
        let (a, b) = (a.to_string(), b.to_string());
        let rules = Rules::default().listing(usize::MAX);
        let (there, back) = (bytes(&rules, a.as_bytes(), b.as_bytes()), bytes(&rules, b.as_bytes(), a.as_bytes()));
        let there: BTreeSet<_> = there.divergences.iter().map(|it| (it.pointer.clone(), mirrored(it.kind))).collect();
        let back: BTreeSet<_> = back.divergences.iter().map(|it| (it.pointer.clone(), it.kind)).collect();
        prop_assert_eq!(there, back);
    }

    #[test]
    fn every_pointer_leads_to_what_differs((a, b) in two_documents()) {
        let found = texts(&a.to_string(), &b.to_string());
        for found in &found.divergences {
            let pointer = found.pointer.as_str();
            prop_assert_ne!(a.pointer(pointer), b.pointer(pointer), "{}", pointer);
            prop_assert_eq!(a.pointer(pointer).is_some(), found.legacy.is_some());
            prop_assert_eq!(b.pointer(pointer).is_some(), found.new.is_some());
        }
    }

    #[test]
    fn ignoring_each_divergence_leaves_noise((a, b) in two_documents()) {
        let (a, b) = (a.to_string(), b.to_string());
        let found = texts(&a, &b);
        // The root has no pattern of its own.
        let places = found.divergences.iter().map(|it| it.pointer.as_str());
        let ignore: Vec<_> = places.map(|place| Pattern::parse(if place.is_empty() { "/**" } else { place }).unwrap()).collect();
        let again = bytes(&Rules::new(ignore, Headers::All, Vec::new()), a.as_bytes(), b.as_bytes());
        let expected = if found.total() == 0 { Verdict::Same } else { Verdict::Noise };
        prop_assert_eq!((again.verdict, again.suppressed()), (expected, found.total()));
    }

    #[test]
    fn arbitrary_bytes_do_no_harm(a in any::<Vec<u8>>(), b in any::<Vec<u8>>()) {
        let found = bytes(&Rules::default(), &a, &b);
        prop_assert_eq!(found.verdict == Verdict::Same, a == b || found.total() == 0 && found.unread.is_none());
    }

    #[test]
    fn almost_json_does_no_harm(a in "[\\[\\]{}:,\"\\\\u0-9aeE.+ntr-]{0,24}", b in "[\\[\\]{}:,\"\\\\ud8c0-9.-]{0,24}") {
        let accepted = |text: &str| serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok();
        for text in [&a, &b] {
            // serde_json refuses lone surrogates, which the grammar allows, only where it keeps the text.
            prop_assert_eq!(json::Tree::parse(text.as_bytes()).is_ok(), accepted(text), "{}", text);
        }
        let _ = texts(&a, &b);
    }

    #[test]
    fn numbers_agree_with_integers(a in any::<i64>(), b in any::<i64>(), zeros in 0_usize..30) {
        let spelt = |n: i64| format!("{n}{}e-{zeros}", "0".repeat(zeros));
        prop_assert_eq!(number::equal(&spelt(a), &b.to_string()), a == b);
        prop_assert!(number::equal(&spelt(a), &a.to_string()));
    }
}
