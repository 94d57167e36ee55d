//! JSON records to Arrow columns, driven by the projection.
//!
//! ```text
//! payload ─▶ Cursor ─▶ Object: key ─▶ wanted? ─yes─▶ Column (values straight into Arrow buffers)
//!                                       └─no──▶ passed over, grammar checked
//! ```
//!
//! There is no tree and no tape in between, and nothing is allocated per record.

mod column;
mod cursor;
mod fault;
mod number;
mod object;
#[cfg(test)]
mod tests;

use super::{Decoded, Decoder};
use arrow::array::{BinaryArray, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::datatypes::SchemaRef;
use cursor::{Cursor, Kind};
use fault::{Fault, Faulty};
use object::Object;
use tidemill_core::{RawBatch, Result};

#[derive(Debug)]
pub(super) struct JsonDecoder {
    schema: SchemaRef,
    record: Object,
}

impl JsonDecoder {
    pub(super) fn new(schema: SchemaRef) -> Result<Self> {
        let record = Object::new(schema.fields())?;
        Ok(Self { schema, record })
    }

    fn read(&mut self, text: &[u8], row: usize) -> Faulty<()> {
        let mut cursor = Cursor::new(text);
        match cursor.kind()? {
            Kind::Object => {}
            other => return Err(Fault::expected(&"a JSON object", &other.name())),
        }
        self.record.read(&mut cursor, row, 0)?;
        cursor.end()
    }
}

impl Decoder for JsonDecoder {
    fn decode(&mut self, raw: &RawBatch) -> Result<Decoded> {
        let records = &raw.payload;
        // Once for all: a record that begins or ends inside a character is malformed at that end anyway.
        let all_utf8 = std::str::from_utf8(text_of(records)).is_ok();
        let mut good: Option<Vec<u32>> = None;
        let mut rejected: Vec<(u32, String)> = Vec::new();
        let mut row = 0;
        for (index, record) in (0u32..).zip(records.iter()) {
            let outcome = match record {
                None => Err("no payload".to_owned()),
                Some(text) if !all_utf8 && std::str::from_utf8(text).is_err() => Err("not UTF-8".to_owned()),
                Some(text) => self.read(text, row).map_err(|fault| fault.to_string()),
            };
            match outcome {
                Ok(()) => {
                    row += 1;
                    good.iter_mut().for_each(|good| good.push(index));
                }
                Err(reason) => {
                    self.record.truncate(row);
                    good.get_or_insert_with(|| (0..index).collect());
                    rejected.push((index, reason));
                }
            }
        }
        let columns = self.record.finish(row, None)?.into_parts().1;
        let options = RecordBatchOptions::new().with_row_count(Some(row));
        let batch = RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)?;
        Ok(Decoded { batch, good: good.map(UInt32Array::from), rejected })
    }
}

/// The bytes of all records, without a slice's left-over before and after.
fn text_of(records: &BinaryArray) -> &[u8] {
    let offsets = records.value_offsets();
    let place = |offset: Option<&i32>| offset.and_then(|at| usize::try_from(*at).ok()).unwrap_or_default();
    records.value_data().get(place(offsets.first())..place(offsets.last())).unwrap_or_default()
}
