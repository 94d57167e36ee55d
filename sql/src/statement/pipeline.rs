//! `CREATE STREAMING TABLE`: a pipeline and the table that it fills.
//!
//! ```sql
//! CREATE STREAMING TABLE [IF NOT EXISTS] revenue
//!   (CONSTRAINT priced EXPECT (price >= 0) ON VIOLATION DEAD LETTER)
//!   PARTITIONED BY (day)
//!   WITH (trigger = '1 second', buckets = 4, max_records_per_epoch = 100000, location = 's3://…')
//! AS SELECT …
//! ```

use crate::TableName;
use crate::dialect::{Cursor, OptionReader, duration_ms, parse_expr, parse_query};
use datafusion::sql::sqlparser::ast::{Expr, Query};
use datafusion::sql::sqlparser::tokenizer::Token;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use tidemill_core::{Code, Error, Result};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateStreamingTable {
    pub if_not_exists: bool,
    pub pipeline: PipelineDef,
}

/// A pipeline as the journal keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PipelineDef {
    /// The pipeline's name, which is its table's.
    pub name: TableName,
    pub expectations: Vec<Expectation>,
    pub partition_by: Vec<String>,
    pub trigger: Trigger,
    /// Buckets of keyed state; `None` takes `streaming.buckets`.
    pub buckets: Option<u32>,
    /// `None` takes `streaming.max_records_per_epoch`.
    pub max_records_per_epoch: Option<u64>,
    /// Where the table is; `None` is under the lake root.
    pub location: Option<String>,
    /// The text behind `AS`.
    pub query: String,
    /// The schema in which the query's unqualified names are looked up.
    pub default_schema: String,
    /// The statement as it was written.
    pub sql: String,
}

impl PipelineDef {
    /// The query as it was written: windows are not rewritten.
    pub fn parse_query(&self) -> Result<Box<Query>> {
        parse_query(&self.query).map_err(|error| error.context(format!("pipeline {}", self.name)))
    }
}

/// A condition on the source's rows. A row violates it when the condition is false; null passes, as in a
/// CHECK constraint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expectation {
    pub name: String,
    /// The condition's text.
    pub condition: String,
    pub on_violation: OnViolation,
}

impl Expectation {
    pub fn parse_condition(&self) -> Result<Expr> {
        parse_expr(&self.condition).map_err(|error| error.context(format!("expectation {}", self.name)))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnViolation {
    /// The row goes to the dead letters, with the expectation's name as the reason.
    DeadLetter,
    Drop,
    /// The epoch fails and the pipeline stops.
    Fail,
}

/// When the next epoch begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trigger {
    /// At most one epoch in this time.
    EveryMs(u64),
    /// As soon as there is something to read.
    Continuous,
    /// Until everything that was there at the start is read; then the pipeline pauses.
    AvailableNow,
}

const DEFAULT_TRIGGER: Trigger = Trigger::EveryMs(1_000);

pub(super) fn parse(cursor: &mut Cursor<'_>, default_schema: &str) -> Result<CreateStreamingTable> {
    let if_not_exists = cursor.take(&["IF", "NOT", "EXISTS"]);
    let name = cursor.table_name(default_schema)?;
    let expectations = if cursor.peek_is(&Token::LParen) { cursor.list(expectation)? } else { Vec::new() };
    let partition_by = match cursor.take(&["PARTITIONED", "BY"]) {
        true => cursor.idents_in_parentheses()?,
        false => Vec::new(),
    };
    let options = if cursor.take(&["WITH"]) { cursor.options()? } else { BTreeMap::new() };
    cursor.expect(&["AS"])?;
    let (_, query) = cursor.with_text(Cursor::query)?;

    let mut names: Vec<&str> = expectations.iter().map(|expectation| expectation.name.as_str()).collect();
    names.sort_unstable();
    if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        let message = format!("the expectation `{}` is declared twice", twice[0]);
        return Err(Error::new(Code::InvalidStatement, message));
    }
    let mut reader = OptionReader::new("CREATE STREAMING TABLE", options);
    let trigger = reader.read("trigger", trigger);
    let buckets = reader.count("buckets");
    let max_records_per_epoch = reader.count("max_records_per_epoch");
    let location = reader.text("location");
    reader.finish()?;
    let pipeline = PipelineDef {
        name,
        expectations,
        partition_by,
        trigger: trigger.unwrap_or(DEFAULT_TRIGGER),
        buckets,
        max_records_per_epoch,
        location,
        query,
        default_schema: default_schema.to_owned(),
        sql: cursor.text().to_owned(),
    };
    Ok(CreateStreamingTable { if_not_exists, pipeline })
}

fn expectation(cursor: &mut Cursor<'_>) -> Result<Expectation> {
    cursor.expect(&["CONSTRAINT"])?;
    let name = cursor.ident()?;
    cursor.expect(&["EXPECT"])?;
    cursor.expect_token(&Token::LParen)?;
    let (_, condition) = cursor.with_text(Cursor::expr)?;
    cursor.expect_token(&Token::RParen)?;
    cursor.expect(&["ON", "VIOLATION"])?;
    let on_violation = match cursor.one_of(&["DEAD", "DROP", "FAIL"])? {
        "DEAD" => {
            cursor.expect(&["LETTER"])?;
            OnViolation::DeadLetter
        }
        "DROP" => OnViolation::Drop,
        _ => OnViolation::Fail,
    };
    Ok(Expectation { name, condition, on_violation })
}

fn trigger(text: &str) -> Result<Trigger, String> {
    match text.to_lowercase().as_str() {
        "continuous" => Ok(Trigger::Continuous),
        "available_now" => Ok(Trigger::AvailableNow),
        interval => match duration_ms(interval) {
            Ok(ms) if ms > 0 => Ok(Trigger::EveryMs(ms)),
            _ => Err("a duration such as '1 second', 'continuous' or 'available_now'".to_owned()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Statement, parse};

    const REVENUE: &str = "CREATE STREAMING TABLE revenue_per_minute
        (CONSTRAINT priced EXPECT (price >= 0) ON VIOLATION DEAD LETTER,
         CONSTRAINT known EXPECT (event_type IN ('view', 'purchase')) ON VIOLATION DROP)
        PARTITIONED BY (day) WITH (trigger = '2 seconds', buckets = '8')
      AS SELECT window_start, sum(price) AS revenue
         FROM TUMBLE(events, ts, INTERVAL '1 minute') GROUP BY window_start;";

    fn create(text: &str) -> Result<PipelineDef> {
        match parse(text, "shop")? {
            Statement::CreateStreamingTable(create) => Ok(create.pipeline),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn reads_everything_and_survives_the_journal() {
        let pipeline = create(REVENUE).unwrap();
        assert_eq!(pipeline.name, TableName::new("shop", "revenue_per_minute"));
        assert_eq!(pipeline.expectations[0].condition, "price >= 0");
        assert_eq!(pipeline.expectations[1].on_violation, OnViolation::Drop);
        assert_eq!(pipeline.partition_by, ["day"]);
        assert_eq!(pipeline.trigger, Trigger::EveryMs(2_000));
        assert_eq!(pipeline.buckets, Some(8));
        assert!(
            pipeline.query.starts_with("SELECT window_start") && pipeline.query.ends_with("window_start")
        );
        let json = serde_json::to_string(&pipeline).unwrap();
        let back: PipelineDef = serde_json::from_str(&json).unwrap();
        assert_eq!(back, pipeline);
        back.parse_query().unwrap();
        back.expectations[1].parse_condition().unwrap();
    }

    #[test]
    fn needs_nothing_but_a_query() {
        let pipeline = create("CREATE STREAMING TABLE t AS SELECT * FROM events").unwrap();
        assert_eq!(pipeline.trigger, DEFAULT_TRIGGER);
        assert_eq!(pipeline.buckets, None);
    }

    #[test]
    fn says_everything_that_is_wrong_with_the_options() {
        let text =
            REVENUE.replace("trigger = '2 seconds', buckets = '8'", "tigger = '1 second', buckets = 0");
        let error = create(&text).unwrap_err();
        assert_eq!(error.code, Code::BadOption);
        assert!(error.message.contains("did you mean `trigger`?"), "{error}");
        assert!(error.message.contains("`buckets` is `0`"), "{error}");
    }

    #[test]
    fn refuses_two_expectations_of_one_name() {
        let error = create(&REVENUE.replace("CONSTRAINT known", "CONSTRAINT priced")).unwrap_err();
        assert_eq!(error.code, Code::InvalidStatement);
    }
}
