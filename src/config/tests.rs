//! What the configuration accepts, and every problem it is refused for, with its place and remedy.

use http::HeaderValue;
use proptest::prelude::*;

use super::*;
use crate::engine::guard::{Action, Metric, Tolerance};
use crate::engine::ruleset::route::Switch;

const LEAST: &str = "\
listeners: [{ address: 127.0.0.1:8080 }]
backends:
  legacy: { url: http://127.0.0.1:9001 }
  new: { url: http://127.0.0.1:9002 }
routes:
  - { name: all, match: {} }
";

/// Loads `text` as `u.yaml`; any other file has the content given for it.
fn load_text(text: &str, files: &[(&str, &str)]) -> Result<Loaded, Vec<Problem>> {
    load_by(Path::new("u.yaml"), &mut |path| {
        let found = files
            .iter()
            .find(|(name, _)| Path::new(name) == path)
            .map(|(_, text)| *text);
        let text = if path == Path::new("u.yaml") { Some(text) } else { found };
        text.map(|text| text.as_bytes().to_vec())
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    })
}

fn good(text: &str) -> Config {
    let Loaded { config, warnings } = load_text(text, &[]).unwrap_or_else(|list| panic!("{list:#?}"));
    assert_eq!(lines(&warnings), Vec::<String>::new());
    config
}

fn lines(list: &[Problem]) -> Vec<String> {
    list.iter().map(ToString::to_string).collect()
}

#[track_caller]
fn refused(text: &str, problems: &[&str]) {
    match load_text(text, &[]) {
        Err(list) => assert_eq!(lines(&list), problems),
        Ok(_) => panic!("accepted"),
    }
}

#[track_caller]
fn warned(text: &str, warnings: &[&str]) {
    let Loaded { warnings: list, .. } = load_text(text, &[]).unwrap_or_else(|list| panic!("{list:#?}"));
    assert_eq!(lines(&list), warnings);
}

/// [`LEAST`] with its only route replaced.
fn with_route(route: &str) -> String {
    LEAST.replace("- { name: all, match: {} }\n", route)
}

#[test]
fn least_configuration_gets_every_default() {
    let config = good(LEAST);
    assert_eq!(config.environment, "production");
    assert_eq!(config.workers, Workers::Auto);
    let address = Address::Tcp("127.0.0.1:8080".parse().unwrap());
    let listener = Listener {
        name: "127.0.0.1:8080".to_owned(),
        address,
        mode: 0o660,
        tls: None,
        proxy_protocol: ProxyProtocol::Off,
    };
    assert_eq!(config.listeners, [listener]);
    assert_eq!(config.admin.address, "127.0.0.1:9090".parse().unwrap());
    assert!(config.admin.tokens.is_empty());
    assert_eq!(config.flags_file, None);
    assert_eq!(config.state_path, Path::new("understudy.db"));
    assert_eq!(
        config.capture,
        Capture {
            body_bytes: 4 << 20,
            budget_bytes: 256 << 20
        }
    );
    assert_eq!(
        config.limits,
        Limits {
            header_bytes: 64 << 10,
            header_count: 100,
            target_bytes: 16 << 10,
            body_bytes: None,
            header_timeout: Duration::from_secs(10),
            body_idle: Duration::from_secs(30),
            body_rate: Some(1_024),
            write_timeout: Duration::from_secs(30),
            idle: Duration::from_secs(75),
            handshake: Duration::from_secs(10),
            tunnel_idle: Duration::from_secs(3_600),
            tunnels: 4_096,
            connections: 20_000,
            connections_per_client: None,
            requests_per_client: None,
            in_flight: 4_096,
            half_close: false,
            streams: 100,
            drain: Duration::from_secs(30),
        }
    );
    assert_eq!(
        config.logs,
        Logs {
            subject: SubjectLog::Hashed,
            decisions: Threshold::from_buckets(10_000),
            access: AccessLog::Off,
            access_client: false,
            access_path: false,
        }
    );
    let legacy = config.backends.of(Side::Legacy);
    assert_eq!(legacy.urls[0].authority(), "127.0.0.1:9001");
    assert_eq!(legacy.timeout, Duration::from_secs(10));
    assert_eq!(legacy.connect_timeout, Duration::from_secs(1));
    assert_eq!(legacy.idle, Duration::from_millis(1_500));
    assert_eq!(config.backends.copies(), [Copies::SafeMethods; 2]);
    let route = &config.routes[0];
    assert_eq!(route.matcher.path, "/");
    assert_eq!(route.flag, Switch::Constant(false));
    assert_eq!(route.shadow.switch, Switch::Constant(false));
    assert_eq!(route.shadow.max_in_flight, 64);
    assert_eq!(route.failover, crate::engine::ruleset::route::Failover::default());
    assert!(route.identity.is_empty() && route.budgets.is_empty());
}

#[test]
fn shipped_example_loads_and_its_warnings_are_the_ones_it_explains() {
    let Loaded { config, warnings } = load(Path::new(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/config/understudy.yaml"
    )))
    .unwrap();
    let whatsapp = &config.routes[0];
    assert_eq!(whatsapp.key.as_str(), "whatsapp");
    assert!(whatsapp.identity.needs_body() && whatsapp.tenant.needs_body());
    assert!(matches!(&whatsapp.flag, Switch::Flag(key, _) if key.as_str() == "WHATSAPP_GATEWAY_ENABLED"));
    assert!(
        matches!(&whatsapp.shadow_mode, Some(Switch::Flag(key, _)) if key.as_str() == "WHATSAPP_CANONICAL_SHADOW_MODE")
    );
    let budgets: Vec<_> = whatsapp
        .budgets
        .iter()
        .map(|b| (&*b.name, b.metric, b.tolerate, b.action))
        .collect();
    assert_eq!(
        budgets,
        [
            ("errors", Metric::ErrorRate, Tolerance::Ratio(1.1), Action::Kill),
            (
                "slow",
                Metric::LatencyP50,
                Tolerance::Added(Duration::from_millis(100)),
                Action::Kill
            ),
        ]
    );
    let whats: Vec<_> = warnings.iter().map(|warning| warning.what.as_str()).collect();
    assert_eq!(
        whats,
        [
            "once new serves POST, the budget `errors` does not see it: neither copied to legacy nor failed over once new was reached",
            "once new serves GET, POST, the budget `slow` does not see it: not copied to legacy",
        ]
    );
}

#[test]
fn everything_that_is_missing_is_said_at_once() {
    refused(
        "environment: staging\n",
        &[
            "u.yaml:1:1: `backends` is missing. add it: the two services",
            "u.yaml:1:1: `listeners` is missing. add it: where clients connect",
            "u.yaml:1:1: `routes` is missing. add it: which requests are decided how",
        ],
    );
    refused(
        "",
        &[
            "u.yaml:1:1: `backends` is missing. add it: the two services",
            "u.yaml:1:1: `listeners` is missing. add it: where clients connect",
            "u.yaml:1:1: `routes` is missing. add it: which requests are decided how",
        ],
    );
}

#[test]
fn wrong_values_are_refused_each_at_its_line_and_column() {
    refused(
        "\
environment: ''
workers: 65
listeners:
  - { address: localhost:8080 }
  - { adress: 127.0.0.1:8081 }
admin: { address: 127.0.0.1 }
capture: { body: lots }
limits: { header_bytes: 1KiB, connections: 0, idle: 0s, target_bytes: 16 KiB, drain: 30 }
logs: { subject: plain, decisions: 101% }
backends:
  legacy: { url: 127.0.0.1:9001, timeout: -1s, copies: dryrun }
  new: { url: ftp://new.example }
routes: []
",
        &[
            "u.yaml:1:14: expected a name, found the text ``. write 1 to 200 printable characters",
            "u.yaml:2:10: expected `auto` or a number from 1 to 64, found `65`. write `auto` for one worker on each core",
            "u.yaml:4:16: expected an address to listen on, found `localhost:8080`. write IP:PORT, such as 127.0.0.1:8080, 0.0.0.0:8080 or [::]:8080, or unix:/PATH for a socket file",
            "u.yaml:5:5: `address` is missing. add it: IP and port, or `unix:` and the path of a socket file; port 0 takes a free one",
            "u.yaml:5:7: unknown key `adress`. did you mean `address`?",
            "u.yaml:6:19: expected an address to listen on, found `127.0.0.1`. write IP:PORT, such as 127.0.0.1:8080, 0.0.0.0:8080 or [::]:8080",
            "u.yaml:7:18: expected a size in bytes, found `lots`. write a whole number with its unit, such as 64KiB, 4MiB or 3MB",
            "u.yaml:8:25: expected a size from 8KiB to 16MiB, found `1KiB`. write a whole number with its unit, such as 64KiB",
            "u.yaml:8:44: expected a whole number of at least 1, found `0`. write it in decimal digits",
            "u.yaml:8:53: expected a duration above zero, found `0s`. write a number with its unit, such as 1500ms, 10s, 5m or 2h",
            "u.yaml:8:86: expected a duration above zero, found `30`. write a number with its unit, such as 1500ms, 10s, 5m or 2h",
            "u.yaml:9:18: expected one of hashed, clear, found `plain`. choose one of them",
            "u.yaml:9:36: expected a percentage from 0 to 100, found `101%`. write 25, 0.5 or 1%",
            "u.yaml:11:18: expected a URL, found `127.0.0.1:9001`. write http://HOST:PORT, such as http://127.0.0.1:9001, https://HOST:PORT, or unix:/PATH for a socket file",
            "u.yaml:11:43: expected a duration above zero, found `-1s`. write a number with its unit, such as 1500ms, 10s, 5m or 2h",
            "u.yaml:11:56: expected one of safe_methods, dry_run, isolated, found `dryrun`. did you mean `dry_run`?",
            "u.yaml:12:15: expected a URL, found `ftp://new.example`. write http://HOST:PORT, such as http://127.0.0.1:9001, https://HOST:PORT, or unix:/PATH for a socket file",
        ],
    );
}

#[test]
fn keys_of_later_versions_are_named_as_such() {
    let text = "\
fleet: { redis: redis://127.0.0.1:6379/0 }
listeners: [{ address: 127.0.0.1:8080 }]
limits: {}
backends:
  legacy: { url: http://127.0.0.1:9001, retired: true }
  new: { url: http://127.0.0.1:9002, copies: dry_run }
  twin: { url: http://127.0.0.1:9003 }
routes:
  - name: a
    match: { path: /a }
    mixed: split
    idempotency: { key: { header: x } }
    compare: { arrays: { /items: { key: id } } }
    block: 10s
    budgets:
      - { name: a, metric: divergence, action: kill }
      - { name: b, metric: error_rate, action: freeze }
      - { name: c, metric: conversion, severity: critical, action: alert }
";
    let list = load_text(text, &[]).unwrap_err();
    for problem in &list {
        assert!(problem.what.ends_with("is not in this version"), "{problem}");
    }
    let places: Vec<_> = list.iter().map(|p| (p.place.line, p.place.column)).collect();
    assert_eq!(
        places,
        [
            (1, 1),
            (5, 41),
            (7, 3),
            (11, 12),
            (12, 5),
            (13, 16),
            (14, 5),
            (16, 28),
            (17, 48),
            (18, 28),
            (18, 40),
        ]
    );
    assert_eq!(
        list[0].to_string(),
        "u.yaml:1:1: `fleet` is not in this version. remove it"
    );
}

#[test]
fn route_members_are_checked_one_by_one() {
    refused(
        &with_route(
            "\
  - name: a b
    match: { path: webhook, methods: [get, CONNECT, PSOT], headers: { 'x y': 1 } }
  - name: b
    match: { path: /a/*, methods: POST }
    identity:
      - { json: entry }
      - { json: /a/*b, path: 0 }
      - { header: x, cookie: y }
      - { path: 0 }
    without_identity: tenant
    flag: yes please
    shadow: { percent: 0.00001, methods: [], timeout: 0s, max_in_flight: 0 }
    dual_run: [a]
    failover: { unknown: true, answered: always, statuses: [5xx, 700], deadline: 199ms }
    compare: { ignore: [a], headers: [':x'], severity: { /a: grave }, float_tolerance: 2 }
    ok: [99]
",
        ),
        &[
            "u.yaml:6:11: a key consists of letters, digits, `.`, `_` and `-`; the character at byte 1 is none of them. use 1 to 200 letters, digits, `.`, `_` and `-`",
            "u.yaml:7:20: expected a path that begins with `/`, found `webhook`. write the path of a URL, such as /webhook/whatsapp",
            "u.yaml:7:39: expected a method, found `get`. did you mean `GET`?",
            "u.yaml:7:44: CONNECT is never forwarded. remove it: it is answered with 405",
            "u.yaml:7:71: expected the name of a header, found `x y`. write it as in HTTP, such as x-shopper-id",
            "u.yaml:9:20: `*` is no wildcard here. a path is a prefix: end it before the `*`",
            "u.yaml:9:35: expected a list, found `POST`. write `[a, b]`, or one `- item` a line; `[]` is an empty list",
            "u.yaml:11:17: a pointer begins with `/`. write it as in RFC 6901, such as /customer/id, with `*` for every member of an array",
            "u.yaml:12:17: the segment at byte 3 contains `*`, which stands for a whole segment: every member of an array. write it as in RFC 6901, such as /customer/id, with `*` for every member of an array",
            "u.yaml:16:11: a key consists of letters, digits, `.`, `_` and `-`; the character at byte 3 is none of them. use 1 to 200 letters, digits, `.`, `_` and `-`",
            "u.yaml:17:24: 0.00001 has more than 4 decimals. round it to 4 decimals",
            "u.yaml:17:55: expected a duration above zero, found `0s`. write a number with its unit, such as 1500ms, 10s, 5m or 2h",
            "u.yaml:17:74: expected a whole number of at least 1, found `0`. write it in decimal digits",
            "u.yaml:18:15: expected a flag's key, true or false, found a list. write the key of a flag",
            "u.yaml:19:26: failover of every method is not in this version. write `safe_methods`: GET, HEAD and OPTIONS",
            "u.yaml:19:42: expected one of safe_methods, false, found `always`. choose one of them",
            "u.yaml:19:66: expected a status from 100 to 599, or a class such as 5xx, found `700`. write 503 or 5xx",
            "u.yaml:19:82: a deadline under 200ms leaves no time for a second try. write 200ms or more: both tries have to fit in",
            "u.yaml:20:25: a place begins with `/`, or is `@status`, `@body` or `@header.NAME`; `/**` is the whole JSON body. write a pointer such as /**/request_id, @status, @body or @header.NAME",
            "u.yaml:20:39: expected the name of a header, found the text `:x`. write it as in HTTP, such as x-shopper-id",
            "u.yaml:20:62: expected critical, major or minor, found `grave`. choose one of them",
            "u.yaml:20:88: expected a share from 0 to 1, found `2`. write 0.001 or 0.1%",
            "u.yaml:21:10: expected a status from 100 to 599, found `99`. write three digits, such as 404",
            "u.yaml:7:53: warning: `PSOT` is no common method. did you mean `POST`?",
        ],
    );
}

#[test]
fn identity_entries_have_exactly_one_source() {
    refused(
        &with_route(
            "\
  - name: a
    match: {}
    identity:
      - { header: x, cookie: y }
      - {}
      - { all: [{ header: x }], query: q }
      - all:
          - { all: [{ header: x }] }
  - { name: b, match: {}, identity: [{ header: x }, { path: 0 }] }
  - { name: c, match: {}, tenant: [{ all: [] }] }
",
        ),
        &[
            "u.yaml:9:9: several sources in one entry. write one source, such as `{ header: x-shopper-id }`",
            "u.yaml:10:9: an entry without a source. write one source, such as `{ header: x-shopper-id }`",
            "u.yaml:11:9: `all` stands beside other keys. write one source, such as `{ header: x-shopper-id }`",
            "u.yaml:13:13: `all` stands within `all`. write one source, such as `{ header: x-shopper-id }`",
            "u.yaml:14:53: path segments are counted from 1",
            "u.yaml:15:36: `all` needs at least one member",
        ],
    );
}

#[test]
fn every_wrong_line_of_a_table_is_told_with_what_else_is_wrong() {
    let text = with_route(
        "\
  - name: a
    match: {}
    identity:
      - { header: x, map: ids.csv, normalise: digits }
      - { jwt: { claim: '' } }
      - { jwt: {} }
      - { header: x, map: none.csv }
    tenant: [{ all: [{ header: x }], map: ids.csv }]
  - { name: b, match: {}, identity: [{ query: id, map: ids.csv }, { query: id, map: empty.csv }] }
",
    );
    let files = [("ids.csv", "1,a\n2;b\n+1,c\n3,d,e\n"), ("empty.csv", "\n")];
    // What is wrong with the configuration itself comes first: its tables are read once it can be.
    assert_eq!(
        lines(&load_text(&text, &files).unwrap_err()),
        [
            "u.yaml:10:25: an empty pointer is the whole body, which is no identity; name a member, such as `/customer/id`. write a name such as sub, or a pointer such as /shop/customer",
            "u.yaml:11:11: `claim` is missing. add it: the whole name of a claim, such as `sub` or `https://shop.example/id`; or, if it begins with `/`, a pointer to one, such as `/shop/customer`",
            "u.yaml:13:14: `all` stands beside other keys. write one source, such as `{ header: x-shopper-id }`",
        ]
    );
    let text = text
        .replace("claim: ''", "claim: sub")
        .replace("jwt: {}", "jwt: { claim: /a, header: x-token }")
        .replace("], map: ids.csv }]", "] }]");
    assert_eq!(
        lines(&load_text(&text, &files).unwrap_err()),
        [
            "ids.csv:2:1: this line has no comma. write `from,to`, such as `33639980123,shopper_001`",
            "ids.csv:3:1: this key stands in line 1 already. keep one of the two lines: one key leads to one shopper",
            "ids.csv:4:4: this line has a second comma. write `from,to` without quotation marks and nothing behind it",
            "u.yaml:12:27: `none.csv` cannot be read: there is no such file. name an existing, readable file",
            "u.yaml:14:85: the table `empty.csv` is empty. write lines `from,to`; a line `#` if nobody is known yet",
        ]
    );
    let text = with_route("  - { name: a, match: {}, identity: [{ header: x, map: ids.csv }] }\n");
    let config = load_text(&text, &[("ids.csv", "1,a\n")]).unwrap().config;
    assert!(!config.routes[0].identity.is_empty());
}

#[test]
fn ofrep_has_a_listener_of_its_own_with_its_own_tokens() {
    let with = |ofrep: &str, more: &str| format!("ofrep: {ofrep}\n{more}{LEAST}");
    let none = good(LEAST).ofrep;
    assert_eq!(
        (none.address, none.requests_per_client, none.streams),
        (None, None, 512)
    );
    let entry = |name: &str| format!("tokens: [{{ name: {name}, role: client, sha256: {DIGEST} }}]");
    let files = [("own.yaml", entry("web")), ("admin.yaml", entry("ops"))];
    let files = files.each_ref().map(|(name, text)| (*name, text.as_str()));
    let names = |text: &str| -> Vec<String> {
        let ofrep = load_text(text, &files).unwrap().config.ofrep;
        ofrep.tokens.iter().map(|token| token.name.to_string()).collect()
    };
    let admin = "admin: { tokens_file: admin.yaml }\n";
    assert_eq!(names(&with("{ address: 0.0.0.0:9191 }", admin)), ["ops"]);
    assert_eq!(
        names(&with("{ address: 0.0.0.0:9191, tokens_file: own.yaml }", admin)),
        ["web"]
    );
    assert_eq!(
        good(&with(
            "{ cors: [https://shop.example, 'http://localhost:3000', '*'] }",
            ""
        ))
        .ofrep
        .cors,
        ["https://shop.example", "http://localhost:3000", "*"]
    );
    let origin = "expected the origin of a page";
    let list = load_text(
        &with(
            "{ address: 0.0.0.0:9090, cors: [shop.example, https://Shop.example, https://shop.example/], streams: 0 }",
            "",
        ),
        &[],
    )
    .unwrap_err();
    let told = lines(&list);
    assert!(told[..3].iter().all(|line| line.contains(origin)), "{told:?}");
    assert!(told[3].contains("expected a whole number of at least 1"), "{told:?}");
    refused(
        &with("{ address: 0.0.0.0:9090 }", ""),
        &[
            "u.yaml:1:19: 0.0.0.0:9090 is the address of the admin listener. choose another port",
            "u.yaml:1:19: an OFREP listener beyond loopback without tokens. set `ofrep.tokens_file`, or listen on 127.0.0.1",
        ],
    );
    let missing = load_text(&with("{ tokens_file: none.yaml }", ""), &[]).unwrap_err();
    assert_eq!(missing[0].path, "ofrep.tokens_file");
}

#[test]
fn reply_is_an_answer_that_can_be_sent() {
    let with = |when_off: &str| with_route(&format!("  - {{ name: a, match: {{}}, when_off: {when_off} }}\n"));
    assert_eq!(good(&with("legacy")).routes[0].when_off, None);
    let config = good(&with("{ status: 404, body: '[]', headers: { X-Why: off } }"));
    let reply = config.routes[0].when_off.as_ref().unwrap();
    assert_eq!((reply.status.as_u16(), &*reply.body), (404, &b"[]"[..]));
    assert_eq!(reply.headers.len(), 2);
    assert_eq!(
        (&reply.headers["x-why"], &reply.headers["content-type"]),
        (
            &HeaderValue::from_static("off"),
            &HeaderValue::from_static("application/json")
        )
    );
    refused(
        &with("{ status: 204, body: x, headers: { Content-Length: 1, x-understudy-error: y } }"),
        &[
            "u.yaml:6:60: an answer of 204 has no body. remove it, or choose another status",
            "u.yaml:6:74: the header `content-length` is not the configuration's to set. remove it",
            "u.yaml:6:93: the header `x-understudy-error` is not the configuration's to set. remove it",
        ],
    );
    refused(
        &with("{ status: 101 }"),
        &["u.yaml:6:49: expected a status from 200 to 599, found `101`. write three digits, such as 404"],
    );
    refused(
        &with("new"),
        &[
            "u.yaml:6:39: expected `legacy` or an answer, found `new`. write `legacy`, or `{ status: 404, body: not here yet }`",
        ],
    );
    let long = "x".repeat(65_537);
    refused(
        &with(&format!("{{ status: 200, body: {long} }}")),
        &["u.yaml:6:60: this body has 65537 bytes, and may have 65536. shorten it, or have legacy answer"],
    );
}

#[test]
fn budgets_are_checked_by_the_rules_of_the_guard() {
    refused(
        &with_route(
            "\
  - name: a
    match: {}
    budgets:
      - { name: a, metric: eror_rate, action: kill }
      - { name: b, metric: error_rate, action: kil }
      - { name: c, metric: latency_p95, tolerate: { rate: 0.1 }, action: alert }
      - { name: d, metric: error_rate, tolerate: { ratio: 1, rate: 1 }, action: alert }
      - { name: e, metric: error_rate, tolerate: {}, action: alert }
      - { name: f, metric: error_rate, tolerate: { ratio: 0 }, action: alert }
      - { name: g, metric: error_rate }
",
        ),
        &[
            "u.yaml:9:28: expected one of error_rate, latency_p50, latency_p95, latency_p99, found `eror_rate`. did you mean `error_rate`?",
            "u.yaml:10:48: expected one of alert, kill, found `kil`. did you mean `kill`?",
            "u.yaml:11:51: `rate` says nothing about `latency_p95`; use `ratio` or `added`",
            "u.yaml:12:50: a budget tolerates one thing. write exactly one of ratio, added, rate, max: `{ ratio: 1.1 }`",
            "u.yaml:13:50: a budget tolerates one thing. write exactly one of ratio, added, rate, max: `{ ratio: 1.1 }`",
            "u.yaml:14:50: `ratio` is above 0 and at most 1000, not 0; 1.1 tolerates a tenth more than legacy",
            "u.yaml:15:9: `action` is missing. add it: what a trip does",
        ],
    );
}

#[test]
fn members_that_do_not_fit_each_other_are_refused() {
    refused(
        "\
listeners:
  - { address: 0.0.0.0:8080 }
  - { address: 127.0.0.1:8080 }
  - { address: 127.0.0.1:9090 }
admin: { address: 127.0.0.1:9090 }
capture: { body: 4MiB, budget: 1MiB }
limits: { target_bytes: 1MiB }
backends:
  legacy: { url: http://localhost:8080 }
  new: { url: http://127.0.0.1:9090/ }
routes:
  - { name: a, match: {}, without_identity: tenant }
  - { name: a, match: { path: /b } }
  - name: b
    match: { path: /c }
    budgets:
      - { name: x, metric: error_rate, action: alert }
      - { name: x, metric: latency_p50, action: alert }
",
        &[
            "u.yaml:3:16: 127.0.0.1:8080 is taken by the listener in line 2. choose another port or path",
            "u.yaml:5:19: 127.0.0.1:9090 is taken by the listener in line 4. choose another port: clients must not reach it",
            "u.yaml:6:18: one body may take more than `capture.budget` for all of them. lower it, or raise the budget",
            "u.yaml:7:25: `limits.target_bytes` must be above zero and at most `limits.header_bytes`. the target is part of the header section: adjust one of them",
            "u.yaml:9:18: this is the listener of line 2: requests would go in a ring. name the service itself",
            "u.yaml:10:15: this is the listener of line 4: requests would go in a ring. name the service itself",
            "u.yaml:12:45: `tenant` without a `tenant` list decides for nobody. add `tenant:` with a source, or choose legacy or follow",
            "u.yaml:13:13: `a` is the name of the route in line 12. a kill names one route: choose another name",
            "u.yaml:18:17: `x` is the name of the budget in line 17. choose another name",
        ],
    );
}

#[test]
fn socket_files_are_listeners_with_permissions() {
    let text = LEAST.replace(
        "[{ address: 127.0.0.1:8080 }]",
        "[{ address: unix:/run/a.sock }, { address: 'unix:b.sock', mode: 0600 }]",
    );
    let listeners = good(&text).listeners;
    let unix = |path: &str, mode| Listener {
        name: format!("unix:{path}"),
        address: Address::Unix(path.into()),
        mode,
        tls: None,
        proxy_protocol: ProxyProtocol::Off,
    };
    assert_eq!(listeners, [unix("/run/a.sock", 0o660), unix("b.sock", 0o600)]);
    let long = "x".repeat(108);
    refused(
        &LEAST.replace(
            "[{ address: 127.0.0.1:8080 }]",
            &format!(
                "\n  - {{ address: 127.0.0.1:8080, mode: 660 }}\n  - {{ address: 'unix:' }}\n  - {{ address: unix:{long} }}\n  \
                 - {{ address: unix:/a, mode: 9 }}"
            ),
        ),
        &[
            "u.yaml:3:16: expected an address to listen on, found the text `unix:`. write IP:PORT, such as 127.0.0.1:8080, 0.0.0.0:8080 or [::]:8080, or unix:/PATH for a socket file",
            "u.yaml:4:16: the path of a socket file has 108 bytes. the operating system takes at most 107: choose a shorter one",
            "u.yaml:5:31: expected permissions in octal digits, found `9`. write three digits, such as 660 for the owner and the group",
        ],
    );
    refused(
        &LEAST.replace("127.0.0.1:8080 }", "127.0.0.1:8080, mode: 660 }"),
        &[
            "u.yaml:1:46: permissions of a network address. remove them: they belong to a socket file, `address: unix:/PATH`",
        ],
    );
}

#[test]
fn empty_listeners_are_refused_and_empty_routes_only_warned_of() {
    let text = LEAST.replace("[{ address: 127.0.0.1:8080 }]", "[]");
    refused(
        &text,
        &["u.yaml:1:12: nobody can connect without a listener. add one, such as `- { address: 127.0.0.1:8080 }`"],
    );
    let text = with_route("[]\n");
    warned(
        &text,
        &[
            "u.yaml:6:3: warning: no route: every request goes to legacy. add one, such as `- { name: all, match: { path: / } }`",
        ],
    );
}

#[test]
fn route_that_can_never_reach_new_is_warned_of() {
    warned(
        &with_route("- { name: a, match: {}, flag: F }\n"),
        &[
            "u.yaml:6:33: warning: no request of this route names anybody, so legacy serves all of them whatever `flag` says. \
           add `identity:`, or set `without_identity: follow`",
        ],
    );
    good(&with_route(
        "  - { name: a, match: {}, flag: F, without_identity: follow }\n",
    ));
}

#[test]
fn shadow_is_true_false_a_flag_or_a_map() {
    for (shadow, switch) in [
        ("true", Switch::Constant(true)),
        ("false", Switch::Constant(false)),
        ("{ flag: true }", Switch::Constant(true)),
    ] {
        let config = good(&with_route(&format!(
            "  - {{ name: a, match: {{}}, shadow: {shadow} }}\n"
        )));
        assert_eq!(config.routes[0].shadow.switch, switch);
        assert_eq!(config.routes[0].shadow.timeout, Duration::from_secs(10));
    }
    let config = good(&with_route("- { name: a, match: {}, shadow: COPY }\n"));
    assert!(
        matches!(&config.routes[0].shadow.switch, Switch::Flag(key, place) if key.as_str() == "COPY" && place.column == 35)
    );
    warned(
        &with_route("- { name: a, match: {}, shadow: { percent: 5 } }\n"),
        &["u.yaml:6:27: warning: `shadow` without `flag` copies nobody. add `flag: true` or a flag's key to it"],
    );
}

#[test]
fn shadow_timeout_below_a_backends_is_warned_of() {
    warned(
        &with_route("- { name: a, match: {}, shadow: { flag: true, timeout: 5s } }\n")
            .replace("9002 }", "9002, timeout: 2s }"),
        &[
            "u.yaml:6:58: warning: copies are given up after 5s, but legacy may take 10s. raise it to `backends.legacy.timeout`: a slow answer counts as failed on both sides",
        ],
    );
}

#[test]
fn kill_budget_without_evidence_once_live_is_warned_of() {
    let route = |rest: &str| {
        with_route(&format!(
            "  - {{ name: a, flag: true, without_identity: follow, match: {{ methods: [POST] }}, {rest} }}\n"
        ))
    };
    let errors = "budgets: [{ name: e, metric: error_rate, action: kill }]";
    let warning = "u.yaml:6:102: warning: once new serves POST, the budget `e` does not see it: neither copied to legacy nor failed over once new was reached. let legacy take copies (`shadow`, `backends.legacy.copies`), or watch it yourself";
    warned(&route(errors), &[warning]);
    // A copy that legacy does not take is none.
    let copied = "shadow: { flag: true, methods: [POST] }";
    let list = load_text(&route(&format!("{errors}, {copied}")), &[]).unwrap().warnings;
    assert_eq!(lines(&list), [warning]);
    let takes = route(&format!("{errors}, {copied}"))
        .replace("9001 }", "9001, copies: isolated }")
        .replace("9002 }", "9002, copies: dry_run }");
    good(&takes);
    good(&route(&errors.replace("kill", "alert")));
    good(&route(errors).replace("POST", "GET"));
    let never = route(&format!("{errors}, failover: {{ never_reached: false }}"));
    assert!(
        load_text(&never, &[]).unwrap().warnings[0]
            .what
            .ends_with(": neither copied to legacy nor failed over")
    );
    // Failover says nothing about latency.
    let slow = route("budgets: [{ name: s, metric: latency_p50, action: kill }]").replace("POST", "GET");
    assert_eq!(load_text(&slow, &[]).unwrap().warnings.len(), 1);
}

#[test]
fn absolute_budget_says_that_it_is_not_judged() {
    let text = with_route(
        "  - { name: a, match: {}, budgets: [{ name: e, metric: error_rate, tolerate: { rate: 0.1% }, action: kill }] }\n",
    );
    let Loaded { config, warnings } = load_text(&text, &[]).unwrap();
    assert_eq!(config.routes[0].budgets[0].tolerate, Tolerance::Rate(0.001));
    assert!(warnings[0].what.contains("never trips"), "{}", warnings[0]);
}

#[test]
fn statuses_that_are_fine_reach_every_budget() {
    let config = good(&with_route(
        "  - { name: a, match: {}, ok: [404], budgets: [{ name: e, metric: error_rate, action: alert }] }\n",
    ));
    assert_eq!(config.routes[0].ok_statuses, [404]);
    assert_eq!(config.routes[0].budgets[0].ok, [404]);
}

#[test]
fn urls_are_http_with_host_and_port_only() {
    use crate::engine::ruleset::decode::Scalar;
    for (text, authority) in [
        ("http://127.0.0.1:9001", "127.0.0.1:9001"),
        ("http://legacy.internal", "legacy.internal:80"),
        ("http://[::1]:9001/", "[::1]:9001"),
        ("http://my_service:1", "my_service:1"),
    ] {
        assert_eq!(Url::read(text).unwrap().authority(), authority);
    }
    for text in [
        "",
        "http://",
        "http://:80",
        "http://a:0",
        "http://a:65536",
        "http://a:+1",
        "http://a:",
        "http://a b",
        "http://[::1",
        "http://[a]:1",
        "ftp://a",
        "http://a/b",
        "http://u@a",
        "http://a?b",
        "http://a:1:2",
    ] {
        assert!(Url::read(text).is_err(), "{text}");
    }
}

const DIGEST: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

#[test]
fn tokens_file_is_read_and_its_problems_name_it() {
    let text = format!("admin: {{ address: 0.0.0.0:9090, tokens_file: t.yaml }}\n{LEAST}");
    let tokens = format!("tokens: [{{ name: alice, role: operator, sha256: {DIGEST} }}]");
    let config = load_text(&text, &[("t.yaml", &tokens)]).unwrap().config;
    let alice = &config.admin.tokens[0];
    assert_eq!(
        (&*alice.name, alice.role, alice.sha256[..2].to_vec()),
        ("alice", Role::Operator, vec![0x9f, 0x86])
    );
    assert!(!format!("{config:?}").contains("9f86"));

    let tokens = format!(
        "tokens:\n  - {{ name: a, role: boss, sha256: secret }}\n  - {{ name: b, role: viewer, sha256: {DIGEST} }}\n"
    );
    assert_eq!(
        lines(&load_text(&text, &[("t.yaml", &tokens)]).unwrap_err()),
        [
            "t.yaml:2:22: expected one of viewer, operator, admin, emergency, client, found `boss`. choose one of them",
            "t.yaml:2:36: this is no SHA-256 of 64 hex digits. make an entry with `understudy token new --role ROLE`",
        ]
    );
    let entry = format!("  - {{ name: a, role: viewer, sha256: {DIGEST} }}\n");
    assert_eq!(
        lines(&load_text(&text, &[("t.yaml", &format!("tokens:\n{entry}{entry}"))]).unwrap_err()),
        [
            "t.yaml:3:13: `a` stands here a second time, after line 2. an actor has one token",
            "t.yaml:3:38: the same token as in line 2. make a token for each actor",
        ]
    );
}

#[test]
fn admin_beyond_loopback_needs_tokens() {
    let line = "u.yaml:1:19: an admin listener beyond loopback without tokens. set `admin.tokens_file`, or listen on 127.0.0.1";
    refused(&format!("admin: {{ address: 0.0.0.0:9090 }}\n{LEAST}"), &[line]);
    let text = format!("admin: {{ address: '[::]:9090', tokens_file: t.yaml }}\n{LEAST}");
    assert_eq!(
        lines(&load_text(&text, &[("t.yaml", "tokens: []")]).unwrap_err()),
        [line]
    );
    good(&format!("admin: {{ address: '[::1]:9090' }}\n{LEAST}"));
}

#[test]
fn file_that_cannot_be_read_is_said_where_it_is_named() {
    let list = load_by(Path::new("none.yaml"), &mut |_| Err(io::ErrorKind::NotFound.into())).unwrap_err();
    assert_eq!(
        list[0].to_string(),
        "none.yaml: cannot be read: there is no such file. name an existing, readable file with --config"
    );

    let text = format!("admin: {{ tokens_file: t.yaml }}\n{LEAST}");
    let mut read = |path: &Path| match path.to_str() {
        Some("etc/u.yaml") => Ok(text.clone().into_bytes()),
        Some("etc/t.yaml") => Ok(b"tokens: []".to_vec()),
        _ => Err(io::ErrorKind::NotFound.into()),
    };
    let list = load_by(Path::new("etc/u.yaml"), &mut read).unwrap_err();
    assert_eq!(
        list[0].to_string(),
        "etc/u.yaml:1:23: `t.yaml` cannot be read: there is no such file. relative paths count from the working directory; did you mean `etc/t.yaml`?"
    );
    assert_eq!(list[0].path, "admin.tokens_file");
}

#[test]
fn other_files_are_read_even_if_a_member_is_wrong() {
    let text = format!("admin: {{ tokens_file: t.yaml }}\nflags: {{ file: f.yaml }}\nworkers: many\n{LEAST}");
    let mut problems = Problems::default();
    let mut read_file = |path: &Path| {
        Ok(if path == Path::new("u.yaml") {
            text.clone()
        } else {
            "tokens: 1".into()
        }
        .into_bytes())
    };
    let reading = read(Path::new("u.yaml"), &mut read_file, &mut problems);
    assert!(reading.config.is_none());
    assert_eq!(reading.flags_file.unwrap().value, Path::new("f.yaml"));
    let places: Vec<_> = problems
        .verdict()
        .unwrap_err()
        .iter()
        .map(|p| p.place.to_string())
        .collect();
    assert_eq!(places, ["t.yaml:1:9", "u.yaml:3:10"]);
}

#[test]
fn torn_file_is_refused_with_its_place() {
    let cut = LEAST.split_at(LEAST.len() - 3).0;
    refused(cut, &["u.yaml:6:5: the bracket `{` is never closed. close it"]);
    let list = load_by(Path::new("u.yaml"), &mut |_| Ok(b"a: \xff".to_vec())).unwrap_err();
    assert_eq!(
        list[0].to_string(),
        "u.yaml:1:4: a byte that is no UTF-8 text. save the file as UTF-8"
    );
}

#[test]
fn reference_names_every_key_of_the_example() {
    let page = reference();
    for key in [
        "environment",
        "tokens_file",
        "without_identity",
        "never_reached",
        "max_in_flight",
        "sha256",
        "drain",
        "normalise",
    ] {
        assert!(page.contains(&format!("| `{key}` |")), "{key}");
    }
    assert!(!page.contains("fleet"), "no trace of what this version does not have");
}

proptest! {
    #[test]
    fn loading_never_panics(text in "(listeners|backends|routes|name|match|url|legacy|new|shadow|budgets|identity|json|all|http://a:1|127.0.0.1:80|true|5xx|[a-z*/]|: |- |\\{|\\}|\\[|\\]|,|\\n|\\n  |\\n    )*") {
        let _ = load_text(&text, &[]);
        let _ = load_text(&format!("{LEAST}{text}"), &[]);
        let _ = load_text(&with_route(&text), &[]);
    }
}

#[test]
fn trusted_proxies_are_networks_or_single_addresses() {
    let with = |text: &str| load_text(&format!("trusted_proxies: {text}\n{LEAST}"), &[]);
    let trusted = |text: &str| {
        let networks = with(text).unwrap().config.trusted_proxies.unwrap();
        networks.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(load_text(LEAST, &[]).unwrap().config.trusted_proxies, None);
    assert!(trusted("[]").is_empty());
    assert_eq!(
        trusted("[10.1.2.3/8, \"2001:db8::1\", 192.0.2.7]"),
        ["10.0.0.0/8", "2001:db8::1/128", "192.0.2.7/32"]
    );
    for wrong in ["[10.0.0.0/33]", "[shop.example]", "[10.0.0]", "[\"\"]"] {
        assert!(with(wrong).is_err(), "{wrong}");
    }
}
