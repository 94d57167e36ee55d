//! `DROP kind [IF EXISTS] name`, and `DROP SCHEMA [IF EXISTS] name [CASCADE | RESTRICT]`.

use super::function;
use crate::TableName;
use crate::dialect::Cursor;
use tidemill_core::Result;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drop {
    pub object: ObjectKind,
    pub if_exists: bool,
    /// With everything that is in the schema.
    pub cascade: bool,
}

/// What is dropped, with its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ObjectKind {
    Source(String),
    Connection(String),
    Load(String),
    Schema(String),
    Function(String),
    /// `DROP STREAMING TABLE` and `DROP PIPELINE` are the same: the pipeline ends, its table's files stay.
    Pipeline(TableName),
    Table(TableName),
    View(TableName),
}

pub(super) fn parse(cursor: &mut Cursor<'_>, default_schema: &str) -> Result<Drop> {
    cursor.expect(&["DROP"])?;
    let kinds = &[
        "SOURCE",
        "STREAMING",
        "PIPELINE",
        "CONNECTION",
        "LOAD",
        "TABLE",
        "VIEW",
        "SCHEMA",
        "DATABASE",
        "FUNCTION",
        "MACRO",
    ];
    let kind = cursor.one_of(kinds)?;
    if kind == "STREAMING" {
        cursor.expect(&["TABLE"])?;
    }
    let if_exists = cursor.take(&["IF", "EXISTS"]);
    let object = match kind {
        "SOURCE" => ObjectKind::Source(cursor.ident()?),
        "CONNECTION" => ObjectKind::Connection(cursor.ident()?),
        "LOAD" => ObjectKind::Load(cursor.ident()?),
        "SCHEMA" | "DATABASE" => ObjectKind::Schema(cursor.schema_name()?),
        "FUNCTION" | "MACRO" => ObjectKind::Function(function::name(cursor)?),
        "TABLE" => ObjectKind::Table(cursor.table_name(default_schema)?),
        "VIEW" => ObjectKind::View(cursor.table_name(default_schema)?),
        _ => ObjectKind::Pipeline(cursor.table_name(default_schema)?),
    };
    let of_schema = matches!(object, ObjectKind::Schema(_));
    let cascade = of_schema && cursor.take(&["CASCADE"]);
    if of_schema && !cascade {
        cursor.take(&["RESTRICT"]);
    }
    Ok(Drop { object, if_exists, cascade })
}
