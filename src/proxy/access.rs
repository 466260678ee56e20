//! The access log: one line for a request, at the end of its answer, if the configuration asks for it.
//!
//! Off, it costs one look at the snapshot. No line holds a query, a header or a body; the client's address and the path, in
//! which a shopper may be named, stand there only if they are asked for. Writing never waits: lines that the log cannot
//! take are dropped and counted.

use std::net::IpAddr;
use std::sync::Arc;

use http::request::Parts;
use http::{Method, StatusCode, Version};

use super::body::Source;
use crate::engine::vocab::{ExchangeId, Side};
use crate::live::snapshot::{Access, AccessWhen, LiveRoute};
use crate::telemetry::clock;
use crate::telemetry::logs::ACCESS;

/// How an answer ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum End {
    /// Whole.
    Complete,
    /// The backend broke off.
    Cut,
    /// The client left before its end.
    #[default]
    ClientLeft,
}

/// What is to be said of one request; said when it is dropped.
#[derive(Debug)]
pub struct Line {
    when: AccessWhen,
    begun_nanos: u64,
    method: Method,
    version: Version,
    path: Option<Box<str>>,
    /// The client's address, if it is to be logged.
    pub client: Option<IpAddr>,
    /// The route that took it.
    pub route: Arc<LiveRoute>,
    /// The exchange; zero for a request that no route took.
    pub exchange: ExchangeId,
    /// The side that answered.
    pub side: Option<Side>,
    /// Whether it answered in place of the other.
    pub failover: bool,
    /// The answer's status, once there is one.
    pub status: Option<StatusCode>,
    /// Why we answered in place of a backend.
    pub reason: Option<Box<str>>,
    /// The request's body.
    pub body: Sent,
    /// Bytes of the answer's body that were handed on.
    pub bytes_out: u64,
    /// How the answer ended.
    pub end: End,
}

/// A request's body as far as the log counts it.
#[derive(Debug, Default)]
pub enum Sent {
    /// Nothing of it was looked at.
    #[default]
    Nothing,
    /// All of it.
    Whole(u64),
    /// As much as has passed.
    Passing(Source),
}

impl From<&Source> for Sent {
    fn from(source: &Source) -> Self {
        match source {
            // A whole body would stay in memory for as long as its answer takes.
            Source::Whole(bytes, _) => Self::Whole(bytes.len() as u64),
            Source::Stream(_) => Self::Passing(source.clone()),
        }
    }
}

impl Line {
    /// Begins a line, if there is to be one.
    #[must_use]
    pub fn begin(
        access: Access,
        head: &Parts,
        route: &Arc<LiveRoute>,
        client: impl FnOnce() -> Option<IpAddr>,
    ) -> Option<Box<Self>> {
        if access.when == AccessWhen::Off {
            return None;
        }
        Some(Box::new(Self {
            when: access.when,
            begun_nanos: clock::monotonic_nanos(),
            method: head.method.clone(),
            version: head.version,
            path: access.path.then(|| head.uri.path().into()),
            client: access.client.then(client).flatten(),
            route: Arc::clone(route),
            exchange: ExchangeId(0),
            side: None,
            failover: false,
            status: None,
            reason: None,
            body: Sent::Nothing,
            bytes_out: 0,
            end: End::default(),
        }))
    }

    fn is_wanted(&self) -> bool {
        let failed = self.status.is_none_or(|status| status.is_server_error());
        self.when == AccessWhen::All || failed || self.reason.is_some() || self.end != End::Complete
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if !self.is_wanted() {
            return;
        }
        let micros = clock::monotonic_nanos().saturating_sub(self.begun_nanos) / 1_000;
        #[allow(clippy::cast_precision_loss, reason = "a duration to be read")]
        let ms = micros as f64 / 1_000.0;
        let bytes_in = match &self.body {
            Sent::Nothing => 0,
            Sent::Whole(bytes) => *bytes,
            Sent::Passing(source) => source.seen(),
        };
        let exchange = (self.exchange.0 != 0).then(|| self.exchange.to_string());
        let end = match self.end {
            End::Complete => "complete",
            End::Cut => "cut",
            End::ClientLeft => "client_left",
        };
        tracing::info!(
            target: ACCESS,
            event = "access",
            route = self.route.key.as_str(),
            method = method(&self.method),
            path = self.path.as_deref(),
            protocol = protocol(self.version),
            client = self.client.map(tracing::field::display),
            status = self.status.map(|status| status.as_u16()),
            side = self.side.map(Side::as_str),
            failover = self.failover,
            reason = self.reason.as_deref(),
            end,
            bytes_in,
            bytes_out = self.bytes_out,
            ms,
            exchange,
        );
    }
}

// A method may be any word, and a word may be anything.
fn method(method: &Method) -> &str {
    match *method {
        Method::CONNECT
        | Method::DELETE
        | Method::GET
        | Method::HEAD
        | Method::OPTIONS
        | Method::PATCH
        | Method::POST
        | Method::PUT
        | Method::TRACE => method.as_str(),
        _ => "other",
    }
}

const fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2",
        _ => "HTTP/1.1",
    }
}
