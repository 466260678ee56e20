//! What is shown of a value, and what is not.
//!
//! Pure. In: a value that differs. Out: a [`Sample`]: its shape, which may leave the process, and a short piece of its
//! text, which only a caller who asks for it by name gets to see. Also the coarse [`Form`] of a value, by which a change
//! that every call brings (an id, a time) is told from one that it does not.

use std::fmt;

use super::json;

/// The longest piece of a value that is kept, in bytes.
pub const SAMPLE_LIMIT_BYTES: usize = 120;

/// What a value looks like without saying what it is.
///
/// Shape when displayed: `null`, `boolean`, `number`, `text(12)` with its count of characters, `array(3)` and
/// `object(5)` with their counts of items and members, `bytes(512)` for a body that is not JSON, `status(503)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// A JSON array.
    Array(usize),
    /// `true` or `false`.
    Boolean,
    /// A body, or the values of a header.
    Bytes(usize),
    /// JSON's `null`.
    Null,
    /// A JSON number.
    Number,
    /// A JSON object.
    Object(usize),
    /// The status of an answer: nothing to hide.
    Status(u16),
    /// A JSON text.
    Text(usize),
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Shape::Array(items) => write!(f, "array({items})"),
            Shape::Boolean => f.write_str("boolean"),
            Shape::Bytes(bytes) => write!(f, "bytes({bytes})"),
            Shape::Null => f.write_str("null"),
            Shape::Number => f.write_str("number"),
            Shape::Object(members) => write!(f, "object({members})"),
            Shape::Status(status) => write!(f, "status({status})"),
            Shape::Text(characters) => write!(f, "text({characters})"),
        }
    }
}

/// One side's value at a divergence.
///
/// `Display` and `Debug` show its [`Shape`] alone, so that no log line, panic or page shows a shopper's data by accident.
#[derive(Clone, PartialEq, Eq)]
pub struct Sample {
    shape: Shape,
    text: Box<str>,
}

impl Sample {
    pub(super) fn of_json(value: json::Value<'_>) -> Self {
        let shape = match value.kind() {
            json::Kind::Array => Shape::Array(value.len()),
            json::Kind::Bool => Shape::Boolean,
            json::Kind::Null => Shape::Null,
            json::Kind::Number => Shape::Number,
            json::Kind::Object => Shape::Object(value.len()),
            json::Kind::Text => Shape::Text(characters(&value.text().decode())),
        };
        Self {
            shape,
            text: shorten(value.raw()),
        }
    }

    pub(super) fn of_bytes(bytes: &[u8]) -> Self {
        // Four more bytes than are shown: a character that the cut divides is dropped by `shorten`, not garbled.
        let head = bytes.get(..SAMPLE_LIMIT_BYTES + 4).unwrap_or(bytes);
        Self {
            shape: Shape::Bytes(bytes.len()),
            text: shorten(&String::from_utf8_lossy(head)),
        }
    }

    pub(super) fn of_status(status: u16) -> Self {
        Self {
            shape: Shape::Status(status),
            text: status.to_string().into(),
        }
    }

    /// What may be shown to everybody.
    #[must_use]
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// The value as it stands in the answer, cut to [`SAMPLE_LIMIT_BYTES`]: **shopper data**, for a terminal whose user
    /// gave us the pair, never for a log, a page or a metric.
    #[must_use]
    pub fn clear(&self) -> &str {
        &self.text
    }

    pub(super) fn form(&self) -> Form {
        match self.shape {
            Shape::Number if is_epoch(&self.text) => Form::Time,
            Shape::Number => Form::Number,
            Shape::Text(_) => {
                let inner = self.text.strip_prefix('"').unwrap_or(&self.text);
                Form::of_text(inner.strip_suffix('"').unwrap_or(inner))
            }
            Shape::Bytes(_) => Form::of_text(&self.text),
            _ => Form::Plain,
        }
    }
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.shape, f)
    }
}

impl fmt::Debug for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.shape, f)
    }
}

/// Characters of UTF-8 (or of lone surrogates in its manner): every byte but a continuation begins one.
fn characters(bytes: &[u8]) -> usize {
    bytes.iter().filter(|&&byte| byte & 0xC0 != 0x80).count()
}

fn shorten(text: &str) -> Box<str> {
    if text.len() <= SAMPLE_LIMIT_BYTES {
        return text.into();
    }
    let end = text.floor_char_boundary(SAMPLE_LIMIT_BYTES - '…'.len_utf8());
    let (head, _) = text.split_at(end);
    format!("{head}…").into()
}

/// Whether a member's name looks like a name in a schema rather than like data.
pub(super) fn is_name(text: &str) -> bool {
    let begins = text.starts_with(|c: char| c.is_ascii_alphabetic() || matches!(c, '_' | '$' | '@'));
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | ':' | '$');
    let digits = text.bytes().filter(u8::is_ascii_digit).count();
    begins && text.len() <= 40 && text.chars().skip(1).all(plain) && digits <= 4
}

/// What kind of thing a text or number seems to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Form {
    /// Nothing between the quotes.
    Empty,
    /// A number, or a text of nothing but one.
    Number,
    /// Everything else.
    Plain,
    /// An RFC 3339 date or time, an HTTP date, or a number that is a Unix time of 2001 to 2039 in s, ms or us.
    Time,
    /// At least 16 characters without a space in which letters mix with 3 digits, or both cases with one: ids, keys.
    Token,
    /// 8-4-4-4-12 hexadecimal digits.
    Uuid,
}

impl Form {
    fn of_text(text: &str) -> Self {
        let bytes = text.as_bytes();
        match bytes {
            [] => Form::Empty,
            _ if is_uuid(bytes) => Form::Uuid,
            _ if is_date(bytes) => Form::Time,
            _ if text.trim_start_matches('-').starts_with(|c: char| c.is_ascii_digit())
                && text.parse::<f64>().is_ok() =>
            {
                Form::Number
            }
            _ if is_token(bytes) => Form::Token,
            _ => Form::Plain,
        }
    }

    /// Every call may bring another one.
    pub(super) fn is_volatile(self) -> bool {
        matches!(self, Form::Time | Form::Token | Form::Uuid)
    }
}

fn is_uuid(text: &[u8]) -> bool {
    text.len() == 36
        && text.iter().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => *byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

fn is_date(text: &[u8]) -> bool {
    let dashed = |text: &[u8]| {
        text.iter().enumerate().all(|(at, byte)| {
            if at == 4 || at == 7 {
                *byte == b'-'
            } else {
                byte.is_ascii_digit()
            }
        })
    };
    let rfc_3339 = text.split_at_checked(10).is_some_and(|(date, time)| {
        dashed(date) && (time.is_empty() || matches!(time, [b'T' | b't' | b' ', hour, ..] if hour.is_ascii_digit()))
    });
    rfc_3339 || (text.len() == 29 && text.ends_with(b" GMT"))
}

fn is_token(text: &[u8]) -> bool {
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"_-.=+/:".contains(byte);
    // The last character of a cut text is an ellipsis.
    let text = text.strip_suffix("…".as_bytes()).unwrap_or(text);
    let digits = text.iter().filter(|byte| byte.is_ascii_digit()).count();
    let (lower, upper) = (
        text.iter().any(u8::is_ascii_lowercase),
        text.iter().any(u8::is_ascii_uppercase),
    );
    text.len() >= 16
        && text.iter().all(allowed)
        && (digits >= 3 && (lower || upper) || digits >= 1 && lower && upper)
        && memchr::memmem::find(text, b"://").is_none()
}

fn is_epoch(number: &str) -> bool {
    let seconds = number.parse::<f64>().unwrap_or(0.0);
    [1.0, 1e3, 1e6]
        .iter()
        .any(|unit| (1e9..2.2e9).contains(&(seconds / unit)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(text: &str) -> Sample {
        Sample::of_json(json::Tree::parse(text.as_bytes()).unwrap().root())
    }

    #[test]
    fn shape_tells_nothing_of_the_value() {
        let table = [
            ("null", "null"),
            ("true", "boolean"),
            ("33639980123", "number"),
            (r#""+33 6 39 98 01 23""#, "text(17)"),
            (r#""\u00e9\n""#, "text(2)"),
            ("[1,[2]]", "array(2)"),
            (r#"{"a":1}"#, "object(1)"),
        ];
        for (text, shape) in table {
            let sample = sample(text);
            assert_eq!(
                (sample.to_string().as_str(), format!("{sample:?}").as_str()),
                (shape, shape),
                "{text}"
            );
            assert_eq!(sample.clear(), text);
        }
        assert_eq!(Sample::of_bytes(b"\xff\xfe").to_string(), "bytes(2)");
        assert_eq!(Sample::of_status(503).to_string(), "status(503)");
    }

    #[test]
    fn long_value_is_cut_at_a_character() {
        let text = format!("\"{}\"", "é".repeat(500));
        let sample = sample(&text);
        assert_eq!(sample.shape(), Shape::Text(500));
        assert!(sample.clear().len() <= SAMPLE_LIMIT_BYTES && sample.clear().ends_with("é…"));
        let bytes = Sample::of_bytes("€".repeat(500).as_bytes());
        assert!(bytes.clear().len() <= SAMPLE_LIMIT_BYTES && bytes.clear().ends_with("€…"));
    }

    #[test]
    fn names_of_a_schema_are_told_from_data() {
        for name in [
            "items",
            "wa_id",
            "@type",
            "$ref",
            "line_items_v2",
            "sha256",
            "content-type",
            "a.b",
        ] {
            assert!(is_name(name), "{name}");
        }
        let data = [
            "",
            "33639980123",
            "+336",
            "jane@example.com",
            "a1b2c3d4e5",
            "naïve",
            "two words",
        ];
        for text in data {
            assert!(!is_name(text), "{text}");
        }
        assert!(!is_name(&"a".repeat(41)));
    }

    #[test]
    fn forms_are_recognised() {
        let table = [
            (r#""""#, Form::Empty),
            (r#""0b6b3f3e-8f0e-4a57-9f1c-1f3a5d1c2b3a""#, Form::Uuid),
            (r#""2026-01-01""#, Form::Time),
            (r#""2026-01-01T10:00:00Z""#, Form::Time),
            (r#""Thu, 01 Jan 2026 10:00:00 GMT""#, Form::Time),
            ("1767261600", Form::Time),
            ("1767261600123", Form::Time),
            ("1767261600.5", Form::Time),
            ("42", Form::Number),
            (r#""42.50""#, Form::Number),
            (r#""wamid.HBgLMzM2Mzk5ODAxMjM""#, Form::Token),
            (r#""https://example.com/orders/12345""#, Form::Plain),
            (r#""delivered""#, Form::Plain),
            (r#""nan""#, Form::Plain),
            ("true", Form::Plain),
        ];
        for (text, form) in table {
            assert_eq!(sample(text).form(), form, "{text}");
        }
        assert_eq!(sample(&format!("\"{}\"", "a1".repeat(200))).form(), Form::Token);
    }
}
