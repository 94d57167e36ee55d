//! `CREATE [OR REPLACE] CONNECTION [IF NOT EXISTS] warehouse WITH (connector = 'clickhouse', url = '…')`:
//! a system that loads write to.

use crate::dialect::Cursor;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use tidemill_core::{Code, Error, Result};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateConnection {
    pub or_replace: bool,
    pub if_not_exists: bool,
    pub connection: ConnectionDef,
}

/// A connection as the journal keeps it. Secrets in it are references (`env:NAME`, `file:PATH`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionDef {
    pub name: String,
    pub connector: String,
    pub options: BTreeMap<String, String>,
}

pub(super) fn parse(cursor: &mut Cursor<'_>, or_replace: bool) -> Result<CreateConnection> {
    let if_not_exists = cursor.take(&["IF", "NOT", "EXISTS"]);
    let name = cursor.ident()?;
    cursor.expect(&["WITH"])?;
    let mut options = cursor.options()?;
    let Some(connector) = options.remove("connector") else {
        return Err(Error::new(Code::BadOption, "missing option `connector`")
            .hint("such as WITH (connector = 'clickhouse', …)"));
    };
    Ok(CreateConnection { or_replace, if_not_exists, connection: ConnectionDef { name, connector, options } })
}
