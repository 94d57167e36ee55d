//! One statement from its text to its last row: output, progress line, Ctrl-C.

use super::backend::{Backend, Running};
use super::output::{Format, Writer};
use super::report;
use super::split::split;
use arrow::array::{RecordBatch, UInt64Array};
use futures::StreamExt;
use indicatif::{HumanBytes, HumanCount, ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::{IsTerminal, Write};
use std::pin::{Pin, pin};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tidemill_core::{Code, Error, Result};
use tidemill_engine::Progress;
use tidemill_scheduler::frontend::api::AnswerKind;

/// Statements that end sooner show no progress line.
const PROGRESS_AFTER: Duration = Duration::from_millis(300);
const PROGRESS_EVERY: Duration = Duration::from_millis(200);

/// `| head` has seen enough: no error to tell anybody.
const OUTPUT_CLOSED: &str = "standard output was closed";

pub(super) struct Runner {
    pub(super) backend: Arc<dyn Backend>,
    /// Whether tables are followed by the time that they took.
    pub(super) timing: bool,
    format: Format,
    max_rows: usize,
}

impl Runner {
    pub(super) fn new(backend: Arc<dyn Backend>, format: Format, max_rows: usize) -> Self {
        Self { backend, timing: true, format, max_rows }
    }

    /// Runs all statements of a text, up to the first error, which names its line.
    pub(super) async fn script(&mut self, name: &str, text: &str) -> ExitCode {
        let split = split(text);
        for statement in split.statements.into_iter().chain(split.rest) {
            if let Err(error) = self.statement(&statement.text).await {
                if error.message != OUTPUT_CLOSED {
                    report::error(&error, Some(&format!("{name}:{}", statement.line)));
                }
                return ExitCode::FAILURE;
            }
        }
        ExitCode::SUCCESS
    }

    pub(super) async fn statement(&self, sql: &str) -> Result<()> {
        let started = Instant::now();
        // One listener for the whole statement: what is pressed while nobody polls must not be lost.
        let mut interrupt = pin!(tokio::signal::ctrl_c());
        let running = tokio::select! {
            running = self.backend.execute(sql) => running?,
            pressed = &mut interrupt => return Err(interrupted(pressed)),
        };
        let (kind, engine) = (running.kind, running.engine);
        let (rows, hidden) = self.drain(running, interrupt).await?;
        self.note(&summary(kind, rows, hidden), engine, started.elapsed());
        Ok(())
    }

    /// Writes the rows; gives how many there were and how many are not shown.
    async fn drain(
        &self,
        mut running: Running,
        mut interrupt: Pin<&mut impl Future<Output = std::io::Result<()>>>,
    ) -> Result<(u64, usize)> {
        let out = std::io::BufWriter::new(std::io::stdout());
        let mut writer = match running.kind {
            AnswerKind::Rows => Some(
                Writer::new(self.format, out, Arc::clone(&running.schema), self.max_rows)
                    .map_err(output_failed)?,
            ),
            AnswerKind::Count | AnswerKind::Nothing => None,
        };
        let shares_terminal = std::io::stdout().is_terminal() && writer.as_ref().is_some_and(Writer::streams);
        let line = ProgressLine::new(!shares_terminal);
        let (mut rows, mut ticks) = (0, tokio::time::interval(PROGRESS_EVERY));
        let started = Instant::now();
        loop {
            tokio::select! {
                biased;
                pressed = &mut interrupt => {
                    line.clear();
                    // The job may have ended by itself in this moment, which is as good.
                    let _ = self.backend.cancel(&running.job).await;
                    return Err(interrupted(pressed));
                }
                batch = running.rows.next() => match batch {
                    None => break,
                    Some(batch) => {
                        let batch = batch.inspect_err(|_| line.clear())?;
                        rows += if running.kind == AnswerKind::Count { count(&batch) } else { batch.num_rows() as u64 };
                        if let Some(writer) = &mut writer {
                            writer.write(&batch).map_err(output_failed)?;
                        }
                    }
                },
                _ = ticks.tick(), if line.shown() && started.elapsed() > PROGRESS_AFTER => {
                    if let Some(progress) = self.backend.progress(&running.job).await {
                        line.set(&progress);
                    }
                }
            }
        }
        line.clear();
        let hidden = writer.map_or(Ok(0), Writer::finish).map_err(output_failed)?;
        Ok((rows, hidden))
    }

    /// The line below a result: on standard output with tables, otherwise for people only.
    fn note(&self, summary: &str, engine: Option<&str>, elapsed: Duration) {
        let mut text = summary.to_owned();
        if self.timing {
            text.push_str(&format!(" in {:.3} s", elapsed.as_secs_f64()));
            if let Some(engine) = engine {
                text.push_str(&format!(" ({engine})"));
            }
        }
        if self.format == Format::Table {
            // A closed output is noticed with the next result.
            let _ = writeln!(std::io::stdout(), "{text}");
        } else if std::io::stderr().is_terminal() {
            eprintln!("{text}");
        }
    }
}

fn summary(kind: AnswerKind, rows: u64, hidden: usize) -> String {
    let noun = if rows == 1 { "row" } else { "rows" };
    let number = HumanCount(rows);
    match kind {
        AnswerKind::Rows if hidden > 0 => {
            format!("{number} {noun}, {} of them not shown (--max-rows)", HumanCount(hidden as u64))
        }
        AnswerKind::Rows => format!("{number} {noun}"),
        AnswerKind::Count => format!("{number} {noun} changed"),
        AnswerKind::Nothing => "done".to_owned(),
    }
}

fn count(batch: &RecordBatch) -> u64 {
    let counts = batch.columns().first().and_then(|column| column.as_any().downcast_ref::<UInt64Array>());
    counts.and_then(arrow::compute::sum).unwrap_or(0)
}

fn interrupted(pressed: std::io::Result<()>) -> Error {
    match pressed {
        Ok(()) => Error::new(Code::Cancelled, "cancelled by Ctrl-C"),
        Err(error) => Error::internal(format!("cannot listen for Ctrl-C: {error}")),
    }
}

fn output_failed(error: arrow::error::ArrowError) -> Error {
    // Arrow's writers keep only the words of the cause.
    if error.to_string().contains("Broken pipe") {
        return Error::new(Code::Cancelled, OUTPUT_CLOSED);
    }
    Error::new(Code::ExternalFailure, format!("cannot write the result: {error}"))
}

/// The line on standard error that tells how far a statement is.
struct ProgressLine(Option<ProgressBar>);

impl ProgressLine {
    fn new(wanted: bool) -> Self {
        if !wanted || !std::io::stderr().is_terminal() {
            return Self(None);
        }
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template("{spinner} {elapsed} {msg}") {
            bar.set_style(style);
        }
        Self(Some(bar))
    }

    fn shown(&self) -> bool {
        self.0.is_some()
    }

    fn set(&self, progress: &Progress) {
        if let Some(bar) = &self.0 {
            bar.set_message(describe(progress));
            bar.tick();
        }
    }

    fn clear(&self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}

fn describe(progress: &Progress) -> String {
    let mut parts = Vec::new();
    if progress.stages > 0 {
        parts.push(format!("stages {}/{}", progress.stages_done, progress.stages));
    }
    if progress.tasks > 0 {
        parts.push(format!("tasks {}/{}", progress.tasks_done, progress.tasks));
    }
    parts.push(format!("{} rows", HumanCount(progress.rows)));
    parts.push(HumanBytes(progress.bytes).to_string());
    parts.join("  ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_says_what_is_known() {
        let mut progress = Progress { rows: 12_345, bytes: 2 << 20, ..Progress::default() };
        assert_eq!(describe(&progress), "12,345 rows  2.00 MiB");
        progress.stages = 3;
        progress.stages_done = 1;
        progress.tasks = 8;
        assert_eq!(describe(&progress), "stages 1/3  tasks 0/8  12,345 rows  2.00 MiB");
    }

    #[test]
    fn summaries_count() {
        assert_eq!(summary(AnswerKind::Rows, 1, 0), "1 row");
        assert_eq!(
            summary(AnswerKind::Rows, 5_000, 4_000),
            "5,000 rows, 4,000 of them not shown (--max-rows)"
        );
        assert_eq!(summary(AnswerKind::Count, 2, 0), "2 rows changed");
        assert_eq!(summary(AnswerKind::Nothing, 0, 0), "done");
    }
}
