//! Answers to the questions that drivers ask about the server itself: catalogs, tables, keys, types.

use super::connection::ClientSession;
use super::sql_info::sql_info;
use super::wire::wire_schema;
use crate::frontend::api::{Frontend, TableFilter};
use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow_flight::error::FlightError;
use arrow_flight::sql::metadata::{
    GetCatalogsBuilder, SqlInfoData, XdbcTypeInfo, XdbcTypeInfoData, XdbcTypeInfoDataBuilder,
};
use arrow_flight::sql::{Command, Nullable, Searchable, XdbcDataType};
use std::collections::BTreeSet;
use std::sync::Arc;
use tidemill_core::{Code, Error, Result};

const TABLE_TYPES: [&str; 3] = ["SYSTEM TABLE", "TABLE", "VIEW"];

/// Facts about this server that do not change.
pub(super) struct Facts {
    sql_info: SqlInfoData,
    types: XdbcTypeInfoData,
}

impl Facts {
    pub(super) fn new() -> Result<Self> {
        Ok(Self { sql_info: sql_info()?, types: types()? })
    }

    /// The schema of the answer; `None` when the command asks for something else.
    pub(super) fn schema(&self, command: &Command) -> Option<SchemaRef> {
        Some(match command.clone() {
            Command::CommandGetCatalogs(command) => command.into_builder().schema(),
            Command::CommandGetDbSchemas(command) => command.into_builder().schema(),
            Command::CommandGetTables(command) => command.into_builder().schema(),
            Command::CommandGetTableTypes(command) => command.into_builder().schema(),
            Command::CommandGetSqlInfo(command) => command.into_builder(&self.sql_info).schema(),
            Command::CommandGetXdbcTypeInfo(command) => command.into_builder(&self.types).schema(),
            Command::CommandGetPrimaryKeys(_) => primary_keys(),
            Command::CommandGetExportedKeys(_)
            | Command::CommandGetImportedKeys(_)
            | Command::CommandGetCrossReference(_) => foreign_keys(),
            _ => return None,
        })
    }

    /// The answer.
    pub(super) async fn rows(
        &self,
        command: Command,
        frontend: &dyn Frontend,
        session: &ClientSession,
    ) -> Result<RecordBatch> {
        let batch = match command {
            Command::CommandGetCatalogs(_) => {
                let schemas = frontend.schemas(session.id().await?).await?;
                let names: BTreeSet<String> = schemas.into_iter().map(|schema| schema.catalog).collect();
                let mut builder = GetCatalogsBuilder::new();
                names.into_iter().for_each(|name| builder.append(name));
                builder.build()
            }
            Command::CommandGetDbSchemas(command) => {
                let mut builder = command.into_builder();
                for schema in frontend.schemas(session.id().await?).await? {
                    builder.append(schema.catalog, schema.schema);
                }
                builder.build()
            }
            Command::CommandGetTables(command) => {
                let filter = TableFilter {
                    catalog: command.catalog.clone(),
                    schema_pattern: command.db_schema_filter_pattern.clone(),
                    name_pattern: command.table_name_filter_pattern.clone(),
                    with_columns: command.include_schema,
                };
                let mut builder = command.into_builder();
                for table in frontend.tables(session.id().await?, &filter).await? {
                    let columns =
                        table.columns.as_ref().map_or_else(|| Arc::new(Schema::empty()), |s| wire_schema(s));
                    let appended =
                        builder.append(table.catalog, table.schema, table.name, table.kind, &columns);
                    appended.map_err(failed)?;
                }
                builder.build()
            }
            Command::CommandGetTableTypes(command) => {
                let mut builder = command.into_builder();
                TABLE_TYPES.iter().for_each(|name| builder.append(name));
                builder.build()
            }
            Command::CommandGetSqlInfo(command) => command.into_builder(&self.sql_info).build(),
            Command::CommandGetXdbcTypeInfo(command) => command.into_builder(&self.types).build(),
            other => {
                return match self.schema(&other) {
                    Some(schema) => Ok(RecordBatch::new_empty(schema)),
                    None => Err(unknown(&other)),
                };
            }
        };
        batch.map_err(failed)
    }
}

pub(super) fn unknown(command: &Command) -> Error {
    Error::new(Code::Unsupported, format!("Flight SQL command `{}`", command.type_url()))
        .hint("statements, prepared statements and metadata are supported")
}

pub(super) fn failed(error: FlightError) -> Error {
    Error::internal(error)
}

/// Lake tables have no keys; the schemas are those of the Flight SQL specification.
fn primary_keys() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("catalog_name", DataType::Utf8, true),
        Field::new("db_schema_name", DataType::Utf8, true),
        Field::new("table_name", DataType::Utf8, false),
        Field::new("column_name", DataType::Utf8, false),
        Field::new("key_name", DataType::Utf8, true),
        Field::new("key_sequence", DataType::Int32, false),
    ]))
}

fn foreign_keys() -> SchemaRef {
    let text = |name: &str, nullable| Field::new(name, DataType::Utf8, nullable);
    Arc::new(Schema::new(vec![
        text("pk_catalog_name", true),
        text("pk_db_schema_name", true),
        text("pk_table_name", false),
        text("pk_column_name", false),
        text("fk_catalog_name", true),
        text("fk_db_schema_name", true),
        text("fk_table_name", false),
        text("fk_column_name", false),
        Field::new("key_sequence", DataType::Int32, false),
        text("fk_key_name", true),
        text("pk_key_name", true),
        Field::new("update_rule", DataType::UInt8, false),
        Field::new("delete_rule", DataType::UInt8, false),
    ]))
}

/// Name, type, digits or characters, whether a literal is quoted, radix of a number.
type XdbcType = (&'static str, XdbcDataType, Option<i32>, bool, Option<i32>);

fn types() -> Result<XdbcTypeInfoData> {
    let all: [XdbcType; 19] = [
        ("BOOLEAN", XdbcDataType::XdbcBit, Some(1), false, None),
        ("TINYINT", XdbcDataType::XdbcTinyint, Some(3), false, Some(10)),
        ("SMALLINT", XdbcDataType::XdbcSmallint, Some(5), false, Some(10)),
        ("INTEGER", XdbcDataType::XdbcInteger, Some(10), false, Some(10)),
        ("BIGINT", XdbcDataType::XdbcBigint, Some(19), false, Some(10)),
        ("REAL", XdbcDataType::XdbcReal, Some(24), false, Some(2)),
        ("FLOAT", XdbcDataType::XdbcFloat, Some(24), false, Some(2)),
        ("DOUBLE", XdbcDataType::XdbcDouble, Some(53), false, Some(2)),
        ("DECIMAL", XdbcDataType::XdbcDecimal, Some(76), false, Some(10)),
        ("NUMERIC", XdbcDataType::XdbcNumeric, Some(76), false, Some(10)),
        ("CHAR", XdbcDataType::XdbcChar, None, true, None),
        ("VARCHAR", XdbcDataType::XdbcVarchar, None, true, None),
        ("TEXT", XdbcDataType::XdbcLongvarchar, None, true, None),
        ("BYTEA", XdbcDataType::XdbcVarbinary, None, true, None),
        ("DATE", XdbcDataType::XdbcDate, Some(10), true, None),
        ("TIME", XdbcDataType::XdbcTime, Some(18), true, None),
        ("TIMESTAMP", XdbcDataType::XdbcTimestamp, Some(29), true, None),
        ("TIMESTAMP WITH TIME ZONE", XdbcDataType::XdbcTimestamp, Some(35), true, None),
        ("INTERVAL", XdbcDataType::XdbcInterval, None, true, None),
    ];
    let mut builder = XdbcTypeInfoDataBuilder::new();
    for (name, data_type, column_size, quoted, radix) in all {
        let quote = quoted.then(|| "'".to_owned());
        builder.append(XdbcTypeInfo {
            type_name: name.to_owned(),
            data_type,
            column_size,
            literal_prefix: quote.clone(),
            literal_suffix: quote,
            create_params: matches!(name, "DECIMAL" | "NUMERIC")
                .then(|| vec!["precision".to_owned(), "scale".to_owned()]),
            nullable: Nullable::NullabilityNullable,
            case_sensitive: matches!(name, "CHAR" | "VARCHAR" | "TEXT"),
            searchable: Searchable::Full,
            unsigned_attribute: radix.map(|_| false),
            fixed_prec_scale: false,
            auto_increment: Some(false),
            local_type_name: Some(name.to_owned()),
            sql_data_type: data_type,
            num_prec_radix: radix,
            ..XdbcTypeInfo::default()
        });
    }
    builder.build().map_err(failed)
}
