//! Many at once who want nothing good.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::schedule::Flood;

/// How many take part: fewer than the instance takes connections, so that others still get in.
const MANY: usize = 120;

/// How long each goes on.
const LENGTH: Duration = Duration::from_secs(2);

pub async fn run(address: SocketAddr, flood: Flood) {
    let mut all = tokio::task::JoinSet::new();
    for _ in 0..MANY {
        all.spawn(tokio::time::timeout(LENGTH, one(address, flood)));
    }
    while all.join_next().await.is_some() {}
}

async fn one(address: SocketAddr, flood: Flood) {
    let socket = TcpSocket::new_v4().unwrap();
    if flood == Flood::Unread {
        let _ = socket.set_recv_buffer_size(4_096);
    }
    let Ok(mut stream) = socket.connect(address).await else {
        return;
    };
    match flood {
        Flood::Idle => {}
        Flood::SlowHeaders => {
            for byte in b"GET /plain/slow HTTP/1.1\r\nHost: a\r\nX-Slow: ".iter().cycle() {
                if stream.write_all(&[*byte]).await.is_err() {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        Flood::Garbage => {
            let _ = stream.write_all(&[b'\x16'; 20_000]).await;
        }
        Flood::Pipelines => {
            let many = "GET /plain/many HTTP/1.1\r\nHost: a\r\n\r\n".repeat(200);
            let _ = stream.write_all(many.as_bytes()).await;
        }
        Flood::Uploads => {
            let _ = stream
                .write_all(b"POST /shadowed/upload HTTP/1.1\r\nHost: a\r\nContent-Length: 90000000\r\n\r\n")
                .await;
            let part = [b'x'; 8_192];
            while stream.write_all(&part).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        Flood::Unread => unread(&mut stream).await,
    }
    let mut sink = [0; 4_096];
    if flood != Flood::Unread {
        while stream.read(&mut sink).await.unwrap_or(0) > 0 {}
    }
}

// Asks again and again without reading an answer.
async fn unread(stream: &mut TcpStream) {
    let many = "GET /plain/unread HTTP/1.1\r\nHost: a\r\n\r\n".repeat(50);
    while stream.write_all(many.as_bytes()).await.is_ok() {}
}
