//! `CREATE LOAD`: rows of one interval after the other, copied to another system; `RUN LOAD` by hand.
//!
//! ```sql
//! CREATE LOAD revenue_hourly SCHEDULE CRON '5 * * * *' AT TIME ZONE 'UTC' WITH (retries = 5)
//! INTO warehouse.analytics.revenue
//! AS SELECT * FROM revenue WHERE window_start >= :from AND window_start < :to;
//! RUN LOAD revenue_hourly FOR '2026-01-01' TO '2026-02-01';
//! ```

use crate::dialect::{Cursor, OptionReader, parse_query};
use chrono::{DateTime, NaiveDate, NaiveDateTime, Utc};
use datafusion::common::ParamValues;
use datafusion::logical_expr::LogicalPlan;
use datafusion::scalar::ScalarValue;
use datafusion::sql::sqlparser::ast::Query;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use tidemill_core::{Code, Error, Result};
use tidemill_engine::from_datafusion;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateLoad {
    pub or_replace: bool,
    pub if_not_exists: bool,
    pub load: LoadDef,
}

/// A load as the journal keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadDef {
    pub name: String,
    /// `None`: only `RUN LOAD` starts it.
    pub schedule: Option<Schedule>,
    pub connection: String,
    /// Where within the connection, from the outside in; its last part is the table's or folder's name.
    pub target: Vec<String>,
    /// Tries after the first one; `None` takes the scheduler's default.
    pub retries: Option<u32>,
    /// Rows of one chunk; `None` takes the scheduler's default.
    pub chunk_rows: Option<u64>,
    /// Options for the sink, over those of the connection.
    pub options: BTreeMap<String, String>,
    /// The text behind `AS`, with `:from` and `:to`.
    pub query: String,
    /// The schema in which the query's unqualified names are looked up.
    pub default_schema: String,
    /// The statement as it was written.
    pub sql: String,
}

/// When a load runs. The interval of a run reaches from the schedule's time before to the run's own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schedule {
    /// Five fields, as crontab(5) has them.
    pub cron: String,
    /// IANA name.
    pub time_zone: String,
}

/// `RUN LOAD name [FOR from TO to]`; without an interval the newest one that is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunLoad {
    pub name: String,
    pub interval: Option<(DateTime<Utc>, DateTime<Utc>)>,
}

impl LoadDef {
    pub fn parse_query(&self) -> Result<Box<Query>> {
        parse_query(&self.query).map_err(|error| error.context(format!("load {}", self.name)))
    }

    /// Puts the interval in the place of `:from` and `:to`.
    pub fn bind(plan: LogicalPlan, from: DateTime<Utc>, to: DateTime<Utc>) -> Result<LogicalPlan> {
        let value = |at: DateTime<Utc>| {
            ScalarValue::TimestampMicrosecond(Some(at.timestamp_micros()), Some("UTC".into()))
        };
        let values = HashMap::from([("from".to_owned(), value(from)), ("to".to_owned(), value(to))]);
        plan.with_param_values(ParamValues::from(values)).map_err(from_datafusion)
    }
}

pub(super) fn parse(cursor: &mut Cursor<'_>, or_replace: bool, default_schema: &str) -> Result<CreateLoad> {
    let if_not_exists = cursor.take(&["IF", "NOT", "EXISTS"]);
    let name = cursor.ident()?;
    let schedule = match cursor.take(&["SCHEDULE"]) {
        true => Some(schedule(cursor)?),
        false => None,
    };
    let options = if cursor.take(&["WITH"]) { cursor.options()? } else { BTreeMap::new() };
    cursor.expect(&["INTO"])?;
    let mut target = cursor.dotted()?;
    if target.len() < 2 {
        return Err(Error::new(Code::InvalidStatement, format!("`{}` names no target", target.join(".")))
            .hint("INTO connection.table, or INTO connection.database.table"));
    }
    let connection = target.remove(0);
    cursor.expect(&["AS"])?;
    let (_, query) = cursor.with_text(Cursor::query)?;

    let mut reader = OptionReader::new("CREATE LOAD", options);
    let retries = reader.read("retries", |text| text.parse().map_err(|_| "a whole number".to_owned()));
    let chunk_rows = reader.count("chunk_rows");
    let options = reader.rest();
    reader.finish()?;
    let load = LoadDef {
        name,
        schedule,
        connection,
        target,
        retries,
        chunk_rows,
        options,
        query,
        default_schema: default_schema.to_owned(),
        sql: cursor.text().to_owned(),
    };
    Ok(CreateLoad { or_replace, if_not_exists, load })
}

fn schedule(cursor: &mut Cursor<'_>) -> Result<Schedule> {
    cursor.expect(&["CRON"])?;
    let cron = cursor.string()?;
    let time_zone = if cursor.take(&["AT", "TIME", "ZONE"]) { cursor.string()? } else { "UTC".to_owned() };
    Ok(Schedule { cron, time_zone })
}

pub(super) fn parse_run(cursor: &mut Cursor<'_>) -> Result<RunLoad> {
    cursor.expect(&["RUN", "LOAD"])?;
    let name = cursor.ident()?;
    if !cursor.take(&["FOR"]) {
        return Ok(RunLoad { name, interval: None });
    }
    let from = instant(&cursor.string()?)?;
    cursor.expect(&["TO"])?;
    let to = instant(&cursor.string()?)?;
    if from >= to {
        let message = format!("the interval ends ({to}) before it begins ({from})");
        return Err(Error::new(Code::InvalidStatement, message).hint("FOR earlier TO later"));
    }
    Ok(RunLoad { name, interval: Some((from, to)) })
}

/// A day, a time in UTC, or an RFC 3339 time.
fn instant(text: &str) -> Result<DateTime<Utc>> {
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Ok(time.to_utc());
    }
    for format in ["%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M"] {
        if let Ok(time) = NaiveDateTime::parse_from_str(text, format) {
            return Ok(time.and_utc());
        }
    }
    match NaiveDate::parse_from_str(text, "%Y-%m-%d") {
        Ok(day) => Ok(day.and_time(chrono::NaiveTime::MIN).and_utc()),
        Err(_) => Err(Error::new(Code::InvalidStatement, format!("`{text}` is no time"))
            .hint("such as '2026-01-01', '2026-01-01 12:00:00' (UTC) or '2026-01-01T12:00:00+02:00'")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Statement, parse};

    const LOAD: &str = "CREATE LOAD revenue_hourly SCHEDULE CRON '5 * * * *' AT TIME ZONE 'Europe/Berlin'
        WITH (retries = 3, chunk_rows = '1000', format = 'parquet') INTO warehouse.analytics.revenue
        AS SELECT * FROM revenue WHERE window_start >= :from AND window_start < :to";

    fn create(text: &str) -> Result<LoadDef> {
        match parse(text, "public")? {
            Statement::CreateLoad(create) => Ok(create.load),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn reads_everything_and_survives_the_journal() {
        let load = create(LOAD).unwrap();
        let schedule = Schedule { cron: "5 * * * *".to_owned(), time_zone: "Europe/Berlin".to_owned() };
        assert_eq!(load.schedule, Some(schedule));
        assert_eq!(
            (load.connection.as_str(), load.target.join(".").as_str()),
            ("warehouse", "analytics.revenue")
        );
        assert_eq!((load.retries, load.chunk_rows), (Some(3), Some(1_000)));
        assert_eq!(load.options["format"], "parquet");
        let json = serde_json::to_string(&load).unwrap();
        let back: LoadDef = serde_json::from_str(&json).unwrap();
        assert_eq!(back, load);
        assert!(back.parse_query().unwrap().to_string().contains(":from"));
    }

    #[tokio::test]
    async fn an_interval_takes_the_place_of_from_and_to() {
        let context = datafusion::prelude::SessionContext::new();
        let query = parse_query(
            "SELECT a FROM (VALUES (1, TIMESTAMP '2026-01-01T00:00:00'), (2, TIMESTAMP '2026-01-01T01:00:00')) \
             AS t(a, ts) WHERE ts >= :from AND ts < :to",
        )
        .unwrap();
        let plan = crate::plan_query(&context.state(), query).await.unwrap();
        let from = instant("2026-01-01").unwrap();
        let plan = LoadDef::bind(plan, from, from + chrono::TimeDelta::hours(1)).unwrap();
        let batches = context.execute_logical_plan(plan).await.unwrap().collect().await.unwrap();
        let rows: usize = batches.iter().map(|batch| batch.num_rows()).sum();
        assert_eq!(rows, 1, "the end is not in the interval");
    }

    #[test]
    fn refuses_a_target_without_a_table() {
        assert_eq!(create(&LOAD.replace(".analytics.revenue", "")).unwrap_err().code, Code::InvalidStatement);
    }

    #[test]
    fn runs_over_an_interval() {
        let run = |text: &str| match parse(text, "public") {
            Ok(Statement::RunLoad(run)) => {
                Ok(run.interval.map(|(from, to)| (from.to_rfc3339(), to.to_rfc3339())))
            }
            Ok(other) => panic!("{other:?}"),
            Err(error) => Err(error.code),
        };
        assert_eq!(run("RUN LOAD l"), Ok(None));
        assert_eq!(
            run("RUN LOAD l FOR '2026-01-01' TO '2026-01-01T12:00:00+02:00'"),
            Ok(Some(("2026-01-01T00:00:00+00:00".to_owned(), "2026-01-01T10:00:00+00:00".to_owned())))
        );
        assert_eq!(run("RUN LOAD l FOR '2026-01-02' TO '2026-01-01'"), Err(Code::InvalidStatement));
        assert_eq!(run("RUN LOAD l FOR 'May' TO '2026-01-01'"), Err(Code::InvalidStatement));
    }
}
