//! Which task slots are taken, by what really runs.
//!
//! Ballista takes slots when it binds a task, and gives them back when the task's end is reported, as many as
//! the job's graph says the task had. When a stage was rolled back or a job cancelled meanwhile, the graph no
//! longer knows the task, and its slots are lost for good: an executor that has lost all of them never works
//! again. So before each binding the slots that no running task holds are given back.

use ballista_core::JobId;
use ballista_core::error::Result;
use ballista_core::serde::protobuf::ExecutorHeartbeat;
use ballista_core::serde::scheduler::{ExecutorData, ExecutorMetadata};
use ballista_scheduler::cluster::memory::InMemoryClusterState;
use ballista_scheduler::cluster::{BoundTask, ClusterState, ClusterStateEventStream, ExecutorSlot};
use ballista_scheduler::config::TaskDistributionPolicy;
use ballista_scheduler::state::task_manager::JobInfoCache;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use tokio::sync::Mutex;

/// Ballista's own state of the cluster, with its books kept.
#[derive(Default)]
pub(super) struct Slots {
    inner: InMemoryClusterState,
    /// Slots taken and not given back, by executor.
    taken: Mutex<HashMap<String, u32>>,
}

/// Slots that nobody holds, by executor.
fn lost(taken: &HashMap<String, u32>, held: &HashMap<String, u32>) -> Vec<ExecutorSlot> {
    let lost = |executor: &String, taken: u32| taken.saturating_sub(held.get(executor).copied().unwrap_or(0));
    taken
        .iter()
        .map(|(executor, taken)| (executor.clone(), lost(executor, *taken)))
        .filter(|(_, lost)| *lost > 0)
        .collect()
}

/// Takes `slots` off the books, but no more than are on them; gives what was taken off.
fn give_back(taken: &mut HashMap<String, u32>, slots: Vec<ExecutorSlot>) -> Vec<ExecutorSlot> {
    let give = |(executor, count): ExecutorSlot| {
        let on_books = taken.get_mut(&executor)?;
        let given = count.min(*on_books);
        *on_books -= given;
        Some((executor, given))
    };
    slots.into_iter().filter_map(give).collect()
}

#[async_trait::async_trait]
impl ClusterState for Slots {
    async fn bind_schedulable_tasks(
        &self,
        distribution: TaskDistributionPolicy,
        active_jobs: Arc<HashMap<JobId, JobInfoCache>>,
        executors: Option<HashSet<String>>,
    ) -> Result<Vec<BoundTask>> {
        let mut taken = self.taken.lock().await;
        let mut held: HashMap<String, u32> = HashMap::new();
        for job in active_jobs.values() {
            let graph = job.execution_graph.read().await;
            for task in graph.running_tasks() {
                let vcores = graph.task_vcores(task.stage_id, task.task_id).unwrap_or(0);
                *held.entry(task.executor_id).or_default() += vcores;
            }
        }
        let lost = lost(&taken, &held);
        if !lost.is_empty() {
            tracing::debug!(?lost, "slots that no task holds are given back");
            self.inner.unbind_tasks(give_back(&mut taken, lost)).await?;
        }
        let bound = self.inner.bind_schedulable_tasks(distribution, active_jobs, executors).await?;
        for (executor, task) in &bound {
            *taken.entry(executor.clone()).or_default() += task.vcores_consumed;
        }
        Ok(bound)
    }

    async fn unbind_tasks(&self, slots: Vec<ExecutorSlot>) -> Result<()> {
        let mut taken = self.taken.lock().await;
        let slots = give_back(&mut taken, slots);
        self.inner.unbind_tasks(slots).await
    }

    async fn register_executor(&self, metadata: ExecutorMetadata, spec: ExecutorData) -> Result<()> {
        self.inner.register_executor(metadata, spec).await
    }

    async fn save_executor_metadata(&self, metadata: ExecutorMetadata) -> Result<()> {
        self.inner.save_executor_metadata(metadata).await
    }

    async fn get_executor_metadata(&self, executor_id: &str) -> Result<ExecutorMetadata> {
        self.inner.get_executor_metadata(executor_id).await
    }

    async fn registered_executor_metadata(&self) -> Vec<ExecutorMetadata> {
        self.inner.registered_executor_metadata().await
    }

    async fn save_executor_heartbeat(&self, heartbeat: ExecutorHeartbeat) -> Result<()> {
        self.inner.save_executor_heartbeat(heartbeat).await
    }

    async fn remove_executor(&self, executor_id: &str) -> Result<()> {
        self.taken.lock().await.remove(executor_id);
        self.inner.remove_executor(executor_id).await
    }

    fn executor_heartbeats(&self) -> HashMap<String, ExecutorHeartbeat> {
        self.inner.executor_heartbeats()
    }

    fn get_executor_heartbeat(&self, executor_id: &str) -> Option<ExecutorHeartbeat> {
        self.inner.get_executor_heartbeat(executor_id)
    }

    async fn cluster_state_events(&self) -> Result<ClusterStateEventStream> {
        self.inner.cluster_state_events().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn books(entries: &[(&str, u32)]) -> HashMap<String, u32> {
        entries.iter().map(|(executor, count)| ((*executor).to_owned(), *count)).collect()
    }

    #[test]
    fn what_no_task_holds_is_lost() {
        let taken = books(&[("a", 3), ("b", 1), ("c", 1)]);
        let mut found = lost(&taken, &books(&[("a", 1), ("b", 1)]));
        found.sort();
        assert_eq!(found, [("a".to_owned(), 2), ("c".to_owned(), 1)]);
    }

    #[test]
    fn nothing_is_given_back_twice() {
        let mut taken = books(&[("a", 1)]);
        assert_eq!(give_back(&mut taken, vec![("a".to_owned(), 2)]), [("a".to_owned(), 1)]);
        assert_eq!(give_back(&mut taken, vec![("a".to_owned(), 1)]), [("a".to_owned(), 0)]);
        assert_eq!(give_back(&mut taken, vec![("gone".to_owned(), 1)]), []);
    }
}
