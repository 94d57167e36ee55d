//! Comments, functions, changes of views, temporary views, and schemas with everything in them.

use super::SqlFrontend;
use super::answers::nothing;
use super::api::{Answer, SessionId};
use super::define::Definer;
use super::definitions::IfThere;
use super::session::Session;
use arrow::datatypes::Schema;
use std::sync::Arc;
use tidemill_core::{Code, Error, Result, store};
use tidemill_sql::TableName;
use tidemill_sql::catalog::Change;
use tidemill_sql::statement::{
    AlterView, Comment, CreateFunction, CreateView, FunctionDef, ObjectKind, TableFormat, ViewChange, ViewDef,
};
use url::Url;

impl Definer {
    pub(super) async fn function(&self, create: CreateFunction) -> Result<Answer> {
        self.catalog.check_function(&create.function).await?;
        let if_there = IfThere::of(create.or_replace, create.if_not_exists);
        if self.definitions.put(&create.function, if_there).await? {
            self.catalog.apply(Change::PutFunction(create.function));
        }
        Ok(nothing())
    }

    pub(super) async fn drop_function(&self, name: &str, if_exists: bool) -> Result<Answer> {
        if self.catalog.function(name).is_none() && if_exists {
            return Ok(nothing());
        }
        self.definitions.find::<FunctionDef>(name).await?;
        self.definitions.remove::<FunctionDef>(name).await?;
        self.catalog.apply(Change::DropFunction(name.to_owned()));
        Ok(nothing())
    }

    pub(super) async fn alter_view(&self, alter: AlterView) -> Result<Answer> {
        let old = self.definitions.find::<ViewDef>(&alter.name.to_string()).await?;
        match alter.change {
            ViewChange::Query { query, default_schema } => {
                let view = ViewDef { query, default_schema, columns: Vec::new(), ..old };
                self.catalog.check_view(&view).await?;
                self.put_view(view, IfThere::Replace).await?;
            }
            ViewChange::Rename(name) => {
                if self.catalog.table(&name).is_some() {
                    return Err(Error::new(Code::AlreadyExists, format!("there is a table `{name}`"))
                        .hint("choose another name"));
                }
                let view = ViewDef { name, ..old };
                self.catalog.check_view(&view).await?;
                self.put_view(view, IfThere::Fail).await?;
                self.drop_view(&alter.name, false).await?;
            }
        }
        Ok(nothing())
    }

    async fn put_view(&self, view: ViewDef, if_there: IfThere) -> Result<()> {
        if self.definitions.put(&view, if_there).await? {
            self.catalog.apply(Change::PutView(view));
        }
        Ok(())
    }

    pub(super) async fn comment(&self, comment: Comment) -> Result<Answer> {
        if self.catalog.view(&comment.table).is_some() {
            let mut view = self.definitions.find::<ViewDef>(&comment.table.to_string()).await?;
            let text = Some(comment.text).filter(|text| !text.is_empty());
            match (comment.column, text) {
                (None, text) => view.comment = text,
                (Some(column), text) => {
                    let provider = self.catalog.open(&view.name).await?;
                    let schema = provider.map_or_else(|| Arc::new(Schema::empty()), |view| view.schema());
                    if schema.field_with_name(&column).is_err() {
                        let columns = schema.fields().iter().map(|field| field.name().as_str());
                        return Err(Error::new(Code::UnknownColumn, format!("no column `{column}`"))
                            .suggest(&column, columns));
                    }
                    match text {
                        Some(text) => view.column_comments.insert(column, text),
                        None => view.column_comments.remove(&column),
                    };
                }
            }
            self.put_view(view, IfThere::Replace).await?;
            return Ok(nothing());
        }
        match self.delta_location(&comment.table).await? {
            Some(location) => self.lake.comment(&location, comment.column.as_deref(), &comment.text).await?,
            None if self.catalog.table(&comment.table).is_some() => {
                let message = format!("a comment on `{}`, which is made of foreign files", comment.table);
                return Err(
                    Error::new(Code::Unsupported, message).hint("Delta tables and views have comments")
                );
            }
            None => {
                let names = self.catalog.names(&comment.table.schema);
                let names = names.iter().map(String::as_str);
                return Err(Error::new(Code::UnknownObject, format!("no table `{}`", comment.table))
                    .suggest(&comment.table.name, names));
            }
        }
        Ok(nothing())
    }

    /// Where the Delta table of this name is; `None` for what is no Delta table.
    pub(super) async fn delta_location(&self, name: &TableName) -> Result<Option<Url>> {
        if let Some(table) = self.catalog.table(name) {
            let delta = table.format == TableFormat::Delta;
            return if delta { store::location(&table.location).map(Some) } else { Ok(None) };
        }
        let location = self.catalog.default_location(name)?;
        Ok(self.lake.exists(&location).await?.then_some(location))
    }
}

impl SqlFrontend {
    pub(super) async fn temporary_view(
        &self,
        id: &SessionId,
        session: &Session,
        create: CreateView,
    ) -> Result<Answer> {
        let view = create.view;
        if view.name.schema != session.schema {
            let message = format!("`{}`: a temporary view is in the session's own schema", view.name);
            return Err(Error::new(Code::InvalidStatement, message).hint("name it without a schema"));
        }
        if session.has_temporary_view(&view.name) && !create.or_replace {
            if create.if_not_exists {
                return Ok(nothing());
            }
            let message = format!("there is a temporary view `{}`", view.name.name);
            return Err(Error::new(Code::AlreadyExists, message)
                .hint("CREATE OR REPLACE TEMPORARY VIEW, or DROP VIEW it"));
        }
        session.catalog().unwrap_or(&self.catalog).check_view(&view).await?;
        self.sessions.change(id, |session| {
            session.put_temporary_view(view);
            Ok(())
        })?;
        Ok(nothing())
    }

    pub(super) fn drop_temporary_view(&self, id: &SessionId, name: &TableName) -> Result<Answer> {
        self.sessions.change(id, |session| {
            session.drop_temporary_view(&name.name);
            Ok(())
        })?;
        Ok(nothing())
    }

    /// `DROP SCHEMA … CASCADE`. Streaming tables are not dropped by the way: nothing is, where there is one.
    pub(super) async fn drop_all(&self, schema: &str, if_exists: bool) -> Result<Answer> {
        let names: Vec<TableName> =
            self.catalog.names(schema).into_iter().map(|name| TableName::new(schema, name)).collect();
        if let Some(streaming) = names.iter().find(|name| self.operator.pipeline_of(name).is_some()) {
            let message = format!("schema `{schema}` holds the streaming table `{streaming}`");
            return Err(Error::new(Code::InvalidStatement, message)
                .hint(format!("DROP STREAMING TABLE {streaming} first")));
        }
        let (views, tables): (Vec<_>, Vec<_>) =
            names.into_iter().partition(|name| self.catalog.view(name).is_some());
        for view in views {
            self.drop_object(ObjectKind::View(view), true).await?;
        }
        for table in tables {
            self.drop_object(ObjectKind::Table(table), true).await?;
        }
        self.definer.drop_schema(schema, if_exists).await
    }
}
