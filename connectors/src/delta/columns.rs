//! The columns of a table, by the names that queries use and by those that its files use.
//!
//! With column mapping a column keeps the name in the files, its physical name, when it is renamed. Statistics
//! and partition values in the log go by physical names too. The ids of the mode `id` are in the files as well,
//! but whoever writes them writes the physical names beside, so names are enough in both modes.

use super::table::Loaded;
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef};
use datafusion::datasource::file_format::parquet::transform_schema_to_view;
use std::sync::Arc;
use tidemill_core::Result;

const MODE: &str = "delta.columnMapping.mode";
const PHYSICAL_NAME: &str = "delta.columnMapping.physicalName";

#[derive(Clone, Debug)]
pub(super) struct Columns {
    /// In the table's own order, by logical names.
    pub(super) schema: SchemaRef,
    /// The same by physical names.
    pub(super) physical: SchemaRef,
    /// Places of the columns that are in the files.
    pub(super) in_files: Vec<usize>,
    /// Places of the partition columns, in their order in the log.
    pub(super) partitions: Vec<usize>,
}

impl Columns {
    pub(super) fn of(loaded: &Loaded) -> Result<Self> {
        let schema = loaded.schema();
        let names = schema.fields().iter().map(|field| plain(field, &|field: &Field| field.name().clone()));
        let logical = Schema::new(names.collect::<Vec<_>>());
        let mode = loaded.snapshot().metadata().configuration().get(MODE);
        let physical = match mode.is_some_and(|mode| mode != "none") {
            true => {
                let names = schema.fields().iter().map(|field| plain(field, &physical_name));
                Schema::new(names.collect::<Vec<_>>())
            }
            false => logical.clone(),
        };
        let partition_columns = loaded.partition_columns();
        let partitions =
            partition_columns.iter().map(|name| Ok(logical.index_of(name)?)).collect::<Result<Vec<_>>>()?;
        let in_files = (0..logical.fields().len()).filter(|place| !partitions.contains(place)).collect();
        Ok(Self { schema: query_schema(&logical), physical: query_schema(&physical), in_files, partitions })
    }

    /// Whether the files use other names than queries.
    pub(super) fn are_mapped(&self) -> bool {
        self.schema != self.physical
    }

    /// Name in the files and field, for each column in the files.
    pub(super) fn file_columns(&self) -> impl Iterator<Item = (&str, &FieldRef)> {
        let field =
            move |place: &usize| (self.physical.field(*place).name().as_str(), &self.schema.fields()[*place]);
        self.in_files.iter().map(field)
    }

    /// By physical names.
    pub(super) fn file_schema(&self) -> SchemaRef {
        pick(&self.physical, &self.in_files)
    }

    /// By physical names, in the log's order.
    pub(super) fn partition_fields(&self) -> Vec<FieldRef> {
        self.partitions.iter().map(|place| self.physical.fields()[*place].clone()).collect()
    }

    /// By logical names, in the log's order.
    pub(super) fn partition_schema(&self) -> SchemaRef {
        pick(&self.schema, &self.partitions)
    }

    /// For each column of the table its place in a scan: columns of the files, then partition columns.
    pub(super) fn places_in_scan(&self) -> Vec<usize> {
        let mut places = vec![0; self.schema.fields().len()];
        for (in_scan, place) in self.in_files.iter().chain(&self.partitions).enumerate() {
            places[*place] = in_scan;
        }
        places
    }
}

fn pick(schema: &Schema, places: &[usize]) -> SchemaRef {
    Arc::new(Schema::new(places.iter().map(|place| schema.fields()[*place].clone()).collect::<Vec<_>>()))
}

/// The columns as DataFusion reads Parquet: text and bytes as views.
fn query_schema(schema: &Schema) -> SchemaRef {
    Arc::new(transform_schema_to_view(schema))
}

fn physical_name(field: &Field) -> String {
    field.metadata().get(PHYSICAL_NAME).unwrap_or(field.name()).clone()
}

/// A field without Delta's marks in its metadata, which would make equal types differ, and with other names.
fn plain(field: &Field, name: &dyn Fn(&Field) -> String) -> Field {
    let part = |field: &FieldRef| Arc::new(plain(field, name));
    let data_type = match field.data_type() {
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(part).collect::<Fields>()),
        DataType::List(item) => DataType::List(part(item)),
        DataType::Map(entries, sorted) => DataType::Map(part(entries), *sorted),
        other => other.clone(),
    };
    Field::new(name(field), data_type, field.is_nullable())
}
