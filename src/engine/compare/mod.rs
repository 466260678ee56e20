//! Do two answers to the same request say the same?
//!
//! Pure. In: two [`Answer`]s and the [`Rules`] of their route. Out: a [`Comparison`]: one of four verdicts, the places that
//! differ, what was ignored, and what could not be read. Whoever calls pairs the answers, caps their bodies and decides what a
//! divergence leads to. [`without_noise`] and [`Findings`] weigh a comparison against a twin's.
//!
//! # How it is decided
//!
//! 1. Status, chosen headers and body of equal bytes are `same`; nothing is parsed.
//! 2. The status counts at `@status`; each chosen header, with all its values in order, at `@header.NAME`.
//! 3. Bodies of different bytes: one that was cut, or one under a `content-encoding`, cannot be compared. If both are
//!    JSON, each difference is a divergence at its RFC 6901 pointer. Otherwise there is one at `@body`: `missing` or
//!    `extra` if one body is empty, `type` if one is JSON and the other is not, `body` if neither is.
//! 4. A body is JSON if it reads as JSON and its `content-type` says so, or there is none, or it begins with `{` or `[`
//!    (services that answer JSON as `text/html` are common). A byte order mark counts only if one side alone has it.
//! 5. `ignore` patterns hide differences at their place and below; each hidden place is counted. Nothing but hidden
//!    differences is `noise`.
//!
//! ```
//! use http::HeaderMap;
//! use understudy::engine::compare::{Answer, Body, Rules, Verdict, compare};
//!
//! let headers = HeaderMap::new();
//! let answer = |body: &'static [u8]| Answer { status: 200, headers: &headers, body: Body::Bytes(body) };
//! let found = compare(&Rules::default(), &answer(br#"{"total":1.0}"#), &answer(br#"{"total":2}"#));
//! assert_eq!(found.verdict, Verdict::Diverged);
//! assert_eq!(found.divergences[0].pointer.as_str(), "/total");
//! ```

mod aspect;
mod diff;
mod findings;
pub(in crate::engine) mod json;

mod path;
mod report;
mod rules;
mod sample;
#[cfg(test)]
mod tests;
mod twin;
mod verdict;

use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, HeaderName};

pub use aspect::Aspect;
pub use findings::{FINDINGS_LIMIT, Finding, Findings, Grade};
pub use json::{DEPTH_LIMIT, NODE_LIMIT};
pub use path::{POINTER_LIMIT_BYTES, Pattern, PatternError, Place};
pub use rules::{Headers, LISTED, Rules};
pub use sample::{SAMPLE_LIMIT_BYTES, Sample, Shape};
pub use twin::without_noise;
pub use verdict::{Comparison, Divergence, Kind, Severity, Suppression, Verdict, Why};

use json::{Refusal, Tree};
use report::Report;

/// One side's answer.
#[derive(Clone, Copy, Debug)]
pub struct Answer<'a> {
    /// The status code.
    pub status: u16,
    /// All headers, as the backend sent them.
    pub headers: &'a HeaderMap,
    /// The body, as the backend sent it.
    pub body: Body<'a>,
}

/// A body as far as it was kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body<'a> {
    /// All of it; empty if there was none.
    Bytes(&'a [u8]),
    /// Longer than the cap, or it never finished.
    Cut,
}

/// Compares new's answer with legacy's.
///
/// Never fails and never panics, whatever the bytes. Time and memory are linear in the bodies (n log n where members stand
/// in another order); `benches/compare.rs` has the figures.
#[must_use]
pub fn compare(rules: &Rules, legacy: &Answer<'_>, new: &Answer<'_>) -> Comparison {
    let mut report = Report::new(rules);
    compare_status(&mut report, legacy.status, new.status);
    compare_headers(&mut report, legacy.headers, new.headers);
    compare_bodies(&mut report, legacy, new);
    report.finish()
}

fn compare_status(report: &mut Report<'_>, legacy: u16, new: u16) {
    if legacy == new {
        return;
    }
    if let Some(rule) = report.rules.ignored_by(Pattern::is_status) {
        return report.suppress(rule);
    }
    let severity = report
        .rules
        .severity_by(Pattern::is_status)
        .unwrap_or_else(|| Severity::of_status(legacy, new));
    let samples = || (Some(Sample::of_status(legacy)), Some(Sample::of_status(new)));
    report.record(Kind::Status, severity, || Place::fixed("@status"), samples);
}

fn compare_headers(report: &mut Report<'_>, legacy: &HeaderMap, new: &HeaderMap) {
    match report.rules.headers() {
        Headers::Chosen(names) => names.iter().for_each(|name| compare_header(report, name, legacy, new)),
        Headers::All => {
            let mut names: Vec<_> = legacy.keys().chain(new.keys()).collect();
            names.sort_unstable_by_key(|name| name.as_str());
            names.dedup();
            names
                .into_iter()
                .for_each(|name| compare_header(report, name, legacy, new));
        }
    }
}

fn compare_header(report: &mut Report<'_>, name: &HeaderName, legacy: &HeaderMap, new: &HeaderMap) {
    if legacy.get_all(name).iter().eq(new.get_all(name)) {
        return;
    }
    let covers = |pattern: &Pattern| pattern.is_header(name);
    if let Some(rule) = report.rules.ignored_by(covers) {
        return report.suppress(rule);
    }
    let sample = |headers: &HeaderMap| {
        let values: Vec<_> = headers.get_all(name).iter().map(http::HeaderValue::as_bytes).collect();
        (!values.is_empty()).then(|| Sample::of_bytes(&values.join(&b", "[..])))
    };
    let severity = report
        .rules
        .severity_by(covers)
        .unwrap_or_else(|| Severity::of(Kind::Header, true));
    let place = || Place::fixed(format!("@header.{name}"));
    report.record(Kind::Header, severity, place, || (sample(legacy), sample(new)));
}

fn compare_bodies(report: &mut Report<'_>, legacy: &Answer<'_>, new: &Answer<'_>) {
    let ignored = report.rules.ignored_by(Pattern::is_body);
    match (legacy.body, new.body) {
        (Body::Bytes(a), Body::Bytes(b)) if a == b => {}
        (Body::Bytes(_), Body::Bytes(_)) if ignored.is_some() => {
            ignored.into_iter().for_each(|rule| report.suppress(rule));
        }
        (Body::Bytes(a), Body::Bytes(b)) if !(is_encoded(legacy.headers) || is_encoded(new.headers)) => {
            compare_plain(report, (a, Media::of(legacy.headers)), (b, Media::of(new.headers)));
        }
        // Whether these differ is not known; where nobody wants to know, that is no gap.
        _ if ignored.is_some() => {}
        (Body::Bytes(_), Body::Bytes(_)) => report.found.unread = Some(Why::Encoded),
        _ => report.found.unread = Some(Why::Cut),
    }
}

/// Bodies of different bytes whose meaning no coding hides.
fn compare_plain(report: &mut Report<'_>, legacy: (&[u8], Media), new: (&[u8], Media)) {
    const MARK: &[u8] = b"\xef\xbb\xbf";
    let kind = match (legacy.0, new.0) {
        (_, []) => Kind::Missing,
        ([], _) => Kind::Extra,
        (a, b) => {
            let (a, b) = match (a.strip_prefix(MARK), b.strip_prefix(MARK)) {
                (Some(a), Some(b)) => (a, b),
                _ => (a, b),
            };
            match (read(a, legacy.1), read(b, new.1)) {
                (Ok(legacy), Ok(new)) => return diff::documents(report, &legacy, &new),
                (Err(Refusal::Deep), _) | (_, Err(Refusal::Deep)) => return report.found.unread = Some(Why::TooDeep),
                (Err(Refusal::Large), _) | (_, Err(Refusal::Large)) => {
                    return report.found.unread = Some(Why::TooLarge);
                }
                (Err(Refusal::Syntax), Err(Refusal::Syntax)) => Kind::Body,
                (Ok(_), Err(Refusal::Syntax)) | (Err(Refusal::Syntax), Ok(_)) => Kind::Type,
            }
        }
    };
    let demanded = report.rules.severity_by(Pattern::is_body);
    let severity = demanded.unwrap_or_else(|| Severity::of(kind, !legacy.0.is_empty()));
    let sample = |body: &[u8]| (!body.is_empty()).then(|| Sample::of_bytes(body));
    report.record(
        kind,
        severity,
        || Place::fixed("@body"),
        || (sample(legacy.0), sample(new.0)),
    );
}

fn read(body: &[u8], media: Media) -> Result<Tree<'_>, Refusal> {
    let container = matches!(body.trim_ascii_start(), [b'{' | b'[', ..]);
    if media == Media::Other && !container {
        return Err(Refusal::Syntax);
    }
    Tree::parse(body)
}

/// What a `content-type` says about JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Media {
    /// Nothing, or JSON.
    Json,
    Other,
}

impl Media {
    fn of(headers: &HeaderMap) -> Self {
        let Some(value) = headers.get(CONTENT_TYPE) else {
            return Media::Json;
        };
        let essence = value
            .as_bytes()
            .split(|&byte| byte == b';')
            .next()
            .unwrap_or_default()
            .trim_ascii();
        let json = [&b"/json"[..], b"+json"].iter().any(|ending| {
            let tail = essence.len().checked_sub(ending.len()).and_then(|at| essence.get(at..));
            tail.is_some_and(|tail| tail.eq_ignore_ascii_case(ending))
        });
        if json { Media::Json } else { Media::Other }
    }
}

fn is_encoded(headers: &HeaderMap) -> bool {
    headers.get_all(CONTENT_ENCODING).iter().any(|value| {
        let mut codings = value.as_bytes().split(|&byte| byte == b',');
        codings
            .any(|coding| !matches!(coding.trim_ascii(), b"") && !coding.trim_ascii().eq_ignore_ascii_case(b"identity"))
    })
}
