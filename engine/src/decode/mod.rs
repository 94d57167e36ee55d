//! Payloads to columns: one decoder a format.
//!
//! ```text
//! RawBatch ─▶ Decoder ─┬─▶ batch of the good records, with the index of their raw rows
//!                      └─▶ rejected raw rows, each with its reason (dead letters)
//! ```
//!
//! A record that does not decode is rejected alone, never its batch, and nothing is lost:
//! raw rows = good rows + rejected rows.

mod json;

use arrow::array::{RecordBatch, UInt32Array};
use arrow::datatypes::SchemaRef;
use serde::{Deserialize, Serialize};
use tidemill_core::{RawBatch, Result};

/// What `FORMAT PLAIN ENCODE …` said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    Json,
}

/// Enough to build a decoder anywhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DecoderSpec {
    pub format: Format,
}

impl DecoderSpec {
    /// A decoder of the given columns and no others. A record without a value for a NOT NULL column is
    /// rejected, so such columns belong into `schema` also when nothing reads them.
    ///
    /// `Code::Unsupported` for a column whose type the format cannot give.
    pub fn build(&self, schema: SchemaRef) -> Result<Box<dyn Decoder>> {
        match self.format {
            Format::Json => Ok(Box::new(json::JsonDecoder::new(schema)?)),
        }
    }
}

/// Stateful only for speed: the same batch gives the same answer whatever came before.
pub trait Decoder: Send + std::fmt::Debug {
    fn decode(&mut self, raw: &RawBatch) -> Result<Decoded>;
}

/// One raw batch, decoded.
#[derive(Clone, Debug)]
pub struct Decoded {
    /// The good records only, in their order.
    pub batch: RecordBatch,
    /// The raw row of each row of `batch`; `None` when all rows are good.
    pub good: Option<UInt32Array>,
    /// Raw rows that did not decode, in their order, and why.
    pub rejected: Vec<(u32, String)>,
}
