//! Where event time stands after an epoch.
//!
//! The watermark is a promise about the slowest split: no earlier event time is expected from any split that
//! still delivers. A split that had nothing to read in the epoch is idle and holds nobody back; every split
//! with a backlog takes part in every epoch (see [`super::next_intent`]), so "no range" means "no backlog".
//! Rows of a split that falls silent and comes back behind the watermark are late, and are counted as such.
//!
//! It depends only on what was read, never on a clock, so a try again of an epoch computes the same.

use crate::SplitId;
use std::collections::BTreeMap;

/// The watermark after an epoch, in milliseconds since the Unix epoch: the least of the highest event times of
/// the splits that were read in it, less `delay_ms`, and never below `previous`.
///
/// `max_event_time_ms` holds the highest event time of every split ever read, this epoch included. A split that
/// never delivered an event time (all of it dead letters) knows nothing of time and is passed over.
pub fn advance_watermark<'a>(
    previous: Option<i64>,
    read: impl IntoIterator<Item = &'a SplitId>,
    max_event_time_ms: &BTreeMap<SplitId, i64>,
    delay_ms: i64,
) -> Option<i64> {
    let slowest = read.into_iter().filter_map(|split| max_event_time_ms.get(split)).min();
    previous.max(slowest.map(|time| time.saturating_sub(delay_ms)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn splits(names: &[&str]) -> Vec<SplitId> {
        names.iter().map(|name| SplitId::new(*name)).collect()
    }

    fn times(of: &[(&str, i64)]) -> BTreeMap<SplitId, i64> {
        of.iter().map(|(split, time)| (SplitId::new(*split), *time)).collect()
    }

    #[test]
    fn the_slowest_split_that_delivers_decides() {
        let times = times(&[("a", 100), ("b", 70), ("idle", 5)]);
        assert_eq!(advance_watermark(None, &splits(&["a", "b"]), &times, 10), Some(60));
        assert_eq!(advance_watermark(None, &splits(&["a"]), &times, 10), Some(90));
    }

    #[test]
    fn it_never_goes_back() {
        let times = times(&[("a", 100), ("returned", 5)]);
        assert_eq!(advance_watermark(Some(80), &splits(&["a", "returned"]), &times, 10), Some(80));
        assert_eq!(advance_watermark(Some(80), &[], &times, 10), Some(80));
    }

    #[test]
    fn without_any_event_time_there_is_none() {
        assert_eq!(advance_watermark(None, &splits(&["a"]), &times(&[]), 10), None);
        assert_eq!(advance_watermark(None, &splits(&["a"]), &times(&[("a", i64::MIN)]), 10), Some(i64::MIN));
    }
}
