//! `CREATE EXTERNAL TABLE`: files that are there already.
//!
//! ```sql
//! CREATE EXTERNAL TABLE [IF NOT EXISTS] t [(a INT, …)] STORED AS {DELTA | PARQUET | CSV | JSON}
//! [PARTITIONED BY (day DATE)] LOCATION 's3://…' [OPTIONS ('format.has_header' 'true')]
//! ```

use super::table::{TableDef, TableFormat};
use crate::dialect::{Cursor, column_schema};
use arrow::datatypes::{DataType, Field, FieldRef, Schema};
use datafusion::sql::sqlparser::tokenizer::Token;
use std::collections::BTreeMap;
use std::sync::Arc;
use tidemill_core::{Code, Error, Result};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateExternalTable {
    pub or_replace: bool,
    pub if_not_exists: bool,
    /// Its schema, where it is not declared, is inferred before it is stored: see
    /// [`crate::Catalog::complete`].
    pub table: TableDef,
}

pub(super) fn parse(
    cursor: &mut Cursor<'_>,
    or_replace: bool,
    default_schema: &str,
) -> Result<CreateExternalTable> {
    let if_not_exists = cursor.take(&["IF", "NOT", "EXISTS"]);
    let name = cursor.table_name(default_schema)?;
    let declared = match cursor.peek_is(&Token::LParen) {
        true => Some(column_schema(cursor.list(Cursor::column)?)?),
        false => None,
    };
    cursor.expect(&["STORED", "AS"])?;
    let format = match cursor.one_of(&["DELTA", "PARQUET", "CSV", "JSON"])? {
        "DELTA" => TableFormat::Delta,
        "PARQUET" => TableFormat::Parquet,
        "CSV" => TableFormat::Csv,
        _ => TableFormat::Json,
    };
    let mut partition_by = Vec::new();
    if cursor.take(&["PARTITIONED", "BY"]) {
        partition_by = cursor.list(|cursor| partition(cursor, declared.as_ref()))?;
    }
    cursor.expect(&["LOCATION"])?;
    let location = cursor.string()?;
    let options = if cursor.take(&["OPTIONS"]) { cursor.options()? } else { BTreeMap::new() };

    if format == TableFormat::Delta && (declared.is_some() || !partition_by.is_empty()) {
        return Err(Error::new(
            Code::InvalidStatement,
            "a Delta table knows its columns and partitions itself",
        )
        .hint("CREATE EXTERNAL TABLE t STORED AS DELTA LOCATION '…'"));
    }
    // Partition columns come from the folders' names, not from the files.
    let in_files = |schema: Schema| {
        let fields = schema
            .fields()
            .iter()
            .filter(|field| partition_by.iter().all(|partition: &FieldRef| partition.name() != field.name()));
        Arc::new(Schema::new(fields.cloned().collect::<Vec<_>>()))
    };
    let table = TableDef {
        name,
        format,
        location,
        external: true,
        schema: declared.map(in_files),
        partition_by: Arc::new(Schema::new(partition_by)),
        options,
    };
    Ok(CreateExternalTable { or_replace, if_not_exists, table })
}

/// `column`, declared among the columns or else a string, or `column type`.
fn partition(cursor: &mut Cursor<'_>, declared: Option<&Schema>) -> Result<FieldRef> {
    let has_type = cursor.word_at(1).is_some();
    if has_type {
        let schema = column_schema(vec![cursor.column()?])?;
        return Ok(Arc::new(schema.field(0).clone()));
    }
    let name = cursor.ident()?;
    match declared.and_then(|schema| schema.field_with_name(&name).ok()) {
        Some(field) => Ok(Arc::new(field.clone())),
        None => Ok(Arc::new(Field::new(name, DataType::Utf8, true))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Statement, TableName, parse};

    fn create(text: &str) -> Result<TableDef> {
        match parse(text, "public")? {
            Statement::CreateExternalTable(create) => Ok(create.table),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn reads_everything_and_survives_the_journal() {
        let table = create(
            "CREATE EXTERNAL TABLE t (a INT, day DATE) STORED AS CSV PARTITIONED BY (day, region VARCHAR) \
             LOCATION '/data/t' OPTIONS ('format.has_header' 'true', format.delimiter ';')",
        )
        .unwrap();
        assert_eq!(table.name, TableName::new("public", "t"));
        assert_eq!(table.schema.as_ref().unwrap().fields().len(), 1);
        assert_eq!(table.partition_by.field(0).data_type(), &DataType::Date32);
        assert_eq!(table.partition_by.field(1).data_type(), &DataType::Utf8);
        assert_eq!(table.options["format.delimiter"], ";");
        let json = serde_json::to_string(&table).unwrap();
        assert_eq!(serde_json::from_str::<TableDef>(&json).unwrap(), table);
    }

    #[test]
    fn says_what_is_wrong() {
        let error = create("CREATE EXTERNAL TABLE t STORED AS PARKET LOCATION '/x'").unwrap_err();
        assert_eq!((error.code, error.hint.as_deref()), (Code::Syntax, Some("did you mean `PARQUET`?")));
        let error = create("CREATE EXTERNAL TABLE t (a INT) STORED AS DELTA LOCATION '/x'").unwrap_err();
        assert_eq!(error.code, Code::InvalidStatement);
    }
}
