//! DESCRIBE, and the statement that makes a table again.

use super::SqlFrontend;
use super::answers::text;
use super::api::Answer;
use super::session::Session;
use datafusion::catalog::TableProvider;
use std::collections::BTreeMap;
use std::sync::Arc;
use tidemill_core::{Code, Error, Result, store};
use tidemill_engine::TableNotes;
use tidemill_sql::TableName;
use tidemill_sql::dialect::{quote, sql_type};
use tidemill_sql::statement::{Describe, TableDef, TableFormat};
use url::Url;

/// The columns of what DESCRIBE answers.
pub(super) const COLUMNS: [&str; 4] = ["column_name", "data_type", "is_nullable", "comment"];
/// The columns of what SHOW TBLPROPERTIES answers.
pub(super) const PROPERTIES: [&str; 2] = ["key", "value"];
/// The column of what SHOW CREATE answers.
pub(super) const CREATED: &str = "create_statement";

impl SqlFrontend {
    pub(super) async fn describe_table(&self, session: &Session, describe: &Describe) -> Result<Answer> {
        let name = &describe.table;
        let provider = self.opened(session, name).await?;
        let notes = self.notes(session, name).await?;
        let mut rows: Vec<[String; 4]> = Vec::new();
        for field in provider.schema().fields() {
            let nullable = if field.is_nullable() { "YES" } else { "NO" };
            let comment = notes.column_comments.get(field.name()).cloned().unwrap_or_default();
            rows.push([field.name().clone(), sql_type(field.data_type()), nullable.to_owned(), comment]);
        }
        if describe.extended {
            for (key, value) in self.details(session, name, &notes)? {
                rows.push([format!("# {key}"), value, String::new(), String::new()]);
            }
        }
        text(COLUMNS, &rows)
    }

    pub(super) async fn show_create(&self, session: &Session, name: &TableName) -> Result<Answer> {
        if let Some(view) = session.catalog().unwrap_or(&self.catalog).view(name) {
            return text([CREATED], &[[with_comments(view.to_sql(), "VIEW", name, &view_notes(&view))]]);
        }
        if let Some(pipeline) = self.operator.pipeline_of(name) {
            return Err(Error::new(Code::Unsupported, format!("`{name}` is a streaming table"))
                .hint(format!("EXPLAIN shows how {pipeline} runs; its statement is not kept as text")));
        }
        let provider = self.opened(session, name).await?;
        let statement = match self.catalog.table(name) {
            Some(table) if table.format != TableFormat::Delta => external(&table),
            table => {
                let notes = self.notes(session, name).await?;
                let default = self.catalog.default_location(name)?;
                let location = match table {
                    Some(table) => store::location(&table.location)?,
                    None => default.clone(),
                };
                let made = delta(name, &provider, &notes, (location != default).then_some(&location));
                with_comments(with_rules(made, name, &notes), "TABLE", name, &notes)
            }
        };
        text([CREATED], &[[statement]])
    }

    /// Without a key all of them. Only tables whose format has a place for properties have any.
    pub(super) async fn show_properties(
        &self,
        session: &Session,
        name: &TableName,
        key: Option<&str>,
    ) -> Result<Answer> {
        self.opened(session, name).await?;
        let properties = self.notes(session, name).await?.properties;
        let wanted = properties.into_iter().filter(|(name, _)| key.is_none_or(|key| name == key));
        let rows: Vec<[String; 2]> = wanted.map(|(key, value)| [key, value]).collect();
        text(PROPERTIES, &rows)
    }

    async fn opened(&self, session: &Session, name: &TableName) -> Result<Arc<dyn TableProvider>> {
        if let Some(provider) = session.catalog().unwrap_or(&self.catalog).open(name).await? {
            return Ok(provider);
        }
        // System tables are opened by their schema.
        let schema = session.state.catalog_list().catalog(tidemill_sql::CATALOG);
        let schema = schema.and_then(|catalog| catalog.schema(&name.schema));
        let found = match schema {
            Some(schema) => schema.table(&name.name).await.map_err(tidemill_engine::from_datafusion)?,
            None => None,
        };
        found.ok_or_else(|| self.no_table(name))
    }

    /// Comments and partitions; none where the table's format has no place for them.
    async fn notes(&self, session: &Session, name: &TableName) -> Result<TableNotes> {
        if let Some(view) = session.catalog().unwrap_or(&self.catalog).view(name) {
            return Ok(view_notes(&view));
        }
        match self.definer.delta_location(name).await? {
            Some(location) => self.definer.lake.notes(&location).await,
            None => Ok(TableNotes::default()),
        }
    }

    fn details(
        &self,
        session: &Session,
        name: &TableName,
        notes: &TableNotes,
    ) -> Result<Vec<(&'static str, String)>> {
        let mut details = vec![("name", name.to_string())];
        if let Some(view) = session.catalog().unwrap_or(&self.catalog).view(name) {
            let kind = if session.has_temporary_view(name) { "temporary view" } else { "view" };
            details.push(("kind", kind.to_owned()));
            details.push(("query", view.query));
        } else if let Some(table) = self.catalog.table(name) {
            let streaming = self.operator.pipeline_of(name).is_some();
            let kind = match (streaming, table.external) {
                (true, _) => "streaming table",
                (_, true) => "external table",
                _ => "table",
            };
            details.push(("kind", kind.to_owned()));
            details.push(("format", format_name(table.format).to_owned()));
            details.push(("location", table.location.clone()));
            let partitions = table.partition_by.fields().iter().map(|field| field.name().clone());
            let partitions: Vec<String> = partitions.chain(notes.partition_by.iter().cloned()).collect();
            if !partitions.is_empty() {
                details.push(("partitioned by", partitions.join(", ")));
            }
        } else if name.schema != tidemill_sql::SYSTEM_SCHEMA {
            details.push(("kind", "table without a definition, found under the lake's root".to_owned()));
            details.push(("location", self.catalog.default_location(name)?.to_string()));
        } else {
            details.push(("kind", "system table".to_owned()));
        }
        details.extend(notes.comment.clone().map(|comment| ("comment", comment)));
        let generated = notes.generated.iter();
        details.extend(generated.map(|(column, text)| ("generated", format!("{column} AS ({text})"))));
        let constraints = notes.constraints.iter();
        details.extend(constraints.map(|(name, text)| ("constraint", format!("{name} CHECK ({text})"))));
        if !notes.properties.is_empty() {
            details.push(("properties", properties(notes)));
        }
        Ok(details)
    }
}

fn view_notes(view: &tidemill_sql::statement::ViewDef) -> TableNotes {
    TableNotes {
        comment: view.comment.clone(),
        column_comments: view.column_comments.clone(),
        ..TableNotes::default()
    }
}

fn format_name(format: TableFormat) -> &'static str {
    match format {
        TableFormat::Delta => "DELTA",
        TableFormat::Parquet => "PARQUET",
        TableFormat::Csv => "CSV",
        TableFormat::Json => "JSON",
    }
}

/// `generated`: expressions by column.
fn columns(schema: &arrow::datatypes::Schema, generated: &BTreeMap<String, String>) -> String {
    let column = |field: &arrow::datatypes::FieldRef| {
        let not_null = if field.is_nullable() { "" } else { " NOT NULL" };
        let generated = generated.get(field.name());
        let generated = generated.map(|text| format!(" GENERATED ALWAYS AS ({text})")).unwrap_or_default();
        format!("  {} {}{not_null}{generated}", quote(field.name()), sql_type(field.data_type()))
    };
    let columns: Vec<String> = schema.fields().iter().map(column).collect();
    format!("(\n{}\n)", columns.join(",\n"))
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

fn delta(
    name: &TableName,
    provider: &Arc<dyn TableProvider>,
    notes: &TableNotes,
    location: Option<&Url>,
) -> String {
    let mut sql = format!("CREATE TABLE {} {}", name.to_sql(), columns(&provider.schema(), &notes.generated));
    if !notes.partition_by.is_empty() {
        let partitions: Vec<String> = notes.partition_by.iter().map(|column| quote(column)).collect();
        sql.push_str(&format!("\nPARTITIONED BY ({})", partitions.join(", ")));
    }
    if let Some(location) = location {
        sql.push_str(&format!("\nWITH (location = {})", literal(location.as_str())));
    }
    sql
}

fn external(table: &TableDef) -> String {
    let mut sql = format!("CREATE EXTERNAL TABLE {}", table.name.to_sql());
    if let Some(schema) = &table.schema {
        sql.push_str(&format!(" {}", columns(schema, &BTreeMap::new())));
    }
    sql.push_str(&format!("\nSTORED AS {}", format_name(table.format)));
    if !table.partition_by.fields().is_empty() {
        let column = |field: &arrow::datatypes::FieldRef| {
            format!("{} {}", quote(field.name()), sql_type(field.data_type()))
        };
        let partitions: Vec<String> = table.partition_by.fields().iter().map(column).collect();
        sql.push_str(&format!("\nPARTITIONED BY ({})", partitions.join(", ")));
    }
    sql.push_str(&format!("\nLOCATION {}", literal(&table.location)));
    if !table.options.is_empty() {
        let option = |(key, value): (&String, &String)| format!("{} {}", literal(key), literal(value));
        let options: Vec<String> = table.options.iter().map(option).collect();
        sql.push_str(&format!("\nOPTIONS ({})", options.join(", ")));
    }
    sql
}

/// `'key' = 'value', …`
fn properties(notes: &TableNotes) -> String {
    let properties = notes.properties.iter();
    let properties: Vec<String> =
        properties.map(|(key, value)| format!("{} = {}", literal(key), literal(value))).collect();
    properties.join(", ")
}

/// Constraints and properties are statements of their own behind the first.
fn with_rules(made: String, name: &TableName, notes: &TableNotes) -> String {
    let alter = format!("ALTER TABLE {}", name.to_sql());
    let constraints = notes.constraints.iter();
    let constraints = constraints
        .map(|(constraint, text)| format!("{alter} ADD CONSTRAINT {} CHECK ({text})", quote(constraint)));
    let properties =
        (!notes.properties.is_empty()).then(|| format!("{alter} SET TBLPROPERTIES ({})", properties(notes)));
    std::iter::once(made).chain(constraints).chain(properties).collect::<Vec<_>>().join(";\n")
}

/// Comments are statements of their own behind the first.
fn with_comments(made: String, kind: &str, name: &TableName, notes: &TableNotes) -> String {
    let name = name.to_sql();
    let own = notes.comment.iter().map(|text| format!("COMMENT ON {kind} {name} IS {}", literal(text)));
    let columns = notes.column_comments.iter();
    let columns = columns
        .map(|(column, text)| format!("COMMENT ON COLUMN {name}.{} IS {}", quote(column), literal(text)));
    std::iter::once(made).chain(own).chain(columns).collect::<Vec<_>>().join(";\n")
}
