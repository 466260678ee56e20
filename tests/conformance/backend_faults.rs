//! Points 7 and 8: what a backend may do wrong, what the client gets for it and when, and what is never sent twice.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::scripted::{Act, Scripted};
use crate::strict::{self, Kind};
use crate::support::{Instance, Nobody, Plan, Socket};
use crate::table::Dice;

const FINE: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine";

fn ambiguous() -> Vec<(&'static str, Vec<u8>)> {
    let ok = |lines: &str, body: &str| format!("HTTP/1.1 200 OK\r\n{lines}\r\n\r\n{body}").into_bytes();
    let endless = format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(200_000)).into_bytes();
    let many = ok(&"X: 1\r\n".repeat(20_000), "");
    vec![
        (
            "length and coding",
            ok(
                "Content-Length: 2\r\nTransfer-Encoding: chunked",
                "2\r\nab\r\n0\r\n\r\n",
            ),
        ),
        (
            "coding and length",
            ok(
                "Transfer-Encoding: chunked\r\nContent-Length: 12",
                "2\r\nab\r\n0\r\n\r\n",
            ),
        ),
        ("two lengths", ok("Content-Length: 2\r\nContent-Length: 3", "abc")),
        ("a list of lengths", ok("Content-Length: 2, 3", "abc")),
        ("a negative length", ok("Content-Length: -2", "ab")),
        ("a signed length", ok("Content-Length: +2", "ab")),
        ("a hexadecimal length", ok("Content-Length: 0x2", "ab")),
        ("an empty length", ok("Content-Length:", "")),
        ("a spaced length", ok("Content-Length: 2 2", "ab")),
        (
            "an overflowing length",
            ok("Content-Length: 18446744073709551618", "ab"),
        ),
        ("a length over 63 bits", ok("Content-Length: 9223372036854775808", "ab")),
        ("an unknown coding", ok("Transfer-Encoding: gzip", "ab")),
        (
            "two codings",
            ok("Transfer-Encoding: gzip, chunked", "2\r\nab\r\n0\r\n\r\n"),
        ),
        (
            "chunked twice",
            ok("Transfer-Encoding: chunked, chunked", "2\r\nab\r\n0\r\n\r\n"),
        ),
        (
            "chunked on two lines",
            ok(
                "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
                "2\r\nab\r\n0\r\n\r\n",
            ),
        ),
        (
            "chunked in 1.0",
            b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n".to_vec(),
        ),
        ("NUL in a value", ok("X: \0\r\nContent-Length: 0", "")),
        ("NUL in a name", ok("X\0: 1\r\nContent-Length: 0", "")),
        ("a control byte", ok("X: \x01\r\nContent-Length: 0", "")),
        ("a bare CR", ok("X: a\rContent-Length: 0", "")),
        ("no colon", ok("nonsense\r\nContent-Length: 0", "")),
        ("an empty name", ok(": x\r\nContent-Length: 0", "")),
        (
            "a short status",
            b"HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n".to_vec(),
        ),
        (
            "a long status",
            b"HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n".to_vec(),
        ),
        (
            "a status of letters",
            b"HTTP/1.1 abc OK\r\nContent-Length: 0\r\n\r\n".to_vec(),
        ),
        ("status 000", b"HTTP/1.1 000 OK\r\nContent-Length: 0\r\n\r\n".to_vec()),
        ("status 099", b"HTTP/1.1 099 OK\r\nContent-Length: 0\r\n\r\n".to_vec()),
        ("no status", b"HTTP/1.1\r\nContent-Length: 0\r\n\r\n".to_vec()),
        ("version 3", b"HTTP/3.0 200 OK\r\nContent-Length: 0\r\n\r\n".to_vec()),
        ("version 1.2", b"HTTP/1.2 200 OK\r\nContent-Length: 0\r\n\r\n".to_vec()),
        ("no HTTP", b"220 mail.example ESMTP\r\n\r\n".to_vec()),
        (
            "HTTP/2",
            b"\0\0\x12\x04\0\0\0\0\0\0\x03\0\0\0\x64\0\x04\0\0\xff\xff\0\x05\0\0\x40\0\r\n\r\n".to_vec(),
        ),
        (
            "a 101 that nobody asked for",
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n".to_vec(),
        ),
        ("endless headers", endless),
        ("endless header lines", many),
    ]
}

/// One instance over a backend with an act for each target; the numbers count the acts.
async fn before(acts: Vec<Act>) -> (Scripted, Instance) {
    let legacy = Scripted::new(move |target| {
        let number = target
            .trim_start_matches('/')
            .split('/')
            .next()
            .and_then(|n| n.parse::<usize>().ok());
        number.map_or(Act::Say(FINE.to_vec()), |number| acts[number].clone())
    })
    .await;
    let plan = Plan::new(&legacy, &Nobody::open())
        .route("flag: false")
        .legacy_more("timeout: 400ms, connect_timeout: 300ms");
    let instance = Instance::start(&plan).await;
    (legacy, instance)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ambiguous_answer_is_a_502_and_its_connection_is_never_used_again() {
    let table = ambiguous();
    let (legacy, instance) = before(table.iter().map(|(_, said)| Act::Say(said.clone())).collect()).await;
    let mut wrong = Vec::new();
    for (number, (name, _)) in table.iter().enumerate() {
        let mut client = Socket::connect(instance.address).await;
        let since = Instant::now();
        client.send(format!("GET /{number} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        let Some(head) = client.try_head().await else {
            wrong.push(format!("{name}: closed without a word"));
            continue;
        };
        let (status, reason) = (head.status(), head.header("x-understudy-error").to_owned());
        if status != 502 || reason != "malformed_answer" || since.elapsed() > Duration::from_secs(2) {
            wrong.push(format!("{name}: {status} {reason:?} after {:?}", since.elapsed()));
        }
    }
    let used = legacy.asked();
    for asked in &used {
        let others = used.iter().filter(|other| other.connection == asked.connection);
        if others.count() > 1 {
            wrong.push(format!("the connection of {} was used again", asked.target));
        }
    }
    legacy.left_alone().await;
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let mut client = Socket::connect(instance.address).await;
    client.send("GET /fine HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(client.message().await.body, b"fine");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_old_and_means_one_thing_is_written_anew() {
    let said = [
        "HTTP/1.1 200 OK\r\nX: 1\r\n folded\r\nContent-Length: 4\r\n\r\nfine",
        "HTTP/1.1 200 OK\r\nContent-Length : 4\r\n\r\nfine",
        "HTTP/1.1 200 OK\nContent-Length: 4\n\nfine",
        "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nContent-Length: 4\r\n\r\nfine",
        "HTTP/1.0 200 OK\r\nContent-Length: 4\r\n\r\nfine",
        "HTTP/1.1 200\r\nContent-Length: 0004\r\n\r\nfine",
    ];
    let (_legacy, instance) = before(said.iter().map(|said| Act::SayAndClose((*said).into())).collect()).await;
    for (number, said) in said.iter().enumerate() {
        let mut client = Socket::connect(instance.address).await;
        client
            .send(format!(
                "GET /{number} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
            ))
            .await;
        let got = client.rest().await;
        let (answers, rest) = strict::read_all(&got, Kind::Answer, true).unwrap_or_else(|e| panic!("{said:?}: {e}"));
        assert!(rest.is_empty() && answers.len() == 1, "{said:?}: {answers:?}");
        let answer = &answers[0];
        // Or refused, which is as safe.
        assert!(answer.status() == 502 || answer.body == b"fine", "{said:?}: {answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_fault_before_the_status_is_told_in_time_and_tells_nothing() {
    let acts = [
        (Act::CloseAfter(0), 502),
        (Act::ResetAfter(0), 502),
        (Act::SayAndClose(b"HTTP/1.".to_vec()), 502),
        (Act::SayAndClose(b"HTTP/1.1 200 OK\r\nContent-Le".to_vec()), 502),
        (Act::SayAndReset(b"HTTP/1.1 200 OK\r\nContent-Le".to_vec()), 502),
        (Act::SayAndClose(b"garbage\r\n\r\n".to_vec()), 502),
        (Act::SayAndClose(b"HTTP/1.1 100 Continue\r\n\r\n".to_vec()), 502),
        (Act::Silence, 504),
        (Act::Say(b"HTTP/1.1 200 OK\r\n".to_vec()), 504),
        (Act::Say(b"HTTP/1.1 100 Continue\r\n\r\n".to_vec()), 504),
        (
            Act::Say(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n".to_vec()),
            504,
        ),
    ];
    let (legacy, instance) = before(acts.iter().map(|(act, _)| act.clone()).collect()).await;
    let backend = legacy.address.to_string();
    for (number, (act, status)) in acts.iter().enumerate() {
        for method in ["GET", "POST"] {
            let mut client = Socket::connect(instance.address).await;
            let since = Instant::now();
            client
                .send(format!(
                    "{method} /{number} HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"
                ))
                .await;
            let answer = loop {
                let answer = client.message().await;
                if answer.status() >= 200 {
                    break answer;
                }
            };
            let took = since.elapsed();
            assert_eq!(answer.status(), *status, "{act:?}");
            // A machine that is busy adds to it.
            let latest = if *status == 504 { 900 } else { 500 };
            assert!(took < Duration::from_millis(latest + 600), "{act:?} took {took:?}");
            assert!(!answer.header("x-understudy-error").is_empty(), "{act:?}");
            let body = String::from_utf8(answer.body.clone()).unwrap().to_lowercase();
            for word in [&*backend, "127.0.0.1", "/", "hyper", "understudy", "0.1", "os error"] {
                assert!(!body.contains(word), "{act:?}: {body}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_backend_is_a_504_however_late_the_end_of_the_upload_came() {
    let (_legacy, instance) = before(vec![Act::Silence]).await;
    let uploads: [(&str, &[&str]); 4] = [
        ("Content-Length: 5", &["he", "llo"]),
        ("Transfer-Encoding: chunked", &["5\r\nhello\r\n", "0\r\n\r\n"]),
        ("Transfer-Encoding: chunked", &["5\r\nhello\r\n0\r\n", "\r\n"]),
        ("Transfer-Encoding: chunked", &["5\r\nhello\r\n", "0\r\nX-T: 1\r\n\r\n"]),
    ];
    for (framing, parts) in uploads {
        let mut client = Socket::connect(instance.address).await;
        client
            .send(format!("POST /0 HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n"))
            .await;
        for part in parts {
            // Long enough for the sidecar to have forwarded what it had.
            tokio::time::sleep(Duration::from_millis(60)).await;
            client.send(part).await;
        }
        let since = Instant::now();
        assert_eq!(client.message().await.status(), 504, "{framing} {parts:?}");
        assert!(since.elapsed() < Duration::from_millis(1_500), "{:?}", since.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_that_knows_no_expectations_gets_the_body_before_its_time_is_up() {
    let legacy = crate::recorder::Recorder::open().await;
    for timeout in ["400ms", "1s"] {
        let plan = Plan::new(&legacy, &Nobody::open()).route("flag: false");
        let sidecar = plan.legacy_more(&format!("timeout: {timeout}")).start();
        let mut client = Socket::connect(sidecar.address).await;
        client
            .send("POST /expect HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
            .await;
        // Whoever is not told for a while goes on (RFC 9110 section 10.1.1).
        tokio::time::sleep(Duration::from_millis(100)).await;
        client.send("hello").await;
        let answer = loop {
            let answer = client.message().await;
            if answer.status() >= 200 {
                break answer;
            }
        };
        assert_eq!((answer.status(), &*answer.body), (200, &b"hello"[..]), "{timeout}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_that_come_on_an_idle_connection_close_it() {
    for said in [
        "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged",
        "\r\n",
        "x",
        "HTTP/1.1 408 Request Timeout\r\n\r\n",
    ] {
        let legacy = crate::support::Listener::open().await;
        let sidecar = Plan::new(&legacy, &Nobody::open())
            .route("flag: false")
            .legacy_more("idle: 60s")
            .start();
        let mut client = Socket::connect(sidecar.address).await;
        client.send("GET /1 HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let mut backend = legacy.accept().await;
        backend.message().await;
        backend.send(FINE).await;
        assert_eq!(client.message().await.body, b"fine");
        backend.send(said).await;
        // Closed by the sidecar, without anybody asking for it, and before it would have been for its age.
        backend.rest().await;
        client.send("GET /2 HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let mut next = legacy.accept().await;
        assert_eq!(next.message().await.start, "GET /2 HTTP/1.1");
        next.send(FINE).await;
        assert_eq!(client.message().await.body, b"fine", "{said:?}");
    }
}

/// How a backend ends a request, and whether anything of the request can have reached it.
fn deaths() -> Vec<Act> {
    vec![
        Act::CloseAfter(0),
        Act::ResetAfter(0),
        Act::CloseAfter(3),
        Act::ResetAfter(3),
        Act::SayAndClose(b"HTTP/1.1 2".to_vec()),
        Act::SayAndReset(b"HTTP/1.1 200 OK\r\nContent-".to_vec()),
        Act::SayAndClose(b"nonsense\r\n\r\n".to_vec()),
        Act::Silence,
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_may_have_reached_a_backend_is_sent_to_none_a_second_time() {
    let acts = deaths();
    let failing = |acts: Vec<Act>| {
        move |target: &str| {
            let number = target
                .trim_start_matches('/')
                .split('/')
                .next()
                .and_then(|n| n.parse::<usize>().ok());
            number.map_or(Act::Say(FINE.to_vec()), |number| acts[number].clone())
        }
    };
    for served in ["legacy", "new"] {
        let legacy = Scripted::new(failing(acts.clone())).await;
        let new = Scripted::new(failing(acts.clone())).await;
        let plan = Plan::new(&legacy, &new)
            .route(if served == "new" { "flag: true" } else { "flag: false" })
            .legacy_more("timeout: 400ms")
            .new_more("timeout: 400ms");
        let sidecar = plan.start();
        let mut running = tokio::task::JoinSet::new();
        for (number, act) in acts.iter().enumerate() {
            for method in ["POST", "PUT", "PATCH", "DELETE", "GET", "HEAD", "OPTIONS"] {
                for warm in [false, true] {
                    let target = format!("/{number}/{method}/{warm}");
                    running.spawn(fail(sidecar.address, method, target, act.clone(), warm));
                }
            }
        }
        while let Some(done) = running.join_next().await {
            let (what, target, safe) = done.unwrap();
            let times = (legacy.times(&target), new.times(&target));
            let allowed = match (served, safe) {
                ("legacy", false) => times == (1, 0),
                ("new", false) => times == (0, 1),
                ("legacy", _) => matches!(times, (1 | 2, 0)),
                _ => matches!(times, (0..=2, 1 | 2)),
            };
            assert!(allowed, "{what} {target}: legacy and new were asked {times:?} times");
        }
    }
}

/// Sends one request that is going to fail; tells whether it may be repeated.
async fn fail(
    address: SocketAddr,
    method: &'static str,
    target: String,
    act: Act,
    warm: bool,
) -> (String, String, bool) {
    let mut client = Socket::connect(address).await;
    if warm {
        // The next request may go over the connection of this one.
        client
            .send("GET /warm HTTP/1.1\r\nHost: a\r\nX-Shopper-Id: anna\r\n\r\n")
            .await;
        assert_eq!(client.message().await.body, b"fine");
    }
    let safe = matches!(method, "GET" | "HEAD" | "OPTIONS");
    let body = if safe {
        String::new()
    } else {
        "x".repeat(target.len() * 100)
    };
    let framing = if safe {
        String::new()
    } else {
        format!("Content-Length: {}\r\n", body.len())
    };
    client
        .send(format!(
            "{method} {target} HTTP/1.1\r\nHost: a\r\nX-Shopper-Id: anna\r\n{framing}\r\n{body}"
        ))
        .await;
    let head = client.head().await;
    assert!(matches!(head.status(), 502 | 504), "{act:?} {method}: {head:?}");
    (format!("{act:?}"), target, safe)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_close_that_had_arrived_costs_no_request() {
    // Closes every connection right behind its answer, which the next request of whatever kind must not meet.
    let legacy = Scripted::new(|_| Act::SayAndClose(FINE.to_vec())).await;
    let sidecar = Plan::new(&legacy, &Nobody::open()).route("flag: false").start();
    let mut client = Socket::connect(sidecar.address).await;
    for round in 0..60 {
        let method = ["GET", "POST", "DELETE"][round % 3];
        client
            .send(format!(
                "{method} /round{round} HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx"
            ))
            .await;
        assert_eq!(client.message().await.body, b"fine", "{method} {round}");
        assert_eq!(legacy.times(&format!("/round{round}")), 1);
        // The close has arrived.
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_a_backend_says_the_client_reads_well_formed_answers() {
    // Answers that are broken at random places: the client gets one strict answer, or one that visibly never ends.
    let whole: [&[u8]; 3] = [
        b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 11\r\nX-A: b\r\n\r\nhello world",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: keep-alive\r\n\r\n5\r\nhello\r\n1;e\r\n \r\n5\r\nworld\r\n0\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    ];
    const ODD: &[u8] = b"\0\r\n\t :,;\"\x7f\xff/0a-";
    let mut dice = Dice::new(7);
    let mut answers: Vec<Vec<u8>> = Vec::new();
    for _ in 0..300 {
        let mut bytes = whole[dice.below(3)].to_vec();
        for _ in 0..=dice.below(3) {
            let at = dice.below(bytes.len());
            match dice.below(4) {
                0 => bytes[at] = ODD[dice.below(ODD.len())],
                1 => bytes.insert(at, ODD[dice.below(ODD.len())]),
                2 => drop(bytes.remove(at)),
                _ => bytes.truncate(at.max(1)),
            }
        }
        answers.push(bytes);
    }
    let (_legacy, instance) = before(answers.iter().cloned().map(Act::SayAndClose).collect()).await;
    let mut running = tokio::task::JoinSet::new();
    for (number, said) in answers.into_iter().enumerate() {
        let address = instance.address;
        running.spawn(async move {
            let mut client = Socket::connect(address).await;
            client
                .send(format!(
                    "GET /{number} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
                ))
                .await;
            let got = client.rest().await;
            let shown = || {
                format!(
                    "{:?}\nbecame\n{:?}",
                    String::from_utf8_lossy(&said),
                    String::from_utf8_lossy(&got)
                )
            };
            let (read, _) = strict::read_all(&got, Kind::Answer, true).unwrap_or_else(|e| panic!("{e}: {}", shown()));
            let finals = read.iter().filter(|answer| answer.status() >= 200).count();
            assert!(finals <= 1, "{}", shown());
        });
    }
    while let Some(done) = running.join_next().await {
        done.unwrap();
    }
    assert_eq!(instance.metric("understudy_panics_total", &[]).await, 0.0);
}
