//! Delta's side of [`Maintenance`].

use super::table::Table;
use super::{DeltaLake, convert, describe, restore, upkeep, vacuum, written};
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use tidemill_core::{Error, Result};
use tidemill_engine::maintenance::{Facts, Vacuum};
use tidemill_engine::{Maintenance, TableVersion};
use url::Url;

#[async_trait]
impl Maintenance for DeltaLake {
    async fn history(&self, location: &Url, limit: Option<usize>) -> Result<RecordBatch> {
        describe::history(&*Table::at(location, self.config())?, limit).await.map_err(at(location))
    }

    async fn detail(&self, location: &Url) -> Result<RecordBatch> {
        describe::detail(&*Table::at(location, self.config())?).await.map_err(at(location))
    }

    async fn vacuum(&self, location: &Url, options: &Vacuum) -> Result<Vec<String>> {
        vacuum::vacuum(&*Table::at(location, self.config())?, options).await.map_err(at(location))
    }

    async fn restore(&self, location: &Url, to: TableVersion) -> Result<RecordBatch> {
        restore::restore(&*Table::at(location, self.config())?, to).await.map_err(at(location))
    }

    async fn convert(&self, location: &Url, partitions: &SchemaRef) -> Result<RecordBatch> {
        convert::convert(&*Table::at(location, self.config())?, partitions).await.map_err(at(location))
    }

    fn written(&self) -> Vec<Url> {
        written::take()
    }

    async fn facts(&self, location: &Url) -> Result<Facts> {
        upkeep::facts(&*Table::at(location, self.config())?).await.map_err(at(location))
    }

    async fn checkpoint(&self, location: &Url) -> Result<()> {
        upkeep::checkpoint(&*Table::at(location, self.config())?).await.map_err(at(location))
    }

    async fn clean_log(&self, location: &Url) -> Result<usize> {
        upkeep::clean_log(&*Table::at(location, self.config())?).await.map_err(at(location))
    }
}

/// Says which table it was, once.
fn at(location: &Url) -> impl Fn(Error) -> Error + '_ {
    move |error| {
        let place = format!("Delta table {location}");
        if error.context.contains(&place) { error } else { error.context(place) }
    }
}
