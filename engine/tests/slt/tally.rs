//! What passed, what did not, and why.

use crate::cells;
use crate::script::{Expect, Record};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use tidemill_engine::EngineKind;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Passed,
    /// EXPLAIN: the expected text is the plan of DataFusion's default settings, which are not ours.
    Plan,
    Failed {
        reason: &'static str,
        detail: String,
    },
}

impl Outcome {
    pub(crate) fn unreadable(error: &str) -> Self {
        Self::Failed { reason: "the runner cannot read the file", detail: first_line(error) }
    }

    pub(crate) fn stuck(sql: &str) -> Self {
        Self::Failed {
            reason: "a statement took more than a minute; the rest of its file was left",
            detail: first_line(sql),
        }
    }

    pub(crate) fn panicked(sql: &str) -> Self {
        Self::Failed { reason: "a panic", detail: first_line(sql) }
    }

    /// Judges what came of a record.
    pub(crate) fn of(record: &Record, result: Result<Vec<Vec<String>>, String>) -> Self {
        let detail = |more: &str| format!("{}  --  {}", first_line(&record.sql), first_line(more));
        let failed = |reason, more: &str| Self::Failed { reason, detail: detail(more) };
        match (&record.expect, result) {
            (Expect::Success, Ok(_)) => Self::Passed,
            (Expect::Rows { sort, lines, .. }, Ok(rows)) => {
                let actual = cells::lines(&cells::sorted(rows, *sort), lines);
                if cells::agree(&actual, lines) {
                    return Self::Passed;
                }
                let sorted = |lines: &[String]| {
                    let mut lines: Vec<String> =
                        lines.iter().map(|line| line.trim_end().to_owned()).collect();
                    lines.sort_unstable();
                    lines
                };
                let ordered = record.sql.to_lowercase().contains("order by");
                let reason = match sorted(&actual) == sorted(lines) {
                    true if ordered => "the same rows in another order, with ORDER BY somewhere in the query",
                    true => "the same rows in another order, where the query asks for none",
                    false => "another answer",
                };
                failed(reason, &format!("expected {lines:?}, got {actual:?}"))
            }
            (Expect::Error(_) | Expect::ErrorText(_), Ok(_)) => {
                failed("succeeds where an error is expected", "")
            }
            (Expect::Error(pattern), Err(error)) => match regex::Regex::new(pattern) {
                Ok(regex) if regex.is_match(&error) => Self::Passed,
                _ => failed("an error is expected, and told in other words", &error),
            },
            (Expect::ErrorText(text), Err(error)) if error.trim() == text => Self::Passed,
            (Expect::ErrorText(_), Err(error)) => {
                failed("an error is expected, and told in other words", &error)
            }
            (_, Err(error)) => failed(because(&error), &error),
        }
    }
}

fn because(error: &str) -> &'static str {
    let has = |words: &[&str]| words.iter().any(|word| error.contains(word));
    if has(&[
        "testing/data",
        "No such file",
        "not found at path",
        "../core/tests",
        "parquet-testing",
        "No files found",
    ]) {
        "its data is not part of the published files, or follows from that"
    } else if has(&["table '", "Table not found", "No table named"]) && error.contains("not found") {
        "its table was not made: an earlier statement of the file failed, or DataFusion's runner makes it in Rust"
    } else if has(&["Invalid function", "No function matches", "function"])
        && has(&["Invalid function", "not found"])
    {
        "a function that this build does not have, or that DataFusion's runner makes in Rust"
    } else if has(&["feature", "not enabled", "Unable to find factory", "compression"]) {
        "a feature that this build leaves out"
    } else if has(&["Unsupported", "not implemented", "not supported"]) {
        "refused as not supported"
    } else {
        "an error"
    }
}

fn first_line(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(160) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

#[derive(Default)]
pub(crate) struct Tally {
    files: BTreeMap<PathBuf, Vec<(EngineKind, Vec<Outcome>)>>,
}

#[derive(Clone, Copy, Default)]
struct Count {
    passed: usize,
    run: usize,
    plans: usize,
}

impl Count {
    fn of<'a>(outcomes: impl IntoIterator<Item = &'a Outcome>) -> Self {
        outcomes.into_iter().fold(Self::default(), |mut count, outcome| {
            match outcome {
                Outcome::Plan => count.plans += 1,
                outcome => {
                    count.run += 1;
                    count.passed += usize::from(*outcome == Outcome::Passed);
                }
            }
            count
        })
    }

    fn share(self) -> f64 {
        if self.run == 0 { 100.0 } else { 100.0 * self.passed as f64 / self.run as f64 }
    }
}

const ENGINES: [EngineKind; 2] = [EngineKind::InProcess, EngineKind::Pipelined];

impl Tally {
    pub(crate) fn add(&mut self, file: &Path, engine: EngineKind, outcomes: Vec<Outcome>) {
        self.files.entry(file.to_owned()).or_default().push((engine, outcomes));
    }

    fn outcomes(&self, engine: EngineKind) -> impl Iterator<Item = (&PathBuf, &Outcome)> {
        self.files.iter().flat_map(move |(file, engines)| {
            let own = engines.iter().filter(move |(kind, _)| *kind == engine);
            own.flat_map(move |(_, outcomes)| outcomes.iter().map(move |outcome| (file, outcome)))
        })
    }

    /// One file's pass rates.
    pub(crate) fn line(&self, file: &Path) -> String {
        let engines = self.files.get(file).map(Vec::as_slice).unwrap_or_default();
        let rates = engines.iter().map(|(kind, outcomes)| {
            let count = Count::of(outcomes);
            format!("{} {}/{} ({:.1} %)", kind.as_str(), count.passed, count.run, count.share())
        });
        format!("{:60} {}", name(file), rates.collect::<Vec<_>>().join("   "))
    }

    pub(crate) fn summary(&self) -> String {
        let mut text = String::from("# DataFusion's sqllogictest files on Tidemill's engines\n\n");
        let _ = writeln!(
            text,
            "The files that the crate `datafusion-sqllogictest` {} publishes, run by `make slt`: queries on the engine \
             named, on a session of ours; statements that change something by DataFusion itself. On the pipelined \
             engine tables that a test makes in memory and does not change are written to Parquet first, so that two \
             workers share them.\n\n| engine | records | passed | | EXPLAIN, not run |\n|---|---|---|---|---|",
            datafusion::DATAFUSION_VERSION
        );
        for engine in ENGINES {
            let count = Count::of(self.outcomes(engine).map(|(_, outcome)| outcome));
            let _ = writeln!(
                text,
                "| {} | {} | {} | {:.1} % | {} |",
                engine.as_str(),
                count.run,
                count.passed,
                count.share(),
                count.plans
            );
        }
        for engine in ENGINES {
            self.reasons(engine, &mut text);
        }
        text.push_str("\n## Files\n\n| file | in_process | pipelined |\n|---|---|---|\n");
        for (file, engines) in &self.files {
            let rate = |kind: EngineKind| match engines.iter().find(|(own, _)| *own == kind) {
                Some((_, outcomes)) => {
                    let count = Count::of(outcomes);
                    format!("{}/{}", count.passed, count.run)
                }
                None => "-".to_owned(),
            };
            let _ = writeln!(
                text,
                "| {} | {} | {} |",
                name(file),
                rate(EngineKind::InProcess),
                rate(EngineKind::Pipelined)
            );
        }
        text
    }

    /// Every reason with its files, and what those say that are few.
    fn reasons(&self, engine: EngineKind, text: &mut String) {
        let mut reasons: BTreeMap<&str, BTreeMap<String, Vec<&str>>> = BTreeMap::new();
        for (file, outcome) in self.outcomes(engine) {
            if let Outcome::Failed { reason, detail } = outcome {
                reasons.entry(reason).or_default().entry(name(file)).or_default().push(detail);
            }
        }
        let mut reasons: Vec<_> = reasons.into_iter().collect();
        reasons.sort_by_key(|(_, files)| std::cmp::Reverse(files.values().map(Vec::len).sum::<usize>()));
        let _ = writeln!(text, "\n## What does not pass: {}\n", engine.as_str());
        for (reason, files) in reasons {
            let records: usize = files.values().map(Vec::len).sum();
            let _ = writeln!(text, "### {reason}: {records}\n");
            for (file, details) in files {
                let _ = writeln!(text, "- {file}: {}", details.len());
                let shown = if records > 200 { 1 } else { 5 };
                for detail in details.iter().take(shown) {
                    let _ = writeln!(text, "  - `{}`", detail.replace('`', "'"));
                }
            }
            text.push('\n');
        }
    }
}

fn name(file: &Path) -> String {
    file.strip_prefix("test_files").unwrap_or(file).display().to_string()
}
