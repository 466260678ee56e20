//! Tables of what passes and what does not, and the laws that hold however the bytes are cut.

use proptest::prelude::*;

use super::*;
use crate::live::tally::Label as _;

const LIMITS: Limits = Limits {
    header_bytes: 4_096,
    header_count: 20,
};

/// What passes of these bytes when they arrive in pieces that end at these places, and the fault, if there is one.
fn fed(bytes: &[u8], cuts: &[usize]) -> (usize, Option<Fault>) {
    let mut guard = Guard::new(LIMITS);
    let (mut passed, mut fault) = (0, None);
    for end in cuts.iter().copied().chain([bytes.len()]) {
        let verdict = guard.examine(&bytes[passed..end.max(passed)]);
        passed += verdict.clear;
        match verdict.rest {
            Rest::Refused(why) => {
                fault = Some(why);
                break;
            }
            Rest::Undecided => guard.decide(false),
            Rest::Incomplete => {}
        }
    }
    // A fault may show in the very last call only when it is asked again.
    if fault.is_none()
        && let Rest::Refused(why) = guard.examine(&bytes[passed..]).rest
    {
        fault = Some(why);
    }
    (passed, fault)
}

/// Whether the same passes, and the same is wrong, when they arrive one by one.
#[track_caller]
fn assert_same_in_pieces(bytes: &[u8]) {
    let every: Vec<usize> = (0..bytes.len()).collect();
    let begun = &bytes[..bytes.len().min(90)];
    assert_eq!(fed(bytes, &every), fed(bytes, &[]), "{}", begun.escape_ascii());
}

fn reason(bytes: &[u8]) -> Option<&'static str> {
    fed(bytes, &[]).1.map(|fault| fault.reason.label())
}

fn get(lines: &str) -> Vec<u8> {
    format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n\r\n").into_bytes()
}

#[test]
fn a_message_passes_with_the_one_after_it() {
    let bytes = b"\r\nPOST /a?b HTTP/1.1\r\nHost: a:80\r\nContent-Length: 003\r\n\r\nabc\
        POST / HTTP/1.0\r\n\r\n\
        POST http://b/ HTTP/1.1\r\nHost: a\r\ntransfer-encoding: CHUNKED\r\n\r\n3;a=b\r\nabc\r\n0\r\nx: y\r\n\r\n\
        OPTIONS * HTTP/1.1\nHost: [::1]:80\n\n";
    for cut in 0..bytes.len() {
        assert_eq!(fed(bytes, &[cut]), (bytes.len(), None), "{cut}");
    }
    let every: Vec<usize> = (0..bytes.len()).collect();
    assert_eq!(fed(bytes, &every), (bytes.len(), None));
}

#[test]
fn a_request_has_one_framing() {
    for (lines, expected) in [
        ("Content-Length: 3\r\nContent-Length: 3", "bad_content_length"),
        ("Content-Length: 3\r\nContent-Length: 4", "bad_content_length"),
        ("Content-Length: 3, 3", "bad_content_length"),
        ("Content-Length:", "bad_content_length"),
        ("Content-Length: +3", "bad_content_length"),
        ("Content-Length: 0x3", "bad_content_length"),
        ("Content-Length: 9223372036854775808", "bad_content_length"),
        ("Content-Length: 99999999999999999999999", "bad_content_length"),
        ("Content-Length: 3\r\nTransfer-Encoding: chunked", "two_framings"),
        ("Transfer-Encoding: chunked\r\nContent-Length: 0", "two_framings"),
        ("Transfer-Encoding: gzip, chunked", "unknown_coding"),
        ("Transfer-Encoding: chunked, gzip", "unknown_coding"),
        ("Transfer-Encoding: identity", "unknown_coding"),
        (
            "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked",
            "unknown_coding",
        ),
        ("Transfer-Encoding: chunked, chunked", "bad_transfer_encoding"),
        (
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            "bad_transfer_encoding",
        ),
        ("Transfer-Encoding: chunked,", "bad_transfer_encoding"),
        ("Transfer-Encoding: \"chunked\"", "bad_transfer_encoding"),
        ("Transfer-Encoding: chunked;q=1", "bad_transfer_encoding"),
        ("Transfer-Encoding: \x0bchunked", "malformed"),
        ("Transfer-Encoding:", "bad_transfer_encoding"),
        ("Transfer-Encoding : chunked", "malformed"),
    ] {
        assert_eq!(reason(&get(lines)), Some(expected), "{lines}");
    }
    assert_eq!(reason(&get("Content-Length: 9223372036854775807")), None);
    let old = b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(reason(old), Some("bad_transfer_encoding"));
}

#[test]
fn a_request_is_for_one_host_and_one_target() {
    for (head, expected) in [
        ("GET / HTTP/1.1\r\n\r\n", "bad_host"),
        ("GET http://a/ HTTP/1.1\r\n\r\n", "bad_host"),
        ("GET / HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n", "bad_host"),
        ("GET / HTTP/1.0\r\nHost: a\r\nhost: a\r\n\r\n", "bad_host"),
        ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", "bad_host"),
        ("GET / HTTP/1.1\r\nHost: a@b\r\n\r\n", "bad_host"),
        ("GET / HTTP/1.1\r\nHost: a:80:80\r\n\r\n", "bad_host"),
        ("GET / HTTP/1.1\r\nHost: a:8x\r\n\r\n", "bad_host"),
        ("GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", "bad_host"),
        ("GET / HTTP/1.1\r\nHost: [::1]x\r\n\r\n", "bad_host"),
        ("GET / HTTP/1.1\r\nHost: a,b\r\n\r\n", "bad_host"),
        ("GET a HTTP/1.1\r\nHost: a\r\n\r\n", "bad_target"),
        ("GET * HTTP/1.1\r\nHost: a\r\n\r\n", "bad_target"),
        ("GET a:80 HTTP/1.1\r\nHost: a\r\n\r\n", "bad_target"),
        ("GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n", "bad_target"),
        ("GET http:///a HTTP/1.1\r\nHost: a\r\n\r\n", "bad_target"),
        ("GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", "bad_target"),
        ("GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n", "bad_target"),
        ("CONNECT / HTTP/1.1\r\nHost: a\r\n\r\n", "bad_target"),
    ] {
        assert_eq!(reason(head.as_bytes()), Some(expected), "{head}");
    }
    for head in [
        "GET / HTTP/1.0\r\n\r\n",
        "GET / HTTP/1.1\r\nHost:\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a_b.example:65535\r\n\r\n",
        "GET /{a}|\"b\" HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET HTTP://A:1 HTTP/1.1\r\nHost: a\r\n\r\n",
        "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n",
    ] {
        assert_eq!(reason(head.as_bytes()), None, "{head}");
    }
}

#[test]
fn a_section_over_its_limits_is_refused_before_it_is_whole() {
    let long = "x".repeat(5_000);
    let lines = "a: b\r\n".repeat(20);
    for (bytes, expected) in [
        (format!("GET /{long}"), "target_too_long"),
        (format!("GET / HTTP/1.1\r\nHost: {long}"), "headers_too_large"),
        (format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n"), "headers_too_large"),
        ("\r\n".repeat(9), "malformed"),
        (
            format!(
                "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1;{}",
                "x".repeat(17_000)
            ),
            "chunk_extensions_too_large",
        ),
        (
            format!(
                "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{}",
                "0".repeat(65)
            ),
            "bad_chunk",
        ),
        (
            format!(
                "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nx: {}",
                "x".repeat(66_000)
            ),
            "trailers_too_large",
        ),
        (
            format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n{lines}a: b\r\n\r\n"),
            "trailers_too_large",
        ),
    ] {
        assert_eq!(reason(bytes.as_bytes()), Some(expected), "{bytes:.60}");
        assert_same_in_pieces(bytes.as_bytes());
    }
    let extensions = format!("1;{}\r\na\r\n", "x".repeat(7_000)).repeat(3);
    let bytes = format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{extensions}");
    assert_eq!(reason(bytes.as_bytes()), Some("chunk_extensions_too_large"));
}

#[test]
fn chunks_that_make_no_sense_are_refused_where_they_stop_to() {
    for (chunks, at) in [
        ("zz\r\n", 0),
        ("-5\r\n", 0),
        ("0x5\r\n", 1),
        ("5 5\r\nhello\r\n", 2),
        ("5\nhello\r\n", 1),
        ("5\rhello\r\n", 2),
        ("\r\n5\r\n", 0),
        ("5\r\nhelloX\r\n", 8),
        ("5\r\nhello\rX", 9),
        ("5;a\0b\r\n", 3),
        ("5;a\nb\r\n", 3),
        ("ffffffffffffffff\r\n", 0),
        ("11111111111111111\r\n", 16),
        ("0\r\na b: c\r\n\r\n", 4),
        ("0\r\na: b\n\r\n", 7),
    ] {
        let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        let fault = fed(format!("{head}{chunks}").as_bytes(), &[]).1.expect(chunks);
        assert_eq!((fault.reason, fault.in_body), (ClientError::BadChunk, true), "{chunks}");
        assert_eq!(fault.at, (head.len() + at) as u64, "{chunks}");
    }
}

#[test]
fn a_fault_is_where_it_is() {
    for (bytes, at) in [
        ("GET / HTTP/1.1\r\nHost: a\r\nX-A: 1\0\r\n\r\n", 31),
        ("GET / HTTP/1.1\r\nHost: a\r\n X: 1\r\n\r\n", 25),
        ("GET /\x01 HTTP/1.1\r\nHost: a\r\n\r\n", 5),
        ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", 11),
        ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n", 25),
    ] {
        let fault = fed(bytes.as_bytes(), &[]).1.expect(bytes);
        assert_eq!(fault.at, at, "{bytes:?}");
    }
}

#[test]
fn what_is_wrong_is_the_same_however_it_arrives() {
    let chunked = |rest: &str| format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{rest}");
    let (long, nulls) = ("x".repeat(5_000), "\0".repeat(70));
    for (bytes, at) in [
        (chunked(&format!("5{nulls};a=b\r\nhello\r\n")), 57),
        (chunked(&format!("5{}x;a=b\r\nhello\r\n", " ".repeat(70))), 56),
        (chunked(&format!("5{};a=b\r\nhello\r\n", " ".repeat(70))), 56),
        (chunked(&format!("5;{}\rx\r\n", "x".repeat(16_384))), 57),
        (chunked(&format!("5;{}\rx\r\n", "x".repeat(16_383))), 57 + 16_385),
        (
            chunked(&format!("0\r\na: {}\0\r\n\r\n", "x".repeat(50_000))),
            59 + 50_003,
        ),
        (format!("{}1\r\n\x07", "\n".repeat(40)), 16),
        (format!("{}\n\n", "\r".repeat(20)), 1),
        (format!("{}\rGET /\n\n", "\r\n".repeat(8)), 17),
        (format!("GET /{}\0{long}", "x".repeat(3_000)), 3_005),
        (format!("GET /{long}\0"), 4_096),
        (format!("GET /{} HTTP/1.1\r\n", "x".repeat(4_085)), 4_096),
    ] {
        let fault = fed(bytes.as_bytes(), &[]).1.expect("a fault");
        assert_eq!(fault.at, at, "{bytes:.60}");
        assert_same_in_pieces(bytes.as_bytes());
    }
    let longest = chunked(&format!("5;{}\r\nhello\r\n0\r\n\r\n", "x".repeat(16_383)));
    assert_eq!(fed(longest.as_bytes(), &[]), (longest.len(), None));
    assert_same_in_pieces(longest.as_bytes());
}

#[test]
fn what_follows_a_request_for_another_protocol_waits() {
    let head = get("Upgrade: websocket\r\nConnection: upgrade");
    let mut bytes = head.clone();
    bytes.extend_from_slice(b"\x81\x85 no HTTP");
    let mut guard = Guard::new(LIMITS);
    let verdict = guard.examine(&bytes);
    assert_eq!((verdict.clear, verdict.rest), (head.len(), Rest::Undecided));
    guard.decide(true);
    assert_eq!(guard.examine(&bytes[head.len()..]).clear, bytes.len() - head.len());
    let mut guard = Guard::new(LIMITS);
    guard.examine(&bytes);
    guard.decide(false);
    assert!(matches!(guard.examine(&bytes[head.len()..]).rest, Rest::Refused(fault) if fault.at == 0));
}

proptest! {
    #[test]
    fn where_reads_end_changes_nothing(
        parts in proptest::collection::vec(prop_oneof![
            Just("GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
            Just("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"),
            Just("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;x\r\nhello\r\n0\r\n\r\n"),
            Just("\r\n"), Just("\n"), Just("\0"), Just("0\r\n"), Just(": "), Just("x"),
        ], 0..6),
        cuts in proptest::collection::vec(0_usize..400, 0..8),
    ) {
        // What is incomplete need not be judged yet: the blank line ends whatever has begun.
        let bytes = [&parts.concat(), "\r\n\r\n"].concat().into_bytes();
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut % (bytes.len() + 1)).collect();
        cuts.sort_unstable();
        prop_assert_eq!(fed(&bytes, &cuts), fed(&bytes, &[]));
    }

    #[test]
    fn whatever_arrives_is_judged_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let (passed, _) = fed(&bytes, &[]);
        prop_assert!(passed <= bytes.len());
    }
}
