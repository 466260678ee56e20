//! The two simulated backends: small HTTP servers on threads of their own, each with a book of what it did.
//!
//! Both verify Meta's signature over the bytes that arrived. The new bot honours `x-understudy-shadow`: a copy is
//! answered and acted upon not at all. The story makes it fail on command. What is answered is left to `reply`.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::pin;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;

use super::reply;
use super::shoppers::Dice;
use super::webhook::{SIGNATURE, VERIFY_TOKEN, is_signed, updates};
use crate::engine::vocab::Side;
use crate::telemetry::{clock, spawn};

/// The marker of a copy.
const SHADOW: &str = "x-understudy-shadow";
/// The longest body that a bot reads: Meta sends up to 3 MB.
const BODY_LIMIT_BYTES: usize = 4 << 20;
/// Entries of a book, at most; the story needs some twenty thousand.
const BOOK_LIMIT: usize = 200_000;
/// How long a bot works on a request: this and up to [`WORK_SPREAD_MS`] more, the same on both sides for the same request.
/// Long against what a busy machine makes of it.
const WORK_MS: u64 = 20;
const WORK_SPREAD_MS: usize = 8;
/// How long closing or opening may take.
const DOOR_LIMIT: Duration = Duration::from_secs(3);

/// What is the matter with a bot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    /// Nothing.
    Healthy,
    /// It takes three times as long.
    Slow,
    /// It answers 401 to everything.
    Unauthorized,
}

/// Whether a bot can be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Door {
    Open,
    Closed,
    /// For good.
    Torn,
}

/// One request in a bot's book.
#[derive(Clone, Debug)]
pub struct Work {
    /// When it arrived, on the monotonic clock.
    pub at: Duration,
    /// Whether it was marked as a copy.
    pub copy: bool,
    /// The shoppers in it.
    pub numbers: Vec<String>,
    /// How it was answered.
    pub status: u16,
}

/// What a bot did.
#[derive(Debug, Default)]
pub struct Book {
    /// Its requests, in the order of their arrival.
    pub work: Vec<Work>,
    /// How often it acted upon each update.
    pub acted: BTreeMap<String, u32>,
    /// Written no more.
    closed: bool,
}

#[derive(Debug)]
struct Shared {
    side: Side,
    mood: AtomicU8,
    door: watch::Sender<Door>,
    listening: watch::Sender<bool>,
    connections: AtomicUsize,
    forged: AtomicU64,
    served: AtomicU64,
    copies: AtomicU64,
    book: Mutex<Book>,
}

/// A running bot.
#[derive(Debug)]
pub struct Bot {
    address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    // Bound and never listening: the port stays ours while the listener is closed. Otherwise a connection that somebody
    // opens meanwhile might be given this very port, and be connected to itself.
    _keeper: TcpSocket,
}

impl Bot {
    /// Starts a bot on a free port of the loopback interface.
    ///
    /// # Errors
    /// When the system has no port, thread or runtime to give.
    pub fn start(side: Side) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let keeper = socket(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
        let address = keeper.local_addr()?;
        let shared = Arc::new(Shared {
            side,
            mood: AtomicU8::new(Mood::Healthy as u8),
            door: watch::Sender::new(Door::Open),
            listening: watch::Sender::new(false),
            connections: AtomicUsize::new(0),
            forged: AtomicU64::new(0),
            served: AtomicU64::new(0),
            copies: AtomicU64::new(0),
            book: Mutex::default(),
        });
        let inside = Arc::clone(&shared);
        let thread = spawn::thread(&format!("demo-{side}"), move || {
            if let Err(error) = runtime.block_on(keep_open(&inside, address)) {
                tracing::error!(bot = inside.side.as_str(), %error, "a bot cannot listen");
            }
        })?;
        Ok(Self {
            address,
            shared,
            thread: Some(thread),
            _keeper: keeper,
        })
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes what is the matter with it, from the next request on.
    pub fn set_mood(&self, mood: Mood) {
        self.shared.mood.store(mood as u8, Relaxed);
    }

    /// Closes the listener and every idle connection; false when that took too long.
    pub async fn close(&self) -> bool {
        self.shared.door.send_replace(Door::Closed);
        let mut listening = self.shared.listening.subscribe();
        let gone = async {
            let _ = listening.wait_for(|listening| !listening).await.is_ok();
            while self.shared.connections.load(Relaxed) > 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(DOOR_LIMIT, gone).await.is_ok()
    }

    /// Listens, at the same address as before; false when that took too long.
    pub async fn open(&self) -> bool {
        self.shared.door.send_replace(Door::Open);
        let mut listening = self.shared.listening.subscribe();
        let open = async { listening.wait_for(|listening| *listening).await.is_ok() };
        tokio::time::timeout(DOOR_LIMIT, open).await.unwrap_or(false)
    }

    /// Requests whose signature did not fit their bytes.
    #[must_use]
    pub fn forged(&self) -> u64 {
        self.shared.forged.load(Relaxed)
    }

    /// Requests that were no copies.
    #[must_use]
    pub fn served(&self) -> u64 {
        self.shared.served.load(Relaxed)
    }

    /// Requests that were copies.
    #[must_use]
    pub fn copies(&self) -> u64 {
        self.shared.copies.load(Relaxed)
    }

    /// The book, as far as it is written.
    pub fn book(&self) -> MutexGuard<'_, Book> {
        self.shared.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Empties the book and writes no more into it.
    pub fn close_book(&self) {
        *self.book() = Book {
            closed: true,
            ..Book::default()
        };
    }
}

impl Drop for Bot {
    fn drop(&mut self) {
        self.shared.door.send_replace(Door::Torn);
        if let Some(thread) = self.thread.take() {
            // A panic has been logged where it happened.
            let _ = thread.join();
        }
    }
}

/// A socket that shares its port with others of this process.
fn socket(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.set_reuseport(true)?;
    socket.bind(address)?;
    Ok(socket)
}

async fn keep_open(shared: &Arc<Shared>, address: SocketAddr) -> io::Result<()> {
    let mut door = shared.door.subscribe();
    loop {
        let listener = socket(address)?.listen(1_024)?;
        shared.listening.send_replace(true);
        tokio::select! {
            () = until(&mut door, |door| door != Door::Open) => {}
            () = accept(shared, &listener) => {}
        }
        drop(listener);
        shared.listening.send_replace(false);
        until(&mut door, |door| door != Door::Closed).await;
        if *door.borrow() == Door::Torn {
            return Ok(());
        }
    }
}

async fn until(door: &mut watch::Receiver<Door>, is: impl Fn(Door) -> bool) {
    // The sender lives as long as the bot.
    let _ = door.wait_for(|door| is(*door)).await.is_ok();
}

async fn accept(shared: &Arc<Shared>, listener: &TcpListener) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => drop(spawn::task("demo bot", connection(Arc::clone(shared), stream))),
            // Out of descriptors, most likely: they come back when others close.
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

/// Counts a connection while it lives.
struct Counted<'s>(&'s AtomicUsize);

impl<'s> Counted<'s> {
    fn new(count: &'s AtomicUsize) -> Self {
        count.fetch_add(1, Relaxed);
        Self(count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

async fn connection(shared: Arc<Shared>, stream: TcpStream) {
    let _counted = Counted::new(&shared.connections);
    // Without it an answer may wait for the acknowledgement of the one before.
    let _ = stream.set_nodelay(true);
    let service = service_fn(|request| handle(Arc::clone(&shared), request));
    let mut serving = pin!(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    let mut door = shared.door.subscribe();
    tokio::select! {
        // Whoever broke the connection off knows it.
        _ = serving.as_mut() => return,
        () = until(&mut door, |door| door != Door::Open) => {}
    }
    serving.as_mut().graceful_shutdown();
    let _ = serving.await;
}

type Answer = Response<Full<Bytes>>;

fn answer(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    answer
        .headers_mut()
        .insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    answer
}

async fn handle(shared: Arc<Shared>, request: Request<Incoming>) -> Result<Answer, Infallible> {
    if request.method() == Method::GET {
        return Ok(subscription(request.uri().query().unwrap_or_default()));
    }
    let at = clock::monotonic();
    let (head, body) = request.into_parts();
    let Ok(body) = Limited::new(body, BODY_LIMIT_BYTES).collect().await else {
        return Ok(answer(
            StatusCode::BAD_REQUEST,
            "text/plain",
            "the body broke off or is too long",
        ));
    };
    let body = body.to_bytes();
    let copy = head.headers.contains_key(SHADOW);
    let count = if copy { &shared.copies } else { &shared.served };
    let nth = count.fetch_add(1, Relaxed);
    let signed = head
        .headers
        .get(SIGNATURE)
        .is_some_and(|signature| is_signed(&body, signature.as_bytes()));
    if !signed {
        shared.forged.fetch_add(1, Relaxed);
        return Ok(answer(
            StatusCode::UNAUTHORIZED,
            "text/plain",
            "the signature does not fit",
        ));
    }
    let read: Value = serde_json::from_slice(&body).unwrap_or_default();
    let mood = shared.mood.load(Relaxed);
    let status = if mood == Mood::Unauthorized as u8 {
        StatusCode::UNAUTHORIZED
    } else {
        StatusCode::OK
    };
    shared.write(at, copy, status, &read);
    if status != StatusCode::OK {
        return Ok(answer(status, "application/json", r#"{"error":"token expired"}"#));
    }
    let times = if mood == Mood::Slow as u8 { 3 } else { 1 };
    tokio::time::sleep(work_on(&read) * times).await;
    let text = reply::answer(shared.side, &read, nth).to_string();
    Ok(answer(StatusCode::OK, "application/json", text))
}

/// How long a request takes.
fn work_on(body: &Value) -> Duration {
    let seed = updates(body)
        .iter()
        .flat_map(|update| update.key.bytes())
        .map(u64::from)
        .sum();
    let more = u64::try_from(Dice::new(seed).below(WORK_SPREAD_MS + 1)).unwrap_or_default();
    Duration::from_millis(WORK_MS + more)
}

/// Meta's check of a subscription: whoever knows the token answers with the bare challenge.
fn subscription(query: &str) -> Answer {
    let of = |name: &str| {
        let found = form_urlencoded::parse(query.as_bytes()).find(|(key, _)| key == name);
        found.map(|(_, value)| value.into_owned()).unwrap_or_default()
    };
    if of("hub.mode") == "subscribe" && of("hub.verify_token") == VERIFY_TOKEN {
        answer(StatusCode::OK, "text/plain", of("hub.challenge"))
    } else {
        answer(StatusCode::FORBIDDEN, "text/plain", "")
    }
}

impl Shared {
    fn write(&self, at: Duration, copy: bool, status: StatusCode, body: &Value) {
        let updates = updates(body);
        let mut book = self.book.lock().unwrap_or_else(PoisonError::into_inner);
        if book.closed || book.work.len() >= BOOK_LIMIT {
            return;
        }
        let numbers = updates.iter().map(|update| update.number.to_owned()).collect();
        book.work.push(Work {
            at,
            copy,
            numbers,
            status: status.as_u16(),
        });
        // A copy must reach nobody, and a request that was refused has no effect.
        if !copy && status == StatusCode::OK {
            for update in updates {
                *book.acted.entry(update.key).or_default() += 1;
            }
        }
    }
}
