//! What ended a reading, in the words of somebody who edits a file.
//!
//! Pure. In: the library's error and the text. Out: a [`Fault`] with a place and a remedy.

use std::borrow::Cow;

use serde_saphyr::granit_parser::{ErrorKind, ScanError};

use super::{DEPTH_LIMIT, Mark, number};
use crate::engine::ruleset::problem::quote;

/// What ends the reading.
pub(super) struct Fault {
    pub(super) mark: Mark,
    pub(super) what: Cow<'static, str>,
    pub(super) remedy: &'static str,
}

pub(super) fn fault(mark: Mark, what: impl Into<Cow<'static, str>>, remedy: &'static str) -> Fault {
    Fault {
        mark,
        what: what.into(),
        remedy,
    }
}

pub(super) fn too_deep(mark: Mark) -> Fault {
    fault(
        mark,
        format!("lists and maps nest more than {DEPTH_LIMIT} deep"),
        "write it flatter",
    )
}

/// The library's error in the words of somebody who edits a file.
pub(super) fn torn(error: &ScanError, text: &str) -> Fault {
    let at = error.marker();
    let mark = Mark {
        line: number(at.line()).max(1),
        column: number(at.col().saturating_add(1)),
    };
    match error.kind() {
        ErrorKind::TabInBlockIndentation
        | ErrorKind::TabInIndentation
        | ErrorKind::TabNotAllowed
        | ErrorKind::TabInPlainScalar => fault(
            tab_from(mark, text),
            "a tab stands where YAML wants spaces",
            "indent with spaces",
        ),
        ErrorKind::UnexpectedEofFlowSequence
        | ErrorKind::UnexpectedEofFlowMapping
        | ErrorKind::UnexpectedEofImplicitFlowMapping
        | ErrorKind::UnexpectedEofBlockSequence
        | ErrorKind::UnexpectedEofBlockMapping
        | ErrorKind::UnexpectedEof => fault(
            mark,
            "the text ends in the middle of a list or map",
            "complete it, or close its bracket",
        ),
        ErrorKind::UnclosedFlowCollection { open } => {
            fault(mark, format!("the bracket `{open}` is never closed"), "close it")
        }
        ErrorKind::ExpectedFlowSequenceSeparator => fault(
            mark,
            "a `,` or `]` is missing in a list",
            "close the bracket, or separate the items",
        ),
        ErrorKind::ExpectedFlowMappingSeparator => fault(
            mark,
            "a `,` or `}` is missing in a map",
            "close the brace, or separate the members",
        ),
        ErrorKind::MisplacedFlowCollectionEnd | ErrorKind::MismatchedFlowCollectionEnd { .. } => {
            fault(mark, "a bracket is closed that was not opened", "remove it, or open it")
        }
        ErrorKind::UnexpectedCharacter { character } => {
            let what = format!("{} cannot begin a text", quote(character.encode_utf8(&mut [0; 4])));
            fault(mark, what, "put the text in quotes")
        }
        ErrorKind::UnclosedQuotedScalar => fault(mark, "a quote is never closed", "close it"),
        ErrorKind::UnknownAnchor => fault(
            mark,
            "this alias names nothing",
            "define it with `&name` before it is used; a text that begins with `*` needs quotes",
        ),
        ErrorKind::RecursionLimitExceeded => too_deep(mark),
        ErrorKind::InvalidIndentation | ErrorKind::ExpectedBlockMappingKey | ErrorKind::ExpectedBlockSequenceEntry => {
            fault(
                mark,
                "the indentation does not fit what stands above",
                "align it with its neighbours",
            )
        }
        ErrorKind::MappingValueNotAllowed | ErrorKind::InvalidColonPlacement => fault(
            mark,
            "a `:` stands where no key is possible",
            "put a text that contains `: ` in quotes, or mend the indentation",
        ),
        ErrorKind::SimpleKeyExpected | ErrorKind::InvalidSimpleKey => fault(
            mark,
            "a key without its `:`",
            "write `key: value`, or mend the indentation above",
        ),
        kind => fault(mark, format!("no YAML: {kind}"), "mend this line or the one above"),
    }
}

/// The library may point at what stands before the tab.
fn tab_from(mark: Mark, text: &str) -> Mark {
    text.lines()
        .enumerate()
        .skip(mark.line as usize - 1)
        .find_map(|(line, content)| Some((line, content.chars().position(|c| c == '\t')?)))
        .map_or(mark, |(line, column)| Mark {
            line: number(line + 1),
            column: number(column + 1),
        })
}
