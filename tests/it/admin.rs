//! The operators' door: who is let in and to what, and how everybody else is sent away.

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::support::{Answered, Backend, Client, Door, Plan, Reply, Sidecar, Socket, get, raw, request, send, sha256};

const LIVE: &str =
    "flag: NEW_SHOP\nbudgets: [ { name: errors, metric: error_rate, tolerate: { ratio: 1.1 }, action: kill } ]\n";
const ON: &str = "features:\n  NEW_SHOP: { type: boolean, enabled: true }\n";
const REASON: &str = r#"{"reason":"a test"}"#;
const JSON: (&str, &str) = ("content-type", "application/json");
const UNFIT: &str = "415 unsupported_media_type";
const STATUS: &str = "/api/v1/status";
const KILL: &str = "/api/v1/routes/shop/kill";
const REARM: &str = "/api/v1/routes/shop/rearm";
const KILLS: [&str; 4] = [
    "/api/v1/kill",
    KILL,
    "/api/v1/feature-flags/NEW_SHOP/kill",
    "/api/v1/targets/NEW_SHOP/kill",
];

/// By name, role and token.
const PEOPLE: [[&str; 3]; 5] = [
    ["vic", "viewer", "secret-of-vic"],
    ["olga", "operator", "secret-of-olga"],
    ["ann", "admin", ANN],
    ["eve", "emergency", EVE],
    ["cli", "client", "secret-of-cli"],
];
const ANN: &str = "secret-of-ann";
const EVE: &str = "secret-of-eve";
const BEARER: (&str, &str) = ("authorization", "Bearer secret-of-ann");

/// An instance that everybody above may enter; its new path fails for `poison`.
async fn start(adjust: impl FnOnce(Plan) -> Plan) -> (Sidecar, [Backend; 2]) {
    let legacy = Backend::saying("legacy").await;
    let is_poison = |name: &str| name == "poison";
    let new = Backend::answering(move |r| Reply::status(if is_poison(r.header("x-shopper-id")) { 500 } else { 200 }));
    let new = new.await;
    let plan = Plan::new(&legacy, &new).route(LIVE).features(ON).tokens(&PEOPLE);
    (adjust(plan).start(), [legacy, new])
}

/// Sends a request with these headers beside the listener's own host.
async fn call(door: &Door, method: Method, path: &str, headers: &[(&str, &str)], body: impl Into<Vec<u8>>) -> Answered {
    let host = door.admin.to_string();
    let headers = [&[("host", &*host)], headers].concat();
    send(door.admin, method, path, &headers, body.into()).await
}

/// The same with a token; an empty one is not sent. What has a body, or none, changes something or reads.
async fn ask(door: &Door, token: &str, path: &str, body: &str) -> Answered {
    let bearer = format!("Bearer {token}");
    let headers = [("authorization", &*bearer), JSON];
    let headers = if token.is_empty() { &headers[1..] } else { &headers };
    let method = if body.is_empty() { Method::GET } else { Method::POST };
    call(door, method, path, headers, body).await
}

/// Checks that an answer is a problem document of this status and kind, and that it gives nothing away.
#[track_caller]
fn problem(answer: &Answered, expected: &str) -> Value {
    let document = answer.json();
    let urn = document["type"].as_str().unwrap();
    let word = urn.strip_prefix("urn:understudy:problem:").unwrap();
    assert_eq!(format!("{} {word}", answer.status), expected, "{document}");
    assert_eq!(document["status"], answer.status);
    for member in ["title", "detail", "remedy"] {
        assert_ne!(document[member].as_str().unwrap(), "", "{member}: {document}");
    }
    assert!(!answer.text().contains("secret-of"), "{document}");
    let (unknown, hasty) = (answer.status == 401, answer.status == 429);
    for (name, value) in [
        ("content-type", "application/problem+json"),
        ("cache-control", "no-store"),
        ("x-content-type-options", "nosniff"),
        (
            "www-authenticate",
            if unknown { "Bearer realm=\"understudy\"" } else { "" },
        ),
        ("access-control-allow-origin", ""),
    ] {
        assert_eq!(answer.header(name), value, "{name}");
    }
    assert_eq!(answer.headers.contains_key("retry-after"), hasty);
    document
}

/// The beginning of a kill, without the end of its headers.
fn head() -> String {
    let headers = [BEARER, JSON].map(|(name, value)| format!("{name}: {value}\r\n"));
    format!("POST {KILL} HTTP/1.1\r\nhost: localhost\r\n{}", headers.concat())
}

/// What is killed now.
async fn kills(door: &Door, token: &str) -> usize {
    let status = ask(door, token, STATUS, "").await.json();
    status["kills"].as_array().unwrap().len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_role_may_do_exactly_its_part() {
    // In the order: the status, what happened, the metrics page, kill, re-arm.
    for ([name, _, token], may) in PEOPLE.into_iter().zip([
        [true, true, true, false, false],
        [true; 5],
        [true; 5],
        [true, false, false, true, false],
        [false; 5],
    ]) {
        let (sidecar, _backends) = start(|plan| plan.admin_more("metrics_token: true")).await;
        let answers = async |path: &str, body: &str, may: bool| {
            let answer = ask(&sidecar, token, path, body).await;
            if may {
                assert_eq!(answer.status, 200, "{name} {path}: {}", answer.text());
            } else {
                problem(&answer, "403 forbidden");
            }
        };
        for (path, may) in [STATUS, "/api/v1/divergences", "/metrics"].into_iter().zip(may) {
            answers(path, "", may).await;
        }
        for kill in KILLS {
            answers(kill, REASON, may[3]).await;
            answers(&kill.replace("kill", "rearm"), REASON, may[4]).await;
        }
        let left = if may[3] && !may[4] { 3 } else { 0 };
        assert_eq!(kills(&sidecar, ANN).await, left, "{name}");
        for path in ["/healthz", "/readyz"] {
            assert_eq!(ask(&sidecar, token, path, "").await.status, 200, "{name} {path}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_and_readiness_are_open_and_metrics_unless_they_are_closed() {
    for (more, metrics) in [("metrics_token: true", 401), ("metrics_token: false", 200)] {
        let (sidecar, _backends) = start(|plan| plan.admin_more(more)).await;
        for token in ["", "secret-of-nobody"] {
            let open = ["/healthz", "/readyz"].map(|path| (path, 200));
            for (path, status) in open.into_iter().chain([("/metrics", metrics), (STATUS, 401)]) {
                assert_eq!(ask(&sidecar, token, path, "").await.status, status, "{path} {token}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_any_token_on_loopback_everybody_reads_and_nobody_changes_anything() {
    let (sidecar, _backends) = start(|plan| plan.tokens(&[])).await;
    for token in ["", ANN] {
        for path in [STATUS, "/api/v1/divergences", "/metrics", "/readyz"] {
            assert_eq!(ask(&sidecar, token, path, "").await.status, 200, "{path}");
        }
        for kill in KILLS {
            for path in [kill, &kill.replace("kill", "rearm")] {
                let told = problem(&ask(&sidecar, token, path, REASON).await, "401 unauthorized");
                let remedy = told["remedy"].as_str().unwrap();
                assert!(remedy.contains("`understudy token new --role operator`"), "{remedy}");
            }
        }
    }
    assert_eq!(kills(&sidecar, "").await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_not_one_known_bearer_token_is_401() {
    let (sidecar, _backends) = start(|plan| plan).await;
    let (right, hash) = (format!("Bearer {ANN}"), format!("Bearer {}", sha256(ANN)));
    let (shorter, longer) = (&right[..right.len() - 1], format!("{right}x"));
    let basic = format!("Basic {ANN}");
    let wrong = [
        "Bearer secret-of-nobody",
        shorter,
        &longer,
        &hash,
        &basic,
        ANN,
        "Bearer",
        "Bearer ",
    ];
    let wrong = wrong.map(|value| vec![value]);
    for shown in wrong.into_iter().chain([vec![], vec![&*right, &*right]]) {
        let headers: Vec<_> = shown.iter().map(|value| ("authorization", *value)).collect();
        problem(
            &call(&sidecar, Method::GET, STATUS, &headers, "").await,
            "401 unauthorized",
        );
    }
    for path in [format!("{STATUS}?token={ANN}"), format!("{STATUS}?access_token={ANN}")] {
        problem(&ask(&sidecar, "", &path, "").await, "401 unauthorized");
    }
    let lower = [("authorization", "bearer   secret-of-ann")];
    assert_eq!(call(&sidecar, Method::GET, STATUS, &lower, "").await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_guesses_is_told_to_wait_and_a_right_token_enters_all_the_same() {
    let (sidecar, _backends) = start(|plan| plan).await;
    let mut guesses = 0;
    let refused = loop {
        let answer = ask(&sidecar, "guess", KILL, REASON).await;
        if answer.status == 429 || guesses == 200 {
            break answer;
        }
        problem(&answer, "401 unauthorized");
        guesses += 1;
    };
    assert!(guesses >= 20, "{guesses}");
    problem(&refused, "429 too_many_failures");
    let wait: u64 = refused.header("retry-after").parse().unwrap();
    assert!((1..=3).contains(&wait), "{wait}");
    assert_eq!(ask(&sidecar, EVE, KILL, REASON).await.status, 200);
    assert_eq!(ask(&sidecar, "", "/readyz", "").await.status, 200);
    // Beside them there is the kill.
    assert_eq!(
        audit(&sidecar).len(),
        guesses + 1,
        "a flood of guesses does not fill the disk"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_read_is_refused_and_changes_nothing() {
    let (sidecar, _backends) = start(|plan| plan).await;
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let long = format!(r#"{{"reason":"{}"}}"#, "x".repeat(1 << 20));
    for (body, expected) in [
        ("{}", "400 bad_request"),
        (r#"{"reason":""}"#, "400 bad_request"),
        (r#"{"reason":" \n "}"#, "400 bad_request"),
        (r#"{"reason":null}"#, "400 bad_request"),
        (r#"{"reason":7}"#, "400 bad_request"),
        (r#"{"reason":"x","reason":"y"}"#, "400 bad_request"),
        (r#"{"reason":"x","subjct":"anna"}"#, "400 bad_request"),
        (r#"["x"]"#, "400 bad_request"),
        (r#"{"reason":"x"} {}"#, "400 bad_request"),
        (r#"{"reason":"#, "400 bad_request"),
        (&nested(64), "400 bad_request"),
        (&nested(65), "400 body_too_deep"),
        (&nested(500_000), "400 body_too_deep"),
        (&long, "413 body_too_large"),
    ] {
        for path in KILLS.into_iter().chain([REARM]) {
            problem(&ask(&sidecar, ANN, path, body).await, expected);
        }
    }
    let zipped = [JSON, ("content-encoding", "gzip")];
    for (headers, body, expected) in [
        (&[][..], "", "400 bad_request"),
        (&[JSON], "{\"reason\":\"\0\"}", "400 bad_request"),
        (&[], REASON, UNFIT),
        (&[("content-type", "text/plain")], REASON, UNFIT),
        (&[("content-type", "application/x-www-form-urlencoded")], REASON, UNFIT),
        (&[("content-type", "application/jsonx")], REASON, UNFIT),
        (&zipped, REASON, UNFIT),
    ] {
        let headers = [&[BEARER], headers].concat();
        problem(&call(&sidecar, Method::POST, KILL, &headers, body).await, expected);
    }
    problem(
        &ask(&sidecar, ANN, "/api/v1/routes/%ff/kill", REASON).await,
        "400 bad_request",
    );
    for query in "limit=0 limit=x limit=1&limit=2 route=shop&rute=shop before=-1".split(' ') {
        let path = format!("/api/v1/divergences?{query}");
        problem(&ask(&sidecar, ANN, &path, "").await, "400 bad_request");
    }
    for thing in [
        "routes/nothing/kill",
        "feature-flags/shop/kill",
        "targets/nothing/rearm",
    ] {
        let path = format!("/api/v1/{thing}");
        problem(&ask(&sidecar, ANN, &path, REASON).await, "404 unknown_name");
    }
    assert_eq!(kills(&sidecar, ANN).await, 0);
    // Whoever has no token is not read at all.
    problem(&ask(&sidecar, "", KILL, &nested(65)).await, "401 unauthorized");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn emergency_needs_no_words_and_too_many_are_cut() {
    let (sidecar, _backends) = start(|plan| plan).await;
    let eve = [("authorization", "Bearer secret-of-eve")];
    let answer = call(&sidecar, Method::POST, KILL, &eve, "").await;
    assert_eq!((answer.status, &answer.json()["stored"]), (200, &json!(true)));
    let status = ask(&sidecar, EVE, STATUS, "").await.json();
    assert_eq!(status["kills"][0]["reason"], "Emergency action");
    let longest = format!(r#"{{"reason":"{}"}}"#, "x".repeat((1 << 20) - 13));
    let answer = ask(&sidecar, ANN, REARM, &longest).await;
    assert_eq!((answer.status, longest.len()), (200, 1 << 20), "{}", answer.text());
    assert_eq!(
        answer.json()["warnings"],
        json!(["the reason was cut after 1000 characters"])
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_of_unknown_length_and_endless_headers_are_bounded() {
    let (sidecar, _backends) = start(|plan| plan).await;
    let head = head();
    let mut declared = Socket::connect(sidecar.admin).await;
    declared.send(format!("{head}content-length: 1048577\r\n\r\n")).await;
    assert_eq!(declared.head().await.status(), 413);
    let mut chunked = Socket::connect(sidecar.admin).await;
    let announced = format!("{head}transfer-encoding: chunked\r\n\r\n100001\r\n");
    chunked.send(announced).await;
    chunked.try_send(vec![b' '; 0x10_0001]).await;
    assert_eq!(chunked.head().await.status(), 413);
    let endless = format!("GET / HTTP/1.1\r\nhost: localhost\r\nx: {}", "x".repeat(64 * 1024));
    let answer = raw(sidecar.admin, endless.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    assert_eq!(kills(&sidecar, ANN).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unknown_paths_are_404_and_other_methods_405_with_those_that_are_allowed() {
    let (sidecar, _backends) = start(|plan| plan).await;
    for path in "/ /api/v1 /api/v2/status /healthz/ /api/v1/routes/shop /api/v1/routes/a/b/kill".split(' ') {
        problem(&ask(&sidecar, ANN, path, "").await, "404 not_found");
    }
    let reads = ["/healthz", "/readyz", "/metrics", STATUS, "/api/v1/divergences"];
    let reads = reads.map(|path| (path, [Method::POST, Method::OPTIONS], "GET,HEAD"));
    let changes = KILLS.map(|path| (path, [Method::GET, Method::OPTIONS], "POST"));
    for (path, methods, allowed) in reads.into_iter().chain(changes) {
        for method in methods {
            let answer = call(&sidecar, method.clone(), path, &[BEARER], "").await;
            problem(&answer, "405 method_not_allowed");
            assert_eq!(answer.header("allow"), allowed, "{method} {path}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn browser_that_was_lured_here_by_a_foreign_name_gets_nothing() {
    let (sidecar, _backends) = start(|plan| plan.tokens(&[])).await;
    let port = sidecar.admin.port();
    for host in "evil.example localhost.evil.example 127.0.0.1.evil.example 192.0.2.1 [2001:db8::1]".split(' ') {
        for path in ["/healthz", "/readyz", "/metrics", STATUS, "/nothing"] {
            let answer = get(sidecar.admin, path, &[("host", &format!("{host}:{port}"))]).await;
            problem(&answer, "421 foreign_host");
        }
    }
    for host in ["localhost", &format!("LOCALHOST:{port}"), "127.0.0.1", "[::1]:9090"] {
        let answer = get(sidecar.admin, STATUS, &[("host", host)]).await;
        assert_eq!(answer.status, 200, "{host}");
    }
    let lines = |lines: &str| format!("GET {lines}\r\nconnection: close\r\n\r\n");
    for (bad, status) in [
        (lines("http://evil.example/readyz HTTP/1.1\r\nhost: localhost"), 421),
        (lines("/readyz HTTP/1.1"), 400),
        (lines("/readyz HTTP/1.1\r\nhost: localhost\r\nhost: localhost"), 400),
        (lines("/readyz HTTP/1.1\r\nhost:"), 400),
    ] {
        let answer = raw(sidecar.admin, bad.as_bytes()).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{bad}{answer}");
    }
}

/// The audit trail: actor, role, action, target and reason of each record, in order.
fn audit(sidecar: &Sidecar) -> Vec<[String; 5]> {
    let file = rusqlite::Connection::open(sidecar.folder.path().join("understudy.db")).unwrap();
    let query = "SELECT actor, coalesce(role, ''), action, target, reason FROM audit
        WHERE action IN ('refused', 'kill', 'rearm') ORDER BY seq";
    let mut read = file.prepare(query).unwrap();
    let text = |row: &rusqlite::Row<'_>| std::array::from_fn(|column| row.get(column).unwrap());
    let rows = read.query_map([], |row| Ok(text(row))).unwrap();
    rows.map(Result::unwrap).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attempts_are_audited_with_who_and_what_and_never_with_what_was_sent() {
    let (sidecar, _backends) = start(|plan| plan).await;
    let number = "33639980123";
    let post = |path: &str| format!("POST {path}");
    ask(&sidecar, "", &format!("{STATUS}?subject={number}"), "").await;
    ask(&sidecar, "secret-of-nobody", KILL, REASON).await;
    ask(&sidecar, EVE, REARM, REASON).await;
    let (unknown, known) = (
        format!(r#"{{"{number}":"x"}}"#),
        format!(r#"{{"reason":"x","subject":"{number}"}}"#),
    );
    problem(&ask(&sidecar, ANN, REARM, &unknown).await, "400 bad_request");
    let answer = ask(&sidecar, ANN, REARM, &known).await;
    assert!(!problem(&answer, "409 not_killed").to_string().contains(number));
    ask(&sidecar, ANN, KILL, r#"{"reason":"errors"}"#).await;
    ask(&sidecar, "", "/nothing", "").await;
    // Where no token belongs, and what has no length of its own.
    let token = format!("us_{}", "5eC2e7".repeat(11));
    ask(&sidecar, "", &format!("/api/v1/{token}?{token}"), "").await;
    ask(&sidecar, ANN, &format!("/api/v1/routes/{token}/kill"), REASON).await;
    let long = Method::from_bytes("M".repeat(3_000).as_bytes()).unwrap();
    call(&sidecar, long, "/nothing", &[], "").await;
    // This is not worth a line, or anybody could write as many as the disk takes.
    get(sidecar.admin, STATUS, &[("host", "evil.example")]).await;
    let trail = audit(&sidecar);
    let expected = [
        ["anonymous", "", "refused", &format!("GET {STATUS}"), "unauthorized: "],
        ["anonymous", "", "refused", &post(KILL), "unauthorized: "],
        ["eve", "emergency", "refused", &post(REARM), "forbidden: "],
        ["ann", "admin", "refused", &post(REARM), "bad_request: "],
        ["ann", "admin", "refused", &post(REARM), "not_killed: "],
        ["ann", "admin", "kill", "route:shop", "errors"],
        ["anonymous", "", "refused", "GET /nothing", "unauthorized: "],
        ["anonymous", "", "refused", "GET /api/v1/us_\u{2026}", "unauthorized: "],
        [
            "ann",
            "admin",
            "refused",
            &post("/api/v1/routes/us_\u{2026}/kill"),
            "unknown_name: ",
        ],
        ["anonymous", "", "refused", &"M".repeat(300), "unauthorized: "],
    ];
    assert_eq!(trail.len(), expected.len(), "{trail:#?}");
    for (found, expected) in trail.iter().zip(expected) {
        assert_eq!(found[..4], expected[..4], "{trail:#?}");
        assert!(found[4].starts_with(expected[4]), "{found:?}");
        let text = found.concat();
        let secret = [number, "secret-of", "5eC2e7"]
            .into_iter()
            .find(|secret| text.contains(secret));
        assert_eq!(secret, None, "{text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn held_subject_is_lifted_by_its_key_and_by_its_hash() {
    let pairs = format!("{LIVE}shadow: {{ flag: true, methods: [POST] }}");
    let (sidecar, _backends) = start(|plan| plan.legacy_more("copies: isolated").route(&pairs)).await;
    let mut client = Client::connect(sidecar.address).await;
    let mut shop = async |who: &str| {
        let order = request(Method::POST, "/", &[("x-shopper-id", who)], "{}");
        client.send(order).await.status
    };
    for other in ["a", "b", "c", "d", "e", "f"] {
        assert_eq!(shop(other).await, 200);
    }
    let held = async || ask(&sidecar, ANN, STATUS, "").await.json()["routes"][0]["held"].clone();
    let rearm = async |path: &str, subject: &str| {
        let body = json!({ "reason": "repaired", "subject": subject });
        ask(&sidecar, ANN, path, &body.to_string()).await
    };
    for by_hash in [false, true] {
        let before = Instant::now();
        while held().await["count"] != 1 {
            shop("poison").await;
            assert!(before.elapsed() < Duration::from_secs(20), "not held");
        }
        assert_eq!(shop("poison").await, 200, "held on legacy");
        let hash = held().await["subjects"][0].as_str().unwrap().to_owned();
        assert!(hash.starts_with("h:") && hash.len() == 18, "{hash}");
        problem(&rearm(REARM, "somebody").await, "409 not_killed");
        for path in ["/api/v1/rearm", "/api/v1/feature-flags/NEW_SHOP/rearm"] {
            problem(&rearm(path, "poison").await, "400 bad_request");
        }
        assert_eq!(held().await["count"], 1);
        let lifted = rearm(REARM, if by_hash { &hash } else { "poison" }).await;
        let target = json!({ "kind": "subject", "name": "shop", "subject": hash });
        assert_eq!(
            (lifted.status, &lifted.json()["target"]),
            (200, &target),
            "{}",
            lifted.text()
        );
        assert!(!lifted.text().contains("poison"), "{}", lifted.text());
        assert_eq!((&held().await["count"], shop("poison").await), (&json!(0), 500));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_at_once_are_all_answered_and_so_is_a_kill_among_them() {
    let (sidecar, _backends) = start(|plan| plan).await;
    let host = sidecar.admin.to_string();
    let mut clients = Vec::new();
    for _ in 0..200 {
        clients.push(Client::connect(sidecar.admin).await);
    }
    let asking: Vec<_> = clients
        .into_iter()
        .map(|mut client| {
            let asks = request(Method::GET, STATUS, &[("host", &host), BEARER], "");
            tokio::spawn(async move { (client.send(asks).await.status, client) })
        })
        .collect();
    let before = Instant::now();
    assert_eq!(ask(&sidecar, EVE, KILL, REASON).await.status, 200);
    assert!(before.elapsed() < Duration::from_secs(5), "{:?}", before.elapsed());
    for asked in asking {
        assert_eq!(asked.await.unwrap().0, 200);
    }
    assert_eq!(kills(&sidecar, ANN).await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_clients_do_not_hold_up_a_kill_and_are_closed() {
    let (sidecar, _backends) = start(|plan| plan).await;
    let head = head();
    let pages = "GET /metrics HTTP/1.1\r\nhost: localhost\r\n\r\n".repeat(500);
    let (mut heads, mut bodies, mut readers) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..40 {
        let mut slow = Socket::connect(sidecar.admin).await;
        slow.send(&head).await;
        heads.push(slow);
        let mut slow = Socket::connect(sidecar.admin).await;
        slow.send(format!("{head}content-length: 100\r\n\r\n{{")).await;
        bodies.push(slow);
        let mut slow = Socket::connect_with_small_window(sidecar.admin).await;
        slow.send(&pages).await;
        readers.push(slow);
    }
    let before = Instant::now();
    assert_eq!(ask(&sidecar, EVE, KILL, REASON).await.status, 200);
    assert!(before.elapsed() < Duration::from_secs(2), "{:?}", before.elapsed());
    for mut slow in heads {
        slow.rest().await;
    }
    for mut slow in bodies {
        let answer = slow.message().await;
        assert_eq!(answer.status(), 408);
        assert_eq!(answer.header("content-type"), "application/problem+json");
    }
    assert_eq!(audit(&sidecar).len(), 1, "only the kill");
    for mut slow in readers {
        while slow.try_send("x").await {
            assert!(before.elapsed() < Duration::from_secs(40), "still open");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}
