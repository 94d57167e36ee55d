//! DELETE, UPDATE and REPLACE WHERE.

use super::{FILE_NUMBER, ROW_ACTION, Target, action};
use crate::name::quote;
use tidemill_core::Result;

/// Files with rows that pass the condition, and how many: `(file, rows)`.
pub fn touched(target: &Target, condition: &str) -> String {
    let number = target.column(FILE_NUMBER);
    format!("SELECT {number}, count(*) FROM {} WHERE {condition} GROUP BY {number}", target.table())
}

/// The rows that a DELETE leaves.
pub fn deleted(target: &Target, condition: &str) -> String {
    let columns: Vec<String> = target.written().map(|column| target.column(&column.name)).collect();
    format!("SELECT {} FROM {} WHERE ({condition}) IS NOT TRUE", columns.join(", "), target.table())
}

/// All rows, those that pass the condition with new values.
pub fn updated(target: &Target, set: &[(String, String)], condition: Option<&str>) -> Result<String> {
    for (name, _) in set {
        target.find(name)?;
    }
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
        Some(condition) if has_subquery(condition) => format!(
            "SELECT {} FROM {from} WHERE {condition} UNION ALL \
             SELECT {} FROM {from} WHERE ({condition}) IS NOT TRUE",
            changed.join(", "),
            plain.join(", ")
        ),
        Some(_) => format!("SELECT {} FROM {from}", either.join(", ")),
    })
}

/// The rows that REPLACE WHERE leaves, and the new ones, given as a query of all columns in the table's order.
pub fn replaced(target: &Target, condition: &str, new: &str) -> String {
    let columns = |row_action: &str| {
        let columns = target.written().map(|column| target.column(&column.name));
        columns.chain([row_action.to_owned()]).collect::<Vec<_>>().join(", ")
    };
    let passes = format!(
        "CASE WHEN {condition} THEN {} ELSE {} END AS {ROW_ACTION}",
        cast(action::INSERT),
        cast(action::REFUSED)
    );
    format!(
        "SELECT {} FROM {} WHERE ({condition}) IS NOT TRUE UNION ALL SELECT {} FROM ({new}) AS {}",
        columns(&format!("{} AS {ROW_ACTION}", cast(action::COPY))),
        target.table(),
        columns(&passes),
        quote(&target.alias),
    )
}

/// An action as SQL.
pub(super) fn cast(action: i8) -> String {
    format!("arrow_cast({action}, 'Int8')")
}

/// Whether there may be one; a mere word in a string does no harm.
fn has_subquery(condition: &str) -> bool {
    condition.to_uppercase().contains("SELECT")
}
