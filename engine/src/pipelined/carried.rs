//! The settings of a session, on their way to the workers. `datafusion-distributed` sends none by itself.

use datafusion::common::{Result as DfResult, extensions_options};
use datafusion::config::{ConfigExtension, ConfigOptions};
use std::collections::HashMap;
use std::sync::LazyLock;
use url::form_urlencoded::{Serializer, parse};

/// A worker has its own idea of cores, so its default differs; this one always travels.
const ALWAYS: &str = "datafusion.execution.target_partitions";

static DEFAULTS: LazyLock<HashMap<String, Option<String>>> = LazyLock::new(|| {
    ConfigOptions::default().entries().into_iter().map(|entry| (entry.key, entry.value)).collect()
});

extensions_options! {
    /// All `datafusion.*` settings that are not at their default.
    pub struct Carried {
        /// URL-encoded, because it travels in an HTTP header.
        pub settings: String, default = String::new()
    }
}

impl ConfigExtension for Carried {
    const PREFIX: &'static str = "carried";
}

impl Carried {
    pub(super) fn of(options: &ConfigOptions) -> Self {
        let mut settings = Serializer::new(String::new());
        for entry in options.entries() {
            let differs = DEFAULTS.get(&entry.key).is_some_and(|default| *default != entry.value);
            if let (true, Some(value)) = (differs || entry.key == ALWAYS, entry.value) {
                settings.append_pair(&entry.key, &value);
            }
        }
        Self { settings: settings.finish() }
    }

    pub(super) fn apply(&self, options: &mut ConfigOptions) -> DfResult<()> {
        for (key, value) in parse(self.settings.as_bytes()) {
            options.set(&key, &value)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_set_arrives() {
        let mut here = ConfigOptions::default();
        here.set("datafusion.execution.batch_size", "77").unwrap();
        here.execution.time_zone = Some("Europe/Wien".to_owned());
        let carried = Carried::of(&here);
        assert!(carried.settings.is_ascii());
        let mut there = ConfigOptions::default();
        carried.apply(&mut there).unwrap();
        assert_eq!(there.execution.batch_size.get(), 77);
        assert_eq!(there.execution.time_zone.as_deref(), Some("Europe/Wien"));
    }
}
