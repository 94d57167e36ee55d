//! Everything outside of the driver, in memory: source, journal, checkpoint store, files, two participants.

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;
use tidemill_core::epoch::{DEAD_LETTERS, Intent, Manifest, TABLE};
use tidemill_core::{Available, Code, Commit, Epoch, Error, FencingToken, Result, SplitId};

/// Windows are this long, in milliseconds.
pub(crate) const WINDOW_MS: i64 = 10;
/// The watermark's delay.
pub(crate) const DELAY_MS: i64 = 5;

#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) id: u32,
    pub(crate) time_ms: i64,
    pub(crate) value: i64,
    /// Does not decode.
    pub(crate) bad: bool,
}

/// Content of one window: the sum that a query would show, and the records in it, to count each once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Window {
    pub(crate) sum: i64,
    pub(crate) ids: Vec<u32>,
}

/// By start of the window.
pub(crate) type Windows = BTreeMap<i64, Window>;

#[derive(Clone, Debug)]
pub(crate) enum File {
    Windows(Windows),
    DeadLetters(Vec<u32>),
}

/// What a rule of the protocol is broken by, to prove that the oracle sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flaw {
    None,
    /// A participant appends without asking which epoch it has.
    ForgetsTheTransaction,
    /// After a crash the open epoch is planned anew.
    ForgetsTheIntent,
    /// The epoch is said to be done before its participants have it.
    AdvancesBeforeTheCommit,
    /// The manifest is read before the participants are asked.
    GathersFactsBackwards,
    /// Lost reports are taken for empty ones, doubled ones are counted once.
    TrustsTheTasks,
}

/// How a call to the outside ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    /// An error, and nothing happened.
    Before,
    /// It happened, and the caller sees an error.
    After,
}

#[derive(Debug, Default)]
pub(crate) struct Target {
    pub(crate) committed: Option<u64>,
    /// Every epoch that made rows visible, in order.
    pub(crate) log: Vec<u64>,
    pub(crate) files: Vec<String>,
}

#[derive(Debug)]
pub(crate) struct World {
    pub(crate) rng: ChaCha8Rng,
    pub(crate) flaw: Flaw,
    /// Whether calls may fail.
    pub(crate) faults: bool,
    pub(crate) splits: BTreeMap<SplitId, Vec<Record>>,
    next_id: u32,
    clock_ms: i64,
    token: FencingToken,
    intent: Option<(u64, Intent)>,
    done: Option<(u64, Epoch)>,
    /// Every intent that the journal ever took.
    pub(crate) intents: Vec<Intent>,
    pub(crate) manifests: BTreeMap<Epoch, Manifest>,
    pub(crate) files: BTreeMap<String, File>,
    pub(crate) targets: BTreeMap<&'static str, Target>,
    /// What happened how often: shows that the simulation reaches what it is for.
    pub(crate) seen: BTreeMap<&'static str, u64>,
}

impl World {
    pub(crate) fn new(rng: ChaCha8Rng, flaw: Flaw) -> Self {
        Self {
            rng,
            flaw,
            faults: true,
            splits: BTreeMap::new(),
            next_id: 0,
            clock_ms: 0,
            token: FencingToken(0),
            intent: None,
            done: None,
            intents: Vec::new(),
            manifests: BTreeMap::new(),
            files: BTreeMap::new(),
            targets: [TABLE, DEAD_LETTERS].map(|name| (name, Target::default())).into(),
            seen: BTreeMap::new(),
        }
    }

    pub(crate) fn note(&mut self, what: &'static str) {
        *self.seen.entry(what).or_default() += 1;
    }

    fn fault(&mut self) -> Fault {
        if !self.faults {
            return Fault::None;
        }
        match self.rng.random_range(0..20) {
            0 => Fault::Before,
            1 => Fault::After,
            _ => Fault::None,
        }
    }

    /// A few more records, out of order by more than the delay now and then; sometimes in a new split.
    pub(crate) fn grow(&mut self) {
        if self.splits.is_empty() || (self.splits.len() < 3 && self.rng.random_ratio(1, 8)) {
            let split = SplitId::new(format!("t/{}", self.splits.len()));
            self.splits.insert(split, Vec::new());
        }
        self.clock_ms += self.rng.random_range(0..8);
        for _ in 0..self.rng.random_range(1..6) {
            let split = self.rng.random_range(0..self.splits.len());
            let record = Record {
                id: self.next_id,
                time_ms: self.clock_ms - self.rng.random_range(0..25),
                value: self.rng.random_range(1..100),
                bad: self.rng.random_ratio(1, 10),
            };
            self.next_id += 1;
            if let Some(records) = self.splits.values_mut().nth(split) {
                records.push(record);
            }
        }
    }

    // The source.

    /// The end of a split lags behind now and then, also behind what was read already.
    pub(crate) fn available(&mut self) -> BTreeMap<SplitId, Available> {
        let lag = if self.faults && self.rng.random_ratio(1, 10) { self.rng.random_range(1..5) } else { 0 };
        let latest = |records: &Vec<Record>| match records.len() as i64 {
            0 => 0,
            length => (length - lag).max(1),
        };
        let all = self.splits.iter();
        all.map(|(split, records)| (split.clone(), Available { earliest: 0, latest: latest(records) }))
            .collect()
    }

    // The journal.

    pub(crate) fn acquire(&mut self) -> FencingToken {
        self.token = FencingToken(self.token.0 + 1);
        self.token
    }

    pub(crate) fn read_done(&self) -> (u64, Epoch) {
        self.done.unwrap_or((0, Epoch::NONE))
    }

    pub(crate) fn read_intent(&self) -> (u64, Option<Intent>) {
        self.intent.clone().map_or((0, None), |(version, intent)| (version, Some(intent)))
    }

    /// `version` 0 expects that there is none.
    pub(crate) fn put_intent(&mut self, token: FencingToken, version: u64, intent: Intent) -> Result<u64> {
        let fault = self.fault();
        let held = self.intent.as_ref().map_or(0, |(version, _)| *version);
        self.admit(token, version, held, fault)?;
        self.intents.push(intent.clone());
        self.intent = Some((version + 1, intent));
        after(fault, version + 1)
    }

    pub(crate) fn put_done(&mut self, token: FencingToken, version: u64, done: Epoch) -> Result<u64> {
        let fault = self.fault();
        let held = self.done.map_or(0, |(version, _)| version);
        self.admit(token, version, held, fault)?;
        self.done = Some((version + 1, done));
        after(fault, version + 1)
    }

    fn admit(&mut self, token: FencingToken, expected: u64, held: u64, fault: Fault) -> Result<()> {
        if fault == Fault::Before {
            return Err(lost_call());
        }
        if token < self.token {
            self.note("a zombie was fenced by the journal");
            return Err(Error::new(Code::Fenced, "an older token"));
        }
        if expected != held {
            return Err(Error::new(Code::Conflict, "another version"));
        }
        Ok(())
    }

    // The checkpoint store.

    /// Put-if-absent: `Code::Conflict` when there is one.
    pub(crate) fn put_manifest(&mut self, manifest: &Manifest) -> Result<()> {
        let fault = self.fault();
        if fault == Fault::Before {
            return Err(lost_call());
        }
        if let Some(winner) = self.manifests.get(&manifest.epoch) {
            if winner.token != manifest.token {
                self.note("a manifest of another leader was taken up");
            }
            return Err(Error::new(Code::Conflict, "there is one"));
        }
        if manifest.token < self.token {
            self.note("a zombie decided the epoch");
        }
        self.manifests.insert(manifest.epoch, manifest.clone());
        if fault == Fault::After {
            self.note("a manifest landed and reported an error");
        }
        after(fault, ())
    }

    pub(crate) fn write(&mut self, file: File) -> String {
        let path = format!("file-{}", self.files.len());
        self.files.insert(path.clone(), file);
        path
    }

    // The participants.

    pub(crate) fn committed(&self) -> BTreeMap<String, Option<u64>> {
        self.targets.iter().map(|(name, target)| ((*name).to_owned(), target.committed)).collect()
    }

    pub(crate) fn commit(
        &mut self,
        token: FencingToken,
        participant: &str,
        manifest: &Manifest,
    ) -> Result<Commit> {
        let fault = self.fault();
        let (flaw, zombie, run) = (self.flaw, token < self.token, manifest.epoch.0);
        let Some(target) = self.targets.get_mut(participant) else {
            return Err(Error::internal(format!("no participant `{participant}`")));
        };
        if fault == Fault::Before {
            return Err(lost_call());
        }
        if target.committed >= Some(run) && flaw != Flaw::ForgetsTheTransaction {
            self.note("a repeated commit changed nothing");
            return after(fault, Commit::AlreadyCommitted);
        }
        target.committed = Some(run);
        target.log.push(run);
        let written = manifest.written.get(participant).into_iter().flatten();
        target.files.extend(written.filter_map(|written| written.descriptor.as_str()).map(str::to_owned));
        if fault == Fault::After {
            self.note("a commit landed and reported an error");
        }
        if zombie {
            self.note("a zombie committed what is decided");
        }
        after(fault, Commit::Committed { version: run })
    }
}

fn lost_call() -> Error {
    Error::new(Code::ExternalFailure, "no answer")
}

fn after<T>(fault: Fault, value: T) -> Result<T> {
    if fault == Fault::After { Err(lost_call()) } else { Ok(value) }
}
