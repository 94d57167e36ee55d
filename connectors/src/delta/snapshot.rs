//! A snapshot to be changed: which files, as which table, and the commit.

use super::alter;
use super::columns::Columns;
use super::conflict::Intent;
use super::create::Draft;
use super::error::from_delta;
use super::features;
use super::rules;
use super::sink::Added;
use super::table::{Loaded, Table};
use super::transaction::Transaction;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::logical_expr::Expr;
use datafusion::prelude::SessionContext;
use deltalake_core::kernel::Action;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use tidemill_core::{Code, Error, Result};
use tidemill_engine::{Change, LakeFile, LakeSnapshot, Reads, from_datafusion};

/// A property, and what a table is that has it.
const APPEND_ONLY: (&str, &str) = ("delta.appendOnly", "that takes appends only");

/// See [`LakeSnapshot`].
#[derive(Debug)]
pub(super) struct DeltaSnapshot {
    table: Arc<Table>,
    loaded: Arc<Loaded>,
}

impl DeltaSnapshot {
    pub(super) fn new(table: Arc<Table>, loaded: Arc<Loaded>) -> Self {
        Self { table, loaded }
    }

    fn place(&self, error: Error) -> Error {
        error.context(format!("Delta table {}", self.table.url))
    }

    fn refuse_if(&self, (property, what): (&str, &str), verb: &str) -> Result<()> {
        match self.properties().get(property).is_some_and(|on| on == "true") {
            true => {
                Err(self.place(Error::new(Code::Unsupported, format!("cannot {verb} a table {what}")).hint(
                    format!("ALTER TABLE … SET TBLPROPERTIES ('{property}' = 'false'), or only append"),
                )))
            }
            false => Ok(()),
        }
    }

    async fn transaction(&self, change: Change) -> Result<Transaction> {
        let snapshot = self.loaded.snapshot();
        // What the rows were written for.
        let (mut actions, target) = match &change.becomes {
            None => (alter::actions(snapshot, &change)?, self.loaded.clone()),
            Some(becomes) => {
                let draft = Draft::read(&becomes.definition)?;
                (draft.actions_over(snapshot)?, draft.loaded().await?)
            }
        };
        let views: Vec<_> =
            snapshot.try_log_data().map_err(|error| from_delta(error, &self.table.url))?.iter().collect();
        let mut removes = HashSet::new();
        for number in &change.removes {
            let view = views.get(*number).ok_or_else(|| Error::internal("a file that is not there"))?;
            let remove = view.remove_action(change.data_change);
            if removes.insert(remove.path.clone()) {
                actions.push(Action::Remove(remove));
            }
        }
        actions.extend(added(&change, &target)?);
        let reads = match &change.reads {
            Reads::Nothing | Reads::Removed => Some(HashSet::new()),
            Reads::Everything => None,
            Reads::Matching(filters) => {
                let state = SessionContext::new().state();
                let keep = self.loaded.provider(&self.table)?.matching(&state, filters)?;
                let paths = self.loaded.paths(&self.table)?;
                Some(paths.iter().zip(keep).filter(|(_, keep)| *keep).map(|(path, _)| path.clone()).collect())
            }
        };
        let serializable =
            self.properties().get("delta.isolationLevel").is_some_and(|level| level == "Serializable");
        let redefined = !change.alter.is_empty() || change.becomes.is_some();
        let once = match change.transaction {
            Some((app, number)) => Some((
                app,
                i64::try_from(number).map_err(|_| Error::internal(format!("run {number} is too large")))?,
            )),
            None => None,
        };
        Ok(Transaction {
            read: self.loaded.clone(),
            actions,
            intent: Intent { removes, reads, serializable: serializable || redefined },
            reads: change.reads,
            operation: change.operation,
            parameters: change.parameters.into_iter().map(|(key, value)| (key, value.into())).collect(),
            // Spark has numbers as text here.
            metrics: change.metrics.into_iter().map(|(key, value)| (key, value.to_string().into())).collect(),
            once,
        })
    }
}

#[async_trait]
impl LakeSnapshot for DeltaSnapshot {
    fn version(&self) -> u64 {
        self.loaded.version()
    }

    fn schema(&self) -> SchemaRef {
        self.loaded.schema()
    }

    fn row_schema(&self) -> Result<SchemaRef> {
        Ok(Columns::of(&self.loaded)?.schema)
    }

    fn partition_by(&self) -> Vec<String> {
        self.loaded.partition_columns()
    }

    fn properties(&self) -> BTreeMap<String, String> {
        let properties = self.loaded.snapshot().metadata().configuration();
        properties.iter().map(|(key, value)| (key.clone(), value.clone())).collect()
    }

    fn generated_columns(&self) -> BTreeMap<String, String> {
        features::generated_columns(&self.loaded.schema())
    }

    fn files(&self, session: &dyn Session, filters: &[Expr]) -> Result<Vec<LakeFile>> {
        let provider = self.loaded.provider(&self.table)?;
        let keep = provider.matching(session, filters)?;
        let fail = |error| from_delta(error, &self.table.url);
        let views = self.loaded.snapshot().try_log_data().map_err(fail)?;
        let mut files = Vec::new();
        for (number, (view, keep)) in views.iter().zip(keep).enumerate() {
            if keep {
                files.push(LakeFile {
                    number,
                    bytes: u64::try_from(view.size()).unwrap_or_default(),
                    rows: view.num_records().and_then(|rows| u64::try_from(rows).ok()),
                    partition: provider.partition(number).map_err(from_datafusion)?,
                    has_deleted_rows: view.deletion_vector_descriptor().is_some(),
                });
            }
        }
        Ok(files)
    }

    fn is_on_partitions(&self, filter: &Expr) -> bool {
        self.loaded.provider(&self.table).is_ok_and(|provider| provider.decides(filter))
    }

    fn table(&self, files: Option<&[usize]>, number_column: Option<&str>) -> Result<Arc<dyn TableProvider>> {
        let provider = self.loaded.provider(&self.table)?;
        if files.is_none() && number_column.is_none() {
            return Ok(provider);
        }
        Ok(Arc::new(provider.select(files, number_column)?))
    }

    fn demand_writable(&self) -> Result<()> {
        features::demand_writable(self.loaded.snapshot(), &self.loaded.schema())
            .map_err(|error| self.place(error))
    }

    fn demand_rewritable(&self) -> Result<()> {
        self.refuse_if(("delta.enableChangeDataFeed", "with a change data feed"), "rewrite rows of")?;
        self.refuse_if(APPEND_ONLY, "rewrite rows of")
    }

    async fn commit(&self, change: Change) -> Result<u64> {
        self.demand_writable()?;
        if change.becomes.is_some() {
            self.refuse_if(APPEND_ONLY, "replace")?;
        }
        let transaction = self.transaction(change).await.map_err(|error| self.place(error))?;
        transaction.commit(&self.table).await.map_err(|error| self.place(error))
    }
}

/// What the change adds, if it was written for `target` and keeps its rules.
pub(super) fn added(change: &Change, target: &Loaded) -> Result<Vec<Action>> {
    let rules = rules::texts(target.snapshot(), &target.schema());
    let mut actions = Vec::with_capacity(change.adds.len());
    for written in &change.adds {
        let added: Added = serde_json::from_value(written.descriptor.clone())?;
        added.demand(&rules)?;
        let Added { table, mut add, .. } = added;
        if table != target.snapshot().metadata().id() {
            return Err(Error::new(Code::Conflict, "rows were written for another table at this place")
                .hint("run the statement again"));
        }
        add.data_change = change.data_change;
        actions.push(Action::Add(add));
    }
    Ok(actions)
}
