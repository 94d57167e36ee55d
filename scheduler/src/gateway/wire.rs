//! Results as they go over the wire.
//!
//! View, dictionary and large list types become plain ones: many clients know nothing else, and a slice of a view
//! array would be sent with all the buffers it points into.

use super::split::pieces;
use super::status::to_status;
use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::compute::cast;
use arrow::datatypes::{DataType, FieldRef, Fields, Schema, SchemaRef};
use arrow::ipc::CompressionType;
use arrow::ipc::writer::IpcWriteOptions;
use arrow_flight::FlightData;
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::error::FlightError;
use datafusion::execution::SendableRecordBatchStream;
use futures::{Stream, StreamExt};
use std::sync::Arc;
use tidemill_core::{Error, Result};
use tidemill_engine::from_datafusion;
use tonic::Status;

/// The schema in which rows of `schema` are sent.
pub(super) fn wire_schema(schema: &Schema) -> SchemaRef {
    let fields: Fields = schema.fields().iter().map(wire_field).collect();
    Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()))
}

fn wire_field(field: &FieldRef) -> FieldRef {
    Arc::new(field.as_ref().clone().with_data_type(wire_type(field.data_type())))
}

fn wire_type(data_type: &DataType) -> DataType {
    match data_type {
        DataType::Utf8View => DataType::Utf8,
        DataType::BinaryView => DataType::Binary,
        DataType::Dictionary(_, values) => wire_type(values),
        // `arrow-flight` announces a large list as a plain one, so it has to be one.
        DataType::List(item)
        | DataType::ListView(item)
        | DataType::LargeList(item)
        | DataType::LargeListView(item) => DataType::List(wire_field(item)),
        DataType::FixedSizeList(item, size) => DataType::FixedSizeList(wire_field(item), *size),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(wire_field).collect()),
        DataType::Map(entries, sorted) => DataType::Map(wire_field(entries), *sorted),
        other => other.clone(),
    }
}

fn to_wire(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let columns = batch.columns().iter().zip(schema.fields()).map(|(column, field)| {
        if column.data_type() == field.data_type() {
            Ok(Arc::clone(column))
        } else {
            cast(column, field.data_type())
        }
    });
    let columns = columns.collect::<Result<Vec<_>, _>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options).map_err(Error::internal)
}

/// Encodes batch by batch, and only as fast as the client takes them.
pub(super) fn encode(
    stream: SendableRecordBatchStream,
    schema: &Schema,
    options: IpcWriteOptions,
) -> impl Stream<Item = Result<FlightData, Status>> + Send + 'static {
    let schema = wire_schema(schema);
    let target = Arc::clone(&schema);
    let rows = metrics::counter!("tidemill_gateway_rows_total");
    let bytes = metrics::counter!("tidemill_gateway_bytes_total");
    let batches = stream.flat_map(move |batch| {
        let batch = batch.map_err(from_datafusion).and_then(|batch| to_wire(&batch, &target));
        let pieces = match batch {
            Ok(batch) => {
                rows.increment(batch.num_rows() as u64);
                pieces(batch).into_iter().map(Ok).collect()
            }
            Err(error) => vec![Err(FlightError::from(to_status(&error)))],
        };
        futures::stream::iter(pieces)
    });
    // The pieces are small already.
    let builder = FlightDataEncoderBuilder::new().with_max_flight_data_size(usize::MAX).with_options(options);
    builder.with_schema(schema).build(batches).map(move |data| {
        data.inspect(|data| bytes.increment((data.data_header.len() + data.data_body.len()) as u64))
            .map_err(Status::from)
    })
}

/// How a session wants its results compressed.
pub(super) fn compression(name: &str) -> Result<IpcWriteOptions> {
    let kind = match name {
        "lz4" => Some(CompressionType::LZ4_FRAME),
        "zstd" => Some(CompressionType::ZSTD),
        _ => None,
    };
    IpcWriteOptions::default().try_with_compression(kind).map_err(Error::from)
}

/// One batch as a stream of its own.
pub(super) fn encode_batch(batch: RecordBatch) -> impl Stream<Item = Result<FlightData, Status>> + Send {
    let schema = batch.schema();
    FlightDataEncoderBuilder::new()
        .with_schema(schema)
        .build(futures::stream::iter([Ok(batch)]))
        .map(|data| data.map_err(Status::from))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, AsArray, LargeListArray, ListArray, StringArray, StringViewArray};
    use arrow::datatypes::{Field, Int64Type};
    use arrow_flight::decode::FlightRecordBatchStream;
    use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
    use futures::TryStreamExt;

    #[test]
    fn views_and_dictionaries_become_plain() {
        let item = Arc::new(Field::new("item", DataType::Utf8View, true));
        let coded = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8View));
        let schema = Schema::new(vec![
            Field::new("list", DataType::List(item), true),
            Field::new("coded", coded, false),
            Field::new("number", DataType::Int64, true),
        ]);
        let wire = wire_schema(&schema);
        assert_eq!(wire.field(0).data_type().to_string(), "List(Utf8)");
        assert_eq!(wire.field(1), &Field::new("coded", DataType::Utf8, false));
        assert_eq!(wire.field(2), schema.field(2));
    }

    #[test]
    fn rows_survive() {
        let views: ArrayRef =
            Arc::new(StringViewArray::from(vec![Some("a string that is not inlined"), None]));
        let batch = RecordBatch::try_from_iter([("v", views)]).unwrap();
        let wire = to_wire(&batch, &wire_schema(&batch.schema())).unwrap();
        let strings = wire.column(0).as_any().downcast_ref::<StringArray>().unwrap();
        assert_eq!(strings, &StringArray::from(vec![Some("a string that is not inlined"), None]));
    }

    #[tokio::test]
    async fn lists_of_all_sizes_can_be_read() {
        let large = LargeListArray::from_iter_primitive::<Int64Type, _, _>([Some(vec![Some(1), None]), None]);
        let batch = RecordBatch::try_from_iter([("l", Arc::new(large) as ArrayRef)]).unwrap();
        let one = futures::stream::iter([Ok(batch.clone())]);
        let stream = RecordBatchStreamAdapter::new(batch.schema(), one);
        let data = encode(Box::pin(stream), &batch.schema(), compression("none").unwrap());
        let read = FlightRecordBatchStream::new_from_flight_data(data.map_err(FlightError::from));
        let read: Vec<RecordBatch> = read.try_collect().await.unwrap();
        assert_eq!(read[0].schema(), wire_schema(&batch.schema()));
        let list = ListArray::from_iter_primitive::<Int64Type, _, _>([Some(vec![Some(1), None]), None]);
        assert_eq!(read[0].column(0).as_list::<i32>(), &list);
    }

    #[tokio::test]
    async fn a_session_may_ask_for_compression() {
        let words: ArrayRef = Arc::new(StringArray::from(vec!["the same words"; 8_000]));
        let batch = RecordBatch::try_from_iter([("v", words)]).unwrap();
        let mut sizes = Vec::new();
        for name in ["none", "lz4", "zstd"] {
            let one = futures::stream::iter([Ok(batch.clone())]);
            let stream = RecordBatchStreamAdapter::new(batch.schema(), one);
            let data = encode(Box::pin(stream), &batch.schema(), compression(name).unwrap());
            let data: Vec<FlightData> = data.try_collect().await.unwrap();
            sizes.push(data.iter().map(|data| data.data_body.len()).sum::<usize>());
        }
        assert!(sizes[1] * 4 < sizes[0] && sizes[2] * 6 < sizes[0], "{sizes:?}");
    }
}
