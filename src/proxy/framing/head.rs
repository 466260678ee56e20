//! Judges one header section: exactly one framing, one host, a target that is one.
//!
//! Pure. `httparse` splits the section in its strictest reading, and refuses control bytes, folding and a space before
//! the colon by itself. Rules are those of RFC 9112 sections 2.2, 3.2, 6.1 and 6.3, and RFC 9110 section 8.6.

use std::mem::MaybeUninit;

use http::Uri;
use httparse::{Header, Status};

use crate::live::tally::ClientError;

/// The largest header section that passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes, the request line with them.
    pub header_bytes: usize,
    /// Lines, without the request line.
    pub header_count: usize,
}

/// The most header lines that may be configured: the library behind holds no more than twice as many.
pub const MOST_LINES: usize = 16 << 10;

/// The end of lines before a request that are passed over (RFC 9112 section 2.2), in bytes.
const LEADING: usize = 16;

/// The longest target and the longest name that the library behind takes.
const LONGEST: usize = u16::MAX as usize - 1;

/// What a head that is well says of what follows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub len: usize,
    pub body: Body,
    pub asks_upgrade: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Body {
    Chunked,
    Length(u64),
}

type Fault = (ClientError, usize);

/// Judges the head at the beginning of `bytes`; `None` while it is not whole.
pub(super) fn judge(bytes: &[u8], limits: Limits) -> Result<Option<Head>, Fault> {
    if limits.header_count <= FEW {
        let mut room = [const { MaybeUninit::uninit() }; FEW];
        judge_in(bytes, limits, &mut room[..limits.header_count])
    } else {
        judge_in(bytes, limits, &mut vec![MaybeUninit::uninit(); limits.header_count])
    }
}

// Room for so many lines is had without asking for memory.
const FEW: usize = 128;

fn judge_in<'b>(bytes: &'b [u8], limits: Limits, room: &mut [MaybeUninit<Header<'b>>]) -> Result<Option<Head>, Fault> {
    let leading = leading(bytes)?;
    let mut request = httparse::Request::new(&mut []);
    let len = match request.parse_with_uninit_headers(bytes, room) {
        Ok(Status::Complete(len)) => len,
        Ok(Status::Partial) => return Ok(None),
        Err(error) => {
            let reason = match error {
                httparse::Error::TooManyHeaders => ClientError::HeadersTooLarge,
                _ => ClientError::Malformed,
            };
            let at = fault_in_head(bytes, limits);
            return Err(if at < limits.header_bytes {
                (reason, at)
            } else {
                over(bytes, leading, limits)
            });
        }
    };
    if len > limits.header_bytes {
        return Err(over(bytes, leading, limits));
    }
    // A whole head has all three.
    let (method, target) = (request.method.unwrap_or_default(), request.path.unwrap_or_default());
    let is_1_1 = request.version == Some(1);
    let offset = |part: &str| (part.as_ptr() as usize).wrapping_sub(bytes.as_ptr() as usize);

    let mut fields = Fields::default();
    for header in request.headers.iter() {
        let fault = |reason| Err((reason, offset(header.name)));
        let name = header.name;
        // Most names are told apart from these by their length.
        match name.len() {
            4 if name.eq_ignore_ascii_case("host") => {
                let is_second = fields.host.replace(header.value).is_some();
                if is_second || !is_host(header.value) {
                    return fault(ClientError::BadHost);
                }
            }
            7 if name.eq_ignore_ascii_case("upgrade") => fields.asks_upgrade = is_1_1,
            14 if name.eq_ignore_ascii_case("content-length") => {
                let length = length(header.value);
                if length.is_none() || fields.length.is_some() {
                    return fault(ClientError::BadLength);
                }
                if fields.chunked {
                    return fault(ClientError::TwoFramings);
                }
                fields.length = length;
            }
            17 if name.eq_ignore_ascii_case("transfer-encoding") => {
                if !header.value.eq_ignore_ascii_case(b"chunked") {
                    return fault(other_coding(header.value));
                }
                if !is_1_1 || fields.chunked {
                    return fault(ClientError::BadCoding);
                }
                if fields.length.is_some() {
                    return fault(ClientError::TwoFramings);
                }
                fields.chunked = true;
            }
            LONGEST.. => return fault(ClientError::HeadersTooLarge),
            _ => {}
        }
    }
    if is_1_1 && fields.host.is_none() {
        return Err((ClientError::BadHost, len));
    }
    judge_target(method, target).map_err(|reason| (reason, offset(target)))?;
    Ok(Some(Head {
        len,
        body: match fields.length {
            _ if fields.chunked => Body::Chunked,
            Some(length) => Body::Length(length),
            None => Body::Length(0),
        },
        asks_upgrade: fields.asks_upgrade,
    }))
}

#[derive(Default)]
struct Fields<'b> {
    host: Option<&'b [u8]>,
    length: Option<u64>,
    chunked: bool,
    asks_upgrade: bool,
}

/// Whether a head that is not whole may still become one.
pub(super) fn is_within(bytes: &[u8], limits: Limits) -> Result<(), Fault> {
    let leading = leading(bytes)?;
    if bytes.len() <= limits.header_bytes {
        Ok(())
    } else {
        Err(over(bytes, leading, limits))
    }
}

// The bytes of empty lines before the head.
fn leading(bytes: &[u8]) -> Result<usize, Fault> {
    let mut leading = 0;
    loop {
        leading += match bytes[leading..] {
            [b'\n', ..] => 1,
            [b'\r', b'\n', ..] => 2,
            _ => return Ok(leading),
        };
        if leading > LEADING {
            return Err((ClientError::Malformed, LEADING));
        }
    }
}

// More bytes than the limit, by whichever part of the head reaches over it.
fn over(bytes: &[u8], leading: usize, limits: Limits) -> Fault {
    let line_is_whole = memchr::memchr(b'\n', &bytes[leading..limits.header_bytes]).is_some();
    let reason = if line_is_whole {
        ClientError::HeadersTooLarge
    } else {
        ClientError::TargetTooLong
    };
    (reason, limits.header_bytes)
}

/// Judges a trailer section; its length once it is whole.
pub(super) fn judge_trailers(bytes: &[u8], limits: Limits) -> Result<Option<usize>, Fault> {
    let mut room = vec![httparse::EMPTY_HEADER; limits.header_count];
    let len = match httparse::parse_headers(bytes, &mut room) {
        Ok(Status::Complete((len, _))) => len,
        Ok(Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return Err((ClientError::TrailersTooLarge, 0)),
        Err(_) => {
            let broken = |len: usize| {
                let mut room = vec![httparse::EMPTY_HEADER; limits.header_count];
                httparse::parse_headers(&bytes[..len], &mut room).is_err()
            };
            return Err((ClientError::BadChunk, first_fault(bytes.len(), broken)));
        }
    };
    // The library behind wants whole line ends here, and takes others for a part of the value.
    let bare = memchr::memchr_iter(b'\n', &bytes[..len]).find(|at| *at == 0 || bytes[at - 1] != b'\r');
    match bare {
        Some(at) => Err((ClientError::BadChunk, at)),
        None => Ok(Some(len)),
    }
}

/// The number that a Content-Length says: digits alone, and below 2^63, for others read it into a signed number.
#[must_use]
pub fn length(value: &[u8]) -> Option<u64> {
    let digits = value.iter().try_fold(0_u64, |length, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        length.checked_mul(10)?.checked_add(digit)
    });
    digits.filter(|length| !value.is_empty() && i64::try_from(*length).is_ok())
}

// A list that names a coding which we do not undo is one thing, a value that is no list of codings another.
fn other_coding(value: &[u8]) -> ClientError {
    let mut unknown = false;
    for coding in value.split(|byte| *byte == b',') {
        let coding = coding.trim_ascii();
        let is_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
        if coding.is_empty() || !coding.iter().all(is_token) {
            return ClientError::BadCoding;
        }
        unknown |= !coding.eq_ignore_ascii_case(b"chunked");
    }
    if unknown {
        ClientError::UnknownCoding
    } else {
        ClientError::BadCoding
    }
}

fn judge_target(method: &str, target: &str) -> Result<(), ClientError> {
    if target.len() > LONGEST {
        return Err(ClientError::TargetTooLong);
    }
    let bytes = target.as_bytes();
    let legal = match bytes {
        _ if method == "CONNECT" => is_authority(bytes) && target.parse::<Uri>().is_ok(),
        [b'/', ..] => bytes.iter().all(|byte| USUAL[usize::from(*byte)]) || is_unusual_path(target),
        b"*" => method == "OPTIONS",
        _ => is_absolute(target),
    };
    if legal { Ok(()) } else { Err(ClientError::BadTarget) }
}

// Bytes of a path and a query that need no second look.
const USUAL: [bool; 256] = {
    let mut usual = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        usual[byte] = matches!(byte as u8, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/'
            | b'?' | b'%' | b'&' | b'=' | b'+' | b':' | b'@' | b'!' | b'$' | b'\'' | b'(' | b')' | b'*' | b',' | b';');
        byte += 1;
    }
    usual
};

// Backends get the path as it came, so what is no URL to the strict passes as long as the library can hold it. A
// fragment would be lost on the way, and nothing that is lost was meant for us.
fn is_unusual_path(target: &str) -> bool {
    !target.contains('#') && target.parse::<Uri>().is_ok()
}

fn is_absolute(target: &str) -> bool {
    let Ok(uri) = target.parse::<Uri>() else {
        return false;
    };
    !target.contains('#')
        && uri
            .scheme()
            .is_some_and(|scheme| matches!(scheme.as_str(), "http" | "https"))
        && uri
            .authority()
            .is_some_and(|authority| is_authority(authority.as_str().as_bytes()))
}

/// Whether these bytes name a host, and perhaps a port.
#[must_use]
pub fn is_authority(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes[0] != b':' && is_host(bytes)
}

/// The same of a Host field, which may be empty (RFC 9110 section 7.2).
fn is_host(bytes: &[u8]) -> bool {
    let (name, port) = match bytes {
        [b'[', rest @ ..] => {
            let Some(end) = memchr::memchr(b']', rest) else {
                return false;
            };
            let (address, port) = rest.split_at(end);
            let legal = |byte: &u8| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.' | b'v' | b'%' | b'-' | b'_');
            if address.is_empty() || !address.iter().all(legal) {
                return false;
            }
            (&b""[..], &port[1..])
        }
        _ => bytes.split_at(memchr::memchr(b':', bytes).unwrap_or(bytes.len())),
    };
    let legal = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+;=".contains(byte);
    name.iter().all(legal)
        && memchr::memchr_iter(b'%', name).all(|at| is_escape(&name[at + 1..]))
        && match port {
            [] => true,
            [b':', digits @ ..] => digits.len() <= 5 && digits.iter().all(u8::is_ascii_digit),
            _ => false,
        }
}

// What follows a percent sign (RFC 3986 section 2.1).
fn is_escape(rest: &[u8]) -> bool {
    matches!(rest, [a, b, ..] if a.is_ascii_hexdigit() && b.is_ascii_hexdigit())
}

fn fault_in_head(bytes: &[u8], limits: Limits) -> usize {
    first_fault(bytes.len(), |len| {
        let mut room = vec![httparse::EMPTY_HEADER; limits.header_count];
        httparse::Request::new(&mut room).parse(&bytes[..len]).is_err()
    })
}

/// The first byte without which a section that is broken is not: parsing is incomplete before it, and fails with it.
pub(super) fn first_fault(len: usize, is_broken: impl Fn(usize) -> bool) -> usize {
    let (mut well, mut broken) = (0, len);
    while broken - well > 1 {
        let middle = well + (broken - well) / 2;
        if is_broken(middle) {
            broken = middle;
        } else {
            well = middle;
        }
    }
    well
}
