//! Rows to bytes of a file that grows in an object store.

use arrow::array::RecordBatch;
use arrow::csv::WriterBuilder;
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
            other => {
                Err(Error::new(Code::BadOption, format!("connector `files`: option `format` is `{other}`"))
                    .hint("expected parquet or csv"))
            }
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
                let message =
                    format!("CSV has no type for column `{}` of type {}", field.name(), field.data_type());
                Err(Error::new(Code::Unsupported, message)
                    .hint("use format = 'parquet', or take the column apart"))
            }
            _ => Ok(()),
        }
    }
}

/// One file in the making.
pub(super) enum Encoder {
    Parquet(Box<AsyncArrowWriter<BufWriter>>),
    Csv { file: Box<BufWriter>, bytes: u64 },
}

impl Encoder {
    pub(super) fn new(format: Format, file: BufWriter, schema: &SchemaRef) -> Result<Self> {
        if format == Format::Csv {
            return Ok(Self::Csv { file: Box::new(file), bytes: 0 });
        }
        let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
        // Parquet's own types say enough; with Arrow's beside them every reader would have to know views.
        let options = ArrowWriterOptions::new().with_properties(properties).with_skip_arrow_metadata(true);
        let writer = AsyncArrowWriter::try_new_with_options(file, schema.clone(), options);
        Ok(Self::Parquet(Box::new(writer.map_err(from_parquet)?)))
    }

    pub(super) async fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        match self {
            Self::Parquet(writer) => writer.write(batch).await.map_err(from_parquet),
            Self::Csv { file, bytes } => {
                let mut lines = WriterBuilder::new().with_header(*bytes == 0).build(Vec::new());
                lines.write(batch)?;
                let lines = lines.into_inner();
                *bytes += lines.len() as u64;
                Ok(file.put(Bytes::from(lines)).await?)
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
            Self::Csv { file, bytes } => {
                file.shutdown().await.map_err(|error| from_parquet(error.into()))?;
                Ok(*bytes)
            }
        }
    }

    /// Gives up the upload: parts of an unfinished one are invisible and cost money.
    pub(super) async fn abort(self) -> Result<()> {
        let mut file = match self {
            Self::Parquet(writer) => writer.into_inner(),
            Self::Csv { file, .. } => *file,
        };
        Ok(file.abort().await?)
    }
}

/// The store's own error is what matters, wherever Parquet has wrapped it.
fn from_parquet(error: ParquetError) -> Error {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    let mut words = Vec::new();
    while let Some(inner) = cause {
        words.push(inner.to_string());
        cause = inner.source();
    }
    let code = if words.iter().any(|text| text.contains("No space left")) {
        Code::NoSpace
    } else if words.iter().any(|text| text.contains("not performed because") || text.contains("ccess denied"))
    {
        Code::AccessDenied
    } else {
        Code::ExternalFailure
    };
    Error::new(code, format!("writing a file: {error}"))
}
