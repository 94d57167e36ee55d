//! `SelectRowsExec`: reads Parquet files of which only some rows count.
//!
//! A plain scan cannot carry which rows of a file count to another node. So the files travel as descriptors, and
//! a scan of no files, the template, travels with the operator: it knows columns, filters and the store. A task
//! puts its files into the template and runs it, and the Parquet reader skips the pages that it need not read.

use crate::codec::{Decoder, Encoder, Portable};
use crate::exec::{descriptor, descriptors, unary_properties};
use crate::{from_datafusion, to_datafusion};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Result as DfResult, Statistics};
use datafusion::config::ConfigOptions;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::parquet::ParquetRowSelection;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfig, FileScanConfigBuilder};
use datafusion::datasource::source::DataSourceExec;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::filter_pushdown::{
    ChildPushdownResult, FilterPushdownPhase, FilterPushdownPropagation,
};
use datafusion::physical_plan::metrics::MetricsSet;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::statistics::StatisticsArgs;
use datafusion::physical_plan::stream::{EmptyRecordBatchStream, RecordBatchStreamAdapter};
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, PlanProperties,
};
use datafusion_proto::protobuf;
use futures::TryStreamExt;
use parquet::arrow::arrow_reader::{RowSelection, RowSelector};
use prost::Message;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;
use tidemill_core::{Code, Error, Result};

/// Which rows of a file count.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowRuns {
    /// By turns how many rows count and how many do not, from the first row of the file to its last.
    runs: Vec<u64>,
}

impl RowRuns {
    /// All of `rows` rows but those whose numbers are given, which grow.
    pub fn without(deleted: impl IntoIterator<Item = u64>, rows: u64) -> Result<Self> {
        let (mut runs, mut next) = (vec![0], 0);
        for row in deleted {
            if row < next || row >= rows {
                let message = format!("row {row} is deleted from a file of {rows} rows, after row {next}");
                return Err(Error::new(Code::Corrupt, message));
            }
            match (row - next, runs.len() % 2) {
                // Directly after the last one.
                (0, 0) => {}
                (kept, 0) => runs.extend([kept, 0]),
                (kept, _) => {
                    add(&mut runs, kept);
                    runs.push(0);
                }
            }
            add(&mut runs, 1);
            next = row + 1;
        }
        match runs.len() % 2 {
            0 => runs.push(rows - next),
            _ => add(&mut runs, rows - next),
        }
        Ok(Self { runs })
    }

    /// The rows that do not count here.
    #[must_use]
    pub fn inverted(&self) -> Self {
        match self.runs.as_slice() {
            [0, rest @ ..] => Self { runs: rest.to_vec() },
            runs => Self { runs: std::iter::once(0).chain(runs.iter().copied()).collect() },
        }
    }

    /// How many rows count.
    pub fn count(&self) -> u64 {
        self.runs.iter().step_by(2).sum()
    }

    fn selection(&self) -> Result<RowSelection> {
        let selectors = self.runs.iter().enumerate().map(|(turn, rows)| {
            let rows = usize::try_from(*rows).map_err(|_| Error::internal("a run of rows is too long"))?;
            Ok(if turn % 2 == 0 { RowSelector::select(rows) } else { RowSelector::skip(rows) })
        });
        Ok(RowSelection::from(selectors.collect::<Result<Vec<_>>>()?))
    }
}

fn add(runs: &mut [u64], rows: u64) {
    if let Some(last) = runs.last_mut() {
        *last += rows;
    }
}

/// A file and the rows of it that count.
#[derive(Clone, Debug)]
pub struct SelectedFile {
    pub file: PartitionedFile,
    pub rows: RowRuns,
}

/// The same on its way: the file as protobuf, without statistics.
#[derive(Debug, Serialize, Deserialize)]
struct Descriptor {
    file: Vec<u8>,
    rows: RowRuns,
}

#[derive(Debug)]
pub struct SelectRowsExec {
    /// A `DataSourceExec` over Parquet; its own files are not read.
    template: Arc<dyn ExecutionPlan>,
    input: Arc<dyn ExecutionPlan>,
    properties: Arc<PlanProperties>,
}

impl SelectRowsExec {
    /// Reads each group in a partition of its own. `template` has the statistics of what is read.
    pub fn read(template: FileScanConfig, groups: &[Vec<SelectedFile>]) -> Result<Self> {
        let template = FileScanConfigBuilder::from(template).with_file_groups(Vec::new()).build();
        let descriptors_of =
            |group: &Vec<SelectedFile>| group.iter().map(Descriptor::new).collect::<Result<Vec<_>>>();
        let groups = groups.iter().map(descriptors_of).collect::<Result<Vec<_>>>()?;
        Ok(Self::new(DataSourceExec::from_data_source(template), descriptors(&groups)?))
    }

    fn new(template: Arc<dyn ExecutionPlan>, input: Arc<dyn ExecutionPlan>) -> Self {
        let partitions = input.output_partitioning().partition_count();
        let properties = unary_properties(template.schema(), partitions);
        Self { template, input, properties }
    }

    /// The scan that tasks put their files into.
    pub(crate) fn template(&self) -> &Arc<dyn ExecutionPlan> {
        &self.template
    }

    pub(crate) fn with_template(&self, template: Arc<dyn ExecutionPlan>) -> Self {
        Self::new(template, self.input.clone())
    }
}

impl Descriptor {
    fn new(selected: &SelectedFile) -> Result<Self> {
        let mut file = selected.file.clone();
        file.statistics = None;
        let file = protobuf::PartitionedFile::try_from(&file).map_err(from_datafusion)?;
        Ok(Self { file: file.encode_to_vec(), rows: selected.rows.clone() })
    }

    fn file(&self) -> Result<PartitionedFile> {
        let file = protobuf::PartitionedFile::decode(self.file.as_slice())
            .map_err(|error| Error::internal(format!("a file to read does not read: {error}")))?;
        let file = PartitionedFile::try_from(&file).map_err(from_datafusion)?;
        Ok(file.with_extension(ParquetRowSelection::new(self.rows.selection()?)))
    }
}

fn config(template: &Arc<dyn ExecutionPlan>) -> Result<&FileScanConfig> {
    template
        .downcast_ref::<DataSourceExec>()
        .and_then(|source| source.data_source().downcast_ref::<FileScanConfig>())
        .ok_or_else(|| Error::internal("SelectRowsExec has no file scan as its template"))
}

impl DisplayAs for SelectRowsExec {
    fn fmt_as(&self, kind: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SelectRowsExec: ")?;
        match self.template.downcast_ref::<DataSourceExec>() {
            Some(source) => source.data_source().fmt_as(kind, f),
            None => Ok(()),
        }
    }
}

impl ExecutionPlan for SelectRowsExec {
    fn name(&self) -> &str {
        "SelectRowsExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false]
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> DfResult<TreeNodeRecursion>,
    ) -> DfResult<TreeNodeRecursion> {
        self.template.apply_expressions(f)
    }

    fn with_new_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        Ok(Arc::new(Self::new(self.template.clone(), children.swap_remove(0))))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        self.template.metrics()
    }

    fn statistics_from_inputs(
        &self,
        _: &[Arc<Statistics>],
        args: &StatisticsArgs,
    ) -> DfResult<Arc<Statistics>> {
        match args.partition() {
            None => self.template.statistics_from_inputs(&[], args),
            Some(_) => Ok(Arc::new(Statistics::new_unknown(&self.schema()))),
        }
    }

    fn try_swapping_with_projection(
        &self,
        projection: &ProjectionExec,
    ) -> DfResult<Option<Arc<dyn ExecutionPlan>>> {
        let template = self.template.try_swapping_with_projection(projection)?;
        Ok(template.map(|template| Arc::new(self.with_template(template)) as _))
    }

    fn handle_child_pushdown_result(
        &self,
        phase: FilterPushdownPhase,
        result: ChildPushdownResult,
        options: &ConfigOptions,
    ) -> DfResult<FilterPushdownPropagation<Arc<dyn ExecutionPlan>>> {
        let mut pushed = self.template.handle_child_pushdown_result(phase, result, options)?;
        pushed.updated_node = pushed.updated_node.map(|template| Arc::new(self.with_template(template)) as _);
        Ok(pushed)
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> DfResult<SendableRecordBatchStream> {
        let input = self.input.execute(partition, context.clone())?;
        let template = config(&self.template).map_err(to_datafusion)?.clone();
        let schema = self.schema();
        let read = async move {
            let files =
                descriptor::<Vec<Descriptor>>(input).await.map_err(to_datafusion)?.unwrap_or_default();
            if files.is_empty() {
                return Ok(Box::pin(EmptyRecordBatchStream::new(schema)) as SendableRecordBatchStream);
            }
            let files = files.iter().map(Descriptor::file).collect::<Result<Vec<_>>>();
            let group = FileGroup::new(files.map_err(to_datafusion)?);
            let scan = FileScanConfigBuilder::from(template).with_file_groups(vec![group]).build();
            DataSourceExec::from_data_source(scan).execute(0, context)
        };
        let rows = futures::stream::once(read).try_flatten();
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), rows)))
    }
}

impl Portable for SelectRowsExec {
    const NAME: &'static str = "select rows";

    fn encode(&self, to: &Encoder<'_>) -> Result<Vec<u8>> {
        to.plan(&self.template)
    }

    fn decode(body: &[u8], inputs: &[Arc<dyn ExecutionPlan>], from: &Decoder<'_>) -> Result<Self> {
        let [input] = inputs else { return Err(Error::internal("SelectRowsExec has one input")) };
        let template = from.plan(body)?;
        config(&template)?;
        Ok(Self::new(template, input.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(runs: &RowRuns) -> Vec<u64> {
        let (mut row, mut kept) = (0, Vec::new());
        for (turn, run) in runs.runs.iter().enumerate() {
            kept.extend((row..row + run).filter(|_| turn % 2 == 0));
            row += run;
        }
        kept
    }

    #[test]
    fn runs_are_the_rows_that_are_not_deleted() {
        for deleted in [vec![], vec![0], vec![0, 1, 2], vec![9], vec![3, 4, 7], (0..10).collect(), vec![0, 9]]
        {
            let runs = RowRuns::without(deleted.iter().copied(), 10).unwrap();
            let expected: Vec<u64> = (0..10).filter(|row| !deleted.contains(row)).collect();
            assert_eq!(kept(&runs), expected, "{deleted:?}");
            assert_eq!(runs.count(), expected.len() as u64);
            assert_eq!(runs.runs.iter().sum::<u64>(), 10);
            assert_eq!(kept(&runs.inverted()), deleted);
            assert_eq!(runs.inverted().inverted(), runs);
        }
    }

    #[test]
    fn rows_that_are_not_there_cannot_be_deleted() {
        for deleted in [vec![10], vec![4, 3], vec![4, 4]] {
            assert_eq!(RowRuns::without(deleted, 10).unwrap_err().code, Code::Corrupt);
        }
    }
}
