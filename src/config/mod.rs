//! The configuration: the file that `--config` names, and the files for tokens, TLS and identities that it names, as one
//! checked value.
//!
//! [`load`] and [`load_by`] read files and are all the I/O here; the rest is pure. In: YAML. Out: a [`Config`], or all
//! problems at once, each with file, line, column and remedy. `raw` says what may be written, `build` what members mean
//! together, `reference` prints `docs/reference.md` from the same declarations, `schema` JSON Schema. Resolving flags and compiling routes is
//! left to `engine::ruleset`, reading the flag file to whoever watches it.

mod backend_tls;
mod backends;
mod build;
mod identity;
mod listeners;
mod pem;
mod raw;
mod reference;
mod routes;
pub mod schema;
#[cfg(test)]
mod tests;
mod tls;
mod tokens;

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use crate::engine::decide::Copies;
use crate::engine::flags::bucket::Threshold;
use crate::engine::ruleset::decode::{At, Decode, Decoder};
use crate::engine::ruleset::problem::{Place, Problem, Problems, Severity, quote};
use crate::engine::ruleset::route::RouteSpec;
use crate::engine::ruleset::yaml::{Node, Value, parse, utf8};
use crate::engine::vocab::Side;

pub use backend_tls::BackendTls;
pub use listeners::Listener;
pub use raw::{AccessLog, Address, HttpVersion, ProxyProtocol, SubjectLog, Url, Workers};
pub use reference::reference;
pub use tls::Tls;
pub use tokens::{RevokeError, Role, TOKEN_PREFIX, Token, begins_with_one_of, read_tokens, without_token};

use raw::scalar::FilePath;

/// Everything that the configuration file says, with defaults, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// Compared with a flag's `environments`.
    pub environment: String,
    /// How many threads serve.
    pub workers: Workers,
    /// Where clients connect; at least one.
    pub listeners: Vec<Listener>,
    /// Where a successor asks for the sockets.
    pub handover: Option<PathBuf>,
    /// The operators' door.
    pub admin: Admin,
    /// Where SDKs ask for flags.
    pub ofrep: Ofrep,
    /// The flag file and where the configuration names it.
    pub flags_file: Option<At<PathBuf>>,
    /// How long a flag may not change before it is stale.
    pub flags_stale_after: Duration,
    /// The state file.
    pub state_path: PathBuf,
    /// How much of bodies is kept.
    pub capture: Capture,
    /// What a client may use up.
    pub limits: Limits,
    /// What is logged.
    pub logs: Logs,
    /// Who in front of us may say where a request came from; `None`: everybody.
    pub trusted_proxies: Option<Vec<IpNet>>,
    /// Whether a `via` header is added.
    pub via: bool,
    /// Whether `x-understudy-served-by` is added.
    pub served_by: bool,
    /// The two services.
    pub backends: Backends,
    /// In the order of the file; names are unique.
    pub routes: Vec<RouteSpec>,
}

/// Health, metrics and the API.
#[derive(Clone, Debug)]
pub struct Admin {
    /// Where operators connect.
    pub address: SocketAddr,
    /// Who may do what. Empty: on loopback everybody may read and nobody may write; elsewhere refused.
    pub tokens: Vec<Token>,
    /// The file that they came from.
    pub tokens_file: Option<PathBuf>,
    /// Whether `/metrics` needs a token.
    pub metrics_token: bool,
}

/// OpenFeature remote evaluation.
#[derive(Clone, Debug)]
pub struct Ofrep {
    /// Where its own listener is, if there is one.
    pub address: Option<SocketAddr>,
    /// Who may ask there. Empty: on loopback everybody; elsewhere refused.
    pub tokens: Vec<Token>,
    /// The file that they came from, if it is not the admin's.
    pub tokens_file: Option<PathBuf>,
    /// The origins of pages that may ask.
    pub cors: Vec<String>,
    /// Requests of one client in a second.
    pub requests_per_client: Option<usize>,
    /// Connections at once.
    pub connections: usize,
    /// Event streams at once.
    pub streams: usize,
}

/// How much of bodies is kept in memory, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capture {
    /// Of one body.
    pub body_bytes: u64,
    /// Of all together; at least `body_bytes`.
    pub budget_bytes: u64,
}

/// What a client may use up. Every number and duration is above zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Of a header section: 8 KiB to 16 MiB.
    pub header_bytes: usize,
    /// Headers of a request.
    pub header_count: usize,
    /// Of a request target; at most `header_bytes`.
    pub target_bytes: usize,
    /// Of a body; none is no limit.
    pub body_bytes: Option<u64>,
    /// For a whole header section.
    pub header_timeout: Duration,
    /// Between two pieces of a body.
    pub body_idle: Duration,
    /// Of a body, in bytes per second; none is no limit.
    pub body_rate: Option<u64>,
    /// For a client that does not read.
    pub write_timeout: Duration,
    /// Without a request.
    pub idle: Duration,
    /// For a TLS handshake.
    pub handshake: Duration,
    /// Without a byte in either direction of a tunnel.
    pub tunnel_idle: Duration,
    /// Tunnels at once.
    pub tunnels: usize,
    /// Client connections at once.
    pub connections: usize,
    /// Of one client.
    pub connections_per_client: Option<usize>,
    /// Requests of one client in a second.
    pub requests_per_client: Option<usize>,
    /// Requests on their way to one backend at once.
    pub in_flight: usize,
    /// Whether a client that has closed its sending half gets its answer.
    pub half_close: bool,
    /// Requests under way at once on one connection over HTTP/2.
    pub streams: u32,
    /// For requests under way at a shutdown.
    pub drain: Duration,
}

/// What is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Logs {
    /// How a subject's key appears.
    pub subject: SubjectLog,
    /// The share of subjects whose decisions are logged.
    pub decisions: Threshold,
    /// Which requests get a line of the access log.
    pub access: AccessLog,
    /// Whether it names the client's address.
    pub access_client: bool,
    /// Whether it names the path.
    pub access_path: bool,
}

/// The two services.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backends {
    /// The one that is being replaced.
    pub legacy: Backend,
    /// The one that replaces it.
    pub new: Backend,
}

impl Backends {
    /// The service of a side.
    #[must_use]
    pub fn of(&self, side: Side) -> &Backend {
        match side {
            Side::Legacy => &self.legacy,
            Side::New => &self.new,
        }
    }

    /// What each side takes, by [`Side::index`].
    #[must_use]
    pub fn copies(&self) -> [Copies; 2] {
        Side::BOTH.map(|side| self.of(side).copies)
    }
}

/// One service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// Where its replicas are; at least one.
    pub urls: Vec<Url>,
    /// For a connection.
    pub connect_timeout: Duration,
    /// Between two look-ups of its names.
    pub dns_refresh: Duration,
    /// What its addresses are asked, if anything.
    pub health: Option<Health>,
    /// How an address comes back into service.
    pub ejection: Ejection,
    /// What is spoken with it.
    pub http: HttpVersion,
    /// What is believed and shown, if it is reached by TLS.
    pub tls: Option<BackendTls>,
    /// From the request's last byte to the end of the answer's header section.
    pub timeout: Duration,
    /// Between two pieces of an answer's body; none is no limit.
    pub body_idle: Option<Duration>,
    /// How long an unused connection is kept.
    pub idle: Duration,
    /// Which copies it may be sent.
    pub copies: Copies,
}

/// What addresses are asked to find out whether they are well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// The path of the request.
    pub path: String,
    /// From one to the next.
    pub interval: Duration,
    /// For the whole of one.
    pub timeout: Duration,
    /// Good ones in a row that bring an address back.
    pub healthy: u32,
    /// Bad ones in a row that take it out.
    pub unhealthy: u32,
}

/// How an address that is out of service is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ejection {
    /// The first time, this long after.
    pub first: Duration,
    /// The longest time between two tries; at least `first`.
    pub longest: Duration,
}

/// A configuration that may be used.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// What it says.
    pub config: Config,
    /// What an operator should look at, sorted by place.
    pub warnings: Vec<Problem>,
}

/// What could be read of a configuration, whether or not it may be used.
#[derive(Clone, Debug)]
pub struct Reading {
    /// Missing if a member could not be read, which is then among the problems.
    pub config: Option<Config>,
    /// The flag file, known even if something else could not be read: its problems are to be told at the same time.
    pub flags_file: Option<At<PathBuf>>,
}

/// Answers the bytes of a file.
pub type ReadFile<'r> = &'r mut dyn FnMut(&Path) -> io::Result<Vec<u8>>;

/// Reads the configuration from the file system.
///
/// # Errors
/// All problems, then all warnings, sorted by place.
pub fn load(path: &Path) -> Result<Loaded, Vec<Problem>> {
    load_by(path, &mut |path| std::fs::read(path))
}

/// Reads the configuration with the files that `read_file` answers: the one at `path`, and those that it names for tokens,
/// TLS and identities.
///
/// # Errors
/// All problems, then all warnings, sorted by place.
pub fn load_by(path: &Path, read_file: ReadFile<'_>) -> Result<Loaded, Vec<Problem>> {
    let mut problems = Problems::default();
    let Reading { config, .. } = read(path, read_file, &mut problems);
    let warnings = problems.verdict()?;
    // Without a problem there is a configuration: it is missing only where one was added.
    config.map(|config| Loaded { config, warnings }).ok_or_else(Vec::new)
}

/// Reads the configuration and adds what is wrong to `problems`, for a caller that goes on to the flags and tells all
/// problems of a start at once.
#[must_use]
pub fn read(path: &Path, read_file: ReadFile<'_>, problems: &mut Problems) -> Reading {
    let file: Arc<str> = path.to_string_lossy().into();
    let nothing = Reading {
        config: None,
        flags_file: None,
    };
    let bytes = match read_file(path) {
        Ok(bytes) => bytes,
        Err(error) => {
            let what = format!("cannot be read: {}", plain(&error));
            problems.problem(
                Place::whole(file),
                "",
                what,
                "name an existing, readable file with --config",
            );
            return nothing;
        }
    };
    let tree = utf8(&file, &bytes, problems).and_then(|text| parse(&file, text, problems));
    let Some(tree) = tree else { return nothing };
    let raw = Decoder::new(&file, problems).run::<raw::Config>(&tree);
    let mut tokens = |named: Option<At<PathBuf>>, member: &str| match named {
        None => Some(None),
        Some(named) => match read_named(&named, path, read_file) {
            Ok(bytes) => tokens::parse(&named.value.to_string_lossy().into(), &bytes, problems).map(Some),
            Err(problem) => {
                problems.add(Problem {
                    path: member.to_owned(),
                    ..problem
                });
                None
            }
        },
    };
    let admin = section::<raw::Admin>(&file, &tree, "admin").and_then(|admin| path_at(admin.tokens_file));
    let ofrep = section::<raw::Ofrep>(&file, &tree, "ofrep").and_then(|ofrep| path_at(ofrep.tokens_file));
    let tokens = build::Tokens {
        admin: tokens(admin, "admin.tokens_file").map(Option::unwrap_or_default),
        ofrep: tokens(ofrep, "ofrep.tokens_file"),
    };
    let listeners = section::<Vec<At<raw::Listener>>>(&file, &tree, "listeners").unwrap_or_default();
    let files = tls::Files::read(&listeners, path, read_file);
    let tls = raw
        .as_ref()
        .map(|raw| backend_tls::read(&raw.backends, path, read_file, problems));
    let maps = raw
        .as_ref()
        .map(|raw| identity::Maps::read(&raw.routes.value, path, read_file, problems))
        .unwrap_or_default();
    Reading {
        config: raw
            .zip(tls)
            .and_then(|(raw, tls)| build::build(raw, tokens, &files, tls, &maps, problems)),
        flags_file: section::<raw::Flags>(&file, &tree, "flags").and_then(|flags| path_at(flags.file)),
    }
}

/// One section by itself, if it is there and nothing is wrong with it; what is wrong has been said with the whole.
fn section<T: Decode>(file: &Arc<str>, tree: &Node<'_>, name: &str) -> Option<T> {
    let Value::Mapping(entries) = &tree.value else {
        return None;
    };
    let entry = entries.iter().find(|entry| entry.key == name)?;
    Decoder::new(file, &mut Problems::default()).member(entry)
}

fn path_at(written: Option<At<FilePath>>) -> Option<At<PathBuf>> {
    written.map(
        |At {
             value: FilePath(value),
             place,
         }| At { value, place },
    )
}

/// Reads a file that the configuration at `config` names.
///
/// # Errors
/// A [`Problem`] at the place that names it; if the file stands beside the configuration instead, the remedy says so.
pub fn read_named(named: &At<PathBuf>, config: &Path, read_file: ReadFile<'_>) -> Result<Vec<u8>, Problem> {
    read_file(&named.value).map_err(|error| {
        let beside = config.parent().unwrap_or(Path::new("")).join(&named.value);
        let remedy = if error.kind() == io::ErrorKind::NotFound && beside != named.value && read_file(&beside).is_ok() {
            format!(
                "relative paths count from the working directory; did you mean {}?",
                quote(&beside.to_string_lossy())
            )
        } else {
            "name an existing, readable file".to_owned()
        };
        let what = format!(
            "{} cannot be read: {}",
            quote(&named.value.to_string_lossy()),
            plain(&error)
        );
        Problem {
            place: named.place.clone(),
            path: String::new(),
            what,
            remedy,
            severity: Severity::Problem,
        }
    })
}

/// An error of the operating system in lower case and without its number.
fn plain(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "there is no such file".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        io::ErrorKind::IsADirectory => "it is a folder".to_owned(),
        _ => error.to_string().to_lowercase(),
    }
}
