//! Where one HTTP/1 message ends and the next begins, judged byte by byte before the HTTP library sees them.
//!
//! Pure: bytes in, a verdict out. Syntax is `httparse`'s, which the library uses as well; what is judged here is whether
//! every reader would agree on where the message ends, whom it is for and how long it may be. A head passes only when
//! it is whole and well; a body passes as it comes. What is done about a fault is the connection's.

mod head;
#[cfg(test)]
mod tests;

use memchr::{memchr, memchr_iter, memchr2};

use crate::live::tally::ClientError;

pub use head::{Limits, MOST_LINES, is_authority, length};

/// The most bytes of chunk extensions in one body (RFC 9112 section 7.1.1 asks for a limit).
const EXTENSION_BYTES: usize = 16 << 10;

/// The most bytes of one trailer section.
pub const TRAILER_BYTES: usize = 64 << 10;

/// The most bytes of a chunk's size as it may reasonably be written, without extensions.
const SIZE_BYTES: usize = 64;

/// A partial section is looked at again when it has doubled, and not before it has this length.
const LOOK_AGAIN: usize = 256;

/// What is wrong with what arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The rule that it breaks.
    pub reason: ClientError,
    /// Where, in bytes from the beginning of the request.
    pub at: u64,
    /// Whether the request's head was well, and has passed.
    pub in_body: bool,
}

/// What is to be done with bytes that arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// So many of them may pass.
    pub clear: usize,
    /// What holds for the others.
    pub rest: Rest,
}

/// What is to be done with the bytes that may not pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// More has to arrive before they can be judged. There may be none.
    Incomplete,
    /// They come after a request that asks for another protocol: it has to be answered first.
    Undecided,
    /// They, and whatever follows, are refused.
    Refused(Fault),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Head,
    /// Bytes left of a body of known length.
    Length(u64),
    ChunkSize,
    /// Bytes left of a chunk.
    Chunk(u64),
    ChunkCr,
    ChunkLf,
    Trailers,
    Undecided,
    Opaque,
    Refused(Fault),
}

/// Follows one connection's messages.
#[derive(Debug)]
pub struct Guard {
    limits: Limits,
    state: State,
    // Bytes of the current message that have passed.
    passed: u64,
    // How much of what has not passed was looked at, and from which length on it is worth parsing again.
    seen: usize,
    look_again: usize,
    extensions: usize,
    asks_upgrade: bool,
    heads: u64,
}

type Judged = Result<Option<usize>, (ClientError, usize)>;

impl Guard {
    /// A connection on which nothing has arrived.
    #[must_use]
    pub const fn new(limits: Limits) -> Self {
        Self {
            limits,
            state: State::Head,
            passed: 0,
            seen: 0,
            look_again: 0,
            extensions: 0,
            asks_upgrade: false,
            heads: 0,
        }
    }

    /// How many heads have passed.
    #[must_use]
    pub const fn heads(&self) -> u64 {
        self.heads
    }

    /// Whether what follows is no concern of this guard.
    #[must_use]
    pub fn is_opaque(&self) -> bool {
        self.state == State::Opaque
    }

    /// Whether bytes wait for the answer to a request that asks for another protocol.
    #[must_use]
    pub fn is_undecided(&self) -> bool {
        self.state == State::Undecided
    }

    /// Whether the connection is between two messages.
    #[must_use]
    pub fn is_between(&self) -> bool {
        self.state == State::Head
    }

    /// The request that asked for another protocol got it (`true`): everything passes from here. Or it did not: the
    /// next request begins.
    pub fn decide(&mut self, upgraded: bool) {
        if self.state == State::Undecided || upgraded {
            self.state = if upgraded { State::Opaque } else { State::Head };
        }
    }

    /// Looks at everything that has arrived and not passed: what was there at the last call and more.
    pub fn examine(&mut self, bytes: &[u8]) -> Verdict {
        let mut at = 0;
        while at < bytes.len() {
            let rest = &bytes[at..];
            let judged = match self.state {
                State::Head => self.head(rest),
                State::Length(left) => {
                    let take = usize::try_from(left).unwrap_or(usize::MAX).min(rest.len());
                    match left - take as u64 {
                        0 => self.end_message(),
                        left => self.state = State::Length(left),
                    }
                    Ok(Some(take))
                }
                State::ChunkSize => self.chunk_size(rest),
                State::Chunk(left) => {
                    let take = usize::try_from(left).unwrap_or(usize::MAX).min(rest.len());
                    self.state = match left - take as u64 {
                        0 => State::ChunkCr,
                        left => State::Chunk(left),
                    };
                    Ok(Some(take))
                }
                State::ChunkCr if rest[0] == b'\r' => {
                    self.state = State::ChunkLf;
                    Ok(Some(1))
                }
                State::ChunkLf if rest[0] == b'\n' => {
                    self.state = State::ChunkSize;
                    Ok(Some(1))
                }
                State::ChunkCr | State::ChunkLf => Err((ClientError::BadChunk, 0)),
                State::Trailers => self.trailers(rest),
                State::Opaque => Ok(Some(rest.len())),
                State::Undecided => {
                    return Verdict {
                        clear: at,
                        rest: Rest::Undecided,
                    };
                }
                State::Refused(fault) => {
                    return Verdict {
                        clear: at,
                        rest: Rest::Refused(fault),
                    };
                }
            };
            match judged {
                Ok(Some(len)) => {
                    at += len;
                    // The end of a message has set it to zero.
                    if self.state != State::Head && self.state != State::Undecided {
                        self.passed += len as u64;
                    }
                }
                Ok(None) => break,
                Err((reason, offset)) => {
                    self.state = State::Refused(Fault {
                        reason,
                        at: self.passed + offset as u64,
                        in_body: self.state != State::Head,
                    });
                }
            }
        }
        Verdict {
            clear: at,
            rest: Rest::Incomplete,
        }
    }

    fn end_message(&mut self) {
        self.passed = 0;
        self.extensions = 0;
        self.state = if self.asks_upgrade {
            State::Undecided
        } else {
            State::Head
        };
    }

    // Whether a section that was incomplete should be parsed now. Only new bytes are searched for its end; garbage is
    // found out each time the section has doubled, so that the whole work stays in proportion to its length.
    fn is_worth_parsing(&mut self, bytes: &[u8], ends: fn(&[u8]) -> bool) -> bool {
        let first = self.seen == 0;
        let fresh = &bytes[self.seen.saturating_sub(3)..];
        let worth = first || ends(fresh) || bytes.len() >= self.look_again;
        self.seen = bytes.len();
        if worth {
            self.look_again = (2 * bytes.len()).max(LOOK_AGAIN);
        }
        worth
    }

    fn head(&mut self, bytes: &[u8]) -> Judged {
        let is_over = bytes.len() > self.limits.header_bytes;
        if (self.is_worth_parsing(bytes, has_blank_line) || is_over)
            && let Some(head) = head::judge(bytes, self.limits)?
        {
            self.seen = 0;
            self.heads += 1;
            self.asks_upgrade = head.asks_upgrade;
            match head.body {
                head::Body::Chunked => self.state = State::ChunkSize,
                head::Body::Length(0) => self.end_message(),
                head::Body::Length(length) => self.state = State::Length(length),
            }
            return Ok(Some(head.len));
        }
        head::is_within(bytes, self.limits)?;
        Ok(None)
    }

    fn chunk_size(&mut self, bytes: &[u8]) -> Judged {
        // The parser takes no digit at all for zero.
        if !bytes[0].is_ascii_hexdigit() {
            return Err((ClientError::BadChunk, 0));
        }
        // A line is looked at as far as one may be long: what is wrong with it is then the same however it arrives.
        let (most, over) = match memchr2(b'\n', b';', &bytes[..bytes.len().min(SIZE_BYTES)]) {
            Some(at) if bytes[at] == b';' => (
                at + EXTENSION_BYTES - self.extensions + 2,
                (ClientError::ChunkExtensions, at),
            ),
            _ => (SIZE_BYTES, (ClientError::BadChunk, 0)),
        };
        let line = &bytes[..bytes.len().min(most)];
        let is_over = line.len() == most;
        if self.is_worth_parsing(bytes, |fresh| memchr(b'\n', fresh).is_some()) || is_over {
            match httparse::parse_chunk_size(line) {
                Ok(httparse::Status::Complete((len, size))) => {
                    self.seen = 0;
                    if let Some(at) = memchr(b';', &line[..len - 2]) {
                        self.extension(&line[at..len - 2])
                            .map_err(|offset| (ClientError::BadChunk, at + offset))?;
                    }
                    self.state = match size {
                        0 => State::Trailers,
                        // What others read into a signed number.
                        size if i64::try_from(size).is_err() => return Err((ClientError::BadChunk, 0)),
                        size => State::Chunk(size),
                    };
                    return Ok(Some(len));
                }
                Ok(httparse::Status::Partial) => {}
                Err(httparse::InvalidChunkSize) => return Err((ClientError::BadChunk, fault_in_size(line))),
            }
        }
        if is_over { Err(over) } else { Ok(None) }
    }

    // An extension says nothing to us and goes nowhere; one that hides a line end may say something to others.
    fn extension(&mut self, extension: &[u8]) -> Result<(), usize> {
        self.extensions += extension.len();
        let control = |byte: &u8| byte.is_ascii_control() && *byte != b'\t';
        extension.iter().position(control).map_or(Ok(()), Err)
    }

    fn trailers(&mut self, bytes: &[u8]) -> Judged {
        if let [b'\r', b'\n', ..] = bytes {
            self.seen = 0;
            self.end_message();
            return Ok(Some(2));
        }
        if bytes == b"\r" {
            return Ok(None);
        }
        let section = &bytes[..bytes.len().min(TRAILER_BYTES)];
        let is_over = section.len() < bytes.len();
        if (self.is_worth_parsing(bytes, has_blank_line) || is_over)
            && let Some(len) = head::judge_trailers(section, self.limits)?
        {
            self.seen = 0;
            self.end_message();
            return Ok(Some(len));
        }
        if is_over {
            return Err((ClientError::TrailersTooLarge, TRAILER_BYTES));
        }
        Ok(None)
    }
}

fn has_blank_line(bytes: &[u8]) -> bool {
    memchr_iter(b'\n', bytes).any(|at| matches!(bytes[at + 1..], [b'\n', ..] | [b'\r', b'\n', ..]))
}

fn fault_in_size(bytes: &[u8]) -> usize {
    head::first_fault(bytes.len(), |len| httparse::parse_chunk_size(&bytes[..len]).is_err())
}
