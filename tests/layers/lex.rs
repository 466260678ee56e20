//! Cuts Rust source into tokens, and cuts the test code out of them.
//!
//! Pure. Comments vanish, texts become one token each, so a path in a comment or in a message is never taken for an
//! import. It knows just as much of the language as finding paths needs, and it accepts anything: what does not
//! compile is the compiler's to refuse.

use std::ops::RangeInclusive;

/// What a token is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A name or keyword; a raw one (`r#type`) without its prefix.
    Ident(String),
    /// A lifetime or loop label.
    Lifetime,
    /// A number, character or byte text.
    Literal,
    /// One character of punctuation.
    Punct(char),
    /// A text, escapes left as written.
    Str(String),
}

/// A token and the line it begins on, from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    pub kind: Kind,
    pub line: usize,
}

impl Token {
    /// Whether this is that character of punctuation.
    pub fn is(&self, punct: char) -> bool {
        self.kind == Kind::Punct(punct)
    }

    /// The name, if this is one.
    pub fn ident(&self) -> Option<&str> {
        match &self.kind {
            Kind::Ident(name) => Some(name),
            _ => None,
        }
    }
}

struct Cursor {
    chars: Vec<char>,
    at: usize,
    line: usize,
}

impl Cursor {
    fn peek(&self, ahead: usize) -> Option<char> {
        self.chars.get(self.at + ahead).copied()
    }

    fn bump(&mut self) -> Option<char> {
        let c = self.peek(0)?;
        self.at += 1;
        self.line += usize::from(c == '\n');
        Some(c)
    }

    fn take_while(&mut self, keep: impl Fn(char) -> bool) -> String {
        let mut text = String::new();
        while let Some(c) = self.peek(0).filter(|&c| keep(c)) {
            text.push(c);
            self.bump();
        }
        text
    }

    fn block_comment(&mut self) {
        let mut depth = 0_usize;
        while let Some(c) = self.bump() {
            match (c, self.peek(0)) {
                ('/', Some('*')) => {
                    depth += 1;
                    self.bump();
                }
                ('*', Some('/')) => {
                    depth -= 1;
                    self.bump();
                    if depth == 0 {
                        return;
                    }
                }
                _ => {}
            }
        }
    }

    /// The rest of a text whose opening quote has been read.
    fn quoted(&mut self) -> String {
        let mut text = String::new();
        while let Some(c) = self.bump() {
            match c {
                '"' => break,
                '\\' => {
                    text.push(c);
                    text.extend(self.bump());
                }
                _ => text.push(c),
            }
        }
        text
    }

    /// The rest of a raw text from its first `#` or quote on.
    fn raw_quoted(&mut self) -> String {
        let hashes = self.take_while(|c| c == '#').len();
        self.bump();
        let mut text = String::new();
        while let Some(c) = self.bump() {
            if c == '"' && (0..hashes).all(|ahead| self.peek(ahead) == Some('#')) {
                for _ in 0..hashes {
                    self.bump();
                }
                break;
            }
            text.push(c);
        }
        text
    }

    fn quote(&mut self) -> Kind {
        self.bump();
        if self.peek(0) == Some('\\') {
            self.bump();
            self.bump();
            self.take_while(|c| c != '\'');
            self.bump();
            return Kind::Literal;
        }
        if self.peek(1) == Some('\'') {
            self.bump();
            self.bump();
            return Kind::Literal;
        }
        self.take_while(continues_name);
        Kind::Lifetime
    }

    fn name_or_prefixed_text(&mut self) -> Kind {
        let name = self.take_while(continues_name);
        let raw_text =
            self.peek(0) == Some('"') || (self.peek(0) == Some('#') && matches!(self.peek(1), Some('#' | '"')));
        match (name.as_str(), self.peek(0)) {
            ("r" | "br" | "cr", Some('"' | '#')) if raw_text => Kind::Str(self.raw_quoted()),
            ("b" | "c", Some('"')) => {
                self.bump();
                Kind::Str(self.quoted())
            }
            ("b", Some('\'')) => self.quote(),
            ("r", Some('#')) => {
                self.bump();
                Kind::Ident(self.take_while(continues_name))
            }
            _ => Kind::Ident(name),
        }
    }

    fn number(&mut self) -> Kind {
        self.take_while(continues_name);
        if self.peek(0) == Some('.') && self.peek(1).is_some_and(|c| c.is_ascii_digit()) {
            self.bump();
            self.take_while(continues_name);
        }
        Kind::Literal
    }
}

fn continues_name(c: char) -> bool {
    c == '_' || c.is_alphanumeric()
}

/// All tokens of a file, comments left out.
pub fn tokens(source: &str) -> Vec<Token> {
    let mut cursor = Cursor {
        chars: source.chars().collect(),
        at: 0,
        line: 1,
    };
    let mut found = Vec::new();
    while let Some(c) = cursor.peek(0) {
        let line = cursor.line;
        let kind = match (c, cursor.peek(1)) {
            ('/', Some('/')) => {
                cursor.take_while(|c| c != '\n');
                continue;
            }
            ('/', Some('*')) => {
                cursor.block_comment();
                continue;
            }
            ('"', _) => {
                cursor.bump();
                Kind::Str(cursor.quoted())
            }
            ('\'', _) => cursor.quote(),
            _ if c.is_whitespace() => {
                cursor.bump();
                continue;
            }
            _ if c.is_ascii_digit() => cursor.number(),
            _ if continues_name(c) => cursor.name_or_prefixed_text(),
            _ => {
                cursor.bump();
                Kind::Punct(c)
            }
        };
        found.push(Token { kind, line });
    }
    found
}

/// A file with its test code taken out.
#[derive(Debug, Default)]
pub struct Stripped {
    /// What is left.
    pub tokens: Vec<Token>,
    /// The lines of each item that was taken out, its `cfg` attribute included.
    pub test_lines: Vec<RangeInclusive<usize>>,
    /// The names of child modules that exist in tests only, and so their files too.
    pub test_modules: Vec<String>,
}

/// Takes out every item under a `cfg` that holds in tests only.
pub fn without_tests(tokens: &[Token]) -> Stripped {
    let mut left = Stripped::default();
    let mut at = 0;
    while at < tokens.len() {
        let Some((after, inner)) = test_attribute(tokens, at) else {
            left.tokens.push(tokens[at].clone());
            at += 1;
            continue;
        };
        let end = if inner { tokens.len() } else { item_end(tokens, after) };
        if let Some(name) = declared_module(tokens, after) {
            left.test_modules.push(name);
        }
        let last = tokens[end.max(after) - 1].line;
        left.test_lines.push(tokens[at].line..=last);
        at = end.max(after);
    }
    left
}

/// Whether an attribute stands at `at` whose `cfg` implies `test`: where it ends, and whether it is an inner one.
fn test_attribute(tokens: &[Token], at: usize) -> Option<(usize, bool)> {
    let inner = tokens.get(at + 1)?.is('!');
    let open = at + 1 + usize::from(inner);
    if !tokens[at].is('#') || !tokens.get(open)?.is('[') || tokens.get(open + 1)?.ident() != Some("cfg") {
        return None;
    }
    let end = matching(tokens, open);
    let condition = tokens.get(open + 3..end.checked_sub(2)?)?;
    implies_test(condition).then_some((end, inner))
}

fn implies_test(condition: &[Token]) -> bool {
    let Some(word) = condition.first().and_then(Token::ident) else {
        return false;
    };
    if condition.len() == 1 {
        return word == "test";
    }
    if !condition[1].is('(') {
        return false;
    }
    let members = split_at_commas(&condition[2..condition.len() - 1]);
    match word {
        "all" => members.iter().any(|member| implies_test(member)),
        "any" => !members.is_empty() && members.iter().all(|member| implies_test(member)),
        _ => false,
    }
}

fn split_at_commas(tokens: &[Token]) -> Vec<&[Token]> {
    let mut depth = 0_i32;
    tokens
        .split(|token| {
            depth += i32::from(token.is('(')) - i32::from(token.is(')'));
            depth == 0 && token.is(',')
        })
        .filter(|member| !member.is_empty())
        .collect()
}

/// Behind the bracket that closes the one at `open`.
pub fn matching(tokens: &[Token], open: usize) -> usize {
    let mut depth = 0_usize;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        match token.kind {
            Kind::Punct('(' | '[' | '{') => depth += 1,
            Kind::Punct(')' | ']' | '}') => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 {
            return at + 1;
        }
    }
    tokens.len()
}

fn after_attributes(tokens: &[Token], mut at: usize) -> usize {
    while tokens.get(at).is_some_and(|token| token.is('#')) {
        at = matching(tokens, at + 1);
    }
    at
}

fn after_visibility(tokens: &[Token], at: usize) -> usize {
    match tokens.get(at).and_then(Token::ident) {
        Some("pub") if tokens.get(at + 1).is_some_and(|token| token.is('(')) => matching(tokens, at + 1),
        Some("pub") => at + 1,
        _ => at,
    }
}

fn declared_module(tokens: &[Token], at: usize) -> Option<String> {
    let at = after_visibility(tokens, after_attributes(tokens, at));
    let is_declaration = tokens.get(at)?.ident()? == "mod" && tokens.get(at + 2)?.is(';');
    is_declaration.then(|| tokens[at + 1].ident().map(str::to_owned))?
}

/// Behind the item, statement, arm or field that begins at `at`.
fn item_end(tokens: &[Token], at: usize) -> usize {
    let mut at = after_visibility(tokens, after_attributes(tokens, at));
    let word_at = |at: usize| tokens.get(at).and_then(Token::ident).unwrap_or_default();
    let is_const_fn = word_at(at) == "const" && matches!(word_at(at + 1), "async" | "extern" | "fn" | "unsafe");
    let word = if is_const_fn { "fn" } else { word_at(at) };
    let is_block_item = matches!(
        word,
        "async" | "enum" | "extern" | "fn" | "impl" | "macro_rules" | "mod" | "struct" | "trait" | "union" | "unsafe"
    );
    let ends_at_semicolon = matches!(word, "const" | "let" | "static" | "type" | "use");
    while let Some(token) = tokens.get(at) {
        match token.kind {
            Kind::Punct(';') => return at + 1,
            Kind::Punct(',') if !is_block_item && !ends_at_semicolon => return at + 1,
            Kind::Punct(')' | ']' | '}') => return at,
            Kind::Punct('{') => {
                at = matching(tokens, at);
                if !ends_at_semicolon {
                    return at;
                }
            }
            Kind::Punct('(' | '[') => at = matching(tokens, at),
            _ => at += 1,
        }
    }
    at
}
