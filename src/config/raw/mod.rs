//! The configuration file as written: every key, its type, its default and its sentence in the reference.
//!
//! Pure. Decoding refuses what no value of a type can be; what members mean together is checked by `build`.

mod backend;
mod budget;
mod identity;
mod listener;
mod reply;
mod route;
pub(super) mod scalar;

use crate::engine::ruleset::decode::{At, ByteSize, record, words};

pub use backend::{Backend, Copies, HttpVersion, Url};
pub use budget::Budget;
pub use identity::{Attribute, AttributeName, Identity, Named};
pub use listener::{Address, Handover, Listener, ListenerTls, ProxyProtocol, TlsVersion};
pub use route::{Route, ShadowText, WhenKilled, WithoutIdentity};
pub use scalar::Workers;

use scalar::{Count, FilePath, HeaderBytes, Name, Network, Origin, Percent, SocketAddress, Timeout};

record! {
    /// The file that `--config` names. Everything but `listeners`, `backends` and `routes` has a default.
    pub struct Config {
        /// The name of this environment, compared with a flag's `environments`.
        environment: Name = "production",
        /// Threads that serve, each with its own sockets, connections and counters; `auto` is one for each core.
        workers: Workers = "auto",
        /// Where clients connect.
        listeners: At<Vec<At<Listener>>>,
        /// How another process takes this one's place.
        handover: Handover = "{}",
        /// The operators' door.
        admin: Admin = "{}",
        /// Where SDKs ask for flags, beside the operators' door.
        ofrep: Ofrep = "{}",
        /// Where the flags come from, beside environment variables, which fill what the file leaves out.
        flags: Flags = "{}",
        /// What survives a restart: kills, how far gradual flags have risen, the audit trail.
        state: State = "{}",
        /// How much of bodies may be kept in memory for identity, failover and copies.
        capture: Capture = "{}",
        /// What a client may use up.
        limits: Limits = "{}",
        /// What is logged.
        logs: Logs = "{}",
        /// The networks of the proxies in front of this one, such as `[10.0.0.0/8]`. With this key, nobody else may say where
        /// a request came from: `forwarded`, `x-real-ip` and headers that begin with `x-forwarded-` are removed and those of
        /// `docs/headers.md` set anew. Without it they are believed from everybody.
        trusted_proxies: Option<Vec<Network>>,
        /// Adds a `via` header in both directions.
        via: bool = "false",
        /// Adds `x-understudy-served-by: legacy` or `new` to every answer.
        served_by: bool = "false",
        /// The two services.
        backends: Backends,
        /// Which requests are decided how. A request that no route matches goes to legacy.
        routes: At<Vec<Route>>,
    }
    later: "fleet";
}

record! {
    /// Health, metrics and the API. A listener of its own, never the clients'.
    pub struct Admin {
        /// IP and port. Beyond loopback a `tokens_file` is required.
        address: At<SocketAddress> = "127.0.0.1:9090",
        /// File with the tokens of those who may read and change. Relative paths count from the working directory.
        tokens_file: Option<At<FilePath>>,
        /// Whether `/metrics` needs a token, too.
        metrics_token: bool = "false",
    }
}

record! {
    /// OpenFeature remote evaluation. It answers on the admin listener, too, there without event streams and CORS.
    pub struct Ofrep {
        /// IP and port of a listener of its own. Beyond loopback tokens are required.
        address: Option<At<SocketAddress>>,
        /// File with the tokens that this listener takes, such as those of browsers; without it, it takes those of
        /// `admin.tokens_file`. Relative paths count from the working directory.
        tokens_file: Option<At<FilePath>>,
        /// The origins of pages that may ask from a browser, such as `[https://shop.example]`; `["*"]` is every page.
        cors: Vec<Origin> = "[]",
        /// Requests of one token in a second, or without tokens of one address, and as many at once; one more is answered
        /// with 429. `null` is no limit. It holds on the admin listener, too.
        requests_per_client: Option<Count> = "null",
        /// Connections at once; more wait.
        connections: Count = "1024",
        /// Event streams at once; one more is answered with 503, and its client polls. Each takes a connection.
        streams: Count = "512",
    }
}

record! {
    /// Where the flags come from.
    pub struct Flags {
        /// The flag file. With or without it, environment variables fill what it leaves out. Relative paths count from
        /// the working directory.
        file: Option<At<FilePath>>,
        /// After this long always on, always off or unused, a flag is stale: told in the log, the metrics and the API.
        stale_after: Timeout = "30d",
    }
}

record! {
    /// What survives a restart.
    pub struct State {
        /// The state file; `<path>.kills` beside it holds kills that could not be stored in it, `<path>.stats` how often flags
        /// were asked. Relative paths count from the working directory.
        path: FilePath = "understudy.db",
    }
}

record! {
    /// How much of bodies is kept.
    pub struct Capture {
        /// The longest body that is kept; a longer one is streamed, and neither copied nor searched for an identity.
        body: At<ByteSize> = "4MiB",
        /// What all kept bodies may take together.
        budget: ByteSize = "256MiB",
    }
}

record! {
    /// What a client may use up before it is refused or disconnected.
    pub struct Limits {
        /// The longest header section; longer is answered with 431.
        header_bytes: HeaderBytes = "64KiB",
        /// The most headers; more is answered with 431.
        header_count: Count = "100",
        /// The longest request target; longer is answered with 414.
        target_bytes: At<ByteSize> = "16KiB",
        /// The longest body; longer is answered with 413. `null` is no limit.
        body: Option<ByteSize> = "null",
        /// The longest wait for a whole header section.
        header_timeout: Timeout = "10s",
        /// The longest pause within a body.
        body_idle: Timeout = "30s",
        /// The slowest that a body may arrive on average, in bytes per second, once it has been waited for as long as
        /// `body_idle`. `null` is no limit.
        body_rate: Option<ByteSize> = "1KiB",
        /// The longest wait for a client that does not read.
        write_timeout: Timeout = "30s",
        /// How long a connection without a request is kept.
        idle: Timeout = "75s",
        /// The longest wait for a TLS handshake.
        handshake: Timeout = "10s",
        /// The longest pause in which neither end of a tunnel (WebSocket and other upgrades) says anything.
        tunnel_idle: Timeout = "1h",
        /// Tunnels at once; one more is answered with 503.
        tunnels: Count = "4096",
        /// Client connections at once; one more is answered with 503.
        connections: Count = "20000",
        /// Connections of one client at once, an IPv4 address or a /64 of IPv6; one more is answered with 429. `null` is no
        /// limit: behind a load balancer that does not speak the PROXY protocol and is not among `trusted_proxies` all
        /// clients are one.
        connections_per_client: Option<Count> = "null",
        /// Requests of one client in a second, and as many at once; one more is answered with 429. `null` is no limit.
        /// Behind `trusted_proxies` the client is the one whom they name.
        requests_per_client: Option<Count> = "null",
        /// Requests on their way to one backend at once; one more is answered with 503.
        in_flight: Count = "4096",
        /// Whether a client over HTTP/1 that closes its sending half after a request gets the answer. Most clients that do
        /// so have left, and nothing tells the two apart: with `false` its request is cancelled, with `true` only a
        /// client that resets the connection or whose answer cannot be written counts as gone.
        half_close: bool = "false",
        /// Requests under way at once on one connection over HTTP/2; one more is refused with `REFUSED_STREAM`.
        streams: Count = "100",
        /// How long a shutdown waits for requests under way.
        drain: Timeout = "30s",
    }
}

record! {
    /// What is logged.
    pub struct Logs {
        /// How a subject's key appears.
        subject: SubjectLog = "hashed",
        /// The share of subjects whose decisions are logged. Kills and changes always are.
        decisions: Percent = "1%",
        /// Which requests get a line of the access log, at the end of their answer.
        access: AccessLog = "off",
        /// What such a line names that may tell who somebody is.
        access_with: Vec<AccessMember> = "[]",
    }
}

words! {
    /// Which requests get a line of the access log.
    pub enum AccessLog {
        /// None.
        Off = "off",
        /// Those that were answered with 5xx or by the sidecar itself, that broke off, or whose client left.
        Errors = "errors",
        /// All.
        All = "all",
    }
}

words! {
    /// What a line of the access log may name.
    pub enum AccessMember {
        /// The client's address; behind `trusted_proxies`, the one that they name.
        Client = "client",
        /// The path, without its query.
        Path = "path",
    }
}

words! {
    /// How a subject's key appears in logs.
    pub enum SubjectLog {
        /// As `h:` and 16 hex digits; `explain --subject` prints the hash to search for.
        Hashed = "hashed",
        /// As it is: for systems in which keys are no personal data.
        Clear = "clear",
    }
}

record! {
    /// The two services.
    pub struct Backends {
        /// The service that is being replaced, and the answer whenever there is doubt.
        legacy: Backend,
        /// The service that replaces it.
        new: Backend,
    }
    later: "twin";
}
