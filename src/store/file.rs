//! The state file as a file: made where there is none, and known again.
//!
//! In: a path. Out: which file it leads to, or why it cannot be used. What is in it is left to `sqlite`.

use std::fs::{self, File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use super::Unreadable;

/// Which file a path leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    pub(super) fn of(meta: &fs::Metadata) -> Self {
        Self {
            device: meta.dev(),
            inode: meta.ino(),
        }
    }

    /// Whether `path` still leads here. What is written to a file that was moved away or deleted is lost with it.
    pub(super) fn is_at(self, path: &Path) -> bool {
        fs::metadata(path).is_ok_and(|meta| Self::of(&meta) == self)
    }
}

/// Makes sure that there is a file, readable by nobody else, and says which one it is.
pub(super) fn ensure(path: &Path, written_before: bool) -> Result<FileId, Unreadable> {
    const REMEDY: &str = "state.path must name a file in a folder that exists and can be written";
    let unreadable = |error: std::io::Error| Unreadable::new(path, error.to_string(), REMEDY);
    match fs::metadata(path) {
        Ok(meta) if !meta.is_file() => Err(Unreadable::new(path, "is not a regular file", REMEDY)),
        // SQLite takes an empty file for a new database. The journal is made after the state file has its tables, so
        // together with a journal an empty one is a file that lost its content.
        Ok(meta) if meta.len() == 0 && written_before => Err(Unreadable::new(
            path,
            "has lost its content",
            "restore it from a backup, or move it and its journal (`.kills`) away to start without it",
        )),
        Ok(meta) => Ok(FileId::of(&meta)),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            // What it knew was killed may not be in the journal: nobody knows, so nothing may be served by new.
            if written_before {
                return Err(Unreadable::new(
                    path,
                    "is gone, though its kill journal is here",
                    "restore it from a backup, or move the journal (`.kills`) away too to start without it",
                ));
            }
            // SQLite gives its side files the mode of this one.
            let made = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(path)
                .map_err(unreadable)?;
            sync_folder(path).map_err(unreadable)?;
            made.metadata().map(|meta| FileId::of(&meta)).map_err(unreadable)
        }
        Err(error) => Err(unreadable(error)),
    }
}

/// Makes the names in a file's folder durable.
pub(super) fn sync_folder(path: &Path) -> std::io::Result<()> {
    match path.parent() {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}
