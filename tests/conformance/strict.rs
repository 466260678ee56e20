//! The strictest reader of HTTP/1.1 that still reads what must be readable: whatever two readers could see differently
//! is an error here. It reads what backends got and what clients were answered; the sidecar has no part in it.

/// A message as it stood on the wire, with its body taken out of its framing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Strict {
    /// The request line or the status line.
    pub start: String,
    pub headers: Vec<(String, Vec<u8>)>,
    pub body: Vec<u8>,
    pub framing: Framing,
    pub trailers: Vec<(String, Vec<u8>)>,
}

/// How a message said where it ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Framing {
    /// By the end of its header section.
    #[default]
    Head,
    Length,
    Chunked,
    /// By the end of its connection.
    Close,
}

/// What is being read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Request,
    Answer,
    /// The answer to a HEAD, which has no body whatever its headers say.
    AnswerToHead,
}

impl Strict {
    /// Every value of a header, in order.
    pub fn all(&self, name: &str) -> Vec<&[u8]> {
        let lines = self
            .headers
            .iter()
            .filter(|(known, _)| known.eq_ignore_ascii_case(name));
        lines.map(|(_, value)| &**value).collect()
    }

    /// The first value of a header; empty without one.
    pub fn header(&self, name: &str) -> String {
        String::from_utf8_lossy(self.all(name).first().unwrap_or(&&b""[..])).into_owned()
    }

    pub fn has(&self, name: &str) -> bool {
        !self.all(name).is_empty()
    }

    /// The second word of the start line: a request's target, or an answer's status.
    pub fn second(&self) -> &str {
        self.start.split(' ').nth(1).unwrap_or_default()
    }

    /// The code of a status line.
    pub fn status(&self) -> u16 {
        self.second().parse().unwrap_or(0)
    }
}

/// The first message of these bytes and how many of them it took; `None` while it is not all there. Interim answers that
/// tell of the final one (102 to 199) are read as strictly, and passed over.
///
/// `ended`: whether nothing more will come.
pub fn read(bytes: &[u8], kind: Kind, ended: bool) -> Result<Option<(Strict, usize)>, String> {
    let Some(head_end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
        // What is there so far has to be a beginning of something that can be read.
        return Ok(None);
    };
    let mut message = head(&bytes[..head_end], kind)?;
    let mut at = head_end + 4;
    message.framing = framing(&message, kind)?;
    match message.framing {
        Framing::Head => {}
        Framing::Length => {
            let length: usize = message.header("content-length").parse().map_err(|e| format!("{e}"))?;
            let Some(body) = bytes.get(at..at.saturating_add(length)) else {
                return Ok(None);
            };
            message.body = body.to_vec();
            at += length;
        }
        Framing::Chunked => {
            let Some(end) = chunks(bytes, at, &mut message)? else {
                return Ok(None);
            };
            at = end;
        }
        Framing::Close if ended => {
            message.body = bytes[at..].to_vec();
            at = bytes.len();
        }
        Framing::Close => return Ok(None),
    }
    if kind != Kind::Request && (102..200).contains(&message.status()) {
        if message.has("content-length") || message.has("transfer-encoding") {
            return Err(format!("an interim answer with a framing: {:?}", message.headers));
        }
        return Ok(read(&bytes[at..], kind, ended)?.map(|(message, taken)| (message, at + taken)));
    }
    Ok(Some((message, at)))
}

/// All messages of these bytes, and what is left behind the last whole one.
pub fn read_all(bytes: &[u8], kind: Kind, ended: bool) -> Result<(Vec<Strict>, Vec<u8>), String> {
    let (mut all, mut rest) = (Vec::new(), bytes);
    while let Some((message, taken)) = read(rest, kind, ended)? {
        all.push(message);
        rest = &rest[taken..];
    }
    Ok((all, rest.to_vec()))
}

fn head(section: &[u8], kind: Kind) -> Result<Strict, String> {
    let mut lines = lines(section)?.into_iter();
    let start = lines.next().unwrap_or_default();
    let start = String::from_utf8(start.to_vec()).map_err(|_| "a start line that is no text".to_owned())?;
    match kind {
        Kind::Request => request_line(&start)?,
        Kind::Answer | Kind::AnswerToHead => status_line(&start)?,
    }
    Ok(Strict {
        start,
        headers: lines.map(field).collect::<Result<_, _>>()?,
        ..Strict::default()
    })
}

// Lines end with CR LF; neither stands anywhere else.
fn lines(section: &[u8]) -> Result<Vec<&[u8]>, String> {
    let mut found = Vec::new();
    let mut rest = section;
    loop {
        let at = rest.windows(2).position(|two| two == b"\r\n");
        let line = &rest[..at.unwrap_or(rest.len())];
        if line.iter().any(|byte| matches!(byte, b'\r' | b'\n')) {
            return Err(format!("a bare CR or LF in {:?}", String::from_utf8_lossy(line)));
        }
        found.push(line);
        match at {
            Some(at) => rest = &rest[at + 2..],
            None => return Ok(found),
        }
    }
}

fn request_line(line: &str) -> Result<(), String> {
    let bad = || Err(format!("no request line: {line:?}"));
    let words: Vec<&str> = line.split(' ').collect();
    let [method, target, "HTTP/1.1"] = words[..] else {
        return bad();
    };
    let target_is_fine = target.starts_with('/') || (target == "*" && method == "OPTIONS");
    if method.is_empty() || !method.bytes().all(is_token) || !target_is_fine {
        return bad();
    }
    if target.bytes().any(|byte| byte <= b' ' || byte == 0x7f) {
        return bad();
    }
    Ok(())
}

fn status_line(line: &str) -> Result<(), String> {
    let rest = line
        .strip_prefix("HTTP/1.1 ")
        .ok_or(format!("no status line: {line:?}"))?;
    let digits = rest.get(..3).unwrap_or_default();
    let separated = rest
        .get(3..)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(' '));
    if !separated || !digits.bytes().all(|byte| byte.is_ascii_digit()) || !matches!(digits.as_bytes()[0], b'1'..=b'5') {
        return Err(format!("no status line: {line:?}"));
    }
    Ok(())
}

fn field(line: &[u8]) -> Result<(String, Vec<u8>), String> {
    let shown = || String::from_utf8_lossy(line).into_owned();
    let colon = line
        .iter()
        .position(|byte| *byte == b':')
        .ok_or(format!("no colon in {:?}", shown()))?;
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    if name.is_empty() || !name.iter().copied().all(is_token) {
        return Err(format!("an illegal name in {:?}", shown()));
    }
    if value
        .iter()
        .any(|byte| (*byte < b' ' && *byte != b'\t') || *byte == 0x7f)
    {
        return Err(format!("a control byte in {:?}", shown()));
    }
    Ok((String::from_utf8_lossy(name).into_owned(), value.trim_ascii().to_vec()))
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn framing(message: &Strict, kind: Kind) -> Result<Framing, String> {
    let lengths = message.all("content-length");
    let codings = message.all("transfer-encoding");
    if lengths.len() + codings.len() > 1 {
        return Err(format!(
            "{} framings: {:?}",
            lengths.len() + codings.len(),
            message.headers
        ));
    }
    if kind == Kind::Request && message.all("host").len() != 1 {
        return Err(format!("{} hosts: {:?}", message.all("host").len(), message.headers));
    }
    let has_no_body = kind == Kind::AnswerToHead
        || (kind == Kind::Answer && (matches!(message.status(), 204 | 304) || message.status() < 200));
    if let [length] = lengths[..] {
        let digits = !length.is_empty() && length.iter().all(u8::is_ascii_digit) && length.len() < 20;
        return match (digits, has_no_body) {
            (false, _) => Err(format!("no length: {:?}", String::from_utf8_lossy(length))),
            (true, true) => Ok(Framing::Head),
            (true, false) => Ok(Framing::Length),
        };
    }
    match codings[..] {
        [coding] if !coding.eq_ignore_ascii_case(b"chunked") => {
            Err(format!("an unknown coding: {:?}", String::from_utf8_lossy(coding)))
        }
        _ if has_no_body => Ok(Framing::Head),
        [_] => Ok(Framing::Chunked),
        _ if kind == Kind::Request => Ok(Framing::Head),
        _ => Ok(Framing::Close),
    }
}

fn chunks(bytes: &[u8], mut at: usize, message: &mut Strict) -> Result<Option<usize>, String> {
    loop {
        let Some(line_end) = bytes[at..].windows(2).position(|two| two == b"\r\n") else {
            return Ok(None);
        };
        let line = &bytes[at..at + line_end];
        at += line_end + 2;
        if line.is_empty() || line.len() > 15 || !line.iter().all(u8::is_ascii_hexdigit) {
            return Err(format!(
                "no chunk size, or an extension: {:?}",
                String::from_utf8_lossy(line)
            ));
        }
        let size = usize::from_str_radix(&String::from_utf8_lossy(line), 16).map_err(|e| format!("{e}"))?;
        if size == 0 {
            break;
        }
        let Some(chunk) = bytes.get(at..at + size + 2) else {
            return Ok(None);
        };
        if !chunk.ends_with(b"\r\n") {
            return Err("a chunk that is longer than it says".to_owned());
        }
        message.body.extend_from_slice(&chunk[..size]);
        at += size + 2;
    }
    if bytes[at..].starts_with(b"\r\n") {
        return Ok(Some(at + 2));
    }
    let Some(end) = bytes[at..].windows(4).position(|four| four == b"\r\n\r\n") else {
        return Ok(None);
    };
    message.trailers = lines(&bytes[at..at + end])?
        .into_iter()
        .map(field)
        .collect::<Result<_, _>>()?;
    Ok(Some(at + end + 4))
}

#[test]
fn the_strict_reader_refuses_what_two_readers_see_differently() {
    let one = |text: &str| read(text.as_bytes(), Kind::Request, false);
    let good = one("POST /a HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\nGET")
        .unwrap()
        .unwrap();
    assert_eq!((&*good.0.body, good.0.framing), (&b"abc"[..], Framing::Chunked));
    let bad = [
        "POST /a HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ncontent-length: 3\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        "POST /a HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\ncontent-length: 3\r\n\r\nabc",
        "POST /a HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\n\r\n",
        "GET /a HTTP/1.1\r\nhost: a\nx: y\r\n\r\n",
        "GET /a HTTP/1.0\r\nhost: a\r\n\r\n",
        "GET a HTTP/1.1\r\nhost: a\r\n\r\n",
        "GET /a HTTP/1.1\r\n\r\n",
        "GET /a HTTP/1.1\r\nhost: a\r\nhost: a\r\n\r\n",
        "GET /a HTTP/1.1\r\nhost : a\r\n\r\n",
        "GET /a HTTP/1.1\r\nhost: a\r\n b\r\n\r\n",
        "GET /a HTTP/1.1\r\nhost: a\0\r\n\r\n",
    ];
    for text in bad {
        assert!(one(text).is_err(), "{text:?}");
    }
}
