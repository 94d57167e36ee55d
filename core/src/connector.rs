//! How connectors are found and how their options are read.

use crate::{Code, Error, Result, Sink, SinkSpec, Source, SourceSpec};
use std::collections::BTreeMap;
use std::sync::Arc;

/// One option that a connector takes, for error messages and the reference pages.
#[derive(Clone, Copy, Debug)]
pub struct OptionSpec {
    pub name: &'static str,
    pub required: bool,
    pub default: Option<&'static str>,
    pub doc: &'static str,
}

/// Options of one statement, read against a list of known ones: an unknown key is refused, all faults are
/// reported at once, and secrets are resolved from their references.
#[derive(Debug)]
pub struct Options<'a> {
    owner: &'a str,
    given: &'a BTreeMap<String, String>,
    known: &'a [OptionSpec],
}

impl<'a> Options<'a> {
    /// Checks the keys. Keys for which `passthrough` holds (such as `properties.*`) are not checked.
    pub fn new(
        owner: &'a str,
        given: &'a BTreeMap<String, String>,
        known: &'a [OptionSpec],
        passthrough: impl Fn(&str) -> bool,
    ) -> Result<Self> {
        let names = || known.iter().map(|option| option.name);
        let mut faults = Vec::new();
        for key in given.keys().filter(|key| !passthrough(key)) {
            if !names().any(|name| name == key) {
                let fault =
                    Error::new(Code::BadOption, format!("unknown option `{key}`")).suggest(key, names());
                faults.push(fault);
            }
        }
        for option in known.iter().filter(|option| option.required && !given.contains_key(option.name)) {
            let missing = format!("missing option `{}`", option.name);
            faults.push(Error::new(Code::BadOption, missing).hint(option.doc));
        }
        if faults.is_empty() {
            return Ok(Self { owner, given, known });
        }
        let words: Vec<String> = faults
            .into_iter()
            .map(|fault| match fault.hint {
                Some(hint) => format!("{} ({hint})", fault.message),
                None => fault.message,
            })
            .collect();
        Err(Error::new(Code::BadOption, format!("connector `{owner}`: {}", words.join("; "))))
    }

    /// The value, or the default, with secret references resolved.
    pub fn get(&self, name: &str) -> Result<Option<String>> {
        let default = || self.known.iter().find(|o| o.name == name).and_then(|o| o.default);
        match self.given.get(name).map(String::as_str).or_else(default) {
            Some(value) => resolve_secret(value).map(Some),
            None => Ok(None),
        }
    }

    /// The value of an option that is required or has a default.
    pub fn require(&self, name: &str) -> Result<String> {
        self.get(name)?.ok_or_else(|| {
            Error::new(Code::BadOption, format!("connector `{}`: missing option `{name}`", self.owner))
        })
    }

    /// A number, boolean or other value with a [`std::str::FromStr`].
    pub fn parse<T: std::str::FromStr>(&self, name: &str, expected: &str) -> Result<Option<T>> {
        let Some(text) = self.get(name)? else { return Ok(None) };
        text.parse().map(Some).map_err(|_| {
            let message = format!("connector `{}`: option `{name}` is `{text}`", self.owner);
            Error::new(Code::BadOption, message).hint(format!("expected {expected}"))
        })
    }
}

/// `env:NAME` and `file:PATH` stand for a secret kept elsewhere; anything else stands for itself.
pub fn resolve_secret(value: &str) -> Result<String> {
    if let Some(name) = value.strip_prefix("env:") {
        return std::env::var(name).map_err(|_| {
            Error::new(Code::BadOption, format!("the environment variable `{name}` is not set"))
                .hint("set it where this process starts")
        });
    }
    if let Some(path) = value.strip_prefix("file:") {
        return std::fs::read_to_string(path).map(|text| text.trim_end().to_owned()).map_err(|error| {
            Error::new(Code::BadOption, format!("cannot read the secret file `{path}`: {error}"))
        });
    }
    Ok(value.to_owned())
}

/// What builds a source from its spec. Must not block or connect.
pub type SourceFactory = fn(&SourceSpec, &crate::config::Config) -> Result<Arc<dyn Source>>;
/// What builds a sink from its spec. Must not block or connect.
pub type SinkFactory = fn(&SinkSpec, &crate::config::Config) -> Result<Arc<dyn Sink>>;

/// Every connector by name. The composition root fills it once; everyone else only looks up.
#[derive(Clone, Default)]
pub struct ConnectorRegistry {
    config: crate::config::Config,
    sources: BTreeMap<&'static str, SourceFactory>,
    sinks: BTreeMap<&'static str, SinkFactory>,
}

impl std::fmt::Debug for ConnectorRegistry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ConnectorRegistry")
            .field("sources", &self.sources.keys())
            .field("sinks", &self.sinks.keys())
            .finish_non_exhaustive()
    }
}

impl ConnectorRegistry {
    pub fn new(config: crate::config::Config) -> Self {
        Self { config, ..Self::default() }
    }

    #[must_use]
    pub fn with_source(mut self, name: &'static str, factory: SourceFactory) -> Self {
        self.sources.insert(name, factory);
        self
    }

    #[must_use]
    pub fn with_sink(mut self, name: &'static str, factory: SinkFactory) -> Self {
        self.sinks.insert(name, factory);
        self
    }

    pub fn source(&self, spec: &SourceSpec) -> Result<Arc<dyn Source>> {
        match self.sources.get(spec.connector.as_str()) {
            Some(factory) => factory(spec, &self.config),
            None => Err(unknown("source", &spec.connector, self.sources.keys())),
        }
    }

    pub fn sink(&self, spec: &SinkSpec) -> Result<Arc<dyn Sink>> {
        match self.sinks.get(spec.connector.as_str()) {
            Some(factory) => factory(spec, &self.config),
            None => Err(unknown("sink", &spec.connector, self.sinks.keys())),
        }
    }

    pub fn source_names(&self) -> impl Iterator<Item = &'static str> {
        self.sources.keys().copied()
    }

    pub fn sink_names(&self) -> impl Iterator<Item = &'static str> {
        self.sinks.keys().copied()
    }
}

fn unknown<'a>(kind: &str, name: &str, known: impl Iterator<Item = &'a &'static str>) -> Error {
    Error::new(Code::BadOption, format!("no {kind} connector `{name}`")).suggest(name, known.copied())
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: &[OptionSpec] = &[
        OptionSpec { name: "topic", required: true, default: None, doc: "the topic to read" },
        OptionSpec { name: "timeout_secs", required: false, default: Some("10"), doc: "how long to wait" },
    ];

    #[test]
    fn reports_all_faults_at_once() {
        let given = BTreeMap::from([("topci".to_owned(), "x".to_owned())]);
        let error = Options::new("kafka", &given, KNOWN, |_| false).unwrap_err();
        assert_eq!(
            error.message,
            "connector `kafka`: unknown option `topci` (did you mean `topic`?); missing option `topic` (the topic to read)"
        );
    }

    #[test]
    fn reads_defaults_and_refuses_what_does_not_parse() {
        let mut given = BTreeMap::from([("topic".to_owned(), "x".to_owned())]);
        let options = Options::new("kafka", &given, KNOWN, |_| false).unwrap();
        assert_eq!(options.parse::<u64>("timeout_secs", "seconds").unwrap(), Some(10));
        given.insert("timeout_secs".to_owned(), "soon".to_owned());
        let options = Options::new("kafka", &given, KNOWN, |_| false).unwrap();
        assert_eq!(options.parse::<u64>("timeout_secs", "seconds").unwrap_err().code, Code::BadOption);
    }
}
