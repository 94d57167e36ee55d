//! What came of a record, and, where that is not what was expected, why.

use crate::causes;
use crate::cells;
use crate::database::Answer;
use crate::lineage::Lack;
use crate::script::{Expect, Record};

/// Of a statement, and as much again of what came of it.
const SHOWN: usize = 300;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Passed,
    /// EXPLAIN: the expected text is the plan of DataFusion's default settings, which are not ours.
    Plan,
    Failed(Failure),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// Where the record begins.
    pub(crate) line: usize,
    pub(crate) what: &'static str,
    /// `None` is to be looked into.
    pub(crate) because: Option<&'static str>,
    pub(crate) detail: String,
}

impl Outcome {
    pub(crate) fn unreadable(error: &str) -> Self {
        let what = "the runner cannot read the file";
        Self::Failed(Failure { line: 0, what, because: None, detail: shown(error) })
    }

    pub(crate) fn stuck(record: &Record) -> Self {
        Self::alone(record, "a statement took more than a minute, and the rest of its file was left")
    }

    pub(crate) fn panicked(record: &Record) -> Self {
        Self::alone(record, "a panic")
    }

    fn alone(record: &Record, what: &'static str) -> Self {
        Self::Failed(Failure { line: record.line, what, because: None, detail: shown(&record.sql) })
    }

    /// Judges what came of a record of `file` whose tables lack something.
    pub(crate) fn of(
        file: &str,
        record: &Record,
        result: &Result<Answer, String>,
        lack: Option<Lack>,
    ) -> Self {
        let Some((what, more)) = difference(record, result) else { return Self::Passed };
        let because = because(file, record, result.as_ref().err(), what, lack);
        let detail = cells::without_root(&format!("{}  --  {}", shown(&record.sql), shown(&more)));
        Self::Failed(Failure { line: record.line, what, because, detail })
    }
}

const ANOTHER_ORDER: &str = "the same rows in another order";
const OTHER_WORDS: &str = "an error is expected, and told in other words";

/// What is not as expected, and in which way.
fn difference(record: &Record, result: &Result<Answer, String>) -> Option<(&'static str, String)> {
    match (&record.expect, result) {
        (Expect::Success, Ok(_)) => None,
        (Expect::Rows { types, sort, lines }, Ok(answer)) => {
            if !answer.types.is_empty() && !cells::of_types(&answer.types, types) {
                return Some(("columns of other types", format!("expected {types}, got {}", answer.types)));
            }
            let actual = cells::lines(&cells::sorted(answer.rows.clone(), *sort), lines);
            if cells::agree(&actual, lines) {
                return None;
            }
            let what = match in_order(&actual) == in_order(lines) {
                true => ANOTHER_ORDER,
                false => "another answer",
            };
            Some((what, format!("expected {lines:?}, got {actual:?}")))
        }
        (Expect::Error(_) | Expect::ErrorText(_), Ok(_)) => {
            Some(("succeeds where an error is expected", String::new()))
        }
        (Expect::Error(_) | Expect::ErrorText(_), Err(error)) => {
            (!tells(&record.expect, error)).then(|| (OTHER_WORDS, error.clone()))
        }
        (Expect::Success | Expect::Rows { .. }, Err(error)) => Some(("an error", error.clone())),
    }
}

fn in_order(lines: &[String]) -> Vec<&str> {
    let mut lines: Vec<&str> = lines.iter().map(|line| line.trim_end()).collect();
    lines.sort_unstable();
    lines
}

/// Whether an error is the expected one.
fn tells(expected: &Expect, error: &str) -> bool {
    match expected {
        Expect::Error(pattern) => regex::Regex::new(pattern).is_ok_and(|regex| regex.is_match(error)),
        Expect::ErrorText(text) => error.trim() == text,
        Expect::Success | Expect::Rows { .. } => false,
    }
}

fn because(
    file: &str,
    record: &Record,
    error: Option<&String>,
    what: &str,
    lack: Option<Lack>,
) -> Option<&'static str> {
    if error.is_some_and(|error| told_under_a_code(&record.expect, error)) {
        return Some("the words are the same, behind a code of ours instead of DataFusion's class of errors");
    }
    // A table without rows makes no errors; one that is not there does.
    if let Some(lack) = lack
        && error.is_none_or(|error| speaks_of_absence(error))
    {
        return Some(lack.because());
    }
    if what == ANOTHER_ORDER && !record.sql.to_lowercase().contains("order by") {
        return Some("no order is asked for, and the parts of a table come from several tasks");
    }
    causes::known(file, &format!("{what} {} {}", record.sql, error.map(String::as_str).unwrap_or_default()))
}

fn speaks_of_absence(error: &str) -> bool {
    let words = [
        "not found",
        "doesn't exist",
        "No such file",
        "No files found",
        "No table named",
        "backed by a single file",
    ];
    words.iter().any(|word| error.contains(word))
}

/// How DataFusion begins an error, by its class.
const CLASSES: [&str; 9] = [
    "",
    "Arrow error: ",
    "Error during planning: ",
    "Execution error: ",
    "Internal error: ",
    "Invalid or Unsupported Configuration: ",
    "Parquet error: ",
    "Resources exhausted: ",
    "This feature is not implemented: ",
];

/// Whether it is the expected error, if one does not look at how it begins.
fn told_under_a_code(expected: &Expect, error: &str) -> bool {
    let Some((_, coded)) = error.split_once("External error: TM-") else { return false };
    let Some((_, message)) = coded.split_once(": ") else { return false };
    CLASSES.iter().any(|class| match expected {
        // A hint of ours may follow.
        Expect::ErrorText(text) => format!("DataFusion error: {class}{message}").starts_with(text),
        expected => tells(expected, &format!("DataFusion error: {class}{message}")),
    })
}

/// In one line, shortened.
fn shown(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::script::Sort;

    fn judged(expect: Expect, result: Result<&[&str], &str>, lack: Option<Lack>) -> Option<Failure> {
        let record = Record { line: 7, sql: "SELECT a FROM t".to_owned(), expect };
        let rows = |rows: &[&str]| rows.iter().map(|row| vec![(*row).to_owned()]).collect();
        let result = match result {
            Ok(values) => Ok(Answer { types: "T".to_owned(), rows: rows(values) }),
            Err(error) => Err(format!("DataFusion error: {error}")),
        };
        match Outcome::of("a.slt", &record, &result, lack) {
            Outcome::Failed(failure) => Some(failure),
            _ => None,
        }
    }

    fn rows(types: &str, lines: &[&str]) -> Expect {
        let lines = lines.iter().map(|line| (*line).to_owned()).collect();
        Expect::Rows { types: types.to_owned(), sort: Sort::None, lines }
    }

    #[test]
    fn answers_are_compared_and_differences_explained() {
        assert_eq!(judged(rows("T", &["x", "y"]), Ok(&["x", "y"]), None), None);
        let what = |expect, actual: &[&str], lack| {
            let failure = judged(expect, Ok(actual), lack).unwrap();
            (failure.what, failure.because.is_some())
        };
        assert_eq!(what(rows("T", &["x", "y"]), &["y", "x"], None), (ANOTHER_ORDER, true));
        assert_eq!(what(rows("T", &["x"]), &[], None), ("another answer", false));
        assert_eq!(what(rows("T", &["x"]), &[], Some(Lack::Data)), ("another answer", true));
        assert_eq!(what(rows("I", &["x"]), &["x"], None), ("columns of other types", false));
        assert_eq!(what(Expect::Error(String::new()), &[], None).0, "succeeds where an error is expected");
    }

    #[test]
    fn errors_are_compared_and_differences_explained() {
        let zero = Expect::Error("DataFusion error: Arrow error: Divide by zero".to_owned());
        assert_eq!(judged(zero.clone(), Err("Arrow error: Divide by zero error"), None), None);
        let coded = judged(zero.clone(), Err("External error: TM-1013: Divide by zero error"), None).unwrap();
        assert!(coded.because.is_some());
        assert_eq!(judged(zero, Err("External error: TM-1013: Overflow"), None).unwrap().because, None);
        let because = |error| judged(rows("T", &[]), Err(error), Some(Lack::Data)).unwrap().because;
        assert_eq!(because("Error during planning: table 'd.p.t' not found"), Some(Lack::Data.because()));
        assert_eq!(because("Internal error: Assertion failed"), None);
    }
}
