//! What a session says about its jobs: `SET priority`, `SET memory_limit`, `SET statement_timeout`.

use crate::admission::Priority;
use std::time::Duration;
use tidemill_core::{Code, Error, Result};

const PRIORITY: &str = "priority";
const MEMORY_LIMIT: &str = "memory_limit";
const STATEMENT_TIMEOUT: &str = "statement_timeout";

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct JobLimits {
    pub(super) priority: Priority,
    /// Bytes that one job may use in this process; `None` is the node's own limit.
    pub(super) memory: Option<usize>,
    /// Counted from the moment at which the job asks for its turn.
    pub(super) timeout: Option<Duration>,
}

impl JobLimits {
    pub(super) const NAMES: [&str; 3] = [PRIORITY, MEMORY_LIMIT, STATEMENT_TIMEOUT];

    pub(super) fn has(name: &str) -> bool {
        Self::NAMES.contains(&name)
    }

    /// Sets one of [`Self::NAMES`], or puts its default back.
    pub(super) fn set(&mut self, name: &str, value: Option<&str>) -> Result<()> {
        let value = value.map(str::trim).filter(|value| !value.eq_ignore_ascii_case("default"));
        match name {
            PRIORITY => self.priority = value.map_or(Ok(Priority::default()), str::parse)?,
            MEMORY_LIMIT => self.memory = value.map(bytes).transpose()?.filter(|bytes| *bytes > 0),
            _ => self.timeout = value.map(duration).transpose()?.filter(|timeout| !timeout.is_zero()),
        }
        Ok(())
    }

    pub(super) fn get(&self, name: &str) -> String {
        match name {
            PRIORITY => self.priority.as_str().to_owned(),
            MEMORY_LIMIT => self.memory.map_or_else(|| "default".to_owned(), |bytes| bytes.to_string()),
            _ => self.timeout.map_or_else(|| "0".to_owned(), |timeout| format!("{} ms", timeout.as_millis())),
        }
    }
}

/// `500MB`, `2 GiB`, or plain bytes.
fn bytes(text: &str) -> Result<usize> {
    const UNITS: &[(&str, u64)] = &[
        ("b", 1),
        ("", 1),
        ("kb", 1_000),
        ("mb", 1_000_000),
        ("gb", 1_000_000_000),
        ("tb", 1_000_000_000_000),
        ("k", 1 << 10),
        ("m", 1 << 20),
        ("g", 1 << 30),
        ("t", 1 << 40),
        ("kib", 1 << 10),
        ("mib", 1 << 20),
        ("gib", 1 << 30),
        ("tib", 1 << 40),
    ];
    let size = measure(text, UNITS, |number, unit| number.checked_mul(unit));
    size.and_then(|size| usize::try_from(size).ok()).ok_or_else(|| {
        Error::new(Code::BadOption, format!("memory_limit cannot be `{text}`"))
            .hint("it is a size such as '500 MiB' or '2 GB', or 'default'")
    })
}

/// `30s`, `5 min`, or plain milliseconds, as in PostgreSQL.
fn duration(text: &str) -> Result<Duration> {
    const UNITS: &[(&str, u64)] = &[
        ("", 1),
        ("ms", 1),
        ("s", 1_000),
        ("sec", 1_000),
        ("m", 60_000),
        ("min", 60_000),
        ("h", 3_600_000),
        ("d", 86_400_000),
    ];
    let millis = measure(text, UNITS, |number, unit| number.checked_mul(unit));
    millis.map(Duration::from_millis).ok_or_else(|| {
        Error::new(Code::BadOption, format!("statement_timeout cannot be `{text}`"))
            .hint("it is a duration such as '30 s' or '5 min', or 0 for none")
    })
}

fn measure(text: &str, units: &[(&str, u64)], times: impl Fn(u64, u64) -> Option<u64>) -> Option<u64> {
    let digits = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim().to_lowercase();
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    times(number.parse().ok()?, *factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_and_shown() {
        let mut limits = JobLimits::default();
        for (name, value, shown) in [
            ("priority", "HIGH", "high"),
            ("memory_limit", "2 GiB", "2147483648"),
            ("memory_limit", "500MB", "500000000"),
            ("memory_limit", "default", "default"),
            ("statement_timeout", "30s", "30000 ms"),
            ("statement_timeout", "1500", "1500 ms"),
            ("statement_timeout", "0", "0"),
        ] {
            limits.set(name, Some(value)).unwrap();
            assert_eq!(limits.get(name), shown, "{name} = {value}");
        }
        limits.set("priority", None).unwrap();
        assert_eq!(limits, JobLimits::default());
    }

    #[test]
    fn faults_say_what_is_allowed() {
        for (name, value, word) in [
            ("priority", "urgent", "high"),
            ("memory_limit", "much", "MiB"),
            ("memory_limit", "99999999999999 TB", "MiB"),
            ("statement_timeout", "-1", "min"),
        ] {
            let error = JobLimits::default().set(name, Some(value)).unwrap_err();
            assert_eq!(error.code, Code::BadOption);
            assert!(error.hint.unwrap().contains(word), "{name} = {value}");
        }
    }
}
