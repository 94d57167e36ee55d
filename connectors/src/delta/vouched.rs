//! A snapshot for delta-rs to commit on, whose protocol names no feature that only we know how to write.
//!
//! delta-rs refuses to commit on what it does not write itself. The files are ours, and what a table may demand of them
//! has been looked at in `features`; all it does here is to put the entry into the log.

use super::features;
use super::table::Loaded;
use delta_kernel::table_properties::TableProperties;
use deltalake_core::kernel::transaction::TableReference;
use deltalake_core::kernel::{EagerSnapshot, Metadata, Protocol};
use serde_json::Value;
use tidemill_core::Result;

pub(super) struct Vouched<'a> {
    loaded: &'a Loaded,
    protocol: Protocol,
}

impl<'a> Vouched<'a> {
    /// Call [`features::demand_writable`] before.
    pub(super) fn new(loaded: &'a Loaded) -> Result<Self> {
        let mut protocol = serde_json::to_value(loaded.snapshot().protocol())?;
        for list in ["readerFeatures", "writerFeatures"] {
            if let Some(named) = protocol[list].as_array_mut() {
                named.retain(|feature: &Value| !features::VOUCHED.iter().any(|ours| feature == ours));
            }
        }
        Ok(Self { loaded, protocol: serde_json::from_value(protocol)? })
    }
}

impl TableReference for Vouched<'_> {
    fn config(&self) -> &TableProperties {
        self.loaded.snapshot().table_properties()
    }

    fn protocol(&self) -> &Protocol {
        &self.protocol
    }

    fn metadata(&self) -> &Metadata {
        self.loaded.snapshot().metadata()
    }

    fn eager_snapshot(&self) -> &EagerSnapshot {
        self.loaded.snapshot()
    }
}
