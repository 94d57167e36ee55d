//! One session for every node and every engine: the same functions, the same settings, the node's own services.
//!
//! A plan is made on the scheduler and runs elsewhere; functions are resolved by name there, so all nodes must
//! register the same ones. [`registry_fingerprint`] is compared when an executor registers.

use crate::object_stores::LazyObjectStores;
use crate::{Services, from_datafusion, functions};
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::{FairSpillPool, TrackConsumersPool};
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::prelude::SessionConfig;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::{Arc, LazyLock};
use tidemill_core::Result;
use tidemill_core::config::Config;

/// How many of the largest consumers an out-of-memory error names.
const NAMED_CONSUMERS: NonZeroUsize = NonZeroUsize::MIN.saturating_add(4);

/// What all queries of this process share: memory, spill space, object stores. Make it once a process.
pub fn runtime_env(config: &Config) -> Result<Arc<RuntimeEnv>> {
    let limit = memory_limit(config) - data_cache_bytes(config);
    let pool = TrackConsumersPool::new(FairSpillPool::new(limit), NAMED_CONSUMERS);
    let mode = match &config.engine.spill_dir {
        Some(folder) => DiskManagerMode::Directories(vec![folder.clone()]),
        None => DiskManagerMode::OsTmpDirectory,
    };
    RuntimeEnvBuilder::new()
        .with_memory_pool(Arc::new(pool))
        .with_disk_manager_builder(DiskManagerBuilder::default().with_mode(mode))
        .with_object_store_registry(Arc::new(LazyObjectStores::new(config.clone())))
        .build_arc()
        .map_err(from_datafusion)
}

/// Bytes that queries and the data cache of this process may use together.
fn memory_limit(config: &Config) -> usize {
    match config.engine.memory_limit_bytes {
        0 => machine_memory() / 4 * 3,
        bytes => bytes,
    }
}

/// Bytes that this process keeps of decoded columns. Queries are left at least a half of the memory.
pub(crate) fn data_cache_bytes(config: &Config) -> usize {
    let limit = memory_limit(config);
    config.engine.data_cache_bytes.unwrap_or(limit / 4).min(limit / 2)
}

/// Bytes that this process may use: of the machine, or of its control group if that has fewer.
fn machine_memory() -> usize {
    let read = |path: &str| std::fs::read_to_string(Path::new(path)).ok();
    let machine = read("/proc/meminfo")
        .and_then(|text| text.lines().find_map(|line| line.strip_prefix("MemTotal:")).map(str::to_owned))
        .and_then(|text| text.trim().trim_end_matches("kB").trim().parse::<usize>().ok())
        .map_or(8 << 30, |kib| kib << 10);
    let group = read("/sys/fs/cgroup/memory.max").and_then(|text| text.trim().parse::<usize>().ok());
    group.map_or(machine, |group| group.min(machine))
}

/// The settings that every session begins with.
pub fn session_config(services: &Arc<Services>) -> SessionConfig {
    let mut config = SessionConfig::new()
        .with_target_partitions(services.config.target_partitions())
        .with_information_schema(true)
        .with_extension(services.clone());
    // A subquery that runs beside the plan cannot be cut into stages; as a join it can.
    config.options_mut().optimizer.enable_physical_uncorrelated_scalar_subquery = false;
    config
}

/// A session of this node. Callers add what is theirs (catalogs, planners) before they build it.
pub fn session_state(services: &Arc<Services>, runtime: Arc<RuntimeEnv>) -> SessionStateBuilder {
    let builder = SessionStateBuilder::new();
    functions::with_functions(builder).with_config(session_config(services)).with_runtime_env(runtime)
}

/// Hash of the names of all functions and of this build: nodes that differ in it must not work together.
pub fn registry_fingerprint() -> &'static str {
    static FINGERPRINT: LazyLock<String> = LazyLock::new(|| {
        let state = functions::with_functions(SessionStateBuilder::new()).build();
        let mut hasher = DefaultHasher::new();
        functions::names(&state).hash(&mut hasher);
        build().hash(&mut hasher);
        format!("{:016x}", hasher.finish())
    });
    &FINGERPRINT
}

/// What nodes call this build.
pub fn build() -> &'static str {
    static BUILD: LazyLock<String> = LazyLock::new(|| {
        format!("{}+datafusion-{}", env!("CARGO_PKG_VERSION"), datafusion::DATAFUSION_VERSION)
    });
    &BUILD
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidemill_core::ConnectorRegistry;

    #[tokio::test]
    async fn sessions_find_their_services_and_nested_functions() {
        let services = Services::new(Config::default(), ConnectorRegistry::default());
        let runtime = runtime_env(&services.config).unwrap();
        let state = session_state(&services, runtime).build();
        assert!(Arc::ptr_eq(&Services::of(&state.task_ctx()).unwrap(), &services));
        assert!(state.scalar_functions().contains_key("make_array"));
        assert!(state.scalar_functions().contains_key("zorder"));
    }

    #[test]
    fn the_fingerprint_is_stable() {
        assert_eq!(registry_fingerprint(), registry_fingerprint());
        assert_eq!(registry_fingerprint().len(), 16);
    }
}
