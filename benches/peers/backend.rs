//! The services behind the proxies: one thread, prepared answers, and those ways of failing that a mirror must survive.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use super::fixture;
use super::machine::{self, Core};
use super::poll::Poll;

/// What a service does with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// Answers at once.
    Prompt,
    /// Answers at once, with 8 of 30 members changed.
    Different,
    /// Answers after half a second.
    Slow,
    /// Accepts and reads nothing.
    NeverReads,
    /// Answers at once, and never ends.
    Floods,
}

const SLOW: Duration = Duration::from_millis(500);

/// A service that listens.
#[derive(Debug)]
pub struct Service {
    pub address: SocketAddr,
    /// Requests that have arrived whole.
    pub arrived: Arc<AtomicU64>,
}

/// All services of the bench; they end with it.
#[derive(Debug)]
pub struct Services {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// An address that refuses every connection: bound, so that nobody else takes it, and not listening.
#[derive(Debug)]
pub struct Refusing(Socket);

/// An address whose connections never come about: its queue is full, so the kernel drops whoever knocks.
#[derive(Debug)]
pub struct BlackHole {
    socket: Socket,
    _waiting: Vec<TcpStream>,
}

impl Refusing {
    pub fn new() -> io::Result<Self> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
        Ok(Self(socket))
    }

    pub fn address(&self) -> io::Result<SocketAddr> {
        address(&self.0)
    }
}

impl BlackHole {
    pub fn new() -> io::Result<Self> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
        socket.listen(0)?;
        let address = address(&socket)?;
        // Nobody accepts these, and once they fill the queue nobody else gets in.
        let waiting = (0..4)
            .filter_map(|_| TcpStream::connect_timeout(&address, Duration::from_millis(200)).ok())
            .collect();
        Ok(Self {
            socket,
            _waiting: waiting,
        })
    }

    pub fn address(&self) -> io::Result<SocketAddr> {
        address(&self.socket)
    }
}

fn address(socket: &Socket) -> io::Result<SocketAddr> {
    socket
        .local_addr()?
        .as_socket()
        .ok_or_else(|| ErrorKind::AddrNotAvailable.into())
}

/// Starts one service for each of these manners, all on one thread. `meek`: that thread steps back behind all others, so
/// that a flood does not show as a slow client.
pub fn start(manners: &[Manner], core: Core, meek: bool) -> io::Result<(Services, Vec<Service>)> {
    let mut doors = Vec::new();
    let mut services = Vec::new();
    for manner in manners {
        let listener = listener()?;
        let arrived = Arc::new(AtomicU64::new(0));
        services.push(Service {
            address: listener.local_addr()?,
            arrived: Arc::clone(&arrived),
        });
        doors.push(Door {
            listener,
            manner: *manner,
            arrived,
        });
    }
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let thread = std::thread::spawn(move || {
        machine::pin(core);
        if meek {
            machine::step_back();
        }
        if let Err(error) = Hall::new(doors).and_then(|mut hall| hall.run(&stopped)) {
            eprintln!("the services ended: {error}");
        }
    });
    let thread = Some(thread);
    Ok((Services { stop, thread }, services))
}

fn listener() -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
    socket.listen(4_096)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

impl Drop for Services {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[derive(Debug)]
struct Door {
    listener: TcpListener,
    manner: Manner,
    arrived: Arc<AtomicU64>,
}

#[derive(Debug)]
struct Guest {
    stream: TcpStream,
    door: usize,
    unread: Vec<u8>,
    flooding: bool,
}

struct Hall {
    poll: Poll,
    doors: Vec<Door>,
    guests: Vec<Option<Guest>>,
    free: Vec<usize>,
    late: VecDeque<(Instant, usize)>,
    prompt: Vec<u8>,
    different: Vec<u8>,
    endless: Vec<u8>,
    chunk: Vec<u8>,
}

impl Hall {
    fn new(doors: Vec<Door>) -> io::Result<Self> {
        let poll = Poll::new()?;
        for (token, door) in doors.iter().enumerate() {
            poll.watch(&door.listener, token)?;
        }
        Ok(Self {
            poll,
            doors,
            guests: Vec::new(),
            free: Vec::new(),
            late: VecDeque::new(),
            prompt: fixture::answer(false),
            different: fixture::answer(true),
            endless: fixture::endless_answer(),
            chunk: vec![b' '; 64 * 1_024],
        })
    }

    fn run(&mut self, stop: &AtomicBool) -> io::Result<()> {
        let mut input = vec![0; 64 * 1_024];
        while !stop.load(Relaxed) {
            let timeout = if self.late.is_empty() { 100 } else { 2 };
            for token in self.poll.wait(timeout)? {
                match token.checked_sub(self.doors.len()) {
                    None => self.accept(token)?,
                    Some(guest) => {
                        if !self.serve(guest, &mut input) {
                            self.guests[guest] = None;
                            self.free.push(guest);
                        }
                    }
                }
            }
            while self.late.front().is_some_and(|(due, _)| *due <= Instant::now()) {
                if let Some((_, guest)) = self.late.pop_front()
                    && let Some(Some(guest)) = self.guests.get_mut(guest)
                {
                    // Who has gone meanwhile is noticed by reading.
                    let _ = guest.stream.write(&self.prompt);
                }
            }
        }
        Ok(())
    }

    fn accept(&mut self, door: usize) -> io::Result<()> {
        while let Ok((stream, _)) = self.doors[door].listener.accept() {
            stream.set_nonblocking(true)?;
            stream.set_nodelay(true)?;
            let at = self.free.pop().unwrap_or_else(|| {
                self.guests.push(None);
                self.guests.len() - 1
            });
            if self.doors[door].manner != Manner::NeverReads {
                self.poll.watch(&stream, self.doors.len() + at)?;
            }
            self.guests[at] = Some(Guest {
                stream,
                door,
                unread: Vec::new(),
                flooding: false,
            });
        }
        Ok(())
    }

    /// Whether the guest stays.
    fn serve(&mut self, at: usize, input: &mut [u8]) -> bool {
        let Some(Some(guest)) = self.guests.get_mut(at) else {
            return true;
        };
        if guest.flooding {
            return flood(&mut guest.stream, &self.chunk);
        }
        let read = match guest.stream.read(input) {
            Ok(0) => return false,
            Ok(read) => read,
            Err(error) => return error.kind() == ErrorKind::WouldBlock,
        };
        let door = &self.doors[guest.door];
        let mut arrived = &input[..read];
        if !guest.unread.is_empty() {
            guest.unread.extend_from_slice(arrived);
            arrived = &guest.unread;
        }
        // No proxy pipelines, so there is never more than one request.
        if !is_whole(arrived) {
            if guest.unread.is_empty() {
                guest.unread = arrived.to_vec();
            }
            return true;
        }
        guest.unread = Vec::new();
        door.arrived.fetch_add(1, Relaxed);
        let written = match door.manner {
            Manner::Prompt => guest.stream.write(&self.prompt),
            Manner::Different => guest.stream.write(&self.different),
            Manner::Slow => {
                self.late.push_back((Instant::now() + SLOW, at));
                return true;
            }
            Manner::NeverReads => return true,
            Manner::Floods => {
                guest.flooding = true;
                if self.poll.watch_writes(&guest.stream, self.doors.len() + at).is_err() {
                    return false;
                }
                guest.stream.write(&self.endless)
            }
        };
        written.is_ok()
    }
}

fn flood(stream: &mut TcpStream, chunk: &[u8]) -> bool {
    match stream.write_all(chunk) {
        Ok(()) => true,
        // How much of it went out does not matter: there is always more.
        Err(error) => error.kind() == ErrorKind::WouldBlock,
    }
}

/// Whether a request is complete: its header section, and as much body as it says. Proxies write this header in lower
/// or in title case and put nothing but one blank before the number.
fn is_whole(bytes: &[u8]) -> bool {
    let Some(end) = memchr::memmem::find(bytes, b"\r\n\r\n") else {
        return false;
    };
    let body = bytes[..end + 2]
        .split(|b| *b == b'\n')
        .find(|line| line.len() > 16 && line[..16].eq_ignore_ascii_case(b"content-length: "))
        .and_then(|line| std::str::from_utf8(&line[16..]).ok()?.trim().parse::<usize>().ok())
        .unwrap_or(0);
    bytes.len() >= end + 4 + body
}
