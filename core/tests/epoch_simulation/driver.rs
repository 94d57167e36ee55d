//! A driver loop in steps of one I/O each, so that a crash or a zombie can come between any two of them.

use crate::world::{DELAY_MS, File, Flaw, Record, WINDOW_MS, Windows, World};
use rand::Rng;
use std::collections::BTreeMap;
use tidemill_core::epoch::{
    Action, Counts, Facts, INGEST, Intent, Manifest, Participant, Planning, StateFile, StateRef, TaskReport,
    assemble, drain_intent, next_intent, recover,
};
use tidemill_core::{Code, Epoch, Error, FencingToken, PipelineId, Positions, Result, SplitRange, Written};

const AGGREGATE: &str = "aggregate";
const BUCKETS: u32 = 2;
const MAX_RECORDS: u64 = 8;
const PLAN: &str = "sum by window";

/// What a step came to.
#[derive(Debug)]
pub(crate) enum Progress {
    Working,
    /// There is nothing to do at the moment.
    Idle,
    /// The leader is deposed and knows it, or the protocol says that it must not go on.
    Stopped(Error),
}

#[derive(Debug)]
pub(crate) struct Leader {
    token: FencingToken,
    /// Whether to close all windows once there are no new records.
    pub(crate) drain: bool,
    step: Step,
    intent_version: u64,
    done_version: u64,
}

#[derive(Debug)]
enum Step {
    ReadJournal,
    AskParticipants(Facts),
    ReadManifest(Facts),
    Act(Facts),
    Plan(Option<Manifest>),
    PutIntent(Intent),
    Run(Intent),
    Decide(Intent, Outcome),
    Commit(Manifest, Vec<Participant>),
    Advance(Epoch),
}

#[derive(Debug)]
struct Outcome {
    reports: Vec<TaskReport>,
    table: Vec<Written>,
}

impl Leader {
    pub(crate) fn new(world: &mut World) -> Self {
        let token = world.acquire();
        Self { token, drain: false, step: Step::ReadJournal, intent_version: 0, done_version: 0 }
    }

    /// Does one step. Any error but a fence is met by gathering the facts anew.
    pub(crate) fn step(&mut self, world: &mut World) -> Progress {
        let step = std::mem::replace(&mut self.step, Step::ReadJournal);
        match self.take(world, step) {
            Ok(Some(next)) => {
                self.step = next;
                Progress::Working
            }
            Ok(None) => Progress::Idle,
            Err(error) if error.is_transient() => Progress::Working,
            Err(error) => Progress::Stopped(error),
        }
    }

    fn take(&mut self, world: &mut World, step: Step) -> Result<Option<Step>> {
        let backwards = world.flaw == Flaw::GathersFactsBackwards;
        Ok(Some(match step {
            Step::ReadJournal => {
                let facts = self.read_journal(world);
                if backwards { Step::ReadManifest(facts) } else { Step::AskParticipants(facts) }
            }
            Step::AskParticipants(facts) => {
                let facts = Facts { committed: world.committed(), ..facts };
                if backwards { Step::Act(facts) } else { Step::ReadManifest(facts) }
            }
            Step::ReadManifest(facts) => {
                let facts = Facts { manifest: world.manifests.get(&facts.done.next()).cloned(), ..facts };
                if backwards { Step::AskParticipants(facts) } else { Step::Act(facts) }
            }
            Step::Act(facts) => return act(world, facts),
            Step::Plan(last) => return Ok(self.plan(world, last.as_ref())?.map(Step::PutIntent)),
            Step::PutIntent(intent) => {
                self.intent_version = world.put_intent(self.token, self.intent_version, intent.clone())?;
                Step::Run(intent)
            }
            Step::Run(intent) => {
                let outcome = run(world, &intent)?;
                Step::Decide(intent, outcome)
            }
            Step::Decide(intent, outcome) => {
                let manifest = decide(world, &intent, outcome)?;
                if world.flaw == Flaw::AdvancesBeforeTheCommit {
                    return Ok(Some(Step::Advance(manifest.epoch)));
                }
                let everyone = manifest.written.keys().cloned().collect();
                Step::Commit(manifest, everyone)
            }
            Step::Commit(manifest, mut missing) => {
                if let Some(participant) = missing.pop() {
                    world.commit(self.token, &participant, &manifest)?;
                    Step::Commit(manifest, missing)
                } else if world.flaw == Flaw::AdvancesBeforeTheCommit {
                    Step::ReadJournal
                } else {
                    Step::Advance(manifest.epoch)
                }
            }
            Step::Advance(epoch) => {
                self.done_version = world.put_done(self.token, self.done_version, epoch)?;
                if world.flaw == Flaw::AdvancesBeforeTheCommit {
                    let manifest = world.manifests[&epoch].clone();
                    let missing = manifest.written.keys().cloned().collect();
                    return Ok(Some(Step::Commit(manifest, missing)));
                }
                Step::ReadJournal
            }
        }))
    }

    fn read_journal(&mut self, world: &World) -> Facts {
        let (done_version, done) = world.read_done();
        let (intent_version, intent) = world.read_intent();
        (self.done_version, self.intent_version) = (done_version, intent_version);
        Facts {
            pipeline: pipeline(),
            token: self.token,
            fingerprint: PLAN.to_owned(),
            done,
            intent,
            manifest: None,
            committed: BTreeMap::new(),
        }
    }

    fn plan(&self, world: &mut World, last: Option<&Manifest>) -> Result<Option<Intent>> {
        let planned = next_intent(&Planning {
            pipeline: &pipeline(),
            token: self.token,
            fingerprint: PLAN,
            last,
            start: &Positions::new(),
            available: &world.available(),
            max_records: MAX_RECORDS,
        })?;
        match planned {
            None if self.drain => drain_intent(&pipeline(), self.token, PLAN, last),
            planned => Ok(planned),
        }
    }
}

fn pipeline() -> PipelineId {
    PipelineId::new("p")
}

fn act(world: &mut World, facts: Facts) -> Result<Option<Step>> {
    let last = world.manifests.get(&facts.done).cloned();
    Ok(Some(match recover(&facts) {
        Action::PlanNext => Step::Plan(last),
        Action::Rerun(_) if world.flaw == Flaw::ForgetsTheIntent => Step::Plan(last),
        Action::Rerun(intent) => {
            world.note("an epoch was run again");
            Step::PutIntent(intent)
        }
        Action::Commit { epoch, .. } | Action::Advance(epoch)
            if world.flaw == Flaw::AdvancesBeforeTheCommit =>
        {
            Step::Advance(epoch)
        }
        Action::Commit { missing, .. } => match facts.manifest {
            Some(manifest) => Step::Commit(manifest, missing),
            None => return Err(Error::internal("a commit without a manifest")),
        },
        Action::Advance(epoch) => Step::Advance(epoch),
        Action::Stop(error) => return Err(error),
    }))
}

/// Runs the plan: files are written, nothing is visible. Reports may be lost or doubled on the way.
fn run(world: &mut World, intent: &Intent) -> Result<Outcome> {
    let previous = world.manifests.get(&Epoch(intent.epoch.0 - 1)).cloned();
    let mut buckets = vec![Vec::new(); BUCKETS as usize];
    let mut reports = Vec::new();
    for range in &intent.ranges {
        reports.push(ingest(world, intent, range, &mut buckets)?);
    }
    let mut closed = Windows::new();
    for (bucket, records) in (0..).zip(&buckets) {
        reports.push(aggregate(world, intent, previous.as_ref(), bucket, records, &mut closed)?);
    }
    let rows = closed.len() as u64;
    let table = if rows == 0 { Vec::new() } else { vec![written(world.write(File::Windows(closed)), rows)] };
    if world.faults && world.rng.random_ratio(1, 12) {
        let unlucky = world.rng.random_range(0..reports.len());
        if world.rng.random() {
            world.note("a report was lost");
            reports.remove(unlucky);
        } else {
            world.note("a report came twice");
            reports.push(reports[unlucky].clone());
        }
    }
    Ok(Outcome { reports, table })
}

fn ingest(
    world: &mut World,
    intent: &Intent,
    range: &SplitRange,
    buckets: &mut [Vec<Record>],
) -> Result<TaskReport> {
    let mut report = report(INGEST, range.split.as_str());
    let mut bad = Vec::new();
    let records = world.splits[&range.split][range.start as usize..range.end as usize].to_vec();
    for record in records {
        let window = record.time_ms.div_euclid(WINDOW_MS);
        report.counts.read += 1;
        if record.bad {
            report.counts.dead_letters += 1;
            bad.push(record.id);
        } else if Some((window + 1) * WINDOW_MS) <= intent.late_before_ms {
            report.counts.late += 1;
            world.note("a row was late");
        } else {
            report.counts.accepted += 1;
            report.max_event_time_ms = report.max_event_time_ms.max(Some(record.time_ms));
            buckets[window.rem_euclid(i64::from(BUCKETS)) as usize].push(record);
        }
    }
    if !bad.is_empty() {
        let rows = bad.len() as u64;
        report.dead_letters.push(written(world.write(File::DeadLetters(bad)), rows));
    }
    Ok(report)
}

/// Adds the records to the bucket's state, and moves what is complete from there to `closed`.
fn aggregate(
    world: &mut World,
    intent: &Intent,
    previous: Option<&Manifest>,
    bucket: u32,
    records: &[Record],
    closed: &mut Windows,
) -> Result<TaskReport> {
    let mut windows = Windows::new();
    let held = previous.and_then(|manifest| manifest.state.iter().find(|state| state.bucket == bucket));
    for file in held.into_iter().flat_map(|state| &state.files) {
        match world.files.get(&file.path) {
            Some(File::Windows(stored)) => windows = stored.clone(),
            other => return Err(Error::new(Code::Corrupt, format!("state file {}: {other:?}", file.path))),
        }
    }
    for record in records {
        let window = windows.entry(record.time_ms.div_euclid(WINDOW_MS) * WINDOW_MS).or_default();
        window.sum += record.value;
        window.ids.push(record.id);
    }
    let open = match intent.close_before_ms {
        Some(i64::MAX) => Windows::new(),
        Some(close) => windows.split_off(&(close - WINDOW_MS + 1)),
        None => std::mem::take(&mut windows),
    };
    let mut report = report(AGGREGATE, &bucket.to_string());
    if !records.is_empty() || !windows.is_empty() {
        let rows = open.len() as u64;
        let path = world.write(File::Windows(open));
        let files = vec![StateFile { path, rows, bytes: rows }];
        report.state = Some(StateRef { operator: AGGREGATE.to_owned(), bucket, epoch: intent.epoch, files });
    }
    closed.append(&mut windows);
    Ok(report)
}

/// Puts the manifest. When there is one (another leader's, or ours after an error), or when the outcome is not
/// known, the facts are gathered anew, and whichever is there is rolled forward.
fn decide(world: &mut World, intent: &Intent, outcome: Outcome) -> Result<Manifest> {
    let mut reports = outcome.reports;
    if world.flaw == Flaw::TrustsTheTasks {
        make_complete(intent, &mut reports);
    }
    let previous = world.manifests.get(&Epoch(intent.epoch.0 - 1));
    let buckets = BTreeMap::from([(AGGREGATE.to_owned(), BUCKETS)]);
    let manifest = assemble(intent, previous, &reports, &outcome.table, &buckets, DELAY_MS)?;
    world.put_manifest(&manifest)?;
    Ok(manifest)
}

fn make_complete(intent: &Intent, reports: &mut Vec<TaskReport>) {
    let splits = intent.ranges.iter().map(|range| report(INGEST, range.split.as_str()));
    reports.extend(splits.chain((0..BUCKETS).map(|bucket| report(AGGREGATE, &bucket.to_string()))));
    let mut seen = std::collections::BTreeSet::new();
    reports.retain(|report| seen.insert((report.operator.clone(), report.instance.clone())));
}

fn report(operator: &str, instance: &str) -> TaskReport {
    TaskReport {
        operator: operator.to_owned(),
        instance: instance.to_owned(),
        counts: Counts::default(),
        max_event_time_ms: None,
        dead_letters: Vec::new(),
        state: None,
    }
}

fn written(path: String, rows: u64) -> Written {
    Written { rows, bytes: rows, descriptor: serde_json::Value::String(path) }
}
