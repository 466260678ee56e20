//! Listening sockets that were open before this process: from the instance that it replaces, or from systemd.
//!
//! In: descriptors. Out: for each listener of the configuration the sockets that are its own, by its name or its address.

use std::io;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;

use listenfd::ListenFd;
use socket2::Socket;

use crate::config::Address;
use crate::proxy::listen::Queue;

/// Sockets without an owner yet.
#[derive(Debug, Default)]
pub struct Inherited(Vec<Handed>);

#[derive(Debug)]
struct Handed {
    /// The listener that it was in the process before; of systemd's sockets only the address is known.
    name: Option<String>,
    address: Address,
    queue: Queue,
}

impl Inherited {
    /// What systemd, or whoever does as it does, opened for this process (`LISTEN_FDS`). Clears the variables, so that no
    /// child takes them for its own.
    ///
    /// # Errors
    /// When one of the descriptors is no listening socket of a kind that we know.
    pub fn from_environment() -> io::Result<Self> {
        let mut given = ListenFd::from_env();
        let mut all = Self::default();
        for at in 0..given.len() {
            let queue = match given.take_tcp_listener(at) {
                Ok(Some(socket)) => Queue::Tcp(socket),
                Ok(None) => continue,
                Err(_) => match given.take_unix_listener(at)? {
                    Some(socket) => Queue::Unix(socket),
                    None => continue,
                },
            };
            all.add(None, queue)?;
        }
        Ok(all)
    }

    /// Takes on a socket of the process before.
    pub(super) fn take_on(&mut self, name: &str, socket: OwnedFd) -> io::Result<()> {
        let queue = if Socket::from(socket.try_clone()?).local_addr()?.is_unix() {
            Queue::Unix(UnixListener::from(socket))
        } else {
            Queue::Tcp(TcpListener::from(socket))
        };
        self.add(Some(name.to_owned()), queue)
    }

    fn add(&mut self, name: Option<String>, queue: Queue) -> io::Result<()> {
        let address = match &queue {
            Queue::Tcp(socket) => {
                socket.set_nonblocking(true)?;
                Address::Tcp(socket.local_addr()?)
            }
            Queue::Unix(socket) => {
                socket.set_nonblocking(true)?;
                let path = socket.local_addr()?.as_pathname().map(std::path::Path::to_owned);
                Address::Unix(path.unwrap_or_default())
            }
        };
        self.0.push(Handed { name, address, queue });
        Ok(())
    }

    /// The sockets of a listener; none, if it is new. True with them if they came from the process before, whose socket
    /// files are then ours.
    pub(in crate::app) fn take(&mut self, name: &str, address: &Address) -> (Vec<Queue>, bool) {
        let (own, others): (Vec<_>, Vec<_>) = std::mem::take(&mut self.0).into_iter().partition(|handed| match &handed
            .name
        {
            Some(known) => known == name,
            None => same(&handed.address, address),
        });
        self.0 = others;
        let from_before = own.iter().any(|handed| handed.name.is_some());
        (own.into_iter().map(|handed| handed.queue).collect(), from_before)
    }

    /// Where sockets listen that no listener wants, if they are systemd's or not.
    pub(in crate::app) fn left(&self, from_systemd: bool) -> Vec<String> {
        let left = self.0.iter().filter(|handed| handed.name.is_none() == from_systemd);
        left.map(|handed| handed.address.to_string()).collect()
    }
}

// systemd opens `ListenStream=8080` on all addresses of both families.
fn same(open: &Address, named: &Address) -> bool {
    match (open, named) {
        (Address::Tcp(open), Address::Tcp(named)) => {
            let everywhere = open.ip().is_unspecified() && named.ip().is_unspecified();
            open == named || (everywhere && open.port() == named.port())
        }
        (Address::Unix(open), Address::Unix(named)) => {
            open == named || std::path::absolute(named).is_ok_and(|named| *open == named)
        }
        _ => false,
    }
}
