//! What a client asks of its answer and of the way to it: its version, trailers, another protocol, to be told to go on.
//!
//! In: a request's head, before anything of it is changed.

use std::sync::Arc;

use http::Version;
use http::header::{self, HeaderValue};
use http::request::Parts;
use http_body::Body as _;
use hyper::body::Incoming;

use super::expect::{self, Gate};
use super::{forward, tunnel};

/// What the client's side of an exchange asks of its answer.
#[derive(Clone, Debug)]
pub(super) struct Wants {
    /// The version that the client speaks.
    pub(super) version: Version,
    /// Whether it is to be told which trailers will come: it takes trailers, and its version says so in the head.
    pub(super) trailers: bool,
    /// The protocols that it offers to change to.
    pub(super) upgrade: Option<HeaderValue>,
    /// Whether it has said how long its body is.
    pub(super) sized: bool,
}

impl Wants {
    /// What a request says of it.
    // A body before the change would have to be told from what follows it; nobody sends one.
    pub(super) fn of(head: &Parts, incoming: &Incoming) -> Self {
        let one_one = head.version == Version::HTTP_11;
        let asks = one_one && incoming.is_end_stream() && forward::asks_for_upgrade(&head.headers);
        Self {
            version: head.version,
            trailers: one_one && forward::takes_trailers(&head.headers),
            upgrade: asks.then(|| tunnel::offered(&head.headers)).flatten(),
            sized: incoming.size_hint().exact().is_some(),
        }
    }

    /// What the client waits for before it sends its body. Once something of the body has been asked for, or if the client's
    /// version knows no such waiting, the backend is not told of it.
    pub(super) fn gate(&self, head: &mut Parts, untouched: bool) -> Option<Arc<Gate>> {
        if !expect::asks(head) {
            return None;
        }
        if !untouched || self.version == Version::HTTP_10 {
            head.headers.remove(header::EXPECT);
            return None;
        }
        // Over HTTP/2 the library never tells a client to go on: it must not be waited for.
        (self.version == Version::HTTP_11).then(Arc::default)
    }
}
