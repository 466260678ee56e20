//! Point 4, limits: what they are when nobody sets them, and that memory is bounded before any of them is reached.

use std::time::Duration;

use crate::support::{Listener, Nobody, Plan, Socket, deadline, eventually};
use crate::table::{Case, Rig, Want, case};

fn lines(n: usize) -> String {
    (0..n).map(|at| format!("X-{at}: 1\r\n")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_default_64_kib_and_100_lines_of_header_are_the_limit() {
    let get = |lines: &str| format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
    let long = |n: usize| format!("X-Long: {}\r\n", "x".repeat(n));
    let too_large = Want::Refused(&[431]);
    let cases = vec![
        case("101 lines", get(&lines(100)), too_large),
        case("1000 lines", get(&lines(1_000)), too_large),
        case("one line of 64 KiB", get(&long(64 * 1_024)), too_large),
        case("10 lines of 7 KiB", get(&long(7 * 1_024).repeat(10)), too_large),
        case(
            "a long name",
            get(&format!("{}: 1\r\n", "x".repeat(66 * 1_024))),
            too_large,
        ),
        case(
            "a section that never ends",
            format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}", "x".repeat(70 * 1_024)),
            too_large,
        ),
    ];
    let rig = Rig::new("").await;
    rig.run(cases).await;
    for fits in [get(&lines(99)), get(&long(60 * 1_024))] {
        let mut client = Socket::connect(rig.instance.address).await;
        client.send(fits).await;
        assert_eq!(client.message().await.status(), 200);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_of_8000_bytes_passes_and_one_over_the_limit_is_414() {
    let get = |n: usize| format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "t".repeat(n - 1));
    let rig = Rig::new("").await;
    let too_long = Want::Refused(&[414]);
    let cases = [16 * 1_024 + 1, 20_000, 60_000, 200_000];
    rig.run(
        cases
            .iter()
            .map(|n| case(format!("{n} bytes"), get(*n), too_long))
            .collect(),
    )
    .await;
    for n in [8_000, 16 * 1_024] {
        let mut client = Socket::connect(rig.instance.address).await;
        client.send(get(n)).await;
        assert_eq!(client.message().await.status(), 200, "{n}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_that_alone_is_over_the_header_limit_is_414_too() {
    let get = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "t".repeat(70_000));
    Rig::new("")
        .await
        .run(vec![case("70000 bytes", get, Want::Refused(&[414]))])
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_over_a_configured_limit_is_413() {
    let said = |n: usize| {
        format!(
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {n}\r\n\r\n{}",
            "x".repeat(n.min(2_000))
        )
    };
    let chunked = |n: usize| {
        let chunk = format!("100\r\n{}\r\n", "x".repeat(0x100));
        let head = "POST /chunked HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        format!("{head}{}0\r\n\r\n", chunk.repeat(n / 0x100))
    };
    let rig = Rig::new("limits: { body: 1KiB }").await;
    let cases = vec![
        case("said", said(1_025), Want::Refused(&[413])),
        case("said to be endless", said(9_000_000_000), Want::Refused(&[413])),
        case("found", chunked(1_280), Want::Broken(&[413])),
        case("found late", chunked(100_000), Want::Broken(&[413])),
    ];
    rig.run(cases).await;
    for fits in [said(1_024), chunked(1_024)] {
        let mut client = Socket::connect(rig.instance.address).await;
        client.send(fits).await;
        assert_eq!(client.message().await.status(), 200);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chunk_extensions_and_trailers_without_end_are_refused() {
    let post = |body: &str| format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{body}");
    let refused = Want::Broken(&[400]);
    let extension = |n: usize| format!("1;{}\r\nx\r\n", "e".repeat(n));
    let cases: Vec<Case> = vec![
        case(
            "one extension of 17 KiB",
            post(&format!("{}0\r\n\r\n", extension(17 * 1_024))),
            refused,
        ),
        case(
            "200 extensions of 100 bytes",
            post(&format!("{}0\r\n\r\n", extension(100).repeat(200))),
            refused,
        ),
        case(
            "4000 extensions of 9 bytes",
            post(&format!("{}0\r\n\r\n", extension(9).repeat(4_000))),
            refused,
        ),
        case(
            "an extension that never ends",
            post(&format!("1;{}", "e".repeat(40 * 1_024))),
            refused,
        ),
        case(
            "one trailer of 65 KiB",
            post(&format!("0\r\nX: {}\r\n\r\n", "t".repeat(65 * 1_024))),
            refused,
        ),
        case(
            "many trailers",
            post(&format!("0\r\n{}\r\n", "X-Trailer: ten bytes\r\n".repeat(4_000))),
            refused,
        ),
        case(
            "trailers that never end",
            post(&format!("0\r\n{}", "X-Trailer: ten bytes\r\n".repeat(8_000))),
            refused,
        ),
        case(
            "a size of 17 digits",
            post("10000000000000000\r\nx\r\n0\r\n\r\n"),
            refused,
        ),
        case(
            "a size of zeros",
            post(&format!("{}1\r\nx\r\n0\r\n\r\n", "0".repeat(20_000))),
            Want::RefusedOrAnew(&[400]),
        ),
        case(
            "a size over 63 bits",
            post("ffffffffffffffff\r\nx\r\n0\r\n\r\n"),
            refused,
        ),
    ];
    let rig = Rig::new("").await;
    rig.run(cases).await;
    let mut client = Socket::connect(rig.instance.address).await;
    client
        .send(post(&format!(
            "{}0\r\nX: {}\r\n\r\n",
            extension(15 * 1_024),
            "t".repeat(4_000)
        )))
        .await;
    assert_eq!(client.message().await.status(), 200, "what stays below passes");
}

/// Kilobytes of memory that a process holds now.
fn memory_kb(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_of_a_connection_is_bounded_whatever_it_sends() {
    const CONNECTIONS: usize = 100;
    /// Buffers of one connection both ways, and of the one to the backend.
    const EACH_KB: u64 = 400;
    let chunked = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let floods: [(&str, String, String); 5] = [
        (
            "a header section",
            "GET / HTTP/1.1\r\nHost: a\r\nX: ".to_owned(),
            "x".repeat(8_192),
        ),
        ("chunk extensions", format!("{chunked}1;"), "e".repeat(8_192)),
        ("trailers", format!("{chunked}0\r\n"), "X-T: 1\r\n".repeat(1_000)),
        (
            "a body",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 999999999\r\n\r\n".to_owned(),
            "x".repeat(8_192),
        ),
        (
            "pipelined requests",
            String::new(),
            "GET / HTTP/1.1\r\nHost: a\r\n\r\n".repeat(240),
        ),
    ];
    for (what, start, more) in floods {
        // Neither reads nor answers, so that whatever is taken from the client stays.
        let legacy = Listener::open_with_small_window();
        let plan = Plan::new(&legacy, &Nobody::open())
            .route("flag: false")
            .legacy_more("timeout: 1s");
        let instance = crate::support::Instance::start(&plan).await;
        let before = memory_kb(instance.id());
        let mut flooding = Vec::new();
        for _ in 0..CONNECTIONS {
            let (start, more, address) = (start.clone(), more.clone(), instance.address);
            flooding.push(tokio::spawn(async move {
                let mut client = Socket::connect(address).await;
                if !client.try_send(&start).await {
                    return client;
                }
                // Until it is refused, or the kernel takes no more.
                for _ in 0..150 {
                    let sent = tokio::time::timeout(Duration::from_millis(300), client.try_send(&more)).await;
                    if sent != Ok(true) {
                        break;
                    }
                }
                client
            }));
        }
        let mut held = Vec::new();
        for flood in flooding {
            held.push(flood.await.unwrap());
        }
        let grown = memory_kb(instance.id()).saturating_sub(before);
        assert!(
            grown < EACH_KB * CONNECTIONS as u64,
            "{what}: {grown} KB for {CONNECTIONS} connections"
        );
        drop(held);
        eventually(&format!("the connections that sent {what} to be gone"), || async {
            instance.metric("understudy_connections", &[]).await == 0.0
        })
        .await;
        let pid = instance.id();
        let descriptors = || std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
        deadline("descriptors to be given back", || descriptors() < 60).await;
    }
}
