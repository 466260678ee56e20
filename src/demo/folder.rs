//! The temporary folder, the log in it, and the watchdog that ends everything.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use super::operator::Awaited;
use crate::telemetry::spawn;

/// The log grows no further.
const LOG_LIMIT_BYTES: u64 = 64 << 20;
/// Folders of this process that may already exist.
const TRIES: u32 = 100;

/// A folder that only this user may enter; removed when dropped.
#[derive(Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// Makes a new one.
    ///
    /// # Errors
    /// What the system says.
    pub fn make() -> io::Result<Self> {
        let base = std::env::temp_dir();
        let mut last = io::Error::from(io::ErrorKind::AlreadyExists);
        for n in 0..TRIES {
            let path = base.join(format!("understudy-demo-{}-{n}", std::process::id()));
            // Made, not found: a folder that somebody else prepared is not used.
            match fs::DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => return Ok(Self(path)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => last = error,
                Err(error) => return Err(error),
            }
        }
        Err(last)
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Writes a file.
    ///
    /// # Errors
    /// What the system says.
    pub fn write(&self, name: &str, text: &str) -> io::Result<()> {
        fs::write(self.0.join(name), text)
    }

    /// Opens the log.
    ///
    /// # Errors
    /// What the system says.
    pub fn log(&self) -> io::Result<Log> {
        let file = File::create(self.0.join("log.jsonl"))?;
        Ok(Log {
            file,
            left: LOG_LIMIT_BYTES,
        })
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What cannot be removed is left to whoever cleans up temporary folders.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A log file that stops growing.
#[derive(Debug)]
pub struct Log {
    file: File,
    left: u64,
}

impl Write for Log {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let bytes = line.len() as u64;
        if bytes > self.left {
            return Ok(line.len());
        }
        let written = self.file.write(line)?;
        self.left = self.left.saturating_sub(written as u64);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Ends the process when time is up, whatever else hangs.
#[derive(Debug)]
pub struct Watchdog(SyncSender<Duration>);

impl Watchdog {
    /// Watches from now on. When time is up it says what was awaited, removes the folder and exits with 1.
    ///
    /// # Errors
    /// When the system has no thread to give.
    pub fn start(limit: Duration, awaited: Awaited, folder: &Folder) -> io::Result<Self> {
        let (sender, receiver) = sync_channel(1);
        let folder = folder.path().to_owned();
        spawn::thread("demo-watchdog", move || {
            let mut limit = limit;
            loop {
                match receiver.recv_timeout(limit) {
                    Ok(next) => limit = next,
                    Err(RecvTimeoutError::Disconnected) => return,
                    Err(RecvTimeoutError::Timeout) => break,
                }
            }
            eprintln!(
                "the demo was given up after {} s, waiting for this: {}",
                limit.as_secs(),
                awaited.what()
            );
            let _ = fs::remove_dir_all(&folder);
            std::process::exit(1);
        })?;
        Ok(Self(sender))
    }

    /// Watches anew, for this long.
    pub fn watch(&self, limit: Duration) {
        // A watchdog that has gone has ended the process.
        let _ = self.0.send(limit);
    }

    /// Watches no more.
    pub fn rest(&self) {
        self.watch(Duration::MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folder_is_gone_with_all_that_is_in_it() {
        let folder = Folder::make().expect("a temporary folder");
        let path = folder.path().to_owned();
        folder.write("a", "b").expect("a file in it");
        assert!(path.join("a").exists());
        drop(folder);
        assert!(!path.exists());
    }

    #[test]
    fn log_stops_growing_between_two_lines() {
        let folder = Folder::make().expect("a temporary folder");
        let file = File::create(folder.path().join("log")).expect("a file in it");
        let mut log = Log { file, left: 10 };
        for _ in 0..3 {
            log.write_all(b"123456\n").expect("it takes everything");
        }
        assert_eq!(fs::read(folder.path().join("log")).expect("it exists"), b"123456\n");
    }
}
