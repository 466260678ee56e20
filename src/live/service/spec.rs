//! What is configured of a backend's replicas, and what is counted of them.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio_rustls::TlsConnector;

use crate::engine::vocab::Side;
use crate::live::tally::{By, Label, labels};

/// What `url` names: one place, or a name with several addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// A host name or an address, without brackets, and a port.
    Host(Arc<str>, u16),
    /// A socket file on this machine.
    Socket(Arc<Path>),
}

/// How a replica that is out of service is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ejection {
    /// The first try, this long after; the time doubles with every try that fails.
    pub first: Duration,
    /// The longest time between two tries.
    pub longest: Duration,
}

/// How replicas are asked whether they are well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// The path of the request.
    pub path: Arc<str>,
    /// From one to the next.
    pub interval: Duration,
    /// For the whole of one.
    pub timeout: Duration,
    /// Good ones in a row that bring a replica back.
    pub healthy: u32,
    /// Bad ones in a row that take it out.
    pub unhealthy: u32,
}

/// The version of HTTP that is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// By TLS what both sides prefer, HTTP/2 first; in plain text HTTP/1.1.
    Auto,
    /// HTTP/1.1.
    One,
    /// HTTP/2, also where nobody was asked.
    Two,
}

/// How replicas are reached by TLS.
#[derive(Clone)]
pub struct Tls {
    /// What is believed and shown.
    pub connector: TlsConnector,
    /// The name to ask for, if not the endpoint's.
    pub server_name: Option<ServerName<'static>>,
    /// Of everything above: equal if it means the same.
    pub digest: [u8; 32],
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("server_name", &self.server_name)
            .finish_non_exhaustive()
    }
}

impl PartialEq for Tls {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

/// What is configured of a backend's replicas.
#[derive(Clone, Debug, PartialEq)]
pub struct Spec {
    /// Which of the two it is.
    pub side: Side,
    /// Where it is; at least one.
    pub endpoints: Vec<Endpoint>,
    /// What is spoken.
    pub protocol: Protocol,
    /// Longest time that a connection is kept without a request.
    pub idle: Duration,
    /// Longest wait for a connection.
    pub connect_timeout: Duration,
    /// How often names are looked up.
    pub dns_refresh: Duration,
    /// Whether and how replicas are asked.
    pub health: Option<Health>,
    /// How replicas come back.
    pub ejection: Ejection,
    /// Whether and how they are reached by TLS.
    pub tls: Option<Tls>,
}

labels! {
    /// Why a replica was taken out of service.
    Ejected {
        /// No connection: refused or unreachable.
        Connect = "connect",
        /// Too many health checks in a row failed.
        Health = "health",
        /// No connection in time.
        Timeout = "timeout",
        /// It could not show who it is, or did not accept who we are.
        Tls = "tls",
    }
}

labels! {
    /// How looking at something went.
    Found {
        /// Well.
        Good = "good",
        /// Not.
        Bad = "bad",
    }
}

/// What is counted of a side's replicas; outlives configurations.
#[derive(Debug, Default)]
pub struct ServiceTally {
    /// Replicas taken out of service, by why.
    pub ejections: By<4>,
    /// Look-ups of names.
    pub lookups: By<2>,
    /// Health checks.
    pub checks: By<2>,
}
