//! Client connections in: open, accept, share among the workers, drain.
//!
//! Every worker has its own socket on the same address (`SO_REUSEPORT`), so that accepting needs no lock. The kernel
//! spreads connections by their addresses, not by load: a worker with far more than its share passes new ones on. A
//! socket file has one queue, from which all workers accept. What is done with a connection is the `door`'s.

use std::future::{Future as _, poll_fn};
use std::io;
use std::net::{SocketAddr, TcpListener as StdTcpListener, TcpStream as StdTcpStream};
use std::os::unix::net::{UnixListener as StdUnixListener, UnixStream as StdUnixStream};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{mpsc, watch};

use super::connection::Ending;
use super::door::{Door, Settings};
use super::entrance::Entrance;
use super::socket::{Peer, Stream};
use super::stage::Worker;
use crate::live::Live;

/// Connections that wait for the kernel to hand them out.
pub const BACKLOG: i32 = 4_096;

/// How long to wait when the process has no descriptors left to accept with.
const OUT_OF_DESCRIPTORS: Duration = Duration::from_millis(100);

/// A socket that connections wait at, before a runtime has it, and how they get in from there.
#[derive(Debug)]
pub struct Listening {
    /// The socket.
    pub queue: Queue,
    /// The way in.
    pub entrance: Arc<Entrance>,
}

/// A socket that connections wait at.
#[derive(Debug)]
pub enum Queue {
    /// At an address of the network.
    Tcp(StdTcpListener),
    /// At a socket file.
    Unix(StdUnixListener),
}

struct Listener {
    queue: Bound,
    entrance: Arc<Entrance>,
}

enum Bound {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    fn new(listening: Listening) -> io::Result<Self> {
        let queue = match listening.queue {
            Queue::Tcp(socket) => Bound::Tcp(TcpListener::from_std(socket)?),
            Queue::Unix(socket) => Bound::Unix(UnixListener::from_std(socket)?),
        };
        Ok(Self {
            queue,
            entrance: listening.entrance,
        })
    }

    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<Accepted>> {
        let accepted = match &self.queue {
            Bound::Tcp(socket) => socket
                .poll_accept(cx)
                .map_ok(|(stream, address)| (Stream::Tcp(stream), Some(address))),
            Bound::Unix(socket) => socket
                .poll_accept(cx)
                .map_ok(|(stream, _)| (Stream::Unix(stream), None)),
        };
        accepted.map_ok(|(stream, address)| Accepted {
            stream,
            address,
            entrance: Arc::clone(&self.entrance),
        })
    }
}

struct Accepted {
    stream: Stream,
    address: Option<SocketAddr>,
    entrance: Arc<Entrance>,
}

/// A connection that one worker passes on to another.
#[derive(Debug)]
pub struct Passed {
    stream: Unbound,
    address: Option<SocketAddr>,
    entrance: Arc<Entrance>,
}

/// A stream that no runtime has.
#[derive(Debug)]
enum Unbound {
    Tcp(StdTcpStream),
    Unix(StdUnixStream),
}

impl Passed {
    fn new(accepted: Accepted) -> io::Result<Self> {
        let stream = match accepted.stream {
            Stream::Tcp(stream) => Unbound::Tcp(stream.into_std()?),
            Stream::Unix(stream) => Unbound::Unix(stream.into_std()?),
            // Handshakes come after the door.
            Stream::Tls(_) => return Err(io::ErrorKind::Unsupported.into()),
        };
        Ok(Self {
            stream,
            address: accepted.address,
            entrance: accepted.entrance,
        })
    }

    fn take(self) -> io::Result<Accepted> {
        let stream = match self.stream {
            Unbound::Tcp(stream) => Stream::Tcp(TcpStream::from_std(stream)?),
            Unbound::Unix(stream) => Stream::Unix(UnixStream::from_std(stream)?),
        };
        Ok(Accepted {
            stream,
            address: self.address,
            entrance: self.entrance,
        })
    }
}

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
pub fn bind(address: SocketAddr, workers: usize) -> io::Result<Vec<StdTcpListener>> {
    let mut address = address;
    (0..workers)
        .map(|_| {
            let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
            socket.set_reuse_address(true)?;
            socket.set_reuse_port(true)?;
            socket.set_nonblocking(true)?;
            socket.bind(&address.into())?;
            socket.listen(BACKLOG)?;
            let listener = StdTcpListener::from(socket);
            address = listener.local_addr()?;
            Ok(listener)
        })
        .collect()
}

/// Serves until it is told to end, then until the last connection has ended.
///
/// # Errors
/// When a listener cannot be registered with the runtime.
pub async fn run(
    worker: Arc<Worker>,
    listeners: Vec<Listening>,
    settings: Settings,
    neighbours: Neighbours,
    mut inbox: Inbox,
    ending: Ending,
) -> io::Result<()> {
    let listeners = listeners
        .into_iter()
        .map(Listener::new)
        .collect::<io::Result<Vec<_>>>()?;
    let (door, mut served) = Door::new(worker, settings, ending.clone());
    let Ending { mut leave, mut drain } = ending;
    let room = Room { door, neighbours };
    loop {
        tokio::select! {
            accepted = accept(&listeners) => match accepted {
                Ok(accepted) => room.admit(accepted),
                // The connection is gone already, or there is nothing to accept it with.
                Err(error) if is_transient(&error) => {}
                Err(_) => tokio::time::sleep(OUT_OF_DESCRIPTORS).await,
            },
            Some(passed) = inbox.recv() => room.take(passed),
            () = ended(&mut drain) => break,
            () = ended(&mut leave) => break,
        }
    }
    let leaves = *leave.borrow();
    room.door.worker().leaves.store(leaves, Relaxed);
    // What the kernel has already handed to this socket would be lost with it, unless somebody else has it too.
    while !leaves && let Some(Ok(accepted)) = now_or_never(&listeners).await {
        room.enter(accepted);
    }
    drop(listeners);
    inbox.close();
    while let Some(passed) = inbox.recv().await {
        room.take(passed);
    }
    drop(room);
    // Nothing is ever sent: this ends when the last connection has dropped its end.
    let _ = served.recv().await;
    Ok(())
}

async fn ended(drain: &mut watch::Receiver<bool>) {
    // An error means that nobody is left who could end it, which is the same.
    let _ = drain.wait_for(|draining| *draining).await;
}

async fn accept(listeners: &[Listener]) -> io::Result<Accepted> {
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

async fn now_or_never(listeners: &[Listener]) -> Option<io::Result<Accepted>> {
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

struct Room {
    door: Door,
    neighbours: Neighbours,
}

impl Room {
    fn admit(&self, accepted: Accepted) {
        let worker = self.door.worker();
        match less_loaded(&worker.live, worker.shard) {
            Some(other) => {
                let Ok(passed) = Passed::new(accepted) else { return };
                if let Err(refused) = self.neighbours[other].try_send(passed) {
                    self.take(refused.into_inner());
                }
            }
            None => self.enter(accepted),
        }
    }

    fn take(&self, passed: Passed) {
        if let Ok(accepted) = passed.take() {
            self.enter(accepted);
        }
    }

    fn enter(&self, accepted: Accepted) {
        if let Stream::Tcp(stream) = &accepted.stream {
            // Without it a small answer waits for the client's acknowledgement of the one before.
            let _ = stream.set_nodelay(true);
        }
        let peer = Peer::of(&accepted.stream, accepted.address);
        self.door.enter(accepted.stream, peer, accepted.entrance);
    }
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
