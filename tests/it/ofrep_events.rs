//! Event streams: every change is told to whoever listens, and nobody is kept for ever.

use std::time::Duration;

use http::Method;
use serde_json::Value;

use crate::ofrep::{JSON, ask, open, start};
use crate::support::{Backend, Plan, Sidecar, Socket, get, post, sha256};

const OFF: &str = "features:\n  shop: { type: boolean, enabled: false }\n";
const ON: &str = "features:\n  shop: { type: boolean, enabled: true }\n";

/// How long an event may take, beside which the stream is kept alive for ever.
const PATIENCE: Duration = Duration::from_secs(10);

/// Opens a stream and reads its beginning.
async fn listen(sidecar: &Sidecar, uri: &str, headers: &str) -> Socket {
    let mut stream = Socket::connect(sidecar.ofrep()).await;
    stream
        .send(format!("GET {uri} HTTP/1.1\r\nHost: a\r\n{headers}\r\n"))
        .await;
    let head = stream.head().await;
    assert_eq!(head.status(), 200, "{uri}");
    assert_eq!(head.header("content-type"), "text/event-stream");
    stream
}

async fn line(stream: &mut Socket) -> String {
    String::from_utf8(stream.chunk().await).unwrap()
}

/// The next event, beside the lines that only keep the stream alive.
async fn event(stream: &mut Socket) -> String {
    let event = async {
        loop {
            let line = line(stream).await;
            if !line.starts_with(':') {
                return line;
            }
        }
    };
    tokio::time::timeout(PATIENCE, event).await.expect("an event")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_change_of_rules_and_every_kill_is_told() {
    let backend = Backend::saying("legacy").await;
    let sidecar = Plan::new(&backend, &backend)
        .route("flag: false")
        .features(OFF)
        .more("ofrep: { address: 127.0.0.1:0 }")
        .start();
    let auth = format!("Authorization: Bearer {}\r\n", crate::support::TOKEN);
    let mut stream = listen(&sidecar, "/ofrep/v1/events", &auth).await;
    assert_eq!(line(&mut stream).await, ": hello\n\n");
    sidecar.reload(ON).await.unwrap();
    let told = event(&mut stream).await;
    assert!(told.starts_with("event: message\nid: 2-"), "{told}");
    assert!(told.ends_with("\ndata: {\"type\":\"refetchEvaluation\"}\n\n"), "{told}");
    let reason = r#"{"reason":"a test"}"#;
    assert_eq!(
        sidecar
            .admin(Method::POST, "/api/v1/feature-flags/shop/kill", reason)
            .await
            .status,
        200
    );
    assert!(event(&mut stream).await.contains("refetchEvaluation"));
    assert_eq!(
        sidecar
            .admin(Method::POST, "/api/v1/feature-flags/shop/rearm", reason)
            .await
            .status,
        200
    );
    let last = event(&mut stream).await;
    assert!(last.contains("refetchEvaluation"));
    drop(stream);
    // Whoever comes back is told at once if it missed something, and not otherwise.
    let id = last.lines().find_map(|line| line.strip_prefix("id: ")).unwrap();
    let mut again = listen(&sidecar, "/ofrep/v1/events", &format!("{auth}Last-Event-ID: {id}\r\n")).await;
    assert_eq!(line(&mut again).await, ": hello\n\n");
    let mut late = listen(&sidecar, "/ofrep/v1/events", &format!("{auth}Last-Event-ID: 1-0\r\n")).await;
    assert!(line(&mut late).await.contains("refetchEvaluation"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn url_of_a_stream_is_its_holders_secret_and_opens_nothing_else() {
    let backend = Backend::saying("legacy").await;
    let sidecar = Plan::new(&backend, &backend)
        .route("flag: false")
        .features(ON)
        .tokens(&[["boss", "admin", crate::support::TOKEN], ["web", "client", "web"]])
        .more("ofrep: { address: 127.0.0.1:0 }")
        .start();
    let bulk = post(
        sidecar.ofrep(),
        "/ofrep/v1/evaluate/flags",
        &[JSON, ("x-api-key", "web")],
        "{}",
    )
    .await;
    let body: Value = bulk.json();
    let uri = body["eventStreams"][0]["endpoint"]["requestUri"]
        .as_str()
        .unwrap()
        .to_owned();
    let ticket = uri.strip_prefix("/ofrep/v1/events?ticket=").unwrap();
    assert_eq!(ticket.len(), 64);
    assert_ne!(ticket, sha256("web"));
    let mut stream = listen(&sidecar, &uri, "").await;
    assert_eq!(line(&mut stream).await, ": hello\n\n");
    for wrong in [
        "/ofrep/v1/events",
        "/ofrep/v1/events?ticket=",
        "/ofrep/v1/events?ticket=web",
    ] {
        assert_eq!(get(sidecar.ofrep(), wrong, &[]).await.status, 401, "{wrong}");
    }
    let as_token = [JSON, ("x-api-key", ticket)];
    assert_eq!(
        post(sidecar.ofrep(), "/ofrep/v1/evaluate/flags", &as_token, "{}")
            .await
            .status,
        401
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_are_bounded_and_a_place_is_free_when_its_client_leaves() {
    let sidecar = start("{ address: 127.0.0.1:0, streams: 2 }", ON).await;
    let mut first = listen(&sidecar, "/ofrep/v1/events", "").await;
    line(&mut first).await;
    let second = listen(&sidecar, "/ofrep/v1/events", "").await;
    assert_eq!(sidecar.metric("understudy_ofrep_streams", &[]).await, 2.0);
    let refused = get(sidecar.ofrep(), "/ofrep/v1/events", &[]).await;
    assert_eq!((refused.status, refused.header("retry-after")), (503, "15"));
    drop(second);
    crate::support::eventually("a free place", || async {
        sidecar.metric("understudy_ofrep_streams", &[]).await == 1.0
    })
    .await;
    drop(listen(&sidecar, "/ofrep/v1/events", "").await);
    assert_eq!(
        sidecar
            .metric("understudy_ofrep_requests_total", &["result=\"too_many_streams\""])
            .await,
        1.0
    );
    // Flags are evaluated all the while.
    assert_eq!(ask(&sidecar, "/ofrep/v1/evaluate/flags/shop", "{}").await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_end_when_the_instance_drains_and_do_not_delay_it() {
    let sidecar = open(ON).await;
    let mut stream = listen(&sidecar, "/ofrep/v1/events", "").await;
    line(&mut stream).await;
    let drained = sidecar.stop().await;
    assert!(drained < Duration::from_secs(10), "{drained:?}");
    // The last chunk is the whole end: a client that comes back goes elsewhere.
    assert!(stream.chunk().await.is_empty());
    stream.ends().await;
}
