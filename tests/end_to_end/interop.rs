//! Tables that Spark wrote, read on every engine: `tests/interop` has them and the rows that Spark reads.

use crate::cluster::Cluster;
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;

#[test]
fn every_engine_reads_what_spark_wrote() {
    let tables =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/interop/tables").canonicalize().unwrap();
    let expected: Value =
        serde_json::from_slice(&std::fs::read(tables.join("expected.json")).unwrap()).unwrap();
    let answers = expected["answers"].as_array().unwrap();
    let names: BTreeSet<&str> = answers.iter().map(|answer| answer["table"].as_str().unwrap()).collect();
    let cluster = Cluster::in_a_folder();
    for name in names {
        let location = tables.join(name);
        let create =
            format!("CREATE EXTERNAL TABLE {name} STORED AS DELTA LOCATION '{}'", location.display());
        cluster.rows(&create).unwrap();
    }
    let mut wrong = Vec::new();
    for engine in ["in_process", "pipelined", "staged"] {
        for answer in answers {
            let sql = answer["sql"].as_str().unwrap().replace("{t}", answer["table"].as_str().unwrap());
            let found = cluster.answer("csv", &format!("SET engine = '{engine}'; {sql}"));
            let expected: Vec<String> = answer["rows"].as_array().unwrap().iter().map(line).collect();
            // The answer of SET, if any, and the names of the columns stand before the rows.
            let right = found.as_ref().is_ok_and(|text| {
                let lines: Vec<&str> = text.lines().collect();
                lines.len() > expected.len() && lines[lines.len() - expected.len()..] == expected
            });
            // What it cannot read it says, see docs/queries.md.
            let refused = found.as_ref().is_err_and(|error| error.contains("engine `staged` does not read"));
            if !(right || engine == "staged" && refused) {
                wrong.push(format!("{engine}: {sql}\n{found:?}\n{expected:?}"));
            }
        }
    }
    if !wrong.is_empty() {
        cluster.print_logs();
        panic!("{} answers are wrong:\n{}", wrong.len(), wrong.join("\n"));
    }
}

/// A row as CSV; no value of the tables needs quotes.
fn line(row: &Value) -> String {
    let values: Vec<&str> = row.as_array().unwrap().iter().map(|v| v.as_str().unwrap_or_default()).collect();
    values.join(",")
}
