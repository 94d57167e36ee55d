//! The target table: created, described, and compared with what a query gives.

use super::options::Settings;
use super::session::{Session, quoted};
use super::stage::Chunk;
use super::types::{accepts, column_type, takes_null, time_column};
use arrow::datatypes::Schema;
use tidemill_core::{Code, Error, Result};

/// Tokens that a created table remembers; also what replicated tables remember by default.
const WINDOW: u32 = 10_000;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Column {
    pub(super) name: String,
    pub(super) type_name: String,
    /// `DEFAULT`, `MATERIALIZED`, `ALIAS`, `EPHEMERAL`, or empty.
    pub(super) default_kind: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Table {
    pub(super) engine: String,
    /// Insert tokens that the table remembers.
    pub(super) window: u64,
    pub(super) columns: Vec<Column>,
}

/// The statement that creates a target for rows of `schema`.
pub(super) fn create_statement(settings: &Settings, schema: &Schema) -> Result<String> {
    let unfit: Vec<String> = schema
        .fields()
        .iter()
        .filter(|field| column_type(field).is_none())
        .map(|field| format!("`{}` is {}", field.name(), field.data_type()))
        .collect();
    if !unfit.is_empty() {
        let message = format!("ClickHouse has no type for these columns: {}", unfit.join("; "));
        return Err(Error::new(Code::TypeMismatch, message).hint("cast them in the query, e.g. to VARCHAR"));
    }
    let mut columns: Vec<String> = schema
        .fields()
        .iter()
        .filter_map(|field| Some(format!("{} {}", quoted(field.name()), column_type(field)?)))
        .collect();
    if let Some(run) = &settings.run_column {
        columns.push(format!("{} LowCardinality(String)", quoted(run)));
    }
    Ok(format!(
        "CREATE TABLE IF NOT EXISTS {}.{} ({}) ENGINE = MergeTree ORDER BY tuple() \
         SETTINGS non_replicated_deduplication_window = {WINDOW}",
        quoted(&settings.database),
        quoted(&settings.table),
        columns.join(", ")
    ))
}

impl Table {
    /// The table as ClickHouse describes it, or none when there is none.
    pub(super) async fn describe(session: &Session, name: &str) -> Result<Option<Self>> {
        let found: Vec<(String, String)> = session
            .rows(
                "SELECT engine, engine_full FROM system.tables \
                 WHERE database = currentDatabase() AND name = {name:String}",
                |query| query.param("name", name),
            )
            .await?;
        let Some((engine, engine_full)) = found.into_iter().next() else { return Ok(None) };
        let columns: Vec<(String, String, String)> = session
            .rows(
                "SELECT name, type, default_kind FROM system.columns \
                 WHERE database = currentDatabase() AND table = {name:String} ORDER BY position",
                |query| query.param("name", name),
            )
            .await?;
        let setting = window_setting(&engine);
        let window = match stated(&engine_full, setting) {
            Some(window) => window,
            None => {
                let defaults: Vec<String> = session
                    .rows(
                        "SELECT value FROM system.merge_tree_settings WHERE name = {name:String}",
                        |query| query.param("name", setting),
                    )
                    .await?;
                defaults.first().and_then(|value| value.parse().ok()).unwrap_or(0)
            }
        };
        let columns = columns
            .into_iter()
            .map(|(name, type_name, default_kind)| Column { name, type_name, default_kind })
            .collect();
        Ok(Some(Self { engine, window, columns }))
    }

    /// Fails where ClickHouse would take a repeated chunk twice.
    pub(super) fn demand_deduplication(&self, settings: &Settings) -> Result<()> {
        let table = settings.qualified();
        if !self.engine.ends_with("MergeTree") {
            let message = format!("`{table}` has the engine {}, which does not deduplicate", self.engine);
            return Err(
                Error::new(Code::Unsupported, message).hint("load into a table of the MergeTree family")
            );
        }
        if self.window == 0 {
            let message =
                format!("`{table}` forgets insert tokens at once, so that a repeated insert doubles rows");
            return Err(Error::new(Code::Unsupported, message).hint(format!(
                "in ClickHouse: ALTER TABLE {}.{} MODIFY SETTING {} = {WINDOW}",
                quoted(&settings.database),
                quoted(&settings.table),
                window_setting(&self.engine)
            )));
        }
        Ok(())
    }

    /// All that keeps rows of `schema` out of this table, at once.
    pub(super) fn compare(&self, settings: &Settings, schema: &Schema) -> Result<()> {
        let mut faults = Vec::new();
        for field in schema.fields() {
            let name = field.name();
            match self.column(name) {
                _ if Some(name) == settings.run_column.as_ref() => {
                    faults.push(format!("column `{name}` belongs to the load itself (option `run_column`)"));
                }
                None => faults.push(format!("column `{name}` is not in the table")),
                Some(column) if matches!(column.default_kind.as_str(), "MATERIALIZED" | "ALIAS") => {
                    faults.push(format!("column `{name}` is {} and cannot be written", column.default_kind));
                }
                Some(column) if !accepts(&column.type_name, field.data_type()) => faults.push(format!(
                    "column `{name}` is {}, the query gives {}",
                    column.type_name,
                    field.data_type()
                )),
                Some(_) => {}
            }
        }
        for column in &self.columns {
            let given = schema.field_with_name(&column.name).is_ok();
            let ours = Some(&column.name) == settings.run_column.as_ref();
            if !given && !ours && column.default_kind.is_empty() && !takes_null(&column.type_name) {
                faults
                    .push(format!("column `{}` has no default, and the query does not give it", column.name));
            }
        }
        if faults.is_empty() {
            return Ok(());
        }
        let message = format!("the query does not fit `{}`: {}", settings.qualified(), faults.join("; "));
        Err(Error::new(Code::TypeMismatch, message).hint("cast or alias in the query, or alter the table"))
    }

    /// What the types could not say: values that the columns cannot keep. Asked before the first insert.
    pub(super) fn check_values(&self, settings: &Settings, chunks: &[Chunk]) -> Result<()> {
        let mut faults: Vec<String> = Vec::new();
        for column in &self.columns {
            let name = column.name.as_str();
            if !takes_null(&column.type_name) && chunks.iter().any(|chunk| chunk.nulls.contains(name)) {
                faults.push(format!("`{name}` is {} and takes no NULL", column.type_name));
            }
            let Some((kept, narrow)) = time_column(&column.type_name) else { continue };
            let times = chunks.iter().filter_map(|chunk| chunk.times.get(name));
            if times.clone().any(|time| time.digits > kept) {
                faults.push(format!("`{name}` is {} and would lose fractions of seconds", column.type_name));
            }
            if narrow && times.clone().any(|time| time.beyond_datetime) {
                faults.push(format!("`{name}` is {} and holds 1970 to 2106 only", column.type_name));
            }
        }
        if faults.is_empty() {
            return Ok(());
        }
        let message = format!("values do not fit `{}`: {}", settings.qualified(), faults.join("; "));
        Err(Error::new(Code::BadData, message)
            .hint("nothing was inserted; filter or coalesce in the query, or alter the columns"))
    }

    /// Whether rows carry their run and stay as they are, so that counting them proves something. Replacing,
    /// summing and collapsing engines take rows away when they merge.
    pub(super) fn proves_counts(&self, settings: &Settings) -> bool {
        let keeps_rows =
            matches!(self.engine.as_str(), "MergeTree" | "ReplicatedMergeTree" | "SharedMergeTree");
        keeps_rows && self.has_run_column(settings)
    }

    pub(super) fn has_run_column(&self, settings: &Settings) -> bool {
        settings.run_column.as_ref().is_some_and(|name| self.column(name).is_some())
    }

    fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }
}

fn window_setting(engine: &str) -> &'static str {
    if engine.starts_with("Replicated") || engine.starts_with("Shared") {
        "replicated_deduplication_window"
    } else {
        "non_replicated_deduplication_window"
    }
}

/// `… SETTINGS a = 1, b = 2` has 2 for `b`.
fn stated(engine_full: &str, setting: &str) -> Option<u64> {
    let (_, settings) = engine_full.split_once(" SETTINGS ")?;
    settings.split(',').find_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        if name.trim() == setting { value.trim().trim_matches('\'').parse().ok() } else { None }
    })
}

#[cfg(test)]
mod tests {
    use super::super::stage::TimeFacts;
    use super::*;
    use arrow::datatypes::{DataType, Field, TimeUnit};
    use std::collections::BTreeMap;
    use tidemill_core::SinkSpec;

    fn settings() -> Settings {
        let options = BTreeMap::from([("url".to_owned(), "http://h:8123".to_owned())]);
        Settings::new(&SinkSpec { connector: "clickhouse".to_owned(), target: "d.t".to_owned(), options })
            .unwrap()
    }

    fn table(columns: &[(&str, &str, &str)]) -> Table {
        let columns = columns
            .iter()
            .map(|(name, type_name, kind)| Column {
                name: (*name).to_owned(),
                type_name: (*type_name).to_owned(),
                default_kind: (*kind).to_owned(),
            })
            .collect();
        Table { engine: "MergeTree".to_owned(), window: 100, columns }
    }

    #[test]
    fn a_created_table_has_the_run_column_and_remembers_tokens() {
        let schema = Schema::new(vec![
            Field::new("region", DataType::Utf8, true),
            Field::new("orders", DataType::Int64, false),
        ]);
        assert_eq!(
            create_statement(&settings(), &schema).unwrap(),
            "CREATE TABLE IF NOT EXISTS `d`.`t` (`region` Nullable(String), `orders` Int64, \
             `_tidemill_run` LowCardinality(String)) ENGINE = MergeTree ORDER BY tuple() \
             SETTINGS non_replicated_deduplication_window = 10000"
        );
    }

    #[test]
    fn all_differences_are_named_at_once() {
        let schema = Schema::new(vec![
            Field::new("a", DataType::Int64, true),
            Field::new("b", DataType::Utf8, true),
            Field::new("c", DataType::Utf8, true),
        ]);
        let target = table(&[
            ("a", "Int32", ""),
            ("c", "String", "MATERIALIZED"),
            ("d", "Int8", ""),
            ("e", "Int8", "DEFAULT"),
            ("f", "Nullable(Int8)", ""),
            ("_tidemill_run", "LowCardinality(String)", ""),
        ]);
        let error = target.compare(&settings(), &schema).unwrap_err();
        assert_eq!(error.code, Code::TypeMismatch);
        assert_eq!(
            error.message,
            "the query does not fit `d.t`: column `a` is Int32, the query gives Int64; \
             column `b` is not in the table; column `c` is MATERIALIZED and cannot be written; \
             column `d` has no default, and the query does not give it"
        );
    }

    #[test]
    fn values_that_a_column_cannot_keep_are_found_before_the_first_insert() {
        let target = table(&[("a", "Int64", ""), ("at", "DateTime", ""), ("fine", "DateTime64(6)", "")]);
        let facts = TimeFacts { digits: 6, beyond_datetime: true };
        let chunk = Chunk {
            nulls: ["a".to_owned()].into(),
            times: BTreeMap::from([("at".to_owned(), facts), ("fine".to_owned(), facts)]),
            ..Chunk::default()
        };
        let error = target.check_values(&settings(), &[Chunk::default(), chunk]).unwrap_err();
        assert_eq!(error.code, Code::BadData);
        assert_eq!(
            error.message,
            "values do not fit `d.t`: `a` is Int64 and takes no NULL; `at` is DateTime and would lose \
             fractions of seconds; `at` is DateTime and holds 1970 to 2106 only"
        );
        assert!(target.check_values(&settings(), &[Chunk::default()]).is_ok());
    }

    #[test]
    fn a_table_that_forgets_tokens_is_refused_with_the_remedy() {
        assert_eq!(
            stated(
                "MergeTree ORDER BY a SETTINGS x = 1, non_replicated_deduplication_window = 7",
                "non_replicated_deduplication_window"
            ),
            Some(7)
        );
        assert_eq!(stated("MergeTree ORDER BY a", "x"), None);
        let mut target = table(&[]);
        target.demand_deduplication(&settings()).unwrap();
        target.window = 0;
        let error = target.demand_deduplication(&settings()).unwrap_err();
        assert_eq!(error.code, Code::Unsupported);
        assert!(error.hint.unwrap().contains("ALTER TABLE `d`.`t` MODIFY SETTING"));
        target.engine = "Memory".to_owned();
        assert!(target.demand_deduplication(&settings()).unwrap_err().message.contains("Memory"));
    }

    #[test]
    fn counts_are_proved_only_where_rows_stay() {
        let mut target = table(&[("_tidemill_run", "LowCardinality(String)", "")]);
        assert!(target.proves_counts(&settings()));
        target.engine = "ReplacingMergeTree".to_owned();
        assert!(!target.proves_counts(&settings()));
        assert!(!table(&[("a", "Int64", "")]).proves_counts(&settings()));
    }

    #[test]
    fn units_of_time_fit_any_time_column_by_type() {
        let target = table(&[("at", "DateTime", "")]);
        let schema =
            Schema::new(vec![Field::new("at", DataType::Timestamp(TimeUnit::Nanosecond, None), false)]);
        target.compare(&settings(), &schema).unwrap();
    }
}
