//! Clients: kept-alive connections that ask prepared requests and know how long the answer is.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};

use super::fixture::{ANSWER_BYTES, Ask};
use super::poll::Poll;

/// The token of the clock that sets the pace; connections have smaller ones.
const PACE: usize = usize::MAX >> 1;

/// What came of a stretch of load.
#[derive(Clone, Copy, Debug, Default)]
pub struct Count {
    /// Answers that arrived whole, with status 200.
    pub answered: u64,
    /// Other answers, and connections that broke.
    pub failed: u64,
}

struct Client {
    stream: TcpStream,
    unread: Vec<u8>,
    next: usize,
    asked: Option<Instant>,
}

/// Connections to one address.
pub struct Load {
    poll: Poll,
    address: SocketAddr,
    clients: Vec<Client>,
    idle: VecDeque<usize>,
    requests: Vec<Vec<u8>>,
    input: Vec<u8>,
    // Whether somebody asks again as soon as there is an answer: the connection that has been idle for longest.
    again: bool,
    // Requests under way at most.
    at_once: usize,
    latencies: Option<Vec<u64>>,
    count: Count,
}

impl Load {
    /// Connects; nothing is asked yet.
    pub fn connect(address: SocketAddr, connections: usize, ask: Ask) -> io::Result<Self> {
        let mut load = Self {
            poll: Poll::new()?,
            address,
            clients: Vec::new(),
            idle: VecDeque::new(),
            requests: ask.requests(),
            input: vec![0; 64 * 1_024],
            again: false,
            at_once: usize::MAX,
            latencies: None,
            count: Count::default(),
        };
        for at in 0..connections {
            let stream = open(address)?;
            load.poll.watch(&stream, at)?;
            load.clients.push(Client {
                stream,
                unread: Vec::new(),
                // Apart, so that the connections do not ask for the same shopper at the same time.
                next: at * 31 % load.requests.len(),
                asked: None,
            });
            load.idle.push_back(at);
        }
        Ok(load)
    }

    /// From now on so many requests are under way at most; the connections take turns.
    pub fn limit(&mut self, at_once: usize) {
        self.at_once = at_once;
    }

    /// What came of it so far.
    pub fn count(&self) -> Count {
        self.count
    }

    /// Every connection asks, one after the other answer, until then.
    pub fn closed_until(&mut self, end: Instant) -> io::Result<()> {
        self.again = true;
        while Instant::now() < end {
            // All that may at first, and later those that were broken off.
            for _ in 0..self.idle.len() {
                let under_way = self.clients.len() - self.idle.len();
                if under_way < self.at_once
                    && let Some(at) = self.idle.pop_front()
                {
                    self.ask(at)?;
                }
            }
            self.turn()?;
        }
        Ok(())
    }

    /// Every connection asks, until so many answers have come in all.
    pub fn closed_count(&mut self, answers: u64, limit: Duration) -> io::Result<()> {
        let (begun, before) = (Instant::now(), self.count.answered);
        while self.count.answered - before < answers && begun.elapsed() < limit {
            self.closed_until(Instant::now() + Duration::from_millis(20))?;
        }
        Ok(())
    }

    /// Every connection asks once, so many at a time.
    pub fn once_each(&mut self, at_a_time: usize) -> io::Result<()> {
        for first in (0..self.clients.len()).step_by(at_a_time.max(1)) {
            for _ in first..(first + at_a_time).min(self.clients.len()) {
                if let Some(at) = self.idle.pop_front() {
                    self.ask(at)?;
                }
            }
            self.settle(Duration::from_secs(5))?;
        }
        Ok(())
    }

    /// Asks at this pace, whether answers come or not; how long each took, in nanoseconds. A request for which no
    /// connection was free waits, and its time runs from when it was due.
    pub fn open_until(&mut self, per_second: u64, end: Instant) -> io::Result<Vec<u64>> {
        self.settle(Duration::from_secs(2))?;
        self.latencies = Some(Vec::new());
        let pace = pace(per_second)?;
        self.poll.watch(&pace, PACE)?;
        let mut due: VecDeque<Instant> = VecDeque::new();
        while Instant::now() < end {
            for token in self.poll.wait(10)? {
                if token != PACE {
                    self.read(token)?;
                    continue;
                }
                let mut expired = [0; 8];
                rustix::io::read(&pace, &mut expired)?;
                for _ in 0..u64::from_ne_bytes(expired) {
                    due.push_back(Instant::now());
                }
            }
            while let Some(since) = due.front().copied()
                && let Some(at) = self.idle.pop_front()
            {
                due.pop_front();
                self.ask(at)?;
                self.clients[at].asked = Some(since);
            }
        }
        self.settle(Duration::from_secs(2))?;
        Ok(self.latencies.take().unwrap_or_default())
    }

    /// Asks nothing more, and waits for the answers that are owed.
    pub fn settle(&mut self, limit: Duration) -> io::Result<()> {
        self.again = false;
        let end = Instant::now() + limit;
        while self.idle.len() < self.clients.len() && Instant::now() < end {
            self.turn()?;
        }
        Ok(())
    }

    fn turn(&mut self) -> io::Result<()> {
        for token in self.poll.wait(10)? {
            self.read(token)?;
        }
        Ok(())
    }

    fn ask(&mut self, at: usize) -> io::Result<()> {
        let client = &mut self.clients[at];
        let request = &self.requests[client.next];
        client.next = (client.next + 7) % self.requests.len();
        if self.latencies.is_some() {
            client.asked = Some(Instant::now());
        }
        match client.stream.write(request) {
            Ok(written) if written == request.len() => Ok(()),
            _ => self.broke(at),
        }
    }

    fn read(&mut self, at: usize) -> io::Result<()> {
        let Some(client) = self.clients.get_mut(at) else {
            return Ok(());
        };
        let read = match client.stream.read(&mut self.input) {
            Ok(0) => return self.broke(at),
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(_) => return self.broke(at),
        };
        let mut arrived = &self.input[..read];
        if !client.unread.is_empty() {
            client.unread.extend_from_slice(arrived);
            arrived = &client.unread;
        }
        let Some(served) = whole(arrived) else {
            if client.unread.is_empty() {
                client.unread = arrived.to_vec();
            }
            return Ok(());
        };
        if !client.unread.is_empty() {
            client.unread = Vec::new();
        }
        if !served {
            return self.broke(at);
        }
        self.count.answered += 1;
        if let (Some(latencies), Some(asked)) = (&mut self.latencies, client.asked.take()) {
            latencies.push(u64::try_from(asked.elapsed().as_nanos()).unwrap_or(u64::MAX));
        }
        self.idle.push_back(at);
        match self.idle.pop_front() {
            Some(next) if self.again => self.ask(next),
            Some(next) => {
                self.idle.push_front(next);
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn broke(&mut self, at: usize) -> io::Result<()> {
        self.count.failed += 1;
        let stream = open(self.address)?;
        self.poll.watch(&stream, at)?;
        let client = &mut self.clients[at];
        client.stream = stream;
        client.unread = Vec::new();
        if let (Some(latencies), Some(asked)) = (&mut self.latencies, client.asked.take()) {
            latencies.push(u64::try_from(asked.elapsed().as_nanos()).unwrap_or(u64::MAX));
        }
        self.idle.push_back(at);
        Ok(())
    }
}

fn open(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, Duration::from_secs(3))?;
    stream.set_nonblocking(true)?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn pace(per_second: u64) -> io::Result<OwnedFd> {
    let clock = rustix::time::timerfd_create(
        TimerfdClockId::Monotonic,
        TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK,
    )?;
    let every = Timespec {
        tv_sec: 0,
        tv_nsec: i64::try_from(1_000_000_000 / per_second.max(2)).unwrap_or(500_000_000),
    };
    let timer = Itimerspec {
        it_interval: every,
        it_value: every,
    };
    rustix::time::timerfd_settime(&clock, TimerfdTimerFlags::empty(), &timer)?;
    Ok(clock)
}

/// Whether an answer that is complete has status 200; `None` if it is not complete. Every answer that is served has
/// the same body; whoever gives another is asked no more on that connection.
fn whole(bytes: &[u8]) -> Option<bool> {
    let end = memchr::memmem::find(bytes, b"\r\n\r\n")?;
    if !bytes.starts_with(b"HTTP/1.1 200") {
        return Some(false);
    }
    (bytes.len() >= end + 4 + ANSWER_BYTES).then_some(true)
}
