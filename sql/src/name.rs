//! Names of tables, fully resolved, so that a definition means the same in every session.

use datafusion::sql::sqlparser::ast::Ident;
use serde::{Deserialize, Serialize};
use std::fmt;
use tidemill_core::{Code, Error, Result};

/// The only catalog.
pub const CATALOG: &str = "tidemill";
/// The schema of a new session.
pub const DEFAULT_SCHEMA: &str = "public";
/// The schema of the system tables, in the same catalog.
pub const SYSTEM_SCHEMA: &str = "tidemill";

/// A table, view or streaming table: `schema.name` in [`CATALOG`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TableName {
    pub schema: String,
    pub name: String,
}

impl TableName {
    pub fn new(schema: impl Into<String>, name: impl Into<String>) -> Self {
        Self { schema: schema.into(), name: name.into() }
    }

    /// From one, two or three parts, already normalised.
    pub fn from_parts(parts: &[String], default_schema: &str) -> Result<Self> {
        match parts {
            [name] => Ok(Self::new(default_schema, name)),
            [schema, name] => Ok(Self::new(schema, name)),
            [catalog, schema, name] if catalog == CATALOG => Ok(Self::new(schema, name)),
            _ => {
                let message = format!("`{}` is no table name here", parts.join("."));
                Err(Error::new(Code::UnknownObject, message)
                    .hint(format!("name, schema.name, or {CATALOG}.schema.name")))
            }
        }
    }

    /// As SQL, quoted where needed.
    pub fn to_sql(&self) -> String {
        format!("{}.{}.{}", quote(CATALOG), quote(&self.schema), quote(&self.name))
    }
}

/// The name quoted, as SQL reads it back.
pub fn quote(name: &str) -> String {
    Ident::with_quote('"', name).to_string()
}

/// `schema.name`, the form of journal keys.
impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.schema, self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(text: &str) -> Vec<String> {
        text.split('.').map(str::to_owned).collect()
    }

    #[test]
    fn resolves_against_the_default_schema() {
        assert_eq!(TableName::from_parts(&parts("t"), "s").unwrap(), TableName::new("s", "t"));
        assert_eq!(TableName::from_parts(&parts("tidemill.x.t"), "s").unwrap(), TableName::new("x", "t"));
        assert_eq!(TableName::from_parts(&parts("other.x.t"), "s").unwrap_err().code, Code::UnknownObject);
    }
}
