//! Tunnels: a connection whose client and backend have agreed on another protocol, such as WebSocket.
//!
//! In: a backend's 101 to a request that asked for it. Bytes then pass as they are, in both directions, until either side
//! ends. A tunnel belongs to its client's connection: the same task carries it, and the same limit on connections counts
//! it. An idle tunnel holds no buffer. Which side it goes to was decided with its request; a kill that would decide
//! otherwise now ends it, so that its client comes back and is decided anew.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;

use super::pair::Pair;
use super::sweep::Sweep;
use crate::engine::decide::KillBits;
use crate::engine::vocab::Side;
use crate::live::Live;
use crate::live::tally::TunnelEnd;
use crate::telemetry::clock;

/// The most that is read at once.
const PIECE: usize = 16 * 1024;

/// A kill ends its tunnels spread over this time: whoever was on new comes back to legacy, and not all in one instant.
const SPREAD_MS: u64 = 1_000;

/// The kills that put whoever was on new back on legacy.
const LIVE_ON_LEGACY: KillBits = KillBits::EVERYTHING
    .with(KillBits::ROUTE)
    .with(KillBits::FLAG)
    .with(KillBits::ASKED_BY_FLAG)
    .with(KillBits::NO_STATE);

/// The protocols that a request offers to change to, as they are offered to a backend; `None` if there is none.
///
/// What carries HTTP is not offered: requests inside a tunnel would be decided by nobody.
#[must_use]
pub fn offered(headers: &HeaderMap) -> Option<HeaderValue> {
    let values = headers.get_all(header::UPGRADE).iter();
    let tokens = values.flat_map(|value| value.as_bytes().split(|b| *b == b','));
    let mut offered = Vec::new();
    for token in tokens.map(<[u8]>::trim_ascii) {
        if token.is_empty() || carries_http(token) {
            continue;
        }
        if !offered.is_empty() {
            offered.extend_from_slice(b", ");
        }
        offered.extend_from_slice(token);
    }
    (!offered.is_empty())
        .then(|| HeaderValue::from_bytes(&offered).ok())
        .flatten()
}

fn carries_http(token: &[u8]) -> bool {
    let begins = |prefix: &[u8]| token.len() >= prefix.len() && token[..prefix.len()].eq_ignore_ascii_case(prefix);
    begins(b"h2") || begins(b"http") || begins(b"tls")
}

/// The protocols that a backend's 101 names, if all of them were offered.
#[must_use]
pub fn agreed(offered: &HeaderValue, answer: &HeaderMap) -> Option<HeaderValue> {
    let mut values = answer.get_all(header::UPGRADE).iter();
    let named = values.next().filter(|_| values.next().is_none())?;
    let tokens = |value: &HeaderValue| -> Vec<Vec<u8>> {
        let tokens = value.as_bytes().split(|b| *b == b',');
        tokens.map(|token| token.trim_ascii().to_ascii_lowercase()).collect()
    };
    let offered = tokens(offered);
    tokens(named)
        .iter()
        .all(|token| offered.contains(token))
        .then(|| named.clone())
}

/// A backend's connection that has changed its protocol, on its way to the task that has the client's.
#[derive(Debug)]
pub struct Tunnel {
    /// The exchange that opened it.
    pub pair: Arc<Pair>,
    /// The side it goes to.
    pub side: Side,
    /// The worker's counters.
    pub shard: usize,
    /// The backend's bytes, once the library has let go of them.
    pub backend: OnUpgrade,
    /// For how long neither side may say anything.
    pub idle: Duration,
    /// How long it may go on once the instance drains.
    pub drain: Duration,
    /// Its place among those that are open.
    pub open: Open,
}

/// One open tunnel; counted out when dropped.
#[derive(Debug)]
pub struct Open(Arc<Live>, Side);

impl Open {
    /// Counts a tunnel in.
    #[must_use]
    pub fn new(live: &Arc<Live>, side: Side) -> Self {
        live.tunnels[side.index()].fetch_add(1, Relaxed);
        Self(Arc::clone(live), side)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.tunnels[self.1.index()].fetch_sub(1, Relaxed);
    }
}

/// Tunnels open now, of both sides.
#[must_use]
pub fn open(live: &Live) -> usize {
    live.tunnels.iter().map(|n: &AtomicUsize| n.load(Relaxed)).sum()
}

impl Tunnel {
    /// Carries bytes between the client, who has already sent `early`, and the backend, until either side has ended or
    /// may not go on.
    pub async fn run<C>(
        self,
        live: &Arc<Live>,
        sweep: &Arc<Sweep>,
        client: C,
        early: Bytes,
        drain: watch::Receiver<bool>,
    ) where
        C: AsyncRead + AsyncWrite + Unpin,
    {
        let tally = self.pair.route.tally(self.shard);
        let end = match self.backend.await {
            Ok(backend) => {
                let mut ways = Ways {
                    client,
                    backend: TokioIo::new(backend),
                    up: Way::after(early),
                    down: Way::default(),
                };
                let terms = Terms {
                    pair: &self.pair,
                    side: self.side,
                    idle: self.idle,
                    drain: self.drain,
                };
                let end = terms.hold(&mut ways, live, sweep, drain).await;
                tally.tunnel_bytes[0].add_n(ways.up.bytes);
                tally.tunnel_bytes[1].add_n(ways.down.bytes);
                end
            }
            Err(_) => TunnelEnd::Broken,
        };
        tally.tunnels_ended[self.side.index()].add(end);
        drop(self.open);
    }
}

/// By what a tunnel ends if neither side ends it.
struct Terms<'a> {
    pair: &'a Pair,
    side: Side,
    idle: Duration,
    drain: Duration,
}

impl Terms<'_> {
    async fn hold<C, B>(
        &self,
        ways: &mut Ways<C, B>,
        live: &Live,
        sweep: &Arc<Sweep>,
        mut drain: watch::Receiver<bool>,
    ) -> TunnelEnd
    where
        C: AsyncRead + AsyncWrite + Unpin,
        B: AsyncRead + AsyncWrite + Unpin,
    {
        let mut kills = live.kills.watch();
        let since = |nanos: u64| Duration::from_nanos(clock::monotonic_nanos().saturating_sub(nanos));
        let mut moved_nanos = clock::monotonic_nanos();
        // When it has to end whatever happens, and why.
        let mut last: Option<(u64, Duration, TunnelEnd)> = None;
        let deadline = sweep.deadline(self.idle);
        if self.is_killed() {
            last = Some(self.soon());
        }
        loop {
            if let Some((from, limit, why)) = last {
                if since(from) >= limit {
                    return why;
                }
                deadline.set((limit - since(from)).min(self.idle));
            }
            tokio::select! {
                biased;
                ended = poll_fn(|cx| ways.poll(cx, &mut moved_nanos)) => {
                    return if ended.is_ok() { TunnelEnd::Closed } else { TunnelEnd::Broken };
                }
                () = poll_fn(|cx| deadline.poll_due(cx)) => {
                    let quiet = since(moved_nanos);
                    if quiet >= self.idle {
                        return TunnelEnd::Idle;
                    }
                    deadline.set(self.idle - quiet);
                }
                changed = kills.changed(), if self.side == Side::New && last.is_none() => {
                    // An error means that nobody is left who could kill.
                    if changed.is_ok() && self.is_killed() {
                        last = Some(self.soon());
                    }
                }
                _ = drain.wait_for(|draining| *draining), if last.is_none() => {
                    last = Some((clock::monotonic_nanos(), self.drain, TunnelEnd::Drain));
                }
            }
        }
    }

    fn is_killed(&self) -> bool {
        let word = &self.pair.route.word;
        self.side == Side::New
            && (word.bits().has(LIVE_ON_LEGACY) || self.pair.subject.is_some_and(|subject| word.holds(subject)))
    }

    fn soon(&self) -> (u64, Duration, TunnelEnd) {
        #[allow(clippy::cast_possible_truncation, reason = "the low half is the counter")]
        let spread = Duration::from_millis(self.pair.id.0 as u64 % SPREAD_MS);
        (clock::monotonic_nanos(), spread, TunnelEnd::Killed)
    }
}

struct Ways<C, B> {
    client: C,
    backend: B,
    up: Way,
    down: Way,
}

impl<C, B> Ways<C, B>
where
    C: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    // Ready when both directions have ended, or one of them broke.
    fn poll(&mut self, cx: &mut Context<'_>, moved_nanos: &mut u64) -> Poll<io::Result<()>> {
        let before = self.up.steps + self.down.steps;
        let up = self.up.poll(cx, &mut self.client, &mut self.backend)?;
        let down = self.down.poll(cx, &mut self.backend, &mut self.client)?;
        if self.up.steps + self.down.steps != before {
            *moved_nanos = clock::monotonic_nanos();
        }
        if up.is_ready() && down.is_ready() {
            Poll::Ready(Ok(()))
        } else {
            Poll::Pending
        }
    }
}

/// One direction: what was read and not yet written, and how far it has come.
#[derive(Debug, Default)]
struct Way {
    left: Bytes,
    unflushed: bool,
    read_all: bool,
    ended: bool,
    bytes: u64,
    // Whatever went on, so that a look tells whether anything did.
    steps: u64,
}

impl Way {
    fn after(early: Bytes) -> Self {
        Self {
            left: early,
            ..Self::default()
        }
    }

    // Ready once the end has been passed on.
    fn poll<R, W>(&mut self, cx: &mut Context<'_>, from: &mut R, to: &mut W) -> Poll<io::Result<()>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        loop {
            while !self.left.is_empty() {
                let written = ready!(Pin::new(&mut *to).poll_write(cx, &self.left))?;
                self.wrote(written)?;
                let _ = self.left.split_to(written);
            }
            if self.read_all {
                if !self.ended {
                    ready!(Pin::new(&mut *to).poll_shutdown(cx))?;
                    self.ended = true;
                    self.steps += 1;
                }
                return Poll::Ready(Ok(()));
            }
            let mut piece = [std::mem::MaybeUninit::uninit(); PIECE];
            let mut piece = ReadBuf::uninit(&mut piece);
            if Pin::new(&mut *from).poll_read(cx, &mut piece)?.is_pending() {
                if self.unflushed {
                    ready!(Pin::new(&mut *to).poll_flush(cx))?;
                    self.unflushed = false;
                }
                return Poll::Pending;
            }
            let read = piece.filled();
            if read.is_empty() {
                self.read_all = true;
                continue;
            }
            // Whatever cannot be written at once is the only thing that is kept, and nothing is read until it is gone.
            let written = match Pin::new(&mut *to).poll_write(cx, read)? {
                Poll::Ready(written) => {
                    self.wrote(written)?;
                    written
                }
                Poll::Pending => 0,
            };
            if written < read.len() {
                self.left = Bytes::copy_from_slice(&read[written..]);
            }
        }
    }

    fn wrote(&mut self, bytes: usize) -> io::Result<()> {
        if bytes == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.bytes += bytes as u64;
        self.steps += 1;
        self.unflushed = true;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(values: &[&'static str]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for value in values {
            map.append(header::UPGRADE, HeaderValue::from_static(value));
        }
        map
    }

    #[test]
    fn what_carries_http_is_not_offered() {
        let offer = |values: &[&'static str]| offered(&headers(values)).map(|v| v.to_str().unwrap().to_owned());
        assert_eq!(offer(&["websocket"]).as_deref(), Some("websocket"));
        assert_eq!(
            offer(&["H2C, WebSocket", " chat/2,,"]).as_deref(),
            Some("WebSocket, chat/2")
        );
        for nothing in ["h2c", "HTTP/2.0", "TLS/1.0, h2", "", " , "] {
            assert_eq!(offer(&[nothing]), None, "{nothing}");
        }
    }

    #[test]
    fn a_backend_chooses_among_what_was_offered() {
        let offered = HeaderValue::from_static("websocket, chat/2");
        assert_eq!(agreed(&offered, &headers(&["WebSocket"])).unwrap(), "WebSocket");
        for values in [&["h2c"][..], &[], &["websocket, h2c"], &["websocket", "chat/2"]] {
            assert_eq!(agreed(&offered, &headers(values)), None, "{values:?}");
        }
    }
}
