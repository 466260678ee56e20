//! Clients of every kind, each checking every byte that it gets.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::backend::Shared;
use crate::promise::Promise;
use crate::random::Random;
use crate::streams;
use crate::strict::{self, Kind, Strict};

/// Longer than every limit on time of the instance together.
pub const PATIENCE: Duration = Duration::from_secs(15);

/// What all clients know and tell.
pub struct Crowd {
    pub address: SocketAddr,
    pub legacy: Arc<Shared>,
    pub new: Arc<Shared>,
    pub ids: AtomicU64,
    pub stop: AtomicBool,
    /// What should not have happened.
    pub wrong: Mutex<Vec<String>>,
    /// Requests that were never sent whole: no backend may have seen them so.
    pub cut: Mutex<Vec<u64>>,
    /// Answers as promised, answers of ours, connections that ended instead.
    pub tally: [AtomicU64; 3],
}

impl Crowd {
    pub fn promise(&self) -> Promise {
        Promise::new(self.ids.fetch_add(1, Relaxed))
    }

    pub fn complain(&self, what: String) {
        let told = format!("{what} ({}, {})", self.legacy.told(), self.new.told());
        self.wrong.lock().unwrap().push(told);
    }

    /// Whether nothing since then excuses a failure of this request.
    pub fn must_succeed(&self, promise: &Promise, since: Instant) -> bool {
        self.legacy.calm_since(since) && (promise.route != "live" || self.new.calm_since(since))
    }

    pub fn judge(&self, promise: &Promise, answer: &Strict, since: Instant) {
        let reason = answer.header("x-understudy-error");
        if !reason.is_empty() {
            self.tally[1].fetch_add(1, Relaxed);
            let excused = matches!(&*reason, "too_many_connections" | "overload");
            if !excused && self.must_succeed(promise, since) {
                self.complain(format!(
                    "{} {} was answered {reason} in calm weather after {:?}, chunked {}, {} bytes",
                    promise.method,
                    promise.target(),
                    since.elapsed(),
                    promise.chunked,
                    promise.body.len()
                ));
            }
            return;
        }
        self.tally[0].fetch_add(1, Relaxed);
        let side = answer.header("x-understudy-served-by");
        if !matches!(&*side, "legacy" | "new") || (side == "new" && promise.route != "live") {
            self.complain(format!("{} was served by {side:?}", promise.target()));
            return;
        }
        let expected = promise.answer(&side);
        let body: &[u8] = if promise.method == "HEAD" { b"" } else { &expected.body };
        if answer.status() != expected.status || answer.body != body {
            self.complain(format!(
                "{} {}: {} with {} bytes, not {} with {}, or others, by {side}",
                promise.method,
                promise.target(),
                answer.status(),
                answer.body.len(),
                expected.status,
                body.len()
            ));
        }
        if answer.header("x-answer") != promise.id.to_string() {
            self.complain(format!(
                "{} got the answer to {}",
                promise.target(),
                answer.header("x-answer")
            ));
        }
    }
}

struct Wire {
    stream: TcpStream,
    arrived: Vec<u8>,
}

enum Next {
    Answer(Strict),
    Closed,
    Wrong(String),
}

impl Wire {
    async fn connect(address: SocketAddr) -> Option<Self> {
        let stream = TcpStream::connect(address).await.ok()?;
        let _ = stream.set_nodelay(true);
        Some(Self {
            stream,
            arrived: Vec::new(),
        })
    }

    /// The next final answer; interim ones are read over.
    async fn next(&mut self, kind: Kind) -> Next {
        let end = tokio::time::Instant::now() + PATIENCE;
        let mut ended = false;
        loop {
            match strict::read(&self.arrived, kind, ended) {
                Ok(Some((answer, taken))) => {
                    self.arrived.drain(..taken);
                    if answer.status() < 200 {
                        continue;
                    }
                    return Next::Answer(answer);
                }
                Ok(None) if ended => return Next::Closed,
                Ok(None) => {}
                Err(why) => return Next::Wrong(why),
            }
            match tokio::time::timeout_at(end, self.stream.read_buf(&mut self.arrived)).await {
                Err(_) => return Next::Wrong(format!("nothing came for {PATIENCE:?}")),
                Ok(Ok(0) | Err(_)) => ended = true,
                Ok(Ok(_)) => {}
            }
        }
    }

    fn reset(self) {
        let _ = socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
    }
}

fn kind(promise: &Promise) -> Kind {
    if promise.method == "HEAD" {
        Kind::AnswerToHead
    } else {
        Kind::Answer
    }
}

/// One client after another until it is told to stop.
pub async fn live(crowd: Arc<Crowd>, seed: u64) {
    let mut random = Random::new(seed);
    while !crowd.stop.load(Relaxed) {
        match random.below(21) {
            0..=6 => polite(&crowd, &mut random).await,
            7..=8 => pipelining(&crowd, &mut random).await,
            9..=10 => leaves_while_sending(&crowd, &mut random).await,
            11 => leaves_while_reading(&crowd, &mut random).await,
            12 => dawdling(&crowd, &mut random).await,
            13 => expecting(&crowd, &mut random).await,
            14..=18 => streams::multiplexing(&crowd, &mut random).await,
            _ => broken(&crowd, &mut random).await,
        }
        // As many as there are clients would otherwise be all that the machine does.
        tokio::time::sleep(random.wait(40.0)).await;
    }
}

/// One request after the other on one connection.
async fn polite(crowd: &Crowd, random: &mut Random) {
    let Some(mut wire) = Wire::connect(crowd.address).await else {
        return;
    };
    for _ in 0..=random.below(8) {
        let promise = crowd.promise();
        let (head, body) = promise.written("");
        if !exchange(crowd, &mut wire, &promise, &[head, body], "polite").await {
            return;
        }
    }
}

/// Sends these parts and judges the answer; false when the connection is over.
async fn exchange(crowd: &Crowd, wire: &mut Wire, promise: &Promise, parts: &[Vec<u8>], how: &str) -> bool {
    let since = Instant::now();
    for part in parts {
        // Whoever is refused early learns why from the answer.
        if wire.stream.write_all(part).await.is_err() {
            break;
        }
    }
    match wire.next(kind(promise)).await {
        Next::Answer(answer) => {
            crowd.judge(promise, &answer, since);
            !answer.header("connection").eq_ignore_ascii_case("close")
        }
        Next::Closed => {
            crowd.tally[2].fetch_add(1, Relaxed);
            if crowd.must_succeed(promise, since) {
                crowd.complain(format!(
                    "{} {} was closed on in calm weather",
                    promise.method,
                    promise.target()
                ));
            }
            false
        }
        Next::Wrong(why) => {
            crowd.complain(format!(
                "{how} {} {} since {since:?}: {why}",
                promise.method,
                promise.target()
            ));
            false
        }
    }
}

/// Several requests in one go; answers come in their order, and none comes after the connection was closed.
async fn pipelining(crowd: &Crowd, random: &mut Random) {
    let Some(mut wire) = Wire::connect(crowd.address).await else {
        return;
    };
    let promises: Vec<Promise> = (0..2 + random.below(5)).map(|_| crowd.promise()).collect();
    let mut all = Vec::new();
    for promise in &promises {
        let (head, body) = promise.written("");
        all.extend(head);
        all.extend(body);
    }
    let since = Instant::now();
    let (mut reader, mut writer) = wire.stream.into_split();
    let writing = tokio::spawn(async move {
        let _ = writer.write_all(&all).await;
        writer
    });
    let mut arrived = Vec::new();
    let end = tokio::time::Instant::now() + PATIENCE * 2;
    let mut ended = false;
    for promise in &promises {
        let answer = loop {
            match strict::read(&arrived, kind(promise), ended) {
                Ok(Some((answer, taken))) => {
                    arrived.drain(..taken);
                    if answer.status() >= 200 {
                        break Some(answer);
                    }
                    continue;
                }
                Ok(None) if ended => break None,
                Ok(None) => {}
                Err(why) => {
                    crowd.complain(format!("pipelined {}: {why}", promise.target()));
                    break None;
                }
            }
            match tokio::time::timeout_at(end, reader.read_buf(&mut arrived)).await {
                Err(_) => {
                    crowd.complain(format!("pipelined {}: no answer came", promise.target()));
                    break None;
                }
                Ok(Ok(0) | Err(_)) => ended = true,
                Ok(Ok(_)) => {}
            }
        };
        let Some(answer) = answer else {
            crowd.tally[2].fetch_add(1, Relaxed);
            break;
        };
        crowd.judge(promise, &answer, since);
        if answer.header("connection").eq_ignore_ascii_case("close") {
            break;
        }
    }
    writing.abort();
    let _ = writing.await;
    wire = match Wire::connect(crowd.address).await {
        Some(wire) => wire,
        None => return,
    };
    wire.reset();
}

/// Sends a part of a request and leaves.
async fn leaves_while_sending(crowd: &Crowd, random: &mut Random) {
    let Some(mut wire) = Wire::connect(crowd.address).await else {
        return;
    };
    let promise = crowd.promise();
    let (head, body) = promise.written("");
    let whole = [head, body].concat();
    let at = random.below(whole.len() as u64) as usize;
    crowd.cut.lock().unwrap().push(promise.id);
    let _ = wire.stream.write_all(&whole[..at]).await;
    if random.chance(0.5) {
        tokio::time::sleep(random.wait(100.0)).await;
    }
    match random.below(3) {
        0 => wire.reset(),
        1 => drop(wire),
        _ => {
            let _ = wire.stream.shutdown().await;
            if let Next::Wrong(why) = wire.next(kind(&promise)).await {
                crowd.complain(format!("half closed at {at} of {}: {why}", promise.target()));
            }
        }
    }
}

/// Sends a request, reads a part of the answer, and leaves.
async fn leaves_while_reading(crowd: &Crowd, random: &mut Random) {
    let Some(mut wire) = Wire::connect(crowd.address).await else {
        return;
    };
    let promise = crowd.promise();
    let (head, body) = promise.written("");
    let _ = wire.stream.write_all(&[head, body].concat()).await;
    let mut some = vec![0; 1 + random.below(300) as usize];
    let _ = tokio::time::timeout(random.wait(20.0), wire.stream.read(&mut some)).await;
    if random.chance(0.5) {
        wire.reset();
    }
}

/// Sends slowly, within what is allowed.
async fn dawdling(crowd: &Crowd, random: &mut Random) {
    let Some(mut wire) = Wire::connect(crowd.address).await else {
        return;
    };
    let promise = crowd.promise();
    let (head, body) = promise.written("");
    let whole = [head, body].concat();
    let since = Instant::now();
    for part in whole.chunks(whole.len() / 6 + 1) {
        if wire.stream.write_all(part).await.is_err() {
            break;
        }
        tokio::time::sleep(random.wait(30.0).min(Duration::from_millis(120))).await;
    }
    let _ = since;
    exchange(crowd, &mut wire, &promise, &[], "dawdling").await;
}

/// Waits to be told to go on before it sends its body.
async fn expecting(crowd: &Crowd, random: &mut Random) {
    let Some(mut wire) = Wire::connect(crowd.address).await else {
        return;
    };
    let promise = loop {
        let promise = crowd.promise();
        if !promise.body.is_empty() {
            break promise;
        }
    };
    let (head, body) = promise.written("Expect: 100-continue\r\n");
    let _ = wire.stream.write_all(&head).await;
    // Whoever is not told goes on after a while.
    let mut first = [0; 12];
    let _ = tokio::time::timeout(
        Duration::from_millis(200 + random.below(100)),
        wire.stream.peek(&mut first),
    )
    .await;
    exchange(crowd, &mut wire, &promise, &[body], "expecting").await;
}

/// Sends something that was a request once; whatever comes back is well formed.
async fn broken(crowd: &Crowd, random: &mut Random) {
    const ODD: &[u8] = b"\0\r\n\t :,;\"\x7f\xff/0a-";
    let Some(mut wire) = Wire::connect(crowd.address).await else {
        return;
    };
    let mut bytes: Vec<u8> = match random.below(3) {
        0 => b"GET /plain/x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".to_vec(),
        1 => b"POST /shadowed/x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
            .to_vec(),
        _ => b"POST /live/x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nX-Shopper-Id: s1\r\n\r\nhello".to_vec(),
    };
    for _ in 0..=random.below(3) {
        let at = random.below(bytes.len() as u64) as usize;
        let odd = ODD[random.below(ODD.len() as u64) as usize];
        match random.below(4) {
            0 => bytes[at] = odd,
            1 => bytes.insert(at, odd),
            2 => drop(bytes.remove(at)),
            _ => bytes.truncate(at.max(3)),
        }
    }
    let _ = wire.stream.write_all(&bytes).await;
    let _ = wire.stream.shutdown().await;
    let mut rest = Vec::new();
    let read = tokio::time::timeout(PATIENCE, wire.stream.read_to_end(&mut rest)).await;
    let shown = || String::from_utf8_lossy(&bytes).into_owned();
    if read.is_err() {
        crowd.complain(format!("stayed open after {:?}", shown()));
    }
    // A method that became HEAD would have no body; nothing here becomes that.
    if let Err(why) = strict::read_all(&rest, Kind::Answer, true) {
        crowd.complain(format!("{why} for {:?}", shown()));
    }
}
