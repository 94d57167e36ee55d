//! What the stream held, by window and region: the other side of a reconciliation.

use super::events::{EventKind, EventType, Facts};
use serde::Serialize;
use std::collections::BTreeMap;

/// Good events of one window and region.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct WindowTally {
    pub events: u64,
    pub purchases: u64,
    /// Price × quantity of the purchases, in hundredths.
    pub revenue_cents: u64,
}

/// Counts by kind, and by window where a window is given.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    pub good: u64,
    pub duplicates: u64,
    pub late: u64,
    pub malformed: u64,
    window_ms: Option<i64>,
    /// By window start in milliseconds since the epoch, and region.
    pub windows: BTreeMap<(i64, &'static str), WindowTally>,
}

impl Tally {
    pub(crate) fn new(window_secs: Option<u32>) -> Self {
        Self { window_ms: window_secs.map(|seconds| i64::from(seconds) * 1000), ..Self::default() }
    }

    pub(crate) fn add(&mut self, facts: &Facts) {
        match facts.kind {
            EventKind::Good => self.good += 1,
            EventKind::Duplicate => self.duplicates += 1,
            EventKind::Late => self.late += 1,
            EventKind::Malformed => self.malformed += 1,
        }
        let Some(window_ms) = self.window_ms.filter(|_| facts.kind == EventKind::Good) else { return };
        let start = facts.event_time_ms - facts.event_time_ms.rem_euclid(window_ms);
        let window = self.windows.entry((start, facts.region)).or_default();
        window.events += 1;
        if facts.event_type == EventType::Purchase {
            window.purchases += 1;
            window.revenue_cents += u64::from(facts.price_cents) * u64::from(facts.quantity);
        }
    }

    pub(crate) fn total(&self) -> u64 {
        self.good + self.duplicates + self.late + self.malformed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_hold_good_events_alone_and_exact_sums() {
        let facts = Facts {
            kind: EventKind::Good,
            event_time_ms: 61_500,
            event_type: EventType::Purchase,
            region: "eu",
            price_cents: 1999,
            quantity: 3,
        };
        let mut tally = Tally::new(Some(60));
        tally.add(&facts);
        tally.add(&Facts { event_type: EventType::View, ..facts });
        tally.add(&Facts { kind: EventKind::Late, ..facts });
        tally.add(&Facts { kind: EventKind::Duplicate, ..facts });
        tally.add(&Facts { event_time_ms: -1, ..facts });
        assert_eq!((tally.good, tally.late, tally.duplicates, tally.total()), (3, 1, 1, 5));
        let windows: Vec<_> = tally.windows.into_iter().collect();
        assert_eq!(windows.len(), 2);
        assert_eq!(windows[0].0, (-60_000, "eu"));
        let expected = WindowTally { events: 2, purchases: 1, revenue_cents: 5997 };
        assert_eq!(windows[1], ((60_000, "eu"), expected));
    }
}
