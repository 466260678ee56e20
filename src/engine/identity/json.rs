//! Reads JSON (RFC 8259) from front to back, without building anything.
//!
//! Pure. In: a text. Out: the places of its tokens, or [`Torn`] where the grammar is broken. All of the text is checked,
//! also what is skipped, so a body that was cut off or is something else never yields an identity. Strings are passed over
//! eight bytes at a time, and that is most of a body. Which tokens matter is left to `tree`.
//!
//! Speed: `benches/identity.rs`.

use std::borrow::Cow;

/// How deep containers may nest. The stack of open ones fits one word, and nothing here recurses.
pub(super) const DEPTH_LIMIT: u32 = u128::BITS;

/// The text is not JSON, or nests deeper than [`DEPTH_LIMIT`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Torn;

/// A string, as the place of what is between its quotes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Quoted {
    start: usize,
    close: usize,
    escaped: bool,
}

/// A place in a text: always at the first byte of a token, or behind the last one.
pub(super) struct Cursor<'a> {
    text: &'a str,
    at: usize,
    /// The byte at `at`.
    byte: u8,
}

impl<'a> Cursor<'a> {
    /// At the first token of a text.
    pub(super) fn new(text: &'a str) -> Self {
        let (at, byte) = token(text.as_bytes(), 0);
        Self { text, at, byte }
    }

    /// The first byte of the token; at the end, and for a NUL, 0.
    #[inline(always)]
    pub(super) fn peek(&self) -> u8 {
        self.byte
    }

    /// Whether no token is left.
    pub(super) fn is_done(&self) -> bool {
        self.at >= self.text.len()
    }

    #[inline(always)]
    fn go(&mut self, at: usize) {
        (self.at, self.byte) = token(self.text.as_bytes(), at);
    }

    /// Consumes the token if it is this bracket, comma or colon.
    #[inline(always)]
    pub(super) fn take(&mut self, byte: u8) -> bool {
        if self.byte != byte {
            return false;
        }
        self.go(self.at + 1);
        true
    }

    /// Consumes a member's name and the colon behind it.
    #[inline(always)]
    pub(super) fn name(&mut self) -> Result<Quoted, Torn> {
        if self.byte != b'"' {
            return Err(Torn);
        }
        let name = self.string()?;
        if self.take(b':') { Ok(name) } else { Err(Torn) }
    }

    /// Consumes the string that the token begins.
    #[inline(always)]
    pub(super) fn string(&mut self) -> Result<Quoted, Torn> {
        let start = self.at + 1;
        let (close, escaped) = string_close(self.text.as_bytes(), start)?;
        self.go(close + 1);
        Ok(Quoted { start, close, escaped })
    }

    /// What a string says.
    ///
    /// # Errors
    /// [`Torn`] if half of a surrogate pair stands alone: that is no text, and parsers disagree on what to make of it.
    pub(super) fn said(&self, string: Quoted) -> Result<Cow<'a, str>, Torn> {
        let raw = self.text.get(string.start..string.close).ok_or(Torn)?;
        if string.escaped {
            unescape(raw).map(Cow::Owned)
        } else {
            Ok(Cow::Borrowed(raw))
        }
    }

    /// Whether a string says this.
    #[inline(always)]
    pub(super) fn says(&self, string: Quoted, text: &str) -> bool {
        if string.escaped {
            return self.said(string).is_ok_and(|said| said == text);
        }
        let Some(raw) = self.text.as_bytes().get(string.start..string.close) else {
            return false;
        };
        // Members of one object often have names of one length; their first bytes spare a call that compares them.
        raw.len() == text.len() && raw.first() == text.as_bytes().first() && raw == text.as_bytes()
    }

    /// Consumes the number that the token begins and gives it as written: all of its digits, however large.
    pub(super) fn number(&mut self) -> Result<&'a str, Torn> {
        let start = self.at;
        let end = number_end(self.text.as_bytes(), start)?;
        self.go(end);
        self.text.get(start..end).ok_or(Torn)
    }

    /// Consumes the value that the token begins, `depth` containers deep.
    #[inline(always)]
    pub(super) fn skip(&mut self, depth: u32) -> Result<(), Torn> {
        // Most values are texts.
        if self.byte == b'"' {
            return self.string().map(drop);
        }
        let behind = value_end(self.text.as_bytes(), self.at, DEPTH_LIMIT.saturating_sub(depth))?;
        self.go(behind);
        Ok(())
    }
}

/// Stands for the byte behind the last one. A NUL cannot begin a token either.
const END: u8 = 0;

/// What sets `{` and `}` apart from `[` and `]`.
const OBJECT: u8 = 0x20;

/// The index of the token behind the next value, in which at most `room` containers may be open at once.
fn value_end(bytes: &[u8], from: usize, room: u32) -> Result<usize, Torn> {
    let mut open = 0;
    // One bit per open container, the innermost lowest: set for an object.
    let mut kinds: u128 = 0;
    let mut expects_name = false;
    let (mut at, mut byte) = token(bytes, from);
    loop {
        if byte == b'"' {
            (at, _) = string_close(bytes, at + 1)?;
            (at, byte) = token(bytes, at + 1);
            if expects_name {
                if byte != b':' {
                    return Err(Torn);
                }
                (at, byte) = token(bytes, at + 1);
                expects_name = false;
                continue;
            }
        } else if expects_name {
            return Err(Torn);
        } else if byte == b'{' || byte == b'[' {
            if open == room {
                return Err(Torn);
            }
            // The brackets of objects differ from those of arrays by this one bit.
            let kind = byte & OBJECT;
            (at, byte) = token(bytes, at + 1);
            if byte != (b']' | kind) {
                open += 1;
                kinds = (kinds << 1) | u128::from(kind / OBJECT);
                expects_name = kind == OBJECT;
                continue;
            }
            (at, byte) = token(bytes, at + 1);
        } else {
            at = match byte {
                b'-' | b'0'..=b'9' => number_end(bytes, at)?,
                b't' => literal_end(bytes, at, b"true")?,
                b'f' => literal_end(bytes, at, b"false")?,
                b'n' => literal_end(bytes, at, b"null")?,
                _ => return Err(Torn),
            };
            (at, byte) = token(bytes, at);
        }
        // A value has ended; so may the containers around it.
        loop {
            if open == 0 {
                return Ok(at);
            }
            if byte == b',' {
                (at, byte) = token(bytes, at + 1);
                expects_name = kinds & 1 == 1;
                break;
            }
            if byte != (b']' | (OBJECT * (kinds & 1) as u8)) {
                return Err(Torn);
            }
            (at, byte) = token(bytes, at + 1);
            open -= 1;
            kinds >>= 1;
        }
    }
}

/// The place and the first byte of the next token from `at` on.
#[inline(always)]
fn token(bytes: &[u8], at: usize) -> (usize, u8) {
    match bytes.get(at) {
        Some(&byte) if byte > b' ' => (at, byte),
        _ => token_behind_blanks(bytes, at),
    }
}

#[inline(never)]
fn token_behind_blanks(bytes: &[u8], mut at: usize) -> (usize, u8) {
    loop {
        match bytes.get(at) {
            Some(b' ' | b'\n' | b'\r' | b'\t') => at += 1,
            byte => return (at, byte.copied().unwrap_or(END)),
        }
    }
}

/// The index of the quote that closes the string of which the first byte is `at`, and whether there are escapes in it.
#[inline(always)]
fn string_close(bytes: &[u8], at: usize) -> Result<(usize, bool), Torn> {
    let at = plain_end(bytes, at);
    if bytes.get(at) == Some(&b'"') {
        Ok((at, false))
    } else {
        escaped_close(bytes, at).map(|at| (at, true))
    }
}

/// The index of the closing quote behind the backslash at `at`.
#[inline(never)]
fn escaped_close(bytes: &[u8], mut at: usize) -> Result<usize, Torn> {
    loop {
        match bytes.get(at) {
            Some(b'"') => return Ok(at),
            Some(b'\\') => at = plain_end(bytes, escape_end(bytes, at + 1)?),
            _ => return Err(Torn),
        }
    }
}

/// The index behind a number.
fn number_end(bytes: &[u8], start: usize) -> Result<usize, Torn> {
    let mut at = start;
    if bytes.get(at) == Some(&b'-') {
        at += 1;
    }
    at = match bytes.get(at) {
        Some(b'0') => at + 1,
        _ => digits_end(bytes, at)?,
    };
    if bytes.get(at) == Some(&b'.') {
        at = digits_end(bytes, at + 1)?;
    }
    if matches!(bytes.get(at), Some(b'e' | b'E')) {
        at += 1;
        if matches!(bytes.get(at), Some(b'+' | b'-')) {
            at += 1;
        }
        at = digits_end(bytes, at)?;
    }
    Ok(at)
}

/// The index behind a word that has to stand at `at`.
fn literal_end(bytes: &[u8], at: usize, word: &[u8]) -> Result<usize, Torn> {
    let stands = bytes.get(at..).is_some_and(|rest| rest.starts_with(word));
    if stands { Ok(at + word.len()) } else { Err(Torn) }
}

/// The index of the first byte from `at` on that cannot stand in a string as it is: a quote, a backslash or a control
/// character; the length of the text if there is none.
#[inline(always)]
fn plain_end(bytes: &[u8], mut at: usize) -> usize {
    const fn each(byte: u8) -> u64 {
        u64::from_ne_bytes([byte; 8])
    }

    let Some(rest) = bytes.get(at..) else { return at };
    for word in rest.as_chunks().0 {
        // A subtraction sets the high bit of each byte that was smaller than what is subtracted. Its borrow may set that of
        // bytes above such a one, never below; so the lowest, which is the first in the text, is right. The quote is the
        // only character from the space on that bit 1 brings below 0x21, and no control character leaves that range by it.
        let word = u64::from_le_bytes(*word);
        let quotes_and_controls = (word ^ each(0x02)).wrapping_sub(each(0x21));
        let backslashes = (word ^ each(b'\\')).wrapping_sub(each(0x01));
        let marks = (quotes_and_controls | backslashes) & !word & each(0x80);
        if marks != 0 {
            return at + marks.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    plain_end_of_tail(bytes, at)
}

/// The same for the last few bytes of a text.
#[cold]
fn plain_end_of_tail(bytes: &[u8], at: usize) -> usize {
    let tail = bytes.get(at..).unwrap_or_default();
    at + tail
        .iter()
        .position(|&b| b == b'"' || b == b'\\' || b < b' ')
        .unwrap_or(tail.len())
}

/// The index behind an escape, of which `at` is the byte after the backslash.
fn escape_end(bytes: &[u8], at: usize) -> Result<usize, Torn> {
    match bytes.get(at) {
        Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => Ok(at + 1),
        Some(b'u') => {
            let digits: &[u8; 4] = bytes.get(at + 1..).and_then(<[u8]>::first_chunk).ok_or(Torn)?;
            if digits.iter().all(u8::is_ascii_hexdigit) {
                Ok(at + 5)
            } else {
                Err(Torn)
            }
        }
        _ => Err(Torn),
    }
}

/// The index behind one or more digits.
#[inline]
fn digits_end(bytes: &[u8], start: usize) -> Result<usize, Torn> {
    let mut at = start;
    while bytes.get(at).is_some_and(u8::is_ascii_digit) {
        at += 1;
    }
    if at == start { Err(Torn) } else { Ok(at) }
}

/// Resolves the escapes of a string that `Cursor::string` accepted.
#[cold]
fn unescape(raw: &str) -> Result<String, Torn> {
    let mut text = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some((before, escape)) = rest.split_once('\\') {
        text.push_str(before);
        let mut chars = escape.chars();
        text.push(match chars.next().ok_or(Torn)? {
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'u' => {
                let (scalar, behind) = scalar(chars.as_str())?;
                text.push(scalar);
                rest = behind;
                continue;
            }
            itself => itself,
        });
        rest = chars.as_str();
    }
    text.push_str(rest);
    Ok(text)
}

/// The character that `XXXX` or `XXXX\uXXXX` stands for, and what follows it.
fn scalar(digits: &str) -> Result<(char, &str), Torn> {
    let (unit, rest) = code_unit(digits)?;
    let (code, rest) = match unit {
        0xD800..=0xDBFF => {
            let (low, rest) = code_unit(rest.strip_prefix("\\u").ok_or(Torn)?)?;
            if !(0xDC00..=0xDFFF).contains(&low) {
                return Err(Torn);
            }
            (0x1_0000 + (((unit - 0xD800) << 10) | (low - 0xDC00)), rest)
        }
        _ => (unit, rest),
    };
    // What is left out of `char` is a low half without its high one.
    Ok((char::from_u32(code).ok_or(Torn)?, rest))
}

fn code_unit(digits: &str) -> Result<(u32, &str), Torn> {
    let (unit, rest) = digits.split_at_checked(4).ok_or(Torn)?;
    Ok((u32::from_str_radix(unit, 16).map_err(|_| Torn)?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_json(text: &str) -> bool {
        let mut cursor = Cursor::new(text);
        cursor.skip(0).is_ok() && cursor.is_done()
    }

    fn string(text: &str) -> Result<String, Torn> {
        let mut cursor = Cursor::new(text);
        let string = cursor.string()?;
        cursor.said(string).map(Cow::into_owned)
    }

    #[test]
    fn every_kind_of_value_is_read_to_its_end() {
        for text in [
            "{}",
            "[]",
            " [ ] ",
            "null",
            "true",
            "false",
            "\"\"",
            "0",
            "-0",
            "-1.50e+10",
            "1E-2",
            "[[],{},[{}]]",
            "{\"a\":1,\"a\":[2,{\"b\":\"c\"}]}",
            "\r\n\t{ \"a\" : [ 1 , 2 ] }\n",
            "\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u00e9\"",
            "\"\\ud83d\"",
        ] {
            assert!(is_json(text), "{text}");
        }
    }

    #[test]
    fn text_outside_the_grammar_is_torn() {
        for text in [
            "",
            " ",
            "{",
            "[",
            "}",
            "[}",
            "{]",
            "[1,]",
            "{,}",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1,}",
            "{a:1}",
            "[1 2]",
            "1 2",
            "01",
            "-",
            "1.",
            ".5",
            "1e",
            "1e+",
            "+1",
            "0x1",
            "NaN",
            "nul",
            "truex",
            "\"",
            "\"\\",
            "\"\\x\"",
            "\"\\u12g4\"",
            "\"\\u+123\"",
            "\"\\u12\"",
            "\"\t\"",
            "\"\u{1}abcdefgh\"",
            "'a'",
            "//\n1",
            "\u{feff}1",
            "\u{a0}1",
            "[,1]",
            "{\"a\":1}}",
            "{\"a\" 1}",
            "{1:1}",
        ] {
            assert!(!is_json(text), "{text:?}");
        }
    }

    #[test]
    fn nesting_is_bounded_and_does_not_recurse() {
        let limit = DEPTH_LIMIT as usize;
        assert!(is_json(&format!("{}{}", "[".repeat(limit), "]".repeat(limit))));
        assert!(!is_json(&format!("{}{}", "[".repeat(limit + 1), "]".repeat(limit + 1))));
        assert!(!is_json(&"[".repeat(1_000_000)));
        assert!(!is_json(&"{\"a\":".repeat(1_000_000)));
        let alternating = "[{\"a\":".repeat(limit / 2) + "1" + &"}]".repeat(limit / 2);
        assert!(is_json(&alternating));
        assert!(!is_json(&alternating.replacen("}]", "]}", 1)));
    }

    #[test]
    fn number_keeps_its_digits() {
        for text in [
            "115310627314723954",
            "9007199254740993",
            "1e3",
            "-0.10",
            "123456789012345678901234567890",
        ] {
            assert_eq!(Cursor::new(text).number(), Ok(text));
        }
    }

    #[test]
    fn string_is_unescaped_exactly() {
        for (text, said) in [
            (r#""Élodie""#, "Élodie"),
            (r#""\u00c9lodie""#, "Élodie"),
            (r#""a\/b\\c\"d\b\f\n\r\t""#, "a/b\\c\"d\u{8}\u{c}\n\r\t"),
            (r#""\ud83d\udc4d!""#, "👍!"),
            (r#""\uD83D\uDC4D""#, "👍"),
            (r#""\ud800\udc00\udbff\udfff""#, "\u{10000}\u{10ffff}"),
            (r#""\ud7ff\ue000""#, "\u{d7ff}\u{e000}"),
            (r#""\u0000""#, "\0"),
            (r#""\uffff""#, "\u{ffff}"),
        ] {
            assert_eq!(string(text), Ok(said.to_owned()), "{text}");
        }
    }

    #[test]
    fn half_a_surrogate_pair_is_no_text() {
        for text in [
            r#""\ud83d""#,
            r#""\ud83d!""#,
            r#""\udc4d""#,
            r#""\ud83d\ud83d""#,
            r#""\ud83d\n""#,
            r#""\udc4d\ud83d""#,
        ] {
            assert_eq!(string(text), Err(Torn), "{text}");
        }
    }

    #[test]
    fn end_of_plain_text_is_found_at_every_offset() {
        for stop in [b'"', b'\\', 0, 0x1f] {
            for before in 0..40 {
                for filler in ["x", "é", " ", "\u{7f}", "!", "#", "["] {
                    let mut bytes = filler.repeat(before).into_bytes();
                    let expected = bytes.len();
                    bytes.push(stop);
                    bytes.extend_from_slice(b"\"\\\x01 more of it");
                    assert_eq!(plain_end(&bytes, 0), expected, "{before} {filler:?} {stop}");
                }
            }
        }
        assert_eq!(plain_end(b"no end here", 0), 11);
        assert_eq!(plain_end(b"", 3), 3);
    }
}
