//! What verbs share when they write to a terminal: colours, plain texts, numbers and spans for people.
//!
//! Pure but for [`print()`] and [`Paint::for_stdout`]. Whatever came from elsewhere (reasons, names, errors) passes
//! [`plain`] before it is shown, so that nobody steers a terminal by the reason of a kill.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;

use super::FAILED;

/// Columns that a table fits into.
pub(super) const WIDTH: usize = 100;

/// Whether colours are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Paint(pub bool);

/// A colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Colour {
    Bold,
    Green,
    Red,
    Yellow,
}

impl Paint {
    /// Colours on a terminal, unless `NO_COLOR` is set.
    pub fn for_stdout() -> Self {
        Self(io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()))
    }

    /// The text in this colour.
    pub fn paint(self, colour: Colour, text: &str) -> String {
        let code = match colour {
            Colour::Bold => "1",
            Colour::Green => "32",
            Colour::Red => "1;31",
            Colour::Yellow => "33",
        };
        if self.0 {
            format!("\u{1b}[{code}m{text}\u{1b}[0m")
        } else {
            text.to_owned()
        }
    }
}

/// The text with whatever could steer a terminal written out.
pub(super) fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for c in text.chars() {
        // Marks that turn the direction of writing hide what stands there.
        if c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}') {
            plain.extend(c.escape_default());
        } else {
            plain.push(c);
        }
    }
    plain
}

/// A number with a comma after every thousand.
pub(super) fn number(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number in at most five characters, for a column: from ten thousand on rounded down to thousands and so on.
pub(super) fn short(n: u64) -> String {
    let units = [(1_000_000_000, "G"), (1_000_000, "M"), (1_000, "k")];
    let fitting = units.into_iter().find(|(unit, _)| n >= 10 * unit);
    fitting.map_or_else(|| n.to_string(), |(unit, letter)| format!("{}{letter}", n / unit))
}

/// So many of these: `1 kill`, `2 kills`.
pub(super) fn counted(n: u64, noun: &str) -> String {
    format!("{} {noun}{}", number(n), if n == 1 { "" } else { "s" })
}

/// How long it is from one RFC 3339 instant to another, in its largest unit; empty if one does not read.
pub(super) fn span(from: &str, to: &str) -> String {
    let (Ok(from), Ok(to)) = (from.parse::<jiff::Timestamp>(), to.parse::<jiff::Timestamp>()) else {
        return String::new();
    };
    let seconds = (to.as_second() - from.as_second()).max(0);
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7_199 => format!("{} min", seconds / 60),
        7_200..=172_799 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// The text in lines of at most [`WIDTH`] columns, broken at spaces where there are any, each behind the first with this
/// indent.
pub(super) fn wrap(text: &str, indent: usize) -> String {
    let mut wrapped = String::new();
    let mut column = 0;
    for (at, word) in text.split(' ').enumerate() {
        let width = word.chars().count();
        if column > indent && column + 1 + width > WIDTH {
            let _ = write!(wrapped, "\n{:indent$}", "");
            column = indent;
        } else if at > 0 {
            wrapped.push(' ');
            column += 1;
        }
        for c in word.chars() {
            if column == WIDTH {
                let _ = write!(wrapped, "\n{:indent$}", "");
                column = indent;
            }
            wrapped.push(c);
            column += 1;
        }
    }
    wrapped
}

/// The text, or so much of its beginning as fits into this many characters.
pub(super) fn shortened(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        None => text.to_owned(),
        Some(_) => text.chars().take(most.saturating_sub(1)).chain(['…']).collect(),
    }
}

/// Writes to standard output. Whoever closed it has read enough, which is no failure.
pub(super) fn print(text: &str) -> ExitCode {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => ExitCode::from(FAILED),
        _ => ExitCode::SUCCESS,
    }
}

/// A value as JSON for people to read and machines to parse.
pub(super) fn json(value: &impl serde::Serialize) -> String {
    // Texts and numbers always serialise.
    serde_json::to_string_pretty(value).unwrap_or_default() + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_by_thousands() {
        let shown = [0, 12, 123, 1_234, 12_345, 1_234_567].map(number);
        assert_eq!(shown, ["0", "12", "123", "1,234", "12,345", "1,234,567"]);
    }

    #[test]
    fn short_numbers_fit_a_column_and_never_say_too_much() {
        let shown = [0, 9_999, 10_000, 1_207_012, 99_999_999, 12_345_678_901].map(short);
        assert_eq!(shown, ["0", "9999", "10k", "1207k", "99M", "12G"]);
        assert_eq!([counted(1, "kill"), counted(1_200, "kill")], ["1 kill", "1,200 kills"]);
    }

    #[test]
    fn texts_from_elsewhere_cannot_steer_the_terminal() {
        assert_eq!(plain("a\u{1b}[2Jb\r\u{202e}c é"), "a\\u{1b}[2Jb\\r\\u{202e}c é");
    }

    #[test]
    fn spans_are_told_in_their_largest_unit() {
        let since = |to: &str| span("2026-01-01T00:00:00Z", to);
        assert_eq!(since("2026-01-01T00:01:59Z"), "119 s");
        assert_eq!(since("2026-01-01T00:14:03Z"), "14 min");
        assert_eq!(since("2026-01-02T12:00:00Z"), "36 h");
        assert_eq!(since("2026-01-09T00:00:00Z"), "8 d");
        assert_eq!(since("2025-01-01T00:00:00Z"), "0 s");
        assert_eq!(since("yesterday"), "");
    }

    #[test]
    fn long_lines_are_broken_at_spaces() {
        let text = wrap(&"word ".repeat(60), 4);
        assert!(text.lines().all(|line| line.chars().count() <= WIDTH));
        assert!(text.lines().skip(1).all(|line| line.starts_with("    ")));
        let endless = wrap(&format!("- {}", "x".repeat(250)), 4);
        assert!(endless.lines().all(|line| line.chars().count() <= WIDTH));
        assert_eq!(endless.matches('x').count(), 250);
        assert_eq!([shortened("abc", 3), shortened("abcd", 3)], ["abc", "ab…"]);
    }
}
