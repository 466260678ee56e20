//! A request's head, kept in one piece for the rare case that it has to be sent once more.
//!
//! Nearly every request is answered at the first attempt, so what counts is what keeping costs: one allocation and a few
//! small copies, where a clone of the map takes one per member and gives each back again.

use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, Request, Uri, Version};

/// A kept head. What the library attached to it (`extensions`) belongs to one attempt and is not kept.
#[derive(Debug)]
pub struct Spare {
    method: Method,
    uri: Uri,
    version: Version,
    // For each line: the lengths of name and value, name, value.
    lines: Vec<u8>,
}

const LENGTHS: usize = 8;

// What a browser sends beside its cookies; whatever is longer costs another allocation.
const USUAL_BYTES: usize = 1_000;

impl Spare {
    /// Keeps a head.
    #[must_use]
    pub fn of(head: &Parts) -> Self {
        let mut lines = Vec::with_capacity(USUAL_BYTES);
        for (name, value) in &head.headers {
            let (name, value) = (name.as_str().as_bytes(), value.as_bytes());
            let lengths = length(name) << 32 | length(value);
            lines.extend_from_slice(&lengths.to_ne_bytes());
            lines.extend_from_slice(name);
            lines.extend_from_slice(value);
        }
        Self {
            method: head.method.clone(),
            uri: head.uri.clone(),
            version: head.version,
            lines,
        }
    }

    /// The head again.
    #[must_use]
    pub fn head(self) -> Parts {
        let mut head = Request::new(()).into_parts().0;
        head.method = self.method;
        head.uri = self.uri;
        head.version = self.version;
        head.headers = headers(self.lines.into());
        head
    }
}

// A section that is longer than this was refused long before.
fn length(bytes: &[u8]) -> u64 {
    u64::from(u32::try_from(bytes.len()).unwrap_or(u32::MAX))
}

// What was written above is read here, so that nothing of it can be illegal.
fn headers(mut lines: Bytes) -> HeaderMap {
    let mut headers = HeaderMap::new();
    while let Some((lengths, _)) = lines.split_first_chunk::<LENGTHS>() {
        let lengths = u64::from_ne_bytes(*lengths);
        let name = LENGTHS + (lengths >> 32) as usize;
        let end = name + (lengths & u64::from(u32::MAX)) as usize;
        if end > lines.len() {
            break;
        }
        let line = lines.split_to(end);
        if let (Ok(name), Ok(value)) = (
            HeaderName::from_bytes(&line[LENGTHS..name]),
            HeaderValue::from_maybe_shared(line.slice(name..)),
        ) {
            headers.append(name, value);
        }
    }
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_comes_back_as_it_was() {
        let request = Request::builder()
            .method(Method::PUT)
            .uri("/shop?x=%20y")
            .header("host", "shop.example")
            .header("x-signature", "a")
            .header("x-signature", "b")
            .header("empty", "")
            .header("cookie", HeaderValue::from_bytes(b"caf\xe9=\t1").unwrap())
            .body(())
            .unwrap();
        let head = request.into_parts().0;
        let again = Spare::of(&head).head();
        assert_eq!(
            (again.method, again.uri, again.version),
            (head.method, head.uri, head.version)
        );
        assert_eq!(again.headers, head.headers);
        let signatures: Vec<_> = again.headers.get_all("x-signature").iter().collect();
        assert_eq!(signatures, ["a", "b"]);
    }
}
