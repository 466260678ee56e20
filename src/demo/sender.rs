//! The simulated sender, Meta's part (`WHATSAPP_PROVIDER=simulated`): signed webhooks at a steady rate, and a ledger
//! that says of each what came back.
//!
//! In: a rate, and the bodies that `writer` makes. Out: the [`Ledger`]. Nothing is sent twice: a request that fails stands in
//! the ledger as failed.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::sync::watch;

use super::shoppers::Shopper;
use super::webhook::{self, PATH, SIGNATURE, VERIFY_TOKEN, list, text};
use super::writer::{Parcel, Writer};
use crate::engine::vocab::Side;
use crate::telemetry::{clock, spawn};

/// Connections that the sender keeps: more than it needs at its rate, so that a slow answer delays nobody else.
const CONNECTIONS: usize = 32;
/// How long the sender waits for an answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Entries of the ledger, at most.
const LEDGER_LIMIT: usize = 200_000;
/// What the sidecar adds to answers in the demo's configuration.
const SERVED_BY: &str = "x-understudy-served-by";

/// One request in the ledger.
#[derive(Clone, Debug)]
pub struct Entry {
    /// When it was sent, on the monotonic clock.
    pub sent: Duration,
    /// Until its answer was whole.
    pub took: Duration,
    /// The shoppers in it; empty for what concerns the account.
    pub numbers: Vec<String>,
    /// Its updates: ids of messages, ids and words of statuses.
    pub keys: Vec<String>,
    /// The status of its answer, or why there is none.
    pub status: Result<u16, String>,
    /// Whether the answer was the one to this request.
    pub fits: bool,
    /// Whose answer it was.
    pub served_by: Option<Side>,
}

impl Entry {
    /// Whether it got a 2xx, and the answer to itself.
    #[must_use]
    pub fn is_good(&self) -> bool {
        matches!(self.status, Ok(200..=299)) && self.fits
    }
}

/// Everything that was sent, in the order in which it was answered.
pub type Ledger = Vec<Entry>;

/// The running sender.
#[derive(Clone, Debug)]
pub struct Sender(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    to: SocketAddr,
    writer: Mutex<Writer>,
    pace: Mutex<Pace>,
    held: watch::Sender<bool>,
    under_way: watch::Sender<usize>,
    sent: AtomicU64,
    answered: AtomicU64,
    ledger: Mutex<Option<Ledger>>,
}

#[derive(Debug)]
struct Pace {
    every: Duration,
    next: Duration,
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Sender {
    /// Starts sending to a listener of the sidecar, on the current runtime, held until [`Sender::go_on`].
    #[must_use]
    pub fn start(to: SocketAddr, shoppers: Vec<Shopper>, per_second: u32) -> Self {
        let sender = Self(Arc::new(Inner {
            to,
            writer: Mutex::new(Writer::new(shoppers)),
            pace: Mutex::new(Pace {
                every: Duration::from_secs(1) / per_second.max(1),
                next: clock::monotonic(),
            }),
            held: watch::Sender::new(true),
            under_way: watch::Sender::new(0),
            sent: AtomicU64::new(0),
            answered: AtomicU64::new(0),
            ledger: Mutex::new(Some(Ledger::new())),
        }));
        for _ in 0..CONNECTIONS {
            drop(spawn::task("demo sender", Arc::clone(&sender.0).send()));
        }
        sender
    }

    /// Changes the rate.
    pub fn set_rate(&self, per_second: u32) {
        lock(&self.0.pace).every = Duration::from_secs(1) / per_second.max(1);
    }

    /// Stops sending and waits until everything under way is answered; false when that took too long.
    pub async fn hold(&self) -> bool {
        self.0.held.send_replace(true);
        let mut under_way = self.0.under_way.subscribe();
        let quiet = async { under_way.wait_for(|n| *n == 0).await.is_ok() };
        tokio::time::timeout(PATIENCE + Duration::from_secs(1), quiet)
            .await
            .unwrap_or(false)
    }

    /// Sends again.
    pub fn go_on(&self) {
        lock(&self.0.pace).next = clock::monotonic();
        self.0.held.send_replace(false);
    }

    /// Requests sent.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.0.sent.load(Relaxed)
    }

    /// Requests answered with a 2xx.
    #[must_use]
    pub fn answered(&self) -> u64 {
        self.0.answered.load(Relaxed)
    }

    /// What the ledger says of the requests that were sent within this time.
    #[must_use]
    pub fn between(&self, from: Duration, to: Duration) -> Ledger {
        let mut some: Ledger = lock(&self.0.ledger)
            .iter()
            .flatten()
            .filter(|entry| (from..to).contains(&entry.sent))
            .cloned()
            .collect();
        some.sort_by_key(|entry| entry.sent);
        some
    }

    /// Gives the ledger away; nothing is written any more.
    #[must_use]
    pub fn close_ledger(&self) -> Ledger {
        lock(&self.0.ledger).take().unwrap_or_default()
    }

    /// A signed text message of one of these shoppers, ready to be sent by hand: body and signature.
    #[must_use]
    pub fn sample(&self, of: impl Fn(&str) -> bool) -> (String, String) {
        let body = lock(&self.0.writer).sample(of).body;
        let signature = webhook::signature(body.as_bytes());
        (body, signature)
    }

    /// Asks as Meta does before it delivers: true if the answer is the bare challenge.
    pub async fn subscribe(&self) -> bool {
        let challenge = "1936480127";
        let query = format!("hub.mode=subscribe&hub.verify_token={VERIFY_TOKEN}&hub.challenge={challenge}");
        let request = Request::get(format!("{PATH}?{query}")).header(header::HOST, self.0.to.to_string());
        let Ok(request) = request.body(Full::default()) else {
            return false;
        };
        let asked = async {
            let mut connection = connect(self.0.to).await?;
            let answer = connection
                .send_request(request)
                .await
                .map_err(|error| error.to_string())?;
            let fine = answer.status().is_success();
            let body = answer
                .into_body()
                .collect()
                .await
                .map_err(|error| error.to_string())?
                .to_bytes();
            Ok::<bool, String>(fine && body == challenge)
        };
        matches!(tokio::time::timeout(PATIENCE, asked).await, Ok(Ok(true)))
    }
}

type Connection = SendRequest<Full<Bytes>>;

async fn connect(to: SocketAddr) -> Result<Connection, String> {
    let stream = TcpStream::connect(to).await.map_err(|error| error.to_string())?;
    // Without it a body may wait for the acknowledgement of its head.
    let _ = stream.set_nodelay(true);
    let (connection, driver) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| error.to_string())?;
    drop(spawn::task("demo sender connection", async move {
        // What ends it reaches whoever waits for an answer.
        let _ = driver.await;
    }));
    Ok(connection)
}

impl Inner {
    /// One connection: takes the next slot, waits for it, sends, until the runtime ends.
    async fn send(self: Arc<Self>) {
        let mut held = self.held.subscribe();
        let mut connection = None;
        loop {
            if held.wait_for(|held| !held).await.is_err() {
                return;
            }
            let wait = self.slot();
            if !wait.is_zero() {
                tokio::time::sleep(wait).await;
            }
            // Counted before the look at the gate, so that whoever closes it sees this request or stops it.
            self.under_way.send_modify(|n| *n += 1);
            if !*self.held.borrow() {
                self.deliver(&mut connection).await;
            }
            self.under_way.send_modify(|n| *n -= 1);
        }
    }

    /// How long to wait for the next free slot. What was missed is not made up for: a burst would be no steady rate.
    fn slot(&self) -> Duration {
        let now = clock::monotonic();
        let mut pace = lock(&self.pace);
        let due = pace.next.max(now.saturating_sub(pace.every * 10));
        pace.next = due + pace.every;
        due.saturating_sub(now)
    }

    async fn deliver(&self, connection: &mut Option<Connection>) {
        let parcel = lock(&self.writer).write();
        let sent = clock::monotonic();
        self.sent.fetch_add(1, Relaxed);
        let outcome = tokio::time::timeout(PATIENCE, self.post(connection, &parcel)).await;
        let outcome = outcome.unwrap_or_else(|_| Err("no answer in time".to_owned()));
        if outcome.is_err() {
            *connection = None;
        }
        let (status, fits, served_by) = match outcome {
            Ok(answer) => (Ok(answer.status), answer.fits, answer.served_by),
            Err(why) => (Err(why), false, None),
        };
        if matches!(status, Ok(200..=299)) {
            self.answered.fetch_add(1, Relaxed);
        }
        let took = clock::monotonic().saturating_sub(sent);
        let Parcel { numbers, keys, .. } = parcel;
        if let Some(ledger) = lock(&self.ledger).as_mut().filter(|ledger| ledger.len() < LEDGER_LIMIT) {
            ledger.push(Entry {
                sent,
                took,
                numbers,
                keys,
                status,
                fits,
                served_by,
            });
        }
    }

    async fn post(&self, connection: &mut Option<Connection>, parcel: &Parcel) -> Result<Answer, String> {
        let mut using = match connection.take() {
            Some(open) if !open.is_closed() => open,
            _ => connect(self.to).await?,
        };
        using.ready().await.map_err(|error| error.to_string())?;
        let request = Request::post(PATH)
            .header(header::HOST, "shop.example")
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::USER_AGENT, "facebookexternalua")
            .header(SIGNATURE, webhook::signature(parcel.body.as_bytes()))
            .body(Full::new(Bytes::from(parcel.body.clone())))
            .map_err(|error| error.to_string())?;
        let answer = using.send_request(request).await.map_err(|error| error.to_string())?;
        let (head, body) = answer.into_parts();
        let body = body.collect().await.map_err(|error| error.to_string())?.to_bytes();
        *connection = Some(using);
        let served_by = head.headers.get(SERVED_BY).and_then(|value| value.to_str().ok());
        let served_by = Side::BOTH.into_iter().find(|side| served_by == Some(side.as_str()));
        Ok(Answer {
            status: head.status.as_u16(),
            fits: fits(&body, parcel),
            served_by,
        })
    }
}

struct Answer {
    status: u16,
    fits: bool,
    served_by: Option<Side>,
}

/// Whether an answer names exactly the updates of this request, so that nobody got the answer to another's.
fn fits(body: &[u8], parcel: &Parcel) -> bool {
    let read: Value = serde_json::from_slice(body).unwrap_or_default();
    let of_messages = list(&read, "messages").map(|message| text(message, "id"));
    let noted = list(&read, "noted").filter_map(Value::as_str);
    let named: Vec<&str> = of_messages.chain(noted).collect();
    // A body with messages is answered message by message; what else is in it is only noted.
    text(&read, "status") == "accepted"
        && if named.is_empty() {
            parcel.keys.is_empty()
        } else {
            named.iter().all(|key| parcel.keys.iter().any(|ours| ours == key))
        }
}

#[cfg(test)]
mod tests {
    use super::super::reply;
    use super::super::shoppers::population;
    use super::*;

    #[test]
    fn an_answer_fits_its_own_request_alone() {
        let mut writer = Writer::new(population(300));
        let all: Vec<Parcel> = (0..400).map(|_| writer.write()).collect();
        for (at, parcel) in all.iter().enumerate() {
            let read = serde_json::from_str(&parcel.body).expect("it is JSON");
            let answer = reply::answer(Side::Legacy, &read, 1).to_string();
            assert!(fits(answer.as_bytes(), parcel), "{}", parcel.body);
            let other = &all[(at + 1) % all.len()];
            assert!(!fits(answer.as_bytes(), other) || parcel.keys.is_empty() && other.keys.is_empty());
        }
        assert!(!fits(b"upstream error", &all[0]));
    }
}
