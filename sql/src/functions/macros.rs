//! Functions written in SQL: where one is called, its body is put in its place before the query is planned.
//!
//! ```text
//! CREATE FUNCTION vat(price DOUBLE, rate DOUBLE DEFAULT 0.2) RETURNS DOUBLE RETURN price * rate
//! SELECT vat(p) FROM t  ─▶  SELECT CAST((CAST(p AS DOUBLE) * CAST(0.2 AS DOUBLE)) AS DOUBLE) AS "vat(p)" FROM t
//! ```
//! An argument stands wherever its parameter does, so a random one may have another value in each place.

use crate::CATALOG;
use crate::dialect::{normalize, parse_expr, parse_query};
use crate::name::quote;
use crate::statement::{FunctionDef, Parameter};
use datafusion::sql::parser::Statement as DfStatement;
use datafusion::sql::resolve::resolve_table_references;
use datafusion::sql::sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, ObjectName, ObjectNamePart,
    Query, Select, SelectItem, Statement as SqlStatement, TableAlias, TableFactor, VisitMut, VisitorMut,
};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::{Arc, PoisonError, RwLock};
use tidemill_core::{Code, Error, Result};
use tidemill_engine::from_datafusion;

/// Calls within calls; beyond this the plan would be larger than anybody meant.
const DEEPEST: usize = 32;

/// The functions that all sessions know. Sessions carry them as an extension of their configuration.
#[derive(Debug, Default)]
pub struct Macros {
    functions: RwLock<BTreeMap<String, Arc<FunctionDef>>>,
}

impl Macros {
    pub fn put(&self, function: FunctionDef) {
        let mut functions = self.functions.write().unwrap_or_else(PoisonError::into_inner);
        functions.insert(function.name.clone(), Arc::new(function));
    }

    pub fn remove(&self, name: &str) {
        self.functions.write().unwrap_or_else(PoisonError::into_inner).remove(name);
    }

    pub fn get(&self, name: &str) -> Option<Arc<FunctionDef>> {
        self.functions.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// The same functions and one more, to try it out.
    pub(crate) fn with(&self, function: FunctionDef) -> Self {
        let functions = self.functions.read().unwrap_or_else(PoisonError::into_inner).clone();
        let tried = Self { functions: RwLock::new(functions) };
        tried.put(function);
        tried
    }

    fn is_empty(&self) -> bool {
        self.functions.read().unwrap_or_else(PoisonError::into_inner).is_empty()
    }
}

/// Puts the bodies of all functions of `macros` that the query calls, subqueries included.
pub fn inline(query: &mut Query, macros: &Macros) -> Result<()> {
    if macros.is_empty() {
        return Ok(());
    }
    visit(query, &mut Inliner::over(macros))
}

pub(super) fn visit<V: VisitorMut<Break = Box<Error>>>(
    node: &mut impl VisitMut,
    visitor: &mut V,
) -> Result<()> {
    match node.visit(visitor) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(*error),
    }
}

pub(super) fn flow(result: Result<()>) -> ControlFlow<Box<Error>> {
    match result {
        Ok(()) => ControlFlow::Continue(()),
        Err(error) => ControlFlow::Break(Box::new(error)),
    }
}

pub(super) struct Inliner<'a> {
    macros: &'a Macros,
    /// The functions whose bodies this is in.
    within: Vec<String>,
}

impl VisitorMut for Inliner<'_> {
    type Break = Box<Error>;

    /// A column keeps the name of the call that it was.
    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<Self::Break> {
        for item in &mut select.projection {
            if let SelectItem::UnnamedExpr(Expr::Function(call)) = item
                && self.called(&call.name).is_some()
            {
                let alias = Ident::with_quote('"', call.to_string());
                *item = SelectItem::ExprWithAlias { expr: Expr::Function(call.clone()), alias };
            }
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Self::Break> {
        flow(self.expr(expr))
    }

    fn post_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<Self::Break> {
        flow(self.table_factor(factor))
    }
}

impl<'a> Inliner<'a> {
    pub(super) fn over(macros: &'a Macros) -> Self {
        Self { macros, within: Vec::new() }
    }

    fn called(&self, name: &ObjectName) -> Option<Arc<FunctionDef>> {
        match name.0.as_slice() {
            [part] => self.macros.get(&normalize(part.as_ident()?.clone())),
            _ => None,
        }
    }

    fn expr(&self, expr: &mut Expr) -> Result<()> {
        if let Expr::Function(call) = expr
            && let Some(function) = self.called(&call.name)
        {
            *expr = self.scalar(&function, call)?;
        }
        Ok(())
    }

    fn table_factor(&self, factor: &mut TableFactor) -> Result<()> {
        let (name, args, alias, lateral) = match factor {
            TableFactor::Table { name, args: Some(args), alias, .. } => (name, &args.args, alias, false),
            TableFactor::Function { name, args, alias, lateral, .. } => (name, &*args, alias, *lateral),
            _ => return Ok(()),
        };
        let Some(function) = self.called(name) else { return Ok(()) };
        let subquery = self.table(&function, args)?;
        let alias = alias.take().unwrap_or_else(|| TableAlias {
            explicit: true,
            name: Ident::with_quote('"', &function.name),
            columns: Vec::new(),
            at: None,
        });
        *factor = TableFactor::Derived { lateral, subquery, alias: Some(alias), sample: None };
        Ok(())
    }

    /// The body with a call's arguments in it.
    pub(super) fn scalar(&self, function: &FunctionDef, call: &Function) -> Result<Expr> {
        let Some(mut body) = function.scalar()? else {
            let message = format!("`{}` is a table function", function.name);
            return Err(Error::new(Code::InvalidStatement, message)
                .hint(format!("SELECT * FROM {}", function.usage())));
        };
        let plain = call.over.is_none()
            && call.filter.is_none()
            && call.null_treatment.is_none()
            && call.within_group.is_empty();
        let args: &[FunctionArg] = match &call.args {
            FunctionArguments::None => &[],
            FunctionArguments::List(list)
                if plain && list.duplicate_treatment.is_none() && list.clauses.is_empty() =>
            {
                &list.args
            }
            _ => {
                let message = format!("`{call}`: DISTINCT, FILTER and OVER belong into the function's body");
                return Err(Error::new(Code::Unsupported, message).hint(function.usage()));
            }
        };
        let reads = unqualified(parse_query(&format!("SELECT {body}"))?)?;
        self.fill(function, args, &reads, &mut body)?;
        Ok(body)
    }

    fn table(&self, function: &FunctionDef, args: &[FunctionArg]) -> Result<Box<Query>> {
        let Some(mut body) = function.table()? else {
            let message = format!("`{}` is no table function", function.name);
            return Err(
                Error::new(Code::InvalidStatement, message).hint(format!("SELECT {}", function.usage()))
            );
        };
        let reads = unqualified(body.clone())?;
        self.fill(function, args, &reads, &mut *body)?;
        Ok(body)
    }

    /// Inlines what the body calls, and then puts the arguments in.
    fn fill(
        &self,
        function: &FunctionDef,
        args: &[FunctionArg],
        reads: &BTreeSet<String>,
        body: &mut impl VisitMut,
    ) -> Result<()> {
        if self.within.contains(&function.name) {
            let message = format!("the function `{}` calls itself", function.name);
            return Err(Error::new(Code::InvalidStatement, message).hint("WITH RECURSIVE can repeat"));
        }
        if self.within.len() == DEEPEST {
            let message = format!("functions call each other more than {DEEPEST} deep");
            return Err(Error::new(Code::Unsupported, message));
        }
        let arguments = bind(function, args)?;
        // Before anything else is put in: what comes from elsewhere has its own schema.
        visit(body, &mut Qualify { schema: &function.default_schema, reads })?;
        let mut within = self.within.clone();
        within.push(function.name.clone());
        visit(body, &mut Inliner { macros: self.macros, within })?;
        visit(body, &mut Substitute { arguments: &arguments })
    }
}

/// What each parameter stands for in this call.
fn bind(function: &FunctionDef, args: &[FunctionArg]) -> Result<BTreeMap<String, Expr>> {
    let wrong = |message: String| Error::new(Code::InvalidStatement, message).hint(function.usage());
    let mut given: BTreeMap<String, Expr> = BTreeMap::new();
    for (position, arg) in args.iter().enumerate() {
        let (name, arg) = match arg {
            FunctionArg::Unnamed(arg) => (function.parameters.get(position).map(|at| at.name.clone()), arg),
            FunctionArg::Named { name, arg, .. }
            | FunctionArg::ExprNamed { name: Expr::Identifier(name), arg, .. } => {
                (Some(normalize(name.clone())), arg)
            }
            FunctionArg::ExprNamed { name, .. } => {
                return Err(wrong(format!("{}: `{name}` is no parameter", function.name)));
            }
        };
        let FunctionArgExpr::Expr(expr) = arg else {
            return Err(wrong(format!("{}: `{arg}` is no argument", function.name)));
        };
        let Some(name) = name else {
            return Err(wrong(format!("{} takes {} arguments", function.name, function.parameters.len())));
        };
        if !function.parameters.iter().any(|parameter| parameter.name == name) {
            return Err(wrong(format!("{} has no parameter `{name}`", function.name)));
        }
        if given.insert(name.clone(), expr.clone()).is_some() {
            return Err(wrong(format!("{}: `{name}` is given twice", function.name)));
        }
    }
    let mut arguments = BTreeMap::new();
    for parameter in &function.parameters {
        let value = match (given.remove(&parameter.name), &parameter.default) {
            (Some(value), _) => value,
            (None, Some(default)) => parse_expr(default)?,
            (None, None) => {
                return Err(wrong(format!("{}: `{}` is not given", function.name, parameter.name)));
            }
        };
        arguments.insert(parameter.name.clone(), cast(value, parameter.data_type.as_deref())?);
    }
    Ok(arguments)
}

fn cast(value: Expr, to: Option<&str>) -> Result<Expr> {
    let Some(to) = to else { return Ok(Expr::Nested(Box::new(value))) };
    let mut cast = parse_expr(&format!("CAST(NULL AS {to})"))?;
    if let Expr::Cast { expr, .. } = &mut cast {
        **expr = value;
    }
    Ok(cast)
}

struct Substitute<'a> {
    arguments: &'a BTreeMap<String, Expr>,
}

impl VisitorMut for Substitute<'_> {
    type Break = Box<Error>;

    // After its children: what was put in is not looked at again.
    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Self::Break> {
        if let Expr::Identifier(ident) = expr
            && let Some(argument) = self.arguments.get(&normalize(ident.clone()))
        {
            *expr = argument.clone();
        }
        ControlFlow::Continue(())
    }
}

/// Makes the unqualified tables of a body the ones of the schema in which the function was made.
struct Qualify<'a> {
    schema: &'a str,
    reads: &'a BTreeSet<String>,
}

impl VisitorMut for Qualify<'_> {
    type Break = Box<Error>;

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<Self::Break> {
        if let TableFactor::Table { name: relation, args: None, .. } = factor
            && let [ObjectNamePart::Identifier(name)] = relation.0.as_slice()
            && self.reads.contains(&normalize(name.clone()))
        {
            let parts = [CATALOG, self.schema].map(|part| Ident::with_quote('"', part));
            relation.0.splice(0..0, parts.map(ObjectNamePart::Identifier));
        }
        ControlFlow::Continue(())
    }
}

/// The tables that a query reads by a name of one part; names of its WITH are not among them.
fn unqualified(query: Box<Query>) -> Result<BTreeSet<String>> {
    let statement = DfStatement::Statement(Box::new(SqlStatement::Query(query)));
    let (references, _) = resolve_table_references(&statement, true).map_err(from_datafusion)?;
    let bare = references.into_iter().filter(|name| name.schema().is_none());
    Ok(bare.map(|name| name.table().to_owned()).collect())
}

/// A query that calls the function with nothing but typed NULLs; `None` where a parameter has no type.
pub(crate) fn trial(function: &FunctionDef) -> Option<String> {
    let null = |parameter: &Parameter| {
        parameter.data_type.as_ref().map(|data_type| format!("CAST(NULL AS {data_type})"))
    };
    let nulls: Vec<String> = function.parameters.iter().map(null).collect::<Option<_>>()?;
    let call = format!("{}({})", quote(&function.name), nulls.join(", "));
    Some(if function.is_table() { format!("SELECT * FROM {call}") } else { format!("SELECT {call}") })
}
