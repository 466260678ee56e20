//! TLS towards clients: versions, names, certificates on both sides, reload, and what hostile handshakes get.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use http::Method;
use rustls::HandshakeKind;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::version::{TLS12, TLS13};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::support::tls::shown;
use crate::support::{
    Authority, Backend, Client, Instance, Listener, Nobody, Plan, Reply, Shopper, Sidecar, Socket, deadline,
    eventually, pair, raw, request, understudy,
};

const HANDSHAKES: &str = "understudy_tls_handshakes_total";
const FAILED: &str = "understudy_tls_handshakes_failed_total";

async fn echo() -> Backend {
    Backend::answering(|r| Reply::text(r.header("x-forwarded-proto").to_owned())).await
}

fn plan(legacy: &Backend, tls: &str) -> Plan {
    Plan::new(legacy, &Nobody::open())
        .route("flag: false")
        .listeners(&format!("[ {{ address: \"127.0.0.1:0\", tls: {{ {tls} }} }} ]"))
}

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

async fn status_over(shopper: &Shopper, sidecar: &Sidecar, name: &str) -> (u16, String) {
    let mut client = Client::over(shopper.connect(sidecar.address, name).await.unwrap()).await;
    let answer = client.send(request(Method::GET, "/", &[("host", name)], "")).await;
    (answer.status, answer.text().to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_versions_are_spoken_and_the_backend_hears_https() {
    let (legacy, authority, files) = (echo().await, Authority::new(), folder());
    let tls = pair(files.path(), "shop", &authority.sign(&["shop.example"]));
    let sidecar = plan(&legacy, &tls).start();
    for (at, version) in [&TLS12, &TLS13].into_iter().enumerate() {
        let shopper = Shopper::speaking(&[version], &authority, &["http/1.1"], None);
        let stream = shopper.connect(sidecar.address, "shop.example").await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
        let mut client = Client::over(stream).await;
        for _ in 0..2 {
            let answer = client.send(request(Method::GET, "/", &[], "")).await;
            assert_eq!((answer.status, answer.text()), (200, "https"));
        }
        let label = ["1.2", "1.3"][at];
        assert_eq!(sidecar.metric(HANDSHAKES, &[label]).await, 1.0);
    }
    // A large body both ways crosses many records.
    let big = vec![b'x'; 700_000];
    let mirror = Backend::answering(|r| Reply::text(r.body.clone())).await;
    let sidecar = plan(&mirror, &tls).start();
    let shopper = Shopper::trusting(&authority, &[]);
    let mut client = Client::over(shopper.connect(sidecar.address, "shop.example").await.unwrap()).await;
    let answer = client.send(request(Method::POST, "/", &[], big.clone())).await;
    assert!(answer.status == 200 && answer.body == big);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_name_chooses_the_certificate_a_written_one_before_a_wildcard() {
    let (legacy, authority, files) = (echo().await, Authority::new(), folder());
    let names: [&[&str]; 4] = [
        &["default.example"],
        &["*.shop.example", "shop.example"],
        &["pay.shop.example"],
        &["other.example"],
    ];
    let signed = names.map(|names| authority.sign(names));
    let pairs: Vec<String> = (0..)
        .zip(&signed)
        .map(|(at, one)| pair(files.path(), &format!("{at}"), one))
        .collect();
    let more: Vec<String> = pairs[1..].iter().map(|pair| format!("{{ {pair} }}")).collect();
    let tls = format!("{}, certificates: [ {} ]", pairs[0], more.join(", "));
    let sidecar = plan(&legacy, &tls).start();
    let shopper = Shopper::trusting(&authority, &[]);
    for (name, expected) in [
        ("default.example", 0),
        ("www.shop.example", 1),
        ("SHOP.example", 1),
        ("pay.shop.example", 2),
        ("other.example", 3),
    ] {
        let stream = shopper.connect(sidecar.address, name).await.unwrap();
        let right = CertificateDer::from_pem_slice(signed[expected].0.as_bytes()).unwrap();
        assert!(shown(&stream) == right, "{name}");
    }
    // Nobody has this name, or none was asked for: the first pair answers, and the client may refuse it.
    assert!(shopper.connect(sidecar.address, "deep.www.shop.example").await.is_err());
    sidecar.wait_for_metric(FAILED, &["refused_by_client"], 1.0).await;
    let nameless = shopper.nameless();
    assert!(nameless.connect(sidecar.address, "default.example").await.is_ok());
    assert!(
        sidecar
            .metric("understudy_tls_certificate_not_after_seconds", &["index=\"3\""])
            .await
            > 1.7e9
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_certificate_is_asked_for_and_checked() {
    let (legacy, authority, stranger, files) = (echo().await, Authority::new(), Authority::new(), folder());
    let tls = pair(files.path(), "shop", &authority.sign(&["shop.example"]));
    let clients = Authority::new();
    std::fs::write(files.path().join("clients.pem"), clients.pem()).unwrap();
    let tls = format!("{tls}, client_ca: {}", files.path().join("clients.pem").display());
    let sidecar = plan(&legacy, &tls).start();
    for version in [&TLS12, &TLS13] {
        let with = |own| Shopper::speaking(&[version], &authority, &[], own);
        let good = clients.sign(&["client"]);
        assert_eq!(status_over(&with(Some(&good)), &sidecar, "shop.example").await.0, 200);
        let forged = stranger.sign(&["client"]);
        let expired = clients.sign_with(&["client"], |params| {
            params.not_after = rcgen::date_time_ymd(2020, 1, 1);
        });
        for own in [None, Some(&forged), Some(&expired)] {
            // In TLS 1.3 the client is done before the server has looked at its certificate.
            if let Ok(mut stream) = with(own).connect(sidecar.address, "shop.example").await {
                let _ = stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
                assert!(stream.read(&mut [0; 16]).await.is_err());
            }
        }
    }
    sidecar.wait_for_metric(FAILED, &["no_client_certificate"], 2.0).await;
    sidecar.wait_for_metric(FAILED, &["bad_client_certificate"], 4.0).await;
    assert_eq!(legacy.count(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_version_than_the_oldest_allowed_is_refused() {
    let (legacy, authority, files) = (echo().await, Authority::new(), folder());
    let tls = pair(files.path(), "shop", &authority.sign(&["shop.example"]));
    let sidecar = plan(&legacy, &format!("{tls}, min_version: 1.3")).start();
    let old = Shopper::speaking(&[&TLS12], &authority, &[], None);
    assert!(old.connect(sidecar.address, "shop.example").await.is_err());
    sidecar.wait_for_metric(FAILED, &["nothing_in_common"], 1.0).await;
    let new = Shopper::trusting(&authority, &[]);
    assert_eq!(
        status_over(&new, &sidecar, "shop.example").await,
        (200, "https".to_owned())
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_is_resumed_until_the_certificates_change() {
    let (legacy, authority, files) = (echo().await, Authority::new(), folder());
    let tls = pair(files.path(), "shop", &authority.sign(&["shop.example"]));
    let sidecar = plan(&legacy, &tls).start();
    let shopper = Shopper::trusting(&authority, &[]);
    let kind = async |expected| {
        let stream = shopper.connect(sidecar.address, "shop.example").await.unwrap();
        let mut socket = Socket::over(stream);
        // The ticket comes after the handshake, so something has to be read.
        socket.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert_eq!(socket.message().await.status(), 200);
        assert_eq!(socket.stream().get_ref().1.handshake_kind(), Some(expected));
    };
    kind(HandshakeKind::Full).await;
    kind(HandshakeKind::Resumed).await;
    // Rules that change leave the sessions alone.
    sidecar
        .reload("features: { A: { type: boolean, enabled: true } }\n")
        .await
        .unwrap();
    kind(HandshakeKind::Resumed).await;
    pair(files.path(), "shop", &authority.sign(&["shop.example"]));
    sidecar.reload("features: {}\n").await.unwrap();
    kind(HandshakeKind::Full).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_certificates_are_taken_over_by_themselves_and_no_request_fails() {
    let (legacy, authority, files) = (echo().await, Authority::new(), folder());
    let mut signed = authority.sign(&["shop.example"]);
    let tls = pair(files.path(), "shop", &signed);
    let sidecar = plan(&legacy, &tls).start();
    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let load: Vec<_> = (0..4)
        .map(|at| {
            let (stop, done, address) = (Arc::clone(&stop), Arc::clone(&done), sidecar.address);
            let shopper = Shopper::trusting(&authority, &[]);
            tokio::spawn(async move {
                let connect = async || Client::over(shopper.connect(address, "shop.example").await.unwrap()).await;
                let mut client = connect().await;
                while !stop.load(Ordering::Relaxed) {
                    // Half of them keep their connection from beginning to end.
                    if at % 2 == 0 {
                        client = connect().await;
                    }
                    assert_eq!(client.send(request(Method::GET, "/", &[], "")).await.status, 200);
                    done.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let shopper = Shopper::trusting(&authority, &[]);
    for _ in 0..2 {
        let before = done.load(Ordering::Relaxed);
        deadline("some load", || done.load(Ordering::Relaxed) > before + 20).await;
        signed = authority.sign(&["shop.example"]);
        // One file after the other: what lies between fits nobody, and is refused.
        pair(files.path(), "shop", &signed);
        let right = CertificateDer::from_pem_slice(signed.0.as_bytes()).unwrap();
        eventually("the new certificate", async || {
            shown(&shopper.connect(sidecar.address, "shop.example").await.unwrap()) == right
        })
        .await;
    }
    // A broken pair is refused whole.
    std::fs::write(files.path().join("shop.key"), "torn").unwrap();
    eventually("the refusal", async || {
        sidecar.metric("understudy_rules_refused", &[]).await == 1.0
    })
    .await;
    let before = done.load(Ordering::Relaxed);
    deadline("some load", || done.load(Ordering::Relaxed) > before + 20).await;
    stop.store(true, Ordering::Relaxed);
    for one in load {
        one.await.unwrap();
    }
    let right = CertificateDer::from_pem_slice(signed.0.as_bytes()).unwrap();
    assert!(shown(&shopper.connect(sidecar.address, "shop.example").await.unwrap()) == right);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_tls_is_closed_and_counted() {
    let (legacy, authority, files) = (echo().await, Authority::new(), folder());
    let tls = pair(files.path(), "shop", &authority.sign(&["shop.example"]));
    let sidecar = plan(&legacy, &tls).start();
    let answer = raw(sidecar.address, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(
        answer.starts_with("HTTP/1.1 400 ") && answer.contains("plaintext_on_tls_port"),
        "{answer}"
    );
    // A record of a handshake whose content is nothing.
    raw(sidecar.address, &[22, 3, 1, 0, 4, 99, 0, 0, 0]).await;
    let mut left = TcpStream::connect(sidecar.address).await.unwrap();
    left.write_all(&[22, 3, 1, 1, 0]).await.unwrap();
    drop(left);
    for reason in ["plaintext", "malformed", "cut"] {
        sidecar.wait_for_metric(FAILED, &[&format!("\"{reason}\"")], 1.0).await;
    }
    sidecar.wait_for_zero("understudy_connections", &[]).await;
    assert_eq!(legacy.count(), 0);
}

/// What the log has of failed handshakes: the client, the reason, and how many were left out before.
fn failures(instance: &Instance) -> Vec<(String, String, u64)> {
    let logs = instance.logs().into_iter();
    let lines = logs.filter(|line| line["message"] == "a client's TLS handshake came to nothing");
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    lines
        .map(|line| {
            let left_out = line["left_out"].as_u64().unwrap();
            (text(&line["client"]), text(&line["reason"]), left_out)
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_failed_handshake_is_logged_once_with_its_address_and_reason() {
    let (legacy, authority, files) = (echo().await, Authority::new(), folder());
    let tls = pair(files.path(), "shop", &authority.sign(&["shop.example"]));
    let limited = plan(&legacy, &format!("{tls}, min_version: 1.3")).more("limits: { handshake: 300ms }");
    let instance = Instance::start(&limited).await;
    let told = async |local: String, reason: &str| {
        deadline(&format!("a line about {reason}"), || {
            failures(&instance).iter().any(|(client, ..)| *client == local)
        })
        .await;
        let of_client: Vec<_> = failures(&instance)
            .into_iter()
            .filter(|(client, ..)| *client == local)
            .collect();
        assert_eq!(of_client, [(local, reason.to_owned(), 0)]);
    };
    for (bytes, reason) in [
        (&b"GET /s3cr3t HTTP/1.1\r\nHost: a\r\n\r\n"[..], "plaintext"),
        (&[22, 3, 1, 0, 4, 99, 0, 0, 0], "malformed"),
        (&[22, 3, 1, 1, 0], "timeout"),
    ] {
        let mut client = Socket::connect(instance.address).await;
        client.send(bytes).await;
        client.rest().await;
        told(client.local().to_string(), reason).await;
    }
    let mut left = Socket::connect(instance.address).await;
    left.send([22, 3, 1, 1, 0]).await;
    let local = left.local().to_string();
    drop(left);
    told(local, "cut").await;
    for (shopper, reason) in [
        (Shopper::trusting(&Authority::new(), &[]), "refused_by_client"),
        (Shopper::speaking(&[&TLS12], &authority, &[], None), "nothing_in_common"),
    ] {
        let stream = TcpStream::connect(instance.address).await.unwrap();
        let local = stream.local_addr().unwrap().to_string();
        assert!(shopper.over(stream, "s3cr3t.example").await.is_err());
        told(local, reason).await;
    }
    assert!(!instance.stderr().contains("s3cr3t"), "a value was logged");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_failed_handshakes_does_not_flood_the_log() {
    let (legacy, authority, files) = (echo().await, Authority::new(), folder());
    let tls = pair(files.path(), "shop", &authority.sign(&["shop.example"]));
    let instance = Instance::start(&plan(&legacy, &tls)).await;
    for _ in 0..1_000 {
        drop(TcpStream::connect(instance.address).await.unwrap());
    }
    instance.wait_for_metric(FAILED, &["\"cut\""], 1_000.0).await;
    // Twenty of each of two workers, in as many spans of ten seconds as this may have taken.
    let lines = failures(&instance);
    assert!((20..=200).contains(&lines.len()), "{} lines", lines.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_clients_that_do_not_finish_their_handshake_are_closed_at_the_limit() {
    let (legacy, authority, files) = (echo().await, Authority::new(), folder());
    let tls = pair(files.path(), "shop", &authority.sign(&["shop.example"]));
    let sidecar = plan(&legacy, &tls).more("limits: { handshake: 1s }").start();
    let before = Instant::now();
    let mut silent = Vec::new();
    for at in 0..500 {
        let mut stream = TcpStream::connect(sidecar.address).await.unwrap();
        if at % 2 == 0 {
            stream.write_all(&[22, 3, 1, 1, 0]).await.unwrap();
        }
        silent.push(stream);
    }
    let connected = before.elapsed();
    // Whoever speaks is served meanwhile.
    let shopper = Shopper::trusting(&authority, &[]);
    assert_eq!(status_over(&shopper, &sidecar, "shop.example").await.0, 200);
    for mut stream in silent {
        let end = tokio::time::timeout(Duration::from_secs(10), stream.read(&mut [0; 16])).await;
        assert!(matches!(end.unwrap(), Ok(0) | Err(_)));
    }
    let took = before.elapsed();
    assert!(
        took >= Duration::from_secs(1) && took < connected + Duration::from_secs(3),
        "{took:?}"
    );
    sidecar.wait_for_metric(FAILED, &["timeout"], 500.0).await;
    sidecar.wait_for_zero("understudy_connections", &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_too_many_is_told_so_under_tls_too() {
    let (legacy, authority, files) = (echo().await, Authority::new(), folder());
    let tls = pair(files.path(), "shop", &authority.sign(&["shop.example"]));
    let sidecar = plan(&legacy, &tls).more("limits: { connections: 1 }").start();
    let shopper = Shopper::trusting(&authority, &[]);
    let mut first = Client::over(shopper.connect(sidecar.address, "shop.example").await.unwrap()).await;
    assert_eq!(first.send(request(Method::GET, "/", &[], "")).await.status, 200);
    let mut second = Client::over(shopper.connect(sidecar.address, "shop.example").await.unwrap()).await;
    let answer = second.send(request(Method::GET, "/", &[], "")).await;
    assert_eq!(
        (
            answer.status,
            answer.header("retry-after"),
            answer.header("x-understudy-error")
        ),
        (503, "1", "too_many_connections")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_answer_is_not_closed_as_if_it_were_whole() {
    let (legacy, authority, files) = (Listener::open().await, Authority::new(), folder());
    let tls = pair(files.path(), "shop", &authority.sign(&["shop.example"]));
    let sidecar = Plan::new(&legacy, &Nobody::open())
        .route("flag: false")
        .listeners(&format!("[ {{ address: \"127.0.0.1:0\", tls: {{ {tls} }} }} ]"))
        .start();
    let shopper = Shopper::trusting(&authority, &[]);
    let mut stream = shopper.connect(sidecar.address, "shop.example").await.unwrap();
    stream.write_all(b"GET / HTTP/1.0\r\nHost: a\r\n\r\n").await.unwrap();
    let mut backend = legacy.accept().await;
    backend.message().await;
    backend
        .send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n")
        .await;
    let mut head = [0; 4_096];
    assert!(stream.read(&mut head).await.unwrap() > 0);
    drop(backend);
    // A proper end would be a `close_notify`, which reads as the end of the stream.
    let mut rest = Vec::new();
    let end = stream.read_to_end(&mut rest).await;
    assert!(end.is_err(), "{end:?}, after {}", String::from_utf8_lossy(&rest));
}

fn written(folder: &Path, name: &str, text: &str) -> String {
    std::fs::write(folder.join(name), text).unwrap();
    folder.join(name).display().to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_that_cannot_be_used_are_named_before_a_start() {
    let (legacy, authority, files) = (echo().await, Authority::new(), folder());
    let path = files.path();
    let good = authority.sign(&["shop.example"]);
    let other = authority.sign(&["other.example"]);
    let (cert, key) = (written(path, "a.crt", &good.0), written(path, "a.key", &good.1));
    let (torn, empty) = (
        written(path, "torn.crt", &good.0[..good.0.len() / 2]),
        written(path, "empty.crt", ""),
    );
    let other_key = written(path, "other.key", &other.1);
    let expired = authority.sign_with(&["shop.example"], |params| {
        params.not_after = rcgen::date_time_ymd(2020, 1, 1);
    });
    let expired = pair(path, "expired", &expired);
    for (tls, code, said) in [
        (
            format!("cert: {cert}, key: {other_key}"),
            2,
            "is not that of the certificate of",
        ),
        (format!("cert: {torn}, key: {key}"), 2, "cannot be read as PEM"),
        (format!("cert: {empty}, key: {key}"), 2, "holds no certificate"),
        (format!("cert: {cert}, key: {cert}"), 2, "holds no private key in PEM"),
        (format!("cert: {cert}, key: {cert}.gone"), 2, "there is no such file"),
        (
            format!("cert: {cert}, key: {key}, client_ca: {empty}"),
            2,
            "holds no certificate",
        ),
        (
            format!("cert: {cert}, key: {key}, certificates: [ {{ cert: {cert}, key: {other_key} }} ]"),
            2,
            "is not that of the certificate of",
        ),
        (expired, 0, "warning: the certificate of"),
        (format!("cert: {cert}, key: {key}"), 0, ""),
    ] {
        let own = folder();
        let config = plan(&legacy, &tls).write(own.path());
        let finished = understudy(&["check", "--config", config.to_str().unwrap()], &[]).await;
        let text = format!("{}{}", finished.stdout, finished.stderr);
        assert!(finished.code == code && text.contains(said), "{tls}: {finished:?}");
        assert!(!text.contains("PRIVATE KEY"), "{text}");
    }
}
