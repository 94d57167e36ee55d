//! The definitions that statements create and drop: kept in the journal, mirrored in the catalog.

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::sync::Arc;
use tidemill_core::{Code, Error, Expect, FencingToken, Journal, Result};
use tidemill_sql::statement::{ConnectionDef, FunctionDef, SourceDef, TableDef, ViewDef};

/// A kind of definition, by its prefix in the journal.
pub(super) trait Definition: Serialize + DeserializeOwned {
    const PREFIX: &'static str;
    /// What a person calls it.
    const KIND: &'static str;

    fn key(&self) -> String;
}

impl Definition for SourceDef {
    const PREFIX: &'static str = "source/";
    const KIND: &'static str = "source";

    fn key(&self) -> String {
        self.name.clone()
    }
}

impl Definition for ConnectionDef {
    const PREFIX: &'static str = "connection/";
    const KIND: &'static str = "connection";

    fn key(&self) -> String {
        self.name.clone()
    }
}

impl Definition for TableDef {
    const PREFIX: &'static str = "table/";
    const KIND: &'static str = "table";

    fn key(&self) -> String {
        self.name.to_string()
    }
}

impl Definition for ViewDef {
    const PREFIX: &'static str = "view/";
    const KIND: &'static str = "view";

    fn key(&self) -> String {
        self.name.to_string()
    }
}

impl Definition for FunctionDef {
    const PREFIX: &'static str = "function/";
    const KIND: &'static str = "function";

    fn key(&self) -> String {
        self.name.clone()
    }
}

/// A schema that was created by name.
#[derive(Clone, Debug, Serialize, serde::Deserialize)]
pub(super) struct SchemaDef {
    pub(super) name: String,
}

impl Definition for SchemaDef {
    const PREFIX: &'static str = "schema/";
    const KIND: &'static str = "schema";

    fn key(&self) -> String {
        self.name.clone()
    }
}

/// How a definition that is there already is met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum IfThere {
    Fail,
    Keep,
    Replace,
}

impl IfThere {
    pub(super) fn of(or_replace: bool, if_not_exists: bool) -> Self {
        match (or_replace, if_not_exists) {
            (true, _) => IfThere::Replace,
            (false, true) => IfThere::Keep,
            (false, false) => IfThere::Fail,
        }
    }
}

/// Reads and writes definitions under the leader's token.
#[derive(Clone, Debug)]
pub(super) struct Definitions {
    pub(super) journal: Arc<dyn Journal>,
    pub(super) token: FencingToken,
}

impl Definitions {
    /// False when it was there and was kept.
    pub(super) async fn put<D: Definition>(&self, definition: &D, if_there: IfThere) -> Result<bool> {
        let key = format!("{}{}", D::PREFIX, definition.key());
        let expect = if if_there == IfThere::Replace { Expect::Anything } else { Expect::Absent };
        let body = Bytes::from(serde_json::to_vec(definition)?);
        match self.journal.put(self.token, &key, body, expect).await {
            Ok(_) => Ok(true),
            Err(error) if error.code == Code::Conflict && if_there == IfThere::Keep => Ok(false),
            Err(error) if error.code == Code::Conflict => {
                let message = format!("there is a {} `{}`", D::KIND, definition.key());
                Err(Error::new(Code::AlreadyExists, message)
                    .hint("use IF NOT EXISTS or OR REPLACE, or drop it first"))
            }
            Err(error) => Err(error),
        }
    }

    pub(super) async fn get<D: Definition>(&self, name: &str) -> Result<Option<D>> {
        match self.journal.get(&format!("{}{name}", D::PREFIX)).await? {
            Some(found) => Ok(Some(serde_json::from_slice(&found.value)?)),
            None => Ok(None),
        }
    }

    /// Fails with the names that there are.
    pub(super) async fn find<D: Definition>(&self, name: &str) -> Result<D> {
        if let Some(found) = self.get(name).await? {
            return Ok(found);
        }
        let all = self.all::<D>().await?;
        let names: Vec<String> = all.iter().map(Definition::key).collect();
        Err(Error::new(Code::UnknownObject, format!("no {} `{name}`", D::KIND))
            .suggest(name, names.iter().map(String::as_str)))
    }

    pub(super) async fn all<D: Definition>(&self) -> Result<Vec<D>> {
        let found = self.journal.list(D::PREFIX).await?;
        found.into_iter().map(|(_, found)| Ok(serde_json::from_slice(&found.value)?)).collect()
    }

    pub(super) async fn remove<D: Definition>(&self, name: &str) -> Result<()> {
        self.journal.delete(self.token, &format!("{}{name}", D::PREFIX), Expect::Anything).await
    }
}
