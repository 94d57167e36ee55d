//! Jobs as tables for people.

use super::client::{Job, Row};
use comfy_table::{ContentArrangement, Table, presets};

const SQL_WIDTH: usize = 60;

pub(super) fn list(rows: &[Row]) -> String {
    let mut table = table();
    table.set_header(["id", "status", "user", "engine", "queued at", "rows", "sql"]);
    for row in rows {
        let queued = row.queued_at.clone().unwrap_or_default();
        table.add_row([
            row.id.clone(),
            row.status.clone(),
            row.user.clone(),
            row.engine.clone(),
            queued,
            row.rows.to_string(),
            short(&row.sql),
        ]);
    }
    table.to_string()
}

pub(super) fn one(job: &Job) -> String {
    let mut facts = table();
    let percent = format!("{:.0} %", job.progress * 100.0);
    let left = job.seconds_left.map(|left| format!("{left:.0} s"));
    let error = job.error.as_ref().map(ToString::to_string);
    let shown = [
        ("id", Some(job.id.clone())),
        ("status", Some(job.status.clone())),
        ("user", Some(job.user.clone())),
        ("progress", Some(percent)),
        ("time left", left),
        ("submitted", Some(job.submitted_at.clone())),
        ("started", job.started_at.clone()),
        ("finished", job.finished_at.clone()),
        ("error", error),
    ];
    for (name, value) in shown {
        if let Some(value) = value {
            facts.add_row([name.to_owned(), value]);
        }
    }
    let mut statements = table();
    statements.set_header(["job", "status", "rows", "sql"]);
    for statement in &job.statements {
        let id = statement.job.clone().unwrap_or_default();
        statements.add_row([id, statement.status.clone(), statement.rows.to_string(), short(&statement.sql)]);
    }
    format!("{facts}\n{statements}")
}

fn table() -> Table {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Dynamic);
    table
}

/// On one line, and not too long.
fn short(sql: &str) -> String {
    let line = sql.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(SQL_WIDTH) {
        Some((at, _)) => format!("{}…", &line[..at]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_are_shown_on_one_line() {
        assert_eq!(short("SELECT 1,\n       2"), "SELECT 1, 2");
        let long = "ä".repeat(100);
        assert_eq!(short(&long), format!("{}…", "ä".repeat(SQL_WIDTH)));
    }

    #[test]
    fn a_job_is_shown_with_its_statements() {
        let job: Job = serde_json::from_value(serde_json::json!({
            "id": "j7", "user": "ann", "status": "failed", "progress": 0.5, "seconds_left": null,
            "statements": [{ "sql": "SELECT 1", "job": "s1", "status": "done", "rows": 1 }],
            "submitted_at": "2026-01-01T00:00:00Z", "started_at": null, "finished_at": null,
            "error": { "code": "TM-1003", "message": "no table `t`", "hint": "SHOW TABLES" },
        }))
        .unwrap();
        let text = one(&job);
        for word in ["j7", "50 %", "TM-1003: no table `t`; SHOW TABLES", "SELECT 1"] {
            assert!(text.contains(word), "{text}");
        }
    }
}
