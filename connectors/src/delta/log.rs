//! The commit files of a table as they lie in its log, for what a snapshot does not tell: which versions there
//! are, when they were made, and what made them.

use super::error::from_delta;
use super::table::Table;
use deltalake_core::logstore::commit_uri_from_version;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};
use tidemill_core::Result;

/// A version of a table that can still be read about.
#[derive(Clone, Debug)]
pub(super) struct CommitFile {
    pub(super) version: u64,
    pub(super) file: ObjectMeta,
}

impl CommitFile {
    /// Microseconds since the Unix epoch.
    pub(super) fn time(&self) -> i64 {
        self.file.last_modified.timestamp_micros()
    }
}

/// All commit files, oldest first.
pub(super) async fn commit_files(table: &Table) -> Result<Vec<CommitFile>> {
    let log = table.log_store.object_store(None);
    let listed = log.list_with_delimiter(Some(table.log_store.log_path())).await?;
    let mut commits: Vec<CommitFile> = listed
        .objects
        .into_iter()
        .filter_map(|file| Some(CommitFile { version: version_of(file.location.filename()?)?, file }))
        .collect();
    commits.sort_by_key(|commit| commit.version);
    Ok(commits)
}

fn version_of(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".json")?;
    let all_digits = digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit());
    if all_digits { digits.parse().ok() } else { None }
}

/// The `commitInfo` of a commit; null where it has none, `None` where the file is gone.
pub(super) async fn commit_info(table: &Table, commit: &CommitFile) -> Result<Option<serde_json::Value>> {
    let log = table.log_store.object_store(None);
    let body = match log.get(&commit_uri_from_version(Some(commit.version))).await {
        Ok(found) => found.bytes().await?,
        // Cleaned up between the listing and now.
        Err(object_store::Error::NotFound { .. }) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let lines = body.split(|byte| *byte == b'\n');
    let info = lines
        // The one line is found without parsing all the others, which may be thousands of files.
        .filter(|line| {
            line.starts_with(b"{\"commitInfo\"") || line.windows(13).take(64).any(|w| w == b"\"commitInfo\":")
        })
        .find_map(|line| serde_json::from_slice::<serde_json::Value>(line).ok()?.get("commitInfo").cloned());
    Ok(Some(info.unwrap_or_default()))
}

/// Loads a version that is not the newest.
pub(super) async fn load(table: &Table, version: u64) -> Result<deltalake_core::DeltaTable> {
    let mut loaded = deltalake_core::DeltaTable::new(table.log_store.clone());
    loaded.load_version(version).await.map_err(|error| from_delta(error, &table.url))?;
    Ok(loaded)
}
