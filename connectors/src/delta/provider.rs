//! A snapshot as a table of the query engine: a scan is a plain `DataSourceExec` over Parquet files, as for a
//! folder of Parquet files, so every engine can split it and send it. What a plain scan cannot do, see `scan`.
//!
//! ```text
//! filters ─┬─ over partition columns only ─▶ evaluated over the partition values: exact
//!          └─ others ─▶ files dropped by their bounds ─▶ pushed into the Parquet reader, and kept above it
//! ```

use super::columns::Columns;
use super::files::FileList;
use super::scan::{Files, Scan, merge};
use super::table::{Loaded, Table};
use arrow::array::{AsArray, BooleanArray};
use arrow::datatypes::{DataType, Field, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::stats::Precision;
use datafusion::common::tree_node::TreeNode;
use datafusion::common::{DFSchema, Result as DfResult, ScalarValue, Statistics, project_schema};
use datafusion::datasource::TableType;
use datafusion::logical_expr::expr_rewriter::unnormalize_cols;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown};
use datafusion::physical_optimizer::pruning::PruningPredicateBuilder;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use deltalake_core::logstore::LogStoreRef;
use std::sync::Arc;
use tidemill_core::Result;
use tidemill_engine::{from_datafusion, to_datafusion};
use url::Url;

#[derive(Debug)]
pub(super) struct DeltaProvider {
    url: Url,
    log_store: LogStoreRef,
    /// In the table's own order.
    schema: SchemaRef,
    scan: Scan,
    files: FileList,
    statistics: Statistics,
}

impl DeltaProvider {
    pub(super) fn new(table: &Table, loaded: &Loaded) -> Result<Self> {
        let columns = Columns::of(loaded)?;
        let files = FileList::new(table, loaded, &columns)?;
        let schema = columns.schema.clone();
        let scan = Scan::new(&table.url, &columns, Vec::new(), Vec::new(), schema.clone())?;
        let statistics = merge(&files.files, scan.schema.table_schema()).map_err(from_datafusion)?;
        let (url, log_store) = (table.url.clone(), table.log_store.clone());
        Ok(Self { url, log_store, schema, scan, files, statistics })
    }

    /// Whether a filter can be decided by the partition values alone.
    fn is_on_partitions(&self, filter: &Expr) -> bool {
        let columns = filter.column_refs();
        let partitions = self.files.partitions.schema();
        !columns.is_empty()
            && !filter.is_volatile()
            && columns.iter().all(|column| partitions.column_with_name(&column.name).is_some())
    }

    /// Which files may hold rows that pass all filters, as they stand in a statement.
    pub(super) fn matching(&self, state: &dyn Session, filters: &[Expr]) -> Result<Vec<bool>> {
        let plain = unnormalize_cols(filters.iter().filter(|filter| is_decidable(filter)).cloned());
        self.prune(state, &plain).map_err(from_datafusion)
    }

    /// Whether a filter, as it stands in a statement, holds for all rows of a file or for none.
    pub(super) fn decides(&self, filter: &Expr) -> bool {
        is_decidable(filter) && self.is_on_partitions(filter)
    }

    /// The partition values of a file.
    pub(super) fn partition(&self, number: usize) -> DfResult<Vec<ScalarValue>> {
        let columns = self.files.partitions.columns().iter();
        columns.map(|values| ScalarValue::try_from_array(values, number)).collect()
    }

    /// The table made of some files, `None` for all, with the files' numbers as one more column at its end.
    pub(super) fn select(&self, files: Option<&[usize]>, number_column: Option<&str>) -> Result<Self> {
        let all: Vec<usize> = (0..self.files.files.len()).collect();
        let files = self.files.select(files.unwrap_or(&all), number_column)?;
        let scan = match number_column {
            Some(name) => self.scan.with_constant(Arc::new(Field::new(name, DataType::Int64, false))),
            None => self.scan.clone(),
        };
        let statistics = merge(&files.files, scan.schema.table_schema()).map_err(from_datafusion)?;
        let (url, log_store) = (self.url.clone(), self.log_store.clone());
        Ok(Self { url, log_store, schema: scan.logical().clone(), scan, files, statistics })
    }

    /// Which files may hold rows that pass all filters.
    fn prune(&self, state: &dyn Session, filters: &[Expr]) -> DfResult<Vec<bool>> {
        let mut keep = vec![true; self.files.files.len()];
        if keep.is_empty() {
            return Ok(keep);
        }
        let (on_partitions, others): (Vec<Expr>, Vec<Expr>) =
            filters.iter().cloned().partition(|filter| self.is_on_partitions(filter));
        if let Some(filter) = conjunction(on_partitions) {
            let schema = DFSchema::try_from(self.files.partitions.schema())?;
            let filter = state.create_physical_expr(filter, &schema)?;
            let passed = filter.evaluate(&self.files.partitions)?.into_array(keep.len())?;
            let passed: &BooleanArray = passed.as_boolean();
            for (keep, passed) in keep.iter_mut().zip(passed) {
                *keep = passed.unwrap_or(false);
            }
        }
        if let Some(filter) = conjunction(others) {
            let schema = DFSchema::try_from(self.schema.clone())?;
            let filter = state.create_physical_expr(filter, &schema)?;
            let predicate =
                PruningPredicateBuilder::new().with_file_schema(self.schema.clone()).try_build(filter)?;
            if !predicate.always_true() {
                for (keep, may_match) in keep.iter_mut().zip(predicate.prune(&self.files)?) {
                    *keep &= may_match;
                }
            }
        }
        Ok(keep)
    }
}

#[async_trait]
impl TableProvider for DeltaProvider {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn statistics(&self) -> Option<Statistics> {
        let column =
            |place: &usize| self.statistics.column_statistics.get(*place).cloned().unwrap_or_default();
        Some(Statistics {
            num_rows: self.statistics.num_rows,
            total_byte_size: self.statistics.total_byte_size,
            column_statistics: self.scan.places().iter().map(column).collect(),
        })
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> DfResult<Vec<TableProviderFilterPushDown>> {
        let pushdown = |filter: &&Expr| match self.is_on_partitions(filter) {
            true => TableProviderFilterPushDown::Exact,
            false => TableProviderFilterPushDown::Inexact,
        };
        Ok(filters.iter().map(pushdown).collect())
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        let keep = self.prune(state, filters)?;
        let mut numbers: Vec<usize> = (0..keep.len()).filter(|number| keep[*number]).collect();
        let mut cut = false;
        if let Some(limit) = limit
            && filters.iter().all(|filter| self.is_on_partitions(filter))
        {
            let enough = self.enough_files(&numbers, limit);
            cut = enough < numbers.len();
            numbers.truncate(enough);
        }
        if numbers.is_empty() {
            return Ok(Arc::new(EmptyExec::new(project_schema(&self.schema, projection)?)));
        }
        let files = self.files.read(&self.log_store, &self.url, &numbers).await.map_err(to_datafusion)?;
        let all = files.whole.len() == self.files.files.len();
        let statistics = all.then(|| self.statistics.clone());
        self.scan.plan(state, Files { statistics, cut, ..files }, projection, limit).await
    }
}

/// Whether a filter says something about a row by itself.
fn is_decidable(filter: &Expr) -> bool {
    let open = filter.exists(|part| {
        Ok(matches!(
            part,
            Expr::ScalarSubquery(_)
                | Expr::InSubquery(_)
                | Expr::Exists(_)
                | Expr::SetComparison(_)
                | Expr::OuterReferenceColumn(..)
                | Expr::Placeholder(_)
        ))
    });
    !filter.is_volatile() && !open.unwrap_or(true)
}

impl DeltaProvider {
    /// How many of the first files hold at least `limit` rows for certain.
    fn enough_files(&self, numbers: &[usize], limit: usize) -> usize {
        let mut rows = 0_usize;
        for (index, number) in numbers.iter().enumerate() {
            if rows >= limit {
                return index;
            }
            let file = self.files.files.get(*number);
            match file.and_then(|file| file.statistics.as_ref()).map(|statistics| statistics.num_rows) {
                Some(Precision::Exact(more)) => rows = rows.saturating_add(more),
                _ => return numbers.len(),
            }
        }
        numbers.len()
    }
}
