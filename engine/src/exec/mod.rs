//! Physical operators of our own. Each is an interior node over descriptor rows, so that every engine can cut
//! its input into tasks, and each encodes itself (see `codec`).
//!
//! ```text
//! descriptors ─▶ IngestExec ─▶ … ─▶ AggregateExec(partial) ─▶ hash shuffle ─▶ KeyedAggregateExec ─▶ WriteExec
//!                     └▶ (hash shuffle ─▶ DeduplicateExec)                       ▲
//!                                                              state descriptors ┘
//! ```

mod dead_letters;
mod deduplicate;
pub(crate) mod descriptors;
mod ingest;
mod keyed_aggregate;
mod relabel;
mod select_rows;
mod write;

pub use dead_letters::schema as dead_letter_schema;
pub use deduplicate::{DeduplicateExec, DeduplicateSpec, OPERATOR as DEDUPLICATE};
pub use descriptors::descriptors;
pub use ingest::{Expectation, IngestExec, IngestSpec, OnViolation};
pub(crate) use keyed_aggregate::template as state_template;
pub use keyed_aggregate::{KeyedAggregateExec, KeyedAggregateSpec, OPERATOR as AGGREGATE, WindowColumn};
pub use relabel::RelabelExec;
pub use select_rows::{RowRuns, SelectRowsExec, SelectedFile};
pub use write::{Tally, WriteExec, WriteSpec, collect_written, split_tally};

use crate::from_datafusion;
use arrow::array::{Array, AsArray, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_expr::{EquivalenceProperties, Partitioning};
use datafusion::physical_plan::PlanProperties;
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use futures::StreamExt;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::sync::{Arc, LazyLock};
use tidemill_core::{Error, Result};

/// Properties of an operator that promises nothing about order or distribution.
fn unary_properties(schema: SchemaRef, partitions: usize) -> Arc<PlanProperties> {
    Arc::new(PlanProperties::new(
        EquivalenceProperties::new(schema),
        Partitioning::UnknownPartitioning(partitions),
        EmissionType::Incremental,
        Boundedness::Bounded,
    ))
}

static DESCRIPTOR_SCHEMA: LazyLock<SchemaRef> =
    LazyLock::new(|| Arc::new(Schema::new(vec![Field::new("descriptor", DataType::Utf8, false)])));

/// The one column of a descriptor leaf.
pub fn descriptor_schema() -> SchemaRef {
    DESCRIPTOR_SCHEMA.clone()
}

/// One descriptor as the one batch of its partition.
pub fn descriptor_batch(descriptor: &impl Serialize) -> Result<RecordBatch> {
    let text = serde_json::to_string(descriptor)?;
    Ok(RecordBatch::try_new(descriptor_schema(), vec![Arc::new(StringArray::from(vec![text]))])?)
}

/// Reads the descriptor of a partition; `None` when the partition is empty. More than one is a defect of the
/// planner: an operator would silently do only a part of its work.
async fn descriptor<T: DeserializeOwned>(mut input: SendableRecordBatchStream) -> Result<Option<T>> {
    let mut found = None;
    while let Some(batch) = input.next().await {
        let batch = batch.map_err(from_datafusion)?;
        let Some(column) = batch.column(0).as_string_opt::<i32>() else {
            return Err(Error::internal("a descriptor leaf has another schema"));
        };
        for row in 0..column.len() {
            if found.is_some() {
                return Err(Error::internal("a partition has more than one descriptor"));
            }
            found = Some(serde_json::from_str(column.value(row))?);
        }
    }
    Ok(found)
}
