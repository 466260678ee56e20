//! The messages that the bench exchanges: prepared bytes, known lengths, nothing computed while it measures.

use std::fmt::Write as _;

/// Different shoppers: more than connections, so that no decision is learned by heart.
const SHOPPERS: u64 = 1_000;

/// The length of an answer's body.
pub const ANSWER_BYTES: usize = 1_024;

/// What clients ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// GET without a body; the shopper stands in a header.
    Get,
    /// POST of 1.2 KB of JSON; the shopper stands in a header, too.
    Post,
    /// The same body on a path whose shopper stands in the JSON alone.
    PostJson,
}

impl Ask {
    /// One request for each shopper.
    pub fn requests(self) -> Vec<Vec<u8>> {
        (0..SHOPPERS).map(|shopper| self.request(shopper)).collect()
    }

    fn request(self, shopper: u64) -> Vec<u8> {
        const COMMON: &str = "host: shop.example\r\nuser-agent: storefront/2.14\r\naccept: application/json\r\n\
            accept-encoding: gzip\r\n";
        let number = number(shopper);
        let text = match self {
            Ask::Get => {
                format!("GET /shop/items/{shopper}?page=1 HTTP/1.1\r\n{COMMON}x-shopper-id: {number}\r\n\r\n")
            }
            Ask::Post => {
                let body = message(shopper);
                format!(
                    "POST /shop/orders HTTP/1.1\r\n{COMMON}x-shopper-id: {number}\r\ncontent-type: application/json\r\n\
                    content-length: {}\r\n\r\n{body}",
                    body.len()
                )
            }
            Ask::PostJson => {
                let body = message(shopper);
                format!(
                    "POST /webhook HTTP/1.1\r\n{COMMON}content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
                    body.len()
                )
            }
        };
        text.into_bytes()
    }
}

fn number(shopper: u64) -> u64 {
    447_700_900_000 + shopper
}

/// A webhook of three messages by one sender, 1.2 KB.
fn message(shopper: u64) -> String {
    let from = number(shopper);
    let change = format!(
        r#"{{"value":{{"messaging_product":"whatsapp","metadata":{{"display_phone_number":"14155550100","phone_number_id":"700800900100200"}},"contacts":[{{"profile":{{"name":"Ana"}},"wa_id":"{from}"}}],"messages":[{{"from":"{from}","id":"wamid.RVhBTVBMRQ001=","timestamp":"1790000001","type":"text","text":{{"body":"Where is my order, please?"}}}}]}},"field":"messages"}}"#
    );
    let changes = [change.as_str(); 3].join(",");
    format!(r#"{{"object":"whatsapp_business_account","entry":[{{"id":"100200300400500","changes":[{changes}]}}]}}"#)
}

/// A backend's answer: JSON of 30 members in [`ANSWER_BYTES`], of which 8 differ where `changed` says so.
pub fn answer(changed: bool) -> Vec<u8> {
    let mut body = String::from("{");
    for n in 0..30 {
        let value = if changed && n % 4 == 0 { "changed" } else { "as it was" };
        let separator = if n == 0 { "" } else { "," };
        let _ = write!(body, r#"{separator}"member_{n:02}":"{value} {n:07}""#);
    }
    body.push('}');
    // White space after a value changes neither its meaning nor what there is to compare.
    body.push_str(&" ".repeat(ANSWER_BYTES.saturating_sub(body.len())));
    format!(
        "HTTP/1.1 200 OK\r\nserver: shop\r\ndate: Sun, 06 Nov 1994 08:49:37 GMT\r\n\
        content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// The begin of an answer that never ends.
pub fn endless_answer() -> Vec<u8> {
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 1000000000000\r\n\r\n".to_vec()
}
