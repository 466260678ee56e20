//! What the data plane counts: one cache-aligned block of counters per worker and route, merged when read.
//!
//! A worker only ever adds to its own block, so no counter is contended. Blocks belong to the route's name and outlive
//! a reload of the rules. Label sets are closed: sides, reasons, classes and routes, never a subject or a path.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::engine::identity::Nobody;
use crate::engine::stats::usage::Counts;
use crate::engine::vocab::{Reason, Side};

/// A set of counters labelled by the members of a closed enum.
pub trait Label: Copy + 'static {
    /// Every member, in the order of their indexes.
    const ALL: &'static [Self];
    /// Its place in [`Label::ALL`].
    fn index(self) -> usize;
    /// Its word on the metrics page.
    fn label(self) -> &'static str;
}

macro_rules! labels {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$vdoc])* $variant,)* }

        impl Label for $name {
            const ALL: &'static [Self] = &[$(Self::$variant),*];
            fn index(self) -> usize { self as usize }
            fn label(self) -> &'static str { match self { $(Self::$variant => $text),* } }
        }
    };
}

pub(in crate::live) use labels;

labels! {
    /// Why a copy was not sent. Nothing is skipped uncounted.
    Skipped {
        /// The breaker is open and lets one probe per second through.
        BreakerOpen = "breaker_open",
        /// The body is longer than the capture cap.
        BodyTooLarge = "body_too_large",
        /// The client broke off before its body was complete, or the answer came before it was.
        Cut = "cut",
        /// The copy waited in its lane for longer than its timeout.
        Deadline = "deadline",
        /// The route is killed and says `when_killed: stop`.
        Killed = "killed",
        /// The capture budget is used up.
        Memory = "memory",
        /// The method is not among `shadow.methods`.
        Method = "method",
        /// The side is not declared to take copies of methods that act.
        NotDeclared = "not_declared",
        /// The lane, the ring or the route's byte bound is full.
        QueueFull = "queue_full",
        /// The subject is outside the sample.
        SampledOut = "sampled_out",
        /// The request asks to change the protocol.
        Upgrade = "upgrade",
        /// No side serves the request: `when_off` answers it.
        WhenOff = "when_off",
        /// The request came to this side by failover before its copy was sent.
        Withdrawn = "withdrawn",
    }
}

labels! {
    /// How a run ended without a usable answer.
    RunFailure {
        /// No connection: refused, unreachable, or not in time.
        Connect = "connect",
        /// An answer that began and broke off.
        Cut = "cut",
        /// We had no descriptor or no port left to connect with.
        Local = "local",
        /// An answer that is no HTTP.
        Malformed = "malformed",
        /// Too many requests are under way to this side.
        Overload = "overload",
        /// The connection broke before an answer began.
        Reset = "reset",
        /// No answer in time.
        Timeout = "timeout",
        /// The connection was made, but one side did not accept who the other is.
        Tls = "tls",
    }
}

labels! {
    /// Why the sidecar answered in place of a backend; the value of `x-understudy-error`.
    Made {
        /// The body is over `limits.body`.
        BodyTooLarge = "body_too_large",
        /// The body stopped arriving.
        BodyTimeout = "body_timeout",
        /// The body broke off or is not framed as HTTP asks.
        BodyBroken = "body_broken",
        /// No connection to the backend.
        ConnectFailed = "connect_failed",
        /// No connection to the backend in time.
        ConnectTimeout = "connect_timeout",
        /// The backend's answer is no HTTP.
        Malformed = "malformed_answer",
        /// CONNECT or TRACE.
        Method = "method_not_allowed",
        /// Too many requests are under way.
        Overload = "overload",
        /// The backend broke the connection before it answered.
        Reset = "reset",
        /// The target is over `limits.target_bytes`.
        TargetTooLong = "target_too_long",
        /// The backend did not answer in time.
        Timeout = "timeout",
        /// The trailers are over 64 KiB.
        TrailersTooLarge = "trailers_too_large",
        /// The route's flag is off, and its `when_off` says what is answered.
        WhenOff = "when_off",
    }
}

labels! {
    /// What ended a tunnel.
    TunnelEnd {
        /// A connection of it broke.
        Broken = "broken",
        /// Both ends had nothing more to say.
        Closed = "closed",
        /// The instance stops.
        Drain = "drain",
        /// Nobody said anything for `limits.tunnel_idle`.
        Idle = "idle",
        /// A kill put its route or its subject on legacy.
        Killed = "killed",
    }
}

labels! {
    /// Why a client's request was refused and its connection ended; the value of `x-understudy-error` where there is
    /// an answer.
    ClientError {
        /// Chunks of a body that are none, or a trailer section that is none.
        BadChunk = "bad_chunk",
        /// A Transfer-Encoding that is no list of codings, names chunked twice, or stands in HTTP/1.0.
        BadCoding = "bad_transfer_encoding",
        /// None, two, or an illegal Host.
        BadHost = "bad_host",
        /// A Content-Length that is no number below 2^63, or not the only one.
        BadLength = "bad_content_length",
        /// No header of the PROXY protocol where the listener asks for one.
        BadProxyHeader = "bad_proxy_header",
        /// A target that is neither a path nor an absolute URL.
        BadTarget = "bad_target",
        /// More than 16 KiB of chunk extensions.
        ChunkExtensions = "chunk_extensions_too_large",
        /// The header section is over its limit.
        HeadersTooLarge = "headers_too_large",
        /// The header section did not arrive in time.
        HeaderTimeout = "header_timeout",
        /// An HTTP/2 connection that broke a rule for all of its streams.
        Http2Connection = "http2_connection_error",
        /// Too many frames for one header block.
        Http2Continuation = "http2_continuation_flood",
        /// Too many frames without content.
        Http2Empty = "http2_empty_frame_flood",
        /// Too many farewells, promises and frames of unknown kinds.
        Http2Other = "http2_other_frame_flood",
        /// Too many pings.
        Http2Ping = "http2_ping_flood",
        /// Too many priorities.
        Http2Priority = "http2_priority_flood",
        /// Too many streams reset, by either side.
        Http2Reset = "http2_reset_flood",
        /// Too many settings.
        Http2Settings = "http2_settings_flood",
        /// A stream that broke a rule: malformed fields, a wrong length.
        Http2Stream = "http2_stream_error",
        /// A stream over `limits.streams`.
        Http2Streams = "http2_too_many_streams",
        /// Too many window updates.
        Http2Window = "http2_window_update_flood",
        /// What arrived is not HTTP/1.1 as its rules ask.
        Malformed = "malformed",
        /// The header of the PROXY protocol did not arrive in time.
        ProxyHeaderTimeout = "proxy_header_timeout",
        /// The target is longer than the header section may be.
        TargetTooLong = "target_too_long",
        /// Over `limits.connections`.
        TooMany = "too_many_connections",
        /// Over `limits.connections_per_client`.
        TooManyOfClient = "too_many_connections_of_client",
        /// Over `limits.requests_per_client`.
        TooManyRequests = "too_many_requests",
        /// More than 64 KiB of trailers, or more lines than `limits.header_count`.
        TrailersTooLarge = "trailers_too_large",
        /// Content-Length and Transfer-Encoding in one request.
        TwoFramings = "two_framings",
        /// A transfer coding other than chunked.
        UnknownCoding = "unknown_coding",
        /// The client did not read its answer.
        WriteTimeout = "write_timeout",
    }
}

impl ClientError {
    /// How many reasons there are.
    pub const COUNT: usize = 30;
}

labels! {
    /// Why a TLS handshake came to nothing.
    HandshakeError {
        /// The client's certificate is not what the listener's authorities sign, or has expired.
        BadClientCertificate = "bad_client_certificate",
        /// The client left.
        Cut = "cut",
        /// What arrived is TLS, and not as its rules ask.
        Malformed = "malformed",
        /// The client showed no certificate where one is required.
        NoClientCertificate = "no_client_certificate",
        /// No version, cipher or signature that both sides know.
        NothingInCommon = "nothing_in_common",
        /// Plain text, most often HTTP.
        Plaintext = "plaintext",
        /// The client refused, most often our certificate.
        RefusedByClient = "refused_by_client",
        /// It took longer than `limits.handshake`.
        Timeout = "timeout",
    }
}

labels! {
    /// The version of TLS that a handshake agreed on.
    TlsVersion {
        /// TLS 1.2.
        Two = "1.2",
        /// TLS 1.3.
        Three = "1.3",
    }
}

labels! {
    /// The class of a failover.
    Failover {
        /// Not one byte reached the new path.
        NeverReached = "never_reached",
        /// Nobody knows whether the new path acted.
        Unknown = "unknown",
        /// The new path answered with a status that counts as failure.
        Answered = "answered",
    }
}

labels! {
    /// Why a request of a route has no subject.
    Unidentified {
        /// A member on the way to an identity stands there twice.
        Ambiguous = "ambiguous",
        /// The body is longer than the capture cap.
        BodyTooLarge = "body_too_large",
        /// The capture budget is used up.
        Memory = "memory",
        /// No entry found a value.
        NoMatch = "no_match",
        /// A value that the mapping table does not know.
        NotMapped = "not_mapped",
        /// The body is not what it should be.
        NotReadable = "not_readable",
        /// A key is too long to be one.
        TooLong = "too_long",
        /// More subjects than one body may name.
        TooMany = "too_many",
    }
}

impl Unidentified {
    /// How many reasons there are.
    pub const COUNT: usize = 8;
}

impl From<Nobody> for Unidentified {
    fn from(why: Nobody) -> Self {
        match why {
            Nobody::Ambiguous => Unidentified::Ambiguous,
            Nobody::NoMatch => Unidentified::NoMatch,
            Nobody::NotCaptured => Unidentified::BodyTooLarge,
            Nobody::NotMapped => Unidentified::NotMapped,
            Nobody::NotReadable => Unidentified::NotReadable,
            Nobody::TooLong => Unidentified::TooLong,
            Nobody::TooMany => Unidentified::TooMany,
        }
    }
}

labels! {
    /// Why an exchange that should have been compared was not.
    NotCompared {
        /// A run failed or broke off.
        RunFailed = "run_failed",
        /// The copy was refused for the length of its head, which its marker alone may have made too long.
        HeadTooLong = "head_too_long",
        /// No memory to keep an answer.
        Memory = "memory",
        /// The review had more to do than it could.
        Overload = "overload",
    }
}

impl Label for Side {
    const ALL: &'static [Self] = &Side::BOTH;
    fn index(self) -> usize {
        Side::index(self)
    }
    fn label(self) -> &'static str {
        self.as_str()
    }
}

impl Label for Reason {
    const ALL: &'static [Self] = &[
        Reason::Allowlist,
        Reason::BetaUser,
        Reason::Constant,
        Reason::Default,
        Reason::Denylist,
        Reason::Disabled,
        Reason::Environment,
        Reason::FlagNotFound,
        Reason::Global,
        Reason::IdentityUnknown,
        Reason::Killed,
        Reason::Mixed,
        Reason::NoState,
        Reason::NotAllowlisted,
        Reason::Percent,
        Reason::PercentMiss,
        Reason::Prerequisite,
        Reason::Schedule,
        Reason::Split,
        Reason::SystemDisabled,
        Reason::Targeting,
    ];
    fn index(self) -> usize {
        self as usize
    }
    fn label(self) -> &'static str {
        self.as_str()
    }
}

/// A plain counter.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds one.
    pub fn add(&self) {
        self.0.fetch_add(1, Relaxed);
    }

    /// Adds `n`.
    pub fn add_n(&self, n: u64) {
        self.0.fetch_add(n, Relaxed);
    }

    /// The count so far.
    #[must_use]
    pub fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Counters by one label of up to `N` members.
#[derive(Debug)]
pub struct By<const N: usize>([Counter; N]);

impl<const N: usize> Default for By<N> {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Counter::default()))
    }
}

impl<const N: usize> By<N> {
    /// Adds one under this label.
    pub fn add<L: Label>(&self, label: L) {
        debug_assert!(L::ALL.len() <= N);
        if let Some(counter) = self.0.get(label.index()) {
            counter.add();
        }
    }

    /// The count under this label.
    #[must_use]
    pub fn value<L: Label>(&self, label: L) -> u64 {
        self.0.get(label.index()).map_or(0, Counter::value)
    }
}

/// The upper bounds of [`Histogram`]'s buckets, in milliseconds.
pub const LATENCY_BOUNDS_MS: [f64; 14] = [
    1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1_000.0, 2_000.0, 5_000.0, 10_000.0, 30_000.0,
];

/// Latencies by bucket; the last one is everything above the bounds.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [Counter; LATENCY_BOUNDS_MS.len() + 1],
    sum_micros: Counter,
}

impl Histogram {
    /// Books one latency.
    pub fn record(&self, latency: Duration) {
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        #[allow(clippy::cast_precision_loss, reason = "a bucket, not an account")]
        let ms = micros as f64 / 1_000.0;
        let at = LATENCY_BOUNDS_MS
            .iter()
            .position(|bound| ms <= *bound)
            .unwrap_or(LATENCY_BOUNDS_MS.len());
        self.buckets[at].add();
        self.sum_micros.add_n(micros);
    }

    /// Per bucket its count (not cumulative), and the sum of all latencies in microseconds.
    #[must_use]
    pub fn read(&self) -> ([u64; LATENCY_BOUNDS_MS.len() + 1], u64) {
        (
            std::array::from_fn(|i| self.buckets[i].value()),
            self.sum_micros.value(),
        )
    }
}

/// The status classes of an answer: 1xx to 5xx, and whatever else a backend may invent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatusClass(usize);

impl StatusClass {
    /// The class of a status code.
    #[must_use]
    pub fn of(status: http::StatusCode) -> Self {
        Self(match status.as_u16() / 100 {
            class @ 1..=5 => usize::from(class) - 1,
            _ => 5,
        })
    }
}

impl Label for StatusClass {
    const ALL: &'static [Self] = &[Self(0), Self(1), Self(2), Self(3), Self(4), Self(5)];
    fn index(self) -> usize {
        self.0
    }
    fn label(self) -> &'static str {
        ["1xx", "2xx", "3xx", "4xx", "5xx", "other"][self.0.min(5)]
    }
}

/// What one worker counts for one route.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct RouteTally {
    /// Requests by the side that was to serve them.
    pub assigned: By<2>,
    /// Requests by the reason of the decision.
    pub reasons: By<21>,
    /// Answers to clients by status class: legacy's, new's.
    pub answered: [By<6>; 2],
    /// Runs of new answered with 2xx (true) and all others.
    pub published: [Counter; 2],
    /// Runs without a usable answer: legacy's, new's.
    pub failed: [By<8>; 2],
    /// Latencies: legacy's, new's.
    pub latency: [Histogram; 2],
    /// Failovers by class.
    pub failovers: By<3>,
    /// Copies sent: to legacy, to new.
    pub copies: By<2>,
    /// Copies not sent: to legacy, to new.
    pub skipped: [By<13>; 2],
    /// Answers that we made up.
    pub made: By<13>,
    /// Tunnels ended: to legacy, to new.
    pub tunnels_ended: [By<5>; 2],
    /// Bytes through tunnels that have ended: from clients, to clients.
    pub tunnel_bytes: [Counter; 2],
    /// Requests without a subject, by why.
    pub unidentified: By<{ Unidentified::COUNT }>,
    /// Exchanges not compared.
    pub not_compared: By<4>,
}

/// What one worker counts for one flag of the rules in force.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct FlagTally {
    /// Evaluations that answered off, on.
    pub results: [Counter; 2],
    /// Of these, the evaluations that the percentage decided.
    pub by_percent: [Counter; 2],
    /// Evaluations of a flag that no source defines.
    pub missing: Counter,
}

impl FlagTally {
    /// Counts one evaluation.
    pub fn book(&self, enabled: bool, reason: Reason) {
        if reason == Reason::FlagNotFound {
            self.missing.add();
            return;
        }
        self.results[usize::from(enabled)].add();
        if matches!(reason, Reason::Percent | Reason::PercentMiss) {
            self.by_percent[usize::from(enabled)].add();
        }
    }

    /// The evaluations so far, but those of a flag that no source defines.
    #[must_use]
    pub fn counts(&self) -> Counts {
        // The parts first: read the other way round, a part could be more than its whole.
        let [missed, hit] = [self.by_percent[0].value(), self.by_percent[1].value()];
        Counts {
            off: self.results[0].value(),
            on: self.results[1].value(),
            missed,
            hit,
        }
    }
}

/// What one worker counts apart from routes.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct WorkerTally {
    /// Client connections accepted.
    pub accepted: Counter,
    /// Requests that were begun.
    pub requests: Counter,
    /// Those of them whose client left before an answer began.
    pub abandoned: Counter,
    /// Client connections ended for what arrived on them.
    pub client_errors: By<{ ClientError::COUNT }>,
    /// TLS handshakes that came about, by version.
    pub handshakes: By<2>,
    /// TLS handshakes that came to nothing.
    pub handshakes_failed: By<8>,
    /// Decisions timed: 1 in 1,024.
    pub decision_nanos: Counter,
    /// How many were timed.
    pub decisions_timed: Counter,
    /// Timed decisions by bucket of 100 us times 2^0 to 2^9, and above.
    pub decision_buckets: [Counter; 11],
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_label_has_its_own_counter() {
        fn check<L: Label + std::fmt::Debug, const N: usize>() {
            assert_eq!(L::ALL.len(), N);
            for (at, label) in L::ALL.iter().enumerate() {
                assert_eq!(label.index(), at, "{label:?}");
            }
            let words: std::collections::BTreeSet<_> = L::ALL.iter().map(|l| l.label()).collect();
            assert_eq!(words.len(), N);
        }
        check::<Skipped, 13>();
        check::<TunnelEnd, 5>();
        check::<RunFailure, 8>();
        check::<Made, 13>();
        check::<ClientError, { ClientError::COUNT }>();
        check::<HandshakeError, 8>();
        check::<TlsVersion, 2>();
        check::<Failover, 3>();
        check::<NotCompared, 4>();
        check::<Unidentified, { Unidentified::COUNT }>();
        check::<Reason, 21>();
        check::<StatusClass, 6>();
    }

    #[test]
    fn latency_lands_in_the_bucket_that_holds_it() {
        let histogram = Histogram::default();
        histogram.record(Duration::from_micros(1_000));
        histogram.record(Duration::from_micros(1_001));
        histogram.record(Duration::from_secs(60));
        let (buckets, sum) = histogram.read();
        assert_eq!((buckets[0], buckets[1], buckets[14], sum), (1, 1, 1, 60_002_001));
    }
}
