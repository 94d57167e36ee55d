//! The engines of this process, and which one takes a job.

use serde::{Deserialize, Serialize};
use std::str::FromStr;
use std::sync::Arc;
use tidemill_core::{Code, Error, Result};
use tidemill_engine::{Engine, EngineKind};

/// Bytes of input from which a query is taken to outgrow memory, so that it runs staged.
const STAGED_FROM_BYTES: u64 = 32 << 30;

/// `SET engine = …`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EngineChoice {
    #[default]
    Auto,
    Only(EngineKind),
}

impl EngineChoice {
    pub fn as_str(self) -> &'static str {
        match self {
            EngineChoice::Auto => "auto",
            EngineChoice::Only(kind) => kind.as_str(),
        }
    }
}

impl FromStr for EngineChoice {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.to_lowercase().as_str() {
            "auto" => Ok(Self::Auto),
            "in_process" => Ok(Self::Only(EngineKind::InProcess)),
            "pipelined" => Ok(Self::Only(EngineKind::Pipelined)),
            "staged" => Ok(Self::Only(EngineKind::Staged)),
            other => Err(Error::new(Code::BadOption, format!("no engine `{other}`"))
                .suggest(other, ["auto", "in_process", "pipelined", "staged"])),
        }
    }
}

/// What the policy looks at.
#[derive(Clone, Copy, Debug, Default)]
pub struct Traits {
    /// Estimated bytes that the leaves read; `None` when nothing is known.
    pub bytes: Option<u64>,
    /// The largest leaf's part of them, which no join should have to hold.
    pub largest: u64,
    /// Why the plan cannot leave this process, if it cannot.
    pub local_only: Option<&'static str>,
    /// Nothing is read from files: there is nothing to share out.
    pub reads_nothing: bool,
}

#[derive(Debug)]
pub struct Engines {
    in_process: Arc<dyn Engine>,
    cluster: Option<Cluster>,
}

#[derive(Debug)]
struct Cluster {
    pipelined: Arc<dyn Engine>,
    staged: Option<Arc<dyn Engine>>,
}

impl Engines {
    /// One process: everything runs in it.
    pub fn local(in_process: Arc<dyn Engine>) -> Self {
        Self { in_process, cluster: None }
    }

    pub fn cluster(
        in_process: Arc<dyn Engine>,
        pipelined: Arc<dyn Engine>,
        staged: Option<Arc<dyn Engine>>,
    ) -> Self {
        Self { in_process, cluster: Some(Cluster { pipelined, staged }) }
    }

    /// The engine of this process.
    pub fn in_process(&self) -> Arc<dyn Engine> {
        self.in_process.clone()
    }

    /// The engine of epochs: the executors where there are any to wait for, else this process.
    pub fn for_epochs(&self) -> Result<Arc<dyn Engine>> {
        match &self.cluster {
            None => Ok(self.in_process.clone()),
            Some(cluster) => ready(&cluster.pipelined),
        }
    }

    /// Task slots of this process or of its executors, whichever are more.
    pub fn slots(&self) -> usize {
        let remote = self.cluster.as_ref().map_or(0, |cluster| cluster.pipelined.slots());
        self.in_process.slots().max(remote)
    }

    /// The engine for what failed on another one for memory or for a lost worker, if the choice is ours.
    pub fn second(&self, choice: EngineChoice, first: EngineKind) -> Option<Arc<dyn Engine>> {
        let staged = self.cluster.as_ref()?.staged.as_ref()?;
        let other = choice == EngineChoice::Auto && first != EngineKind::Staged && staged.slots() > 0;
        other.then(|| staged.clone())
    }

    /// The engine that a plan is best made for before more is known than the session's choice.
    pub fn likely(&self, choice: EngineChoice) -> Arc<dyn Engine> {
        match (&self.cluster, choice) {
            (None, _) | (_, EngineChoice::Only(EngineKind::InProcess)) => self.in_process.clone(),
            (Some(cluster), _) => cluster.pipelined.clone(),
        }
    }

    /// The engine of a query or a write, and why that one.
    pub fn choose(&self, choice: EngineChoice, plan: Traits) -> Result<(Arc<dyn Engine>, String)> {
        if let EngineChoice::Only(kind) = choice {
            let engine = match (kind, &self.cluster) {
                (EngineKind::InProcess, _) => self.in_process.clone(),
                (_, None) => {
                    let message = format!("engine `{}` needs a cluster, this is one process", kind.as_str());
                    return Err(Error::new(Code::Unsupported, message)
                        .hint("start `tidemill scheduler` and `tidemill executor`, or SET engine = 'auto'"));
                }
                (EngineKind::Pipelined, Some(cluster)) => ready(&cluster.pipelined)?,
                (EngineKind::Staged, Some(cluster)) => match &cluster.staged {
                    Some(staged) => ready(staged)?,
                    None => {
                        return Err(Error::new(Code::Unsupported, "this scheduler runs no staged engine")
                            .hint("SET engine = 'auto' or 'pipelined'"));
                    }
                },
            };
            if let (Some(why), false) = (plan.local_only, kind == EngineKind::InProcess) {
                return Err(Error::new(Code::Unsupported, format!("engine `{}`: {why}", kind.as_str()))
                    .hint("SET engine = 'auto' or 'in_process'"));
            }
            return Ok((engine, format!("SET engine = '{}'", kind.as_str())));
        }
        let Some(cluster) = &self.cluster else {
            return Ok((self.in_process.clone(), "one process".to_owned()));
        };
        if let Some(why) = plan.local_only {
            return Ok((self.in_process.clone(), why.to_owned()));
        }
        if plan.reads_nothing {
            return Ok((self.in_process.clone(), "it reads nothing that is stored".to_owned()));
        }
        if let (Some(bytes), Some(staged)) = (plan.bytes, &cluster.staged)
            && bytes >= STAGED_FROM_BYTES
            && staged.slots() > 0
        {
            return Ok((staged.clone(), format!("reads about {} GiB", bytes >> 30)));
        }
        match cluster.pipelined.slots() {
            0 => Ok((self.in_process.clone(), "no executor is registered".to_owned())),
            slots => Ok((cluster.pipelined.clone(), format!("{slots} task slots on the executors"))),
        }
    }
}

fn ready(engine: &Arc<dyn Engine>) -> Result<Arc<dyn Engine>> {
    match engine.slots() {
        0 => {
            Err(Error::new(Code::NoExecutors, "no executor is registered").hint("start `tidemill executor`"))
        }
        _ => Ok(engine.clone()),
    }
}
