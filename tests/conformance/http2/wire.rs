//! Frames as they stand on the wire, and a client that writes each of them itself.

use std::net::SocketAddr;

use crate::support::Socket;

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;

/// A frame as it stands on the wire.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A block of fields, each written out.
pub fn block(fields: &[Field<'_>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let text = |bytes: &mut Vec<u8>, text: &[u8]| {
        // A number with a prefix of seven bits (RFC 7541 section 5.1).
        let mut rest = text.len();
        if rest < 127 {
            bytes.push(u8::try_from(rest).unwrap());
        } else {
            bytes.push(127);
            rest -= 127;
            while rest >= 128 {
                bytes.push(u8::try_from(rest % 128).unwrap() | 128);
                rest /= 128;
            }
            bytes.push(u8::try_from(rest).unwrap());
        }
        bytes.extend_from_slice(text);
    };
    for (name, value) in fields {
        bytes.push(0);
        text(&mut bytes, name.as_bytes());
        text(&mut bytes, value);
    }
    bytes
}

/// A name and a value.
pub type Field<'a> = (&'a str, &'a [u8]);

/// The fields of a GET that nobody could object to.
pub const GET: [Field<'static>; 4] = [
    (":method", b"GET"),
    (":scheme", b"http"),
    (":authority", b"a"),
    (":path", b"/"),
];

/// The same of a POST.
pub const POST: [Field<'static>; 4] = [
    (":method", b"POST"),
    (":scheme", b"http"),
    (":authority", b"a"),
    (":path", b"/"),
];

/// A frame that came.
#[derive(Clone, Debug)]
pub struct Frame {
    pub kind: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl Frame {
    /// The code of a reset or a farewell.
    pub fn code(&self) -> u32 {
        let at = if self.kind == GOAWAY { 4 } else { 0 };
        u32::from_be_bytes(self.payload[at..at + 4].try_into().unwrap())
    }
}

/// A connection whose every frame the test writes.
pub struct Frames {
    pub socket: Socket,
}

impl Frames {
    pub async fn connect(address: SocketAddr) -> Self {
        let mut socket = Socket::connect(address).await;
        socket.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
        socket.send(frame(SETTINGS, 0, 0, b"")).await;
        Self { socket }
    }

    pub async fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        self.socket.send(frame(kind, flags, stream, payload)).await;
    }

    /// Asks without a body.
    pub async fn ask(&mut self, stream: u32, fields: &[Field<'_>]) {
        self.send(HEADERS, END_HEADERS | END_STREAM, stream, &block(fields))
            .await;
    }

    /// The next frame; `None` at the end of the connection. Pings are answered, as everybody has to.
    pub async fn next(&mut self) -> Option<Frame> {
        let head = self.socket.try_exactly(9).await?;
        let len = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let payload = self.socket.try_exactly(usize::try_from(len).unwrap()).await?;
        let is_answer = head[4] & 1 == 1;
        if head[3] == PING && !is_answer {
            self.socket.try_send(frame(PING, 1, 0, &payload)).await;
        }
        Some(Frame {
            kind: head[3],
            stream: u32::from_be_bytes(head[5..].try_into().unwrap()),
            payload,
        })
    }

    /// The next frame of this kind; the others before it are passed over.
    pub async fn until(&mut self, kind: u8) -> Frame {
        loop {
            let next = self.next().await;
            let next = next.unwrap_or_else(|| panic!("the connection ended before a frame of kind {kind}"));
            if next.kind == kind {
                return next;
            }
        }
    }

    /// The code of the farewell, after which the connection ends; `None` if it ends without one.
    pub async fn farewell(&mut self) -> Option<u32> {
        let mut code = None;
        while let Some(frame) = self.next().await {
            if frame.kind == GOAWAY {
                code = Some(frame.code());
            }
        }
        code
    }
}
