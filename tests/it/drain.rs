//! Ending: what is under way is finished, nothing new is taken, and nobody is waited for without a limit.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::Method;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::support::{Backend, Client, Listener, Located, Nobody, Plan, Reply, Sidecar, Socket, deadline, request};

fn before(legacy: &impl Located, drain: &str) -> Sidecar {
    let limits = format!("limits: {{ drain: {drain} }}");
    Plan::new(legacy, &Nobody::open())
        .route("flag: false")
        .more(&limits)
        .start()
}

/// Begins to drain; gives how long it took once it is over.
async fn draining(sidecar: Sidecar) -> JoinHandle<Duration> {
    let address = sidecar.address;
    let ended = tokio::spawn(sidecar.stop());
    let end = Instant::now() + Duration::from_secs(10);
    while TcpStream::connect(address).await.is_ok() {
        assert!(Instant::now() < end, "new connections are still taken");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    ended
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_under_way_is_finished_and_its_connection_told_to_close() {
    let legacy = Listener::open().await;
    let sidecar = before(&legacy, "20s");
    let mut client = Socket::connect(sidecar.address).await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut backend = legacy.accept().await;
    backend.message().await;
    let ended = draining(sidecar).await;
    assert!(!ended.is_finished(), "the request under way was not waited for");
    backend.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone").await;
    let answer = client.message().await;
    assert_eq!(
        (answer.status(), answer.header("connection"), &*answer.body),
        (200, "close", &b"done"[..])
    );
    client.ends().await;
    assert!(ended.await.unwrap() < Duration::from_secs(10));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_and_an_answer_under_way_are_finished() {
    let legacy = Listener::open().await;
    let sidecar = before(&legacy, "20s");
    let mut uploading = Socket::connect(sidecar.address).await;
    uploading
        .send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\none")
        .await;
    let mut upload = legacy.accept().await;
    upload.head().await;
    assert_eq!(upload.exactly(3).await, b"one");
    let mut downloading = Socket::connect(sidecar.address).await;
    downloading.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut download = legacy.accept().await;
    download.message().await;
    download
        .send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n")
        .await;
    downloading.head().await;
    assert_eq!(downloading.chunk().await, b"one");
    let ended = draining(sidecar).await;
    uploading.send("two").await;
    assert_eq!(upload.exactly(3).await, b"two");
    upload.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    assert_eq!(uploading.message().await.status(), 200);
    uploading.finish().await;
    assert!(!ended.is_finished());
    download.send("3\r\ntwo\r\n0\r\n\r\n").await;
    assert_eq!(
        (downloading.chunk().await, downloading.chunk().await),
        (b"two".to_vec(), vec![])
    );
    downloading.ends().await;
    assert!(ended.await.unwrap() < Duration::from_secs(10));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_without_a_request_are_closed_at_once() {
    let legacy = Backend::answering(|r| Reply::text(r.body.clone())).await;
    let sidecar = before(&legacy, "20s");
    let mut silent = Socket::connect(sidecar.address).await;
    let mut used = Socket::connect(sidecar.address).await;
    for body in ["", "body"] {
        used.send(format!(
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ))
        .await;
        assert_eq!(used.message().await.body, body.as_bytes());
    }
    sidecar.wait_for_metric("understudy_connections", &[], 2.0).await;
    let ended = draining(sidecar).await;
    silent.ends().await;
    used.ends().await;
    drop((silent, used));
    let took = ended.await.unwrap();
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_takes_longer_than_the_limit_is_not_waited_for() {
    let legacy = Listener::open().await;
    let sidecar = before(&legacy, "500ms");
    let mut client = Socket::connect(sidecar.address).await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    legacy.accept().await.message().await;
    let mut stalled = Socket::connect(sidecar.address).await;
    stalled.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut backend = legacy.accept().await;
    backend.message().await;
    let took = sidecar.stop().await;
    assert!(
        took >= Duration::from_millis(500) && took < Duration::from_secs(5),
        "{took:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_reached_legacy_is_answered_whole_also_under_load() {
    let legacy = Backend::answering(|r| Reply::text(vec![b'x'; 20_000]).header("x-n", r.header("x-n"))).await;
    let sidecar = before(&legacy, "20s");
    let (answered, address) = (Arc::new(AtomicUsize::new(0)), sidecar.address);
    let shoppers: Vec<_> = (0..16)
        .map(|_| {
            let answered = Arc::clone(&answered);
            tokio::spawn(async move {
                // Until the connection is closed, or refused.
                let mut client = Client::connect(address).await;
                while let Ok(answer) = client
                    .try_send(request(Method::POST, "/", &[("x-n", "1")], "body"))
                    .await
                {
                    assert_eq!((answer.status, answer.body.len()), (200, 20_000));
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    deadline("some load", || answered.load(Ordering::Relaxed) > 200).await;
    let took = draining(sidecar).await.await.unwrap();
    for shopper in shoppers {
        shopper.await.unwrap();
    }
    assert_eq!(
        legacy.count(),
        answered.load(Ordering::Relaxed),
        "what reached legacy was answered"
    );
    assert!(took < Duration::from_secs(10), "{took:?}");
}
