//! A scheduler and executors as child processes, and a client that speaks to them as a user would.

use rand::Rng;
use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_tidemill");

/// What a service's tests are given; `None` after saying that they are skipped.
pub(crate) fn service(test: &str, variable: &str) -> Option<String> {
    match std::env::var(variable) {
        Ok(value) => Some(value),
        Err(_) => {
            println!("SKIPPED {test}: {variable} is not set (deploy/services/up starts the services)");
            assert!(
                std::env::var("TIDEMILL_REQUIRE_SERVICES").is_err(),
                "{variable} is demanded and not set"
            );
            None
        }
    }
}

/// One role of the cluster, restarted whenever it was killed.
pub(crate) struct Node {
    role: &'static str,
    config: PathBuf,
    log: PathBuf,
    child: Option<Child>,
}

impl Node {
    pub(crate) fn start(role: &'static str, config: &Path, log: PathBuf) -> Self {
        let mut node = Self { role, config: config.to_owned(), log, child: None };
        node.launch();
        node
    }

    pub(crate) fn role(&self) -> &'static str {
        self.role
    }

    pub(crate) fn launch(&mut self) {
        let log = File::options().create(true).append(true).open(&self.log).unwrap();
        let child = Command::new(BINARY)
            .arg("--config")
            .arg(&self.config)
            .arg(self.role)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.child = Some(child);
    }

    /// SIGKILL: nothing in the process gets to run any more.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A scheduler and two executors over a lake of their own.
pub(crate) struct Cluster {
    pub nodes: Vec<Node>,
    server: String,
    folder: tempfile::TempDir,
}

impl Cluster {
    /// On S3.
    pub(crate) fn start(s3: &str) -> Self {
        let lake = format!(
            r#"
[lake]
root = "s3://lake/e2e-{:016x}"
[store]
endpoint = "{s3}"
region = "us-east-1"
access_key_id = "env:AWS_ACCESS_KEY_ID"
secret_access_key = "env:AWS_SECRET_ACCESS_KEY"
allow_http = true
"#,
            rand::rng().random::<u64>()
        );
        Self::over(tempfile::tempdir().unwrap(), &lake)
    }

    /// In a folder that all of its processes see.
    pub(crate) fn in_a_folder() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let lake = format!("[lake]\nroot = \"{}\"\n", folder.path().join("lake").display());
        Self::over(folder, &lake)
    }

    fn over(folder: tempfile::TempDir, lake: &str) -> Self {
        let [flight, http, ballista] = free_ports();
        let config = folder.path().join("tidemill.toml");
        let text = format!(
            r#"{lake}
[journal]
path = "{journal}"
[server]
flight = "127.0.0.1:{flight}"
http = "127.0.0.1:{http}"
[cluster]
scheduler_url = "http://127.0.0.1:{http}"
ballista_scheduler = "127.0.0.1:{ballista}"
executor_threads = 1
"#,
            journal = folder.path().join("journal.redb").display()
        );
        std::fs::write(&config, text).unwrap();
        let log = |name: &str| folder.path().join(format!("{name}.log"));
        let nodes = vec![
            Node::start("scheduler", &config, log("scheduler")),
            Node::start("executor", &config, log("executor-1")),
            Node::start("executor", &config, log("executor-2")),
        ];
        let cluster = Self { nodes, server: format!("http://127.0.0.1:{flight}"), folder };
        cluster.until("two executors are registered", Duration::from_secs(60), || {
            let rows = cluster.rows("SELECT count(*) AS n FROM tidemill.executors").ok()?;
            (rows[0]["n"] == 2).then_some(())
        });
        cluster
    }

    /// Runs statements, and gives the rows of the last one. The error is what the shell says.
    pub(crate) fn rows(&self, sql: &str) -> Result<Vec<serde_json::Value>, String> {
        let text = self.answer("json", sql)?;
        Ok(text.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
    }

    /// The same as the shell writes it.
    pub(crate) fn answer(&self, format: &str, sql: &str) -> Result<String, String> {
        let output = Command::new(BINARY)
            .args(["sql", "--format", format, "--max-rows", "0", "--server", &self.server, "-c", sql])
            .output()
            .unwrap();
        match output.status.success() {
            true => Ok(String::from_utf8(output.stdout).unwrap()),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        }
    }

    /// Waits for a condition; prints the logs when it does not come about.
    pub(crate) fn until<T>(&self, what: &str, patience: Duration, mut check: impl FnMut() -> Option<T>) -> T {
        let began = Instant::now();
        loop {
            if let Some(found) = check() {
                return found;
            }
            if began.elapsed() > patience {
                self.print_logs();
                panic!("it did not come about within {patience:?}: {what}");
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    pub(crate) fn print_logs(&self) {
        for name in ["scheduler", "executor-1", "executor-2"] {
            let path = self.folder.path().join(format!("{name}.log"));
            let text = std::fs::read_to_string(path).unwrap_or_default();
            let lines: Vec<&str> = text.lines().rev().take(25).collect();
            println!("--- the end of {name}.log");
            lines.iter().rev().for_each(|line| println!("{line}"));
        }
    }
}

/// Ports that were free a moment ago.
pub(crate) fn free_ports<const N: usize>() -> [u16; N] {
    let listeners: [TcpListener; N] = std::array::from_fn(|_| TcpListener::bind("127.0.0.1:0").unwrap());
    std::array::from_fn(|n| listeners[n].local_addr().unwrap().port())
}
