//! The sockets that an instance listens on: opened for every worker, and their files taken away again.
//!
//! In: the addresses of the configuration, and sockets that are open already. Out: each worker's share. Accepting belongs to `proxy::listen`.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use socket2::{Domain, SockAddr, Socket, Type};

use super::StartError;
use super::handover::Inherited;
use crate::config::{Address, Config};
use crate::live::Live;
use crate::proxy::entrance::Entrance;
use crate::proxy::listen::{self, BACKLOG, Listening, Queue};

/// The name of the operators' listener in a hand-over.
const ADMIN: &str = "admin";

/// That of the SDKs' listener.
const OFREP: &str = "ofrep";

/// Every socket of an instance.
#[derive(Debug)]
pub struct Sockets {
    /// For each listener, in the order of the configuration, one queue for every worker.
    queues: Vec<Vec<Queue>>,
    /// Where clients connect; port 0 has become a port.
    pub addresses: Vec<Address>,
    /// Where operators connect.
    pub admin: TcpListener,
    /// That address; port 0 has become a port.
    pub admin_address: SocketAddr,
    /// Where SDKs connect, if they have a listener of their own, and its address.
    pub ofrep: Option<(TcpListener, SocketAddr)>,
    /// The socket files that are ours.
    pub files: SocketFiles,
    /// Socket files of the process before, which are ours once it has gone.
    pub adopted: Vec<PathBuf>,
    /// What a successor gets, if there may be one.
    pub kept: Vec<(String, Queue)>,
}

impl Sockets {
    /// Opens everything that the configuration names and that is not open already.
    ///
    /// # Errors
    /// [`StartError::Listen`] with the first address that cannot be had, [`StartError::Unclaimed`]; then nothing is open.
    pub fn open(config: &Config, workers: usize, mut inherited: Inherited) -> Result<Self, StartError> {
        let mut queues = Vec::new();
        let mut addresses = Vec::new();
        let mut files = SocketFiles::default();
        let mut adopted = Vec::new();
        let mut kept = Vec::new();
        for listener in &config.listeners {
            let refused = |error| StartError::Listen(listener.address.clone(), error);
            let (mut open, from_before) = inherited.take(&listener.name, &listener.address);
            let is_new = open.is_empty();
            match &listener.address {
                Address::Tcp(address) if is_new => {
                    let sockets = listen::bind(*address, workers).map_err(refused)?;
                    open.extend(sockets.into_iter().map(Queue::Tcp));
                }
                Address::Unix(path) if is_new => {
                    open.push(Queue::Unix(bind_file(path, listener.mode).map_err(refused)?));
                    files.add(path).map_err(refused)?;
                }
                Address::Unix(path) if from_before => adopted.push(path.clone()),
                _ => {}
            }
            addresses.push(match &open[..] {
                [Queue::Tcp(socket), ..] => Address::Tcp(socket.local_addr().map_err(refused)?),
                _ => listener.address.clone(),
            });
            if config.handover.is_some() {
                for queue in &open {
                    kept.push((listener.name.clone(), again(queue).map_err(refused)?));
                }
            }
            queues.push(spread(open, workers).map_err(refused)?);
        }
        let mut single = |name: &str, address: SocketAddr| -> Result<(TcpListener, SocketAddr), StartError> {
            let refused = |error| StartError::Listen(Address::Tcp(address), error);
            let (open, _) = inherited.take(name, &Address::Tcp(address));
            let socket = match open.into_iter().next() {
                Some(Queue::Tcp(socket)) => socket,
                _ => TcpListener::bind(address).map_err(refused)?,
            };
            socket.set_nonblocking(true).map_err(refused)?;
            if config.handover.is_some() {
                kept.push((name.to_owned(), Queue::Tcp(socket.try_clone().map_err(refused)?)));
            }
            let address = socket.local_addr().map_err(refused)?;
            Ok((socket, address))
        };
        let (admin, admin_address) = single(ADMIN, config.admin.address)?;
        let ofrep = config.ofrep.address.map(|address| single(OFREP, address)).transpose()?;
        // Nobody would accept from these, and their clients would wait for ever.
        let unclaimed = inherited.left(true);
        if !unclaimed.is_empty() {
            return Err(StartError::Unclaimed(unclaimed.join(", ")));
        }
        for address in inherited.left(false) {
            tracing::warn!(
                address,
                "a listener of the process before is no longer configured, and closed"
            );
        }
        Ok(Self {
            queues,
            addresses,
            admin,
            admin_address,
            ofrep,
            files,
            adopted,
            kept,
        })
    }

    /// For each worker the queues that it accepts from, and the ways in.
    #[must_use]
    pub fn shares(queues: Vec<Vec<Queue>>, config: &Config, live: &Live, workers: usize) -> Vec<Vec<Listening>> {
        let mut shares: Vec<Vec<Listening>> = (0..workers).map(|_| Vec::new()).collect();
        for (listener, queues) in config.listeners.iter().zip(queues) {
            let entrance = Arc::new(Entrance {
                tls: listener.tls.as_ref().map(|_| live.certificates.cell(&listener.name)),
                proxy_protocol: listener.proxy_protocol.clone(),
            });
            for (at, queue) in queues.into_iter().enumerate() {
                shares[at % workers].push(Listening {
                    queue,
                    entrance: Arc::clone(&entrance),
                });
            }
        }
        shares
    }

    /// Takes the queues out.
    #[must_use]
    pub fn take_queues(&mut self) -> Vec<Vec<Queue>> {
        std::mem::take(&mut self.queues)
    }
}

/// The same queue once more.
fn again(queue: &Queue) -> io::Result<Queue> {
    match queue {
        Queue::Tcp(socket) => socket.try_clone().map(Queue::Tcp),
        Queue::Unix(socket) => socket.try_clone().map(Queue::Unix),
    }
}

/// At least one queue for every worker. A queue that is nobody's would lose its connections, so none is left out; where
/// there are too few, several workers take from the same one.
fn spread(mut open: Vec<Queue>, workers: usize) -> io::Result<Vec<Queue>> {
    for at in 0..workers.saturating_sub(open.len()) {
        let more = again(&open[at])?;
        open.push(more);
    }
    Ok(open)
}

/// Opens a socket file. One that a dead process left behind is replaced; nothing else is.
///
/// # Errors
/// When another process listens there, something else has the name, or the operating system refuses.
pub fn bind_file(path: &Path, mode: u32) -> io::Result<UnixListener> {
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                "something that is no socket has this name",
            ));
        }
        Ok(_) => match UnixStream::connect(path) {
            Ok(_) => {
                return Err(io::Error::new(
                    io::ErrorKind::AddrInUse,
                    "another process listens there",
                ));
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path)?,
            Err(error) => return Err(error),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::unix(path)?)?;
    // Nobody can connect before it listens, so nobody comes in who may not.
    fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// The socket files that are this process's, to be taken away when it ends.
#[derive(Debug, Default)]
pub struct SocketFiles(Vec<SocketFile>);

#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl SocketFiles {
    /// Takes on the file that is there now.
    ///
    /// # Errors
    /// When there is none.
    pub fn add(&mut self, path: &Path) -> io::Result<()> {
        let found = fs::symlink_metadata(path)?;
        self.0.push(SocketFile {
            path: path.to_owned(),
            device: found.dev(),
            inode: found.ino(),
        });
        Ok(())
    }

    /// Leaves the files where they are: they are another process's now.
    pub fn leave(&mut self) {
        self.0.clear();
    }
}

impl Drop for SocketFiles {
    fn drop(&mut self) {
        for file in &self.0 {
            // A file that another process has put in its place since is not ours to take away.
            let ours = fs::symlink_metadata(&file.path)
                .is_ok_and(|found| (found.dev(), found.ino()) == (file.device, file.inode));
            if ours && let Err(error) = fs::remove_file(&file.path) {
                let path = file.path.display();
                tracing::warn!(%path, %error, "the socket file could not be taken away; the next start replaces it");
            }
        }
    }
}
