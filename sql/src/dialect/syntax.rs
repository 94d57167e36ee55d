//! Syntax errors that show where: line, column and an excerpt with a caret.

use datafusion::sql::sqlparser::parser::ParserError;
use datafusion::sql::sqlparser::tokenizer::{Location, TokenizerError};
use tidemill_core::{Code, Error};

/// Characters of a long line that are shown before and after the fault.
const AROUND: usize = 60;

/// An error at a place of the text; places outside of it mean its end.
pub(crate) fn syntax(text: &str, at: Location, message: &str) -> Error {
    let (line, column) = if at.line == 0 { end(text) } else { (at.line, at.column) };
    let message = match text.lines().nth(usize::try_from(line).unwrap_or(usize::MAX).saturating_sub(1)) {
        Some(source) => {
            let column = usize::try_from(column).unwrap_or(usize::MAX).max(1);
            let skip = column.saturating_sub(AROUND + 1);
            let shown: String = source.chars().skip(skip).take(2 * AROUND).collect();
            let caret = " ".repeat(column - 1 - skip);
            format!("{message}, at line {line}, column {column}\n  {shown}\n  {caret}^")
        }
        None => format!("{message}, at line {line}, column {column}"),
    };
    Error::new(Code::Syntax, message)
}

/// Takes the place out of sqlparser's message, where it only exists as words.
pub(crate) fn from_parser(text: &str, error: ParserError) -> Error {
    let message = match error {
        ParserError::TokenizerError(message) | ParserError::ParserError(message) => message,
        ParserError::RecursionLimitExceeded => {
            return Error::new(Code::Syntax, "the statement is nested too deeply")
                .hint("split it with WITH or a view");
        }
    };
    match message.rsplit_once(" at Line: ") {
        Some((words, place)) => {
            let at = place.split_once(", Column: ").and_then(|(line, column)| {
                Some(Location { line: line.trim().parse().ok()?, column: column.trim().parse().ok()? })
            });
            syntax(text, at.unwrap_or(Location { line: 0, column: 0 }), &plain(words))
        }
        None => syntax(text, Location { line: 0, column: 0 }, &plain(&message)),
    }
}

pub(crate) fn from_tokenizer(text: &str, error: TokenizerError) -> Error {
    syntax(text, error.location, &error.message)
}

fn plain(message: &str) -> String {
    let message = message.strip_prefix("sql parser error: ").unwrap_or(message);
    let message = message.replacen("Expected: ", "expected ", 1).replacen(", found: ", ", found ", 1);
    message.replace("found EOF", "found the end of the statement")
}

fn end(text: &str) -> (u64, u64) {
    let text = text.trim_end();
    let line = text.lines().count().max(1);
    let column = text.lines().last().unwrap_or_default().chars().count() + 1;
    (line as u64, column as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_the_place() {
        let error = from_parser(
            "SELECT 1\nFROM ,",
            ParserError::ParserError("Expected: identifier, found: , at Line: 2, Column: 6".to_owned()),
        );
        assert_eq!(error.code, Code::Syntax);
        assert_eq!(error.message, "expected identifier, found ,, at line 2, column 6\n  FROM ,\n       ^");
    }

    #[test]
    fn the_end_of_the_text_is_a_place_too() {
        let error = from_parser(
            "SELECT 1 +\n",
            ParserError::ParserError("Expected: an expression, found: EOF".to_owned()),
        );
        assert_eq!(
            error.message,
            "expected an expression, found the end of the statement, at line 1, column 11\n  SELECT 1 +\n            ^"
        );
    }
}
