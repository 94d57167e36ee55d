//! Substrait plans: what a DataFrame that was built elsewhere sends in place of SQL text.
//!
//! A plan is read against the session's own state, hence its functions, its tables and its current schema, and is
//! from there on a logical plan as any other: optimised here, run by the engine that is chosen for it.

use super::api::{Answer, AnswerKind, Description};
use super::define::sink_of_plan;
use super::params;
use super::service::SqlFrontend;
use super::session::Session;
use arrow::array::RecordBatch;
use datafusion::common::TableReference;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::execution::{FunctionRegistry, SessionState};
use datafusion::logical_expr::LogicalPlan;
use datafusion_substrait::logical_plan::consumer::{from_substrait_plan, name_to_op, substrait_fun_name};
use datafusion_substrait::substrait::proto::extensions::simple_extension_declaration::MappingType;
use datafusion_substrait::substrait::proto::plan_rel::RelType as PlanRelType;
use datafusion_substrait::substrait::proto::rel::RelType;
use datafusion_substrait::substrait::proto::write_rel::{WriteOp, WriteType};
use datafusion_substrait::substrait::proto::{Plan, PlanRel, Rel, RelRoot, WriteRel};
use datafusion_substrait::substrait::version;
use futures::FutureExt;
use prost::Message;
use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use tidemill_core::{Code, Error, Result};
use tidemill_engine::from_datafusion;
use tidemill_sql::TableName;
use tidemill_sql::statement::align;

/// What a Substrait plan asks for.
#[derive(Debug)]
pub struct Request {
    pub plan: LogicalPlan,
    /// The table that takes the rows, in one to three parts; `None` when the client takes them.
    pub into: Option<Vec<String>>,
    /// What stands for the SQL text where statements are listed.
    pub title: String,
}

impl Request {
    fn columns(&self) -> Vec<String> {
        self.plan.schema().fields().iter().map(|field| field.name().clone()).collect()
    }
}

/// Reads an encoded `substrait.Plan`.
///
/// # Errors
/// `Code::InvalidStatement` when it is none, `Code::Unsupported` when it uses what is not known here.
pub async fn read(state: &SessionState, bytes: &[u8]) -> Result<Request> {
    let mut plan = Plan::decode(bytes).map_err(|error| {
        Error::new(Code::InvalidStatement, format!("the bytes are no Substrait plan: {error}"))
            .hint("send an encoded `substrait.Plan`; plans of more than 100 levels do not read")
    })?;
    check_version(&plan)?;
    let into = match take_write(&mut plan) {
        Some(write) => Some(insert_into(&mut plan, *write)?),
        None => None,
    };
    // Parts of a plan that the protocol demands may be missing, and the reader trusts that they are there.
    let read = AssertUnwindSafe(from_substrait_plan(state, &plan)).catch_unwind().await;
    let logical = match read {
        Ok(read) => read.map_err(|error| name_unknown(state, &plan, from_datafusion(error)))?,
        Err(_) => return Err(incomplete("it refers to what is not in it")),
    };
    Ok(Request { title: title(&plan, &logical), plan: logical, into })
}

fn incomplete(what: &str) -> Error {
    Error::new(Code::InvalidStatement, format!("the Substrait plan is incomplete: {what}"))
}

fn check_version(plan: &Plan) -> Result<()> {
    match &plan.version {
        Some(given) if given.major_number != version::SUBSTRAIT_MAJOR_VERSION => {
            let given = format!("{}.{}.{}", given.major_number, given.minor_number, given.patch_number);
            let known = version::SUBSTRAIT_MAJOR_VERSION;
            Err(Error::new(Code::Unsupported, format!("a Substrait plan of version {given}"))
                .hint(format!("plans of version {known}.x are read, up to {}", known_version())))
        }
        _ => Ok(()),
    }
}

/// The version of Substrait that this build was made for.
pub(crate) fn known_version() -> String {
    let known = version::version();
    format!("{}.{}.{}", known.major_number, known.minor_number, known.patch_number)
}

/// The write at the root of the plan, if there is one.
fn take_write(plan: &mut Plan) -> Option<Box<WriteRel>> {
    let [PlanRel { rel_type: Some(relation) }] = plan.relations.as_mut_slice() else { return None };
    let rel = match relation {
        PlanRelType::Rel(rel) => rel,
        PlanRelType::Root(root) => root.input.as_mut()?,
    };
    match rel.rel_type.take() {
        Some(RelType::Write(write)) => Some(write),
        other => {
            rel.rel_type = other;
            None
        }
    }
}

/// Leaves in `plan` the rows to be inserted, and gives the name of their table.
fn insert_into(plan: &mut Plan, write: WriteRel) -> Result<Vec<String>> {
    if write.op() != WriteOp::Insert {
        let op = write.op().as_str_name().trim_start_matches("WRITE_OP_");
        return Err(Error::new(Code::Unsupported, format!("the Substrait write `{op}`"))
            .hint("Substrait plans read and INSERT; send other statements as SQL"));
    }
    let Some(WriteType::NamedTable(table)) = write.write_type else {
        return Err(Error::new(Code::Unsupported, "a Substrait write to something that is no named table")
            .hint("INSERT into a table by its name"));
    };
    let input: Rel = *write.input.ok_or_else(|| incomplete("the write has no input"))?;
    let names = write.table_schema.map(|schema| schema.names).unwrap_or_default();
    let root = RelRoot { input: Some(input), names };
    plan.relations = vec![PlanRel { rel_type: Some(PlanRelType::Root(root)) }];
    Ok(table.names)
}

/// Says of a table or a function that nobody knows which one may have been meant.
fn name_unknown(state: &SessionState, plan: &Plan, error: Error) -> Error {
    let table = error.message.strip_prefix("No table named '").and_then(|rest| rest.strip_suffix('\''));
    if let Some(name) = table {
        let reference = TableReference::parse_str(name);
        let known = state.schema_for_ref(reference.clone()).map(|schema| schema.table_names());
        return Error::new(Code::UnknownObject, format!("no table `{name}`"))
            .hint("SHOW TABLES lists what there is")
            .suggest(reference.table(), known.unwrap_or_default().iter().map(String::as_str));
    }
    let (scalar, aggregate, window) = (state.udfs(), state.udafs(), state.udwfs());
    let known = |name: &str| {
        scalar.contains(name)
            || aggregate.contains(name)
            || window.contains(name)
            || name_to_op(name).is_some()
    };
    let unknown = plan.extensions.iter().find_map(|extension| match &extension.mapping_type {
        Some(MappingType::ExtensionFunction(function)) => {
            let name = substrait_fun_name(&function.name);
            (error.message.contains(name) && !known(name)).then_some(name)
        }
        _ => None,
    });
    match unknown {
        Some(name) if error.code == Code::Unsupported || error.code == Code::InvalidStatement => {
            let names = scalar.iter().chain(&aggregate).chain(&window).map(String::as_str);
            let near = Error::new(Code::Unsupported, format!("no function `{name}`")).suggest(name, names);
            match near.hint.as_deref() {
                Some(hint) if hint.starts_with("did you") => near,
                _ => Error { hint: None, ..near }
                    .hint("functions have the names of SQL, operators those of Substrait, as `add`"),
            }
        }
        _ => error,
    }
}

fn title(plan: &Plan, logical: &LogicalPlan) -> String {
    let mut tables = BTreeSet::new();
    let walked = logical.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node {
            tables.insert(scan.table_name.to_string());
        }
        Ok(TreeNodeRecursion::Continue)
    });
    debug_assert!(walked.is_ok(), "the walk itself cannot fail");
    let producer = plan.version.as_ref().map(|version| version.producer.as_str()).unwrap_or_default();
    let by = if producer.is_empty() { String::new() } else { format!(" by {producer}") };
    let over = tables.into_iter().collect::<Vec<_>>().join(", ");
    let over = if over.is_empty() { over } else { format!(" over {over}") };
    format!("Substrait plan{by}{over}")
}

impl SqlFrontend {
    pub(super) async fn run_substrait(
        &self,
        session: &Session,
        bytes: &[u8],
        params: Option<RecordBatch>,
    ) -> Result<Answer> {
        let mut request = read(&session.state, bytes).await?;
        if let Some(params) = params {
            request.plan = params::bind(request.plan, &params)?;
        }
        let columns = request.columns();
        let Request { plan, into, title } = request;
        let Some(parts) = into else { return self.runner.query(session, &title, plan).await };
        let table = TableName::from_parts(&parts, &session.schema)?;
        let (sink, schema) = self.definer.insert_target(&table, &columns).await?;
        let plan = align(&table, &columns, plan, &schema)?;
        let sink = sink_of_plan(sink, &table, &plan)?;
        self.runner.write(session, &format!("{title} into {table}"), plan, sink).await
    }

    pub(super) async fn shape_of_substrait(&self, session: &Session, bytes: &[u8]) -> Result<Description> {
        let request = read(&session.state, bytes).await?;
        let parameters = params::parameters(&request.plan)?;
        let (kind, schema) = match request.into {
            Some(_) => (AnswerKind::Count, super::answers::count_schema()),
            None => (AnswerKind::Rows, Arc::new(request.plan.schema().as_arrow().clone())),
        };
        Ok(Description { kind, schema, parameters })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::prelude::SessionContext;
    use datafusion_substrait::logical_plan::producer::to_substrait_plan;
    use datafusion_substrait::substrait::proto::write_rel;
    use datafusion_substrait::substrait::proto::{NamedObjectWrite, Version};

    async fn context() -> SessionContext {
        let context = SessionContext::new();
        context.sql("CREATE TABLE t (n INT, w VARCHAR)").await.unwrap().collect().await.unwrap();
        context
    }

    async fn plan_of(context: &SessionContext, sql: &str) -> Plan {
        let frame = context.sql(sql).await.unwrap();
        *to_substrait_plan(frame.logical_plan(), &context.state()).unwrap()
    }

    async fn read_plan(context: &SessionContext, plan: &Plan) -> Result<Request> {
        read(&context.state(), &plan.encode_to_vec()).await
    }

    #[tokio::test]
    async fn a_query_names_its_producer_and_its_tables() {
        let context = context().await;
        let plan = plan_of(&context, "SELECT w, sum(n) AS total FROM t GROUP BY w").await;
        let request = read_plan(&context, &plan).await.unwrap();
        assert_eq!(request.title, "Substrait plan by datafusion over t");
        assert_eq!((request.columns(), request.into), (vec!["w".to_owned(), "total".to_owned()], None));
    }

    #[tokio::test]
    async fn strange_versions_functions_and_bytes_are_told() {
        let context = context().await;
        let mut plan = plan_of(&context, "SELECT upper(w) AS u FROM t").await;
        for extension in &mut plan.extensions {
            if let Some(MappingType::ExtensionFunction(function)) = &mut extension.mapping_type {
                function.name = "uppr:str".to_owned();
            }
        }
        let error = read_plan(&context, &plan).await.unwrap_err();
        assert_eq!((error.code, error.message.as_str()), (Code::Unsupported, "no function `uppr`"));
        assert_eq!(error.hint.as_deref(), Some("did you mean `upper`?"));

        plan.version = Some(Version { major_number: 2, ..Version::default() });
        let error = read_plan(&context, &plan).await.unwrap_err();
        assert_eq!(error.message, "a Substrait plan of version 2.0.0");

        context.sql("CREATE TABLE tt AS SELECT 1 AS n").await.unwrap().collect().await.unwrap();
        let plan = plan_of(&context, "SELECT n FROM tt").await;
        context.deregister_table("tt").unwrap();
        let error = read_plan(&context, &plan).await.unwrap_err();
        assert_eq!((error.code, error.message.as_str()), (Code::UnknownObject, "no table `tt`"));
        assert_eq!(error.hint.as_deref(), Some("did you mean `t`?"));

        let error = read(&context.state(), b"SELECT 1").await.unwrap_err();
        assert_eq!(error.code, Code::InvalidStatement);
    }

    #[tokio::test]
    async fn a_plan_with_holes_is_refused_and_harms_nobody() {
        let context = context().await;
        let root = RelRoot { input: None, names: vec!["n".to_owned()] };
        let relation = PlanRel { rel_type: Some(PlanRelType::Root(root)) };
        let plan = Plan { relations: vec![relation], ..Plan::default() };
        let error = read_plan(&context, &plan).await.unwrap_err();
        assert_eq!(error.message, "the Substrait plan is incomplete: it refers to what is not in it");
    }

    #[tokio::test]
    async fn an_insert_is_read_and_other_writes_are_named() {
        let context = context().await;
        let mut plan = plan_of(&context, "SELECT n + 1 AS more FROM t").await;
        let Some(PlanRelType::Root(root)) = plan.relations[0].rel_type.take() else { panic!("no root") };
        let mut write = WriteRel {
            write_type: Some(WriteType::NamedTable(NamedObjectWrite {
                names: vec!["s".to_owned(), "u".to_owned()],
                advanced_extension: None,
            })),
            input: root.input.map(Box::new),
            ..WriteRel::default()
        };
        for (op, expected) in
            [(WriteOp::Insert, Ok(())), (WriteOp::Delete, Err("the Substrait write `DELETE`"))]
        {
            write.set_op(op);
            write.set_output(write_rel::OutputMode::NoOutput);
            let rel = Rel { rel_type: Some(RelType::Write(Box::new(write.clone()))) };
            plan.relations = vec![PlanRel { rel_type: Some(PlanRelType::Rel(rel)) }];
            let read = read_plan(&context, &plan).await;
            match expected {
                Ok(()) => assert_eq!(read.unwrap().into.unwrap(), ["s", "u"]),
                Err(message) => assert_eq!(read.unwrap_err().message, message),
            }
        }
    }
}
