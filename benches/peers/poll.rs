//! Readiness of sockets, straight from the kernel: what stands between load and backends must cost next to nothing.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, Event, EventData, EventFlags};
use rustix::time::Timespec;

/// An epoll instance and the events it gave last.
pub struct Poll {
    epoll: OwnedFd,
    events: Vec<Event>,
}

impl Poll {
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            events: Vec::with_capacity(1_024),
        })
    }

    /// Watches for something to read (or to accept); `token` comes back with it.
    pub fn watch(&self, source: impl AsFd, token: usize) -> io::Result<()> {
        epoll::add(&self.epoll, source, EventData::new_u64(token as u64), EventFlags::IN)?;
        Ok(())
    }

    /// Watches a socket that is watched already for room to write, too.
    pub fn watch_writes(&self, source: impl AsFd, token: usize) -> io::Result<()> {
        let both = EventFlags::IN | EventFlags::OUT;
        epoll::modify(&self.epoll, source, EventData::new_u64(token as u64), both)?;
        Ok(())
    }

    /// Waits at most this long; the tokens of what is ready.
    pub fn wait(&mut self, timeout_ms: u64) -> io::Result<Vec<usize>> {
        let timeout = Timespec {
            tv_sec: i64::try_from(timeout_ms / 1_000).unwrap_or(i64::MAX),
            tv_nsec: i64::try_from(timeout_ms % 1_000 * 1_000_000).unwrap_or(0),
        };
        self.events.clear();
        match epoll::wait(&self.epoll, spare_capacity(&mut self.events), Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(self
            .events
            .iter()
            .filter_map(|e| usize::try_from(e.data.u64()).ok())
            .collect())
    }
}
