//! `t VERSION AS OF 3` and its relatives, which sqlparser reads in other dialects only.
//!
//! ```text
//! t [FOR] VERSION | SYSTEM_VERSION AS OF 3         ─▶  t(version_as_of => 3)
//! t [FOR] TIMESTAMP | SYSTEM_TIME  AS OF '2026-…'  ─▶  t(timestamp_as_of => '2026-…')
//! ```
//! Done on the tokens, before parsing, so that a version may stand wherever a table can. What comes out is read
//! as a table function, and `functions` gives it its meaning.

use super::syntax::from_parser;
use datafusion::sql::sqlparser::dialect::Dialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan, Word};
use tidemill_core::Result;

pub(crate) const VERSION_AS_OF: &str = "version_as_of";
pub(crate) const TIMESTAMP_AS_OF: &str = "timestamp_as_of";

/// Words after which a word is a column, not a table with a version.
const NO_TABLES: &[&str] = &["SELECT", "DISTINCT", "ALL"];

pub(super) fn rewrite(
    dialect: &'static dyn Dialect,
    text: &str,
    tokens: Vec<TokenWithSpan>,
) -> Result<Vec<TokenWithSpan>> {
    // `RESTORE t [TO] VERSION AS OF 3` reads its version itself.
    if significant(&tokens, 0).next().is_some_and(|(_, first)| is_word(first, "RESTORE")) {
        return Ok(tokens);
    }
    let mut rewritten: Vec<TokenWithSpan> = Vec::with_capacity(tokens.len());
    let mut next = 0;
    while let Some(token) = tokens.get(next) {
        let table = rewritten.iter().rev().find(|token| !is_space(token)).is_some_and(may_be_table);
        let Some((argument, value)) = table.then(|| as_of(&tokens, next)).flatten() else {
            rewritten.push(token.clone());
            next += 1;
            continue;
        };
        let mut parser = Parser::new(dialect).with_tokens_with_locations(tokens[value..].to_vec());
        parser.parse_expr().map_err(|error| from_parser(text, error))?;
        let end = value + parser.index();
        let at = |token: Token| TokenWithSpan { token, span: tokens[next].span };
        rewritten.extend([at(Token::LParen), at(word(argument)), at(Token::RArrow)]);
        rewritten.extend_from_slice(&tokens[value..end]);
        rewritten.push(TokenWithSpan { token: Token::RParen, span: tokens[end - 1].span });
        next = end;
    }
    Ok(rewritten)
}

/// The argument's name and where its value begins, when a version begins at `start`.
fn as_of(tokens: &[TokenWithSpan], start: usize) -> Option<(&'static str, usize)> {
    let mut words = significant(tokens, start).peekable();
    words.next_if(|(_, token)| is_word(token, "FOR"));
    let (_, kind) = words.next()?;
    let argument = match () {
        () if is_word(kind, "VERSION") || is_word(kind, "SYSTEM_VERSION") => VERSION_AS_OF,
        () if is_word(kind, "TIMESTAMP") || is_word(kind, "SYSTEM_TIME") => TIMESTAMP_AS_OF,
        () => return None,
    };
    for expected in ["AS", "OF"] {
        words.next().filter(|(_, token)| is_word(token, expected))?;
    }
    // `SELECT a timestamp AS of FROM t` has a column, whatever its name.
    let (value, first) = words.next()?;
    let begins = match &first.token {
        Token::Word(word) => word.keyword != Keyword::FROM,
        Token::EOF | Token::Comma | Token::RParen | Token::SemiColon => false,
        _ => true,
    };
    begins.then_some((argument, value))
}

fn significant(tokens: &[TokenWithSpan], start: usize) -> impl Iterator<Item = (usize, &TokenWithSpan)> {
    tokens.iter().enumerate().skip(start).filter(|(_, token)| !is_space(token))
}

fn is_space(token: &TokenWithSpan) -> bool {
    matches!(token.token, Token::Whitespace(_))
}

fn may_be_table(token: &TokenWithSpan) -> bool {
    match &token.token {
        Token::Word(word) => word.quote_style.is_some() || !NO_TABLES.iter().any(|no| is_word(token, no)),
        Token::SingleQuotedString(_) => true,
        _ => false,
    }
}

fn is_word(token: &TokenWithSpan, expected: &str) -> bool {
    matches!(&token.token, Token::Word(word)
        if word.quote_style.is_none() && word.value.eq_ignore_ascii_case(expected))
}

fn word(value: &str) -> Token {
    Token::Word(Word { value: value.to_owned(), quote_style: None, keyword: Keyword::NoKeyword })
}

#[cfg(test)]
mod tests {
    use crate::dialect::parse_query;

    #[test]
    fn a_version_stands_wherever_a_table_does() {
        for (text, read) in [
            ("SELECT * FROM t VERSION AS OF 3", "SELECT * FROM t(version_as_of => 3)"),
            (
                "SELECT * FROM a.t FOR VERSION AS OF 3 AS x JOIN \"T\" version as of 4 y ON true",
                "SELECT * FROM a.t(version_as_of => 3) AS x JOIN \"T\"(version_as_of => 4) y ON true",
            ),
            (
                "SELECT * FROM t TIMESTAMP AS OF now() - INTERVAL '1 day' WHERE (SELECT 1 FROM u \
                 FOR SYSTEM_TIME AS OF '2026-01-01') = 1",
                "SELECT * FROM t(timestamp_as_of => now() - INTERVAL '1 day') WHERE (SELECT 1 FROM \
                 u(timestamp_as_of => '2026-01-01')) = 1",
            ),
            ("SELECT * FROM '/a/b' VERSION AS OF 3, c", "SELECT * FROM '/a/b'(version_as_of => 3), c"),
        ] {
            assert_eq!(parse_query(text).unwrap().to_string(), parse_query(read).unwrap().to_string());
        }
    }

    #[test]
    fn columns_of_these_names_stay_columns() {
        for text in [
            "SELECT timestamp AS of FROM t",
            "SELECT DISTINCT version AS of, timestamp AS of FROM t",
            "SELECT version AS of",
            "SELECT a FROM t timestamp",
        ] {
            assert!(!parse_query(text).unwrap().to_string().contains("_as_of"), "{text}");
        }
    }
}
