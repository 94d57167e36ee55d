//! Functions that are written in SQL.
//!
//! ```sql
//! CREATE [OR REPLACE] FUNCTION [IF NOT EXISTS] f(a BIGINT, b DOUBLE DEFAULT 1) RETURNS DOUBLE RETURN a * b
//! CREATE FUNCTION f(day DATE) RETURNS TABLE [(x INT, …)] RETURN SELECT …
//! CREATE MACRO f(a, b := 1) AS a * b          -- DuckDB's, without types
//! CREATE MACRO f(day) AS TABLE SELECT …
//! ```

use crate::dialect::{Cursor, parse_expr, parse_query};
use crate::name::quote;
use datafusion::sql::sqlparser::ast::{Expr, Query};
use datafusion::sql::sqlparser::tokenizer::Token;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;
use tidemill_core::{Code, Error, Result};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateFunction {
    pub or_replace: bool,
    pub if_not_exists: bool,
    pub function: FunctionDef,
}

/// A function as the journal keeps it. Where it is called, its body is put: no node but the one that plans has
/// to know it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FunctionDef {
    pub name: String,
    pub parameters: Vec<Parameter>,
    pub body: Body,
    /// The schema in which the body's unqualified tables are looked up.
    pub default_schema: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parameter {
    pub name: String,
    /// The SQL type to which an argument is cast; `None` takes it as it is.
    pub data_type: Option<String>,
    /// The expression that stands for an argument that is not given.
    pub default: Option<String>,
}

/// What a call becomes, as SQL text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Body {
    Scalar {
        expr: String,
        /// The type to which the value is cast.
        returns: Option<String>,
    },
    Table {
        query: String,
        /// Names and types of the columns; empty where they are the query's.
        columns: Vec<(String, String)>,
    },
}

impl FunctionDef {
    pub fn is_table(&self) -> bool {
        matches!(self.body, Body::Table { .. })
    }

    /// The body of a scalar function, with its cast.
    pub(crate) fn scalar(&self) -> Result<Option<Expr>> {
        let Body::Scalar { expr, returns } = &self.body else { return Ok(None) };
        let text = match returns {
            Some(returns) => format!("CAST(({expr}\n) AS {returns})"),
            None => format!("({expr}\n)"),
        };
        parse_expr(&text).map(Some)
    }

    /// The body of a table function.
    pub(crate) fn table(&self) -> Result<Option<Box<Query>>> {
        let Body::Table { query, columns } = &self.body else { return Ok(None) };
        if columns.is_empty() {
            return parse_query(query).map(Some);
        }
        let names: Vec<String> = columns.iter().map(|(name, _)| quote(name)).collect();
        let cast = |(name, to): &(String, String)| format!("CAST({0} AS {to}) AS {0}", quote(name));
        let casts: Vec<String> = columns.iter().map(cast).collect();
        let text = format!("SELECT {} FROM ({query}\n) AS f({})", casts.join(", "), names.join(", "));
        parse_query(&text).map(Some)
    }

    /// How it is called: `f(a BIGINT, b DOUBLE DEFAULT 1)`.
    pub fn usage(&self) -> String {
        let parameters: Vec<String> = self.parameters.iter().map(ToString::to_string).collect();
        format!("{}({})", self.name, parameters.join(", "))
    }
}

impl fmt::Display for Parameter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        if let Some(data_type) = &self.data_type {
            write!(f, " {data_type}")?;
        }
        if let Some(default) = &self.default {
            write!(f, " DEFAULT {default}")?;
        }
        Ok(())
    }
}

/// The definition as a person would write it.
impl fmt::Display for FunctionDef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.usage())?;
        match &self.body {
            Body::Scalar { expr, returns: Some(returns) } => write!(f, " RETURNS {returns} RETURN {expr}"),
            Body::Scalar { expr, returns: None } => write!(f, " AS {expr}"),
            Body::Table { query, columns } if columns.is_empty() => {
                write!(f, " RETURNS TABLE RETURN {query}")
            }
            Body::Table { query, columns } => {
                let columns: Vec<String> =
                    columns.iter().map(|(name, data_type)| format!("{name} {data_type}")).collect();
                write!(f, " RETURNS TABLE ({}) RETURN {query}", columns.join(", "))
            }
        }
    }
}

/// `FUNCTION` or `MACRO` was read already.
pub(super) fn parse(
    cursor: &mut Cursor<'_>,
    or_replace: bool,
    is_macro: bool,
    default_schema: &str,
) -> Result<CreateFunction> {
    let if_not_exists = cursor.take(&["IF", "NOT", "EXISTS"]);
    let name = name(cursor)?;
    let parameters = parameters(cursor)?;
    let body = if is_macro { macro_body(cursor)? } else { function_body(cursor)? };
    let default_schema = default_schema.to_owned();
    let function = FunctionDef { name, parameters, body, default_schema };
    Ok(CreateFunction { or_replace, if_not_exists, function })
}

/// Functions have one part to their name: they are known in every schema.
pub(super) fn name(cursor: &mut Cursor<'_>) -> Result<String> {
    let mut parts = cursor.dotted()?;
    match parts.pop() {
        Some(name) if parts.is_empty() => Ok(name),
        _ => {
            Err(Error::new(Code::Unsupported, "functions belong to no schema")
                .hint("name it without a schema"))
        }
    }
}

fn parameters(cursor: &mut Cursor<'_>) -> Result<Vec<Parameter>> {
    cursor.expect_token(&Token::LParen)?;
    let mut parameters: Vec<Parameter> = Vec::new();
    while !cursor.take_token(&Token::RParen) {
        if !parameters.is_empty() {
            cursor.expect_token(&Token::Comma)?;
        }
        parameters.push(parameter(cursor)?);
    }
    let mut seen = BTreeSet::new();
    for (before, parameter) in parameters.iter().enumerate() {
        if !seen.insert(&parameter.name) {
            let message = format!("parameter `{}` is declared twice", parameter.name);
            return Err(Error::new(Code::InvalidStatement, message));
        }
        if parameter.default.is_none() && parameters[..before].iter().any(|other| other.default.is_some()) {
            let message = format!("parameter `{}` needs a default, as one before it has", parameter.name);
            return Err(Error::new(Code::InvalidStatement, message));
        }
    }
    Ok(parameters)
}

fn parameter(cursor: &mut Cursor<'_>) -> Result<Parameter> {
    let name = cursor.ident()?;
    let ends = |cursor: &Cursor<'_>| {
        [Token::Comma, Token::RParen, Token::Assignment].iter().any(|token| cursor.peek_is(token))
    };
    let untyped = ends(cursor) || cursor.word_at(0).as_deref() == Some("DEFAULT");
    let data_type = if untyped { None } else { Some(cursor.with_text(Cursor::data_type)?.1) };
    let default = match cursor.take(&["DEFAULT"]) || cursor.take_token(&Token::Assignment) {
        true => Some(cursor.with_text(Cursor::expr)?.1),
        false => None,
    };
    Ok(Parameter { name, data_type, default })
}

fn function_body(cursor: &mut Cursor<'_>) -> Result<Body> {
    cursor.expect(&["RETURNS"])?;
    let mut columns = Vec::new();
    let table = cursor.take(&["TABLE"]);
    if table && cursor.peek_is(&Token::LParen) {
        columns = cursor.list(|cursor| Ok((cursor.ident()?, cursor.with_text(Cursor::data_type)?.1)))?;
    }
    let returns = if table { None } else { Some(cursor.with_text(Cursor::data_type)?.1) };
    if cursor.word_at(0).as_deref() == Some("LANGUAGE") {
        cursor.take(&["LANGUAGE"]);
        cursor.one_of(&["SQL"])?;
    }
    cursor.one_of(&["RETURN", "AS"])?;
    Ok(match table {
        true => Body::Table { query: cursor.with_text(Cursor::query)?.1, columns },
        false => Body::Scalar { expr: cursor.with_text(Cursor::expr)?.1, returns },
    })
}

fn macro_body(cursor: &mut Cursor<'_>) -> Result<Body> {
    cursor.expect(&["AS"])?;
    Ok(match cursor.take(&["TABLE"]) {
        true => Body::Table { query: cursor.with_text(Cursor::query)?.1, columns: Vec::new() },
        false => Body::Scalar { expr: cursor.with_text(Cursor::expr)?.1, returns: None },
    })
}
