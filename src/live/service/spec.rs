//! What is configured of a backend's replicas, and what is counted of them.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

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

/// What is configured of a backend's replicas.
#[derive(Clone, Debug, PartialEq)]
pub struct Spec {
    /// Which of the two it is.
    pub side: Side,
    /// Where it is; at least one.
    pub endpoints: Vec<Endpoint>,
    /// Longest wait for a connection.
    pub connect_timeout: Duration,
    /// How often names are looked up.
    pub dns_refresh: Duration,
    /// Whether and how replicas are asked.
    pub health: Option<Health>,
    /// How replicas come back.
    pub ejection: Ejection,
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
    pub ejections: By<3>,
    /// Look-ups of names.
    pub lookups: By<2>,
    /// Health checks.
    pub checks: By<2>,
}
