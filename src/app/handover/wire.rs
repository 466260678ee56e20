//! What two processes say to each other over the hand-over socket: frames, of which some carry a descriptor.
//!
//! A frame is one byte for its kind, four for the length of its text, and the text. A descriptor travels with the first of
//! these bytes, so each frame's head is received by itself. Versions of the program may differ on the two sides: what a
//! kind means does not change, and an unknown kind ends the conversation.

use std::io::{self, IoSlice, IoSliceMut, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const HEAD: usize = 5;

/// The longest text: ten thousand held subjects on several routes are a few million bytes.
const TEXT_BYTES: usize = 64 << 20;

/// What a frame means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The new process asks for the sockets. Its text is [`VERSION`].
    Hello,
    /// One listening socket, with the name of its listener.
    Socket,
    /// These were all.
    Sockets,
    /// The new process has everything but the state, and asks for it.
    State,
    /// All kills that are known, in the format of the kill journal; joined by whoever gets it.
    Kills,
    /// The new process could serve now.
    Ready,
    /// The old process takes no more connections, and will not take the state back.
    Go,
    /// It will not happen, and why.
    No,
}

const KINDS: [Kind; 8] = [
    Kind::Hello,
    Kind::Socket,
    Kind::Sockets,
    Kind::State,
    Kind::Kills,
    Kind::Ready,
    Kind::Go,
    Kind::No,
];

/// The version of this conversation.
pub(super) const VERSION: &str = "1";

/// A frame as it was received.
pub(super) struct Frame {
    pub kind: Kind,
    pub text: String,
    pub socket: Option<OwnedFd>,
}

fn head(kind: Kind, text: &str) -> io::Result<[u8; HEAD]> {
    let length = u32::try_from(text.len()).ok().filter(|_| text.len() <= TEXT_BYTES);
    let length = length.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "a frame is too long"))?;
    let [a, b, c, d] = length.to_be_bytes();
    Ok([kind as u8, a, b, c, d])
}

fn parse(head: [u8; HEAD]) -> io::Result<(Kind, usize)> {
    let [kind, a, b, c, d] = head;
    let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
    match KINDS.get(usize::from(kind)) {
        Some(kind) if length <= TEXT_BYTES => Ok((*kind, length)),
        _ => Err(strange("it speaks another language")),
    }
}

/// What the other side said makes no sense.
pub(super) fn strange(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

fn text(bytes: Vec<u8>) -> io::Result<String> {
    String::from_utf8(bytes).map_err(|_| strange("a frame is no text"))
}

/// One end of the conversation while both sides take turns.
pub(super) struct Line(UnixStream);

impl Line {
    /// Each turn of the other side may take this long.
    pub fn new(stream: UnixStream, patience: Duration) -> io::Result<Self> {
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        Ok(Self(stream))
    }

    /// The stream, for when turns are over.
    pub fn into_inner(self) -> UnixStream {
        self.0
    }

    pub fn say(&mut self, kind: Kind, text: &str) -> io::Result<()> {
        self.0.write_all(&head(kind, text)?)?;
        self.0.write_all(text.as_bytes())
    }

    pub fn hand(&mut self, text: &str, socket: BorrowedFd<'_>) -> io::Result<()> {
        let head = head(Kind::Socket, text)?;
        let sockets = [socket];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut with = SendAncillaryBuffer::new(&mut space);
        with.push(SendAncillaryMessage::ScmRights(&sockets));
        let sent = sendmsg(&self.0, &[IoSlice::new(&head)], &mut with, SendFlags::empty())?;
        self.0.write_all(&head[sent..])?;
        self.0.write_all(text.as_bytes())
    }

    pub fn hear(&mut self) -> io::Result<Frame> {
        let mut head = [0; HEAD];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut with = RecvAncillaryBuffer::new(&mut space);
        let got = recvmsg(
            &self.0,
            &mut [IoSliceMut::new(&mut head)],
            &mut with,
            RecvFlags::CMSG_CLOEXEC,
        )?;
        if got.bytes == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let socket = with.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut sockets) => sockets.next(),
            _ => None,
        });
        self.0.read_exact(&mut head[got.bytes..])?;
        let (kind, length) = parse(head)?;
        let mut bytes = vec![0; length];
        self.0.read_exact(&mut bytes)?;
        Ok(Frame {
            kind,
            text: text(bytes)?,
            socket,
        })
    }

    /// Waits for a frame of this kind.
    pub fn expect(&mut self, kind: Kind) -> io::Result<Frame> {
        let frame = self.hear()?;
        if frame.kind == Kind::No {
            return Err(io::Error::other(frame.text));
        }
        if frame.kind == kind {
            Ok(frame)
        } else {
            Err(strange("it spoke out of turn"))
        }
    }
}

/// Says something when turns are over.
pub(super) async fn say(to: &mut tokio::net::unix::OwnedWriteHalf, kind: Kind, text: &str) -> io::Result<()> {
    to.write_all(&head(kind, text)?).await?;
    to.write_all(text.as_bytes()).await
}

/// Hears something when turns are over. Not to be cancelled: half a frame would be lost.
pub(super) async fn hear(from: &mut tokio::net::unix::OwnedReadHalf) -> io::Result<(Kind, String)> {
    let mut head = [0; HEAD];
    from.read_exact(&mut head).await?;
    let (kind, length) = parse(head)?;
    let mut bytes = vec![0; length];
    from.read_exact(&mut bytes).await?;
    Ok((kind, text(bytes)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::net::TcpListener;
    use std::os::fd::AsFd as _;

    fn lines() -> (Line, Line) {
        let (a, b) = UnixStream::pair().unwrap();
        let patience = Duration::from_millis(200);
        (Line::new(a, patience).unwrap(), Line::new(b, patience).unwrap())
    }

    #[test]
    fn a_descriptor_arrives_with_its_own_frame() {
        let (mut old, mut new) = lines();
        let sockets: Vec<TcpListener> = (0..3).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        for (at, socket) in sockets.iter().enumerate() {
            old.say(Kind::Kills, &"x".repeat(at * 1_000)).unwrap();
            old.hand(&format!("listener {at}"), socket.as_fd()).unwrap();
        }
        for (at, socket) in sockets.iter().enumerate() {
            assert!(new.expect(Kind::Kills).unwrap().socket.is_none());
            let frame = new.expect(Kind::Socket).unwrap();
            assert_eq!(frame.text, format!("listener {at}"));
            let handed = TcpListener::from(frame.socket.unwrap());
            assert_eq!(handed.local_addr().unwrap(), socket.local_addr().unwrap());
        }
    }

    #[test]
    fn whoever_is_silent_leaves_or_speaks_otherwise_is_not_waited_for() {
        let (_old, mut new) = lines();
        assert!(new.hear().is_err());
        let (old, mut new) = lines();
        drop(old);
        assert!(new.hear().is_err());
        let (mut old, mut new) = lines();
        old.0.write_all(b"GET / HTTP/1.1\r\n").unwrap();
        assert!(new.hear().is_err());
        let (mut old, mut new) = lines();
        old.say(Kind::No, "not now").unwrap();
        assert_eq!(new.expect(Kind::Go).err().unwrap().to_string(), "not now");
        let (mut old, mut new) = lines();
        old.say(Kind::Ready, "").unwrap();
        assert!(new.expect(Kind::Go).is_err());
    }
}
