//! Where clients connect: what the members of a listener mean together.
//!
//! In: the decoded list with places, and the content of files. Out: one [`Listener`] each, problems and warnings.

use crate::engine::ruleset::decode::At;
use crate::engine::ruleset::problem::Problems;

use super::raw::scalar::SocketAddress;
use super::raw::{self, Address, ProxyProtocol};
use super::tls::{self, Files, Tls};

/// Who may connect to a socket file when nothing is said: its owner and its group.
const MODE: u32 = 0o660;

/// One address that clients connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Its address as it is written, and its number among several with the same one.
    pub name: String,
    /// Where.
    pub address: Address,
    /// The permissions of the socket file, if it is one.
    pub mode: u32,
    /// What handshakes need, if it speaks TLS.
    pub tls: Option<Tls>,
    /// Whose connections begin with a header that names the client.
    pub proxy_protocol: ProxyProtocol,
}

impl Listener {
    /// Whether both are the same socket in all that a reload cannot change; certificates it can.
    #[must_use]
    pub fn is_same_socket(&self, other: &Self) -> bool {
        let fixed = |one: &Self| {
            (
                one.address.clone(),
                one.mode,
                one.tls.is_some(),
                one.proxy_protocol.clone(),
            )
        };
        fixed(self) == fixed(other)
    }
}

/// Whether two sockets would get in each other's way, or one the other's connections.
pub(super) fn collide(a: &Address, b: &Address) -> bool {
    match (a, b) {
        (Address::Tcp(a), Address::Tcp(b)) => {
            let same_family = a.is_ipv4() == b.is_ipv4();
            let overlap = a.ip() == b.ip() || (same_family && (a.ip().is_unspecified() || b.ip().is_unspecified()));
            a.port() != 0 && a.port() == b.port() && overlap
        }
        (Address::Unix(a), Address::Unix(b)) => a == b,
        _ => false,
    }
}

/// The addresses, with their places, of listeners that may all be opened.
pub(super) fn addresses(
    written: &At<Vec<At<raw::Listener>>>,
    admin: &At<SocketAddress>,
    problems: &mut Problems,
) -> Vec<At<Address>> {
    if written.value.is_empty() {
        let remedy = "add one, such as `- { address: 127.0.0.1:8080 }`";
        problems.problem(
            written.place.clone(),
            "listeners",
            "nobody can connect without a listener",
            remedy,
        );
    }
    let mut taken: Vec<At<Address>> = Vec::new();
    for (index, listener) in written.value.iter().enumerate() {
        let address = &listener.value.address;
        if let Some(first) = taken.iter().find(|first| collide(first, address)) {
            let what = format!("{} is taken by the listener in line {}", **address, first.place.line);
            problems.problem(
                address.place.clone(),
                format!("listeners[{index}].address"),
                what,
                "choose another port or path",
            );
        }
        taken.push(address.clone());
    }
    let SocketAddress(address) = admin.value;
    if let Some(first) = taken.iter().find(|first| collide(first, &Address::Tcp(address))) {
        let what = format!("{address} is taken by the listener in line {}", first.place.line);
        problems.problem(
            admin.place.clone(),
            "admin.address",
            what,
            "choose another port: clients must not reach it",
        );
    }
    taken
}

/// What each listener is.
pub(super) fn build(written: Vec<At<raw::Listener>>, files: &Files, problems: &mut Problems) -> Vec<Listener> {
    let mut listeners: Vec<Listener> = Vec::new();
    for (index, At { value: written, .. }) in written.into_iter().enumerate() {
        if let Some(mode) = written
            .mode
            .as_ref()
            .filter(|_| matches!(*written.address, Address::Tcp(_)))
        {
            problems.problem(
                mode.place.clone(),
                format!("listeners[{index}].mode"),
                "permissions of a network address",
                "remove them: they belong to a socket file, `address: unix:/PATH`",
            );
        }
        let tls = written
            .tls
            .as_ref()
            .and_then(|tls| tls::build(tls, format!("listeners[{index}].tls"), files, problems));
        let before = listeners
            .iter()
            .filter(|known| known.address == *written.address)
            .count();
        let name = match before {
            0 => written.address.to_string(),
            before => format!("{}#{}", *written.address, before + 1),
        };
        listeners.push(Listener {
            name,
            address: written.address.value,
            mode: written.mode.map_or(MODE, |mode| mode.value.0),
            tls,
            proxy_protocol: written.proxy_protocol,
        });
    }
    listeners
}
