//! Rewrites small files of a table into larger ones.
//!
//! ```text
//! snapshot ─▶ bins ─▶ a round of them: one scan each ─▶ union ─▶ WriteExec ─▶ one commit ─┐
//!    ▲                                                                                    │
//!    └──────────── the next round sees what others committed meanwhile ◀──────────────────┘
//! ```
//! A bin is one partition of the plan, read in its files' order and written by one writer, so it becomes one
//! file. Each round is committed by itself: what is done stays done, memory is bounded by the round, and little
//! is lost to somebody who deletes rows of the same files.

use super::bins::{Bin, bins};
use super::due::due;
use super::report::Report;
use super::{Optimizer, TargetSize};
use crate::engines::{EngineChoice, Traits};
use crate::frontend::physical;
use datafusion::datasource::provider_as_source;
use datafusion::execution::SessionState;
use datafusion::logical_expr::{Expr, LogicalPlanBuilder};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::union::UnionExec;
use std::collections::BTreeMap;
use std::sync::Arc;
use tidemill_core::{Code, Error, Result};
use tidemill_engine::{Change, Engine, EngineKind, LakeSnapshot, Reads, from_datafusion};
use url::Url;

/// How often a round is worked out anew because somebody else changed its files.
const TRIES: usize = 5;

/// What to compact, and how much of it at a time.
#[derive(Clone, Debug)]
pub(crate) struct Compact {
    /// Over partition columns.
    pub(crate) filters: Vec<Expr>,
    /// The filters as their author wrote them, for the history.
    pub(crate) predicate: Option<String>,
    /// Only what [`due`] finds worth it, from so many small files of a partition on.
    pub(crate) due_from: Option<usize>,
    /// Whether nobody asked for it.
    pub(crate) automatic: bool,
}

impl Optimizer {
    pub(crate) async fn compact(&self, location: &Url, compact: &Compact) -> Result<Report> {
        let mut report = Report::default();
        let mut tries = 0;
        // As many rounds as there is work at first: what others add meanwhile could keep this going for ever.
        let mut rounds = None;
        loop {
            // Given back after each round.
            let _turn = self.turn().await?;
            let snapshot = self.lake.snapshot(location).await?;
            let files = snapshot.files(&self.state, &compact.filters)?;
            let target = TargetSize::of(&snapshot.properties()).unwrap_or(self.target);
            if report.batches == 0 {
                report.consider(&files);
            }
            let files = match compact.due_from {
                Some(from) => due(files, target.0, from),
                None => files,
            };
            let packed = bins(&files, target.0);
            if packed.is_empty() || rounds == Some(0) {
                return Ok(report);
            }
            let engine = self.bulk_engine()?;
            // Tasks on executors have the executors' memory; here all share this process'.
            let width = match engine.kind() {
                EngineKind::InProcess => self.bins_at_once(target),
                _ => self.bins_at_once(target).max(engine.slots()),
            };
            let round = packed.get(..width).unwrap_or(&packed);
            let left = rounds.unwrap_or(packed.len().div_ceil(width));
            let purges = round.iter().any(|bin| bin.files.len() == 1);
            match self.round(location, snapshot.as_ref(), round, target, engine, compact).await {
                Ok(done) if done.is_smaller() || purges => {
                    report.add(done);
                    rounds = Some(left - 1);
                    tries = 0;
                }
                // The writer made as many files of them: going on would never end.
                Ok(done) => {
                    report.add(done);
                    return Ok(report);
                }
                Err(error) if error.code == Code::Conflict && tries < TRIES => {
                    tries += 1;
                    tracing::debug!(%location, %error, "a round of compaction is worked out anew");
                }
                Err(error) if error.code == Code::Conflict => {
                    return Err(error.hint(
                        "other statements change the same files all the time; OPTIMIZE … WHERE a partition that \
                         they leave alone",
                    ));
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn round(
        &self,
        location: &Url,
        snapshot: &dyn LakeSnapshot,
        round: &[Bin],
        target: TargetSize,
        engine: Arc<dyn Engine>,
        compact: &Compact,
    ) -> Result<Report> {
        let bytes = round.iter().map(|bin| bin.bytes).sum();
        let mut config = engine.planning(self.state.config(), Some(bytes));
        // A bin is one partition, whole and in its order.
        config.options_mut().execution.target_partitions = 1;
        config.options_mut().optimizer.repartition_file_scans = false;
        let mut state = self.state.clone();
        *state.config_mut() = config;
        let mut scans = Vec::with_capacity(round.len());
        for bin in round {
            scans.push(scan(&state, snapshot, &bin.files).await?);
        }
        let plan = UnionExec::try_new(scans).map_err(from_datafusion)?;
        // A bin is never cut in two: it is no larger than the target.
        let roof = TargetSize(target.0.saturating_mul(2));
        let title = format!("OPTIMIZE {location}");
        let written = self.write(location, engine, plan, roof, title).await?;
        let expected: Option<u64> = round.iter().map(|bin| bin.rows).sum();
        let rows: u64 = written.iter().map(|written| written.rows).sum();
        if expected.is_some_and(|expected| expected != rows) {
            return Err(Error::internal(format!(
                "compaction read {expected:?} rows and wrote {rows}; nothing was committed"
            )));
        }
        let removes: Vec<usize> = round.iter().flat_map(|bin| bin.files.iter().copied()).collect();
        let done = Report::of_round(snapshot, &self.state, round, &written)?;
        let mut change = Change::new("OPTIMIZE");
        change.parameters = compact.parameters();
        change.metrics = done.metrics();
        change.removes = removes;
        change.adds = written;
        change.reads = Reads::Removed;
        change.data_change = false;
        snapshot.commit(change).await?;
        Ok(done)
    }

    /// The engine for bulk work: where there are executors the staged one, whose partitions are never cut.
    fn bulk_engine(&self) -> Result<Arc<dyn Engine>> {
        let only = |kind| self.engines.choose(EngineChoice::Only(kind), Traits::default());
        let (engine, _) = only(EngineKind::Staged).or_else(|_| only(EngineKind::InProcess))?;
        Ok(engine)
    }
}

impl Compact {
    pub(super) fn parameters(&self) -> BTreeMap<String, String> {
        let predicate = match &self.predicate {
            Some(text) => serde_json::json!([text]).to_string(),
            None => "[]".to_owned(),
        };
        let all =
            [("predicate", predicate), ("zOrderBy", "[]".to_owned()), ("auto", self.automatic.to_string())];
        all.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
    }
}

/// The plan that reads some files, as the session's settings have it.
async fn scan(
    state: &SessionState,
    snapshot: &dyn LakeSnapshot,
    files: &[usize],
) -> Result<Arc<dyn ExecutionPlan>> {
    let table = provider_as_source(snapshot.table(Some(files), None)?);
    let plan = LogicalPlanBuilder::scan("files", table, None).and_then(|plan| plan.build());
    physical(state, state.config().clone(), &plan.map_err(from_datafusion)?).await
}
