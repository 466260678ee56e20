//! The files that rules come from: read, hashed, and watched for change.
//!
//! Folders are watched, not files: editors rename and Kubernetes swaps a link, and a watch on the file itself dies with
//! the old one. Whatever an event says, only the content decides whether something changed, and a poll finds what no
//! event told of (network file systems tell nothing).

use std::collections::BTreeMap;
use std::hash::Hasher as _;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use notify::{RecursiveMode, Watcher as _};
use tokio::sync::mpsc;
use xxhash_rust::xxh64::Xxh64;

use crate::config::{self, Config};
use crate::engine::decide::Copies;
use crate::engine::ruleset::document::Document;
use crate::engine::ruleset::problem::{Problem, Problems};
use crate::engine::ruleset::route::RouteSpec;
use crate::engine::ruleset::{Input, Ruleset, StoredMark, compile, yaml};
use crate::engine::vocab::Revision;

/// Events come in swarms; this long after the first one the files are read.
const DEBOUNCE: Duration = Duration::from_millis(200);

/// How often the files are read when nothing was heard.
const POLL: Duration = Duration::from_secs(30);

/// Where rules come from.
#[derive(Clone, Debug)]
pub struct Source {
    /// The configuration file.
    pub config: PathBuf,
    /// The process's environment variables.
    pub variables: BTreeMap<String, String>,
}

/// Everything that one reading of the files gave.
#[derive(Debug)]
pub struct Read {
    /// The configuration.
    pub config: Config,
    /// The rules.
    pub rules: Ruleset,
    /// What an operator should look at.
    pub warnings: Vec<Problem>,
}

/// What the rules go on from.
#[derive(Clone, Copy, Debug)]
pub struct Before<'a> {
    /// The number that new rules get.
    pub revision: Revision,
    /// The rules in force.
    pub rules: Option<&'a Ruleset>,
    /// How far gradual flags had risen before the process started.
    pub marks: &'a [StoredMark],
    /// The wall clock, in milliseconds since 1970.
    pub now_ms: i64,
}

impl Source {
    /// Reads and compiles everything; also the files that were read, and a hash over their content.
    pub fn read(&self, before: Before<'_>) -> (Result<Read, Vec<Problem>>, Fingerprint) {
        let mut fingerprint = Fingerprint::default();
        let mut read = |path: &Path| {
            let content = std::fs::read(path);
            fingerprint.add(path, &content);
            content
        };
        let result = self.compile(before, &mut read);
        (result, fingerprint)
    }

    fn compile(
        &self,
        before: Before<'_>,
        read: &mut dyn FnMut(&Path) -> io::Result<Vec<u8>>,
    ) -> Result<Read, Vec<Problem>> {
        let config::Loaded { mut config, warnings } = config::load_by(&self.config, read)?;
        let mut problems = Problems::default();
        warnings.into_iter().for_each(|warning| problems.add(warning));
        let mut document = None;
        if let Some(named) = &config.flags_file {
            match config::read_named(named, &self.config, read) {
                Ok(bytes) => {
                    let file: Arc<str> = named.value.to_string_lossy().into();
                    document = yaml::utf8(&file, &bytes, &mut problems)
                        .and_then(|text| Document::parse(&file, text, &mut problems));
                }
                Err(problem) => problems.add(problem),
            }
        }
        let routes: Vec<RouteSpec> = std::mem::take(&mut config.routes);
        let copies: [Copies; 2] = config.backends.copies();
        let environment = config.environment.clone();
        let (rules, warnings) = compile(Input {
            revision: before.revision,
            environment: &environment,
            document,
            variables: &self.variables,
            routes,
            copies,
            now_ms: before.now_ms,
            previous: before.rules,
            marks: before.marks,
            problems,
        })?;
        Ok(Read { config, rules, warnings })
    }

    /// The hash of these files' content now.
    #[must_use]
    pub fn look(files: &Fingerprint) -> Fingerprint {
        let mut now = Fingerprint::default();
        for path in &files.paths {
            now.add(path, &std::fs::read(path));
        }
        now
    }
}

/// Which files were read, and what was in them.
#[derive(Clone, Debug, Default)]
pub struct Fingerprint {
    paths: Vec<PathBuf>,
    hash: u64,
}

impl PartialEq for Fingerprint {
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash && self.paths == other.paths
    }
}

impl Fingerprint {
    fn add(&mut self, path: &Path, content: &io::Result<Vec<u8>>) {
        if self.paths.iter().any(|known| known == path) {
            return;
        }
        self.paths.push(path.to_owned());
        let mut hasher = Xxh64::new(self.hash);
        match content {
            Ok(bytes) => {
                hasher.write_u8(1);
                hasher.write(bytes);
            }
            Err(error) => hasher.write(error.to_string().as_bytes()),
        }
        self.hash = hasher.finish();
    }

    fn folders(&self) -> Vec<PathBuf> {
        let mut folders: Vec<PathBuf> = self
            .paths
            .iter()
            .map(|path| match path.parent() {
                Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
                _ => PathBuf::from("."),
            })
            .collect();
        folders.sort();
        folders.dedup();
        folders
    }
}

/// Tells when it is worth looking at the files again.
#[derive(Debug)]
pub struct Watch {
    watcher: Option<notify::RecommendedWatcher>,
    folders: Vec<PathBuf>,
    events: mpsc::Receiver<()>,
    sender: Arc<Mutex<mpsc::Sender<()>>>,
}

impl Watch {
    /// A watch that looks at nothing yet.
    #[must_use]
    pub fn new() -> Self {
        // One event waiting is enough to know that something happened.
        let (sender, events) = mpsc::channel(1);
        Self { watcher: None, folders: Vec::new(), events, sender: Arc::new(Mutex::new(sender)) }
    }

    /// Watches the folders of these files from now on.
    pub fn follow(&mut self, files: &Fingerprint) {
        let folders = files.folders();
        if folders == self.folders && self.watcher.is_some() {
            return;
        }
        let sender = Arc::clone(&self.sender);
        let told = move |_: notify::Result<notify::Event>| {
            // Full means that a look is due already.
            let _ = sender.lock().unwrap_or_else(PoisonError::into_inner).try_send(());
        };
        match notify::recommended_watcher(told) {
            Ok(mut watcher) => {
                for folder in &folders {
                    if let Err(error) = watcher.watch(folder, RecursiveMode::NonRecursive) {
                        let folder = folder.display();
                        tracing::warn!(%folder, %error, "a folder cannot be watched; its files are read every 30 s");
                    }
                }
                self.watcher = Some(watcher);
            }
            Err(error) => tracing::warn!(%error, "files cannot be watched; they are read every 30 s"),
        }
        self.folders = folders;
    }

    /// Waits until the files may have changed.
    pub async fn changed(&mut self) {
        // Silence is the usual way to get here, and then the poll looks.
        let _ = tokio::time::timeout(POLL, self.events.recv()).await;
        tokio::time::sleep(DEBOUNCE).await;
        while self.events.try_recv().is_ok() {}
    }
}

impl Default for Watch {
    fn default() -> Self {
        Self::new()
    }
}
