//! The demo's only way to the engine.

use crate::shell::{Access, Backend, Local, Remote};
use anyhow::{Context, Result, bail};
use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::{cast, concat_batches};
use arrow::datatypes::{ArrowPrimitiveType, DataType, Float64Type, Int64Type};
use futures::TryStreamExt;
use std::sync::Arc;
use tidemill_scheduler::frontend::api::Frontend;

pub(super) struct Sql(Arc<dyn Backend>);

impl Sql {
    pub(super) async fn local(frontend: Arc<dyn Frontend>) -> Result<Self> {
        Ok(Self(Arc::new(Local::open(frontend).await?)))
    }

    /// Over Flight SQL.
    pub(super) async fn remote(server: &str) -> Result<Self> {
        Ok(Self(Arc::new(Remote::connect(server, Access::default()).await?)))
    }

    /// To its end.
    pub(super) async fn run(&self, statement: &str) -> Result<()> {
        let mut running = self.0.execute(statement).await?;
        while running.rows.try_next().await?.is_some() {}
        Ok(())
    }

    pub(super) async fn rows(&self, query: &str) -> Result<Rows> {
        let running = self.0.execute(query).await?;
        let batches: Vec<RecordBatch> = running.rows.try_collect().await?;
        // The stream's own schema may know more about nulls than its batches.
        let schema = batches.first().map_or(running.schema, RecordBatch::schema);
        Ok(Rows(concat_batches(&schema, &batches)?))
    }

    /// The only value of a query, null as 0.
    pub(super) async fn number(&self, query: &str) -> Result<u64> {
        let rows = self.rows(query).await?;
        let Some(column) = rows.0.schema_ref().fields().first().map(|field| field.name().clone()) else {
            bail!("no column in the answer to {query}");
        };
        rows.count(0, &column)
    }
}

/// An answer held whole.
pub(super) struct Rows(RecordBatch);

impl Rows {
    #[cfg(test)]
    pub(super) fn new(batch: RecordBatch) -> Self {
        Self(batch)
    }

    pub(super) fn len(&self) -> usize {
        self.0.num_rows()
    }

    fn cell(&self, row: usize, column: &str, kind: &DataType) -> Result<Option<Arc<dyn Array>>> {
        let values = self.0.column_by_name(column).with_context(|| format!("no column `{column}`"))?;
        if row >= values.len() || values.is_null(row) {
            return Ok(None);
        }
        Ok(Some(cast(&values.slice(row, 1), kind)?))
    }

    fn primitive<T: ArrowPrimitiveType>(&self, row: usize, column: &str) -> Result<Option<T::Native>> {
        Ok(self.cell(row, column, &T::DATA_TYPE)?.map(|cell| cell.as_primitive::<T>().value(0)))
    }

    pub(super) fn int(&self, row: usize, column: &str) -> Result<Option<i64>> {
        self.primitive::<Int64Type>(row, column)
    }

    pub(super) fn float(&self, row: usize, column: &str) -> Result<Option<f64>> {
        self.primitive::<Float64Type>(row, column)
    }

    /// Null and no row as 0.
    ///
    /// # Errors
    /// For a number below 0.
    pub(super) fn count(&self, row: usize, column: &str) -> Result<u64> {
        let value = self.int(row, column)?.unwrap_or(0);
        u64::try_from(value).with_context(|| format!("`{column}` is {value}"))
    }

    pub(super) fn text(&self, row: usize, column: &str) -> Result<Option<String>> {
        let cell = self.cell(row, column, &DataType::Utf8)?;
        Ok(cell.map(|cell| cell.as_string::<i32>().value(0).to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, StringViewArray, UInt64Array};

    #[test]
    fn reads_numbers_and_text_of_any_width() {
        let number: ArrayRef = Arc::new(UInt64Array::from(vec![Some(7), None]));
        let text: ArrayRef = Arc::new(StringViewArray::from(vec!["a", "b"]));
        let rows = Rows::new(RecordBatch::try_from_iter([("n", number), ("t", text)]).unwrap());
        assert_eq!((rows.int(0, "n").unwrap(), rows.count(1, "n").unwrap()), (Some(7), 0));
        assert_eq!(rows.float(0, "n").unwrap(), Some(7.0));
        assert_eq!(rows.text(1, "t").unwrap().as_deref(), Some("b"));
        assert_eq!(rows.int(5, "n").unwrap(), None);
        assert!(rows.int(0, "m").is_err());
    }
}
