//! The threads of the data plane: one worker each, with its own runtime, sockets, pool and deadlines.
//!
//! In: the sockets that each accepts from. Out: threads, which end when they are told to.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::thread::JoinHandle;

use tokio::runtime::Builder;

use super::StartError;
use crate::config::Config;
use crate::live::Live;
use crate::proxy::clients::Clients;
use crate::proxy::connection::Ending;
use crate::proxy::door::Settings;
use crate::proxy::framing;
use crate::proxy::listen::{self, Inbox, Listening, Neighbours};
use crate::proxy::refusals::Refusals;
use crate::proxy::shadow;
use crate::proxy::stage::Worker;
use crate::proxy::sweep::Sweep;
use crate::proxy::upstream::Pool;
use crate::proxy::{client, connection};
use crate::telemetry::{clock, spawn};

/// Ready events that a worker handles before it looks for new ones: peers are woken once per batch, not per event.
const EVENT_INTERVAL: u32 = 512;

/// What all workers are made of.
pub struct Front<'a> {
    pub live: &'a Arc<Live>,
    pub config: &'a Config,
    pub shadow: shadow::Sender,
    pub ending: Ending,
}

impl Front<'_> {
    /// Starts a thread for each worker.
    pub fn start(self, sockets: Vec<Vec<Listening>>) -> Result<Vec<JoinHandle<()>>, StartError> {
        let limits = &self.config.limits;
        let settings = Settings {
            connection: connection::Settings {
                client: client::Limits {
                    header: limits.header_timeout,
                    idle: limits.idle,
                    write: limits.write_timeout,
                },
                head: framing::Limits {
                    header_bytes: limits.header_bytes,
                    header_count: limits.header_count.min(framing::MOST_LINES),
                },
                streams: limits.streams,
                half_close: limits.half_close,
            },
            connections: limits.connections,
            handshake: limits.handshake,
        };
        let (neighbours, inboxes) = listen::neighbours(sockets.len());
        let base = process_bits();
        let clients = Clients::new(limits.connections_per_client, limits.requests_per_client);
        let starts = sockets.into_iter().zip(inboxes).enumerate();
        starts
            .map(|(shard, (sockets, inbox))| {
                let worker = self.worker(shard, base, &clients);
                let (neighbours, ending) = (Arc::clone(&neighbours), self.ending.clone());
                spawn::thread(&format!("understudy-{shard}"), move || {
                    single(serve(worker, sockets, settings, neighbours, inbox, ending));
                })
                .map_err(StartError::Thread)
            })
            .collect()
    }

    fn worker(&self, shard: usize, base: u128, clients: &Arc<Clients>) -> Arc<Worker> {
        let sweep = Sweep::new();
        Arc::new(Worker {
            shard,
            live: Arc::clone(self.live),
            pool: Pool::new(Arc::clone(&sweep)),
            shadow: self.shadow.clone(),
            clients: Arc::clone(clients),
            refusals: Refusals::new(Arc::clone(&self.live.workers[shard]), Arc::clone(&sweep)),
            tally: Arc::clone(&self.live.workers[shard]),
            sweep,
            id_base: base | (shard as u128) << 48,
            exchanges: AtomicU64::new(0),
            leaves: AtomicBool::new(false),
        })
    }
}

async fn serve(
    worker: Arc<Worker>,
    sockets: Vec<Listening>,
    settings: Settings,
    neighbours: Neighbours,
    inbox: Inbox,
    ending: Ending,
) {
    let pool = Arc::clone(&worker.pool);
    drop(spawn::task(
        "sweep",
        Arc::clone(&worker.sweep).run(move || pool.prune()),
    ));
    let shard = worker.shard;
    if let Err(error) = listen::run(worker, sockets, settings, neighbours, inbox, ending).await {
        tracing::error!(shard, %error, "a worker cannot listen");
    }
}

/// Runs a future on a single-threaded runtime of its own, on this thread.
pub fn single(future: impl Future<Output = ()>) {
    let runtime = Builder::new_current_thread()
        .event_interval(EVENT_INTERVAL)
        .enable_all()
        .build();
    match runtime {
        Ok(runtime) => runtime.block_on(future),
        Err(error) => tracing::error!(%error, "the operating system refused a runtime"),
    }
}

/// Random bits in the upper half: exchange ids stay unique over restarts and over a fleet.
fn process_bits() -> u128 {
    let mut bits = [0; 8];
    if getrandom::fill(&mut bits).is_err() {
        #[allow(clippy::cast_sign_loss, reason = "bits, not a number")]
        let now = clock::unix_ms() as u64;
        bits = now.to_be_bytes();
    }
    u128::from(u64::from_be_bytes(bits)) << 64
}
