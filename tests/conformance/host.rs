//! Point 3, Host: exactly one and a legal one, and it reaches the backend unchanged.

use crate::support::Socket;
use crate::table::{Case, Rig, Want, case};

const REFUSED: Want = Want::Refused(&[400]);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_host_two_hosts_or_an_illegal_one_are_refused() {
    let mut cases: Vec<Case> = [
        "",
        "Host: a\r\nHost: b\r\n",
        "Host: a\r\nHost: a\r\n",
        "Host: a\r\nX-Between: 1\r\nhost: a\r\n",
        "Host:\r\nHost: a\r\n",
        "Host: a b\r\n",
        "Host: a/b\r\n",
        "Host: s3cr3t@b\r\n",
        "Host: a, b\r\n",
        "Host: a#b\r\n",
        "Host: a?b\r\n",
        "Host: a\\b\r\n",
        "Host: a:b\r\n",
        "Host: a%\r\n",
        "Host: a%4g\r\n",
        "Host: a:80:80\r\n",
        "Host: a:999999\r\n",
        "Host: [::1\r\n",
        "Host: ::1\r\n",
        "Host: [a]b\r\n",
        "Host: http://a\r\n",
        "Host: a\tb\r\n",
        "Host: \"a\"\r\n",
        "Host: a<b\r\n",
    ]
    .iter()
    .map(|lines| case(*lines, format!("GET /s3cr3t HTTP/1.1\r\n{lines}\r\n"), REFUSED))
    .collect();
    cases.push(case(
        "not ASCII",
        b"GET / HTTP/1.1\r\nHost: \xff\r\n\r\n".to_vec(),
        REFUSED,
    ));
    cases.push(case("UTF-8", "GET / HTTP/1.1\r\nHost: \u{fc}.example\r\n\r\n", REFUSED));
    cases.push(case(
        "absolute with two",
        "GET http://a/ HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        REFUSED,
    ));
    cases.push(case("absolute with none", "GET http://a/ HTTP/1.1\r\n\r\n", REFUSED));
    cases.push(case(
        "absolute with an illegal one",
        "GET http://a/ HTTP/1.1\r\nHost: a b\r\n\r\n",
        REFUSED,
    ));
    Rig::new("").await.run(cases).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn host_reaches_the_backend_unchanged() {
    let rig = Rig::new("").await;
    let hosts = [
        "shop.example",
        "SHOP.Example:8080",
        "127.0.0.1:1",
        "[2001:db8::1]:443",
        "[::1]",
        "xn--bcher-kva.example",
        "under_score.internal",
        "a.",
        "localhost:",
    ];
    for (at, host) in hosts.iter().enumerate() {
        let mut client = Socket::connect(rig.instance.address).await;
        client.send(format!("GET /{at} HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
        assert_eq!(client.message().await.status(), 200, "{host}");
        assert_eq!(rig.legacy.wait_for(&format!("/{at}")).await.header("host"), *host);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_authority_of_an_absolute_target_wins_over_host() {
    let rig = Rig::new("").await;
    let requests = [
        ("http://shop.example/0?x=1", "other.example", "/0?x=1", "shop.example"),
        ("http://shop.example:8080/1", "shop.example", "/1", "shop.example:8080"),
        ("HTTP://Shop.Example/2", "a", "/2", "Shop.Example"),
    ];
    for (target, host, path, expected) in requests {
        let mut client = Socket::connect(rig.instance.address).await;
        client
            .send(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n"))
            .await;
        assert_eq!(client.message().await.status(), 200, "{target}");
        let got = rig.legacy.wait_for(path).await;
        assert_eq!(got.all("host"), [expected.as_bytes()], "{target}");
        assert_eq!(got.header("x-forwarded-host"), expected, "{target}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_absolute_target_without_a_path_asks_for_the_root() {
    let rig = Rig::new("").await;
    let mut client = Socket::connect(rig.instance.address).await;
    client
        .send("GET http://shop.example?q HTTP/1.1\r\nHost: a\r\n\r\n")
        .await;
    assert_eq!(client.message().await.status(), 200);
    assert_eq!(rig.legacy.wait_for("/?q").await.header("host"), "shop.example");
}
