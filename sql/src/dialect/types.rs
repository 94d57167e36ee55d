//! SQL types as Arrow types, with two choices of our own.
//!
//! - `TIMESTAMP` is an instant: microseconds, UTC, which is what Delta and its other readers store.
//!   `TIMESTAMP WITHOUT TIME ZONE` stays without one.
//! - Declared strings are `Utf8`, not views: a view array that was shuffled keeps, sends and stores the whole
//!   buffers that its rows once came from.

use arrow::datatypes::{DataType, FieldRef, Schema, TimeUnit};
use datafusion::common::config::ConfigOptions;
use datafusion::common::datatype::DataTypeExt;
use datafusion::common::{Result as DfResult, TableReference, not_impl_err};
use datafusion::logical_expr::planner::{ContextProvider, TypePlanner};
use datafusion::logical_expr::{AggregateUDF, HigherOrderUDF, ScalarUDF, TableSource, WindowUDF};
use datafusion::sql::planner::{ParserOptions, SqlToRel};
use datafusion::sql::sqlparser::ast::{ColumnDef, ColumnOption, DataType as SqlType, Ident, TimezoneInfo};
use std::collections::BTreeSet;
use std::sync::Arc;
use tidemill_core::{Code, Error, Result};
use tidemill_engine::from_datafusion;

/// Our reading of SQL types; sessions take it too, so that `CAST(… AS TIMESTAMP)` means the same as a column.
#[derive(Clone, Copy, Debug, Default)]
pub struct TidemillTypes;

impl TypePlanner for TidemillTypes {
    fn plan_type_field(&self, sql_type: &SqlType) -> DfResult<Option<FieldRef>> {
        let zone = match sql_type {
            SqlType::Timestamp(_, TimezoneInfo::WithoutTimeZone) => None,
            SqlType::Timestamp(..) => Some("UTC".into()),
            SqlType::TimestampNtz { .. } => None,
            _ => return Ok(None),
        };
        Ok(Some(DataType::Timestamp(TimeUnit::Microsecond, zone).into_nullable_field_ref()))
    }
}

/// The lower-case form of an unquoted identifier.
pub(crate) fn normalize(ident: Ident) -> String {
    datafusion::sql::planner::IdentNormalizer::default().normalize(ident)
}

/// The Arrow schema of declared columns. Only `NULL` and `NOT NULL` may follow a type.
pub(crate) fn column_schema(columns: Vec<ColumnDef>) -> Result<Schema> {
    let mut seen = BTreeSet::new();
    for column in &columns {
        let name = normalize(column.name.clone());
        for option in &column.options {
            if !matches!(option.option, ColumnOption::NotNull | ColumnOption::Null) {
                let message = format!("column `{name}`: `{option}` is not supported");
                return Err(Error::new(Code::Unsupported, message).hint("NULL or NOT NULL"));
            }
        }
        if !seen.insert(name.clone()) {
            return Err(Error::new(Code::InvalidStatement, format!("column `{name}` is declared twice")));
        }
    }
    let types = Types::default();
    let options = ParserOptions {
        map_string_types_to_utf8view: false,
        support_varchar_with_length: true,
        ..ParserOptions::default()
    };
    SqlToRel::new_with_options(&types, options).build_schema(columns).map_err(|error| {
        let error = from_datafusion(error);
        Error::new(Code::Unsupported, error.message)
            .hint("BOOLEAN, TINYINT … BIGINT, FLOAT, DOUBLE, DECIMAL(p, s), VARCHAR, DATE, TIMESTAMP, BYTEA, type[], STRUCT<…>")
    })
}

/// A context in which only types can be planned.
#[derive(Default)]
struct Types {
    options: ConfigOptions,
}

impl ContextProvider for Types {
    fn get_table_source(&self, name: TableReference) -> DfResult<Arc<dyn TableSource>> {
        not_impl_err!("no table `{name}` among types")
    }

    fn get_type_planner(&self) -> Option<Arc<dyn TypePlanner>> {
        Some(Arc::new(TidemillTypes))
    }

    fn get_function_meta(&self, _name: &str) -> Option<Arc<ScalarUDF>> {
        None
    }

    fn get_higher_order_meta(&self, _name: &str) -> Option<Arc<HigherOrderUDF>> {
        None
    }

    fn get_aggregate_meta(&self, _name: &str) -> Option<Arc<AggregateUDF>> {
        None
    }

    fn get_window_meta(&self, _name: &str) -> Option<Arc<WindowUDF>> {
        None
    }

    fn get_variable_type(&self, _variable_names: &[String]) -> Option<DataType> {
        None
    }

    fn options(&self) -> &ConfigOptions {
        &self.options
    }

    fn udf_names(&self) -> Vec<String> {
        Vec::new()
    }

    fn higher_order_function_names(&self) -> Vec<String> {
        Vec::new()
    }

    fn udaf_names(&self) -> Vec<String> {
        Vec::new()
    }

    fn udwf_names(&self) -> Vec<String> {
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::Cursor;

    fn schema(text: &str) -> Result<Schema> {
        column_schema(Cursor::new(text).unwrap().list(Cursor::column)?)
    }

    #[test]
    fn plans_nested_types_and_instants() {
        let schema = schema(
            "(a TIMESTAMP NOT NULL, b TIMESTAMP WITHOUT TIME ZONE, c VARCHAR(10), \
              d STRUCT<x DOUBLE, y TIMESTAMP>, e INT[], F DECIMAL(10, 2))",
        )
        .unwrap();
        let instant = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        assert_eq!(schema.field(0).data_type(), &instant);
        assert!(!schema.field(0).is_nullable());
        assert_eq!(schema.field(1).data_type(), &DataType::Timestamp(TimeUnit::Microsecond, None));
        assert_eq!(schema.field(2).data_type(), &DataType::Utf8);
        let DataType::Struct(fields) = schema.field(3).data_type() else { panic!("{schema}") };
        assert_eq!(fields[1].data_type(), &instant);
        assert!(
            matches!(schema.field(4).data_type(), DataType::List(item) if item.data_type() == &DataType::Int32)
        );
        assert_eq!(schema.field(5).name(), "f");
    }

    #[test]
    fn refuses_what_it_cannot_keep() {
        assert_eq!(schema("(a INT PRIMARY KEY)").unwrap_err().code, Code::Unsupported);
        assert_eq!(schema("(a INT, A INT)").unwrap_err().code, Code::InvalidStatement);
        assert_eq!(schema("(a REGCLASS)").unwrap_err().code, Code::Unsupported);
    }
}
