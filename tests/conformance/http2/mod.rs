//! Points 3 to 8 and 10 to 13 for clients over HTTP/2: what is malformed ends its stream and nothing else, and whoever
//! keeps us busy with nothing is sent away.
//!
//! Frames are written byte for byte. A case stands between two good requests on its connection, and is sent whole, byte by
//! byte and cut at random places.

mod clients;
mod fields;
mod floods;
mod limits;
mod requests;
mod wire;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::support::eventually;
use crate::table::{Dice, Rig, SECRET};
use wire::{DATA, END_HEADERS, END_STREAM, Field, Frame, Frames, GET, GOAWAY, HEADERS, RST_STREAM, block, frame};

/// The stream of a case; the good requests before and behind it have the streams beside.
const STREAM: u32 = 3;

const PROTOCOL_ERROR: u32 = 1;
const CLIENT_ERRORS: &str = "understudy_client_errors_total";

/// What may become of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Want {
    /// Reset with PROTOCOL_ERROR; nothing of it leaves.
    Reset,
    /// The same, but a part of its body may have left, and is never completed.
    Cut,
    /// Answered with this status; nothing of it leaves.
    Refused(u16),
    /// The same, but a part of its body may have left, and is never completed.
    Broken(u16),
    /// The library cannot go on after it: the connection ends, with this code, and cuts what is under way on it.
    Ended(u32),
}

struct Case {
    name: String,
    // Frames of STREAM.
    bytes: Vec<u8>,
    want: Want,
    // As it is counted.
    reason: &'static str,
}

/// A block that begins a stream which ends with it.
fn asking(fields: &[Field<'_>]) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, STREAM, &block(fields))
}

/// A block that begins a stream, and what follows on it.
fn uploading(fields: &[Field<'_>], rest: &[Vec<u8>]) -> Vec<u8> {
    let head = frame(HEADERS, END_HEADERS, STREAM, &block(fields));
    [head, rest.concat()].concat()
}

fn data(flags: u8, bytes: &[u8]) -> Vec<u8> {
    frame(DATA, flags, STREAM, bytes)
}

fn good(stream: u32) -> Vec<u8> {
    let mut fields = GET;
    fields[3].1 = b"/good";
    frame(HEADERS, END_HEADERS | END_STREAM, stream, &block(&fields))
}

/// The status of the first answer on a connection, as the library encodes it (RFC 7541 appendices A and B).
fn status(head: &Frame) -> u16 {
    match head.payload[..] {
        [indexed @ 0x88..=0x8e, ..] => [200, 204, 206, 304, 400, 404, 500][usize::from(indexed - 0x88)],
        // A name of the table, and three digits of five or six bits each.
        [0x08 | 0x48, 0x82 | 0x83, a, b, c, ..] => {
            let mut bits = u32::from_be_bytes([a, b, c, 0]);
            let mut digit = || {
                let five = bits >> 27;
                let (digit, len) = if five < 3 {
                    (five, 5)
                } else {
                    ((bits >> 26) - 0x19 + 3, 6)
                };
                bits <<= len;
                u16::try_from(digit).unwrap()
            };
            digit() * 100 + digit() * 10 + digit()
        }
        _ => panic!("no status: {head:?}"),
    }
}

#[derive(Clone, Copy, Debug)]
enum Delivery {
    /// Each request when the one before it is answered.
    InTurn,
    /// All three in one piece.
    Whole,
    Bytes,
    Split(u64),
}

const DELIVERIES: [Delivery; 5] = [
    Delivery::InTurn,
    Delivery::Whole,
    Delivery::Bytes,
    Delivery::Split(1),
    Delivery::Split(2),
];

/// Longer cases are cut at fewer places.
const LONG: usize = 2_000;

fn pieces(bytes: &[u8], delivery: Delivery) -> Vec<Vec<u8>> {
    match delivery {
        Delivery::InTurn | Delivery::Whole => vec![bytes.to_vec()],
        Delivery::Bytes => bytes.chunks(1 + bytes.len() / LONG * 64).map(<[u8]>::to_vec).collect(),
        Delivery::Split(seed) => {
            let mut dice = Dice::new(seed + bytes.len() as u64);
            let mut cuts: Vec<usize> = (0..4).map(|_| dice.below(bytes.len())).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            cuts.dedup();
            cuts.windows(2).map(|two| bytes[two[0]..two[1]].to_vec()).collect()
        }
    }
}

async fn send(client: &mut Frames, bytes: &[u8], delivery: Delivery) {
    for piece in pieces(bytes, delivery) {
        // Whoever is sent away need not read on.
        if !client.socket.try_send(piece).await {
            break;
        }
        tokio::task::yield_now().await;
    }
}

/// What became of the three streams.
#[derive(Debug, Default)]
struct Outcome {
    answers: BTreeMap<u32, u16>,
    resets: BTreeMap<u32, u32>,
    ended: Option<u32>,
}

impl Outcome {
    fn is_settled(&self, streams: &[u32]) -> bool {
        let settled = |stream: &u32| self.answers.contains_key(stream) || self.resets.contains_key(stream);
        streams.iter().all(settled)
    }

    async fn read(&mut self, client: &mut Frames, streams: &[u32]) {
        while self.ended.is_none() && !self.is_settled(streams) {
            let Some(next) = client.next().await else {
                self.ended.get_or_insert(u32::MAX);
                return;
            };
            match next.kind {
                HEADERS => drop(self.answers.insert(next.stream, status(&next))),
                RST_STREAM => drop(self.resets.insert(next.stream, next.code())),
                GOAWAY => self.ended = Some(next.code()),
                _ => {}
            }
        }
    }

    fn judge(&self, want: Want) -> Result<(), String> {
        let as_wanted = match want {
            Want::Reset | Want::Cut => {
                self.resets.get(&STREAM) == Some(&PROTOCOL_ERROR) && !self.answers.contains_key(&STREAM)
            }
            Want::Refused(status) | Want::Broken(status) => self.answers.get(&STREAM) == Some(&status),
            Want::Ended(code) => return self.has_ended(code),
        };
        let others = [STREAM - 2, STREAM + 2].map(|stream| self.answers.get(&stream) == Some(&200));
        match (as_wanted, others, self.ended) {
            (true, [true, true], None) => Ok(()),
            _ => Err(format!("{self:?}")),
        }
    }

    fn has_ended(&self, code: u32) -> Result<(), String> {
        match (self.ended, self.answers.contains_key(&STREAM)) {
            (Some(ended), false) if ended == code => Ok(()),
            _ => Err(format!("{self:?}")),
        }
    }
}

async fn deliver(address: SocketAddr, bytes: &[u8], delivery: Delivery) -> Outcome {
    let mut client = Frames::connect(address).await;
    let mut outcome = Outcome::default();
    if matches!(delivery, Delivery::InTurn) {
        for (bytes, stream) in [
            (&*good(STREAM - 2), STREAM - 2),
            (bytes, STREAM),
            (&good(STREAM + 2), STREAM + 2),
        ] {
            send(&mut client, bytes, delivery).await;
            outcome.read(&mut client, &[stream]).await;
        }
    } else {
        let all = [&good(STREAM - 2), bytes, &good(STREAM + 2)].concat();
        send(&mut client, &all, delivery).await;
        outcome.read(&mut client, &[STREAM - 2, STREAM, STREAM + 2]).await;
    }
    outcome
}

/// Runs a table; fails with all that deviates.
async fn run(rig: &Rig, cases: Vec<Case>) {
    let mut before = BTreeMap::new();
    for case in &cases {
        before.insert(case.reason, counted(rig, case.reason).await);
    }
    let at_once = Arc::new(Semaphore::new(16));
    let address = rig.instance.address;
    let mut running = Vec::new();
    for (at, case) in cases.iter().enumerate() {
        for delivery in DELIVERIES {
            let (bytes, at_once) = (case.bytes.clone(), Arc::clone(&at_once));
            running.push(tokio::spawn(async move {
                let _permit = at_once.acquire().await.unwrap();
                (at, delivery, deliver(address, &bytes, delivery).await)
            }));
        }
    }
    let mut wrong = Vec::new();
    for handle in running {
        let (at, delivery, outcome) = handle.await.unwrap();
        if let Err(why) = outcome.judge(cases[at].want) {
            wrong.push(format!(
                "{} sent {delivery:?}: not {:?} but {why}",
                cases[at].name, cases[at].want
            ));
        }
    }
    let may_break = cases
        .iter()
        .any(|case| matches!(case.want, Want::Cut | Want::Broken(_) | Want::Ended(_)));
    let errors = rig.legacy.errors();
    wrong.extend(
        errors
            .into_iter()
            .filter(|e| !may_break || !e.starts_with("unfinished")),
    );
    let messages = rig.legacy.messages();
    wrong.extend(
        messages
            .iter()
            .filter(|m| m.second() != "/good")
            .map(|m| format!("the backend got {m:?}")),
    );
    assert!(wrong.is_empty(), "{} deviations:\n{}", wrong.len(), wrong.join("\n"));
    for (reason, before) in before {
        #[allow(clippy::cast_precision_loss, reason = "a handful of cases")]
        let expected = (cases.iter().filter(|case| case.reason == reason).count() * DELIVERIES.len()) as f64;
        eventually(&format!("{reason} to be counted"), || async {
            counted(rig, reason).await >= before + expected
        })
        .await;
        let more = counted(rig, reason).await - before;
        assert!(more <= expected, "{reason}: {more} counted of {expected}");
    }
    let log = rig.instance.stderr();
    assert!(!log.contains(SECRET), "a value was logged:\n{log}");
}

/// How often this was refused, whether we said so on the stream or the library did.
async fn counted(rig: &Rig, reason: &str) -> f64 {
    let label = format!("\"{reason}\"");
    rig.instance.metric(CLIENT_ERRORS, &[&label]).await
        + rig.instance.metric("understudy_answers_made_total", &[&label]).await
}
