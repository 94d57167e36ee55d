//! One column of some thousand rows in few bytes, from which it is an array again in a fraction of the time that
//! decoding Parquet takes: numbers as distances from the least of them, texts of few values as codes.

use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, BinaryViewArray, DictionaryArray, PrimitiveArray,
    StringViewArray, StringViewBuilder, UInt8Array, UInt32Array, make_array,
};
use arrow::buffer::NullBuffer;
use arrow::compute::{self, take};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Int32Type, Int64Type, TimeUnit, TimestampMicrosecondType,
    TimestampMillisecondType, TimestampNanosecondType, UInt8Type,
};
use datafusion::common::Result as DfResult;
use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::Arc;

/// A column's rows of one segment.
#[derive(Debug)]
pub(super) enum Encoded {
    Numbers(Box<dyn Numbers>),
    /// Places in the values.
    Codes {
        codes: UInt8Array,
        values: ArrayRef,
    },
    Plain(ArrayRef),
}

impl Encoded {
    pub(super) fn of(array: &ArrayRef) -> Self {
        let encoded = match array.data_type() {
            DataType::Int32 => numbers::<Int32Type>(array),
            DataType::Int64 => numbers::<Int64Type>(array),
            DataType::Date32 => numbers::<Date32Type>(array),
            DataType::Timestamp(TimeUnit::Millisecond, _) => numbers::<TimestampMillisecondType>(array),
            DataType::Timestamp(TimeUnit::Microsecond, _) => numbers::<TimestampMicrosecondType>(array),
            DataType::Timestamp(TimeUnit::Nanosecond, _) => numbers::<TimestampNanosecondType>(array),
            DataType::Decimal128(..) => numbers::<Decimal128Type>(array),
            DataType::Utf8View => codes(array.as_string_view()),
            _ => None,
        };
        encoded.unwrap_or_else(|| Self::Plain(owned(array)))
    }

    pub(super) fn decode(&self) -> DfResult<ArrayRef> {
        Ok(match self {
            Self::Numbers(numbers) => numbers.decode(),
            Self::Codes { codes, values } => take(values, codes, None)?,
            Self::Plain(array) => array.clone(),
        })
    }

    /// The rows at these places, of which there is none beyond the end.
    pub(super) fn decode_at(&self, places: &UInt32Array) -> DfResult<ArrayRef> {
        Ok(match self {
            Self::Numbers(numbers) => numbers.decode_at(places.values()),
            Self::Codes { codes, values } => take(values, &take(codes, places, None)?, None)?,
            Self::Plain(array) => take(array, places, None)?,
        })
    }

    /// The rows at these places, or all, as they are kept: codes as a dictionary.
    pub(super) fn as_kept(&self, places: Option<&UInt32Array>) -> DfResult<ArrayRef> {
        let Self::Codes { codes, values } = self else {
            return places.map_or_else(|| self.decode(), |places| self.decode_at(places));
        };
        let codes = match places {
            Some(places) => take(codes, places, None)?.as_primitive().clone(),
            None => codes.clone(),
        };
        Ok(Arc::new(DictionaryArray::<UInt8Type>::try_new(codes, values.clone())?))
    }

    pub(super) fn bytes(&self) -> usize {
        let content = match self {
            Self::Numbers(numbers) => numbers.bytes(),
            Self::Codes { codes, values } => codes.get_array_memory_size() + values.get_array_memory_size(),
            Self::Plain(array) => array.get_array_memory_size(),
        };
        content + size_of::<Self>()
    }

    pub(super) fn rows(&self) -> usize {
        match self {
            Self::Numbers(numbers) => numbers.rows(),
            Self::Codes { codes, .. } => codes.len(),
            Self::Plain(array) => array.len(),
        }
    }
}

/// Numbers of whatever type.
pub(super) trait Numbers: Debug + Send + Sync {
    fn decode(&self) -> ArrayRef;
    fn decode_at(&self, places: &[u32]) -> ArrayRef;
    fn bytes(&self) -> usize;
    fn rows(&self) -> usize;
}

fn numbers<T>(array: &ArrayRef) -> Option<Encoded>
where
    T: ArrowPrimitiveType + Debug,
    T::Native: Distance,
{
    Distances::<T>::of(array).map(|distances| Encoded::Numbers(Box::new(distances)))
}

/// Numbers as distances from the least of them, in as few bytes as the greatest distance takes.
#[derive(Debug)]
struct Distances<T: ArrowPrimitiveType> {
    data_type: DataType,
    least: T::Native,
    rows: usize,
    widths: Widths,
    nulls: Option<NullBuffer>,
}

#[derive(Debug)]
enum Widths {
    /// All are the least.
    None,
    One(Vec<u8>),
    Two(Vec<u16>),
    Four(Vec<u32>),
}

impl<T> Distances<T>
where
    T: ArrowPrimitiveType,
    T::Native: Distance,
{
    fn array(&self, values: Vec<T::Native>, nulls: Option<NullBuffer>) -> ArrayRef {
        Arc::new(PrimitiveArray::<T>::new(values.into(), nulls).with_data_type(self.data_type.clone()))
    }

    /// `None` when it would save nothing.
    fn of(array: &ArrayRef) -> Option<Self> {
        let array = array.as_primitive::<T>();
        let (least, greatest) = match (compute::min(array), compute::max(array)) {
            (Some(least), Some(greatest)) => (least, greatest),
            // All are NULL.
            _ => (T::Native::default(), T::Native::default()),
        };
        let values = array.values().iter();
        // What stands in place of a NULL is cut off, whatever it is.
        let widths = match least.distance_to(greatest)? {
            0 => Widths::None,
            span if span < 1 << 8 => Widths::One(values.map(|value| least.cut(*value) as u8).collect()),
            span if span < 1 << 16 => Widths::Two(values.map(|value| least.cut(*value) as u16).collect()),
            _ if size_of::<T::Native>() <= 4 => return None,
            _ => Widths::Four(values.map(|value| least.cut(*value)).collect()),
        };
        let nulls = array.nulls().filter(|nulls| nulls.null_count() > 0).cloned();
        Some(Self { data_type: array.data_type().clone(), least, rows: array.len(), widths, nulls })
    }
}

impl<T> Numbers for Distances<T>
where
    T: ArrowPrimitiveType + Debug,
    T::Native: Distance,
{
    fn decode(&self) -> ArrayRef {
        let least = self.least;
        let values: Vec<T::Native> = match &self.widths {
            Widths::None => vec![least; self.rows],
            Widths::One(distances) => distances.iter().map(|far| least.plus(u32::from(*far))).collect(),
            Widths::Two(distances) => distances.iter().map(|far| least.plus(u32::from(*far))).collect(),
            Widths::Four(distances) => distances.iter().map(|far| least.plus(*far)).collect(),
        };
        self.array(values, self.nulls.clone())
    }

    fn decode_at(&self, places: &[u32]) -> ArrayRef {
        let (least, all) = (self.least, places.iter().map(|place| *place as usize));
        let values: Vec<T::Native> = match &self.widths {
            Widths::None => vec![least; places.len()],
            Widths::One(distances) => all.map(|place| least.plus(u32::from(distances[place]))).collect(),
            Widths::Two(distances) => all.map(|place| least.plus(u32::from(distances[place]))).collect(),
            Widths::Four(distances) => all.map(|place| least.plus(distances[place])).collect(),
        };
        let valid = |nulls: &NullBuffer| places.iter().map(|place| nulls.is_valid(*place as usize)).collect();
        self.array(values, self.nulls.as_ref().map(valid))
    }

    fn bytes(&self) -> usize {
        let values = match &self.widths {
            Widths::None => 0,
            Widths::One(distances) => distances.len(),
            Widths::Two(distances) => distances.len() * 2,
            Widths::Four(distances) => distances.len() * 4,
        };
        values + self.nulls.as_ref().map_or(0, |nulls| nulls.len() / 8) + size_of::<Self>()
    }

    fn rows(&self) -> usize {
        self.rows
    }
}

trait Distance: Copy + Default {
    /// `None` when it does not fit.
    fn distance_to(self, greater: Self) -> Option<u32>;
    /// The distance of a value that is known to be near enough.
    fn cut(self, value: Self) -> u32;
    fn plus(self, distance: u32) -> Self;
}

macro_rules! distance {
    ($($native:ty),*) => {$(
        impl Distance for $native {
            fn distance_to(self, greater: Self) -> Option<u32> {
                u32::try_from(greater.checked_sub(self)?).ok()
            }

            #[inline]
            fn cut(self, value: Self) -> u32 {
                value.wrapping_sub(self) as u32
            }

            #[inline]
            fn plus(self, distance: u32) -> Self {
                self.wrapping_add(distance as $native)
            }
        }
    )*};
}

distance!(i32, i64, i128);

/// `None` when there are more values than a code of one byte can tell.
fn codes(array: &StringViewArray) -> Option<Encoded> {
    let mut places: HashMap<&str, u8> = HashMap::new();
    let mut values = StringViewBuilder::new();
    let mut codes = Vec::with_capacity(array.len());
    for text in array {
        let Some(text) = text else {
            codes.push(0);
            continue;
        };
        let code = match places.get(text) {
            Some(code) => *code,
            None => {
                let code = u8::try_from(places.len()).ok()?;
                values.append_value(text);
                places.insert(text, code);
                code
            }
        };
        codes.push(code);
    }
    if places.is_empty() {
        values.append_value("");
    }
    let nulls = array.nulls().filter(|nulls| nulls.null_count() > 0).cloned();
    Some(Encoded::Codes {
        codes: UInt8Array::new(codes.into(), nulls),
        values: Arc::new(values.finish().gc()),
    })
}

/// The array without what it shares with others: views keep whole pages of their file.
pub(crate) fn owned(array: &ArrayRef) -> ArrayRef {
    match array.data_type() {
        DataType::Utf8View => Arc::new(array.as_string_view().gc()),
        DataType::BinaryView => {
            let views: &BinaryViewArray = array.as_binary_view();
            Arc::new(views.gc())
        }
        _ => make_array(array.to_data()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{
        BooleanArray, Date32Array, Decimal128Array, Float64Array, Int32Array, Int64Array,
        TimestampMicrosecondArray,
    };

    fn round_trip(array: ArrayRef) -> Encoded {
        let encoded = Encoded::of(&array);
        assert_eq!(&encoded.decode().unwrap(), &array);
        let places: UInt32Array = (0..array.len() as u32).rev().step_by(2).collect();
        assert_eq!(&encoded.decode_at(&places).unwrap(), &take(&array, &places, None).unwrap());
        assert_eq!(encoded.rows(), array.len());
        encoded
    }

    #[test]
    fn numbers_come_back_at_every_width() {
        for span in [0, 200, 60_000, 4_000_000_000i64] {
            let values = [Some(-7), None, Some(-7 + span), Some(-7 + span / 2)];
            round_trip(Arc::new(Int64Array::from(values.to_vec())));
            let times = TimestampMicrosecondArray::from(values.to_vec()).with_timezone("UTC");
            round_trip(Arc::new(times));
            let decimals = values.map(|value| value.map(i128::from)).to_vec();
            round_trip(Arc::new(Decimal128Array::from(decimals).with_precision_and_scale(15, 2).unwrap()));
        }
        for span in [0, 200, 60_000, 2_000_000_000] {
            round_trip(Arc::new(Int32Array::from(vec![Some(span - 9), None, Some(-9)])));
            round_trip(Arc::new(Date32Array::from(vec![span - 9, -9])));
        }
    }

    #[test]
    fn what_does_not_fit_stays_as_it_is() {
        let far = round_trip(Arc::new(Int64Array::from(vec![i64::MIN, i64::MAX, 0])));
        assert!(matches!(far, Encoded::Plain(_)));
        round_trip(Arc::new(Float64Array::from(vec![Some(1.5), None])));
        round_trip(Arc::new(BooleanArray::from(vec![Some(true), None])));
        round_trip(Arc::new(Int64Array::from(vec![None::<i64>, None])));
    }

    #[test]
    fn texts_of_few_values_are_codes() {
        let few: StringViewArray = (0..9000)
            .map(|n| (n % 5 != 4).then(|| format!("a text of more than twelve {}", n % 3)))
            .collect();
        let few = round_trip(Arc::new(few));
        assert!(matches!(few, Encoded::Codes { .. }));
        assert!(few.bytes() < 20_000, "{}", few.bytes());
        let many: StringViewArray = (0..9000).map(|n| Some(format!("text {n}"))).collect();
        assert!(matches!(round_trip(Arc::new(many)), Encoded::Plain(_)));
        round_trip(Arc::new(StringViewArray::from(vec![None::<&str>, None])));
    }
}
