//! Older snapshots of a table: by number, or by the time of their commit.
//!
//! A commit's time is that of its file in the log, or what it says itself where the table has in-commit
//! timestamps. Times of files are made to grow with the versions, as the protocol's other readers do.

use super::error::from_delta;
use super::table::{Loaded, Table, commit_path};
use chrono::{DateTime, SecondsFormat, Utc};
use deltalake_core::table::state::DeltaTableState;
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use serde_json::Value;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;
use tidemill_core::{Code, Error, Result};
use tidemill_engine::TableVersion;

const IN_COMMIT_TIMESTAMPS: &str = "delta.enableInCommitTimestamps";
const IN_COMMIT_TIMESTAMPS_SINCE: &str = "delta.inCommitTimestampEnablementVersion";

/// What the log's folder holds.
struct Log {
    /// Time of each commit file by version, in milliseconds.
    commits: BTreeMap<u64, i64>,
    /// The oldest version of which all files are known.
    oldest: u64,
}

impl Table {
    pub(super) async fn version(&self, version: TableVersion) -> Result<Arc<Loaded>> {
        let newest = self.demand().await?;
        let number = self.number_of(&newest, version).await?;
        self.at_number(&newest, number).await
    }

    /// The number of a version. That there was one of this number does not say that it can still be read.
    pub(super) async fn number_of(&self, newest: &Loaded, version: TableVersion) -> Result<u64> {
        match version {
            TableVersion::Number(number) if number > newest.version() => {
                Err(self.no_version(number, self.log().await?.oldest, newest.version()))
            }
            TableVersion::Number(number) => Ok(number),
            TableVersion::Time(time) => self.number_at(newest, time).await,
        }
    }

    async fn at_number(&self, newest: &Arc<Loaded>, number: u64) -> Result<Arc<Loaded>> {
        if number == newest.version() {
            return Ok(newest.clone());
        }
        let commit = self.log_store.object_store(None).head(&commit_path(number)).await.ok();
        if let Some(known) = commit.as_ref().and_then(|commit| self.known_past(number, commit)) {
            return Ok(known);
        }
        match DeltaTableState::try_new(self.log_store.as_ref(), Some(number)).await {
            Ok(state) => Ok(self.remember_past(state, commit)),
            Err(error) => {
                let oldest = self.log().await?.oldest;
                Err(match number < oldest {
                    true => self.no_version(number, oldest, newest.version()),
                    false => from_delta(error, &self.url),
                })
            }
        }
    }

    /// The oldest version that is not older than `from`.
    pub(super) async fn first_at(&self, newest: &Loaded, from: TableVersion) -> Result<u64> {
        let time = match from {
            TableVersion::Number(number) => return Ok(number),
            TableVersion::Time(time) => time,
        };
        let before = time - chrono::Duration::milliseconds(1);
        match self.number_at(newest, before).await {
            Ok(number) if number < newest.version() => Ok(number + 1),
            Ok(number) => Err(Error::new(Code::NotFound, format!("no version is as new as {}", show(time)))
                .hint(format!("the newest is {number}"))
                .context(format!("Delta table {}", self.url))),
            // All of them are newer.
            Err(error) if error.code == Code::NotFound && time <= Utc::now() => Ok(self.log().await?.oldest),
            Err(error) => Err(error),
        }
    }

    /// The time of each commit, in milliseconds.
    pub(super) async fn commit_times(
        &self,
        newest: &Loaded,
        versions: RangeInclusive<u64>,
    ) -> Result<BTreeMap<u64, i64>> {
        let mut times = self.log().await?.times(newest.version());
        if let Some(since) = in_commit_since(newest) {
            for version in since.max(*versions.start())..=*versions.end() {
                times.insert(version, self.in_commit_time(version).await?);
            }
        }
        Ok(times)
    }

    /// The newest version that is not later than `time`.
    async fn number_at(&self, newest: &Loaded, time: DateTime<Utc>) -> Result<u64> {
        if time > Utc::now() {
            return Err(Error::new(Code::NotFound, format!("{} is in the future", show(time)))
                .context(format!("Delta table {}", self.url)));
        }
        let log = self.log().await?;
        let asked = time.timestamp_millis();
        let since = in_commit_since(newest);
        // The commits whose own words count come after those whose files' times do.
        let (by_file, by_word): (Vec<_>, Vec<_>) = log
            .times(newest.version())
            .into_iter()
            .partition(|(version, _)| since.is_none_or(|since| *version < since));
        let (mut low, mut high) = (0, by_word.len());
        while low < high {
            let middle = low + (high - low) / 2;
            match self.in_commit_time(by_word[middle].0).await? <= asked {
                true => low = middle + 1,
                false => high = middle,
            }
        }
        let by_word = low.checked_sub(1).and_then(|last| by_word.get(last));
        let by_file = by_file.iter().rev().find(|(_, millis)| *millis <= asked);
        if let Some((version, _)) = by_word.or(by_file) {
            return Ok(*version);
        }
        let message = format!("the table has no version as old as {}", show(time));
        let first = match (since, log.commits.range(log.oldest..).next()) {
            (Some(since), Some((version, _))) if *version >= since => {
                self.in_commit_time(*version).await.ok()
            }
            (_, first) => first.map(|(_, millis)| *millis),
        };
        let first = first.and_then(DateTime::from_timestamp_millis).map(show).unwrap_or_default();
        Err(Error::new(Code::NotFound, message)
            .hint(format!("the oldest that can be read is {} of {first}", log.oldest))
            .context(format!("Delta table {}", self.url)))
    }

    async fn log(&self) -> Result<Log> {
        let store = self.log_store.object_store(None);
        let files: Vec<_> = store.list(Some(&Path::from("_delta_log"))).try_collect().await?;
        let (mut commits, mut checkpoints) = (BTreeMap::new(), Vec::new());
        for file in files {
            let name = file.location.filename().unwrap_or_default();
            let Some((version, rest)) = name.split_once('.') else { continue };
            let Ok(version) = version.parse::<u64>() else { continue };
            // Folders beneath hold what is not committed yet, and parts of checkpoints.
            if file.location.parts().count() != 2 {
                continue;
            }
            if rest == "json" {
                commits.insert(version, file.last_modified.timestamp_millis());
            } else if rest.starts_with("checkpoint.") {
                checkpoints.push(version);
            }
        }
        let oldest = match commits.contains_key(&0) {
            true => 0,
            false => checkpoints.into_iter().min().unwrap_or_default(),
        };
        Ok(Log { commits, oldest })
    }

    async fn in_commit_time(&self, version: u64) -> Result<i64> {
        let file = self.log_store.object_store(None).get(&commit_path(version)).await?.bytes().await?;
        let first = file.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let action: Value = serde_json::from_slice(first)?;
        action["commitInfo"]["inCommitTimestamp"].as_i64().ok_or_else(|| {
            Error::new(
                Code::Corrupt,
                format!("commit {version} has no timestamp, though the table demands it"),
            )
            .context(format!("Delta table {}", self.url))
        })
    }

    fn no_version(&self, number: u64, oldest: u64, newest: u64) -> Error {
        Error::new(Code::NotFound, format!("the table has no version {number} that can be read"))
            .hint(format!("versions {oldest} to {newest} are there"))
            .context(format!("Delta table {}", self.url))
    }
}

impl Log {
    /// Times of the commits that can be read, which grow with the versions.
    fn times(&self, newest: u64) -> BTreeMap<u64, i64> {
        let mut last = i64::MIN;
        let commits = self.commits.range(self.oldest.min(newest)..=newest).map(|(version, millis)| {
            last = (*millis).max(last.saturating_add(1));
            (*version, last)
        });
        commits.collect()
    }
}

/// From which version on commits say their time themselves.
fn in_commit_since(newest: &Loaded) -> Option<u64> {
    let configuration = newest.snapshot().metadata().configuration();
    let enabled = configuration.get(IN_COMMIT_TIMESTAMPS).is_some_and(|value| value == "true");
    let since = configuration.get(IN_COMMIT_TIMESTAMPS_SINCE).and_then(|version| version.parse().ok());
    enabled.then(|| since.unwrap_or_default())
}

fn show(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Millis, true)
}
