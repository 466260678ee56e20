//! TLS to the backends: whom we believe, who we are, and what becomes of a request where one side does not accept the
//! other.

use std::path::{Path, PathBuf};

use http::Method;

use super::support::tls::{Authority, pair};
use super::support::*;

const FAILED: &str = "understudy_runs_failed_total";

fn write(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    path
}

fn url(backend: &impl Located, host: &str) -> String {
    format!("\"https://{host}:{}\"", backend.address().port())
}

/// An instance whose legacy is this one.
fn before(legacy: &Secured, host: &str, tls: &str) -> Sidecar {
    let mut plan = Plan::new(legacy, &Nobody::open()).route("flag: false").legacy_more(tls);
    plan.legacy_url = url(legacy, host);
    plan.start()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_is_reached_by_tls_and_its_connections_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let ca = write(folder.path(), "ca.pem", &authority.pem());
    let legacy = Secured::start(&authority.sign(&["localhost"]), None, &["http/1.1"]).await;
    let sidecar = before(&legacy, "localhost", &format!("tls: {{ ca: {} }}", ca.display()));
    let mut client = Client::connect(sidecar.address).await;
    for _ in 0..5 {
        for method in [Method::POST, Method::GET] {
            let answer = client.send(request(method, "/", &[], "secret")).await;
            assert_eq!(
                (answer.status, answer.header("name"), answer.header("client")),
                (200, "localhost", "0")
            );
            assert_eq!(answer.header("number"), "1");
        }
    }
    let body = vec![b'x'; 3_000_000];
    let answer = client.send(request(Method::POST, "/", &[], body.clone())).await;
    assert!(answer.body == body);
    assert_eq!(legacy.connections(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_certificate_may_have_another_name_than_the_url() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let ca = write(folder.path(), "ca.pem", &authority.pem());
    let legacy = Secured::start(&authority.sign(&["orders.internal"]), None, &[]).await;
    let tls = format!("tls: {{ ca: {}, server_name: orders.internal }}", ca.display());
    let sidecar = before(&legacy, "127.0.0.1", &tls);
    let answer = get(sidecar.address, "/", &[]).await;
    assert_eq!((answer.status, answer.header("name")), (200, "orders.internal"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_that_wants_to_know_who_we_are_is_shown_our_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let ca = write(folder.path(), "ca.pem", &authority.pem());
    let own = pair(folder.path(), "own", &authority.sign(&["understudy"]));
    let legacy = Secured::start(&authority.sign(&["localhost"]), Some(&authority), &[]).await;
    let sidecar = before(&legacy, "localhost", &format!("tls: {{ ca: {}, {own} }}", ca.display()));
    let answer = get(sidecar.address, "/", &[]).await;
    assert_eq!((answer.status, answer.header("client")), (200, "1"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whom_we_do_not_believe_gets_no_request_and_legacy_serves() {
    let folder = tempfile::tempdir().unwrap();
    let (authority, stranger) = (Authority::new(), Authority::new());
    let ca = write(folder.path(), "ca.pem", &authority.pem());
    let expired = authority.sign_with(&["localhost"], |params| {
        params.not_before = rcgen::date_time_ymd(2019, 1, 1);
        params.not_after = rcgen::date_time_ymd(2020, 1, 1);
    });
    let wrong = [
        ("another authority", stranger.sign(&["localhost"])),
        ("another name", authority.sign(&["example.org"])),
        ("expired", expired),
    ];
    for (what, certificate) in wrong {
        let legacy = Backend::saying("legacy").await;
        let new = Secured::start(&certificate, None, &[]).await;
        let mut plan = Plan::new(&legacy, &new).route("flag: true\nwithout_identity: follow");
        plan.new_url = url(&new, "localhost");
        let sidecar = plan
            .new_more(&format!("copies: dry_run, tls: {{ ca: {} }}", ca.display()))
            .start();
        for method in [Method::GET, Method::POST] {
            let answer = send(sidecar.address, method, "/", &[], "body").await;
            assert_eq!((answer.status, answer.text()), (200, "legacy"), "{what}");
        }
        assert_eq!((new.connections(), legacy.count()), (0, 2), "{what}");
        assert_eq!(sidecar.metric(FAILED, &["\"tls\"", "new"]).await, 2.0, "{what}");
        assert_eq!(
            sidecar.metric("understudy_failovers_total", &["never_reached"]).await,
            2.0,
            "{what}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_systems_authorities_do_not_believe_a_stranger() {
    let authority = Authority::new();
    let legacy = Secured::start(&authority.sign(&["localhost"]), None, &[]).await;
    let sidecar = before(&legacy, "localhost", "timeout: 2s");
    let answer = get(sidecar.address, "/secret", &[]).await;
    assert_eq!(
        (answer.status, answer.header("x-understudy-error")),
        (502, "connect_failed")
    );
    deadline("the handshake to be given up", || legacy.refused() == 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_that_speaks_no_tls_or_says_nothing_is_an_error_in_time() {
    let folder = tempfile::tempdir().unwrap();
    let ca = write(folder.path(), "ca.pem", &Authority::new().pem());
    for (backend, status, reason) in [
        (
            Backend::start(Script::Raw(b"HTTP/1.1 400 Bad Request\r\n\r\n")).await,
            502,
            "connect_failed",
        ),
        (Backend::start(Script::NeverRead).await, 504, "connect_timeout"),
    ] {
        let mut plan = Plan::new(&backend, &Nobody::open()).route("flag: false");
        plan.legacy_url = url(&backend, "localhost");
        let members = format!("connect_timeout: 300ms, tls: {{ ca: {} }}", ca.display());
        let sidecar = plan.legacy_more(&members).start();
        let since = tokio::time::Instant::now();
        let answer = get(sidecar.address, "/", &[]).await;
        assert_eq!((answer.status, answer.header("x-understudy-error")), (status, reason));
        assert!(since.elapsed() < std::time::Duration::from_secs(2));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_files_are_taken_over_without_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let (old, young) = (Authority::new(), Authority::new());
    let ca = write(folder.path(), "ca.pem", &old.pem());
    let legacy = Secured::start(&young.sign(&["localhost"]), None, &[]).await;
    let sidecar = before(&legacy, "localhost", &format!("tls: {{ ca: {} }}", ca.display()));
    assert_eq!(get(sidecar.address, "/", &[]).await.status, 502);
    write(folder.path(), "ca.pem", &young.pem());
    eventually("the new authority to be believed", || async {
        get(sidecar.address, "/", &[]).await.status == 200
    })
    .await;
}

#[test]
fn what_is_wrong_with_tls_is_said_at_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let (cert, key) = authority.sign(&["understudy"]);
    let ca = write(folder.path(), "ca.pem", &authority.pem());
    let cert = write(folder.path(), "own.crt", &cert);
    let key = write(folder.path(), "own.key", &key);
    let other = write(folder.path(), "other.key", &authority.sign(&["other"]).1);
    let (ca, cert, key, other) = (ca.display(), cert.display(), key.display(), other.display());
    let cases = [
        ("https://a:1", format!("tls: {{ ca: {key} }}"), "holds no certificate"),
        (
            "https://a:1",
            "tls: { ca: /nowhere.pem }".to_owned(),
            "cannot be read: there is no such file",
        ),
        (
            "https://a:1",
            format!("tls: {{ cert: {cert} }}"),
            "`cert` and `key` belong together",
        ),
        (
            "https://a:1",
            format!("tls: {{ cert: {cert}, key: {ca} }}"),
            "holds no private key",
        ),
        (
            "https://a:1",
            format!("tls: {{ cert: {cert}, key: {other} }}"),
            "does not belong to the certificate",
        ),
        ("https://a_b:1", format!("tls: {{ ca: {ca} }}"), ""),
        (
            "http://a:1",
            format!("tls: {{ ca: {ca} }}"),
            "nothing here is reached by TLS",
        ),
        (
            "[https://a:1, http://b:1]",
            format!("tls: {{ ca: {ca} }}"),
            "some replicas are reached by TLS",
        ),
        (
            "https://a:1",
            format!("tls: {{ ca: {ca}, insecure: true }}"),
            "unknown key `insecure`",
        ),
        (
            "https://a:1",
            format!("tls: {{ ca: {ca}, cert: {cert}, key: {key} }}"),
            "",
        ),
    ];
    for (url, tls, expected) in cases {
        let plan = format!(
            "listeners: [ {{ address: \"127.0.0.1:0\" }} ]\nbackends:\n  legacy: {{ url: {url}, {tls} }}\n  new: {{ url: http://n:1 }}\nroutes: []\n"
        );
        let path = write(folder.path(), "understudy.yaml", &plan);
        let loaded = understudy::config::load(&path);
        let said = match loaded {
            Ok(_) => String::new(),
            Err(problems) => problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"),
        };
        assert!(
            if expected.is_empty() {
                said.is_empty()
            } else {
                said.contains(expected)
            },
            "{tls}: {said}"
        );
    }
}
