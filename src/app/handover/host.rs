//! The running process's side of a hand-over: it gives its sockets, lets go of its state, and leaves; or takes the state
//! back and goes on.
//!
//! In: whoever connects to the hand-over socket under the same user. Out: the word that everything was handed over.

use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::UnixListener;
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::exchange;
use super::wire::{Kind, Line, VERSION, strange};
use crate::control::Control;
use crate::engine::guard::KillSet;
use crate::proxy::listen::Queue;
use crate::store;

/// How long a new process may take for one turn: it compiles the rules in between.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long the state may take to reach the disk.
const CLOSING: Duration = Duration::from_secs(5);

/// How long to wait when there is nothing to accept a successor with.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Sockets to be handed over, by the names of their listeners. Empty once this process is to end by itself: a socket that
/// somebody keeps open and nobody accepts from would keep its clients waiting.
pub(in crate::app) type Kept = Arc<Mutex<Vec<(String, Queue)>>>;

/// What a running instance hands over.
pub(in crate::app) struct Host {
    pub kept: Kept,
    pub control: Control,
    pub state_path: PathBuf,
}

impl Host {
    /// Waits for a successor, and tells `handed` when it has taken over. Then shares kills with it until this process ends.
    pub async fn run(self, listener: std::os::unix::net::UnixListener, path: PathBuf, handed: watch::Sender<bool>) {
        let host = Arc::new(self);
        let listener = match UnixListener::from_std(listener) {
            Ok(listener) => listener,
            Err(error) => {
                tracing::error!(%error, "the hand-over socket cannot be used; an upgrade needs a restart");
                return;
            }
        };
        loop {
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "a successor could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let ours = std::fs::metadata(&path)
                .is_ok_and(|file| stream.peer_cred().is_ok_and(|peer| peer.uid() == file.uid()));
            let stream = stream.into_std().and_then(|stream| Line::new(stream, PATIENCE));
            let (Ok(line), true) = (stream, ours) else {
                tracing::warn!("somebody who may not asked for the sockets of this process");
                continue;
            };
            if host.control.is_draining() {
                continue;
            }
            let (its_host, runtime) = (Arc::clone(&host), Handle::current());
            let session = tokio::task::spawn_blocking(move || its_host.session(line, &runtime));
            // A panic has been logged where it happened.
            match session.await.unwrap_or_else(|_| Err(io::Error::other("it broke down"))) {
                Ok(stream) => {
                    drop(listener);
                    tracing::info!("another process has taken over");
                    handed.send_replace(true);
                    exchange(stream, Arc::clone(host.control.live())).await;
                    return;
                }
                Err(error) => tracing::warn!(%error, "a hand-over came to nothing; this process goes on"),
            }
        }
    }

    /// One attempt of a successor. An error leaves everything as it was.
    fn session(&self, mut line: Line, runtime: &Handle) -> io::Result<UnixStream> {
        if line.expect(Kind::Hello)?.text != VERSION {
            line.say(
                Kind::No,
                "the running process hands over in another way: restart it instead",
            )?;
            return Err(strange("it speaks another version"));
        }
        for (name, queue) in &*self.kept.lock().unwrap_or_else(PoisonError::into_inner) {
            let socket = match queue {
                Queue::Tcp(socket) => socket.as_fd(),
                Queue::Unix(socket) => socket.as_fd(),
            };
            line.hand(name, socket)?;
        }
        line.say(Kind::Sockets, "")?;
        line.expect(Kind::State)?;
        let closed = runtime.block_on(self.control.close(CLOSING));
        let done = if closed {
            self.last_turns(line)
        } else {
            line.say(
                Kind::No,
                "the running process could not store its state: see to its disk",
            )
            .and_then(|()| {
                Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    "the state could not be stored in time",
                ))
            })
        };
        if done.is_err() {
            self.take_back();
        }
        done
    }

    fn last_turns(&self, mut line: Line) -> io::Result<UnixStream> {
        let kills = self.control.live().kills.read(KillSet::clone);
        line.say(Kind::Kills, &store::write_kills(&kills))?;
        line.expect(Kind::Ready)?;
        line.say(Kind::Go, "")?;
        Ok(line.into_inner())
    }

    fn take_back(&self) {
        self.control
            .take_back(store::open(&self.state_path, store::Timing::default()));
    }
}

/// Whether this is the file of a hand-over socket that somebody else may not have opened.
pub(in crate::app) const MODE: u32 = 0o600;

/// Removes the file of the process before, which has left it.
pub(in crate::app) fn make_room(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
