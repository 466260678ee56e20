//! The sockets that an instance listens on: opened for every worker, and their files taken away again.
//!
//! In: the addresses of the configuration. Out: each worker's share. Accepting belongs to `proxy::listen`.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use socket2::{Domain, SockAddr, Socket, Type};

use super::StartError;
use crate::config::{Address, Config, Listener};
use crate::live::Live;
use crate::proxy::entrance::Entrance;
use crate::proxy::listen::{self, BACKLOG, Listening, Queue};

/// Every socket of an instance.
#[derive(Debug)]
pub struct Sockets {
    /// For each worker the sockets that it accepts from.
    pub workers: Vec<Vec<Listening>>,
    /// Where clients connect; port 0 has become a port.
    pub addresses: Vec<Address>,
    /// Where operators connect.
    pub admin: TcpListener,
    /// That address; port 0 has become a port.
    pub admin_address: SocketAddr,
    /// The socket files that were made.
    pub files: SocketFiles,
}

impl Sockets {
    /// Opens everything that the configuration names.
    ///
    /// # Errors
    /// [`StartError::Listen`] with the first address that cannot be had; then nothing is open.
    pub fn open(config: &Config, workers: usize, live: &Live) -> Result<Self, StartError> {
        let mut per_worker: Vec<Vec<Listening>> = (0..workers).map(|_| Vec::new()).collect();
        let mut addresses = Vec::new();
        let mut files = SocketFiles::default();
        for listener in &config.listeners {
            let refused = |error| StartError::Listen(listener.address.clone(), error);
            let entrance = Arc::new(Entrance {
                tls: listener.tls.as_ref().map(|_| live.certificates.cell(&listener.name)),
                proxy_protocol: listener.proxy_protocol.clone(),
            });
            let listening = |queue| Listening {
                queue,
                entrance: Arc::clone(&entrance),
            };
            match &listener.address {
                Address::Tcp(address) => {
                    let sockets = listen::bind(*address, workers).map_err(refused)?;
                    if let Some(first) = sockets.first() {
                        addresses.push(Address::Tcp(first.local_addr().map_err(refused)?));
                    }
                    let shares = per_worker.iter_mut().zip(sockets);
                    shares.for_each(|(share, socket)| share.push(listening(Queue::Tcp(socket))));
                }
                Address::Unix(path) => {
                    let socket = bind_file(path, listener).map_err(refused)?;
                    files.made(path).map_err(refused)?;
                    addresses.push(listener.address.clone());
                    // One file, one queue: every worker takes from it.
                    for share in &mut per_worker {
                        share.push(listening(Queue::Unix(socket.try_clone().map_err(refused)?)));
                    }
                }
            }
        }
        let refused = |error| StartError::Listen(Address::Tcp(config.admin.address), error);
        let admin = TcpListener::bind(config.admin.address).map_err(refused)?;
        admin.set_nonblocking(true).map_err(refused)?;
        let admin_address = admin.local_addr().map_err(refused)?;
        Ok(Self {
            workers: per_worker,
            addresses,
            admin,
            admin_address,
            files,
        })
    }
}

/// Opens a socket file. One that a dead process left behind is replaced; nothing else is.
fn bind_file(path: &Path, listener: &Listener) -> io::Result<UnixListener> {
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
    fs::set_permissions(path, fs::Permissions::from_mode(listener.mode))?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// The socket files that this process made, to be taken away when it ends.
#[derive(Debug, Default)]
pub struct SocketFiles(Vec<SocketFile>);

#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl SocketFiles {
    fn made(&mut self, path: &Path) -> io::Result<()> {
        let found = fs::symlink_metadata(path)?;
        self.0.push(SocketFile {
            path: path.to_owned(),
            device: found.dev(),
            inode: found.ino(),
        });
        Ok(())
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
