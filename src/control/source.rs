//! The files that rules come from: read, hashed, and watched for change.
//!
//! Folders are watched, not files: editors rename and Kubernetes swaps a link, and a watch on the file itself dies with
//! the old one. Whatever an event says, only the content decides whether something changed, and a poll finds what no
//! event told of (network file systems tell nothing).

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::hash::Hasher as _;
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use notify::{RecursiveMode, Watcher as _};
use rustix::fs::OFlags;
use tokio::sync::mpsc;
use tokio::time::Sleep;
use xxhash_rust::xxh64::Xxh64;

use crate::config::{self, Config};
use crate::engine::decide::Copies;
use crate::engine::ruleset::document::Document;
use crate::engine::ruleset::edit::RuntimeLayers;
use crate::engine::ruleset::problem::{Place, Problem, Problems};
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
    /// What was in the files.
    pub files: Arc<Files>,
    /// The rules.
    pub rules: Ruleset,
    /// What an operator should look at.
    pub warnings: Vec<Problem>,
}

/// What was in the files: with it, rules are compiled anew when something else than a file has changed.
#[derive(Clone, Debug)]
pub struct Files {
    /// The configuration; its routes are in the rules.
    pub config: Config,
    routes: Vec<RouteSpec>,
    document: Option<Document>,
    variables: BTreeMap<String, String>,
    problems: Problems,
}

impl Files {
    /// Compiles the rules.
    ///
    /// # Errors
    /// Every problem, then every warning, those of the reading included.
    pub fn compile(&self, before: Before<'_>, runtime: RuntimeLayers) -> Result<(Ruleset, Vec<Problem>), Vec<Problem>> {
        let copies: [Copies; 2] = self.config.backends.copies();
        compile(Input {
            revision: before.revision,
            environment: &self.config.environment,
            document: self.document.clone(),
            runtime,
            variables: &self.variables,
            routes: self.routes.clone(),
            copies,
            now_ms: before.now_ms,
            previous: before.rules,
            marks: before.marks,
            problems: self.problems.clone(),
        })
    }
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
    /// Reads everything and compiles it, by itself and under what was said at run time; also the files that were read, and a hash over their content.
    pub fn read(&self, before: Before<'_>, runtime: RuntimeLayers) -> (Result<Read, Vec<Problem>>, Fingerprint) {
        let mut fingerprint = Fingerprint::default();
        // Whoever starts a process sees that it waits for a pipe, and may want that.
        let read_file = if before.rules.is_some() {
            read_again
        } else {
            |path: &Path| std::fs::read(path)
        };
        let mut read = |path: &Path| {
            let content = read_file(path);
            fingerprint.add(path, &content);
            content
        };
        let result = self.files(&mut read).and_then(|files| {
            // By themselves too: a restart without its state, and whoever checks the files beforehand, has nothing else.
            let alone = files.compile(before, RuntimeLayers::default())?;
            let (rules, warnings) = if runtime.is_empty() {
                alone
            } else {
                files.compile(before, runtime)?
            };
            Ok(Read {
                files: Arc::new(files),
                rules,
                warnings,
            })
        });
        (result, fingerprint)
    }

    fn files(&self, read: &mut dyn FnMut(&Path) -> io::Result<Vec<u8>>) -> Result<Files, Vec<Problem>> {
        // Told in one go: whoever mends the configuration must not meet the flag file's problems only after it.
        let mut problems = Problems::default();
        let config::Reading { config, flags_file } = config::read(&self.config, read, &mut problems);
        let mut document = None;
        if let Some(named) = &flags_file {
            match config::read_named(named, &self.config, read) {
                Ok(bytes) => {
                    let file: Arc<str> = named.value.to_string_lossy().into();
                    if bytes.trim_ascii().is_empty() {
                        // Whoever writes a file truncates it first, and a full disk leaves it so.
                        let remedy = "write `features: {}` if no flag is meant";
                        problems.problem(Place::whole(Arc::clone(&file)), "", "the flag file is empty", remedy);
                    }
                    document = yaml::utf8(&file, &bytes, &mut problems)
                        .and_then(|text| Document::parse(&file, text, &mut problems));
                }
                Err(problem) => problems.add(problem),
            }
        }
        let Some(mut config) = config else {
            // Missing only where a problem was added.
            return Err(problems.verdict().err().unwrap_or_default());
        };
        let routes: Vec<RouteSpec> = std::mem::take(&mut config.routes);
        Ok(Files {
            config,
            routes,
            document,
            variables: self.variables.clone(),
            problems,
        })
    }

    /// The hash of these files' content now.
    #[must_use]
    pub fn look(files: &Fingerprint) -> Fingerprint {
        let mut now = Fingerprint::default();
        for path in &files.paths {
            now.add(path, &read_again(path));
        }
        now
    }
}

/// Reads a file while others wait: a pipe might never be written to, and a device has no end.
fn read_again(path: &Path) -> io::Result<Vec<u8>> {
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let mut file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    let kind = file.metadata()?.file_type();
    if !kind.is_file() && !kind.is_dir() {
        return Err(io::Error::other("it is no regular file"));
    }
    let mut content = Vec::new();
    file.read_to_end(&mut content)?;
    Ok(content)
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
    next: Next,
}

/// The next look. It is kept in the watch, not in the future that waits for it: who waits for other things too drops that
/// future, and neither an event nor the time that has passed may be lost with it.
#[derive(Debug)]
enum Next {
    /// Something happened.
    Soon(Pin<Box<Sleep>>),
    /// Nothing was heard.
    Late(Pin<Box<Sleep>>),
}

impl Next {
    fn soon() -> Self {
        Self::Soon(Box::pin(tokio::time::sleep(DEBOUNCE)))
    }

    fn late() -> Self {
        Self::Late(Box::pin(tokio::time::sleep(POLL)))
    }
}

impl Watch {
    /// A watch that looks at nothing yet.
    ///
    /// # Panics
    /// Outside a runtime.
    #[must_use]
    pub fn new() -> Self {
        // One event waiting is enough to know that something happened.
        let (sender, events) = mpsc::channel(1);
        let sender = Arc::new(Mutex::new(sender));
        Self {
            watcher: None,
            folders: Vec::new(),
            events,
            sender,
            next: Next::late(),
        }
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
        // No event tells of what happened between the reading and the first watch.
        self.next = Next::soon();
    }

    /// Waits until the files may have changed. Loses nothing when it is dropped and called again.
    pub async fn changed(&mut self) {
        loop {
            match &mut self.next {
                Next::Soon(until) => {
                    until.as_mut().await;
                    break;
                }
                Next::Late(until) => tokio::select! {
                    Some(()) = self.events.recv() => self.next = Next::soon(),
                    // Silence is the usual way to get here.
                    () = until.as_mut() => break,
                },
            }
        }
        while self.events.try_recv().is_ok() {}
        self.next = Next::late();
    }
}

impl Default for Watch {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn event_survives_that_the_wait_for_it_is_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("features.yaml");
        let mut files = Fingerprint::default();
        files.add(&file, &std::fs::read(&file));
        let mut watch = Watch::new();
        watch.follow(&files);
        watch.changed().await;
        assert!(Source::look(&files) == files);
        std::fs::write(&file, "features: {}").unwrap();
        // Far less than the debounce at a time, and in all far less than the poll.
        let waits = async {
            while tokio::time::timeout(Duration::from_millis(2), watch.changed())
                .await
                .is_err()
            {}
        };
        tokio::time::timeout(POLL / 3, waits).await.expect("the event is told");
        assert!(Source::look(&files) != files);
    }

    #[tokio::test]
    async fn change_before_the_first_watch_is_looked_for() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("features.yaml");
        let mut files = Fingerprint::default();
        files.add(&file, &std::fs::read(&file));
        std::fs::write(&file, "features: {}").unwrap();
        let mut watch = Watch::new();
        watch.follow(&files);
        tokio::time::timeout(POLL / 3, watch.changed())
            .await
            .expect("a first look");
    }
}
