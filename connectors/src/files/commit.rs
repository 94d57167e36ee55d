//! Staged files to visible ones, and the marker that says so.

use super::sink::{FilesSink, Staged};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectStoreExt, PutMode, PutOptions};
use serde::{Deserialize, Serialize};
use tidemill_core::{Code, Commit, Error, Result, Written};

pub(super) const STAGING: &str = "_tidemill_staging";
const COMMITS: &str = "_tidemill_commits";

/// Copies that run at the same time.
const CONCURRENCY: usize = 8;

/// Written when all files of a run are in their place.
#[derive(Debug, Serialize, Deserialize)]
struct Marker {
    job: String,
    run: u64,
    rows: u64,
    files: Vec<Placed>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Placed {
    name: String,
    rows: u64,
    bytes: u64,
}

pub(super) async fn commit(sink: &FilesSink, job: &str, run: u64, written: &[Written]) -> Result<Commit> {
    let mut staged = written
        .iter()
        .map(|written| Ok(serde_json::from_value(written.descriptor.clone())?))
        .collect::<Result<Vec<Staged>>>()?;
    // Names by place in the list must not depend on the order in which tasks happened to end.
    staged.sort_by(|a, b| a.path.cmp(&b.path));
    if read(sink, job, run).await?.is_some() {
        clean(sink, &staged).await;
        return Ok(Commit::AlreadyCommitted);
    }
    let files: Vec<Placed> = staged
        .iter()
        .enumerate()
        .map(|(index, file)| Placed {
            name: format!("{job}-{run:010}-{index:05}.{}", sink.format.extension()),
            rows: file.rows,
            bytes: file.bytes,
        })
        .collect();
    let copies: Vec<_> = staged.iter().zip(&files).map(|(from, to)| place(sink, from, to)).collect();
    futures::stream::iter(copies).buffer_unordered(CONCURRENCY).try_collect::<Vec<()>>().await?;
    let rows = files.iter().map(|file| file.rows).sum();
    let marker = serde_json::to_vec(&Marker { job: job.to_owned(), run, rows, files })?;
    let create = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
    let outcome = match sink.folder.put_opts(&marker_path(job, run), Bytes::from(marker).into(), create).await
    {
        Ok(_) => Commit::Committed { version: 0 },
        Err(object_store::Error::AlreadyExists { .. }) => Commit::AlreadyCommitted,
        Err(error) => return Err(error.into()),
    };
    clean(sink, &staged).await;
    Ok(outcome)
}

/// The newest run of `job` with a marker.
pub(super) async fn newest(sink: &FilesSink, job: &str) -> Result<Option<u64>> {
    let markers = Path::from_iter([COMMITS, job]);
    let runs = sink.folder.list(Some(&markers)).try_filter_map(|meta| async move {
        Ok(meta.location.filename().and_then(|name| name.strip_suffix(".json")?.parse().ok()))
    });
    Ok(runs.try_fold(None, |newest: Option<u64>, run: u64| async move { Ok(newest.max(Some(run))) }).await?)
}

/// Rows of the run's files that are there in the size in which they were placed.
pub(super) async fn rows(sink: &FilesSink, job: &str, run: u64) -> Result<Option<u64>> {
    let Some(marker) = read(sink, job, run).await? else { return Ok(Some(0)) };
    let mut rows = 0;
    for file in &marker.files {
        match sink.folder.head(&Path::from_iter([file.name.as_str()])).await {
            Ok(meta) if meta.size == file.bytes => rows += file.rows,
            Ok(_) | Err(object_store::Error::NotFound { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(Some(rows))
}

async fn place(sink: &FilesSink, from: &Staged, to: &Placed) -> Result<()> {
    let from = Path::parse(&from.path).map_err(object_store::Error::from)?;
    let to = Path::from_iter([to.name.as_str()]);
    sink.folder.copy(&from, &to).await.map_err(|error| match error {
        object_store::Error::NotFound { .. } => {
            Error::new(Code::NotFound, format!("the staged file `{from}` is gone before its commit"))
                .hint("nothing may delete below _tidemill_staging while jobs run; run the load again")
        }
        other => other.into(),
    })
}

/// Staged files cost space only; what cannot be deleted now is deleted when the commit is repeated.
async fn clean(sink: &FilesSink, staged: &[Staged]) {
    for file in staged {
        let Ok(path) = Path::parse(&file.path) else { continue };
        match sink.folder.delete(&path).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
            Err(error) => tracing::warn!(%path, %error, "a staged file is left behind"),
        }
    }
}

async fn read(sink: &FilesSink, job: &str, run: u64) -> Result<Option<Marker>> {
    match sink.folder.get(&marker_path(job, run)).await {
        Ok(found) => Ok(Some(serde_json::from_slice(&found.bytes().await?)?)),
        Err(object_store::Error::NotFound { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn marker_path(job: &str, run: u64) -> Path {
    Path::from_iter([COMMITS, job, &format!("{run:010}.json")])
}
