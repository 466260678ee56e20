//! Records, unions and scalars out of YAML, and all problems of a text at once.

use std::time::Duration;

use proptest::prelude::*;

use super::*;

record! {
    /// One service.
    pub struct Backend {
        /// Where it listens. Only HTTP.
        url: At<String>,
        /// The longest wait.
        timeout: Duration = "10s",
        /// Which copies it takes.
        copies: Copies = "safe_methods",
        /// Whose it is.
        owner: Option<String>,
        /// Taken as written.
        r#type: Option<String>,
        /// On or off, or what a weaker layer says.
        enabled: Layered<bool>,
        /// Limits of it.
        limits: Limits = "{}",
        /// Who may.
        allow: Layered<Vec<String>>,
    }
    later: "tls", "http2";
}

record! {
    /// Limits.
    pub struct Limits {
        /// The longest body.
        body: Option<ByteSize> = "4MiB",
        /// How many at once.
        calls: usize = "64",
    }
}

record! {
    /// The top.
    pub struct Top {
        /// Services by name.
        backends: Map<FlagKey, Backend>,
    }
}

words! {
    /// Copies.
    pub enum Copies {
        /// Only those that change nothing.
        SafeMethods = "safe_methods",
        /// All.
        DryRun = "dry_run",
    }
    later: "isolated";
}

use crate::engine::vocab::FlagKey;

fn read<T: Decode>(text: &str) -> (Option<T>, Vec<String>) {
    let mut problems = Problems::default();
    let value = decode(&"f.yaml".into(), text, &mut problems);
    let lines = problems
        .verdict()
        .unwrap_or_else(|list| list)
        .iter()
        .map(ToString::to_string)
        .collect();
    (value, lines)
}

fn good<T: Decode>(text: &str) -> T {
    let (value, lines) = read::<T>(text);
    assert!(lines.is_empty(), "{lines:?}");
    value.unwrap()
}

fn bad<T: Decode>(text: &str) -> Vec<String> {
    let (_, lines) = read::<T>(text);
    assert!(!lines.is_empty(), "{text}");
    lines
}

#[test]
fn absent_members_take_their_defaults_at_every_depth() {
    let backend: Backend = good("url: http://a");
    assert_eq!(backend.url.value, "http://a");
    assert_eq!(
        backend.url.place,
        Place {
            file: "f.yaml".into(),
            line: 1,
            column: 6
        }
    );
    assert_eq!(backend.timeout, Duration::from_secs(10));
    assert_eq!(backend.copies, Copies::SafeMethods);
    assert_eq!(backend.owner, None);
    assert_eq!(backend.limits.body, Some(ByteSize(4 << 20)));
    assert_eq!(backend.limits.calls, 64);
    assert_eq!(backend.enabled, Layered::Inherit);
}

#[test]
fn absent_null_and_value_are_three_things_in_a_layer() {
    let backend: Backend = good("{ url: u, enabled: null, allow: [] }");
    assert_eq!(backend.enabled, Layered::Unset);
    assert_eq!(backend.allow, Layered::Set(Vec::new()));
    assert_eq!(
        good::<Backend>("{ url: u, enabled: false }").enabled,
        Layered::Set(false)
    );
}

#[test]
fn null_lifts_a_default_only_where_it_means_something() {
    let backend: Backend = good("url: u\nlimits: { body: null }\nowner:");
    assert_eq!(backend.limits.body, None);
    assert_eq!(
        bad::<Backend>("url: u\ntimeout: null"),
        [
            "f.yaml:2:10: expected a duration, found nothing. write a number with its unit, such as 1500ms, 10s, 5m or 2h"
        ]
    );
}

#[test]
fn section_that_is_only_a_key_is_an_empty_section() {
    assert_eq!(good::<Backend>("url: u\nlimits:\n  # body: 1MiB\n").limits.calls, 64);
}

#[test]
fn all_problems_come_at_once_each_at_its_place() {
    let text = "\
backends:
  new:
    url: http://a
    tiemout: 1s
    copies: isolatd
    limits: { calls: many, bdoy: 1 }
  old:
    copies: isolated
    tls: {}
    limits: 7
  bad key:
    url: [a]
    enabled: yes
    allow: [a, null, { b: c }]
";
    assert_eq!(
        bad::<Top>(text),
        [
            "f.yaml:4:5: unknown key `tiemout`. did you mean `timeout`?",
            "f.yaml:5:13: expected one of safe_methods, dry_run, found `isolatd`. choose one of them",
            "f.yaml:6:22: expected a whole number, found `many`. write it in decimal digits",
            "f.yaml:6:28: unknown key `bdoy`. did you mean `body`?",
            "f.yaml:7:3: `url` is missing. add it: where it listens",
            "f.yaml:8:13: `isolated` is not in this version. choose another value",
            "f.yaml:9:5: `tls` is not in this version. remove it",
            "f.yaml:10:13: expected a map, found `7`. write `key: value` lines below it, or `{ key: value }`",
            "f.yaml:11:3: a key consists of letters, digits, `.`, `_` and `-`; the character at byte 3 is none of them. use 1 to 200 letters, digits, `.`, `_` and `-`",
            "f.yaml:12:10: expected a text, found a list. write it in quotes",
            "f.yaml:13:14: expected true or false, found `yes`. write `true` or `false`",
            "f.yaml:14:16: expected a text, found nothing. write it in quotes",
            "f.yaml:14:22: expected a text, found a map. write it in quotes",
        ]
    );
}

#[test]
fn path_of_a_problem_leads_to_its_value() {
    let mut problems = Problems::default();
    decode::<Top>(
        &"f".into(),
        "backends: { a.b: { url: u, allow: [x, []] } }",
        &mut problems,
    );
    let list = problems.verdict().unwrap_err();
    assert_eq!(list[0].path, "backends.\"a.b\".allow[1]");
}

#[test]
fn texts_stay_as_written() {
    let text = "[NO, 0123, 1e3, +447700900123, 447700900123, 1_000, 0x1F, 2026-01-01, 1.10, true, 'null', \"\"]";
    let texts: Vec<String> = good(text);
    let written = [
        "NO",
        "0123",
        "1e3",
        "+447700900123",
        "447700900123",
        "1_000",
        "0x1F",
        "2026-01-01",
        "1.10",
        "true",
    ];
    assert_eq!(texts[..10], written);
    assert_eq!(texts[10..], ["null", ""]);
}

#[test]
fn only_two_words_are_boolean_and_quotes_make_a_text() {
    assert!(good::<bool>("true"));
    for text in ["yes", "on", "True", "NO", "1", "~"] {
        bad::<bool>(text);
    }
    assert_eq!(
        bad::<bool>("'true'"),
        ["f.yaml:1:1: expected true or false, found the text `true`. remove the quotes"]
    );
    assert_eq!(
        bad::<u32>("'25'"),
        ["f.yaml:1:1: expected a whole number, found the text `25`. remove the quotes"]
    );
}

#[test]
fn whole_numbers_have_one_spelling() {
    assert_eq!(good::<u16>("65535"), 65_535);
    assert_eq!(
        bad::<u16>("65536"),
        ["f.yaml:1:1: 65536 is too large. the most is 65535"]
    );
    for text in ["007", "-1", "+1", "1_000", "0x10", "1.0", "1e3", "''"] {
        bad::<u64>(text);
    }
    assert_eq!(good::<u64>("0"), 0);
}

#[test]
fn durations_are_exact_and_need_a_unit() {
    for (text, ms) in [
        ("0s", 0),
        ("1500ms", 1_500),
        ("1.5s", 1_500),
        ("0.001s", 1),
        ("1m30s", 90_000),
        ("2h", 7_200_000),
        ("7d", 604_800_000),
    ] {
        assert_eq!(duration(text), Some(Duration::from_millis(ms)), "{text}");
    }
    for text in [
        "",
        "10",
        "s",
        "-1s",
        "1.5ms",
        "1 s",
        "1x",
        "10s5",
        "99999999999d",
        "1..5s",
        ".s",
        "1e3s",
    ] {
        assert_eq!(duration(text), None, "{text}");
    }
}

#[test]
fn sizes_know_both_families_of_units() {
    for (text, bytes) in [
        ("0", 0),
        ("512B", 512),
        ("64KiB", 65_536),
        ("4MiB", 4_194_304),
        ("3MB", 3_000_000),
        ("1GiB", 1 << 30),
    ] {
        assert_eq!(ByteSize::read(text), Ok(ByteSize(bytes)), "{text}");
    }
    for text in [
        "",
        "MiB",
        "1.5MiB",
        "-1",
        "1mb",
        "99999999999999999999",
        "99999999999GiB",
    ] {
        assert!(ByteSize::read(text).is_err(), "{text}");
    }
}

#[test]
fn decimals_are_exact() {
    for (text, ten_thousandths) in [
        ("25", 250_000),
        ("25.5", 255_000),
        ("0.0001", 1),
        ("100.0000", 1_000_000),
        ("-1.5", -15_000),
        ("1e1", 100_000),
        ("2.50000", 25_000),
        ("5e-4", 5),
    ] {
        assert_eq!(decimal(text, 4), Ok(ten_thousandths), "{text}");
    }
    assert!(matches!(decimal("0.00001", 4), Err(Misfit::Because(..))));
    assert!(matches!(decimal("99999999999999999999", 4), Err(Misfit::Because(..))));
    for text in ["", ".", "-", "1.2.3", "1e", "e1", "nan", "inf", "1_0", "0x1"] {
        assert_eq!(decimal(text, 4), Err(Misfit::Kind), "{text}");
    }
}

#[test]
fn shape_names_every_member_with_its_default() {
    let Shape::Record(shape) = Backend::shape() else {
        panic!("a record")
    };
    let shape = shape();
    let needs: Vec<_> = shape.members.iter().map(|m| (m.name, m.need)).collect();
    assert_eq!(
        needs,
        [
            ("url", Need::Required),
            ("timeout", Need::Default("10s")),
            ("copies", Need::Default("safe_methods")),
            ("owner", Need::Optional),
            ("type", Need::Optional),
            ("enabled", Need::Optional),
            ("limits", Need::Default("{}")),
            ("allow", Need::Optional),
        ]
    );
    assert_eq!(shape.members[0].doc, "Where it listens. Only HTTP.");
}

#[test]
fn million_ids_load() {
    let mut text = String::from("[");
    for id in 0..1_000_000 {
        text.push_str(&format!("{},", 33_600_000_000_u64 + id));
    }
    text.push(']');
    let ids: Vec<Arc<str>> = good(&text);
    assert_eq!(ids.len(), 1_000_000);
    assert_eq!(&*ids[999_999], "33600999999");
}

proptest! {
    #[test]
    fn decoding_never_panics(text in "\\PC*", yaml in "(backends|url|limits|tls|[a-z&*<!'\"|>{}\\[\\],:?~0-9 \\-\\n\\t])*") {
        read::<Top>(&text);
        read::<Top>(&yaml);
        read::<Backend>(&yaml);
    }

    #[test]
    fn scalars_never_panic(text in "[0-9.eE+\\-_a-zA-Z]*") {
        let _ = (duration(&text), ByteSize::read(&text), f64::read(&text), u64::read(&text));
        for decimals in [0, 4, 18, 40] {
            let _ = decimal(&text, decimals);
        }
    }

    #[test]
    fn decimal_agrees_with_whole_arithmetic(whole in 0_i64..1_000_000, fraction in 0_i64..10_000) {
        prop_assert_eq!(decimal(&format!("{whole}.{fraction:04}"), 4), Ok(whole * 10_000 + fraction));
    }
}
