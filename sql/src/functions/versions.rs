//! Tables as they were: `dialect` reads `t VERSION AS OF 3` as a table function, here it becomes the name `t@v3`,
//! which the catalog knows. So does `table_changes('t', 1, 3)`, which becomes `t@changes v1 v3`.

use super::windows::{argument, flow, single_name};
use crate::catalog::Past;
use crate::dialect::{Cursor, TIMESTAMP_AS_OF, VERSION_AS_OF, normalize};
use arrow::array::{Array, AsArray, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, Schema, TimeUnit, TimestampMicrosecondType};
use chrono::DateTime;
use datafusion::common::{DFSchema, Result as DfResult};
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::cast;
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use datafusion::sql::sqlparser::ast::{
    Expr, FunctionArg, FunctionArgExpr, Ident, ObjectName, ObjectNamePart, Query, TableAlias, TableFactor,
    TableFunctionArgs, Value, ValueWithSpan, VisitMut, VisitorMut,
};
use std::ops::ControlFlow;
use std::sync::Arc;
use tidemill_core::{Code, Error, Result};
use tidemill_engine::{TableVersion, from_datafusion};

const TABLE_CHANGES: &str = "table_changes";

/// Names the version in each table of the query that has one, subqueries included.
pub(crate) fn rewrite_versions(state: &SessionState, query: &mut Query) -> Result<()> {
    match VisitMut::visit(query, &mut Rewriter { state }) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(*error),
    }
}

struct Rewriter<'a> {
    state: &'a SessionState,
}

impl VisitorMut for Rewriter<'_> {
    type Break = Box<Error>;

    fn post_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<Self::Break> {
        flow(self.table_factor(factor))
    }
}

impl Rewriter<'_> {
    fn table_factor(&self, factor: &mut TableFactor) -> Result<()> {
        let TableFactor::Table { name, alias, args, .. } = factor else { return Ok(()) };
        if let Some(call) = args.as_ref()
            && single_name(name).is_some_and(|name| name.eq_ignore_ascii_case(TABLE_CHANGES))
        {
            let (table, past) = self.changes(call)?;
            (*name, *args) = (renamed(table, past)?, None);
            return Ok(());
        }
        let Some((argument, value)) = args.as_ref().and_then(as_of) else { return Ok(()) };
        let version = match argument {
            VERSION_AS_OF => TableVersion::Number(number(value)?),
            _ => TableVersion::Time(self.time(value)?),
        };
        let Some(ObjectNamePart::Identifier(last)) = name.0.last() else { return Ok(()) };
        let table = normalize(last.clone());
        // The query knows the table by the name that it wrote.
        alias.get_or_insert_with(|| TableAlias {
            explicit: true,
            name: Ident::with_quote('"', &table),
            columns: Vec::new(),
            at: None,
        });
        (*name, *args) = (renamed(name.clone(), Past::At(version))?, None);
        Ok(())
    }

    fn changes(&self, args: &TableFunctionArgs) -> Result<(ObjectName, Past)> {
        let usage = || {
            Error::new(Code::InvalidStatement, "table_changes has the wrong arguments")
                .hint("table_changes('table', from [, to]), each a version's number or a time")
        };
        let args = args.args.iter().map(|arg| argument(TABLE_CHANGES, arg)).collect::<Result<Vec<_>>>()?;
        let (table, from, to) = match args.as_slice() {
            [table, from] => (*table, *from, None),
            [table, from, to] => (*table, *from, Some(*to)),
            _ => return Err(usage()),
        };
        let table = match table {
            Expr::Identifier(name) => ObjectName::from(vec![name.clone()]),
            Expr::CompoundIdentifier(parts) => ObjectName::from(parts.clone()),
            // The folder of a table, as FROM takes it too.
            Expr::Value(ValueWithSpan { value: Value::SingleQuotedString(path), .. })
                if path.contains('/') =>
            {
                ObjectName::from(vec![Ident::with_quote('"', path)])
            }
            Expr::Value(ValueWithSpan { value: Value::SingleQuotedString(name), .. }) => {
                Cursor::new(name)?.sqlparser(|parser| parser.parse_object_name(false))?
            }
            _ => return Err(usage()),
        };
        let to = to.map(|to| self.version(to)).transpose()?;
        Ok((table, Past::Changes(self.version(from)?, to)))
    }

    /// A version's number, or else a time.
    fn version(&self, expr: &Expr) -> Result<TableVersion> {
        match expr {
            Expr::Value(ValueWithSpan { value: Value::Number(..), .. }) => {
                number(expr).map(TableVersion::Number)
            }
            _ => self.time(expr).map(TableVersion::Time),
        }
    }

    /// The value of a constant expression as an instant; a time without a zone is in UTC.
    fn time(&self, expr: &Expr) -> Result<DateTime<chrono::Utc>> {
        let wrong = |why: String| {
            Error::new(Code::InvalidStatement, format!("`{expr}` is no point in time{why}"))
                .hint("such as '2026-01-01 12:00:00', or now() - INTERVAL '1 day'")
        };
        let micros =
            self.evaluate(expr).map_err(|error| wrong(format!(": {}", from_datafusion(error).message)))?;
        micros.and_then(DateTime::from_timestamp_micros).ok_or_else(|| wrong(String::new()))
    }

    fn evaluate(&self, expr: &Expr) -> DfResult<Option<i64>> {
        let schema = DFSchema::empty();
        let instant = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        let expr = cast(self.state.create_logical_expr(&expr.to_string(), &schema)?, instant);
        // now() has a value only once it was simplified.
        let simplify =
            SimplifyContext::builder().with_schema(Arc::new(schema.clone())).with_current_time().build();
        let expr = ExprSimplifier::new(simplify).simplify(expr)?;
        let expr = self.state.create_physical_expr(expr, &schema)?;
        let one_row = RecordBatchOptions::new().with_row_count(Some(1));
        let row = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), Vec::new(), &one_row)?;
        let value = expr.evaluate(&row)?.into_array(1)?;
        Ok(value.is_valid(0).then(|| value.as_primitive::<TimestampMicrosecondType>().value(0)))
    }
}

/// The name with the past in its last part.
fn renamed(mut name: ObjectName, past: Past) -> Result<ObjectName> {
    let Some(ObjectNamePart::Identifier(last)) = name.0.last_mut() else {
        return Err(Error::new(Code::InvalidStatement, format!("`{name}` is no table's name")));
    };
    *last = Ident::with_quote('"', format!("{}{past}", normalize(last.clone())));
    Ok(name)
}

fn as_of(args: &TableFunctionArgs) -> Option<(&'static str, &Expr)> {
    let [FunctionArg::Named { name, arg: FunctionArgExpr::Expr(value), .. }] = args.args.as_slice() else {
        return None;
    };
    let argument = [VERSION_AS_OF, TIMESTAMP_AS_OF].into_iter().find(|known| name.value == *known)?;
    Some((argument, value))
}

fn number(expr: &Expr) -> Result<u64> {
    let text = match expr {
        Expr::Value(value) => match &value.value {
            Value::Number(text, _) => Some(text.to_string()),
            Value::SingleQuotedString(text) => Some(text.clone()),
            _ => None,
        },
        _ => None,
    };
    text.and_then(|text| text.parse().ok()).ok_or_else(|| {
        Error::new(Code::InvalidStatement, format!("`{expr}` is no version of a table"))
            .hint("a version is a number from 0; TIMESTAMP AS OF takes a time")
    })
}
