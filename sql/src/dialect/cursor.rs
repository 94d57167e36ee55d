//! A cursor over the tokens of one statement.

use super::syntax::{from_parser, from_tokenizer, syntax};
use super::types::normalize;
use super::versions;
use crate::name::{CATALOG, TableName};
use datafusion::sql::sqlparser::ast::{ColumnDef, DataType, Expr, Query};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::{Location, Token, TokenWithSpan, Tokenizer};
use std::collections::BTreeMap;
use tidemill_core::{Code, Error, Result};

const DIALECT: GenericDialect = GenericDialect {};

/// Reads words, names and options itself and lets sqlparser read queries, expressions and columns.
pub(crate) struct Cursor<'a> {
    parser: Parser<'static>,
    text: &'a str,
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(text: &'a str) -> Result<Self> {
        let tokens = Tokenizer::new(&DIALECT, text)
            .tokenize_with_location()
            .map_err(|error| from_tokenizer(text, error))?;
        let tokens = versions::rewrite(&DIALECT, text, tokens)?;
        Ok(Self { parser: Parser::new(&DIALECT).with_tokens_with_locations(tokens), text })
    }

    pub(crate) fn text(&self) -> &'a str {
        self.text
    }

    /// The `n`th next token's text in upper case, when it is an unquoted word.
    pub(crate) fn word_at(&self, n: usize) -> Option<String> {
        match &self.parser.peek_nth_token_ref(n).token {
            Token::Word(word) if word.quote_style.is_none() => Some(word.value.to_uppercase()),
            _ => None,
        }
    }

    /// Whether the `n`th next token is `token`.
    pub(crate) fn is_at(&self, n: usize, token: &Token) -> bool {
        self.parser.peek_nth_token_ref(n).token == *token
    }

    /// Consumes the words if all of them come next.
    pub(crate) fn take(&mut self, words: &[&str]) -> bool {
        let there = words.iter().enumerate().all(|(n, word)| self.word_at(n).as_deref() == Some(word));
        if there {
            for _ in words {
                self.parser.next_token();
            }
        }
        there
    }

    pub(crate) fn expect(&mut self, words: &[&str]) -> Result<()> {
        for word in words {
            if !self.take(&[word]) {
                return Err(self.expected(&format!("`{word}`")));
            }
        }
        Ok(())
    }

    /// Consumes the one of `words` that comes next.
    pub(crate) fn one_of<'w>(&mut self, words: &[&'w str]) -> Result<&'w str> {
        match words.iter().find(|word| self.take(&[word])) {
            Some(word) => Ok(word),
            None => {
                let names: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
                Err(self.expected(&names.join(" or ")).suggest_word(self.word_at(0), words))
            }
        }
    }

    pub(crate) fn take_token(&mut self, token: &Token) -> bool {
        self.parser.consume_token(token)
    }

    pub(crate) fn peek_is(&self, token: &Token) -> bool {
        self.parser.peek_token_ref().token == *token
    }

    /// Whether an identifier in quotes comes next.
    pub(crate) fn peek_is_quoted(&self) -> bool {
        matches!(&self.parser.peek_token_ref().token, Token::Word(word) if word.quote_style.is_some())
    }

    pub(crate) fn expect_token(&mut self, token: &Token) -> Result<()> {
        if self.take_token(token) { Ok(()) } else { Err(self.expected(&format!("`{token}`"))) }
    }

    pub(crate) fn end(&mut self) -> Result<()> {
        while self.take_token(&Token::SemiColon) {}
        if self.peek_is(&Token::EOF) { Ok(()) } else { Err(self.expected("the end of the statement")) }
    }

    /// An identifier, in lower case unless it is quoted.
    pub(crate) fn ident(&mut self) -> Result<String> {
        self.sqlparser(|parser| parser.parse_identifier()).map(normalize)
    }

    pub(crate) fn string(&mut self) -> Result<String> {
        self.sqlparser(|parser| parser.parse_literal_string())
    }

    /// `[[catalog.]schema.]name`.
    pub(crate) fn table_name(&mut self, default_schema: &str) -> Result<TableName> {
        let parts = self.dotted()?;
        TableName::from_parts(&parts, default_schema)
    }

    /// `a.b.c`, at least one part.
    pub(crate) fn dotted(&mut self) -> Result<Vec<String>> {
        let mut parts = vec![self.ident()?];
        while self.take_token(&Token::Period) {
            parts.push(self.ident()?);
        }
        Ok(parts)
    }

    /// `[catalog.]schema`.
    pub(crate) fn schema_name(&mut self) -> Result<String> {
        let parts = self.dotted()?;
        match parts.as_slice() {
            [schema] => Ok(schema.clone()),
            [catalog, schema] if catalog == CATALOG => Ok(schema.clone()),
            _ => {
                Err(Error::new(Code::UnknownObject, format!("`{}` is no schema name here", parts.join(".")))
                    .hint(format!("schema, or {CATALOG}.schema")))
            }
        }
    }

    pub(crate) fn idents_in_parentheses(&mut self) -> Result<Vec<String>> {
        self.list(Self::ident)
    }

    /// `(item, item, …)`, at least one item.
    pub(crate) fn list<T>(&mut self, mut item: impl FnMut(&mut Self) -> Result<T>) -> Result<Vec<T>> {
        self.expect_token(&Token::LParen)?;
        let mut items = vec![item(self)?];
        while self.take_token(&Token::Comma) {
            items.push(item(self)?);
        }
        self.expect_token(&Token::RParen)?;
        Ok(items)
    }

    /// `(key = value, …)`: keys are dotted words or strings, values are strings, numbers or words.
    pub(crate) fn options(&mut self) -> Result<BTreeMap<String, String>> {
        let mut options = BTreeMap::new();
        for (key, value) in self.list(Self::option)? {
            if options.insert(key.clone(), value).is_some() {
                let message = format!("the option `{key}` is given more than once");
                return Err(Error::new(Code::BadOption, message));
            }
        }
        Ok(options)
    }

    fn option(&mut self) -> Result<(String, String)> {
        let key = match self.parser.next_token().token {
            Token::Word(word) => {
                let mut key = word.value;
                while self.take_token(&Token::Period) {
                    let Token::Word(word) = self.parser.next_token().token else {
                        self.parser.prev_token();
                        return Err(self.expected("the rest of an option's name"));
                    };
                    key = format!("{key}.{}", word.value);
                }
                key
            }
            Token::SingleQuotedString(key) => key,
            _ => {
                self.parser.prev_token();
                return Err(self.expected("an option's name"));
            }
        };
        // `key = value`, and `key value` as DataFusion's OPTIONS has it.
        self.take_token(&Token::Eq);
        Ok((key, self.value()?))
    }

    /// A string, a number or a word, as text.
    pub(crate) fn value(&mut self) -> Result<String> {
        let sign = if self.take_token(&Token::Minus) { "-" } else { "" };
        match self.parser.next_token().token {
            Token::SingleQuotedString(value) if sign.is_empty() => Ok(value),
            Token::Number(value, _) => Ok(format!("{sign}{value}")),
            Token::Word(word) if sign.is_empty() => Ok(word.value),
            _ => {
                self.parser.prev_token();
                Err(self.expected("a value such as 'text' or 1"))
            }
        }
    }

    pub(crate) fn query(&mut self) -> Result<Box<Query>> {
        self.sqlparser(|parser| parser.parse_query())
    }

    pub(crate) fn expr(&mut self) -> Result<Expr> {
        self.sqlparser(|parser| parser.parse_expr())
    }

    pub(crate) fn data_type(&mut self) -> Result<DataType> {
        self.sqlparser(|parser| parser.parse_data_type())
    }

    pub(crate) fn column(&mut self) -> Result<ColumnDef> {
        self.sqlparser(|parser| parser.parse_column_def())
    }

    /// Lets sqlparser read, and gives the text that it read as well.
    pub(crate) fn with_text<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T>) -> Result<(T, String)> {
        let start = self.offset(self.parser.peek_token_ref());
        let result = read(self)?;
        let end = self.offset(self.parser.peek_token_ref());
        Ok((result, self.text.get(start..end).unwrap_or_default().trim_end().to_owned()))
    }

    pub(crate) fn sqlparser<T>(
        &mut self,
        read: impl FnOnce(&mut Parser<'static>) -> Result<T, ParserError>,
    ) -> Result<T> {
        read(&mut self.parser).map_err(|error| from_parser(self.text, error))
    }

    /// A syntax error at the next token.
    pub(crate) fn expected(&self, what: &str) -> Error {
        let found = self.parser.peek_token_ref();
        let words = match &found.token {
            Token::EOF => "the end of the statement".to_owned(),
            token => format!("`{token}`"),
        };
        syntax(self.text, found.span.start, &format!("expected {what}, found {words}"))
    }

    /// Byte offset of a token in the text.
    fn offset(&self, token: &TokenWithSpan) -> usize {
        match token.token {
            Token::EOF => self.text.len(),
            _ => byte_offset(self.text, token.span.start),
        }
    }
}

/// Adds the nearest of the words that may come next.
trait SuggestWord {
    fn suggest_word(self, wrong: Option<String>, known: &[&str]) -> Error;
}

impl SuggestWord for Error {
    fn suggest_word(self, wrong: Option<String>, known: &[&str]) -> Error {
        match wrong {
            Some(wrong) => self.suggest(&wrong, known.iter().copied()),
            None => self,
        }
    }
}

/// sqlparser counts lines and characters from 1.
fn byte_offset(text: &str, at: Location) -> usize {
    let (mut line, mut column) = (1, 1);
    for (offset, character) in text.char_indices() {
        if (line, column) == (at.line, at.column) {
            return offset;
        }
        if character == '\n' {
            (line, column) = (line + 1, 1);
        } else {
            column += 1;
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_text_of_what_it_reads() {
        let mut cursor = Cursor::new("( price >= 0 -- never\n AND 'ü' = x ) rest").unwrap();
        cursor.expect_token(&Token::LParen).unwrap();
        let (_, text) = cursor.with_text(Cursor::expr).unwrap();
        assert_eq!(text, "price >= 0 -- never\n AND 'ü' = x");
        cursor.expect_token(&Token::RParen).unwrap();
        assert!(cursor.take(&["REST"]));
        cursor.end().unwrap();
    }

    #[test]
    fn options_refuse_what_is_given_twice() {
        let mut cursor = Cursor::new("(a = '1', 'b.c' = 2, d.e true)").unwrap();
        let options = cursor.options().unwrap();
        assert_eq!(options["b.c"], "2");
        assert_eq!(options["d.e"], "true");
        let error = Cursor::new("(a = 1, a = 2)").unwrap().options().unwrap_err();
        assert_eq!(error.code, Code::BadOption);
    }

    #[test]
    fn a_quoted_word_is_no_keyword() {
        let mut cursor = Cursor::new("\"SELECT\"").unwrap();
        assert!(!cursor.take(&["SELECT"]));
        assert_eq!(cursor.ident().unwrap(), "SELECT");
    }
}
