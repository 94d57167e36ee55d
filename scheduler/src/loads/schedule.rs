//! Which intervals a schedule has, which of them are due, and what of an asked-for time is still to load.
//! Pure: the time is an argument.

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use croner::Cron;
use serde::{Deserialize, Serialize};
use std::str::FromStr;
use tidemill_core::{Code, Error, Result};

/// The time `from..to`, without `to`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Interval {
    pub from: DateTime<Utc>,
    pub to: DateTime<Utc>,
}

impl Interval {
    /// Fails when it is empty.
    pub fn new(from: DateTime<Utc>, to: DateTime<Utc>) -> Result<Self> {
        if from < to {
            return Ok(Self { from, to });
        }
        let message = format!("the interval from {from} to {to} is empty");
        Err(Error::new(Code::InvalidStatement, message).hint("FOR must be before TO"))
    }

    pub fn overlaps(&self, other: &Self) -> bool {
        self.from < other.to && other.from < self.to
    }
}

impl std::fmt::Display for Interval {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} to {}", self.from.to_rfc3339(), self.to.to_rfc3339())
    }
}

/// A cron expression in a time zone. A fixed time that the clock skips fires right after the gap, one that
/// comes twice fires once; wildcards fire in real time, through both.
#[derive(Clone, Debug)]
pub struct Schedule {
    cron: Cron,
    zone: Tz,
}

impl Schedule {
    pub fn parse(cron: &str, time_zone: &str) -> Result<Self> {
        let parsed = Cron::from_str(cron).map_err(|error| {
            Error::new(Code::InvalidStatement, format!("`{cron}` is no cron expression: {error}"))
                .hint("minute hour day month weekday, e.g. '5 * * * *' for five past every hour")
        })?;
        let zone = Tz::from_str(time_zone).map_err(|_| no_zone(time_zone))?;
        let schedule = Self { cron: parsed, zone };
        // A schedule such as 30 February parses, and never fires.
        schedule.fire_after(DateTime::UNIX_EPOCH)?;
        Ok(schedule)
    }

    /// The first fire after `time`.
    pub fn fire_after(&self, time: DateTime<Utc>) -> Result<DateTime<Utc>> {
        let next = self.cron.find_next_occurrence(&time.with_timezone(&self.zone), false);
        next.map(|fire| fire.with_timezone(&Utc)).map_err(|error| self.never(&error))
    }

    /// The last fire that is not after `time`.
    pub fn fire_at_or_before(&self, time: DateTime<Utc>) -> Result<DateTime<Utc>> {
        let previous = self.cron.find_previous_occurrence(&time.with_timezone(&self.zone), true);
        previous.map(|fire| fire.with_timezone(&Utc)).map_err(|error| self.never(&error))
    }

    fn never(&self, error: &croner::errors::CronError) -> Error {
        let message = format!("the schedule `{}` finds no time to run: {error}", self.cron.as_str());
        Error::new(Code::InvalidStatement, message).hint("check day and month")
    }

    /// The first `limit` intervals that are over at `now` and not loaded, oldest first.
    pub fn due(
        &self,
        start: DateTime<Utc>,
        loaded: &[Interval],
        now: DateTime<Utc>,
        limit: usize,
    ) -> Result<Vec<Interval>> {
        // Up to the last fire: the interval that runs now is not over yet.
        let over = self.fire_at_or_before(now)?;
        if over <= start {
            return Ok(Vec::new());
        }
        self.split(&missing(Interval { from: start, to: over }, loaded), limit)
    }

    /// Cuts `times` at every fire, into at most `limit` intervals.
    fn split(&self, times: &[Interval], limit: usize) -> Result<Vec<Interval>> {
        let mut intervals = Vec::new();
        for time in times {
            let mut from = time.from;
            while from < time.to {
                if intervals.len() == limit {
                    return Ok(intervals);
                }
                let to = self.fire_after(from)?.min(time.to);
                intervals.push(Interval { from, to });
                from = to;
            }
        }
        Ok(intervals)
    }
}

/// There are 600 zones: only one that is near is named.
fn no_zone(name: &str) -> Error {
    let names = chrono_tz::TZ_VARIANTS.iter().map(|zone| zone.name());
    let error = Error::new(Code::InvalidStatement, format!("no time zone `{name}`")).suggest(name, names);
    match &error.hint {
        Some(hint) if hint.starts_with("did you mean") => error,
        _ => error.hint("an IANA name, e.g. 'UTC' or 'Europe/Berlin'"),
    }
}

/// Most intervals of one `RUN LOAD`.
pub const MOST_BACKFILL: usize = 10_000;

/// What a load of `asked` has to do: what is not loaded yet, cut at the schedule's fires, if there are any.
pub fn backfill(schedule: Option<&Schedule>, asked: Interval, loaded: &[Interval]) -> Result<Vec<Interval>> {
    let times = missing(asked, loaded);
    let intervals = match schedule {
        Some(schedule) => schedule.split(&times, MOST_BACKFILL + 1)?,
        None => times,
    };
    if intervals.len() <= MOST_BACKFILL {
        return Ok(intervals);
    }
    let message = format!("the time from {asked} has more than {MOST_BACKFILL} intervals of this schedule");
    Err(Error::new(Code::InvalidStatement, message).hint("run it in several parts"))
}

/// `asked` less everything in `loaded`, in order.
pub fn missing(asked: Interval, loaded: &[Interval]) -> Vec<Interval> {
    let mut loaded: Vec<&Interval> = loaded.iter().filter(|interval| interval.overlaps(&asked)).collect();
    loaded.sort_unstable();
    let mut gaps = Vec::new();
    let mut from = asked.from;
    for interval in loaded {
        if from < interval.from {
            gaps.push(Interval { from, to: interval.from });
        }
        from = from.max(interval.to);
    }
    if from < asked.to {
        gaps.push(Interval { from, to: asked.to });
    }
    gaps
}

/// Adds `interval` to `loaded` and joins what touches, so that years of a schedule stay one interval.
pub fn add(loaded: &mut Vec<Interval>, interval: Interval) {
    loaded.push(interval);
    loaded.sort_unstable();
    let mut joined: Vec<Interval> = Vec::with_capacity(loaded.len());
    for interval in loaded.drain(..) {
        match joined.last_mut() {
            Some(last) if interval.from <= last.to => last.to = last.to.max(interval.to),
            _ => joined.push(interval),
        }
    }
    *loaded = joined;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        format!("{text}Z").parse().unwrap()
    }

    fn interval(from: &str, to: &str) -> Interval {
        Interval::new(at(from), at(to)).unwrap()
    }

    fn hours(intervals: &[Interval]) -> Vec<i64> {
        intervals.iter().map(|interval| (interval.to - interval.from).num_hours()).collect()
    }

    #[test]
    fn only_intervals_that_are_over_are_due() {
        let schedule = Schedule::parse("5 * * * *", "UTC").unwrap();
        let start = at("2026-01-01T09:05:00");
        let due = |now: &str| schedule.due(start, &[], at(now), 10).unwrap();
        assert_eq!(due("2026-01-01T10:04:59.999"), []);
        assert_eq!(due("2026-01-01T10:05:00"), [interval("2026-01-01T09:05:00", "2026-01-01T10:05:00")]);
        assert_eq!(due("2026-01-01T10:59:00"), due("2026-01-01T10:05:00"));
    }

    #[test]
    fn missed_intervals_come_in_order_and_bounded() {
        let schedule = Schedule::parse("0 * * * *", "UTC").unwrap();
        let start = at("2026-01-01T00:00:00");
        let loaded = [interval("2026-01-01T00:00:00", "2026-01-01T02:00:00")];
        let due = schedule.due(start, &loaded, at("2026-01-03T00:30:00"), 3).unwrap();
        assert_eq!(due.len(), 3);
        assert_eq!(due[0], interval("2026-01-01T02:00:00", "2026-01-01T03:00:00"));
        assert_eq!(due[2].to, at("2026-01-01T05:00:00"));
    }

    #[test]
    fn a_gap_that_a_failed_run_left_is_due_first() {
        let schedule = Schedule::parse("0 * * * *", "UTC").unwrap();
        let loaded = [
            interval("2026-01-01T00:00:00", "2026-01-01T02:00:00"),
            interval("2026-01-01T03:00:00", "2026-01-01T05:00:00"),
        ];
        let due = schedule.due(at("2026-01-01T00:00:00"), &loaded, at("2026-01-01T06:10:00"), 9).unwrap();
        assert_eq!(
            due,
            [
                interval("2026-01-01T02:00:00", "2026-01-01T03:00:00"),
                interval("2026-01-01T05:00:00", "2026-01-01T06:00:00"),
            ]
        );
    }

    #[test]
    fn days_are_23_and_25_hours_when_the_clock_changes() {
        let schedule = Schedule::parse("0 0 * * *", "Europe/Berlin").unwrap();
        let spring = schedule.due(at("2026-03-27T23:00:00"), &[], at("2026-03-30T22:00:00"), 9).unwrap();
        assert_eq!(hours(&spring), [24, 23, 24]);
        let autumn = schedule.due(at("2026-10-23T22:00:00"), &[], at("2026-10-26T23:00:00"), 9).unwrap();
        assert_eq!(hours(&autumn), [24, 25, 24]);
    }

    #[test]
    fn hours_stay_hours_through_both_changes() {
        let schedule = Schedule::parse("0 * * * *", "Europe/Berlin").unwrap();
        for day in ["2026-03-29", "2026-10-25"] {
            let start = at(&format!("{day}T00:00:00"));
            let due = schedule.due(start, &[], start + chrono::TimeDelta::hours(5), 99).unwrap();
            assert_eq!(hours(&due), [1, 1, 1, 1, 1], "{day}");
        }
    }

    #[test]
    fn a_fixed_time_that_is_skipped_or_doubled_still_makes_one_interval_a_day() {
        let schedule = Schedule::parse("30 2 * * *", "Europe/Berlin").unwrap();
        for (start, now) in
            [("2026-03-27T01:30:00", "2026-03-31T12:00:00"), ("2026-10-23T00:30:00", "2026-10-27T12:00:00")]
        {
            let due = schedule.due(at(start), &[], at(now), 99).unwrap();
            assert_eq!(due.len(), 4, "{due:?}");
            assert!(due.windows(2).all(|pair| pair[0].to == pair[1].from));
            assert!(hours(&due).iter().all(|h| (22..=25).contains(h)), "{due:?}");
        }
    }

    #[test]
    fn the_last_day_of_a_month_is_found_in_every_month() {
        let schedule = Schedule::parse("0 0 L * *", "UTC").unwrap();
        let due = schedule.due(at("2027-12-31T00:00:00"), &[], at("2028-04-30T00:00:00"), 99).unwrap();
        let ends: Vec<String> = due.iter().map(|i| i.to.format("%m-%d").to_string()).collect();
        assert_eq!(ends, ["01-31", "02-29", "03-31", "04-30"]);
    }

    #[test]
    fn a_backfill_is_cut_at_fires_and_leaves_out_what_is_loaded() {
        let schedule = Schedule::parse("5 * * * *", "UTC").unwrap();
        let asked = interval("2026-01-01T00:00:00", "2026-01-01T03:00:00");
        let loaded = [interval("2026-01-01T01:05:00", "2026-01-01T02:05:00")];
        assert_eq!(
            backfill(Some(&schedule), asked, &loaded).unwrap(),
            [
                interval("2026-01-01T00:00:00", "2026-01-01T00:05:00"),
                interval("2026-01-01T00:05:00", "2026-01-01T01:05:00"),
                interval("2026-01-01T02:05:00", "2026-01-01T03:00:00"),
            ]
        );
        assert_eq!(backfill(Some(&schedule), asked, &[asked]).unwrap(), []);
        assert_eq!(backfill(None, asked, &[]).unwrap(), [asked]);
    }

    #[test]
    fn a_backfill_is_bounded() {
        let schedule = Schedule::parse("* * * * *", "UTC").unwrap();
        let asked = interval("2026-01-01T00:00:00", "2026-02-01T00:00:00");
        assert_eq!(backfill(Some(&schedule), asked, &[]).unwrap_err().code, Code::InvalidStatement);
    }

    #[test]
    fn what_touches_is_joined() {
        let mut loaded = vec![interval("2026-01-01T00:00:00", "2026-01-01T01:00:00")];
        add(&mut loaded, interval("2026-01-01T02:00:00", "2026-01-01T03:00:00"));
        assert_eq!(loaded.len(), 2);
        add(&mut loaded, interval("2026-01-01T01:00:00", "2026-01-01T02:00:00"));
        assert_eq!(loaded, [interval("2026-01-01T00:00:00", "2026-01-01T03:00:00")]);
    }

    #[test]
    fn wrong_schedules_say_what_is_wrong() {
        for (cron, zone) in [("5 * * *", "UTC"), ("61 * * * *", "UTC"), ("0 0 30 2 *", "UTC")] {
            assert_eq!(Schedule::parse(cron, zone).unwrap_err().code, Code::InvalidStatement, "{cron}");
        }
        let error = Schedule::parse("5 * * * *", "Europe/Berln").unwrap_err();
        assert_eq!(error.hint.as_deref(), Some("did you mean `Europe/Berlin`?"));
        let error = Schedule::parse("5 * * * *", "Middle-earth standard time").unwrap_err();
        assert!(error.hint.unwrap().starts_with("an IANA name"));
    }
}
