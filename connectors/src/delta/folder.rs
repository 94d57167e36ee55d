//! A folder of the local file system whose listings from a name on cost little.
//!
//! A log is listed from its last checkpoint at every commit, and a table of thousands of versions has thousands of
//! files before it. `LocalFileSystem` makes a URL of every name there is before it compares; here a name is
//! compared first, and only what comes after the offset is looked at.

use async_trait::async_trait;
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt, PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result,
};
use std::fmt::{Display, Formatter};
use std::ops::Range;
use std::sync::Arc;
use tokio::task::spawn_blocking;

const STORE: &str = "folder";

/// All that `inner` does, which is rooted at the root of the file system.
#[derive(Clone, Debug)]
pub(super) struct Folder {
    inner: Arc<dyn ObjectStore>,
}

impl Folder {
    pub(super) fn new(inner: Arc<dyn ObjectStore>) -> Self {
        Self { inner }
    }

    async fn after(self, prefix: Path, offset: Path) -> Result<BoxStream<'static, Result<ObjectMeta>>> {
        let listed = {
            let (prefix, offset) = (prefix.clone(), offset.clone());
            spawn_blocking(move || names_after(&prefix, &offset)).await
        };
        let named = listed.map_err(|error| failed(error.into()))?;
        // Names that it would have to think about are left to the store itself.
        let Some(files) = named.map_err(failed)? else {
            return Ok(self.inner.list_with_offset(Some(&prefix), &offset));
        };
        let inner = self.inner;
        let metas = stream::iter(files).then(move |file| {
            let inner = inner.clone();
            async move { inner.head(&file).await }
        });
        // One that was deleted meanwhile is not there.
        let there = metas.filter_map(async |meta| match meta {
            Err(Error::NotFound { .. }) => None,
            meta => Some(meta),
        });
        Ok(there.boxed())
    }
}

fn failed(error: std::io::Error) -> Error {
    Error::Generic { store: STORE, source: Box::new(error) }
}

/// The files of a folder whose paths are greater than `offset`; `None` where there is something else than plain
/// files of plain names among them.
fn names_after(folder: &Path, offset: &Path) -> std::io::Result<Option<Vec<Path>>> {
    let entries = match std::fs::read_dir(format!("/{folder}")) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Some(Vec::new())),
        Err(error) => return Err(error),
    };
    // A name is compared as it stands: to make a path of each takes as long as to read the folder.
    let after = offset.as_ref().strip_prefix(folder.as_ref()).and_then(|rest| rest.strip_prefix('/'));
    let mut files = Vec::new();
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let Some(name) = name.to_str() else { return Ok(None) };
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        // `<name>#<number>` is being written.
        if name.contains('#') {
            continue;
        }
        if !name.bytes().all(plain) {
            return Ok(None);
        }
        let comes_after = match after {
            Some(after) => name > after,
            None => folder.clone().join(name) > *offset,
        };
        if !comes_after {
            continue;
        }
        if !entry.file_type()?.is_file() {
            return Ok(None);
        }
        files.push(folder.clone().join(name));
    }
    Ok(Some(files))
}

impl Display for Folder {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        self.inner.fmt(f)
    }
}

#[async_trait]
impl ObjectStore for Folder {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.inner.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<bytes::Bytes>> {
        self.inner.get_ranges(location, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        let Some(prefix) = prefix else { return self.inner.list_with_offset(None, offset) };
        let listing = self.clone().after(prefix.clone(), offset.clone());
        stream::once(listing).try_flatten().boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.inner.rename_opts(from, to, options).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use object_store::local::LocalFileSystem;

    async fn listed(store: &dyn ObjectStore, folder: &Path, after: &str) -> Vec<ObjectMeta> {
        let offset = folder.clone().join(after);
        let mut metas: Vec<_> = store.list_with_offset(Some(folder), &offset).try_collect().await.unwrap();
        metas.sort_by(|left, right| left.location.cmp(&right.location));
        metas
    }

    #[tokio::test]
    async fn lists_what_the_file_system_lists() {
        let place = tempfile::tempdir().unwrap();
        let folder = Path::from_absolute_path(place.path()).unwrap();
        let plain: Arc<dyn ObjectStore> = Arc::new(LocalFileSystem::new());
        let store = Folder::new(plain.clone());
        for name in
            ["00.json", "01.json", "01.checkpoint.parquet", "02.json", "_last_checkpoint", "03.json#1"]
        {
            std::fs::write(place.path().join(name), name).unwrap();
        }
        for after in ["00.json", "01", "01.json", "02.json", "zz"] {
            assert_eq!(listed(&store, &folder, after).await, listed(&plain, &folder, after).await, "{after}");
        }
        assert_eq!(listed(&store, &folder, "01.json").await.len(), 2);
        // Folders within, and names that are written in another way in URLs.
        std::fs::create_dir(place.path().join("_sidecars")).unwrap();
        std::fs::write(place.path().join("_sidecars/a.parquet"), "a").unwrap();
        std::fs::write(place.path().join("04 b.json"), "b").unwrap();
        for after in ["00.json", "02.json", "_sidecars"] {
            assert_eq!(listed(&store, &folder, after).await, listed(&plain, &folder, after).await, "{after}");
        }
        let missing = folder.clone().join("missing");
        assert!(listed(&store, &missing, "0").await.is_empty());
    }
}
