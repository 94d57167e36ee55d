//! The aggregate function, which travels by name.

use super::keys::{Key, Kind};
use super::sets::{OneSet, Sets};
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{Result as DfResult, ScalarValue, plan_err};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::format_state_name;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, GroupsAccumulator, Signature, Volatility,
};
use std::sync::{Arc, LazyLock};

/// `count_distinct(x)`, for sessions.
pub(crate) fn count_distinct() -> Arc<AggregateUDF> {
    static FUNCTION: LazyLock<Arc<AggregateUDF>> = LazyLock::new(|| {
        let signature = Signature::user_defined(Volatility::Immutable);
        Arc::new(AggregateUDF::from(CountDistinct { signature }))
    });
    FUNCTION.clone()
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct CountDistinct {
    signature: Signature,
}

impl AggregateUDFImpl for CountDistinct {
    fn name(&self) -> &str {
        "count_distinct"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arguments: &[DataType]) -> DfResult<Vec<DataType>> {
        match arguments {
            [argument] if Kind::of(argument).is_some() => Ok(vec![argument.clone()]),
            _ => plan_err!(
                "count_distinct takes a number, a date, a time or a text, not {arguments:?}; count(DISTINCT …) takes all"
            ),
        }
    }

    fn return_type(&self, _: &[DataType]) -> DfResult<DataType> {
        Ok(DataType::Int64)
    }

    fn is_nullable(&self) -> bool {
        false
    }

    fn default_value(&self, _: &DataType) -> DfResult<ScalarValue> {
        Ok(ScalarValue::Int64(Some(0)))
    }

    fn state_fields(&self, args: StateFieldsArgs) -> DfResult<Vec<FieldRef>> {
        let name = format_state_name(args.name, "set");
        Ok(vec![Arc::new(Field::new(name, DataType::BinaryView, false))])
    }

    fn accumulator(&self, args: AccumulatorArgs) -> DfResult<Box<dyn Accumulator>> {
        fn one<K: Key>() -> Box<dyn Accumulator> {
            Box::new(OneSet(Sets::<K>::default()))
        }
        Ok(match kind(&args)? {
            Kind::Four => one::<i32>(),
            Kind::Eight => one::<i64>(),
            Kind::Sixteen | Kind::Text => one::<i128>(),
        })
    }

    fn groups_accumulator_supported(&self, _: AccumulatorArgs) -> bool {
        true
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs) -> DfResult<Box<dyn GroupsAccumulator>> {
        Ok(match kind(&args)? {
            Kind::Four => Box::new(Sets::<i32>::default()),
            Kind::Eight => Box::new(Sets::<i64>::default()),
            Kind::Sixteen | Kind::Text => Box::new(Sets::<i128>::default()),
        })
    }
}

fn kind(args: &AccumulatorArgs) -> DfResult<Kind> {
    match args.expr_fields.first().and_then(|field| Kind::of(field.data_type())) {
        Some(kind) => Ok(kind),
        None => plan_err!("count_distinct cannot count {:?}", args.expr_fields),
    }
}
