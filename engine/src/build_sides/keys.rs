//! The keys of a build side, as a condition on the scans of the other side that travels with them.
//!
//! Functions travel by name, and what a function holds does not, so a set of integers is an argument: it is read once
//! where the scan runs, see [`ready`].

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch};
use arrow::buffer::BooleanBuffer;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type, Schema};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Result as DfResult, ScalarValue, plan_err};
use datafusion::config::ConfigOptions;
use datafusion::logical_expr::{
    ColumnarValue, Operator, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use datafusion::physical_expr::expressions::{Literal, binary, in_list, lit};
use datafusion::physical_expr::{PhysicalExpr, ScalarFunctionExpr};
use roaring::RoaringTreemap;
use std::collections::HashSet;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, LazyLock};

/// Keys that are no integers, which travel one by one. A year has fewer days.
const MOST_VALUES: usize = 512;
/// Between the least and the greatest key of a set that is looked up by bits: 8 MiB of them.
const MOST_BITS: u64 = 64 << 20;

/// Which keys a build side has. NULL is none.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Keys {
    Integers { set: RoaringTreemap, least: ScalarValue, greatest: ScalarValue },
    Values(Vec<ScalarValue>),
}

impl Keys {
    /// The keys that `expr` gives of `rows`; `None` where they are too many to tell, or none: a join without any is
    /// over soon.
    pub(super) fn of(rows: &[RecordBatch], expr: &Arc<dyn PhysicalExpr>) -> DfResult<Option<Self>> {
        let columns = rows
            .iter()
            .map(|batch| expr.evaluate(batch)?.into_array(batch.num_rows()))
            .collect::<DfResult<Vec<_>>>()?;
        match columns.first().map(|column| column.data_type().clone()) {
            None => Ok(None),
            Some(data_type) if is_integer(&data_type) => Self::integers(&columns, &data_type),
            Some(_) => Self::values(&columns),
        }
    }

    fn integers(columns: &[ArrayRef], data_type: &DataType) -> DfResult<Option<Self>> {
        let mut keys = Vec::new();
        for column in columns {
            let column = cast(column, &DataType::Int64)?;
            keys.extend(column.as_primitive::<Int64Type>().iter().flatten());
        }
        keys.sort_unstable();
        let (Some(least), Some(greatest)) = (keys.first().copied(), keys.last().copied()) else {
            return Ok(None);
        };
        let set: RoaringTreemap = keys.into_iter().map(in_order).collect();
        let bound = |key: i64| ScalarValue::Int64(Some(key)).cast_to(data_type);
        let (least, greatest) = (bound(least)?, bound(greatest)?);
        Ok(Some(Self::Integers { set, least, greatest }))
    }

    fn values(columns: &[ArrayRef]) -> DfResult<Option<Self>> {
        let mut keys: HashSet<ScalarValue> = HashSet::new();
        for column in columns {
            for row in 0..column.len() {
                let key = ScalarValue::try_from_array(column, row)?;
                if !key.is_null() {
                    keys.insert(key);
                }
                if keys.len() > MOST_VALUES {
                    return Ok(None);
                }
            }
        }
        Ok((!keys.is_empty()).then(|| Self::Values(keys.into_iter().collect())))
    }

    /// Whether a set of them is worth something only if it leaves some out.
    pub(super) fn are_many(&self) -> bool {
        match self {
            Self::Integers { set, .. } => set.len() > MOST_VALUES as u64,
            Self::Values(_) => false,
        }
    }

    /// That `column` is one of these keys.
    pub(super) fn condition(
        &self,
        column: &Arc<dyn PhysicalExpr>,
        schema: &Schema,
    ) -> DfResult<Arc<dyn PhysicalExpr>> {
        let (least, greatest, is_one) = match self {
            Self::Integers { set, least, greatest } => {
                let mut bytes = Vec::with_capacity(set.serialized_size());
                set.serialize_into(&mut bytes)?;
                let arguments = vec![Arc::clone(column), lit(ScalarValue::Binary(Some(bytes)))];
                let is_one = call(is_key(), arguments, schema)?;
                (least.clone(), greatest.clone(), is_one)
            }
            Self::Values(keys) => {
                let least = keys.iter().reduce(|least, key| if key < least { key } else { least });
                let greatest = keys.iter().reduce(|most, key| if key > most { key } else { most });
                let (Some(least), Some(greatest)) = (least, greatest) else { return Ok(lit(false)) };
                let all = keys.iter().cloned().map(lit).collect();
                (least.clone(), greatest.clone(), in_list(column.clone(), all, &false, schema)?)
            }
        };
        // Statistics are compared with the bounds.
        let from = binary(column.clone(), Operator::GtEq, lit(least), schema)?;
        let to = binary(column.clone(), Operator::LtEq, lit(greatest), schema)?;
        binary(binary(from, Operator::And, to, schema)?, Operator::And, is_one, schema)
    }
}

fn is_integer(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::Int8
            | DataType::Int16
            | DataType::Int32
            | DataType::Int64
            | DataType::UInt8
            | DataType::UInt16
            | DataType::UInt32
            | DataType::Date32
    )
}

/// The same order without a sign.
fn in_order(key: i64) -> u64 {
    key.cast_unsigned() ^ (1 << 63)
}

/// `is_key(key, set)`: whether an integer is one of a set, in the form that travels.
pub(crate) fn is_key() -> Arc<ScalarUDF> {
    static IS_KEY: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| {
        let signature = Signature::any(2, Volatility::Immutable);
        Arc::new(ScalarUDF::from(IsKey { set: None, signature }))
    });
    IS_KEY.clone()
}

/// Whether a condition asks a set of keys.
pub(crate) fn asks_keys(condition: &Arc<dyn PhysicalExpr>) -> bool {
    ScalarFunctionExpr::try_downcast_func::<IsKey>(condition.as_ref()).is_some()
}

/// The condition with its sets of keys read, as it is evaluated for many batches; `None` where it has none.
pub(crate) fn ready(
    condition: Arc<dyn PhysicalExpr>,
    schema: &Schema,
) -> DfResult<Option<Arc<dyn PhysicalExpr>>> {
    let ready = condition.transform_up(|part| {
        let Some(function) = ScalarFunctionExpr::try_downcast_func::<IsKey>(part.as_ref()) else {
            return Ok(Transformed::no(part));
        };
        let [key, set] = function.args() else { return Ok(Transformed::no(part)) };
        let Some(set) = set.downcast_ref::<Literal>() else { return Ok(Transformed::no(part)) };
        let set = Some(Arc::new(LookUp::of(&decoded(set.value())?)));
        let asks = IsKey { set, signature: Signature::any(1, Volatility::Immutable) };
        Ok(Transformed::yes(call(Arc::new(ScalarUDF::from(asks)), vec![Arc::clone(key)], schema)?))
    })?;
    Ok(ready.transformed.then_some(ready.data))
}

fn call(
    function: Arc<ScalarUDF>,
    arguments: Vec<Arc<dyn PhysicalExpr>>,
    schema: &Schema,
) -> DfResult<Arc<dyn PhysicalExpr>> {
    let options = Arc::new(ConfigOptions::default());
    Ok(Arc::new(ScalarFunctionExpr::try_new(function, arguments, schema, options)?))
}

fn decoded(set: &ScalarValue) -> DfResult<RoaringTreemap> {
    match set {
        ScalarValue::Binary(Some(bytes)) => Ok(RoaringTreemap::deserialize_from(bytes.as_slice())?),
        other => plan_err!("is_key takes the bytes of a set, not {other}"),
    }
}

#[derive(Debug)]
struct IsKey {
    /// Read already; the column is the only argument then.
    set: Option<Arc<LookUp>>,
    signature: Signature,
}

impl IsKey {
    /// Two sets are the same one only if they are one.
    fn identity(&self) -> Option<*const LookUp> {
        self.set.as_ref().map(Arc::as_ptr)
    }
}

impl PartialEq for IsKey {
    fn eq(&self, other: &Self) -> bool {
        self.identity() == other.identity()
    }
}

impl Eq for IsKey {}

impl Hash for IsKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.identity().hash(state);
    }
}

impl ScalarUDFImpl for IsKey {
    fn name(&self) -> &str {
        "is_key"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> DfResult<DataType> {
        Ok(DataType::Boolean)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        match (&self.set, args.args.as_slice()) {
            (Some(set), [key]) => set.ask(key, args.number_rows),
            (None, [key, ColumnarValue::Scalar(set)]) => {
                LookUp::of(&decoded(set)?).ask(key, args.number_rows)
            }
            _ => plan_err!("is_key takes a column and the bytes of a set"),
        }
    }
}

/// A set in the form that is asked millions of times.
#[derive(Debug)]
enum LookUp {
    /// One bit for each number from `least` on.
    Bits {
        least: u64,
        bits: Vec<u64>,
    },
    Hashed(hashbrown::HashSet<u64>),
}

impl LookUp {
    fn of(keys: &RoaringTreemap) -> Self {
        let (least, greatest) = (keys.min().unwrap_or(0), keys.max().unwrap_or(0));
        if greatest - least >= MOST_BITS {
            return Self::Hashed(keys.iter().collect());
        }
        let mut bits = vec![0; ((greatest - least) / 64) as usize + 1];
        for key in keys {
            bits[((key - least) / 64) as usize] |= 1 << ((key - least) % 64);
        }
        Self::Bits { least, bits }
    }

    /// Which of the integers are in the set; NULL is not.
    fn ask(&self, keys: &ColumnarValue, rows: usize) -> DfResult<ColumnarValue> {
        let keys = cast(&keys.to_array(rows)?, &DataType::Int64)?;
        let values = keys.as_primitive::<Int64Type>().values();
        let found = BooleanBuffer::collect_bool(values.len(), |row| self.has(in_order(values[row])));
        let found = match keys.nulls() {
            Some(valid) => &found & valid.inner(),
            None => found,
        };
        Ok(ColumnarValue::Array(Arc::new(BooleanArray::new(found, None))))
    }

    fn has(&self, key: u64) -> bool {
        match self {
            Self::Bits { least, bits } => {
                let place = key.wrapping_sub(*least);
                bits.get((place / 64) as usize).is_some_and(|word| word >> (place % 64) & 1 == 1)
            }
            Self::Hashed(keys) => keys.contains(&key),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Date32Array, Int64Array, StringArray, UInt8Array};
    use arrow::datatypes::Field;
    use datafusion::physical_expr::expressions::col;

    fn column(values: ArrayRef) -> (RecordBatch, Arc<dyn PhysicalExpr>) {
        let field = Field::new("k", values.data_type().clone(), true);
        let schema = Arc::new(Schema::new(vec![field]));
        let key = col("k", &schema).unwrap();
        (RecordBatch::try_new(schema, vec![values]).unwrap(), key)
    }

    /// Which of `asked` are among `keys`, here and where the set has travelled to.
    fn among(keys: ArrayRef, asked: ArrayRef) -> Vec<bool> {
        let (build, key) = column(keys);
        let found = Keys::of(&[build], &key).unwrap().unwrap();
        let (probe, key) = column(asked);
        let condition = found.condition(&key, &probe.schema()).unwrap();
        let answer = |condition: &Arc<dyn PhysicalExpr>| -> Vec<bool> {
            let passes = condition.evaluate(&probe).unwrap().into_array(probe.num_rows()).unwrap();
            passes.as_boolean().iter().map(|passes| passes == Some(true)).collect()
        };
        if let Some(ready) = ready(condition.clone(), &probe.schema()).unwrap() {
            assert_eq!(answer(&ready), answer(&condition));
        }
        answer(&condition)
    }

    #[test]
    fn integers_are_found_near_and_far_from_each_other() {
        for far in [1000, i64::MAX] {
            let keys = Int64Array::from(vec![Some(-5), Some(7), None, Some(far), Some(7)]);
            let asked =
                Int64Array::from(vec![Some(-6), Some(-5), Some(7), Some(8), Some(far), None, Some(i64::MIN)]);
            let expected = vec![false, true, true, false, true, false, false];
            assert_eq!(among(Arc::new(keys), Arc::new(asked)), expected, "{far}");
        }
    }

    #[test]
    fn dates_bytes_and_texts_are_keys() {
        let dates = |days: &[i32]| -> ArrayRef { Arc::new(Date32Array::from(days.to_vec())) };
        assert_eq!(among(dates(&[-3, 4]), dates(&[4, 5, -3])), vec![true, false, true]);
        let bytes = |bytes: &[u8]| -> ArrayRef { Arc::new(UInt8Array::from(bytes.to_vec())) };
        assert_eq!(among(bytes(&[255]), bytes(&[255, 0])), vec![true, false]);
        let texts = |texts: &[&str]| -> ArrayRef { Arc::new(StringArray::from(texts.to_vec())) };
        assert_eq!(among(texts(&["a", "c"]), texts(&["c", "b", "a"])), vec![true, false, true]);
    }

    #[test]
    fn many_texts_and_no_keys_are_not_told() {
        let many: Vec<String> = (0..600).map(|n| n.to_string()).collect();
        let (texts, key) = column(Arc::new(StringArray::from(many)));
        assert_eq!(Keys::of(&[texts], &key).unwrap(), None);
        let (none, key) = column(Arc::new(Int64Array::from(vec![None, None])));
        assert_eq!(Keys::of(&[none], &key).unwrap(), None);
    }
}
