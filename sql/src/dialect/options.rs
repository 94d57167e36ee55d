//! Options of a statement's `WITH (…)`: typed, an unknown key refused, all faults reported at once.

use super::interval::text_ms;
use std::collections::BTreeMap;
use tidemill_core::{Code, Error, Result};

/// Takes options out one by one; what is left at the end is unknown.
pub(crate) struct OptionReader {
    owner: &'static str,
    given: BTreeMap<String, String>,
    known: Vec<&'static str>,
    faults: Vec<String>,
}

impl OptionReader {
    pub(crate) fn new(owner: &'static str, given: BTreeMap<String, String>) -> Self {
        Self { owner, given, known: Vec::new(), faults: Vec::new() }
    }

    pub(crate) fn text(&mut self, key: &'static str) -> Option<String> {
        self.known.push(key);
        self.given.remove(key)
    }

    /// A value read by `read`, whose error says what was expected.
    pub(crate) fn read<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let text = self.text(key)?;
        match read(&text) {
            Ok(value) => Some(value),
            Err(expected) => {
                self.faults.push(format!("`{key}` is `{text}` (expected {expected})"));
                None
            }
        }
    }

    /// A whole number that is at least 1.
    pub(crate) fn count<T: std::str::FromStr + PartialOrd + From<u8>>(
        &mut self,
        key: &'static str,
    ) -> Option<T> {
        self.read(key, |text| {
            let number = text.parse::<T>().ok().filter(|number| *number >= T::from(1));
            number.ok_or_else(|| "a whole number of at least 1".to_owned())
        })
    }

    /// What was not taken, for someone else to read.
    pub(crate) fn rest(&mut self) -> BTreeMap<String, String> {
        std::mem::take(&mut self.given)
    }

    pub(crate) fn finish(self) -> Result<()> {
        let mut faults = self.faults;
        for key in self.given.keys() {
            let fault = Error::new(Code::BadOption, format!("unknown option `{key}`"))
                .suggest(key, self.known.iter().copied());
            faults.push(match fault.hint {
                Some(hint) => format!("{} ({hint})", fault.message),
                None => fault.message,
            });
        }
        if faults.is_empty() {
            return Ok(());
        }
        Err(Error::new(Code::BadOption, format!("{}: {}", self.owner, faults.join("; "))))
    }
}

/// `1 second`, `500 ms`, `5s` and the like as milliseconds.
pub(crate) fn duration_ms(text: &str) -> Result<u64, String> {
    let expected = || "a duration such as '1 second'".to_owned();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(expected)?;
    let (number, unit) = text.split_at(digits);
    let unit = match unit.trim().to_lowercase().as_str() {
        "ms" => "milliseconds".to_owned(),
        "s" | "sec" => "seconds".to_owned(),
        "m" | "min" => "minutes".to_owned(),
        "h" => "hours".to_owned(),
        other => other.to_owned(),
    };
    let ms = text_ms(&format!("{number} {unit}")).map_err(|_| expected())?;
    u64::try_from(ms).map_err(|_| expected())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_everything_that_is_wrong() {
        let given = [("bukets", "4"), ("buckets", "0"), ("trigger", "now")];
        let given = given.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        let mut reader = OptionReader::new("CREATE STREAMING TABLE", given);
        assert_eq!(reader.count::<u32>("buckets"), None);
        assert_eq!(reader.read("trigger", duration_ms), None);
        assert_eq!(
            reader.finish().unwrap_err().message,
            "CREATE STREAMING TABLE: `buckets` is `0` (expected a whole number of at least 1); \
             `trigger` is `now` (expected a duration such as '1 second'); \
             unknown option `bukets` (did you mean `buckets`?)"
        );
    }

    #[test]
    fn reads_durations() {
        assert_eq!(duration_ms("1 second"), Ok(1_000));
        assert_eq!(duration_ms("250ms"), Ok(250));
        assert_eq!(duration_ms("2 min"), Ok(120_000));
        assert!(duration_ms("10").is_err());
    }
}
