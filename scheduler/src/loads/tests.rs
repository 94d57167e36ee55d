//! The whole of a load against a journal, a clock and a sink in hand.

use super::testing::*;
use super::*;
use chrono::{DateTime, Utc};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tidemill_core::config::Config;
use tidemill_core::{Code, ConnectorRegistry, Error, Journal, SinkSpec};

struct Trial {
    dir: tempfile::TempDir,
    journal: Arc<MemoryJournal>,
    clock: Arc<VirtualClock>,
    query: Arc<FakeQuery>,
    target: String,
}

fn at(text: &str) -> DateTime<Utc> {
    format!("2026-01-01T{text}:00Z").parse().unwrap()
}

impl Trial {
    fn new(now: &str) -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            journal: Arc::new(MemoryJournal::default()),
            clock: VirtualClock::new(at(now)),
            query: Arc::new(FakeQuery::default()),
            target: uuid::Uuid::new_v4().to_string(),
        }
    }

    fn sink(&self) -> Arc<FakeSink> {
        fake_sink(&self.target)
    }

    async fn start(&self) -> Loads {
        let mut config = Config::default();
        config.lake.root = self.dir.path().to_str().unwrap().to_owned();
        let options = LoadsOptions {
            journal: self.journal.clone(),
            token: self.journal.acquire().await.unwrap(),
            connectors: ConnectorRegistry::new(config.clone()).with_sink("fake", sink_factory),
            runner: self.query.clone(),
            clock: self.clock.clone(),
            config: &config,
        };
        Loads::start(options).await.unwrap()
    }

    fn spec(&self, cron: Option<&str>) -> LoadSpec {
        LoadSpec {
            name: "revenue".to_owned(),
            query: "SELECT * FROM revenue WHERE at >= :from AND at < :to".to_owned(),
            connection: "warehouse".to_owned(),
            sink: SinkSpec {
                connector: "fake".to_owned(),
                target: self.target.clone(),
                options: BTreeMap::new(),
            },
            schedule: cron.map(|cron| ScheduleSpec { cron: cron.to_owned(), time_zone: "UTC".to_owned() }),
            retries: Retries::default(),
        }
    }

    /// Each interval once, without a gap, from the first to the last.
    fn assert_exactly_once(&self, hours: usize) {
        let visible = self.sink().visible();
        let distinct: BTreeSet<&String> = visible.iter().collect();
        assert_eq!(distinct.len(), visible.len(), "an interval is there twice: {visible:#?}");
        assert_eq!(visible.len(), hours, "{visible:#?}");
    }
}

/// Waits until the runs are as asked, and says how they were when that does not come.
async fn until(loads: &Loads, condition: impl Fn(&[RunRecord]) -> bool) -> Vec<RunRecord> {
    for _ in 0..5_000 {
        let runs = loads.runs().await.unwrap();
        if condition(&runs) {
            return runs;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("the runs never came to be so: {:#?}", loads.runs().await.unwrap());
}

fn finished(count: usize) -> impl Fn(&[RunRecord]) -> bool {
    move |runs| runs.len() == count && runs.iter().all(RunRecord::is_finished)
}

fn away() -> Error {
    Error::new(Code::Unreachable, "away")
}

#[tokio::test]
async fn every_fire_loads_the_interval_before_it() {
    let trial = Trial::new("09:30");
    let loads = trial.start().await;
    loads.create(trial.spec(Some("5 * * * *"))).await.unwrap();
    trial.clock.advance(at("12:04"));
    let runs = until(&loads, finished(2)).await;
    let intervals: Vec<_> = runs.iter().map(|run| (run.run, run.interval)).collect();
    let expected = [("09:05", "10:05"), ("10:05", "11:05")].map(|(from, to)| Interval::new(at(from), at(to)));
    assert_eq!(intervals, [(1, expected[0].clone().unwrap()), (2, expected[1].clone().unwrap())]);
    assert!(runs.iter().all(|run| run.status() == "reconciled" && run.rows_counted == Some(10)));
}

#[tokio::test]
async fn what_was_missed_is_made_up_in_order() {
    let trial = Trial::new("00:00");
    let loads = trial.start().await;
    loads.create(trial.spec(Some("0 * * * *"))).await.unwrap();
    loads.pause("revenue").await.unwrap();
    loads.stop().await;
    trial.clock.jump(at("07:10"));
    let loads = trial.start().await;
    assert!(loads.list().await.unwrap()[0].paused);
    assert_eq!(loads.runs().await.unwrap(), []);
    loads.resume("revenue").await.unwrap();
    let runs = until(&loads, finished(7)).await;
    assert!(runs.windows(2).all(|pair| pair[0].interval.to == pair[1].interval.from));
    trial.assert_exactly_once(7);
}

/// A process dies before and after every write of three runs; its successor goes on.
#[tokio::test]
async fn a_death_at_any_write_loses_and_doubles_nothing() {
    // The load itself, then four writes a run.
    for put in 2..=13 {
        for death in [Death::BeforePut(put), Death::AfterPut(put)] {
            let trial = Trial::new("00:00");
            trial.journal.plan(Some(death));
            let loads = trial.start().await;
            loads.create(trial.spec(Some("0 * * * *"))).await.unwrap();
            trial.clock.advance(at("03:00"));
            trial.journal.dead().await;
            loads.stop().await;
            trial.journal.plan(None);
            let loads = trial.start().await;
            until(&loads, |runs| runs.iter().filter(|run| run.status() == "reconciled").count() == 3).await;
            trial.assert_exactly_once(3);
        }
    }
}

#[tokio::test]
async fn a_commit_that_lands_and_reports_an_error_is_not_repeated() {
    let trial = Trial::new("00:00");
    trial.sink().fail(vec![Fault::Error(away()), Fault::DoneThenError(away())]);
    let loads = trial.start().await;
    loads.create(trial.spec(Some("0 * * * *"))).await.unwrap();
    trial.clock.advance(at("01:30"));
    let runs = until(&loads, finished(1)).await;
    assert_eq!(runs[0].status(), "reconciled");
    trial.assert_exactly_once(1);
}

#[tokio::test]
async fn tries_used_up_before_staging_leave_the_interval_to_the_next_fire() {
    let trial = Trial::new("00:00");
    *trial.query.faults.lock() = vec![away(); 6];
    let loads = trial.start().await;
    loads.create(trial.spec(Some("0 * * * *"))).await.unwrap();
    trial.clock.advance(at("01:59"));
    let runs = until(&loads, finished(1)).await;
    assert_eq!(runs[0].status(), "failed");
    assert_eq!(runs[0].failure.as_ref().unwrap().attempt, 6);
    assert_eq!(trial.sink().visible().len(), 0);
    trial.clock.advance(at("02:30"));
    let runs = until(&loads, finished(3)).await;
    assert_eq!((runs[1].run, runs[1].interval), (2, runs[0].interval));
    trial.assert_exactly_once(2);
}

#[tokio::test]
async fn an_error_that_cannot_pass_is_not_tried_again() {
    let trial = Trial::new("00:30");
    *trial.query.faults.lock() = vec![Error::new(Code::UnknownColumn, "no column `at`")];
    let loads = trial.start().await;
    loads.create(trial.spec(None)).await.unwrap();
    let error = loads.run_now("revenue", at("00:00"), at("00:30")).await.unwrap_err();
    assert_eq!(error.code, Code::UnknownColumn);
    assert!(error.to_string().contains("run 1 of load `revenue`"), "{error}");
    let runs = loads.runs().await.unwrap();
    assert_eq!((runs.len(), runs[0].failure.as_ref().unwrap().attempt), (1, 1));
}

/// What was decided stays ahead of everything later, over a restart too.
#[tokio::test]
async fn a_staged_run_that_cannot_commit_holds_back_later_ones() {
    let trial = Trial::new("00:00");
    let refused = Error::new(Code::AccessDenied, "no INSERT right");
    trial.sink().fail(vec![Fault::Error(refused.clone()); 3]);
    let loads = trial.start().await;
    loads.create(trial.spec(Some("0 * * * *"))).await.unwrap();
    trial.clock.advance(at("01:30"));
    let stuck = |runs: &[RunRecord]| runs.len() == 1 && runs[0].status() == "stuck";
    until(&loads, stuck).await;
    let error = loads.run_now("revenue", at("00:10"), at("00:20")).await.unwrap_err();
    assert_eq!(error.code, Code::AccessDenied);
    loads.stop().await;
    let loads = trial.start().await;
    until(&loads, stuck).await;
    trial.sink().fail(vec![]);
    trial.clock.advance(at("02:30"));
    let runs = until(&loads, finished(2)).await;
    assert!(runs.iter().all(|run| run.status() == "reconciled"));
    trial.assert_exactly_once(2);
}

#[tokio::test]
async fn asking_again_for_a_loaded_time_says_so() {
    let trial = Trial::new("06:00");
    let loads = trial.start().await;
    loads.create(trial.spec(Some("0 * * * *"))).await.unwrap();
    let first = loads.run_now("revenue", at("01:00"), at("03:00")).await.unwrap();
    assert_eq!(first.to_string(), "loaded: run 1, 10 rows; loaded: run 2, 10 rows");
    let again = loads.run_now("revenue", at("01:00"), at("03:00")).await.unwrap();
    assert_eq!(again.to_string(), "already loaded: run 1, 10 rows; already loaded: run 2, 10 rows");
    let wider = loads.run_now("revenue", at("00:30"), at("03:00")).await.unwrap();
    assert_eq!((wider.loaded.len(), wider.already.len()), (1, 2));
    assert_eq!(wider.loaded[0].interval, Interval::new(at("00:30"), at("01:00")).unwrap());
    trial.assert_exactly_once(3);
}

#[tokio::test]
async fn a_backfill_before_the_schedule_is_left_out_of_it() {
    let trial = Trial::new("00:00");
    let loads = trial.start().await;
    loads.create(trial.spec(Some("0 * * * *"))).await.unwrap();
    loads.pause("revenue").await.unwrap();
    trial.clock.jump(at("03:10"));
    loads.run_now("revenue", at("01:00"), at("02:00")).await.unwrap();
    loads.resume("revenue").await.unwrap();
    until(&loads, finished(3)).await;
    trial.assert_exactly_once(3);
}

#[tokio::test]
async fn other_counts_in_the_sink_are_an_error_and_stay_visible() {
    let trial = Trial::new("02:00");
    trial.sink().miscount(1);
    let loads = trial.start().await;
    loads.create(trial.spec(None)).await.unwrap();
    let error = loads.run_now("revenue", at("00:00"), at("01:00")).await.unwrap_err();
    assert_eq!(error.code, Code::ReconciliationFailed);
    assert!(error.message.contains("staged 10 rows"), "{error}");
    let runs = loads.runs().await.unwrap();
    assert_eq!((runs[0].status(), runs[0].rows_counted), ("mismatched", Some(11)));
}

#[tokio::test]
async fn a_sink_that_cannot_count_leaves_a_run_unproved() {
    let trial = Trial::new("02:00");
    trial.sink().cannot_count();
    let loads = trial.start().await;
    loads.create(trial.spec(None)).await.unwrap();
    let outcome = loads.run_now("revenue", at("00:00"), at("01:00")).await.unwrap();
    assert_eq!(outcome.loaded[0].status(), "unproved");
}

#[tokio::test]
async fn an_older_leader_commits_nothing() {
    let trial = Trial::new("00:00");
    let old = trial.start().await;
    old.create(trial.spec(Some("0 * * * *"))).await.unwrap();
    let new = trial.start().await;
    trial.clock.advance(at("03:00"));
    until(&new, finished(3)).await;
    trial.assert_exactly_once(3);
    let error = old.run_now("revenue", at("00:00"), at("00:30")).await;
    // Its task has gone, or finds everything loaded; it never writes.
    if let Ok(outcome) = error {
        assert_eq!(outcome.loaded, []);
    }
    trial.assert_exactly_once(3);
}

#[tokio::test]
async fn a_load_of_the_same_name_begins_anew() {
    let trial = Trial::new("05:00");
    let loads = trial.start().await;
    let first = loads.create(trial.spec(None)).await.unwrap();
    assert_eq!(loads.create(trial.spec(None)).await.unwrap_err().code, Code::AlreadyExists);
    loads.run_now("revenue", at("00:00"), at("01:00")).await.unwrap();
    loads.drop_load("revenue").await.unwrap();
    assert_eq!((loads.list().await.unwrap().len(), loads.runs().await.unwrap().len()), (0, 0));
    assert_eq!(loads.drop_load("revenu").await.unwrap_err().code, Code::UnknownObject);
    trial.clock.jump(at("05:01"));
    let second = loads.create(trial.spec(None)).await.unwrap();
    assert_ne!(first.id, second.id);
    let outcome = loads.run_now("revenue", at("00:00"), at("01:00")).await.unwrap();
    assert_eq!(outcome.loaded[0].run, 1);
}

#[tokio::test]
async fn an_empty_or_future_interval_is_refused() {
    let trial = Trial::new("05:00");
    let loads = trial.start().await;
    loads.create(trial.spec(None)).await.unwrap();
    for (from, to) in [("02:00", "01:00"), ("04:00", "06:00")] {
        let error = loads.run_now("revenue", at(from), at(to)).await.unwrap_err();
        assert_eq!(error.code, Code::InvalidStatement);
    }
}
