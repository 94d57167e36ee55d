//! Step 1: what the next epoch reads and which windows it closes.
//!
//! ```text
//! last Manifest ─ positions, watermark ─┐
//! Source::start ────────────────────────┼─▶ next_intent ─▶ Intent, or nothing to do
//! Source::available ────────────────────┘
//! ```

use super::{Intent, Manifest};
use crate::{
    Available, Code, Epoch, Error, FencingToken, PipelineId, Positions, Result, SplitId, SplitRange,
};
use std::collections::BTreeMap;

/// What the next epoch is planned from.
#[derive(Clone, Copy, Debug)]
pub struct Planning<'a> {
    pub pipeline: &'a PipelineId,
    pub token: FencingToken,
    /// Of the plan that would run.
    pub fingerprint: &'a str,
    /// The manifest of the epoch that is done; `None` before the first.
    pub last: Option<&'a Manifest>,
    /// Where splits that were never read begin: taken from [`crate::Source::start`] once, when the pipeline was
    /// created, and kept. A split that is not in it appeared later and is read from its earliest record.
    pub start: &'a Positions,
    /// What the source holds now.
    pub available: &'a BTreeMap<SplitId, Available>,
    /// Most records of one epoch, in positions. Exceeded only when there are more splits with a backlog than
    /// that, because each of them gets at least one position.
    pub max_records: u64,
}

/// The next epoch, or `None` when there is nothing to do: no new record, and no window that the watermark has
/// passed since windows were last closed. (When it has, one epoch without ranges closes them.) There is never
/// anything to do after a drain, because every further record would be late.
///
/// The limit is shared out in proportion to the backlog, at least one position a split, so that no split
/// starves and none holds the watermark back for want of a turn. A split that the source does not name at the
/// moment has nothing new.
///
/// Errors: `Code::PositionLost` when a split no longer has the next position, `Code::Unsupported` when the plan
/// is not the one that the pipeline's state was made by.
pub fn next_intent(planning: &Planning<'_>) -> Result<Option<Intent>> {
    let Planning { pipeline, last, .. } = *planning;
    if last.is_some_and(is_drained) {
        return Ok(None);
    }
    check_fingerprint(planning.pipeline, planning.fingerprint, last)?;
    let mut backlog = Vec::new();
    for (split, available) in planning.available {
        let position = last.and_then(|manifest| manifest.positions.get(split)).or(planning.start.get(split));
        let position = position.copied().unwrap_or(available.earliest);
        if let Some(records) = unread(pipeline, split, position, *available)? {
            backlog.push((split, position, records));
        }
    }
    let ranges = share_out(&backlog, planning.max_records);
    let watermark = last.and_then(|manifest| manifest.watermark_ms);
    let closed = last.and_then(|manifest| manifest.closed_before_ms);
    if ranges.is_empty() && watermark <= closed {
        return Ok(None);
    }
    Ok(Some(Intent {
        pipeline: pipeline.clone(),
        epoch: last.map_or(Epoch::NONE, |manifest| manifest.epoch).next(),
        token: planning.token,
        ranges,
        late_before_ms: closed,
        close_before_ms: watermark,
        fingerprint: planning.fingerprint.to_owned(),
    }))
}

/// The epoch that ends a pipeline: it reads nothing and closes every window. `None` when there is nothing that
/// could be closed: no epoch was ever done, or the pipeline is drained already.
pub fn drain_intent(
    pipeline: &PipelineId,
    token: FencingToken,
    fingerprint: &str,
    last: Option<&Manifest>,
) -> Result<Option<Intent>> {
    check_fingerprint(pipeline, fingerprint, last)?;
    Ok(last.filter(|manifest| !is_drained(manifest)).map(|manifest| Intent {
        pipeline: pipeline.clone(),
        epoch: manifest.epoch.next(),
        token,
        ranges: Vec::new(),
        late_before_ms: manifest.closed_before_ms,
        close_before_ms: Some(i64::MAX),
        fingerprint: fingerprint.to_owned(),
    }))
}

/// Whether a drain closed all windows: the end of the pipeline, after which every record would be late.
pub fn is_drained(manifest: &Manifest) -> bool {
    manifest.closed_before_ms == Some(i64::MAX)
}

/// State made by one plan must not be read by another.
pub(super) fn same_plan(pipeline: &PipelineId, stored: &str, running: &str) -> Result<()> {
    if stored == running {
        return Ok(());
    }
    let message = format!(
        "the plan of pipeline `{pipeline}` has changed: its state was made by `{stored}`, now it is `{running}`"
    );
    Err(Error::new(Code::Unsupported, message).hint(
        "go on with the version and the settings that it was started with, or drop it and create it again",
    ))
}

fn check_fingerprint(pipeline: &PipelineId, running: &str, last: Option<&Manifest>) -> Result<()> {
    last.map_or(Ok(()), |manifest| same_plan(pipeline, &manifest.fingerprint, running))
}

/// How many positions of a split are to be read; `None` for none.
///
/// A `latest` below our position proves nothing by itself: a follower that has just become the leader, or a
/// broker that counts lazily, says so for a while. Only a log that begins at 0 and is empty, while we have read
/// beyond 0, is certainly another log: its topic was created anew. One that was created anew and has already
/// been filled looks like one that lags; a connector that can tell them apart (by topic id) must refuse it.
fn unread(
    pipeline: &PipelineId,
    split: &SplitId,
    position: i64,
    available: Available,
) -> Result<Option<u64>> {
    let Available { earliest, latest } = available;
    if position < earliest {
        let message = format!(
            "pipeline `{pipeline}`: split `{split}` begins at {earliest} now, but {position} is to be read next: \
             {} positions were removed unread",
            earliest.saturating_sub(position)
        );
        return Err(Error::new(Code::PositionLost, message).hint(
            "records were lost to the retention of the source: lengthen it, and drop and create the pipeline again",
        ));
    }
    if position > 0 && earliest == 0 && latest == 0 {
        let message = format!(
            "pipeline `{pipeline}`: split `{split}` is empty and begins at 0, but {position} is to be read next"
        );
        return Err(Error::new(Code::PositionLost, message)
            .hint("the topic was created anew: drop the pipeline and create it again"));
    }
    Ok(u64::try_from(latest.saturating_sub(position)).ok().filter(|records| *records > 0))
}

fn share_out(backlog: &[(&SplitId, i64, u64)], max_records: u64) -> Vec<SplitRange> {
    // In 128 bits, because products of two backlogs are formed.
    let splits = backlog.len() as u128;
    let limit = u128::from(max_records);
    let total: u128 = backlog.iter().map(|&(_, _, records)| u128::from(records)).sum();
    let to_share = limit.saturating_sub(splits);
    let beyond_first = (total - splits).max(1);
    backlog
        .iter()
        .map(|&(split, start, records)| {
            let share = match total <= limit {
                true => u128::from(records),
                false => 1 + to_share * u128::from(records - 1) / beyond_first,
            };
            // Never beyond `latest`: a share is at most the split's records.
            let end = start.saturating_add(i64::try_from(share).unwrap_or(i64::MAX));
            SplitRange { split: split.clone(), start, end }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::epoch::Counts;

    const NO_LIMIT: u64 = u64::MAX;

    fn available(of: &[(&str, i64, i64)]) -> BTreeMap<SplitId, Available> {
        of.iter()
            .map(|&(name, earliest, latest)| (SplitId::new(name), Available { earliest, latest }))
            .collect()
    }

    fn positions(of: &[(&str, i64)]) -> Positions {
        of.iter().map(|&(name, position)| (SplitId::new(name), position)).collect()
    }

    fn manifest(at: &[(&str, i64)], watermark_ms: Option<i64>, closed_before_ms: Option<i64>) -> Manifest {
        Manifest {
            pipeline: PipelineId::new("p"),
            epoch: Epoch(4),
            token: FencingToken(1),
            positions: positions(at),
            max_event_time_ms: BTreeMap::new(),
            closed_before_ms,
            watermark_ms,
            written: BTreeMap::new(),
            state: Vec::new(),
            counts: Counts::default(),
            totals: Counts::default(),
            fingerprint: "f".to_owned(),
        }
    }

    fn plan(
        last: Option<&Manifest>,
        start: &[(&str, i64)],
        source: &[(&str, i64, i64)],
        max_records: u64,
    ) -> Result<Option<Intent>> {
        next_intent(&Planning {
            pipeline: &PipelineId::new("p"),
            token: FencingToken(2),
            fingerprint: "f",
            last,
            start: &positions(start),
            available: &available(source),
            max_records,
        })
    }

    fn ranges(intent: Option<Intent>) -> Vec<(String, i64, i64)> {
        let ranges = intent.map(|intent| intent.ranges).unwrap_or_default();
        ranges.into_iter().map(|range| (range.split.to_string(), range.start, range.end)).collect()
    }

    fn range(split: &str, start: i64, end: i64) -> (String, i64, i64) {
        (split.to_owned(), start, end)
    }

    #[test]
    fn the_first_epoch_begins_at_the_start_positions_and_later_splits_at_their_earliest() {
        let first = plan(None, &[("a", 7), ("b", 9)], &[("a", 0, 10), ("b", 0, 9), ("c", 3, 5)], NO_LIMIT);
        let first = first.unwrap().unwrap();
        assert_eq!((first.epoch, first.late_before_ms, first.close_before_ms), (Epoch(1), None, None));
        assert_eq!(ranges(Some(first)), [range("a", 7, 10), range("c", 3, 5)]);
    }

    #[test]
    fn goes_on_where_the_last_manifest_ends_with_its_watermarks() {
        let last = manifest(&[("a", 10)], Some(500), Some(400));
        let next = plan(Some(&last), &[("a", 7)], &[("a", 8, 12)], NO_LIMIT).unwrap().unwrap();
        assert_eq!((next.epoch, next.token), (Epoch(5), FencingToken(2)));
        assert_eq!((next.late_before_ms, next.close_before_ms), (Some(400), Some(500)));
        assert_eq!(ranges(Some(next)), [range("a", 10, 12)]);
    }

    #[test]
    fn shares_the_limit_by_backlog_and_forgets_no_split() {
        let source = [("a", 0, 3000), ("b", 0, 1000), ("c", 0, 1), ("d", 0, 0)];
        let shared = ranges(plan(None, &[], &source, 100).unwrap());
        assert_eq!(shared, [range("a", 0, 73), range("b", 0, 25), range("c", 0, 1)]);
        let more_splits_than_records = ranges(plan(None, &[], &source, 2).unwrap());
        assert_eq!(more_splits_than_records, [range("a", 0, 1), range("b", 0, 1), range("c", 0, 1)]);
        let huge = ranges(plan(None, &[], &[("a", 0, i64::MAX), ("b", 0, i64::MAX)], 10).unwrap());
        assert_eq!(huge, [range("a", 0, 5), range("b", 0, 5)]);
    }

    #[test]
    fn closes_windows_in_one_epoch_without_records_and_then_rests() {
        let moved = manifest(&[("a", 10)], Some(500), Some(400));
        let close = plan(Some(&moved), &[], &[("a", 0, 10)], NO_LIMIT).unwrap().unwrap();
        assert_eq!((close.ranges.len(), close.close_before_ms), (0, Some(500)));
        let closed = manifest(&[("a", 10)], Some(500), Some(500));
        assert_eq!(plan(Some(&closed), &[], &[("a", 0, 10)], NO_LIMIT).unwrap(), None);
        assert_eq!(plan(None, &[], &[("a", 0, 0)], NO_LIMIT).unwrap(), None);
    }

    #[test]
    fn removed_records_are_an_error_that_names_both_positions() {
        let last = manifest(&[("a", 10)], None, None);
        let error = plan(Some(&last), &[], &[("a", 25, 90)], NO_LIMIT).unwrap_err();
        assert_eq!(error.code, Code::PositionLost);
        for part in ["`a`", "25", "10", "15 positions"] {
            assert!(error.message.contains(part), "{error}");
        }
        assert!(error.hint.unwrap().contains("retention"));
    }

    #[test]
    fn an_empty_log_that_begins_again_is_another_topic_but_a_lagging_end_is_not() {
        let last = manifest(&[("a", 10)], None, None);
        let error = plan(Some(&last), &[], &[("a", 0, 0)], NO_LIMIT).unwrap_err();
        assert_eq!(error.code, Code::PositionLost);
        assert!(error.hint.unwrap().contains("created anew"));
        assert_eq!(plan(Some(&last), &[], &[("a", 0, 8)], NO_LIMIT).unwrap(), None);
        assert_eq!(plan(Some(&last), &[], &[("b", 0, 0)], NO_LIMIT).unwrap(), None);
    }

    #[test]
    fn another_plan_does_not_go_on_with_the_state() {
        let last = Manifest { fingerprint: "old".to_owned(), ..manifest(&[], None, None) };
        assert_eq!(plan(Some(&last), &[], &[("a", 0, 8)], NO_LIMIT).unwrap_err().code, Code::Unsupported);
    }

    #[test]
    fn a_drain_closes_everything_once_and_is_the_end() {
        let pipeline = PipelineId::new("p");
        let drain = |last: Option<&Manifest>| drain_intent(&pipeline, FencingToken(2), "f", last).unwrap();
        assert_eq!(drain(None), None);
        let open = manifest(&[("a", 10)], Some(500), Some(500));
        let intent = drain(Some(&open)).unwrap();
        assert_eq!((intent.epoch, intent.ranges.len()), (Epoch(5), 0));
        assert_eq!((intent.late_before_ms, intent.close_before_ms), (Some(500), Some(i64::MAX)));
        let drained = manifest(&[("a", 10)], Some(500), Some(i64::MAX));
        assert_eq!(drain(Some(&drained)), None);
        assert_eq!(plan(Some(&drained), &[], &[("a", 0, 11)], NO_LIMIT).unwrap(), None);
    }
}
