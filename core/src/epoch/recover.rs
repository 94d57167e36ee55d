//! Where to go on: after a start, after a crash, after any call whose outcome is not known.
//!
//! ```text
//! manifest of done+1?  yes ─▶ some participant lacks it? ─ yes ─▶ Commit     (it is decided: roll forward)
//!          │                               └──────────────── no ──▶ Advance
//!          no
//! intent of done+1?    yes ─▶ Rerun: the same ranges under our token
//!          └────────── no ──▶ PlanNext
//! anything that contradicts itself ─▶ Stop
//! ```
//! A zombie, an older leader that does not know it yet, is refused at each point where it could do harm: the
//! journal refuses its token at the intent and at the advance; the checkpoint store refuses a second manifest
//! of an epoch, and the loser takes up the winner's; a participant knows the newest epoch that it has
//! committed. So a zombie can only repeat what is decided.

use super::{Intent, Manifest, Participant, plan::same_plan};
use crate::{Code, Epoch, Error, FencingToken, PipelineId};
use std::collections::BTreeMap;

/// What is known of a pipeline.
///
/// Gather them in this order, each read complete before the next begins: acquire the token; `done` and `intent`
/// from the journal (nobody else can change them from now on); `committed`; then `manifest`. A zombie may
/// still decide and commit the intent meanwhile. It decides first: read the other way round, its commit would
/// be seen without its manifest, which looks like a checkpoint store that has lost one.
///
/// For a leader that was deposed meanwhile none of this holds: its [`Action::Stop`] may blame what is in order.
/// Whoever reports a stop writes it to the journal first; `Code::Fenced` there says that it is not ours to report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    pub pipeline: PipelineId,
    /// Ours.
    pub token: FencingToken,
    /// Of the plan that would run.
    pub fingerprint: String,
    /// The newest epoch that the journal says is done.
    pub done: Epoch,
    /// The newest intent in the journal.
    pub intent: Option<Intent>,
    /// The manifest of `done + 1` in the checkpoint store.
    pub manifest: Option<Manifest>,
    /// The newest epoch of this pipeline that each participant has committed.
    pub committed: BTreeMap<Participant, Option<u64>>,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Everything is done: plan the next epoch with [`super::next_intent`].
    PlanNext,
    /// Put this intent (the old one under our token) into the journal and run it.
    Rerun(Intent),
    /// Commit the manifest's rows to these participants, then gather the facts again.
    Commit { epoch: Epoch, missing: Vec<Participant> },
    /// Everyone has it: say in the journal that the epoch is done.
    Advance(Epoch),
    /// Nothing can be done without a person, or (`Code::Fenced`) there is a newer leader.
    Stop(Error),
}

/// The step that follows from the facts.
///
/// A decided epoch is rolled forward whatever plan runs now, because committing needs no plan; an undecided one
/// is run again only by the plan that its intent names.
pub fn recover(facts: &Facts) -> Action {
    decide(facts).unwrap_or_else(Action::Stop)
}

fn decide(facts: &Facts) -> Result<Action, Error> {
    let next = facts.done.next();
    let intent = undone_intent(facts, next)?;
    check_participants(facts, next)?;
    match (&facts.manifest, intent) {
        (Some(manifest), Some(intent)) => roll_forward(facts, manifest, intent),
        (Some(_), None) => Err(corrupt(
            facts,
            format!("there is a manifest of epoch {next}, but the journal intends no such epoch"),
            "the journal is older than the checkpoint store: was it restored from a copy, or replaced?",
        )),
        (None, Some(intent)) => {
            same_plan(&facts.pipeline, &intent.fingerprint, &facts.fingerprint)?;
            Ok(Action::Rerun(Intent { token: facts.token, ..intent.clone() }))
        }
        (None, None) => Ok(Action::PlanNext),
    }
}

/// The intent of `next`, if there is one. That of the epoch which is done stays until it is overwritten.
fn undone_intent(facts: &Facts, next: Epoch) -> Result<Option<&Intent>, Error> {
    let Some(intent) = &facts.intent else { return Ok(None) };
    if intent.token > facts.token {
        return Err(fenced(facts, "intended"));
    }
    if intent.pipeline != facts.pipeline || (intent.epoch != facts.done && intent.epoch != next) {
        let (epoch, pipeline, done) = (intent.epoch, &intent.pipeline, facts.done);
        let message = format!("the journal intends epoch {epoch} of `{pipeline}` while epoch {done} is done");
        return Err(corrupt(facts, message, "restore the journal from a copy that is consistent"));
    }
    Ok(Some(intent).filter(|intent| intent.epoch == next))
}

/// Nobody has committed what is not decided.
fn check_participants(facts: &Facts, next: Epoch) -> Result<(), Error> {
    for (participant, committed) in &facts.committed {
        let committed = Epoch(committed.unwrap_or_default());
        let decided =
            facts.manifest.as_ref().is_some_and(|manifest| manifest.written.contains_key(participant));
        let newest = if decided { next } else { facts.done };
        if committed > newest {
            let message = format!(
                "`{participant}` has committed epoch {committed}, but epoch {newest} is the newest that it could have"
            );
            let hint = "journal and checkpoint store are older than the table: were they replaced or restored? \
                        restore what belongs to the table, or drop the pipeline and create it again";
            return Err(corrupt(facts, message, hint));
        }
    }
    Ok(())
}

fn roll_forward(facts: &Facts, manifest: &Manifest, intent: &Intent) -> Result<Action, Error> {
    if manifest.token > facts.token {
        return Err(fenced(facts, "decided"));
    }
    let same = manifest.pipeline == intent.pipeline
        && manifest.epoch == intent.epoch
        && manifest.fingerprint == intent.fingerprint
        && manifest.closed_before_ms == intent.close_before_ms
        && intent.ranges.iter().all(|range| manifest.positions.get(&range.split) == Some(&range.end));
    if !same {
        let message =
            format!("the manifest of epoch {} is not of the epoch that was intended", manifest.epoch);
        return Err(corrupt(facts, message, "journal and checkpoint store do not belong together"));
    }
    let mut missing = Vec::new();
    for participant in manifest.written.keys() {
        match facts.committed.get(participant) {
            Some(committed) if committed.unwrap_or_default() < manifest.epoch.0 => {
                missing.push(participant.clone());
            }
            Some(_) => {}
            None => {
                return Err(Error::internal(format!("nobody asked `{participant}` what it has committed"))
                    .context(format!("pipeline `{}`", facts.pipeline)));
            }
        }
    }
    if missing.is_empty() {
        return Ok(Action::Advance(manifest.epoch));
    }
    Ok(Action::Commit { epoch: manifest.epoch, missing })
}

fn corrupt(facts: &Facts, message: String, hint: &str) -> Error {
    Error::new(Code::Corrupt, message).hint(hint).context(format!("pipeline `{}`", facts.pipeline))
}

fn fenced(facts: &Facts, what: &str) -> Error {
    Error::new(Code::Fenced, format!("a newer leader has {what} an epoch of pipeline `{}`", facts.pipeline))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::epoch::{Counts, DEAD_LETTERS, TABLE};
    use crate::{SplitId, SplitRange, Written};

    fn intent(epoch: u64) -> Intent {
        Intent {
            pipeline: PipelineId::new("p"),
            epoch: Epoch(epoch),
            token: FencingToken(3),
            ranges: vec![SplitRange { split: SplitId::new("a"), start: 0, end: 10 }],
            late_before_ms: Some(1),
            close_before_ms: Some(2),
            fingerprint: "f".to_owned(),
        }
    }

    fn manifest(epoch: u64, participants: &[&str]) -> Manifest {
        let written = |name: &&str| {
            let row = Written { rows: 1, bytes: 1, descriptor: serde_json::Value::Null };
            ((*name).to_owned(), vec![row])
        };
        Manifest {
            pipeline: PipelineId::new("p"),
            epoch: Epoch(epoch),
            token: FencingToken(3),
            positions: BTreeMap::from([(SplitId::new("a"), 10)]),
            max_event_time_ms: BTreeMap::new(),
            closed_before_ms: Some(2),
            watermark_ms: Some(5),
            written: participants.iter().map(written).collect(),
            state: Vec::new(),
            counts: Counts::default(),
            totals: Counts::default(),
            fingerprint: "f".to_owned(),
        }
    }

    /// Epoch 4 is done and committed everywhere, by a leader before us.
    fn facts() -> Facts {
        Facts {
            pipeline: PipelineId::new("p"),
            token: FencingToken(5),
            fingerprint: "f".to_owned(),
            done: Epoch(4),
            intent: Some(intent(4)),
            manifest: None,
            committed: committed(Some(4), Some(4)),
        }
    }

    fn committed(table: Option<u64>, dead_letters: Option<u64>) -> BTreeMap<Participant, Option<u64>> {
        BTreeMap::from([(TABLE.to_owned(), table), (DEAD_LETTERS.to_owned(), dead_letters)])
    }

    fn stopped(facts: &Facts) -> Code {
        match recover(facts) {
            Action::Stop(error) => error.code,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn plans_when_nothing_is_open() {
        assert_eq!(recover(&facts()), Action::PlanNext);
        let new = Facts { done: Epoch::NONE, intent: None, committed: committed(None, None), ..facts() };
        assert_eq!(recover(&new), Action::PlanNext);
    }

    #[test]
    fn an_intent_without_manifest_is_run_again_with_the_same_ranges_under_our_token() {
        let open = Facts { intent: Some(intent(5)), ..facts() };
        let again = Intent { token: FencingToken(5), ..intent(5) };
        assert_eq!(recover(&open), Action::Rerun(again));
    }

    #[test]
    fn a_manifest_is_rolled_forward_where_it_is_missing() {
        let both = manifest(5, &[TABLE, DEAD_LETTERS]);
        let open = |manifest: &Manifest, table, dead_letters| Facts {
            intent: Some(intent(5)),
            manifest: Some(manifest.clone()),
            committed: committed(table, dead_letters),
            ..facts()
        };
        let commit = |missing: &[&str]| Action::Commit {
            epoch: Epoch(5),
            missing: missing.iter().map(|name| (*name).to_owned()).collect(),
        };
        assert_eq!(recover(&open(&both, Some(4), None)), commit(&[DEAD_LETTERS, TABLE]));
        assert_eq!(recover(&open(&both, Some(5), Some(2))), commit(&[DEAD_LETTERS]));
        assert_eq!(recover(&open(&both, Some(5), Some(5))), Action::Advance(Epoch(5)));
        assert_eq!(recover(&open(&manifest(5, &[]), Some(4), None)), Action::Advance(Epoch(5)));
    }

    #[test]
    fn a_changed_plan_rolls_a_decided_epoch_forward_but_runs_nothing_again() {
        let undecided = Facts { fingerprint: "g".to_owned(), intent: Some(intent(5)), ..facts() };
        assert_eq!(stopped(&undecided), Code::Unsupported);
        let decided = Facts { manifest: Some(manifest(5, &[])), ..undecided };
        assert_eq!(recover(&decided), Action::Advance(Epoch(5)));
    }

    #[test]
    fn what_contradicts_itself_stops() {
        let ahead = Facts { committed: committed(Some(5), None), ..facts() };
        assert_eq!(stopped(&ahead), Code::Corrupt);
        let not_a_participant =
            Facts { intent: Some(intent(5)), manifest: Some(manifest(5, &[DEAD_LETTERS])), ..ahead };
        assert_eq!(stopped(&not_a_participant), Code::Corrupt);
        for epoch in [3, 6] {
            assert_eq!(stopped(&Facts { intent: Some(intent(epoch)), ..facts() }), Code::Corrupt);
        }
        let unintended = Facts { manifest: Some(manifest(5, &[])), ..facts() };
        assert_eq!(stopped(&unintended), Code::Corrupt);
        let mut other = manifest(5, &[]);
        other.positions.insert(SplitId::new("a"), 11);
        let elsewhere = Facts { intent: Some(intent(5)), manifest: Some(other), ..facts() };
        assert_eq!(stopped(&elsewhere), Code::Corrupt);
    }

    #[test]
    fn a_zombie_that_sees_its_successor_stops() {
        let zombie = Facts { token: FencingToken(2), ..facts() };
        assert_eq!(stopped(&zombie), Code::Fenced);
        let old = Intent { token: FencingToken(2), ..intent(5) };
        let decided = Facts { intent: Some(old), manifest: Some(manifest(5, &[])), ..zombie };
        assert_eq!(stopped(&decided), Code::Fenced);
    }

    #[test]
    fn a_participant_that_nobody_asked_is_a_defect() {
        let open = Facts {
            intent: Some(intent(5)),
            manifest: Some(manifest(5, &[TABLE])),
            committed: BTreeMap::new(),
            ..facts()
        };
        assert_eq!(stopped(&open), Code::Internal);
    }
}
