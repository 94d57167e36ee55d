//! What passed, what did not, and why.

use crate::judge::{Failure, Outcome};
use crate::lineage::Lack;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use tidemill_engine::EngineKind;

/// A reason of no more records is listed file by file, with some examples of each.
const FEW: usize = 100;
const EXAMPLES: usize = 2;

#[derive(Default)]
pub(crate) struct Tally {
    files: BTreeMap<PathBuf, Vec<(EngineKind, Vec<Outcome>)>>,
}

#[derive(Clone, Copy, Default)]
struct Count {
    passed: usize,
    run: usize,
    plans: usize,
    /// Failed for want of what only DataFusion's repository or runner has.
    lacking: usize,
    unexplained: usize,
}

impl Count {
    fn of<'a>(outcomes: impl IntoIterator<Item = &'a Outcome>) -> Self {
        outcomes.into_iter().fold(Self::default(), |mut count, outcome| {
            match outcome {
                Outcome::Plan => count.plans += 1,
                Outcome::Passed => {
                    count.run += 1;
                    count.passed += 1;
                }
                Outcome::Failed(failure) => {
                    let lacks = [Lack::Data, Lack::Runner].map(|lack| Some(lack.because()));
                    count.run += 1;
                    count.lacking += usize::from(lacks.contains(&failure.because));
                    count.unexplained += usize::from(failure.because.is_none());
                }
            }
            count
        })
    }

    fn share(self) -> f64 {
        Self::percent(self.passed, self.run)
    }

    /// Of those that lack nothing.
    fn share_of_complete(self) -> f64 {
        Self::percent(self.passed, self.run - self.lacking)
    }

    fn percent(part: usize, whole: usize) -> f64 {
        if whole == 0 { 100.0 } else { 100.0 * part as f64 / whole as f64 }
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
             workers share them.\n\nMany tables of the tests are over files that are not published with them, and some \
             are made by DataFusion's own runner, in Rust: what fails for want of them is *lacking*, and the second rate \
             leaves it out.\n\n| engine | records | passed | | lacking | passed of the others | not explained | EXPLAIN, not run |\n\
             |---|---|---|---|---|---|---|---|",
            datafusion::DATAFUSION_VERSION
        );
        for engine in ENGINES {
            let count = Count::of(self.outcomes(engine).map(|(_, outcome)| outcome));
            let _ = writeln!(
                text,
                "| {} | {} | {} | {:.1} % | {} | {:.2} % | {} | {} |",
                engine.as_str(),
                count.run,
                count.passed,
                count.share(),
                count.lacking,
                count.share_of_complete(),
                count.unexplained,
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

    /// Every reason with its files; what has none, record by record.
    fn reasons(&self, engine: EngineKind, text: &mut String) {
        let mut reasons: BTreeMap<Option<&str>, BTreeMap<String, Vec<&Failure>>> = BTreeMap::new();
        for (file, outcome) in self.outcomes(engine) {
            if let Outcome::Failed(failure) = outcome {
                reasons.entry(failure.because).or_default().entry(name(file)).or_default().push(failure);
            }
        }
        let unexplained = reasons.remove(&None);
        let mut reasons: Vec<_> = reasons
            .into_iter()
            .map(|(reason, files)| (files.values().map(Vec::len).sum::<usize>(), reason, files))
            .collect();
        reasons.sort_by_key(|(records, ..)| std::cmp::Reverse(*records));
        let _ = writeln!(text, "\n## What does not pass: {}\n", engine.as_str());
        for (records, reason, files) in reasons {
            let _ = writeln!(text, "### {}: {records}\n", reason.unwrap_or_default());
            if records > FEW {
                let counts = files.iter().map(|(file, failures)| format!("{file} {}", failures.len()));
                let _ = writeln!(text, "{}\n", counts.collect::<Vec<_>>().join(", "));
                continue;
            }
            for (file, failures) in files {
                let _ = writeln!(text, "- {file}: {}", failures.len());
                failures.iter().take(EXAMPLES).for_each(|failure| item(&file, failure, text));
            }
            text.push('\n');
        }
        let count = unexplained.iter().flatten().map(|(_, failures)| failures.len()).sum::<usize>();
        let _ = writeln!(text, "### Not explained: {count}\n");
        for (file, failures) in unexplained.iter().flatten() {
            let _ = writeln!(text, "- {file}: {}", failures.len());
            failures.iter().for_each(|failure| item(file, failure, text));
        }
    }
}

fn item(file: &str, failure: &Failure, text: &mut String) {
    let Failure { line, what, detail, .. } = failure;
    let _ = writeln!(text, "  - {file}:{line}, {what}: `{}`", detail.replace('`', "'"));
}

pub(crate) fn name(file: &Path) -> String {
    file.strip_prefix("test_files").unwrap_or(file).display().to_string()
}
