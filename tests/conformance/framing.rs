//! Point 1, one framing: what two readers could end at different places is refused, and what is forwarded is written
//! anew, to legacy and to new alike.

use crate::recorder::Recorder;
use crate::strict::{Framing, Strict};
use crate::support::{Plan, Sidecar, Socket};
use crate::table::{Case, Rig, Want, case};

const REFUSED: Want = Want::Refused(&[400]);
const UNKNOWN: Want = Want::Refused(&[501]);
const EITHER: Want = Want::Refused(&[400, 501]);

fn post(lines: &str, body: &str) -> Vec<u8> {
    format!("POST /s3cr3t HTTP/1.1\r\nHost: a\r\nX-Secret: s3cr3t\r\n{lines}\r\n\r\n{body}").into_bytes()
}

const CHUNKED: &str = "5\r\nhello\r\n0\r\n\r\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_with_two_framings_is_refused() {
    let lines = [
        "Content-Length: 15\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 15",
        "Transfer-Encoding: chunked\r\nX-Between: 1\r\nContent-Length: 15",
        "transfer-encoding: Chunked\r\nCONTENT-LENGTH: 15",
        "Content-Length: 0\r\nTransfer-Encoding: chunked",
        "Content-Length: 15\r\nTransfer-Encoding: gzip",
        "Content-Length:\r\nTransfer-Encoding: chunked",
        "Content-Length: 15\r\nContent-Length: 15\r\nTransfer-Encoding: chunked",
        "Content-Length: 15\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
    ];
    let cases = lines
        .iter()
        .map(|lines| case(*lines, post(lines, CHUNKED), EITHER))
        .collect();
    let rig = Rig::new("").await;
    rig.run(cases).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_length_that_is_no_length_or_not_one_is_refused() {
    let values = [
        "6",
        "5, 5",
        "5,5",
        "5, 6",
        "+5",
        "-5",
        "0x5",
        "5 5",
        "5.0",
        "5e0",
        "5;",
        "\"5\"",
        "five",
        "",
        " ",
        "５",
        "5\u{a0}",
        "9223372036854775808",
        "18446744073709551615",
        "18446744073709551616",
        "18446744073709551621",
        "99999999999999999999999999999999999999999999",
        "00000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000018446744073709551616",
    ];
    let mut cases: Vec<Case> = values
        .iter()
        .skip(1)
        .map(|value| case(*value, post(&format!("Content-Length: {value}"), "hello"), REFUSED))
        .collect();
    let repeated = [
        "Content-Length: 5\r\nContent-Length: 6",
        "Content-Length: 6\r\nContent-Length: 5",
        "Content-Length: 5\r\nContent-Length: 5",
        "Content-Length: 5\r\nX-Between: 1\r\ncontent-length: 5",
        "Content-Length: 5\r\nContent-Length:",
        "Content-Length: 5\r\nContent-Length: 05",
    ];
    cases.extend(repeated.iter().map(|lines| case(*lines, post(lines, "hello"), REFUSED)));
    Rig::new("").await.run(cases).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transfer_coding_other_than_one_chunked_is_refused() {
    let unknown = ["gzip", "xchunked", "gzip, chunked", "br", "x-gzip"];
    let known = ["chunked, chunked", "chunked,chunked"];
    let either = [
        "chunked, gzip",
        "identity",
        "identity, chunked",
        "\"chunked\"",
        "chunked;q=1",
        "chunked;",
        "chunked,",
        ", chunked",
        "",
        "chunked x",
        "chunked\u{b}",
        "chunke",
        "chunkedd",
        "ch unked",
        "chunked \u{a0}",
    ];
    let with = |want| move |coding: &&str| case(*coding, post(&format!("Transfer-Encoding: {coding}"), CHUNKED), want);
    let mut cases: Vec<Case> = unknown.iter().map(with(UNKNOWN)).collect();
    cases.extend(known.iter().map(with(REFUSED)));
    cases.extend(either.iter().map(with(EITHER)));
    let lines = [
        "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        "Transfer-Encoding: chunked\r\nX-Between: 1\r\ntransfer-encoding:",
    ];
    cases.extend(lines.iter().map(|lines| case(*lines, post(lines, CHUNKED), EITHER)));
    Rig::new("").await.run(cases).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transfer_coding_in_http_1_0_is_refused() {
    let old = |lines: &str| format!("POST / HTTP/1.0\r\nHost: a\r\n{lines}\r\n\r\n{CHUNKED}");
    let cases = vec![
        case("alone", old("Transfer-Encoding: chunked"), REFUSED),
        case(
            "kept alive",
            old("Connection: keep-alive\r\nTransfer-Encoding: chunked"),
            REFUSED,
        ),
        case(
            "with a length",
            old("Content-Length: 15\r\nTransfer-Encoding: chunked"),
            REFUSED,
        ),
        case("unknown", old("Transfer-Encoding: gzip"), EITHER),
    ];
    Rig::new("").await.run(cases).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chunks_that_two_readers_end_at_different_places_are_refused() {
    let bodies = [
        "zz\r\nhello\r\n0\r\n\r\n",
        "-5\r\nhello\r\n0\r\n\r\n",
        "+5\r\nhello\r\n0\r\n\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        "5\r\nhelloX\r\n0\r\n\r\n",
        "5\r\nhell\r\n0\r\n\r\n",
        "fffffffffffffffff\r\nhello\r\n0\r\n\r\n",
        "10000000000000005\r\nhello\r\n0\r\n\r\n",
        "5 5\r\nhello\r\n0\r\n\r\n",
        "5\rhello\r\n0\r\n\r\n",
        "\r\n5\r\nhello\r\n0\r\n\r\n",
        ";x\r\nhello\r\n0\r\n\r\n",
        "5\r\nhello\r0\r\n\r\n",
        "5;a\rb\r\nhello\r\n0\r\n\r\n",
        "5\r\nhello\r\n0\r\n\rX",
        "5\r\nhello\r\n0\r\nX-Trailer : 1\r\n\r\n",
        "5\r\nhello\r\n0\r\nX-Trailer: \0\r\n\r\n",
        "5\r\nhello\r\n0\r\nno colon\r\n\r\n",
    ];
    let lenient = [
        "5\nhello\n0\n\n",
        "5;a\nb\r\nhello\r\n0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "5;a\0b\r\nhello\r\n0\r\n\r\n",
    ];
    let line = |target: &str, body: &str, want| {
        let head = format!("POST {target} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
        case(body, format!("{head}{body}"), want)
    };
    // What streams may have left in part before it broke; what is captured has not.
    let captured = "  - { name: shop, match: { path: / }, identity: [ { json: /from } ], flag: CHECKOUT }\n";
    let streamed = "  - { name: shop, match: { path: / } }\n";
    for (routes, want) in [(streamed, Want::Broken(&[400])), (captured, REFUSED)] {
        let mut cases: Vec<Case> = bodies.iter().map(|body| line("/chunks", body, want)).collect();
        cases.extend(
            lenient
                .iter()
                .map(|body| line("/lenient", body, Want::RefusedOrAnew(&[400]))),
        );
        Rig::over(|plan| plan.routes(routes)).await.run(cases).await;
    }
}

/// What reached legacy and, as a copy, new.
async fn both(request: &[u8], target: &str) -> (Strict, Strict) {
    let (legacy, new) = (Recorder::open().await, Recorder::open().await);
    let sidecar: Sidecar = Plan::new(&legacy, &new)
        .route("flag: false\nshadow: { flag: true, methods: [GET, POST] }")
        .start();
    let mut client = Socket::connect(sidecar.address).await;
    client.send(request).await;
    assert_eq!(client.message().await.status(), 200);
    let both = (legacy.wait_for(target).await, new.wait_for(target).await);
    assert_eq!((legacy.errors(), new.errors()), (vec![], vec![]));
    both
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_forwarded_is_written_anew_with_one_framing_to_both_sides() {
    let chunked = "4;name=value;other=\"quoted\"\r\nwiki\r\n006 ; x\r\npedia \r\nE\r\nin \r\n\r\nchunks.\r\n0;last\r\n\
        X-Trailer: t\r\nContent-Length: 3\r\nTransfer-Encoding: gzip\r\nHost: evil\r\nX-Forwarded-For: 6.6.6.6\r\n\
        Authorization: forged\r\n\r\n";
    let request =
        format!("POST /anew HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: CHUNKED\r\nTrailer: X-Trailer\r\n\r\n{chunked}");
    let (legacy, new) = both(request.as_bytes(), "/anew").await;
    for got in [&legacy, &new] {
        assert_eq!(got.body, b"wikipedia in \r\n\r\nchunks.", "{got:?}");
        assert_eq!(
            got.all("content-length").len() + got.all("transfer-encoding").len(),
            1,
            "{got:?}"
        );
        for name in ["x-trailer", "trailer", "authorization"] {
            assert!(!got.has(name), "{name} was merged: {got:?}");
        }
        assert_eq!(got.header("host"), "a");
        assert!(!got.header("x-forwarded-for").contains("6.6.6.6"), "{got:?}");
        for name in [
            "content-length",
            "transfer-encoding",
            "host",
            "x-forwarded-for",
            "authorization",
        ] {
            assert!(
                !got.trailers.iter().any(|(known, _)| known.eq_ignore_ascii_case(name)),
                "{got:?}"
            );
        }
    }
    assert_eq!(legacy.framing, Framing::Chunked);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_length_is_forwarded_as_that_one_length_and_no_body_as_none() {
    let with_length = b"POST /length HTTP/1.1\r\nHost: a\r\nContent-Length: 0005\r\n\r\nhello";
    let (legacy, new) = both(with_length, "/length").await;
    assert_eq!((&*legacy.body, legacy.framing), (&b"hello"[..], Framing::Length));
    assert_eq!((&*new.body, new.framing), (&b"hello"[..], Framing::Length));
    let empty = b"POST /empty HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n";
    let (legacy, new) = both(empty, "/empty").await;
    assert_eq!((legacy.body.len(), new.body.len()), (0, 0));
    let (legacy, new) = both(b"GET /none HTTP/1.1\r\nHost: a\r\n\r\n", "/none").await;
    assert_eq!((legacy.framing, new.framing), (Framing::Head, Framing::Head));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_chunked_in_any_case_and_the_largest_lengths_of_63_bits_are_no_error() {
    let rig = Rig::new("").await;
    for coding in ["chunked", "CHUNKED", "Chunked", " chunked \t"] {
        let mut client = Socket::connect(rig.instance.address).await;
        client
            .send(format!(
                "POST /coding HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:{coding}\r\n\r\n{CHUNKED}"
            ))
            .await;
        let answer = client.message().await;
        assert_eq!((answer.status(), &*answer.body), (200, &b"hello"[..]), "{coding}");
    }
    // Nobody sends as much, but it is a length: its request is waited for, not refused.
    let mut client = Socket::connect(rig.instance.address).await;
    client
        .send("POST /long HTTP/1.1\r\nHost: a\r\nContent-Length: 9223372036854775807\r\nExpect: 100-continue\r\n\r\n")
        .await;
    assert_eq!(client.head().await.status(), 100);
    assert_eq!(rig.legacy.errors(), Vec::<String>::new());
}
