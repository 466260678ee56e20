//! Clients over HTTP/2: several streams at once on one connection, some of them reset midway, and some left by all.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Instant;

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{Reason, SendStream};
use http::{HeaderMap, Request};
use tokio::net::TcpStream;

use crate::client::{Crowd, PATIENCE};
use crate::promise::{PROOF, Promise};
use crate::random::Random;
use crate::strict::Strict;

/// Of a connection, on both ends. By it the library also measures how many bodies may come byte by byte.
pub const WINDOW: u32 = 4 << 20;

/// What its client does with a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Whole,
    /// Reset when this many bytes of the body are sent.
    CutAfter(usize),
    /// Reset while the answer is waited for or read.
    Left,
}

/// Several requests in any order on one connection.
pub async fn multiplexing(crowd: &Arc<Crowd>, random: &mut Random) {
    let Ok(stream) = TcpStream::connect(crowd.address).await else {
        return;
    };
    let _ = stream.set_nodelay(true);
    let mut builder = h2::client::Builder::new();
    let Ok((sender, connection)) = builder.initial_connection_window_size(WINDOW).handshake(stream).await else {
        return;
    };
    let connection = tokio::spawn(connection);
    let left = Arc::new(AtomicBool::new(false));
    let mut streams = tokio::task::JoinSet::new();
    for _ in 0..2 + random.below(7) {
        let promise = crowd.promise();
        let fate = match random.below(10) {
            0..=1 if !promise.body.is_empty() => Fate::CutAfter(random.below(promise.body.len() as u64) as usize),
            2..=3 => Fate::Left,
            _ => Fate::Whole,
        };
        let one = Stream {
            crowd: Arc::clone(crowd),
            promise,
            fate,
            left: Arc::clone(&left),
            since: Instant::now(),
        };
        streams.spawn(one.run(sender.clone(), Random::new(random.word())));
    }
    drop(sender);
    if random.chance(0.2) {
        tokio::time::sleep(random.wait(30.0)).await;
        left.store(true, Relaxed);
        connection.abort();
    }
    while let Some(done) = streams.join_next().await {
        done.unwrap();
    }
    connection.abort();
}

struct Stream {
    crowd: Arc<Crowd>,
    promise: Promise,
    fate: Fate,
    // Whether the client has left the whole connection.
    left: Arc<AtomicBool>,
    since: Instant,
}

impl Stream {
    async fn run(self, sender: SendRequest<Bytes>, mut random: Random) {
        if matches!(self.fate, Fate::CutAfter(_)) {
            self.crowd.cut.lock().unwrap().push(self.promise.id);
        }
        match tokio::time::timeout(PATIENCE, self.exchange(sender, &mut random)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => self.failed(&error),
            Err(_) => self.complain("nothing came"),
        }
    }

    async fn exchange(&self, sender: SendRequest<Bytes>, random: &mut Random) -> Result<(), h2::Error> {
        let (answer, mut upload) = self.send(sender.ready().await?)?;
        let body = &self.promise.body;
        match self.fate {
            Fate::CutAfter(at) => {
                upload.send_data(Bytes::copy_from_slice(&body[..at]), false)?;
                tokio::time::sleep(random.wait(50.0)).await;
                upload.send_reset(Reason::CANCEL);
                return Ok(());
            }
            Fate::Left => {
                self.upload(&mut upload)?;
                let _ = tokio::time::timeout(random.wait(40.0), answer).await;
                upload.send_reset(Reason::CANCEL);
                return Ok(());
            }
            Fate::Whole => self.upload(&mut upload)?,
        }
        let (head, mut rest) = answer.await?.into_parts();
        let mut read = Vec::new();
        while let Some(data) = rest.data().await.transpose()? {
            rest.flow_control().release_capacity(data.len())?;
            read.extend_from_slice(&data);
            if random.chance(0.05) {
                tokio::time::sleep(random.wait(50.0)).await;
            }
        }
        rest.trailers().await?;
        let answer = Strict {
            start: format!("HTTP/2 {}", head.status.as_u16()),
            headers: lines(&head.headers),
            body: read,
            ..Strict::default()
        };
        self.crowd.judge(&self.promise, &answer, self.since);
        Ok(())
    }

    fn send(&self, mut sender: SendRequest<Bytes>) -> Result<(ResponseFuture, SendStream<Bytes>), h2::Error> {
        let promise = &self.promise;
        let mut request = Request::builder()
            .method(promise.method)
            .uri(format!("http://shop.example{}", promise.target()))
            .header("x-shopper-id", format!("s{}", promise.id % 50))
            .header(PROOF, promise.id);
        if !promise.chunked && matches!(promise.method, "POST" | "PUT") {
            request = request.header("content-length", promise.body.len());
        }
        sender.send_request(request.body(()).unwrap(), promise.body.is_empty())
    }

    fn upload(&self, upload: &mut SendStream<Bytes>) -> Result<(), h2::Error> {
        // Thousands of shorter ones that nobody has taken yet are a flood.
        let parts: Vec<&[u8]> = self
            .promise
            .body
            .chunks(256 + (self.promise.id % 5_000) as usize)
            .collect();
        for (at, part) in parts.iter().enumerate() {
            upload.send_data(Bytes::copy_from_slice(part), at + 1 == parts.len())?;
        }
        Ok(())
    }

    fn failed(&self, error: &h2::Error) {
        // The door speaks HTTP/1.1 to those who are too many, which is no frame.
        if error.reason() == Some(Reason::FRAME_SIZE_ERROR) {
            self.crowd.tally[1].fetch_add(1, Relaxed);
            return;
        }
        self.crowd.tally[2].fetch_add(1, Relaxed);
        let leaves = self.left.load(Relaxed) || self.fate != Fate::Whole;
        if error.is_library() && !leaves {
            self.complain(&format!("a malformed answer: {error}"));
        } else if !leaves && self.crowd.must_succeed(&self.promise, self.since) {
            self.complain(&format!("{error} in calm weather"));
        }
    }

    fn complain(&self, what: &str) {
        let (promise, fate) = (&self.promise, self.fate);
        let told = format!("over HTTP/2, {fate:?} {} {}: {what}", promise.method, promise.target());
        self.crowd.complain(told);
    }
}

/// As a reader of HTTP/1.1 would have them.
pub fn lines(fields: &HeaderMap) -> Vec<(String, Vec<u8>)> {
    let lines = fields.iter();
    lines
        .map(|(name, value)| (name.to_string(), value.as_bytes().to_vec()))
        .collect()
}
