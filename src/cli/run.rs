//! `understudy run`: an instance from its start to its end, driven by signals.

use std::io;
use std::process::ExitCode;

use clap::Args;
use tokio::runtime::Builder;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

use super::{BAD_INPUT, ConfigArgs, FAILED, check};
use crate::app::{self, App, StartError};
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
        let app = match app::start(self.config.options()) {
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
    loop {
        tokio::select! {
            // What is wrong with the files is logged and shown by the status.
            _ = signals.hangup.recv() => drop(app.reload("signal").await),
            _ = signals.interrupt.recv() => break,
            _ = signals.terminate.recv() => break,
        }
    }
    let (tell, stopped) = oneshot::channel();
    spawn::thread("understudy-stop", move || {
        app.stop();
        // Nobody listens any more if a second signal came.
        let _ = tell.send(());
    })?;
    Ok(tokio::select! {
        stopped = stopped => if stopped.is_ok() { ExitCode::SUCCESS } else { ExitCode::from(FAILED) },
        () = signals.end() => {
            tracing::warn!("a second signal came: ending without draining");
            ExitCode::from(FAILED)
        }
    })
}
