//! Reads one claim of a token that a header carries (RFC 7519).
//!
//! Pure. In: a header's value. Out: the token's payload as text, of which `tree` then reads the claim. The signature is
//! **not** verified: what a claim says routes a request and proves nothing, exactly as any other header that a client can
//! set. Whoever serves the request verifies the token.

use base64::Engine as _;
use base64::alphabet::URL_SAFE;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use super::pointer::{Pointer, PointerError};

/// The longest token that is read, in bytes. A longer one names nobody.
pub const TOKEN_LIMIT_BYTES: usize = 16 * 1024;

/// RFC 7515 leaves padding out; some issuers do not.
const BASE64URL: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A header says it has a token, and what follows is none that can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NoToken;

/// The payload of the token in a header's value: `Bearer TOKEN`, or the token alone. `None` if the value is of another
/// scheme, such as `Basic`, and so has no token.
pub(super) fn payload(value: &str) -> Option<Result<Vec<u8>, NoToken>> {
    let value = value.trim();
    let token = match value.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => token.trim_start(),
        Some(_) => return None,
        None if value.is_empty() || value.eq_ignore_ascii_case("bearer") => return None,
        None => value,
    };
    Some(decode(token).ok_or(NoToken))
}

/// Of the three parts the middle one; the last may be empty, the others not.
fn decode(token: &str) -> Option<Vec<u8>> {
    if token.len() > TOKEN_LIMIT_BYTES {
        return None;
    }
    let mut parts = token.split('.');
    let (Some(header), Some(payload), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
        return None;
    };
    if header.is_empty() || payload.is_empty() {
        return None;
    }
    BASE64URL.decode(payload).ok()
}

/// What names a claim: a JSON pointer if it begins with `/`, else the whole name of one claim at the top, so that
/// `https://shop.example/id` is a name.
///
/// # Errors
/// As [`Pointer::parse`]; an empty name too.
pub fn claim(text: &str) -> Result<Pointer, PointerError> {
    if text.starts_with('/') || text.is_empty() {
        return Pointer::parse(text);
    }
    Pointer::parse(&format!("/{}", text.replace('~', "~0").replace('/', "~1")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payload_is_the_middle_of_three_parts() {
        let read = |value: &str| payload(value).map(|read| read.map(|bytes| String::from_utf8(bytes).unwrap()));
        for value in [
            "Bearer eyJ.eyJzdWIiOiJhIn0.sig",
            "bearer  eyJ.eyJzdWIiOiJhIn0.",
            "eyJ.eyJzdWIiOiJhIn0=.sig",
        ] {
            assert_eq!(read(value), Some(Ok("{\"sub\":\"a\"}".to_owned())), "{value}");
        }
        for value in [
            "Bearer a.eyJzdWIiOiJhIn0",
            "a.eyJzdWIiOiJhIn0.b.c",
            "a.b.c.d.e",
            ".eyJzdWIiOiJhIn0.c",
            "a..c",
            "a.+/+/.c",
            "opaque",
        ] {
            assert_eq!(read(value), Some(Err(NoToken)), "{value}");
        }
        for value in ["", "Bearer ", "Basic YTpi", "Digest a.b.c"] {
            assert_eq!(read(value), None, "{value}");
        }
        let long = format!("a.{}.c", "A".repeat(TOKEN_LIMIT_BYTES));
        assert_eq!(read(&long), Some(Err(NoToken)));
    }

    #[test]
    fn claim_is_a_name_or_a_pointer() {
        let text = |claim_text: &str| claim(claim_text).map(|pointer| pointer.to_string());
        assert_eq!(text("sub"), Ok("/sub".to_owned()));
        assert_eq!(
            text("https://shop.example/id"),
            Ok("/https:~1~1shop.example~1id".to_owned())
        );
        assert_eq!(text("/realm/ids/*"), Ok("/realm/ids/*".to_owned()));
        assert_eq!(text(""), Err(PointerError::Empty));
        assert!(matches!(text("a*"), Err(PointerError::Star(_))));
    }
}
