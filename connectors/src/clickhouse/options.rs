//! What `CREATE CONNECTION … WITH (connector = 'clickhouse', …)` takes.

use std::time::Duration;
use tidemill_core::{Code, Error, OptionSpec, Options, Result, SinkSpec};
use url::Url;

const fn option(name: &'static str, default: Option<&'static str>, doc: &'static str) -> OptionSpec {
    OptionSpec { name, required: false, default, doc }
}

pub const OPTIONS: &[OptionSpec] = &[
    OptionSpec {
        name: "url",
        required: true,
        default: None,
        doc: "the HTTP interface, e.g. http://warehouse:8123",
    },
    option("user", Some("default"), "the user's name"),
    option("password", None, "the password, as env:NAME or file:PATH"),
    option("database", Some("default"), "the database of targets that name none"),
    option("create_table", Some("true"), "whether a missing target table is created"),
    option("chunk_rows", Some("500000"), "most rows of one INSERT, 1 to 1000000"),
    option(
        "run_column",
        Some("_tidemill_run"),
        "column of created tables that holds `load/run`, for the reconciliation; empty for none",
    ),
    option("compression", Some("lz4"), "of what is sent: lz4 or none"),
    option("timeout_secs", Some("120"), "how long one statement or one INSERT may take"),
];

/// The most rows that stay one block, and so are inserted as a whole or not at all.
const MOST_CHUNK_ROWS: usize = 1_000_000;

#[derive(Clone)]
pub(super) struct Settings {
    pub(super) url: String,
    pub(super) user: String,
    pub(super) password: Option<String>,
    pub(super) database: String,
    pub(super) table: String,
    pub(super) create_table: bool,
    pub(super) chunk_rows: usize,
    pub(super) run_column: Option<String>,
    pub(super) compress: bool,
    pub(super) timeout: Duration,
}

impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Settings")
            .field("url", &self.url)
            .field("user", &self.user)
            .field("table", &self.qualified())
            .finish_non_exhaustive()
    }
}

impl Settings {
    pub(super) fn new(spec: &SinkSpec) -> Result<Self> {
        let options = Options::new("clickhouse", &spec.options, OPTIONS, |_| false)?;
        let (database, table) = match spec.target.split_once('.') {
            Some((database, table)) => (database.to_owned(), table.to_owned()),
            None => (options.require("database")?, spec.target.clone()),
        };
        if database.is_empty() || table.is_empty() || table.contains('.') {
            let message = format!("`{}` is no ClickHouse table", spec.target);
            return Err(Error::new(Code::BadOption, message).hint("expected `database.table` or `table`"));
        }
        let chunk_rows = options.parse::<usize>("chunk_rows", "a number of rows")?.unwrap_or_default();
        if !(1..=MOST_CHUNK_ROWS).contains(&chunk_rows) {
            let message = format!("connector `clickhouse`: option `chunk_rows` is {chunk_rows}");
            return Err(Error::new(Code::BadOption, message).hint(format!(
                "expected 1 to {MOST_CHUNK_ROWS}: ClickHouse takes no larger block as a whole"
            )));
        }
        let seconds = options.parse::<u64>("timeout_secs", "seconds")?.unwrap_or_default().max(1);
        Ok(Self {
            url: http_url(&options.require("url")?)?,
            user: options.require("user")?,
            password: options.get("password")?,
            database,
            table,
            create_table: options.parse("create_table", "true or false")?.unwrap_or(true),
            chunk_rows,
            run_column: options.get("run_column")?.filter(|name| !name.is_empty()),
            compress: compression(&options.require("compression")?)?,
            timeout: Duration::from_secs(seconds),
        })
    }

    pub(super) fn qualified(&self) -> String {
        format!("{}.{}", self.database, self.table)
    }
}

fn http_url(text: &str) -> Result<String> {
    let bad = |reason: &str| {
        Error::new(Code::BadOption, format!("connector `clickhouse`: option `url` is `{text}`: {reason}"))
            .hint("expected the HTTP interface, e.g. http://warehouse:8123")
    };
    let url = Url::parse(text).map_err(|error| bad(&error.to_string()))?;
    match url.scheme() {
        "http" if url.password().is_some() || !url.username().is_empty() => {
            Err(bad("credentials belong into the options `user` and `password`"))
        }
        "http" => Ok(text.trim_end_matches('/').to_owned()),
        "https" => Err(Error::new(Code::Unsupported, "this build reaches ClickHouse over http:// only")
            .hint("use the plain HTTP port, or a TLS tunnel in front of it")),
        other => Err(bad(&format!("unknown scheme `{other}`"))),
    }
}

fn compression(text: &str) -> Result<bool> {
    match text {
        "lz4" => Ok(true),
        "none" => Ok(false),
        other => {
            let message = format!("connector `clickhouse`: option `compression` is `{other}`");
            Err(Error::new(Code::BadOption, message).hint("expected lz4 or none"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn settings(target: &str, options: &[(&str, &str)]) -> Result<Settings> {
        let options: BTreeMap<String, String> =
            options.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Settings::new(&SinkSpec { connector: "clickhouse".to_owned(), target: target.to_owned(), options })
    }

    #[test]
    fn a_target_is_a_table_with_or_without_its_database() {
        let options = [("url", "http://h:8123/"), ("database", "d")];
        assert_eq!(settings("t", &options).unwrap().qualified(), "d.t");
        assert_eq!(settings("x.t", &options).unwrap().qualified(), "x.t");
        assert_eq!(settings("x.", &options).unwrap_err().code, Code::BadOption);
        assert_eq!(settings("a.b.c", &options).unwrap_err().code, Code::BadOption);
    }

    #[test]
    fn what_cannot_work_is_refused_before_anything_connects() {
        let url = ("url", "http://h:8123");
        assert_eq!(settings("t", &[]).unwrap_err().code, Code::BadOption);
        assert_eq!(settings("t", &[("url", "https://h:8443")]).unwrap_err().code, Code::Unsupported);
        assert_eq!(settings("t", &[("url", "http://u:p@h:8123")]).unwrap_err().code, Code::BadOption);
        assert_eq!(settings("t", &[url, ("chunk_rows", "2000000")]).unwrap_err().code, Code::BadOption);
        assert_eq!(settings("t", &[url, ("compression", "gzip")]).unwrap_err().code, Code::BadOption);
    }

    #[test]
    fn a_password_never_shows() {
        let settings = settings("t", &[("url", "http://h:8123"), ("password", "hunter2")]).unwrap();
        assert!(!format!("{settings:?}").contains("hunter2"));
    }
}
