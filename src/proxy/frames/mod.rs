//! Counts what both sides say on an HTTP/2 connection, frame by frame, and finds whoever keeps us busy with nothing.
//!
//! Pure: bytes and milliseconds in, a verdict out. Only the nine bytes of each frame's header are looked at, and of what
//! we send the codes of resets and farewells and the refusals that are the library's own; everything else of HTTP/2 is
//! the library's. Frames that cost a sender little and a
//! receiver much (RFC 9113 section 10.5) have caps per `WINDOW_MS`, which grow with what useful requests and answers
//! bring along.

#[cfg(test)]
mod tests;

use crate::live::tally::ClientError;

/// What a client says first (RFC 9113 section 3.4).
pub const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Caps hold for this long each.
const WINDOW_MS: u64 = 10_000;

/// Settings, and acknowledgements of ours.
const SETTINGS: u64 = 50;
/// Pings; one more for each DATA frame that we sent.
const PINGS: u64 = 200;
/// Resets, by either side; one more for every two requests.
const RESETS: u64 = 100;
/// Frames without content: DATA that ends nothing, HEADERS and CONTINUATION without a byte.
const EMPTY: u64 = 100;
/// Priorities; four more for each request.
const PRIORITIES: u64 = 200;
/// Window updates; four more for each request and each DATA frame that we sent.
const WINDOW_UPDATES: u64 = 1_000;
/// Farewells, promises and frames of unknown kinds.
const OTHERS: u64 = 100;
/// The fewest CONTINUATION frames that one header block may have; five for each 32 KiB that a header section may have,
/// which is as many as the library takes.
const CONTINUATIONS: u64 = 5;

/// The most streams that are known to be answered.
const ANSWERING: usize = 1_024;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS_FRAME: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// The error code of a connection that is closed for what its peer keeps us busy with.
pub const ENHANCE_YOUR_CALM: u32 = 0xb;
/// The error code of a farewell that blames nobody.
pub const NO_ERROR: u32 = 0;
const INTERNAL_ERROR: u32 = 2;
const REFUSED_STREAM: u32 = 7;
const CANCEL: u32 = 8;

/// Whether these are the first bytes of a connection over HTTP/2; `None` while both may be.
#[must_use]
pub fn begins(bytes: &[u8]) -> Option<bool> {
    let len = bytes.len().min(PREFACE.len());
    if bytes[..len] != PREFACE[..len] {
        Some(false)
    } else if len == PREFACE.len() {
        Some(true)
    } else {
        None
    }
}

/// A cap that was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flood {
    /// Which one.
    pub reason: ClientError,
    /// So many of the bytes come before the frame that reached it.
    pub clear: usize,
    /// Where that frame begins, in bytes from the beginning of the connection.
    pub at: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Frame {
    len: u32,
    kind: u8,
    flags: u8,
    stream: u32,
}

/// Where in one direction's bytes we are.
#[derive(Debug, Default)]
struct Scanner {
    head: [u8; 9],
    head_len: usize,
    // Bytes of the payload that have yet to come.
    left: u32,
    // The first bytes of a payload that is looked at.
    code: [u8; 9],
    code_len: usize,
    seen: u64,
}

impl Scanner {
    /// Takes bytes until a frame's header is whole; then how many it took.
    fn header(&mut self, bytes: &[u8]) -> (usize, Option<Frame>) {
        let take = bytes.len().min(9 - self.head_len);
        self.head[self.head_len..self.head_len + take].copy_from_slice(&bytes[..take]);
        self.head_len += take;
        if self.head_len < 9 {
            return (take, None);
        }
        self.head_len = 0;
        let [a, b, c, kind, flags, stream @ ..] = self.head;
        let frame = Frame {
            len: u32::from_be_bytes([0, a, b, c]),
            kind,
            flags,
            stream: u32::from_be_bytes(stream) & 0x7fff_ffff,
        };
        self.left = frame.len;
        self.code_len = 0;
        (take, Some(frame))
    }

    /// Takes bytes of the payload.
    fn payload(&mut self, bytes: &[u8]) -> usize {
        let take = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
        let kept = take.min(self.code.len() - self.code_len);
        self.code[self.code_len..self.code_len + kept].copy_from_slice(&bytes[..kept]);
        self.code_len += kept;
        #[allow(clippy::cast_possible_truncation, reason = "at most `left`, which is a u32")]
        let taken = take as u32;
        self.left -= taken;
        take
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    settings: u64,
    pings: u64,
    resets: u64,
    empty: u64,
    priorities: u64,
    window_updates: u64,
    others: u64,
    requests: u64,
    data_sent: u64,
}

/// Follows both directions of one connection.
#[derive(Debug)]
pub struct Guard {
    incoming: Scanner,
    outgoing: Scanner,
    // Of the frames that come and go now.
    kind: u8,
    going: Frame,
    preface_left: usize,
    counts: Counts,
    window: u64,
    // CONTINUATION frames and bytes of the header block that is open.
    block: Option<u64>,
    block_cap: u64,
    last_stream: u32,
    // Streams whose answers have begun and not ended.
    answering: Vec<u32>,
    // The last one that the library refused by itself.
    refused: u32,
}

impl Guard {
    /// A connection on which not even the preface has arrived; header sections have at most so many bytes.
    #[must_use]
    pub fn new(header_bytes: usize) -> Self {
        Self {
            incoming: Scanner::default(),
            outgoing: Scanner::default(),
            kind: DATA,
            going: Frame::default(),
            preface_left: PREFACE.len(),
            counts: Counts::default(),
            window: 0,
            block: None,
            block_cap: CONTINUATIONS.max(5 * (header_bytes as u64 >> 15)),
            last_stream: 0,
            answering: Vec::new(),
            refused: 0,
        }
    }

    /// Whether a header block, or what may be one, has begun and not ended.
    #[must_use]
    pub fn is_in_head(&self) -> bool {
        let in_preface = self.preface_left > 0 && self.preface_left < PREFACE.len();
        let in_fields = self.incoming.left > 0 && matches!(self.kind, HEADERS | CONTINUATION);
        in_preface || in_fields || self.block.is_some() || self.incoming.head_len > 0
    }

    /// Whether a frame of ours is half sent: so many bytes are left, if its header is out.
    #[must_use]
    pub fn rest_of_frame(&self) -> usize {
        if self.outgoing.head_len > 0 {
            9 - self.outgoing.head_len
        } else {
            usize::try_from(self.outgoing.left).unwrap_or(usize::MAX)
        }
    }

    /// The farewell that closes the connection: a GOAWAY frame with this code.
    #[must_use]
    pub fn farewell(&self, code: u32) -> [u8; 17] {
        let mut frame = [0; 17];
        frame[2] = 8;
        frame[3] = GOAWAY;
        frame[9..13].copy_from_slice(&self.last_stream.to_be_bytes());
        frame[13..].copy_from_slice(&code.to_be_bytes());
        frame
    }

    /// Looks at bytes from the client.
    ///
    /// # Errors
    /// [`Flood`]: a cap is reached. Nothing may be read from this client any more.
    pub fn received(&mut self, bytes: &[u8], now_ms: u64) -> Result<(), Flood> {
        let window = now_ms / WINDOW_MS;
        if window != self.window {
            self.window = window;
            self.counts = Counts::default();
        }
        let before = self.incoming.seen;
        let mut at = self.preface_left.min(bytes.len());
        self.preface_left -= at;
        while at < bytes.len() {
            if self.incoming.left > 0 {
                at += self.incoming.payload(&bytes[at..]);
                continue;
            }
            let head_len = self.incoming.head_len;
            let (taken, frame) = self.incoming.header(&bytes[at..]);
            if let Some(frame) = frame
                && let Err(reason) = self.judge(frame)
            {
                return Err(Flood {
                    reason,
                    clear: at,
                    at: before + at as u64 - head_len as u64,
                });
            }
            at += taken;
        }
        self.incoming.seen += bytes.len() as u64;
        Ok(())
    }

    fn judge(&mut self, frame: Frame) -> Result<(), ClientError> {
        self.kind = frame.kind;
        let counts = &mut self.counts;
        let (count, cap, reason) = match frame.kind {
            DATA if frame.len == 0 && frame.flags & END_STREAM == 0 => {
                (&mut counts.empty, EMPTY, ClientError::Http2Empty)
            }
            DATA => return Ok(()),
            HEADERS => {
                counts.requests += 1;
                self.last_stream = self.last_stream.max(frame.stream);
                self.block = (frame.flags & END_HEADERS == 0).then_some(0);
                if frame.len > 0 {
                    return Ok(());
                }
                (&mut counts.empty, EMPTY, ClientError::Http2Empty)
            }
            CONTINUATION => {
                let so_far = self.block.map_or(1, |n| n + 1);
                self.block = (frame.flags & END_HEADERS == 0).then_some(so_far);
                if so_far > self.block_cap {
                    return Err(ClientError::Http2Continuation);
                }
                if frame.len > 0 {
                    return Ok(());
                }
                (&mut counts.empty, EMPTY, ClientError::Http2Empty)
            }
            PRIORITY => {
                let cap = PRIORITIES + 4 * counts.requests;
                (&mut counts.priorities, cap, ClientError::Http2Priority)
            }
            RST_STREAM => {
                self.answering.retain(|answering| *answering != frame.stream);
                let cap = RESETS + counts.requests / 2;
                (&mut counts.resets, cap, ClientError::Http2Reset)
            }
            SETTINGS_FRAME => (&mut counts.settings, SETTINGS, ClientError::Http2Settings),
            PING => {
                let cap = PINGS + counts.data_sent;
                (&mut counts.pings, cap, ClientError::Http2Ping)
            }
            WINDOW_UPDATE => {
                let cap = WINDOW_UPDATES + 4 * (counts.requests + counts.data_sent);
                (&mut counts.window_updates, cap, ClientError::Http2Window)
            }
            _ => (&mut counts.others, OTHERS, ClientError::Http2Other),
        };
        *count += 1;
        if *count > cap { Err(reason) } else { Ok(()) }
    }

    /// Looks at bytes that were sent to the client; `faults` hears of every answer, reset and farewell of the library's own
    /// that answers a fault.
    ///
    /// # Errors
    /// The client made us reset too many streams.
    pub fn sent(&mut self, bytes: &[u8], mut faults: impl FnMut(ClientError)) -> Result<(), ClientError> {
        let mut at = 0;
        let mut result = Ok(());
        while at < bytes.len() {
            if self.outgoing.left == 0 {
                let (taken, frame) = self.outgoing.header(&bytes[at..]);
                at += taken;
                if let Some(frame) = frame {
                    self.going = frame;
                    self.counts.data_sent += u64::from(frame.kind == DATA);
                    if frame.len == 0 {
                        self.note_answer();
                    }
                }
                continue;
            }
            at += self.outgoing.payload(&bytes[at..]);
            if self.outgoing.left > 0 {
                continue;
            }
            if let Some(fault) = self.fault() {
                faults(fault);
            }
            self.note_answer();
            if self.going.kind == RST_STREAM {
                self.counts.resets += 1;
                if self.counts.resets > RESETS + self.counts.requests / 2 {
                    result = Err(ClientError::Http2Reset);
                }
            }
        }
        result
    }

    /// The fault that the frame answers which is now sent, if it does.
    fn fault(&mut self) -> Option<ClientError> {
        let Frame { kind, stream, .. } = self.going;
        let [a, b, c, d, code @ .., said] = self.outgoing.code;
        match kind {
            // Fields that the library does not hand over. It resets the stream as well if the request goes on.
            HEADERS if self.is_bare_refusal() => {
                self.refused = stream;
                Some(ClientError::HeadersTooLarge)
            }
            RST_STREAM if stream == self.refused => None,
            RST_STREAM => match u32::from_be_bytes([a, b, c, d]) {
                NO_ERROR | INTERNAL_ERROR | CANCEL => None,
                REFUSED_STREAM => Some(ClientError::Http2Streams),
                _ => Some(ClientError::Http2Stream),
            },
            GOAWAY => match u32::from_be_bytes(code) {
                NO_ERROR => None,
                // "header_list_way_too_large"; its other reasons begin otherwise.
                ENHANCE_YOUR_CALM if self.going.len > 8 && said == b'h' => Some(ClientError::HeadersTooLarge),
                _ => Some(ClientError::Http2Connection),
            },
            _ => None,
        }
    }

    /// Whether the block that is now sent is an answer of one field, its status: what we answer has a date.
    fn is_bare_refusal(&self) -> bool {
        let Frame { len, flags, stream, .. } = self.going;
        let whole = END_STREAM | END_HEADERS;
        let block = usize::try_from(len).ok().and_then(|len| self.outgoing.code.get(..len));
        let (true, Some(mut block)) = (flags & whole == whole && !self.answering.contains(&stream), block) else {
            return false;
        };
        // A new size of the table (RFC 7541 section 6.3).
        while let [0x20..=0x3e, rest @ ..] | [0x3f, 0..=0x7f, rest @ ..] | [0x3f, 0x80..=0xff, 0..=0x7f, rest @ ..] =
            block
        {
            block = rest;
        }
        match block {
            // One that the table has, or its name and a text of so many bytes (sections 6.1 and 6.2).
            [0x80..=0xfe] | [0xff, 0..=0x7f] => true,
            [0x08..=0x0e | 0x48..=0x4e, len, text @ ..] => usize::from(len & 0x7f) == text.len(),
            _ => false,
        }
    }

    fn note_answer(&mut self) {
        let Frame {
            kind, flags, stream, ..
        } = self.going;
        match kind {
            HEADERS if flags & END_STREAM == 0 => {
                // Of a stream that its client has reset meanwhile the end is never sent.
                if self.answering.len() == ANSWERING {
                    self.answering.remove(0);
                }
                self.answering.push(stream);
            }
            DATA if flags & END_STREAM == 0 => {}
            HEADERS | DATA | RST_STREAM => self.answering.retain(|answering| *answering != stream),
            _ => {}
        }
    }
}
