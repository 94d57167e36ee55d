//! What a table demands of its rows: CHECK constraints, invariants, and generated columns.
//!
//! They are evaluated by every task over the rows that it writes, whatever statement, pipeline or load these are
//! from. As in Spark, a condition that is NULL is violated.

use super::alter::CONSTRAINT;
use super::features;
use super::schema;
use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::kernels::cmp::not_distinct;
use arrow::compute::{CastOptions, can_cast_types, cast_with_options};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::util::display::array_value_to_string;
use datafusion::common::DFSchema;
use datafusion::common::tree_node::TreeNode;
use datafusion::logical_expr::{self, Volatility};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::utils::collect_columns;
use datafusion::prelude::SessionContext;
use datafusion::sql::sqlparser::ast::{Expr, Ident, Value, visit_expressions_mut};
use datafusion::sql::sqlparser::dialect::{DatabricksDialect, GenericDialect};
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use deltalake_core::kernel::EagerSnapshot;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use tidemill_core::{Code, Error, Result};
use tidemill_engine::from_datafusion;

const INVARIANTS: &str = "delta.invariants";

/// Parts of a time that are functions in Spark.
const PARTS: &[(&str, &str)] = &[
    ("year", "year"),
    ("quarter", "quarter"),
    ("month", "month"),
    ("day", "day"),
    ("dayofmonth", "day"),
    ("hour", "hour"),
    ("minute", "minute"),
    ("second", "second"),
];

/// The rules of one snapshot of a table.
pub(super) struct Rules {
    schema: SchemaRef,
    /// The schema in which columns that are generated may be NULL, as long as they are.
    open: SchemaRef,
    checks: Vec<Rule>,
    generated: Vec<(usize, Rule)>,
}

struct Rule {
    name: String,
    text: String,
    value: Arc<dyn PhysicalExpr>,
}

/// The texts of all rules, each with its kind and name: who writes a file notes them, and who commits it compares.
pub(super) fn texts(snapshot: &EagerSnapshot, schema: &Schema) -> Vec<String> {
    let mut texts: Vec<String> = constraints(snapshot)
        .into_iter()
        .map(|(name, text)| format!("CHECK {name}: {text}"))
        .chain(
            features::generated_columns(schema).into_iter().map(|(name, text)| format!("AS {name}: {text}")),
        )
        .chain(invariants(schema).into_iter().map(|(name, text)| format!("INVARIANT {name}: {text}")))
        .collect();
    let not_null = schema.fields().iter().filter(|field| !field.is_nullable());
    texts.extend(not_null.map(|field| format!("NOT NULL {}", field.name())));
    texts.sort();
    texts
}

fn constraints(snapshot: &EagerSnapshot) -> Vec<(String, String)> {
    let configuration = snapshot.metadata().configuration().iter();
    let named = configuration.filter_map(|(key, text)| Some((key.strip_prefix(CONSTRAINT)?, text)));
    named.map(|(name, text)| (name.to_owned(), text.clone())).collect()
}

/// Of columns at the top; those within structs are refused elsewhere, as nobody writes them.
fn invariants(schema: &Schema) -> Vec<(String, String)> {
    let of = |field: &Arc<Field>| {
        let json: serde_json::Value = serde_json::from_str(field.metadata().get(INVARIANTS)?).ok()?;
        let text = json.pointer("/expression/expression")?.as_str()?.to_owned();
        Some((field.name().clone(), text))
    };
    schema.fields().iter().filter_map(of).collect()
}

/// Fails if a rule depends on a column, whose type is to change.
pub(super) fn refuse_read(snapshot: &EagerSnapshot, column: &str) -> Result<()> {
    let schema = snapshot.arrow_schema();
    let generated = features::generated_columns(&schema);
    let rules = constraints(snapshot).into_iter().chain(invariants(&schema)).chain(generated);
    for (name, text) in rules {
        let reads = collect_columns(&Rule::sound(&name, &text, &schema)?.value);
        if name == column || reads.iter().any(|read| read.name() == column) {
            let message = format!("`{name}` ({text}) depends on the type of column `{column}`");
            return Err(Error::new(Code::Unsupported, message)
                .hint("DROP the CONSTRAINT first and add it again; a generated column cannot change"));
        }
    }
    Ok(())
}

/// Fails if a condition cannot be evaluated over rows of these columns, or is none.
pub(super) fn demand_evaluable(name: &str, text: &str, schema: &SchemaRef) -> Result<()> {
    let rule = Rule::sound(name, text, schema)?;
    match rule.value.data_type(schema).map_err(from_datafusion)? {
        DataType::Boolean => Ok(()),
        other => Err(Error::new(Code::TypeMismatch, format!("`{text}` is no condition, but {other}"))
            .hint("a comparison, or conditions joined by AND and OR")),
    }
}

/// The expression of a new generated column as the log keeps it. Other engines ask that it reads no generated
/// column, that it gives the same for the same row, and that it is of the column's own type.
pub(super) fn generation(
    column: &str,
    text: &str,
    schema: &SchemaRef,
    generated: &BTreeMap<String, String>,
) -> Result<String> {
    let rule = Rule::sound(column, text, schema)?;
    let refuse = |why: String| {
        let message = format!("the column `{column}` cannot be generated AS ({text}): {why}");
        Error::new(Code::InvalidStatement, message)
    };
    let reads = collect_columns(&rule.value);
    if let Some(read) = reads.iter().find(|read| generated.contains_key(read.name())) {
        return Err(refuse(format!("`{}` is generated itself", read.name()))
            .hint("write it over columns that rows bring"));
    }
    if changes(&logical(text, schema)?)? {
        return Err(refuse("it may give another value each time".to_owned())
            .hint("leave random(), now() and the like out of it"));
    }
    let from = schema::lake_type(column, &rule.value.data_type(schema).map_err(from_datafusion)?)?;
    let to = schema.field_with_name(column)?.data_type();
    match type_name(to).filter(|_| can_cast_types(&from, to)) {
        _ if from == *to => Ok(text.to_owned()),
        Some(name) => Ok(format!("CAST({text} AS {name})")),
        None => Err(refuse(format!("it is {from}, and the column {to}")).hint("CAST it")),
    }
}

/// Whether an expression may give something else for the same row.
fn changes(expr: &logical_expr::Expr) -> Result<bool> {
    let may = |part: &logical_expr::Expr| {
        let logical_expr::Expr::ScalarFunction(call) = part else { return Ok(false) };
        Ok(match call.func.signature().volatility {
            Volatility::Volatile => true,
            // The time of the statement; with arguments it is one that looks at the session's zone.
            Volatility::Stable => call.args.is_empty(),
            Volatility::Immutable => false,
        })
    };
    expr.exists(may).map_err(from_datafusion)
}

/// A word for a type that both Spark and DataFusion know.
fn type_name(data_type: &DataType) -> Option<String> {
    let name = match data_type {
        DataType::Boolean => "BOOLEAN",
        DataType::Int8 => "TINYINT",
        DataType::Int16 => "SMALLINT",
        DataType::Int32 => "INT",
        DataType::Int64 => "BIGINT",
        DataType::Float32 => "FLOAT",
        DataType::Float64 => "DOUBLE",
        DataType::Utf8 => "STRING",
        DataType::Date32 => "DATE",
        DataType::Decimal128(precision, scale) => return Some(format!("DECIMAL({precision}, {scale})")),
        _ => return None,
    };
    Some(name.to_owned())
}

impl Rules {
    pub(super) fn of(snapshot: &EagerSnapshot, schema: &SchemaRef) -> Result<Self> {
        let generated = features::generated_columns(schema);
        let fields = schema.fields().iter().map(|field| match generated.contains_key(field.name()) {
            true => Arc::new(field.as_ref().clone().with_nullable(true)),
            false => field.clone(),
        });
        let open = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let checks = constraints(snapshot)
            .into_iter()
            .chain(invariants(schema))
            .map(|(name, text)| Rule::new(name, text, &open))
            .collect::<Result<Vec<_>>>()?;
        let generated = generated
            .into_iter()
            .map(|(name, text)| Ok((schema.index_of(&name)?, Rule::new(name, text, &open)?)))
            .collect::<Result<Vec<_>>>()?;
        Ok(Self { schema: schema.clone(), open, checks, generated })
    }

    /// The columns of the rows that [`apply`](Self::apply) gives.
    pub(super) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// What rows that come are compared with.
    pub(super) fn accepted(&self) -> &Schema {
        &self.open
    }

    /// The rows in the table's own columns, with those that are generated, if they keep all rules.
    pub(super) fn apply(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        let mut rows = schema::conform(batch, &self.open)?;
        if !self.generated.is_empty() {
            rows = self.generate(batch, rows)?;
        }
        for check in &self.checks {
            check.demand(&rows)?;
        }
        Ok(rows)
    }

    fn generate(&self, given: &RecordBatch, rows: RecordBatch) -> Result<RecordBatch> {
        let mut columns: Vec<ArrayRef> = rows.columns().to_vec();
        for (index, rule) in &self.generated {
            let field = self.schema.field(*index);
            let strict = CastOptions { safe: false, ..CastOptions::default() };
            let value =
                cast_with_options(&rule.evaluate(&rows)?, field.data_type(), &strict).map_err(|error| {
                    Error::new(Code::BadData, format!("the generated column `{}`: {error}", rule.name))
                })?;
            if given.column_by_name(&rule.name).is_some() {
                let equal = not_distinct(&columns[*index], &value)?;
                if let Some(row) = equal.iter().position(|equal| equal != Some(true)) {
                    let message = format!(
                        "the generated column `{}` is not `{}` in the row {}",
                        rule.name,
                        rule.text,
                        shown(&rows, row)
                    );
                    return Err(
                        Error::new(Code::BadData, message).hint("leave the column out: it is computed")
                    );
                }
            }
            columns[*index] = value;
        }
        RecordBatch::try_new(self.schema.clone(), columns)
            .map_err(|error| Error::new(Code::BadData, format!("generated columns: {error}")))
    }
}

impl Rule {
    fn new(name: String, text: String, schema: &SchemaRef) -> Result<Self> {
        let plan = || -> Result<Arc<dyn PhysicalExpr>> {
            let expr = logical(&text, schema)?;
            let schema = DFSchema::try_from(schema.as_ref().clone()).map_err(from_datafusion)?;
            SessionContext::new().state().create_physical_expr(expr, &schema).map_err(from_datafusion)
        };
        match plan() {
            Ok(value) => Ok(Self { name, text, value }),
            Err(error) => Err(Error::new(
                Code::Unsupported,
                format!("cannot evaluate `{text}`, which the table demands as `{name}`: {}", error.message),
            )
            .hint("drop the constraint, or write the table with the engine that made it")),
        }
    }

    /// One that is to be: what cannot be evaluated would keep everybody from writing.
    fn sound(name: &str, text: &str, schema: &SchemaRef) -> Result<Self> {
        Self::new(name.to_owned(), text.to_owned(), schema).map_err(|error| {
            error
                .hint("write it with operators, year(), month(), day(), hour() and functions of DataFusion's")
        })
    }

    fn evaluate(&self, rows: &RecordBatch) -> Result<ArrayRef> {
        let value = self.value.evaluate(rows).map_err(from_datafusion)?;
        value.into_array(rows.num_rows()).map_err(from_datafusion)
    }

    fn demand(&self, rows: &RecordBatch) -> Result<()> {
        let value = self.evaluate(rows)?;
        let Some(holds) = value.as_boolean_opt() else {
            return Err(Error::new(Code::TypeMismatch, format!("`{}` is no condition", self.text)));
        };
        match holds.iter().position(|holds| holds != Some(true)) {
            None => Ok(()),
            Some(row) => {
                let (name, text, row) = (&self.name, &self.text, shown(rows, row));
                Err(Error::new(
                    Code::BadData,
                    format!("the constraint `{name}` CHECK ({text}) fails for the row {row}"),
                )
                .hint("filter such rows out, or ALTER TABLE … DROP CONSTRAINT"))
            }
        }
    }
}

fn logical(text: &str, schema: &SchemaRef) -> Result<logical_expr::Expr> {
    let schema = DFSchema::try_from(schema.as_ref().clone()).map_err(from_datafusion)?;
    let spoken = translate(text, schema.as_arrow())?;
    SessionContext::new().state().create_logical_expr(&spoken, &schema).map_err(from_datafusion)
}

/// A row for an error message.
fn shown(rows: &RecordBatch, row: usize) -> String {
    let schema = rows.schema();
    let columns = schema.fields().iter().zip(rows.columns());
    let values = columns.map(|(field, values)| {
        let value = match values.is_null(row) {
            true => "NULL".to_owned(),
            false => array_value_to_string(values, row).unwrap_or_else(|_| "?".to_owned()),
        };
        format!("{}: {value}", field.name())
    });
    format!("{{{}}}", values.collect::<Vec<_>>().join(", "))
}

/// Spark's SQL as DataFusion's: names in backticks and in any case, and parts of times.
fn translate(text: &str, schema: &Schema) -> Result<String> {
    let fault = |error: ParserError| Error::new(Code::Syntax, format!("{error}"));
    let mut expr = Parser::new(&DatabricksDialect {})
        .try_with_sql(text)
        .and_then(|mut parser| parser.parse_expr())
        .map_err(fault)?;
    let own = |ident: &Ident| match schema
        .fields()
        .iter()
        .find(|field| field.name().eq_ignore_ascii_case(&ident.value))
    {
        Some(field) => Ident::with_quote('"', field.name()),
        None => ident.clone(),
    };
    let mut replaced = None;
    let _ = visit_expressions_mut(&mut expr, |part| {
        match part {
            Expr::Identifier(ident) => *ident = own(ident),
            Expr::CompoundIdentifier(parts) => {
                if let Some(first) = parts.first_mut() {
                    *first = own(first);
                }
            }
            // In Spark a text may stand in double quotes.
            Expr::Value(value) => {
                if let Value::DoubleQuotedString(text) = &value.value {
                    value.value = Value::SingleQuotedString(text.clone());
                }
            }
            Expr::Function(_) => {
                let words = part.to_string();
                let call = words.split_once('(').and_then(|(name, rest)| {
                    let argument = rest.strip_suffix(')')?;
                    let (_, unit) = PARTS.iter().find(|(function, _)| name.eq_ignore_ascii_case(function))?;
                    Some(format!("date_part('{unit}', {argument})"))
                });
                if let Some(call) = call {
                    match Parser::new(&GenericDialect {}).try_with_sql(&call).and_then(|mut p| p.parse_expr())
                    {
                        Ok(call) => *part = call,
                        Err(error) => replaced = Some(error),
                    }
                }
            }
            _ => {}
        }
        ControlFlow::<()>::Continue(())
    });
    match replaced {
        Some(error) => Err(fault(error)),
        None => Ok(expr.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Int64Array, TimestampMicrosecondArray};
    use arrow::datatypes::TimeUnit;

    fn rules(checks: &[(&str, &str)], generated: &[(&str, &str)]) -> Result<Rules> {
        let instant = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        let schema = Arc::new(Schema::new(vec![
            Field::new("Id", DataType::Int64, true),
            Field::new("ts", instant, true),
            Field::new("day", DataType::Date32, false),
            Field::new("hour", DataType::Int32, true),
        ]));
        let fields = schema.fields().iter().map(|field| {
            let open = generated.iter().any(|(name, _)| name == field.name());
            Arc::new(field.as_ref().clone().with_nullable(open || field.is_nullable()))
        });
        let open = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let rule = |(name, text): &(&str, &str)| Rule::new((*name).to_owned(), (*text).to_owned(), &open);
        Ok(Rules {
            checks: checks.iter().map(rule).collect::<Result<_>>()?,
            generated: generated
                .iter()
                .map(|pair| Ok((schema.index_of(pair.0)?, rule(pair)?)))
                .collect::<Result<_>>()?,
            schema,
            open: open.clone(),
        })
    }

    fn batch(id: Option<i64>) -> RecordBatch {
        let at = 1_700_000_000_000_000;
        let ts = TimestampMicrosecondArray::from(vec![at, at]).with_timezone("UTC");
        RecordBatch::try_from_iter_with_nullable([
            ("Id", Arc::new(Int64Array::from(vec![Some(1), id])) as ArrayRef, true),
            ("ts", Arc::new(ts) as ArrayRef, true),
        ])
        .unwrap()
    }

    const DAY: (&str, &str) = ("day", "CAST(ts AS DATE)");

    #[test]
    fn a_violated_constraint_is_named_with_a_row() {
        let rules = rules(&[("positive", "`id` > 0 AND hour < 24")], &[DAY, ("hour", "HOUR(TS)")]).unwrap();
        let rows = rules.apply(&batch(Some(2))).unwrap();
        assert_eq!(rows.num_rows(), 2);
        let error = rules.apply(&batch(Some(-7))).unwrap_err();
        assert_eq!(error.code, Code::BadData);
        for word in ["positive", "`id` > 0", "Id: -7", "day: 2023-11-14", "hour: 22"] {
            assert!(error.message.contains(word), "{word}: {error}");
        }
        assert!(rules.apply(&batch(None)).is_err(), "NULL is not true");
    }

    #[test]
    fn what_is_given_for_a_generated_column_must_be_what_it_is() {
        let rules = rules(&[], &[DAY]).unwrap();
        let with_day = |day: i32| {
            let mut columns = batch(Some(1)).columns().to_vec();
            columns.push(Arc::new(arrow::array::Date32Array::from(vec![day; 2])));
            let mut fields = batch(Some(1)).schema().fields().to_vec();
            fields.push(Arc::new(Field::new("day", DataType::Date32, true)));
            RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
        };
        rules.apply(&with_day(19_675)).unwrap();
        let error = rules.apply(&with_day(19_676)).unwrap_err();
        assert!(error.message.contains("`day` is not `CAST(ts AS DATE)`"), "{error}");
    }

    #[test]
    fn what_cannot_be_evaluated_is_refused_by_name() {
        let Err(error) = rules(&[("odd", "sparkish(id)")], &[DAY]) else { panic!("it was taken") };
        assert_eq!(error.code, Code::Unsupported);
        assert!(error.message.contains("sparkish(id)") && error.message.contains("`odd`"), "{error}");
    }
}
