//! The laws, each a function of bytes: it returns, or it has found a bug.

#[path = "wire.rs"]
mod wire;

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, HeaderName, HeaderValue};
use understudy::engine::compare::{self, Answer, Body, Comparison, Headers, Pattern, Rules, Verdict};
use understudy::engine::decide::Copies;
use understudy::engine::flags::{Asked, Context, Flags};
use understudy::engine::identity::attributes::{Attributes, Known, Scalar};
use understudy::engine::identity::{
    Entry, Extraction, Keying, Nobody, Plan, Pointer, RequestView, SUBJECT_COUNT_LIMIT, Source,
};
use understudy::engine::ruleset::document::Document;
use understudy::engine::ruleset::problem::Problems;
use understudy::engine::ruleset::{Input, Ruleset, compile, write};
use understudy::engine::vocab::{Revision, SUBJECT_LIMIT_BYTES};

pub use wire::{answers, forwarding, frames, proxy_protocol};

/// A configuration is taken, or refused with at least one problem; reading it twice says the same.
pub fn config(data: &[u8]) {
    let read = || {
        understudy::config::load_by(Path::new("understudy.yaml"), &mut |path| {
            if path == Path::new("understudy.yaml") {
                Ok(data.to_vec())
            } else {
                Err(io::ErrorKind::NotFound.into())
            }
        })
    };
    match (read(), read()) {
        (Ok(once), Ok(again)) => assert_eq!(once.warnings.len(), again.warnings.len()),
        (Err(once), Err(again)) => {
            assert!(!once.is_empty(), "refused without a reason");
            assert_eq!(once.len(), again.len());
        }
        _ => panic!("taken and refused"),
    }
}

const ATTRIBUTES: &str = r#"{"a": "b", "country": "US", "plan": ["premium", 7, null], "score": 9007199254740993, "version": "2.10.0-rc.1",
    "ip": "10.1.2.3", "groups": ["staff"], "on": true, "o": {}}"#;

fn ruleset(text: &str) -> Option<Ruleset> {
    let mut problems = Problems::default();
    let document = Document::parse(&"features.yaml".into(), text, &mut problems);
    let rules = compile(Input {
        revision: Revision(1),
        environment: "production",
        document,
        runtime: Default::default(),
        variables: &BTreeMap::new(),
        routes: Vec::new(),
        copies: [Copies::SafeMethods; 2],
        now_ms: 1_800_000_000_000,
        previous: None,
        marks: &[],
        problems,
    });
    match rules {
        Ok((rules, _)) => Some(rules),
        Err(problems) => {
            assert!(!problems.is_empty(), "refused without a reason");
            None
        }
    }
}

/// A flag file that reads well, written again.
fn written(text: &str) -> Option<String> {
    let mut problems = Problems::default();
    let document = Document::parse(&"features.yaml".into(), text, &mut problems)?;
    let layer = document.into_layer(&mut problems);
    (!problems.refuse()).then(|| write::layer_yaml(&layer))
}

/// Rules are taken or refused with a reason; a flag says the same twice, and nothing while it is killed; what is written
/// again reads as the same.
pub fn rules(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Some(rules) = ruleset(text) else { return };
    let file = written(text).expect("taken once");
    assert_eq!(
        written(&file).as_ref(),
        Some(&file),
        "written otherwise the second time"
    );
    let again = ruleset(&file).expect("the same rules");
    let attributes: Context = serde_json::from_str(ATTRIBUTES).expect("an object");
    let all_off = Flags::new(
        rules.flags().iter().map(|(_, flag)| flag.clone()).collect(),
        false,
        Revision(1),
    );
    for ((at, flag), (_, same)) in rules.flags().iter().zip(again.flags().iter()) {
        assert_eq!(flag.key, same.key);
        for subject in [None, Some(""), Some("anna"), Some("447700900123")] {
            for unix_ms in [0, 1_800_000_000_000, i64::MAX] {
                let asked = Asked {
                    attributes: &attributes,
                    ..Asked::new(subject, unix_ms)
                };
                let told = rules.flags().evaluate(at, &asked);
                assert_eq!(format!("{told:?}"), format!("{:?}", again.flags().answer(same, &asked)));
                let killed = Asked { killed: true, ..asked };
                assert!(!rules.flags().evaluate(at, &killed).enabled, "on although killed");
                assert!(!all_off.evaluate(at, &asked).enabled, "on although all are off");
            }
        }
    }
}

/// A JSON body names those whom another reader of JSON finds, and exactly JSON is readable.
pub fn identity(data: &[u8]) {
    let pointer = |text: &str| Pointer::parse(text).expect("a pointer");
    let json = |texts: &[&str]| Source::Json(texts.iter().map(|text| pointer(text)).collect());
    let headers = HeaderMap::new();
    let view = RequestView {
        path: "/a/b",
        query: None,
        headers: &headers,
        body: Some(data),
    };
    let plan = |source| Plan::compile(&[Entry::One(source, Keying::AS_WRITTEN)]).expect("a plan");
    let readable = std::str::from_utf8(data).is_ok() && serde_json::from_slice::<serde::de::IgnoredAny>(data).is_ok();
    let found = plan(json(&["/from"])).extract(&view);
    let unreadable = matches!(found, Extraction::Nobody(Nobody::NotReadable));
    let value = serde_json::from_slice::<serde_json::Value>(data);
    if !data.trim_ascii().is_empty() {
        assert!(unreadable || readable, "read what is no JSON: {found:?}");
        // The other reader takes a lone surrogate for granted until it has to keep the text.
        assert!(!unreadable || value.is_err(), "did not read what is JSON");
    }
    // Where no member stands twice, another reader sees the same text.
    if let (Extraction::Subjects(subjects), Ok(value)) = (&found, &value)
        && let Some(text) = value.pointer("/from").and_then(serde_json::Value::as_str)
    {
        assert_eq!(subjects.iter().collect::<Vec<_>>(), [text]);
    }
    // The same bytes as the payload of a token name the same subject, and as an attribute they say the same.
    let mut carried = HeaderMap::new();
    let token = format!("Bearer e30.{}.", URL_SAFE_NO_PAD.encode(data));
    if let Ok(token) = HeaderValue::try_from(token) {
        carried.insert(http::header::AUTHORIZATION, token);
    }
    let by_token = RequestView {
        headers: &carried,
        ..view
    };
    let claim = Source::Jwt(http::header::AUTHORIZATION, pointer("/from"));
    if let (Extraction::Subjects(one), Extraction::Subjects(other)) = (plan(claim).extract(&by_token), &found) {
        assert_eq!(&one, other);
    }
    let entry = [Entry::One(json(&["/from"]), Keying::AS_WRITTEN)];
    let attributes = Attributes::compile(&[("from", &entry)]).expect("an attribute");
    let known: Vec<_> = attributes.extract(&view).collect();
    if let (Extraction::Subjects(subjects), [(_, Known::One(Scalar::Number(text) | Scalar::Text(text)))]) =
        (&found, &known[..])
    {
        assert_eq!(subjects.first(), &**text);
    }
    assert!(!unreadable || known.is_empty(), "an attribute of what is no JSON");
    let many = Entry::All(vec![
        (
            json(&[
                "/entry/*/changes/*/value/messages/*/from",
                "/entry/*/changes/*/value/messages/*/from_user_id",
            ]),
            Keying::DIGITS,
        ),
        (json(&["/*", "/0", "/a/*/0"]), Keying::LOWER),
    ]);
    if let Extraction::Subjects(subjects) = Plan::compile(&[many]).expect("a plan").extract(&view) {
        assert!(subjects.len() <= SUBJECT_COUNT_LIMIT);
        assert!(
            subjects
                .iter()
                .all(|key| !key.is_empty() && key.len() <= SUBJECT_LIMIT_BYTES)
        );
    }
    // The same bytes as a form, a cookie and a query.
    let mut headers = HeaderMap::new();
    headers.insert(
        http::header::CONTENT_TYPE,
        HeaderValue::from_static("application/x-www-form-urlencoded"),
    );
    if let Ok(value) = HeaderValue::from_bytes(data) {
        headers.insert(http::header::COOKIE, value);
    }
    let text = String::from_utf8_lossy(data);
    let view = RequestView {
        path: &text,
        query: Some(&text),
        headers: &headers,
        body: Some(data),
    };
    let fields = [
        Source::Form("a".into()),
        Source::Cookie("a".into()),
        Source::Query("a".into()),
        Source::Path(2),
    ];
    for source in fields {
        if let Extraction::Subjects(subjects) = plan(source).extract(&view) {
            assert!(
                subjects
                    .iter()
                    .all(|key| !key.is_empty() && key.len() <= SUBJECT_LIMIT_BYTES)
            );
        }
    }
}

/// The bytes up to the first record separator, and those behind it; or two halves.
fn halves(data: &[u8]) -> (&[u8], &[u8]) {
    match data.iter().position(|byte| *byte == 0x1e) {
        Some(at) => (&data[..at], &data[at + 1..]),
        None => data.split_at(data.len() / 2),
    }
}

fn answer<'a>(status: u16, headers: &'a HeaderMap, body: &'a [u8]) -> Answer<'a> {
    Answer {
        status,
        headers,
        body: Body::Bytes(body),
    }
}

fn are_mirrored(there: &Comparison, back: &Comparison) {
    assert_eq!(there.verdict, back.verdict);
    assert_eq!((there.total(), there.suppressed()), (back.total(), back.suppressed()));
}

/// Nothing differs from itself, however it is spaced; and what differs differs seen from either side.
pub fn diff(data: &[u8]) {
    let (a, b) = halves(data);
    let (none, rules) = (HeaderMap::new(), Rules::default());
    let differ = |a, b| compare::compare(&rules, &answer(200, &none, a), &answer(200, &none, b));
    assert_eq!(differ(a, a).verdict, Verdict::Same);
    are_mirrored(&differ(a, b), &differ(b, a));
    if let (Ok(left), Ok(right)) = (
        serde_json::from_slice::<serde_json::Value>(a),
        serde_json::from_slice::<serde_json::Value>(b),
    ) {
        // Another reader keeps the last of two members, and rounds: it may miss a difference, and never sees one more.
        let spaced = [b"\n\t ", a, b" \r\n"].concat();
        let itself = differ(a, &spaced);
        assert!(itself.total() == 0, "{itself:?}");
        if left != right && !has_float(&left) && !has_float(&right) {
            assert_ne!(differ(a, b).verdict, Verdict::Same);
        }
    }
}

fn has_float(value: &serde_json::Value) -> bool {
    match value {
        serde_json::Value::Number(number) => number.is_f64(),
        serde_json::Value::Array(items) => items.iter().any(has_float),
        serde_json::Value::Object(members) => members.values().any(has_float),
        _ => false,
    }
}

/// Whole answers under rules that come with them.
pub fn compare(data: &[u8]) {
    let (first, rest) = data.split_at(data.len().min(40));
    let text = String::from_utf8_lossy(first);
    let mut words = text.split_whitespace();
    let pattern = words.next().and_then(|word| Pattern::parse(word).ok());
    let (a, b) = halves(rest);
    let headers = |body: &[u8]| {
        let mut headers = HeaderMap::new();
        for word in text.split_whitespace().take(3) {
            let name = HeaderName::from_bytes(word.as_bytes());
            if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(body.get(..8).unwrap_or(body))) {
                headers.append(name, value);
            }
        }
        headers
    };
    let (left, right) = (headers(a), headers(b));
    let statuses = (
        200 + u16::from(first.first().copied().unwrap_or(0)),
        200 + u16::from(b.first().copied().unwrap_or(0)),
    );
    let rules = Rules::new(pattern.into_iter().collect(), Headers::All, Vec::new());
    let (legacy, new) = (answer(statuses.0, &left, a), answer(statuses.1, &right, b));
    are_mirrored(
        &compare::compare(&rules, &legacy, &new),
        &compare::compare(&rules, &new, &legacy),
    );
    assert_eq!(compare::compare(&rules, &legacy, &legacy).verdict, Verdict::Same);
    // What ignores everything sees no divergence.
    let all = ["/**", "@body", "@status", "@header.*"];
    let blind = Rules::new(
        all.iter().filter_map(|text| Pattern::parse(text).ok()).collect(),
        Headers::Chosen(vec![]),
        vec![],
    );
    let seen = compare::compare(&blind, &legacy, &new);
    assert!(seen.total() == 0, "{seen:?}");
}
