//! A backend that answers by what is asked: each target has its own act, byte for byte, and everything is recorded.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::support::{Located, deadline};

/// What a backend does with one request.
#[derive(Clone, Debug)]
pub enum Act {
    /// Writes these bytes once the header section is there, and goes on reading.
    Say(Vec<u8>),
    /// The same, then closes.
    SayAndClose(Vec<u8>),
    /// The same, then resets.
    SayAndReset(Vec<u8>),
    /// Reads, and says nothing.
    Silence,
    /// Closes after so many bytes of the body.
    CloseAfter(usize),
    /// Resets after so many bytes of the body.
    ResetAfter(usize),
}

/// One request that began to arrive.
#[derive(Clone, Debug)]
pub struct Asked {
    pub connection: usize,
    pub target: String,
}

type Choose = dyn Fn(&str) -> Act + Send + Sync;

struct Shared {
    choose: Box<Choose>,
    asked: Mutex<Vec<Asked>>,
    connections: AtomicUsize,
    open: AtomicUsize,
}

pub struct Scripted {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

impl Located for Scripted {
    fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Scripted {
    pub async fn new(choose: impl Fn(&str) -> Act + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            choose: Box::new(choose),
            asked: Mutex::default(),
            connections: AtomicUsize::new(0),
            open: AtomicUsize::new(0),
        });
        let kept = Arc::clone(&shared);
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let connection = kept.connections.fetch_add(1, Ordering::SeqCst);
                let shared = Arc::clone(&kept);
                tokio::spawn(async move {
                    shared.open.fetch_add(1, Ordering::SeqCst);
                    act(stream, connection, &shared).await;
                    shared.open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Self {
            address,
            shared,
            accepting,
        }
    }

    /// Every request that began to arrive.
    pub fn asked(&self) -> Vec<Asked> {
        self.shared.asked.lock().unwrap().clone()
    }

    /// How often this target was asked for.
    pub fn times(&self, target: &str) -> usize {
        self.asked().iter().filter(|asked| asked.target == target).count()
    }

    /// Waits until no connection is open.
    pub async fn left_alone(&self) {
        deadline("the backend's connections to be closed", || self.open() == 0).await;
    }

    /// Connections open now.
    pub fn open(&self) -> usize {
        self.shared.open.load(Ordering::SeqCst)
    }
}

async fn act(mut stream: TcpStream, connection: usize, shared: &Shared) {
    let _ = stream.set_nodelay(true);
    let reset = |stream: &TcpStream| socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
    let mut bytes = Vec::new();
    loop {
        let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
            if stream.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
                return;
            }
            continue;
        };
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        bytes.drain(..end + 4);
        let target = head.split(' ').nth(1).unwrap_or_default().to_owned();
        let chosen = (shared.choose)(&target);
        shared.asked.lock().unwrap().push(Asked { connection, target });
        match chosen {
            Act::Say(said) => {
                if stream.write_all(&said).await.is_err() {
                    return;
                }
            }
            Act::SayAndClose(said) => {
                let _ = stream.write_all(&said).await;
                let _ = stream.shutdown().await;
                while stream.read_buf(&mut bytes).await.unwrap_or(0) > 0 {}
                return;
            }
            Act::SayAndReset(said) => {
                let _ = stream.write_all(&said).await;
                // The bytes have to be on their way before the reset overtakes them.
                tokio::time::sleep(Duration::from_millis(50)).await;
                let _ = reset(&stream);
                return;
            }
            Act::Silence => {
                while stream.read_buf(&mut bytes).await.unwrap_or(0) > 0 {
                    bytes.clear();
                }
                return;
            }
            Act::CloseAfter(n) | Act::ResetAfter(n) => {
                while bytes.len() < n && stream.read_buf(&mut bytes).await.unwrap_or(0) > 0 {}
                if matches!(chosen, Act::ResetAfter(_)) {
                    let _ = reset(&stream);
                }
                return;
            }
        }
    }
}

/// Answers cut at each place behind their heads, and who gives them: to `/N/close` the one with that number and a close, to
/// `/N/reset` with a reset.
pub async fn cut_answers() -> (Vec<String>, Scripted) {
    let whole = [
        "HTTP/1.1 200 OK\r\nContent-Length: 30\r\n\r\n012345678901234567890123456789",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6;x\r\n world\r\n0\r\nX-T: 1\r\n\r\n",
    ];
    let answers: Vec<String> = whole
        .iter()
        .flat_map(|whole| {
            let body_at = whole.find("\r\n\r\n").unwrap() + 4;
            (body_at..whole.len()).map(|at| whole[..at].to_owned())
        })
        .collect();
    let all = answers.clone();
    let legacy = Scripted::new(move |target| {
        let number: usize = target[1..].split('/').next().unwrap().parse().unwrap();
        let said = all[number].clone().into_bytes();
        if target.ends_with("/reset") {
            Act::SayAndReset(said)
        } else {
            Act::SayAndClose(said)
        }
    })
    .await;
    (answers, legacy)
}
