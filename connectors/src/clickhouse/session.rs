//! Requests to one server: each with a time limit, tried again with back-off while the failure may pass.

use super::errors::{from_client, unreachable};
use super::options::Settings;
use arrow::array::RecordBatch;
use backon::{ExponentialBuilder, Retryable};
use clickhouse::error::Result as ClientResult;
use clickhouse::query::Query;
use clickhouse::{Client, Compression, RowOwned, RowRead};
use clickhouse_ext_arrow::ArrowClientExt;
use std::time::Duration;
use tidemill_core::Result;

/// Tries after the first of one request. Whoever drives the load tries again on a larger scale.
const RETRIES: usize = 4;
const FIRST_DELAY: Duration = Duration::from_millis(200);
const LONGEST_DELAY: Duration = Duration::from_secs(5);

/// More rows than a chunk may have, so that ClickHouse does not cut it in two.
const BLOCK_ROWS: &str = "1048449";

#[derive(Clone)]
pub(super) struct Session {
    client: Client,
    url: String,
    timeout: Duration,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("url", &self.url).finish_non_exhaustive()
    }
}

impl Session {
    pub(super) fn new(settings: &Settings) -> Self {
        let compression = if settings.compress { Compression::Lz4 } else { Compression::None };
        let mut client = Client::default()
            .with_url(&settings.url)
            .with_user(&settings.user)
            .with_database(&settings.database)
            .with_compression(compression);
        if let Some(password) = &settings.password {
            client = client.with_password(password);
        }
        Self { client, url: settings.url.clone(), timeout: settings.timeout }
    }

    /// A statement without a result.
    pub(super) async fn execute(&self, statement: &str) -> Result<()> {
        self.attempt(|| self.client.query_raw(statement).with_setting("async_insert", "0").execute()).await
    }

    /// The rows of `statement`, whose `{name:Type}` parameters `bind` fills in.
    pub(super) async fn rows<T: RowOwned + RowRead>(
        &self,
        statement: &str,
        bind: impl Fn(Query) -> Query,
    ) -> Result<Vec<T>> {
        self.attempt(|| bind(self.client.query_raw(statement)).fetch_all::<T>()).await
    }

    /// Inserts one batch as one block: all of it, or nothing. A token that the table remembers changes
    /// nothing, so this may be repeated.
    pub(super) async fn insert(&self, table: &str, batch: &RecordBatch, token: &str) -> Result<()> {
        let client = self
            .client
            .clone()
            .with_setting("insert_deduplicate", "1")
            .with_setting("insert_deduplication_token", token)
            .with_setting("async_insert", "0")
            .with_setting("max_insert_block_size", BLOCK_ROWS)
            .with_setting("min_insert_block_size_rows", BLOCK_ROWS)
            .with_setting("min_insert_block_size_bytes", "0")
            // Otherwise a NULL becomes 0 in a column that takes none.
            .with_setting("input_format_null_as_default", "0");
        self.attempt(|| async {
            let mut insert = client.insert_arrow(table)?;
            insert.write(batch).await?;
            insert.end().await
        })
        .await
    }

    async fn attempt<T, F, A>(&self, request: F) -> Result<T>
    where
        F: Fn() -> A,
        A: Future<Output = ClientResult<T>>,
    {
        let once = || async {
            match tokio::time::timeout(self.timeout, request()).await {
                Ok(answer) => answer.map_err(|error| from_client(error, &self.url)),
                Err(_) => Err(unreachable(&self.url, &format!("no answer within {:?}", self.timeout))),
            }
        };
        let delays = ExponentialBuilder::default()
            .with_min_delay(FIRST_DELAY)
            .with_max_delay(LONGEST_DELAY)
            .with_max_times(RETRIES)
            .with_jitter();
        once.retry(delays)
            .when(|error: &tidemill_core::Error| error.is_transient())
            .notify(|error, delay| tracing::warn!(%error, ?delay, "ClickHouse failed; trying again"))
            .await
    }
}

/// An identifier in a statement.
pub(super) fn quoted(name: &str) -> String {
    format!("`{}`", name.replace('\\', "\\\\").replace('`', "\\`"))
}
