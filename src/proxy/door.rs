//! Who is let in: the limits on connections, and the short answer for those beyond them.
//!
//! In: what `listen` accepted, or another worker passed on. Out: a task per connection that `connection` serves, counted
//! for as long as it lives.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::{Semaphore, mpsc};

use super::clients::Connected;
use super::connection::{self, Ending};
use super::entrance::Entrance;
use super::socket::{Peer, Stream};
use super::stage::Worker;
use crate::live::Live;
use crate::live::tally::ClientError;
use crate::telemetry::spawn;

/// Connections per worker that are told at the same time that there are too many; beyond it they hear nothing.
const REFUSALS: usize = 256;

/// How long such a connection may take to ask and to read the answer.
const REFUSAL: Duration = Duration::from_secs(1);

/// What holds for every client connection.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Of one that is served.
    pub connection: connection::Settings,
    /// The most connections, over all workers.
    pub connections: usize,
    /// The longest wait for what comes before HTTP.
    pub handshake: Duration,
}

/// One worker's door.
#[derive(Debug)]
pub struct Door {
    worker: Arc<Worker>,
    settings: Settings,
    ending: Ending,
    serving: mpsc::Sender<()>,
    refusals: Arc<Semaphore>,
}

impl Door {
    /// A door, and the end at which nothing ever comes out: it closes when the door is gone and its last connection has
    /// ended.
    #[must_use]
    pub fn new(worker: Arc<Worker>, settings: Settings, ending: Ending) -> (Self, mpsc::Receiver<()>) {
        let (serving, served) = mpsc::channel(1);
        let door = Self {
            worker,
            settings,
            ending,
            serving,
            refusals: Arc::new(Semaphore::new(REFUSALS)),
        };
        (door, served)
    }

    /// The worker whose door it is.
    #[must_use]
    pub fn worker(&self) -> &Worker {
        &self.worker
    }

    /// Lets a connection in, or tells it that there are too many.
    pub fn enter(&self, stream: Stream, peer: Peer, entrance: Arc<Entrance>) {
        let worker = &self.worker;
        let open: usize = worker.live.connections.iter().map(|n| n.load(Relaxed)).sum();
        if open >= self.settings.connections {
            worker.tally.client_errors.add(ClientError::TooMany);
            self.turn_away(stream, peer, entrance, TOO_MANY);
            return;
        }
        worker.tally.accepted.add();
        let counted = Counted::new(Arc::clone(&worker.live), worker.shard);
        let serving = self.serving.clone();
        let (worker, settings, ending) = (Arc::clone(worker), self.settings, self.ending.clone());
        if entrance.is_open() {
            let Some(connected) = client_of(&worker, &peer) else {
                worker.refusals.book(&peer, ClientError::TooManyOfClient, None);
                self.turn_away(stream, peer, entrance, TOO_MANY_OF_CLIENT);
                return;
            };
            let connection = Box::pin(connection::serve(worker, settings.connection, stream, peer, ending));
            drop(spawn::task("connection", async move {
                connection.await;
                drop((counted, connected, serving));
            }));
            return;
        }
        drop(spawn::task("connection", async move {
            // Boxed, so that a connection which is through costs no more than one that had nothing to get through.
            let passed = Box::pin(entrance.pass(&worker, settings.handshake, stream, peer)).await;
            if let Some((stream, peer)) = passed {
                match client_of(&worker, &peer) {
                    Some(connected) => {
                        connection::serve(worker, settings.connection, stream, peer, ending).await;
                        drop(connected);
                    }
                    None => {
                        worker.refusals.book(&peer, ClientError::TooManyOfClient, None);
                        // Whoever takes longer is closed all the same.
                        let _ = tokio::time::timeout(REFUSAL, refuse(stream, TOO_MANY_OF_CLIENT)).await;
                    }
                }
            }
            drop((counted, serving));
        }));
    }

    /// Tells a connection that there are too many, as far as that costs little.
    fn turn_away(&self, stream: Stream, peer: Peer, entrance: Arc<Entrance>, answer: &'static [u8]) {
        if let Ok(permit) = Arc::clone(&self.refusals).try_acquire_owned() {
            let worker = Arc::clone(&self.worker);
            drop(spawn::task("refusal", async move {
                let refusal = async {
                    if let Some((stream, _)) = Box::pin(entrance.pass(&worker, REFUSAL, stream, peer)).await {
                        // Whoever takes longer is closed all the same.
                        let _ = refuse(stream, answer).await;
                    }
                };
                let _ = tokio::time::timeout(REFUSAL, refusal).await;
                drop(permit);
            }));
        }
    }
}

const TOO_MANY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\ncontent-length: 0\r\n\
    retry-after: 1\r\nx-understudy-error: too_many_connections\r\n\r\n";

const TOO_MANY_OF_CLIENT: &[u8] = b"HTTP/1.1 429 Too Many Requests\r\nconnection: close\r\ncontent-length: 0\r\n\
    retry-after: 1\r\nx-understudy-error: too_many_connections_of_client\r\n\r\n";

/// Counts a connection for its client; none, if that one has too many. Proxies that are trusted are many clients in one,
/// and whoever comes over a socket file has no address.
fn client_of(worker: &Worker, peer: &Peer) -> Option<Connected> {
    let trusted = || {
        let snapshot = worker.live.snapshot()?;
        let address = peer.address?.ip().to_canonical();
        let trusted = snapshot.trusted_proxies.as_deref()?;
        trusted.iter().any(|network| network.contains(&address)).then_some(())
    };
    let address = peer.address.map(|address| address.ip());
    match worker.clients.limits_connections() && trusted().is_none() {
        true => worker.clients.connect(address),
        false => worker.clients.connect(None),
    }
}

/// Answers whatever is asked.
async fn refuse(mut stream: Stream, answer: &[u8]) -> io::Result<()> {
    let mut unread = [0; 1_024];
    // A client that is answered before it has asked takes the answer for a fault.
    if stream.read(&mut unread).await? == 0 {
        return Ok(());
    }
    stream.write_all(answer).await?;
    stream.shutdown().await?;
    // Closing on bytes that nobody read resets the connection, and the answer with it.
    while stream.read(&mut unread).await? > 0 {}
    Ok(())
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
