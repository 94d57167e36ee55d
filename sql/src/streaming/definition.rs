//! What a pipeline is, as it is kept in the journal. It holds the source as it was when the pipeline was
//! created: a source that is replaced later does not change a running pipeline.

use crate::statement::{Encoding, PipelineDef, SourceDef};
use serde::{Deserialize, Serialize};
use tidemill_engine::decode::{DecoderSpec, Format};

/// Everything that decides what the plan of an epoch is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamingDefinition {
    pub pipeline: PipelineDef,
    pub source: SourceDef,
    /// Buckets of keyed state; fixed for the pipeline's life.
    pub buckets: u32,
}

impl StreamingDefinition {
    pub(super) fn decoder(&self) -> DecoderSpec {
        match self.source.encoding {
            Encoding::Json => DecoderSpec { format: Format::Json },
        }
    }

    /// How far the watermark stays behind the highest event time.
    pub fn delay_ms(&self) -> i64 {
        let delay = self.source.watermark.as_ref().map_or(0, |watermark| watermark.delay_ms);
        i64::try_from(delay).unwrap_or(i64::MAX)
    }
}
