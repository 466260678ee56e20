//! What the tests of this module share: a folder of their own, and changes with little in them.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use super::record::{KillChange, Origin};
use crate::engine::guard::{Kill, KillTarget};
use crate::engine::vocab::{Epoch, FlagKey, RouteKey, SubjectHash};

/// A folder that goes with its value.
pub(super) struct Folder(PathBuf);

impl Folder {
    pub(super) fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let name = format!(
            "understudy-store-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).expect("a folder for temporary files");
        Self(path)
    }

    /// Where the state file of a test goes.
    pub(super) fn state(&self) -> PathBuf {
        self.0.join("understudy.db")
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub(super) fn route(name: &str) -> KillTarget {
    KillTarget::Route(RouteKey::parse(name).expect("a key"))
}

pub(super) fn flag(name: &str) -> KillTarget {
    KillTarget::Flag(FlagKey::parse(name).expect("a key"))
}

pub(super) fn subject(route: &str, hash: u64) -> KillTarget {
    KillTarget::Subject(RouteKey::parse(route).expect("a key"), SubjectHash(hash))
}

fn change(target: KillTarget, epoch: u64, killed: bool, reason: &str) -> KillChange {
    let kill = Kill {
        epoch: Epoch(epoch),
        killed,
        reason: reason.into(),
        actor: "ann".into(),
        at_unix_ms: 1_000,
    };
    KillChange {
        target,
        kill,
        origin: Origin {
            role: Some("operator".into()),
            from: Some("127.0.0.1".into()),
        },
    }
}

pub(super) fn kill(target: KillTarget, epoch: u64) -> KillChange {
    change(target, epoch, true, "too many errors")
}

pub(super) fn rearm(target: KillTarget, epoch: u64) -> KillChange {
    change(target, epoch, false, "repaired")
}
