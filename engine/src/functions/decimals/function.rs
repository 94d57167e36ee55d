//! The operators as functions, which travel by name.

use super::arithmetic::{products, quotients};
use super::digits::Digits;
use arrow::array::{Array, ArrayRef};
use arrow::compute::kernels::numeric;
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::cast::as_decimal128_array;
use datafusion::common::{Result as DfResult, exec_err, plan_err};
use datafusion::functions::utils::make_scalar_function;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use std::sync::Arc;

/// `decimal_divide` and `decimal_multiply`, for sessions.
pub(crate) fn functions() -> [Arc<ScalarUDF>; 2] {
    [Operation::Divide, Operation::Multiply].map(Operation::function)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Operation {
    Divide,
    Multiply,
}

impl Operation {
    pub(super) fn function(self) -> Arc<ScalarUDF> {
        let signature = Signature::user_defined(Volatility::Immutable);
        Arc::new(ScalarUDF::from(Exact { operation: self, signature }))
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Exact {
    operation: Operation,
    signature: Signature,
}

impl ScalarUDFImpl for Exact {
    fn name(&self) -> &str {
        match self.operation {
            Operation::Divide => "decimal_divide",
            Operation::Multiply => "decimal_multiply",
        }
    }

    /// That of the operator.
    fn schema_name(&self, arguments: &[Expr]) -> DfResult<String> {
        let [left, right] = arguments else { return plan_err!("{} takes two numbers", self.name()) };
        let sign = match self.operation {
            Operation::Divide => '/',
            Operation::Multiply => '*',
        };
        Ok(format!("{} {sign} {}", left.schema_name(), right.schema_name()))
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    /// Planned for exact numbers, it may find a double: only type coercion settles what a CASE or a UNION gives.
    fn coerce_types(&self, arguments: &[DataType]) -> DfResult<Vec<DataType>> {
        let [left, right] = arguments else { return plan_err!("{} takes two numbers", self.name()) };
        match (Digits::of(left), Digits::of(right)) {
            (Some(left), Some(right)) => Ok(vec![left.data_type(), right.data_type()]),
            _ if left.is_numeric() && right.is_numeric() => Ok(vec![DataType::Float64; 2]),
            _ => plan_err!("{} takes two numbers, not {left} and {right}", self.name()),
        }
    }

    fn return_type(&self, arguments: &[DataType]) -> DfResult<DataType> {
        let [left, right] = arguments else { return plan_err!("{} takes two numbers", self.name()) };
        match (Digits::of(left), Digits::of(right)) {
            (Some(left), Some(right)) => Ok(self.result(left, right).data_type()),
            _ => Ok(DataType::Float64),
        }
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> DfResult<FieldRef> {
        let types: Vec<DataType> = args.arg_fields.iter().map(|field| field.data_type().clone()).collect();
        let nullable = args.arg_fields.iter().any(|field| field.is_nullable());
        Ok(Arc::new(Field::new(self.name(), self.return_type(&types)?, nullable)))
    }

    fn is_strict(&self) -> bool {
        true
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        make_scalar_function(|arguments: &[ArrayRef]| self.calculate(arguments), vec![])(&args.args)
    }
}

impl Exact {
    fn result(&self, left: Digits, right: Digits) -> Digits {
        match self.operation {
            Operation::Divide => left.quotient(right),
            Operation::Multiply => left.product(right),
        }
    }

    fn calculate(&self, arguments: &[ArrayRef]) -> DfResult<ArrayRef> {
        let [left, right] = arguments else { return exec_err!("{} takes two numbers", self.name()) };
        let (Some(of_left), Some(of_right)) = (Digits::of(left.data_type()), Digits::of(right.data_type()))
        else {
            return Ok(match self.operation {
                Operation::Divide => numeric::div(left, right)?,
                Operation::Multiply => numeric::mul(left, right)?,
            });
        };
        let result = self.result(of_left, of_right);
        let (left, right) = (as_decimal128_array(left)?, as_decimal128_array(right)?);
        Ok(Arc::new(match self.operation {
            Operation::Divide => quotients(left, right, result)?,
            Operation::Multiply => products(left, right, result)?,
        }))
    }
}
