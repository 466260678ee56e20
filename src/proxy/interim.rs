//! What a backend says before its answer (1xx): a 100 opens the gate before the body, the others go to the client.
//!
//! To be told of them costs every request a percent, and few backends ever say one. So a backend is listened to at first,
//! and from its first interim answer on for good; the wire sees whether one comes. RFC 9110 section 15.2: a proxy forwards
//! them, but for a 100 that it asked for itself, and clients may leave them unread.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use http::header::{CONTENT_LENGTH, HeaderMap};
use http::request::Parts;
use http::{Request, StatusCode};

use super::client::Turn;
use super::expect::Gate;
use super::forward;

/// Has the interim answers to a request told to the gate, which a 100 opens, and the others to the client, if it is one
/// who may be told. To be called on the connection's task.
pub async fn listen(head: &mut Parts, gate: Option<Arc<Gate>>, client: Option<Arc<Turn>>, via: bool) {
    if gate.is_none() && client.is_none() {
        return;
    }
    if let Some(client) = &client {
        let task = poll_fn(|cx| Poll::Ready(cx.waker().clone())).await;
        client.listens(task);
    }
    let mut carrier = Request::new(());
    hyper::ext::on_informational(&mut carrier, move |interim| {
        if interim.status() == StatusCode::CONTINUE {
            if let Some(gate) = &gate {
                gate.open();
            }
        } else if let Some(client) = &client {
            client.say(&written(interim.status(), interim.headers().clone(), via));
        }
    });
    head.extensions.extend(std::mem::take(carrier.extensions_mut()));
}

/// An interim answer as it stands in an HTTP/1.1 message.
fn written(status: StatusCode, mut headers: HeaderMap, via: bool) -> Vec<u8> {
    forward::prepare_answer(&mut headers, via);
    // It has no body, and a length would be taken for the final answer's (RFC 9110 section 8.6).
    headers.remove(CONTENT_LENGTH);
    let mut bytes = Vec::with_capacity(256);
    bytes.extend_from_slice(b"HTTP/1.1 ");
    bytes.extend_from_slice(status.as_str().as_bytes());
    bytes.push(b' ');
    bytes.extend_from_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    for (name, value) in &headers {
        bytes.extend_from_slice(b"\r\n");
        bytes.extend_from_slice(name.as_str().as_bytes());
        bytes.extend_from_slice(b": ");
        bytes.extend_from_slice(value.as_bytes());
    }
    bytes.extend_from_slice(b"\r\n\r\n");
    bytes
}

#[cfg(test)]
mod tests {
    use http::header::HeaderValue;

    use super::*;

    #[test]
    fn an_interim_answer_keeps_its_lines_and_loses_what_belongs_to_one_connection() {
        let mut headers = HeaderMap::new();
        headers.append("link", HeaderValue::from_static("</a.css>; rel=preload"));
        headers.append("link", HeaderValue::from_static("</b.js>; rel=preload"));
        headers.append("keep-alive", HeaderValue::from_static("timeout=5"));
        headers.append("transfer-encoding", HeaderValue::from_static("chunked"));
        headers.append("content-length", HeaderValue::from_static("5"));
        let bytes = written(StatusCode::EARLY_HINTS, headers, false);
        assert_eq!(
            String::from_utf8(bytes).unwrap(),
            "HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\nlink: </b.js>; rel=preload\r\n\r\n"
        );
        assert_eq!(
            written(StatusCode::from_u16(199).unwrap(), HeaderMap::new(), false),
            b"HTTP/1.1 199 \r\n\r\n"
        );
    }
}
