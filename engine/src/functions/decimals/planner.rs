//! Which operators of a statement are ours.

use super::digits::Digits;
use super::function::Operation;
use arrow::datatypes::DataType;
use datafusion::common::{DFSchema, Result as DfResult};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::{Cast, Expr, ExprSchemable, ScalarUDF};
use datafusion::sql::sqlparser::ast::BinaryOperator;
use std::sync::Arc;

/// Is asked about every operator before DataFusion plans it.
#[derive(Debug)]
pub(crate) struct ExactNumbers {
    divide: Arc<ScalarUDF>,
    multiply: Arc<ScalarUDF>,
}

impl Default for ExactNumbers {
    fn default() -> Self {
        Self { divide: Operation::Divide.function(), multiply: Operation::Multiply.function() }
    }
}

impl ExprPlanner for ExactNumbers {
    /// Leaves to DataFusion what has no type yet, such as a parameter, or a wrong one, which it names.
    fn plan_binary_op(
        &self,
        expr: RawBinaryExpr,
        schema: &DFSchema,
    ) -> DfResult<PlannerResult<RawBinaryExpr>> {
        let function = match expr.op {
            BinaryOperator::Divide => &self.divide,
            BinaryOperator::Multiply => &self.multiply,
            _ => return Ok(PlannerResult::Original(expr)),
        };
        let (Some(left), Some(right)) = (Operand::of(&expr.left, schema), Operand::of(&expr.right, schema))
        else {
            return Ok(PlannerResult::Original(expr));
        };
        let is_plain_product =
            matches!(expr.op, BinaryOperator::Multiply) && !left.digits.crowds(right.digits);
        if !(left.is_decimal || right.is_decimal) || is_plain_product {
            return Ok(PlannerResult::Original(expr));
        }
        let arguments = vec![left.spelled(expr.left), right.spelled(expr.right)];
        let call = ScalarFunction::new_udf(function.clone(), arguments);
        Ok(PlannerResult::Planned(Expr::ScalarFunction(call)))
    }
}

/// An exact number.
struct Operand {
    digits: Digits,
    is_decimal: bool,
    is_literal: bool,
}

impl Operand {
    fn of(expr: &Expr, schema: &DFSchema) -> Option<Self> {
        if let Some(digits) = Digits::of_literal(expr) {
            return Some(Self { digits, is_decimal: false, is_literal: true });
        }
        let data_type = expr.get_type(schema).ok()?;
        let is_decimal = matches!(data_type, DataType::Decimal128(..));
        Some(Self { digits: Digits::of(&data_type)?, is_decimal, is_literal: false })
    }

    /// A literal with its own digits. A cast does not show in the name of a column, another literal would. Other
    /// integers are cast when their types are settled.
    fn spelled(&self, expr: Expr) -> Expr {
        match self.is_literal {
            true => Expr::Cast(Cast::new(Box::new(expr), self.digits.data_type())),
            false => expr,
        }
    }
}
