//! The source as a table: its scan is an `IngestExec` over the epoch's ranges.

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::Result as DfResult;
use datafusion::logical_expr::{Expr, TableType};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::projection::ProjectionExec;
use std::sync::Arc;
use tidemill_core::SplitRange;
use tidemill_engine::exec::{Expectation, IngestExec, IngestSpec, descriptors};
use tidemill_engine::to_datafusion;

#[derive(Debug)]
pub(super) struct IngestTable {
    pub(super) spec: Arc<IngestSpec>,
    pub(super) expectations: Arc<Vec<Expectation>>,
    pub(super) ranges: Vec<SplitRange>,
    /// Columns that are read whatever the query asks for: a deduplication needs them.
    pub(super) always: Vec<usize>,
}

#[async_trait]
impl TableProvider for IngestTable {
    fn schema(&self) -> SchemaRef {
        self.spec.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        _: &dyn Session,
        projection: Option<&Vec<usize>>,
        _: &[Expr],
        _: Option<usize>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        let asked: Vec<usize> =
            projection.cloned().unwrap_or_else(|| (0..self.spec.schema.fields().len()).collect());
        let mut read = asked.clone();
        read.extend(self.always.iter().filter(|index| !asked.contains(index)));
        let leaf = descriptors(&self.ranges).map_err(to_datafusion)?;
        let ingest = IngestExec::try_new(self.spec.clone(), self.expectations.clone(), read, leaf);
        let ingest: Arc<dyn ExecutionPlan> = Arc::new(ingest.map_err(to_datafusion)?);
        if ingest.schema().fields().len() == asked.len() {
            return Ok(ingest);
        }
        let schema = ingest.schema();
        let columns = (0..asked.len()).map(|index| {
            let name = schema.field(index).name();
            (Arc::new(Column::new(name, index)) as _, name.clone())
        });
        Ok(Arc::new(ProjectionExec::try_new(columns.collect::<Vec<_>>(), ingest)?))
    }
}
