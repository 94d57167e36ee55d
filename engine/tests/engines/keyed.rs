//! Buckets of keyed state: the same row meets the same bucket on every engine and every number of workers.

use crate::cluster::{Cluster, run};
use crate::toys::{PairExec, Rows, RowsExec};
use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use datafusion::physical_expr::Partitioning;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::repartition::RepartitionExec;
use std::collections::BTreeSet;
use std::sync::Arc;
use tidemill_engine::exec::descriptors;
use tidemill_engine::{InProcess, JobKind};

fn keyed(buckets: usize) -> Arc<dyn ExecutionPlan> {
    let rows = RowsExec::of(&Rows::dense(3, 200));
    let hash = Partitioning::Hash(vec![Arc::new(Column::new("k", 0))], buckets);
    let left = RepartitionExec::try_new(rows, hash).unwrap();
    let states: Vec<i64> = (0..buckets as i64).collect();
    Arc::new(PairExec::over(Arc::new(left), descriptors(&states).unwrap()))
}

fn pairs(batches: &[RecordBatch]) -> BTreeSet<(i64, i64)> {
    let column =
        |batch: &RecordBatch, index: usize| batch.column(index).as_primitive::<Int64Type>().values().to_vec();
    batches.iter().flat_map(|batch| column(batch, 0).into_iter().zip(column(batch, 1))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_meets_its_bucket_whatever_the_number_of_workers() {
    for buckets in [1, 2, 4, 6] {
        let session = Cluster::of(0).session;
        let here = run(&InProcess::new(2), keyed(buckets), &session, JobKind::Epoch).await.unwrap();
        let expected = pairs(&here);
        assert_eq!(expected.len(), 600);
        for workers in [1, 2, 3] {
            let cluster = Cluster::of(workers);
            let there = cluster.run(keyed(buckets)).await.unwrap();
            assert_eq!(pairs(&there), expected, "{buckets} buckets on {workers} workers");
        }
    }
}
