//! Sockets that the test itself writes and reads, byte for byte: for what a library would not say, or not bit by bit.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use super::PATIENCE;

/// One end of a connection: a client's, or a backend's.
pub struct Socket<S = TcpStream> {
    stream: S,
    arrived: Vec<u8>,
}

/// A request or an answer as it stood on the wire; the body without its framing.
#[derive(Clone, Debug, Default)]
pub struct Message {
    /// The request line or the status line.
    pub start: String,
    pub headers: Vec<(String, Vec<u8>)>,
    pub body: Vec<u8>,
}

impl Message {
    /// The code of a status line.
    pub fn status(&self) -> u16 {
        let code = self.start.split(' ').nth(1).and_then(|code| code.parse().ok());
        code.unwrap_or_else(|| panic!("no status line: {:?}", self.start))
    }

    /// Every value of a header, in order.
    pub fn all(&self, name: &str) -> Vec<&[u8]> {
        let lines = self
            .headers
            .iter()
            .filter(|(known, _)| known.eq_ignore_ascii_case(name));
        lines.map(|(_, value)| &**value).collect()
    }

    /// The first value of a header; empty without one.
    pub fn header(&self, name: &str) -> &str {
        self.all(name)
            .first()
            .map_or("", |value| std::str::from_utf8(value).unwrap())
    }

    pub fn has(&self, name: &str) -> bool {
        !self.all(name).is_empty()
    }
}

impl Socket {
    pub async fn connect(address: SocketAddr) -> Self {
        Self::tcp(TcpStream::connect(address).await.unwrap())
    }

    /// The address that the other side sees.
    #[allow(dead_code, reason = "each binary of tests uses its part")]
    pub fn local(&self) -> SocketAddr {
        self.stream.local_addr().unwrap()
    }

    fn tcp(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        Self::over(stream)
    }

    /// Makes the kernel take no more than about this many bytes that the test has not read.
    pub async fn connect_with_small_window(address: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4_096).unwrap();
        Self::tcp(socket.connect(address).await.unwrap())
    }

    /// Breaks the connection so that the other side sees a reset.
    pub fn reset(self) {
        socket2::SockRef::from(&self.stream)
            .set_linger(Some(Duration::ZERO))
            .unwrap();
    }

    /// Waits until there is something to read, and leaves it unread.
    pub async fn is_spoken_to(&mut self) {
        assert_eq!(
            within("something to read", self.stream.peek(&mut [0])).await.unwrap(),
            1
        );
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Socket<S> {
    /// Whatever kind of stream it is.
    pub fn over(stream: S) -> Self {
        Self {
            stream,
            arrived: Vec::new(),
        }
    }

    /// What is under it.
    pub fn stream(&self) -> &S {
        &self.stream
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        assert!(self.try_send(bytes).await, "the other side closed while the test wrote");
    }

    /// Writes; false when the other side has closed.
    pub async fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        let writing = self.stream.write_all(bytes.as_ref());
        within("the other side to read", writing).await.is_ok()
    }

    /// Tells the other side that nothing more will come.
    pub async fn finish(&mut self) {
        self.stream.shutdown().await.unwrap();
    }

    // False at the end of the stream, however it ended.
    async fn read_more(&mut self) -> bool {
        self.arrived.reserve(64 * 1_024);
        within("more bytes", self.stream.read_buf(&mut self.arrived))
            .await
            .unwrap_or(0)
            > 0
    }

    /// Whether something has come that the test has not read.
    pub async fn has_answer(&mut self) -> bool {
        let reading = self.stream.read_buf(&mut self.arrived);
        let ended = tokio::time::timeout(Duration::from_millis(1), reading).await;
        ended.is_ok() || !self.arrived.is_empty()
    }

    /// The next `n` bytes.
    pub async fn exactly(&mut self, n: usize) -> Vec<u8> {
        while self.arrived.len() < n {
            assert!(
                self.read_more().await,
                "closed after: {}",
                String::from_utf8_lossy(&self.arrived)
            );
        }
        self.arrived.drain(..n).collect()
    }

    /// The next `n` bytes, if the connection does not end first.
    #[allow(dead_code, reason = "each binary of tests uses its part")]
    pub async fn try_exactly(&mut self, n: usize) -> Option<Vec<u8>> {
        while self.arrived.len() < n {
            if !self.read_more().await {
                return None;
            }
        }
        Some(self.arrived.drain(..n).collect())
    }

    /// Reads as many bytes as these, without keeping them; tells whether they were the same.
    pub async fn is_next(&mut self, expected: &[u8]) -> bool {
        let (mut at, mut same) = (0, true);
        while at < expected.len() {
            if self.arrived.is_empty() && !self.read_more().await {
                return false;
            }
            let taken = self.arrived.len().min(expected.len() - at);
            same &= self.arrived[..taken] == expected[at..at + taken];
            self.arrived.drain(..taken);
            at += taken;
        }
        same
    }

    /// Whatever comes until the other side closes.
    pub async fn rest(&mut self) -> Vec<u8> {
        while self.read_more().await {}
        std::mem::take(&mut self.arrived)
    }

    /// Waits until the other side has closed, without a further byte.
    pub async fn ends(&mut self) {
        let rest = self.rest().await;
        assert!(rest.is_empty(), "before the end: {}", String::from_utf8_lossy(&rest));
    }

    /// The next header section, if the connection does not end first.
    pub async fn try_head(&mut self) -> Option<Message> {
        let end = loop {
            if let Some(at) = self.arrived.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            if !self.read_more().await {
                return None;
            }
        };
        let section: Vec<u8> = self.arrived.drain(..end).collect();
        let mut lines = section[..end - 4]
            .split(|byte| *byte == b'\n')
            .map(|line| line.strip_suffix(b"\r").unwrap_or(line));
        let start = String::from_utf8_lossy(lines.next().unwrap()).into_owned();
        let headers = lines
            .map(|line| {
                let colon = line.iter().position(|byte| *byte == b':').unwrap();
                (
                    String::from_utf8_lossy(&line[..colon]).into_owned(),
                    line[colon + 1..].trim_ascii().to_vec(),
                )
            })
            .collect();
        Some(Message {
            start,
            headers,
            body: Vec::new(),
        })
    }

    /// The next header section.
    pub async fn head(&mut self) -> Message {
        let head = self.try_head().await;
        head.unwrap_or_else(|| panic!("closed after: {}", String::from_utf8_lossy(&self.arrived)))
    }

    /// The next chunk of a chunked body; the last one is empty.
    pub async fn chunk(&mut self) -> Vec<u8> {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            line.extend(self.exactly(1).await);
        }
        let digits = String::from_utf8(line).unwrap();
        let size = usize::from_str_radix(digits.trim_end(), 16).unwrap();
        let mut chunk = self.exactly(size + 2).await;
        assert_eq!(chunk.split_off(size), b"\r\n");
        chunk
    }

    /// The next message, whole. Interim answers that tell of the final one are passed over.
    pub async fn message(&mut self) -> Message {
        let mut message = self.head().await;
        while message.start.starts_with("HTTP/") && (102..200).contains(&message.status()) {
            message = self.head().await;
        }
        if message.header("transfer-encoding") == "chunked" {
            loop {
                let chunk = self.chunk().await;
                if chunk.is_empty() {
                    break;
                }
                message.body.extend(chunk);
            }
        } else if message.has("content-length") {
            let length = message.header("content-length").parse().unwrap();
            message.body = self.exactly(length).await;
        }
        message
    }
}

/// A backend whose every byte the test writes.
pub struct Listener {
    pub address: SocketAddr,
    listener: TcpListener,
}

impl Listener {
    pub async fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self {
            address: listener.local_addr().unwrap(),
            listener,
        }
    }

    /// One whose kernel takes little that the test does not read.
    pub fn open_with_small_window() -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(32 * 1_024).unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(1_024).unwrap();
        Self {
            address: listener.local_addr().unwrap(),
            listener,
        }
    }

    /// The next connection.
    pub async fn accept(&self) -> Socket {
        let (stream, _) = within("a connection", self.listener.accept()).await.unwrap();
        Socket::tcp(stream)
    }

    /// The connection that waits to be accepted, if one does.
    pub async fn accept_now(&self) -> Option<Socket> {
        let accepted = tokio::time::timeout(Duration::from_millis(1), self.listener.accept()).await;
        accepted.ok().map(|accepted| Socket::tcp(accepted.unwrap().0))
    }
}

/// An address that neither takes nor refuses a connection.
pub struct Blackhole {
    pub address: SocketAddr,
    _listener: std::net::TcpListener,
    _queued: Vec<TcpStream>,
}

impl Blackhole {
    pub async fn open() -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(1).unwrap().into_std().unwrap();
        let address = listener.local_addr().unwrap();
        let mut queued = Vec::new();
        // Nobody accepts: once the queue is full, the kernel drops whatever else asks to connect.
        while let Ok(stream) = tokio::time::timeout(Duration::from_millis(200), TcpStream::connect(address)).await {
            queued.push(stream.unwrap());
        }
        Self {
            address,
            _listener: listener,
            _queued: queued,
        }
    }
}

/// An address that refuses every connection.
pub struct Nobody {
    pub address: SocketAddr,
    // Bound and not listening, so that nobody else gets the port meanwhile.
    _socket: TcpSocket,
}

impl Nobody {
    pub fn open() -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        Self {
            address: socket.local_addr().unwrap(),
            _socket: socket,
        }
    }
}

async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    let done = tokio::time::timeout(PATIENCE, future).await;
    done.unwrap_or_else(|_| panic!("waited in vain for {what}"))
}
