//! An instance on free ports between scripted backends, and clients for both of its doors.

pub mod backend;
pub mod client;
pub mod http2;
pub mod payload;
pub mod process;
pub mod secured;
pub mod socket;
pub mod tls;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::Method;
use tempfile::TempDir;
use understudy::app::{self, App, Options};

pub use backend::{Backend, Received, Reply, Script};
pub use client::{Answered, Client, get, post, raw, request, send};
pub use payload::{Case, sign, signature_holds};
pub use process::{Finished, Instance, understudy};
pub use secured::Secured;
pub use socket::{Blackhole, Listener, Message, Nobody, Socket};
pub use tls::{Authority, Shopper, pair};

/// The token that every instance of the tests takes for an admin.
pub const TOKEN: &str = "test-token";

/// How long a condition may take to come true.
const PATIENCE: Duration = Duration::from_secs(20);

/// Waits for a condition, and fails with its name when it does not come true.
pub async fn deadline(what: &str, mut holds: impl FnMut() -> bool) {
    let end = tokio::time::Instant::now() + PATIENCE;
    while !holds() {
        assert!(tokio::time::Instant::now() < end, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The same for a condition that has to be asked for.
pub async fn eventually<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let end = tokio::time::Instant::now() + PATIENCE;
    while !holds().await {
        assert!(tokio::time::Instant::now() < end, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A backend that answers each request with its body.
pub async fn echo() -> Backend {
    Backend::answering(|r| Reply::text(r.body.clone())).await
}

/// An instance in front of `legacy` alone with these members of `limits`.
pub fn limited(legacy: &impl Located, limits: &str) -> Sidecar {
    Plan::new(legacy, &Nobody::open())
        .route("flag: false")
        .more(&format!("limits: {{ {limits} }}"))
        .start()
}

/// A client that takes twice a backend's time to send four bytes, of which it then gets all back.
pub async fn upload_in_twice(time: Duration, sidecar: SocketAddr) {
    let mut client = Socket::connect(sidecar).await;
    client
        .send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n")
        .await;
    for part in ["a", "b", "c", "d"] {
        tokio::time::sleep(time / 2).await;
        client.send(part).await;
    }
    assert_eq!(client.message().await.body, b"abcd");
}

/// What can stand for a backend.
pub trait Located {
    fn address(&self) -> SocketAddr;
}

macro_rules! located {
    ($($name:ident),*) => { $(impl Located for $name {
        fn address(&self) -> SocketAddr {
            self.address
        }
    })* };
}

located!(Backend, Blackhole, Listener, Nobody, Secured);

/// What an instance is made of.
pub struct Plan {
    /// YAML: a URL in quotes, or a list of them.
    pub legacy_url: String,
    pub new_url: String,
    /// The list of listeners; the first is the one that clients of the tests connect to.
    pub listeners: String,
    /// YAML under `routes:`; each line already indented as a list item.
    pub routes: String,
    /// YAML at the top level, beside what every instance has.
    pub more: String,
    /// Who may enter the admin listener: names, roles, and the tokens. Without any there is no tokens file.
    pub tokens: Vec<[&'static str; 3]>,
    /// Members of `admin`, such as `metrics_token: true`.
    pub admin_more: String,
    /// Members of the backends, such as `copies: dry_run`.
    pub legacy_more: String,
    pub new_more: String,
    /// The flag file; none where only variables set flags.
    pub features: Option<String>,
    pub env: BTreeMap<String, String>,
}

impl Plan {
    pub fn new(legacy: &impl Located, new: &impl Located) -> Self {
        Self {
            legacy_url: format!("\"http://{}\"", legacy.address()),
            new_url: format!("\"http://{}\"", new.address()),
            listeners: "[ { address: \"127.0.0.1:0\" } ]".to_owned(),
            routes: String::new(),
            more: String::new(),
            tokens: vec![["tester", "admin", TOKEN]],
            admin_more: String::new(),
            legacy_more: String::new(),
            new_more: "copies: dry_run".to_owned(),
            features: Some("features: {}\n".to_owned()),
            env: BTreeMap::new(),
        }
    }

    /// One route over everything, identified by `x-shopper-id`, with these further members.
    pub fn route(mut self, members: &str) -> Self {
        self.routes = format!(
            "  - name: shop\n    match: {{ path: / }}\n    identity: [ {{ header: x-shopper-id }} ]\n{}",
            indent(members, 4)
        );
        self
    }

    pub fn routes(mut self, routes: &str) -> Self {
        self.routes = routes.to_owned();
        self
    }

    pub fn listeners(mut self, listeners: &str) -> Self {
        self.listeners = listeners.to_owned();
        self
    }

    pub fn features(mut self, features: &str) -> Self {
        self.features = Some(features.to_owned());
        self
    }

    /// No flag file: only variables set flags.
    pub fn no_flag_file(mut self) -> Self {
        self.features = None;
        self
    }

    pub fn env(mut self, variables: &[(&str, &str)]) -> Self {
        self.env = variables
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        self
    }

    pub fn more(mut self, more: &str) -> Self {
        self.more = more.to_owned();
        self
    }

    pub fn tokens(mut self, tokens: &[[&'static str; 3]]) -> Self {
        self.tokens = tokens.to_vec();
        self
    }

    pub fn admin_more(mut self, more: &str) -> Self {
        self.admin_more = more.to_owned();
        self
    }

    pub fn legacy_more(mut self, more: &str) -> Self {
        self.legacy_more = more.to_owned();
        self
    }

    pub fn new_more(mut self, more: &str) -> Self {
        self.new_more = more.to_owned();
        self
    }

    pub fn yaml(&self, folder: &Path) -> String {
        let member = |more: &str| {
            if more.is_empty() {
                String::new()
            } else {
                format!(", {more}")
            }
        };
        let path = |name: &str| folder.join(name).display().to_string();
        let tokens_file = if self.tokens.is_empty() {
            String::new()
        } else {
            format!("tokens_file: {}", path("tokens.yaml"))
        };
        format!(
            "workers: 2\n\
             listeners: {}\n\
             admin: {{ address: \"127.0.0.1:0\"{}{} }}\n\
             {}\
             state: {{ path: {} }}\n\
             backends:\n  legacy: {{ url: {}{} }}\n  new: {{ url: {}{} }}\n\
             {}\nroutes:\n{}\n",
            self.listeners,
            member(&tokens_file),
            member(&self.admin_more),
            self.features.as_ref().map_or(String::new(), |_| format!(
                "flags: {{ file: {} }}\n",
                path("features.yaml")
            )),
            path("understudy.db"),
            self.legacy_url,
            member(&self.legacy_more),
            self.new_url,
            member(&self.new_more),
            self.more,
            self.routes,
        )
    }

    /// Writes the files and starts an instance.
    pub fn start(self) -> Sidecar {
        let folder = tempfile::tempdir().unwrap();
        self.write(folder.path());
        Sidecar::start_in(folder, self.env)
    }

    /// Writes the files into a folder; gives the configuration's path.
    pub fn write(&self, folder: &Path) -> PathBuf {
        let config = folder.join("understudy.yaml");
        std::fs::write(&config, self.yaml(folder)).unwrap();
        if let Some(features) = &self.features {
            std::fs::write(folder.join("features.yaml"), features).unwrap();
        }
        let entries = self
            .tokens
            .iter()
            .map(|[name, role, token]| format!("  - {{ name: {name}, role: {role}, sha256: {} }}\n", sha256(token)));
        let tokens = format!("tokens:\n{}", entries.collect::<String>());
        std::fs::write(folder.join("tokens.yaml"), tokens).unwrap();
        config
    }
}

/// In hex, as the tokens file has it.
pub fn sha256(text: &str) -> String {
    let digest = <sha2::Sha256 as sha2::Digest>::digest(text.as_bytes());
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub fn indent(text: &str, by: usize) -> String {
    text.trim().lines().map(|line| format!("{:by$}{line}\n", "")).collect()
}

/// A running instance, in this process.
pub struct Sidecar {
    app: Option<App>,
    pub address: SocketAddr,
    door: Door,
    pub folder: TempDir,
    env: BTreeMap<String, String>,
}

impl Sidecar {
    pub fn start_in(folder: TempDir, env: BTreeMap<String, String>) -> Self {
        let options = Options {
            config: folder.path().join("understudy.yaml"),
            env: env.clone(),
        };
        let app = app::start(options).unwrap_or_else(|e| panic!("{e}: {e:?}"));
        let (address, door) = (app.addresses()[0], Door { admin: app.admin() });
        Self {
            app: Some(app),
            address,
            door,
            folder,
            env,
        }
    }

    /// Those of all its listeners.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.app.as_ref().unwrap().addresses().to_vec()
    }

    /// Where SDKs connect.
    pub fn ofrep(&self) -> SocketAddr {
        self.app.as_ref().unwrap().ofrep().unwrap()
    }

    /// Ends the instance in an orderly way and starts it again over the same files.
    pub async fn restart(self) -> Self {
        self.restart_after(|| ()).await
    }

    /// The same, with something done while nothing runs.
    pub async fn restart_after(mut self, meanwhile: impl FnOnce()) -> Self {
        let app = self.app.take().unwrap();
        tokio::task::spawn_blocking(move || app.stop()).await.unwrap();
        meanwhile();
        let folder = std::mem::replace(&mut self.folder, tempfile::tempdir().unwrap());
        Self::start_in(folder, self.env.clone())
    }

    /// Drains; gives how long it took.
    pub async fn stop(mut self) -> Duration {
        let app = self.app.take().unwrap();
        let before = tokio::time::Instant::now();
        tokio::task::spawn_blocking(move || app.stop()).await.unwrap();
        before.elapsed()
    }

    pub fn write_features(&self, features: &str) {
        std::fs::write(self.folder.path().join("features.yaml"), features).unwrap();
    }

    /// Bytes of bodies held now.
    pub fn captured(&self) -> u64 {
        self.app.as_ref().unwrap().control().live().budget.used()
    }

    /// Writes the flag file and has it read at once; gives the problems.
    pub async fn reload(&self, features: &str) -> Result<(), Vec<String>> {
        self.write_features(features);
        let actor = understudy::control::Actor::process("test");
        let reloaded = self.app.as_ref().unwrap().control().reload(&actor).await;
        reloaded
            .map(|_| ())
            .map_err(|problems| problems.iter().map(ToString::to_string).collect())
    }
}

/// The operators' door of an instance.
pub struct Door {
    pub admin: SocketAddr,
}

impl Door {
    pub async fn admin(&self, method: Method, path: &str, body: &str) -> Answered {
        let bearer = format!("Bearer {TOKEN}");
        let host = self.admin.to_string();
        let headers = [
            ("authorization", &*bearer),
            ("content-type", "application/json"),
            ("host", &*host),
        ];
        let headers = if body.is_empty() {
            vec![headers[0], headers[2]]
        } else {
            headers.to_vec()
        };
        send(self.admin, method, path, &headers, body.to_owned()).await
    }

    pub async fn status(&self) -> serde_json::Value {
        let answer = self.admin(Method::GET, "/api/v1/status", "").await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    }

    pub async fn kill(&self, route: &str) -> Answered {
        self.admin(
            Method::POST,
            &format!("/api/v1/routes/{route}/kill"),
            r#"{"reason":"a test"}"#,
        )
        .await
    }

    pub async fn rearm(&self, route: &str) -> Answered {
        self.admin(
            Method::POST,
            &format!("/api/v1/routes/{route}/rearm"),
            r#"{"reason":"a test"}"#,
        )
        .await
    }

    /// Asks without a token.
    pub async fn open(&self, path: &str) -> Answered {
        get(self.admin, path, &[("host", &self.admin.to_string())]).await
    }

    /// The metrics page.
    pub async fn metrics(&self) -> String {
        let page = self.open("/metrics").await;
        assert_eq!(page.status, 200);
        page.text().to_owned()
    }

    /// The answer of `/readyz`.
    pub async fn readiness(&self) -> serde_json::Value {
        self.open("/readyz").await.json()
    }

    /// The sum of all samples of a metric whose labels contain all of these texts.
    pub async fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        let page = self.metrics().await;
        let samples = page.lines().filter(|line| {
            let rest = line.strip_prefix(name);
            rest.is_some_and(|rest| rest.starts_with([' ', '{'])) && labels.iter().all(|label| line.contains(label))
        });
        samples
            .map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap())
            .sum()
    }

    /// Waits until a metric has at least this value.
    pub async fn wait_for_metric(&self, name: &str, labels: &[&str], at_least: f64) {
        self.wait_until(name, labels, |value| value >= at_least).await;
    }

    /// Waits until a gauge has come back to zero.
    pub async fn wait_for_zero(&self, name: &str, labels: &[&str]) {
        self.wait_until(name, labels, |value| value == 0.0).await;
    }

    async fn wait_until(&self, name: &str, labels: &[&str], holds: impl Fn(f64) -> bool) {
        let end = tokio::time::Instant::now() + PATIENCE;
        loop {
            let value = self.metric(name, labels).await;
            if holds(value) {
                return;
            }
            assert!(tokio::time::Instant::now() < end, "{name}{labels:?} is still {value}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Deref for Sidecar {
    type Target = Door;

    fn deref(&self) -> &Door {
        &self.door
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        if let Some(app) = self.app.take() {
            // Stopping waits, which a runtime's own thread must not.
            std::thread::spawn(move || app.stop()).join().unwrap();
        }
    }
}
