//! Rows to bytes of a file that grows in an object store.

use arrow::array::RecordBatch;
use arrow::csv::{Writer as CsvWriter, WriterBuilder};
use arrow::datatypes::{Schema, SchemaRef};
use bytes::Bytes;
use object_store::buffered::BufWriter;
use parquet::arrow::AsyncArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::Compression;
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use std::str::FromStr;
use tidemill_core::{Code, Error, Result};
use tokio::io::AsyncWriteExt;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Parquet,
    Csv,
}

impl FromStr for Format {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "parquet" => Ok(Self::Parquet),
            "csv" => Ok(Self::Csv),
            other => Err(Error::new(Code::BadOption, format!("connector `files`: option `format` is `{other}`"))
                .hint("expected parquet or csv")),
        }
    }
}

impl Format {
    pub(super) fn extension(self) -> &'static str {
        match self {
            Self::Parquet => "parquet",
            Self::Csv => "csv",
        }
    }

    /// Whether the format has a place for every column.
    pub(super) fn check(self, schema: &Schema) -> Result<()> {
        let nested = schema.fields().iter().find(|field| field.data_type().is_nested());
        match nested {
            Some(field) if self == Self::Csv => {
                let message = format!("CSV has no type for column `{}` of type {}", field.name(), field.data_type());
                Err(Error::new(Code::Unsupported, message).hint("use format = 'parquet', or take the column apart"))
            }
            _ => Ok(()),
        }
    }
}

/// One file in the making.
pub(super) enum Encoder {
    Parquet(Box<AsyncArrowWriter<BufWriter>>),
    Csv { lines: CsvWriter<Vec<u8>>, file: BufWriter, bytes: u64 },
}

impl Encoder {
    pub(super) fn new(format: Format, file: BufWriter, schema: &SchemaRef) -> Result<Self> {
        Ok(match format {
            Format::Parquet => {
                let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
                // Parquet's own types say enough; with Arrow's beside them readers would have to know its views.
                let options = ArrowWriterOptions::new().with_properties(properties).with_skip_arrow_metadata(true);
                let writer = AsyncArrowWriter::try_new_with_options(file, schema.clone(), options);
                Self::Parquet(Box::new(writer.map_err(from_parquet)?))
            }
            Format::Csv => {
                let mut lines = WriterBuilder::new().with_header(true).build(Vec::new());
                lines.write(&RecordBatch::new_empty(schema.clone()))?;
                Self::Csv { lines, file, bytes: 0 }
            }
        })
    }

    pub(super) async fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        match self {
            Self::Parquet(writer) => writer.write(batch).await.map_err(from_parquet),
            Self::Csv { lines, file, bytes } => {
                let mut text = Vec::new();
                std::mem::swap(&mut text, lines_of(lines));
                let mut next = WriterBuilder::new().with_header(false).build(text);
                next.write(batch)?;
                let text = next.into_inner();
                *bytes += text.len() as u64;
                Ok(file.put(Bytes::from(text)).await?)
            }
        }
    }

    /// Makes the file durable and returns its size in bytes.
    pub(super) async fn finish(&mut self) -> Result<u64> {
        match self {
            Self::Parquet(writer) => {
                writer.finish().await.map_err(from_parquet)?;
                Ok(writer.bytes_written() as u64)
            }
            Self::Csv { file, bytes, .. } => {
                file.shutdown().await.map_err(|error| Error::new(Code::ExternalFailure, error.to_string()))?;
                Ok(*bytes)
            }
        }
    }
}
