//! Bytes that arrived on a connection and that the HTTP library has not got.
//!
//! Their number is bounded by whoever holds them back: a header section, or what may follow a request for another
//! protocol.

use tokio::io::ReadBuf;

/// Bytes that are held back.
#[derive(Debug, Default)]
pub(super) struct Held {
    bytes: Vec<u8>,
    // So many of them may pass.
    clear: usize,
    // So many have passed.
    passed: usize,
}

impl Held {
    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len() - self.passed
    }

    /// What may not pass yet.
    pub(super) fn unjudged(&self) -> &[u8] {
        &self.bytes[self.clear..]
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// So many more may pass.
    pub(super) fn clear(&mut self, more: usize) {
        self.clear += more;
    }

    pub(super) fn clear_all(&mut self) {
        self.clear = self.bytes.len();
    }

    /// What may not pass never will; this does in its place.
    pub(super) fn replace(&mut self, place: &[u8]) {
        self.bytes.truncate(self.clear);
        self.bytes.extend_from_slice(place);
        self.clear_all();
    }

    /// Hands over what may pass; whether anything did.
    pub(super) fn deliver(&mut self, buf: &mut ReadBuf<'_>) -> bool {
        let ready = &self.bytes[self.passed..self.clear];
        if ready.is_empty() {
            return false;
        }
        let len = ready.len().min(buf.remaining());
        buf.put_slice(&ready[..len]);
        self.passed += len;
        if self.passed == self.clear {
            self.bytes.drain(..self.clear);
            (self.clear, self.passed) = (0, 0);
            if self.bytes.is_empty() {
                // Most connections never hold anything: none keeps the room that one head needed.
                self.bytes = Vec::new();
            }
        }
        true
    }
}
