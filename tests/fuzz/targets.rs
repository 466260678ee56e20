//! The laws, each a function of bytes: it returns, or it has found a bug.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::path::Path;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use understudy::engine::compare::{self, Answer, Body, Comparison, Headers, Pattern, Rules, Verdict};
use understudy::engine::decide::Copies;
use understudy::engine::flags::{Asked, evaluate};
use understudy::engine::identity::{
    Entry, Extraction, Nobody, Normalise, Plan, Pointer, RequestView, SUBJECT_COUNT_LIMIT, Source,
};
use understudy::engine::ruleset::document::Document;
use understudy::engine::ruleset::problem::Problems;
use understudy::engine::ruleset::{Input, Ruleset, compile};
use understudy::engine::vocab::{Revision, SUBJECT_LIMIT_BYTES};
use understudy::proxy::forward;
use understudy::proxy::framing::{Guard, Limits, Rest};
use understudy::proxy::provenance::Provenance;
use understudy::proxy::socket::{Peer, Protocol, Scheme};

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

fn ruleset(text: &str) -> Option<Ruleset> {
    let mut problems = Problems::default();
    let document = Document::parse(&"features.yaml".into(), text, &mut problems);
    let rules = compile(Input {
        revision: Revision(1),
        environment: "production",
        document,
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

/// Rules are taken or refused with a reason; a flag says the same twice, and nothing while it is killed.
pub fn rules(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Some(rules) = ruleset(text) else { return };
    let again = ruleset(text).expect("taken once");
    for ((_, flag), (_, same)) in rules.flags().iter().zip(again.flags().iter()) {
        assert_eq!(flag.key, same.key);
        for subject in [None, Some(""), Some("anna"), Some("447700900123")] {
            for unix_ms in [0, 1_800_000_000_000, i64::MAX] {
                let asked = Asked {
                    subject,
                    unix_ms,
                    killed: false,
                    system_enabled: true,
                };
                let told = evaluate(flag, &asked);
                assert_eq!(format!("{told:?}"), format!("{:?}", evaluate(same, &asked)));
                assert!(
                    !evaluate(flag, &Asked { killed: true, ..asked }).enabled,
                    "on although killed"
                );
                assert!(
                    !evaluate(
                        flag,
                        &Asked {
                            system_enabled: false,
                            ..asked
                        }
                    )
                    .enabled,
                    "on although all are off"
                );
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
    let plan = |source| Plan::compile(&[Entry::One(source, Normalise::AsWritten)]).expect("a plan");
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
    let many = Entry::All(vec![
        (
            json(&[
                "/entry/*/changes/*/value/messages/*/from",
                "/entry/*/changes/*/value/messages/*/from_user_id",
            ]),
            Normalise::Digits,
        ),
        (json(&["/*", "/0", "/a/*/0"]), Normalise::Lower),
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

const LIMITS: Limits = Limits {
    header_bytes: 16 * 1_024,
    header_count: 64,
};

/// How much passed, how many heads, and whether all of it did and ended with a message.
struct Passed {
    bytes: Vec<u8>,
    heads: u64,
    fault: Option<String>,
    between: bool,
}

fn guarded(data: &[u8], cuts: &[usize]) -> Passed {
    let mut guard = Guard::new(LIMITS);
    let (mut passed, mut fault) = (0, None);
    let mut ends: Vec<usize> = cuts.iter().map(|cut| cut % (data.len() + 1)).collect();
    ends.push(data.len());
    ends.sort_unstable();
    'all: for end in ends {
        while passed < end {
            let verdict = guard.examine(&data[passed..end]);
            assert!(verdict.clear <= end - passed, "more passed than there is");
            passed += verdict.clear;
            match verdict.rest {
                Rest::Incomplete => break,
                // The answer was another one.
                Rest::Undecided => guard.decide(false),
                Rest::Refused(why) => {
                    fault = Some(format!("{why:?}"));
                    break 'all;
                }
            }
        }
    }
    Passed {
        bytes: data[..passed].to_vec(),
        heads: guard.heads(),
        fault,
        between: guard.is_between(),
    }
}

/// However bytes arrive, the guard says the same of them; and of what it lets pass, the library behind it sees as many
/// messages, none of them broken. What goes on to a backend is fit to.
pub fn forwarding(data: &[u8]) {
    let whole = guarded(data, &[]);
    let cuts: Vec<usize> = data.iter().take(8).map(|byte| usize::from(*byte) * 7).collect();
    let every: Vec<usize> = if data.len() < 600 {
        (0..data.len()).collect()
    } else {
        Vec::new()
    };
    for cuts in [cuts, every] {
        let cut = guarded(data, &cuts);
        // What is wrong with a section that is not all there may be seen when more of it is.
        let later = cut.fault.is_none() && cut.bytes.len() < data.len();
        assert!(
            whole.heads == cut.heads && (whole.fault == cut.fault || later),
            "cut at {cuts:?}: {:?}",
            cut.fault
        );
        // Before a fault, as much of a body passes as had arrived.
        if whole.fault.is_none() {
            assert_eq!(whole.bytes.len(), cut.bytes.len());
        }
    }
    let seen = served(&whole.bytes);
    let heads = u64::try_from(seen.heads.len()).unwrap_or(0);
    assert!(
        heads <= whole.heads,
        "the library saw {heads} heads, the guard {}",
        whole.heads
    );
    if heads < whole.heads {
        let closed = seen.heads.last().is_some_and(|(_, closes)| *closes);
        assert!(
            closed,
            "the library saw {heads} heads, the guard {}; {:?}",
            whole.heads, seen.error
        );
    } else if whole.between && whole.fault.is_none() {
        assert_eq!(
            seen.bodies, heads,
            "a body did not end where the guard saw its end; {:?}",
            seen.error
        );
    }
    for (mut headers, _) in seen.heads {
        let host = headers.get(http::header::HOST).cloned();
        let length = headers.get(http::header::CONTENT_LENGTH).cloned();
        let peer = Peer {
            address: "192.0.2.1:9".parse().ok(),
            local_port: Some(80),
            scheme: Scheme::Http,
            protocol: Protocol::Any,
        };
        forward::prepare_request(&mut headers, &Provenance::of(&peer), None, false);
        let gone = [
            "connection",
            "keep-alive",
            "proxy-connection",
            "transfer-encoding",
            "upgrade",
            "trailer",
            "proxy-authorization",
        ];
        assert!(gone.iter().all(|name| !headers.contains_key(*name)), "{headers:?}");
        assert!(
            headers
                .keys()
                .all(|name| !name.as_str().replace('_', "-").starts_with("x-understudy-")),
            "{headers:?}"
        );
        assert_eq!(
            (
                headers.get(http::header::HOST),
                headers.get(http::header::CONTENT_LENGTH)
            ),
            (host.as_ref(), length.as_ref())
        );
        let from = headers.get("x-forwarded-for").expect("the peer is named").as_bytes();
        assert!(from.ends_with(b"192.0.2.1"), "{headers:?}");
    }
}

#[derive(Default)]
struct Seen {
    /// Each with whether the connection closes after it.
    heads: Vec<(HeaderMap, bool)>,
    bodies: u64,
    error: Option<String>,
}

/// What the library sees of these bytes.
fn served(bytes: &[u8]) -> Seen {
    let seen = Arc::new(Mutex::new(Seen::default()));
    let kept = Arc::clone(&seen);
    let service = service_fn(move |request: Request<Incoming>| {
        let seen = Arc::clone(&kept);
        async move {
            let (head, body) = request.into_parts();
            let old = head.version != http::Version::HTTP_11;
            let says = |token: &[u8]| {
                let lines = head.headers.get_all(http::header::CONNECTION).iter();
                let mut tokens = lines.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
                tokens.any(|one| one.trim_ascii().eq_ignore_ascii_case(token))
            };
            let closes = says(b"close") || (old && !says(b"keep-alive"));
            seen.lock()
                .expect("no panic")
                .heads
                .push((head.headers.clone(), closes));
            if body.collect().await.is_ok() {
                seen.lock().expect("no panic").bodies += 1;
            }
            Ok::<_, Infallible>(Response::new(Full::new(Bytes::new())))
        }
    });
    let connection = http1::Builder::new()
        .max_headers(LIMITS.header_count)
        .max_header_size(LIMITS.header_bytes)
        .max_buf_size(LIMITS.header_bytes)
        .serve_connection(TokioIo::new(Given(bytes, 0)), service);
    let mut connection = pin!(connection);
    let mut cx = Context::from_waker(Waker::noop());
    let told = || {
        let seen = seen.lock().expect("no panic");
        (seen.heads.len(), seen.bodies)
    };
    // Nothing but the bytes can make it go on: once a few looks change nothing, it has seen what it can.
    let (mut last, mut idle, mut ended) = (told(), 0, None);
    while idle < 8 && ended.is_none() {
        if let Poll::Ready(result) = connection.as_mut().poll(&mut cx) {
            ended = Some(result);
        }
        idle = if told() == last { idle + 1 } else { 0 };
        last = told();
    }
    let mut seen = std::mem::take(&mut *seen.lock().expect("no panic"));
    seen.error = ended.and_then(Result::err).map(|error| format!("{error:?}"));
    seen
}

/// Bytes to be read, with nothing behind them, and nobody to read what is written.
struct Given<'b>(&'b [u8], usize);

impl AsyncRead for Given<'_> {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.1 == self.0.len() {
            return Poll::Pending;
        }
        let end = (self.1 + buf.remaining()).min(self.0.len());
        buf.put_slice(&self.0[self.1..end]);
        self.1 = end;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Given<'_> {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
