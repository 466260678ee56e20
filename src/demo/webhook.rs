//! Webhook bodies as Meta writes and signs them, and how a backend reads them.
//!
//! Pure. The sender writes; both bots verify and read. Bodies keep Meta's spelling (`\u00e9`, `\/`), for the signature
//! covers the bytes and not what they mean.

use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Map, Value, json};
use sha2::Sha256;

use super::shoppers::Shopper;

/// Where Meta delivers.
pub const PATH: &str = "/webhooks/whatsapp";
/// What Meta and the backends share.
const APP_SECRET: &[u8] = b"example-app-secret";
/// What Meta has to name in the subscription check.
pub const VERIFY_TOKEN: &str = "example-verify-token";
/// The header that carries the signature.
pub const SIGNATURE: &str = "x-hub-signature-256";

const BUSINESS: &str = "100200300400500";
const SHOP_NUMBER: &str = "14155550100";

/// What a shopper sends.
#[derive(Clone, Debug, PartialEq)]
pub enum Content {
    /// The tap on a template's quick reply.
    Button,
    /// A picture with a caption.
    Image,
    /// A row of a list.
    Interactive,
    /// Things from the catalogue: article, quantity, price of one in cents.
    Order(Vec<(&'static str, u32, u32)>),
    /// Words.
    Text(&'static str),
}

/// One message as it stands in `messages`.
#[must_use]
pub fn message(shopper: &Shopper, id: &str, timestamp: u64, content: &Content) -> Value {
    let context = || json!({ "from": SHOP_NUMBER, "id": "wamid.RVhBTVBMRQ500=" });
    let (kind, what) = match content {
        Content::Button => ("button", json!({ "payload": "TRACK", "text": "Track" })),
        Content::Image => {
            let image = json!({
                "caption": "broken/label", "mime_type": "image/jpeg", "sha256": "aW1hZ2U=", "id": "81000001",
            });
            ("image", image)
        }
        Content::Interactive => (
            "interactive",
            json!({ "type": "list_reply", "list_reply": { "id": "r1", "title": "Paris" } }),
        ),
        Content::Order(items) => {
            let items: Vec<Value> = items
                .iter()
                .map(|(article, quantity, cents)| {
                    json!({
                        "product_retailer_id": article, "quantity": quantity, "item_price": price(*cents), "currency": "EUR",
                    })
                })
                .collect();
            (
                "order",
                json!({ "catalog_id": "77", "text": "", "product_items": items }),
            )
        }
        Content::Text(words) => ("text", json!({ "body": words })),
    };
    let mut message = Map::new();
    if matches!(content, Content::Button | Content::Interactive) {
        message.insert("context".to_owned(), context());
    }
    message.insert("from".to_owned(), json!(shopper.number));
    message.insert("id".to_owned(), json!(id));
    message.insert("timestamp".to_owned(), json!(timestamp.to_string()));
    message.insert("type".to_owned(), json!(kind));
    message.insert(kind.to_owned(), what);
    Value::Object(message)
}

/// Cents as a price, exact: 1305 is 13.05.
#[must_use]
pub fn price(cents: u32) -> Value {
    if cents.is_multiple_of(100) {
        json!(cents / 100)
    } else {
        json!(f64::from(cents) / 100.0)
    }
}

/// What became of a message that the shop sent, as it stands in `statuses`.
#[must_use]
pub fn status(shopper: &Shopper, id: &str, timestamp: u64, word: &str) -> Value {
    let mut status = Map::new();
    status.insert("id".to_owned(), json!(id));
    status.insert("status".to_owned(), json!(word));
    status.insert("timestamp".to_owned(), json!(timestamp.to_string()));
    status.insert("recipient_id".to_owned(), json!(shopper.number));
    if word == "sent" {
        status.insert(
            "conversation".to_owned(),
            json!({ "id": "c1", "origin": { "type": "utility" } }),
        );
        let pricing = json!({ "billable": true, "pricing_model": "PMP", "category": "utility" });
        status.insert("pricing".to_owned(), pricing);
    }
    Value::Object(status)
}

fn metadata(value: &mut Map<String, Value>) {
    value.insert("messaging_product".to_owned(), json!("whatsapp"));
    let metadata = json!({ "display_phone_number": SHOP_NUMBER, "phone_number_id": "700800900100200" });
    value.insert("metadata".to_owned(), metadata);
}

/// A change that carries messages, with the profiles of those who sent them.
#[must_use]
pub fn messages(from: &[&Shopper], messages: Vec<Value>) -> Value {
    let mut value = Map::new();
    metadata(&mut value);
    let contact = |shopper: &&Shopper| json!({ "profile": { "name": shopper.name }, "wa_id": shopper.number });
    value.insert("contacts".to_owned(), from.iter().map(contact).collect());
    value.insert("messages".to_owned(), Value::Array(messages));
    json!({ "value": value, "field": "messages" })
}

/// A change that carries one status.
#[must_use]
pub fn statuses(status: Value) -> Value {
    let mut value = Map::new();
    metadata(&mut value);
    value.insert("statuses".to_owned(), Value::Array(vec![status]));
    json!({ "value": value, "field": "messages" })
}

/// A change about the business account, which names no shopper.
#[must_use]
pub fn account_event() -> Value {
    let value = json!({
        "event": "APPROVED", "message_template_id": 123_456_789_012_u64, "message_template_name": "hello",
        "message_template_language": "fr", "reason": "NONE",
    });
    json!({ "value": value, "field": "message_template_status_update" })
}

/// A change that repeats what somebody of the shop typed into the app: the shopper is the one it went to.
#[must_use]
pub fn app_echo(to: &Shopper, id: &str, timestamp: u64) -> Value {
    let mut value = Map::new();
    metadata(&mut value);
    let echo = json!({
        "from": SHOP_NUMBER, "to": to.number, "id": id, "timestamp": timestamp.to_string(), "type": "text",
        "text": { "body": "We are on it." },
    });
    value.insert("message_echoes".to_owned(), json!([echo]));
    json!({ "value": value, "field": "smb_message_echoes" })
}

/// The whole body around changes, in Meta's spelling.
#[must_use]
pub fn body(changes: Vec<Value>) -> String {
    let entry = json!({ "id": BUSINESS, "changes": changes });
    spelled(&json!({ "object": "whatsapp_business_account", "entry": [entry] }))
}

/// ASCII only, and no bare slash.
fn spelled(value: &Value) -> String {
    let plain = value.to_string();
    let mut out = String::with_capacity(plain.len() + 64);
    for c in plain.chars() {
        match c {
            // JSON knows neither of them outside a text.
            '/' => out.push_str("\\/"),
            c if c.is_ascii() => out.push(c),
            c => {
                let mut units = [0; 2];
                for unit in c.encode_utf16(&mut units) {
                    out.push_str(&format!("\\u{unit:04x}"));
                }
            }
        }
    }
    out
}

/// The value of [`SIGNATURE`] for these bytes.
#[must_use]
pub fn signature(body: &[u8]) -> String {
    let digest = mac(body).finalize().into_bytes();
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256={hex}")
}

/// Whether these bytes are what the holder of the secret signed.
#[must_use]
pub fn is_signed(body: &[u8], signature: &[u8]) -> bool {
    let Some(digits) = signature.strip_prefix(b"sha256=").filter(|digits| digits.len() == 64) else {
        return false;
    };
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    let digest: Option<Vec<u8>> = digits.chunks(2).map(byte).collect();
    digest.is_some_and(|digest| mac(body).verify_slice(&digest).is_ok())
}

fn mac(body: &[u8]) -> Hmac<Sha256> {
    #[allow(
        clippy::expect_used,
        reason = "HMAC takes keys of every length (RFC 2104, section 2)"
    )]
    let mut mac = Hmac::<Sha256>::new_from_slice(APP_SECRET).expect("HMAC takes keys of every length");
    mac.update(body);
    mac
}

/// One thing that a body tells.
#[derive(Clone, Debug, PartialEq)]
pub struct Update<'b> {
    /// What stays the same when it is delivered again: a message's id, or a status's id and word.
    pub key: String,
    /// Whom it is from, or for.
    pub number: &'b str,
    /// The name in the profile; empty without one.
    pub name: &'b str,
    /// The message; `None` for a status.
    pub message: Option<&'b Value>,
}

/// Everything that a body tells about shoppers, in its order.
#[must_use]
pub fn updates(body: &Value) -> Vec<Update<'_>> {
    let mut found = Vec::new();
    for change in list(body, "entry").flat_map(|entry| list(entry, "changes")) {
        let value = &change["value"];
        let name_of = |number: &str| {
            let contact = list(value, "contacts").find(|contact| contact["wa_id"] == number);
            contact
                .and_then(|contact| contact["profile"]["name"].as_str())
                .unwrap_or_default()
        };
        for message in list(value, "messages") {
            let number = text(message, "from");
            let key = text(message, "id").to_owned();
            found.push(Update {
                key,
                number,
                name: name_of(number),
                message: Some(message),
            });
        }
        for status in list(value, "statuses") {
            let key = format!("{}:{}", text(status, "id"), text(status, "status"));
            found.push(Update {
                key,
                number: text(status, "recipient_id"),
                name: "",
                message: None,
            });
        }
    }
    found
}

/// The members of an array; none where there is no array.
pub fn list<'v>(value: &'v Value, member: &str) -> impl Iterator<Item = &'v Value> {
    value[member].as_array().into_iter().flatten()
}

/// A text member; empty where there is none.
#[must_use]
pub fn text<'v>(value: &'v Value, member: &str) -> &'v str {
    value[member].as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The body and the signature of a stored case.
    fn case(id: &str) -> (String, String, Vec<String>) {
        let path = format!("{}/tests/payloads/{id}.json", env!("CARGO_MANIFEST_DIR"));
        let case: Value = serde_json::from_slice(&std::fs::read(path).expect("the case exists")).expect("it is JSON");
        let signed = list(&case["request"], "headers").find(|pair| pair[0] == "X-Hub-Signature-256");
        let signature = signed
            .and_then(|pair| pair[1].as_str())
            .expect("it is signed")
            .to_owned();
        let keys = list(&case, "dedup_keys")
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect();
        (text(&case["request"], "body").to_owned(), signature, keys)
    }

    fn elodie() -> Shopper {
        Shopper {
            number: "33639980123".to_owned(),
            name: "Élodie Martin",
            tester: false,
        }
    }

    fn sam() -> Shopper {
        Shopper {
            number: "14155550142".to_owned(),
            name: "Sam Lee",
            tester: false,
        }
    }

    #[test]
    fn bodies_are_byte_for_byte_what_meta_sends() {
        let one = |shopper: &Shopper, id: &str, time, content| {
            body(vec![messages(&[shopper], vec![message(shopper, id, time, &content)])])
        };
        let id = |n: &str| format!("wamid.RVhBTVBMRQ{n}=");
        let status = |shopper: &Shopper, n: &str, time, word: &str| statuses(status(shopper, &id(n), time, word));
        let text = |shopper: &Shopper, n: &str, time, words| message(shopper, &id(n), time, &Content::Text(words));
        let order = Content::Order(vec![("TEA", 2, 450)]);
        let bodies = [
            (
                "wa-text",
                one(
                    &elodie(),
                    &id("001"),
                    1_790_000_001,
                    Content::Text("Bonjour, où en est ma commande ?"),
                ),
            ),
            ("wa-image", one(&sam(), &id("002"), 1_790_000_002, Content::Image)),
            ("wa-button", one(&elodie(), &id("003"), 1_790_000_003, Content::Button)),
            (
                "wa-interactive-list",
                one(&sam(), &id("004"), 1_790_000_004, Content::Interactive),
            ),
            ("wa-order", one(&sam(), &id("008"), 1_790_000_008, order)),
            (
                "wa-status-sent",
                body(vec![status(&sam(), "020", 1_790_000_100, "sent")]),
            ),
            ("wa-account-event", body(vec![account_event()])),
            (
                "wa-batch-two-senders",
                body(vec![messages(
                    &[&sam(), &elodie()],
                    vec![
                        text(&elodie(), "030", 1_790_000_030, "a"),
                        text(&sam(), "031", 1_790_000_031, "b"),
                    ],
                )]),
            ),
            (
                "wa-batch-one-sender",
                body(vec![
                    messages(&[&elodie()], vec![text(&elodie(), "032", 1_790_000_032, "a")]),
                    status(&elodie(), "022", 1_790_000_120, "read"),
                ]),
            ),
        ];
        for (id, ours) in bodies {
            let (theirs, signed, keys) = case(id);
            assert_eq!(ours, theirs, "{id}");
            assert_eq!(signature(ours.as_bytes()), signed, "{id}");
            assert!(is_signed(ours.as_bytes(), signed.as_bytes()), "{id}");
            let read: Value = serde_json::from_str(&ours).expect("it is JSON");
            let found: Vec<String> = updates(&read).into_iter().map(|update| update.key).collect();
            assert_eq!(found, keys, "{id}");
        }
    }

    #[test]
    fn one_changed_byte_or_digit_breaks_the_signature() {
        let body = body(vec![account_event()]);
        let signed = signature(body.as_bytes());
        assert!(!is_signed(body.replace("hello", "hellO").as_bytes(), signed.as_bytes()));
        assert!(!is_signed(body.as_bytes(), &signed.as_bytes()[..70]));
        assert!(!is_signed(
            body.as_bytes(),
            signed.replace("sha256=", "sha1=").as_bytes()
        ));
    }

    #[test]
    fn an_echo_and_an_account_event_name_no_shopper() {
        for change in [account_event(), app_echo(&sam(), "wamid.1", 1)] {
            let read: Value = serde_json::from_str(&body(vec![change])).expect("it is JSON");
            assert!(updates(&read).is_empty());
        }
    }
}
