//! Point 2, bad bytes: what a request line and header lines may consist of.

use crate::strict::Strict;
use crate::support::Socket;
use crate::table::{Case, Rig, Want, case};

const REFUSED: Want = Want::Refused(&[400]);

fn get(lines: &[u8]) -> Vec<u8> {
    [b"GET /s3cr3t HTTP/1.1\r\nHost: a\r\n", lines, b"\r\n\r\n"].concat()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_control_byte_in_a_name_a_value_a_method_or_a_target_is_refused() {
    let mut cases = Vec::new();
    let control = (0..b' ')
        .chain([0x7f])
        .filter(|byte| !matches!(byte, b'\t' | b'\n' | b'\r'));
    for byte in control {
        let b = &[byte][..];
        let places: [(&str, Vec<u8>); 5] = [
            ("name", get(&[b"X-", b, b"A: s3cr3t"].concat())),
            ("value", get(&[b"X-A: s3cr3t", b, b"1"].concat())),
            ("method", [b"G", b, b"T / HTTP/1.1\r\nHost: a\r\n\r\n"].concat()),
            ("target", [b"GET /a", b, b"b HTTP/1.1\r\nHost: a\r\n\r\n"].concat()),
            ("version", [b"GET /a HTTP/1.1", b, b"\r\nHost: a\r\n\r\n"].concat()),
        ];
        cases.extend(
            places
                .into_iter()
                .map(|(place, bytes)| case(format!("{byte:#04x} in a {place}"), bytes, REFUSED)),
        );
    }
    cases.push(case("TAB in a name", get(b"X-\tA: 1"), REFUSED));
    cases.push(case("TAB in a method", "G\tT / HTTP/1.1\r\nHost: a\r\n\r\n", REFUSED));
    cases.push(case(
        "TAB in a target",
        "GET /a\tb HTTP/1.1\r\nHost: a\r\n\r\n",
        REFUSED,
    ));
    cases.push(case("TAB for a space", "GET\t/a HTTP/1.1\r\nHost: a\r\n\r\n", REFUSED));
    Rig::new("").await.run(cases).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bare_cr_anywhere_is_refused() {
    let cases = vec![
        case("in a value", get(b"X-A: 1\rX-B: 2"), REFUSED),
        case("before the line's end", get(b"X-A: 1\r"), REFUSED),
        case("for a line's end", get(b"X-A: 1\rContent-Length: 5"), REFUSED),
        case("in a name", get(b"X\r-A: 1"), REFUSED),
        case("before the colon", get(b"X-A\r: 1"), REFUSED),
        case("after the colon", get(b"X-A:\r1"), REFUSED),
        case("in the target", "GET /a\rb HTTP/1.1\r\nHost: a\r\n\r\n", REFUSED),
        case("after the version", "GET / HTTP/1.1\r\r\nHost: a\r\n\r\n", REFUSED),
        case(
            "for the end of the request line",
            "GET / HTTP/1.1\rHost: a\r\n\r\n",
            REFUSED,
        ),
        case(
            "in place of the last line end",
            "GET / HTTP/1.1\r\nHost: a\r\n\rX: 1\r\n\r\n",
            REFUSED,
        ),
    ];
    Rig::new("").await.run(cases).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_header_line_that_is_none_is_refused() {
    let mut cases = vec![
        case("a space before the colon", get(b"X-A : s3cr3t"), REFUSED),
        case("a tab before the colon", get(b"X-A\t: 1"), REFUSED),
        case(
            "a spaced length",
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length : 5\r\n\r\nhello".to_vec(),
            REFUSED,
        ),
        case(
            "a spaced coding",
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n".to_vec(),
            REFUSED,
        ),
        case("folded by a space", get(b"X-A: 1\r\n s3cr3t: 2"), REFUSED),
        case("folded by a tab", get(b"X-A: 1\r\n\tfolded"), REFUSED),
        case("folded and empty", get(b"X-A: 1\r\n \r\nX-B: 1"), REFUSED),
        case("the first line folded", "GET / HTTP/1.1\r\n Host: a\r\n\r\n", REFUSED),
        case(
            "a folded coding",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
            REFUSED,
        ),
        case("an empty name", get(b": s3cr3t"), REFUSED),
        case("no colon", get(b"s3cr3t"), REFUSED),
        case("only a colon", get(b":"), REFUSED),
    ];
    for byte in b"()<>@,;\\\"/[]?={} \x80\xc3\xff" {
        cases.push(case(
            format!("{byte:#04x} in a name"),
            get(&[b"X-", &[*byte][..], b"A: 1"].concat()),
            REFUSED,
        ));
    }
    Rig::new("").await.run(cases).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_line_that_is_none_is_refused() {
    let lines: Vec<Case> = [
        "GET /",
        "GET",
        "GET / HTTP/1.2",
        "GET / HTTP/2.0",
        "GET / HTTP/3.0",
        "GET / HTTP/0.9",
        "GET / HTTP/1.10",
        "GET / HTTP/01.1",
        "GET / HTTP/1",
        "GET / HTTP/1,1",
        "GET / HTTP/+1.1",
        "GET / http/1.1",
        "GET / HTTPS/1.1",
        "GET / ICY/1.1",
        "GET / HTTP/1.1 ",
        "GET / HTTP/1.1 X",
        "GET  / HTTP/1.1",
        "GET /  HTTP/1.1",
        " GET / HTTP/1.1",
        "GET /a b HTTP/1.1",
        "(GET) / HTTP/1.1",
        "G@T / HTTP/1.1",
        " / HTTP/1.1",
        "/ HTTP/1.1",
        "GET s3cr3t HTTP/1.1",
        "GET * HTTP/1.1",
        "POST * HTTP/1.1",
        "GET ?q HTTP/1.1",
        "GET #a HTTP/1.1",
        "GET a.example:80 HTTP/1.1",
        "GET a.example/ HTTP/1.1",
        "GET //",
        "GET http:// HTTP/1.1",
        "GET http:///path HTTP/1.1",
        "GET http://a:port/ HTTP/1.1",
        "GET http://user:s3cr3t@a/ HTTP/1.1",
        "GET http://a@b/ HTTP/1.1",
        "GET \\ HTTP/1.1",
        "GET \\\\a\\b HTTP/1.1",
    ]
    .iter()
    .map(|line| case(*line, format!("{line}\r\nHost: a\r\n\r\n"), REFUSED))
    .collect();
    Rig::new("").await.run(lines).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_protocols_on_the_port_are_refused() {
    let cases = vec![
        case(
            "TLS",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03aaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n\r\n".to_vec(),
            REFUSED,
        ),
        case("SSH", "SSH-2.0-OpenSSH_9.2\r\n\r\n", REFUSED),
        case("SMTP", "EHLO a.example\r\n\r\n", REFUSED),
        case("an answer", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", REFUSED),
        case(
            "PROXY",
            "PROXY TCP4 1.1.1.1 2.2.2.2 1 2\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            REFUSED,
        ),
    ];
    Rig::new("").await.run(cases).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bare_lf_is_refused_or_written_anew() {
    let rig = Rig::new("").await;
    let requests = [
        "GET /1 HTTP/1.1\nHost: a\nX-A: 1\n\n",
        "GET /1 HTTP/1.1\r\nHost: a\nX-A: 1\r\n\r\n",
        "GET /1 HTTP/1.1\r\nHost: a\r\nX-A: 1\n\r\n",
        "GET /1 HTTP/1.1\r\nHost: a\r\nX-A: 1\r\n\n",
        "GET /1 HTTP/1.1\nHost: a\r\nX-A: 1\r\n\r\n",
        "POST /1 HTTP/1.1\nHost: a\nX-A: 1\nContent-Length: 2\n\n\n\n",
    ];
    for request in requests {
        let mut client = Socket::connect(rig.instance.address).await;
        client.send(request).await;
        let status = client.message().await.status();
        assert!(matches!(status, 200 | 400), "{status} for {request:?}");
    }
    let is_anew = |m: &Strict| m.header("x-a") == "1" && m.header("host") == "a";
    assert!(rig.legacy.to("/1").iter().all(is_anew), "{:?}", rig.legacy.messages());
    assert_eq!(rig.legacy.errors(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_legal_though_rare_passes_as_it_is() {
    let rig = Rig::new("").await;
    let lines: [&[u8]; 5] = [
        b"X-Tab: a\tb",
        b"X-Latin: caf\xe9",
        b"X-Utf: \xe2\x82\xac",
        b"X-!#$%&'*+-.^_`|~: tokens",
        b"X-Empty:",
    ];
    let mut client = Socket::connect(rig.instance.address).await;
    client
        .send(
            [
                b"GET /rare?a=%00%0d%0a&b=[]{}|^` HTTP/1.1\r\nHost: a\r\n",
                &lines.join(&b"\r\n"[..])[..],
                b"\r\n\r\n",
            ]
            .concat(),
        )
        .await;
    assert_eq!(client.message().await.status(), 200);
    let got = rig.legacy.messages().remove(0);
    assert_eq!(got.second(), "/rare?a=%00%0d%0a&b=[]{}|^`");
    assert_eq!(got.all("x-tab"), [b"a\tb"]);
    assert_eq!(got.all("x-latin"), [b"caf\xe9"]);
    assert_eq!(got.all("x-utf"), ["€".as_bytes()]);
    assert_eq!(got.all("x-!#$%&'*+-.^_`|~"), [b"tokens"]);
    assert_eq!(got.all("x-empty"), [b""]);
}

/// Each of these is logged once, with its address, reason and position, and never with what was sent.
async fn are_logged(refused: &[(&str, &str)]) {
    let rig = Rig::new("").await;
    let mut clients = Vec::new();
    for &(reason, bytes) in refused {
        let mut client = Socket::connect(rig.instance.address).await;
        client.send(bytes).await;
        client.rest().await;
        clients.push((reason, client.local()));
    }
    for (reason, address) in &clients {
        let what = format!("a line about {reason} by {address}");
        let line = rig.instance.wait_for_log(&what, |line| line["reason"] == *reason).await;
        assert_eq!(
            (&line["level"], &line["client"]),
            (&"WARN".into(), &address.to_string().into()),
            "{line}"
        );
        assert!(line["position"].is_u64() || *reason == "method_not_allowed", "{line}");
    }
    let lines = rig
        .instance
        .logs()
        .into_iter()
        .filter(|line| line["level"] == "WARN")
        .count();
    assert_eq!(lines, clients.len(), "{}", rig.instance.stderr());
    assert!(
        !rig.instance.stderr().to_lowercase().contains("s3cr3t"),
        "{}",
        rig.instance.stderr()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_refusal_is_logged_once_with_address_reason_and_position_and_never_with_what_was_sent() {
    are_logged(&[
        (
            "malformed",
            "GET /s3cr3t HTTP/1.1\r\nHost: a\r\nX-S3cr3t : s3cr3t\r\n\r\n",
        ),
        (
            "two_framings",
            "POST /s3cr3t HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        ),
        (
            "bad_content_length",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: s3cr3t\r\n\r\n",
        ),
        (
            "unknown_coding",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: s3cr3t\r\n\r\n",
        ),
        ("bad_host", "GET / HTTP/1.1\r\nHost: s3cr3t/\r\n\r\n"),
        ("bad_target", "GET s3cr3t HTTP/1.1\r\nHost: a\r\n\r\n"),
        (
            "bad_chunk",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\ns3cr3t\r\n",
        ),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_refused_for_its_method_or_size_is_logged_too() {
    are_logged(&[
        ("method_not_allowed", "TRACE /s3cr3t HTTP/1.1\r\nHost: a\r\n\r\n"),
        (
            "target_too_long",
            &format!("GET /s3cr3t{} HTTP/1.1\r\nHost: a\r\n\r\n", "t".repeat(20_000)),
        ),
    ])
    .await;
}
