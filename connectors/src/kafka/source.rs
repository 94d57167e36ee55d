//! The `Source` of a topic.

use super::options::{KafkaOptions, Startup};
use super::probe::Probe;
use super::reader::KafkaReader;
use async_trait::async_trait;
use std::collections::BTreeMap;
use std::sync::Arc;
use tidemill_core::config::Config;
use tidemill_core::{
    Available, Error, Positions, Result, Source, SourceCapabilities, SourceSpec, SplitId, SplitRange,
    SplitReader,
};

/// Builds the source; checks its options and does not connect.
///
/// # Errors
/// `Code::BadOption`.
pub fn source(spec: &SourceSpec, _config: &Config) -> Result<Arc<dyn Source>> {
    Ok(Arc::new(KafkaSource::new(&spec.options)?))
}

#[derive(Debug)]
pub struct KafkaSource {
    options: Arc<KafkaOptions>,
    probe: Arc<Probe>,
}

impl KafkaSource {
    /// # Errors
    /// `Code::BadOption`.
    pub fn new(options: &BTreeMap<String, String>) -> Result<Self> {
        let options = KafkaOptions::new(options)?;
        Ok(Self { probe: Arc::new(Probe::new(options.clone())), options: Arc::new(options) })
    }
}

#[async_trait]
impl Source for KafkaSource {
    fn capabilities(&self) -> SourceCapabilities {
        SourceCapabilities { bounded: false, replayable: true }
    }

    /// `Code::Unreachable` within ten seconds, `Code::NotFound`, `Code::AccessDenied`.
    async fn available(&self) -> Result<BTreeMap<SplitId, Available>> {
        let probe = Arc::clone(&self.probe);
        tokio::task::spawn_blocking(move || probe.available()).await.map_err(Error::internal)?
    }

    async fn start(&self) -> Result<Positions> {
        let available = self.available().await?;
        let begin = |held: Available| match self.options.startup {
            Startup::Earliest => held.earliest,
            Startup::Latest => held.latest,
        };
        Ok(available.into_iter().map(|(split, held)| (split, begin(held))).collect())
    }

    fn open(&self, range: &SplitRange) -> Result<Box<dyn SplitReader>> {
        Ok(Box::new(KafkaReader::open(Arc::clone(&self.options), range.clone())?))
    }
}
