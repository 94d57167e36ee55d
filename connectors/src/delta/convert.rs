//! `CONVERT TO DELTA`: a log for Parquet files that are there.

use super::error::from_delta;
use super::schema;
use super::table::Table;
use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use deltalake_core::kernel::engine::arrow_conversion::TryIntoKernel;
use deltalake_core::kernel::transaction::CommitProperties;
use deltalake_core::kernel::{StructField, StructType};
use deltalake_core::operations::convert_to_delta::ConvertToDeltaBuilder;
use serde_json::json;
use tidemill_core::{Code, Error, Result};
use tidemill_engine::maintenance::{convert_schema, rows};

pub(super) async fn convert(table: &Table, partitions: &Schema) -> Result<RecordBatch> {
    if table.exists().await? {
        return Err(Error::new(Code::AlreadyExists, format!("{} is a Delta table already", table.url))
            .hint("CREATE EXTERNAL TABLE t STORED AS DELTA LOCATION '…' gives it a name"));
    }
    let columns: StructType = (&schema::lake_schema(partitions)?).try_into_kernel()?;
    let quiet = CommitProperties::default().with_max_retries(0).with_create_checkpoint(false);
    let converted = ConvertToDeltaBuilder::new()
        .with_log_store(table.log_store.clone())
        .with_partition_schema(columns.fields().cloned().collect::<Vec<StructField>>())
        .with_commit_properties(quiet)
        .await;
    table.forget();
    let converted = converted.map_err(|error| in_our_words(from_delta(error, &table.url)))?;
    let fail = |error| from_delta(error, &table.url);
    let snapshot = converted.snapshot().map_err(fail)?;
    let files = snapshot.snapshot().try_log_data().map_err(fail)?;
    let row = json!({
        "numConvertedFiles": files.num_files(),
        "sizeInBytes": files.iter().map(|file| file.size()).sum::<i64>(),
    });
    rows(&convert_schema(), &[row])
}

fn in_our_words(error: Error) -> Error {
    let (code, hint) = match error.message.as_str() {
        text if text.contains("No parquet file") => {
            (Code::NotFound, "check the location; files end with `.parquet`")
        }
        text if text.contains("schema of partition columns") => {
            (Code::InvalidStatement, "name the columns of all folders: PARTITIONED BY (day DATE, …)")
        }
        text if text.contains("does not exist in the parquet files") => {
            (Code::UnknownColumn, "PARTITIONED BY names the `column=value` folders, and only those")
        }
        _ => return error,
    };
    Error { code, ..error }.hint(hint)
}
