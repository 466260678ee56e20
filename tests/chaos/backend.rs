//! A backend under changing weather: answers as promised, or fails in the way the weather asks for.

#[path = "two.rs"]
mod two;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinHandle;

use crate::promise::{PROOF, Promise};
use crate::random::Random;
use crate::strict::{self, Kind};
use crate::support::Located;

/// What a backend does to a share of its requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weather {
    Calm,
    /// Interim answers before the real one.
    Interim,
    /// Answers, late.
    Slow,
    Stall,
    /// Breaks off within its answer.
    Cut,
    Garbage,
    /// Resets without an answer.
    Reset,
    /// Closes without an answer.
    Close,
    /// Closes each connection right behind its answer, unannounced.
    Abrupt,
    /// Takes no connection at all.
    Refuse,
}

pub const WEATHERS: [Weather; 10] = [
    Weather::Calm,
    Weather::Interim,
    Weather::Slow,
    Weather::Stall,
    Weather::Cut,
    Weather::Garbage,
    Weather::Reset,
    Weather::Close,
    Weather::Abrupt,
    Weather::Refuse,
];

impl Weather {
    /// Whether a client may notice it.
    pub fn hurts(self) -> bool {
        !matches!(self, Self::Calm | Self::Interim)
    }
}

/// For how long after bad weather its effects may still be met: timeouts that had begun, and connections that stalled.
const AFTERMATH_MS: u64 = 5_000;

/// What a backend is spoken to in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaks {
    Http1,
    Http2,
}

pub struct Shared {
    side: &'static str,
    weather: AtomicUsize,
    begun: Instant,
    rough_until_ms: AtomicU64,
    /// How often each request came whole, and how often as a copy.
    pub seen: Mutex<HashMap<u64, [usize; 2]>>,
    /// What nobody should have sent.
    pub wrong: Mutex<Vec<String>>,
}

impl Shared {
    fn now_ms(&self) -> u64 {
        self.begun.elapsed().as_millis() as u64
    }

    fn weather(&self) -> Weather {
        WEATHERS[self.weather.load(Relaxed)]
    }

    /// The side and its weather, for whoever complains.
    pub fn told(&self) -> String {
        let (now, rough) = (self.now_ms(), self.rough_until_ms.load(Relaxed));
        format!("{} {:?} at {now} ms, rough until {rough} ms", self.side, self.weather())
    }

    /// Whether nothing this backend did since `since` could hurt anybody.
    pub fn calm_since(&self, since: Instant) -> bool {
        let since_ms = since.saturating_duration_since(self.begun).as_millis() as u64;
        !self.weather().hurts() && self.rough_until_ms.load(Relaxed) + AFTERMATH_MS < since_ms.max(1)
            || self.rough_until_ms.load(Relaxed) == 0 && !self.weather().hurts()
    }
}

/// One side.
pub struct Backend {
    pub address: SocketAddr,
    pub shared: Arc<Shared>,
    speaks: Speaks,
    accepting: Option<JoinHandle<()>>,
}

impl Located for Backend {
    fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Backend {
    pub async fn start(side: &'static str, speaks: Speaks) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            side,
            weather: AtomicUsize::new(0),
            begun: Instant::now(),
            rough_until_ms: AtomicU64::new(0),
            seen: Mutex::default(),
            wrong: Mutex::default(),
        });
        let accepting = Some(tokio::spawn(accept(listener, Arc::clone(&shared), speaks)));
        Self {
            address,
            shared,
            speaks,
            accepting,
        }
    }

    /// Changes the weather.
    pub async fn set(&mut self, weather: Weather) {
        let shared = &self.shared;
        if shared.weather().hurts() {
            shared.rough_until_ms.store(shared.now_ms(), Relaxed);
        }
        let at = WEATHERS.iter().position(|known| *known == weather).unwrap();
        shared.weather.store(at, Relaxed);
        if weather == Weather::Refuse {
            if let Some(accepting) = self.accepting.take() {
                accepting.abort();
                let _ = accepting.await;
            }
        } else if self.accepting.is_none() {
            let socket = TcpSocket::new_v4().unwrap();
            socket.set_reuseaddr(true).unwrap();
            socket.bind(self.address).unwrap();
            let listener = socket.listen(1_024).unwrap();
            self.accepting = Some(tokio::spawn(accept(listener, Arc::clone(shared), self.speaks)));
        }
    }

    /// Takes no further connection.
    pub fn stop(&mut self) {
        if let Some(accepting) = self.accepting.take() {
            accepting.abort();
        }
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>, speaks: Speaks) {
    while let Ok((stream, _)) = listener.accept().await {
        let _ = stream.set_nodelay(true);
        match speaks {
            Speaks::Http1 => drop(tokio::spawn(serve(stream, Arc::clone(&shared)))),
            Speaks::Http2 => drop(tokio::spawn(two::serve(stream, Arc::clone(&shared)))),
        }
    }
}

async fn serve(mut stream: TcpStream, shared: Arc<Shared>) {
    let mut bytes = Vec::new();
    loop {
        match strict::read(&bytes, Kind::Request, false) {
            Ok(Some((message, taken))) => {
                bytes.drain(..taken);
                if !answer(&mut stream, &message, &shared).await {
                    return;
                }
                continue;
            }
            Ok(None) => {}
            Err(why) => {
                shared.wrong.lock().unwrap().push(format!("{} got: {why}", shared.side));
                return;
            }
        }
        if stream.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
            return;
        }
    }
}

fn check(message: &strict::Strict, promise: &Promise, shared: &Shared) {
    let mut wrong = Vec::new();
    if message.start != format!("{} {} HTTP/1.1", promise.method, promise.target()) {
        wrong.push(format!("request line {:?}", message.start));
    }
    if message.body != promise.body {
        wrong.push(format!(
            "a body of {} bytes, not {}",
            message.body.len(),
            promise.body.len()
        ));
    }
    if message.header("host") != "shop.example" || !message.trailers.is_empty() {
        wrong.push(format!(
            "host {:?}, trailers {:?}",
            message.header("host"),
            message.trailers
        ));
    }
    let is_copy = message.has("x-understudy-shadow");
    let mut seen = shared.seen.lock().unwrap();
    let times = seen.entry(promise.id).or_default();
    times[usize::from(is_copy)] += 1;
    if times[1] > 1 || (times[0] > 1 && !promise.is_repeatable()) {
        wrong.push(format!("{} came {times:?} times, and as a copy", promise.target()));
    }
    let lines = wrong
        .iter()
        .map(|what| format!("{} got of {}: {what}", shared.side, promise.id));
    shared.wrong.lock().unwrap().extend(lines);
}

/// False ends the connection.
async fn answer(stream: &mut TcpStream, message: &strict::Strict, shared: &Shared) -> bool {
    let Some(id) = message.header(PROOF).parse().ok() else {
        // Broken on purpose by its client, and still legal.
        let fine = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
        return stream.write_all(fine).await.is_ok();
    };
    let promise = Promise::new(id);
    check(message, &promise, shared);
    let written = promise.answer(shared.side).written(&promise);
    let mut random = Random::new(id);
    let weather = if random.chance(0.4) {
        shared.weather()
    } else {
        Weather::Calm
    };
    let reset = |stream: &TcpStream| socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
    match weather {
        Weather::Calm | Weather::Refuse => stream.write_all(&written).await.is_ok(),
        Weather::Interim => {
            let interim = b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\n";
            stream.write_all(interim).await.is_ok() && stream.write_all(&written).await.is_ok()
        }
        Weather::Slow => {
            for part in written.chunks(written.len() / 4 + 1) {
                tokio::time::sleep(Duration::from_millis(random.below(60))).await;
                if stream.write_all(part).await.is_err() {
                    return false;
                }
            }
            true
        }
        Weather::Stall => {
            while stream.read(&mut [0; 1_024]).await.unwrap_or(0) > 0 {}
            false
        }
        Weather::Cut => {
            let at = random.below(written.len() as u64) as usize;
            let _ = stream.write_all(&written[..at]).await;
            if random.chance(0.5) {
                let _ = reset(stream);
            }
            false
        }
        Weather::Garbage => {
            let garbage: [&[u8]; 5] = [
                b"\0\x01\x02\r\n\r\n",
                b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
                b"HTTP/1.1 2 OK\r\n\r\n",
                b"HTTP/1.1 200 OK\r\nContent-Length: 1, 2\r\n\r\nab",
                b"HTTP/1.1 200 OK\r\nX: \0\r\n\r\n",
            ];
            let _ = stream.write_all(garbage[random.below(5) as usize]).await;
            false
        }
        Weather::Reset => {
            let _ = reset(stream);
            false
        }
        Weather::Close => false,
        Weather::Abrupt => {
            let _ = stream.write_all(&written).await;
            false
        }
    }
}
