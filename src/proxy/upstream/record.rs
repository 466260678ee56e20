//! The head of the request under way on a connection, as it was written.
//!
//! The library takes a request whole and gives it back only if it wrote nothing of it. A request that may be sent twice
//! has to be had again after that; to copy a few hundred bytes while they are written costs a tenth of what it costs
//! to clone a header map, and reading them back is for the rare case that needs it.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use http::header::{HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, Request, Uri};
use httparse::Status;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What is kept of one connection's writes.
#[derive(Debug, Default)]
pub(super) struct Record {
    on: AtomicBool,
    bytes: Mutex<Vec<u8>>,
}

/// Room that a connection keeps from one request to the next; more is given back.
const KEPT_BYTES: usize = 4 << 10;

impl Record {
    /// Keeps what is written from here to the end of a head.
    pub(super) fn begin(&self) {
        let mut bytes = self.lock();
        bytes.clear();
        bytes.shrink_to(KEPT_BYTES);
        self.on.store(true, Relaxed);
    }

    /// The first `len` bytes of these were written.
    fn wrote(&self, bufs: &[IoSlice<'_>], mut len: usize) {
        if !self.on.load(Relaxed) {
            return;
        }
        let mut bytes = self.lock();
        for buf in bufs {
            let part = &buf[..len.min(buf.len())];
            let from = bytes.len().saturating_sub(3);
            bytes.extend_from_slice(part);
            if memchr::memmem::find(&bytes[from..], b"\r\n\r\n").is_some() {
                self.on.store(false, Relaxed);
                return;
            }
            len -= part.len();
        }
    }

    /// The request that was written, if its head was written whole; once.
    pub(super) fn take(&self) -> Option<Parts> {
        read(&std::mem::take(&mut *self.lock()))
    }

    fn lock(&self) -> MutexGuard<'_, Vec<u8>> {
        self.bytes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A stream to a backend whose requests are recorded.
#[derive(Debug)]
pub(super) struct Recorded<S> {
    pub(super) stream: S,
    pub(super) record: Arc<Record>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Recorded<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Recorded<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        if let Poll::Ready(Ok(len)) = polled {
            self.record.wrote(bufs, len);
        }
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

fn read(bytes: &[u8]) -> Option<Parts> {
    let lines = memchr::memchr_iter(b'\n', bytes).count();
    let mut room = vec![httparse::EMPTY_HEADER; lines];
    let mut request = httparse::Request::new(&mut room);
    let Ok(Status::Complete(_)) = request.parse(bytes) else {
        return None;
    };
    let mut again = Request::new(()).into_parts().0;
    again.method = Method::from_bytes(request.method?.as_bytes()).ok()?;
    again.uri = request.path?.parse::<Uri>().ok()?;
    for header in request.headers {
        let name = HeaderName::from_bytes(header.name.as_bytes()).ok()?;
        again.headers.append(name, HeaderValue::from_bytes(header.value).ok()?);
    }
    Some(again)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &[u8] = b"GET /a?b=c HTTP/1.1\r\nhost: shop.example\r\nx-a: 1\r\nx-a: \xff2\r\n\r\n";

    fn recorded(writes: &[&[u8]]) -> Option<Parts> {
        let record = Record::default();
        record.begin();
        for write in writes {
            record.wrote(&[IoSlice::new(write)], write.len());
        }
        record.take()
    }

    #[test]
    fn a_request_is_had_again_as_it_was_written_however_the_writes_were_cut() {
        for at in 0..HEAD.len() {
            let again = recorded(&[&HEAD[..at], &HEAD[at..], b"body of it"]).unwrap();
            assert_eq!(
                (again.method.as_str(), again.uri.to_string().as_str()),
                ("GET", "/a?b=c")
            );
            assert_eq!(again.headers["host"], "shop.example");
            let values: Vec<_> = again.headers.get_all("x-a").iter().map(HeaderValue::as_bytes).collect();
            assert_eq!(values, [b"1".as_slice(), b"\xff2"]);
        }
    }

    #[test]
    fn a_head_that_was_not_written_whole_is_not_made_up() {
        for at in 0..HEAD.len() {
            assert!(recorded(&[&HEAD[..at]]).is_none());
        }
    }

    #[test]
    fn each_request_is_recorded_by_itself_and_only_when_asked_for() {
        let record = Record::default();
        record.wrote(&[IoSlice::new(HEAD)], HEAD.len());
        assert!(record.take().is_none());
        record.begin();
        record.wrote(&[IoSlice::new(b"GET /first HTTP/1.1\r\n\r\n")], 23);
        record.wrote(&[IoSlice::new(HEAD)], HEAD.len());
        assert_eq!(record.take().unwrap().uri, "/first");
        record.begin();
        record.wrote(&[IoSlice::new(HEAD), IoSlice::new(b"GET")], HEAD.len());
        assert_eq!(record.take().unwrap().uri, "/a?b=c");
    }
}
