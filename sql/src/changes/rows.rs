//! DELETE, UPDATE and REPLACE WHERE.

use super::condition::{demand_value, filter, mentions_subquery};
use super::{FILE_NUMBER, ROW_ACTION, Target, action};
use crate::name::quote;
use tidemill_core::Result;

/// Files with rows that pass the condition, and how many: `(file, rows)`.
pub fn touched(target: &Target, condition: &str) -> Result<String> {
    let (number, condition) = (target.column(FILE_NUMBER), filter(condition)?);
    Ok(format!("SELECT {number}, count(*) FROM {} WHERE {condition} GROUP BY {number}", target.table()))
}

/// The rows that a DELETE leaves.
pub fn deleted(target: &Target, condition: &str) -> Result<String> {
    let columns: Vec<String> = target.written().map(|column| target.column(&column.name)).collect();
    let (columns, condition) = (columns.join(", "), filter(condition)?);
    Ok(format!("SELECT {columns} FROM {} WHERE ({condition}) IS NOT TRUE", target.table()))
}

/// All rows, those that pass the condition with new values.
pub fn updated(target: &Target, set: &[(String, String)], condition: Option<&str>) -> Result<String> {
    for (name, value) in set {
        target.find(name)?;
        demand_value(&format!("UPDATE SET {}", quote(name)), value)?;
    }
    let condition = condition.map(filter).transpose()?;
    let condition = condition.as_deref();
    let (mut changed, mut plain, mut either) = (Vec::new(), Vec::new(), Vec::new());
    for column in target.written() {
        let (old, name) = (target.column(&column.name), quote(&column.name));
        let new = match set.iter().find(|(name, _)| *name == column.name) {
            Some((_, expression)) => {
                let new = column.cast(expression);
                if let Some(condition) = condition {
                    either.push(format!("CASE WHEN {condition} THEN {new} ELSE {old} END AS {name}"));
                }
                new
            }
            None => {
                either.push(old.clone());
                old.clone()
            }
        };
        changed.push(format!("{new} AS {name}"));
        plain.push(format!("{old} AS {name}"));
    }
    let from = target.table();
    Ok(match condition {
        None => format!("SELECT {} FROM {from}", changed.join(", ")),
        // A subquery cannot be planned within CASE; as a filter it becomes a join.
        Some(condition) if mentions_subquery(condition) => format!(
            "SELECT {} FROM {from} WHERE {condition} UNION ALL \
             SELECT {} FROM {from} WHERE ({condition}) IS NOT TRUE",
            changed.join(", "),
            plain.join(", ")
        ),
        Some(_) => format!("SELECT {} FROM {from}", either.join(", ")),
    })
}

/// The rows that REPLACE WHERE leaves, and the new ones, given as a query of all columns in the table's order.
///
/// # Errors
/// `Code::Unsupported` where the condition asks whether rows are in a query: new rows are not filtered by it.
pub fn replaced(target: &Target, condition: &str, new: &str) -> Result<String> {
    demand_value("REPLACE WHERE", condition)?;
    let columns = |row_action: &str| {
        let columns = target.written().map(|column| target.column(&column.name));
        columns.chain([row_action.to_owned()]).collect::<Vec<_>>().join(", ")
    };
    let passes = format!(
        "CASE WHEN {condition} THEN {} ELSE {} END AS {ROW_ACTION}",
        cast(action::INSERT),
        cast(action::REFUSED)
    );
    Ok(format!(
        "SELECT {} FROM {} WHERE ({condition}) IS NOT TRUE UNION ALL SELECT {} FROM ({new}) AS {}",
        columns(&format!("{} AS {ROW_ACTION}", cast(action::COPY))),
        target.table(),
        columns(&passes),
        quote(&target.alias),
    ))
}

/// An action as SQL.
pub(super) fn cast(action: i8) -> String {
    format!("arrow_cast({action}, 'Int8')")
}
