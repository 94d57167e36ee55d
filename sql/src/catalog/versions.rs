//! Names of older versions: `t@v3`, `t@20260101120000000` as Delta has it, and `t@2026-01-01T12:00:00Z`; and of
//! what changed between them: `t@changes v3 v5`.

use chrono::{DateTime, NaiveDateTime, SecondsFormat, Utc};
use std::fmt;
use tidemill_engine::TableVersion;

const CHANGES: &str = "changes ";

/// Which past of a table a name means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Past {
    At(TableVersion),
    /// From one version to another, or to the newest.
    Changes(TableVersion, Option<TableVersion>),
}

impl Past {
    /// Splits `t@v3`; `None` for a name that ends in no version.
    pub(super) fn split(name: &str) -> Option<(&str, Self)> {
        let (table, version) = name.rsplit_once('@')?;
        let past = match version.strip_prefix(CHANGES) {
            Some(versions) => {
                let mut versions = versions.split(' ').map(parse);
                let (from, to) = (versions.next()??, versions.next());
                match (to, versions.next()) {
                    (None, _) => Self::Changes(from, None),
                    (Some(to), None) => Self::Changes(from, Some(to?)),
                    (Some(_), Some(_)) => return None,
                }
            }
            None => Self::At(parse(version)?),
        };
        (!table.is_empty()).then_some((table, past))
    }
}

impl fmt::Display for Past {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::At(version) => write!(f, "@{}", show(*version)),
            Self::Changes(from, None) => write!(f, "@{CHANGES}{}", show(*from)),
            Self::Changes(from, Some(to)) => write!(f, "@{CHANGES}{} {}", show(*from), show(*to)),
        }
    }
}

fn show(version: TableVersion) -> String {
    match version {
        TableVersion::Number(number) => format!("v{number}"),
        TableVersion::Time(time) => time.to_rfc3339_opts(SecondsFormat::AutoSi, true),
    }
}

fn parse(version: &str) -> Option<TableVersion> {
    Some(match version.strip_prefix(['v', 'V']) {
        Some(number) => TableVersion::Number(number.parse().ok()?),
        None => TableVersion::Time(time(version)?),
    })
}

fn time(text: &str) -> Option<DateTime<Utc>> {
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Some(time.to_utc());
    }
    // Delta's own form, `yyyyMMddHHmmssSSS`.
    let (seconds, millis) = (text.len() == 17).then(|| text.split_at_checked(14)).flatten()?;
    let time = NaiveDateTime::parse_from_str(seconds, "%Y%m%d%H%M%S").ok()?.and_utc();
    Some(time + chrono::Duration::milliseconds(millis.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_what_they_mean() {
        for name in [
            "t@v3",
            "t@2026-01-01T12:00:00Z",
            "a@b@2026-01-01T12:00:00.123456Z",
            "t@changes v3",
            "t@changes v3 2026-01-01T12:00:00Z",
        ] {
            let (table, past) = Past::split(name).unwrap();
            assert_eq!(format!("{table}{past}"), name);
        }
        let (_, past) = Past::split("t@20260101120000123").unwrap();
        assert_eq!(past.to_string(), "@2026-01-01T12:00:00.123Z");
        for name in ["t", "t@", "t@v", "t@vx", "@v3", "me@home", "t@changes ", "t@changes v1 v2 v3"] {
            assert_eq!(Past::split(name), None, "{name}");
        }
    }
}
