//! What a table may demand of its readers and writers. Anything else is refused by name: a feature that is
//! overlooked gives wrong rows.

use super::widening;
use arrow::datatypes::{Field, Schema};
use deltalake_core::kernel::EagerSnapshot;
use std::collections::BTreeMap;
use std::sync::Arc;
use tidemill_core::{Code, Error, Result};

/// Features without any effect on how the data files of an appending writer or a reader look, and those that
/// are looked at one by one below.
const READABLE: &[&str] = &[
    "columnMapping",
    "deletionVectors",
    "timestampNtz",
    "typeWidening",
    "v2Checkpoint",
    "vacuumProtocolCheck",
];

const WRITABLE: &[&str] = &[
    "appendOnly",
    "changeDataFeed",
    "checkConstraints",
    "columnMapping",
    "deletionVectors",
    "generatedColumns",
    "invariants",
    "timestampNtz",
    "typeWidening",
    "v2Checkpoint",
    "vacuumProtocolCheck",
];

/// Features of [`WRITABLE`] that delta-rs does not know.
pub(super) const VOUCHED: &[&str] = &[widening::FEATURE];

/// Table properties that would need of every writer more than writing files and adding them.
const REFUSED_PROPERTIES: &[(&str, &str)] = &[
    ("delta.setTransactionRetentionDuration", "forgetting transactions, on which exactly-once rests"),
    ("delta.enableRowTracking", "row tracking"),
    ("delta.enableInCommitTimestamps", "in-commit timestamps"),
    ("delta.enableIcebergCompat", "Iceberg compatibility"),
];

/// Marks in a field's metadata of what a writer has to compute, and we do not.
const REFUSED_FIELDS: &[(&str, &str)] = &[("delta.identity.", "an identity column")];

pub(super) const GENERATED: &str = "delta.generationExpression";

const COLUMN_MAPPING: &str = "delta.columnMapping.mode";

/// Fails with `Code::Unsupported` where a scan of the data files would give wrong rows.
pub(super) fn demand_readable(snapshot: &EagerSnapshot) -> Result<()> {
    let protocol = snapshot.protocol();
    refuse_unknown(protocol.reader_features().unwrap_or_default(), READABLE, "read")
}

/// Fails with `Code::Unsupported` where appending files needs more than we do.
pub(super) fn demand_writable(snapshot: &EagerSnapshot, schema: &Schema) -> Result<()> {
    demand_readable(snapshot)?;
    refuse_unknown(snapshot.protocol().writer_features().unwrap_or_default(), WRITABLE, "write")?;
    let configuration = snapshot.metadata().configuration();
    refuse_properties(configuration.iter().map(|(key, value)| (key.as_str(), value.as_str())))?;
    for field in schema.fields() {
        let marks = || field.metadata().keys();
        for (mark, name) in REFUSED_FIELDS {
            if marks().any(|key| key.starts_with(mark)) {
                return Err(unsupported("write", &format!("{name} (`{}`)", field.name())));
            }
        }
    }
    Ok(())
}

/// Columns that are computed from others, with their expressions as SQL text.
pub(super) fn generated_columns(schema: &Schema) -> BTreeMap<String, String> {
    let generated = |field: &Arc<Field>| {
        let expression = field.metadata().get(GENERATED)?;
        // Some writers keep the text as a JSON string.
        let text = serde_json::from_str::<String>(expression).unwrap_or_else(|_| expression.clone());
        Some((field.name().clone(), text))
    };
    schema.fields().iter().filter_map(generated).collect()
}

/// The same for a table that is to be created.
pub(super) fn refuse_properties<'a>(properties: impl Iterator<Item = (&'a str, &'a str)>) -> Result<()> {
    for (key, value) in properties {
        if key == COLUMN_MAPPING && value != "none" {
            return Err(unsupported("write", "column mapping"));
        }
        for (prefix, name) in REFUSED_PROPERTIES {
            if key.starts_with(prefix) && value != "false" {
                return Err(unsupported("write", &format!("{name} (`{key}`)")));
            }
        }
    }
    Ok(())
}

fn refuse_unknown<F: std::fmt::Display>(demanded: &[F], known: &[&str], verb: &str) -> Result<()> {
    let unknown: Vec<String> =
        demanded.iter().map(ToString::to_string).filter(|name| !known.contains(&name.as_str())).collect();
    if unknown.is_empty() { Ok(()) } else { Err(unsupported(verb, &unknown.join(", "))) }
}

pub(super) fn unsupported(verb: &str, what: &str) -> Error {
    Error::new(Code::Unsupported, format!("cannot {verb} a Delta table with {what}"))
        .hint(format!("supported are: {}", if verb == "read" { READABLE } else { WRITABLE }.join(", ")))
}
