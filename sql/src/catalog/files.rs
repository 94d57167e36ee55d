//! Tables over files that are there already.

use crate::statement::{TableDef, TableFormat};
use arrow::datatypes::{Schema, SchemaRef};
use datafusion::catalog::TableProvider;
use datafusion::datasource::file_format::FileFormatFactory;
use datafusion::datasource::listing::{ListingOptions, ListingTable, ListingTableConfig, ListingTableUrl};
use datafusion::execution::SessionState;
use futures::StreamExt;
use std::collections::HashMap;
use std::sync::Arc;
use tidemill_core::{Code, Error, Result, store};
use tidemill_engine::from_datafusion;

/// The format that a file's name tells.
pub(super) fn format_of(location: &str) -> Option<TableFormat> {
    match location.rsplit_once('.')?.1.to_lowercase().as_str() {
        "parquet" => Some(TableFormat::Parquet),
        "csv" => Some(TableFormat::Csv),
        "json" | "ndjson" | "jsonl" => Some(TableFormat::Json),
        _ => None,
    }
}

/// The columns in the files, where the definition does not declare them.
pub(super) async fn infer_schema(state: &SessionState, table: &TableDef) -> Result<SchemaRef> {
    let options = listing_options(state, table)?;
    let url = listing_url(table)?;
    let store = state.runtime_env().object_store(&url).map_err(from_datafusion)?;
    let files = url.list_all_files(state, store.as_ref(), &options.file_extension).await;
    if files.map_err(from_datafusion)?.next().await.is_none() {
        let message = format!("`{}` holds no {} files", table.location, name(table.format));
        return Err(Error::new(Code::NotFound, message).hint("check the location and the format"));
    }
    let schema = options.infer_schema(state, &url).await.map_err(from_datafusion)?;
    Ok(without_partitions(&schema, &table.partition_by))
}

/// The table over the files as they are when it is scanned.
pub(super) fn open(
    state: &SessionState,
    table: &TableDef,
    schema: SchemaRef,
) -> Result<Arc<dyn TableProvider>> {
    let config = ListingTableConfig::new(listing_url(table)?)
        .with_listing_options(listing_options(state, table)?)
        .with_schema(schema);
    let listing = ListingTable::try_new(config).map_err(from_datafusion)?;
    Ok(Arc::new(listing.with_cache(state.runtime_env().cache_manager.get_file_statistic_cache())))
}

fn without_partitions(schema: &Schema, partitions: &Schema) -> SchemaRef {
    let fields = schema.fields().iter().filter(|field| partitions.field_with_name(field.name()).is_err());
    Arc::new(Schema::new(fields.cloned().collect::<Vec<_>>()))
}

fn listing_url(table: &TableDef) -> Result<ListingTableUrl> {
    if table.location.contains('*') {
        return Err(Error::new(
            Code::Unsupported,
            format!("`{}`: patterns are not supported", table.location),
        )
        .hint("name a file, or the folder that holds the files"));
    }
    let url = store::location(&table.location)?;
    // DataFusion takes a URL without a trailing slash for a file.
    let text = if is_file(table) { url.to_string() } else { format!("{url}/") };
    ListingTableUrl::parse(text).map_err(from_datafusion)
}

fn is_file(table: &TableDef) -> bool {
    let last = table.location.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    format_of(last).is_some()
        && !table.location.ends_with('/')
        && !std::path::Path::new(&table.location).is_dir()
}

/// Whether the options are such as the format has.
pub(super) fn check(state: &SessionState, table: &TableDef) -> Result<()> {
    listing_options(state, table).map(|_| ())
}

fn listing_options(state: &SessionState, table: &TableDef) -> Result<ListingOptions> {
    // DataFusion takes these and heeds them only in a build with encryption.
    let crypto = |key: &&String| key.split('.').any(|part| part.eq_ignore_ascii_case("crypto"));
    if let Some(key) = table.options.keys().find(crypto) {
        return Err(Error::new(Code::Unsupported, format!("`{key}`: encrypted Parquet files"))
            .hint("files are read and written as they are; leave the option out"));
    }
    let factory = factory(state, table.format)?;
    let given: HashMap<String, String> =
        table.options.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
    let format = factory.create(state, &given).map_err(|error| {
        let error = from_datafusion(error);
        Error::new(Code::BadOption, format!("{}: {}", name(table.format), error.message))
            .hint("such as 'format.has_header' 'true' or 'format.delimiter' ';'")
    })?;
    let extension = if is_file(table) { String::new() } else { format!(".{}", factory.get_ext()) };
    let partitions = table.partition_by.fields().iter();
    let partitions = partitions.map(|field| (field.name().clone(), field.data_type().clone())).collect();
    Ok(ListingOptions::new(format).with_file_extension(extension).with_table_partition_cols(partitions))
}

fn factory(state: &SessionState, format: TableFormat) -> Result<Arc<dyn FileFormatFactory>> {
    let name = name(format);
    state
        .get_file_format_factory(name)
        .ok_or_else(|| Error::internal(format!("the session has no file format `{name}`")))
}

pub(super) fn name(format: TableFormat) -> &'static str {
    match format {
        TableFormat::Delta => "delta",
        TableFormat::Parquet => "parquet",
        TableFormat::Csv => "csv",
        TableFormat::Json => "json",
    }
}
