//! Two writers, an OPTIMIZE in a loop and readers on one table: nothing is lost, nothing is there twice, and no
//! reader sees an error or a count that went back.
//!
//! `TIDEMILL_RACE_COMMITS` (by default 40) is the number of commits of both writers together;
//! `TIDEMILL_RACE_S3` is an S3 service to run it on, with a bucket `lake`, instead of a folder.

use crate::cluster::{BINARY, free_ports};
use rand::Rng;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const ROWS: u64 = 10;

struct Server {
    child: Child,
    address: String,
}

impl Server {
    fn start(folder: &Path) -> Self {
        let [flight, http] = free_ports();
        let (root, store) = match std::env::var("TIDEMILL_RACE_S3") {
            Ok(endpoint) => {
                let lake = format!("race-{:016x}", rand::rng().random::<u64>());
                let store = format!(
                    "[store]\nendpoint = \"{endpoint}\"\nregion = \"us-east-1\"\nallow_http = true\n\
                     access_key_id = \"env:AWS_ACCESS_KEY_ID\"\nsecret_access_key = \"env:AWS_SECRET_ACCESS_KEY\"\n"
                );
                (format!("s3://lake/{lake}"), store)
            }
            Err(_) => (folder.join("lake").display().to_string(), String::new()),
        };
        let text = format!(
            "[lake]\nroot = \"{root}\"\n{store}[journal]\npath = \"{}\"\n[server]\nflight = \"127.0.0.1:{flight}\"\n\
             http = \"127.0.0.1:{http}\"\n[maintenance]\ninterval = \"1s\"\ncompact_from_files = 8\n",
            folder.join("journal.redb").display()
        );
        let config = folder.join("tidemill.toml");
        std::fs::write(&config, text).unwrap();
        let log = std::fs::File::create(folder.join("server.log")).unwrap();
        let child = Command::new(BINARY)
            .arg("--config")
            .arg(&config)
            .arg("local")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let server = Self { child, address: format!("http://127.0.0.1:{flight}") };
        let began = Instant::now();
        while server.rows("SELECT 1 AS one").is_err() {
            assert!(began.elapsed() < Duration::from_secs(60), "the server does not answer");
            std::thread::sleep(Duration::from_millis(100));
        }
        server
    }

    fn rows(&self, sql: &str) -> Result<Vec<serde_json::Value>, String> {
        let output = Command::new(BINARY)
            .args(["sql", "--format", "json", "--max-rows", "0", "--server", &self.address, "-c", sql])
            .output()
            .unwrap();
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
        let text = String::from_utf8(output.stdout).unwrap();
        Ok(text.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn two_writers_and_an_optimize_lose_nothing_and_double_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path());
    let commits: u64 = std::env::var("TIDEMILL_RACE_COMMITS").ok().map_or(40, |text| text.parse().unwrap());
    server.rows("CREATE TABLE events (id BIGINT, part BIGINT) PARTITIONED BY (part)").unwrap();

    let (done, committed, optimized) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..2)
            .map(|writer| {
                let (server, committed) = (&server, &committed);
                scope.spawn(move || {
                    for commit in (writer..commits).step_by(2) {
                        let first = commit * ROWS;
                        let insert = format!(
                            "INSERT INTO events SELECT value, value % 2 FROM generate_series({first}, {})",
                            first + ROWS - 1
                        );
                        server.rows(&insert).unwrap();
                        committed.fetch_add(1, Ordering::SeqCst);
                    }
                })
            })
            .collect();
        let (server, done, committed, optimized) = (&server, &done, &committed, &optimized);
        scope.spawn(move || {
            while !done.load(Ordering::SeqCst) {
                let report = server.rows("OPTIMIZE events").unwrap();
                let removed = report[0]["metrics"]["numFilesRemoved"].as_u64().unwrap();
                optimized.fetch_add(removed, Ordering::SeqCst);
            }
        });
        scope.spawn(move || {
            let mut seen = 0;
            while !done.load(Ordering::SeqCst) {
                let before = committed.load(Ordering::SeqCst) * ROWS;
                let rows =
                    server.rows("SELECT count(*) AS n, count(DISTINCT id) AS ids FROM events").unwrap();
                let (n, ids) = (rows[0]["n"].as_u64().unwrap(), rows[0]["ids"].as_u64().unwrap());
                assert_eq!(n, ids, "a row is there twice");
                assert!(n >= before && n >= seen, "rows went away: {n}, after {seen} and {before}");
                assert_eq!(n % ROWS, 0, "half a commit was seen");
                seen = n;
            }
        });
        // All of them are waited for, also when one has failed.
        let outcomes: Vec<_> = writers.into_iter().map(|writer| writer.join()).collect();
        done.store(true, Ordering::SeqCst);
        assert!(outcomes.iter().all(Result::is_ok), "a writer failed");
    });

    let rows =
        server.rows("SELECT count(*) AS n, count(DISTINCT id) AS ids, sum(id) AS total FROM events").unwrap();
    let all = commits * ROWS;
    assert_eq!(rows[0]["n"], all);
    assert_eq!(rows[0]["ids"], all);
    assert_eq!(rows[0]["total"], all * (all - 1) / 2);
    assert!(optimized.load(Ordering::SeqCst) > 0, "nothing was ever compacted");
    let last = server.rows("OPTIMIZE events").unwrap();
    let detail = server.rows("DESCRIBE DETAIL events").unwrap();
    assert_eq!(detail[0]["numFiles"], 2, "after {last:?}");
}

/// A MERGE asks its source twice. What comes in between must not be taken for new: the table has it.
#[test]
fn a_merge_sees_one_version_of_its_source() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path());
    server
        .rows(
            // One file for each row: which of them a MERGE rewrites is decided by the first look at the source.
            "CREATE TABLE target PARTITIONED BY (part) AS \
             SELECT value AS id, value AS part FROM generate_series(0, 100); \
             CREATE TABLE source AS SELECT * FROM target WHERE id = 0",
        )
        .unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (server, done) = (&server, &done);
        let inserts = scope.spawn(move || {
            for id in (1..=100).take_while(|_| !done.load(Ordering::SeqCst)) {
                server.rows(&format!("INSERT INTO source VALUES ({id}, {id})")).unwrap();
            }
        });
        let merges = scope.spawn(move || {
            let merge = "MERGE INTO target AS t USING source AS s ON t.id = s.id \
                         WHEN MATCHED THEN UPDATE SET * WHEN NOT MATCHED THEN INSERT *";
            (0..20).try_for_each(|_| server.rows(merge).map(|_| ()))
        });
        let merged = merges.join();
        done.store(true, Ordering::SeqCst);
        inserts.join().unwrap();
        merged.unwrap().unwrap();
    });
    let rows = server.rows("SELECT count(*) AS n, count(DISTINCT id) AS ids FROM target").unwrap();
    assert_eq!((rows[0]["n"].as_u64(), rows[0]["ids"].as_u64()), (Some(101), Some(101)));
}
