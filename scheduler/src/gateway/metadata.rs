//! Answers to the questions that drivers ask about the server itself: catalogs, tables, keys, types.

use super::connection::ClientSession;
use super::wire::wire_schema;
use crate::frontend::api::{Frontend, TableFilter};
use crate::frontend::substrait;
use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow_flight::error::FlightError;
use arrow_flight::sql::metadata::{
    GetCatalogsBuilder, SqlInfoData, SqlInfoDataBuilder, XdbcTypeInfo, XdbcTypeInfoData,
    XdbcTypeInfoDataBuilder,
};
use arrow_flight::sql::{
    Command, Nullable, Searchable, SqlInfo, SqlNullOrdering, SqlSupportedCaseSensitivity,
    SqlSupportedTransaction, SqlSupportsConvert, XdbcDataType,
};
use std::collections::{BTreeSet, HashMap};
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

fn failed(error: FlightError) -> Error {
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

fn sql_info() -> Result<SqlInfoData> {
    let mut info = SqlInfoDataBuilder::new();
    info.append(SqlInfo::FlightSqlServerName, "Tidemill");
    info.append(SqlInfo::FlightSqlServerVersion, env!("CARGO_PKG_VERSION"));
    info.append(SqlInfo::FlightSqlServerArrowVersion, arrow::ARROW_VERSION);
    info.append(SqlInfo::FlightSqlServerReadOnly, false);
    info.append(SqlInfo::FlightSqlServerSql, true);
    info.append(SqlInfo::FlightSqlServerSubstrait, true);
    info.append(SqlInfo::FlightSqlServerSubstraitMaxVersion, substrait::known_version().as_str());
    info.append(SqlInfo::FlightSqlServerTransaction, SqlSupportedTransaction::None as i32);
    info.append(SqlInfo::FlightSqlServerCancel, true);
    info.append(SqlInfo::FlightSqlServerBulkIngestion, false);
    info.append(SqlInfo::FlightSqlServerStatementTimeout, 0i32);
    info.append(SqlInfo::FlightSqlServerTransactionTimeout, 0i32);
    info.append(SqlInfo::SqlDdlCatalog, false);
    info.append(SqlInfo::SqlDdlSchema, true);
    info.append(SqlInfo::SqlDdlTable, true);
    info.append(SqlInfo::SqlIdentifierCase, SqlSupportedCaseSensitivity::SqlCaseSensitivityLowercase as i32);
    info.append(SqlInfo::SqlIdentifierQuoteChar, "\"");
    info.append(
        SqlInfo::SqlQuotedIdentifierCase,
        SqlSupportedCaseSensitivity::SqlCaseSensitivityCaseInsensitive as i32,
    );
    info.append(SqlInfo::SqlAllTablesAreSelectable, true);
    info.append(SqlInfo::SqlNullOrdering, SqlNullOrdering::SqlNullsSortedHigh as i32);
    for list in [
        SqlInfo::SqlKeywords,
        SqlInfo::SqlNumericFunctions,
        SqlInfo::SqlStringFunctions,
        SqlInfo::SqlSystemFunctions,
        SqlInfo::SqlDatetimeFunctions,
    ] {
        info.append(list, &[] as &[&str]);
    }
    info.append(SqlInfo::SqlSearchStringEscape, "\\");
    info.append(SqlInfo::SqlExtraNameCharacters, "");
    for yes in [
        SqlInfo::SqlSupportsColumnAliasing,
        SqlInfo::SqlNullPlusNullIsNull,
        SqlInfo::SqlSupportsTableCorrelationNames,
        SqlInfo::SqlSupportsExpressionsInOrderBy,
        SqlInfo::SqlSupportsOrderByUnrelated,
        SqlInfo::SqlSupportsLikeEscapeClause,
        SqlInfo::SqlSupportsNonNullableColumns,
        SqlInfo::SqlCatalogAtStart,
        SqlInfo::SqlCorrelatedSubqueriesSupported,
    ] {
        info.append(yes, true);
    }
    for no in [
        SqlInfo::SqlSupportsDifferentTableCorrelationNames,
        SqlInfo::SqlSupportsIntegrityEnhancementFacility,
        SqlInfo::SqlSelectForUpdateSupported,
        SqlInfo::SqlStoredProceduresSupported,
        SqlInfo::SqlTransactionsSupported,
        SqlInfo::SqlSavepointsSupported,
        SqlInfo::SqlNamedParametersSupported,
        SqlInfo::SqlStoredFunctionsUsingCallSyntaxSupported,
    ] {
        info.append(no, false);
    }
    info.append(SqlInfo::SqlSupportsConvert, conversions());
    info.append(SqlInfo::SqlSchemaTerm, "schema");
    info.append(SqlInfo::SqlCatalogTerm, "catalog");
    info.append(SqlInfo::SqlProcedureTerm, "procedure");
    info.build().map_err(failed)
}

/// Any number or text converts to any other.
fn conversions() -> HashMap<i32, Vec<i32>> {
    let types = [
        SqlSupportsConvert::SqlConvertBigint,
        SqlSupportsConvert::SqlConvertDecimal,
        SqlSupportsConvert::SqlConvertFloat,
        SqlSupportsConvert::SqlConvertInteger,
        SqlSupportsConvert::SqlConvertReal,
        SqlSupportsConvert::SqlConvertSmallint,
        SqlSupportsConvert::SqlConvertTinyint,
        SqlSupportsConvert::SqlConvertVarchar,
    ];
    let numbers: Vec<i32> = types.iter().map(|name| *name as i32).collect();
    numbers.iter().map(|from| (*from, numbers.clone())).collect()
}

/// Name, type, digits or characters, whether a literal is quoted, radix of a number.
type XdbcType = (&'static str, XdbcDataType, Option<i32>, bool, Option<i32>);

fn types() -> Result<XdbcTypeInfoData> {
    let all: [XdbcType; 14] = [
        ("BOOLEAN", XdbcDataType::XdbcBit, Some(1), false, None),
        ("TINYINT", XdbcDataType::XdbcTinyint, Some(3), false, Some(10)),
        ("SMALLINT", XdbcDataType::XdbcSmallint, Some(5), false, Some(10)),
        ("INTEGER", XdbcDataType::XdbcInteger, Some(10), false, Some(10)),
        ("BIGINT", XdbcDataType::XdbcBigint, Some(19), false, Some(10)),
        ("REAL", XdbcDataType::XdbcReal, Some(24), false, Some(2)),
        ("DOUBLE", XdbcDataType::XdbcDouble, Some(53), false, Some(2)),
        ("DECIMAL", XdbcDataType::XdbcDecimal, Some(76), false, Some(10)),
        ("VARCHAR", XdbcDataType::XdbcVarchar, None, true, None),
        ("VARBINARY", XdbcDataType::XdbcVarbinary, None, true, None),
        ("DATE", XdbcDataType::XdbcDate, Some(10), true, None),
        ("TIME", XdbcDataType::XdbcTime, Some(18), true, None),
        ("TIMESTAMP", XdbcDataType::XdbcTimestamp, Some(29), true, None),
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
            create_params: (name == "DECIMAL").then(|| vec!["precision".to_owned(), "scale".to_owned()]),
            nullable: Nullable::NullabilityNullable,
            case_sensitive: name == "VARCHAR",
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
