//! DataFusion's own sqllogictest files, run on our sessions and engines. `deploy/slt` fetches the files and runs
//! this; they are no part of this repository.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod causes;
mod cells;
mod database;
mod judge;
mod lineage;
mod script;
mod tally;

use database::Database;
use futures::FutureExt;
use judge::Outcome;
use lineage::Lineage;
use script::Expect;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tally::Tally;
use tidemill_engine::Engine;

/// A statement that takes longer is given up, and its file with it.
const PATIENCE: Duration = Duration::from_secs(60);

/// The folder with `test_files`, in which relative paths of the tests begin. It is written to.
const FOLDER: &str = "TIDEMILL_SLT";
/// Where the summary goes.
const SUMMARY: &str = "TIDEMILL_SLT_SUMMARY";
/// Only files whose path contains one of these words, separated by commas.
const FILTER: &str = "TIDEMILL_SLT_FILTER";

#[test]
#[ignore = "needs DataFusion's test files: deploy/slt"]
fn datafusions_own_tests() {
    let folder = PathBuf::from(std::env::var(FOLDER).unwrap());
    std::env::set_current_dir(&folder).unwrap();
    let filter = std::env::var(FILTER).unwrap_or_default();
    let mut files = Vec::new();
    find(Path::new("test_files"), &mut files);
    files.retain(|file| filter.split(',').any(|word| file.to_str().unwrap().contains(word)));
    files.sort();
    let mut tally = Tally::default();
    for file in &files {
        let cluster = Arc::new(database::Cluster::start());
        for engine in cluster.engines() {
            // A runtime for each: what a panic leaves behind goes with it.
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
            let outcomes = runtime.block_on(run(file, cluster.clone(), engine.clone()));
            runtime.shutdown_background();
            tally.add(file, engine.kind(), outcomes);
        }
        println!("{}", tally.line(file));
    }
    let summary = tally.summary();
    if let Ok(path) = std::env::var(SUMMARY) {
        std::fs::write(path, &summary).unwrap();
    }
    println!("{summary}");
    assert!(!files.is_empty(), "no test files in {}", folder.display());
}

fn find(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("scratch") {
            find(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "slt") {
            files.push(path);
        }
    }
}

/// Goes on after a failure, so that each record is judged.
async fn run(file: &Path, cluster: Arc<database::Cluster>, engine: Arc<dyn Engine>) -> Vec<Outcome> {
    let scratch = Path::new("test_files/scratch").join(file.file_stem().unwrap());
    let _ = std::fs::remove_dir_all(&scratch);
    std::fs::create_dir_all(&scratch).unwrap();
    let records = match script::read(file) {
        Ok(records) => records,
        Err(error) => return vec![Outcome::unreadable(&error)],
    };
    let name = tally::name(file);
    let database = Database::new(cluster, engine, file);
    let mut lineage = Lineage::of(&name);
    let mut outcomes = Vec::new();
    for record in records {
        if record.sql.trim_start().to_lowercase().starts_with("explain") {
            outcomes.push(Outcome::Plan);
            continue;
        }
        let touched = database.touched(&record.sql);
        let lack = touched.as_ref().and_then(|touched| lineage.lack(touched));
        let answer = AssertUnwindSafe(database.run(&record.sql)).catch_unwind();
        let (outcome, refused) = match tokio::time::timeout(PATIENCE, answer).await {
            Ok(Ok(result)) => (Outcome::of(&name, &record, &result, lack), result.is_err()),
            Ok(Err(_)) => (Outcome::panicked(&record), true),
            Err(_) => {
                outcomes.push(Outcome::stuck(&record));
                break;
            }
        };
        // What should be refused, and was, has made nothing.
        let made = !(refused && matches!(record.expect, Expect::Error(_) | Expect::ErrorText(_)));
        if let (Some(touched), true) = (touched, made) {
            lineage.note(&touched, outcome == Outcome::Passed);
        }
        outcomes.push(outcome);
    }
    outcomes
}
