//! The part of the sqllogictest format that DataFusion's files use. The crate of that name would be the natural
//! reader; its random numbers switch on features that rebuild everything else in the workspace.

use std::path::{Path, PathBuf};

/// One thing to run, and what must come of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    /// Where it begins, in the file or in one that it includes.
    pub(crate) line: usize,
    pub(crate) sql: String,
    pub(crate) expect: Expect,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Expect {
    Success,
    /// A regular expression that the error matches.
    Error(String),
    /// The error, word for word.
    ErrorText(String),
    Rows {
        /// A letter a column.
        types: String,
        sort: Sort,
        lines: Vec<String>,
    },
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Sort {
    #[default]
    None,
    Rows,
    Values,
}

/// By this label the files name DataFusion's own runner.
const LABEL: &str = "Datafusion";

/// Reads a file and what it includes.
pub(crate) fn read(file: &Path) -> Result<Vec<Record>, String> {
    let text = std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
    let mut script = Script { lines: text.lines().collect(), at: 0, sort: Sort::default() };
    let mut records = Vec::new();
    while let Some(item) = script.next()? {
        match item {
            Item::Record(record) => records.push(record),
            Item::Include(name) => {
                for part in included(&file.parent().unwrap_or(Path::new(".")).join(name))? {
                    records.extend(read(&part)?);
                }
            }
            Item::Halt => break,
        }
    }
    Ok(records)
}

/// The files that an `include` names; in their name a star stands for any text.
fn included(path: &Path) -> Result<Vec<PathBuf>, String> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let Some((head, tail)) = name.split_once('*') else { return Ok(vec![path.to_owned()]) };
    let folder = path.parent().unwrap_or(Path::new("."));
    let entries = std::fs::read_dir(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let fits = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.len() >= head.len() + tail.len() && name.starts_with(head) && name.ends_with(tail)
    };
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(fits).collect();
    files.sort();
    Ok(files)
}

enum Item {
    Record(Record),
    Include(String),
    Halt,
}

struct Script<'a> {
    lines: Vec<&'a str>,
    at: usize,
    /// Of queries that name none.
    sort: Sort,
}

impl Script<'_> {
    fn next(&mut self) -> Result<Option<Item>, String> {
        let mut skipped = false;
        while let Some(line) = self.line() {
            let begins = self.at;
            let words: Vec<&str> = line.split_whitespace().collect();
            let rest = |count: usize| {
                let from = words[..count]
                    .iter()
                    .fold(0, |at, word| at + line[at..].find(word).unwrap_or(0) + word.len());
                line[from..].trim().to_owned()
            };
            let record = match words.as_slice() {
                [] => continue,
                [comment, ..] if comment.starts_with('#') => continue,
                ["skipif", label, ..] => {
                    skipped |= *label == LABEL;
                    continue;
                }
                ["onlyif", label, ..] => {
                    skipped |= *label != LABEL;
                    continue;
                }
                ["halt", ..] => return Ok(Some(Item::Halt)),
                ["include", name] => return Ok(Some(Item::Include((*name).to_owned()))),
                ["control", "sortmode", sort] => {
                    self.sort = sort_of(sort).unwrap_or_default();
                    continue;
                }
                ["hash-threshold" | "subtest" | "control" | "sleep" | "connection", ..] => continue,
                ["statement" | "query", "error", ..] => self.refused(begins, rest(2)),
                ["statement", ..] => Record { line: begins, sql: self.sql().0, expect: Expect::Success },
                ["query", options @ ..] => {
                    let types = options.first().copied().unwrap_or_default().to_owned();
                    let sort = options.iter().find_map(|word| sort_of(word)).unwrap_or(self.sort);
                    let (sql, results) = self.sql();
                    let lines = if results { self.paragraph() } else { Vec::new() };
                    Record { line: begins, sql, expect: Expect::Rows { types, sort, lines } }
                }
                _ => return Err(format!("line {}: `{line}` is not understood", self.at)),
            };
            if !std::mem::take(&mut skipped) {
                return Ok(Some(Item::Record(record)));
            }
        }
        Ok(None)
    }

    /// A statement that must fail: with what its own line says, or with what is behind `----`.
    fn refused(&mut self, line: usize, pattern: String) -> Record {
        let (sql, results) = self.sql();
        let expect = match results {
            true => Expect::ErrorText(self.message()),
            false => Expect::Error(pattern),
        };
        Record { line, sql, expect }
    }

    fn line(&mut self) -> Option<String> {
        let line = self.lines.get(self.at)?;
        self.at += 1;
        Some((*line).to_owned())
    }

    /// The text up to an empty line, or to `----`, behind which results follow. The first line may be empty.
    fn sql(&mut self) -> (String, bool) {
        let mut sql = Vec::from_iter(self.line());
        while let Some(line) = self.line() {
            match line.as_str() {
                "" => break,
                "----" => return (sql.join("\n"), true),
                _ => sql.push(line),
            }
        }
        (sql.join("\n"), false)
    }

    fn paragraph(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        while let Some(line) = self.line() {
            if line.is_empty() {
                break;
            }
            lines.push(line);
        }
        lines
    }

    /// Up to two empty lines.
    fn message(&mut self) -> String {
        let mut lines: Vec<String> = Vec::new();
        while let Some(line) = self.line() {
            if line.is_empty() && lines.last().is_some_and(String::is_empty) {
                break;
            }
            lines.push(line);
        }
        lines.join("\n").trim().to_owned()
    }
}

fn sort_of(word: &str) -> Option<Sort> {
    match word {
        "nosort" => Some(Sort::None),
        "rowsort" => Some(Sort::Rows),
        "valuesort" => Some(Sort::Values),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_of_every_kind() {
        let folder = tempfile::tempdir().unwrap();
        let part = "statement ok\n\nCREATE TABLE t\nAS VALUES (1)\n";
        std::fs::write(folder.path().join("a.part"), part).unwrap();
        std::fs::write(folder.path().join("b.other"), "halt\n").unwrap();
        let text = "# a comment\ninclude ./*.part\n\nquery IT rowsort\nSELECT 1, 2\n----\n1 2\n3 4\n\n\
                    skipif Datafusion\nstatement ok\nSELECT nothing\n\nonlyif postgres\nstatement ok\nSELECT nothing\n\n\
                    statement error DataFusion error: .* no  table\nSELECT x\n\nquery error\nSELECT y\n----\nfirst\n\nsecond\n\n\n\
                    halt\n\nstatement ok\nSELECT nothing\n";
        let file = folder.path().join("a.slt");
        std::fs::write(&file, text).unwrap();
        let record = |line, sql: &str, expect| Record { line, sql: sql.to_owned(), expect };
        let lines = ["1 2", "3 4"].map(str::to_owned).to_vec();
        assert_eq!(
            read(&file).unwrap(),
            [
                record(1, "\nCREATE TABLE t\nAS VALUES (1)", Expect::Success),
                record(4, "SELECT 1, 2", Expect::Rows { types: "IT".to_owned(), sort: Sort::Rows, lines }),
                record(18, "SELECT x", Expect::Error("DataFusion error: .* no  table".to_owned())),
                record(21, "SELECT y", Expect::ErrorText("first\n\nsecond".to_owned())),
            ]
        );
    }
}
