//! What an OPTIMIZE did, in the words of Delta's own.

use super::bins::Bin;
use datafusion::execution::SessionState;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use tidemill_core::{Result, Written};
use tidemill_engine::{LakeFile, LakeSnapshot};

#[derive(Clone, Debug, Default)]
pub(crate) struct Report {
    added: Vec<u64>,
    removed: Vec<u64>,
    partitions: BTreeSet<String>,
    pub(crate) batches: u64,
    considered: u64,
}

impl Report {
    pub(super) fn consider(&mut self, files: &[LakeFile]) {
        self.considered = files.len() as u64;
    }

    pub(super) fn of_round(
        snapshot: &dyn LakeSnapshot,
        state: &SessionState,
        round: &[Bin],
        written: &[Written],
    ) -> Result<Self> {
        let sizes: BTreeMap<usize, u64> =
            snapshot.files(state, &[])?.into_iter().map(|file| (file.number, file.bytes)).collect();
        let files = round.iter().flat_map(|bin| &bin.files);
        Ok(Self {
            added: written.iter().map(|written| written.bytes).collect(),
            removed: files.filter_map(|file| sizes.get(file).copied()).collect(),
            partitions: round.iter().map(|bin| format!("{:?}", bin.partition)).collect(),
            batches: 1,
            considered: 0,
        })
    }

    pub(super) fn add(&mut self, round: Self) {
        self.added.extend(round.added);
        self.removed.extend(round.removed);
        self.partitions.extend(round.partitions);
        self.batches += round.batches;
    }

    pub(super) fn is_smaller(&self) -> bool {
        self.added.len() < self.removed.len()
    }

    pub(crate) fn files_removed(&self) -> usize {
        self.removed.len()
    }

    pub(crate) fn files_added(&self) -> usize {
        self.added.len()
    }

    /// For the table's history.
    pub(super) fn metrics(&self) -> BTreeMap<String, u64> {
        let all = [
            ("numAddedFiles", self.added.len() as u64),
            ("numRemovedFiles", self.removed.len() as u64),
            ("numAddedBytes", self.added.iter().sum()),
            ("numRemovedBytes", self.removed.iter().sum()),
        ];
        all.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
    }

    /// The row that the statement answers with, as `optimize_schema` has it.
    pub(crate) fn row(&self, path: &str) -> Value {
        json!({
            "path": path,
            "metrics": {
                "numFilesAdded": self.added.len(),
                "numFilesRemoved": self.removed.len(),
                "filesAdded": sizes(&self.added),
                "filesRemoved": sizes(&self.removed),
                "partitionsOptimized": self.partitions.len(),
                "numBatches": self.batches,
                "totalConsideredFiles": self.considered,
                "totalFilesSkipped": self.considered.saturating_sub(self.removed.len() as u64),
            },
        })
    }
}

fn sizes(bytes: &[u64]) -> Value {
    let total: u64 = bytes.iter().sum();
    json!({
        "min": bytes.iter().min(),
        "max": bytes.iter().max(),
        "avg": if bytes.is_empty() { 0.0 } else { total as f64 / bytes.len() as f64 },
        "totalFiles": bytes.len(),
        "totalSize": total,
    })
}
