//! `understudy run`: an instance from its start to its end, driven by signals.

use std::io;
use std::process::ExitCode;

use clap::Args;
use sd_notify::NotifyState;
use tokio::runtime::Builder;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

use super::{BAD_INPUT, ConfigArgs, FAILED, check};
use crate::app::{self, App, Inherited, StartError};
use crate::telemetry::{logs, spawn};

/// The options of `understudy run`.
#[derive(Clone, Debug, Args)]
pub(super) struct RunArgs {
    #[command(flatten)]
    config: ConfigArgs,
}

impl RunArgs {
    /// Serves until a signal ends it. Exit code 0: drained. 1: it could not start or not end properly. 2: its configuration
    /// has problems.
    pub fn execute(&self) -> ExitCode {
        let _lines = logs::init();
        let refused = |error: io::Error| {
            eprintln!("the operating system refused signals or a thread: {error}");
            ExitCode::from(FAILED)
        };
        let runtime = match Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => return refused(error),
        };
        // Before anything serves: a signal that comes meanwhile drains what is then there, rather than end it.
        let signals = {
            let _entered = runtime.enter();
            match Signals::new() {
                Ok(signals) => signals,
                Err(error) => return refused(error),
            }
        };
        let started = Inherited::from_environment()
            .map_err(StartError::Inherited)
            .and_then(|inherited| app::start_with(self.config.options(), inherited));
        let app = match started {
            Ok(app) => app,
            Err(StartError::Problems(problems)) => {
                eprint!("{}", check::text(&problems));
                return ExitCode::from(BAD_INPUT);
            }
            Err(error) => {
                eprintln!("{error}");
                return ExitCode::from(FAILED);
            }
        };
        runtime.block_on(live(app, signals)).unwrap_or_else(refused)
    }
}

struct Signals {
    hangup: Signal,
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    async fn end(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

async fn live(app: App, mut signals: Signals) -> io::Result<ExitCode> {
    // After a hand-over the service manager learns here that the service has another process now.
    tell(&[NotifyState::Ready, NotifyState::MainPid(std::process::id())]);
    loop {
        tokio::select! {
            _ = signals.hangup.recv() => tokio::select! {
                // What is wrong with the files is logged and shown by the status.
                _ = app.reload("signal") => {}
                // However long it takes to read them.
                () = signals.end() => break,
                () = app.handed_over() => break,
            },
            _ = signals.interrupt.recv() => break,
            _ = signals.terminate.recv() => break,
            () = app.handed_over() => break,
        }
    }
    if !app.was_handed_over() {
        tell(&[NotifyState::Stopping]);
    }
    let (done, stopped) = oneshot::channel();
    spawn::thread("understudy-stop", move || {
        app.stop();
        // Nobody listens any more if a second signal came.
        let _ = done.send(());
    })?;
    Ok(tokio::select! {
        stopped = stopped => if stopped.is_ok() { ExitCode::SUCCESS } else { ExitCode::from(FAILED) },
        () = signals.end() => {
            tracing::warn!("a second signal came: ending without draining");
            ExitCode::from(FAILED)
        }
    })
}

/// Tells systemd, if it asked to be told.
fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "the service manager could not be told");
    }
}
