//! Client connections in: accept, share among the workers, serve, drain.
//!
//! Every worker has its own socket on the same address (`SO_REUSEPORT`), so that accepting needs no lock. The kernel
//! spreads connections by their addresses, not by load: a worker with far more than its share passes new ones on.

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener, TcpStream as StdStream};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::Poll;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use socket2::{Domain, Protocol, Socket, Type};
use std::future::Future as _;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, watch};

use super::client::{self, ClientIo};
use super::exchange::exchange;
use super::stage::{Origin, Worker};
use crate::live::Live;
use crate::live::tally::ClientError;
use crate::telemetry::spawn;

/// Connections that wait for the kernel to hand them out.
const BACKLOG: i32 = 4_096;

/// How long to wait when the process has no descriptors left to accept with.
const OUT_OF_DESCRIPTORS: Duration = Duration::from_millis(100);

/// Connections per worker that are told at the same time that there are too many; beyond it they hear nothing.
const REFUSALS: usize = 256;

/// How long such a connection may take to ask and to read the answer.
const REFUSAL: Duration = Duration::from_secs(1);

/// What holds for every client connection.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// The limits on slowness.
    pub client: client::Limits,
    /// The largest header section, in bytes.
    pub header_bytes: usize,
    /// The most header lines.
    pub header_count: usize,
    /// The most connections, over all workers.
    pub connections: usize,
}

/// A connection that one worker passes on to another.
#[derive(Debug)]
pub struct Passed(StdStream, SocketAddr);

/// The ways from every worker to every other.
pub type Neighbours = Arc<[mpsc::Sender<Passed>]>;

/// A worker's end of these ways.
pub type Inbox = mpsc::Receiver<Passed>;

/// Ways between this many workers.
#[must_use]
pub fn neighbours(workers: usize) -> (Neighbours, Vec<Inbox>) {
    let (senders, inboxes): (Vec<_>, Vec<_>) = (0..workers).map(|_| mpsc::channel(256)).unzip();
    (senders.into(), inboxes)
}

/// Opens one socket per worker on an address; port 0 becomes one free port for all of them.
///
/// # Errors
/// When the address cannot be had.
pub fn bind(address: SocketAddr, workers: usize) -> io::Result<Vec<StdListener>> {
    let mut address = address;
    (0..workers)
        .map(|_| {
            let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
            socket.set_reuse_address(true)?;
            socket.set_reuse_port(true)?;
            socket.set_nonblocking(true)?;
            socket.bind(&address.into())?;
            socket.listen(BACKLOG)?;
            let listener = StdListener::from(socket);
            address = listener.local_addr()?;
            Ok(listener)
        })
        .collect()
}

/// Serves until `drain` turns true, then until the last connection has ended.
///
/// # Errors
/// When a listener cannot be registered with the runtime.
pub async fn run(
    worker: Arc<Worker>,
    listeners: Vec<StdListener>,
    settings: Settings,
    neighbours: Neighbours,
    mut inbox: Inbox,
    mut drain: watch::Receiver<bool>,
) -> io::Result<()> {
    let listeners = listeners
        .into_iter()
        .map(TcpListener::from_std)
        .collect::<io::Result<Vec<_>>>()?;
    let (serving, mut served) = mpsc::channel::<()>(1);
    let refusals = Arc::new(Semaphore::new(REFUSALS));
    let door = Door {
        worker,
        settings,
        neighbours,
        drain: drain.clone(),
        serving,
        refusals,
    };
    loop {
        tokio::select! {
            accepted = accept(&listeners) => match accepted {
                Ok((stream, peer)) => door.admit(stream, peer),
                // The connection is gone already, or there is nothing to accept it with.
                Err(error) if is_transient(&error) => {}
                Err(_) => tokio::time::sleep(OUT_OF_DESCRIPTORS).await,
            },
            Some(Passed(stream, peer)) = inbox.recv() => door.take(stream, peer),
            () = ended(&mut drain) => break,
        }
    }
    // What the kernel has already handed to this socket would be lost with it.
    while let Some(Ok((stream, peer))) = now_or_never(&listeners).await {
        door.take_accepted(stream, peer);
    }
    drop(listeners);
    inbox.close();
    while let Some(Passed(stream, peer)) = inbox.recv().await {
        door.take(stream, peer);
    }
    drop(door);
    // Nothing is ever sent: this ends when the last connection has dropped its end.
    let _ = served.recv().await;
    Ok(())
}

async fn ended(drain: &mut watch::Receiver<bool>) {
    // An error means that nobody is left who could end it, which is the same.
    let _ = drain.wait_for(|draining| *draining).await;
}

async fn accept(listeners: &[TcpListener]) -> io::Result<(TcpStream, SocketAddr)> {
    poll_fn(|cx| {
        for listener in listeners {
            if let Poll::Ready(accepted) = listener.poll_accept(cx) {
                return Poll::Ready(accepted);
            }
        }
        Poll::Pending
    })
    .await
}

async fn now_or_never(listeners: &[TcpListener]) -> Option<io::Result<(TcpStream, SocketAddr)>> {
    let mut accepting = pin!(accept(listeners));
    poll_fn(|cx| {
        Poll::Ready(match accepting.as_mut().poll(cx) {
            Poll::Ready(accepted) => Some(accepted),
            Poll::Pending => None,
        })
    })
    .await
}

fn is_transient(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset
    )
}

struct Door {
    worker: Arc<Worker>,
    settings: Settings,
    neighbours: Neighbours,
    drain: watch::Receiver<bool>,
    serving: mpsc::Sender<()>,
    refusals: Arc<Semaphore>,
}

impl Door {
    fn admit(&self, stream: TcpStream, peer: SocketAddr) {
        match less_loaded(&self.worker.live, self.worker.shard) {
            Some(other) => {
                let Ok(stream) = stream.into_std() else { return };
                if let Err(refused) = self.neighbours[other].try_send(Passed(stream, peer)) {
                    let Passed(stream, peer) = refused.into_inner();
                    self.take(stream, peer);
                }
            }
            None => self.take_accepted(stream, peer),
        }
    }

    fn take(&self, stream: StdStream, peer: SocketAddr) {
        if let Ok(stream) = TcpStream::from_std(stream) {
            self.take_accepted(stream, peer);
        }
    }

    fn take_accepted(&self, stream: TcpStream, peer: SocketAddr) {
        let worker = &self.worker;
        let open: usize = worker.live.connections.iter().map(|n| n.load(Relaxed)).sum();
        if open >= self.settings.connections {
            worker.tally.client_errors.add(ClientError::TooMany);
            if let Ok(permit) = Arc::clone(&self.refusals).try_acquire_owned() {
                drop(spawn::task("refusal", async move {
                    // Whoever takes longer is closed all the same.
                    let _ = tokio::time::timeout(REFUSAL, refuse(stream)).await;
                    drop(permit);
                }));
            }
            return;
        }
        worker.tally.accepted.add();
        let counted = Counted::new(Arc::clone(&worker.live), worker.shard);
        let connection = serve(Arc::clone(worker), self.settings, stream, peer, self.drain.clone());
        let serving = self.serving.clone();
        drop(spawn::task("connection", async move {
            connection.await;
            drop((counted, serving));
        }));
    }
}

/// Answers whatever is asked with 503.
async fn refuse(mut stream: TcpStream) -> io::Result<()> {
    const ANSWER: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\ncontent-length: 0\r\n\
        retry-after: 1\r\nx-understudy-error: too_many_connections\r\n\r\n";
    let mut unread = [0; 1_024];
    // A client that is answered before it has asked takes the answer for a fault.
    if stream.read(&mut unread).await? == 0 {
        return Ok(());
    }
    stream.write_all(ANSWER).await?;
    stream.shutdown().await?;
    // Closing on bytes that nobody read resets the connection, and the answer with it.
    while stream.read(&mut unread).await? > 0 {}
    Ok(())
}

/// Another worker, if this one has over 1.5 times the mean of connections.
fn less_loaded(live: &Live, shard: usize) -> Option<usize> {
    let counts = || live.connections.iter().map(|n| n.load(Relaxed));
    let own = counts().nth(shard)? + 1;
    let all = counts().sum::<usize>() + 1;
    if own * 2 * live.connections.len() <= all * 3 {
        return None;
    }
    counts()
        .enumerate()
        .min_by_key(|(_, n)| *n)
        .map(|(at, _)| at)
        .filter(|at| *at != shard)
}

struct Counted(Arc<Live>, usize);

impl Counted {
    fn new(live: Arc<Live>, shard: usize) -> Self {
        live.connections[shard].fetch_add(1, Relaxed);
        Self(live, shard)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.connections[self.1].fetch_sub(1, Relaxed);
    }
}

async fn serve(
    worker: Arc<Worker>,
    settings: Settings,
    stream: TcpStream,
    peer: SocketAddr,
    mut drain: watch::Receiver<bool>,
) {
    // Without it a small answer waits for the client's acknowledgement of the one before.
    let _ = stream.set_nodelay(true);
    let local_port = stream.local_addr().map_or(0, |address| address.port());
    let (io, turn) = ClientIo::new(stream, &worker.sweep, settings.client, Arc::clone(&worker.tally));
    let origin = Origin { peer, local_port, turn };
    let tally = Arc::clone(&worker.tally);
    let service = service_fn(move |request| {
        // Boxed, so that a connection without a request under way costs no more than its buffers.
        let answer = Box::pin(exchange(Arc::clone(&worker), origin.clone(), request));
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let connection = http1::Builder::new()
        .max_headers(settings.header_count)
        .max_header_size(settings.header_bytes)
        .max_buf_size(settings.header_bytes.max(MIN_BUFFER))
        .serve_connection(TokioIo::new(io), service);
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = ended(&mut drain) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        if error.is_parse_too_large() {
            tally.client_errors.add(ClientError::HeadersTooLarge);
        } else if error.is_parse() {
            tally.client_errors.add(ClientError::Malformed);
        }
    }
}

// The library takes no smaller buffer.
const MIN_BUFFER: usize = 8_192;
