//! Splits a script into statements.

use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::tokenizer::{Location, Token, Tokenizer};

/// The statements of a script with the line (from 1) on which each begins. Semicolons within quotes, comments
/// and dollar quotes do not end one; statements of nothing but comments are left out. Text that the tokenizer
/// cannot read is given as one statement from there on, so that parsing it says what is wrong.
pub fn split(text: &str) -> Vec<(usize, String)> {
    let mut tokens = Vec::new();
    let read = Tokenizer::new(&GenericDialect {}, text).tokenize_with_location_into_buf(&mut tokens);

    let mut places = Places::new(text);
    let mut statements = Vec::new();
    let mut start = None;
    for token in &tokens {
        match token.token {
            Token::SemiColon => {
                if let Some((line, offset)) = start.take() {
                    let end = places.offset(token.span.start);
                    statements.push((line, text[offset..end].trim_end().to_owned()));
                }
            }
            Token::Whitespace(_) => {}
            _ if start.is_none() => {
                start = Some((places.line(token.span.start), places.offset(token.span.start)))
            }
            _ => {}
        }
    }
    if read.is_err() && start.is_none() {
        // What cannot be read begins where the last token ends.
        start = tokens
            .last()
            .map_or(Some((1, 0)), |token| Some((places.line(token.span.end), places.offset(token.span.end))));
    }
    if let Some((line, offset)) = start {
        statements.push((line, text[offset..].trim().to_owned()));
    }
    statements
}

/// Byte offsets of sqlparser's places, which count lines and characters from 1. Asked in growing order.
struct Places<'a> {
    text: &'a str,
    offset: usize,
    at: Location,
}

impl<'a> Places<'a> {
    fn new(text: &'a str) -> Self {
        Self { text, offset: 0, at: Location { line: 1, column: 1 } }
    }

    fn offset(&mut self, to: Location) -> usize {
        for character in self.text[self.offset..].chars() {
            if self.at >= to {
                break;
            }
            self.offset += character.len_utf8();
            if character == '\n' {
                self.at = Location { line: self.at.line + 1, column: 1 };
            } else {
                self.at.column += 1;
            }
        }
        self.offset
    }

    fn line(&self, at: Location) -> usize {
        usize::try_from(at.line).unwrap_or(usize::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_comments_and_dollars_hide_semicolons() {
        let script =
            "-- first; comment\nSELECT ';' AS \"a;b\"; /* ; */\n\nSELECT $$x;y$$ ;;\n SELECT 'ü;' -- end;";
        assert_eq!(
            split(script),
            vec![
                (2, "SELECT ';' AS \"a;b\"".to_owned()),
                (4, "SELECT $$x;y$$".to_owned()),
                (5, "SELECT 'ü;' -- end;".to_owned()),
            ]
        );
    }

    #[test]
    fn nothing_gives_nothing() {
        assert_eq!(split(" ;\n-- only words\n;"), vec![]);
    }

    #[test]
    fn what_cannot_be_read_stays_for_the_parser_to_refuse() {
        assert_eq!(
            split("SELECT 1;\nSELECT 'open; SELECT 2"),
            vec![(1, "SELECT 1".to_owned()), (2, "SELECT 'open; SELECT 2".to_owned())]
        );
    }
}
