//! What a request with a number looks like, and what each side answers it: both follow from the number alone, so that
//! everybody can check what they got.

use crate::random::Random;

/// The header that marks a request as one of these, unbroken.
pub const PROOF: &str = "x-proof";

/// One numbered request.
#[derive(Clone, Debug)]
pub struct Promise {
    pub id: u64,
    pub method: &'static str,
    pub route: &'static str,
    pub body: Vec<u8>,
    pub chunked: bool,
}

/// What a side answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub body: Vec<u8>,
    pub chunked: bool,
}

fn bytes(random: &mut Random, len: u64) -> Vec<u8> {
    (0..len).map(|_| random.word() as u8).collect()
}

fn length(random: &mut Random) -> u64 {
    match random.below(10) {
        0 => 0,
        1 => random.below(60_000),
        2 => random.below(8_000),
        _ => random.below(600),
    }
}

pub const ROUTES: [&str; 3] = ["shadowed", "live", "plain"];

impl Promise {
    pub fn new(id: u64) -> Self {
        let mut random = Random::new(id ^ 0x7265_7175_6573_7473);
        let method = ["GET", "GET", "GET", "POST", "POST", "PUT", "DELETE", "HEAD"][random.below(8) as usize];
        let route = ROUTES[random.below(3) as usize];
        let acts = matches!(method, "POST" | "PUT");
        let len = if acts { length(&mut random) } else { 0 };
        let chunked = acts && random.chance(0.3);
        Self {
            id,
            method,
            route,
            body: bytes(&mut random, len),
            chunked,
        }
    }

    /// Whether it may be sent again.
    pub fn is_repeatable(&self) -> bool {
        matches!(self.method, "GET" | "HEAD")
    }

    pub fn target(&self) -> String {
        format!("/{}/{}", self.route, self.id)
    }

    /// The request as its client writes it: the header section, and what follows.
    pub fn written(&self, more: &str) -> (Vec<u8>, Vec<u8>) {
        let framing = match (self.chunked, self.method) {
            (true, _) => "Transfer-Encoding: chunked\r\n".to_owned(),
            (false, "POST" | "PUT") => format!("Content-Length: {}\r\n", self.body.len()),
            _ => String::new(),
        };
        let head = format!(
            "{} {} HTTP/1.1\r\nHost: shop.example\r\nX-Shopper-Id: s{}\r\n{PROOF}: {}\r\n{framing}{more}\r\n",
            self.method,
            self.target(),
            self.id % 50,
            self.id,
        );
        (head.into_bytes(), framed(&self.body, self.chunked, self.id))
    }

    /// What this side answers.
    pub fn answer(&self, side: &str) -> Answer {
        let mut random = Random::new(self.id ^ 0x616e_7377_6572 ^ (u64::from(side.as_bytes()[0]) << 8));
        let status = [200, 200, 200, 200, 201, 404, 204, 304, 409][random.below(9) as usize];
        let empty = matches!(status, 204 | 304);
        let len = if empty { 0 } else { length(&mut random) };
        Answer {
            status,
            body: bytes(&mut random, len),
            chunked: !empty && random.chance(0.3),
        }
    }
}

impl Answer {
    /// The answer as its backend writes it.
    pub fn written(&self, promise: &Promise) -> Vec<u8> {
        let framing = match (self.chunked, self.status) {
            (_, 204 | 304) => String::new(),
            (true, _) => "Transfer-Encoding: chunked\r\n".to_owned(),
            (false, _) => format!("Content-Length: {}\r\n", self.body.len()),
        };
        let mut written = format!(
            "HTTP/1.1 {} Fine\r\nX-Answer: {}\r\n{framing}\r\n",
            self.status, promise.id
        )
        .into_bytes();
        if promise.method != "HEAD" {
            written.extend(framed(&self.body, self.chunked, promise.id));
        }
        written
    }
}

fn framed(body: &[u8], chunked: bool, id: u64) -> Vec<u8> {
    if !chunked {
        return body.to_vec();
    }
    let mut framed = Vec::new();
    for part in body.chunks(1 + (id % 5_000) as usize) {
        let extension = if id.is_multiple_of(3) { ";x=y" } else { "" };
        framed.extend(format!("{:x}{extension}\r\n", part.len()).bytes());
        framed.extend(part);
        framed.extend(b"\r\n");
    }
    framed.extend(b"0\r\n\r\n");
    framed
}
