//! The aggregate function, which travels by name.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType, Field, FieldRef, UInt64Type};
use datafusion::common::{Result as DfResult, ScalarValue, exec_err, plan_err};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::format_state_name;
use datafusion::logical_expr::{Accumulator, AggregateUDF, AggregateUDFImpl, Signature, Volatility};
use std::sync::{Arc, LazyLock};

/// `single_value(x)`, for sessions: the value of the only row, NULL where there is no row, and an error where there
/// are several, whatever their values.
pub(crate) fn single_value() -> Arc<AggregateUDF> {
    static FUNCTION: LazyLock<Arc<AggregateUDF>> = LazyLock::new(|| {
        let signature = Signature::any(1, Volatility::Immutable);
        Arc::new(AggregateUDF::from(SingleValue { signature }))
    });
    FUNCTION.clone()
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct SingleValue {
    signature: Signature,
}

impl AggregateUDFImpl for SingleValue {
    fn name(&self) -> &str {
        "single_value"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> DfResult<DataType> {
        match arguments {
            [argument] => Ok(argument.clone()),
            _ => plan_err!("single_value takes one argument"),
        }
    }

    fn return_field(&self, arguments: &[FieldRef]) -> DfResult<FieldRef> {
        let [argument] = arguments else { return plan_err!("single_value takes one argument") };
        let field = Field::new(self.name(), argument.data_type().clone(), true);
        Ok(Arc::new(field.with_metadata(argument.metadata().clone())))
    }

    fn state_fields(&self, args: StateFieldsArgs) -> DfResult<Vec<FieldRef>> {
        let value = args.return_field.as_ref().clone();
        Ok(vec![
            Arc::new(value.with_name(format_state_name(args.name, "value")).with_nullable(true)),
            Arc::new(Field::new(format_state_name(args.name, "rows"), DataType::UInt64, false)),
        ])
    }

    fn accumulator(&self, args: AccumulatorArgs) -> DfResult<Box<dyn Accumulator>> {
        let value = ScalarValue::try_from(args.return_field.data_type())?;
        Ok(Box::new(Single { value, rows: 0 }))
    }
}

#[derive(Debug)]
struct Single {
    /// NULL as long as there is no row.
    value: ScalarValue,
    rows: u64,
}

impl Single {
    /// Some more rows, of which one has its value at `place`.
    fn add(&mut self, rows: u64, values: &ArrayRef, place: usize) -> DfResult<()> {
        self.rows = self.rows.saturating_add(rows);
        if self.rows > 1 {
            // As DataFusion says it of a subquery that runs beside the plan.
            return exec_err!("Scalar subquery returned more than one row");
        }
        self.value = ScalarValue::try_from_array(values, place)?;
        self.value.compact();
        Ok(())
    }
}

impl Accumulator for Single {
    fn update_batch(&mut self, values: &[ArrayRef]) -> DfResult<()> {
        match values {
            [values] if !values.is_empty() => self.add(values.len() as u64, values, 0),
            _ => Ok(()),
        }
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> DfResult<()> {
        let [values, rows] = states else { return exec_err!("single_value has two states") };
        for (place, rows) in rows.as_primitive::<UInt64Type>().values().iter().enumerate() {
            if *rows > 0 {
                self.add(*rows, values, place)?;
            }
        }
        Ok(())
    }

    fn state(&mut self) -> DfResult<Vec<ScalarValue>> {
        Ok(vec![self.value.clone(), ScalarValue::from(self.rows)])
    }

    fn evaluate(&mut self) -> DfResult<ScalarValue> {
        Ok(self.value.clone())
    }

    fn size(&self) -> usize {
        size_of_val(self) - size_of_val(&self.value) + self.value.size()
    }
}
