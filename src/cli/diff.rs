//! `understudy diff`: compares pairs, or triples, of answers that somebody has recorded.
//!
//! Pure but for [`DiffArgs::execute`], which opens the file and the terminal. In: JSON lines, one request each. Out: JSON lines
//! with a verdict each, or the findings over all of them. Comparing and grading are `engine::compare`'s; here are the
//! shapes of the lines and what a bad line gets.
//!
//! A line is `{"id", "endpoint"?, "legacy": raw text, "twin"?: raw text or null, "new": raw text, "ext"?: {"legacy":
//! {"status"?, "headers"?}, "twin": .., "new": ..}}`. `id` is echoed as it is; a header's value is a text or a list of
//! texts; a status that is not given is 200. Headers are compared where both sides give any: all of them, or those named
//! by `--header`. `content-encoding` is left out, for a recorded text is no longer encoded. Unknown members are ignored.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use http::header::CONTENT_ENCODING;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};

use crate::engine::compare::{
    Answer, Body, Comparison, Divergence, Findings, Headers, Pattern, Rules, Sample, Severity, Verdict, Why, compare,
    without_noise,
};

/// The longest line that is read, in bytes.
pub const LINE_LIMIT_BYTES: usize = 64 * 1024 * 1024;

/// How many divergences of one pair are listed.
const LISTED: usize = 10_000;

/// The options of `understudy diff`.
#[derive(Clone, Debug, clap::Args)]
pub struct DiffArgs {
    /// JSON lines {"id","endpoint"?,"legacy":text,"twin"?:text,"new":text,"ext"?}; `-` is standard input
    #[arg(long, value_name = "FILE")]
    pub pairs: PathBuf,
    /// How the elements of arrays are matched
    #[arg(long, value_enum, default_value_t = Arrays::Index)]
    pub arrays: Arrays,
    /// Numbers that are not both whole are equal if they differ by less than this share; 0 is exact, as on live traffic
    #[arg(long, value_name = "SHARE", default_value = "4e-9", value_parser = share)]
    pub float_tolerance: f64,
    /// Ignore this place and all below it, for example /timestamp, /items/*/id, /**/request_id, @header.date
    #[arg(long, value_name = "PATTERN")]
    pub ignore: Vec<Pattern>,
    /// Compare only this header of `ext`; without it, all of them
    #[arg(long, value_name = "NAME")]
    pub header: Vec<HeaderName>,
    /// Another severity for a place, for example /total=critical
    #[arg(long, value_name = "PATTERN=SEVERITY", value_parser = severity)]
    pub severity: Vec<(Pattern, Severity)>,
    /// One line per finding over all pairs, instead of one per pair
    #[arg(long)]
    pub summary: bool,
    /// Also print both values of each divergence: this is shopper data
    #[arg(long, conflicts_with = "summary")]
    pub values: bool,
    /// Exit with 1 if any pair diverged
    #[arg(long)]
    pub exit_code: bool,
}

/// How the elements of two arrays are matched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Arrays {
    /// The third with the third
    Index,
}

fn share(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|share| (0.0..1.0).contains(share));
    share.ok_or_else(|| "write a share of at least 0 and below 1, for example 1e-6".to_owned())
}

fn severity(text: &str) -> Result<(Pattern, Severity), String> {
    let (pattern, severity) = text
        .rsplit_once('=')
        .ok_or("write PATTERN=SEVERITY, for example /total=critical")?;
    let severity = Severity::parse(severity).ok_or("a severity is critical, major or minor")?;
    Ok((Pattern::parse(pattern).map_err(|error| error.to_string())?, severity))
}

impl DiffArgs {
    /// Reads the file, writes to standard output, complains on standard error.
    ///
    /// Exit code 0: every line was judged. 1: the same, and with `--exit-code` at least one pair diverged. 2: a line, or the
    /// file, could not be read.
    #[must_use]
    pub fn execute(&self) -> ExitCode {
        let (output, errors) = (BufWriter::new(io::stdout().lock()), io::stderr().lock());
        let outcome = if self.pairs == Path::new("-") {
            run(io::stdin().lock(), output, errors, "standard input", self)
        } else {
            let name = self.pairs.display().to_string();
            File::open(&self.pairs).and_then(|file| run(BufReader::new(file), output, errors, &name, self))
        };
        match outcome {
            Ok(outcome) if outcome.bad_lines > 0 => ExitCode::from(2),
            Ok(outcome) if self.exit_code && outcome.diverged > 0 => ExitCode::from(1),
            Ok(_) => ExitCode::SUCCESS,
            // Whoever reads the output has seen enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!(
                    "{}: {error}. name a readable file of JSON lines, or `-`",
                    self.pairs.display()
                );
                ExitCode::from(2)
            }
        }
    }

    fn rules(&self, headers: Headers) -> Rules {
        Rules::new(self.ignore.clone(), headers, self.severity.clone())
            .float_tolerance(self.float_tolerance)
            .listing(LISTED)
    }
}

/// What a run came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Lines that were judged.
    pub pairs: u64,
    /// Of these, lines whose verdict is `diverged`.
    pub diverged: u64,
    /// Lines that were refused, each with a message.
    pub bad_lines: u64,
}

/// Reads lines from `input`, writes verdicts or findings to `output`, and a message per bad line to `errors`, as
/// `NAME:LINE: what. remedy`; good lines after a bad one are judged all the same.
///
/// # Errors
/// Those of reading and writing; a bad line is none.
pub fn run(
    mut input: impl BufRead,
    mut output: impl Write,
    mut errors: impl Write,
    name: &str,
    args: &DiffArgs,
) -> io::Result<Outcome> {
    // As many cases as `Arrays` has; the comparison knows no other way.
    let Arrays::Index = args.arrays;
    let chosen = if args.header.is_empty() {
        Headers::All
    } else {
        Headers::Chosen(args.header.clone())
    };
    let rules = Both {
        with_headers: args.rules(chosen),
        without: args.rules(Headers::Chosen(Vec::new())),
    };
    let mut findings = Findings::default();
    let mut outcome = Outcome::default();
    let mut line = Vec::new();
    for number in 1_u64.. {
        let Some(whole) = read_line(&mut input, &mut line)? else {
            break;
        };
        let triple = match parse(&line, whole) {
            Ok(None) => continue,
            Ok(Some(triple)) => triple,
            Err(message) => {
                outcome.bad_lines += 1;
                writeln!(errors, "{name}:{number}: {message}")?;
                continue;
            }
        };
        let (new, twin) = triple.compare(&rules);
        outcome.pairs += 1;
        if args.summary {
            findings.observe(triple.endpoint.as_deref(), &new, twin.as_ref());
        }
        let judged = match &twin {
            Some(twin) => without_noise(new, twin),
            None => new,
        };
        outcome.diverged += u64::from(judged.verdict == Verdict::Diverged);
        if !args.summary {
            write_line(&mut output, &PairOut::of(&triple.id, &judged, args.values))?;
        }
    }
    for finding in findings.findings() {
        let line = FindingOut {
            endpoint: finding.endpoint.as_deref(),
            template: &finding.template,
            aspect: finding.aspect.as_str(),
            grade: finding.grade.as_str(),
            b: finding.b,
            c: finding.c,
        };
        write_line(&mut output, &line)?;
    }
    if findings.refused() > 0 {
        let refused = findings.refused();
        writeln!(
            errors,
            "{name}: {refused} differences were not counted, too many places. use --ignore, or split the file"
        )?;
    }
    output.flush()?;
    Ok(outcome)
}

/// The next line without its end, and whether it is whole; none at the end of the input.
fn read_line(input: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<Option<bool>> {
    line.clear();
    let limit = LINE_LIMIT_BYTES as u64 + 1;
    if input.by_ref().take(limit).read_until(b'\n', line)? == 0 {
        return Ok(None);
    }
    if line.pop_if(|last| *last == b'\n').is_some() || line.len() <= LINE_LIMIT_BYTES {
        return Ok(Some(true));
    }
    input.skip_until(b'\n')?;
    Ok(Some(false))
}

fn write_line(output: &mut impl Write, line: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *output, line)?;
    output.write_all(b"\n")
}

fn parse(line: &[u8], whole: bool) -> Result<Option<Triple>, String> {
    if !whole {
        return Err("longer than 64 MiB. record smaller bodies, or leave this request out".to_owned());
    }
    if line.trim_ascii().is_empty() {
        return Ok(None);
    }
    let line: LineIn = serde_json::from_slice(line).map_err(|error| {
        let what = error.to_string();
        // The error counts lines within the one line that it was given.
        let what = what.rsplit_once(" at line ").map_or(what.as_str(), |(what, _)| what);
        let column = error.column();
        format!(
            "column {column}: {what}. a line is {{\"id\":..,\"legacy\":\"raw text\",\"new\":\"raw text\"}} and may have \
             endpoint, twin and ext; bodies are texts, not objects"
        )
    })?;
    line.read().map(Some)
}

struct Both {
    with_headers: Rules,
    without: Rules,
}

/// One request, read.
struct Triple {
    id: serde_json::Value,
    endpoint: Option<String>,
    legacy: Recorded,
    twin: Option<Recorded>,
    new: Recorded,
}

struct Recorded {
    body: String,
    status: u16,
    headers: Option<HeaderMap>,
}

impl Triple {
    fn compare(&self, rules: &Both) -> (Comparison, Option<Comparison>) {
        let none = HeaderMap::new();
        let against = |other: &Recorded| {
            let both_have_headers = self.legacy.headers.is_some() && other.headers.is_some();
            let rules = if both_have_headers {
                &rules.with_headers
            } else {
                &rules.without
            };
            compare(rules, &self.legacy.answer(&none), &other.answer(&none))
        };
        (against(&self.new), self.twin.as_ref().map(against))
    }
}

#[derive(Deserialize)]
struct LineIn {
    id: serde_json::Value,
    endpoint: Option<String>,
    legacy: String,
    twin: Option<String>,
    new: String,
    ext: Option<ExtIn>,
}

#[derive(Default, Deserialize)]
struct ExtIn {
    legacy: Option<HeadIn>,
    twin: Option<HeadIn>,
    new: Option<HeadIn>,
}

#[derive(Default, Deserialize)]
struct HeadIn {
    status: Option<u16>,
    headers: Option<BTreeMap<String, ValuesIn>>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum ValuesIn {
    Several(Vec<String>),
    Single(String),
}

impl LineIn {
    fn read(self) -> Result<Triple, String> {
        let ext = self.ext.unwrap_or_default();
        Ok(Triple {
            id: self.id,
            endpoint: self.endpoint,
            legacy: Recorded::read(self.legacy, ext.legacy)?,
            twin: self.twin.map(|twin| Recorded::read(twin, ext.twin)).transpose()?,
            new: Recorded::read(self.new, ext.new)?,
        })
    }
}

impl Recorded {
    fn answer<'a>(&'a self, none: &'a HeaderMap) -> Answer<'a> {
        let headers = self.headers.as_ref().unwrap_or(none);
        Answer {
            status: self.status,
            headers,
            body: Body::Bytes(self.body.as_bytes()),
        }
    }

    fn read(body: String, head: Option<HeadIn>) -> Result<Self, String> {
        let head = head.unwrap_or_default();
        let headers = head.headers.map(read_headers).transpose()?;
        Ok(Self {
            body,
            status: head.status.unwrap_or(200),
            headers,
        })
    }
}

fn read_headers(written: BTreeMap<String, ValuesIn>) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    for (name, values) in written {
        let parsed: HeaderName = name
            .parse()
            .map_err(|_| format!("`{name}` is no header name. leave it out of ext, or correct it"))?;
        let values = match values {
            ValuesIn::Several(values) => values,
            ValuesIn::Single(value) => vec![value],
        };
        for value in values.iter().filter(|_| parsed != CONTENT_ENCODING) {
            let value = HeaderValue::from_str(value).map_err(|_| {
                format!("`{name}` has a value that no header can have. leave it out of ext, or correct it")
            })?;
            headers.append(parsed.clone(), value);
        }
    }
    Ok(headers)
}

#[derive(Serialize)]
struct PairOut<'a> {
    id: &'a serde_json::Value,
    verdict: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<&'static str>,
    divergences: Vec<DivergenceOut<'a>>,
    /// Divergences beyond those listed.
    #[serde(skip_serializing_if = "is_zero")]
    unlisted: u32,
    /// Differences that `--ignore` hid.
    #[serde(skip_serializing_if = "is_zero")]
    suppressed: u32,
    /// Differences that the twin shows, too.
    #[serde(skip_serializing_if = "is_zero")]
    explained: u32,
    /// Numbers that differ by less than `--float-tolerance`.
    #[serde(skip_serializing_if = "is_zero")]
    tolerated: u32,
}

#[derive(Serialize)]
struct DivergenceOut<'a> {
    pointer: &'a str,
    kind: &'static str,
    severity: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    legacy: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    new: Option<&'a str>,
}

#[derive(Serialize)]
struct FindingOut<'a> {
    endpoint: Option<&'a str>,
    template: &'a str,
    aspect: &'static str,
    grade: &'static str,
    b: u64,
    c: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(count: &u32) -> bool {
    *count == 0
}

impl<'a> PairOut<'a> {
    fn of(id: &'a serde_json::Value, judged: &'a Comparison, values: bool) -> Self {
        let clear = |found: &'a Divergence| {
            let side = |sample: &'a Option<crate::engine::compare::Sample>| sample.as_ref().filter(|_| values);
            (
                side(&found.legacy).map(Sample::clear),
                side(&found.new).map(Sample::clear),
            )
        };
        let divergences = judged.divergences.iter().map(|found| {
            let (legacy, new) = clear(found);
            let (kind, severity) = (found.kind.as_str(), found.severity.as_str());
            DivergenceOut {
                pointer: found.pointer.as_str(),
                kind,
                severity,
                legacy,
                new,
            }
        });
        let listed = u32::try_from(judged.divergences.len()).unwrap_or(u32::MAX);
        Self {
            id,
            verdict: judged.verdict.as_str(),
            why: judged.unread.map(Why::as_str),
            divergences: divergences.collect(),
            unlisted: judged.total().saturating_sub(listed),
            suppressed: judged.suppressed(),
            explained: judged.explained,
            tolerated: judged.tolerated,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        diff: DiffArgs,
    }

    fn args(options: &[&str]) -> DiffArgs {
        Cli::try_parse_from(["diff", "--pairs", "-"].iter().chain(options))
            .unwrap_or_else(|error| panic!("{error}"))
            .diff
    }

    /// Standard output, standard error, and the outcome.
    fn diff(options: &[&str], input: &str) -> (String, String, Outcome) {
        let (mut output, mut errors) = (Vec::new(), Vec::new());
        let outcome = run(
            input.as_bytes(),
            &mut output,
            &mut errors,
            "pairs.jsonl",
            &args(options),
        )
        .unwrap();
        (
            String::from_utf8(output).unwrap(),
            String::from_utf8(errors).unwrap(),
            outcome,
        )
    }

    #[test]
    fn each_line_gets_its_verdict_under_its_own_id() {
        let input = r#"{"id":"a","legacy":"{\"x\":1}","new":"{\"x\":1.0}"}
{"id":7,"endpoint":"GET /x","legacy":"{\"x\":1,\"y\":2}","twin":null,"new":"{\"x\":false}"}

{"id":{"k":[1]},"legacy":"{\"t\":1}","twin":"{\"t\":2}","new":"{\"t\":3}"}
{"id":null,"legacy":"","new":"","other":true}"#;
        let (output, errors, outcome) = diff(&[], input);
        let expected = r#"{"id":"a","verdict":"same","divergences":[]}
{"id":7,"verdict":"diverged","divergences":[{"pointer":"/x","kind":"type","severity":"critical"},{"pointer":"/y","kind":"missing","severity":"critical"}]}
{"id":{"k":[1]},"verdict":"noise","divergences":[],"explained":1}
{"id":null,"verdict":"same","divergences":[]}
"#;
        assert_eq!((output.as_str(), errors.as_str()), (expected, ""));
        assert_eq!(
            outcome,
            Outcome {
                pairs: 4,
                diverged: 1,
                bad_lines: 0
            }
        );
    }

    #[test]
    fn bad_line_is_named_with_a_remedy_and_the_rest_is_judged() {
        let input = "{\"id\":1,\"legacy\":\"a\",\"new\":\"a\"}\nnonsense\n{\"id\":2,\"legacy\":{\"a\":1},\"new\":\"a\"}\n\
                     {\"id\":3,\"new\":\"a\"}\n\
                     {\"id\":4,\"legacy\":\"a\",\"new\":\"a\",\"ext\":{\"new\":{\"headers\":{\"a b\":\"c\"}}}}\n\
                     {\"id\":5,\"legacy\":\"a\",\"new\":\"b\"}";
        let (output, errors, outcome) = diff(&[], input);
        assert_eq!(output.lines().count(), 2);
        assert_eq!(
            outcome,
            Outcome {
                pairs: 2,
                diverged: 1,
                bad_lines: 4
            }
        );
        let starts = [
            "pairs.jsonl:2: column 2: expected",
            "pairs.jsonl:3: column 17: invalid type: map, expected a string",
            "pairs.jsonl:4: column 18: missing field `legacy`",
            "pairs.jsonl:5: `a b` is no header name",
        ];
        for (message, start) in errors.lines().zip(starts) {
            assert!(message.starts_with(start) && message.contains(". "), "{message}");
        }
        assert_eq!(errors.lines().count(), starts.len());
    }

    #[test]
    fn over_long_line_is_refused_and_passed_over() {
        let mut input = format!("{{\"id\":1,\"legacy\":\"{}\"", "a".repeat(LINE_LIMIT_BYTES));
        input.push_str("}\n{\"id\":2,\"legacy\":\"\",\"new\":\"\"}\n");
        let (output, errors, outcome) = diff(&[], &input);
        assert_eq!(output, "{\"id\":2,\"verdict\":\"same\",\"divergences\":[]}\n");
        assert!(errors.starts_with("pairs.jsonl:1: longer than 64 MiB"), "{errors}");
        assert_eq!(
            outcome,
            Outcome {
                pairs: 1,
                diverged: 0,
                bad_lines: 1
            }
        );
    }

    #[test]
    fn recorded_statuses_and_headers_count() {
        let line = |new: &str| {
            format!(
                r#"{{"id":1,"legacy":"a","new":"a","ext":{{"legacy":{{"status":200,"headers":{{"x-a":"1","X-B":["1","2"]}}}},"new":{new}}}}}"#
            )
        };
        let pointers = |options: &[&str], new: &str| {
            let (output, errors, _) = diff(options, &line(new));
            assert_eq!(errors, "");
            let output: serde_json::Value = serde_json::from_str(&output).unwrap();
            let found = output["divergences"].as_array().unwrap().iter();
            found
                .map(|found| found["pointer"].as_str().unwrap().to_owned())
                .collect::<Vec<_>>()
        };
        let other = r#"{"status":500,"headers":{"x-a":"2","x-b":["1","2"],"content-encoding":"gzip"}}"#;
        assert_eq!(pointers(&[], other), ["@status", "@header.x-a"]);
        assert_eq!(pointers(&["--header", "x-b"], other), ["@status"]);
        assert_eq!(
            pointers(&["--ignore", "@status", "--ignore", "@header.x-a"], other),
            [""; 0]
        );
        // A side that recorded no headers says nothing about them.
        assert_eq!(pointers(&[], r#"{"status":201}"#), ["@status"]);
        assert_eq!(pointers(&[], "null"), [""; 0]);
    }

    #[test]
    fn options_reach_the_comparison() {
        let floats = r#"{"id":1,"legacy":"[0.3,1]","new":"[0.30000000000000004,2]"}"#;
        let (output, ..) = diff(&["--arrays", "index"], floats);
        assert_eq!(
            output,
            "{\"id\":1,\"verdict\":\"diverged\",\"divergences\":[{\"pointer\":\"/1\",\"kind\":\"value\",\"severity\":\"major\"}],\"tolerated\":1}\n"
        );
        let (output, ..) = diff(&["--float-tolerance", "0"], floats);
        assert!(output.contains("\"/0\"") && output.contains("\"/1\""), "{output}");
        let (output, ..) = diff(&["--ignore", "/*", "--float-tolerance", "0"], floats);
        assert_eq!(
            output,
            "{\"id\":1,\"verdict\":\"noise\",\"divergences\":[],\"suppressed\":2}\n"
        );
        let (output, ..) = diff(&["--severity", "/1=critical", "--values"], floats);
        assert!(
            output.contains(r#""severity":"critical","legacy":"1","new":"2""#),
            "{output}"
        );
    }

    #[test]
    fn options_that_mean_nothing_are_refused() {
        let refused = |options: &[&str]| {
            let error = Cli::try_parse_from(["diff", "--pairs", "-"].iter().chain(options))
                .map(|cli| cli.diff)
                .unwrap_err();
            error.to_string()
        };
        assert!(refused(&["--ignore", "timestamp"]).contains("a place begins with `/`"));
        assert!(refused(&["--severity", "/a=grave"]).contains("critical, major or minor"));
        assert!(refused(&["--severity", "/a"]).contains("PATTERN=SEVERITY"));
        assert!(refused(&["--float-tolerance=-1"]).contains("at least 0"));
        assert!(refused(&["--float-tolerance", "NaN"]).contains("at least 0"));
        assert!(refused(&["--arrays", "key"]).contains("index"));
        assert!(refused(&["--summary", "--values"]).contains("cannot be used"));
    }

    #[test]
    fn summary_has_one_line_per_finding() {
        let line = |id: usize| {
            let new = if id < 24 { 2 } else { 1 };
            format!(
                r#"{{"id":{id},"endpoint":"GET /items","legacy":"{{\"items\":[{{\"score\":1,\"t\":1}}]}}","twin":"{{\"items\":[{{\"score\":1,\"t\":2}}]}}","new":"{{\"items\":[{{\"score\":{new},\"t\":3}}]}}"}}"#
            )
        };
        let input: Vec<_> = (0..100).map(line).collect();
        let (output, errors, outcome) = diff(&["--summary"], &input.join("\n"));
        let expected = r#"{"endpoint":"GET /items","template":"items.score","aspect":"value","grade":"proven","b":24,"c":0}
"#;
        assert_eq!((output.as_str(), errors.as_str()), (expected, ""));
        assert_eq!(
            outcome,
            Outcome {
                pairs: 100,
                diverged: 24,
                bad_lines: 0
            }
        );
    }
}
