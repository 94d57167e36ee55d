//! Changes of a table's definition, as the log's `metaData` and `protocol` actions.
//!
//! Both are changed as the JSON that the log has, so that what we do not know of them stays as it is.

use super::comment::COMMENT;
use super::features;
use super::rules;
use super::schema;
use super::widening;
use arrow::datatypes::{DataType, Field, Schema};
use deltalake_core::kernel::engine::arrow_conversion::TryIntoKernel;
use deltalake_core::kernel::{Action, EagerSnapshot, StructType};
use serde_json::{Value, json};
use tidemill_core::{Code, Error, Result};
use tidemill_engine::{Alter, Change};

/// Before a constraint's name in the table's configuration.
pub(super) const CONSTRAINT: &str = "delta.constraints.";

/// From these versions of the protocol on, features go by name.
const READER_NAMES: u64 = 3;
const WRITER_NAMES: u64 = 7;

/// What writers know by their version, and since which. Identity columns, of version 6, are in no table that we change.
const IMPLIED: &[(&str, u64)] = &[
    ("appendOnly", 2),
    ("invariants", 2),
    ("checkConstraints", 3),
    ("changeDataFeed", 4),
    ("generatedColumns", 4),
    ("columnMapping", 5),
];

/// Properties of Delta that ask nothing of a writer that we do not do anyway.
const SETTABLE: &[&str] = &[
    "delta.appendOnly",
    "delta.autoOptimize.autoCompact",
    "delta.autoOptimize.optimizeWrite",
    "delta.checkpointInterval",
    "delta.checkpoint.writeStatsAsJson",
    "delta.checkpoint.writeStatsAsStruct",
    "delta.checkpointRetentionDuration",
    "delta.compatibility.symlinkFormatManifest.enabled",
    "delta.dataSkippingNumIndexedCols",
    "delta.dataSkippingStatsColumns",
    "delta.deletedFileRetentionDuration",
    "delta.enableChangeDataFeed",
    "delta.enableExpiredLogCleanup",
    widening::ENABLED,
    "delta.isolationLevel",
    "delta.logRetentionDuration",
    "delta.randomizeFilePrefixes",
    "delta.targetFileSize",
    "delta.tuneFileSizesForRewrites",
];

/// The actions of the change's alterations; none where it has none.
pub(super) fn actions(snapshot: &EagerSnapshot, change: &Change) -> Result<Vec<Action>> {
    if change.alter.is_empty() {
        return Ok(Vec::new());
    }
    let mut definition = Definition {
        metadata: serde_json::to_value(snapshot.metadata())?,
        protocol: serde_json::to_value(snapshot.protocol())?,
    };
    let before = definition.protocol.clone();
    for alter in &change.alter {
        if let Alter::AddConstraint { name, expression } = alter {
            rules::demand_evaluable(name, expression, &snapshot.arrow_schema())?;
        }
        if let Alter::SetType { column, .. } = alter {
            rules::refuse_read(snapshot, column)?;
        }
        definition.apply(alter)?;
    }
    definition.actions(&before)
}

/// What a table is, in the log's words.
#[derive(Debug)]
pub(super) struct Definition {
    pub(super) metadata: Value,
    pub(super) protocol: Value,
}

impl Definition {
    /// With the protocol only if it is not the one before.
    pub(super) fn actions(self, before: &Value) -> Result<Vec<Action>> {
        let mut actions = vec![Action::Metadata(serde_json::from_value(self.metadata)?)];
        if self.protocol != *before {
            actions.push(Action::Protocol(serde_json::from_value(self.protocol)?));
        }
        Ok(actions)
    }

    pub(super) fn apply(&mut self, alter: &Alter) -> Result<()> {
        match alter {
            Alter::AddColumns(columns) => self.add_columns(columns),
            Alter::SetProperties(properties) => {
                for (key, value) in properties {
                    check_property(key, value)?;
                    self.configuration().insert(key.clone(), json!(value));
                }
                self.demand_all()
            }
            Alter::UnsetProperties { keys, if_exists } => {
                for key in keys {
                    if key.starts_with(CONSTRAINT) {
                        return Err(Error::new(Code::Unsupported, format!("`{key}` is a constraint"))
                            .hint("ALTER TABLE … DROP CONSTRAINT"));
                    }
                    if self.configuration().remove(key).is_none() && !if_exists {
                        return Err(Error::new(Code::BadOption, format!("the property `{key}` is not set"))
                            .hint("UNSET TBLPROPERTIES IF EXISTS (…)"));
                    }
                }
                Ok(())
            }
            Alter::SetComment(comment) => {
                match comment {
                    Some(comment) => self.metadata["description"] = json!(comment),
                    None => self.metadata["description"] = Value::Null,
                }
                Ok(())
            }
            Alter::AddConstraint { name, expression } => {
                let key = format!("{CONSTRAINT}{}", name.to_lowercase());
                if self.configuration().contains_key(&key) {
                    return Err(Error::new(Code::AlreadyExists, format!("there is a constraint `{name}`"))
                        .hint("DROP CONSTRAINT it first, or choose another name"));
                }
                self.configuration().insert(key, json!(expression));
                self.demand_all()
            }
            Alter::DropConstraint { name, if_exists } => {
                let key = format!("{CONSTRAINT}{}", name.to_lowercase());
                if self.configuration().remove(&key).is_none() && !if_exists {
                    let known: Vec<String> = self
                        .configuration()
                        .keys()
                        .filter_map(|key| key.strip_prefix(CONSTRAINT))
                        .map(str::to_owned)
                        .collect();
                    return Err(Error::new(Code::UnknownObject, format!("no constraint `{name}`"))
                        .suggest(name, known.iter().map(String::as_str)));
                }
                Ok(())
            }
            Alter::SetNullable { column, nullable } => self.change_field(column, |field| {
                field["nullable"] = json!(nullable);
                Ok(())
            }),
            Alter::SetType { column, data_type } => self.set_type(column, data_type),
            Alter::SetColumnComment { column, comment } => self.note_field(column, COMMENT, comment),
        }
    }

    /// Sets an entry of a column's metadata.
    pub(super) fn note_field(&mut self, column: &str, key: &str, text: &str) -> Result<()> {
        self.change_field(column, |field| {
            field["metadata"][key] = json!(text);
            Ok(())
        })
    }

    fn change_field(&mut self, column: &str, change: impl FnOnce(&mut Value) -> Result<()>) -> Result<()> {
        let mut schema = self.schema()?;
        let fields = schema["fields"].as_array_mut().map(Vec::as_mut_slice).unwrap_or_default();
        let names: Vec<String> =
            fields.iter().filter_map(|field| field["name"].as_str()).map(str::to_owned).collect();
        let Some(field) = fields.iter_mut().find(|field| field["name"] == json!(column)) else {
            return Err(Error::new(Code::UnknownColumn, format!("no column `{column}`"))
                .suggest(column, names.iter().map(String::as_str)));
        };
        change(field)?;
        self.set_schema(&schema)
    }

    fn set_type(&mut self, column: &str, data_type: &DataType) -> Result<()> {
        if self.configuration().get(widening::ENABLED).is_none_or(|enabled| enabled != "true") {
            let message = format!("the type of column `{column}` can be changed only with type widening");
            return Err(Error::new(Code::Unsupported, message).hint(format!(
                "ALTER TABLE … SET TBLPROPERTIES ('{}' = 'true'), which readers of the table must know then; or CREATE \
                 TABLE another AS SELECT CAST(…), or a view that casts it",
                widening::ENABLED
            )));
        }
        let wanted = kernel_fields(&Schema::new(vec![Field::new(column, data_type.clone(), true)]))?;
        self.change_field(column, |field| widening::widen(field, &wanted[0]["type"]))
    }

    fn add_columns(&mut self, columns: &Schema) -> Result<()> {
        let mut schema = self.schema()?;
        let added = kernel_fields(columns)?;
        let Some(fields) = schema["fields"].as_array_mut() else {
            return Err(Error::new(Code::Corrupt, "the schema in the table's log has no fields"));
        };
        for mut field in added {
            let name = field["name"].as_str().unwrap_or_default().to_lowercase();
            let same =
                |there: &Value| there["name"].as_str().is_some_and(|there| there.to_lowercase() == name);
            if fields.iter().any(same) {
                return Err(Error::new(Code::AlreadyExists, format!("there is a column `{name}`")));
            }
            if field["nullable"] == json!(false) {
                return Err(Error::new(
                    Code::InvalidStatement,
                    format!("the new column `{name}` is NOT NULL"),
                )
                .hint("rows that are there have no value for it: add it without NOT NULL"));
            }
            field["nullable"] = json!(true);
            fields.push(field);
        }
        self.set_schema(&schema)
    }

    fn schema(&self) -> Result<Value> {
        let text = self.metadata["schemaString"].as_str().unwrap_or_default();
        serde_json::from_str(text)
            .map_err(|error| Error::new(Code::Corrupt, format!("the schema in the table's log: {error}")))
    }

    fn set_schema(&mut self, schema: &Value) -> Result<()> {
        self.metadata["schemaString"] = json!(serde_json::to_string(schema)?);
        Ok(())
    }

    fn configuration(&mut self) -> &mut serde_json::Map<String, Value> {
        let configuration = &mut self.metadata["configuration"];
        if !configuration.is_object() {
            *configuration = json!({});
        }
        match configuration {
            Value::Object(map) => map,
            _ => unreachable!("it was made an object"),
        }
    }

    /// Makes the protocol have what the definition needs of writers. It keeps what it has.
    pub(super) fn demand_all(&mut self) -> Result<()> {
        let schema = self.schema()?;
        let fields = schema["fields"].as_array().map(Vec::as_slice).unwrap_or_default();
        let generated = fields.iter().any(|field| field["metadata"].get(features::GENERATED).is_some());
        let configuration = self.configuration();
        let on = |key: &str| configuration.get(key).is_some_and(|value| value == "true");
        let needs = [
            (on("delta.appendOnly"), "appendOnly", 2),
            (configuration.keys().any(|key| key.starts_with(CONSTRAINT)), "checkConstraints", 3),
            (on("delta.enableChangeDataFeed"), "changeDataFeed", 4),
            (generated, "generatedColumns", 4),
        ];
        let widens = on(widening::ENABLED);
        for (_, feature, version) in needs.into_iter().filter(|(needed, ..)| *needed) {
            self.demand(feature, version);
        }
        if widens {
            self.demand_named(widening::FEATURE);
        }
        Ok(())
    }

    /// Makes the protocol have a feature that readers and writers have to know by its name. What they have known by
    /// their versions is named with it.
    fn demand_named(&mut self, feature: &str) {
        let version = |key: &str, least: u64| self.protocol[key].as_u64().unwrap_or(least);
        let (reader, writer) = (version("minReaderVersion", 1), version("minWriterVersion", 2));
        if writer < WRITER_NAMES {
            let known = IMPLIED.iter().filter(|(_, since)| *since <= writer).map(|(name, _)| *name);
            self.protocol["writerFeatures"] = json!(known.collect::<Vec<_>>());
            self.protocol["minWriterVersion"] = json!(WRITER_NAMES);
        }
        if reader < READER_NAMES {
            let known: &[&str] = if reader == 2 { &["columnMapping"] } else { &[] };
            self.protocol["readerFeatures"] = json!(known);
            self.protocol["minReaderVersion"] = json!(READER_NAMES);
        }
        for list in ["readerFeatures", "writerFeatures"] {
            self.name(list, feature);
        }
    }

    /// Makes the protocol have a writer feature, which writers of `version` and above know without its name.
    fn demand(&mut self, feature: &str, version: u64) {
        let writer = self.protocol["minWriterVersion"].as_u64().unwrap_or(2);
        if writer < WRITER_NAMES {
            self.protocol["minWriterVersion"] = json!(writer.max(version));
            return;
        }
        self.name("writerFeatures", feature);
    }

    fn name(&mut self, list: &str, feature: &str) {
        if !self.protocol[list].is_array() {
            self.protocol[list] = json!([]);
        }
        if let Some(features) = self.protocol[list].as_array_mut()
            && !features.contains(&json!(feature))
        {
            features.push(json!(feature));
        }
    }
}

/// Columns in the log's words.
fn kernel_fields(columns: &Schema) -> Result<Vec<Value>> {
    let columns = schema::lake_schema(columns)?;
    let kernel: StructType = (&columns).try_into_kernel()?;
    kernel.fields().map(|field| Ok(serde_json::to_value(field)?)).collect()
}

fn check_property(key: &str, value: &str) -> Result<()> {
    if key.starts_with(CONSTRAINT) {
        return Err(Error::new(Code::Unsupported, format!("`{key}` is a constraint"))
            .hint("ALTER TABLE … ADD CONSTRAINT name CHECK (…)"));
    }
    features::refuse_properties([(key, value)].into_iter())?;
    if key.starts_with("delta.") && !SETTABLE.contains(&key) {
        return Err(Error::new(Code::BadOption, format!("the property `{key}` cannot be set"))
            .suggest(key, SETTABLE.iter().copied()));
    }
    let wanted = match key {
        "delta.appendOnly"
        | "delta.enableChangeDataFeed"
        | "delta.enableExpiredLogCleanup"
        | widening::ENABLED => &["true", "false"][..],
        "delta.isolationLevel" => &["WriteSerializable", "Serializable"][..],
        _ => return Ok(()),
    };
    match wanted.contains(&value) {
        true => Ok(()),
        false => Err(Error::new(Code::BadOption, format!("`{key}` cannot be `{value}`"))
            .hint(format!("one of: {}", wanted.join(", ")))),
    }
}
