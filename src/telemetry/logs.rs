//! Log lines: JSON on standard error, one object per line.
//!
//! Levels mean who must act: ERROR somebody, WARN nobody now, INFO life cycle and changes; DEBUG and TRACE are never
//! on by default. `RUST_LOG` chooses otherwise. Per-request lines have their own target, [`DECISIONS`].
//!
//! A thread of its own does the writing. Whoever reads the log may be slow or gone: then lines are dropped, never a
//! request delayed.

use std::io::Write;
use std::sync::OnceLock;

use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// The target of the decision log.
pub const DECISIONS: &str = "understudy::decisions";

/// The target of the access log.
pub const ACCESS: &str = "understudy::access";

/// Lines that may wait to be written.
const WAITING: usize = 16_384;

static DROPPED: OnceLock<ErrorCounter> = OnceLock::new();

/// Lines that were dropped because the log did not take them.
#[must_use]
pub fn dropped() -> usize {
    DROPPED.get().map_or(0, ErrorCounter::dropped_lines)
}

/// Writes what waits when it is dropped: to be held until the process ends.
#[derive(Debug)]
#[must_use]
pub struct Lines {
    _writer: Option<WorkerGuard>,
}

/// Starts logging for the process. A second call changes nothing.
pub fn init() -> Lines {
    start(
        EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info")),
        std::io::stderr(),
    )
}

/// Starts logging to `writer`, whatever `RUST_LOG` says: for a process whose terminal shows something else.
pub fn init_to(writer: impl Write + Send + 'static) -> Lines {
    start(EnvFilter::new("info"), writer)
}

fn start(filter: EnvFilter, writer: impl Write + Send + 'static) -> Lines {
    let (writer, guard) = NonBlockingBuilder::default()
        .lossy(true)
        .buffered_lines_limit(WAITING)
        .finish(writer);
    let dropped = writer.error_counter();
    let lines = tracing_subscriber::fmt::layer()
        .json()
        .flatten_event(true)
        .with_current_span(false)
        .with_span_list(false)
        .with_writer(writer);
    let first = tracing_subscriber::registry()
        .with(filter)
        .with(lines)
        .try_init()
        .is_ok();
    if first {
        // Only the first writer is ever written to.
        let _ = DROPPED.set(dropped);
    }
    Lines {
        _writer: first.then_some(guard),
    }
}
