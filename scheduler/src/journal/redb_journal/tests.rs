use super::*;
use redb::StorageBackend;
use redb::backends::FileBackend;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use tempfile::TempDir;

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn open(folder: &TempDir) -> Result<RedbJournal> {
    RedbJournal::open(&folder.path().join("deep/er/journal.redb"))
}

async fn put(
    journal: &RedbJournal,
    token: FencingToken,
    key: &str,
    value: &str,
    expect: Expect,
) -> Result<u64> {
    journal.put(token, key, Bytes::copy_from_slice(value.as_bytes()), expect).await
}

async fn value(journal: &RedbJournal, key: &str) -> Option<String> {
    let found = journal.get(key).await.unwrap();
    found.map(|found| String::from_utf8(found.value.to_vec()).unwrap())
}

#[tokio::test]
async fn keeps_values_and_tokens_over_a_reopening() {
    let folder = folder();
    let journal = open(&folder).unwrap();
    let token = journal.acquire().await.unwrap();
    let version = put(&journal, token, "k", "v", Expect::Absent).await.unwrap();
    drop(journal);
    let journal = open(&folder).unwrap();
    let found = journal.get("k").await.unwrap().unwrap();
    assert_eq!((found.value.as_ref(), found.version), (b"v".as_ref(), version));
    assert!(journal.acquire().await.unwrap() > token);
}

#[tokio::test]
async fn an_older_token_writes_nothing() {
    let folder = folder();
    let journal = open(&folder).unwrap();
    let old = journal.acquire().await.unwrap();
    put(&journal, old, "k", "old", Expect::Anything).await.unwrap();
    let new = journal.acquire().await.unwrap();
    assert_eq!(put(&journal, old, "k", "zombie", Expect::Anything).await.unwrap_err().code, Code::Fenced);
    assert_eq!(journal.delete(old, "k", Expect::Anything).await.unwrap_err().code, Code::Fenced);
    assert_eq!(value(&journal, "k").await.as_deref(), Some("old"));
    put(&journal, new, "k", "new", Expect::Anything).await.unwrap();
    let never_given = FencingToken(new.0 + 1);
    assert_eq!(put(&journal, never_given, "k", "x", Expect::Anything).await.unwrap_err().code, Code::Corrupt);
    assert_eq!(value(&journal, "k").await.as_deref(), Some("new"));
}

#[tokio::test]
async fn compares_before_it_sets() {
    let folder = folder();
    let journal = open(&folder).unwrap();
    let token = journal.acquire().await.unwrap();
    let conflict = |error: Error| assert_eq!(error.code, Code::Conflict, "{error}");
    conflict(put(&journal, token, "k", "v", Expect::Version(1)).await.unwrap_err());
    let first = put(&journal, token, "k", "1", Expect::Absent).await.unwrap();
    conflict(put(&journal, token, "k", "v", Expect::Absent).await.unwrap_err());
    let second = put(&journal, token, "k", "2", Expect::Version(first)).await.unwrap();
    assert!(second > first);
    conflict(put(&journal, token, "k", "v", Expect::Version(first)).await.unwrap_err());
    conflict(journal.delete(token, "k", Expect::Version(first)).await.unwrap_err());
    assert_eq!(value(&journal, "k").await.as_deref(), Some("2"));
    journal.delete(token, "k", Expect::Version(second)).await.unwrap();
    conflict(journal.delete(token, "k", Expect::Version(second)).await.unwrap_err());
    journal.delete(token, "k", Expect::Anything).await.unwrap();
    let again = put(&journal, token, "k", "3", Expect::Absent).await.unwrap();
    assert!(again > second, "a key that comes back never has a version that it had before");
}

#[tokio::test]
async fn of_many_who_compare_and_set_at_once_one_wins() {
    let folder = folder();
    let journal = open(&folder).unwrap();
    let token = journal.acquire().await.unwrap();
    let racers = (0..16).map(|racer| {
        let journal = journal.clone();
        tokio::spawn(async move { put(&journal, token, "k", &racer.to_string(), Expect::Absent).await })
    });
    let outcomes = futures::future::join_all(racers).await;
    let winners = outcomes.into_iter().filter(|outcome| outcome.as_ref().unwrap().is_ok()).count();
    assert_eq!(winners, 1);
}

#[tokio::test]
async fn lists_by_prefix_in_key_order() {
    let folder = folder();
    let journal = open(&folder).unwrap();
    let token = journal.acquire().await.unwrap();
    for key in ["load_run/a/2", "load/a", "load/b", "lob", "epoch/x"] {
        put(&journal, token, key, key, Expect::Absent).await.unwrap();
    }
    let keys =
        |found: Vec<(String, Versioned)>| -> Vec<String> { found.into_iter().map(|(key, _)| key).collect() };
    assert_eq!(keys(journal.list("load/").await.unwrap()), ["load/a", "load/b"]);
    assert_eq!(keys(journal.list("load_run/a/").await.unwrap()), ["load_run/a/2"]);
    assert_eq!(keys(journal.list("none/").await.unwrap()), Vec::<String>::new());
    assert_eq!(journal.list("").await.unwrap().len(), 5);
}

#[test]
fn a_file_in_use_is_refused_with_advice() {
    let folder = folder();
    let _held = open(&folder).unwrap();
    let error = open(&folder).unwrap_err();
    assert_eq!(error.code, Code::Conflict);
    assert!(error.message.contains("journal.redb") && error.message.contains("another process"), "{error}");
    assert!(error.hint.unwrap().contains("journal.path"));
}

#[test]
fn what_is_no_journal_is_refused_with_advice() {
    let folder = folder();
    std::fs::write(folder.path().join("notes.txt"), "x".repeat(10_000)).unwrap();
    for wrong in ["notes.txt", "notes.txt/journal.redb", "."] {
        let error = RedbJournal::open(&folder.path().join(wrong)).unwrap_err();
        assert_eq!(error.code, Code::Config, "{wrong}: {error}");
        assert!(error.hint.unwrap().contains("journal.path"));
    }
    assert!(std::fs::read_to_string(folder.path().join("notes.txt")).unwrap().starts_with("xxx"));
}

/// A disk that can be full.
#[derive(Debug)]
struct Disk {
    file: FileBackend,
    full: Arc<AtomicBool>,
}

impl Disk {
    fn space(&self) -> std::io::Result<()> {
        match self.full.load(Ordering::SeqCst) {
            true => Err(std::io::ErrorKind::StorageFull.into()),
            false => Ok(()),
        }
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> std::io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> std::io::Result<()> {
        self.space()?;
        self.file.set_len(len)
    }

    fn sync_data(&self) -> std::io::Result<()> {
        self.space()?;
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> std::io::Result<()> {
        self.space()?;
        self.file.write(offset, data)
    }

    fn close(&self) -> std::io::Result<()> {
        self.file.close()
    }
}

#[tokio::test]
async fn a_full_disk_is_said_and_survived() {
    let folder = folder();
    let path = folder.path().join("journal.redb");
    let full = Arc::new(AtomicBool::new(false));
    let disk_full = full.clone();
    let opener = move || {
        let file =
            std::fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path)?;
        let disk = Disk { file: FileBackend::new(file)?, full: disk_full.clone() };
        Database::builder().create_with_backend(disk)
    };
    let journal = RedbJournal::over("full.redb".to_owned(), Box::new(opener)).unwrap();
    let token = journal.acquire().await.unwrap();
    put(&journal, token, "k", "before", Expect::Absent).await.unwrap();

    full.store(true, Ordering::SeqCst);
    for _ in 0..3 {
        let error = put(&journal, token, "k", "lost", Expect::Anything).await.unwrap_err();
        assert_eq!(error.code, Code::NoSpace, "{error}");
        assert!(error.is_transient() && error.hint.is_some());
    }
    full.store(false, Ordering::SeqCst);
    assert_eq!(value(&journal, "k").await.as_deref(), Some("before"));
    put(&journal, token, "k", "after", Expect::Anything).await.unwrap();
    assert_eq!(value(&journal, "k").await.as_deref(), Some("after"));
}

const CHILD: &str = "TIDEMILL_TEST_JOURNAL";

/// The child of the next test: writes 1, 2, 3 … and says each number once it is written.
#[tokio::test]
async fn child_that_writes_until_it_is_killed() {
    let Ok(path) = std::env::var(CHILD) else { return };
    let journal = RedbJournal::open(Path::new(&path)).unwrap();
    let token = journal.acquire().await.unwrap();
    for number in 1..100_000u64 {
        put(&journal, token, "number", &number.to_string(), Expect::Anything).await.unwrap();
        println!("wrote {number}");
    }
}

#[tokio::test]
async fn what_was_said_to_be_written_survives_a_kill() {
    let folder = folder();
    let path = folder.path().join("journal.redb");
    let mut token = FencingToken(0);
    for kill_after in [1, 7, 20] {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["child_that_writes_until_it_is_killed", "--nocapture", "--test-threads=1"])
            .env(CHILD, &path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let said = |line: String| line.rsplit_once("wrote ").and_then(|(_, number)| number.parse().ok());
        let mut numbers = lines.map_while(|line| line.ok()).filter_map(said);
        let last_said: u64 = numbers.nth(kill_after - 1).expect("the child writes");
        child.kill().unwrap();
        child.wait().unwrap();
        let last_said = numbers.last().unwrap_or(last_said);

        let journal = RedbJournal::open(&path).unwrap();
        let kept: u64 = value(&journal, "number").await.unwrap().parse().unwrap();
        assert!(kept == last_said || kept == last_said + 1, "{kept} kept, {last_said} said");
        let next = journal.acquire().await.unwrap();
        assert!(next > FencingToken(token.0 + 1), "the child's token is kept too");
        token = next;
    }
}
