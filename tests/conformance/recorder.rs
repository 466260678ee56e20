//! A backend that keeps every byte it gets, reads them as strictly as can be, and answers what it could read.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::strict::{self, Kind, Strict};
use crate::support::{Located, deadline};

#[derive(Default)]
struct Shared {
    messages: Mutex<Vec<Strict>>,
    errors: Mutex<Vec<String>>,
}

/// Answers every request with its own body.
pub struct Recorder {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

impl Located for Recorder {
    fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Recorder {
    pub async fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared::default());
        let kept = Arc::clone(&shared);
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(record(stream, Arc::clone(&kept)));
            }
        });
        Self {
            address,
            shared,
            accepting,
        }
    }

    /// Every message so far that could be read.
    pub fn messages(&self) -> Vec<Strict> {
        self.shared.messages.lock().unwrap().clone()
    }

    /// The messages for this target.
    pub fn to(&self, target: &str) -> Vec<Strict> {
        self.messages().into_iter().filter(|m| m.second() == target).collect()
    }

    /// Waits for the first message to this target.
    pub async fn wait_for(&self, target: &str) -> Strict {
        deadline(&format!("a message to {target}"), || !self.to(target).is_empty()).await;
        self.to(target).remove(0)
    }

    /// What could not be read, or was left unfinished.
    pub fn errors(&self) -> Vec<String> {
        self.shared.errors.lock().unwrap().clone()
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn record(mut stream: TcpStream, shared: Arc<Shared>) {
    let mut bytes = Vec::new();
    loop {
        match strict::read(&bytes, Kind::Request, false) {
            Ok(Some((message, taken))) => {
                bytes.drain(..taken);
                let mut answer =
                    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", message.body.len()).into_bytes();
                if !message.start.starts_with("HEAD ") {
                    answer.extend_from_slice(&message.body);
                }
                shared.messages.lock().unwrap().push(message);
                if stream.write_all(&answer).await.is_err() {
                    return;
                }
                continue;
            }
            Ok(None) => {}
            Err(why) => {
                shared.errors.lock().unwrap().push(why);
                return;
            }
        }
        if stream.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
            if !bytes.is_empty() {
                let shown = String::from_utf8_lossy(&bytes).chars().take(200).collect::<String>();
                shared.errors.lock().unwrap().push(format!("unfinished: {shown:?}"));
            }
            return;
        }
    }
}
