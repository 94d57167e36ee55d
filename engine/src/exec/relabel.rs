//! `RelabelExec`: the same columns under other names, also inside of structs, lists and maps.
//!
//! Files may know a column by another name than the table does, for ever, so that it can be renamed without
//! writing them again. The scan below reads by the files' names; nothing is copied here.

use crate::codec::{Decoder, Encoder, Portable};
use crate::to_datafusion;
use arrow::array::{ArrayData, RecordBatch, RecordBatchOptions, make_array};
use arrow::datatypes::{DataType, Field, SchemaRef};
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{Result as DfResult, Statistics};
use datafusion::config::ConfigOptions;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::CardinalityEffect;
use datafusion::physical_plan::filter_pushdown::{
    ChildFilterDescription, ChildPushdownResult, FilterDescription, FilterPushdownPhase,
    FilterPushdownPropagation,
};
use datafusion::physical_plan::statistics::{ChildStats, StatisticsArgs};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, PlanProperties,
};
use futures::StreamExt;
use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use tidemill_core::{Error, Result};

#[derive(Debug)]
pub struct RelabelExec {
    schema: SchemaRef,
    input: Arc<dyn ExecutionPlan>,
    properties: Arc<PlanProperties>,
}

impl RelabelExec {
    /// `schema` has the input's columns by position, and their types but for names.
    pub fn new(schema: SchemaRef, input: Arc<dyn ExecutionPlan>) -> Result<Self> {
        let (old, new) = (input.schema(), schema.fields());
        let alike = old.fields().len() == new.len()
            && old.fields().iter().zip(new).all(|(old, new)| alike(old.data_type(), new.data_type()));
        if !alike {
            return Err(Error::internal(format!("{old} cannot be relabelled as {schema}")));
        }
        let properties = Arc::new(PlanProperties::new(
            EquivalenceProperties::new(schema.clone()),
            input.output_partitioning().clone(),
            input.pipeline_behavior(),
            input.boundedness(),
        ));
        Ok(Self { schema, input, properties })
    }

    /// The filter by the input's names.
    fn below(&self, filter: Arc<dyn PhysicalExpr>) -> DfResult<Arc<dyn PhysicalExpr>> {
        let old = self.input.schema();
        let renamed = filter.transform_up(|expr| {
            let Some(column) = expr.downcast_ref::<Column>() else { return Ok(Transformed::no(expr)) };
            let Some(field) = old.fields().get(column.index()) else { return Ok(Transformed::no(expr)) };
            Ok(Transformed::yes(Arc::new(Column::new(field.name(), column.index())) as _))
        });
        renamed.data()
    }

    /// Columns that are the same but for their own name. A filter over others may look into them by name.
    fn flat(&self) -> HashSet<usize> {
        let fields = self.input.schema();
        let same = |(old, new): (&Arc<Field>, &Arc<Field>)| old.data_type() == new.data_type();
        let fields = fields.fields().iter().zip(self.schema.fields()).enumerate();
        fields.filter(|(_, pair)| same(*pair)).map(|(place, _)| place).collect()
    }
}

impl DisplayAs for RelabelExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.schema.fields().iter().map(|field| field.name().as_str()).collect();
        write!(f, "RelabelExec: {}", names.join(", "))
    }
}

impl ExecutionPlan for RelabelExec {
    fn name(&self) -> &str {
        "RelabelExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    /// The order is kept, but by other names: a sort must not be moved below, where this node could not tell.
    fn maintains_input_order(&self) -> Vec<bool> {
        vec![false]
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> DfResult<TreeNodeRecursion>,
    ) -> DfResult<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        let relabelled = Self::new(self.schema.clone(), children.swap_remove(0)).map_err(to_datafusion)?;
        Ok(Arc::new(relabelled))
    }

    fn supports_limit_pushdown(&self) -> bool {
        true
    }

    fn cardinality_effect(&self) -> CardinalityEffect {
        CardinalityEffect::Equal
    }

    fn child_stats_requests(&self, partition: Option<usize>) -> Vec<ChildStats> {
        vec![ChildStats::At(partition)]
    }

    fn statistics_from_inputs(
        &self,
        inputs: &[Arc<Statistics>],
        _: &StatisticsArgs,
    ) -> DfResult<Arc<Statistics>> {
        Ok(inputs.first().cloned().unwrap_or_else(|| Arc::new(Statistics::new_unknown(&self.schema))))
    }

    fn gather_filters_for_pushdown(
        &self,
        _: FilterPushdownPhase,
        parent_filters: Vec<Arc<dyn PhysicalExpr>>,
        _: &ConfigOptions,
    ) -> DfResult<FilterDescription> {
        let filters = parent_filters.into_iter().map(|filter| self.below(filter));
        let filters = filters.collect::<DfResult<Vec<_>>>()?;
        let child =
            ChildFilterDescription::from_child_with_allowed_indices(&filters, self.flat(), &self.input)?;
        Ok(FilterDescription::new().with_child(child))
    }

    fn handle_child_pushdown_result(
        &self,
        _: FilterPushdownPhase,
        result: ChildPushdownResult,
        _: &ConfigOptions,
    ) -> DfResult<FilterPushdownPropagation<Arc<dyn ExecutionPlan>>> {
        Ok(FilterPushdownPropagation::if_all(result))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> DfResult<SendableRecordBatchStream> {
        let schema = self.schema.clone();
        let relabelled = self
            .input
            .execute(partition, context)?
            .map(move |batch| relabel(&batch?, &schema).map_err(to_datafusion));
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), relabelled)))
    }
}

impl Portable for RelabelExec {
    const NAME: &'static str = "relabel";

    fn encode(&self, _: &Encoder<'_>) -> Result<Vec<u8>> {
        Ok(serde_json::to_vec(self.schema.as_ref())?)
    }

    fn decode(body: &[u8], inputs: &[Arc<dyn ExecutionPlan>], from: &Decoder<'_>) -> Result<Self> {
        let [input] = inputs else { return Err(Error::internal("RelabelExec has one input")) };
        Self::new(Arc::new(from.json(body)?), input.clone())
    }
}

fn relabel(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let columns = batch.columns().iter().zip(schema.fields()).map(|(column, field)| {
        Ok(match column.data_type() == field.data_type() {
            true => column.clone(),
            false => make_array(relabel_data(column.to_data(), field.data_type())?),
        })
    });
    let rows = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(schema.clone(), columns.collect::<Result<_>>()?, &rows)?)
}

fn relabel_data(data: ArrayData, to: &DataType) -> Result<ArrayData> {
    if data.data_type() == to {
        return Ok(data);
    }
    let children = data.child_data().iter().cloned().zip(parts(to));
    let children = children.map(|(child, part)| relabel_data(child, part.data_type()));
    let children = children.collect::<Result<Vec<_>>>()?;
    Ok(data.into_builder().data_type(to.clone()).child_data(children).build()?)
}

/// The fields of which a nested type is made.
fn parts(data_type: &DataType) -> Vec<Arc<Field>> {
    match data_type {
        DataType::Struct(fields) => fields.iter().cloned().collect(),
        DataType::List(item) | DataType::LargeList(item) | DataType::Map(item, _) => vec![item.clone()],
        _ => Vec::new(),
    }
}

fn alike(old: &DataType, new: &DataType) -> bool {
    let (olds, news) = (parts(old), parts(new));
    std::mem::discriminant(old) == std::mem::discriminant(new)
        && olds.len() == news.len()
        && (old == new || !olds.is_empty())
        && olds.iter().zip(&news).all(|(old, new)| alike(old.data_type(), new.data_type()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, AsArray, Int32Array, ListArray, StructArray};
    use arrow::datatypes::{Int32Type, Schema};
    use datafusion::datasource::memory::MemorySourceConfig;

    fn list_of(name: &str) -> (SchemaRef, Field) {
        let part = Field::new(name, DataType::Int32, true);
        let item = Field::new("element", DataType::Struct(vec![part.clone()].into()), true);
        let column = Field::new(format!("column {name}"), DataType::List(Arc::new(item)), true);
        (Arc::new(Schema::new(vec![column])), part)
    }

    #[tokio::test]
    async fn names_change_at_every_depth_and_values_do_not() {
        let (old, part) = list_of("old");
        let values: ArrayRef = Arc::new(Int32Array::from(vec![1, 2, 3]));
        let structs = StructArray::from(vec![(Arc::new(part), values)]);
        let DataType::List(item) = old.field(0).data_type() else { panic!("{old}") };
        let lengths = arrow::buffer::OffsetBuffer::from_lengths([1, 2]);
        let lists = ListArray::new(item.clone(), lengths, Arc::new(structs), None);
        let batch = RecordBatch::try_new(old.clone(), vec![Arc::new(lists)]).unwrap();
        let input = MemorySourceConfig::try_new_exec(&[vec![batch]], old, None).unwrap();

        let (new, _) = list_of("new");
        let plan = RelabelExec::new(new.clone(), input.clone()).unwrap();
        let batches = datafusion::physical_plan::collect(Arc::new(plan), Arc::new(TaskContext::default()));
        let batches = batches.await.unwrap();
        assert_eq!(batches[0].schema(), new);
        let second = batches[0].column(0).as_list::<i32>().value(1);
        let second = second.as_struct().column_by_name("new").unwrap();
        assert_eq!(second.as_primitive::<Int32Type>().values(), &[2, 3]);

        let other = Arc::new(Schema::new(vec![Field::new("c", DataType::Int32, true)]));
        assert!(RelabelExec::new(other, input).is_err());
    }
}
