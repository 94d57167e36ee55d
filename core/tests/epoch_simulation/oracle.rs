//! The direct computation: what the participants must hold, from the records and the journaled ranges alone.
//!
//! It shares no code with the protocol. Which rows are late depends on where epochs were cut, so the cuts are
//! taken from the journal; everything else, the watermark included, is computed here in another way.

use crate::world::{DELAY_MS, File, WINDOW_MS, Windows, World};
use std::collections::BTreeMap;
use tidemill_core::SplitId;
use tidemill_core::epoch::{DEAD_LETTERS, Intent, TABLE};

/// What went wrong.
pub(crate) type Fault = String;

macro_rules! demand {
    ($holds:expr, $($words:tt)+) => {
        if !$holds {
            return Err(format!($($words)+));
        }
    };
}

/// Compares a world that has come to rest, drained, with the direct computation.
pub(crate) fn check(world: &World) -> Result<(), Fault> {
    let expected = direct(world)?;
    for (name, target) in &world.targets {
        let mut once = target.log.clone();
        once.dedup();
        demand!(once == target.log && once.is_sorted(), "`{name}` committed epochs {:?}", target.log);
    }
    let mut windows: Vec<(i64, i64, Vec<u32>)> = Vec::new();
    for path in &world.targets[TABLE].files {
        let Some(File::Windows(file)) = world.files.get(path) else { return Err(format!("no file {path}")) };
        windows.extend(file.iter().map(|(start, window)| (*start, window.sum, sorted(&window.ids))));
    }
    windows.sort();
    let right: Vec<_> =
        expected.windows.iter().map(|(start, window)| (*start, window.sum, sorted(&window.ids))).collect();
    demand!(windows == right, "windows are {windows:?}, should be {right:?}");

    let mut bad = Vec::new();
    for path in &world.targets[DEAD_LETTERS].files {
        let Some(File::DeadLetters(ids)) = world.files.get(path) else {
            return Err(format!("no file {path}"));
        };
        bad.extend_from_slice(ids);
    }
    demand!(sorted(&bad) == expected.bad, "dead letters are {bad:?}, should be {:?}", expected.bad);

    let totals = world.manifests.last_key_value().map(|(_, manifest)| manifest.totals).unwrap_or_default();
    let records = world.splits.values().map(Vec::len).sum::<usize>() as u64;
    demand!(totals.read == records, "{} read of {records}", totals.read);
    demand!(totals.late == expected.late, "{} late, should be {}", totals.late, expected.late);
    demand!(totals.dead_letters == expected.bad.len() as u64, "{} dead letters", totals.dead_letters);
    demand!(totals.written == expected.windows.len() as u64, "{} written", totals.written);
    Ok(())
}

#[derive(Default)]
struct Expected {
    windows: Windows,
    bad: Vec<u32>,
    late: u64,
}

fn direct(world: &World) -> Result<Expected, Fault> {
    let mut expected = Expected::default();
    let mut next: BTreeMap<SplitId, i64> = BTreeMap::new();
    let mut highest: BTreeMap<SplitId, i64> = BTreeMap::new();
    let (mut watermark, mut closed) = (i64::MIN, i64::MIN);
    for intent in cuts(world)? {
        let (epoch, late, close) = (intent.epoch, intent.late_before_ms, intent.close_before_ms);
        demand!(late.unwrap_or(i64::MIN) == closed, "epoch {epoch}: late before {late:?}, closed {closed}");
        let drain = close == Some(i64::MAX);
        demand!(drain || close.unwrap_or(i64::MIN) == watermark, "epoch {epoch}: {close:?} and {watermark}");
        let mut slowest = i64::MAX;
        for range in &intent.ranges {
            let position = next.insert(range.split.clone(), range.end).unwrap_or(0);
            demand!(
                position == range.start && range.start < range.end,
                "epoch {epoch}: {range:?} at {position}"
            );
            for record in &world.splits[&range.split][range.start as usize..range.end as usize] {
                let start = record.time_ms - record.time_ms.rem_euclid(WINDOW_MS);
                if record.bad {
                    expected.bad.push(record.id);
                } else if start + WINDOW_MS <= closed {
                    expected.late += 1;
                } else {
                    let window = expected.windows.entry(start).or_default();
                    window.sum += record.value;
                    window.ids.push(record.id);
                    let time = highest.entry(range.split.clone()).or_insert(record.time_ms);
                    *time = record.time_ms.max(*time);
                }
            }
            slowest = slowest.min(highest.get(&range.split).copied().unwrap_or(i64::MAX));
        }
        closed = close.unwrap_or(i64::MIN);
        if slowest != i64::MAX {
            watermark = watermark.max(slowest - DELAY_MS);
        }
    }
    for (split, records) in &world.splits {
        let position = next.get(split).copied().unwrap_or(0);
        demand!(position == records.len() as i64, "split `{split}` was read up to {position}");
    }
    expected.bad.sort_unstable();
    Ok(expected)
}

/// One intent per epoch: however often an epoch was intended, and by whom, it was the same.
fn cuts(world: &World) -> Result<Vec<&Intent>, Fault> {
    let mut cuts: BTreeMap<u64, &Intent> = BTreeMap::new();
    for intent in &world.intents {
        let first = cuts.entry(intent.epoch.0).or_insert(intent);
        let again = Intent { token: first.token, ..intent.clone() };
        demand!(again == **first, "epoch {} was intended as {first:?} and as {intent:?}", intent.epoch);
    }
    let epochs: Vec<u64> = cuts.keys().copied().collect();
    let gapless: Vec<u64> = (1..=epochs.len() as u64).collect();
    demand!(epochs == gapless, "epochs {epochs:?} were intended");
    Ok(cuts.into_values().collect())
}

fn sorted(ids: &[u32]) -> Vec<u32> {
    let mut ids = ids.to_vec();
    ids.sort_unstable();
    ids
}
