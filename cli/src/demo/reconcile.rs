//! Whether everything that was produced turned up, once. Pure.

use crate::generate::Summary;
use std::collections::BTreeMap;

/// Events of one window (its start in milliseconds since the epoch) and region.
pub(super) type Windows = BTreeMap<(i64, String), Counted>;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counted {
    pub(super) events: u64,
    pub(super) purchases: u64,
    /// Revenue of the purchases, in hundredths.
    pub(super) revenue_cents: u64,
}

/// What the engine says at the end.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Observed {
    /// Events in the windows of the table.
    pub(super) windowed: u64,
    /// The pipeline's own counts.
    pub(super) read: u64,
    pub(super) duplicates: u64,
    pub(super) late: u64,
    pub(super) refused: u64,
    pub(super) dropped: u64,
    /// Rows of the dead-letter table.
    pub(super) dead_letters: u64,
    pub(super) windows: Windows,
    pub(super) table_rows: u64,
    /// Rows that the load staged, and those that its sink counts, where it can.
    pub(super) loaded_rows: u64,
    pub(super) counted_rows: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) line: String,
    /// Each in plain words.
    pub(super) disagreements: Vec<String>,
}

impl Verdict {
    pub(super) fn agrees(&self) -> bool {
        self.disagreements.is_empty()
    }
}

/// The producer's count against the sum of what became of the events, and every part of it against what the
/// generator knows.
pub(super) fn reconcile(truth: &Summary, observed: &Observed) -> Verdict {
    let Observed { windowed, duplicates, late, dead_letters, .. } = *observed;
    let produced = truth.produced;
    let found = windowed + duplicates + late + dead_letters;
    let difference = i128::from(produced) - i128::from(found);
    let line = format!(
        "reconciled: produced={produced} windowed={windowed} duplicates={duplicates} late={late} \
         dead_letters={dead_letters} difference={difference}"
    );
    let mut disagreements = Vec::new();
    let mut same = |what: &str, expected: u64, found: u64| {
        if expected != found {
            disagreements.push(format!("{what}: expected {expected}, found {found}"));
        }
    };
    same("events produced, and what became of them", produced, found);
    same("events produced, and read by the pipeline", produced, observed.read);
    same("malformed events, and dead letters", truth.malformed, dead_letters);
    same("dead letters counted by the pipeline, and in their table", observed.refused, dead_letters);
    same("events that an expectation dropped", 0, observed.dropped);
    same("repeated events, and duplicates removed", truth.duplicates, duplicates);
    same("rows of the table, and rows loaded", observed.table_rows, observed.loaded_rows);
    same(
        "rows loaded, and counted in the target",
        observed.loaded_rows,
        observed.counted_rows.unwrap_or(observed.loaded_rows),
    );
    // What came late before there was a watermark has windows of its own, far behind.
    same(
        "late events, and those too late or in windows of the past",
        truth.late,
        late + past_windows(truth, observed),
    );
    disagreements.extend(compare_windows(truth, observed));
    Verdict { line, disagreements }
}

fn first_window(truth: &Summary) -> i64 {
    truth.windows.iter().map(|window| window.window_start_ms).min().unwrap_or(i64::MAX)
}

fn past_windows(truth: &Summary, observed: &Observed) -> u64 {
    let first = first_window(truth);
    observed.windows.iter().filter(|((start, _), _)| *start < first).map(|(_, counted)| counted.events).sum()
}

fn compare_windows(truth: &Summary, observed: &Observed) -> Vec<String> {
    let first = first_window(truth);
    let expected: Windows = truth
        .windows
        .iter()
        .map(|window| {
            let tally = &window.tally;
            let counted = Counted {
                events: tally.events,
                purchases: tally.purchases,
                revenue_cents: tally.revenue_cents,
            };
            ((window.window_start_ms, window.region.to_owned()), counted)
        })
        .collect();
    let found = observed.windows.iter().filter(|((start, _), _)| *start >= first);
    let mut different: Vec<String> = expected
        .iter()
        .filter(|(key, counted)| observed.windows.get(*key) != Some(*counted))
        .map(|(key, counted)| {
            format!(
                "window {} of {}: expected {counted:?}, found {:?}",
                key.0,
                key.1,
                observed.windows.get(key)
            )
        })
        .collect();
    let unexpected = found.filter(|(key, _)| !expected.contains_key(*key));
    different.extend(
        unexpected.map(|(key, counted)| format!("window {} of {}: not expected: {counted:?}", key.0, key.1)),
    );
    different
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::{WindowSummary, WindowTally};

    fn truth() -> Summary {
        let window = |window_start_ms, events| WindowSummary {
            window_start_ms,
            region: "eu",
            tally: WindowTally { events, purchases: 2, revenue_cents: 1_999 },
        };
        Summary {
            produced: 100,
            good: 90,
            duplicates: 3,
            late: 5,
            malformed: 2,
            bytes: 0,
            seconds: 1.0,
            events_per_second: 100.0,
            windows: vec![window(10_000, 60), window(20_000, 30)],
        }
    }

    fn observed() -> Observed {
        let counted = |events| Counted { events, purchases: 2, revenue_cents: 1_999 };
        Observed {
            windowed: 92,
            read: 100,
            duplicates: 3,
            late: 3,
            refused: 2,
            dropped: 0,
            dead_letters: 2,
            windows: Windows::from([
                // Two late events of the first epoch.
                ((-600_000, "eu".to_owned()), counted(2)),
                ((10_000, "eu".to_owned()), counted(60)),
                ((20_000, "eu".to_owned()), counted(30)),
            ]),
            table_rows: 3,
            loaded_rows: 3,
            counted_rows: None,
        }
    }

    #[test]
    fn agrees_when_every_event_turned_up_once() {
        let verdict = reconcile(&truth(), &observed());
        assert_eq!(
            verdict.line,
            "reconciled: produced=100 windowed=92 duplicates=3 late=3 dead_letters=2 difference=0"
        );
        assert_eq!(verdict.disagreements, Vec::<String>::new());
    }

    #[test]
    fn finds_a_lost_event_and_one_counted_twice() {
        let mut lost = observed();
        lost.windowed -= 1;
        let verdict = reconcile(&truth(), &lost);
        assert!(verdict.line.ends_with("difference=1") && !verdict.agrees());
        let mut twice = observed();
        twice.windowed += 2;
        assert!(reconcile(&truth(), &twice).line.ends_with("difference=-2"));
    }

    #[test]
    fn a_loss_that_another_count_hides_is_found_too() {
        let change = |change: fn(&mut Observed)| {
            let mut observed = observed();
            change(&mut observed);
            let verdict = reconcile(&truth(), &observed);
            assert!(verdict.line.ends_with("difference=0"));
            assert!(!verdict.agrees(), "{observed:?}");
        };
        // One event in the wrong window; a duplicate taken for late; a malformed one for a duplicate.
        change(|observed| {
            observed.windows.get_mut(&(10_000, "eu".to_owned())).unwrap().events -= 1;
            observed.windows.get_mut(&(20_000, "eu".to_owned())).unwrap().events += 1;
        });
        change(|observed| (observed.duplicates, observed.late) = (2, 4));
        change(|observed| (observed.duplicates, observed.dead_letters) = (4, 1));
        change(|observed| observed.windows.get_mut(&(20_000, "eu".to_owned())).unwrap().revenue_cents += 1);
        change(|observed| {
            observed.windows.insert((30_000, "us".to_owned()), Counted::default());
        });
        change(|observed| observed.loaded_rows = 2);
        change(|observed| observed.counted_rows = Some(4));
        change(|observed| observed.refused = 1);
    }
}
