//! Step 3: one manifest out of what the tasks of one try reported, or an error that says what is missing.
//!
//! ```text
//! ingest     one report per split of the intent     read = dead_letters + dropped + late + duplicates + accepted
//! stateful   one report per operator and bucket     late, duplicates: rows taken out again further down
//! writer     Written of the table
//!            └──────────────▶ assemble ─▶ Manifest: positions, watermark, the whole state, totals
//! ```
//! An engine may lose a task and still end its stream cleanly, or run a task twice. Neither shows in the rows,
//! so nothing is decided before every report is there exactly once and the counts add up.

use super::{Counts, DEAD_LETTERS, Intent, Manifest, StateRef, TABLE, TaskReport, advance_watermark};
use crate::{Code, Epoch, Error, Result, SplitId, Written};
use std::collections::{BTreeMap, BTreeSet};

/// The operator that reads the source. Its instances are splits; those of all others are buckets.
pub const INGEST: &str = "ingest";

/// Decides the epoch.
///
/// - `previous`: the manifest of the epoch before, `None` for the first.
/// - `reports`: of this try only. `counts.accepted` is taken from `ingest`; further operators report only what
///   they take out of the accepted rows (`late`, `duplicates`). `state: None` says that the bucket's state is
///   as it was before; a bucket that has become empty reports a state without files.
/// - `table_written`: what the writers of the table returned. `counts.written` is its sum.
/// - `buckets`: number of buckets of each stateful operator.
/// - `delay_ms`: how far the watermark stays behind the highest event time.
///
/// A participant with nothing to commit is not in `Manifest::written`.
///
/// Errors: `Code::WorkerLost` (try again) when reports are missing or doubled, `Code::Internal` when the reports
/// contradict themselves, `Code::Corrupt` when the intent does not follow from the previous manifest.
pub fn assemble(
    intent: &Intent,
    previous: Option<&Manifest>,
    reports: &[TaskReport],
    table_written: &[Written],
    buckets: &BTreeMap<String, u32>,
    delay_ms: i64,
) -> Result<Manifest> {
    follows(intent, previous)?;
    complete(intent, reports, buckets)?;
    let counts = count(intent, reports, table_written)?;

    let mut positions = previous.map(|manifest| manifest.positions.clone()).unwrap_or_default();
    positions.extend(intent.ranges.iter().map(|range| (range.split.clone(), range.end)));
    let max_event_time_ms = event_times(previous, reports);
    let read = intent.ranges.iter().map(|range| &range.split);
    let watermark_ms =
        advance_watermark(previous.and_then(|m| m.watermark_ms), read, &max_event_time_ms, delay_ms);
    let dead_letters: Vec<Written> = reports.iter().flat_map(|r| r.dead_letters.clone()).collect();
    let written = [(TABLE, table_written.to_vec()), (DEAD_LETTERS, dead_letters)];
    let mut totals = previous.map(|manifest| manifest.totals).unwrap_or_default();
    totals += counts;

    Ok(Manifest {
        pipeline: intent.pipeline.clone(),
        epoch: intent.epoch,
        token: intent.token,
        positions,
        max_event_time_ms,
        closed_before_ms: intent.close_before_ms,
        watermark_ms,
        written: written
            .into_iter()
            .filter(|(_, written)| !written.is_empty())
            .map(|(participant, written)| (participant.to_owned(), written))
            .collect(),
        state: state(intent, previous, reports, buckets)?,
        counts,
        totals,
        fingerprint: intent.fingerprint.clone(),
    })
}

/// The intent begins where the previous manifest ends.
fn follows(intent: &Intent, previous: Option<&Manifest>) -> Result<()> {
    let corrupt = |what: String| {
        let message =
            format!("the intent of epoch {} of pipeline `{}` {what}", intent.epoch, intent.pipeline);
        Err(Error::new(Code::Corrupt, message))
    };
    let before = previous.map_or(Epoch::NONE, |manifest| manifest.epoch);
    if intent.epoch != before.next() {
        return corrupt(format!("does not follow epoch {before}"));
    }
    for range in &intent.ranges {
        if range.end < range.start {
            return corrupt(format!("has a range {}..{} of split `{}`", range.start, range.end, range.split));
        }
        match previous.and_then(|manifest| manifest.positions.get(&range.split)) {
            Some(&position) if position != range.start => {
                let (start, split) = (range.start, &range.split);
                return corrupt(format!("begins at {start} of split `{split}`, but {position} is next"));
            }
            _ => {}
        }
    }
    let Some(previous) = previous else { return Ok(()) };
    if previous.pipeline != intent.pipeline || previous.fingerprint != intent.fingerprint {
        return corrupt("is not of the same pipeline and plan as the manifest before it".to_owned());
    }
    if previous.closed_before_ms != intent.late_before_ms || intent.close_before_ms < intent.late_before_ms {
        return corrupt("does not take up the watermark of the manifest before it".to_owned());
    }
    Ok(())
}

/// Exactly one report of every split and of every bucket, and none of anybody else.
fn complete(intent: &Intent, reports: &[TaskReport], buckets: &BTreeMap<String, u32>) -> Result<()> {
    let mut expected: BTreeMap<(&str, String), usize> =
        intent.ranges.iter().map(|range| ((INGEST, range.split.to_string()), 0)).collect();
    for (operator, buckets) in buckets {
        expected.extend((0..*buckets).map(|bucket| ((operator.as_str(), bucket.to_string()), 0)));
    }
    let mut faults = BTreeSet::new();
    for report in reports {
        match expected.get_mut(&(report.operator.as_str(), report.instance.clone())) {
            None => {
                faults.insert(format!("an unexpected report of {}", name(report)));
            }
            Some(seen) => {
                *seen += 1;
                if *seen > 1 {
                    faults.insert(format!("more than one report of {}", name(report)));
                }
            }
        }
    }
    let missing = expected.iter().filter(|(_, seen)| **seen == 0);
    faults.extend(missing.map(|((operator, instance), _)| format!("no report of {operator} `{instance}`")));
    if faults.is_empty() {
        return Ok(());
    }
    let faults: Vec<String> = faults.into_iter().collect();
    let message = format!(
        "epoch {} of pipeline `{}` is not complete: {}",
        intent.epoch,
        intent.pipeline,
        faults.join(", ")
    );
    Err(Error::new(Code::WorkerLost, message).hint("it is run again with the same ranges"))
}

fn name(report: &TaskReport) -> String {
    format!("{} `{}`", report.operator, report.instance)
}

/// Adds the counts up, and demands that no row is lost between them.
fn count(intent: &Intent, reports: &[TaskReport], table_written: &[Written]) -> Result<Counts> {
    let mut sum = Counts::default();
    let (ingest, stateful): (Vec<_>, Vec<_>) = reports.iter().partition(|report| report.operator == INGEST);
    for report in &ingest {
        let Counts { read, dead_letters, dropped, late, duplicates, accepted, .. } = report.counts;
        if read != dead_letters + dropped + late + duplicates + accepted {
            return contradiction(intent, report, &format!("{read} read, but {:?}", report.counts));
        }
        let range = intent.ranges.iter().find(|range| range.split.as_str() == report.instance);
        let positions = range.map_or(0, |range| range.end.abs_diff(range.start));
        if read > positions {
            return contradiction(intent, report, &format!("{read} records out of {positions} positions"));
        }
        sum += report.counts;
    }
    for report in &stateful {
        let Counts { late, duplicates, .. } = report.counts;
        let Some(left) = sum.accepted.checked_sub(late + duplicates) else {
            let fault = format!("{late} late rows and {duplicates} duplicates out of {}", sum.accepted);
            return contradiction(intent, report, &fault);
        };
        sum =
            Counts { accepted: left, late: sum.late + late, duplicates: sum.duplicates + duplicates, ..sum };
    }
    for report in reports {
        let kept: u64 = report.dead_letters.iter().map(|written| written.rows).sum();
        if kept != report.counts.dead_letters {
            let fault = format!("{} dead letters, but {kept} written", report.counts.dead_letters);
            return contradiction(intent, report, &fault);
        }
    }
    sum.written = table_written.iter().map(|written| written.rows).sum();
    Ok(sum)
}

fn contradiction<T>(intent: &Intent, report: &TaskReport, fault: &str) -> Result<T> {
    let place = format!("epoch {} of pipeline `{}`", intent.epoch, intent.pipeline);
    Err(Error::internal(format!("the counts of {} do not add up: {fault}", name(report))).context(place))
}

fn event_times(previous: Option<&Manifest>, reports: &[TaskReport]) -> BTreeMap<SplitId, i64> {
    let mut times = previous.map(|manifest| manifest.max_event_time_ms.clone()).unwrap_or_default();
    for report in reports.iter().filter(|report| report.operator == INGEST) {
        if let Some(time) = report.max_event_time_ms {
            let highest = times.entry(SplitId::new(&report.instance)).or_insert(time);
            *highest = time.max(*highest);
        }
    }
    times
}

/// The complete state after the epoch, in the order of operator and bucket.
fn state(
    intent: &Intent,
    previous: Option<&Manifest>,
    reports: &[TaskReport],
    buckets: &BTreeMap<String, u32>,
) -> Result<Vec<StateRef>> {
    let mut state = BTreeMap::new();
    for held in previous.into_iter().flat_map(|manifest| &manifest.state) {
        let known = buckets.get(&held.operator).is_some_and(|buckets| held.bucket < *buckets);
        if !known {
            let (operator, bucket) = (&held.operator, held.bucket);
            let message = format!("the plan has no bucket {bucket} of {operator}, of which there is state");
            return Err(Error::new(Code::Corrupt, message).context(format!("pipeline `{}`", intent.pipeline)));
        }
        state.insert((held.operator.clone(), held.bucket), held.clone());
    }
    for report in reports {
        let Some(new) = &report.state else { continue };
        let own = new.operator == report.operator && new.bucket.to_string() == report.instance;
        if !own || new.epoch != intent.epoch {
            let (operator, bucket, epoch) = (&new.operator, new.bucket, new.epoch);
            let message =
                format!("{} reports the state of {operator} `{bucket}` at epoch {epoch}", name(report));
            return Err(Error::internal(message));
        }
        state.insert((new.operator.clone(), new.bucket), new.clone());
    }
    Ok(state.into_values().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{FencingToken, PipelineId, SplitRange};

    fn intent(ranges: &[(&str, i64, i64)]) -> Intent {
        let range =
            |&(split, start, end): &(&str, i64, i64)| SplitRange { split: SplitId::new(split), start, end };
        Intent {
            pipeline: PipelineId::new("p"),
            epoch: Epoch(1),
            token: FencingToken(1),
            ranges: ranges.iter().map(range).collect(),
            late_before_ms: None,
            close_before_ms: None,
            fingerprint: "f".to_owned(),
        }
    }

    /// What comes after `manifest`.
    fn after(manifest: &Manifest, ranges: &[(&str, i64, i64)]) -> Intent {
        Intent {
            epoch: manifest.epoch.next(),
            late_before_ms: manifest.closed_before_ms,
            close_before_ms: manifest.watermark_ms,
            ..intent(ranges)
        }
    }

    fn written(rows: u64) -> Written {
        Written { rows, bytes: 10, descriptor: serde_json::Value::Null }
    }

    fn ingest(split: &str, accepted: u64, time: Option<i64>) -> TaskReport {
        TaskReport {
            operator: INGEST.to_owned(),
            instance: split.to_owned(),
            counts: Counts { read: accepted + 1, dead_letters: 1, accepted, ..Counts::default() },
            max_event_time_ms: time,
            dead_letters: vec![written(1)],
            state: None,
        }
    }

    fn bucket(bucket: u32, epoch: Option<u64>) -> TaskReport {
        let state = epoch.map(|epoch| StateRef {
            operator: "aggregate".to_owned(),
            bucket,
            epoch: Epoch(epoch),
            files: Vec::new(),
        });
        TaskReport {
            operator: "aggregate".to_owned(),
            instance: bucket.to_string(),
            counts: Counts::default(),
            max_event_time_ms: None,
            dead_letters: Vec::new(),
            state,
        }
    }

    fn decide(intent: &Intent, previous: Option<&Manifest>, reports: &[TaskReport]) -> Result<Manifest> {
        let buckets = BTreeMap::from([("aggregate".to_owned(), 2)]);
        assemble(intent, previous, reports, &[written(5), written(2)], &buckets, 10)
    }

    fn first() -> Manifest {
        let reports =
            [bucket(0, Some(1)), bucket(1, Some(1)), ingest("a", 3, Some(50)), ingest("b", 4, Some(90))];
        decide(&intent(&[("a", 0, 10), ("b", 5, 20)]), None, &reports).unwrap()
    }

    #[test]
    fn takes_up_positions_watermark_counts_and_what_was_written() {
        let manifest = first();
        assert_eq!(manifest.positions, BTreeMap::from([(SplitId::new("a"), 10), (SplitId::new("b"), 20)]));
        assert_eq!((manifest.watermark_ms, manifest.closed_before_ms), (Some(40), None));
        let counts = Counts { read: 9, dead_letters: 2, accepted: 7, written: 7, ..Counts::default() };
        assert_eq!((manifest.counts, manifest.totals), (counts, counts));
        let rows = |who: &str| manifest.written[who].iter().map(|written| written.rows).sum::<u64>();
        assert_eq!((rows(TABLE), rows(DEAD_LETTERS)), (7, 2));
    }

    #[test]
    fn carries_over_what_the_epoch_did_not_touch() {
        let manifest = first();
        let reports = [ingest("b", 1, Some(60)), bucket(0, None), bucket(1, Some(2))];
        let second = decide(&after(&manifest, &[("b", 20, 30)]), Some(&manifest), &reports).unwrap();
        assert_eq!(second.positions[&SplitId::new("a")], 10);
        assert_eq!(second.max_event_time_ms[&SplitId::new("b")], 90);
        assert_eq!((second.watermark_ms, second.closed_before_ms), (Some(80), Some(40)));
        let epochs: Vec<_> = second.state.iter().map(|state| (state.bucket, state.epoch.0)).collect();
        assert_eq!(epochs, [(0, 1), (1, 2)]);
        assert_eq!((second.counts.read, second.totals.read), (2, 11));
    }

    #[test]
    fn a_participant_without_rows_has_nothing_to_commit() {
        let reports = [bucket(0, None), bucket(1, None)];
        let buckets = BTreeMap::from([("aggregate".to_owned(), 2)]);
        let manifest = assemble(&intent(&[]), None, &reports, &[], &buckets, 10).unwrap();
        assert!(manifest.written.is_empty());
    }

    #[test]
    fn names_every_missing_doubled_and_strange_report() {
        let reports = [ingest("a", 3, None), ingest("a", 3, None), bucket(0, None), bucket(7, None)];
        let error = decide(&intent(&[("a", 0, 10), ("b", 0, 10)]), None, &reports).unwrap_err();
        assert_eq!(error.code, Code::WorkerLost);
        for fault in [
            "more than one report of ingest `a`",
            "no report of ingest `b`",
            "no report of aggregate `1`",
            "an unexpected report of aggregate `7`",
        ] {
            assert!(error.message.contains(fault), "{error}");
        }
    }

    #[test]
    fn rows_taken_out_further_down_are_no_longer_accepted() {
        let mut dedup = bucket(1, None);
        dedup.counts = Counts { late: 1, duplicates: 2, ..Counts::default() };
        let reports = [dedup.clone(), bucket(0, None), ingest("a", 4, None)];
        let manifest = decide(&intent(&[("a", 0, 10)]), None, &reports).unwrap();
        let counts = manifest.counts;
        assert_eq!((counts.accepted, counts.late, counts.duplicates, counts.read), (1, 1, 2, 5));
        dedup.counts.duplicates = 4;
        let reports = [dedup, bucket(0, None), ingest("a", 4, None)];
        let error = decide(&intent(&[("a", 0, 10)]), None, &reports).unwrap_err();
        assert!(error.message.contains("aggregate `1`"), "{error}");
    }

    #[test]
    fn counts_that_lose_a_row_are_a_defect() {
        let refuse = |spoil: fn(&mut TaskReport), range: i64| {
            let mut spoilt = ingest("a", 3, None);
            spoil(&mut spoilt);
            let reports = [spoilt, bucket(0, None), bucket(1, None)];
            decide(&intent(&[("a", 0, range)]), None, &reports).unwrap_err().code
        };
        assert_eq!(refuse(|report| report.counts.accepted = 2, 10), Code::Internal);
        assert_eq!(refuse(|report| report.dead_letters.clear(), 10), Code::Internal);
        assert_eq!(refuse(|_| (), 3), Code::Internal);
    }

    #[test]
    fn an_intent_that_does_not_follow_is_refused() {
        let manifest = first();
        let reports = [ingest("b", 1, None), bucket(0, None), bucket(1, None)];
        let refuse = |intent: Intent| decide(&intent, Some(&manifest), &reports).unwrap_err().code;
        let good = after(&manifest, &[("b", 20, 30)]);
        assert_eq!(refuse(after(&manifest, &[("b", 19, 30)])), Code::Corrupt);
        assert_eq!(refuse(Intent { epoch: Epoch(3), ..good.clone() }), Code::Corrupt);
        assert_eq!(refuse(Intent { fingerprint: "g".to_owned(), ..good.clone() }), Code::Corrupt);
        assert_eq!(refuse(Intent { late_before_ms: Some(1), ..good }), Code::Corrupt);
    }

    #[test]
    fn state_of_another_bucket_or_epoch_is_refused() {
        for strange in [bucket(1, Some(1)), bucket(0, Some(9))] {
            let reports = [TaskReport { instance: "0".to_owned(), ..strange }, bucket(1, None)];
            assert_eq!(decide(&intent(&[]), None, &reports).unwrap_err().code, Code::Internal);
        }
    }

    #[test]
    fn fewer_buckets_than_there_is_state_of_is_refused() {
        let manifest = first();
        let fewer = BTreeMap::from([("aggregate".to_owned(), 1)]);
        let intent = after(&manifest, &[]);
        let error = assemble(&intent, Some(&manifest), &[bucket(0, None)], &[], &fewer, 10).unwrap_err();
        assert_eq!(error.code, Code::Corrupt);
    }
}
