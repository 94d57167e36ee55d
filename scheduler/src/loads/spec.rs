//! What a load is, as the journal keeps it under `load/{name}`.

use super::schedule::{Interval, Schedule};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tidemill_core::{Result, SinkSpec};

/// When a load runs by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScheduleSpec {
    /// Five fields, or six with seconds in front.
    pub cron: String,
    /// IANA name, e.g. `Europe/Berlin`; the cron's fields are wall-clock time there.
    pub time_zone: String,
}

/// How a failed run is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Retries {
    /// Tries after the first. Errors that cannot pass by themselves are not tried again.
    pub max: u32,
    pub first_delay_ms: u64,
    pub longest_delay_ms: u64,
}

impl Default for Retries {
    fn default() -> Self {
        Self { max: 5, first_delay_ms: 1_000, longest_delay_ms: 300_000 }
    }
}

impl Retries {
    /// How long to wait before try `attempt + 1`, doubled each time, with jitter; none when `attempt` was the
    /// last one.
    pub(super) fn delay(&self, attempt: u32) -> Option<Duration> {
        use backon::BackoffBuilder;
        if attempt > self.max {
            return None;
        }
        backon::ExponentialBuilder::default()
            .with_min_delay(Duration::from_millis(self.first_delay_ms))
            .with_max_delay(Duration::from_millis(self.longest_delay_ms))
            .with_max_times(self.max as usize)
            .with_jitter()
            .build()
            .nth(attempt.saturating_sub(1) as usize)
    }
}

/// What `CREATE LOAD` said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadSpec {
    pub name: String,
    /// The query's text, with `:from` and `:to` for the interval.
    pub query: String,
    /// The connection's name, for people.
    pub connection: String,
    /// Connection and target. Secrets in it are references.
    pub sink: SinkSpec,
    /// Without one, only `RUN LOAD` runs it.
    pub schedule: Option<ScheduleSpec>,
    #[serde(default)]
    pub retries: Retries,
}

impl LoadSpec {
    pub(super) fn schedule(&self) -> Result<Option<Schedule>> {
        self.schedule.as_ref().map(|spec| Schedule::parse(&spec.cron, &spec.time_zone)).transpose()
    }
}

/// A load that exists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Load {
    /// What sinks know it by: unique for ever, also after a load of the same name was dropped.
    pub id: String,
    pub spec: LoadSpec,
    pub paused: bool,
    pub created_at: DateTime<Utc>,
    /// The schedule covers everything from here on: begin of the interval in which the load was created.
    pub start: DateTime<Utc>,
}

impl Load {
    /// The newest interval of its schedule that is over; `None` without a schedule.
    pub fn newest_interval(&self, now: DateTime<Utc>) -> Result<Option<Interval>> {
        let Some(schedule) = self.spec.schedule()? else { return Ok(None) };
        let to = schedule.fire_at_or_before(now)?;
        let from = schedule.fire_at_or_before(to - chrono::TimeDelta::milliseconds(1))?;
        Interval::new(from, to).map(Some)
    }

    /// The next time at which the load runs by itself.
    pub fn next_fire(&self, now: DateTime<Utc>) -> Result<Option<DateTime<Utc>>> {
        match self.spec.schedule()? {
            Some(schedule) if !self.paused => schedule.fire_after(now).map(Some),
            _ => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_longest_and_end() {
        let retries = Retries { max: 4, first_delay_ms: 100, longest_delay_ms: 300 };
        let millis: Vec<Option<u128>> =
            (1..=5).map(|attempt| retries.delay(attempt).map(|delay| delay.as_millis())).collect();
        // Jitter adds up to the first delay.
        for (delay, base) in millis.iter().take(4).zip([100, 200, 300, 300]) {
            assert!(delay.is_some_and(|d| d >= base && d <= base + 300), "{millis:?}");
        }
        assert_eq!(millis[4], None);
        assert_eq!(Retries { max: 0, ..Retries::default() }.delay(1), None);
    }
}
