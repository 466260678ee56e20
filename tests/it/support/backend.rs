//! Backends that do as they are told, and keep what they received byte for byte.

use std::convert::Infallible;
use std::future::pending;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket};
use tokio::task::JoinHandle;

use super::deadline;

/// A request as a backend got it.
#[derive(Clone, Debug)]
pub struct Received {
    pub method: Method,
    pub target: String,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Received {
    pub fn is_copy(&self) -> bool {
        self.headers.get("x-understudy-shadow").is_some_and(|v| v == "1")
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |v| v.to_str().unwrap())
    }
}

/// An answer as a backend is to give it.
#[derive(Clone, Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Bytes,
    pub delay: Duration,
    /// Break off after this many bytes of the body.
    pub cut_after: Option<usize>,
}

impl Reply {
    pub fn text(body: impl Into<Bytes>) -> Self {
        Self {
            status: 200,
            headers: vec![],
            body: body.into(),
            delay: Duration::ZERO,
            cut_after: None,
        }
    }

    pub fn json(body: impl Into<Bytes>) -> Self {
        Self::text(body).header("content-type", "application/json")
    }

    pub fn status(status: u16) -> Self {
        Self {
            status,
            ..Self::text("")
        }
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn after(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }
}

type Answer = Arc<dyn Fn(&Received) -> Reply + Send + Sync>;

/// What a backend does with a request, or with a connection.
#[derive(Clone)]
pub enum Script {
    /// Reads the request whole and answers it.
    Answer(Answer),
    /// Reads the request whole and closes the connection without a word.
    CloseWithoutAnswer,
    /// Reads the request whole and never answers.
    Stall,
    /// Accepts and never reads a byte.
    NeverRead,
    /// Accepts and resets at once.
    ResetOnAccept,
    /// Resets as soon as anything of a request has arrived.
    ResetWhenAsked,
    /// Writes these bytes to whoever connects, whatever was asked, then closes.
    Raw(&'static [u8]),
}

struct Shared {
    script: Mutex<Script>,
    received: Mutex<Vec<Received>>,
    connections: AtomicUsize,
    open: Arc<AtomicUsize>,
}

/// A backend on a free port of the loopback.
pub struct Backend {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
    close: tokio::sync::watch::Sender<bool>,
}

impl Backend {
    pub async fn answering(answer: impl Fn(&Received) -> Reply + Send + Sync + 'static) -> Self {
        Self::start(Script::Answer(Arc::new(answer))).await
    }

    /// Answers everything with this text.
    pub async fn saying(text: &'static str) -> Self {
        Self::answering(move |_| Reply::text(text)).await
    }

    pub async fn start(script: Script) -> Self {
        Self::start_at(([127, 0, 0, 1], 0).into(), script).await
    }

    /// On an address of the loopback that the test chooses.
    pub async fn start_at(address: SocketAddr, script: Script) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            script: Mutex::new(script),
            received: Mutex::default(),
            connections: AtomicUsize::new(0),
            open: Arc::default(),
        });
        let (close, closed) = tokio::sync::watch::channel(false);
        let accepting = tokio::spawn(accept(listener, Arc::clone(&shared), closed));
        Self {
            address,
            shared,
            accepting: Some(accepting),
            close,
        }
    }

    pub fn set(&self, script: Script) {
        *self.shared.script.lock().unwrap() = script;
    }

    pub fn answer(&self, answer: impl Fn(&Received) -> Reply + Send + Sync + 'static) {
        self.set(Script::Answer(Arc::new(answer)));
    }

    /// Everything received so far.
    pub fn received(&self) -> Vec<Received> {
        self.shared.received.lock().unwrap().clone()
    }

    pub fn count(&self) -> usize {
        self.shared.received.lock().unwrap().len()
    }

    /// Connections accepted so far.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Connections open now.
    pub fn open(&self) -> usize {
        self.shared.open.load(Ordering::SeqCst)
    }

    /// Waits until at least `n` requests have been received.
    pub async fn wait_for(&self, n: usize) -> Vec<Received> {
        deadline(&format!("{n} requests at a backend"), || self.count() >= n).await;
        self.received()
    }

    /// Closes the listener and all connections: the port refuses from now on.
    pub async fn go_away(&mut self) {
        if let Some(accepting) = self.accepting.take() {
            accepting.abort();
            let _ = accepting.await;
        }
        self.close.send_replace(true);
        deadline("a backend's connections to close", || self.open() == 0).await;
    }

    /// Listens again on the same port.
    pub fn come_back(&mut self) {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind(self.address).unwrap();
        let listener = socket.listen(1024).unwrap();
        let (close, closed) = tokio::sync::watch::channel(false);
        self.close = close;
        self.accepting = Some(tokio::spawn(accept(listener, Arc::clone(&self.shared), closed)));
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        if let Some(accepting) = self.accepting.take() {
            accepting.abort();
        }
        self.close.send_replace(true);
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>, closed: tokio::sync::watch::Receiver<bool>) {
    while let Ok((stream, _)) = listener.accept().await {
        shared.connections.fetch_add(1, Ordering::SeqCst);
        shared.open.fetch_add(1, Ordering::SeqCst);
        let shared = Arc::clone(&shared);
        let mut closed = closed.clone();
        tokio::spawn(async move {
            let open = Arc::clone(&shared.open);
            tokio::select! {
                () = serve(stream, shared) => {}
                _ = closed.wait_for(|closed| *closed) => {}
            }
            open.fetch_sub(1, Ordering::SeqCst);
        });
    }
}

async fn serve(mut stream: tokio::net::TcpStream, shared: Arc<Shared>) {
    let script = shared.script.lock().unwrap().clone();
    stream.set_nodelay(true).unwrap();
    match script {
        Script::NeverRead => pending().await,
        Script::ResetOnAccept => {
            socket2::SockRef::from(&stream)
                .set_linger(Some(Duration::ZERO))
                .unwrap();
            return;
        }
        Script::ResetWhenAsked => {
            let _ = stream.read(&mut [0; 1_024]).await;
            socket2::SockRef::from(&stream)
                .set_linger(Some(Duration::ZERO))
                .unwrap();
            return;
        }
        Script::Raw(bytes) => {
            let mut some = [0; 4096];
            let _ = stream.read(&mut some).await;
            let _ = stream.write_all(bytes).await;
            let _ = stream.shutdown().await;
            return;
        }
        _ => {}
    }
    let service = service_fn(move |request| handle(request, Arc::clone(&shared)));
    let _ = http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

async fn handle(request: Request<Incoming>, shared: Arc<Shared>) -> Result<Response<MaybeCut>, &'static str> {
    let (head, body) = request.into_parts();
    // A body that breaks off is no request: nothing is kept of it.
    let body = body.collect().await.map_err(|_| "the body broke off")?.to_bytes();
    let target = head.uri.to_string();
    let received = Received {
        method: head.method,
        target,
        headers: head.headers,
        body,
    };
    shared.received.lock().unwrap().push(received.clone());
    let script = shared.script.lock().unwrap().clone();
    let reply = match script {
        Script::Answer(answer) => answer(&received),
        Script::Stall => pending().await,
        _ => return Err("told to close"),
    };
    if !reply.delay.is_zero() {
        tokio::time::sleep(reply.delay).await;
    }
    let mut response = Response::builder().status(reply.status);
    for (name, value) in &reply.headers {
        response = response.header(name, value);
    }
    Ok(response.body(MaybeCut::new(reply.body, reply.cut_after)).unwrap())
}

/// A body that may promise more than it gives.
struct MaybeCut {
    whole: Full<Bytes>,
    promised: u64,
    cut: Option<Bytes>,
    is_cut: bool,
}

impl MaybeCut {
    fn new(body: Bytes, cut_after: Option<usize>) -> Self {
        let promised = body.len() as u64;
        let cut = cut_after.map(|at| body.slice(..at));
        Self {
            whole: Full::new(body),
            promised,
            is_cut: cut.is_some(),
            cut,
        }
    }
}

impl Body for MaybeCut {
    type Data = Bytes;
    type Error = &'static str;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, &'static str>>> {
        if let Some(part) = self.cut.take().filter(|part| !part.is_empty()) {
            return Poll::Ready(Some(Ok(Frame::data(part))));
        }
        if self.is_cut {
            return Poll::Ready(Some(Err("cut")));
        }
        Pin::new(&mut self.whole)
            .poll_frame(cx)
            .map(|f| f.map(|f| f.map_err(|never: Infallible| match never {})))
    }

    fn is_end_stream(&self) -> bool {
        !self.is_cut && self.whole.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        http_body::SizeHint::with_exact(self.promised)
    }
}
