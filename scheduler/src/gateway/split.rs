//! Batches cut into pieces that every client's gRPC takes: many refuse messages of more than 4 or 16 MiB.

use arrow::array::{Array, ArrayRef, AsArray, OffsetSizeTrait, RecordBatch};
use arrow::datatypes::DataType;

/// Pieces of no more than this; a single row that is larger goes alone.
const PIECE_BYTES: usize = 2 << 20;

/// The batch in pieces, halved until each is small enough. arrow-flight's own way takes the average row, and is
/// wrong about batches of few wide rows among many narrow ones.
pub(super) fn pieces(batch: RecordBatch) -> Vec<RecordBatch> {
    let mut small = Vec::new();
    let mut rest = vec![batch];
    while let Some(batch) = rest.pop() {
        let rows = batch.num_rows();
        if rows <= 1 || batch.columns().iter().map(bytes).sum::<usize>() <= PIECE_BYTES {
            small.push(batch);
        } else {
            // The first half comes off the stack first.
            rest.push(batch.slice(rows / 2, rows - rows / 2));
            rest.push(batch.slice(0, rows / 2));
        }
    }
    small
}

/// Bytes of the rows of this slice, not of the buffers that it shares.
fn bytes(array: &ArrayRef) -> usize {
    match array.data_type() {
        DataType::List(_) => list_bytes::<i32>(array),
        DataType::LargeList(_) => list_bytes::<i64>(array),
        DataType::Map(..) => {
            let map = array.as_map();
            let offsets = map.value_offsets();
            let (first, last) = (offsets[0] as usize, offsets[offsets.len() - 1] as usize);
            map.entries().slice(first, last - first).columns().iter().map(bytes).sum()
        }
        DataType::FixedSizeList(_, _) => bytes(array.as_fixed_size_list().values()),
        DataType::Struct(_) => array.as_struct().columns().iter().map(bytes).sum(),
        // What has no size of a slice is taken whole, which splits more than is needed.
        _ => array.to_data().get_slice_memory_size().unwrap_or_else(|_| array.get_buffer_memory_size()),
    }
}

fn list_bytes<O: OffsetSizeTrait>(array: &ArrayRef) -> usize {
    let list = array.as_list::<O>();
    let offsets = list.value_offsets();
    let (first, last) = (offsets[0].as_usize(), offsets[offsets.len() - 1].as_usize());
    size_of_val(offsets) + bytes(&list.values().slice(first, last - first))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ListArray, StringArray};
    use arrow::compute::concat_batches;
    use std::sync::Arc;

    fn check(column: ArrayRef) -> usize {
        let batch = RecordBatch::try_from_iter([("c", column)]).unwrap();
        let pieces = pieces(batch.clone());
        assert_eq!(concat_batches(&batch.schema(), &pieces).unwrap(), batch);
        for piece in &pieces {
            assert!(piece.num_rows() == 1 || bytes(piece.column(0)) <= PIECE_BYTES);
        }
        pieces.len()
    }

    #[test]
    fn few_wide_rows_among_many_narrow_ones_go_apart() {
        let wide = "x".repeat(1_500_000);
        let rows = (0..4_096).map(|row| if row < 6 { wide.as_str() } else { "narrow" });
        let pieces = check(Arc::new(StringArray::from_iter_values(rows)));
        assert!((6..20).contains(&pieces), "{pieces}");
        assert_eq!(check(Arc::new(StringArray::from_iter_values(["narrow"; 4_096]))), 1);
    }

    #[test]
    fn a_slice_of_a_list_counts_its_own_items_only() {
        let rows = (0..8).map(|_| Some((0..100_000).map(Some)));
        let lists = ListArray::from_iter_primitive::<arrow::datatypes::Int64Type, _, _>(rows);
        let pieces = check(Arc::new(lists));
        assert!((4..=8).contains(&pieces), "{pieces}");
    }
}
