//! Client sessions: what `SET` has set.

use super::api::SessionId;
use super::limits::JobLimits;
use crate::engines::EngineChoice;
use dashmap::DashMap;
use datafusion::execution::SessionState;
use datafusion::execution::session_state::SessionStateBuilder;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tidemill_core::{Code, Error, Result};
use tidemill_sql::catalog::Catalog;
use tidemill_sql::statement::ViewDef;
use tidemill_sql::{CATALOG, DEFAULT_SCHEMA, TableName};
use uuid::Uuid;

/// Variables that are ours; all others are DataFusion's.
const ENGINE: &str = "engine";
const SCHEMA: &str = "schema";
const STATEMENT_TIMEOUT: &str = "statement_timeout";
const RESULT_COMPRESSION: &str = "result_compression";
const OURS: [&str; 4] = [ENGINE, SCHEMA, RESULT_COMPRESSION, RETENTION_CHECK];

/// How results are compressed on their way to the client; the gateway does it.
const COMPRESSIONS: [&str; 3] = ["none", "lz4", "zstd"];
/// Whether VACUUM refuses to remove what readers of older versions may need.
const RETENTION_CHECK: &str = "vacuum_retention_check";
/// The same by the name that Spark gives it.
const SPARK_RETENTION_CHECK: &str = "spark.databricks.delta.retentiondurationcheck.enabled";

#[derive(Clone, Debug)]
pub(super) struct Session {
    pub(super) user: String,
    pub(super) schema: String,
    pub(super) engine: EngineChoice,
    pub(super) limits: JobLimits,
    /// The server's statement_timeout, which RESET puts back.
    pub(super) default_timeout: Option<Duration>,
    pub(super) result_compression: &'static str,
    pub(super) retention_check: bool,
    /// A session of DataFusion's, with this client's options. Its hundreds of functions are copied only for a change.
    pub(super) state: Arc<SessionState>,
    /// Temporary views by name. They are in whatever schema is the session's.
    pub(super) temporary: BTreeMap<String, ViewDef>,
}

impl Session {
    pub(super) fn new(user: &str, state: SessionState, default_timeout: Option<Duration>) -> Self {
        Self {
            user: user.to_owned(),
            schema: DEFAULT_SCHEMA.to_owned(),
            engine: EngineChoice::Auto,
            limits: JobLimits { timeout: default_timeout, ..JobLimits::default() },
            default_timeout,
            result_compression: COMPRESSIONS[0],
            retention_check: true,
            state: Arc::new(state),
            temporary: BTreeMap::new(),
        }
    }

    /// Sets a variable, or puts its default back.
    pub(super) fn set(&mut self, name: &str, value: Option<&str>, fresh: &SessionState) -> Result<()> {
        match (name.to_lowercase().as_str(), value) {
            (ENGINE, value) => self.engine = value.map_or(Ok(EngineChoice::Auto), str::parse)?,
            (RETENTION_CHECK | SPARK_RETENTION_CHECK, value) => {
                self.retention_check = match value.map(str::to_lowercase).as_deref() {
                    None | Some("true") => true,
                    Some("false") => false,
                    Some(other) => {
                        return Err(Error::new(Code::BadOption, format!("`{name}` cannot be `{other}`"))
                            .hint("true or false"));
                    }
                }
            }
            (SCHEMA, value) => {
                let schema = value.unwrap_or(DEFAULT_SCHEMA).to_owned();
                let known = self.state.catalog_list().catalog(CATALOG).map(|catalog| catalog.schema_names());
                let known = known.unwrap_or_default();
                if !known.contains(&schema) {
                    return Err(Error::new(Code::UnknownObject, format!("no schema `{schema}`"))
                        .suggest(&schema, known.iter().map(String::as_str)));
                }
                Arc::make_mut(&mut self.state)
                    .config_mut()
                    .options_mut()
                    .catalog
                    .default_schema
                    .clone_from(&schema);
                self.schema = schema;
                self.renew_catalog();
            }
            (STATEMENT_TIMEOUT, None) => self.limits.timeout = self.default_timeout,
            (name, value) if JobLimits::has(name) => self.limits.set(name, value)?,
            (RESULT_COMPRESSION, value) => {
                let value = value.unwrap_or(COMPRESSIONS[0]).to_lowercase();
                let known = COMPRESSIONS.into_iter().find(|known| *known == value);
                self.result_compression = known.ok_or_else(|| {
                    Error::new(Code::BadOption, format!("`{name}` cannot be `{value}`"))
                        .hint(format!("it is one of {}", COMPRESSIONS.join(", ")))
                })?;
            }
            (other, value) => {
                let default = || option(fresh, other).and_then(|(_, value)| value);
                let Some(value) = value.map(str::to_owned).or_else(default) else {
                    return Err(unknown(name, &self.state));
                };
                let options = Arc::make_mut(&mut self.state).config_mut().options_mut();
                if options.set(other, &value).is_err() {
                    let error = match option(&self.state, other) {
                        None => unknown(name, &self.state),
                        Some(_) => Error::new(Code::BadOption, format!("`{name}` cannot be `{value}`")),
                    };
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    pub(super) fn get(&self, name: &str) -> Result<String> {
        match name.to_lowercase().as_str() {
            ENGINE => Ok(self.engine.as_str().to_owned()),
            RETENTION_CHECK | SPARK_RETENTION_CHECK => Ok(self.retention_check.to_string()),
            SCHEMA => Ok(self.schema.clone()),
            name if JobLimits::has(name) => Ok(self.limits.get(name)),
            RESULT_COMPRESSION => Ok(self.result_compression.to_owned()),
            other => option(&self.state, other)
                .map(|(_, value)| value.unwrap_or_default())
                .ok_or_else(|| unknown(name, &self.state)),
        }
    }

    pub(super) fn has_temporary_view(&self, name: &TableName) -> bool {
        name.schema == self.schema && self.temporary.contains_key(&name.name)
    }

    pub(super) fn put_temporary_view(&mut self, view: ViewDef) {
        self.temporary.insert(view.name.name.clone(), view);
        self.renew_catalog();
    }

    pub(super) fn drop_temporary_view(&mut self, name: &str) {
        self.temporary.remove(name);
        self.renew_catalog();
    }

    /// The catalog with this session's temporary views.
    pub(super) fn catalog(&self) -> Option<&Catalog> {
        self.state.catalog_list().downcast_ref::<Catalog>()
    }

    fn renew_catalog(&mut self) {
        let place = |view: &ViewDef| (TableName::new(&self.schema, &view.name.name), view.clone());
        let views = self.temporary.values().map(place).collect();
        let Some(catalog) = self.catalog().map(|catalog| catalog.with_temporary(views)) else { return };
        let builder = SessionStateBuilder::new_from_existing(SessionState::clone(&self.state));
        self.state = Arc::new(builder.with_catalog_list(Arc::new(catalog)).build());
    }

    /// Every variable with its value, by name.
    pub(super) fn all(&self) -> Vec<(String, String)> {
        let entries = self.state.config_options().entries();
        let mut all: Vec<(String, String)> =
            entries.into_iter().map(|entry| (entry.key, entry.value.unwrap_or_default())).collect();
        all.extend(JobLimits::NAMES.map(|name| (name.to_owned(), self.limits.get(name))));
        all.extend(OURS.into_iter().filter_map(|name| Some((name.to_owned(), self.get(name).ok()?))));
        all.sort();
        all
    }
}

fn option(state: &SessionState, name: &str) -> Option<(String, Option<String>)> {
    let entries = state.config_options().entries();
    entries.into_iter().find(|entry| entry.key == name).map(|entry| (entry.key, entry.value))
}

fn unknown(name: &str, state: &SessionState) -> Error {
    let keys: Vec<String> = state.config_options().entries().into_iter().map(|entry| entry.key).collect();
    let known = keys.iter().map(String::as_str).chain(OURS).chain(JobLimits::NAMES);
    let near = Error::new(Code::BadOption, format!("no variable `{name}`")).suggest(name, known);
    match near.hint.as_deref() {
        Some(hint) if hint.starts_with("did you") => near,
        _ => Error { hint: None, ..near }.hint("SHOW ALL lists every variable"),
    }
}

/// The open sessions.
#[derive(Debug)]
pub(super) struct Sessions {
    open: DashMap<SessionId, Session>,
    default_timeout: Option<Duration>,
}

impl Sessions {
    pub(super) fn new(default_timeout: Option<Duration>) -> Self {
        Self { open: DashMap::new(), default_timeout }
    }

    pub(super) fn open(&self, user: &str, state: SessionState) -> SessionId {
        let id = SessionId::new(Uuid::new_v4().to_string());
        self.open.insert(id.clone(), Session::new(user, state, self.default_timeout));
        id
    }

    pub(super) fn close(&self, id: &SessionId) {
        self.open.remove(id);
    }

    /// A copy for one statement: it sees the variables as they were when it began, and one `now()`.
    pub(super) fn get(&self, id: &SessionId) -> Result<Session> {
        let session = self.open.get(id).map(|session| session.clone());
        let mut session = session.ok_or_else(|| {
            Error::new(Code::Unauthenticated, format!("no session `{id}`")).hint("connect again")
        })?;
        Arc::make_mut(&mut session.state).mark_start_execution();
        Ok(session)
    }

    pub(super) fn change(
        &self,
        id: &SessionId,
        change: impl FnOnce(&mut Session) -> Result<()>,
    ) -> Result<()> {
        match self.open.get_mut(id) {
            Some(mut session) => change(&mut session),
            None => {
                Err(Error::new(Code::Unauthenticated, format!("no session `{id}`")).hint("connect again"))
            }
        }
    }
}
