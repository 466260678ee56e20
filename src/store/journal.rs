//! `<state.path>.kills`: where kills go that the state file does not take, on a full disk or a stalled one.
//!
//! In: kills. Out: the same kills at the next start. The space is written beforehand, so that a line needs no new block
//! of a full disk; the descriptor stays open, so that it needs no lookup either. Layout: a head of 512 bytes, then lines
//! of JSON, each with its sum, then line feeds up to the reserved end. Lines are written in place and synced one by one:
//! only what comes last can be torn, and a torn line was never confirmed. Anything else that does not read is damage.
//!
//! The head says where the lines begin that count. To empty the file it is first put behind all of them, then they are
//! blanked, then it is put back: a crash in between leaves the old lines or none, never half of one.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Unreadable;
use super::file::{FileId, sync_folder};
use super::record::{JournalHead, KillChange, LineError, head_line, kills_line, parse_head, parse_kills};
use crate::engine::vocab::HashKey;
use crate::telemetry::clock;

/// The head has a sector of its own, which a disk writes whole or not at all.
const HEAD: u64 = 512;

/// What is written beforehand: room for about a thousand kills.
pub(super) const RESERVED: u64 = 256 * 1024;

/// The end of the reserved space that held subjects do not get. There may be thousands of them, and they must not take
/// the place of a kill of a route, which covers them all.
const NOT_FOR_SUBJECTS: u64 = 64 * 1024;

/// Where the file stops growing.
const LIMIT: u64 = 4 * 1024 * 1024;

/// So many kills share a line and a sync.
const PER_LINE: usize = 32;

/// The secret in the head of the journal at this path; for readers, so without the lock.
pub(super) fn read_hash_key(path: &Path) -> Option<HashKey> {
    let mut head = [0; HEAD as usize];
    File::open(path)
        .and_then(|file| file.read_exact_at(&mut head, 0))
        .ok()?;
    parse_head(head.trim_ascii_end())
        .ok()
        .map(|head| HashKey(head.hash_key))
}

/// The open journal.
pub(super) struct Journal {
    file: File,
    path: PathBuf,
    id: FileId,
    head: JournalHead,
    /// Where the next line goes.
    next: u64,
    /// Up to here there may be something else than line feeds.
    dirty: u64,
    /// Where the space ends that is surely ours.
    end: u64,
}

/// A journal as it was found.
pub(super) struct Found {
    pub journal: Journal,
    pub kills: Vec<KillChange>,
}

impl Journal {
    /// Where the journal of a state file is.
    pub(super) fn path_for(state: &Path) -> PathBuf {
        let mut path = state.as_os_str().to_owned();
        path.push(".kills");
        path.into()
    }

    /// Opens and reads the journal, if there is one, and takes its lock within `patience`.
    ///
    /// # Errors
    /// [`Unreadable`] for whatever is not a sound journal; it is left as it is.
    pub(super) fn open(path: &Path, patience: Duration) -> Result<Option<Found>, Unreadable> {
        let unreadable = |error: io::Error| {
            Unreadable::new(
                path,
                error.to_string(),
                "see to the file, its folder and its disk, then restart",
            )
        };
        match fs::metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(unreadable(error)),
            Ok(meta) if !meta.is_file() => {
                return Err(Unreadable::new(
                    path,
                    "is not a regular file",
                    "move it away, then restart",
                ));
            }
            Ok(meta) if meta.len() > LIMIT => return Err(damaged(path, "is longer than any that was written")),
            Ok(_) => {}
        }
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(path)
            .map_err(unreadable)?;
        lock(&file, path, patience)?;
        let meta = file.metadata().map_err(unreadable)?;
        let mut bytes = vec![0; usize::try_from(meta.len().min(LIMIT)).unwrap_or(0)];
        file.read_exact_at(&mut bytes, 0).map_err(unreadable)?;

        let (head, body) = bytes
            .split_at_checked(HEAD as usize)
            .ok_or_else(|| damaged(path, "has lost its head"))?;
        let head = parse_head(head.trim_ascii_end()).map_err(|error| match error {
            LineError::Newer => newer(path),
            LineError::Damaged | LineError::Torn => damaged(path, "has a damaged head"),
        })?;
        let lines = head
            .from
            .checked_sub(HEAD)
            .and_then(|skip| body.get(usize::try_from(skip).ok()?..));
        let lines = lines.ok_or_else(|| damaged(path, "has a damaged head"))?;
        let scan = scan(lines, path)?;
        let journal = Self {
            file,
            path: path.to_owned(),
            id: FileId::of(&meta),
            head,
            next: head.from + scan.sound,
            dirty: head.from + scan.filled,
            end: meta.len(),
        };
        Ok(Some(Found {
            journal,
            kills: scan.kills,
        }))
    }

    /// Makes an empty journal with its space, readable by nobody else. It appears under its name when it is whole.
    ///
    /// # Errors
    /// [`Unreadable`] if the space is not to be had.
    pub(super) fn create(path: &Path, hash_key: &HashKey) -> Result<Self, Unreadable> {
        let head = JournalHead {
            hash_key: hash_key.0,
            from: HEAD,
        };
        let make = || -> io::Result<(File, FileId)> {
            let mut unnamed = path.as_os_str().to_owned();
            unnamed.push(".new");
            let unnamed = PathBuf::from(unnamed);
            let mut file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&unnamed)?;
            file.write_all(&padded(&head))?;
            file.write_all(&vec![b'\n'; (RESERVED - HEAD) as usize])?;
            file.sync_all()?;
            fs::rename(&unnamed, path)?;
            sync_folder(path)?;
            let id = FileId::of(&file.metadata()?);
            Ok((file, id))
        };
        let (file, id) = make().map_err(|error| {
            let what = format!("cannot be made: {error}");
            Unreadable::new(
                path,
                what,
                "make room on the disk and its folder writable, then restart",
            )
        })?;
        lock(&file, path, Duration::ZERO)?;
        Ok(Self {
            file,
            path: path.to_owned(),
            id,
            head,
            next: HEAD,
            dirty: HEAD,
            end: RESERVED,
        })
    }

    /// The secret of the held subjects in it.
    pub(super) const fn hash_key(&self) -> HashKey {
        HashKey(self.head.hash_key)
    }

    /// Takes another secret, and reserves again what is missing of the space.
    ///
    /// # Errors
    /// [`Unreadable`] if that cannot be written.
    pub(super) fn adopt(&mut self, hash_key: &HashKey) -> Result<(), Unreadable> {
        let mut write = || {
            if self.end < RESERVED {
                self.grow(RESERVED)?;
            }
            if self.head.hash_key != hash_key.0 {
                self.put_head(JournalHead {
                    hash_key: hash_key.0,
                    ..self.head
                })?;
            }
            Ok(())
        };
        write().map_err(|error: io::Error| {
            let what = format!("cannot be written: {error}");
            Unreadable::new(
                &self.path,
                what,
                "make room on the disk and the file writable, then restart",
            )
        })
    }

    /// Whether there is anything in it.
    pub(super) const fn holds_lines(&self) -> bool {
        self.dirty > HEAD
    }

    /// Appends kills and makes them durable; says how many of them, from the front, are in the journal now.
    ///
    /// # Errors
    /// Of the first one that could not be kept; the number says how far it came all the same.
    pub(super) fn append(&mut self, changes: &[&KillChange]) -> (usize, io::Result<()>) {
        let mut kept = 0;
        for chunk in changes.chunks(PER_LINE) {
            if self.append_line(chunk).is_ok() {
                kept += chunk.len();
                continue;
            }
            // Together they may not fit where some of them do.
            for change in chunk {
                match self.append_line(&[change]) {
                    Ok(()) => kept += 1,
                    Err(error) => return (kept, Err(error)),
                }
            }
        }
        (kept, Ok(()))
    }

    fn append_line(&mut self, changes: &[&KillChange]) -> io::Result<()> {
        if !self.id.is_at(&self.path) {
            return Err(io::Error::other(
                "the kill journal was moved or deleted while in use; put it back or restart",
            ));
        }
        let mut line = kills_line(changes).into_bytes();
        let held_back = if changes.iter().all(|change| change.holds_a_subject()) {
            NOT_FOR_SUBJECTS
        } else {
            0
        };
        let behind = self.next.saturating_add(line.len() as u64);
        let needed = behind.saturating_add(held_back);
        if needed > self.end {
            self.grow(needed.saturating_add(RESERVED))?;
        }
        if needed > self.end {
            return Err(io::Error::new(io::ErrorKind::StorageFull, "the kill journal is full"));
        }
        // What a failed attempt left behind this line must not look like another one.
        let remains = self.dirty.saturating_sub(behind);
        line.extend(std::iter::repeat_n(b'\n', usize::try_from(remains).unwrap_or(0)));
        self.dirty = self.dirty.max(behind);
        self.file.write_all_at(&line, self.next)?;
        self.file.sync_data()?;
        (self.next, self.dirty) = (behind, behind);
        Ok(())
    }

    /// Empties the journal. To be called when every kill in it is in the state file; may be called again after a failure.
    ///
    /// # Errors
    /// When the disk refuses; the lines then count still, or none of them does.
    pub(super) fn clear(&mut self) -> io::Result<()> {
        // Whichever of two heads a failure leaves on the disk, what is appended next lies behind both.
        self.blank(self.next, self.dirty)?;
        self.next = self.dirty;
        self.put_head(JournalHead {
            from: self.next,
            ..self.head
        })?;
        self.blank(HEAD, self.next)?;
        self.put_head(JournalHead {
            from: HEAD,
            ..self.head
        })?;
        (self.next, self.dirty) = (HEAD, HEAD);
        Ok(())
    }

    fn blank(&self, from: u64, to: u64) -> io::Result<()> {
        let len = usize::try_from(to.saturating_sub(from)).unwrap_or(0);
        self.file.write_all_at(&vec![b'\n'; len], from)?;
        self.file.sync_data()
    }

    fn put_head(&mut self, head: JournalHead) -> io::Result<()> {
        self.file.write_all_at(&padded(&head), 0)?;
        self.file.sync_data()?;
        self.head = head;
        Ok(())
    }

    /// Reserves space up to `to`, or up to the limit if that is less.
    fn grow(&mut self, to: u64) -> io::Result<()> {
        let to = to.min(LIMIT);
        let more = usize::try_from(to.saturating_sub(self.end)).unwrap_or(0);
        self.file.write_all_at(&vec![b'\n'; more], self.end)?;
        self.file.sync_all()?;
        self.end = self.end.max(to);
        Ok(())
    }
}

/// The head as it fills its sector.
fn padded(head: &JournalHead) -> Vec<u8> {
    let mut sector = head_line(head).into_bytes();
    sector.resize(HEAD as usize, b'\n');
    sector
}

fn damaged(path: &Path, what: &str) -> Unreadable {
    Unreadable::new(
        path,
        what,
        "see by hand which kills it names, move it away, restart, and kill those again",
    )
}

fn newer(path: &Path) -> Unreadable {
    Unreadable::new(path, "was written by a later version", "run the version that wrote it")
}

/// Two processes that write lines into one journal would overwrite each other's.
fn lock(file: &File, path: &Path, patience: Duration) -> Result<(), Unreadable> {
    const PAUSE: Duration = Duration::from_millis(20);
    let deadline = clock::monotonic() + patience;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(()),
            // The one before us may be about to end.
            Err(TryLockError::WouldBlock) if clock::monotonic() < deadline => std::thread::park_timeout(PAUSE),
            Err(TryLockError::WouldBlock) => {
                return Err(Unreadable::new(
                    path,
                    "is in use by another instance",
                    "give each instance its own state.path",
                ));
            }
            Err(TryLockError::Error(error)) => {
                tracing::warn!(path = %path.display(), %error, "no file locks here; make sure that only one instance uses this state");
                return Ok(());
            }
        }
    }
}

#[derive(Default)]
struct Scan {
    kills: Vec<KillChange>,
    /// Behind the last sound line.
    sound: u64,
    /// Behind the last byte that is not a line feed.
    filled: u64,
}

fn scan(lines: &[u8], path: &Path) -> Result<Scan, Unreadable> {
    let mut scan = Scan::default();
    let (mut at, mut torn) = (0, false);
    for piece in lines.split_inclusive(|byte| *byte == b'\n') {
        at += piece.len() as u64;
        let line = piece.trim_ascii_end();
        if line.is_empty() {
            continue;
        }
        scan.filled = at;
        match parse_kills(line) {
            Ok(kills) if !torn && piece.ends_with(b"\n") => {
                scan.kills.extend(kills);
                scan.sound = at;
            }
            Ok(_) if torn => return Err(damaged(path, "is damaged before its last line")),
            Ok(_) | Err(LineError::Torn) => torn = true,
            Err(LineError::Damaged) => return Err(damaged(path, "is damaged")),
            Err(LineError::Newer) => return Err(newer(path)),
        }
    }
    if torn {
        tracing::warn!(path = %path.display(), "the last line of the kill journal was cut off while it was written; it is left out");
    }
    Ok(scan)
}

#[cfg(test)]
mod tests;
