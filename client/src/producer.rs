//! Logical plans as Substrait: tables by their full names, and a clear word about what has no place in it.

use crate::catalog::RemoteTable;
use crate::error::unsupported;
use arrow::datatypes::FieldRef;
use datafusion::common::DFSchemaRef;
use datafusion::common::tree_node::{Transformed, TreeNodeRecursion};
use datafusion::datasource::source_as_provider;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::dml::InsertOp;
use datafusion::logical_expr::{
    Distinct, DmlStatement, EmptyRelation, JoinConstraint, LogicalPlan, TableScan, TableSource, WriteOp,
};
use datafusion_substrait::extensions::Extensions;
use datafusion_substrait::logical_plan::producer::{
    DefaultSubstraitLambdaProducer, SubstraitProducer, from_table_scan, lambda_parameters_map,
};
use datafusion_substrait::substrait::proto::plan_rel::RelType as PlanRelType;
use datafusion_substrait::substrait::proto::read_rel::ReadType;
use datafusion_substrait::substrait::proto::rel::RelType;
use datafusion_substrait::substrait::proto::write_rel::{OutputMode, WriteOp as SubstraitOp, WriteType};
use datafusion_substrait::substrait::proto::{
    NamedObjectWrite, NamedStruct, Plan, PlanRel, Rel, RelRoot, Type, WriteRel,
};
use datafusion_substrait::substrait::version;
use prost::Message;
use std::sync::Arc;

const SEND_TEXT: &str = "send it as text by Client::sql";

/// The plan as an encoded `substrait.Plan`; an insert becomes a write of its input.
pub(crate) fn to_substrait(plan: &LogicalPlan) -> Result<Vec<u8>> {
    let (target, rows) = match plan {
        LogicalPlan::Dml(statement) => (Some(insert_target(statement)?), statement.input.as_ref()),
        rows => (None, rows),
    };
    let rows = on_for_using(rows.clone())?;
    check(&rows)?;
    let mut producer = Producer::default();
    let schema = named_struct(&mut producer, rows.schema())?;
    let input = producer.handle_plan(&rows)?;
    let relation = match target {
        None => PlanRelType::Root(RelRoot { input: Some(*input), names: schema.names }),
        Some(names) => {
            let table = NamedObjectWrite { names, advanced_extension: None };
            let mut write = WriteRel {
                write_type: Some(WriteType::NamedTable(table)),
                table_schema: Some(schema),
                input: Some(input),
                ..WriteRel::default()
            };
            write.set_op(SubstraitOp::Insert);
            write.set_output(OutputMode::NoOutput);
            PlanRelType::Rel(Rel { rel_type: Some(RelType::Write(Box::new(write))) })
        }
    };
    let plan = Plan {
        version: Some(version::version_with_producer("tidemill-client")),
        extensions: producer.get_extensions().into(),
        relations: vec![PlanRel { rel_type: Some(relation) }],
        ..Plan::default()
    };
    Ok(plan.encode_to_vec())
}

/// The names and types of a schema, which upstream gives only as those of a relation.
fn named_struct(producer: &mut Producer, schema: &DFSchemaRef) -> Result<NamedStruct> {
    let empty = EmptyRelation { produce_one_row: false, schema: Arc::clone(schema) };
    let schema = match producer.handle_empty_relation(&empty)?.rel_type {
        Some(RelType::Read(read)) => read.base_schema,
        _ => None,
    };
    schema.ok_or_else(|| DataFusionError::Internal("a relation without a schema".to_owned()))
}

fn insert_target(statement: &DmlStatement) -> Result<Vec<String>> {
    match &statement.op {
        WriteOp::Insert(InsertOp::Append) => table_name(&statement.target, statement.table_name.table()),
        other => Err(unsupported(format!("`{}` of a DataFrame", other.name()), SEND_TEXT)),
    }
}

/// The full name of a table of the server.
fn table_name(source: &Arc<dyn TableSource>, shown: &str) -> Result<Vec<String>> {
    let provider = source_as_provider(source)?;
    match provider.downcast_ref::<RemoteTable>() {
        Some(table) => Ok(table.name.to_vec()),
        None => Err(unsupported(
            format!("`{shown}` is no table of the server"),
            "insert its rows into one first, or collect and join in a session of your own",
        )),
    }
}

/// `USING` only says which columns `*` means, and that is settled by now.
fn on_for_using(plan: LogicalPlan) -> Result<LogicalPlan> {
    let changed = plan.transform_up_with_subqueries(|node| match node {
        LogicalPlan::Join(mut join) if join.join_constraint == JoinConstraint::Using => {
            join.join_constraint = JoinConstraint::On;
            Ok(Transformed::yes(LogicalPlan::Join(join)))
        }
        other => Ok(Transformed::no(other)),
    })?;
    Ok(changed.data)
}

/// Refuses by name what Substrait has no relation for.
fn check(plan: &LogicalPlan) -> Result<()> {
    plan.apply_with_subqueries(|node| {
        let what = match node {
            LogicalPlan::Unnest(_) => "UNNEST",
            LogicalPlan::RecursiveQuery(_) => "a recursive query",
            LogicalPlan::Distinct(Distinct::On(_)) => "DISTINCT ON",
            LogicalPlan::Explain(_) | LogicalPlan::Analyze(_) => "EXPLAIN",
            LogicalPlan::Dml(_) | LogicalPlan::Copy(_) => "a write inside a plan",
            LogicalPlan::Ddl(_) | LogicalPlan::Statement(_) => "this statement",
            LogicalPlan::DescribeTable(_) => "DESCRIBE",
            LogicalPlan::Extension(_) => "an operator of your own",
            _ => return Ok(TreeNodeRecursion::Continue),
        };
        Err(unsupported(format!("Substrait cannot carry {what}"), SEND_TEXT))
    })?;
    Ok(())
}

#[derive(Default)]
struct Producer {
    extensions: Extensions,
    lambdas: DefaultSubstraitLambdaProducer,
}

impl SubstraitProducer for Producer {
    fn register_function(&mut self, signature: String) -> u32 {
        self.extensions.register_function(&signature)
    }

    fn register_type(&mut self, name: String) -> u32 {
        self.extensions.register_type(&name)
    }

    fn get_extensions(self) -> Extensions {
        self.extensions
    }

    fn handle_table_scan(&mut self, scan: &TableScan) -> Result<Box<Rel>> {
        let full = table_name(&scan.source, scan.table_name.table())?;
        let mut rel = from_table_scan(self, scan)?;
        if let Some(RelType::Read(read)) = &mut rel.rel_type
            && let Some(ReadType::NamedTable(table)) = &mut read.read_type
        {
            table.names = full;
        }
        Ok(rel)
    }

    fn push_lambda_parameters(&mut self, parameters: Vec<FieldRef>) -> Result<()> {
        let parameters = lambda_parameters_map(self, parameters)?;
        self.lambdas.push_lambda_parameters(parameters);
        Ok(())
    }

    fn pop_lambda_parameters(&mut self) -> Result<()> {
        self.lambdas.pop_lambda_parameters()
    }

    fn lambda_variable(&self, name: &str) -> Result<(u32, i32)> {
        self.lambdas.lambda_variable(name)
    }

    fn lambda_parameter_type(&self, name: &str) -> Result<Type> {
        self.lambdas.lambda_parameter_type(name)
    }
}
