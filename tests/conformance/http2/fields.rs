//! Malformed fields (RFC 9113 sections 8.1 to 8.3): each class ends its stream, counted, and nothing of it is forwarded.

use serde_json::Value;

use super::wire::{CONTINUATION, END_HEADERS, Field, Frames, GET, HEADERS, POST, block, frame};
use super::{Case, END_STREAM, PROTOCOL_ERROR, STREAM, Want, asking, data, good, run, uploading};
use crate::table::{Rig, SECRET};

const WINDOW_UPDATE: u8 = 8;
const PADDED: u8 = 8;

const STREAM_ERROR: &str = "http2_stream_error";
const CONNECTION_ERROR: &str = "http2_connection_error";

fn with<'a>(more: &[Field<'a>]) -> Vec<Field<'a>> {
    [&GET[..], more].concat()
}

fn without<'a>(name: &str) -> Vec<Field<'a>> {
    GET.iter().filter(|(known, _)| *known != name).copied().collect()
}

/// Another value, or several, in place of a pseudo-header's.
fn instead<'a>(name: &'a str, values: &[&'a [u8]]) -> Vec<Field<'a>> {
    let values: Vec<Field<'_>> = values.iter().map(|value| (name, *value)).collect();
    [&values[..], &without(name)[..]].concat()
}

fn reset<'a>(name: &'a str, fields: Vec<Field<'a>>) -> Case {
    Case {
        name: name.to_owned(),
        bytes: asking(&fields),
        want: Want::Reset,
        reason: STREAM_ERROR,
    }
}

fn cut(name: &str, fields: &[Field<'_>], rest: &[Vec<u8>]) -> Case {
    Case {
        name: name.to_owned(),
        bytes: uploading(&[&POST[..], fields].concat(), rest),
        want: Want::Cut,
        reason: STREAM_ERROR,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pseudo_headers_are_there_once_first_and_of_a_request() {
    let late: Vec<Field<'_>> = [&[("x-a", &b"1"[..])][..], &GET].concat();
    let one_late = [&without(":path")[..], &[("x-a", b"1"), (":path", b"/s3cr3t")]].concat();
    let cases = vec![
        reset("no method", without(":method")),
        reset("no scheme", without(":scheme")),
        reset("no path", without(":path")),
        reset("no host at all", without(":authority")),
        reset("none", vec![("x-a", b"s3cr3t")]),
        reset("no field at all", vec![]),
        reset("two methods", instead(":method", &[b"GET", b"GET"])),
        reset("two methods that differ", instead(":method", &[b"GET", b"POST"])),
        reset("two schemes", instead(":scheme", &[b"http", b"https"])),
        reset("two paths", instead(":path", &[b"/", b"/s3cr3t"])),
        reset("two authorities", instead(":authority", &[b"a", b"b"])),
        reset("a status", with(&[(":status", b"200")])),
        reset("a protocol", with(&[(":protocol", b"websocket")])),
        reset("all behind a field", late),
        reset("one behind a field", one_late),
        reset("an empty path", instead(":path", &[b""])),
        reset("a path without slash", instead(":path", &[b"s3cr3t"])),
        reset("a query without a path", instead(":path", &[b"?s3cr3t"])),
        reset("an asterisk", instead(":path", &[b"*"])),
        reset("a URL for a path", instead(":path", &[b"http://a/s3cr3t"])),
        reset("a space in the path", instead(":path", &[b"/a b"])),
        reset("a control byte in the path", instead(":path", &[b"/a\0"])),
        reset("a line end in the path", instead(":path", &[b"/a HTTP/1.1\r\nx: y"])),
        reset("another scheme", instead(":scheme", &[b"ftp"])),
        reset("a bad scheme", instead(":scheme", &[b"ht tp"])),
        reset("an empty scheme", instead(":scheme", &[b""])),
    ];
    run(&Rig::new("").await, cases).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn there_is_one_host_and_a_legal_one() {
    let mut cases = vec![
        reset("another host", with(&[("host", b"b")])),
        reset("two hosts", with(&[("host", b"a"), ("host", b"a")])),
        reset(
            "two hosts and no authority",
            [&without(":authority")[..], &[("host", b"a"), ("host", b"b")]].concat(),
        ),
        reset(
            "an illegal host",
            [&without(":authority")[..], &[("host", b"s3cr3t@a")]].concat(),
        ),
        reset("an empty host", [&without(":authority")[..], &[("host", b"")]].concat()),
    ];
    for authority in [
        &b""[..],
        b"s3cr3t@a",
        b"a b",
        b"a/b",
        b"a,b",
        b"a#b",
        b"a?b",
        b"a\\b",
        b"a:b",
        b"a:80:80",
        b"a:999999",
        b"[::1",
        b"::1",
        b"a\0",
        b"a\r\nx: y",
        b"\"a\"",
    ] {
        let name = String::from_utf8_lossy(authority).into_owned();
        cases.push(reset(&name, instead(":authority", &[authority])));
    }
    run(&Rig::new("").await, cases).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fields_of_a_connection_are_none_of_a_stream() {
    let cases = vec![
        reset("connection", with(&[("connection", b"close")])),
        reset(
            "connection that names a field",
            with(&[("connection", b"x-a"), ("x-a", b"1")]),
        ),
        reset("keep-alive", with(&[("keep-alive", b"timeout=5")])),
        reset("proxy-connection", with(&[("proxy-connection", b"close")])),
        reset("transfer-encoding", with(&[("transfer-encoding", b"chunked")])),
        reset("upgrade", with(&[("upgrade", b"h2c")])),
        reset("te other than trailers", with(&[("te", b"gzip")])),
        reset("te with more than trailers", with(&[("te", b"trailers, gzip")])),
    ];
    run(&Rig::new("").await, cases).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_length_is_a_number_there_once_and_that_of_the_body() {
    let length = |value: &'static [u8]| ("content-length", value);
    let mut cases = vec![
        reset("a length without a body", with(&[length(b"5")])),
        reset("two lengths", with(&[length(b"0"), length(b"0")])),
        reset("two lengths that differ", with(&[length(b"0"), length(b"1")])),
        reset("a list of lengths", with(&[length(b"0, 0")])),
        reset("a length with a sign", with(&[length(b"+0")])),
        reset("a negative length", with(&[length(b"-1")])),
        reset("an empty length", with(&[length(b"")])),
        reset("a length of letters", with(&[length(b"zero")])),
        reset("a length over 63 bits", with(&[length(b"9223372036854775808")])),
        reset("a length over 64 bits", with(&[length(b"18446744073709551616")])),
    ];
    cases.extend([
        cut("too little", &[length(b"5")], &[data(END_STREAM, b"four")]),
        cut("too much", &[length(b"5")], &[data(END_STREAM, b"sixsix")]),
        cut("too much, and more to come", &[length(b"5")], &[data(0, b"sixsix")]),
        cut(
            "too much in pieces",
            &[length(b"5")],
            &[data(0, b"abc"), data(0, b"def")],
        ),
        cut("nothing", &[length(b"5")], &[data(END_STREAM, b"")]),
        cut("something of nothing", &[length(b"0")], &[data(END_STREAM, b"x")]),
        cut(
            "too little before trailers",
            &[length(b"5")],
            &[data(0, b"four"), asking(&[("x-trailer", b"1")])],
        ),
    ]);
    run(&Rig::new("").await, cases).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trailers_end_their_stream_and_have_no_fields_of_a_connection() {
    let trailers = |name: &str, fields: &[Field<'_>]| cut(name, &[], &[data(0, b"body"), asking(fields)]);
    let unfinished = frame(HEADERS, END_HEADERS, STREAM, &block(&[("x-trailer", b"1")]));
    let cases = vec![
        trailers("connection", &[("connection", b"close")]),
        trailers("transfer-encoding", &[("transfer-encoding", b"chunked")]),
        trailers(
            "a pseudo-header behind a field",
            &[("x-a", b"1"), (":path", b"/s3cr3t")],
        ),
        cut("trailers that end nothing", &[], &[data(0, b"body"), unfinished]),
    ];
    run(&Rig::new("").await, cases).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_do_not_begin_or_end_with_a_space() {
    let cases = vec![
        reset("a space first", with(&[("x-a", b" s3cr3t")])),
        reset("a space last", with(&[("x-a", b"s3cr3t ")])),
        reset("a tab first", with(&[("x-a", b"\ts3cr3t")])),
        reset("a tab last", with(&[("x-a", b"s3cr3t\t")])),
        reset("a space alone", with(&[("x-a", b" ")])),
    ];
    run(&Rig::new("").await, cases).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_field_on_a_continuation_is_as_malformed() {
    let cut = |first: &[Field<'_>], rest: &[Field<'_>]| {
        let first = frame(HEADERS, END_STREAM, STREAM, &block(first));
        [first, frame(CONTINUATION, END_HEADERS, STREAM, &block(rest))].concat()
    };
    let case = |name: &str, bytes| Case {
        name: name.to_owned(),
        bytes,
        want: Want::Reset,
        reason: STREAM_ERROR,
    };
    let cases = vec![
        case("connection", cut(&GET, &[("connection", b"close")])),
        case("no path", cut(&GET[..3], &[("x-a", b"1")])),
        case("a late path", cut(&with(&[("x-a", b"1")]), &[(":path", b"/s3cr3t")])),
    ];
    run(&Rig::new("").await, cases).await;
}

fn ended(name: impl Into<String>, bytes: Vec<u8>) -> Case {
    Case {
        name: name.into(),
        bytes,
        want: Want::Ended(PROTOCOL_ERROR),
        reason: CONNECTION_ERROR,
    }
}

/// What the library cannot read past, as `docs/security.md` says: its table of fields is lost with the field.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_that_are_no_field_end_the_connection_and_nothing_of_their_stream_is_forwarded() {
    let mut cases: Vec<Case> = [
        ("X-Upper", &b"s3cr3t"[..]),
        ("x-Upper", b"s3cr3t"),
        (":admin", b"s3cr3t"),
        ("", b"s3cr3t"),
        ("x a", b"s3cr3t"),
        ("x:a", b"s3cr3t"),
        ("x-a\0", b"s3cr3t"),
        ("x-a", b"s3cr3t\0"),
        ("x-a", b"s3cr3t\r\nx-b: 2"),
        ("x-a", b"s3cr3t\n"),
        ("x-a", b"s3cr3t\x01"),
        ("x-a", b"s3cr3t\x7f"),
        (":status", b"no"),
    ]
    .iter()
    .map(|(name, value)| {
        let told = format!("{name:?} {:?}", String::from_utf8_lossy(value));
        ended(told, asking(&with(&[(name, value)])))
    })
    .collect();
    for (name, value) in [
        (":method", &b"G T"[..]),
        (":method", b""),
        (":path", b"/\xff"),
        (":authority", b"\xff"),
    ] {
        let told = format!("{name} {:?}", String::from_utf8_lossy(value));
        cases.push(ended(told, asking(&instead(name, &[value]))));
    }
    // The rest of a block whose beginning is malformed belongs to nothing.
    let first = frame(HEADERS, END_STREAM, STREAM, &block(&with(&[("connection", b"close")])));
    let rest = frame(CONTINUATION, END_HEADERS, STREAM, &block(&[("x-a", b"1")]));
    cases.push(ended("a malformed block that goes on", [first, rest].concat()));
    cases.push(ended(
        "upper case in trailers",
        uploading(&POST, &[data(0, b"body"), asking(&[("X-A", b"1")])]),
    ));
    // Frames that are wrong in themselves.
    let padded = [&b"\xff"[..], &block(&GET)].concat();
    cases.push(ended(
        "padding that is longer than its frame",
        frame(HEADERS, END_HEADERS | END_STREAM | PADDED, STREAM, &padded),
    ));
    cases.push(ended(
        "a window that grows by nothing",
        uploading(&POST, &[frame(WINDOW_UPDATE, 0, STREAM, &[0; 4])]),
    ));
    run(&Rig::new("").await, cases).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pseudo_headers_among_trailers_reach_nobody() {
    let rig = Rig::new("").await;
    let mut client = Frames::connect(rig.instance.address).await;
    client
        .socket
        .send(uploading(&POST, &[data(0, b"body"), asking(&[(":path", b"/s3cr3t")])]))
        .await;
    assert_eq!(client.until(HEADERS).await.stream, STREAM);
    let got = rig.legacy.messages();
    assert_eq!((got.len(), got[0].second(), &*got[0].body), (1, "/", &b"body"[..]));
    assert_eq!(rig.legacy.errors(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_refusal_is_logged_once_with_its_address_and_reason() {
    let rig = Rig::new("limits: { header_bytes: 16KiB, header_count: 20 }").await;
    let large = vec![b'x'; 15_000];
    let cases = [
        ("http2_stream_error", asking(&with(&[("connection", b"s3cr3t")]))),
        ("http2_stream_error", asking(&with(&[("host", b"s3cr3t")]))),
        ("headers_too_large", asking(&with(&[("x-a", &b"s3cr3t"[..]); 21]))),
        // One that the library refuses.
        ("headers_too_large", {
            let mut fields = block(&GET);
            fields.push(0x40);
            fields.extend(block(&[("x-a", &large[..3_900])]).split_off(1));
            fields.extend([0x80 | 62; 9]);
            frame(HEADERS, END_HEADERS | END_STREAM, STREAM, &fields)
        }),
        ("http2_connection_error", asking(&with(&[("X-S3cr3t", b"s3cr3t")]))),
    ];
    for (reason, bytes) in cases {
        let mut client = Frames::connect(rig.instance.address).await;
        let address = client.socket.local().to_string();
        client.socket.send(&bytes).await;
        let told = |line: &Value| line["client"] == *address && line["message"] == "a client's request was refused";
        let line = rig.instance.wait_for_log(reason, told).await;
        assert_eq!(line["reason"], reason);
        // What it would be told of afterwards has been.
        client.socket.try_send(good(STREAM + 2)).await;
        while let Some(next) = client.next().await {
            if next.stream == STREAM + 2 {
                break;
            }
        }
        assert_eq!(
            rig.instance.logs().iter().filter(|line| told(line)).count(),
            1,
            "{reason}"
        );
    }
    assert!(!rig.instance.stderr().to_lowercase().contains(SECRET));
}
