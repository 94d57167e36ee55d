//! The commit of a run: chunk after chunk, then the marker.
//!
//! Every step may be repeated. A run whose marker is there is done; otherwise the chunks that are in already
//! are passed over where the run column shows them, and are dropped by their tokens where it does not.

use super::ClickHouseSink;
use super::options::Settings;
use super::session::{Session, quoted};
use super::stage::Chunk;
use super::table::Table;
use arrow::array::{ArrayRef, DictionaryArray, Int8Array, RecordBatch, StringArray};
use arrow::datatypes::{Field, Int8Type, Schema};
use std::sync::Arc;
use tidemill_core::{Code, Commit, Error, Result, Written};

/// Which runs are in, beside their targets. A row says when it was written; a repeated one changes nothing.
const MARKERS: &str = "tidemill_loads";

pub(super) async fn commit(
    sink: &ClickHouseSink,
    job: &str,
    run: u64,
    written: &[Written],
) -> Result<Commit> {
    let (session, settings) = (&sink.session, &sink.settings);
    create_markers(session, settings).await?;
    if marked(session, settings, job, run).await? {
        sink.stage.clear(job, run).await;
        return Ok(Commit::AlreadyCommitted);
    }
    let table = sink.table().await?;
    let chunks: Vec<Chunk> = written
        .iter()
        .map(|written| serde_json::from_value(written.descriptor.clone()))
        .collect::<Result<_, _>>()?;
    table.check_values(settings, &chunks)?;
    let present =
        if table.proves_counts(settings) { rows_of_run(session, settings, job, run).await? } else { 0 };
    let done = whole_chunks(present, &chunks);
    for (number, chunk) in chunks.iter().enumerate().skip(done) {
        let rows = with_run(sink.stage.read(chunk).await?, &table, settings, job, run)?;
        session
            .insert(&settings.table, &rows, &format!("{job}/{run}/{number}"))
            .await
            .map_err(|error| error.context(format!("chunk {number} of {} of {job}/{run}", chunks.len())))?;
    }
    let rows = chunks.iter().map(|chunk| chunk.rows).sum();
    mark(session, settings, job, run, rows).await?;
    sink.stage.clear(job, run).await;
    Ok(Commit::Committed { version: 0 })
}

/// The newest run that is in.
pub(super) async fn newest(session: &Session, settings: &Settings, job: &str) -> Result<Option<u64>> {
    if Table::describe(session, MARKERS).await?.is_none() {
        return Ok(None);
    }
    let statement = format!(
        "SELECT max(run) FROM {} WHERE job = {{job:String}} AND target = {{target:String}} HAVING count() > 0",
        quoted(MARKERS)
    );
    let found: Vec<u64> = session
        .rows(&statement, |query| query.param("job", job).param("target", settings.table.as_str()))
        .await?;
    Ok(found.first().copied())
}

/// Rows of the run that are in the target, by its run column.
pub(super) async fn rows_of_run(session: &Session, settings: &Settings, job: &str, run: u64) -> Result<u64> {
    let Some(column) = &settings.run_column else { return Ok(0) };
    let statement =
        format!("SELECT count() FROM {} WHERE {} = {{run:String}}", quoted(&settings.table), quoted(column));
    let found: Vec<u64> = session.rows(&statement, |query| query.param("run", run_name(job, run))).await?;
    Ok(found.first().copied().unwrap_or(0))
}

async fn create_markers(session: &Session, settings: &Settings) -> Result<()> {
    let statement = format!(
        "CREATE TABLE IF NOT EXISTS {}.{} (job String, target String, run UInt64, rows UInt64, \
         committed_at DateTime64(3, 'UTC') DEFAULT now64(3)) \
         ENGINE = ReplacingMergeTree(committed_at) ORDER BY (job, target, run)",
        quoted(&settings.database),
        quoted(MARKERS)
    );
    session.execute(&statement).await.map_err(|error| match error.code {
        Code::AccessDenied => error.hint(format!(
            "the user needs CREATE TABLE, INSERT and SELECT on `{}.{MARKERS}`, where committed runs are kept",
            settings.database
        )),
        _ => error,
    })
}

async fn marked(session: &Session, settings: &Settings, job: &str, run: u64) -> Result<bool> {
    let statement = format!(
        "SELECT count() FROM {} WHERE job = {{job:String}} AND target = {{target:String}} AND run = {{run:UInt64}}",
        quoted(MARKERS)
    );
    let found: Vec<u64> = session
        .rows(&statement, |query| {
            query.param("job", job).param("target", settings.table.as_str()).param("run", run)
        })
        .await?;
    Ok(found.first().is_some_and(|count| *count > 0))
}

async fn mark(session: &Session, settings: &Settings, job: &str, run: u64, rows: u64) -> Result<()> {
    let statement = format!(
        "INSERT INTO {} (job, target, run, rows) VALUES ({}, {}, {run}, {rows})",
        quoted(MARKERS),
        literal(job),
        literal(&settings.table)
    );
    session.execute(&statement).await
}

/// How many chunks from the front are in, when `present` rows of the run are. Chunks go in one after another
/// and each as a whole, except into partitioned tables: there a chunk may be in by half, and is not counted.
fn whole_chunks(present: u64, chunks: &[Chunk]) -> usize {
    let mut sum = 0;
    chunks
        .iter()
        .take_while(|chunk| {
            sum += chunk.rows;
            sum <= present
        })
        .count()
}

fn with_run(
    batch: RecordBatch,
    table: &Table,
    settings: &Settings,
    job: &str,
    run: u64,
) -> Result<RecordBatch> {
    let Some(name) = settings.run_column.as_ref().filter(|_| table.has_run_column(settings)) else {
        return Ok(batch);
    };
    let keys = Int8Array::from(vec![0; batch.num_rows()]);
    let values = StringArray::from(vec![run_name(job, run)]);
    let column: ArrayRef = Arc::new(DictionaryArray::<Int8Type>::try_new(keys, Arc::new(values))?);
    let mut fields: Vec<Arc<Field>> = batch.schema_ref().fields().to_vec();
    fields.push(Arc::new(Field::new(name, column.data_type().clone(), false)));
    let mut columns = batch.columns().to_vec();
    columns.push(column);
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).map_err(Error::from)
}

fn run_name(job: &str, run: u64) -> String {
    format!("{job}/{run}")
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_goes_on_behind_the_last_whole_chunk() {
        let chunks = [4, 4, 2].map(|rows| Chunk { rows, ..Chunk::default() });
        assert_eq!(whole_chunks(0, &chunks), 0);
        assert_eq!(whole_chunks(4, &chunks), 1);
        assert_eq!(whole_chunks(6, &chunks), 1);
        assert_eq!(whole_chunks(8, &chunks), 2);
        assert_eq!(whole_chunks(10, &chunks), 3);
    }

    #[test]
    fn words_in_statements_are_escaped() {
        assert_eq!(literal("it's \\"), "'it\\'s \\\\'");
        assert_eq!(quoted("a`b"), "`a\\`b`");
    }
}
