//! Values as keys of a set: numbers as their bits, texts of up to twelve bytes as Arrow's views of them.

use arrow::array::{Array, ArrayRef, AsArray, BinaryViewArray};
use arrow::compute::cast;
use arrow::datatypes::{ArrowNativeType, DataType};
use datafusion::common::{Result as DfResult, internal_err};
use std::fmt::Debug;
use std::hash::Hash;

/// Bytes of a text that fit into its view, as the format of Arrow has it.
pub(super) const LONGEST_VIEW: usize = 12;

/// A value of fixed width.
pub(super) trait Key: ArrowNativeType + Eq + Hash + Debug {
    const BYTES: usize = size_of::<Self>();

    fn write(self, to: &mut Vec<u8>);

    /// `from` has [`Self::BYTES`] bytes.
    fn read(from: &[u8]) -> Self;
}

macro_rules! key {
    ($($native:ty),*) => {$(
        impl Key for $native {
            fn write(self, to: &mut Vec<u8>) {
                to.extend_from_slice(&self.to_le_bytes());
            }

            fn read(from: &[u8]) -> Self {
                let mut bytes = [0; size_of::<Self>()];
                bytes.copy_from_slice(from);
                Self::from_le_bytes(bytes)
            }
        }
    )*};
}

key!(i32, i64, i128);

/// How values of a type become keys; `None` when they do not, as with floats, of which unlike bits may be equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// `i32`
    Four,
    /// `i64`
    Eight,
    /// `i128`
    Sixteen,
    /// Views as `i128`, and what is longer.
    Text,
}

impl Kind {
    pub(super) fn of(data_type: &DataType) -> Option<Self> {
        match data_type {
            DataType::Int32 | DataType::UInt32 | DataType::Date32 | DataType::Time32(_) => Some(Self::Four),
            DataType::Int64
            | DataType::UInt64
            | DataType::Date64
            | DataType::Time64(_)
            | DataType::Timestamp(..) => Some(Self::Eight),
            DataType::Decimal128(..) => Some(Self::Sixteen),
            DataType::Utf8
            | DataType::LargeUtf8
            | DataType::Utf8View
            | DataType::Binary
            | DataType::LargeBinary
            | DataType::BinaryView => Some(Self::Text),
            _ => None,
        }
    }
}

/// The values of a column.
pub(super) struct Values<K> {
    pub(super) keys: Vec<K>,
    /// Of texts: where those that are too long for a key are.
    pub(super) texts: Option<BinaryViewArray>,
}

/// A column whose keys are `K`.
pub(super) fn values<K: Key>(column: &ArrayRef) -> DfResult<Values<K>> {
    if Kind::of(column.data_type()) == Some(Kind::Text) {
        let texts = cast(column, &DataType::BinaryView)?;
        let texts = texts.as_binary_view().clone();
        let views = texts.views().iter();
        let keys = views.map(|view| if is_long(*view) { K::default() } else { K::read(&view.to_le_bytes()) });
        return Ok(Values { keys: keys.collect(), texts: Some(texts) });
    }
    let data = column.to_data();
    let Some(bits) = data.buffers().first() else {
        return internal_err!("{} has no keys", column.data_type());
    };
    let keys = bits.typed_data::<K>()[data.offset()..][..data.len()].to_vec();
    Ok(Values { keys, texts: None })
}

impl<K> Values<K> {
    /// The text of a row that is too long for a key.
    pub(super) fn long(&self, row: usize) -> Option<&[u8]> {
        let texts = self.texts.as_ref()?;
        is_long(texts.views()[row]).then(|| texts.value(row))
    }
}

/// The length comes first in a view.
fn is_long(view: u128) -> bool {
    view as u32 as usize > LONGEST_VIEW
}
