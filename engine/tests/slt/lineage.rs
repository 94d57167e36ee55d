//! Which tables of a test file lack something, and what is made from them.
//!
//! ```text
//! CREATE EXTERNAL TABLE a … LOCATION '../no/such/file'  ─▶  a lacks its data
//! CREATE VIEW b AS SELECT * FROM a                      ─▶  so does b
//! COPY b TO 'x/'   CREATE EXTERNAL TABLE c … LOCATION 'x/'  ─▶  and c
//! DROP TABLE a     CREATE TABLE a AS VALUES (1)         ─▶  a lacks nothing any more
//! ```

use datafusion::common::TableReference;
use datafusion::sql::parser::Statement;
use datafusion::sql::planner::object_name_to_table_reference;
use datafusion::sql::sqlparser::ast::{ObjectName, Statement as SqlStatement, TableObject};
use std::collections::BTreeMap;
use std::path::Path;

/// What a table lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lack {
    Data,
    /// DataFusion's own runner makes the table, in Rust.
    Runner,
    /// A statement that should have made or filled it failed.
    Statement,
}

impl Lack {
    pub(crate) fn because(self) -> &'static str {
        match self {
            Self::Data => "the files that its tables are over are not published with the tests",
            Self::Runner => "DataFusion's own runner makes its table, in Rust",
            Self::Statement => "an earlier statement of the file failed, and is listed too",
        }
    }
}

/// Tables that DataFusion's runner makes before it runs a file.
const MADE_IN_RUST: &[(&str, &[&str])] = &[
    ("aggregate.slt", &["approx_distinct_union_test"]),
    ("arrow_field.slt", &["table_with_metadata"]),
    ("avro.slt", &["alltypes_plain_multi_files"]),
    ("cte.slt", &["orders"]),
    ("dictionary_struct.slt", &["dict_struct_table", "dict_struct_nullable"]),
    ("information_schema_columns.slt", &["table_with_many_types"]),
    ("joins.slt", &["test_partition_table", "table_with_many_types"]),
    ("map.slt", &["table_with_map"]),
    ("metadata.slt", &["table_with_metadata", "larger_table", "smaller_table"]),
    (
        "range_partitioning.slt",
        &[
            "range_partitioned",
            "range_partitioned_narrow",
            "range_partitioned_shifted",
            "range_partitioned_sparse",
            "unbounded_range_like",
            "unbounded_range_like_shifted",
        ],
    ),
    ("union_function.slt", &["union_table"]),
];

/// What a statement reads, and what it does.
#[derive(Debug)]
pub(crate) struct Touched {
    /// Tables without their schemas; of a path in their place the path.
    reads: Vec<String>,
    deed: Deed,
}

#[derive(Debug)]
enum Deed {
    Reads,
    /// A table over files.
    Lays {
        table: String,
        over: Vec<String>,
    },
    Makes(String),
    Fills(String),
    /// To files at that place.
    Writes(String),
    Drops(Vec<String>),
}

impl Touched {
    /// `tables` are those that the statement names.
    pub(crate) fn by(statement: &Statement, tables: Vec<TableReference>, normalize: bool) -> Self {
        let bare = |name: &ObjectName| match object_name_to_table_reference(name.clone(), normalize) {
            Ok(name) => name.table().to_owned(),
            Err(_) => name.to_string(),
        };
        let deed = match statement {
            Statement::CreateExternalTable(create) => {
                Deed::Lays { table: bare(&create.name), over: create.locations.clone() }
            }
            Statement::CopyTo(copy) => Deed::Writes(copy.target.clone()),
            Statement::Statement(statement) => match statement.as_ref() {
                SqlStatement::CreateTable(create) => Deed::Makes(bare(&create.name)),
                SqlStatement::CreateView(create) => Deed::Makes(bare(&create.name)),
                SqlStatement::Insert(insert) => match &insert.table {
                    TableObject::TableName(name) => Deed::Fills(bare(name)),
                    _ => Deed::Reads,
                },
                SqlStatement::Drop { names, .. } => Deed::Drops(names.iter().map(bare).collect()),
                _ => Deed::Reads,
            },
            _ => Deed::Reads,
        };
        let mut reads: Vec<String> = tables.iter().map(|table| table.table().to_owned()).collect();
        if let Deed::Lays { table, .. } | Deed::Makes(table) | Deed::Fills(table) = &deed {
            reads.retain(|read| read != table);
        }
        Self { reads, deed }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Lineage {
    tables: BTreeMap<String, Lack>,
    /// Where a statement should have written files.
    places: Vec<(String, Lack)>,
}

impl Lineage {
    pub(crate) fn of(file: &str) -> Self {
        let made = MADE_IN_RUST.iter().filter(|(name, _)| *name == file).flat_map(|(_, tables)| *tables);
        Self { tables: made.map(|table| ((*table).to_owned(), Lack::Runner)).collect(), places: Vec::new() }
    }

    /// What the tables lack that a statement touches.
    pub(crate) fn lack(&self, touched: &Touched) -> Option<Lack> {
        let own = match &touched.deed {
            Deed::Lays { over, .. } => self.lack_at(over),
            Deed::Fills(table) => self.tables.get(table).copied(),
            Deed::Drops(tables) => tables.iter().find_map(|table| self.tables.get(table).copied()),
            Deed::Reads | Deed::Makes(_) | Deed::Writes(_) => None,
        };
        own.or_else(|| self.lack_of_reads(touched))
    }

    fn lack_of_reads(&self, touched: &Touched) -> Option<Lack> {
        let known = touched.reads.iter().find_map(|table| self.tables.get(table).copied());
        known.or_else(|| self.lack_at(touched.reads.iter().filter(|table| table.contains('/'))))
    }

    fn lack_at<'a>(&self, places: impl IntoIterator<Item = &'a String>) -> Option<Lack> {
        places.into_iter().find_map(|place| {
            let written =
                self.places.iter().find(|(written, _)| within(written, place) || within(place, written));
            written.map(|(_, lack)| *lack).or_else(|| is_unpublished(place).then_some(Lack::Data))
        })
    }

    /// After the statement was run; `succeeded` when all was as expected.
    pub(crate) fn note(&mut self, touched: &Touched, succeeded: bool) {
        let failed = (!succeeded).then_some(Lack::Statement);
        match &touched.deed {
            Deed::Reads => {}
            Deed::Lays { table, over } => self.set(table, self.lack_at(over).or(failed)),
            Deed::Makes(table) => self.set(table, self.lack_of_reads(touched).or(failed)),
            Deed::Fills(table) => {
                if let Some(lack) = self.lack_of_reads(touched).or(failed) {
                    self.tables.entry(table.clone()).or_insert(lack);
                }
            }
            Deed::Writes(place) => {
                let lack = self.lack_of_reads(touched).or(failed);
                self.places.extend(lack.map(|lack| (place.clone(), lack)));
            }
            Deed::Drops(tables) => tables.iter().for_each(|table| self.set(table, None)),
        }
    }

    fn set(&mut self, table: &str, lack: Option<Lack>) {
        match lack {
            Some(lack) => self.tables.insert(table.to_owned(), lack),
            None => self.tables.remove(table),
        };
    }
}

fn within(place: &str, folder: &str) -> bool {
    Path::new(place).starts_with(folder)
}

/// Whether there should be files that are not there. The tests write into `scratch` themselves.
fn is_unpublished(place: &str) -> bool {
    if place.contains("://") || place.contains("scratch") {
        return false;
    }
    let path = match place.split_once('*') {
        Some((head, _)) => Path::new(head).parent().unwrap_or(Path::new(".")),
        None => Path::new(place),
    };
    !path.exists()
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::prelude::SessionContext;

    fn touched(sql: &str) -> Touched {
        let state = SessionContext::new().state();
        let statement = state.sql_to_statement(sql, &state.config().options().sql_parser.dialect).unwrap();
        let tables = state.resolve_table_references(&statement).unwrap();
        Touched::by(&statement, tables, true)
    }

    fn run(lineage: &mut Lineage, sql: &str) -> Option<Lack> {
        let touched = touched(sql);
        let lack = lineage.lack(&touched);
        lineage.note(&touched, !sql.contains("refused"));
        lack
    }

    #[test]
    fn what_follows_from_absent_files_lacks_them_too() {
        let mut lineage = Lineage::of("a.slt");
        for (sql, lack) in [
            ("SELECT * FROM a", None),
            ("CREATE EXTERNAL TABLE A (n INT) STORED AS CSV LOCATION '../no/such.csv'", Some(Lack::Data)),
            ("SELECT * FROM x.y.a, b", Some(Lack::Data)),
            ("WITH a AS (SELECT 1) SELECT * FROM a", None),
            ("SELECT 'a' FROM b", None),
            ("CREATE VIEW v AS SELECT count(*) FROM b, (SELECT * FROM a)", Some(Lack::Data)),
            ("INSERT INTO t SELECT * FROM v", Some(Lack::Data)),
            ("COPY t TO 'test_files/scratch/a/t'", Some(Lack::Data)),
            ("CREATE EXTERNAL TABLE c STORED AS CSV LOCATION 'test_files/scratch/a/t/1'", Some(Lack::Data)),
            ("CREATE EXTERNAL TABLE d STORED AS CSV LOCATION 'test_files/scratch/a/d'", None),
            ("DROP TABLE a", Some(Lack::Data)),
            ("CREATE TABLE a AS VALUES (1)", None),
            ("SELECT * FROM a", None),
            ("SELECT * FROM t", Some(Lack::Data)),
            ("SELECT * FROM '../no/such.csv'", Some(Lack::Data)),
        ] {
            assert_eq!(run(&mut lineage, sql), lack, "{sql}");
        }
    }

    #[test]
    fn what_was_not_made_is_lacking() {
        let mut lineage = Lineage::of("map.slt");
        for (sql, lack) in [
            ("SELECT * FROM table_with_map", Some(Lack::Runner)),
            ("CREATE TABLE made AS SELECT refused", None),
            ("SELECT * FROM made", Some(Lack::Statement)),
            ("CREATE TABLE made AS SELECT 1", None),
            ("SELECT * FROM made", None),
            ("INSERT INTO made VALUES ('refused')", None),
            ("SELECT * FROM made", Some(Lack::Statement)),
        ] {
            assert_eq!(run(&mut lineage, sql), lack, "{sql}");
        }
    }
}
