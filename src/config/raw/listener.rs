//! A listener as written: where clients connect, and how.
//!
//! Pure. What members mean together is checked by `listeners`.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use ipnet::IpNet;

use crate::engine::ruleset::decode::{At, Decode, Decoder, Misfit, Scalar, Shape, record, words};
use crate::engine::ruleset::yaml::{Node, Value};

use super::scalar::{FilePath, Network};

record! {
    /// One address that clients connect to.
    pub struct Listener {
        /// IP and port, or `unix:` and the path of a socket file; port 0 takes a free one. Relative paths count from the
        /// working directory.
        address: At<Address>,
        /// Who may connect to a socket file: its permissions in octal digits.
        mode: Option<At<Mode>>,
        /// Speaks TLS 1.2 and 1.3 and nothing else. The files are read again with every reload, and whenever they change.
        tls: Option<ListenerTls>,
        /// Whether connections begin with a header of the PROXY protocol, version 1 or 2, that names the client: `true`
        /// for all of them, or the networks of those load balancers that send one, which then have to. Others are
        /// served as who they are. TLS comes behind it.
        proxy_protocol: ProxyProtocol = "false",
    }
}

record! {
    /// TLS towards clients.
    pub struct ListenerTls {
        /// The certificate in PEM, its issuers after it. Relative paths count from the working directory.
        cert: At<FilePath>,
        /// Its private key in PEM.
        key: At<FilePath>,
        /// Further pairs for further names. The name that a client asks for chooses, a written one before a wildcard; who
        /// asks for another name or for none gets the pair above.
        certificates: Vec<CertificatePair> = "[]",
        /// Authorities in PEM. Then a client needs a certificate that one of them has signed.
        client_ca: Option<At<FilePath>>,
        /// The oldest version that is spoken.
        min_version: TlsVersion = "1.2",
    }
}

record! {
    /// A certificate and its key.
    pub struct CertificatePair {
        /// The certificate in PEM, its issuers after it.
        cert: At<FilePath>,
        /// Its private key in PEM.
        key: At<FilePath>,
    }
}

words! {
    /// A version of TLS.
    pub enum TlsVersion {
        /// TLS 1.2 and 1.3.
        Two = "1.2",
        /// TLS 1.3 alone.
        Three = "1.3",
    }
}

record! {
    /// How another process takes this one's place without losing a connection.
    pub struct Handover {
        /// Where a running instance waits for the one that is started to replace it. Only the same user may ask there.
        /// Without it an upgrade is a restart, or systemd keeps the sockets. Relative paths count from the working
        /// directory.
        socket: Option<SocketPath>,
    }
}

/// The path of a socket file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketPath(pub PathBuf);

impl Scalar for SocketPath {
    const NAME: &'static str = "path";
    const KIND: &'static str = "the path of a socket file";
    const REMEDY: &'static str = "write an absolute path, or one from the working directory";

    fn read(text: &str) -> Result<Self, Misfit> {
        if text.is_empty() || text.contains('\0') {
            return Err(Misfit::Kind);
        }
        if text.len() > PATH_BYTES {
            return Err(Misfit::range(
                format!("the path of a socket file has {} bytes", text.len()),
                format!("the operating system takes at most {PATH_BYTES}: choose a shorter one"),
            ));
        }
        Ok(Self(PathBuf::from(text)))
    }
}

/// Whose connections begin with a header of the PROXY protocol.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ProxyProtocol {
    /// Nobody's.
    #[default]
    Off,
    /// Everybody's; a connection without one is refused.
    Everybody,
    /// Those from these networks, and from a socket file.
    Only(Vec<IpNet>),
}

impl Decode for ProxyProtocol {
    fn decode(node: &Node<'_>, decoder: &mut Decoder<'_>) -> Option<Self> {
        if matches!(node.value, Value::Sequence(_)) {
            let networks = Vec::<Network>::decode(node, decoder)?;
            if networks.is_empty() {
                return decoder.refuse(node.mark, "an empty list is nobody", "write false, or name a network");
            }
            return Some(Self::Only(
                networks.into_iter().map(|Network(network)| network).collect(),
            ));
        }
        match bool::decode(node, decoder)? {
            true => Some(Self::Everybody),
            false => Some(Self::Off),
        }
    }

    fn shape() -> Shape {
        Shape::Union(vec![bool::shape(), Vec::<Network>::shape()])
    }
}

/// The longest path that the operating system takes for a socket file, in bytes.
const PATH_BYTES: usize = 107;

/// An address to listen on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// At an address of the network.
    Tcp(SocketAddr),
    /// At a socket file, for clients of the same machine.
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl Scalar for Address {
    const NAME: &'static str = "address";
    const KIND: &'static str = "an address to listen on";
    const REMEDY: &'static str =
        "write IP:PORT, such as 127.0.0.1:8080, 0.0.0.0:8080 or [::]:8080, or unix:/PATH for a socket file";

    fn read(text: &str) -> Result<Self, Misfit> {
        let Some(path) = text.strip_prefix("unix:") else {
            return text.parse().map(Self::Tcp).map_err(|_| Misfit::Kind);
        };
        let SocketPath(path) = SocketPath::read(path)?;
        Ok(Self::Unix(path))
    }
}

/// The permissions of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mode(pub u32);

impl Scalar for Mode {
    const NAME: &'static str = "octal digits";
    const KIND: &'static str = "permissions in octal digits";
    const REMEDY: &'static str = "write three digits, such as 660 for the owner and the group";

    fn read(text: &str) -> Result<Self, Misfit> {
        let digits = text.strip_prefix("0o").or(text.strip_prefix('0')).unwrap_or(text);
        if digits.len() != 3 {
            return Err(Misfit::Kind);
        }
        u32::from_str_radix(digits, 8).map(Self).map_err(|_| Misfit::Kind)
    }
}
