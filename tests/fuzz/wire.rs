//! The laws of what arrives on a connection.

#[path = "../conformance/strict.rs"]
#[allow(dead_code, reason = "each binary of tests uses its part")]
mod strict;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use understudy::proxy::framing::{Guard, Limits, Rest};
use understudy::proxy::provenance::Provenance;
use understudy::proxy::proxy_protocol::{Look, Told, look};
use understudy::proxy::socket::{Peer, Protocol, Scheme};
use understudy::proxy::{forward, frames as http2, upstream};

use strict::Kind;

/// Less than the library's, and little enough to be reached.
const LIMITS: Limits = Limits {
    header_bytes: 1_024,
    header_count: 32,
};

/// How much passed, how many heads, and whether all of it did and ended with a message.
struct Passed {
    bytes: Vec<u8>,
    heads: u64,
    fault: Option<String>,
    between: bool,
}

fn guarded(data: &[u8], cuts: &[usize]) -> Passed {
    let mut guard = Guard::new(LIMITS);
    let (mut passed, mut fault) = (0, None);
    let mut ends: Vec<usize> = cuts.iter().map(|cut| cut % (data.len() + 1)).collect();
    ends.push(data.len());
    ends.sort_unstable();
    'all: for end in ends {
        while passed < end {
            let verdict = guard.examine(&data[passed..end]);
            assert!(verdict.clear <= end - passed, "more passed than there is");
            passed += verdict.clear;
            match verdict.rest {
                Rest::Incomplete => break,
                // The answer was another one.
                Rest::Undecided => guard.decide(false),
                Rest::Refused(why) => {
                    fault = Some(format!("{why:?}"));
                    break 'all;
                }
            }
        }
    }
    Passed {
        bytes: data[..passed].to_vec(),
        heads: guard.heads(),
        fault,
        between: guard.is_between(),
    }
}

/// However bytes arrive, the guard says the same of them; and of what it lets pass, the library behind it sees as many
/// messages, none of them broken. What goes on to a backend is fit to.
pub fn forwarding(data: &[u8]) {
    let whole = guarded(data, &[]);
    let cuts: Vec<usize> = data.iter().take(8).map(|byte| usize::from(*byte) * 7).collect();
    let every: Vec<usize> = if data.len() < 600 {
        (0..data.len()).collect()
    } else {
        Vec::new()
    };
    for cuts in [cuts, every] {
        let cut = guarded(data, &cuts);
        // What is wrong with a section that is not all there may be seen when more of it is.
        let later = cut.fault.is_none() && cut.bytes.len() < data.len();
        assert!(
            whole.heads == cut.heads && (whole.fault == cut.fault || later),
            "cut at {:?}..: {:?}, {} heads; whole: {:?}, {} heads",
            &cuts[..cuts.len().min(9)],
            cut.fault,
            cut.heads,
            whole.fault,
            whole.heads
        );
        // Before a fault, as much of a body passes as had arrived.
        if whole.fault.is_none() {
            assert_eq!(whole.bytes.len(), cut.bytes.len());
        }
    }
    let seen = served(&whole.bytes);
    let heads = u64::try_from(seen.heads.len()).unwrap_or(0);
    assert!(
        heads <= whole.heads,
        "the library saw {heads} heads, the guard {}",
        whole.heads
    );
    if heads < whole.heads {
        let closed = seen.heads.last().is_some_and(|(_, closes)| *closes);
        assert!(
            closed,
            "the library saw {heads} heads, the guard {}; {:?}",
            whole.heads, seen.error
        );
    } else if whole.between && whole.fault.is_none() {
        assert_eq!(
            seen.bodies, heads,
            "a body did not end where the guard saw its end; {:?}",
            seen.error
        );
    }
    for (mut headers, _) in seen.heads {
        let host = headers.get(http::header::HOST).cloned();
        let length = headers.get(http::header::CONTENT_LENGTH).cloned();
        let peer = Peer {
            address: "192.0.2.1:9".parse().ok(),
            local_port: Some(80),
            scheme: Scheme::Http,
            protocol: Protocol::Any,
        };
        forward::prepare_request(&mut headers, &Provenance::of(&peer), None, false);
        let gone = [
            "connection",
            "keep-alive",
            "proxy-connection",
            "transfer-encoding",
            "upgrade",
            "trailer",
            "proxy-authorization",
        ];
        assert!(gone.iter().all(|name| !headers.contains_key(*name)), "{headers:?}");
        assert!(
            headers
                .keys()
                .all(|name| !name.as_str().replace('_', "-").starts_with("x-understudy-")),
            "{headers:?}"
        );
        assert_eq!(
            (
                headers.get(http::header::HOST),
                headers.get(http::header::CONTENT_LENGTH)
            ),
            (host.as_ref(), length.as_ref())
        );
        let from = headers.get("x-forwarded-for").expect("the peer is named").as_bytes();
        assert!(from.ends_with(b"192.0.2.1"), "{headers:?}");
    }
}

#[derive(Default)]
struct Seen {
    /// Each with whether the connection closes after it.
    heads: Vec<(HeaderMap, bool)>,
    bodies: u64,
    error: Option<String>,
}

/// What the library sees of these bytes.
fn served(bytes: &[u8]) -> Seen {
    let seen = Arc::new(Mutex::new(Seen::default()));
    let kept = Arc::clone(&seen);
    let service = service_fn(move |request: Request<Incoming>| {
        let seen = Arc::clone(&kept);
        async move {
            let (head, body) = request.into_parts();
            let old = head.version != http::Version::HTTP_11;
            // A value that is no text says nothing to the library.
            let says = |token: &str| {
                let lines = head.headers.get_all(http::header::CONNECTION).iter();
                let mut tokens = lines
                    .filter_map(|value| value.to_str().ok())
                    .flat_map(|value| value.split(','));
                tokens.any(|one| one.trim().eq_ignore_ascii_case(token))
            };
            let closes = says("close") || (old && !says("keep-alive"));
            seen.lock()
                .expect("no panic")
                .heads
                .push((head.headers.clone(), closes));
            if body.collect().await.is_ok() {
                seen.lock().expect("no panic").bodies += 1;
            }
            Ok::<_, Infallible>(Response::new(Full::new(Bytes::new())))
        }
    });
    let connection = http1::Builder::new()
        .max_headers(2 * LIMITS.header_count)
        .max_header_size(16 * LIMITS.header_bytes)
        .max_buf_size(16 * LIMITS.header_bytes)
        .serve_connection(TokioIo::new(Given::to_a_server(bytes)), service);
    let mut connection = pin!(connection);
    let mut cx = Context::from_waker(Waker::noop());
    let told = || {
        let seen = seen.lock().expect("no panic");
        (seen.heads.len(), seen.bodies)
    };
    // Nothing but the bytes can make it go on: once a few looks change nothing, it has seen what it can.
    let (mut last, mut idle, mut ended) = (told(), 0, None);
    while idle < 8 && ended.is_none() {
        if let Poll::Ready(result) = connection.as_mut().poll(&mut cx) {
            ended = Some(result);
        }
        idle = if told() == last { idle + 1 } else { 0 };
        last = told();
    }
    let mut seen = std::mem::take(&mut *seen.lock().expect("no panic"));
    seen.error = ended.and_then(Result::err).map(|error| format!("{error:?}"));
    seen
}

/// An answer that is complete, and whose end is clear, is the one that the strictest reader sees, or is none to that one;
/// and what was cut is never complete.
pub fn answers(data: &[u8]) {
    let Some((status, body)) = fetched(data) else { return };
    let mut rest = data;
    loop {
        match strict::read(rest, Kind::Answer, true) {
            // What else it finds fault with may be readable all the same, and interim answers have no end but their head's.
            Err(fault) => {
                let is_framing = fault.starts_with("no length")
                    || fault.starts_with("an unknown coding")
                    || fault
                        .trim_start_matches(|c: char| c.is_ascii_digit())
                        .starts_with(" framings");
                let is_interim = rest.starts_with(b"HTTP/1.1 1");
                assert!(!is_framing || is_interim, "{status}: clear although there are {fault}");
                return;
            }
            Ok(None) => {
                // Interim answers before it are passed over, and whole.
                while let Some(end) = head_end(rest).filter(|_| rest.starts_with(b"HTTP/1.1 1")) {
                    rest = &rest[end..];
                }
                assert!(
                    head_end(rest).is_none(),
                    "{status}: complete although it was cut: {:?}",
                    body.escape_ascii().to_string()
                );
                return;
            }
            Ok(Some((interim, taken))) if interim.status() < 200 => rest = &rest[taken..],
            Ok(Some((answer, _))) => {
                assert_eq!((status, &*body), (answer.status(), &*answer.body));
                return;
            }
        }
    }
}

fn head_end(bytes: &[u8]) -> Option<usize> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
    Some(end + 4)
}

/// The answer to a GET that these bytes are, if it is complete and its end is clear.
fn fetched(bytes: &[u8]) -> Option<(u16, Bytes)> {
    let mut cx = Context::from_waker(Waker::noop());
    let shaken = pin!(upstream::reader().handshake(TokioIo::new(Given::to_a_client(bytes)))).poll(&mut cx);
    let Poll::Ready(Ok((mut sender, connection))) = shaken else {
        panic!("nothing is needed to begin")
    };
    let mut fetching = pin!(async {
        let answer = sender.send_request(Request::new(Full::<Bytes>::default())).await.ok()?;
        let (status, is_clear) = (answer.status().as_u16(), upstream::is_clear(&answer, false));
        let body = answer.into_body().collect().await.ok()?.to_bytes();
        is_clear.then_some((status, body))
    });
    let (mut connection, mut is_over) = (pin!(connection), false);
    for _ in 0..3 * LONGEST {
        is_over = is_over || connection.as_mut().poll(&mut cx).is_ready();
        if let Poll::Ready(fetched) = fetching.as_mut().poll(&mut cx) {
            return fetched;
        }
    }
    panic!("an answer that neither ends nor fails")
}

/// Inputs are shorter.
const LONGEST: usize = 16 * 1_024;

/// Bytes to be read, and nobody to read what is written.
struct Given<'b> {
    bytes: &'b [u8],
    asked: bool,
    ends: bool,
}

impl<'b> Given<'b> {
    /// Nothing comes behind them, and the connection stays.
    fn to_a_server(bytes: &'b [u8]) -> Self {
        Self {
            bytes,
            asked: true,
            ends: false,
        }
    }

    /// They come when something was asked, and then the connection ends.
    fn to_a_client(bytes: &'b [u8]) -> Self {
        Self {
            bytes,
            asked: false,
            ends: true,
        }
    }
}

impl AsyncRead for Given<'_> {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.asked || (self.bytes.is_empty() && !self.ends) {
            return Poll::Pending;
        }
        let (now, later) = self.bytes.split_at(self.bytes.len().min(buf.remaining()));
        buf.put_slice(now);
        self.bytes = later;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Given<'_> {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.asked = true;
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// The beginning of a connection is a PROXY header or none, as soon as that can be told and whatever follows; and a
/// header of either version tells what the same addresses tell when they are written as text.
pub fn proxy_protocol(data: &[u8]) {
    let mut told = Look::More;
    for end in (0..=data.len().min(2_100)).chain([data.len()]) {
        let seen = look(&data[..end]);
        if told == Look::More {
            if let Look::Header(length, _) = seen {
                assert_eq!(length, end, "told late, or of what is not there");
            }
            told = seen;
        } else {
            assert_eq!(told, seen, "what follows changes it");
        }
    }
    let Look::Header(length, Told::Addresses(source, destination)) = told else {
        return;
    };
    let version = |address: &SocketAddr| if address.is_ipv4() { 4 } else { 6 };
    let text = format!(
        "PROXY TCP{} {} {} {} {}\r\n",
        version(&source),
        source.ip(),
        destination.ip(),
        source.port(),
        destination.port()
    );
    assert_eq!(
        look(text.as_bytes()),
        Look::Header(text.len(), Told::Addresses(source, destination))
    );
    if data.starts_with(b"P") {
        // Zeros and letters may be written in several ways, but each word is that address or port to everybody.
        let line = std::str::from_utf8(&data[..length - 2]).expect("text");
        let words: Vec<&str> = line.split(' ').collect();
        let [_, _, from, to, from_port, to_port] = words[..] else {
            panic!("addresses of {} words", words.len());
        };
        let address =
            |ip: &str, port: &str| SocketAddr::new(ip.parse().expect("an address"), port.parse().expect("a port"));
        assert_eq!((source, destination), (address(from, from_port), address(to, to_port)));
    }
}

/// A frame's header, as whoever has all bytes at once sees it.
struct Frame {
    at: usize,
    kind: u8,
    stream: u32,
}

/// The frames of these bytes, and how much of the last one, or of its header, is missing.
fn frames_of(bytes: &[u8]) -> (Vec<Frame>, usize) {
    let (mut frames, mut at) = (Vec::new(), 0);
    while let Some(head) = bytes.get(at..at + 9) {
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        frames.push(Frame {
            at,
            kind: head[3],
            stream: u32::from_be_bytes([head[5] & 0x7f, head[6], head[7], head[8]]),
        });
        at += 9 + length;
    }
    let begun = bytes.len().saturating_sub(at);
    let missing = if begun > 0 {
        9 - begun
    } else {
        at.saturating_sub(bytes.len())
    };
    (frames, missing)
}

/// However the bytes of an HTTP/2 connection are cut, the same is counted; a flood begins where a frame does, and
/// nobody is refused for a few frames or served endless ones.
pub fn frames(data: &[u8]) {
    let Some((size, bytes)) = data.split_first() else {
        return;
    };
    let header_bytes = usize::from(*size) << 10;
    let received = |piece: usize| {
        let mut guard = http2::Guard::new(header_bytes);
        let whole = [http2::PREFACE.as_slice(), bytes].concat();
        let flood = whole.chunks(piece).find_map(|piece| guard.received(piece, 5).err());
        (
            flood.map(|flood| (flood.at, flood.reason)),
            guard.is_in_head(),
            guard.farewell(0),
        )
    };
    let sent = |piece: usize| {
        let (mut guard, mut faults, mut refused) = (http2::Guard::new(header_bytes), Vec::new(), false);
        for piece in bytes.chunks(piece) {
            refused |= guard.sent(piece, |fault| faults.push(fault)).is_err();
        }
        (refused, faults, guard.rest_of_frame())
    };
    let (there, back) = (received(usize::MAX), sent(usize::MAX));
    for piece in [1, 2, 9, 10, 1 + usize::from(*size)] {
        assert_eq!(received(piece), there, "received in pieces of {piece}");
        assert_eq!(sent(piece), back, "sent in pieces of {piece}");
    }
    let (mut frames, missing) = frames_of(bytes);
    assert_eq!(back.2, missing);
    let (flood, _, farewell) = there;
    if let Some((at, reason)) = flood {
        let at = frames.iter().position(|frame| frame.at as u64 + 24 == at);
        frames.truncate(at.expect("a flood begins with a frame") + 1);
        assert!(frames.len() > 5, "{reason:?} after {} frames", frames.len());
    }
    let most = |kind: fn(u8) -> bool| frames.iter().filter(|frame| kind(frame.kind)).count();
    let over = usize::from(flood.is_some());
    assert!(most(|kind| kind == 4) <= 50 + over, "settings");
    assert!(most(|kind| kind == 6) <= 200 + over, "pings");
    assert!(most(|kind| matches!(kind, 5 | 7 | 10..)) <= 100 + over, "others");
    let streams = frames.iter().filter(|frame| frame.kind == 1).map(|frame| frame.stream);
    assert_eq!(farewell[9..13], streams.max().unwrap_or(0).to_be_bytes());
}
