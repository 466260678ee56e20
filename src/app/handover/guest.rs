//! The new process's side of a hand-over: it asks the running one for its sockets, then for its state, and takes over.
//!
//! In: the hand-over socket. Out: sockets, the kills in force, and the word to go. Whatever goes wrong before that word
//! ends this process and nothing else: the running one finds the conversation ended, and goes on.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use super::Inherited;
use super::wire::{Kind, Line, VERSION};
use crate::engine::guard::KillSet;
use crate::store;

/// How long one turn of the running process may take; it has to write what waits to be stored.
const PATIENCE: Duration = Duration::from_secs(10);

/// The conversation with the running process.
pub(in crate::app) struct Guest(Line);

impl Guest {
    /// Asks the process that listens at this path; none, if nobody does.
    pub fn ask(path: &Path) -> io::Result<Option<Self>> {
        let stream = match UnixStream::connect(path) {
            Ok(stream) => stream,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let mut line = Line::new(stream, PATIENCE)?;
        line.say(Kind::Hello, VERSION)?;
        Ok(Some(Self(line)))
    }

    /// The sockets. Connections wait at them, and are accepted by the running process, until this one does.
    pub fn sockets(&mut self, inherited: &mut Inherited) -> io::Result<()> {
        loop {
            let frame = self.0.hear()?;
            match (frame.kind, frame.socket) {
                (Kind::Socket, Some(socket)) => inherited.take_on(&frame.text, socket)?,
                (Kind::Sockets, None) => return Ok(()),
                (Kind::No, _) => return Err(io::Error::other(frame.text)),
                _ => return Err(super::wire::strange("it spoke out of turn")),
            }
        }
    }

    /// The state: when this returns the running process has let go of the files, and these kills are in force there.
    pub fn state(&mut self) -> io::Result<KillSet> {
        self.0.say(Kind::State, "")?;
        let frame = self.0.expect(Kind::Kills)?;
        store::read_kills(&frame.text).ok_or_else(|| super::wire::strange("its kills cannot be read"))
    }

    /// Says that this process could serve. When it returns it must: the running one has stopped to accept.
    pub fn go(mut self) -> io::Result<UnixStream> {
        self.0.say(Kind::Ready, "")?;
        self.0.expect(Kind::Go)?;
        Ok(self.0.into_inner())
    }
}
