//! The memory of one job: a pool of its own within the pool of the process, so that a job which wants too much
//! fails or spills alone.

use datafusion::common::Result as DfResult;
use datafusion::execution::TaskContext;
use datafusion::execution::memory_pool::{
    FairSpillPool, MemoryConsumer, MemoryLimit, MemoryPool, MemoryReservation, TrackConsumersPool,
};
use datafusion::execution::runtime_env::RuntimeEnv;
use std::fmt;
use std::num::NonZeroUsize;
use std::sync::Arc;

/// How many of the largest consumers an out-of-memory error names.
const NAMED_CONSUMERS: NonZeroUsize = NonZeroUsize::MIN.saturating_add(4);

/// `context`, whose memory is limited to `bytes` beside the limit of the process.
pub fn limited(context: TaskContext, bytes: usize) -> TaskContext {
    let runtime = context.runtime_env();
    let pool = JobPool::new(bytes, runtime.memory_pool.clone());
    let runtime = RuntimeEnv { memory_pool: Arc::new(pool), ..RuntimeEnv::clone(&runtime) };
    context.with_runtime(Arc::new(runtime))
}

/// Every reservation counts in both pools. Each is fair to the consumers that can spill: the job's among its
/// operators, the process' among all.
#[derive(Debug)]
struct JobPool {
    own: TrackConsumersPool<FairSpillPool>,
    process: Arc<dyn MemoryPool>,
}

impl JobPool {
    fn new(bytes: usize, process: Arc<dyn MemoryPool>) -> Self {
        Self { own: TrackConsumersPool::new(FairSpillPool::new(bytes), NAMED_CONSUMERS), process }
    }
}

impl fmt::Display for JobPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "job({})", self.own)
    }
}

impl MemoryPool for JobPool {
    fn name(&self) -> &str {
        "job"
    }

    fn register(&self, consumer: &MemoryConsumer) {
        self.own.register(consumer);
        self.process.register(consumer);
    }

    fn unregister(&self, consumer: &MemoryConsumer) {
        self.own.unregister(consumer);
        self.process.unregister(consumer);
    }

    fn grow(&self, reservation: &MemoryReservation, additional: usize) {
        self.own.grow(reservation, additional);
        self.process.grow(reservation, additional);
    }

    fn shrink(&self, reservation: &MemoryReservation, shrink: usize) {
        self.own.shrink(reservation, shrink);
        self.process.shrink(reservation, shrink);
    }

    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> DfResult<()> {
        self.own.try_grow(reservation, additional)?;
        self.process
            .try_grow(reservation, additional)
            .inspect_err(|_| self.own.shrink(reservation, additional))
    }

    fn reserved(&self) -> usize {
        self.own.reserved()
    }

    fn memory_limit(&self) -> MemoryLimit {
        self.own.memory_limit()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_beyond_its_share_fails_and_leaves_the_rest_to_others() {
        let process: Arc<dyn MemoryPool> = Arc::new(FairSpillPool::new(1000));
        let pool = || Arc::new(JobPool::new(600, process.clone())) as Arc<dyn MemoryPool>;
        let (greedy, modest) = (pool(), pool());
        let build = MemoryConsumer::new("build side").register(&greedy);
        build.try_grow(500).unwrap();
        let error = build.try_grow(200).unwrap_err().to_string();
        assert!(error.contains("build side"), "{error}");
        let other = MemoryConsumer::new("other").register(&modest);
        other.try_grow(400).unwrap();
        // Within its own share, but the process has no more: nothing of it stays reserved.
        assert!(other.try_grow(150).is_err());
        assert_eq!((modest.reserved(), process.reserved()), (400, 900));
        drop((build, other));
        assert_eq!((greedy.reserved(), modest.reserved(), process.reserved()), (0, 0, 0));
    }

    #[test]
    fn what_can_spill_shares_the_jobs_memory_evenly() {
        let process: Arc<dyn MemoryPool> = Arc::new(FairSpillPool::new(1000));
        let pool: Arc<dyn MemoryPool> = Arc::new(JobPool::new(600, process));
        let sorts = ["a", "b"].map(|name| MemoryConsumer::new(name).with_can_spill(true).register(&pool));
        assert!(sorts[0].try_grow(301).is_err());
        sorts[0].try_grow(300).unwrap();
        sorts[1].try_grow(300).unwrap();
    }
}
