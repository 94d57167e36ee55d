//! Configuration: defaults, then `tidemill.toml`, then `TIDEMILL__SECTION__KEY`, then flags.
//! Unknown keys are refused.

use crate::{Code, Error, Result};
use figment::Figment;
use figment::providers::{Env, Format, Serialized, Toml};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    pub lake: Lake,
    pub store: Store,
    pub journal: Journal,
    pub server: Server,
    pub cluster: Cluster,
    pub engine: Engine,
    pub jobs: Jobs,
    pub streaming: Streaming,
    pub maintenance: Maintenance,
    pub auth: Auth,
}

/// Where tables are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Lake {
    /// Root of all tables that have no location of their own: a folder or `s3://bucket/prefix`.
    pub root: String,
    /// Root of manifests, state and staged loads; by default `_tidemill` under the lake root.
    pub checkpoints: Option<String>,
}

/// How object stores are reached. Credentials may be `env:NAME` or `file:PATH`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Store {
    /// URL of an S3-compatible service; empty for AWS itself.
    pub endpoint: Option<String>,
    pub region: Option<String>,
    pub access_key_id: Option<String>,
    pub secret_access_key: Option<String>,
    /// Whether plain `http://` endpoints are allowed.
    pub allow_http: bool,
}

/// The control store of a scheduler.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Journal {
    /// File of the embedded store.
    pub path: PathBuf,
}

/// What clients connect to. Loopback unless said otherwise.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Server {
    /// Flight SQL.
    pub flight: String,
    /// REST, web page, metrics, health.
    pub http: String,
    /// How long a statement may take, unless its session says otherwise; 0 is no limit.
    #[serde(with = "humantime_serde")]
    pub statement_timeout: std::time::Duration,
    /// Flight SQL speaks TLS when this is there.
    pub tls: Option<Tls>,
}

/// How scheduler and executors find each other.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Cluster {
    /// Scheduler's HTTP address as executors see it: registration and heartbeats.
    pub scheduler_url: String,
    /// Address on which the scheduler's Ballista part listens.
    pub ballista_scheduler: String,
    /// Host on which an executor listens; its ports are chosen by the system when 0.
    pub executor_host: String,
    /// An executor that is silent for longer is taken for lost.
    #[serde(with = "humantime_serde")]
    pub executor_timeout: std::time::Duration,
    /// Threads (task slots) of an executor; 0 means one per core.
    pub executor_threads: usize,
}

/// How queries run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[derive(Default)]
pub struct Engine {
    /// Partitions of a plan; 0 means one per core.
    pub target_partitions: usize,
    /// Memory that queries and the data cache may use together, in bytes; 0 means three quarters of the machine.
    pub memory_limit_bytes: usize,
    /// How much of it is for decoded columns of files, in bytes; by default a quarter. 0 keeps none.
    pub data_cache_bytes: Option<usize>,
    /// Where operators spill; by default the system's temporary folder.
    pub spill_dir: Option<PathBuf>,
}

/// How many statements run at once, and what one of them may take.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Jobs {
    /// Heavy statements that run at once; 0 means one per core of this process or of its executors.
    pub heavy_slots: usize,
    /// Light statements that run at once; 0 means sixteen per core.
    pub light_slots: usize,
    /// Statements that may wait for their turn; more are refused.
    pub queue_length: usize,
    /// A statement that reads at least so many bytes is heavy.
    pub heavy_from_bytes: u64,
    /// A query that reads less runs in the scheduler itself, unless its session says where it shall.
    pub local_below_bytes: u64,
    /// Memory that one statement may use in this process, in bytes; 0 means three quarters of
    /// `engine.memory_limit_bytes`.
    pub memory_limit_bytes: usize,
}

/// Defaults of pipelines.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Streaming {
    /// Buckets of keyed state of a new pipeline; kept with the pipeline.
    pub buckets: u32,
    /// Most records that one epoch takes from all splits together.
    pub max_records_per_epoch: u64,
    /// Delta state files of a bucket before a new base is written.
    pub state_deltas: usize,
    /// Memory for keyed state that a process keeps at hand, in bytes; what is beyond is read again.
    pub state_cache_bytes: usize,
}

/// Care of Delta tables: OPTIMIZE, VACUUM, and what is done for tables without being asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Maintenance {
    /// Whether tables that are written here are looked after without being asked.
    pub enabled: bool,
    /// How often.
    #[serde(with = "humantime_serde")]
    pub interval: std::time::Duration,
    /// Tables that are looked after at a time.
    pub concurrency: usize,
    /// Small files of a partition from which they are compacted.
    pub compact_from_files: usize,
    /// Size of a compacted file, for tables without `delta.targetFileSize`.
    pub target_file_size_bytes: u64,
    /// Memory in this process for all that is done without being asked, and for the files that an OPTIMIZE writes at
    /// a time, in bytes; 0 means a quarter of `engine.memory_limit_bytes`.
    pub memory_limit_bytes: usize,
    /// How long VACUUM keeps files that no version has: longer than any write takes.
    #[serde(with = "humantime_serde")]
    pub orphan_retention: std::time::Duration,
}

/// Certificates of Flight SQL: files in PEM format.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// The server's certificate, with those between it and the authority.
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// Only clients with a certificate of this authority are let in.
    #[serde(default)]
    pub client_ca: Option<PathBuf>,
}

/// A user, with a password, a bearer token or both.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct User {
    pub name: String,
    /// `env:NAME` or `file:PATH`; what is there may be an Argon2 hash (`$argon2id$…`).
    #[serde(default)]
    pub password: Option<String>,
    /// `env:NAME` or `file:PATH`.
    #[serde(default)]
    pub token: Option<String>,
    /// RFC 3339; without it the token does not expire.
    #[serde(default)]
    pub token_expires: Option<String>,
    /// Whether this user sees and ends what others have submitted.
    #[serde(default)]
    pub admin: bool,
}

/// Who may connect. Without users everyone may, but only on this machine.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Auth {
    pub user: Option<String>,
    /// `env:NAME` or `file:PATH`.
    pub password: Option<String>,
    pub users: Vec<User>,
    /// Whether callers without a name are let in: from this machine, if nothing is said and there are no users.
    pub anonymous: Option<bool>,
}

impl Default for Lake {
    fn default() -> Self {
        Self { root: "tidemill-data/lake".to_owned(), checkpoints: None }
    }
}

impl Default for Journal {
    fn default() -> Self {
        Self { path: PathBuf::from("tidemill-data/journal.redb") }
    }
}

impl Default for Server {
    fn default() -> Self {
        Self {
            flight: "127.0.0.1:32010".to_owned(),
            http: "127.0.0.1:8080".to_owned(),
            statement_timeout: std::time::Duration::ZERO,
            tls: None,
        }
    }
}

impl Default for Cluster {
    fn default() -> Self {
        Self {
            scheduler_url: "http://127.0.0.1:8080".to_owned(),
            ballista_scheduler: "127.0.0.1:50050".to_owned(),
            executor_host: "127.0.0.1".to_owned(),
            executor_timeout: std::time::Duration::from_secs(5),
            executor_threads: 0,
        }
    }
}

impl Default for Jobs {
    fn default() -> Self {
        Self {
            heavy_slots: 0,
            light_slots: 0,
            queue_length: 1000,
            heavy_from_bytes: 64 << 20,
            local_below_bytes: 8 << 20,
            memory_limit_bytes: 0,
        }
    }
}

impl Default for Streaming {
    fn default() -> Self {
        Self { buckets: 4, max_records_per_epoch: 2_000_000, state_deltas: 10, state_cache_bytes: 512 << 20 }
    }
}

impl Default for Maintenance {
    fn default() -> Self {
        Self {
            enabled: true,
            interval: std::time::Duration::from_secs(30),
            concurrency: 1,
            compact_from_files: 50,
            target_file_size_bytes: 128 << 20,
            memory_limit_bytes: 0,
            orphan_retention: std::time::Duration::from_secs(24 * 3600),
        }
    }
}

impl Config {
    /// Reads the file (if there is one) and the environment over the defaults.
    pub fn load(file: Option<&Path>) -> Result<Self> {
        let mut figment = Figment::from(Serialized::defaults(Self::default()));
        figment = match file {
            Some(path) => figment.merge(Toml::file_exact(path)),
            None => figment.merge(Toml::file("tidemill.toml")),
        };
        figment.merge(Env::prefixed("TIDEMILL__").split("__")).extract().map_err(|faults| {
            let words: Vec<String> = faults.into_iter().map(|fault| fault.to_string()).collect();
            Error::new(Code::Config, words.join("; ")).hint("docs/configuration.md lists every key")
        })
    }

    /// Partitions of a plan on this machine.
    pub fn target_partitions(&self) -> usize {
        match self.engine.target_partitions {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            n => n,
        }
    }

    /// Root of manifests, state and staged loads.
    pub fn checkpoints(&self) -> String {
        match &self.lake.checkpoints {
            Some(root) => root.clone(),
            None => format!("{}/_tidemill", self.lake.root.trim_end_matches('/')),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_keys_are_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("tidemill.toml");
        std::fs::write(&file, "[lake]\nrot = '/x'\n").unwrap();
        let error = Config::load(Some(&file)).unwrap_err();
        assert_eq!(error.code, Code::Config);
        assert!(error.message.contains("rot"), "{error}");
    }

    #[test]
    fn a_file_overrides_defaults() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("tidemill.toml");
        std::fs::write(&file, "[lake]\nroot = '/x'\n[cluster]\nexecutor_timeout = '9s'\n").unwrap();
        let config = Config::load(Some(&file)).unwrap();
        assert_eq!(config.checkpoints(), "/x/_tidemill");
        assert_eq!(config.cluster.executor_timeout.as_secs(), 9);
    }
}
