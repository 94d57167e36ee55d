//! `zorder(a, bounds of a, b, bounds of b, …)`: a number for each row such that rows with near numbers are near
//! in all columns, for clustering.
//!
//! ```text
//! value ─▶ how many bounds are not greater ─▶ range id ─┐
//! value ─▶ …                               ─▶ range id ─┴▶ bits interleaved, highest first ─▶ UInt64
//! ```
//! Bounds are ascending quantiles of a sample, so that ids are spread evenly whatever the values are; with one
//! column the result is the id of its range. Values compare as Arrow's row format has it, NULL first, so every
//! type that can be sorted can be clustered by. The method is Morton's (1966); Delta's OPTIMIZE does the same.

use arrow::array::{Array, ArrayRef, UInt64Array};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use arrow::row::{OwnedRow, Row, RowConverter, SortField};
use datafusion::common::{Result as DfResult, ScalarValue, exec_err, plan_err};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use std::sync::Arc;

/// More bits than this tell ranges apart that hold next to nothing.
const MOST_BITS: u32 = 16;

/// Columns that one number can hold with a bit or more each.
pub const MOST_COLUMNS: usize = 16;

/// The function, for sessions.
pub fn zorder() -> Arc<ScalarUDF> {
    Arc::new(ScalarUDF::from(ZOrder { signature: Signature::variadic_any(Volatility::Immutable) }))
}

/// Ascending quantiles of a sample of values without NULL, as the function takes them. At most `most` of them.
pub fn bounds(sample: &ArrayRef, most: usize) -> DfResult<ScalarValue> {
    let sorted = arrow::compute::sort(sample, None)?;
    let sorted = sorted.slice(sorted.null_count(), sorted.len() - sorted.null_count());
    let count = most.min(sorted.len());
    let mut picked: Vec<ScalarValue> = Vec::with_capacity(count);
    for index in 1..=count {
        let value = ScalarValue::try_from_array(&sorted, index * sorted.len() / (count + 1))?;
        if picked.last() != Some(&value) {
            picked.push(value);
        }
    }
    Ok(ScalarValue::List(ScalarValue::new_list(&picked, sample.data_type(), true)))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct ZOrder {
    signature: Signature,
}

impl ScalarUDFImpl for ZOrder {
    fn name(&self) -> &str {
        "zorder"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> DfResult<DataType> {
        let pairs = arguments.len() / 2;
        if pairs == 0 || !arguments.len().is_multiple_of(2) || pairs > MOST_COLUMNS {
            return plan_err!("zorder takes 1 to {MOST_COLUMNS} columns, each with its list of bounds");
        }
        for bounds in arguments.iter().skip(1).step_by(2) {
            if !matches!(bounds, DataType::List(_)) {
                return plan_err!("zorder: the bounds of a column are a list, not {bounds}");
            }
        }
        Ok(DataType::UInt64)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let mut columns = Vec::with_capacity(args.args.len() / 2);
        for pair in args.args.chunks_exact(2) {
            let [values, ColumnarValue::Scalar(ScalarValue::List(bounds))] = pair else {
                return exec_err!("zorder: the bounds of a column are a constant list");
            };
            columns.push((values.to_array(args.number_rows)?, bounds.value(0)));
        }
        Ok(ColumnarValue::Array(Arc::new(interleaved(&columns)?)))
    }
}

/// What the function gives for the columns of a sample, each with its [`bounds`].
pub fn numbers(columns: &[(ArrayRef, ScalarValue)]) -> DfResult<ArrayRef> {
    let mut pairs = Vec::with_capacity(columns.len());
    for (values, bounds) in columns {
        let ScalarValue::List(bounds) = bounds else { return exec_err!("zorder: bounds that are no list") };
        pairs.push((values.clone(), bounds.value(0)));
    }
    Ok(Arc::new(interleaved(&pairs)?))
}

/// Columns with their bounds.
fn interleaved(columns: &[(ArrayRef, ArrayRef)]) -> DfResult<UInt64Array> {
    let bits = bits(columns.len());
    let ids: Vec<Vec<u64>> =
        columns.iter().map(|(values, bounds)| range_ids(values, bounds, bits)).collect::<DfResult<_>>()?;
    let rows = columns.first().map_or(0, |(values, _)| values.len());
    Ok(UInt64Array::from_iter_values((0..rows).map(|row| interleave(&ids, row, bits))))
}

/// Bits of a range id where there are this many columns.
fn bits(columns: usize) -> u32 {
    (u64::BITS / u32::try_from(columns.max(1)).unwrap_or(u64::BITS)).clamp(1, MOST_BITS)
}

/// Most bounds of a column that are told apart where there are this many columns.
pub fn most_bounds(columns: usize) -> usize {
    (1_usize << bits(columns)) - 1
}

/// The id of each value's range. With few ranges it is shifted up, so that the column counts as much as others.
fn range_ids(values: &ArrayRef, bounds: &ArrayRef, bits: u32) -> DfResult<Vec<u64>> {
    let bounds = cast(bounds, values.data_type())?;
    let converter = RowConverter::new(vec![SortField::new(values.data_type().clone())])?;
    let bounds: Vec<OwnedRow> = converter.convert_columns(&[bounds])?.iter().map(|row| row.owned()).collect();
    let needed = u64::BITS - (bounds.len() as u64).leading_zeros();
    let shift = bits.saturating_sub(needed);
    let rows = converter.convert_columns(std::slice::from_ref(values))?;
    let id = |row: Row<'_>| bounds.partition_point(|bound| bound.row() <= row) as u64;
    Ok(rows.iter().map(|row| id(row) << shift).collect())
}

fn interleave(ids: &[Vec<u64>], row: usize, bits: u32) -> u64 {
    if let [only] = ids {
        return only[row];
    }
    let mut number = 0;
    for bit in (0..bits).rev() {
        for column in ids {
            number = (number << 1) | ((column[row] >> bit) & 1);
        }
    }
    number
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Int64Array, StringViewArray};
    use arrow::datatypes::Field;
    use datafusion::config::ConfigOptions;

    fn call(columns: &[(ArrayRef, ScalarValue)]) -> Vec<u64> {
        let args: Vec<ColumnarValue> = columns
            .iter()
            .flat_map(|(column, bounds)| {
                [ColumnarValue::Array(column.clone()), ColumnarValue::Scalar(bounds.clone())]
            })
            .collect();
        let field = |value: &ColumnarValue| Arc::new(Field::new("a", value.data_type(), true));
        let args = ScalarFunctionArgs {
            arg_fields: args.iter().map(field).collect(),
            number_rows: columns[0].0.len(),
            return_field: Arc::new(Field::new("z", DataType::UInt64, false)),
            config_options: Arc::new(ConfigOptions::default()),
            args,
        };
        let ColumnarValue::Array(numbers) = zorder().invoke_with_args(args).unwrap() else {
            panic!("not an array")
        };
        numbers.as_any().downcast_ref::<UInt64Array>().unwrap().values().to_vec()
    }

    fn whole(values: &[Option<i64>]) -> ArrayRef {
        Arc::new(Int64Array::from(values.to_vec()))
    }

    #[test]
    fn one_column_gives_the_range() {
        let sample = whole(&(0..100).map(Some).collect::<Vec<_>>());
        let quarters = bounds(&sample, 3).unwrap();
        let ids = call(&[(whole(&[None, Some(0), Some(25), Some(60), Some(1000)]), quarters)]);
        let ranges: Vec<u64> = ids.iter().map(|id| id >> (MOST_BITS - 2)).collect();
        assert_eq!(ranges, [0, 0, 1, 2, 3]);
    }

    #[test]
    fn quadrants_follow_each_other() {
        let halves = bounds(&whole(&[Some(0), Some(10)]), 1).unwrap();
        let xs = whole(&[Some(0), Some(0), Some(10), Some(10)]);
        let words: ArrayRef = Arc::new(StringViewArray::from(vec!["a", "z", "a", "z"]));
        let text: ArrayRef = Arc::new(StringViewArray::from(vec!["a", "z"]));
        let ids = call(&[(xs, halves), (words, bounds(&text, 1).unwrap())]);
        assert!(ids.is_sorted() && ids.windows(2).all(|pair| pair[0] < pair[1]), "{ids:?}");
    }

    #[test]
    fn a_sample_of_equal_or_no_values_has_few_bounds() {
        let ScalarValue::List(list) = bounds(&whole(&[Some(7); 50]), 9).unwrap() else { panic!("no list") };
        assert_eq!(list.value(0).len(), 1);
        let none = bounds(&whole(&[None, None]), 9).unwrap();
        assert_eq!(call(&[(whole(&[Some(1), None]), none)]), [0, 0]);
    }
}
