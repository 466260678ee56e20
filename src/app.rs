//! The whole instance: builds the parts, joins their threads, drains.
//!
//! Threads: one per worker (data plane), one for the shadow, one for comparing, the store's own, and a small runtime for
//! the control plane with the judge, the controller and the admin API. Nothing of it is global, so that a test or the
//! demo may run several instances in one process.

mod sockets;

use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::admin;
use crate::config::{Address, Config, Workers};
use crate::control::source::{Before, Read, Source};
use crate::control::{Actor, Control, Parts, publish};
use crate::engine::ruleset::problem::Problem;
use crate::engine::ruleset::{Ruleset, StoredMark};
use crate::engine::vocab::Revision;
use crate::live::{Ends, Live};
use crate::proxy::door::Settings;
use crate::proxy::framing;
use crate::proxy::listen::{self, Inbox, Listening, Neighbours};
use crate::proxy::refusals::Refusals;
use crate::proxy::shadow;
use crate::proxy::stage::Worker;
use crate::proxy::sweep::Sweep;
use crate::proxy::upstream::{self, Pool};
use crate::proxy::{client, connection};
use crate::review;
use crate::store;
use crate::telemetry::{clock, exporter, spawn};

use sockets::{SocketFiles, Sockets};

/// Ready events that a worker handles before it looks for new ones: peers are woken once per batch, not per event.
const EVENT_INTERVAL: u32 = 512;

/// The number of the signal that a write beyond the file-size limit raises, on every Linux but MIPS.
const SIGXFSZ: i32 = 25;

/// How long the parts behind the data plane may take to end.
const GRACE: Duration = Duration::from_secs(3);

/// What an instance is started with.
#[derive(Clone, Debug)]
pub struct Options {
    /// The configuration file.
    pub config: PathBuf,
    /// The process's environment variables: flags may be set by them.
    pub env: BTreeMap<String, String>,
}

/// Why an instance does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address cannot be listened on.
    #[error("cannot listen on {0}: {1}; choose another address or stop what has it")]
    Listen(Address, std::io::Error),
    /// The configuration or the rules do not compile.
    #[error("the configuration has problems")]
    Problems(Vec<Problem>),
    /// The operating system refused a thread or a runtime.
    #[error("the operating system refused a thread: {0}")]
    Thread(std::io::Error),
}

/// A running instance.
#[derive(Debug)]
pub struct App {
    addresses: Vec<SocketAddr>,
    admin: SocketAddr,
    files: SocketFiles,
    control: Control,
    drain: watch::Sender<bool>,
    drain_limit: Duration,
    workers: Vec<JoinHandle<()>>,
    behind: Vec<JoinHandle<()>>,
    background: Option<Runtime>,
    warnings: Vec<Problem>,
}

/// Everything that a start reads, compiled.
#[derive(Debug)]
pub struct Compiled {
    /// The configuration; its routes are in the rules.
    pub config: Config,
    /// The rules.
    pub rules: Ruleset,
    /// What an operator should look at.
    pub warnings: Vec<Problem>,
}

/// Reads and compiles everything that a start would, and starts nothing.
///
/// # Errors
/// Every problem, then every warning.
pub fn compile(options: &Options) -> Result<Compiled, Vec<Problem>> {
    let source = Source {
        config: options.config.clone(),
        variables: options.env.clone(),
    };
    let before = Before {
        revision: Revision(1),
        rules: None,
        marks: &[],
        now_ms: clock::unix_ms(),
    };
    let Read {
        config,
        rules,
        warnings,
    } = source.read(before).0?;
    Ok(Compiled {
        config,
        rules,
        warnings,
    })
}

/// Starts an instance. It serves when this returns.
///
/// # Errors
/// [`StartError`]; nothing runs then.
pub fn start(options: Options) -> Result<App, StartError> {
    let source = Source {
        config: options.config,
        variables: options.env,
    };
    // The state tells how far gradual flags had risen, and its path stands in the configuration: so the files are
    // read twice.
    let none = Before {
        revision: Revision(1),
        rules: None,
        marks: &[],
        now_ms: clock::unix_ms(),
    };
    let state_path = source.read(none).0.map_err(StartError::Problems)?.config.state_path;
    let background = background().map_err(StartError::Thread)?;
    let opened = store::open(&state_path, store::Timing::default());
    let marks: Vec<StoredMark> = opened
        .ramps
        .iter()
        .map(|mark| StoredMark {
            flag: mark.flag.clone(),
            ramp: mark.schedule,
            reached: mark.reached,
        })
        .collect();
    let (read, fingerprint) = source.read(Before { marks: &marks, ..none });
    let Read {
        config,
        rules,
        warnings,
    } = read.map_err(StartError::Problems)?;
    for warning in &warnings {
        tracing::warn!(warning = %warning, "the configuration has a warning");
    }

    let workers = worker_count(config.workers);
    let budget = config.capture.budget_bytes;
    let (live, ends) = Live::new(workers, budget, opened.hash_key);
    let Sockets {
        workers: sockets,
        addresses,
        admin: admin_socket,
        admin_address,
        files,
    } = Sockets::open(&config, workers, &live)?;
    live.kills.change(|kills| kills.join(&opened.kills));
    if let Some(unreadable) = &opened.unreadable {
        let why = unreadable.to_string();
        tracing::error!(
            state = why,
            "the state could not be read, so nobody knows what was killed: legacy answers everything until a restart that can read it"
        );
        live.health.set_state_unreadable(why);
        live.kills.state_unreadable();
    }
    live.health
        .change_rules(|state| state.warnings = warnings.iter().map(ToString::to_string).collect());
    publish::publish(&live, &config, rules);
    background.spawn_task("replicas", upstream::look_after(Arc::clone(&live)));

    let (drain, draining) = watch::channel(false);
    let parts = Parts {
        live: Arc::clone(&live),
        store: opened.store,
        source,
        config: config.clone(),
        fingerprint,
        draining: draining.clone(),
    };
    let control = Control::start(parts, background.handle());
    let (shadow, behind) = behind(&live, ends)?;
    let drain_limit = config.limits.drain;
    let threads = Front {
        live: &live,
        config: &config,
        shadow,
        draining: &draining,
    }
    .start(sockets)?;
    background.spawn_task("judge", review::judge::run(Arc::clone(&live)));
    background.spawn_task("metrics upkeep", upkeep(Arc::clone(&live)));
    let door = admin::Door {
        control: control.clone(),
        tokens: config.admin.tokens,
        metrics_token: config.admin.metrics_token,
        address: admin_address,
    };
    background.spawn_task("admin", admin::serve(admin_socket, door, draining));
    let listeners: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    let listeners = listeners.join(", ");
    tracing::info!(listeners, admin = %admin_address, workers, "understudy serves");
    let tcp = |address| match address {
        Address::Tcp(address) => Some(address),
        Address::Unix(_) => None,
    };
    let app = App {
        addresses: addresses.into_iter().filter_map(tcp).collect(),
        admin: admin_address,
        files,
        control,
        drain,
        drain_limit,
        workers: threads,
        behind,
        background: Some(background),
        warnings,
    };
    Ok(app)
}

impl App {
    /// Where clients connect over the network; port 0 has become a port.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Where operators connect.
    #[must_use]
    pub const fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// What operators may do.
    #[must_use]
    pub const fn control(&self) -> &Control {
        &self.control
    }

    /// Reads the files again, in the name of `by`.
    ///
    /// # Errors
    /// All problems; the old rules serve.
    pub async fn reload(&self, by: &str) -> Result<Revision, Vec<Problem>> {
        self.control.reload(&Actor::process(by)).await
    }

    /// What was noticed about the configuration at the start.
    #[must_use]
    pub fn warnings(&self) -> &[Problem] {
        &self.warnings
    }

    /// Drains and ends: accepts nothing more, lets requests under way finish within `limits.drain`, stores what is to be
    /// stored, joins the threads.
    pub fn stop(mut self) {
        tracing::info!("draining");
        // Whoever looks for the file finds it or does not; nobody may find one that nobody accepts from.
        drop(std::mem::take(&mut self.files));
        self.drain.send_replace(true);
        // Whoever is still busy at the limit is left behind: the process ends, or the test does.
        join_within(std::mem::take(&mut self.workers), self.drain_limit);
        let mut behind = std::mem::take(&mut self.behind);
        let review = behind.split_off(behind.len().min(1));
        join_within(behind, GRACE);
        self.control.live().intake.close();
        join_within(review, GRACE);
        if let Some(background) = self.background.take() {
            background.block_on(self.control.close(GRACE));
            background.shutdown_timeout(GRACE);
        }
        tracing::info!("stopped");
    }
}

/// The control plane's runtime, made before anything is written to the disk.
fn background() -> std::io::Result<Runtime> {
    let runtime = Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("understudy-control")
        .enable_all()
        .build()?;
    let _entered = runtime.enter();
    // A file-size limit is a full disk by another name, and would end the process where a full disk is an error. The
    // signal stays caught once somebody has listened for it.
    drop(signal(SignalKind::from_raw(SIGXFSZ)));
    // One descriptor for each client and one for its backend: the limit that shells hand out is for shells.
    if let Err(error) = rlimit::increase_nofile_limit(u64::MAX) {
        tracing::warn!(%error, "the limit on open files could not be raised to what is allowed");
    }
    Ok(runtime)
}

fn join_within(threads: Vec<JoinHandle<()>>, limit: Duration) {
    let end = clock::monotonic() + limit;
    for thread in threads {
        while !thread.is_finished() && clock::monotonic() < end {
            spawn::pause(Duration::from_millis(5));
        }
        if thread.is_finished() {
            // A panic has been logged where it happened.
            let _ = thread.join();
        }
    }
}

fn worker_count(workers: Workers) -> usize {
    match workers {
        Workers::Auto => std::thread::available_parallelism().map_or(1, usize::from),
        Workers::Count(count) => count,
    }
}

fn behind(live: &Arc<Live>, ends: Ends) -> Result<(shadow::Sender, Vec<JoinHandle<()>>), StartError> {
    let (sender, receiver) = shadow::ring();
    let shared = Arc::clone(live);
    let shadow = spawn::thread("understudy-shadow", move || single(shadow::run(shared, receiver)));
    let shared = Arc::clone(live);
    let review = spawn::thread("understudy-review", move || review::compare::run(&shared, ends.pairs));
    Ok((
        sender,
        vec![shadow.map_err(StartError::Thread)?, review.map_err(StartError::Thread)?],
    ))
}

struct Front<'a> {
    live: &'a Arc<Live>,
    config: &'a Config,
    shadow: shadow::Sender,
    draining: &'a watch::Receiver<bool>,
}

impl Front<'_> {
    fn start(self, sockets: Vec<Vec<Listening>>) -> Result<Vec<JoinHandle<()>>, StartError> {
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
            },
            connections: limits.connections,
            handshake: limits.handshake,
        };
        let (neighbours, inboxes) = listen::neighbours(sockets.len());
        let base = process_bits();
        let starts = sockets.into_iter().zip(inboxes).enumerate();
        starts
            .map(|(shard, (sockets, inbox))| {
                let worker = self.worker(shard, base);
                let (neighbours, drain) = (Arc::clone(&neighbours), self.draining.clone());
                spawn::thread(&format!("understudy-{shard}"), move || {
                    single(serve(worker, sockets, settings, neighbours, inbox, drain));
                })
                .map_err(StartError::Thread)
            })
            .collect()
    }

    fn worker(&self, shard: usize, base: u128) -> Arc<Worker> {
        let sweep = Sweep::new();
        Arc::new(Worker {
            shard,
            live: Arc::clone(self.live),
            pool: Pool::new(Arc::clone(&sweep)),
            shadow: self.shadow.clone(),
            refusals: Refusals::new(Arc::clone(&self.live.workers[shard]), Arc::clone(&sweep)),
            tally: Arc::clone(&self.live.workers[shard]),
            sweep,
            id_base: base | (shard as u128) << 48,
            exchanges: AtomicU64::new(0),
        })
    }
}

async fn serve(
    worker: Arc<Worker>,
    sockets: Vec<Listening>,
    settings: Settings,
    neighbours: Neighbours,
    inbox: Inbox,
    drain: watch::Receiver<bool>,
) {
    let pool = Arc::clone(&worker.pool);
    drop(spawn::task(
        "sweep",
        Arc::clone(&worker.sweep).run(move || pool.prune()),
    ));
    let shard = worker.shard;
    if let Err(error) = listen::run(worker, sockets, settings, neighbours, inbox, drain).await {
        tracing::error!(shard, %error, "a worker cannot listen");
    }
}

/// Runs a future on a single-threaded runtime of its own, on this thread.
fn single(future: impl Future<Output = ()>) {
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

async fn upkeep(live: Arc<Live>) {
    let mut interval = tokio::time::interval(exporter::UPKEEP_EVERY);
    loop {
        interval.tick().await;
        live.exporter.upkeep();
        live.recent.look(&live, clock::unix_ms());
    }
}

trait SpawnTask {
    fn spawn_task(&self, name: &'static str, future: impl Future<Output = ()> + Send + 'static);
}

impl SpawnTask for Runtime {
    fn spawn_task(&self, name: &'static str, future: impl Future<Output = ()> + Send + 'static) {
        let _entered = self.enter();
        drop(spawn::task(name, future));
    }
}
