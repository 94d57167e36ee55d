//! Care of Delta tables.
//!
//! ```sql
//! DESCRIBE HISTORY t [LIMIT n]
//! DESCRIBE DETAIL t
//! VACUUM t [RETAIN n HOURS] [DRY RUN]
//! RESTORE [TABLE] t [TO] {VERSION AS OF n | TIMESTAMP AS OF '2026-01-01 12:00:00'}
//! OPTIMIZE t [WHERE day = '2026-01-31'] [ZORDER BY (a, b)]
//! CONVERT TO DELTA parquet.'folder' [PARTITIONED BY (day DATE, …)]
//! ```
//! Where a table is named, `delta.'folder'` is one without a name.

use crate::TableName;
use crate::dialect::{Cursor, column_schema};
use arrow::array::{AsArray, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, SchemaRef, TimeUnit, TimestampMicrosecondType};
use chrono::{DateTime, Utc};
use datafusion::sql::sqlparser::tokenizer::Token;
use std::sync::Arc;
use std::time::Duration;
use tidemill_core::{Code, Error, Result};
use tidemill_engine::TableVersion;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Maintain {
    History {
        table: Place,
        limit: Option<usize>,
    },
    Detail {
        table: Place,
    },
    Vacuum {
        table: Place,
        retain: Option<Duration>,
        dry_run: bool,
    },
    Restore {
        table: Place,
        to: TableVersion,
    },
    Convert {
        location: String,
        partitions: SchemaRef,
    },
    /// `predicate` is SQL text over partition columns.
    Optimize {
        table: Place,
        predicate: Option<String>,
        zorder_by: Vec<String>,
    },
}

/// Which table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    Table(TableName),
    /// A folder or URL.
    Location(String),
}

/// Whether `DESCRIBE HISTORY t` or `DESCRIBE DETAIL t` comes next, and not `DESCRIBE` of a table of such a name.
pub(super) fn is_description(cursor: &Cursor<'_>) -> bool {
    let ends = [Token::EOF, Token::SemiColon, Token::Period];
    matches!(cursor.word_at(1).as_deref(), Some("HISTORY" | "DETAIL"))
        && !ends.iter().any(|end| cursor.is_at(2, end))
}

pub(super) fn describe(cursor: &mut Cursor<'_>, default_schema: &str) -> Result<Maintain> {
    cursor.one_of(&["DESCRIBE", "DESC"])?;
    if cursor.take(&["DETAIL"]) {
        return Ok(Maintain::Detail { table: place(cursor, default_schema)? });
    }
    cursor.expect(&["HISTORY"])?;
    let table = place(cursor, default_schema)?;
    let limit = match cursor.take(&["LIMIT"]) {
        true => Some(number(cursor, "a number of versions")?),
        false => None,
    };
    Ok(Maintain::History { table, limit })
}

pub(super) fn parse(cursor: &mut Cursor<'_>, default_schema: &str) -> Result<Maintain> {
    match cursor.one_of(&["VACUUM", "RESTORE", "CONVERT", "OPTIMIZE"])? {
        "VACUUM" => vacuum(cursor, default_schema),
        "RESTORE" => restore(cursor, default_schema),
        "OPTIMIZE" => optimize(cursor, default_schema),
        _ => convert(cursor),
    }
}

fn vacuum(cursor: &mut Cursor<'_>, default_schema: &str) -> Result<Maintain> {
    let table = place(cursor, default_schema)?;
    let retain = match cursor.take(&["RETAIN"]) {
        true => {
            let text = cursor.value()?;
            cursor.one_of(&["HOURS", "HOUR"])?;
            let hours = text.parse::<f64>().ok().and_then(|hours| {
                let retain = Duration::try_from_secs_f64(hours * 3600.0).ok()?;
                // Far more than any table's age, and still a number of milliseconds.
                (hours < 1e9).then_some(retain)
            });
            let wrong = || {
                Error::new(Code::InvalidStatement, format!("RETAIN {text} HOURS"))
                    .hint("a number of hours, 0 or more, such as RETAIN 168 HOURS")
            };
            Some(hours.ok_or_else(wrong)?)
        }
        false => None,
    };
    Ok(Maintain::Vacuum { table, retain, dry_run: cursor.take(&["DRY", "RUN"]) })
}

fn restore(cursor: &mut Cursor<'_>, default_schema: &str) -> Result<Maintain> {
    cursor.take(&["TABLE"]);
    let table = place(cursor, default_schema)?;
    cursor.take(&["TO"]);
    let to = match cursor.one_of(&["VERSION", "TIMESTAMP"])? {
        "VERSION" => {
            cursor.expect(&["AS", "OF"])?;
            TableVersion::Number(number(cursor, "a version such as 12")?)
        }
        _ => {
            cursor.expect(&["AS", "OF"])?;
            TableVersion::Time(instant(&cursor.string()?)?)
        }
    };
    Ok(Maintain::Restore { table, to })
}

fn optimize(cursor: &mut Cursor<'_>, default_schema: &str) -> Result<Maintain> {
    cursor.take(&["TABLE"]);
    let table = place(cursor, default_schema)?;
    let predicate = match cursor.take(&["WHERE"]) {
        true => Some(cursor.with_text(Cursor::expr)?.1),
        false => None,
    };
    let mut zorder_by = Vec::new();
    if cursor.take(&["ZORDER", "BY"]) {
        // Spark takes the columns with and without parentheses.
        if cursor.peek_is(&Token::LParen) {
            zorder_by = cursor.idents_in_parentheses()?;
        } else {
            zorder_by.push(cursor.ident()?);
            while cursor.take_token(&Token::Comma) {
                zorder_by.push(cursor.ident()?);
            }
        }
    }
    Ok(Maintain::Optimize { table, predicate, zorder_by })
}

fn convert(cursor: &mut Cursor<'_>) -> Result<Maintain> {
    cursor.expect(&["TO", "DELTA"])?;
    if !cursor.take(&["PARQUET"]) {
        return Err(cursor
            .expected("`parquet.'folder'`")
            .hint("CONVERT TO DELTA parquet.'s3://bucket/folder'"));
    }
    cursor.expect_token(&Token::Period)?;
    let location = location(cursor)?;
    let partitions = match cursor.take(&["PARTITIONED", "BY"]) {
        true => Arc::new(column_schema(cursor.list(Cursor::column)?)?),
        false => SchemaRef::new(arrow::datatypes::Schema::empty()),
    };
    Ok(Maintain::Convert { location, partitions })
}

pub(super) fn place(cursor: &mut Cursor<'_>, default_schema: &str) -> Result<Place> {
    if cursor.word_at(0).as_deref() == Some("DELTA")
        && cursor.is_at(1, &Token::Period)
        && cursor.word_at(2).is_none()
    {
        cursor.take(&["DELTA"]);
        cursor.expect_token(&Token::Period)?;
        return location(cursor).map(Place::Location);
    }
    cursor.table_name(default_schema).map(Place::Table)
}

/// A folder, in quotes of any kind.
fn location(cursor: &mut Cursor<'_>) -> Result<String> {
    cursor.ident()
}

fn number<T: std::str::FromStr>(cursor: &mut Cursor<'_>, what: &str) -> Result<T> {
    let text = cursor.value()?;
    text.parse().map_err(|_| {
        Error::new(Code::InvalidStatement, format!("`{text}` is no such number"))
            .hint(format!("expected {what}"))
    })
}

/// Without a zone the text means UTC, as everywhere here.
fn instant(text: &str) -> Result<DateTime<Utc>> {
    let utc = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let read = cast(&StringArray::from(vec![text]), &utc).ok();
    let read = read.map(|array| array.as_primitive::<TimestampMicrosecondType>().iter().next().flatten());
    read.flatten().and_then(DateTime::from_timestamp_micros).ok_or_else(|| {
        Error::new(Code::InvalidStatement, format!("`{text}` is no time"))
            .hint("'2026-01-31', '2026-01-31 12:00:00' or '2026-01-31T12:00:00+01:00'")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statement::Describe;
    use crate::{Statement, parse};

    fn maintain(text: &str) -> Maintain {
        match parse(text, "shop").unwrap() {
            Statement::Maintain(maintain) => maintain,
            other => panic!("{other:?}"),
        }
    }

    fn sales() -> Place {
        Place::Table(TableName::new("shop", "sales"))
    }

    #[test]
    fn history_and_detail_are_no_reserved_words() {
        assert_eq!(
            maintain("DESCRIBE HISTORY sales LIMIT 5"),
            Maintain::History { table: sales(), limit: Some(5) }
        );
        assert_eq!(maintain("desc detail Sales;"), Maintain::Detail { table: sales() });
        let folder = Place::Location("/data/sales".to_owned());
        assert_eq!(maintain("DESCRIBE DETAIL delta.`/data/sales`"), Maintain::Detail { table: folder });
        let named = |schema, name| {
            Statement::Describe(Describe { table: TableName::new(schema, name), extended: false })
        };
        assert_eq!(parse("DESCRIBE history", "shop").unwrap(), named("shop", "history"));
        assert_eq!(parse("DESCRIBE detail.x", "shop").unwrap(), named("detail", "x"));
    }

    #[test]
    fn vacuum_and_restore() {
        let week = Some(Duration::from_secs(168 * 3600));
        assert_eq!(
            maintain("VACUUM sales RETAIN 168 HOURS DRY RUN"),
            Maintain::Vacuum { table: sales(), retain: week, dry_run: true }
        );
        assert_eq!(
            maintain("vacuum sales"),
            Maintain::Vacuum { table: sales(), retain: None, dry_run: false }
        );
        assert_eq!(
            maintain("RESTORE TABLE sales TO VERSION AS OF 3"),
            Maintain::Restore { table: sales(), to: TableVersion::Number(3) }
        );
        let second = TableVersion::Time("1970-01-01T00:00:01Z".parse().unwrap());
        assert_eq!(
            maintain("RESTORE sales TO TIMESTAMP AS OF '1970-01-01T01:00:01+01:00'"),
            Maintain::Restore { table: sales(), to: second }
        );
        assert_eq!(
            maintain("RESTORE sales TIMESTAMP AS OF '1970-01-01 00:00:01'"),
            Maintain::Restore { table: sales(), to: second }
        );
    }

    #[test]
    fn convert_takes_partition_columns_with_their_types() {
        let Maintain::Convert { location, partitions } =
            maintain("CONVERT TO DELTA parquet.'s3://b/t' PARTITIONED BY (day DATE)")
        else {
            panic!("no CONVERT");
        };
        assert_eq!(location, "s3://b/t");
        assert_eq!(partitions.field(0).data_type(), &DataType::Date32);
    }

    #[test]
    fn optimize_keeps_the_text_of_its_predicate() {
        let optimize = |predicate: Option<&str>, columns: &[&str]| Maintain::Optimize {
            table: sales(),
            predicate: predicate.map(str::to_owned),
            zorder_by: columns.iter().map(|name| (*name).to_owned()).collect(),
        };
        assert_eq!(maintain("OPTIMIZE sales"), optimize(None, &[]));
        let text = "OPTIMIZE sales WHERE day >= '2026-01-01' AND region = 'eu' ZORDER BY (a, \"B\")";
        assert_eq!(maintain(text), optimize(Some("day >= '2026-01-01' AND region = 'eu'"), &["a", "B"]));
        assert_eq!(maintain("OPTIMIZE TABLE sales ZORDER BY a, b;"), optimize(None, &["a", "b"]));
        assert_eq!(parse("OPTIMIZE sales ZORDER a", "shop").unwrap_err().code, Code::Syntax);
    }

    #[test]
    fn says_what_is_wrong() {
        let code = |text: &str| parse(text, "shop").unwrap_err().code;
        assert_eq!(code("VACUUM sales RETAIN -1 HOURS"), Code::InvalidStatement);
        assert_eq!(code("VACUUM sales RETAIN 7 DAYS"), Code::Syntax);
        assert_eq!(code("RESTORE sales TO VERSION AS OF x"), Code::InvalidStatement);
        assert_eq!(code("RESTORE sales TO TIMESTAMP AS OF 'yesterday'"), Code::InvalidStatement);
        assert_eq!(code("CONVERT TO DELTA csv.'x'"), Code::Syntax);
    }
}
