//! Is a difference real? Counting places over many requests, against a twin.
//!
//! Pure. In: per request the comparison of new with legacy and, where there is one, of a twin with legacy. Out: one
//! [`Finding`] per endpoint, path template and aspect that is not noise, with its grade. It holds counts only, at most
//! [`FINDINGS_LIMIT`] of them; the evidence is computed by `stats::proportions`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::aspect::Aspect;
use super::sample::{Form, Sample};
use super::verdict::{Comparison, Divergence, Verdict};
use crate::engine::stats::proportions::{ln_mean, ln_mixture_e_value};

/// The most combinations of endpoint, template and aspect that are counted; what comes later is tallied as refused.
pub const FINDINGS_LIMIT: usize = 100_000;

/// The evidence at which a difference is proven.
const PROVEN: f64 = 1e6;

/// The legacy-legacy pairs without a difference that make one between legacy and new suspect.
const QUIET_PAIRS: u64 = 100;

/// How many values that only rise make a counter.
const COUNTER_VALUES: u64 = 3;

/// How sure it is that new really differs from legacy at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Grade {
    /// New differs and the twin does not, so often that chance explains it at most once in a million.
    Proven,
    /// Seen, and never between legacy and its twin in at least 100 pairs; or, without any twin, in a respect that does
    /// not vary by itself.
    Suspect,
    /// Seen, and too little is known of what legacy does by itself.
    Unjudged,
}

impl Grade {
    /// `proven`, `suspect` or `unjudged`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Grade::Proven => "proven",
            Grade::Suspect => "suspect",
            Grade::Unjudged => "unjudged",
        }
    }
}

impl fmt::Display for Grade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One difference, over all requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What the requests have in common; none where the input names nothing.
    pub endpoint: Option<String>,
    /// The place without indexes, names in clear: `items.score`, empty for the whole document, or `@status` and its like.
    pub template: String,
    /// In which respect.
    pub aspect: Aspect,
    /// How sure.
    pub grade: Grade,
    /// Requests in which new differs from legacy there and no twin was seen to.
    pub b: u64,
    /// Requests in which only the twin differs.
    pub c: u64,
}

/// Differences counted so far.
#[derive(Debug, Default)]
pub struct Findings {
    endpoints: BTreeMap<Option<String>, Endpoint>,
    cells: usize,
    refused: u64,
}

#[derive(Debug, Default)]
struct Endpoint {
    /// Requests with a twin: as many legacy-legacy pairs.
    triples: u64,
    /// Requests without.
    alone: u64,
    cells: BTreeMap<(String, Aspect), Cell>,
}

#[derive(Debug, Default)]
struct Cell {
    only_new: u64,
    only_twin: u64,
    both: u64,
    /// New differs in a request without a twin.
    alone: u64,
    /// A value was seen that does not look as if each call brought another.
    settled: bool,
    counter: Counter,
}

/// Whether both sides' numbers have only ever risen.
#[derive(Debug, Default)]
struct Counter {
    seen: u64,
    last: Option<(f64, f64)>,
    broken: bool,
}

impl Findings {
    /// Counts one request: `new` against legacy, and its twin against legacy if it has one.
    ///
    /// Both as `compare` gave them, before `without_noise`. A request that could not be compared counts nowhere; a twin that
    /// could not be read is none.
    pub fn observe(&mut self, endpoint: Option<&str>, new: &Comparison, twin: Option<&Comparison>) {
        if matches!(new.verdict, Verdict::Incomparable(_)) {
            return;
        }
        let key = endpoint.map(str::to_owned);
        if self.endpoints.len() >= FINDINGS_LIMIT && !self.endpoints.contains_key(&key) {
            self.refused = self.refused.saturating_add(1);
            return;
        }
        let endpoint = self.endpoints.entry(key).or_default();
        let twin = twin.filter(|twin| twin.unread.is_none());
        match twin {
            Some(_) => endpoint.triples += 1,
            None => endpoint.alone += 1,
        }
        let of_new = keys(new);
        let of_twin = twin.map(keys).unwrap_or_default();
        for key in of_new.union(&of_twin) {
            let Some(cell) = cell(&mut endpoint.cells, key, &mut self.cells, &mut self.refused) else {
                continue;
            };
            match (of_new.contains(key), of_twin.contains(key)) {
                (true, true) => cell.both += 1,
                (true, false) if twin.is_some() => cell.only_new += 1,
                (true, false) => cell.alone += 1,
                _ => cell.only_twin += 1,
            }
        }
        for found in &new.divergences {
            if let Some(cell) = endpoint.cells.get_mut(&(found.pointer.dotted(), Aspect::of(found).0)) {
                cell.look(found);
            }
        }
    }

    /// Observations that found no room, see [`FINDINGS_LIMIT`].
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// What has been found: proven first, then suspect, then unjudged; each by endpoint, template and aspect.
    #[must_use]
    pub fn findings(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        for (name, endpoint) in &self.endpoints {
            for ((template, aspect), cell) in &endpoint.cells {
                let Some(grade) = endpoint.grade(template, *aspect, cell) else {
                    continue;
                };
                findings.push(Finding {
                    endpoint: name.clone(),
                    template: template.clone(),
                    aspect: *aspect,
                    grade,
                    b: cell.only_new + cell.alone,
                    c: cell.only_twin,
                });
            }
        }
        findings.sort_by_key(|finding| finding.grade);
        findings
    }
}

/// The templates and aspects in which one comparison differs; each counts once, however many items of an array share it.
fn keys(comparison: &Comparison) -> BTreeSet<(String, Aspect)> {
    let mut keys = BTreeSet::new();
    for found in &comparison.divergences {
        let (aspect, finer) = Aspect::of(found);
        let template = found.pointer.dotted();
        if let Some(finer) = finer {
            keys.insert((template.clone(), finer));
        }
        keys.insert((template, aspect));
    }
    keys
}

fn cell<'a>(
    cells: &'a mut BTreeMap<(String, Aspect), Cell>,
    key: &(String, Aspect),
    count: &mut usize,
    refused: &mut u64,
) -> Option<&'a mut Cell> {
    if !cells.contains_key(key) {
        if *count >= FINDINGS_LIMIT {
            *refused = refused.saturating_add(1);
            return None;
        }
        *count += 1;
    }
    Some(cells.entry(key.clone()).or_default())
}

impl Cell {
    /// Notes what the values look like.
    fn look(&mut self, found: &Divergence) {
        let forms = (
            found.legacy.as_ref().map(Sample::form),
            found.new.as_ref().map(Sample::form),
        );
        self.settled |= !matches!(forms, (Some(legacy), Some(new)) if legacy.is_volatile() && new.is_volatile());
        let number = |sample: &super::Sample| {
            sample
                .clear()
                .parse::<f64>()
                .ok()
                .filter(|_| sample.form() == Form::Number)
        };
        let numbers = found
            .legacy
            .as_ref()
            .and_then(number)
            .zip(found.new.as_ref().and_then(number));
        self.counter.take(numbers);
    }

    /// In both runs' values nothing speaks against their changing with every call.
    fn is_volatile(&self) -> bool {
        !self.settled || self.counter.counts()
    }

    fn twin_differed(&self) -> u64 {
        self.only_twin + self.both
    }
}

impl Counter {
    fn take(&mut self, numbers: Option<(f64, f64)>) {
        self.seen += 1;
        let rises = match (self.last, numbers) {
            (None, Some(_)) => self.seen == 1,
            (Some((legacy, new)), Some((next_legacy, next_new))) => next_legacy > legacy && next_new > new,
            (_, None) => false,
        };
        self.broken |= !rises;
        self.last = numbers;
    }

    fn counts(&self) -> bool {
        !self.broken && self.seen >= COUNTER_VALUES
    }
}

impl Endpoint {
    /// None: new does not differ there, or no more than legacy does by itself.
    fn grade(&self, template: &str, aspect: Aspect, cell: &Cell) -> Option<Grade> {
        if cell.only_new + cell.both + cell.alone == 0 {
            return None;
        }
        if self.triples == 0 {
            return Some(if steady(aspect, cell) {
                Grade::Suspect
            } else {
                Grade::Unjudged
            });
        }
        if self.ln_evidence(cell) >= PROVEN.ln() {
            return Some(Grade::Proven);
        }
        if cell.twin_differed() > 0 {
            return None;
        }
        // An id that varies may also vary in its look; a new look says something only of a value that never varied.
        let value = || self.cells.get(&(template.to_owned(), Aspect::Value));
        let told = aspect != Aspect::Shape || value().is_none_or(|value| value.twin_differed() == 0);
        Some(if self.triples >= QUIET_PAIRS && told {
            Grade::Suspect
        } else {
            Grade::Unjudged
        })
    }

    /// From triples, by who alone differs. Requests without a twin add how often new differs in them against how often
    /// legacy differs from its twin: given that something differed, it was one of the n requests and not one of the m
    /// legacy-legacy pairs with a probability of n / (n + m).
    fn ln_evidence(&self, cell: &Cell) -> f64 {
        let from_triples = ln_mixture_e_value(cell.only_new, cell.only_twin, 0.5);
        if self.alone == 0 {
            return from_triples;
        }
        let share = self.alone as f64 / (self.alone as f64 + self.triples as f64);
        ln_mean(
            from_triples,
            ln_mixture_e_value(cell.alone, cell.twin_differed(), share),
        )
    }
}

/// Without any twin: a respect that no call changes by itself.
fn steady(aspect: Aspect, cell: &Cell) -> bool {
    match aspect {
        Aspect::DuplicateKey | Aspect::Extra | Aspect::Missing | Aspect::Null | Aspect::Type => true,
        Aspect::Value => !cell.is_volatile(),
        Aspect::Length | Aspect::Magnitude | Aspect::Shape => false,
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::super::{Answer, Body, Rules, compare};
    use super::*;

    fn against(legacy: &str, other: &str) -> Comparison {
        let headers = HeaderMap::new();
        let answer = |body: &'static str| Answer {
            status: 200,
            headers: &headers,
            body: Body::Bytes(body.as_bytes()),
        };
        // Leaked, so that one closure serves both.
        compare(
            &Rules::default(),
            &answer(legacy.to_owned().leak()),
            &answer(other.to_owned().leak()),
        )
    }

    /// What is found after each `(legacy, twin, new)`, repeated.
    fn found(triples: &[(u64, &str, Option<&str>, &str)]) -> Vec<(String, Aspect, Grade, u64, u64)> {
        let mut findings = Findings::default();
        for (times, legacy, twin, new) in triples {
            for _ in 0..*times {
                findings.observe(
                    Some("GET /a"),
                    &against(legacy, new),
                    twin.map(|twin| against(legacy, twin)).as_ref(),
                );
            }
        }
        let found = findings.findings().into_iter();
        found.map(|it| (it.template, it.aspect, it.grade, it.b, it.c)).collect()
    }

    fn one(template: &str, aspect: Aspect, grade: Grade, b: u64, c: u64) -> Vec<(String, Aspect, Grade, u64, u64)> {
        vec![(template.to_owned(), aspect, grade, b, c)]
    }

    const A: &str = r#"{"items":[{"score":1},{"score":1}]}"#;
    const B: &str = r#"{"items":[{"score":2},{"score":2}]}"#;

    #[test]
    fn twenty_four_differences_against_a_silent_twin_are_proof() {
        assert_eq!(
            found(&[(24, A, Some(A), B)]),
            one("items.score", Aspect::Value, Grade::Proven, 24, 0)
        );
        assert_eq!(
            found(&[(23, A, Some(A), B)]),
            one("items.score", Aspect::Value, Grade::Unjudged, 23, 0)
        );
    }

    #[test]
    fn what_the_twin_never_does_in_a_hundred_pairs_is_suspect() {
        assert_eq!(found(&[(99, A, Some(A), A), (1, A, Some(A), B)])[0].2, Grade::Suspect);
        assert_eq!(found(&[(98, A, Some(A), A), (1, A, Some(A), B)])[0].2, Grade::Unjudged);
    }

    #[test]
    fn what_the_twin_does_as_often_is_noise() {
        assert_eq!(found(&[(100, A, Some(B), A), (100, A, Some(A), B)]), []);
        assert_eq!(found(&[(500, A, Some(B), B)]), []);
        assert_eq!(found(&[(500, A, Some(B), A)]), []);
    }

    #[test]
    fn noise_is_overcome_by_enough_evidence() {
        let proven = found(&[(20, A, Some(B), A), (100, A, Some(A), B)]);
        assert_eq!(proven, one("items.score", Aspect::Value, Grade::Proven, 100, 20));
    }

    #[test]
    fn nothing_is_proven_without_a_twin() {
        let grade = |legacy: &str, new: &str| found(&[(1_000, legacy, None, new)])[0].2;
        assert_eq!(grade(r#"{"a":"x"}"#, r#"{"a":"y"}"#), Grade::Suspect);
        assert_eq!(grade(r#"{"a":1}"#, "{}"), Grade::Suspect);
        assert_eq!(grade(r#"{"a":1}"#, r#"{"a":"1"}"#), Grade::Suspect);
        assert_eq!(grade("[1]", "[1,2]"), Grade::Unjudged);
        let (time, later) = (r#"{"a":"2026-01-01T00:00:00Z"}"#, r#"{"a":"2026-01-01T00:00:01Z"}"#);
        assert_eq!(grade(time, later), Grade::Unjudged);
        assert_eq!(grade(time, r#"{"a":"soon"}"#), Grade::Suspect);
    }

    #[test]
    fn numbers_that_only_rise_are_a_counter() {
        let rising: Vec<_> = (0..3)
            .map(|n| (format!("[{}]", 10 + n), format!("[{}]", 50 + n)))
            .collect();
        let lines = |count: usize| {
            rising[..count]
                .iter()
                .map(|(legacy, new)| (1, legacy.as_str(), None, new.as_str()))
        };
        assert_eq!(
            found(&lines(3).collect::<Vec<_>>()),
            one("", Aspect::Value, Grade::Unjudged, 3, 0)
        );
        assert_eq!(
            found(&lines(2).collect::<Vec<_>>()),
            one("", Aspect::Value, Grade::Suspect, 2, 0)
        );
        let back: Vec<_> = lines(3).chain([(1, "[9]", None, "[60]")]).collect();
        assert_eq!(found(&back), one("", Aspect::Value, Grade::Suspect, 4, 0));
    }

    #[test]
    fn new_look_of_a_noisy_value_is_not_suspect_but_can_be_proven() {
        let id = |n: u32| format!(r#"{{"id":"0b6b3f3e-8f0e-4a57-9f1c-1f3a5d1c2b3{n}"}}"#);
        let (legacy, twin, same_look, other_look) = (id(1), id(2), id(3), r#"{"id":"17"}"#);
        let few = [
            (200, &*legacy, Some(&*twin), &*same_look),
            (1, &legacy, Some(&twin), other_look),
        ];
        assert_eq!(found(&few), one("id", Aspect::Shape, Grade::Unjudged, 1, 0));
        let many = [(24, &*legacy, Some(&*twin), other_look)];
        assert_eq!(found(&many), one("id", Aspect::Shape, Grade::Proven, 24, 0));
    }

    #[test]
    fn requests_without_a_twin_add_to_the_evidence_of_those_with_one() {
        // 12 differences in triples are no proof; 300 more without a twin, against none in 300 pairs, are.
        let with_twin = (288, A, Some(A), A);
        let few = (12, A, Some(A), B);
        assert_eq!(found(&[with_twin, few])[0].2, Grade::Suspect);
        assert_eq!(
            found(&[with_twin, few, (300, A, None, B)]),
            one("items.score", Aspect::Value, Grade::Proven, 312, 0)
        );
        // Against a twin that differs as often, they are not.
        assert_eq!(found(&[(300, A, Some(B), B), (300, A, None, B)]), []);
    }

    #[test]
    fn endpoints_are_counted_apart_and_the_surest_comes_first() {
        let mut findings = Findings::default();
        for n in 0..24 {
            findings.observe(Some("b"), &against(A, B), Some(&against(A, A)));
            if n == 0 {
                findings.observe(Some("a"), &against(A, B), Some(&against(A, A)));
                findings.observe(None, &against(A, "{}"), None);
            }
        }
        let found: Vec<_> = findings
            .findings()
            .into_iter()
            .map(|it| (it.endpoint, it.grade))
            .collect();
        let expected = [
            (Some("b".to_owned()), Grade::Proven),
            (None, Grade::Suspect),
            (Some("a".to_owned()), Grade::Unjudged),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn incomparable_requests_count_nowhere() {
        let headers = HeaderMap::new();
        let cut = Answer {
            status: 200,
            headers: &headers,
            body: Body::Cut,
        };
        let cut = compare(&Rules::default(), &cut, &cut);
        let mut findings = Findings::default();
        for _ in 0..24 {
            findings.observe(None, &cut, Some(&against(A, B)));
        }
        assert_eq!(findings.findings(), []);
        // A twin that could not be read is no twin.
        findings.observe(None, &against(A, B), Some(&cut));
        assert_eq!(findings.findings()[0].grade, Grade::Suspect);
    }
}
