//! The whole instance: builds the parts, joins their threads, drains.
//!
//! Threads: one per worker (data plane), one for the shadow, one for comparing, the store's own, and a small runtime for
//! the control plane with the judge, the controller and the admin API. Nothing of it is global, so that a test or the
//! demo may run several instances in one process.

mod handover;
mod sdks;
mod sockets;
mod workers;

use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::admin;
use crate::config::{Address, Config, Workers};
use crate::control::source::{Before, Read, Source};
use crate::control::statistics::Keeper;
use crate::control::{Actor, Control, Parts, publish};
use crate::engine::guard::KillSet;
use crate::engine::ruleset::edit::RuntimeLayers;
use crate::engine::ruleset::problem::{Problem, Problems};
use crate::engine::ruleset::{Ruleset, StoredMark};
use crate::engine::vocab::Revision;
use crate::live::{Ends, Live};
use crate::ofrep;
use crate::proxy::connection::Ending;
use crate::proxy::{shadow, upstream};
use crate::review;
use crate::store;
use crate::telemetry::{clock, exporter, spawn};

pub use handover::Inherited;

use handover::{Guest, Host, Kept};
use sdks::Sdks;
use sockets::{SocketFiles, Sockets};
use workers::{Front, single};

/// The number of the signal that a write beyond the file-size limit raises, on every Linux but MIPS.
const SIGXFSZ: i32 = 25;

/// How long the parts behind the data plane may take to end.
const GRACE: Duration = Duration::from_secs(3);

/// After a hand-over: the end of `limits.drain` in which connections are closed that have not come to an answer.
const FAREWELL: Duration = Duration::from_secs(1);

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
    /// A running instance did not hand over.
    #[error("the running instance did not hand over: {0}; it goes on, see its log")]
    Handover(std::io::Error),
    /// A descriptor that was given to this process is of no use.
    #[error("a socket that this process was given cannot be used: {0}; see the socket unit")]
    Inherited(std::io::Error),
    /// Sockets that were given to this process and that no listener is for.
    #[error(
        "nobody would accept from {0}, which this process was given; add a listener for it, or remove it from the socket unit"
    )]
    Unclaimed(String),
    /// The operating system refused a thread or a runtime.
    #[error("the operating system refused a thread: {0}")]
    Thread(std::io::Error),
}

/// A running instance.
#[derive(Debug)]
pub struct App {
    addresses: Vec<SocketAddr>,
    admin: SocketAddr,
    ofrep: Option<SocketAddr>,
    files: SocketFiles,
    kept: Kept,
    control: Control,
    handed: watch::Receiver<bool>,
    drain: watch::Sender<bool>,
    data_plane: DataPlane,
    operators: watch::Sender<bool>,
    drain_limit: Duration,
    workers: Vec<JoinHandle<()>>,
    behind: Vec<JoinHandle<()>>,
    background: Option<Runtime>,
    statistics: Arc<Keeper>,
    warnings: Vec<Problem>,
}

/// How the workers are told to end.
#[derive(Debug)]
struct DataPlane {
    leave: watch::Sender<bool>,
    drain: watch::Sender<bool>,
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
    let Read { files, rules, warnings } = source.read(before, RuntimeLayers::default()).0?;
    Ok(Compiled {
        config: files.config.clone(),
        rules,
        warnings,
    })
}

/// That what was said at run time cannot be in force, for the operator.
fn misfit(problems: &[Problem]) -> String {
    let first = problems.first().map(ToString::to_string).unwrap_or_default();
    let more = match problems.len() {
        0 | 1 => String::new(),
        n => format!(" (and {} more)", n - 1),
    };
    format!(
        "what was said about flags at run time does not go together with the files: {first}{more}; correct the files, or \
         the flags over the API, then restart"
    )
}

/// Starts an instance. It serves when this returns.
///
/// # Errors
/// [`StartError`]; nothing runs then.
pub fn start(options: Options) -> Result<App, StartError> {
    start_with(options, Inherited::default())
}

/// The same with sockets that are open already.
///
/// If the configuration names a hand-over socket and another instance waits there, this one takes its place: it gets its
/// sockets and its state, and that one ends.
///
/// # Errors
/// [`StartError`]; nothing runs then, but the other instance.
pub fn start_with(options: Options, mut inherited: Inherited) -> Result<App, StartError> {
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
    let alone = source
        .read(none, RuntimeLayers::default())
        .0
        .map_err(StartError::Problems)?;
    let first = alone.files.config.clone();
    let mut guest = match &first.handover {
        Some(socket) => Guest::ask(socket).map_err(StartError::Handover)?,
        None => None,
    };
    if let Some(guest) = &mut guest {
        guest.sockets(&mut inherited).map_err(StartError::Handover)?;
    }
    let background = background().map_err(StartError::Thread)?;
    let workers = worker_count(first.workers);
    let mut sockets = Sockets::open(&first, workers, inherited)?;
    // Whatever may fail has been done: from here on the other instance is without its state.
    let handed_kills = match &mut guest {
        Some(guest) => guest.state().map_err(StartError::Handover)?,
        None => KillSet::default(),
    };
    let opened = store::open(&first.state_path, store::Timing::default());
    if let (Some(_), Some(unreadable)) = (&guest, &opened.unreadable) {
        // The other one knows what was killed.
        return Err(StartError::Handover(std::io::Error::other(unreadable.to_string())));
    }
    let marks: Vec<StoredMark> = opened
        .ramps
        .iter()
        .map(|mark| StoredMark {
            flag: mark.flag.clone(),
            ramp: mark.schedule,
            reached: mark.reached,
        })
        .collect();
    let before = Before { marks: &marks, ..none };
    let mut unfit = Problems::default();
    let mut runtime = RuntimeLayers::read(opened.layers.revision, opened.layers.stored, &mut unfit);
    runtime.freezes = opened.layers.freezes;
    let unfit = unfit.verdict().err();
    let (mut read, fingerprint) = source.read(before, runtime.clone());
    // What was said at run time and what the files say do not go together: legacy serves, and the API can mend it.
    let apart = match (&unfit, &read) {
        (Some(problems), _) => Some(misfit(problems)),
        (None, Err(problems)) if !runtime.is_empty() => {
            let why = misfit(problems);
            read = source.read(before, RuntimeLayers::default()).0;
            Some(why)
        }
        (None, _) => None,
    };
    let Read { files, rules, warnings } = read.map_err(StartError::Problems)?;
    let mut config = files.config.clone();
    // Both readings are of the same files but for the moment between them; the sockets are open by the first.
    config.listeners = first.listeners;
    for warning in &warnings {
        tracing::warn!(warning = %warning, "the configuration has a warning");
    }

    let budget = config.capture.budget_bytes;
    let (live, ends) = Live::new(workers, budget, opened.hash_key);
    let shares = Sockets::shares(sockets.take_queues(), &config, &live, workers);
    live.kills.change(|kills| {
        kills.join(&opened.kills);
        kills.join(&handed_kills);
    });
    if let Some(why) = opened.unreadable.as_ref().map(ToString::to_string).or(apart) {
        tracing::error!(
            state = why,
            "the state could not be used: legacy answers everything until a restart that can use it"
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
        files,
        runtime,
        fingerprint,
        draining: draining.clone(),
    };
    let control = Control::start(parts, background.handle());
    let (shadow, behind) = behind(&live, ends)?;
    let drain_limit = config.limits.drain;
    let own = match (&guest, &first.handover) {
        (None, Some(path)) => Some(handover_file(path, &mut sockets.files)?),
        _ => None,
    };
    let other = guest.map(Guest::go).transpose().map_err(StartError::Handover)?;
    for path in &sockets.adopted {
        if let Err(error) = sockets.files.add(path) {
            tracing::warn!(path = %path.display(), %error, "the socket file of the process before is gone: nobody finds this one there");
        }
    }
    let (leave, leaving) = watch::channel(false);
    let (end, ending) = watch::channel(false);
    let threads = Front {
        live: &live,
        config: &config,
        shadow,
        ending: Ending {
            leave: leaving,
            drain: ending,
        },
    }
    .start(shares)?;
    background.spawn_task("judge", review::judge::run(Arc::clone(&live)));
    let statistics = Keeper::start(Arc::clone(&live), &first.state_path);
    background.spawn_task("statistics", Arc::clone(&statistics).run());
    background.spawn_task("metrics upkeep", upkeep(Arc::clone(&live)));
    let sdks = Sdks {
        control: &control,
        config: &config,
        draining: &draining,
    };
    let beside = sdks.service(&config.admin.tokens, None).router();
    let remote = sockets.ofrep.as_ref().map(|(_, address)| *address);
    if let Some((listener, address)) = sockets.ofrep.take() {
        tracing::info!(%address, "OFREP is served");
        background.spawn_task("OFREP", ofrep::server::serve(listener, sdks.listening()));
    }
    let door = admin::Door {
        beside,
        control: control.clone(),
        tokens: config.admin.tokens,
        metrics_token: config.admin.metrics_token,
        address: sockets.admin_address,
    };
    let (operators, gate) = watch::channel(false);
    background.spawn_task("admin", admin::serve(sockets.admin, door, gate));
    let (tell_handed, handed) = watch::channel(false);
    let kept: Kept = Arc::new(Mutex::new(sockets.kept));
    if let Some(stream) = other {
        background.spawn_task(
            "kills of the process before",
            handover::exchange(stream, Arc::clone(&live)),
        );
    }
    if let Some(path) = first.handover {
        let host = Host {
            kept: Arc::clone(&kept),
            control: control.clone(),
            state_path: first.state_path,
        };
        // After a hand-over the file is that of the process before, which has left it.
        let own = own.map_or_else(
            || {
                handover::make_room(&path)
                    .map_err(|error| StartError::Listen(Address::Unix(path.clone()), error))
                    .and_then(|()| handover_file(&path, &mut sockets.files))
            },
            Ok,
        );
        match own {
            Ok(own) => background.spawn_task("hand-over", host.run(own, path, tell_handed)),
            Err(error) => tracing::error!(%error, "the next upgrade needs a restart"),
        }
    }
    let listeners: Vec<String> = sockets.addresses.iter().map(ToString::to_string).collect();
    let listeners = listeners.join(", ");
    tracing::info!(listeners, admin = %sockets.admin_address, workers, "understudy serves");
    let tcp = |address| match address {
        Address::Tcp(address) => Some(address),
        Address::Unix(_) => None,
    };
    let app = App {
        addresses: sockets.addresses.into_iter().filter_map(tcp).collect(),
        admin: sockets.admin_address,
        ofrep: remote,
        files: sockets.files,
        kept,
        control,
        handed,
        drain,
        data_plane: DataPlane { leave, drain: end },
        operators,
        drain_limit,
        workers: threads,
        behind,
        background: Some(background),
        statistics,
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

    /// Where SDKs connect, if they have a listener of their own.
    #[must_use]
    pub const fn ofrep(&self) -> Option<SocketAddr> {
        self.ofrep
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

    /// Waits until another process has taken over; then this one is to be stopped. For ever, if none does.
    pub async fn handed_over(&self) {
        let mut handed = self.handed.clone();
        if handed.wait_for(|handed| *handed).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Whether another process has taken over.
    #[must_use]
    pub fn was_handed_over(&self) -> bool {
        *self.handed.borrow()
    }

    /// Drains and ends: accepts nothing more, lets requests under way finish within `limits.drain`, stores what is to be
    /// stored, joins the threads. After a hand-over connections may come to their next answer first.
    pub fn stop(mut self) {
        tracing::info!("draining");
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).clear();
        let end = clock::monotonic() + self.drain_limit;
        if self.was_handed_over() {
            self.files.leave();
            // Operators speak to the other process from now on.
            drop(std::mem::replace(&mut self.operators, watch::channel(false).0));
            self.drain.send_replace(true);
            self.data_plane.leave.send_replace(true);
            // Whoever has nothing to say is told in the end.
            let tail = FAREWELL.min(self.drain_limit / 4);
            wait_until(&self.workers, end.saturating_sub(tail));
        }
        // Whoever looks for the file finds it or does not; nobody may find one that nobody accepts from.
        drop(std::mem::take(&mut self.files));
        self.drain.send_replace(true);
        self.data_plane.drain.send_replace(true);
        // Whoever is still busy at the limit is left behind: the process ends, or the test does.
        join_within(
            std::mem::take(&mut self.workers),
            end.saturating_sub(clock::monotonic()),
        );
        let mut behind = std::mem::take(&mut self.behind);
        let review = behind.split_off(behind.len().min(1));
        join_within(behind, GRACE);
        self.control.live().intake.close();
        join_within(review, GRACE);
        if let Some(background) = self.background.take() {
            // What is not kept in time is lost, and only statistics.
            let _ = background.block_on(async { tokio::time::timeout(GRACE, self.statistics.keep()).await });
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

fn wait_until(threads: &[JoinHandle<()>], end: Duration) {
    while clock::monotonic() < end && threads.iter().any(|thread| !thread.is_finished()) {
        spawn::pause(Duration::from_millis(5));
    }
}

/// Opens the socket at which a successor asks.
fn handover_file(path: &Path, files: &mut SocketFiles) -> Result<UnixListener, StartError> {
    let refused = |error| StartError::Listen(Address::Unix(path.to_owned()), error);
    let socket = sockets::bind_file(path, handover::MODE).map_err(refused)?;
    files.add(path).map_err(refused)?;
    Ok(socket)
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
