//! The webhook payloads of `tests/payloads`, sent byte for byte, and their signatures.

use std::net::SocketAddr;
use std::path::Path;

use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use http::{Method, Request};
use http_body_util::Full;
use serde_json::Value;
use sha2::Sha256;

use super::{Answered, Received, request, send};

/// The secret with which the payloads of WhatsApp are signed.
pub const SECRET: &str = "example-app-secret";

const SIGNATURE: &str = "x-hub-signature-256";

/// One case file.
#[derive(Clone, Debug)]
pub struct Case {
    pub id: String,
    pub sender: String,
    pub method: Method,
    pub target: String,
    pub headers: Vec<(String, String)>,
    pub body: Bytes,
    /// Every shopper once, in the order of the body.
    pub identities: Vec<String>,
    pub tenant: Option<String>,
}

impl Case {
    pub fn load(id: &str) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/payloads")
            .join(id)
            .with_extension("json");
        let case: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let sent = &case["request"];
        let query = text(&sent["query"]);
        let mark = if query.is_empty() { "" } else { "?" };
        let mut identities = Vec::new();
        for identity in case["identities"].as_array().unwrap() {
            let value = text(&identity["value"]);
            if !identities.contains(&value) {
                identities.push(value);
            }
        }
        let headers = sent["headers"]
            .as_array()
            .unwrap()
            .iter()
            .map(|pair| (text(&pair[0]), text(&pair[1])));
        Self {
            id: text(&case["id"]),
            sender: text(&case["sender"]),
            method: text(&sent["method"]).parse().unwrap(),
            target: format!("{}{mark}{query}", text(&sent["path"])),
            headers: headers.collect(),
            body: text(&sent["body"]).into(),
            identities,
            tenant: case["tenant"].as_str().map(str::to_owned),
        }
    }

    /// Every case, in the order of their names.
    pub fn all() -> Vec<Self> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/payloads");
        let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let mut names: Vec<_> = files
            .filter(|path| path.extension().is_some_and(|e| e == "json"))
            .collect();
        names.sort();
        assert!(names.len() > 20);
        names
            .iter()
            .map(|path| Self::load(path.file_stem().unwrap().to_str().unwrap()))
            .collect()
    }

    /// A text message of this shopper, signed as Meta signs.
    pub fn text_from(shopper: &str) -> Self {
        let mut case = Self::load("wa-text");
        let body = std::str::from_utf8(&case.body).unwrap().replace("33639980123", shopper);
        case.signed_over(body.into_bytes());
        case.identities = vec![shopper.to_owned()];
        case
    }

    /// Replaces the body, and signs it.
    pub fn signed_over(&mut self, body: impl Into<Bytes>) {
        self.body = body.into();
        let signature = sign(&self.body);
        for (name, value) in &mut self.headers {
            if name.eq_ignore_ascii_case(SIGNATURE) {
                value.clone_from(&signature);
            }
        }
    }

    pub fn request(&self) -> Request<Full<Bytes>> {
        request(self.method.clone(), &self.target, &self.headers(), self.body.clone())
    }

    pub async fn send(&self, address: SocketAddr) -> Answered {
        send(
            address,
            self.method.clone(),
            &self.target,
            &self.headers(),
            self.body.clone(),
        )
        .await
    }

    fn headers(&self) -> Vec<(&str, &str)> {
        self.headers.iter().map(|(name, value)| (&**name, &**value)).collect()
    }
}

/// The value of the signature header over a body.
pub fn sign(body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
    mac.update(body);
    let hex: String = mac
        .finalize()
        .into_bytes()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("sha256={hex}")
}

/// Whether what a backend received is what Meta signed: it checks as a backend does.
pub fn signature_holds(received: &Received) -> bool {
    received.header(SIGNATURE) == sign(&received.body)
}
