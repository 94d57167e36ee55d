//! What a pipeline is, as it is kept in the journal. It holds the source as it was when the pipeline was
//! created: a source that is replaced later does not change a running pipeline.

use arrow::datatypes::SchemaRef;
use serde::{Deserialize, Serialize};
use tidemill_core::SourceSpec;
use tidemill_engine::decode::DecoderSpec;
use tidemill_engine::exec::OnViolation;

/// `CREATE SOURCE`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SourceDefinition {
    pub name: String,
    pub schema: SchemaRef,
    pub watermark: Option<Watermark>,
    pub spec: SourceSpec,
    pub decoder: DecoderSpec,
}

/// `WATERMARK FOR column AS column - INTERVAL delay`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watermark {
    pub column: String,
    pub delay_ms: i64,
}

/// `CONSTRAINT name EXPECT (condition) ON VIOLATION action`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExpectationDefinition {
    pub name: String,
    /// SQL text over the source's columns.
    pub condition: String,
    pub on_violation: OnViolation,
}

/// The part of `CREATE STREAMING TABLE` that decides what its plan is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StreamingDefinition {
    /// SQL text of the query, with its windows and `DEDUPLICATE` as the user wrote them.
    pub query: String,
    pub source: SourceDefinition,
    pub expectations: Vec<ExpectationDefinition>,
    /// Buckets of keyed state; fixed for the pipeline's life.
    pub buckets: u32,
}
