//! Opens object stores from URLs: one place that knows how credentials and endpoints apply.

use crate::config::Config;
use crate::connector::resolve_secret;
use crate::{Code, Error, Result};
use object_store::ObjectStore;
use object_store::aws::AmazonS3Builder;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use std::sync::Arc;
use url::Url;

/// Makes a URL of a folder name or a URL. Relative folders are taken from the working directory, and created.
/// The result has no trailing slash.
pub fn location(text: &str) -> Result<Url> {
    let bad = |reason: String| {
        Error::new(Code::BadOption, format!("`{text}` is no location: {reason}"))
            .hint("a folder, file:///folder or s3://bucket/prefix")
    };
    let trimmed = text.trim_end_matches('/');
    if text.contains("://") {
        let url = Url::parse(trimmed).map_err(|error| bad(error.to_string()))?;
        return match url.scheme() {
            "file" | "s3" => Ok(url),
            other => Err(bad(format!("unknown scheme `{other}`"))),
        };
    }
    let path = std::path::absolute(trimmed).map_err(|error| bad(error.to_string()))?;
    Url::from_file_path(&path).map_err(|()| bad("not a folder name".to_owned()))
}

/// The store behind `url`, and the path of `url` within it.
pub fn open(url: &Url, config: &Config) -> Result<(Arc<dyn ObjectStore>, Path)> {
    match url.scheme() {
        "file" => {
            let path = Path::from_url_path(url.path())
                .map_err(|error| Error::new(Code::BadOption, format!("`{url}`: {error}")))?;
            Ok((Arc::new(LocalFileSystem::new()), path))
        }
        "s3" => {
            let bucket = url.host_str().unwrap_or_default();
            let path = Path::from_url_path(url.path())
                .map_err(|error| Error::new(Code::BadOption, format!("`{url}`: {error}")))?;
            Ok((s3(bucket, config)?, path))
        }
        other => Err(Error::new(Code::BadOption, format!("`{url}`: unknown scheme `{other}`"))
            .hint("file:///folder or s3://bucket/prefix")),
    }
}

fn s3(bucket: &str, config: &Config) -> Result<Arc<dyn ObjectStore>> {
    let store = &config.store;
    let mut builder = AmazonS3Builder::from_env().with_bucket_name(bucket);
    if let Some(endpoint) = &store.endpoint {
        builder = builder.with_endpoint(endpoint);
    }
    if let Some(region) = &store.region {
        builder = builder.with_region(region);
    }
    if let Some(key) = &store.access_key_id {
        builder = builder.with_access_key_id(resolve_secret(key)?);
    }
    if let Some(key) = &store.secret_access_key {
        builder = builder.with_secret_access_key(resolve_secret(key)?);
    }
    if store.allow_http {
        builder = builder.with_allow_http(true);
    }
    let retry = object_store::RetryConfig {
        max_retries: 6,
        retry_timeout: std::time::Duration::from_secs(30),
        ..Default::default()
    };
    Ok(Arc::new(builder.with_retry(retry).build()?))
}
