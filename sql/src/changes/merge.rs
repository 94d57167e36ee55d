//! MERGE: target and source joined, and what the first clause that applies makes of each row.

use super::condition::{demand_plain, demand_value};
use super::rows::cast;
use super::{FILE_NUMBER, ROW_ACTION, Target, TargetColumn, action};
use crate::name::quote;
use crate::statement::{Merge, MergeAction, MergeClause, MergeWhen};
use arrow::datatypes::{Field, Schema};
use tidemill_core::{Code, Error, Result};

/// True in every row of the source, and NULL where there is none.
const IN_SOURCE: &str = "__in_source";

/// The source's columns that a MERGE adds to the table: none unless it is one WITH SCHEMA EVOLUTION; all that the
/// table lacks where a clause says `*`, else those of them that a clause names.
pub fn added_columns(target: &Target, merge: &Merge, source: &Schema) -> Result<Schema> {
    let is_wanted = |name: &str| {
        merge.clauses.iter().any(|clause| match &clause.action {
            MergeAction::Delete => false,
            MergeAction::UpdateAll | MergeAction::InsertAll => true,
            MergeAction::Update(list) | MergeAction::Insert(list) => {
                list.iter().any(|(column, _)| column == name)
            }
        })
    };
    let mut added = Vec::new();
    for field in source.fields().iter().filter(|field| merge.evolve && is_wanted(field.name())) {
        let name = field.name();
        match target.columns.iter().find(|column| column.name.eq_ignore_ascii_case(name)) {
            Some(column) if column.name == *name => {}
            // Delta does not tell such names apart.
            Some(TargetColumn { name: known, .. }) => {
                let message =
                    format!("`{name}` of the source and `{known}` of the table differ in case only");
                return Err(Error::new(Code::InvalidStatement, message)
                    .hint(format!("name it {} in the source, with AS", quote(known))));
            }
            None => added.push(Field::new(name, field.data_type().clone(), true)),
        }
    }
    Ok(Schema::new(added))
}

/// The queries of one MERGE.
#[derive(Debug)]
pub struct MergeQueries<'a> {
    target: &'a Target,
    merge: &'a Merge,
    /// The source's columns.
    source: Vec<String>,
}

impl<'a> MergeQueries<'a> {
    /// `source` are the columns that the query [`source`](Self::source) gives.
    ///
    /// # Errors
    /// `Code::Unsupported` for subqueries where the join of target and source cannot have them.
    pub fn new(target: &'a Target, merge: &'a Merge, source: Vec<String>) -> Result<Self> {
        demand_plain("MERGE … ON", &merge.on)?;
        for clause in &merge.clauses {
            if let Some(condition) = &clause.condition {
                demand_value("MERGE … WHEN", condition)?;
            }
            if let MergeAction::Update(list) | MergeAction::Insert(list) = &clause.action {
                list.iter()
                    .try_for_each(|(name, value)| demand_value(&format!("MERGE … {}", quote(name)), value))?;
            }
        }
        Ok(Self { target, merge, source })
    }

    /// The source by itself.
    pub fn source(merge: &Merge) -> String {
        format!("SELECT * FROM {} AS {}", merge.source, quote(&merge.source_alias))
    }

    pub fn has(&self, when: MergeWhen) -> bool {
        self.merge.clauses.iter().any(|clause| clause.when == when)
    }

    /// Whether it does no harm that several rows of the source match one row of the target.
    pub fn allows_several_matches(&self) -> bool {
        let mut matched = self.merge.clauses.iter().filter(|clause| clause.when == MergeWhen::Matched);
        match (matched.next(), matched.next()) {
            (None, _) => true,
            (Some(clause), None) => clause.condition.is_none() && clause.action == MergeAction::Delete,
            _ => false,
        }
    }

    /// Files with rows that matter to the merge, and how many matches: `(file, matches)`.
    pub fn touched(&self) -> String {
        let number = self.target.column(FILE_NUMBER);
        let mut on = format!("({})", self.merge.on);
        let conditions: Option<Vec<String>> = self
            .clauses(MergeWhen::Matched)
            .map(|clause| clause.condition.as_ref().map(|condition| format!("({condition})")))
            .collect();
        // Who inserts what does not match has to see every match, changed or not.
        if let Some(conditions) = conditions
            && !conditions.is_empty()
            && !self.has(MergeWhen::NotMatched)
        {
            on = format!("{on} AND ({})", conditions.join(" OR "));
        }
        format!(
            "SELECT {number}, count(*) FROM {} JOIN {} ON {on} GROUP BY {number}",
            self.target.table(),
            self.source_table(),
        )
    }

    /// All that decides what happens to a row, to be looked at and not to be run.
    pub fn conditions(&self) -> String {
        let conditions = self.merge.clauses.iter().filter_map(|clause| clause.condition.as_deref());
        let all: Vec<String> =
            [self.merge.on.as_str()].into_iter().chain(conditions).map(|text| format!("({text})")).collect();
        format!(
            "SELECT 1 FROM {} CROSS JOIN {} WHERE {}",
            self.target.table(),
            self.source_table(),
            all.join(" AND ")
        )
    }

    /// All rows of the target's touched files and of the source, with what happens to them.
    pub fn merged(&self) -> Result<String> {
        let kinds = [MergeWhen::Matched, MergeWhen::NotMatchedBySource];
        if !kinds.into_iter().any(|when| self.has(when)) {
            return self.inserted();
        }
        let join = if self.has(MergeWhen::NotMatched) { "FULL" } else { "LEFT" };
        let clauses: Vec<&MergeClause> = self.merge.clauses.iter().collect();
        let outside = format!("WHEN {} IS NULL THEN {}", self.in_target(), cast(action::NOTHING));
        Ok(format!(
            "SELECT {} FROM {} {join} JOIN {} ON {}",
            self.columns(&clauses, |column| self.old(column), &outside)?,
            self.target.table(),
            self.source_table(),
            self.merge.on,
        ))
    }

    /// Only inserts: the target need not be rewritten.
    fn inserted(&self) -> Result<String> {
        let clauses: Vec<&MergeClause> = self.clauses(MergeWhen::NotMatched).collect();
        let outside = format!("WHEN true THEN {}", cast(action::NOTHING));
        Ok(format!(
            "SELECT {} FROM {} WHERE NOT EXISTS (SELECT 1 FROM {} WHERE {})",
            self.columns(&clauses, |_| "NULL".to_owned(), &outside)?,
            self.source_table(),
            self.target.table(),
            self.merge.on,
        ))
    }

    fn clauses(&self, when: MergeWhen) -> impl Iterator<Item = &MergeClause> {
        self.merge.clauses.iter().filter(move |clause| clause.when == when)
    }

    fn source_table(&self) -> String {
        let alias = quote(&self.merge.source_alias);
        format!("(SELECT *, true AS {IN_SOURCE} FROM {} AS {alias}) AS {alias}", self.merge.source)
    }

    fn in_target(&self) -> String {
        self.target.column(FILE_NUMBER)
    }

    /// The column as it is in the table.
    fn old(&self, column: &TargetColumn) -> String {
        match column.added {
            true => "NULL".to_owned(),
            false => self.target.column(&column.name),
        }
    }

    /// The list of a SELECT: every column, and what happens to the row.
    fn columns(
        &self,
        clauses: &[&MergeClause],
        otherwise: impl Fn(&TargetColumn) -> String,
        outside: &str,
    ) -> Result<String> {
        let alone = !self.has(MergeWhen::Matched) && !self.has(MergeWhen::NotMatchedBySource);
        let applies: Vec<String> = clauses.iter().map(|clause| self.applies(clause, alone)).collect();
        let mut columns = Vec::new();
        for column in self.target.written() {
            let mut cases = String::new();
            for (clause, applies) in clauses.iter().zip(&applies) {
                let value = match self.value(clause, column)? {
                    Some(expression) => column.cast(&expression),
                    None => otherwise(column),
                };
                cases.push_str(&format!(" WHEN {applies} THEN {value}"));
            }
            let (otherwise, name) = (otherwise(column), quote(&column.name));
            let value = column.cast(&format!("CASE{cases} ELSE {otherwise} END"));
            columns.push(format!("{value} AS {name}"));
        }
        let mut cases = String::new();
        for (clause, applies) in clauses.iter().zip(&applies) {
            let action = match clause.action {
                MergeAction::Delete => action::DELETE,
                MergeAction::Update(_) | MergeAction::UpdateAll => action::UPDATE,
                MergeAction::Insert(_) | MergeAction::InsertAll => action::INSERT,
            };
            cases.push_str(&format!(" WHEN {applies} THEN {}", cast(action)));
        }
        columns.push(format!("CASE{cases} {outside} ELSE {} END AS {ROW_ACTION}", cast(action::COPY)));
        Ok(columns.join(", "))
    }

    /// When a clause is considered at all, and its condition. `alone`: there is no target beside the source.
    fn applies(&self, clause: &MergeClause, alone: bool) -> String {
        let in_source = format!("{}.{IN_SOURCE}", quote(&self.merge.source_alias));
        let side = match clause.when {
            MergeWhen::NotMatched if alone => "true".to_owned(),
            MergeWhen::Matched => format!("{} IS NOT NULL AND {in_source} IS NOT NULL", self.in_target()),
            MergeWhen::NotMatched => format!("{} IS NULL", self.in_target()),
            MergeWhen::NotMatchedBySource => format!("{in_source} IS NULL"),
        };
        match &clause.condition {
            Some(condition) => format!("{side} AND ({condition})"),
            None => side,
        }
    }

    /// What a clause makes of a column; `None` where it stays.
    fn value(&self, clause: &MergeClause, column: &TargetColumn) -> Result<Option<String>> {
        let of_source = || -> Result<Option<String>> {
            match self.source.contains(&column.name) {
                true => Ok(Some(format!("{}.{}", quote(&self.merge.source_alias), quote(&column.name)))),
                false if self.merge.evolve => Ok(None),
                false => {
                    let message = format!("`*` needs the column `{}`, which the source lacks", column.name);
                    Err(Error::new(Code::UnknownColumn, message)
                        .hint("name the columns, or MERGE WITH SCHEMA EVOLUTION INTO …"))
                }
            }
        };
        let listed = |list: &[(String, String)]| -> Result<Option<String>> {
            for (name, _) in list {
                self.target.find(name)?;
            }
            let found = list.iter().find(|(name, _)| *name == column.name);
            Ok(found.map(|(_, expression)| expression.clone()))
        };
        match &clause.action {
            MergeAction::Delete => Ok(None),
            MergeAction::UpdateAll => of_source(),
            MergeAction::Update(set) => listed(set),
            MergeAction::InsertAll => Ok(of_source()?.or_else(|| Some("NULL".to_owned()))),
            MergeAction::Insert(values) => Ok(listed(values)?.or_else(|| Some("NULL".to_owned()))),
        }
    }
}
