//! What a pool promises to whoever calls it, over real sockets.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::engine::vocab::Side;
use crate::live::backend::Backend;
use crate::live::service::{Ejection, Endpoint, Protocol, Service, Spec};
use crate::live::tally::RunFailure;
use crate::proxy::body::Source;
use crate::proxy::sweep::Sweep;
use crate::telemetry::spawn;

fn pool() -> Arc<Pool> {
    let sweep = Sweep::new();
    drop(spawn::task("sweep", Arc::clone(&sweep).run(|| ())));
    Pool::new(sweep)
}

fn spec(at: SocketAddr) -> Spec {
    Spec {
        side: Side::Legacy,
        endpoints: vec![Endpoint::Host(at.ip().to_string().into(), at.port())],
        protocol: Protocol::Auto,
        idle: Duration::from_secs(2),
        connect_timeout: Duration::from_secs(2),
        dns_refresh: Duration::from_secs(30),
        health: None,
        ejection: Ejection {
            first: Duration::from_secs(1),
            longest: Duration::from_secs(30),
        },
        tls: None,
    }
}

fn backend(at: SocketAddr) -> Arc<Backend> {
    Arc::new(Backend {
        side: Side::Legacy,
        service: Service::new(spec(at), None, Arc::default()),
        connect_timeout: Duration::from_secs(2),
        timeout: Duration::from_secs(2),
        body_idle: None,
        idle: Duration::from_secs(2),
        in_flight_limit: 10,
        in_flight: Arc::default(),
    })
}

const PATIENCE: Patience = Patience {
    answer: Duration::from_secs(2),
    total: None,
};

async fn listen() -> (TcpListener, Arc<Backend>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    (listener, backend(at))
}

fn upgrade() -> http::request::Parts {
    let request = Request::get("/").header("host", "a");
    let request = request.header("connection", "upgrade").header("upgrade", "test");
    request.body(()).unwrap().into_parts().0
}

async fn head_of(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

#[tokio::test]
async fn a_connection_that_changed_its_protocol_is_whoever_asked_for_its() {
    let (listener, backend) = listen().await;
    let pool = pool();
    let server = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let head = head_of(&mut stream).await;
        assert!(
            head.contains("upgrade: test") && head.contains("connection: upgrade"),
            "{head}"
        );
        let answer = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: test\r\n\r\nfirst";
        stream.write_all(answer).await.unwrap();
        let mut heard = [0; 4];
        stream.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"ping");
        stream.write_all(b"pong").await.unwrap();
        assert_eq!(
            stream.read(&mut heard).await.unwrap(),
            0,
            "closed when the tunnel is dropped"
        );
    };
    let source = Source::Whole(Bytes::new(), None);
    let client = async {
        let reply = pool
            .call(&backend, &mut upgrade(), &source, true, PATIENCE)
            .await
            .unwrap();
        let Reply {
            mut response, lease, ..
        } = reply;
        assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
        let mut tunnel = TokioIo::new(hyper::upgrade::on(&mut response).await.unwrap());
        let mut heard = [0; 5];
        tunnel.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"first");
        tunnel.write_all(b"ping").await.unwrap();
        tunnel.read_exact(&mut heard[..4]).await.unwrap();
        assert_eq!(&heard[..4], b"pong");
        assert_eq!(backend.in_flight.load(std::sync::atomic::Ordering::Relaxed), 1);
        drop(lease);
        drop(tunnel);
        assert_eq!(backend.in_flight.load(std::sync::atomic::Ordering::Relaxed), 0);
    };
    tokio::join!(server, client);
}

#[tokio::test]
async fn whoever_did_not_ask_for_another_protocol_gets_none() {
    let (listener, backend) = listen().await;
    let server = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        head_of(&mut stream).await;
        let answer = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: test\r\n\r\n";
        stream.write_all(answer).await.unwrap();
        assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
    };
    let mut head = upgrade();
    head.headers.remove("upgrade");
    let source = Source::Whole(Bytes::new(), None);
    let pool = pool();
    let call = pool.call(&backend, &mut head, &source, true, PATIENCE);
    let (failed, ()) = tokio::join!(async { call.await.map(|_| ()).unwrap_err() }, server);
    assert_eq!((failed.failure, failed.never_reached), (RunFailure::Malformed, false));
}

#[tokio::test]
async fn a_refused_upgrade_is_an_answer_and_its_connection_is_closed() {
    let (listener, backend) = listen().await;
    let server = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        head_of(&mut stream).await;
        let answer = b"HTTP/1.1 426 Upgrade Required\r\ncontent-length: 0\r\n\r\n";
        stream.write_all(answer).await.unwrap();
        assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
    };
    let source = Source::Whole(Bytes::new(), None);
    let pool = pool();
    let client = async {
        let reply = pool
            .call(&backend, &mut upgrade(), &source, true, PATIENCE)
            .await
            .unwrap();
        assert_eq!(reply.response.status(), 426);
        reply.lease.give_back();
    };
    tokio::join!(server, client);
}
