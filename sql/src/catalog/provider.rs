//! The catalog itself: definitions, and how each kind of them becomes a `TableProvider`.

use super::definitions::{Change, Definitions};
use super::files;
use super::information::{INFORMATION_SCHEMA, information_schema};
use super::schema::LakeSchema;
use super::system::{SystemSchema, SystemTables};
use super::versions::Past;
use super::views::check_acyclic;
use crate::functions::{Macros, trial};
use crate::statement::{FunctionDef, TableDef, TableFormat, ViewDef};
use crate::{CATALOG, SYSTEM_SCHEMA, TableName, TidemillTypes, parse, plan_query};
use arrow::datatypes::Schema;
use datafusion::catalog::{CatalogProvider, CatalogProviderList, SchemaProvider, TableProvider};
use datafusion::datasource::ViewTable;
use datafusion::execution::SessionState;
use datafusion::execution::session_state::SessionStateBuilder;
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use tidemill_core::{Code, Error, Result, store};
use tidemill_engine::LakeFormat;
use url::Url;

/// The catalog `tidemill`. A cheap handle: all clones see the same definitions, and each its own temporary views.
#[derive(Clone)]
pub struct Catalog {
    inner: Arc<Inner>,
    temporary: Arc<BTreeMap<TableName, ViewDef>>,
}

struct Inner {
    definitions: RwLock<Definitions>,
    macros: Arc<Macros>,
    root: Url,
    lake: Arc<dyn LakeFormat>,
    system: Arc<dyn SystemTables>,
    base: SessionState,
}

impl std::fmt::Debug for Catalog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Catalog").field("root", &self.inner.root.as_str()).finish_non_exhaustive()
    }
}

impl Catalog {
    /// `root` is a folder or URL; `base` has the functions, options and object stores with which views are
    /// planned and files are inspected.
    pub fn new(
        root: &str,
        lake: Arc<dyn LakeFormat>,
        system: Arc<dyn SystemTables>,
        base: SessionState,
    ) -> Result<Self> {
        let root = store::location(root)?;
        let definitions = RwLock::default();
        let inner = Inner { definitions, macros: Arc::default(), root, lake, system, base };
        Ok(Self { inner: Arc::new(inner), temporary: Arc::default() })
    }

    /// The same catalog with these views besides, for one session.
    pub fn with_temporary(&self, views: BTreeMap<TableName, ViewDef>) -> Self {
        Self { inner: self.inner.clone(), temporary: Arc::new(views) }
    }

    pub fn apply(&self, change: Change) {
        match &change {
            Change::PutFunction(function) => self.inner.macros.put(function.clone()),
            Change::DropFunction(name) => self.inner.macros.remove(name),
            _ => {}
        }
        self.inner.definitions.write().unwrap_or_else(PoisonError::into_inner).apply(change);
    }

    pub fn table(&self, name: &TableName) -> Option<TableDef> {
        self.definitions().table(name).cloned()
    }

    pub fn view(&self, name: &TableName) -> Option<ViewDef> {
        match self.temporary.get(name) {
            Some(view) => Some(view.clone()),
            None => self.definitions().view(name).cloned(),
        }
    }

    pub fn function(&self, name: &str) -> Option<Arc<FunctionDef>> {
        self.inner.macros.get(name)
    }

    /// Names of tables and views in a schema, sorted.
    pub fn names(&self, schema: &str) -> Vec<String> {
        let mut names = self.definitions().names(schema);
        names
            .extend(self.temporary.keys().filter(|name| name.schema == schema).map(|name| name.name.clone()));
        names.sort_unstable();
        names.dedup();
        names
    }

    /// Where a table is when its statement does not say: `{root}/{schema}/{name}`.
    pub fn default_location(&self, name: &TableName) -> Result<Url> {
        let mut url = self.inner.root.clone();
        match url.path_segments_mut() {
            Ok(mut segments) => segments.pop_if_empty().push(&name.schema).push(&name.name),
            Err(()) => return Err(Error::internal(format!("`{}` has no path", self.inner.root))),
        };
        Ok(url)
    }

    /// Makes a client's session: this catalog, our types, names looked up in `default_schema` first.
    pub fn session(&self, builder: SessionStateBuilder, default_schema: &str) -> SessionStateBuilder {
        let mut builder = builder;
        let config = builder.config().take().unwrap_or_default();
        let config = config
            .with_default_catalog_and_schema(CATALOG, default_schema)
            .with_create_default_catalog_and_schema(false)
            // Ours takes its place, see `information`.
            .with_information_schema(false)
            .with_extension(self.inner.macros.clone());
        builder
            .with_config(config)
            .with_type_planner(Arc::new(TidemillTypes))
            .with_catalog_list(Arc::new(self.clone()))
    }

    /// Completes the definition of an external table: an absolute location, and the files' columns where
    /// none were declared.
    ///
    /// # Errors
    /// `Code::NotFound` when there is nothing of that format.
    pub async fn complete(&self, table: TableDef) -> Result<TableDef> {
        let url = store::location(&table.location)?;
        if table.format == TableFormat::Delta {
            if !self.inner.lake.exists(&url).await? {
                return Err(Error::new(Code::NotFound, format!("`{}` is no Delta table", table.location))
                    .hint("check the location; STORED AS PARQUET reads plain files"));
            }
            return Ok(TableDef { location: url.to_string(), ..table });
        }
        let schema = match &table.schema {
            Some(schema) => {
                files::check(&self.inner.base, &table)?;
                schema.clone()
            }
            None => files::infer_schema(&self.inner.base, &table).await?,
        };
        // A trailing slash says that it is a folder, whatever its name.
        let slash = if table.location.ends_with('/') { "/" } else { "" };
        Ok(TableDef { location: format!("{url}{slash}"), schema: Some(schema), ..table })
    }

    /// Whether a view may be put: it must not read itself and must plan.
    pub async fn check_view(&self, view: &ViewDef) -> Result<()> {
        check_acyclic(self, view)?;
        self.open_view(view).await.map(|_| ())
    }

    /// Whether a function may be put: it must not hide a built-in one, and where its parameters have types, its
    /// body must plan.
    pub async fn check_function(&self, function: &FunctionDef) -> Result<()> {
        let base = &self.inner.base;
        let built_in = base.scalar_functions().contains_key(&function.name)
            || base.aggregate_functions().contains_key(&function.name)
            || base.window_functions().contains_key(&function.name)
            || base.higher_order_functions().contains_key(&function.name)
            || base.table_functions().contains_key(&function.name)
            || ["deduplicate", "hop", "session", "tumble", "window"].contains(&function.name.as_str());
        if built_in {
            let message = format!("`{}` is a built-in function", function.name);
            return Err(Error::new(Code::AlreadyExists, message).hint("choose another name"));
        }
        let Some(sql) = trial(function) else { return Ok(()) };
        let crate::Statement::Query(query) = parse(&sql, &function.default_schema)? else {
            return Err(Error::internal(format!("`{sql}` is no query")));
        };
        let builder = SessionStateBuilder::new_from_existing(self.inner.base.clone());
        let mut state = self.session(builder, &function.default_schema).build();
        let tried = Arc::new(self.inner.macros.with(function.clone()));
        *state.config_mut() = state.config().clone().with_extension(tried);
        let planned = plan_query(&state, query).await;
        planned.map(|_| ()).map_err(|error| error.context(format!("function {}", function.name)))
    }

    /// The newest state of a table or view; `None` when there is none of that name.
    pub async fn open(&self, name: &TableName) -> Result<Option<Arc<dyn TableProvider>>> {
        if let Some(view) = self.view(name) {
            return self.open_view(&view).await.map(Some);
        }
        if let Some(table) = self.table(name) {
            return self.open_table(&table).await.map(Some);
        }
        if let Some((table, past)) = Past::split(&name.name) {
            return self.open_past(&TableName::new(&name.schema, table), past).await;
        }
        if name.name.contains('/') {
            return self.open_path(name).await;
        }
        let location = self.default_location(name)?;
        if self.inner.lake.exists(&location).await? {
            return self.inner.lake.open(&location).await.map(Some);
        }
        if self.definitions().is_source(&name.name) {
            let message = format!("`{}` is a source, not a table", name.name);
            return Err(Error::new(Code::Unsupported, message)
                .hint("only CREATE STREAMING TABLE … AS SELECT reads sources"));
        }
        Ok(None)
    }

    /// A Delta table as it was, by definition, under the root, or by its path.
    async fn open_past(&self, name: &TableName, past: Past) -> Result<Option<Arc<dyn TableProvider>>> {
        let refuse = |what: &str| {
            Error::new(Code::Unsupported, format!("`{}` is {what}, which has no versions", name.name))
                .hint("only Delta tables have versions")
        };
        let location = match self.table(name) {
            _ if self.view(name).is_some() => return Err(refuse("a view")),
            Some(table) if table.format == TableFormat::Delta => store::location(&table.location)?,
            Some(table) => return Err(refuse(&format!("a table of {} files", files::name(table.format)))),
            None if name.name.contains('/') => store::location(&name.name)?,
            None => self.default_location(name)?,
        };
        if !self.inner.lake.exists(&location).await? {
            return Ok(None);
        }
        let opened = match past {
            Past::At(version) => self.inner.lake.open_at(&location, version).await,
            Past::Changes(from, to) => self.inner.lake.changes(&location, from, to).await,
        };
        opened.map(Some).map_err(|error| error.context(format!("table {name}")))
    }

    async fn open_table(&self, table: &TableDef) -> Result<Arc<dyn TableProvider>> {
        let place = |error: Error| error.context(format!("table {}", table.name));
        match (&table.format, &table.schema) {
            (TableFormat::Delta, _) => {
                let location = store::location(&table.location)?;
                self.inner.lake.open(&location).await.map_err(place)
            }
            (_, Some(schema)) => files::open(&self.inner.base, table, schema.clone()).map_err(place),
            (_, None) => {
                let schema = files::infer_schema(&self.inner.base, table).await.map_err(place)?;
                files::open(&self.inner.base, table, schema).map_err(place)
            }
        }
    }

    /// `SELECT … FROM 'folder/file.parquet'`, or from a folder that is a Delta table.
    async fn open_path(&self, name: &TableName) -> Result<Option<Arc<dyn TableProvider>>> {
        let Some(format) = files::format_of(&name.name) else {
            let url = store::location(&name.name)?;
            if self.inner.lake.exists(&url).await? {
                return self.inner.lake.open(&url).await.map(Some);
            }
            return Err(Error::new(Code::NotFound, format!("`{}` is neither a file nor a table", name.name))
                .hint("a .parquet, .csv or .json file, or the folder of a Delta table"));
        };
        let table = TableDef {
            name: name.clone(),
            format,
            location: name.name.clone(),
            external: true,
            schema: None,
            partition_by: Arc::new(Schema::empty()),
            options: BTreeMap::new(),
        };
        self.open_table(&table).await.map(Some)
    }

    async fn open_view(&self, view: &ViewDef) -> Result<Arc<dyn TableProvider>> {
        let place = |error: Error| error.context(format!("view {}", view.name));
        let builder = SessionStateBuilder::new_from_existing(self.inner.base.clone());
        let state = self.session(builder, &view.default_schema).build();
        let plan = plan_query(&state, view.parse_query()?).await.map_err(place)?;
        Ok(Arc::new(ViewTable::new(plan, Some(view.query.clone()))))
    }

    fn definitions(&self) -> RwLockReadGuard<'_, Definitions> {
        self.inner.definitions.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CatalogProviderList for Catalog {
    fn register_catalog(&self, _: String, _: Arc<dyn CatalogProvider>) -> Option<Arc<dyn CatalogProvider>> {
        None
    }

    fn catalog_names(&self) -> Vec<String> {
        vec![CATALOG.to_owned()]
    }

    fn catalog(&self, name: &str) -> Option<Arc<dyn CatalogProvider>> {
        (name == CATALOG).then(|| Arc::new(self.clone()) as Arc<dyn CatalogProvider>)
    }
}

impl CatalogProvider for Catalog {
    fn schema_names(&self) -> Vec<String> {
        let mut names = self.definitions().schemas();
        names.insert(SYSTEM_SCHEMA.to_owned());
        names.into_iter().collect()
    }

    fn schema(&self, name: &str) -> Option<Arc<dyn SchemaProvider>> {
        if name == INFORMATION_SCHEMA {
            return Some(information_schema(self, self.inner.base.table_functions().clone()));
        }
        if name == SYSTEM_SCHEMA {
            return Some(Arc::new(SystemSchema { tables: self.inner.system.clone() }));
        }
        // A schema that nobody declared may still have tables under the root.
        Some(Arc::new(LakeSchema { catalog: self.clone(), name: name.to_owned() }))
    }
}
