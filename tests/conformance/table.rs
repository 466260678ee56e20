//! Runs tables of requests over raw sockets, each handed over in several ways, and tells every deviation at once.
//!
//! However the bytes are cut, and whatever stands before or behind them on the connection, the outcome is the same.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use crate::recorder::Recorder;
use crate::strict::{self, Kind, Strict};
use crate::support::{Instance, Nobody, Plan};

/// Stands in every value that no log line may show.
pub const SECRET: &str = "s3cr3t";

/// What may become of a request.
#[derive(Clone, Copy, Debug)]
pub enum Want {
    /// Answered with one of these and closed; nothing of it leaves.
    Refused(&'static [u16]),
    /// The same, but a part of its body may have left, and is never completed.
    Broken(&'static [u16]),
    /// Refused, or read as one message that is written anew.
    RefusedOrAnew(&'static [u16]),
}

/// One line of a table.
#[derive(Clone, Debug)]
pub struct Case {
    pub name: String,
    pub bytes: Vec<u8>,
    pub want: Want,
}

pub fn case(name: impl Into<String>, bytes: impl Into<Vec<u8>>, want: Want) -> Case {
    Case {
        name: name.into(),
        bytes: bytes.into(),
        want,
    }
}

/// How bytes are handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Delivery {
    Whole,
    /// With another request right behind it, which is nobody's.
    Followed,
    /// Right behind a request that is fine.
    Behind,
    Bytes,
    Split(u64),
}

const DELIVERIES: [Delivery; 6] = [
    Delivery::Whole,
    Delivery::Followed,
    Delivery::Behind,
    Delivery::Bytes,
    Delivery::Split(1),
    Delivery::Split(2),
];

/// Nothing here waits for a limit on time, so whoever is not closed by then stays open.
const PATIENCE: Duration = Duration::from_secs(8);

/// Longer requests are cut at fewer places: it is the places around line ends that matter.
const LONG: usize = 2_000;

const GOOD: &str = "GET /good HTTP/1.1\r\nHost: a\r\n\r\n";
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";

/// What was not as it should be, each with how often or where.
#[derive(Default)]
struct Deviations(BTreeMap<String, Vec<String>>);

impl Deviations {
    fn add(&mut self, what: String, place: impl Into<String>) {
        self.0.entry(what).or_default().push(place.into());
    }

    fn none(&self) {
        let lines = self
            .0
            .iter()
            .map(|(what, places)| format!("{what} ({}x {})", places.len(), places.join(" ").trim()));
        assert!(
            self.0.is_empty(),
            "{} deviations:\n{}",
            self.0.len(),
            lines.collect::<Vec<_>>().join("\n")
        );
    }
}

/// Small numbers from a seed.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 11).unwrap_or(0) % n.max(1)
    }
}

/// An instance before a recording legacy, as its own process, so that its log can be read.
pub struct Rig {
    pub legacy: Recorder,
    pub instance: Instance,
}

impl Rig {
    /// One whose only route goes to legacy, with these further members at the top level.
    pub async fn new(more: &str) -> Self {
        Self::over(|plan| plan.route("flag: false").more(more)).await
    }

    pub async fn over(adjust: impl FnOnce(Plan) -> Plan) -> Self {
        let legacy = Recorder::open().await;
        let instance = Instance::start(&adjust(Plan::new(&legacy, &Nobody::open()))).await;
        Self { legacy, instance }
    }

    /// Refusals counted so far: those that we answered, and those whose bytes broke a rule; a body may do both.
    async fn refusals(&self) -> [f64; 2] {
        let page = self.instance.metrics().await;
        let of = |name: &str| -> f64 {
            let samples = page.lines().filter(|line| line.starts_with(&format!("{name}{{")));
            samples
                .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
                .sum()
        };
        [
            of("understudy_answers_made_total"),
            of("understudy_client_errors_total"),
        ]
    }

    /// Runs a table; fails with all that deviates.
    pub async fn run(&self, cases: Vec<Case>) {
        let at_once = Arc::new(Semaphore::new(32));
        let address = self.instance.address;
        let mut running = Vec::new();
        let counted_before = self.refusals().await;
        for (at, one) in cases.iter().enumerate() {
            let anew = matches!(one.want, Want::RefusedOrAnew(_));
            // What follows a request that was read is one of its own right.
            for delivery in DELIVERIES.into_iter().filter(|d| !anew || *d != Delivery::Followed) {
                let (one, at_once) = (one.clone(), Arc::clone(&at_once));
                running.push(tokio::spawn(async move {
                    let _permit = at_once.acquire().await.unwrap();
                    (at, delivery, deliver(address, &one.bytes, delivery, anew).await)
                }));
            }
        }
        let mut deviations = Deviations::default();
        let mut outcomes: BTreeMap<usize, BTreeSet<String>> = BTreeMap::new();
        let mut refused = 0.0;
        for handle in running {
            let (at, delivery, outcome) = handle.await.unwrap();
            let one = &cases[at];
            match outcome.and_then(|answers| judge(one.want, answers)) {
                Ok(told) => {
                    refused += f64::from(u8::from(told.starts_with("refused")));
                    outcomes.entry(at).or_default().insert(told);
                }
                Err(why) => deviations.add(format!("{:?}: {why}", one.name), format!("{delivery:?}")),
            }
        }
        for (at, told) in outcomes.iter().filter(|(_, told)| told.len() > 1) {
            let name = &cases[*at].name;
            deviations.add(format!("{name:?}: the outcome depends on how it is sent: {told:?}"), "");
        }
        let may_break = cases.iter().any(|c| matches!(c.want, Want::Broken(_)));
        for error in self.legacy.errors() {
            if may_break && error.starts_with("unfinished") {
                continue;
            }
            deviations.add(format!("the backend got: {error}"), "");
        }
        // Only what may leave may have arrived, and never what stood behind something else.
        let leaves = |m: &Strict, c: &Case| {
            let target = m.second().as_bytes();
            !matches!(c.want, Want::Refused(_) | Want::Broken(_))
                && c.bytes.windows(target.len()).any(|bytes| bytes == target)
        };
        for m in self.legacy.messages() {
            if m.second() == "/smuggled" || (m.second() != "/good" && !cases.iter().any(|c| leaves(&m, c))) {
                deviations.add(
                    format!("the backend got {:?} for host {:?}", m.start, m.header("host")),
                    "",
                );
            }
        }
        if deviations.0.is_empty() {
            let now = self.refusals().await;
            let [made, errors] = [now[0] - counted_before[0], now[1] - counted_before[1]];
            // What breaks within a body is both: an answer that we gave, and bytes that broke a rule.
            let fits = made.max(errors) <= refused && refused <= made + errors;
            assert!(
                fits,
                "{refused} refusals, and {made} answers and {errors} errors counted"
            );
        }
        deviations.none();
    }
}

fn judge(want: Want, mut answers: Vec<Strict>) -> Result<String, String> {
    let told = |answers: &[Strict]| -> Vec<String> {
        let all = answers.iter();
        all.map(|a| format!("{} {:?}", a.status(), a.header("x-understudy-error")))
            .collect()
    };
    let refused = |answer: &Strict, statuses: &[u16]| -> Result<String, String> {
        let reason = answer.header("x-understudy-error");
        if !statuses.contains(&answer.status()) {
            return Err(format!("answered {} {reason:?}, not {statuses:?}", answer.status()));
        }
        if reason.is_empty() {
            return Err(format!("{} without a reason", answer.status()));
        }
        if !answer.header("connection").eq_ignore_ascii_case("close") {
            return Err(format!("{} {reason} does not announce the close", answer.status()));
        }
        let body = String::from_utf8_lossy(&answer.body).to_lowercase();
        if ["127.0.0.1", "hyper", "understudy", "rust", SECRET]
            .iter()
            .any(|word| body.contains(word))
        {
            return Err(format!("a body that tells too much: {body}"));
        }
        Ok(format!("refused {} {reason}", answer.status()))
    };
    let Some(last) = answers.pop() else {
        return Err("closed without a word".to_owned());
    };
    if !answers.is_empty() {
        return Err(format!("too many answers: {:?} and {}", told(&answers), last.status()));
    }
    match want {
        Want::Refused(statuses) | Want::Broken(statuses) => refused(&last, statuses),
        Want::RefusedOrAnew(_) if last.status() == 200 => Ok("served".to_owned()),
        Want::RefusedOrAnew(statuses) => refused(&last, statuses),
    }
}

/// What comes back for one request, less what belongs to the good one before it; until the connection ends, or, of a
/// request that may be served, until it is answered.
async fn deliver(address: SocketAddr, bytes: &[u8], delivery: Delivery, anew: bool) -> Result<Vec<Strict>, String> {
    let stream = TcpStream::connect(address).await.map_err(|e| e.to_string())?;
    stream.set_nodelay(true).unwrap();
    let (mut reader, mut writer) = stream.into_split();
    let sent = sent_as(bytes, delivery);
    let writing = async {
        for part in &sent {
            // Whoever refuses early may close while we still write.
            if writer.write_all(part).await.is_err() {
                break;
            }
            if sent.len() > 1 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    };
    let expected = if delivery == Delivery::Behind { 2 } else { 1 };
    let mut got = Vec::new();
    let reading = tokio::time::timeout(PATIENCE, async {
        while reader.read_buf(&mut got).await? > 0 {
            let answered = strict::read_all(&got, Kind::Answer, false).is_ok_and(|(all, _)| all.len() >= expected);
            if anew && answered {
                break;
            }
        }
        Ok::<_, std::io::Error>(())
    });
    let ((), read) = tokio::join!(writing, reading);
    let shown = |got: &[u8]| {
        let text = String::from_utf8_lossy(got);
        text.lines()
            .filter(|line| line.starts_with("HTTP/"))
            .collect::<Vec<_>>()
            .join(", ")
    };
    match read {
        Err(_) => return Err(format!("stayed open after {:?}", shown(&got))),
        Ok(Err(error)) => return Err(format!("{error} after {:?}", shown(&got))),
        Ok(Ok(())) => {}
    }
    let (mut answers, rest) = strict::read_all(&got, Kind::Answer, true)?;
    if !rest.is_empty() {
        return Err(format!("an unfinished answer: {:?}", shown(&rest)));
    }
    if delivery == Delivery::Behind {
        if answers.first().map(Strict::status) != Some(200) {
            return Err(format!("the good request before it was answered {:?}", shown(&got)));
        }
        answers.remove(0);
    }
    Ok(answers)
}

fn sent_as(bytes: &[u8], delivery: Delivery) -> Vec<Vec<u8>> {
    match delivery {
        Delivery::Whole => vec![bytes.to_vec()],
        Delivery::Followed => vec![[bytes, SMUGGLED.as_bytes()].concat()],
        Delivery::Behind => vec![[GOOD.as_bytes(), bytes].concat()],
        Delivery::Bytes if bytes.len() <= LONG => bytes.chunks(1).map(<[u8]>::to_vec).collect(),
        Delivery::Bytes => bytes.chunks(bytes.len() / 64 + 1).map(<[u8]>::to_vec).collect(),
        Delivery::Split(seed) => {
            let mut dice = Dice::new(seed + bytes.len() as u64);
            let mut cuts: Vec<usize> = (0..3).map(|_| dice.below(bytes.len())).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            cuts.dedup();
            cuts.windows(2).map(|two| bytes[two[0]..two[1]].to_vec()).collect()
        }
    }
}
