//! Makes many inputs of few: bytes changed, moved, doubled and cut, and pieces of other inputs and of grammars put in.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::random::Random;

/// The longest input; longer ones find nothing that these do not.
const LONGEST: usize = 8 * 1_024;

/// What the grammars are made of.
const WORDS: &[&str] = &[
    "\r\n",
    "\n",
    "\r",
    "\0",
    "\t",
    " ",
    ":",
    ": ",
    ",",
    ";",
    "\"",
    "'",
    "{",
    "}",
    "[",
    "]",
    "- ",
    "#",
    "&a",
    "*a",
    "|",
    ">",
    "Content-Length: ",
    "Transfer-Encoding: chunked\r\n",
    "Host: a\r\n",
    "Connection: close\r\n",
    "Connection: upgrade\r\n",
    "Upgrade: x\r\n",
    "HTTP/1.1\r\n",
    "HTTP/1.0\r\n",
    "HTTP/1.1 200 OK\r\n",
    "GET / ",
    "POST ",
    "0\r\n\r\n",
    "5\r\nhello\r\n",
    "chunked",
    "gzip",
    "Expect: 100-continue\r\n",
    "\r\n\r\n",
    "x-understudy-shadow: 1\r\n",
    "TE: trailers\r\n",
    "18446744073709551615",
    "9223372036854775808",
    "-1",
    "1e400",
    "0.0000001",
    "true",
    "false",
    "null",
    "\\u0000",
    "\\ud800",
    "/*",
    "/**",
    "~1",
    "~0",
    "features:\n",
    "  F: ",
    "percentage: ",
    "enabled: true",
    "rules:",
    "rules: [ { type: property, conditions: { ",
    "segments: { s: { ",
    "variants: [ { name: control, weight: 1, value: ",
    "prerequisites: [ { flag: ",
    "beta_users: [",
    "attribute: a, operator: ",
    "values: [",
    "regex",
    "cidr",
    "semver_less_than",
    "not_in",
    "greater_than",
    "user_ids: [",
    "segment: s",
    "percentage: 50",
    "hours: \"22:00-06:00\"",
    "timezone: Europe/Lisbon",
    "type: targeted",
    "type: variant",
    "10.0.0.0/8",
    "9007199254740993",
    "type: ",
    "listeners:",
    "backends:",
    "routes:",
    "json: ",
];

/// Tries a target with its corpus and with what is made of it.
pub fn run(name: &str, target: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fuzz/corpus")
        .join(name);
    let mut corpus: Vec<Vec<u8>> = Vec::new();
    let mut files: Vec<_> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    for file in files {
        let bytes = std::fs::read(&file).unwrap();
        attempt(target, &bytes, &file.display().to_string());
        corpus.push(bytes);
    }
    assert!(!corpus.is_empty(), "an empty corpus: {}", folder.display());

    let long = std::env::var("UNDERSTUDY_LONG").is_ok_and(|long| long != "0");
    let given = std::env::var("UNDERSTUDY_SEED").ok().map(|seed| seed.parse().unwrap());
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let seed = given.unwrap_or(if long { now } else { 1 });
    let mut random = Random::new(seed);
    let end = Instant::now() + Duration::from_secs(if long { 300 } else { 4 });
    let mut tried = 0_u64;
    while Instant::now() < end {
        let bytes = changed(&mut random, &corpus);
        attempt(target, &bytes, &format!("seed {seed}, input {tried}"));
        tried += 1;
    }
    println!("{name}: {tried} inputs from seed {seed}");
    assert!(tried > 20, "hardly anything was tried");
}

fn attempt(target: fn(&[u8]), bytes: &[u8], whence: &str) {
    let begun = Instant::now();
    let failed = catch_unwind(AssertUnwindSafe(|| target(bytes))).is_err();
    let slow = begun.elapsed() > Duration::from_secs(10);
    assert!(
        !failed && !slow,
        "{whence}{}: \"{}\"",
        if slow { " (slow)" } else { "" },
        bytes.escape_ascii()
    );
}

fn changed(random: &mut Random, corpus: &[Vec<u8>]) -> Vec<u8> {
    let pick = |random: &mut Random| &corpus[random.below(corpus.len() as u64) as usize];
    let mut bytes = pick(random).clone();
    for _ in 0..=random.below(6) {
        let len = bytes.len() as u64;
        let at = random.below(len + 1) as usize;
        let to = (at + 1 + random.below(24) as usize).min(bytes.len());
        match random.below(9) {
            0 if at < bytes.len() => bytes[at] = random.word() as u8,
            1 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
            2 => bytes.insert(at, random.word() as u8),
            3 if at < to => drop(bytes.drain(at..to)),
            4 if at < to => {
                let piece = bytes[at..to].to_vec();
                let again = 1 + random.below(3) as usize;
                bytes.splice(at..at, piece.repeat(again));
            }
            5 => bytes.truncate(at),
            6 => {
                let other = pick(random);
                let from = random.below(other.len() as u64 + 1) as usize;
                let until = (from + random.below(200) as usize).min(other.len());
                bytes.splice(at..at, other[from..until].iter().copied());
            }
            _ => {
                let word = WORDS[random.below(WORDS.len() as u64) as usize];
                bytes.splice(at..at, word.bytes());
            }
        }
    }
    bytes.truncate(LONGEST);
    bytes
}
