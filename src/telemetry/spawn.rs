//! Tasks and threads that cannot die unseen.
//!
//! Every task and thread of the program starts here (`clippy.toml` bans the bare functions). A panic inside one is
//! logged with the name it was given, and a counter tells a monitor that something of ours is broken.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

static PANICS: AtomicU64 = AtomicU64::new(0);

/// How many tasks and threads have panicked since the start.
#[must_use]
pub fn panics() -> u64 {
    PANICS.load(Ordering::Relaxed)
}

/// Starts a task on the current runtime; a panic in it ends the task alone, is logged and counted.
pub fn task<F>(name: &'static str, future: F) -> tokio::task::JoinHandle<()>
where
    F: Future<Output = ()> + Send + 'static,
{
    let watched = Watched { name, done: false };
    // A future that another awaits lies in it twice: where it was handed over, and where it is awaited.
    let future = Box::pin(future);
    #[allow(clippy::disallowed_methods, reason = "the one place that spawns")]
    tokio::spawn(async move {
        let mut watched = watched;
        future.await;
        watched.done = true;
    })
}

/// Starts a named thread; a panic in it is logged and counted.
///
/// # Errors
/// When the operating system has no thread to give.
pub fn thread<F>(name: &str, body: F) -> std::io::Result<JoinHandle<()>>
where
    F: FnOnce() + Send + 'static,
{
    let label = name.to_owned();
    #[allow(clippy::disallowed_methods, reason = "the one place that starts threads")]
    std::thread::Builder::new().name(name.to_owned()).spawn(move || {
        if std::panic::catch_unwind(AssertUnwindSafe(body)).is_err() {
            PANICS.fetch_add(1, Ordering::Relaxed);
            tracing::error!(
                thread = label,
                "a thread panicked; restart this instance and report the message above"
            );
        }
    })
}

struct Watched {
    name: &'static str,
    done: bool,
}

impl Drop for Watched {
    fn drop(&mut self) {
        if !self.done && std::thread::panicking() {
            PANICS.fetch_add(1, Ordering::Relaxed);
            tracing::error!(
                task = self.name,
                "a task panicked; the rest goes on, report the message above"
            );
        }
    }
}

/// Puts this thread to sleep. For threads of their own that wait for others or for more to do, never for a
/// runtime's.
pub fn pause(time: std::time::Duration) {
    #[allow(clippy::disallowed_methods, reason = "the one place that sleeps")]
    std::thread::sleep(time);
}
