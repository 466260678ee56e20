//! The PROXY protocol, versions 1 and 2: who a load balancer in front of us says the client is.
//!
//! In: a stream whose first bytes are a header. Out: the addresses that it tells, and the stream at the first byte after
//! it. Only the header's own bytes are taken: what is behind it stays with the operating system, for the TLS handshake or
//! HTTP. How long one may take, and who is believed, belong to `entrance`.

use std::net::{IpAddr, SocketAddr};

use ppp::{v1, v2};

use super::socket::Stream;

/// The longest header of version 1, by its specification.
const TEXT_BYTES: usize = 107;

/// The longest header of version 2 that is taken: the addresses and some two thousand bytes of whatever comes with them.
const BINARY_BYTES: usize = 2_048;

/// What all headers of version 2 have before their length is known.
const BINARY_FIXED_BYTES: usize = 16;

const TEXT_PREFIX: &[u8] = b"PROXY ";

/// What a header tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// Nothing: the load balancer asks for itself, or does not know. The connection's own addresses hold.
    Nothing,
    /// The client's address, and the one that it connected to.
    Addresses(SocketAddr, SocketAddr),
}

/// Why there is no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoHeader {
    /// The other side closed before it was complete, or before it began.
    Closed,
    /// The bytes are none: the offset of the first that cannot be.
    Malformed(usize),
}

/// What bytes are that may be the beginning of a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// A whole header of this many bytes.
    Header(usize, Told),
    /// More is needed to tell.
    More,
    /// No header, and more would not make it one.
    Not,
}

/// Takes the header off a stream.
///
/// # Errors
/// [`NoHeader`]; then the connection is of no use.
pub async fn take(stream: &mut Stream) -> Result<Told, NoHeader> {
    let mut bytes = [0; BINARY_BYTES];
    let mut taken = 0;
    loop {
        let arrived = stream.peek(&mut bytes[taken..]).await.map_err(|_| NoHeader::Closed)?;
        if arrived == 0 {
            return Err(NoHeader::Closed);
        }
        let (rest, told) = match look(&bytes[..taken + arrived]) {
            Look::Header(length, told) => (length - taken, Some(told)),
            Look::More if taken + arrived < BINARY_BYTES => (arrived, None),
            Look::More | Look::Not => return Err(NoHeader::Malformed(taken)),
        };
        let own = &mut bytes[taken..taken + rest];
        stream.take_exactly(own).await.map_err(|_| NoHeader::Closed)?;
        taken += rest;
        if let Some(told) = told {
            return Ok(told);
        }
    }
}

/// What the first bytes of a connection are.
#[must_use]
pub fn look(bytes: &[u8]) -> Look {
    let signature = &bytes[..bytes.len().min(v2::PROTOCOL_PREFIX.len())];
    if v2::PROTOCOL_PREFIX.starts_with(signature) {
        return look_binary(bytes);
    }
    let prefix = &bytes[..bytes.len().min(TEXT_PREFIX.len())];
    if TEXT_PREFIX.starts_with(prefix) {
        return look_text(bytes);
    }
    Look::Not
}

fn look_text(bytes: &[u8]) -> Look {
    let line = &bytes[..bytes.len().min(TEXT_BYTES)];
    let Some(end) = line.windows(2).position(|pair| pair == b"\r\n") else {
        return if bytes.len() < TEXT_BYTES {
            Look::More
        } else {
            Look::Not
        };
    };
    let line = &line[..end + 2];
    let told = match v1::Header::try_from(line).map(|header| header.addresses) {
        Ok(v1::Addresses::Unknown) => Told::Nothing,
        Ok(v1::Addresses::Tcp4(ip)) => addresses(
            (ip.source_address.into(), ip.source_port),
            (ip.destination_address.into(), ip.destination_port),
        ),
        Ok(v1::Addresses::Tcp6(ip)) => addresses(
            (ip.source_address.into(), ip.source_port),
            (ip.destination_address.into(), ip.destination_port),
        ),
        Err(_) => return Look::Not,
    };
    Look::Header(line.len(), told)
}

fn look_binary(bytes: &[u8]) -> Look {
    let Some(fixed) = bytes.get(..BINARY_FIXED_BYTES) else {
        return Look::More;
    };
    let length = BINARY_FIXED_BYTES + usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
    if length > BINARY_BYTES {
        return Look::Not;
    }
    let Some(header) = bytes.get(..length) else {
        return Look::More;
    };
    let Ok(header) = v2::Header::try_from(header) else {
        return Look::Not;
    };
    let told = match (header.command, header.protocol, header.addresses) {
        // Asked by the load balancer itself, or about something that has no address of the network.
        (v2::Command::Local, ..) | (_, _, v2::Addresses::Unspecified | v2::Addresses::Unix(_)) => Told::Nothing,
        (_, v2::Protocol::Datagram, _) => return Look::Not,
        (_, _, v2::Addresses::IPv4(ip)) => addresses(
            (ip.source_address.into(), ip.source_port),
            (ip.destination_address.into(), ip.destination_port),
        ),
        (_, _, v2::Addresses::IPv6(ip)) => addresses(
            (ip.source_address.into(), ip.source_port),
            (ip.destination_address.into(), ip.destination_port),
        ),
    };
    Look::Header(length, told)
}

fn addresses(source: (IpAddr, u16), destination: (IpAddr, u16)) -> Told {
    Told::Addresses(source.into(), destination.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn binary(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let mut bytes = v2::PROTOCOL_PREFIX.to_vec();
        bytes.extend([command, family]);
        bytes.extend(u16::try_from(rest.len()).unwrap().to_be_bytes());
        bytes.extend(rest);
        bytes
    }

    const V4: [u8; 12] = [192, 0, 2, 1, 198, 51, 100, 1, 0x30, 0x39, 1, 187];

    fn told(source: &str, destination: &str) -> Told {
        Told::Addresses(source.parse().unwrap(), destination.parse().unwrap())
    }

    #[test]
    fn both_versions_tell_both_addresses() {
        let text = b"PROXY TCP4 192.0.2.1 198.51.100.1 12345 443\r\n";
        let expected = told("192.0.2.1:12345", "198.51.100.1:443");
        assert_eq!(look(text), Look::Header(text.len(), expected));
        let text6 = b"PROXY TCP6 2001:db8::1 2001:db8::2 1 2\r\nGET /";
        assert_eq!(
            look(text6),
            Look::Header(text6.len() - 5, told("[2001:db8::1]:1", "[2001:db8::2]:2"))
        );
        let header = binary(0x21, 0x11, &V4);
        assert_eq!(look(&header), Look::Header(28, expected));
        // What a load balancer adds to the addresses is passed over.
        let more = [&V4[..], &[0x04, 0, 3, 1, 2, 3]].concat();
        let mut header = binary(0x21, 0x11, &more);
        header.extend(b"GET /");
        assert_eq!(look(&header), Look::Header(34, expected));
    }

    #[test]
    fn who_asks_for_itself_or_does_not_know_tells_nothing() {
        for (bytes, length) in [
            (b"PROXY UNKNOWN\r\n".to_vec(), 15),
            (b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n".to_vec(), 35),
            (binary(0x20, 0x11, &V4), 28),
            (binary(0x20, 0x00, &[]), 16),
            (binary(0x21, 0x00, &[]), 16),
            (binary(0x21, 0x31, &[b'a'; 216]), 232),
        ] {
            assert_eq!(look(&bytes), Look::Header(length, Told::Nothing), "{bytes:?}");
        }
    }

    #[test]
    fn what_is_no_header_is_told_as_soon_as_it_can_be() {
        let long = [b"PROXY UNKNOWN ".to_vec(), vec![b'x'; 120]].concat();
        for bytes in [
            b"GET / HTTP/1.1\r\n".to_vec(),
            b"PROXY\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.1 198.51.100.1 99999 443\r\n".to_vec(),
            b"PROXY TCP4 2001:db8::1 198.51.100.1 1 443\r\n".to_vec(),
            b"PROXY UDP4 192.0.2.1 198.51.100.1 1 443\r\n".to_vec(),
            long,
            binary(0x11, 0x11, &V4),
            binary(0x22, 0x11, &V4),
            binary(0x21, 0x12, &V4),
            binary(0x21, 0x11, &V4[..8]),
            binary(0x21, 0x11, &[0; 2_040]),
            vec![22, 3, 1],
        ] {
            assert_eq!(look(&bytes), Look::Not, "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn any_beginning_asks_for_more_and_the_whole_is_enough(cut in 0_usize..44, version in 0..2) {
            let whole = if version == 0 {
                b"PROXY TCP4 192.0.2.1 198.51.100.1 12345 443\r\n".to_vec()
            } else {
                binary(0x21, 0x11, &V4)
            };
            let cut = cut % whole.len();
            prop_assert_eq!(look(&whole[..cut]), Look::More);
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), kind in 0..3) {
            let start = [&b""[..], TEXT_PREFIX, v2::PROTOCOL_PREFIX][kind as usize];
            let bytes = [start, &bytes].concat();
            if let Look::Header(length, _) = look(&bytes) {
                prop_assert!(length <= bytes.len());
            }
        }
    }
}
