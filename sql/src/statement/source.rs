//! `CREATE SOURCE`: a stream of events from outside.
//!
//! ```sql
//! CREATE [OR REPLACE] SOURCE [IF NOT EXISTS] events (
//!   event_id VARCHAR NOT NULL, ts TIMESTAMP, …, WATERMARK FOR ts AS ts - INTERVAL '5 seconds')
//! WITH (connector = 'kafka', topic = 'events', 'properties.bootstrap.servers' = '…')
//! FORMAT PLAIN ENCODE JSON
//! ```

use crate::dialect::{Cursor, column_schema, interval_ms, normalize};
use arrow::datatypes::{DataType, Schema, SchemaRef};
use datafusion::sql::sqlparser::ast::{BinaryOperator, ColumnDef, Expr};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use tidemill_core::{Code, Error, Result, SourceSpec};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateSource {
    pub or_replace: bool,
    pub if_not_exists: bool,
    pub source: SourceDef,
}

/// A source as the journal keeps it. Sources are not in a schema.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceDef {
    pub name: String,
    pub schema: SchemaRef,
    pub watermark: Option<Watermark>,
    pub spec: SourceSpec,
    pub encoding: Encoding,
    /// The statement as it was written.
    pub sql: String,
}

/// Events are expected to be at most `delay_ms` behind the newest event time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watermark {
    /// A timestamp column at the top level.
    pub column: String,
    pub delay_ms: u64,
}

/// How a record's payload is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Encoding {
    Json,
}

enum Item {
    Column(ColumnDef),
    Watermark(String, Box<Expr>),
}

pub(super) fn parse(cursor: &mut Cursor<'_>, or_replace: bool) -> Result<CreateSource> {
    let if_not_exists = cursor.take(&["IF", "NOT", "EXISTS"]);
    let name = cursor.ident()?;
    let mut columns = Vec::new();
    let mut watermarks = Vec::new();
    for item in cursor.list(item)? {
        match item {
            Item::Column(column) => columns.push(column),
            Item::Watermark(column, expr) => watermarks.push((column, expr)),
        }
    }
    cursor.expect(&["WITH"])?;
    let mut options = cursor.options()?;
    cursor.expect(&["FORMAT", "PLAIN", "ENCODE"])?;
    cursor.one_of(&["JSON"])?;

    let schema = column_schema(columns)?;
    let watermark = match watermarks.as_slice() {
        [] => None,
        [(column, expr)] => Some(watermark(&schema, column, expr)?),
        _ => return Err(Error::new(Code::InvalidStatement, "a source has at most one WATERMARK")),
    };
    let Some(connector) = options.remove("connector") else {
        return Err(Error::new(Code::BadOption, "missing option `connector`")
            .hint("such as WITH (connector = 'kafka', …)"));
    };
    let source = SourceDef {
        name,
        schema: Arc::new(schema),
        watermark,
        spec: SourceSpec { connector, options },
        encoding: Encoding::Json,
        sql: cursor.text().to_owned(),
    };
    Ok(CreateSource { or_replace, if_not_exists, source })
}

fn item(cursor: &mut Cursor<'_>) -> Result<Item> {
    if cursor.take(&["WATERMARK", "FOR"]) {
        let column = cursor.ident()?;
        cursor.expect(&["AS"])?;
        return Ok(Item::Watermark(column, Box::new(cursor.expr()?)));
    }
    cursor.column().map(Item::Column)
}

/// Only `column` and `column - INTERVAL '…'` are watermarks.
fn watermark(schema: &Schema, column: &str, expr: &Expr) -> Result<Watermark> {
    let Ok(field) = schema.field_with_name(column) else {
        let names = schema.fields().iter().map(|field| field.name().as_str());
        return Err(Error::new(Code::UnknownColumn, format!("WATERMARK: no column `{column}`"))
            .suggest(column, names));
    };
    if !matches!(field.data_type(), DataType::Timestamp(..)) {
        let message = format!("WATERMARK: `{column}` is {}, not TIMESTAMP", field.data_type());
        return Err(Error::new(Code::TypeMismatch, message));
    }
    let is_column =
        |expr: &Expr| matches!(expr, Expr::Identifier(ident) if normalize(ident.clone()) == column);
    let delay_ms = match expr {
        expr if is_column(expr) => 0,
        Expr::BinaryOp { left, op: BinaryOperator::Minus, right } if is_column(left) => interval_ms(right)?,
        other => {
            return Err(Error::new(Code::Unsupported, format!("WATERMARK: `{other}` is not supported"))
                .hint(format!("WATERMARK FOR {column} AS {column} - INTERVAL '5 seconds'")));
        }
    };
    Ok(Watermark { column: column.to_owned(), delay_ms: delay_ms.unsigned_abs() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Statement, parse};

    const EVENTS: &str = "CREATE SOURCE IF NOT EXISTS events (
        event_id VARCHAR NOT NULL, ts TIMESTAMP, price DOUBLE, geo STRUCT<lat DOUBLE, lon DOUBLE>,
        WATERMARK FOR ts AS ts - INTERVAL '5 seconds')
      WITH (connector = 'kafka', topic = 'raw', 'properties.bootstrap.servers' = 'localhost:9092')
      FORMAT PLAIN ENCODE JSON";

    fn create(text: &str) -> Result<CreateSource> {
        match parse(text, "public")? {
            Statement::CreateSource(create) => Ok(create),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn reads_everything_and_survives_the_journal() {
        let create = create(EVENTS).unwrap();
        assert!(create.if_not_exists && !create.or_replace);
        let source = create.source;
        assert_eq!(source.watermark, Some(Watermark { column: "ts".to_owned(), delay_ms: 5_000 }));
        assert_eq!(source.spec.connector, "kafka");
        assert_eq!(source.spec.options["properties.bootstrap.servers"], "localhost:9092");
        assert_eq!(source.schema.fields().len(), 4);
        let json = serde_json::to_string(&source).unwrap();
        assert_eq!(serde_json::from_str::<SourceDef>(&json).unwrap(), source);
    }

    #[test]
    fn says_what_is_wrong() {
        let with = |from: &str, to: &str| create(&EVENTS.replace(from, to)).unwrap_err();
        let error = with("FOR ts", "FOR tz");
        assert_eq!((error.code, error.hint.as_deref()), (Code::UnknownColumn, Some("did you mean `ts`?")));
        assert_eq!(with("WATERMARK FOR ts AS ts", "WATERMARK FOR price AS price").code, Code::TypeMismatch);
        assert_eq!(with("ts - INTERVAL", "ts + INTERVAL").code, Code::Unsupported);
        assert_eq!(with("connector = 'kafka', ", "").code, Code::BadOption);
        let error = with("ENCODE JSON", "ENCODE JSN");
        assert_eq!(error.code, Code::Syntax);
        assert!(error.message.contains("line 5, column 27"), "{error}");
        assert_eq!(error.hint.as_deref(), Some("did you mean `JSON`?"));
    }
}
