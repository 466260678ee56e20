//! A reader of JSON (RFC 8259) that forgets nothing a comparison needs.
//!
//! Pure. In: the bytes of a body. Out: a [`Tree`] that keeps the text of every number, every occurrence of a repeated
//! member and the order of members; all of it are spans of the input, 16 bytes a value. It leaves comparing numbers to
//! `number` and everything about places to `path`.
//!
//! Strict: what RFC 8259 does not allow (comments, trailing commas, `NaN`, control characters in texts, bytes that are
//! not UTF-8) is [`Refusal::Syntax`]. A lone surrogate escape is allowed by its grammar, and so here. Neither reading
//! nor any walk of the result can exhaust the stack: reading does not recurse, and depth ends at [`DEPTH_LIMIT`].

use std::borrow::Cow;

/// The deepest nesting of arrays and objects that is read.
pub const DEPTH_LIMIT: usize = 256;

/// The most values (member names included) of one body that are read: 16 MB of tree.
pub const NODE_LIMIT: usize = 1_000_000;

/// Why a body gave no tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) enum Refusal {
    /// Deeper than [`DEPTH_LIMIT`].
    Deep,
    /// More than [`NODE_LIMIT`] values, or 4 GiB.
    Large,
    /// Not JSON.
    Syntax,
}

/// What a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) enum Kind {
    Array,
    Bool,
    Null,
    Number,
    Object,
    Text,
}

#[derive(Clone, Copy, Debug)]
struct Node {
    start: u32,
    end: u32,
    /// The node after this one's subtree.
    next: u32,
    /// Items of an array, members of an object.
    children: u32,
}

/// A document, as a list of its values in the order in which they begin.
#[derive(Debug)]
pub(in crate::engine) struct Tree<'a> {
    text: &'a str,
    nodes: Vec<Node>,
}

/// One value of a [`Tree`].
#[derive(Clone, Copy, Debug)]
pub(in crate::engine) struct Value<'t> {
    tree: &'t Tree<'t>,
    at: u32,
}

/// What stands between the quotes of a text or of a member's name, escapes and all.
#[derive(Clone, Copy, Debug)]
pub(in crate::engine) struct Text<'t> {
    raw: &'t str,
}

impl<'a> Tree<'a> {
    /// Reads one document.
    pub(in crate::engine) fn parse(bytes: &'a [u8]) -> Result<Self, Refusal> {
        let text = std::str::from_utf8(bytes).map_err(|_| Refusal::Syntax)?;
        if u32::try_from(text.len()).is_err() {
            return Err(Refusal::Large);
        }
        let mut reader = Reader {
            bytes: text.as_bytes(),
            at: 0,
            nodes: Vec::with_capacity(text.len() / 16 + 8),
        };
        reader.document()?;
        Ok(Self {
            text,
            nodes: reader.nodes,
        })
    }

    /// The outermost value.
    pub(in crate::engine) fn root(&'a self) -> Value<'a> {
        Value { tree: self, at: 0 }
    }
}

impl<'t> Value<'t> {
    // Every `at` comes from the tree itself: `root` exists because a document has a value, `children` stop at the
    // count the reader wrote.
    fn node(self) -> Node {
        self.tree.nodes[self.at as usize]
    }

    /// The value as it stands in the body.
    pub(in crate::engine) fn raw(self) -> &'t str {
        let node = self.node();
        &self.tree.text[node.start as usize..node.end as usize]
    }

    pub(in crate::engine) fn kind(self) -> Kind {
        match self.raw().as_bytes().first() {
            Some(b'{') => Kind::Object,
            Some(b'[') => Kind::Array,
            Some(b'"') => Kind::Text,
            Some(b't' | b'f') => Kind::Bool,
            Some(b'n') => Kind::Null,
            _ => Kind::Number,
        }
    }

    /// How many items an array or members an object has, each occurrence counted; 0 for everything else.
    pub(super) fn len(self) -> usize {
        self.node().children as usize
    }

    /// The content of a text; empty for everything else.
    pub(in crate::engine) fn text(self) -> Text<'t> {
        let raw = self.raw();
        Text {
            raw: raw
                .strip_prefix('"')
                .and_then(|raw| raw.strip_suffix('"'))
                .unwrap_or_default(),
        }
    }

    /// The items of an array.
    pub(in crate::engine) fn items(self) -> impl Iterator<Item = Value<'t>> + use<'t> {
        let mut at = self.at + 1;
        (0..self.len()).map(move |_| {
            let item = Value { tree: self.tree, at };
            at = item.node().next;
            item
        })
    }

    /// The members of an object, in the order of the body, repeated ones as often as they occur.
    pub(in crate::engine) fn members(self) -> impl Iterator<Item = (Text<'t>, Value<'t>)> + use<'t> {
        let mut at = self.at + 1;
        (0..self.len()).map(move |_| {
            let name = Value { tree: self.tree, at };
            let value = Value {
                tree: self.tree,
                at: at + 1,
            };
            at = value.node().next;
            (name.text(), value)
        })
    }
}

impl<'t> Text<'t> {
    #[cfg(test)]
    pub(super) fn of(raw: &'t str) -> Self {
        Self { raw }
    }

    /// The text without escapes, as UTF-8; a lone surrogate becomes the three bytes that UTF-8 would give it, which
    /// are equal to no other text.
    pub(in crate::engine) fn decode(self) -> Cow<'t, [u8]> {
        let raw = self.raw.as_bytes();
        let Some(first) = memchr::memchr(b'\\', raw) else {
            return Cow::Borrowed(raw);
        };
        let mut out = Vec::with_capacity(raw.len());
        let (plain, mut rest) = raw.split_at(first);
        out.extend_from_slice(plain);
        while let [b'\\', escape, tail @ ..] = rest {
            rest = tail;
            match escape {
                b'b' => out.push(0x08),
                b'f' => out.push(0x0C),
                b'n' => out.push(b'\n'),
                b'r' => out.push(b'\r'),
                b't' => out.push(b'\t'),
                b'u' => {
                    let (code, tail) = unicode_escape(rest);
                    rest = tail;
                    push_code(&mut out, code);
                }
                other => out.push(*other),
            }
            let plain = memchr::memchr(b'\\', rest).unwrap_or(rest.len());
            let (plain, tail) = rest.split_at(plain);
            out.extend_from_slice(plain);
            rest = tail;
        }
        Cow::Owned(out)
    }

    /// Both mean the same characters.
    pub(super) fn same(self, other: Text<'_>) -> bool {
        // Of equal spelling is equal; of different spelling is different unless an escape is involved.
        self.raw == other.raw || ((self.escaped() || other.escaped()) && self.decode() == other.decode())
    }

    /// The text as it stands between its quotes.
    pub(in crate::engine) const fn raw(self) -> &'t str {
        self.raw
    }

    fn escaped(self) -> bool {
        memchr::memchr(b'\\', self.raw.as_bytes()).is_some()
    }
}

/// The code point of the digits behind `\u`, joined with a following low surrogate, and what comes after.
fn unicode_escape(digits: &[u8]) -> (u32, &[u8]) {
    let (high, rest) = hex4(digits);
    if (0xD800..0xDC00).contains(&high)
        && let [b'\\', b'u', low @ ..] = rest
        && let (low, rest) = hex4(low)
        && (0xDC00..0xE000).contains(&low)
    {
        return (0x1_0000 + ((high - 0xD800) << 10) + (low - 0xDC00), rest);
    }
    (high, rest)
}

fn hex4(digits: &[u8]) -> (u32, &[u8]) {
    let (digits, rest) = digits.split_at(digits.len().min(4));
    let code = digits.iter().fold(0, |code, &digit| {
        (code << 4) | char::from(digit).to_digit(16).unwrap_or(0)
    });
    (code, rest)
}

fn push_code(out: &mut Vec<u8>, code: u32) {
    match char::from_u32(code) {
        Some(c) => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        // Only a surrogate is no character; it lies in the range of three bytes.
        None => out.extend([12, 6, 0].map(|shift| match shift {
            12 => 0xE0 | (code >> 12) as u8,
            _ => 0x80 | ((code >> shift) & 0x3F) as u8,
        })),
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    nodes: Vec<Node>,
}

impl Reader<'_> {
    fn document(&mut self) -> Result<(), Refusal> {
        let mut open: Vec<usize> = Vec::new();
        loop {
            let byte = self.next_token()?;
            if matches!(byte, b'{' | b'[') {
                if open.len() == DEPTH_LIMIT {
                    return Err(Refusal::Deep);
                }
                open.push(self.begin()?);
                self.at += 1;
                let empty = self.next_token()? == closing(byte);
                if !empty {
                    if byte == b'{' {
                        self.name()?;
                    }
                    continue;
                }
            } else {
                let node = self.begin()?;
                self.scalar(byte)?;
                self.end(node);
                self.count(&open);
            }
            // A value is complete, or a container stands before its end: close what ends here, go on behind a comma.
            loop {
                let Some(&container) = open.last() else {
                    return self.nothing_left();
                };
                // The node began at its opening brace or bracket.
                let opening = self.bytes[self.nodes[container].start as usize];
                match self.next_token()? {
                    b',' if self.nodes[container].children > 0 => {
                        self.at += 1;
                        if opening == b'{' {
                            self.name()?;
                        }
                        break;
                    }
                    byte if byte == closing(opening) => {
                        self.at += 1;
                        self.end(container);
                        open.pop();
                        self.count(&open);
                    }
                    _ => return Err(Refusal::Syntax),
                }
            }
        }
    }

    fn begin(&mut self) -> Result<usize, Refusal> {
        if self.nodes.len() == NODE_LIMIT {
            return Err(Refusal::Large);
        }
        // Positions fit: a longer text was refused before reading.
        self.nodes.push(Node {
            start: self.at as u32,
            end: 0,
            next: 0,
            children: 0,
        });
        Ok(self.nodes.len() - 1)
    }

    fn end(&mut self, node: usize) {
        let next = self.nodes.len() as u32;
        let node = &mut self.nodes[node];
        node.end = self.at as u32;
        node.next = next;
    }

    fn count(&mut self, open: &[usize]) {
        if let Some(&container) = open.last() {
            self.nodes[container].children += 1;
        }
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn next_token(&mut self) -> Result<u8, Refusal> {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.at += 1;
        }
        self.peek().ok_or(Refusal::Syntax)
    }

    fn nothing_left(&mut self) -> Result<(), Refusal> {
        match self.next_token() {
            Ok(_) => Err(Refusal::Syntax),
            Err(_) => Ok(()),
        }
    }

    fn name(&mut self) -> Result<(), Refusal> {
        if self.next_token()? != b'"' {
            return Err(Refusal::Syntax);
        }
        let node = self.begin()?;
        self.string()?;
        self.end(node);
        if self.next_token()? != b':' {
            return Err(Refusal::Syntax);
        }
        self.at += 1;
        Ok(())
    }

    fn scalar(&mut self, first: u8) -> Result<(), Refusal> {
        match first {
            b'"' => self.string(),
            b'-' | b'0'..=b'9' => self.number(),
            b't' => self.word(b"true"),
            b'f' => self.word(b"false"),
            b'n' => self.word(b"null"),
            _ => Err(Refusal::Syntax),
        }
    }

    fn word(&mut self, word: &[u8]) -> Result<(), Refusal> {
        if !self.bytes.get(self.at..).is_some_and(|rest| rest.starts_with(word)) {
            return Err(Refusal::Syntax);
        }
        self.at += word.len();
        Ok(())
    }

    fn string(&mut self) -> Result<(), Refusal> {
        self.at += 1;
        loop {
            let byte = self.peek().ok_or(Refusal::Syntax)?;
            self.at += 1;
            match byte {
                b'"' => return Ok(()),
                b'\\' => {
                    let escape = self.peek().ok_or(Refusal::Syntax)?;
                    self.at += 1;
                    match escape {
                        b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => {}
                        b'u' => {
                            for _ in 0..4 {
                                self.peek().filter(u8::is_ascii_hexdigit).ok_or(Refusal::Syntax)?;
                                self.at += 1;
                            }
                        }
                        _ => return Err(Refusal::Syntax),
                    }
                }
                0..0x20 => return Err(Refusal::Syntax),
                _ => {}
            }
        }
    }

    fn number(&mut self) -> Result<(), Refusal> {
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        if self.peek() == Some(b'0') {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(())
    }

    fn digits(&mut self) -> Result<(), Refusal> {
        let start = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        if self.at == start { Err(Refusal::Syntax) } else { Ok(()) }
    }
}

fn closing(opening: u8) -> u8 {
    if opening == b'{' { b'}' } else { b']' }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<usize, Refusal> {
        Tree::parse(text.as_bytes()).map(|tree| tree.nodes.len())
    }

    #[test]
    fn reads_exactly_what_rfc_8259_allows() {
        let good = [
            "null",
            " true ",
            "false",
            "0",
            "-0",
            "10.50",
            "1e5",
            "1E+5",
            "-1.5e-3",
            r#""""#,
            r#""\u00e9\n\/""#,
            r#""\ud800""#,
            "[]",
            " [ ] ",
            "{}",
            "[1,2]",
            r#"{"a":[{}],"b":{"c":null}}"#,
            "\t[\r\n1 ]\n",
        ];
        for text in good {
            assert!(read(text).is_ok(), "{text}");
        }
        let bad = [
            "",
            " ",
            "nul",
            "nulll",
            "TRUE",
            "NaN",
            "+1",
            "01",
            "1.",
            ".5",
            "1e",
            "-",
            "1 2",
            "[",
            "]",
            "[1",
            "[1,]",
            "[,1]",
            "[,]",
            "[1 2]",
            "{",
            "{}}",
            "{,}",
            r#"{"a"}"#,
            r#"{"a":}"#,
            r#"{"a":1,}"#,
            r#"{a:1}"#,
            "{1:1}",
            r#"{"a":1 "b":2}"#,
            "[1}",
            r#"{"a":1]"#,
            "'a'",
            r#"""#,
            r#""\x""#,
            r#""\u12g4""#,
            r#""\u12"#,
            "\"\u{1}\"",
            "\"a\nb\"",
            "[1]/**/",
            "\u{feff}[]",
        ];
        for text in bad {
            assert_eq!(read(text), Err(Refusal::Syntax), "{text}");
        }
        assert!(matches!(Tree::parse(b"\"\xff\""), Err(Refusal::Syntax)));
    }

    #[test]
    fn deepest_nesting_is_read_and_one_more_is_refused() {
        let nested = |depth: usize| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
        assert_eq!(read(&nested(DEPTH_LIMIT)), Ok(DEPTH_LIMIT + 1));
        assert_eq!(read(&nested(DEPTH_LIMIT + 1)), Err(Refusal::Deep));
        assert_eq!(read(&"[".repeat(1_000_000)), Err(Refusal::Deep));
        assert_eq!(read(&r#"{"a":"#.repeat(1_000_000)), Err(Refusal::Deep));
    }

    #[test]
    fn number_of_values_is_capped() {
        let flat = |items: usize| format!("[{}0]", "0,".repeat(items - 1));
        assert_eq!(read(&flat(NODE_LIMIT - 1)), Ok(NODE_LIMIT));
        assert_eq!(read(&flat(NODE_LIMIT)), Err(Refusal::Large));
    }

    #[test]
    fn tree_keeps_text_order_and_repetition() {
        let text = r#" {"b": 1.50, "a": [true, {"x": "y"}], "b": [] } "#;
        let tree = Tree::parse(text.as_bytes()).unwrap();
        let members: Vec<_> = tree
            .root()
            .members()
            .map(|(name, value)| (name.raw, value.kind(), value.raw()))
            .collect();
        let expected = [
            ("b", Kind::Number, "1.50"),
            ("a", Kind::Array, r#"[true, {"x": "y"}]"#),
            ("b", Kind::Array, "[]"),
        ];
        assert_eq!(members, expected);
        let (_, list) = tree.root().members().nth(1).unwrap();
        assert_eq!(
            list.items().map(Value::raw).collect::<Vec<_>>(),
            ["true", r#"{"x": "y"}"#]
        );
        assert_eq!(list.items().next().unwrap().len(), 0);
    }

    #[test]
    fn escapes_mean_their_characters() {
        let same = |a, b| Text::of(a).same(Text::of(b));
        assert!(same(r"\u0061b", "ab"));
        assert!(same(r"\ud83d\ude00!", "😀!"));
        assert!(same(r"a\/\u000a", r"a/\n"));
        assert!(same(r#"\"\\\b\f\r\t"#, r"\u0022\u005C\u0008\u000c\u000D\u0009"));
        assert!(!same(r"\ud83d", r"\ude00"));
        assert!(!same(r"\ud83d", r"\ufffd"));
        assert!(same(r"\ud83dx", r"\uD83Dx"));
        assert!(!same("a", "b"));
        // The escaped backslash does not begin an escape.
        assert!(!same(r"\\u0061", "a"));
    }
}
