//! The groups of a task.

use super::Taken;
use crate::functions::IdSets;
use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, RecordBatch, StringViewArray, StringViewBuilder, UInt8Array,
};
use arrow::datatypes::{DataType, SchemaRef, UInt8Type};
use datafusion::common::Result as DfResult;
use datafusion::execution::memory_pool::MemoryReservation;
use datafusion::logical_expr::{EmitTo, GroupsAccumulator};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::aggregates::AggregateExec;
use datafusion::physical_plan::aggregates::group_values::{GroupValues, new_group_values};
use datafusion::physical_plan::aggregates::order::GroupOrdering;
use std::collections::HashMap;
use std::sync::Arc;

/// Groups that are handed on when there are so many; the final aggregation puts them together.
const MOST_GROUPS: usize = 1 << 16;
/// About what a text and its place in the table of groups take.
const BYTES_OF_PLACE: usize = 64;

struct Function {
    arguments: Vec<Arc<dyn PhysicalExpr>>,
    groups: Box<dyn GroupsAccumulator>,
}

pub(super) struct Groups {
    schema: SchemaRef,
    keys: Keys,
    functions: Vec<Function>,
    /// The group of each row of a batch.
    rows: Vec<usize>,
    memory: MemoryReservation,
}

/// What tells groups apart.
enum Keys {
    Text(Texts),
    Values { by: Vec<Arc<dyn PhysicalExpr>>, values: Box<dyn GroupValues> },
}

impl Groups {
    pub(super) fn new(aggregate: &AggregateExec, taken: &Taken, memory: MemoryReservation) -> DfResult<Self> {
        let functions = aggregate.aggr_expr().iter().enumerate().map(|(place, function)| {
            let groups: Box<dyn GroupsAccumulator> = match taken {
                Taken::Distinct { function, dictionary, stays } if *function == place => {
                    Box::new(IdSets::new(Arc::clone(dictionary), *stays))
                }
                _ => function.create_groups_accumulator()?,
            };
            Ok(Function { arguments: function.expressions(), groups })
        });
        let functions = functions.collect::<DfResult<_>>()?;
        let keys = match taken {
            Taken::Groups { by } => Keys::Text(Texts { by: *by, places: HashMap::new(), known: None }),
            Taken::Distinct { .. } => {
                let groups = aggregate.group_expr();
                let schema = groups.group_schema(&aggregate.input_schema())?;
                let by = groups.expr().iter().map(|(by, _)| Arc::clone(by)).collect();
                Keys::Values { by, values: new_group_values(schema, &GroupOrdering::None)? }
            }
        };
        Ok(Self { schema: aggregate.schema(), keys, functions, rows: Vec::new(), memory })
    }

    pub(super) fn count(&mut self, batch: &RecordBatch) -> DfResult<()> {
        match &mut self.keys {
            Keys::Text(texts) => texts.find(batch.column(texts.by), &mut self.rows),
            Keys::Values { by, values } => values.intern(&evaluated(by, batch)?, &mut self.rows)?,
        }
        let groups = self.keys.len();
        for function in &mut self.functions {
            let arguments = evaluated(&function.arguments, batch)?;
            function.groups.update_batch(&arguments, &self.rows, None::<&BooleanArray>, groups)?;
        }
        Ok(())
    }

    /// Whether the groups have to be handed on before the input has ended: for their number, or for memory.
    pub(super) fn must_go(&mut self) -> DfResult<bool> {
        let groups = self.keys.len();
        let size =
            self.functions.iter().map(|function| function.groups.size()).sum::<usize>() + self.keys.size();
        match self.memory.try_resize(size) {
            Ok(()) => Ok(groups >= MOST_GROUPS),
            Err(error) if groups <= 1 => Err(error),
            Err(_) => Ok(true),
        }
    }

    pub(super) fn emit(&mut self) -> DfResult<RecordBatch> {
        let mut columns = self.keys.emit()?;
        for function in &mut self.functions {
            columns.extend(function.groups.state(EmitTo::All)?);
        }
        self.memory.free();
        Ok(RecordBatch::try_new(Arc::clone(&self.schema), columns)?)
    }
}

fn evaluated(expressions: &[Arc<dyn PhysicalExpr>], batch: &RecordBatch) -> DfResult<Vec<ArrayRef>> {
    let arrays = expressions.iter();
    arrays.map(|expression| expression.evaluate(batch)?.into_array(batch.num_rows())).collect()
}

impl Keys {
    fn len(&self) -> usize {
        match self {
            Keys::Text(texts) => texts.places.len(),
            Keys::Values { values, .. } => values.len(),
        }
    }

    fn size(&self) -> usize {
        match self {
            Keys::Text(texts) => texts.places.len() * BYTES_OF_PLACE,
            Keys::Values { values, .. } => values.size(),
        }
    }

    fn emit(&mut self) -> DfResult<Vec<ArrayRef>> {
        match self {
            Keys::Text(texts) => Ok(vec![texts.emit()]),
            Keys::Values { values, .. } => values.emit(EmitTo::All),
        }
    }
}

struct Texts {
    /// The column.
    by: usize,
    /// The group of each text, and of NULL.
    places: HashMap<Option<Box<str>>, usize>,
    /// The dictionary of the batch before, and the group of each of its texts.
    known: Option<(ArrayRef, Vec<usize>)>,
}

impl Texts {
    fn find(&mut self, texts: &ArrayRef, rows: &mut Vec<usize>) {
        rows.clear();
        if *texts.data_type() == DataType::Utf8View {
            rows.extend(texts.as_string_view().iter().map(|text| place(&mut self.places, text)));
            return;
        }
        let dictionary = texts.as_dictionary::<UInt8Type>();
        let values = dictionary.values();
        let same = self.known.as_ref().is_some_and(|(before, _)| Arc::ptr_eq(before, values));
        if !same {
            let texts: &StringViewArray = values.as_string_view();
            let places = texts.iter().map(|text| place(&mut self.places, text)).collect();
            self.known = Some((Arc::clone(values), places));
        }
        let Some((_, known)) = &self.known else { return };
        let codes: &UInt8Array = dictionary.keys();
        match codes.nulls().filter(|nulls| nulls.null_count() > 0) {
            None => rows.extend(codes.values().iter().map(|code| known[usize::from(*code)])),
            Some(_) => {
                let null = place(&mut self.places, None);
                rows.extend(codes.iter().map(|code| code.map_or(null, |code| known[usize::from(code)])));
            }
        }
    }

    fn emit(&mut self) -> ArrayRef {
        let mut texts: Vec<(Option<Box<str>>, usize)> = self.places.drain().collect();
        texts.sort_unstable_by_key(|(_, place)| *place);
        let mut names = StringViewBuilder::with_capacity(texts.len());
        texts.iter().for_each(|(text, _)| names.append_option(text.as_ref()));
        self.known = None;
        Arc::new(names.finish())
    }
}

fn place(places: &mut HashMap<Option<Box<str>>, usize>, text: Option<&str>) -> usize {
    let next = places.len();
    *places.entry(text.map(Box::from)).or_insert(next)
}
